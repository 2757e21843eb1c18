//! The pool: what runs jobs, and what ends them.
#![allow(dead_code, unused_imports)]

pub(crate) mod program;
