//! `export` and `import`: a queue goes out as JSON lines and comes back exactly.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::support::{Bench, Done};

/// A queue with jobs in most states, a run, settings, and outputs of all sizes.
fn filled() -> Bench {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    bench.ok("config set output-limit 64KiB");
    bench.add(r#"{"id":"dead","command":"echo out; echo err >&2; exit 3","env":{"X":{"base64":"/w=="},"HOME":null}}"#);
    bench.add(
        r#"{"id":"large","argv":["sh","-c","yes é | head -c 40001; printf '\\377' ; seq 5000 >&2"],"timeout":1.5}"#,
    );
    bench.add(r#"{"id":"cut","command":"seq 100000","queue":"other"}"#);
    bench.cmd(["enqueue", "-"]).stdin(&b"true\nprintf '\xff\\n'\n"[..]).run().ok();
    bench.work();
    bench.add(r#"{"id":"failed","command":"false","max_retries":5,"backoff_base":1000}"#);
    bench.cmd(["run", "-"]).stdin("true\nfalse\n").run().fails(1);
    bench.run("worker start --until-empty --queue none").ok();
    bench.add(r#"{"id":"cancelled","command":"true","cwd":"/usr"}"#);
    bench.ok("cancel cancelled");
    bench
}

/// What `export` writes, without the time in its first line.
fn exported(bench: &Bench, db: &str) -> String {
    let done = bench.cmd(["--db", db, "export"]).run();
    assert_eq!(done.code, 0, "{done:?}");
    without_time(&done)
}

fn without_time(done: &Done) -> String {
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.starts_with(r#"{"queuectl_export":{"version":1,"exported_at":""#), "{first}");
    rest.to_owned()
}

/// The lines of a kind.
fn of_kind(export: &str, kind: &str) -> Vec<Value> {
    let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|mut line| line.get_mut(kind).map(Value::take)).collect()
}

/// Every file below a folder, with what it holds.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(
                files(&path)
                    .into_iter()
                    .map(|(name, bytes)| (format!("{}/{name}", path.file_name().unwrap().display()), bytes)),
            );
        } else {
            all.insert(path.file_name().unwrap().display().to_string(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn a_queue_comes_back_exactly() {
    let bench = filled();
    bench.run("export --output all.jsonl").says(0, &["exported 9 jobs", "keep it private"]);
    let done = bench.run("--db new import all.jsonl");
    assert!(done.stderr.contains("new queue in"), "{done:?}");
    assert_eq!(done.ok(), "✓ 9 jobs imported\n");
    bench.ok("--db new check");
    assert_eq!(exported(&bench, "new"), exported(&bench, ".queuectl"));
    for line in [
        "list --json",
        "config list --json",
        "show dead --json",
        "show large --json",
        "dlq list --json",
        "logs large",
        "logs cut",
    ] {
        let (old, new) = (bench.run(line), bench.run(&format!("--db new {line}")));
        assert_eq!((old.code, &old.stdout), (new.code, &new.stdout), "{line}");
        assert!(old.stdout.len() > 100, "{line}");
    }
    assert_eq!(bench.run("logs dead").stderr, bench.run("--db new logs dead").stderr);
    assert_eq!(files(&bench.file("new/output")), files(&bench.queue().join("output")));
    // What is enqueued next has the next number, and what was dead can be tried again.
    assert_eq!(bench.ok("--db new enqueue --quiet -c true"), bench.ok("enqueue --quiet -c true"));
    bench.ok("--db new dlq retry dead");
    // It would be waited for.
    bench.ok("--db new cancel failed");
    bench.run("--db new worker start --until-empty").fails(1);
    assert_eq!(bench.json("--db new show dead --json")["attempts"], 2);
    bench.ok("--db new check");
}

#[test]
fn through_a_pipe_and_from_standard_input() {
    let bench = filled();
    bench.script("queuectl export | queuectl --db a import - && queuectl --db a export >a.jsonl && queuectl --db b import - <a.jsonl").run().ok();
    assert_eq!(exported(&bench, "b"), exported(&bench, ".queuectl"));
    let summary = bench.json("--db c import --json a.jsonl");
    assert_eq!((&summary["jobs"], &summary["runs"], &summary["lost"]), (&9.into(), &1.into(), &0.into()), "{summary}");
    // Whoever reads has enough after a line; that is no failure.
    bench.script("queuectl export | head -n 1").run().ok();
    let full = bench.script("queuectl export >/dev/full").run();
    full.says(7, &["cannot write to standard output", "No space left"]);
    bench.run("export --output /dev/full").says(5, &["cannot write to /dev/full"]);
    bench.run("export --output no/such/folder").says(7, &["cannot write to no/such/folder"]);
    assert_eq!(
        fs::read_dir(bench.path())
            .unwrap()
            .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "tmp"))
            .count(),
        0
    );
}

#[test]
fn a_run_goes_on_after_its_move() {
    let bench = Bench::new();
    fs::write(bench.file("jobs"), "echo 1 >>ledger\n[ -e again ] || exit 1; echo 2 >>ledger\necho 3 >>ledger\n")
        .unwrap();
    bench.run("run --max-retries 0 -j 1 jobs").fails(1);
    bench.ok("retry --all-dead");
    bench.ok("export --output all.jsonl");
    bench.ok("--db new import all.jsonl");
    fs::write(bench.file("again"), "").unwrap();
    let again = bench.run("--db new run --max-retries 0 -j 1 jobs");
    assert!(again.stderr.contains("continuing run 1: 1 of 3 jobs to go"), "{again:?}");
    again.ok();
    assert_eq!(bench.lines("ledger"), ["1", "3", "2"]);
    bench.ok("--db new check");
}

#[test]
fn while_pools_work_one_moment_is_exported() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    bench.enqueue("echo started >started; : <gate");
    bench.enqueue("true");
    let pool = bench.pool("--count 1");
    bench.until_file("started");
    let done = bench.run("export");
    assert!(done.stderr.contains("that a pool has taken: exported as pending"), "{done:?}");
    let states: Vec<Value> = of_kind(&without_time(&done), "job").iter().map(|job| job["state"].clone()).collect();
    assert_eq!(states, ["pending", "pending"]);
    fs::write(bench.file("held.jsonl"), &done.stdout).unwrap();
    bench.open(&gate);
    bench.until_state("2", "completed");
    drop(pool);
    bench.ok("--db new import held.jsonl");
    bench.ok("--db new check");

    // However much goes on, every export is one moment: it is taken back and is sound.
    bench.cmd(["enqueue", "-"]).stdin("echo x\n".repeat(400)).run().ok();
    let pool = bench.pool("--count 4");
    for n in 0..5 {
        bench.ok(&format!("export --output live{n}.jsonl"));
        bench.ok(&format!("--db live{n} import live{n}.jsonl"));
        bench.ok(&format!("--db live{n} check"));
    }
    drop(pool);
}

#[test]
fn what_is_taken_is_refused_and_nothing_changes() {
    let bench = filled();
    bench.ok("export --output all.jsonl");
    let before = exported(&bench, ".queuectl");
    bench.run("import all.jsonl").says(
        4,
        &[
            "all.jsonl",
            "there is already a job number 1",
            "nothing was imported",
            "try: queuectl --db NEWFOLDER import all.jsonl",
        ],
    );
    assert_eq!(exported(&bench, ".queuectl"), before);

    let other = |json: &str| {
        bench.cmd(["--db", "other", "enqueue", json]).run().ok();
        let before = files(&bench.file("other/output"));
        let list = bench.ok("--db other list --json");
        (before, list)
    };
    // Numbers beyond those of the export, and one of its ids.
    let text = bench.text("all.jsonl");
    let moved = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for kind in ["job", "attempt", "output"] {
            if let Some(seq) = line.pointer_mut(&format!("/{kind}/seq")) {
                *seq = (seq.as_u64().unwrap() + 100).into();
            }
        }
        if let Some(next) = line.pointer_mut("/end/next_seq") {
            *next = 200.into();
        }
        line.to_string() + "\n"
    };
    fs::write(bench.file("moved.jsonl"), text.lines().map(moved).collect::<String>()).unwrap();
    let (outputs, list) = other(r#"{"id":"cancelled","command":"true"}"#);
    bench
        .run("--db other import moved.jsonl")
        .says(4, &["moved.jsonl: line ", "there is already a job cancelled", "nothing was imported"]);
    assert_eq!((files(&bench.file("other/output")), bench.ok("--db other list --json")), (outputs, list));
    bench.ok("--db other check");

    // Into a queue of others, where nothing is taken; its own settings stay.
    bench.ok("--db third enqueue -c true");
    bench.ok("--db third config set max-retries 7");
    let done = bench.run("--db third import moved.jsonl");
    assert!(done.stderr.contains("the setting max-retries stays as it is here"), "{done:?}");
    done.ok();
    assert_eq!(bench.ok("--db third config get max-retries"), "7\n");
    assert_eq!(bench.ok("--db third enqueue --quiet -c true"), "200\n");
    assert_eq!(bench.ok("--db third logs cut"), bench.ok("logs cut"));
    bench.ok("--db third check");
}

#[test]
fn lines_that_are_wrong_are_named_and_nothing_is_made() {
    let bench = filled();
    bench.ok("export --output all.jsonl");
    let text = bench.text("all.jsonl");
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let head = |lines: usize| text.split_inclusive('\n').take(lines).collect::<String>();
    for (input, says) in [
        (String::new(), "it is not an export"),
        ("{\"command\":\"true\"}\n".to_owned(), "it is not an export"),
        (head(4), "it is cut short after line 4"),
        (text[..text.len() - 10].to_owned(), "it is cut short after line"),
        (text.clone() + &head(2), "line "),
        (change(r#""version":1"#, r#""version":2"#), "line 1: the export has version 2, this program knows 1"),
        (change(r#"{"setting":"#, r#"{"sitting":"#), "line 2: "),
        (change(r#""max-retries""#, r#""max-tries""#), "line 2: there is no setting `max-tries`"),
        (change(r#""state":"dead""#, r#""state":"processing""#), "`processing` is no state of a job in an export"),
        (change(r#""state":"dead""#, r#""state":"completed""#), "a job that is completed has no `reason`"),
        (change(r#""failures":1"#, r#""failures":9"#), "failures and losses do not explain"),
        (change(r#""attempts":1"#, r#""attempts":2"#), "has 2 attempts, of which 1 follow"),
        (change(r#""attempts":1"#, r#""attempts":"\u001b[2J""#), r#"invalid type: string "\u{1b}[2J", expected u32"#),
        (change(r#""seq":2"#, r#""seq":18446744073709551615"#), "`seq` takes a number from 1 to 9007199254740991"),
        (change(r#""environment":""#, r#""environment":"x"#), "32 hexadecimal digits"),
        (change(r#""outcome":"failed""#, r#""outcome":"fine""#), "`outcome` takes completed, failed, timed_out"),
        (
            change(r#""bytes":40002"#, r#""bytes":40001"#),
            "the output has 40002 bytes by here, its attempt tells of 40001",
        ),
        (change(r#""timeout":1.5"#, r#""timeout":0"#), "a number of seconds or a duration from 1ms to 365d"),
        (change(r#""queue":"other""#, r#""queue":"-x""#), "queue name `-x` starts with `-`"),
        (change(r#""jobs":9"#, r#""jobs":8"#), "the end counts 8 `jobs`, and there are 9"),
        (change(r#""next_seq":10"#, r#""next_seq":9"#), "`next_seq` is 9, but 9 is in use"),
        (change("{\"job\"", &format!("{{\"x\":\"{}\"}}\n{{\"job\"", "y".repeat(1 << 20))), "unknown variant `x`"),
        (change("{\"job\"", &("[".repeat(10_000) + "{\"job\"")), "line "),
    ] {
        let done = bench.cmd(["--db", "none", "import", "-"]).stdin(input).run();
        assert!(done.stderr.len() < 1_000, "{} bytes for {says}", done.stderr.len());
        assert!(!done.stderr.contains(['\u{1b}', '\0']) && !done.stderr.contains("panic"), "{done:?}");
        assert!(done.stderr.contains("queuectl: standard input: "), "{done:?}");
        done.says(2, &[says]);
        assert!(!bench.file("none").exists(), "{says}");
    }
}

#[test]
fn a_killed_import_leaves_nothing_that_harms() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("seq 2000\n".repeat(300)).run().ok();
    bench.run("worker start --count 2 --until-empty").ok();
    bench.ok("export --output all.jsonl");
    let expected = exported(&bench, ".queuectl");
    let fresh = Bench::new();
    fs::copy(bench.file("all.jsonl"), fresh.file("all.jsonl")).unwrap();
    fresh.ok("config set timeout 1h");
    let first = fresh.queue().join("output/0/1.1.out");
    let mut import = fresh.cmd(["import", "all.jsonl"]).spawn();
    fresh.until("outputs are written", || first.exists());
    // Nobody commits from here on.
    let turn = fresh.take_turn();
    import.kill();
    turn.release();
    let jobs = fresh.json("list --json").as_array().unwrap().len();
    if jobs == 300 {
        println!("it was killed after its commit");
        return;
    }
    assert_eq!(jobs, 0);
    fresh.check();
    // Of another import, which had more attempts.
    let left = fresh.queue().join("output/0/7.2.err");
    fs::write(&left, "left").unwrap();
    // What was reserved is nobody's: a job that comes between has another number.
    let id: u64 = fresh.enqueue("true").parse().unwrap();
    assert!(id > 300, "{id}");
    fresh.ok("import all.jsonl");
    assert!(!left.exists());
    fresh.check();
    let again = exported(&fresh, ".queuectl");
    let jobs = of_kind(&again, "job");
    assert_eq!(jobs[..300], of_kind(&expected, "job"));
    assert_eq!(of_kind(&again, "output"), of_kind(&expected, "output"));
}

#[test]
fn a_missing_output_is_said_and_stays_missing() {
    let bench = filled();
    let output = bench.queue().join("output/0/2.1.out");
    fs::remove_file(&output).unwrap();
    let done = bench.run("export --output all.jsonl");
    done.says(0, &["warning: an output is missing", "output/0/2.1.out"]);
    bench.ok("--db new import all.jsonl");
    bench.run("--db new check").says_too("2.1.out should have 40002 bytes");
    assert_eq!(exported(&bench, "new"), exported(&bench, ".queuectl"));
}

#[test]
fn of_a_damaged_queue_what_can_be_read_is_exported_and_nothing_else() {
    let bench = Bench::new();
    for n in 0..60 {
        bench.add(&format!(r#"{{"id":"job{n}","command":"echo {n}","env":{{"N":"{n}"}}}}"#));
    }
    bench.work();
    bench.cmd(["run", "-"]).stdin("true\n".repeat(20)).run().ok();
    let whole = exported(&bench, ".queuectl");
    let by_seq = |export: &str| -> BTreeMap<u64, Value> {
        of_kind(export, "job").into_iter().map(|job| (job["seq"].as_u64().unwrap(), job)).collect()
    };
    let jobs = by_seq(&whole);
    let file = bench.queue().join("queue.redb");
    let sound = fs::read(&file).unwrap();
    let (mut unharmed, mut partial) = (0, 0);
    for page in (1..sound.len() / 4_096).step_by(3) {
        let mut damaged = sound.clone();
        // Not with just anything: where a page number is nonsense, redb takes gigabytes for the page before it finds that
        // the file ends before it, and refuses every read after that.
        damaged[page * 4_096..(page + 1) * 4_096].fill(0);
        fs::write(&file, &damaged).unwrap();
        let done = bench.run("export");
        assert!(!done.stderr.contains("panic"), "page {page}: {done:?}");
        if done.code == 0 {
            unharmed += 1;
            assert!(without_time(&done) == whole, "page {page}");
            continue;
        }
        assert_eq!(done.code, 5, "page {page}: {done:?}");
        assert!(done.stderr.lines().last().unwrap().starts_with("  try: queuectl "), "page {page}: {done:?}");
        if !done.stdout.ends_with(b"}\n") || !done.stderr.contains("import FILE") {
            continue;
        }
        let said = done.stderr.clone();
        let out = without_time(&done);
        let had = bench.cmd(["--db", &format!("new{page}"), "import", "-"]).stdin(done.stdout).run();
        assert!(had.stderr.contains("made of a damaged queue") || !said.contains("lost: "), "page {page}: {had:?}");
        had.ok();
        bench.ok(&format!("--db new{page} check"));
        for (seq, job) in by_seq(&out) {
            let before = jobs.get(&seq).unwrap_or_else(|| panic!("page {page}: job {seq} was made up"));
            assert!(
                *before == job || said.contains(&format!("job {seq}")) || said.contains("cannot"),
                "page {page}: {before} became {job}\n{said}"
            );
            assert_eq!((&before["command"], &before["id"]), (&job["command"], &job["id"]), "page {page}");
        }
        partial += 1;
    }
    assert!(unharmed > 3 && partial > 3, "{unharmed} unharmed, {partial} in part");
}
