//! Finishing: a claim's one accepted outcome.
//!
//! Precondition: the job is `processing` under the token's lease; else the news is late and changes no byte.
//! Afterwards the lease is gone, a started run is in ATTEMPTS with its small outputs in OUTPUT, and the job is
//! where the state machine puts it.

use serde_bytes::ByteBuf;

use super::StoreError;
use super::claim::Token;
use super::records::{AttemptRecord, LaneRecord, SpecRecord};
use super::tables::Tx;
use crate::model::{Ending, JobId, JobName, Kept, Policy, Progress, Run, Seq, State};

/// The stream codes in OUTPUT's keys.
pub(super) const STDOUT: u8 = 1;
/// See [`STDOUT`].
pub(super) const STDERR: u8 = 2;

/// What became of a job whose claim ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The job.
    pub seq: Seq,
    /// What it is called.
    pub id: JobId,
    /// Its name for people.
    pub name: Option<JobName>,
    /// Where it is now.
    pub progress: Progress,
}

impl Tx<'_> {
    /// Takes the news of how a claim ended; `None` if it is late, because the lease is no longer held.
    pub fn finish(&mut self, token: &Token, ending: &Ending) -> Result<Option<Finished>, StoreError> {
        let seq = token.seq;
        let Some(record) = self.tables.jobs.get::<super::records::JobRecord>(seq.0)? else { return Ok(None) };
        let before = record.progress()?;
        let State::Processing(claimed) = &before.state else { return Ok(None) };
        if claimed.lease != token.lease {
            return Ok(None);
        }
        let spec = self.spec(seq)?;
        let (policy, is_limited) = self.policy(record.lane, &spec)?;
        let finished = before.finish(token.lease, ending, &policy, self.now);
        let progress = finished.map_err(|refusal| StoreError::Damaged(format!("job {}: {refusal}", seq.0)))?;
        self.move_job(seq, &record, &progress)?;
        if is_limited {
            // Another job of the queue may be claimed, by whichever pool.
            self.ring_for_work();
        }
        if let Ending::Ran(run) = ending {
            let attempt = AttemptRecord::of(run, &claimed.pool);
            self.tables.attempts.put((seq.0, progress.attempts), &attempt)?;
            self.keep_outputs(seq, progress.attempts, run)?;
        }
        let id = spec.id()?.unwrap_or_else(|| JobId::from(seq));
        Ok(Some(Finished { seq, id, name: spec.name()?, progress }))
    }

    fn keep_outputs(&mut self, seq: Seq, attempt: u32, run: &Run) -> Result<(), StoreError> {
        for (stream, kept) in [(STDOUT, &run.stdout), (STDERR, &run.stderr)] {
            if let Kept::Inline(bytes) = kept {
                self.tables.output.put((seq.0, attempt, stream), &ByteBuf::from(bytes.as_slice()))?;
            }
        }
        Ok(())
    }

    /// What decides where the job goes, and whether its queue has a limit.
    fn policy(&mut self, lane: u64, spec: &SpecRecord) -> Result<(Policy, bool), StoreError> {
        let lane: Option<LaneRecord> = self.tables.lanes.get(lane)?;
        let lane = lane.ok_or_else(|| StoreError::Damaged("a job's lane is missing".to_owned()))?;
        let settings = self.settings(&lane.queue)?;
        Ok((Policy::of(spec.max_retries, spec.backoff_base, &settings), settings.parallel.is_some()))
    }
}
