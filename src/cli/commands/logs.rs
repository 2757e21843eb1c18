//! `logs`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use super::super::args;
use super::super::context::Context;
use super::super::exit::{Exit, Failure};
use super::list::{activities, activity_of};
use super::show::find;
use super::wait::ring;
use crate::model::{Output, Seq, State, Stream};
use crate::queue::Queue;
use crate::store::StoreError;
use crate::worker::{Bell, output_path};

pub(crate) fn logs(context: &Context, args: &args::Logs) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let seq = find(&queue, &args.id)?;
    let streams: Vec<Stream> = match (args.stdout, args.stderr) {
        (true, _) => vec![Stream::Stdout],
        (_, true) => vec![Stream::Stderr],
        (false, false) => Stream::ALL.to_vec(),
    };
    if args.follow {
        return follow(&queue, seq, &streams);
    }
    let attempt = match args.attempt {
        Some(attempt) => attempt,
        None => match last_attempt(&queue, seq)? {
            Some(attempt) => attempt,
            None => return Err(Failure::new(Exit::Refused, format!("job {} has not started yet", args.id))),
        },
    };
    for stream in streams {
        if !print(&queue, seq, attempt, stream, 0)? {
            return Err(Failure::new(Exit::NotFound, format!("job {} has no attempt {attempt}", args.id))
                .next(format_args!("queuectl show {}", args.id)));
        }
    }
    queue.leave();
    Ok(Exit::Done)
}

/// The attempt that runs, else the last that ended.
fn last_attempt(queue: &Queue, seq: Seq) -> Result<Option<u32>, Failure> {
    let activities = activities(queue)?;
    let job = queue.read(|snapshot| snapshot.job(seq))?;
    Ok(job.and_then(|job| {
        let running = activity_of(&job, &activities).map(|run| run.attempt);
        running.or((job.progress.attempts > 0).then_some(job.progress.attempts))
    }))
}

/// Prints a stream of an attempt, from a byte on. Says whether there is such an attempt.
pub(crate) fn print(queue: &Queue, seq: Seq, attempt: u32, stream: Stream, from: u64) -> Result<bool, Failure> {
    let kept = queue.read(|snapshot| snapshot.output(seq, attempt, stream))?;
    match kept {
        Some(Output::Empty) => Ok(true),
        Some(Output::Inline(bytes)) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            to_stream(stream, &mut &bytes[from..])?;
            Ok(true)
        }
        // A file that grew after the end, by what was left in the background, is printed as it was.
        Some(Output::File { bytes, .. }) => copy_file(queue, seq, attempt, stream, from, bytes).map(|_| true),
        None => Ok(copy_file(queue, seq, attempt, stream, from, u64::MAX)?.is_some()),
    }
}

/// Prints a file from a byte up to another; answers where it stopped, or that there is no file.
fn copy_file(
    queue: &Queue,
    seq: Seq,
    attempt: u32,
    stream: Stream,
    from: u64,
    to: u64,
) -> Result<Option<u64>, Failure> {
    let path = output_path(queue.folder(), seq, attempt, stream);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(Exit::Other, format!("cannot read {}: {error}", path.display()))),
    };
    file.seek(io::SeekFrom::Start(from))?;
    let copied = to_stream(stream, &mut file.take(to.saturating_sub(from)))?;
    Ok(Some(from + copied))
}

/// Copies bytes as they are to the stream that they were written to.
pub(crate) fn to_stream(stream: Stream, from: &mut impl Read) -> io::Result<u64> {
    match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            let copied = io::copy(from, &mut out)?;
            out.flush()?;
            Ok(copied)
        }
        Stream::Stderr => io::copy(from, &mut io::stderr().lock()),
    }
}

/// Prints what a job writes as it writes it, until it has ended for good. The next attempt follows the last.
fn follow(queue: &Queue, seq: Seq, streams: &[Stream]) -> Result<Exit, Failure> {
    let mut bell = Bell::new(queue.folder())?;
    let mut followed = Followed::default();
    loop {
        let (job, attempts) = queue.read(|snapshot| {
            let job = snapshot.job(seq)?;
            Ok((job.as_ref().map(|job| job.progress.clone()), job.map_or(0, |job| job.progress.attempts)))
        })?;
        let Some(progress) = job else { return Err(StoreError::Damaged("the job is gone".to_owned()).into()) };
        let running = matches!(progress.state, State::Processing(_)).then_some(attempts + 1);
        followed.catch_up(queue, seq, streams, attempts, running, &mut bell)?;
        if progress.state.kind().has_ended() {
            return Ok(Exit::Done);
        }
        ring(queue, &mut bell, None)?;
    }
}

/// How far a job's output was printed.
#[derive(Default)]
struct Followed {
    attempt: u32,
    printed: [u64; 2],
    watched: [bool; 2],
}

impl Followed {
    fn catch_up(
        &mut self,
        queue: &Queue,
        seq: Seq,
        streams: &[Stream],
        ended: u32,
        running: Option<u32>,
        bell: &mut Bell,
    ) -> Result<(), Failure> {
        if self.attempt == 0 {
            // Earlier attempts are history: begin with the last.
            self.begin(running.unwrap_or(ended).max(1));
        }
        while self.attempt <= ended {
            for stream in streams {
                print(queue, seq, self.attempt, *stream, self.printed[*stream as usize])?;
            }
            self.begin(self.attempt + 1);
        }
        if running == Some(self.attempt) {
            for stream in streams {
                self.print_growing(queue, seq, *stream, bell)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, attempt: u32) {
        *self = Self { attempt, ..Self::default() };
    }

    fn print_growing(&mut self, queue: &Queue, seq: Seq, stream: Stream, bell: &mut Bell) -> Result<(), Failure> {
        let at = stream as usize;
        if !self.watched[at] {
            // It may not be there yet: the bell rings for `run/` only later, so the file is tried again then.
            self.watched[at] = bell.also_watch(&output_path(queue.folder(), seq, self.attempt, stream)).is_ok();
        }
        if let Some(printed) = copy_file(queue, seq, self.attempt, stream, self.printed[at], u64::MAX)? {
            self.printed[at] = printed;
        }
        Ok(())
    }
}
