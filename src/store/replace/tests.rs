//! Writers that have the old file open while another takes its place.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::tests::temp_queue;
use super::super::{Snapshot, Store};
use super::*;
use crate::model::{Command, JobSpec, Millis, Seq};

fn on_wait() -> OnWait {
    Box::new(|| {})
}

fn job() -> JobSpec {
    JobSpec::new(Command::Shell(b"true".to_vec()), "/")
}

/// Puts a copy of the queue file in its place.
fn replace_by_a_copy(folder: &Path) {
    let seized = Seized::new(folder, &on_wait()).unwrap();
    let new = folder.join("new.redb");
    fs::copy(seized.file(), &new).unwrap();
    let kept = seized.replace_file(&new, "kept").unwrap();
    fs::remove_file(kept).unwrap();
}

#[test]
fn nobody_commits_into_a_file_that_was_replaced() {
    let (dir, store) = temp_queue();
    store.write(Millis(1), |tx| tx.enqueue(&[job()])).unwrap();
    replace_by_a_copy(dir.path());
    let refused = store.write(Millis(2), |tx| tx.enqueue(&[job()]));
    assert!(matches!(refused, Err(StoreError::Replaced)), "{refused:?}");
    let store = Store::open(dir.path(), on_wait()).unwrap();
    store.write(Millis(2), |tx| tx.enqueue(&[job()])).unwrap();
    assert_eq!(store.read(Snapshot::check).unwrap().jobs, 2);
}

#[test]
fn a_queue_that_was_moved_away_as_a_whole_is_still_the_same() {
    let (dir, store) = temp_queue();
    let moved = dir.path().with_extension("moved");
    fs::rename(dir.path(), &moved).unwrap();
    store.write(Millis(2), |tx| tx.enqueue(&[job()])).unwrap();
    fs::rename(&moved, dir.path()).unwrap();
}

#[test]
fn nothing_is_acknowledged_into_a_file_that_was_deleted() {
    let (dir, store) = temp_queue();
    let moved = dir.path().join("moved.redb");
    fs::rename(file_of(dir.path()), &moved).unwrap();
    store.write(Millis(2), |tx| tx.enqueue(&[job()])).unwrap();
    // In the middle of the transaction, and before it.
    for n in 0..2 {
        let refused = store.write(Millis(2), |tx| {
            if n == 0 {
                fs::remove_file(&moved).unwrap();
            }
            tx.enqueue(&[job()])
        });
        assert!(matches!(refused, Err(StoreError::Gone)), "{refused:?}");
    }
}

#[test]
fn a_turn_at_an_old_turnstile_is_no_turn() {
    let (dir, store) = temp_queue();
    let turn = dir.path().join("run/turn");
    fs::rename(&turn, dir.path().join("old-turn")).unwrap();
    fs::write(&turn, "").unwrap();
    let refused = store.write(Millis(2), |tx| tx.enqueue(&[job()]));
    assert!(matches!(refused, Err(StoreError::Replaced)), "{refused:?}");
}

#[test]
fn what_was_acknowledged_is_in_the_file_however_often_that_is_replaced() {
    const REPLACEMENTS: usize = 40;
    let (dir, store) = temp_queue();
    drop(store);
    let acknowledged = Mutex::new(BTreeSet::new());
    let refused = Mutex::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut store = Store::open(dir.path(), on_wait()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    match store.write(Millis(1), |tx| tx.enqueue(&[job()])) {
                        Ok(enqueued) => assert!(acknowledged.lock().unwrap().insert(enqueued[0].seq), "given twice"),
                        Err(StoreError::Replaced) => {
                            *refused.lock().unwrap() += 1;
                            store = Store::open(dir.path(), on_wait()).unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for _ in 0..REPLACEMENTS {
            replace_by_a_copy(dir.path());
        }
        over.store(true, Ordering::Relaxed);
    });
    let store = Store::open(dir.path(), on_wait()).unwrap();
    let report = store.read(Snapshot::check).unwrap();
    assert_eq!(report.violations, [""; 0]);
    let acknowledged = acknowledged.into_inner().unwrap();
    for seq in &acknowledged {
        assert!(store.read(|snapshot| snapshot.state(*seq)).unwrap().is_some(), "job {} is lost", seq.0);
    }
    assert_eq!(report.jobs, acknowledged.len() as u64);
    let refused = refused.into_inner().unwrap();
    println!("{} enqueued, {refused} refused", acknowledged.len());
    assert!(refused > 0 && acknowledged.contains(&Seq(1)));
}

#[test]
fn what_is_kept_takes_no_name_that_is_there() {
    let (dir, store) = temp_queue();
    store.close().unwrap();
    let kept = |n: usize| {
        let seized = Seized::new(dir.path(), &on_wait()).unwrap();
        let new = dir.path().join(format!("new{n}"));
        fs::copy(seized.file(), &new).unwrap();
        seized.replace_file(&new, "kept").unwrap().file_name().unwrap().to_owned()
    };
    assert_eq!([kept(1), kept(2), kept(3)], ["kept", "kept-2", "kept-3"]);
}
