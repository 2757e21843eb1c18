//! The state machine as a full table: every state against every event.

use std::time::Duration;

use super::*;
use crate::model::{Kept, Settings};

const NOW: Millis = Millis(10_000);
const LEASE: Lease = Lease(7);

fn pool() -> PoolId {
    "p1".parse().unwrap()
}

fn processing(cancel_asked: bool) -> State {
    State::Processing(Claimed { lease: LEASE, pool: pool(), at: Millis(1), cancel_asked })
}

fn run(outcome: Outcome) -> Ending {
    Ending::Ran(Run {
        slot: 0,
        started: Millis(1),
        ended: NOW,
        outcome,
        counts_as_loss: true,
        exit_code: None,
        signal: None,
        cpu: Duration::ZERO,
        max_rss_bytes: 0,
        error: None,
        stdout: Kept::Empty,
        stderr: Kept::Empty,
    })
}

fn need_failed(due: Option<Millis>, held: bool) -> State {
    State::Cancelled { at: NOW, reason: CancelReason::NeedFailed { due, held } }
}

/// Every state, those with a clock in two kinds, the claimed one in two.
fn states() -> Vec<(&'static str, State)> {
    let (soon, later) = (NOW, Millis(NOW.0 + 1));
    vec![
        ("scheduled, due", State::Scheduled { due: soon, held: false }),
        ("scheduled, not due", State::Scheduled { due: later, held: false }),
        ("held", State::Scheduled { due: soon, held: true }),
        ("blocked", State::Blocked { due: None, held: false }),
        ("blocked, not due", State::Blocked { due: Some(later), held: false }),
        ("blocked, held", State::Blocked { due: Some(soon), held: true }),
        ("pending", State::Pending),
        ("processing", processing(false)),
        ("processing, cancel asked", processing(true)),
        ("failed, due", State::Failed { due: soon, allowed: 3 }),
        ("failed, not due", State::Failed { due: later, allowed: 3 }),
        ("completed", State::Completed { at: NOW }),
        ("dead", State::Dead { at: NOW, reason: DeadReason::Failed, allowed: 3 }),
        ("cancelled", State::Cancelled { at: NOW, reason: CancelReason::Asked }),
        ("cancelled for a need", need_failed(None, false)),
        ("cancelled for a need, due", need_failed(Some(soon), false)),
        ("cancelled for a need, not due", need_failed(Some(later), false)),
        ("cancelled for a need, held", need_failed(Some(later), true)),
    ]
}

/// What an event makes of a state, as the name of the new state, or `-` for a refusal.
fn moved(state: &State, event: &str) -> String {
    let policy = Policy::of(None, None, &Settings::default());
    let before = Progress::new(state.clone());
    let finish = |lease, ending: &Ending| before.finish(lease, ending, &policy, NOW);
    let after = match event {
        "due" => before.due(NOW),
        "unblock" => before.unblock(NOW),
        "hold" => before.hold(NOW),
        "release" => before.release(NOW),
        "retry, blocked" => before.retry_blocked(),
        "need failed" => before.need_failed(NOW),
        "claim" => before.claim(Lease(9), &pool(), NOW),
        "cancel" => before.cancel(NOW),
        "retry" => before.retry(NOW),
        "edit" => return before.edit().map_or("-", |()| "edited").to_owned(),
        "wait for others" => before.wait_for(true, NOW),
        "wait for none" => before.wait_for(false, NOW),
        "later" => before.reschedule(Some(Millis(NOW.0 + 5)), NOW),
        "now" => before.reschedule(None, NOW),
        "give back" => finish(LEASE, &Ending::NotStarted),
        "completed" => finish(LEASE, &run(Outcome::Completed)),
        "failed" => finish(LEASE, &run(Outcome::Failed)),
        "timed out" => finish(LEASE, &run(Outcome::TimedOut)),
        "cancelled" => finish(LEASE, &run(Outcome::Cancelled)),
        "interrupted" => finish(LEASE, &run(Outcome::Interrupted)),
        "lost" => finish(LEASE, &run(Outcome::Lost)),
        "remove" => return before.remove().map_or("-", |()| "gone").to_owned(),
        "late news" => finish(Lease(6), &run(Outcome::Completed)),
        other => panic!("no event {other}"),
    };
    let name = |progress: Progress| {
        let held = if progress.state.is_held() { ", held" } else { "" };
        format!("{}{held}", progress.state.kind().name())
    };
    after.map_or_else(|_| "-".to_owned(), name)
}

/// What comes of which event, in their order; what is not listed for a state is refused.
const LEGAL: &[(&str, &[(&str, &str)])] = &[
    (
        "scheduled, due",
        &[
            ("due", "pending"),
            ("cancel", "cancelled"),
            ("hold", "scheduled, held"),
            ("release", "scheduled"),
            ("edit", "edited"),
            ("wait for others", "blocked"),
            ("wait for none", "scheduled"),
            ("later", "scheduled"),
            ("now", "pending"),
        ],
    ),
    (
        "scheduled, not due",
        &[
            ("cancel", "cancelled"),
            ("hold", "scheduled, held"),
            ("release", "scheduled"),
            ("edit", "edited"),
            ("wait for others", "blocked"),
            ("wait for none", "scheduled"),
            ("later", "scheduled"),
            ("now", "pending"),
        ],
    ),
    (
        "held",
        &[
            ("cancel", "cancelled"),
            ("hold", "scheduled, held"),
            ("release", "pending"),
            ("edit", "edited"),
            ("wait for others", "blocked, held"),
            ("wait for none", "scheduled, held"),
            ("later", "scheduled, held"),
            ("now", "scheduled, held"),
        ],
    ),
    (
        "blocked",
        &[
            ("unblock", "pending"),
            ("need failed", "cancelled"),
            ("cancel", "cancelled"),
            ("hold", "blocked, held"),
            ("release", "blocked"),
            ("edit", "edited"),
            ("wait for others", "blocked"),
            ("wait for none", "pending"),
            ("later", "blocked"),
            ("now", "blocked"),
        ],
    ),
    (
        "blocked, not due",
        &[
            ("unblock", "scheduled"),
            ("need failed", "cancelled"),
            ("cancel", "cancelled"),
            ("hold", "blocked, held"),
            ("release", "blocked"),
            ("edit", "edited"),
            ("wait for others", "blocked"),
            ("wait for none", "scheduled"),
            ("later", "blocked"),
            ("now", "blocked"),
        ],
    ),
    (
        "blocked, held",
        &[
            ("unblock", "scheduled, held"),
            ("need failed", "cancelled"),
            ("cancel", "cancelled"),
            ("hold", "blocked, held"),
            ("release", "blocked"),
            ("edit", "edited"),
            ("wait for others", "blocked, held"),
            ("wait for none", "scheduled, held"),
            ("later", "blocked, held"),
            ("now", "blocked, held"),
        ],
    ),
    (
        "pending",
        &[
            ("claim", "processing"),
            ("cancel", "cancelled"),
            ("hold", "scheduled, held"),
            ("release", "pending"),
            ("edit", "edited"),
            ("wait for others", "blocked"),
            ("wait for none", "pending"),
            ("later", "scheduled"),
            ("now", "pending"),
        ],
    ),
    (
        "processing",
        &[
            ("cancel", "processing"),
            ("give back", "pending"),
            ("completed", "completed"),
            ("failed", "failed"),
            ("timed out", "failed"),
            ("cancelled", "cancelled"),
            ("interrupted", "pending"),
            ("lost", "pending"),
        ],
    ),
    (
        "processing, cancel asked",
        &[
            ("cancel", "processing"),
            ("give back", "cancelled"),
            ("completed", "completed"),
            ("failed", "cancelled"),
            ("timed out", "cancelled"),
            ("cancelled", "cancelled"),
            ("interrupted", "cancelled"),
            ("lost", "cancelled"),
        ],
    ),
    (
        "failed, due",
        &[
            ("due", "pending"),
            ("cancel", "cancelled"),
            ("hold", "scheduled, held"),
            ("release", "failed"),
            ("edit", "edited"),
            ("wait for none", "failed"),
            ("later", "failed"),
            ("now", "pending"),
        ],
    ),
    (
        "failed, not due",
        &[
            ("cancel", "cancelled"),
            ("hold", "scheduled, held"),
            ("release", "failed"),
            ("edit", "edited"),
            ("wait for none", "failed"),
            ("later", "failed"),
            ("now", "pending"),
        ],
    ),
    ("completed", &[("retry", "pending"), ("retry, blocked", "blocked"), ("remove", "gone")]),
    ("dead", &[("retry", "pending"), ("retry, blocked", "blocked"), ("edit", "edited"), ("remove", "gone")]),
    ("cancelled", &[("retry", "pending"), ("retry, blocked", "blocked"), ("edit", "edited"), ("remove", "gone")]),
    (
        "cancelled for a need",
        &[("retry", "pending"), ("retry, blocked", "blocked"), ("edit", "edited"), ("remove", "gone")],
    ),
    (
        "cancelled for a need, due",
        &[("retry", "pending"), ("retry, blocked", "blocked"), ("edit", "edited"), ("remove", "gone")],
    ),
    (
        "cancelled for a need, not due",
        &[("retry", "scheduled"), ("retry, blocked", "blocked"), ("edit", "edited"), ("remove", "gone")],
    ),
    (
        "cancelled for a need, held",
        &[("retry", "scheduled, held"), ("retry, blocked", "blocked, held"), ("edit", "edited"), ("remove", "gone")],
    ),
];

#[test]
fn every_state_against_every_event() {
    let events = [
        "due",
        "unblock",
        "need failed",
        "claim",
        "cancel",
        "hold",
        "release",
        "retry",
        "retry, blocked",
        "edit",
        "wait for others",
        "wait for none",
        "later",
        "now",
        "remove",
        "give back",
        "completed",
        "failed",
        "timed out",
        "cancelled",
        "interrupted",
        "lost",
        "late news",
    ];
    for (name, state) in states() {
        let (_, moves) = LEGAL.iter().find(|(state, _)| *state == name).unwrap();
        for event in events {
            let expected = moves.iter().find(|(e, _)| *e == event).map_or("-", |(_, to)| to);
            assert_eq!(moved(&state, event), expected, "{name} × {event}");
        }
    }
}

fn finish(progress: &Progress, outcome: Outcome, policy: &Policy) -> Progress {
    let claimed = Progress { state: processing(false), ..progress.clone() };
    claimed.finish(LEASE, &run(outcome), policy, NOW).unwrap()
}

#[test]
fn three_retries_mean_four_attempts() {
    let policy = Policy::of(None, None, &Settings::default());
    let mut job = Progress::new(State::Pending);
    for delay in [2_000, 4_000, 8_000] {
        job = finish(&job, Outcome::Failed, &policy);
        assert_eq!(job.state, State::Failed { due: Millis(NOW.0 + delay), allowed: 3 });
    }
    job = finish(&job, Outcome::TimedOut, &policy);
    assert_eq!(job.state, State::Dead { at: NOW, reason: DeadReason::TimedOut, allowed: 3 });
    assert_eq!(job.attempts, 4);
    let again = job.retry(NOW).unwrap();
    assert_eq!((again.failures, again.losses, again.attempts), (0, 0, 4));
}

#[test]
fn what_is_cancelled_for_a_need_comes_back_as_it_was() {
    for (due, held) in [(None, false), (None, true), (Some(Millis(1)), false), (Some(Millis(99_999)), true)] {
        let before = Progress::new(State::Blocked { due, held });
        assert_eq!(before.need_failed(NOW).unwrap().retry_blocked().unwrap(), before);
        assert_eq!(before.need_failed(NOW).unwrap().retry(NOW), before.unblock(NOW));
    }
}

#[test]
fn a_job_that_allows_no_retry_dies_at_once() {
    let policy = Policy::of(Some(0), None, &Settings::default());
    let job = finish(&Progress::new(State::Pending), Outcome::Failed, &policy);
    assert_eq!(job.state.kind(), StateKind::Dead);
}

#[test]
fn losses_count_apart_and_only_while_the_machine_stays_up() {
    let policy = Policy::of(Some(0), None, &Settings::default());
    let reboot = match run(Outcome::Lost) {
        Ending::Ran(run) => Ending::Ran(Run { counts_as_loss: false, ..run }),
        Ending::NotStarted => unreachable!(),
    };
    let mut job = Progress::new(State::Pending);
    for _ in 0..5 {
        let claimed = Progress { state: processing(false), ..job.clone() };
        job = claimed.finish(LEASE, &reboot, &policy, NOW).unwrap();
        assert_eq!(job.state, State::Pending);
    }
    job = finish(&job, Outcome::Interrupted, &policy);
    for expected in [StateKind::Pending, StateKind::Pending, StateKind::Dead] {
        job = finish(&job, Outcome::Lost, &policy);
        assert_eq!(job.state.kind(), expected);
    }
    assert_eq!(job.state.reason(), Some("lost"));
    assert_eq!((job.failures, job.losses, job.attempts), (0, 3, 9));

    // Even if fewer losses are allowed than the job has behind it.
    let stricter = Policy { max_losses: 1, ..policy };
    let claimed = Progress { state: processing(false), losses: 2, attempts: 2, ..Progress::new(State::Pending) };
    assert_eq!(claimed.finish(LEASE, &reboot, &stricter, NOW).unwrap().state, State::Pending);

    let unlimited = Policy { max_losses: 0, ..policy };
    job = Progress::new(State::Pending);
    for _ in 0..10 {
        job = finish(&job, Outcome::Lost, &unlimited);
        assert_eq!(job.state, State::Pending);
    }
}
