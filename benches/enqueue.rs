//! One `enqueue`, as a whole process: beside a pool that is idle, and beside one that works flat out.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Result;
use super::args::Args;
use super::peers::Tsp;
use super::preload::Counts;
use super::process::{text, timed};
use super::report::{Bar, Report, Row};
use super::room::{Room, ms};
use super::statistics::{Pairs, quantile};

const HOW: &str = "`queuectl enqueue -c true`, from its start to its end";

/// Its server lets nobody in when it has about 1,000 jobs, as each of them holds a connection.
const BACKLOG_OF_TSP: usize = 800;

/// Between two enqueues beside an idle pool, so that the end of one's job is committed when the next begins.
const UNTIL_IDLE: Duration = Duration::from_millis(60);

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    beside_idle(args, report)?;
    beside_busy(args, report)
}

fn beside_idle(args: &Args, report: &mut Report) -> Result<()> {
    let room = Room::new(args)?;
    text(&mut room.queuectl("enqueue -c true"))?;
    let _pool = room.pool(2)?.unread();
    let times = args.size(40, 3);
    let tsp = Tsp::start(args, room.path(), 2)?;
    if let Some(tsp) = &tsp {
        let count = args.pairs() * times;
        let pairs = Pairs::take(
            count,
            || ours(&room, 1, UNTIL_IDLE).map(|t| t[0]),
            || theirs(tsp, room.path(), 1, UNTIL_IDLE).map(|t| t[0]),
        )?;
        report.row(
            Row::ratio("one `enqueue` beside an idle pool, against one `tsp`", &pairs, "ms")
                .bar(Bar::AtMost(2.5))
                .how(format!("{HOW}; `tsp true`; {count} of each in turn, one every {} ms", UNTIL_IDLE.as_millis())),
        );
    } else {
        report.skip("task-spooler is not installed, or left out");
        let row = Row::new("one `enqueue` beside an idle pool", &ours(&room, times, UNTIL_IDLE)?, "ms");
        report.row(row.how(HOW));
    }
    let counted: Result<Vec<f64>> = (0..args.size(20, 3)).map(|_| syncs(&room)).collect();
    let row = Row::new("fdatasync and the like in one `enqueue` beside a pool", &counted?, "calls");
    report.row(row.bar(Bar::AtMost(2.0)).how(format!("{HOW}, the calls counted by a preload")));
    Ok(())
}

fn beside_busy(args: &Args, report: &mut Report) -> Result<()> {
    let (times, backlog) = (args.size(200, 5), args.size(50_000, 3_000));
    let room = Room::new(args)?;
    room.fill(backlog)?;
    let mut pool = room.pool(2)?;
    pool.await_jobs(args.size(500, 10))?;
    let pool = pool.unread();
    let ours = ours(&room, times, Duration::ZERO)?;
    pool.stop()?;
    if room.attempts(backlog)?.len() >= backlog {
        return Err("the pool had nothing to do any more".into());
    }
    for (name, share, bar) in [("median", 0.5, None), ("99 %", 0.99, Some(Bar::AtMost(15.0)))] {
        let row = Row::new(
            format!("one `enqueue` beside a pool of 2 that works flat out, {name}"),
            &[quantile(&ours, share)],
            "ms",
        );
        let row = row.how(format!("{HOW}; {times} of them, one after another"));
        report.row(if let Some(bar) = bar { row.bar(bar) } else { row });
    }
    let room = Room::new(args)?;
    if let Some(tsp) = Tsp::start(args, room.path(), 1)? {
        tsp.work_flat_out(room.path(), args.size(BACKLOG_OF_TSP, 50))?;
        let theirs = theirs(&tsp, room.path(), times, Duration::ZERO)?;
        for (name, share) in [("median", 0.5), ("99 %", 0.99)] {
            let row = Row::new(
                format!("one `tsp` beside its server that works flat out, {name}"),
                &[quantile(&theirs, share)],
                "ms",
            );
            report.row(row.how(format!("`tsp true`, from its start to its end; {times} of them, one after another")));
        }
    }
    Ok(())
}

fn ours(room: &Room, times: usize, pause: Duration) -> Result<Vec<f64>> {
    one_by_one(times, pause, || timed(&mut room.queuectl("enqueue -c true")))
}

fn theirs(tsp: &Tsp, folder: &Path, times: usize, pause: Duration) -> Result<Vec<f64>> {
    one_by_one(times, pause, || timed(tsp.command(folder).arg("true")))
}

fn one_by_one(times: usize, pause: Duration, mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<f64>> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        thread::sleep(pause);
        taken.push(ms(once()?));
    }
    Ok(taken)
}

fn syncs(room: &Room) -> Result<f64> {
    let mut command = room.queuectl("enqueue -c true");
    let counts = Counts::of(&mut command, room.path(), 0)?;
    timed(&mut command)?;
    counts.sum()
}
