//! What waits for its time: SCHEDULE, lane by lane.
//!
//! What is due becomes pending in a pool's transaction, a bounded number at a time; what is held has a time that never
//! comes ([`HELD_DUE`]). Unpublished lanes are passed over.

use redb::ReadableTable;

use super::StoreError;
use super::placement::HELD_DUE;
use super::records::Bulks;
use super::tables::{SCHEDULE, Snapshot, Tx};
use crate::model::{Millis, Seq};

impl Tx<'_> {
    /// Makes up to `limit` jobs ready whose start or retry time has come. Returns how many there were.
    pub fn promote_due(&mut self, limit: usize) -> Result<usize, StoreError> {
        let due = waiting(self.tables.schedule.open()?, &self.bulks, self.now.0.min(HELD_DUE - 1), limit)?;
        let due: Vec<Seq> = due.into_iter().map(|(_, seq)| Seq(seq)).collect();
        for seq in &due {
            let record = self.job(*seq)?;
            let progress = record.progress()?.due(self.now);
            let progress =
                progress.map_err(|_| StoreError::Damaged(format!("job {} is in SCHEDULE but not due", seq.0)))?;
            self.move_job(*seq, &record, &progress)?;
        }
        Ok(due.len())
    }

    /// When the next job becomes ready by itself.
    pub fn next_due(&mut self) -> Result<Option<Millis>, StoreError> {
        let first = waiting(self.tables.schedule.open()?, &self.bulks, HELD_DUE - 1, 1)?;
        Ok(first.first().map(|(due, _)| Millis(*due)))
    }
}

impl Snapshot {
    /// When the next job becomes ready by itself.
    pub fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        let first = waiting(&self.open(SCHEDULE)?, &self.hidden()?, HELD_DUE - 1, 1)?;
        Ok(first.first().map(|(due, _)| Millis(*due)))
    }
}

/// The first `limit` rows of the published lanes in SCHEDULE that are due at `until`: due and seq, the earliest first.
fn waiting(
    schedule: &impl ReadableTable<(u64, u64, u64), ()>,
    bulks: &Bulks,
    until: u64,
    limit: usize,
) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut waiting = Vec::new();
    for lane in lanes_waiting(schedule, bulks)? {
        for row in schedule.range((lane, 0, 0)..=(lane, until, u64::MAX))?.take(limit) {
            let (_, due, seq) = row?.0.value();
            waiting.push((due, seq));
        }
    }
    waiting.sort_unstable();
    waiting.truncate(limit);
    Ok(waiting)
}

/// The published lanes that have rows in SCHEDULE. Goes from lane to lane, however many rows each has.
pub(super) fn lanes_waiting(
    schedule: &impl ReadableTable<(u64, u64, u64), ()>,
    bulks: &Bulks,
) -> Result<Vec<u64>, StoreError> {
    let (mut lanes, mut from) = (Vec::new(), 0);
    while let Some(row) = schedule.range((from, 0, 0)..)?.next() {
        let (lane, ..) = row?.0.value();
        lanes.push(lane);
        let Some(next) = lane.checked_add(1) else { break };
        from = next;
    }
    lanes.retain(|lane| !bulks.hide_lane(*lane));
    Ok(lanes)
}
