//! Bulks on a real file: what is seen of them, and what is left when they are taken away.

use super::super::tests::temp_queue;
use super::super::{Cursor, Enqueued, Serves, Store};
use super::*;
use crate::model::{Command, Environment, JobId, Millis, Start, StateKind};
use std::sync::Arc;

fn job(id: Option<&str>, queue: &str) -> JobSpec {
    JobSpec {
        id: id.map(|id| id.parse().unwrap()),
        queue: queue.parse().unwrap(),
        env: Arc::new(Environment::from([(b"A".to_vec(), b"1".to_vec())])),
        ..JobSpec::new(Command::Shell(b"true".to_vec()), "/")
    }
}

fn into(queues: &[&str]) -> BulkInto {
    BulkInto::Queues(queues.iter().map(|queue| queue.parse().unwrap()).collect())
}

fn at<T>(store: &Store, ms: u64, change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
    let done = store.write(Millis(ms), change).unwrap();
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0]);
    done
}

/// Fills a bulk, and names the jobs that have an id.
fn fill(store: &Store, ms: u64, bulk: &BulkLanes, specs: &[JobSpec]) -> Vec<Enqueued> {
    let filled = at(store, ms, |tx| tx.fill_bulk(bulk, specs, &Wanted::default()));
    let with_id = specs.iter().zip(&filled).filter(|(spec, _)| spec.id.is_some());
    let mut names: Vec<(JobId, Seq)> = with_id.map(|(_, job)| (job.id.clone(), job.seq)).collect();
    names.sort();
    at(store, ms, |tx| tx.name_bulk(bulk, &names));
    filled
}

fn of_maker(bulk: &BulkLanes) -> BulkInfo {
    BulkInfo { number: bulk.number(), maker: "abc1".to_owned() }
}

fn seen(store: &Store) -> Vec<u64> {
    let page = store.read(|snapshot| snapshot.page(None, &Cursor::default(), 1_000)).unwrap();
    page.jobs.iter().map(|job| job.seq.0).collect()
}

fn is_empty(store: &Store) {
    let rows = store.read(Snapshot::row_counts).unwrap();
    assert_eq!(rows, BTreeMap::from([("meta", 3)]));
}

#[test]
fn nothing_is_seen_before_all_is() {
    let (_dir, store) = temp_queue();
    let later = JobSpec { start: Start::At(Millis(5)), ..job(Some("later"), "b") };
    let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a", "b"]), 4));
    let wanted = Wanted::default();
    fill(&store, 2, &bulk, &[job(None, "a"), job(Some("x"), "b")]);
    fill(&store, 2, &bulk, std::slice::from_ref(&later));
    // Another gets in between, and the queue has its first lane.
    assert_eq!(at(&store, 3, |tx| tx.enqueue(&[job(None, "a")]))[0].seq, Seq(5));
    at(&store, 9, |tx| {
        assert_eq!((tx.promote_due(10)?, tx.next_due()?), (0, None));
        assert_eq!(tx.find(&"x".parse().unwrap())?, None);
        Ok(())
    });
    assert_eq!(seen(&store), [5]);
    let reserved = |id: &str| store.write(Millis(9), |tx| tx.enqueue(&[job(Some(id), "a")])).map(drop);
    assert!(matches!(reserved("x"), Err(StoreError::Reserved(_))));
    assert!(matches!(reserved("1"), Err(StoreError::Reserved(_))), "the name of a job to come");
    store
        .read(|snapshot| {
            assert_eq!(snapshot.counts()?[&StateKind::Pending], 1);
            assert_eq!(snapshot.next_due()?, None);
            assert_eq!(snapshot.find(&"x".parse().unwrap())?, None);
            assert_eq!(snapshot.find(&"1".parse().unwrap())?, None);
            for kind in [StateKind::Scheduled, StateKind::Pending] {
                let page = snapshot.page(Some(kind), &Cursor::default(), 9)?;
                assert!(page.jobs.iter().all(|job| job.seq == Seq(5)));
            }
            assert_eq!(snapshot.unfinished(&Serves::AllQueues)?, 1);
            assert_eq!(snapshot.check()?.jobs, 1);
            assert_eq!(snapshot.bulks()?, [BulkInfo { number: bulk.number(), maker: "abc1".to_owned() }]);
            Ok(())
        })
        .unwrap();
    // A number may be somebody's name before it is the bulk's turn.
    at(&store, 10, |tx| tx.enqueue(&[job(Some("4"), "a")]));
    let more = at(&store, 11, |tx| tx.fill_bulk(&bulk, &[job(None, "a"), job(None, "a")], &wanted));
    assert_eq!([more[0].seq, more[1].seq], [Seq(7), Seq(8)]);
    assert_eq!(at(&store, 12, |tx| tx.publish_bulk(&bulk)), 5);
    assert_eq!(seen(&store), [8, 7, 6, 5, 3, 2, 1]);
    assert_eq!(at(&store, 13, |tx| tx.promote_due(10)), 1);
    assert!(store.write(Millis(14), |tx| tx.publish_bulk(&bulk)).is_err());
    assert!(matches!(reserved("x"), Err(StoreError::Duplicate(_))));
}

#[test]
fn a_bulk_is_taken_away_in_pieces() {
    let (_dir, store) = temp_queue();
    let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a", "b"]), 3));
    let wanted = Wanted::default();
    for n in 0..4 {
        let named = format!("n{n}");
        let later = JobSpec { start: Start::At(Millis(500)), ..job(None, "a") };
        let specs = [job(Some(&named), "a"), later, job(None, "b")];
        if n % 2 == 0 {
            fill(&store, 2, &bulk, &specs);
        } else {
            at(&store, 2, |tx| tx.fill_bulk(&bulk, &specs, &wanted));
        }
        at(&store, 3, |tx| tx.begin_bulk("abc2", &into(&["a"]), 1)).number();
    }
    let mut pieces = 0;
    while !at(&store, 4, |tx| tx.undo_bulk(&of_maker(&bulk), 5)) {
        pieces += 1;
    }
    assert_eq!(pieces, 2, "four times three jobs, five at a time");
    let bulks = store.read(Snapshot::bulks).unwrap();
    for other in bulks {
        assert!(at(&store, 5, |tx| tx.undo_bulk(&other, 5)));
    }
    is_empty(&store);
    assert!(at(&store, 6, |tx| tx.undo_bulk(&of_maker(&bulk), 5)), "once more changes nothing");
    assert!(matches!(
        store.write(Millis(7), |tx| tx.fill_bulk(&bulk, &[job(None, "a")], &wanted)),
        Err(StoreError::Contradiction(_))
    ));
}

#[test]
fn a_refused_piece_changes_nothing() {
    let (_dir, store) = temp_queue();
    at(&store, 1, |tx| tx.enqueue(&[job(Some("taken"), "a")]));
    let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a"]), 3));
    let before = store.read(Snapshot::fingerprint).unwrap();
    let fill = |specs: &[JobSpec]| store.write(Millis(2), |tx| tx.fill_bulk(&bulk, specs, &Wanted::default()));
    assert!(matches!(fill(&[job(None, "a"), job(Some("taken"), "a")]), Err(StoreError::Duplicate(_))));
    assert!(matches!(fill(&[job(None, "elsewhere")]), Err(StoreError::Contradiction(_))));
    assert_eq!(store.read(Snapshot::fingerprint).unwrap(), before);
    let mut wanted = Wanted::default();
    wanted.note(&"2".parse().unwrap());
    let filled = at(&store, 3, |tx| tx.fill_bulk(&bulk, &[job(None, "a"), job(Some("2"), "a")], &wanted));
    assert_eq!([filled[0].id.as_str(), filled[1].id.as_str()], ["3", "2"], "the batch's own numbers are left free");
    at(&store, 3, |tx| tx.name_bulk(&bulk, &[("2".parse().unwrap(), filled[1].seq)]));
    assert_eq!(at(&store, 4, |tx| tx.publish_bulk(&bulk)), 2);
}

#[test]
fn ids_are_nobodys_until_they_are_named() {
    let (_dir, store) = temp_queue();
    let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a"]), 4));
    let specs = ["x", "y", "x"].map(|id| job(Some(id), "a"));
    let filled = at(&store, 2, |tx| tx.fill_bulk(&bulk, &specs, &Wanted::default()));
    let refused = |done: Result<(), StoreError>| {
        let why = done.unwrap_err().to_string();
        assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0]);
        why
    };
    let named = |id: &str, n: usize| (id.parse::<JobId>().unwrap(), filled[n].seq);
    let name = |names: &[(JobId, Seq)]| store.write(Millis(3), |tx| tx.name_bulk(&bulk, names));
    let publish = || store.write(Millis(4), |tx| tx.publish_bulk(&bulk)).map(drop);
    assert_eq!(refused(publish()), "it does not fit: some of the bulk's jobs do not have their ids or keys yet");
    assert_eq!(refused(name(&[named("x", 0), named("x", 2)])), "there is already a job x");
    assert_eq!(
        refused(name(&[("z".parse().unwrap(), Seq(4))])),
        "it does not fit: a job to be named is not of the bulk"
    );
    // Another may take an id; then the bulk cannot have it.
    at(&store, 5, |tx| tx.enqueue(&[job(Some("y"), "a")]));
    assert_eq!(refused(name(&[named("x", 0), named("y", 1)])), "there is already a job y");
    name(&[named("x", 0)]).unwrap();
    assert_eq!(refused(name(&[named("x", 2)])), "the id x is held by an enqueue that is under way");
    assert_eq!(refused(publish()), "it does not fit: some of the bulk's jobs do not have their ids or keys yet");
    // Taken away, it leaves the other's id alone.
    assert!(!at(&store, 6, |tx| tx.undo_bulk(&of_maker(&bulk), 2)));
    assert!(at(&store, 6, |tx| tx.undo_bulk(&of_maker(&bulk), 2)));
    assert_eq!(at(&store, 7, |tx| tx.find(&"y".parse().unwrap())), Some(Seq(5)));
    assert_eq!(at(&store, 7, |tx| tx.enqueue(&[job(Some("x"), "a")]))[0].seq, Seq(6));
}

#[test]
fn a_lane_of_a_bulk_goes_with_its_last_job() {
    let (_dir, store) = temp_queue();
    at(&store, 1, |tx| tx.enqueue(&[job(Some("first"), "a")]));
    let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a"]), 1));
    fill(&store, 2, &bulk, &[job(Some("second"), "a")]);
    at(&store, 3, |tx| tx.publish_bulk(&bulk));
    let lanes = || store.read(Snapshot::row_counts).unwrap()["lanes"];
    assert_eq!(lanes(), 2);
    let ids = ["first".parse().unwrap(), "second".parse().unwrap()];
    at(&store, 4, |tx| tx.cancel(&ids));
    at(&store, 5, |tx| tx.remove(&ids));
    assert_eq!(lanes(), 1);
}

#[test]
fn a_run_begins_when_it_is_published() {
    let (_dir, store) = temp_queue();
    let run = NewRun {
        identity: 7,
        line: "run".to_owned(),
        folder: "/".into(),
        flags: String::new(),
        is_command: false,
        resumes: false,
    };
    let begin = || {
        let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &BulkInto::Run, 2));
        at(&store, 2, |tx| tx.fill_bulk(&bulk, &[job(None, "a"), job(None, "b")], &Wanted::default()));
        bulk
    };
    let (one, two) = (begin(), begin());
    assert_eq!(store.read(|snapshot| snapshot.newest_cut_off(7)).unwrap(), None);
    assert_eq!(store.read(Snapshot::unfinished_runs).unwrap(), []);
    let RunStart::New(info) = at(&store, 3, |tx| tx.publish_run(&one, &run, false)) else { panic!("it is the first") };
    assert_eq!((info.number, info.total()), (1, 2));
    let RunStart::Continued(other) = at(&store, 4, |tx| tx.publish_run(&two, &run, false)) else { panic!("not new") };
    assert_eq!(other, info);
    assert_eq!(store.read(|snapshot| snapshot.newest_cut_off(7)).unwrap(), Some(info));
    assert!(at(&store, 5, |tx| tx.undo_bulk(&of_maker(&two), 10)));
    assert_eq!(seen(&store), [2, 1]);
}

#[test]
fn a_copy_leaves_out_what_is_not_published() {
    let (_dir, store) = temp_queue();
    at(&store, 1, |tx| tx.enqueue(&[job(None, "a")]));
    let bulk = at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a"]), 2));
    fill(&store, 2, &bulk, &[job(Some("x"), "a"), job(None, "a")]);
    let (_copy_dir, copy) = temp_queue();
    let (_, jobs) = store.read(|snapshot| snapshot.copy_whole(&copy)).unwrap();
    assert_eq!((jobs, seen(&copy)), (1, vec![1]));
    assert_eq!(copy.read(Snapshot::check).unwrap().violations, [""; 0]);
    assert_eq!(copy.read(Snapshot::bulks).unwrap(), []);
    // Numbers that are set aside are not for an import.
    assert!(matches!(store.write(Millis(3), |tx| tx.reserve(&[(Seq(3), Seq(9))])), Err(StoreError::Contradiction(_))));
}

#[test]
fn a_batch_goes_into_so_many_queues_and_no_more() {
    let (_dir, store) = temp_queue();
    let names: BTreeSet<QueueName> = (0..=QUEUES_MAX).map(|n| format!("q{n}").parse().unwrap()).collect();
    let begin = |into: &BulkInto| store.write(Millis(1), |tx| tx.begin_bulk("abc1", into, 1));
    assert!(matches!(begin(&BulkInto::Queues(names)), Err(StoreError::TooLarge(_))));
    is_empty(&store);
    let names: BTreeSet<QueueName> = (0..300).map(|n| format!("q{n}").parse().unwrap()).collect();
    let bulk = begin(&BulkInto::Queues(names)).unwrap();
    at(&store, 2, |tx| tx.fill_bulk(&bulk, &[job(None, "q7")], &Wanted::default()));
    assert_eq!(at(&store, 3, |tx| tx.publish_bulk(&bulk)), 1);
    assert_eq!(store.read(Snapshot::row_counts).unwrap()["lanes"], 1, "the others had no job");
}

#[test]
fn jobs_of_many_lanes_are_claimed_in_the_order_of_their_queue() {
    use super::super::ClaimCache;
    let (_dir, store) = temp_queue();
    let pool = super::super::tests::pool("abc2");
    at(&store, 1, |tx| tx.register(&pool));
    let of = |priority| JobSpec { priority, ..job(None, "a") };
    let bulks: Vec<BulkLanes> = (0..3).map(|_| at(&store, 1, |tx| tx.begin_bulk("abc1", &into(&["a"]), 4))).collect();
    for bulk in &bulks {
        at(&store, 2, |tx| tx.fill_bulk(bulk, &[of(0), of(5), of(0), of(-5)], &Wanted::default()));
    }
    for bulk in bulks.iter().rev() {
        at(&store, 3, |tx| tx.publish_bulk(bulk));
    }
    let mut cache = ClaimCache::default();
    let mut claim = |limit| -> Vec<u64> {
        let claims = at(&store, 4, |tx| tx.claim(&pool.id, &Serves::AllQueues, limit, &mut cache));
        claims.iter().map(|claim| claim.token.seq().0).collect()
    };
    assert_eq!(claim(1), [2]);
    assert_eq!(claim(4), [6, 10, 1, 3]);
    assert_eq!(claim(9), [5, 7, 9, 11, 4, 8, 12]);
}
