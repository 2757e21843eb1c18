//! Black-box tests: the real binary, from outside.

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a test that cannot do its work fails")]
#![allow(clippy::print_stdout, reason = "what is skipped says why")]

mod support;

mod act;
mod backup;
mod bulk;
mod bytes;
mod clean;
mod clocks;
mod compact;
mod completing;
mod crashes;
mod damage;
mod edit;
mod ending;
mod enqueue;
mod exporting;
mod failing_disk;
mod filters;
mod full_disk;
mod golden;
mod handles;
mod held;
mod keys;
mod look;
mod manuals;
mod needs;
mod outputs;
mod place;
mod plain;
mod pools;
mod queues;
mod read_only;
mod readme;
mod remove;
mod repair;
mod resume;
mod resuming;
mod retention;
mod run;
mod scaling;
mod secrets;
mod seed;
mod service;
mod settings;
mod sharing;
mod signalling;
mod signals;
mod surroundings;
mod usage;
mod waiting;
