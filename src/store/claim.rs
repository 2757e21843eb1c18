//! Claiming: a pool takes the next jobs of the lanes that it serves.
//!
//! Precondition: the pool is registered and has not ended, since nobody would recover what it holds; that is
//! checked. Afterwards each claimed job is `processing` under a fresh lease of
//! that pool. Order: queues in turn; within a queue priority first, then the order of enqueueing. A paused queue has no
//! turn, nor one that has as many jobs processed, by all pools together, as its setting `parallel` allows; runs follow
//! neither.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTable;

use super::StoreError;
use super::records::{EnvRecord, LaneRecord, SpecRecord};
use super::tables::Tx;
use crate::model::{
    Command, EnvChange, Environment, JobId, LaneId, Lease, PoolId, QueueName, Seq, Settings, StateKind, TimeLimit,
};

/// Which lanes a pool claims from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// All queues, those to come included.
    AllQueues,
    /// These queues.
    Queues(Vec<QueueName>),
    /// The jobs of one run.
    Run(LaneId),
}

impl Serves {
    /// Whether the jobs of `queue` are among them.
    pub fn queue(&self, queue: &str) -> bool {
        match self {
            Self::AllQueues => true,
            Self::Queues(names) => names.iter().any(|name| name.as_str() == queue),
            Self::Run(_) => false,
        }
    }
}

/// The right to report how a claimed job ended, once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claim that is neither finished nor given back keeps its job from running"]
pub struct Token {
    /// The job.
    pub(crate) seq: Seq,
    /// The lease that it was claimed under.
    pub(crate) lease: Lease,
}

impl Token {
    /// The right of a recoverer to report for a pool that died.
    pub(crate) fn of_dead_pool(seq: Seq, lease: Lease) -> Self {
        Self { seq, lease }
    }

    /// The job.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The lease.
    pub fn lease(&self) -> Lease {
        self.lease
    }
}

/// A claimed job with all that running it takes.
#[derive(Debug)]
pub struct Claim {
    /// The right to report its end.
    pub token: Token,
    /// What the job is called.
    pub id: JobId,
    /// The number that this run will have, from 1.
    pub attempt: u32,
    /// What to execute.
    pub work: Work,
}

/// What to execute and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// The command.
    pub command: Command,
    /// Its folder.
    pub cwd: PathBuf,
    /// The environment of its `enqueue`.
    pub env: Arc<Environment>,
    /// Changes to it.
    pub env_change: EnvChange,
    /// How long it may run.
    pub timeout: TimeLimit,
    /// Whether the job brought that limit itself.
    pub own_timeout: bool,
    /// Time between SIGTERM and SIGKILL.
    pub kill_grace: Duration,
    /// Bytes kept of one stream.
    pub output_limit: u64,
    /// The words before a shell command.
    pub shell: Vec<String>,
}

/// A row of READY, in the order in which jobs of one queue are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: u8,
    seq: u64,
    lane: u64,
}

/// What a pool keeps from one claim to the next.
#[derive(Debug, Default)]
pub struct ClaimCache {
    /// Environments lately used, so that a batch decodes its one environment once.
    environments: HashMap<u128, Arc<Environment>>,
    /// The queue that was served last: the next one's turn comes first.
    last_queue: Option<String>,
    /// Whether the last claim left jobs that wait only for the limit of their queue.
    held_back: bool,
}

impl ClaimCache {
    /// Whether the last claim left jobs because their queues had as many processed as they may: the end of one of
    /// these lets another in.
    pub fn held_back(&self) -> bool {
        self.held_back
    }
}

/// Most environments that a pool remembers; a few KiB each.
const ENVIRONMENTS_CACHED: usize = 256;

impl Tx<'_> {
    /// Claims up to `limit` jobs for `pool`.
    pub fn claim(
        &mut self,
        pool: &PoolId,
        serves: &Serves,
        limit: usize,
        cache: &mut ClaimCache,
    ) -> Result<Vec<Claim>, StoreError> {
        if self.pool(pool)?.is_none_or(|pool| pool.ended.is_some()) {
            return Err(StoreError::Damaged(format!("pool {pool} claims, but it is not registered or has ended")));
        }
        let mut heads = self.heads(serves)?;
        cache.held_back = false;
        let mut claims = Vec::new();
        while claims.len() < limit
            && let Some(queue) = next_in_turn(&heads, cache.last_queue.as_deref())
        {
            let share = (limit - claims.len()).div_ceil(heads.len());
            let Some(head) = heads.get_mut(&queue) else { break };
            cache.held_back |= head.is_held_back();
            let next = if head.room > 0 { self.pop(head, share)? } else { None };
            match next {
                Some(seq) => {
                    head.room -= 1;
                    claims.push(self.claim_one(pool, seq, &head.settings, cache)?);
                    cache.last_queue = Some(queue);
                }
                None => drop(heads.remove(&queue)),
            }
        }
        // Those whose turn did not come again.
        cache.held_back |= heads.values().any(Head::is_held_back);
        Ok(claims)
    }

    /// How many jobs of a queue are claimed, by whichever pools.
    fn processing(&mut self, queue: &str) -> Result<u64, StoreError> {
        let mut lanes = Vec::new();
        for row in self.tables.queues.open()?.range((queue, 0)..=(queue, u64::MAX))? {
            lanes.push(row?.0.value().1);
        }
        let counts = lanes.into_iter().map(|lane| self.count_of(lane, StateKind::Processing));
        counts.sum()
    }

    /// What may be claimed of each queue served. A paused one is none of them.
    fn heads(&mut self, serves: &Serves) -> Result<BTreeMap<String, Head>, StoreError> {
        let mut heads: BTreeMap<String, Head> = BTreeMap::new();
        let mut paused: BTreeSet<String> = BTreeSet::new();
        let heeds_limits = !matches!(serves, Serves::Run(_));
        for (queue, lane) in self.lanes_served(serves)? {
            if paused.contains(&queue) {
                continue;
            }
            if !heads.contains_key(&queue) {
                let settings = self.settings(&queue)?;
                if heeds_limits && settings.paused {
                    paused.insert(queue);
                    continue;
                }
                let room = match settings.parallel.filter(|_| heeds_limits) {
                    Some(parallel) => u64::from(parallel).saturating_sub(self.processing(&queue)?),
                    None => u64::MAX,
                };
                heads.insert(queue.clone(), Head { settings, room, next: BinaryHeap::new(), read: BTreeMap::new() });
            }
            let first = self.ready_after(lane, None, 1)?.pop();
            if let (Some(first), Some(head)) = (first, heads.get_mut(&queue)) {
                head.push(first);
            }
        }
        heads.retain(|_, head| !head.next.is_empty());
        Ok(heads)
    }

    /// The next job of a queue. When the last one that was read of a lane goes, up to `share` more are read: a queue
    /// can have many lanes, one of each large batch of which a job is left, and a pool can serve many queues.
    fn pop(&mut self, head: &mut Head, share: usize) -> Result<Option<Seq>, StoreError> {
        let Some(Reverse(place)) = head.next.pop() else { return Ok(None) };
        let left = head.read.entry(place.lane).or_default();
        *left -= 1;
        if *left == 0 {
            for more in self.ready_after(LaneId(place.lane), Some(place), share)? {
                head.push(more);
            }
        }
        Ok(Some(Seq(place.seq)))
    }

    /// Up to `limit` pending jobs of a lane, from its first on, or from the one after `place`.
    fn ready_after(&mut self, lane: LaneId, place: Option<Place>, limit: usize) -> Result<Vec<Place>, StoreError> {
        let from = place.map_or(Bound::Included((lane.0, 0, 0)), |at| Bound::Excluded((lane.0, at.rank, at.seq)));
        let rows = self.tables.ready.open()?.range((from, Bound::Included((lane.0, u8::MAX, u64::MAX))))?;
        let place = |row: Result<(redb::AccessGuard<'_, _>, _), _>| -> Result<Place, StoreError> {
            let (lane, rank, seq) = row?.0.value();
            Ok(Place { rank, seq, lane })
        };
        rows.take(limit).map(place).collect()
    }

    fn lanes_served(&mut self, serves: &Serves) -> Result<Vec<(String, LaneId)>, StoreError> {
        if let Serves::Run(lane) = serves {
            let record: Option<LaneRecord> = self.tables.lanes.get(lane.0)?;
            let published = record.filter(|record| record.published);
            return Ok(published.map(|record| (record.queue, *lane)).into_iter().collect());
        }
        let mut lanes = Vec::new();
        for row in self.tables.queues.open()?.range::<(&str, u64)>(..)? {
            let key = row?.0;
            let (queue, lane) = key.value();
            if serves.queue(queue) {
                lanes.push((queue.to_owned(), LaneId(lane)));
            }
        }
        Ok(lanes)
    }

    fn claim_one(
        &mut self,
        pool: &PoolId,
        seq: Seq,
        settings: &Settings,
        cache: &mut ClaimCache,
    ) -> Result<Claim, StoreError> {
        let record = self.job(seq)?;
        let spec: SpecRecord = self.spec(seq)?;
        let lease = Lease(self.head.next_lease);
        self.head.next_lease += 1;
        let progress = record.progress()?.claim(lease, pool, self.now);
        let progress =
            progress.map_err(|_| StoreError::Damaged(format!("job {} is in READY but not pending", seq.0)))?;
        self.move_job(seq, &record, &progress)?;
        Ok(Claim {
            token: Token { seq, lease },
            id: spec.id()?.unwrap_or_else(|| JobId::from(seq)),
            attempt: record.attempts.saturating_add(1),
            work: self.work(&spec, settings, cache)?,
        })
    }

    pub(super) fn spec(&mut self, seq: Seq) -> Result<SpecRecord, StoreError> {
        let spec = self.tables.specs.get(seq.0)?;
        spec.ok_or_else(|| StoreError::Damaged(format!("job {} has no SPEC", seq.0)))
    }

    fn work(&mut self, spec: &SpecRecord, settings: &Settings, cache: &mut ClaimCache) -> Result<Work, StoreError> {
        Ok(Work {
            command: spec.command(),
            cwd: PathBuf::from(std::ffi::OsStr::from_bytes(&spec.cwd)),
            env: self.environment(spec.env, cache)?,
            env_change: spec.env_change(),
            timeout: spec.timeout.map_or(settings.timeout, Into::into),
            own_timeout: spec.timeout.is_some(),
            kill_grace: settings.kill_grace,
            output_limit: settings.output_limit,
            shell: spec.shell.clone().unwrap_or_else(|| settings.shell.clone()),
        })
    }

    fn environment(&mut self, key: u128, cache: &mut ClaimCache) -> Result<Arc<Environment>, StoreError> {
        if let Some(env) = cache.environments.get(&key) {
            return Ok(Arc::clone(env));
        }
        let record: EnvRecord = self
            .tables
            .envs
            .get(key)?
            .ok_or_else(|| StoreError::Damaged("a job's environment is missing".to_owned()))?;
        let env = Arc::new(record.environment());
        if cache.environments.len() >= ENVIRONMENTS_CACHED {
            cache.environments.clear();
        }
        cache.environments.insert(key, Arc::clone(&env));
        Ok(env)
    }
}

/// The jobs of a queue that may be claimed, in order, read as far as they are needed.
struct Head {
    settings: Settings,
    /// How many may be claimed.
    room: u64,
    next: BinaryHeap<Reverse<Place>>,
    /// How many of `next` are of each lane.
    read: BTreeMap<u64, usize>,
}

impl Head {
    fn push(&mut self, place: Place) {
        *self.read.entry(place.lane).or_default() += 1;
        self.next.push(Reverse(place));
    }

    /// Whether jobs wait only for the limit of their queue.
    fn is_held_back(&self) -> bool {
        self.room == 0 && !self.next.is_empty()
    }
}

/// The queue after the one that was served last.
fn next_in_turn(heads: &BTreeMap<String, Head>, last: Option<&str>) -> Option<String> {
    use std::ops::Bound::{Excluded, Unbounded};
    let after = last.and_then(|last| heads.range::<str, _>((Excluded(last), Unbounded)).next());
    after.or_else(|| heads.iter().next()).map(|(queue, _)| queue.clone())
}
