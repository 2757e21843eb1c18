//! The pool: what runs jobs, and how pools know of each other.

#![allow(dead_code, unused_imports)]

pub(crate) mod bell;
pub(crate) mod board;
