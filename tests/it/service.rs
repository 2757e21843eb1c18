//! `worker install-service`.

use std::fs;
use std::path::Path;

use super::support::{Bench, Done, lives};

/// Installs a service into `config/` of the bench's folder.
fn install(bench: &Bench, args: &str) -> Done {
    let words = ["worker", "install-service"].into_iter().chain(args.split_whitespace());
    bench.cmd(words).env("XDG_CONFIG_HOME", bench.path().join("config")).run()
}

/// What systemd says against a unit; `None`, and said, if there is no `systemd-analyze`.
fn objections(bench: &Bench, unit: &str) -> Option<String> {
    if bench.script("command -v systemd-analyze").run().code != 0 {
        println!("skipped: there is no systemd-analyze");
        return None;
    }
    let verify = bench.script(&format!("systemd-analyze verify --user --man=no '{unit}'"));
    let done = verify.env("XDG_RUNTIME_DIR", bench.path()).env("SYSTEMD_LOG_LEVEL", "info").run();
    let mut said: Vec<&str> = done.stderr.lines().filter(|line| line.contains(unit)).collect();
    if done.code != 0 && said.is_empty() {
        said.push("it failed");
    }
    Some(said.join("\n"))
}

#[test]
fn the_unit_names_the_queue_and_this_program_and_systemd_takes_it() {
    let bench = Bench::new();
    bench.enqueue("true");
    let told = install(&bench, "--count 3 --queue gpu --queue cpu");
    let (path, queue) = (bench.path().join("config/systemd/user/queuectl.service"), bench.queue());
    let program = Path::new(env!("CARGO_BIN_EXE_queuectl")).canonicalize().unwrap();
    assert_eq!(told.stderr.lines().last().unwrap().split(": ").nth(2).unwrap(), {
        "systemctl --user daemon-reload && systemctl --user enable --now queuectl"
    });
    assert_eq!(told.ok(), format!("✓ Service queuectl written: {}\n", path.display()));
    let unit = fs::read_to_string(&path).unwrap();
    let start = format!(
        "ExecStart={} --db {} worker start --count 3 --queue gpu --queue cpu",
        program.display(),
        queue.display()
    );
    for line in [
        start.as_str(),
        &format!("AssertPathExists={}/queue.redb", queue.display()),
        "KillMode=mixed",
        "OOMPolicy=continue",
        "Restart=on-failure",
        "TimeoutStopSec=50",
        "WantedBy=default.target",
    ] {
        assert!(unit.lines().any(|there| there == line), "{line} is not in {unit}");
    }
    if let Some(objections) = objections(&bench, path.to_str().unwrap()) {
        assert_eq!(objections, "");
    }
}

#[test]
fn odd_names_are_written_as_systemd_reads_them() {
    let bench = Bench::new();
    let queue = bench.path().join(r#"a "b" it's 100%n $HOME \t"#);
    bench.cmd(["--db".as_ref(), queue.as_os_str(), "enqueue".as_ref(), "-c".as_ref(), "true".as_ref()]).run().ok();
    let print = ["worker", "install-service", "--print"].map(AsRef::as_ref);
    let unit = bench.cmd([&["--db".as_ref(), queue.as_os_str()][..], &print].concat()).run().ok();
    let folder = bench.path().display();
    let word = format!(r#" --db "{folder}/a \"b\" it's 100%%n $$HOME \\t" worker start"#);
    assert!(unit.contains(&word), "{word} is not in {unit}");
    let file = format!("\nAssertPathExists={folder}/a \"b\" it's 100%%n $HOME \\t/queue.redb\n");
    assert!(unit.contains(&file), "{file} is not in {unit}");
    fs::write(bench.path().join("odd.service"), &unit).unwrap();
    if let Some(objections) = objections(&bench, "odd.service") {
        assert_eq!(objections, "");
    }
    let bad = unit.replace("Restart=on-failure", "Restart=sometimes").replace("KillMode=", "KilMode=");
    fs::write(bench.path().join("bad.service"), bad).unwrap();
    if let Some(objections) = objections(&bench, "bad.service") {
        assert!(objections.contains("KilMode") && objections.contains("sometimes"), "{objections}");
    }
    let folder = bench.path().join("a\nb");
    bench.cmd(["--db".as_ref(), folder.as_os_str(), "enqueue".as_ref(), "-c".as_ref(), "true".as_ref()]).run().ok();
    let print = bench.cmd([&["--db".as_ref(), folder.as_os_str()][..], &print].concat()).run();
    print.says(4, &["not plain text"]);
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let bench = Bench::new();
    install(&bench, "").says(3, &["there is no queue"]);
    bench.enqueue("true");
    install(&bench, "").ok();
    assert_eq!(install(&bench, "").ok(), "✓ Service queuectl is there already\n");
    install(&bench, "--count 2").says(4, &["config/systemd/user/queuectl.service is there and differs", "--force"]);
    let path = bench.path().join("config/systemd/user/queuectl.service");
    assert!(fs::read_to_string(&path).unwrap().contains("--count 1"));
    install(&bench, "--count 2 --force").ok();
    assert!(fs::read_to_string(&path).unwrap().contains("--count 2"));
    install(&bench, "--count 4 --name other.service").ok();
    assert!(bench.path().join("config/systemd/user/other.service").exists());
    for name in ["../x", "a/b", "-x", "a@b"] {
        install(&bench, &format!("--name={name}")).says(2, &["A-Z"]);
    }
    bench.ok("config set kill-grace 2m");
    assert!(install(&bench, "--print").ok().contains("\nTimeoutStopSec=165\n"));
}

#[test]
fn stopping_lets_jobs_finish_and_ends_those_that_do_not() {
    let bench = Bench::new();
    let stop_line = |seconds: &str| {
        let unit = install(&bench, "--print").ok();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStop=-")).unwrap().replace("$$", "$");
        line.replace("timeout 30", &format!("timeout {seconds}"))
    };
    // One that finishes in time: the line waits for it.
    let id = bench.enqueue("echo > started; until test -e go; do sleep 0.1; done");
    let pool = bench.cmd(["worker", "start"]).start();
    bench.until_file("started");
    let pid = pool.pid();
    let stop = bench.script(&stop_line("30")).env("MAINPID", pid.to_string()).start();
    fs::write(bench.path().join("go"), "").unwrap();
    // The pool is this test's child, and has to be waited for to be gone.
    assert_eq!(pool.wait().0, 0);
    assert_eq!(stop.wait().0, 0);
    assert_eq!(bench.state(&id), "completed");
    // One that does not, and the second signal, which is systemd's.
    let id = bench.enqueue("echo > again; sleep 1000");
    let pool = bench.cmd(["worker", "start"]).start();
    bench.until_file("again");
    let pid = pool.pid();
    assert_eq!(bench.script(&stop_line("0.1")).env("MAINPID", pid.to_string()).run().code, 124);
    assert!(lives(pid), "it waits for its job");
    bench.script(&format!("kill {pid}")).run().ok();
    assert_eq!(pool.wait().0, 0);
    let job = bench.json(&format!("show {id} --json"));
    assert_eq!((&job["state"], &job["history"][0]["outcome"]), (&"pending".into(), &"interrupted".into()), "{job}");
    // A pool that ended by itself: there is nothing to stop.
    assert_ne!(bench.script(&stop_line("30")).run().code, 0);
}
