//! `attach`: looks on while a run is worked on, by whichever process, until it ends.
//!
//! It only reads: whatever ends it, the run goes on. The file wakes it. What ended while it looks is found by when it
//! did, and printed as `run` itself prints it.

use std::collections::BTreeSet;
use std::process::exit;
use std::sync::Arc;

use super::super::args;
use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::reporter::Reporter;
use super::run::Summary;
use super::runs::{continue_line, named, unfinished, worker_of};
use super::wait::ring;
use crate::model::{LaneId, Millis, Seq, StateKind};
use crate::queue::Queue;
use crate::store::{RunInfo, Snapshot, StoreError};
use crate::worker::{Bell, PoolEnd, StopListener};

pub(crate) fn attach(context: &Context, args: &args::Attach) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    // Before the first look, so that nothing is missed between the two.
    let mut bell = Bell::new(queue.folder())?;
    let begun = named(&queue, args.run)?;
    let mut watch = Watch::begin(&queue, begun.lane)?;
    let number = begun.number;
    let reporter = Arc::new(Reporter::new(&queue, &begun, args.quiet)?);
    let printing = Arc::clone(&reporter);
    let listener = StopListener::start(move || {
        printing.close();
        say(format_args!("run {number} goes on without this; to see more of it, type: queuectl attach {number}"));
        exit(u8::from(Exit::Stopped).into());
    });
    if let (Some(pool), false) = (worker_of(&queue, begun.lane)?, args.quiet) {
        let left = format!("{} of {} to go", begun.unfinished(), human::count(begun.total(), "job"));
        reporter.note(format!("run {number}, which process {} works on: {left}; Ctrl-C only leaves it", pool.pid));
    }
    let is_cut_off = loop {
        // In this order: if nobody works on it any more, what is left then is left for good.
        let is_worked_on = worker_of(&queue, begun.lane)?.is_some();
        let Some(run) = watch.look(&queue, &reporter)? else { break false };
        if run.unfinished() == 0 || !is_worked_on {
            break run.unfinished() > 0;
        }
        ring(&queue, &mut bell, None)?;
    };
    reporter.close();
    drop(listener);
    let summary = Summary::read(&queue, &begun, None)?;
    let verdict = if is_cut_off {
        summary.tell_counts(args.quiet, PoolEnd::Stopped);
        let what = format!("run {number} {}", unfinished(&summary.run, &queue.read(Snapshot::pools)?));
        Err(Failure::new(Exit::Stopped, what).next(continue_line(&summary.run)))
    } else {
        summary.tell(args.quiet, PoolEnd::Empty)
    };
    queue.leave();
    verdict
}

/// How far the ended jobs of a run were seen.
struct Watch {
    lane: LaneId,
    /// All that ended before this was seen,
    from: Millis,
    /// and these, which ended then.
    seen: BTreeSet<Seq>,
}

impl Watch {
    fn begin(queue: &Queue, lane: LaneId) -> Result<Self, StoreError> {
        queue.read(|snapshot| {
            let from = snapshot.newest()?;
            let seen = snapshot.ended_since(lane, from)?.into_iter().map(|(_, seq, _)| seq).collect();
            Ok(Self { lane, from, seen })
        })
    }

    /// Reports what ended since the last look. The run as it is now; `None` once all of its jobs were removed.
    fn look(&mut self, queue: &Queue, reporter: &Reporter) -> Result<Option<RunInfo>, StoreError> {
        let (run, ended) = queue.read(|snapshot| {
            let mut ended = Vec::new();
            for (at, seq, kind) in snapshot.ended_since(self.lane, self.from)? {
                if self.seen.contains(&seq) && at == self.from {
                    continue;
                }
                let attempt = snapshot.job(seq)?.map_or(0, |job| job.progress.attempts);
                ended.push((at, seq, kind, attempt));
            }
            Ok((snapshot.run(self.lane)?, ended))
        })?;
        for (at, seq, kind, attempt) in ended {
            if at > self.from {
                self.from = at;
                self.seen.clear();
            }
            self.seen.insert(seq);
            reporter.has_ended(seq, attempt, kind != StateKind::Completed);
        }
        Ok(run)
    }
}
