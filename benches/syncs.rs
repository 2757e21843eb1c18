//! What durability costs: how often a batch waits for the disk, and what a slow disk makes of it.
//!
//! fdatasync, fsync, `sync_file_range` and msync are counted and slowed by a library that is preloaded into queuectl
//! alone, not into its jobs. All of queuectl's calls go through the C library.

use super::Result;
use super::args::Args;
use super::preload::Counts;
use super::process::timed;
use super::report::{Bar, Report, Row, number};
use super::room::Room;
use super::statistics::Pairs;

/// A slow disk: a hard disk, or a consumer's SSD.
const SLOW_MS: u64 = 5;

/// Jobs/s of a batch with the preload, and how many calls it made.
fn run(args: &Args, jobs: usize, slow_ms: u64) -> Result<(f64, f64)> {
    let room = Room::new(args)?;
    let file = room.lines("jobs.txt", std::iter::repeat_n("true", jobs))?;
    let mut command = room.queuectl("run -j 2 --quiet");
    let counts = Counts::of(command.arg(file), room.path(), slow_ms)?;
    let took = timed(&mut command)?;
    room.is_done(jobs)?;
    Ok((jobs as f64 / took.as_secs_f64(), counts.sum()?))
}

pub fn count(args: &Args, report: &mut Report) -> Result<()> {
    let jobs = args.size(5_000, 50);
    let counted: Result<Vec<f64>> = (0..args.pairs()).map(|_| Ok(run(args, jobs, 0)?.1 / jobs as f64)).collect();
    let row = Row::new(
        format!("fdatasync and the like in a `run` of {} `true`, 2 workers", number(jobs as f64)),
        &counted?,
        "a job",
    );
    report.row(row.bar(Bar::AtMost(0.08)).how("`queuectl run -j 2 --quiet jobs.txt`, the calls counted by a preload"));
    Ok(())
}

pub fn slow_disk(args: &Args, report: &mut Report) -> Result<()> {
    let jobs = args.size(5_000, 50);
    let pairs = Pairs::take(args.pairs(), || Ok(run(args, jobs, SLOW_MS)?.0), || Ok(run(args, jobs, 0)?.0))?;
    report.row(
        Row::ratio(
            format!(
                "`run` of {} `true` with fdatasync slowed by {SLOW_MS} ms, against the disk as it is",
                number(jobs as f64)
            ),
            &pairs,
            "jobs/s",
        )
        .bar(Bar::AtLeast(0.8))
        .how("`queuectl run -j 2 --quiet jobs.txt`, the calls slowed by a preload"),
    );
    Ok(())
}
