//! The dispatcher behind its one lock, and the threads that wait for what it decides.
//!
//! Whoever brings news wakes the threads that now have something to do, and only those: an idle pool makes no
//! wake-ups, and a busy one few.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::dispatcher::{Action, Dispatcher, Event, Moment, StoreTask, Why};
use crate::model::{Lease, Seq};
use crate::queue::Clock;
use crate::store::Claim;

pub(super) struct Monitor {
    clock: Arc<Clock>,
    state: Mutex<State>,
    work: Condvar,
    store: Condvar,
    timer: Condvar,
    heard: Condvar,
    ending: Condvar,
}

struct State {
    dispatcher: Dispatcher,
    idle_workers: usize,
    store: Sleeper,
    timer: Sleeper,
    over: bool,
}

impl State {
    /// Whether nothing starts any more: the pool stops, or the store's thread has ended.
    fn is_ending(&self) -> bool {
        self.over || self.dispatcher.is_over()
    }
}

/// What the timer thread does next.
pub(super) enum Next {
    /// A deadline has come.
    Tick,
    /// Start the thread of this worker.
    Start(usize),
    /// The pool is over.
    GoHome,
}

/// A thread that sleeps until a deadline, or until it is woken.
#[derive(Default)]
struct Sleeper {
    asleep: bool,
    until: Option<Duration>,
}

impl Sleeper {
    fn lie_down(&mut self, until: Option<Duration>) {
        *self = Self { asleep: true, until };
    }

    /// Whether it has to be woken because there is something to do at `deadline`. It is told once.
    fn must_wake(&mut self, deadline: Option<Duration>) -> bool {
        let earlier = deadline.is_some_and(|deadline| self.until.is_none_or(|until| deadline < until));
        let must = self.asleep && earlier;
        self.asleep &= !must;
        must
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until notified, or until `deadline`.
fn wait<'a, T>(
    guard: MutexGuard<'a, T>,
    condvar: &Condvar,
    deadline: Option<Duration>,
    now: Moment,
) -> MutexGuard<'a, T> {
    match deadline {
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(deadline) => {
            let left = deadline.saturating_sub(now.mono);
            condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

impl Monitor {
    pub(super) fn new(clock: Arc<Clock>, dispatcher: Dispatcher) -> Self {
        let (store, timer) = (Sleeper::default(), Sleeper::default());
        Self {
            clock,
            state: Mutex::new(State { dispatcher, idle_workers: 0, store, timer, over: false }),
            work: Condvar::new(),
            store: Condvar::new(),
            timer: Condvar::new(),
            heard: Condvar::new(),
            ending: Condvar::new(),
        }
    }

    /// Now, on both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment { mono: self.clock.elapsed(), wall: self.clock.now() }
    }

    /// Tells the dispatcher; the actions are the caller's to carry out.
    #[must_use]
    pub(super) fn handle(&self, event: Event) -> Vec<Action> {
        let mut state = lock(&self.state);
        let now = self.moment();
        let is_scaled = matches!(event, Event::Scaled(_));
        let actions = state.dispatcher.handle(event, now);
        self.wake(&mut state, now);
        if is_scaled {
            // The timer starts threads; who is one too many goes.
            self.timer.notify_one();
            self.work.notify_all();
        }
        actions
    }

    fn wake(&self, state: &mut State, now: Moment) {
        if state.store.must_wake(state.dispatcher.store_deadline(now)) {
            self.store.notify_one();
        }
        if state.timer.must_wake(state.dispatcher.next_deadline()) {
            self.timer.notify_one();
        }
        if state.is_ending() {
            self.work.notify_all();
            self.ending.notify_all();
        } else {
            for _ in 0..state.idle_workers.min(state.dispatcher.ready()) {
                self.work.notify_one();
            }
        }
    }

    /// The next job of a worker; `None` when the pool stops, or has one worker too many.
    pub(super) fn next_claim(&self, slot: usize) -> Option<Claim> {
        let mut state = lock(&self.state);
        loop {
            if state.is_ending() {
                return None;
            }
            let now = self.moment();
            if let Some(claim) = state.dispatcher.take(slot, now) {
                self.wake(&mut state, now);
                return Some(claim);
            }
            if state.dispatcher.is_retired(slot) {
                state.dispatcher.leave(slot);
                return None;
            }
            state.idle_workers += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_workers -= 1;
        }
    }

    /// What the store thread does next, and the jobs that are claimed besides what it is given.
    pub(super) fn next_store_task(&self) -> (StoreTask, BTreeSet<(Seq, Lease)>) {
        let mut state = lock(&self.state);
        loop {
            let now = self.moment();
            let task = state.dispatcher.store_task(now);
            if !matches!(task, StoreTask::Wait) {
                if !state.dispatcher.has_rung() {
                    self.heard.notify_one();
                }
                return (task, state.dispatcher.claimed());
            }
            let deadline = state.dispatcher.store_deadline(now);
            state.store.lie_down(deadline);
            state = wait(state, &self.store, deadline, now);
            state.store.asleep = false;
        }
    }

    /// Waits until a deadline of the dispatcher has come, or a worker is to be started.
    pub(super) fn next_tick(&self) -> Next {
        let mut state = lock(&self.state);
        while !state.over {
            if let Some(slot) = state.dispatcher.next_to_start() {
                return Next::Start(slot);
            }
            let now = self.moment();
            let deadline = state.dispatcher.next_deadline();
            if deadline.is_some_and(|deadline| deadline <= now.mono) {
                return Next::Tick;
            }
            state.timer.lie_down(deadline);
            state = wait(state, &self.timer, deadline, now);
            state.timer.asleep = false;
        }
        Next::GoHome
    }

    /// Waits until the store thread has looked since the bell last rang: a busy pool's own commits ring it, and
    /// it looks when it comes to it.
    pub(super) fn wait_until_heard(&self) {
        let mut state = lock(&self.state);
        while state.dispatcher.has_rung() && !state.over {
            state = self.heard.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long, or until the pool stops; says whether it does.
    pub(super) fn wait_for_end(&self, long: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.ending.wait_timeout_while(state, long, |state| !state.is_ending());
        waited.is_ok_and(|(state, _)| state.is_ending())
    }

    /// Why the run of a worker is being ended, if it is.
    pub(super) fn why(&self, slot: usize) -> Option<Why> {
        lock(&self.state).dispatcher.why(slot)
    }

    /// How long until what a worker runs is killed.
    pub(super) fn grace_left(&self, slot: usize) -> Duration {
        lock(&self.state).dispatcher.grace_left(slot, self.moment())
    }

    /// Lets every waiting thread go.
    pub(super) fn go_home(&self) {
        lock(&self.state).over = true;
        self.timer.notify_all();
        self.heard.notify_all();
        self.work.notify_all();
        self.ending.notify_all();
    }
}
