//! What a person asks of jobs: cancel them, try them again. Several at once are one transaction: all or none.

use std::collections::BTreeSet;

use super::StoreError;
use super::records::{JobRecord, SpecRecord, StateRecord};
use super::tables::Tx;
use crate::model::{JobId, LaneId, Progress, Refusal, Seq, StateKind, TimeLimit};

/// What became of a job that was asked to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled.
    Done,
    /// It is claimed: its pool was told to end it.
    Asked,
}

/// What a retry changes of the job itself; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// Retries after the first attempt.
    pub max_retries: Option<u32>,
    /// How long it may run.
    pub timeout: Option<TimeLimit>,
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

    /// Gives all of `ids` a fresh set of attempts, under what `terms` says, or none of them. Returns their lanes as
    /// well, since a job of a run waits for that run to be continued.
    pub fn retry(&mut self, ids: &[JobId], terms: &Terms) -> Result<Vec<(JobId, LaneId)>, StoreError> {
        let mut done = Vec::with_capacity(ids.len());
        for (seq, progress) in self.plan(ids, Progress::retry)? {
            let record = self.job(seq)?;
            self.move_job(seq, &record, &progress)?;
            self.set_terms(seq, terms)?;
            done.push((self.id_of(seq)?, LaneId(record.lane)));
        }
        Ok(done)
    }

    fn set_terms(&mut self, seq: Seq, terms: &Terms) -> Result<(), StoreError> {
        if *terms == Terms::default() {
            return Ok(());
        }
        let spec = self.spec(seq)?;
        let max_retries = terms.max_retries.or(spec.max_retries);
        let timeout = terms.timeout.map(Into::into).or(spec.timeout);
        self.tables.specs.put(seq.0, &SpecRecord { max_retries, timeout, ..spec })
    }

    /// Those of `seqs` that are there and in one of `states`: a verb on many jobs finds them first and then takes them
    /// piece by piece, and meanwhile they may move.
    pub fn still_in(&mut self, seqs: &[Seq], states: &BTreeSet<StateKind>) -> Result<Vec<JobId>, StoreError> {
        let mut ids = Vec::with_capacity(seqs.len());
        for seq in seqs {
            let record: Option<JobRecord> = self.tables.jobs.get(seq.0)?;
            if record.is_some_and(|record| states.contains(&record.kind())) {
                ids.push(self.id_of(*seq)?);
            }
        }
        Ok(ids)
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
