//! `check`.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::journal::words;
use super::super::render::human;
use super::status::shell_word;
use crate::queue::{Clock, Queue};
use crate::store::{self, Lines, Repaired, Report, Seized, StoreError};
use crate::worker::{News, NotQuiet, Observer, Quiet, left_over, output_path};

pub(crate) fn check(context: &Context, args: &args::Check) -> Result<Exit, Failure> {
    if args.repair {
        return repair(context, args.json);
    }
    let pages = if args.deep { pages(context)? } else { None };
    let (report, warnings) = look(context).inspect_err(|_| {
        if let Some(pages) = &pages {
            say(format_args!("redb says: {pages}"));
        }
    })?;
    let sound = report.found == 0 && pages.is_none();
    let mut out = stdout();
    if args.json {
        let mut object = json!({
            "jobs": report.jobs, "violations": report.violations, "found": report.found, "warnings": warnings
        });
        if args.deep {
            object["pages"] = pages.clone().into();
        }
        writeln!(out, "{object}")?;
    } else {
        for violation in &report.violations {
            writeln!(out, "{}", human::plain(violation))?;
        }
        if report.found > report.violations.len() {
            writeln!(out, "and {} more", report.found - report.violations.len())?;
        }
        if let Some(pages) = &pages {
            writeln!(out, "redb says: {}", human::plain(pages))?;
        }
        if sound {
            let and = if args.deep { ", every page is what it should be" } else { "" };
            writeln!(out, "✓ {}, every invariant holds{and}", human::count(report.jobs, "job"))?;
        }
    }
    out.flush()?;
    if !args.json {
        for warning in &warnings {
            say(format_args!("warning: {warning}"));
        }
    }
    if sound {
        return Ok(Exit::Done);
    }
    let found = report.found + usize::from(pages.is_some());
    let message = format!("the queue has {}", human::count(found as u64, "fault"));
    Err(ways_out(context, Failure::new(Exit::QueueUnusable, message)))
}

/// The ordinary check, and what is worth a word about the outputs.
fn look(context: &Context) -> Result<(Report, Vec<String>), Failure> {
    let explain = |error| match error {
        error @ StoreError::Damaged(_) => ways_out(context, context.explain(error)),
        error => context.explain(error),
    };
    let folder = context.existing()?;
    let report = Queue::check(&folder, context.on_wait()).map_err(explain)?;
    // In a damaged queue nobody can tell which job is gone. One that is enqueued or removed after this moment is not
    // gone here, so its files are not taken for left over.
    let left = if report.found == 0 {
        let queue = Queue::open_read_only(&folder, context.on_wait()).map_err(explain)?;
        queue.read(|snapshot| left_over(folder.path(), |seq| snapshot.is_gone(seq))).map_err(explain)?
    } else {
        Vec::new()
    };
    let folder = folder.path();
    // A file may be missing after a power cut; that is worth a word, but the queue is sound.
    let missing = report
        .files
        .iter()
        .map(|(seq, attempt, stream, bytes)| (output_path(folder, *seq, *attempt, *stream), *bytes))
        .filter(|(path, bytes)| !fs::metadata(path).is_ok_and(|metadata| metadata.len() == *bytes))
        .map(|(path, bytes)| format!("{} should have {bytes} bytes", human::path(&path)));
    let left = left
        .iter()
        .map(|path| format!("{} is of no job any more, unless an import is at work: delete it", human::path(path)));
    let warnings = missing.chain(left).collect();
    Ok((report, warnings))
}

/// What redb's own check finds.
fn pages(context: &Context) -> Result<Option<String>, Failure> {
    let folder = context.existing()?;
    say(format_args!("copying the queue file, which keeps everybody from writing to it; then every page is checked"));
    store::check_pages(folder.path(), &std::env::temp_dir(), &context.on_wait()).map_err(|error| context.explain(error))
}

/// What can be done about a damaged queue file, to type next.
fn ways_out(context: &Context, failure: Failure) -> Failure {
    let db = context.db_words();
    failure
        .next(format_args!("queuectl{db} restore BACKUP    if you have a backup"))
        .or(format_args!("queuectl{db} export --output FILE    saves what can still be read"))
        .or(format_args!("queuectl{db} check --repair    makes the queue sound again"))
}

fn repair(context: &Context, json: bool) -> Result<Exit, Failure> {
    let folder = context.existing()?;
    let quiet = Quiet::reach(&folder, &Talker).map_err(|error| not_quiet(context, error))?;
    say(format_args!("repairing: who wants to write to the queue waits"));
    let repaired = Seized::new(folder.path(), &context.on_wait())
        .map_err(NotQuiet::from)
        .and_then(|seized| {
            quiet.holds()?;
            // Not the queue's own time, which may be what is to be set back.
            Ok(store::repair(seized, Clock::default().now())?)
        })
        .map_err(|error| not_quiet(context, error))?;
    tell(&repaired, json)?;
    Ok(Exit::Done)
}

fn tell(repaired: &Repaired, json: bool) -> Result<(), Failure> {
    let Repaired { jobs, differences, lost, set_back, kept } = repaired;
    let mut out = stdout();
    if json {
        let seconds = set_back.map(|by| by.as_secs());
        let kept = kept.as_ref().map(|path| path.to_string_lossy());
        let report = json!({
            "jobs": jobs, "repaired": kept.is_some(), "kept": kept, "set_back_seconds": seconds,
            "differences": differences.lines, "differences_found": differences.found,
            "lost": lost.lines, "lost_found": lost.found,
        });
        writeln!(out, "{report}")?;
        return Ok(out.flush()?);
    }
    for Lines { lines, found } in [differences, lost] {
        for line in lines {
            writeln!(out, "{}", human::plain(line))?;
        }
        if *found > lines.len() {
            writeln!(out, "and {} more", found - lines.len())?;
        }
    }
    if let Some(by) = set_back {
        writeln!(out, "the queue's time was {} ahead of the clock, and is not now", human::about(*by))?;
    }
    let jobs = human::count(*jobs, "job");
    match kept {
        None => writeln!(out, "✓ {jobs}, nothing to repair")?,
        Some(kept) => {
            let lost = match lost.found {
                0 => String::new(),
                found => format!(", {}", human::count(found as u64, "loss")),
            };
            writeln!(out, "✓ {jobs}, repaired{lost}; the file as it was is {}", human::path(kept))?;
        }
    }
    Ok(out.flush()?)
}

/// Why a repair, a restore or a compaction cannot go ahead, with what to type next.
pub(crate) fn not_quiet(context: &Context, error: NotQuiet) -> Failure {
    let db = context.db_words();
    match error {
        NotQuiet::Alive { pid, is_run: true, .. } => {
            Failure::new(Exit::Refused, error).next(format_args!("kill -INT {pid}    stops that run"))
        }
        NotQuiet::Alive { .. } => Failure::new(Exit::Refused, error).next(format_args!("queuectl{db} worker stop")),
        NotQuiet::Bulk { pid } => {
            Failure::new(Exit::Refused, error).next(format_args!("kill {pid}    ends it; or wait until it is done"))
        }
        NotQuiet::Left(_) => Failure::new(Exit::Refused, error),
        NotQuiet::Unknown(ref why) => Failure::new(Exit::of_system(why), error),
        NotQuiet::Store(error @ StoreError::Damaged(_)) => {
            context.explain(error).next(format_args!("queuectl{db} restore BACKUP    if there is one"))
        }
        NotQuiet::Store(error) => context.explain(error),
    }
}

/// Says what recovery does.
pub(crate) struct Talker;

impl Observer for Talker {
    fn news(&self, news: News) {
        say(format_args!("{}", words(&news, "")));
    }
}

impl Context {
    /// `--db FOLDER` for lines to type, where the user named the folder.
    pub(crate) fn db_words(&self) -> String {
        if !self.is_given() {
            return String::new();
        }
        format!(" --db {}", shell_word(&self.folder_path().to_string_lossy()))
    }
}
