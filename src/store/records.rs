//! What is on disk. Not the model's types: those may change from one version to the next, these may not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::StoreError;
use crate::model::{
    Attempt, CancelReason, Claimed, Command, DeadReason, Editable, EnvChange, Environment, JobId, JobKey, JobName,
    JobSpec, Kept, Lease, Millis, Outcome, PoolId, Progress, QueueName, Run, State, StateKind, Tags, TimeLimit,
    WorkerId,
};

/// META `head`: the counters that never go back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Newest time of any transaction, in milliseconds.
    pub newest: u64,
    pub next_seq: u64,
    pub next_lease: u64,
    pub next_lane: u64,
    pub next_run: u64,
    /// Jobs ever enqueued.
    pub enqueued: u64,
    /// Jobs removed since.
    pub removed: u64,
    /// Where the newest time was when it had moved by more than a day in one step, the last time that it did; 0 for
    /// never.
    pub leapt: u64,
}

/// META `let_go`: up to where the outputs of jobs that ended were let go, for each state. No row when none were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LetGo(pub BTreeMap<u8, (u64, u64)>);

/// META `generations`: what a waiting process reads when the bell rings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations {
    /// Moves when there is more to claim, now or at a due time.
    pub work: u64,
    /// Moves when a person asked something of a pool.
    pub control: u64,
}

/// META `bulks`: what is not published yet. No row when there is nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bulks(pub Vec<BulkRecord>);

/// A bulk under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BulkRecord {
    /// That of its first lane; its other lanes have the next numbers.
    pub number: u64,
    /// The name of a file in `run/`.
    pub maker: String,
    /// How many lanes. None of them is published, and no other is not.
    pub lanes: u64,
    /// First and last of the numbers set aside for its jobs, in order.
    pub ranges: Vec<(u64, u64)>,
    /// The next of these to be given.
    pub next: u64,
    /// How many ids of its jobs are not in IDS yet, and keys not in KEYS.
    pub unnamed: u64,
    /// Jobs that ended otherwise than one of its jobs wants: that is settled when it is published.
    pub failed_needs: BTreeSet<u64>,
}

/// LANES: a stream of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LaneRecord {
    /// Whose settings its jobs follow.
    pub queue: String,
    /// Whether its jobs may be claimed and counted yet.
    pub published: bool,
    pub kind: LaneKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum LaneKind {
    /// The jobs enqueued one by one.
    Queue,
    /// The jobs of one `run`.
    Run(RunRecord),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunRecord {
    pub number: u64,
    pub identity: u128,
    /// The line that continues it, as it was typed.
    pub line: String,
    #[serde(with = "serde_bytes")]
    pub folder: Vec<u8>,
    pub created: u64,
    /// The flags that its jobs were enqueued with, to tell when they differ.
    pub flags: String,
    /// No job of it has a number outside of these, the first and the last.
    pub seqs: (u64, u64),
    /// Whether it is one command, with whose code it exits.
    pub is_command: bool,
}

impl RunRecord {
    /// What is known of the numbers of its jobs when nothing is.
    pub(super) const ANY_SEQS: (u64, u64) = (0, u64::MAX);
}

/// JOBS: what changes of a job. Small, since it is rewritten at each move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub lane: u64,
    /// 100 − priority, so that keys sort higher priorities first.
    pub rank: u8,
    pub created: u64,
    pub updated: u64,
    pub failures: u32,
    pub losses: u32,
    pub attempts: u32,
    /// Jobs that it still waits for.
    pub needs: u32,
    /// Whether `NEEDED_BY` has rows of it: the end of any other job is nobody's business.
    pub is_needed: bool,
    pub state: StateRecord,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum StateRecord {
    Scheduled { due: u64, held: bool },
    Blocked { due: Option<u64>, held: bool },
    Pending,
    Processing { lease: u64, pool: String, at: u64, cancel_asked: bool },
    Failed { due: u64, allowed: u32 },
    Completed { at: u64 },
    Dead { at: u64, reason: DeadReasonRecord, allowed: u32 },
    Cancelled { at: u64, reason: CancelReasonRecord },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum DeadReasonRecord {
    Failed,
    TimedOut,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenCancelReason", into = "WrittenCancelReason")]
pub(super) enum CancelReasonRecord {
    Asked,
    NeedFailed { due: Option<u64>, held: bool },
}

/// The same as it is on disk, where the order of the variants counts.
#[derive(Serialize, Deserialize)]
enum WrittenCancelReason {
    Asked,
    /// Up to schema 4, which kept nothing with it. Not written any more.
    OnlyNeedFailed,
    NeedFailed {
        due: Option<u64>,
        held: bool,
    },
}

impl From<WrittenCancelReason> for CancelReasonRecord {
    fn from(written: WrittenCancelReason) -> Self {
        match written {
            WrittenCancelReason::Asked => Self::Asked,
            WrittenCancelReason::OnlyNeedFailed => Self::NeedFailed { due: None, held: false },
            WrittenCancelReason::NeedFailed { due, held } => Self::NeedFailed { due, held },
        }
    }
}

impl From<CancelReasonRecord> for WrittenCancelReason {
    fn from(record: CancelReasonRecord) -> Self {
        match record {
            CancelReasonRecord::Asked => Self::Asked,
            CancelReasonRecord::NeedFailed { due, held } => Self::NeedFailed { due, held },
        }
    }
}

/// The code of a state in keys.
pub(super) fn state_code(kind: StateKind) -> u8 {
    match kind {
        StateKind::Scheduled => 0,
        StateKind::Blocked => 1,
        StateKind::Pending => 2,
        StateKind::Processing => 3,
        StateKind::Failed => 4,
        StateKind::Completed => 5,
        StateKind::Dead => 6,
        StateKind::Cancelled => 7,
    }
}

/// The state of a code in keys.
pub(super) fn state_of_code(code: u8) -> Result<StateKind, StoreError> {
    let found = StateKind::ALL.into_iter().find(|kind| state_code(*kind) == code);
    found.ok_or_else(|| StoreError::Damaged(format!("a key names the unknown state {code}")))
}

fn damaged_name(what: &str) -> StoreError {
    StoreError::Damaged(format!("a record holds a bad {what}"))
}

impl JobRecord {
    pub(super) fn kind(&self) -> StateKind {
        match self.state {
            StateRecord::Scheduled { .. } => StateKind::Scheduled,
            StateRecord::Blocked { .. } => StateKind::Blocked,
            StateRecord::Pending => StateKind::Pending,
            StateRecord::Processing { .. } => StateKind::Processing,
            StateRecord::Failed { .. } => StateKind::Failed,
            StateRecord::Completed { .. } => StateKind::Completed,
            StateRecord::Dead { .. } => StateKind::Dead,
            StateRecord::Cancelled { .. } => StateKind::Cancelled,
        }
    }

    /// Whether a person holds it back.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, StateRecord::Scheduled { held: true, .. } | StateRecord::Blocked { held: true, .. })
    }

    pub(super) fn progress(&self) -> Result<Progress, StoreError> {
        let state = match &self.state {
            StateRecord::Scheduled { due, held } => State::Scheduled { due: Millis(*due), held: *held },
            StateRecord::Blocked { due, held } => State::Blocked { due: due.map(Millis), held: *held },
            StateRecord::Pending => State::Pending,
            StateRecord::Processing { lease, pool, at, cancel_asked } => State::Processing(Claimed {
                lease: Lease(*lease),
                pool: pool.parse().map_err(|_| damaged_name("pool name"))?,
                at: Millis(*at),
                cancel_asked: *cancel_asked,
            }),
            StateRecord::Failed { due, allowed } => State::Failed { due: Millis(*due), allowed: *allowed },
            StateRecord::Completed { at } => State::Completed { at: Millis(*at) },
            StateRecord::Dead { at, reason, allowed } => {
                State::Dead { at: Millis(*at), reason: (*reason).into(), allowed: *allowed }
            }
            StateRecord::Cancelled { at, reason } => State::Cancelled { at: Millis(*at), reason: (*reason).into() },
        };
        Ok(Progress { state, failures: self.failures, losses: self.losses, attempts: self.attempts })
    }

    /// The record after a move to `progress` at `now`. What is not blocked waits for nobody.
    pub(super) fn moved(&self, progress: &Progress, now: Millis) -> Self {
        let is_blocked = matches!(progress.state, State::Blocked { .. });
        Self {
            needs: if is_blocked { self.needs } else { 0 },
            updated: now.0,
            failures: progress.failures,
            losses: progress.losses,
            attempts: progress.attempts,
            state: StateRecord::from(&progress.state),
            ..*self
        }
    }
}

impl From<&State> for StateRecord {
    fn from(state: &State) -> Self {
        match state {
            State::Scheduled { due, held } => Self::Scheduled { due: due.0, held: *held },
            State::Blocked { due, held } => Self::Blocked { due: due.map(|due| due.0), held: *held },
            State::Pending => Self::Pending,
            State::Processing(claimed) => Self::Processing {
                lease: claimed.lease.0,
                pool: claimed.pool.as_str().to_owned(),
                at: claimed.at.0,
                cancel_asked: claimed.cancel_asked,
            },
            State::Failed { due, allowed } => Self::Failed { due: due.0, allowed: *allowed },
            State::Completed { at } => Self::Completed { at: at.0 },
            State::Dead { at, reason, allowed } => {
                let reason = match reason {
                    DeadReason::Failed => DeadReasonRecord::Failed,
                    DeadReason::TimedOut => DeadReasonRecord::TimedOut,
                    DeadReason::Lost => DeadReasonRecord::Lost,
                };
                Self::Dead { at: at.0, reason, allowed: *allowed }
            }
            State::Cancelled { at, reason } => {
                let reason = match *reason {
                    CancelReason::Asked => CancelReasonRecord::Asked,
                    CancelReason::NeedFailed { due, held } => {
                        CancelReasonRecord::NeedFailed { due: due.map(|due| due.0), held }
                    }
                };
                Self::Cancelled { at: at.0, reason }
            }
        }
    }
}

impl From<DeadReasonRecord> for DeadReason {
    fn from(record: DeadReasonRecord) -> Self {
        match record {
            DeadReasonRecord::Failed => Self::Failed,
            DeadReasonRecord::TimedOut => Self::TimedOut,
            DeadReasonRecord::Lost => Self::Lost,
        }
    }
}

impl From<CancelReasonRecord> for CancelReason {
    fn from(record: CancelReasonRecord) -> Self {
        match record {
            CancelReasonRecord::Asked => Self::Asked,
            CancelReasonRecord::NeedFailed { due, held } => Self::NeedFailed { due: due.map(Millis), held },
        }
    }
}

/// NEEDS: that one job waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NeedRecord {
    /// Whether that one may end in any way; else it has to complete.
    pub any: bool,
    /// Whether it did, once. It stays so, even if that one is retried.
    pub met: bool,
}

/// The key in TAGS that names have: no tag has it.
pub(super) const NAME_KEY: &str = "";

/// SPECS: what a job is. Written once, and when it is edited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SpecRecord {
    pub id: Option<String>,
    pub command: CommandRecord,
    #[serde(with = "serde_bytes")]
    pub cwd: Vec<u8>,
    /// Key in ENVS.
    pub env: u128,
    pub env_change: Vec<(ByteBuf, Option<ByteBuf>)>,
    pub max_retries: Option<u32>,
    pub backoff_base: Option<f64>,
    pub timeout: Option<TimeLimitRecord>,
    pub shell: Option<Vec<String>>,
    pub name: Option<String>,
    pub tags: Vec<(String, String)>,
    /// Also in KEYS.
    pub key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum CommandRecord {
    Shell(ByteBuf),
    Argv(Vec<ByteBuf>),
}

impl From<&Command> for CommandRecord {
    fn from(command: &Command) -> Self {
        match command {
            Command::Shell(text) => Self::Shell(ByteBuf::from(text.clone())),
            Command::Argv(words) => Self::Argv(words.iter().cloned().map(ByteBuf::from).collect()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum TimeLimitRecord {
    Unlimited,
    Millis(u64),
}

impl From<TimeLimit> for TimeLimitRecord {
    fn from(limit: TimeLimit) -> Self {
        match limit {
            TimeLimit::Unlimited => Self::Unlimited,
            TimeLimit::After(limit) => Self::Millis(millis(limit)),
        }
    }
}

impl From<TimeLimitRecord> for TimeLimit {
    fn from(record: TimeLimitRecord) -> Self {
        match record {
            TimeLimitRecord::Unlimited => Self::Unlimited,
            TimeLimitRecord::Millis(ms) => Self::After(Duration::from_millis(ms)),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl SpecRecord {
    pub(super) fn of(spec: &JobSpec, env: u128) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self {
            id: spec.id.as_ref().map(|id| id.as_str().to_owned()),
            command: CommandRecord::from(&spec.command),
            cwd: spec.cwd.as_os_str().as_bytes().to_vec(),
            env,
            env_change: spec
                .env_change
                .iter()
                .map(|(name, value)| (ByteBuf::from(name.clone()), value.clone().map(ByteBuf::from)))
                .collect(),
            max_retries: spec.max_retries,
            backoff_base: spec.backoff_base,
            timeout: spec.timeout.map(Into::into),
            shell: spec.shell.clone(),
            name: spec.name.as_ref().map(|name| name.as_str().to_owned()),
            tags: spec.tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            key: spec.key.as_ref().map(|key| key.as_str().to_owned()),
        }
    }

    /// The record of a job that was edited.
    pub(super) fn edited(&self, becomes: &Editable) -> Self {
        Self {
            command: CommandRecord::from(&becomes.command),
            max_retries: becomes.max_retries,
            timeout: becomes.timeout.map(Into::into),
            name: becomes.name.as_ref().map(|name| name.as_str().to_owned()),
            tags: becomes.tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            ..self.clone()
        }
    }

    pub(super) fn command(&self) -> Command {
        match &self.command {
            CommandRecord::Shell(text) => Command::Shell(text.to_vec()),
            CommandRecord::Argv(words) => Command::Argv(words.iter().map(|word| word.to_vec()).collect()),
        }
    }

    pub(super) fn env_change(&self) -> EnvChange {
        let change = |(name, value): &(ByteBuf, Option<ByteBuf>)| (name.to_vec(), value.as_ref().map(|v| v.to_vec()));
        self.env_change.iter().map(change).collect()
    }

    pub(super) fn id(&self) -> Result<Option<JobId>, StoreError> {
        self.id.as_ref().map(|id| id.parse().map_err(|_| damaged_name("job id"))).transpose()
    }

    pub(super) fn name(&self) -> Result<Option<JobName>, StoreError> {
        self.name.as_ref().map(|name| name.parse().map_err(|_| damaged_name("name of a job"))).transpose()
    }

    pub(super) fn tags(&self) -> Result<Tags, StoreError> {
        let mut tags = Tags::default();
        for (key, value) in &self.tags {
            if tags.get(key).is_some() || tags.set(key, value).is_err() {
                return Err(damaged_name("tag"));
            }
        }
        Ok(tags)
    }

    pub(super) fn key(&self) -> Result<Option<JobKey>, StoreError> {
        self.key.as_ref().map(|key| key.parse().map_err(|_| damaged_name("key of a job"))).transpose()
    }

    /// Whether its names, key and tags are such.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.id().and(self.name().map(drop)).and(self.tags().map(drop)).and(self.key().map(drop))
    }

    /// The keys and values that TAGS has for it: its name under [`NAME_KEY`], and its tags.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let name = self.name.iter().map(|name| (NAME_KEY, name.as_str()));
        name.chain(self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }
}

/// ENVS: one environment, shared by the jobs that were enqueued with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EnvRecord(pub BTreeMap<ByteBuf, ByteBuf>);

impl EnvRecord {
    pub(super) fn environment(self) -> Environment {
        self.0.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect()
    }
}

/// ATTEMPTS: one started run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AttemptRecord {
    pub pool: String,
    pub slot: u32,
    pub started: u64,
    pub ended: u64,
    pub outcome: OutcomeRecord,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cpu_ms: u64,
    pub max_rss_bytes: u64,
    pub error: Option<String>,
    pub stdout: KeptRecord,
    pub stderr: KeptRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum OutcomeRecord {
    Completed,
    Failed,
    TimedOut,
    Cancelled,
    Interrupted,
    Lost,
}

/// What is kept of one stream of one attempt, and where.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum KeptRecord {
    Empty,
    /// In OUTPUT, of this many bytes.
    Inline(u64),
    File {
        bytes: u64,
        left_out: u64,
    },
    /// There were so many bytes.
    LetGo(u64),
}

impl From<&Kept> for KeptRecord {
    fn from(kept: &Kept) -> Self {
        match kept {
            Kept::Empty => Self::Empty,
            Kept::Inline(bytes) => Self::Inline(bytes.len() as u64),
            Kept::File { bytes, left_out } => Self::File { bytes: *bytes, left_out: *left_out },
            Kept::LetGo { bytes } => Self::LetGo(*bytes),
        }
    }
}

impl From<Outcome> for OutcomeRecord {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Failed => Self::Failed,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Lost => Self::Lost,
        }
    }
}

impl From<OutcomeRecord> for Outcome {
    fn from(record: OutcomeRecord) -> Self {
        match record {
            OutcomeRecord::Completed => Self::Completed,
            OutcomeRecord::Failed => Self::Failed,
            OutcomeRecord::TimedOut => Self::TimedOut,
            OutcomeRecord::Cancelled => Self::Cancelled,
            OutcomeRecord::Interrupted => Self::Interrupted,
            OutcomeRecord::Lost => Self::Lost,
        }
    }
}

impl AttemptRecord {
    pub(super) fn of(run: &Run, pool: &PoolId) -> Self {
        Self {
            pool: pool.as_str().to_owned(),
            slot: run.slot,
            started: run.started.0,
            ended: run.ended.max(run.started).0,
            outcome: run.outcome.into(),
            exit_code: run.exit_code,
            signal: run.signal,
            cpu_ms: millis(run.cpu),
            max_rss_bytes: run.max_rss_bytes,
            error: run.error.clone(),
            stdout: (&run.stdout).into(),
            stderr: (&run.stderr).into(),
        }
    }

    pub(super) fn attempt(&self, number: u32) -> Result<Attempt, StoreError> {
        Ok(Attempt {
            number,
            worker: WorkerId { pool: self.pool.parse().map_err(|_| damaged_name("pool name"))?, slot: self.slot },
            started: Millis(self.started),
            ended: Millis(self.ended),
            outcome: self.outcome.into(),
            exit_code: self.exit_code,
            signal: self.signal,
            cpu: Duration::from_millis(self.cpu_ms),
            max_rss_bytes: self.max_rss_bytes,
            error: self.error.clone(),
        })
    }
}

/// POOLS: a pool that lives, or one of the last that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PoolRecord {
    pub pid: u32,
    pub boot_id: u128,
    pub pid_namespace: u64,
    pub nonce: u64,
    /// Device and inode of the queue file that it was registered in: a copy of the file has others.
    pub file: (u64, u64),
    pub started: u64,
    pub workers: u32,
    pub serves: ServesRecord,
    pub asked: Asked,
    pub log: Option<String>,
    /// When and how it ended.
    pub ended: Option<(u64, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum ServesRecord {
    AllQueues,
    Queues(Vec<String>),
    Run(u64),
}

/// What a pool was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Asked {
    /// To work.
    Work,
    /// To start nothing more and end when its jobs have.
    Stop,
    /// To end its jobs and itself.
    StopNow,
}

pub(super) fn queue_name(text: &str) -> Result<QueueName, StoreError> {
    text.parse().map_err(|_| damaged_name("queue name"))
}

#[cfg(test)]
mod tests {
    use super::super::codec::{decode, encode};
    use super::*;

    #[test]
    fn reasons_of_schema_4_are_read() {
        #[derive(Serialize, Deserialize)]
        enum Old {
            Asked,
            NeedFailed,
        }
        let read = |old: &Old| decode::<CancelReasonRecord>("a test", &encode(old).unwrap()).unwrap();
        assert_eq!(read(&Old::Asked), CancelReasonRecord::Asked);
        let nothing_kept = CancelReasonRecord::NeedFailed { due: None, held: false };
        assert_eq!(read(&Old::NeedFailed), nothing_kept);
        // A program of that schema does not take it for something else.
        decode::<Old>("a test", &encode(&nothing_kept).unwrap()).map(drop).unwrap_err();
    }
}
