//! `import`.
//!
//! The input is read at least twice: once to check all of it, before anything is touched, and once inside the
//! transaction. What comes through a pipe is kept in a temporary file without a name for that.
//!
//! Crash points: until the commit nothing is imported. Where there are large outputs, their numbers are reserved by a
//! transaction before, so that a kill may leave a gap in the numbers and files that nobody has (see
//! [`crate::worker::Incoming`]). After the commit all of it is imported, large outputs included.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;

use serde_json::json;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::interchange::{BadExport, Item, OutputPart, PartEnd, Reader, Totals};
use super::super::render::human;
use crate::model::{CLOCK_BEHIND_WORTH_SAYING, Millis, Seq, SettingKey};
use crate::queue::Queue;
use crate::store::{Import, Piece, StoreError};
use crate::worker::{Incoming, remove_dead_bulks};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

pub(crate) fn import(context: &Context, args: &args::Import) -> Result<Exit, Failure> {
    let input = Input::open(&args.file)?;
    let survey = Survey::of(&input)?;
    let mut queue = context.open_or_create()?;
    // They might hold an id, or numbers, that is imported.
    context.first(&mut queue, |queue| remove_dead_bulks(queue, &BTreeSet::new()))?;
    let newest = newest(&queue, survey.exported_at);
    let outputs = if survey.has_outputs { take_outputs(context, &mut queue, &input, &survey)? } else { None };
    let taken = if outputs.is_some() {
        // Their numbers are set aside in this file.
        take(&input, newest, |import| import(&queue))
    } else {
        take(&input, newest, |import| context.first(&mut queue, import))
    };
    // Whatever became of it: a commit that failed half-way may name them.
    let may_be_named = taken.as_ref().map_or_else(|given_up| given_up.is_unknown, |_| true);
    if let Some(outputs) = outputs.filter(|_| may_be_named) {
        outputs.keep();
    }
    let kept_settings = taken.map_err(|given_up| given_up.failure)?;
    queue.leave();
    tell(args, &survey.totals, &kept_settings)
}

/// The time that the queue goes on from. One that is far ahead of the clock is not taken: the queue would never be
/// free of it.
fn newest(queue: &Queue, exported_at: Millis) -> Millis {
    let ahead = exported_at.since(queue.clock().now());
    if ahead <= CLOCK_BEHIND_WORTH_SAYING {
        return exported_at;
    }
    let ahead = human::about(ahead);
    say(format_args!(
        "the export is from a time {ahead} ahead of the clock, which is not taken: what waits for a time there waits"
    ));
    Millis(0)
}

/// The input, to be read more than once.
struct Input {
    name: String,
    file: File,
    start: u64,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        let (name, file) = if path.as_os_str() == "-" {
            ("standard input".to_owned(), io::stdin().as_fd().try_clone_to_owned().map(File::from))
        } else {
            (path.display().to_string(), File::open(path))
        };
        let failed = |error: io::Error| {
            let exit = if error.kind() == io::ErrorKind::NotFound { Exit::Usage } else { Exit::Other };
            Failure::new(exit, format!("cannot read {name}: {error}"))
        };
        let mut file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let mut kept = tempfile::tempfile().map_err(failed)?;
            io::copy(&mut file, &mut kept).map_err(failed)?;
            kept.rewind().map_err(failed)?;
            file = kept;
        }
        let start = file.stream_position().map_err(failed)?;
        Ok(Self { name, file, start })
    }

    /// From its start.
    fn reader(&self) -> Result<Reader<BufReader<&File>>, BadExport> {
        (&self.file).seek(io::SeekFrom::Start(self.start))?;
        Ok(Reader::new(BufReader::with_capacity(BUFFER_BYTES, &self.file)))
    }

    fn bad(&self, error: &BadExport) -> Failure {
        let failure = |exit| Failure::new(exit, error).of(&self.name);
        match error {
            BadExport::NotAnExport => failure(Exit::Usage)
                .next("queuectl enqueue --file FILE    takes commands, or jobs as JSON, a line each"),
            BadExport::CutShort(_) => failure(Exit::Usage).next("queuectl export --output FILE    writes it anew"),
            BadExport::Line { .. } => failure(Exit::Usage),
            BadExport::Io(why) => failure(Exit::of_system(why)),
        }
    }

    fn elsewhere(&self) -> String {
        format!(
            "queuectl --db NEWFOLDER import {}    into a queue of its own",
            if self.name == "standard input" { "-" } else { &self.name }
        )
    }
}

/// What an input has, all of it being right.
struct Survey {
    totals: Totals,
    exported_at: Millis,
    has_outputs: bool,
    /// The numbers of its jobs, first and last of each range.
    ranges: Vec<(Seq, Seq)>,
}

impl Survey {
    fn of(input: &Input) -> Result<Self, Failure> {
        Self::read(input).map_err(|error| input.bad(&error))
    }

    fn read(input: &Input) -> Result<Self, BadExport> {
        let mut reader = input.reader()?;
        let mut ranges: Vec<(Seq, Seq)> = Vec::new();
        let mut has_outputs = false;
        while let Some(item) = reader.next()? {
            match item {
                Item::Output(_) => has_outputs = true,
                Item::Piece(_, Piece::Job { job, .. }) => match ranges.last_mut() {
                    Some((_, last)) if last.0 + 1 == job.seq.0 => *last = job.seq,
                    Some(_) | None => ranges.push((job.seq, job.seq)),
                },
                Item::Piece(..) => {}
            }
        }
        Ok(Self { totals: *reader.totals(), exported_at: reader.exported_at(), has_outputs, ranges })
    }
}

/// Writes the large outputs.
fn take_outputs(
    context: &Context,
    queue: &mut Queue,
    input: &Input,
    survey: &Survey,
) -> Result<Option<Incoming>, Failure> {
    let outputs = queue.folder().join("output");
    let failed = |error: io::Error| {
        Failure::new(Exit::of_system(&error), format!("cannot write into {}: {error}", outputs.display()))
    };
    let mut incoming = Incoming::begin(queue.folder())
        .map_err(failed)?
        .ok_or_else(|| Failure::new(Exit::Refused, "another import with large outputs is at work on this queue"))?;
    let reserved = context.first(queue, |queue| queue.write(|tx| tx.reserve(&survey.ranges)));
    reserved.map_err(|error| refused(input, error, None))?;
    incoming.sweep(&survey.ranges).map_err(failed)?;
    let mut reader = input.reader().map_err(|error| input.bad(&error))?;
    loop {
        match reader.next() {
            Ok(Some(Item::Output(part))) => take_part(&mut incoming, &part).map_err(failed)?,
            Ok(Some(Item::Piece(..))) => {}
            Ok(None) => break,
            Err(error) => return Err(input.bad(&error)),
        }
    }
    incoming.sync().map_err(failed)?;
    Ok(Some(incoming))
}

fn take_part(incoming: &mut Incoming, part: &OutputPart) -> io::Result<()> {
    incoming.part(part.seq, part.attempt, part.stream, part.at, &part.bytes)?;
    match part.end {
        PartEnd::More => Ok(()),
        PartEnd::Last => incoming.complete(),
        PartEnd::Unreadable => incoming.give_up(),
    }
}

/// Why the transaction was given up.
struct GivenUp {
    failure: Failure,
    /// It may have happened all the same.
    is_unknown: bool,
}

/// The transaction, which `run` runs. Answers which settings the queue keeps.
fn take(
    input: &Input,
    newest: Millis,
    run: impl FnOnce(&mut dyn FnMut(&Queue) -> Result<Vec<String>, StoreError>) -> Result<Vec<String>, StoreError>,
) -> Result<Vec<String>, GivenUp> {
    let mut line = None;
    let mut bad = None;
    let taken = run(&mut |queue| {
        queue.write(|tx| {
            let mut reader = match input.reader() {
                Ok(reader) => reader,
                Err(error) => return Err(changed(&mut bad, error)),
            };
            let mut import = Import::begin(tx, newest)?;
            loop {
                match reader.next() {
                    Ok(Some(Item::Piece(at, piece))) => {
                        line = Some(at);
                        import.take(tx, piece)?;
                    }
                    Ok(Some(Item::Output(_))) => {}
                    Ok(None) => break,
                    Err(error) => return Err(changed(&mut bad, error)),
                }
            }
            line = None;
            import.finish(tx)
        })
    });
    taken.map_err(|error| {
        let is_unknown = error.outcome_is_unknown();
        let failure = bad.map_or_else(|| refused(input, error, line), |bad| input.bad(&bad));
        GivenUp { failure, is_unknown }
    })
}

/// The input is not what it was when it was checked.
fn changed(bad: &mut Option<BadExport>, error: BadExport) -> StoreError {
    *bad = Some(error);
    StoreError::Io(io::ErrorKind::InvalidData.into())
}

/// What the queue does not take.
fn refused(input: &Input, error: StoreError, line: Option<u64>) -> Failure {
    let is_taken = matches!(error, StoreError::Duplicate(_) | StoreError::Reserved(_) | StoreError::Contradiction(_));
    let failure = match (&error, line) {
        (StoreError::Contradiction(what), _) => Failure::new(Exit::Refused, what),
        _ => Failure::from(error),
    };
    if !is_taken {
        return failure;
    }
    let failure = match line {
        Some(line) => failure.of(format_args!("{}: line {line}", input.name)),
        None => failure.of(&input.name),
    };
    failure.and("nothing was imported").next(input.elsewhere())
}

fn tell(args: &args::Import, totals: &Totals, kept_settings: &[String]) -> Result<Exit, Failure> {
    let mut out = stdout();
    if args.json {
        let summary = json!({
            "jobs": totals.jobs,
            "attempts": totals.attempts,
            "runs": totals.runs,
            "environments": totals.environments,
            "settings": totals.settings - kept_settings.len() as u64,
            "output_bytes": totals.output_bytes,
            "settings_kept": kept_settings,
            "lost": totals.lost,
        });
        writeln!(out, "{summary}")?;
    } else {
        writeln!(out, "✓ {} imported", human::count(totals.jobs, "job"))?;
    }
    out.flush()?;
    for key in kept_settings.iter().filter_map(|key| SettingKey::from_name(key)) {
        say(format_args!("the setting {} stays as it is here", key.name()));
    }
    if totals.lost > 0 {
        let lost = human::count(totals.lost, "thing");
        say(format_args!("the export was made of a damaged queue: {lost} could not be read then"));
    }
    Ok(Exit::Done)
}
