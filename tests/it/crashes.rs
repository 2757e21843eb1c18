//! kill -9: what becomes of a pool's jobs when it dies. At random moments they die in the test `kill_storm`.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use queuectl::model::{Command, JobSpec};
use queuectl::queue::{Folder, Queue};
use queuectl::store::{Asked, ClaimCache, PoolInfo, Serves};

use super::support::{Bench, Watch, lives};

/// What is promised after a kill -9, and what a busy machine may add to it.
const AGAIN_WITHIN: Duration = Duration::from_secs(2);
const SLOW_MACHINE: Duration = Duration::from_secs(4);

/// A job that hangs the first time, with children of every sort, and the second time looks whether they are gone.
const HANGS_ONCE: &str = "\
    if [ $QUEUECTL_ATTEMPT = 1 ]; then
        trap '' TERM
        sleep 100 & echo $! >>pids
        setsid sleep 100 & echo $! >>pids
        (trap '' TERM; while :; do sleep 100; done) & echo $! >>pids
        echo $$ >>pids
        while :; do sleep 100; done
    fi
    for pid in $(cat pids); do
        state=Z
        read _ _ state _ 2>/dev/null </proc/$pid/stat
        [ $state = Z ] || echo $pid $state >>overlap
    done
    echo again";

fn ran_again_without_a_failure(bench: &Bench, id: &str) {
    let job = bench.show(id);
    assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("completed"), Some(2)), "{job}");
    assert_eq!(bench.outcomes(id), ["lost", "completed"]);
    assert_eq!(bench.ok(&format!("logs {id}")), "again\n");
    assert_eq!(bench.text("overlap"), "", "the first copy still ran");
}

#[test]
fn another_pool_takes_over_within_two_seconds() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&serde_json::json!({"command": HANGS_ONCE, "max_retries": 0}));
    let mut first = bench.pool("");
    let pids = bench.until_pids("pids", 4);
    let mut second = bench.pool("");
    let watch = Watch::start();
    first.kill();
    bench.until_state(&id, "completed");
    let took = watch.elapsed();
    println!("job of a killed pool, its processes ignoring SIGTERM, completed again after {took:?}");
    assert!(took < AGAIN_WITHIN + SLOW_MACHINE, "{took:?}");
    assert!(pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
    ran_again_without_a_failure(&bench, &id);
    second.stderr.until("took over its 1 job");
    second.signal(Signal::SIGINT);
    second.wait().ok();
    bench.is_clean();
}

#[test]
fn the_next_pool_takes_over() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&serde_json::json!({"command": HANGS_ONCE, "max_retries": 0}));
    let mut first = bench.pool("");
    bench.until_pids("pids", 4);
    first.kill();
    let status = bench.ok("status");
    assert!(status.contains("died; its 1 job will run again when a pool starts"), "{status}");
    assert!(status.contains("No pool is running"), "{status}");
    assert_eq!(bench.state(&id), "processing");
    bench.pool("--until-empty").wait().ok();
    ran_again_without_a_failure(&bench, &id);
    bench.is_clean();
}

#[test]
fn an_end_that_the_pool_saw_is_taken_from_its_board() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let job = |end: &str| {
        let command = format!("echo $QUEUECTL_JOB_ID >>ledger; : <gate; echo out; echo err >&2; {end}");
        bench.enqueue_json(&serde_json::json!({"command": command, "max_retries": 0}))
    };
    let (good, bad, killed) = (job("exit 0"), job("exit 3"), job("kill -9 $$"));
    let mut pool = bench.pool("--count 3");
    let pool_id = pool.id().parse().unwrap();
    bench.until_lines("ledger", 3);
    let queue = Queue::open(&Folder::existing(&bench.queue()).unwrap().unwrap(), Box::new(|| {})).unwrap();
    let turn = bench.take_turn();
    bench.open(&gate);
    bench.until_at_turnstile(pool.pid());
    // Each has ended, and its board says so, but no outcome can be committed.
    bench.until("their ends are on the board", || queuectl::worker::activity(&queue, &pool_id).is_empty());
    pool.kill();
    queue.leave();
    turn.release();
    assert_eq!(bench.pool("--until-empty").wait().code, 1, "one of the three is dead");
    assert_eq!(bench.lines("ledger").len(), 3, "each ran once");
    for (id, state, outcome, code, signal) in [
        (&good, "completed", "completed", Some(0), None),
        (&bad, "dead", "failed", Some(3), None),
        (&killed, "dead", "failed", None, Some(9)),
    ] {
        let job = bench.show(id);
        assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some(state), Some(1)), "{job}");
        let run = &job["history"][0];
        assert_eq!(run["outcome"], outcome, "{job}");
        assert_eq!((run["exit_code"].as_i64(), run["signal"].as_i64()), (code, signal), "{job}");
        let logs = bench.run(&format!("logs {id}"));
        assert_eq!((logs.stdout.as_slice(), logs.stderr.as_str()), (b"out\n".as_slice(), "err\n"));
    }
    bench.is_clean();
}

/// A pool that claims a job and is never seen again.
fn claims_and_vanishes(bench: &Bench, boot_id: u128) {
    let folder = Folder::existing(&bench.queue()).unwrap().unwrap();
    let queue = Queue::open(&folder, Box::new(|| {})).unwrap();
    let file = std::fs::metadata(queue.file()).unwrap();
    let pool = PoolInfo {
        id: "gone0".parse().unwrap(),
        pid: 1,
        boot_id,
        pid_namespace: std::fs::metadata("/proc/self/ns/pid").unwrap().ino(),
        nonce: 1,
        file: (file.dev(), file.ino()),
        started: queue.clock().now(),
        workers: 1,
        serves: Serves::AllQueues,
        asked: Asked::Work,
        log: None,
        ended: None,
    };
    let claims = queue.write(|tx| {
        assert!(tx.register(&pool)?);
        tx.claim(&pool.id, &Serves::AllQueues, 1, &mut ClaimCache::default())
    });
    assert_eq!(claims.unwrap().len(), 1);
}

#[test]
fn a_claim_that_was_never_started_is_given_back() {
    let this_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().replace(['-', '\n'], "");
    let another_boot = 1;
    for boot_id in [u128::from_str_radix(&this_boot, 16).unwrap(), another_boot] {
        let bench = Bench::new();
        let id = bench.enqueue("echo ran >>ledger");
        claims_and_vanishes(&bench, boot_id);
        assert_eq!(bench.state(&id), "processing");
        bench.pool("--until-empty").wait().ok();
        assert_eq!(bench.outcomes(&id), ["completed"]);
        assert_eq!(bench.lines("ledger"), ["ran"]);
        bench.is_clean();
    }
}

/// A pool can be killed before it has a row, and after that is closed: no claim is left, but files are.
#[test]
fn what_a_pool_without_a_row_left_goes_with_the_next() {
    let bench = Bench::new();
    bench.enqueue("true");
    let queue = bench.queue();
    std::fs::create_dir_all(queue.join("output/zz99")).unwrap();
    for left in ["run/.new-0123456789abcdef", "run/zz99", "output/zz99/0.out"] {
        std::fs::write(queue.join(left), "").unwrap();
    }
    bench.work().ok();
    for (folder, names) in [("run", vec!["turn"]), ("output", vec![])] {
        let found = std::fs::read_dir(queue.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(found.collect::<Vec<_>>(), names);
    }
}

#[test]
fn an_output_that_cannot_be_made_fails_its_job_and_holds_up_no_other() {
    let bench = Bench::new();
    bench.enqueue("rm -r \"$QUEUECTL_DB/output\" && echo >\"$QUEUECTL_DB/output\"");
    let id = bench.enqueue_json(&serde_json::json!({"command": "true", "max_retries": 0}));
    let last = bench.pool("--until-empty").wait();
    assert_eq!(last.code, 1, "{last:?}");
    let job = bench.show(&id);
    assert!(job["error"].as_str().unwrap().starts_with("its output files cannot be made"), "{job}");
}

#[test]
fn a_job_that_kills_its_pool_three_times_is_dead() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&serde_json::json!({"command": "kill -9 $PPID; sleep 100", "max_retries": 0}));
    for losses in 0..3 {
        let killed = bench.pool("").wait();
        assert_eq!(killed.code, 128 + 9, "{losses}: {killed:?}");
    }
    let last = bench.pool("--until-empty").wait();
    assert_eq!(last.code, 1, "{last:?}");
    let job = bench.show(&id);
    assert_eq!((job["state"].as_str(), job["reason"].as_str()), (Some("dead"), Some("lost")), "{job}");
    assert_eq!(bench.outcomes(&id), ["lost"; 3]);
    bench.is_clean();
}

#[test]
fn without_a_limit_a_job_may_lose_any_number_of_pools() {
    let bench = Bench::new();
    let id = bench.enqueue("[ $QUEUECTL_ATTEMPT -gt 4 ] || { kill -9 $PPID; sleep 100; }");
    bench.ok("config set max-losses 0");
    for _ in 0..4 {
        assert_eq!(bench.pool("").wait().code, 128 + 9);
    }
    bench.pool("--until-empty").wait().ok();
    assert_eq!(bench.outcomes(&id), ["lost", "lost", "lost", "lost", "completed"]);
    bench.is_clean();
}

/// What others enqueue while a pool waits for the file to commit an outcome must not be overlooked: that commit
/// sees it, but claims nothing.
#[test]
fn work_that_comes_just_before_an_outcome_is_committed_is_seen() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let first = bench.enqueue(": <gate");
    let pool = bench.pool("--count 2");
    bench.until("the job waits", || bench.left().len() == 1);
    let folder = Folder::existing(&bench.queue()).unwrap().unwrap();
    let queue = Queue::open(&folder, Box::new(|| {})).unwrap();
    let spec = JobSpec::new(Command::Shell(b"echo hi".to_vec()), bench.path());
    let second = queue.write(|tx| {
        // The pool's own commit comes next after this transaction.
        bench.open(&gate);
        bench.until_next_writer(pool.pid());
        tx.enqueue(std::slice::from_ref(&spec))
    });
    let second = second.unwrap()[0].id.to_string();
    queue.leave();
    bench.until_state(&first, "completed");
    bench.until_state(&second, "completed");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}
