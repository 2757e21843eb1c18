//! A pool: workers, the dispatcher behind one lock, the store thread, and the listeners.
//!
//! | thread | waits for | brings |
//! |---|---|---|
//! | each worker | a claimed job, then the job's end | how it ended |
//! | store | something to commit or to look at | commits, claims |
//! | timer (the caller's) | the next deadline | ticks |
//! | bell | the queue file and `run/` | rings, dead peers |
//! | signals | signals | wishes to stop or to stand still |
//! | recoverer | news of dead peers | their jobs, set free |
//!
//! Nothing but the store thread and the recoverer ever waits for the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, kill_process_group};

use super::bell::{Bell, Ring, Waker};
use super::board::PoolFile;
use super::committer::Committer;
use super::dispatcher::{Action, Dispatcher, Event, Finish, Moment, Report, Why};
use super::news::{News, Observer};
use super::output::Spool;
use super::recovery::Recoverer;
use super::run::{self, Live};
use super::signals::{Signals, Wish, stand_still};
use super::tree::{self, Mark, Reach};
use crate::model::{Lease, Millis};
use crate::queue::{Clock, Queue};
use crate::store::{Asked, Claim, PoolInfo, Serves, StoreError};

/// How long standing still may wait for a transaction, which takes 10 ms once it has the file.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// What a pool is to be.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// How many jobs it runs at a time.
    pub workers: usize,
    /// What it claims from.
    pub serves: Serves,
    /// Whether it ends when nothing is left to do.
    pub until_empty: bool,
    /// Its log file, for `worker list`.
    pub log: Option<PathBuf>,
}

/// Why a pool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolEnd {
    /// It was asked to.
    Stopped,
    /// Nothing was left to do.
    Empty,
}

/// Why a pool could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The queue file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The queue is no longer where it was.
    #[error("the queue `{}` was moved or deleted", .0.display())]
    QueueMoved(PathBuf),
}

/// A pool, registered and ready to run.
pub struct Pool {
    shared: Arc<Shared>,
    queue: Queue,
    options: PoolOptions,
    signals: Signals,
    bell: Bell,
}

/// What the threads of a pool share.
pub(super) struct Shared {
    /// The queue's folder.
    pub(super) queue: PathBuf,
    pub(super) clock: Arc<Clock>,
    pub(super) file: PoolFile,
    /// `/dev/null`, what every job reads.
    pub(super) null: File,
    pub(super) observer: Arc<dyn Observer>,
    /// Whether a transaction goes on: the process does not stand still inside one.
    in_transaction: Mutex<usize>,
    transaction_over: Condvar,
    token_prefix: String,
    state: Mutex<State>,
    work: Condvar,
    store: Condvar,
    timer: Condvar,
    heard: Condvar,
    lives: Vec<Mutex<Option<Live>>>,
    outputs: Vec<Mutex<Option<(Arc<Spool>, u64)>>>,
    places: Mutex<Places>,
    no_room: Mutex<bool>,
}

/// The dispatcher with what its threads wait for.
struct State {
    dispatcher: Dispatcher,
    idle_workers: usize,
    /// Until when the store thread waits, while it does.
    store_waits: Option<Option<Duration>>,
    /// The same for the timer.
    timer_waits: Option<Option<Duration>>,
    over: bool,
}

/// The places on the board.
#[derive(Default)]
struct Places {
    free: Vec<usize>,
    next: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> PoolError {
    move |error| PoolError::System { what, error }
}

impl Pool {
    /// Registers a pool in `queue`: from here on its signals are its own, and peers know it.
    pub fn start(queue: Queue, options: PoolOptions, observer: Arc<dyn Observer>) -> Result<Self, PoolError> {
        let signals = Signals::block().map_err(system("cannot listen to signals"))?;
        let bell = Bell::new(queue.folder()).map_err(system("cannot watch the queue"))?;
        let file = register(&queue, &options)?;
        let null = File::open("/dev/null").map_err(system("cannot open /dev/null"))?;
        let metadata = std::fs::metadata(queue.file()).map_err(system("cannot look at the queue file"))?;
        let nonce = file.identity().nonce;
        let shared = Shared {
            queue: queue.folder().to_owned(),
            clock: Arc::clone(queue.clock()),
            token_prefix: token_prefix(metadata.dev(), metadata.ino(), nonce),
            file,
            null,
            observer,
            in_transaction: Mutex::default(),
            transaction_over: Condvar::new(),
            state: Mutex::new(State {
                dispatcher: Dispatcher::new(options.workers, options.until_empty),
                idle_workers: 0,
                store_waits: None,
                timer_waits: None,
                over: false,
            }),
            work: Condvar::new(),
            store: Condvar::new(),
            timer: Condvar::new(),
            heard: Condvar::new(),
            lives: (0..options.workers).map(|_| Mutex::default()).collect(),
            outputs: (0..options.workers).map(|_| Mutex::default()).collect(),
            places: Mutex::default(),
            no_room: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), queue, options, signals, bell })
    }

    /// The pool's name.
    pub fn id(&self) -> &crate::model::PoolId {
        self.shared.file.id()
    }

    /// Works until it is stopped, by a signal or through the file, or until nothing is left to do if that was
    /// wanted. Jobs that run are ended or waited for; nothing is left behind.
    pub fn run(self) -> Result<PoolEnd, PoolError> {
        let Self { shared, queue, options, signals, mut bell } = self;
        if let Some(why) = bell.is_deaf() {
            shared.observer.news(News::Deaf(why.to_owned()));
        }
        let recoverer = Recoverer::new(&shared, &queue);
        let bell_waker = bell.waker();
        let finish = thread::scope(|scope| {
            let shared = &*shared;
            for slot in 0..options.workers {
                scope.spawn(move || work(shared, slot));
            }
            scope.spawn(|| listen_to_signals(shared, &signals));
            scope.spawn(|| listen_to_bell(shared, &mut bell, &recoverer));
            scope.spawn(|| recoverer.run());
            let store = scope.spawn(|| {
                let finish = Committer::new(shared, queue, &options.serves).run();
                shared.go_home(&signals, &bell_waker, &recoverer);
                finish
            });
            keep_time(shared);
            store.join()
        });
        let finish = finish.map_err(|_| system("the store thread panicked")(io::Error::other("see above")))??;
        if let Some(shared) = Arc::into_inner(shared) {
            let _ = shared.file.remove();
        }
        match finish {
            Finish::Stopped => Ok(PoolEnd::Stopped),
            Finish::Empty => Ok(PoolEnd::Empty),
            Finish::QueueMoved => Err(PoolError::QueueMoved(PathBuf::new())),
        }
    }
}

/// What the value of `QUEUECTL_LEASE` begins with in every job of a pool.
pub(super) fn token_prefix(dev: u64, ino: u64, nonce: u64) -> String {
    format!("{dev}:{ino}:{nonce:016x}:")
}

/// Makes the pool's file and its row. A name that POOLS still remembers is not taken again.
fn register(queue: &Queue, options: &PoolOptions) -> Result<PoolFile, PoolError> {
    let run = queue.folder().join("run");
    loop {
        let file = PoolFile::create(&run, options.workers + 64).map_err(system("cannot make the pool's file"))?;
        let identity = file.identity();
        let info = PoolInfo {
            id: file.id().clone(),
            pid: identity.pid,
            boot_id: u128::from_be_bytes(identity.boot_id),
            pid_namespace: identity.pid_namespace,
            nonce: identity.nonce,
            started: queue.clock().now(),
            workers: u32::try_from(options.workers).unwrap_or(u32::MAX),
            serves: options.serves.clone(),
            asked: Asked::Work,
            log: options.log.as_ref().map(|path| path.to_string_lossy().into_owned()),
            ended: None,
        };
        if queue.write(|tx| tx.register(&info))? {
            return Ok(file);
        }
        let _ = file.remove();
    }
}

/// A worker: one job after the other.
fn work(shared: &Shared, slot: usize) {
    while let Some(claim) = shared.next_claim(slot) {
        let report = run::run(shared, slot, claim);
        shared.handle(Event::Ended { slot, report });
    }
}

/// The timer: ticks when a deadline has come.
fn keep_time(shared: &Shared) {
    let mut state = lock(&shared.state);
    while !state.over {
        let now = shared.moment();
        let deadline = state.dispatcher.next_deadline();
        if deadline.is_some_and(|deadline| deadline <= now.mono) {
            drop(state);
            shared.handle(Event::Tick);
            state = lock(&shared.state);
            continue;
        }
        state.timer_waits = Some(deadline);
        state = shared.wait(state, &shared.timer, deadline, now);
        state.timer_waits = None;
    }
}

fn listen_to_signals(shared: &Shared, signals: &Signals) {
    loop {
        match signals.wait() {
            Ok(Wish::Stop) => shared.handle(Event::Stop),
            Ok(Wish::Freeze) => shared.freeze(),
            Ok(Wish::GoHome) | Err(_) => return,
        }
    }
}

fn listen_to_bell(shared: &Shared, bell: &mut Bell, recoverer: &Recoverer<'_>) {
    loop {
        match bell.wait(None) {
            Ok(Ring::Changed) => {
                let closed = bell.take_closed();
                if !closed.is_empty() || bell.is_deaf().is_some() {
                    recoverer.suspect(closed);
                }
                shared.handle(Event::Rang);
            }
            Ok(Ring::ClockSet) => shared.handle(Event::Rang),
            Ok(Ring::Moved) => shared.handle(Event::QueueMoved),
            Ok(Ring::TimedOut) => {}
            Ok(Ring::Woken) => return,
            Err(error) => {
                shared.observer.news(News::Trouble(format!("cannot watch the queue: {error}")));
                shared.handle(Event::Stop);
                return;
            }
        }
        shared.wait_until_heard();
    }
}

impl Shared {
    /// Now, on both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment { mono: self.clock.elapsed(), wall: self.clock.now() }
    }

    /// The value of `QUEUECTL_LEASE` for a lease.
    pub(super) fn token(&self, lease: Lease) -> Vec<u8> {
        format!("{}{}", self.token_prefix, lease.0).into_bytes()
    }

    /// Tells the dispatcher and does what it answers.
    pub(super) fn handle(&self, event: Event) {
        let actions = {
            let mut state = lock(&self.state);
            let now = self.moment();
            let actions = state.dispatcher.handle(event, now);
            self.wake(&mut state, now);
            actions
        };
        self.perform(&actions);
    }

    /// Wakes the threads that now have something to do, and only those.
    fn wake(&self, state: &mut State, now: Moment) {
        let earlier = |deadline: Option<Duration>, waits: Option<Option<Duration>>| match (deadline, waits) {
            (Some(deadline), Some(until)) => until.is_none_or(|until| deadline < until),
            (None, _) | (_, None) => false,
        };
        if earlier(state.dispatcher.store_deadline(now), state.store_waits) {
            state.store_waits = None;
            self.store.notify_one();
        }
        if earlier(state.dispatcher.next_deadline(), state.timer_waits) {
            state.timer_waits = None;
            self.timer.notify_one();
        }
        if state.dispatcher.is_over() {
            self.work.notify_all();
        } else {
            for _ in 0..state.idle_workers.min(state.dispatcher.ready()) {
                self.work.notify_one();
            }
        }
    }

    /// Waits on `condvar` until it is notified or `deadline` comes.
    pub(super) fn wait<'a, T>(
        &self,
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

    /// The next job of a worker; `None` when the pool stops.
    fn next_claim(&self, slot: usize) -> Option<Claim> {
        let mut state = lock(&self.state);
        loop {
            let now = self.moment();
            if let Some(claim) = state.dispatcher.take(slot, now) {
                self.wake(&mut state, now);
                return Some(claim);
            }
            if state.dispatcher.is_over() {
                return None;
            }
            state.idle_workers += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_workers -= 1;
        }
    }

    /// What the store thread does next; waits until there is something.
    pub(super) fn next_store_task(&self) -> (super::dispatcher::StoreTask, std::collections::BTreeSet<crate::model::Seq>) {
        use super::dispatcher::StoreTask;
        let mut state = lock(&self.state);
        loop {
            let now = self.moment();
            match state.dispatcher.store_task(now) {
                StoreTask::Wait => {
                    let deadline = state.dispatcher.store_deadline(now);
                    state.store_waits = Some(deadline);
                    state = self.wait(state, &self.store, deadline, now);
                    state.store_waits = None;
                }
                task => {
                    if !state.dispatcher.has_rung() {
                        self.heard.notify_one();
                    }
                    return (task, state.dispatcher.claimed());
                }
            }
        }
    }

    fn wait_until_heard(&self) {
        let mut state = lock(&self.state);
        while state.dispatcher.has_rung() && !state.over {
            state = self.heard.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all threads but the store's, which calls this last.
    fn go_home(&self, signals: &Signals, bell: &Waker, recoverer: &Recoverer<'_>) {
        lock(&self.state).over = true;
        self.timer.notify_all();
        self.heard.notify_all();
        self.work.notify_all();
        signals.go_home();
        bell.wake();
        recoverer.go_home();
    }

    fn perform(&self, actions: &[Action]) {
        let mut ending = Vec::new();
        for action in actions {
            match action {
                Action::Terminate { slot } => ending.extend(self.signal_group(*slot, Signal::TERM)),
                Action::Kill { slot } => {
                    if let Some(mark) = self.signal_group(*slot, Signal::KILL) {
                        signal_trees(&[mark], &[Signal::KILL]);
                    }
                }
                Action::Look { slot } => self.look_at_output(*slot),
                Action::SayStopping { running, ending } => {
                    self.observer.news(News::Stopping { running: running.clone(), ending: *ending });
                }
            }
        }
        signal_trees(&ending, &[Signal::TERM, Signal::CONT]);
    }

    /// Signals the group of what a worker runs, at once; its mark is for finding the rest of its tree.
    fn signal_group(&self, slot: usize, signal: Signal) -> Option<Mark> {
        let live = self.lock_live(slot);
        let live = live.as_ref()?;
        if let Some(pid) = live.pid {
            send_to_group(pid, signal);
        }
        Some(live.mark.clone())
    }

    /// Does a transaction, inside which the process does not stand still.
    pub(super) fn in_transaction<T>(&self, transact: impl FnOnce() -> T) -> T {
        *lock(&self.in_transaction) += 1;
        let done = transact();
        *lock(&self.in_transaction) -= 1;
        self.transaction_over.notify_one();
        done
    }

    /// SIGTSTP: no transaction is left open, the jobs stop, the process stops; and the reverse on SIGCONT.
    fn freeze(&self) {
        let transactions = lock(&self.in_transaction);
        let waited = self.transaction_over.wait_timeout_while(transactions, FREEZE_PATIENCE, |count| *count > 0);
        let Ok((transactions, _)) = waited else { return };
        if *transactions > 0 {
            let trouble = "cannot stand still while another process keeps the queue file";
            self.observer.news(News::Trouble(trouble.to_owned()));
            return;
        }
        let lives: Vec<_> = (0..self.lives.len()).map(|slot| self.lock_live(slot)).collect();
        let marks: Vec<Mark> = lives.iter().filter_map(|live| live.as_ref().map(|live| live.mark.clone())).collect();
        let pids = || lives.iter().filter_map(|live| live.as_ref().and_then(|live| live.pid));
        pids().for_each(|pid| send_to_group(pid, Signal::STOP));
        signal_trees(&marks, &[Signal::STOP]);
        let since = self.clock.elapsed();
        stand_still();
        let stood = self.clock.elapsed().saturating_sub(since);
        pids().for_each(|pid| send_to_group(pid, Signal::CONT));
        signal_trees(&marks, &[Signal::CONT]);
        drop(lives);
        drop(transactions);
        self.handle(Event::Thawed { stood });
    }

    /// What a worker runs, locked against being ended, or ended twice.
    pub(super) fn lock_live(&self, slot: usize) -> MutexGuard<'_, Option<Live>> {
        lock(&self.lives[slot])
    }

    /// Whether what a worker is about to start is to be ended already.
    pub(super) fn is_to_end(&self, slot: usize) -> bool {
        self.why(slot).is_some()
    }

    /// Why the run of a worker is being ended, if it is.
    pub(super) fn why(&self, slot: usize) -> Option<Why> {
        lock(&self.state).dispatcher.why(slot)
    }

    /// How long until what a worker runs is killed.
    pub(super) fn grace_left(&self, slot: usize) -> Duration {
        lock(&self.state).dispatcher.grace_left(slot, self.moment())
    }

    /// Lets the timer look after the output of a run.
    pub(super) fn watch_output(&self, slot: usize, spool: Spool, limit: u64) -> Arc<Spool> {
        let spool = Arc::new(spool);
        *lock(&self.outputs[slot]) = Some((Arc::clone(&spool), limit));
        spool
    }

    /// The run is over.
    pub(super) fn unwatch_output(&self, slot: usize) {
        *lock(&self.outputs[slot]) = None;
    }

    fn look_at_output(&self, slot: usize) {
        let output = lock(&self.outputs[slot]);
        let Some((spool, limit)) = output.as_ref() else { return };
        let again = spool.look(*limit, self.clock.elapsed());
        drop(output);
        self.handle(Event::Looked { slot, again });
    }

    /// A free place on the board.
    pub(super) fn take_place(&self) -> usize {
        let mut places = lock(&self.places);
        if let Some(place) = places.free.pop() {
            return place;
        }
        places.next += 1;
        places.next - 1
    }

    /// After the commit of a report: what it held is free, and its small outputs are in the queue file.
    pub(super) fn release(&self, report: &Report) {
        use crate::model::Ending;
        if let (Some(spool), Ending::Ran(run)) = (&report.spool, &report.ending) {
            spool.clear(&run.stdout, &run.stderr);
        }
        lock(&self.places).free.extend(report.place);
    }

    /// Says, once, that the machine has no room for something, and that the pool waits for it.
    pub(super) fn say_no_room(&self, what: &str, error: &io::Error) {
        let mut said = lock(&self.no_room);
        if !*said {
            *said = true;
            self.observer.news(News::Trouble(format!("cannot {what}: {error}; trying again until there is room")));
        }
    }

    /// Waits so long, or until the pool stops; says whether it does.
    pub(super) fn wait_for_end(&self, long: Duration) -> bool {
        let state = lock(&self.state);
        let waited = self.work.wait_timeout_while(state, long, |state| !state.dispatcher.is_over());
        waited.is_ok_and(|(state, _)| state.dispatcher.is_over())
    }

    /// The queue's time.
    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }
}

fn send_to_group(pid: Pid, signal: Signal) {
    // It can only be gone, or another user's: the worker tells what remains.
    let _ = kill_process_group(pid, signal);
    if signal == Signal::TERM {
        let _ = kill_process_group(pid, Signal::CONT);
    }
}

/// Signals whatever belongs to the runs but has left their first groups.
fn signal_trees(marks: &[Mark], signals: &[Signal]) {
    if marks.is_empty() {
        return;
    }
    let Ok(mut found) = tree::find(marks, Reach::Tree) else { return };
    // The group was signalled already: a second SIGTERM makes some programs give up their tidying.
    found.retain(|process| {
        let leader = marks[process.mark].leader.as_ref().map(|leader| leader.pid);
        getpgid(Some(process.pid)).ok() != leader
    });
    for signal in signals {
        tree::signal(&found, *signal);
    }
}
