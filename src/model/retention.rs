//! How long something is kept before it goes by itself.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{RETAINED_JOBS_MAX, parse_duration, show_duration};

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Retention {
    /// Until a person removes it.
    #[default]
    Forever,
    /// So long after its job ended.
    For(Duration),
    /// As long as its job is among so many, the last to end.
    Newest(u64),
}

impl FromStr for Retention {
    type Err = ();

    /// `forever`, a duration up to a year, or a number with the word `jobs`.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let Some(count) = text.strip_suffix("jobs").or_else(|| text.strip_suffix("job")) else {
            return parse_duration(text).map(Self::For).ok_or(());
        };
        let count = count.trim_end().parse().map_err(|_| ())?;
        if count <= RETAINED_JOBS_MAX { Ok(Self::Newest(count)) } else { Err(()) }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(long) => f.write_str(&show_duration(*long)),
            Self::Newest(1) => f.write_str("1 job"),
            Self::Newest(count) => write!(f, "{count} jobs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_taken_back() {
        for (text, kept) in [
            ("forever", Retention::Forever),
            ("7d", Retention::For(Duration::from_secs(7 * 86_400))),
            ("0s", Retention::For(Duration::ZERO)),
            ("10000jobs", Retention::Newest(10_000)),
            ("10000 jobs", Retention::Newest(10_000)),
            ("1 job", Retention::Newest(1)),
            ("0jobs", Retention::Newest(0)),
        ] {
            assert_eq!(text.parse(), Ok(kept), "{text}");
            assert_eq!(kept.to_string().parse(), Ok(kept), "{kept}");
        }
        for text in ["", "never", "jobs", "-1 jobs", "1.5 jobs", "366d", "10000000000 jobs", "ten jobs"] {
            assert_eq!(text.parse::<Retention>(), Err(()), "{text}");
        }
    }
}
