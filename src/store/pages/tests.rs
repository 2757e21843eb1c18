//! A queue file damaged in every page in turn: whatever is asked, the answer is the right one, or that the file is
//! damaged.
//!
//! `DAMAGE_JOBS=3000 DAMAGE_SEEDS=10 cargo test --release --lib store::pages -- --nocapture` looks for longer.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::{env, fs};

use tempfile::TempDir;

use super::super::tests::{pool, ran, temp_queue};
use super::super::*;
use crate::model::*;
use crate::sim::choices::Choices;

/// Bytes of a page.
const PAGE: usize = 4096;

/// Answers to questions, in words; an error is the answer where there is one.
type Answers = BTreeMap<String, Result<String, StoreError>>;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn spec(n: u64) -> JobSpec {
    let mut spec = JobSpec::new(Command::Shell(format!("echo job {n} of many").into()), "/srv/data");
    spec.id = n.is_multiple_of(3).then(|| format!("job-{n}").parse().unwrap());
    spec.start = if n.is_multiple_of(11) { Start::At(Millis(1_000_000_000)) } else { Start::Now };
    spec.priority = (n % 3) as i8;
    spec.queue = if n.is_multiple_of(5) { "gpu" } else { "default" }.parse().unwrap();
    let env = [(b"HOME".to_vec(), b"/root".to_vec()), (b"BATCH".to_vec(), vec![b'x'; 40 + (n / 100) as usize])];
    spec.env = std::sync::Arc::new(env.into());
    spec
}

/// A queue with jobs in all states that there are commands for, and with a history. Written by two handles in turn,
/// as by two processes. Also what the file was in the middle of it.
fn filled(jobs: u64) -> (TempDir, Vec<u8>) {
    let (dir, store) = temp_queue();
    let other = Store::open(dir.path(), Box::new(|| {})).unwrap();
    let info = pool("p1");
    store.write(Millis(1), |tx| tx.register(&info)).unwrap();
    let identity = NewRun {
        identity: 7,
        line: "queuectl run x".into(),
        folder: "/".into(),
        flags: String::new(),
        is_command: false,
        resumes: false,
    };
    let mut cache = ClaimCache::default();
    let mut older = Vec::new();
    for batch in 0..jobs / 100 {
        let specs: Vec<JobSpec> = (batch * 100..batch * 100 + 100).map(spec).collect();
        let now = Millis(10 + batch * 1_000);
        other.write(now, |tx| tx.enqueue(&specs)).unwrap();
        let claims = store.write(now, |tx| tx.claim(&info.id, &Serves::AllQueues, 60, &mut cache)).unwrap();
        // The last batch's stay claimed.
        for (n, claim) in claims.iter().enumerate().filter(|_| batch + 1 < jobs / 100) {
            let outcome = [Outcome::Completed, Outcome::Failed, Outcome::Interrupted, Outcome::TimedOut][n % 4];
            store.write(now, |tx| tx.finish(&claim.token, &ran(outcome, now.0))).unwrap();
        }
        let some: Vec<JobId> = vec![JobId::from(Seq(batch * 100 + 99 - u64::from((batch * 100).is_multiple_of(3))))];
        let _ = other.write(now, |tx| tx.cancel(&some));
        other.write(now, |tx| tx.promote_due(30)).unwrap();
        if batch == jobs / 200 {
            older = fs::read(store.file()).unwrap();
        }
    }
    let in_run: Vec<JobSpec> = (0..60).map(|n| JobSpec { id: None, ..spec(n) }).collect();
    store.write(Millis(900_000), |tx| tx.start_run(&identity, &in_run, false)).unwrap();
    store.write(Millis(900_001), |tx| tx.set(None, SettingKey::Timeout, "1m")).unwrap();
    other.leave();
    store.leave();
    (dir, older)
}

fn said<T: Debug>(answer: Result<T, StoreError>) -> Result<String, StoreError> {
    answer.map(|answer| format!("{answer:?}"))
}

/// Everything that can be asked, each on a snapshot of its own.
fn looked_at(store: &Store, jobs: u64) -> Answers {
    let mut answers = Answers::new();
    let mut ask = |what: String, answer| assert!(answers.insert(what, answer).is_none());
    ask("counts".into(), said(store.read(Snapshot::counts)));
    ask("pools".into(), said(store.read(Snapshot::pools)));
    ask("runs".into(), said(store.read(Snapshot::unfinished_runs)));
    ask("due".into(), said(store.read(Snapshot::next_due)));
    ask("settings".into(), said(store.read(|snapshot| snapshot.settings_of("gpu"))));
    ask("left".into(), said(store.read(|snapshot| snapshot.unfinished(&Serves::AllQueues))));
    ask("leases".into(), said(store.read(|snapshot| snapshot.leases(&"p1".parse().unwrap()))));
    for state in StateKind::ALL.map(Some).into_iter().chain([None]) {
        ask(format!("list {state:?}"), said(store.read(|snapshot| all(snapshot, state))));
    }
    for n in (0..jobs).step_by(7) {
        for id in [format!("job-{n}"), n.to_string()] {
            ask(format!("show {id}"), said(store.read(|snapshot| shown(snapshot, &id.parse().unwrap()))));
        }
    }
    answers
}

fn all(snapshot: &Snapshot, state: Option<StateKind>) -> Result<Vec<Job>, StoreError> {
    let (mut jobs, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = cursor {
        let page = snapshot.page(state, &from, 200)?;
        jobs.extend(page.jobs);
        cursor = page.next;
    }
    Ok(jobs)
}

fn shown(snapshot: &Snapshot, id: &JobId) -> Result<impl Debug + use<>, StoreError> {
    let Some(seq) = snapshot.find(id)? else { return Ok(None) };
    let attempts = snapshot.attempts(seq)?;
    let outputs: Result<Vec<_>, _> =
        attempts.iter().map(|attempt| snapshot.output(seq, attempt.number, Stream::Stdout)).collect();
    Ok(Some((snapshot.job(seq)?, attempts, outputs?)))
}

/// Everything that can be done, each on what the one before it left.
fn acted_on(store: &Store) -> Answers {
    let now = Millis(2_000_000);
    let mut answers = Answers::new();
    let mut act = |what: &str, answer| assert!(answers.insert(what.into(), answer).is_none());
    act("set", said(store.write(now, |tx| tx.set(None, SettingKey::Timeout, "2m"))));
    act("enqueue", said(store.write(now, |tx| tx.enqueue(&[spec(1), spec(999_999)]))));
    act("cancel", said(store.write(now, |tx| tx.cancel(&["job-99".parse().unwrap()]))));
    let seqs: Vec<Seq> = (1..100).map(Seq).collect();
    act("dead", said(store.write(now, |tx| tx.still_in(&seqs, &[StateKind::Dead].into()))));
    act("promote", said(store.write(now, |tx| tx.promote_due(20))));
    let pool = "p1".parse().unwrap();
    let claims = store.write(now, |tx| tx.claim(&pool, &Serves::AllQueues, 20, &mut ClaimCache::default()));
    if let Ok(claims) = &claims {
        let done = store.write(now, |tx| {
            claims
                .iter()
                .map(|claim| tx.finish(&claim.token, &ran(Outcome::Completed, now.0)))
                .collect::<Result<Vec<_>, _>>()
        });
        act("finish", said(done));
    }
    act("claim", said(claims));
    answers
}

/// What came of one damage.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    said: usize,
    wrong: Vec<String>,
}

/// The queue file of a test, with the right answers.
struct Sound {
    dir: TempDir,
    jobs: u64,
    whole: Vec<u8>,
    /// What the file was in the middle of its life.
    older: Vec<u8>,
    looked: Answers,
    acted: Answers,
}

impl Tally {
    fn compare(&mut self, damage: &str, sound: &Answers, found: Answers) {
        for (what, answer) in found {
            match answer {
                // After the first word of damage a handle refuses the rest.
                Err(StoreError::Damaged(_) | StoreError::NotAQueue(_) | StoreError::Io(_)) => self.said += 1,
                answer => {
                    // What another step did before it may have been refused for the damage.
                    let right = sound.get(&what).is_some_and(|right| format!("{right:?}") == format!("{answer:?}"));
                    if right {
                        self.right += 1;
                    } else {
                        self.wrong.push(format!("{damage}: {what}: {answer:?}"));
                    }
                }
            }
        }
    }
}

impl Tally {
    /// Nothing was wrong, and there was something to see.
    fn is_clean(&self, what: &str) {
        let Self { right, said, wrong } = self;
        println!("{what}: {right} answers right, {said} times said to be damaged, {} wrong", wrong.len());
        assert!(*said > 0);
        assert!(wrong.is_empty(), "{} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    }
}

impl Sound {
    fn new(jobs: u64) -> Self {
        let (dir, older) = filled(jobs);
        let whole = fs::read(dir.path().join("queue.redb")).unwrap();
        let mut sound = Self { dir, jobs, whole, older, looked: Answers::new(), acted: Answers::new() };
        sound.looked = looked_at(&Store::open_read_only(sound.path(), Box::new(|| {})).unwrap(), jobs);
        sound.acted = acted_on(&Store::open(sound.path(), Box::new(|| {})).unwrap());
        assert!(sound.looked.values().chain(sound.acted.values()).all(Result::is_ok));
        sound
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Does everything with these bytes as the queue file.
    fn try_with(&self, bytes: &[u8], damage: &str, tally: &mut Tally) {
        let file = self.path().join("queue.redb");
        let before = tally.said;
        fs::write(&file, bytes).unwrap();
        match Store::open_read_only(self.path(), Box::new(|| {})) {
            Ok(store) => tally.compare(damage, &self.looked, looked_at(&store, self.jobs)),
            Err(StoreError::Damaged(_) | StoreError::NotAQueue(_)) => tally.said += 1,
            Err(error) => tally.wrong.push(format!("{damage}: open to look: {error:?}")),
        }
        let was_met = tally.said > before;
        match Store::check(self.path(), Box::new(|| {})) {
            Ok(report) if was_met && report.found == 0 => tally.wrong.push(format!("{damage}: check finds nothing")),
            Ok(_) | Err(StoreError::Damaged(_) | StoreError::NotAQueue(_)) => {}
            Err(error) => tally.wrong.push(format!("{damage}: check: {error:?}")),
        }
        if fs::read(&file).unwrap() != bytes {
            tally.wrong.push(format!("{damage}: looking changed the file"));
        }
        match Store::open(self.path(), Box::new(|| {})) {
            Ok(store) => {
                tally.compare(damage, &self.acted, acted_on(&store));
                store.leave();
            }
            Err(StoreError::Damaged(_) | StoreError::NotAQueue(_)) => tally.said += 1,
            Err(error) => tally.wrong.push(format!("{damage}: open to act: {error:?}")),
        }
    }
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn whatever_page_is_damaged_no_answer_is_wrong() {
    let sound = Sound::new(number("DAMAGE_JOBS", 200));
    let pages = sound.whole.len() / PAGE;
    let mut tally = Tally::default();
    for page in 0..pages {
        let at = page * PAGE..(page + 1) * PAGE;
        let mut damages = Vec::new();
        for seed in 0..number("DAMAGE_SEEDS", 1) {
            let mut flipped = sound.whole.clone();
            let mut numbers = Choices::seeded(seed * 1_000_003 + page as u64);
            (0..64).for_each(|_| flip(&mut flipped[at.clone()], numbers.index(PAGE * 8)));
            damages.push((format!("page {page}, seed {seed}"), flipped));
        }
        // Of the header, an older version is an older queue.
        if page > 0 {
            let mut zeroed = sound.whole.clone();
            zeroed[at.clone()].fill(0);
            damages.push((format!("page {page}, zeroed"), zeroed));
            if let Some(was) = sound.older.get(at.clone()) {
                let mut lost_write = sound.whole.clone();
                lost_write[at].copy_from_slice(was);
                damages.push((format!("page {page}, an older version"), lost_write));
            }
        }
        for (damage, bytes) in damages.into_iter().filter(|(_, bytes)| *bytes != sound.whole) {
            sound.try_with(&bytes, &damage, &mut tally);
        }
    }
    assert!(tally.right > 0);
    tally.is_clean(&format!("{pages} pages"));
}

#[test]
fn of_all_bits_of_the_header_two_can_hide() {
    let sound = Sound::new(100);
    let step = usize::try_from(number("HEADER_STEP", 7)).unwrap();
    let mut tally = Tally::default();
    // Which slot is the primary one, and whether it has been flushed: no checksum is over them.
    let hidden = [9 * 8, 9 * 8 + 3];
    for bit in (0..super::HEADER_BYTES * 8).step_by(step).filter(|bit| !hidden.contains(bit)) {
        let mut flipped = sound.whole.clone();
        flip(&mut flipped, bit);
        sound.try_with(&flipped, &format!("bit {bit} of the header"), &mut tally);
    }
    tally.is_clean("the header");
}

#[test]
fn a_file_that_was_cut_or_grew_is_refused_or_whole() {
    let sound = Sound::new(100);
    let mut tally = Tally::default();
    let length = sound.whole.len();
    let pages = (0..length).step_by(PAGE);
    for cut in pages.flat_map(|at| [at, at + 1, at + 319, at + 2_048, at + 4_095]).filter(|cut| *cut < length) {
        let before = tally.right;
        sound.try_with(&sound.whole[..cut], &format!("cut to {cut} bytes"), &mut tally);
        assert_eq!(tally.right, before, "cut to {cut} of {length} bytes");
    }
    for tail in [1, 512, 4_095, 4_096, 40_960, 100_000] {
        let longer = [sound.whole.as_slice(), &vec![0xa5; tail]].concat();
        sound.try_with(&longer, &format!("{tail} bytes longer"), &mut tally);
    }
    tally.is_clean("lengths");
}

#[test]
fn a_snapshot_keeps_writers_from_the_pages_that_are_looked_at() {
    use std::os::unix::fs::FileExt;

    let sound = Sound::new(400);
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    fs::write(dir.path().join("queue.redb"), &sound.whole).unwrap();
    let writer = Store::open(dir.path(), Box::new(|| {})).unwrap();
    let reader = Store::open_read_only(dir.path(), Box::new(|| {})).unwrap();
    let file = fs::File::open(writer.file()).unwrap();
    let mut n = 10_000;
    // Others commit between any two reads.
    let mut look = || {
        super::damaged_at_a_look(|page, offset| {
            n += 1;
            writer.write(Millis(n), |tx| tx.enqueue(&[spec(n)])).unwrap();
            file.read_exact_at(page, offset)
        })
        .unwrap()
    };
    assert!(!look().is_empty(), "without a snapshot pages are given to other content meanwhile");
    let found = reader.read(|_| Ok(look())).unwrap();
    assert!(found.is_empty(), "{found:?}");
}
