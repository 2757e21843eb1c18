//! A pool's memory with a large queue before it.

use super::Result;
use super::args::Args;
use super::report::{Bar, Report, Row, count};
use super::room::Room;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let (jobs, ended) = (args.size(1_000_000, 2_000), args.size(5_000, 100));
    let room = Room::new(args)?;
    room.fill(jobs + ended)?;
    let mut pool = room.pool(2)?;
    pool.await_jobs(ended)?;
    let peak = pool.process.peak_mib().ok_or("the pool ended")?;
    pool.unread().stop()?;
    let row = Row::new(format!("peak memory of a pool of 2 with {} jobs waiting", count(jobs)), &[peak], "MiB");
    report.row(
        row.bar(Bar::AtMost(64.0)).how(format!("`queuectl worker start --count 2`, VmHWM after {} jobs", count(ended))),
    );
    Ok(())
}
