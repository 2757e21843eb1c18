//! Any bytes through every parser, for tests and fuzz targets.

use std::sync::Arc;

use super::super::bytes::{from_json, to_json};
use jiff::tz::TimeZone;

use super::super::local::Local;
use super::{Asked, Base, Format, argv, job, lines, shell};
use crate::model::{Environment, JobSpec, Millis};

/// A base in `/work` with one variable.
pub(super) fn base() -> Base {
    Base {
        cwd: "/work".into(),
        env: Arc::new(Environment::from([(b"A".to_vec(), b"1".to_vec())])),
        asked: Asked::default(),
        local: Local::at(Millis(1_800_000_000_000), || TimeZone::UTC),
        exec_bytes_max: 2 * 1024 * 1024,
    }
}

/// The jobs that each parser accepts `input` as; what is refused has a message of one line and bounded length.
///
/// # Panics
///
/// If it has not, or if bytes do not survive as JSON.
pub(crate) fn accepted(input: &[u8]) -> Vec<Vec<JobSpec>> {
    let base = base();
    let batch = |format| Ok(lines(input, format, &base)?.jobs.into_iter().map(|(_, spec)| spec).collect());
    let one = |spec| Ok(vec![spec?]);
    let words = input.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
    let parsed = [
        batch(Format::Auto),
        batch(Format::Lines),
        batch(Format::JsonLines),
        one(job(input, &base)),
        one(shell(input.to_vec(), &base)),
        one(argv(words, &base)),
    ];
    if let Ok(value) = serde_json::from_slice(input) {
        let _ = from_json(&value);
    }
    assert_eq!(from_json(&to_json(input)).ok().as_deref(), Some(input), "bytes do not survive as JSON");
    let mut batches = Vec::new();
    for parsed in parsed {
        match parsed {
            Ok(jobs) => batches.push(jobs),
            Err(error) => {
                let error: super::InputError = error;
                let message = error.to_string();
                assert!(!message.contains(char::is_control) && message.chars().count() < 1_000, "{message}");
            }
        }
    }
    batches
}
