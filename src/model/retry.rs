//! When a failed job runs again.

use std::time::Duration;

use super::Settings;

/// What decides a job's fate after a run: its own wishes over the settings of its queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Retries after the first attempt: 3 means at most 4 attempts.
    pub max_retries: u32,
    /// The delay after the n-th failure is this to the power of n, in seconds.
    pub backoff_base: f64,
    /// The longest delay.
    pub max_backoff: Duration,
    /// How often a job may lose its pool before it is dead; 0 for no limit.
    pub max_losses: u32,
}

impl Policy {
    /// The policy of a job that set `max_retries` and `backoff_base` itself, or left them to `settings`.
    pub fn of(max_retries: Option<u32>, backoff_base: Option<f64>, settings: &Settings) -> Self {
        Self {
            max_retries: max_retries.unwrap_or(settings.max_retries),
            backoff_base: backoff_base.unwrap_or(settings.backoff_base),
            max_backoff: settings.max_backoff,
            max_losses: settings.max_losses,
        }
    }

    /// The delay after the `failures`-th failure.
    pub fn delay(&self, failures: u32) -> Duration {
        retry_delay(self.backoff_base, failures, self.max_backoff)
    }
}

/// `base ^ failures` seconds, at most `cap`.
pub fn retry_delay(base: f64, failures: u32, cap: Duration) -> Duration {
    let seconds = base.powf(f64::from(failures));
    // Not finite or too large for a Duration: longer than any cap.
    Duration::try_from_secs_f64(seconds).map_or(cap, |delay| delay.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn delays_grow_by_the_base_and_saturate() {
        let millis = |base, n| retry_delay(base, n, HOUR).as_millis();
        assert_eq!([1, 2, 3].map(|n| millis(2.0, n)), [2_000, 4_000, 8_000]);
        assert_eq!([1, 2].map(|n| millis(2.5, n)), [2_500, 6_250]);
        assert_eq!([1, 2].map(|n| millis(0.5, n)), [500, 250]);
        assert_eq!(millis(0.0, 3), 0);
        assert_eq!(millis(2.0, 12), 3_600_000);
        assert_eq!(millis(1000.0, u32::MAX), 3_600_000);
    }
}
