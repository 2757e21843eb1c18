//! Time: when retries come, what a clock that is set does, and how quiet it is while nothing happens.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{Bench, Cmd, Process, Watch, naps, preload};

/// What a busy machine may add.
const SLOW_MACHINE: Duration = Duration::from_secs(2);

/// A wall clock for some processes, which tests can set.
pub struct WallClock(PathBuf);

impl WallClock {
    pub fn new(bench: &Bench) -> Self {
        let clock = Self(bench.file("clock"));
        clock.set(0);
        clock
    }

    /// Sets it to so many seconds after the true time.
    pub fn set(&self, offset: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset.to_string()).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    pub fn on(&self, cmd: Cmd) -> Cmd {
        cmd.env("LD_PRELOAD", preload("set_clock")).env("CLOCK_OFFSET_FILE", &self.0)
    }
}

/// A time of the JSON in milliseconds.
fn millis(time: &Value) -> i128 {
    let time = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let time = humantime::parse_rfc3339(time).unwrap();
    i128::try_from(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// How long after the end of an attempt the next one began.
fn pauses(job: &Value) -> Vec<i128> {
    let history = job["history"].as_array().unwrap();
    history.windows(2).map(|pair| millis(&pair[1]["started_at"]) - millis(&pair[0]["ended_at"])).collect()
}

#[test]
fn a_new_job_starts_on_an_idle_pool_at_once() {
    let bench = Bench::new();
    bench.enqueue("true");
    let pool = bench.pool("");
    bench.until_state("1", "completed");
    let mut took: Vec<Duration> = (0..20)
        .map(|round| {
            let gate = bench.gate(&format!("gate{round}"));
            // Opening the fifo for writing waits for the job's reading it.
            let command = format!(": <gate{round}");
            let cmd = bench.cmd(["enqueue", "--quiet", "-c", &command]);
            cmd.run().ok();
            let watch = Watch::start();
            gate.await_reader();
            watch.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("from the end of enqueue to the job's first action: median {:?}, max {:?}", took[10], took[19]);
    assert!(took[19] < Duration::from_secs(1), "{took:?}");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn a_retry_starts_when_it_is_due_and_not_before() {
    let bench = Bench::new();
    let job = json!({"command": "exit 3", "max_retries": 3, "backoff_base": 0.7});
    let id = bench.enqueue_json(&job);
    let pool = bench.pool("");
    bench.until_state(&id, "dead");
    let pauses = pauses(&bench.show(&id));
    println!("retries due after 700, 490 and 343 ms started after {pauses:?} ms");
    for (pause, due) in pauses.into_iter().zip([700, 490, 343]) {
        assert!(pause >= due, "{pause} < {due}: too early");
        assert!(pause < due + 500, "{pause} ≫ {due}: too late");
    }
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

/// 3 retries after 2, 4 and 8 seconds, seen on a clock that is set forward each time.
#[test]
fn the_default_is_three_retries_after_2_4_and_8_seconds() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    let id = bench.enqueue("exit 3");
    let pool = bench.pool_with("", |cmd| clock.on(cmd));
    let mut offset = 0;
    for (attempt, delay) in [(1, 2), (2, 4), (3, 8)] {
        bench.until("it failed again", || {
            let job = bench.show(&id);
            job["state"] == "failed" && job["attempts"] == attempt
        });
        let job = bench.show(&id);
        let ended = millis(&job["history"][attempt - 1]["ended_at"]);
        assert_eq!(millis(&job["next_run_at"]) - ended, delay * 1000, "{job}");
        offset += i64::try_from(delay).unwrap();
        clock.set(offset);
        // Nothing tells that this clock was set: any change of the queue makes the pool look.
        bench.enqueue("true");
    }
    bench.until_state(&id, "dead");
    let job = bench.show(&id);
    assert_eq!((job["attempts"].as_u64(), job["max_retries"].as_u64()), (Some(4), Some(3)), "{job}");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn a_clock_set_back_an_hour_delays_nothing() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    let retried = bench.enqueue_json(&json!({"command": "[ $QUEUECTL_ATTEMPT = 2 ]", "backoff_base": 1.5}));
    let pool = bench.pool_with("", |cmd| clock.on(cmd));
    bench.until_state(&retried, "failed");
    clock.set(-3600);
    let watch = Watch::start();
    bench.until_state(&retried, "completed");
    assert!(watch.elapsed() < Duration::from_millis(1500) + SLOW_MACHINE, "{:?}", watch.elapsed());
    assert!(pauses(&bench.show(&retried)).iter().all(|pause| (1500..3500).contains(pause)));
    // Also for those who come new: what they enqueue starts at once, and after what was there.
    let enqueue = |command: &str| {
        let cmd = clock.on(bench.cmd(["enqueue", "--quiet", "-c", command]));
        cmd.run().ok().trim().to_owned()
    };
    let new = enqueue("true");
    bench.until_state(&new, "completed");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    let again = enqueue("[ $QUEUECTL_ATTEMPT = 2 ]");
    bench.ok("config set backoff-base 0.5");
    let watch = Watch::start();
    let late = clock.on(bench.cmd(["worker", "start", "--until-empty"])).run();
    assert_eq!(late.code, 0, "{late:?}");
    assert!(watch.elapsed() < Duration::from_millis(500) + SLOW_MACHINE, "{:?}", watch.elapsed());
    let created = [&retried, &new, &again].map(|id| millis(&bench.show(id)["created_at"]));
    assert!(created.is_sorted(), "{created:?}");
    bench.is_clean();
}

/// Of what was due at 60 s, an hour later.
#[test]
fn a_clock_set_forward_is_noticed() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    let id = bench.enqueue_json(&json!({"command": "[ $QUEUECTL_ATTEMPT = 2 ]", "backoff_base": 60}));
    let pool = bench.pool_with("", |cmd| clock.on(cmd));
    bench.until_state(&id, "failed");
    clock.set(3600);
    bench.enqueue("true");
    bench.until_state(&id, "completed");
    clock.set(0);
    // Back at the true time, the queue's goes on from where it was, and says that it does only if that is far.
    let next = bench.enqueue("true");
    bench.until_state(&next, "completed");
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

/// The clock was two hours fast for a while.
#[test]
fn ages_and_distances_are_told_by_the_time_of_the_queue() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    clock.set(7200);
    clock.on(bench.cmd(["enqueue", "-c", "true"])).run().ok();
    bench.work().ok();
    assert_eq!(bench.ok("list --since 1m --count"), "1\n");
    assert!(bench.ok("show 1").contains("completed   "));
    let told = bench.cmd(["enqueue", "--delay", "10m", "-c", "true"]).run().ok();
    assert!(told.ends_with(" (in 10m)\n"), "{told}");
    bench.ok("edit 2 --delay 20m");
    let shown = bench.ok("show 2");
    assert!(shown.contains(" (in 19m 5") || shown.contains(" (in 20m)"), "{shown}");
    assert_eq!(bench.ok("clean --older-than 1h"), "There is nothing to remove\n");
    assert!(bench.ok("clean --older-than 0s").starts_with("✓ 1 job removed"));
    bench.check();
}

/// What ended before the clock leapt is not as old as it looks.
#[test]
fn a_clock_that_leapt_and_came_back_makes_nothing_old() {
    let bench = Bench::new();
    let clock = WallClock::new(&bench);
    bench.enqueue("true");
    bench.work().ok();
    clock.set(30 * 86_400);
    clock.on(bench.cmd(["enqueue", "-c", "true"])).run().ok();
    let done = bench.run("clean --older-than 7d");
    assert!(done.stderr.contains("ahead of the clock") && done.stderr.contains("check --repair"), "{done:?}");
    assert_eq!(done.ok(), "There is nothing to remove\n");
    assert!(bench.ok("clean --older-than 0s").starts_with("✓ 1 job removed"));
    bench.check();
}

#[test]
fn who_waits_for_nothing_does_not_wake_up() {
    const LONG: Duration = Duration::from_secs(10);
    let bench = Bench::new();
    let gate = bench.gate("gate");
    // A pool that has worked and is idle now, one that never had anything, one that runs a silent job, and those
    // who wait for that job.
    let done = bench.enqueue("true");
    let id =
        bench.enqueue_json(&json!({"command": "echo started >mark; : <gate", "queue": "other", "timeout": "none"}));
    let worked = bench.pool("--queue default");
    let idle = bench.pool("--count 4 --queue third");
    bench.until_state(&done, "completed");
    let busy = bench.pool("--queue other");
    bench.until_file("mark");
    let wait = bench.cmd(["wait", &id]).spawn();
    let logs = bench.cmd(["logs", "-f", &id]).spawn();
    let quiet = [&worked, &idle, &wait, &logs];
    bench.until("all of them sleep", || {
        let naps_of = |process: &&Process| naps(process.pid());
        let before: Vec<_> = quiet.iter().map(naps_of).collect();
        // Longer than the last timer of a job that has ended.
        bench.nothing_happens_for(Duration::from_millis(1200));
        before == quiet.iter().map(naps_of).collect::<Vec<_>>()
    });
    let before = quiet.map(|process| naps(process.pid()));
    let busy_before: u64 = naps(busy.pid()).values().sum();
    bench.nothing_happens_for(LONG);
    let after = quiet.map(|process| naps(process.pid()));
    assert_eq!(before, after, "a thread woke up");
    let wakes = naps(busy.pid()).values().sum::<u64>() - busy_before;
    println!("a pool with one silent job woke up {wakes} times in {LONG:?}; idle pools, wait and logs -f never");
    assert!(wakes <= 12, "{wakes}: about once a second for its output");
    bench.open(&gate);
    wait.wait().ok();
    logs.wait().ok();
    bench.ok("worker stop");
    bench.is_clean();
}
