//! The places on the pool's board: one for each claim outstanding, with the output files of the run that has it.

use std::sync::Mutex;

use super::monitor::lock;

/// A place, held by a claim from its start until its outcome is committed.
#[derive(Debug)]
pub(super) struct Place(u32);

impl Place {
    /// Where it is on the board.
    pub(super) fn index(&self) -> usize {
        self.0 as usize
    }

    /// The number of its output files.
    pub(super) fn number(&self) -> u32 {
        self.0
    }
}

/// The places that are free.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    places: Vec<Place>,
    next: u32,
}

impl Places {
    /// A free place: the one that was freed last, whose files are at hand.
    pub(super) fn take(&self) -> Place {
        let mut free = lock(&self.0);
        free.places.pop().unwrap_or_else(|| {
            free.next += 1;
            Place(free.next - 1)
        })
    }

    /// The outcome of the claim that had it is committed.
    pub(super) fn give_back(&self, place: Place) {
        lock(&self.0).places.push(place);
    }
}
