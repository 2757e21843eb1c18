//! A run that is cut off goes on when the same line is typed again.

use nix::sys::signal::Signal;

use super::support::Bench;

/// Ten jobs; the fifth waits at the gate when it runs first.
fn jobs(bench: &Bench) -> super::support::Gate {
    let job = |n| match n {
        5 => "[ -e again ] || { echo 5 >started; : <gate; }; echo 5 >>ledger; echo 5\n".to_owned(),
        n => format!("echo {n} >>ledger; echo {n}\n"),
    };
    std::fs::write(bench.file("jobs"), (1..=10).map(job).collect::<String>()).unwrap();
    bench.gate("gate")
}

fn goes_on(bench: &Bench, left: usize) {
    let status = bench.ok("status");
    assert!(status.contains(&format!("Run 1 was cut off: {left} of 10 jobs to go")), "{status}");
    let line = status.lines().find_map(|line| line.strip_prefix("  to continue it, type: ")).unwrap();
    assert!(line.ends_with("queuectl run --resume -j 1 jobs"), "{line}");
    let run = &bench.json("status --json")["runs"][0];
    assert_eq!((run["unfinished"].as_u64(), run["cut_off"].as_bool()), (Some(left as u64), Some(true)), "{run}");
    // Ordinary pools leave it alone.
    bench.pool("--until-empty").wait().ok();
    assert_eq!(bench.json("status --json")["runs"][0]["unfinished"], left);
    std::fs::write(bench.file("again"), "").unwrap();
    let again = bench.run("run -j 1 jobs");
    let said = format!("continuing run 1: {left} of 10 jobs to go");
    assert!(again.stderr.contains(&said), "{again:?}");
    assert!(again.stderr.contains("run 1: 10 completed"), "{again:?}");
    assert_eq!(again.ok(), "5\n6\n7\n8\n9\n10\n");
    assert_eq!(bench.lines("ledger"), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], "each ran once");
    assert_eq!(bench.json("status --json")["runs"].as_array().unwrap().len(), 0);
    // It is over: the same line is a new run.
    let anew = bench.run("run -j 1 jobs");
    assert!(anew.stderr.contains("run 2: 10 completed"), "{anew:?}");
    assert_eq!(bench.lines("ledger").len(), 20);
    bench.is_clean();
}

#[test]
fn after_ctrl_c() {
    let bench = Bench::new();
    let gate = jobs(&bench);
    let mut run = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    run.stderr.until("new queue");
    bench.until_file("started");
    run.signal(Signal::SIGINT);
    run.stderr.until("waiting for 1 job");
    run.signal(Signal::SIGINT);
    let stopped = run.wait();
    assert_eq!((stopped.code, stopped.stdout.as_slice()), (130, b"1\n2\n3\n4\n".as_slice()), "{stopped:?}");
    assert!(stopped.stderr.contains("4 completed, 6 to go"), "{stopped:?}");
    drop(gate);
    goes_on(&bench, 6);
}

#[test]
fn after_kill_9() {
    let bench = Bench::new();
    let gate = jobs(&bench);
    let mut run = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    run.stderr.until("new queue");
    bench.until_file("started");
    bench.until("four are done", || bench.json("status --json")["jobs"]["completed"] == 4);
    run.kill();
    drop(gate);
    goes_on(&bench, 6);
}

#[test]
fn a_run_begins_anew_if_that_is_wanted() {
    let bench = Bench::new();
    let gate = jobs(&bench);
    let mut run = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    run.stderr.until("new queue");
    bench.until_file("started");
    run.kill();
    std::fs::write(bench.file("again"), "").unwrap();
    drop(gate);
    let anew = bench.run("run --fresh -j 1 jobs");
    assert!(anew.stderr.contains("run 2: 10 completed"), "{anew:?}");
    let status = bench.ok("status");
    assert!(status.contains("Run 1 was cut off"), "{status}");
    bench.is_clean();
}

#[test]
fn a_second_process_with_the_same_line_joins() {
    let bench = Bench::new();
    let gate = jobs(&bench);
    let mut first = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    first.stderr.until("new queue");
    bench.until_file("started");
    // The first is held up by its fifth job: the second does the others, and then waits for that one.
    let mut second = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    let said = second.stderr.until("joining run 1");
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    bench.until_lines("ledger", 9);
    bench.open(&gate);
    let (first, second) = (first.wait(), second.wait());
    assert_eq!((first.code, second.code), (0, 0), "{first:?} {second:?}");
    assert_eq!(first.stdout, b"1\n2\n3\n4\n5\n");
    // Not always in this order: the first had claimed some of them, and gave them back.
    let mut others: Vec<u32> = second.text().lines().map(|line| line.parse().unwrap()).collect();
    others.sort_unstable();
    assert_eq!(others, [6, 7, 8, 9, 10]);
    let mut ledger = bench.lines("ledger");
    ledger.sort_by_key(|line| line.parse::<u32>().unwrap());
    assert_eq!(ledger, (1..=10).map(|n| n.to_string()).collect::<Vec<_>>());
    bench.is_clean();
}

/// The one that joined takes over when the first is killed.
#[test]
fn who_joined_takes_over_what_the_first_leaves() {
    let bench = Bench::new();
    let gate = jobs(&bench);
    let mut first = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    first.stderr.until("new queue");
    bench.until_file("started");
    let mut second = bench.cmd(["run", "-j", "1", "jobs"]).spawn();
    second.stderr.until("joining run 1");
    bench.until_lines("ledger", 9);
    std::fs::write(bench.file("again"), "").unwrap();
    first.kill();
    let second = second.wait();
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.stderr.contains("took over its 1 job"), "{second:?}");
    assert_eq!(bench.lines("ledger").len(), 10);
    drop(gate);
    bench.is_clean();
}
