//! Queues as a person sees them: how many jobs of each are in which state, and what holds them back.

use std::collections::BTreeMap;

use super::StoreError;
use super::claim::Serves;
use super::records::queue_name;
use super::runs::{lane_counts, unfinished};
use super::tables::{COUNTS, QUEUES, Snapshot};
use crate::model::{QueueName, StateKind};

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// What it is called.
    pub name: QueueName,
    /// How many of its jobs are in each state, those of runs left out. No entries of zero.
    pub counts: BTreeMap<StateKind, u64>,
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

    /// How many of its jobs could still run without a person. What is processed ends even in a paused queue.
    pub fn moving(&self) -> u64 {
        if self.paused { self.processing() } else { self.unfinished() }
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
            let mut counts: BTreeMap<StateKind, u64> = BTreeMap::new();
            for lane in lanes {
                for (kind, count) in lane_counts(&table, lane)? {
                    *counts.entry(kind).or_default() += count;
                }
            }
            let settings = self.settings_of(&queue)?;
            queues.push(QueueInfo {
                name: queue_name(&queue)?,
                counts,
                parallel: settings.parallel,
                paused: settings.paused,
            });
        }
        Ok(queues)
    }

    /// How many jobs of the lanes that `serves` names could still run without a person, those that any pool holds
    /// included.
    pub fn unfinished(&self, serves: &Serves) -> Result<u64, StoreError> {
        if let Serves::Run(lane) = serves {
            return Ok(unfinished(&self.lane_counts(*lane)?));
        }
        let queues = self.queues()?.into_iter().filter(|queue| serves.queue(queue.name.as_str()));
        Ok(queues.map(|queue| queue.moving()).sum())
    }
}
