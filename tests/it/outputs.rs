//! What jobs write: kept apart, bounded, and never in the pool's memory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::{Bench, status_number};

const MIB: u64 = 1024 * 1024;

/// Bytes of disk that the files of a folder take, their holes left out.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// The length of the longest file of a folder, holes and all.
fn longest_file(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => longest_file(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.max().unwrap_or_default()
}

#[test]
fn streams_and_attempts_are_kept_apart_byte_by_byte() {
    let bench = Bench::new();
    // All 256 bytes, without an end of line; in the second attempt so often that they live in a file.
    let bytes: Vec<u8> = (0..=255).collect();
    std::fs::write(bench.file("bytes"), &bytes).unwrap();
    std::fs::write(bench.file("more"), bytes.repeat(100)).unwrap();
    let command = "if [ $QUEUECTL_ATTEMPT = 1 ]; then cat bytes; echo first >&2; exit 3; fi; cat more; cat bytes >&2";
    let id = bench.enqueue_json(&json!({"command": command, "backoff_base": 0}));
    bench.pool("--until-empty").wait().ok();
    let first = bench.run(&format!("logs {id} --attempt 1"));
    assert_eq!((first.stdout, first.stderr.as_str()), (bytes.clone(), "first\n"));
    assert_eq!(bench.run(&format!("logs {id} --stdout")).stdout, bytes.repeat(100));
    assert!(bench.run(&format!("logs {id} --stdout")).stderr.is_empty());
    assert!(bench.run(&format!("logs {id} --stderr")).stdout.is_empty());
    let stderr = bench.cmd(["logs", &id, "--stderr"]).under(&["sh", "-c", "\"$@\" 2>&1", "sh"]).run();
    assert_eq!(stderr.stdout, bytes);
    bench.is_clean();
}

#[test]
fn an_empty_output_leaves_nothing_and_a_small_one_no_file() {
    let bench = Bench::new();
    let (empty, small) = (bench.enqueue("true"), bench.enqueue("echo hi"));
    bench.pool("--until-empty").wait().ok();
    assert_eq!(bench.ok(&format!("logs {empty}")), "");
    assert_eq!(bench.ok(&format!("logs {small}")), "hi\n");
    let files = std::fs::read_dir(bench.queue().join("output/0")).map_or(0, Iterator::count);
    assert_eq!(files, 0);
    bench.is_clean();
}

#[test]
fn a_large_output_uses_no_memory_of_the_pool_and_is_cut_to_head_and_tail() {
    const LINES: u64 = 50 * MIB / 16;
    let bench = Bench::new();
    let limit = MIB;
    bench.enqueue("true");
    bench.ok("config set output-limit 1MiB");
    let pool = bench.pool("");
    bench.until_state("1", "completed");
    let peak = || status_number(Path::new(&format!("/proc/{}/status", pool.pid())), "VmHWM").unwrap();
    let before = peak();
    // 16 bytes a line.
    let command = format!("seq -f %015.0f {LINES}");
    let id = bench.enqueue_json(&json!({"command": command, "timeout": "none"}));
    bench.until_state(&id, "completed");
    let grown = peak() - before;
    println!("{} MiB of output: the pool's peak grew by {grown} KiB", LINES * 16 / MIB);
    assert!(grown < 8 * 1024, "{grown} KiB");
    let kept = bench.run(&format!("logs {id}")).stdout;
    let text = String::from_utf8(kept).unwrap();
    let left_out = LINES * 16 - limit;
    let note = format!("\n[queuectl left out {left_out} bytes here: see output-limit]\n");
    let (head, tail) = text.split_once(&note).expect("the note of what is left out");
    assert_eq!(head.len() as u64, limit / 2);
    assert_eq!(tail.len() as u64, limit / 2);
    assert!(head.starts_with("000000000000001\n"));
    assert!(tail.ends_with(&format!("{LINES:015}\n")));
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn a_job_that_writes_without_end_does_not_fill_the_disk() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.ok("config set output-limit 1MiB");
    bench.ok("config set kill-grace 0s");
    let pool = bench.pool("");
    bench.until_state("1", "completed");
    let id = bench.enqueue_json(&json!({"command": "yes", "timeout": 3, "max_retries": 0}));
    let output = bench.queue().join("output");
    let (mut most, mut longest) = (0, 0);
    bench.until("it is ended", || {
        most = most.max(disk_bytes(&output));
        longest = longest.max(longest_file(&output));
        bench.state(&id) == "dead"
    });
    println!("yes for 3 s wrote {} MiB and took at most {} MiB of disk", longest / MIB, most / MIB);
    assert!(longest > 4 * most || longest < 64 * MIB, "{most} of {longest}");
    bench.until("only what is kept takes room", || disk_bytes(&output) <= MIB + 64 * 1024);
    assert!(bench.run(&format!("logs {id}")).stdout.len() as u64 <= MIB + 100);
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn logs_of_a_running_job_shows_no_holes() {
    let bench = Bench::new();
    bench.ok("config set output-limit 64KiB");
    let gate = bench.gate("gate");
    let id = bench.enqueue("head -c 1000000 /dev/zero | tr '\\0' x; echo >mark; : <gate");
    let pool = bench.pool("--until-empty");
    bench.until_file("mark");
    let logs = || bench.ok(&format!("logs {id}"));
    bench.until("the middle is given back", || logs().len() < 500_000);
    assert_eq!(logs().trim_matches('x'), "");
    bench.open(&gate);
    pool.wait().ok();
    assert!(logs().contains("queuectl left out"));
    bench.is_clean();
}

#[test]
fn many_workers_need_few_descriptors() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("sleep 0.2\n".repeat(300)).run().ok();
    bench.script("ulimit -n 64; exec queuectl worker start --count 150 --until-empty").run().ok();
    assert_eq!(bench.json("status --json")["jobs"]["completed"], 300);
    bench.is_clean();
}

#[test]
fn logs_follows_what_a_job_writes_until_it_has_ended() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let id = bench.enqueue("echo one; : <gate; echo two; exit 0");
    // Before the job has begun: its output file is not there yet.
    let mut logs = bench.cmd(["logs", "-f", &id]).spawn();
    let pool = bench.pool("");
    logs.stdout.until("one");
    bench.open(&gate);
    logs.stdout.until("two");
    assert_eq!(logs.wait().ok(), "one\ntwo\n");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn logs_follows_a_job_into_its_next_attempt() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let id = bench.enqueue_json(
        &json!({"command": "echo $QUEUECTL_ATTEMPT; : <gate; exit 3", "max_retries": 1, "backoff_base": 0.3}),
    );
    let pool = bench.pool("");
    bench.until("it runs", || bench.left().len() == 1);
    let mut logs = bench.cmd(["logs", "-f", &id]).spawn();
    logs.stdout.until("1");
    bench.open(&gate);
    logs.stdout.until("2");
    bench.open(&gate);
    assert_eq!(logs.wait().ok(), "1\n2\n");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn a_result_that_cannot_be_told_is_not_taken_for_one_that_is_not_there() {
    let bench = Bench::new();
    let untold = "but this could not be written to standard output: No space left on device";
    for (line, done) in [
        ("enqueue -c true", "job 1 is enqueued"),
        ("config set timeout 1m", "it is done"),
        ("cancel 1", "it is done"),
        ("remove 1", "it is done"),
    ] {
        let told = bench.script(&format!("queuectl {line} >/dev/full")).run();
        told.says(7, &[&format!("{done}, {untold}")]);
    }
    let looked = bench.script("queuectl status >/dev/full").run();
    looked.says(7, &["cannot write to standard output: No space left on device"]);
    assert_eq!(bench.json("status --json")["total"].as_u64(), Some(0));
    let many = bench.script("yes true | head -1500 | queuectl enqueue - >/dev/full").run();
    many.says(7, &[&format!("1500 jobs are enqueued, {untold}")]);
    bench.is_clean();
}
