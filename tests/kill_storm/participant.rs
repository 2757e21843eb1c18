//! Those who take part: processes of the real binary, what they are for, and which ends of them are documented.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Words that none of them ever says here: nothing is wrong with the file, the disk or the jobs.
const NEVER_SAID: [&str; 8] =
    ["panicked", "RUST_BACKTRACE", "cannot", "could not", "damaged", "warning", "went wrong", "missing"];

/// What a participant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    Pool {
        until_empty: bool,
    },
    /// A batch by its number, in `run`.
    Run(usize),
    /// An entry by its number, in `enqueue`.
    Enqueuer(usize),
    /// One that looks; which codes it may end with, and whether it waits for jobs.
    Reader {
        codes: &'static [i32],
        patient: bool,
    },
    /// `worker stop`.
    Stopper,
}

impl Role {
    /// Whether it ends by itself, whatever becomes of the jobs.
    pub fn is_brief(&self) -> bool {
        matches!(self, Self::Enqueuer(_) | Self::Reader { patient: false, .. } | Self::Stopper)
    }

    /// Whether it has a board.
    pub fn works(&self) -> bool {
        matches!(self, Self::Pool { .. } | Self::Run(_))
    }
}

/// A participant, alive or a zombie: its pid is its own until [`Participant::end`].
pub struct Participant {
    /// They are numbered as they come.
    pub number: u64,
    pub role: Role,
    child: Child,
    pub pidfd: OwnedFd,
    pub born: Instant,
    said: PathBuf,
    /// Signals that were sent to it.
    pub terms: u32,
    /// It was killed, and nothing that it answers counts.
    pub killed: bool,
    pub stopped: bool,
    /// How often pools had been told to stop when it began.
    pub stops_before: u32,
    pub board: Option<File>,
    line: String,
}

/// How one ended.
pub struct End {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Participant {
    /// Starts `queuectl` with these words in the folder of the storm; `said` is where its output goes.
    pub fn start(number: u64, role: Role, words: &[String], folder: &Path, said: PathBuf) -> Self {
        let mut command = command(folder, words);
        let stream = |name| File::create(said.with_extension(name)).unwrap();
        command.stdin(Stdio::null()).stdout(stream("out")).stderr(stream("err"));
        let child = command.spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let line = words.join(" ");
        Self {
            number,
            role,
            child,
            pidfd,
            born: Instant::now(),
            said,
            terms: 0,
            killed: false,
            stopped: false,
            stops_before: 0,
            board: None,
            line,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its end, which has to be near.
    pub fn end(&mut self) -> End {
        let status = self.child.wait().unwrap();
        let [stdout, stderr] = ["out", "err"].map(|name| {
            let path = self.said.with_extension(name);
            let said = fs::read(&path).unwrap();
            fs::remove_file(path).unwrap();
            said
        });
        End { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }

    /// Holds the pool's own file, so that its board can be read after its death; false if it has none yet.
    pub fn hold_board(&mut self, run: &Path) -> bool {
        if self.board.is_none() {
            self.board = find_board(self.pid(), run);
        }
        self.board.is_some()
    }

    /// What it says so far, for a picture of what went wrong.
    pub fn picture(&self) -> String {
        let pid = self.pid();
        let stderr = fs::read_to_string(self.said.with_extension("err")).unwrap_or_default();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state: String = state.rsplit(')').next().unwrap_or_default().chars().take(3).collect();
        format!("{pid} [{}] terms {} state {state}: {stderr:?}", self.line, self.terms)
    }

    /// The end of one that was not killed is a documented one.
    pub fn judge(&self, end: &End, stops: u32) {
        let code = end.status.code();
        // A pool that has said that it is there does not just die.
        let died_of_term = self.terms > 0 && end.status.signal() == Some(15) && !end.stderr.contains(" started: ");
        let codes: &[i32] = match &self.role {
            Role::Pool { until_empty: true } => &[0, 1],
            // It ends only if it is told to.
            Role::Pool { until_empty: false } if self.terms == 0 && self.stops_before == stops => &[],
            Role::Run(_) if self.terms > 0 => &[0, 130],
            Role::Pool { .. } | Role::Run(_) => &[0],
            // One that is typed again may find its jobs there.
            Role::Enqueuer(_) if self.terms > 0 => &[0, 4, 130],
            Role::Enqueuer(_) => &[0, 4],
            Role::Reader { codes, .. } => codes,
            Role::Stopper => &[0, 6],
        };
        let documented = died_of_term || code.is_some_and(|code| codes.contains(&code));
        let never = NEVER_SAID.iter().find(|words| end.stderr.contains(**words));
        let line = &self.line;
        assert!(
            documented && never.is_none(),
            "queuectl {line}: {} after {} SIGTERM, said {never:?}\n{}",
            end.status,
            self.terms,
            end.stderr
        );
        if code == Some(0) && line.ends_with("--json") {
            let json: Result<serde_json::Value, _> = serde_json::from_slice(&end.stdout);
            assert!(json.is_ok(), "queuectl {line}: {}", String::from_utf8_lossy(&end.stdout));
        }
    }
}

/// No participant outlives the storm.
impl Drop for Participant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `queuectl` in the folder of the storm, with little in its environment.
pub fn command(folder: &Path, words: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queuectl"));
    command.args(words).current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder.parent().unwrap());
    command.env("NO_COLOR", "1").env(crate::job::FOLDER, folder);
    command
}

/// The file in `run/` that a process has open for writing: its own, under whatever name. Peers' files and the
/// turnstile are only ever opened for reading.
fn find_board(pid: u32, run: &Path) -> Option<File> {
    let run = fs::canonicalize(run).unwrap();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let number = entry.file_name();
        let number = number.to_str()?;
        let path = fs::read_link(entry.path()).unwrap_or_default();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or_default();
        if path.parent() == Some(&run) && flags & 0o3 == 0o2 {
            return File::open(entry.path()).ok();
        }
    }
    None
}
