//! `worker start --detach` and `run --detach`: the same program again, in a session of its own, with a log for a terminal.
//!
//! The parent waits for one line on a pipe, which says that the pool is registered; if the pipe ends without it,
//! the child has said on standard error why.

use std::env;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::args::{Run, WorkerStart};
use super::context::stdout;
use super::exit::{Exit, Failure};
use super::render::human;
use crate::model::PoolId;
use crate::worker::spawn_detached;

/// A pool in the background.
struct Started {
    pool: String,
    /// Its process and its log, in words.
    process: String,
}

/// Starts a pool in the background and says what it is called.
pub(super) fn start(queue: &Path, args: &WorkerStart) -> Result<Exit, Failure> {
    let mut words: Vec<OsString> = vec!["worker".into(), "start".into(), "--detached".into()];
    words.extend(["--count".into(), args.count.to_string().into()]);
    for queue in &args.queues {
        words.extend(["--queue".into(), queue.as_str().into()]);
    }
    if args.until_empty {
        words.push("--until-empty".into());
    }
    let Started { pool, process } = spawn(queue, words)?;
    let mut out = stdout();
    writeln!(out, "✓ Pool {pool} started in the background ({process})")?;
    out.flush()?;
    Ok(Exit::Done)
}

/// Lets a run that is stored be worked on in the background, and says what it is called.
pub(super) fn run(queue: &Path, args: &Run, number: u64) -> Result<Exit, Failure> {
    let mut words: Vec<OsString> = vec!["run".into(), "--detached".into(), number.to_string().into()];
    if let Some(jobs) = args.jobs {
        words.extend(["--jobs".into(), jobs.to_string().into()]);
    }
    let Started { process, .. } = spawn(queue, words)?;
    tell_run(number, &format!("started in the background ({process})"), args)
}

/// Says what has become of a run that is in the background.
pub(super) fn tell_run(number: u64, what: &str, args: &Run) -> Result<Exit, Failure> {
    let mut out = stdout();
    if args.quiet {
        writeln!(out, "{number}")?;
    } else {
        writeln!(out, "✓ Run {number} {what}")?;
        writeln!(out, "  to look on, type: queuectl attach {number}")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn spawn(queue: &Path, words: Vec<OsString>) -> Result<Started, Failure> {
    let program = env::current_exe()?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let null = File::open("/dev/null")?;
    let words = [program.clone().into(), "--db".into(), queue.into()].into_iter().chain(words);
    let word = |word: OsString| CString::new(word.into_vec()).map_err(|error| Failure::new(Exit::Usage, error));
    let words: Vec<CString> = words.map(word).collect::<Result<_, _>>()?;
    let pid = spawn_detached(&program, &words, null.as_fd(), write.as_fd(), io::stderr().as_fd())
        .map_err(|error| Failure::new(Exit::Other, format!("cannot start a pool in the background: {error}")))?;
    drop(write);
    let mut pool = String::new();
    BufReader::new(File::from(read)).read_line(&mut pool)?;
    let pool = pool.trim();
    if pool.is_empty() {
        return Err(Failure::new(Exit::Other, "the pool did not start"));
    }
    let process = format!("process {pid}, log {}", human::path(&log_of(queue, pid)));
    Ok(Started { pool: pool.to_owned(), process })
}

/// The log of the pool in this process.
pub(super) fn log_path(queue: &Path) -> PathBuf {
    log_of(queue, std::process::id())
}

fn log_of(queue: &Path, pid: u32) -> PathBuf {
    queue.join("log").join(format!("worker-{pid}.log"))
}

/// In the background process: the pool is registered. From here on nobody listens.
pub(super) fn tell_ready(pool: &PoolId) -> Result<(), Failure> {
    let mut pipe = io::stdout();
    writeln!(pipe, "{pool}")?;
    pipe.flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).map_err(io::Error::from)?;
    rustix::stdio::dup2_stderr(&null).map_err(io::Error::from)?;
    Ok(())
}
