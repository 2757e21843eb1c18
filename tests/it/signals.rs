//! Signals to a pool: stop gently, firmly, at once; stand still; what was ignored at the start.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::support::{Bench, Watch, lives, state_letter};

#[test]
fn the_first_signal_lets_running_jobs_finish() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let bench = Bench::new();
        let gate = bench.gate("gate");
        let running = bench.enqueue("echo started >mark; : <gate; echo done");
        let waiting = bench.enqueue("echo too early >>ledger");
        let mut pool = bench.pool("");
        bench.until_file("mark");
        pool.signal(signal);
        let said = pool.stderr.until("waiting for 1 job");
        assert!(
            said.contains(&format!("({running})")) && said.contains("`queuectl worker stop --now`, ends what runs"),
            "{said}"
        );
        assert_eq!(bench.state(&running), "processing");
        bench.open(&gate);
        pool.wait().ok();
        assert_eq!(bench.outcomes(&running), ["completed"]);
        assert_eq!((bench.state(&waiting).as_str(), bench.text("ledger").as_str()), ("pending", ""));
        bench.is_clean();
    }
}

/// A job that says when it gets SIGTERM and goes on.
const STUBBORN: &str = "trap 'echo term >>mark' TERM; echo started >>mark; while :; do sleep 100 & wait; done";

#[test]
fn the_second_signal_ends_what_runs() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.ok("config set kill-grace 500ms");
    let stubborn = bench.enqueue_json(&serde_json::json!({"command": STUBBORN, "max_retries": 0}));
    let polite = bench.enqueue("sleep 100");
    let mut pool = bench.pool("--count 2");
    bench.until_lines("mark", 1);
    bench.until("both run", || bench.json("status --json")["jobs"]["processing"] == 2 && bench.left().len() >= 3);
    pool.signal(Signal::SIGTERM);
    pool.stderr.until("waiting for 2 jobs");
    let watch = Watch::start();
    pool.signal(Signal::SIGTERM);
    pool.stderr.until("ending 2 jobs");
    pool.wait().ok();
    assert!(watch.elapsed() >= Duration::from_millis(500), "it was killed before its grace was over");
    assert_eq!(bench.lines("mark"), ["started", "term"]);
    for id in [&stubborn, &polite] {
        let job = bench.show(id);
        assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("pending"), Some(1)), "{job}");
        assert_eq!(bench.outcomes(id), ["interrupted"]);
    }
    bench.is_clean();
}

#[test]
fn the_third_signal_kills() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.ok("config set kill-grace 1h");
    let id = bench.enqueue(STUBBORN);
    let mut pool = bench.pool("");
    bench.until_lines("mark", 1);
    pool.signal(Signal::SIGINT);
    pool.stderr.until("waiting for");
    pool.signal(Signal::SIGINT);
    pool.stderr.until("once more kills");
    bench.until_lines("mark", 2);
    assert_eq!(bench.state(&id), "processing");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    assert_eq!((bench.state(&id).as_str(), bench.outcomes(&id)), ("pending", vec!["interrupted".to_owned()]));
    bench.is_clean();
}

#[test]
fn the_third_signal_kills_what_outlives_its_command() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.ok("config set kill-grace 1h");
    let id = bench.enqueue("(trap '' TERM; echo $$ >>mark; exec sleep 1000) & wait");
    let mut pool = bench.pool("");
    let leader = bench.until_pids("mark", 1)[0];
    pool.signal(Signal::SIGINT);
    pool.stderr.until("waiting for");
    pool.signal(Signal::SIGINT);
    pool.stderr.until("once more kills");
    bench.until("the command itself is gone", || !lives(leader));
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    assert_eq!(bench.state(&id), "pending");
    bench.is_clean();
}

#[test]
fn a_process_that_ignores_the_ends_of_children_runs_jobs_all_the_same() {
    let bench = Bench::new();
    bench.script("trap '' CHLD; exec queuectl run -- true").run().ok();
    bench.is_clean();
}

#[test]
fn a_run_that_is_stopped_exits_130_and_names_the_line_to_type() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    std::fs::write(bench.file("jobs"), "echo one; : <gate\necho two\n").unwrap();
    let mut run = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    run.stderr.until("new queue");
    bench.until("the first job runs", || bench.left().len() == 1);
    run.signal(Signal::SIGINT);
    run.stderr.until("waiting for 1 job");
    bench.open(&gate);
    let stopped = run.wait();
    assert_eq!(stopped.code, 130, "{stopped:?}");
    assert_eq!(stopped.stdout, b"one\n");
    let last = stopped.stderr.lines().last().unwrap();
    assert!(last.starts_with("  try: ") && last.ends_with(" run --resume -j 1 jobs"), "{last}");
    bench.is_clean();
}

/// As under nohup, and as for what a script starts with `&`.
#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let id = bench.enqueue("echo started >mark; : <gate");
    let pool = bench.pool_with("", |cmd| cmd.under(&["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"]));
    bench.until_file("mark");
    pool.signal(Signal::SIGHUP);
    pool.signal(Signal::SIGINT);
    let ignores = std::fs::read_to_string(format!("/proc/{}/status", pool.pid())).unwrap();
    assert!(ignores.lines().any(|line| line.starts_with("SigIgn:") && line.ends_with("1003")), "{ignores}");
    // Had one of the two counted as the first wish to stop, this one would be the second.
    pool.signal(Signal::SIGTERM);
    bench.open(&gate);
    pool.wait().ok();
    assert_eq!(bench.outcomes(&id), ["completed"]);
    bench.is_clean();
}

/// A service manager signals all processes of a service at once, in any order.
#[test]
fn a_job_that_dies_of_sigterm_just_before_its_pool_is_stopped_was_meant_to_stop() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&serde_json::json!({"command": "echo $$ >pid; exec sleep 100", "max_retries": 0}));
    let pool = bench.pool("");
    let job = bench.until_pids("pid", 1)[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(job), Signal::SIGTERM).unwrap();
    bench.until("the job is gone", || !lives(job));
    pool.signal(Signal::SIGTERM);
    pool.wait().ok();
    let job = bench.show(&id);
    assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("pending"), Some(1)), "{job}");
    assert_eq!(bench.outcomes(&id), ["interrupted"]);
    bench.is_clean();
}

#[test]
fn a_job_that_dies_of_sigterm_without_any_stop_has_failed() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&serde_json::json!({"command": "kill $$", "max_retries": 0}));
    let mut pool = bench.pool("");
    let watch = Watch::start();
    bench.until_state(&id, "dead");
    let took = watch.elapsed();
    // It waited a second for a stop that would explain it.
    assert!(took > Duration::from_millis(800) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(bench.show(&id)["history"][0]["signal"], 15);
    assert!(pool.stdout.until("dead").contains("killed by signal 15 (SIGTERM)"));
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

/// Ctrl-Z, and `fg` after longer than the jobs may run.
#[test]
fn a_pool_and_its_jobs_stand_still_together_and_time_with_them() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let job = "echo $$ >>pids; sleep 100 & echo $! >>pids; : <gate; kill $!; wait; echo done";
    let id = bench.enqueue_json(&serde_json::json!({"command": job, "timeout": 2, "max_retries": 0}));
    let pool = bench.pool("");
    let pids = bench.until_pids("pids", 2);
    let all_in = |letter| pids.iter().chain([&pool.pid()]).all(|pid| state_letter(*pid) == letter);
    pool.signal(Signal::SIGTSTP);
    bench.until("all stand still", || all_in('T'));
    // It does not stand still inside a transaction.
    let other = bench.enqueue("echo other");
    bench.nothing_happens_for(Duration::from_millis(2500));
    assert!(all_in('T'));
    pool.signal(Signal::SIGCONT);
    bench.until("none stands still", || pids.iter().all(|pid| state_letter(*pid) != 'T'));
    bench.open(&gate);
    bench.until("the job has ended", || bench.state(&id) != "processing");
    assert_eq!(bench.outcomes(&id), ["completed"], "{}", bench.show(&id));
    bench.until_state(&other, "completed");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

/// A pool at full speed commits all the time; whenever it is stopped, it is not in the middle of that.
#[test]
fn a_pool_that_stands_still_keeps_nobody_out() {
    let bench = Bench::new();
    bench.enqueue("true");
    std::fs::write(bench.file("jobs"), "true\n".repeat(20_000)).unwrap();
    let run = bench.cmd(["run", "--quiet", "jobs"]).spawn();
    let completed = || bench.json("status --json")["jobs"]["completed"].as_u64().unwrap();
    bench.until("the run is at full speed", || completed() > 50);
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        run.signal(Signal::SIGTSTP);
        bench.until("it stands still", || state_letter(run.pid()) == 'T');
        let watch = Watch::start();
        bench.enqueue("true");
        longest = longest.max(watch.elapsed());
        let before = completed();
        run.signal(Signal::SIGCONT);
        bench.until("it goes on", || completed() > before);
    }
    println!("the longest of 10 enqueues beside a pool that stands still: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    run.signal(Signal::SIGINT);
    assert_eq!(run.wait().code, 130);
    bench.is_clean();
}
