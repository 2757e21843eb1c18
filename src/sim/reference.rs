//! What the queue should do, over plain maps: slow, obvious, and without the store's code.
//!
//! A transaction is a clone that is thrown away or kept: [`Reference::begin`], verbs, [`Reference::commit`].

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Attempt, CancelReason, Claimed, DeadReason, ENDED_POOLS_KEPT, Ending, IfExists, Job, JobId, JobKey, JobSpec, Kept,
    LEAP, LaneId, Lease, Millis, Need, Outcome, PoolId, Progress, QueueName, Retention, Run, Seq, SettingKey, Settings,
    Start, State, StateKind, Stream, WorkerId,
};
use crate::store::{
    Asked, BulkInfo, Cleared, EndedAt, Met, NeedInfo, NewRun, PoolInfo, QueueInfo, Removed, RunInfo, Serves, Terms,
    Unpublished, Work,
};

/// Why the queue refuses something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The id is taken.
    Duplicate(JobId),
    /// The id is that of a job which is not published.
    Reserved(JobId),
    /// That job has the key, and is in that state.
    KeyTaken(JobKey, JobId, StateKind),
    /// Two jobs of the batch have the key.
    KeyTwice(JobKey),
    /// The key is that of a job which is not published.
    KeyReserved(JobKey),
    /// There is no such bulk, or it has no such queue; or a job of a run has a key.
    Bulk,
    /// There is no such job.
    NoSuchJob(JobId),
    /// The job's state does not allow it.
    State(JobId, StateKind),
    /// A job waits for this one, which comes later or is itself.
    NeedsLater(JobId),
    /// A job waits for this one, which has ended otherwise.
    NeedEnded(JobId, StateKind),
    /// Something that is not published waits for the job.
    NeededUnseen(JobId),
    /// The setting does not take the value.
    Value(SettingKey),
    /// The job is part of a run.
    OfRun(JobId),
    /// No queue has a value of its own of the setting.
    Scope(SettingKey),
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
    needs: BTreeMap<Seq, RefNeed>,
}

/// That a job waits for another.
#[derive(Debug, Clone, Copy)]
struct RefNeed {
    any: bool,
    met: bool,
}

/// What becomes of one line of a batch.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    New,
    /// That job gives way to it.
    InPlaceOf(Seq),
    /// That line does.
    InPlaceOfLine(usize),
    /// That job stands for it.
    Stands(Seq, Met),
    /// What that line came to stands for it.
    Repeats(usize),
}

impl Fate {
    /// The job that runs again for it.
    fn retried(&self) -> Option<Seq> {
        match self {
            Self::Stands(seq, Met::Retried(_)) => Some(*seq),
            _ => None,
        }
    }
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
    /// Jobs that ended otherwise than some of its jobs want.
    failed_needs: BTreeSet<Seq>,
    /// Those that do not have their keys yet.
    unkeyed: BTreeSet<Seq>,
}

/// Files that are to be deleted: of each job, which of its attempts' streams.
pub(super) type Files = Vec<(Seq, Vec<(u32, Stream)>)>;

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
    /// Where the time came to when it last moved by more than a day in one step, if it did.
    leapt: Option<Millis>,
    /// The same, this transaction's step included.
    leapt_now: Option<Millis>,
    /// The last job of each state that lost what it wrote.
    let_go: BTreeMap<StateKind, EndedAt>,
    changed: bool,
    rung: Rung,
    last_seq: u64,
    last_lease: u64,
    last_lane: u64,
    last_run: u64,
    lanes: BTreeMap<LaneId, Lane>,
    jobs: BTreeMap<Seq, RefJob>,
    bulks: BTreeMap<u64, RefBulk>,
    /// Jobs whose state some that need them may not know, with the first of these.
    unsettled: BTreeMap<Seq, Seq>,
    pools: BTreeMap<PoolId, PoolInfo>,
    settings: BTreeMap<(Option<QueueName>, SettingKey), String>,
    /// The queue that each pool was served from last.
    turns: BTreeMap<PoolId, QueueName>,
}

impl Reference {
    /// Begins a transaction: time does not go back.
    pub fn begin(&mut self, now: Millis) {
        self.now = now.max(self.newest);
        let leaps = self.newest > Millis(0) && self.now.since(self.newest) > LEAP;
        self.leapt_now = if leaps { Some(self.now) } else { self.leapt };
        self.changed = false;
        self.rung = Rung::default();
    }

    /// Ends it: its time becomes the newest if it changed anything.
    pub fn commit(&mut self) {
        if self.changed {
            self.newest = self.now;
            self.leapt = self.leapt_now;
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
    pub fn enqueue(&mut self, specs: &[JobSpec]) -> Result<Vec<(Seq, JobId, Met)>, Refused> {
        let has_keys = specs.iter().any(|spec| spec.key.is_some());
        let fates = if has_keys { self.fates(specs)? } else { vec![Fate::New; specs.len()] };
        self.enqueue_as(specs, &fates)
    }

    /// What is to become of each line of a batch, by who has its key when its turn comes.
    fn fates(&self, specs: &[JobSpec]) -> Result<Vec<Fate>, Refused> {
        let mut by_then = self.clone();
        let mut lines: BTreeMap<&JobKey, usize> = BTreeMap::new();
        let mut fates = Vec::new();
        for (n, spec) in specs.iter().enumerate() {
            let Some(key) = &spec.key else {
                fates.push(Fate::New);
                continue;
            };
            if let Some(line) = lines.get(key).copied() {
                fates.push(match spec.if_exists {
                    IfExists::Error => return Err(Refused::KeyTwice(key.clone())),
                    IfExists::Skip | IfExists::Retry => Fate::Repeats(line),
                    IfExists::Replace => {
                        lines.insert(key, n);
                        Fate::InPlaceOfLine(line)
                    }
                });
                continue;
            }
            let Some(seq) = by_then.key_owner(key)? else {
                lines.insert(key, n);
                fates.push(Fate::New);
                continue;
            };
            let kind = by_then.jobs[&seq].state.kind();
            let is_dead = matches!(kind, StateKind::Dead | StateKind::Cancelled);
            fates.push(match spec.if_exists {
                IfExists::Error => return Err(by_then.key_taken(key, seq)),
                IfExists::Replace if kind == StateKind::Processing => return Err(by_then.key_taken(key, seq)),
                IfExists::Replace => {
                    lines.insert(key, n);
                    Fate::InPlaceOf(seq)
                }
                IfExists::Retry if is_dead => {
                    by_then.put(seq, State::Pending);
                    Fate::Stands(seq, Met::Retried(kind))
                }
                IfExists::Skip | IfExists::Retry => Fate::Stands(seq, Met::Exists(kind)),
            });
        }
        Ok(fates)
    }

    fn key_taken(&self, key: &JobKey, seq: Seq) -> Refused {
        let job = &self.jobs[&seq];
        Refused::KeyTaken(key.clone(), job.name.clone(), job.state.kind())
    }

    /// The job of a key.
    pub fn key_owner(&self, key: &JobKey) -> Result<Option<Seq>, Refused> {
        let owns = |job: &RefJob| job.spec.key.as_ref() == Some(key);
        let of_bulk = |bulk: &RefBulk| bulk.jobs.iter().any(|(seq, job)| owns(job) && !bulk.unkeyed.contains(seq));
        if self.bulks.values().any(of_bulk) {
            return Err(Refused::KeyReserved(key.clone()));
        }
        Ok(self.jobs.iter().find(|(_, job)| owns(job)).map(|(seq, _)| *seq))
    }

    fn enqueue_as(&mut self, specs: &[JobSpec], fates: &[Fate]) -> Result<Vec<(Seq, JobId, Met)>, Refused> {
        let is_new = |fate: &Fate| !matches!(fate, Fate::Stands(..) | Fate::Repeats(_));
        let new: Vec<JobSpec> =
            specs.iter().zip(fates).filter(|(_, fate)| is_new(fate)).map(|(spec, _)| spec.clone()).collect();
        let wanted = distinct(&new)?;
        let mut giving = Vec::new();
        for (spec, fate) in specs.iter().zip(fates).filter(|(_, fate)| is_new(fate)) {
            let Some(id) = &spec.id else { continue };
            match fate {
                Fate::InPlaceOf(seq) if self.find(id) == Some(*seq) && self.jobs[seq].named => giving.push(id),
                _ => self.refuse_taken(id)?,
            }
        }
        let mut plan = self.plan(&new, None)?.into_iter();
        let retried: Vec<Seq> = fates.iter().filter_map(Fate::retried).collect();
        retried.iter().try_for_each(|seq| self.waits_again(*seq, &retried))?;
        for seq in &retried {
            self.run_again(*seq, &retried);
        }
        let mut replaced = BTreeMap::new();
        for fate in fates {
            if let Fate::InPlaceOf(seq) = fate {
                replaced.insert(*seq, self.give_way(*seq));
            }
        }
        for id in giving {
            self.take_name(id, &wanted);
        }
        let mut done: Vec<(Seq, JobId, Met)> = Vec::new();
        let mut added: Vec<Seq> = Vec::new();
        for (spec, fate) in specs.iter().zip(fates) {
            let (stands, met) = match fate {
                Fate::New | Fate::InPlaceOfLine(_) => (None, Met::New),
                Fate::InPlaceOf(seq) => (None, Met::Replaced(replaced[seq].clone())),
                Fate::Stands(seq, met) => (Some(*seq), met.clone()),
                Fate::Repeats(line) => (Some(done[*line].0), Met::Exists(StateKind::Pending)),
            };
            let (seq, name) = if let Some(seq) = stands {
                (seq, self.jobs[&seq].name.clone())
            } else {
                let (lane, needs) = (self.queue_lane(&spec.queue), plan.next().unwrap_or_default().numbered(&added));
                let job = self.add(spec, lane, &wanted, needs);
                added.push(job.0);
                job
            };
            let met = if let Fate::Repeats(_) = fate { Met::Exists(self.jobs[&seq].state.kind()) } else { met };
            done.push((seq, name, met));
        }
        for seq in retried.iter().chain(replaced.keys()).filter(|seq| self.is_needed(**seq)).collect::<Vec<_>>() {
            self.unsettled.insert(*seq, Seq(0));
            self.rung.work = true;
        }
        for (n, fate) in fates.iter().enumerate() {
            if let Fate::InPlaceOfLine(line) = fate {
                done[n].2 = Met::Replaced(self.give_way(done[*line].0));
            }
        }
        Ok(done)
    }

    /// A job loses its key to another, and waits no more. Answers its name.
    fn give_way(&mut self, seq: Seq) -> JobId {
        if !self.jobs[&seq].state.kind().has_ended() {
            self.put(seq, self.cancelled());
        }
        let Some(job) = self.jobs.get_mut(&seq) else { unreachable!("job {} is there", seq.0) };
        job.spec.key = None;
        self.changed = true;
        job.name.clone()
    }

    /// What each job of a batch waits for, or why it cannot. Jobs of `bulk` can be seen.
    fn plan(&self, specs: &[impl Borrow<JobSpec>], bulk: Option<u64>) -> Result<Vec<Planned>, Refused> {
        let specs: Vec<&JobSpec> = specs.iter().map(Borrow::borrow).collect();
        let mut plan = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let mut planned = Planned::default();
            for need in &spec.needs {
                let own = specs.iter().position(|other| other.id.as_ref() == Some(&need.id));
                if own.is_some_and(|own| own >= index) {
                    return Err(Refused::NeedsLater(need.id.clone()));
                }
                if let Some(own) = own {
                    let any = planned.earlier.get(&own).is_none_or(|any| *any) && need.any;
                    planned.earlier.insert(own, any);
                    continue;
                }
                let of_bulk = bulk.and_then(|number| {
                    let bulk = self.bulks.get(&number)?;
                    let named = |(seq, job): &(&Seq, &RefJob)| job.name == need.id && !bulk.unnamed.contains(seq);
                    bulk.jobs.iter().find(named).map(|(seq, _)| *seq)
                });
                let seq = self.find(&need.id).or(of_bulk).ok_or_else(|| Refused::NoSuchJob(need.id.clone()))?;
                let any = planned.there.get(&seq).is_none_or(|other| other.any) && need.any;
                let met = self.is_met(seq, any)?;
                planned.there.insert(seq, RefNeed { any, met });
            }
            plan.push(planned);
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        spec: &JobSpec,
        lane: LaneId,
        wanted: &BTreeSet<&JobId>,
        needs: BTreeMap<Seq, RefNeed>,
    ) -> (Seq, JobId) {
        let seq = self.number(if spec.id.is_some() { &EMPTY } else { wanted });
        let job = self.new_job(seq, spec, lane, needs);
        let name = job.name.clone();
        self.jobs.insert(seq, job);
        self.changed = true;
        self.rung.work = true;
        (seq, name)
    }

    fn new_job(&self, seq: Seq, spec: &JobSpec, lane: LaneId, needs: BTreeMap<Seq, RefNeed>) -> RefJob {
        let due = match spec.start {
            Start::Now => self.now,
            Start::At(time) => time,
            Start::After(delay) => self.now.after(delay),
        };
        let is_later = due > self.now;
        let state = if needs.values().any(|need| !need.met) {
            State::Blocked { due: is_later.then_some(due), held: false }
        } else if is_later {
            State::Scheduled { due, held: false }
        } else {
            State::Pending
        };
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
            needs,
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
        let same = |lane: &Lane| {
            matches!(lane, Lane::Run { run: other, .. }
                if other.identity == run.identity || run.resumes && other.folder == run.folder)
        };
        if let Some(info) = self.cut_off(run.identity).filter(|_| !fresh) {
            return Ok((true, info));
        }
        if specs.iter().any(|spec| spec.key.is_some()) {
            return Err(Refused::Bulk);
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
        let plan = self.plan(specs, None)?;
        for id in given(specs) {
            self.take_name(id, &wanted);
        }
        self.last_run += 1;
        let number = self.last_run;
        let lane = self.add_lane(Lane::Run { number, run: run.clone(), created: self.now });
        let mut done = Vec::new();
        for (spec, needs) in specs.iter().zip(plan) {
            let needs = needs.numbered(&done);
            done.push(self.add(spec, lane, &wanted, needs).0);
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
            failed_needs: BTreeSet::new(),
            unkeyed: BTreeSet::new(),
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
    pub fn fill_bulk(
        &mut self,
        number: u64,
        is_run: bool,
        specs: &[JobSpec],
    ) -> Result<Vec<(Seq, JobId, Met)>, Refused> {
        if is_run && specs.iter().any(|spec| spec.key.is_some()) {
            return Err(Refused::Bulk);
        }
        let mut there = Vec::new();
        for spec in specs {
            let owner = spec.key.as_ref().map(|key| self.key_owner(key)).transpose()?.flatten();
            if let (Some(key), Some(seq)) = (&spec.key, owner) {
                let kind = self.jobs[&seq].state.kind();
                let changes = match spec.if_exists {
                    IfExists::Skip => false,
                    IfExists::Error | IfExists::Replace => true,
                    IfExists::Retry => matches!(kind, StateKind::Dead | StateKind::Cancelled),
                };
                if changes {
                    return Err(self.key_taken(key, seq));
                }
                there.push(Some((seq, self.jobs[&seq].name.clone(), Met::Exists(kind))));
            } else {
                there.push(None);
            }
        }
        let wanted: BTreeSet<&JobId> = given(specs).collect();
        let new: Vec<&JobSpec> =
            specs.iter().zip(&there).filter(|(_, there)| there.is_none()).map(|(s, _)| s).collect();
        let ids: BTreeSet<&JobId> = new.iter().filter_map(|spec| spec.id.as_ref()).collect();
        ids.iter().try_for_each(|id| self.refuse_taken(id))?;
        let mut bulk = self.bulks.get(&number).cloned().ok_or(Refused::Bulk)?;
        let lane_of = |bulk: &RefBulk, spec: &JobSpec| match &bulk.queues {
            None => Some(LaneId(number)),
            Some(queues) => {
                (number..).zip(queues).find(|(_, queue)| **queue == spec.queue).map(|(lane, _)| LaneId(lane))
            }
        };
        let lanes: Option<Vec<LaneId>> = new.iter().map(|spec| lane_of(&bulk, spec)).collect();
        let lanes = lanes.ok_or(Refused::Bulk)?;
        let plan = self.plan(&new, Some(number))?;
        let mut filled: Vec<(Seq, JobId, Met)> = Vec::new();
        for (n, ((spec, lane), needs)) in new.iter().zip(lanes).zip(plan).enumerate() {
            let seq = loop {
                if bulk.ranges.last().is_none_or(|(_, last)| bulk.next > *last) {
                    self.set_aside(&mut bulk, (new.len() - n) as u64);
                }
                let seq = Seq(bulk.next);
                bulk.next += 1;
                let own = JobId::from(seq);
                if spec.id.is_some() || self.refuse_taken(&own).is_ok() && !wanted.contains(&own) {
                    break seq;
                }
            };
            let before: Vec<Seq> = filled.iter().map(|(seq, ..)| *seq).collect();
            let job = self.new_job(seq, spec, lane, needs.numbered(&before));
            filled.push((seq, job.name.clone(), Met::New));
            bulk.jobs.insert(seq, job);
            bulk.unnamed.extend(spec.id.is_some().then_some(seq));
            bulk.unkeyed.extend(spec.key.is_some().then_some(seq));
        }
        self.bulks.insert(number, bulk);
        self.changed = true;
        let mut filled = filled.into_iter();
        Ok(there.into_iter().filter_map(|there| there.or_else(|| filled.next())).collect())
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

    /// The keys that the jobs of a bulk do not have yet, in the order of these.
    pub fn unkeyed(&self, number: u64) -> Vec<(JobKey, Seq)> {
        let Some(bulk) = self.bulks.get(&number) else { return Vec::new() };
        let keys = bulk.unkeyed.iter().filter_map(|seq| Some((bulk.jobs[seq].spec.key.clone()?, *seq)));
        let mut keys: Vec<_> = keys.collect();
        keys.sort();
        keys
    }

    /// Jobs of a bulk get their keys, all or none. `keys` are in order.
    pub fn key_bulk(&mut self, number: u64, keys: &[(JobKey, Seq)]) -> Result<(), Refused> {
        if let Some(two) = keys.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(Refused::KeyTwice(two[1].0.clone()));
        }
        for (key, _) in keys {
            if let Some(seq) = self.key_owner(key)? {
                return Err(self.key_taken(key, seq));
            }
        }
        let bulk = self.bulks.get_mut(&number).ok_or(Refused::Bulk)?;
        bulk.unkeyed.retain(|seq| keys.iter().all(|(_, keyed)| keyed != seq));
        self.changed = true;
        Ok(())
    }

    /// A bulk to be published.
    fn take_bulk(&mut self, number: u64) -> Result<RefBulk, Refused> {
        if self.bulks.get(&number).is_none_or(|bulk| !bulk.unnamed.is_empty() || !bulk.unkeyed.is_empty()) {
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
        self.tell_of_failed(&bulk.failed_needs);
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
        self.tell_of_failed(&bulk.failed_needs);
        (self.changed, self.rung.work) = (true, true);
        let info = self.run(LaneId(number)).unwrap_or_else(|| unreachable!("the run was just begun"));
        Ok((false, info))
    }

    /// What ended otherwise than jobs want that have just appeared is to be told once more.
    fn tell_of_failed(&mut self, failed: &BTreeSet<Seq>) {
        for seq in failed {
            if self.is_needed(*seq) {
                self.unsettled.insert(*seq, Seq(0));
            }
        }
    }

    /// Takes up to `limit` jobs of a bulk away, those of the lowest numbers, and with the last the bulk. Says whether
    /// it is gone.
    pub fn undo_bulk(&mut self, number: u64, limit: usize) -> bool {
        if !self.bulks.contains_key(&number) {
            return true;
        }
        self.changed = true;
        let mut left = limit;
        while let Some((first, last)) = self.bulks[&number].ranges.first().copied() {
            let range = Seq(first)..=Seq(last);
            let taken: Vec<Seq> = self.bulks[&number].jobs.range(range).map(|(seq, _)| *seq).take(left).collect();
            for seq in &taken {
                self.forget_needs(*seq);
                self.forget_needed(*seq);
                self.bulks.get_mut(&number).map(|bulk| bulk.jobs.remove(seq));
            }
            let Some(bulk) = self.bulks.get_mut(&number) else { return true };
            left -= taken.len();
            bulk.unnamed.retain(|seq| !taken.contains(seq));
            bulk.unkeyed.retain(|seq| !taken.contains(seq));
            if left == 0 {
                bulk.ranges[0].0 = taken.last().map_or(first, |seq| seq.0 + 1);
                bulk.ranges.retain(|(first, last)| first <= last);
                break;
            }
            bulk.ranges.remove(0);
        }
        let is_over = self.bulks[&number].ranges.is_empty();
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
            let (seqs, unnamed) =
                (bulk.jobs.keys().copied().collect(), (bulk.unnamed.len() + bulk.unkeyed.len()) as u64);
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
        let now = self.now;
        let Some(job) = self.job_mut(seq) else { return };
        // What is held stays in its place, whatever time it is given.
        let is_held = |state: &State| matches!(state, State::Scheduled { held: true, .. });
        let arrived = job.state != state && !(is_held(&job.state) && is_held(&state));
        let waits = matches!(state, State::Pending | State::Scheduled { .. } | State::Failed { .. });
        let ended_or_not = job.state.kind().has_ended() != state.kind().has_ended();
        job.state = state;
        job.updated = now;
        self.changed = true;
        self.rung.work |= arrived && waits;
        if ended_or_not && self.is_needed(seq) {
            self.unsettled.insert(seq, Seq(0));
            self.rung.work = true;
        }
    }

    // ---- needs

    /// A job, published or not.
    fn job(&self, seq: Seq) -> Option<&RefJob> {
        let hidden = || self.bulks.values().find_map(|bulk| bulk.jobs.get(&seq));
        self.jobs.get(&seq).or_else(hidden)
    }

    fn job_mut(&mut self, seq: Seq) -> Option<&mut RefJob> {
        if self.jobs.contains_key(&seq) {
            return self.jobs.get_mut(&seq);
        }
        self.bulks.values_mut().find_map(|bulk| bulk.jobs.get_mut(&seq))
    }

    /// The jobs that need one, published or not, the oldest first.
    fn needing(&self, seq: Seq) -> Vec<Seq> {
        let all = self.jobs.iter().chain(self.bulks.values().flat_map(|bulk| &bulk.jobs));
        let mut needing: Vec<Seq> =
            all.filter(|(_, job)| job.needs.contains_key(&seq)).map(|(needing, _)| *needing).collect();
        needing.sort_unstable();
        needing
    }

    fn is_needed(&self, seq: Seq) -> bool {
        !self.needing(seq).is_empty()
    }

    /// Whether a job has ended as is wanted; refused if it has ended otherwise.
    fn is_met(&self, seq: Seq, any: bool) -> Result<bool, Refused> {
        let Some(job) = self.job(seq) else { return Ok(false) };
        match job.state.kind() {
            StateKind::Completed => Ok(true),
            kind @ (StateKind::Dead | StateKind::Cancelled) if !any => Err(Refused::NeedEnded(job.name.clone(), kind)),
            kind => Ok(kind.has_ended()),
        }
    }

    /// Tells up to `limit` jobs of the ends of those that they need. Says whether some are left.
    pub fn settle(&mut self, limit: usize) -> bool {
        let mut left = limit;
        while let Some((seq, from)) = self.unsettled.first_key_value().map(|(seq, from)| (*seq, *from)) {
            if left == 0 {
                return true;
            }
            left -= self.tell(seq, from, left).max(1);
        }
        false
    }

    fn tell(&mut self, seq: Seq, from: Seq, limit: usize) -> usize {
        let told: Vec<Seq> = self.needing(seq).into_iter().filter(|needing| *needing >= from).take(limit).collect();
        match told.last() {
            Some(last) if told.len() == limit => self.unsettled.insert(seq, Seq(last.0 + 1)),
            Some(_) | None => self.unsettled.remove(&seq),
        };
        self.changed = true;
        for needing in &told {
            self.tell_one(*needing, seq);
        }
        told.len()
    }

    fn tell_one(&mut self, needing: Seq, seq: Seq) {
        let Some(job) = self.job(needing) else { return };
        let need = job.needs[&seq];
        if need.met {
            return;
        }
        match (job.state.clone(), self.is_met(seq, need.any)) {
            (State::Blocked { .. }, Ok(true)) => self.meet(needing, seq),
            (State::Blocked { due, held }, Err(_)) if self.jobs.contains_key(&needing) => {
                self.put(needing, State::Cancelled { at: self.now, reason: CancelReason::NeedFailed { due, held } });
            }
            (State::Blocked { .. }, Err(_)) => {
                let bulk = self.bulks.values_mut().find(|bulk| bulk.jobs.contains_key(&needing));
                bulk.map(|bulk| bulk.failed_needs.insert(seq));
            }
            (State::Cancelled { reason: CancelReason::NeedFailed { .. }, .. }, Ok(_))
                if self.waits_again(needing, &[]).is_ok() =>
            {
                self.run_again(needing, &[]);
            }
            _ => {}
        }
    }

    /// A need is met; with the last of them a job is blocked no longer.
    fn meet(&mut self, needing: Seq, seq: Seq) {
        let Some(job) = self.job_mut(needing) else { return };
        let Some(need) = job.needs.get_mut(&seq) else { return };
        need.met = true;
        if job.needs.values().all(|need| need.met)
            && let State::Blocked { due, held } = job.state
        {
            self.put(needing, waits_for_its_time(due, held, self.now));
        }
    }

    /// What a job would wait for instead of what it does.
    fn needs_instead(&self, seq: Seq, needs: &[Need]) -> Result<BTreeMap<Seq, RefNeed>, Refused> {
        let before = &self.jobs[&seq].needs;
        let mut instead: BTreeMap<Seq, RefNeed> = BTreeMap::new();
        for need in needs {
            let needed = self.find(&need.id).ok_or_else(|| Refused::NoSuchJob(need.id.clone()))?;
            if needed >= seq {
                return Err(Refused::NeedsLater(need.id.clone()));
            }
            let any = need.any && instead.get(&needed).is_none_or(|other| other.any);
            let was_met = before.get(&needed).is_some_and(|before| before.met && (any || !before.any));
            let met = was_met || self.is_met(needed, any)?;
            if !met && self.waits_for(needed, seq) {
                return Err(Refused::NeedsLater(need.id.clone()));
            }
            instead.insert(needed, RefNeed { any, met });
        }
        Ok(instead)
    }

    /// Whether one job waits for another, directly or not.
    fn waits_for(&self, waiting: Seq, other: Seq) -> bool {
        let needs = self.job(waiting).map(|job| job.needs.clone()).unwrap_or_default();
        let mut unmet = needs.into_iter().filter(|(_, need)| !need.met).map(|(seq, _)| seq);
        unmet.any(|seq| seq == other || self.waits_for(seq, other))
    }

    /// Refuses to let a job run again that would wait for ever. Those of `retried` run again, too.
    fn waits_again(&self, seq: Seq, retried: &[Seq]) -> Result<(), Refused> {
        let needs = self.job(seq).map(|job| job.needs.clone()).unwrap_or_default();
        let mut unmet = needs.iter().filter(|(seq, need)| !need.met && !retried.contains(seq));
        unmet.try_for_each(|(seq, need)| self.is_met(*seq, need.any).map(drop))
    }

    /// A fresh set of attempts, after what is needed for the first time.
    fn run_again(&mut self, seq: Seq, retried: &[Seq]) {
        let mut needs = self.job(seq).map(|job| job.needs.clone()).unwrap_or_default();
        for (seq, need) in needs.iter_mut().filter(|(seq, _)| !retried.contains(seq)) {
            need.met |= self.is_met(*seq, need.any) == Ok(true);
        }
        let (waits, now) = (needs.values().any(|need| !need.met), self.now);
        let Some(job) = self.job_mut(seq) else { return };
        (job.failures, job.losses, job.needs) = (0, 0, needs);
        let (due, held) = match job.state {
            State::Cancelled { reason: CancelReason::NeedFailed { due, held }, .. } => (due, held),
            _ => (None, false),
        };
        self.put(seq, if waits { State::Blocked { due, held } } else { waits_for_its_time(due, held, now) });
    }

    /// A job goes, and needs nobody.
    fn forget_needs(&mut self, seq: Seq) {
        let needs = self.job_mut(seq).map(|job| std::mem::take(&mut job.needs)).unwrap_or_default();
        for needed in needs.keys() {
            if !self.is_needed(*needed) {
                self.unsettled.remove(needed);
            }
        }
    }

    /// A job goes, and nobody needs it.
    fn forget_needed(&mut self, seq: Seq) {
        for needing in self.needing(seq) {
            self.meet(needing, seq);
            self.job_mut(needing).map(|job| job.needs.remove(&seq));
        }
        self.unsettled.remove(&seq);
    }

    /// Whether some may not know of an end.
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// What a job needs: each with its name, whether any end will do, whether that is met, and its state.
    pub fn needs_of(&self, seq: Seq) -> Vec<NeedInfo> {
        let needs = self.jobs.get(&seq).map(|job| job.needs.clone()).unwrap_or_default();
        let shown = |(seq, need): (Seq, RefNeed)| {
            let job = self.job(seq)?;
            Some(NeedInfo { seq, id: job.name.clone(), any: need.any, met: need.met, state: job.state.kind() })
        };
        needs.into_iter().filter_map(shown).collect()
    }

    /// The jobs that need one and are published.
    pub fn needed_by(&self, seq: Seq) -> Vec<JobId> {
        self.needing(seq).into_iter().filter_map(|needing| Some(self.jobs.get(&needing)?.name.clone())).collect()
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
        for seq in &seqs {
            self.waits_again(*seq, &seqs)?;
        }
        for seq in &seqs {
            self.run_again(*seq, &seqs);
            if let Some(job) = self.jobs.get_mut(seq) {
                job.spec.max_retries = terms.max_retries.or(job.spec.max_retries);
                job.spec.timeout = terms.timeout.or(job.spec.timeout);
                done.push((job.name.clone(), job.lane));
            }
        }
        Ok(done)
    }

    /// Holds all back, or none.
    pub fn hold(&mut self, ids: &[JobId]) -> Result<Vec<JobId>, Refused> {
        self.wait_or_go(ids, true)
    }

    /// Lets all go on, or none.
    pub fn release(&mut self, ids: &[JobId]) -> Result<Vec<JobId>, Refused> {
        self.wait_or_go(ids, false)
    }

    fn wait_or_go(&mut self, ids: &[JobId], held: bool) -> Result<Vec<JobId>, Refused> {
        let seqs = self.find_all(ids)?;
        self.refuse(&seqs, |kind| kind.has_ended() || kind == StateKind::Processing)?;
        let now = self.now;
        for seq in &seqs {
            let state = self.jobs[seq].state.clone();
            let next = match state.clone() {
                State::Blocked { due, .. } => State::Blocked { due, held },
                State::Pending if held => State::Scheduled { due: now, held },
                State::Failed { due, .. } | State::Scheduled { due, .. } if held => State::Scheduled { due, held },
                State::Scheduled { due, held: true } if due <= now => State::Pending,
                State::Scheduled { due, .. } => State::Scheduled { due, held },
                other => other,
            };
            if next != state {
                self.put(*seq, next);
            }
        }
        Ok(seqs.iter().map(|seq| self.jobs[seq].name.clone()).collect())
    }

    /// Makes a job that waits, or that may be retried, what its editor says; a job of a run stays in it. `due` and what it
    /// waits for are changed if they are given.
    pub fn edit(
        &mut self,
        id: &JobId,
        becomes: &JobSpec,
        due: Option<Option<Millis>>,
        needs: Option<&[Need]>,
    ) -> Result<(), Refused> {
        let seq = self.find(id).ok_or_else(|| Refused::NoSuchJob(id.clone()))?;
        self.refuse(&[seq], |kind| matches!(kind, StateKind::Completed | StateKind::Processing))?;
        let (job, now) = (self.jobs[&seq].clone(), self.now);
        let queue = self.queue_of(&job);
        let stays = becomes.queue == queue;
        if !stays && self.run_number(seq).is_some() {
            return Err(Refused::OfRun(id.clone()));
        }
        let instead = needs.map(|needs| self.needs_instead(seq, needs)).transpose()?;
        if let Some(needs) = &instead {
            let is_open = needs.values().any(|need| !need.met);
            let has_failed = job.failures > 0 || job.losses > 0;
            self.refuse(&[seq], |kind| kind.has_ended() || is_open && has_failed)?;
        }
        if due.is_some() {
            self.refuse(&[seq], StateKind::has_ended)?;
        }
        let lane = if stays { job.lane } else { self.queue_lane(&becomes.queue) };
        let state = match &instead {
            None => job.state.clone(),
            Some(needs) if needs.values().all(|need| need.met) => match job.state {
                State::Blocked { due, held } => waits_for_its_time(due, held, self.now),
                ref other => other.clone(),
            },
            Some(_) => match job.state.clone() {
                State::Scheduled { due, held } => State::Blocked { due: Some(due), held },
                State::Pending => State::Blocked { due: None, held: false },
                other => other,
            },
        };
        let state = match due.map(|due| due.filter(|due| *due > now)) {
            None => state,
            Some(due) => match (state, due) {
                (State::Blocked { held, .. }, due) => State::Blocked { due, held },
                (State::Scheduled { held: true, .. }, due) => State::Scheduled { due: due.unwrap_or(now), held: true },
                (_, None) => State::Pending,
                (State::Failed { allowed, .. }, Some(due)) => State::Failed { due, allowed },
                (_, Some(due)) => State::Scheduled { due, held: false },
            },
        };
        let spec = JobSpec { id: job.spec.id.clone(), queue: job.spec.queue.clone(), ..becomes.clone() };
        let is_same = stays && spec == job.spec && due.is_none() && instead.is_none();
        if is_same {
            return Ok(());
        }
        if let Some(instead) = instead {
            self.forget_needs(seq);
            if let Some(job) = self.job_mut(seq) {
                job.needs = instead;
            }
        }
        // What is blocked, or has ended, has no place in its lane that it could leave.
        let has_place = !matches!(job.state, State::Blocked { .. }) && !state.kind().has_ended();
        let has_place = has_place && !matches!(state, State::Blocked { .. });
        let updated = job.updated;
        let is_elsewhere = lane != job.lane && has_place
            || spec.priority != job.spec.priority && job.state == State::Pending && state == State::Pending;
        if let Some(job) = self.jobs.get_mut(&seq) {
            (job.spec, job.lane) = (spec, lane);
        }
        self.put(seq, state);
        if let Some(job) = self.jobs.get_mut(&seq).filter(|job| job.state.kind().has_ended()) {
            job.updated = updated;
        }
        self.rung.work |= is_elsewhere;
        Ok(())
    }

    /// What a job is.
    pub fn spec(&self, seq: Seq) -> Option<JobSpec> {
        self.jobs.get(&seq).map(|job| JobSpec {
            id: job.named.then(|| job.name.clone()),
            queue: self.queue_of(job),
            ..job.spec.clone()
        })
    }

    /// Removes all, which must have ended, or none. Says of each which of its outputs are in files.
    pub fn remove(&mut self, ids: &[JobId]) -> Result<Vec<Removed>, Refused> {
        let seqs = self.find_all(ids)?;
        self.refuse(&seqs, |kind| !kind.has_ended())?;
        for seq in &seqs {
            let failed = |needing: &Seq| {
                let need = self.job(*needing).map(|job| job.needs[seq]);
                !self.jobs.contains_key(needing)
                    && need.is_some_and(|need| !need.met && self.is_met(*seq, need.any).is_err())
            };
            if self.needing(*seq).iter().any(failed) {
                return Err(Refused::NeededUnseen(self.jobs[seq].name.clone()));
            }
        }
        Ok(self.take_away(seqs))
    }

    fn take_away(&mut self, seqs: Vec<Seq>) -> Vec<Removed> {
        for seq in &seqs {
            self.forget_needs(*seq);
        }
        let mut gone = Vec::new();
        for seq in seqs {
            if let Some(from) = self.unsettled.get(&seq).copied() {
                self.tell(seq, from, usize::MAX);
            }
            self.forget_needed(seq);
            let Some(job) = self.jobs.remove(&seq) else { continue };
            let outputs = (1..).zip(&job.history).flat_map(|(number, (_, run))| {
                [(number, Stream::Stdout, &run.stdout), (number, Stream::Stderr, &run.stderr)]
            });
            let (mut files, mut output_bytes) = (Vec::new(), 0);
            for (number, stream, kept) in outputs {
                output_bytes += kept.bytes();
                files.extend(matches!(kept, Kept::File { .. } | Kept::LetGo { .. }).then_some((number, stream)));
            }
            gone.push(Removed { id: job.name, seq, files, output_bytes });
            let is_run = matches!(self.lanes.get(&job.lane), Some(Lane::Run { .. }));
            if is_run && !self.jobs.values().any(|other| other.lane == job.lane) {
                self.lanes.remove(&job.lane);
            }
            self.changed = true;
        }
        gone
    }

    /// Looks at the first `limit` jobs that ended in a state, after `from` and not after `until`, and removes them,
    /// except for those of runs that have not ended.
    pub fn clear(&mut self, kind: StateKind, until: Millis, from: Option<EndedAt>, limit: usize) -> Cleared {
        let mut places = self.ended(kind, until, from);
        places.truncate(limit);
        let next = places.last().copied().filter(|_| places.len() == limit);
        let (kept, gone): (Vec<Seq>, Vec<Seq>) =
            places.iter().map(|place| place.seq).partition(|seq| self.is_of_open_run(*seq) || self.blocks(*seq));
        Cleared { removed: self.take_away(gone), kept: kept.len() as u64, next }
    }

    /// Whether another waits for a job.
    fn blocks(&self, seq: Seq) -> bool {
        let waits = |job: &RefJob| matches!(job.state, State::Blocked { .. }) && !job.needs[&seq].met;
        self.needing(seq).into_iter().any(|needing| self.job(needing).is_some_and(waits))
    }

    /// The jobs that ended in a state, after `from` and not after `until`, in that order.
    fn ended(&self, kind: StateKind, until: Millis, from: Option<EndedAt>) -> Vec<EndedAt> {
        let place = |(seq, job): (&Seq, &RefJob)| Some(EndedAt { at: job.state.ended_at()?, seq: *seq });
        let of_kind = self.jobs.iter().filter(|(_, job)| job.state.kind() == kind);
        let mut places: Vec<EndedAt> = of_kind.filter_map(place).collect();
        places.retain(|place| place.at <= until && from.is_none_or(|from| *place > from));
        places.sort_unstable();
        places
    }

    fn is_of_open_run(&self, seq: Seq) -> bool {
        let Some(run) = self.jobs.get(&seq).and_then(|job| self.run(job.lane)) else { return false };
        let serves = Serves::Run(run.lane);
        run.unfinished() > 0 || self.pools.values().any(|pool| pool.ended.is_none() && pool.serves == serves)
    }

    fn retention(&self, kind: StateKind) -> Retention {
        let settings = self.settings(None);
        match kind {
            StateKind::Completed => settings.retain_completed,
            StateKind::Dead => settings.retain_dead,
            _ => settings.retain_cancelled,
        }
    }

    /// Takes away what the settings do not keep any more, `clock` being the time of whoever asks. Says which files are
    /// to be deleted, and how many jobs are gone.
    pub fn sweep(&mut self, clock: Millis) -> (Files, u64) {
        let is_steady = self.leapt_now.is_none_or(|leapt| self.now.since(leapt) >= LEAP);
        let (mut files, mut removed) = (Vec::new(), 0);
        for kind in StateKind::ENDED {
            let mut from = None;
            // Piece by piece, since what goes may let others run again.
            loop {
                let (until, most) = match self.retention(kind) {
                    Retention::Forever => break,
                    Retention::For(_) if !is_steady => break,
                    Retention::For(long) => (self.now.min(clock).before(long), u64::MAX),
                    Retention::Newest(count) => (Millis(u64::MAX), self.counts()[&kind].saturating_sub(count)),
                };
                let most = usize::try_from(most.min(256)).unwrap_or_default();
                let cleared = self.clear(kind, until, from, most);
                removed += cleared.removed.len() as u64;
                files.extend(cleared.removed.into_iter().map(|job| (job.seq, job.files)));
                from = cleared.next.filter(|_| most > 0);
                if from.is_none() {
                    break;
                }
            }
        }
        if let (Retention::For(long), true) = (self.settings(None).retain_output, is_steady) {
            for kind in StateKind::ENDED {
                let until = self.now.min(clock).before(long);
                for place in self.ended(kind, until, self.let_go.get(&kind).copied()) {
                    self.let_go.insert(kind, place);
                    self.changed = true;
                    files.push((place.seq, self.let_outputs_go(place.seq)));
                }
            }
        }
        files.retain(|(_, files)| !files.is_empty());
        (files, removed)
    }

    fn let_outputs_go(&mut self, seq: Seq) -> Vec<(u32, Stream)> {
        let mut files = Vec::new();
        let Some(job) = self.jobs.get_mut(&seq) else { return files };
        for (number, (_, run)) in (1..).zip(&mut job.history) {
            for (stream, kept) in [(Stream::Stdout, &mut run.stdout), (Stream::Stderr, &mut run.stderr)] {
                if matches!(kept, Kept::File { .. }) {
                    files.push((number, stream));
                }
                if matches!(kept, Kept::File { .. } | Kept::Inline(_)) {
                    *kept = Kept::LetGo { bytes: kept.bytes() };
                }
            }
        }
        files
    }

    /// When there is something for a sweep.
    pub fn next_sweep(&self) -> Option<Millis> {
        let steady = self.leapt.map_or(Millis(0), |leapt| leapt.after(LEAP));
        let first = |kind, from, long| {
            let first = self.ended(kind, Millis(u64::MAX), from).first().copied();
            first.map(|first| first.at.after(long).max(steady))
        };
        let jobs = StateKind::ENDED.into_iter().filter_map(|kind| match self.retention(kind) {
            Retention::Forever => None,
            Retention::For(long) => first(kind, None, long),
            Retention::Newest(count) => (self.counts()[&kind] > count).then_some(Millis(0)),
        });
        let outputs = StateKind::ENDED.into_iter().filter_map(|kind| match self.settings(None).retain_output {
            Retention::For(long) => first(kind, self.let_go.get(&kind).copied(), long),
            Retention::Forever | Retention::Newest(_) => None,
        });
        jobs.chain(outputs).min()
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
        if queue.is_some() && key.is_of_all_queues() {
            return Err(Refused::Scope(key));
        }
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

    /// Asks a pool to have so many workers. Answers how many it was to have.
    pub fn scale(&mut self, pool: &PoolId, workers: u32) -> Option<u32> {
        let pool = self.pools.get_mut(pool).filter(|pool| pool.ended.is_none())?;
        let before = pool.workers;
        pool.workers = workers;
        self.changed |= before != workers;
        self.rung.control |= before != workers;
        Some(before)
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
        let mut settings = BTreeMap::new();
        let shown = |(seq, job): (&Seq, &RefJob)| {
            let queue = self.queue_of(job);
            let settings = settings.entry(queue).or_insert_with_key(|queue| self.settings(Some(queue)));
            self.shown(*seq, job, settings)
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

    fn shown(&self, seq: Seq, job: &RefJob, settings: &Settings) -> Job {
        Job {
            seq,
            id: job.name.clone(),
            name: job.spec.name.clone(),
            tags: job.spec.tags.clone(),
            key: job.spec.key.clone(),
            priority: job.spec.priority,
            command: job.spec.command.clone(),
            cwd: job.spec.cwd.clone(),
            queue: self.queue_of(job),
            run: self.run_number(seq),
            progress: progress(job),
            waits_for: waits_for(job),
            max_retries: job.spec.max_retries.unwrap_or(settings.max_retries),
            timeout: job.spec.timeout.unwrap_or(settings.timeout),
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
                State::Scheduled { held: true, .. } => Millis(u64::MAX),
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
            is_command: run.is_command,
            created: *created,
            counts,
        })
    }

    /// The jobs of a lane that ended at this time or later, in that order.
    pub fn ended_since(&self, lane: LaneId, from: Millis) -> Vec<(Millis, Seq, StateKind)> {
        let ended = self.jobs.iter().filter(|(_, job)| job.lane == lane);
        let ended = ended.filter_map(|(seq, job)| Some((job.state.ended_at()?, *seq, job.state.kind())));
        let mut ended: Vec<_> = ended.filter(|(at, ..)| *at >= from).collect();
        ended.sort_unstable_by_key(|(at, seq, _)| (*at, *seq));
        ended
    }

    /// What completed in the runs of a folder.
    pub fn completed_in(&self, folder: &std::path::Path) -> Vec<&JobSpec> {
        let of_folder = |job: &&RefJob| {
            let lane = self.lanes.get(&job.lane);
            matches!(lane, Some(Lane::Run { run, .. }) if run.folder == folder)
                && job.state.kind() == StateKind::Completed
        };
        self.jobs.values().filter(of_folder).map(|job| &job.spec).collect()
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
        let waits = |job: &RefJob| match self.lanes.get(&job.lane) {
            Some(Lane::Queue(queue)) => !self.settings(Some(queue)).paused,
            Some(Lane::Run { .. }) | None => true,
        };
        let moves = |job: &&RefJob| match &job.state {
            State::Processing(_) => true,
            State::Scheduled { held: true, .. } | State::Blocked { .. } => false,
            other => !other.kind().has_ended() && waits(job),
        };
        let own = |job: &&RefJob| self.served(job.lane, serves);
        let moving = self.jobs.values().filter(own).filter(moves).count() as u64;
        let is_blocked = |job: &&RefJob| matches!(job.state, State::Blocked { .. }) && waits(job);
        let blocked = self.jobs.values().filter(own).filter(is_blocked).count() as u64;
        // What is blocked may wait for anything that moves.
        let may_move = self.is_unsettled() || self.jobs.values().any(|job| moves(&job));
        moving + if may_move { blocked } else { 0 }
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
        let held = |name: &QueueName| {
            let of_queue =
                |job: &&RefJob| matches!(self.lanes.get(&job.lane), Some(Lane::Queue(queue)) if queue == name);
            let is_held = |job: &&RefJob| matches!(job.state, State::Scheduled { held: true, .. });
            self.jobs.values().filter(of_queue).filter(is_held).count() as u64
        };
        let info = |name: QueueName| {
            let Settings { parallel, paused, .. } = self.settings(Some(&name));
            let (counts, held) = (counts.remove(&name).unwrap_or_default(), held(&name));
            QueueInfo { name, counts, held, parallel, paused }
        };
        names.into_iter().map(info).collect()
    }
}

/// What one job of a batch waits for.
#[derive(Debug, Default)]
struct Planned {
    there: BTreeMap<Seq, RefNeed>,
    /// By their places in the batch; whether any end will do.
    earlier: BTreeMap<usize, bool>,
}

impl Planned {
    /// With the numbers that the jobs before it have.
    fn numbered(self, before: &[Seq]) -> BTreeMap<Seq, RefNeed> {
        let earlier = self.earlier.into_iter().map(|(at, any)| (before[at], RefNeed { any, met: false }));
        self.there.into_iter().chain(earlier).collect()
    }
}

/// How many jobs a job is blocked by.
fn waits_for(job: &RefJob) -> u32 {
    let unmet = job.needs.values().filter(|need| !need.met).count();
    if matches!(job.state, State::Blocked { .. }) { u32::try_from(unmet).unwrap_or(u32::MAX) } else { 0 }
}

/// Whether jobs may be claimed because of a change of this setting.
fn lets_in(key: SettingKey) -> bool {
    matches!(key, SettingKey::Parallel | SettingKey::Paused)
}

/// The states that jobs end in.
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

/// Where a job is that waits for nobody: until it may start, unless that has come, and until it is released.
fn waits_for_its_time(due: Option<Millis>, held: bool, now: Millis) -> State {
    match due {
        _ if held => State::Scheduled { due: due.unwrap_or(now), held },
        Some(due) if due > now => State::Scheduled { due, held },
        Some(_) | None => State::Pending,
    }
}

fn due_of(state: &State) -> Option<Millis> {
    match state {
        State::Scheduled { due, held: false } | State::Failed { due, .. } => Some(*due),
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
