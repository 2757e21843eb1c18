//! The queue file under `kill -9` and SIGSTOP: processes of this very binary write to one queue on a real disk,
//! each noting what was acknowledged to it, while the parent kills and stops them at random moments. Afterwards
//! the notes are compared with the file.
//!
//! `STORM_KILLS` says how many kills, `STORM_SEED` which ones. The parent never has the file open while it starts
//! a child: until its exec a forked child would share the locks.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::disallowed_methods, reason = "the parent does not hold the file; deadlines only bound a failing test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use queuectl::model::{
    Command as JobCommand, Ending, JobId, JobSpec, Kept, Millis, Outcome, Output, PoolId, Run, Seq, StateKind, Stream,
};
use queuectl::store::{
    Asked, Cancelled, Claim, ClaimCache, OnWait, PoolInfo, Serves, Snapshot, Store, StoreError, Token, Tx,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[path = "support/random.rs"]
mod random;

use random::{Random, number};

/// Processes at work at a time.
const CHILDREN: usize = 3;
/// How many of the dead a worker looks after: those before them have been seen to by others.
const LATELY: usize = 16;
/// Longer than anything here may take, short enough to wait for.
const FAILED_AFTER: Duration = Duration::from_secs(30);

// ---- the children

/// What a child does, by the environment that its parent gives it.
#[test]
#[ignore = "the other tests here start it"]
fn child() {
    let Ok(role) = std::env::var("STORM_ROLE") else { return };
    let folder = PathBuf::from(std::env::var("STORM_FOLDER").unwrap());
    let name = std::env::var("STORM_NAME").unwrap();
    match role.as_str() {
        "worker" => Worker::start(&folder, &name, number("STORM_SEED", 0)).work(),
        "holder" => hold(&folder),
        "writer" => write_once(&Store::open(&folder, on_wait()).unwrap(), &name),
        "reader" => read_once(&folder),
        "creator" => write_once(&Store::open_or_create(&folder, on_wait()).unwrap().0, &name),
        other => panic!("no role {other}"),
    }
}

/// Tells the parent, in one write.
fn say(what: &str) {
    // A parent that is gone reads nothing; then stdin has ended, too.
    let _ = std::io::stderr().write_all(format!("storm {what}\n").as_bytes());
}

fn on_wait() -> OnWait {
    Box::new(|| say("waiting"))
}

fn job(id: &str) -> JobSpec {
    JobSpec {
        id: Some(id.parse().unwrap()),
        max_retries: Some(1),
        backoff_base: Some(0.0),
        ..JobSpec::new(JobCommand::Shell(b"true".to_vec()), "/")
    }
}

fn write_once(store: &Store, id: &str) {
    store.write(Millis(1), |tx| tx.enqueue(&[job(id)])).unwrap();
    say("done");
}

/// Stays inside a transaction until its stdin says more.
fn hold(folder: &Path) {
    let store = Store::open(folder, on_wait()).unwrap();
    let held = store.write(Millis(1), |tx| {
        tx.enqueue(&[job("held")])?;
        say("inside");
        std::io::stdin().read_exact(&mut [0])?;
        Ok(())
    });
    held.unwrap();
    say("done");
}

fn read_once(folder: &Path) {
    let store = Store::open_read_only(folder, on_wait()).unwrap();
    let found = store.read(|snapshot| snapshot.find(&"before".parse().unwrap())).unwrap();
    assert!(found.is_some());
    say("done");
}

/// A pool in miniature, with people around it.
struct Worker {
    name: String,
    folder: PathBuf,
    store: Store,
    log: File,
    stop: Arc<AtomicBool>,
    random: Random,
    pool: PoolId,
    cache: ClaimCache,
    held: Vec<Claim>,
    used: Vec<Token>,
    enqueued: u64,
    recovered: BTreeSet<String>,
}

impl Worker {
    fn start(folder: &Path, name: &str, seed: u64) -> Self {
        let store = Store::open(folder, on_wait()).unwrap();
        let log = File::options().append(true).create(true).open(log_of(folder, name)).unwrap();
        let worker = Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            store,
            log,
            stop: until_stdin_ends(),
            random: Random(seed),
            pool: name.parse().unwrap(),
            cache: ClaimCache::default(),
            held: Vec::new(),
            used: Vec::new(),
            enqueued: 0,
            recovered: BTreeSet::new(),
        };
        let info = pool_info(&worker.pool);
        assert!(worker.store.write(Millis(1), |tx| tx.register(&info)).unwrap());
        worker
    }

    fn work(mut self) {
        say("ready");
        while !self.stop.load(Ordering::Relaxed) {
            match self.random.below(100) {
                0..30 => self.enqueue(),
                30..55 => self.claim(),
                55..85 => self.finish(),
                85..95 => self.cancel(),
                _ => self.recover(),
            }
            say("moved");
        }
        self.end();
    }

    /// Each with a time of its own: the store sees to it that time does not go back.
    fn write<T>(&mut self, change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let now = Millis(self.random.below(1_000_000));
        self.store.write(now, change)
    }

    /// Notes what was acknowledged.
    fn note(&mut self, line: &str) {
        self.log.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn enqueue(&mut self) {
        let ids: Vec<String> =
            (0..=self.random.below(3)).map(|n| format!("{}-{}", self.name, self.enqueued + n)).collect();
        self.enqueued += ids.len() as u64;
        let specs: Vec<JobSpec> = ids.iter().map(|id| job(id)).collect();
        let jobs = self.write(|tx| tx.enqueue(&specs)).unwrap();
        let jobs: Vec<String> = jobs.iter().map(|job| format!("{}={}", job.id, job.seq.0)).collect();
        self.note(&format!("enqueued {}", jobs.join(" ")));
    }

    fn claim(&mut self) {
        let (pool, limit) = (self.pool.clone(), 1 + self.random.index(3));
        let mut cache = std::mem::take(&mut self.cache);
        let claims = self.write(|tx| {
            tx.promote_due(10)?;
            tx.claim(&pool, &Serves::AllQueues, limit, &mut cache)
        });
        self.cache = cache;
        let claims = claims.unwrap();
        let noted: Vec<String> =
            claims.iter().map(|claim| format!("{}={}", claim.token.lease().0, claim.token.seq().0)).collect();
        self.note(&format!("claimed {}", noted.join(" ")));
        self.held.extend(claims);
    }

    fn finish(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let claim = self.held.swap_remove(self.random.index(self.held.len()));
        let outcome = match self.random.below(10) {
            0 => None,
            1..5 => Some(Outcome::Failed),
            _ => Some(Outcome::Completed),
        };
        self.report(claim, outcome);
        let token = &self.used[self.random.index(self.used.len())];
        let again = self.store.write(Millis(1), |tx| tx.finish(token, &ending(token, Some(Outcome::Failed))));
        assert_eq!(again.unwrap(), None, "an outcome was taken twice");
    }

    fn report(&mut self, claim: Claim, outcome: Option<Outcome>) {
        let ending = ending(&claim.token, outcome);
        let done = self.write(|tx| tx.finish(&claim.token, &ending)).unwrap();
        let done = done.expect("nobody takes a lease from the living");
        let (seq, lease) = (claim.token.seq().0, claim.token.lease().0);
        let (outcome, state) = (outcome.map_or("none", Outcome::name), done.progress.state.kind().name());
        self.note(&format!("finished {seq} {lease} {} {outcome} {state}", claim.attempt));
        self.used.push(claim.token);
    }

    fn cancel(&mut self) {
        if self.enqueued == 0 {
            return;
        }
        let id: JobId = format!("{}-{}", self.name, self.random.below(self.enqueued)).parse().unwrap();
        match self.write(|tx| tx.cancel(std::slice::from_ref(&id))).as_deref() {
            Ok([(_, Cancelled::Done)]) => self.note(&format!("cancelled {id}")),
            Ok([(_, Cancelled::Asked)]) | Err(StoreError::Refused { .. }) => {}
            other => panic!("cancel {id}: {other:?}"),
        }
    }

    /// Does what a pool does when it finds that others have died.
    fn recover(&mut self) {
        for dead in dead_pools(&self.folder).into_iter().rev().take(LATELY) {
            if self.recovered.insert(dead.clone()) {
                let pool = dead.parse().unwrap();
                let gone = self.write(|tx| recover(tx, &pool)).unwrap();
                self.note(&format!("recovered {dead} {gone}"));
            }
        }
    }

    /// Gives back what it holds, and leaves, with or without closing the file.
    fn end(mut self) {
        for claim in std::mem::take(&mut self.held) {
            self.report(claim, None);
        }
        let pool = self.pool.clone();
        assert!(self.write(|tx| tx.retire(&pool, "stopped")).unwrap());
        if self.random.below(2) == 0 {
            self.store.leave();
        }
    }
}

/// True once the parent lets go of stdin, or is gone itself.
fn until_stdin_ends() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        set.store(true, Ordering::Relaxed);
    });
    stop
}

/// An outcome that tells under which lease it was reported.
fn ending(token: &Token, outcome: Option<Outcome>) -> Ending {
    let Some(outcome) = outcome else { return Ending::NotStarted };
    Ending::Ran(Run {
        slot: 0,
        started: Millis(1),
        ended: Millis(1),
        outcome,
        counts_as_loss: false,
        exit_code: None,
        signal: None,
        cpu: Duration::ZERO,
        max_rss_bytes: token.lease().0,
        error: None,
        stdout: Kept::Inline(token.lease().0.to_string().into_bytes()),
        stderr: Kept::Empty,
    })
}

fn recover(tx: &mut Tx<'_>, pool: &PoolId) -> Result<bool, StoreError> {
    for held in tx.leases(pool)? {
        let done = tx.finish(&held.token, &ending(&held.token, Some(Outcome::Lost)))?;
        assert!(done.is_some());
    }
    tx.retire(pool, "killed")
}

fn pool_info(pool: &PoolId) -> PoolInfo {
    PoolInfo {
        id: pool.clone(),
        pid: std::process::id(),
        boot_id: 0,
        pid_namespace: 0,
        nonce: 0,
        file: (5, 6),
        started: Millis(1),
        workers: 1,
        serves: Serves::AllQueues,
        asked: Asked::Work,
        log: None,
        ended: None,
    }
}

fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("log-{name}"))
}

/// What the parent wrote down after it had seen them dead.
fn dead_pools(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("dead")).unwrap_or_default();
    // The last line may be half written.
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

// ---- the parent

/// A queue on a real disk, made by somebody who left.
fn queue() -> TempDir {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    dir
}

fn queue_with(id: &str) -> TempDir {
    let dir = queue();
    let (store, _) = Store::open_or_create(dir.path(), Box::new(|| {})).unwrap();
    store.write(Millis(1), |tx| tx.enqueue(&[job(id)])).unwrap();
    dir
}

/// A line of a child; `None` when it closed its end.
type Event = (usize, Option<String>);

struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, and sees it dead.
    fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.child.wait().unwrap()
    }
}

/// No child outlives its test.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Children, and what they say.
struct Family {
    folder: PathBuf,
    born: usize,
    alive: BTreeMap<usize, Process>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// What they said that is no event: the words of a panic.
    noise: Vec<String>,
}

impl Family {
    fn new(folder: &Path) -> Self {
        let (sender, events) = mpsc::channel();
        Self { folder: folder.to_owned(), born: 0, alive: BTreeMap::new(), events, sender, noise: Vec::new() }
    }

    fn spawn(&mut self, role: &str, seed: u64) -> usize {
        let number = self.born;
        self.born += 1;
        let name = format!("{role}{number}");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("STORM_ROLE", role)
            .env("STORM_FOLDER", &self.folder)
            .env("STORM_NAME", &name)
            .env("STORM_SEED", seed.to_string())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stderr, sender) = (child.stderr.take().unwrap(), self.sender.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send((number, Some(line)));
            }
            let _ = sender.send((number, None));
        });
        let stdin = child.stdin.take();
        self.alive.insert(number, Process { name, child, stdin });
        number
    }

    /// The next thing that somebody says within `wait`.
    fn listen(&mut self, wait: Duration) -> Option<(usize, String)> {
        let until = Instant::now() + wait;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((number, Some(line))) => match line.strip_prefix("storm ") {
                    Some(said) => return Some((number, said.to_owned())),
                    None => self.noise.push(format!("{number}: {line}")),
                },
                Ok((_, None)) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept"),
            }
        }
    }

    /// Listens until `enough`; true if that came in time.
    fn listen_until(&mut self, wait: Duration, mut enough: impl FnMut(&Self, usize, &str) -> bool) -> bool {
        let until = Instant::now() + wait;
        while let Some((number, said)) = self.listen(until.saturating_duration_since(Instant::now())) {
            if enough(self, number, &said) {
                return true;
            }
        }
        false
    }

    /// Waits until `number` says `what`.
    fn expect(&mut self, number: usize, what: &str) {
        let said = self.listen_until(FAILED_AFTER, |_, who, said| who == number && said == what);
        assert!(said, "process {number} does not say {what}: {:#?}", self.noise);
    }

    /// Waits for the end of `number`, which has to be a good one.
    fn succeeds(&mut self, number: usize) {
        let mut process = self.alive.remove(&number).unwrap();
        drop(process.stdin.take());
        let status = process.child.wait().unwrap();
        assert!(status.success(), "process {number} ended with {status}: {:#?}", self.noise);
    }
}

/// How many transactions each living child but `except` has had acknowledged.
fn acknowledged(family: &Family, except: Option<usize>) -> BTreeMap<usize, usize> {
    let others = family.alive.iter().filter(|(number, _)| Some(**number) != except);
    others.map(|(number, process)| (*number, lines(&family.folder, &process.name))).collect()
}

fn lines(folder: &Path, name: &str) -> usize {
    fs::read_to_string(log_of(folder, name)).unwrap_or_default().matches('\n').count()
}

/// Whether within `wait` each child of `before` has two more transactions acknowledged: the second of them began
/// after `before` was looked at.
fn all_move(family: &mut Family, before: &BTreeMap<usize, usize>, wait: Duration) -> bool {
    let mut waited_for: BTreeSet<usize> = before.keys().copied().collect();
    family.listen_until(wait, |family, number, _| {
        if waited_for.contains(&number) && lines(&family.folder, &family.alive[&number].name) >= before[&number] + 2 {
            waited_for.remove(&number);
        }
        waited_for.is_empty()
    })
}

/// What a storm did.
#[derive(Debug, Default)]
struct Storm {
    kills: u64,
    stops: u64,
    /// Stops that came while the process was the writer: nobody got on.
    stops_inside: u64,
}

impl Storm {
    fn blow(&mut self, family: &mut Family, kills: u64, random: &mut Random) {
        while self.kills < kills {
            while family.alive.len() < CHILDREN {
                let newborn = family.spawn("worker", random.next());
                family.expect(newborn, "ready");
            }
            let (mut left, most) = (random.below(20), Duration::from_micros(random.below(2_000)));
            family.listen_until(FAILED_AFTER, |_, _, _| {
                left = left.saturating_sub(1);
                left == 0
            });
            // And a moment that nothing announced.
            family.listen_until(most, |_, _, _| false);
            let victim = *family.alive.keys().nth(random.index(CHILDREN)).unwrap();
            if random.below(4) == 0 {
                self.stop(family, victim, random);
            } else {
                self.kill(family, victim);
            }
        }
    }

    fn kill(&mut self, family: &mut Family, victim: usize) {
        let mut process = family.alive.remove(&victim).unwrap();
        let status = process.kill();
        assert_eq!(status.signal(), Some(9), "it had ended by itself: {status}, {:#?}", family.noise);
        let dead = File::options().append(true).create(true).open(family.folder.join("dead"));
        dead.unwrap().write_all(format!("{}\n", process.name).as_bytes()).unwrap();
        self.kills += 1;
        let before = acknowledged(family, None);
        assert!(all_move(family, &before, FAILED_AFTER), "somebody waits for the dead: {:#?}", family.noise);
    }

    fn stop(&mut self, family: &mut Family, victim: usize, random: &mut Random) {
        family.alive[&victim].signal(Signal::STOP);
        self.stops += 1;
        let before = acknowledged(family, Some(victim));
        if !all_move(family, &before, Duration::from_millis(50)) {
            self.stops_inside += 1;
        }
        if random.below(2) == 0 {
            return self.kill(family, victim);
        }
        let before = acknowledged(family, None);
        family.alive[&victim].signal(Signal::CONT);
        assert!(all_move(family, &before, FAILED_AFTER), "somebody does not get on: {:#?}", family.noise);
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_a_storm_of_kills() {
    let dir = queue_with("before");
    let mut family = Family::new(dir.path());
    let (mut storm, mut random) = (Storm::default(), Random(number("STORM_SEED", 1)));
    let began = Instant::now();
    storm.blow(&mut family, number("STORM_KILLS", 60), &mut random);
    // All but one end as they should, and the last to leave is killed: the file is not closed.
    let last = family.alive.keys().next_back().copied().unwrap();
    for number in family.alive.keys().copied().filter(|number| *number != last).collect::<Vec<_>>() {
        family.succeeds(number);
    }
    storm.kill(&mut family, last);
    let notes = Notes::read(dir.path());
    println!("{storm:?} in {:?}, {notes}", began.elapsed());
    verify(dir.path(), &notes);
}

/// Looks at what is left, recovers, and compares.
fn verify(folder: &Path, notes: &Notes) {
    let looker = Store::open_read_only(folder, Box::new(|| {})).unwrap();
    assert_eq!(looker.read(Snapshot::check).unwrap().violations, [""; 0]);
    drop(looker);
    let store = Store::open(folder, Box::new(|| {})).unwrap();
    for dead in dead_pools(folder) {
        store.write(Millis(1), |tx| recover(tx, &dead.parse().unwrap())).unwrap();
    }
    for _ in 0..2 {
        let report = store.read(Snapshot::check).unwrap();
        assert_eq!(report.violations, [""; 0]);
        store.read(|snapshot| notes.compare(snapshot, report.jobs)).unwrap();
    }
    drop(store);
    let store = Store::open(folder, Box::new(|| {})).unwrap();
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0]);
    store.read(|snapshot| notes.compare(snapshot, snapshot.check()?.jobs)).unwrap();
}

/// A finish that was acknowledged.
struct Noted {
    seq: Seq,
    lease: u64,
    attempt: u32,
    outcome: String,
    state: String,
}

/// What the children noted.
#[derive(Default)]
struct Notes {
    enqueued: BTreeMap<String, u64>,
    claimed: BTreeMap<u64, u64>,
    finished: Vec<Noted>,
    cancelled: Vec<String>,
    recovered: BTreeMap<String, u32>,
}

impl std::fmt::Display for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (enqueued, claimed, finished) = (self.enqueued.len(), self.claimed.len(), self.finished.len());
        let (cancelled, recovered) = (self.cancelled.len(), self.recovered.len());
        write!(f, "{enqueued} enqueued, {claimed} claimed, {finished} finished, {cancelled} cancelled, ")?;
        write!(f, "{recovered} pools recovered")
    }
}

impl Notes {
    fn read(folder: &Path) -> Self {
        let mut notes = Self::default();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("log-") {
                let text = fs::read_to_string(path).unwrap();
                // What a kill cut short was not acknowledged.
                text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).for_each(|line| notes.take(line));
            }
        }
        notes
    }

    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["enqueued", jobs @ ..] => {
                for (id, seq) in jobs.iter().filter_map(|job| job.split_once('=')) {
                    assert!(self.enqueued.insert(id.to_owned(), seq.parse().unwrap()).is_none());
                }
            }
            ["claimed", claims @ ..] => {
                for (lease, seq) in claims.iter().filter_map(|claim| claim.split_once('=')) {
                    let twice = self.claimed.insert(lease.parse().unwrap(), seq.parse().unwrap());
                    assert_eq!(twice, None, "lease {lease} was handed out twice");
                }
            }
            ["finished", seq, lease, attempt, outcome, state] => self.finished.push(Noted {
                seq: Seq(seq.parse().unwrap()),
                lease: lease.parse().unwrap(),
                attempt: attempt.parse().unwrap(),
                outcome: (*outcome).to_owned(),
                state: (*state).to_owned(),
            }),
            ["cancelled", id] => self.cancelled.push((*id).to_owned()),
            ["recovered", pool, done] => {
                *self.recovered.entry((*pool).to_owned()).or_default() += u32::from(*done == "true");
            }
            other => panic!("a note that nobody writes: {other:?}"),
        }
    }

    fn compare(&self, snapshot: &Snapshot, jobs: u64) -> Result<(), StoreError> {
        for (id, seq) in &self.enqueued {
            let found = snapshot.find(&id.parse().unwrap())?;
            assert_eq!(found, Some(Seq(*seq)), "{id} was acknowledged");
        }
        let seqs: BTreeSet<u64> = self.enqueued.values().copied().collect();
        assert_eq!(seqs.len(), self.enqueued.len(), "a seq was given twice");
        assert!(jobs >= self.enqueued.len() as u64);
        for id in &self.cancelled {
            let seq = Seq(self.enqueued[id]);
            assert_eq!(snapshot.state(seq)?, Some(StateKind::Cancelled), "{id} was cancelled");
        }
        for (pool, times) in &self.recovered {
            assert!(*times <= 1, "{pool} was retired twice");
        }
        self.finished.iter().for_each(|noted| noted.compare(snapshot));
        self.compare_leases(snapshot);
        Ok(())
    }

    /// No lease has two outcomes, and each is of the job that was claimed under it.
    fn compare_leases(&self, snapshot: &Snapshot) {
        let noted: BTreeSet<u64> = self.finished.iter().map(|noted| noted.lease).collect();
        assert_eq!(noted.len(), self.finished.len(), "two outcomes of one lease were accepted");
        assert_eq!(snapshot.counts().unwrap()[&StateKind::Processing], 0, "somebody dead holds a job");
        let mut leases = BTreeSet::new();
        for seq in (1..).map(Seq).take_while(|seq| snapshot.state(*seq).unwrap().is_some()) {
            for attempt in snapshot.attempts(seq).unwrap() {
                let lease = attempt.max_rss_bytes;
                assert!(leases.insert(lease), "lease {lease} has two outcomes");
                assert!(self.claimed.get(&lease).is_none_or(|claimed| *claimed == seq.0));
                let output = snapshot.output(seq, attempt.number, Stream::Stdout).unwrap();
                assert_eq!(output, Some(Output::Inline(lease.to_string().into_bytes())));
            }
        }
    }
}

impl Noted {
    fn compare(&self, snapshot: &Snapshot) {
        let Self { seq, lease, attempt, .. } = *self;
        if self.outcome == "none" {
            return;
        }
        let attempts = snapshot.attempts(seq).unwrap();
        let kept = attempts.iter().find(|kept| kept.number == attempt);
        let kept = kept.unwrap_or_else(|| panic!("the acknowledged outcome of lease {lease} is lost"));
        assert_eq!((kept.max_rss_bytes, kept.outcome.name()), (lease, self.outcome.as_str()));
        // Nobody retries here: what has ended stays so.
        if StateKind::from_name(&self.state).unwrap().has_ended() {
            assert_eq!(snapshot.state(seq).unwrap().unwrap().name(), self.state);
            assert_eq!(attempts.len(), usize::try_from(attempt).unwrap());
        }
    }
}

/// Two writers wait for one that was stopped inside a transaction, and say so; a reader does not wait.
fn waiting_for_a_stopped_one(family: &mut Family) -> (usize, Vec<usize>) {
    let holder = family.spawn("holder", 0);
    family.expect(holder, "inside");
    family.alive[&holder].signal(Signal::STOP);
    let reader = family.spawn("reader", 0);
    family.expect(reader, "done");
    family.succeeds(reader);
    let writers = vec![family.spawn("writer", 0), family.spawn("writer", 0)];
    let mut waiting = BTreeSet::new();
    let told = family.listen_until(FAILED_AFTER, |_, number, said| {
        assert_eq!(said, "waiting", "{number} got in");
        waiting.insert(number);
        writers.iter().all(|writer| waiting.contains(writer))
    });
    assert!(told, "{:#?}", family.noise);
    (holder, writers)
}

fn all_done(family: &mut Family, numbers: &[usize]) {
    let mut done = BTreeSet::new();
    let all = family.listen_until(FAILED_AFTER, |_, number, said| {
        if said == "done" {
            done.insert(number);
        }
        numbers.iter().all(|number| done.contains(number))
    });
    assert!(all, "only {done:?} are done: {:#?}", family.noise);
    for number in numbers {
        family.succeeds(*number);
    }
}

fn jobs(folder: &Path) -> Vec<&'static str> {
    let store = Store::open(folder, Box::new(|| {})).unwrap();
    assert_eq!(store.read(Snapshot::check).unwrap().violations, [""; 0]);
    let there = |id: &str| store.read(|snapshot| snapshot.find(&id.parse().unwrap())).unwrap().is_some();
    ["before", "held", "writer2", "writer3"].into_iter().filter(|id| there(id)).collect()
}

#[test]
fn whoever_waits_for_a_stopped_writer_goes_on_when_it_is_killed() {
    let dir = queue_with("before");
    let mut family = Family::new(dir.path());
    let (holder, writers) = waiting_for_a_stopped_one(&mut family);
    family.alive.remove(&holder).unwrap().kill();
    all_done(&mut family, &writers);
    assert_eq!(jobs(dir.path()), ["before", "writer2", "writer3"]);
}

#[test]
fn whoever_waits_for_a_stopped_writer_goes_on_when_it_continues() {
    let dir = queue_with("before");
    let mut family = Family::new(dir.path());
    let (holder, writers) = waiting_for_a_stopped_one(&mut family);
    let process = family.alive.get_mut(&holder).unwrap();
    process.signal(Signal::CONT);
    process.stdin.as_mut().unwrap().write_all(b".").unwrap();
    all_done(&mut family, &[writers.as_slice(), &[holder]].concat());
    assert_eq!(jobs(dir.path()), ["before", "held", "writer2", "writer3"]);
}

#[test]
fn a_queue_is_made_whole_whoever_is_killed_making_it() {
    let (mut random, mut half_made) = (Random(number("STORM_SEED", 1)), 0);
    for _ in 0..number("STORM_KILLS", 60) / 3 {
        let dir = queue();
        let mut family = Family::new(dir.path());
        let makers = [0; 3].map(|_| family.spawn("creator", 0));
        let begun = |_: &u32| fs::read_dir(dir.path()).unwrap().count() > 1;
        (0..100_000_u32).find(|n| begun(n) || family.listen(Duration::from_micros(50)).is_some());
        family.listen(Duration::from_micros(random.below(3_000)));
        let victim = makers[random.index(3)];
        family.alive.remove(&victim).unwrap().kill();
        half_made += u32::from(dir.path().join("queue.redb.new").exists());
        for maker in makers.into_iter().filter(|maker| *maker != victim) {
            family.succeeds(maker);
        }
        let (store, made) = Store::open_or_create(dir.path(), Box::new(|| {})).unwrap();
        assert!(!made);
        let report = store.read(Snapshot::check).unwrap();
        assert_eq!(report.violations, [""; 0]);
        assert!(report.jobs >= 2);
    }
    println!("{half_made} times the file was half made when somebody was killed");
}
