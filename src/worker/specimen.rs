//! Processes for the tests of this folder: made by the real spawn, and gone at the end of a test however it ends.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::child::{self, Launch, Reaped};
use super::program::resolve;
use super::tree::{self, Leader, Mark, Reach};

/// The search path of specimens.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A child with its output.
pub(crate) struct Specimen {
    pub(crate) pid: Pid,
    pub(crate) mark: Mark,
    output: BufReader<PipeReader>,
    reaped: bool,
}

/// How to start one; what is not said is as plain as can be.
pub(crate) struct Recipe<'a> {
    pub(crate) program: &'a [u8],
    pub(crate) argv: &'a [&'a [u8]],
    /// Besides the search path, the language and the lease; or, if there are any, instead of them.
    pub(crate) env: &'a [&'a [u8]],
    pub(crate) cwd: &'a Path,
    /// Which descriptors to pass; those that are not given are /dev/null and, for the last two, the pipe.
    pub(crate) stdio: [Option<BorrowedFd<'a>>; 3],
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self { program: b"", argv: &[], env: &[], cwd: Path::new("/"), stdio: [None; 3] }
    }
}

impl Specimen {
    /// A shell with a script.
    pub(crate) fn sh(script: &str) -> Self {
        let argv: [&[u8]; 3] = [b"sh", b"-c", script.as_bytes()];
        Self::start(&Recipe { program: b"/bin/sh", argv: &argv, ..Recipe::default() }).unwrap()
    }

    /// A program of the search path, with arguments.
    pub(crate) fn run(argv: &[&str]) -> Self {
        let argv: Vec<&[u8]> = argv.iter().map(|word| word.as_bytes()).collect();
        let program = resolve(argv[0], Some(PATH.as_bytes()), Path::new("/")).unwrap();
        Self::start(&Recipe { program: program.as_bytes(), argv: &argv, ..Recipe::default() }).unwrap()
    }

    /// Whatever the recipe says, with the error of the spawn.
    pub(crate) fn start(recipe: &Recipe<'_>) -> io::Result<Self> {
        let token = new_token();
        let usual = [format!("PATH={PATH}"), "LC_ALL=C".to_owned(), format!("{}={token}", tree::LEASE_VARIABLE)];
        let mut env = strings(recipe.env);
        if env.is_empty() {
            env = strings(&usual.each_ref().map(String::as_bytes));
        }
        let null = File::open("/dev/null")?;
        let (output, input) = io::pipe()?;
        let [stdin, stdout, stderr] = recipe.stdio;
        let before = tree::boot_ticks_now();
        let pid = child::spawn(&Launch {
            program: &CString::new(recipe.program)?,
            argv: &strings(recipe.argv),
            env: &env.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            runs_scripts: true,
            cwd: &CString::new(recipe.cwd.as_os_str().as_bytes())?,
            stdin: stdin.unwrap_or(null.as_fd()),
            stdout: stdout.unwrap_or(input.as_fd()),
            stderr: stderr.unwrap_or(input.as_fd()),
        })?;
        let leader = Leader { pid, born: before..=tree::boot_ticks_now() };
        let mark = Mark { token: token.into_bytes(), leader: Some(leader) };
        Ok(Self { pid, mark, output: BufReader::new(output), reaped: false })
    }

    /// The next line of output, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line, which is a pid.
    pub(crate) fn pid_line(&mut self) -> Pid {
        Pid::from_raw(self.line().parse().unwrap()).unwrap()
    }

    /// The rest of the output: returns when nobody is left who could write.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).unwrap();
        rest
    }

    /// The same, as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8(self.rest()).unwrap()
    }

    /// Waits for the first process and collects it.
    pub(crate) fn reap(&mut self) -> Reaped {
        let reaped = child::reap(self.pid).unwrap();
        self.reaped = true;
        reaped
    }

    /// The pids that are found of it, in order.
    pub(crate) fn found(&self, reach: Reach) -> Vec<Pid> {
        pids_of(std::slice::from_ref(&self.mark), reach)
    }

    /// The same without what is known of its first process.
    pub(crate) fn found_by_token(&self) -> Vec<Pid> {
        pids_of(&[Mark { leader: None, ..self.mark.clone() }], Reach::Tree)
    }

    /// Ends it.
    pub(crate) fn end(&self, reach: Reach, grace: Duration) -> tree::Ending {
        tree::end(std::slice::from_ref(&self.mark), reach, tree::Asked::NotYet, grace).unwrap()
    }
}

impl Drop for Specimen {
    fn drop(&mut self) {
        drop(tree::end(std::slice::from_ref(&self.mark), Reach::Tree, tree::Asked::NotYet, Duration::ZERO));
        if !self.reaped {
            // Its own child that was not collected, so the pid is still its own, even if the search above is broken.
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            let _ = child::reap(self.pid);
        }
    }
}

/// The pids of all that is found, in order.
pub(crate) fn pids_of(marks: &[Mark], reach: Reach) -> Vec<Pid> {
    let mut pids: Vec<Pid> = tree::find(marks, reach).unwrap().iter().map(|found| found.pid).collect();
    pids.sort_unstable_by_key(|pid| pid.as_raw_pid());
    pids
}

/// A token that no other specimen has.
fn new_token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = std::process::id();
    format!("0:{process}:{:x}:{}", tree::boot_ticks_now(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The words for C.
fn strings(words: &[&[u8]]) -> Vec<CString> {
    words.iter().map(|word| CString::new(*word).unwrap()).collect()
}
