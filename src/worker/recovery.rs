//! Recovery: what is left of a pool that died.
//!
//! First its processes are found and ended and seen to be gone, then one transaction reports its claims and
//! retires it. Two recoverers find the same, and the second's reports come late. What each claim becomes is told
//! by the dead pool's board:
//!
//! | the board says of a lease | its job |
//! |---|---|
//! | nothing | was never started: given back |
//! | `Starting`, `Running` | lost: runs again, no retry used up |
//! | `Ended` | has the outcome that its pool saw |
//!
//! After a reboot the board may be older than what happened, so whatever started counts as interrupted by the
//! reboot: lost, but not towards `max-losses`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::board::{self, Board, Identity, Life, Slot, Stage};
use super::bulk::{Undoing, dead_bulks, remove_dead_bulks};
use super::news::{News, Observer};
use super::output::{collect_left, spool_folder};
use super::pool::{Shared, token_prefix};
use super::run::describe_exit;
use super::tree::{self, Asked, Leader, Mark, Reach};
use crate::model::{Ending, Kept, Millis, Outcome, PoolId, Run, SURVIVOR_GRACE_MAX, Seq, StateKind};
use crate::queue::{Folder, Queue};
use crate::store::{Held, PoolInfo, StoreError};

/// How often a recovery that left something is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The pools that died and were not recovered yet.
pub fn dead_pools(queue: &Queue) -> Result<Vec<PoolInfo>, StoreError> {
    let run = queue.folder().join("run");
    let pools = queue.read(crate::store::Snapshot::pools)?;
    let is_dead = |pool: &PoolInfo| pool.ended.is_none() && is_dead(&run, &pool.id, false);
    Ok(pools.into_iter().filter(is_dead).collect())
}

fn is_dead(run: &Path, pool: &PoolId, just_closed: bool) -> bool {
    let path = run.join(pool.as_str());
    let life = if just_closed { board::probe_after_close(&path) } else { board::probe(&path) };
    // What cannot be probed is not declared dead.
    matches!(life, Ok(Life::Dead))
}

/// What keeps the jobs of a pool that died from running again, if anything does.
pub fn obstacles(queue: &Queue, pool: &PoolInfo) -> Result<Vec<String>, StoreError> {
    Autopsy::of(queue, pool)?.obstacles()
}

/// Recovers every pool that died, and takes away what dead makers of bulks left. Says whether all could be recovered.
pub fn recover(queue: &Queue, observer: &dyn Observer) -> Result<bool, StoreError> {
    let nobody = BTreeSet::new();
    let outcome = recover_pools(queue, None, &nobody, observer);
    let bulks = remove_dead_bulks(queue, &nobody);
    sweep(queue, &queue.folder().join("run"))?;
    bulks.and(outcome)
}

/// Recovers every pool that died, `own` excepted. `closed` are those whose files were just closed. Says whether all
/// could be recovered.
fn recover_pools(
    queue: &Queue,
    own: Option<&PoolId>,
    closed: &BTreeSet<PoolId>,
    observer: &dyn Observer,
) -> Result<bool, StoreError> {
    let run = queue.folder().join("run");
    let mut outcome = Ok(true);
    for pool in queue.read(crate::store::Snapshot::pools)? {
        if pool.ended.is_some() || own == Some(&pool.id) || !is_dead(&run, &pool.id, closed.contains(&pool.id)) {
            continue;
        }
        // One that cannot be recovered keeps no other from it.
        let recovered = Autopsy::of(queue, &pool).and_then(|autopsy| autopsy.recover(observer));
        outcome = match (outcome, recovered) {
            (Ok(all), Ok(this)) => Ok(all && this),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
    }
    outcome
}

/// Removes what pools that died while they were made, or while they were removed, left in `run/` and `output/`.
fn sweep(queue: &Queue, run: &Path) -> Result<(), StoreError> {
    let outputs = queue.folder().join("output");
    let mut left = Vec::new();
    for entry in fs::read_dir(run)?.chain(fs::read_dir(&outputs)?) {
        let name = entry?.file_name();
        let pool = board::pool_name(&name);
        let unnamed = name.as_encoded_bytes().starts_with(b".new-");
        if (unnamed || pool.is_some()) && matches!(board::probe(&run.join(&name)), Ok(Life::Dead)) {
            left.push((name, pool));
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    // Looked at after the probes: whoever is dead and has no row now never will have one.
    let pools = queue.read(crate::store::Snapshot::pools)?;
    for (name, pool) in left {
        let has_row = pools.iter().any(|info| info.ended.is_none() && Some(&info.id) == pool.as_ref());
        if !has_row {
            let _ = fs::remove_file(run.join(&name));
            let _ = fs::remove_dir_all(outputs.join(&name));
        }
    }
    Ok(())
}

/// A dead pool under examination.
struct Autopsy<'a> {
    queue: &'a Queue,
    pool: &'a PoolInfo,
    /// Whether this file is a copy of the one that it worked on: what it ran belongs to the original.
    is_copy: bool,
    /// Whether it died in this boot, so that something of it may be left.
    same_boot: bool,
    /// Whether its processes can be seen from here.
    visible: bool,
    leases: Vec<Held>,
    slots: HashMap<(Seq, u64), Slot>,
    token_prefix: String,
}

impl<'a> Autopsy<'a> {
    fn of(queue: &'a Queue, pool: &'a PoolInfo) -> Result<Self, StoreError> {
        let here = Identity::of_this_process()?;
        let same_boot = pool.boot_id == u128::from_be_bytes(here.boot_id);
        let board = read_board(queue, pool);
        let leases = queue.read(|snapshot| snapshot.leases(&pool.id))?;
        let held: BTreeSet<(Seq, u64)> = leases.iter().map(|held| (held.token.seq(), held.token.lease().0)).collect();
        let mut slots = HashMap::new();
        for slot in board.map(|board| board.slots).unwrap_or_default() {
            if held.contains(&(slot.seq, slot.lease.0)) {
                slots.insert((slot.seq, slot.lease.0), slot);
            }
        }
        let file = fs::metadata(queue.file())?;
        let is_copy = pool.file != (file.dev(), file.ino());
        Ok(Self {
            queue,
            pool,
            is_copy,
            same_boot: same_boot && !is_copy,
            visible: pool.pid_namespace == here.pid_namespace,
            leases,
            slots,
            token_prefix: token_prefix(pool.file, pool.nonce),
        })
    }

    fn recover(mut self, observer: &dyn Observer) -> Result<bool, StoreError> {
        if let Some(obstacle) = self.is_out_of_sight() {
            observer.news(News::Stuck(obstacle));
            return Ok(false);
        }
        let ends = self.same_boot && self.visible;
        let (ended, stuck) = if ends { self.end_survivors(observer)? } else { (0, BTreeSet::new()) };
        self.leases.retain(|held| !stuck.contains(&held.token.seq()));
        let jobs = self.leases.len();
        let Some(dead) = self.report(stuck.is_empty())? else { return Ok(true) };
        if stuck.is_empty() {
            let _ = fs::remove_dir_all(spool_folder(self.queue.folder(), &self.pool.id));
            let _ = fs::remove_file(self.path());
            observer.news(News::Recovered { pool: self.pool.id.clone(), jobs, ended, dead });
        }
        Ok(stuck.is_empty())
    }

    /// Why nothing of it can be seen to be gone, if that is so.
    fn is_out_of_sight(&self) -> Option<String> {
        let out_of_sight = self.same_boot && !self.visible && !self.leases.is_empty();
        out_of_sight.then(|| {
            let (pool, jobs) = (&self.pool.id, self.leases.len());
            format!("pool {pool} died in another pid namespace: its {jobs} jobs wait, since nobody here can see what is left of them")
        })
    }

    /// What keeps its jobs from running again.
    fn obstacles(&self) -> Result<Vec<String>, StoreError> {
        if !self.same_boot {
            return Ok(Vec::new());
        }
        if let Some(obstacle) = self.is_out_of_sight() {
            return Ok(vec![obstacle]);
        }
        let found = tree::find(&self.marks(), Reach::Tree)?;
        let unreachable = found.iter().filter(|process| test_kill_process(process.pid) == Err(Errno::PERM));
        Ok(unreachable.map(|process| self.cannot_be_ended(process.pid, process.mark)).collect())
    }

    fn cannot_be_ended(&self, pid: Pid, mark: usize) -> String {
        let (pid, job, pool) = (pid.as_raw_pid(), self.leases[mark].token.seq().0, &self.pool.id);
        format!("process {pid} of job {job} is left of pool {pool} and cannot be ended: the job waits until it is gone")
    }

    fn marks(&self) -> Vec<Mark> {
        self.leases.iter().map(|held| self.mark(held.token.lease().0, self.slot(held))).collect()
    }

    fn path(&self) -> std::path::PathBuf {
        self.queue.folder().join("run").join(self.pool.id.as_str())
    }

    /// Ends what is left of its runs; answers how many processes, and the jobs of those that remain.
    fn end_survivors(&self, observer: &dyn Observer) -> Result<(usize, BTreeSet<Seq>), StoreError> {
        let grace = self.queue.read(|snapshot| snapshot.settings(None))?.kill_grace.min(SURVIVOR_GRACE_MAX);
        let ending = tree::end(&self.marks(), Reach::Tree, Asked::NotYet, grace)?;
        let mut stuck = BTreeSet::new();
        for remaining in &ending.remaining {
            let held = &self.leases[remaining.mark];
            stuck.insert(held.token.seq());
            observer.news(News::Stuck(self.cannot_be_ended(remaining.pid, remaining.mark)));
        }
        Ok((ending.ended, stuck))
    }

    fn slot(&self, held: &Held) -> Option<&Slot> {
        self.slots.get(&(held.token.seq(), held.token.lease().0))
    }

    fn mark(&self, lease: u64, slot: Option<&Slot>) -> Mark {
        let leader = slot.and_then(|slot| match slot.stage {
            Stage::Starting { .. } => None,
            Stage::Running { boot_ticks, born_by, pid, .. } | Stage::Ended { boot_ticks, born_by, pid, .. } => {
                Some((pid, boot_ticks..=born_by))
            }
        });
        let leader = leader.and_then(|(pid, born)| Some(Leader { pid: Pid::from_raw(pid.cast_signed())?, born }));
        Mark { token: format!("{}{lease}", self.token_prefix).into_bytes(), leader }
    }

    /// Commits what became of its claims; retires it if nothing of it remains. Answers how many jobs died of that;
    /// `None` if somebody else has done it all.
    fn report(&self, complete: bool) -> Result<Option<usize>, StoreError> {
        let mut reports = Vec::with_capacity(self.leases.len());
        for held in &self.leases {
            reports.push((held, self.ending(held)?));
        }
        self.queue.write(|tx| {
            let mut dead = 0;
            for (held, ending) in &reports {
                let finished = tx.finish(&held.token, ending)?;
                dead += usize::from(finished.is_some_and(|job| job.progress.state.kind() == StateKind::Dead));
            }
            let was_there = !complete || tx.retire(&self.pool.id, "died")?;
            Ok(was_there.then_some(dead))
        })
    }

    fn ending(&self, held: &Held) -> Result<Ending, StoreError> {
        let Some(slot) = self.slot(held) else { return Ok(Ending::NotStarted) };
        let limit = self.queue.read(|snapshot| snapshot.settings(None))?.output_limit;
        let folder = self.queue.folder();
        let collected = collect_left(folder, &self.pool.id, slot.spool, slot.seq, slot.attempt, limit);
        let mut run = self.outcome(slot, self.queue.clock().now());
        match collected {
            Ok((stdout, stderr)) => (run.stdout, run.stderr) = (stdout, stderr),
            // Losing an output is better than never running the pool's jobs again.
            Err(error) => {
                let before = run.error.map(|before| format!("{before}; ")).unwrap_or_default();
                run.error = Some(format!("{before}its output could not be kept: {error}"));
            }
        }
        Ok(Ending::Ran(run))
    }

    fn cause_of_loss(&self) -> &'static str {
        match (self.is_copy, self.same_boot) {
            (true, _) => "the queue was copied while it ran",
            (false, true) => "its pool died",
            (false, false) => "the machine went down",
        }
    }

    fn outcome(&self, slot: &Slot, now: Millis) -> Run {
        let lost = |started| Run {
            slot: slot.worker,
            started,
            ended: now,
            outcome: Outcome::Lost,
            counts_as_loss: self.same_boot,
            exit_code: None,
            signal: None,
            cpu: Duration::ZERO,
            max_rss_bytes: 0,
            error: Some(self.cause_of_loss().to_owned()),
            stdout: Kept::Empty,
            stderr: Kept::Empty,
        };
        match slot.stage {
            Stage::Starting { at, .. } | Stage::Running { at, .. } => lost(at),
            Stage::Ended { at, .. } if !self.same_boot => lost(at),
            Stage::Ended { at, ended, outcome, exit_code, signal, cpu, max_rss_bytes, .. } => {
                let error = describe_exit(exit_code, signal);
                let run = Run { ended, outcome, exit_code, signal, cpu, max_rss_bytes, error, ..lost(at) };
                // In the last moments of its pool: it was meant to go with it.
                let outcome = if run.died_of_ending_signal() { Outcome::Interrupted } else { outcome };
                Run { outcome, ..run }
            }
        }
    }
}

/// A board that is missing or damaged tells nothing: its claims count as never started, and whatever they
/// started is still found by its token.
fn read_board(queue: &Queue, pool: &PoolInfo) -> Option<Board> {
    let board = board::read(&queue.folder().join("run").join(pool.id.as_str())).ok()??;
    (board.identity.nonce == pool.nonce).then_some(board)
}

/// The thread of a pool that recovers its peers.
pub(super) struct Recoverer<'a> {
    shared: &'a Shared,
    folder: std::path::PathBuf,
    state: Mutex<Suspicions>,
    news: Condvar,
    said: Mutex<BTreeSet<String>>,
}

/// What stays stuck is tried each second, but told once.
struct SaidOnce<'a> {
    observer: &'a dyn Observer,
    said: &'a Mutex<BTreeSet<String>>,
}

impl Observer for SaidOnce<'_> {
    fn news(&self, news: News) {
        if let News::Stuck(what) = &news
            && !self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(what.clone())
        {
            return;
        }
        self.observer.news(news);
    }
}

#[derive(Default)]
struct Suspicions {
    closed: BTreeSet<PoolId>,
    look: bool,
    over: bool,
}

impl<'a> Recoverer<'a> {
    /// One that begins with the pools that are dead already. What cannot be told is looked at.
    pub(super) fn new(shared: &'a Shared, queue: &Queue) -> Self {
        // Who died without a row is no dead pool: nobody else would come to tidy up. What stays is only untidy.
        let _ = sweep(queue, &queue.folder().join("run"));
        let look = dead_pools(queue).map_or(true, |dead| !dead.is_empty())
            || dead_bulks(queue, &BTreeSet::new()).map_or(true, |dead| !dead.is_empty());
        let state = Mutex::new(Suspicions { look, ..Suspicions::default() });
        Self { shared, folder: queue.folder().to_owned(), state, news: Condvar::new(), said: Mutex::default() }
    }

    /// These pools' files were closed: they have ended in good order and taken their files along, or died. None
    /// are named by a bell that cannot hear.
    pub(super) fn suspect(&self, mut closed: BTreeSet<PoolId>) {
        let named = !closed.is_empty();
        closed.retain(|pool| self.folder.join("run").join(pool.as_str()).exists());
        if named && closed.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed.extend(closed);
        state.look = true;
        self.news.notify_one();
    }

    /// The pool is over.
    pub(super) fn go_home(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.news.notify_one();
    }

    /// Recovers dead pools as they become known.
    pub(super) fn run(&self) {
        let mut retry = None;
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while !state.look && !state.over {
                state = match retry {
                    None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(after) => {
                        let (mut state, waited) =
                            self.news.wait_timeout(state, after).unwrap_or_else(PoisonError::into_inner);
                        state.look |= waited.timed_out();
                        state
                    }
                };
            }
            if state.over {
                return;
            }
            state.look = false;
            let closed = std::mem::take(&mut state.closed);
            drop(state);
            retry = self.recover(&closed);
        }
    }

    /// Recovers with a handle of its own, since the pool's is the store thread's. Says when to try again.
    fn recover(&self, closed: &BTreeSet<PoolId>) -> Option<Duration> {
        match self.recover_all(closed) {
            Ok(true) => None,
            Ok(false) => Some(RETRY),
            Err(error) => {
                let trouble = format!("cannot recover the jobs of a dead pool: {error}");
                self.shared.observer.news(News::Trouble(trouble));
                Some(RETRY)
            }
        }
    }

    /// The pools in one go, as nothing of theirs may wait; then what dead makers of bulks left, piece by piece, between
    /// which the pool may stand still or end.
    fn recover_all(&self, closed: &BTreeSet<PoolId>) -> Result<bool, StoreError> {
        let shared = self.shared;
        let (queue, outcome) = shared.in_transaction(|| {
            let folder = Folder::existing(&self.folder).ok().flatten();
            let folder = folder.ok_or_else(|| StoreError::NoQueue(self.folder.clone()))?;
            let queue = Queue::open(&folder, Box::new(|| {}))?;
            let observer = SaidOnce { observer: &*shared.observer, said: &self.said };
            let outcome = recover_pools(&queue, Some(shared.file.id()), closed, &observer);
            Ok::<_, StoreError>((queue, outcome))
        })?;
        let bulks = self.remove_dead_bulks(&queue, closed);
        shared.in_transaction(|| {
            let swept = sweep(&queue, &self.folder.join("run"));
            // Closing the file is a transaction, too.
            drop(queue);
            swept
        })?;
        bulks.and(outcome)
    }

    fn remove_dead_bulks(&self, queue: &Queue, closed: &BTreeSet<PoolId>) -> Result<(), StoreError> {
        for bulk in &dead_bulks(queue, closed)? {
            let mut undoing = Undoing::new(queue, bulk);
            while !self.is_over() && !self.shared.in_transaction(|| undoing.piece())? {}
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over
    }
}
