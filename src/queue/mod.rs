//! The handle of a queue: its folder, its file and its clock.

mod clock;
mod folder;

use std::path::Path;
use std::sync::Arc;

pub use clock::Clock;
pub use folder::{BadFolder, Folder};

use crate::model::JobSpec;
use crate::store::{Enqueued, OnWait, Report, SETTLED_AT_ONCE, Snapshot, Store, StoreError, Tx};

/// A queue, open: a store with a clock.
///
/// Any number of processes may have it open. Dropping it closes the file; a process that is about to exit
/// can [`leave`](Self::leave) instead, which is faster.
#[derive(Debug)]
pub struct Queue {
    store: Store,
    clock: Arc<Clock>,
}

impl Queue {
    /// Opens the queue in `folder` for reading and writing.
    pub fn open(folder: &Folder, on_wait: OnWait) -> Result<Self, StoreError> {
        Self::with(folder, Store::open(folder.path(), on_wait)?)
    }

    /// Opens the queue in `folder` for looking only.
    pub fn open_read_only(folder: &Folder, on_wait: OnWait) -> Result<Self, StoreError> {
        Self::with(folder, Store::open_read_only(folder.path(), on_wait)?)
    }

    /// Verifies every page of the queue file in `folder`, and every invariant of what they hold.
    pub fn check(folder: &Folder, on_wait: OnWait) -> Result<Report, StoreError> {
        Store::check(folder.path(), on_wait)
    }

    /// Opens the queue in `folder`, and makes it if there is none. Says whether it did.
    pub fn open_or_create(folder: &Folder, on_wait: OnWait) -> Result<(Self, bool), StoreError> {
        let (store, made) = Store::open_or_create(folder.path(), on_wait)?;
        Ok((Self::with(folder, store)?, made))
    }

    fn with(folder: &Folder, store: Store) -> Result<Self, StoreError> {
        folder.still_there().map_err(std::io::Error::other)?;
        let clock = Arc::new(Clock::default());
        clock.observe(store.read(Snapshot::newest)?);
        Ok(Self { store, clock })
    }

    /// The folder of the queue.
    pub fn folder(&self) -> &Path {
        self.store.folder()
    }

    /// The queue file.
    pub fn file(&self) -> std::path::PathBuf {
        self.store.file()
    }

    /// The queue's time.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Looks at the queue as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.store.read(look)
    }

    /// Changes the queue in one transaction: all of `change`, durable when this returns, or nothing.
    pub fn write<T>(&self, change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut newest = None;
        let done = self.store.write(self.clock.now(), |tx| {
            newest = Some(tx.now());
            change(tx)
        });
        if let Some(newest) = newest {
            self.clock.observe(newest);
        }
        done
    }

    /// Enqueues all of `specs`, or none.
    pub fn enqueue(&self, specs: &[JobSpec]) -> Result<Vec<Enqueued>, StoreError> {
        if specs.iter().any(|spec| spec.key.is_some()) {
            // It may have another job replaced or retried.
            return self.write_and_settle(|tx| tx.enqueue(specs));
        }
        self.write(|tx| tx.enqueue(specs))
    }

    /// A change that may end jobs, or make them run again, which others need: these learn of it, too, in transactions of
    /// their own as long as they are many. The change is durable before the first of those.
    pub fn write_and_settle<T>(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (done, is_unsettled) = self.write(|tx| Ok((change(tx)?, tx.settle(SETTLED_AT_ONCE)?)))?;
        if is_unsettled {
            self.settle()?;
        }
        Ok(done)
    }

    /// Tells all jobs of the ends of those that they need.
    pub fn settle(&self) -> Result<(), StoreError> {
        while self.write(|tx| tx.settle(SETTLED_AT_ONCE))? {}
        Ok(())
    }

    /// After a failed commit: opens the file anew.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.store.reopen()
    }

    /// Gives the queue up without closing the file: for a process that exits now.
    pub fn leave(self) {
        self.store.leave();
    }
}
