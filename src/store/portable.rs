//! The whole queue as values of the model, piece after piece: what `export` writes and `import` takes back.
//!
//! What belongs to the moment is left out, as it is by backup (see [`super::whole`]): pools, and claims, which count as
//! given back. Lanes are left out too: a run is known by its number, any other job by its queue.
//!
//! Import is one transaction: a kill before its commit leaves what was there, after it all of the import.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use redb::ReadableTable;

use super::StoreError;
use super::adopt::unclaimed;
use super::codec::decode;
use super::enqueue::{Environments, hashed, priority, rank};
use super::records::{
    AttemptRecord, EnvRecord, Head, JobRecord, KeptRecord, LaneKind, LaneRecord, NeedRecord, RunRecord, SpecRecord,
    StateRecord, queue_name,
};
use super::tables::{Snapshot, Tx};
use super::whole::{Part, WholeAttempt, WholeJob, contradiction};
use crate::model::{
    Attempt, Environment, IfExists, JobId, JobSpec, Kept, LaneId, Millis, Progress, QueueName, Seq, Start, StateKind,
};

/// The counters that never go back, as far as they outlive a move to another file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The number of the next job.
    pub next_seq: u64,
    /// The next lease.
    pub next_lease: u64,
    /// The number of the next run.
    pub next_run: u64,
    /// How many jobs were enqueued and are not there.
    pub removed: u64,
}

/// A run, without its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortableRun {
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
    /// Whether it is one command, with whose code it exits.
    pub is_command: bool,
    /// When it began.
    pub created: Millis,
    /// Whose settings its jobs follow.
    pub queue: QueueName,
}

/// A job, without its attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct PortableJob {
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
    /// The jobs that it was to wait for.
    pub needs: Vec<PortableNeed>,
}

/// That a job waits, or waited, for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortableNeed {
    /// The number of the job that is needed.
    pub seq: Seq,
    /// Whether it may end in any way; else it has to complete.
    pub any: bool,
    /// Whether it did, once.
    pub met: bool,
}

/// An ended attempt with what is kept of its output.
#[derive(Debug, Clone, PartialEq)]
pub struct PortableAttempt {
    /// What is known of it.
    pub attempt: Attempt,
    /// What is kept of its standard output.
    pub stdout: Kept,
    /// What is kept of its standard error.
    pub stderr: Kept,
}

/// A part of a queue.
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
    /// A run, before its jobs.
    Run(PortableRun),
    /// An environment, before the first job that has it.
    Environment {
        /// What jobs know it by.
        key: u128,
        /// Its variables.
        variables: Arc<Environment>,
    },
    /// A job with its attempts, in the order of their numbers.
    Job {
        /// The job.
        job: Box<PortableJob>,
        /// Its attempts, number 1 first.
        attempts: Vec<PortableAttempt>,
        /// Whether a pool held it.
        was_held: bool,
    },
    /// The counters, last.
    Counters(Counters),
}

impl Snapshot {
    /// Hands out all pieces of the queue. What cannot be read goes to `lost`; an error of either ends it.
    pub fn pieces(
        &self,
        lost: &mut dyn FnMut(String) -> Result<(), StoreError>,
        take: &mut dyn FnMut(Piece) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut exporter = Exporter::default();
        self.parts(lost, &mut |part| exporter.part(part, take))
    }
}

/// What is remembered of the parts that came.
#[derive(Default)]
struct Exporter {
    lanes: BTreeMap<u64, (QueueName, Option<u64>)>,
    environments: BTreeSet<u128>,
    /// The environment of the job before, which is mostly that of the next.
    last: Option<(Arc<Environment>, u128)>,
}

impl Exporter {
    fn part(&mut self, part: Part, take: &mut dyn FnMut(Piece) -> Result<(), StoreError>) -> Result<(), StoreError> {
        match part {
            Part::Setting { queue, key, text } => {
                let queue = if queue.is_empty() { None } else { Some(queue_name(&queue)?) };
                take(Piece::Setting { queue, key, value: text })
            }
            Part::Lane { lane, record } => {
                let queue = queue_name(&record.queue)?;
                match record.kind {
                    LaneKind::Queue => drop(self.lanes.insert(lane, (queue, None))),
                    LaneKind::Run(run) => {
                        self.lanes.insert(lane, (queue.clone(), Some(run.number)));
                        take(Piece::Run(portable_run(run, queue)))?;
                    }
                }
                Ok(())
            }
            Part::Job(job) => self.job(*job, take),
            Part::Head(head) => take(Piece::Counters(Counters {
                next_seq: head.next_seq,
                next_lease: head.next_lease,
                next_run: head.next_run,
                removed: head.removed,
            })),
        }
    }

    fn job(&mut self, job: WholeJob, take: &mut dyn FnMut(Piece) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let key = self.environment(&job.env)?;
        if self.environments.insert(key) {
            take(Piece::Environment { key, variables: Arc::clone(&job.env) })?;
        }
        let lane = self.lanes.get(&job.record.lane).cloned();
        let (queue, run) = lane.ok_or_else(|| StoreError::Damaged("a lane came after its jobs".to_owned()))?;
        let was_held = job.record.kind() == StateKind::Processing;
        let (portable, attempts) = portable_job(job, key, queue, run)?;
        take(Piece::Job { job: Box::new(portable), attempts, was_held })
    }

    fn environment(&mut self, env: &Arc<Environment>) -> Result<u128, StoreError> {
        let key = match &self.last {
            Some((last, key)) if Arc::ptr_eq(last, env) => *key,
            Some(_) | None => hashed(env)?.1,
        };
        self.last = Some((Arc::clone(env), key));
        Ok(key)
    }
}

fn portable_run(run: RunRecord, queue: QueueName) -> PortableRun {
    PortableRun {
        number: run.number,
        identity: run.identity,
        line: run.line,
        folder: PathBuf::from(OsString::from_vec(run.folder)),
        flags: run.flags,
        is_command: run.is_command,
        created: Millis(run.created),
        queue,
    }
}

fn portable_job(
    job: WholeJob,
    environment: u128,
    queue: QueueName,
    run: Option<u64>,
) -> Result<(PortableJob, Vec<PortableAttempt>), StoreError> {
    let record = unclaimed(&job.record);
    let spec = job.spec;
    let portable = PortableJob {
        seq: Seq(job.seq),
        spec: JobSpec {
            id: spec.id()?,
            name: spec.name()?,
            tags: spec.tags()?,
            key: spec.key()?,
            if_exists: IfExists::default(),
            command: spec.command(),
            env: Arc::default(),
            env_change: spec.env_change(),
            cwd: PathBuf::from(OsString::from_vec(spec.cwd)),
            max_retries: spec.max_retries,
            backoff_base: spec.backoff_base,
            timeout: spec.timeout.map(Into::into),
            shell: spec.shell,
            queue,
            priority: priority(record.rank),
            start: Start::Now,
            needs: Vec::new(),
        },
        environment,
        run,
        progress: record.progress()?,
        created: Millis(record.created),
        updated: Millis(record.updated),
        needs: job.needs.into_iter().map(|(seq, need)| portable_need(seq, need)).collect(),
    };
    let attempts = (1..).zip(job.attempts).map(|(number, attempt)| portable_attempt(number, attempt));
    Ok((portable, attempts.collect::<Result<_, _>>()?))
}

fn portable_need(seq: u64, NeedRecord { any, met }: NeedRecord) -> PortableNeed {
    PortableNeed { seq: Seq(seq), any, met }
}

fn portable_attempt(number: u32, whole: WholeAttempt) -> Result<PortableAttempt, StoreError> {
    let kept = |kept, bytes: Option<Vec<u8>>| match kept {
        KeptRecord::Empty => Kept::Empty,
        KeptRecord::Inline(_) => Kept::Inline(bytes.unwrap_or_default()),
        KeptRecord::File { bytes, left_out } => Kept::File { bytes, left_out },
        KeptRecord::LetGo(bytes) => Kept::LetGo { bytes },
    };
    Ok(PortableAttempt {
        attempt: whole.record.attempt(number)?,
        stdout: kept(whole.record.stdout, whole.stdout),
        stderr: kept(whole.record.stderr, whole.stderr),
    })
}

/// A piece that does not fit by itself: why.
pub fn fault(job: &PortableJob, attempts: &[PortableAttempt]) -> Option<String> {
    contradiction(&whole_job(job, attempts.to_vec(), 0, Arc::default()))
}

fn whole_job(job: &PortableJob, attempts: Vec<PortableAttempt>, lane: u64, env: Arc<Environment>) -> WholeJob {
    let needs = job.needs.iter().map(|PortableNeed { seq, any, met }| (seq.0, NeedRecord { any: *any, met: *met }));
    let needs: Vec<(u64, NeedRecord)> = needs.collect();
    let is_blocked = job.progress.state.kind() == StateKind::Blocked;
    let unmet = needs.iter().filter(|(_, need)| is_blocked && !need.met).count();
    let record = JobRecord {
        lane,
        rank: rank(job.spec.priority),
        created: job.created.0,
        updated: job.updated.0,
        failures: job.progress.failures,
        losses: job.progress.losses,
        attempts: job.progress.attempts,
        needs: u32::try_from(unmet).unwrap_or(u32::MAX),
        is_needed: false,
        state: StateRecord::from(&job.progress.state),
    };
    let spec = SpecRecord::of(&job.spec, 0);
    WholeJob { seq: job.seq.0, record, spec, env, attempts: attempts.into_iter().map(whole_attempt).collect(), needs }
}

fn whole_attempt(portable: PortableAttempt) -> WholeAttempt {
    let attempt = portable.attempt;
    let (out, err) = (KeptRecord::from(&portable.stdout), KeptRecord::from(&portable.stderr));
    let bytes = |kept| match kept {
        Kept::Inline(bytes) => Some(bytes),
        Kept::Empty | Kept::File { .. } | Kept::LetGo { .. } => None,
    };
    WholeAttempt {
        record: AttemptRecord {
            pool: attempt.worker.pool.as_str().to_owned(),
            slot: attempt.worker.slot,
            started: attempt.started.0,
            ended: attempt.ended.0,
            outcome: attempt.outcome.into(),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            cpu_ms: u64::try_from(attempt.cpu.as_millis()).unwrap_or(u64::MAX),
            max_rss_bytes: attempt.max_rss_bytes,
            error: attempt.error,
            stdout: out,
            stderr: err,
        },
        stdout: bytes(portable.stdout),
        stderr: bytes(portable.stderr),
    }
}

/// Most environments that an import remembers; a few KiB each.
const ENVIRONMENTS_CACHED: usize = 256;

impl Tx<'_> {
    /// Sees to it that the numbers of these jobs, first and last of each range, are given to nobody, if they are free.
    pub fn reserve(&mut self, ranges: &[(Seq, Seq)]) -> Result<(), StoreError> {
        for (first, last) in ranges {
            let taken = self.tables.jobs.open()?.range(first.0..=last.0)?.next().transpose()?;
            if let Some(seq) = taken.map(|(seq, _)| seq.value()) {
                return Err(StoreError::Contradiction(format!("there is already a job number {seq}")));
            }
            if self.bulks.overlap(first.0, last.0) {
                let what = format!("numbers from {} to {} are held by an enqueue that is under way", first.0, last.0);
                return Err(StoreError::Contradiction(what));
            }
            if self.head.next_seq <= last.0 {
                self.head.next_seq = last.0 + 1;
                self.touch();
            }
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// A run that is there gets more jobs, whatever numbers they have.
    fn widen_run(&mut self, lane: LaneId) -> Result<(), StoreError> {
        if let Some(LaneRecord { queue, published, kind: LaneKind::Run(run) }) = self.tables.lanes.get(lane.0)? {
            let kind = LaneKind::Run(RunRecord { seqs: RunRecord::ANY_SEQS, ..run });
            self.tables.lanes.put(lane.0, &LaneRecord { queue, published, kind })?;
            self.touch();
        }
        Ok(())
    }
}

/// An import at work, inside its transaction.
///
/// A number, an id or a run that is taken is [`StoreError::Duplicate`] or [`StoreError::Contradiction`]: then the
/// transaction has to be given up. Settings go over those that are there only if the queue never had a job.
#[derive(Default)]
pub struct Import {
    is_fresh: bool,
    newest: Millis,
    /// Those of the queue: lane and identity.
    runs: HashMap<u64, (LaneId, u128)>,
    queues: BTreeMap<QueueName, LaneId>,
    environments: HashMap<u128, Arc<Environment>>,
    /// What the file calls an environment → its key here.
    keys: HashMap<u128, u128>,
    shares: Environments,
    /// Jobs that others need which came before them.
    expected: BTreeSet<u64>,
    /// Settings of the file that the queue has otherwise, and keeps.
    kept_settings: Vec<String>,
}

impl Import {
    /// Begins. The queue's time will not be before `newest`.
    pub fn begin(tx: &mut Tx<'_>, newest: Millis) -> Result<Self, StoreError> {
        let mut runs = HashMap::new();
        for row in tx.tables.lanes.open()?.iter()? {
            let (lane, record) = row?;
            if let LaneKind::Run(run) = decode::<LaneRecord>("LANES", record.value())?.kind {
                runs.insert(run.number, (LaneId(lane.value()), run.identity));
            }
        }
        Ok(Self { is_fresh: tx.head.enqueued == 0, newest, runs, ..Self::default() })
    }

    /// Takes a piece; they come in the order of [`Snapshot::pieces`].
    pub fn take(&mut self, tx: &mut Tx<'_>, piece: Piece) -> Result<(), StoreError> {
        match piece {
            Piece::Setting { queue, key, value } => self.setting(tx, queue.as_ref(), key, &value),
            Piece::Run(run) => self.run(tx, run),
            Piece::Environment { key, variables } => {
                self.keys.insert(key, hashed(&variables)?.1);
                self.remember(key, &variables);
                Ok(())
            }
            Piece::Job { job, attempts, .. } => self.job(tx, &job, attempts),
            Piece::Counters(counters) => tx.adopt_head(&Head {
                next_seq: counters.next_seq,
                next_lease: counters.next_lease,
                next_run: counters.next_run,
                removed: if self.is_fresh { counters.removed } else { 0 },
                newest: self.newest.0,
                ..Head::default()
            }),
        }
    }

    /// Ends: what was gathered is written. Answers the settings that the queue has otherwise, and keeps.
    pub fn finish(self, tx: &mut Tx<'_>) -> Result<Vec<String>, StoreError> {
        for seq in self.expected {
            if tx.tables.jobs.get::<JobRecord>(seq)?.is_none() {
                return Err(StoreError::Contradiction(format!("a job needs job number {seq}, which does not exist")));
            }
        }
        self.shares.write_references(tx)?;
        Ok(self.kept_settings)
    }

    fn setting(
        &mut self,
        tx: &mut Tx<'_>,
        queue: Option<&QueueName>,
        key: String,
        value: &str,
    ) -> Result<(), StoreError> {
        let queue = queue.map_or("", QueueName::as_str);
        let own: Option<String> = tx.tables.config.get((queue, key.as_str()))?;
        if own.as_deref() == Some(value) {
            return Ok(());
        }
        if own.is_none() && self.is_fresh {
            return tx.adopt_setting(queue, &key, value);
        }
        self.kept_settings.push(key);
        Ok(())
    }

    /// A run of the same number and identity that is there already is the same run.
    fn run(&mut self, tx: &mut Tx<'_>, run: PortableRun) -> Result<(), StoreError> {
        let number = run.number;
        match self.runs.get(&number) {
            Some((lane, identity)) if *identity == run.identity => return tx.widen_run(*lane),
            Some(_) => return Err(StoreError::Contradiction(format!("there is already another run {number}"))),
            None => {}
        }
        let record = RunRecord {
            number,
            identity: run.identity,
            line: run.line,
            folder: run.folder.as_os_str().as_bytes().to_vec(),
            created: run.created.0,
            flags: run.flags,
            seqs: RunRecord::ANY_SEQS,
            is_command: run.is_command,
        };
        let queue = run.queue.as_str().to_owned();
        let lane = tx.head.next_lane;
        tx.adopt_lane(lane, &LaneRecord { queue, published: true, kind: LaneKind::Run(record) })?;
        self.runs.insert(number, (LaneId(lane), run.identity));
        Ok(())
    }

    fn job(&mut self, tx: &mut Tx<'_>, job: &PortableJob, attempts: Vec<PortableAttempt>) -> Result<(), StoreError> {
        let lane = match job.run {
            Some(number) => self.runs.get(&number).map(|(lane, _)| *lane),
            None => Some(self.lane_of(tx, &job.spec.queue)?),
        };
        let name = job.spec.id.clone().unwrap_or_else(|| JobId::from(job.seq));
        let unknown = |what| StoreError::Contradiction(format!("job {name} has {what} that did not come before it"));
        let lane = lane.ok_or_else(|| unknown("a run"))?;
        let env = self.environment(tx, job.environment)?.ok_or_else(|| unknown("an environment"))?;
        for need in &job.needs {
            if tx.tables.jobs.get::<JobRecord>(need.seq.0)?.is_none() {
                self.expected.insert(need.seq.0);
            }
        }
        tx.adopt_with(&[whole_job(job, attempts, lane.0, env)], &mut self.shares)
    }

    fn lane_of(&mut self, tx: &mut Tx<'_>, queue: &QueueName) -> Result<LaneId, StoreError> {
        if let Some(lane) = self.queues.get(queue) {
            return Ok(*lane);
        }
        let lane = tx.queue_lane(queue)?;
        self.queues.insert(queue.clone(), lane);
        Ok(lane)
    }

    /// An environment that came before; an earlier one is in the file by now, with the job that it came with.
    fn environment(&mut self, tx: &mut Tx<'_>, label: u128) -> Result<Option<Arc<Environment>>, StoreError> {
        if let Some(env) = self.environments.get(&label) {
            return Ok(Some(Arc::clone(env)));
        }
        let Some(key) = self.keys.get(&label) else { return Ok(None) };
        let Some(record) = tx.tables.envs.get::<EnvRecord>(*key)? else { return Ok(None) };
        let variables = record.0.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec()));
        let env: Arc<Environment> = Arc::new(variables.collect());
        self.remember(label, &env);
        Ok(Some(env))
    }

    fn remember(&mut self, label: u128, env: &Arc<Environment>) {
        if self.environments.len() >= ENVIRONMENTS_CACHED {
            self.environments.clear();
        }
        self.environments.insert(label, Arc::clone(env));
    }
}
