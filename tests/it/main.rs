//! Black-box tests: the real binary, from outside.

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a test that cannot do its work fails")]
#![allow(clippy::print_stdout, reason = "what is skipped says why")]

mod support;

mod act;
mod backup;
mod bulk;
mod bytes;
mod clocks;
mod compact;
mod completing;
mod crashes;
mod damage;
mod ending;
mod enqueue;
mod exporting;
mod failing_disk;
mod filters;
mod full_disk;
mod look;
mod manuals;
mod outputs;
mod place;
mod plain;
mod pools;
mod queues;
mod read_only;
mod readme;
mod remove;
mod repair;
mod resuming;
mod run;
mod secrets;
mod seed;
mod service;
mod settings;
mod sharing;
mod signals;
mod surroundings;
mod usage;
