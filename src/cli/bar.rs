//! A bar on a terminal: how many jobs of how many, how fast, and how long yet.
//!
//! It is drawn when something is to be told, at most ten times a second: whoever has more to tell gathers it until
//! [`Bar::rest`] is over. Nothing draws it by itself.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::render::human;
use crate::queue::Clock;

/// The least time from one drawing to the next.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(100);

pub(super) struct Bar {
    /// None if there is no terminal, or nobody wants to see it.
    shown: Option<ProgressBar>,
    clock: Arc<Clock>,
    drawn: Duration,
    /// What was done before this process began.
    from: u64,
}

impl Bar {
    /// A bar on standard error, if that is a terminal.
    pub(super) fn new(total: u64, done: u64, is_wanted: bool, clock: &Arc<Clock>) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        // The rate is for what it draws besides what it is asked to; see `show`.
        let target = ProgressDrawTarget::stderr_with_hz(1);
        let bar = || ProgressBar::with_draw_target(Some(total), target).with_position(done);
        let bar = Self { shown: is_shown.then(bar), clock: Arc::clone(clock), drawn: clock.elapsed(), from: done };
        if let Some(shown) = &bar.shown {
            set_template(shown, "{bar:30} {pos}/{len} jobs", done);
            shown.tick();
        }
        bar
    }

    /// For how long what comes is to be gathered, before it is shown.
    pub(super) fn rest(&self) -> Duration {
        if self.shown.is_none() {
            return Duration::ZERO;
        }
        (self.drawn + BETWEEN_DRAWINGS).saturating_sub(self.clock.elapsed())
    }

    /// Prints something while the bar is out of the way, and draws it anew.
    pub(super) fn show(&mut self, done: u64, failed: u64, print: impl FnOnce()) {
        let Some(bar) = &self.shown else { return print() };
        if done > self.from {
            // Rate and time left mean something from the first end on.
            set_template(bar, "{bar:30} {pos}/{len} jobs  {rate:.dim}  {left} left{msg}", self.from);
        }
        if failed > 0 {
            bar.set_message(format!("  {failed} failed"));
        }
        bar.set_position(done);
        bar.suspend(print);
        self.drawn = self.clock.elapsed();
    }

    /// Leaves the terminal as it was.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Rate and time left count from `from`: what was done before this process began says nothing of its speed.
fn set_template(bar: &ProgressBar, template: &str, from: u64) {
    let Ok(style) = ProgressStyle::with_template(template) else { return };
    let per_second = move |state: &ProgressState| {
        to_f64(state.pos().saturating_sub(from)) / state.elapsed().as_secs_f64().max(0.001)
    };
    let rate = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{:.1}/s", per_second(state));
    };
    let left = move |state: &ProgressState, out: &mut dyn fmt::Write| {
        let jobs = to_f64(state.len().unwrap_or_default().saturating_sub(state.pos()));
        let seconds = Duration::try_from_secs_f64(jobs / per_second(state)).unwrap_or_default();
        let _ = write!(out, "{}", human::about(seconds));
    };
    bar.set_style(style.with_key("rate", rate).with_key("left", left));
}

/// A count of jobs, for a quotient: exact up to four thousand million.
fn to_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
