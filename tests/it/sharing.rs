//! Pools side by side: how jobs are shared, how pools are stopped and listed, and what never ends one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{Bench, Watch, lives, tool};

/// Enqueues so many jobs that write their id into `ledger` with a single write.
fn enqueue_many(bench: &Bench, count: usize) {
    let lines = "echo $QUEUECTL_JOB_ID >>ledger\n".repeat(count);
    bench.cmd(["enqueue", "--quiet", "-"]).stdin(lines).run().ok();
}

/// How often each job wrote its id.
fn ledger(bench: &Bench) -> BTreeMap<String, usize> {
    let mut ledger = BTreeMap::new();
    bench.lines("ledger").into_iter().for_each(|id| *ledger.entry(id).or_default() += 1);
    ledger
}

#[test]
fn three_pools_run_500_jobs_exactly_once_each() {
    const JOBS: usize = 500;
    let bench = Bench::new();
    enqueue_many(&bench, 1);
    let pools: Vec<_> = (0..3).map(|_| bench.pool("--count 2")).collect();
    let watch = Watch::start();
    enqueue_many(&bench, JOBS - 1);
    bench.cmd(["wait", "--all", "--timeout", "60s"]).run().ok();
    println!("{JOBS} jobs over 3 pools in {:?}", watch.elapsed());
    let ran = ledger(&bench);
    assert_eq!(ran.len(), JOBS);
    assert!(ran.values().all(|times| *times == 1), "{ran:?}");
    let jobs = bench.json("list --json");
    let jobs = jobs.as_array().unwrap();
    assert!(jobs.iter().all(|job| job["state"] == "completed" && job["attempts"] == 1));
    let workers: Vec<&str> = jobs.iter().map(|job| job["worker"].as_str().unwrap()).collect();
    let shares = pools.iter().map(|pool| workers.iter().filter(|worker| worker.starts_with(&pool.id())).count());
    let shares: Vec<usize> = shares.collect();
    println!("their shares: {shares:?}");
    assert!(shares.iter().all(|share| *share > 0) && shares.iter().sum::<usize>() == JOBS, "{shares:?}");
    assert_eq!(bench.ok("worker stop"), "✓ 3 pools stopped\n");
    for pool in pools {
        pool.wait().ok();
    }
    bench.is_clean();
}

#[test]
fn pools_come_and_go_while_others_work() {
    const JOBS: usize = 400;
    let bench = Bench::new();
    enqueue_many(&bench, JOBS);
    let stays = bench.cmd(["worker", "start", "--until-empty"]).spawn();
    let leaves = bench.pool("--count 2");
    let mut dies = bench.pool("--count 2");
    bench.until_lines("ledger", 80);
    leaves.signal(Signal::SIGTERM);
    bench.until_lines("ledger", 160);
    dies.kill();
    let comes = bench.cmd(["worker", "start", "--until-empty"]).spawn();
    leaves.wait().ok();
    stays.wait().ok();
    comes.wait().ok();
    let jobs = bench.json("list --json");
    let ran = ledger(&bench);
    for job in jobs.as_array().unwrap() {
        let (id, attempts) = (job["id"].as_str().unwrap(), job["attempts"].as_u64().unwrap());
        assert_eq!(job["state"], "completed", "{job}");
        // Only what ran in the killed pool can have run twice.
        let times = ran.get(id).copied().unwrap_or_default() as u64;
        assert!((1..=attempts).contains(&times), "{times}: {job}");
    }
    bench.is_clean();
}

#[test]
fn a_pool_serves_the_queues_that_it_is_told_to() {
    let bench = Bench::new();
    let gpu = bench.enqueue_json(&json!({"command": "true", "queue": "gpu"}));
    let other = bench.enqueue("true");
    bench.pool("--queue gpu --until-empty").wait().ok();
    assert_eq!((bench.state(&gpu).as_str(), bench.state(&other).as_str()), ("completed", "pending"));
    bench.is_clean();
}

#[test]
fn stop_waits_for_what_runs_and_says_what_it_waits_for() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let id = bench.enqueue("echo started >mark; : <gate");
    let pools = [bench.pool(""), bench.pool("--count 3")];
    bench.until_file("mark");
    let timed_out = bench.run("worker stop --timeout 300ms");
    let said = timed_out.fails(6);
    assert!(said.contains("timed out; 1 pool still running"), "{said}");
    assert!(said.trim_end().ends_with("try: queuectl worker stop --now"), "{said}");
    assert_eq!(bench.state(&id), "processing");
    let mut stop = bench.cmd(["worker", "stop"]).spawn();
    stop.stderr.until("waiting for 1 job to finish");
    bench.open(&gate);
    assert_eq!(stop.wait().ok(), "✓ 1 pool stopped\n");
    for pool in pools {
        assert!(!lives(pool.pid()) || pool.wait().code == 0);
    }
    assert_eq!(bench.outcomes(&id), ["completed"]);
    bench.is_clean();
}

#[test]
fn stop_now_ends_what_runs() {
    let bench = Bench::new();
    let id = bench.enqueue_json(&json!({"command": "echo started >mark; sleep 100", "max_retries": 0}));
    let pool = bench.pool("");
    bench.until_file("mark");
    assert_eq!(bench.ok("worker stop --now"), "✓ 1 pool stopped\n");
    pool.wait().ok();
    assert_eq!((bench.state(&id).as_str(), bench.outcomes(&id)), ("pending", vec!["interrupted".to_owned()]));
    bench.is_clean();
}

#[test]
fn with_no_pool_stop_says_so_and_recovers_the_dead() {
    let bench = Bench::new();
    let id = bench.enqueue("echo $$ >pid; sleep 100");
    assert_eq!(bench.ok("worker stop"), "No pool is running\n");
    let mut pool = bench.pool("");
    let job = bench.until_pids("pid", 1)[0];
    pool.kill();
    assert_eq!(bench.ok("worker stop"), "No pool is running\n");
    assert!(!lives(job));
    assert_eq!(bench.state(&id), "pending");
    bench.is_clean();
}

#[test]
fn stop_leaves_runs_alone_and_says_how_to_stop_them() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    bench.enqueue("true");
    let run = bench.cmd(["run", "--max-retries", "0", "--", "sh", "-c", "echo started >mark; : <gate; exit 4"]).spawn();
    bench.until_file("mark");
    let stop = bench.run("worker stop");
    let how = format!("kill -INT {}", run.pid());
    assert!(stop.stderr.contains("leaving the run of process") && stop.stderr.contains(&how), "{stop:?}");
    assert_eq!(stop.ok(), "No other pool is running\n");
    bench.open(&gate);
    assert_eq!(run.wait().code, 4);
    bench.is_clean();
}

#[test]
fn a_detached_pool_outlives_the_session_that_started_it() {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    let said = bench.cmd(["worker", "start", "--count", "2", "--detach"]).under(&["setsid", "-w"]).run().ok();
    assert!(said.starts_with("✓ Pool "), "{said}");
    let listed = bench.json("worker list --json");
    let pool = &listed[0];
    assert!(said.contains(pool["id"].as_str().unwrap()), "{said}");
    let pid = i32::try_from(pool["pid"].as_i64().unwrap()).unwrap();
    let log = std::path::PathBuf::from(pool["log"].as_str().unwrap());
    assert!(said.contains(&format!("process {pid}")) && said.contains(log.to_str().unwrap()), "{said}");
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"), "descriptor {fd}");
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string(), "it leads a session of its own");
    let (good, bad) = (bench.enqueue("echo hi"), bench.enqueue("exit 3"));
    bench.cmd(["wait", &good, &bad]).run().fails(1);
    assert_eq!(bench.ok("worker stop"), "✓ 1 pool stopped\n");
    bench.until("it is gone", || !lives(pid));
    let log = std::fs::read_to_string(log).unwrap();
    let lines_of = |job: String| log.lines().filter(|line| line.contains(&job)).count();
    assert_eq!((lines_of(format!("✓ {good} ")), lines_of(format!("✗ {bad} "))), (1, 1), "{log}");
    assert!(log.contains("exit code 3") && log.contains("pool stopped"), "{log}");
    let ended = bench.json("worker list --json");
    assert_eq!((ended[0]["state"].as_str(), ended[0]["end"].as_str()), (Some("ended"), Some("stopped")), "{ended}");
    assert_eq!(bench.ok("worker list"), "No pool is running\n");
    bench.is_clean();
}

/// Both streams lead nowhere from the first line on.
#[test]
fn a_terminal_that_cannot_be_written_to_never_ends_a_pool() {
    let bench = Bench::new();
    let ids = [bench.enqueue("echo hi"), bench.enqueue_json(&json!({"command": "exit 3", "max_retries": 0}))];
    let closed = || {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        write
    };
    let null = std::fs::File::open("/dev/null").unwrap();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut pool = bench.cmd(["worker", "start"]).spawn_with(null.try_clone().unwrap(), closed(), closed());
    for id in &ids {
        bench.until(&format!("{id} has ended"), || ["completed", "dead"].contains(&bench.state(id).as_str()));
    }
    bench.ok("worker stop");
    assert_eq!(pool.wait().unwrap().code(), Some(0));
    for (stdout, stderr, code) in [(Some(closed()), None, 0), (None, Some(full()), 0)] {
        let stdout = stdout.map_or_else(|| full().into(), std::process::Stdio::from);
        let stderr = stderr.map_or_else(|| closed().into(), std::process::Stdio::from);
        std::fs::write(bench.file("jobs"), "echo one\necho two >&2\necho three >>ran\n").unwrap();
        let run = bench.cmd(["run", "--fresh", "jobs"]).spawn_with(null.try_clone().unwrap(), stdout, stderr);
        assert_eq!(run.wait_with_output().unwrap().status.code(), Some(code));
    }
    assert_eq!(bench.lines("ran").len(), 2);
    bench.is_clean();
}

#[test]
fn status_names_what_runs_and_since_when() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    let id = bench.enqueue("echo started >mark; : <gate");
    let pool = bench.pool("--count 2");
    bench.until_file("mark");
    let text = bench.ok("status");
    for part in ["Queue Status", "processing", "Total", &format!("Pool {}", pool.id()), &id, "1 idle"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let line = text.lines().find(|line| line.contains(": <gate")).unwrap();
    assert!(line.contains(&format!("{}.", pool.id())) && line.contains("ms"), "{line}");
    let status = bench.json("status --json");
    let workers: Vec<&Value> = status["workers"].as_array().unwrap().iter().collect();
    assert_eq!(workers.len(), 2, "{status}");
    assert!(workers.iter().all(|worker| worker["pid"] == pool.pid() && worker["pool"] == pool.id()), "{status}");
    let jobs: BTreeSet<Option<&str>> = workers.iter().map(|worker| worker["job"].as_str()).collect();
    assert_eq!(jobs, BTreeSet::from([None, Some(id.as_str())]));
    assert!(bench.show(&id)["started_at"].is_string());
    bench.open(&gate);
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

/// A pool that commits without pause lets others in between.
#[test]
fn a_pool_at_full_speed_never_keeps_an_enqueue_out() {
    const ENQUEUES: usize = 50;
    let bench = Bench::new();
    std::fs::write(bench.file("jobs"), "true\n".repeat(20_000)).unwrap();
    bench.enqueue("true");
    let run = bench.cmd(["run", "--quiet", "jobs"]).spawn();
    bench.until("the run is at full speed", || bench.json("status --json")["jobs"]["completed"].as_u64().unwrap() > 50);
    let mut took: Vec<Duration> = (0..ENQUEUES)
        .map(|_| {
            let watch = Watch::start();
            bench.enqueue("true");
            watch.elapsed()
        })
        .collect();
    assert!(bench.json("status --json")["runs"][0]["unfinished"].as_u64().unwrap() > 0, "the run is over too early");
    took.sort_unstable();
    let (p50, p99, max) = (took[ENQUEUES / 2], took[ENQUEUES * 99 / 100], took[ENQUEUES - 1]);
    println!("{ENQUEUES} enqueues beside a pool at full speed: p50 {p50:?}, p99 {p99:?}, max {max:?}");
    assert!(max < Duration::from_secs(2), "{max:?}");
    run.signal(Signal::SIGINT);
    assert_eq!(run.wait().code, 130);
    bench.is_clean();
}

/// A holder of the turnstile or of the file that is stopped is named to whoever waits.
#[test]
fn who_keeps_the_file_is_said_after_two_seconds() {
    let bench = Bench::new();
    bench.enqueue("true");
    let turn = bench.queue().join("run/turn");
    let mut holder =
        tool("flock").arg(&turn).args(["-c", "read _"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = holder.id();
    bench.until("the turnstile is held", || {
        tool("flock").arg("-n").arg(&turn).arg("true").status().is_ok_and(|status| !status.success())
    });
    let mut enqueue = bench.cmd(["enqueue", "-c", "true"]).spawn();
    let said = enqueue.stderr.until("waiting for the queue file");
    assert!(said.contains(&format!("process {pid} (flock)")), "{said}");
    drop(holder.stdin.take());
    assert!(holder.wait().is_ok());
    enqueue.wait().ok();
    bench.is_clean();
}
