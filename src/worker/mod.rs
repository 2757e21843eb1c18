//! The pool: what runs jobs, and what ends them.
#![allow(dead_code, unused_imports)]

pub(crate) mod child;
pub(crate) mod program;
#[cfg(test)]
pub(crate) mod specimen;
pub(crate) mod tree;
