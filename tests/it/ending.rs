//! The end of a job's processes: by timeout, by cancel, by themselves; and no way to a terminal.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::support::{Bench, Terminal, Watch, lives, state_letter};

/// Children that ignore SIGTERM, that called setsid, and that did both, their pids in `pids`.
const TREE: &str = "\
    sleep 100 & echo $! >>pids
    setsid sleep 100 & echo $! >>pids
    trap '' TERM
    sleep 100 & echo $! >>pids
    setsid sh -c 'sleep 100; sleep 100' & echo $! >>pids
    setsid sh -c 'setsid sleep 100 & echo $! >>pids; sleep 100' &
    sleep 100; sleep 100; echo survived >>mark";

#[test]
fn a_timeout_ends_the_whole_tree() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&json!({"command": TREE, "timeout": "700ms", "max_retries": 0}));
    bench.ok("config set kill-grace 300ms");
    let watch = Watch::start();
    let pool = bench.cmd(["worker", "start", "--until-empty"]).run();
    assert_eq!(pool.code, 1, "{pool:?}");
    println!("timeout 700ms, grace 300ms: over after {:?}", watch.elapsed());
    assert!(watch.elapsed() >= Duration::from_secs(1), "the grace was cut short");
    assert!(bench.until_pids("pids", 5).iter().all(|pid| !lives(*pid)));
    assert_eq!(bench.text("mark"), "");
    let job = bench.show(&id);
    assert_eq!((job["state"].as_str(), job["reason"].as_str()), (Some("dead"), Some("timed_out")), "{job}");
    assert_eq!(bench.outcomes(&id), ["timed_out"]);
    let error = job["error"].as_str().unwrap();
    assert!(error.contains("timed out after 700ms") && error.contains("timeout"), "{error}");
    bench.is_clean();
}

#[test]
fn a_job_that_heeds_sigterm_is_not_waited_for_longer() {
    let bench = Bench::new();
    let command = "trap 'echo tidy >>mark; exit 0' TERM; sleep 100 & wait";
    let id = bench.enqueue_json(&json!({"command": command, "timeout": 0.5, "max_retries": 0}));
    bench.ok("config set kill-grace 1h");
    assert_eq!(bench.cmd(["worker", "start", "--until-empty"]).run().code, 1);
    assert_eq!(bench.lines("mark"), ["tidy"], "it was asked once");
    // That it exited well does not mean that it did what it was to do.
    assert_eq!(bench.outcomes(&id), ["timed_out"]);
    bench.is_clean();
}

/// SIGTERM would wait in a process that is stopped.
#[test]
fn a_job_that_is_stopped_is_continued_to_be_ended() {
    let bench = Bench::new();
    let command = "trap 'echo tidy >>mark; exit 0' TERM; echo $$ >pid; kill -STOP $$; sleep 100";
    // No time passes for a job that is stopped.
    let id = bench.enqueue_json(&json!({"command": command, "timeout": 2, "max_retries": 0}));
    bench.ok("config set kill-grace 1h");
    let pool = bench.pool("");
    let pid = bench.until_pids("pid", 1)[0];
    bench.until("it stands", || state_letter(pid) == 'T');
    bench.ok(&format!("cancel {id}"));
    assert_eq!((bench.lines("mark"), bench.outcomes(&id)), (vec!["tidy".to_owned()], vec!["cancelled".to_owned()]));
    drop(pool);
    bench.is_clean();
}

#[test]
fn cancel_ends_the_whole_tree_and_waits_for_that() {
    let bench = Bench::new();
    let id = bench.enqueue(TREE);
    bench.ok("config set kill-grace 300ms");
    let pool = bench.pool("");
    let pids = bench.until_pids("pids", 5);
    let said = bench.ok(&format!("cancel {id}"));
    assert_eq!(said, format!("✓ Job {id} cancelled\n"));
    assert!(pids.iter().all(|pid| !lives(*pid)), "cancel returned before the tree was gone");
    assert_eq!(bench.state(&id), "cancelled");
    assert_eq!(bench.outcomes(&id), ["cancelled"]);
    assert_eq!(bench.text("mark"), "");
    // The worker is free again.
    let next = bench.enqueue("true");
    bench.until_state(&next, "completed");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn a_cancelled_job_of_a_dead_pool_is_ended_by_cancel_itself() {
    let bench = Bench::new();
    let id = bench.enqueue(TREE);
    let mut pool = bench.pool("");
    let pids = bench.until_pids("pids", 5);
    pool.kill();
    assert!(pids.iter().any(|pid| lives(*pid)));
    bench.ok(&format!("cancel {id}"));
    assert!(pids.iter().all(|pid| !lives(*pid)));
    assert_eq!(bench.state(&id), "cancelled");
    bench.is_clean();
}

#[test]
fn what_stays_in_the_group_at_a_normal_end_is_ended_and_said() {
    let bench = Bench::new();
    let command = "\
        sleep 100 & echo $! >>group
        (trap '' TERM; exec sleep 100) & echo $! >>group
        setsid sh -c 'echo $$ >session; exec sleep 100' &
        until [ -s session ]; do sleep 0.01; done";
    let id = bench.enqueue(command);
    let pool = bench.cmd(["worker", "start", "--until-empty"]).run();
    let line = String::from_utf8_lossy(&pool.stdout).into_owned();
    assert!(line.contains("ended 2 processes left in the background"), "{line}");
    assert_eq!(bench.outcomes(&id), ["completed"]);
    assert!(bench.until_pids("group", 2).iter().all(|pid| !lives(*pid)));
    let daemon = bench.until_pids("session", 1)[0];
    assert!(lives(daemon), "what called setsid is left alone");
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    bench.until("the daemon is gone", || !lives(daemon));
    bench.is_clean();
}

#[test]
fn standard_input_is_empty() {
    let bench = Bench::new();
    let id = bench.enqueue("cat; readlink /proc/self/fd/0");
    bench.pool("--until-empty").wait().ok();
    assert_eq!(bench.ok(&format!("logs {id}")), "/dev/null\n");
    bench.is_clean();
}

/// As a passphrase prompt does. The pool is on a terminal: as the leader of its session, or below a shell.
#[test]
fn a_job_that_asks_the_terminal_fails_at_once() {
    for under in [&["setsid", "-c"][..], &["setsid", "-c", "sh", "-c", "\"$@\"; exit $?", "sh"]] {
        let bench = Bench::new();
        let ask = bench.enqueue_json(&json!({"command": "read x </dev/tty", "max_retries": 0, "timeout": "none"}));
        let say = bench.enqueue_json(&json!({"command": "echo x >/dev/tty", "max_retries": 0, "timeout": "none"}));
        let terminal = Terminal::new();
        let mut pool = bench.cmd(["worker", "start"]).under(under).stdin_from(terminal.end());
        pool.stderr.until("started");
        let process = pool_pid(&bench);
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        assert_ne!(fields[4], "0", "the pool has a controlling terminal: {stat}");
        assert_eq!(fields[3] == process.to_string(), under.len() == 2, "leader of its session: {stat}");
        bench.until_state(&ask, "dead");
        bench.until_state(&say, "dead");
        assert!(bench.run(&format!("logs {ask}")).stderr.contains("/dev/tty"));
        // The pool still hears Ctrl-C.
        terminal.types(b"\x03");
        let end = pool.wait();
        assert!(end.stderr.contains("pool stopped"), "{end:?}");
        bench.is_clean();
    }
}

/// The terminal goes away: SIGHUP, and every write to it fails.
#[test]
fn a_terminal_that_goes_away_stops_the_pool_gently() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let id = bench.enqueue("echo started >mark; : <gate");
    let terminal = Terminal::new();
    let mut pool = bench.cmd(["worker", "start"]).under(&["setsid", "-c"]).spawn_with(
        terminal.end(),
        terminal.end(),
        terminal.end(),
    );
    bench.until_file("mark");
    drop(terminal);
    bench.open(&gate);
    assert_eq!(pool.wait().unwrap().code(), Some(0));
    assert_eq!(bench.outcomes(&id), ["completed"]);
    bench.is_clean();
}

/// The process of the one pool.
fn pool_pid(bench: &Bench) -> i64 {
    bench.json("worker list --json")[0]["pid"].as_i64().unwrap()
}
