//! Boards that are whole, damaged and left behind; pools that live and die.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::model::{Lease, Millis, Outcome, Seq};
use crate::worker::bell::{Bell, Ring};

/// Longer than anything that must come may take on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with all that a bell watches.
fn queue_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("run")).unwrap();
    fs::write(folder.path().join("queue.redb"), "").unwrap();
    folder
}

fn slot(seq: u64, stage: Stage) -> Slot {
    Slot { seq: Seq(seq), lease: Lease(seq + 1000), attempt: 3, worker: 7, spool: 5, stage }
}

fn starting() -> Stage {
    Stage::Starting { at: Millis(1_700_000_000_000), boot_ticks: 12_345 }
}

fn running() -> Stage {
    Stage::Running { at: Millis(u64::MAX), boot_ticks: 1, born_by: u64::MAX, pid: u32::MAX }
}

fn ended(outcome: Outcome, exit_code: Option<i32>, signal: Option<i32>) -> Stage {
    Stage::Ended {
        at: Millis(5),
        ended: Millis(9),
        outcome,
        exit_code,
        signal,
        cpu: Duration::new(u64::MAX, 999_999_999),
        max_rss_bytes: 1 << 40,
        boot_ticks: 77,
        born_by: 78,
        pid: 4_194_304,
    }
}

/// One of every stage and outcome.
fn every_slot() -> Vec<Slot> {
    let mut stages = vec![starting(), running()];
    for outcome in Outcome::ALL {
        for (code, signal) in [(None, None), (Some(0), None), (None, Some(9)), (Some(i32::MIN), Some(i32::MAX))] {
            stages.push(ended(outcome, code, signal));
        }
    }
    (0..).zip(stages).map(|(seq, stage)| slot(seq, stage)).collect()
}

/// A small board, and what a peer reads of it.
fn small_board(run: &Path) -> (PoolFile, Board) {
    let pool = PoolFile::create(run, 3).unwrap();
    let slots = vec![slot(1, starting()), slot(2, running()), slot(3, ended(Outcome::Failed, Some(2), None))];
    for (index, slot) in slots.iter().enumerate() {
        pool.write(index, slot).unwrap();
    }
    let board = Board { identity: pool.identity().clone(), slots };
    (pool, board)
}

#[test]
fn a_peer_reads_what_was_written() {
    let run = tempfile::tempdir().unwrap();
    let slots = every_slot();
    let pool = PoolFile::create(run.path(), slots.len()).unwrap();
    for (index, slot) in slots.iter().enumerate() {
        pool.write(index, slot).unwrap();
    }
    let board = read(&pool.path).unwrap().unwrap();
    assert_eq!(board, Board { identity: pool.identity().clone(), slots });
}

#[test]
fn a_place_is_overwritten() {
    let run = tempfile::tempdir().unwrap();
    let pool = PoolFile::create(run.path(), 2).unwrap();
    let slots = || read(&pool.path).unwrap().unwrap().slots;
    assert_eq!(slots(), []);
    pool.write(1, &slot(1, starting())).unwrap();
    pool.write(1, &slot(1, running())).unwrap();
    assert_eq!(slots(), [slot(1, running())]);
}

#[test]
fn a_board_grows_past_its_end_up_to_what_readers_read() {
    let run = tempfile::tempdir().unwrap();
    let pool = PoolFile::create(run.path(), 0).unwrap();
    assert_eq!(pool.file.metadata().unwrap().len(), SLOTS_AT_BYTES);
    pool.write(SLOTS_MAX - 1, &slot(1, running())).unwrap();
    assert_eq!(read(&pool.path).unwrap().unwrap().slots, [slot(1, running())]);
    assert_eq!(pool.write(SLOTS_MAX, &slot(1, running())).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn threads_write_their_places_at_once() {
    const EACH: usize = 50;
    let run = tempfile::tempdir().unwrap();
    let pool = PoolFile::create(run.path(), 8 * EACH).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for index in thread * EACH..(thread + 1) * EACH {
                    pool.write(index, &slot(index as u64, starting())).unwrap();
                    pool.write(index, &slot(index as u64, running())).unwrap();
                }
            });
        }
    });
    let expected: Vec<Slot> = (0..8 * EACH as u64).map(|seq| slot(seq, running())).collect();
    assert_eq!(read(&pool.path).unwrap().unwrap().slots, expected);
}

#[test]
fn a_damaged_byte_costs_at_most_its_record() {
    let run = tempfile::tempdir().unwrap();
    let (pool, whole) = small_board(run.path());
    for (at, byte) in (0..).zip(fs::read(&pool.path).unwrap()) {
        pool.file.write_all_at(&[byte ^ 0x41], at).unwrap();
        let board = read(&pool.path);
        pool.file.write_all_at(&[byte], at).unwrap();
        if at < RECORD_BYTES as u64 {
            assert_eq!(board.unwrap_err().kind(), io::ErrorKind::InvalidData);
            continue;
        }
        let mut expected = whole.clone();
        if let Some(at) = at.checked_sub(SLOTS_AT_BYTES) {
            expected.slots.remove(usize::try_from(at).unwrap() / RECORD_BYTES);
        }
        assert_eq!(board.unwrap().unwrap(), expected);
    }
}

#[test]
fn a_short_file_has_the_slots_that_are_whole() {
    let run = tempfile::tempdir().unwrap();
    let (pool, whole) = small_board(run.path());
    for len in (0..pool.file.metadata().unwrap().len()).rev() {
        pool.file.set_len(len).unwrap();
        match read(&pool.path) {
            Err(error) => assert!(error.kind() == io::ErrorKind::InvalidData && len < RECORD_BYTES as u64),
            Ok(board) => {
                let slots = usize::try_from(len.saturating_sub(SLOTS_AT_BYTES)).unwrap() / RECORD_BYTES;
                assert_eq!(board.unwrap().slots, whole.slots[..slots]);
            }
        }
    }
}

/// A checksum may be right over nonsense.
#[test]
fn nonsense_with_a_right_checksum_is_no_slot() {
    let seal = |mut record: [u8; RECORD_BYTES]| {
        let checksum = crc32fast::hash(&record[..RECORD_BYTES - 4]);
        record[RECORD_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        record
    };
    for slot in every_slot() {
        let record = slot.encode();
        for at in 0..RECORD_BYTES - 4 {
            for value in [0, 1, 2, 3, 4, 0x7f, 0xff] {
                let mut record = record;
                record[at] = value;
                // Another slot or none: it has only to return.
                let _ = Slot::decode(&seal(record));
                let _ = Identity::decode(&seal(record));
            }
        }
        let mut other_version = record;
        other_version[0] = 2;
        assert_eq!(Slot::decode(&seal(other_version)), None);
        let mut other_stage = record;
        other_stage[29] = 4;
        assert_eq!(Slot::decode(&seal(other_stage)), None);
    }
    assert_eq!(Slot::decode(&seal([0xff; RECORD_BYTES])), None);
    assert_eq!(Slot::decode(&[0; RECORD_BYTES]), None);
}

#[test]
fn a_file_is_private_and_does_not_go_to_children() {
    let run = tempfile::tempdir().unwrap();
    let pool = PoolFile::create(run.path(), 1).unwrap();
    assert_eq!(pool.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(rustix::io::fcntl_getfd(&pool.file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(names_in(run.path()), [pool.id().as_str()]);
}

fn names_in(run: &Path) -> Vec<String> {
    fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_taken_name_is_tried_again() {
    let run = tempfile::tempdir().unwrap();
    fs::write(run.path().join("aaa1"), "somebody's").unwrap();
    let mut names = ["aaa1", "aaa1", "bbb2"].into_iter();
    let pool = PoolFile::create_named(run.path(), 8192, Identity::of_this_process().unwrap(), || {
        Ok(names.next().unwrap().parse().unwrap())
    })
    .unwrap();
    assert_eq!(pool.id().as_str(), "bbb2");
    assert_eq!(fs::read_to_string(run.path().join("aaa1")).unwrap(), "somebody's");
    assert_eq!(names_in(run.path()).len(), 2);

    let none_free =
        PoolFile::create_named(run.path(), 8192, Identity::of_this_process().unwrap(), || Ok("bbb2".parse().unwrap()));
    assert_eq!(none_free.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(names_in(run.path()).len(), 2);
}

#[test]
fn renaming_takes_no_name_and_misses_none() {
    let run = tempfile::tempdir().unwrap();
    let at = |name: &str| run.path().join(name);
    for rename in [rename_unless_taken, link_unless_taken] {
        fs::write(at("new"), "new").unwrap();
        fs::write(at("taken"), "taken").unwrap();
        assert!(!rename(&at("new"), &at("taken")).unwrap());
        assert_eq!(fs::read_to_string(at("taken")).unwrap(), "taken");
        assert!(rename(&at("new"), &at("free")).unwrap());
        assert_eq!(fs::read_to_string(at("free")).unwrap(), "new");
        // What somebody swept away.
        assert!(!rename(&at("new"), &at("other")).unwrap());
        fs::remove_file(at("free")).unwrap();
    }
}

#[test]
fn a_file_that_is_no_longer_there_is_noticed() {
    let run = tempfile::tempdir().unwrap();
    let path = run.path().join("aaa1");
    let file = File::create(&path).unwrap();
    assert!(is_at(&file, &path).unwrap());
    fs::rename(&path, run.path().join("old")).unwrap();
    assert!(!is_at(&file, &path).unwrap());
    fs::write(&path, "").unwrap();
    assert!(!is_at(&file, &path).unwrap());
}

#[test]
fn pools_have_names_of_their_own() {
    for _ in 0..1000 {
        let name = random_name().unwrap();
        assert_eq!(pool_name(OsStr::new(name.as_str())), Some(name));
    }
    for no_pool in ["turn", "1ab2", "ab1", "abcd1", "aB12", "a.b1", ".new-0123456789abcdef", ""] {
        assert_eq!(pool_name(OsStr::new(no_pool)), None, "{no_pool}");
    }
}

#[test]
fn identities_differ_by_their_nonce() {
    let [a, b] = [(); 2].map(|()| Identity::of_this_process().unwrap());
    assert_ne!(a.nonce, b.nonce);
    assert!(a.shares_pids_with(&b));
    assert_eq!(Identity { nonce: b.nonce, ..a }, b);
    let elsewhere = Identity { pid_namespace: 1, ..b.clone() };
    assert!(!b.shares_pids_with(&elsewhere));
    assert_eq!(Identity::decode(&b.encode()), Some(b));
}

#[test]
fn a_pool_lives_until_its_file_is_removed() {
    let run = tempfile::tempdir().unwrap();
    let pool = PoolFile::create(run.path(), 1).unwrap();
    let path = pool.path.clone();
    assert_eq!(probe(&path).unwrap(), Life::Alive);
    // Neither looking at the board nor asking takes the lock or lets it go.
    read(&path).unwrap().unwrap();
    assert_eq!(probe_after_close(&path).unwrap(), Life::Alive);
    assert_eq!(probe(&path).unwrap(), Life::Alive);
    pool.remove().unwrap();
    assert_eq!(probe(&path).unwrap(), Life::Dead);
    assert_eq!(probe_after_close(&path).unwrap(), Life::Dead);
    assert_eq!(read(&path).unwrap(), None);
}

#[test]
fn removing_what_is_gone_is_no_error() {
    let run = tempfile::tempdir().unwrap();
    let pool = PoolFile::create(run.path(), 1).unwrap();
    fs::remove_file(&pool.path).unwrap();
    pool.remove().unwrap();
}

#[test]
fn whoever_only_looks_rings_no_bell() {
    let folder = queue_folder();
    let pool = PoolFile::create(&folder.path().join("run"), 1).unwrap();
    let mut bell = Bell::new(folder.path()).unwrap();
    pool.write(0, &slot(1, starting())).unwrap();
    pool.write(5, &slot(2, running())).unwrap();
    read(&pool.path).unwrap().unwrap();
    assert_eq!(probe(&pool.path).unwrap(), Life::Alive);
    assert_eq!(bell.wait(Some(Duration::ZERO)).unwrap(), Ring::TimedOut);
    assert!(bell.take_closed().is_empty());
}

#[test]
fn an_orderly_end_rings() {
    let folder = queue_folder();
    let pool = PoolFile::create(&folder.path().join("run"), 1).unwrap();
    let id = pool.id().clone();
    let mut bell = Bell::new(folder.path()).unwrap();
    pool.remove().unwrap();
    assert_eq!(bell.wait(Some(PATIENCE)).unwrap(), Ring::Changed);
    assert!(bell.take_closed().contains(&id));
    assert!(bell.take_closed().is_empty());
}

/// A pool in a process of its own, which lives until it is killed or this value is dropped.
struct PoolProcess {
    child: Child,
    id: PoolId,
}

const RUN_FOLDER: &str = "QUEUECTL_TEST_RUN_FOLDER";

impl PoolProcess {
    #[allow(clippy::disallowed_methods, reason = "no queue file is open here")]
    fn start(run: &Path) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "worker::board::tests::the_pool_process"])
            .env(RUN_FOLDER, run)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut name = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut name).unwrap();
        Self { child, id: name.trim_end().parse().unwrap() }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "what a PoolProcess runs"]
fn the_pool_process() {
    let Some(run) = std::env::var_os(RUN_FOLDER) else { return };
    let pool = PoolFile::create(Path::new(&run), 2).unwrap();
    pool.write(1, &slot(42, running())).unwrap();
    writeln!(io::stderr(), "{}", pool.id()).unwrap();
    // Ends with the test that started it, which never writes.
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_killed_pool_rings_is_dead_and_leaves_its_board() {
    let folder = queue_folder();
    let run = folder.path().join("run");
    let pool = PoolProcess::start(&run);
    let (id, pid) = (pool.id.clone(), pool.child.id());
    let path = run.join(id.as_str());
    let mut bell = Bell::new(folder.path()).unwrap();
    assert_eq!(probe(&path).unwrap(), Life::Alive);
    pool.kill();
    assert_eq!(bell.wait(Some(PATIENCE)).unwrap(), Ring::Changed);
    assert_eq!(bell.take_closed(), [id].into());
    assert_eq!(probe(&path).unwrap(), Life::Dead);
    let board = read(&path).unwrap().unwrap();
    assert_eq!(board.identity.pid, pid);
    assert_eq!(board.slots, [slot(42, running())]);
}

/// The bell may ring before the killer has seen the death.
#[test]
fn the_first_ring_of_a_death_is_enough() {
    let folder = queue_folder();
    let run = folder.path().join("run");
    for _ in 0..20 {
        let mut pool = PoolProcess::start(&run);
        let mut bell = Bell::new(folder.path()).unwrap();
        pool.child.kill().unwrap();
        assert_eq!(bell.wait(Some(PATIENCE)).unwrap(), Ring::Changed);
        assert_eq!(probe_after_close(&run.join(pool.id.as_str())).unwrap(), Life::Dead);
        pool.child.wait().unwrap();
    }
}
