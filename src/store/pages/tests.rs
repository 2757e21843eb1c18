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
use super::PAGE_BYTES;
use crate::model::*;

/// Answers to questions, in words; an error is the answer where there is one.
type Answers = BTreeMap<String, Result<String, StoreError>>;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A generator of numbers that is the same everywhere (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn spec(n: u64) -> JobSpec {
    let mut spec = JobSpec::new(Command::Shell(format!("echo job {n} of many").into()), "/srv/data");
    spec.id = (n % 3 == 0).then(|| format!("job-{n}").parse().unwrap());
    spec.start_at = (n % 11 == 0).then_some(Millis(1_000_000_000));
    spec.priority = (n % 3) as i8;
    spec.queue = if n % 5 == 0 { "gpu" } else { "default" }.parse().unwrap();
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
    let identity = NewRun { identity: 7, line: "queuectl run x".into(), folder: "/".into(), flags: String::new() };
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
        let some: Vec<JobId> = vec![JobId::from(Seq(batch * 100 + 99 - u64::from(batch * 100 % 3 == 0)))];
        let _ = other.write(now, |tx| tx.cancel(&some));
        other.write(now, |tx| tx.promote_due(30)).unwrap();
        if batch == jobs / 200 {
            older = fs::read(store.file()).unwrap();
        }
    }
    let in_run: Vec<JobSpec> = (0..60).map(|n| JobSpec { id: None, ..spec(n) }).collect();
    store.write(Millis(900_000), |tx| tx.start_run(&identity, &in_run, false)).unwrap();
    store.write(Millis(900_001), |tx| tx.set(SettingKey::Timeout, "1m")).unwrap();
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
    act("set", said(store.write(now, |tx| tx.set(SettingKey::Timeout, "2m"))));
    act("enqueue", said(store.write(now, |tx| tx.enqueue(&[spec(1), spec(999_999)]))));
    act("cancel", said(store.write(now, |tx| tx.cancel(&["job-99".parse().unwrap()]))));
    act("dead", said(store.write(now, |tx| tx.dead(10))));
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

impl Tally {
    fn compare(&mut self, damage: &str, sound: &Answers, found: Answers) {
        for (what, answer) in found {
            match answer {
                Err(StoreError::Damaged(_) | StoreError::NotAQueue(_)) => self.said += 1,
                // After the first word of damage a handle refuses the rest.
                Err(StoreError::Io(_)) => self.said += 1,
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

/// Opens a folder with these bytes as its queue file and does everything.
fn tried(dir: &Path, bytes: &[u8], jobs: u64, sound: &(Answers, Answers), damage: &str, tally: &mut Tally) {
    let file = dir.join("queue.redb");
    for acts in [false, true] {
        fs::write(&file, bytes).unwrap();
        match Store::open_read_only(dir, Box::new(|| {})) {
            Err(StoreError::Damaged(_) | StoreError::NotAQueue(_)) => tally.said += 1,
            Err(error) => tally.wrong.push(format!("{damage}: open: {error:?}")),
            Ok(store) if !acts => {
                tally.compare(damage, &sound.0, looked_at(&store, jobs));
                store.leave();
            }
            Ok(store) => {
                store.leave();
                match Store::open(dir, Box::new(|| {})) {
                    Ok(store) => {
                        tally.compare(damage, &sound.1, acted_on(&store));
                        store.leave();
                    }
                    Err(StoreError::Damaged(_)) => tally.said += 1,
                    Err(error) => tally.wrong.push(format!("{damage}: open: {error:?}")),
                }
            }
        }
    }
}

#[test]
fn whatever_page_is_damaged_no_answer_is_wrong() {
    let (jobs, seeds) = (number("DAMAGE_JOBS", 400), number("DAMAGE_SEEDS", 1));
    let (dir, older) = filled(jobs);
    let dir = dir.path();
    let whole = fs::read(dir.join("queue.redb")).unwrap();
    let looked = looked_at(&Store::open_read_only(dir, Box::new(|| {})).unwrap(), jobs);
    fs::write(dir.join("queue.redb"), &whole).unwrap();
    let sound = (looked, acted_on(&Store::open(dir, Box::new(|| {})).unwrap()));
    assert!(sound.0.values().all(Result::is_ok), "{:?}", sound.0);
    let pages = whole.len() / PAGE_BYTES as usize;
    let mut tally = Tally::default();
    for page in 0..pages {
        let at = page * PAGE_BYTES as usize..(page + 1) * PAGE_BYTES as usize;
        let mut damages = Vec::new();
        for seed in 0..seeds {
            let mut flipped = whole.clone();
            let mut numbers = Numbers(seed * 1_000_003 + page as u64);
            for _ in 0..64 {
                let bit = numbers.below(PAGE_BYTES as usize * 8);
                flipped[at.start + bit / 8] ^= 1 << (bit % 8);
            }
            damages.push((format!("page {page}, seed {seed}"), flipped));
        }
        if page > 0 {
            let mut zeroed = whole.clone();
            zeroed[at.clone()].fill(0);
            damages.push((format!("page {page}, zeroed"), zeroed));
            if let Some(was) = older.get(at.clone()) {
                let mut lost_write = whole.clone();
                lost_write[at].copy_from_slice(was);
                damages.push((format!("page {page}, an older version"), lost_write));
            }
        }
        for (damage, bytes) in damages.into_iter().filter(|(_, bytes)| *bytes != whole) {
            tried(dir, &bytes, jobs, &sound, &damage, &mut tally);
        }
    }
    println!("{pages} pages: {} answers right, {} said damaged, {} wrong", tally.right, tally.said, tally.wrong.len());
    assert!(tally.said > 0 && tally.right > 0);
    assert!(
        tally.wrong.is_empty(),
        "{} wrong, such as {:#?}",
        tally.wrong.len(),
        &tally.wrong[..tally.wrong.len().min(20)]
    );
}
