//! Applies a workload to a store and to the reference, and compares everything that can be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::time::Duration;

use super::reference::{Handed, Reference, Refused, Rung};
use super::workload::{JOB_NAMES, KEYS, Op, POOLS, QUEUES, Serving, TAGS, Verb, Which, Who, Whom, Wish};
use crate::model::{
    Editable, Ending, Filter, Job, JobId, JobSpec, Kept, LaneId, Lease, Millis, Need, Output, PoolId, Seq, Start,
    State, StateKind, Stream, Tags,
};
use crate::store::{
    Asked, BulkInfo, BulkInto, BulkLanes, Cancelled, Claim, ClaimCache, Control, Cursor, Generations, Met, NewRun,
    PoolInfo, RunStart, Serves, Snapshot, Store, StoreError, Sweep, Terms, Token, Tx, Wanted,
};

/// A clock that is set by more than this is far off.
const DAY: Duration = Duration::from_secs(86_400);
/// How many operations before the mismatch are shown.
const TAIL: usize = 12;

/// Where a store and the reference part.
#[derive(Debug)]
pub struct Mismatch {
    /// The index of the operation.
    pub step: usize,
    /// What differs.
    pub what: String,
    /// The last operations, that one included.
    pub tail: Vec<Op>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "step {}: {}", self.step, self.what)?;
        let first = self.step + 1 - self.tail.len();
        self.tail.iter().enumerate().try_for_each(|(n, op)| writeln!(f, "  {}: {op:?}", first + n))
    }
}

impl std::error::Error for Mismatch {}

/// What a workload reached, to tell whether it was worth running.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// In how many steps there was a job in each state.
    pub states: BTreeMap<StateKind, usize>,
    /// How often each thing happened, by name.
    pub events: BTreeMap<String, usize>,
}

impl Tally {
    fn note(&mut self, event: impl Into<String>, happened: bool) {
        *self.events.entry(event.into()).or_default() += usize::from(happened);
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.states {
            *self.states.entry(*kind).or_default() += count;
        }
        for (event, count) in &other.events {
            *self.events.entry(event.clone()).or_default() += count;
        }
    }
}

/// Applies `ops` to `store`, whose queue is empty and nobody else's, and compares it with the reference.
pub fn run(store: &Store, ops: &[Op]) -> Result<Tally, Box<Mismatch>> {
    let mut comparison = Comparison::default();
    for (step, op) in ops.iter().enumerate() {
        comparison.step(store, step, op).map_err(|parted| Mismatch::at(step, ops, parted))?;
    }
    Ok(comparison.tally)
}

impl Mismatch {
    pub(super) fn at(step: usize, ops: &[Op], parted: Parted) -> Self {
        let what = match parted {
            Parted::Differs(what) => what,
            Parted::Failed(error) => format!("the store failed: {error}"),
        };
        Self { step, what, tail: ops[(step + 1).saturating_sub(TAIL)..=step].to_vec() }
    }
}

/// Why an operation could not be compared to its end.
#[derive(Debug)]
pub(super) enum Parted {
    /// The store and the reference differ; in words.
    Differs(String),
    /// The store could not do its work.
    Failed(StoreError),
}

impl From<StoreError> for Parted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

fn same<T: PartialEq + Debug>(what: &str, store: &T, reference: &T) -> Result<(), Parted> {
    if store == reference {
        return Ok(());
    }
    Err(Parted::Differs(format!("{what}\n  store:     {store:?}\n  reference: {reference:?}")))
}

/// What the store answered: a value, or a refusal that the reference has to know.
fn answer<T>(done: Result<T, StoreError>) -> Result<Result<T, Refused>, Parted> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(StoreError::Duplicate(id)) => Ok(Err(Refused::Duplicate(id))),
        Err(StoreError::Reserved(id)) => Ok(Err(Refused::Reserved(id))),
        Err(StoreError::KeyTaken { key, id, state }) => Ok(Err(Refused::KeyTaken(key, id, state))),
        Err(StoreError::KeyTwice(key)) => Ok(Err(Refused::KeyTwice(key))),
        Err(StoreError::KeyReserved(key)) => Ok(Err(Refused::KeyReserved(key))),
        Err(StoreError::Contradiction(_)) => Ok(Err(Refused::Bulk)),
        Err(StoreError::NoSuchJob(id)) => Ok(Err(Refused::NoSuchJob(id))),
        Err(StoreError::NeedsLater(id)) => Ok(Err(Refused::NeedsLater(id))),
        Err(StoreError::NeedsNewer { needed, .. } | StoreError::NeedsTooMany { needed, .. }) => {
            Ok(Err(Refused::NeedsLater(needed)))
        }
        Err(StoreError::NeedEnded { id, state }) => Ok(Err(Refused::NeedEnded(id, state))),
        Err(StoreError::NeededUnseen(id)) => Ok(Err(Refused::NeededUnseen(id))),
        Err(StoreError::Refused { id, refusal }) => Ok(Err(Refused::State(id, refusal.state))),
        Err(StoreError::OfRun(id)) => Ok(Err(Refused::OfRun(id))),
        Err(StoreError::OfAllQueues(key)) => Ok(Err(Refused::Scope(key))),
        Err(StoreError::BadValue(bad)) => Ok(Err(Refused::Value(bad.key))),
        Err(StoreError::Damaged(why)) if why.starts_with("pool ") => Ok(Err(Refused::Pool)),
        Err(error) => Err(Parted::Failed(error)),
    }
}

/// What a transaction changes, if it is kept.
#[derive(Clone, Default)]
pub(super) struct World {
    queue: Reference,
    /// All claims ever handed out.
    issued: Vec<(Seq, Lease)>,
    /// All bulks ever begun.
    bulks: Vec<BulkLanes>,
    /// How often each pool was born.
    births: [u32; POOLS as usize],
}

/// A store and the reference, side by side.
#[derive(Default)]
pub(super) struct Comparison {
    world: World,
    /// What the reference came to in an operation whose commit failed: it may have happened all the same.
    doubtful: Option<World>,
    caches: [ClaimCache; POOLS as usize],
    pub(super) tally: Tally,
    /// Of the store, after the last step.
    fingerprint: Option<u64>,
}

impl Comparison {
    /// Applies one operation to both, and compares.
    pub(super) fn step(&mut self, store: &Store, step: usize, op: &Op) -> Result<(), Parted> {
        self.doubtful = None;
        let generations = store.read(Snapshot::generations)?;
        let newest = self.world.queue.newest();
        self.tally.note("clock set back by a day", newest.since(op.at) > DAY);
        self.tally.note("clock set forward by a day", step > 0 && op.at.since(newest) > DAY);
        let changed = self.apply(store, op)?;
        let fingerprint = store.read(Snapshot::fingerprint)?;
        if changed || self.fingerprint.is_none() {
            let rung = if changed { self.world.queue.rung() } else { Rung::default() };
            store.read(|snapshot| {
                Ok(Self::compare_bells(snapshot, generations, rung).and_then(|()| self.compare(snapshot, step)))
            })??;
        } else {
            // Then all that can be seen is as it was, too.
            same("bytes of what changes nothing", &Some(fingerprint), &self.fingerprint)?;
        }
        self.fingerprint = Some(fingerprint);
        for (kind, count) in self.world.queue.counts() {
            *self.tally.states.entry(kind).or_default() += usize::from(count > 0);
        }
        Ok(())
    }

    /// Applies one operation to both, and compares the answers. Says whether it changed anything.
    pub(super) fn apply(&mut self, store: &Store, op: &Op) -> Result<bool, Parted> {
        let mut spare = Default::default();
        let mut world = self.world.clone();
        if !op.kept {
            world.queue.forget_turns();
        }
        let caches = if op.kept { &mut self.caches } else { &mut spare };
        let mut act = Act { world: &mut world, caches, tally: &mut self.tally, at: op.at };
        act.world.queue.begin(op.at);
        let mut parted = None;
        let written = store.write(op.at, |tx| {
            parted = act.all(tx, &op.verbs).err();
            if op.kept && parted.is_none() { Ok(()) } else { Err(StoreError::TooLarge("given up".to_owned())) }
        });
        if let Some(parted) = parted {
            return Err(parted);
        }
        let changed = op.kept && world.queue.changed();
        if changed {
            world.queue.commit();
        }
        match written {
            Ok(()) => {}
            Err(StoreError::TooLarge(_)) if !op.kept => {}
            Err(error) => {
                self.doubtful = changed.then_some(world);
                return Err(error.into());
            }
        }
        self.tally.note("kept", changed);
        self.tally.note("changes nothing", !changed);
        if op.kept {
            self.world = world;
        }
        Ok(changed)
    }

    /// After an operation that failed, by its process or by the disk: finds whether it happened all the same. It
    /// happened whole or not at all, and only if all that failed was its commit.
    pub(super) fn settle(&mut self, store: &Store) -> Result<bool, Parted> {
        let doubtful = self.doubtful.take();
        self.forget_processes();
        // The next writer decides: until it looks, readers may not see what a killed process had almost committed.
        store.write(Millis(0), |_| Ok(()))?;
        let compared = store.read(|snapshot| Ok(self.compare(snapshot, 0)))?;
        match (compared, doubtful) {
            (Err(Parted::Differs(before)), Some(after)) => {
                self.world = after;
                self.forget_processes();
                let compared = store.read(|snapshot| Ok(self.compare(snapshot, 0)))?;
                compared.map(|()| true).map_err(|parted| match parted {
                    Parted::Differs(after) => {
                        Parted::Differs(format!("neither happened nor not\n without it: {before}\n with it: {after}"))
                    }
                    failed @ Parted::Failed(_) => failed,
                })
            }
            (compared, _) => compared.map(|()| false),
        }
    }

    /// What processes knew by heart is gone with them.
    fn forget_processes(&mut self) {
        self.caches = Default::default();
        self.world.queue.forget_turns();
    }

    /// The state of the reference, to go on from there.
    pub(super) fn world(&self) -> World {
        self.world.clone()
    }

    /// Goes on from a state, with processes that know nothing yet.
    pub(super) fn from(world: World) -> Self {
        let mut comparison = Self { world, ..Self::default() };
        comparison.forget_processes();
        comparison
    }

    fn compare_bells(snapshot: &Snapshot, before: Generations, rung: Rung) -> Result<(), Parted> {
        let now = snapshot.generations()?;
        let moved = (now.work > before.work, now.control > before.control);
        same("which bells rang", &moved, &(rung.work, rung.control))?;
        same("generations went back", &(now.work < before.work || now.control < before.control), &false)
    }

    /// Everything that can be seen in a snapshot; what is looked at in turn goes by `step`.
    pub(super) fn compare(&self, snapshot: &Snapshot, step: usize) -> Result<(), Parted> {
        let queue = &self.world.queue;
        same("check()", &snapshot.check()?.violations, &Vec::new())?;
        same("newest time", &snapshot.newest()?, &queue.newest())?;
        same("numbers given", &snapshot.given()?, &queue.given())?;
        same("counts", &snapshot.counts()?, &queue.counts())?;
        let (jobs, expected) = (snapshot.page(None, &Cursor::default(), usize::MAX)?.jobs, queue.all());
        for (store, reference) in jobs.iter().zip(&expected) {
            same("job", store, reference)?;
        }
        same("number of jobs", &jobs.len(), &expected.len())?;
        same("pools", &snapshot.pools()?, &queue.pools())?;
        same("bulks", &snapshot.bulks()?, &queue.bulks())?;
        same("unpublished", &snapshot.unpublished()?, &queue.unpublished())?;
        for scope in [None, Some(queue_of(0)), Some(queue_of(1))] {
            let scope = scope.as_ref();
            same("settings", &snapshot.settings(scope)?, &queue.settings(scope))?;
            same("settings set", &snapshot.settings_set(scope)?, &queue.settings_set(scope))?;
        }
        same("queues", &snapshot.queues()?, &queue.queues())?;
        same("unsettled", &snapshot.is_unsettled()?, &queue.is_unsettled())?;
        same("next sweep", &snapshot.next_sweep()?, &queue.next_sweep())?;
        self.compare_runs(snapshot, step)?;
        self.compare_pools(snapshot)?;
        self.compare_pages(snapshot, StateKind::ALL[step % StateKind::ALL.len()])?;
        Self::compare_selection(snapshot, &expected, &filter_of(step, &expected))?;
        self.compare_labels(snapshot, TAGS[step % TAGS.len()], JOB_NAMES[step % JOB_NAMES.len()])?;
        let key = KEYS[step % KEYS.len()].parse().map_err(|error| Parted::Differs(format!("{error}")))?;
        same("job of a key", &snapshot.job_of_key(&key)?, &queue.key_owner(&key).ok().flatten())?;
        if let Some(seq) = nth(&queue.seqs(), step) {
            self.compare_history(snapshot, seq)?;
        }
        Ok(())
    }

    fn compare_runs(&self, snapshot: &Snapshot, step: usize) -> Result<(), Parted> {
        let queue = &self.world.queue;
        for lane in queue.lanes_ever() {
            same("run of a lane", &snapshot.run(lane)?, &queue.run(lane))?;
        }
        for run in queue.runs() {
            let identity = queue.identity(run.lane);
            let before = snapshot.run_before(identity, run.lane)?;
            same("run before", &before, &queue.run_before(identity, run.lane))?;
            same("run to continue", &snapshot.newest_cut_off(identity)?, &queue.cut_off(identity))?;
            same("counts of a lane", &snapshot.lane_counts(run.lane)?, &run.counts)?;
            let serves = Serves::Run(run.lane);
            same("unfinished of a run", &snapshot.unfinished(&serves)?, &queue.unfinished(&serves))?;
            let dead = queue.listed(StateKind::Dead).into_iter();
            let dead: Vec<Seq> = dead.filter(|seq| queue.run_number(*seq) == Some(run.number)).take(2).collect();
            let found: Vec<Seq> = snapshot.dead_of_lane(run.lane, 2)?.iter().map(|job| job.seq).collect();
            same("dead of a run", &found, &dead)?;
        }
        if step.is_multiple_of(3) {
            self.compare_handles(snapshot, step)?;
        }
        let unfinished: Vec<_> = queue.runs().into_iter().filter(|run| run.unfinished() > 0).collect();
        same("unfinished runs", &snapshot.unfinished_runs()?, &unfinished)?;
        for serves in [Serves::AllQueues, Serves::Queues(queues(0b101))] {
            same("unfinished", &snapshot.unfinished(&serves)?, &queue.unfinished(&serves))?;
        }
        Ok(())
    }

    /// Runs as people name them, and what they have done.
    fn compare_handles(&self, snapshot: &Snapshot, step: usize) -> Result<(), Parted> {
        let (queue, folder) = (&self.world.queue, std::path::Path::new("/"));
        let mut runs = queue.runs();
        // A large one has its lane long before its number.
        runs.sort_by_key(|run| run.number);
        let newest: Vec<_> = runs.iter().rev().take(2).cloned().collect();
        same("newest runs", &snapshot.newest_runs(2)?, &newest)?;
        if let Some(run) = runs.get(step.checked_rem(runs.len()).unwrap_or_default()) {
            same("run of a number", &snapshot.run_numbered(run.number)?.as_ref(), &Some(run))?;
            let half = Millis(run.created.0.midpoint(queue.newest().0));
            same("ended since", &snapshot.ended_since(run.lane, half)?, &queue.ended_since(run.lane, half))?;
        }
        let (mut completed, lines) = (snapshot.completed_in(folder)?, queue.completed_in(folder));
        same("completed in a folder", &completed.jobs(), &(lines.len() as u64))?;
        for line in lines {
            same("a line that completed", &completed.take(line), &true)?;
        }
        Ok(())
    }

    fn compare_pools(&self, snapshot: &Snapshot) -> Result<(), Parted> {
        let queue = &self.world.queue;
        for pool in queue.pools() {
            let held: Vec<Seq> = queue.leases(&pool.id).into_iter().map(|(seq, ..)| seq).collect();
            same("held by a pool", &snapshot.held_by(&pool.id)?, &held)?;
            let control = Control { asked: pool.asked, workers: pool.workers, cancels: queue.cancels_asked(&pool.id) };
            let control = pool.ended.is_none().then_some(control);
            same("asked of a pool", &snapshot.control(&pool.id)?, &control)?;
        }
        Ok(())
    }

    fn compare_pages(&self, snapshot: &Snapshot, kind: StateKind) -> Result<(), Parted> {
        let (mut seqs, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(at) = cursor {
            let page = snapshot.page(Some(kind), &at, 5)?;
            seqs.extend(page.jobs.iter().map(|job| job.seq));
            cursor = page.next;
        }
        same(kind.name(), &seqs, &self.world.queue.listed(kind))
    }

    /// Those that a filter lets through, page after page, in whatever order; and how many, if that stands somewhere.
    fn compare_selection(snapshot: &Snapshot, all: &[Job], filter: &Filter) -> Result<(), Parted> {
        let (mut seqs, mut cursor) = (BTreeSet::new(), Some(Cursor::default()));
        while let Some(at) = cursor {
            let page = snapshot.select_seqs(filter, &at, 3)?;
            let jobs: Vec<Seq> = snapshot.select(filter, &at, 3)?.jobs.iter().map(|job| job.seq).collect();
            same("selected", &jobs, &page.seqs)?;
            same("selected twice", &page.seqs.iter().all(|seq| seqs.insert(*seq)), &true)?;
            cursor = page.next;
        }
        let expected: BTreeSet<Seq> = all.iter().filter(|job| lets_through(filter, job)).map(|job| job.seq).collect();
        same(&format!("selected by {filter:?}"), &seqs, &expected)?;
        let counted = snapshot.counted(filter)?;
        same("counted", &counted.is_none_or(|count| count == expected.len() as u64), &true)
    }

    /// Those of a tag page after page, those of a name at once.
    fn compare_labels(&self, snapshot: &Snapshot, (key, value): (&str, &str), name: &str) -> Result<(), Parted> {
        let [tagged, named] = self.world.queue.labelled((key, value), name);
        let (mut seqs, mut before) = (Vec::new(), None);
        loop {
            let page = snapshot.jobs_with_tag(key, value, before, 3)?;
            seqs.extend_from_slice(&page);
            before = page.last().copied();
            if page.len() < 3 {
                break;
            }
        }
        same("jobs with a tag", &seqs, &tagged)?;
        let name = name.parse().map_err(|error| Parted::Differs(format!("{error}")))?;
        same("jobs with a name", &snapshot.jobs_with_name(&name, None, usize::MAX)?, &named)
    }

    fn compare_history(&self, snapshot: &Snapshot, seq: Seq) -> Result<(), Parted> {
        let queue = &self.world.queue;
        same("attempts", &snapshot.attempts(seq)?, &queue.attempts(seq))?;
        for (number, run) in (1..).zip(queue.runs_of(seq)) {
            for (stream, kept) in Stream::ALL.into_iter().zip([&run.stdout, &run.stderr]) {
                same("output", &snapshot.output(seq, number, stream)?, &Some(output(kept)))?;
            }
        }
        same("no such attempt", &snapshot.output(seq, 9_999, Stream::Stdout)?, &None)?;
        same("needs", &snapshot.needs(seq)?, &queue.needs_of(seq))?;
        same("needed by", &snapshot.needed_by(seq, usize::MAX)?, &queue.needed_by(seq))?;
        let name = queue.name(seq).cloned();
        let found = name.map(|name| snapshot.find(&name)).transpose()?.flatten();
        same("found by name", &found, &Some(seq))?;
        same("found by number", &snapshot.find(&JobId::from(seq))?, &queue.find(&JobId::from(seq)))
    }
}

fn nth<T: Copy>(of: &[T], n: usize) -> Option<T> {
    of.get(n.checked_rem(of.len())?).copied()
}

fn output(kept: &Kept) -> Output {
    match kept {
        Kept::Empty => Output::Empty,
        Kept::Inline(bytes) => Output::Inline(bytes.clone()),
        Kept::File { bytes, left_out } => Output::File { bytes: *bytes, left_out: *left_out },
        Kept::LetGo { bytes } => Output::LetGo { bytes: *bytes },
    }
}

fn queues(bits: u8) -> Vec<crate::model::QueueName> {
    let names = QUEUES.iter().chain(&["nowhere"]).enumerate();
    names.filter(|(n, _)| *n == QUEUES.len() || bits >> n & 1 == 1).filter_map(|(_, name)| name.parse().ok()).collect()
}

fn queue_of(n: u8) -> crate::model::QueueName {
    QUEUES[usize::from(n) % QUEUES.len()].parse().unwrap_or_else(|_| crate::model::QueueName::default_queue())
}

/// A filter that goes by the step: of what some job has, some.
fn filter_of(step: usize, jobs: &[Job]) -> Filter {
    let Some(job) = jobs.get(step % jobs.len().max(1)) else { return Filter::default() };
    let asks_for = |bit: u32| step.wrapping_mul(0x9e37_79b9) >> (7 + bit) & 3 == 3;
    let states = [job.progress.state.kind(), StateKind::ALL[step % StateKind::ALL.len()]];
    let last = job.last_attempt.as_ref();
    Filter {
        states: if asks_for(0) { states.into() } else { BTreeSet::new() },
        queue: asks_for(1).then(|| job.queue.clone()),
        run: job.run.filter(|_| asks_for(2)),
        tags: if asks_for(3) { job.tags.clone() } else { Tags::default() },
        name: job.name.clone().filter(|_| asks_for(4)),
        since: asks_for(5).then_some(job.updated),
        command: asks_for(6).then(|| format!("^{}$", job.command).parse().ok()).flatten(),
        exit_code: last.and_then(|last| last.exit_code).filter(|_| asks_for(7)),
        held: asks_for(8).then(|| job.progress.state.is_held()),
    }
}

fn lets_through(filter: &Filter, job: &Job) -> bool {
    let (kind, last) = (job.progress.state.kind(), job.last_attempt.as_ref());
    let last = last.filter(|_| kind != StateKind::Processing);
    (filter.states.is_empty() || filter.states.contains(&kind))
        && filter.queue.as_ref().is_none_or(|queue| job.queue == *queue && job.run.is_none())
        && filter.run.is_none_or(|run| job.run == Some(run))
        && filter.tags.iter().all(|(key, value)| job.tags.get(key) == Some(value))
        && filter.name.as_ref().is_none_or(|name| job.name.as_ref() == Some(name))
        && filter.since.is_none_or(|since| since <= job.updated)
        && filter.command.as_ref().is_none_or(|pattern| pattern.is_in(&job.command))
        && filter.held.is_none_or(|held| held == job.progress.state.is_held())
        && filter.exit_code.is_none_or(|code| last.is_some_and(|last| last.exit_code == Some(code)))
}

/// The verbs of one transaction, each done to the store and to the reference.
struct Act<'a> {
    world: &'a mut World,
    caches: &'a mut [ClaimCache; POOLS as usize],
    tally: &'a mut Tally,
    at: Millis,
}

impl Act<'_> {
    fn all(&mut self, tx: &mut Tx<'_>, verbs: &[Verb]) -> Result<(), Parted> {
        for verb in verbs {
            self.one(tx, verb)?;
        }
        same("time", &tx.now(), &self.world.queue.now())?;
        same("next due", &tx.next_due()?, &self.world.queue.next_due())?;
        same("pools, inside", &tx.pools()?, &self.world.queue.pools())?;
        same("settings, inside", &tx.common_settings()?, &self.world.queue.settings(None))?;
        let seqs = self.world.queue.seqs();
        let dead: BTreeSet<Seq> = self.world.queue.listed(StateKind::Dead).into_iter().collect();
        let names: Vec<JobId> = seqs
            .iter()
            .filter(|seq| dead.contains(seq))
            .filter_map(|seq| self.world.queue.name(*seq).cloned())
            .collect();
        same("dead, inside", &tx.still_in(&seqs, &[StateKind::Dead].into())?, &names)?;
        for run in self.world.queue.runs() {
            same("run, inside", &tx.run_of_lane(run.lane)?, &Some(run))?;
        }
        Ok(())
    }

    fn one(&mut self, tx: &mut Tx<'_>, verb: &Verb) -> Result<(), Parted> {
        match verb {
            Verb::Enqueue(wishes) => self.enqueue(tx, &self.specs(wishes)),
            Verb::Claim { pool, serves, limit } => self.claim(tx, *pool, *serves, usize::from(*limit)),
            Verb::Finish { claim, end } => {
                let Some((seq, lease)) = self.which(*claim) else { return Ok(()) };
                self.finish(tx, seq, lease, &end.ending(self.at))
            }
            Verb::Promote(limit) => {
                let limit = usize::from(*limit);
                for kind in self.world.queue.kinds_due().into_iter().take(limit) {
                    self.tally.note(format!("{} promoted", kind.name()), true);
                }
                let promoted = tx.promote_due(limit)?;
                self.tally.note("nothing promoted", promoted == 0);
                same("promoted", &promoted, &self.world.queue.promote_due(limit))
            }
            Verb::Settle(limit) => {
                let limit = usize::from(*limit);
                let was_unsettled = self.world.queue.is_unsettled();
                let is_left = tx.settle(limit)?;
                self.tally.note("settled", was_unsettled && !is_left);
                self.tally.note("settled in part", is_left && limit > 0);
                let before = self.world.queue.counts();
                same("settled", &is_left, &self.world.queue.settle(limit))?;
                let after = self.world.queue.counts();
                self.tally.note("unblocked by settling", after[&StateKind::Pending] > before[&StateKind::Pending]);
                self.tally.note("cancelled by settling", after[&StateKind::Cancelled] > before[&StateKind::Cancelled]);
                self.tally.note("revived by settling", after[&StateKind::Cancelled] < before[&StateKind::Cancelled]);
                Ok(())
            }
            Verb::Hold(who) => self.hold(tx, &self.names(who)),
            Verb::Release(who) => self.release(tx, &self.names(who)),
            Verb::Cancel(who) => self.cancel(tx, &self.names(who)),
            Verb::Retry(who, terms) => self.retry(tx, &self.names(who), terms),
            Verb::Register { pool, again } => self.register(tx, *pool, *again),
            Verb::Ask { pool, asked } => {
                let pool = self.pool(*pool);
                let news = tx.ask(&pool, *asked)?;
                self.tally.note(format!("asked: {asked:?}, {}", if news { "news" } else { "in vain" }), true);
                same("asked", &news, &self.world.queue.ask(&pool, *asked))
            }
            Verb::Remove(who) => self.remove(tx, &self.names(who)),
            Verb::Edit { who, wish, what } => match self.names(std::slice::from_ref(who)).first() {
                Some(id) => self.edit(tx, &id.clone(), wish, *what),
                None => Ok(()),
            },
            Verb::Sweep => self.sweep(tx),
            Verb::Clear { state, ago, limit } => {
                let ended: Vec<StateKind> = StateKind::ALL.into_iter().filter(|kind| kind.has_ended()).collect();
                let ago = Duration::from_millis(500) * u32::from(*ago);
                self.clear(tx, ended[usize::from(*state) % ended.len()], ago, usize::from(*limit))
            }
            Verb::Scale { pool, workers } => {
                let (pool, workers) = (self.pool(*pool), u32::from(*workers));
                let before = tx.scale(&pool, workers)?;
                self.tally.note("scaled", before.is_some_and(|before| before != workers));
                self.tally.note("scaled in vain", before.is_none_or(|before| before == workers));
                same("scaled", &before, &self.world.queue.scale(&pool, workers))
            }
            Verb::Retire(pool) => self.retire(tx, &self.pool(*pool), "stopped"),
            Verb::Recover { pool, ends } => self.recover(tx, *pool, ends),
            Verb::StartRun { identity, wishes, fresh } => self.start_run(tx, *identity, &self.specs(wishes), *fresh),
            Verb::BeginBulk { queues, jobs } => self.begin_bulk(tx, *queues, u64::from(*jobs)),
            Verb::FillBulk { bulk, wishes } => match nth(&self.bulks(), usize::from(*bulk)) {
                Some(n) => self.fill_bulk(tx, n, &self.specs(wishes)),
                None => Ok(()),
            },
            Verb::NameBulk { bulk, limit } => match nth(&self.bulks(), usize::from(*bulk)) {
                Some(n) => self.name_bulk(tx, n, usize::from(*limit)),
                None => Ok(()),
            },
            Verb::PublishBulk { bulk, identity, fresh } => match nth(&self.bulks(), usize::from(*bulk)) {
                Some(n) => self.publish_bulk(tx, n, *identity, *fresh),
                None => Ok(()),
            },
            Verb::UndoBulk { bulk, limit } => match nth(&self.bulks(), usize::from(*bulk)) {
                Some(n) => self.undo_bulk(tx, n, usize::from(*limit)),
                None => Ok(()),
            },
            Verb::Set(queue, key, value) => {
                let queue = queue.map(queue_of);
                let set = answer(tx.set(queue.as_ref(), *key, value))?;
                self.tally.note(if set.is_ok() { "set" } else { "set refused" }, true);
                same("set", &set, &self.world.queue.set(queue, *key, value))
            }
            Verb::Unset(queue, key) => {
                let queue = queue.map(queue_of);
                let unset = tx.unset(queue.as_ref(), *key)?;
                self.tally.note(if unset { "unset" } else { "unset in vain" }, true);
                same("unset", &unset, &self.world.queue.unset(queue, *key))
            }
            Verb::UnsetEverywhere(key) => {
                let unset = tx.unset_everywhere(*key)?;
                self.tally.note("unset everywhere", !unset.is_empty());
                same("unset everywhere", &unset, &self.world.queue.unset_everywhere(*key))
            }
        }
    }

    /// The jobs that are wished for. What they need is named by what there is now.
    fn specs(&self, wishes: &[Wish]) -> Vec<JobSpec> {
        let mut specs: Vec<JobSpec> = Vec::new();
        for wish in wishes {
            let ids: Vec<&JobId> = specs.iter().filter_map(|spec| spec.id.as_ref()).collect();
            let id = |whom: &Whom| match whom {
                Whom::Earlier(n) => nth(&ids, usize::from(*n)).cloned(),
                Whom::Any(who) => self.names(std::slice::from_ref(who)).pop(),
            };
            let needs = wish.needs.iter().filter_map(|(whom, any)| Some(Need { id: id(whom)?, any: *any })).collect();
            specs.push(JobSpec { needs, ..wish.spec() });
        }
        specs
    }

    fn enqueue(&mut self, tx: &mut Tx<'_>, specs: &[JobSpec]) -> Result<(), Parted> {
        let done = answer(tx.enqueue(specs))?;
        let done = done.map(|jobs| jobs.into_iter().map(|job| (job.seq, job.id, job.met)).collect::<Vec<_>>());
        for (.., met) in done.iter().flatten() {
            self.tally.note(
                match met {
                    Met::New => "met nobody".to_owned(),
                    Met::Replaced(_) => "met: replaced".to_owned(),
                    Met::Exists(kind) => format!("met: {}", kind.name()),
                    Met::Retried(kind) => format!("met: {}, retried", kind.name()),
                },
                true,
            );
        }
        let ids: Vec<&JobId> = specs.iter().filter_map(|spec| spec.id.as_ref()).collect();
        let is_twice = ids.iter().collect::<BTreeSet<_>>().len() < ids.len();
        self.tally.note(
            match (&done, is_twice) {
                (Ok(jobs), _) if jobs.is_empty() => "enqueued none",
                (Ok(jobs), _) if jobs.len() == 1 => "enqueued one",
                (Ok(_), _) => "enqueued many",
                (Err(Refused::Reserved(_)), _) => "enqueue refused: an id of a bulk",
                (Err(Refused::NoSuchJob(_)), _) => "enqueue refused: what it needs does not exist",
                (Err(Refused::NeedsLater(_)), _) => "enqueue refused: what it needs comes later",
                (Err(Refused::NeedEnded(..)), _) => "enqueue refused: what it needs has ended",
                (Err(Refused::KeyTaken(..)), _) => "enqueue refused: a key that is taken",
                (Err(Refused::KeyTwice(_)), _) => "enqueue refused: a key twice in it",
                (Err(Refused::KeyReserved(_)), _) => "enqueue refused: a key of a bulk",
                (Err(_), true) => "enqueue refused: an id twice in it",
                (Err(_), false) => "enqueue refused: an id that is taken",
            },
            true,
        );
        same("enqueued", &done, &self.world.queue.enqueue(specs))
    }

    /// The bulks under way, and the last one that is over.
    fn bulks(&self) -> Vec<usize> {
        let is_open = |bulk: &BulkLanes| self.world.queue.bulks().iter().any(|open| open.number == bulk.number());
        let (open, over): (Vec<usize>, Vec<usize>) =
            (0..self.world.bulks.len()).partition(|n| is_open(&self.world.bulks[*n]));
        open.iter().chain(over.last()).copied().collect()
    }

    fn begin_bulk(&mut self, tx: &mut Tx<'_>, bits: u8, jobs: u64) -> Result<(), Parted> {
        let names = queues(bits).into_iter().filter(|name| name.as_str() != "nowhere");
        let names: BTreeSet<_> = names.collect();
        let (into, of) = if names.is_empty() {
            (BulkInto::Run, None)
        } else {
            (BulkInto::Queues(names.clone()), Some(names.into_iter().collect()))
        };
        let maker = format!("m{}", self.world.bulks.len());
        let bulk = tx.begin_bulk(&maker, &into, jobs)?;
        self.tally.note("bulk begun", true);
        same("bulk begun", &bulk.number(), &self.world.queue.begin_bulk(&maker, of, jobs))?;
        self.world.bulks.push(bulk);
        Ok(())
    }

    fn fill_bulk(&mut self, tx: &mut Tx<'_>, n: usize, specs: &[JobSpec]) -> Result<(), Parted> {
        let mut wanted = Wanted::default();
        specs.iter().filter_map(|spec| spec.id.as_ref()).for_each(|id| wanted.note(id));
        let bulk = &self.world.bulks[n];
        let number = bulk.number();
        let is_run = !bulk.has_queues();
        let done = answer(tx.fill_bulk(bulk, specs, &wanted))?;
        let done = done.map(|jobs| jobs.into_iter().map(|job| (job.seq, job.id, job.met)).collect::<Vec<_>>());
        self.tally.note("bulk filled but for what is there", done.iter().flatten().any(|(.., met)| met.existed()));
        self.tally.note(
            match &done {
                Ok(_) => "bulk filled",
                Err(Refused::Bulk) => "bulk not filled: it is over, or has no such queue",
                Err(Refused::NoSuchJob(_) | Refused::NeedsLater(_) | Refused::NeedEnded(..)) => {
                    "bulk not filled: what a job needs"
                }
                Err(Refused::KeyTaken(..) | Refused::KeyReserved(_)) => "bulk not filled: a key that is taken",
                Err(_) => "bulk not filled: an id that is taken",
            },
            true,
        );
        same("filled", &done, &self.world.queue.fill_bulk(number, is_run, specs))
    }

    fn name_bulk(&mut self, tx: &mut Tx<'_>, n: usize, limit: usize) -> Result<(), Parted> {
        let bulk = &self.world.bulks[n];
        let number = bulk.number();
        let mut names = self.world.queue.unnamed(number);
        names.truncate(limit);
        let done = answer(tx.name_bulk(bulk, &names))?;
        self.tally.note("bulk named", done.is_ok() && !names.is_empty());
        self.tally.note("bulk not named: an id that is taken", !matches!(done, Ok(()) | Err(Refused::Bulk)));
        same("named", &done, &self.world.queue.name_bulk(number, &names))?;
        let mut keys = self.world.queue.unkeyed(number);
        keys.truncate(limit);
        let done = answer(tx.key_bulk(&self.world.bulks[n], &keys))?;
        self.tally.note("bulk keyed", done.is_ok() && !keys.is_empty());
        let is_taken = matches!(done, Err(Refused::KeyTaken(..) | Refused::KeyTwice(_)));
        self.tally.note("bulk not keyed: a key that is taken, or is twice in it", is_taken);
        same("keyed", &done, &self.world.queue.key_bulk(number, &keys))
    }

    fn publish_bulk(&mut self, tx: &mut Tx<'_>, n: usize, identity: u8, fresh: bool) -> Result<(), Parted> {
        let bulk = &self.world.bulks[n];
        let number = bulk.number();
        if self.world.queue.is_run(number) {
            let run = new_run(identity);
            let done = answer(tx.publish_run(bulk, &run, fresh))?;
            let done = done.map(|start| (matches!(start, RunStart::Continued(_)), start.info().clone()));
            self.tally.note("bulk run published", matches!(done, Ok((false, _))));
            self.tally.note("bulk run not published: another goes on", matches!(done, Ok((true, _))));
            return same("published", &done, &self.world.queue.publish_run(number, &run, fresh));
        }
        let done = answer(tx.publish_bulk(bulk))?;
        self.tally.note("bulk published", matches!(done, Ok(1..)));
        let is_unnamed = !self.world.queue.unnamed(number).is_empty() || !self.world.queue.unkeyed(number).is_empty();
        self.tally.note("bulk not published: jobs without their ids", is_unnamed);
        self.tally.note("bulk not published: it is over", done.is_err() && !is_unnamed);
        same("published", &done, &self.world.queue.publish_bulk(number))
    }

    fn undo_bulk(&mut self, tx: &mut Tx<'_>, n: usize, limit: usize) -> Result<(), Parted> {
        let number = self.world.bulks[n].number();
        let found = self.world.queue.bulks().into_iter().find(|bulk| bulk.number == number);
        self.tally.note("bulk undone in vain", found.is_none());
        let info = found.unwrap_or_else(|| BulkInfo { number, maker: "over".to_owned() });
        let done = tx.undo_bulk(&info, limit)?;
        self.tally.note("bulk undone in part", !done);
        self.tally.note("bulk undone", done);
        same("undone", &done, &self.world.queue.undo_bulk(number, limit))
    }

    fn claim(&mut self, tx: &mut Tx<'_>, pool: u8, serving: Serving, limit: usize) -> Result<(), Parted> {
        let runs = self.world.queue.runs();
        let serves = match serving {
            Serving::All => Serves::AllQueues,
            Serving::Queues(bits) => Serves::Queues(queues(bits)),
            Serving::Run(back) => {
                // One that does not exist, if there is none yet.
                let run = nth(&runs.iter().rev().map(|run| run.lane).collect::<Vec<_>>(), usize::from(back));
                Serves::Run(run.unwrap_or(LaneId(999)))
            }
        };
        let (id, cache) = (self.pool(pool), &mut self.caches[usize::from(pool)]);
        let claims = answer(tx.claim(&id, &serves, limit, cache))?;
        let held_back = cache.held_back();
        let handed = claims.map(|claims| claims.into_iter().map(handed).collect::<Vec<_>>());
        let claimed = handed.as_ref().map_or(0, Vec::len);
        self.tally.note("claimed several", claimed > 1);
        self.tally.note("claimed of a run", claimed > 0 && matches!(serves, Serves::Run(_)));
        self.tally.note("claim refused", handed.is_err());
        same("claimed", &handed, &self.world.queue.claim(&id, &serves, limit))?;
        if handed.is_ok() {
            self.tally.note("claim held back", held_back);
            same("held back", &held_back, &self.world.queue.holds_back(&serves))?;
        }
        self.world.issued.extend(handed.unwrap_or_default().iter().map(|claim| (claim.seq, claim.lease)));
        Ok(())
    }

    fn which(&self, claim: Which) -> Option<(Seq, Lease)> {
        match claim {
            Which::Held(n) => nth(&self.world.queue.held(), usize::from(n)),
            Which::Any(n) => nth(&self.world.issued, usize::from(n)),
        }
    }

    fn finish(&mut self, tx: &mut Tx<'_>, seq: Seq, lease: Lease, ending: &Ending) -> Result<(), Parted> {
        let asked = self.world.queue.state(seq).map(|state| matches!(state, State::Processing(c) if c.cancel_asked));
        let done = tx.finish(&Token { seq, lease }, ending)?;
        let done = done.map(|done| (done.seq, done.id, done.progress));
        let how = match ending {
            Ending::NotStarted => "given back",
            Ending::Ran(run) => run.outcome.name(),
        };
        let asked_too = if asked == Some(true) { ", cancel asked" } else { "" };
        self.tally.note(
            match (&done, asked) {
                (Some((.., progress)), _) => format!("{how}{asked_too}: {}", progress.state.kind().name()),
                (None, Some(_)) => "late news".to_owned(),
                (None, None) => "late news of what was removed".to_owned(),
            },
            true,
        );
        same("finished", &done, &self.world.queue.finish(seq, lease, ending))
    }

    /// The names that people would type.
    fn names(&self, who: &[Who]) -> Vec<JobId> {
        let queue = &self.world.queue;
        let name = |who: &Who| match *who {
            Who::Named(name) => name.parse().ok(),
            Who::Nth(n) => queue.name(nth(&queue.seqs(), usize::from(n))?).cloned(),
            Who::Held(n) => queue.name(nth(&queue.held(), usize::from(n))?.0).cloned(),
            Who::Ended(n) => {
                let ended = StateKind::ALL.into_iter().filter(|kind| kind.has_ended());
                let ended: Vec<Seq> = ended.flat_map(|kind| queue.listed(kind)).collect();
                queue.name(nth(&ended, usize::from(n))?).cloned()
            }
        };
        who.iter().filter_map(name).collect()
    }

    /// Of each job that a person names: what was asked, in which state, and whether it was refused.
    fn note_asked(&mut self, verb: &str, ids: &[JobId], refused: Option<&Refused>) {
        let queue = &self.world.queue;
        let kinds = ids.iter().filter_map(|id| queue.state(queue.find(id)?)).map(State::kind);
        let events: Vec<String> = match refused {
            None => kinds.map(|kind| format!("{verb}: {}", kind.name())).collect(),
            Some(Refused::State(_, kind)) => vec![format!("{verb} refused: {}", kind.name())],
            Some(Refused::NeedEnded(..)) => vec![format!("{verb} refused: what it needs has ended")],
            Some(Refused::NeededUnseen(_)) => vec![format!("{verb} refused: a bulk needs it")],
            Some(_) => vec![format!("{verb} refused: no such job")],
        };
        for event in events {
            self.tally.note(event, true);
        }
        self.tally.note(format!("{verb}: several"), refused.is_none() && ids.len() > 1);
    }

    fn cancel(&mut self, tx: &mut Tx<'_>, ids: &[JobId]) -> Result<(), Parted> {
        let done = answer(tx.cancel(ids))?;
        let done = done.map(|done| done.into_iter().map(|(id, how)| (id, how == Cancelled::Asked)).collect::<Vec<_>>());
        self.note_asked("cancel", ids, done.as_ref().err());
        same("cancelled", &done, &self.world.queue.cancel(ids))
    }

    fn hold(&mut self, tx: &mut Tx<'_>, ids: &[JobId]) -> Result<(), Parted> {
        let done = answer(tx.hold(ids))?;
        self.note_asked("hold", ids, done.as_ref().err());
        same("held", &done, &self.world.queue.hold(ids))
    }

    fn release(&mut self, tx: &mut Tx<'_>, ids: &[JobId]) -> Result<(), Parted> {
        let done = answer(tx.release(ids))?;
        self.note_asked("release", ids, done.as_ref().err());
        same("released", &done, &self.world.queue.release(ids))
    }

    fn retry(&mut self, tx: &mut Tx<'_>, ids: &[JobId], terms: &Terms) -> Result<(), Parted> {
        let done = answer(tx.retry(ids, terms))?;
        self.note_asked("retry", ids, done.as_ref().err());
        self.tally.note("retried under other terms", done.is_ok() && *terms != Terms::default());
        same("retried", &done, &self.world.queue.retry(ids, terms))
    }

    fn remove(&mut self, tx: &mut Tx<'_>, ids: &[JobId]) -> Result<(), Parted> {
        let done = answer(tx.remove(ids))?;
        self.note_asked("remove", ids, done.as_ref().err());
        self.tally.note("removed with files", done.iter().flatten().any(|job| !job.files.is_empty()));
        let runs = self.world.queue.runs().len();
        same("removed", &done, &self.world.queue.remove(ids))?;
        self.tally.note("removed with its run", self.world.queue.runs().len() < runs);
        Ok(())
    }

    fn clear(&mut self, tx: &mut Tx<'_>, state: StateKind, ago: Duration, limit: usize) -> Result<(), Parted> {
        let (until, runs) = (tx.now().before(ago), self.world.queue.runs().len());
        let mut from = None;
        loop {
            let cleared = tx.clear(state, until, from, limit)?;
            same("cleared", &cleared, &self.world.queue.clear(state, until, from, limit))?;
            self.tally.note(format!("cleared: {}", state.name()), !cleared.removed.is_empty());
            self.tally.note("cleared: a piece after another", from.is_some());
            self.tally.note("not cleared: a run that has not ended", cleared.kept > 0);
            from = cleared.next;
            if from.is_none() {
                break;
            }
        }
        self.tally.note("cleared with its run", self.world.queue.runs().len() < runs);
        Ok(())
    }

    fn edit(&mut self, tx: &mut Tx<'_>, id: &JobId, wished: &Wish, what: u8) -> Result<(), Parted> {
        let wish = &wished.spec();
        let was = answer(tx.editable(id))?;
        let found = self.world.queue.find(id).and_then(|seq| self.world.queue.spec(seq));
        if let (Ok((_, whole)), Some(spec)) = (&was, &found) {
            let (start, needs, if_exists) = (Start::Now, Vec::new(), whole.if_exists);
            same("to be edited", whole, &JobSpec { start, needs, if_exists, ..spec.clone() })?;
        }
        let bit = |n: u8| what >> n & 1 == 1;
        let nothing = found.clone().unwrap_or_else(|| wish.clone());
        let becomes = JobSpec {
            command: if bit(0) { wish.command.clone() } else { nothing.command.clone() },
            queue: if bit(1) { wish.queue.clone() } else { nothing.queue.clone() },
            priority: if bit(2) { wish.priority } else { nothing.priority },
            max_retries: if bit(3) { wish.max_retries } else { nothing.max_retries },
            timeout: if bit(4) { wish.timeout } else { nothing.timeout },
            name: if bit(5) { wish.name.clone() } else { nothing.name.clone() },
            tags: if bit(5) { wish.tags.clone() } else { nothing.tags.clone() },
            ..nothing
        };
        let now = tx.now();
        let due = if bit(6) { Some(wish.start.due(now)) } else { None };
        let (done, due, needs) = match was {
            Err(refused) => (Err(refused), due, None),
            Ok((was, _)) => {
                let wanted = Editable {
                    command: becomes.command.clone(),
                    queue: becomes.queue.clone(),
                    priority: becomes.priority,
                    due: due.unwrap_or(was.due),
                    max_retries: becomes.max_retries,
                    timeout: becomes.timeout,
                    name: becomes.name.clone(),
                    tags: becomes.tags.clone(),
                    needs: if bit(7) { self.needed(wished) } else { was.needs.clone() },
                };
                let changes = wanted.due != was.due;
                let needs = Some(wanted.needs.clone()).filter(|needs| *needs != was.needs);
                (answer(tx.edit(id, &was, &wanted))?.map(drop), due.filter(|_| changes), needs)
            }
        };
        let kind = self.world.queue.find(id).and_then(|seq| self.world.queue.state(seq)).map(State::kind);
        let refused = if done.is_ok() { "" } else { " refused" };
        match done {
            Err(Refused::OfRun(_)) => self.tally.note("edit refused: of a run", true),
            Err(Refused::NeedsLater(_)) => self.tally.note("edit refused: what it needs came later", true),
            Err(Refused::NeedEnded(..)) => self.tally.note("edit refused: what it needs has ended", true),
            Err(Refused::NoSuchJob(_)) => self.tally.note("edit refused: no such job", true),
            Err(Refused::State(_, kind)) if !matches!(kind, StateKind::Completed | StateKind::Processing) => {
                self.tally.note("edit refused: its time, or what it needs", true);
            }
            Ok(()) if needs.is_some() => self.tally.note("edit: what it needs", true),
            _ => self.tally.note(format!("edit{refused}: {}", kind.map_or("no such job", StateKind::name)), true),
        }
        same("edited", &done, &self.world.queue.edit(id, &becomes, due, needs.as_deref()))
    }

    /// Those of the jobs that are to be waited for that are there.
    fn needed(&self, wish: &Wish) -> Vec<Need> {
        let name = |whom: &Whom| match whom {
            Whom::Earlier(_) => None,
            Whom::Any(who) => self.names(std::slice::from_ref(who)).pop(),
        };
        wish.needs.iter().filter_map(|(whom, any)| Some(Need { id: name(whom)?, any: *any })).collect()
    }

    fn sweep(&mut self, tx: &mut Tx<'_>) -> Result<(), Parted> {
        let (mut sweep, mut files, mut removed) = (Sweep::default(), Vec::new(), 0);
        loop {
            let swept = tx.sweep(&mut sweep, self.at)?;
            files.extend(swept.files);
            removed += swept.removed;
            self.tally.note("swept: passed over", swept.kept > 0);
            if swept.is_over {
                break;
            }
        }
        self.tally.note("swept: jobs", removed > 0);
        self.tally.note("swept: nothing", removed == 0);
        same("swept", &(files, removed), &self.world.queue.sweep(self.at))
    }

    /// The name that a pool has now.
    fn pool(&self, pool: u8) -> PoolId {
        pool_name(pool, self.world.births[usize::from(pool)])
    }

    fn register(&mut self, tx: &mut Tx<'_>, pool: u8, again: bool) -> Result<(), Parted> {
        let lives = self.world.queue.pool(&self.pool(pool)).is_none_or(|pool| pool.ended.is_none());
        if !lives && !again {
            self.world.births[usize::from(pool)] += 1;
            self.caches[usize::from(pool)] = ClaimCache::default();
        }
        let info = pool_info(self.pool(pool), self.world.queue.now());
        let done = tx.register(&info)?;
        self.tally.note("registered", done);
        self.tally.note("register refused", !done);
        same("registered", &done, &self.world.queue.register(&info))
    }

    fn retire(&mut self, tx: &mut Tx<'_>, pool: &PoolId, why: &str) -> Result<(), Parted> {
        let done = answer(tx.retire(pool, why))?;
        self.tally.note("retired", done == Ok(true));
        self.tally.note("retire refused", done.is_err());
        same("retired", &done, &self.world.queue.retire(pool, why))
    }

    fn recover(&mut self, tx: &mut Tx<'_>, pool: u8, ends: &[super::workload::End]) -> Result<(), Parted> {
        let pool = self.pool(pool);
        let held: Vec<_> =
            tx.leases(&pool)?.iter().map(|held| (held.token.seq(), held.token.lease(), held.attempt)).collect();
        same("leases", &held, &self.world.queue.leases(&pool))?;
        self.tally.note("recovered", !held.is_empty());
        for (n, (seq, lease, _)) in held.into_iter().enumerate() {
            if let Some(end) = nth(ends, n) {
                self.finish(tx, seq, lease, &end.ending(self.at))?;
            }
        }
        self.retire(tx, &pool, "lost")
    }

    fn start_run(&mut self, tx: &mut Tx<'_>, identity: u8, specs: &[JobSpec], fresh: bool) -> Result<(), Parted> {
        let run = new_run(identity);
        let done = answer(tx.start_run(&run, specs, fresh))?;
        let done = done.map(|start| (matches!(start, RunStart::Continued(_)), start.info().clone()));
        self.tally.note("run began", matches!(done, Ok((false, _))));
        self.tally.note("run went on", matches!(done, Ok((true, _))));
        self.tally.note("run refused", done.is_err());
        same("started", &done, &self.world.queue.start_run(&run, specs, fresh))
    }
}

fn new_run(identity: u8) -> NewRun {
    NewRun {
        identity: u128::from(identity) << 100,
        line: format!("queuectl run {identity}"),
        folder: "/".into(),
        flags: "-j 2".to_owned(),
        is_command: identity == 0,
        // All of them are in one folder.
        resumes: identity == 2,
    }
}

fn handed(claim: Claim) -> Handed {
    let (seq, lease) = (claim.token.seq(), claim.token.lease());
    Handed { seq, lease, id: claim.id, attempt: claim.attempt, work: claim.work }
}

fn pool_name(pool: u8, birth: u32) -> PoolId {
    let name = format!("p{pool}-{birth}");
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a name"))
}

fn pool_info(id: PoolId, now: Millis) -> PoolInfo {
    PoolInfo {
        id,
        pid: 1,
        boot_id: 2,
        pid_namespace: 3,
        nonce: 4,
        file: (5, 6),
        started: now,
        workers: 2,
        serves: Serves::AllQueues,
        asked: Asked::Work,
        log: None,
        ended: None,
    }
}
