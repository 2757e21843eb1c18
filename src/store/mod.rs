//! The queue file. Nothing outside this folder names redb.
//!
//! Each write transaction has a file: `enqueue` (with `keys` and `needs`), `bulk`, `claim`, `finish`, `ask` (cancel,
//! retry, pause), `settle`, `edit`, `remove`, `sweep`, `runs`, `pools`,
//! `config`. They take the time from their caller and know no processes. All of them move jobs through one
//! door, `placement`.
//!
//! Whole queues: `whole` reads jobs with everything of theirs, strictly or from what is left of a damaged file
//! (`salvage`), and `adopt` takes them into another file with every index made anew; `repair`, backup and `portable`
//! (export and import) stand on these two. `compact` copies rows as they are. `replace` puts a file in the place of
//! another. `pages` verifies what is read.
//!
//! # Invariants
//!
//! True of every committed state, and verified by [`Snapshot::check`]:
//! 1. Every seq in an index exists in JOBS; every job has a SPEC, a LANE, and its environment.
//! 2. A job is in exactly the placement that its state demands, under the key recomputed from its record.
//! 3. COUNTS equal a recount, without rows of zero; enqueued = present + removed.
//! 4. `processing` ⇔ exactly one lease; its pool is in POOLS and has not ended.
//! 5. Attempt records are contiguous from 1 up to the job's count, each with end ≥ start. What runs now is
//!    not among them: it is on the board of its pool.
//! 6. Failures and losses are within what the record says was allowed when it moved; `dead` has a reason that
//!    they justify.
//! 7. Next seq, lease, lane and run exceed all in use; ids and keys are unique and mirrored; names and tags
//!    are mirrored.
//! 8. Inline outputs that records name exist; reference counts of environments are right.
//! 9. Needs are mirrored; `blocked` ⇔ at least one is not met; what is neither blocked nor cancelled has met all. What
//!    is blocked waits for nobody that has ended, unless that one is in UNSETTLED, or noted by the bulk of what waits.
//! 10. What is unpublished is some bulk's: the lanes that LANES says are not published are those that META's bulks
//!     name, each once; their jobs, which 3 does not count, are pending, scheduled or blocked and were never started, and have
//!     numbers that were set aside for them, and nobody else has such a number.

mod adopt;
mod ask;
mod bulk;
mod check;
mod claim;
pub(crate) mod codec;
mod compact;
mod config;
mod edit;
mod enqueue;
mod error;
mod finish;
mod header;
mod keys;
mod labels;
mod needs;
mod open;
mod pages;
mod placement;
mod pools;
mod portable;
mod query;
mod queues;
mod records;
mod remove;
mod repair;
mod replace;
mod resume;
mod runs;
mod salvage;
mod schedule;
mod scraps;
mod select;
mod settle;
mod standing;
mod sweep;
mod syncs;
mod tables;
mod turnstile;
mod whole;

#[cfg(test)]
pub(crate) mod tests;

pub use adopt::OutputFile;
pub use ask::{Cancelled, Terms};
#[cfg(any(test, feature = "sim"))]
pub use bulk::Unpublished;
pub use bulk::{BulkInfo, BulkInto, BulkLanes};
pub use check::Report;
pub use claim::{Claim, ClaimCache, Serves, Token, Work};
pub use compact::{Compacted, compact};
pub use enqueue::{Enqueued, Wanted};
pub use error::StoreError;
pub use finish::Finished;
pub use header::commit_mark;
pub use keys::Met;
pub use needs::NeedInfo;
pub use open::{Store, panic_is_fenced};
pub(crate) use pools::NOTHING_LEFT;
pub use pools::{Control, Held, PoolInfo};
pub use portable::{Counters, Import, Piece, PortableAttempt, PortableJob, PortableNeed, PortableRun, fault};
pub use queues::QueueInfo;
pub use records::{Asked, Generations};
/// What a queue may lie upon instead of a file.
#[cfg(any(test, feature = "sim"))]
pub use redb::{BackendError, StorageBackend};
pub use remove::Removed;
pub use repair::{Lines, Repaired, check_pages, repair};
pub use replace::{Seized, identity as file_identity, parent_of, put_in_place, sync};
pub use resume::Completed;
pub use runs::{NewRun, RunInfo, RunStart};
pub use salvage::{Salvage, damaged_pages};
pub use select::{Cursor, Page, Seqs};
pub use settle::SETTLED_AT_ONCE;
pub use standing::{Place, Root};
pub use sweep::{Cleared, EndedAt, Sweep, Swept};
pub use tables::{SCHEMA_VERSION, Snapshot, Tx};
pub use turnstile::OnWait;
