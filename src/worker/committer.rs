//! The store thread of a pool: the only one that commits for it.
//!
//! One transaction carries what was learned since the last: finishes, what they mean for jobs that need these,
//! promotions of due jobs, new claims. Jobs
//! are handed out after it. A commit that failed may have happened: the file is opened anew, finishes are
//! repeated (a lease accepts one), and claims that nobody knows of are given back.

use std::collections::BTreeSet;

use super::dispatcher::{Committed, Event, Finish, Report, StoreTask};
use super::news::{JobNews, News};
use super::output::delete_outputs;
use super::pool::{PoolEnd, PoolError, Shared};
use super::standstill::{self, Told};
use crate::model::{Ending, Lease, Seq};
use crate::queue::Queue;
use crate::store::{
    Asked, Claim, ClaimCache, Finished, Generations, NOTHING_LEFT, SETTLED_AT_ONCE, Serves, Snapshot, StoreError,
    Sweep, Swept, Tx,
};

/// Most due jobs that are made ready in one transaction, which keeps it within 10 ms.
const PROMOTED_MAX: usize = 1_000;
/// Most jobs that a sweep passes over because they are still needed; the next one goes on behind them.
const PASSED_OVER_MAX: u64 = 10_000;

pub(super) struct Committer<'a> {
    shared: &'a Shared,
    queue: Queue,
    serves: &'a Serves,
    cache: ClaimCache,
    /// Where the generations stood after the last look or commit.
    seen: Generations,
    /// What the pool was last said to wait for.
    told: Told,
    sweep: Sweep,
    /// How many jobs this sweep has passed over.
    passed_over: u64,
    /// Whether a commit failed since the last that succeeded.
    in_doubt: bool,
    /// What makes going on pointless. The board keeps the outcomes for whoever comes when it is mended.
    fatal: Option<StoreError>,
}

/// What one transaction did.
struct Done {
    finished: Vec<Option<Finished>>,
    claims: Vec<Claim>,
    due: Option<crate::model::Millis>,
    /// Whether some jobs are still to be told of the end of one that they need.
    is_unsettled: bool,
    before: Generations,
    after: Generations,
}

impl<'a> Committer<'a> {
    pub(super) fn new(shared: &'a Shared, queue: Queue, serves: &'a Serves) -> Self {
        let (cache, seen, sweep) = (ClaimCache::default(), Generations::default(), Sweep::default());
        let told = Told::default();
        Self { shared, queue, serves, cache, seen, told, sweep, passed_over: 0, in_doubt: false, fatal: None }
    }

    /// Does what the dispatcher asks for, until it asks to finish.
    pub(super) fn run(mut self) -> Result<PoolEnd, PoolError> {
        loop {
            let (task, claimed) = self.shared.monitor.next_store_task();
            match task {
                // Dropped, these reports are still on the board.
                StoreTask::Commit { .. } if self.fatal.is_some() => {
                    self.shared.handle(Event::Committed(Committed::nothing()));
                }
                StoreTask::Commit { reports, want } => self.commit(reports, want, &claimed),
                StoreTask::Check { is_empty } => self.check(is_empty),
                StoreTask::Sweep => self.sweep(),
                StoreTask::Finish(finish) => return self.finish(finish),
                StoreTask::Wait => {}
            }
        }
    }

    fn finish(mut self, finish: Finish) -> Result<PoolEnd, PoolError> {
        if let Some(error) = self.fatal {
            let folder = self.queue.folder().to_owned();
            self.queue.leave();
            return Err(match error {
                StoreError::Gone => PoolError::QueueMoved(folder),
                error => error.into(),
            });
        }
        let (end, why) = match finish {
            Finish::Stopped => (PoolEnd::Stopped, "stopped"),
            Finish::Empty => (PoolEnd::Empty, NOTHING_LEFT),
            Finish::GivenUp => return Err(PoolError::Unwritten),
            Finish::QueueMoved => {
                let folder = self.queue.folder().to_owned();
                self.queue.leave();
                return Err(PoolError::QueueMoved(folder));
            }
        };
        // A row that cannot be retired now is all that is left: the next pool finds it without leases.
        if self.retire(why).or_else(|_| self.queue.reopen().and_then(|()| self.retire(why))).is_err() {
            let trouble = "the end of this pool could not be written; the next one will".to_owned();
            self.shared.observer.news(News::Trouble(trouble));
        }
        Ok(end)
    }

    /// Nobody has a claim of this pool any more: what it holds all the same came of a commit that was thought to
    /// have failed.
    fn retire(&self, why: &str) -> Result<bool, StoreError> {
        let pool = self.shared.file.id();
        self.shared.in_transaction(|| {
            self.queue.write(|tx| {
                give_back_unknown(tx, pool, &BTreeSet::new())?;
                tx.retire(pool, why)
            })
        })
    }

    fn commit(&mut self, reports: Vec<Report>, want: usize, claimed: &BTreeSet<(Seq, Lease)>) {
        let before = self.shared.monitor.moment();
        let result = self.transact(&reports, want, claimed);
        match result {
            Ok(done) => {
                let took = self.shared.monitor.moment().mono.saturating_sub(before.mono);
                self.in_doubt = false;
                self.tell(reports, done.finished);
                // Without a claim nobody looked at what others brought, or what came due, since the last look.
                let unseen = (done.after.work != self.seen.work || done.is_unsettled).then_some(true);
                let more_work = if want > 0 { Some(done.claims.len() == want || done.is_unsettled) } else { unseen };
                let committed = Committed {
                    claims: done.claims,
                    more_work,
                    held_back: self.cache.held_back(),
                    due: done.due,
                    took,
                };
                self.shared.handle(Event::Committed(committed));
                let followed = done.before.control == self.seen.control || self.follow_control();
                let control = if followed { done.after.control } else { self.seen.control };
                self.seen = Generations { control, ..done.after };
            }
            Err(error) => self.not_committed(reports, error),
        }
    }

    fn transact(
        &mut self,
        reports: &[Report],
        want: usize,
        claimed: &BTreeSet<(Seq, Lease)>,
    ) -> Result<Done, StoreError> {
        let (pool, serves, cache, in_doubt) = (self.shared.file.id(), self.serves, &mut self.cache, self.in_doubt);
        self.shared.in_transaction(|| {
            self.queue.write(|tx| {
                let before = tx.generations();
                let finish = |report: &Report| tx.finish(&report.token, &report.ending);
                let finished = reports.iter().map(finish).collect::<Result<_, _>>()?;
                if in_doubt {
                    give_back_unknown(tx, pool, claimed)?;
                }
                // Before the claims: what waited for these jobs may follow them at once.
                let is_unsettled = tx.settle(SETTLED_AT_ONCE)?;
                tx.promote_due(PROMOTED_MAX)?;
                let claims = if want > 0 { tx.claim(pool, serves, want, cache)? } else { Vec::new() };
                Ok(Done { finished, claims, due: tx.next_due()?, is_unsettled, before, after: tx.generations() })
            })
        })
    }

    fn tell(&self, reports: Vec<Report>, finished: Vec<Option<Finished>>) {
        let mut jobs = Vec::with_capacity(reports.len());
        for (report, finished) in reports.into_iter().zip(finished) {
            if let Some(place) = report.place {
                self.shared.places.give_back(place);
            }
            if let (Some(Finished { seq, id, name, progress }), Ending::Ran(run)) = (finished, report.ending) {
                let attempt = progress.attempts;
                jobs.push(JobNews { seq, id, name, attempt, run, progress });
            }
        }
        if !jobs.is_empty() {
            self.shared.observer.finished(jobs);
        }
    }

    fn not_committed(&mut self, reports: Vec<Report>, error: StoreError) {
        if !may_pass(&error) {
            self.shared.handle(Event::NotCommitted { reports });
            self.shared.handle(Event::Asked(Asked::StopNow));
            self.fatal = Some(error);
            return;
        }
        if !self.in_doubt {
            let trouble = format!("{error}; trying again until it works");
            self.shared.observer.news(News::Trouble(trouble));
        }
        self.in_doubt = true;
        // If it fails, the next try says so again.
        let queue = &mut self.queue;
        let _ = self.shared.in_transaction(|| queue.reopen());
        self.shared.handle(Event::NotCommitted { reports });
    }

    /// What changed since the last look.
    fn check(&mut self, is_empty: bool) {
        let look = self.queue.read(|snapshot| {
            let left = if is_empty { Some(snapshot.unfinished(self.serves)?) } else { None };
            Ok((snapshot.generations()?, snapshot.next_due()?, snapshot.next_sweep()?, left))
        });
        let Ok((now, due, sweep, left)) = look else {
            // The next commit tells what is wrong.
            self.shared.handle(Event::Checked { more_work: true, due: None, sweep: None });
            return;
        };
        let seen = std::mem::replace(&mut self.seen, now);
        self.shared.handle(Event::Checked { more_work: now.work != seen.work, due, sweep });
        if now.control != seen.control && !self.follow_control() {
            self.seen.control = seen.control;
        }
        match left {
            Some(0) => self.shared.handle(Event::Empty),
            // With news there may be something to claim: it is asked again after that.
            Some(_) if now.work == seen.work => self.tell_waiting(),
            Some(_) | None => {}
        }
    }

    /// Nothing can be claimed, and something is left: says why, unless that was said.
    fn tell_waiting(&mut self) {
        // It is only for a line of talk: an error is told by the next commit.
        let Ok(what) = standstill::of_pool(&self.queue, self.serves) else { return };
        if self.told.is_new(&what) {
            self.shared.observer.news(News::Waiting { what, now: self.shared.clock.now() });
        }
    }

    /// Does a piece of a sweep.
    fn sweep(&mut self) {
        let (clock, sweep) = (self.shared.clock.earliest(), &mut self.sweep);
        let swept = self.shared.in_transaction(|| self.queue.write(|tx| tx.sweep(sweep, clock)));
        match swept {
            Ok(swept) => self.swept(&swept),
            Err(error) => {
                self.sweep = Sweep::default();
                self.shared.handle(Event::Swept { is_over: true, next: None });
                self.not_committed(Vec::new(), error);
            }
        }
    }

    fn swept(&mut self, swept: &Swept) {
        for (seq, files) in &swept.files {
            for (path, error) in delete_outputs(self.queue.folder(), *seq, files) {
                let trouble = format!("what job {} wrote could not be deleted: {}: {error}", seq.0, path.display());
                self.shared.observer.news(News::Trouble(trouble));
            }
        }
        self.passed_over += swept.kept;
        if swept.is_over {
            self.sweep = Sweep::default();
        }
        let is_over = swept.is_over || self.passed_over >= PASSED_OVER_MAX;
        let next = if is_over { self.queue.read(Snapshot::next_sweep).unwrap_or_default() } else { None };
        self.passed_over *= u64::from(!is_over);
        self.shared.handle(Event::Swept { is_over, next });
    }

    /// Does what a person asked; says whether it could be read.
    fn follow_control(&self) -> bool {
        let pool = self.shared.file.id();
        let control = self.queue.read(|snapshot| snapshot.control(pool));
        if let Ok(Some(control)) = &control {
            self.shared.handle(Event::Asked(control.asked));
            self.shared.handle(Event::Scaled(control.workers as usize));
            self.shared.handle(Event::Cancel(control.cancels.clone()));
        }
        control.is_ok()
    }
}

/// Whether what failed may work later: the system refused, as on a full disk. A damaged file stays so.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Io(_) | StoreError::ReadOnly(_) | StoreError::CommitFailed(_))
}

/// Claims of a commit that was thought to have failed.
fn give_back_unknown(
    tx: &mut Tx<'_>,
    pool: &crate::model::PoolId,
    claimed: &BTreeSet<(Seq, Lease)>,
) -> Result<(), StoreError> {
    for held in tx.leases(pool)? {
        if !claimed.contains(&(held.token.seq(), held.token.lease())) {
            tx.finish(&held.token, &Ending::NotStarted)?;
        }
    }
    Ok(())
}
