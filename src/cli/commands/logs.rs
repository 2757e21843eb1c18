//! `logs`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use super::super::args;
use super::super::context::Context;
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::terminal::JobOutput;
use super::list::{activities, activity_of};
use super::show::find;
use super::wait::{ring, tell_if_nobody_works};
use crate::model::{Output, Seq, State, Stream};
use crate::queue::Queue;
use crate::store::StoreError;
use crate::worker::{Activity, Bell, board_path, output_path, resume_at, spool_path};

pub(crate) fn logs(context: &Context, args: &args::Logs) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let seq = find(&queue, &args.id)?;
    let streams: Vec<Stream> = match (args.stdout, args.stderr) {
        (true, _) => vec![Stream::Stdout],
        (_, true) => vec![Stream::Stderr],
        (false, false) => Stream::ALL.to_vec(),
    };
    let mut out = JobOutput::new(args.raw);
    if args.follow {
        return follow(&queue, seq, &streams, &mut out);
    }
    if args.attempt.is_none()
        && let Some(run) = running(&queue, seq)?
    {
        for stream in streams {
            copy_growing(&queue, &run, stream, 0, &mut out)?;
        }
        out.end()?;
        return Ok(Exit::Done);
    }
    let last = queue.read(|snapshot| Ok(snapshot.job(seq)?.map_or(0, |job| job.progress.attempts)))?;
    let attempt = args.attempt.unwrap_or(last);
    if last == 0 {
        return Err(Failure::new(Exit::Refused, format!("job {} has not started yet", args.id)));
    }
    for stream in streams {
        if !print(&queue, seq, attempt, stream, 0, &mut out)? {
            return Err(Failure::new(Exit::NotFound, format!("job {} has no attempt {attempt}", args.id))
                .next(format_args!("queuectl show {}", args.id)));
        }
    }
    out.end()?;
    queue.leave();
    Ok(Exit::Done)
}

/// The run of a job that goes on.
fn running(queue: &Queue, seq: Seq) -> Result<Option<Activity>, StoreError> {
    let activities = activities(queue)?;
    let job = queue.read(|snapshot| snapshot.job(seq))?;
    Ok(job.and_then(|job| activity_of(&job, &activities).cloned()))
}

/// Prints a stream of an attempt that has ended, from a byte on. Says whether there is such an attempt.
pub(crate) fn print(
    queue: &Queue,
    seq: Seq,
    attempt: u32,
    stream: Stream,
    from: u64,
    out: &mut JobOutput,
) -> Result<bool, Failure> {
    match queue.read(|snapshot| snapshot.output(seq, attempt, stream))? {
        None => return Ok(false),
        Some(Output::Empty) => {}
        Some(Output::Inline(bytes)) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            out.copy(stream, &mut &bytes[from..])?;
        }
        Some(Output::LetGo { bytes }) => {
            let bytes = human::size(bytes);
            let message = format!("the {bytes} that attempt {attempt} wrote were let go: see retain-output");
            return Err(Failure::new(Exit::NotFound, message).next("queuectl config get retain-output"));
        }
        Some(Output::File { bytes, left_out }) => {
            let path = output_path(queue.folder(), seq, attempt, stream);
            if copy_file(open(&path)?, stream, resume_at(from, bytes, left_out), bytes, out)?.is_none() {
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

/// Prints what a run has written since a byte; answers up to where. What is open here is not used for another run,
/// but it may have been before it was opened: then nothing is printed.
fn copy_growing(queue: &Queue, run: &Activity, stream: Stream, from: u64, out: &mut JobOutput) -> Result<u64, Failure> {
    let file = open(&spool_path(queue.folder(), &run.worker.pool, run.spool, stream))?;
    let still_runs = activities(queue)?.get(&run.seq).is_some_and(|now| now.lease == run.lease);
    Ok(if still_runs { copy_file(file, stream, from, u64::MAX, out)?.unwrap_or(from) } else { from })
}

/// Prints a file from a byte up to another, without its holes: what a pool has given back to the disk. Answers where
/// it stopped, or that there is no file.
fn copy_file(
    file: Option<File>,
    stream: Stream,
    from: u64,
    to: u64,
    out: &mut JobOutput,
) -> Result<Option<u64>, Failure> {
    let Some(mut file) = file else { return Ok(None) };
    let end = file.metadata()?.len().min(to);
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

/// Prints what a job writes as it writes it, until it has ended for good. The next attempt follows the last.
fn follow(queue: &Queue, seq: Seq, streams: &[Stream], out: &mut JobOutput) -> Result<Exit, Failure> {
    let mut bell = Bell::new(queue.folder())?;
    let mut followed = Followed::default();
    let (mut boards, mut told) = (BTreeSet::new(), false);
    loop {
        let running = running(queue, seq)?;
        let progress = queue.read(|snapshot| Ok(snapshot.job(seq)?.map(|job| job.progress)))?;
        let Some(progress) = progress else { return Err(removed_meanwhile()) };
        followed.catch_up(queue, seq, streams, progress.attempts, running.as_ref(), &mut bell, out)?;
        if progress.state.kind().has_ended() {
            return Ok(Exit::Done);
        }
        if let (State::Processing(claimed), None) = (&progress.state, &running) {
            // Its start is no commit: it is seen on the board of its pool.
            if boards.insert(claimed.pool.clone()) {
                bell.also_watch(&board_path(queue.folder(), &claimed.pool))?;
                continue;
            }
        }
        if !std::mem::replace(&mut told, true) {
            tell_if_nobody_works(queue)?;
        }
        ring(queue, &mut bell, None)?;
    }
}

/// How far a job's output was printed.
#[derive(Default)]
struct Followed {
    attempt: u32,
    printed: [u64; 2],
    watched: bool,
}

impl Followed {
    #[allow(clippy::too_many_arguments, reason = "they are what following takes")]
    fn catch_up(
        &mut self,
        queue: &Queue,
        seq: Seq,
        streams: &[Stream],
        ended: u32,
        running: Option<&Activity>,
        bell: &mut Bell,
        out: &mut JobOutput,
    ) -> Result<(), Failure> {
        if self.attempt == 0 {
            // Earlier attempts are history: begin with the last.
            self.begin(running.map_or(ended, |run| run.attempt).max(1));
        }
        while self.attempt <= ended {
            for stream in streams {
                print(queue, seq, self.attempt, *stream, self.printed[*stream as usize], out)?;
            }
            out.end()?;
            self.begin(self.attempt + 1);
        }
        if let Some(run) = running.filter(|run| run.attempt == self.attempt) {
            self.print_growing(queue, run, streams, bell, out)?;
        }
        Ok(())
    }

    fn begin(&mut self, attempt: u32) {
        *self = Self { attempt, ..Self::default() };
    }

    fn print_growing(
        &mut self,
        queue: &Queue,
        run: &Activity,
        streams: &[Stream],
        bell: &mut Bell,
        out: &mut JobOutput,
    ) -> Result<(), Failure> {
        for stream in streams {
            if !self.watched {
                bell.also_watch(&spool_path(queue.folder(), &run.worker.pool, run.spool, *stream))?;
            }
            let printed = &mut self.printed[*stream as usize];
            *printed = copy_growing(queue, run, *stream, *printed, out)?;
        }
        self.watched = true;
        Ok(())
    }
}
