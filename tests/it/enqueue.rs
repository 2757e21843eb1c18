//! `enqueue` in all its forms, and what it refuses.

use serde_json::{Value, json};

use super::support::{Bench, Done};

fn enqueue(bench: &Bench, args: &[&str]) -> Done {
    bench.cmd(["enqueue"].iter().chain(args)).run()
}

fn batch(bench: &Bench, lines: &str) -> Done {
    bench.cmd(["enqueue", "-"]).stdin(lines).run()
}

#[test]
fn each_form_adds_its_job() {
    let bench = Bench::new();
    std::fs::write(bench.path().join("jobs"), "echo from a file\n").unwrap();
    for (args, written) in [
        (&[r#"{"command":"echo as JSON"}"#][..], "as JSON\n"),
        (&[r#"  {"argv":["echo","$HOME  *"]}"#], "$HOME  *\n"),
        (&["-c", "echo as shell text | tr a-z A-Z"], "AS SHELL TEXT\n"),
        (&["--command", "echo long option"], "long option\n"),
        (&["--", "echo", "a  b", "-c", "$HOME"], "a  b -c $HOME\n"),
        (&["--file", "jobs"], "from a file\n"),
    ] {
        let id = enqueue(&bench, &[&["--quiet"], args].concat()).ok();
        bench.work();
        assert_eq!(bench.ok(&format!("logs --stdout {}", id.trim())), written, "{args:?}");
    }
    for form in [&["-"][..], &["--file", "-"]] {
        let id = bench.cmd(["enqueue", "--quiet"].iter().chain(form)).stdin("echo from standard input").run().ok();
        bench.work();
        assert_eq!(bench.ok(&format!("logs {}", id.trim())), "from standard input\n", "{form:?}");
    }
    bench.check();
}

#[test]
fn shell_text_may_begin_with_a_dash() {
    let bench = Bench::new();
    enqueue(&bench, &["-c", "--json"]).ok();
    assert_eq!(bench.json("show 1 --json")["command"], "--json");
}

#[test]
fn success_is_one_line() {
    let bench = Bench::new();
    for (done, says) in [
        (enqueue(&bench, &[r#"{"id":"job1","command":"echo hi","max_retries":5}"#]), "✓ Job job1 enqueued\n"),
        (enqueue(&bench, &["-c", "true"]), "✓ Job 2 enqueued\n"),
        (enqueue(&bench, &["--", "true"]), "✓ Job 3 enqueued\n"),
        (batch(&bench, "true\n"), "✓ Job 4 enqueued\n"),
        (batch(&bench, "true\n\n# no job\n  false\n"), "✓ 2 jobs enqueued\n"),
    ] {
        assert_eq!(done.ok(), says);
    }
}

#[test]
fn quiet_prints_bare_ids() {
    let bench = Bench::new();
    assert_eq!(enqueue(&bench, &["--quiet", r#"{"id":"a","command":"true"}"#]).ok(), "a\n");
    assert_eq!(enqueue(&bench, &["-q", "-c", "true"]).ok(), "2\n");
    let lines = "{\"id\":\"x\",\"command\":\"true\"}\n{\"command\":\"true\"}\n";
    assert_eq!(bench.cmd(["enqueue", "-q", "-"]).stdin(lines).run().ok(), "x\n4\n");
}

#[test]
fn a_number_that_is_taken_as_an_id_is_skipped() {
    let bench = Bench::new();
    bench.add(r#"{"id":"2","command":"true"}"#);
    assert_eq!(bench.enqueue("true"), "3");
}

#[test]
fn json_prints_the_job_and_of_many_a_list() {
    let bench = Bench::new();
    let mut job: Value = serde_json::from_str(&enqueue(&bench, &["--json", "-c", "echo hi"]).ok()).unwrap();
    assert_eq!((&job["id"], &job["command"], &job["state"]), (&json!("1"), &json!("echo hi"), &json!("pending")));
    assert_eq!(job.as_object_mut().unwrap().remove("existed"), Some(json!(false)));
    assert_eq!(job.as_object_mut().unwrap().remove("keeps_command"), Some(json!(false)));
    assert_eq!(bench.json("list --json")[0], job);
    let jobs = bench.cmd(["enqueue", "--json", "-"]).stdin("true\nfalse\n").run().ok();
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    assert_eq!((&jobs[0]["command"], &jobs[1]["command"]), (&json!("true"), &json!("false")));
}

#[test]
fn every_field_has_its_effect() {
    let bench = Bench::new();
    bench.script("mkdir sub").run().ok();
    let job = json!({
        "id": "all", "command": "echo $A-${HOME-unset}-$QUEUECTL_JOB_ID; pwd; echo $0; exit 9", "max_retries": 1,
        "backoff_base": 0, "timeout": "5m", "cwd": "sub", "env": {"A": "1", "HOME": null},
        "shell": ["/bin/sh", "-u", "-c"], "queue": "gpu",
    });
    bench.add(&job.to_string());
    assert_eq!(bench.work().code, 1);
    let shown = bench.json("show all --json");
    let sub = bench.path().join("sub");
    assert_eq!(shown["queue"], "gpu");
    assert_eq!((&shown["max_retries"], &shown["attempts"], &shown["exit_code"]), (&json!(1), &json!(2), &json!(9)));
    assert_eq!(shown["cwd"], sub.to_str().unwrap());
    assert_eq!(bench.ok("logs all"), format!("1-unset-all\n{}\n/bin/sh\n", sub.display()));
}

#[test]
fn null_means_not_set() {
    let bench = Bench::new();
    bench.add(
        r#"{"id":null,"command":"true","argv":null,"max_retries":null,"backoff_base":null,"timeout":null,
        "cwd":null,"env":null,"shell":null,"queue":null}"#,
    );
    let job = bench.json("show 1 --json");
    assert_eq!((&job["max_retries"], &job["queue"]), (&json!(3), &json!("default")));
}

#[test]
fn a_time_limit_is_a_number_of_seconds_or_a_text_or_none() {
    let bench = Bench::new();
    bench.ok("config set timeout 40ms");
    for (id, timeout, outcome) in [
        ("number", json!(0.04), "timed_out"),
        ("text", json!("40ms"), "timed_out"),
        ("setting", json!(null), "timed_out"),
        ("long", json!("1h"), "completed"),
        ("none", json!("none"), "completed"),
    ] {
        let command = if outcome == "completed" { "sleep 0.06" } else { "sleep 60" };
        bench.add(&json!({"id": id, "command": command, "timeout": timeout, "max_retries": 0}).to_string());
    }
    bench.run("worker start --count 5 --until-empty");
    for (id, outcome) in [
        ("number", "timed_out"),
        ("text", "timed_out"),
        ("setting", "timed_out"),
        ("long", "completed"),
        ("none", "completed"),
    ] {
        assert_eq!(bench.json(&format!("show {id} --json"))["history"][0]["outcome"], outcome, "{id}");
    }
}

#[test]
fn folder_and_environment_are_those_of_the_enqueue() {
    let bench = Bench::new();
    bench.script("mkdir here there").run().ok();
    let at = |name: &str| bench.path().join(name);
    let command = "pwd; echo $PWD $COLOUR $QUEUECTL_JOB_ID $QUEUECTL_ATTEMPT $QUEUECTL_SLOT; echo ${OLDPWD-no}";
    let enqueue = bench.cmd(["--db", "../.queuectl", "enqueue", "-c", command]).cwd(at("here"));
    enqueue.env("COLOUR", "red").env("OLDPWD", "/").env("QUEUECTL_X", "1").run().ok();
    bench.cmd(["worker", "start", "--until-empty"]).cwd(at("there")).env("COLOUR", "blue").run().ok();
    let here = at("here").display().to_string();
    assert_eq!(bench.ok("logs 1"), format!("{here}\n{here} red 1 1 0\nno\n"));
}

#[test]
fn a_mistake_in_one_job_is_told_exactly() {
    let bench = Bench::new();
    let x129 = "x".repeat(129);
    for (json, parts) in [
        ("echo hi", &["`echo hi` is not JSON", "queuectl enqueue -c 'echo hi'"][..]),
        ("echo 'a b'", &[r"queuectl enqueue -c 'echo '\''a b'\'''"]),
        ("", &["empty text"]),
        (r#"[{"command":"true"}]"#, &["a list is not taken", "--file"]),
        (r#"{"command":"a",}"#, &["line 1, column 16"]),
        ("{\"command\":\n\"a\n\"}", &["line 2, column 3"]),
        (r#"{"command":"a"} {"command":"b"}"#, &["line 1, column 17", "more after"]),
        (r#"{"command":"a","command":"b"}"#, &["given twice"]),
        (r#"{"comand":"a"}"#, &["no field `comand`", "did you mean `command`?"]),
        (r#"{"command":"a","maxRetries":1}"#, &["did you mean `max_retries`?"]),
        (r#"{"cmd":"a"}"#, &["did you mean `command`?"]),
        (r#"{"command":"a","colour":1}"#, &["no field `colour`", "id, command, argv, max_retries"]),
        (r#"{"id":"a"}"#, &["`command`", "`argv`"]),
        (r#"{"command":"a","argv":["b"]}"#, &["not both"]),
        (r#"{"command":""}"#, &["the command is empty"]),
        (r#"{"command":" \n"}"#, &["the command is empty"]),
        (r#"{"argv":[]}"#, &["the command is empty"]),
        (r#"{"argv":[""]}"#, &["the command is empty"]),
        (r#"{"argv":"echo"}"#, &["`argv` takes a list"]),
        (r#"{"command":7}"#, &["`command` takes a text", "`7`"]),
        (r#"{"command":"a\u0000b"}"#, &["NUL"]),
        (r#"{"argv":["a","b\u0000"]}"#, &["NUL"]),
        (r#"{"command":"a","env":{"A":"\u0000"}}"#, &["`A`", "NUL"]),
        (r#"{"command":"a","env":{"A=B":"1"}}"#, &["`A=B`"]),
        (r#"{"command":"a","cwd":"\u0000"}"#, &["NUL"]),
        (r#"{"id":"","command":"a"}"#, &["is empty", "A-Z"]),
        (r#"{"id":"-x","command":"a"}"#, &["starts with `-`"]),
        (r#"{"id":"a b","command":"a"}"#, &["not allowed", "A-Z"]),
        (r#"{"id":"a/b","command":"a"}"#, &["not allowed"]),
        (r#"{"id":"ä","command":"a"}"#, &["not allowed"]),
        (&format!(r#"{{"id":"{x129}","command":"a"}}"#), &["too long", "1 to 128"]),
        (r#"{"id":7,"command":"a"}"#, &["`id` takes a text"]),
        (r#"{"queue":"a b","command":"a"}"#, &["queue name"]),
        (r#"{"command":"a","max_retries":-1}"#, &["`max_retries` takes a whole number from 0 to 1000000", "`-1`"]),
        (r#"{"command":"a","max_retries":1.5}"#, &["whole number"]),
        (r#"{"command":"a","max_retries":1000001}"#, &["from 0 to 1000000"]),
        (r#"{"command":"a","backoff_base":-1}"#, &["`backoff_base` takes a number from 0 to 1000"]),
        (r#"{"command":"a","backoff_base":"2"}"#, &["`backoff_base`"]),
        (r#"{"command":"a","timeout":0}"#, &["`timeout`", "1ms"]),
        (r#"{"command":"a","timeout":"soon"}"#, &["`timeout`", "`none`"]),
        (r#"{"command":"a","timeout":1e300}"#, &["`timeout`"]),
        (r#"{"command":"a","cwd":""}"#, &["`cwd` takes a folder"]),
        (r#"{"command":"a","shell":"/bin/bash -c"}"#, &["`shell` takes a list"]),
        (r#"{"command":"a","env":["A=1"]}"#, &["`env` takes an object"]),
        (r#"{"command":{"base64":"!"}}"#, &["`command`"]),
    ] {
        enqueue(&bench, &[json]).says(2, parts);
    }
    enqueue(&bench, &["-c", ""]).says(2, &["the command is empty"]);
    enqueue(&bench, &["-c", "  \t"]).says(2, &["the command is empty"]);
    enqueue(&bench, &["--", ""]).says(2, &["the command is empty"]);
    // None of them made a queue.
    assert!(!bench.queue().exists());
}

#[test]
fn the_limit_of_a_command_is_that_of_the_kernel() {
    let bench = Bench::new();
    let of_size = |bytes: usize| format!("true {}", "x".repeat(bytes - 5));
    enqueue(&bench, &["-c", &of_size(131_071)]).ok();
    batch(&bench, &of_size(131_072)).says(2, &["line 1", "131072 bytes", "at most 131071"]);
    batch(&bench, &json!({"command": of_size(131_072)}).to_string()).says(2, &["at most 131071"]);
    let word = "x".repeat(131_072);
    batch(&bench, &json!({"argv": ["true", word]}).to_string()).says(2, &["at most 131071"]);
    batch(&bench, &json!({"command": "a", "env": {"A": word}}).to_string()).says(2, &["`A`", "at most 131071"]);
    // Together they are limited too.
    let words = vec!["x".repeat(131_071); 60];
    batch(&bench, &json!({"argv": words}).to_string()).says(2, &["line 1", "arguments and environment"]);
    assert_eq!(bench.work().code, 0);
    assert_eq!(bench.json("status --json")["jobs"]["completed"], 1);
}

#[test]
fn a_batch_is_all_or_nothing_and_names_the_line() {
    let bench = Bench::new();
    bench.add(r#"{"id":"taken","command":"true"}"#);
    let before = bench.json("list --json");
    let job = |id: &str| json!({"id": id, "command": "true"}).to_string();
    for (lines, code, parts) in [
        (format!("{}\n\n{{\"command\":}}\n", job("a")), 2, &["standard input: line 3, column 12"][..]),
        (format!("{}\n{{\"comand\":\"true\"}}\n", job("a")), 2, &["line 2", "did you mean `command`?"]),
        (format!("{}\necho hi\n", job("a")), 2, &["line 2", "`echo hi`", "--lines"]),
        (format!("{}\n{{\"id\":\"a b\",\"command\":\"true\"}}\n", job("a")), 2, &["line 2", "not allowed"]),
        ("true\nfalse\0\n".to_owned(), 2, &["line 2", "NUL"]),
        (format!("{}\n# two\n{}\n", job("a"), job("taken")), 4, &["line 3", "already a job taken"]),
        (format!("{}\n{}\n{}\n", job("a"), job("b"), job("a")), 4, &["line 3", "`a`", "line 1"]),
        ("\n# only this\n".to_owned(), 2, &["no job"]),
        (String::new(), 2, &["no job"]),
    ] {
        batch(&bench, &lines).says(code, parts);
        assert_eq!(bench.json("list --json"), before, "{lines}");
    }
    bench.check();
}

#[test]
fn an_id_that_is_taken_is_refused_whatever_became_of_its_job() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"true"}"#);
    enqueue(&bench, &[r#"{"id":"a","command":"false"}"#]).says(4, &["already a job a", "\n  try: queuectl show a  "]);
    bench.work();
    enqueue(&bench, &[r#"{"id":"a","command":"false"}"#]).says(4, &["already a job a", "\n  try: queuectl show a  "]);
    // The number of a job that has no other name is its id.
    let number = bench.enqueue("true");
    enqueue(&bench, &[&format!(r#"{{"id":"{number}","command":"false"}}"#)]).says(4, &["already a job"]);
    assert_eq!(bench.json("status --json")["total"], 2);
    bench.check();
}

#[test]
fn what_other_systems_leave_in_a_file_is_dropped_and_said() {
    let bench = Bench::new();
    let done = batch(&bench, "\u{feff}echo one\r\necho two\r\n");
    assert!(done.stderr.contains("byte order mark") && done.stderr.contains("CR"), "{done:?}");
    assert_eq!(done.ok(), "✓ 2 jobs enqueued\n");
    assert_eq!(bench.json("show 1 --json")["command"], "echo one");
    assert_eq!(bench.json("show 2 --json")["command"], "echo two");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    bench.run("enqueue --file no-such-file").says(2, &["no-such-file", "No such file"]);
    bench.run("enqueue --file .").says(7, &[".", "directory"]);
    assert!(!bench.queue().exists());
}

#[test]
fn a_job_that_cannot_start_says_why() {
    let bench = Bench::new();
    for (id, job, error, code) in [
        ("program", json!({"argv": ["no-such-program"]}), "no such program", json!(127)),
        ("folder", json!({"command": "true", "cwd": "no/such/folder"}), "no/such/folder", json!(null)),
        ("shell", json!({"command": "true", "shell": ["/no/such/shell"]}), "/no/such/shell", json!(127)),
    ] {
        let mut job = job;
        job["id"] = id.into();
        job["max_retries"] = 0.into();
        bench.add(&job.to_string());
        assert_eq!(bench.work().code, 1);
        let job = bench.json(&format!("show {id} --json"));
        assert_eq!((&job["state"], &job["exit_code"]), (&json!("dead"), &code), "{id}");
        assert!(job["error"].as_str().unwrap().contains(error), "{job}");
    }
}

#[test]
fn flags_say_what_the_json_does_not() {
    let bench = Bench::new();
    let flags = ["--priority", "-5", "--queue", "gpu", "--name", "train model", "--tag", "a=1", "--tag", "b=1"];
    let json = r#"{"command":"true","priority":7,"tags":{"b":"2"}}"#;
    assert_eq!(
        enqueue(&bench, &[&flags[..], &["--id", "one", json]].concat()).ok(),
        "✓ Job one (train model) enqueued\n"
    );
    let job = bench.json("show one --json");
    let told = ["priority", "queue", "name", "tags"].map(|field| job[field].clone());
    assert_eq!(told, [json!(7), json!("gpu"), json!("train model"), json!({"a": "1", "b": "2"})]);
    bench.cmd(["enqueue"].iter().chain(&flags).chain(&["-"])).stdin("true\ntrue\n").run().ok();
    let jobs = bench.json("list --json");
    assert_eq!((&jobs[0]["priority"], &jobs[1]["tags"]), (&json!(-5), &json!({"a": "1", "b": "1"})));
    let shown = bench.ok("show one");
    for line in ["Name      train model", "Queue     gpu", "Priority  7", "Tags      a=1 b=2"] {
        assert!(shown.contains(line), "{shown}");
    }
    bench.check();
}

#[test]
fn a_job_starts_when_it_was_told_to() {
    let bench = Bench::new();
    let later = enqueue(&bench, &["--at", "2999-12-01T22:00:00Z", "--", "true"]).ok();
    assert!(later.starts_with("✓ Job 1 enqueued, starts at 2999-12-0"), "{later}");
    assert_eq!(bench.json("show 1 --json")["next_run_at"], "2999-12-01T22:00:00.000Z");
    assert_eq!(bench.json("status --json")["next_due_at"], "2999-12-01T22:00:00.000Z");
    assert_eq!(enqueue(&bench, &["--at", "2020-01-01 00:00", "--", "true"]).ok(), "✓ Job 2 enqueued\n");
    let hour = enqueue(&bench, &["--delay", "1h", "--", "true"]).ok();
    assert!(hour.contains(", starts at ") && hour.ends_with(" (in 1h)\n"), "{hour}");
    for (flag, given) in [("--at", "noon"), ("--delay", "soon"), ("--priority", "101"), ("--tag", "a"), ("--name", "")]
    {
        let refused = enqueue(&bench, &[flag, given, "--", "true"]);
        refused.fails(2);
    }
}

#[test]
fn what_was_meant_by_words_without_quotes_is_said() {
    let bench = Bench::new();
    for line in ["enqueue echo hi", "enqueue -c echo hi"] {
        let said = ["of several words", "\n  try: queuectl enqueue -c 'echo hi'\n  or:  queuectl enqueue -- echo hi\n"];
        bench.run(line).says(2, &said);
    }
    bench.run("enqueue --nonsense").says(2, &["unexpected argument '--nonsense'"]);
    bench.run("enqueue --after 999 -c true").says(3, &["there is no job 999", "\n  try: queuectl list\n"]);
}
