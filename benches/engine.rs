//! The engine alone: enqueue, claim and finish through the library, each durable, against plainjob and litequeue in
//! their own processes. Nothing is executed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use queuectl::model::{Command, Ending, JobSpec, Kept, Outcome, PoolId, Run, StateKind};
use queuectl::queue::{Folder, Queue};
use queuectl::store::{Asked, ClaimCache, Cursor, PoolInfo, Serves};

use super::Result;
use super::args::Args;
use super::peers::{self, Library};
use super::report::{Bar, Report, Row};
use super::room::Room;
use super::statistics::Pairs;

/// How many jobs a batch has.
pub const BATCH: usize = 256;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let (one, many) = (args.size(500, 20), args.size(40 * BATCH, 2 * BATCH));
    for (peer, library) in peers::LIBRARIES.iter().map(|peer| (peer, peer.ready(args))) {
        let Some(library) = library else {
            report.skip(&format!("{} is not installed, or left out", peer.name));
            continue;
        };
        against(args, report, &library, 1, one)?;
        against(args, report, &library, BATCH, many)?;
    }
    if args.no_peers {
        for (batch, jobs) in [(1, one), (BATCH, many)] {
            let rate = Engine::new(&Room::new(args)?)?.rate(jobs, batch)?;
            report.row(Row::new(what(batch), &[rate], "jobs/s").how("Queue::write with enqueue, claim, finish"));
        }
    }
    Ok(())
}

fn what(batch: usize) -> String {
    let how = if batch == 1 { "one at a time".to_owned() } else { format!("in batches of {batch}") };
    format!("engine alone, {how}")
}

fn against(args: &Args, report: &mut Report, peer: &Library, batch: usize, jobs: usize) -> Result<()> {
    let ours = || Engine::new(&Room::new(args)?)?.rate(jobs, batch);
    let theirs = || peer.rate(Room::new(args)?.path(), jobs.min(8 * BATCH), batch);
    let pairs = Pairs::take(args.pairs(), ours, theirs)?;
    let row = Row::ratio(format!("{}, against {}", what(batch), peer.name()), &pairs, "jobs/s");
    let row = row.how(format!("Queue::write with enqueue, claim, finish; {}", peer.how(batch)));
    report.row(if batch == 1 { row } else { row.bar(Bar::AtLeast(10.0)) });
    Ok(())
}

/// A queue with a pool in it that is no process.
#[derive(Debug)]
pub struct Engine {
    queue: Queue,
    pool: PoolId,
    /// Where its jobs would run.
    folder: PathBuf,
    cache: ClaimCache,
}

impl Engine {
    pub fn new(room: &Room) -> Result<Self> {
        let folder = Folder::make(&room.queue_path())?;
        let (queue, _) = Queue::open_or_create(&folder, Box::new(|| {}))?;
        let pool: PoolId = "bench".parse()?;
        let info = PoolInfo {
            id: pool.clone(),
            pid: std::process::id(),
            boot_id: 0,
            pid_namespace: 0,
            nonce: 0,
            file: (0, 0),
            started: queue.clock().now(),
            workers: 2,
            serves: Serves::AllQueues,
            asked: Asked::Work,
            log: None,
            ended: None,
        };
        queue.write(|tx| tx.register(&info))?;
        Ok(Self { queue, pool, folder: room.path().to_owned(), cache: ClaimCache::default() })
    }

    /// Jobs/s of so many jobs from enqueue to finish, so many in each transaction.
    fn rate(mut self, jobs: usize, batch: usize) -> Result<f64> {
        let began = Instant::now();
        self.pass(jobs, batch, &Kept::Empty)?;
        Ok(jobs as f64 / began.elapsed().as_secs_f64())
    }

    /// Takes so many jobs, each of which writes `output`, from enqueue to finish.
    pub fn pass(&mut self, jobs: usize, batch: usize, output: &Kept) -> Result<()> {
        let mut left = jobs;
        while left > 0 {
            let count = left.min(batch);
            let specs = vec![JobSpec::new(Command::Shell(b"echo hello".to_vec()), &self.folder); count];
            self.queue.enqueue(&specs)?;
            let (pool, cache) = (&self.pool, &mut self.cache);
            let claims = self.queue.write(|tx| tx.claim(pool, &Serves::AllQueues, count, cache))?;
            if claims.len() != count {
                return Err(format!("{} of {count} jobs were claimed", claims.len()).into());
            }
            let now = self.queue.clock().now();
            let ending = Ending::Ran(Run {
                slot: 0,
                started: now,
                ended: now,
                outcome: Outcome::Completed,
                counts_as_loss: false,
                exit_code: Some(0),
                signal: None,
                cpu: Duration::from_micros(700),
                max_rss_bytes: 7_000_000,
                error: None,
                stdout: output.clone(),
                stderr: Kept::Empty,
            });
            self.queue.write(|tx| {
                for claim in &claims {
                    tx.finish(&claim.token, &ending)?;
                }
                Ok(())
            })?;
            left -= count;
        }
        Ok(())
    }

    /// Leaves a queue behind in which no pool is left.
    pub fn end(self) -> Result<()> {
        self.queue.write(|tx| tx.retire(&self.pool, "ended"))?;
        Ok(())
    }

    /// Removes the newest completed jobs, up to a thousand in one transaction. Says how many.
    pub fn remove_some(&self) -> Result<usize> {
        let page = self.queue.read(|snapshot| snapshot.page(Some(StateKind::Completed), &Cursor::default(), 1_000))?;
        let ids: Vec<_> = page.jobs.into_iter().map(|job| job.id).collect();
        Ok(self.queue.write(|tx| tx.remove(&ids))?.len())
    }
}
