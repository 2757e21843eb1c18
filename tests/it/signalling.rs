//! `signal`: who gets it, and what it does to timeouts.

use serde_json::json;

use super::support::{Bench, state_letter};

#[test]
fn every_process_of_the_group_gets_it() {
    let bench = Bench::new();
    let trap =
        |name: &str| format!("trap 'echo {name} >>got; exit 0' USR1; echo $$ >>pids; while :; do sleep 0.05; done");
    let command = format!("({}) & {}", trap("child"), trap("parent").replace("exit 0", "wait; exit 0"));
    bench.add(&json!({"id": "a", "command": command, "timeout": "none"}).to_string());
    let pool = bench.pool("");
    bench.until_pids("pids", 2);
    let said = bench.ok("signal USR1 a a");
    assert!(said.starts_with("✓ SIGUSR1 sent to job a (") && said.ends_with(" processes)\n"), "{said}");
    bench.until_state("a", "completed");
    let mut got = bench.lines("got");
    got.sort();
    assert_eq!(got, ["child", "parent"]);
    bench.run("signal USR1 a").says(4, &["job a does not run", "try: queuectl show a"]);
    drop(pool);
    bench.check();
}

#[test]
fn names_and_numbers_are_signals_and_what_is_none_is_told() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.run("signal TREM 1").says(2, &["there is no such signal; did you mean TERM?"]);
    bench.run("signal 77 1").says(2, &["a number from 1 to 31"]);
    bench.run("signal TERM").fails(2);
    bench.run("signal TERM nobody").says(3, &["no job nobody"]);
    bench.run("signal TERM 1").says(4, &["job 1 does not run"]);
    for name in ["sigterm", "TERM", "15"] {
        let id = bench.enqueue("echo $$ >pid; exec sleep 1000");
        let pool = bench.pool("");
        bench.until_file("pid");
        // The rest of them may not have come so far.
        bench.until("it runs", || bench.json("status --json")["workers"][0]["job"] == json!(id));
        let sent = bench.json(&format!("signal {name} {id} --json"));
        assert_eq!(sent, json!([{"id": id, "signal": "SIGTERM", "processes": 1}]));
        bench.until("it died of it", || bench.outcomes(&id).first().is_some_and(|outcome| outcome == "failed"));
        bench.ok(&format!("cancel {id}"));
        drop(pool);
        std::fs::remove_file(bench.file("pid")).unwrap();
        bench.work();
    }
    bench.check();
}

#[test]
fn all_get_it_or_none() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"echo $$ >pid; exec sleep 1000"}"#);
    bench.add(r#"{"id":"b","command":"true","delay":3600}"#);
    let pool = bench.pool("");
    let pid = bench.until_pids("pid", 1)[0];
    bench.run("signal STOP a b").says(4, &["job b does not run"]);
    assert_ne!(state_letter(pid), 'T');
    drop(pool);
}

/// It would have timed out by far.
#[test]
fn a_job_that_is_stopped_does_not_time_out() {
    let bench = Bench::new();
    let command = "echo $$ >pid; while ! test -e go; do sleep 0.05; done";
    bench.add(&json!({"id": "a", "command": command, "timeout": "3s", "max_retries": 0}).to_string());
    let pool = bench.pool("");
    let pid = bench.until_pids("pid", 1)[0];
    bench.ok("signal STOP a");
    bench.until("it stands", || state_letter(pid) == 'T');
    bench.nothing_happens_for(std::time::Duration::from_secs(5));
    assert_eq!((bench.state("a"), state_letter(pid)), ("processing".to_owned(), 'T'));
    std::fs::write(bench.file("go"), "").unwrap();
    bench.ok("signal CONT a");
    bench.until_state("a", "completed");
    // A stopped job can be cancelled all the same.
    bench.add(r#"{"id":"b","command":"echo $$ >pid2; exec sleep 1000"}"#);
    let pid = bench.until_pids("pid2", 1)[0];
    bench.ok("signal STOP b");
    bench.until("it stands", || state_letter(pid) == 'T');
    assert_eq!(bench.ok("cancel b"), "✓ Job b cancelled\n");
    drop(pool);
    bench.check();
}

#[test]
fn of_a_filter_those_that_run_get_it() {
    let bench = Bench::new();
    for id in ["a", "b"] {
        let command = format!("echo $$ >>pids; trap 'echo {id} >>got; exit 0' USR1; while :; do sleep 0.05; done");
        bench.add(&json!({"id": id, "command": command, "tags": {"x": "1"}}).to_string());
    }
    let pool = bench.pool("--count 2");
    bench.until_pids("pids", 2);
    bench.until("both run", || bench.json("status --json")["workers"].as_array().unwrap().len() == 2);
    bench.add(r#"{"id":"c","command":"true","tags":{"x":"1"},"delay":"1h"}"#);
    assert_eq!(bench.json("signal CONT --state scheduled --json"), json!([]));
    let sent = bench.json("signal CONT --tag x=1 --json");
    assert_eq!((&sent[0]["id"], &sent[1]["id"], &sent[1]["signal"]), (&json!("a"), &json!("b"), &json!("SIGCONT")));
    let done = bench.run("signal USR1 --tag x=1");
    assert!(done.stderr.contains("left out: 1 job not running"), "{done:?}");
    let said = done.ok();
    assert!(said.starts_with("✓ SIGUSR1 sent to 2 jobs (") && said.ends_with(" processes)\n"), "{said}");
    for id in ["a", "b"] {
        bench.until_state(id, "completed");
    }
    let mut got = bench.lines("got");
    got.sort();
    assert_eq!(got, ["a", "b"]);
    bench.run("signal USR1 a --tag x=1").says(2, &["cannot be used with"]);
    drop(pool);
    bench.check();
}
