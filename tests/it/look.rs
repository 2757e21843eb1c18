//! `list`, `show`, `logs`, `status`, `wait`, `check`: tables for people, JSON for programs.

use serde_json::{Value, json};

use super::support::{Background, Bench, has_fields};

const JOB: &str = "id command argv cwd queue name priority tags key run state reason held attempts max_retries timeout created_at updated_at started_at \
                   finished_at next_run_at exit_code error worker";
const ATTEMPT: &str = "attempt worker started_at ended_at outcome exit_code signal cpu_ms max_rss_bytes error";

#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    assert!(text.ends_with('Z') && humantime::parse_rfc3339(text).is_ok(), "{text}");
}

/// Which fields of an object are null.
fn nulls(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name.as_str()).collect()
}

fn enqueue_many(bench: &Bench, count: usize) {
    let lines = (1..=count).map(|n| format!("echo {n}\n")).collect::<Vec<_>>().concat();
    bench.cmd(["enqueue", "-"]).stdin(lines).run().ok();
}

/// A pool that runs one job, `job1`, which said `first` and waits until it can read a line from `go`.
fn running(bench: &Bench) -> Background {
    bench.script("mkfifo go").run().ok();
    bench.add(r#"{"id":"job1","command":"echo first; echo oops >&2; touch started; echo yes > started; read x < go; echo second"}"#);
    let pool = bench.cmd(["worker", "start"]).start();
    bench.until_file("started");
    pool
}

fn let_go(bench: &Bench) {
    bench.script("echo > go").run().ok();
}

#[test]
fn a_pending_job_has_every_field() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"echo hi"}"#);
    let job = &bench.json("list --json")[0];
    has_fields(job, JOB);
    is_time(&job["created_at"]);
    is_time(&job["updated_at"]);
    let known =
        ["id", "command", "cwd", "queue", "state", "attempts", "max_retries", "timeout"].map(|name| job[name].clone());
    let cwd = bench.path().to_str().unwrap();
    assert_eq!(
        known.to_vec(),
        [
            json!("a"),
            json!("echo hi"),
            json!(cwd),
            json!("default"),
            json!("pending"),
            json!(0),
            json!(3),
            json!("30s")
        ]
    );
    assert_eq!(
        nulls(job),
        [
            "argv",
            "error",
            "exit_code",
            "finished_at",
            "key",
            "name",
            "next_run_at",
            "reason",
            "run",
            "started_at",
            "worker"
        ]
    );
}

#[test]
fn each_state_has_its_fields() {
    let bench = Bench::new();
    bench.add(r#"{"id":"good","argv":["true"]}"#);
    bench.add(r#"{"id":"bad","command":"exit 5","max_retries":0}"#);
    bench.add(r#"{"id":"killed","command":"kill -9 $$","max_retries":0}"#);
    bench.add(r#"{"id":"slow","command":"sleep 60","timeout":0.02,"max_retries":0}"#);
    bench.add(r#"{"id":"off","command":"true","queue":"other"}"#);
    bench.run("worker start --until-empty --queue default");
    bench.ok("cancel off");
    bench.add(r#"{"id":"again","command":"exit 1","backoff_base":900}"#);
    let pool = bench.cmd(["worker", "start"]).start();
    bench.until_state("again", "failed");
    bench.ok("worker stop");
    assert_eq!(pool.wait().0, 0);
    for (id, state, reason, exit_code, absent) in [
        (
            "good",
            "completed",
            json!(null),
            json!(0),
            &["command", "error", "key", "name", "next_run_at", "reason", "run", "why"][..],
        ),
        ("bad", "dead", json!("failed"), json!(5), &["argv", "key", "name", "next_run_at", "run", "why"]),
        (
            "killed",
            "dead",
            json!("failed"),
            json!(null),
            &["argv", "exit_code", "key", "name", "next_run_at", "run", "why"],
        ),
        (
            "slow",
            "dead",
            json!("failed"),
            json!(null),
            &["argv", "exit_code", "key", "name", "next_run_at", "run", "why"],
        ),
        (
            "off",
            "cancelled",
            json!("asked"),
            json!(null),
            &["argv", "error", "exit_code", "key", "name", "next_run_at", "run", "started_at", "why", "worker"],
        ),
        ("again", "failed", json!(null), json!(1), &["argv", "finished_at", "key", "name", "reason", "run"]),
    ] {
        let job = bench.json(&format!("show {id} --json"));
        has_fields(&job, &format!("{JOB} history env_names why needs needed_by"));
        assert_eq!((&job["state"], &job["exit_code"]), (&json!(state), &exit_code), "{id}");
        assert_eq!(job["reason"].is_null(), reason.is_null(), "{job}");
        assert_eq!(nulls(&job), absent, "{id}");
        for time in ["created_at", "updated_at", "started_at", "finished_at", "next_run_at"] {
            if !absent.contains(&time) {
                is_time(&job[time]);
            }
        }
    }
    bench.check();
}

#[test]
fn an_attempt_has_every_field() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    bench.add(
        r#"{"id":"a","command":"[ $QUEUECTL_ATTEMPT = 3 ] || kill -15 $$; exit 4","max_retries":2,"timeout":"none"}"#,
    );
    bench.add(r#"{"id":"slow","command":"sleep 60","timeout":0.02,"max_retries":0}"#);
    bench.run("worker start --count 2 --until-empty");
    let job = bench.json("show a --json");
    let history = job["history"].as_array().unwrap();
    assert_eq!(history.len(), 3);
    for (number, attempt) in (1..).zip(history) {
        has_fields(attempt, ATTEMPT);
        assert_eq!(attempt["attempt"], number);
        is_time(&attempt["started_at"]);
        is_time(&attempt["ended_at"]);
        assert!(attempt["worker"].as_str().unwrap().contains('.'), "POOL.SLOT: {attempt}");
        assert!(attempt["cpu_ms"].is_u64() && attempt["max_rss_bytes"].as_u64().unwrap() > 0, "{attempt}");
        assert_eq!(attempt["outcome"], "failed");
    }
    assert_eq!((&history[0]["signal"], &history[0]["exit_code"]), (&json!(15), &json!(null)));
    assert_eq!((&history[2]["signal"], &history[2]["exit_code"]), (&json!(null), &json!(4)));
    assert_eq!(bench.json("show slow --json")["history"][0]["outcome"], "timed_out");
}

#[test]
fn status_as_json_has_every_field() {
    let bench = Bench::new();
    let pool = running(&bench);
    let status = bench.json("status --json");
    has_fields(&status, "queue_path total jobs next_due_at queues workers runs recent_runs");
    has_fields(&status["jobs"], "scheduled blocked pending processing failed completed dead cancelled");
    assert_eq!((&status["total"], &status["jobs"]["processing"]), (&json!(1), &json!(1)));
    assert_eq!(status["queue_path"], bench.queue().to_str().unwrap());
    let worker = &status["workers"][0];
    has_fields(worker, "id pool pid started_at job name queue priority tags");
    is_time(&worker["started_at"]);
    assert_eq!((&worker["job"], &worker["pid"]), (&json!("job1"), &json!(pool.pid())));
    assert_eq!(worker["id"], format!("{}.0", worker["pool"].as_str().unwrap()));
    assert_eq!(status["runs"], json!([]));
    let_go(&bench);
    bench.until_state("job1", "completed");
    assert_eq!(bench.json("status --json")["workers"][0]["job"], json!(null));
}

#[test]
fn what_runs_is_shown_everywhere() {
    let bench = Bench::new();
    let pool = running(&bench);
    let status = bench.ok("status");
    let line = status.lines().find(|line| line.contains("job1")).unwrap_or_else(|| panic!("{status}"));
    assert!(line.contains("echo first") && status.contains(&format!("(process {})", pool.pid())), "{status}");
    assert!(bench.ok("list").contains("processing"));
    let job = bench.json("show job1 --json");
    is_time(&job["started_at"]);
    assert!(job["worker"].as_str().unwrap().ends_with(".0"), "{job}");
    has_fields(&job["history"][0], ATTEMPT);
    assert_eq!(
        nulls(&job["history"][0]),
        ["cpu_ms", "ended_at", "error", "exit_code", "max_rss_bytes", "outcome", "signal"]
    );
    assert!(bench.ok("show job1").contains("Running"));
    let pools = bench.ok("worker list");
    assert!(pools.contains(&pool.pid().to_string()) && pools.contains("all queues"), "{pools}");
    let pools = bench.json("worker list --json");
    assert_eq!((&pools[0]["pid"], &pools[0]["running"]), (&json!(pool.pid()), &json!(1)));
    // What it has written so far.
    let logs = bench.run("logs job1");
    assert_eq!((logs.stdout.as_slice(), logs.stderr.as_str()), (&b"first\n"[..], "oops\n"));
    let_go(&bench);
}

#[test]
fn logs_follow_a_job_that_runs() {
    let bench = Bench::new();
    let _pool = running(&bench);
    let mut follow = bench.cmd(["logs", "-f", "--stdout", "job1"]).start();
    assert_eq!(follow.line(), "first\n");
    let_go(&bench);
    assert_eq!(follow.line(), "second\n");
    assert_eq!(follow.wait(), (0, String::new()));
}

#[test]
fn logs_follow_from_before_the_start_through_all_attempts() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    bench.script("mkfifo go").run().ok();
    bench.add(r#"{"id":"a","command":"echo try $QUEUECTL_ATTEMPT; read x < go; exit 1","max_retries":1}"#);
    let mut follow = bench.cmd(["logs", "--follow", "a"]).start();
    let pool = bench.cmd(["worker", "start", "--until-empty"]).start();
    for line in ["try 1\n", "try 2\n"] {
        assert_eq!(follow.line(), line);
        let_go(&bench);
    }
    assert_eq!(follow.wait(), (0, String::new()));
    assert_eq!(pool.wait().0, 1);
}

#[test]
fn logs_print_a_stream_or_both_of_an_attempt() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    bench.add(
        r#"{"id":"a","command":"echo out $QUEUECTL_ATTEMPT; echo err $QUEUECTL_ATTEMPT >&2; exit 1","max_retries":1}"#,
    );
    bench.run("logs a").says(4, &["job a has not started yet"]);
    bench.work();
    for (args, stdout, stderr) in [
        ("", "out 2\n", "err 2\n"),
        ("--stdout", "out 2\n", ""),
        ("--stderr", "", "err 2\n"),
        ("--attempt 1", "out 1\n", "err 1\n"),
        ("--attempt 2 --stderr", "", "err 2\n"),
        ("-f --stdout", "out 2\n", ""),
    ] {
        let logs = bench.run(&format!("logs a {args}"));
        assert_eq!((logs.stderr.as_str(), logs.code), (stderr, 0), "{args}");
        assert_eq!(logs.text(), stdout, "{args}");
    }
    bench.run("logs a --attempt 3").says(3, &["no attempt 3"]);
    bench.run("logs a --attempt 0").says(3, &["no attempt 0"]);
    bench.run("logs b").says(3, &["no job b"]);
}

#[test]
fn output_of_any_size_and_any_bytes_comes_back_as_it_was() {
    let bench = Bench::new();
    let all: Vec<u8> = (0..=255).collect();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("bytes", all.clone()),
        ("inline", all.iter().copied().cycle().take(4_000).collect()),
        ("file", all.iter().copied().cycle().take(4_001).collect()),
        ("large", all.iter().copied().cycle().take(3_000_000).collect()),
    ] {
        std::fs::write(bench.path().join(name), &bytes).unwrap();
        bench.add(&json!({"id": name, "command": format!("cat {name}; cat {name} >&2")}).to_string());
        bench.work().ok();
        assert!(bench.run(&format!("logs --stdout {name}")).stdout == bytes, "{name}");
        let copied = bench.script(&format!("queuectl logs --stderr {name} 2> copy && cmp copy {name}")).run();
        assert_eq!(copied.code, 0, "{copied:?}");
    }
    bench.check();
}

#[test]
fn the_table_shows_the_newest_fifty_and_how_many_more_there_are() {
    let bench = Bench::new();
    assert_eq!(bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(60)).run().ok(), "✓ 60 jobs enqueued\n");
    for (args, rows, more) in
        [("", 50, "10 more"), ("--limit 3", 3, "57 more"), ("--state pending --limit 59", 59, "1 more")]
    {
        let done = bench.run(&format!("list {args}"));
        assert!(done.stderr.contains(more), "{args}: {done:?}");
        let text = done.ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), rows + 1, "{text}");
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["ID", "STATE", "TRIES", "AGE", "COMMAND", "DETAIL"]
        );
        assert_eq!(lines[1].split_whitespace().next(), Some("60"), "newest first");
    }
    let all = bench.run("list --limit 60");
    assert_eq!(all.stderr, "");
    assert_eq!(all.ok().lines().count(), 61);
    assert_eq!(bench.json("list --json --limit 7").as_array().unwrap().len(), 7);
    assert_eq!(bench.ok("list --state dead"), "No jobs are dead\n");
}

#[test]
fn a_row_is_a_line_whatever_the_command_has_in_it() {
    let bench = Bench::new();
    bench.enqueue("printf 'a\\n'\nexit 1 # \x1b[31m");
    bench.enqueue(&format!("true {}", "x".repeat(5_000)));
    let listed = bench.ok("list");
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(!listed.contains('\x1b') && listed.contains("\\n") && listed.contains('…'), "{listed}");
    assert!(!bench.ok("show 1").contains('\x1b'));
}

#[test]
fn json_of_thousands_of_jobs_is_complete_and_newest_first() {
    let bench = Bench::new();
    enqueue_many(&bench, 2_500);
    let ids = |line: &str| {
        let listed = bench.json(line);
        listed.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().parse().unwrap()).collect::<Vec<u64>>()
    };
    let newest_first: Vec<u64> = (1..=2_500).rev().collect();
    assert_eq!(ids("list --json"), newest_first);
    assert_eq!(ids("list --state pending --json"), newest_first);
    assert_eq!(ids("list --json --limit 1500"), newest_first[..1_500]);
    assert_eq!(bench.ok("list --state completed --json"), "[]\n");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let bench = Bench::new();
    enqueue_many(&bench, 2_500);
    for command in ["list --json", "list --limit 2500", "list --state pending --json"] {
        let done = bench.script(&format!("{{ queuectl {command}; echo $? >&2; }} | head -1 > first")).run();
        assert_eq!(done.stderr.trim_end().lines().last(), Some("0"), "{command}: {done:?}");
        assert!(!done.stderr.contains("ipe"), "{done:?}");
    }
    bench.add(r#"{"id":"wordy","command":"yes | head -c 1000000","queue":"other"}"#);
    bench.ok("worker start --until-empty --queue other");
    for command in ["logs wordy", "logs -f wordy"] {
        let done = bench.script(&format!("{{ queuectl {command}; echo $? >&2; }} | head -1")).run();
        assert_eq!((done.stderr.as_str(), done.stdout.as_slice()), ("0\n", &b"y\n"[..]), "{command}");
    }
}

#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let bench = Bench::new();
    bench.enqueue("true");
    for command in
        ["list", "list --json", "status", "show 1", "config get max-retries", "config list", "check", "dlq list"]
    {
        let done = bench.script(&format!("queuectl {command} > /dev/full")).run();
        assert_eq!((done.code, done.stderr.contains("No space left")), (7, true), "{command}: {done:?}");
    }
}

#[test]
fn jobs_of_one_state_are_listed_by_when_they_came_into_it() {
    let bench = Bench::new();
    for id in ["a", "b", "c"] {
        bench.add(&json!({"id": id, "command": "exit 1", "max_retries": 0}).to_string());
        bench.work();
    }
    bench.ok("retry a");
    bench.work();
    let ids = |line: &str| {
        let listed = bench.json(line);
        listed.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("dlq list --json"), ["a", "c", "b"], "the last to die first");
    assert_eq!(ids("list --state dead --json"), ["a", "c", "b"]);
    assert_eq!(ids("list --json"), ["c", "b", "a"]);
    has_fields(&bench.json("dlq list --json")[0], JOB);
    assert_eq!(ids("dlq list --json --limit 1"), ["a"]);
}

#[test]
fn show_tells_all_attempts() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    bench.add(r#"{"id":"a","command":"exit 6","max_retries":1,"queue":"gpu"}"#);
    bench.work();
    let shown = bench.ok("show a");
    for part in ["Job       a", "State     dead", "Command   exit 6", "Queue     gpu", "Tries     2/2", "exit code 6"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(shown.lines().filter(|line| line.contains("failed")).count(), 2, "{shown}");
    bench.run("show b").says(3, &["no job b"]);
}

#[test]
fn wait_tells_how_jobs_ended() {
    let bench = Bench::new();
    for (id, command) in [("good", "true"), ("fine", "true"), ("bad", "false")] {
        bench.add(&json!({"id": id, "command": command, "max_retries": 0}).to_string());
    }
    bench.work();
    bench.add(r#"{"id":"later","command":"true"}"#);
    bench.add(r#"{"id":"off","command":"true"}"#);
    bench.ok("cancel off");
    for (line, code, says) in [
        ("wait good", 0, ""),
        ("wait good fine good", 0, ""),
        ("wait good bad", 1, "1 job did not complete"),
        ("wait off", 1, "1 job did not complete"),
        ("wait off bad", 1, "2 jobs did not complete"),
        ("wait nobody", 3, "no job nobody"),
        ("wait later nobody", 3, "no job nobody"),
        ("wait later --timeout 20ms", 6, "timed out"),
        ("wait --all --timeout 20ms", 6, "1 job has not ended"),
        ("wait later --timeout 0", 6, "timed out"),
        ("wait good --timeout 0", 0, ""),
    ] {
        bench.run(line).says(code, &[says]);
    }
    bench.work();
    bench.run("wait --all").says(0, &[]);
}

#[test]
fn wait_ends_when_the_last_of_its_jobs_does() {
    for (command, line, code) in [("true", "wait a b", 0), ("true", "wait --all", 0), ("false", "wait a b", 1)] {
        let bench = Bench::new();
        bench.add(&json!({"id": "a", "command": command, "max_retries": 0}).to_string());
        bench.add(r#"{"id":"b","command":"true"}"#);
        let wait = bench.cmd(line.split(' ')).start();
        bench.work();
        assert_eq!(wait.wait(), (code, String::new()), "{line}");
    }
}

#[test]
fn check_says_that_all_is_well() {
    let bench = Bench::new();
    enqueue_many(&bench, 3);
    bench.work();
    assert_eq!(bench.ok("check"), "✓ 3 jobs, every invariant holds\n");
    let report = bench.json("check --json");
    has_fields(&report, "jobs violations found warnings");
    assert_eq!(report, json!({"jobs": 3, "violations": [], "found": 0, "warnings": []}));
}

#[test]
fn check_has_a_line_for_each_invariant_that_does_not_hold() {
    const READY: redb::TableDefinition<(u64, u8, u64), ()> = redb::TableDefinition::new("ready");
    let bench = Bench::new();
    enqueue_many(&bench, 3);
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(redb::ConcurrencyMode::MultiWriter);
    let txn = builder.open(bench.queue().join("queue.redb")).unwrap().begin_write().unwrap();
    txn.open_table(READY).unwrap().retain(|(_, _, seq), ()| seq == 1).unwrap();
    txn.commit().unwrap();
    let done = bench.run("check");
    assert_eq!(done.code, 5);
    let text = done.text();
    assert!(text.contains("job 2") && text.contains("job 3") && !text.contains("every invariant holds"), "{text}");
    let report = bench.run("check --json");
    assert_eq!(report.code, 5);
    let report: Value = serde_json::from_str(&report.text()).unwrap();
    assert_eq!(report["violations"].as_array().unwrap().len(), text.lines().count());
    assert_eq!(report["found"], text.lines().count());
}

#[test]
fn check_warns_of_an_output_that_is_gone() {
    let bench = Bench::new();
    bench.enqueue("seq 10000");
    bench.work();
    std::fs::remove_dir_all(bench.queue().join("output")).unwrap();
    let done = bench.run("check");
    assert!(done.stderr.contains("warning") && done.stderr.contains("48894 bytes"), "{done:?}");
    assert_eq!(done.code, 0);
    assert_eq!(bench.json("check --json")["warnings"].as_array().unwrap().len(), 1);
    bench.run("logs 1").says(5, &["the output is missing", "there is no /"]);
}

#[test]
fn an_empty_queue_is_shown_as_such() {
    let bench = Bench::new();
    bench.ok("config set max-retries 3");
    assert_eq!(bench.ok("list"), "No jobs\n");
    assert_eq!(bench.ok("list --json"), "[]\n");
    assert_eq!(bench.ok("dlq list"), "No jobs are dead\n");
    assert_eq!(bench.ok("dlq list --json"), "[]\n");
    assert_eq!(bench.ok("worker list"), "No pool is running\n");
    assert_eq!(bench.ok("worker list --json"), "[]\n");
    assert_eq!(bench.json("status --json")["total"], 0);
    bench.run("wait --all").says(0, &[]);
}
