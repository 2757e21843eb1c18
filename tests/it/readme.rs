//! The README's first command.

use super::support::Bench;

#[test]
fn the_first_command_runs_three_and_names_the_one_that_died() {
    let bench = Bench::new();
    let run =
        bench.cmd(["run", "-j", "2", "--max-retries", "1", "-"]).stdin("echo one\nsleep 1 && echo two\nexit 3\n").run();
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(run.stdout, b"one\ntwo\n");
    for part in ["2 completed", "1 dead", "job 3 is dead after 2 attempts (exit code 3): exit 3", "queuectl retry 3"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    bench.check();
}
