//! Runs: batches that are typed again to continue them.
//!
//! A run's identity is its whole input and folder. A run that has jobs which could still run was cut off, and the
//! same line goes on with the newest such run; if there is none, the line begins a new one.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use redb::ReadableTable;

use super::StoreError;
use super::enqueue::Wanted;
use super::records::{JobRecord, LaneKind, LaneRecord, RunRecord, state_code, state_of_code};
use super::tables::{COUNTS, FINISHED, JOBS, LANES, RUNS, Record, Snapshot, Tx, get};
use crate::model::{JobSpec, LaneId, Millis, QueueName, Seq, StateKind};

/// What a `run` brings.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// What makes it the same run when it is typed again.
    pub identity: u128,
    /// The line that continues it.
    pub line: String,
    /// Where it was typed.
    pub folder: PathBuf,
    /// The flags that its jobs are enqueued with.
    pub flags: String,
    /// Whether it is one command, with whose code it exits.
    pub is_command: bool,
    /// Whether it may take ids over from ended jobs of any run of its folder, not only of the same identity.
    pub resumes: bool,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInfo {
    /// The lane of its jobs.
    pub lane: LaneId,
    /// What people call it.
    pub number: u64,
    /// The line that continues it.
    pub line: String,
    /// Where that line was typed.
    pub folder: PathBuf,
    /// The flags that its jobs were enqueued with.
    pub flags: String,
    /// Whether it is one command, with whose code it exits.
    pub is_command: bool,
    /// When it began.
    pub created: Millis,
    /// How many of its jobs are in each state.
    pub counts: BTreeMap<StateKind, u64>,
}

impl RunInfo {
    /// How many jobs it has.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of its jobs have not ended.
    pub fn unfinished(&self) -> u64 {
        unfinished(&self.counts)
    }
}

/// How many of so many jobs in each state have not ended.
pub(super) fn unfinished(counts: &BTreeMap<StateKind, u64>) -> u64 {
    counts.iter().filter(|(kind, _)| !kind.has_ended()).map(|(_, count)| count).sum()
}

/// How a run starts.
#[derive(Debug)]
pub enum RunStart {
    /// Anew.
    New(RunInfo),
    /// Where it was cut off.
    Continued(RunInfo),
}

impl RunStart {
    /// The run, however it started.
    pub fn info(&self) -> &RunInfo {
        match self {
            Self::New(info) | Self::Continued(info) => info,
        }
    }
}

impl Tx<'_> {
    /// Continues the newest run of this identity that was cut off, unless `fresh` forbids it; else begins a run of
    /// `specs`.
    pub fn start_run(&mut self, run: &NewRun, specs: &[JobSpec], fresh: bool) -> Result<RunStart, StoreError> {
        if let Some(info) = self.run_to_continue(run, fresh)? {
            return Ok(RunStart::Continued(info));
        }
        self.begin_run(run, specs).map(RunStart::New)
    }

    /// The run that is continued instead of beginning `run`.
    pub(super) fn run_to_continue(&mut self, run: &NewRun, fresh: bool) -> Result<Option<RunInfo>, StoreError> {
        if fresh { Ok(None) } else { self.newest_cut_off(run.identity) }
    }

    /// The newest run of an identity that has jobs which could still run. An older one can have them again, after
    /// a `retry`.
    fn newest_cut_off(&mut self, identity: u128) -> Result<Option<RunInfo>, StoreError> {
        let mut lanes = Vec::new();
        for row in self.tables.runs.open()?.range((identity, 0)..=(identity, u64::MAX))?.rev() {
            lanes.push(LaneId(row?.0.value().1));
        }
        for lane in lanes {
            if let Some(info) = self.run_of_lane(lane)?.filter(|info| info.unfinished() > 0) {
                return Ok(Some(info));
            }
        }
        Ok(None)
    }

    fn begin_run(&mut self, run: &NewRun, specs: &[JobSpec]) -> Result<RunInfo, StoreError> {
        if specs.iter().any(|spec| spec.key.is_some()) {
            return Err(jobs_without_keys());
        }
        let wanted = Wanted::of(specs)?;
        let giving = self.ids_to_take_over(run, specs)?;
        let plan = self.plan_needs(specs, None)?;
        for seq in giving {
            self.release_id(seq, &wanted)?;
        }
        let mut record = self.new_run(run);
        let (queue, kind) = (queue_of_runs(), LaneKind::Run(record.clone()));
        let lane = self.add_lane(&LaneRecord { queue, published: true, kind })?;
        self.tables.runs.add((run.identity, lane.0))?;
        let jobs = self.enqueue_each(specs, &wanted, &plan, |_| lane)?;
        record.seqs = (jobs.first().map_or(0, |job| job.seq.0), jobs.last().map_or(0, |job| job.seq.0));
        let (queue, kind) = (queue_of_runs(), LaneKind::Run(record.clone()));
        self.tables.lanes.put(lane.0, &LaneRecord { queue, published: true, kind })?;
        Ok(info(lane, record, self.lane_counts(lane.0)?))
    }

    /// The record of a run that begins now, under a new number; the numbers of its jobs are not known yet.
    pub(super) fn new_run(&mut self, run: &NewRun) -> RunRecord {
        let number = self.head.next_run;
        self.head.next_run += 1;
        RunRecord {
            number,
            identity: run.identity,
            line: run.line.clone(),
            folder: run.folder.as_os_str().as_bytes().to_vec(),
            created: self.now.0,
            flags: run.flags.clone(),
            seqs: RunRecord::ANY_SEQS,
            is_command: run.is_command,
        }
    }

    /// Ids in a run's file are taken over from ended jobs of earlier runs of the same identity, or if it resumes, of
    /// the same folder: those that have to give theirs up.
    fn ids_to_take_over(&mut self, run: &NewRun, specs: &[JobSpec]) -> Result<Vec<Seq>, StoreError> {
        let mut giving = Vec::new();
        for id in specs.iter().filter_map(|spec| spec.id.as_ref()) {
            let Some(seq) = self.find(id)? else {
                self.refuse_taken(id)?;
                continue;
            };
            let record = self.job(seq)?;
            let given = self.spec(seq)?.id.is_some();
            if !given || !record.kind().has_ended() || !self.comes_before(&record, run)? {
                return Err(StoreError::Duplicate(id.clone()));
            }
            giving.push(seq);
        }
        Ok(giving)
    }

    /// Whether a job is of a run that `run` repeats or resumes.
    fn comes_before(&mut self, record: &JobRecord, run: &NewRun) -> Result<bool, StoreError> {
        let lane: Option<LaneRecord> = self.tables.lanes.get(record.lane)?;
        Ok(lane.is_some_and(|lane| match lane.kind {
            LaneKind::Run(other) => {
                let is_of_folder = other.folder == run.folder.as_os_str().as_bytes();
                other.identity == run.identity || run.resumes && is_of_folder
            }
            LaneKind::Queue => false,
        }))
    }

    /// The run that owns a lane, if one does.
    pub fn run_of_lane(&mut self, lane: LaneId) -> Result<Option<RunInfo>, StoreError> {
        let record: Option<LaneRecord> = self.tables.lanes.get(lane.0)?;
        run_info(lane, record, || self.lane_counts(lane.0))
    }
}

impl Snapshot {
    /// The newest run of an identity that has jobs which could still run: what its line would continue.
    pub fn newest_cut_off(&self, identity: u128) -> Result<Option<RunInfo>, StoreError> {
        let mut lane = Some(LaneId(u64::MAX));
        while let Some(run) = lane.map(|lane| self.run_before(identity, lane)).transpose()?.flatten() {
            if run.unfinished() > 0 {
                return Ok(Some(run));
            }
            lane = Some(run.lane);
        }
        Ok(None)
    }

    /// One run.
    pub fn run(&self, lane: LaneId) -> Result<Option<RunInfo>, StoreError> {
        run_info(lane, self.get(LANES, lane.0)?, || self.lane_counts(lane))
    }

    /// The run of this number.
    pub fn run_numbered(&self, number: u64) -> Result<Option<RunInfo>, StoreError> {
        // Their lanes are in order of age, and the newest runs are the ones that are asked for.
        for row in self.open(LANES)?.iter()?.rev() {
            let (lane, record) = row?;
            let record: LaneRecord = super::codec::decode("LANES", record.value())?;
            if matches!(&record.kind, LaneKind::Run(run) if run.number == number) {
                return self.run(LaneId(lane.value()));
            }
        }
        Ok(None)
    }

    /// The run that began last.
    pub fn newest_run(&self) -> Result<Option<RunInfo>, StoreError> {
        Ok(self.newest_runs(1)?.pop())
    }

    /// The runs that began last, at most so many, the newest first.
    pub fn newest_runs(&self, limit: usize) -> Result<Vec<RunInfo>, StoreError> {
        let mut runs = Vec::new();
        for row in self.open(LANES)?.iter()? {
            let (lane, record) = row?;
            if let LaneKind::Run(run) = super::codec::decode::<LaneRecord>("LANES", record.value())?.kind {
                runs.push((run.number, LaneId(lane.value())));
            }
        }
        runs.sort_unstable_by(|a, b| b.cmp(a));
        let infos = runs.into_iter().take(limit).map(|(_, lane)| self.run(lane));
        Ok(infos.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The run of this identity before the one in `lane`.
    pub fn run_before(&self, identity: u128, lane: LaneId) -> Result<Option<RunInfo>, StoreError> {
        let before = self.open(RUNS)?.range((identity, 0)..(identity, lane.0))?.next_back();
        match before.transpose()?.map(|(key, _)| LaneId(key.value().1)) {
            Some(lane) => self.run(lane),
            None => Ok(None),
        }
    }

    /// The jobs of a lane that ended at this time or later, in that order.
    pub fn ended_since(&self, lane: LaneId, from: Millis) -> Result<Vec<(Millis, Seq, StateKind)>, StoreError> {
        let (finished, jobs) = (self.open(FINISHED)?, self.open(JOBS)?);
        let mut ended = Vec::new();
        for kind in StateKind::ALL.into_iter().filter(|kind| kind.has_ended()) {
            let code = state_code(kind);
            for row in finished.range((code, from.0, 0)..=(code, u64::MAX, u64::MAX))? {
                let (_, at, seq) = row?.0.value();
                let record: Option<JobRecord> = get(&jobs, seq)?;
                if record.is_some_and(|record| record.lane == lane.0) {
                    ended.push((Millis(at), Seq(seq), kind));
                }
            }
        }
        ended.sort_unstable_by_key(|(at, seq, _)| (*at, *seq));
        Ok(ended)
    }

    /// The runs that have jobs which could still run.
    pub fn unfinished_runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        let mut unfinished = std::collections::BTreeSet::new();
        for row in self.open(COUNTS)?.range::<(u64, u8)>(..)? {
            let (lane, state) = row?.0.value();
            if !state_of_code(state)?.has_ended() {
                unfinished.insert(lane);
            }
        }
        let infos = unfinished.into_iter().map(|lane| self.run(LaneId(lane)));
        Ok(infos.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// Whose settings the jobs of runs follow.
fn queue_of_runs() -> String {
    QueueName::default_queue().as_str().to_owned()
}

/// They are done once by being lines of a run.
pub(super) fn jobs_without_keys() -> StoreError {
    StoreError::Contradiction("the jobs of a run have no keys".to_owned())
}

fn run_info(
    lane: LaneId,
    record: Option<LaneRecord>,
    counts: impl FnOnce() -> Result<BTreeMap<StateKind, u64>, StoreError>,
) -> Result<Option<RunInfo>, StoreError> {
    match record.map(|record| record.kind) {
        Some(LaneKind::Run(run)) => Ok(Some(info(lane, run, counts()?))),
        Some(LaneKind::Queue) | None => Ok(None),
    }
}

fn info(lane: LaneId, run: RunRecord, counts: BTreeMap<StateKind, u64>) -> RunInfo {
    RunInfo {
        lane,
        number: run.number,
        line: run.line,
        folder: PathBuf::from(std::ffi::OsString::from_vec(run.folder)),
        flags: run.flags,
        is_command: run.is_command,
        created: Millis(run.created),
        counts,
    }
}

/// The counts of one lane.
pub(super) fn lane_counts(
    counts: &impl ReadableTable<(u64, u8), Record>,
    lane: u64,
) -> Result<BTreeMap<StateKind, u64>, StoreError> {
    let mut found = BTreeMap::new();
    for row in counts.range((lane, 0)..=(lane, u8::MAX))? {
        let (key, count) = row?;
        found.insert(state_of_code(key.value().1)?, super::codec::decode("COUNTS", count.value())?);
    }
    Ok(found)
}
