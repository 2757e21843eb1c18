//! The jobs of the storm: this very binary, so that a job can hold a lock for as long as anything of it lives and
//! tell the time exactly.

#![allow(clippy::zombie_processes, reason = "what a job leaves behind is its pool's business")]

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::FlockOperation;

use crate::ledger::{Ledger, What};
use crate::random::Random;

/// The variable that makes a process of this binary a job, and says which.
pub const VARIABLE: &str = "KILL_STORM_JOB";
/// The folder of the storm.
pub const FOLDER: &str = "KILL_STORM_FOLDER";

/// What a job does. A kind has a number of its own, by which its command is known in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    pub number: u64,
    pub work_ms: u64,
    /// Processes that it leaves in its group.
    pub background: u64,
    /// Whether it has a process in another session while it works.
    pub session: bool,
    /// Whether it and those ignore SIGTERM.
    pub deaf: bool,
    /// It fails in so many attempts.
    pub fails: u64,
    /// Bytes that it writes.
    pub out: u64,
    pub err: u64,
}

/// It fails as often as it is tried.
pub const ALWAYS: u64 = u64::MAX;
/// What jobs that fail for ever are tried again, and those that do not at least that.
pub const RETRIES: u64 = 2;

impl Kind {
    pub fn random(number: u64, random: &mut Random) -> Self {
        let mut one_in = |n: u64| random.below(n) == 0;
        let (background, session, deaf) = (u64::from(one_in(4)) + u64::from(one_in(8)), one_in(6), one_in(8));
        let fails = if one_in(25) { ALWAYS } else { u64::from(one_in(6)) + u64::from(one_in(12)) };
        let work_ms = match random.below(20) {
            0..6 => 0,
            6..14 => random.below(20),
            _ => random.below(200),
        };
        let mut bytes = || match random.below(12) {
            0..6 => 0,
            6..9 => random.below(200),
            9 => 3_995 + random.below(10),
            10 => random.below(8_000),
            _ => random.below(40_000),
        };
        let (out, err) = (bytes(), bytes());
        Self { number, work_ms, background, session, deaf, fails, out, err }
    }

    /// One of a run, which is to complete.
    pub fn in_run(mut self) -> Self {
        self.fails = if self.fails == ALWAYS { 0 } else { self.fails };
        self
    }

    pub fn dies(&self) -> bool {
        self.fails == ALWAYS
    }

    /// What it writes to a stream, `out` or `err`.
    pub fn text(&self, attempt: u32, stream: &str, bytes: u64) -> Vec<u8> {
        let bytes = usize::try_from(bytes).unwrap();
        let mut text = Vec::with_capacity(bytes + 64);
        while text.len() < bytes {
            let line = format!("job {} attempt {attempt} {stream} {}\n", self.number, text.len());
            text.extend(line.into_bytes());
        }
        text.truncate(bytes);
        text
    }

    /// The words that execute it.
    pub fn argv(&self) -> Vec<String> {
        let binary = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
        let test = ["job", "--exact", "--ignored", "--nocapture", "--test-threads=1"].map(str::to_owned);
        ["env".to_owned(), format!("{VARIABLE}={self}"), binary].into_iter().chain(test).collect()
    }

    /// A text for the shell that executes it: in the shell's place, or as its child.
    pub fn shell(&self) -> String {
        let words: Vec<String> = self.argv().iter().map(|word| format!("'{word}'")).collect();
        let words = words.join(" ");
        if self.number.is_multiple_of(2) { format!("exec {words}") } else { format!("{words}; exit $?") }
    }

    /// The kind in a command of the queue.
    pub fn of_command(command: &str) -> Self {
        let (_, rest) =
            command.split_once(&format!("{VARIABLE}=")).unwrap_or_else(|| panic!("no job of ours: {command}"));
        rest.split('\'').next().unwrap().parse().unwrap_or_else(|()| panic!("no job of ours: {command}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, work_ms, background, session, deaf, fails, out, err } = self;
        let (session, deaf) = (u8::from(*session), u8::from(*deaf));
        write!(f, "n{number} {work_ms} {background} {session} {deaf} {fails} {out} {err}")
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Vec<u64> = text
            .strip_prefix('n')
            .ok_or(())?
            .split(' ')
            .map(|word| word.parse().map_err(drop))
            .collect::<Result<_, _>>()?;
        let &[number, work_ms, background, session, deaf, fails, out, err] = numbers.as_slice() else { return Err(()) };
        Ok(Self { number, work_ms, background, session: session == 1, deaf: deaf == 1, fails, out, err })
    }
}

/// Does the job; answers its exit code. Its first mark comes after its lock and before anything else.
pub fn execute(kind: &Kind) -> i32 {
    let variable = |name: &str| std::env::var(name).unwrap();
    let folder = PathBuf::from(variable(FOLDER));
    let (id, attempt) = (variable("QUEUECTL_JOB_ID"), variable("QUEUECTL_ATTEMPT").parse().unwrap());
    let lease = variable("QUEUECTL_LEASE").rsplit(':').next().unwrap().parse().unwrap();
    let ledger = Ledger::open(&folder);
    let mark = |what| ledger.mark(what, &id, attempt, lease);
    let lock = lock_of(&folder, &id);
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        mark(What::Overlap);
    }
    mark(What::Start);
    // Whatever it starts has the lock as well.
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).unwrap();
    if kind.deaf {
        SigSet::from(Signal::SIGTERM).thread_block().unwrap();
    }
    for _ in 0..kind.background {
        sleeper(kind.deaf, false);
    }
    let session = kind.session.then(|| sleeper(kind.deaf, true));
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&kind.text(attempt, "out", kind.out)).unwrap();
    stdout.flush().unwrap();
    std::thread::sleep(Duration::from_millis(kind.work_ms));
    std::io::stderr().write_all(&kind.text(attempt, "err", kind.err)).unwrap();
    if let Some(mut session) = session {
        // What has left the group is the job's own business when it ends by itself.
        session.kill().unwrap();
        session.wait().unwrap();
    }
    let code = if u64::from(attempt) <= kind.fails { 3 } else { 0 };
    mark(What::End(code));
    code
}

fn lock_of(folder: &Path, id: &str) -> File {
    File::options().append(true).create(true).open(folder.join("locks").join(id)).unwrap()
}

fn sleeper(deaf: bool, session: bool) -> std::process::Child {
    let script = if deaf { "trap '' TERM; exec sleep 100" } else { "exec sleep 100" };
    let words: &[&str] = if session { &["setsid", "sh", "-c", script] } else { &["sh", "-c", script] };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command.spawn().unwrap()
}
