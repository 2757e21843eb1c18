//! Repairs of queues that were damaged on purpose.

use std::collections::BTreeMap;

use redb::ConcurrencyMode;
use tempfile::TempDir;

use super::super::records::SpecRecord;
use super::super::tests::{pool, ran, temp_queue};
use super::super::whole::strictly;
use super::super::{ClaimCache, OnWait, SCHEMA_VERSION, Serves};
use super::*;
use crate::model::*;
use crate::sim::choices::Choices;
use crate::sim::{run, workload};

/// A queue with jobs in every state that has a place of its own, closed, without pools.
fn sample() -> TempDir {
    let (dir, store) = temp_queue();
    let job = |command: &str| JobSpec::new(Command::Shell(command.into()), "/");
    let named = |id: &str| JobSpec { id: Some(id.parse().unwrap()), ..job(id) };
    let later = JobSpec { start: Start::At(Millis(9_000)), ..job("later") };
    let info = pool("p001");
    let mut claims = store
        .write(Millis(10), |tx| {
            tx.register(&info)?;
            tx.enqueue(&[named("a"), named("b"), named("c"), job("d"), later])?;
            tx.claim(&info.id, &Serves::AllQueues, 4, &mut ClaimCache::default())
        })
        .unwrap();
    let mut end = |outcome, at| {
        let claim = claims.remove(0);
        store.write(Millis(at), |tx| tx.finish(&claim.token, &ran(outcome, at))).unwrap();
    };
    end(Outcome::Completed, 20);
    end(Outcome::Failed, 21);
    store.write(Millis(22), |tx| tx.finish(&claims.remove(0).token, &Ending::NotStarted)).unwrap();
    store.write(Millis(22), |tx| tx.finish(&claims.remove(0).token, &Ending::NotStarted)).unwrap();
    store.write(Millis(23), |tx| tx.cancel(&["c".parse().unwrap()])).unwrap();
    store.write(Millis(24), |tx| tx.retire(&info.id, "stopped")).unwrap();
    store.close().unwrap();
    dir
}

fn open(dir: &TempDir) -> Store {
    Store::open(dir.path(), Box::new(|| {})).unwrap()
}

fn jobs(store: &Store) -> BTreeMap<u64, WholeJob> {
    let mut jobs = BTreeMap::new();
    let read = store.read(|snapshot| {
        snapshot.parts(&mut strictly, &mut |part| {
            if let Part::Job(job) = part {
                jobs.insert(job.seq, *job);
            }
            Ok(())
        })
    });
    read.unwrap();
    jobs
}

fn repaired(dir: &TempDir) -> Repaired {
    let seized = Seized::new(dir.path(), &(Box::new(|| {}) as OnWait)).unwrap();
    repair(seized, Millis(30)).unwrap()
}

/// Changes the tables of a closed queue behind the store's back.
fn tamper(dir: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let database = builder.open(file_of(dir.path())).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

#[test]
fn nothing_to_repair_changes_nothing() {
    let dir = sample();
    let before = fs::read(file_of(dir.path())).unwrap();
    let found = repaired(&dir);
    assert_eq!((found.kept, found.differences, found.lost, found.jobs), (None, Lines::default(), Lines::default(), 5));
    assert!(fs::read(file_of(dir.path())).unwrap() == before);
    assert!(!dir.path().join("repair.tmp").exists());
}

#[test]
fn an_older_schema_is_no_difference_and_what_is_made_anew_is_of_this_one() {
    let dir = sample();
    let before = jobs(&open(&dir));
    open(&dir).write(Millis(25), |tx| tx.set_schema(4)).unwrap();
    assert_eq!(repaired(&dir).kept, None);
    tamper(&dir, |t| drop(t.open_table(READY).unwrap().remove((1, 100, 4)).unwrap()));
    assert_eq!(open(&dir).read(Snapshot::schema).unwrap(), Some(4));
    assert!(repaired(&dir).kept.is_some());
    assert_eq!(open(&dir).read(Snapshot::schema).unwrap(), Some(SCHEMA_VERSION));
    assert_eq!(jobs(&open(&dir)), before);
}

/// After tampering repair tells exactly these differences, and the jobs are what they were.
#[track_caller]
fn tells(what: &str, change: impl FnOnce(&redb::WriteTransaction), lines: &[&str]) {
    let dir = sample();
    let before = jobs(&open(&dir));
    tamper(&dir, change);
    let tampered = fs::read(file_of(dir.path())).unwrap();
    let found = repaired(&dir);
    assert_eq!(found.differences.lines, lines, "{what}");
    assert_eq!(found.lost.lines, [""; 0], "{what}");
    assert!(fs::read(found.kept.unwrap()).unwrap() == tampered, "{what}: the old file is kept as it was");
    let store = open(&dir);
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0], "{what}");
    assert_eq!(jobs(&store), before, "{what}");
}

#[test]
fn every_index_is_made_anew_and_each_difference_told() {
    let bytes = |n: u64| super::super::codec::encode(&n).unwrap();
    tells(
        "READY lacks",
        |t| drop(t.open_table(READY).unwrap().remove((1, 100, 4)).unwrap()),
        &["READY lacks (1, 100, 4)"],
    );
    tells(
        "READY has more",
        |t| drop(t.open_table(READY).unwrap().insert((1, 100, 1), ()).unwrap()),
        &["READY has (1, 100, 1), which no job explains"],
    );
    tells(
        "READY has another",
        |t| {
            let mut ready = t.open_table(READY).unwrap();
            ready.remove((1, 100, 4)).unwrap();
            ready.insert((2, 100, 4), ()).unwrap();
        },
        &["READY lacks (1, 100, 4)", "READY has (2, 100, 4), which no job explains"],
    );
    tells(
        "SCHEDULE",
        |t| drop(t.open_table(SCHEDULE).unwrap().remove((1, 9_000, 5)).unwrap()),
        &["SCHEDULE lacks (1, 9000, 5)"],
    );
    tells(
        "FINISHED",
        |t| drop(t.open_table(FINISHED).unwrap().remove((5, 20, 1)).unwrap()),
        &["FINISHED lacks (5, 20, 1)"],
    );
    tells(
        "LEASES",
        |t| drop(t.open_table(LEASES).unwrap().insert(("p001", 4), ()).unwrap()),
        &["LEASES has (\"p001\", 4), which no job explains"],
    );
    tells("IDS lacks", |t| drop(t.open_table(IDS).unwrap().remove("a").unwrap()), &["IDS lacks \"a\""]);
    tells(
        "IDS has another",
        |t| drop(t.open_table(IDS).unwrap().insert("a", bytes(2).as_slice()).unwrap()),
        &["IDS \"a\" is 1, not 2"],
    );
    tells(
        "COUNTS",
        |t| drop(t.open_table(COUNTS).unwrap().insert((1, 2), bytes(7).as_slice()).unwrap()),
        &["COUNTS (1, 2) is 1, not 7"],
    );
    tells(
        "COUNTS that cannot be read",
        |t| drop(t.open_table(COUNTS).unwrap().insert((1, 2), b"x".as_slice()).unwrap()),
        &["COUNTS (1, 2) is 1, not nothing readable (the queue file is damaged: a record in a count is cut short)"],
    );
    tells(
        "QUEUES",
        |t| drop(t.open_table(QUEUES).unwrap().remove(("default", 1)).unwrap()),
        &["QUEUES lacks (\"default\", 1)"],
    );
    tells(
        "RUNS",
        |t| drop(t.open_table(RUNS).unwrap().insert((7, 9), ()).unwrap()),
        &["RUNS has (7, 9), which no job explains"],
    );
    tells(
        "NEEDED_BY",
        |t| drop(t.open_table(NEEDED_BY).unwrap().insert((1, 4), ()).unwrap()),
        &["NEEDED_BY has (1, 4), which no job explains"],
    );
    tells(
        "TAGS",
        |t| drop(t.open_table(TAGS).unwrap().insert(("k", "v", 4), ()).unwrap()),
        &["TAGS has (\"k\", \"v\", 4), which no job explains"],
    );
    tells(
        "ENV_REFS",
        |t| t.open_table(ENV_REFS).unwrap().retain(|_, _| false).unwrap(),
        &["ENV_REFS lacks 173616039563374712658519624437139989053"],
    );
}

/// A queue with some pages of every table.
fn large() -> TempDir {
    let (dir, store) = temp_queue();
    run(&store, &workload::seeded(1, 150)).unwrap_or_else(|mismatch| panic!("{mismatch}"));
    let job = |n: u64| JobSpec {
        id: n.is_multiple_of(3).then(|| format!("extra-{n}").parse().unwrap()),
        ..JobSpec::new(Command::Shell(format!("echo {n}; echo of some length to fill the pages").into()), "/")
    };
    let info = pool("p999");
    let mut cache = ClaimCache::default();
    let now = store.read(Snapshot::newest).unwrap();
    store.write(now, |tx| tx.enqueue(&(0..200).map(job).collect::<Vec<_>>())).unwrap();
    store.write(now, |tx| tx.register(&info)).unwrap();
    let claims = store.write(now, |tx| tx.claim(&info.id, &Serves::AllQueues, 100, &mut cache)).unwrap();
    for (n, claim) in claims.iter().enumerate() {
        let outcome = if n.is_multiple_of(3) { Outcome::Failed } else { Outcome::Completed };
        store.write(now, |tx| tx.finish(&claim.token, &ran(outcome, now.0))).unwrap();
    }
    store.close().unwrap();
    // Without pools and claims, as a repair finds it.
    let (fresh_dir, fresh) = temp_queue();
    open(&dir).read(|snapshot| snapshot.copy_whole(&fresh)).unwrap();
    fresh.close().unwrap();
    fresh_dir
}

/// What a repair may make of a job: what it was, or less, but never something that runs on a guess.
fn is_right(was: &WholeJob, is: &WholeJob) -> Result<(), String> {
    let (old, new) = (&was.record, &is.record);
    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {was:?} became {is:?}")) };
    check(SpecRecord { env: 0, ..was.spec.clone() } == SpecRecord { env: 0, ..is.spec.clone() }, "its spec")?;
    let same_state = old.state == new.state;
    let made_up = matches!((&old.state, &new.state), (StateRecord::Completed { .. }, StateRecord::Completed { .. }));
    let cancelled = matches!(new.state, StateRecord::Cancelled { .. });
    check(same_state || made_up || cancelled, "its state")?;
    if !new.kind().has_ended() {
        check(old.lane == new.lane && old.rank == new.rank, "where it runs")?;
        check(was.env == is.env, "its environment")?;
        let unmet = |job: &WholeJob| job.needs.iter().filter(|(_, need)| !need.met).copied().collect::<Vec<_>>();
        check(unmet(was) == unmet(is), "what it waits for")?;
    }
    for (was, is) in was.attempts.iter().zip(&is.attempts) {
        let lost = is.record.error.as_ref().is_some_and(|error| error.contains("damaged queue file"));
        check(lost || was.record.outcome == is.record.outcome, "an attempt")?;
        check(lost || is.stdout.is_none() || was.stdout == is.stdout, "an output")?;
    }
    Ok(())
}

#[test]
fn flipped_bits_on_every_page_cost_no_more_than_what_they_hit() {
    let whole = large();
    let before = jobs(&open(&whole));
    let bytes = fs::read(file_of(whole.path())).unwrap();
    let (mut kept, mut lost, mut refused, mut untouched) = (0, 0, 0, 0);
    let mut choices = Choices::seeded(1);
    for page in 0..bytes.len() / 4096 {
        if bytes[page * 4096..(page + 1) * 4096].iter().all(|byte| *byte == 0) {
            continue;
        }
        for _ in 0..FLIPS_A_PAGE {
            let at = page * 4096 + choices.index(4096);
            let bit = choices.byte(8);
            let dir = whole_copy(&bytes, at, bit);
            let seized = Seized::new(dir.path(), &(Box::new(|| {}) as OnWait)).unwrap();
            let found = match repair(seized, Millis(u64::MAX / 2)) {
                Ok(found) => found,
                Err(StoreError::Damaged(_) | StoreError::NotAQueue(_) | StoreError::Schema { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("byte {at} bit {bit}: {other}"),
            };
            untouched += usize::from(found.kept.is_none());
            let store = open(&dir);
            assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0], "byte {at} bit {bit}");
            for (seq, job) in jobs(&store) {
                let was = before.get(&seq).unwrap_or_else(|| panic!("byte {at} bit {bit}: job {seq} never was"));
                is_right(was, &job).unwrap_or_else(|what| panic!("byte {at} bit {bit}: {what}"));
                kept += 1;
            }
            lost += before.len() - usize::try_from(found.jobs).unwrap();
        }
    }
    println!("{} jobs; kept {kept}, lost {lost}, refused {refused} files, {untouched} untouched", before.len());
    assert!(kept > 50 * lost, "kept {kept}, lost {lost}");
}

const FLIPS_A_PAGE: usize = 4;

fn whole_copy(bytes: &[u8], at: usize, bit: u8) -> TempDir {
    let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    fs::write(file_of(dir.path()), bytes).unwrap();
    dir
}

#[test]
fn a_file_more_than_a_day_ahead_is_set_back() {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let (dir, store) = temp_queue();
    let job = |command: &str| JobSpec::new(Command::Shell(command.into()), "/");
    let wanted = JobSpec { start: Start::At(Millis(9 * DAY)), ..job("at a time that somebody wrote") };
    let info = pool("p001");
    let at = Millis(5 * DAY);
    let claims = store
        .write(at, |tx| {
            tx.register(&info)?;
            tx.enqueue(&[job("completes"), job("fails"), wanted])?;
            tx.claim(&info.id, &Serves::AllQueues, 2, &mut ClaimCache::default())
        })
        .unwrap();
    for (claim, outcome) in claims.iter().zip([Outcome::Completed, Outcome::Failed]) {
        store.write(at, |tx| tx.finish(&claim.token, &ran(outcome, at.0))).unwrap();
    }
    store.write(at, |tx| tx.retire(&info.id, "stopped")).unwrap();
    store.close().unwrap();
    let repaired = |now: u64| repair(Seized::new(dir.path(), &(Box::new(|| {}) as OnWait)).unwrap(), Millis(now));
    assert_eq!(repaired(4 * DAY).unwrap().set_back, None, "a day is no reason");
    let now = 4 * DAY - 1;
    let found = repaired(now).unwrap();
    assert_eq!((found.set_back, found.lost.found), (Some(Duration::from_millis(DAY + 1)), 0));
    let store = open(&dir);
    assert_eq!(store.read(Snapshot::newest).unwrap(), Millis(now));
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0]);
    let states: Vec<StateRecord> = jobs(&store).into_values().map(|job| job.record.state).collect();
    // A retry waits as long as it would have; base 2, the first failure.
    let failed = StateRecord::Failed { due: now + 2_000, allowed: 3 };
    assert_eq!(
        states,
        [StateRecord::Completed { at: now }, failed, StateRecord::Scheduled { due: 9 * DAY, held: false }]
    );
    assert_eq!(store.write(Millis(now + 5), |tx| Ok(tx.now())).unwrap(), Millis(now + 5));
}
