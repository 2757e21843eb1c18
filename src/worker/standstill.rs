//! What keeps jobs from running until a person does something, and whether all that somebody waits for is kept so.
//!
//! Decided at the moments when who waits is woken anyway: nothing here waits, or looks again by itself.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::activity::is_alive;
use crate::model::{Job, JobId, Millis, PoolId, QueueName, Seq, State, StateKind};
use crate::queue::Queue;
use crate::store::{Asked, Place, PoolInfo, QueueInfo, RunInfo, Serves, Snapshot, StoreError};

/// Most jobs whose needs a pool follows each time when it has nothing to run: those behind them wait for the like.
const LOOKED_AT_MAX: usize = 10_000;
/// Most jobs that are named for one reason.
const NAMED_MAX: usize = 5;

/// What only a person lets go.
#[derive(Debug, Clone)]
pub enum Hold {
    /// The job is held.
    Held,
    /// Its queue is paused.
    Paused(QueueName),
    /// No living pool serves its queue.
    Unserved(QueueName),
    /// Nobody works on its run.
    Abandoned(Box<RunInfo>),
}

impl PartialEq for Hold {
    /// A run stays the same whatever becomes of its jobs.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Held, Self::Held) => true,
            (Self::Paused(one), Self::Paused(other)) | (Self::Unserved(one), Self::Unserved(other)) => one == other,
            (Self::Abandoned(one), Self::Abandoned(other)) => one.lane == other.lane,
            _ => false,
        }
    }
}

/// Who could run what waits, at one moment.
pub struct Service<'s> {
    snapshot: &'s Snapshot,
    /// The pools that live and go on.
    serving: Vec<PoolInfo>,
    /// The pools that live.
    living: BTreeSet<PoolId>,
    /// The queues that are known.
    pub queues: Vec<QueueInfo>,
}

impl<'s> Service<'s> {
    /// As it is in `snapshot` of `queue`.
    pub fn read(queue: &Queue, snapshot: &'s Snapshot) -> Result<Self, StoreError> {
        let pools = snapshot.pools()?.into_iter().filter(|pool| pool.ended.is_none());
        let living: Vec<PoolInfo> = pools.filter(|pool| is_alive(queue, &pool.id)).collect();
        Ok(Self {
            snapshot,
            living: living.iter().map(|pool| pool.id.clone()).collect(),
            serving: living.into_iter().filter(|pool| pool.asked == Asked::Work).collect(),
            queues: snapshot.queues()?,
        })
    }

    /// What keeps the jobs of a queue or a run back.
    pub fn holds(&self, place: &Place) -> Result<Vec<Hold>, StoreError> {
        Ok(match place {
            Place::Run(lane) => {
                let is_served = self.serving.iter().any(|pool| pool.serves == Serves::Run(*lane));
                let run = if is_served { None } else { self.snapshot.run(*lane)? };
                run.map(|run| Hold::Abandoned(Box::new(run))).into_iter().collect()
            }
            Place::Queue(name) => {
                let is_paused = self.queues.iter().any(|queue| queue.name == *name && queue.paused);
                let is_served = self.serving.iter().any(|pool| pool.serves.queue(name.as_str()));
                let paused = is_paused.then(|| Hold::Paused(name.clone()));
                let unserved = (!is_served).then(|| Hold::Unserved(name.clone()));
                paused.into_iter().chain(unserved).collect()
            }
        })
    }

    /// What keeps a job back that waits for no other: nothing if it runs, or can.
    pub fn holds_of(&self, place: &Place, state: &State) -> Result<Vec<Hold>, StoreError> {
        if matches!(state, State::Processing(claimed) if self.living.contains(&claimed.pool)) {
            return Ok(Vec::new());
        }
        let held = state.is_held().then_some(Hold::Held);
        Ok(held.into_iter().chain(self.holds(place)?).collect())
    }

    /// Whose a job is.
    pub fn place(&self, job: &Job) -> Result<Place, StoreError> {
        let run = job.run.map(|number| self.snapshot.run_numbered(number)).transpose()?.flatten();
        Ok(run.map_or_else(|| Place::Queue(job.queue.clone()), |run| Place::Run(run.lane)))
    }
}

/// Why nothing goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Standstill {
    /// Something goes on, or will by itself.
    No,
    /// Something runs that may have nothing to do with it.
    Unclear,
    /// The next job starts at this time.
    Until(Millis),
    /// For a person: never empty.
    Person(Vec<Waits>),
}

/// Jobs that wait for the same thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Waits {
    /// What it is.
    pub hold: Hold,
    /// The first of the jobs.
    pub jobs: Vec<JobId>,
    /// How many they are.
    pub count: u64,
}

/// What was told last, so that nothing is told twice as long as it stays so.
#[derive(Debug, Default)]
pub struct Told(Option<Standstill>);

impl Told {
    /// Whether this is to be told.
    pub fn is_new(&mut self, now: &Standstill) -> bool {
        match now {
            Standstill::Unclear => false,
            Standstill::No => {
                self.0 = None;
                false
            }
            Standstill::Until(_) | Standstill::Person(_) => {
                let is_new = self.0.as_ref() != Some(now);
                self.0 = Some(now.clone());
                is_new
            }
        }
    }
}

/// Whether all of `jobs` that have not ended wait for a person.
pub fn standstill(queue: &Queue, jobs: impl IntoIterator<Item = Seq>) -> Result<Standstill, StoreError> {
    queue.read(|snapshot| for_a_person(&Service::read(queue, snapshot)?, jobs))
}

/// What a pool waits for that has nothing to run.
pub(super) fn of_pool(queue: &Queue, serves: &Serves) -> Result<Standstill, StoreError> {
    queue.read(|snapshot| {
        let service = Service::read(queue, snapshot)?;
        for pool in &service.living {
            if !snapshot.held_by(pool)?.is_empty() {
                return Ok(Standstill::Unclear);
            }
        }
        if let Some((due, seq)) = snapshot.next_due_of(serves)? {
            // Of a retry was told when it failed.
            let is_start = snapshot.state(seq)? == Some(StateKind::Scheduled) && due > queue.clock().now();
            return Ok(if is_start { Standstill::Until(due) } else { Standstill::No });
        }
        for_a_person(&service, snapshot.blocked(serves, LOOKED_AT_MAX)?)
    })
}

fn for_a_person(service: &Service<'_>, jobs: impl IntoIterator<Item = Seq>) -> Result<Standstill, StoreError> {
    let mut found: Vec<(Hold, Vec<Seq>, u64)> = Vec::new();
    let moves = service.snapshot.roots(jobs, |root| {
        // The first is what a person meets first; what else there is shows when that is done.
        let Some(hold) = service.holds_of(&root.place, &root.state)?.into_iter().next() else {
            return Ok(ControlFlow::Break(()));
        };
        match found.iter_mut().find(|(known, ..)| *known == hold) {
            Some((_, seqs, count)) => {
                *count += 1;
                if seqs.len() < NAMED_MAX {
                    seqs.push(root.seq);
                }
            }
            None => found.push((hold, vec![root.seq], 1)),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if moves.is_break() || found.is_empty() {
        return Ok(Standstill::No);
    }
    let waits = found.into_iter().map(|(hold, mut seqs, count)| {
        seqs.sort_unstable();
        let jobs = seqs.into_iter().map(|seq| service.snapshot.id(seq)).collect::<Result<_, _>>()?;
        Ok(Waits { hold, jobs, count })
    });
    waits.collect::<Result<_, StoreError>>().map(Standstill::Person)
}
