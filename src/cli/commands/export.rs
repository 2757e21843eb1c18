//! `export`.
//!
//! It reads one snapshot, which holds up nobody: pools work on, and the file keeps the pages of that moment for as long
//! as it takes, so that it may grow.
//!
//! Crash points: a file that was asked for takes its name when all of it is on disk; a kill before leaves a `.tmp` file
//! beside it. Standard output that was cut short has no last line, and `import` refuses it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::super::args;
use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::interchange::{self, Note, Stop, Written};
use super::super::render::human;
use super::status::shell_word;
use crate::queue::Queue;

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// How many losses and missing files are named.
const NAMED_MAX: u64 = 100;

pub(crate) fn export(context: &Context, args: &args::Export) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let mut told = Told::default();
    let written = match &args.output {
        Some(path) if !path.exists() || path.is_file() => to_file(&queue, path, &mut told)?,
        Some(path) => {
            let file = File::options().write(true).open(path).map_err(|error| unwritable(path, &error))?;
            write(&queue, file, &mut told).map_err(|stop| stopped(stop, &path.display().to_string()))?
        }
        // As it is: nothing in it is colour.
        None => write(&queue, io::stdout().lock(), &mut told).map_err(|stop| stopped(stop, "standard output"))?,
    };
    queue.leave();
    tell(&written, &told, args)
}

/// What was told so far.
#[derive(Default)]
struct Told {
    lost: u64,
    missing: u64,
}

impl Told {
    fn note(&mut self, note: Note) {
        match note {
            Note::Lost(what) => {
                self.lost += 1;
                if self.lost <= NAMED_MAX {
                    say(format_args!("lost: {}", human::plain(&what)));
                }
            }
            Note::Missing(path) => {
                self.missing += 1;
                if self.missing <= NAMED_MAX {
                    say(format_args!("warning: an output is missing, or not as long as it was: {}", path.display()));
                }
            }
        }
    }
}

fn write(queue: &Queue, to: impl Write, told: &mut Told) -> Result<Written, Stop> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, to);
    let (now, folder) = (queue.clock().now(), queue.folder());
    let mut written = None;
    let read = queue.read(|snapshot| {
        written = Some(interchange::write(snapshot, folder, now, &mut out, &mut |note| told.note(note)));
        Ok(())
    });
    read.map_err(Stop::Store)?;
    let written = written.unwrap_or_else(|| Ok(Written::default()))?;
    out.flush().map_err(Stop::Output)?;
    Ok(written)
}

fn to_file(queue: &Queue, path: &Path, told: &mut Told) -> Result<Written, Failure> {
    let unwritable = |error: io::Error| unwritable(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable for its owner only: it has environments.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    let new = tempfile::Builder::new().prefix(&name).suffix(".tmp").tempfile_in(folder).map_err(unwritable)?;
    let written = write(queue, new.as_file(), told).map_err(|stop| stopped(stop, &path.display().to_string()))?;
    new.as_file().sync_all().map_err(unwritable)?;
    new.persist(path).map_err(|error| unwritable(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    Ok(written)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Other, format!("cannot write {}: {error}", path.display()))
}

fn stopped(stop: Stop, to: &str) -> Failure {
    match stop {
        Stop::Store(error) => Failure::from(error).next("queuectl check    tells what is wrong with the queue"),
        Stop::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Failure::silent(Exit::Done),
        Stop::Output(error) => Failure::new(Exit::Other, format!("cannot write {to}: {error}")),
    }
}

fn tell(written: &Written, told: &Told, args: &args::Export) -> Result<Exit, Failure> {
    let totals = &written.totals;
    let jobs = human::count(totals.jobs, "job");
    let environments = match totals.environments {
        0 => String::new(),
        1 => ", with the environment that they were enqueued in: keep it private".to_owned(),
        n => format!(", with the {n} environments that they were enqueued in: keep it private"),
    };
    say(format_args!("exported {jobs}{environments}"));
    if written.held > 0 {
        let held = human::count(written.held, "job");
        say(format_args!("{held} that a pool has taken: exported as pending, or cancelled if that was asked"));
    }
    for (what, told) in [("losses", told.lost), ("missing outputs", told.missing)] {
        if told > NAMED_MAX {
            say(format_args!("and {} more {what}", told - NAMED_MAX));
        }
    }
    if totals.lost == 0 {
        return Ok(Exit::Done);
    }
    let file = args.output.as_ref().map_or("FILE".to_owned(), |path| shell_word(&path.to_string_lossy()));
    let lost = human::count(totals.lost, "thing");
    Err(Failure::new(Exit::QueueUnusable, format!("the queue is damaged: {lost} could not be read and is not exported as it was"))
        .next(format_args!("queuectl --db NEWFOLDER import {file}    makes a queue of what was exported")))
}
