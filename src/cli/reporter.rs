//! What `run` shows while it works: each job's output as the job ends, and a bar on a terminal.
//!
//! A thread of its own prints, so that a terminal or pipe that stands still never holds the pool up. Outputs that
//! wait for it are let go beyond a limit and read from the queue when their turn comes.

use std::fmt;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::commands::logs;
use super::journal::words;
use super::render::human;
use super::terminal::JobOutput;
use crate::model::{Kept, Seq, StateKind, Stream};
use crate::queue::{Folder, Queue};
use crate::store::RunInfo;
use crate::worker::{JobNews, News, Observer, output_path, spawn_shielded};

/// Most bytes of small outputs that wait to be printed.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Reporter {
    lines: Mutex<Option<Sender<Vec<Message>>>>,
    printer: Mutex<Option<JoinHandle<()>>>,
    waiting: Arc<AtomicUsize>,
    quiet: bool,
}

enum Message {
    /// A job has ended for good, with what its last attempt wrote.
    Ended { seq: Seq, attempt: u32, outputs: [(Stream, Piece); 2], failed: bool },
    /// About a job or the pool.
    Note(String),
}

/// A stream of an attempt on its way to being printed.
enum Piece {
    Nothing,
    Bytes(Vec<u8>),
    File,
    /// In the queue file: it had to make room.
    InQueue,
}

impl Reporter {
    pub(super) fn new(queue: &Queue, run: &RunInfo, quiet: bool) -> io::Result<Self> {
        let (lines, received) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let printer = Printer {
            folder: queue.folder().to_owned(),
            queue: None,
            waiting: Arc::clone(&waiting),
            bar: bar(run, quiet),
            out: JobOutput::new(false),
        };
        let printer = spawn_shielded(move || printer.run(&received))?;
        Ok(Self { lines: Mutex::new(Some(lines)), printer: Mutex::new(Some(printer)), waiting, quiet })
    }

    fn send(&self, messages: Vec<Message>) {
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = lines.send(messages);
        }
    }

    /// Prints what is left.
    pub(super) fn close(&self) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(printer) = self.printer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = printer.join();
        }
    }

    fn piece(&self, kept: Kept) -> Piece {
        match kept {
            Kept::Empty => Piece::Nothing,
            Kept::File { .. } => Piece::File,
            Kept::Inline(bytes) => {
                if self.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() > WAITING_BYTES_MAX {
                    self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                    return Piece::InQueue;
                }
                Piece::Bytes(bytes)
            }
        }
    }

    /// What is to be printed of a run that ended.
    fn ended(&self, job: JobNews) -> Option<Message> {
        let kind = job.progress.state.kind();
        if kind.has_ended() {
            let outputs = [(Stream::Stdout, self.piece(job.run.stdout)), (Stream::Stderr, self.piece(job.run.stderr))];
            let failed = kind != StateKind::Completed;
            Some(Message::Ended { seq: job.seq, attempt: job.attempt, outputs, failed })
        } else if let (Some(due), false) = (job.progress.state.due(), self.quiet) {
            let error = job.run.error.as_deref().map_or_else(|| "failed".to_owned(), human::plain);
            let wait = human::about(due.since(job.run.ended));
            Some(Message::Note(format!("job {} failed ({error}); retry in {wait}", job.id)))
        } else {
            None
        }
    }
}

impl Observer for Reporter {
    fn news(&self, news: News) {
        match news {
            News::Recovered { .. } if self.quiet => {}
            other => self.send(vec![Message::Note(words(&other, "Ctrl-C once more ends what runs"))]),
        }
    }

    fn finished(&self, jobs: Vec<JobNews>) {
        self.send(jobs.into_iter().filter_map(|job| self.ended(job)).collect());
    }
}

/// A bar on standard error, if that is a terminal.
fn bar(run: &RunInfo, quiet: bool) -> ProgressBar {
    let total = run.total();
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(total).with_position(total - run.unfinished());
    set_template(&bar, "{bar:30} {pos}/{len} jobs", 0);
    bar.tick();
    bar
}

/// Rate and time left count from `from`: what was done before this process began says nothing of its speed.
fn set_template(bar: &ProgressBar, template: &str, from: u64) {
    let Ok(style) = ProgressStyle::with_template(template) else { return };
    let per_second = move |state: &ProgressState| {
        to_f64(state.pos().saturating_sub(from)) / state.elapsed().as_secs_f64().max(0.001)
    };
    let rate = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{:.1}/s", per_second(state));
    };
    let left = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let jobs = to_f64(state.len().unwrap_or_default().saturating_sub(state.pos()));
        let seconds = Duration::try_from_secs_f64(jobs / per_second(state)).unwrap_or_default();
        let _ = write!(out, "{}", human::about(seconds));
    };
    bar.set_style(style.with_key("rate", rate).with_key("left", left));
}

/// A count of jobs, for a quotient: exact up to four thousand million.
fn to_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

struct Printer {
    folder: PathBuf,
    queue: Option<Queue>,
    waiting: Arc<AtomicUsize>,
    bar: ProgressBar,
    out: JobOutput,
}

impl Printer {
    fn run(mut self, messages: &Receiver<Vec<Message>>) {
        // Rate and time left mean something from the first end on.
        let mut template = Some("{bar:30} {pos}/{len} jobs  {rate:.dim}  {left} left{msg}");
        let (mut failures, from) = (0, self.bar.position());
        for message in messages.iter().flatten() {
            match message {
                Message::Note(text) => self.bar.suspend(|| super::context::say(format_args!("{text}"))),
                Message::Ended { seq, attempt, outputs, failed } => {
                    let bar = self.bar.clone();
                    for (stream, piece) in outputs {
                        // Nobody may be listening any more: the jobs run all the same.
                        bar.suspend(|| drop(self.print(seq, attempt, stream, piece)));
                    }
                    bar.suspend(|| drop(self.out.end()));
                    if failed {
                        failures += 1;
                        bar.set_message(format!("  {failures} failed"));
                    }
                    if let Some(template) = template.take() {
                        set_template(&bar, template, from);
                    }
                    bar.inc(1);
                }
            }
        }
        self.bar.finish_and_clear();
    }

    fn print(&mut self, seq: Seq, attempt: u32, stream: Stream, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Nothing => {}
            Piece::Bytes(bytes) => {
                self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                self.out.copy(stream, &mut bytes.as_slice())?;
            }
            Piece::File => {
                let file = std::fs::File::open(output_path(&self.folder, seq, attempt, stream))?;
                let bytes = file.metadata()?.len();
                self.out.copy(stream, &mut file.take(bytes))?;
            }
            Piece::InQueue => {
                if self.queue.is_none() {
                    let folder = Folder::existing(&self.folder).ok().flatten();
                    self.queue = folder.and_then(|folder| Queue::open_read_only(&folder, Box::new(|| {})).ok());
                }
                if let Some(queue) = &self.queue {
                    let _ = logs::print(queue, seq, attempt, stream, 0, &mut self.out);
                }
            }
        }
        Ok(())
    }
}
