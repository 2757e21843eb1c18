//! Queue files of every schema that this version opens, as that schema's first version wrote them.
//!
//! `tests/golden/schema-N/` is a queue's folder, without `run/` and `log/`, and beside it is what was said of it:
//! `list.json`, and `show-ID.json` of each job. Whoever changes the schema makes one of the new schema, once, when
//! nothing of it changes any more, and keeps those of the schemas that are still opened:
//!
//! ```sh
//! cargo test --test it -- --ignored golden::a_golden_queue_is_made
//! ```
//!
//! `schema-4-needs` is of the last version of that schema, and has jobs that were cancelled for a need.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::{Bench, Cmd};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A command on the queue, in surroundings that are the same everywhere.
fn cmd(bench: &Bench, words: &[&str]) -> Cmd {
    let db = bench.queue();
    bench.bare_cmd([&["--db", db.to_str().unwrap()], words].concat()).cwd("/")
}

fn ok(bench: &Bench, line: &str) -> String {
    cmd(bench, &line.split_whitespace().collect::<Vec<_>>()).run().ok()
}

/// Jobs in all states, some with everything that a job can have; a run of which some jobs died; a large batch;
/// settings; outputs of both kinds.
fn fill(bench: &Bench) {
    let add = |json: &str| cmd(bench, &["enqueue", json]).run().ok();
    ok(bench, "config set max-retries 1");
    ok(bench, "config set --queue gpu parallel 2");
    add(r#"{"id":"done","command":"echo done; echo oh >&2","name":"a job","tags":{"a":"1","b":""},"key":"once"}"#);
    add(r#"{"id":"large","command":"yes | head -c 9000"}"#);
    add(
        r#"{"argv":["sh","-c","exit $CODE"],"env":{"CODE":"3","HOME":null},"max_retries":0,"timeout":"5m","priority":7}"#,
    );
    add(r#"{"id":"removed","command":"true"}"#);
    cmd(bench, &["worker", "start", "--until-empty"]).run().fails(1);
    add(r#"{"id":"retried","command":"exit 1","backoff_base":1000}"#);
    cmd(bench, &["run", "--max-retries", "0", "-"]).stdin("echo one\nexit 1\n").run().fails(1);
    let retried = cmd(bench, &["worker", "start"]).spawn();
    bench.until("one failed", || status(bench)["jobs"]["failed"] == 1);
    retried.signal(nix::sys::signal::Signal::SIGTERM);
    retried.wait().ok();
    ok(bench, "remove removed");
    ok(bench, "pause --queue gpu");
    add(r#"{"id":"paused","command":"true","queue":"gpu","shell":["/bin/sh","-c"],"cwd":"/tmp"}"#);
    add(r#"{"id":"later","command":"true","at":"2999-12-31T23:59:59Z"}"#);
    add(r#"{"id":"waits","command":"true","after":["later","done"],"after_any":"large"}"#);
    add(r#"{"id":"rests","command":"true"}"#);
    ok(bench, "pause rests");
    add(r#"{"id":"never","command":"true"}"#);
    ok(bench, "cancel never");
    // What took others with it, one of them over another: they come back as they were.
    add(r#"{"id":"gone","command":"true"}"#);
    add(r#"{"id":"lost","command":"true","after":"gone"}"#);
    add(r#"{"id":"lost-later","command":"true","after":"gone","at":"2999-12-31T23:59:59Z"}"#);
    add(r#"{"id":"lost-held","command":"true","after":"gone"}"#);
    add(r#"{"id":"lost-both","command":"true","after":"lost","at":"2999-12-31T23:59:59Z"}"#);
    ok(bench, "pause lost-held lost-both");
    ok(bench, "cancel gone");
    // Its pool is killed: it stays claimed.
    add(r#"{"id":"held","command":"exec sleep 1000"}"#);
    let mut pool = cmd(bench, &["worker", "start"]).spawn();
    bench.until("it runs", || status(bench)["workers"][0]["job"] == "held");
    pool.kill();
    for (pid, _) in bench.left() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let many: Vec<String> = (0..1_100).map(|n| format!(r#"{{"id":"many-{n}","command":"true"}}"#)).collect();
    cmd(bench, &["enqueue", "--queue", "gpu", "-"]).stdin(many.join("\n")).run().ok();
}

fn status(bench: &Bench) -> Value {
    let text = ok(bench, "status --json");
    serde_json::from_str(&text).unwrap()
}

/// Everything that is said of the jobs, of the large batch but a few: each file that is beside the queue, with its text.
fn said(bench: &Bench) -> Vec<(String, String)> {
    let mut jobs: Vec<Value> = serde_json::from_str(&ok(bench, "list --json")).unwrap();
    jobs.retain(|job| job["id"].as_str().unwrap().strip_prefix("many-").is_none_or(|n| n.len() == 1));
    let list = serde_json::to_string_pretty(&jobs).unwrap();
    let ids = jobs.iter().map(|job| job["id"].as_str().unwrap()).filter(|id| !id.starts_with("many-"));
    // Why a job does not run is told by the clock.
    let shown = ids.map(|id| {
        let mut job: Value = serde_json::from_str(&ok(bench, &format!("show {id} --json --env"))).unwrap();
        job.as_object_mut().unwrap().remove("why");
        (format!("show-{id}.json"), serde_json::to_string_pretty(&job).unwrap())
    });
    let shown: Vec<_> = shown.collect();
    [("list.json".to_owned(), list)].into_iter().chain(shown).collect()
}

/// The copy of a golden queue in a bench.
fn copied(folder: &Path) -> Bench {
    let bench = Bench::new();
    copy(&folder.join("queue"), &bench.queue(), &[]);
    fs::create_dir(bench.queue().join("run")).unwrap();
    bench
}

fn copy(from: &Path, to: &Path, leave_out: &[&str]) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if leave_out.iter().any(|left_out| name == *left_out) {
        } else if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(&name), &[]);
        } else {
            fs::copy(entry.path(), to.join(&name)).unwrap();
            // Whatever the umask of whoever checked it out: what others may write is refused.
            fs::set_permissions(to.join(&name), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// All that is said now was said then: a later version may say more, but nothing else.
fn still_says(then: &Value, now: &Value, at: &str) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (name, value) in then {
                let found = now.get(name).unwrap_or_else(|| panic!("{at}: `{name}` is not said any more"));
                still_says(value, found, &format!("{at}.{name}"));
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            assert_eq!(then.len(), now.len(), "{at}");
            then.iter().zip(now).enumerate().for_each(|(n, (then, now))| still_says(then, now, &format!("{at}[{n}]")));
        }
        (then, now) => assert_eq!(then, now, "{at}"),
    }
}

fn says_what_it_said(bench: &Bench, folder: &Path) {
    for (name, now) in said(bench) {
        let then = fs::read_to_string(folder.join(&name)).unwrap_or_else(|_| panic!("{name} is new"));
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        still_says(&parsed(&then), &parsed(&now), &format!("{}/{name}", folder.display()));
    }
    assert_eq!(ok(bench, "logs done --stdout"), "done\n");
    assert_eq!(ok(bench, "logs large").len(), 9_000);
}

/// What was cancelled for a need comes back as it was, which files of schema 4 do not know.
fn comes_back(bench: &Bench, folder: &Path) {
    if folder.ends_with("schema-4") {
        return;
    }
    let knows = !folder.ends_with("schema-4-needs");
    ok(bench, "retry gone");
    for (id, starts, held) in
        [("lost", false, false), ("lost-later", knows, false), ("lost-held", false, knows), ("lost-both", knows, knows)]
    {
        let shown: Value = serde_json::from_str(&ok(bench, &format!("show {id} --json"))).unwrap();
        assert_eq!((&shown["state"], &shown["held"]), (&"blocked".into(), &held.into()), "{id}");
        assert_eq!(shown["why"].as_str().unwrap().contains("; starts at"), starts, "{id}: {shown}");
    }
}

fn golden_folders() -> Vec<PathBuf> {
    fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn queues_of_the_schemas_so_far_are_looked_at_without_a_change() {
    for folder in golden_folders() {
        let bench = copied(&folder);
        let bytes = || fs::read(bench.queue().join("queue.redb")).unwrap();
        let before = bytes();
        says_what_it_said(&bench, &folder);
        for line in ["status", "list", "check", "check --deep", "worker list", "config list"] {
            ok(&bench, line);
        }
        let (copy, exported) = (bench.file("copy"), bench.file("all.jsonl"));
        let (copy, exported) = (copy.to_str().unwrap(), exported.to_str().unwrap());
        ok(&bench, &format!("backup {copy}"));
        ok(&bench, &format!("export --output {exported}"));
        assert!(bytes() == before, "{}", folder.display());
        // Copies are of the schema of now, and have the same in them.
        for (name, line) in [("restored", format!("restore {copy}")), ("imported", format!("import {exported}"))] {
            let db = bench.file(name);
            let on = |line: &str| bench.bare_cmd(["--db", db.to_str().unwrap()].into_iter().chain(line.split(' ')));
            on(&line).run().ok();
            on("check").run().ok();
            let list = on("list --json --state cancelled").run().ok();
            let [now, then] = [list, ok(&bench, "list --json --state cancelled")];
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(parsed(&now), parsed(&then), "{name}");
        }
    }
}

#[test]
fn queues_of_the_schemas_so_far_open() {
    for folder in golden_folders() {
        let bench = copied(&folder);
        let repaired = cmd(&bench, &["check", "--repair"]).run();
        assert!(!bench.queue().join("queue.redb.before-repair").exists(), "{repaired:?}");
        ok(&bench, "compact");
        comes_back(&bench, &folder);
        // It can be worked on: nothing is enqueued twice, and what waited runs.
        assert_eq!(ok(&bench, "enqueue --key once --quiet -- true"), "done\n");
        ok(&bench, "resume --queue gpu");
        ok(&bench, "enqueue --id new -- true");
        cmd(&bench, &["worker", "start", "--until-empty", "--queue", "gpu"]).run().ok();
        ok(&bench, "check");
    }
}

/// What is made has to open, or it would be of no use: so the generator is tested, too.
#[test]
fn what_the_generator_makes_opens() {
    let bench = Bench::new();
    fill(&bench);
    let counts = status(&bench)["jobs"].clone();
    for state in ["scheduled", "blocked", "pending", "processing", "failed", "completed", "dead", "cancelled"] {
        assert!(counts[state].as_u64() > Some(0), "no job is {state}: {counts}");
    }
    ok(&bench, "check --deep");
    assert!(said(&bench).len() > 9);
}

#[test]
#[ignore = "makes tests/golden/schema-N of the schema as it is"]
fn a_golden_queue_is_made() {
    let bench = Bench::new();
    fill(&bench);
    let folder = golden().join(format!("schema-{}", queuectl::store::SCHEMA_VERSION));
    assert!(!folder.exists(), "{} is there: later versions have to open that one", folder.display());
    copy(&bench.queue(), &folder.join("queue"), &["run", "log", ".gitignore"]);
    // What is said of the copy: the one that it was made of still knows the pool that was killed.
    for (name, text) in said(&copied(&folder)) {
        fs::write(folder.join(name), text).unwrap();
    }
}
