//! `edit`: by flags, or as a JSON text in an editor.
//!
//! The editor takes as long as its user: nobody waits for it, and the queue file is closed meanwhile. What it leaves is
//! taken only if the job is still as it was shown. A text that cannot be taken is kept, so that nothing has to be typed
//! twice.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::args;
use super::super::bytes::to_json;
use super::super::context::{Context, stdout};
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Asked, Base};
use super::super::local::Local;
use super::super::render::{human, json};
use super::batch::wrong_input;
use super::enqueue::local;
use super::show::find;
use crate::model::{BadSpec, Command, Editable, JobId, JobName, JobSpec, Start};
use crate::queue::Queue;
use crate::store::{StoreError, Tx};

/// The fields that an editor shows or takes.
const FIELDS: [&str; 9] = ["command", "argv", "queue", "priority", "at", "delay", "max_retries", "timeout", "name"];
/// Where nothing says otherwise.
const EDITOR: &str = "vi";

/// What was changed.
struct Edited {
    was: Editable,
    becomes: Editable,
}

pub(crate) fn edit(context: &Context, args: &args::Edit) -> Result<Exit, Failure> {
    let base = context.base();
    let is_by_flags = args.shell_text.is_some()
        || args.queue.is_some()
        || args.priority.is_some()
        || args.at.is_some()
        || args.delay.is_some()
        || args.max_retries.is_some()
        || args.timeout.is_some()
        || args.name.is_some();
    if !is_by_flags {
        return in_editor(context, args, &base);
    }
    let start = match (&args.at, args.delay) {
        (Some(at), _) => Some(Start::At(base.local.parse(at).map_err(|bad| {
            Failure::new(Exit::Usage, format!("invalid value '{}' for '--at <TIME>': {bad}", human::plain(at)))
        })?)),
        (None, Some(delay)) => Some(Start::After(delay)),
        (None, None) => None,
    };
    let queue = context.open()?;
    let local = local(&queue);
    let edited = queue.write(|tx| {
        let (was, spec) = tx.editable(&args.id)?;
        let own = was.clone();
        let becomes = Editable {
            command: args.shell_text.clone().map_or(own.command, |text| Command::Shell(text.into_vec())),
            queue: args.queue.clone().unwrap_or(own.queue),
            priority: args.priority.unwrap_or(own.priority),
            due: start.map_or(own.due, |start| start.due(tx.now())),
            max_retries: args.max_retries.or(own.max_retries),
            timeout: args.timeout.or(own.timeout),
            name: args.name.clone().or(own.name),
        };
        change(tx, &args.id, &spec, base.exec_bytes_max, Edited { was, becomes })
    });
    let edited = edited.map_err(|error| refused(error, &args.id))?.map_err(|bad| Failure::new(Exit::Usage, bad))?;
    tell(&queue, args, &edited, &local)?;
    queue.leave();
    Ok(Exit::Done)
}

/// Changes a job, if what it is to be could be executed.
fn change(
    tx: &mut Tx<'_>,
    id: &JobId,
    spec: &JobSpec,
    exec_bytes_max: usize,
    edited: Edited,
) -> Result<Result<Edited, BadSpec>, StoreError> {
    if let Err(bad) = edited.becomes.of(spec).check(exec_bytes_max) {
        return Ok(Err(bad));
    }
    tx.edit(id, &edited.was, &edited.becomes)?;
    Ok(Ok(edited))
}

fn refused(error: StoreError, id: &JobId) -> Failure {
    let next = match &error {
        StoreError::Refused { refusal, .. } if refusal.state.has_ended() => format!("queuectl retry {id}"),
        StoreError::Changed(_) => format!("queuectl edit {id}"),
        StoreError::Refused { .. } | StoreError::OfRun(_) => format!("queuectl show {id}"),
        _ => "queuectl list".to_owned(),
    };
    let failure = Failure::from(error);
    if failure.next.is_empty() { failure.next(next) } else { failure }
}

fn in_editor(context: &Context, args: &args::Edit, base: &Base) -> Result<Exit, Failure> {
    let id = &args.id;
    let queue = context.open()?;
    let (was, spec) = queue.write(|tx| tx.editable(id)).map_err(|error| refused(error, id))?;
    // Closed, since a process is started.
    drop(queue);
    let before = object(&was);
    let text = format!("{:#}\n", Value::from(before.clone()));
    let path = write_text(id, &text)?;
    let keep = |failure: Failure| failure.and(format_args!("the text is kept in {}", human::path(&path)));
    run_editor(&path).map_err(&keep)?;
    let typed = fs::read(&path).map_err(|error| keep(Failure::new(Exit::Other, format!("cannot read it: {error}"))))?;
    if typed == text.as_bytes() {
        fs::remove_file(&path)?;
        return say_unchanged(id);
    }
    let base = Base {
        cwd: spec.cwd.clone(),
        env: Arc::clone(&spec.env),
        asked: Asked::default(),
        local: base.local.clone(),
        exec_bytes_max: base.exec_bytes_max,
    };
    let read = read_text(&typed, before, &base).map_err(|failure| keep(failure.next(format!("queuectl edit {id}"))))?;
    let queue = context.open()?;
    let local = local(&queue);
    let edited = queue.write(|tx| {
        let becomes = Editable {
            command: read.command.clone(),
            queue: read.queue.clone(),
            priority: read.priority,
            due: read.start.due(tx.now()),
            max_retries: read.max_retries,
            timeout: read.timeout,
            name: read.name.clone(),
        };
        change(tx, id, &spec, base.exec_bytes_max, Edited { was: was.clone(), becomes })
    });
    let edited = edited
        .map_err(|error| keep(refused(error, id)))?
        .map_err(|bad| keep(Failure::new(Exit::Usage, bad).next(format!("queuectl edit {id}"))))?;
    fs::remove_file(&path)?;
    tell(&queue, args, &edited, &local)?;
    queue.leave();
    Ok(Exit::Done)
}

/// What an editor shows.
fn object(was: &Editable) -> Map<String, Value> {
    let command = match &was.command {
        Command::Shell(text) => ("command", to_json(text)),
        Command::Argv(words) => ("argv", words.iter().map(|word| to_json(word)).collect()),
    };
    let fields = [
        command,
        ("queue", was.queue.as_str().into()),
        ("priority", was.priority.into()),
        ("at", was.due.map(json::time).into()),
        ("max_retries", was.max_retries.into()),
        ("timeout", was.timeout.map(|limit| limit.to_string()).into()),
        ("name", was.name.as_ref().map(JobName::as_str).into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A new file, for its user's eyes only.
fn write_text(id: &JobId, text: &str) -> Result<PathBuf, Failure> {
    let path = std::env::temp_dir().join(format!("queuectl-{id}-{}.json", std::process::id()));
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::of_writing(&path, &error))?;
    Ok(path)
}

/// Runs what the user edits texts with, as git does: the shell splits its words.
fn run_editor(path: &Path) -> Result<(), Failure> {
    let set = |name| std::env::var_os(name).filter(|editor| !editor.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| EDITOR.into());
    let mut script: OsString = editor.clone();
    script.push(" \"$@\"");
    #[allow(clippy::disallowed_methods, reason = "the queue file is closed")]
    let status = std::process::Command::new("/bin/sh").arg("-c").arg(script).arg("sh").arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let editor = editor.to_string_lossy();
            // The shell tells of a signal by a code, too.
            let how = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
            let message = format!("the editor `{editor}` failed ({how}), and nothing was changed");
            Err(Failure::new(Exit::Other, message).next("export EDITOR=nano    or another one"))
        }
        Err(error) => Err(Failure::new(Exit::Other, format!("cannot start the shell: {error}"))),
    }
}

/// The job that a text describes. What is left out of it stays; what is `null` is unset.
fn read_text(typed: &[u8], before: Map<String, Value>, base: &Base) -> Result<JobSpec, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let value: Value =
        serde_json::from_slice(typed).map_err(|error| usage(format!("this is not valid JSON: {error}")))?;
    let Value::Object(mut fields) = value else { return Err(usage("a job is a JSON object, as it was".to_owned())) };
    if let Some(other) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(usage(format!("`{other}` cannot be edited: {} can", FIELDS.join(", "))));
    }
    for (name, value) in before {
        let other = match name.as_str() {
            "command" => "argv",
            "argv" => "command",
            "at" => "delay",
            same => same,
        };
        if !fields.contains_key(&name) && !fields.contains_key(other) {
            fields.insert(name, value);
        }
    }
    input::job(Value::from(fields).to_string().as_bytes(), base).map_err(wrong_input)
}

fn say_unchanged(id: &JobId) -> Result<Exit, Failure> {
    let mut out = stdout();
    writeln!(out, "Job {id} is as it was")?;
    out.flush()?;
    Ok(Exit::Done)
}

fn tell(queue: &Queue, args: &args::Edit, edited: &Edited, local: &Local) -> Result<(), Failure> {
    let mut out = stdout();
    if args.json {
        let seq = find(queue, &args.id)?;
        if let Some(job) = queue.read(|snapshot| snapshot.job(seq))? {
            writeln!(out, "{}", Value::from(json::job(&job, None)))?;
        }
        return Ok(out.flush()?);
    }
    let changes = changes(edited, local);
    if changes.is_empty() {
        return say_unchanged(&args.id).map(drop);
    }
    writeln!(out, "✓ Job {} edited: {}", args.id, changes.join(", "))?;
    Ok(out.flush()?)
}

/// What is different now, in words.
fn changes(Edited { was, becomes }: &Edited, local: &Local) -> Vec<String> {
    let mut changes = Vec::new();
    let mut note = |is_changed: bool, change: &dyn Fn() -> String| {
        if is_changed {
            changes.push(change());
        }
    };
    let follows = "as the settings say";
    note(becomes.command != was.command, &|| "command".to_owned());
    note(becomes.queue != was.queue, &|| format!("queue {}", becomes.queue));
    note(becomes.priority != was.priority, &|| format!("priority {}", becomes.priority));
    note(becomes.due != was.due, &|| match becomes.due.filter(|due| *due > local.now()) {
        Some(due) => format!("starts at {}", local.show(due)),
        None => "starts now".to_owned(),
    });
    note(becomes.max_retries != was.max_retries, &|| match becomes.max_retries {
        Some(retries) => format!("max-retries {retries}"),
        None => format!("max-retries {follows}"),
    });
    note(becomes.timeout != was.timeout, &|| match becomes.timeout {
        Some(limit) => format!("timeout {limit}"),
        None => format!("timeout {follows}"),
    });
    note(becomes.name != was.name, &|| match &becomes.name {
        Some(name) => format!("name {}", human::plain(name.as_str())),
        None => "no name".to_owned(),
    });
    changes
}
