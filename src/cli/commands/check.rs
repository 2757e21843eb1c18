//! `check`.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use crate::worker::{left_over, output_path};

/// What to do about a damaged queue.
const WAYS_OUT: &str = "queuectl restore BACKUP    if you have a backup; else
       queuectl export           saves what can still be read, and
       queuectl check --repair   makes the queue sound again";

pub(crate) fn check(context: &Context, args: &args::Json) -> Result<Exit, Failure> {
    let (report, queue) = context.check(WAYS_OUT)?;
    let folder = context.folder_path();
    // A job that is enqueued or removed after this moment is not gone here, so its files are not taken for left over.
    // In a damaged queue nobody can tell.
    let left = match queue {
        Some(queue) => queue.read(|snapshot| left_over(folder, |seq| snapshot.is_gone(seq)))?,
        None => Vec::new(),
    };
    // A file may be missing after a power cut; that is worth a word, but the queue is sound.
    let missing = report
        .files
        .iter()
        .map(|(seq, attempt, stream, bytes)| (output_path(folder, *seq, *attempt, *stream), *bytes))
        .filter(|(path, bytes)| !fs::metadata(path).is_ok_and(|metadata| metadata.len() == *bytes))
        .map(|(path, bytes)| format!("{} should have {bytes} bytes", human::path(&path)));
    let left = left.iter().map(|path| format!("{} is of a job that was removed: delete it", human::path(path)));
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
    if report.found == 0 {
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::QueueUnusable, format_args!("the queue has {}", human::count(report.found as u64, "fault")))
        .next(WAYS_OUT))
}
