//! An I/O of one of several processes is struck: the process is killed there, or the I/O fails.

use std::ops::Range;

use super::{Broken, Marks, PROCESSES, Survey, at, new_queue, survives};
use crate::model::Millis;
use crate::sim::compare::{Comparison, Parted};
use crate::sim::disk::{Disk, Fault, Plan};
use crate::sim::workload::Op;
use crate::store::{Store, StoreError};

/// Kills one of several processes at each of its I/Os.
pub fn kill(ops: &[Op]) -> Result<Survey, Broken> {
    at("killed", at_every_io(ops, |at| Blow::Kill { at }))
}

/// Makes each I/O fail.
pub fn fault(ops: &[Op], error: Fault, lasting: bool) -> Result<Survey, Broken> {
    let place = format!("{error:?}{}", if lasting { ", and from then on" } else { "" });
    at(place, at_every_io(ops, |at| Blow::Fail { at, error, lasting }))
}

/// One I/O of a workload is struck: a process is killed there, or it fails.
pub(super) fn once(ops: &[Op], io: usize, how: Option<(Fault, bool)>) -> Result<Survey, Broken> {
    let blow = |at| match how {
        None => Blow::Kill { at },
        Some((error, lasting)) => Blow::Fail { at, error, lasting },
    };
    at_ios(ops, blow, |ios| io % ios.max(1)..io % ios.max(1) + 1)
}

fn at_every_io(ops: &[Op], blow: impl Fn(usize) -> Blow) -> Result<Survey, Broken> {
    at_ios(ops, blow, |ios| 0..ios)
}

/// Counts the I/Os, and strikes those that are chosen of them.
fn at_ios(
    ops: &[Op],
    blow: impl Fn(usize) -> Blow,
    choose: impl FnOnce(usize) -> Range<usize>,
) -> Result<Survey, Broken> {
    let queue = new_queue()?;
    let ios = struck(&queue, ops, blow(usize::MAX))?.ios;
    let mut survey = Survey::default();
    for io in choose(ios) {
        survey.happened += at(format_args!("at I/O {io} of {ios}"), struck(&queue, ops, blow(io)))?.happened;
        survey.points += 1;
    }
    Ok(survey)
}

/// What strikes.
#[derive(Clone, Copy)]
enum Blow {
    Kill { at: usize },
    Fail { at: usize, error: Fault, lasting: bool },
}

impl Blow {
    fn is_forgotten(self) -> bool {
        matches!(self, Self::Fail { error: Fault::Forgotten, .. })
    }
}

struct Struck {
    ios: usize,
    happened: usize,
}

/// Lets several processes do the operations in turn while something strikes one of them, or all.
fn struck(queue: &[u8], ops: &[Op], blow: Blow) -> Result<Struck, Broken> {
    let disk = Disk::holding(queue.to_vec());
    let mut crew = Crew::new(&disk, blow)?;
    let mut comparison = Comparison::default();
    let mut struck = Struck { ios: 0, happened: 0 };
    // Looking costs I/Os: only where it is asked what is left later, and of a fault that strikes no reads.
    let mut later = if blow.is_forgotten() { Some(Marks::new(&disk, crew.open(1)?, &comparison)?) } else { None };
    let mut since = disk.events();
    for (step, op) in ops.iter().enumerate() {
        let place = step % PROCESSES;
        let done = crew.open(place).map_err(Parted::Failed).and_then(|store| comparison.apply(store, op));
        match done {
            Ok(_) => {
                if let Some(marks) = &mut later {
                    marks.acknowledged(step + 1, crew.open(place)?, &comparison)?;
                }
            }
            Err(Parted::Failed(error)) if crew.was_struck(place) => {
                at(format_args!("{op:?}"), is_honest(&error))?;
                (struck.ios, since) = (disk.ios(), disk.events());
                let settled = crew.replace(place).and_then(|witness| Ok(comparison.settle(witness)?));
                let happened = at(format_args!("step {step}, {op:?}, which said: {error}"), settled)?;
                struck.happened += usize::from(happened);
                if let Some(marks) = later.as_mut().filter(|_| happened) {
                    marks.happened(step + 1, crew.open(1)?, &comparison)?;
                }
            }
            Err(parted) => return at(format_args!("step {step}, {op:?}"), Err(parted.into())),
        }
    }
    struck.ios = struck.ios.max(disk.ios());
    let last = crew.end(|store| {
        at("after all", store.read(|snapshot| Ok(comparison.compare(snapshot, 0)))?.map_err(Broken::from))?;
        Marks::new(&disk, store, &comparison)
    })?;
    at("power lost after all", survives(disk.synced(), &last.marks))?;
    if let Some(later) = later {
        at("power lost later", later.survive_from(since))?;
    }
    Ok(struck)
}

/// An error of the disk is said to be one, not taken for damage.
fn is_honest(error: &StoreError) -> Result<(), Broken> {
    match error {
        StoreError::Io(_) | StoreError::CommitFailed(_) => Ok(()),
        error => Err(Broken(format!("an error of the disk became: {error}"))),
    }
}

/// The processes at work, each with its own handle.
struct Crew<'d> {
    disk: &'d Disk,
    blow: Blow,
    stores: Vec<Option<Store>>,
    /// Whose handle the blow can have struck: one whose I/O failed where nobody had to be told says so at its next use.
    suspects: [bool; PROCESSES],
    is_over: bool,
}

impl<'d> Crew<'d> {
    /// The blow falls from now on: opening the file is part of what is struck.
    fn new(disk: &'d Disk, blow: Blow) -> Result<Self, Broken> {
        let mut stores: Vec<Option<Store>> = vec![None];
        for _ in 1..PROCESSES {
            stores.push(Some(Store::on(disk.drive())?));
        }
        let victim = disk.drive();
        disk.plan(match blow {
            Blow::Kill { at } => Plan::Kill { drive: victim.id(), at },
            Blow::Fail { at, error, lasting } => Plan::Fail { at, error, lasting },
        });
        let suspects = match blow {
            Blow::Kill { .. } => [true, false, false],
            Blow::Fail { .. } => [true; PROCESSES],
        };
        let mut crew = Self { disk, blow, stores, suspects, is_over: false };
        match Store::on(victim) {
            Ok(store) => crew.stores[0] = Some(store),
            Err(error) if disk.was_struck() => at("when it was opened", is_honest(&error))?,
            Err(error) => return Err(error.into()),
        }
        Ok(crew)
    }

    fn open(&mut self, place: usize) -> Result<&Store, StoreError> {
        let slot = &mut self.stores[place];
        match slot {
            Some(store) => Ok(store),
            None => Ok(slot.insert(Store::on(self.disk.drive())?)),
        }
    }

    /// Whether it can be the blow that this process met.
    fn was_struck(&self, place: usize) -> bool {
        self.suspects[place] && (self.is_over || self.disk.was_struck())
    }

    /// Gives up the handle of a process that failed. Who looks at the queue then: a peer that had it open all along
    /// after a kill, the process itself with a new handle after a fault. The blow is over with that.
    fn replace(&mut self, place: usize) -> Result<&Store, Broken> {
        if let Some(store) = self.stores[place].take() {
            // A handle that met an error may refuse whatever follows, but has to say why.
            for done in [store.write(Millis(0), |_| Ok(())), store.read(|snapshot| snapshot.check().map(|_| ()))] {
                at("used once more", done.or_else(|error| is_honest(&error)))?;
            }
        }
        if let Blow::Fail { lasting: true, .. } = self.blow
            && let Err(error) = self.open(place)
        {
            at("when it was opened anew", is_honest(&error))?;
        }
        let witness = match self.blow {
            Blow::Kill { .. } => 1,
            Blow::Fail { .. } => place,
        };
        self.disk.plan(Plan::Count);
        self.is_over = true;
        self.suspects[place] = false;
        if let Blow::Fail { .. } = self.blow {
            self.stores[place] = None;
        }
        Ok(self.open(witness)?)
    }

    /// One of them looks, and all close.
    fn end<T>(mut self, look: impl FnOnce(&Store) -> Result<T, Broken>) -> Result<T, Broken> {
        self.disk.plan(Plan::Count);
        if let Blow::Fail { .. } = self.blow
            && self.suspects[1]
        {
            self.stores[1] = None;
        }
        look(self.open(1)?)
    }
}
