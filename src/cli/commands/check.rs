//! `check`.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use crate::worker::{left_over, output_path};

pub(crate) fn check(context: &Context, args: &args::Json) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    // A job that is enqueued or removed after this moment is not gone here, so its files are not taken for left over.
    let (report, left) =
        queue.read(|snapshot| Ok((snapshot.check()?, left_over(queue.folder(), |seq| snapshot.is_gone(seq))?)))?;
    // A file may be missing after a power cut; that is worth a word, but the queue is sound.
    let missing = report
        .files
        .iter()
        .map(|(seq, attempt, stream, bytes)| (output_path(queue.folder(), *seq, *attempt, *stream), *bytes))
        .filter(|(path, bytes)| !fs::metadata(path).is_ok_and(|metadata| metadata.len() == *bytes))
        .map(|(path, bytes)| format!("{} should have {bytes} bytes", path.display()));
    let left = left.iter().map(|path| format!("{} is of a job that was removed: delete it", path.display()));
    let warnings: Vec<String> = missing.chain(left).collect();
    let mut out = stdout();
    if args.json {
        let report = json!({ "jobs": report.jobs, "violations": report.violations, "found": report.found, "warnings": warnings });
        writeln!(out, "{report}")?;
    } else {
        for violation in &report.violations {
            writeln!(out, "{}", human::plain(violation))?;
        }
        for warning in &warnings {
            say(format_args!("warning: {warning}"));
        }
        if report.found > report.violations.len() {
            writeln!(out, "and {} more", report.found - report.violations.len())?;
        }
        if report.found == 0 {
            writeln!(out, "✓ {}, every invariant holds", human::count(report.jobs, "job"))?;
        }
    }
    out.flush()?;
    queue.leave();
    Ok(if report.found == 0 { Exit::Done } else { Exit::QueueUnusable })
}
