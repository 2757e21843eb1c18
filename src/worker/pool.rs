//! A pool: workers, the dispatcher behind one lock, the store thread, and the listeners.
//!
//! | thread | waits for | brings |
//! |---|---|---|
//! | each worker | a claimed job, then the job's end | how it ended |
//! | store | something to commit or to look at | commits, claims |
//! | timer (the caller's) | the next deadline | ticks; starts workers when the pool is scaled |
//! | bell | the queue file and `run/` | rings, dead peers |
//! | signals | signals | wishes to stop or to stand still |
//! | recoverer | news of dead peers | their jobs, set free |
//!
//! Nothing but the store thread and the recoverer ever waits for the file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::bell::{Bell, Ring, Waker};
use super::board::PoolFile;
use super::committer::Committer;
use super::dispatcher::{Action, Dispatcher, Event};
use super::launch;
use super::lives::Lives;
use super::monitor::{Monitor, Next, lock};
use super::news::{News, Observer};
use super::output::{make_spool_folder, spool_folder};
use super::places::Places;
use super::recovery::Recoverer;
use super::run;
use super::signals::{Signals, Wish, stand_still};
use crate::model::Lease;
use crate::queue::{Clock, Queue};
use crate::store::{Asked, PoolInfo, Serves, StoreError};

/// How long standing still may wait for a transaction, which takes 10 ms once it has the file.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);
/// Room on the board beyond one place for each worker: for outcomes that are not committed yet.
const PLACES_SPARE: usize = 64;

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
    /// It was ended while the queue could not be written.
    #[error("ended before the last outcomes could be written; the next pool takes them over")]
    Unwritten,
    /// The queue is no longer where it was.
    #[error("the queue {} was moved or deleted", .0.display())]
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
    pub(super) monitor: Monitor,
    pub(super) lives: Lives,
    token_prefix: String,
    pub(super) places: Places,
    /// How many transactions go on: the process does not stand still inside one.
    transactions: Mutex<usize>,
    transaction_over: Condvar,
    said_no_room: AtomicBool,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> PoolError {
    move |error| PoolError::System { what, error }
}

impl Pool {
    /// Registers a pool in `queue`: from here on its signals are its own, and peers know it.
    pub fn start(queue: Queue, options: PoolOptions, observer: Arc<dyn Observer>) -> Result<Self, PoolError> {
        let signals = Signals::block().map_err(system("cannot listen to signals"))?;
        let bell = Bell::new(queue.folder()).map_err(system("cannot watch the queue"))?;
        let metadata = fs::metadata(queue.file()).map_err(system("cannot look at the queue file"))?;
        let queue_file = (metadata.dev(), metadata.ino());
        let file = register(&queue, &options, queue_file)?;
        make_spool_folder(queue.folder(), file.id()).map_err(system("cannot make a folder for outputs"))?;
        let null = File::open("/dev/null").map_err(system("cannot open /dev/null"))?;
        let nonce = file.identity().nonce;
        let dispatcher = Dispatcher::new(options.workers, options.until_empty);
        let shared = Shared {
            queue: queue.folder().to_owned(),
            clock: Arc::clone(queue.clock()),
            token_prefix: token_prefix(queue_file, nonce),
            null,
            observer,
            monitor: Monitor::new(Arc::clone(queue.clock()), dispatcher),
            lives: Lives::new(options.workers),
            places: Places::new(queue.folder().to_owned(), file.id().clone()),
            file,
            transactions: Mutex::default(),
            transaction_over: Condvar::new(),
            said_no_room: AtomicBool::new(false),
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
        let go_home = GoHome { shared: &shared, signals: &signals, bell: bell.waker(), recoverer: &recoverer };
        let (shared_ref, serves) = (&*shared, &options.serves);
        let end = thread::scope(|scope| {
            // Last to end, and everybody's way home: so it is the first to start.
            let store = thread::Builder::new().name("store".to_owned()).spawn_scoped(scope, move || {
                let _go_home = go_home;
                Committer::new(shared_ref, queue, serves).run()
            })?;
            let started = spawn(scope, "signals", || listen_to_signals(shared_ref, &signals))
                .and_then(|()| spawn(scope, "bell", || listen_to_bell(shared_ref, &mut bell, &recoverer)))
                .and_then(|()| spawn(scope, "recoverer", || recoverer.run()))
                .and_then(|()| {
                    (0..options.workers).try_for_each(|slot| spawn(scope, "worker", move || work(shared_ref, slot)))
                });
            if started.is_err() {
                shared_ref.handle(Event::Stop);
            }
            keep_time(scope, shared_ref);
            let end = store.join().map_err(|_| io::Error::other("it panicked"));
            started.and(end)
        });
        let end = end.map_err(system("a thread of the pool failed"))??;
        let _ = fs::remove_dir_all(spool_folder(&shared.queue, shared.file.id()));
        if let Some(shared) = Arc::into_inner(shared) {
            let _ = shared.file.remove();
        }
        Ok(end)
    }
}

/// Starts a thread, if the machine has room for one.
fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, body).map(drop)
}

/// Ends all other threads when the store's ends. Without it no outcome is committed, no limit kept and no signal
/// heeded, so that a panic there, which is a bug of ours, ends the process as a crash would: its peers find on its board
/// what it ran.
struct GoHome<'a> {
    shared: &'a Shared,
    signals: &'a Signals,
    bell: Waker,
    recoverer: &'a Recoverer<'a>,
}

impl Drop for GoHome<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
        self.shared.monitor.go_home();
        self.signals.go_home();
        self.bell.wake();
        self.recoverer.go_home();
    }
}

/// What the value of `QUEUECTL_LEASE` begins with in every job of a pool.
pub(super) fn token_prefix((dev, ino): (u64, u64), nonce: u64) -> String {
    format!("{dev}:{ino}:{nonce:016x}:")
}

/// Makes the pool's file and its row. A name that POOLS still remembers is not taken again.
fn register(queue: &Queue, options: &PoolOptions, queue_file: (u64, u64)) -> Result<PoolFile, PoolError> {
    let run = queue.folder().join("run");
    loop {
        let file =
            PoolFile::create(&run, options.workers + PLACES_SPARE).map_err(system("cannot make the pool's file"))?;
        let identity = file.identity();
        let info = PoolInfo {
            id: file.id().clone(),
            pid: identity.pid,
            boot_id: u128::from_be_bytes(identity.boot_id),
            pid_namespace: identity.pid_namespace,
            nonce: identity.nonce,
            file: queue_file,
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
    let mut environment = launch::LastEnvironment::default();
    while let Some(claim) = shared.monitor.next_claim(slot) {
        let report = run::run(shared, slot, claim, &mut environment);
        shared.handle(Event::Ended { slot, report });
    }
}

/// The timer: ticks when a deadline has come, and starts the workers that a pool gets later.
fn keep_time<'scope>(scope: &'scope thread::Scope<'scope, '_>, shared: &'scope Shared) {
    loop {
        match shared.monitor.next_tick() {
            Next::Tick => shared.handle(Event::Tick),
            Next::Start(slot) => {
                let started = shared.file.make_room(slot + 1 + PLACES_SPARE).and_then(|()| {
                    shared.lives.add(slot);
                    spawn(scope, "worker", move || work(shared, slot))
                });
                if let Err(error) = started {
                    let trouble = format!("cannot have more than {slot} workers: {error}");
                    shared.observer.news(News::Trouble(trouble));
                    shared.handle(Event::NotStarted { slot });
                }
            }
            Next::GoHome => return,
        }
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
        shared.monitor.wait_until_heard();
    }
}

impl Shared {
    /// The value of `QUEUECTL_LEASE` for a lease.
    pub(super) fn token(&self, lease: Lease) -> Vec<u8> {
        format!("{}{}", self.token_prefix, lease.0).into_bytes()
    }

    /// Tells the dispatcher and does what it answers.
    pub(super) fn handle(&self, event: Event) {
        let actions = self.monitor.handle(event);
        let (mut terminate, mut kill) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Terminate(target) => terminate.push(target),
                Action::Kill(target) => kill.push(target),
                Action::Look { slot } => self.look_at_output(slot),
                Action::SayStopping { running, ending } => {
                    self.observer.news(News::Stopping { running, ending });
                }
            }
        }
        self.lives.terminate(&terminate);
        self.lives.kill(&kill);
    }

    fn look_at_output(&self, slot: usize) {
        if let Some(again) = self.lives.look_at_output(slot, self.clock.elapsed()) {
            self.handle(Event::Looked { slot, again });
        }
    }

    /// Does a transaction, inside which the process does not stand still.
    pub(super) fn in_transaction<T>(&self, transact: impl FnOnce() -> T) -> T {
        *lock(&self.transactions) += 1;
        let done = transact();
        *lock(&self.transactions) -= 1;
        self.transaction_over.notify_one();
        done
    }

    /// SIGTSTP: no transaction is left open, the jobs stop, the process stops; and the reverse on SIGCONT.
    fn freeze(&self) {
        let transactions = lock(&self.transactions);
        let waited = self.transaction_over.wait_timeout_while(transactions, FREEZE_PATIENCE, |count| *count > 0);
        let Ok((transactions, _)) = waited else { return };
        if *transactions > 0 {
            let trouble = "cannot stand still while another process keeps the queue file";
            self.observer.news(News::Trouble(trouble.to_owned()));
            return;
        }
        let since = self.clock.elapsed();
        self.handle(Event::Frozen);
        self.lives.while_frozen(stand_still);
        drop(transactions);
        self.handle(Event::Thawed { stood: self.clock.elapsed().saturating_sub(since) });
    }

    /// Says, once, that the machine has no room for something, and that the pool waits for it.
    pub(super) fn say_no_room(&self, what: &str, error: &io::Error) {
        if !self.said_no_room.swap(true, Ordering::Relaxed) {
            self.observer.news(News::Trouble(format!("cannot {what}: {error}; trying again until there is room")));
        }
    }
}
