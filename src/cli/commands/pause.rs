//! `pause` and `resume`: of queues they are words for the setting `paused`; jobs are held, each for itself.

use std::io::Write;

use super::super::args::Held;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::filters::{Filters, Which};
use super::super::render::human;
use super::many::{Many, Verb};
use crate::model::{JobId, QueueName, SettingKey, StateKind};
use crate::queue::Queue;
use crate::store::{QueueInfo, Snapshot, StoreError, Tx};

/// What is held is in one of these.
const HELD: [StateKind; 2] = [StateKind::Scheduled, StateKind::Blocked];

const HOLD: Verb = Verb {
    held: Some(false),
    ..Verb::new(["holds", "held", "running, ended, or held already"], &StateKind::WAITING, &StateKind::WAITING)
};
const RELEASE: Verb = Verb { held: Some(true), ..Verb::new(["resumes", "resumed", "not held"], &HELD, &HELD) };

pub(crate) fn pause(context: &Context, what: &Held) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    let names = &what.queues;
    if let Some(exit) = of_jobs(context, &mut queue, what, true)? {
        queue.leave();
        return Ok(exit);
    }
    let pause = |tx: &mut Tx<'_>| {
        if names.is_empty() {
            tx.unset_everywhere(SettingKey::Paused)?;
            tx.set(None, SettingKey::Paused, "true")?;
        }
        names.iter().try_for_each(|name| tx.set(Some(name), SettingKey::Paused, "true"))
    };
    context.first(&mut queue, |queue| queue.write(pause))?;
    tell(queue, names, "paused")
}

pub(crate) fn resume(context: &Context, what: &Held) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    let names = &what.queues;
    if let Some(exit) = of_jobs(context, &mut queue, what, false)? {
        queue.leave();
        return Ok(exit);
    }
    let resume = |tx: &mut Tx<'_>| {
        if names.is_empty() {
            tx.unset_everywhere(SettingKey::Paused)?;
        }
        // Where all are paused, one goes on by a setting of its own.
        let all_are_paused = tx.common_settings()?.paused;
        for name in names {
            if all_are_paused {
                tx.set(Some(name), SettingKey::Paused, "false")?;
            } else {
                tx.unset(Some(name), SettingKey::Paused)?;
            }
        }
        Ok(())
    };
    context.first(&mut queue, |queue| queue.write(resume))?;
    tell(queue, names, "resumed")
}

/// Holds jobs, or lets them go on, if it is jobs that are meant.
fn of_jobs(context: &Context, queue: &mut Queue, what: &Held, hold: bool) -> Result<Option<Exit>, Failure> {
    let verb = if hold { HOLD } else { RELEASE };
    let step = |tx: &mut Tx<'_>, ids: &[JobId]| if hold { tx.hold(ids) } else { tx.release(ids) };
    let mut out = stdout();
    if !what.ids.is_empty() {
        let done = context.first(queue, |queue| queue.write(|tx| step(tx, &what.ids))).map_err(refused)?;
        done.iter().try_for_each(|id| writeln!(out, "✓ Job {id} {}", verb.past))?;
    } else if let Some(filters) = filters(what)? {
        let mut many = Many::find(queue, verb, &filters.resolve(queue)?)?;
        many.confirm(what.yes)?;
        let count = many.each(queue, |ids, tx| step(tx, ids), drop)?;
        writeln!(out, "{}", many.told(count, verb.past))?;
        many.tell_left_out();
    } else {
        return Ok(None);
    }
    out.flush()?;
    Ok(Some(Exit::Done))
}

/// The filters that mean jobs: a queue alone means itself.
fn filters(what: &Held) -> Result<Option<Filters>, Failure> {
    if what.states.is_empty() && !what.traits.are_given() {
        return Ok(None);
    }
    let queue = match what.queues.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        _ => return Err(Failure::new(Exit::Usage, "a job is in one queue: with other filters, give one --queue")),
    };
    let which = Which { queue, traits: what.traits.clone() };
    Ok(Some(Filters { states: what.states.clone(), which }))
}

/// What runs cannot wait, and what has ended waits for nothing.
fn refused(error: StoreError) -> Failure {
    let next = match &error {
        StoreError::Refused { id, refusal } if refusal.state == StateKind::Processing => {
            format!("queuectl cancel {id}    ends it")
        }
        StoreError::Refused { id, .. } => format!("queuectl retry {id}    runs it again"),
        _ => "queuectl list".to_owned(),
    };
    Failure::from(error).next(next)
}

/// Says of each queue what was done, and what is in it.
fn tell(queue: Queue, names: &[QueueName], done: &str) -> Result<Exit, Failure> {
    let queues = queue.read(Snapshot::queues)?;
    let mut out = stdout();
    if names.is_empty() {
        writeln!(out, "✓ All queues {done}: {}", contents(&queues))?;
    }
    for name in names {
        let found: Vec<QueueInfo> = queues.iter().filter(|queue| queue.name == *name).cloned().collect();
        if found.iter().all(|queue| queue.counts.values().all(|count| *count == 0)) {
            say(format_args!("queue {name} has no jobs; what will be enqueued there is meant, too"));
        }
        writeln!(out, "✓ Queue {name} {done}: {}", contents(&found))?;
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

fn contents(queues: &[QueueInfo]) -> String {
    let processing: u64 = queues.iter().map(QueueInfo::processing).sum();
    let waiting = format!("{} waiting", human::count(queues.iter().map(QueueInfo::waiting).sum(), "job"));
    if processing == 0 { waiting } else { format!("{waiting}, {processing} running") }
}
