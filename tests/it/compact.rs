//! `compact`: the room comes back, and whatever strikes, the queue is as it was.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;

use super::failing_disk::Faults;
use super::support::{Bench, Process, has_fields, lives, state_letter, with_mounts};

/// A queue with jobs of all sorts, from which many were removed.
fn filled() -> Bench {
    fill(Bench::new())
}

fn fill(bench: Bench) -> Bench {
    let lines = format!("{}exit 3\nseq 3000\n", "echo hi\n".repeat(300));
    bench.cmd(["enqueue", "-"]).stdin(lines).run().ok();
    bench.ok("config set max-retries 0");
    assert_eq!(bench.work().code, 1);
    bench.cmd(["run", "-"]).stdin("echo ran\n".repeat(20)).run().ok();
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(10)).run().ok();
    let gone = (1..=280).map(|n| n.to_string());
    bench.cmd(["remove".to_owned()].into_iter().chain(gone)).run().ok();
    bench
}

/// All that the queue holds.
fn everything(bench: &Bench) -> String {
    let export = bench.ok("export");
    export.split_once('\n').unwrap().1.to_owned()
}

fn file(bench: &Bench) -> Vec<u8> {
    fs::read(bench.queue().join("queue.redb")).unwrap()
}

fn names(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.queue()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn room_comes_back_and_nothing_else_changes() {
    let bench = filled();
    let (was, before, names_before) = (everything(&bench), file(&bench).len(), names(&bench));
    let done = bench.json("compact --json");
    has_fields(&done, "jobs bytes_before bytes_after");
    let after = file(&bench).len();
    assert_eq!(
        (&done["jobs"], &done["bytes_before"], &done["bytes_after"]),
        (&52.into(), &before.into(), &after.into()),
        "{done}"
    );
    assert!(after < before, "{after} of {before} bytes");
    assert_eq!(everything(&bench), was);
    assert_eq!(names(&bench), names_before);
    bench.ok("check --deep");
    let again = bench.run("compact");
    assert!(again.stderr.contains("who wants to write to the queue waits"), "{again:?}");
    let said = again.ok();
    assert!(said.starts_with("✓ 52 jobs: the queue file had ") && said.contains(" KiB and has "), "{said}");
    bench.work().ok();
    bench.ok("retry 301");
    assert_eq!(bench.work().code, 1);
    assert_eq!(bench.outcomes("301"), ["failed", "failed"]);
    assert_eq!(bench.enqueue("true"), "333", "numbers go on");
    bench.is_clean();
}

#[test]
fn it_is_refused_while_somebody_works() {
    let bench = filled();
    let which = || fs::metadata(bench.queue().join("queue.redb")).unwrap().ino();
    let was = which();
    let pool = bench.pool("");
    bench.run("compact").says(4, &["works on the queue", "\n  try: queuectl worker stop\n"]);
    bench.ok("worker stop");
    pool.wait().ok();
    let gate = bench.gate("gate");
    let run = bench.cmd(["run", "--", "sh", "-c", "echo >there; : <gate"]).spawn();
    bench.until_file("there");
    bench.run("compact").says(4, &[&format!("kill -INT {}    stops that run", run.pid())]);
    bench.open(&gate);
    run.wait().ok();
    assert_eq!(which(), was);
    bench.ok("compact");
    assert_ne!(which(), was);
    Bench::new().run("compact").says(3, &["there is no queue"]);
    bench.is_clean();
}

#[test]
fn what_a_dead_pool_left_is_ended_first() {
    let bench = filled();
    bench.work().ok();
    let id = bench.enqueue("sleep 100 & echo $! >>pids; echo $$ >>pids; wait");
    let mut pool = bench.pool("");
    let pids = bench.until_pids("pids", 2);
    pool.kill();
    bench.run("compact").says_too("took over its 1 job");
    assert!(pids.iter().all(|pid| !lives(*pid)), "{pids:?}");
    assert_eq!((bench.state(&id), bench.outcomes(&id)), ("pending".to_owned(), vec!["lost".to_owned()]));
    bench.is_clean();
}

#[test]
fn who_waited_before_is_told() {
    let bench = filled();
    let mut waiting = ["wait --all", "logs -f 323"].map(|line| bench.cmd(line.split(' ')).spawn());
    for process in &mut waiting {
        process.stderr.until("which no pool serves");
    }
    bench.ok("compact");
    for process in waiting {
        process.wait().says(5, &["the queue file was replaced, by a compaction, a repair or a restore"]);
    }
}

/// The calls at which something strikes: all of the first, then fewer, until a command has done all of its own.
fn calls() -> impl Iterator<Item = usize> {
    std::iter::successors(Some(0), |at| Some(at + 1 + at / 8))
}

#[test]
fn if_any_call_fails_the_queue_is_as_it_was() {
    let bench = filled();
    let (was, names_before) = (everything(&bench), names(&bench));
    let faults = Faults(&bench);
    let mut failed = 0;
    for which in ["sync", "write", "read"] {
        for after in calls() {
            let before = file(&bench);
            faults.set(&format!("{which}{after}"));
            let done = faults.on(bench.cmd(["compact"])).run();
            faults.set("");
            if done.code == 0 {
                break;
            }
            failed += 1;
            done.says(5, &["Input/output error"]);
            assert!(file(&bench) == before, "{which}{after} changed the file");
            assert_eq!(names(&bench), names_before, "{which}{after}");
        }
        assert_eq!(everything(&bench), was, "{which}");
    }
    assert!(failed > 20, "{failed}");
    bench.is_clean();
}

/// A compaction that stands still at a call, or has ended before it.
fn stopped<'b>(bench: &'b Bench, faults: &Faults<'b>, at: &str) -> Option<Process> {
    faults.set(&format!("stop {at}"));
    let process = faults.on(bench.cmd(["compact"])).spawn();
    let mut state = ' ';
    bench.until("it stands still or has ended", || {
        state = if lives(process.pid()) { state_letter(process.pid()) } else { 'Z' };
        matches!(state, 'T' | 'Z')
    });
    faults.set("");
    if state == 'T' {
        return Some(process);
    }
    process.wait().ok();
    None
}

#[test]
fn a_kill_at_any_call_changes_nothing_and_others_wait_until_then() {
    let bench = filled();
    let (faults, names_before) = (Faults(&bench), names(&bench));
    let mut killed = 0;
    for which in ["sync", "write"] {
        for at in calls() {
            let was = everything(&bench);
            let Some(mut holder) = stopped(&bench, &faults, &format!("{which}{at}")) else { break };
            assert_eq!(everything(&bench), was, "{which}{at}: looking goes on");
            let mut waiting = bench.cmd(["enqueue", "--quiet", "-c", "true"]).spawn();
            // That takes two seconds.
            if at == 4 {
                let said = waiting.stderr.until("waiting for the queue file");
                assert!(said.contains(&format!("process {} (queuectl), which is stopped", holder.pid())), "{said}");
            }
            if at % 3 == 2 {
                holder.signal(Signal::SIGCONT);
                holder.wait().ok();
            } else {
                holder.kill();
                killed += 1;
            }
            let id = waiting.wait().ok();
            assert_eq!(bench.state(id.trim()), "pending");
            // What the killed one left went with the next that wrote.
            assert_eq!(names(&bench), names_before, "{which}{at}");
            bench.check();
            bench.ok(&format!("cancel {}", id.trim()));
            bench.ok(&format!("remove {}", id.trim()));
            let without_counters = |text: &str| text.rsplit_once("\n{").unwrap().0.to_owned();
            assert_eq!(without_counters(&everything(&bench)), without_counters(&was), "{which}{at}");
        }
    }
    assert!(killed > 10, "{killed}");
    bench.ok("compact");
    assert_eq!(names(&bench), names_before);
    bench.is_clean();
}

#[test]
fn on_a_full_disk_the_queue_is_as_it_was() {
    with_mounts(|| {
        let bench = fill(Bench::on_small_disk("size=6m"));
        let (was, names_before) = (everything(&bench), names(&bench));
        let mut refused = 0;
        for pages in calls() {
            bench.disk().fill_but(pages as u64 * 4_096);
            let before = file(&bench);
            let done = bench.run("compact");
            if done.code == 0 {
                break;
            }
            refused += 1;
            done.says(5, &["No space left on device"]);
            assert!(file(&bench) == before, "{pages} pages changed the file");
            bench.disk().make_room();
            assert_eq!(names(&bench), names_before, "{pages} pages");
        }
        assert!(refused > 5, "{refused}");
        let _ = fs::remove_file(bench.file("filler"));
        assert_eq!(everything(&bench), was);
        bench.is_clean();
    });
}

#[test]
fn a_damaged_file_is_not_replaced() {
    let bench = filled();
    let (whole, was) = (file(&bench), everything(&bench));
    let (mut refused, mut done) = (0, 0);
    for page in 1..whole.len() / 4_096 {
        let mut flipped = whole.clone();
        flipped[page * 4_096 + 100] ^= 4;
        fs::write(bench.queue().join("queue.redb"), &flipped).unwrap();
        let compacted = bench.run("compact");
        if compacted.code == 0 {
            done += 1;
            if done % 8 == 0 {
                assert_eq!(everything(&bench), was, "page {page}");
            }
        } else {
            refused += 1;
            compacted.says(5, &["the queue file is damaged", "queuectl check"]);
            assert!(file(&bench) == flipped, "page {page}");
        }
    }
    println!("{refused} refused, {done} of pages that nothing needs");
    assert!(refused > 5);
}
