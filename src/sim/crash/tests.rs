//! Queues that are struck at every moment.

use super::power::power_on;
use super::*;
use crate::model::{IfExists, Millis, Start};
use crate::sim::tests::number;
use crate::sim::workload::{Op, Serving, Verb, Whom, Wish};

const EFFORT: Effort = Effort { fates: 3, second: 2, afterwards: 5 };
const FAULTS: [Fault; 3] = [Fault::Broken, Fault::Full, Fault::Forgotten];

fn lose_power(seed: u64, steps: usize) -> Survey {
    power(&workload::seeded(seed, steps), seed, EFFORT).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"))
}

fn kill_one(seed: u64, steps: usize) -> Survey {
    kill(&workload::seeded(seed, steps)).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"))
}

fn fail(seed: u64, steps: usize, error: Fault, lasting: bool) -> Survey {
    let survey = fault(&workload::seeded(seed, steps), error, lasting);
    survey.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"))
}

#[test]
fn power_can_be_lost_at_every_moment() {
    let mut survey = lose_power(1, 60);
    survey += lose_power(2, 40);
    assert!(survey.points > 10_000 && survey.disks > survey.points, "{survey:?}");
    assert!(survey.second > 5_000 && survey.happened > 50, "{survey:?}");
}

#[test]
fn a_process_can_be_killed_at_every_io() {
    let mut survey = kill_one(1, 24);
    survey += kill_one(4, 40);
    assert!(survey.points > 300 && survey.happened > 5, "{survey:?}");
}

#[test]
fn every_io_can_fail() {
    for (error, lasting) in FAULTS.into_iter().flat_map(|error| [(error, false), (error, true)]) {
        let survey = fail(2, 24, error, lasting);
        assert!(survey.points > 10 && survey.happened > 0, "{error:?}: {survey:?}");
    }
}

#[test]
fn a_disk_that_lies_is_found_out() {
    for seed in 0..4 {
        let disk = Disk::lying(new_queue().unwrap());
        power_on(&disk, &workload::seeded(seed, 20), seed, EFFORT).unwrap_err();
    }
}

#[test]
fn bytes_make_blows_too() {
    let bytes = |kind: u8| -> Vec<u8> {
        let rest = (0..300_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes());
        [kind, 0, 99].into_iter().chain(rest).collect()
    };
    for kind in 0..16 {
        let survey = from_bytes(&bytes(kind)).unwrap_or_else(|broken| panic!("kind {kind}: {broken}"));
        assert!(survey.points > 0);
    }
    assert_eq!(from_bytes(&[]).unwrap(), Survey::default());
}

/// `CRASH_SEED=1000 CRASH_SEEDS=40 cargo test --release --lib -- --ignored --nocapture everything_can_go_wrong`
#[test]
#[ignore = "takes as long as it is told: CRASH_SEED, CRASH_SEEDS"]
fn everything_can_go_wrong_for_long() {
    let (first, seeds) = (number("CRASH_SEED", 1_000), number("CRASH_SEEDS", 20));
    let mut survey = Survey::default();
    for seed in first..first + seeds {
        survey += lose_power(seed, 80);
        survey += kill_one(seed, 40);
        for (error, lasting) in FAULTS.into_iter().flat_map(|error| [(error, false), (error, true)]) {
            survey += fail(seed, 20, error, lasting);
        }
        println!("seed {seed}: {survey:?}");
    }
}

#[test]
fn what_happened_without_a_trace_but_a_number_is_told_from_what_did_not() {
    // Begun and taken away in one transaction, a bulk leaves only the numbers that it was given.
    let once = |_| op(vec![Verb::BeginBulk { queues: 1, jobs: 3 }, Verb::UndoBulk { bulk: 0, limit: 9 }]);
    let survey = kill(&(0..6).map(once).collect::<Vec<_>>()).unwrap();
    assert!(survey.happened > 0, "{survey:?}");
}

fn op(verbs: Vec<Verb>) -> Op {
    Op { at: Millis(1_000), verbs, kept: true }
}

/// A bulk from its beginning to its end, either end, with others between the pieces.
fn bulks() -> Vec<Op> {
    let wish = |id, queue| Wish {
        id,
        queue,
        priority: 0,
        max_retries: None,
        backoff_base: None,
        timeout: None,
        start: if queue == 1 { Start::At(Millis(2_000)) } else { Start::Now },
        needs: if id.is_none() { vec![(Whom::Earlier(0), queue == 1)] } else { Vec::new() },
        name: queue,
        tags: 6,
        key: queue,
        if_exists: IfExists::Skip,
        environment: 1,
        length: 1,
    };
    let fill = |id| op(vec![Verb::FillBulk { bulk: 0, wishes: vec![wish(id, 0), wish(None, 1), wish(None, 0)] }]);
    let enqueue = |id| op(vec![Verb::Enqueue(vec![wish(id, 0)])]);
    let publish = op(vec![Verb::PublishBulk { bulk: 0, identity: 1, fresh: false }]);
    let name = || op(vec![Verb::NameBulk { bulk: 0, limit: 9 }]);
    let undo = || op(vec![Verb::UndoBulk { bulk: 0, limit: 4 }]);
    let begin = |queues| op(vec![Verb::BeginBulk { queues, jobs: 5 }]);
    let claim = op(vec![
        Verb::Register { pool: 0, again: false },
        Verb::Claim { pool: 0, serves: Serving::All, limit: 9 },
        Verb::Promote(9),
    ]);
    vec![
        begin(3),
        fill(Some("a")),
        enqueue(None),
        name(),
        fill(Some("b")),
        enqueue(Some("a")),
        claim.clone(),
        undo(),
        undo(),
        enqueue(Some("a")),
        begin(3),
        fill(Some("c")),
        fill(None),
        publish.clone(),
        name(),
        publish.clone(),
        claim,
        begin(0),
        fill(Some("d")),
        name(),
        publish,
    ]
}

/// Bulks are what the reference says wherever they are cut off: whole, as far as they had come, or gone.
#[test]
fn bulks_survive_every_blow() {
    let ops = bulks();
    let survey = power(&ops, 1, EFFORT).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(survey.points > 1_000 && survey.happened > 5, "{survey:?}");
    let survey = kill(&ops).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(survey.points > 100 && survey.happened > 5, "{survey:?}");
    for error in FAULTS {
        fault(&ops, error, false).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// The schema is raised together with the first change, or not at all.
#[test]
fn a_queue_of_an_older_schema_survives_every_blow() {
    let disk = Disk::holding(new_queue().unwrap());
    Store::on(disk.drive()).unwrap().write(Millis(0), |tx| tx.set_schema(4)).unwrap();
    let disk = Disk::holding(disk.contents());
    let survey = power_on(&disk, &workload::seeded(3, 12), 3, EFFORT).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(survey.points > 500 && survey.second > 500, "{survey:?}");
}
