//! Why a job does not run now, in words.

use super::commands::runs::continue_line;
use super::exit::with_lines;
use super::local::Local;
use super::render::human;
use crate::model::{CancelReason, Job, JobId, Millis, QueueName, Seq, State, StateKind};
use crate::queue::Queue;
use crate::store::{NeedInfo, QueueInfo, Snapshot, StoreError};
use crate::worker::{self, Hold, Service, Standstill, Told, Waits};

/// How many of those before a job are counted.
const AHEAD_MAX: usize = 1_000;
/// How many jobs are named.
const NAMED_MAX: usize = 5;

/// All that keeps a job from running, the nearest first. `None` if it runs, or has ended and nothing is to be said of it.
pub(super) fn why(queue: &Queue, job: &Job, needs: &[NeedInfo]) -> Result<Option<String>, StoreError> {
    let now = queue.clock().now();
    let mut reasons = own_reasons(job, needs, now);
    if !job.progress.state.kind().has_ended() && !matches!(job.progress.state, State::Processing(_)) {
        reasons.extend(of_others(queue, job, needs, now)?);
    }
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}

/// What lies with the job, and with those that it needs.
fn own_reasons(job: &Job, needs: &[NeedInfo], now: Millis) -> Vec<String> {
    let mut reasons = Vec::new();
    match &job.progress.state {
        State::Cancelled { reason: CancelReason::NeedFailed { due, held }, .. } => {
            let has_failed = |need: &&NeedInfo| need.state.has_ended() && need.state != StateKind::Completed;
            let failed = needs.iter().filter(|need| !need.met).find(has_failed);
            reasons.extend(failed.map(|need| {
                format!("job {id}, which it needed, is {}; queuectl retry {id}", need.state.name(), id = need.id)
            }));
            let later = due.filter(|due| *due > now);
            reasons.extend(later.map(|due| format!("once retried it {}", starts(due, now))));
            reasons.extend(held.then(|| "once retried it is held".to_owned()));
        }
        State::Processing(claimed) if claimed.cancel_asked => reasons.push("it is being cancelled".to_owned()),
        State::Blocked { due, .. } => {
            let unmet: Vec<&JobId> = needs.iter().filter(|need| !need.met).map(|need| &need.id).collect();
            reasons.push(format!("waits for {}", names(&unmet, unmet.len() as u64)));
            reasons.extend(due.filter(|due| *due > now).map(|due| starts(due, now)));
        }
        State::Scheduled { .. } | State::Failed { .. } => reasons.extend(time(&job.progress.state, now)),
        State::Pending
        | State::Processing(_)
        | State::Completed { .. }
        | State::Dead { .. }
        | State::Cancelled { .. } => {}
    }
    if job.progress.state.is_held() {
        reasons.push(format!("held; {}", release(&Hold::Held, &job.id)));
    }
    reasons
}

/// What a job waits for that waits for a time.
fn time(state: &State, now: Millis) -> Option<String> {
    match state {
        State::Scheduled { due, held: false } => Some(starts(*due, now)),
        State::Failed { due, .. } => Some(format!("retry {}", human::until(*due, now))),
        _ => None,
    }
}

fn starts(due: Millis, now: Millis) -> String {
    if due <= now {
        return "starts now".to_owned();
    }
    format!("starts at {} ({})", Local::here(now).show(due), human::until(due, now))
}

/// `12`, `12 and 13`, `12, 13 and 7 more`: the first of so many.
pub(super) fn names(jobs: &[&JobId], count: u64) -> String {
    let shown = if count > NAMED_MAX as u64 { NAMED_MAX - 1 } else { jobs.len() };
    let mut names: Vec<String> = jobs.iter().take(shown).map(ToString::to_string).collect();
    if count > shown as u64 {
        names.push(format!("{} more", count - shown as u64));
    }
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last } else { format!("{} and {last}", names.join(", ")) }
}

/// What lies with the jobs that it needs, with its queue or its run, and with the pools.
fn of_others(queue: &Queue, job: &Job, needs: &[NeedInfo], now: Millis) -> Result<Vec<String>, StoreError> {
    queue.read(|snapshot| {
        let service = Service::read(queue, snapshot)?;
        let holds = service.holds(&service.place(job)?)?;
        let mut reasons = Vec::new();
        for need in needs.iter().filter(|need| !need.met && !need.state.has_ended()).take(NAMED_MAX) {
            let Some(needed) = snapshot.job(need.seq)? else { continue };
            let theirs = service.holds_of(&service.place(&needed)?, &needed.progress.state)?;
            // What is the same for both is said once.
            for hold in theirs.iter().filter(|hold| !holds.contains(hold)) {
                reasons.push(format!("job {} {}; {}", needed.id, is_kept(hold, 1), release(hold, &needed.id)));
            }
            if theirs.is_empty() {
                reasons.extend(time(&needed.progress.state, now).map(|time| format!("job {} {time}", needed.id)));
            }
        }
        reasons.extend(holds.iter().map(|hold| own_hold(hold, &job.id)));
        if job.progress.state == State::Pending && reasons.is_empty() {
            let info = service.queues.iter().find(|info| info.name == job.queue && job.run.is_none());
            reasons.push(in_line(info, snapshot.ahead(job.seq, AHEAD_MAX)?));
        }
        Ok(reasons)
    })
}

/// What keeps a job back, said of itself, with what lets it go.
fn own_hold(hold: &Hold, id: &JobId) -> String {
    let release = release(hold, id);
    match hold {
        Hold::Held => format!("held; {release}"),
        Hold::Paused(name) => format!("its queue {name} is paused; {release}"),
        Hold::Unserved(_) => format!("no pool serves its queue; {release}"),
        Hold::Abandoned(_) => format!("nobody works on its run; {release}"),
    }
}

/// What keeps so many jobs back, after their names.
fn is_kept(hold: &Hold, jobs: u64) -> String {
    let verb = if jobs == 1 { "is" } else { "are" };
    match hold {
        Hold::Held => format!("{verb} held"),
        Hold::Paused(name) => format!("{verb} in queue {name}, which is paused"),
        Hold::Unserved(name) => format!("{verb} in queue {name}, which no pool serves"),
        Hold::Abandoned(run) => format!("{verb} of run {}, on which nobody works", run.number),
    }
}

/// The line to type that lets jobs go.
fn release(hold: &Hold, ids: &dyn std::fmt::Display) -> String {
    match hold {
        Hold::Held => format!("queuectl resume {ids}"),
        Hold::Paused(name) => format!("queuectl resume --queue {name}"),
        Hold::Unserved(name) if *name == QueueName::default_queue() => "queuectl worker start".to_owned(),
        Hold::Unserved(name) => format!("queuectl worker start --queue {name}"),
        Hold::Abandoned(run) => human::plain(&continue_line(run)),
    }
}

/// What to say if all of these jobs that have not ended wait for a person, and that was not told yet.
pub(super) fn standing_still(
    queue: &Queue,
    jobs: impl IntoIterator<Item = Seq>,
    told: &mut Told,
) -> Result<Option<String>, StoreError> {
    let what = worker::standstill(queue, jobs)?;
    let text = told.is_new(&what).then(|| standstill(&what, queue.clock().now())).flatten();
    Ok(text.map(with_lines))
}

/// What who waits for jobs waits for, with the lines to type; `None` if it is for nothing that is worth a word.
pub(super) fn standstill(what: &Standstill, now: Millis) -> Option<(String, Vec<String>)> {
    match what {
        Standstill::No | Standstill::Unclear => None,
        Standstill::Until(due) => Some((format!("the next job {}", starts(*due, now)), Vec::new())),
        Standstill::Person(waits) => {
            let kept: Vec<String> = waits.iter().take(NAMED_MAX).map(are_kept).collect();
            let more = if waits.len() > NAMED_MAX { "; and more" } else { "" };
            let lines = waits.iter().take(NAMED_MAX).map(|waits| {
                let ids: Vec<&str> = waits.jobs.iter().map(JobId::as_str).collect();
                release(&waits.hold, &ids.join(" "))
            });
            Some((format!("waiting for you: {}{more}", kept.join("; ")), lines.collect()))
        }
    }
}

fn are_kept(Waits { hold, jobs, count }: &Waits) -> String {
    let noun = if *count == 1 { "job" } else { "jobs" };
    format!("{noun} {} {}", names(&jobs.iter().collect::<Vec<_>>(), *count), is_kept(hold, *count))
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
