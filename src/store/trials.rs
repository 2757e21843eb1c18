//! Trials of what the schema has room for but no command yet: dependencies, limits of running jobs. They
//! move jobs through the same door as everything else, and `check` has to hold after every step. The operations
//! themselves come with their commands.

use std::collections::BTreeMap;

use super::claim::{ClaimCache, Serves};
use super::placement::Placement;
use super::records::{JobRecord, StateRecord, state_code};
use super::tables::{Snapshot, Tx};
use super::tests::{pool, ran, temp_queue};
use super::{PoolInfo, Store, StoreError};
use crate::model::*;

fn step<T>(store: &Store, ms: u64, change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
    let done = store.write(Millis(ms), change).unwrap();
    let report = store.read(Snapshot::check).unwrap();
    assert_eq!(report.violations, [""; 0], "at {ms}");
    done
}

fn job(priority: i8) -> JobSpec {
    JobSpec { priority, ..JobSpec::new(Command::Shell(b"true".to_vec()), "/") }
}

impl Tx<'_> {
    /// Makes a pending job wait for others: what `enqueue` will do before the job can be seen.
    fn block(&mut self, seq: Seq, needed: &[Seq]) -> Result<(), StoreError> {
        let record = self.job(seq)?;
        let needs = u32::try_from(needed.len()).unwrap();
        for needed in needed {
            self.tables.needs.put((seq.0, needed.0), &false)?;
            self.tables.needed_by.add((needed.0, seq.0))?;
        }
        self.replace(seq, &record, &JobRecord { needs, state: StateRecord::Blocked, ..record.clone() })
    }

    /// One of the jobs that a job waits for has completed.
    fn settle(&mut self, seq: Seq, needed: Seq) -> Result<(), StoreError> {
        self.tables.needs.put((seq.0, needed.0), &true)?;
        let record = self.job(seq)?;
        let left = JobRecord { needs: record.needs - 1, ..record.clone() };
        if left.needs > 0 {
            return self.replace(seq, &record, &left);
        }
        let progress = left.progress()?.unblock().unwrap();
        let unblocked = left.moved(&progress, self.now());
        self.replace(seq, &record, &unblocked)
    }

    /// One of them died: the job is cancelled, and so on for those that need it.
    fn need_failed(&mut self, failed: Seq) -> Result<(), StoreError> {
        let rows = redb::ReadableTable::range(self.tables.needed_by.open()?, (failed.0, 0)..=(failed.0, u64::MAX))?;
        let waiting: Vec<Seq> = rows.map(|row| Seq(row.unwrap().0.value().1)).collect();
        for seq in waiting {
            let record = self.job(seq)?;
            let progress = record.progress()?.need_failed(self.now()).unwrap();
            // What it waits for is settled for good, one way or the other.
            let rows = redb::ReadableTable::range(self.tables.needs.open()?, (seq.0, 0)..=(seq.0, u64::MAX))?;
            let needed: Vec<u64> = rows.map(|row| row.unwrap().0.value().1).collect();
            for needed in needed {
                self.tables.needs.put((seq.0, needed), &true)?;
            }
            let cancelled = JobRecord { needs: 0, ..record.moved(&progress, self.now()) };
            self.replace(seq, &record, &cancelled)?;
            self.need_failed(seq)?;
        }
        Ok(())
    }

    fn replace(&mut self, seq: Seq, from: &JobRecord, to: &JobRecord) -> Result<(), StoreError> {
        self.unplace(seq, from)?;
        self.place_job(seq, to)
    }

    fn unplace(&mut self, seq: Seq, record: &JobRecord) -> Result<(), StoreError> {
        match Placement::of(record) {
            Placement::Ready { lane, rank } => self.tables.ready.take((lane, rank, seq.0))?,
            Placement::Schedule { lane, due } => self.tables.schedule.take((lane, due, seq.0))?,
            Placement::Leases { pool } => self.tables.leases.take((pool.as_str(), seq.0))?,
            Placement::Finished { state, at } => self.tables.finished.take((state, at, seq.0))?,
            Placement::Blocked => {}
        }
        self.count(record.lane, state_code(record.kind()), -1);
        Ok(())
    }
}

fn end_all(store: &Store, pool: &PoolInfo, ms: u64, outcome: Outcome) -> Vec<Seq> {
    step(store, ms, |tx| {
        let claims = tx.claim(&pool.id, &Serves::AllQueues, usize::MAX, &mut ClaimCache::default())?;
        for claim in &claims {
            tx.finish(&claim.token, &ran(outcome, ms))?;
        }
        Ok(claims.iter().map(|claim| claim.token.seq()).collect())
    })
}

fn states(store: &Store) -> BTreeMap<u64, StateKind> {
    let page = store.read(|snapshot| snapshot.page(None, &super::Cursor::default(), 1_000)).unwrap();
    page.jobs.iter().map(|job| (job.seq.0, job.progress.state.kind())).collect()
}

#[test]
fn dependencies_block_unblock_and_cascade() {
    let (_dir, store) = temp_queue();
    let pool = pool("p1");
    step(&store, 1, |tx| tx.register(&pool));
    // 3 needs 1 and 2; 4 needs 3; 5 needs 6, which dies; 7 needs 5.
    let jobs = [job(0), job(5), job(0), job(0), job(0), JobSpec { max_retries: Some(0), ..job(-5) }, job(0)];
    step(&store, 2, |tx| tx.enqueue(&jobs));
    step(&store, 3, |tx| {
        tx.block(Seq(3), &[Seq(1), Seq(2)])?;
        tx.block(Seq(4), &[Seq(3)])?;
        tx.block(Seq(5), &[Seq(6)])?;
        tx.block(Seq(7), &[Seq(5)])
    });
    step(&store, 4, |tx| tx.cancel(&["6".parse().unwrap()]));
    step(&store, 5, |tx| tx.need_failed(Seq(6)));
    assert_eq!(end_all(&store, &pool, 6, Outcome::Completed), [Seq(2), Seq(1)], "what is blocked is not claimed");
    step(&store, 7, |tx| tx.settle(Seq(3), Seq(1)));
    assert_eq!(states(&store)[&3], StateKind::Blocked);
    step(&store, 8, |tx| tx.settle(Seq(3), Seq(2)));
    assert_eq!(end_all(&store, &pool, 9, Outcome::Completed), [Seq(3)]);
    step(&store, 10, |tx| tx.settle(Seq(4), Seq(3)));
    assert_eq!(end_all(&store, &pool, 11, Outcome::Completed), [Seq(4)]);
    let ended: Vec<StateKind> = states(&store).into_values().collect();
    let (done, cancelled) = (StateKind::Completed, StateKind::Cancelled);
    assert_eq!(ended, [done, done, done, done, cancelled, cancelled, cancelled]);
}

#[test]
fn a_limit_can_be_told_from_the_counts() {
    let (_dir, store) = temp_queue();
    let pool = pool("p1");
    step(&store, 1, |tx| tx.register(&pool));
    let gpu = JobSpec { queue: "gpu".parse().unwrap(), ..job(0) };
    let lanes: Vec<JobSpec> = (0..40).map(|n| JobSpec { queue: format!("q{n}").parse().unwrap(), ..job(0) }).collect();
    step(&store, 2, |tx| tx.enqueue(&[vec![gpu; 5], lanes].concat()));
    let claim = |ms| {
        step(&store, ms, |tx| {
            let serves = Serves::Queues(vec!["gpu".parse().unwrap()]);
            let running = tx.lane_counts(1)?.get(&StateKind::Processing).copied().unwrap_or_default();
            let free = 2_usize.saturating_sub(usize::try_from(running).unwrap());
            tx.claim(&pool.id, &serves, free, &mut ClaimCache::default())
        })
    };
    assert_eq!([claim(3).len(), claim(4).len()], [2, 0], "two of the queue run, whoever runs them");
}

#[test]
fn what_is_removed_needs_nobody_and_has_no_tags() {
    let (_dir, store) = temp_queue();
    let pool = pool("p1");
    step(&store, 1, |tx| tx.register(&pool));
    let mut tagged = JobSpec { name: "a job".parse().ok(), ..job(0) };
    tagged.tags.set("colour", "red").unwrap();
    step(&store, 2, |tx| tx.enqueue(&[job(0), tagged, job(0)]));
    assert_eq!(store.read(Snapshot::row_counts).unwrap()["tags"], 2);
    step(&store, 3, |tx| {
        tx.block(Seq(2), &[Seq(1)])?;
        tx.block(Seq(3), &[Seq(2)])
    });
    for (ms, seq) in [(4, 1), (6, 2)] {
        assert_eq!(end_all(&store, &pool, ms, Outcome::Completed), [Seq(seq)]);
        step(&store, ms + 1, |tx| tx.settle(Seq(seq + 1), Seq(seq)));
    }
    assert_eq!(store.read(Snapshot::row_counts).unwrap()["needs"], 2);
    step(&store, 8, |tx| tx.remove(&["2".parse().unwrap()]));
    let rows = store.read(Snapshot::row_counts).unwrap();
    assert_eq!(["needs", "needed_by", "tags"].map(|table| rows.get(table)), [None; 3]);
    assert_eq!(states(&store), [(1, StateKind::Completed), (3, StateKind::Pending)].into());
}
