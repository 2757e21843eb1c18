//! What a person asks of jobs: cancel them, try them again, hold them back. Several at once are one transaction: all or
//! none.

use std::collections::BTreeSet;

use redb::ReadableTable;

use super::StoreError;
use super::records::StateRecord;
use super::tables::Tx;
use crate::model::{JobId, LaneId, Progress, Refusal, Seq, StateKind};

/// What became of a job that was asked to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled.
    Done,
    /// It is claimed: its pool was told to end it.
    Asked,
}

impl Tx<'_> {
    /// Cancels all of `ids`, or none.
    pub fn cancel(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, Cancelled)>, StoreError> {
        let now = self.now;
        let mut done = Vec::with_capacity(ids.len());
        for (seq, progress) in self.plan(ids, |progress| progress.cancel(now))? {
            let record = self.job(seq)?;
            let moved = self.move_job(seq, &record, &progress)?;
            let asked = matches!(moved.state, StateRecord::Processing { .. });
            if asked {
                self.ring_for_control();
            }
            done.push((self.id_of(seq)?, if asked { Cancelled::Asked } else { Cancelled::Done }));
        }
        Ok(done)
    }

    /// Gives all of `ids` a fresh set of attempts, or none of them. What they waited for and never got they wait for again;
    /// where that has died and is not among `ids`, they would never run: that is refused. Returns their lanes as well, since a job
    /// of a run waits for that run to be continued.
    pub fn retry(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, LaneId)>, StoreError> {
        let retried: BTreeSet<Seq> =
            self.plan(ids, |progress| progress.retry().map(drop))?.into_iter().map(|(seq, ())| seq).collect();
        let mut again = Vec::with_capacity(ids.len());
        for seq in self.find_all(ids)? {
            again.push((seq, self.needs_again(seq, &retried)?));
        }
        let mut done = Vec::with_capacity(ids.len());
        for (seq, (met, open)) in again {
            let record = self.job(seq)?;
            self.run_again(seq, &record, &met, open)?;
            done.push((self.id_of(seq)?, LaneId(record.lane)));
        }
        Ok(done)
    }

    /// Holds all of `ids` back, or none: they wait, whatever comes due, until they are released.
    pub fn hold(&mut self, ids: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        let now = self.now;
        self.move_all(ids, |progress| progress.hold(now))
    }

    /// Lets all of `ids` go on that are held, or none.
    pub fn release(&mut self, ids: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        let now = self.now;
        self.move_all(ids, |progress| progress.release(now))
    }

    fn move_all(
        &mut self,
        ids: &[JobId],
        step: impl Fn(&Progress) -> Result<Progress, Refusal>,
    ) -> Result<Vec<JobId>, StoreError> {
        let mut done = Vec::with_capacity(ids.len());
        for (seq, progress) in self.plan(ids, step)? {
            let record = self.job(seq)?;
            // What is there already has not moved.
            if record.progress()? != progress {
                self.move_job(seq, &record, &progress)?;
            }
            done.push(self.id_of(seq)?);
        }
        Ok(done)
    }

    /// The next up to `limit` dead jobs, oldest death first.
    pub fn dead(&mut self, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let code = super::records::state_code(StateKind::Dead);
        let mut seqs = Vec::new();
        for row in self.tables.finished.open()?.range((code, 0, 0)..=(code, u64::MAX, u64::MAX))?.take(limit) {
            seqs.push(Seq(row?.0.value().2));
        }
        seqs.into_iter().map(|seq| self.id_of(seq)).collect()
    }

    /// What `step` makes of each of `ids`; an error if it refuses one of them.
    pub(super) fn plan<T>(
        &mut self,
        ids: &[JobId],
        step: impl Fn(&Progress) -> Result<T, Refusal>,
    ) -> Result<Vec<(Seq, T)>, StoreError> {
        let mut plan = Vec::with_capacity(ids.len());
        for seq in self.find_all(ids)? {
            let progress = self.job(seq)?.progress()?;
            match step(&progress) {
                Ok(planned) => plan.push((seq, planned)),
                Err(refusal) => return Err(StoreError::Refused { id: self.id_of(seq)?, refusal }),
            }
        }
        Ok(plan)
    }
}
