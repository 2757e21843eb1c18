//! Power is lost, at every moment of what several processes did.

use super::{Broken, Mark, Marks, PROCESSES, Survey, at, new_queue, possible, survives};
use crate::sim::compare::Comparison;
use crate::sim::disk::{Disk, Fate, Power};
use crate::sim::workload::Op;
use crate::store::Store;

/// How many operations follow a loss of power where that is tried.
const AFTERWARDS: usize = 3;

/// How hard [`power`] tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// How many fates of what was not synced are tried at each moment: nothing of it survives (which is the same from
    /// one sync to the next), everything does, and what luck leaves.
    pub fates: u64,
    /// For how many of them power is lost again at every moment of the recovery.
    pub second: u64,
    /// At every how many moments redb verifies all its pages and work goes on for a while.
    pub afterwards: usize,
}

/// Loses power at every moment of a workload.
pub fn power(ops: &[Op], seed: u64, effort: Effort) -> Result<Survey, Broken> {
    power_on(&Disk::holding(new_queue()?), ops, seed, effort)
}

/// Loses power at every moment of a workload on a disk that holds a new queue.
pub(super) fn power_on(disk: &Disk, ops: &[Op], seed: u64, effort: Effort) -> Result<Survey, Broken> {
    let marks = work(disk, ops)?;
    let moments = 0..=disk.events();
    lose(disk, &marks, moments, ops, seed, effort)
}

/// Loses power at one moment of a workload.
pub(super) fn power_once(ops: &[Op], moment: usize, seed: u64) -> Result<Survey, Broken> {
    let disk = Disk::holding(new_queue()?);
    let marks = work(&disk, ops)?;
    let moment = moment % (disk.events() + 1);
    lose(&disk, &marks, moment..=moment, ops, seed, Effort { fates: 3, second: 3, afterwards: 1 })
}

fn lose(
    disk: &Disk,
    marks: &[Mark],
    moments: std::ops::RangeInclusive<usize>,
    ops: &[Op],
    seed: u64,
    effort: Effort,
) -> Result<Survey, Broken> {
    let history = disk.power();
    let mut losses = history.losses();
    let mut survey = Survey::default();
    for moment in moments {
        losses.advance(moment);
        survey.points += 1;
        // What nothing survives of was tried when it began.
        for fate in usize::from(!losses.is_synced()) as u64..effort.fates {
            let place = format!("power lost at event {moment} of {}, fate {fate}", history.len());
            let expected = possible(marks, moment);
            let (found, left) =
                at(&place, survives(losses.lost(Fate::nth(fate, seed ^ (moment as u64) << 20)), expected))?;
            survey.disks += 1;
            survey.happened += found;
            if fate < effort.second {
                at(&place, lose_again(&left.power, &expected[found], seed ^ fate, &mut survey))?;
            }
            if fate + 1 == effort.fates && moment % effort.afterwards == 0 {
                at(&place, go_on(&left.disk, &expected[found], ops))?;
            }
        }
    }
    Ok(survey)
}

/// Several processes do the operations in turn.
fn work(disk: &Disk, ops: &[Op]) -> Result<Vec<Mark>, Broken> {
    let stores = (0..PROCESSES).map(|_| Store::on(disk.drive())).collect::<Result<Vec<_>, _>>()?;
    let mut comparison = Comparison::default();
    let mut marks = Marks::new(disk, &stores[0], &comparison)?;
    for (step, op) in ops.iter().enumerate() {
        let store = &stores[step % PROCESSES];
        at(format_args!("step {step}, {op:?}"), comparison.apply(store, op).map_err(Broken::from))?;
        marks.acknowledged(step + 1, store, &comparison)?;
    }
    at("after all", stores[0].read(|snapshot| Ok(comparison.compare(snapshot, 0)))?.map_err(Broken::from))?;
    Ok(marks.marks)
}

/// Loses power at every moment of a recovery: the queue stays what the first look found.
fn lose_again(recovery: &Power, found: &Mark, seed: u64, survey: &mut Survey) -> Result<(), Broken> {
    let mut losses = recovery.losses();
    for moment in 0..recovery.len() {
        losses.advance(moment);
        let fate = Fate::nth(moment as u64 % 3, seed ^ (moment as u64) << 32);
        let expected = std::slice::from_ref(found);
        at(format_args!("and again at event {moment} of the recovery"), survives(losses.lost(fate), expected))?;
        survey.second += 1;
        survey.disks += 1;
        survey.points += 1;
    }
    Ok(())
}

/// Every page is sound, and the next operations do what they should.
fn go_on(disk: &Disk, found: &Mark, ops: &[Op]) -> Result<(), Broken> {
    if !Store::is_sound_on(Disk::holding(disk.contents()).drive())? {
        return Err(Broken("redb finds a page that does not match its checksum".to_owned()));
    }
    let store = Store::on(disk.drive())?;
    let mut comparison = Comparison::from(found.world.clone());
    for (step, op) in ops.iter().enumerate().skip(found.ops).take(AFTERWARDS) {
        at(format_args!("going on with {op:?}"), comparison.step(&store, step, op).map_err(Broken::from))?;
    }
    Ok(())
}
