//! Writing: one snapshot of a queue, a line at a time.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::text::{At, Text};
use super::wire::{Chunk, Header, Line, Ran, Setting, Totals, Variables};
use super::{CHUNK_BYTES, VERSION};
use crate::model::{Kept, Millis, QueueName, Seq, Stream};
use crate::store::{Piece, PortableAttempt, Snapshot, StoreError};
use crate::worker::output_path;

/// Something that is left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// It cannot be read.
    Lost(String),
    /// The file of a large output is not there, or not as long as it was.
    Missing(PathBuf),
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub totals: Totals,
    /// Jobs that were processing.
    pub held: u64,
}

/// Why the writing stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The queue cannot be read at all.
    Store(StoreError),
    /// There is nowhere to write to.
    Output(io::Error),
}

/// Writes the queue in `folder` as `snapshot` shows it; `losses` are what is known to be missing from that.
pub(crate) fn write(
    snapshot: &Snapshot,
    folder: &Path,
    now: Millis,
    losses: Vec<String>,
    out: &mut impl Write,
    tell: &mut dyn FnMut(Note),
) -> Result<Written, Stop> {
    let losses = RefCell::new(losses);
    let mut writer = Writer { folder, out, failure: None, written: Written::default(), notes: Vec::new() };
    let header = Line::QueuectlExport(Header { version: VERSION, exported_at: At(now) });
    let done = writer.line(&header).and_then(|()| {
        let mut lose = |what| {
            losses.borrow_mut().push(what);
            Ok(())
        };
        snapshot.pieces(&mut lose, &mut |piece| {
            // Before the last piece, which counts them.
            losses.take().into_iter().for_each(|what| writer.lose(what));
            let done = writer.piece(piece);
            writer.notes.drain(..).for_each(&mut *tell);
            done
        })
    });
    let (failure, written) = (writer.failure, writer.written);
    match (done, failure) {
        (_, Some(error)) => Err(Stop::Output(error)),
        (Err(error), None) => Err(Stop::Store(error)),
        (Ok(()), None) => Ok(written),
    }
}

struct Writer<'a, W> {
    folder: &'a Path,
    out: &'a mut W,
    failure: Option<io::Error>,
    written: Written,
    notes: Vec<Note>,
}

impl<W: Write> Writer<'_, W> {
    fn line(&mut self, line: &Line) -> Result<(), StoreError> {
        let done = serde_json::to_writer(&mut *self.out, line).map_err(io::Error::from);
        done.and_then(|()| self.out.write_all(b"\n")).map_err(|error| {
            let stop = StoreError::Io(error.kind().into());
            self.failure = Some(error);
            stop
        })
    }

    fn piece(&mut self, piece: Piece) -> Result<(), StoreError> {
        let totals = &mut self.written.totals;
        match piece {
            Piece::Setting { queue, key, value } => {
                totals.settings += 1;
                let queue = queue.as_ref().map(QueueName::as_str).map(str::to_owned);
                self.line(&Line::Setting(Setting { queue, key, value }))
            }
            Piece::Run(run) => {
                totals.runs += 1;
                self.line(&Line::Run(run.into()))
            }
            Piece::Environment { key, variables } => {
                totals.environments += 1;
                self.line(&Line::Environment(Variables::of(key, &variables)))
            }
            Piece::Job { job, attempts, was_held } => {
                totals.jobs += 1;
                totals.keys += u64::from(job.spec.key.is_some());
                self.written.held += u64::from(was_held);
                let seq = job.seq;
                self.line(&Line::Job(Box::new((*job).into())))?;
                attempts.into_iter().try_for_each(|attempt| self.attempt(seq, attempt))
            }
            Piece::Counters(counters) => {
                totals.next_seq = counters.next_seq;
                totals.next_lease = counters.next_lease;
                totals.next_run = counters.next_run;
                totals.removed = counters.removed;
                let end = Line::End(*totals);
                self.line(&end)
            }
        }
    }

    fn attempt(&mut self, seq: Seq, attempt: PortableAttempt) -> Result<(), StoreError> {
        self.written.totals.attempts += 1;
        let number = attempt.attempt.number;
        let mut files = Vec::new();
        for (stream, kept) in [(Stream::Stdout, &attempt.stdout), (Stream::Stderr, &attempt.stderr)] {
            if let Kept::File { bytes, .. } = kept {
                // Held open from here on: what is promised now can be read to its end, whoever removes the job.
                files.extend(self.open(seq, number, stream, *bytes).map(|file| (stream, file, *bytes)));
            }
        }
        let has_file = |stream| files.iter().any(|(there, ..)| *there == stream);
        let line = Line::Attempt(Box::new(Ran::of(seq, attempt, has_file)));
        self.line(&line)?;
        files.into_iter().try_for_each(|(stream, file, bytes)| self.output(seq, number, stream, file, bytes))
    }

    /// The file of a large output, if it is as it should be.
    fn open(&mut self, seq: Seq, attempt: u32, stream: Stream, bytes: u64) -> Option<File> {
        let path = output_path(self.folder, seq, attempt, stream);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((len, file)) if len == bytes => return Some(file),
            Ok(_) => self.notes.push(Note::Missing(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.notes.push(Note::Missing(path)),
            Err(error) => self.lose(format!("{}: {error}", path.display())),
        }
        None
    }

    fn lose(&mut self, what: String) {
        self.written.totals.lost += 1;
        self.notes.push(Note::Lost(what));
    }

    fn output(&mut self, seq: Seq, attempt: u32, stream: Stream, mut file: File, bytes: u64) -> Result<(), StoreError> {
        let chunk = |bytes, unreadable| {
            Line::Output(Chunk { seq: seq.0, attempt, stream: stream.into(), bytes: Text(bytes), unreadable })
        };
        let mut left = bytes;
        // The start of a character whose rest is in the next part.
        let mut carried = Vec::new();
        while left > 0 {
            let mut part = std::mem::take(&mut carried);
            let room = CHUNK_BYTES - part.len();
            let wanted = usize::try_from(left).unwrap_or(room).min(room);
            let from = part.len();
            part.resize(from + wanted, 0);
            if let Err(error) = file.read_exact(&mut part[from..]) {
                let path = output_path(self.folder, seq, attempt, stream);
                self.lose(format!("{}: {error}", path.display()));
                return self.line(&chunk(Vec::new(), true));
            }
            left -= wanted as u64;
            if left > 0 {
                carried = part.split_off(whole_characters(&part));
            }
            self.written.totals.output_bytes += part.len() as u64;
            self.line(&chunk(part, false))?;
        }
        Ok(())
    }
}

/// How much of a part stays text if it is cut there: all but the start of a last character, if all before is text.
fn whole_characters(part: &[u8]) -> usize {
    match std::str::from_utf8(part) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => part.len(),
    }
}
