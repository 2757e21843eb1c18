//! How small the file gets, that it is the same queue, and that room is used again.

use std::time::Duration;

use tempfile::TempDir;

use super::super::tests::{pool, temp_queue};
use super::super::{ClaimCache, OnWait, Serves};
use super::*;
use crate::model::{Command, Ending, JobId, JobSpec, Kept, Millis, Outcome, Run};

/// A moment of this time, since small numbers take less room.
const NOW: u64 = 1_790_000_000_000;
/// A job of many, completed, with its history and output, takes no more.
const BYTES_A_JOB_MAX: u64 = 400;

fn on_wait() -> OnWait {
    Box::new(|| {})
}

fn seized(dir: &TempDir) -> Seized {
    Seized::new(dir.path(), &on_wait()).unwrap()
}

/// A short job in a folder with a name of the usual length.
fn echo() -> JobSpec {
    JobSpec::new(Command::Shell(b"echo hello".to_vec()), "/home/somebody/projects/something/data")
}

fn completed(at: u64) -> Ending {
    Ending::Ran(Run {
        slot: 1,
        started: Millis(at),
        ended: Millis(at + 2),
        outcome: Outcome::Completed,
        counts_as_loss: true,
        exit_code: Some(0),
        signal: None,
        cpu: Duration::from_millis(2),
        max_rss_bytes: 7 * 1024 * 1024,
        error: None,
        stdout: Kept::Inline(b"hello\n".to_vec()),
        stderr: Kept::Empty,
    })
}

/// Enqueues and completes so many jobs, some at a time.
fn work(store: &Store, jobs: usize) -> Vec<JobId> {
    let info = pool("k3d9");
    let _ = store.write(Millis(NOW), |tx| tx.register(&info)).unwrap();
    let (mut cache, mut ids) = (ClaimCache::default(), Vec::new());
    for _ in 0..jobs / 1_000 {
        let many = vec![echo(); 1_000];
        let enqueued = store.write(Millis(NOW), |tx| tx.enqueue(&many)).unwrap();
        ids.extend(enqueued.into_iter().map(|job| job.id));
    }
    loop {
        let claims = store.write(Millis(NOW), |tx| tx.claim(&info.id, &Serves::AllQueues, 40, &mut cache)).unwrap();
        if claims.is_empty() {
            return ids;
        }
        let finish = |tx: &mut super::super::Tx<'_>| {
            claims.iter().try_for_each(|claim| tx.finish(&claim.token, &completed(NOW)).map(drop))
        };
        store.write(Millis(NOW), finish).unwrap();
    }
}

fn remove(store: &Store, ids: &[JobId]) {
    for some in ids.chunks(500) {
        store.write(Millis(NOW), |tx| tx.remove(some)).unwrap();
    }
}

fn length(dir: &TempDir) -> u64 {
    fs::metadata(file_of(dir.path())).unwrap().len()
}

#[test]
fn a_completed_job_takes_little_and_the_queue_stays_the_same() {
    const JOBS: u64 = 4_000;
    let (dir, store) = temp_queue();
    let ids = work(&store, 2 * 4_000);
    remove(&store, &ids[4_000..]);
    let was = store.read(Snapshot::fingerprint).unwrap();
    let before = length(&dir);
    drop(store);
    let opened_before = Store::open(dir.path(), on_wait()).unwrap();
    let done = compact(seized(&dir)).unwrap();
    let late = opened_before.write(Millis(NOW), |tx| tx.enqueue(&[echo()]));
    assert!(matches!(late, Err(StoreError::Replaced)), "{late:?}");
    assert_eq!(opened_before.read(Snapshot::fingerprint).unwrap(), was, "readers go on");
    drop(opened_before);
    assert_eq!((done.jobs, done.after), (JOBS, length(&dir)));
    assert!(done.after < done.before && done.before <= before, "{done:?}");
    let store = Store::open(dir.path(), on_wait()).unwrap();
    let (bytes, pages) = store.allocated().unwrap();
    println!("{} bytes a job allocated in {pages} pages; the file: {done:?}", bytes / JOBS);
    assert!(bytes / JOBS <= BYTES_A_JOB_MAX && done.after / JOBS <= BYTES_A_JOB_MAX, "{bytes} bytes, {done:?}");
    assert_eq!(store.read(Snapshot::fingerprint).unwrap(), was);
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0]);
    work(&store, 1_000);
    assert_eq!(store.read(Snapshot::check).unwrap().jobs, JOBS + 1_000);
    drop(store);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "scraps are left");
}

/// Rounds of work that is removed.
fn rounds(rounds: usize, jobs: usize) {
    let (dir, store) = temp_queue();
    let mut lengths = Vec::new();
    for _ in 0..rounds {
        let ids = work(&store, jobs);
        remove(&store, &ids);
        lengths.push(length(&dir));
    }
    println!("{rounds} times {jobs} jobs, removed each time: bytes of the file after each: {lengths:?}");
    assert!(lengths.iter().all(|length| *length <= 2 * lengths[0]), "{lengths:?}");
}

#[test]
fn the_room_of_what_was_removed_is_used_again() {
    rounds(10, 2_000);
}

/// `cargo test --release --lib store::compact -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn the_room_of_much_that_was_removed_is_used_again() {
    rounds(20, 100_000);
}

#[test]
fn a_queue_that_is_deleted_meanwhile_is_said_to_be() {
    let (dir, store) = temp_queue();
    store.leave();
    let seized = seized(&dir);
    fs::remove_dir_all(dir.path()).unwrap();
    let gone = compact(seized);
    assert!(matches!(gone, Err(StoreError::Gone)), "{gone:?}");
}

#[test]
fn a_queue_of_an_older_schema_stays_one_until_it_is_changed() {
    let (dir, store) = temp_queue();
    store.write(Millis(1), |tx| tx.set_schema(4)).unwrap();
    store.close().unwrap();
    compact(seized(&dir)).unwrap();
    let store = Store::open(dir.path(), on_wait()).unwrap();
    assert_eq!(store.read(Snapshot::schema).unwrap(), Some(4));
    store.write(Millis(2), |tx| tx.enqueue(&[echo()])).unwrap();
    assert_eq!(store.read(Snapshot::schema).unwrap(), Some(super::super::SCHEMA_VERSION));
}
