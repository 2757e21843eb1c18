//! The write transactions on a real file, each checked against every invariant.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::model::*;

/// A queue in memory-backed storage where there is some, since nothing here is about the disk.
pub(crate) fn temp_queue() -> (TempDir, Store) {
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() { TempDir::new_in(shm) } else { TempDir::new() }.unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let (store, made) = Store::open_or_create(dir.path(), Box::new(|| {})).unwrap();
    assert!(made);
    (dir, store)
}

fn job(command: &str) -> JobSpec {
    JobSpec::new(Command::Shell(command.into()), "/")
}

fn named(id: &str) -> JobSpec {
    JobSpec { id: Some(id.parse().unwrap()), ..job("true") }
}

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

pub(crate) fn pool(name: &str) -> PoolInfo {
    PoolInfo {
        id: name.parse().unwrap(),
        pid: 1,
        boot_id: 2,
        pid_namespace: 3,
        nonce: 4,
        file: (5, 6),
        started: Millis(1),
        workers: 2,
        serves: Serves::AllQueues,
        asked: Asked::Work,
        log: None,
        ended: None,
    }
}

pub(crate) fn ran(outcome: Outcome, at: u64) -> Ending {
    Ending::Ran(Run {
        slot: 0,
        started: Millis(at),
        ended: Millis(at),
        outcome,
        counts_as_loss: true,
        exit_code: Some(0),
        signal: None,
        cpu: Duration::ZERO,
        max_rss_bytes: 0,
        error: None,
        stdout: Kept::Inline(b"out".to_vec()),
        stderr: Kept::Empty,
    })
}

/// With outputs that are in files.
fn large(outcome: Outcome, at: u64) -> Ending {
    let Ending::Ran(run) = ran(outcome, at) else { unreachable!() };
    let file = Kept::File { bytes: 5_000, left_out: 0 };
    Ending::Ran(Run { stdout: file.clone(), stderr: file, ..run })
}

struct Bench {
    _dir: TempDir,
    store: Store,
    pool: PoolId,
    cache: ClaimCache,
}

impl Bench {
    fn new() -> Self {
        let (dir, store) = temp_queue();
        let info = pool("p1");
        assert!(store.write(Millis(1), |tx| tx.register(&info)).unwrap());
        Self { _dir: dir, store, pool: info.id, cache: ClaimCache::default() }
    }

    /// Changes at a time, then checks every invariant.
    fn at<T>(&self, ms: u64, change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = self.store.write(Millis(ms), change);
        self.check();
        done
    }

    fn check(&self) {
        let report = self.store.read(Snapshot::check).unwrap();
        assert_eq!(report.violations, [""; 0]);
    }

    fn claim(&mut self, ms: u64, limit: usize) -> Vec<Claim> {
        let (pool, mut cache) = (self.pool.clone(), std::mem::take(&mut self.cache));
        let claims = self.at(ms, |tx| tx.claim(&pool, &Serves::AllQueues, limit, &mut cache)).unwrap();
        self.cache = cache;
        claims
    }

    fn finish(&self, claim: &Claim, ending: &Ending, ms: u64) -> Option<Finished> {
        self.at(ms, |tx| tx.finish(&claim.token, ending)).unwrap()
    }

    fn state(&self, name: &str) -> StateKind {
        let job = self.store.read(|snapshot| snapshot.job(snapshot.find(&id(name))?.unwrap())).unwrap();
        job.unwrap().progress.state.kind()
    }
}

fn names(claims: &[Claim]) -> Vec<&str> {
    claims.iter().map(|claim| claim.id.as_str()).collect()
}

#[test]
fn a_job_lives_from_enqueue_to_completed() {
    let mut bench = Bench::new();
    bench.at(10, |tx| tx.enqueue(&[named("a")])).unwrap();
    let claims = bench.claim(11, 5);
    assert_eq!((names(&claims), claims[0].attempt), (vec!["a"], 1));
    let done = bench.finish(&claims[0], &ran(Outcome::Completed, 12), 13).unwrap();
    assert_eq!(done.progress.state, State::Completed { at: Millis(13) });
    let output = bench.store.read(|s| s.output(claims[0].token.seq, 1, Stream::Stdout)).unwrap();
    assert_eq!(output, Some(Output::Inline(b"out".to_vec())));
    // The second report of the same claim is late.
    assert_eq!(bench.finish(&claims[0], &ran(Outcome::Failed, 14), 14), None);
}

#[test]
fn order_is_priority_then_age_and_queues_take_turns() {
    let mut bench = Bench::new();
    let gpu = |id| JobSpec { queue: "gpu".parse().unwrap(), ..named(id) };
    let urgent = JobSpec { priority: 5, ..named("urgent") };
    let jobs = [named("a"), named("b"), gpu("g1"), gpu("g2"), urgent, named("c")];
    bench.at(1, |tx| tx.enqueue(&jobs)).unwrap();
    assert_eq!(names(&bench.claim(2, 4)), ["urgent", "g1", "a", "g2"]);
    assert_eq!(names(&bench.claim(3, 9)), ["b", "c"]);
    let wanted = Serves::Queues(vec!["none".parse().unwrap()]);
    let pool = bench.pool.clone();
    assert!(bench.at(4, |tx| tx.claim(&pool, &wanted, 9, &mut ClaimCache::default())).unwrap().is_empty());
}

#[test]
fn a_batch_is_enqueued_all_or_nothing() {
    let bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("a")])).unwrap();
    let refused = bench.at(2, |tx| tx.enqueue(&[named("x"), named("a"), named("y")]));
    assert!(matches!(refused, Err(StoreError::Duplicate(taken)) if taken == id("a")));
    let twice = bench.at(2, |tx| tx.enqueue(&[named("x"), named("x")]));
    assert!(matches!(twice, Err(StoreError::Duplicate(_))));
    assert_eq!(bench.store.read(|s| Ok(s.counts()?[&StateKind::Pending])).unwrap(), 1);
}

#[test]
fn numbers_and_given_ids_never_collide() {
    let bench = Bench::new();
    let first = bench.at(1, |tx| tx.enqueue(&[named("2"), job("true"), job("true")])).unwrap();
    let ids: Vec<&str> = first.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["2", "3", "4"], "1 went to the job called 2, and the number 2 is taken");
    let refused = bench.at(2, |tx| tx.enqueue(&[named("3")]));
    assert!(matches!(refused, Err(StoreError::Duplicate(_))));
    assert_eq!(bench.at(3, |tx| tx.find(&id("1"))).unwrap(), None, "a job with an id of its own has no number");
}

#[test]
fn a_number_that_is_nobodys_name_may_be_given() {
    let bench = Bench::new();
    // What a batch of ids that count from 0 does: job 1 is called 0, job 2 is called 1.
    bench.at(1, |tx| tx.enqueue(&[named("0"), named("1"), named("2")])).unwrap();
    assert_eq!(bench.at(2, |tx| tx.find(&id("1"))).unwrap(), Some(Seq(2)));
}

#[test]
fn numbers_step_aside_for_the_ids_of_their_batch() {
    let bench = Bench::new();
    let batch = bench.at(1, |tx| tx.enqueue(&[job("true"), named("2"), job("true"), named("1")])).unwrap();
    let ids: Vec<&str> = batch.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["3", "2", "5", "1"]);
}

#[test]
fn what_is_refused_harms_nothing_else_in_its_transaction() {
    let bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("a")])).unwrap();
    let spoilt = [JobSpec { queue: "new".parse().unwrap(), ..named("x") }, named("a")];
    let others = bench.at(2, |tx| {
        assert!(matches!(tx.enqueue(&spoilt), Err(StoreError::Duplicate(_))));
        assert!(matches!(tx.start_run(&new_run(1), &spoilt, false), Err(StoreError::Duplicate(_))));
        tx.enqueue(&[named("b")])
    });
    assert_eq!(others.unwrap()[0].seq, Seq(2));
    assert_eq!(bench.store.read(|s| s.find(&id("x"))).unwrap(), None);
}

#[test]
fn failures_wait_for_their_time_even_if_the_clock_is_set_back() {
    let mut bench = Bench::new();
    bench.at(1_000_000, |tx| tx.enqueue(&[named("a")])).unwrap();
    let claims = bench.claim(1_000_000, 1);
    bench.finish(&claims[0], &ran(Outcome::Failed, 1_000_000), 1_000_000);
    assert_eq!(bench.state("a"), StateKind::Failed);
    assert_eq!(bench.at(0, |tx| tx.promote_due(10)).unwrap(), 0);
    assert_eq!(bench.at(1_001_999, |tx| tx.promote_due(10)).unwrap(), 0);
    #[allow(clippy::redundant_closure_for_method_calls, reason = "the method alone is not general enough")]
    let next_due = bench.at(5, |tx| tx.next_due());
    assert_eq!(next_due.unwrap(), Some(Millis(1_002_000)));
    assert_eq!(bench.at(1_002_000, |tx| tx.promote_due(10)).unwrap(), 1);
    assert_eq!(bench.at(7, |tx| Ok(tx.now())).unwrap(), Millis(1_002_000), "time in the file never goes back");
    assert_eq!(bench.claim(8, 1)[0].attempt, 2);
}

#[test]
fn cancel_and_retry_are_all_or_nothing() {
    let mut bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("a"), named("b"), named("c")])).unwrap();
    let claims = bench.claim(2, 1);
    let unknown = bench.at(3, |tx| tx.cancel(&[id("b"), id("nope")]));
    assert!(matches!(unknown, Err(StoreError::NoSuchJob(_))));
    assert_eq!(bench.state("b"), StateKind::Pending);
    let done = bench.at(4, |tx| tx.cancel(&[id("a"), id("b"), id("b")])).unwrap();
    assert_eq!(done, [(id("a"), Cancelled::Asked), (id("b"), Cancelled::Done)]);
    let pool = bench.pool.clone();
    let control = bench.store.read(|s| s.control(&pool)).unwrap().unwrap();
    assert_eq!(control, Control { asked: Asked::Work, workers: 2, cancels: vec![claims[0].token.seq] });
    bench.finish(&claims[0], &ran(Outcome::Failed, 6), 6);
    assert_eq!(bench.state("a"), StateKind::Cancelled);
    let refused = bench.at(7, |tx| tx.retry(&[id("a"), id("c")], &Terms::default()));
    assert!(matches!(refused, Err(StoreError::Refused { .. })));
    assert_eq!(bench.state("a"), StateKind::Cancelled);
    bench.at(8, |tx| tx.retry(&[id("a"), id("b")], &Terms::default())).unwrap();
    assert_eq!(names(&bench.claim(9, 9)), ["a", "b", "c"], "a retry keeps its place");
}

#[test]
fn what_is_removed_leaves_nothing() {
    let mut bench = Bench::new();
    let empty = bench.store.read(Snapshot::row_counts).unwrap();
    let other = JobSpec { env: Arc::new([(b"A".to_vec(), b"1".to_vec())].into()), ..named("a") };
    for round in 0..3 {
        bench.at(1, |tx| tx.enqueue(&[other.clone(), job("true"), named("b")])).unwrap();
        let run = bench.at(1, |tx| tx.start_run(&new_run(7), &[named("r"), job("true")], false)).unwrap();
        let claims = bench.claim(2, 9);
        let ids: Vec<String> = names(&claims).into_iter().map(str::to_owned).collect();
        bench.finish(&claims[0], &ran(Outcome::Completed, 3), 3);
        bench.finish(&claims[1], &large(Outcome::Failed, 3), 3);
        bench.finish(&claims[2], &Ending::NotStarted, 3);
        bench.at(4, |tx| tx.cancel(&[id(&ids[1]), id("b")])).unwrap();
        let lane = run.info().lane;
        let of_run: Vec<JobId> = bench
            .store
            .read(|s| s.page(None, &Cursor::default(), 2))
            .unwrap()
            .jobs
            .into_iter()
            .map(|job| job.id)
            .collect();
        bench.at(5, |tx| tx.cancel(&of_run)).unwrap();

        let removed = bench.at(6, |tx| tx.remove(&[id("a"), id(&ids[1]), id("a"), id("b")])).unwrap();
        let files: Vec<_> = removed.iter().map(|job| (job.id.as_str(), job.files.as_slice())).collect();
        assert_eq!(files, [("a", &[][..]), (&ids[1], &[(1, Stream::Stdout), (1, Stream::Stderr)]), ("b", &[])]);
        bench.at(7, |tx| tx.remove(&of_run[..1])).unwrap();
        assert!(bench.store.read(|s| s.run(lane)).unwrap().is_some(), "a run is there as long as one of its jobs");
        bench.at(8, |tx| tx.remove(&of_run[1..])).unwrap();
        assert_eq!(bench.store.read(|s| s.run(lane)).unwrap(), None);
        assert_eq!(run.info().number, round + 1, "no number is given twice");
        assert!(bench.store.read(|s| s.is_gone(Seq(5 * round + 1))).unwrap());
        assert!(!bench.store.read(|s| s.is_gone(Seq(5 * round + 6))).unwrap(), "that one is to come");
    }
    let mut left = bench.store.read(Snapshot::row_counts).unwrap();
    assert_eq!((left.remove("lanes"), left.remove("queues")), (Some(1), Some(1)), "of the queue, for those to come");
    assert_eq!(left, empty);
}

#[test]
fn what_has_not_ended_is_not_removed_nor_what_it_was_typed_with() {
    let mut bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("done"), named("held"), named("waits")])).unwrap();
    let claims = bench.claim(2, 2);
    bench.finish(&claims[0], &ran(Outcome::Completed, 3), 3);
    let before = bench.store.read(Snapshot::fingerprint).unwrap();
    for (other, state) in [("held", StateKind::Processing), ("waits", StateKind::Pending)] {
        let refused = bench.at(4, |tx| tx.remove(&[id("done"), id(other)])).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Refused { id, refusal } if id.as_str() == other && refusal.state == state)
        );
    }
    assert!(matches!(bench.at(4, |tx| tx.remove(&[id("done"), id("nope")])), Err(StoreError::NoSuchJob(_))));
    assert!(bench.at(4, |tx| tx.remove(&[])).unwrap().is_empty());
    assert_eq!(bench.store.read(Snapshot::fingerprint).unwrap(), before);
    bench.at(5, |tx| tx.remove(&[id("done")])).unwrap();
    assert_eq!(bench.finish(&claims[0], &ran(Outcome::Failed, 6), 6), None, "news of what was removed is late");
    assert_eq!(bench.at(7, |tx| tx.enqueue(&[named("done")])).unwrap()[0].seq, Seq(4), "its name is free");
}

#[test]
fn a_pool_cannot_retire_with_leases() {
    let mut bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("a")])).unwrap();
    let claims = bench.claim(2, 1);
    let pool = bench.pool.clone();
    assert!(bench.at(3, |tx| tx.retire(&pool, "lost")).is_err());
    let retired = bench.at(4, |tx| {
        for held in tx.leases(&pool)? {
            assert_eq!(held.attempt, 1);
            tx.finish(&held.token, &ran(Outcome::Lost, 4))?;
        }
        tx.retire(&pool, "lost")
    });
    assert!(retired.unwrap());
    assert_eq!(bench.state("a"), StateKind::Pending);
    assert_eq!(bench.finish(&claims[0], &ran(Outcome::Completed, 5), 5), None, "late news");
    assert!(!bench.at(6, |tx| tx.retire(&pool, "again")).unwrap());
}

#[test]
fn a_pool_that_is_not_there_claims_nothing() {
    let bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("a")])).unwrap();
    let claim = |name: &str| {
        let pool = name.parse().unwrap();
        bench.at(2, |tx| tx.claim(&pool, &Serves::AllQueues, 1, &mut ClaimCache::default()).map(|_| ()))
    };
    assert!(claim("unknown").is_err());
    bench.at(3, |tx| tx.retire(&bench.pool, "stopped")).unwrap();
    assert!(claim("p1").is_err(), "nobody would recover what an ended pool holds");
}

#[test]
fn only_the_last_ended_pools_are_remembered() {
    let bench = Bench::new();
    for n in 0..30 {
        let info = pool(&format!("x{n}"));
        bench.at(n, |tx| tx.register(&info)).unwrap();
        bench.at(n, |tx| tx.retire(&info.id, "stopped")).unwrap();
    }
    assert_eq!(bench.store.read(Snapshot::pools).unwrap().len(), 1 + ENDED_POOLS_KEPT);
}

fn new_run(identity: u128) -> NewRun {
    NewRun {
        identity,
        line: "queuectl run jobs.txt".to_owned(),
        folder: "/".into(),
        flags: String::new(),
        is_command: false,
        resumes: false,
    }
}

#[test]
fn a_cut_off_run_continues_and_a_finished_one_begins_anew() {
    let mut bench = Bench::new();
    let start = |bench: &Bench, fresh| bench.at(1, |tx| tx.start_run(&new_run(7), &[named("a"), job("true")], fresh));
    let RunStart::New(first) = start(&bench, false).unwrap() else { panic!("is new") };
    assert_eq!((first.number, first.total()), (1, 2));
    let RunStart::Continued(again) = start(&bench, false).unwrap() else { panic!("was cut off") };
    assert_eq!(again.lane, first.lane);
    assert!(
        matches!(start(&bench, true), Err(StoreError::Duplicate(_))),
        "its id is taken by a job that has not ended"
    );

    assert!(bench.claim(2, 9).is_empty(), "ordinary pools never take a run's jobs");
    let (pool, serves) = (bench.pool.clone(), Serves::Run(first.lane));
    assert_eq!(bench.store.read(|s| s.unfinished(&serves)).unwrap(), 2);
    for claim in bench.at(3, |tx| tx.claim(&pool, &serves, 9, &mut ClaimCache::default())).unwrap() {
        bench.finish(&claim, &ran(Outcome::Completed, 4), 4);
    }
    assert_eq!(bench.store.read(|s| s.unfinished(&serves)).unwrap(), 0);
    let RunStart::New(second) = start(&bench, false).unwrap() else { panic!("was complete") };
    assert_eq!(second.number, 2);
    assert_eq!(bench.store.read(|s| Ok(s.find(&id("a"))?.unwrap())).unwrap(), Seq(3), "the id went to the new run");
    let other = bench.at(5, |tx| tx.start_run(&new_run(8), &[named("a")], false));
    assert!(matches!(other, Err(StoreError::Duplicate(_))), "another run does not take it over");
}

#[test]
fn a_transaction_sees_the_counts_that_it_changed() {
    let bench = Bench::new();
    let later = JobSpec { start: Start::At(Millis(99)), ..named("later") };
    bench
        .at(1, |tx| {
            let RunStart::New(info) = tx.start_run(&new_run(7), &[later.clone(), named("a")], false)? else { panic!() };
            assert_eq!(info.counts, [(StateKind::Scheduled, 1), (StateKind::Pending, 1)].into());
            assert!(matches!(tx.start_run(&new_run(7), &[later], false)?, RunStart::Continued(same) if same == info));
            tx.cancel(&[id("later"), id("a")])?;
            assert_eq!(tx.run_of_lane(info.lane)?.unwrap().counts, [(StateKind::Cancelled, 2)].into());
            tx.retry(&[id("a")], &Terms::default())?;
            assert_eq!(tx.run_of_lane(info.lane)?.unwrap().unfinished(), 1);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_run_with_numbers_for_ids_can_be_typed_again() {
    let mut bench = Bench::new();
    let specs = [named("0"), named("1"), named("2"), job("true")];
    for round in 0..3 {
        let run = bench.at(1, |tx| tx.start_run(&new_run(7), &specs, false)).unwrap();
        let RunStart::New(info) = run else { panic!("round {round} was complete") };
        let (pool, serves) = (bench.pool.clone(), Serves::Run(info.lane));
        let claims = bench.at(2, |tx| tx.claim(&pool, &serves, 9, &mut ClaimCache::default())).unwrap();
        assert_eq!(names(&claims)[..3], ["0", "1", "2"]);
        for claim in claims {
            bench.finish(&claim, &ran(Outcome::Completed, 3), 3);
        }
    }
    let page = bench.store.read(|s| s.page(None, &Cursor::default(), 99)).unwrap();
    let ids: std::collections::BTreeSet<&JobId> = page.jobs.iter().map(|job| &job.id).collect();
    assert_eq!((page.jobs.len(), ids.len()), (12, 12), "every job has a name of its own");
    assert!(bench.claim(4, 1).is_empty());
}

#[test]
fn settings_are_refused_or_followed_at_once() {
    let mut bench = Bench::new();
    bench.at(1, |tx| tx.enqueue(&[named("a"), named("b")])).unwrap();
    assert!(bench.at(2, |tx| tx.set(None, SettingKey::MaxRetries, "many")).is_err());
    bench.at(3, |tx| tx.set(None, SettingKey::MaxRetries, "0")).unwrap();
    let claims = bench.claim(4, 1);
    bench.finish(&claims[0], &ran(Outcome::Failed, 5), 5);
    assert_eq!(bench.state("a"), StateKind::Dead);
    assert!(bench.at(6, |tx| tx.unset(None, SettingKey::MaxRetries)).unwrap());
    assert!(!bench.at(6, |tx| tx.unset(None, SettingKey::MaxRetries)).unwrap());
    let claims = bench.claim(7, 1);
    bench.finish(&claims[0], &ran(Outcome::Failed, 8), 8);
    assert_eq!(bench.state("b"), StateKind::Failed);
}

#[test]
fn pages_are_whole_and_newest_first() {
    let mut bench = Bench::new();
    let jobs: Vec<JobSpec> = (0..25).map(|_| job("true")).collect();
    bench.at(1, |tx| tx.enqueue(&jobs)).unwrap();
    for (n, claim) in bench.claim(2, 12).iter().enumerate() {
        let outcome = if n % 2 == 0 { Outcome::Completed } else { Outcome::Failed };
        bench.finish(claim, &ran(outcome, 3), 3);
    }
    bench.claim(4, 3);
    let all = |state| {
        let (mut seqs, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(at) = cursor {
            let page = bench.store.read(|s| s.page(state, &at, 4)).unwrap();
            seqs.extend(page.jobs.iter().map(|job| job.seq.0));
            cursor = page.next;
        }
        seqs
    };
    assert_eq!(all(None), (1..=25).rev().collect::<Vec<_>>());
    for (state, expected) in [
        (StateKind::Completed, vec![11, 9, 7, 5, 3, 1]),
        (StateKind::Failed, vec![12, 10, 8, 6, 4, 2]),
        (StateKind::Processing, vec![15, 14, 13]),
        (StateKind::Pending, (16..=25).rev().collect()),
        (StateKind::Dead, vec![]),
        (StateKind::Blocked, vec![]),
    ] {
        assert_eq!(all(Some(state)), expected, "{}", state.name());
    }
}

#[test]
fn environments_are_shared_and_counted() {
    let bench = Bench::new();
    let env = Arc::new(Environment::from([(b"A".to_vec(), b"1".to_vec())]));
    let with = |env: &Arc<Environment>| JobSpec { env: Arc::clone(env), ..job("true") };
    bench.at(1, |tx| tx.enqueue(&[with(&env), with(&env), job("true")])).unwrap();
    bench.at(2, |tx| tx.enqueue(&[with(&Arc::new((*env).clone()))])).unwrap();
    let pool = bench.pool.clone();
    let claims = bench.at(3, |tx| tx.claim(&pool, &Serves::AllQueues, 9, &mut ClaimCache::default())).unwrap();
    assert!(Arc::ptr_eq(&claims[0].work.env, &claims[3].work.env));
    assert_eq!(claims[0].work.env, env);
}

#[test]
fn generations_move_only_when_someone_has_to_look() {
    let mut bench = Bench::new();
    let now = |bench: &Bench| bench.store.read(Snapshot::generations).unwrap();
    let start = now(&bench);
    bench.at(1, |tx| tx.enqueue(&[job("true")])).unwrap();
    let enqueued = now(&bench);
    assert!(enqueued.work > start.work && enqueued.control == start.control);
    let claims = bench.claim(2, 1);
    bench.finish(&claims[0], &ran(Outcome::Completed, 3), 3);
    assert_eq!(now(&bench), enqueued, "a completed job is nobody's business");
    let pool = bench.pool.clone();
    assert!(bench.at(4, |tx| tx.ask(&pool, Asked::Stop)).unwrap());
    assert!(!bench.at(4, |tx| tx.ask(&pool, Asked::Stop)).unwrap());
    assert_eq!(now(&bench).control, enqueued.control + 1);
}

#[test]
fn files_that_are_no_queue_are_named() {
    let dir = TempDir::new().unwrap();
    let open = || Store::open_or_create(dir.path(), Box::new(|| {}));
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let file = dir.path().join("queue.redb");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(open(), Err(StoreError::NotAQueue(_))));
    std::fs::write(&file, b"hello, I am a text of some length\n".repeat(200)).unwrap();
    let error = open().unwrap_err();
    assert!(matches!(error, StoreError::NotAQueue(_)), "{error}");
    std::fs::remove_file(&file).unwrap();
    drop(open().unwrap());
    let whole = std::fs::read(&file).unwrap();
    for len in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..len]).unwrap();
        let error = open().err().unwrap_or_else(|| panic!("cut to {len} opens"));
        assert!(matches!(error, StoreError::NotAQueue(_) | StoreError::Damaged(_)), "cut to {len}: {error}");
    }
    std::fs::write(&file, &whole).unwrap();
    let (store, made) = open().unwrap();
    assert!(!made);
    store.write(Millis(1), |tx| tx.set_schema(99)).unwrap();
    drop(store);
    assert!(matches!(open(), Err(StoreError::Schema { found: 99, known: SCHEMA_VERSION })));
}

#[test]
fn what_waits_for_others_comes_down_to_what_waits_for_none() {
    let (_dir, store) = temp_queue();
    let after = |name: &str, needs: &[&str]| {
        let needs = needs.iter().map(|need| Need { id: id(need), any: false }).collect();
        JobSpec { needs, ..named(name) }
    };
    let later = JobSpec { start: Start::At(Millis(50)), queue: "gpu".parse().unwrap(), ..named("later") };
    let specs = [named("a"), later, after("b", &["a"]), after("c", &["a", "later"]), after("d", &["b", "c"])];
    let jobs = store.write(Millis(10), |tx| tx.enqueue(&specs)).unwrap();
    let roots = |of: &[usize]| {
        let (mut found, of) = (Vec::new(), of.iter().map(|n| jobs[*n].seq).collect::<Vec<_>>());
        let take = |root: Root| {
            found.push((root.seq, root.state.kind()));
            Ok(std::ops::ControlFlow::Continue(()))
        };
        assert!(store.read(|snapshot| snapshot.roots(of, take)).unwrap().is_continue());
        found.sort_unstable();
        found
    };
    let (a, later) = ((jobs[0].seq, StateKind::Pending), (jobs[1].seq, StateKind::Scheduled));
    assert_eq!([roots(&[4]), roots(&[2]), roots(&[1, 0, 2])], [vec![a, later], vec![a], vec![a, later]]);
    store.write(Millis(11), |tx| tx.hold(&[id("c")])).unwrap();
    assert_eq!(roots(&[3]), [a, later], "its turn to be let go comes after theirs");
    let gpu = Serves::Queues(vec!["gpu".parse().unwrap()]);
    store
        .read(|snapshot| {
            assert_eq!(snapshot.next_due_of(&gpu)?, Some((Millis(50), jobs[1].seq)));
            assert_eq!(snapshot.next_due_of(&Serves::Queues(vec![QueueName::default_queue()]))?, None);
            assert_eq!((snapshot.blocked(&gpu, 9)?, snapshot.blocked(&Serves::AllQueues, 9)?.len()), (Vec::new(), 3));
            Ok(())
        })
        .unwrap();
    store.write(Millis(12), |tx| tx.cancel(&[id("a")])).unwrap();
    assert_eq!(roots(&[2]), [(jobs[2].seq, StateKind::Blocked)], "nobody has told it yet");
    while store.write(Millis(13), |tx| tx.settle(SETTLED_AT_ONCE)).unwrap() {}
    assert_eq!(roots(&[2, 3, 4]), []);
}

#[test]
fn an_older_schema_is_raised_with_the_first_change_and_not_before() {
    let (dir, store) = temp_queue();
    store.write(Millis(1), |tx| tx.set_schema(4)).unwrap();
    let schema = |store: &Store| store.read(Snapshot::schema).unwrap();
    assert_eq!(schema(&Store::open_read_only(dir.path(), Box::new(|| {})).unwrap()), Some(4));
    let peer = Store::open(dir.path(), Box::new(|| {})).unwrap();
    store.write(Millis(2), |tx| Ok(tx.now())).unwrap();
    store.write(Millis(3), |tx| tx.cancel(&[id("nobody")])).unwrap_err();
    assert_eq!(schema(&peer), Some(4), "nothing was changed");
    store.write(Millis(4), |tx| tx.enqueue(&[named("a")])).unwrap();
    assert_eq!(schema(&peer), Some(SCHEMA_VERSION));
    peer.write(Millis(5), |tx| tx.enqueue(&[named("b")])).unwrap();
    // A newer program does the same, while this one has the file open.
    store.write(Millis(6), |tx| tx.set_schema(99)).unwrap();
    let before = peer.read(Snapshot::fingerprint).unwrap();
    let refused = peer.write(Millis(7), |tx| tx.enqueue(&[named("c")])).unwrap_err();
    assert!(matches!(refused, StoreError::Schema { found: 99, known: SCHEMA_VERSION }), "{refused}");
    assert_eq!(peer.read(Snapshot::fingerprint).unwrap(), before);
}
