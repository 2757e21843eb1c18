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

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::error::{InputError, Problem, shown};
use super::{Base, Maker, job_json};
use crate::model::{Command, JobId, JobSpec, LINE_BYTES_MAX};

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
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    /// Each with its line, from 1.
    pub jobs: Vec<(usize, JobSpec)>,
    /// Each at most once.
    pub warnings: Vec<Warning>,
}

/// Reads a batch. One without jobs is not an error here.
pub(crate) fn lines(input: &[u8], format: Format, base: &Base) -> Result<Batch, InputError> {
    let mut warnings = Vec::new();
    let text = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    if text.len() < input.len() {
        warnings.push(Warning::ByteOrderMark);
    }
    if text.split(|byte| *byte == b'\n').any(|line| line.ends_with(b"\r")) {
        warnings.push(Warning::CarriageReturns);
    }
    let json = is_json(text, format);
    let maker = Maker::new(base);
    let read = |(line, text)| job(text, json, &maker).map(|spec| (line, spec)).map_err(|error| error.in_line(line));
    let jobs: Vec<_> = filled(text).map(read).collect::<Result<_, InputError>>()?;
    ids_differ(&jobs)?;
    Ok(Batch { jobs, warnings })
}

/// The lines with a job, each with its number.
fn filled(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines).filter(|(_, line)| !matches!(line.trim_ascii_start().first(), None | Some(b'#')))
}

fn is_json(text: &[u8], format: Format) -> bool {
    match format {
        Format::JsonLines => true,
        Format::Lines => false,
        Format::Auto => filled(text).next().is_some_and(|(_, line)| line.trim_ascii_start().starts_with(b"{\"")),
    }
}

fn job(line: &[u8], json: bool, maker: &Maker<'_>) -> Result<JobSpec, InputError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(Problem::LongLine(line.len()).into());
    }
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

fn ids_differ(jobs: &[(usize, JobSpec)]) -> Result<(), InputError> {
    let ids = || jobs.iter().filter_map(|(line, job)| Some((*line, job.id.as_ref()?)));
    // In one piece: a map that grows with a million ids hashes each of them several times.
    let mut lines: HashMap<&JobId, usize> = HashMap::with_capacity(ids().count());
    for (line, id) in ids() {
        match lines.entry(id) {
            Entry::Vacant(free) => drop(free.insert(line)),
            Entry::Occupied(taken) => {
                return Err(InputError::DuplicateId { id: id.clone(), first: *taken.get(), line });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
