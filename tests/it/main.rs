//! Black-box tests: the real binary, from outside.

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a test that cannot do its work fails")]
#![allow(clippy::print_stdout, reason = "what is skipped says why")]

mod support;

mod act;
mod bytes;
mod crashes;
mod damage;
mod enqueue;
mod look;
mod place;
mod pools;
mod readme;
mod run;
mod seed;
mod settings;
mod signals;
mod usage;
