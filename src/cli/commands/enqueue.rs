//! `enqueue`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Batch, Format, InputError, Warning};
use super::super::render::{human, json};
use crate::model::JobSpec;
use crate::queue::Queue;
use crate::store::{Enqueued, StoreError};

pub(crate) fn enqueue(context: &Context, args: &args::Enqueue) -> Result<Exit, Failure> {
    let (specs, lines, is_batch) = jobs(context, args)?;
    if specs.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no job in the input").next("queuectl enqueue --help"));
    }
    let queue = context.open_or_create()?;
    let enqueued = queue.enqueue(&specs).map_err(|error| explain(error, &specs, &lines))?;
    show(&queue, args, &enqueued, is_batch)?;
    queue.leave();
    Ok(Exit::Done)
}

/// The jobs with the lines that they stand in, and whether they are a batch.
fn jobs(context: &Context, args: &args::Enqueue) -> Result<(Vec<JobSpec>, Vec<usize>, bool), Failure> {
    let base = context.base();
    let one = |spec| Ok((vec![spec], vec![1], false));
    if let Some(text) = &args.shell_text {
        return one(input::shell(text.clone().into_vec(), &base).map_err(wrong_input)?);
    }
    if !args.argv.is_empty() {
        let words = args.argv.iter().cloned().map(OsString::into_vec).collect();
        return one(input::argv(words, &base).map_err(wrong_input)?);
    }
    let file = match (&args.file, &args.job) {
        (Some(file), _) => file.as_os_str(),
        (None, Some(job)) if job != "-" => {
            return one(input::job(&job.clone().into_vec(), &base).map_err(wrong_input)?);
        }
        (None, _) => OsStr::new("-"),
    };
    let (name, bytes) = read_input(Path::new(file))?;
    let batch = input::lines(&bytes, Format::Auto, &base).map_err(|error| wrong_input(error).of(&name))?;
    let (lines, specs) = accept(batch, &name);
    Ok((specs, lines, true))
}

/// A file, or standard input for `-`, with what to call it.
pub(crate) fn read_input(file: &Path) -> Result<(String, Vec<u8>), Failure> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::new(Exit::Other, format!("cannot read standard input: {error}")))?;
        return Ok(("standard input".to_owned(), bytes));
    }
    let name = human::path(file);
    let bytes = fs::read(file).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::Usage } else { Exit::Other };
        Failure::new(exit, format!("cannot read {name}: {error}"))
    })?;
    Ok((name, bytes))
}

/// What was read, its warnings said.
pub(crate) fn accept(batch: Batch, name: &str) -> (Vec<usize>, Vec<JobSpec>) {
    for warning in &batch.warnings {
        match warning {
            Warning::CarriageReturns => say(format_args!("{name} has Windows line ends; their CR is dropped")),
            Warning::ByteOrderMark => say(format_args!("{name} begins with a byte order mark, which is dropped")),
        }
    }
    batch.jobs.into_iter().unzip()
}

/// Input that is not taken.
pub(crate) fn wrong_input(error: InputError) -> Failure {
    let exit = match error {
        InputError::DuplicateId { .. } => Exit::Refused,
        InputError::Job { .. } => Exit::Usage,
    };
    Failure::new(exit, error)
}

/// Which line of a batch the store refused.
pub(crate) fn explain(error: StoreError, specs: &[JobSpec], lines: &[usize]) -> Failure {
    let at = match &error {
        StoreError::Duplicate(id) => specs.iter().position(|spec| spec.id.as_ref() == Some(id)),
        _ => None,
    };
    let failure = Failure::from(error);
    match at {
        Some(at) if specs.len() > 1 => failure.of(format_args!("line {}", lines[at])),
        Some(_) | None => failure,
    }
}

fn show(queue: &Queue, args: &args::Enqueue, enqueued: &[Enqueued], is_batch: bool) -> Result<(), Failure> {
    let mut out = stdout();
    if args.json {
        show_json(queue, enqueued, is_batch, &mut out)?;
    } else if args.quiet {
        for job in enqueued {
            writeln!(out, "{}", job.id)?;
        }
    } else if let [job] = enqueued {
        writeln!(out, "✓ Job {} enqueued", job.id)?;
    } else {
        writeln!(out, "✓ {} enqueued", human::count(enqueued.len() as u64, "job"))?;
    }
    out.flush()?;
    Ok(())
}

fn show_json(queue: &Queue, enqueued: &[Enqueued], is_batch: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut separator = if is_batch { "[" } else { "" };
    for chunk in enqueued.chunks(1_000) {
        let jobs =
            queue.read(|snapshot| chunk.iter().map(|job| snapshot.job(job.seq)).collect::<Result<Vec<_>, _>>())?;
        for job in jobs.into_iter().flatten() {
            write!(out, "{separator}{}", serde_json::Value::from(json::job(&job, None)))?;
            separator = ",\n";
        }
    }
    writeln!(out, "{}", if is_batch { "]" } else { "" })?;
    Ok(())
}
