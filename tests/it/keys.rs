//! What is enqueued under a key is enqueued once.

use std::fmt::Write;

use serde_json::{Value, json};

use super::support::{Bench, Done};

fn enqueue(bench: &Bench, words: &[&str]) -> Done {
    bench.cmd([&["enqueue"], words].concat()).run()
}

fn batch(bench: &Bench, lines: &str) -> Done {
    bench.cmd(["enqueue", "-"]).stdin(lines).run()
}

fn total(bench: &Bench) -> u64 {
    bench.json("status --json")["total"].as_u64().unwrap()
}

#[test]
fn a_key_enqueues_once_whatever_became_of_its_job() {
    let bench = Bench::new();
    let once = ["--key", "photos/2026 12", "-c", "true"];
    assert_eq!(enqueue(&bench, &once).ok(), "✓ Job 1 enqueued\n");
    assert_eq!(enqueue(&bench, &once).ok(), "✓ Job 1 is there already (pending)\n");
    assert_eq!(enqueue(&bench, &[&["-q"], &once[..]].concat()).ok(), "1\n");
    bench.work();
    assert_eq!(enqueue(&bench, &once).ok(), "✓ Job 1 is there already (completed)\n");
    let told: Value = serde_json::from_str(&enqueue(&bench, &[&["--json"], &once[..]].concat()).ok()).unwrap();
    let fields = ["id", "existed", "key", "state"].map(|field| told[field].clone());
    assert_eq!(fields, [json!("1"), json!(true), json!("photos/2026 12"), json!("completed")]);
    assert_eq!(total(&bench), 1);
    assert!(bench.ok("show 1").contains("Key       photos/2026 12\n"));
    // It is free when its job is gone.
    bench.ok("remove 1");
    assert_eq!(enqueue(&bench, &once).ok(), "✓ Job 2 enqueued\n");
    bench.check();
}

#[test]
fn what_is_there_can_be_an_error_replaced_or_retried() {
    let bench = Bench::new();
    let with = |rule: &str| enqueue(&bench, &["--key", "k", "--if-exists", rule, "-c", "false"]);
    assert_eq!(with("error").ok(), "✓ Job 1 enqueued\n");
    with("error").says(4, &["the key k is that of job 1, which is pending", "try: queuectl show 1"]);
    assert_eq!(with("replace").ok(), "✓ Job 2 enqueued in the place of job 1\n");
    assert_eq!((bench.state("1"), bench.show("1")["key"].clone()), ("cancelled".to_owned(), json!(null)));
    assert_eq!(with("retry").ok(), "✓ Job 2 is there already (pending)\n");
    bench.ok("config set max-retries 0");
    assert_eq!(bench.work().code, 1);
    assert_eq!(with("retry").ok(), "✓ Job 2 is there already (dead); it will run again\n");
    assert_eq!(bench.state("2"), "pending");
    assert_eq!(bench.work().code, 1);
    assert_eq!(with("replace").ok(), "✓ Job 3 enqueued in the place of job 2\n");
    assert_eq!(bench.state("2"), "dead");
    // The id comes along.
    let job = r#"{"id":"x","command":"true","key":"other","if_exists":"replace"}"#;
    assert_eq!(enqueue(&bench, &[job]).ok(), "✓ Job x enqueued\n");
    assert_eq!(enqueue(&bench, &[job]).ok(), "✓ Job x enqueued anew\n");
    assert_eq!((bench.state("4"), bench.state("x")), ("cancelled".to_owned(), "pending".to_owned()));
    bench.check();
}

#[test]
fn a_job_that_is_retried_by_its_key_keeps_its_command_and_that_is_said() {
    let bench = Bench::new();
    let retry = |words: &[&str]| enqueue(&bench, &[&["--key", "k", "--if-exists", "retry"], words].concat());
    retry(&["--max-retries", "0", "-c", "exit 1"]).ok();
    assert_eq!(bench.work().code, 1);
    let done = retry(&["--", "echo", "a b"]);
    let says = r"job 1 keeps its command, which is another; to change it, type: queuectl edit 1 -c 'echo '\''a b'\'''";
    assert!(done.stderr.contains(says), "{done:?}");
    assert_eq!(done.ok(), "✓ Job 1 is there already (dead); it will run again\n");
    let told = |command: &str| {
        let told: Value = serde_json::from_str(&retry(&["--json", "-c", command]).ok()).unwrap();
        ["existed", "keeps_command"].map(|field| told[field].as_bool().unwrap())
    };
    assert_eq!((told("exit 1"), told("true")), ([true, false], [true, true]));
    bench.cmd(["edit", "1", "-c", "echo 'a b'"]).run().ok();
    bench.work().ok();
    let done = retry(&["-c", "true"]);
    assert!(done.stderr.is_empty(), "it does not run: {done:?}");
    assert_eq!(bench.ok("logs 1"), "a b\n");
    let line = |key: &str| format!("{{\"key\":\"{key}\",\"if_exists\":\"retry\",\"command\":\"true {key}\"}}\n");
    let lines = line("a") + &line("b");
    batch(&bench, &lines).ok();
    let done = batch(&bench, &lines.replace("true", "false"));
    assert!(done.stderr.contains("2 jobs, such as 2, keep the commands that they have"), "{done:?}");
    bench.check();
}

#[test]
fn what_is_processing_is_not_replaced() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    enqueue(&bench, &["--key", "k", "-c", "echo 1 >started; : <gate"]).ok();
    let pool = bench.pool("--until-empty");
    bench.until_file("started");
    let replace = enqueue(&bench, &["--key", "k", "--if-exists", "replace", "-c", "true"]);
    replace.says(4, &["the key k is that of job 1, which is processing", "try: queuectl wait 1"]);
    bench.open(&gate);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn lines_have_keys_of_their_own() {
    let bench = Bench::new();
    let lines = "{\"command\":\"true\",\"key\":\"a\"}\n{\"command\":\"true\",\"key\":\"b\"}\n{\"command\":\"true\",\"key\":\"a\"}\n";
    assert_eq!(batch(&bench, lines).ok(), "✓ 2 jobs enqueued; 1 there already\n");
    assert_eq!(batch(&bench, lines).ok(), "✓ 0 jobs enqueued; 3 there already\n");
    assert_eq!(bench.cmd(["enqueue", "-q", "-"]).stdin(lines).run().ok(), "1\n2\n1\n");
    bench.ok("cancel 1");
    assert_eq!(
        bench.cmd(["enqueue", "--if-exists", "retry", "-"]).stdin(lines).run().ok(),
        "✓ 0 jobs enqueued; 3 there already, of which 1 will run again\n"
    );
    // A line's own rule comes first; then nothing of the batch is enqueued.
    let strict = "{\"command\":\"true\"}\n{\"command\":\"true\",\"key\":\"b\",\"if_exists\":\"error\"}\n";
    batch(&bench, strict).says(4, &["line 2: the key b is that of job 2"]);
    let twice = "{\"command\":\"true\",\"key\":\"c\"}\n{\"command\":\"true\",\"key\":\"c\",\"if_exists\":\"error\"}\n";
    batch(&bench, twice).says(4, &["line 2: the key c is there twice"]);
    assert_eq!(total(&bench), 2);
    bench.check();
}

#[test]
fn a_mistake_in_a_key_is_told() {
    let bench = Bench::new();
    let long = "x".repeat(257);
    for (words, parts) in [
        (&["--key", "", "-c", "true"][..], &["the key `` is not taken", "1 to 256 bytes"][..]),
        (&["--key", &long, "-c", "true"], &["1 to 256 bytes"]),
        (&["--key", "k", "--file", "jobs"], &["--key"]),
        (&["--key", "k", "-"], &["--key is for one job"]),
        (&["--if-exists", "skip", "-c", "true"], &["--if-exists needs a key"]),
        (&["--if-exists", "no", "--key", "k", "-c", "true"], &["skip, error, replace, retry"]),
        (&[r#"{"command":"a","key":7}"#], &["`key` takes a text"]),
        (&[r#"{"command":"a","key":"a\nb"}"#], &["the key `a\\nb` is not taken"]),
        (&[r#"{"command":"a","if_exists":"skip"}"#], &["`if_exists` needs `key`"]),
        (&[r#"{"command":"a","key":"k","if_exists":"never"}"#], &["`if_exists` takes skip, error, replace or retry"]),
    ] {
        enqueue(&bench, words).says(2, parts);
    }
    let run = bench.cmd(["run", "-"]).stdin("{\"command\":\"true\",\"key\":\"k\"}\n").run();
    run.says(2, &["standard input: line 1: a run takes no `key`", "--resume"]);
    assert!(!bench.queue().exists());
}

#[test]
fn of_processes_at_once_one_enqueues() {
    let bench = Bench::new();
    bench.enqueue("true");
    let words = ["enqueue", "--key", "k", "-c", "true"];
    let all: Vec<_> = (0..6).map(|_| bench.cmd(words).spawn()).collect();
    let said: Vec<String> = all.into_iter().map(|process| process.wait().ok()).collect();
    let new = said.iter().filter(|said| *said == "✓ Job 2 enqueued\n").count();
    let there = said.iter().filter(|said| *said == "✓ Job 2 is there already (pending)\n").count();
    assert_eq!((new, there, total(&bench)), (1, 5, 2), "{said:?}");
    bench.check();
}

/// So many lines, each with a key; every tenth has that of the line before.
fn many(count: usize, rule: &str) -> String {
    (0..count).fold(String::new(), |mut lines, n| {
        let key = if n % 10 == 9 { n - 1 } else { n };
        let _ = writeln!(lines, r#"{{"command":"true","key":"line {key}"{rule}}}"#);
        lines
    })
}

#[test]
fn a_large_batch_leaves_out_what_is_there() {
    let bench = Bench::new();
    enqueue(&bench, &["--key", "line 5", "-c", "true"]).ok();
    assert_eq!(batch(&bench, &many(3_000, "")).ok(), "✓ 2699 jobs enqueued; 301 there already\n");
    assert_eq!(batch(&bench, &many(3_000, "")).ok(), "✓ 0 jobs enqueued; 3000 there already\n");
    bench.check();
    // Each line is told the job that stands for it.
    let ids = bench.cmd(["enqueue", "-q", "-"]).stdin(many(3_010, "")).run().ok();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!((ids.len(), ids[5], ids[8] == ids[9]), (3_010, "1", true));
    assert_eq!((ids[3_008] == ids[3_009], total(&bench)), (true, 2_709));
    let strict = batch(&bench, &many(1_009, r#","if_exists":"error""#));
    strict.says(4, &["line 10: the key `line 8` is that of line 9"]);
    // What changes others is one transaction.
    let replaced = batch(&bench, &many(1_500, r#","if_exists":"replace""#)).ok();
    assert_eq!(replaced, "✓ 1500 jobs enqueued\n");
    let jobs = bench.json("status --json")["jobs"].clone();
    assert_eq!((&jobs["pending"], &jobs["cancelled"]), (&json!(2_709), &json!(1_500)));
    // Beyond that, nothing that is there is changed.
    let refused = batch(&bench, &many(10_010, r#","if_exists":"replace""#));
    refused.says(4, &["line 10: the key `line 8` is that of line 9"]);
    let last = bench.ok("enqueue -q --key x -c true");
    bench.ok(&format!("cancel {last}"));
    let retry = many(10_010, "") + r#"{"command":"true","key":"x","if_exists":"retry"}"#;
    let said = ["line 10011: the key x is that of job", "cancelled", "over 10000 jobs replaces and retries no others"];
    batch(&bench, &retry).says(4, &said);
    bench.check();
}

#[test]
fn a_key_comes_along_with_an_export() {
    let bench = Bench::new();
    enqueue(&bench, &["--key", "k", "-c", "true"]).ok();
    bench.enqueue("true");
    bench.ok("export --output all.jsonl");
    bench.ok("--db ./new import all.jsonl");
    let there = bench.cmd(["--db", "new", "enqueue", "--key", "k", "-c", "true"]).run();
    assert_eq!(there.ok(), "✓ Job 1 is there already (pending)\n");
    bench.ok("--db ./new check");
    // Another job has it: nothing is imported.
    bench.cmd(["--db", "other", "enqueue", "-"]).stdin("true\ntrue\n").run().ok();
    bench.ok("--db ./other cancel 1 2");
    bench.ok("--db ./other remove 1 2");
    bench.ok("--db ./other enqueue --key k -c true");
    let refused = bench.run("--db ./other import all.jsonl").fails(4);
    assert!(refused.contains("the key of job 1, k, is taken"), "{refused}");
}
