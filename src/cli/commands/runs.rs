//! Runs by their numbers: which one is meant, who works on it, and `status --run`.

use std::io::Write;

use super::super::args::RunName;
use super::super::context::stdout;
use super::super::exit::{Exit, Failure};
use super::super::render::{human, json};
use super::status::continue_line;
use crate::model::{LaneId, StateKind};
use crate::queue::Queue;
use crate::store::{PoolInfo, RunInfo, Serves, Snapshot, StoreError};
use crate::worker;

/// The run that a person means.
pub(crate) fn named(queue: &Queue, name: RunName) -> Result<RunInfo, Failure> {
    let found = queue.read(|snapshot| match name {
        RunName::Last => snapshot.newest_run(),
        RunName::Numbered(number) => snapshot.run_numbered(number),
    })?;
    found.ok_or_else(|| {
        let what = match name {
            RunName::Last => "there is no run".to_owned(),
            RunName::Numbered(number) => format!("there is no run {number}"),
        };
        Failure::new(Exit::NotFound, what).next("queuectl status    names the last ones")
    })
}

/// A living pool that works on a run.
pub(crate) fn worker_of(queue: &Queue, lane: LaneId) -> Result<Option<PoolInfo>, StoreError> {
    let serves = Serves::Run(lane);
    let pools = queue.read(Snapshot::pools)?;
    let works = |pool: &PoolInfo| pool.ended.is_none() && pool.serves == serves && worker::is_alive(queue, &pool.id);
    Ok(pools.into_iter().find(works))
}

/// What a run's jobs have come to.
pub(crate) fn counts(run: &RunInfo) -> String {
    let shown = [StateKind::Completed, StateKind::Dead, StateKind::Cancelled];
    let count = |kind| run.counts.get(&kind).copied().unwrap_or_default();
    let part = |kind: StateKind| {
        let style = human::style(kind);
        format!("{style}{} {}{style:#}", count(kind), kind.name())
    };
    let mut parts: Vec<String> = shown.into_iter().filter(|kind| count(*kind) > 0).map(part).collect();
    if run.unfinished() > 0 {
        parts.push(format!("{} to go", run.unfinished()));
    }
    parts.join(", ")
}

/// `status --run`.
pub(crate) fn status(queue: &Queue, name: RunName, is_json: bool) -> Result<(), Failure> {
    let run = named(queue, name)?;
    let pool = worker_of(queue, run.lane)?;
    let mut out = stdout();
    if is_json {
        writeln!(out, "{}", json::run(&run, pool.as_ref()))?;
        return Ok(out.flush()?);
    }
    let mut line = |name: &str, value: String| writeln!(out, "{name:<10}{value}");
    line("Run", run.number.to_string())?;
    line("State", state(&run, pool.as_ref()))?;
    line("Jobs", format!("{} of {}", counts(&run), run.total()))?;
    line("Line", human::plain(&run.line))?;
    line("Folder", human::path(&run.folder))?;
    if !run.flags.is_empty() {
        line("Flags", human::plain(&run.flags))?;
    }
    line("Began", format!("{} ({})", human::ago(run.created, queue.clock().now()), run.created))?;
    if run.unfinished() > 0 && pool.is_none() {
        writeln!(out, "\nto continue it with its input as it was, type: {}", human::plain(&continue_line(&run)))?;
    }
    Ok(out.flush()?)
}

fn state(run: &RunInfo, pool: Option<&PoolInfo>) -> String {
    match pool {
        Some(pool) => format!("process {} works on it", pool.pid),
        None if run.unfinished() > 0 => "cut off".to_owned(),
        None => "ended".to_owned(),
    }
}
