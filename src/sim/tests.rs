//! The store against the reference.

use std::collections::BTreeSet;

use super::disk::{Disk, Fate};
use super::workload::{Op, Verb, Who, Whom};
use super::*;
use crate::model::{Command, IfExists, JobSpec, Millis, Start, StateKind};
use crate::store::tests::temp_queue;
use crate::store::{Snapshot, Store, Terms, commit_mark};

fn try_seed(seed: u64, steps: usize) -> Tally {
    let (_dir, store) = temp_queue();
    run(&store, &workload::seeded(seed, steps)).unwrap_or_else(|mismatch| panic!("seed {seed}, {mismatch}"))
}

fn try_seeds(seeds: std::ops::Range<u64>, steps: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        tally.add(&try_seed(seed, steps));
    }
    tally
}

/// A number from the environment, for longer runs.
pub(super) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn the_store_does_what_the_rules_say() {
    let tally = try_seeds(0..250, 150);
    for kind in StateKind::ALL {
        assert!(tally.states.get(&kind).is_some_and(|steps| *steps > 100), "{} is hardly reached", kind.name());
    }
    let events: BTreeSet<&str> = EVENTS.split(['\n', ';']).map(str::trim).filter(|event| !event.is_empty()).collect();
    let happened: BTreeSet<&str> = tally.events.keys().map(String::as_str).collect();
    let (unknown, missing) = (&happened - &events, &events - &happened);
    let rare: Vec<_> = tally.events.iter().filter(|(_, times)| **times < 5).collect();
    assert!(
        unknown.is_empty() && missing.is_empty() && rare.is_empty(),
        "not in the list: {unknown:?}; never: {missing:?}; hardly ever: {rare:?}"
    );
}

/// What has to happen: every verb, from every state, with every outcome.
const EVENTS: &str = "
    enqueued none; enqueued one; enqueued many
    enqueue refused: an id twice in it; enqueue refused: an id that is taken
    claimed several; claimed of a run; claim refused; claim held back

    given back: pending;        given back, cancel asked: cancelled
    completed: completed;       completed, cancel asked: completed
    failed: failed; failed: dead;        failed, cancel asked: cancelled
    timed_out: failed; timed_out: dead;  timed_out, cancel asked: cancelled
    cancelled: cancelled;       cancelled, cancel asked: cancelled
    interrupted: pending;       interrupted, cancel asked: cancelled
    lost: pending; lost: dead;  lost, cancel asked: cancelled
    late news; late news of what was removed

    scheduled promoted; failed promoted; nothing promoted

    enqueue refused: what it needs does not exist; enqueue refused: what it needs comes later
    enqueue refused: what it needs has ended; bulk not filled: what a job needs
    settled; settled in part; unblocked by settling; cancelled by settling; revived by settling
    retry refused: what it needs has ended; remove refused: a bulk needs it
    hold: scheduled; hold: blocked; hold: pending; hold: failed; hold: several
    hold refused: processing; hold refused: completed; hold refused: dead; hold refused: cancelled
    hold refused: no such job
    release: scheduled; release: blocked; release: pending; release: failed; release: several
    release refused: processing; release refused: completed; release refused: dead; release refused: cancelled
    release refused: no such job

    cancel: scheduled; cancel: blocked; cancel: pending; cancel: processing; cancel: failed; cancel: several
    cancel refused: completed; cancel refused: dead; cancel refused: cancelled; cancel refused: no such job
    retry: completed; retry: dead; retry: cancelled; retry: several; retried under other terms
    retry refused: scheduled; retry refused: blocked; retry refused: pending; retry refused: processing; retry refused: failed
    retry refused: no such job
    remove: completed; remove: dead; remove: cancelled; remove: several
    remove refused: scheduled; remove refused: blocked; remove refused: pending; remove refused: processing; remove refused: failed
    remove refused: no such job
    removed with files; removed with its run
    cleared: completed; cleared: dead; cleared: cancelled; cleared: a piece after another
    edit: scheduled; edit: blocked; edit: pending; edit: failed; edit: dead; edit: cancelled
    edit: what it needs; edit refused: what it needs came later; edit refused: what it needs has ended
    edit refused: completed; edit refused: processing; edit refused: its time, or what it needs
    edit refused: no such job; edit refused: of a run
    swept: jobs; swept: nothing; swept: passed over
    cleared with its run; not cleared: a run that has not ended

    registered; register refused; retired; retire refused; recovered
    asked: Stop, news; asked: StopNow, news; asked: Stop, in vain; asked: StopNow, in vain; asked: Work, in vain
    scaled; scaled in vain
    run began; run went on; run refused
    set; set refused; unset; unset in vain; unset everywhere

    enqueue refused: an id of a bulk; enqueue refused: a key of a bulk
    enqueue refused: a key that is taken; enqueue refused: a key twice in it
    met nobody; met: replaced; met: dead, retried; met: cancelled, retried
    met: scheduled; met: blocked; met: pending; met: processing; met: failed; met: completed; met: dead; met: cancelled
    bulk filled but for what is there; bulk not filled: a key that is taken
    bulk keyed; bulk not keyed: a key that is taken, or is twice in it
    bulk begun; bulk filled; bulk published; bulk run published; bulk undone; bulk undone in part; bulk undone in vain
    bulk not filled: an id that is taken; bulk not filled: it is over, or has no such queue
    bulk named; bulk not named: an id that is taken; bulk not published: jobs without their ids
    bulk not published: it is over; bulk run not published: another goes on

    kept; changes nothing; clock set back by a day; clock set forward by a day
";

/// Chance brings this about too seldom: jobs that wait for others and a time, or are held, are cancelled for the first
/// of them and come back, before that time and after it.
#[test]
fn what_is_cancelled_for_a_need_comes_back_as_it_was() {
    let wish = |id, start, needs: &[Whom]| workload::Wish {
        id: Some(id),
        queue: 0,
        priority: 0,
        max_retries: None,
        backoff_base: None,
        timeout: None,
        start,
        needs: needs.iter().map(|whom| (*whom, false)).collect(),
        name: 9,
        tags: 0,
        key: 9,
        if_exists: IfExists::Skip,
        environment: 1,
        length: 1,
    };
    let later = Start::At(Millis(2_000));
    let wishes = vec![
        wish("a", Start::Now, &[]),
        wish("b", later, &[Whom::Earlier(0)]),
        wish("c", Start::Now, &[Whom::Earlier(0)]),
        wish("d", later, &[Whom::Earlier(1)]),
    ];
    let named = |id| vec![Who::Named(id)];
    let op = |at, verbs| Op { at: Millis(at), verbs, kept: true };
    let cancel = |at| op(at, vec![Verb::Cancel(named("a")), Verb::Settle(9)]);
    let retry = |at| op(at, vec![Verb::Retry(named("a"), Terms::default()), Verb::Settle(9), Verb::Settle(9)]);
    let ops = vec![
        op(1, vec![Verb::Enqueue(wishes), Verb::Hold(vec![Who::Named("c"), Who::Named("d")])]),
        cancel(10),
        retry(20),
        cancel(30),
        op(40, vec![Verb::Retry(["a", "b", "c", "d"].map(Who::Named).to_vec(), Terms::default())]),
        cancel(50),
        op(60, vec![Verb::Remove(named("a")), Verb::Retry(named("c"), Terms::default())]),
        op(3_000, vec![Verb::Retry(named("b"), Terms::default()), Verb::Settle(9)]),
    ];
    let (_dir, store) = temp_queue();
    let tally = run(&store, &ops).unwrap_or_else(|mismatch| panic!("{mismatch}"));
    assert_eq!(tally.events["revived by settling"], 2, "a brings back b, and later b alone d: {tally:?}");
}

#[test]
#[ignore = "takes minutes: SIM_SEED, SIM_SEEDS and SIM_STEPS say how much"]
fn the_store_does_what_the_rules_say_for_long() {
    let (first, seeds) = (number("SIM_SEED", 1_000), number("SIM_SEEDS", 1_000));
    let tally = try_seeds(first..first + seeds, usize::try_from(number("SIM_STEPS", 400)).unwrap());
    println!("{tally:#?}");
}

/// `compact` at any moment of a queue's life, even while jobs are held, which the command itself excludes.
#[test]
fn a_queue_whose_rows_were_copied_goes_on_as_it_would_have() {
    let mut jobs = 0;
    for seed in 0..40 {
        let (ops, mut comparison) = (workload::seeded(seed, 120), compare::Comparison::default());
        let mut disk = Disk::default();
        let mut store = Store::on(disk.drive()).unwrap();
        for (step, op) in ops.iter().enumerate() {
            if step % 30 == 29 {
                let fresh = Disk::default();
                let copy = store.copied_onto(fresh.drive()).unwrap();
                let same = |store: &Store| store.read(Snapshot::fingerprint).unwrap();
                assert_eq!(same(&copy), same(&store), "seed {seed}, step {step}");
                (store, disk) = (copy, fresh);
            }
            let done = comparison.step(&store, step, op).map_err(|parted| Mismatch::at(step, &ops, parted));
            done.unwrap_or_else(|mismatch| panic!("seed {seed}, {mismatch}"));
        }
        jobs += store.read(Snapshot::check).unwrap().jobs;
        drop(store);
        assert!(Store::is_sound_on(Disk::holding(disk.contents()).drive()).unwrap(), "seed {seed}");
    }
    assert!(jobs > 400, "{jobs}");
}

#[test]
fn bytes_make_workloads_too() {
    let bytes: Vec<u8> = (0..2_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let ops = workload::from_bytes(&bytes);
    assert!(ops.len() > 50);
    let (_dir, store) = temp_queue();
    run(&store, &ops).unwrap_or_else(|mismatch| panic!("{mismatch}"));
    assert!(workload::from_bytes(&[]).is_empty());
}

#[test]
fn a_difference_is_found_and_told() {
    let (_dir, store) = temp_queue();
    let ops = workload::seeded(7, 40);
    run(&store, &ops).unwrap();
    // The same again: the reference begins with an empty queue, the store does not.
    let mismatch = run(&store, &ops).unwrap_err();
    assert_eq!(mismatch.tail, ops[..=mismatch.step]);
    let told = mismatch.to_string();
    assert!(told.starts_with(&format!("step {}: ", mismatch.step)), "{told}");
    assert!(told.contains("reference:") && told.contains("Op {"), "{told}");
}

#[test]
fn the_mark_moves_with_each_commit_once_it_can_be_seen_and_with_no_other_write() {
    let disk = Disk::default();
    let store = Store::on(disk.drive()).unwrap();
    let (made, commits) = (disk.events(), 5);
    for n in 0..commits {
        store.write(Millis(n), |tx| tx.enqueue(&[JobSpec::new(Command::Shell("true".into()), "/")])).unwrap();
    }
    let (power, dir) = (disk.power(), tempfile::tempdir().unwrap());
    let (path, mut losses, mut moves, mut last) = (dir.path().join("file"), power.losses(), Vec::new(), None);
    for moment in made..=power.len() {
        losses.advance(moment);
        std::fs::write(&path, losses.lost(Fate::Everything)).unwrap();
        let mark = Some(commit_mark(&std::fs::File::open(&path).unwrap()).unwrap());
        if last.is_some() && last != mark {
            moves.push(moment);
            // It can be seen: who opens the file now reads it.
            let now = Disk::holding(std::fs::read(&path).unwrap());
            let seen = Store::on(now.drive()).unwrap().read(Snapshot::counts).unwrap();
            assert_eq!(seen.values().sum::<u64>(), moves.len() as u64);
        }
        last = mark;
    }
    assert_eq!(moves.len() as u64, commits);
}
