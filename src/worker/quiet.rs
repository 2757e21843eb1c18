//! Quiet: no pool works on a queue, and nothing of one that died still runs. What a repair or a restore asks for
//! before it puts another file in the queue's place.
//!
//! The jobs that were claimed are pending in the new file, and its POOLS is empty: nobody would look for survivors
//! any more. So those are found and ended before, by recovery as always; where the damaged file makes that
//! impossible, by the boards in `run/` alone. What cannot be ended keeps the file from being replaced.
//!
//! Between [`Quiet::reach`] and the moment in which nobody else can write ([`Seized`](crate::store::Seized)) a pool
//! may start, so [`Quiet::holds`] looks again. A pool whose file is locked by then and that has no row yet is refused
//! its row by the store: it never claims anything.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::board::{self, Identity, Life, Stage};
use super::news::{News, Observer};
use super::pool::token_prefix;
use super::recovery::recover;
use super::tree::{self, Asked, Leader, Mark, Reach};
use crate::model::{PoolId, SURVIVOR_GRACE_MAX};
use crate::queue::{Folder, Queue};
use crate::store::{PoolInfo, Serves, StoreError, file_identity};

/// Why a queue is not quiet.
#[derive(Debug, thiserror::Error)]
pub enum NotQuiet {
    /// A pool works on it.
    #[error("pool {pool} (process {pid}) works on the queue")]
    Alive {
        /// Which.
        pool: PoolId,
        /// Its process.
        pid: u32,
        /// Whether it is a `run`, which `worker stop` leaves alone.
        is_run: bool,
    },
    /// Something of a pool that died cannot be ended, or not be seen.
    #[error("{0}")]
    Left(String),
    /// It could not be told.
    #[error("cannot tell whether a pool works on the queue: {0}")]
    Unknown(#[from] io::Error),
    /// The queue file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A queue that was quiet.
#[derive(Debug)]
pub struct Quiet {
    run: PathBuf,
    /// The dead pools that were looked after and are still named in `run/`.
    settled: BTreeSet<PoolId>,
}

impl Quiet {
    /// Recovers what died, and makes sure that nothing works on the queue in `folder`, whose file may be damaged or
    /// missing.
    pub fn reach(folder: &Folder, observer: &dyn Observer) -> Result<Self, NotQuiet> {
        let run = folder.path().join("run");
        let (pools, has_bulks) = registered(folder).map_or_else(|error| (Err(error), false), |(p, b)| (Ok(p), b));
        refuse_living(&run, pools.as_deref().unwrap_or_default())?;
        let must_recover = has_bulks || pools.as_ref().is_ok_and(|pools| pools.iter().any(|pool| pool.ended.is_none()));
        if must_recover && recovers(folder, observer)? {
            return Ok(Self { settled: named_in(&run)?, run });
        }
        let settled = named_in(&run)?;
        for pool in &settled {
            end_by_board(folder, pool, pools.as_deref().unwrap_or_default(), observer)?;
        }
        Ok(Self { run, settled })
    }

    /// Whether it still is; asked when nobody else can write.
    pub fn holds(&self) -> Result<(), NotQuiet> {
        refuse_living(&self.run, &[])?;
        match named_in(&self.run)?.difference(&self.settled).next() {
            Some(pool) => Err(NotQuiet::Left(format!("pool {pool} worked on the queue just now: type it again"))),
            None => Ok(()),
        }
    }
}

/// The pools that the file knows, and whether batches are under way in it; an error if it cannot be read. Looks without
/// writing where that is possible.
fn registered(folder: &Folder) -> Result<(Vec<PoolInfo>, bool), StoreError> {
    let queue = Queue::open_read_only(folder, Box::new(|| {}))?;
    let pools = queue.read(|snapshot| Ok((snapshot.pools()?, !snapshot.bulks()?.is_empty())));
    queue.leave();
    pools
}

/// Recovers all dead pools; `false` if the file is too damaged for that.
fn recovers(folder: &Folder, observer: &dyn Observer) -> Result<bool, NotQuiet> {
    let recovered = Queue::open(folder, Box::new(|| {})).and_then(|queue| {
        let recovered = recover(&queue, None, &BTreeSet::new(), observer);
        queue.leave();
        recovered
    });
    match recovered {
        Ok(true) => Ok(true),
        Ok(false) => Err(NotQuiet::Left("something of a pool that died is left and cannot be ended".to_owned())),
        Err(StoreError::Damaged(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn refuse_living(run: &Path, pools: &[PoolInfo]) -> Result<(), NotQuiet> {
    for pool in named_in(run)? {
        if board::probe(&run.join(pool.as_str()))? == Life::Dead {
            continue;
        }
        let pid = board::read(&run.join(pool.as_str()))?.map_or(0, |board| board.identity.pid);
        let is_run = pools.iter().any(|info| info.id == pool && matches!(info.serves, Serves::Run(_)));
        return Err(NotQuiet::Alive { pool, pid, is_run });
    }
    Ok(())
}

/// The pools that have a file in `run/`.
fn named_in(run: &Path) -> io::Result<BTreeSet<PoolId>> {
    let entries = match fs::read_dir(run) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut pools = BTreeSet::new();
    for entry in entries {
        pools.extend(board::pool_name(&entry?.file_name()));
    }
    Ok(pools)
}

/// Ends what the board of a dead pool names, without the help of the file.
fn end_by_board(folder: &Folder, pool: &PoolId, pools: &[PoolInfo], observer: &dyn Observer) -> Result<(), NotQuiet> {
    let path = folder.path().join("run").join(pool.as_str());
    let Ok(Some(board)) = board::read(&path) else { return Ok(()) };
    let Some(file) = file_identity(&folder.path().join("queue.redb"))? else { return Ok(()) };
    let here = Identity::of_this_process()?;
    let row = pools.iter().find(|info| info.id == *pool);
    let is_copy = row.is_some_and(|row| row.file != file);
    if board.identity.boot_id != here.boot_id || board.slots.is_empty() || is_copy {
        return Ok(());
    }
    if board.identity.pid_namespace != here.pid_namespace {
        let jobs = board.slots.len();
        return Err(NotQuiet::Left(format!(
            "pool {pool} died in another pid namespace, where nobody can see what is left of its {jobs} jobs"
        )));
    }
    let prefix = token_prefix(file, board.identity.nonce);
    // Whose board it is, the token says by itself; a bare pid may be that of the original that this folder is a copy of.
    let leader = |stage: &Stage| match *stage {
        Stage::Running { boot_ticks, born_by, pid, .. } | Stage::Ended { boot_ticks, born_by, pid, .. }
            if row.is_some() =>
        {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed())?;
            Some(Leader { pid, born: boot_ticks..=born_by })
        }
        Stage::Starting { .. } | Stage::Running { .. } | Stage::Ended { .. } => None,
    };
    let mark = |slot: &board::Slot| Mark {
        token: format!("{prefix}{}", slot.lease.0).into_bytes(),
        leader: leader(&slot.stage),
    };
    let marks: Vec<Mark> = board.slots.iter().map(mark).collect();
    let ending = tree::end(&marks, Reach::Tree, Asked::NotYet, SURVIVOR_GRACE_MAX)?;
    if let Some(left) = ending.remaining.first() {
        let (pid, job) = (left.pid.as_raw_pid(), board.slots[left.mark].seq.0);
        return Err(NotQuiet::Left(format!("process {pid} of job {job} is left of pool {pool} and cannot be ended")));
    }
    observer.news(News::Recovered { pool: pool.clone(), jobs: board.slots.len(), ended: ending.ended, dead: 0 });
    Ok(())
}
