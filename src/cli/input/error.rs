//! What can be wrong with an input, in words that say where and what would be right.

use std::fmt;

use super::super::bytes;
use super::super::render::human::plain;
use crate::model::{BadKey, BadLabel, BadName, BadSpec, Command, JobId, JobKey, LINE_BYTES_MAX};

/// Most characters of an input that a message repeats: more would bury what it says.
const SHOWN_CHARS_MAX: usize = 60;

/// Why an input is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    /// Something is wrong with one job.
    #[error("{}{problem}", .at.map(|at| format!("{at}: ")).unwrap_or_default())]
    Job {
        /// Where, as far as that is known.
        at: Option<At>,
        /// What.
        problem: Problem,
    },
    /// Two jobs of a batch have the same id.
    #[error("line {line}: the id `{id}` is taken by line {first}; give each job its own, or none")]
    DuplicateId {
        /// The id.
        id: JobId,
        /// The line that has it first.
        first: usize,
        /// The line that has it again.
        line: usize,
    },
    /// A job of a batch waits for one that comes after it.
    #[error("line {line}: it waits for the job of line {later}; put that before it")]
    NeedsLater {
        /// Its line.
        line: usize,
        /// The line of the other.
        later: usize,
    },
    /// Two jobs of a large batch have the same key, and the second is not to be left out for it.
    #[error("line {line}: the key `{}` is that of line {first}", plain(key.as_str()))]
    DuplicateKey {
        /// The key.
        key: JobKey,
        /// The line that has it first.
        first: usize,
        /// The line that has it again.
        line: usize,
    },
    /// It is not the same when it is read a second time.
    #[error("it was changed while it was read: nothing was done; type it again")]
    Changed,
    /// The system does not let it be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl InputError {
    /// The same error, found in this line of a batch.
    pub(super) fn in_line(self, line: usize) -> Self {
        match self {
            Self::Job { at, problem } => {
                Self::Job { at: Some(At { line, column: at.and_then(|at| at.column) }), problem }
            }
            Self::DuplicateId { .. }
            | Self::DuplicateKey { .. }
            | Self::NeedsLater { .. }
            | Self::Changed
            | Self::Unreadable(_) => self,
        }
    }
}

impl InputError {
    /// What serde has to say of `text`.
    pub(in crate::cli) fn of_json(error: &serde_json::Error, text: &[u8]) -> Self {
        let (line, column) = (error.line(), error.column());
        // The place goes first, as for all other errors.
        let said = error.to_string();
        let what = said.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&said).to_owned();
        let problem = if error.is_data() { Problem::Twice(what) } else { Problem::Syntax(what) };
        let at = (line > 0).then(|| match column {
            // A newline where none may be: it ends its line, and serde counts it as the start of the next.
            0 if line > 1 => {
                let before = text.split(|byte| *byte == b'\n').nth(line - 2).map_or(0, <[u8]>::len);
                At { line: line - 1, column: Some(before + 1) }
            }
            _ => At { line, column: Some(column) },
        });
        Self::Job { at, problem }
    }
}

impl From<Problem> for InputError {
    fn from(problem: Problem) -> Self {
        Self::Job { at: None, problem }
    }
}

/// A place in an input, counted from 1; columns are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// The line.
    pub line: usize,
    /// The column, for errors of JSON.
    pub column: Option<usize>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        self.column.map_or(Ok(()), |column| write!(f, ", column {column}"))
    }
}

/// What is wrong with one job. The texts inside are fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// Nothing but white space where one job was expected.
    #[error(r#"there is no job in an empty text; one looks like {{"command":"echo hi"}}"#)]
    Empty,
    /// Most likely a shell command.
    #[error("`{text}` is not JSON of a job, which starts with `{{`; for a shell command, type: queuectl {as_command}")]
    NotJson {
        /// What was given.
        text: String,
        /// The words after `queuectl` that enqueue it as a shell command.
        as_command: String,
    },
    /// A JSON array where one job was expected.
    #[error("a list is not taken; write one JSON object a line and type: queuectl enqueue --file FILE")]
    List,
    /// A line without an object among JSON lines.
    #[error("`{0}` is not JSON of a job, which starts with `{{`; --lines takes each line as a shell command")]
    NotJsonLine(String),
    /// Malformed JSON.
    #[error("this is not valid JSON: {0}")]
    Syntax(String),
    /// A field is given twice in one object.
    #[error("{0}")]
    Twice(String),
    /// Something follows the object.
    #[error(
        "there is more after the `}}` that ends the job; many jobs go one a line, to: queuectl enqueue --file FILE"
    )]
    Trailing,
    /// A field that jobs do not have.
    #[error("there is no field `{name}`; {hint}")]
    UnknownField {
        /// Its name.
        name: String,
        /// Which may have been meant.
        hint: String,
    },
    /// A value that its field does not take.
    #[error("`{field}` takes {takes}, not {given}")]
    Field {
        /// The field.
        field: String,
        /// What it takes.
        takes: String,
        /// What it was given, as JSON in backticks, or in words.
        given: String,
    },
    /// Nothing to execute is named.
    #[error(r#"a job needs `command`, a text for the shell, or `argv`, a list such as ["echo","hi"]"#)]
    NoCommand,
    /// Two things to execute are named.
    #[error("a job takes `command` or `argv`, not both")]
    TwoCommands,
    /// Two times to start are given.
    #[error("a job takes `delay` or `at`, not both")]
    TwoStarts,
    /// What becomes of a job whose key another has, of a job without a key.
    #[error("`if_exists` needs `key`")]
    NoKey,
    /// A key that is none.
    #[error("{}", plain(&.0.to_string()))]
    Key(#[from] BadKey),
    /// A time that does not exist, or exists twice.
    #[error("{0}")]
    Unclear(String),
    /// A name or a tag that is none.
    #[error("{}", plain(&.0.to_string()))]
    Label(#[from] BadLabel),
    /// An id or queue name that is none.
    #[error("{}", plain(&.0.to_string()))]
    Name(#[from] BadName),
    /// What `execve` or the model does not take.
    #[error("{0}")]
    Spec(BadSpec),
    /// A line that no job needs.
    #[error(
        "the line of {0} bytes is too long: at most {LINE_BYTES_MAX} are taken; put the command into a script file"
    )]
    LongLine(usize),
}

impl Problem {
    /// `text`, where one object was expected, starts with something else.
    pub(super) fn no_object(text: &[u8]) -> Self {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Self::Empty;
        }
        if text.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{")) {
            return Self::List;
        }
        let text = shown(text);
        let words = ["enqueue", "-c", &text].map(|word| word.as_bytes().to_vec());
        Self::NotJson { as_command: Command::Argv(words.into()).to_string(), text }
    }

    /// `field` takes something else.
    pub(super) fn field(field: &str, takes: impl fmt::Display, given: &serde_json::Value) -> Self {
        let given = format!("`{}`", shown(given.to_string().as_bytes()));
        Self::Field { field: shown(field.as_bytes()), takes: takes.to_string(), given }
    }

    /// The same of a field whose values may be secrets: the message does not repeat them.
    pub(super) fn secret_field(field: &str, takes: impl fmt::Display, given: &serde_json::Value) -> Self {
        use serde_json::Value;
        let given = match given {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "such an object",
        };
        Self::Field { field: shown(field.as_bytes()), takes: takes.to_string(), given: given.to_owned() }
    }

    /// `field` takes text.
    pub(super) fn text_field(field: &str, given: &serde_json::Value) -> Self {
        Self::field(field, bytes::TAKES, given)
    }
}

impl From<BadSpec> for Problem {
    /// Names of variables come from the input and may be of any length.
    fn from(bad: BadSpec) -> Self {
        let shown = |name: String| shown(name.as_bytes());
        Self::Spec(match bad {
            BadSpec::BadVariable(name) => BadSpec::BadVariable(shown(name)),
            BadSpec::VariableTooLong(name) => BadSpec::VariableTooLong(shown(name)),
            BadSpec::EmptyCommand
            | BadSpec::Nul
            | BadSpec::ArgumentTooLong(_)
            | BadSpec::TooLong { .. }
            | BadSpec::FolderTooLong(_)
            | BadSpec::TooManyNeeds(_)
            | BadSpec::NeedsItself
            | BadSpec::RelativeFolder(_) => bad,
        })
    }
}

/// The start of a text from an input, on one line and harmless to a terminal.
pub(super) fn shown(text: &[u8]) -> String {
    // No character has more than four bytes: this is more than enough, however long the text is.
    let start = &text[..text.len().min(4 * (SHOWN_CHARS_MAX + 1))];
    let start = String::from_utf8_lossy(start);
    let mut chars = start.chars();
    let head: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    plain(&head) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_wild_texts_are_shown_short_and_tame() {
        let x60 = "x".repeat(60);
        for (text, short) in [
            (&b"echo hi"[..], "echo hi"),
            (b"a\n\x1b[2J\0\x7f\t", r"a\n\u{1b}[2J\u{0}\u{7f}\t"),
            ("é\u{9b}☃".as_bytes(), r"é\u{9b}☃"),
            (b"\xff", "\u{fffd}"),
            (x60.as_bytes(), x60.as_str()),
            (format!("{x60}y").as_bytes(), &format!("{x60}…")),
            ("😀".repeat(1000).as_bytes(), &format!("{}…", "😀".repeat(60))),
        ] {
            assert_eq!(shown(text), short);
        }
    }
}
