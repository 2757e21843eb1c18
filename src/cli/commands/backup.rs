//! `backup` and `restore`.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::super::args;
use super::super::bytes::to_json;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::check::{Talker, not_quiet};
use super::status::shell_word;
use crate::queue::{BadFolder, Folder};
use crate::store::StoreError;
use crate::worker::{self, BackupError, Copied};

pub(crate) fn backup(context: &Context, args: &args::Backup) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let destination = context.cwd.join(&args.folder);
    let copied = worker::backup(&queue, &destination).map_err(|error| explain(context, error))?;
    queue.leave();
    warn(&copied);
    let done = format!("backed up {} to {}", what(&copied), human::path(&args.folder));
    tell(&copied, &destination, args.json, &done)
}

pub(crate) fn restore(context: &Context, args: &args::Restore) -> Result<Exit, Failure> {
    let path = context.cwd.join(&args.folder);
    let nothing = || Failure::new(Exit::NotFound, format!("there is no backup in {}", human::path(&args.folder)));
    let source = Folder::existing(&path)?.ok_or_else(nothing)?;
    let destination = context.cwd.join(context.folder_path());
    let restored = worker::restore(&source, &destination, &Talker, &context.on_wait());
    let copied = restored.map_err(|error| match error {
        BackupError::Store(StoreError::NoQueue(_)) => nothing(),
        error => explain(context, error),
    })?;
    warn(&copied);
    if let Some(kept) = &copied.kept {
        let jobs = copied.kept_jobs.map_or(String::new(), |jobs| format!(" ({})", human::count(jobs, "job")));
        say(format_args!("the queue that was here{jobs} is kept in {}; to go back, type:", human::path(kept)));
        say(format_args!("  queuectl{} restore {}", context.db_words(), shell_word(&kept.to_string_lossy())));
    }
    let done = format!("restored {} to {}", what(&copied), human::path(context.folder_path()));
    tell(&copied, &destination, args.json, &done)
}

fn what(copied: &Copied) -> String {
    let jobs = human::count(copied.jobs, "job");
    match copied.files {
        0 => jobs,
        files => format!("{jobs} and {}", human::count(files as u64, "large output")),
    }
}

fn warn(copied: &Copied) {
    for warning in &copied.missing {
        say(format_args!("warning: {warning}"));
    }
}

fn tell(copied: &Copied, folder: &Path, as_json: bool, done: &str) -> Result<Exit, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let mut out = stdout();
    if as_json {
        let report = json!({
            "folder": to_json(folder.as_os_str().as_bytes()),
            "jobs": copied.jobs,
            "outputs": copied.files,
            "warnings": copied.missing,
            "kept": copied.kept.as_ref().map(|kept| to_json(kept.as_os_str().as_bytes())),
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "✓ {done}")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn explain(context: &Context, error: BackupError) -> Failure {
    match error {
        BackupError::NotQuiet(error) => not_quiet(context, error),
        BackupError::Taken(_) | BackupError::Inside(_) | BackupError::Same(_) => Failure::new(Exit::Refused, error),
        BackupError::Unsound { ref path, .. } => {
            let line = format!("queuectl --db {} check --repair", shell_word(&path.to_string_lossy()));
            Failure::new(Exit::QueueUnusable, error).next(line)
        }
        BackupError::Folder(BadFolder::Network { path, kind }) => Failure::new(
            Exit::QueueUnusable,
            format!(
                "{} is on a network file system ({kind}): back up to a local folder and copy that from there",
                human::path(&path)
            ),
        ),
        BackupError::Folder(error) => error.into(),
        BackupError::Store(error) => {
            let is_damaged = matches!(error, StoreError::Damaged(_));
            let failure = context.explain(error);
            if is_damaged { failure.next(format_args!("queuectl{} check", context.db_words())) } else { failure }
        }
        BackupError::Io { error: ref why, .. } => Failure::new(Exit::of_system(why), error),
    }
}
