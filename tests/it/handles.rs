//! Runs in the background, and by their numbers.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::support::{Bench, Gate, lives};

/// A run in the background whose second job waits at a gate; its process.
fn detached(bench: &Bench, last: &str) -> (Gate, i32) {
    let gate = bench.gate("gate");
    std::fs::write(bench.file("jobs"), format!("echo one\necho 1 >started; : <gate; echo two\n{last}\n")).unwrap();
    let said = bench.ok("run --detach --max-retries 0 -j 1 jobs");
    let pid = said.split_once("✓ Run 1 started in the background (process ").unwrap().1.split_once(',').unwrap().0;
    assert!(said.ends_with("\n  to look on, type: queuectl attach 1\n"), "{said}");
    bench.until_file("started");
    (gate, pid.parse().unwrap())
}

#[test]
fn a_run_in_the_background_is_looked_on_to_its_end() {
    let bench = Bench::new();
    let (gate, pid) = detached(&bench, "exit 7");
    let mut attach = bench.cmd(["attach"]).spawn();
    let said = attach.stderr.until("Ctrl-C only leaves it");
    assert!(said.contains(&format!("run 1, which process {pid} works on: 2 of 3 jobs to go")), "{said}");
    // Typed again it gets no more workers than it was to have.
    let again = bench.ok("run --detach --max-retries 0 -j 1 jobs");
    assert!(again.starts_with(&format!("✓ Run 1 is worked on already (process {pid})\n")), "{again}");
    // What runs is not an attempt of less than there are.
    assert!(bench.ok("show 2").contains("Tries     0/1\n"));
    let run = bench.json("status --run last --json");
    let told = ["run", "state", "pid", "total", "unfinished", "cut_off"].map(|field| run[field].clone());
    assert_eq!(told, [json!(1), json!("working"), json!(pid), json!(3), json!(2), json!(false)]);
    assert!(bench.ok("status --run 1").contains(&format!("State     process {pid} works on it\n")));
    bench.open(&gate);
    let attach = attach.wait();
    assert_eq!((attach.code, attach.stdout.as_slice()), (1, b"two\n".as_slice()), "{attach:?}");
    assert!(attach.stderr.contains("run 1: 2 completed, 1 dead\n"), "{attach:?}");
    assert!(attach.stderr.contains("job 3 is dead after 1 attempt"), "{attach:?}");
    bench.until("its process is gone", || !lives(pid));
    // Afterwards it is told at once.
    bench.run("attach 1").says(1, &["run 1: 2 completed, 1 dead"]);
    let status = bench.ok("status");
    assert!(status.contains("Run 1 ended: 2 completed, 1 dead"), "{status}");
    let status = bench.json("status --json");
    assert_eq!((&status["runs"], &status["recent_runs"][0]["state"]), (&json!([]), &json!("ended")));
    bench.run("attach 7").says(3, &["there is no run 7"]);
    bench.run("status --run 7").fails(3);
    bench.run("attach soon").says(2, &["number of a run, or last"]);
    bench.is_clean();
}

#[test]
fn leaving_leaves_the_run_alone() {
    let bench = Bench::new();
    let (gate, pid) = detached(&bench, "true");
    let mut attach = bench.cmd(["attach", "last"]).spawn();
    attach.stderr.until("Ctrl-C only leaves it");
    attach.signal(Signal::SIGINT);
    let left = attach.wait();
    assert_eq!(left.code, 130, "{left:?}");
    assert!(left.stderr.contains("run 1 goes on without this; to see more of it, type: queuectl attach 1"), "{left:?}");
    assert!(lives(pid));
    let attach = bench.cmd(["attach", "--quiet"]).spawn();
    bench.open(&gate);
    let seen = attach.wait();
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{seen:?}");
    bench.until("its process is gone", || !lives(pid));
    bench.is_clean();
}

#[test]
fn a_run_that_is_cut_off_says_how_it_goes_on() {
    let bench = Bench::new();
    let (gate, pid) = detached(&bench, "true");
    let mut attach = bench.cmd(["attach"]).spawn();
    attach.stderr.until("Ctrl-C only leaves it");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let cut = attach.wait();
    assert_eq!(cut.code, 130, "{cut:?}");
    assert!(cut.stderr.contains("run 1 was cut off: 2 of 3 jobs to go"), "{cut:?}");
    assert!(cut.stderr.contains("run --resume --detach --max-retries 0 -j 1 jobs\n"), "{cut:?}");
    assert!(bench.ok("status --run last").contains("State     was cut off: 2 of 3 jobs to go\n"));
    bench.run("attach").fails(130);
    // The same line goes on, in the background again.
    std::fs::remove_file(bench.file("started")).unwrap();
    let again = bench.run("run --detach --max-retries 0 -j 1 jobs");
    assert!(again.stderr.contains("continuing run 1: 2 of 3 jobs to go"), "{again:?}");
    bench.until_file("started");
    let attach = bench.cmd(["attach", "-q"]).spawn();
    bench.open(&gate);
    assert_eq!(attach.wait().code, 0);
    bench.until("it is over", || bench.json("status --run 1 --json")["state"] == "ended");
}

#[test]
fn one_command_in_the_background_exits_with_its_code() {
    let bench = Bench::new();
    assert_eq!(
        bench.cmd(["run", "--detach", "-q", "--max-retries", "0", "--", "sh", "-c", "exit 5"]).run().ok(),
        "1\n"
    );
    assert_eq!(bench.run("attach -q").code, 5);
}
