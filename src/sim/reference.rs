//! What the queue should do, over plain maps: slow, obvious, and without the store's code.
//!
//! A transaction is a clone that is thrown away or kept: [`Reference::begin`], verbs, [`Reference::commit`].

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Attempt, CancelReason, Claimed, DeadReason, ENDED_POOLS_KEPT, Ending, Job, JobId, JobSpec, Kept, LaneId, Lease,
    Millis, Outcome, PoolId, Progress, QueueName, Run, Seq, SettingKey, Settings, Start, State, StateKind, Stream,
    WorkerId,
};
use crate::store::{Asked, BulkInfo, NewRun, PoolInfo, QueueInfo, Removed, RunInfo, Serves, Terms, Unpublished, Work};

/// Why the queue refuses something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The id is taken.
    Duplicate(JobId),
    /// The id is that of a job which is not published.
    Reserved(JobId),
    /// There is no such bulk, or it has no such queue.
    Bulk,
    /// There is no such job.
    NoSuchJob(JobId),
    /// The job's state does not allow it.
    State(JobId, StateKind),
    /// The setting does not take the value.
    Value(SettingKey),
    /// The pool has ended, was never there, or still holds jobs.
    Pool,
}

/// A job handed out by a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Handed {
    /// The job.
    pub seq: Seq,
    /// The lease that it is held under.
    pub lease: Lease,
    /// What the job is called.
    pub id: JobId,
    /// The number of the run.
    pub attempt: u32,
    /// What is run and how.
    pub work: Work,
}

#[derive(Debug, Clone)]
struct RefJob {
    name: JobId,
    /// Whether its user gave the name.
    named: bool,
    spec: JobSpec,
    lane: LaneId,
    created: Millis,
    updated: Millis,
    state: State,
    failures: u32,
    losses: u32,
    history: Vec<(PoolId, Run)>,
}

#[derive(Debug, Clone)]
enum Lane {
    Queue(QueueName),
    Run { number: u64, run: NewRun, created: Millis },
}

/// Jobs that nobody sees yet.
#[derive(Debug, Clone)]
struct RefBulk {
    maker: String,
    /// None for a run.
    queues: Option<Vec<QueueName>>,
    /// The first of its lanes has its own number, the others the next ones.
    first_lane: u64,
    /// First and last of the numbers set aside.
    ranges: Vec<(u64, u64)>,
    next: u64,
    jobs: BTreeMap<Seq, RefJob>,
    /// Those of them that do not have their ids yet.
    unnamed: BTreeSet<Seq>,
}

/// Which waiting processes a transaction woke.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rung {
    /// Those that wait for jobs.
    pub work: bool,
    /// Those that wait to be told something.
    pub control: bool,
}

/// The queue as it should be.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    newest: Millis,
    now: Millis,
    changed: bool,
    rung: Rung,
    last_seq: u64,
    last_lease: u64,
    last_lane: u64,
    last_run: u64,
    lanes: BTreeMap<LaneId, Lane>,
    jobs: BTreeMap<Seq, RefJob>,
    bulks: BTreeMap<u64, RefBulk>,
    pools: BTreeMap<PoolId, PoolInfo>,
    settings: BTreeMap<(Option<QueueName>, SettingKey), String>,
    /// The queue that each pool was served from last.
    turns: BTreeMap<PoolId, QueueName>,
}

impl Reference {
    /// Begins a transaction: time does not go back.
    pub fn begin(&mut self, now: Millis) {
        self.now = now.max(self.newest);
        self.changed = false;
        self.rung = Rung::default();
    }

    /// Ends it: its time becomes the newest if it changed anything.
    pub fn commit(&mut self) {
        if self.changed {
            self.newest = self.now;
        }
    }

    /// The time of the transaction.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// The last numbers that were given: of a job, a lease, a lane, a run.
    pub fn given(&self) -> [u64; 4] {
        [self.last_seq, self.last_lease, self.last_lane, self.last_run]
    }

    /// The newest time of any change.
    pub fn newest(&self) -> Millis {
        self.newest
    }

    /// Whether the transaction changed anything.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Whom it woke.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// As if every pool claimed for the first time.
    pub fn forget_turns(&mut self) {
        self.turns.clear();
    }

    // ---- names and numbers

    /// The job of a name.
    pub fn find(&self, id: &JobId) -> Option<Seq> {
        self.jobs.iter().find(|(_, job)| job.name == *id).map(|(seq, _)| *seq)
    }

    /// Whether a job that is not published has this name.
    fn is_reserved(&self, id: &JobId) -> bool {
        let named = |bulk: &RefBulk| bulk.jobs.iter().any(|(seq, job)| job.name == *id && !bulk.unnamed.contains(seq));
        self.bulks.values().any(named)
    }

    /// Refuses the name of any job.
    fn refuse_taken(&self, id: &JobId) -> Result<(), Refused> {
        match self.find(id) {
            Some(_) => Err(Refused::Duplicate(id.clone())),
            None if self.is_reserved(id) => Err(Refused::Reserved(id.clone())),
            None => Ok(()),
        }
    }

    /// A number that is nobody's name and not in `wanted`.
    fn number(&mut self, wanted: &BTreeSet<&JobId>) -> Seq {
        loop {
            self.last_seq += 1;
            let name = JobId::from(Seq(self.last_seq));
            if self.refuse_taken(&name).is_ok() && !wanted.contains(&name) {
                return Seq(self.last_seq);
            }
        }
    }

    fn find_all(&self, ids: &[JobId]) -> Result<Vec<Seq>, Refused> {
        let mut found = Vec::new();
        for id in ids {
            let seq = self.find(id).ok_or_else(|| Refused::NoSuchJob(id.clone()))?;
            if !found.contains(&seq) {
                found.push(seq);
            }
        }
        Ok(found)
    }

    // ---- enqueue, runs

    /// Enqueues all, or none.
    pub fn enqueue(&mut self, specs: &[JobSpec]) -> Result<Vec<(Seq, JobId)>, Refused> {
        let wanted = distinct(specs)?;
        given(specs).try_for_each(|id| self.refuse_taken(id))?;
        Ok(specs
            .iter()
            .map(|spec| {
                let lane = self.queue_lane(&spec.queue);
                self.add(spec, lane, &wanted)
            })
            .collect())
    }

    fn add(&mut self, spec: &JobSpec, lane: LaneId, wanted: &BTreeSet<&JobId>) -> (Seq, JobId) {
        let seq = self.number(if spec.id.is_some() { &EMPTY } else { wanted });
        let job = self.new_job(seq, spec, lane);
        let name = job.name.clone();
        self.jobs.insert(seq, job);
        self.changed = true;
        self.rung.work = true;
        (seq, name)
    }

    fn new_job(&self, seq: Seq, spec: &JobSpec, lane: LaneId) -> RefJob {
        let due = match spec.start {
            Start::Now => self.now,
            Start::At(time) => time,
            Start::After(delay) => self.now.after(delay),
        };
        let state = if due > self.now { State::Scheduled { due } } else { State::Pending };
        RefJob {
            name: spec.id.clone().unwrap_or_else(|| JobId::from(seq)),
            named: spec.id.is_some(),
            spec: spec.clone(),
            lane,
            created: self.now,
            updated: self.now,
            state,
            failures: 0,
            losses: 0,
            history: Vec::new(),
        }
    }

    fn queue_lane(&mut self, queue: &QueueName) -> LaneId {
        let known = self.lanes.iter().find(|(_, lane)| matches!(lane, Lane::Queue(name) if name == queue));
        match known.map(|(id, _)| *id) {
            Some(id) => id,
            None => self.add_lane(Lane::Queue(queue.clone())),
        }
    }

    fn add_lane(&mut self, lane: Lane) -> LaneId {
        self.last_lane += 1;
        let id = LaneId(self.last_lane);
        self.lanes.insert(id, lane);
        self.changed = true;
        id
    }

    /// Continues the newest run of the identity that was cut off, else begins one. Says whether it continued.
    pub fn start_run(&mut self, run: &NewRun, specs: &[JobSpec], fresh: bool) -> Result<(bool, RunInfo), Refused> {
        let same = |lane: &Lane| matches!(lane, Lane::Run { run: other, .. } if other.identity == run.identity);
        if let Some(info) = self.cut_off(run.identity).filter(|_| !fresh) {
            return Ok((true, info));
        }
        let wanted = distinct(specs)?;
        for id in given(specs) {
            let Some(owner) = self.find(id) else {
                self.refuse_taken(id)?;
                continue;
            };
            let job = &self.jobs[&owner];
            if !job.named || !job.state.kind().has_ended() || !self.lanes.get(&job.lane).is_some_and(same) {
                return Err(Refused::Duplicate(id.clone()));
            }
        }
        for id in given(specs) {
            self.take_name(id, &wanted);
        }
        self.last_run += 1;
        let number = self.last_run;
        let lane = self.add_lane(Lane::Run { number, run: run.clone(), created: self.now });
        for spec in specs {
            self.add(spec, lane, &wanted);
        }
        let info = self.run(lane).unwrap_or_else(|| unreachable!("the run was just begun"));
        Ok((false, info))
    }

    /// The newest run of an identity that was cut off.
    pub fn cut_off(&self, identity: u128) -> Option<RunInfo> {
        let same = |lane: &Lane| matches!(lane, Lane::Run { run, .. } if run.identity == identity);
        let mut runs = self.lanes.iter().rev().filter(|(_, lane)| same(lane)).filter_map(|(id, _)| self.run(*id));
        runs.find(|info| info.unfinished() > 0)
    }

    /// The job that was called `id` goes by its number, or by another if that is somebody's name.
    fn take_name(&mut self, id: &JobId, wanted: &BTreeSet<&JobId>) {
        let Some(seq) = self.find(id) else { return };
        let own = JobId::from(seq);
        let free = !wanted.contains(&own)
            && !self.is_reserved(&own)
            && self.find(&own).is_none_or(|owner| owner == seq && own != *id);
        let name = if free {
            own
        } else {
            // The name that is given up is free for others, but is wanted here.
            JobId::from(self.number(wanted))
        };
        if let Some(job) = self.jobs.get_mut(&seq) {
            job.named = name != JobId::from(seq);
            job.name = name;
        }
    }

    // ---- bulks

    /// Begins a bulk for these queues, or for a run. Answers its number.
    pub fn begin_bulk(&mut self, maker: &str, queues: Option<Vec<QueueName>>, jobs: u64) -> u64 {
        let first_lane = self.last_lane + 1;
        self.last_lane += queues.as_ref().map_or(1, |queues| queues.len() as u64);
        let mut bulk = RefBulk {
            maker: maker.to_owned(),
            queues,
            first_lane,
            ranges: Vec::new(),
            next: 0,
            jobs: BTreeMap::new(),
            unnamed: BTreeSet::new(),
        };
        if jobs > 0 {
            self.set_aside(&mut bulk, jobs);
        }
        self.bulks.insert(first_lane, bulk);
        self.changed = true;
        first_lane
    }

    fn set_aside(&mut self, bulk: &mut RefBulk, count: u64) {
        let range = (self.last_seq + 1, self.last_seq + count);
        self.last_seq += count;
        bulk.next = range.0;
        match bulk.ranges.last_mut() {
            Some(last) if last.1 + 1 == range.0 => last.1 = range.1,
            Some(_) | None => bulk.ranges.push(range),
        }
    }

    /// Adds jobs that nobody sees, all or none. Their ids are not taken yet.
    pub fn fill_bulk(&mut self, number: u64, specs: &[JobSpec]) -> Result<Vec<(Seq, JobId)>, Refused> {
        let wanted: BTreeSet<&JobId> = given(specs).collect();
        wanted.iter().try_for_each(|id| self.refuse_taken(id))?;
        let mut bulk = self.bulks.get(&number).cloned().ok_or(Refused::Bulk)?;
        let lane_of = |bulk: &RefBulk, spec: &JobSpec| match &bulk.queues {
            None => Some(LaneId(number)),
            Some(queues) => {
                (number..).zip(queues).find(|(_, queue)| **queue == spec.queue).map(|(lane, _)| LaneId(lane))
            }
        };
        let lanes: Option<Vec<LaneId>> = specs.iter().map(|spec| lane_of(&bulk, spec)).collect();
        let mut filled = Vec::new();
        for (n, (spec, lane)) in specs.iter().zip(lanes.ok_or(Refused::Bulk)?).enumerate() {
            let seq = loop {
                if bulk.ranges.last().is_none_or(|(_, last)| bulk.next > *last) {
                    self.set_aside(&mut bulk, (specs.len() - n) as u64);
                }
                let seq = Seq(bulk.next);
                bulk.next += 1;
                let own = JobId::from(seq);
                if spec.id.is_some() || self.refuse_taken(&own).is_ok() && !wanted.contains(&own) {
                    break seq;
                }
            };
            let job = self.new_job(seq, spec, lane);
            filled.push((seq, job.name.clone()));
            bulk.jobs.insert(seq, job);
            bulk.unnamed.extend(spec.id.is_some().then_some(seq));
        }
        self.bulks.insert(number, bulk);
        self.changed = true;
        Ok(filled)
    }

    /// The jobs of a bulk that do not have their ids yet, in the order of these.
    pub fn unnamed(&self, number: u64) -> Vec<(JobId, Seq)> {
        let Some(bulk) = self.bulks.get(&number) else { return Vec::new() };
        let mut names: Vec<_> = bulk.unnamed.iter().map(|seq| (bulk.jobs[seq].name.clone(), *seq)).collect();
        names.sort();
        names
    }

    /// Jobs of a bulk get their ids, all or none. `names` are in order.
    pub fn name_bulk(&mut self, number: u64, names: &[(JobId, Seq)]) -> Result<(), Refused> {
        if let Some(two) = names.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(Refused::Duplicate(two[1].0.clone()));
        }
        names.iter().try_for_each(|(id, _)| self.refuse_taken(id))?;
        let bulk = self.bulks.get_mut(&number).ok_or(Refused::Bulk)?;
        bulk.unnamed.retain(|seq| names.iter().all(|(_, named)| named != seq));
        self.changed = true;
        Ok(())
    }

    /// A bulk to be published.
    fn take_bulk(&mut self, number: u64) -> Result<RefBulk, Refused> {
        if self.bulks.get(&number).is_none_or(|bulk| !bulk.unnamed.is_empty()) {
            return Err(Refused::Bulk);
        }
        self.bulks.remove(&number).ok_or(Refused::Bulk)
    }

    /// All jobs of a bulk appear. Answers how many.
    pub fn publish_bulk(&mut self, number: u64) -> Result<u64, Refused> {
        let bulk = self.take_bulk(number)?;
        for (lane, queue) in (bulk.first_lane..).zip(bulk.queues.into_iter().flatten()) {
            if bulk.jobs.values().any(|job| job.lane == LaneId(lane)) {
                self.lanes.insert(LaneId(lane), Lane::Queue(queue));
            }
        }
        let jobs = bulk.jobs.len() as u64;
        self.jobs.extend(bulk.jobs);
        (self.changed, self.rung.work) = (true, true);
        Ok(jobs)
    }

    /// The same as a run, unless one is continued. Says whether it was.
    pub fn publish_run(&mut self, number: u64, run: &NewRun, fresh: bool) -> Result<(bool, RunInfo), Refused> {
        if let Some(info) = self.cut_off(run.identity).filter(|_| !fresh) {
            return Ok((true, info));
        }
        let bulk = self.take_bulk(number)?;
        self.last_run += 1;
        let lane = Lane::Run { number: self.last_run, run: run.clone(), created: self.now };
        self.lanes.insert(LaneId(number), lane);
        self.jobs.extend(bulk.jobs);
        (self.changed, self.rung.work) = (true, true);
        let info = self.run(LaneId(number)).unwrap_or_else(|| unreachable!("the run was just begun"));
        Ok((false, info))
    }

    /// Takes up to `limit` jobs of a bulk away, those of the lowest numbers, and with the last the bulk. Says whether
    /// it is gone.
    pub fn undo_bulk(&mut self, number: u64, limit: usize) -> bool {
        let Some(bulk) = self.bulks.get_mut(&number) else { return true };
        self.changed = true;
        let mut left = limit;
        while let Some((first, last)) = bulk.ranges.first().copied() {
            let taken: Vec<Seq> = bulk.jobs.range(Seq(first)..=Seq(last)).map(|(seq, _)| *seq).take(left).collect();
            left -= taken.len();
            bulk.jobs.retain(|seq, _| !taken.contains(seq));
            bulk.unnamed.retain(|seq| !taken.contains(seq));
            if left == 0 {
                bulk.ranges[0].0 = taken.last().map_or(first, |seq| seq.0 + 1);
                bulk.ranges.retain(|(first, last)| first <= last);
                break;
            }
            bulk.ranges.remove(0);
        }
        let is_over = bulk.ranges.is_empty();
        if is_over {
            self.bulks.remove(&number);
        }
        is_over
    }

    /// The bulks under way, with their makers.
    pub fn bulks(&self) -> Vec<BulkInfo> {
        self.bulks.iter().map(|(number, bulk)| BulkInfo { number: *number, maker: bulk.maker.clone() }).collect()
    }

    /// The bulks under way, to the last number.
    pub fn unpublished(&self) -> Vec<Unpublished> {
        let one = |(number, bulk): (&u64, &RefBulk)| {
            let (seqs, unnamed) = (bulk.jobs.keys().copied().collect(), bulk.unnamed.len() as u64);
            (*number, bulk.ranges.clone(), bulk.next, seqs, unnamed)
        };
        self.bulks.iter().map(one).collect()
    }

    /// Whether a bulk is to be a run.
    pub fn is_run(&self, bulk: u64) -> bool {
        self.bulks.get(&bulk).is_some_and(|bulk| bulk.queues.is_none())
    }

    // ---- claims

    /// Takes up to `limit` jobs: queues in turn, in each the highest priority and then the oldest.
    pub fn claim(&mut self, pool: &PoolId, serves: &Serves, limit: usize) -> Result<Vec<Handed>, Refused> {
        if self.pools.get(pool).is_none_or(|pool| pool.ended.is_some()) {
            return Err(Refused::Pool);
        }
        let mut handed = Vec::new();
        while handed.len() < limit {
            let Some(seq) = self.next_in_turn(pool, serves) else { break };
            handed.push(self.hand_out(seq, pool));
        }
        Ok(handed)
    }

    fn next_in_turn(&mut self, pool: &PoolId, serves: &Serves) -> Option<Seq> {
        let full = if matches!(serves, Serves::Run(_)) { BTreeSet::new() } else { self.full() };
        // The first of each queue: the smallest of what sorts the highest priority first.
        let mut heads: BTreeMap<QueueName, (i16, Seq)> = BTreeMap::new();
        for (seq, job) in &self.jobs {
            if job.state == State::Pending && self.served(job.lane, serves) && !full.contains(&self.queue_of(job)) {
                let place = (-i16::from(job.spec.priority), *seq);
                let head = heads.entry(self.queue_of(job)).or_insert(place);
                *head = place.min(*head);
            }
        }
        let last = self.turns.get(pool);
        let after = heads.keys().find(|queue| last.is_some_and(|last| *queue > last));
        let queue = after.or_else(|| heads.keys().next())?.clone();
        let (_, seq) = heads[&queue];
        self.turns.insert(pool.clone(), queue);
        Some(seq)
    }

    /// The queues of which nothing may be claimed now: paused, or with as many processed as they may have.
    fn full(&self) -> BTreeSet<QueueName> {
        let is_full = |info: &QueueInfo| {
            let held = info.counts.get(&StateKind::Processing).copied().unwrap_or_default();
            info.paused || info.parallel.is_some_and(|limit| held >= u64::from(limit))
        };
        self.queues().into_iter().filter(is_full).map(|info| info.name).collect()
    }

    /// Whether jobs of these wait only for the limit of their queue.
    pub fn holds_back(&self, serves: &Serves) -> bool {
        if matches!(serves, Serves::Run(_)) {
            return false;
        }
        let count = |info: &QueueInfo, kind| info.counts.get(&kind).copied().unwrap_or_default();
        self.queues().iter().filter(|info| serves.queue(info.name.as_str()) && !info.paused).any(|info| {
            let is_full = |most| count(info, StateKind::Processing) >= u64::from(most);
            info.parallel.is_some_and(is_full) && count(info, StateKind::Pending) > 0
        })
    }

    fn served(&self, lane: LaneId, serves: &Serves) -> bool {
        match (self.lanes.get(&lane), serves) {
            (Some(Lane::Queue(_)), Serves::AllQueues) => true,
            (Some(Lane::Queue(name)), Serves::Queues(names)) => names.contains(name),
            (Some(Lane::Run { .. }), Serves::Run(run)) => lane == *run,
            (Some(Lane::Run { .. }), Serves::AllQueues | Serves::Queues(_))
            | (Some(Lane::Queue(_)), Serves::Run(_))
            | (None, _) => false,
        }
    }

    fn queue_of(&self, job: &RefJob) -> QueueName {
        match self.lanes.get(&job.lane) {
            Some(Lane::Queue(name)) => name.clone(),
            Some(Lane::Run { .. }) | None => QueueName::default_queue(),
        }
    }

    fn hand_out(&mut self, seq: Seq, pool: &PoolId) -> Handed {
        self.last_lease += 1;
        let lease = Lease(self.last_lease);
        let claimed = Claimed { lease, pool: pool.clone(), at: self.now, cancel_asked: false };
        self.put(seq, State::Processing(claimed));
        let job = &self.jobs[&seq];
        let settings = self.settings(Some(&self.queue_of(job)));
        Handed {
            seq,
            lease,
            id: job.name.clone(),
            attempt: attempts(job) + 1,
            work: Work {
                command: job.spec.command.clone(),
                cwd: job.spec.cwd.clone(),
                env: job.spec.env.clone(),
                env_change: job.spec.env_change.clone(),
                timeout: job.spec.timeout.unwrap_or(settings.timeout),
                own_timeout: job.spec.timeout.is_some(),
                kill_grace: settings.kill_grace,
                output_limit: settings.output_limit,
                shell: job.spec.shell.clone().unwrap_or(settings.shell),
            },
        }
    }

    /// Takes the news of how a claim ended; `None` if it is late.
    pub fn finish(&mut self, seq: Seq, lease: Lease, ending: &Ending) -> Option<(Seq, JobId, Progress)> {
        let job = self.jobs.get(&seq)?;
        let State::Processing(claimed) = job.state.clone() else { return None };
        if claimed.lease != lease {
            return None;
        }
        let state = match ending {
            Ending::NotStarted if claimed.cancel_asked => self.cancelled(),
            Ending::NotStarted => State::Pending,
            Ending::Ran(run) => self.after_run(seq, run, &claimed),
        };
        self.put(seq, state);
        let job = &self.jobs[&seq];
        self.rung.work |= self.settings(Some(&self.queue_of(job))).parallel.is_some();
        Some((seq, job.name.clone(), progress(job)))
    }

    fn after_run(&mut self, seq: Seq, run: &Run, claimed: &Claimed) -> State {
        let (now, cancelled) = (self.now, self.cancelled());
        let Some(queue) = self.jobs.get(&seq).map(|job| self.queue_of(job)) else { return cancelled };
        let settings = self.settings(Some(&queue));
        let Some(job) = self.jobs.get_mut(&seq) else { return cancelled };
        job.history.push((claimed.pool.clone(), run.clone()));
        let failed = |job: &mut RefJob, reason| {
            job.failures += 1;
            let allowed = job.spec.max_retries.unwrap_or(settings.max_retries);
            let base = job.spec.backoff_base.unwrap_or(settings.backoff_base);
            if job.failures > allowed {
                return State::Dead { at: now, reason, allowed };
            }
            let wait = delay_ms(base, job.failures, settings.max_backoff.as_millis());
            State::Failed { due: Millis(run.ended.0.saturating_add(wait)), allowed }
        };
        match (run.outcome, claimed.cancel_asked) {
            (Outcome::Completed, _) => State::Completed { at: now },
            (Outcome::Cancelled, _) | (_, true) => cancelled,
            (Outcome::Failed, false) => failed(job, DeadReason::Failed),
            (Outcome::TimedOut, false) => failed(job, DeadReason::TimedOut),
            (Outcome::Interrupted, false) => State::Pending,
            (Outcome::Lost, false) if !run.counts_as_loss => State::Pending,
            (Outcome::Lost, false) => {
                job.losses += 1;
                let allowed = settings.max_losses;
                let too_often = allowed != 0 && job.losses >= allowed;
                if too_often { State::Dead { at: now, reason: DeadReason::Lost, allowed } } else { State::Pending }
            }
        }
    }

    fn cancelled(&self) -> State {
        State::Cancelled { at: self.now, reason: CancelReason::Asked }
    }

    /// Puts a job into a state.
    fn put(&mut self, seq: Seq, state: State) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let arrived = job.state != state;
        let waits = matches!(state, State::Pending | State::Scheduled { .. } | State::Failed { .. });
        job.state = state;
        job.updated = self.now;
        self.changed = true;
        self.rung.work |= arrived && waits;
    }

    /// What waits for a time that has come becomes ready, the earliest first.
    pub fn promote_due(&mut self, limit: usize) -> usize {
        let mut due: Vec<(Millis, Seq)> = self.waiting().into_iter().filter(|(due, _)| *due <= self.now).collect();
        due.truncate(limit);
        for (_, seq) in &due {
            self.put(*seq, State::Pending);
        }
        due.len()
    }

    /// What waits for its time, in that order.
    fn waiting(&self) -> Vec<(Millis, Seq)> {
        let mut waiting: Vec<_> = self.jobs.iter().filter_map(|(seq, job)| Some((due_of(&job.state)?, *seq))).collect();
        waiting.sort_unstable();
        waiting
    }

    /// Where those are whose time has come, the earliest first.
    pub fn kinds_due(&self) -> Vec<StateKind> {
        let due = self.waiting().into_iter().filter(|(due, _)| *due <= self.now);
        due.filter_map(|(_, seq)| self.state(seq).map(State::kind)).collect()
    }

    /// When the next job becomes ready by itself.
    pub fn next_due(&self) -> Option<Millis> {
        self.waiting().first().map(|(due, _)| *due)
    }

    // ---- what a person asks

    /// Cancels all, or none. Says of each whether it runs, so that its pool has to end it.
    pub fn cancel(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, bool)>, Refused> {
        let seqs = self.find_all(ids)?;
        self.refuse(&seqs, StateKind::has_ended)?;
        let mut done = Vec::new();
        for seq in seqs {
            let (state, runs) = match self.jobs[&seq].state.clone() {
                State::Processing(claimed) => (State::Processing(Claimed { cancel_asked: true, ..claimed }), true),
                _ => (self.cancelled(), false),
            };
            self.put(seq, state);
            self.rung.control |= runs;
            done.push((self.jobs[&seq].name.clone(), runs));
        }
        Ok(done)
    }

    /// Gives all a fresh set of attempts under these terms, or none.
    pub fn retry(&mut self, ids: &[JobId], terms: &Terms) -> Result<Vec<(JobId, LaneId)>, Refused> {
        let seqs = self.find_all(ids)?;
        self.refuse(&seqs, |kind| !kind.has_ended())?;
        let mut done = Vec::new();
        for seq in seqs {
            self.put(seq, State::Pending);
            if let Some(job) = self.jobs.get_mut(&seq) {
                (job.failures, job.losses) = (0, 0);
                job.spec.max_retries = terms.max_retries.or(job.spec.max_retries);
                job.spec.timeout = terms.timeout.or(job.spec.timeout);
                done.push((job.name.clone(), job.lane));
            }
        }
        Ok(done)
    }

    /// Removes all, which must have ended, or none. Says of each which of its outputs are in files.
    pub fn remove(&mut self, ids: &[JobId]) -> Result<Vec<Removed>, Refused> {
        let seqs = self.find_all(ids)?;
        self.refuse(&seqs, |kind| !kind.has_ended())?;
        let mut gone = Vec::new();
        for seq in seqs {
            let Some(job) = self.jobs.remove(&seq) else { continue };
            let outputs = (1..).zip(&job.history).flat_map(|(number, (_, run))| {
                [(number, Stream::Stdout, &run.stdout), (number, Stream::Stderr, &run.stderr)]
            });
            let files = outputs.filter(|(.., kept)| matches!(kept, Kept::File { .. }));
            gone.push(Removed {
                id: job.name,
                seq,
                files: files.map(|(number, stream, _)| (number, stream)).collect(),
            });
            let is_run = matches!(self.lanes.get(&job.lane), Some(Lane::Run { .. }));
            if is_run && !self.jobs.values().any(|other| other.lane == job.lane) {
                self.lanes.remove(&job.lane);
            }
            self.changed = true;
        }
        Ok(gone)
    }

    fn refuse(&self, seqs: &[Seq], wrong: impl Fn(StateKind) -> bool) -> Result<(), Refused> {
        let jobs = seqs.iter().map(|seq| &self.jobs[seq]);
        match jobs.into_iter().find(|job| wrong(job.state.kind())) {
            Some(job) => Err(Refused::State(job.name.clone(), job.state.kind())),
            None => Ok(()),
        }
    }

    /// Sets a setting of a queue, or of all that have no value of their own, or refuses the value.
    pub fn set(&mut self, queue: Option<QueueName>, key: SettingKey, text: &str) -> Result<(), Refused> {
        let mut settings = Settings::default();
        settings.set(key, text).map_err(|_| Refused::Value(key))?;
        self.settings.insert((queue, key), settings.get(key));
        self.rung.work |= lets_in(key);
        self.changed = true;
        Ok(())
    }

    /// Lets a setting follow what all queues have, or its default. Says whether it was set.
    pub fn unset(&mut self, queue: Option<QueueName>, key: SettingKey) -> bool {
        let was = self.settings.remove(&(queue, key)).is_some();
        self.rung.work |= was && lets_in(key);
        self.changed |= was;
        was
    }

    // ---- pools

    /// Registers a pool. Says whether its name was free.
    pub fn register(&mut self, pool: &PoolInfo) -> bool {
        let free = !self.pools.contains_key(&pool.id);
        if free {
            self.pools.insert(pool.id.clone(), pool.clone());
            self.changed = true;
        }
        free
    }

    /// Asks a pool to stop. Says whether that was news.
    pub fn ask(&mut self, pool: &PoolId, asked: Asked) -> bool {
        let Some(pool) = self.pools.get_mut(pool) else { return false };
        let news = pool.ended.is_none() && pool.asked < asked;
        if news {
            pool.asked = asked;
            self.changed = true;
            self.rung.control = true;
        }
        news
    }

    /// What a pool holds: the job, its lease, the number of its run.
    pub fn leases(&self, pool: &PoolId) -> Vec<(Seq, Lease, u32)> {
        let held = |(seq, job): (&Seq, &RefJob)| match &job.state {
            State::Processing(claimed) if claimed.pool == *pool => Some((*seq, claimed.lease, attempts(job) + 1)),
            _ => None,
        };
        self.jobs.iter().filter_map(held).collect()
    }

    /// All leases, by the age of their jobs.
    pub fn held(&self) -> Vec<(Seq, Lease)> {
        let held = |(seq, job): (&Seq, &RefJob)| match &job.state {
            State::Processing(claimed) => Some((*seq, claimed.lease)),
            _ => None,
        };
        self.jobs.iter().filter_map(held).collect()
    }

    /// Which of its jobs a pool should end.
    pub fn cancels_asked(&self, pool: &PoolId) -> Vec<Seq> {
        let asked = |job: &RefJob| matches!(&job.state, State::Processing(c) if c.cancel_asked && c.pool == *pool);
        self.jobs.iter().filter(|(_, job)| asked(job)).map(|(seq, _)| *seq).collect()
    }

    /// Ends a pool that holds nothing. Says whether it was there.
    pub fn retire(&mut self, id: &PoolId, why: &str) -> Result<bool, Refused> {
        if self.pools.get(id).is_none_or(|pool| pool.ended.is_some()) {
            return Ok(false);
        }
        if !self.leases(id).is_empty() {
            return Err(Refused::Pool);
        }
        if let Some(pool) = self.pools.get_mut(id) {
            pool.ended = Some((self.now, why.to_owned()));
        }
        self.changed = true;
        let mut ended: Vec<(Millis, PoolId)> =
            self.pools.values().filter_map(|pool| Some((pool.ended.as_ref()?.0, pool.id.clone()))).collect();
        ended.sort_unstable();
        for (_, old) in ended.iter().rev().skip(ENDED_POOLS_KEPT) {
            self.pools.remove(old);
        }
        Ok(true)
    }

    // ---- looking

    /// All pools.
    pub fn pools(&self) -> Vec<PoolInfo> {
        self.pools.values().cloned().collect()
    }

    /// A pool's row.
    pub fn pool(&self, id: &PoolId) -> Option<&PoolInfo> {
        self.pools.get(id)
    }

    /// Takes every value of a setting away. Says where it had one.
    pub fn unset_everywhere(&mut self, key: SettingKey) -> Vec<Option<QueueName>> {
        let scopes: Vec<_> =
            self.settings.keys().filter(|(_, set)| *set == key).map(|(scope, _)| scope.clone()).collect();
        for scope in &scopes {
            self.unset(scope.clone(), key);
        }
        scopes
    }

    /// What the settings say for a queue, or for one without settings of its own.
    pub fn settings(&self, queue: Option<&QueueName>) -> Settings {
        let mut settings = Settings::default();
        for scope in [None, queue] {
            for ((_, key), text) in self.settings.iter().filter(|((set, _), _)| set.as_ref() == scope) {
                // Only what was taken is kept.
                let _ = settings.set(*key, text);
            }
        }
        settings
    }

    /// Which settings of a queue, or of all queues, are set, by name.
    pub fn settings_set(&self, queue: Option<&QueueName>) -> Vec<SettingKey> {
        let own = self.settings.keys().filter(|(scope, _)| scope.as_ref() == queue);
        let mut set: Vec<SettingKey> = own.map(|(_, key)| *key).collect();
        set.sort_unstable_by_key(|key| key.name());
        set
    }

    /// The numbers of all jobs, the oldest first.
    pub fn seqs(&self) -> Vec<Seq> {
        self.jobs.keys().copied().collect()
    }

    /// Where a job is.
    pub fn state(&self, seq: Seq) -> Option<&State> {
        self.jobs.get(&seq).map(|job| &job.state)
    }

    /// What a job is called.
    pub fn name(&self, seq: Seq) -> Option<&JobId> {
        self.jobs.get(&seq).map(|job| &job.name)
    }

    /// All jobs as they show, the newest first.
    pub fn all(&self) -> Vec<Job> {
        let mut retries = BTreeMap::new();
        let shown = |(seq, job): (&Seq, &RefJob)| {
            let queue = self.queue_of(job);
            let retries = retries.entry(queue).or_insert_with_key(|queue| self.settings(Some(queue)).max_retries);
            self.shown(*seq, job, *retries)
        };
        self.jobs.iter().rev().map(shown).collect()
    }

    /// The jobs with this tag, and those with this name, the newest first.
    pub fn labelled(&self, tag: (&str, &str), name: &str) -> [Vec<Seq>; 2] {
        let with = |fits: &dyn Fn(&JobSpec) -> bool| {
            self.jobs.iter().rev().filter(|(_, job)| fits(&job.spec)).map(|(seq, _)| *seq).collect()
        };
        let named = |spec: &JobSpec| spec.name.as_ref().is_some_and(|own| own.as_str() == name);
        [with(&|spec| spec.tags.get(tag.0) == Some(tag.1)), with(&named)]
    }

    /// The number of the run that a job is part of, if it is.
    pub fn run_number(&self, seq: Seq) -> Option<u64> {
        match self.lanes.get(&self.jobs.get(&seq)?.lane)? {
            Lane::Run { number, .. } => Some(*number),
            Lane::Queue(_) => None,
        }
    }

    fn shown(&self, seq: Seq, job: &RefJob, retries: u32) -> Job {
        Job {
            seq,
            id: job.name.clone(),
            name: job.spec.name.clone(),
            tags: job.spec.tags.clone(),
            priority: job.spec.priority,
            command: job.spec.command.clone(),
            cwd: job.spec.cwd.clone(),
            queue: self.queue_of(job),
            run: self.run_number(seq),
            progress: progress(job),
            max_retries: job.spec.max_retries.unwrap_or(retries),
            created: job.created,
            updated: job.updated,
            last_attempt: self.attempts(seq).pop(),
        }
    }

    /// A job's runs.
    pub fn attempts(&self, seq: Seq) -> Vec<Attempt> {
        let history = self.jobs.get(&seq).map(|job| job.history.as_slice()).unwrap_or_default();
        let attempt = |(number, (pool, run)): (u32, &(PoolId, Run))| Attempt {
            number,
            worker: WorkerId { pool: pool.clone(), slot: run.slot },
            started: run.started,
            ended: run.ended.max(run.started),
            outcome: run.outcome,
            exit_code: run.exit_code,
            signal: run.signal,
            cpu: run.cpu,
            max_rss_bytes: run.max_rss_bytes,
            error: run.error.clone(),
        };
        (1..).zip(history).map(attempt).collect()
    }

    /// What a job's runs wrote.
    pub fn runs_of(&self, seq: Seq) -> Vec<&Run> {
        self.jobs.get(&seq).map(|job| job.history.iter().map(|(_, run)| run).collect()).unwrap_or_default()
    }

    /// How many jobs are in each state.
    pub fn counts(&self) -> BTreeMap<StateKind, u64> {
        let mut counts: BTreeMap<StateKind, u64> = StateKind::ALL.into_iter().map(|kind| (kind, 0)).collect();
        for job in self.jobs.values() {
            *counts.entry(job.state.kind()).or_default() += 1;
        }
        counts
    }

    /// The jobs of a state in the order in which they are listed: by when they ended or are due, else by
    /// age, the last first.
    pub fn listed(&self, kind: StateKind) -> Vec<Seq> {
        let place = |(seq, job): (&Seq, &RefJob)| {
            let at = match &job.state {
                State::Completed { at } | State::Dead { at, .. } | State::Cancelled { at, .. } => *at,
                other => due_of(other).unwrap_or_default(),
            };
            (job.state.kind() == kind).then_some((at, *seq))
        };
        let mut listed: Vec<(Millis, Seq)> = self.jobs.iter().filter_map(place).collect();
        listed.sort_unstable();
        listed.into_iter().rev().map(|(_, seq)| seq).collect()
    }

    /// A run.
    pub fn run(&self, lane: LaneId) -> Option<RunInfo> {
        let Some(Lane::Run { number, run, created }) = self.lanes.get(&lane) else { return None };
        let mut counts = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.lane == lane) {
            *counts.entry(job.state.kind()).or_default() += 1;
        }
        Some(RunInfo {
            lane,
            number: *number,
            line: run.line.clone(),
            folder: run.folder.clone(),
            flags: run.flags.clone(),
            created: *created,
            counts,
        })
    }

    /// All lanes that ever were.
    pub fn lanes_ever(&self) -> impl Iterator<Item = LaneId> + use<> {
        (1..=self.last_lane).map(LaneId)
    }

    /// What makes a run the same when it is typed again; 0 for what is no run.
    pub fn identity(&self, lane: LaneId) -> u128 {
        match self.lanes.get(&lane) {
            Some(Lane::Run { run, .. }) => run.identity,
            Some(Lane::Queue(_)) | None => 0,
        }
    }

    /// The run of this identity before the one in `lane`.
    pub fn run_before(&self, identity: u128, lane: LaneId) -> Option<RunInfo> {
        let same = |lane: &Lane| matches!(lane, Lane::Run { run, .. } if run.identity == identity);
        let before = self.lanes.range(..lane).rev().find(|(_, lane)| same(lane));
        before.and_then(|(lane, _)| self.run(*lane))
    }

    /// All runs.
    pub fn runs(&self) -> Vec<RunInfo> {
        self.lanes.keys().filter_map(|lane| self.run(*lane)).collect()
    }

    /// How many jobs that `serves` names have not ended.
    pub fn unfinished(&self, serves: &Serves) -> u64 {
        let moves = |job: &&RefJob| match (self.lanes.get(&job.lane), job.state.kind()) {
            (_, kind) if kind.has_ended() => false,
            (Some(Lane::Queue(queue)), kind) if kind != StateKind::Processing => !self.settings(Some(queue)).paused,
            (Some(_) | None, _) => true,
        };
        self.jobs.values().filter(|job| self.served(job.lane, serves)).filter(moves).count() as u64
    }

    /// The queues that have a lane or settings, by name.
    pub fn queues(&self) -> Vec<QueueInfo> {
        let of_lanes = self.lanes.values().filter_map(|lane| match lane {
            Lane::Queue(name) => Some(name.clone()),
            Lane::Run { .. } => None,
        });
        let names: BTreeSet<QueueName> =
            of_lanes.chain(self.settings.keys().filter_map(|(scope, _)| scope.clone())).collect();
        let mut counts: BTreeMap<&QueueName, BTreeMap<StateKind, u64>> = BTreeMap::new();
        for job in self.jobs.values() {
            if let Some(Lane::Queue(queue)) = self.lanes.get(&job.lane) {
                *counts.entry(queue).or_default().entry(job.state.kind()).or_default() += 1;
            }
        }
        let info = |name: QueueName| {
            let Settings { parallel, paused, .. } = self.settings(Some(&name));
            QueueInfo { counts: counts.remove(&name).unwrap_or_default(), name, parallel, paused }
        };
        names.into_iter().map(info).collect()
    }
}

/// Whether jobs may be claimed because of a change of this setting.
fn lets_in(key: SettingKey) -> bool {
    matches!(key, SettingKey::Parallel | SettingKey::Paused)
}

static EMPTY: BTreeSet<&JobId> = BTreeSet::new();

fn given(specs: &[JobSpec]) -> impl Iterator<Item = &JobId> {
    specs.iter().filter_map(|spec| spec.id.as_ref())
}

/// The ids of a batch, each of which may be there only once.
fn distinct(specs: &[JobSpec]) -> Result<BTreeSet<&JobId>, Refused> {
    let mut ids = BTreeSet::new();
    match given(specs).find(|id| !ids.insert(*id)) {
        Some(twice) => Err(Refused::Duplicate(twice.clone())),
        None => Ok(ids),
    }
}

fn attempts(job: &RefJob) -> u32 {
    u32::try_from(job.history.len()).unwrap_or(u32::MAX)
}

fn progress(job: &RefJob) -> Progress {
    Progress { state: job.state.clone(), failures: job.failures, losses: job.losses, attempts: attempts(job) }
}

fn due_of(state: &State) -> Option<Millis> {
    match state {
        State::Scheduled { due } | State::Failed { due, .. } => Some(*due),
        _ => None,
    }
}

/// `base` times itself, `failures` times, in seconds; in whole milliseconds, rounded up, at most `cap_ms`.
fn delay_ms(base: f64, failures: u32, cap_ms: u128) -> u64 {
    let cap = u64::try_from(cap_ms).unwrap_or(u64::MAX);
    let mut seconds = 1.0;
    for _ in 0..failures {
        seconds *= base;
    }
    // To the nanosecond first, so that what floating point adds to 2.5 × 2.5 is no millisecond.
    let ms = ((seconds * 1e9).round() / 1e6).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, and so does it")]
    let ms = ms as u64;
    ms.min(cap)
}
