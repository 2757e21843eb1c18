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
        "name": null,
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
    let failed = bench.cmd(["edit", "a"]).env("EDITOR", "false").env("TMPDIR", bench.path()).run();
    failed.says(7, &["the editor `false` failed", "nothing was changed"]);
    assert_eq!(bench.show("a"), before);
}

#[test]
fn a_job_that_was_changed_meanwhile_is_left_as_it_is() {
    let bench = waiting();
    let binary = env!("CARGO_BIN_EXE_queuectl");
    for (meanwhile, why) in [("edit a --priority 5", "changed by somebody else"), ("cancel a", "cannot be edited")] {
        let editor = format!("sh -c '{binary} {meanwhile} && echo \"{{\\\"priority\\\":9}}\" >\"$0\"'");
        let done = bench.cmd(["edit", "a"]).env("EDITOR", editor).env("TMPDIR", bench.path()).run();
        assert!(done.code == 4 && done.stderr.contains(why), "{done:?}");
        assert!(done.stderr.contains("the text is kept in"), "{done:?}");
    }
    assert_eq!(bench.show("a")["priority"], 5);
    bench.check();
}
