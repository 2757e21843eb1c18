//! The settings of a queue: keys, defaults, allowed ranges, and their form as text.

use std::time::Duration;

use bytesize::ByteSize;

use super::{
    BACKOFF_BASE_MAX, DURATION_MAX, DURATION_TEXT_BYTES_MAX, KILL_GRACE_MAX, OUTPUT_LIMIT_RANGE, RETRIES_MAX,
    Retention, TimeLimit,
};

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingKey {
    /// `max-retries`
    MaxRetries,
    /// `backoff-base`
    BackoffBase,
    /// `max-backoff`
    MaxBackoff,
    /// `timeout`
    Timeout,
    /// `kill-grace`
    KillGrace,
    /// `max-losses`
    MaxLosses,
    /// `output-limit`
    OutputLimit,
    /// `shell`
    Shell,
    /// `parallel`
    Parallel,
    /// `paused`
    Paused,
    /// `retain-completed`
    RetainCompleted,
    /// `retain-dead`
    RetainDead,
    /// `retain-cancelled`
    RetainCancelled,
    /// `retain-output`
    RetainOutput,
}

impl SettingKey {
    /// All settings, in the order in which they are shown.
    pub const ALL: [Self; 14] = [
        Self::MaxRetries,
        Self::BackoffBase,
        Self::MaxBackoff,
        Self::Timeout,
        Self::KillGrace,
        Self::MaxLosses,
        Self::OutputLimit,
        Self::Shell,
        Self::Parallel,
        Self::Paused,
        Self::RetainCompleted,
        Self::RetainDead,
        Self::RetainCancelled,
        Self::RetainOutput,
    ];

    /// The name used on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxRetries => "max-retries",
            Self::BackoffBase => "backoff-base",
            Self::MaxBackoff => "max-backoff",
            Self::Timeout => "timeout",
            Self::KillGrace => "kill-grace",
            Self::MaxLosses => "max-losses",
            Self::OutputLimit => "output-limit",
            Self::Shell => "shell",
            Self::Parallel => "parallel",
            Self::Paused => "paused",
            Self::RetainCompleted => "retain-completed",
            Self::RetainDead => "retain-dead",
            Self::RetainCancelled => "retain-cancelled",
            Self::RetainOutput => "retain-output",
        }
    }

    /// The setting of that name; `_` may stand for `-`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('_', "-");
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// What it is for, in a line.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::MaxRetries => "retries after the first attempt",
            Self::BackoffBase => "the n-th retry waits this to the power of n, in seconds",
            Self::MaxBackoff => "the longest wait before a retry",
            Self::Timeout => "how long an enqueued job may run",
            Self::KillGrace => "time between SIGTERM and SIGKILL",
            Self::MaxLosses => "how often a job may lose its pool before it is dead; 0 for no limit",
            Self::OutputLimit => "output kept of one stream of one attempt",
            Self::Shell => "what runs a shell command; the command is added as the last word",
            Self::Parallel => "how many jobs of a queue are processed at once, by all pools together",
            Self::Paused => "whether the jobs of a queue wait until `queuectl resume`",
            Self::RetainCompleted => "how long completed jobs are kept, or how many",
            Self::RetainDead => "how long dead jobs are kept, or how many",
            Self::RetainCancelled => "how long cancelled jobs are kept, or how many",
            Self::RetainOutput => "how long what ended jobs wrote is kept",
        }
    }

    /// Whether it has one value for the whole queue file, not one for each queue.
    pub fn is_of_all_queues(self) -> bool {
        matches!(self, Self::RetainCompleted | Self::RetainDead | Self::RetainCancelled | Self::RetainOutput)
    }

    /// The values that it takes.
    pub fn range(self) -> &'static str {
        match self {
            Self::MaxRetries | Self::MaxLosses => "a whole number from 0 to 1000000",
            Self::BackoffBase => "a number from 0 to 1000",
            Self::MaxBackoff => "a duration from 0s to 365d, such as 90s, 5m or 1h30m",
            Self::Timeout => "a duration from 1ms to 365d, such as 90s, 5m or 1h30m, or `none`",
            Self::KillGrace => "a duration from 0s to 1h, such as 500ms or 10s",
            Self::OutputLimit => "a size from 4KiB to 1TiB, such as 64KiB or 10MiB",
            Self::Shell => "one or more words, such as `/bin/bash -c`",
            Self::Parallel => "a whole number from 1 to 1000000, or `none`",
            Self::Paused => "`true` or `false`",
            Self::RetainCompleted | Self::RetainDead | Self::RetainCancelled => {
                "`forever`, a duration from 0s to 365d, such as 12h or 7d, or a number of jobs such as 10000jobs"
            }
            Self::RetainOutput => "`forever`, or a duration from 0s to 365d, such as 12h or 7d",
        }
    }
}

/// A value that a setting does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} does not take `{text}`: it is {}", .key.name(), .key.range())]
pub struct BadValue {
    /// The setting.
    pub key: SettingKey,
    /// What was given.
    pub text: String,
}

/// The value of every setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// The delay after the n-th failure is this to the power of n, in seconds.
    pub backoff_base: f64,
    /// The longest delay before a retry.
    pub max_backoff: Duration,
    /// How long an enqueued job may run. Jobs of a `run` bring their own.
    pub timeout: TimeLimit,
    /// Time between SIGTERM and SIGKILL.
    pub kill_grace: Duration,
    /// How often a job may lose its pool before it is dead; 0 for no limit.
    pub max_losses: u32,
    /// Bytes kept of one stream of one attempt.
    pub output_limit: u64,
    /// The words before a shell command.
    pub shell: Vec<String>,
    /// How many jobs of a queue are processed at once, by all pools together; none for no limit. Runs have their own.
    pub parallel: Option<u32>,
    /// Whether the jobs of a queue wait. Runs do not.
    pub paused: bool,
    /// How long completed jobs are kept.
    pub retain_completed: Retention,
    /// How long dead jobs are kept.
    pub retain_dead: Retention,
    /// How long cancelled jobs are kept.
    pub retain_cancelled: Retention,
    /// How long what ended jobs wrote is kept; not by number.
    pub retain_output: Retention,
}

impl Default for Settings {
    /// The first three are the seed project's: 3 retries, base 2, 30 s.
    fn default() -> Self {
        Self {
            max_retries: 3,
            backoff_base: 2.0,
            max_backoff: Duration::from_secs(3600),
            timeout: TimeLimit::After(Duration::from_secs(30)),
            kill_grace: Duration::from_secs(5),
            max_losses: 3,
            output_limit: 10 * 1024 * 1024,
            shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            parallel: None,
            paused: false,
            retain_completed: Retention::Forever,
            retain_dead: Retention::Forever,
            retain_cancelled: Retention::Forever,
            retain_output: Retention::Forever,
        }
    }
}

impl Settings {
    /// Sets `key` to what `text` says.
    pub fn set(&mut self, key: SettingKey, text: &str) -> Result<(), BadValue> {
        let text = text.trim();
        let parsed = match key {
            SettingKey::MaxRetries => count(text).map(|n| self.max_retries = n),
            SettingKey::MaxLosses => count(text).map(|n| self.max_losses = n),
            SettingKey::BackoffBase => backoff_base(text).map(|base| self.backoff_base = base),
            SettingKey::MaxBackoff => parse_duration(text).map(|limit| self.max_backoff = limit),
            SettingKey::Timeout => text.parse().ok().map(|limit| self.timeout = limit),
            SettingKey::KillGrace => {
                parse_duration(text).filter(|d| *d <= KILL_GRACE_MAX).map(|grace| self.kill_grace = grace)
            }
            SettingKey::OutputLimit => text
                .parse::<ByteSize>()
                .ok()
                .map(|size| size.as_u64())
                .filter(|bytes| OUTPUT_LIMIT_RANGE.contains(bytes))
                .map(|bytes| self.output_limit = bytes),
            SettingKey::Shell => words(text).map(|words| self.shell = words),
            SettingKey::Parallel => match text {
                "none" => Some(None),
                number => count(number).filter(|n| *n > 0).map(Some),
            }
            .map(|limit| self.parallel = limit),
            SettingKey::Paused => text.parse().ok().map(|paused| self.paused = paused),
            SettingKey::RetainCompleted => text.parse().ok().map(|kept| self.retain_completed = kept),
            SettingKey::RetainDead => text.parse().ok().map(|kept| self.retain_dead = kept),
            SettingKey::RetainCancelled => text.parse().ok().map(|kept| self.retain_cancelled = kept),
            SettingKey::RetainOutput => {
                let kept: Option<Retention> = text.parse().ok();
                kept.filter(|kept| !matches!(kept, Retention::Newest(_))).map(|kept| self.retain_output = kept)
            }
        };
        parsed.ok_or_else(|| BadValue { key, text: text.to_owned() })
    }

    /// The value of `key` as text that [`Self::set`] takes back.
    pub fn get(&self, key: SettingKey) -> String {
        match key {
            SettingKey::MaxRetries => self.max_retries.to_string(),
            SettingKey::MaxLosses => self.max_losses.to_string(),
            SettingKey::BackoffBase => self.backoff_base.to_string(),
            SettingKey::MaxBackoff => show_duration(self.max_backoff),
            SettingKey::Timeout => self.timeout.to_string(),
            SettingKey::KillGrace => show_duration(self.kill_grace),
            SettingKey::OutputLimit => show_size(self.output_limit),
            SettingKey::Shell => show_words(&self.shell),
            SettingKey::Parallel => self.parallel.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            SettingKey::Paused => self.paused.to_string(),
            SettingKey::RetainCompleted => self.retain_completed.to_string(),
            SettingKey::RetainDead => self.retain_dead.to_string(),
            SettingKey::RetainCancelled => self.retain_cancelled.to_string(),
            SettingKey::RetainOutput => self.retain_output.to_string(),
        }
    }
}

fn count(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n| *n <= RETRIES_MAX)
}

fn backoff_base(text: &str) -> Option<f64> {
    text.parse().ok().filter(|base| (0.0..=BACKOFF_BASE_MAX).contains(base))
}

/// A list of words: JSON, or separated by white space.
fn words(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = if text.starts_with('[') {
        serde_json::from_str(text).ok()?
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    let fit = words.first().is_some_and(|program| !program.is_empty());
    (fit && !words.iter().any(|word| word.contains('\0'))).then_some(words)
}

fn show_words(words: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && !word.contains(char::is_whitespace);
    if words.iter().all(plain) { words.join(" ") } else { serde_json::Value::from(words.to_vec()).to_string() }
}

fn show_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = UNITS.iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    exact.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A duration of at most a year: `90s`, `5m`, `1h30m`, or a number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text.len() > DURATION_TEXT_BYTES_MAX {
        return None;
    }
    // humantime adds up without overflow checks: a long run of digits makes it panic.
    if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 12) {
        return None;
    }
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let duration = if number {
        Duration::try_from_secs_f64(text.parse().ok()?).ok()?
    } else {
        humantime::parse_duration(text).ok()?
    };
    (duration <= DURATION_MAX).then_some(duration)
}

/// [`parse_duration`] of an age that things go at: a number alone, which may be meant as days, is none, except for 0.
pub fn parse_age(text: &str) -> Option<Duration> {
    let has_unit = text.bytes().any(|b| b.is_ascii_alphabetic());
    parse_duration(text).filter(|age| has_unit || age.is_zero())
}

/// A duration as people write it: `1h 30m`. Days are the longest unit, so that nothing is rounded.
pub fn show_duration(duration: Duration) -> String {
    let (days, rest) = (duration.as_secs() / 86_400, duration.as_secs() % 86_400);
    let rest = Duration::new(rest, duration.subsec_nanos());
    match (days, rest.is_zero()) {
        (0, _) => humantime::format_duration(rest).to_string(),
        (days, true) => format!("{days}d"),
        (days, false) => format!("{days}d {}", humantime::format_duration(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_takes_back_what_it_shows() {
        let defaults = Settings::default();
        for key in SettingKey::ALL {
            let mut settings = defaults.clone();
            settings.set(key, &defaults.get(key)).unwrap();
            assert_eq!(settings, defaults, "{}", key.name());
            assert_eq!(SettingKey::from_name(key.name()), Some(key));
        }
    }

    #[test]
    fn values_and_their_limits() {
        let taken = |key, text| {
            let mut settings = Settings::default();
            settings.set(key, text).map(|()| settings.get(key))
        };
        for (key, text, shown) in [
            (SettingKey::MaxRetries, "0", "0"),
            (SettingKey::MaxRetries, "1000000", "1000000"),
            (SettingKey::BackoffBase, "2.5", "2.5"),
            (SettingKey::BackoffBase, "0", "0"),
            (SettingKey::MaxBackoff, "90", "1m 30s"),
            (SettingKey::MaxBackoff, "365d", "365d"),
            (SettingKey::Timeout, "none", "none"),
            (SettingKey::Timeout, "1.5", "1s 500ms"),
            (SettingKey::Timeout, "2h", "2h"),
            (SettingKey::KillGrace, "0s", "0s"),
            (SettingKey::OutputLimit, "64 KiB", "64KiB"),
            (SettingKey::OutputLimit, "10M", "10000000"),
            (SettingKey::Shell, "/bin/bash -eu  -c", "/bin/bash -eu -c"),
            (SettingKey::Shell, r#"["/my shell","-c"]"#, r#"["/my shell","-c"]"#),
            (SettingKey::RetainCompleted, "10000jobs", "10000 jobs"),
            (SettingKey::RetainDead, "1h30m", "1h 30m"),
            (SettingKey::RetainOutput, "7d", "7d"),
        ] {
            assert_eq!(taken(key, text).as_deref(), Ok(shown), "{}", key.name());
        }
        for (key, text) in [
            (SettingKey::MaxRetries, "-1"),
            (SettingKey::MaxRetries, "1000001"),
            (SettingKey::MaxRetries, "three"),
            (SettingKey::BackoffBase, "-0.5"),
            (SettingKey::BackoffBase, "NaN"),
            (SettingKey::BackoffBase, "1001"),
            (SettingKey::MaxBackoff, "366d"),
            (SettingKey::MaxBackoff, "none"),
            (SettingKey::Timeout, "0"),
            (SettingKey::Timeout, "99999999999999999999"),
            (SettingKey::Timeout, "99999999999999999999s"),
            (SettingKey::KillGrace, "61m"),
            (SettingKey::OutputLimit, "4095"),
            (SettingKey::OutputLimit, "2TiB"),
            (SettingKey::Shell, ""),
            (SettingKey::Shell, "[]"),
            (SettingKey::RetainCancelled, "none"),
            (SettingKey::RetainOutput, "10 jobs"),
        ] {
            let refused = taken(key, text).unwrap_err().to_string();
            assert!(refused.contains(key.range()), "{refused}");
        }
    }
}
