//! `enqueue`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Asked, Base, Format};
use super::super::local::Local;
use super::super::render::{human, json};
use super::batch::{Batch, CHANGING_JOBS_MAX, explain, say_waiting, wrong_input};
use super::status::shell_word;
use crate::model::{Command, IfExists, JobId, JobName, JobSpec, Millis, Need, Seq, Start, StateKind, Tags};
use crate::queue::Queue;
use crate::store::{BulkInto, Enqueued, Met, StoreError};
use crate::worker::past_bulks;

pub(crate) fn enqueue(context: &Context, args: &args::Enqueue) -> Result<Exit, Failure> {
    let mut base = context.base();
    base.asked = asked(args, &base)?;
    let base = base;
    if let Some(spec) = one(args, &base)? {
        if args.if_exists.is_some() && spec.key.is_none() {
            return Err(Failure::new(Exit::Usage, "--if-exists needs a key").next("queuectl enqueue --key KEY …"));
        }
        return few(context, args, &[spec], &[1], false);
    }
    for (flag, is_given) in [("--id", base.asked.id.is_some()), ("--key", base.asked.key.is_some())] {
        if is_given {
            return Err(Failure::new(Exit::Usage, format!("{flag} is for one job")).next("queuectl enqueue --help"));
        }
    }
    let file = args.file.as_ref().map_or(OsStr::new("-"), |file| file.as_os_str());
    let mut batch = Batch::look_at(Path::new(file), Format::Auto, &base, b"")?;
    let is_few = batch.survey.few.is_some();
    if is_few || batch.survey.changes_others && batch.survey.jobs <= CHANGING_JOBS_MAX {
        let (lines, specs) = batch.all(&base)?;
        return few(context, args, &specs, &lines, true);
    }
    many(context, args, &mut batch, &base)
}

/// What the flags say.
fn asked(args: &args::Enqueue, base: &Base) -> Result<Asked, Failure> {
    let start = start(args.at.as_deref(), args.delay, base)?.unwrap_or_default();
    Ok(Asked {
        id: args.id.clone(),
        folder: args.cwd.as_ref().map(|folder| base.cwd.join(folder).components().collect()),
        max_retries: args.max_retries,
        timeout: args.timeout,
        queue: args.queue.clone(),
        priority: args.priority.unwrap_or_default(),
        start,
        needs: needs(&args.after, &args.after_any),
        name: args.name.clone(),
        tags: all_tags(&args.tags)?,
        key: args.key.clone(),
        if_exists: args.if_exists.unwrap_or_default(),
    })
}

/// What was typed of a start time.
pub(super) fn start(at: Option<&str>, delay: Option<Duration>, base: &Base) -> Result<Option<Start>, Failure> {
    let Some(at) = at else { return Ok(delay.map(Start::After)) };
    let time = base.local.parse(at).map_err(|bad| {
        let at = human::plain(at);
        Failure::new(Exit::Usage, format!("invalid value '{at}' for '--at <TIME>': {bad}"))
    });
    Ok(Some(Start::At(time?)))
}

/// What is to be waited for, by the ids that were typed.
pub(crate) fn needs(after: &[JobId], after_any: &[JobId]) -> Vec<Need> {
    let need = |any| move |id: &JobId| Need { id: id.clone(), any };
    after.iter().map(need(false)).chain(after_any.iter().map(need(true))).collect()
}

/// The tags that were typed; of two with the same key the last.
pub(crate) fn all_tags(typed: &[Tags]) -> Result<Tags, Failure> {
    let mut tags = Tags::default();
    let set = typed.iter().try_for_each(|tag| tags.set_all(tag));
    set.map_err(|bad| Failure::new(Exit::Usage, bad))?;
    Ok(tags)
}

/// The one job of the command line, if that has it.
fn one(args: &args::Enqueue, base: &Base) -> Result<Option<JobSpec>, Failure> {
    let spec = if let Some(text) = &args.shell_text {
        input::shell(text.clone().into_vec(), base)
    } else if !args.argv.is_empty() {
        input::argv(args.argv.iter().cloned().map(OsString::into_vec).collect(), base)
    } else {
        match (&args.file, &args.job) {
            (None, Some(job)) if job != "-" => input::job(&job.clone().into_vec(), base),
            (None | Some(_), _) => return Ok(None),
        }
    };
    spec.map(Some).map_err(wrong_input)
}

/// What fits one transaction.
fn few(
    context: &Context,
    args: &args::Enqueue,
    specs: &[JobSpec],
    lines: &[usize],
    is_batch: bool,
) -> Result<Exit, Failure> {
    if specs.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is no job in the input").next("queuectl enqueue --help"));
    }
    let mut queue = context.open_or_create()?;
    let local = local(&queue);
    let enqueued = context.first(&mut queue, |queue| past_bulks(queue, say_waiting, || queue.enqueue(specs)));
    let enqueued = enqueued.map_err(|error| explain(error, specs, lines))?;
    let mut shown = Shown::default();
    shown.add(args, &enqueued);
    if let [spec] = specs {
        shown.name.clone_from(&spec.name);
    }
    let kept = with_other_commands(&queue, specs, &enqueued)?;
    shown.keep_commands = kept.iter().map(|(job, _)| job.seq).collect();
    show(&queue, args, &local, &shown, is_batch)?;
    tell_kept(&kept);
    queue.leave();
    Ok(Exit::Done)
}

/// Distances are told by the queue's time, which delays are counted from: the clock may have been set back.
pub(super) fn local(queue: &Queue) -> Local {
    Local::here(queue.clock().now())
}

/// Jobs that were there and are to run under the rule `retry`, but with other commands than those that were given.
fn with_other_commands<'a>(
    queue: &Queue,
    specs: &'a [JobSpec],
    enqueued: &'a [Enqueued],
) -> Result<Vec<(&'a Enqueued, &'a Command)>, StoreError> {
    let will_run = |met: &Met| match met {
        Met::Retried(_) => true,
        Met::Exists(state) => !state.has_ended() && *state != StateKind::Processing,
        Met::New | Met::Replaced(_) => false,
    };
    let mut others = Vec::new();
    for (spec, job) in specs.iter().zip(enqueued) {
        if spec.if_exists == IfExists::Retry && will_run(&job.met) {
            let stored = queue.read(|snapshot| snapshot.job(job.seq))?;
            others.extend(stored.filter(|stored| stored.command != spec.command).map(|_| (job, &spec.command)));
        }
    }
    Ok(others)
}

/// Says which jobs do not do what was typed.
fn tell_kept(kept: &[(&Enqueued, &Command)]) {
    match kept {
        [] => {}
        [(job, command)] => {
            let command = shell_word(&command.to_string());
            let id = human::plain(job.id.as_str());
            say(format_args!(
                "job {id} keeps its command, which is another; to change it, type: queuectl edit {id} -c {command}"
            ));
        }
        [(job, _), ..] => say(format_args!(
            "{}, such as {}, keep the commands that they have; with --if-exists replace they would have the new ones",
            human::count(kept.len() as u64, "job"),
            human::plain(job.id.as_str())
        )),
    }
}

/// What does not: others get in between, and all of it appears at once.
fn many(context: &Context, args: &args::Enqueue, batch: &mut Batch, base: &Base) -> Result<Exit, Failure> {
    let mut queue = context.open_or_create()?;
    let local = local(&queue);
    let into = BulkInto::Queues(std::mem::take(&mut batch.survey.queues));
    let add = |shown: &mut Shown, enqueued: &[Enqueued]| shown.add(args, enqueued);
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself is of one lifetime, not of any")]
    let stored = batch.store(context, &mut queue, &into, base, add, |bulk| bulk.publish())?;
    show(&queue, args, &local, &stored.told, true)?;
    queue.leave();
    Ok(Exit::Done)
}

/// What is to be shown of the jobs that were enqueued: no more of them is kept.
#[derive(Default)]
struct Shown {
    jobs: u64,
    /// The name of the last.
    last: String,
    /// What people call it, if it is the only one.
    name: Option<JobName>,
    /// How many wait for others, and for how many the last does.
    blocked: u64,
    waits_for: u32,
    /// How many wait for a time, and the first of these times.
    later: u64,
    first: Option<Millis>,
    /// Whether some of them are not the first.
    differ: bool,
    /// All names, a line each, if they are asked for.
    names: Vec<u8>,
    /// All numbers, if the jobs are; and whether they existed.
    seqs: Vec<(Seq, bool)>,
    /// How many were there already, and how many of these run again.
    existed: u64,
    retried: u64,
    /// How many of them are dead or cancelled, and stay so.
    failed: u64,
    /// How the last one fared.
    met: Option<Met>,
    /// Those that were there and keep another command than was given.
    keep_commands: BTreeSet<Seq>,
}

impl Shown {
    fn add(&mut self, args: &args::Enqueue, enqueued: &[Enqueued]) {
        let existed = enqueued.iter().filter(|job| job.met.existed()).count() as u64;
        self.existed += existed;
        self.retried += enqueued.iter().filter(|job| matches!(job.met, Met::Retried(_))).count() as u64;
        let has_failed = |job: &&Enqueued| matches!(job.met, Met::Exists(StateKind::Dead | StateKind::Cancelled));
        self.failed += enqueued.iter().filter(has_failed).count() as u64;
        self.jobs += enqueued.len() as u64 - existed;
        self.blocked += enqueued.iter().filter(|job| job.waits_for > 0).count() as u64;
        self.waits_for = enqueued.last().map_or(0, |job| job.waits_for);
        for due in enqueued.iter().filter(|job| job.waits_for == 0).filter_map(|job| job.due) {
            self.later += 1;
            self.differ |= self.first.is_some_and(|first| first != due);
            self.first = Some(self.first.map_or(due, |first| first.min(due)));
        }
        if args.json {
            self.seqs.extend(enqueued.iter().map(|job| (job.seq, job.met.existed())));
        } else if args.quiet {
            for job in enqueued {
                self.names.extend_from_slice(job.id.as_str().as_bytes());
                self.names.push(b'\n');
            }
        }
        if let Some(job) = enqueued.last() {
            self.last = job.id.to_string();
            self.met = Some(job.met.clone());
        }
    }
}

/// When jobs start, if they wait for a time.
fn starts(local: &Local, shown: &Shown) -> String {
    let Some(first) = shown.first else { return String::new() };
    let time = format!("{} ({})", local.show(first), human::until(first, local.now()));
    match shown.jobs {
        1 => format!(", starts at {time}"),
        jobs if jobs == shown.later && !shown.differ => format!(", start at {time}"),
        jobs if jobs == shown.later => format!(", the first starts at {time}"),
        _ => format!(", {} of them later, the first at {time}", shown.later),
    }
}

/// What jobs wait for besides a time.
fn waits(shown: &Shown) -> String {
    match (shown.jobs, shown.blocked) {
        (_, 0) => String::new(),
        (1, _) => format!(", waits for {}", human::count(shown.waits_for.into(), "job")),
        (_, 1) => ", 1 of them waits for others".to_owned(),
        (_, blocked) => format!(", {blocked} of them wait for others"),
    }
}

fn show(queue: &Queue, args: &args::Enqueue, local: &Local, shown: &Shown, is_batch: bool) -> Result<(), Failure> {
    write(queue, args, local, shown, is_batch).map_err(|failure| match shown.jobs {
        1 => failure.after(format_args!("job {} is enqueued", shown.last)),
        jobs => failure.after(format_args!("{} are enqueued", human::count(jobs, "job"))),
    })
}

fn write(queue: &Queue, args: &args::Enqueue, local: &Local, shown: &Shown, is_batch: bool) -> Result<(), Failure> {
    let mut out = stdout();
    if args.json {
        show_json(queue, shown, is_batch, &mut out)?;
    } else if args.quiet {
        out.write_all(&shown.names)?;
    } else {
        writeln!(out, "✓ {}", told(local, shown))?;
    }
    out.flush()?;
    Ok(())
}

fn told(local: &Local, shown: &Shown) -> String {
    let start = format!("{}{}", waits(shown), starts(local, shown));
    if let (1, Some(met)) = (shown.jobs + shown.existed, &shown.met) {
        let id = &shown.last;
        let job = human::called(id, shown.name.as_ref());
        return match met {
            Met::New => format!("Job {job} enqueued{start}"),
            Met::Replaced(other) if other.as_str() == id => format!("Job {job} enqueued anew{start}"),
            Met::Replaced(other) => format!("Job {job} enqueued in the place of job {other}{start}"),
            Met::Exists(state) => format!("Job {id} is there already ({})", human::state(*state)),
            Met::Retried(state) => format!("Job {id} is there already ({}); it will run again", human::state(*state)),
        };
    }
    let enqueued = format!("{} enqueued{start}", human::count(shown.jobs, "job"));
    let failed = match shown.failed {
        0 => String::new(),
        failed => format!(", {failed} of them dead or cancelled (--if-exists retry runs those again)"),
    };
    match (shown.existed, shown.retried) {
        (0, _) => enqueued,
        (existed, 0) => format!("{enqueued}; {existed} there already{failed}"),
        (existed, retried) => format!("{enqueued}; {existed} there already, of which {retried} will run again{failed}"),
    }
}

fn show_json(queue: &Queue, shown: &Shown, is_batch: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut separator = if is_batch { "[" } else { "" };
    for chunk in shown.seqs.chunks(1_000) {
        let jobs =
            queue.read(|snapshot| chunk.iter().map(|(seq, _)| snapshot.job(*seq)).collect::<Result<Vec<_>, _>>())?;
        for (job, (seq, existed)) in jobs.into_iter().zip(chunk) {
            let Some(job) = job else { continue };
            let mut job = json::job(&job, None);
            job.insert("existed".to_owned(), (*existed).into());
            job.insert("keeps_command".to_owned(), shown.keep_commands.contains(seq).into());
            write!(out, "{separator}{}", serde_json::Value::from(job))?;
            separator = ",\n";
        }
    }
    writeln!(out, "{}", if is_batch { "]" } else { "" })?;
    Ok(())
}
