//! A full disk: it is said, nothing acknowledged is lost, and work goes on by itself once there is room.

use nix::sys::signal::Signal;
use queuectl::worker::noted;

use super::support::{Bench, Process, lives, with_mounts};

/// Enough for a queue and what a test adds to it.
const SIZE: &str = "size=6m";
/// What a job prints to need room in the queue file when it finishes.
const PRINTS: &str = "head -c 3900 /dev/zero | tr '\\0' x";

/// The number of jobs in the queue.
fn total(bench: &Bench) -> u64 {
    bench.json("status --json")["total"].as_u64().unwrap()
}

/// Enqueues on a disk that fills up until that is refused; the ids that were acknowledged.
fn enqueue_until_refused(bench: &Bench) -> Vec<String> {
    let mut ids = Vec::new();
    bench.disk().fill();
    loop {
        let done = bench.cmd(["enqueue", "--quiet", "-c", &format!(": {}", "x".repeat(3_000))]).run();
        if done.code != 0 {
            done.says(5, &["the queue could not be written to the end", "No space left on device", "queuectl status"]);
            return ids;
        }
        ids.push(done.ok().trim().to_owned());
        assert!(ids.len() < 1_000, "it does not fill up");
    }
}

#[test]
fn enqueue_says_so_and_loses_nothing() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        bench.enqueue("true");
        let ids = enqueue_until_refused(&bench);
        // Again and again: nothing gets stuck.
        for _ in 0..3 {
            let refused = bench.cmd(["enqueue", "-c", &format!(": {}", "y".repeat(100_000))]).run();
            refused.says(5, &["No space left on device"]);
        }
        let many = "true\n".repeat(20_000);
        for args in [vec!["enqueue", "-"], vec!["run", "-"]] {
            bench.cmd(args).stdin(many.clone()).run().says(5, &["No space left on device"]);
        }
        let before = total(&bench);
        for id in &ids {
            assert_eq!(bench.state(id), "pending");
        }
        bench.disk().make_room();
        bench.check();
        // What was refused is not there, except for what says that it does not know.
        assert!(before <= ids.len() as u64 + 2, "{before} of {}", ids.len());
        assert_eq!(bench.cmd(["enqueue", "-"]).stdin(many).run().ok(), "✓ 20000 jobs enqueued\n");
        assert_eq!(total(&bench), before + 20_000);
        bench.is_clean();
    });
}

#[test]
fn a_large_batch_that_fills_the_disk_is_taken_away_and_work_goes_on() {
    with_mounts(|| {
        let bench = Bench::on_small_disk("size=10m");
        bench.enqueue("true");
        let many = bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(150_000)).run();
        many.says(5, &["No space left on device", "nothing was enqueued"]);
        assert_eq!(total(&bench), 1);
        bench.enqueue("true");
        bench.cmd(["enqueue", "-"]).stdin("echo hi\n".repeat(300)).run().ok();
        bench.work().ok();
        bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(2_000)).run().ok();
        bench.ok("compact");
        assert_eq!(total(&bench), 2_302);
        bench.is_clean();
    });
}

#[test]
fn what_finds_no_room_says_so_with_the_code_for_that() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        bench.enqueue("true");
        bench.disk().fill();
        for line in ["worker start --until-empty", "export --output copy", "backup copy"] {
            bench.run(line).says(5, &["No space left on device"]);
        }
        bench.disk().make_room();
        bench.work().ok();
        bench.is_clean();
    });
}

#[test]
fn a_queue_is_made_whole_or_not_at_all() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        let mut refused = 0;
        for pages in 0..60 {
            bench.disk().fill_but(pages * 4_096);
            let done = bench.run("enqueue -c true");
            if done.code == 0 {
                break;
            }
            refused += 1;
            assert_eq!(done.code, 5, "{pages} pages: {done:?}");
            assert!(done.stderr.contains("No space left on device"), "{pages} pages: {done:?}");
            assert!(!done.stderr.contains("panic"), "{pages} pages: {done:?}");
            bench.disk().make_room();
        }
        assert!(refused > 5, "{refused}");
        bench.disk().make_room();
        bench.enqueue("true");
        bench.work().ok();
        bench.is_clean();
    });
}

/// A pool on a small disk with jobs that have printed what needs room and wait at a gate.
fn pool_with_jobs_at_a_gate(bench: &Bench, jobs: usize) -> Process {
    let line = format!("{PRINTS}; echo x >>started; read _ <gate\n");
    bench.cmd(["enqueue", "--quiet", "-"]).stdin(line.repeat(jobs)).run().ok();
    let pool = bench.pool(&format!("--count {jobs}"));
    bench.until_lines("started", jobs);
    pool
}

const JOBS: usize = 24;

/// Lets all jobs at the gate go on, with no room for anything; until the pool says that it cannot commit.
fn end_them_on_a_full_disk(bench: &Bench, pool: &mut Process) {
    bench.disk().fill();
    // Held open by this process until all have read their line: a fifo needs no room.
    let mut gate = std::fs::File::options().read(true).write(true).open(bench.file("gate")).unwrap();
    std::io::Write::write_all(&mut gate, "\n".repeat(JOBS).as_bytes()).unwrap();
    pool.stderr.until("No space left on device");
    bench.until("all jobs have ended", || bench.left().len() <= 1);
    // The pool sees their ends a moment later.
    let board = std::fs::File::open(bench.queue().join("run").join(pool.id())).unwrap();
    bench.until("all ends are noted", || noted(&board).unwrap().iter().all(|run| run.outcome.is_some()));
}

#[test]
fn jobs_that_end_on_a_full_disk_keep_their_outcomes_without_a_restart() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        bench.gate("gate");
        let mut pool = pool_with_jobs_at_a_gate(&bench, JOBS);
        end_them_on_a_full_disk(&bench, &mut pool);
        let said = pool.stderr.text();
        assert_eq!(said.matches("No space left").count(), 1, "it is said once: {said}");
        bench.run("enqueue -c true").says(5, &["No space left on device"]);
        assert!(bench.json("status --json")["jobs"]["processing"].as_u64().unwrap() > 0);
        bench.disk().make_room();
        bench.cmd(["wait", "--all", "--timeout", "60s"]).run().ok();
        let after = bench.enqueue("true");
        bench.until_state(&after, "completed");
        for job in bench.json("list --json").as_array().unwrap() {
            assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("completed"), Some(1)), "{job}");
        }
        assert_eq!(bench.cmd(["logs", "1"]).run().ok(), "x".repeat(3_900));
        pool.signal(Signal::SIGTERM);
        pool.wait().ok();
        bench.is_clean();
    });
}

#[test]
fn a_third_signal_ends_a_pool_on_a_full_disk_and_the_next_takes_its_outcomes() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        bench.gate("gate");
        let mut pool = pool_with_jobs_at_a_gate(&bench, JOBS);
        end_them_on_a_full_disk(&bench, &mut pool);
        for said in ["stopping: no job is running", "stopping"] {
            pool.signal(Signal::SIGTERM);
            pool.stderr.until(said);
        }
        pool.signal(Signal::SIGTERM);
        let pid = pool.pid();
        let done = pool.wait();
        assert!(done.code == 5 && !lives(pid), "{done:?}");
        bench.disk().make_room();
        bench.work().ok();
        for job in bench.json("list --json").as_array().unwrap() {
            assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("completed"), Some(1)), "{job}");
        }
        bench.is_clean();
    });
}

#[test]
fn a_job_that_fills_the_disk_sees_that_itself_and_keeps_what_it_wrote() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        let told = tempfile::NamedTempFile::new().unwrap();
        let command = format!("head -c 20000000 /dev/zero 2>{}; echo code $? >>{0}", told.path().display());
        let job = serde_json::json!({"command": command, "max_retries": 0});
        let id = bench.enqueue_json(&job);
        let pool = bench.pool("");
        let told = || std::fs::read_to_string(told.path()).unwrap();
        bench.until("the job has ended", || told().contains("code"));
        assert!(told().contains("No space left on device") && told().contains("code 1"), "{}", told());
        bench.disk().remount("size=40m");
        bench.until("it has its outcome", || ["completed", "dead"].contains(&bench.state(&id).as_str()));
        let kept = bench.cmd(["logs", &id]).run();
        assert!(kept.stdout.len() > 1_000_000, "{} bytes: {}", kept.stdout.len(), kept.stderr);
        let after = bench.enqueue("echo hi");
        bench.until_state(&after, "completed");
        pool.signal(Signal::SIGTERM);
        pool.wait().ok();
        bench.is_clean();
    });
}

#[test]
fn a_pool_that_finds_no_room_to_begin_says_so_and_leaves_the_queue_as_it_was() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        bench.enqueue("true");
        bench.disk().fill();
        for line in ["worker start --until-empty", "run -- true"] {
            bench.run(line).says(5, &["No space left on device"]);
        }
        bench.disk().make_room();
        bench.work().ok();
        assert_eq!(bench.state("1"), "completed");
        bench.is_clean();
    });
}

#[test]
fn without_inodes_jobs_wait_for_their_output_files() {
    with_mounts(|| {
        let bench = Bench::on_small_disk("size=6m,nr_inodes=40");
        bench.enqueue("echo hi");
        let mut used = 0;
        while std::fs::File::create(bench.file(&format!("inode{used}"))).is_ok() {
            used += 1;
        }
        let done = bench.work();
        assert!(done.code != 0 && done.stderr.contains("No space left on device"), "{done:?}");
        // What needs no new file goes on.
        bench.enqueue("echo there");
        (0..used).for_each(|n| std::fs::remove_file(bench.file(&format!("inode{n}"))).unwrap());
        bench.work();
        bench.cmd(["wait", "--all", "--timeout", "60s"]).run().ok();
        assert_eq!(bench.cmd(["logs", "1"]).run().ok(), "hi\n");
        bench.is_clean();
    });
}

#[test]
fn what_is_written_beside_the_queue_says_so_too() {
    with_mounts(|| {
        let bench = Bench::on_small_disk(SIZE);
        bench.enqueue("true");
        bench.disk().fill();
        let config = bench.path().to_owned();
        bench.run("man pages").says(5, &["cannot write to pages: No space left on device"]);
        let install = bench.cmd(["worker", "install-service"]).env("XDG_CONFIG_HOME", &config).run();
        install.says(5, &["queuectl.service: No space left on device"]);
    });
}
