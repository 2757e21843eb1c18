//! Compacting: every row is copied, as it is and in order, into a new file, which then takes the queue file's place.
//!
//! Rows that are inserted in order fill their pages. What is free between these, redb's own compaction removes, in the
//! new file while it is nobody else's. That alone would not do in a file that others use: it fills no page, and its
//! commits on the way are without the record of free pages, on which the next writer relies here.
//!
//! Nobody writes meanwhile, since the queue is [`Seized`]; readers go on seeing the old file, which is the same queue.
//! No pool may live or be unrecovered: processes are known by the queue file's inode.
//!
//! # Crash points
//!
//! | killed | what is there |
//! |---|---|
//! | before the rename | the queue file as it was, untouched, and `compact.tmp` with a part or all of the new one |
//! | after it | the new file, synced before; perhaps `compact.tmp`, in which only its folders are left |
//! | power fails right after it | the one file or the other, each whole; with the old one, `compact.tmp` as above |
//!
//! Whoever opens the queue to write next removes `compact.tmp`, and so does the next compaction or repair.
//!
//! That the new file holds the same rows is not trusted to the copying: before the rename it is closed, opened anew,
//! and read from end to end. A disk that is full ends it before the rename.

use std::fs;
use std::path::Path;

use super::StoreError;
use super::open::{Store, file_of};
use super::replace::{Seized, identity};
use super::scraps::Scraps;
use super::tables::Snapshot;

/// What a compaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// How many jobs the queue has.
    pub jobs: u64,
    /// Bytes of the queue file before.
    pub before: u64,
    /// Bytes of it now.
    pub after: u64,
}

/// Makes the queue file as small as its rows allow.
pub fn compact(queue: Seized) -> Result<Compacted, StoreError> {
    let file = queue.file();
    let compacted = rewrite(queue);
    // Whatever went wrong, it was for that.
    if compacted.is_err() && identity(&file)?.is_none() { Err(StoreError::Gone) } else { compacted }
}

fn rewrite(queue: Seized) -> Result<Compacted, StoreError> {
    let old = Store::open_read_only(queue.folder(), Box::new(|| {}))?;
    let before = fs::metadata(queue.file())?.len();
    let scraps = Scraps::make(queue.folder(), "compact.tmp").map_err(|error| not_rewritten(&error))?;
    let folder = scraps.path("new").map_err(|error| not_rewritten(&error))?;
    let jobs = old.read(|rows| {
        pack(rows, &folder)?;
        let head = rows.head()?;
        Ok(head.enqueued.saturating_sub(head.removed))
    })?;
    let new = file_of(&folder);
    let after = fs::metadata(&new)?.len();
    queue.give_way_to(&new)?;
    Ok(Compacted { jobs, before, after })
}

/// Makes a queue of these rows in an empty folder.
fn pack(rows: &Snapshot, folder: &Path) -> Result<(), StoreError> {
    fs::create_dir(folder.join("run")).map_err(|error| not_rewritten(&error))?;
    let write = || {
        let (mut new, _) = Store::open_or_create(folder, Box::new(|| {}))?;
        new.fill(rows)?;
        new.close()
    };
    write().map_err(|error| match error {
        StoreError::Io(_) | StoreError::CommitFailed(_) => not_rewritten(&error),
        error => error,
    })?;
    let written = Store::open_read_only(folder, Box::new(|| {})).and_then(|new| new.read(Snapshot::fingerprint));
    if written.map_err(|error| not_rewritten(&error))? == rows.fingerprint()? {
        return Ok(());
    }
    // Every page of both is what its checksum says.
    Err(StoreError::Damaged("its rows cannot be copied as they are".to_owned()))
}

fn not_rewritten(error: &impl ToString) -> StoreError {
    StoreError::NotRewritten(error.to_string())
}

#[cfg(test)]
mod tests;
