//! Queues: settings and limits of their own, `pause` and `resume`.

use serde_json::{Value, json};

use super::support::Bench;

fn queue_of(status: &Value, name: &str) -> Value {
    let queues = status["queues"].as_array().unwrap();
    queues.iter().find(|queue| queue["queue"] == name).cloned().unwrap_or_else(|| panic!("no {name} in {status}"))
}

#[test]
fn a_queue_has_settings_of_its_own() {
    let bench = Bench::new();
    assert_eq!(bench.ok("config set --queue gpu max-retries 0"), "✓ max-retries = 0 in queue gpu\n");
    bench.ok("config set max-retries 7");
    assert_eq!(bench.ok("config get --queue gpu max-retries"), "0\n");
    assert_eq!(bench.ok("config get max-retries"), "7\n");
    assert_eq!(bench.ok("config get --queue other max-retries"), "7\n");
    let listed = bench.ok("config list --queue gpu");
    assert!(
        listed.lines().any(|line| line.trim_start().starts_with("timeout") && line.contains("default")),
        "{listed}"
    );
    bench.add(r#"{"id":"once","command":"exit 1","queue":"gpu"}"#);
    bench.work();
    assert_eq!((bench.state("once"), bench.json("show once --json")["attempts"].clone()), ("dead".into(), json!(1)));
    assert_eq!(bench.ok("config unset --queue gpu max-retries"), "✓ max-retries = 7 in queue gpu (as all queues)\n");
    bench
        .run("config set --queue gpu parallel 0")
        .says(2, &["parallel does not take `0`", "from 1 to 1000000, or `none`"]);
    bench.check();
}

#[test]
fn a_limit_holds_over_all_pools() {
    let bench = Bench::new();
    bench.ok("config set --queue gpu parallel 2");
    // Each counts those that run beside it by its own folder.
    let job = "mkdir held.$QUEUECTL_JOB_ID; ls -d held.* | wc -l >> seen; sleep 0.05; rmdir held.$QUEUECTL_JOB_ID";
    let line = json!({"command": job, "queue": "gpu"}).to_string();
    let lines = format!("{line}\n").repeat(30);
    bench.cmd(["enqueue", "--file", "-"]).stdin(lines).run().ok();
    let pools: Vec<_> = (0..3).map(|_| bench.cmd("worker start --count 4 --until-empty".split(' ')).start()).collect();
    for pool in pools {
        assert_eq!(pool.wait().0, 0);
    }
    let seen: Vec<u32> = bench.text("seen").lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(seen.len(), 30);
    assert!(seen.iter().all(|beside| *beside <= 2), "{seen:?}");
    assert_eq!(queue_of(&bench.json("status --json"), "gpu")["jobs"]["completed"], 30);
    bench.check();
}

#[test]
fn what_is_paused_waits_and_all_else_goes_on() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"echo a >> ran","queue":"gpu"}"#);
    bench.add(r#"{"id":"b","command":"echo b >> ran"}"#);
    assert_eq!(bench.ok("pause --queue gpu"), "✓ Queue gpu paused: 1 job waiting\n");
    bench.work().says_too("what is left is paused (1 job");
    assert_eq!(bench.text("ran"), "b\n");
    let status = bench.json("status --json");
    assert_eq!(queue_of(&status, "gpu")["paused"], true);
    assert!(bench.ok("status").contains("queuectl resume --queue gpu"));
    assert_eq!(bench.ok("resume --queue gpu"), "✓ Queue gpu resumed: 1 job waiting\n");
    bench.work();
    assert_eq!(bench.text("ran"), "b\na\n");
    bench.check();
}

#[test]
fn one_queue_goes_on_while_all_are_paused() {
    let bench = Bench::new();
    bench.ok("enqueue -c true");
    bench.ok("pause");
    bench.add(r#"{"id":"gpu","command":"true","queue":"gpu"}"#);
    bench.ok("resume --queue gpu");
    bench.work();
    assert_eq!((bench.state("gpu"), bench.state("1")), ("completed".into(), "pending".into()));
    // Pausing all of them means that one, too.
    bench.ok("pause");
    assert_eq!(queue_of(&bench.json("status --json"), "gpu")["paused"], true);
    assert_eq!(bench.ok("resume"), "✓ All queues resumed: 1 job waiting\n");
    bench.work();
    assert_eq!(bench.state("1"), "completed");
    bench.run("pause --queue nowhere").says_too("queue nowhere has no jobs");
    bench.check();
}

#[test]
fn a_waiting_pool_goes_on_when_its_queue_is_resumed() {
    let bench = Bench::new();
    bench.ok("enqueue -c true");
    bench.ok("pause");
    let _pool = bench.pool("--count 2");
    bench.ok("resume");
    bench.until_state("1", "completed");
    bench.ok("worker stop");
}
