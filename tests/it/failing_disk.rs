//! A disk that fails: nothing is said to be done that was not, and a pool goes on when it works again. A process that
//! is stopped while it writes: others say so, and go on when it does or is gone.

use nix::sys::signal::Signal;

use super::support::{Bench, Cmd, Process, preload, state_letter};

/// Which calls on the queue file fail: read, write, sync.
pub struct Faults<'b>(pub &'b Bench);

impl Faults<'_> {
    pub fn set(&self, which: &str) {
        std::fs::write(self.0.file("faults"), which).unwrap();
    }

    pub fn on(&self, cmd: Cmd) -> Cmd {
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
        assert!(trouble.contains("Input/output error") || trouble.contains("Previous I/O error"), "{which}: {trouble}");
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

/// An enqueue that stands still inside its transaction, at so many calls.
fn stopped(bench: &Bench, faults: &Faults, at: &str) -> Process {
    faults.set(&format!("stop {at}"));
    let process = faults.on(bench.cmd(["enqueue", "-c", "true"])).spawn();
    bench.until("it stands still", || state_letter(process.pid()) == 'T');
    faults.set("");
    process
}

#[test]
fn a_process_stopped_in_a_transaction_is_named_and_waited_for() {
    let bench = Bench::new();
    bench.enqueue("true");
    let faults = Faults(&bench);
    // With the header locked, in the middle of its writes, in the flushes of its commit.
    for (n, at) in ["sync0", "write2", "sync1", "sync2"].into_iter().enumerate() {
        // Closed well, so that each begins in the same way.
        bench.work().ok();
        let mut holder = stopped(&bench, &faults, at);
        let names_it = format!("process {} (queuectl), which is stopped (kill -CONT lets it go on)", holder.pid());
        let spawn = |line: &str| bench.cmd(line.split(' ')).spawn();
        let mut first = spawn("enqueue -c true");
        let said = first.stderr.until("waiting for the queue file");
        assert!(said.contains(&names_it), "{at}: {said}");
        let acts = ["config set timeout 1m", "worker start --until-empty", "run -- true", "cancel 99"].map(spawn);
        let looks = ["status", "list", "show 1", "wait 1", "check"].map(spawn);
        for mut process in looks {
            // Most need not wait: what is committed can be looked at.
            if let Err(said) = process.ends_or_says("waiting for the queue file") {
                assert!(said.contains("process ") && said.contains(" (queuectl)"), "{at}: {said}");
                assert_eq!(at, "sync0", "{said}");
            }
        }
        if n % 2 == 0 {
            holder.kill();
        } else {
            holder.signal(Signal::SIGCONT);
            holder.wait().ok();
        }
        first.wait().ok();
        for process in acts {
            let done = process.wait();
            assert!(done.code == 0 || done.stderr.contains("there is no job 99"), "{at}: {done:?}");
        }
        bench.is_clean();
    }
}

#[test]
fn a_pool_beside_a_stopped_process_ends_its_jobs_and_commits_them_later() {
    let bench = Bench::new();
    let faults = Faults(&bench);
    let gate = bench.gate("gate");
    let id = bench.enqueue(": <gate; echo over >over");
    let mut pool = bench.pool("");
    bench.until_state(&id, "processing");
    let mut holder = stopped(&bench, &faults, "sync1");
    bench.open(&gate);
    bench.until_file("over");
    let said = pool.stderr.until("waiting for the queue file");
    assert!(said.contains(&format!("process {} (queuectl), which is stopped", holder.pid())), "{said}");
    holder.kill();
    bench.until_state(&id, "completed");
    assert_eq!(bench.outcomes(&id), ["completed"]);
    pool.signal(Signal::SIGTERM);
    pool.wait().ok();
    bench.is_clean();
}
