//! What the project this one grew from promised: its commands as it types them, its states, its defaults.

use queuectl::model::StateKind;
use serde_json::json;

use super::support::{Bench, Done};

/// Runs a line as it stands in that description.
fn types(bench: &Bench, line: &str) -> Done {
    bench.script(line).run()
}

#[test]
fn jobs_are_enqueued_as_json() {
    let bench = Bench::new();
    for (line, says) in [
        (r#"queuectl enqueue '{"id":"job1","command":"echo Hello World"}'"#, "✓ Job job1 enqueued\n"),
        (r#"queuectl enqueue '{"id":"job2","command":"sleep 2","max_retries":5}'"#, "✓ Job job2 enqueued\n"),
    ] {
        assert_eq!(types(&bench, line).ok(), says);
    }
    assert_eq!(bench.json("show job1 --json")["max_retries"], 3);
    assert_eq!(bench.json("show job2 --json")["max_retries"], 5);
}

#[test]
fn status_has_a_line_for_every_state_and_the_total() {
    let bench = Bench::new();
    bench.add(r#"{"id":"good","command":"true"}"#);
    bench.add(r#"{"id":"bad","command":"false","max_retries":0}"#);
    bench.work();
    bench.enqueue("true");
    let status = types(&bench, "queuectl status").ok();
    let mut lines = status.lines();
    assert!(lines.next().unwrap().starts_with("Queue Status"), "{status}");
    let counts: Vec<Vec<&str>> = lines.take(9).map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        ["scheduled", "0"],
        ["blocked", "0"],
        ["pending", "1"],
        ["processing", "0"],
        ["failed", "0"],
        ["completed", "1"],
        ["dead", "1"],
        ["cancelled", "0"],
        ["Total", "3"],
    ];
    assert_eq!(counts, expected, "{status}");
    assert!(status.contains("No pool is running"), "{status}");
}

#[test]
fn a_job_succeeds_and_is_listed_as_completed() {
    let bench = Bench::new();
    types(&bench, r#"queuectl enqueue '{"id":"test1","command":"echo success"}'"#).ok();
    let mut worker = bench.cmd(["worker", "start"]).start();
    assert!(worker.line().starts_with("✓ test1 completed"));
    let listed = types(&bench, "queuectl list --state completed").ok();
    assert!(listed.contains("test1") && listed.contains("echo success"), "{listed}");
    assert_eq!(types(&bench, "queuectl worker stop").ok(), "✓ 1 pool stopped\n");
    assert_eq!(worker.wait(), (0, String::new()));
    assert_eq!(bench.ok("logs test1"), "success\n");
    bench.check();
}

#[test]
fn a_failed_job_waits_two_seconds_by_default() {
    let bench = Bench::new();
    types(&bench, r#"queuectl enqueue '{"id":"test2","command":"exit 1","max_retries":3}'"#).ok();
    let worker = bench.cmd(["worker", "start"]).start();
    let mut job = json!(null);
    bench.until("test2 has failed", || {
        job = bench.json("show test2 --json");
        job["state"] == "failed"
    });
    bench.ok("worker stop");
    assert_eq!(worker.wait().0, 0);
    let at = |time: &serde_json::Value| humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    let waits = at(&job["next_run_at"]).duration_since(at(&job["history"][0]["ended_at"])).unwrap();
    assert_eq!(waits.as_millis(), 2_000);
    assert_eq!((&job["attempts"], &job["exit_code"]), (&json!(1), &json!(1)));
}

#[test]
fn failed_jobs_are_listed_with_their_next_try() {
    let bench = Bench::new();
    bench.add(r#"{"id":"test2","command":"exit 1","max_retries":3,"backoff_base":900}"#);
    let worker = bench.cmd(["worker", "start"]).start();
    bench.until_state("test2", "failed");
    bench.ok("worker stop");
    assert_eq!(worker.wait().0, 0);
    let listed = types(&bench, "queuectl list --state failed").ok();
    assert!(listed.contains("test2") && listed.contains("1/4") && listed.contains("retry in 14m 5"), "{listed}");
}

#[test]
fn retries_wait_the_base_to_the_power_of_the_failures() {
    let bench = Bench::new();
    bench.add(r#"{"id":"j","command":"exit 1","backoff_base":0.4}"#);
    assert_eq!(bench.work().code, 1);
    let job = bench.json("show j --json");
    assert_eq!((&job["state"], &job["attempts"]), (&json!("dead"), &json!(4)));
    let runs = job["history"].as_array().unwrap();
    let at = |time: &serde_json::Value| humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    for (pair, least) in runs.windows(2).zip([400, 160, 64]) {
        let waited = at(&pair[1]["started_at"]).duration_since(at(&pair[0]["ended_at"])).unwrap();
        assert!(waited.as_millis() >= least, "{waited:?} after {}", pair[0]);
    }
}

#[test]
fn what_keeps_failing_moves_to_the_dlq_and_comes_back() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0");
    types(&bench, r#"queuectl enqueue '{"id":"test3","command":"nonexistent-command","max_retries":2}'"#).ok();
    assert_eq!(bench.work().code, 1);
    let listed = types(&bench, "queuectl dlq list").ok();
    assert!(listed.contains("test3") && listed.contains("dead") && listed.contains("3/3"), "{listed}");
    assert_eq!(bench.json("show test3 --json")["exit_code"], 127);
    assert_eq!(types(&bench, "queuectl dlq retry test3").ok(), "✓ Job test3 will run again\n");
    assert_eq!(bench.state("test3"), "pending");
    assert_eq!(types(&bench, "queuectl dlq list").ok(), "No jobs are dead\n");
}

#[test]
fn three_workers_run_three_jobs_at_once() {
    let bench = Bench::new();
    // A ring: with fewer workers none of them would end.
    bench.script("mkfifo a b c").run().ok();
    bench.add(r#"{"id":"job1","command":"echo go > a; read x < c"}"#);
    bench.add(r#"{"id":"job2","command":"read x < a; echo go > b"}"#);
    bench.add(r#"{"id":"job3","command":"read x < b; echo go > c"}"#);
    types(&bench, "queuectl worker start --count 3 --until-empty").ok();
    assert_eq!(bench.json("status --json")["jobs"]["completed"], 3);
}

#[test]
fn jobs_survive_when_workers_stop_and_start() {
    let bench = Bench::new();
    types(&bench, r#"queuectl enqueue '{"id":"persist1","command":"echo test"}'"#).ok();
    assert_eq!(types(&bench, "queuectl worker stop").ok(), "No pool is running\n");
    assert!(types(&bench, "queuectl list").ok().contains("persist1"));
    types(&bench, "queuectl worker start --until-empty").ok();
    assert_eq!(bench.state("persist1"), "completed");
}

#[test]
fn configuration_is_kept() {
    let bench = Bench::new();
    for (line, says) in [
        ("queuectl config get max-retries", "3\n"),
        ("queuectl config get backoff-base", "2\n"),
        ("queuectl config get timeout", "30s\n"),
        ("queuectl config set max-retries 5", "✓ max-retries = 5\n"),
        ("queuectl config set backoff-base 2.5", "✓ backoff-base = 2.5\n"),
        ("queuectl config get max-retries", "5\n"),
        ("queuectl config get backoff-base", "2.5\n"),
    ] {
        assert_eq!(types(&bench, line).ok(), says, "{line}");
    }
    let listed = types(&bench, "queuectl config list").ok();
    let values: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert!(values.contains(&vec!["max-retries", "5"]) && values.contains(&vec!["backoff-base", "2.5"]), "{listed}");
    // A job that set nothing itself follows.
    bench.add(r#"{"id":"job1","command":"true"}"#);
    assert_eq!(bench.json("show job1 --json")["max_retries"], 5);
}

#[test]
fn every_state_can_be_asked_for() {
    let bench = Bench::new();
    bench.enqueue("true");
    for kind in StateKind::ALL {
        let listed = bench.json(&format!("list --state {} --json", kind.name()));
        assert_eq!(listed.as_array().unwrap().len(), usize::from(kind == StateKind::Pending), "{}", kind.name());
    }
}
