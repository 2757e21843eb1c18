//! Bulk enqueueing: more jobs than fit one short transaction, all or none.
//!
//! A *bulk* fills lanes of its own, one for each queue or one for a run, by transactions of bounded size. Until they
//! are published nobody sees them; the last transaction publishes all of them, and so all jobs appear at once. Others
//! get in between the pieces.
//!
//! META's row `bulks` alone tells what is unpublished: of each bulk the lanes, the ranges of numbers that were set
//! aside for its jobs, and its **maker**, the name of a file in `run/` which a process holds locked as long as it
//! lives. Readers leave out those lanes and those numbers; where there is no bulk, that costs them one lookup. LANES
//! says the same of each lane, for whoever reads what is left of a damaged file.
//!
//! What is unpublished has no place that others come by: READY and SCHEDULE sort by lane; QUEUES and RUNS do not name
//! the lanes yet; `enqueued` does not count the jobs.
//!
//! Ids come last, see [`names`]: until then others may take them, and then the bulk is refused as a whole. Once they are
//! in IDS nobody else takes them: that is refused as [`StoreError::Reserved`], since it is not said yet that there will
//! be such a job. Keys come last in the same way: jobs whose keys others have when their piece is stored are left out;
//! a key that is taken after that refuses the bulk. What has jobs without their ids in IDS, or their keys in KEYS, is not
//! published.
//!
//! # Crash points
//!
//! | the maker was killed | the file holds | what becomes of it |
//! |---|---|---|
//! | before its first transaction | nothing of it | its file in `run/` is swept away, as a pool's |
//! | after the first, before the last | an unpublished bulk: numbers set aside, lanes, some of the jobs, some of their ids | whoever finds the maker dead takes it away in pieces; its numbers are never given again |
//! | in the last, before its commit | the same | the same |
//! | after that commit | all of its jobs, published | they are jobs as all others; the file in `run/` is swept away |
//! | while it took its jobs away again | a bulk with fewer jobs | whoever finds it goes on: each piece takes the lowest numbers and shortens the ranges in the same transaction |
//!
//! The maker's file is locked and has its name before the first transaction, and is deleted after the last. So a bulk
//! whose maker's file is missing or unlocked has no maker. Two who take the same bulk away are serialised by the file:
//! what one took the other does not find.

mod names;

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::StoreError;
use super::enqueue::{Enqueued, Wanted};
use super::keys::Met;
use super::records::{BulkRecord, Bulks, JobRecord, LaneKind, LaneRecord};
use super::runs::{NewRun, RunStart, jobs_without_keys};
use super::tables::{META, Snapshot, Tx};
use crate::model::{IfExists, JobSpec, LaneId, QueueName, Seq, StateKind};

/// The row of META that names the bulks under way.
pub(super) const BULKS: &str = "bulks";

/// Most queues that the jobs of one bulk go into: their lanes are made in one transaction.
const QUEUES_MAX: usize = 10_000;

/// Where the jobs of a bulk go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkInto {
    /// Each into its queue, which has to be one of these.
    Queues(BTreeSet<QueueName>),
    /// All into one run.
    Run,
}

/// A bulk that was begun: what its maker needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkLanes {
    number: u64,
    /// None for a run, whose one lane has the bulk's number.
    lanes: Option<BTreeMap<QueueName, LaneId>>,
}

/// A bulk as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkInfo {
    /// Its number.
    pub number: u64,
    /// The file in `run/` that its maker holds as long as it lives.
    pub maker: String,
}

/// A bulk's number, the ranges of numbers set aside for it, the next of them, those that its jobs have, and how many ids
/// and keys of these are not in IDS and KEYS yet.
#[cfg(any(test, feature = "sim"))]
pub type Unpublished = (u64, Vec<(u64, u64)>, u64, Vec<Seq>, u64);

impl BulkLanes {
    /// Its number, which no other bulk has had.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether its jobs go into queues, not into a run.
    #[cfg(any(test, feature = "sim"))]
    pub fn has_queues(&self) -> bool {
        self.lanes.is_some()
    }

    fn lane_of(&self, queue: &QueueName) -> Result<LaneId, StoreError> {
        let Some(lanes) = &self.lanes else { return Ok(LaneId(self.number)) };
        let lane = lanes.get(queue).copied();
        lane.ok_or_else(|| StoreError::Contradiction(format!("queue {queue} came up late")))
    }
}

impl Bulks {
    /// Whether a number was set aside for a job that is not published.
    pub(super) fn hide(&self, seq: u64) -> bool {
        self.overlap(seq, seq)
    }

    /// Whether one of these numbers was.
    pub(super) fn overlap(&self, from: u64, to: u64) -> bool {
        self.0.iter().flat_map(|bulk| &bulk.ranges).any(|(first, last)| *first <= to && from <= *last)
    }

    /// Whether a lane is not published.
    pub(super) fn hide_lane(&self, lane: u64) -> bool {
        self.0.iter().any(|bulk| bulk.lanes().contains(&lane))
    }

    /// The ranges of numbers that are not set aside, below `end`, the highest first: from and up to, exclusive.
    pub(super) fn visible(&self, end: u64) -> Vec<(u64, u64)> {
        let mut hidden: Vec<(u64, u64)> = self.0.iter().flat_map(|bulk| bulk.ranges.iter().copied()).collect();
        hidden.sort_unstable();
        let (mut visible, mut end) = (Vec::new(), end);
        for (first, last) in hidden.into_iter().rev() {
            if last < end {
                visible.push((last.saturating_add(1), end));
            }
            end = end.min(first);
        }
        visible.push((0, end));
        visible
    }

    fn get(&mut self, number: u64) -> Option<&mut BulkRecord> {
        self.0.iter_mut().find(|bulk| bulk.number == number)
    }
}

impl Tx<'_> {
    /// Begins a bulk of about so many jobs, whose maker's file in `run/` is locked already.
    pub fn begin_bulk(&mut self, maker: &str, into: &BulkInto, jobs: u64) -> Result<BulkLanes, StoreError> {
        let unpublished = |queue: &QueueName| LaneRecord {
            queue: queue.as_str().to_owned(),
            published: false,
            kind: LaneKind::Queue,
        };
        let (first, lanes) = (self.head.next_lane, self.head.next_lane..);
        let lanes = match into {
            BulkInto::Queues(queues) if queues.is_empty() => {
                return Err(StoreError::Contradiction("a bulk without a queue".to_owned()));
            }
            BulkInto::Queues(queues) if queues.len() > QUEUES_MAX => {
                let queues = queues.len();
                return Err(StoreError::TooLarge(format!("jobs for {queues} queues at once; {QUEUES_MAX} are taken")));
            }
            BulkInto::Queues(queues) => {
                for queue in queues {
                    self.add_lane(&unpublished(queue))?;
                }
                Some(queues.iter().cloned().zip(lanes.map(LaneId)).collect())
            }
            BulkInto::Run => {
                self.add_lane(&unpublished(&QueueName::default_queue()))?;
                None
            }
        };
        let mut record = BulkRecord {
            number: first,
            maker: maker.to_owned(),
            lanes: self.head.next_lane - first,
            ranges: Vec::new(),
            next: 0,
            unnamed: 0,
            failed_needs: BTreeSet::new(),
        };
        if jobs > 0 {
            self.set_aside(&mut record, jobs);
        }
        self.bulks_mut().0.push(record);
        Ok(BulkLanes { number: first, lanes })
    }

    /// Sets so many numbers aside.
    fn set_aside(&mut self, bulk: &mut BulkRecord, count: u64) {
        let first = self.head.next_seq;
        self.head.next_seq += count;
        match bulk.ranges.last_mut() {
            // Then there is nothing between.
            Some((_, last)) if last.saturating_add(1) == first => *last += count,
            Some(_) | None => bulk.ranges.push((first, first + count - 1)),
        }
        bulk.next = bulk.next.max(first);
    }

    /// Adds jobs to a bulk, all of `specs` or none, in this order; their ids and keys are to be named later. Ids of the
    /// whole bulk that look like numbers are in `wanted`: they are not given to its jobs without an id. For one whose
    /// key a job has already that job stands; where it would have to be changed, the bulk is refused.
    pub fn fill_bulk(
        &mut self,
        bulk: &BulkLanes,
        specs: &[JobSpec],
        wanted: &Wanted,
    ) -> Result<Vec<Enqueued>, StoreError> {
        if bulk.lanes.is_none() && specs.iter().any(|spec| spec.key.is_some()) {
            return Err(jobs_without_keys());
        }
        let there = self.there_already(specs)?;
        let new: Vec<&JobSpec> =
            specs.iter().zip(&there).filter(|(_, there)| there.is_none()).map(|(s, _)| s).collect();
        self.refuse_any_taken(&new)?;
        let lanes: Vec<LaneId> = new.iter().map(|spec| bulk.lane_of(&spec.queue)).collect::<Result<_, _>>()?;
        let found = self.bulks.get(bulk.number).cloned();
        let mut record = found.ok_or_else(|| StoreError::Contradiction("the bulk was taken away".to_owned()))?;
        let plan = self.plan_needs(&new, Some(&record))?;
        let mut left = new.len() as u64;
        let filled = self.add_jobs(new.iter().copied().zip(lanes), &plan, |tx, spec| {
            let seq = tx.next_set_aside(&mut record, left, spec.id.is_none().then_some(wanted));
            left -= 1;
            seq
        })?;
        record.unnamed +=
            new.iter().map(|spec| u64::from(spec.id.is_some()) + u64::from(spec.key.is_some())).sum::<u64>();
        if let Some(there) = self.bulks_mut().get(bulk.number) {
            *there = record;
        }
        let mut filled = filled.into_iter();
        Ok(there.into_iter().filter_map(|there| there.or_else(|| filled.next())).collect())
    }

    /// For each of `specs` the job that has its key already.
    fn there_already(&mut self, specs: &[JobSpec]) -> Result<Vec<Option<Enqueued>>, StoreError> {
        let mut there = Vec::with_capacity(specs.len());
        for spec in specs {
            let holder = spec.key.as_ref().map(|key| self.key_holder(key)).transpose()?.flatten();
            let (Some((seq, kind)), Some(key)) = (holder, &spec.key) else {
                there.push(None);
                continue;
            };
            match (spec.if_exists, kind) {
                (IfExists::Error | IfExists::Replace, _)
                | (IfExists::Retry, StateKind::Dead | StateKind::Cancelled) => {
                    return Err(self.key_taken(key, seq, kind)?);
                }
                (IfExists::Skip | IfExists::Retry, _) => {
                    there.push(Some(Enqueued {
                        seq,
                        id: self.id_of(seq)?,
                        due: None,
                        waits_for: 0,
                        met: Met::Exists(kind),
                    }));
                }
            }
        }
        Ok(there)
    }

    /// The next of a bulk's numbers; for a job without an id one whose text is nobody's id, nor in `wanted`.
    fn next_set_aside(&mut self, bulk: &mut BulkRecord, left: u64, wanted: Option<&Wanted>) -> Result<Seq, StoreError> {
        loop {
            if bulk.ranges.last().is_none_or(|(_, last)| bulk.next > *last) {
                self.set_aside(bulk, left);
            }
            let seq = Seq(bulk.next);
            bulk.next += 1;
            match wanted {
                Some(wanted) if !self.names_nobody(seq, wanted)? => {}
                Some(_) | None => return Ok(seq),
            }
        }
    }

    /// Publishes a bulk: all of its jobs appear. Answers how many they are.
    pub fn publish_bulk(&mut self, bulk: &BulkLanes) -> Result<u64, StoreError> {
        let record = self.end_bulk(bulk)?;
        let mut jobs = 0;
        for lane in record.lanes() {
            let count: u64 = self.lane_counts(lane)?.values().sum();
            if count == 0 {
                self.tables.lanes.delete(lane)?;
                continue;
            }
            jobs += count;
            let mut lane_record = self.unpublished_lane(lane)?;
            lane_record.published = true;
            self.tables.queues.add((lane_record.queue.as_str(), lane))?;
            self.tables.lanes.put(lane, &lane_record)?;
        }
        self.head.enqueued += jobs;
        self.settle_seen(&record)?;
        self.ring_for_work();
        Ok(jobs)
    }

    /// Publishes a bulk as a run; unless another of the same identity can be continued, which appeared meanwhile. Then
    /// the bulk stays unpublished.
    pub fn publish_run(&mut self, bulk: &BulkLanes, run: &NewRun, fresh: bool) -> Result<RunStart, StoreError> {
        if let Some(info) = self.run_to_continue(run, fresh)? {
            return Ok(RunStart::Continued(info));
        }
        let record = self.end_bulk(bulk)?;
        let lane = record.number;
        let queue = self.unpublished_lane(lane)?.queue;
        let mut run_record = self.new_run(run);
        if let (Some((first, _)), Some((_, last))) = (record.ranges.first(), record.ranges.last()) {
            run_record.seqs = (*first, *last);
        }
        let kind = LaneKind::Run(run_record);
        self.tables.lanes.put(lane, &LaneRecord { queue, published: true, kind })?;
        self.tables.runs.add((run.identity, lane))?;
        let info = self.run_of_lane(LaneId(lane))?;
        let info = info.ok_or_else(|| StoreError::Damaged("a run that was just begun is none".to_owned()))?;
        self.head.enqueued += info.total();
        self.settle_seen(&record)?;
        self.ring_for_work();
        Ok(RunStart::New(info))
    }

    fn end_bulk(&mut self, bulk: &BulkLanes) -> Result<BulkRecord, StoreError> {
        let at = self.bulks.0.iter().position(|record| record.number == bulk.number);
        let at = at.ok_or_else(|| StoreError::Contradiction("the bulk was taken away".to_owned()))?;
        if self.bulks.0[at].unnamed > 0 {
            return Err(StoreError::Contradiction(
                "some of the bulk's jobs do not have their ids or keys yet".to_owned(),
            ));
        }
        Ok(self.bulks_mut().0.remove(at))
    }

    /// What has appeared learns of the jobs that did not end as it wants.
    fn settle_seen(&mut self, bulk: &BulkRecord) -> Result<(), StoreError> {
        for needed in &bulk.failed_needs {
            // It may be gone, with all that needed it.
            if self.tables.jobs.get::<JobRecord>(*needed)?.is_some_and(|record| record.is_needed) {
                self.unsettle(Seq(*needed))?;
            }
        }
        Ok(())
    }

    fn unpublished_lane(&mut self, lane: u64) -> Result<LaneRecord, StoreError> {
        let record: Option<LaneRecord> = self.tables.lanes.get(lane)?;
        record
            .filter(|record| !record.published)
            .ok_or_else(|| StoreError::Damaged(format!("lane {lane} of a bulk is missing, or is published")))
    }

    /// Takes up to `limit` jobs of a bulk away, and the bulk itself with the last of them. Says whether it is gone.
    pub fn undo_bulk(&mut self, bulk: &BulkInfo, limit: usize) -> Result<bool, StoreError> {
        let number = bulk.number;
        // Another may have that number in a file that took this one's place.
        let found = self.bulks.get(number).filter(|found| found.maker == bulk.maker).cloned();
        let Some(mut bulk) = found else { return Ok(true) };
        let mut left = limit;
        while let Some((first, last)) = bulk.ranges.first().copied() {
            let mut seqs = Vec::new();
            for row in self.tables.jobs.open()?.range(first..=last)?.take(left) {
                seqs.push(Seq(row?.0.value()));
            }
            for seq in &seqs {
                // Taking another away may have unblocked it.
                let record = &self.job(*seq)?;
                let mut spec = self.spec(*seq)?;
                self.remove_needs(*seq)?;
                self.remove_needed(*seq)?;
                self.displace_job(*seq, record)?;
                if self.is_unnamed(*seq, &spec)? {
                    // Another may have it by now.
                    spec.id = None;
                    bulk.unnamed = bulk.unnamed.saturating_sub(1);
                }
                if self.is_unkeyed(*seq, &spec)? {
                    spec.key = None;
                    bulk.unnamed = bulk.unnamed.saturating_sub(1);
                }
                self.remove_spec(*seq, &spec)?;
            }
            let taken = seqs.last().map(|seq| seq.0);
            left -= seqs.len();
            if left == 0 {
                bulk.ranges[0].0 = taken.map_or(first, |taken| taken + 1);
                if bulk.ranges[0].0 > last {
                    bulk.ranges.remove(0);
                }
                break;
            }
            bulk.ranges.remove(0);
        }
        let is_over = bulk.ranges.is_empty();
        if is_over {
            for lane in bulk.lanes() {
                self.tables.lanes.delete(lane)?;
            }
            self.bulks_mut().0.retain(|other| other.number != number);
        } else if let Some(there) = self.bulks_mut().get(number) {
            *there = bulk;
        }
        Ok(is_over)
    }
}

impl Snapshot {
    /// The bulks under way, those whose makers died included.
    pub fn bulks(&self) -> Result<Vec<BulkInfo>, StoreError> {
        let info = |bulk: BulkRecord| BulkInfo { number: bulk.number, maker: bulk.maker };
        Ok(self.hidden()?.0.into_iter().map(info).collect())
    }

    /// The bulks under way, to the last number: those set aside, the next of them, and those that jobs have.
    #[cfg(any(test, feature = "sim"))]
    pub fn unpublished(&self) -> Result<Vec<Unpublished>, StoreError> {
        let jobs = self.open(super::tables::JOBS)?;
        let mut unpublished = Vec::new();
        for bulk in self.hidden()?.0 {
            let mut seqs = Vec::new();
            for (first, last) in &bulk.ranges {
                for row in jobs.range(*first..=*last)? {
                    seqs.push(Seq(row?.0.value()));
                }
            }
            unpublished.push((bulk.number, bulk.ranges, bulk.next, seqs, bulk.unnamed));
        }
        Ok(unpublished)
    }

    /// What is unpublished.
    pub(super) fn hidden(&self) -> Result<Bulks, StoreError> {
        self.get(META, BULKS).map(Option::unwrap_or_default)
    }
}

#[cfg(test)]
mod tests;
