//! `worker scale`: a pool grows and shrinks while it works.

use std::fs;

use serde_json::json;

use super::support::Bench;

/// The slots that jobs wrote to a file, in order.
fn slots(bench: &Bench, count: usize) -> Vec<String> {
    let mut slots = bench.until_lines("slots", count);
    slots.sort();
    slots
}

#[test]
fn a_pool_grows_and_shrinks_and_its_slots_stay() {
    let bench = Bench::new();
    let gate = bench.gate("gate");
    for _ in 0..3 {
        bench.enqueue("echo $QUEUECTL_SLOT >>slots; : <gate");
    }
    let pool = bench.pool("");
    assert_eq!(slots(&bench, 1), ["0"]);
    let said = bench.ok("worker scale 3");
    assert!(said.starts_with("✓ Pool ") && said.ends_with(": 3 workers, 1 before\n"), "{said}");
    assert_eq!(slots(&bench, 3), ["0", "1", "2"]);
    assert_eq!(bench.json("worker list --json")[0]["workers"], 3);
    assert!(bench.ok("worker scale 3").ends_with(": 3 workers, as before\n"));
    // What runs goes on, and is shown; nothing else starts on the workers that are too many.
    let scaled = bench.json("worker scale 1 --json");
    assert_eq!((&scaled["workers"], &scaled["workers_before"]), (&json!(1), &json!(3)));
    let workers = bench.json("status --json")["workers"].clone();
    assert_eq!(workers.as_array().unwrap().len(), 3, "{workers}");
    bench.open(&gate);
    for id in ["1", "2", "3"] {
        bench.until_state(id, "completed");
    }
    fs::remove_file(bench.file("slots")).unwrap();
    for _ in 0..20 {
        bench.enqueue("echo $QUEUECTL_SLOT >>slots");
    }
    assert_eq!(slots(&bench, 20), ["0"; 20]);
    // And again: a worker that has gone comes back.
    bench.ok("worker scale 2");
    let gate = bench.gate("second");
    fs::remove_file(bench.file("slots")).unwrap();
    for _ in 0..2 {
        bench.enqueue("echo $QUEUECTL_SLOT >>slots; : <second");
    }
    assert_eq!(slots(&bench, 2), ["0", "1"]);
    bench.open(&gate);
    bench.ok("worker stop");
    pool.wait().ok();
    bench.is_clean();
}

#[test]
fn of_several_pools_one_is_named() {
    let bench = Bench::new();
    bench.enqueue("true");
    bench.run("worker scale 2").says(3, &["no pool is running", "try: queuectl worker start"]);
    let first = bench.pool("");
    bench.run("worker scale 2 none").says(3, &["there is no pool none", "is running"]);
    let second = bench.pool("--count 2");
    bench.run("worker scale 4").says(2, &["say which pool: ", "try: queuectl worker scale 4 "]);
    let pools = bench.json("worker list --json");
    let two = pools.as_array().unwrap().iter().find(|pool| pool["workers"] == 2).unwrap()["id"].clone();
    let said = bench.ok(&format!("worker scale 4 {}", two.as_str().unwrap()));
    assert!(said.ends_with(": 4 workers, 2 before\n"), "{said}");
    bench.run("worker scale 0").says(2, &["a whole number from 1 to 4096"]);
    drop((first, second));
}
