//! Syncs that change nothing are spared.
//!
//! Whoever opens the file to write says in its header that it is open, and syncs that, before it changes any page; beside
//! a pool the header says so already. A header that is in the file as it is to be written is not written, and a sync with
//! nothing but such a header before it is not done. That is half of the four syncs of an `enqueue` beside a pool, unless
//! the file has to grow.
//!
//! **Why nothing is lost.** Where the header in the file was synced, nothing is spared but work. It may be the last word
//! of a process that was killed before its sync. What such a header has, and the one on the disk perhaps not, is one of
//! these, as redb 4.6 writes it:
//! - *The mark that the file is open.* Without it, after a power cut, redb trusts the last commit and what that recorded
//!   of free pages. Both are there as they were: pages are copied, not changed, until the next commit, and the first sync
//!   of that is of everything, the mark too.
//! - *A commit that is not the last one yet*, in the slot that nobody reads. Nobody misses it.
//! - *A commit that is the last one but not said to be on the disk*: who opens the file then syncs without a write before,
//!   and takes that word away. Such a sync is always done, and a header without the word is another one.
//! - *That word taken away*, after the sync of the commit. With the word on the disk, it is taken away again.
//! - *A new length of the file*, of a process that was killed as it made the file longer, written by one that opened it
//!   next, and was killed too before its sync. If now power is lost, the header may be on the disk and the length not;
//!   then the file is said to be cut short. No commit is lost with that. It is so without sparing, until the next opening
//!   and its sync; with it, until the first commit after that. redb itself syncs a length before it commits to it.
//!
//! redb syncs right after it writes a header on opening, so that no sync that is spared was meant for anything else.

use std::io;
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

/// A file to which headers that are there already are not written.
pub(super) struct Syncs<B> {
    pub(super) file: B,
    unsynced: Mutex<Unsynced>,
}

/// What this handle wrote since it last made that last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Unsynced {
    /// Nothing. A sync now is for what somebody else wrote.
    #[default]
    Nothing,
    /// The header, as it was.
    SameHeader,
    /// Something.
    Something,
}

impl<B: StorageBackend> Syncs<B> {
    pub(super) fn new(file: B) -> Self {
        Self { file, unsynced: Mutex::default() }
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && self.is_header(data)? {
            self.note(|unsynced| if unsynced == Unsynced::Nothing { Unsynced::SameHeader } else { unsynced });
            return Ok(());
        }
        let written = self.file.write(offset, data);
        // Afterwards, so that a sync of another thread meanwhile does not count for this, and also after an error,
        // which may have written a part.
        self.note(|_| Unsynced::Something);
        written
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let set = self.file.set_len(len);
        self.note(|_| Unsynced::Something);
        set
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if *unsynced != Unsynced::SameHeader {
            self.file.sync_data()?;
        }
        *unsynced = Unsynced::Nothing;
        Ok(())
    }

    fn note(&self, change: impl FnOnce(Unsynced) -> Unsynced) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        *unsynced = change(*unsynced);
    }

    /// Whether the header in the file is this already. Whoever writes it holds its lock.
    fn is_header(&self, data: &[u8]) -> io::Result<bool> {
        if self.file.len()? < data.len() as u64 {
            return Ok(false);
        }
        let mut header = vec![0; data.len()];
        self.file.read(0, &mut header)?;
        Ok(header == data)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::super::tests::pool;
    use super::*;
    use crate::model::{Command, JobSpec, Millis};
    use crate::sim::disk::Disk;

    #[test]
    fn only_a_sync_of_a_header_that_was_there_is_spared() {
        let disk = Disk::default();
        let file = Syncs::new(disk.drive());
        let synced = |what: &dyn Fn()| {
            let before = disk.syncs();
            what();
            file.sync_data().unwrap();
            disk.syncs() - before
        };
        let write = |offset, byte| file.write(offset, &[byte; 320]).unwrap();
        assert_eq!(synced(&|| file.set_len(8_192).unwrap()), 1);
        assert_eq!(synced(&|| write(0, 1)), 1);
        assert_eq!(synced(&|| write(0, 1)), 0, "it was there");
        assert_eq!(synced(&|| {}), 1, "for what others wrote");
        assert_eq!(synced(&|| (write(4_096, 1), write(0, 1)).0), 1, "a page was before it");
        assert_eq!(synced(&|| (write(0, 1), write(4_096, 1)).0), 1, "a page was after it");
        assert_eq!(synced(&|| (write(0, 1), file.set_len(12_288).unwrap()).0), 1, "the length");
        assert_eq!(synced(&|| (write(0, 2), write(0, 2)).0), 1, "it was there only then");
        assert_eq!(synced(&|| (write(0, 2), write(0, 2)).0), 0);
    }

    #[test]
    fn one_enqueue_beside_a_pool_makes_two_syncs() {
        let disk = Disk::default();
        let beside = Store::on(disk.drive()).unwrap();
        beside.write(Millis(1), |tx| tx.register(&pool("p1"))).unwrap();
        let job = [JobSpec::new(Command::Shell(b"true".to_vec()), "/")];
        let mut grown = 0;
        for n in 0..20 {
            let (before, length) = (disk.syncs(), disk.contents().len());
            let store = Store::on(disk.drive()).unwrap();
            store.write(Millis(2 + n), |tx| tx.enqueue(&job)).unwrap();
            store.leave();
            let grew = usize::from(disk.contents().len() > length);
            assert_eq!(disk.syncs() - before, 2 + grew, "at the {n}th");
            grown += grew;
        }
        assert!(grown < 5, "a longer file is a sync more, and seldom");
        let before = disk.syncs();
        beside.write(Millis(99), |tx| tx.enqueue(&job)).unwrap();
        assert_eq!(disk.syncs() - before, 2);
    }
}
