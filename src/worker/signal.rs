//! Signals to jobs that run, from whoever has the queue open.
//!
//! The job's claim names its pool, the board of that pool the process that leads the run. What is signalled are the
//! processes of its group, each through a pidfd that was opened and then compared with what the board says: so it is
//! never a stranger that has come by a pid. A pool of which this queue is a copy is left alone, as in recovery.
//!
//! Nothing is noted anywhere: a job that dies of it has failed, one that is stopped is still running. Its pool sees it
//! stop and go on, and does not count the time between towards its timeout.

use std::collections::HashSet;
use std::io;

use rustix::process::{Pid, Signal};

use super::activity::board_path;
use super::board::{self, Identity, Stage};
use super::pool::token_prefix;
use super::tree::{self, Leader, Mark, Reach};
use crate::model::{Seq, State};
use crate::queue::Queue;
use crate::store::{Snapshot, StoreError, file_identity};

/// How often a group that is to stop is looked at again for processes that its members have started meanwhile.
const STOP_ROUNDS_MAX: usize = 10;

/// Why a signal was sent to none of the jobs.
#[derive(Debug, thiserror::Error)]
pub enum NotSignalled {
    /// The job does not run.
    #[error("it does not run")]
    NotRunning(Seq),
    /// Its processes cannot be seen from here.
    #[error("it runs where nobody can signal it from here")]
    OutOfSight(Seq),
    /// There is no such signal.
    #[error("there is no signal {0}")]
    NoSuchSignal(i32),
    /// It could not be told what runs, or not be sent.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The queue file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sends a signal to the process groups of these jobs, or to none of them if one does not run. Answers for each how many
/// processes it was sent to.
pub fn signal_jobs(queue: &Queue, seqs: &[Seq], number: i32) -> Result<Vec<usize>, NotSignalled> {
    let signal = Signal::from_named_raw(number).ok_or(NotSignalled::NoSuchSignal(number))?;
    let marks = seqs.iter().map(|seq| mark(queue, *seq)).collect::<Result<Vec<_>, _>>()?;
    let mut signalled: HashSet<Pid> = HashSet::new();
    let mut counts = vec![0; seqs.len()];
    for round in 0..STOP_ROUNDS_MAX {
        let mut found = tree::find(&marks, Reach::Group)?;
        if round == 0
            && let Some(gone) = (0..marks.len()).find(|mark| found.iter().all(|process| process.mark != *mark))
        {
            return Err(NotSignalled::NotRunning(seqs[gone]));
        }
        found.retain(|process| signalled.insert(process.pid));
        if found.is_empty() {
            break;
        }
        let refused = tree::signal(&found, signal);
        for process in found.iter().filter(|process| refused.iter().all(|(pid, _)| *pid != process.pid)) {
            counts[process.mark] += 1;
        }
        if let Some((_, errno)) = refused.first().filter(|_| counts.iter().all(|count| *count == 0)) {
            return Err(io::Error::from(*errno).into());
        }
        // Other signals are for who is there: what a handler starts is not to get them.
        if signal != Signal::STOP {
            break;
        }
    }
    Ok(counts)
}

/// How the processes of a job's run are found.
fn mark(queue: &Queue, seq: Seq) -> Result<Mark, NotSignalled> {
    let not_running = || NotSignalled::NotRunning(seq);
    let (job, pools) = queue.read(|snapshot| Ok((snapshot.job(seq)?, Snapshot::pools(snapshot)?)))?;
    let Some(State::Processing(claimed)) = job.map(|job| job.progress.state) else { return Err(not_running()) };
    let pool = pools.into_iter().find(|pool| pool.id == claimed.pool).ok_or_else(not_running)?;
    let board = board::read(&board_path(queue.folder(), &pool.id))?.ok_or_else(not_running)?;
    let here = Identity::of_this_process()?;
    if !board.identity.shares_pids_with(&here) || file_identity(&queue.file())? != Some(pool.file) {
        return Err(NotSignalled::OutOfSight(seq));
    }
    let slot = board.slots.iter().find(|slot| slot.seq == seq && slot.lease == claimed.lease);
    let Some(Stage::Running { boot_ticks, born_by, pid, .. }) = slot.map(|slot| &slot.stage) else {
        return Err(not_running());
    };
    let pid = Pid::from_raw(pid.cast_signed()).ok_or_else(not_running)?;
    let token = format!("{}{}", token_prefix(pool.file, pool.nonce), claimed.lease.0).into_bytes();
    Ok(Mark { token, leader: Some(Leader { pid, born: *boot_ticks..=*born_by }) })
}
