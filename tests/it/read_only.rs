//! A read-only file system: looking works, writing says why not.

use super::support::{Bench, with_mounts};

#[test]
fn looking_works_and_writing_says_why_not() {
    with_mounts(|| {
        let bench = Bench::on_small_disk("size=6m");
        bench.cmd(["enqueue", "-"]).stdin("echo hi\n".repeat(100)).run().ok();
        bench.work().ok();
        bench.disk().remount("ro");
        for line in [
            "status",
            "list --json",
            "show 1",
            "logs 1",
            "config list",
            "config get timeout",
            "dlq list",
            "worker list",
            "check",
            "wait --all --timeout 5s",
        ] {
            let done = bench.run(line);
            assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{line}: {done:?}");
        }
        assert_eq!(bench.ok("logs 1"), "hi\n");
        for line in [
            "enqueue -c true",
            "run -- true",
            "cancel 1",
            "retry 1",
            "config set timeout 1m",
            "worker start --until-empty",
            "worker stop",
            "compact",
        ] {
            let done = bench.run(line);
            assert_eq!((done.code, done.stdout.len()), (5, 0), "{line}: {done:?}");
            assert!(done.stderr.contains("Read-only file system"), "{line}: {done:?}");
        }
        bench.disk().remount("rw");
        bench.enqueue("true");
        bench.work().ok();
        bench.is_clean();
    });
}

#[test]
fn looking_needs_no_tidying() {
    with_mounts(|| {
        let bench = Bench::on_small_disk("size=6m");
        // Left as a process that exits leaves it, for the next writer to tidy up.
        bench.enqueue("true");
        bench.disk().remount("ro");
        for line in ["status", "list", "show 1", "check"] {
            bench.ok(line);
        }
        bench.run("enqueue -c true").says(5, &["queue.redb: the queue cannot be written: Read-only file system"]);
        bench.disk().remount("rw");
        assert_eq!(bench.state("1"), "pending");
        bench.check();
    });
}

#[test]
fn no_queue_can_be_made() {
    with_mounts(|| {
        let bench = Bench::on_small_disk("size=6m");
        bench.disk().remount("ro");
        for line in ["enqueue -c true", "run -- true", "config set timeout 1m"] {
            bench.run(line).says(5, &["cannot use the folder", "Read-only file system"]);
        }
        bench.run("status").says(3, &["there is no queue"]);
    });
}
