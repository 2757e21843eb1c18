//! What a user submits, and what is remembered of its runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{
    ARGUMENT_BYTES_MAX, DURATION_MAX, IfExists, JobId, JobKey, JobName, Millis, NEEDS_MAX, Need, Outcome,
    PATH_BYTES_MAX, QueueName, Tags, WorkerId, parse_duration, show_duration,
};

/// What a job executes. Bytes, since neither has to be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A text for the shell.
    Shell(Vec<u8>),
    /// A program and its arguments, executed as given.
    Argv(Vec<Vec<u8>>),
}

impl fmt::Display for Command {
    /// For people: lossy where it is not UTF-8, arguments quoted where they need it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(text) => f.pad(&String::from_utf8_lossy(text)),
            Self::Argv(words) => {
                let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                f.pad(&quoted.join(" "))
            }
        }
    }
}

/// A word as a shell would need it.
fn quoted(word: &[u8]) -> String {
    let word = String::from_utf8_lossy(word);
    let plain = |c: char| c.is_alphanumeric() || "_-./:,+@%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How long a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// As long as it likes.
    Unlimited,
    /// This long; time spent stopped or suspended does not count.
    After(Duration),
}

impl FromStr for TimeLimit {
    type Err = ();

    /// `none`, or a duration from 1 ms to a year.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "none" {
            return Ok(Self::Unlimited);
        }
        parse_duration(text).and_then(Self::from_duration).ok_or(())
    }
}

impl TimeLimit {
    /// A limit of 1 ms to a year, cut to whole milliseconds, as it is stored.
    pub fn from_duration(limit: Duration) -> Option<Self> {
        let limit = Duration::new(limit.as_secs(), limit.subsec_millis() * 1_000_000);
        (Duration::from_millis(1)..=DURATION_MAX).contains(&limit).then_some(Self::After(limit))
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("none"),
            Self::After(limit) => f.write_str(&show_duration(*limit)),
        }
    }
}

/// Environment variables: names to values, both bytes.
pub type Environment = BTreeMap<Vec<u8>, Vec<u8>>;

/// A job's changes to the environment of its `enqueue`: `None` unsets.
pub type EnvChange = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Whether `name` is a variable that jobs do not inherit from their `enqueue`: it belongs to the shell
/// that typed it, or is set anew for each run.
pub fn pool_variable(name: &[u8]) -> bool {
    matches!(name, b"PWD" | b"OLDPWD" | b"SHLVL" | b"_") || name.starts_with(b"QUEUECTL_")
}

/// What a user submits. What is `None` follows the settings at the moment it is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// What to call it; `None` for its number.
    pub id: Option<JobId>,
    /// What to execute.
    pub command: Command,
    /// Where: an absolute folder.
    pub cwd: PathBuf,
    /// With which variables.
    pub env: std::sync::Arc<Environment>,
    /// Changed how.
    pub env_change: EnvChange,
    /// Retries after the first attempt.
    pub max_retries: Option<u32>,
    /// The delay after the n-th failure is this to the power of n, in seconds.
    pub backoff_base: Option<f64>,
    /// How long it may run.
    pub timeout: Option<TimeLimit>,
    /// The words before a shell command.
    pub shell: Option<Vec<String>>,
    /// In which queue it waits.
    pub queue: QueueName,
    /// −100 to 100, higher first.
    pub priority: i8,
    /// Not before this.
    pub start: Start,
    /// What it waits for.
    pub needs: Vec<Need>,
    /// What people call it: others may have the same name.
    pub name: Option<JobName>,
    /// What it is found by.
    pub tags: Tags,
    /// What it is enqueued under, so that it is enqueued once.
    pub key: Option<JobKey>,
    /// What becomes of it if another job has that key.
    pub if_exists: IfExists,
}

/// When a job may start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// At this time; at once if it has passed.
    At(Millis),
    /// So long after it was enqueued.
    After(Duration),
}

impl Start {
    /// When a job that is enqueued `now` starts, if it has to wait for that.
    pub fn due(self, now: Millis) -> Option<Millis> {
        let due = match self {
            Self::Now => return None,
            Self::At(at) => at,
            Self::After(delay) => now.after(delay),
        };
        (due > now).then_some(due)
    }
}

impl JobSpec {
    /// A job that runs `command` in `cwd` with an empty environment and everything else left to the
    /// settings.
    pub fn new(command: Command, cwd: impl Into<PathBuf>) -> Self {
        Self {
            id: None,
            command,
            cwd: cwd.into(),
            env: std::sync::Arc::default(),
            env_change: EnvChange::new(),
            max_retries: None,
            backoff_base: None,
            timeout: None,
            shell: None,
            queue: QueueName::default_queue(),
            priority: 0,
            start: Start::Now,
            needs: Vec::new(),
            name: None,
            tags: Tags::default(),
            key: None,
            if_exists: IfExists::default(),
        }
    }

    /// Whether the job could be executed at all, as far as can be told without executing it.
    /// `exec_bytes_max` is how many bytes of arguments and environment `execve` takes here.
    pub fn check(&self, exec_bytes_max: usize) -> Result<(), BadSpec> {
        let strings = match &self.command {
            Command::Shell(text) if text.iter().all(u8::is_ascii_whitespace) => return Err(BadSpec::EmptyCommand),
            Command::Shell(text) => std::slice::from_ref(text),
            Command::Argv(words) if words.first().is_none_or(Vec::is_empty) => return Err(BadSpec::EmptyCommand),
            Command::Argv(words) => words.as_slice(),
        };
        // What execve counts: each string with its NUL, and a pointer to it.
        let shell = self.shell.iter().flatten().map(String::as_bytes);
        let mut total = 0;
        for string in strings.iter().map(Vec::as_slice).chain(shell) {
            if string.contains(&0) {
                return Err(BadSpec::Nul);
            }
            if string.len() >= ARGUMENT_BYTES_MAX {
                return Err(BadSpec::ArgumentTooLong(string.len()));
            }
            total += string.len() + 1 + size_of::<usize>();
        }
        total += self.environment_bytes()?;
        if total > exec_bytes_max {
            return Err(BadSpec::TooLong { bytes: total, limit: exec_bytes_max });
        }
        let folder = self.cwd.as_os_str().as_encoded_bytes();
        if folder.contains(&0) {
            return Err(BadSpec::Nul);
        }
        if folder.len() >= PATH_BYTES_MAX {
            return Err(BadSpec::FolderTooLong(folder.len()));
        }
        if !self.cwd.is_absolute() {
            return Err(BadSpec::RelativeFolder(self.cwd.clone()));
        }
        if self.needs.len() > NEEDS_MAX {
            return Err(BadSpec::TooManyNeeds(self.needs.len()));
        }
        if self.needs.iter().any(|need| Some(&need.id) == self.id.as_ref()) {
            return Err(BadSpec::NeedsItself);
        }
        Ok(())
    }

    fn environment_bytes(&self) -> Result<usize, BadSpec> {
        // What is unset counts by its name: the kernel does not care, but it is stored.
        let changes = self.env_change.iter().map(|(name, value)| (name, value.as_deref().unwrap_or_default()));
        let mut total = 0;
        for (name, value) in self.env.iter().map(|(name, value)| (name, value.as_slice())).chain(changes) {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
                return Err(BadSpec::BadVariable(String::from_utf8_lossy(name).into_owned()));
            }
            let bytes = name.len() + value.len() + 2;
            if bytes > ARGUMENT_BYTES_MAX {
                return Err(BadSpec::VariableTooLong(String::from_utf8_lossy(name).into_owned()));
            }
            total += bytes + size_of::<usize>();
        }
        Ok(total)
    }

    /// The environment that the job runs with, before what its pool adds.
    pub fn merged_env(env: &Environment, change: &EnvChange) -> Environment {
        let mut merged = env.clone();
        for (name, value) in change {
            match value {
                Some(value) => merged.insert(name.clone(), value.clone()),
                None => merged.remove(name),
            };
        }
        merged
    }
}

/// Why a job cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// There is nothing to execute.
    #[error("the command is empty")]
    EmptyCommand,
    /// The kernel ends strings at a NUL.
    #[error("a command, argument or folder has a NUL byte, which no program can be given")]
    Nul,
    /// `MAX_ARG_STRLEN`.
    #[error(
        "a command or argument of {0} bytes is too long: the kernel takes at most {max} bytes; put it into a script file",
        max = ARGUMENT_BYTES_MAX - 1
    )]
    ArgumentTooLong(usize),
    /// `ARG_MAX`.
    #[error("arguments and environment of {bytes} bytes are too long: the kernel takes at most {limit} bytes")]
    TooLong {
        /// How long they are.
        bytes: usize,
        /// What is taken here.
        limit: usize,
    },
    /// Not a name of a variable.
    #[error("`{0}` cannot be an environment variable: names are not empty and have no `=` or NUL, values no NUL")]
    BadVariable(String),
    /// `MAX_ARG_STRLEN`.
    #[error("the environment variable `{0}` is too long: the kernel takes at most {max} bytes", max = ARGUMENT_BYTES_MAX - 1)]
    VariableTooLong(String),
    /// `PATH_MAX`.
    #[error("a folder of {0} bytes is too long: the kernel takes at most {max} bytes", max = PATH_BYTES_MAX - 1)]
    FolderTooLong(usize),
    /// All of them are looked at at once.
    #[error("a job waits for at most {NEEDS_MAX} others, not {0}; let it wait for one that waits for some of them")]
    TooManyNeeds(usize),
    /// Then it would never run.
    #[error("the job waits for itself: it would never run")]
    NeedsItself,
    /// A job's folder has to mean the same to every pool.
    #[error("the folder {} is not absolute", .0.display())]
    RelativeFolder(PathBuf),
}

/// What is remembered of one started run.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// When it was started.
    pub started: Millis,
    /// When it ended, or was found to be gone.
    pub ended: Millis,
    /// How it ended.
    pub outcome: Outcome,
    /// Its exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that it died of, if it did.
    pub signal: Option<i32>,
    /// User and system time.
    pub cpu: Duration,
    /// Largest resident set, in bytes.
    pub max_rss_bytes: u64,
    /// What went wrong, in words.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: impl Into<Vec<u8>>) -> JobSpec {
        JobSpec::new(Command::Shell(text.into()), "/")
    }

    #[test]
    fn what_execve_does_not_take_is_refused() {
        const MAX: usize = 2 * 1024 * 1024;
        assert_eq!(shell("echo").check(MAX), Ok(()));
        assert_eq!(shell(vec![b'x'; ARGUMENT_BYTES_MAX - 1]).check(MAX), Ok(()));
        assert_eq!(shell(vec![b'x'; 131_072]).check(MAX), Err(BadSpec::ArgumentTooLong(131_072)));
        assert_eq!(shell(" \n").check(MAX), Err(BadSpec::EmptyCommand));
        assert_eq!(shell("a\0b").check(MAX), Err(BadSpec::Nul));
        let argv = |words: Vec<Vec<u8>>| JobSpec::new(Command::Argv(words), "/").check(MAX);
        assert_eq!(argv(vec![]), Err(BadSpec::EmptyCommand));
        assert!(matches!(argv(vec![vec![b'x'; 100_000]; 30]), Err(BadSpec::TooLong { .. })));
        let mut job = shell("echo");
        job.env_change.insert(b"A=".to_vec(), Some(vec![]));
        assert_eq!(job.check(MAX), Err(BadSpec::BadVariable("A=".to_owned())));
        assert!(matches!(
            JobSpec::new(Command::Shell(b"x".to_vec()), "rel").check(MAX),
            Err(BadSpec::RelativeFolder(_))
        ));
    }

    /// Everything of a spec is bounded, or its record would become too large to be read.
    #[test]
    fn what_a_job_says_besides_its_command_is_bounded_too() {
        const MAX: usize = 2 * 1024 * 1024;
        let in_folder = |bytes: usize| JobSpec::new(Command::Shell(b"x".to_vec()), "/".repeat(bytes)).check(MAX);
        assert_eq!((in_folder(4_095), in_folder(4_096)), (Ok(()), Err(BadSpec::FolderTooLong(4_096))));
        let under = |words: &[String]| JobSpec { shell: Some(words.to_vec()), ..shell("x") }.check(MAX);
        assert_eq!(under(&["sh".to_owned(), "-c".to_owned()]), Ok(()));
        assert_eq!(under(&["x".repeat(131_072)]), Err(BadSpec::ArgumentTooLong(131_072)));
        assert!(matches!(under(&vec![String::new(); 250_000]), Err(BadSpec::TooLong { .. })));
        let unset = |names: Vec<Vec<u8>>| {
            JobSpec { env_change: names.into_iter().map(|name| (name, None)).collect(), ..shell("x") }.check(MAX)
        };
        assert_eq!(unset(vec![b"A".to_vec()]), Ok(()));
        assert_eq!(unset(vec![b"A=".to_vec()]), Err(BadSpec::BadVariable("A=".to_owned())));
        let many = (0..200_000_u32).map(|n| n.to_string().into_bytes()).collect();
        assert!(matches!(unset(many), Err(BadSpec::TooLong { .. })));
    }

    #[test]
    fn a_start_that_has_passed_is_now() {
        let now = Millis(1_000);
        assert_eq!(Start::Now.due(now), None);
        assert_eq!((Start::At(Millis(1_000)).due(now), Start::At(Millis(1_001)).due(now)), (None, Some(Millis(1_001))));
        let after = |delay| Start::After(delay).due(now);
        assert_eq!((after(Duration::ZERO), after(Duration::from_millis(5))), (None, Some(Millis(1_005))));
        assert_eq!(after(DURATION_MAX), Some(Millis(1_000 + 365 * 86_400_000)));
    }

    /// They are stored so.
    #[test]
    fn time_limits_are_whole_milliseconds() {
        let limit = TimeLimit::from_duration(Duration::from_micros(1_999));
        assert_eq!(limit, Some(TimeLimit::After(Duration::from_millis(1))));
        assert_eq!("1ms 999us".parse(), Ok(TimeLimit::After(Duration::from_millis(1))));
        assert_eq!(TimeLimit::from_duration(Duration::from_micros(999)), None);
    }

    #[test]
    fn commands_show_as_a_shell_would_take_them() {
        let argv = Command::Argv(vec![b"echo".to_vec(), b"a b".to_vec(), b"it's".to_vec(), vec![]]);
        assert_eq!(argv.to_string(), r"echo 'a b' 'it'\''s' ''");
    }

    #[test]
    fn changes_set_and_unset() {
        let env = Environment::from([(b"A".to_vec(), b"1".to_vec()), (b"B".to_vec(), b"2".to_vec())]);
        let change = EnvChange::from([(b"A".to_vec(), None), (b"C".to_vec(), Some(b"3".to_vec()))]);
        let merged = JobSpec::merged_env(&env, &change);
        assert_eq!(merged.into_keys().collect::<Vec<_>>(), [b"B".to_vec(), b"C".to_vec()]);
    }
}
