//! `show`.

use std::io::{self, Write};

use serde_json::Value;

use super::super::args;
use super::super::bytes::to_json;
use super::super::context::{Context, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::{human, json};
use super::super::why;
use super::list::{activities, activity_of};
use crate::model::{Attempt, EnvChange, Environment, Job, JobId, Millis, Seq, StateKind};
use crate::queue::Queue;
use crate::store::StoreError;
use crate::worker::Activity;

pub(crate) fn show(context: &Context, args: &args::Show) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let seq = find(&queue, &args.id)?;
    let activities = activities(&queue)?;
    let (job, attempts, variables, needs) = queue.read(|snapshot| {
        Ok((snapshot.job(seq)?, snapshot.attempts(seq)?, snapshot.environment(seq)?, snapshot.needs(seq)?))
    })?;
    let (Some(job), Some((env, change))) = (job, variables) else {
        return Err(Failure::from(StoreError::NoSuchJob(args.id.clone())));
    };
    let variables = Variables::of(env, change);
    let activity = activity_of(&job, &activities);
    let why = why::why(&queue, &job, &needs)?;
    let mut out = stdout();
    if args.json {
        let mut object = json::job(&job, activity);
        object.insert("why".to_owned(), why.into());
        object.insert("needs".to_owned(), needs.iter().map(json::need).collect());
        let needed_by = queue.read(|snapshot| snapshot.needed_by(seq, usize::MAX))?;
        object.insert("needed_by".to_owned(), needed_by.iter().map(JobId::as_str).collect());
        let mut history: Vec<Value> = attempts.iter().map(json::attempt).collect();
        history.extend(activity.map(running));
        object.insert("history".to_owned(), history.into());
        object.insert("env_names".to_owned(), variables.all.keys().map(|name| to_json(name)).collect());
        if args.env {
            object.insert("env".to_owned(), variables.json());
        }
        writeln!(out, "{}", Value::from(object))?;
    } else {
        write_job(&mut out, &job, activity, why, queue.clock().now())?;
        for (name, jobs) in [("After", why::needs_in_short(&needs)), ("Before", why::needed_by(&queue, &job)?)] {
            if !jobs.is_empty() {
                writeln!(out, "{name:<10}{jobs}")?;
            }
        }
        writeln!(out, "{:<10}{}", "Variables", variables.in_short(args.env))?;
        write_attempts(&mut out, &attempts, activity, queue.clock().now())?;
        if args.env {
            variables.write(&mut out)?;
        }
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

/// What a job finds in its environment, besides what its pool adds.
struct Variables {
    all: Environment,
    /// What its own text set or unset: `NAME` or `NAME unset`.
    changes: Vec<String>,
}

impl Variables {
    fn of(mut all: Environment, change: EnvChange) -> Self {
        let mut changes = Vec::new();
        for (name, value) in change {
            let unset = if value.is_none() { " unset" } else { "" };
            changes.push(format!("{}{unset}", text(&name)));
            match value {
                Some(value) => all.insert(name, value),
                None => all.remove(&name),
            };
        }
        Self { all, changes }
    }

    fn json(&self) -> Value {
        let pair = |(name, value): (&Vec<u8>, &Vec<u8>)| (String::from_utf8_lossy(name).into_owned(), to_json(value));
        Value::Object(self.all.iter().map(pair).collect())
    }

    /// Without a value: it may be a secret.
    fn in_short(&self, are_shown: bool) -> String {
        let mut short = self.all.len().to_string();
        if !self.changes.is_empty() {
            short = format!("{short}; of its own: {}", self.changes.join(", "));
        }
        if are_shown { short } else { short + "   (--env shows them)" }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        self.all.iter().try_for_each(|(name, value)| writeln!(out, "{}={}", text(name), text(value)))
    }
}

fn text(bytes: &[u8]) -> String {
    human::plain(&String::from_utf8_lossy(bytes))
}

/// The seq of a job, or that there is none.
pub(crate) fn find(queue: &Queue, id: &JobId) -> Result<Seq, Failure> {
    let found = queue.read(|snapshot| snapshot.find(id))?;
    found.ok_or_else(|| StoreError::NoSuchJob(id.clone()).into())
}

/// A job in a line about it. That its name cannot be looked up is no reason not to tell of it.
pub(crate) fn called(queue: &Queue, id: &JobId) -> String {
    let job = queue.read(|snapshot| snapshot.find(id)?.map_or(Ok(None), |seq| snapshot.job(seq)));
    human::called(id.as_str(), job.ok().flatten().and_then(|job| job.name).as_ref())
}

/// An attempt that goes on.
fn running(run: &Activity) -> Value {
    serde_json::json!({
        "attempt": run.attempt,
        "worker": run.worker.to_string(),
        "started_at": json::time(run.started),
        "ended_at": null,
        "outcome": null,
        "exit_code": null,
        "signal": null,
        "cpu_ms": null,
        "max_rss_bytes": null,
        "error": null,
    })
}

fn write_job(
    out: &mut impl Write,
    job: &Job,
    activity: Option<&Activity>,
    why: Option<String>,
    now: Millis,
) -> Result<(), Failure> {
    let state = &job.progress.state;
    // Why it waits has a line of its own.
    let waits = matches!(state.kind(), StateKind::Scheduled | StateKind::Blocked);
    let detail = if waits { String::new() } else { human::detail(job, now) };
    let detail = if detail.is_empty() { detail } else { format!("   {detail}") };
    let mut line = |name: &str, value: String| writeln!(out, "{name:<10}{value}");
    line("Job", job.id.to_string())?;
    if let Some(name) = &job.name {
        line("Name", human::plain(name.as_str()))?;
    }
    line("State", format!("{}{detail}", human::state(state.kind())))?;
    if let Some(why) = why {
        line("Why", human::plain(&why))?;
    }
    line("Command", human::plain(&job.command.to_string()))?;
    line("Folder", human::plain(&job.cwd.to_string_lossy()))?;
    if job.run.is_none() {
        line("Queue", job.queue.to_string())?;
    }
    if job.priority != 0 {
        line("Priority", job.priority.to_string())?;
    }
    if !job.tags.is_empty() {
        line("Tags", human::plain(&job.tags.to_string()))?;
    }
    if let Some(key) = &job.key {
        line("Key", human::plain(key.as_str()))?;
    }
    if let Some(run) = job.run {
        line("Run", run.to_string())?;
    }
    line("Tries", human::attempts(&job.progress, job.max_retries))?;
    line("Timeout", job.timeout.to_string())?;
    line("Enqueued", format!("{} ({})", human::ago(job.created, now), job.created))?;
    if let Some(activity) = activity {
        let since = human::about(now.since(activity.started));
        line("Running", format!("for {since} on worker {}", activity.worker))?;
    }
    Ok(())
}

fn write_attempts(
    out: &mut impl Write,
    attempts: &[Attempt],
    activity: Option<&Activity>,
    now: Millis,
) -> Result<(), Failure> {
    if attempts.is_empty() && activity.is_none() {
        return Ok(());
    }
    let mut table = human::table(&["ATTEMPT", "OUTCOME", "STARTED", "TOOK", "CPU", "MEMORY", "WORKER", "DETAIL"]);
    for attempt in attempts {
        table.add_row(human::row([
            attempt.number.to_string(),
            attempt.outcome.name().to_owned(),
            human::ago(attempt.started, now),
            human::about(attempt.ended.since(attempt.started)),
            human::about(attempt.cpu),
            human::size(attempt.max_rss_bytes),
            attempt.worker.to_string(),
            attempt.error.as_deref().map(human::plain).unwrap_or_default(),
        ]));
    }
    if let Some(run) = activity {
        let (since, took) = (human::ago(run.started, now), human::about(now.since(run.started)));
        let cells = [run.attempt.to_string(), "running".to_owned(), since, took];
        let rest = [String::new(), String::new(), run.worker.to_string(), String::new()];
        table.add_row(human::row(cells.into_iter().chain(rest)));
    }
    writeln!(out, "\n{table}")?;
    Ok(())
}
