//! Lists of operations: plain data, made from a seed or from bytes that a fuzzer chose.
//!
//! An operation is one transaction of a few verbs at some time. What it acts upon is named by position ("the
//! third job that is held"), so that a list stays meaningful when some of it is left out.

use std::time::Duration;

use super::choices::Choices;
use crate::model::{
    Command, Ending, IfExists, JobSpec, Kept, Millis, Outcome, QueueName, Run, SettingKey, Start, Tags, TimeLimit,
};
use crate::store::{Asked, Terms};

/// One transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// The time of whoever makes it: it jumps ahead and back.
    pub at: Millis,
    /// What it does.
    pub verbs: Vec<Verb>,
    /// Whether it is committed; else it fails after its last verb.
    pub kept: bool,
}

/// What can be done in a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Enqueues these.
    Enqueue(Vec<Wish>),
    /// A pool claims.
    Claim {
        /// Which pool.
        pool: u8,
        /// From where.
        serves: Serving,
        /// How many at most.
        limit: u8,
    },
    /// The outcome of a claim is reported.
    Finish {
        /// Which claim.
        claim: Which,
        /// How it ended.
        end: End,
    },
    /// At most so many due jobs are made ready.
    Promote(u8),
    /// At most so many jobs are told of the ends of others.
    Settle(u8),
    /// A person holds these back.
    Hold(Vec<Who>),
    /// A person lets these go on.
    Release(Vec<Who>),
    /// A person cancels these.
    Cancel(Vec<Who>),
    /// A person retries these, under these terms.
    Retry(Vec<Who>, Terms),
    /// A person edits one.
    Edit {
        /// Which.
        who: Who,
        /// What it is to be like.
        wish: Wish,
        /// Which of that: command, queue, priority, retries, time limit, name and tags, start, needs; a bit each.
        what: u8,
    },
    /// A person removes these.
    Remove(Vec<Who>),
    /// Jobs that ended long ago are removed, piece after piece.
    Clear {
        /// In which state: one of those that have ended.
        state: u8,
        /// How long ago, in steps of half a second.
        ago: u8,
        /// How many of them a piece looks at.
        limit: u8,
    },
    /// What the settings do not keep any more is swept away.
    Sweep,
    /// A pool is registered; under a name that was used before if `again`.
    Register {
        /// Which pool.
        pool: u8,
        /// Under its last name, even if a pool of that name has ended.
        again: bool,
    },
    /// A pool is asked to stop.
    Ask {
        /// Which pool.
        pool: u8,
        /// What.
        asked: Asked,
    },
    /// A pool is asked to have another number of workers.
    Scale {
        /// Which pool.
        pool: u8,
        /// How many.
        workers: u8,
    },
    /// A pool ends by itself.
    Retire(u8),
    /// A pool has died: what it holds ends as these say, in turn, and then it does.
    Recover {
        /// Which pool.
        pool: u8,
        /// How its claims ended.
        ends: Vec<End>,
    },
    /// A run is started or continued.
    StartRun {
        /// Which of a few runs.
        identity: u8,
        /// Its jobs.
        wishes: Vec<Wish>,
        /// Whether it never continues.
        fresh: bool,
    },
    /// A bulk is begun.
    BeginBulk {
        /// For those of [`QUEUES`] whose bit is set; for a run if there is none.
        queues: u8,
        /// How many numbers are set aside.
        jobs: u8,
    },
    /// A bulk gets a piece.
    FillBulk {
        /// Which bulk.
        bulk: u8,
        /// The jobs.
        wishes: Vec<Wish>,
    },
    /// At most so many jobs of a bulk get their ids.
    NameBulk {
        /// Which bulk.
        bulk: u8,
        /// How many.
        limit: u8,
    },
    /// A bulk is published.
    PublishBulk {
        /// Which bulk.
        bulk: u8,
        /// If it is a run: which of a few.
        identity: u8,
        /// Whether that never continues.
        fresh: bool,
    },
    /// At most so many jobs of a bulk are taken away.
    UndoBulk {
        /// Which bulk.
        bulk: u8,
        /// How many.
        limit: u8,
    },
    /// A setting of one of [`QUEUES`], or of all, is set.
    Set(Option<u8>, SettingKey, &'static str),
    /// It is unset.
    Unset(Option<u8>, SettingKey),
    /// A setting is unset wherever it is set.
    UnsetEverywhere(SettingKey),
}

/// A job to enqueue.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Its name, if it has one.
    pub id: Option<&'static str>,
    /// One of [`QUEUES`].
    pub queue: u8,
    /// Its priority.
    pub priority: i8,
    /// Its own number of retries.
    pub max_retries: Option<u32>,
    /// Its own backoff base.
    pub backoff_base: Option<f64>,
    /// Its own time limit.
    pub timeout: Option<TimeLimit>,
    /// When it starts.
    pub start: Start,
    /// What it waits for, and whether any end will do.
    pub needs: Vec<(Whom, bool)>,
    /// One of [`JOB_NAMES`], or none.
    pub name: u8,
    /// Those of [`TAGS`] whose bit is set.
    pub tags: u8,
    /// One of [`KEYS`], or none.
    pub key: u8,
    /// What becomes of it if another has that.
    pub if_exists: IfExists,
    /// One of a few environments.
    pub environment: u8,
    /// How long its command is, in bytes: now and then so long that the file grows.
    pub length: u16,
}

/// From where a pool claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// From all queues.
    All,
    /// From those of [`QUEUES`] whose bit is set, and one that does not exist.
    Queues(u8),
    /// From that run, counted from the newest.
    Run(u8),
}

/// Which claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One of those that are held.
    Held(u16),
    /// One of all that ever were: the news is likely to be late.
    Any(u16),
}

/// Which job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The one of this name, if there is one.
    Named(&'static str),
    /// One of those that exist.
    Nth(u16),
    /// One of those that have ended, if there is one.
    Ended(u16),
    /// One of those that a pool holds, if there is one.
    Held(u16),
}

/// For whom a new job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// One of those before it in its batch that have a name, if there is one.
    Earlier(u8),
    /// A job.
    Any(Who),
}

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How its run did; `None` if it was never started.
    pub outcome: Option<Outcome>,
    /// Whether a loss counts.
    pub counts_as_loss: bool,
    /// How long it ran.
    pub took_ms: u16,
    /// How much it wrote.
    pub wrote: u8,
}

/// The queues of a workload.
pub const QUEUES: [&str; 3] = ["default", "a", "z"];
/// What its jobs are called.
pub const JOB_NAMES: [&str; 3] = ["nightly", "a", "Ü 1"];
/// Their tags; of two with the same key a job gets the second.
pub const TAGS: [(&str, &str); 4] = [("a", ""), ("a", "1"), ("b", "1"), ("name", "nightly")];
/// Their keys: few, so that they collide.
pub const KEYS: [&str; 3] = ["k", "Ü 1", "7"];
/// How many pools it has at a time.
pub const POOLS: u8 = 4;
/// How many different runs it has.
const RUNS: u8 = 3;
/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;
/// Names for jobs: few, so that they collide; some are the numbers of early jobs, some never can be.
const NAMES: [&str; 14] =
    ["a", "b", "c", "d", "1", "2", "3", "7", "12", "20", "31", "007", "+5", "18446744073709551615"];
/// Settings with values that they take, and some that they do not.
const VALUES: [(SettingKey, &str); 32] = [
    (SettingKey::MaxRetries, "0"),
    (SettingKey::MaxRetries, "1"),
    (SettingKey::MaxRetries, "5"),
    (SettingKey::MaxRetries, "many"),
    (SettingKey::BackoffBase, "0"),
    (SettingKey::BackoffBase, "1.5"),
    (SettingKey::BackoffBase, "1000"),
    (SettingKey::BackoffBase, "-1"),
    (SettingKey::MaxBackoff, "3s"),
    (SettingKey::MaxBackoff, "1ms"),
    (SettingKey::MaxLosses, "0"),
    (SettingKey::MaxLosses, "1"),
    (SettingKey::MaxLosses, "2"),
    (SettingKey::Timeout, "none"),
    (SettingKey::Timeout, "7m"),
    (SettingKey::KillGrace, "61m"),
    (SettingKey::OutputLimit, "64KiB"),
    (SettingKey::Shell, "/bin/bash -c"),
    (SettingKey::Parallel, "1"),
    (SettingKey::Parallel, "2"),
    (SettingKey::Parallel, "none"),
    (SettingKey::Parallel, "0"),
    (SettingKey::Paused, "true"),
    (SettingKey::Paused, "false"),
    (SettingKey::RetainCompleted, "3s"),
    (SettingKey::RetainCompleted, "2 jobs"),
    (SettingKey::RetainDead, "0 jobs"),
    (SettingKey::RetainCancelled, "0s"),
    (SettingKey::RetainCancelled, "1 job"),
    (SettingKey::RetainOutput, "1s"),
    (SettingKey::RetainOutput, "1h"),
    (SettingKey::RetainOutput, "3 jobs"),
];

impl Wish {
    /// As it is enqueued.
    pub fn spec(&self) -> JobSpec {
        let queue = QUEUES[usize::from(self.queue) % QUEUES.len()];
        let env = [(b"N".to_vec(), vec![self.environment])];
        JobSpec {
            id: self.id.and_then(|id| id.parse().ok()),
            env: std::sync::Arc::new(env.into_iter().take(usize::from(self.environment)).collect()),
            max_retries: self.max_retries,
            backoff_base: self.backoff_base,
            timeout: self.timeout,
            queue: queue.parse().unwrap_or_else(|_| QueueName::default_queue()),
            priority: self.priority,
            start: self.start,
            name: JOB_NAMES.get(usize::from(self.name)).and_then(|name| name.parse().ok()),
            tags: self.tags(),
            key: KEYS.get(usize::from(self.key)).and_then(|key| key.parse().ok()),
            if_exists: self.if_exists,
            ..JobSpec::new(Command::Shell(vec![b':'; usize::from(self.length)]), "/")
        }
    }
}

impl Wish {
    fn tags(&self) -> Tags {
        let mut tags = Tags::default();
        for (bit, (key, value)) in TAGS.into_iter().enumerate().filter(|(bit, _)| self.tags & 1 << bit != 0) {
            tags.set(key, value).unwrap_or_else(|error| unreachable!("tag {bit}: {error}"));
        }
        tags
    }
}

impl End {
    /// As it is reported at a time.
    pub fn ending(self, at: Millis) -> Ending {
        let Some(outcome) = self.outcome else { return Ending::NotStarted };
        let wrote = usize::from(self.wrote);
        Ending::Ran(Run {
            slot: u32::from(self.wrote),
            started: Millis(at.0.saturating_sub(u64::from(self.took_ms))),
            ended: at,
            outcome,
            counts_as_loss: self.counts_as_loss,
            exit_code: (outcome == Outcome::Failed).then_some(1),
            signal: (outcome == Outcome::TimedOut).then_some(15),
            cpu: Duration::from_millis(u64::from(self.took_ms)),
            max_rss_bytes: u64::from(self.took_ms),
            error: (outcome == Outcome::Lost).then(|| "its pool died".to_owned()),
            stdout: if wrote == 0 { Kept::Empty } else { Kept::Inline(vec![b'o'; wrote]) },
            stderr: if wrote < 80 { Kept::Empty } else { Kept::File { bytes: 5_000, left_out: 1 } },
        })
    }
}

/// What a retry changes: mostly nothing.
fn terms(choices: &mut Choices<'_>) -> Terms {
    let timeouts = [TimeLimit::Unlimited, TimeLimit::After(Duration::from_millis(7))];
    Terms {
        max_retries: choices.percent(30).then(|| u32::from(choices.byte(3))),
        timeout: if choices.percent(30) { choices.one(&timeouts) } else { None },
    }
}

/// The operations of a seed.
pub fn seeded(seed: u64, steps: usize) -> Vec<Op> {
    let mut maker = Maker::new(Choices::seeded(seed));
    (0..steps).map(|_| maker.op()).collect()
}

/// The operations that these bytes stand for.
pub fn from_bytes(bytes: &[u8]) -> Vec<Op> {
    let mut maker = Maker::new(Choices::of_bytes(bytes));
    let mut ops = Vec::new();
    while !maker.choices.are_over() {
        ops.push(maker.op());
    }
    ops
}

/// What a workload has more of than others, to reach what takes many steps of one kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Even,
    /// Pools come and go.
    Restless,
    /// Pools die, and what that means for their jobs is set anew.
    Lossy,
    /// What has ended is removed soon.
    Tidy,
}

/// Makes operations, one after the other.
struct Maker<'b> {
    choices: Choices<'b>,
    clock: u64,
    mood: Mood,
}

impl<'b> Maker<'b> {
    fn new(mut choices: Choices<'b>) -> Self {
        let mood = match choices.below(10) {
            0..7 => Mood::Even,
            7 => Mood::Restless,
            8 => Mood::Lossy,
            _ => Mood::Tidy,
        };
        Self { choices, clock: 1_000_000_000, mood }
    }

    fn op(&mut self) -> Op {
        self.tick();
        let several = self.choices.percent(25);
        let verbs = if several { 2 + self.choices.byte(4) } else { 1 };
        let verbs = (0..verbs).map(|_| self.verb()).collect();
        Op { at: Millis(self.clock), verbs, kept: !self.choices.percent(8) }
    }

    /// Mostly a moment later, often by half seconds, so that due times are met exactly; now and then the clock is
    /// set, by up to days.
    fn tick(&mut self) {
        let (by, back) = match self.choices.below(100) {
            0..55 => (u64::from(self.choices.below(6)) * 500, false),
            55..65 => (u64::from(self.choices.below(3_000)), false),
            65..80 => (0, false),
            80..93 => (u64::from(self.choices.below(40)) * 500, false),
            93..95 => (7_200_000, false),
            95..98 => (u64::from(self.choices.below(600)) * 10_000, true),
            98 => (DAY_MS + u64::from(self.choices.below(100)) * 1_000_000, false),
            _ => (DAY_MS + u64::from(self.choices.below(100)) * 1_000_000, true),
        };
        self.clock = if back { self.clock.saturating_sub(by) } else { self.clock + by };
    }

    fn verb(&mut self) -> Verb {
        match self.mood {
            Mood::Restless if self.choices.percent(40) => self.pool_verb(),
            Mood::Lossy if self.choices.percent(15) => {
                Verb::Set(None, SettingKey::MaxLosses, self.choices.one(&["1", "2", "5", "5"]).unwrap_or("1"))
            }
            Mood::Tidy if self.choices.percent(15) => Verb::Remove(self.choices.some(3, ended)),
            Mood::Tidy if self.choices.percent(10) => clear(&mut self.choices),
            Mood::Tidy if self.choices.percent(10) => Verb::Sweep,
            Mood::Tidy if self.choices.percent(4) => Verb::Set(None, SettingKey::RetainOutput, "0s"),
            Mood::Even | Mood::Restless | Mood::Lossy | Mood::Tidy => self.any_verb(),
        }
    }

    fn any_verb(&mut self) -> Verb {
        let choices = &mut self.choices;
        match choices.below(177) {
            0..20 => Verb::Enqueue(self.wishes()),
            20..42 => Verb::Claim { pool: choices.byte(POOLS), serves: serving(choices), limit: choices.byte(5) },
            42..70 => Verb::Finish { claim: which(choices), end: self.end() },
            70..80 => Verb::Promote(choices.byte(6)),
            80..86 => Verb::Cancel(choices.some(3, unended)),
            86..91 => Verb::Retry(choices.some(3, retryable), terms(choices)),
            91..94 => Verb::Remove(choices.some(2, ended)),
            94..108 => self.pool_verb(),
            108..114 => {
                Verb::StartRun { identity: choices.byte(RUNS), fresh: choices.percent(20), wishes: self.wishes() }
            }
            114..118 => {
                let (key, value) = choices.one(&VALUES).unwrap_or(VALUES[0]);
                Verb::Set(scope(choices), key, value)
            }
            118..121 => Verb::BeginBulk { queues: choices.byte(8), jobs: choices.byte(6) },
            121..129 => Verb::FillBulk { bulk: choices.byte(4), wishes: self.wishes() },
            129..131 => {
                Verb::PublishBulk { bulk: choices.byte(4), identity: choices.byte(RUNS), fresh: choices.percent(30) }
            }
            131..133 => Verb::UndoBulk { bulk: choices.byte(4), limit: choices.byte(5) },
            133..137 => Verb::NameBulk { bulk: choices.byte(4), limit: choices.byte(6) },
            137..139 => clear(choices),
            139..143 => Verb::Sweep,
            143..148 => Verb::Edit { who: who(choices), wish: wish(choices, self.clock), what: choices.byte(255) },
            148..166 => Verb::Settle(choices.one(&[0, 1, 2, 3, 100, 100, 100]).unwrap_or(1)),
            166..170 => Verb::Hold(choices.some(2, who)),
            170..174 => Verb::Release(choices.some(3, who)),
            _ => {
                let (key, _) = choices.one(&VALUES).unwrap_or(VALUES[0]);
                // What is paused would be so for the rest.
                let key = if choices.percent(30) { SettingKey::Paused } else { key };
                if choices.percent(30) { Verb::UnsetEverywhere(key) } else { Verb::Unset(scope(choices), key) }
            }
        }
    }

    fn pool_verb(&mut self) -> Verb {
        let choices = &mut self.choices;
        let pool = choices.byte(POOLS);
        match choices.below(15) {
            14 => Verb::Scale { pool, workers: 1 + choices.byte(3) },
            0..8 => Verb::Register { pool, again: choices.percent(10) },
            8..10 => Verb::Ask {
                pool,
                asked: choices.one(&[Asked::Stop, Asked::StopNow, Asked::Work]).unwrap_or(Asked::Stop),
            },
            10 => Verb::Retire(pool),
            _ => Verb::Recover { pool, ends: choices.some(3, end_of_the_dead) },
        }
    }

    fn end(&mut self) -> End {
        let lossy = self.mood == Mood::Lossy && self.choices.percent(60);
        let choices = &mut self.choices;
        let outcome = match choices.below(100) {
            _ if lossy => Some(Outcome::Lost),
            0..27 => Some(Outcome::Completed),
            27..58 => Some(Outcome::Failed),
            58..68 => Some(Outcome::TimedOut),
            68..76 => Some(Outcome::Cancelled),
            76..83 => Some(Outcome::Interrupted),
            83..92 => Some(Outcome::Lost),
            _ => None,
        };
        End { outcome, ..end_of_the_dead(choices) }
    }

    fn wishes(&mut self) -> Vec<Wish> {
        let clock = self.clock;
        if self.choices.percent(3) {
            return Vec::new();
        }
        self.choices.some(4, |choices| wish(choices, clock))
    }
}

fn wish(choices: &mut Choices<'_>, clock: u64) -> Wish {
    Wish {
        id: if choices.percent(35) { choices.one(&NAMES) } else { None },
        queue: choices.byte(3),
        priority: choices.one(&[0, 0, 0, 1, 2, -1, -2]).unwrap_or_default(),
        max_retries: choices.one(&[None, None, Some(0), Some(1), Some(2)]).flatten(),
        backoff_base: choices
            .one(&[None, None, None, Some(0.0), Some(0.5), Some(1.0), Some(2.5), Some(1000.0)])
            .flatten(),
        timeout: choices.one(&[None, None, Some(TimeLimit::Unlimited)]).flatten(),
        start: start(choices, clock),
        needs: if choices.percent(30) { choices.some(2, need) } else { Vec::new() },
        name: choices.byte(8),
        tags: choices.one(&[0, 0, 0, 1, 2, 3, 5, 12]).unwrap_or_default(),
        key: if choices.percent(20) { choices.byte(3) } else { u8::MAX },
        if_exists: choices.one(&IfExists::ALL).unwrap_or_default(),
        environment: choices.byte(3),
        length: if choices.percent(3) { 1_000 + choices.below(60_000) } else { 1 },
    }
}

/// Seldom one that does not exist.
fn need(choices: &mut Choices<'_>) -> (Whom, bool) {
    let whom = match choices.below(10) {
        0..3 => Whom::Earlier(choices.byte(4)),
        3 => Whom::Any(Who::Named(choices.one(&NAMES).unwrap_or("a"))),
        4..7 => Whom::Any(Who::Held(choices.next())),
        _ => Whom::Any(Who::Nth(choices.next())),
    };
    (whom, choices.percent(40))
}

/// Often one that has passed, or comes soon.
fn start(choices: &mut Choices<'_>, clock: u64) -> Start {
    let moment = u64::from(choices.below(18)) * 500;
    match choices.below(20) {
        0..6 => Start::At(Millis((clock + moment).saturating_sub(2_000))),
        6 => Start::After(Duration::from_millis(moment)),
        _ => Start::Now,
    }
}

fn clear(choices: &mut Choices<'_>) -> Verb {
    Verb::Clear { state: choices.byte(3), ago: choices.byte(12), limit: 1 + choices.byte(4) }
}

fn serving(choices: &mut Choices<'_>) -> Serving {
    match choices.below(10) {
        0..5 => Serving::All,
        5..8 => Serving::Queues(choices.byte(8)),
        _ => Serving::Run(choices.byte(3)),
    }
}

fn which(choices: &mut Choices<'_>) -> Which {
    if choices.percent(80) { Which::Held(choices.next()) } else { Which::Any(choices.next()) }
}

fn who(choices: &mut Choices<'_>) -> Who {
    match choices.one(&NAMES) {
        Some(name) if choices.percent(25) => Who::Named(name),
        Some(_) | None => Who::Nth(choices.next()),
    }
}

/// Not seldom one that runs.
fn unended(choices: &mut Choices<'_>) -> Who {
    if choices.percent(40) { Who::Held(choices.next()) } else { who(choices) }
}

/// Often one that may be retried.
fn retryable(choices: &mut Choices<'_>) -> Who {
    if choices.percent(30) { Who::Ended(choices.next()) } else { who(choices) }
}

/// Most likely one that may be removed.
fn ended(choices: &mut Choices<'_>) -> Who {
    if choices.percent(65) { Who::Ended(choices.next()) } else { who(choices) }
}

/// How a claim of a dead pool ends: lost, if it had started, unless its board tells more.
fn end_of_the_dead(choices: &mut Choices<'_>) -> End {
    End {
        outcome: choices.one(&[Some(Outcome::Lost), Some(Outcome::Lost), None, Some(Outcome::Completed)]).flatten(),
        counts_as_loss: choices.percent(75),
        took_ms: choices.below(5_000),
        wrote: choices.byte(255).saturating_sub(150),
    }
}

/// Half of the settings are those of one queue.
fn scope(choices: &mut Choices) -> Option<u8> {
    choices.percent(50).then(|| choices.byte(3))
}
