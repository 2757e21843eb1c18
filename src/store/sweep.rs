//! Clearing away: jobs that ended long ago go, or what they wrote does. A person asks for it ([`Tx::clear`]), or the
//! settings of retention do, which pools carry out ([`Tx::sweep`]).
//!
//! A job goes only if nothing needs it any more: what a blocked job waits for stays, and a run that has jobs which
//! could still run, or is worked on, is kept whole: whoever types its line again, or waits for its end, finds all of
//! it. Afterwards it is as if the jobs had been removed by name: see `remove`, also for the crash points.
//!
//! A walk goes by when jobs ended, the oldest first, in pieces, each of them a transaction: what is kept is passed over,
//! and the next piece begins behind it.
//!
//! # Retention
//!
//! What is to go by its age goes when that is reached by the queue's time and by the clock of whoever sweeps. A clock that
//! is set wrong must not empty the queue, so META's head remembers when the queue's time last moved by more than a day in
//! one step, and nothing goes by its age until a day has passed since. A queue that was left alone for longer than a day
//! waits as well: a day is little beside what it was kept. What is to go by number does not ask for the time.
//!
//! Outputs that are let go leave their size in the attempt's record; the job stays. META's `let_go` says for each state up
//! to where that was done: jobs end at ever later times, so that no sweep looks at one twice. Where that does not hold,
//! after an import or a repair, it begins anew.
//!
//! # Crash points
//!
//! | the process was killed | then |
//! |---|---|
//! | before the commit of a piece | it is as it was; the next sweep begins there |
//! | after it, before the last file was deleted | files of removed jobs are left as `remove` says. Those of outputs that were let go are left until their job is removed, which deletes them |

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use redb::ReadableTable;

use super::StoreError;
use super::claim::Serves;
use super::codec::decode;
use super::finish::{STDERR, STDOUT};
use super::pools::PoolInfo;
use super::records::{AttemptRecord, Head, KeptRecord, LaneKind, LaneRecord, LetGo, NeedRecord, state_code};
use super::remove::Removed;
use super::runs::unfinished;
use super::tables::{FINISHED, META, Snapshot, Tx};
use crate::model::{LEAP, LaneId, Millis, Retention, Seq, Settings, StateKind, Stream};

/// The key of [`LetGo`] in META.
pub(super) const LET_GO: &str = "let_go";
/// Most jobs that a piece of a sweep looks at, which keeps its transaction within 10 ms.
const PIECE: usize = 256;

/// A place in the order in which jobs ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndedAt {
    /// When the job ended.
    pub at: Millis,
    /// The job.
    pub seq: Seq,
}

/// A piece of a walk over jobs that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleared {
    /// The jobs that are gone.
    pub removed: Vec<Removed>,
    /// How many stay because they are still needed.
    pub kept: u64,
    /// Where the next piece begins; `None` when there is none.
    pub next: Option<EndedAt>,
}

/// How far a sweep has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Which walk: one over the jobs of each state, then one over the outputs of each.
    walk: usize,
    from: Option<EndedAt>,
}

/// What a piece of a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The large outputs to be deleted now, by job.
    pub files: Vec<(Seq, Vec<(u32, Stream)>)>,
    /// How many jobs are gone.
    pub removed: u64,
    /// How many jobs were passed over because they are still needed.
    pub kept: u64,
    /// Whether this was the last piece.
    pub is_over: bool,
}

impl Tx<'_> {
    /// Looks at up to `limit` of the jobs that ended in `state`, at `until` at the latest and after `from`, and removes
    /// them, except for what is still needed.
    pub fn clear(
        &mut self,
        state: StateKind,
        until: Millis,
        from: Option<EndedAt>,
        limit: usize,
    ) -> Result<Cleared, StoreError> {
        let rows = ended(self.tables.finished.open()?, state, until, from, limit)?;
        let next = rows.last().copied().filter(|_| rows.len() == limit);
        let looked_at = rows.len();
        let mut open_runs = BTreeMap::new();
        let mut seqs = Vec::with_capacity(rows.len());
        for EndedAt { seq, .. } in rows {
            if !self.is_of_use(seq, &mut open_runs)? {
                seqs.push(seq);
            }
        }
        let kept = (looked_at - seqs.len()) as u64;
        Ok(Cleared { removed: self.take_away(&seqs)?, kept, next })
    }

    /// Goes on with a sweep of what the settings do not keep any more. `clock` is what the time is where the caller is.
    pub fn sweep(&mut self, sweep: &mut Sweep, clock: Millis) -> Result<Swept, StoreError> {
        let settings = self.common_settings()?;
        let (jobs, is_job) = (StateKind::ENDED.len(), sweep.walk < StateKind::ENDED.len());
        let Some(state) = StateKind::ENDED.get(sweep.walk % jobs).copied().filter(|_| sweep.walk < 2 * jobs) else {
            return Ok(Swept { is_over: true, ..Swept::default() });
        };
        let until = |long| aged(&self.head, self.now.min(clock), long);
        let (until, limit) = match if is_job { retention_of(&settings, state) } else { settings.retain_output } {
            Retention::Forever => (None, 0),
            Retention::For(long) => (until(long), PIECE),
            Retention::Newest(count) => {
                let surplus = self.ended(state)?.saturating_sub(count);
                (Some(Millis(u64::MAX)), usize::try_from(surplus).unwrap_or(PIECE).min(PIECE))
            }
        };
        let (mut swept, mut next) = (Swept::default(), None);
        if let Some(until) = until.filter(|_| limit > 0) {
            next = if is_job {
                let cleared = self.clear(state, until, sweep.from, limit)?;
                (swept.removed, swept.kept) = (cleared.removed.len() as u64, cleared.kept);
                let files = cleared.removed.into_iter().map(|job| (job.seq, job.files));
                swept.files = files.filter(|(_, files)| !files.is_empty()).collect();
                cleared.next
            } else {
                self.let_go(state, until, limit, &mut swept)?
            };
        }
        sweep.from = next;
        sweep.walk += usize::from(next.is_none());
        swept.is_over = sweep.walk == 2 * jobs;
        Ok(swept)
    }

    /// How many jobs have ended in a state.
    fn ended(&mut self, state: StateKind) -> Result<u64, StoreError> {
        let mut lanes = Vec::new();
        for row in self.tables.lanes.open()?.iter()? {
            lanes.push(row?.0.value());
        }
        lanes.into_iter().map(|lane| self.count_of(lane, state)).sum()
    }

    /// Lets the outputs of jobs go that ended in `state`, at `until` at the latest and after those of which that was
    /// done before. Answers where the next piece begins.
    fn let_go(
        &mut self,
        state: StateKind,
        until: Millis,
        limit: usize,
        swept: &mut Swept,
    ) -> Result<Option<EndedAt>, StoreError> {
        let mut done: LetGo = self.tables.meta.get(LET_GO)?.unwrap_or_default();
        let from = done.place(state);
        let rows = ended(self.tables.finished.open()?, state, until, from, limit)?;
        let Some(last) = rows.last().copied() else { return Ok(None) };
        for EndedAt { seq, .. } in &rows {
            let files = self.let_outputs_go(*seq)?;
            swept.files.extend((!files.is_empty()).then_some((*seq, files)));
        }
        done.0.insert(state_code(state), (last.at.0, last.seq.0));
        self.tables.meta.put(LET_GO, &done)?;
        self.touch();
        Ok((rows.len() == limit).then_some(last))
    }

    /// Answers which of them are in files.
    fn let_outputs_go(&mut self, seq: Seq) -> Result<Vec<(u32, Stream)>, StoreError> {
        let mut attempts = Vec::new();
        for row in self.tables.attempts.open()?.range((seq.0, 0)..=(seq.0, u32::MAX))? {
            let (key, record) = row?;
            attempts.push((key.value().1, decode::<AttemptRecord>("ATTEMPTS", record.value())?));
        }
        let mut files = Vec::new();
        for (number, mut attempt) in attempts {
            let mut is_changed = false;
            for (code, stream) in [(STDOUT, Stream::Stdout), (STDERR, Stream::Stderr)] {
                let kept = if code == STDOUT { &mut attempt.stdout } else { &mut attempt.stderr };
                let bytes = match *kept {
                    KeptRecord::Empty | KeptRecord::LetGo(_) => continue,
                    KeptRecord::Inline(bytes) => {
                        self.tables.output.delete((seq.0, number, code))?;
                        bytes
                    }
                    KeptRecord::File { bytes, .. } => {
                        files.push((number, stream));
                        bytes
                    }
                };
                *kept = KeptRecord::LetGo(bytes);
                is_changed = true;
            }
            if is_changed {
                self.tables.attempts.put((seq.0, number), &attempt)?;
            }
        }
        Ok(files)
    }

    /// Whether a job that has ended is still of use to others. `open_runs` remembers which lanes are runs that have not
    /// ended.
    fn is_of_use(&mut self, seq: Seq, open_runs: &mut BTreeMap<u64, bool>) -> Result<bool, StoreError> {
        let lane = self.job(seq)?.lane;
        let is_open = if let Some(is_open) = open_runs.get(&lane) {
            *is_open
        } else {
            let record: Option<LaneRecord> = self.tables.lanes.get(lane)?;
            let is_run = record.is_some_and(|record| matches!(record.kind, LaneKind::Run(_)));
            let is_open = is_run && self.is_open_run(LaneId(lane))?;
            open_runs.insert(lane, is_open);
            is_open
        };
        Ok(is_open || self.blocks_another(seq)?)
    }

    /// Whether a run has jobs that could still run, or a pool that has not told yet how it went.
    fn is_open_run(&mut self, lane: LaneId) -> Result<bool, StoreError> {
        let is_served = |pool: &PoolInfo| pool.ended.is_none() && pool.serves == Serves::Run(lane);
        Ok(unfinished(&self.lane_counts(lane.0)?) > 0 || self.pools()?.iter().any(is_served))
    }

    fn blocks_another(&mut self, seq: Seq) -> Result<bool, StoreError> {
        if !self.job(seq)?.is_needed {
            return Ok(false);
        }
        for waiting in self.needed_by(seq, 0, usize::MAX)? {
            let need: Option<NeedRecord> = self.tables.needs.get((waiting.0, seq.0))?;
            if need.is_some_and(|need| !need.met) && self.job(waiting)?.kind() == StateKind::Blocked {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Snapshot {
    /// From when on there is something that the settings do not keep any more; it may turn out to be needed still.
    pub fn next_sweep(&self) -> Result<Option<Millis>, StoreError> {
        let settings = self.settings(None)?;
        let all =
            StateKind::ENDED.map(|state| retention_of(&settings, state)).into_iter().chain([settings.retain_output]);
        if all.into_iter().all(|kept| kept == Retention::Forever) {
            return Ok(None);
        }
        let head = self.head()?;
        let mut next: Option<Millis> = None;
        let mut note = |at: Option<Millis>| next = next.into_iter().chain(at).min();
        let finished = self.open(FINISHED)?;
        let first = |state, from, long: Duration| -> Result<Option<Millis>, StoreError> {
            let first = ended(&finished, state, Millis(u64::MAX), from, 1)?.pop();
            let is_over = if head.leapt == 0 { Millis(0) } else { Millis(head.leapt).after(LEAP) };
            Ok(first.map(|place| place.at.after(long).max(is_over)))
        };
        for state in StateKind::ENDED {
            match retention_of(&settings, state) {
                Retention::Forever => {}
                Retention::For(long) => note(first(state, None, long)?),
                Retention::Newest(count) => note((self.counts()?[&state] > count).then_some(Millis(0))),
            }
        }
        if let Retention::For(long) = settings.retain_output {
            let done: LetGo = self.get(META, LET_GO)?.unwrap_or_default();
            for state in StateKind::ENDED {
                note(first(state, done.place(state), long)?);
            }
        }
        Ok(next)
    }

    /// How many jobs ended in `state`, at `until` at the latest.
    pub fn count_ended(&self, state: StateKind, until: Millis) -> Result<u64, StoreError> {
        let code = state_code(state);
        let rows = self.open(FINISHED)?.range((code, 0, 0)..=(code, until.0, u64::MAX))?;
        rows.map(|row| row.map(|_| 1).map_err(StoreError::from)).sum()
    }
}

impl LetGo {
    /// The last job of a state whose outputs were let go.
    fn place(&self, state: StateKind) -> Option<EndedAt> {
        self.0.get(&state_code(state)).map(|(at, seq)| EndedAt { at: Millis(*at), seq: Seq(*seq) })
    }
}

fn retention_of(settings: &Settings, state: StateKind) -> Retention {
    match state {
        StateKind::Completed => settings.retain_completed,
        StateKind::Dead => settings.retain_dead,
        StateKind::Cancelled => settings.retain_cancelled,
        StateKind::Scheduled | StateKind::Blocked | StateKind::Pending | StateKind::Processing | StateKind::Failed => {
            Retention::Forever
        }
    }
}

/// What ended at this time or before is older than `long`; `None` as long as the time is not to be trusted.
fn aged(head: &Head, now: Millis, long: Duration) -> Option<Millis> {
    let is_steady = head.leapt == 0 || Millis(head.newest).since(Millis(head.leapt)) >= LEAP;
    is_steady.then(|| now.before(long))
}

/// Up to `limit` of the jobs that ended in `state`, after `from` and at `until` at the latest, the oldest first.
fn ended(
    finished: &impl ReadableTable<(u8, u64, u64), ()>,
    state: StateKind,
    until: Millis,
    from: Option<EndedAt>,
    limit: usize,
) -> Result<Vec<EndedAt>, StoreError> {
    let code = state_code(state);
    let from = match from {
        Some(EndedAt { at, .. }) if at > until => return Ok(Vec::new()),
        Some(EndedAt { at, seq }) => Bound::Excluded((code, at.0, seq.0)),
        None => Bound::Included((code, 0, 0)),
    };
    let rows = finished.range((from, Bound::Included((code, until.0, u64::MAX))))?;
    let place = |row: Result<(redb::AccessGuard<'_, _>, _), _>| -> Result<EndedAt, StoreError> {
        let (_, at, seq) = row?.0.value();
        Ok(EndedAt { at: Millis(at), seq: Seq(seq) })
    };
    rows.take(limit).map(place).collect()
}
