//! Looking: what `status`, `show` and `logs` need, on a read snapshot.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use redb::ReadOnlyTable;
use serde_bytes::ByteBuf;

use super::StoreError;
use super::codec::decode;
use super::enqueue::priority;
use super::finish::{STDERR, STDOUT};
use super::placement::numbered;
use super::records::{
    AttemptRecord, EnvRecord, JobRecord, KeptRecord, LaneKind, LaneRecord, SpecRecord, queue_name, state_code,
    state_of_code,
};
use super::tables::{
    ATTEMPTS, COUNTS, ENVS, FINISHED, IDS, JOBS, LANES, LEASES, OUTPUT, QUEUES, READY, Record, SPECS, Snapshot, get,
};
use crate::model::{
    Attempt, EnvChange, Environment, Job, JobId, LaneId, Millis, Output, PoolId, Seq, StateKind, Stream, TimeLimit,
};

impl Snapshot {
    /// How many jobs are in each state; every state has an entry.
    pub fn counts(&self) -> Result<BTreeMap<StateKind, u64>, StoreError> {
        let mut counts: BTreeMap<StateKind, u64> = StateKind::ALL.into_iter().map(|kind| (kind, 0)).collect();
        let hidden = self.hidden()?;
        for row in self.open(COUNTS)?.range::<(u64, u8)>(..)? {
            let (key, count) = row?;
            if hidden.hide_lane(key.value().0) {
                continue;
            }
            let kind = state_of_code(key.value().1)?;
            *counts.entry(kind).or_default() += decode::<u64>("COUNTS", count.value())?;
        }
        Ok(counts)
    }

    /// The seq of the job that `id` names.
    pub fn find(&self, id: &JobId) -> Result<Option<Seq>, StoreError> {
        let found = match self.get::<_, u64>(IDS, id.as_str())? {
            Some(seq) => Some(Seq(seq)),
            None => self.unnamed(id)?,
        };
        let Some(seq) = found else { return Ok(None) };
        Ok((!self.hidden()?.hide(seq.0)).then_some(seq))
    }

    /// The job without an id that goes by this number.
    fn unnamed(&self, number: &JobId) -> Result<Option<Seq>, StoreError> {
        let Some(seq) = numbered(number) else { return Ok(None) };
        let spec: Option<SpecRecord> = self.get(SPECS, seq.0)?;
        Ok(spec.filter(|spec| spec.id.is_none()).map(|_| seq))
    }

    /// The job of a seq.
    pub fn job(&self, seq: Seq) -> Result<Option<Job>, StoreError> {
        let tables = JobTables::open(self)?;
        let record: Option<JobRecord> = get(&tables.jobs, seq.0)?;
        record.map(|record| tables.job(self, seq, &record)).transpose()
    }

    /// The environment that a job was enqueued in, and its own changes to that.
    pub fn environment(&self, seq: Seq) -> Result<Option<(Environment, EnvChange)>, StoreError> {
        let Some(spec) = self.get::<_, SpecRecord>(SPECS, seq.0)? else { return Ok(None) };
        let record: Option<EnvRecord> = self.get(ENVS, spec.env)?;
        let record = record.ok_or_else(|| StoreError::Damaged("a job's environment is missing".to_owned()))?;
        Ok(Some((record.environment(), spec.env_change())))
    }

    /// A job's state alone.
    pub fn state(&self, seq: Seq) -> Result<Option<StateKind>, StoreError> {
        Ok(self.get::<_, JobRecord>(JOBS, seq.0)?.map(|record| record.kind()))
    }

    /// All attempts of a job that have ended, in order.
    pub fn attempts(&self, seq: Seq) -> Result<Vec<Attempt>, StoreError> {
        let mut attempts = Vec::new();
        for row in self.open(ATTEMPTS)?.range((seq.0, 0)..=(seq.0, u32::MAX))? {
            let (key, record) = row?;
            attempts.push(decode::<AttemptRecord>("ATTEMPTS", record.value())?.attempt(key.value().1)?);
        }
        Ok(attempts)
    }

    /// What is kept of a stream of an ended attempt; `None` if there is no such attempt.
    pub fn output(&self, seq: Seq, attempt: u32, stream: Stream) -> Result<Option<Output>, StoreError> {
        let Some(record) = self.get::<_, AttemptRecord>(ATTEMPTS, (seq.0, attempt))? else { return Ok(None) };
        let (kept, code) = match stream {
            Stream::Stdout => (record.stdout, STDOUT),
            Stream::Stderr => (record.stderr, STDERR),
        };
        Ok(Some(match kept {
            KeptRecord::Empty => Output::Empty,
            KeptRecord::File { bytes, left_out } => Output::File { bytes, left_out },
            KeptRecord::LetGo(bytes) => Output::LetGo { bytes },
            KeptRecord::Inline(_) => {
                let bytes: Option<ByteBuf> = self.get(OUTPUT, (seq.0, attempt, code))?;
                let missing = || StoreError::Damaged(format!("an output of job {} is missing", seq.0));
                Output::Inline(bytes.ok_or_else(missing)?.into_vec())
            }
        }))
    }

    /// The jobs that a pool holds.
    pub fn held_by(&self, pool: &PoolId) -> Result<Vec<Seq>, StoreError> {
        let name = pool.as_str();
        let rows = self.open(LEASES)?.range((name, 0)..=(name, u64::MAX))?;
        rows.map(|row| Ok(Seq(row?.0.value().1))).collect()
    }

    /// How many pending jobs of its queue or run are claimed before a job that is pending; at most `limit` are counted.
    pub fn ahead(&self, seq: Seq, limit: usize) -> Result<usize, StoreError> {
        let Some(record) = self.get::<_, JobRecord>(JOBS, seq.0)? else { return Ok(0) };
        let lane: Option<LaneRecord> = self.get(LANES, record.lane)?;
        let lane = lane.ok_or_else(|| StoreError::Damaged(format!("the lane of job {} is missing", seq.0)))?;
        let mut lanes = vec![record.lane];
        if lane.kind == LaneKind::Queue {
            let queue = lane.queue.as_str();
            let rows = self.open(QUEUES)?.range((queue, 0)..=(queue, u64::MAX))?;
            lanes = rows.map(|row| Ok(row?.0.value().1)).collect::<Result<_, StoreError>>()?;
        }
        let (ready, mut ahead) = (self.open(READY)?, 0);
        for lane in lanes {
            ahead += ready.range((lane, 0, 0)..(lane, record.rank, seq.0))?.take(limit - ahead).count();
        }
        Ok(ahead)
    }

    /// The states of a lane's jobs.
    pub fn lane_counts(&self, lane: LaneId) -> Result<BTreeMap<StateKind, u64>, StoreError> {
        super::runs::lane_counts(&self.open(COUNTS)?, lane.0)
    }

    /// The dead jobs of a lane, the newest first, at most `limit`.
    pub fn dead_of_lane(&self, lane: LaneId, limit: usize) -> Result<Vec<Job>, StoreError> {
        let tables = JobTables::open(self)?;
        let code = state_code(StateKind::Dead);
        let mut dead = Vec::new();
        for row in self.open(FINISHED)?.range((code, 0, 0)..=(code, u64::MAX, u64::MAX))?.rev() {
            let seq = row?.0.value().2;
            let record: Option<JobRecord> = get(&tables.jobs, seq)?;
            let Some(record) = record.filter(|record| record.lane == lane.0) else { continue };
            dead.push(tables.job(self, Seq(seq), &record)?);
            if dead.len() == limit {
                break;
            }
        }
        Ok(dead)
    }
}

/// What a job is called.
pub(super) fn id_of(specs: &ReadOnlyTable<u64, Record>, seq: Seq) -> Result<JobId, StoreError> {
    let spec: Option<SpecRecord> = get(specs, seq.0)?;
    let given = spec.map(|spec| spec.id()).transpose()?.flatten();
    Ok(given.unwrap_or_else(|| JobId::from(seq)))
}

/// The tables that a job is gathered from, opened once.
pub(super) struct JobTables {
    pub(super) jobs: ReadOnlyTable<u64, Record>,
    pub(super) specs: ReadOnlyTable<u64, Record>,
    lanes: ReadOnlyTable<u64, Record>,
    pub(super) attempts: ReadOnlyTable<(u64, u32), Record>,
}

impl JobTables {
    pub(super) fn open(snapshot: &Snapshot) -> Result<Self, StoreError> {
        Ok(Self {
            jobs: snapshot.open(JOBS)?,
            specs: snapshot.open(SPECS)?,
            lanes: snapshot.open(LANES)?,
            attempts: snapshot.open(ATTEMPTS)?,
        })
    }

    pub(super) fn job(&self, snapshot: &Snapshot, seq: Seq, record: &JobRecord) -> Result<Job, StoreError> {
        let missing = |what: &str| StoreError::Damaged(format!("the {what} of job {} is missing", seq.0));
        let spec: SpecRecord = get(&self.specs, seq.0)?.ok_or_else(|| missing("spec"))?;
        let lane: LaneRecord = get(&self.lanes, record.lane)?.ok_or_else(|| missing("lane"))?;
        let last: Option<AttemptRecord> = get(&self.attempts, (seq.0, record.attempts))?;
        let (max_retries, timeout) = match (spec.max_retries, spec.timeout.map(TimeLimit::from)) {
            (Some(retries), Some(timeout)) => (retries, timeout),
            (retries, timeout) => {
                let settings = snapshot.settings_of(&lane.queue)?;
                (retries.unwrap_or(settings.max_retries), timeout.unwrap_or(settings.timeout))
            }
        };
        Ok(Job {
            seq,
            id: spec.id()?.unwrap_or_else(|| JobId::from(seq)),
            name: spec.name()?,
            tags: spec.tags()?,
            key: spec.key()?,
            command: spec.command(),
            cwd: PathBuf::from(OsStr::from_bytes(&spec.cwd)),
            queue: queue_name(&lane.queue)?,
            priority: priority(record.rank),
            run: match lane.kind {
                LaneKind::Run(run) => Some(run.number),
                LaneKind::Queue => None,
            },
            progress: record.progress()?,
            waits_for: record.needs,
            max_retries,
            timeout,
            created: Millis(record.created),
            updated: Millis(record.updated),
            last_attempt: last.map(|attempt| attempt.attempt(record.attempts)).transpose()?,
        })
    }
}
