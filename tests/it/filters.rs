//! One filter for everything: what it lets through, how that is listed, and the verbs on it.

use std::fs;
use std::io::Read;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::support::{Bench, Terminal};

/// Jobs of several queues, names, tags, runs and ends; ids tell what they are.
fn mixed() -> Bench {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    for job in [
        json!({"id": "a", "command": "echo a one", "tags": {"night": "1", "who": "me"}}),
        json!({"id": "b", "command": "echo b two; exit 3", "tags": {"night": "1"}, "name": "backup"}),
        json!({"id": "c", "command": "exit 4", "tags": {"night": "2"}, "queue": "gpu"}),
        json!({"id": "d", "argv": ["true", "x y"], "queue": "gpu", "name": "backup"}),
    ] {
        bench.add(&job.to_string());
    }
    fs::write(bench.file("jobs"), "{\"id\":\"r1\",\"command\":\"true\"}\n{\"id\":\"r2\",\"command\":\"exit 3\"}\n")
        .unwrap();
    assert_eq!(bench.run("run jobs").code, 1);
    assert_eq!(bench.work().code, 1);
    bench.add(r#"{"id":"e","command":"echo later","delay":"1h","tags":{"night":"2"}}"#);
    bench.add(r#"{"id":"f","command":"echo f","queue":"gpu"}"#);
    bench
}

/// The ids of a list in their order, with spaces between them.
fn ids(bench: &Bench, args: &str) -> String {
    let listed = bench.json(&format!("list --json {args}"));
    listed.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn everything_that_is_asked_for_has_to_hold() {
    let bench = mixed();
    for (args, expected) in [
        ("", "f e r2 r1 d c b a"),
        ("--state pending", "f"),
        ("--state scheduled,pending", "e f"),
        ("--queue gpu", "f d c"),
        ("--queue default", "e b a"),
        ("--queue gpu --state completed,dead", "d c"),
        ("--tag night=1", "b a"),
        ("--tag night=1 --tag who=me", "a"),
        ("--tag night=2 --state scheduled", "e"),
        ("--tag night=3", ""),
        ("--name backup", "d b"),
        ("--name backup --queue gpu", "d"),
        ("--run 1", "r2 r1"),
        ("--run last --state dead", "r2"),
        ("--run 1 --queue default", ""),
        ("--exit-code 3", "r2 b"),
        ("--exit-code 3 --run last", "r2"),
        ("--exit-code 0 --queue gpu", "d"),
        ("--command ^echo", "f e b a"),
        ("--command two|three", "b"),
        ("--since 1h", "f e r2 r1 d c b a"),
        ("--since 0", ""),
        ("--sort oldest", "a b c d r1 r2 e f"),
        ("--sort oldest --limit 2", "a b"),
        ("--sort exit-code --limit 1", "c"),
        ("--tag night=1 --limit 1", "b"),
    ] {
        assert_eq!(ids(&bench, args), expected, "{args}");
        if !args.contains("--limit") && !args.contains("--sort") {
            let count = expected.split_whitespace().count();
            assert_eq!(bench.ok(&format!("list --count {args}")), format!("{count}\n"), "{args}");
        }
    }
    assert_eq!(bench.json("dlq list --queue gpu --json")[0]["id"], "c");
    assert_eq!(bench.ok("dlq list --run 1 --count"), "1\n");
    assert_eq!(bench.ok("list --tag night=3"), "No jobs match\n");
    for (args, code, says) in [
        ("--queue nope", 3, "there is no queue nope"),
        ("--run 7", 3, "there is no run 7"),
        ("--tag a=1 --tag a=2", 2, "no job has two values of the tag a"),
        ("--command (", 2, "no regular expression"),
        ("--state no", 2, "there is no such state"),
        ("--run no", 2, "number of a run"),
    ] {
        let done = bench.run(&format!("list {args}"));
        assert!(done.stderr.contains(says), "{args}: {done:?}");
        assert_eq!(done.code, code, "{args}");
    }
    bench.check();
}

#[test]
fn many_jobs_that_do_not_match_are_gone_through_page_by_page() {
    let bench = Bench::new();
    let lines = ("echo found\n".to_owned() + &"echo no\n".repeat(3_999)).repeat(3);
    bench.cmd(["enqueue", "-"]).stdin(lines).run().ok();
    for args in ["", "--state pending", "--queue default --since 1h"] {
        assert_eq!(ids(&bench, &format!("--command found {args}")), "8001 4001 1");
    }
    assert_eq!(bench.ok("cancel --command found"), "✓ 3 jobs cancelled\n");
    assert_eq!(ids(&bench, "--state cancelled"), "8001 4001 1");
    assert_eq!(bench.ok("cancel --queue default"), "✓ 11997 jobs cancelled\n");
    assert_eq!(bench.ok("remove --state cancelled --command no"), "✓ 11997 jobs removed\n");
    bench.check();
}

#[test]
fn columns_orders_and_tsv() {
    let bench = mixed();
    let tsv = bench.ok("list --format tsv --queue gpu");
    let lines: Vec<Vec<&str>> = tsv.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(
        lines[0],
        ["id", "state", "exit_code", "signal", "started_at", "seconds", "cpu_seconds", "max_rss_bytes", "command"]
    );
    assert_eq!((lines[1][0], lines[1][1], lines[1][2], lines[1][8]), ("f", "pending", "", "echo f"));
    assert_eq!((lines[2][0], lines[2][2], lines[2][8]), ("d", "0", "true 'x y'"));
    assert_eq!((lines[3][0], lines[3][2], lines[3][3]), ("c", "4", ""));
    assert!(humantime::parse_rfc3339(lines[3][4]).is_ok() && lines[3][5].parse::<f64>().is_ok(), "{tsv}");
    bench.add(&json!({"id": "g", "command": "echo 'a\tb\n\\'"}).to_string());
    assert_eq!(bench.ok("list --format tsv --columns id,command --limit 1"), "id\tcommand\ng\techo 'a\\tb\\n\\\\'\n");
    let table = bench.ok("list --columns id,name,tags,run --name backup");
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [vec!["ID", "NAME", "TAGS", "RUN"], vec!["d", "backup"], vec!["b", "backup", "night=1"]]);
    let listed = bench.json("list --json --columns id,run,exit_code,seconds --run 1 --state dead");
    assert_eq!((&listed[0]["id"], &listed[0]["run"], &listed[0]["exit_code"]), (&json!("r2"), &json!(1), &json!(3)));
    assert!(listed[0]["seconds"].is_number() && listed[0].as_object().unwrap().len() == 4, "{listed}");
    bench.run("list --columns id,nothing").says(2, &["nothing"]);
    bench.run("list --count --limit 3").says(2, &["cannot be used with"]);
}

#[test]
fn verbs_take_of_a_filter_what_they_can() {
    let bench = mixed();
    for (line, says, left_out) in [
        ("cancel --queue gpu", "✓ 1 job cancelled\n", "left out: 2 jobs that ended before"),
        ("cancel --state pending", "No jobs are pending\n", ""),
        ("cancel --queue gpu", "Nothing was cancelled\n", "left out: 3 jobs that ended before"),
        ("cancel --tag night=7", "No jobs match\n", ""),
        ("retry --tag night=7", "No jobs match\n", ""),
        ("remove --tag night=7", "No jobs match\n", ""),
        ("retry --queue gpu", "✓ 2 jobs will run again\n", "left out: 1 job neither dead nor cancelled"),
        ("retry --run last --state completed", "✓ 1 job will run again\n", "run 1 is unfinished now"),
        ("dlq retry --exit-code 3 --tag night=1", "✓ 1 job will run again\n", ""),
        ("remove --tag night=1 --yes", "✓ 1 job removed\n", "left out: 1 job yet to end"),
        ("remove --run 1", "✓ 1 job removed\n", "left out: 1 job yet to end"),
    ] {
        let done = bench.run(line);
        assert!(done.stderr.contains(left_out), "{line}: {done:?}");
        assert_eq!(done.ok(), says, "{line}");
    }
    assert_eq!(ids(&bench, ""), "f e r1 d c b");
    for line in ["cancel a --state pending", "remove --all", "wait a --queue gpu", "retry a --all-dead"] {
        bench.run(line).says(2, &[]);
    }
    for (line, example) in [
        ("cancel", "cancel --state pending"),
        ("retry --yes", "retry --all-dead"),
        ("dlq retry", "dlq retry --all"),
        ("remove", "remove --state completed"),
        ("wait --timeout 1s", "wait --all"),
        ("logs -f", "logs --run last"),
    ] {
        bench
            .run(line)
            .says(2, &["say which jobs: by their ids, or by a filter", &format!("try: queuectl {example}\n")]);
    }
    bench.check();
}

#[test]
fn who_wants_all_jobs_is_told_of_filters() {
    let bench = mixed();
    for verb in ["cancel", "remove", "pause", "edit --priority 1"] {
        let said = bench.run(&format!("{verb} --all")).fails(2);
        assert!(said.contains("tip: jobs are named by their ids, or by filters such as"), "{said}");
        assert!(!said.contains("-- --all"), "{said}");
    }
}

#[test]
fn a_retry_can_be_under_other_terms() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 0.01");
    bench.add(r#"{"id":"a","command":"exit 1","max_retries":1,"timeout":"1s"}"#);
    assert_eq!(bench.work().code, 1);
    bench.ok("retry a --max-retries 3 --timeout 2h");
    assert_eq!(bench.work().code, 1);
    let job = bench.json("show a --json");
    assert_eq!((&job["attempts"], &job["max_retries"]), (&json!(6), &json!(3)));
    bench.ok("dlq retry a --max-retries 0");
    assert_eq!(bench.work().code, 1);
    assert_eq!(bench.json("show a --json")["attempts"], 7);
    assert!(bench.ok("export").contains(r#""timeout":7200"#));
    bench.check();
}

#[test]
fn on_a_terminal_a_verb_asks_first() {
    for (keys, code, left) in [(&b"n\n"[..], 130, 2), (b"\n", 130, 2), (b"y\n", 0, 0)] {
        let bench = Bench::new();
        bench.enqueue("true");
        bench.enqueue("true");
        let terminal = Terminal::new();
        terminal.types(keys);
        let mut cancel =
            bench.cmd(["cancel", "--queue", "default"]).spawn_with(terminal.end(), terminal.end(), terminal.end());
        let shown = String::from_utf8(terminal.read_until_closed()).unwrap();
        assert!(shown.contains("this cancels 2 jobs; go on? [y/N]"), "{shown}");
        assert_eq!(cancel.wait().unwrap().code(), Some(code), "{shown}");
        assert_eq!(bench.json("status --json")["jobs"]["pending"], left);
    }
}

/// It waits for its turn when the signal comes: that piece is the last.
#[test]
fn a_signal_stops_a_verb_between_two_pieces() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(600)).run().ok();
    let terminal = Terminal::new();
    let mut cancel =
        bench.cmd(["cancel", "--state", "pending"]).spawn_with(terminal.end(), terminal.end(), terminal.end());
    let mut shown = String::new();
    while !shown.contains("this cancels 600 jobs; go on? [y/N]") {
        let mut bytes = [0; 4096];
        let count = terminal.master().read(&mut bytes).unwrap();
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let turn = bench.take_turn();
    terminal.types(b"y\n");
    let pid = cancel.id().cast_signed();
    bench.until_at_turnstile(pid);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT).unwrap();
    bench.until("the signal was taken", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let pending = status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
        pending.into_iter().all(|line| line.ends_with("0000000000000000"))
    });
    drop(turn);
    let shown = String::from_utf8(terminal.read_until_closed()).unwrap();
    assert!(shown.contains("stopped: 256 of 600 jobs cancelled"), "{shown}");
    assert_eq!(cancel.wait().unwrap().code(), Some(130), "{shown}");
    assert_eq!(bench.json("status --json")["jobs"]["cancelled"], 256);
    assert_eq!(bench.ok("cancel --state pending"), "✓ 344 jobs cancelled\n");
    bench.check();
}

#[test]
fn a_running_job_of_a_filter_is_ended() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"echo yes > started; sleep 1000","queue":"gpu"}"#);
    let pool = bench.pool("");
    bench.until_file("started");
    assert_eq!(bench.ok("cancel --queue gpu --state processing"), "✓ 1 job cancelled\n");
    assert_eq!(bench.state("a"), "cancelled");
    drop(pool);
}

#[test]
fn logs_of_several_jobs_tell_whose_a_line_is() {
    let bench = mixed();
    assert_eq!(bench.ok("logs b a"), "b | b two\na | a one\n");
    assert_eq!(bench.ok("logs --tag night=1"), "b | b two\na | a one\n");
    assert_eq!(bench.ok("logs a"), "a one\n");
    bench.run("logs a f").says(4, &["job f has not started yet"]);
    for (line, says) in [
        ("logs --state pending", "1 job matches; none has started yet"),
        ("logs --tag night=1 --attempt 7", "2 jobs match; none has an attempt 7"),
        ("logs --tag night=7", "no jobs match"),
        ("logs -f --tag night=7", "no jobs match"),
        ("logs --state blocked", "no jobs are blocked"),
    ] {
        bench.run(line).says(0, &[says]);
    }
    bench.add(r#"{"id":"l","command":"seq 5000; printf 'no end' >&2"}"#);
    bench.ok("cancel e");
    bench.work().ok();
    let logs = bench.run("logs l --tail 2");
    assert_eq!((logs.stderr.clone().as_str(), logs.text()), ("no end", "4999\n5000\n".to_owned()));
    let logs = bench.run("logs --command ^seq -n 1");
    assert_eq!((logs.stderr.clone().as_str(), logs.text()), ("l | no end\n", "l | 5000\n".to_owned()));
    assert_eq!(bench.ok("logs l --tail 0 --stdout"), "");
}

#[test]
fn several_jobs_are_followed_at_once() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    for id in ["a", "b"] {
        bench.add(&json!({"id": id, "command": format!("seq 3; echo begun {id}; : <gate; echo end {id}"), "tags": {"x": "1"}}).to_string());
    }
    let pool = bench.pool("--count 2");
    let mut follow = bench.cmd(["logs", "-f", "--tag", "x=1", "--tail", "1"]).spawn();
    for id in ["a", "b"] {
        bench.until(&format!("{id} runs"), || bench.run(&format!("logs {id}")).text().contains("begun"));
    }
    follow.stdout.until("begun");
    for _ in ["a", "b"] {
        bench.until("somebody went on", || gate.open() || bench.json("status --json")["jobs"]["completed"] == 2);
    }
    let done = follow.wait();
    assert_eq!(done.code, 0, "{done:?}");
    let text = done.text();
    for id in ["a", "b"] {
        assert!(text.contains(&format!("{id} | end {id}\n")), "{text}");
    }
    assert!(text.lines().all(|line| line.starts_with("a | ") || line.starts_with("b | ")), "{text}");
    drop(pool);
}

#[test]
fn waiting_for_a_filter_counts_what_has_ended_before() {
    let bench = mixed();
    for (line, code, says) in [
        ("wait --tag night=1", 1, "1 job did not complete"),
        ("wait --tag who=me", 0, ""),
        ("wait --run last", 1, "1 job did not complete"),
        ("wait --state completed", 0, ""),
        ("wait --tag night=2 --fail-fast", 1, "1 job did not complete"),
        ("wait --tag night=2 --timeout 0", 6, "timed out; 1 job has not ended"),
    ] {
        let done = bench.run(line);
        assert!(done.stderr.contains(says), "{line}: {done:?}");
        assert_eq!(done.code, code, "{line}: {done:?}");
    }
    let wait = bench.cmd(["wait", "--queue", "gpu", "--state", "pending"]).start();
    bench.ok("worker start --until-empty --queue gpu");
    assert_eq!(wait.wait(), (0, String::new()));
}

#[test]
fn the_first_failure_ends_a_wait_that_is_to_fail_fast() {
    let bench = Bench::new();
    bench.gate("gate");
    bench.add(r#"{"id":"slow","command":": <gate"}"#);
    bench.add(r#"{"id":"bad","command":"exit 1","max_retries":0}"#);
    let wait = bench.cmd(["wait", "slow", "bad", "--fail-fast"]).start();
    let pool = bench.pool("--count 2");
    assert_eq!(wait.wait(), (1, String::new()));
    assert_eq!(bench.state("slow"), "processing");
    drop(pool);
}

#[test]
fn a_watched_status_is_shown_anew_at_each_change() {
    let bench = Bench::new();
    bench.enqueue("true");
    let mut watch = bench.cmd(["status", "--watch", "--json"]).spawn();
    watch.stdout.until(r#""pending":1"#);
    bench.enqueue("true");
    watch.stdout.until(r#""pending":2"#);
    bench.work().ok();
    watch.stdout.until(r#""completed":2"#);
    watch.signal(Signal::SIGINT);
    let done = watch.wait();
    assert_eq!(done.code, 0, "{done:?}");
    let states: Vec<Value> = done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(states.len() >= 3 && states.windows(2).all(|pair| pair[0] != pair[1]), "only what changed is shown");
}

#[test]
fn on_a_terminal_a_watched_status_stays_in_its_place() {
    let bench = Bench::new();
    bench.enqueue("true");
    let terminal = Terminal::new();
    let mut watch = bench.cmd(["status", "-w"]).spawn_with(terminal.end(), terminal.end(), terminal.end());
    let mut shown = String::new();
    let mut until = |part: &str| {
        while !shown.contains(part) {
            let mut bytes = [0; 4096];
            let count = terminal.master().read(&mut bytes).unwrap();
            shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    until("pending             1");
    bench.enqueue("true");
    until("pending             2");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(watch.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!((shown.matches("\x1b[2J").count(), shown.matches("\x1b[H").count()), (1, 2), "{shown:?}");
}

#[test]
fn on_a_terminal_a_bar_tells_how_far_a_wait_is() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.add(r#"{"command":"exit 1","max_retries":0}"#);
    let terminal = Terminal::new();
    let mut wait = bench.cmd(["wait", "1", "2"]).spawn_with(terminal.end(), terminal.end(), terminal.end());
    assert_eq!(bench.work().code, 1);
    assert_eq!(wait.wait().unwrap().code(), Some(1));
    let shown = String::from_utf8(terminal.read_until_closed()).unwrap();
    assert!(shown.contains("/2 jobs") && shown.contains("1 job did not complete"), "{shown:?}");
}
