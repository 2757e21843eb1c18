//! `pause` and `resume`: words for the setting `paused`.

use std::io::Write;

use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use crate::model::{QueueName, SettingKey};
use crate::queue::Queue;
use crate::store::{QueueInfo, Snapshot, Tx};

pub(crate) fn pause(context: &Context, names: &[QueueName]) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
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

pub(crate) fn resume(context: &Context, names: &[QueueName]) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
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
