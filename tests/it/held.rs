//! Jobs that a person holds back: `pause ID`, `resume ID`.

use serde_json::Value;

use super::support::Bench;

#[test]
fn a_paused_job_waits_until_it_is_resumed() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"echo a >> ran"}"#);
    bench.add(r#"{"id":"b","command":"echo b >> ran"}"#);
    assert_eq!(bench.ok("pause a"), "✓ Job a held\n");
    bench.work().says_too("what is left is paused (1 job");
    assert_eq!(bench.text("ran"), "b\n");
    let shown = bench.json("show a --json");
    assert_eq!(
        (&shown["state"], &shown["held"], &shown["next_run_at"]),
        (&"scheduled".into(), &true.into(), &Value::Null)
    );
    assert!(bench.ok("list").contains("held; queuectl resume a"));
    assert!(bench.ok("show a").contains("held; queuectl resume a"));
    bench.ok("pause a");
    bench.run("resume a b").says(4, &["job b", "completed", "queuectl retry b"]);
    assert_eq!(bench.ok("resume a"), "✓ Job a resumed\n");
    bench.work().ok();
    assert_eq!(bench.text("ran"), "b\na\n");
    bench.check();
}

#[test]
fn what_cannot_wait_is_refused() {
    let bench = Bench::new();
    bench.add(r#"{"id":"done","command":"true"}"#);
    bench.work();
    bench.add(r#"{"id":"runs","command":"echo > started; exec sleep 1000"}"#);
    bench.add(r#"{"id":"waits","command":"true"}"#);
    let _pool = bench.pool("--count 1");
    bench.until_file("started");
    bench.run("pause waits runs").says(4, &["job runs", "processing", "cannot be held", "queuectl cancel runs"]);
    bench.run("pause waits done").says(4, &["job done", "completed", "queuectl retry done"]);
    bench.run("resume runs").says(4, &["cannot be resumed"]);
    bench.run("pause waits nobody").says(3, &["there is no job nobody"]);
    bench.run("pause waits --queue default").says(2, &["cannot be used with"]);
    bench.run("pause waits --state pending").says(2, &["cannot be used with"]);
    assert_eq!(bench.json("show waits --json")["held"], false, "all or none");
    bench.ok("pause waits");
    bench.ok("cancel runs");
    bench.ok("resume waits");
    bench.until_state("waits", "completed");
    bench.ok("worker stop");
    bench.check();
}

#[test]
fn a_retry_that_is_held_keeps_its_failures_and_its_time() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"exit 3","max_retries":1,"backoff_base":1000}"#);
    let _pool = bench.pool("--count 1");
    bench.until_state("a", "failed");
    bench.ok("pause a");
    assert_eq!(bench.state("a"), "scheduled");
    bench.ok("resume a");
    let shown = bench.json("show a --json");
    assert_eq!((&shown["state"], &shown["attempts"]), (&"scheduled".into(), &1.into()));
    assert!(shown["next_run_at"].is_string(), "{shown}");
    assert!(shown["why"].as_str().unwrap().starts_with("starts at "), "{shown}");
    bench.ok("worker stop");
    bench.check();
}

#[test]
fn a_run_with_a_held_job_ends_and_goes_on_later() {
    let bench = Bench::new();
    let lines =
        "{\"id\":\"a\",\"command\":\"queuectl pause b > said\"}\n{\"id\":\"b\",\"command\":\"true\",\"after\":\"a\"}\n";
    std::fs::write(bench.file("jobs"), lines).unwrap();
    let run = || bench.script("queuectl run jobs");
    run().run().says(1, &["1 completed, 1 to go", "cannot go on without you", "queuectl resume ID"]);
    bench.ok("resume b");
    run().run().says(0, &["continuing run 1", "2 completed"]);
    bench.check();
}

/// The ids of the jobs that are held, with spaces between them.
fn held(bench: &Bench) -> String {
    let jobs = bench.json("list --sort oldest --json");
    let held = jobs.as_array().unwrap().iter().filter(|job| job["held"] == true);
    held.map(|job| job["id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_filter_means_jobs_and_a_queue_alone_means_itself() {
    let bench = Bench::new();
    bench.add(r#"{"id":"done","command":"true","tags":{"x":"1"}}"#);
    bench.work().ok();
    for job in [
        r#"{"id":"a","command":"true","tags":{"x":"1"}}"#,
        r#"{"id":"b","command":"true","tags":{"x":"1"},"queue":"gpu"}"#,
        r#"{"id":"c","command":"true","name":"n","queue":"gpu","delay":"1h"}"#,
        r#"{"id":"d","command":"true","name":"n","after":"a"}"#,
    ] {
        bench.add(job);
    }
    for (line, said, left_out, now) in [
        ("pause --tag x=1", "✓ 2 jobs held\n", "left out: 1 job running, ended, or held already", "a b"),
        ("pause --tag x=1", "Nothing was held\n", "left out: 3 jobs", "a b"),
        ("pause --queue gpu --name n", "✓ 1 job held\n", "", "a b c"),
        ("resume --queue gpu --state scheduled", "✓ 2 jobs resumed\n", "", "a"),
        ("pause --state blocked,completed", "✓ 1 job held\n", "left out: 1 job", "a d"),
        ("resume --since 1h", "✓ 2 jobs resumed\n", "left out: 3 jobs not held", ""),
        ("pause --queue gpu", "✓ Queue gpu paused: 2 jobs waiting\n", "", ""),
        ("resume --queue gpu --yes", "✓ Queue gpu resumed: 2 jobs waiting\n", "", ""),
        ("pause --queue later", "✓ Queue later paused: 0 jobs waiting\n", "queue later has no jobs", ""),
    ] {
        let done = bench.run(line);
        assert!(done.stderr.contains(left_out), "{line}: {done:?}");
        assert_eq!(done.ok(), said, "{line}");
        assert_eq!(held(&bench), now, "{line}");
    }
    assert_eq!(bench.state("c"), "scheduled", "its time has not come");
    bench.run("pause --queue gpu --queue default --tag x=1").says(2, &["give one --queue"]);
    bench.run("pause --queue nope --tag x=1").says(3, &["there is no queue nope"]);
    bench.check();
}
