//! The store against the reference.

use super::*;
use crate::model::StateKind;
use crate::store::tests::temp_queue;

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
    let tally = try_seeds(0..60, 150);
    for kind in StateKind::ALL.into_iter().filter(|kind| *kind != StateKind::Blocked) {
        assert!(tally.states.get(&kind).is_some_and(|steps| *steps > 100), "{} is hardly reached", kind.name());
    }
    for (event, times) in &tally.events {
        assert!(*times >= 10, "it happened {times} times that a transaction {event}");
    }
}

#[test]
#[ignore = "takes minutes: SIM_SEED, SIM_SEEDS and SIM_STEPS say how much"]
fn the_store_does_what_the_rules_say_for_long() {
    let (first, seeds) = (number("SIM_SEED", 1_000), number("SIM_SEEDS", 1_000));
    let tally = try_seeds(first..first + seeds, usize::try_from(number("SIM_STEPS", 400)).unwrap());
    println!("{tally:#?}");
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
