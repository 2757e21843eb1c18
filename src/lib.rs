//! A background job queue for the terminal.

pub mod cli;
pub mod model;
pub mod queue;
pub mod store;
pub mod worker;
