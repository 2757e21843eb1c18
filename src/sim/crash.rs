//! A workload on a simulated disk, struck at every I/O.
//!
//! - [`power`] lets several processes work, and then asks for every moment of the disk's history what would be left if
//!   power was lost there. A process that does the same again does the same I/Os, so what was written down once stands
//!   for a run to every single one of them.
//! - [`kill`] kills one of several processes at each of its I/Os; the others, which have the file open, go on.
//! - [`fault`] makes each I/O fail, once or from then on; the process opens the file anew and goes on.
//!
//! Whatever strikes, the queue is what the reference is after exactly the transactions that were acknowledged, or after
//! one more; every invariant holds; and work goes on from there.

use std::fmt;

use super::compare::{Comparison, Parted, World};
use super::disk::{Disk, Fate, Fault, Power};
use super::workload;
use crate::store::{Snapshot, Store, StoreError};

mod blow;
mod power;

pub use blow::{fault, kill};
pub use power::{Effort, power};

/// How many processes work on the file at a time.
const PROCESSES: usize = 3;
/// How many operations a fuzzer may choose: enough for a job's life.
const FUZZED_OPS: usize = 24;

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    /// Moments and I/Os at which something struck.
    pub points: usize,
    /// Disks that were looked at after a loss of power; several a moment.
    pub disks: usize,
    /// Of these, the ones that are left by a second loss of power while the first was recovered from.
    pub second: usize,
    /// How often a transaction that was not acknowledged had happened.
    pub happened: usize,
}

impl std::ops::AddAssign for Survey {
    fn add_assign(&mut self, other: Self) {
        self.points += other.points;
        self.disks += other.disks;
        self.second += other.second;
        self.happened += other.happened;
    }
}

/// A promise that was broken, in words.
#[derive(Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<Parted> for Broken {
    fn from(parted: Parted) -> Self {
        match parted {
            Parted::Differs(what) => Self(what),
            Parted::Failed(error) => error.into(),
        }
    }
}

/// Says where it was.
fn at<T>(place: impl fmt::Display, done: Result<T, Broken>) -> Result<T, Broken> {
    done.map_err(|Broken(what)| Broken(format!("{place}: {what}")))
}

/// The blow and the workload that these bytes stand for.
pub fn from_bytes(bytes: &[u8]) -> Result<Survey, Broken> {
    let Some(([kind, high, low], rest)) = bytes.split_first_chunk() else { return Ok(Survey::default()) };
    let mut ops = workload::from_bytes(rest);
    ops.truncate(FUZZED_OPS);
    let place = usize::from(*high) << 8 | usize::from(*low);
    match kind % 8 {
        0..3 => power::power_once(&ops, place, u64::from(*kind)),
        3 => blow::once(&ops, place, None),
        4 => blow::once(&ops, place, Some((Fault::Broken, false))),
        5 => blow::once(&ops, place, Some((Fault::Broken, true))),
        6 => blow::once(&ops, place, Some((Fault::Full, kind & 8 == 0))),
        _ => blow::once(&ops, place, Some((Fault::Forgotten, kind & 8 == 0))),
    }
}

/// A queue that was just made, on a disk.
fn new_queue() -> Result<Vec<u8>, Broken> {
    let disk = Disk::default();
    drop(Store::on(disk.drive())?);
    Ok(disk.contents())
}

/// The queue after a transaction.
struct Mark {
    /// How many events the disk had seen when it was acknowledged.
    events: usize,
    /// How many operations had been done.
    ops: usize,
    fingerprint: u64,
    world: World,
}

/// What the queue may be if power is lost at a moment: what was acknowledged, or what was under way.
fn possible(marks: &[Mark], moment: usize) -> &[Mark] {
    let last = marks.partition_point(|mark| mark.events <= moment) - 1;
    let under_way =
        marks.get(last + 1).map_or(0, |next| marks[last + 1..].partition_point(|mark| mark.events <= next.events));
    &marks[last..=last + under_way]
}

/// The states that a queue went through.
struct Marks<'d> {
    disk: &'d Disk,
    marks: Vec<Mark>,
}

impl<'d> Marks<'d> {
    fn new(disk: &'d Disk, store: &Store, comparison: &Comparison) -> Result<Self, Broken> {
        let mut marks = Self { disk, marks: Vec::new() };
        marks.add(0, 0, store, comparison)?;
        Ok(marks)
    }

    /// What is there now was acknowledged, and with it what happened before.
    fn acknowledged(&mut self, ops: usize, store: &Store, comparison: &Comparison) -> Result<(), Broken> {
        let events = self.disk.events();
        self.add(events, ops, store, comparison)?;
        for mark in self.marks.iter_mut().filter(|mark| mark.events == usize::MAX) {
            mark.events = events;
        }
        Ok(())
    }

    /// What is there now happened although nobody was told so.
    fn happened(&mut self, ops: usize, store: &Store, comparison: &Comparison) -> Result<(), Broken> {
        self.add(usize::MAX, ops, store, comparison)
    }

    fn add(&mut self, events: usize, ops: usize, store: &Store, comparison: &Comparison) -> Result<(), Broken> {
        let fingerprint = store.read(Snapshot::fingerprint)?;
        let mark = Mark { events, ops, fingerprint, world: comparison.world() };
        match self.marks.last_mut() {
            // Nothing changed: what is on the disk stands for both.
            Some(last) if last.fingerprint == fingerprint => *last = Mark { events: last.events, ..mark },
            _ => self.marks.push(mark),
        }
        Ok(())
    }

    /// Loses power at each moment from one on.
    fn survive_from(&self, first: usize) -> Result<(), Broken> {
        let history = self.disk.power();
        let mut losses = history.losses();
        for moment in first..=history.len() {
            losses.advance(moment);
            if losses.is_synced() {
                at(
                    format_args!("at event {moment}"),
                    survives(losses.lost(Fate::Nothing), possible(&self.marks, moment)),
                )?;
            }
        }
        Ok(())
    }
}

/// A disk that was opened after a loss of power.
struct Left {
    disk: Disk,
    /// What opening and closing did.
    power: Power,
}

/// Opens what is left; says which of the expected states it holds.
fn survives(bytes: Vec<u8>, expected: &[Mark]) -> Result<(usize, Left), Broken> {
    let disk = Disk::holding(bytes);
    let store = Store::on(disk.drive())?;
    let fingerprint = store.read(Snapshot::fingerprint)?;
    drop(store);
    match expected.iter().position(|mark| mark.fingerprint == fingerprint) {
        Some(found) => Ok((found, Left { power: disk.power(), disk })),
        None => Err(Broken("the queue is neither what was acknowledged nor one transaction further".to_owned())),
    }
}

#[cfg(test)]
mod tests;
