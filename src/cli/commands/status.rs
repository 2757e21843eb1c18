//! `status`, and `worker list`, which shows a part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use super::super::args;
use super::super::bytes::to_json;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::{human, json};
use super::runs;
use super::watch;
use crate::model::{CLOCK_BEHIND_WORTH_SAYING, Job, JobName, LaneId, Millis, QueueName, Seq, StateKind};
use crate::queue::Queue;
use crate::store::{Asked, PoolInfo, QueueInfo, RunInfo, Serves, StoreError};
use crate::worker::{self, Activity};

/// How much of a command that runs is shown.
const COMMAND_CHARS_MAX: usize = 60;

/// How many of the newest runs are shown, those that have ended included.
const RUNS_SHOWN: usize = 5;

/// What `status` shows, read at one moment.
pub(super) struct Status {
    counts: BTreeMap<StateKind, u64>,
    /// When the next of the jobs that wait for their time is due.
    next_due: Option<Millis>,
    pub(super) pools: Vec<PoolStatus>,
    queues: Vec<QueueInfo>,
    /// Those that have jobs to go.
    runs: Vec<RunInfo>,
    newest_runs: Vec<RunInfo>,
    ended: Vec<PoolInfo>,
    now: Millis,
}

pub(super) struct PoolStatus {
    pub(super) pool: PoolInfo,
    alive: bool,
    /// What it runs.
    running: Vec<(Activity, Job)>,
    /// How many jobs it has claimed.
    claimed: usize,
}

impl Status {
    pub(super) fn read(queue: &Queue) -> Result<Self, StoreError> {
        let mut ended = Vec::new();
        let (counts, next_due, queues, pools, runs, newest_runs) = queue.read(|snapshot| {
            let mut pools = Vec::new();
            for pool in snapshot.pools()? {
                if pool.ended.is_some() {
                    ended.push(pool);
                    continue;
                }
                let held: BTreeSet<(Seq, u64)> =
                    snapshot.leases(&pool.id)?.iter().map(|held| (held.token.seq(), held.token.lease().0)).collect();
                let mut running = Vec::new();
                for activity in worker::activity(queue, &pool.id) {
                    // The board may be ahead of this snapshot, or behind it.
                    if !held.contains(&(activity.seq, activity.lease)) {
                        continue;
                    }
                    if let Some(job) = snapshot.job(activity.seq)? {
                        running.push((activity, job));
                    }
                }
                let alive = worker::is_alive(queue, &pool.id);
                pools.push(PoolStatus { pool, alive, running, claimed: held.len() });
            }
            let (counts, queues) = (snapshot.counts()?, snapshot.queues()?);
            let (runs, newest_runs) = (snapshot.unfinished_runs()?, snapshot.newest_runs(RUNS_SHOWN)?);
            Ok((counts, snapshot.next_due()?, queues, pools, runs, newest_runs))
        })?;
        Ok(Self { counts, next_due, queues, pools, runs, newest_runs, ended, now: queue.clock().now() })
    }

    pub(super) fn write(&self, queue: &Queue, is_json: bool, out: &mut impl Write) -> Result<(), Failure> {
        if is_json {
            writeln!(out, "{}", self.json(queue))?;
            return Ok(());
        }
        show(queue, self, out)
    }

    pub(super) fn json(&self, queue: &Queue) -> Value {
        let workers: Vec<Value> = self.pools.iter().filter(|pool| pool.alive).flat_map(workers_json).collect();
        let runs =
            |runs: &[RunInfo]| -> Value { runs.iter().map(|run| json::run(run, self.worker_of(run.lane))).collect() };
        json!({
            "queue_path": to_json(queue.folder().as_os_str().as_bytes()),
            "total": self.counts.values().sum::<u64>(),
            "jobs": json::counts(&self.counts),
            "next_due_at": self.next_due.map(json::time),
            "queues": self.queues.iter().map(json::queue).collect::<Vec<_>>(),
            "workers": workers,
            "runs": runs(&self.runs),
            "recent_runs": runs(&self.newest_runs),
        })
    }

    /// A living pool that works on a run.
    fn worker_of(&self, run: LaneId) -> Option<&PoolInfo> {
        let works = |pool: &&PoolStatus| pool.alive && pool.pool.serves == Serves::Run(run);
        self.pools.iter().find(works).map(|pool| &pool.pool)
    }

    /// All pools that are remembered.
    fn known_pools(&self) -> Vec<PoolInfo> {
        self.pools.iter().map(|pool| &pool.pool).chain(&self.ended).cloned().collect()
    }
}

pub(crate) fn status(context: &Context, args: &args::Status) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    if queue.clock().ahead() > CLOCK_BEHIND_WORTH_SAYING {
        let ahead = human::about(queue.clock().ahead());
        say(format_args!("the newest time in the queue is {ahead} ahead of the clock: waiting times follow the queue"));
    }
    if let Some(run) = args.run {
        runs::status(&queue, run, args.json)?;
        queue.leave();
        return Ok(Exit::Done);
    }
    if args.watch {
        return watch::watch(queue, args.json);
    }
    let status = Status::read(&queue)?;
    let mut out = stdout();
    status.write(&queue, args.json, &mut out)?;
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

fn show(queue: &Queue, status: &Status, out: &mut impl Write) -> Result<(), Failure> {
    let bold = anstyle::Style::new().bold();
    writeln!(out, "{bold}Queue Status{bold:#}   {}", human::path(queue.folder()))?;
    for kind in StateKind::ALL {
        let style = human::style(kind);
        let count = status.counts.get(&kind).copied().unwrap_or_default();
        let note = match kind {
            StateKind::Processing => claimed_ahead(status, count),
            StateKind::Scheduled => held(status),
            _ => String::new(),
        };
        writeln!(out, "  {style}{:<12}{style:#}{count:>9}{note}", kind.name())?;
    }
    writeln!(out, "  {:<12}{:>9}", "Total", status.counts.values().sum::<u64>())?;
    if let Some(due) = status.next_due {
        writeln!(out, "\nThe next job that waits for its time is due {}", human::until(due, status.now))?;
    }
    show_queues(status, out)?;
    show_pools(queue, status, out)?;
    show_runs(status, out)
}

/// Jobs that a person holds back.
fn held(status: &Status) -> String {
    match status.queues.iter().map(|queue| queue.held).sum() {
        0_u64 => String::new(),
        held => format!("   {held} held"),
    }
}

/// Jobs that a pool holds but has not started yet.
fn claimed_ahead(status: &Status, processing: u64) -> String {
    let running = status.pools.iter().map(|pool| pool.running.len() as u64).sum::<u64>();
    match processing.saturating_sub(running) {
        0 => String::new(),
        ahead => format!("   {running} running, {ahead} claimed"),
    }
}

/// The queues with what has not ended in them, where that is more than the counts above say.
fn show_queues(status: &Status, out: &mut impl Write) -> Result<(), Failure> {
    let is_plain = |queue: &QueueInfo| queue.name == QueueName::default_queue() && !queue.paused;
    if status.queues.iter().all(|queue| is_plain(queue) && queue.parallel.is_none()) {
        return Ok(());
    }
    let mut table = human::table(&["QUEUE", "WAITING", "PROCESSING", "LIMIT", ""]);
    for queue in &status.queues {
        table.add_row(human::row([
            queue.name.to_string(),
            queue.waiting().to_string(),
            queue.processing().to_string(),
            queue.parallel.map_or_else(String::new, |limit| limit.to_string()),
            if queue.paused { "paused".to_owned() } else { String::new() },
        ]));
    }
    writeln!(out, "\n{table}")?;
    let mut waiting = status.queues.iter().filter(|queue| queue.paused && queue.unfinished() > 0);
    match (waiting.next(), waiting.next()) {
        (None, _) => {}
        (Some(one), None) => {
            writeln!(out, "  to let what is paused go on, type: queuectl resume --queue {}", one.name)?;
        }
        (Some(_), Some(_)) => writeln!(out, "  to let what is paused go on, type: queuectl resume")?,
    }
    Ok(())
}

fn show_pools(queue: &Queue, status: &Status, out: &mut impl Write) -> Result<(), Failure> {
    let (alive, dead): (Vec<_>, Vec<_>) = status.pools.iter().partition(|pool| pool.alive);
    if alive.is_empty() {
        writeln!(out, "\nNo pool is running")?;
        let waiting: u64 = [StateKind::Pending, StateKind::Failed, StateKind::Scheduled]
            .iter()
            .filter_map(|kind| status.counts.get(kind))
            .sum();
        let of_runs: u64 = status.runs.iter().map(RunInfo::unfinished).sum();
        let held: u64 = status.queues.iter().map(|queue| queue.held).sum();
        if waiting > of_runs + held {
            writeln!(out, "  to run what waits, type: queuectl worker start")?;
        }
    }
    for pool in alive {
        writeln!(out, "\n{}", pool_line(&pool.pool, status.now))?;
        for (activity, job) in &pool.running {
            let since = human::about(status.now.since(activity.started));
            let called = human::called(job.id.as_str(), job.name.as_ref());
            let marks = Some(human::marks(job)).filter(|marks| !marks.is_empty());
            let marks = marks.map(|marks| format!("  [{}]", human::cut(&marks, 40))).unwrap_or_default();
            let command = human::cut(&human::plain(&job.command.to_string()), COMMAND_CHARS_MAX);
            writeln!(out, "  {:<10} {called}  {since}{marks}  {command}", activity.worker.to_string())?;
        }
        let idle = (pool.pool.workers as usize).saturating_sub(pool.running.len());
        if idle > 0 {
            writeln!(out, "  {idle} idle")?;
        }
    }
    for pool in dead {
        show_dead_pool(queue, pool, out)?;
    }
    Ok(())
}

/// A dead pool with what keeps its jobs from running again, if anything does.
fn show_dead_pool(queue: &Queue, pool: &PoolStatus, out: &mut impl Write) -> Result<(), Failure> {
    let (id, pid) = (&pool.pool.id, pool.pool.pid);
    let jobs = human::count(pool.claimed as u64, "job");
    let obstacles = worker::obstacles(queue, &pool.pool).unwrap_or_default();
    let fate = if obstacles.is_empty() { "will run again when a pool starts" } else { "cannot run again yet" };
    writeln!(out, "\nPool {id} (process {pid}) died; its {jobs} {fate}")?;
    for obstacle in obstacles {
        writeln!(out, "  {}", human::plain(&obstacle))?;
    }
    Ok(())
}

fn pool_line(pool: &PoolInfo, now: Millis) -> String {
    let workers = human::count(u64::from(pool.workers), "worker");
    let since = human::about(now.since(pool.started));
    let stopping = if pool.asked == Asked::Work { "" } else { ", stopping" };
    format!("Pool {} (process {}): {workers} for {}, since {since}{stopping}", pool.id, pool.pid, queues(&pool.serves))
}

fn queues(serves: &Serves) -> String {
    match serves {
        Serves::AllQueues => "all queues".to_owned(),
        Serves::Queues(names) => names.iter().map(QueueName::as_str).collect::<Vec<_>>().join(", "),
        Serves::Run(_) => "a run".to_owned(),
    }
}

fn show_runs(status: &Status, out: &mut impl Write) -> Result<(), Failure> {
    for run in &status.runs {
        let (left, total) = (run.unfinished(), run.total());
        if let Some(pool) = status.worker_of(run.lane) {
            let (number, jobs) = (run.number, human::count(total, "job"));
            writeln!(out, "\nRun {number}, by process {}: {left} of {jobs} to go", pool.pid)?;
        } else {
            writeln!(out, "\nRun {} {}", run.number, runs::unfinished(run, &status.known_pools()))?;
            writeln!(out, "  to continue it, type: {}", human::plain(&runs::continue_line(run)))?;
        }
    }
    let mut ended = status.newest_runs.iter().filter(|run| run.unfinished() == 0).peekable();
    if ended.peek().is_some() {
        writeln!(out)?;
    }
    for run in ended {
        let (line, since) = (human::plain(&run.line), human::ago(run.created, status.now));
        writeln!(out, "Run {} ended: {}   began {since}   {line}", run.number, runs::counts(run))?;
    }
    Ok(())
}

/// A word as a shell takes it.
pub(crate) fn shell_word(word: &str) -> String {
    crate::model::Command::Argv(vec![word.as_bytes().to_vec()]).to_string()
}

/// A line for each worker of a pool, the idle ones with no job.
fn workers_json(status: &PoolStatus) -> Vec<Value> {
    let pool = &status.pool;
    // Those that are one too many, as long as they run something.
    let busy = status.running.iter().map(|(activity, _)| activity.worker.slot + 1).max().unwrap_or_default();
    (0..pool.workers.max(busy))
        .map(|slot| {
            let job = status.running.iter().find(|(activity, _)| activity.worker.slot == slot);
            json!({
                "id": format!("{}.{slot}", pool.id),
                "pool": pool.id.as_str(),
                "pid": pool.pid,
                "started_at": json::time(pool.started),
                "job": job.map(|(_, job)| job.id.as_str()),
                "name": job.and_then(|(_, job)| job.name.as_ref()).map(JobName::as_str),
                "queue": job.map(|(_, job)| job.queue.as_str()),
                "priority": job.map(|(_, job)| job.priority),
                "tags": job.map(|(_, job)| json::tags(&job.tags)),
            })
        })
        .collect()
}

pub(crate) fn worker_list(context: &Context, args: &args::Json) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let status = Status::read(&queue)?;
    let mut out = stdout();
    let alive: Vec<&PoolStatus> = status.pools.iter().filter(|pool| pool.alive).collect();
    if args.json {
        let living = alive.iter().map(|pool| json::pool(&pool.pool, &queues(&pool.pool.serves), pool.running.len()));
        let ended = status.ended.iter().map(|pool| json::pool(pool, &queues(&pool.serves), 0));
        writeln!(out, "{}", living.chain(ended).collect::<Value>())?;
    } else if alive.is_empty() {
        writeln!(out, "No pool is running")?;
    } else {
        let mut table = human::table(&["POOL", "PROCESS", "WORKERS", "RUNNING", "SERVES", "SINCE", "LOG"]);
        for pool in alive {
            let info = &pool.pool;
            table.add_row(human::row([
                info.id.to_string(),
                info.pid.to_string(),
                info.workers.to_string(),
                pool.running.len().to_string(),
                queues(&info.serves),
                human::ago(info.started, status.now),
                info.log.as_deref().map(human::plain).unwrap_or_default(),
            ]));
        }
        writeln!(out, "{table}")?;
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}
