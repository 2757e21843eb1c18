//! Queue files that cannot be used: one clear line, exit 5, and nothing is changed. Damaged ones: every answer is the
//! right one, or that the file is damaged, and what can be done.
//!
//! `DAMAGE_STEP=1 cargo test --test it -- damage` takes every page in turn.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use redb::{Builder, ConcurrencyMode, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::support::{Bench, Done};

/// What opens the queue, in every way that there is.
const COMMANDS: [&str; 15] = [
    "status",
    "list --json",
    "show 1",
    "logs 1",
    "wait 1",
    "cancel 1",
    "retry --all-dead",
    "config get timeout",
    "config set timeout 1m",
    "enqueue -c true",
    "run -- true",
    "worker start --until-empty",
    "worker stop",
    "check",
    "compact",
];

fn file(bench: &Bench) -> PathBuf {
    bench.queue().join("queue.redb")
}

/// Every command refuses the file with one line that has these words.
fn refused_by_all(bench: &Bench, parts: &[&str]) {
    for line in COMMANDS {
        let done = bench.run(line);
        assert!(!done.stderr.contains("panic"), "{line}: {done:?}");
        let mut said = done.stderr.lines();
        assert!(said.next().unwrap().contains("/.queuectl/queue.redb: "), "{line}: {done:?}");
        match said.last() {
            None => assert!(!done.stderr.contains("damaged"), "{line}: {done:?}"),
            Some(next) if done.stderr.contains("not a queue") => {
                assert_eq!(next, "  try: queuectl restore BACKUP    if you have a backup", "{line}");
            }
            Some(next) => names_a_way_out(line, next),
        }
        done.says(5, parts);
    }
}

/// Where a file is damaged, the last line says what to do.
fn names_a_way_out(line: &str, last: &str) {
    let way_out = if line.starts_with("check") { "queuectl check --repair " } else { "try: queuectl check " };
    assert!(last.contains(way_out), "{line}: {last}");
}

/// The same, and the file is left as it is.
fn refused(bench: &Bench, parts: &[&str]) {
    let before = fs::read(file(bench)).unwrap();
    refused_by_all(bench, parts);
    assert!(fs::read(file(bench)).unwrap() == before);
}

/// A queue with some jobs, closed well.
fn filled() -> Bench {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("true\n".repeat(500)).run().ok();
    bench.run("run -- true").ok();
    bench
}

#[test]
fn an_empty_file() {
    let bench = filled();
    fs::write(file(&bench), "").unwrap();
    refused(&bench, &["not a queue", "empty"]);
}

#[test]
fn something_else() {
    let bench = filled();
    for bytes in ["x".as_bytes(), b"SQLite format 3\0 and so on", &vec![0; 100_000]] {
        fs::write(file(&bench), bytes).unwrap();
        refused(&bench, &["not a queue", "not a redb file"]);
    }
}

#[test]
fn a_file_that_was_cut_short() {
    let closed = filled();
    let left_open = filled();
    left_open.enqueue("true");
    for bench in [closed, left_open] {
        let whole = fs::read(file(&bench)).unwrap();
        for bytes in [1, 9, 200, 4_096, whole.len() / 2, whole.len() - 4_096, whole.len() - 1] {
            fs::write(file(&bench), &whole[..bytes]).unwrap();
            refused(&bench, &["the queue file is damaged", "cut short"]);
        }
    }
}

/// A line, how it ended with the sound file, and what it printed.
fn answered(bench: &Bench, line: &str) -> Done {
    // No more memory than it may need, nor more time.
    bench.cmd(line.split(' ')).under(&["prlimit", "--as=4000000000", "timeout", "-s", "KILL", "30"]).run()
}

#[test]
fn a_damaged_page_never_makes_a_command_panic_hang_or_lie() {
    const LOOKS: [&str; 9] = [
        "list --json --limit 1000",
        "list --state pending --json --limit 1000",
        "list --state completed --json",
        "dlq list --json",
        "show 17 --json",
        "show named-3 --json",
        "logs 2",
        "config list --json",
        "wait 2 3",
    ];
    const ACTS: [&str; 8] = [
        "enqueue --quiet -c true",
        "cancel 402",
        "retry --all-dead",
        "config set timeout 1m",
        "worker stop",
        "worker list --json",
        "run --quiet -- true",
        "worker start --until-empty --count 2",
    ];
    let bench = Bench::new();
    let jobs: Vec<String> = (0..500)
        .map(|n| match n % 3 {
            0 => format!(r#"{{"id":"named-{n}","command":"true"}}"#),
            _ => format!(r#"{{"command":"echo {n}; exit {}","max_retries":0,"queue":"q{}"}}"#, n % 2, n % 4),
        })
        .collect();
    bench.cmd(["enqueue", "--quiet", "-"]).stdin(jobs[..100].join("\n")).run().ok();
    bench.work();
    bench.cmd(["enqueue", "--quiet", "-"]).stdin(jobs[100..].join("\n")).run().ok();
    bench.ok("config set max-backoff 10m");
    let whole = fs::read(file(&bench)).unwrap();
    let sound: Vec<Done> = LOOKS.iter().map(|line| answered(&bench, line)).collect();
    let step = std::env::var("DAMAGE_STEP").map_or(12, |step| step.parse().unwrap());
    let mut said = 0;
    for page in (0..whole.len() / 4_096).step_by(step) {
        let mut damaged = whole.clone();
        // Bits all over the page, the same ones each time.
        let mut bit = page * 7_919;
        for _ in 0..64 {
            bit = (bit * 5 + 12_345) % (4_096 * 8);
            damaged[page * 4_096 + bit / 8] ^= 1 << (bit % 8);
        }
        fs::write(file(&bench), &damaged).unwrap();
        for (line, sound) in LOOKS.iter().zip(&sound) {
            let done = answered(&bench, line);
            if (done.code, &done.stdout) != (sound.code, &sound.stdout) {
                said += 1;
                says_damage(page, line, &done);
            }
        }
        for line in ACTS {
            // Nothing of what the one before it did.
            fs::write(file(&bench), &damaged).unwrap();
            let done = answered(&bench, line);
            if !matches!(done.code, 0 | 1) {
                said += 1;
                says_damage(page, line, &done);
            }
        }
        fs::write(file(&bench), &damaged).unwrap();
        let done = answered(&bench, "check");
        if done.code == 0 {
            assert_eq!(answered(&bench, "status").code, 0, "page {page}");
        } else {
            says_damage(page, "check", &done);
        }
    }
    assert!(said > 0);
}

#[track_caller]
fn says_damage(page: usize, line: &str, done: &Done) {
    assert!(!done.stderr.contains("panic"), "page {page}, {line}: {done:?}");
    let says = ["damaged", "not a queue", "the queue has "].iter().any(|words| done.stderr.contains(words));
    assert!(done.code == 5 && says, "page {page}, {line}: {done:?}");
    if !done.stderr.contains("not a queue") {
        names_a_way_out(line, done.stderr.lines().last().unwrap());
    }
}

const NUMBERS: TableDefinition<u64, u64> = TableDefinition::new("numbers");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

#[test]
fn a_database_of_something_else() {
    let bench = filled();
    fs::remove_file(file(&bench)).unwrap();
    let database = Database::create(file(&bench)).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(NUMBERS).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(database);
    fs::set_permissions(file(&bench), fs::Permissions::from_mode(0o600)).unwrap();
    refused_by_all(&bench, &["not a queue", "something else"]);
    let database = Database::open(file(&bench)).unwrap();
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.list_tables().unwrap().count(), 1);
    assert_eq!(txn.open_table(NUMBERS).unwrap().get(1).unwrap().unwrap().value(), 2);
}

#[test]
fn a_newer_schema() {
    let bench = filled();
    let before = bench.json("list --json");
    let database = || {
        let mut builder = Builder::new();
        builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
        builder.open(file(&bench)).unwrap()
    };
    let set_schema = |version: u8| {
        let database = database();
        let txn = database.begin_write().unwrap();
        {
            let mut meta = txn.open_table(META).unwrap();
            let mut record = meta.get("schema").unwrap().unwrap().value().to_vec();
            // A version byte, a checksum of the rest, and the rest: a small number in one byte.
            assert_eq!(record.len(), 6);
            record[5] = version;
            let checksum = crc32fast::hash(&record[5..]).to_le_bytes();
            record[1..5].copy_from_slice(&checksum);
            meta.insert("schema", record.as_slice()).unwrap();
        }
        txn.commit().unwrap();
    };
    set_schema(99);
    let known = queuectl::store::SCHEMA_VERSION;
    let version = format!("to {known}: use");
    refused_by_all(&bench, &["schema version 99", &version, "use a newer queuectl"]);
    set_schema(known.try_into().unwrap());
    assert_eq!(bench.json("list --json"), before);
    bench.check();
}

#[test]
fn no_regular_file() {
    let bench = filled();
    fs::remove_file(file(&bench)).unwrap();
    fs::create_dir(file(&bench)).unwrap();
    bench.run("list").says(5, &["not a queue", "not a regular file"]);
    bench.run("enqueue -c true").says(5, &["not a queue", "not a regular file"]);
}

#[test]
fn what_may_not_be_written_can_still_be_looked_at() {
    let bench = filled();
    let Some(user) = bench.ordinary_user() else { return };
    let sh = |script: &str| user.script(&bench, script);
    for (path, mode) in [(file(&bench), 0o400), (bench.queue(), 0o500)] {
        // Closed well, so that looking needs no writing.
        sh("queuectl worker start --until-empty").ok();
        let before = fs::read(file(&bench)).unwrap();
        let was = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for line in ["status", "list --json", "show 1", "logs 1", "config get timeout", "check"] {
            let done = sh(&format!("queuectl {line}"));
            assert_eq!(done.code, 0, "{mode:o} {line}: {done:?}");
        }
        if path == file(&bench) {
            for line in
                ["enqueue -c true", "cancel 1", "config set timeout 1m", "worker start --until-empty", "run -- true"]
            {
                let done = sh(&format!("queuectl {line}"));
                assert_eq!((done.code, done.stderr.lines().count()), (5, 1), "{line}: {done:?}");
                assert!(done.stderr.contains("queue.redb: the queue cannot be written: Permission denied"), "{done:?}");
            }
        }
        assert!(fs::read(file(&bench)).unwrap() == before);
        fs::set_permissions(&path, was).unwrap();
    }
}

#[test]
fn a_folder_in_which_nothing_can_be_made() {
    let bench = Bench::new();
    let Some(user) = bench.ordinary_user() else { return };
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let done = user.script(&bench, "queuectl enqueue -c true");
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    done.says(5, &["cannot use the folder", ".queuectl", "Permission denied"]);
}
