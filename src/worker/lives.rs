//! What the workers run at this moment, for the threads that have to signal it or look after it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, kill_process_group};

use super::dispatcher::Target;
use super::monitor::lock;
use super::output::Spool;
use super::tree::{self, Mark, Reach};
use crate::model::{Lease, WORKERS_MAX};

/// What a worker runs.
#[derive(Debug)]
pub(super) struct Live {
    /// Under which claim.
    pub(super) lease: Lease,
    /// How its processes are found.
    pub(super) mark: Mark,
    /// Its first process, until the worker reaps it: so long its group may be signalled by number.
    pub(super) pid: Option<Pid>,
}

/// One entry for each worker. The lock of its run is held while a job is spawned and while it is reaped, so
/// that whoever signals it finds it before, or after, and never a stranger with its pid.
pub(super) struct Lives {
    /// Made when the worker is: a pool can be given more.
    workers: Vec<OnceLock<Box<Worker>>>,
    /// Held while a worker is added, and by who must know them all.
    adding: Mutex<()>,
}

#[derive(Default)]
struct Worker {
    run: Mutex<Option<Live>>,
    output: Mutex<Option<Watched>>,
}

/// An output that grows.
struct Watched {
    spool: Arc<Spool>,
    limit: u64,
}

impl Lives {
    pub(super) fn new(workers: usize) -> Self {
        let lives = Self { workers: (0..WORKERS_MAX).map(|_| OnceLock::new()).collect(), adding: Mutex::default() };
        (0..workers).for_each(|slot| lives.add(slot));
        lives
    }

    /// There is a worker of this number from now on.
    pub(super) fn add(&self, slot: usize) {
        let _adding = lock(&self.adding);
        self.worker(slot);
    }

    fn worker(&self, slot: usize) -> &Worker {
        self.workers[slot].get_or_init(Box::default)
    }

    /// What a worker runs, locked.
    pub(super) fn lock(&self, slot: usize) -> MutexGuard<'_, Option<Live>> {
        lock(&self.worker(slot).run)
    }

    /// SIGTERM to the trees of these workers, and SIGCONT, so that what is stopped can act on it.
    pub(super) fn terminate(&self, targets: &[Target]) {
        let trees: Vec<Tree> = targets.iter().filter_map(|target| self.signal_group(*target, Signal::TERM)).collect();
        signal_beyond_groups(&trees, &[Signal::TERM, Signal::CONT]);
    }

    /// SIGKILL to the trees of these workers.
    pub(super) fn kill(&self, targets: &[Target]) {
        let trees: Vec<Tree> = targets.iter().filter_map(|target| self.signal_group(*target, Signal::KILL)).collect();
        signal_beyond_groups(&trees, &[Signal::KILL]);
    }

    /// Signals the group of what a worker runs, at once, and tells what else there is to signal.
    fn signal_group(&self, target: Target, signal: Signal) -> Option<Tree> {
        let live = self.lock(target.slot);
        let live = live.as_ref().filter(|live| live.lease == target.lease)?;
        if let Some(pid) = live.pid {
            send_to_group(pid, signal);
        }
        Some(Tree { mark: live.mark.clone(), signalled_group: live.pid })
    }

    /// Stops what the workers run, does something, and continues it. Nothing is spawned meanwhile.
    pub(super) fn while_frozen(&self, pause: impl FnOnce()) {
        let _adding = lock(&self.adding);
        let workers = self.workers.iter().filter_map(OnceLock::get);
        let lives: Vec<_> = workers.map(|worker| lock(&worker.run)).collect();
        let tree = |live: &Live| Tree { mark: live.mark.clone(), signalled_group: live.pid };
        let trees: Vec<Tree> = lives.iter().filter_map(|live| Some(tree(live.as_ref()?))).collect();
        let signal_all = |signal| {
            let pids = trees.iter().filter_map(|tree| tree.signalled_group);
            pids.for_each(|pid| send_to_group(pid, signal));
            signal_beyond_groups(&trees, &[signal]);
        };
        signal_all(Signal::STOP);
        pause();
        signal_all(Signal::CONT);
    }

    /// Lets the timer look after the output of a run.
    pub(super) fn watch_output(&self, slot: usize, spool: Arc<Spool>, limit: u64) {
        *lock(&self.worker(slot).output) = Some(Watched { spool, limit });
    }

    /// The run is over.
    pub(super) fn unwatch_output(&self, slot: usize) {
        *lock(&self.worker(slot).output) = None;
    }

    /// Looks after the output of a run; says when to look again.
    pub(super) fn look_at_output(&self, slot: usize, now: Duration) -> Option<Duration> {
        let watched = lock(&self.worker(slot).output);
        watched.as_ref().map(|watched| watched.spool.look(watched.limit, now))
    }
}

fn send_to_group(pid: Pid, signal: Signal) {
    // It can only be gone, or another user's: the worker tells what remains.
    let _ = kill_process_group(pid, signal);
    if signal == Signal::TERM {
        let _ = kill_process_group(pid, Signal::CONT);
    }
}

/// A run that is being signalled.
struct Tree {
    mark: Mark,
    /// The group that has its signal already; none once the run's first process is gone.
    signalled_group: Option<Pid>,
}

/// Signals whatever belongs to the runs and is not in a group that was signalled already: a second SIGTERM makes some
/// programs give up their tidying.
fn signal_beyond_groups(trees: &[Tree], signals: &[Signal]) {
    if trees.is_empty() {
        return;
    }
    let marks: Vec<Mark> = trees.iter().map(|tree| tree.mark.clone()).collect();
    // What cannot be searched now is ended by the worker when the first process is gone.
    let Ok(mut found) = tree::find(&marks, Reach::Tree) else { return };
    found.retain(|process| {
        let group = trees[process.mark].signalled_group;
        group.is_none() || getpgid(Some(process.pid)).ok() != group
    });
    for signal in signals {
        tree::signal(&found, *signal);
    }
}
