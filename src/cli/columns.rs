//! What can be shown of a job in a row: for people in short, for programs exactly.

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::render::human;
use crate::model::{Attempt, Job, JobName, Millis, State};
use crate::worker::Activity;

/// A column, under the name that the same thing has in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Column {
    Id,
    Name,
    State,
    Reason,
    Queue,
    Priority,
    Tags,
    Run,
    Command,
    Cwd,
    Tries,
    Attempts,
    MaxRetries,
    Age,
    CreatedAt,
    UpdatedAt,
    StartedAt,
    FinishedAt,
    NextRunAt,
    Seconds,
    CpuSeconds,
    MaxRssBytes,
    ExitCode,
    Signal,
    Worker,
    Error,
    Detail,
}

/// What a table shows unless it is told.
pub(super) const TABLE: [Column; 6] =
    [Column::Id, Column::State, Column::Tries, Column::Age, Column::Command, Column::Detail];

/// The same of lines for programs.
pub(super) const TSV: [Column; 9] = [
    Column::Id,
    Column::State,
    Column::ExitCode,
    Column::Signal,
    Column::StartedAt,
    Column::Seconds,
    Column::CpuSeconds,
    Column::MaxRssBytes,
    Column::Command,
];

/// A job to be shown.
pub(super) struct Shown<'a> {
    pub job: &'a Job,
    /// What it does right now.
    pub activity: Option<&'a Activity>,
    pub now: Millis,
}

impl Column {
    /// Its name.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Its title in a table.
    pub(super) fn title(self) -> String {
        self.name().to_uppercase().replace('_', " ")
    }
}

impl Shown<'_> {
    /// The last attempt that has ended; it says nothing of a job that runs now.
    fn last(&self) -> Option<&Attempt> {
        self.job.last_attempt.as_ref().filter(|_| !matches!(self.job.progress.state, State::Processing(_)))
    }

    fn started(&self) -> Option<Millis> {
        self.activity.map(|run| run.started).or_else(|| self.last().map(|last| last.started))
    }

    /// For people; what is absent is empty. An id has the name with it if that has no column of its own.
    pub(super) fn cell(&self, column: Column, has_names: bool) -> String {
        let (job, state) = (self.job, &self.job.progress.state);
        let ago = |at: Option<Millis>| at.map(|at| human::ago(at, self.now));
        let text = match column {
            Column::Id if !has_names => Some(human::called(job.id.as_str(), job.name.as_ref())),
            Column::State => Some(human::state(state.kind())),
            Column::Age => Some(human::about(self.now.since(job.created))),
            Column::CreatedAt => ago(Some(job.created)),
            Column::UpdatedAt => ago(Some(job.updated)),
            Column::StartedAt => ago(self.started()),
            Column::FinishedAt => ago(state.ended_at()),
            Column::NextRunAt => state.due().map(|due| human::until(due, self.now)),
            Column::Seconds => self.seconds().map(human::about),
            Column::CpuSeconds => self.last().map(|last| human::about(last.cpu)),
            Column::MaxRssBytes => self.last().map(|last| human::size(last.max_rss_bytes)),
            other => return human::plain(&self.field(other)),
        };
        text.unwrap_or_default()
    }

    /// For JSON: as the job's own object has it, or as a number or text.
    pub(super) fn value(&self, column: Column, object: &mut Map<String, Value>) -> Value {
        if let Some(value) = object.remove(&column.name()) {
            return value;
        }
        let field = self.field(column);
        match field.parse::<serde_json::Number>() {
            Ok(number) => number.into(),
            Err(_) if field.is_empty() => Value::Null,
            Err(_) => field.into(),
        }
    }

    /// How long its last run took; of one that goes on, so far.
    fn seconds(&self) -> Option<std::time::Duration> {
        match self.activity {
            Some(run) => Some(self.now.since(run.started)),
            None => self.last().map(|last| last.ended.since(last.started)),
        }
    }

    /// For programs, as it is; what is absent is empty.
    pub(super) fn field(&self, column: Column) -> String {
        let (job, progress) = (self.job, &self.job.progress);
        let worker = || match self.activity {
            Some(run) => Some(run.worker.to_string()),
            None => self.last().map(|last| last.worker.to_string()),
        };
        let text = match column {
            Column::Id => Some(job.id.to_string()),
            Column::Name => job.name.as_ref().map(JobName::to_string),
            Column::State => Some(progress.state.kind().name().to_owned()),
            Column::Reason => progress.state.reason().map(str::to_owned),
            Column::Queue => Some(job.queue.to_string()),
            Column::Priority => Some(job.priority.to_string()),
            Column::Tags => Some(job.tags.to_string()),
            Column::Run => job.run.map(|run| run.to_string()),
            Column::Command => Some(job.command.to_string()),
            Column::Cwd => Some(job.cwd.to_string_lossy().into_owned()),
            Column::Tries => Some(human::attempts(progress, job.max_retries)),
            Column::Attempts => Some(progress.attempts.to_string()),
            Column::MaxRetries => Some(job.max_retries.to_string()),
            Column::Age => Some(seconds(self.now.since(job.created))),
            Column::CreatedAt => Some(job.created.to_string()),
            Column::UpdatedAt => Some(job.updated.to_string()),
            Column::StartedAt => self.started().map(|at| at.to_string()),
            Column::FinishedAt => progress.state.ended_at().map(|at| at.to_string()),
            Column::NextRunAt => progress.state.due().map(|at| at.to_string()),
            Column::Seconds => self.seconds().map(seconds),
            Column::CpuSeconds => self.last().map(|last| seconds(last.cpu)),
            Column::MaxRssBytes => self.last().map(|last| last.max_rss_bytes.to_string()),
            Column::ExitCode => self.last().and_then(|last| last.exit_code).map(|code| code.to_string()),
            Column::Signal => self.last().and_then(|last| last.signal).map(|signal| signal.to_string()),
            Column::Worker => worker(),
            Column::Error => self.last().and_then(|last| last.error.clone()),
            Column::Detail => Some(human::detail(job, self.now)),
        };
        text.unwrap_or_default()
    }
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

/// A field in a line of fields: a tab, an end of line or a backslash in it is written as in C.
pub(super) fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_in_its_line() {
        assert_eq!(escaped("a\tb\nc\\n\r"), "a\\tb\\nc\\\\n\\r");
        assert_eq!(Column::MaxRssBytes.name(), "max_rss_bytes");
        assert_eq!(Column::MaxRssBytes.title(), "MAX RSS BYTES");
    }
}
