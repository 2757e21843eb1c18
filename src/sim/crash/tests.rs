//! Queues that are struck at every moment.

use super::power::power_on;
use super::*;
use crate::sim::tests::number;

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
    survey += kill_one(4, 24);
    assert!(survey.points > 300 && survey.happened > 5, "{survey:?}");
}

#[test]
fn every_io_can_fail() {
    for (error, lasting) in FAULTS.into_iter().flat_map(|error| [(error, false), (error, true)]) {
        let survey = fail(1, 12, error, lasting);
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
    kill_one(100_057, 40);
}
