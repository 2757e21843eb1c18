//! The storm itself: who takes part, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use queuectl::worker::{Noted, noted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::job::{Kind, RETRIES};
use crate::ledger::{Ledger, Mark, What};
use crate::participant::{self, End, Participant, Role};
use crate::random::Random;

/// Longer than anything here may take, short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(60);
const POOLS: usize = 3;
const ENQUEUERS: usize = 2;
const READERS: usize = 2;
/// Stopped ones at a time: any of them may have the file.
const STOPPED_MAX: usize = 2;
/// How many jobs may wait before nobody adds any.
const BACKLOG_MAX: usize = 120;
const BATCH_MAX: u64 = 12;

/// What the storm did, and what was seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub kills: u64,
    pub kills_of_pools: u64,
    pub kills_at_turnstile: u64,
    pub terms: u64,
    pub stops: u64,
    pub participants: u64,
    pub jobs: u64,
    pub attempts: u64,
    pub interrupted: u64,
    pub lost: u64,
    /// Runs whose end their pool had seen when it was killed.
    pub seen_ends: u64,
    /// Those of them that it had not told, and so, as a rule, not committed: whoever recovered it did.
    pub adopted: u64,
}

impl Tally {
    pub fn add(&mut self, more: &Self) {
        self.kills += more.kills;
        self.kills_of_pools += more.kills_of_pools;
        self.kills_at_turnstile += more.kills_at_turnstile;
        self.terms += more.terms;
        self.stops += more.stops;
        self.participants += more.participants;
        self.jobs += more.jobs;
        self.attempts += more.attempts;
        self.interrupted += more.interrupted;
        self.lost += more.lost;
        self.seen_ends += more.seen_ends;
        self.adopted += more.adopted;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, kills_of_pools, kills_at_turnstile, terms, stops, participants, .. } = self;
        let Self { jobs, attempts, interrupted, lost, seen_ends, adopted, .. } = self;
        write!(f, "{kills} of {participants} processes killed ({kills_of_pools} pools, {kills_at_turnstile} of them ")?;
        write!(
            f,
            "before a commit), {terms} SIGTERM, {stops} SIGSTOP; {jobs} jobs, {attempts} attempts, {lost} lost, "
        )?;
        write!(f, "{interrupted} interrupted; {seen_ends} ends on the boards of the killed, {adopted} of them adopted")
    }
}

/// Something that is enqueued.
pub struct Entry {
    pub kinds: Vec<Kind>,
    words: Vec<String>,
    /// Whether its jobs have ids of their own: then it is typed again until it is known to be there.
    named: bool,
    /// What was acknowledged: the ids of its jobs, as they come.
    pub acknowledged: Option<Vec<String>>,
    /// Whether somebody types it now.
    typed: bool,
    /// Whether somebody who typed it was ended before an answer came.
    pub cut_off: bool,
}

/// A batch of `run`.
pub struct Batch {
    pub kinds: Vec<Kind>,
    pub done: bool,
    typed: bool,
}

/// The board of a killed pool as it was left.
pub struct Board {
    pub runs: Vec<Noted>,
    /// The jobs whose ends it had told: those were committed. A run tells none.
    pub told: Option<BTreeSet<String>>,
}

pub struct Storm {
    dir: Option<TempDir>,
    pub folder: PathBuf,
    random: Random,
    participants: Vec<Participant>,
    /// When each stopped one goes on.
    continues: BTreeMap<u32, Instant>,
    kinds: u64,
    pub entries: Vec<Entry>,
    pub batches: Vec<Batch>,
    ledger: Ledger,
    pub marks: Vec<Mark>,
    ended: BTreeSet<String>,
    stops_told: u32,
    pub boards: Vec<Board>,
    pub tally: Tally,
}

impl Storm {
    pub fn new(seed: u64) -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let folder = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(folder.join("locks")).unwrap();
        fs::create_dir(folder.join("said")).unwrap();
        let storm = Self {
            dir: Some(dir),
            ledger: Ledger::open(&folder),
            folder,
            random: Random(seed),
            participants: Vec::new(),
            continues: BTreeMap::new(),
            kinds: 0,
            entries: Vec::new(),
            batches: Vec::new(),
            marks: Vec::new(),
            ended: BTreeSet::new(),
            stops_told: 0,
            boards: Vec::new(),
            tally: Tally::default(),
        };
        let settings =
            [("max-losses", "0"), ("kill-grace", "200ms"), ("backoff-base", "0.01"), ("output-limit", "8KiB")];
        for (key, value) in settings {
            storm.ok(&["config", "set", key, value]);
        }
        storm
    }

    pub fn queue(&self) -> PathBuf {
        self.folder.join(".queuectl")
    }

    /// Runs `queuectl`, which has to succeed; its output.
    pub fn ok(&self, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let done = participant::command(&self.folder, &words).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "queuectl {}: {} {stdout} {stderr}", words.join(" "), done.status);
        stdout.into_owned()
    }

    /// Kills so many.
    pub fn blow(&mut self, kills: u64) {
        while self.tally.kills < kills {
            self.keep_company();
            let pause = match self.random.below(10) {
                0..3 => self.random.below(1_000),
                3..9 => self.random.below(40_000),
                _ => self.random.below(150_000),
            };
            self.wait_for(Duration::from_micros(pause));
            self.strike();
        }
    }

    /// Lets all come to rest: nobody is killed any more, except that some pools are the last time.
    pub fn calm(&mut self) {
        self.continue_all(|_| true);
        self.until("all is typed and done", |storm| {
            storm.keep_pools();
            storm.type_again();
            storm.entries.iter().all(|entry| !entry.typed && (entry.acknowledged.is_some() || !entry.named))
                && storm.batches.iter().all(|batch| batch.done)
                && storm.participants.iter().all(|other| matches!(other.role, Role::Pool { .. }))
        });
        for victim in (0..self.participants.len()).rev() {
            if self.random.below(2) == 0 {
                self.kill(victim);
            } else {
                self.term(victim);
            }
        }
        self.until("all pools have ended", |storm| storm.participants.is_empty());
        self.add(Role::Pool { until_empty: true }, &["worker", "start", "--count", "4", "--until-empty"]);
        self.until("nothing is left to do", |storm| storm.participants.is_empty());
        self.read_ledger();
    }

    /// Waits until it is so; says for whom if it takes too long.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}: {}", self.picture());
            self.wait_for(Duration::from_millis(20));
        }
    }

    fn picture(&self) -> String {
        let participants: Vec<String> = self.participants.iter().map(Participant::picture).collect();
        let status = participant::command(&self.folder, &["status".to_owned()]).output().unwrap();
        format!("{participants:#?}\n{}", String::from_utf8_lossy(&status.stdout))
    }

    // ---- who takes part

    fn count(&self, is_one: impl Fn(&Role) -> bool) -> usize {
        self.participants.iter().filter(|other| is_one(&other.role)).count()
    }

    fn add(&mut self, role: Role, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.add_words(role, &words);
    }

    fn add_words(&mut self, role: Role, words: &[String]) {
        self.tally.participants += 1;
        let said = self.folder.join("said").join(self.tally.participants.to_string());
        let mut newcomer = Participant::start(self.tally.participants, role, words, &self.folder, said);
        // Whoever tells pools to stop at this moment may mean it as well.
        newcomer.stops_before = self.stops_told - u32::try_from(self.count(|role| *role == Role::Stopper)).unwrap();
        self.participants.push(newcomer);
    }

    fn keep_company(&mut self) {
        self.read_ledger();
        let hangs = self.participants.iter().any(|other| other.role.is_brief() && other.born.elapsed() > PATIENCE);
        assert!(!hangs, "somebody does not end: {}", self.picture());
        self.keep_pools();
        if self.count(|role| matches!(role, Role::Run(_))) == 0 {
            let batch = self.batches.iter().position(|batch| !batch.done).unwrap_or_else(|| self.new_batch());
            self.type_batch(batch);
        }
        let backlog = self.kinds.saturating_sub(self.ended.len() as u64);
        while backlog < BACKLOG_MAX as u64 && self.count(|role| matches!(role, Role::Enqueuer(_))) < ENQUEUERS {
            let again =
                self.entries.iter().position(|entry| entry.named && !entry.typed && entry.acknowledged.is_none());
            let entry = again.unwrap_or_else(|| self.new_entry());
            self.type_entry(entry);
        }
        while self.count(|role| matches!(role, Role::Reader { .. })) < READERS {
            self.new_reader();
        }
        if self.random.below(60) == 0 && self.count(|role| *role == Role::Stopper) == 0 {
            self.stops_told += 1;
            let now = self.random.below(2) == 0;
            let words = ["worker", "stop", "--timeout", "5s", "--now"];
            self.add(Role::Stopper, if now { &words } else { &words[..4] });
        }
    }

    fn keep_pools(&mut self) {
        while self.count(|role| matches!(role, Role::Pool { .. })) < POOLS {
            let (count, until_empty) = ((1 + self.random.below(4)).to_string(), self.random.below(6) == 0);
            let words = ["worker", "start", "--count", &count, "--until-empty"];
            self.add(Role::Pool { until_empty }, if until_empty { &words } else { &words[..4] });
        }
    }

    /// What somebody was kept from is done again.
    fn type_again(&mut self) {
        for batch in 0..self.batches.len() {
            if !self.batches[batch].done && !self.batches[batch].typed {
                self.type_batch(batch);
            }
        }
        for entry in 0..self.entries.len() {
            let again = &self.entries[entry];
            if again.named && !again.typed && again.acknowledged.is_none() {
                self.type_entry(entry);
            }
        }
    }

    fn new_kinds(&mut self, most: u64) -> Vec<Kind> {
        let count = 1 + self.random.below(most);
        let first = self.kinds;
        self.kinds += count;
        (first..first + count).map(|number| Kind::random(number, &mut self.random)).collect()
    }

    fn new_batch(&mut self) -> usize {
        let kinds: Vec<Kind> = self.new_kinds(BATCH_MAX).into_iter().map(Kind::in_run).collect();
        let is_large = self.random.below(3) == 0;
        let lines = lines(&kinds, is_large, Kind::shell);
        let number = self.batches.len();
        fs::write(self.folder.join(format!("batch-{number}")), lines).unwrap();
        self.batches.push(Batch { kinds, done: false, typed: false });
        number
    }

    fn type_batch(&mut self, number: usize) {
        self.batches[number].typed = true;
        let (jobs, file) = ((1 + self.random.below(3)).to_string(), format!("batch-{number}"));
        self.add(Role::Run(number), &["run", "-j", &jobs, "--max-retries", &RETRIES.to_string(), &file]);
    }

    fn new_entry(&mut self) -> usize {
        let number = self.entries.len();
        let form = self.random.below(6);
        let kinds = self.new_kinds(if form < 3 { 1 } else { BATCH_MAX });
        let json = |kind: &Kind, named: bool| {
            let mut json = serde_json::json!({"argv": kind.argv(), "max_retries": RETRIES});
            if named {
                json["id"] = format!("named-{}", kind.number).into();
            }
            json.to_string()
        };
        let named = matches!(form, 2 | 5);
        let mut words = vec!["enqueue".to_owned(), "--quiet".to_owned()];
        match form {
            0 => words.extend(["-c".to_owned(), kinds[0].shell()]),
            1 => words.extend(std::iter::once("--".to_owned()).chain(kinds[0].argv())),
            2 => words.push(json(&kinds[0], named)),
            _ => {
                let line = |kind: &Kind| if form == 3 { kind.shell() } else { json(kind, named) };
                let lines = lines(&kinds, self.random.below(3) == 0, line);
                let file = format!("entry-{number}");
                fs::write(self.folder.join(&file), lines).unwrap();
                words.extend(["--file".to_owned(), file]);
            }
        }
        self.entries.push(Entry { kinds, words, named, acknowledged: None, typed: false, cut_off: false });
        number
    }

    fn type_entry(&mut self, number: usize) {
        self.entries[number].typed = true;
        let words = self.entries[number].words.clone();
        self.add_words(Role::Enqueuer(number), &words);
    }

    fn new_reader(&mut self) {
        let acknowledged: Vec<&String> =
            self.entries.iter().filter_map(|entry| entry.acknowledged.as_ref()).flatten().collect();
        let recent = acknowledged.len().saturating_sub(20);
        let some = acknowledged[recent..].get(self.random.index(20)).map(|id| (*id).clone());
        let (words, codes, patient): (&[&str], &'static [i32], bool) = match (self.random.below(17), some.as_deref()) {
            (0, _) | (8.., None) => (&["status"], &[0], false),
            (1, _) => (&["status", "--json"], &[0], false),
            (2, _) => (&["list"], &[0], false),
            (3, _) => (&["list", "--json"], &[0], false),
            (4, _) => (&["list", "--state", "completed", "--limit", "5"], &[0], false),
            (5, _) => (&["worker", "list", "--json"], &[0], false),
            (6, _) => (&["check"], &[0], false),
            (7, _) => (&["wait", "--all", "--timeout", "200ms"], &[0, 1, 6], true),
            (8, Some(id)) => (&["show", id], &[0], false),
            (9, Some(id)) => (&["show", id, "--json"], &[0], false),
            // It may not have started.
            (10 | 11, Some(id)) => (&["logs", id], &[0, 4], false),
            (12 | 13, Some(id)) => (&["logs", "-f", id], &[0], true),
            (14 | 15, Some(id)) => (&["wait", id, "--timeout", "500ms"], &[0, 1, 6], true),
            (_, Some(id)) => (&["wait", id], &[0, 1], true),
        };
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.add_words(Role::Reader { codes, patient }, &words);
    }

    // ---- what is done to them

    fn strike(&mut self) {
        let class = self.random.below(10);
        let candidates: Vec<usize> = (0..self.participants.len())
            .filter(|index| {
                let works = self.participants[*index].role.works();
                if class < 6 { works } else { !works }
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        // The longer somebody is there, the more there is to lose.
        let oldest = candidates.iter().copied().min_by_key(|index| self.participants[*index].number);
        let any = candidates[self.random.index(candidates.len())];
        let victim = oldest.filter(|_| self.random.below(2) == 0).unwrap_or(any);
        match self.random.below(12) {
            0..5 => self.kill(victim),
            5..7 => self.kill_at_turnstile(victim),
            7..9 if self.continues.len() < STOPPED_MAX => self.stop(victim),
            7..9 => {}
            _ => self.term(victim),
        }
    }

    fn kill(&mut self, victim: usize) {
        let run = self.queue().join("run");
        let victim = &mut self.participants[victim];
        if victim.role.works() && !victim.hold_board(&run) {
            // It may be about to make one, which must not be missed.
            victim.signal(Signal::STOP);
            await_standstill(victim);
            victim.hold_board(&run);
        }
        victim.signal(Signal::KILL);
        victim.killed = true;
        self.tally.kills += 1;
        self.tally.kills_of_pools += u64::from(victim.role.works());
        let pid = victim.pid();
        self.continues.remove(&pid);
        self.await_end(pid);
    }

    /// Lets a pool run into the turnstile with ends that it cannot commit, and kills it there.
    fn kill_at_turnstile(&mut self, victim: usize) {
        let turn = File::open(self.queue().join("run/turn")).unwrap();
        let mut ours = false;
        let until = Instant::now() + Duration::from_millis(20);
        // Whoever has it may be one that was stopped: then it does not come.
        while self.participants[victim].role.works() && !ours && Instant::now() < until {
            ours = rustix::fs::flock(&turn, FlockOperation::NonBlockingLockExclusive).is_ok();
        }
        if !ours {
            return self.kill(victim);
        }
        let pid = self.participants[victim].pid();
        let run = self.queue().join("run");
        let until = Instant::now() + Duration::from_millis(5 + self.random.below(60));
        while Instant::now() < until {
            let board = self.participants[victim].hold_board(&run);
            if board && !self.participants[victim].stopped && waits_for_turn(pid, &turn) {
                self.tally.kills_at_turnstile += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill(victim);
        rustix::fs::flock(&turn, FlockOperation::Unlock).unwrap();
    }

    fn stop(&mut self, victim: usize) {
        let victim = &mut self.participants[victim];
        victim.signal(Signal::STOP);
        victim.stopped = true;
        self.tally.stops += 1;
        let long = if self.random.below(4) == 0 { 400 } else { 40 };
        let until = Instant::now() + Duration::from_millis(self.random.below(long));
        self.continues.insert(victim.pid(), until);
    }

    fn term(&mut self, victim: usize) {
        let again = self.random.below(3) == 0;
        let victim = &mut self.participants[victim];
        for _ in 0..=u32::from(again) {
            victim.signal(Signal::TERM);
            victim.terms += 1;
            self.tally.terms += 1;
        }
    }

    fn continue_all(&mut self, is_due: impl Fn(Instant) -> bool) {
        for other in &mut self.participants {
            if self.continues.get(&other.pid()).is_some_and(|at| is_due(*at)) {
                other.signal(Signal::CONT);
                other.stopped = false;
                self.continues.remove(&other.pid());
            }
        }
    }

    /// Lets so much time go by, and sees to whoever ends meanwhile.
    fn wait_for(&mut self, long: Duration) {
        let until = Instant::now() + long;
        loop {
            let now = Instant::now();
            self.continue_all(|at| at <= now);
            let next = self.continues.values().min().copied().unwrap_or(until).min(until);
            let wait = Timespec::try_from(next.saturating_duration_since(now)).unwrap();
            let mut fds: Vec<_> =
                self.participants.iter().map(|other| PollFd::new(&other.pidfd, PollFlags::IN)).collect();
            poll(&mut fds, Some(&wait)).unwrap();
            let ended: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for index in (0..ended.len()).rev().filter(|index| ended[*index]) {
                self.ended(index);
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn await_end(&mut self, pid: u32) {
        self.until("the killed one is dead", |storm| storm.participants.iter().all(|other| other.pid() != pid));
    }

    fn ended(&mut self, index: usize) {
        let mut gone = self.participants.swap_remove(index);
        let end = gone.end();
        self.continues.remove(&gone.pid());
        if !gone.killed {
            gone.judge(&end, self.stops_told);
        } else if let Some(board) = &gone.board {
            self.keep_board(board, &gone.role, &end);
        }
        let answered = !gone.killed && end.status.code().is_some();
        match gone.role {
            Role::Enqueuer(number) => {
                let entry = &mut self.entries[number];
                entry.typed = false;
                if !answered {
                    entry.cut_off = true;
                } else if end.status.code() == Some(130) {
                    assert!(end.stderr.contains("nothing was enqueued"), "{}", end.stderr);
                } else if end.status.code() == Some(4) {
                    assert!(entry.cut_off && entry.named, "refused at once: {}", end.stderr);
                    entry.acknowledged =
                        Some(entry.kinds.iter().map(|kind| format!("named-{}", kind.number)).collect());
                } else {
                    let ids: Vec<String> = String::from_utf8(end.stdout).unwrap().lines().map(str::to_owned).collect();
                    assert_eq!(ids.len(), entry.kinds.len(), "{ids:?}");
                    entry.acknowledged = Some(ids);
                }
            }
            Role::Run(number) => {
                let batch = &mut self.batches[number];
                batch.typed = false;
                batch.done |= answered && end.status.code() == Some(0);
            }
            Role::Pool { .. } | Role::Reader { .. } | Role::Stopper => {}
        }
    }

    fn keep_board(&mut self, board: &File, role: &Role, end: &End) {
        let runs = match noted(board) {
            // Killed before its header was written, it has claimed nothing.
            Err(error) if error.kind() == ErrorKind::InvalidData => Vec::new(),
            runs => runs.unwrap(),
        };
        let told = String::from_utf8_lossy(&end.stdout);
        let told = told.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect();
        self.boards.push(Board { runs, told: matches!(role, Role::Pool { .. }).then_some(told) });
    }

    fn read_ledger(&mut self) {
        for mark in self.ledger.news() {
            if let What::End(_) = mark.what {
                self.ended.insert(mark.id.clone());
            }
            self.marks.push(mark);
        }
    }
}

/// What a storm that failed leaves running would disturb others; what it leaves lying is kept, to be looked at.
impl Drop for Storm {
    fn drop(&mut self) {
        self.participants.clear();
        for pid in crate::verdict::left(&self.queue()).into_keys() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if let Some(dir) = self.dir.take()
            && std::thread::panicking()
        {
            println!("the queue is kept in {}", dir.keep().display());
        }
    }
}

/// A line for each, of a batch that is stored in several transactions if it `is_large`: by its size, since so many jobs
/// would take all the time.
fn lines(kinds: &[Kind], is_large: bool, line: impl Fn(&Kind) -> String) -> String {
    let padding = if is_large { format!("# {}\n", "-".repeat(1_000)).repeat(600) } else { String::new() };
    kinds.iter().map(|kind| line(kind) + "\n" + &padding).collect()
}

/// Waits until a process stands still: after that it makes nothing any more.
fn await_standstill(victim: &Participant) {
    let stands = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", victim.pid())).unwrap().flatten();
        let letters = tasks.map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next().unwrap_or('X')
        });
        letters.into_iter().all(|letter| matches!(letter, 'T' | 'Z' | 'X'))
    };
    let began = Instant::now();
    while !stands() {
        assert!(began.elapsed() < PATIENCE, "it does not stop: {}", victim.picture());
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Whether a process waits for the turnstile. `1: -> FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`
fn waits_for_turn(pid: u32, turn: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (pid, inode) = (format!(" {pid} "), format!(":{} ", turn.metadata().unwrap().ino()));
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&inode) && line.contains(&pid))
}
