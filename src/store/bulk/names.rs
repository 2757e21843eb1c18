//! The ids and keys of a bulk: named when its jobs are there, in the order of IDS and of KEYS.
//!
//! Ids come in any order, and IDS is sorted by them. Written with their jobs, random ones would touch about as many pages
//! as there are ids in each piece; sorted over as many as there is room for, a page gets all of its rows at once.

use super::super::StoreError;
use super::super::codec::encode;
use super::super::records::{BulkRecord, SpecRecord};
use super::super::tables::Tx;
use super::BulkLanes;
use crate::model::{JobId, JobKey, JobSpec, Seq};

impl Tx<'_> {
    /// Gives jobs of a bulk their ids, all of `names` or none. `names` are sorted by id, and are what the jobs were
    /// filled with.
    pub fn name_bulk(&mut self, bulk: &BulkLanes, names: &[(JobId, Seq)]) -> Result<(), StoreError> {
        if let Some(two) = names.windows(2).find(|two| two[0].0 >= two[1].0) {
            return Err(StoreError::Duplicate(two[1].0.clone()));
        }
        for (id, _) in names {
            self.refuse_taken(id)?;
        }
        let rows = self.rows_of_names(bulk, names)?;
        self.tables.ids.insert_ascending(rows.iter().map(|(id, seq)| (id.as_str(), seq.as_slice())))
    }

    /// The same with their keys.
    pub fn key_bulk(&mut self, bulk: &BulkLanes, keys: &[(JobKey, Seq)]) -> Result<(), StoreError> {
        if let Some(two) = keys.windows(2).find(|two| two[0].0 >= two[1].0) {
            return Err(StoreError::KeyTwice(two[1].0.clone()));
        }
        for (key, _) in keys {
            if let Some((seq, state)) = self.key_holder(key)? {
                return Err(self.key_taken(key, seq, state)?);
            }
        }
        let rows = self.rows_of_names(bulk, keys)?;
        self.tables.keys.insert_ascending(rows.iter().map(|(key, seq)| (key.as_str(), seq.as_slice())))
    }

    /// The rows of names, which are no longer to come.
    fn rows_of_names<'n, T>(
        &mut self,
        bulk: &BulkLanes,
        names: &'n [(T, Seq)],
    ) -> Result<Vec<(&'n T, Vec<u8>)>, StoreError> {
        let found = self.bulks.get(bulk.number);
        let found = found.ok_or_else(|| StoreError::Contradiction("the bulk was taken away".to_owned()))?;
        if names.iter().any(|(_, seq)| !found.has(*seq)) {
            return Err(StoreError::Contradiction("a job to be named is not of the bulk".to_owned()));
        }
        let left = found.unnamed.checked_sub(names.len() as u64);
        let left = left.ok_or_else(|| StoreError::Contradiction("more names than jobs to be named".to_owned()))?;
        if let Some(bulk) = self.bulks_mut().get(bulk.number) {
            bulk.unnamed = left;
        }
        names.iter().map(|(name, seq)| Ok((name, encode(&seq.0)?))).collect()
    }

    /// Refuses ids that jobs have, before anything is stored: looked up in the order of IDS.
    pub(super) fn refuse_any_taken(&mut self, specs: &[&JobSpec]) -> Result<(), StoreError> {
        let mut ids: Vec<&JobId> = specs.iter().filter_map(|spec| spec.id.as_ref()).collect();
        ids.sort_unstable();
        ids.into_iter().try_for_each(|id| self.refuse_taken(id))
    }

    /// Whether a job of a bulk has an id that was not named.
    pub(super) fn is_unnamed(&mut self, seq: Seq, spec: &SpecRecord) -> Result<bool, StoreError> {
        let Some(id) = &spec.id else { return Ok(false) };
        Ok(self.tables.ids.get::<u64>(id.as_str())? != Some(seq.0))
    }

    /// The same of its key.
    pub(super) fn is_unkeyed(&mut self, seq: Seq, spec: &SpecRecord) -> Result<bool, StoreError> {
        let Some(key) = &spec.key else { return Ok(false) };
        Ok(self.tables.keys.get::<u64>(key.as_str())? != Some(seq.0))
    }
}

impl BulkRecord {
    /// Its lanes.
    pub(in crate::store) fn lanes(&self) -> std::ops::Range<u64> {
        self.number..self.number.saturating_add(self.lanes)
    }

    /// Whether a number was given to one of its jobs.
    pub(in crate::store) fn has(&self, seq: Seq) -> bool {
        seq.0 < self.next && self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&seq.0))
    }
}
