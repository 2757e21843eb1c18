//! `edit`: by flags, in an editor, and what is refused.

use std::fs;

use serde_json::json;

use super::support::Bench;

/// A queue with a job that waits, and editors as scripts.
fn waiting() -> Bench {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"echo old","timeout":"5m"}"#);
    bench
}

#[test]
fn flags_change_what_they_say_and_nothing_else() {
    let bench = waiting();
    bench.add(r#"{"id":"b","command":"echo b"}"#);
    let line =
        ["edit", "b", "-c", "echo new", "--priority", "3", "--queue", "gpu", "--name", "n 1", "--max-retries", "0"];
    let said = bench.cmd(line).run().ok();
    assert_eq!(said, "✓ Job b edited: command, queue gpu, priority 3, max-retries 0, name n 1\n");
    let job = bench.show("b");
    assert_eq!(
        (&job["command"], &job["queue"], &job["priority"], &job["name"], &job["max_retries"]),
        (&json!("echo new"), &json!("gpu"), &json!(3), &json!("n 1"), &json!(0))
    );
    assert_eq!(bench.ok("edit b --priority 3"), "Job b is as it was\n");
    let job = bench.json("edit a --timeout none --json");
    assert_eq!((&job["id"], &job["command"], &job["state"]), (&json!("a"), &json!("echo old"), &json!("pending")));
    bench.check();
    bench.work().ok();
    assert_eq!((bench.ok("logs a"), bench.ok("logs b")), ("old\n".to_owned(), "new\n".to_owned()));
}

#[test]
fn a_job_keeps_its_place_for_its_priority() {
    let bench = Bench::new();
    for id in ["a", "b", "c"] {
        bench.add(&json!({"id": id, "command": format!("echo {id} >>order")}).to_string());
    }
    bench.ok("edit b --priority 1");
    bench.ok("edit c --priority 1");
    bench.ok("edit c --priority 0");
    bench.work().ok();
    assert_eq!(bench.lines("order"), ["b", "a", "c"]);
}

#[test]
fn the_time_can_be_changed_to_later_and_to_now() {
    let bench = waiting();
    let said = bench.ok("edit a --delay 1h");
    assert!(said.starts_with("✓ Job a edited: starts at "), "{said}");
    assert_eq!(bench.state("a"), "scheduled");
    assert_eq!(bench.ok("edit a --delay 0s"), "✓ Job a edited: starts now\n");
    assert_eq!(bench.state("a"), "pending");
    bench.ok("edit a --at 2099-01-01T00:00:00Z");
    assert_eq!(bench.show("a")["next_run_at"], json!("2099-01-01T00:00:00.000Z"));
    // A retry that is to come, too.
    bench.add(r#"{"id":"f","command":"exit 1","backoff_base":1000,"max_retries":1}"#);
    let pool = bench.pool("");
    bench.until_state("f", "failed");
    bench.run("edit f --after a").says(4, &["a job that is failed cannot be made to wait after an attempt"]);
    bench.ok("edit f -c true --delay 0s");
    bench.until_state("f", "completed");
    drop(pool);
    bench.check();
}

#[test]
fn what_runs_or_has_ended_is_refused_and_so_is_another_queue_for_a_job_of_a_run() {
    let bench = Bench::new();
    bench.add(r#"{"id":"done","command":"true"}"#);
    bench.work().ok();
    bench
        .run("edit done --priority 1")
        .says(4, &["job done: a job that is completed cannot be edited", "try: queuectl retry done"]);
    bench.run("edit done --tag a=1 --json").says(4, &["cannot be edited"]);
    bench.gate("gate");
    bench.add(r#"{"id":"runs","command":": <gate"}"#);
    let pool = bench.pool("");
    bench.until_state("runs", "processing");
    bench.run("edit runs --priority 1").says(4, &["a job that is processing cannot be edited"]);
    drop(pool);
    bench.run("edit nobody --priority 1").says(3, &["no job nobody"]);
    bench.run("edit done --priority 101").says(2, &["from -100 to 100"]);
    bench.run("edit done --timeout soon").says(2, &["a duration"]);
    fs::write(bench.file("jobs"), "exit 1\n").unwrap();
    assert_eq!(bench.run("run --max-retries 0 jobs").code, 1);
    let id = bench.json("dlq list --json")[0]["id"].as_str().unwrap().to_owned();
    bench.ok(&format!("retry {id}"));
    bench.run(&format!("edit {id} --queue gpu")).says(4, &["is part of a run, and stays in it"]);
    bench.ok(&format!("edit {id} -c true"));
    bench.run("run --max-retries 0 jobs").ok();
    bench.check();
}

#[test]
fn a_command_that_cannot_be_executed_is_refused() {
    let bench = waiting();
    bench.cmd(["edit", "a", "-c", " "]).run().says(2, &["the command is empty"]);
    bench.cmd(["edit", "a", "-c", &"x".repeat(131_071)]).run().ok();
    assert_eq!(bench.cmd(["edit", "a", "--name", ""]).run().code, 2);
    bench.check();
}

/// An editor that leaves `text`.
fn edited(bench: &Bench, id: &str, text: &str) -> super::support::Done {
    fs::write(bench.file("text"), text).unwrap();
    bench.cmd(["edit", id]).env("VISUAL", "cp \"$TMPDIR/text\"").env("TMPDIR", bench.path()).run()
}

fn kept(bench: &Bench) -> Vec<String> {
    let names = fs::read_dir(bench.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("queuectl-")).collect()
}

#[test]
fn an_editor_gets_the_job_as_json_and_what_it_leaves_is_taken() {
    let bench = waiting();
    let cmd = |editor: &str| bench.cmd(["edit", "a"]).env("EDITOR", editor).env("TMPDIR", bench.path()).run();
    // Without a change nothing is done.
    assert_eq!(cmd("cat >seen").ok(), "Job a is as it was\n");
    let seen: serde_json::Value = serde_json::from_str(&bench.text("seen")).unwrap();
    let expected = json!({
        "command": "echo old", "queue": "default", "priority": 0, "at": null, "max_retries": null, "timeout": "5m",
        "name": null, "tags": {}, "after": [], "after_any": [],
    });
    assert_eq!(seen, expected);
    assert_eq!(cmd("sed -i s/old/new/").ok(), "✓ Job a edited: command\n");
    // What is left out stays, null unsets.
    let said = edited(&bench, "a", r#"{"priority":7,"timeout":null,"delay":"2h","name":"n"}"#).ok();
    assert!(said.starts_with("✓ Job a edited: priority 7, starts at "), "{said}");
    assert!(said.contains("timeout as the settings say, name n"), "{said}");
    assert_eq!(
        edited(&bench, "a", r#"{"argv":["echo","it"],"at":null}"#).ok(),
        "✓ Job a edited: command, starts now\n"
    );
    assert_eq!((bench.show("a")["argv"].clone(), kept(&bench)), (json!(["echo", "it"]), vec![]));
    bench.check();
}

#[test]
fn a_text_that_cannot_be_taken_is_kept() {
    let bench = waiting();
    let before = bench.show("a");
    for (text, code, why) in [
        ("{", 2, "this is not valid JSON"),
        ("[]", 2, "a job is a JSON object"),
        (r#"{"id":"b"}"#, 2, "`id` cannot be edited"),
        (r#"{"priority":1000}"#, 2, "a whole number from -100 to 100"),
        (r#"{"command":" "}"#, 2, "the command is empty"),
    ] {
        let done = edited(&bench, "a", text);
        let name = kept(&bench).pop().unwrap_or_else(|| panic!("{done:?}"));
        assert_eq!(fs::read_to_string(bench.file(&name)).unwrap(), text);
        done.says(code, &[why, "the text is kept in", &name, "try: queuectl edit a"]);
        fs::remove_file(bench.file(&name)).unwrap();
    }
    let failed = |editor| bench.cmd(["edit", "a"]).env("EDITOR", editor).env("TMPDIR", bench.path()).run();
    failed("false").says(7, &["the editor `false` failed", "nothing was changed"]);
    assert_eq!(kept(&bench), [""; 0], "nothing was typed");
    failed("sh -c 'echo typed >$0; exit 1'").says(7, &["nothing was changed; the text is kept in"]);
    let name = kept(&bench).pop().unwrap();
    assert_eq!(bench.text(&name), "typed\n");
    fs::remove_file(bench.file(&name)).unwrap();
    assert_eq!(bench.show("a"), before);
}

#[test]
fn a_job_that_was_changed_meanwhile_is_left_as_it_is() {
    let bench = waiting();
    let binary = env!("CARGO_BIN_EXE_queuectl");
    let while_it_is = |meanwhile: &str| {
        let editor = format!("sh -c '{binary} {meanwhile} && echo \"{{\\\"priority\\\":9}}\" >\"$0\"'");
        bench.cmd(["edit", "a"]).env("EDITOR", editor).env("TMPDIR", bench.path()).run()
    };
    let done = while_it_is("edit a --priority 5");
    assert!(done.code == 4 && done.stderr.contains("changed by somebody else"), "{done:?}");
    assert!(done.stderr.contains("the text is kept in"), "{done:?}");
    assert_eq!(bench.show("a")["priority"], 5);
    // That is no obstacle, and said.
    let done = while_it_is("cancel a");
    assert!(done.code == 0 && done.stderr.contains("job a is cancelled; to run it as it is now"), "{done:?}");
    assert_eq!((bench.state("a"), &bench.show("a")["priority"]), ("cancelled".to_owned(), &json!(9)));
    bench.check();
}

#[test]
fn tags_and_what_is_waited_for_change_too() {
    let bench = waiting();
    bench.add(r#"{"id":"b","command":"echo b","tags":{"x":"1"}}"#);
    bench.add(r#"{"id":"c","command":"echo c","after":"b","delay":"1h"}"#);
    assert_eq!(bench.ok("edit b --tag x=2 --tag y=3"), "✓ Job b edited: tags x=2 y=3\n");
    assert_eq!(bench.ok("list --tag x=2 --count"), "1\n");
    assert_eq!(bench.ok("list --tag x=1 --count"), "0\n");
    assert_eq!(bench.ok("edit b --after-any a"), "✓ Job b edited: waits for 1 job\n");
    assert_eq!((bench.state("b"), &bench.show("a")["needed_by"]), ("blocked".to_owned(), &json!(["b"])));
    assert_eq!(bench.ok("edit c --after a,b"), "✓ Job c edited: waits for 2 jobs\n");
    assert_eq!(bench.ok("edit c --after b,a"), "Job c is as it was\n");
    assert_eq!(
        edited(&bench, "c", r#"{"after":null,"after_any":"a","tags":{"z":"1"}}"#).ok(),
        "✓ Job c edited: waits for 1 job, tags z=1\n"
    );
    assert_eq!(bench.ok("edit c --no-after"), "✓ Job c edited: waits for no other job\n");
    assert_eq!(bench.state("c"), "scheduled", "its time has not come");
    bench.check();
    bench.ok("edit c --after b --delay 0s");
    for (line, code, why) in [
        ("edit a --after c", 4, "job a cannot wait for job c: a job waits for earlier ones only"),
        ("edit a --after a", 2, "the job waits for itself"),
        ("edit c --after nobody", 3, "there is no job nobody"),
        ("edit c --after a --no-after", 2, "cannot be used with"),
        ("edit a c", 2, "an editor takes one job"),
    ] {
        bench.run(line).says(code, &[why]);
    }
    bench.ok("edit a -c false --max-retries 0");
    assert_eq!(bench.work().code, 1);
    assert_eq!(
        (bench.state("a"), bench.state("b"), bench.state("c")),
        ("dead".into(), "completed".into(), "completed".into())
    );
    bench.add(r#"{"id":"d","command":"true"}"#);
    bench.run("edit d --after a").says(4, &["job a is dead", "would never run"]);
    assert_eq!(bench.ok("edit d --after-any a --after b"), "✓ Job d edited: waits for 2 jobs\n");
    assert_eq!(bench.state("d"), "pending", "they have ended");
    bench.check();
}

#[test]
fn a_dead_or_cancelled_job_is_edited_for_its_retry() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"exit 3","max_retries":0}"#);
    bench.add(r#"{"id":"b","command":"echo b","after":"a"}"#);
    assert_eq!(bench.work().code, 1);
    let done = bench.cmd(["edit", "a", "-c", "echo mended", "--tag", "t=1"]).run();
    assert!(done.stderr.contains("job a is dead; to run it as it is now, type: queuectl retry a"), "{done:?}");
    assert_eq!(done.ok(), "✓ Job a edited: command, tags t=1\n");
    bench.ok("edit b --priority 5 --queue gpu");
    bench
        .run("edit a --delay 1h")
        .says(4, &["a job that is dead cannot be given another time", "try: queuectl retry a"]);
    bench.run("edit b --no-after").says(4, &["a job that is cancelled cannot be changed in what it waits for"]);
    assert_eq!((bench.state("a"), bench.state("b")), ("dead".to_owned(), "cancelled".to_owned()));
    bench.check();
    bench.ok("retry a");
    bench.work().ok();
    assert_eq!((bench.ok("logs a"), bench.ok("logs b")), ("mended\n".to_owned(), "b\n".to_owned()));
    assert_eq!(bench.outcomes("a"), ["failed", "completed"]);
    bench.check();
}

#[test]
fn of_a_filter_those_that_wait_are_edited() {
    let bench = Bench::new();
    for (id, queue, name) in [("a", "gpu", "x"), ("b", "gpu", "y"), ("c", "cpu", "x")] {
        bench.add(&json!({"id": id, "command": format!("echo {id}"), "queue": queue, "name": name}).to_string());
    }
    bench.add(r#"{"id":"dead","command":"exit 1","queue":"gpu","max_retries":0,"priority":1}"#);
    assert_eq!(bench.run("worker start --until-empty --queue gpu --count 1").code, 1);
    bench.add(r#"{"id":"d","command":"echo d","queue":"gpu","name":"x","tags":{"t":"1"}}"#);
    bench.add(r#"{"id":"e","command":"echo e","queue":"gpu"}"#);
    for (line, said, left_out) in [
        ("edit --where-queue gpu --priority 7", "✓ 2 jobs edited\n", "left out: 3 jobs that cannot be changed so"),
        ("edit --where-name x --where-tag t=1 --name z --tag t=2", "✓ 1 job edited\n", ""),
        ("edit --state dead -c true", "✓ 1 job edited\n", ""),
        ("edit --state dead,pending --where-command ^echo.[cd] --queue cpu", "✓ 2 jobs edited\n", ""),
        ("edit --where-queue gpu --after c", "✓ 1 job edited\n", "left out: 3 jobs"),
    ] {
        let done = bench.run(line);
        assert!(done.stderr.contains(left_out), "{line}: {done:?}");
        assert_eq!(done.ok(), said, "{line}");
    }
    let jobs = bench.json("list --sort oldest --json");
    let found = |field: &str| jobs.as_array().unwrap().iter().map(|job| job[field].clone()).collect::<Vec<_>>();
    assert_eq!(found("queue"), ["gpu", "gpu", "cpu", "gpu", "cpu", "gpu"]);
    assert_eq!(found("priority"), [0, 0, 0, 1, 7, 7]);
    assert_eq!(found("command")[3], "true");
    let edited = bench.json("edit --where-queue cpu --timeout 1m --json");
    assert_eq!((edited.as_array().unwrap().len(), &edited[0]["id"]), (2, &json!("c")));
    bench.run("edit --where-name z --after dead").says(2, &["job dead: it is dead", "0 of 1 job edited"]);
    bench.run("edit --where-queue cpu").says(2, &["an editor takes one job"]);
    bench.run("edit c --where-queue cpu --priority 1").says(2, &["cannot be used with"]);
    bench.run("edit --priority 1").says(2, &["say which jobs"]);
    bench
        .cmd(["edit", "--where-queue", "cpu", "-c", " "])
        .run()
        .says(2, &["the command is empty", "0 of 2 jobs edited"]);
    assert_eq!(bench.ok("edit c d --priority 3"), "✓ Job c edited: priority 3\n✓ Job d edited: priority 3\n");
    bench.check();
}
