//! What a person asks of jobs: cancel them, try them again. Several at once are one transaction: all or none.

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

    /// Gives all of `ids` a fresh set of attempts, or none of them. Returns their lanes as well, since a job
    /// of a run waits for that run to be continued.
    pub fn retry(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, LaneId)>, StoreError> {
        let mut done = Vec::with_capacity(ids.len());
        for (seq, progress) in self.plan(ids, Progress::retry)? {
            let record = self.job(seq)?;
            self.move_job(seq, &record, &progress)?;
            done.push((self.id_of(seq)?, LaneId(record.lane)));
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
