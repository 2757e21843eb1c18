//! Who waits for what only a person lets go says so, once.

use super::support::{Bench, Process};

/// A queue in which `near` waits for `far`, of a queue that nobody serves, where another job waits, too.
fn near_and_far() -> Bench {
    let bench = Bench::new();
    bench.add(r#"{"id":"far","command":"true","queue":"gpu"}"#);
    bench.add(r#"{"id":"other","command":"true","queue":"gpu"}"#);
    bench.add(r#"{"id":"near","command":"true","after":"far"}"#);
    bench
}

/// Ends well, having said it so often.
#[track_caller]
fn ends_having_said(process: Process, said: &str, times: usize) {
    let done = process.wait();
    assert_eq!((done.code, done.stderr.matches(said).count()), (0, times), "{said:?} in {done:?}");
}

#[test]
fn a_pool_until_empty_says_what_it_waits_for() {
    let bench = near_and_far();
    let mut pool = bench.pool("--until-empty --queue default");
    pool.stderr.until("waiting for you: job far is in queue gpu, which no pool serves");
    pool.stderr.until("  try: queuectl worker start --queue gpu");
    // Something else happens, and it stays as it is.
    let id = bench.enqueue("true");
    bench.until_state(&id, "completed");
    bench.ok("pause far");
    pool.stderr.until("waiting for you: job far is held");
    pool.stderr.until("  try: queuectl resume far");
    bench.ok("resume far");
    pool.stderr.until("waiting for you: job far is in queue gpu");
    bench.ok("worker start --until-empty --queue gpu");
    ends_having_said(pool, "waiting for you", 3);
    bench.check();
}

#[test]
fn a_run_says_what_it_waits_for() {
    let bench = near_and_far();
    std::fs::write(bench.file("jobs"), r#"{"command":"echo done","after":"far"}"#).unwrap();
    bench.ok("pause --queue gpu");
    bench.add(r#"{"id":"elsewhere","command":"true","queue":"third"}"#);
    let mut run = bench.cmd(["run", "-q", "jobs"]).spawn();
    run.stderr.until("waiting for you: job far is in queue gpu, which is paused");
    run.stderr.until("  try: queuectl resume --queue gpu");
    bench.ok("resume --queue gpu");
    run.stderr.until("which no pool serves");
    bench.ok("worker start --until-empty");
    ends_having_said(run, "waiting for you", 2);
    bench.check();
}

#[test]
fn a_need_in_a_run_that_was_cut_off_is_named_with_its_line() {
    let bench = Bench::new();
    std::fs::write(
        bench.file("jobs"),
        r#"{"id":"far","command":"test -e go || { echo > started; exec sleep 1000; }"}"#,
    )
    .unwrap();
    let mut run = bench.cmd(["run", "jobs"]).spawn();
    run.stderr.until("new queue");
    bench.until_file("started");
    run.kill();
    bench.add(r#"{"id":"near","command":"true","after":"far"}"#);
    let why = |id: &str| bench.json(&format!("show {id} --json"))["why"].as_str().unwrap().to_owned();
    assert!(why("near").starts_with("waits for far; job far is of run 1, on which nobody works; "), "{}", why("near"));
    let mut pool = bench.pool("--until-empty");
    pool.stderr.until("waiting for you: job far is of run 1, on which nobody works");
    assert!(pool.stderr.until("  try: ").contains("queuectl run --resume jobs"));
    bench.until_state("far", "pending");
    std::fs::write(bench.file("go"), "").unwrap();
    bench.ok("run jobs");
    ends_having_said(pool, "waiting for you", 1);
    bench.is_clean();
}

#[test]
fn a_pool_says_for_which_time_it_waits() {
    let bench = Bench::new();
    let id = bench.cmd(["enqueue", "-q", "--delay", "2h", "-c", "true"]).run().ok();
    let mut pool = bench.pool("--until-empty");
    assert!(pool.stderr.until("the next job starts at ").contains(" (in 1h 59m)"));
    let other = bench.enqueue("true");
    bench.until_state(&other, "completed");
    let earlier = bench.cmd(["enqueue", "-q", "--delay", "1h", "-c", "true"]).run().ok();
    assert!(pool.stderr.until("the next job starts at ").contains(" (in 59m"));
    for id in [id, earlier] {
        bench.ok(&format!("edit {} --delay 0s", id.trim()));
    }
    let done = pool.wait();
    assert_eq!((done.code, done.stderr.contains("waiting for you")), (0, false), "{done:?}");
    bench.check();
}

#[test]
fn wait_says_what_keeps_all_of_its_jobs() {
    let bench = near_and_far();
    let mut wait = bench.cmd(["wait", "near", "far"]).spawn();
    wait.stderr.until("waiting for you: job far is in queue gpu, which no pool serves");
    wait.stderr.until("  try: queuectl worker start --queue gpu");
    // The other one keeps near back, now that far can run: so nothing is to be said until it has.
    bench.ok("pause near");
    bench.ok("worker start --until-empty --queue gpu");
    wait.stderr.until("waiting for you: job near is held");
    bench.ok("resume near");
    wait.stderr.until("waiting for you: job near is in queue default, which no pool serves");
    wait.stderr.until("  try: queuectl worker start");
    bench.work().ok();
    let done = wait.wait();
    assert_eq!(done.code, 0, "{done:?}");
    bench.check();
}

#[test]
fn wait_names_several_with_all_that_lets_them_go() {
    let bench = Bench::new();
    for n in 1..=7 {
        bench.add(&format!(r#"{{"id":"h{n}","command":"true"}}"#));
    }
    bench.add(r#"{"id":"p","command":"true"}"#);
    bench.ok("pause h1 h2 h3 h4 h5 h6 h7");
    let text = bench.path().join(".queuectl").display().to_string();
    bench.cmd(["--db", &text, "wait", "--all", "--timeout", "50ms"]).run().says(
        6,
        &[
            "waiting for you: ",
            "jobs h1, h2, h3, h4 and 3 more are held",
            "job p is in queue default, which no pool serves",
            &format!("queuectl --db {text} resume h1 h2 h3 h4 h5\n"),
            &format!("queuectl --db {text} worker start\n"),
            "  try: ",
            "  and: ",
        ],
    );
    bench.check();
}

#[test]
fn wait_tells_of_a_pool_that_died() {
    let bench = Bench::new();
    bench.enqueue("test -e started || { echo > started; exec sleep 1000; }");
    let mut pool = bench.pool("");
    bench.until_file("started");
    let mut wait = bench.cmd(["wait", "1"]).spawn();
    pool.kill();
    wait.stderr.until("waiting for you: job 1 is in queue default, which no pool serves");
    bench.work().ok();
    ends_having_said(wait, "waiting for you", 1);
    bench.is_clean();
}

#[test]
fn wait_says_when_there_is_nothing_to_wait_for() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.run("wait --name nobody").says(0, &["no job matches; nothing to wait for"]);
    bench.run("wait --state dead").says(0, &["no job matches; nothing to wait for"]);
    bench.work().ok();
    assert_eq!(bench.run("wait --queue default").stderr, "");
}

#[test]
fn wait_names_what_did_not_complete() {
    let bench = Bench::new();
    for n in 1..=7 {
        bench.cmd(["enqueue", "--max-retries", "0", "--tag", "a=b c", "-c", &format!("exit {n}")]).run().ok();
    }
    assert_eq!(bench.work().code, 1);
    bench.run("wait 3").says(1, &["1 job did not complete: 3\n", "  try: queuectl logs 3\n"]);
    bench.run("wait 3 4").says(1, &["2 jobs did not complete: 3 and 4\n", "  try: queuectl logs 3 4\n"]);
    bench.cmd(["wait", "--tag", "a=b c"]).run().says(
        1,
        &[
            "7 jobs did not complete: 3, 4, 5, 6 and 3 more\n",
            "  try: queuectl list --state dead,cancelled --tag 'a=b c'\n",
        ],
    );
}
