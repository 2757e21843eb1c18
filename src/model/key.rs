//! Keys: what makes enqueueing the same thing twice one job.

use std::fmt;
use std::str::FromStr;

use super::KEY_BYTES_MAX;

/// What a job is enqueued under: no two jobs have the same key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey(String);

/// Why a text cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key `{0}` is not taken: it is 1 to {KEY_BYTES_MAX} bytes of text, without control characters")]
pub struct BadKey(String);

impl JobKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        const SHOWN_CHARS_MAX: usize = 60;
        if (1..=KEY_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        let more = if text.chars().nth(SHOWN_CHARS_MAX).is_some() { "…" } else { "" };
        Err(BadKey(text.chars().take(SHOWN_CHARS_MAX).collect::<String>() + more))
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What becomes of a job whose key another job has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfExists {
    /// It is not enqueued: the other one stands for it.
    #[default]
    Skip,
    /// All of the enqueue is refused.
    Error,
    /// It takes the key, and the other one is cancelled if it waits; one that is processing is not replaced.
    Replace,
    /// The other one stands for it, with a fresh set of attempts if it is dead or cancelled.
    Retry,
}

impl IfExists {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Skip, Self::Error, Self::Replace, Self::Retry];

    /// The name used everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Error => "error",
            Self::Replace => "replace",
            Self::Retry => "retry",
        }
    }

    /// What has that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_texts() {
        for good in ["a", " a b ", "https://x.org/?q=1", &"é".repeat(128)] {
            assert_eq!(good.parse::<JobKey>().unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "\0", "\u{9b}", &"x".repeat(257), &"é".repeat(129)] {
            assert!(bad.parse::<JobKey>().is_err(), "{bad:?}");
        }
        assert!("é\n".repeat(1_000).parse::<JobKey>().unwrap_err().to_string().chars().count() < 200);
    }
}
