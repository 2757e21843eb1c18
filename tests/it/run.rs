//! `run`: a batch in one go.

use serde_json::json;

use super::support::{Bench, Done};

/// `queuectl run` with these arguments, and this as standard input.
fn run(bench: &Bench, args: &str, stdin: &str) -> Done {
    let args: Vec<&str> = args.split_whitespace().collect();
    bench.cmd([&["run"], args.as_slice()].concat()).stdin(stdin).run()
}

/// `queuectl run ARGS -- sh -c TEXT`
fn run_command(bench: &Bench, args: &str, text: &str) -> Done {
    let args: Vec<&str> = args.split_whitespace().collect();
    bench.cmd([&["run", "--max-retries", "0"], args.as_slice(), &["--", "sh", "-c", text]].concat()).run()
}

fn write(bench: &Bench, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(bench.path().join(name), text).unwrap();
}

#[test]
fn commands_come_from_a_file_from_standard_input_or_from_the_line() {
    let bench = Bench::new();
    write(&bench, "jobs.txt", "echo one\necho two\n");
    assert_eq!(run(&bench, "-j 1 jobs.txt", "").ok(), "one\ntwo\n");
    assert_eq!(run(&bench, "-j 1 -", "echo three\necho four").ok(), "three\nfour\n");
    assert_eq!(bench.cmd(["run", "--", "echo", "a  b", "$HOME", "-j"]).run().ok(), "a  b $HOME -j\n");
    bench.check();
}

#[test]
fn lines_that_are_no_commands_are_left_out() {
    let bench = Bench::new();
    let done = run(&bench, "-j 1 -", "\u{feff}# a comment\r\n\r\n  echo one\r\n\t# another\n \t\necho '# two'\n");
    assert!(done.stderr.contains("byte order mark") && done.stderr.contains("CR"), "{done:?}");
    assert_eq!(done.ok(), "one\n# two\n");
}

#[test]
fn an_input_without_commands_is_done_at_once() {
    let bench = Bench::new();
    run(&bench, "-", "# nothing\n\n").says(0, &["no commands", "nothing to do"]);
    assert!(!bench.queue().exists());
}

#[test]
fn a_first_line_of_json_makes_it_json_lines() {
    let bench = Bench::new();
    let jobs = "# jobs\n{\"id\":\"a\",\"command\":\"echo one\"}\n{\"argv\":[\"echo\",\"two\"]}\n";
    assert_eq!(run(&bench, "-j 1 -", jobs).ok(), "one\ntwo\n");
    assert_eq!(bench.state("a"), "completed");
}

#[test]
fn the_kind_of_lines_can_be_said_outright() {
    let bench = Bench::new();
    run(&bench, "--jsonl -", "echo hi\n").says(2, &["line 1", "not JSON", "--lines"]);
    assert_eq!(run(&bench, "--jsonl -j 1 -", " {\"command\":\"echo one\"}").ok(), "one\n");
    write(&bench, "{\"a\"}", "#!/bin/sh\necho a strange program\n");
    bench.script("chmod +x '{\"a\"}'").run().ok();
    assert_eq!(run(&bench, "--lines --max-retries 0 -", "{\"a\"}\n").code, 1);
    assert_eq!(bench.json("list --state dead --json")[0]["command"], "{\"a\"}");
}

#[test]
fn a_mistake_in_the_input_starts_nothing_and_names_the_line() {
    let bench = Bench::new();
    let good = "{\"command\":\"touch started\"}";
    for (lines, code, parts) in [
        (format!("{good}\n{{\"comand\":\"true\"}}"), 2, &["standard input: line 2", "did you mean `command`?"][..]),
        (format!("{good}\n{{\"command\":\"true\""), 2, &["line 2, column"]),
        (
            format!("{good}\n{{\"id\":\"a\",\"command\":\"b\"}}\n{{\"id\":\"a\",\"command\":\"c\"}}"),
            4,
            &["line 3", "line 2"],
        ),
        ("touch started\na\0b".to_owned(), 2, &["line 2", "NUL"]),
    ] {
        run(&bench, "-", &lines).says(code, parts);
    }
    run(&bench, "no-such-file", "").says(2, &["no-such-file"]);
    assert!(!bench.queue().exists() && !bench.path().join("started").exists());
}

#[test]
fn each_jobs_output_is_in_one_piece_and_in_its_stream() {
    let bench = Bench::new();
    bench.script("mkfifo a b").run().ok();
    // Each says something, waits for the other, and says something more.
    let jobs = "echo a1; echo A1 >&2; echo > a; read x < b; echo a2; echo A2 >&2\n\
                echo b1; echo B1 >&2; read x < a; echo > b; echo b2; echo B2 >&2\n";
    let done = run(&bench, "--quiet --count 2 -", jobs);
    let in_pieces = |text: &str, one: &str, two: &str| text == [one, two].concat() || text == [two, one].concat();
    assert!(in_pieces(&done.stderr, "A1\nA2\n", "B1\nB2\n"), "{done:?}");
    assert!(in_pieces(&done.ok(), "a1\na2\n", "b1\nb2\n"));
}

#[test]
fn only_the_last_attempts_output_is_printed() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    let command = "echo out $QUEUECTL_ATTEMPT; echo err $QUEUECTL_ATTEMPT >&2; exit $((3 - QUEUECTL_ATTEMPT))";
    let done = run(&bench, "--quiet --max-retries 2 -", command);
    assert_eq!(done.stderr, "err 3\n");
    assert_eq!(done.ok(), "out 3\n");
    assert_eq!(bench.cmd(["logs", "1", "--attempt", "1", "--stdout"]).run().ok(), "out 1\n");
}

#[test]
fn large_outputs_are_printed_whole() {
    let bench = Bench::new();
    let done = run(&bench, "-q -j 2 -", "seq 100000\nseq 7 | tr '\\n' ' ' >&2\n");
    assert_eq!(done.stderr, "1 2 3 4 5 6 7 ");
    let expected = (1..=100_000).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
    assert!(done.ok() == expected);
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let bench = Bench::new();
    let done = run(&bench, "--quiet -", "echo hi\n");
    assert_eq!((done.stderr.as_str(), done.code, done.stdout.as_slice()), ("", 0, &b"hi\n"[..]));
    let done = run(&bench, "--quiet --max-retries 0 -", "true\nexit 3\n");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("job 3 is dead after 1 attempt (exit code 3)"), "{done:?}");
}

#[test]
fn the_summary_names_what_died_why_and_what_to_type() {
    let bench = Bench::new();
    let done = run(&bench, "-j 1 --max-retries 0 -", "true\nfalse\nkill -9 $$\n/no/such/program\n");
    assert_eq!(done.code, 1);
    for part in [
        "run 1: 1 completed, 3 dead in",
        "job 2 is dead after 1 attempt (exit code 1): false",
        "job 3 is dead after 1 attempt (killed by signal 9",
        "job 4 is dead after 1 attempt (exit code 127",
        "queuectl logs 2",
        "queuectl retry --all-dead",
    ] {
        assert!(done.stderr.contains(part), "{part}: {done:?}");
    }
}

#[test]
fn many_dead_jobs_are_counted_rather_than_named() {
    let bench = Bench::new();
    let done = run(&bench, "-j 2 --max-retries 0 -", &"false\n".repeat(13));
    assert_eq!((done.code, done.stderr.matches("is dead").count()), (1, 10), "{done:?}");
    assert!(done.stderr.contains("and 3 more: queuectl dlq list"), "{done:?}");
}

#[test]
fn one_command_gives_its_own_exit_code() {
    let bench = Bench::new();
    assert_eq!(run_command(&bench, "", "exit 0").code, 0);
    assert_eq!(run_command(&bench, "", "exit 7").code, 7);
    assert_eq!(run_command(&bench, "", "exit 255").code, 255);
    assert_eq!(run_command(&bench, "", "kill -9 $$").code, 128 + 9);
    assert_eq!(run_command(&bench, "", "kill -USR1 $$").code, 128 + 10);
    assert_eq!(run_command(&bench, "--timeout 50ms", "sleep 60").code, 124);
    assert_eq!(bench.cmd(["run", "--max-retries", "0", "--", "no-such-program"]).run().code, 127);
    bench.ok("config set backoff-base 0.01");
    let done = bench.cmd(["run", "--max-retries", "1", "--", "sh", "-c", "exit $((QUEUECTL_ATTEMPT + 40))"]).run();
    assert_eq!(done.code, 42, "the last attempt's");
}

#[test]
fn a_batch_in_which_a_job_is_cancelled_fails() {
    let bench = Bench::new();
    let binary = env!("CARGO_BIN_EXE_queuectl");
    let done = run(&bench, "-j 1 --max-retries 0 -", &format!("{binary} cancel 2\ntrue\n"));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("1 completed, 1 cancelled"), "{done:?}");
    assert!(done.stderr.ends_with("try: queuectl list --state cancelled\n"), "{done:?}");
}

#[test]
fn the_same_line_after_its_end_runs_anew() {
    let bench = Bench::new();
    for _ in 0..2 {
        assert_eq!(run(&bench, "-", "echo hi\n").ok(), "hi\n");
    }
    let status = bench.json("status --json");
    assert_eq!((&status["jobs"]["completed"], &status["runs"]), (&json!(2), &json!([])));
}

#[test]
fn ids_are_taken_over_from_ended_jobs_of_the_same_run() {
    let bench = Bench::new();
    let jobs = "{\"id\":\"a\",\"command\":\"echo $QUEUECTL_JOB_ID\"}\n";
    for _ in 0..2 {
        assert_eq!(run(&bench, "-", jobs).ok(), "a\n");
    }
    // The first one goes by its number now.
    assert_eq!(bench.json("show a --json")["state"], "completed");
    assert_eq!(bench.ok("logs 1"), "a\n");
    assert_eq!(bench.ok("logs a"), "a\n");
    bench.check();
}

#[test]
fn ids_of_other_jobs_are_refused() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"true"}"#);
    bench.work();
    run(&bench, "-", "{\"command\":\"true\"}\n{\"id\":\"a\",\"command\":\"true\"}\n")
        .says(4, &["line 2", "already a job a"]);
    run(&bench, "-", "{\"id\":\"b\",\"command\":\"true\"}\n").ok();
    run(&bench, "-", "{\"id\":\"b\",\"command\":\"false\"}\n").says(4, &["already a job b"]);
    assert_eq!(bench.json("status --json")["total"], 2);
    bench.check();
}

/// A run with one dead job out of two, made unfinished by `retry`.
fn cut_off(bench: &Bench) -> Done {
    write(bench, "jobs.txt", "echo one\ntest -e good && echo two\n");
    assert_eq!(run(bench, "-j 1 --max-retries 0 jobs.txt", "").code, 1);
    bench.run("retry 2")
}

#[test]
fn a_retried_job_makes_its_run_unfinished_and_the_line_is_named() {
    let bench = Bench::new();
    let done = cut_off(&bench);
    assert!(
        done.stderr.contains("run 1 is unfinished now")
            && done.stderr.contains("run --resume -j 1 --max-retries 0 jobs.txt\n"),
        "{done:?}"
    );
    assert_eq!(done.ok(), "✓ Job 2 will run again\n");
    let status = bench.ok("status");
    assert!(status.contains("Run 1 ended; 1 of its 2 jobs was retried since"), "{status}");
    assert!(status.contains("run --resume -j 1 --max-retries 0 jobs.txt\n"), "{status}");
    assert!(bench.ok("status --run 1").contains("State     ended; 1 of its 2 jobs was retried since\n"));
    bench.run("attach").says(130, &["run 1 ended; 1 of its 2 jobs was retried since", "run --resume -j 1"]);
    let runs = &bench.json("status --json")["runs"];
    assert_eq!((&runs[0]["unfinished"], &runs[0]["total"], &runs[0]["cut_off"]), (&json!(1), &json!(2), &json!(true)));
}

#[test]
fn the_line_that_continues_a_batch_works_as_it_is_typed() {
    let bench = Bench::new();
    let input = "true\ntest -e good\n";
    assert_eq!(run(&bench, "--fresh --max-retries 0 -", input).code, 1);
    let retried = bench.run("retry 2");
    assert!(retried.stderr.contains("queuectl run --resume --max-retries 0 -    with the same input\n"), "{retried:?}");
    write(&bench, "good", "");
    let done = run(&bench, "--resume --max-retries 0 -", input);
    assert!(done.stderr.starts_with("queuectl: continuing run 1: 1 of 2 jobs to go"), "{done:?}");
    done.ok();
}

#[test]
fn a_cut_off_run_goes_on_where_it_was() {
    let bench = Bench::new();
    cut_off(&bench);
    write(&bench, "good", "");
    let done = run(&bench, "-j 2 --max-retries 0 jobs.txt", "");
    assert!(done.stderr.starts_with("queuectl: continuing run 1: 1 of 2 jobs to go"), "{done:?}");
    assert_eq!(done.ok(), "two\n");
    assert_eq!(bench.json("status --json")["jobs"]["completed"], 2);
    bench.check();
}

#[test]
fn the_line_that_status_names_continues_a_run_from_elsewhere() {
    let bench = Bench::new();
    bench.script("mkdir 'a folder'").run().ok();
    let inside = bench.path().join("a folder");
    std::fs::write(inside.join("jobs.txt"), "test -e good && echo two\n").unwrap();
    let db = bench.queue();
    let line =
        ["--db".as_ref(), db.as_os_str(), "run".as_ref(), "--max-retries".as_ref(), "0".as_ref(), "jobs.txt".as_ref()];
    assert_eq!(bench.cmd(line).cwd(&inside).run().code, 1);
    std::fs::write(inside.join("good"), "").unwrap();
    bench.ok("retry --all-dead");
    let status = bench.ok("status");
    let (_, line) = status.split_once("to continue it, type: ").unwrap();
    assert!(line.starts_with("cd '"), "{line}");
    assert_eq!(bench.script(line.trim()).run().ok(), "two\n");
}

#[test]
fn fresh_begins_anew() {
    let bench = Bench::new();
    cut_off(&bench);
    write(&bench, "good", "");
    assert_eq!(run(&bench, "-j 1 --fresh jobs.txt", "").ok(), "one\ntwo\n");
    let jobs = &bench.json("status --json")["jobs"];
    assert_eq!((&jobs["completed"], &jobs["pending"]), (&json!(3), &json!(1)));
}

#[test]
fn flags_that_differ_from_those_of_the_jobs_get_a_note() {
    let bench = Bench::new();
    cut_off(&bench);
    let done = run(&bench, "-j 1 --max-retries 5 jobs.txt", "");
    assert!(
        done.stderr.contains(
            "keep the flags that they were enqueued with, or what `retry` and `edit` gave them since: --max-retries 0"
        ),
        "{done:?}"
    );
    assert_eq!(bench.json("show 2 --json")["max_retries"], 0);
    bench.ok("retry 2");
    // Another number of workers is of the moment.
    let done = run(&bench, "-j 3 --max-retries 0 jobs.txt", "");
    assert!(!done.stderr.contains("keep the flags"), "{done:?}");
}

#[test]
fn ordinary_pools_leave_the_jobs_of_a_run_alone() {
    let bench = Bench::new();
    cut_off(&bench);
    bench.enqueue("true");
    bench.work().ok();
    assert_eq!((bench.state("2").as_str(), bench.state("3").as_str()), ("pending", "completed"));
}

#[test]
fn a_run_leaves_enqueued_jobs_alone() {
    let bench = Bench::new();
    let id = bench.enqueue("true");
    run(&bench, "-", "true").ok();
    assert_eq!(bench.state(&id), "pending");
}

#[test]
fn a_run_does_not_follow_the_setting_timeout() {
    let bench = Bench::new();
    bench.ok("config set timeout 20ms");
    assert_eq!(run(&bench, "--max-retries 0 -", "sleep 0.1; echo done").ok(), "done\n");
    let done = run(&bench, "--max-retries 0 --timeout 50ms -", "sleep 60");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("timed out"), "{done:?}");
}

#[test]
fn what_a_job_says_itself_is_stronger_than_flags() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    let job = json!({"command": "exit 1", "max_retries": 2, "timeout": "none"}).to_string();
    assert_eq!(run(&bench, "--max-retries 0 --timeout 1m -", &job).code, 1);
    assert_eq!(bench.json("show 1 --json")["attempts"], 3);
}

#[test]
fn settings_for_retries_hold_for_runs() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0");
    bench.ok("config set max-retries 1");
    assert_eq!(run(&bench, "-", "exit 1").code, 1);
    assert_eq!(bench.json("show 1 --json")["attempts"], 2);
}

#[test]
fn nobody_has_to_listen() {
    let bench = Bench::new();
    let lines = (1..=300).map(|n| format!("seq 1000; touch done{n}\n")).collect::<Vec<_>>().concat();
    write(&bench, "jobs.txt", lines);
    let done = bench.script("{ queuectl run -q jobs.txt; echo $? >&2; } | head -1").run();
    assert_eq!((done.stdout.as_slice(), done.stderr.ends_with("0\n")), (&b"1\n"[..], true), "{done:?}");
    assert_eq!(bench.json("status --json")["jobs"]["completed"], 300);
}
