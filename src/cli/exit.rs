//! How a command ends: its exit code, and what it says when something is wrong.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use super::commands::status::shell_word;
use super::render::human;
use crate::queue::BadFolder;
use crate::store::StoreError;
use crate::worker::PoolError;

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done.
    Done,
    /// Jobs failed.
    JobsFailed,
    /// The command line or the input is wrong.
    Usage,
    /// There is no such job, queue or key.
    NotFound,
    /// A duplicate id, or a job in the wrong state.
    Refused,
    /// The queue file cannot be used.
    QueueUnusable,
    /// Timed out waiting.
    TimedOut,
    /// Anything else.
    Other,
    /// Stopped before the end.
    Stopped,
    /// The code of a job's command.
    Of(u8),
}

impl Exit {
    /// What an error of the system comes to. A full disk is one thing, wherever it is met.
    pub(super) fn of_system(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::QueueUnusable,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::JobsFailed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Refused => 4,
            Exit::QueueUnusable => 5,
            Exit::TimedOut => 6,
            Exit::Other => 7,
            Exit::Stopped => 130,
            Exit::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::from(exit))
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub exit: Exit,
    /// In words; `None` if everything was said already.
    pub message: Option<String>,
    /// What to type next: one of these lines.
    pub next: Vec<String>,
    /// Why the standard output could not be written, if it is that.
    unheard: Option<String>,
}

/// What could not be written to the standard output.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(super) struct Unheard(pub io::Error);

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: Some(human::plain(&message.to_string())), next: Vec::new(), unheard: None }
    }

    /// A file or a folder that cannot be written.
    pub(super) fn of_writing(path: &Path, error: &io::Error) -> Self {
        Self::new(Exit::of_system(error), format!("cannot write to {}: {error}", path.display()))
    }

    /// A failure that was told already.
    pub(super) fn silent(exit: Exit) -> Self {
        Self { exit, message: None, next: Vec::new(), unheard: None }
    }

    /// With what was done all the same, if only the result could not be written.
    pub(super) fn after(mut self, done: impl Display) -> Self {
        if let Some(why) = self.unheard.take() {
            self.message =
                Some(human::plain(&format!("{done}, but this could not be written to standard output: {why}")));
        }
        self
    }

    /// With the line to type next.
    pub(super) fn next(self, line: impl Display) -> Self {
        Self { next: vec![human::plain(&line.to_string())], ..self }
    }

    /// With another line to type instead.
    pub(super) fn or(mut self, line: impl Display) -> Self {
        self.next.push(human::plain(&line.to_string()));
        self
    }

    /// The lines to type next, as they are shown: with the queue that was named in the command line.
    pub(super) fn lines(&self) -> String {
        lines(["try:"].into_iter().chain(std::iter::repeat("or: ")), &self.next)
    }

    /// With something before its message, such as the name of a file.
    pub(super) fn of(self, what: impl Display) -> Self {
        Self { message: self.message.map(|message| format!("{what}: {message}")), ..self }
    }

    /// With something after it.
    pub(super) fn and(self, what: impl Display) -> Self {
        Self { message: self.message.map(|message| format!("{message}; {what}")), ..self }
    }
}

/// What `--db` said in the command line of this process: lines to type name it, too.
static DB: OnceLock<String> = OnceLock::new();

/// Notes what `--db` said.
pub(super) fn note_db(db: &OsStr) {
    let _ = DB.set(human::plain(&format!("queuectl --db {} ", shell_word(&db.to_string_lossy()))));
}

/// Talk about something, with all of the lines to type that are its way out.
pub(super) fn with_lines((what, next): (String, Vec<String>)) -> String {
    let lines = lines(["try:"].into_iter().chain(std::iter::repeat("and:")), &next);
    format!("{what}\n{lines}").trim_end().to_owned()
}

fn lines<'w>(words: impl Iterator<Item = &'w str>, next: &[String]) -> String {
    let line = |(word, next): (&str, &String)| match DB.get() {
        // What is typed in another folder has worked there as it is.
        Some(db) if !next.contains("--db") && !next.starts_with("cd ") => {
            format!("  {word} {}\n", next.replacen("queuectl ", db, 1))
        }
        _ => format!("  {word} {next}\n"),
    };
    words.zip(next).map(line).collect()
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::NoQueue(_) | StoreError::NoSuchJob(_) => Exit::NotFound,
            StoreError::Duplicate(_)
            | StoreError::Reserved(_)
            | StoreError::KeyTaken { .. }
            | StoreError::KeyTwice(_)
            | StoreError::KeyReserved(_)
            | StoreError::Contradiction(_)
            | StoreError::NeedEnded { .. }
            | StoreError::NeededUnseen(_)
            | StoreError::NeedsNewer { .. }
            | StoreError::NeedsTooMany { .. }
            | StoreError::Changed(_)
            | StoreError::OfRun(_)
            | StoreError::Refused { .. } => Exit::Refused,
            StoreError::BadValue(_)
            | StoreError::OfAllQueues(_)
            | StoreError::TooLarge(_)
            | StoreError::Unfit { .. }
            | StoreError::NeedsLater(_) => Exit::Usage,
            StoreError::Damaged(_)
            | StoreError::NotAQueue(_)
            | StoreError::Schema { .. }
            | StoreError::ReadOnly(_)
            | StoreError::Replaced
            | StoreError::Gone
            | StoreError::NotRewritten(_)
            | StoreError::Io(_)
            | StoreError::CommitFailed(_) => Exit::QueueUnusable,
        };
        let failure = Self::new(exit, &error);
        if matches!(error, StoreError::Damaged(_)) {
            return failure.next("queuectl check    tells what is damaged, and what can be done");
        }
        if matches!(error, StoreError::NotAQueue(_)) {
            return failure.next("queuectl restore BACKUP    if you have a backup");
        }
        if let StoreError::NoSuchJob(_) = &error {
            return failure.next("queuectl list");
        }
        if let StoreError::Duplicate(id) = &error {
            return failure.next(format_args!("queuectl show {id}    tells of that one; give the new one another id"));
        }
        if let StoreError::NeedEnded { id, .. } = &error {
            return failure.next(format_args!("queuectl retry {id}    then the same line again"));
        }
        if error.outcome_is_unknown() {
            return failure.next("queuectl status    tells whether it happened all the same");
        }
        failure
    }
}

impl From<BadFolder> for Failure {
    fn from(error: BadFolder) -> Self {
        Self::new(Exit::QueueUnusable, error)
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Store(error) => error.into(),
            PoolError::QueueMoved(_) | PoolError::Unwritten => Self::new(Exit::QueueUnusable, error),
            PoolError::System { error: ref why, .. } => Self::new(Exit::of_system(why), error),
        }
    }
}

impl From<io::Error> for Failure {
    /// A closed pipe is how readers say that they have enough.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(Exit::Done);
        }
        match error.downcast::<Unheard>() {
            Ok(unheard) => Self { unheard: Some(unheard.0.to_string()), ..Self::new(Exit::Other, unheard) },
            Err(error) => Self::new(Exit::of_system(&error), error),
        }
    }
}
