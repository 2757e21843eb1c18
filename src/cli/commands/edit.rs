//! `edit`: by flags, or as a JSON text in an editor.
//!
//! The editor takes as long as its user: nobody waits for it, and the queue file is closed meanwhile. What it leaves is
//! taken only if the job is still as it was shown. A text that cannot be taken is kept, so that nothing has to be typed
//! twice.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::args;
use super::super::bytes::to_json;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Asked, Base};
use super::super::local::Local;
use super::super::render::{human, json};
use super::super::selected;
use super::batch::wrong_input;
use super::enqueue::{all_tags, local, needs, start};
use super::many::{Many, Verb};
use crate::model::{
    Command, Editable, JobId, JobName, JobSpec, Millis, Need, QueueName, Start, StateKind, Tags, TimeLimit,
};
use crate::queue::Queue;
use crate::store::{StoreError, Tx};
use crate::worker::StopListener;

/// The fields that an editor shows or takes.
const FIELDS: [&str; 12] = [
    "command",
    "argv",
    "queue",
    "priority",
    "at",
    "delay",
    "max_retries",
    "timeout",
    "name",
    "tags",
    "after",
    "after_any",
];
/// Where nothing says otherwise.
const EDITOR: &str = "vi";

const EDIT: Verb = Verb::new(["edits", "edited", "that cannot be changed so"], &StateKind::WAITING, &EDITABLE);

/// What waits, and what may be retried.
const EDITABLE: [StateKind; 6] = [
    StateKind::Scheduled,
    StateKind::Blocked,
    StateKind::Pending,
    StateKind::Failed,
    StateKind::Dead,
    StateKind::Cancelled,
];

/// What was changed.
struct Edited {
    id: JobId,
    was: Editable,
    becomes: Editable,
}

pub(crate) fn edit(context: &Context, args: &args::Edit) -> Result<Exit, Failure> {
    if !args.jobs.are_named() {
        return Err(selected::unsaid("edit", "--where-name NAME --priority 5"));
    }
    let base = context.base();
    let wanted = Wanted::of(&args.changes, &base)?;
    match (wanted, args.jobs.filters.are_given(), args.jobs.ids.as_slice()) {
        (Some(wanted), true, _) => by_filter(context, args, &base, &wanted),
        (Some(wanted), false, _) => by_ids(context, args, &base, &wanted),
        (None, false, [id]) => in_editor(context, args, id, &base),
        (None, _, _) => {
            Err(Failure::new(Exit::Usage, "an editor takes one job; of several, say by flags what changes")
                .next("queuectl edit --help"))
        }
    }
}

fn by_ids(context: &Context, args: &args::Edit, base: &Base, wanted: &Wanted) -> Result<Exit, Failure> {
    let (mut queue, ids) = (context.open()?, &args.jobs.ids);
    let local = local(&queue);
    let edited = context.first(&mut queue, |queue| queue.write(|tx| change_all(tx, ids, base, wanted)));
    let edited = edited.map_err(|error| refused(error, &ids[0]))?;
    tell(&queue, args, &edited, &local)?;
    queue.leave();
    Ok(Exit::Done)
}

fn by_filter(context: &Context, args: &args::Edit, base: &Base, wanted: &Wanted) -> Result<Exit, Failure> {
    let queue = context.open()?;
    let mut many = Many::find(&queue, EDIT, &args.jobs.filters.resolve(&queue)?)?;
    many.confirm(args.jobs.yes)?;
    let mut ids = Vec::new();
    let step = |ids: &[JobId], tx: &mut Tx<'_>| {
        change_all(tx, ids, base, wanted).map_err(|error| match error {
            // That is not about one of the jobs, but about what was typed.
            StoreError::NeedEnded { id, state } => {
                let why = format!("it is {}: what waits for it to complete would never run", state.name());
                StoreError::Unfit { id, why }
            }
            error => error,
        })
    };
    let keep = |piece: Vec<Edited>| {
        if args.json {
            ids.extend(piece.into_iter().map(|edited| edited.id));
        }
    };
    let count = many.each(&queue, step, keep)?;
    let mut out = stdout();
    if args.json {
        write_json(&queue, &ids, true, &mut out)?;
    } else {
        writeln!(out, "{}", many.told(count, "edited"))?;
    }
    out.flush()?;
    many.tell_left_out();
    queue.leave();
    Ok(Exit::Done)
}

/// What the flags say that jobs are to be; what is `None` stays.
struct Wanted {
    command: Option<Command>,
    queue: Option<QueueName>,
    priority: Option<i8>,
    start: Option<Start>,
    needs: Option<Vec<Need>>,
    max_retries: Option<u32>,
    timeout: Option<TimeLimit>,
    name: Option<JobName>,
    /// These are set besides those that there are.
    tags: Tags,
}

impl Wanted {
    /// None if there are no flags.
    fn of(changes: &args::Changes, base: &Base) -> Result<Option<Self>, Failure> {
        let args::Changes { shell_text, queue, priority, delay, at, after, after_any, no_after, .. } = changes;
        let args::Changes { max_retries, timeout, name, tags, .. } = changes;
        let needs = needs(after, after_any);
        let has_needs = *no_after || !needs.is_empty();
        let given =
            [shell_text.is_some(), queue.is_some(), priority.is_some(), delay.is_some(), at.is_some(), has_needs];
        let given = given.contains(&true) || max_retries.is_some() || timeout.is_some() || name.is_some();
        if !given && tags.is_empty() {
            return Ok(None);
        }
        let start = start(at.as_deref(), *delay, base)?;
        Ok(Some(Self {
            command: shell_text.clone().map(|text| Command::Shell(text.into_vec())),
            queue: queue.clone(),
            priority: *priority,
            start,
            needs: has_needs.then_some(needs),
            max_retries: *max_retries,
            timeout: *timeout,
            name: name.clone(),
            tags: all_tags(tags)?,
        }))
    }

    /// What a job becomes; why it cannot, in words.
    fn made_of(&self, own: &Editable, now: Millis) -> Result<Editable, String> {
        let own = own.clone();
        let mut tags = own.tags;
        tags.set_all(&self.tags).map_err(|bad| bad.to_string())?;
        Ok(Editable {
            command: self.command.clone().unwrap_or(own.command),
            queue: self.queue.clone().unwrap_or(own.queue),
            priority: self.priority.unwrap_or(own.priority),
            due: self.start.map_or(own.due, |start| start.due(now)),
            max_retries: self.max_retries.or(own.max_retries),
            timeout: self.timeout.or(own.timeout),
            name: self.name.clone().or(own.name),
            tags,
            needs: self.needs.clone().unwrap_or(own.needs),
        })
    }
}

/// Changes all, or none.
fn change_all(tx: &mut Tx<'_>, ids: &[JobId], base: &Base, wanted: &Wanted) -> Result<Vec<Edited>, StoreError> {
    let now = tx.now();
    let mut done = Vec::with_capacity(ids.len());
    for id in ids {
        let (was, spec) = tx.editable(id)?;
        let becomes = wanted.made_of(&was, now).map_err(|why| StoreError::Unfit { id: id.clone(), why })?;
        done.push(change(tx, id, &spec, base.exec_bytes_max, was, becomes)?);
    }
    Ok(done)
}

/// Changes a job, if what it is to be could be executed.
fn change(
    tx: &mut Tx<'_>,
    id: &JobId,
    spec: &JobSpec,
    exec_bytes_max: usize,
    was: Editable,
    mut becomes: Editable,
) -> Result<Edited, StoreError> {
    let check = becomes.of(spec).check(exec_bytes_max);
    check.map_err(|bad| StoreError::Unfit { id: id.clone(), why: bad.to_string() })?;
    // Of what has come already there is only one kind.
    let to_come = |due: Option<Millis>| due.filter(|due| *due > tx.now());
    if to_come(becomes.due) == to_come(was.due) {
        becomes.due = was.due;
    }
    // In which order they are named does not matter.
    let same = |needs: &[Need], others: &[Need]| needs.iter().all(|need| others.contains(need));
    if same(&becomes.needs, &was.needs) && same(&was.needs, &becomes.needs) {
        becomes.needs.clone_from(&was.needs);
    }
    tx.edit(id, &was, &becomes)?;
    Ok(Edited { id: id.clone(), was, becomes })
}

fn refused(error: StoreError, id: &JobId) -> Failure {
    let next = match &error {
        StoreError::Refused { id, refusal } if refusal.state.has_ended() => format!("queuectl retry {id}"),
        StoreError::Changed(_) => format!("queuectl edit {id}"),
        StoreError::Refused { id, .. }
        | StoreError::OfRun(id)
        | StoreError::Unfit { id, .. }
        | StoreError::NeedsNewer { id, .. }
        | StoreError::NeedsTooMany { id, .. } => format!("queuectl show {id}"),
        _ => "queuectl list".to_owned(),
    };
    let failure = Failure::from(error);
    if failure.next.is_empty() { failure.next(next) } else { failure }
}

fn in_editor(context: &Context, args: &args::Edit, id: &JobId, base: &Base) -> Result<Exit, Failure> {
    let queue = context.open()?;
    let (was, spec) = queue.write(|tx| tx.editable(id)).map_err(|error| refused(error, id))?;
    // Closed, since a process is started.
    drop(queue);
    let before = object(&was);
    let text = format!("{:#}\n", Value::from(before.clone()));
    let path = write_text(id, &text)?;
    let keep = |failure: Failure| failure.and(format_args!("the text is kept in {}", human::path(&path)));
    let ran = run_editor(&path);
    let typed = fs::read(&path).map_err(|error| keep(Failure::new(Exit::Other, format!("cannot read it: {error}"))))?;
    if let Err(failure) = ran {
        if typed != text.as_bytes() {
            return Err(keep(failure));
        }
        fs::remove_file(&path)?;
        return Err(failure);
    }
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
            tags: read.tags.clone(),
            needs: read.needs.clone(),
        };
        change(tx, id, &spec, base.exec_bytes_max, was.clone(), becomes)
    });
    let edited = edited.map_err(|error| {
        let is_unfit = matches!(error, StoreError::Unfit { .. });
        let failure = keep(refused(error, id));
        if is_unfit { failure.next(format!("queuectl edit {id}")) } else { failure }
    })?;
    fs::remove_file(&path)?;
    tell(&queue, args, &[edited], &local)?;
    queue.leave();
    Ok(Exit::Done)
}

/// What an editor shows.
fn object(was: &Editable) -> Map<String, Value> {
    let command = match &was.command {
        Command::Shell(text) => ("command", to_json(text)),
        Command::Argv(words) => ("argv", words.iter().map(|word| to_json(word)).collect()),
    };
    let needed =
        |any: bool| was.needs.iter().filter(|need| need.any == any).map(|need| need.id.as_str()).collect::<Value>();
    let fields = [
        command,
        ("queue", was.queue.as_str().into()),
        ("priority", was.priority.into()),
        ("at", was.due.map(json::time).into()),
        ("max_retries", was.max_retries.into()),
        ("timeout", was.timeout.map(|limit| limit.to_string()).into()),
        ("name", was.name.as_ref().map(JobName::as_str).into()),
        ("tags", was.tags.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()),
        ("after", needed(false)),
        ("after_any", needed(true)),
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
    let chosen = set("VISUAL").or_else(|| set("EDITOR"));
    if chosen.is_none() && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::new(Exit::Usage, format!("{EDITOR} needs a terminal; say by flags what changes"))
            .next("queuectl edit --help"));
    }
    let editor = chosen.unwrap_or_else(|| EDITOR.into());
    let mut script: OsString = editor.clone();
    script.push(" \"$@\"");
    #[allow(clippy::disallowed_methods, reason = "the queue file is closed")]
    let editor_runs = std::process::Command::new("/bin/sh").arg("-c").arg(script).arg("sh").arg(path).spawn();
    let status = editor_runs.and_then(|mut editor| {
        // Ctrl-C is for the editor, which may not end by it. If there is no room to listen, it ends this too.
        let _listener = StopListener::start(|| {});
        editor.wait()
    });
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

fn tell(queue: &Queue, args: &args::Edit, edited: &[Edited], local: &Local) -> Result<(), Failure> {
    let mut out = stdout();
    if args.json {
        let ids: Vec<JobId> = edited.iter().map(|edited| edited.id.clone()).collect();
        write_json(queue, &ids, ids.len() > 1, &mut out)?;
        return Ok(out.flush()?);
    }
    for edited in edited {
        match changes(edited, local).join(", ").as_str() {
            "" => writeln!(out, "Job {} is as it was", edited.id)?,
            changes => writeln!(out, "✓ Job {} edited: {changes}", edited.id)?,
        }
    }
    out.flush()?;
    for Edited { id, .. } in edited {
        let state = queue.read(|snapshot| snapshot.find(id)?.map_or(Ok(None), |seq| snapshot.state(seq)))?;
        if let Some(state @ (StateKind::Dead | StateKind::Cancelled)) = state {
            say(format_args!("job {id} is {}; to run it as it is now, type: queuectl retry {id}", state.name()));
        }
    }
    Ok(())
}

/// The jobs as they are now; those that are gone by now are left out.
fn write_json(queue: &Queue, ids: &[JobId], is_list: bool, out: &mut impl Write) -> Result<(), Failure> {
    let job = |id: &JobId| queue.read(|snapshot| snapshot.find(id)?.map_or(Ok(None), |seq| snapshot.job(seq)));
    let jobs = ids.iter().map(job).collect::<Result<Vec<_>, _>>()?;
    let mut jobs = jobs.iter().flatten().map(|job| Value::from(json::job(job, None)));
    let shown = if is_list { jobs.collect() } else { jobs.next().unwrap_or_default() };
    Ok(writeln!(out, "{shown}")?)
}

/// What is different now, in words.
fn changes(Edited { was, becomes, .. }: &Edited, local: &Local) -> Vec<String> {
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
    note(becomes.needs != was.needs, &|| match becomes.needs.len() {
        0 => "waits for no other job".to_owned(),
        count => format!("waits for {}", human::count(count as u64, "job")),
    });
    note(becomes.name != was.name, &|| match &becomes.name {
        Some(name) => format!("name {}", human::plain(name.as_str())),
        None => "no name".to_owned(),
    });
    note(becomes.tags != was.tags, &|| match becomes.tags.to_string().as_str() {
        "" => "no tags".to_owned(),
        tags => format!("tags {}", human::plain(tags)),
    });
    changes
}
