//! What a bell has inotify watch, and what the events say.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::model::PoolId;
use crate::worker::board::pool_name;

/// Room for the events of one read: at least a dozen of the longest.
const EVENTS_BYTES: usize = 4096;

/// An inotify instance with the watches of one queue.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: OwnedFd,
    run: i32,
    folder: i32,
    queue: i32,
}

/// What happened since the last time.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub(super) struct Heard {
    /// Any event at all.
    pub(super) anything: bool,
    /// Something in the queue may have moved.
    pub(super) changed: bool,
    /// The queue file was written to.
    pub(super) written: bool,
    /// A watch ended, since what it watched is gone.
    pub(super) lost: bool,
    /// The pools whose files were closed after writing, or deleted.
    pub(super) closed: BTreeSet<PoolId>,
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Watches {
    /// Watches the file `queue`, and `folder` that it is in.
    pub(super) fn new(folder: &Path, queue: &Path) -> Result<Self, Errno> {
        // ATTRIB comes when the number of links changes, so when another file is renamed over this one or
        // it is deleted while somebody has it open.
        const QUEUE: WatchFlags =
            WatchFlags::MODIFY.union(WatchFlags::ATTRIB).union(WatchFlags::MOVE_SELF).union(WatchFlags::DELETE_SELF);
        // Not MODIFY: pools write their boards all the time, for nobody to read while they live.
        const RUN: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::DELETE);
        const FOLDER: WatchFlags = WatchFlags::MOVE_SELF
            .union(WatchFlags::DELETE_SELF)
            .union(WatchFlags::MOVED_FROM)
            .union(WatchFlags::DELETE);
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            queue: inotify::add_watch(&inotify, queue, QUEUE)?,
            run: inotify::add_watch(&inotify, folder.join("run"), RUN | WatchFlags::ONLYDIR)?,
            folder: inotify::add_watch(&inotify, folder, FOLDER | WatchFlags::ONLYDIR)?,
            inotify,
        })
    }

    /// Watches also `file`, for being modified.
    pub(super) fn also(&self, file: &Path) -> Result<(), Errno> {
        inotify::add_watch(&self.inotify, file, WatchFlags::MODIFY).map(drop)
    }

    /// Everything that happened since the last time, without blocking.
    pub(super) fn drain(&self) -> io::Result<Heard> {
        let mut heard = Heard::default();
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => self.hear(&event, &mut heard),
                Err(Errno::AGAIN) => return Ok(heard),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn hear(&self, event: &Event<'_>, heard: &mut Heard) {
        let is = |flags: ReadFlags| event.events().intersects(flags);
        heard.anything = true;
        let is_queue = event.wd() == self.queue;
        heard.written |= is_queue && is(ReadFlags::MODIFY);
        heard.changed |= !is_queue && is(ReadFlags::MODIFY) || is(ReadFlags::QUEUE_OVERFLOW);
        heard.lost |= is(ReadFlags::IGNORED) && [self.queue, self.run, self.folder].contains(&event.wd());
        if event.wd() == self.run && is(ReadFlags::CLOSE_WRITE | ReadFlags::DELETE) {
            heard.changed = true;
            heard.closed.extend(event.file_name().and_then(|name| pool_name(OsStr::from_bytes(name.to_bytes()))));
        }
    }
}
