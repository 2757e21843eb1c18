//! Black-box tests: the real binary, from outside.

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]

mod support;

mod clocks;
mod crashes;
mod ending;
mod outputs;
mod readme;
mod resuming;
mod sharing;
mod signals;
mod surroundings;
