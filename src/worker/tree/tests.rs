//! Real processes that hide, hang on and multiply.

use std::time::Duration;

use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, geteuid, waitid};

use super::*;
use crate::worker::child::{Exit, wait_until_exited};
use crate::worker::specimen::{Specimen, pids_of};

/// Longer than any test: an end that waits for it to pass is one that failed.
const LONG: Duration = Duration::from_secs(100);

/// No more than is needed for SIGTERM to do its work, for those that will not do it.
const SHORT: Duration = Duration::from_millis(50);

/// A process that tells its pid and stays, for use in a script.
const STAY: &str = "sh -c 'echo $$; exec sleep 60'";

fn all_ended(ended: usize) -> Ending {
    Ending { ended, remaining: Vec::new() }
}

fn sorted(mut pids: Vec<Pid>) -> Vec<Pid> {
    pids.sort_unstable_by_key(|pid| pid.as_raw_pid());
    pids
}

/// A specimen whose first process has started `command` in the background, ended and been collected; and the pid that
/// the command told.
fn left_behind(command: &str) -> (Specimen, Pid) {
    let mut run = Specimen::sh(&format!("{command} &"));
    let pid = run.pid_line();
    assert_eq!(run.reap().exit, Exit::Code(0));
    (run, pid)
}

#[test]
fn a_process_that_heeds_sigterm_ends_in_its_own_way() {
    let mut run = Specimen::sh(&format!("trap 'echo bye; exit 3' TERM; {STAY} & wait; exit 4"));
    let child = run.pid_line();
    assert_eq!(run.found(Reach::Tree), sorted(vec![run.pid, child]));
    assert_eq!(run.end(Reach::Tree, LONG), all_ended(2));
    assert_eq!(run.text(), "bye\n");
    assert_eq!(run.reap().exit, Exit::Code(3));
}

#[test]
fn those_that_ignore_sigterm_are_killed_after_the_grace() {
    let mut run = Specimen::sh(&format!("trap '' TERM; {STAY} & wait"));
    run.line();
    assert_eq!(run.end(Reach::Group, SHORT), all_ended(2));
    assert_eq!(run.text(), "");
    assert_eq!(run.reap().exit, Exit::Signal(libc::SIGKILL));
}

#[test]
fn without_a_grace_they_are_killed_at_once() {
    let mut run = Specimen::sh("trap 'echo bye' TERM; echo ready; while :; do :; done");
    run.line();
    assert_eq!(run.end(Reach::Tree, Duration::ZERO), all_ended(1));
    assert_eq!(run.text(), "");
}

#[test]
fn a_stopped_process_is_woken_to_end() {
    let mut run = Specimen::sh("kill -STOP $$; exit 5");
    let stopped = waitid(WaitId::Pid(run.pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    assert!(stopped.is_some_and(|status: WaitIdStatus| status.stopped()));
    assert_eq!(run.end(Reach::Group, LONG), all_ended(1));
    assert_eq!(run.reap().exit, Exit::Signal(libc::SIGTERM));
}

#[test]
fn a_process_that_left_the_session_is_found_by_its_token_in_the_tree_only() {
    let (mut run, pid) = left_behind(&format!("setsid {STAY}"));
    assert_eq!(run.found(Reach::Group), []);
    assert_eq!(run.found(Reach::Tree), [pid]);
    assert_eq!(run.found_by_token(), [pid]);
    assert_eq!(run.end(Reach::Group, LONG), all_ended(0));
    assert_eq!(run.end(Reach::Tree, LONG), all_ended(1));
    assert_eq!(run.text(), "");
}

#[test]
fn a_process_that_dropped_its_environment_is_found_by_its_group() {
    let (mut run, pid) = left_behind(&format!("env -i {STAY}"));
    assert_eq!(run.found_by_token(), []);
    assert_eq!(run.found(Reach::Tree), [pid]);
    assert_eq!(run.found(Reach::Group), [pid]);
    assert!(!group_is_gone(run.pid));
    assert_eq!(run.end(Reach::Group, LONG), all_ended(1));
    assert_eq!(run.text(), "");
}

#[test]
fn a_group_of_its_own_in_the_session_of_the_run_is_in_the_tree_only() {
    let (run, pid) = left_behind(&format!("env -i timeout 60 {STAY}"));
    assert_eq!(run.found(Reach::Group), []);
    let found = run.found(Reach::Tree);
    assert!(found.len() == 2 && found.contains(&pid), "timeout and its child: {found:?}");
}

#[test]
fn who_dropped_both_is_found_as_long_as_it_descends_from_the_run() {
    let mut run = Specimen::sh(&format!("(env -i setsid {STAY}; exit 0) & wait"));
    let hidden = run.pid_line();
    assert_eq!(run.found(Reach::Group).len(), 2);
    assert!(run.found(Reach::Tree).contains(&hidden));
    assert_eq!(run.end(Reach::Tree, LONG), all_ended(3));
    assert_eq!(run.text(), "");
}

#[test]
fn who_was_seen_once_is_killed_although_all_that_led_to_it_is_gone() {
    let hidden = "env -i setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 60; done'";
    let mut run = Specimen::sh(&format!("({hidden}; exit 0) & wait"));
    run.line();
    let ending = run.end(Reach::Tree, SHORT);
    assert_eq!(ending.remaining, []);
    assert_eq!(run.text(), "");
}

#[test]
fn the_children_of_who_was_seen_once_are_followed_by_its_session() {
    let respawning = "trap \"\" TERM; echo $$; while :; do env - sh -c \"exit 0\"; done";
    let mut run = Specimen::sh(&format!("(env -i setsid sh -c '{respawning}'; exit 0) & wait"));
    run.line();
    assert_eq!(run.end(Reach::Tree, SHORT).remaining, []);
    assert_eq!(run.text(), "");
}

#[test]
fn a_zombie_is_not_found_but_keeps_its_group() {
    let mut run = Specimen::sh("exit 0");
    wait_until_exited(run.pid).unwrap();
    assert_eq!(run.found(Reach::Tree), []);
    assert_eq!(run.end(Reach::Tree, LONG), all_ended(0));
    assert!(!group_is_gone(run.pid));
    run.reap();
    assert!(group_is_gone(run.pid));
}

#[test]
fn the_group_of_a_zombie_is_still_its_own() {
    let mut run = Specimen::sh(&format!("env -i {STAY} &"));
    let pid = run.pid_line();
    wait_until_exited(run.pid).unwrap();
    assert_eq!(run.found(Reach::Group), [pid]);
    assert_eq!(run.end(Reach::Group, LONG), all_ended(1));
}

/// A shell function that, so many times, starts its successor and ends, and stays at last.
const HOP: &str = "hop() { if [ $1 -gt 0 ]; then hop $(($1 - 1)) & else sleep 60 & fi; }";

#[test]
fn a_tree_that_grows_while_it_is_ended_is_ended_too() {
    for grace in [Duration::ZERO, SHORT] {
        let script = format!("trap '' TERM; {HOP}; echo ready; hop 100 & hop 100 & hop 100; wait");
        let mut run = Specimen::sh(&script);
        run.line();
        assert_eq!(run.end(Reach::Tree, grace).remaining, []);
        assert_eq!(run.text(), "");
    }
}

#[test]
fn a_tree_that_only_ever_moves_on_is_seen_by_every_look() {
    let mut run = Specimen::sh(&format!("{HOP}; echo ready; hop 900"));
    run.line();
    for _ in 0..20 {
        assert_ne!(run.found(Reach::Tree), []);
    }
}

#[test]
fn a_tree_larger_than_the_pidfds_held_at_once_is_ended() {
    let size = PIDFDS_MAX + 10;
    let mut run = Specimen::sh(&format!("for i in $(seq {size}); do {STAY} & done; wait"));
    for _ in 0..size {
        run.line();
    }
    assert_eq!(run.end(Reach::Tree, LONG), all_ended(size + 1));
    assert_eq!(run.text(), "");
}

#[test]
fn a_pid_that_is_another_process_by_now_is_left_alone() {
    let mut stranger = Specimen::sh(&format!("{STAY} & wait"));
    stranger.line();
    let leader = stranger.mark.leader.clone().unwrap();
    for born in [0..=leader.born.start() - 2, leader.born.end() + 2..=u64::MAX] {
        let mark = Mark { token: b"not theirs".to_vec(), leader: Some(Leader { born, ..leader }) };
        for reach in [Reach::Group, Reach::Tree] {
            assert_eq!(pids_of(std::slice::from_ref(&mark), reach), []);
            assert_eq!(end(std::slice::from_ref(&mark), reach, Asked::NotYet, Duration::ZERO).unwrap(), all_ended(0));
        }
    }
    assert_eq!(stranger.found(Reach::Group).len(), 2);
}

#[test]
fn one_look_serves_many_runs() {
    let mut runs: Vec<Specimen> = (0..3).map(|_| Specimen::sh(&format!("{STAY} & wait"))).collect();
    let children: Vec<Pid> = runs.iter_mut().map(Specimen::pid_line).collect();
    let marks: Vec<Mark> = runs.iter().map(|run| run.mark.clone()).collect();
    let found = find(&marks, Reach::Tree).unwrap();
    for (mark, (run, child)) in runs.iter().zip(&children).enumerate() {
        let its = found.iter().filter(|process| process.mark == mark).map(|process| process.pid).collect();
        assert_eq!(sorted(its), sorted(vec![run.pid, *child]));
    }
    assert_eq!(end(&marks[..2], Reach::Tree, Asked::NotYet, LONG).unwrap(), all_ended(4));
    assert_eq!(runs[2].found(Reach::Tree).len(), 2);
}

#[test]
fn signals_go_to_what_was_found() {
    let mut run = Specimen::sh("trap 'echo hup' HUP; echo ready; while :; do :; done");
    run.line();
    let found = find(std::slice::from_ref(&run.mark), Reach::Group).unwrap();
    assert_eq!(signal(&found, Signal::HUP), []);
    assert_eq!(run.line(), "hup");
    assert_eq!(signal(&found, Signal::KILL), []);
    run.reap();
    assert_eq!(signal(&found, Signal::KILL), [], "that it is gone is no error");
}

#[test]
fn a_process_is_found_from_the_moment_of_its_spawn() {
    for _ in 0..100 {
        let run = Specimen::run(&["sleep", "60"]);
        assert_eq!(run.found_by_token(), [run.pid]);
    }
}

#[test]
fn who_may_not_be_signalled_is_reported() {
    if !geteuid().is_root() {
        println!("skipped: only root can take the part of another user");
        return;
    }
    let run = Specimen::run(&["sleep", "60"]);
    let mark = run.mark.clone();
    let as_nobody = move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        // Of this thread alone: the system call knows nothing of the others.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        end(&[mark], Reach::Tree, Asked::NotYet, LONG).unwrap()
    };
    let ending = std::thread::spawn(as_nobody).join().unwrap();
    let remaining = vec![Remaining { pid: run.pid, mark: 0, why: Why::NotPermitted }];
    assert_eq!(ending, Ending { ended: 0, remaining });
}
