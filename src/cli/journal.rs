//! What a pool tells while it works: a line for each run that ended, on standard output or in a log of bounded
//! size. Written by a thread of its own, so that a terminal that stands still never holds the pool up.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::context::{say, stdout};
use super::exit::with_lines;
use super::render::human;
use super::why;
use crate::model::{JobId, Outcome, StateKind};
use crate::worker::{JobNews, News, Observer, spawn_shielded};

/// A log that has grown to this size, in bytes, becomes the old one and a new one begins.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub(super) struct Journal {
    lines: Mutex<Option<Sender<Line>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    deaths: AtomicU64,
}

enum Line {
    /// Of jobs that ended: results.
    Jobs(Vec<String>),
    /// About the pool itself: talk.
    Note(String),
}

impl Journal {
    /// Job lines to standard output, notes to standard error.
    pub(super) fn to_terminal() -> io::Result<Self> {
        Self::with(|line| {
            match line {
                // Nobody may be listening any more: that is no reason to stop working.
                Line::Jobs(lines) => drop(writeln!(stdout(), "{}", lines.join("\n"))),
                Line::Note(text) => say(format_args!("{text}")),
            }
        })
    }

    /// Everything to a file.
    pub(super) fn to_file(path: &Path) -> io::Result<Self> {
        let mut log = Log::open(path)?;
        Self::with(move |line| {
            let lines = match line {
                Line::Jobs(lines) => lines,
                Line::Note(text) => vec![text],
            };
            for line in lines {
                // A full disk costs log lines, not jobs.
                let _ = log.write(&line);
            }
        })
    }

    fn with(mut write: impl FnMut(Line) + Send + 'static) -> io::Result<Self> {
        let (lines, received) = mpsc::channel();
        let writer = spawn_shielded(move || received.into_iter().for_each(&mut write))?;
        Ok(Self { lines: Mutex::new(Some(lines)), writer: Mutex::new(Some(writer)), deaths: AtomicU64::new(0) })
    }

    fn send(&self, line: Line) {
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = lines.send(line);
        }
    }

    /// Notes something about the pool.
    pub(super) fn note(&self, text: &str) {
        self.send(Line::Note(text.to_owned()));
    }

    /// Writes what is left.
    pub(super) fn close(&self) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }

    /// How many jobs died.
    pub(super) fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }
}

impl Observer for Journal {
    fn news(&self, news: News) {
        if let News::Recovered { dead, .. } = &news {
            self.deaths.fetch_add(*dead as u64, Ordering::Relaxed);
        }
        self.note(&words(&news, "Ctrl-C once more, or `queuectl worker stop --now`, ends what runs"));
    }

    fn finished(&self, jobs: Vec<JobNews>) {
        let dead = jobs.iter().filter(|job| job.progress.state.kind() == StateKind::Dead).count();
        self.deaths.fetch_add(dead as u64, Ordering::Relaxed);
        self.send(Line::Jobs(jobs.iter().map(job_line).collect()));
    }
}

/// One line for a run that ended.
fn job_line(job: &JobNews) -> String {
    let (run, kind) = (&job.run, job.progress.state.kind());
    let mark = match (run.outcome, kind) {
        (Outcome::Completed, _) => '✓',
        (_, StateKind::Dead) => '✗',
        _ => '·',
    };
    let style = human::style(kind);
    let took = human::about(run.ended.since(run.started));
    let (called, outcome) = (human::called(job.id.as_str(), job.name.as_ref()), run.outcome.name().replace('_', " "));
    let mut line = format!("{style}{mark}{style:#} {called} {outcome} in {took}");
    if let Some(error) = &run.error {
        line = format!("{line} ({})", human::plain(error));
    }
    match job.progress.state.due() {
        Some(due) => format!("{line}, retry in {}", human::about(due.since(run.ended))),
        None if kind == StateKind::Dead => format!("{line}, dead"),
        None if kind == StateKind::Pending => format!("{line}, will run again"),
        None => line,
    }
}

/// News of a pool in words; `how_to_end` says what ends jobs that are waited for.
pub(super) fn words(news: &News, how_to_end: &str) -> String {
    match news {
        News::Stopping { running, ending } if running.is_empty() => {
            if *ending { "stopping" } else { "stopping: no job is running" }.to_owned()
        }
        News::Stopping { running, ending } => {
            let ids: Vec<&str> = running.iter().take(5).map(JobId::as_str).collect();
            let more = if running.len() > ids.len() { ", …" } else { "" };
            let jobs = format!("{} ({}{more})", human::count(running.len() as u64, "job"), ids.join(", "));
            if *ending {
                format!("ending {jobs}; once more kills")
            } else {
                format!("waiting for {jobs} to finish; {how_to_end}")
            }
        }
        News::Recovered { pool, jobs, ended, dead } => {
            let ended = if *ended == 0 {
                String::new()
            } else {
                format!(" after ending {}", human::count(*ended as u64, "process"))
            };
            let dead = match dead {
                0 => String::new(),
                dead => format!("; {dead} of them dead"),
            };
            format!("pool {pool} died: took over its {}{ended}{dead}", human::count(*jobs as u64, "job"))
        }
        News::Waiting { what, now } => why::standstill(what, *now).map(with_lines).unwrap_or_default(),
        News::Stuck(what) | News::Trouble(what) => human::plain(what),
        News::Deaf(why) => {
            format!("looking every 250 ms instead of waiting for changes: {}", human::plain(why))
        }
    }
}

/// A log file of bounded size.
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), bytes: file.metadata()?.len(), file })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.bytes >= LOG_BYTES_MAX {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *self = Self::open(&self.path)?;
        }
        let line = format!("{} {}\n", now(), anstream::adapter::strip_str(text));
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// The time for a log line.
fn now() -> crate::model::Millis {
    crate::queue::Clock::default().now()
}
