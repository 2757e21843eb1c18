//! The bell: whoever waits for the queue waits on its file.
//!
//! One inotify instance watches `queue.redb`, whose header every commit of any process modifies, the folder
//! `run/`, where the kernel closes the file of a pool that dies, and the folder of both. Nothing is missed
//! between two waits, since the kernel queues what happens; so make the bell first, look at the queue
//! then, and wait.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
    timerfd_settime,
};

use crate::model::PoolId;
use crate::store::commit_mark;

#[cfg(test)]
mod tests;
mod watches;

use watches::Watches;

/// How often a deaf bell has the queue looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why a wait ended. Where several reasons came together, the first of these is told first and the others
/// by the next waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ring {
    /// The queue is no longer where it was: it was moved, deleted or replaced, or its folder was.
    Moved,
    /// Its waker was used.
    Woken,
    /// The wall clock was set, or the machine was suspended: deadlines on it may be over.
    ClockSet,
    /// Something in the queue may have moved: its file or one watched besides was modified, or a pool's
    /// file was closed or deleted.
    Changed,
    /// Nothing happened for as long as was asked for.
    TimedOut,
}

/// Waits for a queue.
#[derive(Debug)]
pub struct Bell {
    queue: PathBuf,
    /// Device and inode of what `queue` led to at the start.
    file: (u64, u64),
    /// The queue file.
    commits: File,
    /// What the last commit left in it that was told of.
    mark: Vec<u8>,
    watches: Option<Watches>,
    deaf: Option<Deaf>,
    clock: OwnedFd,
    wakes: Arc<OwnedFd>,
    pending: BTreeSet<Ring>,
    closed: BTreeSet<PoolId>,
}

/// What a bell does that cannot watch.
#[derive(Debug)]
struct Deaf {
    why: &'static str,
    /// When it rings next, on the monotonic clock: not with each wait, since these may all be shorter.
    look_at: Duration,
}

/// Ends a wait from another thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the bell's wait, or else its next one, answer [`Ring::Woken`]: once, however often this is
    /// called until then.
    pub fn wake(&self) {
        // It can fail only when the count is full, and then there is a wake to come.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl Bell {
    /// The bell of the queue in `folder`, which holds `queue.redb` and `run/`. An absolute path keeps it
    /// right when this process changes its folder.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Self::with_watches(folder, Watches::new)
    }

    fn with_watches(folder: &Path, watch: impl FnOnce(&Path, &Path) -> Result<Watches, Errno>) -> io::Result<Self> {
        let queue = folder.join("queue.redb");
        let commits = File::open(&queue)?;
        let file = commits.metadata()?;
        let mut bell = Self {
            file: (file.dev(), file.ino()),
            mark: commit_mark(&commits)?,
            commits,
            watches: None,
            deaf: None,
            clock: changes_of_the_clock()?,
            wakes: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            pending: BTreeSet::new(),
            closed: BTreeSet::new(),
            queue,
        };
        match watch(folder, &bell.queue) {
            Ok(watches) => bell.watches = Some(watches),
            Err(error) => bell.go_deaf(error)?,
        }
        Ok(bell)
    }

    /// Why inotify cannot be had, if it cannot: the bell then rings [`Ring::Changed`] every 250 ms,
    /// whether anything changed or not.
    pub fn is_deaf(&self) -> Option<&str> {
        self.deaf.as_ref().map(|deaf| deaf.why)
    }

    /// Rings [`Ring::Changed`] also when `file` is modified, until it is deleted.
    pub fn also_watch(&mut self, file: &Path) -> io::Result<()> {
        match self.watches.as_ref().map(|watches| watches.also(file)) {
            Some(Err(error)) => self.go_deaf(error),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// What ends this bell's waits from elsewhere.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wakes))
    }

    /// The pools whose files were closed or deleted since this was asked last: the ones to ask
    /// `probe_after_close` about. A hint: a deaf bell knows of none,
    /// and one that was not listened to for too long may have forgotten some.
    pub fn take_closed(&mut self) -> BTreeSet<PoolId> {
        std::mem::take(&mut self.closed)
    }

    /// Waits until something happens, or happened since the last wait, for at most `timeout`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ring> {
        let deadline = timeout.map(|timeout| monotonic().saturating_add(timeout));
        loop {
            self.poll_until(deadline)?;
            self.gather()?;
            if let Some(ring) = self.pending.pop_first() {
                return Ok(ring);
            }
            if deadline.is_some_and(|deadline| deadline <= monotonic()) {
                return Ok(Ring::TimedOut);
            }
        }
    }

    /// Blocks until there is something to gather, or `deadline`, or a signal.
    fn poll_until(&self, deadline: Option<Duration>) -> io::Result<()> {
        let look_at = self.deaf.as_ref().map(|deaf| deaf.look_at);
        let until = if self.pending.is_empty() { earlier(deadline, look_at) } else { Some(Duration::ZERO) };
        let left = until.map(|until| until.saturating_sub(monotonic()));
        // What no timespec can hold is for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![PollFd::new(&self.clock, PollFlags::IN), PollFd::new(&*self.wakes, PollFlags::IN)];
        fds.extend(self.watches.as_ref().map(|watches| PollFd::new(watches, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes note of everything that happened, without blocking.
    fn gather(&mut self) -> io::Result<()> {
        if self.was_woken()? {
            self.pending.insert(Ring::Woken);
        }
        if self.clock_was_set()? {
            self.pending.insert(Ring::ClockSet);
        }
        self.gather_events()?;
        self.look_if_deaf()
    }

    fn gather_events(&mut self) -> io::Result<()> {
        let Some(watches) = &self.watches else { return Ok(()) };
        let heard = watches.drain()?;
        self.closed.extend(heard.closed);
        if heard.changed || (heard.written && self.has_commits()) {
            self.pending.insert(Ring::Changed);
        }
        // Many events may come of a move, and most of them of other things too; the path tells. It also
        // tells when a folder further up was moved, which has no event.
        if heard.lost || heard.anything && !self.is_where_it_was()? {
            self.pending.insert(Ring::Moved);
        }
        Ok(())
    }

    /// Whether there was a commit since this was asked last. One writes many pages before anybody can see it, and
    /// whoever looked at each of them would be in its way.
    fn has_commits(&mut self) -> bool {
        // What is wrong with the file is told to who looks.
        let Ok(mark) = commit_mark(&self.commits) else { return true };
        let is_new = mark != self.mark;
        self.mark = mark;
        is_new
    }

    fn look_if_deaf(&mut self) -> io::Result<()> {
        let Some(deaf) = &mut self.deaf else { return Ok(()) };
        let now = monotonic();
        if now < deaf.look_at {
            return Ok(());
        }
        deaf.look_at = now + LOOK_EVERY;
        self.pending.insert(Ring::Changed);
        if !self.is_where_it_was()? {
            self.pending.insert(Ring::Moved);
        }
        Ok(())
    }

    fn is_where_it_was(&self) -> io::Result<bool> {
        match fs::metadata(&self.queue) {
            Ok(there) => Ok(self.file == (there.dev(), there.ino())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn was_woken(&self) -> io::Result<bool> {
        match rustix::io::read(&*self.wakes, &mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn clock_was_set(&self) -> io::Result<bool> {
        match rustix::io::read(&self.clock, &mut [0; 8]) {
            Ok(_) | Err(Errno::CANCELED) => arm(&self.clock).map(|()| true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Goes deaf if `error` says that inotify is used up; else it is an error.
    fn go_deaf(&mut self, error: Errno) -> io::Result<()> {
        let why = match error {
            Errno::MFILE | Errno::NFILE => "all inotify instances are in use (fs.inotify.max_user_instances)",
            Errno::NOSPC => "all inotify watches are in use (fs.inotify.max_user_watches)",
            error => return Err(error.into()),
        };
        self.deaf.get_or_insert_with(|| Deaf { why, look_at: monotonic() + LOOK_EVERY });
        Ok(())
    }
}

/// A timer that becomes readable when the wall clock is set.
fn changes_of_the_clock() -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    arm(&timer)?;
    Ok(timer)
}

/// Arms `timer` for a time that never comes.
fn arm(timer: &OwnedFd) -> io::Result<()> {
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: i64::MAX, tv_nsec: 0 },
    };
    match timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never) {
        // Armed, and the clock was set once more meanwhile.
        Ok(_) | Err(Errno::CANCELED) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// The time on the clock that `poll` counts by.
fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
