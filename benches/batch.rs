//! A batch in one go, against `xargs -P`.

use std::path::Path;

use super::Result;
use super::args::Args;
use super::process::{program, timed};
use super::report::{Bar, Report, Row, count};
use super::room::Room;
use super::statistics::Pairs;

/// How the other side is run.
pub const XARGS: &str = "xargs -P{workers} -I{} sh -c '{}'";

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let jobs = args.size(5_000, 50);
    for (workers, line, bar) in [(2, "true", 1.2), (4, "true", 1.2), (2, "true; true", 1.05)] {
        let ours = || {
            let room = Room::new(args)?;
            room.run(workers, &room.lines("jobs.txt", std::iter::repeat_n(line, jobs))?, jobs)
        };
        let theirs = || {
            let room = Room::new(args)?;
            xargs(workers, &room, &room.lines("jobs.txt", std::iter::repeat_n(line, jobs))?, jobs)
        };
        let pairs = Pairs::take(args.pairs(), ours, theirs)?;
        let xargs = XARGS.replace("{workers}", &workers.to_string());
        report.row(
            Row::ratio(
                format!("`run` of {} lines `{line}`, {workers} workers, against xargs", count(jobs)),
                &pairs,
                "jobs/s",
            )
            .bar(Bar::AtLeast(bar))
            .how(format!("`queuectl run -j {workers} --quiet jobs.txt`, `{xargs} < jobs.txt`")),
        );
    }
    Ok(())
}

/// Jobs/s of xargs on a file of commands.
pub fn xargs(workers: usize, room: &Room, file: &Path, jobs: usize) -> Result<f64> {
    let mut command = program("xargs", room.path());
    command.arg(format!("-P{workers}")).args(["-I{}", "sh", "-c", "{}"]).stdin(std::fs::File::open(file)?);
    Ok(jobs as f64 / timed(&mut command)?.as_secs_f64())
}
