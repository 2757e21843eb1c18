//! `run`: a batch in one go, by a pool of its own.
//!
//! `--resume` leaves out what completed before: that is read once, before the batch is stored. `--detach` stores the
//! batch, and lets this program again, in a session of its own, work on it by its number.
//!
//! Crash points: before the transaction that stores the batch, or publishes it if it is large, nothing has happened;
//! after it, whatever ends this process or the one in the background, the same line finds the run by its identity and goes on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use super::super::args;
use super::super::context::{Context, say};
use super::super::detach;
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Asked, Base, Format};
use super::super::journal::Journal;
use super::super::render::human;
use super::super::reporter::Reporter;
use super::batch::{Batch, explain, say_waiting, wrong_input};
use super::enqueue::all_tags;
use super::runs;
use super::status::shell_word;
use super::worker::start_pool;
use crate::model::{Job, JobSpec, LaneId, Outcome, StateKind, TimeLimit};
use crate::queue::{Folder, Queue};
use crate::store::{BulkInto, NewRun, RunInfo, RunStart, Serves, Snapshot, StoreError};
use crate::worker::{self, Observer, Pool, PoolEnd, PoolOptions, past_bulks};

/// Among how many of the newest runs one of the same line is looked for.
const RUNS_LOOKED_AT: usize = 10;
/// How many dead jobs the summary names.
const DEAD_NAMED_MAX: usize = 10;
/// What shells answer for a command that timed out, and add to the number of a signal.
const TIMED_OUT: u8 = 124;
const SIGNALLED: i32 = 128;

/// What a run executes.
struct Input {
    jobs: Jobs,
    run: NewRun,
    base: Base,
}

enum Jobs {
    Command(JobSpec),
    Batch(Batch),
}

pub(crate) fn run(context: &Context, args: &args::Run) -> Result<Exit, Failure> {
    if let Some(number) = args.detached {
        return work_on(context, args, number);
    }
    let mut input = read(context, args)?;
    if let Jobs::Batch(batch) = &input.jobs
        && batch.survey.jobs == 0
    {
        say(format_args!("{} has no commands: nothing to do", batch.name));
        return Ok(Exit::Done);
    }
    let mut queue = if args.quiet { context.open_or_create_quietly()? } else { context.open_or_create()? };
    let clock = Arc::clone(queue.clock());
    let started = clock.elapsed();
    if args.resume && !input.skip_completed(&queue, args)? {
        queue.leave();
        return Ok(Exit::Done);
    }
    let start = input.start(context, &mut queue, args)?;
    let lane = start.info().lane;
    if args.detach
        && let Some(pool) = runs::worker_of(&queue, lane)?
    {
        queue.leave();
        return detach::tell_run(start.info().number, &format!("is worked on already (process {})", pool.pid), args);
    }
    if !args.quiet {
        tell_start(&queue, &start, &input.run)?;
    }
    drop(input);
    if args.detach {
        let number = start.info().number;
        queue.leave();
        return detach::run(context.folder_path(), args, number);
    }
    let reporter =
        Reporter::new(&queue, start.info(), args.quiet).map_err(|error| cut_short_by(&error, start.info()))?;
    let reporter = Arc::new(reporter);
    let options = PoolOptions {
        workers: args.jobs.unwrap_or_else(cores),
        serves: Serves::Run(lane),
        until_empty: true,
        log: None,
    };
    let folder = Folder::make(queue.folder())?;
    let is_still_it = |queue: &Queue| {
        let found = queue.read(|snapshot| snapshot.run(lane))?;
        Ok(found.is_some_and(|run| (run.created, run.line) == (start.info().created, start.info().line.clone())))
    };
    let end = start_pool(context, queue, &options, &(Arc::clone(&reporter) as _), is_still_it).and_then(|pool| {
        let looker = Queue::open_read_only(&folder, Box::new(|| {}));
        let end = pool.run()?;
        Ok((looker?, end))
    });
    reporter.close();
    let (queue, end) = end?;
    let took = clock.elapsed().saturating_sub(started);
    let summary = Summary::read(&queue, start.info(), Some(took))?;
    let verdict = summary.tell(args.quiet, end);
    queue.leave();
    verdict
}

/// In the background process: the run is stored.
fn work_on(context: &Context, args: &args::Run, number: u64) -> Result<Exit, Failure> {
    let queue = context.open()?;
    let run = runs::named(&queue, args::RunName::Numbered(number))?;
    let log = detach::log_path(queue.folder());
    let journal = Arc::new(Journal::to_file(&log)?);
    let options = PoolOptions {
        workers: args.jobs.unwrap_or_else(cores),
        serves: Serves::Run(run.lane),
        until_empty: true,
        log: Some(log),
    };
    let pool = Pool::start(queue, options, Arc::clone(&journal) as Arc<dyn Observer>)?;
    detach::tell_ready(pool.id())?;
    journal.note(&format!("run {number}: {} of {} to go", run.unfinished(), human::count(run.total(), "job")));
    let end = pool.run();
    match &end {
        Ok(PoolEnd::Stopped) => journal.note(&format!("run {number} stopped")),
        Ok(PoolEnd::Empty) => journal.note(&format!("run {number} ended")),
        Err(error) => journal.note(&format!("run {number} stopped: {}", human::plain(&error.to_string()))),
    }
    journal.close();
    end?;
    Ok(Exit::Done)
}

impl Input {
    /// Leaves out what completed in earlier runs of this folder; says whether anything is left. A run that was cut off
    /// goes on as it is.
    fn skip_completed(&mut self, queue: &Queue, args: &args::Run) -> Result<bool, Failure> {
        let Jobs::Batch(batch) = &mut self.jobs else { return Ok(true) };
        if cut_off(queue, &self.run, args.fresh)?.is_some() {
            return Ok(true);
        }
        let mut completed = queue.read(|snapshot| snapshot.completed_in(&self.run.folder))?;
        let skipped = batch.leave_out(&self.base, |spec| completed.take(spec))?;
        let left = batch.survey.jobs;
        if !args.quiet {
            let verb = if skipped == 1 { "is" } else { "are" };
            let rest = if left == 0 { "; nothing is left to do".to_owned() } else { format!("; {left} to go") };
            say(format_args!("{} completed before {verb} skipped{rest}", human::count(skipped, "line")));
        }
        Ok(left > 0)
    }

    /// Continues the run, or begins it: in one transaction if its jobs are few, else in pieces.
    fn start(&mut self, context: &Context, queue: &mut Queue, args: &args::Run) -> Result<RunStart, Failure> {
        let (lines, specs) = match &mut self.jobs {
            Jobs::Command(spec) => (vec![1], vec![spec.clone()]),
            Jobs::Batch(batch) if batch.survey.few.is_some() => batch.all(&self.base)?,
            Jobs::Batch(batch) => {
                // What goes on needs no second look at its input.
                if let Some(cut_off) = cut_off(queue, &self.run, args.fresh)? {
                    return Ok(RunStart::Continued(cut_off));
                }
                if !takes_over(queue, batch, &self.run, args.resume)? {
                    return start_many(context, queue, batch, &self.run, &self.base, args.fresh);
                }
                batch.all(&self.base)?
            }
        };
        let start = |queue: &Queue| {
            past_bulks(queue, say_waiting, || queue.write(|tx| tx.start_run(&self.run, &specs, args.fresh)))
        };
        context.first(queue, start).map_err(|error| explain(error, &specs, &lines))
    }
}

/// The run that is continued instead of beginning `run`.
fn cut_off(queue: &Queue, run: &NewRun, fresh: bool) -> Result<Option<RunInfo>, StoreError> {
    if fresh { Ok(None) } else { queue.read(|snapshot| snapshot.newest_cut_off(run.identity)) }
}

/// Whether the jobs may take ids over from those of an earlier run: that and the new run are one transaction, however
/// many they are, as nobody may see the one without the other.
fn takes_over(queue: &Queue, batch: &Batch, run: &NewRun, resumes: bool) -> Result<bool, StoreError> {
    let earlier = || queue.read(|snapshot| snapshot.run_before(run.identity, LaneId(u64::MAX)));
    Ok(batch.survey.has_ids && (resumes || earlier()?.is_some()))
}

fn start_many(
    context: &Context,
    queue: &mut Queue,
    batch: &mut Batch,
    run: &NewRun,
    base: &Base,
    fresh: bool,
) -> Result<RunStart, Failure> {
    let start = batch.store(context, queue, &BulkInto::Run, base, |(), _| {}, |bulk| bulk.publish_run(run, fresh))?;
    if start.was_asked_to_stop {
        return Err(cut_short(start.published.info()));
    }
    Ok(start.published)
}

/// Stopped, and to be continued.
fn cut_short(run: &RunInfo) -> Failure {
    Failure::new(Exit::Stopped, "stopped before the end; what is left is kept").next(runs::continue_line(run))
}

/// The run is stored, but nobody works on it.
fn cut_short_by(error: &io::Error, run: &RunInfo) -> Failure {
    Failure::new(Exit::Other, format!("{error}; the run is kept")).next(runs::continue_line(run))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn read(context: &Context, args: &args::Run) -> Result<Input, Failure> {
    let asked = Asked {
        max_retries: args.max_retries,
        // A run's jobs do not follow the setting.
        timeout: Some(args.timeout.unwrap_or(TimeLimit::Unlimited)),
        name: args.name.clone(),
        tags: all_tags(&args.tags)?,
        ..Asked::default()
    };
    let flags = flags(args, &asked);
    let base = Base { asked, ..context.base() };
    let prefix = identity_prefix(args, context.cwd.as_os_str());
    let (jobs, identity) = match &args.file {
        None => {
            let words: Vec<Vec<u8>> = args.argv.iter().cloned().map(OsString::into_vec).collect();
            let identity = xxh3_128(&[prefix, words.join(&0)].concat());
            (Jobs::Command(input::argv(words, &base).map_err(wrong_input)?), identity)
        }
        Some(file) => {
            let format = match (args.lines, args.jsonl) {
                (true, _) => Format::Lines,
                (_, true) => Format::JsonLines,
                (false, false) => Format::Auto,
            };
            let batch = Batch::look_at(file, format, &base, &prefix)?;
            if let Some(line) = batch.survey.first_key {
                let what = "a run takes no `key`: `queuectl run --resume` skips what completed before";
                return Err(Failure::new(Exit::Usage, format!("line {line}: {what}")).of(&batch.name));
            }
            let identity = batch.survey.digest;
            (Jobs::Batch(batch), identity)
        }
    };
    let is_command = matches!(jobs, Jobs::Command(_));
    let folder = context.cwd.clone();
    let run = NewRun { identity, line: line(args), folder, flags, is_command, resumes: args.resume };
    Ok(Input { jobs, run, base })
}

/// A run's identity is the whole input, after how it is read, and the folder.
fn identity_prefix(args: &args::Run, cwd: &OsStr) -> Vec<u8> {
    let kind = match (args.argv.is_empty(), args.lines, args.jsonl) {
        (false, _, _) => b"argv",
        (true, true, _) => b"line",
        (true, _, true) => b"json",
        (true, false, false) => b"auto",
    };
    [kind.as_slice(), cwd.as_bytes(), b""].join(&0)
}

/// The line as it was typed, to be typed again.
fn line(args: &args::Run) -> String {
    let words: Vec<String> = std::env::args_os().map(|word| shell_word(&word.to_string_lossy())).collect();
    let words = words.join(" ");
    if args.file.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        format!("{}{words}", runs::SAME_INPUT)
    } else {
        words
    }
}

/// The flags that stay with the jobs.
fn flags(args: &args::Run, asked: &Asked) -> String {
    let retries = args.max_retries.map(|retries| format!("--max-retries {retries}"));
    let timeout = args.timeout.map(|timeout| format!("--timeout {timeout}"));
    let name = asked.name.as_ref().map(|name| format!("--name {}", shell_word(name.as_str())));
    let tags = asked.tags.iter().map(|(key, value)| format!("--tag {}", shell_word(&format!("{key}={value}"))));
    retries.into_iter().chain(timeout).chain(name).chain(tags).collect::<Vec<_>>().join(" ")
}

fn tell_start(queue: &Queue, start: &RunStart, new: &NewRun) -> Result<(), StoreError> {
    let run = match start {
        RunStart::New(run) => return tell_new(queue, run, new),
        RunStart::Continued(run) => run,
    };
    let serves = Serves::Run(run.lane);
    let others = queue.read(Snapshot::pools)?;
    let other =
        others.iter().find(|pool| pool.ended.is_none() && pool.serves == serves && worker::is_alive(queue, &pool.id));
    let left = format!("{} of {} to go", run.unfinished(), human::count(run.total(), "job"));
    match other {
        Some(pool) => say(format_args!("joining run {}, which process {} works on: {left}", run.number, pool.pid)),
        None => say(format_args!("continuing run {}: {left} (--fresh begins anew)", run.number)),
    }
    if run.flags != new.flags {
        let flags = if run.flags.is_empty() { "default flags".to_owned() } else { human::plain(&run.flags) };
        say(format_args!(
            "its jobs keep the flags that they were enqueued with, or what `retry` and `edit` gave them since: {flags}"
        ));
    }
    Ok(())
}

/// A line that was typed before and begins anew all the same: that is said, since it may not be what was wanted.
fn tell_new(queue: &Queue, run: &RunInfo, new: &NewRun) -> Result<(), StoreError> {
    let (before, unfinished, newest) = queue.read(|snapshot| {
        let before = snapshot.run_before(new.identity, run.lane)?;
        // Where the same input was run before, that is said instead. Standard input is another each time.
        let is_told = before.is_none() && !new.resumes && !new.line.starts_with(runs::SAME_INPUT);
        let newest = if is_told { snapshot.newest_runs(RUNS_LOOKED_AT)? } else { Vec::new() };
        Ok((before, snapshot.unfinished_runs()?, newest))
    })?;
    if let Some(before) = before.filter(|before| before.unfinished() == 0 && !new.resumes) {
        let instead = if run.is_command { "" } else { " (--resume skips what completed)" };
        let (number, counts) = (before.number, runs::counts(&before));
        say(format_args!("run {number} of this input has ended ({counts}); beginning anew{instead}"));
    }
    let same_line = |other: &&RunInfo| other.lane != run.lane && other.line == new.line && other.folder == new.folder;
    if let Some(other) = newest.iter().find(same_line).filter(|other| other.unfinished() == 0) {
        let number = other.number;
        say(format_args!(
            "run {number} of this line had another input; this is another run (--resume skips what completed)"
        ));
    }
    for other in unfinished.iter().filter(same_line) {
        let (number, how) = (other.number, runs::unfinished(other, &queue.read(Snapshot::pools)?));
        say(format_args!("run {number} of this line {how}; its input has changed since, and this is another run"));
    }
    Ok(())
}

/// What a run came to.
pub(crate) struct Summary {
    pub run: RunInfo,
    /// How many of its jobs were removed while it was at work: nobody can tell how those ended.
    removed: u64,
    dead: Vec<Job>,
    /// How long it was worked on, if that is known.
    took: Option<Duration>,
}

impl Summary {
    /// Of a run as it is now, which was `begun`.
    pub(crate) fn read(queue: &Queue, begun: &RunInfo, took: Option<Duration>) -> Result<Self, Failure> {
        let lane = begun.lane;
        let (run, mut dead) =
            queue.read(|snapshot| Ok((snapshot.run(lane)?, snapshot.dead_of_lane(lane, DEAD_NAMED_MAX)?)))?;
        // It goes with the last of its jobs.
        let run = run.unwrap_or_else(|| RunInfo { counts: BTreeMap::new(), ..begun.clone() });
        let removed = begun.total().saturating_sub(run.total());
        // As they stand in the input.
        dead.sort_by_key(|job| job.seq);
        Ok(Self { run, removed, dead, took })
    }

    fn count(&self, kind: StateKind) -> u64 {
        self.run.counts.get(&kind).copied().unwrap_or_default()
    }

    /// How many did not complete.
    fn failed(&self) -> u64 {
        self.count(StateKind::Dead) + self.count(StateKind::Cancelled) + self.removed
    }

    /// Says what its jobs have come to, unless that is as it should be and `quiet`.
    pub(crate) fn tell_counts(&self, quiet: bool, end: PoolEnd) {
        if !quiet || self.failed() + self.run.unfinished() > 0 || end == PoolEnd::Stopped {
            let removed = if self.removed > 0 { format!("{} removed", self.removed) } else { String::new() };
            let parts: Vec<String> =
                [runs::counts(&self.run), removed].into_iter().filter(|part| !part.is_empty()).collect();
            let took = self.took.map(|took| format!(" in {}", human::about(took))).unwrap_or_default();
            say(format_args!("run {}: {}{took}", self.run.number, parts.join(", ")));
        }
    }

    /// Says what it came to, and how that exits.
    pub(crate) fn tell(&self, quiet: bool, end: PoolEnd) -> Result<Exit, Failure> {
        let failed = self.failed();
        self.tell_counts(quiet, end);
        if end == PoolEnd::Stopped && self.run.unfinished() > 0 {
            return Err(cut_short(&self.run));
        }
        if self.run.unfinished() > 0 {
            return Err(self.left());
        }
        self.name_the_dead();
        let exit = self.exit(failed);
        match self.dead.first() {
            None if failed == 0 => Ok(exit),
            None if self.count(StateKind::Cancelled) == 0 => Err(Failure::silent(exit).next("queuectl list")),
            None => Err(Failure::silent(exit).next("queuectl list --state cancelled")),
            Some(dead) => {
                say(format_args!("to see what it wrote, type: queuectl logs {}", dead.id));
                let what = if self.count(StateKind::Dead) == 1 { dead.id.to_string() } else { "--all-dead".to_owned() };
                Err(Failure::silent(exit).next(format_args!("queuectl retry {what}    then the same line again")))
            }
        }
    }

    /// What waits for a person, and what waits for that.
    fn left(&self) -> Failure {
        let left = human::count(self.run.unfinished(), "job");
        let failure =
            Failure::new(Exit::JobsFailed, format!("{left} cannot go on without you: held, or after what is"));
        failure.next("queuectl list --state scheduled    tells which; queuectl resume ID, then the same line again")
    }

    fn name_the_dead(&self) {
        for job in &self.dead {
            let why = job.last_attempt.as_ref().and_then(|last| last.error.clone());
            let why = why.unwrap_or_else(|| job.progress.state.reason().unwrap_or("failed").to_owned());
            let attempts = human::count(u64::from(job.progress.attempts), "attempt");
            let command = human::plain(&job.command.to_string());
            let called = human::called(job.id.as_str(), job.name.as_ref());
            say(format_args!("✗ job {called} is dead after {attempts} ({}): {command}", human::plain(&why)));
        }
        let more = self.count(StateKind::Dead).saturating_sub(self.dead.len() as u64);
        if more > 0 {
            say(format_args!("and {more} more: queuectl dlq list"));
        }
    }

    /// `run -- CMD` gives CMD's own code.
    fn exit(&self, failed: u64) -> Exit {
        let last = self.dead.first().and_then(|job| job.last_attempt.as_ref()).filter(|_| self.run.is_command);
        match last {
            _ if failed == 0 => Exit::Done,
            Some(last) if last.outcome == Outcome::TimedOut => Exit::Of(TIMED_OUT),
            Some(last) => {
                let code = last.exit_code.or_else(|| last.signal.map(|signal| SIGNALLED + signal));
                code.and_then(|code| u8::try_from(code).ok()).map_or(Exit::JobsFailed, Exit::Of)
            }
            None => Exit::JobsFailed,
        }
    }
}
