//! `pause` and `resume`: of queues they are words for the setting `paused`; jobs are held, each for itself.

use std::io::Write;

use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use crate::model::{JobId, QueueName, SettingKey, StateKind};
use crate::queue::Queue;
use crate::store::{QueueInfo, Snapshot, StoreError, Tx};

pub(crate) fn pause(context: &Context, ids: &[JobId], names: &[QueueName]) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    if !ids.is_empty() {
        let held = context.first(&mut queue, |queue| queue.write(|tx| tx.hold(ids))).map_err(refused)?;
        return tell_jobs(queue, &held, "paused");
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

pub(crate) fn resume(context: &Context, ids: &[JobId], names: &[QueueName]) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    if !ids.is_empty() {
        let released = context.first(&mut queue, |queue| queue.write(|tx| tx.release(ids))).map_err(refused)?;
        return tell_jobs(queue, &released, "resumed");
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

fn tell_jobs(queue: Queue, ids: &[JobId], done: &str) -> Result<Exit, Failure> {
    let mut out = stdout();
    ids.iter().try_for_each(|id| writeln!(out, "✓ Job {id} {done}"))?;
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
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
        if found.iter().all(|queue| queue.counts.is_empty()) {
            say(format_args!("queue {name} has had no jobs yet"));
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
