//! The one door to a job's record. Every move goes through [`Tx::move_job`], which keeps the record, its one
//! index row and the counts together, so that they cannot drift apart. The end of a job that others need is noted there,
//! too: see [`super::settle`].

use std::collections::BTreeSet;

use super::StoreError;
use super::records::{JobRecord, StateRecord, state_code};
use super::tables::Tx;
use crate::model::{JobId, Progress, Seq};

/// Under which due time SCHEDULE has what is held: it never comes.
pub(super) const HELD_DUE: u64 = u64::MAX;

/// Where a job's state puts it: exactly one index row, except for what is blocked, whose NEEDS rows tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    Ready { lane: u64, rank: u8 },
    Schedule { lane: u64, due: u64 },
    Leases { pool: String },
    Finished { state: u8, at: u64 },
    Blocked,
}

impl Placement {
    pub(super) fn of(record: &JobRecord) -> Self {
        let state = state_code(record.kind());
        match &record.state {
            StateRecord::Pending => Self::Ready { lane: record.lane, rank: record.rank },
            StateRecord::Scheduled { held: true, .. } => Self::Schedule { lane: record.lane, due: HELD_DUE },
            StateRecord::Scheduled { due, held: false } | StateRecord::Failed { due, .. } => {
                Self::Schedule { lane: record.lane, due: (*due).min(HELD_DUE - 1) }
            }
            StateRecord::Processing { pool, .. } => Self::Leases { pool: pool.clone() },
            StateRecord::Completed { at } | StateRecord::Dead { at, .. } | StateRecord::Cancelled { at, .. } => {
                Self::Finished { state, at: *at }
            }
            StateRecord::Blocked { .. } => Self::Blocked,
        }
    }
}

impl Tx<'_> {
    /// A job's record.
    pub(super) fn job(&mut self, seq: Seq) -> Result<JobRecord, StoreError> {
        let record = self.tables.jobs.get(seq.0)?;
        record.ok_or_else(|| StoreError::Damaged(format!("job {} is in an index but not in JOBS", seq.0)))
    }

    /// Puts a new job where its state belongs.
    pub(super) fn place_job(&mut self, seq: Seq, record: &JobRecord) -> Result<(), StoreError> {
        self.put_row(seq, record)?;
        self.count(record.lane, state_code(record.kind()), 1);
        self.tables.jobs.put(seq.0, record)?;
        self.touch();
        Ok(())
    }

    /// Moves a job from `record` to `progress`. Returns the new record.
    pub(super) fn move_job(
        &mut self,
        seq: Seq,
        record: &JobRecord,
        progress: &Progress,
    ) -> Result<JobRecord, StoreError> {
        let moved = record.moved(progress, self.now);
        self.replace_job(seq, record, &moved)?;
        Ok(moved)
    }

    /// Puts `moved` in the place of a job's `record`.
    pub(super) fn replace_job(&mut self, seq: Seq, record: &JobRecord, moved: &JobRecord) -> Result<(), StoreError> {
        if Placement::of(record) != Placement::of(moved) {
            self.take_row(seq, record)?;
            self.put_row(seq, moved)?;
        }
        self.count(record.lane, state_code(record.kind()), -1);
        self.count(moved.lane, state_code(moved.kind()), 1);
        self.tables.jobs.put(seq.0, moved)?;
        if record.is_needed && record.kind().has_ended() != moved.kind().has_ended() {
            self.unsettle(seq)?;
        }
        self.touch();
        Ok(())
    }

    /// Takes a job away from where it is.
    pub(super) fn displace_job(&mut self, seq: Seq, record: &JobRecord) -> Result<(), StoreError> {
        self.take_row(seq, record)?;
        self.count(record.lane, state_code(record.kind()), -1);
        self.tables.jobs.delete(seq.0)?;
        self.touch();
        Ok(())
    }

    fn put_row(&mut self, seq: Seq, record: &JobRecord) -> Result<(), StoreError> {
        match Placement::of(record) {
            Placement::Ready { lane, rank } => {
                self.ring_for_work();
                self.tables.ready.add((lane, rank, seq.0))
            }
            Placement::Schedule { lane, due } => {
                self.ring_for_work();
                self.tables.schedule.add((lane, due, seq.0))
            }
            Placement::Leases { pool } => self.tables.leases.add((pool.as_str(), seq.0)),
            Placement::Finished { state, at } => self.tables.finished.add((state, at, seq.0)),
            Placement::Blocked => Ok(()),
        }
    }

    fn take_row(&mut self, seq: Seq, record: &JobRecord) -> Result<(), StoreError> {
        match Placement::of(record) {
            Placement::Ready { lane, rank } => self.tables.ready.take((lane, rank, seq.0)),
            Placement::Schedule { lane, due } => self.tables.schedule.take((lane, due, seq.0)),
            Placement::Leases { pool } => self.tables.leases.take((pool.as_str(), seq.0)),
            Placement::Finished { state, at } => self.tables.finished.take((state, at, seq.0)),
            Placement::Blocked => Ok(()),
        }
    }

    /// The job that `id` names.
    pub(super) fn find(&mut self, id: &JobId) -> Result<Option<Seq>, StoreError> {
        let owner = self.owner(id)?;
        Ok(owner.filter(|seq| !self.bulks.hide(seq.0)))
    }

    /// An id that a job has, or is to have, is refused.
    pub(super) fn refuse_taken(&mut self, id: &JobId) -> Result<(), StoreError> {
        match self.owner(id)? {
            None => Ok(()),
            Some(seq) if self.bulks.hide(seq.0) => Err(StoreError::Reserved(id.clone())),
            Some(_) => Err(StoreError::Duplicate(id.clone())),
        }
    }

    /// The job that has an id, published or not.
    pub(super) fn owner(&mut self, id: &JobId) -> Result<Option<Seq>, StoreError> {
        if let Some(seq) = self.tables.ids.get::<u64>(id.as_str())? {
            return Ok(Some(Seq(seq)));
        }
        let Some(seq) = numbered(id) else { return Ok(None) };
        let spec: Option<super::records::SpecRecord> = self.tables.specs.get(seq.0)?;
        Ok(spec.filter(|spec| spec.id.is_none()).map(|_| seq))
    }

    /// The jobs that `ids` name, each once, in their order.
    pub(super) fn find_all(&mut self, ids: &[JobId]) -> Result<Vec<Seq>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        let mut seen = BTreeSet::new();
        for id in ids {
            let seq = self.find(id)?.ok_or_else(|| StoreError::NoSuchJob(id.clone()))?;
            if seen.insert(seq) {
                found.push(seq);
            }
        }
        Ok(found)
    }

    /// What a job is called.
    pub(super) fn id_of(&mut self, seq: Seq) -> Result<JobId, StoreError> {
        let spec: Option<super::records::SpecRecord> = self.tables.specs.get(seq.0)?;
        let given = spec.map(|spec| spec.id()).transpose()?.flatten();
        Ok(given.unwrap_or_else(|| JobId::from(seq)))
    }
}

/// The seq that an id is the default name of, if it is one.
pub(super) fn numbered(id: &JobId) -> Option<Seq> {
    let seq = Seq(id.as_str().parse().ok()?);
    (JobId::from(seq) == *id).then_some(seq)
}
