//! What `run` shows while it works: each job's output as the job ends, and a bar on a terminal.
//!
//! A thread of its own prints, so that a terminal or pipe that stands still never holds the pool up. Outputs that
//! wait for it are let go beyond a limit and read from the queue when their turn comes.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::bar::Bar;
use super::commands::logs::{self, Start};
use super::journal::words;
use super::render::human;
use super::terminal::JobOutput;
use crate::model::{Kept, Seq, StateKind, Stream};
use crate::queue::{Folder, Queue};
use crate::store::RunInfo;
use crate::worker::{JobNews, News, Observer, Standstill, output_path, spawn_shielded};

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
            out: JobOutput::new(false),
        };
        let (total, left) = (run.total(), run.unfinished());
        let bar = Bar::new(total, total - left, !quiet, queue.clock());
        let printer = spawn_shielded(move || printer.run(&received, bar, total - left))?;
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
            Kept::Empty | Kept::LetGo { .. } => Piece::Nothing,
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

    /// Says something, beside the bar.
    pub(super) fn note(&self, text: String) {
        self.send(vec![Message::Note(text)]);
    }

    /// A job has ended, by whichever pool: what its last attempt wrote is read from the queue.
    pub(super) fn has_ended(&self, seq: Seq, attempt: u32, failed: bool) {
        let outputs = [(Stream::Stdout, Piece::InQueue), (Stream::Stderr, Piece::InQueue)];
        self.send(vec![Message::Ended { seq, attempt, outputs, failed }]);
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
            let called = human::called(job.id.as_str(), job.name.as_ref());
            Some(Message::Note(format!("job {called} failed ({error}); retry in {wait}")))
        } else {
            None
        }
    }
}

impl Observer for Reporter {
    fn news(&self, news: News) {
        match news {
            News::Recovered { .. } | News::Waiting { what: Standstill::Until(_), .. } if self.quiet => {}
            other => self.send(vec![Message::Note(words(&other, "Ctrl-C once more ends what runs"))]),
        }
    }

    fn finished(&self, jobs: Vec<JobNews>) {
        self.send(jobs.into_iter().filter_map(|job| self.ended(job)).collect());
    }
}

struct Printer {
    folder: PathBuf,
    queue: Option<Queue>,
    waiting: Arc<AtomicUsize>,
    out: JobOutput,
}

impl Printer {
    fn run(mut self, messages: &Receiver<Vec<Message>>, mut bar: Bar, mut done: u64) {
        let mut failures = 0;
        while let Ok(mut batch) = messages.recv() {
            while let Some(more) = Some(bar.rest()).filter(|rest| !rest.is_zero()) {
                let Ok(more) = messages.recv_timeout(more) else { break };
                batch.extend(more);
            }
            for message in &batch {
                if let Message::Ended { failed, .. } = message {
                    done += 1;
                    failures += u64::from(*failed);
                }
            }
            bar.show(done, failures, || batch.into_iter().for_each(|message| self.tell(message)));
        }
        bar.clear();
    }

    fn tell(&mut self, message: Message) {
        match message {
            Message::Note(text) => super::context::say(format_args!("{text}")),
            Message::Ended { seq, attempt, outputs, .. } => {
                for (stream, piece) in outputs {
                    // Nobody may be listening any more: the jobs run all the same.
                    let _ = self.print(seq, attempt, stream, piece);
                }
                let _ = self.out.end();
            }
        }
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
                    let _ = logs::print(queue, seq, attempt, stream, Start::Byte(0), &mut self.out);
                }
            }
        }
        Ok(())
    }
}
