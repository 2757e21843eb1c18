//! What a completed job takes in the file, and that what was removed makes room.

use queuectl::model::Kept;
use redb::{Builder, ConcurrencyMode};

use super::Result;
use super::args::Args;
use super::engine::{BATCH, Engine};
use super::process::text;
use super::report::{Bar, Report, Row, count, number};
use super::room::Room;

/// What each job writes.
const OUTPUT: &[u8] = b"hello\n";

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let jobs = args.size(100_000, 1_000);
    a_job(args, report, jobs)?;
    again(args, report, jobs)
}

fn a_job(args: &Args, report: &mut Report, jobs: usize) -> Result<()> {
    let room = Room::new(args)?;
    let mut engine = Engine::new(&room)?;
    engine.pass(jobs, BATCH, &Kept::Inline(OUTPUT.to_vec()))?;
    engine.end()?;
    text(&mut room.queuectl("compact"))?;
    let what = format!("allocated in the file for a completed job with its history and output, of {}", count(jobs));
    let row = Row::new(what, &[allocated(&room)? / jobs as f64], "bytes").bar(Bar::AtMost(400.0));
    report.row(
        row.from(format!("the file has {} bytes a job", number(file_bytes(&room)? / jobs as f64)))
            .how("`queuectl compact`, then redb's statistics"),
    );
    Ok(())
}

/// Bytes of pages that are in use.
fn allocated(room: &Room) -> Result<f64> {
    let database = Builder::new().set_concurrency_mode(ConcurrencyMode::MultiWriter).open(room.open()?.file())?;
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    let bytes = stats.allocated_pages() as f64 * stats.page_size() as f64;
    transaction.abort()?;
    Ok(bytes)
}

fn file_bytes(room: &Room) -> Result<f64> {
    Ok(std::fs::metadata(room.open()?.file())?.len() as f64)
}

fn again(args: &Args, report: &mut Report, jobs: usize) -> Result<()> {
    let rounds = args.size(20, 3);
    let room = Room::new(args)?;
    let mut engine = Engine::new(&room)?;
    let mut sizes = Vec::new();
    for _ in 0..rounds {
        engine.pass(jobs, BATCH, &Kept::Inline(OUTPUT.to_vec()))?;
        while engine.remove_some()? > 0 {}
        sizes.push(file_bytes(&room)?);
    }
    let ratio = sizes[rounds - 1] / sizes[0];
    let what = format!(
        "the file after {rounds} rounds of {} jobs, each removed when it had completed, against one round",
        count(jobs)
    );
    report.row(
        Row::new(what, &[ratio], "×").bar(Bar::AtMost(2.0)).how("Queue::write with enqueue, claim, finish, remove"),
    );
    Ok(())
}
