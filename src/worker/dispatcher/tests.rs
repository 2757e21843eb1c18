//! The dispatcher by lists of events: time is an integer, and nothing runs.

use super::chaos::{after, at, claim, ended, live};
use super::*;
use crate::model::Lease;
use crate::sim::choices::Choices;

/// A worker with the job that it runs, whose lease has the same number.
fn run_of(slot: usize, lease: u64) -> Target {
    Target { slot, lease: Lease(lease) }
}

/// A pool of two whose first commit brought these jobs and left none.
fn pool_with(jobs: impl IntoIterator<Item = Claim>) -> Dispatcher {
    let mut pool = Dispatcher::new(2, false);
    assert!(matches!(pool.store_task(at(0)), StoreTask::Commit { want: 2, .. }));
    bring(&mut pool, jobs, at(0));
    pool
}

fn bring(pool: &mut Dispatcher, jobs: impl IntoIterator<Item = Claim>, now: Moment) {
    let committed = Committed {
        claims: jobs.into_iter().collect(),
        more_work: Some(false),
        held_back: false,
        due: None,
        took: Duration::from_millis(1),
    };
    pool.handle(Event::Committed(committed), now);
}

fn outcomes(task: StoreTask) -> Vec<(u64, Option<Outcome>)> {
    let StoreTask::Commit { reports, .. } = task else { panic!("no commit but {task:?}") };
    let outcome = |ending: &Ending| match ending {
        Ending::Ran(run) => Some(run.outcome),
        Ending::NotStarted => None,
    };
    reports.iter().map(|report| (report.token.seq().0, outcome(&report.ending))).collect()
}

#[test]
fn an_idle_pool_waits_for_nothing() {
    let mut pool = pool_with([]);
    assert!(matches!(pool.store_task(at(1)), StoreTask::Wait));
    assert_eq!((pool.store_deadline(at(1)), pool.next_deadline()), (None, None));
    pool.handle(Event::Rang, at(2));
    assert!(matches!(pool.store_task(at(2)), StoreTask::Check { is_empty: false }));
    pool.handle(Event::Checked { more_work: false, due: None, sweep: None }, at(3));
    assert!(matches!(pool.store_task(at(3)), StoreTask::Wait), "somebody else's business");
    pool.handle(Event::Checked { more_work: true, due: None, sweep: None }, at(4));
    assert!(matches!(pool.store_task(at(4)), StoreTask::Commit { want: 2, .. }));
}

#[test]
fn what_is_due_is_made_ready_and_claimed_at_its_time() {
    let mut pool = pool_with([]);
    pool.handle(Event::Checked { more_work: false, due: Some(Millis(1_000_050)), sweep: None }, at(1));
    assert!(matches!(pool.store_task(at(49)), StoreTask::Wait));
    assert_eq!(pool.store_deadline(at(20)), Some(Duration::from_millis(50)));
    assert!(matches!(pool.store_task(at(50)), StoreTask::Commit { want: 2, .. }));
}

#[test]
fn a_report_waits_for_company_unless_a_worker_is_hungry() {
    let mut pool = pool_with([claim(1, after(9_000)), claim(2, after(9_000)), claim(3, after(9_000))]);
    let first = pool.take(0, at(0)).unwrap();
    pool.take(1, at(0)).unwrap();
    pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Completed, None) }, at(100));
    assert!(matches!(pool.store_task(at(100)), StoreTask::Wait), "job 3 is ready for it");
    let third = pool.take(0, at(100)).unwrap();
    assert_eq!(pool.store_deadline(at(101)), Some(Duration::from_millis(120)));
    assert!(matches!(pool.store_task(at(119)), StoreTask::Wait));
    pool.handle(Event::Ended { slot: 0, report: ended(third, Outcome::Failed, None) }, at(119));
    assert_eq!(outcomes(pool.store_task(at(119))), [(1, Some(Outcome::Completed)), (3, Some(Outcome::Failed))]);
}

#[test]
fn short_jobs_are_claimed_ahead_and_long_ones_are_not() {
    for (took, ahead) in [(1, 84), (2, 42), (100, 0)] {
        let mut pool = pool_with([claim(1, after(9_000)), claim(2, after(9_000))]);
        let first = pool.take(0, at(0)).unwrap();
        pool.take(1, at(0)).unwrap();
        pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Completed, None) }, at(took));
        pool.handle(Event::Checked { more_work: true, due: None, sweep: None }, at(took));
        let StoreTask::Commit { want, .. } = pool.store_task(at(took)) else { panic!("a worker is idle") };
        assert_eq!(want, 1 + ahead, "jobs of {took} ms");
    }
}

/// Another pool may have nothing to do.
#[test]
fn claims_made_ahead_are_given_back_when_every_run_turns_out_to_be_long() {
    let mut pool = pool_with([1, 2, 3, 4, 5].map(|seq| claim(seq, TimeLimit::Unlimited)));
    let first = pool.take(0, at(0)).unwrap();
    pool.take(1, at(0)).unwrap();
    pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Completed, None) }, at(1));
    pool.take(0, at(1)).unwrap();
    pool.handle(Event::Checked { more_work: true, due: None, sweep: None }, at(1));
    assert!(matches!(pool.store_task(at(1)), StoreTask::Commit { want: 82, .. }), "a run takes 1 ms");
    bring(&mut pool, [6].map(|seq| claim(seq, TimeLimit::Unlimited)), at(2));
    assert_eq!(pool.store_deadline(at(90)), Some(Duration::from_millis(103)));
    assert!(matches!(pool.store_task(at(102)), StoreTask::Wait));
    let task = pool.store_task(at(103));
    assert!(matches!(task, StoreTask::Commit { want: 0, .. }), "{task:?}");
    assert_eq!(outcomes(task), [(4, None), (5, None), (6, None)]);
    let committed = Committed {
        claims: Vec::new(),
        more_work: Some(true),
        held_back: false,
        due: None,
        took: Duration::from_millis(1),
    };
    pool.handle(Event::Committed(committed), at(104));
    assert!(matches!(pool.store_task(at(104)), StoreTask::Wait), "what was given back is not claimed again");
}

#[test]
fn a_timeout_asks_then_kills() {
    let mut pool = pool_with([claim(1, after(300)), claim(2, TimeLimit::Unlimited)]);
    pool.take(0, at(0)).unwrap();
    pool.take(1, at(0)).unwrap();
    assert_eq!(pool.next_deadline(), Some(FIRST_LOOK));
    assert_eq!(pool.handle(Event::Tick, at(299)), [Action::Look { slot: 0 }, Action::Look { slot: 1 }]);
    assert_eq!(pool.handle(Event::Tick, at(300)), [Action::Terminate(run_of(0, 1))]);
    assert_eq!((pool.why(0), pool.why(1)), (Some(Why::TimedOut), None));
    assert_eq!(pool.grace_left(0, at(1_300)), Duration::from_secs(4));
    let looks_aside = |actions: Vec<Action>| -> Vec<Action> {
        actions.into_iter().filter(|action| !matches!(action, Action::Look { .. })).collect()
    };
    assert_eq!(looks_aside(pool.handle(Event::Tick, at(5_299))), []);
    assert_eq!(looks_aside(pool.handle(Event::Tick, at(5_300))), [Action::Kill(run_of(0, 1))]);
}

#[test]
fn time_spent_standing_still_does_not_count() {
    let mut pool = pool_with([claim(1, after(300))]);
    pool.take(0, at(0)).unwrap();
    pool.handle(Event::Thawed { stood: Duration::from_secs(10) }, at(10_100));
    let actions = pool.handle(Event::Tick, at(10_299));
    assert!(!actions.contains(&Action::Terminate(run_of(0, 1))));
    assert!(pool.handle(Event::Tick, at(10_300)).contains(&Action::Terminate(run_of(0, 1))));
}

#[test]
fn stopping_is_gentle_then_firm_then_final() {
    let mut pool = pool_with([claim(1, after(9_000)), claim(2, after(9_000)), claim(3, after(9_000))]);
    let first = pool.take(0, at(0)).unwrap();
    let said = pool.handle(Event::Stop, at(10));
    assert_eq!(said, [Action::SayStopping { running: vec![JobId::from(Seq(1))], ending: false }]);
    assert!(pool.take(1, at(10)).is_none() && pool.is_over(), "nothing starts");
    assert_eq!(outcomes(pool.store_task(at(10))), [(2, None), (3, None)], "given back");
    bring(&mut pool, [claim(4, after(9_000))], at(11));
    assert_eq!(outcomes(pool.store_task(at(11))), [(4, None)], "a claim that was on its way goes back as well");
    bring(&mut pool, [], at(12));
    assert!(matches!(pool.store_task(at(12)), StoreTask::Wait), "job 1 still runs");

    let firmly = pool.handle(Event::Stop, at(20));
    assert_eq!(firmly[1..], [Action::Terminate(run_of(0, 1))]);
    assert_eq!(pool.why(0), Some(Why::Interrupted));
    assert_eq!(pool.handle(Event::Stop, at(30)), [Action::Kill(run_of(0, 1))]);
    pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Interrupted, Some(9)) }, at(31));
    assert_eq!(outcomes(pool.store_task(at(31))), [(1, Some(Outcome::Interrupted))]);
    bring(&mut pool, [], at(32));
    assert!(matches!(pool.store_task(at(32)), StoreTask::Finish(Finish::Stopped)));
}

#[test]
fn a_death_by_sigterm_waits_a_second_for_its_meaning() {
    let die = |pool: &mut Dispatcher, ms| {
        let first = pool.take(0, at(0)).unwrap();
        pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Failed, Some(15)) }, at(ms));
    };
    let mut pool = pool_with([claim(1, after(9_000))]);
    die(&mut pool, 100);
    assert!(matches!(pool.store_task(at(1_099)), StoreTask::Wait));
    assert_eq!(outcomes(pool.store_task(at(1_100))), [(1, Some(Outcome::Failed))], "the pool was not stopped");

    let mut pool = pool_with([claim(1, after(9_000))]);
    die(&mut pool, 100);
    pool.handle(Event::Stop, at(900));
    assert_eq!(outcomes(pool.store_task(at(900))), [(1, Some(Outcome::Interrupted))], "it was meant for both");

    let mut pool = pool_with([claim(1, after(9_000))]);
    let first = pool.take(0, at(0)).unwrap();
    pool.handle(Event::Stop, at(50));
    pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Failed, Some(15)) }, at(100));
    assert_eq!(outcomes(pool.store_task(at(100))), [(1, Some(Outcome::Interrupted))]);
}

#[test]
fn a_cancelled_job_is_ended_or_given_back() {
    let mut pool = pool_with([claim(1, after(9_000)), claim(2, after(9_000)), claim(3, after(9_000))]);
    pool.take(0, at(0)).unwrap();
    let actions = pool.handle(Event::Cancel(vec![Seq(1), Seq(3)]), at(1));
    assert_eq!(actions, [Action::Terminate(run_of(0, 1))]);
    assert_eq!(pool.handle(Event::Cancel(vec![Seq(1)]), at(2)), [], "once is enough");
    assert_eq!(pool.take(1, at(2)).map(|claim| claim.token.seq()), Some(Seq(2)));
    assert_eq!(outcomes(pool.store_task(at(22))), [(3, None)]);
}

#[test]
fn a_commit_that_failed_is_tried_again_later_with_the_same_reports() {
    let mut pool = pool_with([claim(1, after(9_000))]);
    let first = pool.take(0, at(0)).unwrap();
    pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Completed, None) }, at(5));
    let StoreTask::Commit { reports, .. } = pool.store_task(at(5)) else { panic!("a worker is idle") };
    pool.handle(Event::NotCommitted { reports }, at(6));
    assert!(matches!(pool.store_task(at(7)), StoreTask::Wait));
    assert_eq!(pool.store_deadline(at(7)), Some(Duration::from_millis(6) + STORE_RETRY));
    assert_eq!(outcomes(pool.store_task(at(256))), [(1, Some(Outcome::Completed))]);
}

#[test]
fn a_third_signal_ends_a_pool_whose_store_cannot_be_written() {
    let mut pool = pool_with([claim(1, after(9_000))]);
    let first = pool.take(0, at(0)).unwrap();
    pool.handle(Event::Ended { slot: 0, report: ended(first, Outcome::Completed, None) }, at(5));
    for ms in [6, 7] {
        pool.handle(Event::Stop, at(ms));
    }
    let StoreTask::Commit { reports, .. } = pool.store_task(at(8)) else { panic!("there is a report") };
    pool.handle(Event::NotCommitted { reports }, at(9));
    assert!(matches!(pool.store_task(at(10)), StoreTask::Wait), "it may work yet");
    pool.handle(Event::Stop, at(11));
    assert!(matches!(pool.store_task(at(11)), StoreTask::Finish(Finish::GivenUp)));
}

#[test]
fn a_pool_until_empty_asks_once_after_each_change() {
    let mut pool = Dispatcher::new(1, true);
    assert!(matches!(pool.store_task(at(0)), StoreTask::Commit { .. }));
    bring(&mut pool, [], at(0));
    assert!(matches!(pool.store_task(at(1)), StoreTask::Check { is_empty: true }));
    pool.handle(Event::Checked { more_work: false, due: None, sweep: None }, at(1));
    assert!(matches!(pool.store_task(at(2)), StoreTask::Wait), "others still have something");
    pool.handle(Event::Rang, at(3));
    assert!(matches!(pool.store_task(at(3)), StoreTask::Check { is_empty: true }));
    pool.handle(Event::Empty, at(4));
    assert!(matches!(pool.store_task(at(4)), StoreTask::Finish(Finish::Empty)));
}

#[test]
fn whatever_happens_every_claim_comes_back_once_and_the_pool_ends() {
    for seed in 1..=400_u64 {
        let (mut choices, mut left) = (Choices::seeded(seed), 4_000);
        live(|n| {
            left -= 1;
            (left > 0).then_some(u64::from(choices.next()) % n)
        });
    }
}

/// It wakes when something is due, then at most once a minute; pieces and commits take turns.
#[test]
fn what_the_settings_do_not_keep_is_swept_beside_the_work() {
    let mut pool = pool_with([]);
    let looked = |sweep: u64| Event::Checked { more_work: false, due: None, sweep: Some(Millis(1_000_000 + sweep)) };
    pool.handle(looked(500), at(1));
    assert_eq!(pool.store_deadline(at(1)), Some(Duration::from_millis(500)));
    assert!(matches!(pool.store_task(at(499)), StoreTask::Wait));
    assert!(matches!(pool.store_task(at(500)), StoreTask::Sweep));
    pool.handle(Event::Swept { is_over: false, next: None }, at(501));
    pool.handle(Event::Checked { more_work: true, due: None, sweep: None }, at(501));
    assert!(matches!(pool.store_task(at(501)), StoreTask::Commit { .. }), "a commit waits for one piece at most");
    bring(&mut pool, [claim(1, TimeLimit::Unlimited), claim(2, TimeLimit::Unlimited)], at(502));
    pool.take(0, at(502)).unwrap();
    pool.take(1, at(502)).unwrap();
    assert!(matches!(pool.store_task(at(502)), StoreTask::Sweep));
    pool.handle(Event::Swept { is_over: true, next: Some(Millis(1_000_600)) }, at(503));
    assert!(matches!(pool.store_task(at(700)), StoreTask::Wait));
    assert_eq!(pool.store_deadline(at(700)), Some(Duration::from_millis(60_503)));
    pool.handle(looked(90_000), at(700));
    assert_eq!(pool.store_deadline(at(700)), Some(Duration::from_secs(90)));
    pool.handle(Event::Stop, at(90_001));
    assert!(!matches!(pool.store_task(at(90_001)), StoreTask::Sweep), "not at the end of the day");
}

#[test]
fn a_pool_that_is_about_to_end_sweeps_once_more() {
    let mut pool = Dispatcher::new(2, true);
    assert!(matches!(pool.store_task(at(0)), StoreTask::Commit { want: 2, .. }));
    bring(&mut pool, [], at(0));
    let (due, mut sweeps) = (Some(Millis(1_000_000)), 0);
    for ms in 1..20 {
        match pool.store_task(at(ms)) {
            StoreTask::Check { is_empty } => {
                pool.handle(Event::Checked { more_work: false, due: None, sweep: due }, at(ms));
                if is_empty {
                    pool.handle(Event::Empty, at(ms));
                }
            }
            StoreTask::Sweep => {
                sweeps += 1;
                // What is needed still stays, and is due.
                pool.handle(Event::Swept { is_over: true, next: due }, at(ms));
            }
            StoreTask::Finish(finish) => {
                assert_eq!((finish, sweeps), (Finish::Empty, 1));
                return;
            }
            task @ (StoreTask::Commit { .. } | StoreTask::Wait) => panic!("{task:?}"),
        }
    }
    panic!("it does not end");
}

#[test]
fn a_job_that_is_stopped_does_not_time_out_meanwhile() {
    let mut pool = pool_with([claim(1, after(300))]);
    pool.take(0, at(0)).unwrap();
    pool.handle(Event::Stopped { slot: 0 }, at(100));
    assert!(!pool.handle(Event::Tick, at(5_000)).contains(&Action::Terminate(run_of(0, 1))));
    // The pool stands still with it for a while: that counts once.
    pool.handle(Event::Frozen, at(6_000));
    pool.handle(Event::Thawed { stood: Duration::from_secs(10) }, at(16_000));
    pool.handle(Event::Continued { slot: 0 }, at(20_000));
    assert!(!pool.handle(Event::Tick, at(20_199)).contains(&Action::Terminate(run_of(0, 1))));
    assert!(pool.handle(Event::Tick, at(20_200)).contains(&Action::Terminate(run_of(0, 1))));
}
