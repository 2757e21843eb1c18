//! The signals that a person or the system sends to a pool, as plain wishes.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::child::see_children_end;

/// What a signal wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGINT, SIGTERM, SIGHUP: stop, more firmly each time.
    Stop,
    /// SIGTSTP: stand still until SIGCONT.
    Freeze,
    /// The pool is over and its listener may go.
    GoHome,
}

/// The signals of a pool: blocked in every thread, and read by one.
#[derive(Debug)]
pub(super) struct Signals {
    fd: SignalFd,
    before: SigSet,
    home: OwnedFd,
}

impl Signals {
    /// Blocks the signals in this thread and those that it starts. SIGINT and SIGHUP that were ignored when
    /// the process started (`nohup`, `&` in a script) stay ignored.
    pub(super) fn block() -> io::Result<Self> {
        see_children_end();
        Self::of(&[Signal::SIGTERM, Signal::SIGTSTP, Signal::SIGCONT])
    }

    /// Blocks these, and SIGINT and SIGHUP if they are not ignored.
    fn of(signals: &[Signal]) -> io::Result<Self> {
        let mut set: SigSet = signals.iter().copied().collect();
        for signal in [Signal::SIGINT, Signal::SIGHUP] {
            if !is_ignored(signal)? {
                set.add(signal);
            }
        }
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let home = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, before, home })
    }

    /// Waits for the next one.
    pub(super) fn wait(&self) -> io::Result<Wish> {
        loop {
            let mut fds =
                [PollFd::new(&self.fd, PollFlags::IN), PollFd::from_borrowed_fd(self.home.as_fd(), PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let go_home = !fds[1].revents().is_empty();
            match self.fd.read_signal()? {
                Some(signal) if signal.ssi_signo == Signal::SIGTSTP as u32 => return Ok(Wish::Freeze),
                // It has continued the process already; see `stand_still`.
                Some(signal) if signal.ssi_signo == Signal::SIGCONT as u32 => {}
                Some(_) => return Ok(Wish::Stop),
                None if go_home => return Ok(Wish::GoHome),
                None => {}
            }
        }
    }

    /// Makes [`wait`](Self::wait) answer [`Wish::GoHome`].
    pub(super) fn go_home(&self) {
        // It can fail only when the count is full, and then the listener is on its way.
        let _ = rustix::io::write(&self.home, &1_u64.to_ne_bytes());
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Those that came after the pool was over were meant for it: they must not act now.
        while let Ok(Some(_)) = self.fd.read_signal() {}
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// Tells of SIGTERM, SIGINT and SIGHUP, for a process that is no pool: while it is there they do not end the process.
#[derive(Debug)]
pub struct StopListener {
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

impl StopListener {
    /// Calls `asked` for each signal, in a thread of its own. To be started and dropped by a thread that starts no
    /// process meanwhile, before it starts others that the signals could be delivered to.
    ///
    /// # Errors
    ///
    /// If the system has no room for it.
    pub fn start(mut asked: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let signals = Arc::new(Signals::of(&[Signal::SIGTERM])?);
        let heard = Arc::clone(&signals);
        let thread = thread::Builder::new().spawn(move || {
            while let Ok(Wish::Stop) = heard.wait() {
                asked();
            }
        })?;
        Ok(Self { signals, thread: Some(thread) })
    }
}

impl Drop for StopListener {
    fn drop(&mut self) {
        self.signals.go_home();
        // Its hold of the signals ends with it, so that they are let through here.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A file that may not grow any more (`ulimit -f`) is an error for this process, and does not end it. Jobs get the signal
/// as always: it is not ignored, but blocked, and they start with none blocked. To be called before there are threads.
pub fn survive_file_limit() {
    let limit: SigSet = [Signal::SIGXFSZ].into_iter().collect();
    // It fails only for a wrong first argument.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&limit), None);
}

/// Starts a thread that no signal of this process is delivered to. A pool's signals are for its listener: one thread
/// that does not block them, started before the pool, would be where the kernel delivers them, and end the process.
///
/// # Errors
///
/// If the system has no room for it.
pub fn spawn_shielded(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut before = SigSet::empty();
    // It fails only for a wrong first argument.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before));
    let thread = thread::Builder::new().spawn(work);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    thread.map_err(|error| io::Error::new(error.kind(), format!("cannot start a thread: {error}")))
}

/// Stops this process until somebody continues it, unless somebody has done so since it was asked to stop. Sent to
/// this very thread, which therefore does not go on before it is stopped.
pub(super) fn stand_still() {
    if !is_in_mask("ShdPnd:", Signal::SIGCONT).unwrap_or(false) {
        let _ = raise(Signal::SIGSTOP);
    }
}

/// Whether the process ignores a signal, as it was started.
fn is_ignored(signal: Signal) -> io::Result<bool> {
    is_in_mask("SigIgn:", signal)
}

/// Whether a signal is in one of the masks of proc(5), a bit for each.
fn is_in_mask(name: &str, signal: Signal) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    Ok(mask >> (signal as i32 - 1) & 1 == 1)
}
