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
use crate::store::{BulkInfo, PoolInfo, Serves, StoreError, file_identity};

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
    /// A batch that is too large for one transaction is on its way into it.
    #[error("a large enqueue is under way (process {pid})")]
    Bulk {
        /// Its process.
        pid: u32,
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
    folder: Folder,
    /// The dead pools that were looked after and are still named in `run/`.
    settled: BTreeSet<PoolId>,
}

impl Quiet {
    /// Recovers what died, and makes sure that nothing works on the queue in `folder`, whose file may be damaged or
    /// missing.
    pub fn reach(folder: &Folder, observer: &dyn Observer) -> Result<Self, NotQuiet> {
        // Before anything else: a pool that starts and dies from here on is none of them.
        let settled = named_in(&run_of(folder))?;
        refuse_living(folder)?;
        let registered = registered(folder);
        let must_recover = registered.as_ref().is_ok_and(Registered::has_unrecovered);
        if !must_recover || !recovers(folder, observer)? {
            let pools = registered.map_or_else(|_| Vec::new(), |registered| registered.pools);
            for pool in &settled {
                end_by_board(folder, pool, &pools, observer)?;
            }
        }
        Ok(Self { folder: folder.clone(), settled })
    }

    /// Whether it still is; asked when nobody else can write.
    pub fn holds(&self) -> Result<(), NotQuiet> {
        refuse_living(&self.folder)?;
        match named_in(&run_of(&self.folder))?.difference(&self.settled).next() {
            Some(pool) => Err(NotQuiet::Left(format!("pool {pool} worked on the queue just now: type it again"))),
            None => Ok(()),
        }
    }
}

/// What the file knows of who works on the queue.
struct Registered {
    pools: Vec<PoolInfo>,
    bulks: Vec<BulkInfo>,
}

impl Registered {
    /// Whether there is something for recovery, if nobody lives.
    fn has_unrecovered(&self) -> bool {
        !self.bulks.is_empty() || self.pools.iter().any(|pool| pool.ended.is_none())
    }
}

/// An error if the file cannot be read. Looks without writing where that is possible.
fn registered(folder: &Folder) -> Result<Registered, StoreError> {
    let queue = Queue::open_read_only(folder, Box::new(|| {}))?;
    let registered = queue.read(|snapshot| Ok(Registered { pools: snapshot.pools()?, bulks: snapshot.bulks()? }));
    queue.leave();
    registered
}

/// Recovers all dead pools; `false` if the file is too damaged for that.
fn recovers(folder: &Folder, observer: &dyn Observer) -> Result<bool, NotQuiet> {
    let recovered = Queue::open(folder, Box::new(|| {})).and_then(|queue| {
        let recovered = recover(&queue, observer);
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

fn refuse_living(folder: &Folder) -> Result<(), NotQuiet> {
    let run = run_of(folder);
    for pool in named_in(&run)? {
        let path = run.join(pool.as_str());
        if board::probe(&path)? == Life::Dead {
            continue;
        }
        // It ended in good order meanwhile.
        let Some(Identity { pid, is_maker, .. }) = board::identity(&path)? else { continue };
        if is_maker {
            return Err(NotQuiet::Bulk { pid });
        }
        // A queue that cannot be read says of nobody what it is.
        let of_file = registered(folder).ok();
        let is_run = |info: &PoolInfo| info.id == pool && matches!(info.serves, Serves::Run(_));
        let is_run = of_file.is_some_and(|known| known.pools.iter().any(is_run));
        return Err(NotQuiet::Alive { pool, pid, is_run });
    }
    Ok(())
}

fn run_of(folder: &Folder) -> PathBuf {
    folder.path().join("run")
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

/// Ends what the board of a dead pool names, without the help of the file. Commands that had ended are passed over: what
/// they left alone on purpose is left alone.
fn end_by_board(folder: &Folder, pool: &PoolId, pools: &[PoolInfo], observer: &dyn Observer) -> Result<(), NotQuiet> {
    let path = run_of(folder).join(pool.as_str());
    let board = match board::read(&path) {
        Ok(Some(board)) => board,
        Ok(None) => return Ok(()),
        // A board is whole before it has its name, so this one was cut by a power cut, which ended everything.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let here = Identity::of_this_process()?;
    let slots: Vec<_> = board.slots.iter().filter(|slot| !matches!(slot.stage, Stage::Ended { .. })).collect();
    if board.identity.boot_id != here.boot_id || slots.is_empty() {
        return Ok(());
    }
    let Some(file) = file_identity(&folder.path().join("queue.redb"))? else {
        // By it the jobs would be told from those of the queue that this folder may be a copy of.
        let jobs: Vec<String> = slots.iter().map(|slot| slot.seq.0.to_string()).collect();
        return Err(NotQuiet::Left(format!(
            "pool {pool} died while it ran jobs ({}), and the queue file, by which they could be found, is missing: \
             end what is left of them, then delete {}",
            jobs.join(", "),
            path.display()
        )));
    };
    let row = pools.iter().find(|info| info.id == *pool);
    if row.is_some_and(|row| row.file != file) {
        return Ok(());
    }
    if board.identity.pid_namespace != here.pid_namespace {
        let jobs = slots.len();
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
    let mark = |slot: &&board::Slot| Mark {
        token: format!("{prefix}{}", slot.lease.0).into_bytes(),
        leader: leader(&slot.stage),
    };
    let marks: Vec<Mark> = slots.iter().map(mark).collect();
    let ending = tree::end(&marks, Reach::Tree, Asked::NotYet, SURVIVOR_GRACE_MAX)?;
    if let Some(left) = ending.remaining.first() {
        let (pid, job) = (left.pid.as_raw_pid(), slots[left.mark].seq.0);
        return Err(NotQuiet::Left(format!("process {pid} of job {job} is left of pool {pool} and cannot be ended")));
    }
    observer.news(News::Recovered { pool: pool.clone(), jobs: slots.len(), ended: ending.ended, dead: 0 });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::board::PoolFile;
    use super::*;

    struct Silent;

    impl Observer for Silent {
        fn news(&self, _: News) {}
    }

    #[test]
    fn who_is_about_to_store_a_batch_is_told_from_a_pool() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make(&dir.path().join("queue")).unwrap();
        drop(Queue::open_or_create(&folder, Box::new(|| {})).unwrap());
        let maker = PoolFile::create_maker(&run_of(&folder)).unwrap();
        let bulk = Quiet::reach(&folder, &Silent).unwrap_err();
        assert!(matches!(bulk, NotQuiet::Bulk { pid } if pid == std::process::id()), "{bulk}");
        maker.remove().unwrap();
        let pool = PoolFile::create(&run_of(&folder), 1).unwrap();
        let alive = Quiet::reach(&folder, &Silent).unwrap_err();
        assert!(matches!(&alive, NotQuiet::Alive { pool: found, .. } if found == pool.id()), "{alive}");
        pool.remove().unwrap();
        Quiet::reach(&folder, &Silent).unwrap().holds().unwrap();
    }
}
