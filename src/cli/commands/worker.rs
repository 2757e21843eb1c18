//! `worker start`, `worker stop` and `worker scale`.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::args;
use super::super::context::{Context, REPLACED_MAX, say, stdout};
use super::super::detach;
use super::super::exit::{Exit, Failure};
use super::super::journal::Journal;
use super::super::render::human;
use super::wait::ring;
use crate::model::PoolId;
use crate::queue::{Folder, Queue};
use crate::store::{Asked, PoolInfo, Serves, Snapshot, StoreError};
use crate::worker::{self, Bell, News, Observer, Pool, PoolEnd, PoolError, PoolOptions};

/// How long `worker stop` waits for the process of a pool that has ended.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn start(context: &Context, args: &args::WorkerStart) -> Result<Exit, Failure> {
    // A queue that nobody named is made by what fills it: a pool with nothing to do would hide the mistake.
    let queue = if context.is_given() { context.open_or_create()? } else { context.open()? };
    if args.detach {
        queue.leave();
        return detach::start(context.folder_path(), args);
    }
    let serves = if args.queues.is_empty() { Serves::AllQueues } else { Serves::Queues(args.queues.clone()) };
    let log = args.detached.then(|| detach::log_path(queue.folder()));
    let journal = Arc::new(match &log {
        Some(path) => Journal::to_file(path)?,
        None => Journal::to_terminal()?,
    });
    let options = PoolOptions { workers: args.count, serves, until_empty: args.until_empty, log };
    let pool = start_pool(context, queue, &options, &(Arc::clone(&journal) as _), |_| Ok(true))?;
    let workers = human::count(args.count as u64, "worker");
    if args.detached {
        detach::tell_ready(pool.id())?;
    }
    journal.note(&format!("pool {} started: {workers}; Ctrl-C or `queuectl worker stop` ends it", pool.id()));
    let end = pool.run();
    match &end {
        Ok(PoolEnd::Stopped) => journal.note("pool stopped"),
        Ok(PoolEnd::Empty) => journal.note(&match left(context) {
            Left { paused: 0, all: 0 } => "pool ended: nothing is left to do".to_owned(),
            Left { paused, all } if paused == all => {
                format!("pool ended: what is left is paused ({}; see queuectl status)", human::count(paused, "job"))
            }
            Left { all, .. } => {
                let jobs = human::count(all, "job");
                format!("pool ended: what is left is not for this pool ({jobs}; see queuectl status)")
            }
        }),
        Err(error) => journal.note(&format!("pool ended: {}", human::plain(&error.to_string()))),
    }
    journal.close();
    end?;
    Ok(if args.until_empty && journal.deaths() > 0 { Exit::JobsFailed } else { Exit::Done })
}

/// Starts a pool; with what took the queue's place if it was replaced since it was opened, and is still what the pool is
/// for.
pub(crate) fn start_pool(
    context: &Context,
    mut queue: Queue,
    options: &PoolOptions,
    observer: &Arc<dyn Observer>,
    is_still_it: impl Fn(&Queue) -> Result<bool, StoreError>,
) -> Result<Pool, PoolError> {
    for _ in 0..REPLACED_MAX {
        match Pool::start(queue, options.clone(), Arc::clone(observer)) {
            Err(PoolError::Store(StoreError::Replaced)) => queue = context.open_anew()?,
            started => return started,
        }
        if !is_still_it(&queue)? {
            break;
        }
    }
    Err(StoreError::Replaced.into())
}

/// How many jobs have not ended when a pool has nothing left to do.
#[derive(Default)]
struct Left {
    /// Those of paused queues, those that are held, and those that wait for such.
    paused: u64,
    /// All: those of queues that the pool does not serve, and of runs, too.
    all: u64,
}

fn left(context: &Context) -> Left {
    let Ok(Some(folder)) = Folder::existing(context.folder_path()) else { return Left::default() };
    let found = Queue::open_read_only(&folder, Box::new(|| {})).and_then(|queue| {
        let found = queue.read(|snapshot| Ok((snapshot.queues()?, snapshot.counts()?)));
        queue.leave();
        found
    });
    // It is only for a line of talk: an error is told by the next command.
    let (queues, counts) = found.unwrap_or_default();
    Left {
        paused: queues.iter().map(|queue| queue.unfinished() - queue.moving()).sum(),
        all: counts.into_iter().filter(|(kind, _)| !kind.has_ended()).map(|(_, count)| count).sum(),
    }
}

pub(crate) fn stop(context: &Context, args: &args::WorkerStop) -> Result<Exit, Failure> {
    let mut queue = context.open()?;
    let mut bell = Bell::new(queue.folder())?;
    let asked = if args.now { Asked::StopNow } else { Asked::Stop };
    let (runs, pools): (Vec<_>, Vec<_>) =
        living(&queue)?.into_iter().partition(|pool| matches!(pool.serves, Serves::Run(_)));
    for pool in &runs {
        say(format_args!("leaving the run of process {} alone; to stop it, type: kill -INT {}", pool.pid, pool.pid));
    }
    let mut out = stdout();
    if pools.is_empty() {
        context.first(&mut queue, |queue| worker::recover(queue, &Silent))?;
        writeln!(out, "{}", if runs.is_empty() { "No pool is running" } else { "No other pool is running" })?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    queue.write(|tx| pools.iter().try_for_each(|pool| tx.ask(&pool.id, asked).map(drop)))?;
    let ids: BTreeSet<PoolId> = pools.iter().map(|pool| pool.id.clone()).collect();
    await_gone(&queue, &mut bell, &ids, args)?;
    // They have nothing left to do but to exit.
    for pool in &pools {
        worker::await_exit(pool.pid, EXIT_PATIENCE);
    }
    writeln!(out, "✓ {} stopped", human::count(pools.len() as u64, "pool"))?;
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

pub(crate) fn scale(context: &Context, args: &args::WorkerScale) -> Result<Exit, Failure> {
    let queue = context.open()?;
    let pools = living(&queue)?;
    let pool = match &args.pool {
        Some(named) => pools.iter().find(|pool| pool.id == *named).ok_or_else(|| no_pool(named, &pools))?,
        None => match pools.as_slice() {
            [] => return Err(Failure::new(Exit::NotFound, "no pool is running").next("queuectl worker start")),
            [pool] => pool,
            [..] => {
                let message = format!("say which pool: {} are running", names(&pools));
                return Err(Failure::new(Exit::Usage, message)
                    .next(format_args!("queuectl worker scale {} {}", args.count, pools[0].id)));
            }
        },
    };
    let workers = u32::try_from(args.count).unwrap_or(u32::MAX);
    let before = queue.write(|tx| tx.scale(&pool.id, workers))?.ok_or_else(|| no_pool(&pool.id, &[]))?;
    let mut out = stdout();
    if args.json {
        writeln!(out, "{}", json!({"pool": pool.id.as_str(), "workers": workers, "workers_before": before}))?;
    } else {
        let before = if before == workers { "as before".to_owned() } else { format!("{before} before") };
        writeln!(out, "✓ Pool {}: {}, {before}", pool.id, human::count(args.count as u64, "worker"))?;
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

fn no_pool(named: &PoolId, pools: &[PoolInfo]) -> Failure {
    let message = match pools {
        [] => format!("there is no pool {named}"),
        [_] => format!("there is no pool {named}; {} is running", names(pools)),
        [..] => format!("there is no pool {named}; {} are running", names(pools)),
    };
    Failure::new(Exit::NotFound, message).next("queuectl worker list")
}

fn names(pools: &[PoolInfo]) -> String {
    pools.iter().map(|pool| pool.id.as_str()).collect::<Vec<_>>().join(", ")
}

fn living(queue: &Queue) -> Result<Vec<PoolInfo>, Failure> {
    let pools = queue.read(Snapshot::pools)?;
    Ok(pools.into_iter().filter(|pool| pool.ended.is_none() && worker::is_alive(queue, &pool.id)).collect())
}

fn await_gone(queue: &Queue, bell: &mut Bell, ids: &BTreeSet<PoolId>, args: &args::WorkerStop) -> Result<(), Failure> {
    let deadline = args.timeout.map(|timeout| queue.clock().elapsed() + timeout);
    let mut said = false;
    loop {
        let left: Vec<PoolInfo> = living(queue)?.into_iter().filter(|pool| ids.contains(&pool.id)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let running: usize = left.iter().map(|pool| worker::activity(queue, &pool.id).len()).sum();
        if !said && running > 0 && !args.now {
            said = true;
            let jobs = human::count(running as u64, "job");
            say(format_args!("waiting for {jobs} to finish; to end them, type: queuectl worker stop --now"));
        }
        if !ring(queue, bell, deadline)? {
            let message = format!("timed out; {} still running", human::count(left.len() as u64, "pool"));
            return Err(Failure::new(Exit::TimedOut, message).next("queuectl worker stop --now"));
        }
    }
}

struct Silent;

impl Observer for Silent {
    fn news(&self, _: News) {}
}
