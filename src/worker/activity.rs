//! What pools do right now, read from their boards: starting a job is no transaction.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::board::{self, Life, Stage};
use crate::model::{Millis, Outcome, PoolId, Seq, WorkerId};
use crate::queue::Queue;

/// A run that goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// The job.
    pub seq: Seq,
    /// Its lease, as a number.
    pub lease: u64,
    /// The run's number, from 1.
    pub attempt: u32,
    /// Who runs it.
    pub worker: WorkerId,
    /// Since when.
    pub started: Millis,
    /// The number of the files that it writes to.
    pub spool: u32,
}

/// A run as the board of its pool has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// The job.
    pub seq: Seq,
    /// Its lease, as a number.
    pub lease: u64,
    /// The run's number, from 1.
    pub attempt: u32,
    /// How it ended, if its pool saw that.
    pub outcome: Option<Outcome>,
}

/// What stands on a board, whether its pool lives or not: runs that were about to start or go on, and those whose end
/// was seen, committed or not. Nothing if there is no such file.
pub fn noted(board: &Path) -> io::Result<Vec<Noted>> {
    let slots = board::read(board)?.map(|board| board.slots).unwrap_or_default();
    let noted = slots.into_iter().map(|slot| {
        let outcome = match slot.stage {
            Stage::Starting { .. } | Stage::Running { .. } => None,
            Stage::Ended { outcome, .. } => Some(outcome),
        };
        Noted { seq: slot.seq, lease: slot.lease.0, attempt: slot.attempt, outcome }
    });
    Ok(noted.collect())
}

/// The file of a pool, with its board.
pub fn board_path(queue: &Path, pool: &PoolId) -> PathBuf {
    queue.join("run").join(pool.as_str())
}

/// The runs of a pool that go on, by worker. Empty if its board cannot be read.
pub fn activity(queue: &Queue, pool: &PoolId) -> Vec<Activity> {
    let board = board::read(&board_path(queue.folder(), pool)).ok().flatten();
    let slots = board.map(|board| board.slots).unwrap_or_default();
    let mut runs: Vec<Activity> = slots
        .into_iter()
        .filter_map(|slot| {
            let started = match slot.stage {
                Stage::Starting { at, .. } | Stage::Running { at, .. } => at,
                Stage::Ended { .. } => return None,
            };
            let worker = WorkerId { pool: pool.clone(), slot: slot.worker };
            Some(Activity {
                seq: slot.seq,
                lease: slot.lease.0,
                attempt: slot.attempt,
                worker,
                started,
                spool: slot.spool,
            })
        })
        .collect();
    runs.sort_by_key(|run| run.worker.slot);
    runs
}

/// Waits until a process has ended, at most so long. One that cannot be seen from here counts as ended.
pub fn await_exit(pid: u32, long: Duration) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    let long = Timespec::try_from(long).ok();
    // Interrupted or not, this is only a courtesy.
    let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], long.as_ref());
}

/// After a pool's file was closed: waits, for a moment at most, until its death can be seen, if it died.
pub fn await_death(queue: &Queue, pool: &PoolId) {
    // Whatever comes of it, the next probe tells.
    let _ = board::probe_after_close(&board_path(queue.folder(), pool));
}

/// Whether a pool lives.
pub fn is_alive(queue: &Queue, pool: &PoolId) -> bool {
    // What cannot be probed is not declared dead.
    !matches!(board::probe(&board_path(queue.folder(), pool)), Ok(Life::Dead))
}
