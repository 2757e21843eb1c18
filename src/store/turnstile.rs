//! The turnstile: whose turn it is to become the writer.
//!
//! redb's writer lock has neither a time-out nor an order: a pool that commits without pause was measured to
//! keep an `enqueue` out for seconds. So whoever wants to write first takes `flock(run/turn)` and lets go as
//! soon as it is the writer: the writer before it is then the only one that it waited for.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::StoreError;
use super::replace::identity;

/// How long a wait for the file may take before the user is told.
const WORTH_SAYING: Duration = Duration::from_secs(2);

/// How often a lock is tried before it is waited for: about as long as a thread takes to start, 50 µs.
const LOCK_TRIES: usize = 50;

/// Told once for each wait that takes over two seconds, from a thread of its own.
pub type OnWait = Box<dyn Fn() + Send + Sync>;

pub(super) struct Turnstile {
    file: File,
    path: PathBuf,
}

/// A place at the turnstile; let go by dropping it.
pub(super) struct Turn<'t>(&'t File);

impl Turnstile {
    /// Opens `run/turn`, made if it is missing. Opened for reading, so that closing it rings no bell.
    pub(super) fn open(run: &Path) -> io::Result<Self> {
        let path = run.join("turn");
        // A fifo in its place is not waited for; it can be locked like a file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => rustix::fs::open(&path, flags | OFlags::CREATE, Mode::RUSR | Mode::WUSR)?,
            opened => opened?,
        };
        Ok(Self { file: file.into(), path })
    }

    /// Waits for its turn. Refused if another turnstile took this one's place: then the whole queue was replaced.
    pub(super) fn take(&self, on_wait: &OnWait) -> Result<Turn<'_>, StoreError> {
        self.lock(on_wait)?;
        let turn = Turn(&self.file);
        let metadata = self.file.metadata()?;
        if identity(&self.path)?.is_some_and(|there| there != (metadata.dev(), metadata.ino())) {
            return Err(StoreError::Replaced);
        }
        Ok(turn)
    }

    /// Waits for its turn, and keeps it until the file is closed.
    pub(super) fn keep(self, on_wait: &OnWait) -> Result<File, StoreError> {
        std::mem::forget(self.take(on_wait)?);
        Ok(self.file)
    }

    fn lock(&self, on_wait: &OnWait) -> io::Result<()> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        patiently(on_wait, || {
            loop {
                match rustix::fs::flock(&self.file, FlockOperation::LockExclusive) {
                    Err(Errno::INTR) => {}
                    done => return Ok(done?),
                }
            }
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Cannot fail on an open file; if it did, the end of the process would let go.
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

/// Tries to lock while that costs less than the thread that tells of a long wait: who reads the header holds its lock
/// for some microseconds. Says whether the lock is held.
pub(super) fn soon<E>(try_lock: impl Fn() -> Result<bool, E>) -> bool {
    for _ in 0..LOCK_TRIES {
        match try_lock() {
            Ok(true) => return true,
            Ok(false) => thread::yield_now(),
            // Who waits for the lock is told the error.
            Err(_) => return false,
        }
    }
    false
}

/// Does what may block, and tells if it takes long.
pub(super) fn patiently<T>(on_wait: &OnWait, block: impl FnOnce() -> T) -> T {
    let wait = Wait::default();
    thread::scope(|scope| {
        // Without a thread to tell it nobody is told, and the wait goes on all the same.
        let _ = thread::Builder::new().spawn_scoped(scope, || {
            if wait.takes_long() {
                on_wait();
            }
        });
        let _over = Over(&wait);
        block()
    })
}

/// A wait that is watched by another thread.
#[derive(Default)]
struct Wait {
    is_over: Mutex<bool>,
    ended: Condvar,
}

impl Wait {
    /// Waits along; says whether it went on for so long that the user is to be told.
    fn takes_long(&self) -> bool {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(is_over, WORTH_SAYING, |is_over| !*is_over);
        waited.is_ok_and(|(is_over, _)| !*is_over)
    }
}

/// Ends the wait when it is dropped, also by a panic.
struct Over<'a>(&'a Wait);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.ended.notify_one();
    }
}
