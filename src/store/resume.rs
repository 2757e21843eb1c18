//! What completed in earlier runs of a folder: the lines that `run --resume` skips.
//!
//! Nothing is written for it: the jobs themselves are read, from the first to the last that these runs have, when
//! somebody asks. So a job that was removed is forgotten here, too.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use redb::ReadableTable;
use serde_bytes::ByteBuf;
use xxhash_rust::xxh3::xxh3_128;

use super::StoreError;
use super::codec::{decode, encode};
use super::records::{JobRecord, LaneKind, LaneRecord, SpecRecord};
use super::tables::{JOBS, LANES, SPECS, Snapshot, get};
use crate::model::{JobSpec, StateKind};

/// How often each line completed. Lines are the same if they run the same command in the same folder, with the same
/// shell and the same changes of the environment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Completed(HashMap<u128, u64>);

impl Completed {
    /// Whether a job completed before and no other stood for that yet: then this one does.
    pub fn take(&mut self, spec: &JobSpec) -> bool {
        if self.0.is_empty() {
            return false;
        }
        // What is too large to be a record cannot have completed.
        let line = line(SpecRecord::of(spec, 0)).ok();
        let Some(times) = line.and_then(|line| self.0.get_mut(&line)) else { return false };
        let is_left = *times > 0;
        *times = times.saturating_sub(1);
        is_left
    }

    /// How many completed.
    pub fn jobs(&self) -> u64 {
        self.0.values().sum()
    }
}

/// What two jobs have in common that are the same line.
fn line(spec: SpecRecord) -> Result<u128, StoreError> {
    Ok(xxh3_128(&encode(&(spec.command, ByteBuf::from(spec.cwd), spec.env_change, spec.shell))?))
}

impl Snapshot {
    /// What completed in the runs that were typed in `folder`.
    pub fn completed_in(&self, folder: &Path) -> Result<Completed, StoreError> {
        let (mut lanes, mut seqs) = (BTreeSet::new(), (u64::MAX, 0));
        for row in self.open(LANES)?.iter()? {
            let (lane, record) = row?;
            if let LaneKind::Run(run) = decode::<LaneRecord>("LANES", record.value())?.kind
                && run.folder == folder.as_os_str().as_bytes()
            {
                lanes.insert(lane.value());
                seqs = (seqs.0.min(run.seqs.0), seqs.1.max(run.seqs.1));
            }
        }
        let mut completed = Completed::default();
        if lanes.is_empty() {
            return Ok(completed);
        }
        let specs = self.open(SPECS)?;
        for row in self.open(JOBS)?.range(seqs.0..=seqs.1)? {
            let (seq, record) = row?;
            let record: JobRecord = decode("JOBS", record.value())?;
            if record.kind() != StateKind::Completed || !lanes.contains(&record.lane) {
                continue;
            }
            let spec: Option<SpecRecord> = get(&specs, seq.value())?;
            let spec =
                spec.ok_or_else(|| StoreError::Damaged(format!("the spec of job {} is missing", seq.value())))?;
            *completed.0.entry(line(spec)?).or_default() += 1;
        }
        Ok(completed)
    }
}
