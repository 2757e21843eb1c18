//! The names of things.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::NAME_BYTES_MAX;

/// A job's number in the order of enqueueing, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A claim's fencing number, never reused: an outcome is accepted only under the lease that it was
/// claimed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(pub u64);

/// A stream of jobs: each queue has one, each `run` its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` {why}; it takes 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ : - and does not start with `-`")]
pub struct BadName {
    what: &'static str,
    text: String,
    why: &'static str,
}

fn checked(what: &'static str, text: &str) -> Result<String, BadName> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    let why = if text.is_empty() {
        "is empty"
    } else if text.len() > NAME_BYTES_MAX {
        "is too long"
    } else if text.starts_with('-') {
        "starts with `-`"
    } else if !text.bytes().all(allowed) {
        "has a character that is not allowed"
    } else {
        return Ok(text.to_owned());
    };
    let text = text.chars().take(NAME_BYTES_MAX).collect();
    Err(BadName { what, text, why })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident($text:ty), $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($text);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                checked($what, text).map(|text| Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// What a job is called: the text that its user gave, else its [`Seq`] as text.
    JobId(String),
    "job id"
);
name!(
    /// The name of a queue. Many jobs share it.
    QueueName(Arc<str>),
    "queue name"
);
name!(
    /// A pool's short random name, which is also the name of its file in `run/`.
    PoolId(String),
    "pool name"
);

impl QueueName {
    /// The queue of a job that names none.
    pub fn default_queue() -> Self {
        Self("default".into())
    }
}

impl From<Seq> for JobId {
    fn from(seq: Seq) -> Self {
        Self(seq.0.to_string())
    }
}

/// One worker of a pool; shows as `POOL.SLOT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerId {
    /// The pool.
    pub pool: PoolId,
    /// The worker's number in it, from 0; also `QUEUECTL_SLOT`.
    pub slot: u32,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pool, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "job1", "A-z_9.:x", &"x".repeat(128)] {
            assert_eq!(JobId::from_str(good).unwrap().as_str(), good);
        }
        for bad in ["", "-x", "a b", "ä", "a/b", "a\n", &"x".repeat(129)] {
            assert!(JobId::from_str(bad).is_err(), "{bad:?}");
        }
    }
}
