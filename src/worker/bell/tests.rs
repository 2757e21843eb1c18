//! What rings, what does not, and what is told first.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};

use tempfile::TempDir;

use super::*;

/// Longer than anything that must come may take on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A queue folder in a folder that it can be moved within, and its bell.
struct Queue {
    home: TempDir,
    bell: Bell,
}

impl Queue {
    fn new() -> Self {
        Self::with(Bell::new)
    }

    fn with(bell: impl FnOnce(&Path) -> io::Result<Bell>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("project/.queuectl");
        fs::create_dir_all(folder.join("run")).unwrap();
        fs::write(folder.join("queue.redb"), "queue").unwrap();
        let bell = bell(&folder).unwrap();
        Self { home, bell }
    }

    fn deaf() -> Self {
        Self::with(|folder| Bell::with_watches(folder, |_, _| Err(Errno::MFILE)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("project/.queuectl").join(name)
    }

    fn commit(&self) {
        append(&self.path("queue.redb"));
    }

    /// Waits for what must come.
    fn rings(&mut self) -> Ring {
        self.bell.wait(Some(PATIENCE)).unwrap()
    }

    /// What has come already: the kernel queues an event before the call that causes it returns.
    fn rang(&mut self) -> Ring {
        self.bell.wait(Some(Duration::ZERO)).unwrap()
    }
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

#[test]
fn a_commit_rings_once_whether_waited_for_or_not() {
    let mut queue = Queue::new();
    assert_eq!(queue.rang(), Ring::TimedOut);
    queue.commit();
    queue.commit();
    assert_eq!(queue.rings(), Ring::Changed);
    assert_eq!(queue.rang(), Ring::TimedOut);
    let path = queue.path("queue.redb");
    std::thread::scope(|scope| {
        scope.spawn(|| append(&path));
        assert_eq!(queue.rings(), Ring::Changed);
    });
    assert_eq!(queue.bell.is_deaf(), None);
}

#[test]
fn a_wait_ends_in_time() {
    let mut queue = Queue::new();
    let before = monotonic();
    assert_eq!(queue.bell.wait(Some(Duration::from_millis(5))).unwrap(), Ring::TimedOut);
    assert!(monotonic() >= before + Duration::from_millis(5));
    for long in [None, Some(Duration::MAX), Some(Duration::from_secs(u64::MAX / 4))] {
        queue.commit();
        assert_eq!(queue.bell.wait(long).unwrap(), Ring::Changed);
    }
}

#[test]
fn files_in_run_ring_when_closed_after_writing_or_deleted() {
    let mut queue = Queue::new();
    let mut file = File::create(queue.path("run/abc1")).unwrap();
    file.write_all(b"x").unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    drop(file);
    assert_eq!(queue.rings(), Ring::Changed);
    assert_eq!(queue.bell.take_closed(), ["abc1".parse().unwrap()].into());
    fs::rename(queue.path("run/abc1"), queue.path("run/abc2")).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    fs::remove_file(queue.path("run/abc2")).unwrap();
    assert_eq!(queue.rings(), Ring::Changed);
    assert_eq!(queue.bell.take_closed(), ["abc2".parse().unwrap()].into());
}

#[test]
fn other_files_ring_when_asked_for() {
    let mut queue = Queue::new();
    let output = queue.path("1.out");
    fs::write(&output, "").unwrap();
    append(&output);
    assert_eq!(queue.rang(), Ring::TimedOut);
    queue.bell.also_watch(&output).unwrap();
    append(&output);
    assert_eq!(queue.rings(), Ring::Changed);
    fs::remove_file(&output).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    assert_eq!(queue.bell.also_watch(&output).unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Each way to take the queue from where it was.
#[test]
fn a_queue_that_is_gone_says_so() {
    type Move = fn(&Queue);
    let moves: [(&str, Move); 6] = [
        ("renamed", |queue| fs::rename(queue.path("queue.redb"), queue.path("old.redb")).unwrap()),
        ("deleted", |queue| fs::remove_file(queue.path("queue.redb")).unwrap()),
        ("replaced", |queue| {
            fs::write(queue.path("new.redb"), "").unwrap();
            fs::rename(queue.path("new.redb"), queue.path("queue.redb")).unwrap();
        }),
        ("folder renamed", |queue| fs::rename(queue.path(""), queue.home.path().join("other")).unwrap()),
        ("folder deleted", |queue| fs::remove_dir_all(queue.path("")).unwrap()),
        ("run/ deleted", |queue| fs::remove_dir(queue.path("run")).unwrap()),
    ];
    for (what, gone) in moves {
        for held in [false, true] {
            let mut queue = Queue::new();
            let holder = held.then(|| File::open(queue.path("queue.redb")).unwrap());
            gone(&queue);
            assert_eq!(queue.rings(), Ring::Moved, "{what}, held: {held}");
            drop(holder);
        }
    }
}

#[test]
fn a_folder_moved_further_up_is_noticed_with_the_next_commit() {
    let mut queue = Queue::new();
    let elsewhere = queue.home.path().join("elsewhere");
    fs::rename(queue.home.path().join("project"), &elsewhere).unwrap();
    append(&elsewhere.join(".queuectl/queue.redb"));
    assert_eq!(queue.rings(), Ring::Moved);
}

#[test]
fn what_leaves_the_queue_in_its_place_is_no_move() {
    let mut queue = Queue::new();
    let (file, link) = (queue.path("queue.redb"), queue.path("link.redb"));
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    fs::hard_link(&file, &link).unwrap();
    fs::remove_file(&link).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    fs::rename(&file, &link).unwrap();
    fs::rename(&link, &file).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    fs::write(queue.path("other"), "").unwrap();
    fs::rename(queue.path("other"), queue.path("another")).unwrap();
    fs::remove_file(queue.path("another")).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut);
    queue.commit();
    assert_eq!(queue.rings(), Ring::Changed);
}

#[test]
fn a_waker_ends_a_wait_from_another_thread() {
    let mut queue = Queue::new();
    let waker = queue.bell.waker();
    std::thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        assert_eq!(queue.rings(), Ring::Woken);
    });
    assert_eq!(queue.rang(), Ring::TimedOut);
    let waker = queue.bell.waker();
    waker.wake();
    waker.clone().wake();
    assert_eq!(queue.rings(), Ring::Woken);
    assert_eq!(queue.rang(), Ring::TimedOut);
}

#[test]
fn the_gravest_is_told_first_and_nothing_is_forgotten() {
    let mut queue = Queue::new();
    queue.commit();
    queue.bell.waker().wake();
    assert_eq!(queue.rang(), Ring::Woken);
    queue.bell.pending.insert(Ring::ClockSet);
    fs::remove_file(queue.path("queue.redb")).unwrap();
    assert_eq!([(); 4].map(|()| queue.rang()), [Ring::Moved, Ring::ClockSet, Ring::Changed, Ring::TimedOut]);
}

#[test]
fn more_than_the_kernel_keeps_still_rings() {
    let mut queue = Queue::new();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim_end().parse().unwrap();
    // Neither of these rings by itself. They alternate, since the kernel merges an event with the same one
    // before it.
    for _ in 0..=limit / 2 {
        fs::set_permissions(queue.path("queue.redb"), Permissions::from_mode(0o600)).unwrap();
        drop(File::create(queue.path("other")).unwrap());
        fs::remove_file(queue.path("other")).unwrap();
    }
    assert_eq!(queue.rings(), Ring::Changed);
    fs::remove_file(queue.path("queue.redb")).unwrap();
    assert_eq!(queue.rings(), Ring::Moved);
}

#[test]
fn a_deaf_bell_has_the_queue_looked_at() {
    let mut queue = Queue::deaf();
    assert!(queue.bell.is_deaf().unwrap().contains("max_user_instances"));
    assert_eq!(queue.rang(), Ring::TimedOut);
    let before = monotonic();
    assert_eq!(queue.rings(), Ring::Changed);
    assert_eq!(queue.rings(), Ring::Changed);
    assert!(monotonic() >= before + LOOK_EVERY);
    queue.bell.also_watch(Path::new("/nowhere")).unwrap();
    queue.bell.waker().wake();
    assert_eq!(queue.rings(), Ring::Woken);
    fs::remove_file(queue.path("queue.redb")).unwrap();
    assert_eq!(queue.rings(), Ring::Moved);
}

#[test]
fn waits_shorter_than_its_looks_do_not_silence_a_deaf_bell() {
    let mut queue = Queue::deaf();
    let rings = std::iter::from_fn(|| Some(queue.bell.wait(Some(Duration::from_millis(1))).unwrap()));
    assert!(rings.take(1000).any(|ring| ring == Ring::Changed));
}

#[test]
fn only_what_is_used_up_makes_deaf() {
    let mut queue = Queue::new();
    queue.bell.go_deaf(Errno::NOSPC).unwrap();
    assert!(queue.bell.is_deaf().unwrap().contains("max_user_watches"));
    // What is watched already still rings at once.
    queue.commit();
    assert_eq!(queue.rang(), Ring::Changed);
    assert_eq!(queue.bell.go_deaf(Errno::ACCESS).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    let missing = Bell::new(Path::new("/nowhere/.queuectl"));
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_clock_that_nobody_sets_is_silent() {
    let queue = Queue::new();
    assert!(!queue.bell.clock_was_set().unwrap());
    arm(&queue.bell.clock).unwrap();
    assert!(!queue.bell.clock_was_set().unwrap());
}

#[test]
fn pages_that_are_written_before_a_commit_do_not_ring() {
    let mut queue = Queue::new();
    let file = OpenOptions::new().write(true).open(queue.path("queue.redb")).unwrap();
    // By the ones in its header readers go by the second slot, at byte 192.
    file.write_all_at(&[1; 4096], 0).unwrap();
    assert_eq!(queue.rings(), Ring::Changed);
    for at in [64, 4096] {
        file.write_all_at(b"a page, or the other slot", at).unwrap();
        assert_eq!(queue.rang(), Ring::TimedOut);
    }
    file.write_all_at(b"a commit", 192).unwrap();
    assert_eq!(queue.rings(), Ring::Changed);
    file.write_all_at(b"a commit", 192).unwrap();
    assert_eq!(queue.rang(), Ring::TimedOut, "as it was");
}
