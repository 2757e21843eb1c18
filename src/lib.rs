//! A background job queue for the terminal.

pub mod model;
pub mod queue;
pub mod store;
/// The command line.
pub mod cli {
    /// Runs it.
    pub fn run() -> std::process::ExitCode {
        std::process::ExitCode::SUCCESS
    }
}
