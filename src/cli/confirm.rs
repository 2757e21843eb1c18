//! The question before something is done to many jobs.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use super::exit::{Exit, Failure};
use super::terminal;

/// Asks the person at the terminal; `done` is what was not done after a no: `removed`. Without a terminal nobody is asked,
/// and nothing but a yes is one.
pub(super) fn confirm(is_sure: bool, question: impl FnOnce() -> String, done: impl Display) -> Result<(), Failure> {
    if is_sure || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(());
    }
    let mut err = anstream::stderr();
    err.write_all(terminal::tame(&format!("queuectl: {} [y/N] ", question())).as_bytes())?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Exit::Stopped, format!("nothing was {done}")))
}
