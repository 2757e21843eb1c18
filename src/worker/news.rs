//! What a pool tells whoever runs it.

use super::standstill::Standstill;
use crate::model::{JobId, JobName, Millis, PoolId, Progress, Run, Seq};

/// Listens to a pool. It is told from the pool's threads, which wait for it: it must not block.
pub trait Observer: Send + Sync {
    /// Takes the news.
    fn news(&self, news: News);

    /// These runs have ended, and one commit has just made that last.
    fn finished(&self, jobs: Vec<JobNews>) {
        drop(jobs);
    }
}

/// What happened in a pool.
#[derive(Debug)]
pub enum News {
    /// The pool stops: these jobs still run, and are waited for, or are being ended.
    Stopping {
        /// The jobs.
        running: Vec<JobId>,
        /// Whether they are being ended.
        ending: bool,
    },
    /// Another pool died, and its jobs were set free.
    Recovered {
        /// The pool.
        pool: PoolId,
        /// How many jobs it had claimed.
        jobs: usize,
        /// How many of their processes had to be ended.
        ended: usize,
        /// How many of those jobs are dead now, since they lost their pools too often.
        dead: usize,
    },
    /// Nothing can run for now, and nothing here changes that.
    Waiting {
        /// What it waits for.
        what: Standstill,
        /// What time it is.
        now: Millis,
    },
    /// Something of another pool's jobs cannot be ended, which keeps them from running again.
    Stuck(String),
    /// Changes can only be seen by looking every 250 ms, and why.
    Deaf(String),
    /// Something failed, and the pool goes on.
    Trouble(String),
}

/// How a run ended.
#[derive(Debug)]
pub struct JobNews {
    /// The job.
    pub seq: Seq,
    /// What it is called.
    pub id: JobId,
    /// Its name for people.
    pub name: Option<JobName>,
    /// The run's number, from 1.
    pub attempt: u32,
    /// The run.
    pub run: Run,
    /// Where the job is now.
    pub progress: Progress,
}
