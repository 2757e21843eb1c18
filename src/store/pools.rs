//! Pools: who they are, what they are asked, and how they end.
//!
//! A pool's row stays as long as the pool holds a lease, alive or dead: a recoverer, which has seen to it that
//! nothing of a dead pool runs any more, reports its claims with [`Tx::finish`] and retires it in the same
//! transaction. Two recoverers are serialised by that: the second finds no leases.

use redb::ReadableTable;

use super::StoreError;
use super::claim::{Serves, Token};
use super::records::{Asked, JobRecord, PoolRecord, ServesRecord, StateRecord, queue_name};
use super::tables::{JOBS, LEASES, POOLS, Record, Snapshot, Tx, get};
use crate::model::{ENDED_POOLS_KEPT, LaneId, Lease, Millis, PoolId, Seq};

/// Why a pool has ended that was to end when nothing was left to do. It stands in POOLS, and so has to stay as it is.
pub(crate) const NOTHING_LEFT: &str = "nothing was left to do";

/// A pool as its row tells.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolInfo {
    /// Its name.
    pub id: PoolId,
    /// Its process, in its own pid namespace.
    pub pid: u32,
    /// The boot that it runs in.
    pub boot_id: u128,
    /// Its pid namespace.
    pub pid_namespace: u64,
    /// A random number, which its jobs carry in their environment.
    pub nonce: u64,
    /// Device and inode of the queue file that it was registered in.
    pub file: (u64, u64),
    /// When it was started.
    pub started: Millis,
    /// How many workers it is to have: it was started with so many, or scaled since.
    pub workers: u32,
    /// What it claims from.
    pub serves: Serves,
    /// What it was asked to do.
    pub asked: Asked,
    /// Its log file, if it writes one.
    pub log: Option<String>,
    /// When and how it ended, if it did.
    pub ended: Option<(Millis, String)>,
}

impl PoolInfo {
    /// Whether it ended because nothing was left that it could do.
    pub fn left_nothing(&self) -> bool {
        self.ended.as_ref().is_some_and(|(_, why)| why == NOTHING_LEFT)
    }
}

/// A lease of a pool.
#[derive(Debug)]
pub struct Held {
    /// The right to report for it.
    pub token: Token,
    /// The number that its run has, if it was started.
    pub attempt: u32,
}

impl From<&PoolInfo> for PoolRecord {
    fn from(info: &PoolInfo) -> Self {
        Self {
            pid: info.pid,
            boot_id: info.boot_id,
            pid_namespace: info.pid_namespace,
            nonce: info.nonce,
            file: info.file,
            started: info.started.0,
            workers: info.workers,
            serves: match &info.serves {
                Serves::AllQueues => ServesRecord::AllQueues,
                Serves::Queues(names) => {
                    ServesRecord::Queues(names.iter().map(|name| name.as_str().to_owned()).collect())
                }
                Serves::Run(lane) => ServesRecord::Run(lane.0),
            },
            asked: info.asked,
            log: info.log.clone(),
            ended: info.ended.as_ref().map(|(at, why)| (at.0, why.clone())),
        }
    }
}

pub(super) fn info(id: &str, record: PoolRecord) -> Result<PoolInfo, StoreError> {
    Ok(PoolInfo {
        id: id.parse().map_err(|_| StoreError::Damaged("POOLS holds a bad name".to_owned()))?,
        pid: record.pid,
        boot_id: record.boot_id,
        pid_namespace: record.pid_namespace,
        nonce: record.nonce,
        file: record.file,
        started: Millis(record.started),
        workers: record.workers,
        serves: match record.serves {
            ServesRecord::AllQueues => Serves::AllQueues,
            ServesRecord::Queues(names) => {
                Serves::Queues(names.iter().map(|name| queue_name(name)).collect::<Result<_, _>>()?)
            }
            ServesRecord::Run(lane) => Serves::Run(LaneId(lane)),
        },
        asked: record.asked,
        log: record.log,
        ended: record.ended.map(|(at, why)| (Millis(at), why)),
    })
}

impl Tx<'_> {
    /// Registers a pool, whose file in `run/` is locked already. Says whether the name was free.
    pub fn register(&mut self, pool: &PoolInfo) -> Result<bool, StoreError> {
        if self.pool(&pool.id)?.is_some() {
            return Ok(false);
        }
        self.tables.pools.put(pool.id.as_str(), &PoolRecord::from(pool))?;
        self.touch();
        Ok(true)
    }

    /// A pool's row.
    pub fn pool(&mut self, id: &PoolId) -> Result<Option<PoolInfo>, StoreError> {
        let record: Option<PoolRecord> = self.tables.pools.get(id.as_str())?;
        record.map(|record| info(id.as_str(), record)).transpose()
    }

    /// Asks a pool to stop, if it lives and was not asked for as much already. Says whether that was news.
    pub fn ask(&mut self, id: &PoolId, asked: Asked) -> Result<bool, StoreError> {
        let Some(mut pool) = self.pool(id)? else { return Ok(false) };
        if pool.ended.is_some() || pool.asked >= asked {
            return Ok(false);
        }
        pool.asked = asked;
        self.tables.pools.put(id.as_str(), &PoolRecord::from(&pool))?;
        self.ring_for_control();
        Ok(true)
    }

    /// Asks a pool that lives to have so many workers. Answers how many it was to have before; `None` if there is no such
    /// pool.
    pub fn scale(&mut self, id: &PoolId, workers: u32) -> Result<Option<u32>, StoreError> {
        let Some(mut pool) = self.pool(id)?.filter(|pool| pool.ended.is_none()) else { return Ok(None) };
        let before = std::mem::replace(&mut pool.workers, workers);
        if before != workers {
            self.tables.pools.put(id.as_str(), &PoolRecord::from(&pool))?;
            self.ring_for_control();
        }
        Ok(Some(before))
    }

    /// The leases that a pool holds.
    pub fn leases(&mut self, id: &PoolId) -> Result<Vec<Held>, StoreError> {
        leases(self.tables.leases.open()?, self.tables.jobs.open()?, id)
    }

    /// Moves a pool that holds no lease to those that have ended. Says whether it was still there.
    pub fn retire(&mut self, id: &PoolId, why: &str) -> Result<bool, StoreError> {
        let Some(mut pool) = self.pool(id)? else { return Ok(false) };
        if pool.ended.is_some() {
            return Ok(false);
        }
        if let Some(held) = self.leases(id)?.first() {
            return Err(StoreError::Damaged(format!("pool {id} ends while it holds job {}", held.token.seq().0)));
        }
        pool.ended = Some((self.now, why.to_owned()));
        self.tables.pools.put(id.as_str(), &PoolRecord::from(&pool))?;
        self.touch();
        self.forget_old_pools()?;
        Ok(true)
    }

    fn forget_old_pools(&mut self) -> Result<(), StoreError> {
        let mut ended: Vec<(Millis, PoolId)> =
            self.pools()?.into_iter().filter_map(|pool| Some((pool.ended?.0, pool.id))).collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(ENDED_POOLS_KEPT);
        for (_, id) in ended.drain(..surplus) {
            self.tables.pools.delete(id.as_str())?;
        }
        Ok(())
    }

    /// All pools, ended ones too.
    pub fn pools(&mut self) -> Result<Vec<PoolInfo>, StoreError> {
        list(self.tables.pools.open()?)
    }
}

/// What a person asked of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Of the pool itself.
    pub asked: Asked,
    /// How many workers it is to have.
    pub workers: u32,
    /// The jobs that it holds and should end.
    pub cancels: Vec<Seq>,
}

impl Snapshot {
    /// What a pool that lives was asked; `None` if it is not registered, or no longer.
    pub fn control(&self, id: &PoolId) -> Result<Option<Control>, StoreError> {
        let Some(record) = self.get::<_, PoolRecord>(POOLS, id.as_str())? else { return Ok(None) };
        if record.ended.is_some() {
            return Ok(None);
        }
        let mut cancels = Vec::new();
        for seq in self.held_by(id)? {
            let job: Option<JobRecord> = self.get(JOBS, seq.0)?;
            if job.is_some_and(|job| matches!(job.state, StateRecord::Processing { cancel_asked: true, .. })) {
                cancels.push(seq);
            }
        }
        Ok(Some(Control { asked: record.asked, workers: record.workers, cancels }))
    }

    /// The leases that a pool holds.
    pub fn leases(&self, id: &PoolId) -> Result<Vec<Held>, StoreError> {
        leases(&self.open(LEASES)?, &self.open(JOBS)?, id)
    }

    /// All pools, ended ones too.
    pub fn pools(&self) -> Result<Vec<PoolInfo>, StoreError> {
        list(&self.open(POOLS)?)
    }
}

fn leases(
    rows: &impl ReadableTable<(&'static str, u64), ()>,
    jobs: &impl ReadableTable<u64, Record>,
    id: &PoolId,
) -> Result<Vec<Held>, StoreError> {
    let name = id.as_str();
    let mut held = Vec::new();
    for row in rows.range((name, 0)..=(name, u64::MAX))? {
        let seq = row?.0.value().1;
        let record: Option<JobRecord> = get(jobs, seq)?;
        let Some(JobRecord { state: StateRecord::Processing { lease, .. }, attempts, .. }) = record else {
            return Err(StoreError::Damaged(format!("job {seq} is in LEASES but not processing")));
        };
        let token = Token::of_dead_pool(Seq(seq), Lease(lease));
        held.push(Held { token, attempt: attempts.saturating_add(1) });
    }
    Ok(held)
}

fn list(table: &impl ReadableTable<&'static str, Record>) -> Result<Vec<PoolInfo>, StoreError> {
    let mut pools = Vec::new();
    for row in table.range::<&str>(..)? {
        let (id, record) = row?;
        pools.push(info(id.value(), super::codec::decode("POOLS", record.value())?)?);
    }
    Ok(pools)
}
