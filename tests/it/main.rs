//! Black-box tests: the real binary, from outside.

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]

mod support;

mod crashes;
mod readme;
mod signals;
