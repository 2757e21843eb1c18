//! Editing: what a job is, is changed before it runs.
//!
//! Precondition: the job waits, for whatever, or is dead or cancelled and may be retried; and it is as its editor saw
//! it: who edits takes minutes, in which it may have started, or somebody else may have edited it. The jobs of a run
//! stay in it. What it is to wait for came before it and does not wait for it. All of that is checked before the first
//! write. Afterwards the job has its number, its id and its history as before, and the place that its priority and its
//! number give it, in the lane of its queue; a job of a large batch leaves the lane of that only if its queue changes.
//!
//! # Crash points
//!
//! It is one transaction and names no file: a kill before the commit leaves the job as it was, one after it as it was to
//! become. A pool that claims the job comes before or after it, and runs the one or the other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::StoreError;
use super::enqueue::{priority, rank};
use super::records::{EnvRecord, JobRecord, LaneKind, LaneRecord, NeedRecord, SpecRecord, queue_name};
use super::tables::Tx;
use crate::model::{Editable, IfExists, JobId, JobSpec, Need, Refusal, Seq, Start};

impl Tx<'_> {
    /// What can be changed of a job, and the job as it would be enqueued; refused if it runs or has completed.
    pub fn editable(&mut self, id: &JobId) -> Result<(Editable, JobSpec), StoreError> {
        let seq = self.find(id)?.ok_or_else(|| StoreError::NoSuchJob(id.clone()))?;
        let record = self.job(seq)?;
        let progress = record.progress()?;
        progress.edit().map_err(|refusal| refused(id, refusal))?;
        let spec = self.spec(seq)?;
        let (editable, _) = self.as_editable(seq, &record, &spec)?;
        let env: Option<EnvRecord> = self.tables.envs.get(spec.env)?;
        let env = env.ok_or_else(|| StoreError::Damaged("a job's environment is missing".to_owned()))?;
        let whole = JobSpec {
            id: spec.id()?,
            command: spec.command(),
            cwd: PathBuf::from(OsStr::from_bytes(&spec.cwd)),
            env: Arc::new(env.environment()),
            env_change: spec.env_change(),
            max_retries: spec.max_retries,
            backoff_base: spec.backoff_base,
            timeout: spec.timeout.map(Into::into),
            shell: spec.shell.clone(),
            queue: editable.queue.clone(),
            priority: editable.priority,
            start: Start::Now,
            name: spec.name()?,
            tags: spec.tags()?,
            key: spec.key()?,
            if_exists: IfExists::default(),
            needs: Vec::new(),
        };
        Ok((editable, whole))
    }

    /// Makes a job that was `was` what `becomes` says. The spec was checked.
    pub fn edit(&mut self, id: &JobId, was: &Editable, becomes: &Editable) -> Result<Seq, StoreError> {
        let seq = self.find(id)?.ok_or_else(|| StoreError::NoSuchJob(id.clone()))?;
        let record = self.job(seq)?;
        let mut progress = record.progress()?;
        progress.edit().map_err(|refusal| refused(id, refusal))?;
        let spec = self.spec(seq)?;
        let (is, is_of_run) = self.as_editable(seq, &record, &spec)?;
        if is != *was {
            return Err(StoreError::Changed(id.clone()));
        }
        if becomes == was {
            return Ok(seq);
        }
        if becomes.queue != was.queue && is_of_run {
            return Err(StoreError::OfRun(id.clone()));
        }
        let (mut open, mut needs) = (record.needs, None);
        if becomes.needs != was.needs {
            let instead = self.needs_instead(seq, id, &becomes.needs)?;
            open = instead.values().map(|need| u32::from(!need.met)).sum();
            progress = progress.wait_for(open > 0, self.now).map_err(|refusal| refused(id, refusal))?;
            needs = Some(instead);
        }
        if becomes.due != was.due {
            let due = becomes.due.filter(|due| *due > self.now);
            progress = progress.reschedule(due, self.now).map_err(|refusal| refused(id, refusal))?;
        }
        if let Some(needs) = needs {
            self.replace_needs(seq, &needs)?;
        }
        self.replace_spec(seq, &spec, becomes)?;
        let lane = if becomes.queue == was.queue { record.lane } else { self.queue_lane(&becomes.queue)?.0 };
        let moved = JobRecord { needs: open, ..record.clone() }.moved(&progress, self.now);
        // What has ended moved last when it did, and is found by that.
        let updated = if record.kind().has_ended() { record.updated } else { moved.updated };
        let edited = JobRecord { lane, rank: rank(becomes.priority), updated, ..moved };
        self.replace_job(seq, &record, &edited)?;
        if lane != record.lane {
            self.remove_empty_lane(record.lane)?;
        }
        Ok(seq)
    }

    /// What can be changed of a job, and whether it is part of a run.
    fn as_editable(&mut self, seq: Seq, record: &JobRecord, spec: &SpecRecord) -> Result<(Editable, bool), StoreError> {
        let lane: Option<LaneRecord> = self.tables.lanes.get(record.lane)?;
        let lane = lane.ok_or_else(|| StoreError::Damaged("a job's lane is missing".to_owned()))?;
        let mut needs = Vec::new();
        for (needed, NeedRecord { any, .. }) in self.needs_of(seq)? {
            needs.push(Need { id: self.id_of(Seq(needed))?, any });
        }
        let editable = Editable {
            command: spec.command(),
            queue: queue_name(&lane.queue)?,
            priority: priority(record.rank),
            due: record.progress()?.state.planned(),
            max_retries: spec.max_retries,
            timeout: spec.timeout.map(Into::into),
            name: spec.name()?,
            tags: spec.tags()?,
            needs,
        };
        Ok((editable, matches!(lane.kind, LaneKind::Run(_))))
    }

    fn replace_spec(&mut self, seq: Seq, spec: &SpecRecord, becomes: &Editable) -> Result<(), StoreError> {
        let edited = spec.edited(becomes);
        if edited == *spec {
            return Ok(());
        }
        for (key, value) in spec.labels() {
            self.tables.tags.take((key, value, seq.0))?;
        }
        self.add_labels(seq, &edited)?;
        self.tables.specs.put(seq.0, &edited)
    }
}

fn refused(id: &JobId, refusal: Refusal) -> StoreError {
    StoreError::Refused { id: id.clone(), refusal }
}
