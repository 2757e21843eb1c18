//! How a claim ends.

use std::time::Duration;

use super::Millis;

/// How a started run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The command exited with code 0.
    Completed,
    /// It exited otherwise, died of a signal, or could not be started.
    Failed,
    /// It ran longer than its time limit and was ended.
    TimedOut,
    /// It was ended because its job was cancelled.
    Cancelled,
    /// It was ended, or died, because its pool was stopped: no retry is used up.
    Interrupted,
    /// Its pool died, and nobody saw it end: no retry is used up.
    Lost,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 6] =
        [Self::Completed, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Interrupted, Self::Lost];

    /// The name used in JSON and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Lost => "lost",
        }
    }
}

/// How a claim ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The command was never started: the claim is given back.
    NotStarted,
    /// The command was started.
    Ran(Run),
}

/// What is known of a run that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The worker's number in its pool.
    pub slot: u32,
    /// When it was started.
    pub started: Millis,
    /// When it ended, or was found to be gone.
    pub ended: Millis,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether a loss counts towards `max-losses`: it does if the machine stayed up.
    pub counts_as_loss: bool,
    /// Its exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that it died of, if it did.
    pub signal: Option<i32>,
    /// User and system time of the command and the children that it waited for.
    pub cpu: Duration,
    /// Largest resident set, in bytes, of the command or any such child.
    pub max_rss_bytes: u64,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// What became of its standard output.
    pub stdout: Kept,
    /// What became of its standard error.
    pub stderr: Kept,
}

/// SIGHUP, SIGINT and SIGTERM: what a person or a service manager ends processes with.
const ENDING_SIGNALS: [i32; 3] = [1, 2, 15];

impl Run {
    /// Whether it died of a signal that may have been meant for its pool as well, and was not sent by that.
    pub fn died_of_ending_signal(&self) -> bool {
        self.outcome == Outcome::Failed && self.signal.is_some_and(|signal| ENDING_SIGNALS.contains(&signal))
    }
}

/// What is kept of one stream of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Kept {
    /// Nothing was written.
    #[default]
    Empty,
    /// These bytes, few enough to live in the queue file.
    Inline(Vec<u8>),
    /// A file of this many bytes in `output/`; so many were cut out of its middle.
    File {
        /// Bytes in the file.
        bytes: u64,
        /// Bytes left out.
        left_out: u64,
    },
    /// Nothing any more: so many bytes were let go, since they were older than the settings keep them.
    LetGo {
        /// How many they were.
        bytes: u64,
    },
}

impl Kept {
    /// How many bytes are kept.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Empty | Self::LetGo { .. } => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }
}
