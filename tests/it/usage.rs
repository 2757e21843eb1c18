//! The command line itself: help, typos, versions, colours.

use super::support::Bench;

/// Every command, as words.
const COMMANDS: [&str; 22] = [
    "run",
    "enqueue",
    "worker",
    "worker start",
    "worker stop",
    "worker list",
    "status",
    "list",
    "show",
    "logs",
    "wait",
    "cancel",
    "retry",
    "dlq",
    "dlq list",
    "dlq retry",
    "config",
    "config set",
    "config get",
    "config list",
    "config unset",
    "check",
];

#[test]
fn every_command_has_help_with_an_example_of_itself() {
    let bench = Bench::new();
    for command in COMMANDS {
        let help = bench.ok(&format!("{command} --help"));
        let examples = help.split("Example").nth(1).unwrap_or_else(|| panic!("no example: {help}"));
        assert!(examples.contains(&format!("queuectl {command}")), "{command}: {help}");
    }
    assert!(!bench.queue().exists());
}

#[test]
fn the_first_help_names_every_command() {
    let bench = Bench::new();
    let help = bench.ok("--help");
    for command in COMMANDS.iter().filter(|command| !command.contains(' ')) {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
    assert!(help.contains("Exit codes:") && help.contains("Examples:"), "{help}");
}

#[test]
fn the_version_is_told_with_that_of_the_queue_files() {
    let bench = Bench::new();
    let (version, schema) = (env!("CARGO_PKG_VERSION"), queuectl::store::SCHEMA_VERSION);
    for flag in ["--version", "-V"] {
        assert_eq!(bench.ok(flag), format!("queuectl {version} (queue schema {schema})\n"));
    }
}

#[test]
fn what_is_mistyped_gets_a_suggestion() {
    let bench = Bench::new();
    for (line, suggestion) in [
        ("enqeue", "'enqueue'"),
        ("worker strat", "'start'"),
        ("dlq rety", "'retry'"),
        ("config lst", "'list'"),
        ("list --jsno", "'--json'"),
        ("run --max-retrys 3 x", "'--max-retries'"),
        ("list --state done", "pending, processing, failed, completed, dead"),
        ("list --state complete", "completed"),
    ] {
        bench.run(line).says(2, &[suggestion]);
    }
}

#[test]
fn a_line_that_makes_no_sense_is_a_usage_error() {
    let bench = Bench::new();
    for (line, says) in [
        ("", "Usage"),
        ("worker", "Usage"),
        ("worker start --count 0", "from 1 to"),
        ("worker start --count many", "from 1 to"),
        ("worker start --queue a/b", "A-Z"),
        ("run", "<FILE"),
        ("run -j 0 x", "from 1 to"),
        ("run --max-retries -1 x", "'-1'"),
        ("run --timeout 0 x", "1ms"),
        ("run --lines --jsonl x", "cannot be used with"),
        ("run x -- y", "cannot be used with"),
        ("enqueue", "JSON"),
        ("enqueue -c true --file x", "cannot be used with"),
        ("show", "<ID>"),
        ("show a/b", "A-Z"),
        ("wait", "say which jobs"),
        ("wait --all x", "cannot be used with"),
        ("wait x --timeout soon", "such as 90s"),
        ("cancel", "say which jobs"),
        ("retry", "say which jobs"),
        ("retry x --all-dead", "cannot be used with"),
        ("dlq retry", "say which jobs"),
        ("logs x --stdout --stderr", "cannot be used with"),
        ("list --limit x", "--limit"),
        ("config get", "<KEY>"),
    ] {
        bench.run(line).says(2, &[says]);
    }
    assert!(!bench.queue().exists());
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let bench = Bench::new();
    bench.enqueue("true");
    let status = |args: &[&str], no_color: &str| {
        let status = bench.cmd(["status"].iter().chain(args)).env("NO_COLOR", no_color).env("TERM", "xterm").run().ok();
        status.contains('\x1b')
    };
    assert!(!status(&[], ""), "not to a pipe");
    assert!(status(&["--color", "always"], ""));
    assert!(status(&["--color=always"], "1"), "what is typed is stronger than the environment");
    assert!(!status(&["--color", "never"], ""));
    bench.run("status --color sometimes").says(2, &["always"]);
}

#[test]
fn on_a_terminal_there_is_colour_unless_no_color_says_otherwise() {
    let bench = Bench::new();
    bench.enqueue("true");
    let on_terminal = |no_color: &str, args: &str| {
        let line = format!("script -qec 'queuectl status {args}' /dev/null");
        bench.script(&line).env("NO_COLOR", no_color).env("TERM", "xterm").run()
    };
    if on_terminal("", "").code == 127 {
        println!("skipped: there is no program `script` to make a terminal with");
        return;
    }
    assert!(on_terminal("", "").ok().contains('\x1b'));
    assert!(!on_terminal("1", "").ok().contains('\x1b'));
    assert!(!on_terminal("", "--color never").ok().contains('\x1b'));
}
