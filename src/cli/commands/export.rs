//! `export`.
//!
//! It reads one snapshot, which holds up nobody: pools work on, and the file keeps the pages of that moment for as long
//! as it takes, so that it may grow.
//!
//! Crash points: a file that was asked for takes its name when all of it is on disk; a kill before leaves a `.tmp` file
//! beside it. Standard output that was cut short has no last line, and `import` refuses it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::args;
use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::interchange::{self, Note, Stop, Written};
use super::super::render::human;
use super::status::shell_word;
use crate::model::Millis;
use crate::queue::{Clock, Queue};
use crate::store::{Salvage, Snapshot, StoreError};

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// What is said of where results go.
const STDOUT: &str = "standard output";
/// How many losses and missing files are named.
const NAMED_MAX: u64 = 100;

pub(crate) fn export(context: &Context, args: &args::Export) -> Result<Exit, Failure> {
    let source = match context.open_read_only_or_damaged()? {
        Ok(queue) => Source::Queue(queue),
        Err(why) => {
            say(format_args!("the queue file is damaged: {why}; exporting what can be read of it"));
            let scratch = tempfile::tempdir()?;
            let left = Salvage::open(context.folder_path(), scratch.path())
                .map_err(|error| context.explain(error).next("queuectl restore BACKUP    if you have a backup"))?;
            Source::Damaged { folder: context.folder_path().to_owned(), left, _scratch: scratch }
        }
    };
    let mut told = Told::default();
    let written = match &args.output {
        Some(path) if !path.exists() || path.is_file() => to_file(&source, path, &mut told)?,
        Some(path) => {
            let file = File::options().write(true).open(path).map_err(|error| Failure::of_writing(path, &error))?;
            write(&source, file, &mut told).map_err(|stop| stopped(stop, &path.display().to_string()))?
        }
        // As it is: nothing in it is colour.
        None => write(&source, io::stdout().lock(), &mut told).map_err(|stop| stopped(stop, STDOUT))?,
    };
    let was_damaged = matches!(source, Source::Damaged { .. });
    if let Source::Queue(queue) = source {
        queue.leave();
    }
    tell(&written, &told, args, was_damaged)
}

/// Where the jobs come from.
enum Source {
    Queue(Queue),
    /// What is left of a queue.
    Damaged {
        folder: PathBuf,
        left: Salvage,
        _scratch: TempDir,
    },
}

impl Source {
    fn folder(&self) -> &Path {
        match self {
            Self::Queue(queue) => queue.folder(),
            Self::Damaged { folder, .. } => folder,
        }
    }

    fn now(&self) -> Millis {
        match self {
            Self::Queue(queue) => queue.clock().now(),
            Self::Damaged { .. } => Clock::default().now(),
        }
    }

    fn read(&self, look: impl FnOnce(&Snapshot) -> Result<(), StoreError>) -> Result<(), StoreError> {
        match self {
            Self::Queue(queue) => queue.read(look),
            Self::Damaged { left, .. } => left.store.read(look),
        }
    }
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

fn write(source: &Source, to: impl Write, told: &mut Told) -> Result<Written, Stop> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, to);
    let (now, folder) = (source.now(), source.folder());
    let losses = match source {
        Source::Queue(_) => Vec::new(),
        Source::Damaged { left, .. } => left.losses().collect(),
    };
    let mut written = None;
    let read = source.read(|snapshot| {
        written = Some(interchange::write(snapshot, folder, now, losses, &mut out, &mut |note| told.note(note)));
        Ok(())
    });
    read.map_err(Stop::Store)?;
    let written = written.unwrap_or_else(|| Ok(Written::default()))?;
    out.flush().map_err(Stop::Output)?;
    Ok(written)
}

fn to_file(source: &Source, path: &Path, told: &mut Told) -> Result<Written, Failure> {
    let unwritable = |error: io::Error| Failure::of_writing(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable for its owner only: it has environments.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    let new = tempfile::Builder::new().prefix(&name).suffix(".tmp").tempfile_in(folder).map_err(unwritable)?;
    let written = write(source, new.as_file(), told).map_err(|stop| stopped(stop, &path.display().to_string()))?;
    new.as_file().sync_all().map_err(unwritable)?;
    new.persist(path).map_err(|error| unwritable(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    Ok(written)
}

fn stopped(stop: Stop, to: &str) -> Failure {
    match stop {
        Stop::Store(error) => Failure::from(error).next("queuectl check --repair    makes what it can of the queue"),
        Stop::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Failure::silent(Exit::Done),
        // Where results go is not the queue's disk.
        Stop::Output(error) if to == STDOUT => Failure::new(Exit::Other, format!("cannot write to {to}: {error}")),
        Stop::Output(error) => Failure::new(Exit::of_system(&error), format!("cannot write to {to}: {error}")),
    }
}

fn tell(written: &Written, told: &Told, args: &args::Export, was_damaged: bool) -> Result<Exit, Failure> {
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
    if totals.lost == 0 && !was_damaged {
        return Ok(Exit::Done);
    }
    let file = args.output.as_ref().map_or("FILE".to_owned(), |path| shell_word(&path.to_string_lossy()));
    let lost = match totals.lost {
        0 => "all of it could be read all the same".to_owned(),
        lost => format!(
            "what could not be read is not in the export, or stands in it as told ({})",
            human::count(lost, "loss")
        ),
    };
    Err(Failure::new(Exit::QueueUnusable, format!("the queue is damaged: {lost}"))
        .next(format_args!("queuectl --db NEWFOLDER import {file}    makes a queue of what was exported")))
}
