//! What can go wrong on the store's floor.

use std::io;
use std::path::PathBuf;

use super::tables::SCHEMA_OLDEST;
use crate::model::{BadValue, JobId, JobKey, Refusal, SettingKey, StateKind};

/// Why a store operation did not happen. Whatever it is, nothing of the operation was done, except
/// where [`StoreError::outcome_is_unknown`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no queue file.
    #[error("there is no queue in {}", .0.display())]
    NoQueue(PathBuf),
    /// The file is not a queue, or no longer one.
    #[error("the queue file is damaged: {0}")]
    Damaged(String),
    /// The file is something else altogether.
    #[error("the file is not a queue: {0}")]
    NotAQueue(String),
    /// A later version wrote it, or one that is too old.
    #[error(
        "the queue has schema version {found}, this program knows {SCHEMA_OLDEST} to {known}: use {} queuectl",
        if found > known { "a newer" } else { "an older" }
    )]
    Schema {
        /// What the file says.
        found: u32,
        /// What this program reads and writes.
        known: u32,
    },
    /// The file cannot be written.
    #[error("the queue cannot be written: {0}")]
    ReadOnly(io::Error),
    /// The system refused to read or write.
    #[error("cannot read or write the queue: {0}")]
    Io(#[from] io::Error),
    /// Another file took the place of the one that was opened.
    #[error(
        "the queue was replaced meanwhile, by a repair, a restore or a compaction: nothing was done; type it again"
    )]
    Replaced,
    /// The file that was opened has no name any more.
    #[error("the queue was moved or deleted")]
    Gone,
    /// The file that was to take the queue file's place could not be made.
    #[error("it cannot be written anew, and is as it was: {0}")]
    NotRewritten(String),
    /// The commit failed half-way: it may have happened, or not.
    #[error("the queue could not be written to the end: {0}")]
    CommitFailed(String),
    /// A record is larger than any may be.
    #[error("too large to store: {0}")]
    TooLarge(String),
    /// An id that is taken.
    #[error("there is already a job {0}")]
    Duplicate(JobId),
    /// An id of a job that an enqueue under way has not published yet.
    #[error("the id {0} is held by an enqueue that is under way")]
    Reserved(JobId),
    /// A key that a job has, where that is an error, or that job cannot be replaced.
    #[error("the key {key} is that of job {id}, which is {}", .state.name())]
    KeyTaken {
        /// The key.
        key: JobKey,
        /// The job that has it.
        id: JobId,
        /// Where that is.
        state: StateKind,
    },
    /// A key that two jobs of a batch have, where that is an error.
    #[error("the key {0} is there twice")]
    KeyTwice(JobKey),
    /// A key of a job that an enqueue under way has not published yet.
    #[error("the key {0} is held by an enqueue that is under way")]
    KeyReserved(JobKey),
    /// What was to be taken over contradicts itself, or what is there.
    #[error("it does not fit: {0}")]
    Contradiction(String),
    /// No job of that id.
    #[error("there is no job {0}")]
    NoSuchJob(JobId),
    /// What a job of a batch waits for comes later in it, or is the job itself.
    #[error("a job waits for {0}, which does not come before it: put that first")]
    NeedsLater(JobId),
    /// What a job that is there is to wait for was enqueued after it.
    #[error("job {id} cannot wait for job {needed}: a job waits for earlier ones only, so that none waits in a circle")]
    NeedsNewer {
        /// The job.
        id: JobId,
        /// What it is to wait for.
        needed: JobId,
    },
    /// What a job is to wait for may wait for it, which was not followed to the end.
    #[error("job {id} cannot wait for job {needed}, which itself waits for too many others, or for job {id}")]
    NeedsTooMany {
        /// The job.
        id: JobId,
        /// What it is to wait for.
        needed: JobId,
    },
    /// What a job would wait for has ended otherwise.
    #[error("job {id} is {}: what waits for it to complete would never run", .state.name())]
    NeedEnded {
        /// The job that is needed.
        id: JobId,
        /// Where it is.
        state: StateKind,
    },
    /// Something that is not published yet waits for a job.
    #[error("an enqueue that is under way has jobs that wait for job {0}")]
    NeededUnseen(JobId),
    /// A job that is in no state for that.
    #[error("job {id}: {refusal}")]
    Refused {
        /// The job.
        id: JobId,
        /// Why not.
        refusal: Refusal,
    },
    /// A job that is no longer as it was when its editing began.
    #[error("job {0} was changed by somebody else meanwhile")]
    Changed(JobId),
    /// What a job was to become cannot be.
    #[error("job {id}: {why}")]
    Unfit {
        /// The job.
        id: JobId,
        /// Why not, in words.
        why: String,
    },
    /// A job whose queue cannot change.
    #[error("job {0} is part of a run, and stays in it")]
    OfRun(JobId),
    /// A setting that no queue has a value of its own of.
    #[error("{} is for all queues together", .0.name())]
    OfAllQueues(SettingKey),
    /// A value that a setting does not take.
    #[error(transparent)]
    BadValue(#[from] BadValue),
}

impl StoreError {
    /// Whether the operation may have happened all the same: open the queue anew and look.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, Self::CommitFailed(_))
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> Self {
        match error {
            redb::StorageError::Io(error) => match super::pages::damage_in(&error) {
                Some(what) => Self::Damaged(what),
                None => Self::Io(error),
            },
            redb::StorageError::Corrupted(what) => Self::Damaged(what),
            // A handle that met an error refuses everything after it: that is no damage, it helps to open the file anew.
            previous @ redb::StorageError::PreviousIo => Self::Io(io::Error::other(previous)),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::CursorError> for StoreError {
    fn from(error: redb::CursorError) -> Self {
        match error {
            redb::CursorError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> Self {
        match error {
            // It will not work the next time either.
            redb::CommitError::Storage(redb::StorageError::Io(error)) if super::pages::damage_in(&error).is_some() => {
                redb::StorageError::Io(error).into()
            }
            error => Self::CommitFailed(error.to_string()),
        }
    }
}
