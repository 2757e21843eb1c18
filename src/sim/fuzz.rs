//! What the fuzz targets of `fuzz/` run: one function each, which takes any bytes and panics if a promise is broken.
//! The tests here run the same over the corpus that is kept in `fuzz/corpus/`.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::disk::Disk;
use super::{crash, workload};
use crate::cli::input::any;
use crate::model::{Job, JobId, JobSpec, Millis, Settings};
use crate::store::codec::roundtrip;
use crate::store::{Asked, Claim, ClaimCache, Enqueued, PoolInfo, Serves, Store};
use crate::worker::dispatcher::chaos;

/// Most operations of a workload: the cost of comparing grows with the square.
const OPS_MAX: usize = 200;
/// Most jobs of one input that are stored.
const STORED_MAX: usize = 50;

/// Bytes as a workload ([`workload::from_bytes`]): the store does what the reference does.
///
/// # Panics
///
/// If they differ.
pub fn store_model(bytes: &[u8]) {
    let mut ops = workload::from_bytes(bytes);
    ops.truncate(OPS_MAX);
    super::run(&new_store(), &ops).unwrap_or_else(|mismatch| panic!("{mismatch}"));
}

/// Bytes as a workload and a blow ([`crash::from_bytes`]): power is lost, a process killed, or an I/O fails at one
/// moment, and all that was acknowledged is there.
///
/// # Panics
///
/// If it is not.
pub fn store_crash(bytes: &[u8]) {
    crash::from_bytes(bytes).unwrap_or_else(|broken| panic!("{broken}"));
}

/// Bytes as records of every type, as they are and under a valid version and checksum: they are refused as damaged,
/// or come back the same when they are written and read again.
///
/// # Panics
///
/// If something else happens.
pub fn codec(bytes: &[u8]) {
    roundtrip::every_record(bytes);
}

/// Most memory, in bytes, that [`codec`] takes at one time for so many bytes.
pub fn codec_bytes_max(len: usize) -> usize {
    roundtrip::memory_max(len)
}

/// Bytes as what a person enqueues or runs, one job or a batch, in every format: they are refused with a message of
/// one line, or stored and read back as the same jobs.
///
/// # Panics
///
/// If something else happens.
pub fn job_json(bytes: &[u8]) {
    let mut batches = any::accepted(bytes);
    batches.retain(|jobs| !jobs.is_empty());
    // Most formats agree.
    batches.dedup();
    for mut jobs in batches {
        for spec in &jobs {
            assert_eq!(roundtrip::spec_read_back(spec), *spec, "read back as another job");
        }
        jobs.truncate(STORED_MAX);
        // What they wait for is not there.
        for job in &mut jobs {
            job.needs.clear();
        }
        // Of two with the same key only one is enqueued, if that.
        let mut keys = HashSet::new();
        jobs.retain(|job| job.key.as_ref().is_none_or(|key| keys.insert(key.clone())));
        stored_and_claimed(&jobs);
    }
}

/// Bytes as what happens to a pool: the dispatcher keeps its promises.
///
/// # Panics
///
/// If it does not.
pub fn dispatcher(bytes: &[u8]) {
    let mut bytes = bytes.iter();
    chaos::live(|n| bytes.next().map(|byte| u64::from(*byte) % n));
}

/// A new queue, on a disk of its own.
fn new_store() -> Store {
    static NEW: OnceLock<Vec<u8>> = OnceLock::new();
    let open = |disk: &Disk| Store::on(disk.drive()).unwrap_or_else(|error| panic!("no queue in memory: {error}"));
    let made = NEW.get_or_init(|| {
        let disk = Disk::default();
        drop(open(&disk));
        disk.contents()
    });
    open(&Disk::holding(made.clone()))
}

/// Enqueues jobs and claims them: both what is shown of them and what is run is what was asked for.
fn stored_and_claimed(specs: &[JobSpec]) {
    let (store, pool) = (new_store(), pool());
    let moved = store.write(Millis(1), |tx| {
        tx.register(&pool)?;
        let enqueued = tx.enqueue(specs)?;
        Ok((enqueued, tx.claim(&pool.id, &Serves::AllQueues, specs.len(), &mut ClaimCache::default())?))
    });
    let (enqueued, claims) = moved.unwrap_or_else(|error| panic!("what was accepted is refused: {error}"));
    let seen = store.read(|snapshot| {
        let jobs = enqueued.iter().map(|job| snapshot.job(job.seq)).collect::<Result<Vec<_>, _>>()?;
        Ok((jobs, snapshot.check()?.violations))
    });
    let (jobs, violations) = seen.unwrap_or_else(|error| panic!("what was stored cannot be read: {error}"));
    assert!(violations.is_empty(), "{violations:?}");
    assert_eq!(claims.len(), specs.len(), "a job was not claimed");
    for ((spec, enqueued), job) in specs.iter().zip(&enqueued).zip(jobs) {
        is_shown(&job.unwrap_or_else(|| panic!("job {} is gone", enqueued.id)), spec, enqueued);
        let claim = claims.iter().find(|claim| claim.token.seq() == enqueued.seq);
        is_run(claim.unwrap_or_else(|| panic!("job {} was not claimed", enqueued.id)), spec, enqueued);
    }
}

fn is_shown(job: &Job, spec: &JobSpec, enqueued: &Enqueued) {
    assert_eq!((&job.id, &job.queue), (&enqueued.id, &spec.queue));
    assert_eq!((&job.command, &job.cwd), (&spec.command, &spec.cwd));
    assert_eq!(job.max_retries, spec.max_retries.unwrap_or(Settings::default().max_retries));
}

fn is_run(claim: &Claim, spec: &JobSpec, enqueued: &Enqueued) {
    let (work, settings) = (&claim.work, Settings::default());
    assert_eq!(claim.id, spec.id.clone().unwrap_or_else(|| JobId::from(enqueued.seq)));
    assert_eq!((&work.command, &work.cwd), (&spec.command, &spec.cwd));
    assert_eq!((&work.env, &work.env_change), (&spec.env, &spec.env_change));
    assert_eq!((work.timeout, work.own_timeout), (spec.timeout.unwrap_or(settings.timeout), spec.timeout.is_some()));
    assert_eq!(work.shell, *spec.shell.as_ref().unwrap_or(&settings.shell));
}

fn pool() -> PoolInfo {
    PoolInfo {
        id: "p".parse().unwrap_or_else(|_| unreachable!("it is a name")),
        pid: 1,
        boot_id: 2,
        pid_namespace: 3,
        nonce: 4,
        file: (5, 6),
        started: Millis(1),
        workers: 1,
        serves: Serves::AllQueues,
        asked: Asked::Work,
        log: None,
        ended: None,
    }
}

#[cfg(test)]
mod tests;
