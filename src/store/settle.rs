//! Settling: what the end of a job means for those that need it.
//!
//! One job may be needed by a million others, and each of these by more: so it is done in pieces. Whatever moves a needed
//! job into an end, or out of one, puts it into UNSETTLED in the same transaction; each piece takes some of those that
//! need the first job in there, does to them what its state **now** says, and goes on from there with the next piece:
//!
//! | the need, see [`super::needs`] | the job that has it |
//! |---|---|
//! | is met by now | waits for one less; with the last it becomes pending, or scheduled, or stays held |
//! | failed, and the job is blocked | is cancelled, reason `need_failed`, and in UNSETTLED itself if others need it |
//! | is open or met again, and the job was cancelled for a need | is blocked again as it was, or goes on from there, unless another need failed, and in UNSETTLED itself |
//! | of anything else | stays as it is |
//!
//! It is the state that counts, not the news: doing it twice, late, or after two moves at once comes to the same, and
//! needs lead one way, so that it ends. Nobody waits for a job that has ended, unless that is in UNSETTLED (invariant 9).
//!
//! What is not published is never cancelled. Instead its bulk notes the job whose end it was; publishing puts that into
//! UNSETTLED once more.
//!
//! # Crash points
//!
//! | the process was killed | then |
//! |---|---|
//! | before the commit that ends the job | nothing has happened |
//! | after it, before the first piece or between two | the rest is in UNSETTLED: the next pool, or who ends a job next, goes on |
//! | in a piece | that piece is done again |
//!
//! Whoever commits for a pool settles in each of its transactions as long as there is anything; a command that ends jobs
//! goes on until nothing is left, so that it works without a pool. Two at once are serialised by the file.

use redb::ReadableTable;

use super::StoreError;
use super::codec::decode;
use super::records::{CancelReasonRecord, JobRecord, NeedRecord, StateRecord};
use super::tables::{Snapshot, Tx, UNSETTLED};
use crate::model::{Seq, StateKind, Verdict};

/// Most jobs that are told of the end of another in one transaction, which keeps it within 10 ms.
pub const SETTLED_AT_ONCE: usize = 256;

impl Tx<'_> {
    /// Notes that those who need a job may not know its state.
    pub(super) fn unsettle(&mut self, seq: Seq) -> Result<(), StoreError> {
        self.tables.unsettled.put(seq.0, &0_u64)?;
        // Some pool may have nothing else to do.
        self.ring_for_work();
        Ok(())
    }

    /// Tells up to `limit` jobs of the end of one that they need. Says whether something is left to be told.
    pub fn settle(&mut self, limit: usize) -> Result<bool, StoreError> {
        let mut left = limit;
        loop {
            let first = self.tables.unsettled.open()?.first()?;
            let Some((seq, from)) = first.map(|(seq, from)| (seq.value(), decode("UNSETTLED", from.value()))) else {
                return Ok(false);
            };
            if left == 0 {
                return Ok(true);
            }
            // One that nobody needs takes its turn, too.
            left -= self.settle_some(Seq(seq), from?, left)?.max(1);
        }
    }

    /// Settles all of one job, however many need it.
    pub(super) fn settle_whole(&mut self, seq: Seq) -> Result<(), StoreError> {
        if let Some(from) = self.tables.unsettled.get(seq.0)? {
            self.settle_some(seq, from, usize::MAX)?;
        }
        Ok(())
    }

    /// Tells up to `limit` of those that need a job, from one on. Answers how many.
    fn settle_some(&mut self, needed: Seq, from: u64, limit: usize) -> Result<usize, StoreError> {
        let waiting = self.needed_by(needed, from, limit)?;
        match waiting.last().filter(|_| waiting.len() == limit) {
            Some(last) => self.tables.unsettled.put(needed.0, &(last.0 + 1))?,
            None => self.tables.unsettled.delete(needed.0)?,
        }
        self.touch();
        let state = self.job(needed)?.kind();
        for waiting in &waiting {
            self.settle_one(*waiting, needed, state)?;
        }
        Ok(waiting.len())
    }

    fn settle_one(&mut self, waiting: Seq, needed: Seq, state: StateKind) -> Result<(), StoreError> {
        let need: Option<NeedRecord> = self.tables.needs.get((waiting.0, needed.0))?;
        let need = need.ok_or_else(|| StoreError::Damaged(format!("job {} is needed by no need", needed.0)))?;
        if need.met {
            return Ok(());
        }
        let record = self.job(waiting)?;
        match (&record.state, Verdict::of(state, need.any)) {
            (StateRecord::Blocked { .. }, Verdict::Met) => self.meet(waiting, needed),
            (StateRecord::Blocked { .. }, Verdict::Failed) if self.bulks.hide(waiting.0) => {
                let bulk = self.bulks_mut().0.iter_mut().find(|bulk| bulk.has(waiting));
                bulk.map(|bulk| bulk.failed_needs.insert(needed.0));
                Ok(())
            }
            (StateRecord::Blocked { .. }, Verdict::Failed) => {
                let progress = record.progress()?.need_failed(self.now);
                let progress =
                    progress.map_err(|refusal| StoreError::Damaged(format!("job {}: {refusal}", waiting.0)))?;
                self.move_job(waiting, &record, &progress).map(drop)
            }
            (
                StateRecord::Cancelled { reason: CancelReasonRecord::NeedFailed { .. }, .. },
                Verdict::Open | Verdict::Met,
            ) => self.revive(waiting, &record),
            _ => Ok(()),
        }
    }

    /// A need of a job is met: if it is blocked, it waits for one less.
    pub(super) fn meet(&mut self, waiting: Seq, needed: Seq) -> Result<(), StoreError> {
        let need: Option<NeedRecord> = self.tables.needs.get((waiting.0, needed.0))?;
        let Some(need) = need.filter(|need| !need.met) else { return Ok(()) };
        self.tables.needs.put((waiting.0, needed.0), &NeedRecord { met: true, ..need })?;
        self.touch();
        let record = self.job(waiting)?;
        if record.kind() != StateKind::Blocked {
            return Ok(());
        }
        let left = record.needs.checked_sub(1);
        let left = left.ok_or_else(|| StoreError::Damaged(format!("job {} is blocked by nothing", waiting.0)))?;
        if left > 0 {
            return self.tables.jobs.put(waiting.0, &JobRecord { needs: left, ..record });
        }
        let progress = record.progress()?.unblock(self.now);
        let progress = progress.map_err(|refusal| StoreError::Damaged(format!("job {}: {refusal}", waiting.0)))?;
        self.move_job(waiting, &record, &progress).map(drop)
    }

    /// A job that was cancelled for a need waits again, or runs, unless another of its needs failed.
    fn revive(&mut self, waiting: Seq, record: &JobRecord) -> Result<(), StoreError> {
        match self.needs_again(waiting, &std::collections::BTreeSet::new()) {
            Ok((met, open)) => self.run_again(waiting, record, &met, open),
            Err(StoreError::NeedEnded { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives an ended job a fresh set of attempts, after so many jobs that it waits for, and not before it was to start.
    pub(super) fn run_again(
        &mut self,
        seq: Seq,
        record: &JobRecord,
        met: &[(u64, NeedRecord)],
        open: u32,
    ) -> Result<(), StoreError> {
        for (needed, need) in met {
            self.tables.needs.put((seq.0, *needed), need)?;
        }
        let before = record.progress()?;
        let progress = if open > 0 { before.retry_blocked() } else { before.retry(self.now) };
        let progress = progress.map_err(|refusal| StoreError::Damaged(format!("job {}: {refusal}", seq.0)))?;
        self.move_job(seq, &JobRecord { needs: open, ..record.clone() }, &progress).map(drop)
    }
}

impl Snapshot {
    /// Whether some jobs may not know of the end of one that they need.
    pub fn is_unsettled(&self) -> Result<bool, StoreError> {
        Ok(self.open(UNSETTLED)?.first()?.is_some())
    }
}

#[cfg(test)]
mod tests;
