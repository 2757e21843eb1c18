//! Looking: what `status`, `list`, `show` and `logs` need, on a read snapshot.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use redb::ReadOnlyTable;
use serde_bytes::ByteBuf;

use super::StoreError;
use super::codec::decode;
use super::enqueue::priority;
use super::finish::{STDERR, STDOUT, lanes_waiting, waiting};
use super::placement::numbered;
use super::records::{
    AttemptRecord, EnvRecord, JobRecord, KeptRecord, LaneKind, LaneRecord, SpecRecord, queue_name, state_code,
    state_of_code,
};
use super::tables::{
    ATTEMPTS, COUNTS, ENVS, FINISHED, IDS, JOBS, LANES, LEASES, OUTPUT, READY, Record, SCHEDULE, SPECS, Snapshot, get,
};
use crate::model::{
    Attempt, EnvChange, Environment, Job, JobId, LaneId, Millis, Output, PoolId, Seq, StateKind, Stream,
};

/// Where a page of jobs left off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last row's sort key; the next page begins below it.
    before: Option<(u64, u64)>,
}

/// A page of jobs, the newest first.
#[derive(Debug, Default)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<Cursor>,
}

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

    /// When the next job becomes ready by itself.
    pub fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        let first = waiting(&self.open(SCHEDULE)?, &self.hidden()?, u64::MAX, 1)?;
        Ok(first.first().map(|(due, _)| Millis(*due)))
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

    /// Up to `limit` jobs in `state`, or in any, from `cursor` on, the newest first: by when they ended if
    /// they have, by when they are due if they wait for that, else by when they were enqueued.
    pub fn page(&self, state: Option<StateKind>, cursor: &Cursor, limit: usize) -> Result<Page, StoreError> {
        let keys = match state {
            None => self.newest_jobs(cursor, limit, |_| true)?,
            Some(kind @ (StateKind::Completed | StateKind::Dead | StateKind::Cancelled)) => {
                self.newest_finished(kind, cursor, limit)?
            }
            Some(StateKind::Pending) => self.newest_ready(cursor, limit)?,
            Some(kind @ (StateKind::Scheduled | StateKind::Failed)) => self.latest_due(kind, cursor, limit)?,
            Some(StateKind::Processing) => self.newest_held(cursor, limit)?,
            Some(StateKind::Blocked) => {
                self.newest_jobs(cursor, limit, |record| record.kind() == StateKind::Blocked)?
            }
        };
        let tables = JobTables::open(self)?;
        let mut page = Page::default();
        for (_, seq) in &keys {
            let record: Option<JobRecord> = get(&tables.jobs, *seq)?;
            let record = record.ok_or_else(|| StoreError::Damaged(format!("job {seq} is missing")))?;
            page.jobs.push(tables.job(self, Seq(*seq), &record)?);
        }
        page.next = keys.last().filter(|_| keys.len() == limit).map(|last| Cursor { before: Some(*last) });
        Ok(page)
    }

    fn newest_jobs(
        &self,
        cursor: &Cursor,
        limit: usize,
        wanted: impl Fn(&JobRecord) -> bool,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        let end = cursor.before.map_or(u64::MAX, |(_, seq)| seq);
        let (jobs, mut keys) = (self.open(JOBS)?, Vec::new());
        for (from, end) in self.hidden()?.visible(end) {
            for row in jobs.range(from..end)?.rev() {
                let (seq, record) = row?;
                if keys.len() == limit {
                    return Ok(keys);
                }
                if wanted(&decode("JOBS", record.value())?) {
                    keys.push((0, seq.value()));
                }
            }
        }
        Ok(keys)
    }

    fn newest_finished(&self, kind: StateKind, cursor: &Cursor, limit: usize) -> Result<Vec<(u64, u64)>, StoreError> {
        let code = state_code(kind);
        let (at, seq) = cursor.before.unwrap_or((u64::MAX, u64::MAX));
        let mut keys = Vec::new();
        for row in self.open(FINISHED)?.range((code, 0, 0)..(code, at, seq))?.rev().take(limit) {
            let (_, at, seq) = row?.0.value();
            keys.push((at, seq));
        }
        Ok(keys)
    }

    fn latest_due(&self, kind: StateKind, cursor: &Cursor, limit: usize) -> Result<Vec<(u64, u64)>, StoreError> {
        let (jobs, schedule) = (self.open(JOBS)?, self.open(SCHEDULE)?);
        let (due, seq) = cursor.before.unwrap_or((u64::MAX, u64::MAX));
        let mut keys = Vec::new();
        for lane in lanes_waiting(&schedule, &self.hidden()?)? {
            let mut left = limit;
            for row in schedule.range((lane, 0, 0)..(lane, due, seq))?.rev() {
                if left == 0 {
                    break;
                }
                let (_, due, seq) = row?.0.value();
                let record: Option<JobRecord> = get(&jobs, seq)?;
                if record.is_some_and(|record| record.kind() == kind) {
                    keys.push((due, seq));
                    left -= 1;
                }
            }
        }
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.truncate(limit);
        Ok(keys)
    }

    /// The newest of all lanes: each (lane, rank) is a run of seqs of its own.
    fn newest_ready(&self, cursor: &Cursor, limit: usize) -> Result<Vec<(u64, u64)>, StoreError> {
        let (ready, hidden) = (self.open(READY)?, self.hidden()?);
        let end = cursor.before.map_or(u64::MAX, |(_, seq)| seq);
        let mut keys = Vec::new();
        let mut from = (0, 0, 0);
        while let Some(row) = ready.range(from..)?.next() {
            let (lane, rank, _) = row?.0.value();
            if hidden.hide_lane(lane) {
                from = (lane, u8::MAX, u64::MAX);
                continue;
            }
            for row in ready.range((lane, rank, 0)..(lane, rank, end))?.rev().take(limit) {
                keys.push((0, row?.0.value().2));
            }
            from = (lane, rank, u64::MAX);
        }
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.truncate(limit);
        Ok(keys)
    }

    fn newest_held(&self, cursor: &Cursor, limit: usize) -> Result<Vec<(u64, u64)>, StoreError> {
        let end = cursor.before.map_or(u64::MAX, |(_, seq)| seq);
        let mut keys = Vec::new();
        for row in self.open(LEASES)?.range::<(&str, u64)>(..)? {
            let seq = row?.0.value().1;
            if seq < end {
                keys.push((0, seq));
            }
        }
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.truncate(limit);
        Ok(keys)
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

/// The tables that a job is gathered from, opened once.
struct JobTables {
    jobs: ReadOnlyTable<u64, Record>,
    specs: ReadOnlyTable<u64, Record>,
    lanes: ReadOnlyTable<u64, Record>,
    attempts: ReadOnlyTable<(u64, u32), Record>,
}

impl JobTables {
    fn open(snapshot: &Snapshot) -> Result<Self, StoreError> {
        Ok(Self {
            jobs: snapshot.open(JOBS)?,
            specs: snapshot.open(SPECS)?,
            lanes: snapshot.open(LANES)?,
            attempts: snapshot.open(ATTEMPTS)?,
        })
    }

    fn job(&self, snapshot: &Snapshot, seq: Seq, record: &JobRecord) -> Result<Job, StoreError> {
        let missing = |what: &str| StoreError::Damaged(format!("the {what} of job {} is missing", seq.0));
        let spec: SpecRecord = get(&self.specs, seq.0)?.ok_or_else(|| missing("spec"))?;
        let lane: LaneRecord = get(&self.lanes, record.lane)?.ok_or_else(|| missing("lane"))?;
        let last: Option<AttemptRecord> = get(&self.attempts, (seq.0, record.attempts))?;
        let max_retries = match spec.max_retries {
            Some(retries) => retries,
            None => snapshot.settings_of(&lane.queue)?.max_retries,
        };
        Ok(Job {
            seq,
            id: spec.id()?.unwrap_or_else(|| JobId::from(seq)),
            name: spec.name()?,
            tags: spec.tags()?,
            command: spec.command(),
            cwd: PathBuf::from(OsStr::from_bytes(&spec.cwd)),
            queue: queue_name(&lane.queue)?,
            priority: priority(record.rank),
            run: match lane.kind {
                LaneKind::Run(run) => Some(run.number),
                LaneKind::Queue => None,
            },
            progress: record.progress()?,
            max_retries,
            created: Millis(record.created),
            updated: Millis(record.updated),
            last_attempt: last.map(|attempt| attempt.attempt(record.attempts)).transpose()?,
        })
    }
}
