//! `logs`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use super::super::args;
use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::terminal::JobOutput;
use super::super::{selected, tail, why};
use super::list::{activities, activity_of};
use super::show::find;
use super::wait::ring;
use crate::model::{Filter, JobId, Output, Seq, State, Stream};
use crate::queue::Queue;
use crate::store::StoreError;
use crate::worker::{Activity, Bell, Told, board_path, output_path, resume_at, spool_path};

/// From where on a stream is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// From this byte on.
    Byte(u64),
    /// So many lines before its end.
    Last(usize),
}

/// What is printed of each job.
struct Wanted {
    streams: Vec<Stream>,
    /// The last one if this is none.
    attempt: Option<u32>,
    start: Start,
    raw: bool,
    /// Whether they are several: then each line tells whose it is.
    of_several: bool,
}

/// A job whose output is printed.
struct Printed {
    seq: Seq,
    id: JobId,
}

/// Why there is nothing to print.
enum Nothing {
    NotStarted,
    NoAttempt(u32),
}

pub(crate) fn logs(context: &Context, args: &args::Logs) -> Result<Exit, Failure> {
    if args.ids.is_empty() && !args.filters.are_given() {
        return Err(selected::unsaid("logs", "--run last"));
    }
    let queue = context.open_read_only()?;
    let wanted = Wanted::of(args);
    if args.filters.are_given() {
        let filter = args.filters.resolve(&queue)?;
        return logs_of_filter(queue, &wanted, &filter, args.follow);
    }
    let mut jobs = Vec::new();
    for id in &args.ids {
        jobs.push(Printed { seq: find(&queue, id)?, id: id.clone() });
    }
    if args.follow {
        return follow(&queue, jobs, &wanted);
    }
    // All or nothing.
    for job in &jobs {
        match what_to_print(&queue, job.seq, &wanted)? {
            Ok(_) => {}
            Err(Nothing::NotStarted) => {
                return Err(Failure::new(Exit::Refused, format!("job {} has not started yet", job.id))
                    .next(format_args!("queuectl logs -f {}    waits for it", job.id)));
            }
            Err(Nothing::NoAttempt(attempt)) => {
                return Err(Failure::new(Exit::NotFound, format!("job {} has no attempt {attempt}", job.id))
                    .next(format_args!("queuectl show {}", job.id)));
            }
        }
    }
    for job in &jobs {
        print_job(&queue, job, &wanted)?;
    }
    queue.leave();
    Ok(Exit::Done)
}

fn logs_of_filter(queue: Queue, wanted: &Wanted, filter: &Filter, follows: bool) -> Result<Exit, Failure> {
    let (mut followed, mut printed) = (Vec::new(), 0);
    let (found, _) = selected::pages(&queue, filter, usize::MAX, |jobs| {
        for job in jobs {
            let job = Printed { seq: job.seq, id: job.id.clone() };
            if follows {
                followed.push(job);
            } else {
                printed += u64::from(print_job(&queue, &job, wanted)?);
            }
        }
        Ok(())
    })?;
    match (found, wanted.attempt) {
        (0, _) => say(format_args!("{}", selected::none(filter))),
        _ if follows => return follow(&queue, followed, wanted),
        (_, Some(attempt)) if printed == 0 => say(format_args!("{}; none has an attempt {attempt}", matching(found))),
        (_, None) if printed == 0 => say(format_args!("{}; none has started yet", matching(found))),
        _ => {}
    }
    queue.leave();
    Ok(Exit::Done)
}

/// That a filter lets so many through.
fn matching(found: usize) -> String {
    format!("{} {}", human::count(found as u64, "job"), if found == 1 { "matches" } else { "match" })
}

impl Wanted {
    fn of(args: &args::Logs) -> Self {
        let streams = match (args.stdout, args.stderr) {
            (true, _) => vec![Stream::Stdout],
            (_, true) => vec![Stream::Stderr],
            (false, false) => Stream::ALL.to_vec(),
        };
        let start = args.tail.map_or(Start::Byte(0), Start::Last);
        let of_several = args.ids.len() > 1 || args.filters.are_given();
        Self { streams, attempt: args.attempt, start, raw: args.raw, of_several }
    }

    /// Where a job's output goes.
    fn output(&self, id: &JobId) -> JobOutput {
        let out = JobOutput::new(self.raw);
        if self.of_several { out.with_prefix(&format!("{id} | ")) } else { out }
    }
}

/// A run that goes on, or else the number of an attempt that has ended.
fn what_to_print(queue: &Queue, seq: Seq, wanted: &Wanted) -> Result<Result<Option<Activity>, Nothing>, StoreError> {
    if wanted.attempt.is_none()
        && let Some(run) = running(queue, seq)?
    {
        return Ok(Ok(Some(run)));
    }
    let last = queue.read(|snapshot| Ok(snapshot.job(seq)?.map_or(0, |job| job.progress.attempts)))?;
    Ok(match wanted.attempt {
        _ if last == 0 => Err(Nothing::NotStarted),
        Some(attempt) if !(1..=last).contains(&attempt) => Err(Nothing::NoAttempt(attempt)),
        Some(_) | None => Ok(None),
    })
}

/// Prints what a job wrote; says whether there was anything to print from.
fn print_job(queue: &Queue, job: &Printed, wanted: &Wanted) -> Result<bool, Failure> {
    let mut out = wanted.output(&job.id);
    match what_to_print(queue, job.seq, wanted)? {
        Err(_) => return Ok(false),
        Ok(Some(run)) => {
            for stream in &wanted.streams {
                copy_growing(queue, &run, *stream, wanted.start, &mut out)?;
            }
        }
        Ok(None) => {
            let last = || queue.read(|snapshot| Ok(snapshot.job(job.seq)?.map_or(0, |job| job.progress.attempts)));
            let attempt = wanted.attempt.map_or_else(last, Ok)?;
            for stream in &wanted.streams {
                print(queue, job.seq, attempt, *stream, wanted.start, &mut out)?;
            }
        }
    }
    out.end()?;
    Ok(true)
}

/// The run of a job that goes on.
fn running(queue: &Queue, seq: Seq) -> Result<Option<Activity>, StoreError> {
    let activities = activities(queue)?;
    let job = queue.read(|snapshot| snapshot.job(seq))?;
    Ok(job.and_then(|job| activity_of(&job, &activities).cloned()))
}

/// Prints a stream of an attempt that has ended. Says whether there is such an attempt.
pub(crate) fn print(
    queue: &Queue,
    seq: Seq,
    attempt: u32,
    stream: Stream,
    start: Start,
    out: &mut JobOutput,
) -> Result<bool, Failure> {
    match queue.read(|snapshot| snapshot.output(seq, attempt, stream))? {
        None => return Ok(false),
        Some(Output::Empty) => {}
        Some(Output::Inline(bytes)) => {
            let from = match start {
                Start::Byte(from) => usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len()),
                Start::Last(lines) => tail::start_in(&bytes, lines),
            };
            out.copy(stream, &mut &bytes[from..])?;
        }
        Some(Output::LetGo { bytes }) => {
            let bytes = human::size(bytes);
            let message = format!("the {bytes} that attempt {attempt} wrote were let go: see retain-output");
            return Err(Failure::new(Exit::NotFound, message).next("queuectl config get retain-output"));
        }
        Some(Output::File { bytes, left_out }) => {
            let path = output_path(queue.folder(), seq, attempt, stream);
            let start = match start {
                Start::Byte(from) => Start::Byte(resume_at(from, bytes, left_out)),
                last @ Start::Last(_) => last,
            };
            if copy_file(open(&path)?, stream, start, bytes, out)?.is_none() {
                if queue.read(|snapshot| snapshot.state(seq))?.is_none() {
                    return Err(removed_meanwhile());
                }
                let missing = format!("the output is missing: there is no {}", human::path(&path));
                return Err(Failure::new(Exit::QueueUnusable, missing));
            }
        }
    }
    Ok(true)
}

/// Somebody removed the job while it was looked at.
fn removed_meanwhile() -> Failure {
    Failure::new(Exit::NotFound, "the job was removed meanwhile").next("queuectl list")
}

fn open(path: &Path) -> Result<Option<File>, Failure> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(Exit::Other, format!("cannot read {}: {error}", human::path(path)))),
    }
}

/// Prints what a run has written; answers up to where. What is open here is not used for another run,
/// but it may have been before it was opened: then nothing is printed.
fn copy_growing(
    queue: &Queue,
    run: &Activity,
    stream: Stream,
    start: Start,
    out: &mut JobOutput,
) -> Result<Start, Failure> {
    let file = open(&spool_path(queue.folder(), &run.worker.pool, run.spool, stream))?;
    let still_runs = activities(queue)?.get(&run.seq).is_some_and(|now| now.lease == run.lease);
    let end = if still_runs { copy_file(file, stream, start, u64::MAX, out)? } else { None };
    Ok(end.map_or(start, Start::Byte))
}

/// Prints a file up to a byte, without its holes: what a pool has given back to the disk. Answers where
/// it stopped, or that there is no file.
fn copy_file(
    file: Option<File>,
    stream: Stream,
    start: Start,
    to: u64,
    out: &mut JobOutput,
) -> Result<Option<u64>, Failure> {
    let Some(mut file) = file else { return Ok(None) };
    let end = file.metadata()?.len().min(to);
    let from = match start {
        Start::Byte(from) => from,
        Start::Last(lines) => tail::start_in_file(&mut file, end, lines)?,
    };
    let mut at = from;
    while at < end {
        // Without data up to the end it answers ENXIO; a file system that knows no holes answers the place itself.
        let Ok(data) = seek(&file, SeekFrom::Data(at)) else { break };
        let hole = seek(&file, SeekFrom::Hole(data)).map_or(end, |hole| hole.min(end));
        file.seek(io::SeekFrom::Start(data))?;
        at = data + out.copy(stream, &mut (&mut file).take(hole.saturating_sub(data)))?;
    }
    Ok(Some(end.max(from)))
}

/// Prints what jobs write as they write it, until all have ended for good. The next attempt of a job follows the last.
fn follow(queue: &Queue, jobs: Vec<Printed>, wanted: &Wanted) -> Result<Exit, Failure> {
    let mut bell = Bell::new(queue.folder())?;
    let mut followed: Vec<Followed> = jobs.into_iter().map(|job| Followed::new(job, wanted)).collect();
    let (mut boards, mut told) = (BTreeSet::new(), Told::default());
    loop {
        let activities = activities(queue)?;
        let mut to_watch = BTreeSet::new();
        let (mut left, mut runs) = (Vec::new(), false);
        for mut one in followed {
            let Some(job) = queue.read(|snapshot| snapshot.job(one.job.seq))? else {
                if wanted.of_several {
                    say(format_args!("job {} was removed meanwhile", one.job.id));
                    continue;
                }
                return Err(removed_meanwhile());
            };
            let running = activity_of(&job, &activities);
            runs |= running.is_some();
            one.catch_up(queue, wanted, job.progress.attempts, running, &mut bell)?;
            if let (State::Processing(claimed), None) = (&job.progress.state, running) {
                // Its start is no commit: it is seen on the board of its pool.
                to_watch.insert(claimed.pool.clone());
            }
            if !job.progress.state.kind().has_ended() {
                left.push(one);
            }
        }
        followed = left;
        if followed.is_empty() {
            return Ok(Exit::Done);
        }
        to_watch.retain(|pool| boards.insert(pool.clone()));
        for pool in &to_watch {
            bell.also_watch(&board_path(queue.folder(), pool))?;
        }
        if !to_watch.is_empty() {
            continue;
        }
        if !runs && let Some(text) = why::standing_still(queue, followed.iter().map(|one| one.job.seq), &mut told)? {
            say(format_args!("{text}"));
        }
        ring(queue, &mut bell, None)?;
    }
}

/// A job that is followed, and how far its output was printed.
struct Followed {
    job: Printed,
    out: JobOutput,
    attempt: u32,
    printed: [Start; 2],
    watched: bool,
}

impl Followed {
    fn new(job: Printed, wanted: &Wanted) -> Self {
        Self { out: wanted.output(&job.id), job, attempt: 0, printed: [wanted.start; 2], watched: false }
    }

    fn catch_up(
        &mut self,
        queue: &Queue,
        wanted: &Wanted,
        ended: u32,
        running: Option<&Activity>,
        bell: &mut Bell,
    ) -> Result<(), Failure> {
        if self.attempt == 0 {
            // Earlier attempts are history: begin with the last.
            self.attempt = running.map_or(ended, |run| run.attempt).max(1);
        }
        while self.attempt <= ended {
            for stream in &wanted.streams {
                let printed = self.printed[*stream as usize];
                print(queue, self.job.seq, self.attempt, *stream, printed, &mut self.out)?;
            }
            self.out.end()?;
            (self.attempt, self.printed, self.watched) = (self.attempt + 1, [Start::Byte(0); 2], false);
        }
        if let Some(run) = running.filter(|run| run.attempt == self.attempt) {
            self.print_growing(queue, run, &wanted.streams, bell)?;
        }
        Ok(())
    }

    fn print_growing(
        &mut self,
        queue: &Queue,
        run: &Activity,
        streams: &[Stream],
        bell: &mut Bell,
    ) -> Result<(), Failure> {
        for stream in streams {
            if !self.watched {
                bell.also_watch(&spool_path(queue.folder(), &run.worker.pool, run.spool, *stream))?;
            }
            let printed = &mut self.printed[*stream as usize];
            *printed = copy_growing(queue, run, *stream, *printed, &mut self.out)?;
        }
        self.watched = true;
        Ok(())
    }
}
