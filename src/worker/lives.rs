//! What the workers run at this moment, for the threads that have to signal it or look after it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, kill_process_group};

use super::monitor::lock;
use super::output::Spool;
use super::tree::{self, Mark, Reach};

/// What a worker runs.
#[derive(Debug)]
pub(super) struct Live {
    /// How its processes are found.
    pub(super) mark: Mark,
    /// Its first process, until the worker reaps it: so long its group may be signalled by number.
    pub(super) pid: Option<Pid>,
}

/// One entry for each worker. The lock of an entry is held while a job is spawned and while it is reaped, so
/// that whoever signals it finds it before, or after, and never a stranger with its pid.
pub(super) struct Lives {
    runs: Vec<Mutex<Option<Live>>>,
    outputs: Vec<Mutex<Option<Watched>>>,
}

/// An output that grows.
struct Watched {
    spool: Arc<Spool>,
    limit: u64,
}

impl Lives {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            runs: (0..workers).map(|_| Mutex::default()).collect(),
            outputs: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// What a worker runs, locked.
    pub(super) fn lock(&self, slot: usize) -> MutexGuard<'_, Option<Live>> {
        lock(&self.runs[slot])
    }

    /// SIGTERM to the trees of these workers, and SIGCONT, so that what is stopped can act on it.
    pub(super) fn terminate(&self, slots: &[usize]) {
        let marks: Vec<Mark> = slots.iter().filter_map(|slot| self.signal_group(*slot, Signal::TERM)).collect();
        signal_beyond_groups(&marks, &[Signal::TERM, Signal::CONT]);
    }

    /// SIGKILL to the trees of these workers.
    pub(super) fn kill(&self, slots: &[usize]) {
        let marks: Vec<Mark> = slots.iter().filter_map(|slot| self.signal_group(*slot, Signal::KILL)).collect();
        signal_beyond_groups(&marks, &[Signal::KILL]);
    }

    /// Signals the group of what a worker runs, at once; its mark is for finding the rest of its tree.
    fn signal_group(&self, slot: usize, signal: Signal) -> Option<Mark> {
        let live = self.lock(slot);
        let live = live.as_ref()?;
        if let Some(pid) = live.pid {
            send_to_group(pid, signal);
        }
        Some(live.mark.clone())
    }

    /// Stops what the workers run, does something, and continues it. Nothing is spawned meanwhile.
    pub(super) fn while_frozen(&self, pause: impl FnOnce()) {
        let lives: Vec<_> = (0..self.runs.len()).map(|slot| self.lock(slot)).collect();
        let marks: Vec<Mark> = lives.iter().filter_map(|live| Some(live.as_ref()?.mark.clone())).collect();
        let signal_all = |signal| {
            let pids = lives.iter().filter_map(|live| live.as_ref()?.pid);
            pids.for_each(|pid| send_to_group(pid, signal));
            signal_beyond_groups(&marks, &[signal]);
        };
        signal_all(Signal::STOP);
        pause();
        signal_all(Signal::CONT);
    }

    /// Lets the timer look after the output of a run.
    pub(super) fn watch_output(&self, slot: usize, spool: Arc<Spool>, limit: u64) {
        *lock(&self.outputs[slot]) = Some(Watched { spool, limit });
    }

    /// The run is over.
    pub(super) fn unwatch_output(&self, slot: usize) {
        *lock(&self.outputs[slot]) = None;
    }

    /// Looks after the output of a run; says when to look again.
    pub(super) fn look_at_output(&self, slot: usize, now: Duration) -> Option<Duration> {
        let watched = lock(&self.outputs[slot]);
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

/// Signals whatever belongs to the runs but has left their first groups. The groups were signalled already, and a
/// second SIGTERM makes some programs give up their tidying.
fn signal_beyond_groups(marks: &[Mark], signals: &[Signal]) {
    if marks.is_empty() {
        return;
    }
    // What cannot be searched now is ended by the worker when the first process is gone.
    let Ok(mut found) = tree::find(marks, Reach::Tree) else { return };
    found.retain(|process| {
        let leader = marks[process.mark].leader.as_ref().map(|leader| leader.pid);
        getpgid(Some(process.pid)).ok() != leader
    });
    for signal in signals {
        tree::signal(&found, *signal);
    }
}
