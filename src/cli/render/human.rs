//! Text for people: relative times, short commands, colours by state.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::presets;
use comfy_table::{ContentArrangement, Row, Table};

use super::super::terminal::acts;
use crate::model::{CancelReason, Job, JobName, Millis, Progress, QueueName, State, StateKind};

/// Width of a table when it does not go to a terminal, in columns.
const WIDTH_WITHOUT_TERMINAL: u16 = 120;

/// The colour of a state.
pub(crate) fn style(kind: StateKind) -> Style {
    let color = match kind {
        StateKind::Scheduled | StateKind::Blocked => AnsiColor::Cyan,
        StateKind::Pending => AnsiColor::Blue,
        StateKind::Processing | StateKind::Failed => AnsiColor::Yellow,
        StateKind::Completed => AnsiColor::Green,
        StateKind::Dead => AnsiColor::Red,
        StateKind::Cancelled => AnsiColor::Magenta,
    };
    color.on_default()
}

/// A state in its colour.
pub(crate) fn state(kind: StateKind) -> String {
    let style = style(kind);
    format!("{style}{}{style:#}", kind.name())
}

/// Text that changes nothing on a terminal and stays on its line: what acts there is escaped.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            let _ = write!(plain, "{}", c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// The name of a file, harmless.
pub(crate) fn path(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

/// A job in a line about it: its id, and its name if it has one.
pub(crate) fn called(id: &str, name: Option<&JobName>) -> String {
    const CHARS_MAX: usize = 24;
    let Some(name) = name else { return id.to_owned() };
    format!("{id} ({})", cut(&plain(name.as_str()), CHARS_MAX))
}

/// A sentence as it stands alone.
pub(crate) fn capital(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The start of a text.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

/// What a job has that most have not: its queue, its priority, its tags.
pub(crate) fn marks(job: &Job) -> String {
    let queue = (job.queue != QueueName::default_queue()).then(|| job.queue.to_string());
    let priority = (job.priority != 0).then(|| format!("priority {}", job.priority));
    let tags = (!job.tags.is_empty()).then(|| plain(&job.tags.to_string()));
    let marks: Vec<String> = [queue, priority, tags].into_iter().flatten().collect();
    marks.join(", ")
}

/// A length of time, rounded so that it is short: `850ms`, `3.2s`, `4m 10s`, `2h 5m`, `3d 4h`.
pub(crate) fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..=59 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        60..=3_599 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds / 60 % 60, "m"),
        86_400.. => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

fn two(many: u64, large: &str, few: u64, small: &str) -> String {
    if few == 0 { format!("{many}{large}") } else { format!("{many}{large} {few}{small}") }
}

/// How long ago.
pub(crate) fn ago(at: Millis, now: Millis) -> String {
    format!("{} ago", about(now.since(at)))
}

/// What is to be said of a job in a word or two: since when, until when, why.
pub(crate) fn detail(job: &Job, now: Millis) -> String {
    let error = job.last_attempt.as_ref().and_then(|last| last.error.as_deref()).map(plain);
    if job.progress.state.is_held() {
        let after = if job.waits_for > 0 { waits_for(job) + ", " } else { String::new() };
        return format!("{after}held; queuectl resume {}", job.id);
    }
    match &job.progress.state {
        State::Scheduled { due, .. } => format!("starts {}", until(*due, now)),
        State::Blocked { .. } => waits_for(job),
        State::Failed { due, .. } => {
            format!("{}; retry {}", error.unwrap_or_else(|| "failed".to_owned()), until(*due, now))
        }
        State::Completed { at } => error.map_or_else(|| ago(*at, now), |error| format!("{}; {error}", ago(*at, now))),
        State::Dead { at, .. } => format!("{}; {}", error.unwrap_or_else(|| "failed".to_owned()), ago(*at, now)),
        State::Cancelled { at, reason: CancelReason::NeedFailed { .. } } => {
            format!("a job that it needed failed; {}", ago(*at, now))
        }
        State::Cancelled { at, reason: CancelReason::Asked } => ago(*at, now),
        State::Processing(claimed) if claimed.cancel_asked => "being cancelled".to_owned(),
        State::Pending | State::Processing(_) => String::new(),
    }
}

/// For how many jobs one waits.
fn waits_for(job: &Job) -> String {
    format!("waits for {}", count(job.waits_for.into(), "job"))
}

/// How long until then.
pub(crate) fn until(due: Millis, now: Millis) -> String {
    if due <= now { "now".to_owned() } else { format!("in {}", about(due.since(now))) }
}

/// `2/4`: attempts made, and how many there will be at most; without the second when a job that has ended had more than
/// one set of them has, since it was retried or lost its pool.
pub(crate) fn attempts(progress: &Progress, max_retries: u32) -> String {
    let (made, of_a_set) = (u64::from(progress.attempts), u64::from(max_retries) + 1);
    if !progress.state.kind().has_ended() {
        return format!("{made}/{}", made + of_a_set.saturating_sub(progress.failures.into()));
    }
    if made > of_a_set { made.to_string() } else { format!("{made}/{of_a_set}") }
}

/// A table without lines that fits the terminal; what is too wide for it is cut.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH_WITHOUT_TERMINAL);
    }
    table.set_truncation_indicator("…");
    let bold = Style::new().bold();
    table.set_header(header.iter().map(|title| format!("{bold}{title}{bold:#}")));
    table
}

/// A row of one line.
pub(crate) fn row(cells: impl IntoIterator<Item = String>) -> Row {
    let mut row = Row::from(cells.into_iter().collect::<Vec<_>>());
    row.max_height(1);
    row
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n if noun.ends_with("ss") => format!("{n} {noun}es"),
        n => format!("{n} {noun}s"),
    }
}

/// A size with its unit.
pub(crate) fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_of_those_to_come_too() {
        let shown =
            |state: State, failures, made| attempts(&Progress { failures, attempts: made, ..Progress::new(state) }, 1);
        assert_eq!(shown(State::Pending, 0, 0), "0/2");
        assert_eq!(shown(State::Pending, 1, 1), "1/2");
        assert_eq!(shown(State::Pending, 0, 2), "2/4", "after a retry");
        assert_eq!(shown(State::Pending, 0, 1), "1/3", "after its pool was lost");
        assert_eq!(shown(State::Completed { at: Millis(0) }, 0, 1), "1/2");
        assert_eq!(shown(State::Completed { at: Millis(0) }, 0, 3), "3");
    }

    #[test]
    fn times_are_short() {
        let shown = |ms| about(Duration::from_millis(ms));
        assert_eq!(shown(850), "850ms");
        assert_eq!(shown(3_250), "3.2s");
        assert_eq!(shown(250_000), "4m 10s");
        assert_eq!(shown(7_500_000), "2h 5m");
        assert_eq!(shown(86_400_000 * 3), "3d");
    }

    #[test]
    fn names_stand_beside_the_id_as_far_as_they_fit() {
        let called = |name: &str| called("7", name.parse().ok().as_ref());
        assert_eq!(called(""), "7");
        assert_eq!(called("nightly\u{202e}"), "7 (nightly\\u{202e})");
        assert_eq!(called(&"ü".repeat(25)), format!("7 ({}…)", "ü".repeat(23)));
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(plain("a\x1b[31mb\nc\u{202e}"), "a\\u{1b}[31mb\\nc\\u{202e}");
    }
}
