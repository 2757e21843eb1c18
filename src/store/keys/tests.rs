//! Every rule against a job in every state, and against another of the same batch.

use super::super::tests::{pool, ran, temp_queue};
use super::super::{ClaimCache, Serves, Store};
use super::*;
use crate::model::{Command, Millis, Outcome, Start};

fn job(key: &str, if_exists: IfExists) -> JobSpec {
    let key = (!key.is_empty()).then(|| key.parse().unwrap());
    JobSpec { key, if_exists, max_retries: Some(0), ..JobSpec::new(Command::Shell(b"true".to_vec()), "/") }
}

fn enqueue(store: &Store, specs: &[JobSpec]) -> Result<Vec<(u64, Met)>, StoreError> {
    let before = store.read(Snapshot::fingerprint)?;
    let done = store.write(Millis(9), |tx| tx.enqueue(specs));
    assert_eq!(store.read(Snapshot::check)?.violations, [""; 0]);
    let changed = store.read(Snapshot::fingerprint)? != before;
    match &done {
        Ok(jobs) => assert_eq!(changed, jobs.iter().any(|job| !matches!(job.met, Met::Exists(_)))),
        Err(_) => assert!(!changed),
    }
    Ok(done?.into_iter().map(|job| (job.seq.0, job.met)).collect())
}

fn owner(store: &Store, key: &str) -> Option<u64> {
    store.read(|snapshot| snapshot.job_of_key(&key.parse().unwrap())).unwrap().map(|seq| seq.0)
}

/// A queue whose job 1 has the key `k` and is in this state.
fn with(kind: StateKind) -> (tempfile::TempDir, Store) {
    let (dir, store) = temp_queue();
    let start = if kind == StateKind::Scheduled { Start::At(Millis(99)) } else { Start::Now };
    let retries = if kind == StateKind::Failed { Some(1) } else { Some(0) };
    let spec = JobSpec { start, max_retries: retries, ..job("k", IfExists::Skip) };
    let id = store.write(Millis(1), |tx| tx.enqueue(&[spec])).unwrap()[0].id.clone();
    let outcome = match kind {
        StateKind::Completed => Some(Outcome::Completed),
        StateKind::Dead | StateKind::Failed => Some(Outcome::Failed),
        _ => None,
    };
    if kind == StateKind::Cancelled {
        store.write(Millis(2), |tx| tx.cancel(&[id])).unwrap();
    } else if kind == StateKind::Processing || outcome.is_some() {
        let claims = store.write(Millis(2), |tx| {
            tx.register(&pool("p"))?;
            tx.claim(&pool("p").id, &Serves::AllQueues, 1, &mut ClaimCache::default())
        });
        for claim in claims.unwrap().into_iter().filter(|_| outcome.is_some()) {
            store.write(Millis(3), |tx| tx.finish(&claim.token, &ran(outcome.unwrap(), 3))).unwrap();
        }
    }
    assert_eq!(store.read(|snapshot| snapshot.state(Seq(1))).unwrap(), Some(kind));
    (dir, store)
}

#[test]
fn a_key_is_met_in_every_state() {
    for kind in StateKind::ALL.into_iter().filter(|kind| *kind != StateKind::Blocked) {
        let state = |store: &Store| store.read(|snapshot| snapshot.state(Seq(1))).unwrap();
        let (_dir, store) = with(kind);
        assert_eq!(enqueue(&store, &[job("k", IfExists::Skip)]).unwrap(), [(1, Met::Exists(kind))]);
        let refused = enqueue(&store, &[job("", IfExists::Skip), job("k", IfExists::Error)]).unwrap_err();
        assert!(matches!(refused, StoreError::KeyTaken { state, .. } if state == kind), "{refused}");

        let retried = enqueue(&store, &[job("k", IfExists::Retry), job("k", IfExists::Retry)]).unwrap();
        if matches!(kind, StateKind::Dead | StateKind::Cancelled) {
            assert_eq!(retried, [(1, Met::Retried(kind)), (1, Met::Exists(StateKind::Pending))]);
            assert_eq!(state(&store), Some(StateKind::Pending));
        } else {
            assert_eq!(retried, [(1, Met::Exists(kind)), (1, Met::Exists(kind))]);
        }

        let (_dir, store) = with(kind);
        let replaced = enqueue(&store, &[job("k", IfExists::Replace)]);
        if kind == StateKind::Processing {
            assert!(matches!(replaced, Err(StoreError::KeyTaken { .. })));
            continue;
        }
        assert_eq!(replaced.unwrap(), [(2, Met::Replaced("1".parse().unwrap()))]);
        assert_eq!((owner(&store, "k"), state(&store)), {
            let left = if kind.has_ended() { kind } else { StateKind::Cancelled };
            (Some(2), Some(left))
        });
    }
}

#[test]
fn jobs_of_one_batch_meet_each_other() {
    let (_dir, store) = temp_queue();
    let three = [job("a", IfExists::Error), job("a", IfExists::Skip), job("b", IfExists::Skip)];
    let met = enqueue(&store, &three).unwrap();
    assert_eq!(met, [(1, Met::New), (1, Met::Exists(StateKind::Pending)), (2, Met::New)]);
    let refused = enqueue(&store, &[job("c", IfExists::Skip), job("c", IfExists::Error)]).unwrap_err();
    assert!(matches!(refused, StoreError::KeyTwice(_)), "{refused}");
    let met = enqueue(&store, &[job("d", IfExists::Skip), job("d", IfExists::Replace)]).unwrap();
    assert_eq!(met, [(3, Met::New), (4, Met::Replaced("3".parse().unwrap()))]);
    assert_eq!((owner(&store, "a"), owner(&store, "d"), owner(&store, "c")), (Some(1), Some(4), None));
    assert_eq!(store.read(|snapshot| snapshot.state(Seq(3))).unwrap(), Some(StateKind::Cancelled));
}

#[test]
fn a_key_goes_with_its_job_and_an_id_with_its_key() {
    let (_dir, store) = with(StateKind::Completed);
    store.write(Millis(9), |tx| tx.remove(&["1".parse().unwrap()])).unwrap();
    assert_eq!(owner(&store, "k"), None);
    let called = |if_exists| JobSpec { id: "x".parse().ok(), ..job("k", if_exists) };
    assert_eq!(enqueue(&store, &[called(IfExists::Skip)]).unwrap(), [(2, Met::New)]);
    assert_eq!(enqueue(&store, &[called(IfExists::Skip)]).unwrap(), [(2, Met::Exists(StateKind::Pending))]);
    let replaced = enqueue(&store, &[called(IfExists::Replace)]).unwrap();
    assert_eq!(replaced, [(3, Met::Replaced("x".parse().unwrap()))]);
    assert_eq!(store.read(|snapshot| snapshot.find(&"x".parse().unwrap())).unwrap(), Some(Seq(3)));
    // Of another job it is not taken over.
    let other = JobSpec { id: "x".parse().ok(), ..job("other", IfExists::Replace) };
    assert!(matches!(enqueue(&store, &[other]), Err(StoreError::Duplicate(_))));
}
