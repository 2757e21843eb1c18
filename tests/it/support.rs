//! A bench for the binary: a folder of its own, commands in it, and waiting on events.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use queuectl::worker::{Bell, Ring};
use serde_json::Value;
use tempfile::TempDir;

mod mounts;
mod preload;
mod processes;

pub use mounts::*;
pub use preload::preload;
pub use processes::*;
/// The user who owns nothing.
const NOBODY: u32 = 65_534;

/// How long anything may take before a test gives up: far longer than it should, since machines are slow at
/// times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A temporary folder in which commands run.
pub struct Bench {
    /// Before the folder, since that can be removed only when nothing is mounted on it.
    disk: Option<Disk>,
    dir: TempDir,
}

/// What a command did.
pub struct Done {
    /// The exit code; 128 + n for a signal, as shells say it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A command about to run.
pub struct Cmd {
    command: Command,
    stdin: Vec<u8>,
}

/// A process in the background; killed when dropped.
pub struct Background {
    child: Child,
    stdout: BufReader<Box<dyn Read + Send>>,
}

impl Bench {
    pub fn new() -> Self {
        Self { disk: None, dir: TempDir::new().unwrap() }
    }

    /// A bench on a small file system of its own; see [`with_mounts`].
    pub fn on_small_disk(options: &str) -> Self {
        let dir = TempDir::new().unwrap();
        Self { disk: Some(Disk::mount(dir.path(), options)), dir }
    }

    /// The file system of its own.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().unwrap()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The queue's folder.
    pub fn queue(&self) -> PathBuf {
        self.path().join(".queuectl")
    }

    /// `queuectl` with these arguments, in the bench's folder and without the surroundings of the test.
    pub fn cmd<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Cmd {
        self.program(env!("CARGO_BIN_EXE_queuectl"), args)
    }

    /// The same, in an environment and under a name that are the same everywhere.
    pub fn bare_cmd<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Cmd {
        let mut cmd = self.cmd(args);
        cmd.command.arg0("queuectl").env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/");
        cmd
    }

    /// A shell script in which `queuectl` is the binary.
    pub fn script(&self, text: &str) -> Cmd {
        let binaries = Path::new(env!("CARGO_BIN_EXE_queuectl")).parent().unwrap();
        let path = std::env::join_paths([binaries.to_owned()].into_iter().chain(system_path())).unwrap();
        self.program("/bin/sh", ["-c", text]).env("PATH", path)
    }

    fn program<I: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = I>) -> Cmd {
        #[allow(clippy::disallowed_methods, reason = "tests have no queue file open when they start a process")]
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path()).env_remove("QUEUECTL_DB").env_remove("QUEUECTL_LEASE");
        // So that no queue above the temporary folder is found.
        command.env("HOME", self.path().parent().unwrap()).env("NO_COLOR", "1");
        Cmd { command, stdin: Vec::new() }
    }

    /// Runs `queuectl` with words separated by spaces.
    pub fn run(&self, line: &str) -> Done {
        self.cmd(line.split_whitespace()).run()
    }

    /// The same, and it has to succeed; its standard output.
    pub fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    /// The JSON that a command prints.
    pub fn json(&self, line: &str) -> Value {
        let text = self.ok(line);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// Enqueues a shell command and returns its id.
    pub fn enqueue(&self, shell: &str) -> String {
        self.cmd(["enqueue", "--quiet", "-c", shell]).run().ok().trim().to_owned()
    }

    /// Adds one job, as JSON.
    pub fn add(&self, json: &str) {
        self.cmd(["enqueue", json]).run().ok();
    }

    /// Runs what is in the queue until nothing is left to do.
    pub fn work(&self) -> Done {
        self.run("worker start --until-empty")
    }

    /// The state of a job.
    pub fn state(&self, id: &str) -> String {
        self.json(&format!("show {id} --json"))["state"].as_str().unwrap().to_owned()
    }

    /// Waits until `is_so` holds: it is asked anew whenever something in the queue changed.
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let mut bell = Bell::new(&self.queue()).unwrap();
        let (mut left, look) = (PATIENCE, Duration::from_millis(50));
        // What happens outside the queue, such as a process going away, rings no bell: look now and then too.
        while !is_so() {
            if bell.wait(Some(look)).unwrap() == Ring::TimedOut {
                left =
                    left.checked_sub(look).unwrap_or_else(|| panic!("waited in vain until {what}\n{}", self.picture()));
            }
        }
    }

    /// Waits until a job is in a state.
    pub fn until_state(&self, id: &str, state: &str) {
        self.until(&format!("job {id} is {state}"), || self.state(id) == state);
    }

    /// Waits until a file in the bench's folder exists and is not empty.
    pub fn until_file(&self, name: &str) -> String {
        let path = self.path().join(name);
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        self.until(&format!("{name} is written"), || !read().is_empty());
        read()
    }

    /// A user whom permissions bind, to whom everything in the bench's folder belongs; `None`, and said, if
    /// there is none.
    pub fn ordinary_user(&self) -> Option<OrdinaryUser> {
        if !is_root() {
            return Some(OrdinaryUser { id: None });
        }
        let user = OrdinaryUser { id: Some(NOBODY) };
        self.script(&format!("chown -R {NOBODY} .; chmod 755 .")).run().ok();
        if user.script(self, "queuectl --version").code == 0 {
            return Some(user);
        }
        println!(
            "skipped: this is root, whom no permissions bind, and nobody else can run {}",
            env!("CARGO_BIN_EXE_queuectl")
        );
        None
    }

    /// Every invariant holds.
    pub fn check(&self) {
        self.run("check").ok();
    }

    fn picture(&self) -> String {
        format!("{:?}\n{:?}", self.run("status"), self.run("list"))
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(f, "exit code {}\n--- stdout\n{stdout}\n--- stderr\n{}\n---", self.code, self.stderr)
    }
}

impl Cmd {
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn cwd(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end; one that takes longer than anything may is killed.
    pub fn run(mut self) -> Done {
        let mut child =
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = std::mem::take(&mut self.stdin);
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let (over, watched) = mpsc::channel::<()>();
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let killer = std::thread::spawn(move || {
            if watched.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(over);
        killer.join().unwrap();
        writer.join().unwrap();
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
        Done { code, stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// Starts it in the background; its standard output can be read line by line, its standard error goes
    /// where the test's does.
    pub fn start(mut self) -> Background {
        let mut child = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        Background { child, stdout: BufReader::new(stdout) }
    }
}

/// Someone who is not root.
pub struct OrdinaryUser {
    /// Whom to become; `None` for the one who runs the test.
    id: Option<u32>,
}

impl OrdinaryUser {
    /// Runs a shell script as this user.
    pub fn script(&self, bench: &Bench, text: &str) -> Done {
        let mut cmd = bench.script(text);
        if let Some(id) = self.id {
            cmd.command.uid(id);
        }
        cmd.run()
    }
}

impl Done {
    /// It succeeded; its standard output as text.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.text()
    }

    /// It succeeded, and said this.
    #[track_caller]
    pub fn says_too(self, part: &str) {
        assert!(self.code == 0 && self.stderr.contains(part), "{part:?} is not in {self:?}");
    }

    /// It failed with this code; its standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.stderr
    }

    /// It failed with this code and printed no result; its standard error says all of these.
    #[track_caller]
    pub fn says(self, code: i32, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
        assert_eq!((self.code, self.stdout.as_slice()), (code, &b""[..]), "{self:?}");
    }

    pub fn text(self) -> String {
        String::from_utf8(self.stdout).unwrap()
    }
}

impl Background {
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The next line of its standard output; empty at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end; its exit code, 128 + n for a signal, and what it still wrote to standard output.
    pub fn wait(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap()), rest)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process exists and is no zombie.
pub fn lives(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
    !matches!(state, Some('Z' | 'X'))
}

/// The object has exactly these fields, given as words.
#[track_caller]
pub fn has_fields(object: &Value, fields: &str) {
    let found: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, fields.split_whitespace().collect());
}

/// Whether no permissions bind this process.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn system_path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}
