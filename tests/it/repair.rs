//! `check --deep` and `check --repair`.

use std::fs;

use redb::{Builder, ConcurrencyMode, TableDefinition, WriteTransaction};

use super::support::{Bench, Watch, lives};

const READY: TableDefinition<(u64, u8, u64), ()> = TableDefinition::new("ready");
const LEASES: TableDefinition<(&str, u64), ()> = TableDefinition::new("leases");
const SPECS: TableDefinition<u64, &[u8]> = TableDefinition::new("specs");

/// Changes tables behind queuectl's back.
fn tamper(bench: &Bench, change: impl FnOnce(&WriteTransaction)) {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let database = builder.open(bench.queue().join("queue.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

fn file(bench: &Bench) -> Vec<u8> {
    fs::read(bench.queue().join("queue.redb")).unwrap()
}

fn filled() -> Bench {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-"]).stdin("echo hi\n".repeat(50)).run().ok();
    bench.work();
    bench.cmd(["enqueue", "-"]).stdin("echo again\n".repeat(50)).run().ok();
    bench
}

/// The lines that say what to type next, each a line of its own.
const WAYS_OUT: &str = "
  try: queuectl restore BACKUP    if you have a backup
  or:  queuectl export --output FILE    saves what can still be read
  or:  queuectl check --repair    makes the queue sound again
";

#[test]
fn an_index_that_lacks_a_job_is_told_and_repaired() {
    let bench = filled();
    tamper(&bench, |txn| drop(txn.open_table(READY).unwrap().remove((1, 100, 70)).unwrap()));
    let check = bench.run("check");
    assert_eq!(String::from_utf8_lossy(&check.stdout), "invariant 2: READY lacks job 70 under  1 100\n");
    assert!(check.fails(5).ends_with(WAYS_OUT), "what to type next");
    let before = file(&bench);
    let said = bench.ok("check --repair");
    assert!(said.starts_with("READY lacks (1, 100, 70)\n✓ 100 jobs, repaired; the file as it was is "), "{said}");
    assert!(fs::read(bench.queue().join("queue.redb.before-repair")).unwrap() == before);
    bench.check();
    bench.ok("check --deep");
    bench.work();
    assert_eq!(bench.state("70"), "completed");
    let nothing = bench.json("check --repair --json");
    assert_eq!((&nothing["repaired"], &nothing["jobs"]), (&false.into(), &100.into()), "{nothing}");
}

#[test]
fn a_job_whose_command_is_lost_is_told() {
    let bench = filled();
    tamper(&bench, |txn| drop(txn.open_table(SPECS).unwrap().insert(70, b"nonsense".as_slice()).unwrap()));
    let found = bench.json("check --repair --json");
    let lost = found["lost"][0].as_str().unwrap();
    assert!(lost.starts_with("job 70 (pending) is lost, since its command cannot be read"), "{found}");
    assert_eq!((&found["jobs"], &found["lost_found"]), (&99.into(), &1.into()), "{found}");
    bench.check();
    bench.work();
    bench.run("show 70").fails(3);
    assert_eq!(bench.enqueue("true"), "101", "its number is not given again");
}

#[test]
fn a_deep_check_finds_what_the_ordinary_one_does_and_changes_nothing() {
    let bench = filled();
    bench.ok("worker start --until-empty");
    let done = bench.run("check --deep");
    assert!(done.stderr.contains("keeps everybody from writing"), "{done:?}");
    assert!(done.ok().contains("every page is what it should be"));
    let whole = file(&bench);
    let names = || fs::read_dir(bench.queue()).unwrap().count();
    let before = names();
    let mut found = 0;
    for page in 1..whole.len() / 4_096 {
        let mut flipped = whole.clone();
        flipped[page * 4_096 + 2_000] ^= 4;
        fs::write(bench.queue().join("queue.redb"), &flipped).unwrap();
        let deep = bench.run("check --deep");
        assert!(!deep.stderr.contains("panic") && matches!(deep.code, 0 | 5), "{page}: {deep:?}");
        assert!(file(&bench) == flipped, "{page}: the check changed the file");
        let ordinary = bench.run("check").code;
        assert!(ordinary == 0 || deep.code == 5, "{page}: the deep check finds less");
        found += usize::from(deep.code == 5);
    }
    assert!(found > 0);
    assert_eq!(names(), before);
}

#[test]
fn a_repair_is_refused_while_a_pool_works() {
    let bench = filled();
    let pool = bench.pool("");
    bench.run("check --repair").says(4, &["works on the queue", "queuectl worker stop"]);
    bench.ok("worker stop");
    pool.wait().ok();
    bench.ok("check --repair");
    Bench::new().run("check --repair").says(3, &["there is no queue"]);
}

#[test]
fn what_a_dead_pool_left_is_ended_before_a_repair_even_if_it_cannot_be_recovered() {
    let bench = Bench::new();
    let id = bench.enqueue("echo $$ >>pids; [ $(wc -l <pids) -gt 1 ] || exec sleep 1000");
    let mut pool = bench.pool("");
    let pool_id = pool.id();
    let pids = bench.until_pids("pids", 1);
    pool.kill();
    tamper(&bench, |txn| drop(txn.open_table(LEASES).unwrap().insert((pool_id.as_str(), 99), ()).unwrap()));
    let repaired = bench.run("check --repair");
    assert!(!lives(pids[0]), "{repaired:?}");
    let said = repaired.ok();
    assert!(said.contains("99), which no job explains"), "{said}");
    bench.check();
    assert_eq!(bench.state(&id), "pending");
    bench.work();
    assert_eq!((bench.state(&id).as_str(), bench.lines("pids").len()), ("completed", 2));
    bench.is_clean();
}

#[test]
fn a_file_of_which_nothing_can_be_read_is_left_alone() {
    let bench = filled();
    let whole = file(&bench);
    fs::write(bench.queue().join("queue.redb"), &whole[..whole.len() / 2]).unwrap();
    let before = file(&bench);
    bench.run("check --repair").says(5, &["the queue file is damaged", "queuectl restore BACKUP"]);
    assert!(file(&bench) == before);
    assert!(!bench.queue().join("repair.tmp").exists());
}

#[test]
fn a_kill_at_any_moment_of_a_repair_loses_nothing() {
    const ROUNDS: u32 = 10;
    let bench = filled();
    let before = bench.json("list --json");
    let damage = || tamper(&bench, |txn| drop(txn.open_table(READY).unwrap().remove((1, 100, 70)).unwrap()));
    damage();
    let watch = Watch::start();
    bench.ok("check --repair");
    let whole = watch.elapsed();
    let mut repaired = 0;
    for n in 0..ROUNDS {
        damage();
        let mut process = bench.cmd(["check", "--repair"]).spawn();
        let over = std::sync::mpsc::channel::<()>();
        // Moments are what this is about: nothing tells when the interesting ones come.
        let _ = over.1.recv_timeout(whole * (n + 1) / (ROUNDS - 2));
        process.kill();
        process.wait();
        assert_eq!(bench.json("list --json"), before);
        match bench.run("check").code {
            0 => repaired += 1,
            5 => {}
            other => panic!("{other}"),
        }
    }
    println!("{repaired} of {ROUNDS} repairs got to their end; a whole one takes {whole:?}");
    damage();
    bench.ok("check --repair");
    bench.check();
    assert_eq!(bench.json("list --json"), before);
    assert!(!bench.queue().join("repair.tmp").exists());
}
