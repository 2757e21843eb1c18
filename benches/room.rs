//! A folder with a queue, its pool, and looking into it through the library.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use queuectl::model::{Attempt, StateKind};
use queuectl::queue::{Folder, Queue};
use queuectl::store::Cursor;
use tempfile::TempDir;

use super::Result;
use super::args::Args;
use super::process::{Background, program, text, timed};

/// A new folder on the disk that is measured.
#[derive(Debug)]
pub struct Room(TempDir);

impl Room {
    pub fn new(args: &Args) -> Result<Self> {
        std::fs::create_dir_all(&args.folder)?;
        // What was left to write by what ran before is not for this one to wait for.
        rustix::fs::sync();
        Ok(Self(tempfile::Builder::new().prefix("bench-").tempdir_in(&args.folder)?))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where its queue is.
    pub fn queue_path(&self) -> PathBuf {
        self.path().join("queue")
    }

    /// `queuectl` on its queue.
    pub fn queuectl(&self, words: &str) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_queuectl"), self.path());
        command.arg("--db").arg(self.queue_path()).args(words.split_whitespace());
        command
    }

    /// A file of lines.
    pub fn lines<L: std::fmt::Display>(&self, name: &str, lines: impl Iterator<Item = L>) -> Result<PathBuf> {
        let path = self.path().join(name);
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        Ok(path)
    }

    /// Jobs/s of `queuectl run` on a file of commands, in a new queue.
    pub fn run(&self, workers: usize, file: &Path, jobs: usize) -> Result<f64> {
        let took = timed(self.queuectl(&format!("run -j {workers} --quiet")).arg(file))?;
        self.is_done(jobs)?;
        Ok(jobs as f64 / took.as_secs_f64())
    }

    /// Fails unless so many jobs have completed, and no other is there.
    pub fn is_done(&self, jobs: usize) -> Result<()> {
        let counts = self.open()?.read(queuectl::store::Snapshot::counts)?;
        let there: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        if there == [(StateKind::Completed, jobs as u64)] {
            return Ok(());
        }
        Err(format!("not all of {jobs} jobs completed: {there:?}").into())
    }

    /// Fills the queue with so many jobs that do nothing.
    pub fn fill(&self, jobs: usize) -> Result<()> {
        let file = self.lines("jobs", std::iter::repeat_n("true", jobs))?;
        text(self.queuectl("enqueue --quiet --file").arg(&file))?;
        Ok(std::fs::remove_file(file)?)
    }

    /// The queue, for looking.
    pub fn open(&self) -> Result<Queue> {
        let folder = Folder::existing(&self.queue_path())?.ok_or("there is no queue")?;
        Ok(Queue::open_read_only(&folder, Box::new(|| {}))?)
    }

    /// The last attempts of the jobs that completed most lately, at least `count` of them if there are.
    pub fn attempts(&self, count: usize) -> Result<Vec<Attempt>> {
        let queue = self.open()?;
        let (mut attempts, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(at) = cursor.filter(|_| attempts.len() < count) {
            let page = queue.read(|snapshot| snapshot.page(Some(StateKind::Completed), &at, 1_000))?;
            attempts.extend(page.jobs.into_iter().filter_map(|job| job.last_attempt));
            cursor = page.next;
        }
        Ok(attempts)
    }

    /// A pool that works on its queue, and has said that it does.
    pub fn pool(&self, workers: usize) -> Result<Pool> {
        let mut command = self.queuectl(&format!("worker start --count {workers}"));
        let mut process = Background::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let stdout = process.0.stdout.take().ok_or("no stdout")?;
        let mut stderr = BufReader::new(process.0.stderr.take().ok_or("no stderr")?);
        let mut line = String::new();
        while !line.contains("started") {
            line.clear();
            if stderr.read_line(&mut line)? == 0 {
                return Err("the pool did not start".into());
            }
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Ok(Pool { process, stdout: BufReader::new(stdout) })
    }
}

/// A pool at work. It prints a line for each job that has ended.
#[derive(Debug)]
pub struct Pool {
    pub process: Background,
    stdout: BufReader<ChildStdout>,
}

impl Pool {
    /// Waits until so many more jobs have ended.
    pub fn await_jobs(&mut self, count: usize) -> Result<()> {
        let mut line = Vec::new();
        for _ in 0..count {
            line.clear();
            if self.stdout.read_until(b'\n', &mut line)? == 0 {
                return Err("the pool ended".into());
            }
        }
        Ok(())
    }

    /// Reads on and forgets it, so that the pool never waits for a reader.
    pub fn unread(self) -> Background {
        let Self { process, mut stdout } = self;
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        process
    }
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
