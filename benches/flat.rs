//! Whether a pool slows down as the queue grows: its jobs/s with many waiting, against its jobs/s with few.

use super::Result;
use super::args::Args;
use super::report::{Bar, Report, Row, count};
use super::room::Room;
use super::statistics::Pairs;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let few = args.size(10_000, 500);
    let jobs = Jobs { first: args.size(500, 20), counted: args.size(5_000, 100) };
    let sizes = [Some(args.size(1_000_000, 3_000)), args.huge.then_some(10_000_000)];
    for many in sizes.into_iter().flatten() {
        let large = Room::new(args)?;
        // Enough that as many wait at the end of the last pair.
        large.fill(many + args.pairs() * 2 * jobs.all())?;
        let small = || {
            let room = Room::new(args)?;
            room.fill(few + jobs.all())?;
            jobs.rate(&room)
        };
        let pairs = Pairs::take(args.pairs(), || jobs.rate(&large), small)?;
        let what = format!("jobs/s with {} waiting, against those with {}", count(many), count(few));
        let row = Row::ratio(what, &pairs, "jobs/s").bar(Bar::AtLeast(0.9));
        report.row(row.how(format!(
            "`queuectl worker start --count 2` on `true` lines; {} jobs after the first {}, by the times of their ends",
            count(jobs.counted),
            count(jobs.first)
        )));
    }
    if !args.huge {
        report.skip("10,000,000 waiting: --huge measures it");
    }
    Ok(())
}

/// Which jobs of a pool are counted.
struct Jobs {
    /// These are left out, since the pool has just started.
    first: usize,
    counted: usize,
}

impl Jobs {
    fn all(&self) -> usize {
        self.first + self.counted
    }

    /// Lets a pool run this many, and a few more until it has stopped.
    fn rate(&self, room: &Room) -> Result<f64> {
        let before = room.attempts(1)?.iter().map(|attempt| attempt.ended).max().unwrap_or_default();
        let mut pool = room.pool(2)?;
        pool.await_jobs(self.all())?;
        pool.unread().stop()?;
        let attempts = room.attempts(2 * self.all())?;
        let mut ended: Vec<u64> =
            attempts.iter().filter(|attempt| attempt.started > before).map(|attempt| attempt.ended.0).collect();
        ended.sort_unstable();
        let (Some(from), Some(to)) = (ended.get(self.first), ended.get(self.all() - 1)) else {
            return Err(format!("only {} jobs have ended", ended.len()).into());
        };
        Ok((self.counted - 1) as f64 * 1e3 / (to - from).max(1) as f64)
    }
}
