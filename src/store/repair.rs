//! Repair: the queue made anew from what can be read of its jobs, beside the damaged file and then in its place.
//!
//! The file itself is only read. redb's own check runs on a copy, since it repairs unasked. The queue stays [`Seized`]
//! from the copy to the rename; the file as it was is kept.
//!
//! # Crash points
//!
//! Until the rename of [`Seized::replace_file`] the queue is what it was, and `repair.tmp` holds scraps that the next
//! repair or compaction removes. After it the queue is whole; `repair.tmp` may still be there.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, Key, ReadableTable, TableDefinition, Value};

use rustix::fs::{Mode, OFlags};

use super::StoreError;
use super::codec::decode;
use super::open::{Store, fence, file_of, missing};
use super::records::{Head, JobRecord, StateRecord};
use super::replace::Seized;
use super::salvage::Salvage;
use super::scraps::Scraps;
use super::tables::{
    COUNTS, ENV_REFS, FINISHED, IDS, KEYS, LEASES, NEEDED_BY, QUEUES, READY, RUNS, SCHEDULE, Snapshot, TAGS,
    known_schema,
};
use super::turnstile::OnWait;
use super::whole::{Part, WholeJob};
use crate::model::{CLOCK_BEHIND_WORTH_SAYING, Millis};

/// Most lines of each kind that are kept: a damaged file can have one for every job.
const LINES_MAX: usize = 1_000;

/// Lines, bounded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The first thousand.
    pub lines: Vec<String>,
    /// How many there are in all.
    pub found: usize,
}

impl Lines {
    fn add(&mut self, line: String) {
        self.found += 1;
        if self.lines.len() < LINES_MAX {
            self.lines.push(line);
        }
    }
}

/// What a repair found.
#[derive(Debug, Default)]
pub struct Repaired {
    /// How many jobs the queue has now.
    pub jobs: u64,
    /// Where the indexes, counts and counters differed from what the jobs say.
    pub differences: Lines,
    /// What could not be read, and what became of it.
    pub lost: Lines,
    /// How far the file's time was set back, since it was more than a day ahead of the clock.
    pub set_back: Option<Duration>,
    /// The file as it was; `None` if there was nothing to repair, and nothing was changed.
    pub kept: Option<PathBuf>,
}

/// Makes the queue anew from its jobs, if anything of it is wrong. No pool may live or be unrecovered.
pub fn repair(queue: Seized, now: Millis) -> Result<Repaired, StoreError> {
    let scraps = Scraps::make(queue.folder(), "repair.tmp")?;
    let copy = file_of(&scraps.path("old")?);
    fs::copy(queue.file(), &copy)?;
    let fresh = scraps.path("new")?;
    fs::create_dir(fresh.join("run"))?;
    let (new, _) = Store::open_or_create(&fresh, Box::new(|| {}))?;
    let mut repaired = Repaired::default();
    let old = Salvage::open(queue.folder(), &scraps.path("mended")?)?;
    let had_jobs = old.store.read(Snapshot::head).map_or(true, |head| head.enqueued > head.removed);
    old.losses().for_each(|loss| repaired.lost.add(loss));
    old.store.read(|before| rebuild(before, &new, now, &mut repaired))?;
    if let Some(wrong) = integrity(|| Builder::new().open(&copy))? {
        repaired.differences.add(format!("redb says: {wrong}"));
    }
    new.read(|snapshot| {
        let report = snapshot.check()?;
        repaired.jobs = report.jobs;
        if report.jobs == 0 && had_jobs && repaired.lost.found > 0 {
            return Err(StoreError::Damaged("none of its jobs can be read".to_owned()));
        }
        // A repair that is wrong itself must not take the place of anything.
        report.violations.first().map_or(Ok(()), |what| {
            Err(StoreError::Damaged(format!("what can be read of it makes no sound queue: {what}")))
        })
    })?;
    new.close()?;
    if repaired.differences.found + repaired.lost.found > 0 || repaired.set_back.is_some() {
        repaired.kept = Some(queue.replace_file(&file_of(&fresh), "queue.redb.before-repair")?);
    }
    Ok(repaired)
}

/// Fills `new` with what can be read of `old`, and compares their indexes.
fn rebuild(before: &Snapshot, new: &Store, now: Millis, repaired: &mut Repaired) -> Result<(), StoreError> {
    // What is no queue at all has no tables of jobs; a lost version is one loss among others.
    if let Ok(Some(found)) = fence(|| before.schema()) {
        known_schema(found)?;
    }
    let newest = fence(|| before.head()).map(|head| head.newest).unwrap_or_default();
    let ahead = Millis(newest).since(now);
    repaired.set_back = (ahead > CLOCK_BEHIND_WORTH_SAYING).then_some(ahead);
    let limit = repaired.set_back.map(|_| now.0);
    let lost = &mut repaired.lost;
    before.copy_to(
        new,
        &mut |what| {
            lost.add(what);
            Ok(())
        },
        &mut |part| {
            if let Some(now) = limit {
                set_back(part, newest, now);
            }
        },
    )?;
    if repaired.set_back.is_none() {
        new.read(|after| compare_all(before, after, &mut repaired.differences))?;
    }
    Ok(())
}

/// Runs redb's own check on a copy of the queue file, and tells what it finds wrong. Writers are kept out while the
/// copy is made, in the queue's folder, or in `spare` if there is no room or right. The copy has no name, so nothing is
/// left of it however this ends.
pub fn check_pages(folder: &Path, spare: &Path, on_wait: &OnWait) -> Result<Option<String>, StoreError> {
    let queue = Seized::new(folder, on_wait)?;
    let mut file = File::open(queue.file()).map_err(|error| missing(folder, error))?;
    let mut copy_in = |folder: &Path| {
        file.rewind()?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut copy = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(&mut file, &mut copy)?;
        Ok::<_, io::Error>(copy)
    };
    let copy = copy_in(folder).or_else(|_| copy_in(spare))?;
    drop(queue);
    integrity(|| Builder::new().create_with_backend(FileBackend::new(copy)?))
}

/// What redb's own check finds wrong with a file that is nobody else's, which it may change.
fn integrity(open: impl FnOnce() -> Result<Database, DatabaseError>) -> Result<Option<String>, StoreError> {
    let checked = fence(|| {
        let mut database = match open() {
            Ok(database) => database,
            Err(error) => return Ok(Some(format!("the file cannot be opened: {error}"))),
        };
        let found = match database.check_integrity() {
            Ok(true) => None,
            Ok(false) => Some("its pages are not all what their checksums say, or not all accounted for".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if found.is_some() {
            // Closing a damaged file can panic.
            std::mem::forget(database);
        }
        Ok(found)
    });
    match checked {
        // A panic is a finding like any other.
        Err(StoreError::Damaged(what)) => Ok(Some(what)),
        checked => checked,
    }
}

/// Makes the times of a part, which reach up to `newest`, those of a file that is at `now`.
fn set_back(part: &mut Part, newest: u64, now: u64) {
    match part {
        Part::Job(job) => set_back_job(job, newest, now),
        // Nothing goes by its age before a day has passed.
        Part::Head(head) => (head.newest, head.leapt) = (now, now),
        Part::Lane { record, .. } => {
            if let super::records::LaneKind::Run(run) = &mut record.kind {
                run.created = run.created.min(now);
            }
        }
        Part::Setting { .. } => {}
    }
}

fn set_back_job(job: &mut WholeJob, newest: u64, now: u64) {
    let past = |at: &mut u64| *at = (*at).min(now);
    let JobRecord { created, updated, state, .. } = &mut job.record;
    past(created);
    past(updated);
    match state {
        StateRecord::Completed { at }
        | StateRecord::Dead { at, .. }
        | StateRecord::Cancelled { at, .. }
        | StateRecord::Processing { at, .. } => past(at),
        // It was counted from a time that was wrong. A start time was not: somebody wrote it.
        StateRecord::Failed { due, .. } => *due = now.saturating_add(due.saturating_sub(newest)),
        StateRecord::Scheduled { .. } | StateRecord::Blocked { .. } | StateRecord::Pending => {}
    }
    for attempt in &mut job.attempts {
        past(&mut attempt.record.started);
        past(&mut attempt.record.ended);
    }
}

/// Compares every table that follows from others.
fn compare_all(old: &Snapshot, new: &Snapshot, differences: &mut Lines) -> Result<(), StoreError> {
    compare(old, new, READY, |_| String::new(), differences)?;
    compare(old, new, SCHEDULE, |_| String::new(), differences)?;
    compare(old, new, FINISHED, |_| String::new(), differences)?;
    compare(old, new, LEASES, |_| String::new(), differences)?;
    compare(old, new, QUEUES, |_| String::new(), differences)?;
    compare(old, new, RUNS, |_| String::new(), differences)?;
    compare(old, new, NEEDED_BY, |_| String::new(), differences)?;
    compare(old, new, TAGS, |_| String::new(), differences)?;
    compare(old, new, IDS, number, differences)?;
    compare(old, new, KEYS, number, differences)?;
    compare(old, new, COUNTS, number, differences)?;
    compare(old, new, ENV_REFS, number, differences)?;
    compare_heads(old, new, differences)
}

/// The number that a record holds.
fn number(bytes: &[u8]) -> String {
    decode::<u64>("a count", bytes).map_or_else(|error| format!("nothing readable ({error})"), |n| n.to_string())
}

/// A row as bytes.
struct Row {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The next row of a table whose pages may be damaged.
fn next_row<K: Key + 'static, V: Value + 'static>(rows: &mut redb::Range<'_, K, V>) -> Result<Option<Row>, StoreError> {
    fence(|| {
        let Some((key, value)) = rows.next().transpose()? else { return Ok(None) };
        let (key, value) = (K::as_bytes(&key.value()).as_ref().to_vec(), V::as_bytes(&value.value()).as_ref().to_vec());
        Ok(Some(Row { key, value }))
    })
}

/// Tells every row in which two tables differ; the rest of an old one that cannot be read on is one line.
fn compare<K: Key + 'static, V: Value + 'static>(
    old: &Snapshot,
    new: &Snapshot,
    definition: TableDefinition<'static, K, V>,
    show: impl Fn(&[u8]) -> String,
    differences: &mut Lines,
) -> Result<(), StoreError> {
    let name = redb::TableHandle::name(&definition).to_uppercase();
    let new = new.open(definition)?;
    let mut new_rows = new.iter()?;
    let old = fence(|| old.open(definition));
    let rows = old.as_ref().map_err(ToString::to_string);
    let rows = rows.and_then(|old| fence(|| Ok(old.iter()?)).map_err(|error| error.to_string()));
    let mut old_rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            differences.add(format!("{name} cannot be read: {error}"));
            return Ok(());
        }
    };
    let mut left = next_row(&mut old_rows);
    let mut right = next_row(&mut new_rows)?;
    loop {
        let (row, order) = match (&left, &right) {
            (Err(error), _) => {
                differences.add(format!("{name} cannot be read to its end: {error}"));
                return Ok(());
            }
            (Ok(None), None) => return Ok(()),
            (Ok(Some(row)), None) => (row, Ordering::Less),
            (Ok(None), Some(row)) => (row, Ordering::Greater),
            (Ok(Some(was)), Some(is)) => match K::compare(&was.key, &is.key) {
                Ordering::Greater => (is, Ordering::Greater),
                order => (was, order),
            },
        };
        let key = format!("{:?}", K::from_bytes(&row.key));
        match order {
            Ordering::Less => differences.add(format!("{name} has {key}, which no job explains")),
            Ordering::Greater => differences.add(format!("{name} lacks {key}")),
            Ordering::Equal => {
                let (was, is) = (&row.value, right.as_ref().map_or(&row.value, |is| &is.value));
                if was != is {
                    differences.add(format!("{name} {key} is {}, not {}", show(is), show(was)));
                }
            }
        }
        if order != Ordering::Greater {
            let before = left;
            left = next_row(&mut old_rows);
            // A page that leads back to an earlier one would go on for ever.
            if let (Ok(Some(before)), Ok(Some(after))) = (&before, &left)
                && K::compare(&before.key, &after.key) != Ordering::Less
            {
                left = Err(StoreError::Damaged("its rows are out of order".to_owned()));
            }
        }
        if order != Ordering::Less {
            right = next_row(&mut new_rows)?;
        }
    }
}

fn compare_heads(old: &Snapshot, new: &Snapshot, differences: &mut Lines) -> Result<(), StoreError> {
    let Ok(old) = fence(|| old.head()) else { return Ok(()) };
    let new = new.head()?;
    let fields = |head: &Head| {
        let Head { next_seq, next_lease, next_lane, next_run, enqueued, removed, newest: _, leapt: _ } = *head;
        [
            ("the next number of a job", next_seq),
            ("the next lease", next_lease),
            ("the next lane", next_lane),
            ("the next run", next_run),
            ("the number of jobs ever enqueued", enqueued),
            ("the number of jobs removed", removed),
        ]
    };
    for ((what, was), (_, is)) in fields(&old).into_iter().zip(fields(&new)) {
        if was != is {
            differences.add(format!("{what} was {was} and is {is}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
