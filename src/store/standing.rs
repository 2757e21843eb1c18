//! What jobs come down to that wait for others: the jobs at the beginning of their chains, which wait for no job. As long
//! as one of these moves, there is hope for those behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::StoreError;
use super::claim::Serves;
use super::codec::decode;
use super::placement::HELD_DUE;
use super::records::{JobRecord, LaneKind, LaneRecord, NeedRecord, queue_name};
use super::tables::{JOBS, LANES, NEEDS, QUEUES, SCHEDULE, Snapshot, get};
use crate::model::{JobId, LaneId, Millis, QueueName, Seq, State, StateKind};

/// Whose a job is: a queue's, or a run's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A queue's.
    Queue(QueueName),
    /// The run's of this lane.
    Run(LaneId),
}

/// A job that has not ended and waits for no job.
#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    /// Its number.
    pub seq: Seq,
    /// Whose it is.
    pub place: Place,
    /// Where it is. `Blocked` if what it waited for has ended and nobody told it yet.
    pub state: State,
}

impl Snapshot {
    /// Passes on what each of `seqs` comes down to, each of those once, until `take` breaks off; says whether it did.
    pub fn roots(
        &self,
        seqs: impl IntoIterator<Item = Seq>,
        mut take: impl FnMut(Root) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let (jobs, needs) = (self.open(JOBS)?, self.open(NEEDS)?);
        let (mut places, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for seq in seqs {
            let mut open = vec![seq];
            while let Some(seq) = open.pop() {
                let record: Option<JobRecord> = if seen.insert(seq) { get(&jobs, seq.0)? } else { None };
                let Some(record) = record.filter(|record| !record.kind().has_ended()) else { continue };
                if record.kind() == StateKind::Blocked {
                    let before = open.len();
                    for row in needs.range((seq.0, 0)..=(seq.0, u64::MAX))? {
                        let (key, need) = row?;
                        let (needed, need) = (key.value().1, decode::<NeedRecord>("NEEDS", need.value())?);
                        let state = if need.met { None } else { get::<_, JobRecord>(&jobs, needed)? };
                        open.extend(state.filter(|needed| !needed.kind().has_ended()).map(|_| Seq(needed)));
                    }
                    if open.len() > before {
                        continue;
                    }
                }
                let place = match places.get(&record.lane) {
                    Some(place) => Place::clone(place),
                    None => places.entry(record.lane).or_insert(self.place(record.lane)?).clone(),
                };
                if take(Root { seq, place, state: record.progress()?.state })?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn place(&self, lane: u64) -> Result<Place, StoreError> {
        let record: Option<LaneRecord> = self.get(LANES, lane)?;
        let record = record.ok_or_else(|| StoreError::Damaged(format!("the lane {lane} is missing")))?;
        Ok(match record.kind {
            LaneKind::Run(_) => Place::Run(LaneId(lane)),
            LaneKind::Queue => Place::Queue(queue_name(&record.queue)?),
        })
    }

    /// What a job is called.
    pub fn id(&self, seq: Seq) -> Result<JobId, StoreError> {
        super::query::id_of(&self.open(super::tables::SPECS)?, seq)
    }

    /// The jobs of the lanes that `serves` names which wait for others: the first of them, at most so many.
    pub fn blocked(&self, serves: &Serves, most: usize) -> Result<Vec<Seq>, StoreError> {
        let (lanes, jobs, needs) = (self.lanes_served(serves)?, self.open(JOBS)?, self.open(NEEDS)?);
        let (mut blocked, mut from) = (Vec::new(), 0);
        // From job to job, however many each needs.
        while let Some(row) = needs.range((from, 0)..)?.next().filter(|_| blocked.len() < most) {
            let seq = row?.0.value().0;
            let record: Option<JobRecord> = get(&jobs, seq)?;
            let waits = |record: &JobRecord| record.kind() == StateKind::Blocked && lanes.contains(&record.lane);
            blocked.extend(record.filter(waits).map(|_| Seq(seq)));
            let Some(next) = seq.checked_add(1) else { break };
            from = next;
        }
        Ok(blocked)
    }

    /// The job of the lanes that `serves` names which is the next to become ready by itself, and when.
    pub fn next_due_of(&self, serves: &Serves) -> Result<Option<(Millis, Seq)>, StoreError> {
        let (schedule, mut first) = (self.open(SCHEDULE)?, None);
        for lane in self.lanes_served(serves)? {
            let row = schedule.range((lane, 0, 0)..(lane, HELD_DUE, 0))?.next();
            let due = row.transpose()?.map(|(key, _)| (Millis(key.value().1), Seq(key.value().2)));
            first = first.into_iter().chain(due).min();
        }
        Ok(first)
    }

    /// The lanes that `serves` names, those of paused queues left out.
    fn lanes_served(&self, serves: &Serves) -> Result<BTreeSet<u64>, StoreError> {
        if let Serves::Run(lane) = serves {
            return Ok(BTreeSet::from([lane.0]));
        }
        let (table, mut lanes) = (self.open(QUEUES)?, BTreeSet::new());
        let is_served = |queue: &super::QueueInfo| serves.queue(queue.name.as_str()) && !queue.paused;
        for queue in self.queues()?.iter().filter(|queue| is_served(queue)) {
            for row in table.range((queue.name.as_str(), 0)..=(queue.name.as_str(), u64::MAX))? {
                lanes.insert(row?.0.value().1);
            }
        }
        Ok(lanes)
    }
}
