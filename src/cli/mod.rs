//! The command line: arguments become model values, those go to the store or a pool, and what comes back
//! is shown.
#![allow(dead_code, unused_imports)]

mod bytes;
mod discover;
mod input;

/// Runs it.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
