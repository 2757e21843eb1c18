//! A pool driven by events that somebody chooses, a random generator or a fuzzer, with a store that hands out
//! numbers and sometimes fails. For tests and fuzz targets.
//!
//! What the store and the workers answer keeps to what they are: a commit ends once, a run ends once. All else may
//! come at any time. After each event the promises of the dispatcher are checked:
//! - no job starts on a worker that is one too many, and none after a stop;
//! - every claim is in one hand, and comes back to the store exactly once;
//! - an action means a run that the worker really has;
//! - whoever waits has a deadline that is still to come: nobody spins.
//!
//! At the end all goes well, and the pool has to finish.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    Action, Committed, Dispatcher, Duration, Event, Finish, Millis, Moment, Outcome, Report, Seq, StoreTask, Target,
    TimeLimit, Why,
};
use crate::model::{Command, Ending, EnvChange, Environment, JobId, Kept, Lease, Run};
use crate::store::{Asked, Claim, Token, Work};

/// Claims that a step looks at one by one: more are checked once, at the end.
const CLAIMS_COMPARED_MAX: usize = 300;

/// A claim whose seq and lease are the same number.
pub(super) fn claim(seq: u64, timeout: TimeLimit) -> Claim {
    Claim {
        token: Token::of_dead_pool(Seq(seq), Lease(seq)),
        id: JobId::from(Seq(seq)),
        attempt: 1,
        work: Work {
            command: Command::Shell(b"true".to_vec()),
            cwd: PathBuf::from("/"),
            env: Arc::new(Environment::new()),
            env_change: EnvChange::new(),
            timeout,
            own_timeout: false,
            kill_grace: Duration::from_secs(5),
            output_limit: 1,
            shell: Vec::new(),
        },
    }
}

/// The report of a run.
pub(super) fn ended(claim: Claim, outcome: Outcome, signal: Option<i32>) -> Report {
    let run = Run {
        slot: 0,
        started: Millis(0),
        ended: Millis(0),
        outcome,
        counts_as_loss: false,
        exit_code: None,
        signal,
        cpu: Duration::ZERO,
        max_rss_bytes: 0,
        error: None,
        stdout: Kept::Empty,
        stderr: Kept::Empty,
    };
    Report { token: claim.token, ending: Ending::Ran(run), place: None }
}

/// So many milliseconds after the start.
pub(super) fn at(ms: u64) -> Moment {
    Moment { mono: Duration::from_millis(ms), wall: Millis(1_000_000 + ms) }
}

/// A limit of so many milliseconds.
pub(super) fn after(ms: u64) -> TimeLimit {
    TimeLimit::After(Duration::from_millis(ms))
}

/// Lives a pool through events until `choose` has no more choices to make, and then to its end. `choose` picks a
/// number below the one that it is given.
///
/// # Panics
///
/// If the dispatcher breaks a promise.
pub(crate) fn live(choose: impl FnMut(u64) -> Option<u64>) {
    let mut chaos = Chaos::new(Box::new(choose));
    while !chaos.is_over {
        chaos.step();
    }
    chaos.come_to_an_end();
}

#[allow(clippy::struct_excessive_bools, reason = "independent facts, not states")]
struct Chaos<'c> {
    pool: Dispatcher,
    until_empty: bool,
    running: Vec<Option<Claim>>,
    /// How many workers there are to be.
    size: usize,
    /// What the store thread commits.
    in_commit: Option<(Vec<Report>, usize)>,
    /// Whether it looks at the generations, and for what.
    in_check: Option<bool>,
    /// Whether it does a piece of a sweep.
    in_sweep: bool,
    outstanding: BTreeSet<u64>,
    next: u64,
    now: u64,
    stopped: bool,
    frozen: bool,
    finished: bool,
    choose: Box<dyn FnMut(u64) -> Option<u64> + 'c>,
    is_over: bool,
}

impl<'c> Chaos<'c> {
    fn new(mut choose: Box<dyn FnMut(u64) -> Option<u64> + 'c>) -> Self {
        let workers = choose(4).and_then(|n| usize::try_from(n).ok()).unwrap_or_default() + 1;
        let until_empty = choose(2) == Some(1);
        Self {
            pool: Dispatcher::new(workers, until_empty),
            until_empty,
            running: (0..workers).map(|_| None).collect(),
            size: workers,
            in_commit: None,
            in_check: None,
            in_sweep: false,
            outstanding: BTreeSet::new(),
            next: 1,
            now: 0,
            stopped: false,
            frozen: false,
            finished: false,
            choose,
            is_over: false,
        }
    }

    /// A number below `n`; 0, which is what goes well, when there are no more choices.
    fn pick(&mut self, n: u64) -> u64 {
        let picked = (self.choose)(n);
        self.is_over |= picked.is_none();
        picked.unwrap_or_default()
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.pick(len as u64)).unwrap_or_default()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    fn ms(&mut self, n: u64) -> Duration {
        Duration::from_millis(self.pick(n))
    }

    fn step(&mut self) {
        // Mostly a moment, sometimes seconds.
        self.now += match self.pick(12) {
            0..=10 => self.pick(40),
            _ => 50 * self.pick(120),
        };
        let now = at(self.now);
        match self.pick(20) {
            0..=3 => self.take(now),
            4..=7 => self.end_a_run(now),
            8..=12 => self.store(now),
            13 | 14 => self.tick(now),
            15 => self.handle(Event::Rang, now),
            16 => {
                let seqs = (0..=self.pick(3)).map(|_| Seq(self.pick(self.next))).collect();
                self.handle(Event::Cancel(seqs), now);
            }
            17 if self.pick(3) == 0 => {
                let slot = self.slot();
                let stops = self.pick(2) == 0;
                self.handle(if stops { Event::Stopped { slot } } else { Event::Continued { slot } }, now);
            }
            17 => self.freeze_or_thaw(now),
            18 => {
                let slot = self.slot();
                let again = self.ms(200) * 10;
                self.handle(Event::Looked { slot, again }, now);
            }
            _ => self.rare(now),
        }
        self.every_claim_is_in_one_hand();
    }

    fn rare(&mut self, now: Moment) {
        match self.pick(40) {
            0..=24 => self.handle(Event::Asked(Asked::Work), now),
            25..=30 => self.scale(now),
            31 | 32 => self.stop(Event::Asked(Asked::Stop), now),
            33 => self.stop(Event::Asked(Asked::StopNow), now),
            34 => self.stop(Event::QueueMoved, now),
            35 => {
                // That it is empty may be an old story.
                self.handle(Event::Empty, now);
                self.stopped |= self.pool.is_over();
            }
            _ => self.stop(Event::Stop, now),
        }
    }

    /// Threads are started at once, or cannot be.
    fn scale(&mut self, now: Moment) {
        self.size = self.index(6) + 1;
        self.handle(Event::Scaled(self.size), now);
        self.running.resize_with(self.running.len().max(self.size), || None);
        while let Some(slot) = self.pool.next_to_start() {
            assert!(slot < self.size && !self.stopped, "starts a worker too many");
            if slot > 0 && self.pick(8) == 7 {
                self.handle(Event::NotStarted { slot }, now);
                self.size = slot;
            }
        }
        for slot in (self.size..self.running.len()).filter(|slot| self.running[*slot].is_none()) {
            assert!(
                self.pool.is_retired(slot) && self.pool.take(slot, now).is_none(),
                "a worker too many starts a job"
            );
            self.pool.leave(slot);
        }
    }

    fn stop(&mut self, event: Event, now: Moment) {
        self.stopped = true;
        self.handle(event, now);
        assert!(self.pool.is_over(), "a pool that was asked to stop goes on");
    }

    fn handle(&mut self, event: Event, now: Moment) {
        for action in self.pool.handle(event, now) {
            match action {
                Action::Terminate(Target { slot, lease }) | Action::Kill(Target { slot, lease }) => {
                    let has = self.running[slot].as_ref().map(|claim| claim.token.lease());
                    assert_eq!(has, Some(lease), "worker {slot} has another run than the one that is ended");
                }
                Action::Look { slot } => assert!(self.running[slot].is_some(), "worker {slot} has no output"),
                Action::SayStopping { running, .. } => assert_eq!(running.len(), self.running.iter().flatten().count()),
            }
        }
    }

    fn slot(&mut self) -> usize {
        self.index(self.running.len())
    }

    fn take(&mut self, now: Moment) {
        let Some(slot) = self.running[..self.size].iter().position(Option::is_none) else { return };
        self.running[slot] = self.pool.take(slot, now);
        assert!(!(self.stopped && self.running[slot].is_some()), "started after a stop");
        assert!(self.running[slot].is_some() || self.stopped || self.pool.ready() == 0, "kept from an idle worker");
    }

    fn end_a_run(&mut self, now: Moment) {
        let slot = self.slot();
        let Some(claim) = self.running[slot].take() else { return };
        let why = self.pool.why(slot);
        let outcome = why.map_or_else(|| self.one(&[Outcome::Completed, Outcome::Failed]), Why::outcome);
        let signal = self.one(&[None, Some(15), Some(9)]);
        self.handle(Event::Ended { slot, report: ended(claim, outcome, signal) }, now);
    }

    fn tick(&mut self, now: Moment) {
        self.handle(Event::Tick, now);
        let next = self.pool.next_deadline();
        assert!(next.is_none_or(|next| next > now.mono), "a tick leaves a deadline at {next:?}, and it is {now:?}");
    }

    fn freeze_or_thaw(&mut self, now: Moment) {
        self.frozen = !self.frozen;
        if self.frozen {
            self.handle(Event::Frozen, now);
        } else {
            let stood = self.ms(50);
            self.handle(Event::Thawed { stood }, now);
        }
        assert!(!self.frozen || self.pool.next_deadline().is_none(), "a deadline while the pool stands still");
    }

    /// Begins what the dispatcher wants of the store, or ends what was begun.
    fn store(&mut self, now: Moment) {
        if let Some((reports, want)) = self.in_commit.take() {
            self.end_a_commit(reports, want, now);
        } else if let Some(is_empty) = self.in_check.take() {
            self.end_a_check(is_empty, now);
        } else if std::mem::take(&mut self.in_sweep) {
            let (is_over, next) = (self.pick(3) == 0, self.due(now));
            self.handle(Event::Swept { is_over, next }, now);
        } else {
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Moment) {
        match self.pool.store_task(now) {
            StoreTask::Commit { reports, want } => {
                assert!(want == 0 || !self.stopped, "claims after a stop");
                assert!(want > 0 || !reports.is_empty() || !self.stopped, "commits nothing");
                self.in_commit = Some((reports, want));
            }
            StoreTask::Check { is_empty } => {
                assert!(self.until_empty || !is_empty, "asks what it need not know");
                self.in_check = Some(is_empty);
            }
            StoreTask::Sweep => {
                assert!(!self.stopped, "sweeps after a stop");
                self.in_sweep = true;
            }
            StoreTask::Finish(finish) => {
                assert!(self.stopped && self.running.iter().all(Option::is_none), "finished too early");
                assert!(finish == Finish::GivenUp || self.outstanding.is_empty(), "claims are left");
                self.finished = true;
            }
            StoreTask::Wait => {
                let next = self.pool.store_deadline(now);
                assert!(next.is_none_or(|next| next > now.mono), "waits until {next:?}, and it is {now:?}");
            }
        }
    }

    fn end_a_commit(&mut self, reports: Vec<Report>, want: usize, now: Moment) {
        if self.pick(6) == 5 {
            self.handle(Event::NotCommitted { reports }, now);
            return;
        }
        for report in reports {
            assert!(self.outstanding.remove(&report.token.seq().0), "reported twice");
        }
        let count = self.pick(want as u64 + 1);
        let claims = (0..count).map(|_| self.new_claim()).collect();
        let more_work = if want > 0 { Some(count == want as u64) } else { self.one(&[None, Some(true)]) };
        let due = self.due(now);
        let took = self.ms(30);
        let held_back = self.pick(4) == 1;
        self.handle(Event::Committed(Committed { claims, more_work, held_back, due, took }), now);
    }

    fn new_claim(&mut self) -> Claim {
        let seq = self.next;
        self.next += 1;
        self.outstanding.insert(seq);
        let timeout = if self.pick(4) == 3 { TimeLimit::Unlimited } else { after(1 + 50 * self.pick(40)) };
        claim(seq, timeout)
    }

    fn due(&mut self, now: Moment) -> Option<Millis> {
        (self.pick(4) == 3).then(|| Millis(now.wall.0 + self.pick(200)))
    }

    fn end_a_check(&mut self, is_empty: bool, now: Moment) {
        let more_work = self.pick(2) == 1;
        let (due, sweep) = (self.due(now), self.due(now));
        self.handle(Event::Checked { more_work, due, sweep }, now);
        if is_empty && self.pick(2) == 0 {
            self.handle(Event::Empty, now);
            self.stopped |= self.pool.is_over();
        }
    }

    fn every_claim_is_in_one_hand(&self) {
        assert!(!self.stopped || self.pool.ready() == 0, "a claim waits for a start that never comes");
        if self.outstanding.len() > CLAIMS_COMPARED_MAX {
            return;
        }
        let committing = self.in_commit.iter().flat_map(|(reports, _)| reports).map(|report| report.token.seq().0);
        let mut hands = committing.collect::<Vec<_>>();
        hands.extend(self.pool.claimed().iter().map(|(seq, _)| seq.0));
        hands.sort_unstable();
        assert!(hands.iter().eq(&self.outstanding), "{hands:?} are in hand of {:?}", self.outstanding);
    }

    /// From here on everything goes its way: the pool has to come to its end.
    fn come_to_an_end(&mut self) {
        if self.frozen {
            self.freeze_or_thaw(at(self.now));
        }
        for _ in 0..1_000 {
            self.now += 2_000;
            let now = at(self.now);
            // Once is enough.
            if !self.stopped {
                self.stop(Event::Stop, now);
            }
            self.tick(now);
            for slot in 0..self.running.len() {
                if let Some(claim) = self.running[slot].take() {
                    self.handle(Event::Ended { slot, report: ended(claim, Outcome::Interrupted, None) }, now);
                }
            }
            self.store(now);
            self.every_claim_is_in_one_hand();
            if self.finished {
                return;
            }
        }
        panic!("the pool does not end: {:?}", self.pool);
    }
}
