//! The places on the pool's board: one for each claim outstanding, with the output files of the run that has it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::monitor::lock;
use super::output::Spool;
use crate::model::PoolId;

/// A place, held by a claim from its start until its outcome is committed.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it is on the board.
    pub(super) index: usize,
    spool: Option<Arc<Spool>>,
}

impl Place {
    /// The number of its output files.
    pub(super) fn number(&self) -> u32 {
        u32::try_from(self.index).unwrap_or(u32::MAX)
    }

    /// Its output files, empty and nobody else's; made anew where they are not.
    pub(super) fn ready(&mut self, queue: &Path, pool: &PoolId) -> io::Result<Arc<Spool>> {
        if let Some(spool) = self.spool.take().filter(|spool| spool.reset()) {
            return Ok(Arc::clone(self.spool.insert(spool)));
        }
        let spool = Spool::create(queue, pool, self.number())?;
        Ok(Arc::clone(self.spool.insert(Arc::new(spool))))
    }
}

/// The places that are free.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    places: Vec<Place>,
    next: usize,
}

impl Places {
    /// A free place: the one that was freed last, since what it needs is at hand.
    pub(super) fn take(&self) -> Place {
        let mut free = lock(&self.0);
        free.places.pop().unwrap_or_else(|| {
            free.next += 1;
            Place { index: free.next - 1, spool: None }
        })
    }

    /// The outcome of the claim that had it is committed.
    pub(super) fn give_back(&self, place: Place) {
        if let Some(spool) = &place.spool {
            spool.let_go();
        }
        lock(&self.0).places.push(place);
    }
}
