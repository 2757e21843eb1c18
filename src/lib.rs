//! A background job queue for the terminal.

pub mod cli;
pub mod model;
