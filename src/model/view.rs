//! A job as it is shown.

use std::path::PathBuf;

use super::{Attempt, Command, JobId, JobKey, JobName, Millis, Progress, QueueName, Seq, Tags, TimeLimit};

/// A job with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its number.
    pub seq: Seq,
    /// What it is called.
    pub id: JobId,
    /// Its name for people.
    pub name: Option<JobName>,
    /// Its tags.
    pub tags: Tags,
    /// What it was enqueued under, if nothing else is by now.
    pub key: Option<JobKey>,
    /// What it executes.
    pub command: Command,
    /// Where.
    pub cwd: PathBuf,
    /// Its queue.
    pub queue: QueueName,
    /// −100 to 100, higher first.
    pub priority: i8,
    /// The number of its run, if it is part of one.
    pub run: Option<u64>,
    /// How far it has come.
    pub progress: Progress,
    /// How many jobs it still waits for.
    pub waits_for: u32,
    /// Retries after the first attempt, as they are now.
    pub max_retries: u32,
    /// How long an attempt may take, as it is now.
    pub timeout: TimeLimit,
    /// When it was enqueued.
    pub created: Millis,
    /// When it last moved.
    pub updated: Millis,
    /// Its last started run that has ended.
    pub last_attempt: Option<Attempt>,
}

/// One of a run's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];
}

/// Where an ended attempt's stream is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Nothing was written.
    Empty,
    /// Here.
    Inline(Vec<u8>),
    /// In a file of this many bytes, with so many left out.
    File {
        /// Bytes in the file.
        bytes: u64,
        /// Bytes left out of its middle.
        left_out: u64,
    },
    /// Nowhere any more: it was let go, since it was older than the settings keep it.
    LetGo {
        /// How many bytes there were.
        bytes: u64,
    },
}
