//! Whole jobs: a job with everything that belongs to it, apart from what can be computed again.
//!
//! Backup, repair and export read these from one snapshot; backup, repair and import write them with
//! [`Tx::adopt_jobs`](super::tables::Tx::adopt_jobs), which makes every index row anew. Nothing else copies jobs.
//!
//! **Primary** are settings, lanes, jobs with specs, attempts, outputs and needs, environments, and the counters.
//! All other tables follow from them. Leases and pools are left out: a copied queue never touches the
//! original's processes. So is what is not published: whoever enqueues it still does so in the original.
//!
//! # Damage
//!
//! A reader of a sound file ends at the first thing that it cannot read. A reader of a damaged one tells of it and
//! goes on, by these rules:
//! - A job is kept only if its command is known. What is not fully known of a job that has not ended (its record, its
//!   environment, its lane, what it needs) makes it cancelled: it never runs on a guess, and `retry` runs it.
//! - A record that is lost is made up for only if an index names the job, so that a key which was damaged into the
//!   key of another job makes no job of its own.
//! - A lost attempt leaves a place-holder that says so, since attempts are numbered; a lost output is empty.
//! - Keys of rows out of order are damaged keys. Values carry their own checksum.
//! - Pages that cannot be read read as empty: see [`super::salvage`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use redb::ReadOnlyTable;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::StoreError;
use super::codec::{decode, encode};
use super::finish::{STDERR, STDOUT};
use super::open::fence;
use super::records::{
    AttemptRecord, CancelReasonRecord, DeadReasonRecord, EnvRecord, Head, JobRecord, KeptRecord, LaneKind, LaneRecord,
    NeedRecord, OutcomeRecord, RunRecord, SpecRecord, StateRecord, queue_name,
};
use super::tables::{
    ATTEMPTS, CONFIG, ENVS, FINISHED, JOBS, LANES, LEASES, NEEDS, OUTPUT, QUEUES, READY, RUNS, Record, SCHEDULE, SPECS,
    Snapshot,
};
use crate::model::{Environment, QueueName};

/// A job with everything that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WholeJob {
    pub seq: u64,
    pub record: JobRecord,
    /// Its key of the environment is computed anew.
    pub spec: SpecRecord,
    /// Jobs that share one share the `Arc`, so that it is hashed once.
    pub env: Arc<Environment>,
    /// Number 1 first, as many as the record counts.
    pub attempts: Vec<WholeAttempt>,
    /// The jobs that it needs.
    pub needs: Vec<(u64, NeedRecord)>,
}

/// One started run with what is kept of its streams in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WholeAttempt {
    pub record: AttemptRecord,
    /// The bytes, if the record says that they are inline.
    pub stdout: Option<Vec<u8>>,
    /// See `stdout`.
    pub stderr: Option<Vec<u8>>,
}

/// What a queue is made of, in the order in which it can be put together again.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// A setting of a queue, or of all ("").
    Setting { queue: String, key: String, text: String },
    /// A stream of jobs, before its jobs.
    Lane { lane: u64, record: LaneRecord },
    /// Jobs, in the order of their numbers.
    Job(Box<WholeJob>),
    /// The counters, last. Its `removed` are the jobs that were enqueued and are not among the parts.
    Head(Head),
}

/// What to do about something that cannot be read: go on, or fail.
pub(super) type OnLoss<'a> = &'a mut dyn FnMut(String) -> Result<(), StoreError>;

/// Ends at the first loss: for a file that should be sound.
pub(super) fn strictly(what: String) -> Result<(), StoreError> {
    Err(StoreError::Damaged(what))
}

/// Why a job contradicts the invariants by itself, if it does. What the file around it must hold is not looked at.
pub(super) fn contradiction(job: &WholeJob) -> Option<String> {
    let WholeJob { seq, record, spec, attempts, needs, .. } = job;
    let wrong = |what: &str| Some(format!("job {seq} {what}"));
    if spec.id().is_err() {
        return wrong("has a bad id");
    }
    if spec.name().is_err() || spec.tags().is_err() || spec.key().is_err() {
        return wrong("has a bad name, tag or key");
    }
    if record.progress().is_err() {
        return wrong("is held by a pool with a bad name");
    }
    if usize::try_from(record.attempts) != Ok(attempts.len()) {
        return wrong("counts other attempts than it has");
    }
    if !is_justified(record) {
        return wrong("is in a state that its failures and losses do not explain");
    }
    if !counts_its_needs(record, needs) {
        return wrong("is blocked without a need, or has one without being blocked, or counts other needs than it has");
    }
    if attempts.iter().any(|attempt| attempt.record.ended < attempt.record.started) {
        return wrong("has an attempt that ends before it starts");
    }
    let is_kept = |kept: &KeptRecord, bytes: &Option<Vec<u8>>| match kept {
        KeptRecord::Inline(len) => bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 == *len),
        KeptRecord::Empty | KeptRecord::File { .. } | KeptRecord::LetGo(_) => bytes.is_none(),
    };
    let is_whole = |attempt: &WholeAttempt| {
        is_kept(&attempt.record.stdout, &attempt.stdout) && is_kept(&attempt.record.stderr, &attempt.stderr)
    };
    if !attempts.iter().all(is_whole) {
        return wrong("has an output that is not what its attempt says");
    }
    None
}

/// Whether a job is blocked by as many needs as are not met. One that was cancelled may have some, too, and waits for none.
pub(super) fn counts_its_needs(record: &JobRecord, needs: &[(u64, NeedRecord)]) -> bool {
    let unmet = needs.iter().filter(|(_, need)| !need.met).count();
    match record.state {
        StateRecord::Blocked { .. } => record.needs > 0 && unmet == record.needs as usize,
        StateRecord::Cancelled { .. } => record.needs == 0,
        _ => record.needs == 0 && unmet == 0,
    }
}

/// Whether failures and losses are within what the record says was allowed when it moved.
pub(super) fn is_justified(record: &JobRecord) -> bool {
    let (failures, losses) = (record.failures, record.losses);
    let state = match record.state {
        StateRecord::Failed { allowed, .. } => (1..=allowed).contains(&failures),
        StateRecord::Dead { reason: DeadReasonRecord::Lost, allowed, .. } => allowed > 0 && losses >= allowed,
        StateRecord::Dead { allowed, .. } => failures > allowed,
        // Before it is blocked, a job begins a new set of attempts.
        StateRecord::Blocked { .. } | StateRecord::Cancelled { reason: CancelReasonRecord::NeedFailed { .. }, .. } => {
            failures == 0 && losses == 0
        }
        // A job that was to be tried again can be given another time, or be held.
        StateRecord::Scheduled { .. }
        | StateRecord::Pending
        | StateRecord::Processing { .. }
        | StateRecord::Completed { .. }
        | StateRecord::Cancelled { .. } => true,
    };
    state && u64::from(failures) + u64::from(losses) <= u64::from(record.attempts)
}

impl Snapshot {
    /// Hands out every part of the queue, in order. What cannot be read goes to `lost`, whose error ends it.
    pub(super) fn parts(
        &self,
        lost: OnLoss<'_>,
        take: &mut dyn FnMut(Part) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = Reader::new(self, lost);
        reader.settings(take)?;
        reader.lanes(take)?;
        let jobs = reader.jobs(take)?;
        let head = reader.head(jobs)?;
        take(Part::Head(head))
    }
}

/// Most environments that are remembered; a few KiB each.
const ENVIRONMENTS_CACHED: usize = 256;

struct Reader<'a> {
    snapshot: &'a Snapshot,
    lost: OnLoss<'a>,
    head: Option<Head>,
    /// The lanes handed out.
    lanes: BTreeSet<u64>,
    /// The lanes that are not published: what is in them is left out.
    hidden_lanes: BTreeSet<u64>,
    /// Those of them that are runs made up from RUNS.
    guessed_lanes: BTreeSet<u64>,
    /// Where jobs go whose lane is unknown, once there are some.
    stray_lane: Option<u64>,
    environments: HashMap<u128, Option<Arc<Environment>>>,
    /// What the indexes say of jobs; read when the first record is lost.
    indexed: Option<BTreeMap<u64, Indexed>>,
    kept: BTreeSet<u64>,
    max_lane: u64,
    max_run: u64,
}

/// What an index says of a job whose record is lost.
#[derive(Debug, Clone, Copy)]
enum Indexed {
    Ready { lane: u64, rank: u8 },
    Completed { at: u64 },
    Elsewhere,
}

/// A table of numbered records.
type Numbered = ReadOnlyTable<u64, Record>;

impl<'a> Reader<'a> {
    fn new(snapshot: &'a Snapshot, lost: OnLoss<'a>) -> Self {
        let head = fence(|| snapshot.head()).ok();
        Self {
            snapshot,
            lost,
            head,
            lanes: BTreeSet::new(),
            hidden_lanes: BTreeSet::new(),
            guessed_lanes: BTreeSet::new(),
            stray_lane: None,
            environments: HashMap::new(),
            indexed: None,
            kept: BTreeSet::new(),
            max_lane: 0,
            max_run: 0,
        }
    }

    fn settings(&mut self, take: &mut dyn FnMut(Part) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        let read = fence(|| {
            for row in self.snapshot.open(CONFIG)?.range::<(&str, &str)>(..)? {
                let (key, value) = row?;
                let (queue, name) = (key.value().0.to_owned(), key.value().1.to_owned());
                rows.push((queue, name, decode::<String>("CONFIG", value.value())));
            }
            Ok(())
        });
        if let Err(error) = read {
            (self.lost)(format!("some settings cannot be read: {error}"))?;
        }
        for (queue, key, text) in rows {
            match text {
                Ok(text) => take(Part::Setting { queue, key, text })?,
                Err(error) => (self.lost)(format!("the setting `{key}` cannot be read: {error}"))?,
            }
        }
        Ok(())
    }

    fn lanes(&mut self, take: &mut dyn FnMut(Part) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let table = fence(|| self.snapshot.open(LANES))?;
        let end = self.head.as_ref().map_or(u64::MAX, |head| head.next_lane);
        for lane in self.numbers("lanes", &table, end)? {
            let record = fence(|| super::tables::get::<_, LaneRecord>(&table, lane)?.ok_or_else(missing));
            match record.and_then(|record| queue_name(&record.queue).map(|_| record)) {
                Ok(record) if record.published => self.give_lane(lane, record, take)?,
                Ok(_) => drop(self.hidden_lanes.insert(lane)),
                Err(error) => (self.lost)(format!("the record of lane {lane} cannot be read: {error}"))?,
            }
        }
        Ok(())
    }

    fn give_lane(
        &mut self,
        lane: u64,
        record: LaneRecord,
        take: &mut dyn FnMut(Part) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.lanes.insert(lane);
        self.max_lane = self.max_lane.max(lane);
        if let LaneKind::Run(run) = &record.kind {
            self.max_run = self.max_run.max(run.number);
        }
        take(Part::Lane { lane, record })
    }

    /// Sees to it that the lane of a job is among those handed out; says whether all that matters of it is known.
    fn know_lane(
        &mut self,
        job: &mut WholeJob,
        take: &mut dyn FnMut(Part) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let lane = job.record.lane;
        if lane > 0 && self.lanes.contains(&lane) {
            return Ok(!self.guessed_lanes.contains(&lane));
        }
        let next = self.head.as_ref().map_or(u64::MAX, |head| head.next_lane);
        let named = (lane > 0 && lane < next).then(|| self.lane_by_mirror(lane)).flatten();
        let is_known = named.as_ref().is_some_and(|record| matches!(record.kind, LaneKind::Queue));
        if !is_known {
            (self.lost)(format!("the queue or run of job {} is unknown", job.seq))?;
        }
        if let Some(record) = named {
            if !is_known {
                self.guessed_lanes.insert(lane);
            }
            self.give_lane(lane, record, take)?;
        } else {
            job.record.lane = self.stray_lane();
            if !self.lanes.contains(&job.record.lane) {
                let queue = QueueName::default_queue().as_str().to_owned();
                let record = LaneRecord { queue, published: true, kind: LaneKind::Queue };
                self.give_lane(job.record.lane, record, take)?;
            }
        }
        Ok(is_known)
    }

    /// A lane whose own record is lost, as QUEUES or RUNS name it. A run's line is gone, so nobody can type it again;
    /// its jobs can be looked at.
    fn lane_by_mirror(&self, lane: u64) -> Option<LaneRecord> {
        let queue = fence(|| {
            for row in self.snapshot.open(QUEUES)?.range::<(&str, u64)>(..)? {
                let key = row?.0;
                if key.value().1 == lane {
                    return Ok(Some(queue_name(key.value().0)?.as_str().to_owned()));
                }
            }
            Ok(None)
        });
        if let Ok(Some(queue)) = queue {
            return Some(LaneRecord { queue, published: true, kind: LaneKind::Queue });
        }
        let identity = fence(|| {
            for row in self.snapshot.open(RUNS)?.range::<(u128, u64)>(..)? {
                let (identity, of) = row?.0.value();
                if of == lane {
                    return Ok(Some(identity));
                }
            }
            Ok(None)
        });
        let run = RunRecord {
            number: self.max_run + 1,
            identity: identity.ok().flatten()?,
            line: String::new(),
            folder: b"/".to_vec(),
            created: 0,
            flags: String::new(),
            seqs: RunRecord::ANY_SEQS,
            is_command: false,
        };
        let queue = QueueName::default_queue().as_str().to_owned();
        Some(LaneRecord { queue, published: true, kind: LaneKind::Run(run) })
    }

    /// Hands out the jobs; answers how many.
    fn jobs(&mut self, take: &mut dyn FnMut(Part) -> Result<(), StoreError>) -> Result<u64, StoreError> {
        let tables = JobTables::open(self.snapshot)?;
        let end = self.head.as_ref().map_or(u64::MAX, |head| head.next_seq);
        let mut records = self.numbers("records of jobs", &tables.jobs, end)?.into_iter().peekable();
        let mut specs = self.numbers("commands of jobs", &tables.specs, end)?.into_iter().peekable();
        let mut jobs = 0;
        while let Some(seq) = records.peek().into_iter().chain(specs.peek()).min().copied() {
            let record = records.next_if_eq(&seq).map(|_| numbered(&tables.jobs, seq));
            let spec = specs.next_if_eq(&seq).map(|_| numbered(&tables.specs, seq));
            let (record, spec) = (record.unwrap_or_else(|| Err(missing())), spec.unwrap_or_else(|| Err(missing())));
            if record.as_ref().is_ok_and(|record: &JobRecord| self.hidden_lanes.contains(&record.lane)) {
                continue;
            }
            let Some(job) = self.job(&tables, seq, record, spec, take)? else { continue };
            self.kept.insert(seq);
            jobs += 1;
            take(Part::Job(Box::new(job)))?;
        }
        Ok(jobs)
    }

    /// The keys of a table of numbered records, below `end`, in order. Those that are there twice are damaged, one or
    /// both, and left out.
    fn numbers(&mut self, what: &str, table: &Numbered, end: u64) -> Result<Vec<u64>, StoreError> {
        let mut found: Vec<u64> = Vec::new();
        let walked = fence(|| {
            for row in table.range(0..)? {
                found.push(row?.0.value());
            }
            Ok(())
        });
        if let Err(error) = walked {
            (self.lost)(format!("{what} cannot all be read: {error}"))?;
        }
        self.in_order(what, found, end)
    }

    fn in_order(&mut self, what: &str, mut found: Vec<u64>, end: u64) -> Result<Vec<u64>, StoreError> {
        if found.is_sorted_by(|a, b| a < b) && found.last().is_none_or(|last| *last < end) {
            return Ok(found);
        }
        (self.lost)(format!("some numbers of {what} are damaged"))?;
        found.retain(|seq| *seq < end);
        found.sort_unstable();
        let is_single = |n: usize| (n == 0 || found[n - 1] != found[n]) && found.get(n + 1) != Some(&found[n]);
        Ok((0..found.len()).filter(|n| is_single(*n)).map(|n| found[n]).collect())
    }

    fn job(
        &mut self,
        tables: &JobTables,
        seq: u64,
        record: Result<JobRecord, StoreError>,
        spec: Result<SpecRecord, StoreError>,
        take: &mut dyn FnMut(Part) -> Result<(), StoreError>,
    ) -> Result<Option<WholeJob>, StoreError> {
        let spec = match spec.and_then(|spec| spec.check().map(|()| spec)) {
            Ok(spec) => spec,
            Err(error) => {
                let state = record.map_or("in an unknown state", |record| record.kind().name());
                (self.lost)(format!("job {seq} ({state}) is lost, since its command cannot be read: {error}"))?;
                return Ok(None);
            }
        };
        let mut job = WholeJob {
            seq,
            record: JobRecord {
                lane: 0,
                rank: 100,
                created: 0,
                updated: 0,
                failures: 0,
                losses: 0,
                attempts: 0,
                needs: 0,
                is_needed: false,
                state: StateRecord::Pending,
            },
            spec,
            env: Arc::default(),
            attempts: Vec::new(),
            needs: Vec::new(),
        };
        let mut doubt = false;
        match record.and_then(|record| record.progress().map(|_| record)) {
            Ok(record) => job.record = record,
            Err(error) => {
                if !self.make_up_record(tables, seq, &mut job.record, &error)? {
                    return Ok(None);
                }
            }
        }
        doubt |= !self.know_lane(&mut job, take)?;
        if let Some(env) = self.environment(job.spec.env) {
            job.env = env;
        } else {
            (self.lost)(format!("the environment of job {seq} cannot be read: it is empty now"))?;
            doubt = true;
        }
        for number in 1..=job.record.attempts {
            let attempt = self.attempt(tables, seq, number)?;
            job.attempts.push(attempt);
        }
        doubt |= !self.needs(tables, &mut job)?;
        if doubt || !is_justified(&job.record) {
            self.settle_doubt(&mut job)?;
        }
        Ok(Some(job))
    }

    /// A record for a job whose own is lost, if an index names it.
    fn make_up_record(
        &mut self,
        tables: &JobTables,
        seq: u64,
        record: &mut JobRecord,
        error: &StoreError,
    ) -> Result<bool, StoreError> {
        let Some(indexed) = self.indexed().get(&seq).copied() else {
            (self.lost)(format!("SPECS has {seq}, which is no job: {error}"))?;
            return Ok(false);
        };
        (self.lost)(format!("the record of job {seq} cannot be read: {error}"))?;
        record.attempts = tables.attempts_of(seq);
        match indexed {
            Indexed::Ready { lane, rank } => (record.lane, record.rank) = (lane, rank),
            Indexed::Completed { at } => (record.updated, record.state) = (at, StateRecord::Completed { at }),
            Indexed::Elsewhere => {}
        }
        Ok(true)
    }

    /// A job that has not ended, of which something is unknown, is cancelled; one that has ended keeps its end.
    fn settle_doubt(&mut self, job: &mut WholeJob) -> Result<(), StoreError> {
        let record = &mut job.record;
        job.needs.clear();
        record.needs = 0;
        let has_ended = record.kind().has_ended() && is_justified(record);
        if !has_ended {
            let seq = job.seq;
            (record.failures, record.losses) = (0, 0);
            record.state = StateRecord::Cancelled { at: record.updated, reason: CancelReasonRecord::Asked };
            (self.lost)(format!("job {seq} is cancelled, since it is not fully known: `queuectl retry` runs it"))?;
        }
        Ok(())
    }

    /// The lane of jobs whose own is unknown: of the default queue, under a number that no lane has.
    fn stray_lane(&mut self) -> u64 {
        let next = self.head.as_ref().map_or(0, |head| head.next_lane).max(self.max_lane + 1);
        *self.stray_lane.get_or_insert(next)
    }

    fn indexed(&mut self) -> &BTreeMap<u64, Indexed> {
        let snapshot = self.snapshot;
        self.indexed.get_or_insert_with(|| indexed(snapshot))
    }

    fn environment(&mut self, key: u128) -> Option<Arc<Environment>> {
        if let Some(env) = self.environments.get(&key) {
            return env.clone();
        }
        let env = fence(|| self.snapshot.get::<_, EnvRecord>(ENVS, key)).ok().flatten();
        // A key that was damaged into another is not what its record hashes to.
        let env = env.filter(|env| encode(env).is_ok_and(|bytes| xxhash_rust::xxh3::xxh3_128(&bytes) == key));
        let env = env.map(|env| {
            Arc::new(
                env.0.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect::<Environment>(),
            )
        });
        if self.environments.len() >= ENVIRONMENTS_CACHED {
            self.environments.clear();
        }
        self.environments.insert(key, env.clone());
        env
    }

    fn attempt(&mut self, tables: &JobTables, seq: u64, number: u32) -> Result<WholeAttempt, StoreError> {
        let record = fence(|| {
            let record: Option<AttemptRecord> = super::tables::get(&tables.attempts, (seq, number))?;
            let record = record.ok_or_else(missing)?;
            record.attempt(number)?;
            Ok(record)
        });
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                (self.lost)(format!("attempt {number} of job {seq} cannot be read: {error}"))?;
                return Ok(WholeAttempt { record: lost_attempt(), stdout: None, stderr: None });
            }
        };
        let mut attempt = WholeAttempt { record, stdout: None, stderr: None };
        let mut ended = attempt.record.ended;
        if ended < attempt.record.started {
            (self.lost)(format!("attempt {number} of job {seq} ended before it started: its end is unknown"))?;
            ended = attempt.record.started;
        }
        attempt.record.ended = ended;
        for code in [STDOUT, STDERR] {
            let (kept, bytes) = match code {
                STDOUT => (&mut attempt.record.stdout, &mut attempt.stdout),
                _ => (&mut attempt.record.stderr, &mut attempt.stderr),
            };
            let KeptRecord::Inline(len) = *kept else { continue };
            let read = fence(|| super::tables::get::<_, ByteBuf>(&tables.output, (seq, number, code)));
            if let Some(found) = read.ok().flatten().filter(|bytes| bytes.len() as u64 == len) {
                *bytes = Some(found.into_vec());
            } else {
                *kept = KeptRecord::Empty;
                (self.lost)(format!("an output of attempt {number} of job {seq} cannot be read"))?;
            }
        }
        Ok(attempt)
    }

    /// Reads what a job needs; says whether all of it is known.
    fn needs(&mut self, tables: &JobTables, job: &mut WholeJob) -> Result<bool, StoreError> {
        let seq = job.seq;
        let read = fence(|| {
            let mut needs = Vec::new();
            for row in self.snapshot.open(NEEDS)?.range((seq, 0)..=(seq, u64::MAX))? {
                let (key, need) = row?;
                needs.push((key.value().1, decode::<NeedRecord>("NEEDS", need.value())?));
            }
            Ok(needs)
        });
        let mut needs = match read {
            Ok(needs) => needs,
            Err(error) => {
                (self.lost)(format!("what job {seq} needs cannot be read: {error}"))?;
                return Ok(false);
            }
        };
        if !counts_its_needs(&job.record, &needs) {
            let (count, unmet) = (job.record.needs, needs.iter().filter(|(_, need)| !need.met).count());
            (self.lost)(format!("job {seq} counts {count} needs and has {unmet}"))?;
            return Ok(false);
        }
        let mut gone = Vec::new();
        needs.retain(|(needed, _)| {
            let is_there = self.is_there(tables, *needed, seq);
            if !is_there {
                gone.push(*needed);
            }
            is_there
        });
        for needed in gone {
            (self.lost)(format!("job {seq} needed job {needed}, which is lost"))?;
        }
        job.needs = needs;
        // What does not wait any more has run its course all the same.
        Ok(counts_its_needs(&job.record, &job.needs))
    }

    /// Whether a job that another needs is handed out too, before it or after it.
    fn is_there(&self, tables: &JobTables, needed: u64, by: u64) -> bool {
        if needed < by {
            return self.kept.contains(&needed);
        }
        let record = numbered::<JobRecord>(&tables.jobs, needed);
        record.is_ok() && numbered::<SpecRecord>(&tables.specs, needed).is_ok_and(|spec| spec.check().is_ok())
    }

    fn head(&mut self, jobs: u64) -> Result<Head, StoreError> {
        let found = if let Some(head) = self.head.take() {
            head
        } else {
            (self.lost)("the counters cannot be read: they are counted anew".to_owned())?;
            Head::default()
        };
        let last = self.kept.last().copied().unwrap_or_default();
        Ok(Head {
            next_seq: found.next_seq.max(last + 1),
            next_lane: found.next_lane.max(self.max_lane + 1),
            next_run: found.next_run.max(self.max_run + 1),
            next_lease: found.next_lease.max(1),
            removed: found.enqueued.saturating_sub(jobs),
            ..found
        })
    }
}

fn missing() -> StoreError {
    StoreError::Damaged("it is missing".to_owned())
}

fn lost_attempt() -> AttemptRecord {
    AttemptRecord {
        pool: "unknown".to_owned(),
        slot: 0,
        started: 0,
        ended: 0,
        outcome: OutcomeRecord::Interrupted,
        exit_code: None,
        signal: None,
        cpu_ms: 0,
        max_rss_bytes: 0,
        error: Some("what is known of this attempt was lost with a damaged queue file".to_owned()),
        stdout: KeptRecord::Empty,
        stderr: KeptRecord::Empty,
    }
}

/// What the indexes say of jobs.
fn indexed(snapshot: &Snapshot) -> BTreeMap<u64, Indexed> {
    let mut found = BTreeMap::new();
    // What cannot be read of them names no job.
    let _ = fence(|| {
        for row in snapshot.open(SCHEDULE)?.range::<(u64, u64, u64)>(..)? {
            found.insert(row?.0.value().2, Indexed::Elsewhere);
        }
        Ok(())
    });
    let _ = fence(|| {
        for row in snapshot.open(LEASES)?.range::<(&str, u64)>(..)? {
            found.insert(row?.0.value().1, Indexed::Elsewhere);
        }
        Ok(())
    });
    let _ = fence(|| {
        let completed = super::records::state_code(crate::model::StateKind::Completed);
        for row in snapshot.open(FINISHED)?.range::<(u8, u64, u64)>(..)? {
            let (state, at, seq) = row?.0.value();
            let is_completed = state == completed;
            found.insert(seq, if is_completed { Indexed::Completed { at } } else { Indexed::Elsewhere });
        }
        Ok(())
    });
    let _ = fence(|| {
        for row in snapshot.open(READY)?.range::<(u64, u8, u64)>(..)? {
            let (lane, rank, seq) = row?.0.value();
            // Two indexes that contradict each other are no word to run a job on.
            let is_new = !found.contains_key(&seq);
            found.insert(seq, if is_new { Indexed::Ready { lane, rank } } else { Indexed::Elsewhere });
        }
        Ok(())
    });
    found
}

/// The record of a job in a table whose pages may be damaged.
fn numbered<T: DeserializeOwned>(table: &Numbered, seq: u64) -> Result<T, StoreError> {
    fence(|| super::tables::get(table, seq))?.ok_or_else(missing)
}

struct JobTables {
    jobs: Numbered,
    specs: Numbered,
    attempts: ReadOnlyTable<(u64, u32), Record>,
    output: ReadOnlyTable<(u64, u32, u8), Record>,
}

impl JobTables {
    fn open(snapshot: &Snapshot) -> Result<Self, StoreError> {
        fence(|| {
            Ok(Self {
                jobs: snapshot.open(JOBS)?,
                specs: snapshot.open(SPECS)?,
                attempts: snapshot.open(ATTEMPTS)?,
                output: snapshot.open(OUTPUT)?,
            })
        })
    }

    /// How many attempts ATTEMPTS has of a job.
    fn attempts_of(&self, seq: u64) -> u32 {
        let last = fence(|| {
            let last = self.attempts.range((seq, 0)..=(seq, u32::MAX))?.next_back();
            Ok(last.transpose()?.map_or(0, |(key, _)| key.value().1))
        });
        // Attempts cost a little each; a number that no job can reach is a damaged key.
        last.ok().filter(|last| *last < 100_000).unwrap_or_default()
    }
}
