//! The states of a job and the legal moves between them.
//!
//! ```text
//!  enqueue ─► scheduled ──due──► pending ──claim──► processing ──► completed
//!  enqueue ─► blocked ─unblock─►    ▲                   │  │  │
//!  enqueue ─► pending               │◄──give back, ─────┘  │  └──► dead
//!                                   │   interrupted, lost  ▼
//!                                   └───────due────────  failed
//!  pending, scheduled ──reschedule──► scheduled, pending;  failed ──reschedule──► failed, pending
//!  pending, scheduled ──wait for others──► blocked;  blocked ──wait for none──► as unblock
//!  anything that has not ended ──cancel──► cancelled
//!  completed, dead, cancelled ──retry──► pending
//!  blocked ──need failed──► cancelled ──that one is retried──► blocked, as it was
//!  pending, scheduled, failed ──hold──► scheduled, held ──release──► pending, scheduled
//!  what has ended ──remove──► gone
//! ```
//!
//! What is blocked may be held, too; then it stays so when it is unblocked. What is cancelled for a need keeps its start
//! time and its hold, and has them again when it is retried, by whomever.
//!
//! A state carries its data, and every move is one function of [`Progress`]. A move that is not legal is a
//! [`Refusal`] and changes nothing.

use super::{Ending, Lease, Millis, Outcome, Policy, PoolId, Run};

/// Which state, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    /// Waits for its start time.
    Scheduled,
    /// Waits for other jobs.
    Blocked,
    /// Ready to run.
    Pending,
    /// Claimed by a pool.
    Processing,
    /// Its last attempt failed; it is tried again.
    Failed,
    /// Its command succeeded.
    Completed,
    /// It failed for good and sits in the dead letter queue.
    Dead,
    /// It was cancelled.
    Cancelled,
}

impl StateKind {
    /// All states, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Pending,
        Self::Processing,
        Self::Failed,
        Self::Completed,
        Self::Dead,
        Self::Cancelled,
    ];

    /// Those of jobs that wait.
    pub const WAITING: [Self; 4] = [Self::Scheduled, Self::Blocked, Self::Pending, Self::Failed];
    /// Those of jobs that have ended.
    pub const ENDED: [Self; 3] = [Self::Completed, Self::Dead, Self::Cancelled];

    /// The name used everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a job in this state moves no more unless a person asks.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Dead | Self::Cancelled)
    }
}

/// A job's state with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Waits for its start time.
    Scheduled {
        /// When it becomes ready.
        due: Millis,
        /// Whether it is held, so that it does not become ready even then.
        held: bool,
    },
    /// Waits for other jobs.
    Blocked {
        /// When it may start, if it has to wait for that, too.
        due: Option<Millis>,
        /// Whether it is held.
        held: bool,
    },
    /// Ready to run.
    Pending,
    /// Claimed by a pool.
    Processing(Claimed),
    /// Its last attempt failed.
    Failed {
        /// When it is tried again.
        due: Millis,
        /// The retries that were allowed when it failed.
        allowed: u32,
    },
    /// Its command succeeded.
    Completed {
        /// When.
        at: Millis,
    },
    /// It sits in the dead letter queue.
    Dead {
        /// Since when.
        at: Millis,
        /// Why.
        reason: DeadReason,
        /// The retries, or losses, that were allowed when it died.
        allowed: u32,
    },
    /// It was cancelled.
    Cancelled {
        /// When.
        at: Millis,
        /// Why.
        reason: CancelReason,
    },
}

/// A pool's hold on a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The fencing number.
    pub lease: Lease,
    /// Who holds it.
    pub pool: PoolId,
    /// Since when.
    pub at: Millis,
    /// Whether a person asked to cancel it meanwhile.
    pub cancel_asked: bool,
}

/// Why a job is in the dead letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// Its last attempt failed and no retry was left.
    Failed,
    /// Its last attempt timed out and no retry was left.
    TimedOut,
    /// It lost its pool too often.
    Lost,
}

impl DeadReason {
    /// The name used in JSON and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
        }
    }
}

/// Why a job was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// A person asked.
    Asked,
    /// A job that it needed died or was cancelled. What it was while it was blocked it is again when it is retried.
    NeedFailed {
        /// When it was to start, if it had to wait for that, too.
        due: Option<Millis>,
        /// Whether it was held.
        held: bool,
    },
}

impl CancelReason {
    /// The name used in JSON and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::NeedFailed { .. } => "need_failed",
        }
    }
}

impl State {
    /// Which state this is.
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Scheduled { .. } => StateKind::Scheduled,
            Self::Blocked { .. } => StateKind::Blocked,
            Self::Pending => StateKind::Pending,
            Self::Processing(_) => StateKind::Processing,
            Self::Failed { .. } => StateKind::Failed,
            Self::Completed { .. } => StateKind::Completed,
            Self::Dead { .. } => StateKind::Dead,
            Self::Cancelled { .. } => StateKind::Cancelled,
        }
    }

    /// When it becomes ready by itself, if it does.
    pub fn due(&self) -> Option<Millis> {
        match *self {
            Self::Scheduled { due, held: false } | Self::Failed { due, .. } => Some(due),
            Self::Scheduled { held: true, .. }
            | Self::Blocked { .. }
            | Self::Pending
            | Self::Processing(_)
            | Self::Completed { .. }
            | Self::Dead { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// When it is to start, or to be tried again, whatever else it waits for.
    pub fn planned(&self) -> Option<Millis> {
        match *self {
            Self::Scheduled { due, .. } | Self::Failed { due, .. } => Some(due),
            Self::Blocked { due, .. } => due,
            Self::Pending
            | Self::Processing(_)
            | Self::Completed { .. }
            | Self::Dead { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// Whether a person holds it back.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Scheduled { held: true, .. } | Self::Blocked { held: true, .. })
    }

    /// When it ended, if it did.
    pub fn ended_at(&self) -> Option<Millis> {
        match *self {
            Self::Completed { at } | Self::Dead { at, .. } | Self::Cancelled { at, .. } => Some(at),
            Self::Scheduled { .. }
            | Self::Blocked { .. }
            | Self::Pending
            | Self::Processing(_)
            | Self::Failed { .. } => None,
        }
    }

    /// Why it is where it is, if that needs a reason.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Dead { reason, .. } => Some(reason.name()),
            Self::Cancelled { reason, .. } => Some(reason.name()),
            Self::Scheduled { .. }
            | Self::Blocked { .. }
            | Self::Pending
            | Self::Processing(_)
            | Self::Failed { .. }
            | Self::Completed { .. } => None,
        }
    }
}

/// A move that the job's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {} cannot be {}", .state.name(), .verb)]
pub struct Refusal {
    /// The state that it is in.
    pub state: StateKind,
    /// What was asked, as a past participle.
    pub verb: &'static str,
}

/// How far a job has come: its state and what decides the next one.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Where it is.
    pub state: State,
    /// Failures of this set of attempts; `retry` begins a new set.
    pub failures: u32,
    /// Losses of this set of attempts.
    pub losses: u32,
    /// Started runs in all.
    pub attempts: u32,
}

impl Progress {
    /// A job that was just enqueued.
    pub fn new(state: State) -> Self {
        Self { state, failures: 0, losses: 0, attempts: 0 }
    }

    fn refuse<T>(&self, verb: &'static str) -> Result<T, Refusal> {
        Err(Refusal { state: self.state.kind(), verb })
    }

    fn moved(&self, state: State) -> Self {
        Self { state, ..self.clone() }
    }

    /// Its start or retry time has come.
    pub fn due(&self, now: Millis) -> Result<Self, Refusal> {
        match self.state.due() {
            Some(due) if due <= now => Ok(self.moved(State::Pending)),
            Some(_) | None => self.refuse("made ready"),
        }
    }

    /// The last job that it waited for has ended as was wanted.
    pub fn unblock(&self, now: Millis) -> Result<Self, Refusal> {
        match self.state {
            State::Blocked { due, held: true } => {
                Ok(self.moved(State::Scheduled { due: due.unwrap_or(now), held: true }))
            }
            State::Blocked { due: Some(due), held: false } if due > now => {
                Ok(self.moved(State::Scheduled { due, held: false }))
            }
            State::Blocked { .. } => Ok(self.moved(State::Pending)),
            _ => self.refuse("unblocked"),
        }
    }

    /// A person holds it back.
    pub fn hold(&self, now: Millis) -> Result<Self, Refusal> {
        match self.state {
            State::Pending => Ok(self.moved(State::Scheduled { due: now, held: true })),
            State::Scheduled { due, .. } | State::Failed { due, .. } => {
                Ok(self.moved(State::Scheduled { due, held: true }))
            }
            State::Blocked { due, .. } => Ok(self.moved(State::Blocked { due, held: true })),
            _ => self.refuse("held"),
        }
    }

    /// A person lets it go on. What is not held waits as it did.
    pub fn release(&self, now: Millis) -> Result<Self, Refusal> {
        match self.state {
            State::Scheduled { due, held: true } if due <= now => Ok(self.moved(State::Pending)),
            State::Scheduled { due, .. } => Ok(self.moved(State::Scheduled { due, held: false })),
            State::Blocked { due, .. } => Ok(self.moved(State::Blocked { due, held: false })),
            State::Pending | State::Failed { .. } => Ok(self.clone()),
            _ => self.refuse("resumed"),
        }
    }

    /// A pool takes it.
    pub fn claim(&self, lease: Lease, pool: &PoolId, now: Millis) -> Result<Self, Refusal> {
        if self.state != State::Pending {
            return self.refuse("claimed");
        }
        let claimed = Claimed { lease, pool: pool.clone(), at: now, cancel_asked: false };
        Ok(self.moved(State::Processing(claimed)))
    }

    /// Its pool reports how the claim under `lease` ended. Late news, from a lease that is no longer
    /// held, is refused.
    pub fn finish(&self, lease: Lease, ending: &Ending, policy: &Policy, now: Millis) -> Result<Self, Refusal> {
        let State::Processing(claimed) = &self.state else { return self.refuse("finished") };
        if claimed.lease != lease {
            return self.refuse("finished");
        }
        let mut next = self.clone();
        next.state = match ending {
            Ending::NotStarted if claimed.cancel_asked => cancelled(now),
            Ending::NotStarted => State::Pending,
            Ending::Ran(run) => {
                next.attempts = next.attempts.saturating_add(1);
                next.after_run(run, claimed.cancel_asked, policy, now)
            }
        };
        Ok(next)
    }

    fn after_run(&mut self, run: &Run, cancel_asked: bool, policy: &Policy, now: Millis) -> State {
        match run.outcome {
            Outcome::Completed => State::Completed { at: now },
            Outcome::Cancelled => cancelled(now),
            Outcome::Failed | Outcome::TimedOut | Outcome::Interrupted | Outcome::Lost if cancel_asked => {
                cancelled(now)
            }
            Outcome::Failed => self.after_failure(DeadReason::Failed, run.ended, policy, now),
            Outcome::TimedOut => self.after_failure(DeadReason::TimedOut, run.ended, policy, now),
            Outcome::Interrupted => State::Pending,
            Outcome::Lost => {
                self.losses = self.losses.saturating_add(u32::from(run.counts_as_loss));
                let allowed = policy.max_losses;
                if run.counts_as_loss && allowed > 0 && self.losses >= allowed {
                    State::Dead { at: now, reason: DeadReason::Lost, allowed }
                } else {
                    State::Pending
                }
            }
        }
    }

    fn after_failure(&mut self, reason: DeadReason, ended: Millis, policy: &Policy, now: Millis) -> State {
        self.failures = self.failures.saturating_add(1);
        let allowed = policy.max_retries;
        if self.failures > allowed {
            State::Dead { at: now, reason, allowed }
        } else {
            State::Failed { due: ended.after(policy.delay(self.failures)), allowed }
        }
    }

    /// A person cancels it. What runs is marked; its pool ends it and reports.
    pub fn cancel(&self, now: Millis) -> Result<Self, Refusal> {
        match &self.state {
            State::Scheduled { .. } | State::Blocked { .. } | State::Pending | State::Failed { .. } => {
                Ok(self.moved(cancelled(now)))
            }
            State::Processing(claimed) => {
                Ok(self.moved(State::Processing(Claimed { cancel_asked: true, ..claimed.clone() })))
            }
            State::Completed { .. } | State::Dead { .. } | State::Cancelled { .. } => self.refuse("cancelled"),
        }
    }

    /// A job that it needed died or was cancelled.
    pub fn need_failed(&self, now: Millis) -> Result<Self, Refusal> {
        let State::Blocked { due, held } = self.state else { return self.refuse("cancelled") };
        Ok(self.moved(State::Cancelled { at: now, reason: CancelReason::NeedFailed { due, held } }))
    }

    /// A person wants it to run again: a fresh set of attempts, its history kept.
    pub fn retry(&self, now: Millis) -> Result<Self, Refusal> {
        self.retry_blocked()?.unblock(now)
    }

    /// The same where it still waits for other jobs.
    pub fn retry_blocked(&self) -> Result<Self, Refusal> {
        let (due, held) = match self.state {
            State::Cancelled { reason: CancelReason::NeedFailed { due, held }, .. } => (due, held),
            _ if self.state.kind().has_ended() => (None, false),
            _ => return self.refuse("retried"),
        };
        Ok(Self { state: State::Blocked { due, held }, failures: 0, losses: 0, attempts: self.attempts })
    }

    /// A person changes what it is, before it runs, or runs again. What has completed is history.
    pub fn edit(&self) -> Result<(), Refusal> {
        match self.state.kind() {
            StateKind::Processing | StateKind::Completed => self.refuse("edited"),
            StateKind::Scheduled
            | StateKind::Blocked
            | StateKind::Pending
            | StateKind::Failed
            | StateKind::Dead
            | StateKind::Cancelled => Ok(()),
        }
    }

    /// A person changes what it waits for: it is blocked while some of that is open, and keeps its time and whether it is
    /// held. What is blocked has not failed yet.
    pub fn wait_for(&self, is_open: bool, now: Millis) -> Result<Self, Refusal> {
        let has_failed = self.failures > 0 || self.losses > 0;
        match (&self.state, is_open) {
            (State::Processing(_) | State::Completed { .. } | State::Dead { .. } | State::Cancelled { .. }, _) => {
                self.refuse("changed in what it waits for")
            }
            (State::Blocked { .. }, false) => self.unblock(now),
            (State::Blocked { .. }, true)
            | (State::Failed { .. } | State::Scheduled { .. } | State::Pending, false) => Ok(self.clone()),
            (State::Scheduled { due, held }, true) if !has_failed => {
                Ok(self.moved(State::Blocked { due: Some(*due), held: *held }))
            }
            (State::Pending, true) if !has_failed => Ok(self.moved(State::Blocked { due: None, held: false })),
            (State::Failed { .. } | State::Scheduled { .. } | State::Pending, true) => {
                self.refuse("made to wait after an attempt")
            }
        }
    }

    /// A person changes when it starts, or is tried again; without a time, as soon as nothing else keeps it.
    pub fn reschedule(&self, due: Option<Millis>, now: Millis) -> Result<Self, Refusal> {
        let state = match (&self.state, due) {
            (State::Blocked { held, .. }, due) => State::Blocked { due, held: *held },
            (State::Scheduled { held: true, .. }, due) => State::Scheduled { due: due.unwrap_or(now), held: true },
            (State::Scheduled { .. } | State::Pending, Some(due)) => State::Scheduled { due, held: false },
            (State::Failed { allowed, .. }, Some(due)) => State::Failed { due, allowed: *allowed },
            (State::Scheduled { .. } | State::Pending | State::Failed { .. }, None) => State::Pending,
            (State::Processing(_) | State::Completed { .. } | State::Dead { .. } | State::Cancelled { .. }, _) => {
                return self.refuse("given another time");
            }
        };
        Ok(self.moved(state))
    }

    /// A person wants it gone, with its history.
    pub fn remove(&self) -> Result<(), Refusal> {
        if self.state.kind().has_ended() { Ok(()) } else { self.refuse("removed") }
    }
}

fn cancelled(now: Millis) -> State {
    State::Cancelled { at: now, reason: CancelReason::Asked }
}

#[cfg(test)]
mod tests;
