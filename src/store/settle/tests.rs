//! Settling piece by piece: what holds between two of them, and what nobody sees yet.

use std::collections::BTreeMap;

use super::super::tests::{pool, ran, temp_queue};
use super::super::{BulkInfo, BulkInto, ClaimCache, Cursor, Serves, Store, Terms, Wanted};
use super::*;
use crate::model::{Command, JobId, JobSpec, Millis, Need, Outcome, State};

/// One transaction, after which every invariant holds.
fn step<T>(store: &Store, ms: u64, change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
    let done = store.write(Millis(ms), change).unwrap();
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0], "at {ms}");
    done
}

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

/// A job that completes after some, and after any end of others.
fn job(name: &str, after: &[&str], after_any: &[&str]) -> JobSpec {
    let need = |any| move |name: &&str| Need { id: id(name), any };
    let needs = after.iter().map(need(false)).chain(after_any.iter().map(need(true))).collect();
    JobSpec { id: Some(id(name)), needs, ..JobSpec::new(Command::Shell(b"true".to_vec()), "/") }
}

fn states(store: &Store) -> BTreeMap<String, StateKind> {
    let page = store.read(|snapshot| snapshot.page(None, &Cursor::default(), 10_000)).unwrap();
    page.jobs.iter().map(|job| (job.id.to_string(), job.progress.state.kind())).collect()
}

/// Claims all that is pending, and ends it.
fn end_all(store: &Store, ms: u64, outcome: Outcome) -> Vec<String> {
    let info = pool("p1");
    step(store, ms, |tx| {
        tx.register(&info)?;
        let claims = tx.claim(&info.id, &Serves::AllQueues, 1_000, &mut ClaimCache::default())?;
        for claim in &claims {
            tx.finish(&claim.token, &ran(outcome, ms))?;
        }
        Ok(claims.iter().map(|claim| claim.id.to_string()).collect())
    })
}

fn settle(store: &Store, ms: u64) {
    while step(store, ms, |tx| tx.settle(3)) {}
    assert!(!store.read(Snapshot::is_unsettled).unwrap());
}

#[test]
fn each_piece_tells_as_many_as_it_may_and_the_next_goes_on() {
    let (_dir, store) = temp_queue();
    let waiting: Vec<JobSpec> = (0..10).map(|n| job(&format!("w{n}"), &["a"], &[])).collect();
    step(&store, 1, |tx| tx.enqueue(&[vec![job("a", &[], &[])], waiting].concat()));
    assert_eq!(end_all(&store, 2, Outcome::Completed), ["a"], "what is blocked is not claimed");
    let pending = || states(&store).values().filter(|kind| **kind == StateKind::Pending).count();
    for expected in [4, 8] {
        assert!(step(&store, 3, |tx| tx.settle(4)));
        assert_eq!(pending(), expected);
    }
    // A kill between two pieces changes nothing: the rest is in the file.
    assert!(!step(&store, 4, |tx| tx.settle(4)));
    assert_eq!(pending(), 10);
    let before = store.read(Snapshot::fingerprint).unwrap();
    assert!(!step(&store, 5, |tx| tx.settle(4)));
    assert_eq!(store.read(Snapshot::fingerprint).unwrap(), before, "nothing is left to do");
}

#[test]
fn the_state_counts_and_not_the_news() {
    let (_dir, store) = temp_queue();
    step(&store, 1, |tx| tx.enqueue(&[job("a", &[], &[]), job("b", &["a"], &[]), job("c", &["b"], &[])]));
    // Cancelled and retried before anybody was told.
    step(&store, 2, |tx| tx.cancel(&[id("a")]));
    step(&store, 3, |tx| tx.retry(&[id("a")], &Terms::default()));
    settle(&store, 4);
    assert_eq!(states(&store)["b"], StateKind::Blocked);
    // Told half of it, and then it is another way again.
    step(&store, 5, |tx| tx.cancel(&[id("a")]));
    assert!(step(&store, 6, |tx| tx.settle(1)));
    assert_eq!((states(&store)["b"], states(&store)["c"]), (StateKind::Cancelled, StateKind::Blocked));
    step(&store, 7, |tx| tx.retry(&[id("a")], &Terms::default()));
    assert_eq!(end_all(&store, 8, Outcome::Completed), ["a"]);
    settle(&store, 9);
    assert_eq!((states(&store)["b"], states(&store)["c"]), (StateKind::Pending, StateKind::Blocked));
}

#[test]
fn what_a_person_cancelled_does_not_come_back_by_itself() {
    let (_dir, store) = temp_queue();
    step(&store, 1, |tx| tx.enqueue(&[job("a", &[], &[]), job("b", &["a"], &[]), job("c", &["a"], &[])]));
    step(&store, 2, |tx| tx.cancel(&[id("b"), id("a")]));
    settle(&store, 3);
    step(&store, 4, |tx| tx.retry(&[id("a")], &Terms::default()));
    settle(&store, 5);
    assert_eq!((states(&store)["b"], states(&store)["c"]), (StateKind::Cancelled, StateKind::Blocked));
    // Retried, it waits for what it never got.
    step(&store, 6, |tx| tx.retry(&[id("b")], &Terms::default()));
    assert_eq!(states(&store)["b"], StateKind::Blocked);
}

#[test]
fn what_runs_again_does_not_wait_again_for_what_it_got() {
    let (_dir, store) = temp_queue();
    step(&store, 1, |tx| tx.enqueue(&[job("a", &[], &[]), job("b", &["a"], &[])]));
    end_all(&store, 2, Outcome::Completed);
    settle(&store, 3);
    assert_eq!(end_all(&store, 4, Outcome::Completed), ["b"]);
    step(&store, 5, |tx| tx.retry(&[id("a"), id("b")], &Terms::default()));
    settle(&store, 6);
    assert_eq!(states(&store)["b"], StateKind::Pending);
}

#[test]
fn what_is_not_published_is_told_when_it_is() {
    let (_dir, store) = temp_queue();
    step(&store, 1, |tx| tx.enqueue(&[job("good", &[], &[]), job("bad", &[], &[])]));
    let into = BulkInto::Queues(["default".parse().unwrap()].into());
    let begin = |ms, maker| step(&store, ms, |tx| tx.begin_bulk(maker, &into, 3));
    let fill = |ms, bulk, specs: &[JobSpec]| {
        let filled = step(&store, ms, |tx| tx.fill_bulk(bulk, specs, &Wanted::default()));
        let mut names: Vec<_> = filled.into_iter().map(|job| (job.id, job.seq)).collect();
        names.sort();
        step(&store, ms, |tx| tx.name_bulk(bulk, &names));
    };
    let (bulk, other) = (begin(2, "m1"), begin(2, "m2"));
    fill(3, &bulk, &[job("x", &["good"], &[]), job("y", &["bad"], &[]), job("z", &["x"], &["y"])]);
    fill(3, &other, &[job("v", &["bad"], &[])]);
    let refused = store.write(Millis(4), |tx| tx.enqueue(&[job("w", &["x"], &[])])).unwrap_err();
    assert!(matches!(refused, StoreError::NoSuchJob(_)), "nobody sees it: {refused}");
    step(&store, 5, |tx| tx.cancel(&[id("bad")]));
    settle(&store, 6);
    let refused = store.write(Millis(7), |tx| tx.remove(&[id("bad")])).unwrap_err();
    assert!(matches!(refused, StoreError::NeededUnseen(_)), "{refused}");
    end_all(&store, 8, Outcome::Completed);
    settle(&store, 9);
    let undone = BulkInfo { number: other.number(), maker: "m2".to_owned() };
    assert!(step(&store, 10, |tx| tx.undo_bulk(&undone, 10)));
    step(&store, 11, |tx| tx.publish_bulk(&bulk));
    settle(&store, 12);
    let states = states(&store);
    assert_eq!(["x", "y", "z"].map(|name| states[name]), {
        [StateKind::Pending, StateKind::Cancelled, StateKind::Blocked]
    });
    step(&store, 13, |tx| tx.remove(&[id("bad")]));
}

#[test]
fn what_is_removed_needs_nobody_and_is_needed_by_nobody() {
    let (_dir, store) = temp_queue();
    step(&store, 1, |tx| tx.enqueue(&[job("a", &[], &[]), job("b", &["a"], &[]), job("c", &["b"], &[])]));
    end_all(&store, 2, Outcome::Completed);
    // What is left to be told is told first.
    step(&store, 3, |tx| tx.remove(&[id("a")]));
    assert_eq!(states(&store)["b"], StateKind::Pending);
    end_all(&store, 4, Outcome::Completed);
    settle(&store, 5);
    assert_eq!(store.read(Snapshot::row_counts).unwrap()["needs"], 1);
    step(&store, 6, |tx| tx.remove(&[id("b")]));
    let rows = store.read(Snapshot::row_counts).unwrap();
    assert_eq!(["needs", "needed_by", "unsettled"].map(|table| rows.get(table)), [None; 3]);
}

#[test]
fn a_start_time_and_a_hold_outlast_what_is_waited_for() {
    let (_dir, store) = temp_queue();
    let later = JobSpec { start: crate::model::Start::At(Millis(100)), ..job("later", &["a"], &[]) };
    step(&store, 1, |tx| tx.enqueue(&[job("a", &[], &[]), later, job("held", &["a"], &[])]));
    step(&store, 2, |tx| tx.hold(&[id("held")]));
    end_all(&store, 3, Outcome::Completed);
    settle(&store, 4);
    let state = |name: &str| {
        let job = store.read(|snapshot| snapshot.job(snapshot.find(&id(name))?.unwrap())).unwrap();
        job.unwrap().progress.state
    };
    assert_eq!(state("later"), State::Scheduled { due: Millis(100), held: false });
    assert_eq!(state("held"), State::Scheduled { due: Millis(4), held: true });
    assert_eq!(step(&store, 200, |tx| tx.promote_due(9)), 1, "what is held is never due");
    step(&store, 201, |tx| tx.release(&[id("held")]));
    assert_eq!(end_all(&store, 202, Outcome::Completed), ["later", "held"]);
}

#[test]
fn what_is_cancelled_for_a_need_comes_back_as_it_was() {
    let (_dir, store) = temp_queue();
    let later =
        |name: &str, after: &[&str]| JobSpec { start: crate::model::Start::At(Millis(100)), ..job(name, after, &[]) };
    let specs = [
        job("a", &[], &[]),
        later("later", &["a"]),
        job("held", &["a"], &[]),
        later("second", &["later"]),
        job("edited", &["a"], &[]),
    ];
    step(&store, 1, |tx| tx.enqueue(&specs));
    step(&store, 2, |tx| tx.hold(&[id("held"), id("second")]));
    step(&store, 3, |tx| {
        let seq = tx.owner(&id("edited"))?.unwrap();
        let record = tx.job(seq)?;
        let progress = record.progress()?.reschedule(Some(Millis(50)), Millis(3)).unwrap();
        tx.move_job(seq, &record, &progress)
    });
    let state = |name: &str| {
        let job = store.read(|snapshot| snapshot.job(snapshot.find(&id(name))?.unwrap())).unwrap();
        job.unwrap().progress.state
    };
    let names = ["later", "held", "second", "edited"];
    let before = names.map(state);
    assert_eq!(before[2], State::Blocked { due: Some(Millis(100)), held: true });
    // Again and again, however the first of them comes back.
    for ms in [10, 20] {
        step(&store, ms, |tx| tx.cancel(&[id("a")]));
        settle(&store, ms);
        assert_eq!(states(&store).values().filter(|kind| **kind == StateKind::Cancelled).count(), 5);
        step(&store, ms, |tx| tx.retry(&[id("a")], &Terms::default()));
        settle(&store, ms);
        assert_eq!(names.map(state), before);
    }
    // Retried themselves they come back as they were, too: those that need one of the others stay blocked by it.
    step(&store, 30, |tx| tx.cancel(&[id("a")]));
    settle(&store, 30);
    step(&store, 31, |tx| tx.remove(&[id("a")]));
    step(&store, 32, |tx| tx.retry(&names.map(id), &Terms::default()));
    settle(&store, 33);
    assert_eq!(
        names.map(state),
        [
            State::Scheduled { due: Millis(100), held: false },
            State::Scheduled { due: Millis(32), held: true },
            State::Blocked { due: Some(Millis(100)), held: true },
            State::Scheduled { due: Millis(50), held: false },
        ]
    );
    // A time that has passed meanwhile is simply due.
    step(&store, 34, |tx| tx.cancel(&[id("later")]));
    settle(&store, 34);
    step(&store, 200, |tx| tx.retry(&[id("later")], &Terms::default()));
    settle(&store, 201);
    assert_eq!(state("later"), State::Pending, "a person had cancelled it: nothing of it is kept");
    assert_eq!(end_all(&store, 202, Outcome::Completed), ["later"]);
    settle(&store, 203);
    assert_eq!(state("second"), State::Scheduled { due: Millis(100), held: true });
    step(&store, 204, |tx| tx.release(&[id("second")]));
    assert_eq!(state("second"), State::Pending);
}
