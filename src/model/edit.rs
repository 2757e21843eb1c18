//! What a person can change of a job that waits, or of one that may be retried.

use super::{Command, JobName, JobSpec, Millis, Need, QueueName, Tags, TimeLimit};

/// See the module. What is `None` follows the settings, or is not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Editable {
    /// What it executes.
    pub command: Command,
    /// In which queue it waits.
    pub queue: QueueName,
    /// −100 to 100, higher first.
    pub priority: i8,
    /// When it starts, or is tried again, if it waits for that; a time that has passed means at once.
    pub due: Option<Millis>,
    /// Retries after the first attempt.
    pub max_retries: Option<u32>,
    /// How long it may run.
    pub timeout: Option<TimeLimit>,
    /// What people call it.
    pub name: Option<JobName>,
    /// What it is found by.
    pub tags: Tags,
    /// What it waits for, or waited for, in the order of the jobs' numbers.
    pub needs: Vec<Need>,
}

impl Editable {
    /// `spec` with these changes.
    #[must_use]
    pub fn of(&self, spec: &JobSpec) -> JobSpec {
        JobSpec {
            command: self.command.clone(),
            queue: self.queue.clone(),
            priority: self.priority,
            max_retries: self.max_retries,
            timeout: self.timeout,
            name: self.name.clone(),
            tags: self.tags.clone(),
            needs: self.needs.clone(),
            ..spec.clone()
        }
    }
}
