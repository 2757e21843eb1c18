//! The maker of a bulk (see the crash points in the store's `bulk`): a file in `run/` that is locked as long as this
//! process lives, and the pace of the pieces.
//!
//! Each piece is a transaction of its own, so that others get in between. The turnstile lets them: whoever waits for
//! the file holds the turn, and the next piece comes after them.
//!
//! A bulk that fills the disk has to be taken away by transactions that need room themselves. So the maker's file has
//! ballast, which whoever takes a bulk away gives back to the disk first, and then works in small pieces.
//!
//! Ids and keys are gathered as far as there is room for, and named in pieces of their own, sorted (see the store's
//! `bulk::names`): 300,000 random ones then cost a third of what they cost with their jobs, and others wait no longer
//! than for ids in order.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::board::{self, Life, PoolFile};
use crate::model::{JobId, JobKey, JobSpec, PoolId, Seq};
use crate::queue::{Folder, Queue};
use crate::store::{self, BulkInfo, BulkInto, Enqueued, Met, NewRun, RunStart, StoreError, Wanted};

/// How long a piece should take before its commit. On a common disk that makes about 8 ms with it, of the 10 ms that any
/// transaction may take: not every piece takes as long as the one before.
const PIECE: Duration = Duration::from_millis(5);
/// Where a commit takes longer than that, a piece does too: with less it would only come to more waiting in all, for
/// everybody. But not longer than this.
const PIECE_MAX: Duration = Duration::from_millis(20);
/// How many jobs the first piece has, and what fits one transaction and needs no bulk.
pub const PIECE_JOBS_FIRST: usize = 1_000;
/// A piece has at least so many jobs, however slow the disk: each costs a commit.
const PIECE_JOBS_MIN: usize = 100;
/// A piece has at most so many.
const PIECE_JOBS_MAX: usize = 20_000;
/// Most bytes of input for one piece, and what fits one transaction and needs no bulk.
pub const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// What is taken away has at most so many: on a disk that is full it has to do with the ballast.
const UNDO_JOBS_MAX: usize = 1_000;

/// Most room for ids, and for keys, that wait to be named.
const NAMES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What each takes besides its text.
const NAME_BYTES: usize = size_of::<(JobId, Seq)>() + 16;

/// How many jobs the next transaction should have, by how long the last took.
#[derive(Debug)]
struct Pace(usize);

impl Pace {
    /// `done` jobs took so long.
    fn learn(&mut self, done: usize, took: Took) {
        let aim = took.commit.clamp(PIECE, PIECE_MAX);
        let fits = aim.as_micros().saturating_mul(done as u128) / took.work.as_micros().max(1);
        // By steps, since one piece that was quick or slow says little.
        let next = usize::try_from(fits).unwrap_or(usize::MAX).clamp(self.0 / 2, self.0.saturating_mul(2));
        self.0 = next.clamp(PIECE_JOBS_MIN, PIECE_JOBS_MAX);
    }
}

/// How long a transaction took, once it had the file.
#[derive(Debug, Clone, Copy)]
struct Took {
    work: Duration,
    commit: Duration,
}

/// One transaction, and how long it took.
fn timed<T>(
    queue: &Queue,
    change: impl FnOnce(&mut store::Tx<'_>) -> Result<T, StoreError>,
) -> Result<(T, Took), StoreError> {
    let clock = queue.clock();
    let (mut began, mut worked) = (clock.elapsed(), clock.elapsed());
    let done = queue.write(|tx| {
        began = clock.elapsed();
        let done = change(tx);
        worked = clock.elapsed();
        done
    })?;
    let took = Took { work: worked.saturating_sub(began), commit: clock.elapsed().saturating_sub(worked) };
    Ok((done, took))
}

/// Jobs on their way into a queue, that all appear at once when they are published. Dropped before that, they are
/// taken away again.
pub struct BulkMaker<'q> {
    queue: &'q Queue,
    begun: store::BulkLanes,
    /// None once there is nothing to take away.
    maker: Option<PoolFile>,
    wanted: &'q Wanted,
    pace: Pace,
    unnamed: Unnamed<JobId>,
    unkeyed: Unnamed<JobKey>,
}

/// Ids or keys of jobs that are there, to be named.
struct Unnamed<T> {
    names: Vec<(T, Seq)>,
    bytes: usize,
    pace: Pace,
}

impl<T: Ord> Unnamed<T> {
    fn new() -> Self {
        Self { names: Vec::new(), bytes: 0, pace: Pace(PIECE_JOBS_FIRST) }
    }

    /// Takes note of a name of so many bytes.
    fn note(&mut self, name: T, bytes: usize, seq: Seq) {
        self.bytes += NAME_BYTES + bytes;
        self.names.push((name, seq));
    }

    /// Names those so far, piece after piece.
    fn name(
        &mut self,
        queue: &Queue,
        mut name: impl FnMut(&mut store::Tx<'_>, &[(T, Seq)]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.names.sort_unstable();
        let mut left = self.names.as_slice();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(self.pace.0.min(left.len()));
            let ((), took) = timed(queue, |tx| name(tx, piece)).map_err(unseen)?;
            self.pace.learn(piece.len(), took);
            left = rest;
        }
        self.names.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// A bulk that was begun, and has no jobs yet. Dropped, it is left to others to be taken away.
pub struct BegunBulk {
    begun: store::BulkLanes,
    maker: PoolFile,
}

impl BegunBulk {
    /// Begins, after what dead makers left is taken away: it might be in the way. There will be about so many jobs.
    pub fn begin(queue: &Queue, into: &BulkInto, jobs: u64) -> Result<Self, StoreError> {
        remove_dead_bulks(queue, &BTreeSet::new())?;
        let maker = PoolFile::create_maker(&queue.folder().join("run"))?;
        match queue.write(|tx| tx.begin_bulk(maker.id().as_str(), into, jobs)) {
            Ok(begun) => Ok(Self { begun, maker }),
            Err(error) => {
                // What stays is swept away by others.
                let _ = maker.remove();
                Err(unseen(error))
            }
        }
    }

    /// To be filled in the same queue; `wanted` are the ids of all of its jobs that look like numbers.
    pub fn fill<'q>(self, queue: &'q Queue, wanted: &'q Wanted) -> BulkMaker<'q> {
        let (pace, unnamed, unkeyed) = (Pace(PIECE_JOBS_FIRST), Unnamed::new(), Unnamed::new());
        BulkMaker { queue, begun: self.begun, maker: Some(self.maker), wanted, pace, unnamed, unkeyed }
    }
}

impl BulkMaker<'_> {
    /// How many jobs the next piece should have.
    pub fn room(&self) -> usize {
        self.pace.0
    }

    /// Adds a piece; for a job whose key another has, that one may stand. If it is refused, so is all of it: what may be
    /// an id of an earlier piece.
    pub fn add(&mut self, specs: &[JobSpec]) -> Result<Vec<Enqueued>, StoreError> {
        // What they need is found by its id.
        if specs.iter().any(|spec| !spec.needs.is_empty()) {
            self.name()?;
        }
        let filled = timed(self.queue, |tx| tx.fill_bulk(&self.begun, specs, self.wanted));
        let (enqueued, took) = filled.map_err(unseen)?;
        self.pace.learn(specs.len(), took);
        for (spec, job) in specs.iter().zip(&enqueued).filter(|(_, job)| job.met == Met::New) {
            if let Some(id) = &spec.id {
                self.unnamed.note(id.clone(), id.as_str().len(), job.seq);
            }
            if let Some(key) = &spec.key {
                self.unkeyed.note(key.clone(), key.as_str().len(), job.seq);
            }
        }
        if self.unnamed.bytes.max(self.unkeyed.bytes) > NAMES_BYTES_MAX {
            self.name()?;
        }
        Ok(enqueued)
    }

    /// Gives the jobs so far their ids and keys. Has to be done before they are published.
    pub fn name(&mut self) -> Result<(), StoreError> {
        let begun = &self.begun;
        self.unnamed.name(self.queue, |tx, names| tx.name_bulk(begun, names))?;
        self.unkeyed.name(self.queue, |tx, keys| tx.key_bulk(begun, keys))
    }

    /// Publishes all jobs. Answers how many they are.
    pub fn publish(mut self) -> Result<u64, StoreError> {
        let jobs = self.queue.write(|tx| tx.publish_bulk(&self.begun)).map_err(|error| self.look_again(error))?;
        self.end();
        Ok(jobs)
    }

    /// Publishes the jobs as a run, unless one of the same identity appeared meanwhile that is to be continued.
    pub fn publish_run(mut self, run: &NewRun, fresh: bool) -> Result<RunStart, StoreError> {
        let start = self.queue.write(|tx| tx.publish_run(&self.begun, run, fresh));
        let start = start.map_err(|error| self.look_again(error))?;
        if matches!(start, RunStart::New(_)) {
            self.end();
        }
        Ok(start)
    }

    fn end(&mut self) {
        if let Some(maker) = self.maker.take() {
            // What stays is swept away by others.
            let _ = maker.remove();
        }
    }

    /// Where a failed commit left doubt whether it was published, that is looked up.
    fn look_again(&self, error: StoreError) -> StoreError {
        let is_unpublished = || {
            let folder = Folder::existing(self.queue.folder()).ok().flatten()?;
            let bulks = Queue::open(&folder, Box::new(|| {})).ok()?.read(store::Snapshot::bulks).ok()?;
            Some(bulks.contains(&self.info(self.maker.as_ref()?)))
        };
        if error.outcome_is_unknown() && is_unpublished() == Some(true) { unseen(error) } else { error }
    }

    fn info(&self, maker: &PoolFile) -> BulkInfo {
        BulkInfo { number: self.begun.number(), maker: maker.id().as_str().to_owned() }
    }

    /// Takes all of it away; where a failed commit left doubt, only if it was not published.
    fn undo(&self, maker: &PoolFile) -> Result<(), StoreError> {
        let bulk = self.info(maker);
        match undo(self.queue, &bulk) {
            Ok(()) => Ok(()),
            // The handle refuses everything after a failure; another may not.
            Err(_) => match Folder::existing(self.queue.folder()) {
                Ok(Some(folder)) => undo(&Queue::open(&folder, Box::new(|| {}))?, &bulk),
                Ok(None) | Err(_) => Ok(()),
            },
        }
    }
}

impl Drop for BulkMaker<'_> {
    fn drop(&mut self) {
        if let Some(maker) = &self.maker {
            // What stays, nobody sees; who finds its maker dead takes it away.
            let _ = self.undo(maker);
            self.end();
        }
    }
}

/// A failed commit of what nobody sees: nothing happened, whatever became of it.
fn unseen(error: StoreError) -> StoreError {
    match error {
        StoreError::CommitFailed(why) => StoreError::Io(io::Error::other(why)),
        other => other,
    }
}

/// Takes a bulk away, piece after piece.
fn undo(queue: &Queue, bulk: &BulkInfo) -> Result<(), StoreError> {
    let mut undoing = Undoing::new(queue, bulk);
    while !undoing.piece()? {}
    Ok(())
}

/// A bulk that is taken away.
pub(super) struct Undoing<'a> {
    queue: &'a Queue,
    bulk: &'a BulkInfo,
    pace: Pace,
}

impl<'a> Undoing<'a> {
    pub(super) fn new(queue: &'a Queue, bulk: &'a BulkInfo) -> Self {
        // It is a help only where the disk is full.
        let _ = board::drop_ballast(&queue.folder().join("run").join(&bulk.maker));
        Self { queue, bulk, pace: Pace(PIECE_JOBS_MIN) }
    }

    /// Takes the next piece of it away. Says whether it is gone.
    pub(super) fn piece(&mut self) -> Result<bool, StoreError> {
        let limit = self.pace.0.min(UNDO_JOBS_MAX);
        let (is_gone, took) = timed(self.queue, |tx| tx.undo_bulk(self.bulk, limit))?;
        self.pace.learn(limit, took);
        Ok(is_gone)
    }
}

/// The bulks whose makers died. `closed` are those whose files were just closed.
pub(super) fn dead_bulks(queue: &Queue, closed: &BTreeSet<PoolId>) -> Result<Vec<BulkInfo>, StoreError> {
    let run = queue.folder().join("run");
    let mut bulks = queue.read(store::Snapshot::bulks)?;
    bulks.retain(|bulk| {
        let path = run.join(&bulk.maker);
        let just_closed = closed.iter().any(|maker| maker.as_str() == bulk.maker);
        let life = if just_closed { board::probe_after_close(&path) } else { board::probe(&path) };
        // What cannot be probed is not declared dead.
        matches!(life, Ok(Life::Dead))
    });
    Ok(bulks)
}

/// Enqueues; where an id or a key is held by a bulk under way, after that has ended: see [`outlast_bulks`].
pub fn past_bulks<T>(
    queue: &Queue,
    mut waits: impl FnMut(&StoreError),
    mut enqueue: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    loop {
        match enqueue() {
            Err(error @ (StoreError::Reserved(_) | StoreError::KeyReserved(_))) => {
                outlast_bulks(queue, || waits(&error))?;
            }
            done => return done,
        }
    }
}

/// Takes away what dead makers left; where nobody was dead, tells `waits` and waits for those that live: whether their
/// jobs appear, nobody knows before. Whoever waits must not have a bulk: its maker may wait too.
pub fn outlast_bulks(queue: &Queue, waits: impl FnOnce()) -> Result<(), StoreError> {
    if remove_dead_bulks(queue, &BTreeSet::new())? > 0 {
        return Ok(());
    }
    let bulks = queue.read(store::Snapshot::bulks)?;
    if !bulks.is_empty() {
        waits();
    }
    let run = queue.folder().join("run");
    bulks.iter().try_for_each(|bulk| board::wait_for_end(&run.join(&bulk.maker)))?;
    Ok(())
}

/// Takes away what dead makers left. Answers how many bulks that were.
pub fn remove_dead_bulks(queue: &Queue, closed: &BTreeSet<PoolId>) -> Result<usize, StoreError> {
    let dead = dead_bulks(queue, closed)?;
    for bulk in &dead {
        undo(queue, bulk)?;
    }
    Ok(dead.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_large_as_the_time_allows() {
        let settled = |work_us_a_job: u64, commit_ms: u64| {
            let mut pace = Pace(PIECE_JOBS_FIRST);
            for _ in 0..20 {
                let done = pace.0;
                let work = Duration::from_micros(work_us_a_job * done as u64);
                pace.learn(done, Took { work, commit: Duration::from_millis(commit_ms) });
            }
            pace.0
        };
        assert_eq!(settled(2, 1), 2_500);
        assert_eq!(settled(2, 10), 5_000, "where commits are slow");
        assert_eq!(settled(2, 500), 10_000, "but others wait");
        assert_eq!(settled(1_000, 1), PIECE_JOBS_MIN);
        assert_eq!(settled(0, 100), PIECE_JOBS_MAX);
    }
}
