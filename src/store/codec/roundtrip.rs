//! Every type of record against bytes that nobody wrote, for tests and fuzz targets.
//!
//! What decodes is one of three things: it is not read at all, it is read and refused as damaged, or it comes back
//! the same when it is written again, as a record and as the model's value.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::super::records::{
    AttemptRecord, Bulks, EnvRecord, Generations, Head, JobRecord, LaneRecord, LetGo, NeedRecord, PoolRecord,
    SpecRecord, StateRecord,
};
use super::super::{StoreError, pools};
use super::{HEADER_BYTES, RECORD_BYTES_MAX, decode, encode, seal};
use crate::model::{JobSpec, Millis};

/// Reads `bytes` as every type of record that a table holds, as they are and with a header that fits them.
///
/// # Panics
///
/// If what decodes does not come back the same.
pub(crate) fn every_record(bytes: &[u8]) {
    let mut sealed = vec![0; HEADER_BYTES];
    sealed.extend_from_slice(bytes);
    seal(&mut sealed);
    for bytes in [bytes, &sealed] {
        // META, CONFIG, IDS, KEYS, COUNTS, OUTPUT, ENV_REFS, UNSETTLED: values without a type of their own.
        comes_back::<u32>(bytes);
        comes_back::<u64>(bytes);
        comes_back::<String>(bytes);
        comes_back::<ByteBuf>(bytes);
        comes_back::<Head>(bytes);
        comes_back::<Bulks>(bytes);
        comes_back::<LetGo>(bytes);
        comes_back::<Generations>(bytes);
        comes_back::<LaneRecord>(bytes);
        comes_back::<JobRecord>(bytes).inspect(a_job_moves_to_where_it_is);
        comes_back::<SpecRecord>(bytes)
            .inspect(|spec| drop((spec.id(), spec.command(), spec.env_change(), spec.name(), spec.tags(), spec.key())));
        comes_back::<EnvRecord>(bytes);
        comes_back::<NeedRecord>(bytes);
        comes_back::<AttemptRecord>(bytes).inspect(|attempt| drop(attempt.attempt(1)));
        comes_back::<PoolRecord>(bytes).inspect(a_pool_is_what_it_was);
    }
}

/// The record that `bytes` hold, if they hold one. Compared as bytes: a number that is not one differs from itself.
fn comes_back<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let record = decode::<T>("a record", bytes).ok()?;
    let written = must(encode(&record));
    let read: T = must(decode("a record", &written));
    assert_eq!(must(encode(&read)), written, "it reads as something else");
    Some(record)
}

fn a_job_moves_to_where_it_is(record: &JobRecord) {
    let Ok(progress) = record.progress() else { return };
    let again = record.moved(&progress, Millis(record.updated));
    let is_blocked = matches!(record.state, StateRecord::Blocked { .. });
    // What is not blocked waits for nobody.
    assert_eq!(again, JobRecord { needs: if is_blocked { record.needs } else { 0 }, ..record.clone() });
}

fn a_pool_is_what_it_was(record: &PoolRecord) {
    if let Ok(info) = pools::info("p", record.clone()) {
        assert_eq!(PoolRecord::from(&info), *record);
    }
}

/// Writes a job as SPECS and ENVS hold it, and reads it again: what its record does not hold is taken from `spec`.
///
/// # Panics
///
/// If a record of it cannot be written or read.
pub(crate) fn spec_read_back(spec: &JobSpec) -> JobSpec {
    let record: SpecRecord = must(decode("SPECS", &must(encode(&SpecRecord::of(spec, 0)))));
    let bytes = |bytes: &Vec<u8>| ByteBuf::from(bytes.clone());
    let env = EnvRecord(spec.env.iter().map(|(name, value)| (bytes(name), bytes(value))).collect());
    let EnvRecord(env) = must(decode("ENVS", &must(encode(&env))));
    JobSpec {
        id: must(record.id()),
        name: must(record.name()),
        tags: must(record.tags()),
        key: must(record.key()),
        command: record.command(),
        cwd: OsString::from_vec(record.cwd.clone()).into(),
        env: Arc::new(env.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect()),
        env_change: record.env_change(),
        max_retries: record.max_retries,
        backoff_base: record.backoff_base,
        timeout: record.timeout.map(Into::into),
        shell: record.shell,
        queue: spec.queue.clone(),
        priority: spec.priority,
        start: spec.start,
        needs: spec.needs.clone(),
        if_exists: spec.if_exists,
    }
}

/// Most memory, in bytes, that [`every_record`] takes at one time for `len` bytes: its own copy of them; one text of
/// any length that the limit allows, asked for before it turns out that its bytes are missing; what serde reserves for
/// a list; and the records in a list, the smallest of which takes 72 bytes for one of its own while the list grows.
/// The limit ends such a list at a ninth of what it would come to.
pub(crate) fn memory_max(len: usize) -> usize {
    let lists = (72 * len).min(9 * RECORD_BYTES_MAX);
    2 * len + RECORD_BYTES_MAX + 1024 * 1024 + lists + 4_096
}

fn must<T>(done: Result<T, StoreError>) -> T {
    done.unwrap_or_else(|error| panic!("what was read or accepted is refused: {error}"))
}
