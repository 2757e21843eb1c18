//! `enqueue --file`: how fast, in how much memory, and how long others wait meanwhile.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::Result;
use super::args::Args;
use super::process::{Background, text, timed};
use super::report::{Bar, Report, Row, count, number};
use super::room::{Room, ms};
use super::statistics::quantile;

/// How often the memory is looked at. It is the most so far, so what is missed is what the last moment added.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Time between the end of one process that writes meanwhile and the start of the next.
const PAUSE: Duration = Duration::from_millis(20);

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let jobs = args.size(1_000_000, 2_000);
    let what = format!("`enqueue --file` of {} JSON lines", count(jobs));
    let source = Room::new(args)?;
    let file = source.lines("jobs.jsonl", (0..jobs).map(|n| format!(r#"{{"id":"job-{n}","command":"echo {n}"}}"#)))?;
    let (mut rates, mut peaks, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.size(3, 1) {
        let (rate, peak) = alone(&Room::new(args)?, &file, jobs)?;
        rates.push(rate);
        peaks.push(peak);
        waits.extend(meanwhile(&Room::new(args)?, &file, jobs)?);
    }
    let how = r#"`queuectl enqueue --file jobs.jsonl`, lines `{"id":"job-1","command":"echo 1"}`"#;
    report.row(Row::new(what.clone(), &rates, "jobs/s").bar(Bar::AtLeast(150_000.0)).how(how));
    report.row(Row::new(format!("peak memory of {what}"), &peaks, "MiB").bar(Bar::AtMost(200.0)).how(how));
    report.row(
        Row::new("the longest that another `enqueue` took meanwhile", &[quantile(&waits, 1.0)], "ms")
            .bar(Bar::AtMost(100.0))
            .from(format!("median {} ms of {}", number(quantile(&waits, 0.5)), waits.len()))
            .how("`queuectl enqueue -c true`, from its start to its end, one after another with pauses of 20 ms"),
    );
    Ok(())
}

fn start(room: &Room, file: &Path) -> Result<Background> {
    Background::start(room.queuectl("enqueue --quiet --file").arg(file))
}

/// Jobs/s, and the most memory in MiB.
fn alone(room: &Room, file: &Path, jobs: usize) -> Result<(f64, f64)> {
    let began = Instant::now();
    let mut process = start(room, file)?;
    let mut peak = 0.0;
    let status = loop {
        if let Some(status) = process.0.try_wait()? {
            break status;
        }
        peak = process.peak_mib().unwrap_or(peak);
        std::thread::sleep(LOOK_EVERY);
    };
    let took = began.elapsed();
    let there = room.open()?.read(queuectl::store::Snapshot::counts)?.into_values().sum::<u64>();
    if !status.success() || there != jobs as u64 {
        return Err(format!("{there} of {jobs} jobs were enqueued: {status}").into());
    }
    Ok((jobs as f64 / took.as_secs_f64(), peak))
}

/// How long other processes that enqueue one job took, in milliseconds.
fn meanwhile(room: &Room, file: &Path, jobs: usize) -> Result<Vec<f64>> {
    text(&mut room.queuectl("enqueue -c true"))?;
    let mut process = start(room, file)?;
    let (over, is_over) = channel::<()>();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<Vec<f64>> {
            let mut waits = Vec::new();
            while is_over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                waits.push(ms(timed(&mut room.queuectl("enqueue -c true"))?));
            }
            Ok(waits)
        });
        let status = process.0.wait();
        drop(over);
        let waits = writer.join().map_err(|_| "the writer panicked")??;
        if status?.success() { Ok(waits) } else { Err(format!("{jobs} jobs were not enqueued").into()) }
    })
}
