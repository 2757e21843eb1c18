//! JSON: stable names, times in RFC 3339 UTC, ids as strings, what is absent as null. Text that is not UTF-8
//! has the form `{"base64": …}`, which `enqueue` takes back.

use std::os::unix::ffi::OsStrExt;

use serde_json::{Map, Value, json};

use super::super::bytes::to_json;
use crate::model::{Attempt, Command, Job, JobKey, JobName, Millis, State, StateKind, Tags};
use crate::store::{Asked, NeedInfo, PoolInfo, QueueInfo, RunInfo};
use crate::worker::Activity;

/// A job; `activity` if it runs now.
pub(crate) fn job(job: &Job, activity: Option<&Activity>) -> Map<String, Value> {
    let (command, argv) = match &job.command {
        Command::Shell(text) => (to_json(text), Value::Null),
        Command::Argv(words) => (Value::Null, words.iter().map(|word| to_json(word)).collect()),
    };
    let state = &job.progress.state;
    let last = job.last_attempt.as_ref();
    let runs = matches!(state, State::Processing(_));
    let started = if runs { activity.map(|run| run.started) } else { last.map(|last| last.started) };
    let worker =
        if runs { activity.map(|run| run.worker.to_string()) } else { last.map(|last| last.worker.to_string()) };
    // The last attempt's result says nothing of one that runs now.
    let last = last.filter(|_| !runs);
    let fields = [
        ("id", job.id.as_str().into()),
        ("command", command),
        ("argv", argv),
        ("cwd", to_json(job.cwd.as_os_str().as_bytes())),
        ("queue", job.queue.as_str().into()),
        ("priority", job.priority.into()),
        ("name", job.name.as_ref().map(JobName::as_str).into()),
        ("tags", tags(&job.tags)),
        ("key", job.key.as_ref().map(JobKey::as_str).into()),
        ("run", job.run.into()),
        ("state", state.kind().name().into()),
        ("reason", state.reason().into()),
        ("held", state.is_held().into()),
        ("attempts", job.progress.attempts.into()),
        ("max_retries", job.max_retries.into()),
        ("timeout", job.timeout.to_string().into()),
        ("created_at", time(job.created)),
        ("updated_at", time(job.updated)),
        ("started_at", started.map(time).into()),
        ("finished_at", state.ended_at().map(time).into()),
        ("next_run_at", state.due().map(time).into()),
        ("exit_code", last.and_then(|last| last.exit_code).into()),
        ("error", last.and_then(|last| last.error.clone()).into()),
        ("worker", worker.into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A job that another needs.
pub(crate) fn need(need: &NeedInfo) -> Value {
    json!({ "id": need.id.as_str(), "any": need.any, "state": need.state.name() })
}

/// Tags as an object of texts.
pub(crate) fn tags(tags: &Tags) -> Value {
    Value::Object(tags.iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
}

/// One run of a job that has ended.
pub(crate) fn attempt(attempt: &Attempt) -> Value {
    json!({
        "attempt": attempt.number,
        "worker": attempt.worker.to_string(),
        "started_at": time(attempt.started),
        "ended_at": time(attempt.ended),
        "outcome": attempt.outcome.name(),
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "cpu_ms": u64::try_from(attempt.cpu.as_millis()).unwrap_or(u64::MAX),
        "max_rss_bytes": attempt.max_rss_bytes,
        "error": attempt.error,
    })
}

/// A run, and the pool that works on it.
pub(crate) fn run(run: &RunInfo, pool: Option<&PoolInfo>) -> Value {
    let is_cut_off = run.unfinished() > 0 && pool.is_none();
    let state = match pool {
        Some(_) => "working",
        None if is_cut_off => "cut_off",
        None => "ended",
    };
    json!({
        "run": run.number,
        "line": run.line,
        "cwd": to_json(run.folder.as_os_str().as_bytes()),
        "created_at": time(run.created),
        "total": run.total(),
        "unfinished": run.unfinished(),
        "jobs": counts(&run.counts),
        "state": state,
        "cut_off": is_cut_off,
        "pid": pool.map(|pool| pool.pid),
    })
}

/// A queue with its jobs, those of runs left out.
pub(crate) fn queue(queue: &QueueInfo) -> Value {
    let all = StateKind::ALL.into_iter().map(|kind| (kind, queue.counts.get(&kind).copied().unwrap_or_default()));
    json!({
        "queue": queue.name.as_str(),
        "jobs": counts(&all.collect()),
        "held": queue.held,
        "parallel": queue.parallel,
        "paused": queue.paused,
    })
}

/// A pool that lives.
pub(crate) fn pool(pool: &PoolInfo, queues: &str, running: usize) -> Value {
    json!({
        "id": pool.id.as_str(),
        "pid": pool.pid,
        "started_at": time(pool.started),
        "workers": pool.workers,
        "queues": queues,
        "running": running,
        "log": pool.log,
        "state": match (&pool.ended, pool.asked) {
            (Some(_), _) => "ended",
            (None, Asked::Work) => "working",
            (None, Asked::Stop | Asked::StopNow) => "stopping",
        },
        "ended_at": pool.ended.as_ref().map(|(at, _)| time(*at)),
        "end": pool.ended.as_ref().map(|(_, why)| why.clone()),
    })
}

/// A time.
pub(crate) fn time(at: Millis) -> Value {
    at.to_string().into()
}

/// Every state with its count.
pub(crate) fn counts(counts: &std::collections::BTreeMap<StateKind, u64>) -> Map<String, Value> {
    // In the order in which states are shown everywhere.
    StateKind::ALL
        .iter()
        .map(|kind| (kind.name().to_owned(), counts.get(kind).copied().unwrap_or_default().into()))
        .collect()
}
