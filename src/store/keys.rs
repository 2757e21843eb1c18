//! KEYS: what is enqueued once. A row for each key, written with its job and taken away with it; what the job's spec
//! says is what counts. A job has its key as long as it is there, also when it has ended, unless another replaces it.
//!
//! Precondition: what becomes of each job of a batch, by its rule and by who has its key, is known before the first
//! write; so are the ids. Jobs of one batch are taken in their order, each after what those before it came to.
//!
//! # Crash points
//!
//! All of it is one transaction: who looks, who is retried or cancelled for it, and what is enqueued. So of two
//! processes that enqueue under the same key the second finds the job of the first, and a kill leaves all or nothing.
//! A bulk (see [`super::bulk`]) changes nothing that is there: it leaves out what exists when a piece of it is stored,
//! and names its keys last; one that was taken meanwhile refuses it as a whole.

use std::collections::HashMap;

use super::StoreError;
use super::ask::Terms;
use super::enqueue::{Enqueued, Wanted};
use super::tables::{KEYS, Snapshot, Tx};
use crate::model::{IfExists, JobId, JobKey, JobSpec, Seq, StateKind};

/// How a job that was to be enqueued fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// It was enqueued.
    New,
    /// It was enqueued in the place of this one, which has lost its key and waits no more.
    Replaced(JobId),
    /// A job of its key stands for it, which was in this state.
    Exists(StateKind),
    /// The same, and it got a fresh set of attempts.
    Retried(StateKind),
}

impl Met {
    /// Whether a job that was there stands for it.
    pub fn existed(&self) -> bool {
        matches!(self, Self::Exists(_) | Self::Retried(_))
    }
}

/// What is done for one job of a batch.
enum Step {
    /// It is enqueued; in the place of a job that was there.
    Add(Option<Seq>),
    /// That job stands for it.
    Exists(Seq, Met),
    /// The one of the batch with that index does.
    Same(usize),
}

/// Who has a key by then.
#[derive(Clone, Copy)]
enum Holder {
    There(Seq, StateKind),
    /// One of the batch.
    OfBatch(usize),
}

/// What is done for a batch.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    /// Jobs that are there and are retried.
    retried: Vec<Seq>,
    /// The indexes of jobs that others of the batch replace, and of those.
    replaced: Vec<(usize, usize)>,
}

impl Tx<'_> {
    /// Enqueues `specs`, some of which have keys.
    pub(super) fn enqueue_once(&mut self, specs: &[JobSpec]) -> Result<Vec<Enqueued>, StoreError> {
        let plan = self.plan_keys(specs)?;
        let steps = plan.steps.iter().zip(specs);
        let new = steps.filter_map(|(step, spec)| match step {
            Step::Add(replaced) => Some((*replaced, spec.clone())),
            Step::Exists(..) | Step::Same(_) => None,
        });
        let (replaced, new): (Vec<Option<Seq>>, Vec<JobSpec>) = new.unzip();
        let wanted = Wanted::of(&new)?;
        let giving = self.ids_to_give_up(&replaced, &new)?;
        let needs = self.plan_needs(&new, None)?;
        let retried: Vec<JobId> = plan.retried.iter().map(|seq| self.id_of(*seq)).collect::<Result<_, _>>()?;
        // Refuses what would never run, before it writes.
        self.retry(&retried, &Terms::default())?;
        let mut names = HashMap::new();
        for seq in replaced.iter().flatten() {
            let id = self.id_of(*seq)?;
            if !self.job(*seq)?.kind().has_ended() {
                self.cancel(std::slice::from_ref(&id))?;
            }
            self.lose_key(*seq)?;
            names.insert(*seq, id);
        }
        for seq in giving {
            self.release_id(seq, &wanted)?;
        }
        let mut new = self.enqueue_new(&new, &wanted, &needs)?.into_iter();
        // New ones may need what was just moved.
        for seq in plan.retried.iter().chain(names.keys()) {
            if self.job(*seq)?.is_needed {
                self.unsettle(*seq)?;
            }
        }
        let mut done: Vec<Enqueued> = Vec::with_capacity(specs.len());
        for step in plan.steps {
            let job = match step {
                Step::Add(replaced) => {
                    let replaced = replaced.and_then(|seq| names.get(&seq).cloned());
                    let job = new.next().ok_or_else(|| StoreError::Damaged("a job was not enqueued".to_owned()))?;
                    Enqueued { met: replaced.map_or(Met::New, Met::Replaced), ..job }
                }
                Step::Exists(seq, met) => Enqueued { seq, id: self.id_of(seq)?, due: None, waits_for: 0, met },
                Step::Same(of) => {
                    let met = Met::Exists(self.job(done[of].seq)?.kind());
                    Enqueued { due: None, waits_for: 0, met, ..done[of].clone() }
                }
            };
            done.push(job);
        }
        for (old, by) in plan.replaced {
            let id = done[old].id.clone();
            self.cancel(std::slice::from_ref(&id))?;
            self.lose_key(done[old].seq)?;
            done[by].met = Met::Replaced(id);
        }
        Ok(done)
    }

    fn plan_keys(&mut self, specs: &[JobSpec]) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        let mut holders: HashMap<&JobKey, Holder> = HashMap::new();
        for (n, spec) in specs.iter().enumerate() {
            let Some(key) = &spec.key else {
                plan.steps.push(Step::Add(None));
                continue;
            };
            let holder = match holders.get(key) {
                Some(holder) => Some(*holder),
                None => self.key_holder(key)?.map(|(seq, kind)| Holder::There(seq, kind)),
            };
            let step = match (holder, spec.if_exists) {
                (None, _) => Step::Add(None),
                (Some(Holder::OfBatch(_)), IfExists::Error) => return Err(StoreError::KeyTwice(key.clone())),
                (Some(Holder::OfBatch(of)), IfExists::Skip | IfExists::Retry) => Step::Same(of),
                (Some(Holder::OfBatch(of)), IfExists::Replace) => {
                    plan.replaced.push((of, n));
                    Step::Add(None)
                }
                (Some(Holder::There(seq, kind)), IfExists::Error) => return Err(self.key_taken(key, seq, kind)?),
                (Some(Holder::There(seq, kind)), IfExists::Replace) => {
                    if kind == StateKind::Processing {
                        return Err(self.key_taken(key, seq, kind)?);
                    }
                    Step::Add(Some(seq))
                }
                (Some(Holder::There(seq, kind @ (StateKind::Dead | StateKind::Cancelled))), IfExists::Retry) => {
                    plan.retried.push(seq);
                    holders.insert(key, Holder::There(seq, StateKind::Pending));
                    Step::Exists(seq, Met::Retried(kind))
                }
                (Some(Holder::There(seq, kind)), IfExists::Skip | IfExists::Retry) => {
                    Step::Exists(seq, Met::Exists(kind))
                }
            };
            if matches!(step, Step::Add(_)) {
                holders.insert(key, Holder::OfBatch(n));
            }
            plan.steps.push(step);
        }
        Ok(plan)
    }

    /// The published job that has a key, and where it is.
    pub(super) fn key_holder(&mut self, key: &JobKey) -> Result<Option<(Seq, StateKind)>, StoreError> {
        let Some(seq) = self.tables.keys.get::<u64>(key.as_str())? else { return Ok(None) };
        if self.bulks.hide(seq) {
            return Err(StoreError::KeyReserved(key.clone()));
        }
        Ok(Some((Seq(seq), self.job(Seq(seq))?.kind())))
    }

    /// That a job has a key.
    pub(super) fn key_taken(&mut self, key: &JobKey, seq: Seq, state: StateKind) -> Result<StoreError, StoreError> {
        Ok(StoreError::KeyTaken { key: key.clone(), id: self.id_of(seq)?, state })
    }

    /// The ids of new jobs have to be free, or those of the jobs that they replace: these give them up.
    fn ids_to_give_up(&mut self, replaced: &[Option<Seq>], new: &[JobSpec]) -> Result<Vec<Seq>, StoreError> {
        let mut giving = Vec::new();
        for (replaced, spec) in replaced.iter().zip(new) {
            let Some(id) = &spec.id else { continue };
            match replaced {
                Some(seq) if self.find(id)? == Some(*seq) && self.spec(*seq)?.id.is_some() => giving.push(*seq),
                Some(_) | None => self.refuse_taken(id)?,
            }
        }
        Ok(giving)
    }

    /// Takes the key away from a job.
    fn lose_key(&mut self, seq: Seq) -> Result<(), StoreError> {
        let mut spec = self.spec(seq)?;
        let Some(key) = spec.key.take() else { return Ok(()) };
        if self.tables.keys.get::<u64>(key.as_str())? == Some(seq.0) {
            self.tables.keys.delete(key.as_str())?;
        }
        self.tables.specs.put(seq.0, &spec)
    }
}

impl Snapshot {
    /// The job that was enqueued under a key.
    pub fn job_of_key(&self, key: &JobKey) -> Result<Option<Seq>, StoreError> {
        let Some(seq) = self.get::<_, u64>(KEYS, key.as_str())? else { return Ok(None) };
        Ok((!self.hidden()?.hide(seq)).then_some(Seq(seq)))
    }
}

#[cfg(test)]
mod tests;
