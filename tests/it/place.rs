//! Where the queue is, who makes it, and who may use it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::support::{Bench, is_root, lives};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_a_queue_looking_and_acting_say_so_and_make_none() {
    let bench = Bench::new();
    for line in [
        "status",
        "list",
        "list --json",
        "show 1",
        "logs 1",
        "wait 1",
        "wait --all",
        "cancel 1",
        "retry 1",
        "retry --all-dead",
        "remove 1",
        "dlq list",
        "dlq retry --all",
        "config unset timeout",
        "check",
        "worker list",
        "worker start --until-empty",
        "worker stop",
    ] {
        bench.run(line).says(3, &["there is no queue in", "or above", "try: queuectl enqueue -c 'echo hi'"]);
        assert!(!bench.queue().exists(), "{line}");
    }
    bench.run("--db elsewhere status").says(3, &["there is no queue in", "/elsewhere"]);
    assert!(!bench.path().join("elsewhere").exists());
}

#[test]
fn what_fills_a_queue_makes_it_and_says_so() {
    for args in [&["enqueue", "-c", "true"][..], &["run", "--", "true"], &["config", "set", "timeout", "1m"]] {
        let bench = Bench::new();
        let done = bench.cmd(args).run();
        assert!(done.stderr.starts_with(&format!("queuectl: new queue in {}\n", bench.queue().display())), "{done:?}");
        done.ok();
        // The second time it is there.
        assert!(!bench.cmd(args).run().stderr.contains("new queue"));
    }
}

#[test]
fn a_pool_makes_a_queue_only_where_it_is_told_to() {
    let bench = Bench::new();
    let done = bench.run("--db q worker start --until-empty");
    assert!(done.stderr.contains("new queue in"), "{done:?}");
    done.ok();
    assert!(bench.path().join("q/queue.redb").exists());
}

#[test]
fn the_nearest_queue_above_is_used_and_named() {
    let bench = Bench::new();
    bench.add(r#"{"id":"above","command":"true"}"#);
    let deep = bench.path().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    let named = format!("queuectl: queue: {}\n", bench.queue().display());
    for args in [["list"].as_slice(), &["show", "above"], &["enqueue", "-c", "true"]] {
        let done = bench.cmd(args).cwd(&deep).run();
        assert_eq!(done.stderr, named);
        done.ok();
    }
    assert_eq!(bench.run("list").stderr, "", "here it needs no name");
    // A nearer one wins.
    bench.cmd(["--db", "a/.queuectl", "enqueue", "-c", "true"]).run().ok();
    assert!(bench.cmd(["list"]).cwd(&deep).run().stderr.contains("/a/.queuectl\n"));
}

#[test]
fn the_option_is_stronger_than_the_variable_and_that_than_the_folder() {
    let bench = Bench::new();
    for (folder, id) in [(".queuectl", "here"), ("by-variable", "variable"), ("by-option", "option")] {
        bench.cmd(["--db", folder, "enqueue", &format!(r#"{{"id":"{id}","command":"true"}}"#)]).run().ok();
    }
    let ids = |args: &[&str], variable: &str| {
        let listed = bench.cmd(args).env("QUEUECTL_DB", variable).run().ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed[0]["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(ids(&["list", "--json"], ""), "here");
    assert_eq!(ids(&["list", "--json"], "by-variable"), "variable");
    assert_eq!(ids(&["list", "--json", "--db", "by-option"], "by-variable"), "option");
    assert_eq!(ids(&["--db=by-option", "list", "--json"], "by-variable"), "option");
    bench.cmd(["--db", "", "list"]).run().says(7, &["--db needs the name of a folder"]);
}

#[test]
fn the_search_ends_below_the_home_folder() {
    let bench = Bench::new();
    bench.enqueue("true");
    let inside = bench.path().join("project");
    fs::create_dir(&inside).unwrap();
    bench.cmd(["list"]).cwd(&inside).env("HOME", bench.path()).run().says(3, &["no queue"]);
    // In the home folder itself it is found.
    bench.cmd(["list"]).env("HOME", bench.path()).run().ok();
}

#[test]
fn what_jobs_call_uses_their_own_queue() {
    let bench = Bench::new();
    let inner = r#"{"id":"inner","command":"true"}"#;
    let outer = format!("cd / && '{}' enqueue '{inner}'", env!("CARGO_BIN_EXE_queuectl"));
    bench.enqueue(&outer);
    bench.work().ok();
    assert_eq!(bench.state("inner"), "completed");
}

/// The names of all that is in the queue's folder, which nobody else may read or write.
#[track_caller]
fn private_names(bench: &Bench) -> String {
    let (mut names, mut folders) = (Vec::new(), vec![bench.queue()]);
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            names.push(path.strip_prefix(bench.queue()).unwrap().display().to_string());
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    names.sort();
    names.join(" ")
}

#[test]
fn a_queue_is_private_whatever_the_umask_and_not_for_git() {
    for umask in ["0", "022", "077"] {
        let bench = Bench::new();
        let script = |text: &str| bench.script(&format!("umask {umask}; {text}")).run();
        script("queuectl config set output-limit 64KiB; queuectl enqueue -c 'seq 10000'").ok();
        script("queuectl worker start --until-empty; queuectl run -q -- seq 50000 >/dev/null").ok();
        // In the middle of a run: a board, files that are written to, a log.
        bench.gate("gate");
        let id = bench.enqueue("seq 10000; seq 10000 >&2; : <gate");
        script("queuectl worker start --detach").ok();
        bench.until("it writes", || bench.run(&format!("logs {id}")).stderr.len() > 40_000);
        let names = private_names(&bench);
        for part in [
            ".gitignore",
            "queue.redb",
            "output/0/1.1.out",
            "output/0/2.1.out",
            ".out ",
            ".err ",
            "log/worker-",
            "run/turn",
        ] {
            assert!(names.contains(part), "{part}: {names}");
        }
        assert_eq!(names.matches("run/").count(), 2, "the turnstile and a board: {names}");
        bench.ok("worker stop --now");
        private_names(&bench);
        assert_eq!(fs::read_to_string(bench.queue().join(".gitignore")).unwrap(), "*\n");
    }
}

#[test]
fn a_queue_that_others_can_write_is_refused() {
    let bench = Bench::new();
    bench.enqueue("true");
    let inside = |name: &str| bench.queue().join(name);
    for (path, bad) in [
        (bench.queue(), 0o770),
        (bench.queue(), 0o702),
        (inside("queue.redb"), 0o620),
        (inside("run"), 0o777),
        (inside("output"), 0o730),
        (inside("log"), 0o702),
    ] {
        let good = mode(&path);
        chmod(&path, bad);
        for line in ["list", "enqueue -c true", "worker start --until-empty", "run -- true", "config get timeout"] {
            bench.run(line).says(5, &["can be written by others", &format!("{bad:03o}"), "chmod go-w"]);
        }
        chmod(&path, good);
    }
    assert_eq!(bench.json("status --json")["total"], 1);
}

#[test]
fn a_queue_of_another_user_is_refused_or_passed_over() {
    if !is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let bench = Bench::new();
    bench.enqueue("true");
    let inside = bench.path().join("inside");
    fs::create_dir(&inside).unwrap();
    for name in ["queue.redb", "run", "output", "log", ""] {
        let path = bench.queue().join(name);
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        bench
            .run("--db .queuectl list")
            .says(5, &["belongs to another user (uid 65534)", format!(".queuectl/{name}").trim_end_matches('/')]);
        bench.run("--db .queuectl enqueue -c true").says(5, &["belongs to another user"]);
        if !name.is_empty() {
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
    }
    bench.cmd(["list"]).cwd(&inside).run().says(3, &["passing over", "there is no queue"]);
    let done = bench.cmd(["enqueue", "-c", "true"]).cwd(&inside).run();
    assert!(done.stderr.contains("passing over") && done.stderr.contains("new queue in"), "{done:?}");
}

#[test]
fn links_are_followed_and_what_they_lead_to_is_checked() {
    let bench = Bench::new();
    bench.enqueue("seq 2000");
    let (outputs, elsewhere) = (bench.queue().join("output"), bench.path().join("elsewhere"));
    fs::rename(&outputs, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &outputs).unwrap();
    bench.work().ok();
    assert_eq!(bench.ok("logs 1").lines().count(), 2_000);
    chmod(&elsewhere, 0o777);
    bench.run("logs 1").says(5, &["/.queuectl/output", "can be written by others"]);
    chmod(&elsewhere, 0o700);
    // A link that leads nowhere is no folder that could be made.
    fs::rename(&elsewhere, bench.path().join("away")).unwrap();
    bench.run("enqueue -c true").fails(5);
}

#[test]
fn what_is_no_file_where_files_belong_is_refused_and_never_waited_for() {
    let bench = Bench::new();
    bench.enqueue("true");
    let file = bench.queue().join("queue.redb");
    fs::rename(&file, bench.path().join("kept")).unwrap();
    bench.script("mkfifo -m 600 .queuectl/queue.redb").run().ok();
    for line in ["list", "enqueue -c true", "check"] {
        bench.run(line).says(5, &["queue.redb", "not a regular file"]);
    }
    fs::remove_file(&file).unwrap();
    fs::rename(bench.path().join("kept"), &file).unwrap();
    for name in ["turn", "abc1"] {
        let path = bench.queue().join("run").join(name);
        let _ = fs::remove_file(&path);
        bench.script(&format!("mkfifo -m 600 .queuectl/run/{name}")).run().ok();
        bench.run("list").ok();
        let done = bench.work();
        assert!(done.code == 5 || done.code == 0, "{name}: {done:?}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_is_no_folder_is_no_queue() {
    let bench = Bench::new();
    fs::write(bench.path().join("file"), "").unwrap();
    bench.run("--db file list").says(5, &["/file", "not a directory"]);
    bench.run("--db file enqueue -c true").says(5, &["/file"]);
    bench.run("--db file/below list").says(5, &["/file/below"]);
    fs::write(bench.queue(), "").unwrap();
    bench.run("list").says(5, &["/.queuectl", "not a directory"]);
    bench.run("enqueue -c true").says(5, &["/.queuectl"]);
}

#[test]
fn a_queue_of_root_is_refused_by_others() {
    let bench = Bench::new();
    bench.enqueue("true");
    let Some(user) = bench.ordinary_user() else { return };
    if !is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    bench.script("chown -R 0 .queuectl; chmod 755 .queuectl").run().ok();
    for line in ["--db .queuectl list", "--db .queuectl enqueue -c true"] {
        user.script(&bench, &format!("queuectl {line}")).says(5, &["belongs to another user (uid 0)"]);
    }
    // Searching passes it over, and makes one of its own where it may.
    bench.script("chmod 777 .; mkdir -m 777 inside").run().ok();
    let done = user.script(&bench, "cd inside && queuectl enqueue -c true");
    assert!(done.stderr.contains("passing over") && done.stderr.contains("/inside/.queuectl"), "{done:?}");
    done.ok();
}

#[test]
fn what_another_users_board_says_is_not_acted_upon() {
    if !is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let bench = Bench::new();
    let id = bench.enqueue("echo $$ >pid; sleep 1000");
    let mut pool = bench.pool("");
    let pid: i32 = bench.until_file("pid").trim().parse().unwrap();
    pool.kill();
    let board = bench.queue().join("run").join(pool.id());
    std::os::unix::fs::chown(&board, Some(65_534), None).unwrap();
    let next = bench.pool("");
    let other = bench.enqueue("true");
    bench.until_state(&other, "completed");
    assert_eq!((bench.state(&id).as_str(), lives(pid)), ("processing", true));
    drop(next);
    std::os::unix::fs::chown(&board, Some(0), None).unwrap();
    let last = bench.pool("");
    bench.until("it is ended", || !lives(pid));
    drop(last);
}

#[test]
fn what_to_type_next_names_the_queue_that_was_named() {
    let bench = Bench::new();
    bench.ok("--db other enqueue -c true");
    let done = bench.run("--db other show nobody");
    assert!(done.fails(3).ends_with("  try: queuectl --db other list\n"), "the queue is named");
    bench.ok("enqueue -c true");
    assert!(bench.run("show nobody").fails(3).ends_with("  try: queuectl list\n"), "it is found here");
}

#[test]
fn a_backup_inside_the_queue_is_refused() {
    let bench = Bench::new();
    bench.ok("enqueue -c true");
    bench.run("backup .queuectl/copy").says(4, &["inside the queue's own folder"]);
    assert!(!bench.queue().join("copy").exists());
}

/// Copies, and version control, leave empty folders out.
#[test]
fn a_queue_without_its_folder_for_pools_is_one() {
    let bench = Bench::new();
    bench.enqueue("true");
    std::fs::remove_dir_all(bench.queue().join("run")).unwrap();
    bench.ok("cancel 1");
    bench.ok("check");
    bench.is_clean();
}
