//! The queue's time: the wall clock, but never behind the newest time in the file plus what has passed since
//! that was read. So a clock that is set back neither stalls nor reorders anything.

#![allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::model::Millis;

/// See the module.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// A time in the file, and when it was read.
    floor: Mutex<(Millis, Instant)>,
}

impl Default for Clock {
    fn default() -> Self {
        let now = Instant::now();
        Self { start: now, floor: Mutex::new((Millis::default(), now)) }
    }
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Millis {
        self.floor().max(Millis::from(SystemTime::now()))
    }

    /// The time now by the wall clock if that is behind the file: what is old by both is old.
    pub fn earliest(&self) -> Millis {
        self.now().min(Millis::from(SystemTime::now()))
    }

    fn floor(&self) -> Millis {
        let (floor, read) = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        Millis(floor.0.saturating_add(u64::try_from(read.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    /// A time that the file holds.
    pub fn observe(&self, newest: Millis) {
        if newest > self.floor() {
            *self.floor.lock().unwrap_or_else(PoisonError::into_inner) = (newest, Instant::now());
        }
    }

    /// How far the file is ahead of the wall clock.
    pub fn ahead(&self) -> Duration {
        self.floor().since(Millis::from(SystemTime::now()))
    }

    /// Monotonic time since this clock was made; it stands still while the machine is suspended.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_the_file_is_never_undercut() {
        let clock = Clock::default();
        let wall = clock.now();
        let ahead = wall.after(Duration::from_secs(3600));
        clock.observe(ahead);
        clock.observe(wall);
        assert!(clock.now() >= ahead);
        assert!(clock.ahead() > Duration::from_secs(3000));
    }
}
