//! A background job queue for the terminal: shell commands, run in parallel, retried with exponential backoff,
//! parked in a dead letter queue when they keep failing, and never lost, whatever crashes.
//!
//! # The shape
//!
//! The queue is one [redb](https://docs.rs/redb) file in a folder, and **every process that opens it is an equal**:
//! no daemon, no socket. Any number of processes may add jobs, look, and work; any of them may be killed at any
//! moment. All control flows through the file: stopping a pool or cancelling a job is a row in it.
//!
//! - **The file is the bell.** Whoever waits watches it with inotify. Nothing polls, except that a growing output is
//!   looked at each second, and that what the machine has no room for is tried again every 250 ms.
//! - **Liveness is a fact.** A pool holds a lock on its own file in `run/` for as long as it lives. No heartbeats.
//! - **The board.** The same file says what the pool runs and which outcomes it has not committed yet. It survives
//!   the pool, so that peers know what to end, what to run again, and what had ended already.
//! - **Nothing is believed unseen.** Each page of the file is compared with its checksum as it is read; `check` looks at
//!   all of them and at every invariant; repair, backup and import make a queue anew from whole jobs.
//! - **A large batch appears at once.** It fills lanes that nobody sees, in short transactions between which others get
//!   their turn; one row publishes them.
//! - **Commit, then act.** A job starts after the transaction that claimed it; its outcome is accepted under the
//!   lease of that claim, once.
//!
//! # The floors
//!
//! Folders are floors; imports only point down, which a test verifies.
//!
//! | folder | what it is |
//! |---|---|
//! | `cli` | arguments → model values → store or pool → what is shown. The only place that prints |
//! | [`worker`] | the pool: dispatcher (pure), store thread, workers, child processes, board, bell, recovery; backup |
//! | [`queue`] | the handle: a folder, a store, a clock. The only place that reads the wall clock |
//! | [`store`] | redb: tables, one file per write transaction, queries, `check`, repair. Knows no processes |
//! | [`model`] | values and rules: states and the moves between them, retry, settings. No I/O |
//!
//! Beside them, for tests and fuzz targets only, stands `sim`: a second writing of the rules over plain maps, a disk in
//! memory that loses power and fails, and workloads.
//!
//! # Two copies of a job never run at once
//!
//! What a kill of the pool leaves at each moment of a job's life, and what its recovery makes of it:
//!
//! | the pool was killed | the file says | the board says | the job |
//! |---|---|---|---|
//! | before the claim was committed | pending | – | waits |
//! | before the start was noted | processing | nothing | is given back, no attempt |
//! | before its process was noted | processing | `Starting` | what carries its lease is ended; `lost`, runs again |
//! | while it ran | processing | `Running` | its processes are ended; `lost`, runs again |
//! | after it ended, before that was noted | processing | `Running` | `lost`, runs again: nobody saw it end |
//! | before its outcome was committed | processing | `Ended` | gets the outcome that its pool saw |
//! | after that | the outcome | `Ended` | keeps it: the lease is gone, news of it is late |
//!
//! Recovery commits only when every process of the dead pool is seen to be gone. Processes are found by the lease
//! in their environment, by group, session and descent; what cannot be ended keeps its job from running again.
//!
//! # Example
//!
//! ```
//! use queuectl::model::{Command, JobSpec, StateKind};
//! use queuectl::queue::{Folder, Queue};
//! use queuectl::store::Serves;
//! use queuectl::worker::{News, Observer, Pool, PoolOptions};
//!
//! struct Silent;
//! impl Observer for Silent {
//!     fn news(&self, _: News) {}
//! }
//!
//! let dir = tempfile::tempdir()?;
//! let folder = Folder::make(&dir.path().join("queue"))?;
//! let (queue, _) = Queue::open_or_create(&folder, Box::new(|| {}))?;
//! let job = JobSpec::new(Command::Shell(b"echo hello".to_vec()), "/");
//! let enqueued = queue.enqueue(&[job])?;
//!
//! let options = PoolOptions { workers: 2, serves: Serves::AllQueues, until_empty: true, log: None };
//! Pool::start(queue, options, std::sync::Arc::new(Silent))?.run()?;
//!
//! let queue = Queue::open(&folder, Box::new(|| {}))?;
//! assert_eq!(queue.read(|snapshot| snapshot.state(enqueued[0].seq))?, Some(StateKind::Completed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
pub mod model;
pub mod queue;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod store;
pub mod worker;
