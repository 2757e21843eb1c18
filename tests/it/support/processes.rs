//! Processes on the bench: pools, what they run, and what may be left of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use queuectl::worker::{Bell, Ring};
use rustix::fs::FlockOperation;
use serde_json::Value;

use super::{Bench, Cmd, Done, PATIENCE, lives};

/// A process in the background whose two streams are read line by line; killed when dropped.
pub struct Process {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

/// The lines of a stream, as they come.
pub struct Lines {
    received: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

/// The turnstile, held by the test: nobody commits until it is dropped.
pub struct Turn(File);

/// A fifo at which jobs wait: `: <name`.
pub struct Gate(PathBuf);

/// A terminal, seen from the side of the person.
pub struct Terminal {
    master: File,
    slave: OwnedFd,
}

/// A stopwatch.
pub struct Watch(Instant);

impl Bench {
    /// Starts a pool with these arguments and waits until it is registered.
    pub fn pool(&self, args: &str) -> Process {
        self.pool_with(args, |cmd| cmd)
    }

    /// The same with a changed command.
    pub fn pool_with(&self, args: &str, change: impl FnOnce(Cmd) -> Cmd) -> Process {
        let words = ["worker", "start"].into_iter().chain(args.split_whitespace());
        let mut pool = change(self.cmd(words)).spawn();
        pool.stderr.until(" started: ");
        pool
    }

    /// Nothing runs any more that belonged to a job of this bench, and every invariant holds.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.left(), BTreeMap::new(), "processes were left behind");
        self.check();
    }

    /// The processes that carry this queue in their environment, as jobs do, with their command lines.
    pub fn left(&self) -> BTreeMap<i32, String> {
        let queue = fs::canonicalize(self.queue()).unwrap_or_else(|_| self.queue());
        let marker = [b"QUEUECTL_DB=", queue.as_os_str().as_bytes()].concat();
        let of_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|pair| pair == marker) && lives(*pid)
        };
        let line = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        pids().filter(of_ours).map(|pid| (pid, line(pid))).collect()
    }

    /// A file in the bench's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// What a file in the bench's folder holds; nothing if there is none.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// The lines of a file in the bench's folder.
    pub fn lines(&self, name: &str) -> Vec<String> {
        self.text(name).lines().map(str::to_owned).collect()
    }

    /// Waits until a file has so many lines.
    pub fn until_lines(&self, name: &str, count: usize) -> Vec<String> {
        self.until(&format!("{name} has {count} lines"), || self.lines(name).len() >= count);
        self.lines(name)
    }

    /// The whole numbers in a file, one a line, once there are so many: pids that a job wrote.
    pub fn until_pids(&self, name: &str, count: usize) -> Vec<i32> {
        self.until_lines(name, count).iter().map(|line| line.trim().parse().unwrap()).collect()
    }

    /// `show ID --json`.
    pub fn show(&self, id: &str) -> Value {
        self.json(&format!("show {id} --json"))
    }

    /// The outcomes of a job's attempts; one that goes on is `running`.
    pub fn outcomes(&self, id: &str) -> Vec<String> {
        let history = &self.show(id)["history"];
        history.as_array().unwrap().iter().map(|run| run["outcome"].as_str().unwrap_or("running").to_owned()).collect()
    }

    /// Enqueues the JSON of a job.
    pub fn enqueue_json(&self, job: &Value) -> String {
        self.cmd(["enqueue", "--quiet", &job.to_string()]).run().ok().trim().to_owned()
    }

    /// Takes the turnstile, once it is free.
    pub fn take_turn(&self) -> Turn {
        let file = File::open(self.queue().join("run/turn")).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        Turn(file)
    }

    /// Waits until this process waits at the turnstile: it has something to commit.
    pub fn until_at_turnstile(&self, pid: i32) {
        let inode = format!(":{} ", fs::metadata(self.queue().join("run/turn")).unwrap().ino());
        // `1: -> FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`
        let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&inode) && names(line, pid);
        self.until("the turnstile is waited at", || fs::read_to_string("/proc/locks").unwrap().lines().any(waits));
    }

    /// Waits until this process is the next writer: it holds the turnstile.
    pub fn until_next_writer(&self, pid: i32) {
        let inode = format!(":{} ", fs::metadata(self.queue().join("run/turn")).unwrap().ino());
        let holds = |line: &str| !line.contains("->") && line.contains(&inode) && names(line, pid);
        self.until("the turnstile is held", || fs::read_to_string("/proc/locks").unwrap().lines().any(holds));
    }

    /// A fifo in the bench's folder.
    pub fn gate(&self, name: &str) -> Gate {
        let path = self.file(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        Gate(path)
    }

    /// Opens a gate for whoever waits there, once somebody does.
    pub fn open(&self, gate: &Gate) {
        self.until("somebody waits at the gate", || gate.open());
    }

    /// Lets time go by in which nothing may happen in the queue.
    pub fn nothing_happens_for(&self, long: Duration) {
        let mut bell = Bell::new(&self.queue()).unwrap();
        assert_eq!(bell.wait(Some(long)).unwrap(), Ring::TimedOut, "{}", self.picture());
    }
}

/// Whether a line of /proc/locks is about this process.
fn names(line: &str, pid: i32) -> bool {
    line.split_whitespace().any(|word| word == pid.to_string())
}

impl Drop for Bench {
    /// What a failed test leaves running would disturb others.
    fn drop(&mut self) {
        for pid in self.left().into_keys() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Gate {
    /// Waits until somebody waits here, and lets it go on.
    pub fn await_reader(&self) {
        nix::fcntl::open(&self.0, OFlag::O_WRONLY, Mode::empty()).unwrap();
    }

    /// Lets those go on that wait here now. Says whether somebody did.
    pub fn open(&self) -> bool {
        nix::fcntl::open(&self.0, OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty()).is_ok()
    }
}

impl Terminal {
    pub fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        Self { master: master.into(), slave }
    }

    /// What a program gets for its standard streams.
    pub fn end(&self) -> OwnedFd {
        self.slave.try_clone().unwrap()
    }

    /// What is shown until nobody has the terminal open any more.
    pub fn read_until_closed(self) -> Vec<u8> {
        drop(self.slave);
        let (mut shown, mut master) = (Vec::new(), self.master);
        // A terminal that everybody has left answers EIO.
        let _ = master.read_to_end(&mut shown);
        shown
    }

    /// The side of the person.
    pub fn master(&self) -> &File {
        &self.master
    }

    pub fn types(&self, keys: &[u8]) {
        (&self.master).write_all(keys).unwrap();
    }
}

impl Turn {
    pub fn release(self) {
        rustix::fs::flock(&self.0, FlockOperation::Unlock).unwrap();
    }
}

impl Watch {
    #[allow(clippy::disallowed_methods, reason = "tests measure real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Cmd {
    /// Runs another program instead, with `queuectl` and its arguments after these words.
    pub fn under(mut self, words: &[&str]) -> Self {
        let own = std::mem::replace(&mut self.command, tool(words[0]));
        self.command.args(&words[1..]).arg(own.get_program()).args(own.get_args());
        self.command.current_dir(own.get_current_dir().unwrap());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => self.command.env(name, value),
                None => self.command.env_remove(name),
            };
        }
        self
    }

    /// Standard input from an open file.
    pub fn stdin_from(mut self, file: impl Into<Stdio>) -> Process {
        self.command.stdin(file);
        Process::start(self.command)
    }

    /// Starts it in the background with its output read.
    pub fn spawn(mut self) -> Process {
        self.command.stdin(Stdio::null());
        Process::start(self.command)
    }

    /// Starts it in the background with these files for standard input, output and error.
    pub fn spawn_with(mut self, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Child {
        self.command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap()
    }
}

/// A program of the system.
#[allow(clippy::disallowed_methods, reason = "tests have no queue file open when they start a process")]
pub fn tool(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The name of a pool: it says `queuectl: pool NAME started: …`.
    pub fn id(&self) -> String {
        let text = self.stderr.text();
        let name = text.split_once("pool ").and_then(|(_, rest)| rest.split_once(" started"));
        name.unwrap_or_else(|| panic!("not a pool: {text}")).0.to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// SIGSTOP in a moment in which it keeps nobody out of the queue: whoever is stopped while it begins to look
    /// holds the lock of the file's header, and everybody would wait for it.
    pub fn stop_outside_transactions(&self) {
        // What a process holds that has the file open and is at rest: redb's two marks, and one on the whole file.
        const AT_REST: usize = 3;
        let watch = Watch::start();
        loop {
            self.signal(Signal::SIGSTOP);
            while state_letter(self.pid()) != 'T' {
                std::thread::yield_now();
            }
            let held: String = fs::read_dir(format!("/proc/{}/fdinfo", self.pid()))
                .unwrap()
                .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
                .collect();
            if held.lines().filter(|line| line.starts_with("lock:")).count() <= AT_REST {
                return;
            }
            assert!(watch.elapsed() < PATIENCE, "always in a transaction:\n{held}");
            self.signal(Signal::SIGCONT);
        }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended well, or has said this on its standard error: then the line is the error.
    pub fn ends_or_says(&mut self, part: &str) -> Result<(), String> {
        if let Some(line) = self.stderr.next_with(part) {
            return Err(line);
        }
        assert!(self.child.wait().unwrap().success(), "{}", self.stderr.text());
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Done {
        self.stderr.until_end();
        self.stdout.until_end();
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        let stdout = std::mem::take(&mut self.stdout.seen);
        Done { code, stdout, stderr: self.stderr.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (lines, received) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            loop {
                let mut line = Vec::new();
                if stream.read_until(b'\n', &mut line).unwrap_or(0) == 0 || lines.send(line).is_err() {
                    return;
                }
            }
        });
        Self { received, seen: Vec::new() }
    }

    /// Waits for a line that contains this, and returns it.
    #[track_caller]
    pub fn until(&mut self, part: &str) -> String {
        loop {
            let Ok(line) = self.received.recv_timeout(PATIENCE) else {
                panic!("no line with {part:?} came:\n{}", self.text());
            };
            self.seen.extend(&line);
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for a line that contains this; `None` if the stream ends without one.
    fn next_with(&mut self, part: &str) -> Option<String> {
        loop {
            match self.received.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.extend(&line);
                    let line = String::from_utf8_lossy(&line).into_owned();
                    if line.contains(part) {
                        return Some(line);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.text()),
            }
        }
    }

    /// Reads what is left.
    #[track_caller]
    pub fn until_end(&mut self) {
        loop {
            match self.received.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.extend(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.text()),
            }
        }
    }

    /// What was read so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

/// All processes.
fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The state letter of a process; X if it is gone.
pub fn state_letter(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap_or('X')
}

/// A number from /proc/PID/status.
pub fn status_number(status: &Path, field: &str) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How often each thread of a process has gone to sleep by itself.
pub fn naps(pid: i32) -> BTreeMap<i32, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let naps = |task: fs::DirEntry| {
        let thread = task.file_name().to_str()?.parse().ok()?;
        Some((thread, status_number(&task.path().join("status"), "voluntary_ctxt_switches")?))
    };
    tasks.filter_map(naps).collect()
}
