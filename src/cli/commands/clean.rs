//! `clean`: removes what ended long ago, in transactions of bounded size, so that others get their turn.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::super::args;
use super::super::confirm::confirm;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::many::PIECE;
use crate::model::{CLOCK_BEHIND_WORTH_SAYING, Millis, StateKind};
use crate::queue::Queue;
use crate::store::{Removed, StoreError};
use crate::worker::delete_outputs;

/// What was done so far.
#[derive(Default)]
struct Done {
    removed: u64,
    output_bytes: u64,
    /// Jobs that are still needed.
    kept: u64,
    /// Files that could not be deleted.
    undeleted: u64,
}

pub(crate) fn clean(context: &Context, args: &args::Clean) -> Result<Exit, Failure> {
    let queue = context.open()?;
    let until = until(&queue, args.older_than);
    ask(&queue, args, until)?;
    let mut done = Done::default();
    for state in &args.states {
        clear(&queue, *state, until, &mut done).map_err(|error| match done.removed {
            0 => Failure::from(error),
            removed => Failure::from(error).and(format_args!("{} removed", human::count(removed, "job"))),
        })?;
    }
    show(args, &done)?;
    queue.leave();
    Ok(if done.undeleted > 0 { Exit::Other } else { Exit::Done })
}

/// What ended at this time, or before, goes. Ages are counted by the queue's time, which the ends were stamped with. Where
/// that is so far ahead that the clock must have been set wrong once, what ended before looks older than it is: only
/// what is old by the clock, too, goes then.
fn until(queue: &Queue, older_than: Duration) -> Millis {
    let ahead = queue.clock().ahead();
    if ahead <= CLOCK_BEHIND_WORTH_SAYING || older_than.is_zero() {
        return queue.clock().now().before(older_than);
    }
    say(format_args!(
        "the newest time in the queue is {} ahead of the clock: only what is so old by the clock, too, goes; to set it \
         right, type: queuectl check --repair",
        human::about(ahead)
    ));
    queue.clock().earliest().before(older_than)
}

/// On a terminal asks whether that is what is wanted. With nothing to remove there is nothing to ask.
fn ask(queue: &Queue, args: &args::Clean, until: Millis) -> Result<(), Failure> {
    let (mut counts, mut all) = (Vec::new(), 0);
    for state in &args.states {
        let count = queue.read(|snapshot| snapshot.count_ended(*state, until))?;
        counts.push(format!("{count} {}", state.name()));
        all += count;
    }
    let question =
        || format!("this removes {} ({}), with what they wrote; go on?", human::count(all, "job"), counts.join(", "));
    confirm(args.yes || all == 0, question, "removed")
}

fn clear(queue: &Queue, state: StateKind, until: Millis, done: &mut Done) -> Result<(), StoreError> {
    let mut from = None;
    loop {
        let cleared = queue.write(|tx| tx.clear(state, until, from, PIECE))?;
        done.kept += cleared.kept;
        for job in &cleared.removed {
            note(queue, job, done);
        }
        from = cleared.next;
        if from.is_none() {
            return Ok(());
        }
    }
}

fn note(queue: &Queue, job: &Removed, done: &mut Done) {
    done.removed += 1;
    done.output_bytes += job.output_bytes;
    for (path, error) in delete_outputs(queue.folder(), job.seq, &job.files) {
        done.undeleted += 1;
        say(format_args!("what job {} wrote could not be deleted: {}: {error}", job.id, human::path(&path)));
    }
}

fn show(args: &args::Clean, done: &Done) -> Result<(), Failure> {
    let Done { removed, output_bytes, kept, .. } = *done;
    let mut out = stdout();
    if args.json {
        writeln!(out, "{}", json!({"removed": removed, "output_bytes": output_bytes, "kept": kept}))?;
        return Ok(out.flush()?);
    }
    if removed == 0 {
        writeln!(out, "There is nothing to remove")?;
    } else {
        let jobs = human::count(removed, "job");
        writeln!(out, "✓ {jobs} removed, with {} of output", human::size(output_bytes))?;
    }
    if kept > 0 {
        let (jobs, stay) = (human::count(kept, "job"), if kept == 1 { "stays" } else { "stay" });
        say(format_args!("{jobs} {stay}: a run that has not ended, or a job that is blocked, still needs them"));
    }
    Ok(out.flush()?)
}
