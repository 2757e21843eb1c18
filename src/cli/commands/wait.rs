//! `wait`: woken by the file, not by a timer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::args;
use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::show::find;
use crate::model::{Seq, StateKind};
use crate::queue::Queue;
use crate::store::{Cursor, Snapshot, StoreError};
use crate::worker::{self, Bell, Ring};

pub(crate) fn wait(context: &Context, args: &args::Wait) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    // Before the first look, so that nothing is missed between the two.
    let mut bell = Bell::new(queue.folder())?;
    let mut waited_for = Waited::default();
    if args.all {
        waited_for.open = unfinished(&queue)?;
    } else {
        for id in &args.ids {
            waited_for.open.insert(find(&queue, id)?);
        }
    }
    let deadline = args.timeout.map(|timeout| queue.clock().elapsed() + timeout);
    waited_for.look(&queue)?;
    if !waited_for.open.is_empty() {
        tell_if_nobody_works(&queue)?;
    }
    while !waited_for.open.is_empty() {
        if !ring(&queue, &mut bell, deadline)? {
            let left = waited_for.open.len() as u64;
            return Err(Failure::new(Exit::TimedOut, format!("timed out; {} not ended", count_is(left))));
        }
        waited_for.look(&queue)?;
    }
    queue.leave();
    waited_for.verdict()
}

/// Waiting for jobs that no pool will run is worth a word.
pub(crate) fn tell_if_nobody_works(queue: &Queue) -> Result<(), Failure> {
    let pools = queue.read(Snapshot::pools)?;
    if !pools.iter().any(|pool| pool.ended.is_none() && worker::is_alive(queue, &pool.id)) {
        say(format_args!("no pool is running; to run what waits, type: queuectl worker start"));
    }
    Ok(())
}

fn count_is(n: u64) -> String {
    format!("{} {}", human::count(n, "job"), if n == 1 { "has" } else { "have" })
}

/// Waits for a ring until the deadline; `false` when that has come.
pub(crate) fn ring(queue: &Queue, bell: &mut Bell, deadline: Option<Duration>) -> Result<bool, Failure> {
    let left = deadline.map(|deadline| deadline.saturating_sub(queue.clock().elapsed()));
    let ring = bell.wait(left)?;
    // The kernel may tell of a death a moment before it drops the lock that says so.
    for pool in bell.take_closed() {
        worker::await_death(queue, &pool);
    }
    match ring {
        Ring::TimedOut => Ok(false),
        Ring::Moved => Err(Failure::new(Exit::QueueUnusable, gone(queue))),
        Ring::Woken | Ring::ClockSet | Ring::Changed => Ok(true),
    }
}

/// Why a queue is no longer where it was.
fn gone(queue: &Queue) -> &'static str {
    if queue.file().exists() {
        "the queue file was replaced, by a compaction, a repair or a restore: type it again"
    } else {
        "the queue was moved or deleted"
    }
}

/// Every job that has not ended.
fn unfinished(queue: &Queue) -> Result<BTreeSet<Seq>, StoreError> {
    let mut seqs = BTreeSet::new();
    for state in StateKind::ALL.into_iter().filter(|state| !state.has_ended()) {
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor {
            let page = queue.read(|snapshot| snapshot.page(Some(state), &at, 10_000))?;
            seqs.extend(page.jobs.iter().map(|job| job.seq));
            cursor = page.next;
        }
    }
    Ok(seqs)
}

#[derive(Default)]
struct Waited {
    open: BTreeSet<Seq>,
    /// Those that ended without completing.
    failed: u64,
    /// Those that were removed before it was seen how they ended.
    removed: u64,
}

impl Waited {
    fn look(&mut self, queue: &Queue) -> Result<(), StoreError> {
        queue.read(|snapshot| {
            for seq in std::mem::take(&mut self.open) {
                match snapshot.state(seq)? {
                    Some(StateKind::Completed) => {}
                    None => self.removed += 1,
                    Some(state) if state.has_ended() => self.failed += 1,
                    Some(_) => {
                        self.open.insert(seq);
                    }
                }
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Result<Exit, Failure> {
        if self.removed > 0 {
            let jobs = human::count(self.removed, "job");
            let message = format!("{jobs} went away before it was seen whether they completed");
            return Err(Failure::new(Exit::NotFound, message).next("queuectl list"));
        }
        if self.failed == 0 {
            return Ok(Exit::Done);
        }
        say(format_args!("{} did not complete", human::count(self.failed, "job")));
        Err(Failure::silent(Exit::JobsFailed).next("queuectl list"))
    }
}
