//! The whole queue as values, one piece after the other: what `export` writes and `import` takes.
//!
//! Pools, leases and what else belongs to the moment is left out: a job that is processing counts as given back,
//! which is what would become of its claim if its pool died before the start. Lanes are left out too: a run is
//! known by its number, any other job by its queue.
//!
//! **Reading** goes on where a record cannot be read: that is a piece of its own, [`Piece::Lost`], and what depends
//! on the record is left out. A value is never guessed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use redb::ReadableTable;
use serde_bytes::ByteBuf;

use super::StoreError;
use super::codec::decode;
use super::finish::{STDERR, STDOUT};
use super::records::{
    AttemptRecord, EnvRecord, JobRecord, KeptRecord, LaneKind, LaneRecord, RunRecord, SpecRecord, StateRecord,
    queue_name,
};
use super::tables::{
    ATTEMPTS, CONFIG, ENVS, JOBS, LANES, NEEDS, OUTPUT, Record, SPECS, Snapshot, get,
};
use crate::model::{
    Attempt, Ending, Environment, JobSpec, Kept, Lease, Millis, Policy, Progress, QueueName, Seq, Settings, State,
};

/// The counters that never go back, as far as they outlive a move to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Newest time of any transaction.
    pub newest: Millis,
    /// The number of the next job.
    pub next_seq: Seq,
    /// The next lease.
    pub next_lease: Lease,
    /// The number of the next run.
    pub next_run: u64,
    /// How many jobs were removed.
    pub removed: u64,
}

/// A run, without its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeRun {
    /// What people call it.
    pub number: u64,
    /// What makes it the same run when it is typed again.
    pub identity: u128,
    /// The line that continues it.
    pub line: String,
    /// Where that line was typed.
    pub folder: PathBuf,
    /// The flags that its jobs were enqueued with.
    pub flags: String,
    /// When it began.
    pub created: Millis,
    /// Whose settings its jobs follow.
    pub queue: QueueName,
}

/// A job, without its attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeJob {
    /// Its number.
    pub seq: Seq,
    /// What it is. Its environment is empty here: see `environment`.
    pub spec: JobSpec,
    /// The key of its environment.
    pub environment: u128,
    /// The number of its run, if it is part of one.
    pub run: Option<u64>,
    /// How far it has come; not processing.
    pub progress: Progress,
    /// When it was enqueued.
    pub created: Millis,
    /// When it last moved.
    pub updated: Millis,
    /// The jobs that it was to wait for, and whether it still does.
    pub needs: Vec<(Seq, bool)>,
}

/// An ended attempt with what is kept of its output.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeAttempt {
    /// What is known of it.
    pub attempt: Attempt,
    /// What is kept of its standard output.
    pub stdout: Kept,
    /// What is kept of its standard error.
    pub stderr: Kept,
}

/// A part of a queue. They come in this order; the attempts of a job follow it.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// What a person set.
    Setting {
        /// For which queue; `None` for all.
        queue: Option<QueueName>,
        /// The setting's name.
        key: String,
        /// Its value as text.
        value: String,
    },
    /// A run; the oldest first.
    Run(WholeRun),
    /// An environment, which jobs name by its key.
    Environment {
        /// Its key.
        key: u128,
        /// Its variables.
        variables: Environment,
    },
    /// A job, in the order of their numbers. What was claimed counts as given back, which is said.
    Job {
        /// The job.
        job: Box<WholeJob>,
        /// Whether a pool held it.
        was_held: bool,
    },
    /// An attempt of the job before, in their order.
    Attempt {
        /// The job.
        seq: Seq,
        /// The attempt.
        attempt: Box<WholeAttempt>,
    },
    /// Something that cannot be read and is left out: which, and what is wrong with it.
    Lost(String),
}

/// What takes the pieces.
type Visit<'v> = &'v mut dyn FnMut(Piece) -> Result<(), StoreError>;

impl Snapshot {
    /// The counters.
    pub fn counters(&self) -> Result<Counters, StoreError> {
        let head = self.head()?;
        Ok(Counters {
            newest: Millis(head.newest),
            next_seq: Seq(head.next_seq),
            next_lease: Lease(head.next_lease),
            next_run: head.next_run,
            removed: head.removed,
        })
    }

    /// All pieces of the queue, each to `visit`, whose error ends it.
    pub fn pieces(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        self.setting_pieces(visit)?;
        let lanes = self.lane_pieces(visit)?;
        let environments = self.environment_pieces(visit)?;
        self.job_pieces(&lanes, &environments, visit)
    }

    fn setting_pieces(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        for row in self.open(CONFIG)?.iter()? {
            let (key, value) = row?;
            let (queue, key) = key.value();
            let value = decode::<String>("CONFIG", value.value());
            let queue = if queue.is_empty() { Ok(None) } else { queue_name(queue).map(Some) };
            visit(match (queue, value) {
                (Ok(queue), Ok(value)) => Piece::Setting { queue, key: key.to_owned(), value },
                (Err(error), _) | (_, Err(error)) => Piece::Lost(format!("the setting {key}: {error}")),
            })?;
        }
        Ok(())
    }

    /// The runs, by their numbers. Answers which queue and run each lane is.
    fn lane_pieces(&self, visit: Visit<'_>) -> Result<BTreeMap<u64, (QueueName, Option<u64>)>, StoreError> {
        let mut lanes = BTreeMap::new();
        let mut runs = BTreeMap::new();
        for row in self.open(LANES)?.iter()? {
            let (lane, record) = row?;
            let lane = lane.value();
            let named = decode::<LaneRecord>("LANES", record.value())
                .and_then(|record| Ok((queue_name(&record.queue)?, record.kind)));
            match named {
                Ok((queue, LaneKind::Queue)) => drop(lanes.insert(lane, (queue, None))),
                Ok((queue, LaneKind::Run(run))) => {
                    lanes.insert(lane, (queue.clone(), Some(run.number)));
                    runs.insert(run.number, whole_run(run, queue));
                }
                Err(error) => visit(Piece::Lost(format!("the stream of jobs {lane}: {error}")))?,
            }
        }
        runs.into_values().try_for_each(|run| visit(Piece::Run(run)))?;
        Ok(lanes)
    }

    /// The environments. Answers their keys.
    fn environment_pieces(&self, visit: Visit<'_>) -> Result<std::collections::BTreeSet<u128>, StoreError> {
        let mut keys = std::collections::BTreeSet::new();
        for row in self.open(ENVS)?.iter()? {
            let (key, record) = row?;
            let key = key.value();
            match decode::<EnvRecord>("ENVS", record.value()) {
                Ok(record) => {
                    keys.insert(key);
                    let variables =
                        record.0.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
                    visit(Piece::Environment { key, variables })?;
                }
                Err(error) => visit(Piece::Lost(format!("the environment {key:032x}: {error}")))?,
            }
        }
        Ok(keys)
    }

    fn job_pieces(
        &self,
        lanes: &BTreeMap<u64, (QueueName, Option<u64>)>,
        environments: &std::collections::BTreeSet<u128>,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        let specs = self.open(SPECS)?;
        let needs = self.open(NEEDS)?;
        let (attempts, outputs) = (self.open(ATTEMPTS)?, self.open(OUTPUT)?);
        for row in self.open(JOBS)?.iter()? {
            let (seq, record) = row?;
            let seq = Seq(seq.value());
            let read = || {
                let record: JobRecord = decode("JOBS", record.value())?;
                let spec: SpecRecord = get(&specs, seq.0)?.ok_or_else(|| missing("its spec"))?;
                let (queue, run) = lanes.get(&record.lane).cloned().ok_or_else(|| missing("its queue"))?;
                if !environments.contains(&spec.env) {
                    return Err(missing("its environment"));
                }
                let needs = needs_of(&needs, seq)?;
                let (job, was_held) = whole_job(seq, &record, &spec, queue, run, needs)?;
                // All of it before the first piece: a job is whole or not there.
                let attempts = (1..=record.attempts)
                    .map(|number| whole_attempt(&attempts, &outputs, seq, number))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok((job, was_held, attempts))
            };
            match read() {
                Ok((job, was_held, attempts)) => {
                    visit(Piece::Job { job: Box::new(job), was_held })?;
                    for attempt in attempts {
                        visit(Piece::Attempt { seq, attempt: Box::new(attempt) })?;
                    }
                }
                Err(error) => visit(Piece::Lost(format!("job {}: {error}", seq.0)))?,
            }
        }
        Ok(())
    }
}

fn missing(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} is missing"))
}

fn whole_run(run: RunRecord, queue: QueueName) -> WholeRun {
    WholeRun {
        number: run.number,
        identity: run.identity,
        line: run.line,
        folder: PathBuf::from(OsString::from_vec(run.folder)),
        flags: run.flags,
        created: Millis(run.created),
        queue,
    }
}

fn whole_job(
    seq: Seq,
    record: &JobRecord,
    spec: &SpecRecord,
    queue: QueueName,
    run: Option<u64>,
    needs: Vec<(Seq, bool)>,
) -> Result<(WholeJob, bool), StoreError> {
    let (progress, was_held) = given_back(record.progress()?, Millis(record.updated));
    let job = WholeJob {
        seq,
        spec: JobSpec {
            id: spec.id()?,
            command: spec.command(),
            cwd: PathBuf::from(OsString::from_vec(spec.cwd.clone())),
            env: Arc::default(),
            env_change: spec.env_change(),
            max_retries: spec.max_retries,
            backoff_base: spec.backoff_base,
            timeout: spec.timeout.map(Into::into),
            shell: spec.shell.clone(),
            queue,
            priority: priority(record.rank)?,
            start_at: None,
        },
        environment: spec.env,
        run,
        progress,
        created: Millis(record.created),
        updated: Millis(record.updated),
        needs,
    };
    Ok((job, was_held))
}

/// What becomes of a claim that was never started, and whether there was one.
fn given_back(progress: Progress, at: Millis) -> (Progress, bool) {
    let State::Processing(claimed) = &progress.state else { return (progress, false) };
    let policy = Policy::of(None, None, &Settings::default());
    let back = progress.finish(claimed.lease, &Ending::NotStarted, &policy, at);
    (back.unwrap_or(progress), true)
}

fn priority(rank: u8) -> Result<i8, StoreError> {
    i8::try_from(100 - i16::from(rank))
        .ok()
        .filter(|priority| (-100..=100).contains(priority))
        .ok_or_else(|| StoreError::Damaged("its priority is out of range".to_owned()))
}

fn needs_of(needs: &impl ReadableTable<(u64, u64), Record>, seq: Seq) -> Result<Vec<(Seq, bool)>, StoreError> {
    let rows = needs.range((seq.0, 0)..=(seq.0, u64::MAX))?;
    rows.map(|row| {
        let (key, settled) = row?;
        Ok((Seq(key.value().1), !decode::<bool>("NEEDS", settled.value())?))
    })
    .collect()
}

fn whole_attempt(
    attempts: &impl ReadableTable<(u64, u32), Record>,
    outputs: &impl ReadableTable<(u64, u32, u8), Record>,
    seq: Seq,
    number: u32,
) -> Result<WholeAttempt, StoreError> {
    let record: Option<AttemptRecord> = get(attempts, (seq.0, number))?;
    let record = record.ok_or_else(|| missing(&format!("its attempt {number}")))?;
    let kept = |kept, stream| match kept {
        KeptRecord::Empty => Ok(Kept::Empty),
        KeptRecord::File { bytes, left_out } => Ok(Kept::File { bytes, left_out }),
        KeptRecord::Inline(_) => {
            let bytes: Option<ByteBuf> = get(outputs, (seq.0, number, stream))?;
            bytes.map(|bytes| Kept::Inline(bytes.into_vec())).ok_or_else(|| missing("an output"))
        }
    };
    let (stdout, stderr) = (kept(record.stdout, STDOUT)?, kept(record.stderr, STDERR)?);
    Ok(WholeAttempt { attempt: record.attempt(number)?, stdout, stderr })
}
