//! `cancel`, `retry`, `dlq retry` and `remove`: of jobs by their ids in one transaction, all or none; of those that a
//! filter lets through in pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::selected;
use super::many::{Many, Verb};
use super::runs::continue_line;
use super::show::{called, find};
use super::wait::ring;
use crate::model::{Filter, JobId, LaneId, State, StateKind};
use crate::queue::Queue;
use crate::store::{Cancelled, Removed, StoreError, Terms, Tx};
use crate::worker::{self, Bell, News, Observer, delete_outputs};

const CANCEL: Verb = Verb::new(["cancels", "cancelled", "that ended before"], &NOT_ENDED, &NOT_ENDED);
const RETRY: Verb =
    Verb::new(["retries", "retried", "neither dead nor cancelled"], &FAILED_FOR_GOOD, &StateKind::ENDED);
const REMOVE: Verb = Verb::new(["removes", "removed", "yet to end"], &StateKind::ENDED, &StateKind::ENDED);

const NOT_ENDED: [StateKind; 5] =
    [StateKind::Scheduled, StateKind::Blocked, StateKind::Pending, StateKind::Processing, StateKind::Failed];
/// What is run again if nothing is said about states.
const FAILED_FOR_GOOD: [StateKind; 2] = [StateKind::Dead, StateKind::Cancelled];

/// What became of a job that was to be cancelled.
enum End {
    Cancelled,
    Completed,
    Removed,
}

pub(crate) fn cancel(context: &Context, args: &args::Cancel) -> Result<Exit, Failure> {
    if !args.jobs.are_named() {
        return Err(selected::unsaid("cancel", "--state pending"));
    }
    let mut queue = context.open()?;
    let mut bell = Bell::new(queue.folder())?;
    let mut out = stdout();
    if args.jobs.filters.are_given() {
        cancel_many(&queue, &mut bell, args, &mut out)?;
    } else {
        let done = context.first(&mut queue, |queue| queue.write_and_settle(|tx| tx.cancel(&args.jobs.ids)));
        let done = done.map_err(|error| refused(error, "queuectl list"))?;
        for (id, how) in done {
            match end_of(&queue, &mut bell, &id, how)? {
                End::Cancelled => writeln!(out, "✓ Job {} cancelled", called(&queue, &id))?,
                End::Completed => {
                    writeln!(out, "Job {} completed before it could be cancelled", called(&queue, &id))?;
                }
                End::Removed => writeln!(out, "Job {id} ended and was removed")?,
            }
        }
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

fn cancel_many(queue: &Queue, bell: &mut Bell, args: &args::Cancel, out: &mut impl Write) -> Result<(), Failure> {
    let filter = args.jobs.filters.resolve(queue)?;
    let mut many = Many::find(queue, CANCEL, &filter)?;
    many.confirm(args.jobs.yes)?;
    let mut asked = Vec::new();
    let count = many.each(
        queue,
        |ids, tx| tx.cancel(ids),
        |done| asked.extend(done.into_iter().filter(|(_, how)| *how == Cancelled::Asked).map(|(id, _)| id)),
    )?;
    let mut escaped = 0;
    for id in asked {
        escaped += u64::from(!matches!(end_of(queue, bell, &id, Cancelled::Asked)?, End::Cancelled));
    }
    many.leave_out(escaped);
    writeln!(out, "{}", many.told(count - escaped, "cancelled"))?;
    many.tell_left_out();
    Ok(())
}

/// Waits for the end of a job that is being cancelled, if it has to be ended first.
fn end_of(queue: &Queue, bell: &mut Bell, id: &JobId, how: Cancelled) -> Result<End, Failure> {
    if how == Cancelled::Done {
        return Ok(End::Cancelled);
    }
    Ok(match await_end(queue, bell, id)? {
        Some(StateKind::Completed) => End::Completed,
        None => End::Removed,
        Some(_) => End::Cancelled,
    })
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
                queue.settle()?;
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

/// What is to be retried.
enum Chosen<'a> {
    Ids(&'a [JobId]),
    /// With whether nobody needs to be asked.
    Filter(Filter, bool),
    AllDead,
}

pub(crate) fn retry(context: &Context, args: &args::Retry) -> Result<Exit, Failure> {
    if !args.jobs.are_named() && !args.all_dead {
        return Err(selected::unsaid("retry", "--all-dead"));
    }
    let queue = context.open()?;
    let chosen = if args.all_dead {
        Chosen::AllDead
    } else if args.jobs.filters.are_given() {
        Chosen::Filter(args.jobs.filters.resolve(&queue)?, args.jobs.yes)
    } else {
        Chosen::Ids(&args.jobs.ids)
    };
    retry_chosen(context, queue, chosen, &args.terms)
}

pub(crate) fn dlq_retry(context: &Context, args: &args::DlqRetry) -> Result<Exit, Failure> {
    if args.ids.is_empty() && !args.all && !args.which.is_given() {
        return Err(selected::unsaid("dlq retry", "--all"));
    }
    let queue = context.open()?;
    let chosen = if args.all {
        Chosen::AllDead
    } else if args.which.is_given() {
        Chosen::Filter(Filter { states: [StateKind::Dead].into(), ..args.which.resolve(&queue)? }, args.yes)
    } else {
        Chosen::Ids(&args.ids)
    };
    retry_chosen(context, queue, chosen, &args.terms)
}

fn retry_chosen(context: &Context, mut queue: Queue, chosen: Chosen<'_>, terms: &args::Terms) -> Result<Exit, Failure> {
    let terms = Terms { max_retries: terms.max_retries, timeout: terms.timeout };
    let (mut lanes, mut out) = (BTreeSet::new(), stdout());
    let (filter, is_sure) = match chosen {
        Chosen::Ids(ids) => {
            let done = context.first(&mut queue, |queue| queue.write_and_settle(|tx| tx.retry(ids, &terms)));
            let done = done.map_err(|error| not_retried(&queue, error))?;
            for (id, lane) in done {
                lanes.insert(lane);
                writeln!(out, "✓ Job {} will run again", called(&queue, &id))?;
            }
            out.flush()?;
            tell_runs(&queue, &lanes)?;
            queue.leave();
            return Ok(Exit::Done);
        }
        Chosen::Filter(filter, is_sure) => (filter, is_sure),
        Chosen::AllDead => (Filter::of_states([StateKind::Dead]), true),
    };
    let mut many = Many::find(&queue, RETRY, &filter)?;
    many.confirm(is_sure)?;
    let retry = |ids: &[JobId], tx: &mut Tx<'_>| tx.retry(ids, &terms);
    let count = many.each(&queue, retry, |done| lanes.extend(done.into_iter().map(|(_, lane)| lane)))?;
    writeln!(out, "{}", many.told(count, "will run again"))?;
    out.flush()?;
    many.tell_left_out();
    tell_runs(&queue, &lanes)?;
    queue.leave();
    Ok(Exit::Done)
}

pub(crate) fn remove(context: &Context, args: &args::Remove) -> Result<Exit, Failure> {
    if !args.jobs.are_named() {
        return Err(selected::unsaid("remove", "--state completed"));
    }
    let mut queue = context.open()?;
    // So that what is left to be told is little.
    context.first(&mut queue, Queue::settle)?;
    let (mut out, mut exit) = (stdout(), Exit::Done);
    if args.jobs.filters.are_given() {
        let mut many = Many::find(&queue, REMOVE, &args.jobs.filters.resolve(&queue)?)?;
        many.confirm(args.jobs.yes)?;
        let count = many.each(
            &queue,
            |ids, tx| tx.remove(ids),
            |removed| removed.iter().for_each(|job| delete_files(&queue, job, &mut exit)),
        )?;
        writeln!(out, "{}", many.told(count, "removed"))?;
        many.tell_left_out();
    } else {
        // Afterwards nobody knows their names.
        let ids = &args.jobs.ids;
        let names: BTreeMap<&JobId, String> = ids.iter().map(|id| (id, called(&queue, id))).collect();
        let removed = context.first(&mut queue, |queue| queue.write(|tx| tx.remove(ids)));
        let removed = removed.map_err(|error| match &error {
            StoreError::Refused { id, .. } => {
                let next = format!("queuectl cancel {id}    then the same line again");
                refused(error, &next)
            }
            _ => refused(error, "queuectl list"),
        })?;
        for job in removed {
            delete_files(&queue, &job, &mut exit);
            writeln!(out, "✓ Job {} removed", names.get(&job.id).map_or(job.id.as_str(), String::as_str))?;
        }
    }
    out.flush()?;
    queue.leave();
    Ok(exit)
}

/// Deletes what a removed job wrote.
fn delete_files(queue: &Queue, job: &Removed, exit: &mut Exit) {
    for (path, error) in delete_outputs(queue.folder(), job.seq, &job.files) {
        say(format_args!("what job {} wrote could not be deleted: {}: {error}", job.id, human::path(&path)));
        *exit = Exit::Other;
    }
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

/// Why a job cannot be retried, and what is right for one that is where it is.
fn not_retried(queue: &Queue, error: StoreError) -> Failure {
    let StoreError::Refused { id, refusal } = &error else { return refused(error, "queuectl list --state dead") };
    let (id, state) = (id.clone(), refusal.state);
    let job = find(queue, &id).ok().and_then(|seq| queue.read(|snapshot| snapshot.job(seq)).ok().flatten());
    let failure = Failure::from(error);
    match state {
        _ if job.is_some_and(|job| job.progress.state.is_held()) => {
            failure.and("it is held").next(format_args!("queuectl resume {id}"))
        }
        StateKind::Scheduled => failure.next(format_args!("queuectl edit {id} --delay 0s    starts it now")),
        StateKind::Failed => failure.next(format_args!("queuectl edit {id} --delay 0s    tries it again now")),
        StateKind::Processing => {
            failure.next(format_args!("queuectl cancel {id}    ends it, then the same line again"))
        }
        _ => failure.next(format_args!("queuectl show {id}    tells why it does not run now")),
    }
}

fn refused(error: crate::store::StoreError, next: &str) -> Failure {
    let failure = Failure::from(error);
    if failure.next.is_empty() { failure.next(next) } else { failure }
}
