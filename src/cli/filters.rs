//! Which jobs, as it is typed: the same flags wherever several jobs can be meant.

use clap::Args;

use super::args::{RunName, duration, state, tag};
use super::commands::runs;
use super::commands::status::shell_word;
use super::complete;
use super::exit::{Exit, Failure};
use crate::model::{Filter, JobName, Millis, Pattern, QueueName, StateKind, Tags, show_duration};
use crate::queue::Queue;
use crate::store::Snapshot;

/// The names that clap has for the flags below, for what excludes them.
pub(super) const ANY_FILTER: [&str; 3] = ["states", "queue", "Traits"];
/// The same where the state is given.
pub(super) const ANY_WHICH: [&str; 2] = ["queue", "Traits"];

// No documentation on either, which would take the place of the command's.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which jobs; all of it has to hold")]
pub(super) struct Filters {
    /// In this state, or in one of these: failed,dead
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = state, add = complete::state())]
    pub states: Vec<StateKind>,
    #[command(flatten)]
    pub which: Which,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which jobs; all of it has to hold")]
pub(super) struct Which {
    /// In this queue; jobs of runs are in none
    #[arg(long, value_name = "QUEUE", add = complete::queue())]
    pub queue: Option<QueueName>,
    #[command(flatten)]
    pub traits: Traits,
}

// What says something of jobs that is neither their state nor their queue.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which jobs; all of it has to hold")]
pub(super) struct Traits {
    /// With this tag; given several times, with all of them
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<Tags>,
    /// Of this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<JobName>,
    /// Of the run of this number, or of the last one
    #[arg(long, value_name = "RUN", add = complete::run())]
    pub run: Option<RunName>,
    /// Moved not longer ago than this, such as 90s, 5m or 2h
    #[arg(long, value_name = "D", value_parser = duration)]
    pub since: Option<std::time::Duration>,
    /// Whose command has this in it: a regular expression
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub command: Option<Pattern>,
    /// Whose last attempt ended with this exit code
    #[arg(long, value_name = "N")]
    pub exit_code: Option<i32>,
}

impl Filters {
    /// Whether anything was said.
    pub(super) fn are_given(&self) -> bool {
        !self.states.is_empty() || self.which.is_given()
    }

    /// The filter that was meant: queues and runs that do not exist are a failure.
    pub(super) fn resolve(&self, queue: &Queue) -> Result<Filter, Failure> {
        Ok(Filter { states: self.states.iter().copied().collect(), ..self.which.resolve(queue)? })
    }
}

impl Which {
    /// Whether anything was said.
    pub(super) fn is_given(&self) -> bool {
        self.queue.is_some() || self.traits.are_given()
    }

    /// As they are typed, a space before each.
    pub(super) fn words(&self) -> String {
        let Self { queue, traits } = self;
        let Traits { tags, name, run, since, command, exit_code } = traits;
        let tags = tags.iter().flat_map(Tags::iter).map(|(key, value)| ("tag", format!("{key}={value}")));
        let flags = [
            ("queue", queue.as_ref().map(ToString::to_string)),
            ("name", name.as_ref().map(|name| name.as_str().to_owned())),
            ("run", run.map(|run| run.to_string())),
            ("since", since.map(show_duration)),
            ("command", command.as_ref().map(ToString::to_string)),
            ("exit-code", exit_code.map(|code| code.to_string())),
        ];
        let flags = flags.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
        flags.chain(tags).fold(String::new(), |words, (flag, value)| format!("{words} --{flag} {}", shell_word(&value)))
    }

    /// See [`Filters::resolve`].
    pub(super) fn resolve(&self, queue: &Queue) -> Result<Filter, Failure> {
        if let Some(name) = &self.queue
            && !queue.read(Snapshot::queues)?.iter().any(|known| known.name == *name)
        {
            return Err(Failure::new(Exit::NotFound, format!("there is no queue {name}")).next("queuectl status"));
        }
        Ok(Filter { queue: self.queue.clone(), ..self.traits.resolve(queue)? })
    }
}

impl Traits {
    /// Whether anything was said.
    pub(super) fn are_given(&self) -> bool {
        let Self { tags, name, run, since, command, exit_code } = self;
        let said = [!tags.is_empty(), name.is_some(), run.is_some(), since.is_some()];
        said.contains(&true) || command.is_some() || exit_code.is_some()
    }

    fn resolve(&self, queue: &Queue) -> Result<Filter, Failure> {
        let ago = |since| Millis(queue.clock().now().0.saturating_sub(millis(since)));
        Ok(Filter {
            run: self.run.map(|run| runs::named(queue, run)).transpose()?.map(|run| run.number),
            tags: all_of(&self.tags)?,
            name: self.name.clone(),
            since: self.since.map(ago),
            command: self.command.clone(),
            exit_code: self.exit_code,
            ..Filter::default()
        })
    }
}

/// The tags that were typed. A job has one value for a key, so nothing has two.
fn all_of(typed: &[Tags]) -> Result<Tags, Failure> {
    let mut all = Tags::default();
    for (key, value) in typed.iter().flat_map(Tags::iter) {
        if all.get(key).is_some_and(|other| other != value) {
            return Err(Failure::new(Exit::Usage, format!("no job has two values of the tag {key}")));
        }
        all.set(key, value).map_err(|bad| Failure::new(Exit::Usage, bad))?;
    }
    Ok(all)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
