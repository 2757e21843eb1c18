//! What a job waits for: the end of others.

use super::{JobId, StateKind};

/// A job that another waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What it is called. It exists already, or comes earlier in the same batch: so no two can wait for each other.
    pub id: JobId,
    /// Whether it may end in any way; else it has to complete.
    pub any: bool,
}

/// What the state of a needed job means for one that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has not ended.
    Open,
    /// It ended as was wanted.
    Met,
    /// It ended otherwise: what waits would never run.
    Failed,
}

impl Verdict {
    /// That of a job which is in such a state, and may end in `any` way or has to complete.
    pub fn of(needed: StateKind, any: bool) -> Self {
        match needed {
            StateKind::Completed => Self::Met,
            StateKind::Dead | StateKind::Cancelled if any => Self::Met,
            StateKind::Dead | StateKind::Cancelled => Self::Failed,
            StateKind::Scheduled
            | StateKind::Blocked
            | StateKind::Pending
            | StateKind::Processing
            | StateKind::Failed => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_decide() {
        for kind in StateKind::ALL {
            let (strict, any) = (Verdict::of(kind, false), Verdict::of(kind, true));
            match kind {
                StateKind::Completed => assert_eq!((strict, any), (Verdict::Met, Verdict::Met)),
                _ if kind.has_ended() => assert_eq!((strict, any), (Verdict::Failed, Verdict::Met)),
                _ => assert_eq!((strict, any), (Verdict::Open, Verdict::Open)),
            }
        }
    }
}
