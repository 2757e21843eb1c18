//! Looking at a large queue, as whole processes.

use super::Result;
use super::args::Args;
use super::process::timed;
use super::report::{Bar, Report, Row, count};
use super::room::{Room, ms};

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let jobs = args.size(1_000_000, 2_000);
    let room = Room::new(args)?;
    room.fill(jobs)?;
    for line in ["status", "list --limit 50"] {
        let times: Result<Vec<f64>> = (0..args.size(20, 2)).map(|_| Ok(ms(timed(&mut room.queuectl(line))?))).collect();
        let row = Row::new(format!("`{line}` with {} jobs", count(jobs)), &times?, "ms");
        report.row(row.bar(Bar::AtMost(10.0)).how(format!("`queuectl {line}`, from its start to its end")));
    }
    Ok(())
}
