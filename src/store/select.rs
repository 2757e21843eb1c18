//! Jobs by what they are: pages of those that a [`Filter`] lets through.
//!
//! There are three ways to them, each a walk from the newest down:
//!
//! | way | taken if the filter asks for | order |
//! |---|---|---|
//! | the rows of TAGS | a name or tags | as they were enqueued |
//! | the index of each state, one after the other | states | as they came into them |
//! | JOBS | anything else | as they were enqueued |
//!
//! Whatever else is asked for is looked up job by job. How much of that is done with one snapshot is bounded, since it
//! pins pages of the file: so a page may be short, or empty, and yet there is a next.

use std::collections::BTreeSet;

use super::StoreError;
use super::codec::decode;
use super::query::JobTables;
use super::records::{AttemptRecord, JobRecord, SpecRecord, state_code, state_of_code};
use super::schedule::lanes_waiting;
use super::tables::{COUNTS, FINISHED, LEASES, QUEUES, READY, SCHEDULE, Snapshot, get};
use crate::model::{Filter, Job, LaneId, Seq, StateKind};

/// How many jobs are looked up in vain with one snapshot, about.
const REJECTED_MAX: usize = 5_000;
/// How many rows of an index are read at a time if not each of them is a hit.
const ROWS_READ: usize = 500;

/// Where a page of jobs left off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Which of the walks.
    walk: usize,
    /// The last row's sort key; the next page begins below it.
    before: Option<(u64, u64)>,
}

/// A page of jobs.
#[derive(Debug, Default)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<Cursor>,
}

/// The same, of their numbers alone.
#[derive(Debug, Default)]
pub struct Seqs {
    /// The jobs.
    pub seqs: Vec<Seq>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<Cursor>,
}

/// A row of an index: its sort key, of which the second part is the job, and its record if that came with it.
struct Row {
    key: (u64, u64),
    record: Option<JobRecord>,
}

impl Row {
    fn bare(key: (u64, u64)) -> Self {
        Self { key, record: None }
    }
}

impl Snapshot {
    /// Up to `limit` jobs that `filter` lets through, from `cursor` on; fewer, with a next page, if they are hard to
    /// find.
    pub fn select(&self, filter: &Filter, cursor: &Cursor, limit: usize) -> Result<Page, StoreError> {
        let Seqs { seqs, next } = self.select_seqs(filter, cursor, limit)?;
        let tables = JobTables::open(self)?;
        let job = |seq: Seq| {
            let record: Option<JobRecord> = get(&tables.jobs, seq.0)?;
            let record = record.ok_or_else(|| StoreError::Damaged(format!("job {} is missing", seq.0)))?;
            tables.job(self, seq, &record)
        };
        Ok(Page { jobs: seqs.into_iter().map(job).collect::<Result<_, _>>()?, next })
    }

    /// Up to `limit` jobs in `state`, or in any.
    pub fn page(&self, state: Option<StateKind>, cursor: &Cursor, limit: usize) -> Result<Page, StoreError> {
        self.select(&Filter::of_states(state), cursor, limit)
    }

    /// The same as [`select`](Self::select), without reading what the jobs are.
    pub fn select_seqs(&self, filter: &Filter, cursor: &Cursor, limit: usize) -> Result<Seqs, StoreError> {
        let Some(selection) = Selection::new(self, filter)? else { return Ok(Seqs::default()) };
        let mut at = cursor.clone();
        let (mut seqs, mut rejected) = (Vec::new(), 0);
        while let Some(walk) = selection.walk(at.walk) {
            let room = limit - seqs.len();
            if room == 0 || rejected >= REJECTED_MAX {
                return Ok(Seqs { seqs, next: Some(at) });
            }
            let wanted = if selection.takes_all(walk) { room } else { ROWS_READ };
            let rows = selection.rows(walk, at.before, wanted)?;
            let was_last = rows.len() < wanted;
            for row in rows {
                if seqs.len() == limit {
                    return Ok(Seqs { seqs, next: Some(at) });
                }
                let seq = Seq(row.key.1);
                at.before = Some(row.key);
                if selection.takes_all(walk) || selection.takes(walk, seq, row.record)? {
                    seqs.push(seq);
                } else {
                    rejected += 1;
                }
            }
            if was_last {
                at = Cursor { walk: at.walk + 1, before: None };
            }
        }
        Ok(Seqs { seqs, next: None })
    }

    /// How many jobs `filter` lets through, if that stands somewhere: else they have to be gone through.
    pub fn counted(&self, filter: &Filter) -> Result<Option<u64>, StoreError> {
        let Filter { states: _, queue: _, run: _, tags, name, since, command, exit_code, held } = filter;
        let are_looked_at = since.is_some() || command.is_some() || exit_code.is_some() || held.is_some();
        if !tags.is_empty() || name.is_some() || are_looked_at {
            return Ok(None);
        }
        match Selection::new(self, filter)? {
            Some(selection) => selection.count(&filter.states).map(Some),
            None => Ok(Some(0)),
        }
    }
}

/// One walk of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    Label,
    Jobs,
    State(StateKind),
}

/// A filter at work on a snapshot.
struct Selection<'s> {
    snapshot: &'s Snapshot,
    filter: &'s Filter,
    /// The lanes that the jobs are in, if that matters.
    lanes: Option<BTreeSet<u64>>,
    tables: JobTables,
}

impl<'s> Selection<'s> {
    /// None if there can be no such jobs.
    fn new(snapshot: &'s Snapshot, filter: &'s Filter) -> Result<Option<Self>, StoreError> {
        let mut lanes = None;
        if let Some(number) = filter.run {
            let run = snapshot.run_numbered(number)?;
            lanes = Some(run.map(|run| run.lane.0).into_iter().collect());
        }
        if let Some(queue) = &filter.queue {
            let mut of_queue = BTreeSet::new();
            for row in snapshot.open(QUEUES)?.range((queue.as_str(), 0)..=(queue.as_str(), u64::MAX))? {
                of_queue.insert(row?.0.value().1);
            }
            lanes = Some(lanes.map_or_else(|| of_queue.clone(), |lanes| &lanes & &of_queue));
        }
        if lanes.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(None);
        }
        Ok(Some(Self { snapshot, filter, lanes, tables: JobTables::open(snapshot)? }))
    }

    /// The n-th walk of the shortest way, if there is one.
    fn walk(&self, n: usize) -> Option<Walk> {
        let Filter { states, tags, name, .. } = self.filter;
        match (name.is_some() || !tags.is_empty(), states.is_empty()) {
            (true, _) => (n == 0).then_some(Walk::Label),
            (false, true) => (n == 0).then_some(Walk::Jobs),
            (false, false) => states.iter().nth(n).map(|kind| Walk::State(*kind)),
        }
    }

    /// Whether a walk comes by no other jobs than those that are wanted.
    fn takes_all(&self, walk: Walk) -> bool {
        let Filter { states, queue: _, run: _, tags, name, since, command, exit_code, held } = self.filter;
        let labels = tags.iter().count() + usize::from(name.is_some());
        let by_walk = match walk {
            Walk::Label => labels == 1 && states.is_empty() && self.lanes.is_none(),
            Walk::Jobs => labels == 0 && states.is_empty() && self.lanes.is_none(),
            Walk::State(StateKind::Pending) => labels == 0,
            // SCHEDULE has the jobs of two states, and of what is blocked there is no index.
            Walk::State(StateKind::Scheduled | StateKind::Failed | StateKind::Blocked) => false,
            Walk::State(_) => labels == 0 && self.lanes.is_none(),
        };
        by_walk && since.is_none() && command.is_none() && exit_code.is_none() && held.is_none()
    }

    /// Whether a job that a walk comes by is wanted.
    fn takes(&self, walk: Walk, seq: Seq, record: Option<JobRecord>) -> Result<bool, StoreError> {
        let filter = self.filter;
        let record = match record {
            Some(record) => record,
            None => get(&self.tables.jobs, seq.0)?
                .ok_or_else(|| StoreError::Damaged(format!("job {} is in an index but not in JOBS", seq.0)))?,
        };
        let kind = record.kind();
        let in_state = match walk {
            Walk::State(state) => state == kind,
            Walk::Label | Walk::Jobs => filter.states.is_empty() || filter.states.contains(&kind),
        };
        let in_lane = self.lanes.as_ref().is_none_or(|lanes| lanes.contains(&record.lane));
        let in_time = filter.since.is_none_or(|since| since.0 <= record.updated);
        let is_as_held = filter.held.is_none_or(|held| held == record.is_held());
        Ok(in_state && in_lane && in_time && is_as_held && self.spec_fits(seq)? && self.exit_code_fits(seq, &record)?)
    }

    fn spec_fits(&self, seq: Seq) -> Result<bool, StoreError> {
        let Filter { tags, name, command, .. } = self.filter;
        if tags.is_empty() && name.is_none() && command.is_none() {
            return Ok(true);
        }
        let spec: Option<SpecRecord> = get(&self.tables.specs, seq.0)?;
        let spec = spec.ok_or_else(|| StoreError::Damaged(format!("the spec of job {} is missing", seq.0)))?;
        let has = |(key, value): (&str, &str)| spec.tags.iter().any(|(k, v)| (k.as_str(), v.as_str()) == (key, value));
        let is_named = name.as_ref().is_none_or(|name| spec.name.as_deref() == Some(name.as_str()));
        Ok(is_named && tags.iter().all(has) && command.as_ref().is_none_or(|pattern| pattern.is_in(&spec.command())))
    }

    /// The last attempt's result says nothing of a job that runs now.
    fn exit_code_fits(&self, seq: Seq, record: &JobRecord) -> Result<bool, StoreError> {
        let Some(wanted) = self.filter.exit_code else { return Ok(true) };
        if record.attempts == 0 || record.kind() == StateKind::Processing {
            return Ok(false);
        }
        let last: Option<AttemptRecord> = get(&self.tables.attempts, (seq.0, record.attempts))?;
        Ok(last.is_some_and(|last| last.exit_code == Some(wanted)))
    }

    /// The first `wanted` rows of a walk below `before`; fewer only if there are no more.
    fn rows(&self, walk: Walk, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        match walk {
            Walk::Label => self.labelled(before, wanted),
            Walk::State(kind @ (StateKind::Completed | StateKind::Dead | StateKind::Cancelled)) => {
                self.finished(kind, before, wanted)
            }
            Walk::State(StateKind::Pending) => self.ready(before, wanted),
            Walk::State(StateKind::Scheduled | StateKind::Failed) => self.waiting(before, wanted),
            Walk::State(StateKind::Processing) => self.held(before, wanted),
            Walk::State(StateKind::Blocked) if self.count(&BTreeSet::from([StateKind::Blocked]))? == 0 => {
                Ok(Vec::new())
            }
            Walk::Jobs | Walk::State(StateKind::Blocked) => self.jobs(before, wanted),
        }
    }

    fn labelled(&self, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        let before = before.map(|(_, seq)| Seq(seq));
        let seqs = match (&self.filter.name, self.filter.tags.iter().next()) {
            (Some(name), _) => self.snapshot.jobs_with_name(name, before, wanted)?,
            (None, Some((key, value))) => self.snapshot.jobs_with_tag(key, value, before, wanted)?,
            (None, None) => Vec::new(),
        };
        Ok(seqs.into_iter().map(|seq| Row::bare((0, seq.0))).collect())
    }

    fn jobs(&self, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        let end = before.map_or(u64::MAX, |(_, seq)| seq);
        let reads_records = !self.takes_all(Walk::Jobs);
        let mut rows = Vec::new();
        for (from, end) in self.snapshot.hidden()?.visible(end) {
            for row in self.tables.jobs.range(from..end)?.rev() {
                if rows.len() == wanted {
                    return Ok(rows);
                }
                let (seq, record) = row?;
                let record = if reads_records { Some(decode("JOBS", record.value())?) } else { None };
                rows.push(Row { key: (0, seq.value()), record });
            }
        }
        Ok(rows)
    }

    /// What has ended moved last when it did.
    fn finished(&self, kind: StateKind, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        let code = state_code(kind);
        let since = self.filter.since.map_or(0, |since| since.0);
        let (at, seq) = before.unwrap_or((u64::MAX, u64::MAX));
        let mut rows = Vec::new();
        if since > at {
            return Ok(rows);
        }
        for row in self.snapshot.open(FINISHED)?.range((code, since, 0)..(code, at, seq))?.rev().take(wanted) {
            let (_, at, seq) = row?.0.value();
            rows.push(Row::bare((at, seq)));
        }
        Ok(rows)
    }

    /// The latest of all lanes.
    fn waiting(&self, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        let schedule = self.snapshot.open(SCHEDULE)?;
        let (due, seq) = before.unwrap_or((u64::MAX, u64::MAX));
        let mut keys = Vec::new();
        for lane in lanes_waiting(&schedule, &self.snapshot.hidden()?)? {
            if self.lanes.as_ref().is_none_or(|lanes| lanes.contains(&lane)) {
                for row in schedule.range((lane, 0, 0)..(lane, due, seq))?.rev().take(wanted) {
                    let (_, due, seq) = row?.0.value();
                    keys.push((due, seq));
                }
            }
        }
        Ok(highest(keys, wanted))
    }

    /// The newest of all lanes: each (lane, rank) is a run of seqs of its own.
    fn ready(&self, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        let (ready, hidden) = (self.snapshot.open(READY)?, self.snapshot.hidden()?);
        let end = before.map_or(u64::MAX, |(_, seq)| seq);
        let (mut keys, mut from) = (Vec::new(), (0, 0, 0));
        while let Some(row) = ready.range(from..)?.next() {
            let (lane, rank, _) = row?.0.value();
            if hidden.hide_lane(lane) || self.lanes.as_ref().is_some_and(|lanes| !lanes.contains(&lane)) {
                from = (lane, u8::MAX, u64::MAX);
                continue;
            }
            for row in ready.range((lane, rank, 0)..(lane, rank, end))?.rev().take(wanted) {
                keys.push((0, row?.0.value().2));
            }
            from = (lane, rank, u64::MAX);
        }
        Ok(highest(keys, wanted))
    }

    fn held(&self, before: Option<(u64, u64)>, wanted: usize) -> Result<Vec<Row>, StoreError> {
        let end = before.map_or(u64::MAX, |(_, seq)| seq);
        let mut keys = Vec::new();
        for row in self.snapshot.open(LEASES)?.range::<(&str, u64)>(..)? {
            let seq = row?.0.value().1;
            if seq < end {
                keys.push((0, seq));
            }
        }
        Ok(highest(keys, wanted))
    }

    /// How many jobs of the lanes are in one of these states; in any, if there are none.
    fn count(&self, states: &BTreeSet<StateKind>) -> Result<u64, StoreError> {
        let counts = self.snapshot.open(COUNTS)?;
        let mut total = 0;
        if let Some(lanes) = &self.lanes {
            for lane in lanes {
                let counts = self.snapshot.lane_counts(LaneId(*lane))?;
                let wanted = |(kind, _): &(&StateKind, &u64)| states.is_empty() || states.contains(kind);
                total += counts.iter().filter(wanted).map(|(_, count)| count).sum::<u64>();
            }
            return Ok(total);
        }
        let hidden = self.snapshot.hidden()?;
        for row in counts.range::<(u64, u8)>(..)? {
            let (key, count) = row?;
            let (lane, state) = key.value();
            if !hidden.hide_lane(lane) && (states.is_empty() || states.contains(&state_of_code(state)?)) {
                total += decode::<u64>("COUNTS", count.value())?;
            }
        }
        Ok(total)
    }
}

/// The first `wanted` of these from the highest down.
fn highest(mut keys: Vec<(u64, u64)>, wanted: usize) -> Vec<Row> {
    keys.sort_unstable_by(|a, b| b.cmp(a));
    keys.truncate(wanted);
    keys.into_iter().map(Row::bare).collect()
}
