//! A batch: a job a line.
//!
//! - Blank lines, and lines whose first character after blanks is `#`, are no jobs.
//! - A byte order mark and carriage returns at the ends of lines are left by other systems; they are dropped,
//!   and the caller is told.
//! - A first line with a job that starts with `{"` makes it JSON lines: no shell command starts so. Else each
//!   line is a shell command.
//! - A command may have any bytes but NUL. Spaces and tabs around it are dropped, except a blank at its end
//!   that a backslash protects: `ls a\ ` lists `a `.
//! - The last line needs no newline.
//!
//! An input is read twice, line after line, so that a million of them need no room: the first time it is only looked
//! at, and what is wrong with it costs nothing. A digest tells if it was changed meanwhile.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::error::{InputError, Problem, shown};
use super::source::Source;
use super::{Base, Maker, job_json};
use crate::model::{Command, IfExists, JobId, JobKey, JobSpec, LINE_BYTES_MAX, QueueName};
use crate::store::Wanted;

/// How the lines of a batch are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// As the first of them looks.
    Auto,
    /// As shell commands.
    Lines,
    /// As JSON objects.
    JsonLines,
}

/// What was left out of a batch and should be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warning {
    /// Carriage returns at the ends of lines.
    CarriageReturns,
    /// A byte order mark at the start.
    ByteOrderMark,
}

/// The jobs of an input.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    /// Each with its line, from 1.
    pub jobs: Vec<(usize, JobSpec)>,
    /// Each at most once.
    pub warnings: Vec<Warning>,
}

/// Reads a batch. One without jobs is not an error here.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn lines(input: &[u8], format: Format, base: &Base) -> Result<Batch, InputError> {
    let few = Few { jobs: usize::MAX, bytes: u64::MAX };
    let survey = survey(&mut Source::Bytes(input.to_vec()), format, base, b"", few)?;
    Ok(Batch { jobs: survey.few.unwrap_or_default(), warnings: survey.warnings })
}

/// Up to how much the jobs of an input are kept from the first look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Few {
    /// So many jobs.
    pub jobs: usize,
    /// So many bytes of input.
    pub bytes: u64,
}

/// What the first look at an input finds: that all of it can be taken, and what is to be known before that.
#[derive(Debug)]
pub(crate) struct Survey {
    /// How many jobs it has.
    pub jobs: u64,
    /// The jobs with their lines, from 1, if they are few. Else they are to be read once more.
    pub few: Option<Vec<(usize, JobSpec)>>,
    /// Each at most once.
    pub warnings: Vec<Warning>,
    /// Of what was put before the input, and all of its bytes.
    pub digest: u128,
    /// The queues of its jobs.
    pub queues: BTreeSet<QueueName>,
    /// The ids that look like numbers.
    pub wanted: Wanted,
    /// Whether a job has an id.
    pub has_ids: bool,
    /// The first line with a key.
    pub first_key: Option<usize>,
    /// Whether a job may have another retried or replaced, whose key it has.
    pub changes_others: bool,
    /// Whether a job whose key another has is always left out.
    pub keys_skip: bool,
    /// The lines whose key one before them has, in order.
    pub repeats: Vec<Repeat>,
}

/// A line whose key one before it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeat {
    /// It.
    pub line: usize,
    /// The first line of that key.
    pub first: usize,
    /// See [`key_hash`].
    pub key: u128,
    /// What it says to that.
    pub if_exists: IfExists,
}

/// What stands for a key, which would take several times as much room.
pub(crate) fn key_hash(key: &JobKey) -> u128 {
    xxh3_128(key.as_str().as_bytes())
}

/// Looks at an input from beginning to end: each job is checked, that they differ in their ids, and that none waits for a
/// later one.
pub(crate) fn survey(
    source: &mut Source,
    format: Format,
    base: &Base,
    prefix: &[u8],
    few_are: Few,
) -> Result<Survey, InputError> {
    let mut jobs = Jobs::new(source.read()?, format, base, prefix);
    let (mut count, mut few) = (0, Some(Vec::new()));
    let (mut queues, mut wanted) = (BTreeSet::new(), Wanted::default());
    // Of ids only a hash each: they would take several times as much room.
    let (mut ids, mut keys, mut needs) = (Vec::new(), Vec::new(), Vec::new());
    let hash = |id: &JobId| xxh3_128(id.as_str().as_bytes());
    while let Some((line, spec)) = jobs.next()? {
        count += 1;
        if let Some(id) = &spec.id {
            wanted.note(id);
            ids.push((hash(id), line));
        }
        needs.extend(spec.needs.iter().map(|need| (hash(&need.id), line)));
        if let Some(key) = &spec.key {
            keys.push((key_hash(key), line, spec.if_exists));
        }
        if !queues.contains(&spec.queue) {
            queues.insert(spec.queue.clone());
        }
        match &mut few {
            Some(few) if few.len() < few_are.jobs && jobs.bytes_read() <= few_are.bytes => few.push((line, spec)),
            Some(_) => few = None,
            None => {}
        }
    }
    let (warnings, digest, has_ids) = (jobs.warnings(), jobs.digest(), !ids.is_empty());
    drop(jobs);
    ids.sort_unstable();
    if let Some((first, line)) = first_twice(&ids) {
        return Err(twice(source, format, base, first, line)?);
    }
    let line_of = |id: u128| ids.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| ids[at].1);
    if let Some((line, later)) =
        needs.into_iter().find_map(|(id, line)| Some((line, line_of(id).filter(|later| *later >= line)?)))
    {
        return Err(InputError::NeedsLater { line, later });
    }
    let first_key = keys.first().map(|(_, line, _)| *line);
    let changes_others = keys.iter().any(|(.., rule)| matches!(rule, IfExists::Replace | IfExists::Retry));
    let keys_skip = keys.iter().all(|(.., rule)| *rule == IfExists::Skip);
    let repeats = repeats(keys);
    Ok(Survey {
        jobs: count,
        few,
        warnings,
        digest,
        queues,
        wanted,
        has_ids,
        first_key,
        changes_others,
        keys_skip,
        repeats,
    })
}

/// The first line whose id another before it has, and that other. The ids are sorted.
fn first_twice(ids: &[(u128, usize)]) -> Option<(usize, usize)> {
    let twice = ids.chunk_by(|a, b| a.0 == b.0).filter_map(|same| Some((same[0].1, same.get(1)?.1)));
    twice.min_by_key(|(_, line)| *line)
}

/// The lines whose keys others before them have.
fn repeats(mut keys: Vec<(u128, usize, IfExists)>) -> Vec<Repeat> {
    keys.sort_unstable_by_key(|(key, line, _)| (*key, *line));
    let same = keys.chunk_by(|a, b| a.0 == b.0);
    let mut repeats: Vec<Repeat> = same
        .flat_map(|same| {
            let first = same[0].1;
            same[1..].iter().map(move |(key, line, if_exists)| Repeat {
                line: *line,
                first,
                key: *key,
                if_exists: *if_exists,
            })
        })
        .collect();
    repeats.sort_unstable_by_key(|repeat| repeat.line);
    repeats
}

/// In words: the id is read once more.
fn twice(
    source: &mut Source,
    format: Format,
    base: &Base,
    first: usize,
    line: usize,
) -> Result<InputError, InputError> {
    let mut jobs = Jobs::new(source.read()?, format, base, b"");
    while let Some((found, spec)) = jobs.next()? {
        if let Some(id) = spec.id.filter(|_| found == line) {
            return Ok(InputError::DuplicateId { id, first, line });
        }
    }
    Err(InputError::Changed)
}

/// The jobs of an input, one after the other.
pub(crate) struct Jobs<'a, R> {
    lines: Lines<R>,
    format: Format,
    /// Whether they are JSON, once that is known.
    json: Option<bool>,
    maker: Maker<'a>,
}

impl<'a, R: BufRead> Jobs<'a, R> {
    /// Those of an input; `prefix` comes before it in the digest.
    pub(crate) fn new(input: R, format: Format, base: &'a Base, prefix: &[u8]) -> Self {
        Self { lines: Lines::new(input, prefix), format, json: None, maker: Maker::new(base) }
    }

    /// The next job with its line.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, JobSpec)>, InputError> {
        while self.lines.next().map_err(|error| InputError::Unreadable(error.to_string()))? {
            let line = self.lines.line();
            if matches!(line.trim_ascii_start().first(), None | Some(b'#')) {
                continue;
            }
            let looks_json = line.trim_ascii_start().starts_with(b"{\"");
            let json = *self.json.get_or_insert(match self.format {
                Format::JsonLines => true,
                Format::Lines => false,
                Format::Auto => looks_json,
            });
            let number = self.lines.number;
            let made = if self.lines.cut > 0 {
                Err(Problem::LongLine(line.len() + self.lines.cut).into())
            } else {
                job(line, json, &self.maker)
            };
            return made.map(|spec| Some((number, spec))).map_err(|error| error.in_line(number));
        }
        Ok(None)
    }

    /// What was dropped so far.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let marks = self.lines.byte_order_mark.then_some(Warning::ByteOrderMark);
        marks.into_iter().chain(self.lines.carriage_returns.then_some(Warning::CarriageReturns)).collect()
    }

    /// Of the prefix and all that was read.
    pub(crate) fn digest(&self) -> u128 {
        self.lines.hash.digest128()
    }

    /// How many bytes were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.lines.bytes
    }
}

/// The lines of an input, of which one is held at a time.
struct Lines<R> {
    input: R,
    /// The line without its end; of one that is too long only the beginning, see `cut`.
    line: Vec<u8>,
    /// From 1.
    number: usize,
    /// How many bytes of the line are left out.
    cut: usize,
    hash: Xxh3,
    bytes: u64,
    byte_order_mark: bool,
    carriage_returns: bool,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R, prefix: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(prefix);
        Self {
            input,
            line: Vec::new(),
            number: 0,
            cut: 0,
            hash,
            bytes: 0,
            byte_order_mark: false,
            carriage_returns: false,
        }
    }

    fn line(&self) -> &[u8] {
        &self.line
    }

    /// Goes to the next line; says whether there is one.
    fn next(&mut self) -> io::Result<bool> {
        self.line.clear();
        self.cut = 0;
        // One byte that is too many, and the end of the line.
        let most = LINE_BYTES_MAX as u64 + 3;
        let read = io::Read::take(&mut self.input, most).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(false);
        }
        self.hash.update(&self.line);
        self.bytes += read as u64;
        self.number += 1;
        if self.number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.byte_order_mark = true;
            self.line.drain(..3);
        }
        let mut last = None;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == most {
            last = self.skip_rest()?;
        }
        if self.cut > 0 {
            self.carriage_returns |= last == Some(b'\r');
            self.cut -= usize::from(last == Some(b'\r'));
        } else if self.line.last() == Some(&b'\r') {
            self.line.pop();
            self.carriage_returns = true;
        }
        self.cut_long();
        Ok(true)
    }

    /// Counts what is left of a line that is too long. Answers its last byte.
    fn skip_rest(&mut self) -> io::Result<Option<u8>> {
        let mut last = None;
        loop {
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let rest = &buffer[..end.unwrap_or(buffer.len())];
            last = rest.last().copied().or(last);
            // A line of blanks is none, however long; what comes after them decides.
            if self.line.trim_ascii_start().is_empty()
                && let Some(first) = rest.trim_ascii_start().first()
            {
                self.line.push(*first);
            }
            self.cut += rest.len();
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.hash.update(&buffer[..used]);
            self.bytes += used as u64;
            self.input.consume(used);
            if end.is_some() || used == 0 {
                return Ok(last);
            }
        }
    }

    /// A line that was read whole may be too long by a few bytes.
    fn cut_long(&mut self) {
        if self.cut == 0 && self.line.len() > LINE_BYTES_MAX {
            self.cut = self.line.len() - LINE_BYTES_MAX;
            self.line.truncate(LINE_BYTES_MAX);
        }
    }
}

fn job(line: &[u8], json: bool, maker: &Maker<'_>) -> Result<JobSpec, InputError> {
    if !json {
        return Ok(maker.command(Command::Shell(trimmed(line).to_vec()))?);
    }
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::NotJsonLine(shown(line)).into());
    }
    job_json::parse(line, maker)
}

fn trimmed(line: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !blank(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    let protected = line[start..end].ends_with(b"\\") && end < line.len();
    &line[start..end + usize::from(protected)]
}

#[cfg(test)]
mod tests;
