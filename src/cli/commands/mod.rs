//! The commands, a file each: arguments → store or pool → what is shown.

pub(super) mod ask;
pub(super) mod attach;
pub(super) mod backup;
mod batch;
pub(super) mod check;
pub(super) mod clean;
pub(super) mod compact;
pub(super) mod completions;
pub(super) mod config;
pub(super) mod edit;
pub(super) mod enqueue;
pub(super) mod export;
pub(super) mod import;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod man;
mod many;
pub(super) mod pause;
pub(super) mod run;
pub(super) mod runs;
pub(super) mod service;
pub(super) mod show;
pub(super) mod signal;
pub(super) mod status;
pub(super) mod wait;
mod watch;
pub(super) mod worker;
