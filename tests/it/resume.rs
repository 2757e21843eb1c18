//! `run --resume` skips what completed before, whatever file it was in.

use super::support::{Bench, Done};

fn write(bench: &Bench, name: &str, lines: &[&str]) {
    std::fs::write(bench.file(name), lines.join("\n") + "\n").unwrap();
}

/// What was said first, and the exit code.
fn first(done: &Done) -> (String, i32) {
    (done.stderr.lines().next().unwrap_or_default().to_owned(), done.code)
}

const DONE: [&str; 3] = ["echo a >>ledger", "echo b >>ledger", "echo b >>ledger"];

#[test]
fn what_completed_is_skipped_and_the_rest_runs() {
    let bench = Bench::new();
    let broken = "[ -e fixed ] && echo c >>ledger";
    write(&bench, "jobs", &[&DONE[..], &[broken, "exit 0 # cancelled"]].concat());
    bench.run("run -j 1 --max-retries 0 jobs").fails(1);
    assert_eq!(bench.lines("ledger"), ["a", "b", "b"]);
    // Another file, in another order, with today's flags.
    std::fs::write(bench.file("fixed"), "").unwrap();
    write(&bench, "more", &[broken, DONE[1], "echo d >>ledger", DONE[0], DONE[1], DONE[1]]);
    let again = bench.run("run --resume -j 1 --name again more");
    let said = "queuectl: 3 lines completed before are skipped; 3 to go".to_owned();
    assert_eq!(first(&again), (said, 0), "{again:?}");
    assert_eq!(bench.lines("ledger"), ["a", "b", "b", "c", "d", "b"], "as often as it completed it was skipped");
    assert_eq!(bench.json("list --limit 1 --json")[0]["name"], "again");
    // Nothing is left; without the flag everything runs.
    let none = bench.run("run --resume more");
    let said = "queuectl: 6 lines completed before are skipped; nothing is left to do".to_owned();
    assert_eq!(first(&none), (said, 0), "{none:?}");
    assert_eq!(bench.lines("ledger").len(), 6);
    bench.run("run -j 1 more").ok();
    assert_eq!(bench.lines("ledger").len(), 12);
    bench.check();
}

#[test]
fn what_was_removed_or_ran_elsewhere_is_not_known() {
    let bench = Bench::new();
    write(&bench, "jobs", &["true", "echo"]);
    bench.run("run -j 1 jobs").ok();
    bench.ok("remove 1");
    let said = |done: Done| first(&done).0;
    assert_eq!(said(bench.run("run --resume jobs")), "queuectl: 1 line completed before is skipped; 1 to go");
    std::fs::create_dir(bench.file("other")).unwrap();
    let other = bench.cmd(["run", "--resume", "../jobs"]).cwd(bench.file("other")).run();
    assert!(other.stderr.contains("0 lines completed before are skipped; 2 to go"), "{other:?}");
    bench.run("run --resume --fresh jobs").says(2, &["--fresh"]);
    bench.run("run --resume -- true").says(2, &["--resume"]);
    // The same command with other variables is another line.
    let line = |seed| format!(r#"{{"command":"echo $SEED","env":{{"SEED":"{seed}"}}}}"#);
    write(&bench, "seeds", &[&line(1)]);
    assert_eq!(bench.run("run seeds").ok(), "1\n");
    write(&bench, "seeds", &[&line(1), &line(2)]);
    assert_eq!(bench.run("run --resume seeds").ok(), "2\n");
    bench.check();
}

#[test]
fn a_run_that_was_cut_off_goes_on() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    write(&bench, "jobs", &["echo 1 >>ledger", "[ -e again ] || { echo 2 >started; : <gate; }; echo 2 >>ledger"]);
    let mut run = bench.cmd(["run", "--resume", "-j", "1", "jobs"]).spawn();
    run.stderr.until("0 lines completed before");
    bench.until_file("started");
    run.kill();
    std::fs::write(bench.file("again"), "").unwrap();
    drop(gate);
    let again = bench.run("run --resume -j 1 jobs");
    assert!(first(&again).0.contains("continuing run 1: 1 of 2 jobs to go"), "{again:?}");
    assert_eq!((again.code, bench.lines("ledger")), (0, vec!["1".to_owned(), "2".to_owned()]));
    bench.is_clean();
}

#[test]
fn ids_are_taken_over_from_what_did_not_complete() {
    let bench = Bench::new();
    let job = |id: &str, command: &str| format!(r#"{{"id":"{id}","command":"{command}"}}"#);
    write(&bench, "jobs", &[&job("good", "true"), &job("bad", "exit 3")]);
    bench.run("run --max-retries 0 jobs").fails(1);
    write(&bench, "jobs", &[&job("good", "true"), &job("bad", "echo mended")]);
    bench.run("run jobs").says(4, &["already a job good"]);
    let resumed = bench.run("run --resume jobs");
    assert_eq!(resumed.ok(), "mended\n");
    assert_eq!((bench.state("good"), bench.state("bad"), bench.state("2")), {
        let is = |state: &str| state.to_owned();
        (is("completed"), is("completed"), is("dead"))
    });
    bench.check();
}

#[test]
fn a_large_batch_is_resumed_too() {
    let bench = Bench::new();
    let lines: Vec<String> = (0..1_200).map(|n| format!("true {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    write(&bench, "jobs", &lines);
    bench.run("run -q jobs").ok();
    let more = [&["echo new"], &lines[..], &["echo newer"]].concat();
    write(&bench, "jobs", &more);
    let resumed = bench.run("run --resume -j 1 jobs");
    assert!(first(&resumed).0.contains("1200 lines completed before are skipped; 2 to go"), "{resumed:?}");
    assert_eq!(resumed.ok(), "new\nnewer\n");
    bench.run("run --resume jobs").says_too("1202 lines completed before are skipped; nothing is left to do");
    bench.check();
}

/// A file that was edited makes another run, which is said; what comes through a pipe is another each time.
#[test]
fn an_edited_file_is_said_to_be_another_run() {
    let bench = Bench::new();
    let says = "run 1 of this line had another input; this is another run (--resume skips what completed)";
    std::fs::write(bench.file("jobs"), "echo one\n").unwrap();
    bench.run("run jobs").ok();
    std::fs::write(bench.file("jobs"), "echo one\necho two\n").unwrap();
    bench.run("run jobs").says_too(says);
    std::fs::write(bench.file("jobs"), "echo one\necho two\necho three\n").unwrap();
    let resumed = bench.run("run --resume jobs");
    assert!(!resumed.stderr.contains("had another input"), "{resumed:?}");
    for input in ["echo a\n", "echo b\n"] {
        let piped = bench.cmd(["run", "-"]).stdin(input).run();
        assert!(!piped.stderr.contains("had another input"), "{piped:?}");
    }
}
