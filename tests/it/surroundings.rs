//! What a job finds around it: folder, environment, its own variables.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use serde_json::json;

use super::support::Bench;

/// The environment that a job wrote with `env -0`.
fn environment(bench: &Bench, name: &str) -> BTreeMap<String, String> {
    let text = bench.text(name);
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split('\0').filter_map(pair).collect()
}

#[test]
fn folder_and_environment_are_those_of_the_enqueue() {
    let bench = Bench::new();
    let (home, away) = (bench.file("home of jobs"), bench.file("away"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&away).unwrap();
    let command = "env -0 >env.new; pwd >>env.cwd; mv env.new env";
    let queue = bench.queue();
    let words = ["--db", queue.to_str().unwrap(), "enqueue", "--quiet", "-c", command];
    let enqueue = bench.cmd(words).cwd(&home);
    let enqueue = enqueue.env("COLOUR", "of the enqueue").env("ONLY_ENQUEUE", "a b\nc").env("EMPTY", "");
    // What belongs to another job, or to the shell that typed the line, is not the job's.
    let enqueue = enqueue.env("OLDPWD", "/old").env("SHLVL", "7").env("_", "/bin/x").env("PWD", "/elsewhere");
    let enqueue = enqueue.env("QUEUECTL_ATTEMPT", "99").env("QUEUECTL_FOREIGN", "1").env("QUEUECTL_LEASE", "x");
    let id = enqueue.run().ok().trim().to_owned();
    let pool = bench.cmd(["--db", queue.to_str().unwrap(), "worker", "start", "--until-empty"]).cwd(&away);
    pool.env("COLOUR", "of the pool").env("ONLY_POOL", "1").run().ok();
    let env = environment(&bench, "home of jobs/env");
    let get = |name: &str| env.get(name).map(String::as_str);
    assert_eq!(get("COLOUR"), Some("of the enqueue"));
    assert_eq!(get("ONLY_ENQUEUE"), Some("a b\nc"));
    assert_eq!(get("EMPTY"), Some(""));
    assert_eq!(get("ONLY_POOL"), None);
    assert_eq!(get("QUEUECTL_FOREIGN"), None);
    assert_eq!(get("OLDPWD"), None);
    // A shell may set these two itself, but they are not handed down.
    assert!(get("SHLVL").is_none_or(|level| level != "8" && level != "7"), "{env:?}");
    assert_ne!(get("_"), Some("/bin/x"));
    assert_eq!(get("PWD"), home.to_str());
    assert_eq!(get("QUEUECTL_DB"), queue.to_str());
    assert_eq!(get("QUEUECTL_JOB_ID"), Some(id.as_str()));
    assert_eq!(get("QUEUECTL_ATTEMPT"), Some("1"));
    assert_eq!(get("QUEUECTL_SLOT"), Some("0"));
    assert!(get("QUEUECTL_LEASE").is_some_and(|lease| lease.len() > 10));
    assert_eq!(bench.text("home of jobs/env.cwd"), format!("{}\n", home.display()));
    bench.is_clean();
}

#[test]
fn json_merges_the_environment_and_null_unsets() {
    let bench = Bench::new();
    let job = json!({"command": "env -0 >env", "env": {"NEW": "1", "CHANGED": "new", "GONE": null}});
    let enqueue = bench.cmd(["enqueue", &job.to_string()]);
    enqueue.env("CHANGED", "old").env("GONE", "here").env("KEPT", "yes").run().ok();
    bench.pool("--until-empty").wait().ok();
    let env = environment(&bench, "env");
    let wanted = [("NEW", Some("1")), ("CHANGED", Some("new")), ("GONE", None), ("KEPT", Some("yes"))];
    for (name, value) in wanted {
        assert_eq!(env.get(name).map(String::as_str), value, "{name}");
    }
    bench.is_clean();
}

#[test]
fn a_folder_that_is_gone_is_an_error_of_its_own() {
    let bench = Bench::new();
    std::fs::create_dir(bench.file("gone")).unwrap();
    let id = bench.enqueue_json(&json!({"command": "true", "cwd": "gone", "max_retries": 0}));
    std::fs::remove_dir(bench.file("gone")).unwrap();
    assert_eq!(bench.cmd(["worker", "start", "--until-empty"]).run().code, 1);
    let job = bench.show(&id);
    let error = job["error"].as_str().unwrap();
    assert!(error.contains("folder") && error.contains("gone"), "{error}");
    assert_eq!(job["exit_code"], json!(null), "{job}");
    bench.is_clean();
}

#[test]
fn the_attempt_is_counted_up() {
    let bench = Bench::new();
    let command = "echo $QUEUECTL_ATTEMPT >>attempts; [ $QUEUECTL_ATTEMPT = 3 ]";
    bench.enqueue_json(&json!({"command": command, "backoff_base": 0}));
    bench.pool("--until-empty").wait().ok();
    assert_eq!(bench.lines("attempts"), ["1", "2", "3"]);
    bench.is_clean();
}

#[test]
fn a_slot_is_never_held_by_two_jobs_at_once() {
    const WORKERS: usize = 4;
    let bench = Bench::new();
    let command = "mkdir slot$QUEUECTL_SLOT || echo $QUEUECTL_SLOT >>twice; echo $QUEUECTL_SLOT >>slots; \
                   sleep 0.01; rmdir slot$QUEUECTL_SLOT";
    bench.cmd(["enqueue", "-"]).stdin(format!("{command}\n").repeat(100)).run().ok();
    bench.pool(&format!("--until-empty --count {WORKERS}")).wait().ok();
    assert_eq!(bench.text("twice"), "");
    let slots: BTreeSet<_> = bench.lines("slots").into_iter().collect();
    let expected: BTreeSet<_> = (0..WORKERS).map(|slot| slot.to_string()).collect();
    assert_eq!(slots, expected);
    // A slot is the number of the worker that the history names.
    let jobs = bench.json("list --json");
    let workers = jobs.as_array().unwrap().iter().map(|job| job["worker"].as_str().unwrap());
    assert!(workers.map(|worker| worker.rsplit('.').next().unwrap()).all(|slot| slots.contains(slot)));
    bench.is_clean();
}

/// A pool started by a job belongs to nobody, and its own jobs know only their own surroundings.
#[test]
fn a_job_can_use_the_queue_that_it_is_in() {
    let bench = Bench::new();
    let binary = env!("CARGO_BIN_EXE_queuectl");
    std::fs::create_dir(bench.file("deep")).unwrap();
    let command = format!("cd / && {binary} enqueue --quiet -c 'echo $QUEUECTL_JOB_ID $QUEUECTL_ATTEMPT'");
    let outer = bench.enqueue_json(&json!({"command": command, "cwd": "deep"}));
    let pool = bench.pool("");
    bench.until_state(&outer, "completed");
    let inner = bench.ok(&format!("logs --stdout {outer}")).trim().to_owned();
    bench.until_state(&inner, "completed");
    assert_eq!(bench.ok(&format!("logs {inner}")), format!("{inner} 1\n"));
    pool.signal(Signal::SIGINT);
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn a_machine_without_room_for_threads_is_no_crash() {
    let bench = Bench::new();
    bench.enqueue("true");
    let Some(user) = bench.ordinary_user() else { return };
    for line in ["worker start --count 8", "run -j 4 -- true"] {
        let done = user.script(&bench, &format!("exec prlimit --nproc=1 queuectl {line}"));
        done.says(7, &["cannot start a thread: Resource temporarily unavailable"]);
    }
    user.script(&bench, "queuectl worker start --until-empty && queuectl run -j 4 -- true").ok();
}

#[test]
fn a_limit_of_file_sizes_is_an_error_here_and_a_signal_in_jobs() {
    let bench = Bench::new();
    bench.script("ulimit -f 1; queuectl enqueue -c true").run().says(5, &["File too large", "see `ulimit -f`"]);
    let jobs = ["dd if=/dev/zero of=big bs=65536 count=2000", "dd if=/dev/zero of=big bs=65536 count=2000 2>&1"];
    let ids = jobs.map(|command| bench.enqueue_json(&serde_json::json!({"command": command, "max_retries": 0})));
    assert_eq!(bench.script("ulimit -f 50000; queuectl worker start --until-empty").run().code, 1);
    for id in ids {
        let error = bench.show(&id)["error"].to_string();
        assert!(error.contains("SIGXFSZ") || error.contains("153"), "{error}");
    }
    bench.is_clean();
}
