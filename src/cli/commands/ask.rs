//! `cancel`, `retry`, `dlq retry` and `remove`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::status::continue_line;
use super::wait::ring;
use crate::model::{JobId, LaneId, State, StateKind};
use crate::queue::Queue;
use crate::store::{Cancelled, StoreError};
use crate::worker::{self, Bell, News, Observer, output_path};

/// Most jobs of one transaction of a command that takes all.
const BATCH: usize = 1_000;

pub(crate) fn cancel(context: &Context, args: &args::Cancel) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    let mut bell = Bell::new(queue.folder())?;
    let done = context.first(&mut queue, |queue| queue.write(|tx| tx.cancel(&args.ids)));
    let done = done.map_err(|error| refused(error, "queuectl list"))?;
    let mut out = stdout();
    for (id, cancelled) in done {
        if cancelled == Cancelled::Asked {
            match await_end(&queue, &mut bell, &id)? {
                Some(StateKind::Completed) => {
                    writeln!(out, "Job {id} completed before it could be cancelled")?;
                    continue;
                }
                None => {
                    writeln!(out, "Job {id} ended and was removed")?;
                    continue;
                }
                Some(_) => {}
            }
        }
        writeln!(out, "✓ Job {id} cancelled")?;
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

/// Waits until the pool of a job has ended it; if that pool is dead, recovers it. `None` if it was removed meanwhile.
fn await_end(queue: &Queue, bell: &mut Bell, id: &JobId) -> Result<Option<StateKind>, Failure> {
    loop {
        let state = queue.read(|snapshot| match snapshot.find(id)? {
            Some(seq) => snapshot.state(seq),
            None => Ok(None),
        })?;
        match state {
            Some(StateKind::Processing) => {}
            ended => return Ok(ended),
        }
        if !worker::dead_pools(queue)?.is_empty() {
            if worker::recover(queue, &Quiet)? {
                continue;
            }
            let state = queue.read(|snapshot| snapshot.find(id)?.map_or(Ok(None), |seq| snapshot.state(seq)))?;
            if state == Some(StateKind::Processing) && !is_held_by_the_living(queue, id)? {
                return Err(Failure::new(Exit::Other, format!("job {id} cannot be ended now; it will not run again")));
            }
        }
        ring(queue, bell, None)?;
    }
}

/// Whether a pool that lives holds a job.
fn is_held_by_the_living(queue: &Queue, id: &JobId) -> Result<bool, StoreError> {
    let job = queue.read(|snapshot| snapshot.find(id)?.map_or(Ok(None), |seq| snapshot.job(seq)))?;
    Ok(job.is_some_and(|job| match job.progress.state {
        State::Processing(claimed) => worker::is_alive(queue, &claimed.pool),
        _ => false,
    }))
}

/// Says what of a recovery a person should know.
struct Quiet;

impl Observer for Quiet {
    fn news(&self, news: News) {
        if let News::Stuck(what) = news {
            say(format_args!("{}", human::plain(&what)));
        }
    }
}

pub(crate) fn retry(context: &Context, ids: &[JobId], all_dead: bool) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    let mut lanes = BTreeSet::new();
    let mut out = stdout();
    if all_dead {
        let count = retry_all(&queue, &mut lanes)?;
        if count == 0 {
            writeln!(out, "The dead letter queue is empty")?;
        } else {
            writeln!(out, "✓ {} will run again", human::count(count, "job"))?;
        }
    } else {
        let done = context.first(&mut queue, |queue| queue.write(|tx| tx.retry(ids)));
        let done = done.map_err(|error| refused(error, "queuectl dlq list"))?;
        for (id, lane) in done {
            lanes.insert(lane);
            writeln!(out, "✓ Job {id} will run again")?;
        }
    }
    out.flush()?;
    tell_runs(&queue, &lanes)?;
    queue.leave();
    Ok(Exit::Done)
}

pub(crate) fn remove(context: &Context, args: &args::Remove) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    let removed = context.first(&mut queue, |queue| queue.write(|tx| tx.remove(&args.ids)));
    let removed = removed.map_err(|error| match &error {
        StoreError::Refused { id, .. } => {
            let next = format!("queuectl cancel {id}    then the same line again");
            refused(error, &next)
        }
        _ => refused(error, "queuectl list"),
    })?;
    let (mut out, mut exit) = (stdout(), Exit::Done);
    for job in removed {
        for (attempt, stream) in job.files {
            let path = output_path(queue.folder(), job.seq, attempt, stream);
            // It may be missing after a power cut.
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                say(format_args!("what job {} wrote could not be deleted: {}: {error}", job.id, human::path(&path)));
                exit = Exit::Other;
            }
        }
        writeln!(out, "✓ Job {} removed", job.id)?;
    }
    out.flush()?;
    queue.leave();
    Ok(exit)
}

/// In transactions of bounded size, oldest death first; as many as were dead at the start, so that one which dies
/// again meanwhile is not retried for ever.
fn retry_all(queue: &Queue, lanes: &mut BTreeSet<LaneId>) -> Result<u64, Failure> {
    let dead = queue.read(|snapshot| Ok(snapshot.counts()?[&StateKind::Dead]))?;
    let mut count = 0;
    while count < dead {
        let limit = usize::try_from(dead - count).unwrap_or(BATCH).min(BATCH);
        let done = queue.write(|tx| {
            let dead = tx.dead(limit)?;
            tx.retry(&dead)
        })?;
        if done.is_empty() {
            break;
        }
        count += done.len() as u64;
        lanes.extend(done.into_iter().map(|(_, lane)| lane));
    }
    Ok(count)
}

/// Jobs of a run wait for that run: its line continues it.
fn tell_runs(queue: &Queue, lanes: &BTreeSet<LaneId>) -> Result<(), Failure> {
    for lane in lanes {
        if let Some(run) = queue.read(|snapshot| snapshot.run(*lane))? {
            say(format_args!(
                "run {} is unfinished now; to continue it, type: {}",
                run.number,
                human::plain(&continue_line(&run))
            ));
        }
    }
    Ok(())
}

fn refused(error: crate::store::StoreError, next: &str) -> Failure {
    let failure = Failure::from(error);
    if failure.next.is_empty() { failure.next(next) } else { failure }
}
