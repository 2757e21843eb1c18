//! Runs by their numbers: which one is meant, who works on it, what continues it, and `status --run`.

use std::io::Write;

use super::super::args::RunName;
use super::super::context::stdout;
use super::super::exit::{Exit, Failure};
use super::super::render::{human, json};
use super::status::shell_word;
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

/// What is typed before a run's line whose input came from standard input.
pub(crate) const SAME_INPUT: &str = "(the same input) | ";

/// What to type to continue a run, whatever has become of its input and its jobs meanwhile: `--resume` goes on with the
/// run if its input is as it was, and with what is left of it if not.
pub(crate) fn continue_line(run: &RunInfo) -> String {
    let here = std::env::current_dir().is_ok_and(|cwd| cwd == run.folder);
    let cd = if here { String::new() } else { format!("cd {} && ", shell_word(&run.folder.to_string_lossy())) };
    let (line, same_input) = match run.line.strip_prefix(SAME_INPUT) {
        Some(line) => (line, "    with the same input"),
        None => (run.line.as_str(), ""),
    };
    format!("{cd}{}{same_input}", if run.is_command { line.to_owned() } else { resuming(line) })
}

/// A line of `run` that resumes. It is stored as it was typed.
fn resuming(line: &str) -> String {
    let Some(mut words) = shlex::split(line) else { return line.to_owned() };
    let mut at = 1;
    // The values of flags before the command might be its name.
    while matches!(words.get(at).map(String::as_str), Some("--db" | "--color")) {
        at += 2;
    }
    words.retain(|word| word != "--fresh" && word != "--resume");
    let Some(run) = words.iter().skip(at).position(|word| word == "run") else { return line.to_owned() };
    words.insert(at + run + 1, "--resume".to_owned());
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

/// How a run stands that has jobs to go and that nobody works on, as what follows its number.
pub(crate) fn unfinished(run: &RunInfo, pools: &[PoolInfo]) -> String {
    let (left, total) = (run.unfinished(), run.total());
    let of_it = pools.iter().filter(|pool| pool.serves == Serves::Run(run.lane));
    match of_it.max_by_key(|pool| pool.started) {
        Some(last) if last.left_nothing() => {
            let (jobs, were) = (human::count(total, "job"), if left == 1 { "was" } else { "were" });
            // What a pool leaves because it is held, or after what is, waits so.
            let may_be_held =
                [StateKind::Scheduled, StateKind::Blocked].iter().any(|kind| run.counts.contains_key(kind));
            let or_held = if may_be_held { "held, or " } else { "" };
            format!("ended; {left} of its {jobs} {were} {or_held}retried since")
        }
        Some(_) => format!("was cut off: {left} of {} to go", human::count(total, "job")),
        // Only the last pools are remembered.
        None => format!("is unfinished: {left} of {} to go", human::count(total, "job")),
    }
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
    line("State", state(&run, pool.as_ref(), &queue.read(Snapshot::pools)?))?;
    line("Jobs", format!("{} of {}", counts(&run), run.total()))?;
    line("Line", human::plain(&run.line))?;
    line("Folder", human::path(&run.folder))?;
    if !run.flags.is_empty() {
        line("Flags", human::plain(&run.flags))?;
    }
    line("Began", format!("{} ({})", human::ago(run.created, queue.clock().now()), run.created))?;
    if run.unfinished() > 0 && pool.is_none() {
        writeln!(out, "\nto continue it, type: {}", human::plain(&continue_line(&run)))?;
    }
    Ok(out.flush()?)
}

fn state(run: &RunInfo, pool: Option<&PoolInfo>, pools: &[PoolInfo]) -> String {
    match pool {
        Some(pool) => format!("process {} works on it", pool.pid),
        None if run.unfinished() > 0 => unfinished(run, pools),
        None => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_continues_a_run_resumes_and_does_not_begin_anew() {
        for (line, continues) in [
            ("queuectl run -j 4 jobs.txt", "queuectl run --resume -j 4 jobs.txt"),
            ("bin/queuectl --db run run --fresh 'a b'", "bin/queuectl --db run run --resume 'a b'"),
            ("queuectl run -q --resume -", "queuectl run --resume -q -"),
            ("queuectl run 'a", "queuectl run 'a"),
        ] {
            assert_eq!(resuming(line), continues);
        }
    }
}
