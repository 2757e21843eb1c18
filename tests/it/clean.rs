//! `clean`: what goes, what stays, and who is asked.

use std::fs;

use serde_json::json;

use super::support::{Bench, Terminal};

/// A queue with jobs that have ended in each way, one of them with a large output, and one that waits.
fn mixed() -> Bench {
    let bench = Bench::new();
    bench.add(r#"{"id":"big","command":"head -c 5000 /dev/zero; echo oh >&2"}"#);
    bench.add(r#"{"id":"bad","command":"exit 1","max_retries":0}"#);
    assert_eq!(bench.work().code, 1);
    bench.add(r#"{"id":"off","command":"true"}"#);
    bench.ok("cancel off");
    bench.add(r#"{"id":"waits","command":"true"}"#);
    bench
}

fn ids(bench: &Bench) -> Vec<String> {
    let jobs = bench.json("list --json");
    jobs.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

fn files(bench: &Bench) -> usize {
    fs::read_dir(bench.queue().join("output/0")).map_or(0, Iterator::count)
}

#[test]
fn what_ended_long_ago_goes_and_dead_jobs_stay_unless_they_are_named() {
    let bench = mixed();
    assert_eq!(bench.ok("clean --older-than 1h"), "There is nothing to remove\n");
    assert_eq!((ids(&bench).len(), files(&bench)), (4, 1));
    assert_eq!(bench.ok("clean --older-than 0s"), "✓ 2 jobs removed, with 4.9 KiB of output\n");
    assert_eq!((ids(&bench), files(&bench)), (vec!["waits".to_owned(), "bad".to_owned()], 0));
    let cleaned = bench.json("clean --older-than 0s --state dead,completed --json");
    assert_eq!(cleaned, json!({"removed": 1, "output_bytes": 0, "kept": 0}));
    assert_eq!(ids(&bench), ["waits"]);
    bench.check();
}

#[test]
fn many_go_in_pieces() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(600)).run().ok();
    let line = ["cancel".to_owned()].into_iter().chain((1..=600).map(|n| n.to_string()));
    bench.cmd(line).run().ok();
    assert_eq!(bench.ok("clean --older-than 0s --state cancelled"), "✓ 600 jobs removed, with 0 B of output\n");
    assert_eq!(bench.json("status --json")["total"], 0);
    bench.check();
}

#[test]
fn a_run_that_has_not_ended_is_kept_whole() {
    let bench = Bench::new();
    fs::write(bench.file("jobs"), "true\nexit 1\n").unwrap();
    assert_eq!(bench.run("run --max-retries 0 jobs").code, 1);
    bench.ok("retry 2");
    let cleaned = bench.run("clean --older-than 0s");
    assert!(cleaned.stderr.contains("1 job stays: a run that has not ended"), "{cleaned:?}");
    assert_eq!(cleaned.ok(), "There is nothing to remove\n");
    assert_eq!(bench.run("run --max-retries 0 jobs").code, 1);
    assert_eq!(bench.ok("clean --older-than 0s --state dead,completed"), "✓ 2 jobs removed, with 0 B of output\n");
    bench.check();
}

#[test]
fn a_person_at_a_terminal_is_asked() {
    let bench = mixed();
    let on_terminal = |line: &str, answer: &str| {
        let terminal = Terminal::new();
        terminal.types(answer.as_bytes());
        let end = || std::process::Stdio::from(terminal.end());
        let mut child = bench.cmd(line.split_whitespace()).spawn_with(end(), end(), end());
        let code = child.wait().unwrap().code().unwrap();
        (code, String::from_utf8_lossy(&terminal.read_until_closed()).into_owned())
    };
    let (code, shown) = on_terminal("clean --older-than 0s", "no\n");
    assert!(
        shown.contains("this removes 2 jobs (1 completed, 1 cancelled), with what they wrote; go on? [y/N]"),
        "{shown}"
    );
    assert!(code == 130 && shown.contains("nothing was removed"), "{code} {shown}");
    assert_eq!(ids(&bench).len(), 4);
    let (code, shown) = on_terminal("clean --older-than 0s", "y\n");
    assert!(code == 0 && shown.contains("✓ 2 jobs removed"), "{code} {shown}");
    let (code, shown) = on_terminal("clean --older-than 0s --state dead --yes", "");
    assert!(code == 0 && !shown.contains('?') && shown.contains("✓ 1 job removed"), "{code} {shown}");
    // With nothing to remove there is nothing to ask.
    assert!(on_terminal("clean --older-than 0s", "").1.contains("There is nothing to remove"));
}

#[test]
fn what_is_typed_wrong_is_told() {
    let bench = mixed();
    bench.run("clean").says(2, &["--older-than"]);
    bench.run("clean --older-than soon").says(2, &["a duration up to 365d"]);
    bench.run("clean --older-than 7").says(2, &["with its unit"]);
    bench.run("config set retain-completed 7").says(2, &["of what?", "config set retain-completed 7d"]);
    bench.run("clean --older-than 0s --state pending").says(2, &["it is completed, dead or cancelled"]);
    assert_eq!(ids(&bench).len(), 4);
}
