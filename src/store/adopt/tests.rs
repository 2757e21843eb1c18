//! Copies of the queues that workloads make.

use std::collections::BTreeSet;

use super::super::tests::temp_queue;
use super::super::whole::strictly;
use super::*;
use crate::model::StateKind;
use crate::sim::{run, workload};

/// The parts of a queue.
fn parts(store: &Store) -> Vec<Part> {
    let mut parts = Vec::new();
    store
        .read(|snapshot| {
            snapshot.parts(&mut strictly, &mut |part| {
                parts.push(part);
                Ok(())
            })
        })
        .unwrap();
    parts
}

/// The parts as they are after a copy: without claims.
/// What a copy has of them: nothing is claimed, and nobody unpublished needs anything.
fn without_claims(mut parts: Vec<Part>) -> Vec<Part> {
    let needs = |part: &Part| match part {
        Part::Job(job) => job.needs.iter().map(|(seq, _)| *seq).collect(),
        _ => Vec::new(),
    };
    let needed: BTreeSet<u64> = parts.iter().flat_map(needs).collect();
    for part in &mut parts {
        if let Part::Job(job) = part {
            job.record = JobRecord { is_needed: needed.contains(&job.seq), ..unclaimed(&job.record) };
        }
    }
    parts
}

fn copy(store: &Store) -> (tempfile::TempDir, Store) {
    let (dir, fresh) = temp_queue();
    store.read(|snapshot| snapshot.copy_whole(&fresh)).unwrap();
    let report = fresh.read(Snapshot::check).unwrap();
    assert_eq!(report.violations, [""; 0]);
    (dir, fresh)
}

#[test]
fn a_copy_has_the_same_parts_and_nothing_else() {
    let mut held = 0;
    for seed in 0..16 {
        let (_dir, store) = temp_queue();
        run(&store, &workload::seeded(seed, 120)).unwrap_or_else(|mismatch| panic!("seed {seed}, {mismatch}"));
        let (_dir, fresh) = copy(&store);
        assert_eq!(parts(&fresh), without_claims(parts(&store)), "seed {seed}");
        assert_eq!(fresh.read(Snapshot::pools).unwrap(), []);
        held += store.read(Snapshot::counts).unwrap()[&StateKind::Processing];
        assert_eq!(fresh.read(Snapshot::counts).unwrap()[&StateKind::Processing], 0);
        // What has no claims and pools is copied byte for byte, whoever copies it.
        let (_dir, again) = copy(&fresh);
        let content = |store: &Store| store.read(Snapshot::fingerprint_but_generations).unwrap();
        assert_eq!(content(&again), content(&fresh), "seed {seed}");
    }
    assert!(held > 10, "hardly any job was claimed: {held}");
}

#[test]
fn a_copy_goes_on_where_the_original_was() {
    let (_dir, store) = temp_queue();
    run(&store, &workload::seeded(3, 120)).unwrap();
    let (_dir, fresh) = copy(&store);
    let head = |store: &Store| store.read(Snapshot::head).unwrap();
    let (old, new) = (head(&store), head(&fresh));
    assert_eq!(new, old);
}

#[test]
fn what_is_taken_is_refused_and_changes_nothing() {
    let (_dir, store) = temp_queue();
    run(&store, &workload::seeded(5, 120)).unwrap();
    let (_dir, fresh) = copy(&store);
    let content = || fresh.read(Snapshot::fingerprint).unwrap();
    let before = content();
    let mut lanes = 0;
    for part in parts(&store) {
        let refused = fresh.write(Millis(0), |tx| match &part {
            Part::Lane { lane, record } => tx.adopt_lane(*lane, record),
            Part::Job(job) => tx.adopt_jobs(std::slice::from_ref(&**job)),
            Part::Setting { .. } | Part::Head(_) => Err(StoreError::TooLarge(String::new())),
        });
        lanes += usize::from(matches!(part, Part::Lane { .. }));
        assert!(refused.is_err(), "{part:?}");
    }
    assert!(lanes > 1);
    assert_eq!(content(), before);
}

#[test]
fn a_job_that_contradicts_itself_is_refused() {
    let completed_with_output = |seed| {
        let (_dir, store) = temp_queue();
        run(&store, &workload::seeded(seed, 120)).unwrap();
        let mut jobs =
            parts(&store).into_iter().filter_map(|part| if let Part::Job(job) = part { Some(*job) } else { None });
        jobs.find(|job| job.record.kind() == StateKind::Completed && job.attempts.iter().any(|a| a.stdout.is_some()))
    };
    let mut with_attempts: WholeJob = (1..50).find_map(completed_with_output).unwrap();
    with_attempts.needs.clear();
    assert_eq!(contradiction(&with_attempts), None);
    let refused = |change: &mut dyn FnMut(&mut WholeJob)| {
        let mut job = with_attempts.clone();
        change(&mut job);
        assert!(contradiction(&job).is_some(), "{job:?}");
    };
    refused(&mut |job| job.record.attempts += 1);
    refused(&mut |job| drop(job.attempts.pop()));
    refused(&mut |job| job.attempts.iter_mut().for_each(|attempt| attempt.stdout = None));
    refused(&mut |job| job.attempts.iter_mut().for_each(|attempt| attempt.stdout = Some(vec![0; 99])));
    refused(&mut |job| job.attempts[0].record.started = job.attempts[0].record.ended + 1);
    refused(&mut |job| job.record.needs = 1);
    refused(&mut |job| job.needs.push((1, NeedRecord { any: false, met: false })));
    refused(&mut |job| job.record.failures = job.record.attempts + 1);
    refused(&mut |job| job.record.state = StateRecord::Blocked { due: None, held: false });
    refused(&mut |job| job.spec.id = Some("-no".to_owned()));
    with_attempts.needs.push((1, NeedRecord { any: false, met: true }));
    assert_eq!(contradiction(&with_attempts), None, "a need that is met may stay");
}
