//! `wait`: woken by the file, not by a timer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::bar::Bar;
use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::{args, selected, why};
use super::show::find;
use crate::model::{Filter, JobId, Seq, StateKind};
use crate::queue::Queue;
use crate::store::StoreError;
use crate::worker::{self, Bell, Ring, Told};

/// How much longer than a look at its jobs `wait` rests after it, at least.
const RESTS_FOR_A_LOOK: u32 = 9;
/// But not longer than this: it would be late.
const REST_MAX: Duration = Duration::from_secs(1);

pub(crate) fn wait(context: &Context, args: &args::Wait) -> Result<Exit, Failure> {
    if args.ids.is_empty() && !args.all && !args.filters.are_given() {
        return Err(selected::unsaid("wait", "--all"));
    }
    let queue = context.open_read_only()?;
    // Before the first look, so that nothing is missed between the two.
    let mut bell = Bell::new(queue.folder())?;
    let mut waited_for = Waited::default();
    if args.all {
        waited_for.open.extend(selected::seqs(&queue, &Filter::of_states(unended()))?);
    } else if args.filters.are_given() {
        let filter = args.filters.resolve(&queue)?;
        waited_for.find(&queue, &filter)?;
        if waited_for.open.is_empty()
            && waited_for.failed == 0
            && selected::pages(&queue, &filter, 1, |_| Ok(()))?.0 == 0
        {
            say(format_args!("no job matches; nothing to wait for"));
            queue.leave();
            return Ok(Exit::Done);
        }
    } else {
        for id in &args.ids {
            waited_for.open.insert(find(&queue, id)?);
        }
    }
    let deadline = args.timeout.map(|timeout| queue.clock().elapsed() + timeout);
    let total = waited_for.total();
    waited_for.look(&queue)?;
    let is_over = |waited_for: &Waited| waited_for.open.is_empty() || args.fail_fast && waited_for.failed > 0;
    let mut bar = Bar::new(total, total - waited_for.open.len() as u64, true, queue.clock());
    let (mut told, mut looked) = (Told::default(), Duration::ZERO);
    while !is_over(&waited_for) {
        let began = queue.clock().elapsed();
        let text = why::standing_still(&queue, waited_for.open.iter().copied(), &mut told)?;
        bar.show(total - waited_for.open.len() as u64, waited_for.failed, || {
            if let Some(text) = text {
                say(format_args!("{text}"));
            }
        });
        looked += queue.clock().elapsed().saturating_sub(began);
        if !ring(&queue, &mut bell, deadline)? {
            bar.clear();
            let left = waited_for.open.len() as u64;
            return Err(Failure::new(Exit::TimedOut, format!("timed out; {} not ended", count_is(left))));
        }
        // What comes meanwhile is looked at with this: looking at many jobs at each end would take a core from them.
        let rest = bar.rest().max((looked * RESTS_FOR_A_LOOK).min(REST_MAX));
        let rested = queue.clock().elapsed() + rest;
        let rested = deadline.map_or(rested, |deadline| deadline.min(rested));
        while queue.clock().elapsed() < rested && ring(&queue, &mut bell, Some(rested))? {}
        let began = queue.clock().elapsed();
        waited_for.look(&queue)?;
        looked = queue.clock().elapsed().saturating_sub(began);
    }
    bar.clear();
    let verdict = waited_for.verdict(&queue, args);
    queue.leave();
    verdict
}

fn unended() -> impl Iterator<Item = StateKind> {
    StateKind::ALL.into_iter().filter(|state| !state.has_ended())
}

fn count_is(n: u64) -> String {
    format!("{} {}", human::count(n, "job"), if n == 1 { "has" } else { "have" })
}

/// Waits for a ring until the deadline; `false` when that has come.
pub(crate) fn ring(queue: &Queue, bell: &mut Bell, deadline: Option<Duration>) -> Result<bool, Failure> {
    let left = deadline.map(|deadline| deadline.saturating_sub(queue.clock().elapsed()));
    let ring = bell.wait(left)?;
    // The kernel may tell of a death a moment before it drops the lock that says so.
    for pool in bell.take_closed() {
        worker::await_death(queue, &pool);
    }
    match ring {
        Ring::TimedOut => Ok(false),
        Ring::Moved => Err(Failure::new(Exit::QueueUnusable, gone(queue))),
        Ring::Woken | Ring::ClockSet | Ring::Changed => Ok(true),
    }
}

/// Why a queue is no longer where it was.
pub(super) fn gone(queue: &Queue) -> &'static str {
    if queue.file().exists() {
        "the queue file was replaced, by a compaction, a repair or a restore: type it again"
    } else {
        "the queue was moved or deleted"
    }
}

/// How many of the jobs that did not complete are named.
const NAMED_MAX: usize = 5;

#[derive(Default)]
struct Waited {
    open: BTreeSet<Seq>,
    /// Those that ended without completing.
    failed: u64,
    /// Some of these.
    named: BTreeSet<Seq>,
    /// Those that were removed before it was seen how they ended.
    removed: u64,
}

impl Waited {
    /// What a filter lets through: what has ended counts, but is not remembered.
    fn find(&mut self, queue: &Queue, filter: &Filter) -> Result<(), StoreError> {
        if let Some(open) = filter.within(unended()) {
            self.open.extend(selected::seqs(queue, &open)?);
        }
        if let Some(failed) = filter.within([StateKind::Dead, StateKind::Cancelled]) {
            // One may have ended since.
            selected::each_page_of_seqs(queue, &failed, |seqs| {
                for seq in seqs {
                    if !self.open.contains(&seq) {
                        self.fails(seq);
                    }
                }
            })?;
        }
        Ok(())
    }

    fn fails(&mut self, seq: Seq) {
        self.failed += 1;
        if self.named.len() < NAMED_MAX {
            self.named.insert(seq);
        }
    }

    fn total(&self) -> u64 {
        self.open.len() as u64
    }

    fn look(&mut self, queue: &Queue) -> Result<(), StoreError> {
        queue.read(|snapshot| {
            for seq in std::mem::take(&mut self.open) {
                match snapshot.state(seq)? {
                    Some(StateKind::Completed) => {}
                    None => self.removed += 1,
                    Some(state) if state.has_ended() => self.fails(seq),
                    Some(_) => {
                        self.open.insert(seq);
                    }
                }
            }
            Ok(())
        })
    }

    fn verdict(&self, queue: &Queue, args: &args::Wait) -> Result<Exit, Failure> {
        if self.removed > 0 {
            let jobs = human::count(self.removed, "job");
            let message = format!("{jobs} went away before it was seen whether they completed");
            return Err(Failure::new(Exit::NotFound, message).next("queuectl list"));
        }
        if self.failed == 0 {
            return Ok(Exit::Done);
        }
        let failed = queue.read(|snapshot| {
            let named = self.named.iter().map(|seq| Ok((snapshot.id(*seq)?, snapshot.state(*seq)?)));
            named.collect::<Result<Vec<(JobId, _)>, StoreError>>()
        })?;
        let ids: Vec<&JobId> = failed.iter().map(|(id, _)| id).collect();
        let jobs = human::count(self.failed, "job");
        say(format_args!("{jobs} did not complete: {}", why::names(&ids, self.failed)));
        let have_run = failed.iter().all(|(_, state)| *state == Some(StateKind::Dead));
        let next = match ids.as_slice() {
            [id] if self.failed == 1 => format!("queuectl {} {id}", if have_run { "logs" } else { "show" }),
            ids if !args.ids.is_empty() && have_run && ids.len() as u64 == self.failed => {
                format!("queuectl logs {}", ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" "))
            }
            _ => format!("queuectl list --state dead,cancelled{}", args.filters.which.words()),
        };
        Err(Failure::silent(Exit::JobsFailed).next(next))
    }
}
