//! Removing jobs, and what becomes of those who look at them.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::Bench;

/// A queue with jobs that have ended in each way, `big` with large outputs of two attempts, and one that waits.
fn mixed() -> Bench {
    let bench = Bench::new();
    let big = "head -c 5000 /dev/zero; head -c 5000 /dev/zero >&2; test $QUEUECTL_ATTEMPT = 2";
    bench.add(&json!({"id": "big", "command": big, "backoff_base": 0}).to_string());
    bench.add(r#"{"id":"bad","command":"echo oh; exit 1","max_retries":0}"#);
    assert_eq!(bench.work().code, 1);
    bench.add(r#"{"id":"off","command":"true"}"#);
    bench.ok("cancel off");
    bench.add(r#"{"id":"waits","command":"true"}"#);
    bench
}

fn files(bench: &Bench) -> usize {
    fs::read_dir(bench.queue().join("output/0")).map_or(0, Iterator::count)
}

#[test]
fn ended_jobs_go_with_everything_of_theirs() {
    let bench = mixed();
    assert_eq!(files(&bench), 4);
    assert_eq!(bench.ok("remove big bad big off"), "✓ Job big removed\n✓ Job bad removed\n✓ Job off removed\n");
    assert_eq!(files(&bench), 0);
    for line in ["show big", "logs big", "wait big", "remove big"] {
        bench.run(line).says(3, &["no job big", "\n  try: queuectl list"]);
    }
    assert_eq!(bench.json("list --json").as_array().unwrap().len(), 1);
    bench.check();
    // The name is free, the number is not.
    bench.add(r#"{"id":"big","command":"echo small"}"#);
    assert_eq!(bench.enqueue("true"), "6");
    bench.work().ok();
    assert_eq!(bench.ok("logs big"), "small\n");
}

#[test]
fn what_has_not_ended_is_refused_and_nothing_is_removed_with_it() {
    let bench = mixed();
    let before = bench.json("list --json");
    bench
        .run("remove bad waits")
        .says(4, &["job waits: a job that is pending cannot be removed", "try: queuectl cancel waits"]);
    bench.run("remove bad nobody").says(3, &["no job nobody"]);
    bench.run("remove").fails(2);
    assert_eq!((bench.json("list --json"), files(&bench)), (before, 4));
    bench.gate("gate");
    let id = bench.enqueue(": <gate");
    let pool = bench.pool("");
    bench.until_state(&id, "processing");
    bench.run(&format!("remove {id}")).says(4, &["a job that is processing cannot be removed"]);
    drop(pool);
}

#[test]
fn an_output_left_over_by_a_removal_that_was_killed_is_named() {
    let bench = mixed();
    let kept = fs::read_dir(bench.queue().join("output/0")).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept.map(|path| (fs::read(&path).unwrap(), path)).collect();
    bench.ok("remove big");
    assert_eq!(bench.run("check").stderr, "");
    for (bytes, path) in &kept {
        fs::write(path, bytes).unwrap();
    }
    // What belongs to no job yet is the business of the pool that makes it.
    fs::write(bench.queue().join("output/0/99.1.out"), b"to come").unwrap();
    let check = bench.run("check");
    assert_eq!(
        check.stderr.matches("is of no job any more, unless an import is at work: delete it").count(),
        4,
        "{check:?}"
    );
    check.ok();
    for (_, path) in &kept {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(bench.json("check --json")["warnings"], json!([]));
}

#[test]
fn whoever_waits_for_a_job_learns_that_it_went_away() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    bench.add(r#"{"id":"a","command":"echo begun; : <gate"}"#);
    // Both stand still while the job ends and is removed.
    let mut waiter = bench.cmd(["wait", "a"]).spawn();
    waiter.stderr.until("which no pool serves");
    waiter.stop_outside_transactions();
    let pool = bench.pool("");
    let mut follower = bench.cmd(["logs", "-f", "a"]).spawn();
    follower.stdout.until("begun");
    follower.stop_outside_transactions();
    bench.open(&gate);
    bench.until_state("a", "completed");
    bench.ok("remove a");
    for process in [&follower, &waiter] {
        process.signal(Signal::SIGCONT);
    }
    let output_end = follower.wait();
    assert!(output_end.stderr.contains("the job was removed meanwhile"), "{output_end:?}");
    assert_eq!(output_end.code, 3);
    let end = waiter.wait();
    assert!(end.stderr.contains("1 job went away before it was seen whether they completed"), "{end:?}");
    assert_eq!(end.code, 3);
    drop(pool);
}

#[test]
fn a_run_goes_with_its_last_job_and_its_line_begins_anew() {
    let bench = Bench::new();
    fs::write(bench.file("jobs"), "true\nexit 1\n").unwrap();
    let line = "run --max-retries 0 jobs";
    assert_eq!(bench.run(line).code, 1);
    bench.ok("remove 1");
    let again = bench.run(line);
    assert!(
        again.stderr.contains("run 1 of this input has ended (1 dead); beginning anew (--resume skips what completed)"),
        "{again:?}"
    );
    bench.ok("remove 2 3 4");
    let third = bench.run(line);
    assert!(
        !third.stderr.contains("beginning anew") && third.stderr.contains("run 3: 1 completed, 1 dead"),
        "{third:?}"
    );
    bench.check();
}

#[test]
fn a_run_whose_jobs_are_removed_meanwhile_does_not_claim_that_they_completed() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    bench.ok("config set max-retries 0");
    fs::write(bench.file("jobs"), "exit 1\necho x >began; : <gate\n").unwrap();
    let run = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    bench.until_file("began");
    bench.until_state("1", "dead");
    bench.ok("remove 1");
    bench.open(&gate);
    let done = run.wait();
    assert!(done.stderr.contains("run 1: 1 completed, 1 removed in"), "{done:?}");
    assert_eq!(done.code, 1);
}
