//! The places on the pool's board: one for each claim outstanding, with the output files of the run that has it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::monitor::lock;
use super::output::Spool;
use crate::model::PoolId;

/// A place, held by a claim from its start until its outcome is committed.
#[derive(Debug)]
pub(super) struct Place {
    number: u32,
    spool: Arc<Spool>,
}

impl Place {
    /// Where it is on the board.
    pub(super) fn index(&self) -> usize {
        self.number as usize
    }

    /// The number of its output files.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Its output files.
    pub(super) fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }
}

/// The places that are free.
#[derive(Debug)]
pub(super) struct Places {
    queue: PathBuf,
    pool: PoolId,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    places: Vec<Place>,
    next: u32,
}

impl Places {
    /// The places of a pool.
    pub(super) fn new(queue: PathBuf, pool: PoolId) -> Self {
        Self { queue, pool, free: Mutex::default() }
    }

    /// A free place: the one that was freed last, whose files are at hand.
    pub(super) fn take(&self) -> Place {
        let mut free = lock(&self.free);
        free.places.pop().unwrap_or_else(|| {
            let number = free.next;
            free.next += 1;
            Place { number, spool: Arc::new(Spool::of(&self.queue, &self.pool, number)) }
        })
    }

    /// The outcome of the claim that had it is committed.
    pub(super) fn give_back(&self, place: Place) {
        lock(&self.free).places.push(place);
    }
}
