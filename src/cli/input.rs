//! From texts to jobs: one JSON object, one command, or a batch of either, a line each.
//!
//! [`Source`] is where a batch is read from; the rest turns bytes into [`JobSpec`]s or says what is wrong with them.

#[cfg(any(test, feature = "sim"))]
pub(crate) mod any;
mod error;
mod job_json;
mod lines;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use error::{InputError, Problem};
#[cfg(any(test, feature = "sim"))]
pub(crate) use lines::lines;
pub(crate) use lines::{Few, Format, Jobs, Repeat, Survey, Warning, key_hash, survey};
pub(crate) use source::Source;

use super::local::Local;
use crate::model::{
    Command, Environment, IfExists, JobId, JobKey, JobName, JobSpec, Need, QueueName, Start, Tags, TimeLimit,
};

/// What a job takes over from the process that enqueues it, unless its text says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Where that process is; absolute.
    pub cwd: PathBuf,
    /// Its variables, already without those that jobs do not inherit.
    pub env: Arc<Environment>,
    /// What its command line asks for.
    pub asked: Asked,
    /// What time it is there.
    pub local: Local,
    /// How many bytes of arguments and environment `execve` takes here.
    pub exec_bytes_max: usize,
}

/// What jobs have that say nothing themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// What to call the one job that there is.
    pub id: Option<JobId>,
    /// The folder to run in; absolute.
    pub folder: Option<PathBuf>,
    /// Retries after the first attempt.
    pub max_retries: Option<u32>,
    /// How long a job may run.
    pub timeout: Option<TimeLimit>,
    /// The queue to wait in.
    pub queue: Option<QueueName>,
    /// −100 to 100.
    pub priority: i8,
    /// When to start.
    pub start: Start,
    /// What to wait for, to which a job adds its own.
    pub needs: Vec<Need>,
    /// A name for people.
    pub name: Option<JobName>,
    /// Tags, to which a job adds its own.
    pub tags: Tags,
    /// What the one job that there is is enqueued under.
    pub key: Option<JobKey>,
    /// What becomes of a job whose key another has.
    pub if_exists: IfExists,
}

/// The job of one JSON object.
pub(crate) fn job(text: &[u8], base: &Base) -> Result<JobSpec, InputError> {
    let start = text.trim_ascii_start();
    if start.starts_with(b"{") {
        job_json::parse(text, &Maker::new(base))
    } else {
        Err(Problem::no_object(start).into())
    }
}

/// The job of one shell command, taken as it is.
pub(crate) fn shell(text: Vec<u8>, base: &Base) -> Result<JobSpec, InputError> {
    Ok(Maker::new(base).command(Command::Shell(text))?)
}

/// The job of a program and its arguments.
pub(crate) fn argv(words: Vec<Vec<u8>>, base: &Base) -> Result<JobSpec, InputError> {
    Ok(Maker::new(base).command(Command::Argv(words))?)
}

/// Makes jobs of one base.
struct Maker<'a> {
    base: &'a Base,
    /// The job that says nothing itself, with an empty environment.
    template: JobSpec,
    /// Bytes that `execve` takes beside the base's environment; 0 when that one is not valid.
    room: usize,
}

impl<'a> Maker<'a> {
    fn new(base: &'a Base) -> Self {
        let asked = &base.asked;
        let template = JobSpec {
            id: asked.id.clone(),
            queue: asked.queue.clone().unwrap_or_else(QueueName::default_queue),
            max_retries: asked.max_retries,
            timeout: asked.timeout,
            priority: asked.priority,
            start: asked.start,
            needs: asked.needs.clone(),
            name: asked.name.clone(),
            tags: asked.tags.clone(),
            key: asked.key.clone(),
            if_exists: asked.if_exists,
            ..JobSpec::new(Command::Shell(Vec::new()), asked.folder.as_ref().unwrap_or(&base.cwd).clone())
        };
        let sample = JobSpec { env: Arc::clone(&base.env), ..JobSpec::new(Command::Shell(b":".to_vec()), "/") };
        let valid = sample.check(base.exec_bytes_max).is_ok();
        // A pointer and two separators each, rounded up: too much is safe here, see `finish`.
        let bytes: usize = base.env.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
        let room = if valid { base.exec_bytes_max.saturating_sub(bytes) } else { 0 };
        Self { base, template, room }
    }

    fn start(&self, command: Command) -> JobSpec {
        JobSpec { command, ..self.template.clone() }
    }

    /// Checks a job that was started here and gives it its environment.
    fn finish(&self, mut spec: JobSpec) -> Result<JobSpec, Problem> {
        // Going through the environment for each of a million jobs would take most of the time, and it is
        // the same for all: what fits beside it is fine, and only the rest needs the full check.
        let fits = self.room > 0 && spec.check(self.room).is_ok();
        spec.env = Arc::clone(&self.base.env);
        if !fits {
            spec.check(self.base.exec_bytes_max)?;
        }
        Ok(spec)
    }

    fn command(&self, command: Command) -> Result<JobSpec, Problem> {
        self.finish(self.start(command))
    }
}

#[cfg(test)]
mod tests;
