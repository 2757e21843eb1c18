//! Running jobs.

mod activity;
mod backup;
pub(crate) mod bell;
pub(crate) mod board;
mod bulk;
pub(crate) mod child;
mod committer;
mod detached;
pub(crate) mod dispatcher;
mod incoming;
mod launch;
mod lives;
mod monitor;
mod news;
mod output;
mod places;
mod plain;
mod pool;
pub(crate) mod program;
mod quiet;
mod recovery;
mod run;
mod signal;
mod signals;
#[cfg(test)]
pub(crate) mod specimen;
mod standstill;
pub(crate) mod tree;

pub use activity::{Activity, Noted, activity, await_death, await_exit, board_path, is_alive, noted};
pub use backup::{BackupError, Copied, backup, restore};
pub use bell::{Bell, Ring};
pub use bulk::{BegunBulk, BulkMaker, PIECE_BYTES_MAX, PIECE_JOBS_FIRST, outlast_bulks, past_bulks, remove_dead_bulks};
pub use detached::spawn_detached;
pub use incoming::Incoming;
pub use news::{JobNews, News, Observer};
pub use output::{delete_outputs, left_over, output_path, resume_at, spool_path};
pub use pool::{Pool, PoolEnd, PoolError, PoolOptions};
pub use quiet::{NotQuiet, Quiet};
pub use recovery::{dead_pools, obstacles, recover};
pub use signal::{NotSignalled, signal_jobs};
pub use signals::{StopListener, spawn_shielded, survive_file_limit};
pub use standstill::{Hold, Service, Standstill, Told, Waits, standstill};
