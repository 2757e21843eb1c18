//! `cancel`, `retry` and the dead letter queue.

use serde_json::json;

use super::support::{Bench, lives};

/// A queue with a completed job, two dead ones and a pending one.
fn mixed() -> Bench {
    let bench = Bench::new();
    bench.add(r#"{"id":"good","command":"true"}"#);
    bench.add(r#"{"id":"bad1","command":"exit 1","max_retries":0}"#);
    bench.add(r#"{"id":"bad2","command":"exit 2","max_retries":0}"#);
    assert_eq!(bench.work().code, 1);
    bench.add(r#"{"id":"later","command":"true"}"#);
    bench
}

#[test]
fn a_refused_verb_changes_nothing_and_names_the_job() {
    let bench = mixed();
    let before = bench.json("list --json");
    for (line, code, says) in [
        ("cancel nobody", 3, "no job nobody"),
        ("cancel later nobody", 3, "no job nobody"),
        ("cancel good", 4, "job good"),
        ("cancel later bad1", 4, "job bad1"),
        ("retry nobody", 3, "no job nobody"),
        ("retry bad1 nobody", 3, "no job nobody"),
        ("retry later", 4, "job later"),
        ("retry bad1 bad2 later", 4, "job later"),
        ("dlq retry bad1 nobody", 3, "no job nobody"),
        ("dlq retry bad1 later", 4, "job later"),
    ] {
        bench.run(line).says(code, &[says, "\n  try: queuectl "]);
        assert_eq!(bench.json("list --json"), before, "{line}");
    }
    bench.check();
}

#[test]
fn a_job_that_has_not_ended_is_not_retried_and_what_is_right_is_said() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 1000");
    bench.gate("gate");
    bench.add(r#"{"id":"runs","command":": <gate"}"#);
    bench.add(r#"{"id":"fails","command":"exit 1"}"#);
    let pool = bench.pool("--count 2");
    bench.until_state("runs", "processing");
    bench.until_state("fails", "failed");
    bench.add(r#"{"id":"later","command":"true","delay":"1h"}"#);
    bench.add(r#"{"id":"held","command":"true","delay":"1h"}"#);
    bench.ok("pause held");
    bench.add(r#"{"id":"waits","command":"true","after":"later"}"#);
    for (id, says, next) in [
        ("runs", "a job that is processing", "queuectl cancel runs    ends it, then the same line again"),
        ("fails", "a job that is failed", "queuectl edit fails --delay 0s    tries it again now"),
        ("later", "a job that is scheduled", "queuectl edit later --delay 0s    starts it now"),
        ("held", "a job that is scheduled cannot be retried; it is held", "queuectl resume held"),
        ("waits", "a job that is blocked", "queuectl show waits    tells why it does not run now"),
    ] {
        bench.run(&format!("retry {id}")).says(4, &[&format!("job {id}: {says}"), &format!("\n  try: {next}\n")]);
    }
    drop(pool);
}

#[test]
fn lines_about_a_job_tell_its_name() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"exit 1","max_retries":0,"name":"nightly"}"#);
    let worked = bench.work();
    assert!(worked.text().starts_with("✗ a (nightly) failed in "));
    assert_eq!(bench.ok("retry a"), "✓ Job a (nightly) will run again\n");
    assert_eq!(bench.ok("cancel a"), "✓ Job a (nightly) cancelled\n");
    assert_eq!(bench.ok("remove a"), "✓ Job a (nightly) removed\n");
}

#[test]
fn waiting_jobs_are_cancelled_for_good() {
    let bench = Bench::new();
    for id in ["a", "b"] {
        bench.add(&json!({"id": id, "command": "touch ran"}).to_string());
    }
    assert_eq!(bench.ok("cancel a b a"), "✓ Job a cancelled\n✓ Job b cancelled\n");
    bench.work().ok();
    assert!(!bench.path().join("ran").exists());
    assert_eq!(bench.json("status --json")["jobs"]["cancelled"], 2);
    assert_eq!(bench.json("list --json")[0]["attempts"], 0);
    bench.check();
}

#[test]
fn a_running_job_is_ended_with_all_its_processes() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"sleep 1000 & echo $! > pid.new; mv pid.new pid; wait"}"#);
    let mut pool = bench.cmd(["worker", "start"]).start();
    let pid: i32 = bench.until_file("pid").trim().parse().unwrap();
    assert_eq!(bench.ok("cancel a"), "✓ Job a cancelled\n");
    assert!(!lives(pid));
    let line = pool.line();
    assert!(line.contains("a cancelled"), "{line}");
    let job = bench.json("show a --json");
    assert_eq!((&job["state"], &job["history"][0]["outcome"]), (&json!("cancelled"), &json!("cancelled")));
    bench.ok("worker stop");
    assert_eq!(pool.wait().0, 0);
    bench.check();
}

#[test]
fn ended_jobs_get_a_fresh_set_of_attempts_and_keep_their_history() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    bench.add(r#"{"id":"a","command":"exit 1","max_retries":1}"#);
    assert_eq!(bench.work().code, 1);
    assert_eq!(bench.ok("retry a"), "✓ Job a will run again\n");
    let job = bench.json("show a --json");
    assert_eq!((&job["state"], &job["attempts"], &job["reason"]), (&json!("pending"), &json!(2), &json!(null)));
    assert_eq!(bench.work().code, 1);
    let job = bench.json("show a --json");
    assert_eq!((&job["state"], &job["attempts"]), (&json!("dead"), &json!(4)));
    assert_eq!(job["history"].as_array().unwrap().len(), 4);
    bench.check();
}

#[test]
fn cancelled_jobs_can_be_retried() {
    let bench = Bench::new();
    let id = bench.enqueue("true");
    bench.ok(&format!("cancel {id}"));
    bench.ok(&format!("retry {id}"));
    bench.work().ok();
    assert_eq!(bench.state(&id), "completed");
}

#[test]
fn several_or_all_of_the_dead_can_be_retried() {
    for (line, says) in [
        ("retry bad1 bad2", "✓ Job bad1 will run again\n✓ Job bad2 will run again\n"),
        ("dlq retry bad1 bad2", "✓ Job bad1 will run again\n✓ Job bad2 will run again\n"),
        ("retry --all-dead", "✓ 2 jobs will run again\n"),
        ("dlq retry --all", "✓ 2 jobs will run again\n"),
    ] {
        let bench = mixed();
        assert_eq!(bench.ok(line), says);
        let jobs = &bench.json("status --json")["jobs"];
        assert_eq!((&jobs["dead"], &jobs["pending"], &jobs["completed"]), (&json!(0), &json!(3), &json!(1)), "{line}");
        bench.check();
    }
}

#[test]
fn an_empty_dead_letter_queue_says_so() {
    let bench = Bench::new();
    bench.enqueue("true");
    for line in ["retry --all-dead", "dlq retry --all"] {
        assert_eq!(bench.ok(line), "No jobs are dead\n");
    }
}
