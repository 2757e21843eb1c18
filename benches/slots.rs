//! Whether many workers are kept busy: of the time between ramp (every worker has started a job) and tail (the last
//! job starts), the share in which their jobs ran.

use std::collections::BTreeMap;

use queuectl::model::Attempt;

use super::Result;
use super::args::Args;
use super::report::{Bar, Report, Row, count};
use super::room::Room;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let many = [(64, "sleep 0.1", "100 ms", 64 * 30), (512, "sleep 1", "1 s", 512 * 6)];
    let few = [(8, "sleep 0.1", "100 ms", 8 * 4), (16, "sleep 0.2", "200 ms", 16 * 4)];
    for (workers, line, long, jobs) in if args.quick { few } else { many } {
        let shares: Result<Vec<f64>> = (0..args.size(3, 1)).map(|_| share(args, workers, line, jobs)).collect();
        let row =
            Row::new(format!("{workers} workers with jobs of {long}: slots busy between ramp and tail"), &shares?, "%");
        report.row(row.bar(Bar::AtLeast(95.0)).how(format!(
            "`queuectl run -j {workers}` of {} lines `{line}`, by the times of its attempts",
            count(jobs)
        )));
    }
    Ok(())
}

fn share(args: &Args, workers: usize, line: &str, jobs: usize) -> Result<f64> {
    let room = Room::new(args)?;
    room.run(workers, &room.lines("jobs.txt", std::iter::repeat_n(line, jobs))?, jobs)?;
    busy(&room.attempts(jobs)?, workers)
}

/// The share of busy slot time, in per cent.
fn busy(attempts: &[Attempt], workers: usize) -> Result<f64> {
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    for attempt in attempts {
        let began = first.entry(attempt.worker.to_string()).or_insert(u64::MAX);
        *began = attempt.started.0.min(*began);
    }
    if first.len() != workers {
        return Err(format!("{} of {workers} workers had a job", first.len()).into());
    }
    let ramp = first.into_values().max().unwrap_or(0);
    let tail = attempts.iter().map(|attempt| attempt.started.0).max().unwrap_or(0);
    let ran: u64 = attempts.iter().map(|a| a.ended.0.min(tail).saturating_sub(a.started.0.max(ramp))).sum();
    Ok(ran as f64 * 100.0 / ((tail - ramp) * workers as u64) as f64)
}
