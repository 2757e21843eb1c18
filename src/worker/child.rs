//! The spawn room: starting a child process and collecting it. The only file with `unsafe`.
//!
//! A child shares nothing with its maker but the three files that it is given: it has its own session and process
//! group, no controlling terminal, every signal at its default and none blocked. It is made by `posix_spawn`, which
//! uses `vfork` where `std` would fork: a forked child would share the lock on the queue file, one made by `vfork`
//! lets go of it before anything of it runs.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_short};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{posix_spawn_file_actions_t, posix_spawnattr_t, sigset_t};
use rustix::io::{fcntl_dupfd_cloexec, retry_on_intr};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// What runs a program file that the kernel does not know how to run: a script without a `#!` line.
pub(crate) const ENOEXEC_SHELL: &CStr = c"/bin/sh";

/// The lowest descriptor that is not one of stdin, stdout and stderr.
const FIRST_ABOVE_STDIO: RawFd = 3;

/// Which signal a lease sends, from the kernel's `asm-generic/fcntl.h`: the libc crate lacks it.
const F_SETSIG: c_int = 10;

/// What to execute and with what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    /// The program file, absolute or relative to `cwd`: no search is made.
    pub program: &'a CStr,
    /// The arguments, the name of the program first.
    pub argv: &'a [CString],
    /// The whole environment, as `NAME=value`.
    pub env: &'a [&'a CStr],
    /// Whether a file that the kernel cannot execute is run as a script by `/bin/sh`, as `execvp` does.
    pub runs_scripts: bool,
    /// The folder that the child starts in.
    pub cwd: &'a CStr,
    /// What the child reads.
    pub stdin: BorrowedFd<'a>,
    /// Where the child writes its results.
    pub stdout: BorrowedFd<'a>,
    /// Where the child writes its complaints.
    pub stderr: BorrowedFd<'a>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// What the kernel tells of a process that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// How it ended.
    pub exit: Exit,
    /// Processor time, user and system, of the process and of those below it that were waited for.
    pub cpu: Duration,
    /// The largest resident set of any of these. Never less than the peak of the process that spawned it: the
    /// kernel counts the memory that a `vfork` child borrows until its exec.
    pub max_rss_bytes: u64,
}

/// Starts a process. An error says what the kernel said: of entering the folder or of executing the program.
pub(crate) fn spawn(launch: &Launch<'_>) -> io::Result<Pid> {
    let (stdin, stdout, stderr) = (Source::of(launch.stdin)?, Source::of(launch.stdout)?, Source::of(launch.stderr)?);
    let (mut attributes, mut actions) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let mut attributes = Attributes::new(&mut attributes)?;
    attributes.cut_all_ties()?;
    let mut actions = FileActions::new(&mut actions)?;
    actions.enter(launch.cwd)?;
    for (source, target) in [&stdin, &stdout, &stderr].into_iter().zip(0..) {
        actions.duplicate(source.as_fd(), target)?;
    }
    let argv: Vec<&CStr> = launch.argv.iter().map(CString::as_c_str).collect();
    let execute = |program, argv: &[&CStr]| posix_spawn(program, argv, launch.env, &actions, &attributes);
    match execute(launch.program, &argv) {
        Err(error) if launch.runs_scripts && error.raw_os_error() == Some(libc::ENOEXEC) => {
            execute(ENOEXEC_SHELL, &shell_argv(launch.program, &argv))
        }
        outcome => outcome,
    }
}

/// The arguments with which the shell runs the script `program`.
fn shell_argv<'a>(program: &'a CStr, argv: &[&'a CStr]) -> Vec<&'a CStr> {
    [ENOEXEC_SHELL, program].into_iter().chain(argv.iter().skip(1).copied()).collect()
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was stopped.
    Stopped,
    /// It goes on.
    Continued,
    /// It has ended.
    Exited,
}

/// Waits until something becomes of the child. When it has ended, it stays a zombie, so that its pid means no other
/// process before [`reap`].
pub(crate) fn wait_for_change(pid: Pid) -> io::Result<Change> {
    let changes = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
    loop {
        let all = changes | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let seen = retry_on_intr(|| waitid(WaitId::Pid(pid), all))?;
        if seen.is_some_and(|seen| !seen.stopped() && !seen.continued()) {
            return Ok(Change::Exited);
        }
        // Taken, so that it is not told again. By now it may be another.
        match retry_on_intr(|| waitid(WaitId::Pid(pid), changes | WaitIdOptions::NOHANG))? {
            Some(taken) if taken.stopped() => return Ok(Change::Stopped),
            Some(_) => return Ok(Change::Continued),
            None => {}
        }
    }
}

/// Waits until the child has ended, whatever becomes of it before.
#[cfg(test)]
pub(crate) fn wait_until_exited(pid: Pid) -> io::Result<()> {
    while wait_for_change(pid)? != Change::Exited {}
    Ok(())
}

/// Collects a child, waiting for its end if need be. From here on its pid may mean another process.
pub(crate) fn reap(pid: Pid) -> io::Result<Reaped> {
    let mut status: c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live memory of the right type.
        let reaped = unsafe { libc::wait4(pid.as_raw_pid(), &raw mut status, 0, usage.as_mut_ptr()) };
        if reaped != -1 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed is a valid rusage, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    Ok(Reaped {
        exit: Exit::of(status),
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    })
}

impl Exit {
    /// The meaning of a wait status.
    fn of(status: c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// A time of the kernel, which is never negative.
fn duration(time: libc::timeval) -> Duration {
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

/// A descriptor for the child that is itself none of 0, 1 and 2, so that no `dup2` onto these overwrites one that is
/// still to be copied, or meets itself and leaves it close-on-exec.
enum Source<'a> {
    /// As it was given.
    Given(BorrowedFd<'a>),
    /// A copy, since the given one is 0, 1 or 2.
    Copied(OwnedFd),
}

impl<'a> Source<'a> {
    /// A descriptor above stderr of the same open file.
    fn of(fd: BorrowedFd<'a>) -> io::Result<Self> {
        if fd.as_raw_fd() >= FIRST_ABOVE_STDIO {
            return Ok(Self::Given(fd));
        }
        Ok(Self::Copied(fcntl_dupfd_cloexec(fd, FIRST_ABOVE_STDIO)?))
    }
}

impl AsFd for Source<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Given(fd) => *fd,
            Self::Copied(fd) => fd.as_fd(),
        }
    }
}

/// Spawn attributes, which never move while they live, since POSIX leaves copies of them undefined.
struct Attributes<'a>(&'a mut MaybeUninit<posix_spawnattr_t>);

impl<'a> Attributes<'a> {
    /// Attributes that change nothing.
    fn new(room: &'a mut MaybeUninit<posix_spawnattr_t>) -> io::Result<Self> {
        // SAFETY: the pointer is to memory of the right size, which this call initialises.
        check(unsafe { libc::posix_spawnattr_init(room.as_mut_ptr()) })?;
        Ok(Self(room))
    }

    /// Its own session, and nothing of the signal handling of its maker.
    fn cut_all_ties(&mut self) -> io::Result<()> {
        // Not sigfillset: it leaves out the two signals that the C library keeps for its threads, and those which are
        // left out arrive in the child ignored.
        let (every, none) = (signal_set(0xff), signal_set(0));
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK | c_int::from(libc::POSIX_SPAWN_SETSID);
        let flags = c_short::try_from(flags).map_err(io::Error::other)?;
        let attributes = self.0.as_mut_ptr();
        // SAFETY: `attributes` is initialised; the sets are live and only read.
        unsafe {
            check(libc::posix_spawnattr_setsigdefault(attributes, &raw const every))?;
            check(libc::posix_spawnattr_setsigmask(attributes, &raw const none))?;
            check(libc::posix_spawnattr_setflags(attributes, flags))
        }
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and destroyed only here.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}

/// A signal set of which each byte is `byte`.
fn signal_set(byte: u8) -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: a sigset_t is an array of integers, so any bytes are one; all of them are written here.
    unsafe {
        set.as_mut_ptr().write_bytes(byte, 1);
        set.assume_init()
    }
}

/// What the child does before its exec; like the attributes, these never move.
struct FileActions<'a>(&'a mut MaybeUninit<posix_spawn_file_actions_t>);

impl<'a> FileActions<'a> {
    /// No actions.
    fn new(room: &'a mut MaybeUninit<posix_spawn_file_actions_t>) -> io::Result<Self> {
        // SAFETY: the pointer is to memory of the right size, which this call initialises.
        check(unsafe { libc::posix_spawn_file_actions_init(room.as_mut_ptr()) })?;
        Ok(Self(room))
    }

    /// Changes to the folder.
    fn enter(&mut self, folder: &CStr) -> io::Result<()> {
        // SAFETY: the actions are initialised; the path is copied by the call.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(self.0.as_mut_ptr(), folder.as_ptr()) })
    }

    /// Gives the open file of `source` to the child as descriptor `target`.
    fn duplicate(&mut self, source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised; descriptors are plain numbers here.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), source.as_raw_fd(), target) })
    }
}

impl Drop for FileActions<'_> {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and destroyed only here.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

/// Makes the process.
fn posix_spawn(
    program: &CStr,
    argv: &[&CStr],
    env: &[&CStr],
    actions: &FileActions<'_>,
    attributes: &Attributes<'_>,
) -> io::Result<Pid> {
    let argv = null_terminated(argv.iter().copied());
    let env = null_terminated(env.iter().copied());
    let mut pid = 0;
    // SAFETY: all pointers are to live values for the whole call; the arrays end in null and their strings are only
    // read, in spite of their type.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn made no process"))
}

/// The strings as C wants them: pointers, the last one null. Valid as long as the strings are.
fn null_terminated<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*mut c_char> {
    strings.map(|string| string.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// The `posix_spawn` family returns its error instead of setting `errno`.
fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Lets this process see its children end: one that was started with SIGCHLD ignored would not.
pub(crate) fn see_children_end() {
    // SAFETY: the default disposition installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Whether a file is open through anything but `file`: a process that a job left behind, or a reader. What cannot
/// be told counts as yes.
///
/// The kernel grants a write lease only on a file that nothing else has open, which makes it the one question that
/// also finds descriptors inherited by processes that nobody can name.
pub(crate) fn is_open_elsewhere(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: all three take a descriptor, which `file` keeps open, and numbers.
    unsafe {
        // Whoever opens the file while the lease is held has us signalled; SIGURG is ignored by default.
        if libc::fcntl(fd, F_SETSIG, libc::SIGURG) == -1 || libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) == -1 {
            return true;
        }
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) == -1
    }
}

#[cfg(test)]
mod probes {
    //! What the tests need `unsafe` for.

    use std::cell::Cell;

    thread_local! {
        /// How often this thread has forked since the counting began.
        static FORKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Runs in the thread that forks, before it does.
    extern "C" fn count_a_fork() {
        FORKS.set(FORKS.get() + 1);
    }

    /// Counts the plain forks of `action` in this thread: `vfork` and what is built on it do not count.
    pub(super) fn forks_in(action: impl FnOnce()) -> usize {
        // SAFETY: the handler touches nothing but a counter of its thread.
        assert_eq!(unsafe { libc::pthread_atfork(Some(count_a_fork), None, None) }, 0);
        FORKS.set(0);
        action();
        FORKS.get()
    }

    /// Forks a child that ends at once.
    pub(super) fn fork_and_reap() {
        // SAFETY: the child calls nothing but _exit, which is safe after a fork with threads.
        match unsafe { libc::fork() } {
            0 => unsafe { libc::_exit(0) },
            child => drop(super::reap(rustix::process::Pid::from_raw(child).unwrap()).unwrap()),
        }
    }

    /// A signal that this whole process ignores until the drop.
    pub(super) struct Ignored(libc::c_int, libc::sighandler_t);

    impl Ignored {
        pub(super) fn new(signal: libc::c_int) -> Self {
            // SAFETY: ignoring installs no handler.
            Self(signal, unsafe { libc::signal(signal, libc::SIG_IGN) })
        }
    }

    impl Drop for Ignored {
        fn drop(&mut self) {
            // SAFETY: what `signal` returned can be set again.
            unsafe { libc::signal(self.0, self.1) };
        }
    }
}

#[cfg(test)]
mod tests;
