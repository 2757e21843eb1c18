//! The lines as they are written: an object with one field, which says what the line is.
//!
//! Names are those of `show --json` and of the JSON of a job, wherever these have the thing. What is absent has the
//! value that most jobs have.

#![allow(clippy::struct_field_names, reason = "they are the names in the JSON")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{At, Hex, Limit, Named, Text};
use crate::model::{
    Attempt, CancelReason, Command, DeadReason, Environment, IfExists, JobSpec, Kept, Millis, Outcome, Progress, Seq,
    Start, State, StateKind, Stream, Tags, WorkerId,
};
use crate::store::{PortableAttempt, PortableJob, PortableNeed, PortableRun};

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// The first: what follows.
    QueuectlExport(Header),
    /// What a person set.
    Setting(Setting),
    /// A run.
    Run(Run),
    /// An environment that jobs share.
    Environment(Variables),
    /// A job.
    Job(Box<Job>),
    /// An attempt of the job before.
    Attempt(Box<Ran>),
    /// A part of a large output of the attempt before.
    Output(Chunk),
    /// The last: what there was, and where numbers go on.
    End(Totals),
}

impl Line {
    /// What kind of line it is, as it is written.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::QueuectlExport(_) => "queuectl_export",
            Self::Setting(_) => "setting",
            Self::Run(_) => "run",
            Self::Environment(_) => "environment",
            Self::Job(_) => "job",
            Self::Attempt(_) => "attempt",
            Self::Output(_) => "output",
            Self::End(_) => "end",
        }
    }
}

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// Of this format.
    pub version: u32,
    /// The queue's time, which it never goes behind.
    pub exported_at: At,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub run: u64,
    pub identity: Hex,
    pub line: String,
    pub cwd: Text,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flags: String,
    pub queue: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_command: bool,
    pub created_at: At,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variables {
    /// What jobs call it.
    pub environment: Hex,
    pub variables: Named<Text>,
    /// Those whose names are not UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_variables: Vec<(Text, Text)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub seq: u64,
    /// What its user called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<Text>>,
    pub cwd: Text,
    pub environment: Hex,
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub env: Named<Option<Text>>,
    /// Those whose names are not UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_env: Vec<(Text, Option<Text>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_base: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Limit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    pub queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Jobs that it was to wait for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The retries, or losses, that were allowed when it failed or died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<At>,
    /// Whether a person holds it back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub held: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<At>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub losses: u32,
    /// How many of its attempts follow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    pub created_at: At,
    pub updated_at: At,
}

/// That a job waits, or waited, for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Need {
    /// The number of the job that is needed.
    pub seq: u64,
    /// Whether it may end in any way; else it has to complete.
    #[serde(default, skip_serializing_if = "is_default")]
    pub any: bool,
    /// Whether it did, once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub met: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ran {
    pub seq: u64,
    pub attempt: u32,
    pub worker: String,
    pub started_at: At,
    pub ended_at: At,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub cpu_ms: u64,
    pub max_rss_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Small outputs; a large one is in `stdout_file` and in lines of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_file: Option<OutputFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_file: Option<OutputFile>,
    /// How many bytes of an output there were that was let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_let_go: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_let_go: Option<u64>,
}

/// A large output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputFile {
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub left_out: u64,
    /// Its file was not there: no lines of it follow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub missing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chunk {
    pub seq: u64,
    pub attempt: u32,
    pub stream: StreamName,
    pub bytes: Text,
    /// The rest could not be read: nothing of this output is taken.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unreadable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

/// The last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Totals {
    pub settings: u64,
    pub runs: u64,
    pub environments: u64,
    pub jobs: u64,
    pub attempts: u64,
    /// Of large outputs.
    pub output_bytes: u64,
    /// Of jobs that have one.
    pub keys: u64,
    pub next_seq: u64,
    pub next_lease: u64,
    pub next_run: u64,
    /// Jobs that were enqueued and are not here.
    pub removed: u64,
    /// What could not be read in the queue, and is not here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lost: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Stream> for StreamName {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

impl From<StreamName> for Stream {
    fn from(name: StreamName) -> Self {
        match name {
            StreamName::Stdout => Self::Stdout,
            StreamName::Stderr => Self::Stderr,
        }
    }
}

fn text_of(path: &Path) -> Text {
    Text(path.as_os_str().as_bytes().to_vec())
}

fn path_of(text: Text) -> PathBuf {
    PathBuf::from(OsString::from_vec(text.0))
}

/// Those with names that are UTF-8, and the others.
fn by_name<V>(all: impl IntoIterator<Item = (Vec<u8>, V)>) -> (Named<V>, Vec<(Text, V)>) {
    let mut named = Named::default();
    let mut others = Vec::new();
    for (name, value) in all {
        match String::from_utf8(name) {
            Ok(name) => drop(named.0.insert(name, value)),
            Err(error) => others.push((Text(error.into_bytes()), value)),
        }
    }
    (named, others)
}

/// Tags in the order of their keys.
fn tags(all: &[(String, String)]) -> Result<Tags, String> {
    if !all.is_sorted_by(|a, b| a.0 < b.0) {
        return Err("`tags` takes pairs of texts in the order of the first, each of these once".to_owned());
    }
    let mut tags = Tags::default();
    all.iter().try_for_each(|(key, value)| tags.set(key, value)).map_err(display)?;
    Ok(tags)
}

fn all_names<V>(named: Named<V>, others: Vec<(Text, V)>) -> Result<BTreeMap<Vec<u8>, V>, String> {
    let mut all: BTreeMap<Vec<u8>, V> = named.0.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
    for (name, value) in others {
        if all.insert(name.0, value).is_some() {
            return Err("a variable is given twice".to_owned());
        }
    }
    Ok(all)
}

impl Variables {
    pub(super) fn of(key: u128, variables: &Environment) -> Self {
        let texts = variables.iter().map(|(name, value)| (name.clone(), Text(value.clone())));
        let (variables, other_variables) = by_name(texts);
        Self { environment: Hex(key), variables, other_variables }
    }

    /// Its key in the export, and what it holds.
    pub(super) fn into_environment(self) -> Result<(u128, Environment), String> {
        let all = all_names(self.variables, self.other_variables)?;
        Ok((self.environment.0, all.into_iter().map(|(name, value)| (name, value.0)).collect()))
    }
}

impl From<PortableRun> for Run {
    fn from(run: PortableRun) -> Self {
        Self {
            run: run.number,
            identity: Hex(run.identity),
            line: run.line,
            cwd: text_of(&run.folder),
            flags: run.flags,
            queue: run.queue.as_str().to_owned(),
            is_command: run.is_command,
            created_at: At(run.created),
        }
    }
}

impl Run {
    pub(super) fn into_portable(self) -> Result<PortableRun, String> {
        Ok(PortableRun {
            number: self.run,
            identity: self.identity.0,
            line: self.line,
            folder: path_of(self.cwd),
            flags: self.flags,
            is_command: self.is_command,
            created: self.created_at.0,
            queue: self.queue.parse().map_err(display)?,
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn display(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl From<PortableJob> for Job {
    fn from(job: PortableJob) -> Self {
        let (spec, progress) = (job.spec, job.progress);
        let (command, argv) = match spec.command {
            Command::Shell(text) => (Some(Text(text)), None),
            Command::Argv(words) => (None, Some(words.into_iter().map(Text).collect())),
        };
        let changes = spec.env_change.into_iter().map(|(name, value)| (name, value.map(Text)));
        let (env, other_env) = by_name(changes);
        let allowed = match progress.state {
            State::Failed { allowed, .. } | State::Dead { allowed, .. } => Some(allowed),
            State::Scheduled { .. }
            | State::Blocked { .. }
            | State::Pending
            | State::Processing(_)
            | State::Completed { .. }
            | State::Cancelled { .. } => None,
        };
        Self {
            seq: job.seq.0,
            id: spec.id.map(|id| id.as_str().to_owned()),
            command,
            argv,
            cwd: text_of(&spec.cwd),
            environment: Hex(job.environment),
            env,
            other_env,
            max_retries: spec.max_retries,
            backoff_base: spec.backoff_base,
            timeout: spec.timeout.map(Limit),
            shell: spec.shell,
            queue: spec.queue.as_str().to_owned(),
            run: job.run,
            priority: spec.priority,
            name: spec.name.map(|name| name.as_str().to_owned()),
            tags: spec.tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            key: spec.key.map(|key| key.as_str().to_owned()),
            needs: job.needs.into_iter().map(|need| Need { seq: need.seq.0, any: need.any, met: need.met }).collect(),
            state: progress.state.kind().name().to_owned(),
            reason: progress.state.reason().map(str::to_owned),
            allowed,
            next_run_at: starts(&progress.state).map(At),
            held: is_held(&progress.state),
            finished_at: progress.state.ended_at().map(At),
            failures: progress.failures,
            losses: progress.losses,
            attempts: progress.attempts,
            created_at: At(job.created),
            updated_at: At(job.updated),
        }
    }
}

/// When a job may start, or might, were it not held, blocked, or cancelled for a need.
fn starts(state: &State) -> Option<Millis> {
    match state {
        State::Cancelled { reason: CancelReason::NeedFailed { due, .. }, .. } => *due,
        other => other.planned(),
    }
}

/// Whether a person holds a job back, or did when it was cancelled for a need.
fn is_held(state: &State) -> bool {
    state.is_held() || matches!(state, State::Cancelled { reason: CancelReason::NeedFailed { held: true, .. }, .. })
}

impl Job {
    pub(super) fn into_portable(self) -> Result<PortableJob, String> {
        let command = match (self.command, self.argv) {
            (Some(text), None) => Command::Shell(text.0),
            (None, Some(words)) => Command::Argv(words.into_iter().map(|word| word.0).collect()),
            (None, None) => return Err("a job needs `command` or `argv`".to_owned()),
            (Some(_), Some(_)) => return Err("a job takes `command` or `argv`, not both".to_owned()),
        };
        let state = StateFields {
            reason: self.reason.as_deref(),
            allowed: self.allowed,
            due: self.next_run_at,
            held: self.held,
            at: self.finished_at,
        };
        let state = state.state(&self.state)?;
        let env_change = all_names(self.env, self.other_env)?;
        Ok(PortableJob {
            seq: Seq(self.seq),
            spec: JobSpec {
                id: self.id.map(|id| id.parse()).transpose().map_err(display)?,
                command,
                cwd: path_of(self.cwd),
                env: Arc::default(),
                env_change: env_change.into_iter().map(|(name, value)| (name, value.map(|value| value.0))).collect(),
                max_retries: self.max_retries,
                backoff_base: self.backoff_base,
                timeout: self.timeout.map(|limit| limit.0),
                shell: self.shell,
                queue: self.queue.parse().map_err(display)?,
                priority: self.priority,
                start: Start::Now,
                needs: Vec::new(),
                name: self.name.map(|name| name.parse()).transpose().map_err(display)?,
                tags: tags(&self.tags)?,
                key: self.key.map(|key| key.parse()).transpose().map_err(display)?,
                if_exists: IfExists::default(),
            },
            environment: self.environment.0,
            run: self.run,
            progress: Progress { state, failures: self.failures, losses: self.losses, attempts: self.attempts },
            created: self.created_at.0,
            updated: self.updated_at.0,
            needs: self
                .needs
                .into_iter()
                .map(|need| PortableNeed { seq: Seq(need.seq), any: need.any, met: need.met })
                .collect(),
        })
    }
}

/// What belongs to a state, each field to some of them.
struct StateFields<'a> {
    reason: Option<&'a str>,
    allowed: Option<u32>,
    due: Option<At>,
    held: bool,
    at: Option<At>,
}

impl StateFields<'_> {
    /// The state of that name with its fields, and no others.
    fn state(mut self, name: &str) -> Result<State, String> {
        let kind = StateKind::from_name(name).filter(|kind| *kind != StateKind::Processing);
        let kind = kind.ok_or_else(|| {
            let names: Vec<_> =
                StateKind::ALL.iter().filter(|kind| **kind != StateKind::Processing).map(|kind| kind.name()).collect();
            format!("`{name}` is no state of a job in an export: there are {}", names.join(", "))
        })?;
        let needs = |field: &str| format!("a job that is {name} needs `{field}`");
        let state = match kind {
            StateKind::Scheduled => State::Scheduled {
                due: self.due.take().ok_or_else(|| needs("next_run_at"))?.0,
                held: std::mem::take(&mut self.held),
            },
            StateKind::Failed => State::Failed {
                due: self.due.take().ok_or_else(|| needs("next_run_at"))?.0,
                allowed: self.allowed.take().ok_or_else(|| needs("allowed"))?,
            },
            StateKind::Completed => State::Completed { at: self.at.take().ok_or_else(|| needs("finished_at"))?.0 },
            StateKind::Dead => State::Dead {
                at: self.at.take().ok_or_else(|| needs("finished_at"))?.0,
                allowed: self.allowed.take().ok_or_else(|| needs("allowed"))?,
                reason: one_of(&DEAD_REASONS, self.reason.take(), DeadReason::name)?,
            },
            StateKind::Cancelled => State::Cancelled {
                at: self.at.take().ok_or_else(|| needs("finished_at"))?.0,
                reason: match one_of(&CANCEL_REASONS, self.reason.take(), CancelReason::name)? {
                    CancelReason::Asked => CancelReason::Asked,
                    CancelReason::NeedFailed { .. } => {
                        let (due, held) = (self.due.take(), std::mem::take(&mut self.held));
                        CancelReason::NeedFailed { due: due.map(|due| due.0), held }
                    }
                },
            },
            StateKind::Blocked => {
                State::Blocked { due: self.due.take().map(|due| due.0), held: std::mem::take(&mut self.held) }
            }
            StateKind::Pending | StateKind::Processing => State::Pending,
        };
        let left = [
            ("reason", self.reason.is_some()),
            ("allowed", self.allowed.is_some()),
            ("next_run_at", self.due.is_some()),
            ("finished_at", self.at.is_some()),
            ("held", self.held),
        ];
        match left.iter().find(|(_, is_left)| *is_left) {
            Some((field, _)) => Err(format!("a job that is {name} has no `{field}`")),
            None => Ok(state),
        }
    }
}

const DEAD_REASONS: [DeadReason; 3] = [DeadReason::Failed, DeadReason::TimedOut, DeadReason::Lost];
const CANCEL_REASONS: [CancelReason; 2] = [CancelReason::Asked, CancelReason::NeedFailed { due: None, held: false }];

fn one_of<T: Copy>(all: &[T], name: Option<&str>, name_of: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| Some(name_of(*one)) == name);
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name_of(*one)).collect();
        let given = name.map_or_else(|| "nothing".to_owned(), |name| format!("`{name}`"));
        format!("`reason` takes {}, not {given}", names.join(", "))
    })
}

impl Ran {
    /// `has_file` says of a large output whether its file is there.
    pub(super) fn of(seq: Seq, portable: PortableAttempt, has_file: impl Fn(Stream) -> bool) -> Self {
        let attempt = portable.attempt;
        let split = |kept, stream| match kept {
            Kept::Empty => (None, None, None),
            Kept::Inline(bytes) => (Some(Text(bytes)), None, None),
            Kept::File { bytes, left_out } => {
                (None, Some(OutputFile { bytes, left_out, missing: !has_file(stream) }), None)
            }
            Kept::LetGo { bytes } => (None, None, Some(bytes)),
        };
        let (stdout, stdout_file, stdout_let_go) = split(portable.stdout, Stream::Stdout);
        let (stderr, stderr_file, stderr_let_go) = split(portable.stderr, Stream::Stderr);
        Self {
            seq: seq.0,
            attempt: attempt.number,
            worker: attempt.worker.to_string(),
            started_at: At(attempt.started),
            ended_at: At(attempt.ended),
            outcome: attempt.outcome.name().to_owned(),
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            cpu_ms: u64::try_from(attempt.cpu.as_millis()).unwrap_or(u64::MAX),
            max_rss_bytes: attempt.max_rss_bytes,
            error: attempt.error,
            stdout,
            stderr,
            stdout_file,
            stderr_file,
            stdout_let_go,
            stderr_let_go,
        }
    }

    /// Its large outputs.
    pub(super) fn files(&self) -> impl Iterator<Item = (Stream, OutputFile)> {
        let files = [(Stream::Stdout, self.stdout_file), (Stream::Stderr, self.stderr_file)];
        files.into_iter().filter_map(|(stream, file)| Some((stream, file?)))
    }

    pub(super) fn into_portable(self) -> Result<PortableAttempt, String> {
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == self.outcome);
        let outcome = outcome.ok_or_else(|| {
            let names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
            format!("`outcome` takes {}, not `{}`", names.join(", "), self.outcome)
        })?;
        if self.ended_at.0 < self.started_at.0 {
            return Err("the attempt ends before it starts".to_owned());
        }
        let kept = |name, inline: Option<Text>, file: Option<OutputFile>, let_go| match (inline, file, let_go) {
            (None, None, None) => Ok(Kept::Empty),
            (Some(text), None, None) => Ok(Kept::Inline(text.0)),
            (None, Some(file), None) => Ok(Kept::File { bytes: file.bytes, left_out: file.left_out }),
            (None, None, Some(bytes)) => Ok(Kept::LetGo { bytes }),
            (..) => Err(format!("an attempt takes one of `{name}`, `{name}_file` and `{name}_let_go`")),
        };
        Ok(PortableAttempt {
            attempt: Attempt {
                number: self.attempt,
                worker: worker(&self.worker)?,
                started: self.started_at.0,
                ended: self.ended_at.0,
                outcome,
                exit_code: self.exit_code,
                signal: self.signal,
                cpu: Duration::from_millis(self.cpu_ms),
                max_rss_bytes: self.max_rss_bytes,
                error: self.error,
            },
            stdout: kept("stdout", self.stdout, self.stdout_file, self.stdout_let_go)?,
            stderr: kept("stderr", self.stderr, self.stderr_file, self.stderr_let_go)?,
        })
    }
}

fn worker(text: &str) -> Result<WorkerId, String> {
    let worker = text
        .rsplit_once('.')
        .and_then(|(pool, slot)| Some(WorkerId { pool: pool.parse().ok()?, slot: slot.parse().ok()? }));
    worker.ok_or_else(|| format!("`worker` is a pool and a number, such as `n5q6.0`, not `{text}`"))
}
