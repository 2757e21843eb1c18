//! An independent check of the store: the rules of the queue written a second time over plain maps, and
//! workloads that are applied to both. For tests and fuzz targets only. [`fuzz`] has an entry for each of those.
//!
//! [`Reference`] shares values with the store (states, specs, settings), but none of its code that decides: what
//! a claim takes, where a job goes from where, when it is due, what is refused. [`run`] applies every operation
//! to a store and to a reference, and compares the answers and, after each transaction, all that can be seen.
//!
//! [`disk`] is a disk in memory that loses, tears and reorders what was not synced, kills processes and fails;
//! [`crash`] strikes a workload at every moment and at every I/O.
//!
//! A failure is replayed from its seed: `run(&store, &workload::seeded(seed, steps))`.

pub(crate) mod choices;
mod compare;
pub mod crash;
pub mod disk;
pub mod fuzz;
mod reference;
pub mod workload;

#[cfg(test)]
mod tests;

pub use compare::{Mismatch, Tally, run};
pub use reference::{Reference, Refused};
