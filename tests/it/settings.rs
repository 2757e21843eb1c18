//! `config`: every setting, its default, its range, its effect on what is already queued.

use serde_json::json;

use super::support::{Bench, has_fields};

const KEYS: &str = "max-retries backoff-base max-backoff timeout kill-grace max-losses output-limit shell parallel paused \
     retain-completed retain-dead retain-cancelled retain-output";

#[test]
fn every_setting_has_its_default() {
    let bench = Bench::new();
    let settings = bench.json("config list --json");
    has_fields(&settings, KEYS);
    let expected = json!({
        "max-retries": 3, "backoff-base": 2.0, "max-backoff": 3600.0, "timeout": 30.0, "kill-grace": 5.0,
        "max-losses": 3, "output-limit": 10 * 1024 * 1024, "shell": ["/bin/sh", "-c"], "parallel": "none", "paused": false,
        "retain-completed": "forever", "retain-dead": "forever", "retain-cancelled": "forever", "retain-output": "forever",
    });
    assert_eq!(settings, expected);
    let listed = bench.ok("config list");
    for key in KEYS.split_whitespace() {
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(key));
        assert!(line.is_some_and(|line| line.contains(" default ")), "{key}: {listed}");
    }
    // Looking makes no queue.
    assert!(!bench.queue().exists());
}

#[test]
fn what_is_set_is_got_and_can_be_unset() {
    let bench = Bench::new();
    for (key, value, shown, as_json, default) in [
        ("max-retries", "0", "0", json!(0), "3"),
        ("backoff-base", "1.5", "1.5", json!(1.5), "2"),
        ("max-backoff", "90", "1m 30s", json!(90.0), "1h"),
        ("timeout", "2h", "2h", json!(7200.0), "30s"),
        ("timeout", "none", "none", json!("none"), "30s"),
        ("kill-grace", "500ms", "500ms", json!(0.5), "5s"),
        ("max-losses", "7", "7", json!(7), "3"),
        ("output-limit", "64KiB", "64KiB", json!(65_536), "10MiB"),
        ("shell", "/bin/sh -eu -c", "/bin/sh -eu -c", json!(["/bin/sh", "-eu", "-c"]), "/bin/sh -c"),
        ("parallel", "2", "2", json!(2), "none"),
        ("parallel", "none", "none", json!("none"), "none"),
        ("paused", "true", "true", json!(true), "false"),
        ("max_retries", "9", "9", json!(9), "3"),
        ("retain-completed", "10000jobs", "10000 jobs", json!("10000 jobs"), "forever"),
        ("retain-dead", "7d", "7d", json!(604_800.0), "forever"),
        ("retain-output", "12h", "12h", json!(43_200.0), "forever"),
    ] {
        let name = key.replace('_', "-");
        assert_eq!(bench.cmd(["config", "set", key, value]).run().ok(), format!("✓ {name} = {shown}\n"));
        assert_eq!(bench.ok(&format!("config get {key}")), format!("{shown}\n"));
        assert_eq!(bench.json(&format!("config get {key} --json")), as_json);
        assert_eq!(bench.json("config list --json")[&name], as_json);
        assert_eq!(bench.ok(&format!("config unset {key}")), format!("✓ {name} = {default} (default)\n"));
        assert_eq!(bench.ok(&format!("config get {key}")), format!("{default}\n"));
        let again = bench.ok(&format!("config unset {key}"));
        assert_eq!(again, format!("{name} was not set: it is {default} (default)\n"));
    }
    bench.check();
}

#[test]
fn a_bad_value_is_refused_with_the_range() {
    let bench = Bench::new();
    for (key, value, range) in [
        ("max-retries", "-1", "a whole number from 0 to 1000000"),
        ("max-retries", "1.5", "a whole number from 0 to 1000000"),
        ("max-retries", "many", "a whole number from 0 to 1000000"),
        ("backoff-base", "-2", "a number from 0 to 1000"),
        ("backoff-base", "nan", "a number from 0 to 1000"),
        ("max-backoff", "soon", "a duration from 0s to 365d"),
        ("timeout", "0", "a duration from 1ms to 365d"),
        ("timeout", "99999999999999999999", "or `none`"),
        ("kill-grace", "2h", "a duration from 0s to 1h"),
        ("max-losses", "", "a whole number"),
        ("output-limit", "1", "a size from 4KiB to 1TiB"),
        ("shell", "  ", "one or more words"),
        ("retain-cancelled", "some", "a number of jobs such as 10000jobs"),
        ("retain-output", "5jobs", "`forever`, or a duration"),
    ] {
        bench.cmd(["config", "set", key, value]).run().says(2, &[key, &format!("`{}`", value.trim()), range]);
    }
    assert!(!bench.queue().exists());
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let bench = Bench::new();
    bench.ok("config set max-retries 4");
    for (line, suggestion) in [
        ("config get max-retry", "did you mean max-retries?"),
        ("config set time-out 3s", "did you mean timeout?"),
        ("config unset bakoff-base", "did you mean backoff-base?"),
        ("config get colour", KEYS.split(' ').next().unwrap()),
    ] {
        bench.run(line).says(3, &["there is no setting", suggestion, "try: queuectl config list"]);
    }
}

#[test]
fn settings_reach_jobs_that_are_queued_already_unless_they_said_otherwise() {
    let bench = Bench::new();
    bench.add(r#"{"id":"follows","command":"sleep 60"}"#);
    bench.add(r#"{"id":"own","command":"exit 1","max_retries":2,"backoff_base":0.01}"#);
    bench.ok("config set timeout 30ms");
    bench.ok("config set max-retries 0");
    assert_eq!(bench.work().code, 1);
    let job = bench.json("show follows --json");
    assert_eq!((&job["history"][0]["outcome"], &job["attempts"]), (&json!("timed_out"), &json!(1)));
    assert!(job["error"].as_str().unwrap().contains("30ms"), "{job}");
    assert_eq!(bench.json("show own --json")["attempts"], 3);
}

#[test]
fn the_longest_wait_before_a_retry_is_limited() {
    let bench = Bench::new();
    bench.ok("config set backoff-base 1000");
    bench.ok("config set max-backoff 10ms");
    bench.add(r#"{"id":"a","command":"exit 1","max_retries":2}"#);
    assert_eq!(bench.work().code, 1);
    assert_eq!(bench.json("show a --json")["attempts"], 3);
}

#[test]
fn commands_run_under_the_shell_that_is_set() {
    let bench = Bench::new();
    std::fs::write(bench.path().join("my shell"), "#!/bin/sh\necho \"[$1][$2]\"\n").unwrap();
    bench.script("chmod +x 'my shell'").run().ok();
    let words = json!([bench.path().join("my shell"), "-x"]).to_string();
    bench.cmd(["config", "set", "shell", &words]).run().ok();
    let id = bench.enqueue("echo  $HOME");
    bench.work().ok();
    assert_eq!(bench.ok(&format!("logs {id}")), "[-x][echo  $HOME]\n");
}

#[test]
fn output_beyond_the_limit_loses_its_middle_and_says_how_much() {
    let bench = Bench::new();
    bench.ok("config set output-limit 8KiB");
    let id = bench.enqueue("seq 100000; echo the end");
    bench.work().ok();
    let kept = bench.ok(&format!("logs {id}"));
    assert!(kept.len() < 10_000, "{}", kept.len());
    assert!(kept.starts_with("1\n2\n") && kept.ends_with("100000\nthe end\n"), "{kept}");
    let (_, rest) = kept.split_once("[queuectl left out ").unwrap_or_else(|| panic!("{kept}"));
    let (left_out, _) = rest.split_once(" bytes here: see output-limit]\n").unwrap_or_else(|| panic!("{rest}"));
    let note = format!("[queuectl left out {left_out} bytes here: see output-limit]\n").len();
    let written: usize = (1..=100_000).map(|n: u32| n.to_string().len() + 1).sum::<usize>() + "the end\n".len();
    // The note may begin a line of its own.
    let counted = kept.len() - note + left_out.parse::<usize>().unwrap();
    assert!(counted == written || counted == written + 1, "{counted} of {written}");
    // A run prints the same.
    let run = bench.cmd(["run", "-q", "--", "sh", "-c", "seq 100000; echo the end"]).run().ok();
    assert_eq!(run, kept);
    bench.check();
}

#[test]
fn what_is_no_shell_gets_a_command_as_it_is() {
    let bench = Bench::new();
    let command = serde_json::json!({"command": "-x"});
    bench.cmd(["config", "set", "shell", "/usr/bin/printf <%s>"]).run().ok();
    let id = bench.enqueue_json(&command);
    bench.work().ok();
    assert_eq!(bench.cmd(["logs", &id]).run().ok(), "<-x>");
    // To a shell it is no option.
    bench.cmd(["config", "set", "shell", "/usr/bin/env /bin/sh -c"]).run().ok();
    bench.cmd(["config", "set", "max-retries", "0"]).run().ok();
    let id = bench.enqueue_json(&command);
    assert_eq!(bench.work().code, 1);
    assert!(bench.show(&id)["error"].to_string().contains("127"));
}
