//! A disk that fails: nothing is said to be done that was not, and a pool goes on when it works again.

use nix::sys::signal::Signal;

use super::support::{Bench, Cmd, preload};

/// Which calls on the queue file fail: read, write, sync.
struct Faults<'b>(&'b Bench);

impl Faults<'_> {
    fn set(&self, which: &str) {
        std::fs::write(self.0.file("faults"), which).unwrap();
    }

    fn on(&self, cmd: Cmd) -> Cmd {
        cmd.env("LD_PRELOAD", preload("failing_disk")).env("FAULT_FILE", self.0.file("faults"))
    }
}

#[test]
fn what_could_not_be_written_is_not_said_to_be_done() {
    let bench = Bench::new();
    bench.enqueue("true");
    let faults = Faults(&bench);
    for which in ["sync", "write", "read"] {
        faults.set(which);
        for line in ["enqueue -c true", "config set timeout 1m", "run -- true", "cancel 1", "worker start"] {
            let done = faults.on(bench.cmd(line.split(' '))).run();
            assert!(!done.stderr.contains("damaged"), "{which}, {line}: {done:?}");
            done.says(5, &["the queue", "Input/output error"]);
        }
        faults.set("");
        faults.on(bench.cmd(["enqueue", "-c", "true"])).run().ok();
    }
    bench.work();
    bench.is_clean();
}

/// From the first call on, from the second on, and so on, until there are enough of them for the whole command.
#[test]
fn an_enqueue_that_fails_at_any_call_is_not_acknowledged() {
    let bench = Bench::new();
    bench.enqueue("true");
    let faults = Faults(&bench);
    let (mut acknowledged, mut in_doubt) = (1, 0);
    for which in ["sync", "write", "read"] {
        for after in 0.. {
            faults.set(&format!("{which}{after}"));
            let done = faults.on(bench.cmd(["enqueue", "--quiet", "-c", "true"])).run();
            faults.set("");
            if done.code == 0 {
                acknowledged += 1;
                break;
            }
            in_doubt += u64::from(done.stderr.contains("could not be written to the end"));
            done.says(5, &["Input/output error"]);
        }
        bench.check();
    }
    let total = bench.json("status --json")["total"].as_u64().unwrap();
    println!("{acknowledged} acknowledged, {in_doubt} in doubt, {total} there");
    assert!((acknowledged..=acknowledged + in_doubt).contains(&total));
    assert!(in_doubt > 2);
    bench.work().ok();
    bench.is_clean();
}

#[test]
fn a_pool_goes_on_when_its_disk_works_again() {
    let bench = Bench::new();
    bench.enqueue("true");
    let faults = Faults(&bench);
    for which in ["sync", "write", "read"] {
        faults.set("");
        let gate = bench.gate(which);
        let id = bench.enqueue(&format!(": <{which}"));
        let mut pool = bench.pool_with("", |cmd| faults.on(cmd));
        bench.until_state(&id, "processing");
        // This rings the pool's bell: it has to read what it has not seen.
        faults.set(which);
        let other = bench.enqueue("true");
        bench.open(&gate);
        let trouble = pool.stderr.until("trying again until it works");
        assert!(trouble.contains("Input/output error") || trouble.contains("failed"), "{which}: {trouble}");
        assert_eq!(bench.state(&id), "processing", "{which}");
        faults.set("");
        for id in [id, other] {
            bench.until_state(&id, "completed");
            assert_eq!(bench.outcomes(&id), ["completed"], "{which}");
        }
        pool.signal(Signal::SIGTERM);
        let done = pool.wait();
        assert_eq!(done.stderr.matches("trying again").count(), 1, "{which}: {done:?}");
        done.ok();
        bench.is_clean();
    }
}
