//! How things are shown: `json` for programs, `human` for people.

pub(super) mod human;
pub(super) mod json;
