//! What must not be seen or must not act: values of the environment, and texts that would do something to a terminal.

use serde_json::json;

use super::support::{Bench, Cmd, Terminal};

/// What a terminal gets when a command runs on it.
fn on_terminal(cmd: Cmd) -> String {
    let terminal = Terminal::new();
    let mut child = cmd.spawn_with(terminal.end(), terminal.end(), terminal.end());
    let shown = terminal.read_until_closed();
    child.wait().unwrap();
    String::from_utf8(shown).unwrap()
}

/// Nothing in it acts, but for what moves in its line or erases it, and colours.
#[track_caller]
fn is_harmless(what: &str, shown: &str) {
    let mut rest = shown;
    while let Some(at) = rest.find('\x1b') {
        rest = rest[at + 1..].strip_prefix('[').unwrap_or_else(|| panic!("{what}: {shown:?}"));
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        assert!(rest.starts_with(['m', 'K']), "{what}: {shown:?}");
    }
    let acts = |c: char| (c.is_control() && !"\n\r\t\x08\x1b".contains(c)) || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!shown.contains(acts), "{what}: {shown:?}");
}

/// Sets the title, fills the clipboard, clears the screen; in 8 bits, backwards, and with lines of its own.
const HOSTILE: &str = "\x1b]0;t\x07\x1b]52;c;eA==\x07\x1b[2J\u{9b}2J\u{202e}\r\nqueuectl: all is well\x08\x7f";

#[test]
fn hostile_texts_do_nothing_to_a_terminal_whatever_the_command() {
    let bench = Bench::new();
    let dir = bench.file(&format!("dir{HOSTILE}"));
    std::fs::create_dir(&dir).unwrap();
    bench.add(
        &json!({"id": "shell", "command": format!("printf '%s' '{HOSTILE}'; exit 3"), "cwd": dir.to_str(),
        "env": {format!("N{}", HOSTILE.replace('=', "")): HOSTILE}, "max_retries": 0})
        .to_string(),
    );
    bench.add(&json!({"id": "argv", "argv": [format!("nothing{HOSTILE}"), HOSTILE], "max_retries": 0}).to_string());
    bench
        .add(&json!({"id": "gone", "command": "true", "cwd": dir.join("gone").to_str(), "max_retries": 0}).to_string());
    bench.cmd(["config", "set", "shell", &format!("/bin/sh{HOSTILE}")]).run().ok();
    let db = dir.join("queue");
    let file = bench.file(&format!("jobs{HOSTILE}"));
    std::fs::write(&file, format!("echo {HOSTILE}\nexit 3")).unwrap();
    let (db, file) = (db.to_str().unwrap(), file.to_str().unwrap());
    let bad_json = format!("{{\"command\":\"x\",\"f{}\":1}}", "\\u001b]0;x\\u0007\\u202e");
    let bad_value = format!("{{\"command\":\"x\",\"cwd\":[{}]}}", json!(HOSTILE));
    let lines: &[&[&str]] = &[
        &["config", "list"],
        &["config", "get", "shell"],
        &["config", "list", "--json"],
        &["config", "get", HOSTILE],
        &["config", "set", "timeout", HOSTILE],
        &["config", "unset", "shell"],
        &["worker", "start", "--until-empty"],
        &["list"],
        &["list", "--json"],
        &["list", "--state", HOSTILE],
        &["dlq", "list"],
        &["status"],
        &["status", "--json"],
        &["show", "shell"],
        &["show", "shell", "--env"],
        &["show", "shell", "--env", "--json"],
        &["show", "argv"],
        &["show", "gone"],
        &["show", HOSTILE],
        &["logs", "shell"],
        &["logs", "-f", "shell"],
        &["logs", "argv"],
        &["cancel", HOSTILE],
        &["remove", HOSTILE],
        &[HOSTILE],
        &["--color", HOSTILE, "list"],
        &["--db", db, "list"],
        &["--db", db, "enqueue", "-c", "true"],
        &["--db", db, "status"],
        &["--db", db, "worker", "start", "--detach"],
        &["--db", db, "worker", "list"],
        &["--db", db, "worker", "list", "--json"],
        &["--db", db, "worker", "stop"],
        &["enqueue", HOSTILE],
        &["enqueue", &bad_json],
        &["enqueue", &bad_value],
        &["enqueue", "--file", HOSTILE],
        &["enqueue", "--file", file],
        &["run", "--max-retries", "0", file],
        &["run", HOSTILE],
        &["run", "--", HOSTILE],
        &["check"],
    ];
    for words in lines {
        let shown = on_terminal(bench.cmd(*words));
        is_harmless(&format!("{words:?}"), &shown);
        // What jobs write has lines of its own, and goes to files as it is.
        if matches!(words, ["logs" | "run", ..]) {
            continue;
        }
        // Clap repeats what was typed, lines and all.
        let forged = shown.split(['\r', '\n']).any(|line| line.starts_with("queuectl: all is well"));
        assert!(!forged || shown.starts_with("error: "), "{words:?}: {shown:?}");
        // Messages go to files that are looked at later.
        is_harmless(&format!("{words:?}"), &bench.cmd(*words).run().stderr);
    }
    for words in [&["list"][..], &["status"], &["enqueue", "-c", "true"], &["check"]] {
        is_harmless(&format!("{words:?} there"), &on_terminal(bench.cmd(words).cwd(&dir)));
    }
}

#[test]
fn job_output_keeps_its_colours_on_a_terminal_and_its_bytes_elsewhere() {
    let bench = Bench::new();
    let bytes = b"\x1b[31mred\x1b[0m 50%\r100%\n\x1b]0;title\x07\x9b2J\x1b[5";
    std::fs::write(bench.file("bytes"), bytes).unwrap();
    let id = bench.enqueue("cat bytes; cat bytes >&2");
    bench.work().ok();
    assert_eq!(bench.run(&format!("logs {id}")).stdout, bytes);
    let shown = "\x1b[31mred\x1b[0m 50%\r100%\r\n\\u001b]0;title\\u0007\u{fffd}2J\\u001b[5";
    for line in [format!("logs {id} --stdout"), format!("logs -f {id} --stderr"), "run -q -- cat bytes".to_owned()] {
        assert_eq!(on_terminal(bench.cmd(line.split(' '))), shown, "{line}");
    }
    let terminal = Terminal::new();
    let cmd = bench.cmd(["logs", &id, "--stdout", "--raw"]);
    let mut child = cmd.spawn_with(terminal.end(), terminal.end(), terminal.end());
    let raw = terminal.read_until_closed();
    child.wait().unwrap();
    let with_cr = bytes.escape_ascii().to_string().replace("\\n", "\\r\\n");
    assert_eq!(raw.escape_ascii().to_string(), with_cr, "but for the terminal's own CR");
}

#[test]
fn values_of_the_environment_are_shown_only_when_asked_for() {
    const SECRET: &str = "s3cr3t-v4lue";
    let bench = Bench::new();
    let enqueue = |json: &str| bench.cmd(["enqueue", json]).env("TOKEN", SECRET).run();
    enqueue(r#"{"id":"a","command":"exit 1","max_retries":0,"env":{"KEY":"s3cr3t-v4lue","HOME":null}}"#).ok();
    for bad in [
        r#"{"command":"x","env":["KEY=s3cr3t-v4lue"]}"#,
        r#"{"command":"x","env":"s3cr3t-v4lue"}"#,
        r#"{"command":"x","env":{"KEY":["s3cr3t-v4lue"]}}"#,
        r#"{"command":"x","env":{"KEY":"s3cr3t-v4lue\u0000"}}"#,
        r#"{"command":"x","env":{"KEY":{"base64":"s3cr3t-v4lue"}}}"#,
    ] {
        let done = enqueue(bad);
        assert!(!format!("{done:?}").contains(SECRET), "{done:?}");
        done.fails(2);
    }
    let worker = bench.work();
    assert!(!format!("{worker:?}").contains(SECRET));
    for line in ["list", "list --json", "show a", "show a --json", "status --json", "logs a", "dlq list", "check"] {
        let done = bench.run(line);
        assert!(!format!("{done:?}").contains(SECRET), "{line}: {done:?}");
    }
    let shown = bench.ok("show a");
    assert!(shown.contains("; of its own: HOME unset, KEY   (--env shows them)"), "{shown}");
    let names = bench.json("show a --json");
    let names: Vec<&str> = names["env_names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.contains(&"TOKEN") && names.contains(&"KEY") && !names.contains(&"HOME"), "{names:?}");
    let asked = bench.ok("show a --env");
    assert!(asked.contains("\nKEY=s3cr3t-v4lue\n") && asked.contains("\nTOKEN=s3cr3t-v4lue\n"), "{asked}");
    let env = &bench.json("show a --env --json")["env"];
    assert_eq!((&env["KEY"], &env["TOKEN"], &env["HOME"]), (&json!(SECRET), &json!(SECRET), &json!(null)));
}
