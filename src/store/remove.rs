//! Removal: jobs that have ended go, with everything of theirs. Several at once are one transaction: all or none.
//!
//! Precondition: each id is a job's, and that job has ended; else nothing is written. Afterwards no table has a row
//! of it: its id is free, its number is not, for numbers are never given again. Its environment goes with the last
//! job that shares it, the lane of a run or of a bulk with its last job; the first lane of a queue stays, as it is found
//! by name. What is left to be said of its end to those that need it is said first: see [`super::settle`]; then the rows of
//! what it needed and was needed by go, too. Only what is not published yet may still be blocked by a job that died: then
//! that is not removed. Its key goes, too, and may be enqueued anew.
//!
//! # Crash points
//!
//! Large outputs are files, which no transaction covers. The store names them, and whoever asked deletes them after
//! the commit:
//!
//! | the process was killed | then |
//! |---|---|
//! | before the commit | the jobs are there with all their outputs |
//! | after it, before the last file was deleted | files are left that nothing names: they take room and nothing else, since no other job ever has that number. `check` names them |
//!
//! The other order would leave jobs whose outputs are missing. What is late with news of a removed job (a board that
//! was not freed, a recovery) finds no such job, and changes nothing.

use std::collections::BTreeSet;

use redb::ReadableTable;

use super::StoreError;
use super::finish::{STDERR, STDOUT};
use super::records::{AttemptRecord, KeptRecord, LaneKind, LaneRecord, NeedRecord, SpecRecord};
use super::tables::{JOBS, Snapshot, Tx};
use crate::model::{JobId, LaneId, Progress, Seq, Stream, Verdict};

/// A job that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// What it was called.
    pub id: JobId,
    /// Its number, which no other job will have.
    pub seq: Seq,
    /// Which of its attempts' streams are in files, to be deleted now.
    pub files: Vec<(u32, Stream)>,
    /// How many bytes of output are gone with it, those of the files included.
    pub output_bytes: u64,
}

impl Tx<'_> {
    /// Removes all of `ids`, which must have ended, or none.
    pub fn remove(&mut self, ids: &[JobId]) -> Result<Vec<Removed>, StoreError> {
        let seqs: Vec<Seq> = self.plan(ids, Progress::remove)?.into_iter().map(|(seq, ())| seq).collect();
        seqs.iter().try_for_each(|seq| self.refuse_needed_unseen(*seq))?;
        self.take_away(&seqs)
    }

    /// Removes these jobs, each of which has ended.
    pub(super) fn take_away(&mut self, seqs: &[Seq]) -> Result<Vec<Removed>, StoreError> {
        let mut removed = Vec::with_capacity(seqs.len());
        let mut lanes = BTreeSet::new();
        // All of them first: what goes, too, is not to run again because of what is left to be said of another's end.
        for seq in seqs {
            self.remove_needs(*seq)?;
        }
        for seq in seqs.iter().copied() {
            let record = self.job(seq)?;
            let spec = self.spec(seq)?;
            let id = self.id_of(seq)?;
            self.settle_whole(seq)?;
            self.remove_needed(seq)?;
            self.displace_job(seq, &record)?;
            self.remove_spec(seq, &spec)?;
            let mut job = Removed { id, seq, files: Vec::new(), output_bytes: 0 };
            self.remove_attempts(&mut job)?;
            removed.push(job);
            lanes.insert(record.lane);
        }
        self.head.removed += removed.len() as u64;
        for lane in lanes {
            self.remove_empty_lane(lane)?;
        }
        Ok(removed)
    }

    pub(super) fn remove_spec(&mut self, seq: Seq, spec: &SpecRecord) -> Result<(), StoreError> {
        if let Some(id) = &spec.id {
            self.tables.ids.delete(id.as_str())?;
        }
        if let Some(key) = &spec.key {
            self.tables.keys.delete(key.as_str())?;
        }
        for (key, value) in spec.labels() {
            self.tables.tags.take((key, value, seq.0))?;
        }
        match self.tables.env_refs.get::<u64>(spec.env)? {
            Some(0) | None => return Err(StoreError::Damaged("nobody counts who shares an environment".to_owned())),
            Some(1) => {
                self.tables.env_refs.delete(spec.env)?;
                self.tables.envs.delete(spec.env)?;
            }
            Some(sharers) => self.tables.env_refs.put(spec.env, &(sharers - 1))?,
        }
        self.tables.specs.delete(seq.0)
    }

    /// Notes what of its outputs is in files.
    fn remove_attempts(&mut self, job: &mut Removed) -> Result<(), StoreError> {
        let seq = job.seq;
        let mut attempts = Vec::new();
        for row in self.tables.attempts.open()?.range((seq.0, 0)..=(seq.0, u32::MAX))? {
            let (key, record) = row?;
            attempts.push((key.value().1, super::codec::decode::<AttemptRecord>("ATTEMPTS", record.value())?));
        }
        for (number, attempt) in attempts {
            for (code, stream, kept) in
                [(STDOUT, Stream::Stdout, attempt.stdout), (STDERR, Stream::Stderr, attempt.stderr)]
            {
                match kept {
                    KeptRecord::Empty => {}
                    KeptRecord::Inline(bytes) => {
                        self.tables.output.delete((seq.0, number, code))?;
                        job.output_bytes += bytes;
                    }
                    KeptRecord::File { bytes, .. } => {
                        job.files.push((number, stream));
                        job.output_bytes += bytes;
                    }
                    // If it was in a file, that may be left over: see `sweep`.
                    KeptRecord::LetGo(_) => job.files.push((number, stream)),
                }
            }
            self.tables.attempts.delete((seq.0, number))?;
        }
        Ok(())
    }

    /// A job that died must not go before those learn of it that nobody sees yet.
    fn refuse_needed_unseen(&mut self, seq: Seq) -> Result<(), StoreError> {
        let record = self.job(seq)?;
        if !record.is_needed || self.bulks.0.is_empty() {
            return Ok(());
        }
        for waiting in self.needed_by(seq, 0, usize::MAX)?.into_iter().filter(|waiting| self.bulks.hide(waiting.0)) {
            let need: Option<NeedRecord> = self.tables.needs.get((waiting.0, seq.0))?;
            if need.is_some_and(|need| !need.met && Verdict::of(record.kind(), need.any) == Verdict::Failed) {
                return Err(StoreError::NeededUnseen(self.id_of(seq)?));
            }
        }
        Ok(())
    }

    /// A run without jobs is none. A queue needs one lane, by which it is found; others came of bulks.
    pub(super) fn remove_empty_lane(&mut self, lane: u64) -> Result<(), StoreError> {
        let Some(record) = self.tables.lanes.get::<LaneRecord>(lane)? else { return Ok(()) };
        if !self.lane_counts(lane)?.is_empty() {
            return Ok(());
        }
        match record.kind {
            LaneKind::Run(run) => self.tables.runs.take((run.identity, lane))?,
            LaneKind::Queue if self.first_lane(&record.queue)? == Some(LaneId(lane)) => return Ok(()),
            LaneKind::Queue => self.tables.queues.take((record.queue.as_str(), lane))?,
        }
        self.tables.lanes.delete(lane)
    }
}

impl Snapshot {
    /// Whether a number was given to a job that is there no more, or to none: what carries it is left over.
    pub fn is_gone(&self, seq: Seq) -> Result<bool, StoreError> {
        Ok(seq.0 < self.head()?.next_seq && self.open(JOBS)?.get(seq.0)?.is_none())
    }
}
