//! Why a job does not run now, in words.

use super::commands::status::continue_line;
use super::render::human;
use crate::model::{CancelReason, Job, Millis, State, StateKind};
use crate::queue::Queue;
use crate::store::{Asked, NeedInfo, QueueInfo, RunInfo, Snapshot, StoreError};
use crate::worker;

/// How many of those before a job are counted.
const AHEAD_MAX: usize = 1_000;
/// How many jobs are named.
const NAMED_MAX: usize = 5;

/// All that keeps a job from running, the nearest first. `None` if it runs, or has ended and nothing is to be said of it.
pub(super) fn why(queue: &Queue, job: &Job, needs: &[NeedInfo]) -> Result<Option<String>, StoreError> {
    let now = queue.clock().now();
    let mut reasons = own_reasons(job, needs, now);
    if !job.progress.state.kind().has_ended() && !matches!(job.progress.state, State::Processing(_)) {
        reasons.extend(of_its_queue(queue, job)?);
    }
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}

/// What lies with the job, and with those that it needs.
fn own_reasons(job: &Job, needs: &[NeedInfo], now: Millis) -> Vec<String> {
    let mut reasons = Vec::new();
    let unmet: Vec<&NeedInfo> = needs.iter().filter(|need| !need.met).collect();
    match &job.progress.state {
        State::Cancelled { reason: CancelReason::NeedFailed { due, held }, .. } => {
            let failed = unmet.iter().find(|need| need.state.has_ended() && need.state != StateKind::Completed);
            reasons.extend(failed.map(|need| {
                format!("job {id}, which it needed, is {}; queuectl retry {id}", need.state.name(), id = need.id)
            }));
            let later = due.filter(|due| *due > now);
            reasons.extend(later.map(|due| format!("once retried it starts {}", human::until(due, now))));
            reasons.extend(held.then(|| "once retried it is held".to_owned()));
        }
        State::Processing(claimed) if claimed.cancel_asked => reasons.push("it is being cancelled".to_owned()),
        State::Blocked { due, .. } => {
            reasons.push(format!("waits for {}", names(&unmet)));
            reasons.extend(due.filter(|due| *due > now).map(|due| format!("starts {}", human::until(due, now))));
        }
        State::Scheduled { due, held: false } => reasons.push(format!("starts {}", human::until(*due, now))),
        State::Failed { due, .. } => reasons.push(format!("retry {}", human::until(*due, now))),
        State::Scheduled { held: true, .. }
        | State::Pending
        | State::Processing(_)
        | State::Completed { .. }
        | State::Dead { .. }
        | State::Cancelled { .. } => {}
    }
    if job.progress.state.is_held() {
        reasons.push(format!("held; queuectl resume {}", job.id));
    }
    reasons
}

/// `12`, `12 and 13`, `12, 13 and 7 more`.
fn names(needs: &[&NeedInfo]) -> String {
    let shown = if needs.len() > NAMED_MAX { NAMED_MAX - 1 } else { needs.len() };
    let mut names: Vec<String> = needs[..shown].iter().map(|need| need.id.to_string()).collect();
    if needs.len() > shown {
        names.push(format!("{} more", needs.len() - shown));
    }
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) }
}

/// What lies with its queue or its run, and with the pools.
fn of_its_queue(queue: &Queue, job: &Job) -> Result<Vec<String>, StoreError> {
    let (pools, queues, runs, ahead) = queue.read(|snapshot| {
        let ahead = snapshot.ahead(job.seq, AHEAD_MAX)?;
        Ok((snapshot.pools()?, snapshot.queues()?, snapshot.unfinished_runs()?, ahead))
    })?;
    let run = runs.iter().find(|run| Some(run.number) == job.run);
    let serves = |pool: &crate::store::PoolInfo| match (run, &pool.serves) {
        (Some(run), crate::store::Serves::Run(lane)) => *lane == run.lane,
        (Some(_), _) | (None, crate::store::Serves::Run(_)) => false,
        (None, serves) => serves.queue(job.queue.as_str()),
    };
    let works = |pool: &crate::store::PoolInfo| {
        pool.ended.is_none() && pool.asked == Asked::Work && serves(pool) && worker::is_alive(queue, &pool.id)
    };
    let mut reasons = Vec::new();
    let info = queues.iter().find(|info| info.name == job.queue && job.run.is_none());
    if info.is_some_and(|info| info.paused) {
        reasons.push(format!("its queue {name} is paused; queuectl resume --queue {name}", name = job.queue));
    }
    if !pools.iter().any(works) {
        reasons.push(unserved(run));
    }
    if job.progress.state == State::Pending && reasons.is_empty() {
        reasons.push(in_line(info, ahead));
    }
    Ok(reasons)
}

fn unserved(run: Option<&RunInfo>) -> String {
    match run {
        Some(run) => format!("a cut-off run: {} continues it", human::plain(&continue_line(run))),
        None => "no pool serves its queue; queuectl worker start".to_owned(),
    }
}

/// What is before a job that could run.
fn in_line(queue: Option<&QueueInfo>, ahead: usize) -> String {
    let limit = queue.and_then(|queue| queue.parallel.filter(|limit| queue.processing() >= u64::from(*limit)));
    match (limit, ahead) {
        (Some(limit), _) => format!("its queue's limit of {limit} is reached"),
        (None, 0) => "next in its queue".to_owned(),
        (None, 1) => "behind 1 other".to_owned(),
        (None, AHEAD_MAX) => format!("behind {AHEAD_MAX} others or more"),
        (None, ahead) => format!("behind {ahead} others"),
    }
}

/// What `show` says of the jobs that one needs, the first of them.
pub(super) fn needs_in_short(needs: &[NeedInfo]) -> String {
    let mut parts: Vec<String> = needs.iter().take(NAMED_MAX).map(need_in_short).collect();
    if needs.len() > NAMED_MAX {
        parts.push(format!("{} more", needs.len() - NAMED_MAX));
    }
    parts.join(", ")
}

fn need_in_short(need: &NeedInfo) -> String {
    let any = if need.any { ", any end" } else { "" };
    format!("{} ({}{any})", need.id, need.state.name())
}

/// The jobs that need one, the first of them.
pub(super) fn needed_by(queue: &Queue, job: &Job) -> Result<String, StoreError> {
    let ids = queue.read(|snapshot: &Snapshot| snapshot.needed_by(job.seq, NAMED_MAX + 1))?;
    let mut parts: Vec<String> = ids.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if ids.len() > NAMED_MAX {
        parts.push("…".to_owned());
    }
    Ok(parts.join(", "))
}
