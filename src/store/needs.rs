//! Needs: jobs that wait for others to end.
//!
//! A job may name jobs that exist, and those before it in its batch: so nothing waits for itself, however many are
//! between. NEEDS has a row for each, `NEEDED_BY` its mirror, and the record of what is needed says so, so that the end of
//! any other job costs nothing. A need that is *met* stays so. One that is not yet met is, by the state of the needed job:
//!
//! | the needed job | wanted: completed | wanted: ended |
//! |---|---|---|
//! | has not ended | open | open |
//! | completed | met | met |
//! | is dead, or cancelled | failed | met |
//!
//! A job is blocked as long as none of its needs has failed and one is open; when one fails, it is cancelled, with the
//! reason `need_failed`. The end of a needed job reaches those that need it by [`super::settle`].
//!
//! All is validated before the first write: unknown ids, ids of later jobs of the batch, and what has failed already.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::ReadableTable;

use super::StoreError;
use super::codec::decode;
use super::enqueue::Enqueued;
use super::records::{BulkRecord, JobRecord, NeedRecord};
use super::tables::{JOBS, NEEDED_BY, NEEDS, SPECS, Snapshot, Tx};
use crate::model::{JobId, JobSpec, Need, Seq, StateKind, Verdict};

/// How many jobs are looked at to tell whether one leads to another: that takes a few milliseconds.
const FOLLOWED_MAX: usize = 1_000;

/// A job that another needs, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedInfo {
    /// Its number.
    pub seq: Seq,
    /// What it is called.
    pub id: JobId,
    /// Whether it may end in any way; else it has to complete.
    pub any: bool,
    /// Whether it did, once.
    pub met: bool,
    /// Where it is now.
    pub state: StateKind,
}

/// A needed job, before the batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needed {
    /// It exists.
    There(Seq),
    /// It is the one at this place of the batch.
    Earlier(usize),
}

/// What the jobs of a batch wait for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Of each job of the batch that waits for any.
    of: HashMap<usize, BTreeMap<Needed, NeedRecord>>,
    /// Jobs of the batch that others of it need.
    earlier: BTreeSet<usize>,
    /// Jobs that exist and are needed.
    there: BTreeSet<Seq>,
}

impl Plan {
    /// What the job at this place needs, those before it having these numbers; and how many of these are open.
    pub(super) fn of(&self, index: usize, before: &[Enqueued]) -> (Vec<(u64, NeedRecord)>, u32) {
        let Some(needs) = self.of.get(&index) else { return (Vec::new(), 0) };
        let number = |needed: &Needed| match needed {
            Needed::There(seq) => seq.0,
            Needed::Earlier(index) => before[*index].seq.0,
        };
        let open = needs.values().filter(|need| !need.met).count();
        let needs = needs.iter().map(|(needed, need)| (number(needed), *need)).collect();
        (needs, u32::try_from(open).unwrap_or(u32::MAX))
    }

    /// Whether others of the batch need the job at this place.
    pub(super) fn is_needed(&self, index: usize) -> bool {
        self.earlier.contains(&index)
    }

    /// The jobs that exist and are needed.
    pub(super) fn there(&self) -> impl Iterator<Item = Seq> {
        self.there.iter().copied()
    }
}

impl Tx<'_> {
    /// What the jobs of a batch wait for; an error if one of them cannot. Jobs of `bulk` count as before them.
    pub(super) fn plan_needs(
        &mut self,
        specs: &[impl Borrow<JobSpec>],
        bulk: Option<&BulkRecord>,
    ) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        if specs.iter().all(|spec| spec.borrow().needs.is_empty()) {
            return Ok(plan);
        }
        let specs: Vec<&JobSpec> = specs.iter().map(Borrow::borrow).collect();
        let own = specs.iter().enumerate().filter_map(|(index, spec)| Some((spec.id.as_ref()?, index)));
        let own: HashMap<&JobId, usize> = own.collect();
        for (index, spec) in specs.iter().enumerate().filter(|(_, spec)| !spec.needs.is_empty()) {
            let mut needs: BTreeMap<Needed, NeedRecord> = BTreeMap::new();
            for need in &spec.needs {
                let needed = match own.get(&need.id) {
                    Some(earlier) if *earlier < index => Needed::Earlier(*earlier),
                    Some(_) => return Err(StoreError::NeedsLater(need.id.clone())),
                    None => Needed::There(self.find_needed(&need.id, bulk)?),
                };
                let any = need.any && needs.get(&needed).is_none_or(|other| other.any);
                let met = match needed {
                    Needed::Earlier(earlier) => {
                        plan.earlier.insert(earlier);
                        false
                    }
                    Needed::There(seq) => {
                        plan.there.insert(seq);
                        self.is_met(seq, any, &need.id)?
                    }
                };
                needs.insert(needed, NeedRecord { any, met });
            }
            plan.of.insert(index, needs);
        }
        Ok(plan)
    }

    fn find_needed(&mut self, id: &JobId, bulk: Option<&BulkRecord>) -> Result<Seq, StoreError> {
        let owner = self.owner(id)?;
        let is_seen = |seq: &Seq| !self.bulks.hide(seq.0) || bulk.is_some_and(|bulk| bulk.has(*seq));
        owner.filter(is_seen).ok_or_else(|| StoreError::NoSuchJob(id.clone()))
    }

    /// Whether a job has ended as is wanted; an error if it ended otherwise.
    fn is_met(&mut self, seq: Seq, any: bool, id: &JobId) -> Result<bool, StoreError> {
        let state = self.job(seq)?.kind();
        match Verdict::of(state, any) {
            Verdict::Open => Ok(false),
            Verdict::Met => Ok(true),
            Verdict::Failed => Err(StoreError::NeedEnded { id: id.clone(), state }),
        }
    }

    /// Notes that others need a job.
    pub(super) fn mark_needed(&mut self, seq: Seq) -> Result<(), StoreError> {
        let record = self.job(seq)?;
        if !record.is_needed {
            self.tables.jobs.put(seq.0, &JobRecord { is_needed: true, ..record })?;
            self.touch();
        }
        Ok(())
    }

    /// What a job needs, with the jobs' numbers.
    pub(super) fn needs_of(&mut self, seq: Seq) -> Result<Vec<(u64, NeedRecord)>, StoreError> {
        let mut needs = Vec::new();
        for row in self.tables.needs.open()?.range((seq.0, 0)..=(seq.0, u64::MAX))? {
            let (key, need) = row?;
            needs.push((key.value().1, decode("NEEDS", need.value())?));
        }
        Ok(needs)
    }

    /// Up to `limit` of the jobs that need one, from a number on.
    pub(super) fn needed_by(&mut self, seq: Seq, from: u64, limit: usize) -> Result<Vec<Seq>, StoreError> {
        let rows = self.tables.needed_by.open()?.range((seq.0, from)..=(seq.0, u64::MAX))?;
        rows.take(limit).map(|row| Ok(Seq(row?.0.value().1))).collect()
    }

    /// What a job that is there would wait for if it was these: what was met once stays so. An error if it cannot wait for
    /// one of them.
    pub(super) fn needs_instead(
        &mut self,
        seq: Seq,
        id: &JobId,
        needs: &[Need],
    ) -> Result<BTreeMap<u64, NeedRecord>, StoreError> {
        let before: BTreeMap<u64, NeedRecord> = self.needs_of(seq)?.into_iter().collect();
        let mut instead: BTreeMap<u64, NeedRecord> = BTreeMap::new();
        for need in needs {
            let needed = self.find_needed(&need.id, None)?;
            if needed >= seq {
                return Err(StoreError::NeedsNewer { id: id.clone(), needed: need.id.clone() });
            }
            let any = need.any && instead.get(&needed.0).is_none_or(|other| other.any);
            let was_met = before.get(&needed.0).is_some_and(|before| before.met && (any || !before.any));
            let met = was_met || self.is_met(needed, any, &need.id)?;
            if !met && !self.leads_elsewhere(needed, seq)? {
                return Err(StoreError::NeedsTooMany { id: id.clone(), needed: need.id.clone() });
            }
            instead.insert(needed.0, NeedRecord { any, met });
        }
        Ok(instead)
    }

    /// Whether following the needs from one job never leads to another. Most lead to lower numbers; but a large batch has its
    /// numbers before it is stored, and may need what was enqueued meanwhile. False, too, if it would take long to tell.
    fn leads_elsewhere(&mut self, from: Seq, to: Seq) -> Result<bool, StoreError> {
        let (mut seen, mut left) = (BTreeSet::from([from.0]), vec![from.0]);
        while let Some(next) = left.pop() {
            for (needed, _) in self.needs_of(Seq(next))?.into_iter().filter(|(_, need)| !need.met) {
                if needed == to.0 || seen.len() == FOLLOWED_MAX {
                    return Ok(false);
                }
                if seen.insert(needed) {
                    left.push(needed);
                }
            }
        }
        Ok(true)
    }

    /// Lets a job wait for these instead of what it needed.
    pub(super) fn replace_needs(&mut self, seq: Seq, needs: &BTreeMap<u64, NeedRecord>) -> Result<(), StoreError> {
        self.remove_needs(seq)?;
        for (needed, need) in needs {
            self.tables.needs.put((seq.0, *needed), need)?;
            self.tables.needed_by.add((*needed, seq.0))?;
            self.mark_needed(Seq(*needed))?;
        }
        Ok(())
    }

    /// What a job would wait for if it was retried now: the needs that are met by now, and how many are open. Those of
    /// `retried` run again, too. An error if it would never run.
    pub(super) fn needs_again(
        &mut self,
        seq: Seq,
        retried: &BTreeSet<Seq>,
    ) -> Result<(Vec<(u64, NeedRecord)>, u32), StoreError> {
        let (mut met, mut open) = (Vec::new(), 0);
        for (needed, need) in self.needs_of(seq)?.into_iter().filter(|(_, need)| !need.met) {
            let id = self.id_of(Seq(needed))?;
            if retried.contains(&Seq(needed)) || !self.is_met(Seq(needed), need.any, &id)? {
                open += 1;
            } else {
                met.push((needed, NeedRecord { met: true, ..need }));
            }
        }
        Ok((met, open))
    }

    /// Takes the rows of what a job needs, since it goes away.
    pub(super) fn remove_needs(&mut self, seq: Seq) -> Result<(), StoreError> {
        for (needed, _) in self.needs_of(seq)? {
            self.tables.needs.delete((seq.0, needed))?;
            self.tables.needed_by.take((needed, seq.0))?;
            if self.needed_by(Seq(needed), 0, 1)?.is_empty() {
                let record = self.job(Seq(needed))?;
                self.tables.jobs.put(needed, &JobRecord { is_needed: false, ..record })?;
                self.tables.unsettled.delete(needed)?;
            }
        }
        Ok(())
    }

    /// Takes the rows of what needs a job, since that goes away. What is blocked by it waits no longer: only what nobody
    /// has seen yet is.
    pub(super) fn remove_needed(&mut self, seq: Seq) -> Result<(), StoreError> {
        if !self.job(seq)?.is_needed {
            return Ok(());
        }
        for waiting in self.needed_by(seq, 0, usize::MAX)? {
            self.meet(waiting, seq)?;
            self.tables.needs.delete((waiting.0, seq.0))?;
            self.tables.needed_by.take((seq.0, waiting.0))?;
        }
        self.tables.unsettled.delete(seq.0)
    }
}

impl Snapshot {
    /// What a job needs, in the order of the numbers.
    pub fn needs(&self, seq: Seq) -> Result<Vec<NeedInfo>, StoreError> {
        let (jobs, specs, mut needs) = (self.open(JOBS)?, self.open(SPECS)?, Vec::new());
        for row in self.open(NEEDS)?.range((seq.0, 0)..=(seq.0, u64::MAX))? {
            let (key, need) = row?;
            let needed = Seq(key.value().1);
            let NeedRecord { any, met } = decode("NEEDS", need.value())?;
            let record: Option<JobRecord> = super::tables::get(&jobs, needed.0)?;
            let record = record
                .ok_or_else(|| StoreError::Damaged(format!("job {} needs {}, which is no job", seq.0, needed.0)))?;
            needs.push(NeedInfo {
                seq: needed,
                id: super::query::id_of(&specs, needed)?,
                any,
                met,
                state: record.kind(),
            });
        }
        Ok(needs)
    }

    /// The first `limit` jobs that need one, in the order of their numbers. Those that are not published yet are left out.
    pub fn needed_by(&self, seq: Seq, limit: usize) -> Result<Vec<JobId>, StoreError> {
        let (specs, hidden, mut ids) = (self.open(SPECS)?, self.hidden()?, Vec::new());
        for row in self.open(NEEDED_BY)?.range((seq.0, 0)..=(seq.0, u64::MAX))? {
            let waiting = Seq(row?.0.value().1);
            if ids.len() == limit {
                break;
            }
            if !hidden.hide(waiting.0) {
                ids.push(super::query::id_of(&specs, waiting)?);
            }
        }
        Ok(ids)
    }
}
