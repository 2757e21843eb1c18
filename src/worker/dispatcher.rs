//! The dispatcher: what a pool does next, decided without a clock, a file or a process.
//!
//! Events go in with the time, actions come out; between events [`Dispatcher::next_deadline`] says until when
//! nothing happens by itself. It sits behind one lock, and whoever has news brings it and carries out what it
//! answers, so that a worker goes from one job to the next without waking another thread.
//!
//! True of every sequence of events:
//! - never more jobs start than there are workers, however many there were before;
//! - every claim comes back in a batch for the store exactly once, started or not;
//! - after a stop nothing starts, and the pool finishes when its last report is committed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::model::{Ending, JobId, Kept, Lease, Millis, Outcome, SIGNAL_DOUBT, Seq, TimeLimit};
use crate::store::{Asked, Claim, Token};

use super::places::Place;

/// How long a finished job's report waits for company, so that a commit carries many: nobody sees 20 ms, and a pool that
/// ends 2,000 jobs a second commits 40 at a time.
const COMPANY_WAIT: Duration = Duration::from_millis(20);
/// Most reports of one transaction: keeps it within 10 ms.
const BATCH_MAX: usize = 256;
/// When a run's output is first looked at, and how often one that does not grow.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A busy pool's own commits ring the bell, and each commit looks at the generations anyway: so it looks for the
/// bell's sake when it has not committed for a while, or at the latest so long after the ring, which bounds how
/// late it hears of a dead peer.
const RING_PATIENCE: Duration = Duration::from_millis(100);
/// A run this long is not one that claims made ahead were to wait for.
const LONG_RUN: Duration = Duration::from_millis(100);
/// Between two sweeps of what the settings do not keep any more: each takes away what came due meanwhile.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long the store waits before it tries again what failed, such as on a full disk.
const STORE_RETRY: Duration = Duration::from_millis(250);

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Monotonic time since some start: for what takes a while.
    pub(super) mono: Duration,
    /// The queue's time: for what is due.
    pub(super) wall: Millis,
}

/// How one claim ended, on its way to the store.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) token: Token,
    pub(super) ending: Ending,
    /// Its place on the board, free again after the commit.
    pub(super) place: Option<Place>,
}

/// Why a run is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    TimedOut,
    Cancelled,
    Interrupted,
}

impl Why {
    /// The outcome of a run that was ended for this.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::TimedOut => Outcome::TimedOut,
            Self::Cancelled => Outcome::Cancelled,
            Self::Interrupted => Outcome::Interrupted,
        }
    }
}

/// What happens to a pool.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is passed once and not kept")]
pub(super) enum Event {
    /// A worker's claim has ended.
    Ended { slot: usize, report: Report },
    /// The output of a run was looked at; look again after so long.
    Looked { slot: usize, again: Duration },
    /// The store committed what it was given and brought this.
    Committed(Committed),
    /// The store could not commit: here is its batch back.
    NotCommitted { reports: Vec<Report> },
    /// The store looked at the generations.
    Checked { more_work: bool, due: Option<Millis>, sweep: Option<Millis> },
    /// The store did a piece of a sweep. If it was the last: when there is something to sweep again.
    Swept { is_over: bool, next: Option<Millis> },
    /// The bell rang.
    Rang,
    /// A person asked the pool to stop: once gently, then firmly, then at once.
    Stop,
    /// A person asked, through the file or by a second signal.
    Asked(Asked),
    /// There are to be so many workers: those with higher numbers end when they have nothing to run.
    Scaled(usize),
    /// The thread of a worker could not be started.
    NotStarted { slot: usize },
    /// The queue is no longer where it was.
    QueueMoved,
    /// Nothing is left to do, and the pool was to end then.
    Empty,
    /// These of its jobs were cancelled.
    Cancel(Vec<Seq>),
    /// The pool and its jobs are about to stand still: no deadline comes before [`Event::Thawed`].
    Frozen,
    /// The pool and its jobs stood still for so long.
    Thawed { stood: Duration },
    /// What a worker runs was stopped by a signal.
    Stopped { slot: usize },
    /// What a worker runs goes on.
    Continued { slot: usize },
    /// A deadline has come.
    Tick,
}

/// What a commit brought.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) claims: Vec<Claim>,
    /// Whether there may be more to claim; `None` if none was asked for.
    pub(super) more_work: Option<bool>,
    /// Whether there is more that a queue's limit kept back: as soon as a job ends, another may be claimed.
    pub(super) held_back: bool,
    /// When the next job is due.
    pub(super) due: Option<Millis>,
    /// How long the commit took.
    pub(super) took: Duration,
}

/// The run that is meant: by the time that an action is carried out, the worker may have another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) slot: usize,
    pub(super) lease: Lease,
}

impl Committed {
    /// What a store that is given up brings.
    pub(super) fn nothing() -> Self {
        Self { claims: Vec::new(), more_work: Some(false), held_back: false, due: None, took: Duration::ZERO }
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// SIGTERM and SIGCONT to what the worker runs.
    Terminate(Target),
    /// SIGKILL to what the worker runs.
    Kill(Target),
    /// Look how far the output of what the worker runs has grown.
    Look { slot: usize },
    /// Tell that the pool stops, and which jobs still run.
    SayStopping { running: Vec<JobId>, ending: bool },
}

/// What the store thread does next.
#[derive(Debug)]
pub(super) enum StoreTask {
    /// Commit these reports, promote what is due, claim up to so many jobs.
    Commit { reports: Vec<Report>, want: usize },
    /// Look whether the generations moved; if asked, whether anything is left to do.
    Check { is_empty: bool },
    /// Do a piece of a sweep.
    Sweep,
    /// Nothing before that time.
    Wait,
    /// Deregister the pool: it is done.
    Finish(Finish),
}

/// Why a pool ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// It was asked to.
    Stopped,
    /// Nothing was left to do.
    Empty,
    /// The queue was moved or deleted.
    QueueMoved,
    /// It was to end at once while its last outcomes could not be written: they are on its board.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Working,
    /// Nothing starts; what runs may finish.
    Draining(Finish),
    /// What runs is being ended.
    Ending(Finish),
}

#[derive(Debug)]
struct Running {
    seq: Seq,
    lease: Lease,
    id: JobId,
    started: Duration,
    timeout_at: Option<Duration>,
    /// Since when it is stopped: its time limit stands still.
    stopped: Option<Duration>,
    grace: Duration,
    why: Option<Why>,
    kill_at: Option<Duration>,
    look_at: Duration,
}

#[derive(Debug)]
struct Done {
    report: Report,
    since: Duration,
    /// It died of a signal that may have been meant for the pool as well.
    doubtful_until: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not states")]
pub(super) struct Dispatcher {
    /// What each worker runs; those that are to end too.
    slots: Vec<Option<Running>>,
    /// How many workers there are to be.
    size: usize,
    /// Whether a worker has a thread.
    threads: Vec<bool>,
    ready: VecDeque<Claim>,
    done: Vec<Done>,
    phase: Phase,
    until_empty: bool,
    /// Whether there may be something to claim.
    more_work: bool,
    /// Whether a queue's limit kept the last claim from more.
    held_back: bool,
    due: Option<Millis>,
    /// When there is something that the settings do not keep any more.
    sweep: Option<Millis>,
    sweeping: bool,
    /// Whether a piece of a sweep comes before the next commit, so that both go on.
    sweeps_next: bool,
    /// When the last sweep ended.
    swept: Option<Duration>,
    /// Whether there was a sweep since there was nothing left to do.
    swept_last: bool,
    /// When the bell rang first since the last look.
    rang: Option<Duration>,
    last_commit: Duration,
    is_empty_unknown: bool,
    committing: bool,
    /// Whether a person asked for the third time.
    killed: bool,
    frozen: bool,
    retry_at: Option<Duration>,
    commit_cost: Duration,
    /// A typical run, once one was seen.
    run_cost: Option<Duration>,
}

impl Dispatcher {
    /// A pool of so many workers that has just been registered.
    pub(super) fn new(workers: usize, until_empty: bool) -> Self {
        Self {
            slots: (0..workers).map(|_| None).collect(),
            size: workers,
            threads: vec![true; workers],
            ready: VecDeque::new(),
            done: Vec::new(),
            phase: Phase::Working,
            until_empty,
            more_work: true,
            held_back: false,
            due: None,
            sweep: None,
            sweeping: false,
            sweeps_next: false,
            swept: None,
            swept_last: false,
            rang: None,
            last_commit: Duration::ZERO,
            is_empty_unknown: true,
            committing: false,
            killed: false,
            frozen: false,
            retry_at: None,
            commit_cost: Duration::from_millis(1),
            run_cost: None,
        }
    }

    /// Takes an event and says what is to be done.
    pub(super) fn handle(&mut self, event: Event, now: Moment) -> Vec<Action> {
        match event {
            Event::Ended { slot, report } => self.ended(slot, report, now),
            Event::Looked { slot, again } => {
                if let Some(running) = &mut self.slots[slot] {
                    running.look_at = now.mono + again.min(LOOK_EVERY);
                }
            }
            Event::Committed(committed) => self.committed(committed, now),
            Event::NotCommitted { reports } => self.not_committed(reports, now),
            Event::Checked { more_work, due, sweep } => {
                self.more_work |= more_work;
                (self.due, self.sweep) = (due, sweep);
                // What others did may also be what was waited for.
                self.is_empty_unknown |= more_work;
            }
            Event::Rang => {
                self.rang.get_or_insert(now.mono);
                self.is_empty_unknown = true;
            }
            Event::Stop => return self.stop(now),
            Event::Asked(asked) => return self.asked(asked, now),
            Event::Scaled(size) => self.scale(size),
            Event::NotStarted { slot } => {
                self.threads[slot] = false;
                self.size = self.size.min(slot.max(1));
            }
            Event::QueueMoved if matches!(self.phase, Phase::Ending(_)) => {}
            Event::QueueMoved => {
                self.drain(Finish::QueueMoved);
                return self.end_all(now);
            }
            Event::Swept { is_over: false, .. } => {}
            Event::Swept { is_over: true, next } => {
                (self.sweep, self.sweeping, self.swept) = (next, false, Some(now.mono));
            }
            Event::Empty => {
                self.is_empty_unknown = false;
                if self.is_idle() && self.until_empty {
                    self.end_empty(now);
                }
            }
            Event::Cancel(seqs) => return self.cancel(&seqs, now),
            Event::Stopped { slot } => {
                if let Some(running) = &mut self.slots[slot] {
                    running.stopped.get_or_insert(now.mono);
                }
            }
            Event::Continued { slot } => {
                if let Some(running) = &mut self.slots[slot] {
                    running.go_on(now.mono);
                }
            }
            Event::Frozen => self.frozen = true,
            Event::Thawed { stood } => self.thawed(stood),
            Event::Tick => return self.tick(now),
        }
        Vec::new()
    }

    /// The next job for a worker that is idle. `None`: none for now, or, if the pool [`is_over`](Self::is_over)
    /// for workers, none ever.
    pub(super) fn take(&mut self, slot: usize, now: Moment) -> Option<Claim> {
        if self.phase != Phase::Working || self.is_retired(slot) {
            return None;
        }
        let claim = self.ready.pop_front()?;
        self.slots[slot] = Some(Running {
            seq: claim.token.seq(),
            lease: claim.token.lease(),
            id: claim.id.clone(),
            started: now.mono,
            timeout_at: match claim.work.timeout {
                TimeLimit::Unlimited => None,
                TimeLimit::After(limit) => Some(now.mono + limit),
            },
            stopped: None,
            grace: claim.work.kill_grace,
            why: None,
            kill_at: None,
            look_at: now.mono + FIRST_LOOK,
        });
        Some(claim)
    }

    fn scale(&mut self, size: usize) {
        self.size = size.max(1);
        if self.slots.len() < self.size {
            self.slots.resize_with(self.size, || None);
            self.threads.resize(self.size, false);
        }
    }

    /// Whether a worker is one too many.
    pub(super) fn is_retired(&self, slot: usize) -> bool {
        slot >= self.size
    }

    /// The thread of a worker that is one too many ends.
    pub(super) fn leave(&mut self, slot: usize) {
        self.threads[slot] = false;
    }

    /// The next worker whose thread is to be started now.
    pub(super) fn next_to_start(&mut self) -> Option<usize> {
        if self.phase != Phase::Working {
            return None;
        }
        let slot = self.threads[..self.size].iter().position(|has_one| !has_one)?;
        self.threads[slot] = true;
        Some(slot)
    }

    /// Whether workers can go home.
    pub(super) fn is_over(&self) -> bool {
        self.phase != Phase::Working
    }

    /// Why the run of a worker is being ended, if it is.
    pub(super) fn why(&self, slot: usize) -> Option<Why> {
        self.slots[slot].as_ref().and_then(|running| running.why)
    }

    /// How long until what a worker runs is killed, if it is being ended.
    pub(super) fn grace_left(&self, slot: usize, now: Moment) -> Duration {
        let kill_at = self.slots[slot].as_ref().and_then(|running| running.kill_at);
        kill_at.map_or(Duration::ZERO, |at| at.saturating_sub(now.mono))
    }

    fn running(&self) -> Vec<JobId> {
        self.slots.iter().flatten().map(|running| running.id.clone()).collect()
    }

    /// Every job whose claim is in the dispatcher's hands.
    pub(super) fn claimed(&self) -> BTreeSet<(Seq, Lease)> {
        let running = self.slots.iter().flatten().map(|running| (running.seq, running.lease));
        let ready = self.ready.iter().map(|claim| (claim.token.seq(), claim.token.lease()));
        let done = self.done.iter().map(|done| (done.report.token.seq(), done.report.token.lease()));
        running.chain(ready).chain(done).collect()
    }

    /// How many workers could start a job now.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether the bell rang and nobody looked yet.
    pub(super) fn has_rung(&self) -> bool {
        self.rang.is_some()
    }

    /// Until when nothing happens by itself that is not the store's.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        if self.frozen {
            return None;
        }
        self.slots.iter().flatten().flat_map(Running::deadlines).min()
    }

    /// What the store thread does next; what it is given is out of the dispatcher's hands until
    /// [`Event::Committed`] or [`Event::NotCommitted`].
    pub(super) fn store_task(&mut self, now: Moment) -> StoreTask {
        if self.is_given_up() {
            return StoreTask::Finish(Finish::GivenUp);
        }
        if self.retry_at.is_some_and(|at| now.mono < at) {
            return StoreTask::Wait;
        }
        self.retry_at = None;
        if self.stalls_at().is_some_and(|at| at <= now.mono) {
            self.give_back();
        }
        // What is due is there to be claimed as soon as it is made ready.
        self.more_work |= self.due.is_some_and(|due| due <= now.wall);
        // Commits without pause must not keep the bell waiting.
        let is_overdue = self.rang.is_some_and(|rang| rang + RING_PATIENCE <= now.mono);
        let must_sweep = self.must_sweep(now) && !is_overdue;
        if self.should_commit(now) && !is_overdue && !(must_sweep && self.sweeps_next) {
            self.sweeps_next = true;
            let reports = self.batch(now);
            self.more_work |= self.held_back && !reports.is_empty();
            self.committing = true;
            return StoreTask::Commit { reports, want: self.wanted(now) };
        }
        if must_sweep {
            (self.sweeping, self.sweeps_next) = (true, false);
            return StoreTask::Sweep;
        }
        let is_empty = self.asks_if_empty();
        if is_empty || self.look_at().is_some_and(|at| at <= now.mono) {
            self.rang = None;
            self.is_empty_unknown &= !is_empty;
            return StoreTask::Check { is_empty };
        }
        match self.phase {
            Phase::Draining(finish) | Phase::Ending(finish) if self.is_idle() => StoreTask::Finish(finish),
            Phase::Working | Phase::Draining(_) | Phase::Ending(_) => StoreTask::Wait,
        }
    }

    /// When the store thread has something to do, if nothing else happens.
    pub(super) fn store_deadline(&self, now: Moment) -> Option<Duration> {
        if self.is_given_up() {
            return Some(now.mono);
        }
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        if self.should_commit(now) || self.asks_if_empty() || (self.is_over() && self.is_idle()) {
            return Some(now.mono);
        }
        let flush = self.done.iter().map(|done| done.doubtful_until.unwrap_or(done.since + COMPANY_WAIT)).min();
        let due = self.due.filter(|_| self.phase == Phase::Working);
        let due = due.map(|due| now.mono + due.since(now.wall));
        let sweep = self.sweep_at(now);
        flush.into_iter().chain(due).chain(self.look_at()).chain(self.stalls_at()).chain(sweep).min()
    }

    /// When to sweep.
    fn sweep_at(&self, now: Moment) -> Option<Duration> {
        if self.phase != Phase::Working {
            return None;
        }
        if self.sweeping {
            return Some(now.mono);
        }
        let due = now.mono + self.sweep?.since(now.wall);
        Some(self.swept.map_or(due, |swept| due.max(swept + SWEEP_EVERY)))
    }

    fn must_sweep(&self, now: Moment) -> bool {
        self.sweep_at(now).is_some_and(|at| at <= now.mono)
    }

    /// When to look for the bell's sake: at once when nothing runs.
    fn look_at(&self) -> Option<Duration> {
        let rang = self.rang?;
        let is_busy = self.slots.iter().any(Option::is_some);
        Some(if is_busy { rang.max(self.last_commit + COMPANY_WAIT).min(rang + RING_PATIENCE) } else { rang })
    }

    /// Whether the pool ends without its last commit: nothing runs, a person asked for the third time, and the store
    /// cannot be written.
    fn is_given_up(&self) -> bool {
        self.killed && self.retry_at.is_some() && self.runs_nothing() && !self.committing
    }

    fn should_commit(&self, now: Moment) -> bool {
        let fit = self.done.iter().filter(|done| done.is_fit(now)).count();
        let waited = self.done.iter().any(|done| done.is_fit(now) && now.mono >= done.since + COMPANY_WAIT);
        let is_due = self.phase == Phase::Working && self.due.is_some_and(|due| due <= now.wall);
        let hungry = self.wanted(now) > 0 && self.ready.len() <= self.look_ahead(now) / 2;
        // No company is to come soon, or somebody waits for what the commit brings.
        let alone = self.phase != Phase::Working || (self.idle_workers() > 0 && self.ready.is_empty());
        is_due || hungry || waited || fit >= BATCH_MAX || (fit > 0 && alone)
    }

    fn batch(&mut self, now: Moment) -> Vec<Report> {
        let (fit, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.done).into_iter().partition(|done| done.is_fit(now));
        self.done = rest;
        let mut reports = Vec::with_capacity(fit.len().min(BATCH_MAX));
        let mut inline = 0;
        for done in fit {
            inline += inline_bytes(&done.report.ending);
            if reports.len() < BATCH_MAX
                && (reports.is_empty() || inline <= crate::model::INLINE_OUTPUT_BYTES_PER_COMMIT)
            {
                reports.push(done.report);
            } else {
                self.done.push(done);
            }
        }
        reports
    }

    /// How many jobs to claim: one for each idle worker, and as many as will start before the commit after
    /// this one could bring more.
    fn wanted(&self, now: Moment) -> usize {
        if self.phase != Phase::Working || !self.more_work {
            return 0;
        }
        (self.idle_workers() + self.look_ahead(now)).saturating_sub(self.ready.len())
    }

    /// Jobs that start within two commits and their waits for company, so that half of them last until the next commit
    /// brings more; none when jobs are long. A worker whose run has turned out to be long is not counted on.
    fn look_ahead(&self, now: Moment) -> usize {
        let Some(run) = self.run_cost else { return 0 };
        let window = 2 * (self.commit_cost + COMPANY_WAIT);
        let each = window.as_nanos() / run.as_nanos().max(1);
        let is_long = |run: &Running| now.mono >= run.started + self.long_run();
        let workers = self.slots[..self.size].iter().filter(|slot| !slot.as_ref().is_some_and(is_long)).count();
        usize::try_from(each).unwrap_or(BATCH_MAX).saturating_mul(workers).min(BATCH_MAX)
    }

    /// Longer than what is claimed ahead for, whatever a commit takes.
    fn long_run(&self) -> Duration {
        LONG_RUN + 2 * self.commit_cost
    }

    /// When claims made ahead have waited in vain: every worker has a long run. Other pools may be idle.
    fn stalls_at(&self) -> Option<Duration> {
        if self.ready.is_empty() || self.phase != Phase::Working {
            return None;
        }
        let latest = self.slots[..self.size]
            .iter()
            .try_fold(Duration::ZERO, |latest, slot| Some(latest.max(slot.as_ref()?.started)))?;
        Some(latest + self.long_run())
    }

    fn idle_workers(&self) -> usize {
        self.slots[..self.size].iter().filter(|slot| slot.is_none()).count()
    }

    fn runs_nothing(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Whether every claim is back in the store.
    fn is_idle(&self) -> bool {
        self.runs_nothing() && self.ready.is_empty() && self.done.is_empty() && !self.committing
    }

    fn asks_if_empty(&self) -> bool {
        self.until_empty && self.phase == Phase::Working && self.is_empty_unknown && !self.more_work && self.is_idle()
    }

    fn ended(&mut self, slot: usize, report: Report, now: Moment) {
        let Some(running) = self.slots[slot].take() else { return };
        if running.why.is_none() {
            let cost = now.mono.saturating_sub(running.started);
            self.run_cost = Some(self.run_cost.map_or(cost, |typical| (3 * typical + cost) / 4));
        }
        let mut done = Done { report, since: now.mono, doubtful_until: None };
        if running.why.is_none() && died_of_ending_signal(&done.report.ending) {
            match self.phase {
                Phase::Working => done.doubtful_until = Some(now.mono + SIGNAL_DOUBT),
                Phase::Draining(_) | Phase::Ending(_) => interrupt(&mut done.report.ending),
            }
        }
        self.done.push(done);
    }

    fn committed(&mut self, committed: Committed, now: Moment) {
        self.committing = false;
        self.last_commit = now.mono;
        self.commit_cost = (3 * self.commit_cost + committed.took) / 4;
        if committed.more_work.is_some() {
            self.held_back = committed.held_back;
        }
        self.more_work = committed.more_work.unwrap_or(self.more_work);
        self.due = committed.due;
        self.is_empty_unknown = true;
        self.swept_last &= committed.claims.is_empty();
        self.ready.extend(committed.claims);
        if self.phase != Phase::Working {
            self.give_back();
        }
    }

    fn not_committed(&mut self, reports: Vec<Report>, now: Moment) {
        self.committing = false;
        self.more_work = true;
        self.retry_at = Some(now.mono + STORE_RETRY);
        let back = |report| Done { report, since: now.mono, doubtful_until: None };
        self.done.extend(reports.into_iter().map(back));
    }

    /// Nothing is left to do: the pool ends, but sweeps first.
    fn end_empty(&mut self, now: Moment) {
        let is_due = self.sweep.is_some_and(|due| due <= now.wall);
        if is_due && !std::mem::replace(&mut self.swept_last, true) {
            self.swept = None;
        }
        self.is_empty_unknown = self.must_sweep(now);
        if !self.is_empty_unknown {
            self.drain(Finish::Empty);
        }
    }

    fn give_back(&mut self) {
        let back = self.ready.drain(..).map(|claim| Done {
            report: Report { token: claim.token, ending: Ending::NotStarted, place: None },
            since: Duration::ZERO,
            doubtful_until: None,
        });
        self.done.extend(back);
    }

    fn stop(&mut self, now: Moment) -> Vec<Action> {
        match self.phase {
            Phase::Working => self.asked(Asked::Stop, now),
            Phase::Draining(_) => self.asked(Asked::StopNow, now),
            Phase::Ending(_) => self.kill_all(),
        }
    }

    fn asked(&mut self, asked: Asked, now: Moment) -> Vec<Action> {
        match (asked, self.phase) {
            (Asked::Work, _) | (Asked::Stop, Phase::Draining(_) | Phase::Ending(_)) | (_, Phase::Ending(_)) => {
                Vec::new()
            }
            (Asked::Stop, Phase::Working) => {
                self.drain(Finish::Stopped);
                vec![Action::SayStopping { running: self.running(), ending: false }]
            }
            (Asked::StopNow, Phase::Working | Phase::Draining(_)) => {
                self.drain(Finish::Stopped);
                self.end_all(now)
            }
        }
    }

    /// Nothing starts any more; what died of a signal lately was meant to stop with the pool.
    fn drain(&mut self, finish: Finish) {
        if self.phase != Phase::Working {
            return;
        }
        self.phase = Phase::Draining(finish);
        self.give_back();
        for done in &mut self.done {
            if done.doubtful_until.take().is_some() {
                interrupt(&mut done.report.ending);
            }
        }
    }

    fn end_all(&mut self, now: Moment) -> Vec<Action> {
        let finish = match self.phase {
            Phase::Draining(finish) | Phase::Ending(finish) => finish,
            Phase::Working => Finish::Stopped,
        };
        self.phase = Phase::Ending(finish);
        let mut actions = vec![Action::SayStopping { running: self.running(), ending: true }];
        actions.extend(self.end(now, Why::Interrupted, |_| true));
        actions
    }

    fn kill_all(&mut self) -> Vec<Action> {
        self.killed = true;
        let mut actions = Vec::new();
        for (slot, running) in self.slots.iter_mut().enumerate() {
            let Some(running) = running else { continue };
            running.kill_at = None;
            actions.push(Action::Kill(Target { slot, lease: running.lease }));
        }
        actions
    }

    fn cancel(&mut self, seqs: &[Seq], now: Moment) -> Vec<Action> {
        let (cancelled, ready) =
            std::mem::take(&mut self.ready).into_iter().partition(|claim: &Claim| seqs.contains(&claim.token.seq()));
        self.ready = cancelled;
        self.give_back();
        self.ready = ready;
        self.end(now, Why::Cancelled, |running| seqs.contains(&running.seq))
    }

    /// Begins to end the runs that are meant and not being ended already.
    fn end(&mut self, now: Moment, why: Why, meant: impl Fn(&Running) -> bool) -> Vec<Action> {
        let mut actions = Vec::new();
        for (slot, running) in self.slots.iter_mut().enumerate() {
            let Some(running) = running.as_mut().filter(|running| running.why.is_none() && meant(running)) else {
                continue;
            };
            running.why = Some(why);
            running.timeout_at = None;
            running.kill_at = Some(now.mono + running.grace);
            actions.push(Action::Terminate(Target { slot, lease: running.lease }));
        }
        actions
    }

    fn thawed(&mut self, stood: Duration) {
        self.frozen = false;
        for running in self.slots.iter_mut().flatten() {
            for at in [&mut running.timeout_at, &mut running.kill_at, &mut running.stopped].into_iter().flatten() {
                *at += stood;
            }
            running.started += stood;
        }
    }

    fn tick(&mut self, now: Moment) -> Vec<Action> {
        // Threads that wake together with the process may come here before what stood is known.
        if self.frozen {
            return Vec::new();
        }
        let mut actions = self.end(now, Why::TimedOut, |running| running.time_limit().is_some_and(|at| at <= now.mono));
        for (slot, running) in self.slots.iter_mut().enumerate() {
            let Some(running) = running else { continue };
            if running.kill_at.is_some_and(|at| at <= now.mono) {
                running.kill_at = None;
                actions.push(Action::Kill(Target { slot, lease: running.lease }));
            }
            if running.look_at <= now.mono {
                running.look_at = now.mono + LOOK_EVERY;
                actions.push(Action::Look { slot });
            }
        }
        actions
    }
}

impl Running {
    /// When it has run for too long; not while it is stopped.
    fn time_limit(&self) -> Option<Duration> {
        self.timeout_at.filter(|_| self.stopped.is_none())
    }

    fn go_on(&mut self, now: Duration) {
        let Some(since) = self.stopped.take() else { return };
        let stood = now.saturating_sub(since);
        self.timeout_at = self.timeout_at.map(|at| at + stood);
        self.started += stood;
    }

    fn deadlines(&self) -> impl Iterator<Item = Duration> {
        [self.time_limit(), self.kill_at, Some(self.look_at)].into_iter().flatten()
    }
}

impl Done {
    /// Whether its report may be committed.
    fn is_fit(&self, now: Moment) -> bool {
        self.doubtful_until.is_none_or(|until| until <= now.mono)
    }
}

fn died_of_ending_signal(ending: &Ending) -> bool {
    matches!(ending, Ending::Ran(run) if run.died_of_ending_signal())
}

fn interrupt(ending: &mut Ending) {
    if let Ending::Ran(run) = ending {
        run.outcome = Outcome::Interrupted;
    }
}

fn inline_bytes(ending: &Ending) -> usize {
    let kept = |kept: &Kept| if let Kept::Inline(bytes) = kept { bytes.len() } else { 0 };
    match ending {
        Ending::Ran(run) => kept(&run.stdout) + kept(&run.stderr),
        Ending::NotStarted => 0,
    }
}

#[cfg(any(test, feature = "sim"))]
pub(crate) mod chaos;
#[cfg(test)]
mod tests;
