//! Queues as a person sees them: how many jobs of each are in which state, and what holds them back.

use std::collections::BTreeMap;

use super::StoreError;
use super::claim::Serves;
use super::placement::HELD_DUE;
use super::records::queue_name;
use super::runs::{lane_counts, unfinished};
use super::tables::{COUNTS, QUEUES, SCHEDULE, Snapshot};
use crate::model::{QueueName, StateKind};

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// What it is called.
    pub name: QueueName,
    /// How many of its jobs are in each state, those of runs left out. No entries of zero.
    pub counts: BTreeMap<StateKind, u64>,
    /// How many of those that are scheduled are held: they wait for a person.
    pub held: u64,
    /// How many of them are processed at once, if that has a limit.
    pub parallel: Option<u32>,
    /// Whether they wait for a person.
    pub paused: bool,
}

impl QueueInfo {
    /// How many of its jobs have not ended.
    pub fn unfinished(&self) -> u64 {
        unfinished(&self.counts)
    }

    /// How many of its jobs are processed.
    pub fn processing(&self) -> u64 {
        self.counts.get(&StateKind::Processing).copied().unwrap_or_default()
    }

    /// How many of its jobs wait, for whatever.
    pub fn waiting(&self) -> u64 {
        self.unfinished() - self.processing()
    }

    /// How many of its jobs could still run without a person, those that are blocked left out. What is processed ends even
    /// in a paused queue.
    pub fn moving(&self) -> u64 {
        if self.paused { self.processing() } else { self.unfinished() - self.held - self.blocked() }
    }

    /// How many of its jobs wait for others, where these could let them in.
    fn blocked(&self) -> u64 {
        self.counts.get(&StateKind::Blocked).copied().unwrap_or_default()
    }
}

impl Snapshot {
    /// The queues that have had jobs or have settings of their own, by name.
    pub fn queues(&self) -> Result<Vec<QueueInfo>, StoreError> {
        let mut lanes: BTreeMap<String, Vec<u64>> =
            self.queues_with_settings()?.into_iter().map(|queue| (queue, Vec::new())).collect();
        for row in self.open(QUEUES)?.range::<(&str, u64)>(..)? {
            let key = row?.0;
            let (queue, lane) = key.value();
            lanes.entry(queue.to_owned()).or_default().push(lane);
        }
        let (table, mut queues) = (self.open(COUNTS)?, Vec::with_capacity(lanes.len()));
        for (queue, lanes) in lanes {
            let (mut counts, mut held): (BTreeMap<StateKind, u64>, u64) = (BTreeMap::new(), 0);
            for lane in lanes {
                held += self.held(lane)?;
                for (kind, count) in lane_counts(&table, lane)? {
                    *counts.entry(kind).or_default() += count;
                }
            }
            let settings = self.settings_of(&queue)?;
            queues.push(QueueInfo {
                name: queue_name(&queue)?,
                counts,
                held,
                parallel: settings.parallel,
                paused: settings.paused,
            });
        }
        Ok(queues)
    }

    /// How many jobs of the lanes that `serves` names could still run without a person, those that any pool holds
    /// included. What is blocked could, as long as anything anywhere could: it may wait for that.
    pub fn unfinished(&self, serves: &Serves) -> Result<u64, StoreError> {
        let queues = self.queues()?;
        let is_served = |queue: &&QueueInfo| serves.queue(queue.name.as_str());
        let (mut moving, mut blocked): (u64, u64) = (0, 0);
        for queue in queues.iter().filter(is_served) {
            moving += queue.moving();
            blocked += if queue.paused { 0 } else { queue.blocked() };
        }
        if let Serves::Run(lane) = serves {
            let counts = self.lane_counts(*lane)?;
            blocked = counts.get(&StateKind::Blocked).copied().unwrap_or_default();
            moving = unfinished(&counts) - self.held(lane.0)? - blocked;
        }
        if blocked == 0 || moving > 0 {
            return Ok(moving + blocked);
        }
        let mut elsewhere: u64 = queues.iter().map(QueueInfo::moving).sum();
        for run in self.unfinished_runs()? {
            let blocked = run.counts.get(&StateKind::Blocked).copied().unwrap_or_default();
            elsewhere += run.unfinished() - self.held(run.lane.0)? - blocked;
        }
        Ok(if elsewhere > 0 || self.is_unsettled()? { blocked } else { 0 })
    }

    /// How many jobs of a lane are held and not blocked.
    fn held(&self, lane: u64) -> Result<u64, StoreError> {
        let rows = self.open(SCHEDULE)?.range((lane, HELD_DUE, 0)..=(lane, HELD_DUE, u64::MAX))?;
        Ok(rows.count() as u64)
    }
}
