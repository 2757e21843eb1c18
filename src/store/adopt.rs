//! Adopting: taking whole jobs, lanes, settings and counters into a queue under their own numbers, with every
//! index row made anew.
//!
//! Precondition: what comes does not contradict what is there: a number, an id or a key that is taken is refused
//! before the first write of its batch. A job that was claimed comes in without its claim: pending, or cancelled
//! if that was asked. Pools do not come in at all.
//!
//! A kill between two batches leaves a sound queue that holds the first of them; whoever must not show that makes
//! the queue under another name.

use std::collections::HashSet;

use serde_bytes::ByteBuf;

use super::StoreError;
use super::enqueue::Environments;
use super::finish::{STDERR, STDOUT};
use super::open::Store;
use super::records::{
    CancelReasonRecord, Head, JobRecord, KeptRecord, LaneKind, LaneRecord, NeedRecord, StateRecord, queue_name,
};
use super::sweep::LET_GO;
use super::tables::{Snapshot, Tx};
use super::whole::{OnLoss, Part, WholeJob, contradiction, strictly};
use crate::model::{JobId, Millis, Seq, StateKind, Stream};

/// Most jobs that are adopted in one transaction.
const JOBS_AT_ONCE: usize = 5_000;
/// Most bytes of commands and outputs in one transaction, about.
const BYTES_AT_ONCE: usize = 16 * 1024 * 1024;

impl Tx<'_> {
    /// Takes a setting as it was written.
    pub(super) fn adopt_setting(&mut self, queue: &str, key: &str, text: &str) -> Result<(), StoreError> {
        self.tables.config.put((queue, key), &text.to_owned())?;
        self.settings.clear();
        self.touch();
        Ok(())
    }

    /// Takes a lane, whose number must be free.
    pub(super) fn adopt_lane(&mut self, lane: u64, record: &LaneRecord) -> Result<(), StoreError> {
        queue_name(&record.queue)?;
        if self.tables.lanes.get::<LaneRecord>(lane)?.is_some() {
            return Err(StoreError::Contradiction(format!("there is already a lane {lane}")));
        }
        self.tables.lanes.put(lane, record)?;
        match &record.kind {
            LaneKind::Queue => self.tables.queues.add((record.queue.as_str(), lane))?,
            LaneKind::Run(run) => {
                self.tables.runs.add((run.identity, lane))?;
                self.head.next_run = self.head.next_run.max(run.number.saturating_add(1));
            }
        }
        self.head.next_lane = self.head.next_lane.max(lane.saturating_add(1));
        self.touch();
        Ok(())
    }

    /// Takes these jobs, all or none. Their lanes must be there, their numbers, ids and keys free.
    pub(super) fn adopt_jobs(&mut self, jobs: &[WholeJob]) -> Result<(), StoreError> {
        let mut environments = Environments::default();
        self.adopt_with(jobs, &mut environments)?;
        environments.write_references(self)
    }

    /// The same, where others follow: their environments are counted in `environments`.
    pub(super) fn adopt_with(&mut self, jobs: &[WholeJob], environments: &mut Environments) -> Result<(), StoreError> {
        self.refuse_contradictions(jobs)?;
        for job in jobs {
            let seq = Seq(job.seq);
            let mut spec = job.spec.clone();
            spec.env = environments.share(self, &job.env)?;
            if let Some(id) = &spec.id {
                self.tables.ids.put(id.as_str(), &seq.0)?;
            }
            if let Some(key) = &spec.key {
                self.tables.keys.put(key.as_str(), &seq.0)?;
            }
            self.add_labels(seq, &spec)?;
            self.tables.specs.put(seq.0, &spec)?;
            self.adopt_attempts(job)?;
            let record = unclaimed(&job.record);
            let is_needed = !self.needed_by(seq, 0, 1)?.is_empty();
            self.place_job(seq, &JobRecord { is_needed, ..record })?;
            if is_needed {
                // What came before it may not know how it ended.
                self.unsettle(seq)?;
            }
            for (needed, need) in &job.needs {
                self.adopt_need(seq, *needed, *need)?;
            }
            self.head.next_seq = self.head.next_seq.max(seq.0.saturating_add(1));
        }
        self.head.enqueued += jobs.len() as u64;
        Ok(())
    }

    /// One need of a job that is there. Where the needed job is there, too, and the other may not know how it ended, that
    /// is to be settled.
    fn adopt_need(&mut self, waiting: Seq, needed: u64, need: NeedRecord) -> Result<(), StoreError> {
        self.tables.needs.put((waiting.0, needed), &need)?;
        self.tables.needed_by.add((needed, waiting.0))?;
        let Some(record) = self.tables.jobs.get::<JobRecord>(needed)? else { return Ok(()) };
        self.mark_needed(Seq(needed))?;
        let is_blocked = self.job(waiting)?.kind() == StateKind::Blocked;
        if need.met || is_blocked != record.kind().has_ended() { Ok(()) } else { self.unsettle(Seq(needed)) }
    }

    fn refuse_contradictions(&mut self, jobs: &[WholeJob]) -> Result<(), StoreError> {
        let mut seqs = HashSet::with_capacity(jobs.len());
        let mut ids: HashSet<JobId> = HashSet::with_capacity(jobs.len());
        let mut keys: HashSet<&str> = HashSet::new();
        for job in jobs {
            let refused = |what: String| Err(StoreError::Contradiction(what));
            if let Some(what) = contradiction(job) {
                return refused(what);
            }
            let seq = job.seq;
            if !seqs.insert(seq) || self.tables.jobs.get::<JobRecord>(seq)?.is_some() {
                return refused(format!("there is already a job number {seq}"));
            }
            if self.tables.lanes.get::<LaneRecord>(job.record.lane)?.is_none() {
                return refused(format!("job {seq} is in lane {}, which does not exist", job.record.lane));
            }
            let given = job.spec.id()?;
            let name = given.clone().unwrap_or_else(|| JobId::from(Seq(seq)));
            self.refuse_taken(&name)?;
            if self.bulks.hide(seq) {
                return refused(format!("the number {seq} is held by an enqueue that is under way"));
            }
            if given.is_none() && self.tables.ids.get::<u64>(name.as_str())?.is_some() {
                return Err(StoreError::Duplicate(name));
            }
            if let Some(key) = &job.spec.key
                && (!keys.insert(key) || self.tables.keys.get::<u64>(key.as_str())?.is_some())
            {
                return refused(format!("the key of job {seq}, {key}, is taken"));
            }
            ids.insert(name.clone()).then_some(()).ok_or(StoreError::Duplicate(name))?;
        }
        Ok(())
    }

    fn adopt_attempts(&mut self, job: &WholeJob) -> Result<(), StoreError> {
        for (number, attempt) in (1..).zip(&job.attempts) {
            self.tables.attempts.put((job.seq, number), &attempt.record)?;
            for (stream, bytes) in [(STDOUT, &attempt.stdout), (STDERR, &attempt.stderr)] {
                if let Some(bytes) = bytes {
                    self.tables.output.put((job.seq, number, stream), &ByteBuf::from(bytes.as_slice()))?;
                }
            }
        }
        Ok(())
    }

    /// Raises the counters to those of another queue, and takes its removed jobs into account. Its jobs may have ended at
    /// any time: what they wrote is looked at from the start, see `sweep`.
    pub(super) fn adopt_head(&mut self, head: &Head) -> Result<(), StoreError> {
        self.tables.meta.delete(LET_GO)?;
        let own = &mut self.head;
        own.newest = own.newest.max(head.newest);
        own.next_seq = own.next_seq.max(head.next_seq);
        own.next_lease = own.next_lease.max(head.next_lease);
        own.next_lane = own.next_lane.max(head.next_lane);
        own.next_run = own.next_run.max(head.next_run);
        own.enqueued += head.removed;
        own.removed += head.removed;
        own.leapt = own.leapt.max(head.leapt);
        self.touch();
        Ok(())
    }
}

/// The record without a claim.
pub(super) fn unclaimed(record: &JobRecord) -> JobRecord {
    let state = match &record.state {
        StateRecord::Processing { cancel_asked: true, at, .. } => {
            StateRecord::Cancelled { at: record.updated.max(*at), reason: CancelReasonRecord::Asked }
        }
        StateRecord::Processing { .. } => StateRecord::Pending,
        other => other.clone(),
    };
    JobRecord { state, ..*record }
}

impl Snapshot {
    /// Copies the queue into `fresh`, which is empty and nobody else's, without claims and pools, in transactions of
    /// bounded size. Refuses a queue of which something cannot be read. Answers which outputs are in files of their
    /// own, and how many jobs there are.
    pub fn copy_whole(&self, fresh: &Store) -> Result<(Vec<OutputFile>, u64), StoreError> {
        let (mut files, mut jobs) = (Vec::new(), 0);
        self.copy_to(fresh, &mut strictly, &mut |part| {
            if let Part::Job(job) = part {
                jobs += 1;
                files.extend(files_of(job));
            }
        })?;
        Ok((files, jobs))
    }

    /// The same; what cannot be read goes to `lost`, and every part through `change`.
    pub(super) fn copy_to(
        &self,
        fresh: &Store,
        lost: OnLoss<'_>,
        change: &mut dyn FnMut(&mut Part),
    ) -> Result<(), StoreError> {
        let mut batch = Batch { fresh, parts: Vec::new(), bytes: 0 };
        self.parts(lost, &mut |mut part| {
            change(&mut part);
            batch.add(part)
        })?;
        batch.write()
    }
}

/// An output that is in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputFile {
    /// The job.
    pub seq: Seq,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Which stream.
    pub stream: Stream,
    /// How long it is.
    pub bytes: u64,
}

fn files_of(job: &WholeJob) -> impl Iterator<Item = OutputFile> {
    let seq = Seq(job.seq);
    (1..).zip(&job.attempts).flat_map(move |(attempt, whole)| {
        let streams = [(Stream::Stdout, whole.record.stdout), (Stream::Stderr, whole.record.stderr)];
        streams.into_iter().filter_map(move |(stream, kept)| match kept {
            KeptRecord::File { bytes, .. } => Some(OutputFile { seq, attempt, stream, bytes }),
            KeptRecord::Empty | KeptRecord::Inline(_) | KeptRecord::LetGo(_) => None,
        })
    })
}

/// Parts on their way into a fresh queue.
struct Batch<'s> {
    fresh: &'s Store,
    parts: Vec<Part>,
    bytes: usize,
}

impl Batch<'_> {
    fn add(&mut self, part: Part) -> Result<(), StoreError> {
        self.bytes += size_of_part(&part);
        self.parts.push(part);
        if self.parts.len() >= JOBS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        let parts = std::mem::take(&mut self.parts);
        // The time of the copy is that of its counters, the last part.
        self.fresh.write(Millis(0), |tx| {
            let mut jobs = Vec::new();
            for part in parts {
                match part {
                    Part::Setting { queue, key, text } => tx.adopt_setting(&queue, &key, &text)?,
                    Part::Lane { lane, record } => tx.adopt_lane(lane, &record)?,
                    Part::Job(job) => jobs.push(*job),
                    Part::Head(head) => tx.adopt_head(&head)?,
                }
            }
            tx.adopt_jobs(&jobs)
        })
    }
}

fn size_of_part(part: &Part) -> usize {
    let Part::Job(job) = part else { return 100 };
    // Jobs of one batch mostly share an environment: then it counts too often, and the batch is smaller than it could be.
    let env: usize = job.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let outputs = job.attempts.iter().flat_map(|attempt| [&attempt.stdout, &attempt.stderr]).flatten();
    let command = match &job.spec.command {
        super::records::CommandRecord::Shell(text) => text.len(),
        super::records::CommandRecord::Argv(words) => words.iter().map(|word| word.len()).sum(),
    };
    env + command + outputs.map(Vec::len).sum::<usize>()
}

#[cfg(test)]
mod tests;
