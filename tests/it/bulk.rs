//! Batches too large for one transaction: nothing is seen before all is, whatever happens, and others get in between.

use std::fmt::Write;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queuectl::model::{Command, JobSpec, QueueName};
use queuectl::queue::{Folder, Queue};
use queuectl::store::{BulkInfo, BulkInto, Snapshot, Store, Wanted};
use queuectl::worker::BegunBulk;

use super::support::{Background, Bench, Turn};

/// More than any one transaction takes.
const LINES: usize = 60_000;

/// A file of so many jobs, the first of which is called `first`.
fn write_jobs(bench: &Bench, name: &str, count: usize) {
    let mut text = "{\"id\":\"first\",\"command\":\"true\"}\n".to_owned();
    (1..count).for_each(|_| text.push_str("{\"command\":\"true\"}\n"));
    std::fs::write(bench.file(name), text).unwrap();
}

/// What is under way.
fn bulks(bench: &Bench) -> Vec<BulkInfo> {
    let store = Store::open_read_only(&bench.queue(), Box::new(|| {})).unwrap();
    let bulks = store.read(Snapshot::bulks).unwrap();
    store.leave();
    bulks
}

fn total(bench: &Bench) -> usize {
    bench.json("list --json").as_array().unwrap().len()
}

/// A bulk enqueue that waits for its turn in the middle, and the turn.
fn in_the_middle(bench: &Bench) -> (Background, Turn) {
    write_jobs(bench, "jobs", LINES);
    let keyed = bench.text("jobs").replacen("\"first\"", "\"first\",\"key\":\"first key\"", 1);
    std::fs::write(bench.file("jobs"), keyed).unwrap();
    let enqueue = bench.cmd(["enqueue", "--file", "jobs"]).start();
    // It has made its lane, and has written some of its jobs.
    bench.until("a bulk is under way", || !bulks(bench).is_empty() && written(enqueue.pid()) > 500_000);
    let turn = bench.take_turn();
    bench.until_at_turnstile(enqueue.pid());
    assert_eq!(bulks(bench).len(), 1);
    (enqueue, turn)
}

/// How many bytes a process has written so far.
fn written(pid: i32) -> u64 {
    let counts = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    counts.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn kill_9(process: Background) {
    kill(Pid::from_raw(process.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(process.wait().0, 128 + 9);
}

#[test]
fn what_is_killed_in_the_middle_was_never_there() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    assert_eq!((total(&bench), bench.json("status --json")["jobs"]["pending"].as_u64()), (1, Some(1)));
    bench.run("show first").says(3, &["there is no job first"]);
    bench.run("show 2").fails(3);
    kill_9(enqueue);
    drop(turn);
    assert_eq!((total(&bench), bulks(&bench).len()), (1, 1));
    bench.check();
    // Its ids are free.
    bench.add(r#"{"id":"first","command":"true"}"#);
    assert_eq!(total(&bench), 2);
    bench.ok("check");
    bench.check();
    bench.is_clean();
}

#[test]
fn compacting_takes_away_what_was_killed() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    kill_9(enqueue);
    drop(turn);
    bench.ok("compact");
    assert_eq!((total(&bench), bulks(&bench)), (1, vec![]));
    bench.check();
    bench.is_clean();
}

#[test]
fn what_needs_the_queue_for_itself_tells_who_fills_it() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.ok("backup copy");
    let (enqueue, turn) = in_the_middle(&bench);
    let said = format!("a large enqueue is under way (process {})", enqueue.pid());
    let next = format!("\n  try: kill {}    ends it; or wait until it is done\n", enqueue.pid());
    for line in ["compact", "check --repair", "restore copy"] {
        bench.run(line).says(4, &[&said, &next]);
    }
    kill_9(enqueue);
    drop(turn);
    bench.ok("compact");
    assert_eq!((total(&bench), bulks(&bench)), (1, vec![]));
    bench.is_clean();
}

#[test]
fn a_job_that_takes_a_key_meanwhile_stands_for_its_line() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    let other = bench.cmd(["enqueue", "--key", "first key", "-c", "true"]).start();
    bench.until_at_turnstile(other.pid());
    drop(turn);
    assert_eq!(other.wait().0, 0);
    assert_eq!(enqueue.wait(), (0, format!("✓ {} jobs enqueued; 1 there already\n", LINES - 1)));
    assert_eq!((total(&bench), bulks(&bench)), (LINES + 1, vec![]));
    bench.check();
    bench.is_clean();
}

#[test]
fn what_an_enqueue_under_way_holds_is_waited_for() {
    for keeps in [true, false] {
        let bench = Bench::new();
        bench.enqueue("true");
        // The same file again, and one job of it.
        let line = r#"{"id":"x","command":"true","key":"k"}"#;
        std::fs::write(bench.file("jobs"), format!("{line}\n{}", "{\"command\":\"true\"}\n".repeat(2_000))).unwrap();
        let folder = Folder::existing(&bench.queue()).unwrap().unwrap();
        let queue = Queue::open(&folder, Box::new(|| {})).unwrap();
        let into = BulkInto::Queues([QueueName::default_queue()].into());
        let nothing = Wanted::default();
        let mut bulk = BegunBulk::begin(&queue, &into, 1).unwrap().fill(&queue, &nothing);
        let job = JobSpec::new(Command::Shell(b"true".to_vec()), "/");
        let job = JobSpec { id: Some("y".parse().unwrap()), key: Some("k".parse().unwrap()), ..job };
        bulk.add(&[job]).unwrap();
        bulk.name().unwrap();
        let mut one = bench.cmd(["enqueue", "--key", "k", "-c", "true"]).spawn();
        let mut many = bench.cmd(["enqueue", "--file", "jobs"]).spawn();
        for process in [&mut one, &mut many] {
            process.stderr.until("queuectl: the key k is held by an enqueue that is under way; waiting for its end");
        }
        if keeps {
            bulk.publish().unwrap();
            assert_eq!(one.wait().text(), "✓ Job y is there already (pending)\n");
            assert_eq!(many.wait().text(), "✓ 2000 jobs enqueued; 1 there already\n");
        } else {
            drop(bulk);
            let told = [one.wait().text(), many.wait().text()];
            assert!(told.iter().any(|told| told.contains("there already")), "{told:?}");
        }
        assert_eq!((total(&bench), bulks(&bench)), (2_002, vec![]));
        queue.leave();
        bench.is_clean();
    }
}

#[test]
fn nothing_is_acknowledged_into_a_queue_that_was_deleted() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    std::fs::remove_dir_all(bench.queue()).unwrap();
    drop(turn);
    assert_eq!(enqueue.wait(), (5, String::new()));
    // Moved as a whole it is the same queue.
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    std::fs::rename(bench.queue(), bench.file("moved")).unwrap();
    drop(turn);
    assert_eq!(enqueue.wait().0, 0);
    std::fs::rename(bench.file("moved"), bench.queue()).unwrap();
    assert_eq!(total(&bench), LINES + 1);
    bench.is_clean();
}

#[test]
fn an_id_that_another_takes_meanwhile_undoes_all() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    let other = bench.cmd(["enqueue", r#"{"id":"first","command":"true"}"#]).start();
    bench.until_at_turnstile(other.pid());
    drop(turn);
    assert_eq!(other.wait().0, 0);
    assert_eq!(enqueue.wait().0, 4);
    bench.run("enqueue --file jobs").says(4, &["line 1: there is already a job first"]);
    assert_eq!((total(&bench), bulks(&bench)), (2, vec![]));
    bench.check();
    bench.is_clean();
}

#[test]
fn the_next_bulk_takes_away_what_a_dead_one_left() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    kill_9(enqueue);
    drop(turn);
    write_jobs(&bench, "few", 2_500);
    assert_eq!(bench.ok("enqueue --file few"), "✓ 2500 jobs enqueued\n");
    assert_eq!((total(&bench), bulks(&bench)), (2_501, vec![]));
    bench.check();
}

#[test]
fn a_pool_takes_away_what_a_dead_one_left() {
    let bench = Bench::new();
    bench.enqueue("true");
    let pool = bench.pool("");
    let (enqueue, turn) = in_the_middle(&bench);
    // It hears of the death.
    kill_9(enqueue);
    drop(turn);
    bench.until("it is gone", || bulks(&bench).is_empty());
    bench.ok("worker stop");
    pool.wait().ok();
    let (enqueue, turn) = in_the_middle(&bench);
    kill_9(enqueue);
    drop(turn);
    // It finds what died before.
    let pool = bench.pool("");
    bench.until("it is gone", || bulks(&bench).is_empty());
    bench.ok("worker stop");
    pool.wait().ok();
    assert_eq!(total(&bench), 1);
    bench.check();
    bench.is_clean();
}

#[test]
fn others_get_in_between() {
    let bench = Bench::new();
    bench.enqueue("true");
    let (enqueue, turn) = in_the_middle(&bench);
    let other = bench.cmd(["enqueue", "--quiet", "-c", "echo between"]).start();
    bench.until_at_turnstile(other.pid());
    drop(turn);
    let (code, id) = other.wait();
    // The numbers of the bulk were set aside.
    assert_eq!((code, id.trim()), (0, (LINES + 2).to_string().as_str()));
    assert_eq!(enqueue.wait(), (0, format!("✓ {LINES} jobs enqueued\n")));
    let created = |id: &str| bench.show(id)["created_at"].as_str().unwrap().to_owned();
    let (first, between, last) = (created("first"), created(id.trim()), created(&(LINES + 1).to_string()));
    assert!(first <= between && between <= last, "{first} {between} {last}");
    bench.check();
    bench.is_clean();
}

#[test]
fn an_id_that_is_taken_undoes_all() {
    let bench = Bench::new();
    bench.add(r#"{"id":"taken","command":"true"}"#);
    let mut text = "true\n".repeat(3_000);
    text.insert_str(0, "# as JSON\n");
    let mut jobs = text.replace("true", r#"{"command":"true"}"#);
    writeln!(jobs, r#"{{"id":"taken","command":"true"}}"#).unwrap();
    bench.cmd(["enqueue", "-"]).stdin(jobs.clone()).run().says(4, &["line 3002", "there is already a job taken"]);
    assert_eq!((total(&bench), bulks(&bench)), (1, vec![]));
    // What is wrong with the input itself is found before anything is done.
    let twice = jobs.replace("taken", "mine") + "{\"id\":\"mine\",\"command\":\"true\"}\n";
    bench.cmd(["enqueue", "-"]).stdin(twice).run().says(4, &["line 3003", "the id `mine` is taken by line 3002"]);
    bench.cmd(["enqueue", "-"]).stdin(jobs + "nonsense\n").run().says(2, &["line 3003"]);
    bench.check();
    bench.is_clean();
}

#[test]
fn a_large_batch_is_told_as_a_small_one_is() {
    let bench = Bench::new();
    let ids = bench.cmd(["enqueue", "--quiet", "-"]).stdin("true\n".repeat(2_500)).run().ok();
    assert_eq!(ids.lines().map(|id| id.parse().unwrap()).collect::<Vec<usize>>(), (1..=2_500).collect::<Vec<_>>());
    let json = bench.cmd(["enqueue", "--json", "-"]).stdin("echo $PWD\n".repeat(1_500)).run().ok();
    let jobs: serde_json::Value = serde_json::from_str(&json).unwrap();
    let jobs = jobs.as_array().unwrap();
    assert_eq!((jobs.len(), jobs[1_499]["id"].as_str()), (1_500, Some("4000")));
    // Each queue has a lane of its own.
    let queues: String = (0..1_200).fold(String::new(), |mut text, n| {
        writeln!(text, r#"{{"command":"true","queue":"q{}"}}"#, n % 3).unwrap();
        text
    });
    bench.cmd(["enqueue", "-"]).stdin(queues).run().ok();
    bench.run("worker start --until-empty --queue q1 --queue q2").ok();
    let (done, left) = (
        bench.json("status --json")["jobs"]["completed"].clone(),
        bench.json("status --json")["jobs"]["pending"].clone(),
    );
    assert_eq!((done.as_u64(), left.as_u64()), (Some(800), Some(4_400)));
    bench.check();
}

#[test]
fn a_large_run_begins_when_all_of_it_is_there() {
    let bench = Bench::new();
    bench.enqueue("false");
    std::fs::write(bench.file("lines"), "true\n".repeat(LINES)).unwrap();
    let run = bench.cmd(["run", "lines"]).start();
    bench.until("a bulk is under way", || !bulks(&bench).is_empty());
    let turn = bench.take_turn();
    bench.until_at_turnstile(run.pid());
    assert_eq!(total(&bench), 1);
    kill_9(run);
    drop(turn);
    // Nothing is there to be continued.
    std::fs::write(bench.file("lines"), "true\n".repeat(1_200)).unwrap();
    bench.run("run lines").says(0, &["run 1: 1200 completed"]);
    assert_eq!(bulks(&bench), []);
    bench.run("run lines").says(0, &["run 1 of this input has ended (1200 completed)", "run 2: 1200 completed"]);
    bench.check();
    bench.is_clean();
}

#[test]
fn a_signal_in_the_middle_is_answered_at_once() {
    for (signal, args) in
        [(Signal::SIGINT, ["enqueue", "--file", "jobs"]), (Signal::SIGTERM, ["run", "--jsonl", "jobs"])]
    {
        let bench = Bench::new();
        bench.enqueue("true");
        write_jobs(&bench, "jobs", LINES);
        let storing = bench.cmd(args).start();
        bench.until("a bulk is under way", || !bulks(&bench).is_empty());
        let turn = bench.take_turn();
        bench.until_at_turnstile(storing.pid());
        kill(Pid::from_raw(storing.pid()), signal).unwrap();
        assert_eq!(storing.wait().0, 130);
        drop(turn);
        assert_eq!(total(&bench), 1);
        bench.ok("compact");
        assert_eq!(bulks(&bench), []);
        bench.check();
    }
}
