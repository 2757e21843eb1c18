//! The ledger: what jobs write when they start and end, each mark in one write.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Start,
    /// With the exit code that follows.
    End(i32),
    /// Something of another copy still has the job's lock.
    Overlap,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub what: What,
    pub id: String,
    pub attempt: u32,
    pub lease: u64,
    /// Monotonic time, in nanoseconds.
    pub at: u128,
}

pub struct Ledger {
    file: File,
    /// What was read of a line that is not whole yet.
    rest: String,
}

impl Ledger {
    pub fn open(folder: &Path) -> Self {
        let file = File::options().read(true).append(true).create(true).open(folder.join("ledger")).unwrap();
        Self { file, rest: String::new() }
    }

    pub fn mark(&self, what: What, id: &str, attempt: u32, lease: u64) {
        let now = clock_gettime(ClockId::Monotonic);
        let at = u128::from(now.tv_sec.cast_unsigned()) * 1_000_000_000 + u128::from(now.tv_nsec.cast_unsigned());
        let what = match what {
            What::Start => "start".to_owned(),
            What::End(code) => format!("end={code}"),
            What::Overlap => "overlap".to_owned(),
        };
        (&self.file).write_all(format!("{what} {id} {attempt} {lease} {at}\n").as_bytes()).unwrap();
    }

    /// The marks that came since the last time.
    pub fn news(&mut self) -> Vec<Mark> {
        self.file.read_to_string(&mut self.rest).unwrap();
        let whole = self.rest.rfind('\n').map_or(0, |last| last + 1);
        let lines: String = self.rest.drain(..whole).collect();
        lines.lines().map(|line| parse(line).unwrap_or_else(|| panic!("no line of the ledger: {line}"))).collect()
    }
}

fn parse(line: &str) -> Option<Mark> {
    let words: Vec<&str> = line.split(' ').collect();
    let &[what, id, attempt, lease, at] = words.as_slice() else { return None };
    let what = match what {
        "start" => What::Start,
        "overlap" => What::Overlap,
        other => What::End(other.strip_prefix("end=")?.parse().ok()?),
    };
    let (attempt, lease, at) = (attempt.parse().ok()?, lease.parse().ok()?, at.parse().ok()?);
    Some(Mark { what, id: id.to_owned(), attempt, lease, at })
}
