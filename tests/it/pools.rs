//! `worker start`, `worker stop` and `worker list`, as far as no signals are needed.

use serde_json::json;

use super::support::{Bench, has_fields};

#[test]
fn a_pool_in_the_foreground_logs_a_line_for_each_attempt() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    for (id, command, max_retries) in [("good", "echo not shown", 0), ("bad", "exit 3", 1), ("lost", "kill -9 $$", 0)] {
        bench.add(&json!({"id": id, "command": command, "max_retries": max_retries}).to_string());
    }
    let done = bench.work();
    assert_eq!(done.code, 1, "a job died");
    let text = done.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (start, end) in [
        ("✓ good completed in ", "s"),
        ("· bad failed in ", "(exit code 3), retry in 10ms"),
        ("✗ bad failed in ", "(exit code 3), dead"),
        ("✗ lost failed in ", "(killed by signal 9 (SIGKILL)), dead"),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start) && line.ends_with(end)), "{start}…{end}: {text}");
    }
}

#[test]
fn until_empty_is_done_at_once_when_nothing_is_there() {
    let bench = Bench::new();
    bench.ok("config set max-retries 3");
    let done = bench.work();
    assert!(done.stderr.ends_with("queuectl: pool ended: nothing is left to do\n"), "{done:?}");
    assert_eq!(done.ok(), "");
}

#[test]
fn until_empty_waits_for_retries() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"[ $QUEUECTL_ATTEMPT = 3 ]","backoff_base":0.1}"#);
    bench.work().ok();
    assert_eq!(bench.json("show a --json")["attempts"], 3);
}

#[test]
fn a_pool_serves_the_queues_that_it_is_given() {
    let bench = Bench::new();
    for queue in ["a", "b", "c"] {
        bench.add(&json!({"id": queue, "command": "true", "queue": queue}).to_string());
    }
    let done = bench.run("worker start --queue a --queue c --until-empty");
    assert!(done.stderr.ends_with("what is left is not for this pool (1 job; see queuectl status)\n"), "{done:?}");
    done.ok();
    let states = ["a", "b", "c"].map(|id| bench.state(id));
    assert_eq!(states, ["completed", "pending", "completed"]);
    // Without --queue it serves all.
    bench.work().ok();
    assert_eq!(bench.state("b"), "completed");
}

#[test]
fn queues_are_served_in_turn() {
    let bench = Bench::new();
    for n in 1..=3 {
        for queue in ["a", "b"] {
            bench.add(&json!({"id": format!("{queue}{n}"), "command": "true", "queue": queue}).to_string());
        }
        bench.add(&json!({"id": format!("a{n}x"), "command": "true", "queue": "a"}).to_string());
    }
    let text = bench.work().ok();
    let order: Vec<&str> = text.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(order, ["a1", "b1", "a1x", "b2", "a2", "b3", "a2x", "a3", "a3x"]);
}

#[test]
fn jobs_of_a_queue_run_in_the_order_of_enqueueing() {
    let bench = Bench::new();
    let lines: Vec<String> = (1..=40).map(|n| format!("echo {n} >> order\n")).collect();
    bench.cmd(["enqueue", "-"]).stdin(lines.concat()).run().ok();
    bench.work().ok();
    let order = std::fs::read_to_string(bench.path().join("order")).unwrap();
    assert_eq!(order, (1..=40).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat());
}

#[test]
fn a_detached_pool_goes_on_without_its_terminal_and_keeps_a_log() {
    let bench = Bench::new();
    bench.enqueue("tty < /dev/tty || readlink /proc/self/fd/0");
    let started = bench.ok("worker start --detach --count 2");
    assert!(started.starts_with("✓ Pool ") && started.contains(" started in the background (process "), "{started}");
    bench.until_state("1", "completed");
    assert_eq!(bench.ok("logs --stdout 1"), "/dev/null\n");
    let pools = bench.json("worker list --json");
    has_fields(&pools[0], "id pid started_at workers queues running log state ended_at end");
    assert_eq!(
        (&pools[0]["workers"], &pools[0]["state"], &pools[0]["ended_at"]),
        (&json!(2), &json!("working"), &json!(null))
    );
    let log = pools[0]["log"].as_str().unwrap();
    assert!(started.contains(log) && bench.ok("worker list").contains(pools[0]["id"].as_str().unwrap()));
    let text = || std::fs::read_to_string(log).unwrap();
    bench.until("the log tells of the job", || text().contains("✓ 1 completed in"));
    assert!(text().contains("2 workers"), "{}", text());
    assert_eq!(bench.ok("worker stop"), "✓ 1 pool stopped\n");
    let pools = bench.json("worker list --json");
    assert_eq!((&pools[0]["state"], &pools[0]["end"]), (&json!("ended"), &json!("stopped")));
    assert_eq!(bench.ok("worker list"), "No pool is running\n");
}

#[test]
fn stop_ends_all_pools_and_none_is_fine_too() {
    let bench = Bench::new();
    bench.ok("config set max-retries 3");
    let pools = [1, 2].map(|_| bench.cmd(["worker", "start"]).start());
    bench.until("two pools run", || bench.json("worker list --json").as_array().unwrap().len() == 2);
    assert_eq!(bench.ok("worker stop"), "✓ 2 pools stopped\n");
    for pool in pools {
        assert_eq!(pool.wait(), (0, String::new()));
    }
    assert_eq!(bench.ok("worker stop"), "No pool is running\n");
}

#[test]
fn stop_waits_for_what_runs_but_no_longer_than_asked() {
    let bench = Bench::new();
    bench.script("mkfifo go").run().ok();
    let id = bench.enqueue("echo yes > started; read x < go");
    let pool = bench.cmd(["worker", "start"]).start();
    bench.until_file("started");
    let done = bench.run("worker stop --timeout 50ms");
    assert!(done.stderr.contains("waiting for 1 job to finish"), "{done:?}");
    done.says(6, &["timed out; 1 pool still running", "try: queuectl worker stop --now"]);
    bench.script("echo > go").run().ok();
    assert_eq!(pool.wait().0, 0);
    assert_eq!(bench.state(&id), "completed");
}

#[test]
fn stop_leaves_runs_alone_and_says_how_to_end_them() {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    bench.script("mkfifo go").run().ok();
    let run = bench.cmd(["run", "-q", "--", "sh", "-c", "echo yes > started; read x < go; echo done"]).start();
    bench.until_file("started");
    let done = bench.run("worker stop");
    assert!(done.stderr.contains(&format!("kill -INT {}", run.pid())), "{done:?}");
    assert_eq!(done.ok(), "No other pool is running\n");
    bench.script("echo > go").run().ok();
    assert_eq!(run.wait(), (0, "done\n".to_owned()));
}
