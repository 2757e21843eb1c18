//! A background job queue for the terminal.

pub mod model;
pub(crate) mod worker;
/// The command line.
pub mod cli {
    /// Runs it.
    pub fn run() -> std::process::ExitCode {
        std::process::ExitCode::SUCCESS
    }
}
