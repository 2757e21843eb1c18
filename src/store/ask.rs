//! What a person asks of jobs: cancel them, try them again, hold them back. Several at once are one transaction: all or
//! none.

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

    /// Gives all of `ids` a fresh set of attempts, under what `terms` says, or none of them. What they waited for and
    /// never got they wait for again; where that has died and is not among `ids`, they would never run: that is
    /// refused. Those that were cancelled for a need have their start time and their hold again. Returns their lanes as
    /// well, since a job of a run waits for that run to be continued.
    pub fn retry(&mut self, ids: &[JobId], terms: &Terms) -> Result<Vec<(JobId, LaneId)>, StoreError> {
        let now = self.now;
        let plan = self.plan(ids, |progress| progress.retry(now).map(drop))?;
        let retried: BTreeSet<Seq> = plan.into_iter().map(|(seq, ())| seq).collect();
        let mut again = Vec::with_capacity(ids.len());
        for seq in self.find_all(ids)? {
            again.push((seq, self.needs_again(seq, &retried)?));
        }
        let mut done = Vec::with_capacity(ids.len());
        for (seq, (met, open)) in again {
            let record = self.job(seq)?;
            self.run_again(seq, &record, &met, open)?;
            self.set_terms(seq, terms)?;
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
