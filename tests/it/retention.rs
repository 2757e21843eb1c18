//! Retention: what the settings do not keep any more goes by itself.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::clocks::WallClock;
use super::support::Bench;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn total(bench: &Bench) -> u64 {
    bench.json("status --json")["total"].as_u64().unwrap()
}

fn files(bench: &Bench) -> usize {
    fs::read_dir(bench.queue().join("output/0")).map_or(0, Iterator::count)
}

#[test]
fn an_idle_pool_removes_what_comes_to_its_age() {
    let bench = Bench::new();
    bench.ok("config set retain-completed 1s");
    bench.add(r#"{"id":"good","command":"head -c 5000 /dev/zero"}"#);
    bench.add(r#"{"id":"bad","command":"exit 1","max_retries":0}"#);
    let pool = bench.pool("");
    bench.until_state("bad", "dead");
    bench.until("job good is removed", || bench.run("show good").code == 3);
    assert_eq!((total(&bench), files(&bench)), (1, 0));
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn so_many_are_kept_and_a_pool_that_is_about_to_end_sweeps_first() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(300)).run().ok();
    bench.add(r#"{"id":"off","command":"true"}"#);
    bench.ok("cancel off");
    bench.work().ok();
    assert_eq!(total(&bench), 301);
    bench.cmd(["config", "set", "retain-completed", "2 jobs"]).run().ok();
    bench.ok("config set retain-cancelled 0jobs");
    bench.work().ok();
    let jobs = bench.json("list --json");
    let left: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(left, ["300", "299"]);
    bench.check();
}

#[test]
fn what_was_written_is_let_go_and_the_job_stays() {
    let bench = Bench::new();
    let big = "head -c 5000 /dev/zero; echo oh >&2; test $QUEUECTL_ATTEMPT = 2";
    bench.add(&json!({"id": "big", "command": big, "backoff_base": 0}).to_string());
    bench.add(r#"{"id":"waits","command":"echo kept","delay":3600}"#);
    bench.ok("config set retain-output 0s");
    bench.ok("cancel waits");
    bench.work().ok();
    assert_eq!((bench.state("big"), files(&bench)), ("completed".to_owned(), 0));
    bench
        .run("logs big")
        .says(3, &["the 4.9 KiB that attempt 2 wrote were let go", "queuectl config get retain-output"]);
    bench.run("logs big --stderr --attempt 1").says(3, &["the 3 B that attempt 1 wrote were let go"]);
    assert_eq!(bench.show("big")["history"].as_array().unwrap().len(), 2);
    bench.check();
    // A copy knows as much.
    let export = bench.ok("export --output all.jsonl");
    assert_eq!(export, "");
    bench.ok("--db copy import all.jsonl");
    bench.run("--db copy logs big").says(3, &["were let go"]);
    bench.ok("check --repair");
    bench.run("logs big").says(3, &["were let go"]);
    // What is written from now on is kept.
    bench.ok("config unset retain-output");
    bench.ok("retry big");
    assert_eq!(bench.work().code, 1);
    assert_eq!(bench.run("logs big").stdout.len(), 5_000);
}

#[test]
fn a_run_is_kept_whole_until_it_has_told_its_end() {
    let bench = Bench::new();
    bench.ok("config set retain-completed 0s");
    fs::write(bench.file("jobs"), "true\ntrue\n").unwrap();
    let run = bench.cmd(["run", "jobs"]).run();
    assert!(run.stderr.contains("run 1: 2 completed"), "{run:?}");
    run.ok();
    bench.work().ok();
    assert_eq!(total(&bench), 0);
    bench.check();
}

/// The clock is set forward by a month, and it stays so: what is old by that goes a day later.
#[test]
fn nothing_goes_on_a_jump_of_the_clock() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    bench.enqueue("true");
    bench.work().ok();
    bench.ok("config set retain-completed 7d");
    for (offset, left) in [(30 * DAY, 1), (30 * DAY + 23 * HOUR, 1), (31 * DAY + HOUR, 0)] {
        clock.set(offset);
        clock.on(bench.cmd(["worker", "start", "--until-empty"])).run().ok();
        assert_eq!(total(&bench), left, "{offset}");
    }
    bench.check();
}

/// It is set forward by a year for longer than a day, and back again: what the queue takes for old is not.
#[test]
fn nothing_goes_by_a_time_that_was_wrong() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    bench.enqueue("true");
    bench.work().ok();
    for offset in [365 * DAY, 365 * DAY + 23 * HOUR, 366 * DAY + HOUR] {
        clock.set(offset);
        clock.on(bench.cmd(["enqueue", "-c", "true"])).run().ok();
    }
    bench.ok("config set retain-completed 7d");
    bench.work().ok();
    assert_eq!(total(&bench), 4);
    assert_eq!(bench.ok("clean --older-than 7d"), "There is nothing to remove\n");
    bench.check();
}

#[test]
fn it_is_for_all_queues_together() {
    let bench = Bench::new();
    bench
        .run("config set --queue gpu retain-dead 7d")
        .says(2, &["retain-dead is for all queues together", "try: queuectl config set retain-dead 7d"]);
    assert!(!bench.queue().exists());
    bench.ok("config set retain-dead 7d");
    assert_eq!(bench.json("config list --queue gpu --json")["retain-dead"], json!(604_800.0));
}
