//! `check`: every invariant of the store's map, on one read snapshot.
//!
//! Each pass reads one table and compares it with what the jobs say it should hold. What is wrong is reported
//! in words; a record that cannot be read is reported and counts as missing.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadOnlyTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::StoreError;
use super::codec::decode;
use super::finish::{STDERR, STDOUT};
use super::placement::Placement;
use super::records::{
    AttemptRecord, BulkRecord, Bulks, EnvRecord, JobRecord, KeptRecord, LaneKind, LaneRecord, NeedRecord, PoolRecord,
    SpecRecord, StateRecord, state_code,
};
use super::tables::{
    ATTEMPTS, COUNTS, ENV_REFS, ENVS, FINISHED, IDS, JOBS, KEYS, LANES, LEASES, NEEDED_BY, NEEDS, OUTPUT, POOLS,
    QUEUES, READY, RUNS, Record, SCHEDULE, SPECS, Snapshot, TAGS, UNSETTLED,
};
use super::whole::is_justified;
use crate::model::{JobId, Seq, StateKind};

/// Most violations that are put into words: a damaged file has one for every job.
const REPORTED_MAX: usize = 1_000;

/// A place in an index: which table, and the key.
type Row = (&'static str, String, u64, u64, u64);

/// What `check` found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong, a line each; at most a thousand.
    pub violations: Vec<String>,
    /// How many there are in all.
    pub found: usize,
    /// How many jobs were checked.
    pub jobs: u64,
    /// The jobs whose output should be in a file: seq, attempt, stream code 1 or 2, bytes.
    pub files: Vec<(Seq, u32, crate::model::Stream, u64)>,
}

impl Report {
    /// What was found in a file of which these pages are damaged, after the look at the rest of it.
    pub(super) fn of_damaged(pages: &BTreeSet<u64>, rest: Result<Self, StoreError>) -> Self {
        let damaged = |page: &u64| format!("page {page} does not match its checksum");
        let mut violations: Vec<String> = pages.iter().take(REPORTED_MAX).map(damaged).collect();
        let rest = rest.unwrap_or_else(|error| Self {
            violations: vec![format!("what is left cannot be read: {error}")],
            found: 1,
            ..Self::default()
        });
        let room = REPORTED_MAX - violations.len();
        violations.extend(rest.violations.into_iter().take(room));
        Self { violations, found: pages.len() + rest.found, ..rest }
    }

    fn wrong(&mut self, invariant: u8, what: impl FnOnce() -> String) {
        self.found += 1;
        if self.violations.len() < REPORTED_MAX {
            self.violations.push(format!("invariant {invariant}: {}", what()));
        }
    }
}

impl Snapshot {
    /// Verifies every invariant of the store. An error means that not even that could be done.
    pub fn check(&self) -> Result<Report, StoreError> {
        let mut check = Check { snapshot: self, report: Report::default(), seen: Seen::default() };
        check.lanes()?;
        check.bulks();
        check.pools()?;
        check.jobs()?;
        check.indexes()?;
        check.counts()?;
        check.specs_and_names()?;
        check.environments()?;
        check.attempts()?;
        check.outputs()?;
        check.needs()?;
        check.tags()?;
        check.counters()?;
        Ok(check.report)
    }
}

/// What the jobs say the other tables should hold.
#[derive(Default)]
struct Seen {
    rows: BTreeSet<Row>,
    counts: BTreeMap<(u64, u8), u64>,
    lanes: BTreeSet<u64>,
    /// Those of them that LANES says are not published.
    unpublished: BTreeSet<u64>,
    /// What META says of those.
    bulks: Bulks,
    runs: BTreeSet<(u128, u64)>,
    /// Within which numbers each of them says its jobs are.
    run_seqs: BTreeMap<u64, (u64, u64)>,
    queue_lanes: BTreeSet<(String, u64)>,
    live_pools: BTreeSet<String>,
    attempts: BTreeMap<u64, u32>,
    needs: BTreeMap<u64, u32>,
    /// Those that are needed, as their records say.
    needed: BTreeSet<u64>,
    env_refs: BTreeMap<u128, u64>,
    outputs: BTreeMap<(u64, u32, u8), u64>,
    /// What TAGS should hold.
    labels: BTreeSet<(String, String, u64)>,
    leases: BTreeSet<u64>,
    next_run: u64,
}

/// What the specs say IDS or KEYS should hold.
#[derive(Default)]
struct Names {
    /// Those that were not found yet.
    missing: BTreeMap<String, u64>,
    /// Those of jobs that are not published: they may not be named yet, and then another may have that name.
    unpublished: BTreeSet<(String, u64)>,
    /// Those that two published jobs have.
    twice: Vec<String>,
}

impl Names {
    fn note(&mut self, name: String, seq: u64, is_hidden: bool) {
        if is_hidden {
            self.unpublished.insert((name, seq));
        } else if self.missing.insert(name.clone(), seq).is_some() {
            self.twice.push(name);
        }
    }

    /// A row that the table has; says whether it should.
    fn found(&mut self, name: &str, seq: u64) -> bool {
        self.unpublished.remove(&(name.to_owned(), seq)) || self.missing.remove(name) == Some(seq)
    }
}

struct Check<'s> {
    snapshot: &'s Snapshot,
    report: Report,
    seen: Seen,
}

impl Check<'_> {
    /// The records of a table that can be read; the others are violations.
    fn records<K, T>(
        &mut self,
        definition: TableDefinition<'static, K, Record>,
        mut visit: impl FnMut(&mut Self, K::SelfType<'_>, T),
    ) -> Result<(), StoreError>
    where
        K: redb::Key + 'static,
        T: DeserializeOwned,
    {
        let table: ReadOnlyTable<K, Record> = self.snapshot.open(definition)?;
        for row in redb::ReadableTable::iter(&table)? {
            let (key, bytes) = row?;
            match decode(redb::TableHandle::name(&definition), bytes.value()) {
                Ok(record) => visit(self, key.value(), record),
                Err(error) => {
                    let name = redb::TableHandle::name(&definition).to_owned();
                    self.report.wrong(1, || format!("{name} {:?}: {error}", key.value()));
                }
            }
        }
        Ok(())
    }

    fn lanes(&mut self) -> Result<(), StoreError> {
        self.records(LANES, |check, lane, record: LaneRecord| {
            check.seen.lanes.insert(lane);
            match record.kind {
                _ if !record.published => {
                    check.seen.unpublished.insert(lane);
                }
                LaneKind::Queue => {
                    check.seen.queue_lanes.insert((record.queue, lane));
                }
                LaneKind::Run(run) => {
                    check.seen.runs.insert((run.identity, lane));
                    check.seen.run_seqs.insert(lane, run.seqs);
                    check.seen.next_run = check.seen.next_run.max(run.number + 1);
                }
            }
        })?;
        let mut queues = BTreeSet::new();
        for row in redb::ReadableTable::iter(&self.snapshot.open(QUEUES)?)? {
            let key = row?.0;
            queues.insert((key.value().0.to_owned(), key.value().1));
        }
        for lane in queues.symmetric_difference(&self.seen.queue_lanes.clone()) {
            self.report.wrong(1, || format!("queue {} and its lane {} are not mirrored", lane.0, lane.1));
        }
        let mut runs = BTreeSet::new();
        for row in redb::ReadableTable::iter(&self.snapshot.open(RUNS)?)? {
            runs.insert(row?.0.value());
        }
        for (_, lane) in runs.symmetric_difference(&self.seen.runs) {
            self.report.wrong(1, || format!("the run in lane {lane} and its identity are not mirrored"));
        }
        Ok(())
    }

    fn bulks(&mut self) {
        let bulks = match self.snapshot.hidden() {
            Ok(bulks) => bulks,
            Err(error) => {
                self.report.wrong(10, || format!("what is unpublished cannot be told: {error}"));
                Bulks::default()
            }
        };
        let mut named = BTreeSet::new();
        for lane in bulks.0.iter().flat_map(BulkRecord::lanes) {
            if !named.insert(lane) {
                self.report.wrong(10, || format!("lane {lane} is of two bulks"));
            }
        }
        for lane in named.symmetric_difference(&self.seen.unpublished) {
            self.report.wrong(10, || format!("LANES and the bulks disagree whether lane {lane} is published"));
        }
        let mut ranges: Vec<(u64, u64)> = bulks.0.iter().flat_map(|bulk| bulk.ranges.iter().copied()).collect();
        ranges.sort_unstable();
        if ranges.iter().any(|(first, last)| first > last) || ranges.windows(2).any(|two| two[0].1 >= two[1].0) {
            self.report.wrong(10, || format!("the numbers set aside overlap: {ranges:?}"));
        }
        self.seen.bulks = bulks;
    }

    /// What is unpublished has its own numbers and was never started.
    fn publication(&mut self, seq: u64, record: &JobRecord) {
        let is_hidden = self.seen.unpublished.contains(&record.lane);
        let of_lane = |bulk: &&BulkRecord| bulk.lanes().contains(&record.lane);
        let fits = match self.seen.bulks.0.iter().find(of_lane) {
            Some(bulk) => is_hidden && bulk.has(Seq(seq)),
            None => !is_hidden && !self.seen.bulks.hide(seq),
        };
        if !fits {
            self.report.wrong(10, || format!("job {seq} in lane {} does not have its number by a bulk", record.lane));
        }
        let is_new = matches!(
            record.state,
            StateRecord::Pending
                | StateRecord::Scheduled { held: false, .. }
                | StateRecord::Blocked { held: false, .. }
        );
        if is_hidden && (!is_new || record.attempts > 0) {
            self.report.wrong(10, || format!("job {seq} is {}, but not published", record.kind().name()));
        }
        self.report.jobs += u64::from(!is_hidden);
    }

    fn pools(&mut self) -> Result<(), StoreError> {
        self.records(POOLS, |check, id, record: PoolRecord| {
            if record.ended.is_none() {
                check.seen.live_pools.insert(id.to_owned());
            }
        })
    }

    fn jobs(&mut self) -> Result<(), StoreError> {
        self.records(JOBS, |check, seq, record: JobRecord| {
            check.publication(seq, &record);
            *check.seen.counts.entry((record.lane, state_code(record.kind()))).or_default() += 1;
            check.seen.attempts.insert(seq, record.attempts);
            if record.needs > 0 {
                check.seen.needs.insert(seq, record.needs);
            }
            if record.is_needed {
                check.seen.needed.insert(seq);
            }
            if !check.seen.lanes.contains(&record.lane) {
                check.report.wrong(1, || format!("job {seq} is in lane {}, which does not exist", record.lane));
            }
            if (record.kind() == StateKind::Blocked) != (record.needs > 0) {
                check.report.wrong(9, || format!("job {seq} is {} and needs {}", record.kind().name(), record.needs));
            }
            if check.seen.run_seqs.get(&record.lane).is_some_and(|(first, last)| !(first..=last).contains(&&seq)) {
                check.report.wrong(1, || format!("job {seq} is not among those that its run says it has"));
            }
            check.placement(seq, &record);
            check.allowance(seq, &record);
        })
    }

    fn placement(&mut self, seq: u64, record: &JobRecord) {
        let row = match Placement::of(record) {
            Placement::Ready { lane, rank } => ("READY", String::new(), lane, u64::from(rank), seq),
            Placement::Schedule { lane, due } => ("SCHEDULE", String::new(), lane, due, seq),
            Placement::Leases { pool } => ("LEASES", pool, 0, 0, seq),
            Placement::Finished { state, at } => ("FINISHED", String::new(), u64::from(state), at, seq),
            Placement::Blocked => return,
        };
        self.seen.rows.insert(row);
        if let StateRecord::Processing { lease, pool, .. } = &record.state {
            if !self.seen.live_pools.contains(pool) {
                self.report.wrong(4, || format!("job {seq} is held by pool {pool}, which is not there"));
            }
            if !self.seen.leases.insert(*lease) {
                self.report.wrong(4, || format!("job {seq} shares lease {lease} with another"));
            }
        }
    }

    fn allowance(&mut self, seq: u64, record: &JobRecord) {
        if !is_justified(record) {
            let state = record.kind().name();
            let JobRecord { failures, losses, attempts, .. } = record;
            self.report.wrong(6, || {
                format!("job {seq} is {state} after {failures} failures and {losses} losses in {attempts} attempts")
            });
        }
    }

    fn indexes(&mut self) -> Result<(), StoreError> {
        let mut rows = BTreeSet::new();
        for row in redb::ReadableTable::iter(&self.snapshot.open(READY)?)? {
            let (lane, rank, seq) = row?.0.value();
            rows.insert(("READY", String::new(), lane, u64::from(rank), seq));
        }
        for row in redb::ReadableTable::iter(&self.snapshot.open(SCHEDULE)?)? {
            let (lane, due, seq) = row?.0.value();
            rows.insert(("SCHEDULE", String::new(), lane, due, seq));
        }
        for row in redb::ReadableTable::iter(&self.snapshot.open(LEASES)?)? {
            let key = row?.0;
            rows.insert(("LEASES", key.value().0.to_owned(), 0, 0, key.value().1));
        }
        for row in redb::ReadableTable::iter(&self.snapshot.open(FINISHED)?)? {
            let (state, at, seq) = row?.0.value();
            rows.insert(("FINISHED", String::new(), u64::from(state), at, seq));
        }
        for (table, pool, a, b, seq) in rows.difference(&self.seen.rows) {
            let known = self.seen.attempts.contains_key(seq);
            self.report.wrong(if known { 2 } else { 1 }, || {
                format!("{table} has job {seq} under {pool} {a} {b}, where it does not belong")
            });
        }
        for (table, pool, a, b, seq) in self.seen.rows.difference(&rows) {
            self.report.wrong(2, || format!("{table} lacks job {seq} under {pool} {a} {b}"));
        }
        Ok(())
    }

    fn counts(&mut self) -> Result<(), StoreError> {
        let mut recount = std::mem::take(&mut self.seen.counts);
        self.records(COUNTS, |check, key, count: u64| {
            let actual = recount.remove(&key).unwrap_or_default();
            if count != actual || count == 0 {
                check.report.wrong(3, || format!("lane {} counts {count} of state {}, has {actual}", key.0, key.1));
            }
        })?;
        for ((lane, state), actual) in recount {
            self.report.wrong(3, || format!("lane {lane} does not count its {actual} of state {state}"));
        }
        Ok(())
    }

    fn specs_and_names(&mut self) -> Result<(), StoreError> {
        let (mut ids, mut keys) = (Names::default(), Names::default());
        let mut unnamed = BTreeSet::new();
        let mut without: BTreeSet<u64> = self.seen.attempts.keys().copied().collect();
        self.records(SPECS, |check, seq, spec: SpecRecord| {
            if !without.remove(&seq) {
                check.report.wrong(1, || format!("SPECS has {seq}, which is no job"));
            }
            *check.seen.env_refs.entry(spec.env).or_default() += 1;
            let labels = spec.labels().map(|(key, value)| (key.to_owned(), value.to_owned(), seq));
            check.seen.labels.extend(labels);
            let is_hidden = check.seen.bulks.hide(seq);
            match spec.id {
                None => drop(unnamed.insert(seq)),
                Some(id) => ids.note(id, seq, is_hidden),
            }
            if let Some(key) = spec.key {
                keys.note(key, seq, is_hidden);
            }
        })?;
        for seq in without {
            self.report.wrong(1, || format!("job {seq} has no spec"));
        }
        self.records(IDS, |check, id, seq: u64| {
            if !ids.found(id, seq) {
                check.report.wrong(7, || format!("IDS says that {id} is job {seq}, its spec does not"));
            }
            let default_name_of = id.parse().ok().and_then(|id: JobId| super::placement::numbered(&id));
            if default_name_of.is_some_and(|other| unnamed.contains(&other.0)) {
                check.report.wrong(7, || format!("the id {id} is also the name of the job of that number"));
            }
        })?;
        self.records(KEYS, |check, key, seq: u64| {
            if !keys.found(key, seq) {
                check.report.wrong(7, || format!("KEYS says that {key:?} is that of job {seq}, its spec does not"));
            }
        })?;
        for (id, seq) in &ids.missing {
            self.report.wrong(7, || format!("job {seq} is called {id}, but IDS lacks it"));
        }
        for (key, seq) in &keys.missing {
            self.report.wrong(7, || format!("job {seq} has the key {key:?}, but KEYS lacks it"));
        }
        for name in ids.twice.iter().chain(&keys.twice) {
            self.report.wrong(7, || format!("two jobs have the id or key {name:?}"));
        }
        for bulk in &self.seen.bulks.0 {
            let unnamed = ids.unpublished.iter().chain(&keys.unpublished);
            let actual = unnamed.filter(|(_, seq)| bulk.has(Seq(*seq))).count() as u64;
            if actual != bulk.unnamed {
                let (number, counts) = (bulk.number, bulk.unnamed);
                self.report.wrong(10, || format!("bulk {number} counts {counts} names to come, has {actual}"));
            }
        }
        Ok(())
    }

    fn environments(&mut self) -> Result<(), StoreError> {
        let mut present = BTreeSet::new();
        self.records(ENVS, |_, key, _: EnvRecord| {
            present.insert(key);
        })?;
        let mut expected = std::mem::take(&mut self.seen.env_refs);
        for key in expected.keys().filter(|key| !present.contains(key)) {
            self.report.wrong(1, || format!("environment {key:032x} is missing"));
        }
        self.records(ENV_REFS, |check, key, count: u64| {
            let actual = expected.remove(&key).unwrap_or_default();
            if actual != count || !present.remove(&key) {
                check.report.wrong(8, || format!("environment {key:032x} counts {count} jobs, has {actual}"));
            }
        })?;
        for key in expected.keys().chain(&present) {
            self.report.wrong(8, || format!("environment {key:032x} has no count of its jobs"));
        }
        Ok(())
    }

    fn attempts(&mut self) -> Result<(), StoreError> {
        let mut next: BTreeMap<u64, u32> = BTreeMap::new();
        self.records(ATTEMPTS, |check, (seq, number), attempt: AttemptRecord| {
            let expected = next.entry(seq).or_insert(1);
            if number != *expected {
                check.report.wrong(5, || format!("job {seq} has attempt {number} where {expected} belongs"));
            }
            *expected = number.saturating_add(1);
            if attempt.ended < attempt.started {
                check.report.wrong(5, || format!("attempt {number} of job {seq} ends before it starts"));
            }
            check.note_outputs(seq, number, &attempt);
        })?;
        for (seq, count) in &self.seen.attempts {
            let found = next.remove(seq).map_or(0, |next| next - 1);
            if found != *count {
                self.report.wrong(5, || format!("job {seq} counts {count} attempts, has {found}"));
            }
        }
        for seq in next.keys() {
            self.report.wrong(1, || format!("ATTEMPTS has {seq}, which is no job"));
        }
        Ok(())
    }

    fn note_outputs(&mut self, seq: u64, number: u32, attempt: &AttemptRecord) {
        use crate::model::Stream;
        for (code, stream, kept) in [(STDOUT, Stream::Stdout, attempt.stdout), (STDERR, Stream::Stderr, attempt.stderr)]
        {
            match kept {
                KeptRecord::Empty | KeptRecord::LetGo(_) => {}
                KeptRecord::Inline(bytes) => {
                    self.seen.outputs.insert((seq, number, code), bytes);
                }
                KeptRecord::File { bytes, .. } => self.report.files.push((Seq(seq), number, stream, bytes)),
            }
        }
    }

    fn outputs(&mut self) -> Result<(), StoreError> {
        let mut expected = std::mem::take(&mut self.seen.outputs);
        self.records(OUTPUT, |check, key, bytes: ByteBuf| {
            if expected.remove(&key) != Some(bytes.len() as u64) {
                check.report.wrong(8, || format!("OUTPUT {key:?} is not what its attempt says"));
            }
        })?;
        for key in expected.keys() {
            self.report.wrong(8, || format!("OUTPUT {key:?} is missing"));
        }
        Ok(())
    }

    fn tags(&mut self) -> Result<(), StoreError> {
        let mut missing = std::mem::take(&mut self.seen.labels);
        for row in redb::ReadableTable::iter(&self.snapshot.open(TAGS)?)? {
            let key = row?.0;
            let (tag, value, seq) = key.value();
            if !self.seen.attempts.contains_key(&seq) {
                self.report.wrong(1, || format!("TAGS has {seq}, which is no job"));
            } else if !missing.remove(&(tag.to_owned(), value.to_owned(), seq)) {
                self.report.wrong(7, || format!("TAGS says {tag:?} {value:?} of job {seq}, its spec does not"));
            }
        }
        for (tag, value, seq) in missing {
            self.report.wrong(7, || format!("the spec of job {seq} says {tag:?} {value:?}, but TAGS lacks it"));
        }
        Ok(())
    }

    fn needs(&mut self) -> Result<(), StoreError> {
        let (jobs, mut mirror, mut needed) = (self.snapshot.open(JOBS)?, BTreeSet::new(), BTreeSet::new());
        for row in redb::ReadableTable::iter(&self.snapshot.open(NEEDED_BY)?)? {
            let key = row?.0.value();
            mirror.insert((key.1, key.0));
            needed.insert(key.0);
        }
        for seq in needed.symmetric_difference(&self.seen.needed) {
            self.report.wrong(9, || format!("NEEDED_BY and the record of job {seq} disagree whether it is needed"));
        }
        let mut unsettled = BTreeMap::new();
        self.records(UNSETTLED, |check, seq, from: u64| {
            if !needed.contains(&seq) {
                check.report.wrong(9, || format!("UNSETTLED has {seq}, which nobody needs"));
            }
            unsettled.insert(seq, from);
        })?;
        // A record that cannot be read was reported.
        let record = |seq| super::tables::get::<_, JobRecord>(&jobs, seq).ok().flatten();
        let mut unmet: BTreeMap<u64, u32> = BTreeMap::new();
        self.records(NEEDS, |check, (seq, needed), need: NeedRecord| {
            for end in [seq, needed] {
                if !check.seen.attempts.contains_key(&end) {
                    check.report.wrong(1, || format!("NEEDS has {end}, which is no job"));
                }
            }
            if !mirror.remove(&(seq, needed)) {
                check.report.wrong(9, || format!("job {seq} needs {needed}, which does not know it"));
            }
            if need.met {
                return;
            }
            *unmet.entry(seq).or_default() += 1;
            let (Some(waiting), Some(record)) = (record(seq), record(needed)) else { return };
            match waiting.kind() {
                StateKind::Cancelled => {}
                StateKind::Blocked => {
                    let is_told = !record.kind().has_ended()
                        || unsettled.get(&needed).is_some_and(|from| *from <= seq)
                        || check
                            .seen
                            .bulks
                            .0
                            .iter()
                            .any(|bulk| bulk.has(Seq(seq)) && bulk.failed_needs.contains(&needed));
                    if !is_told {
                        check.report.wrong(9, || format!("job {seq} waits for {needed}, which has ended"));
                    }
                }
                other => check.report.wrong(9, || format!("job {seq} is {}, and needs {needed}", other.name())),
            }
        })?;
        for (seq, needed) in mirror {
            self.report.wrong(9, || format!("job {needed} is said to be needed by {seq}, which does not say so"));
        }
        for (seq, count) in std::mem::take(&mut self.seen.needs) {
            let actual = unmet.get(&seq).copied().unwrap_or_default();
            if actual != count {
                self.report.wrong(9, || format!("job {seq} waits for {count} jobs, and has {actual} needs"));
            }
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<(), StoreError> {
        let head = self.snapshot.head()?;
        let last = |found: Option<&u64>| found.copied().unwrap_or_default();
        let set_aside = self.seen.bulks.0.iter().flat_map(|bulk| &bulk.ranges).map(|(_, last)| *last).max();
        let set_aside = set_aside.unwrap_or_default();
        let in_use = [
            ("seq", head.next_seq, last(self.seen.attempts.keys().next_back()).max(set_aside)),
            ("lease", head.next_lease, last(self.seen.leases.last())),
            ("lane", head.next_lane, last(self.seen.lanes.last())),
            ("run", head.next_run, self.seen.next_run.saturating_sub(1)),
        ];
        for (what, next, used) in in_use {
            if next <= used {
                self.report.wrong(7, || format!("the next {what} is {next}, but {used} is in use"));
            }
        }
        let present = self.report.jobs;
        if head.enqueued != present + head.removed {
            let (enqueued, removed) = (head.enqueued, head.removed);
            self.report.wrong(3, || format!("{enqueued} enqueued, {present} present and {removed} removed"));
        }
        Ok(())
    }
}
