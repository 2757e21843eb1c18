//! A verb on all jobs that a filter lets through and it is legal for: found first, then taken piece by piece.
//!
//! Each piece is a transaction, except of signals, which are not in the queue. A kill, a signal or a full disk between
//! two of them leaves those before it done and the others as they were; the same line does the rest. What moved out of
//! reach meanwhile is left out.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::confirm::confirm;
use super::super::context::say;
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::selected;
use crate::model::{Filter, JobId, Seq, StateKind};
use crate::queue::Queue;
use crate::store::{StoreError, Tx};
use crate::worker::StopListener;

/// Most jobs of one transaction: others get their turn between two.
pub(super) const PIECE: usize = 256;

/// Whether it is about one of the jobs: its state, what it needs, or who needs it.
fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Refused { .. }
            | StoreError::NeedEnded { .. }
            | StoreError::NeedsNewer { .. }
            | StoreError::NeedsTooMany { .. }
            | StoreError::NeededUnseen(_)
            | StoreError::OfRun(_)
    )
}

/// What is done to jobs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verb {
    /// `cancels`
    pub present: &'static str,
    /// `cancelled`
    pub past: &'static str,
    /// Whom it does not take: `that have ended`
    pub not: &'static str,
    /// The states that it takes jobs in if the filter names none.
    pub usual: &'static [StateKind],
    /// The same if the filter does.
    pub legal: &'static [StateKind],
    /// Whether it takes only those that are held, or only those that are not.
    pub held: Option<bool>,
}

impl Verb {
    /// One that takes jobs in these states, held or not.
    pub(super) const fn new(
        [present, past, not]: [&'static str; 3],
        usual: &'static [StateKind],
        legal: &'static [StateKind],
    ) -> Self {
        Self { present, past, not, usual, legal, held: None }
    }
}

/// Jobs to be taken.
pub(super) struct Many {
    verb: Verb,
    /// That there are none.
    none: String,
    /// The oldest first.
    seqs: Vec<Seq>,
    /// Those that they are taken in.
    states: BTreeSet<StateKind>,
    left_out: u64,
    refused: Refused,
}

/// Jobs that are in a state in which they would be taken, and are not for another reason.
#[derive(Default)]
struct Refused {
    count: u64,
    /// The reason, of the first.
    first: Option<String>,
}

impl Many {
    /// The jobs that `filter` lets through as far as the verb takes them.
    pub(super) fn find(queue: &Queue, verb: Verb, filter: &Filter) -> Result<Self, Failure> {
        let states = if filter.states.is_empty() { verb.usual } else { verb.legal };
        let within = filter.within(states.iter().copied()).map(|within| Filter { held: verb.held, ..within });
        let mut seqs = within.as_ref().map_or_else(|| Ok(Vec::new()), |within| selected::seqs(queue, within))?;
        // One that moved meanwhile may have been met twice.
        seqs.sort_unstable();
        seqs.dedup();
        let states = within.map(|within| within.states).unwrap_or_default();
        let all = if filter.states == states && verb.held.is_none() { 0 } else { selected::count(queue, filter)? };
        let left_out = all.saturating_sub(seqs.len() as u64);
        Ok(Self { verb, none: selected::none(filter), left_out, seqs, states, refused: Refused::default() })
    }

    /// On a terminal asks whether that is what is wanted.
    pub(super) fn confirm(&self, is_sure: bool) -> Result<(), Failure> {
        let question = || {
            let jobs = human::count(self.seqs.len() as u64, "job");
            let but = if self.left_out == 0 { String::new() } else { format!(", but not {}", self.others()) };
            format!("this {} {jobs}{but}; go on?", self.verb.present)
        };
        confirm(is_sure || self.seqs.is_empty(), question, self.verb.past)
    }

    /// Does it, telling `done` of each piece after its commit. Answers how many were taken.
    pub(super) fn each<T>(
        &mut self,
        queue: &Queue,
        step: impl Fn(&[JobId], &mut Tx<'_>) -> Result<Vec<T>, StoreError>,
        done: impl FnMut(Vec<T>),
    ) -> Result<u64, Failure> {
        let states = self.states.clone();
        let refused = RefCell::new(Refused::default());
        let taken = self.pieces(|seqs| Ok(in_one_transaction(queue, seqs, &states, &step, &refused)?), done)?;
        self.refused = refused.into_inner();
        self.left_out = self.left_out.saturating_sub(self.refused.count);
        Ok(taken)
    }

    /// The same where a piece is not a transaction: `take` does it to those of the jobs that it can be done to.
    pub(super) fn pieces<T>(
        &mut self,
        take: impl Fn(&[Seq]) -> Result<Vec<T>, Failure>,
        mut done: impl FnMut(Vec<T>),
    ) -> Result<u64, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&asked);
        // If the system has no room for it, a signal ends this in silence.
        let _listener = StopListener::start(move || hears.store(true, Ordering::Relaxed));
        let (seqs, mut taken) = (std::mem::take(&mut self.seqs), 0);
        let so_far = |taken: u64| format!("{taken} of {} {}", human::count(seqs.len() as u64, "job"), self.verb.past);
        for piece in seqs.chunks(PIECE) {
            if asked.load(Ordering::Relaxed) {
                return Err(Failure::new(Exit::Stopped, format!("stopped: {}", so_far(taken))));
            }
            let results = take(piece).map_err(|failure| failure.and(so_far(taken)))?;
            taken += results.len() as u64;
            done(results);
        }
        self.left_out += seqs.len() as u64 - taken;
        Ok(taken)
    }

    /// Leaves out so many that were taken, and ended otherwise.
    pub(super) fn leave_out(&mut self, more: u64) {
        self.left_out += more;
    }

    /// What was done to so many, as a result.
    pub(super) fn told(&self, count: u64, what: &str) -> String {
        match (count, self.left_out + self.refused.count) {
            (0, 0) => human::capital(&self.none),
            (0, _) => format!("Nothing was {}", self.verb.past),
            _ => format!("✓ {} {what}", human::count(count, "job")),
        }
    }

    /// Says how many were not for this verb.
    pub(super) fn tell_left_out(&self) {
        if self.left_out > 0 {
            say(format_args!("left out: {}", self.others()));
        }
        let Refused { count, first: Some(why) } = &self.refused else { return };
        let (jobs, cannot) = (human::count(*count, "job"), self.verb.past);
        say(format_args!("left out: {jobs} that cannot be {cannot}; of the first: {why}"));
    }

    /// Who is left out.
    fn others(&self) -> String {
        format!("{} {}", human::count(self.left_out, "job"), self.verb.not)
    }
}

/// Does it to those of the jobs that are in one of `states`, in one transaction; if one of them is `refused` for more than
/// its state, in one for each half of them.
fn in_one_transaction<T>(
    queue: &Queue,
    seqs: &[Seq],
    states: &BTreeSet<StateKind>,
    step: &impl Fn(&[JobId], &mut Tx<'_>) -> Result<Vec<T>, StoreError>,
    refused: &RefCell<Refused>,
) -> Result<Vec<T>, StoreError> {
    let done = queue.write_and_settle(|tx| {
        let ids = tx.still_in(seqs, states)?;
        step(&ids, tx)
    });
    match done {
        Err(error) if is_refusal(&error) && seqs.len() == 1 => {
            let mut refused = refused.borrow_mut();
            refused.count += 1;
            refused.first.get_or_insert_with(|| error.to_string());
            Ok(Vec::new())
        }
        Err(error) if is_refusal(&error) => {
            let halves = seqs.chunks(seqs.len().div_ceil(2));
            let each = halves.map(|half| in_one_transaction(queue, half, states, step, refused));
            Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        }
        done => done,
    }
}
