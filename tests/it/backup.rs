//! `backup` and `restore`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::Bench;

/// All that `list` tells of a queue's jobs.
fn jobs(bench: &Bench, db: &str) -> Value {
    bench.json(&format!("--db {db} list --json"))
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A queue with jobs in several states, a large output and a setting.
fn filled() -> Bench {
    let bench = Bench::new();
    bench.add(r#"{"id":"large","command":"seq 5000; seq 3000 >&2"}"#);
    bench.add(r#"{"id":"small","command":"echo out; echo err >&2"}"#);
    bench.add(r#"{"id":"dead","command":"exit 3","max_retries":0}"#);
    bench.ok("config set max-retries 7");
    assert_eq!(bench.work().code, 1);
    bench.run("run -- true").ok();
    bench.add(r#"{"id":"waits","command":"echo at last"}"#);
    bench
}

#[test]
fn a_backup_is_a_queue_with_everything_in_it() {
    let bench = filled();
    let said = bench.ok("backup copies/monday");
    assert_eq!(said, "✓ backed up 5 jobs and 2 large outputs to copies/monday\n");
    assert_eq!(jobs(&bench, "copies/monday"), jobs(&bench, ".queuectl"));
    for line in ["logs large --stdout", "logs large --stderr", "logs small", "config list", "show dead --json"] {
        let (copy, original) = (bench.run(&format!("--db copies/monday {line}")), bench.run(line));
        assert_eq!((copy.code, &copy.stdout), (0, &original.stdout), "{line}");
    }
    bench.ok("--db copies/monday check --deep");
    for (path, mode) in [("", 0o700), ("queue.redb", 0o600), ("output/0", 0o700), ("output/0/1.1.out", 0o600)] {
        let metadata = fs::metadata(bench.file("copies/monday").join(path)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
    }
    assert_eq!(names(&bench.file("copies")), ["monday"]);
    // It is a queue of its own.
    bench.ok("--db copies/monday worker start --until-empty");
    assert_eq!(bench.ok("--db copies/monday logs waits"), "at last\n");
    assert_eq!(bench.state("waits"), "pending");
}

#[test]
fn a_backup_of_a_queue_at_work_is_the_queue_of_one_moment() {
    let bench = Bench::new();
    let commands: Vec<String> = (0..400).map(|n| format!("echo {n}")).collect();
    bench.cmd(["enqueue", "-"]).stdin(commands.join("\n")).run().ok();
    let held = bench.gate("gate");
    let holder = bench.enqueue(": <gate; seq 5000");
    let pool = bench.pool("--count 3");
    for n in 0..5 {
        bench.ok(&format!("backup copy{n}"));
        bench.ok(&format!("--db copy{n} check"));
        let jobs = jobs(&bench, &format!("copy{n}"));
        let jobs = jobs.as_array().unwrap();
        assert_eq!(jobs.len(), 401);
        for job in jobs {
            let (id, state) = (job["id"].as_str().unwrap(), job["state"].as_str().unwrap());
            match state {
                "pending" => assert_eq!(job["attempts"], 0, "{job}"),
                "completed" if n == 4 => {
                    let number: u32 = id.parse().unwrap();
                    assert_eq!(bench.ok(&format!("--db copy{n} logs {id}")), format!("{}\n", number - 1));
                }
                "completed" => {}
                other => panic!("{id} is {other}"),
            }
        }
        bench.until("the pool gets on", || {
            bench.json("status --json")["jobs"]["completed"].as_u64().unwrap() >= (n + 1) * 80
        });
    }
    bench.until_state(&holder, "processing");
    bench.ok("backup last");
    let copied = bench.json(&format!("--db last show {holder} --json"));
    assert_eq!(
        (copied["state"].as_str(), copied["attempts"].as_u64()),
        (Some("pending"), Some(0)),
        "no claim is copied"
    );
    assert_eq!(bench.json("--db last worker list --json"), serde_json::json!([]));
    // Whoever works on the copy leaves the original's processes alone.
    bench.ok(&format!("--db last cancel {holder}"));
    bench.ok("--db last worker start --until-empty");
    assert_eq!(bench.state(&holder), "processing");
    bench.open(&held);
    bench.until_state(&holder, "completed");
    assert_eq!(bench.show(&holder)["attempts"], 1);
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
}

#[test]
fn an_output_that_is_gone_is_a_warning() {
    let bench = filled();
    fs::remove_file(bench.queue().join("output/0/1.1.out")).unwrap();
    let done = bench.run("backup copy");
    assert!(done.stderr.contains("warning: ") && done.stderr.contains("1.1.out should have 23893 bytes"), "{done:?}");
    assert_eq!(done.ok(), "✓ backed up 5 jobs and 1 large output to copy\n");
}

#[test]
fn a_backup_goes_where_nothing_is() {
    let bench = filled();
    fs::create_dir(bench.file("empty")).unwrap();
    fs::create_dir(bench.file("full")).unwrap();
    fs::write(bench.file("full/mine"), "mine").unwrap();
    fs::write(bench.file("file"), "mine").unwrap();
    bench.ok("backup empty");
    bench.ok("--db empty check");
    for taken in ["full", "file", "empty", ".queuectl"] {
        bench.run(&format!("backup {taken}")).says(4, &["is there already and not empty"]);
    }
    assert_eq!(names(&bench.file("full")), ["mine"]);
    Bench::new().run("backup x").says(3, &["there is no queue"]);
}

#[test]
fn a_restore_brings_back_what_was() {
    let bench = filled();
    bench.ok("backup copy");
    let before = jobs(&bench, ".queuectl");
    // Into a folder where no queue is.
    assert_eq!(bench.json("--db new restore copy --json")["kept"], Value::Null);
    assert_eq!(jobs(&bench, "new"), before);
    assert_eq!(bench.ok("--db new logs large --stdout"), bench.ok("logs large --stdout"));
    bench.ok("--db new check");
    // In the place of one that went on.
    bench.work();
    bench.enqueue("echo later");
    let gone_on = jobs(&bench, ".queuectl");
    let done = bench.run("restore copy");
    assert!(done.stderr.contains("(6 jobs) is kept in") && done.stderr.contains("queuectl restore "), "{done:?}");
    done.ok();
    assert_eq!(jobs(&bench, ".queuectl"), before);
    bench.check();
    // And back, by the line that it said.
    bench.ok("restore .queuectl.before-restore");
    assert_eq!(jobs(&bench, ".queuectl"), gone_on);
    assert_eq!(
        names(bench.path()),
        [".queuectl", ".queuectl.before-restore", ".queuectl.before-restore-2", "copy", "new"]
    );
    bench.work();
    bench.check();
}

#[test]
fn numbers_are_never_given_twice_after_a_restore() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.enqueue("true");
    bench.ok("backup copy");
    bench.ok("restore copy");
    assert_eq!(bench.enqueue("true"), "3");
}

#[test]
fn a_restore_is_refused_while_a_pool_works() {
    let bench = filled();
    bench.ok("backup copy");
    let pool = bench.pool("");
    bench.run("restore copy").says(4, &["works on the queue", "queuectl worker stop"]);
    bench.ok("worker stop");
    pool.wait().ok();
    let gate = bench.gate("gate");
    let run = bench.cmd(["run", "--", "sh", "-c", "echo >begun; : <gate"]).spawn();
    bench.until_file("begun");
    bench.run("restore copy").says(4, &["works on the queue", &format!("kill -INT {}", run.pid())]);
    bench.open(&gate);
    run.wait().ok();
    bench.ok("restore copy");
}

#[test]
fn what_a_dead_pool_left_is_ended_before_a_restore() {
    let bench = Bench::new();
    bench.ok("config set max-retries 1");
    bench.ok("backup copy");
    bench.enqueue("echo $$ >>pids; exec sleep 1000");
    let mut pool = bench.pool("");
    let pids = bench.until_pids("pids", 1);
    pool.kill();
    let done = bench.run("restore copy");
    assert!(done.stderr.contains("took over its 1 job"), "{done:?}");
    done.ok();
    assert!(pids.iter().all(|pid| !super::support::lives(*pid)));
}

#[test]
fn what_a_dead_pool_left_keeps_a_restore_out_where_it_cannot_be_found() {
    let bench = Bench::new();
    bench.ok("config set max-retries 1");
    bench.ok("backup copy");
    bench.enqueue("echo $$ >>pids; exec sleep 1000");
    let mut pool = bench.pool("");
    let pids = bench.until_pids("pids", 1);
    pool.kill();
    let (file, elsewhere) = (bench.queue().join("queue.redb"), bench.path().join("elsewhere"));
    fs::rename(&file, &elsewhere).unwrap();
    let why = "died while it ran jobs (1), and the queue file, by which they could be found, is missing";
    bench.run("restore copy").says(4, &[why]);
    assert!(pids.iter().all(|pid| super::support::lives(*pid)), "it may be another queue's");
    fs::rename(&elsewhere, &file).unwrap();
    bench.ok("restore copy");
    assert!(pids.iter().all(|pid| !super::support::lives(*pid)));
}

#[test]
fn what_is_no_sound_backup_is_refused_and_changes_nothing() {
    let bench = filled();
    bench.ok("backup copy");
    let before = jobs(&bench, ".queuectl");
    bench.run("restore nowhere").says(3, &["there is no backup in nowhere"]);
    fs::create_dir(bench.file("empty")).unwrap();
    bench.run("restore empty").says(3, &["there is no backup in empty"]);
    bench.run("restore .queuectl").says(4, &["is the queue itself"]);
    fs::create_dir(bench.file("mine")).unwrap();
    fs::write(bench.file("mine/work"), "mine").unwrap();
    bench.run("--db mine restore copy").says(4, &["is there already and not empty"]);
    let file = bench.file("copy/queue.redb");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    bench.run("restore copy").fails(5);
    assert_eq!(jobs(&bench, ".queuectl"), before);
    assert_eq!(names(bench.path()), [".queuectl", "copy", "empty", "mine"]);
}

/// Starts a command and kills it after a while; says whether it had ended before.
fn killed_after(bench: &Bench, line: &str, wait: Duration) -> bool {
    let mut process = bench.cmd(line.split_whitespace()).spawn();
    let over = std::sync::mpsc::channel::<()>();
    // Moments are what this is about: nothing tells when the interesting ones come.
    let _ = over.1.recv_timeout(wait);
    process.kill();
    process.wait().code == 0
}

/// How often each command is killed.
const ROUNDS: u32 = 12;

#[test]
fn a_kill_at_any_moment_leaves_all_or_nothing() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("seq 3000\n".repeat(40)).run().ok();
    bench.work();
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(200)).run().ok();
    bench.ok("backup first");
    let first = jobs(&bench, "first");
    bench.enqueue("echo later");
    let second = jobs(&bench, ".queuectl");
    let watch = super::support::Watch::start();
    bench.ok("backup second");
    let whole = watch.elapsed();
    let (mut copies, mut swaps) = (0, 0);
    let mut expected = second.clone();
    for n in 0..ROUNDS {
        let wait = whole * (n + 1) / (ROUNDS - 3);
        killed_after(&bench, &format!("backup copy{n}"), wait);
        if bench.file(&format!("copy{n}")).exists() {
            bench.ok(&format!("--db copy{n} check"));
            assert_eq!(jobs(&bench, &format!("copy{n}")), expected, "{n}");
            copies += 1;
        }
        let (source, other) = if expected == first { ("second", &second) } else { ("first", &first) };
        killed_after(&bench, &format!("restore {source}"), wait);
        bench.check();
        let now = jobs(&bench, ".queuectl");
        assert!(now == expected || now == *other, "{n}: neither the one nor the other");
        swaps += usize::from(now == *other);
        expected = now;
    }
    println!("{copies} copies and {swaps} restores in {ROUNDS} rounds each; a whole backup takes {whole:?}");
    bench.ok("restore first");
    bench.ok("backup last");
    let scraps: Vec<String> = names(bench.path()).into_iter().filter(|name| name.contains(".partial-")).collect();
    assert!(scraps.iter().all(|name| name.starts_with(".copy")), "{scraps:?}");
    for n in 0..ROUNDS {
        let folder = bench.file(&format!("copy{n}"));
        let _ = fs::remove_dir_all(&folder);
        bench.ok(&format!("backup copy{n}"));
    }
    assert!(!names(bench.path()).iter().any(|name| name.contains(".partial-")));
}
