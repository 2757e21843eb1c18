//! A batch on its way from an input to the queue: few jobs at once, many in pieces.

use std::io;
use std::path::Path;

use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Base, Few, Format, InputError, Jobs, Source, Survey, Warning};
use super::super::render::human;
use super::super::stop::Stop;
use crate::model::{JobId, JobSpec};
use crate::queue::Queue;
use crate::store::{BulkInto, Enqueued, StoreError};
use crate::worker::{BegunBulk, BulkMaker, PIECE_BYTES_MAX, PIECE_JOBS_FIRST};

/// An input that was looked at, and can be taken.
pub(crate) struct Batch {
    source: Source,
    format: Format,
    /// What to call it.
    pub name: String,
    /// What was found.
    pub survey: Survey,
    prefix: Vec<u8>,
}

impl Batch {
    /// Looks at a file, or at standard input for `-`, and says what should be said of it. `prefix` comes before it in
    /// its digest.
    pub(crate) fn look_at(file: &Path, format: Format, base: &Base, prefix: &[u8]) -> Result<Self, Failure> {
        let (name, mut source) = open(file)?;
        let few = Few { jobs: PIECE_JOBS_FIRST, bytes: PIECE_BYTES_MAX as u64 };
        let survey = input::survey(&mut source, format, base, prefix, few);
        let survey = survey.map_err(|error| wrong_input(error).of(&name))?;
        for warning in &survey.warnings {
            match warning {
                Warning::CarriageReturns => say(format_args!("{name} has Windows line ends; their CR is dropped")),
                Warning::ByteOrderMark => say(format_args!("{name} begins with a byte order mark, which is dropped")),
            }
        }
        Ok(Self { source, format, name, survey, prefix: prefix.to_vec() })
    }

    /// All jobs with their lines, at once: for what has to be one transaction.
    pub(crate) fn all(&mut self, base: &Base) -> Result<(Vec<usize>, Vec<JobSpec>), Failure> {
        if let Some(few) = self.survey.few.take() {
            return Ok(few.into_iter().unzip());
        }
        let (mut lines, mut specs) = (Vec::new(), Vec::new());
        self.again(base, |jobs| {
            while let Some((line, spec)) = jobs.next()? {
                lines.push(line);
                specs.push(spec);
            }
            Ok(())
        })?;
        Ok((lines, specs))
    }

    /// Stores all jobs in pieces, between which others get in; tells `each` of them; then lets `publish` make all of
    /// them appear. A signal before that ends the process, and nothing was enqueued.
    pub(crate) fn store<'q, T>(
        &mut self,
        context: &Context,
        queue: &'q mut Queue,
        into: &BulkInto,
        base: &Base,
        each: &mut dyn FnMut(&[Enqueued]),
        publish: impl FnOnce(BulkMaker<'q>) -> Result<T, StoreError>,
    ) -> Result<Stored<T>, Failure> {
        let stop = Stop::listen();
        let wanted = std::mem::take(&mut self.survey.wanted);
        let jobs = self.survey.jobs;
        let begun = context.first(queue, |queue| BegunBulk::begin(queue, into, jobs)).map_err(nothing_done)?;
        let mut bulk = begun.fill(queue, wanted);
        self.fill(base, &mut bulk, each)?;
        stop.hold_back();
        let published = publish(bulk).map_err(nothing_done)?;
        Ok(Stored { published, was_asked_to_stop: stop.was_asked() })
    }

    /// Reads all jobs into `bulk`, with their ids, and tells `each` of them.
    fn fill(
        &mut self,
        base: &Base,
        bulk: &mut BulkMaker<'_>,
        each: &mut dyn FnMut(&[Enqueued]),
    ) -> Result<(), Failure> {
        let mut specs = Vec::new();
        self.again(base, |jobs| {
            loop {
                let (room, begin) = (bulk.room(), jobs.bytes_read());
                while specs.len() < room && jobs.bytes_read() - begin < PIECE_BYTES_MAX as u64 {
                    let Some((_, spec)) = jobs.next()? else { break };
                    specs.push(spec);
                }
                if specs.is_empty() {
                    return Ok(bulk.name()?);
                }
                each(&bulk.add(&specs)?);
                specs.clear();
            }
        })
    }

    /// Reads it once more; it has to be what it was.
    fn again(
        &mut self,
        base: &Base,
        mut read: impl FnMut(&mut Jobs<'_, Box<dyn io::BufRead + '_>>) -> Result<(), Wrong>,
    ) -> Result<(), Failure> {
        let done = self.source.read().map_err(Wrong::from).and_then(|input| {
            let mut jobs = Jobs::new(input, self.format, base, &self.prefix);
            read(&mut jobs)?;
            if jobs.digest() == self.survey.digest { Ok(()) } else { Err(InputError::Changed.into()) }
        });
        done.map_err(|wrong| match wrong {
            // Nothing was wrong with it at the first look.
            Wrong::Input(InputError::Job { .. } | InputError::DuplicateId { .. }) => {
                wrong_input(InputError::Changed).of(&self.name)
            }
            Wrong::Input(error) => wrong_input(error).of(&self.name),
            Wrong::Queue(error) => self.explain(base, error),
        })
    }

    /// With the line that the queue refused, which is looked for.
    fn explain(&mut self, base: &Base, error: StoreError) -> Failure {
        let line = match &error {
            StoreError::Duplicate(id) | StoreError::Reserved(id) => self.line_of(base, id),
            _ => None,
        };
        let failure = nothing_done(error);
        match line {
            Some(line) => failure.of(format_args!("line {line}")),
            None => failure,
        }
    }

    fn line_of(&mut self, base: &Base, id: &JobId) -> Option<usize> {
        let mut jobs = Jobs::new(self.source.read().ok()?, self.format, base, &self.prefix);
        while let Some((line, spec)) = jobs.next().ok()? {
            if spec.id.as_ref() == Some(id) {
                return Some(line);
            }
        }
        None
    }
}

/// A batch that was stored and has appeared.
pub(crate) struct Stored<T> {
    /// As what.
    pub published: T,
    /// Whether a signal came when it could not be held up any more.
    pub was_asked_to_stop: bool,
}

/// Why nothing of a batch was enqueued; unless that is not known.
fn nothing_done(error: StoreError) -> Failure {
    let (is_refusal, is_unknown) =
        (matches!(error, StoreError::Duplicate(_) | StoreError::Reserved(_)), error.outcome_is_unknown());
    let failure = Failure::from(error);
    if is_refusal || is_unknown { failure } else { failure.and("nothing was enqueued") }
}

/// What stops the second reading.
enum Wrong {
    Input(InputError),
    Queue(StoreError),
}

impl From<InputError> for Wrong {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self::Queue(error)
    }
}

/// A file, or standard input for `-`, with what to call it.
fn open(file: &Path) -> Result<(String, Source), Failure> {
    if file.as_os_str() == "-" {
        let source = Source::stdin()
            .map_err(|error| Failure::new(Exit::Other, format!("cannot read standard input: {error}")))?;
        return Ok(("standard input".to_owned(), source));
    }
    let name = human::path(file);
    let source = Source::open(file).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::Usage } else { Exit::Other };
        Failure::new(exit, format!("cannot read {name}: {error}"))
    })?;
    Ok((name, source))
}

/// Input that is not taken.
pub(crate) fn wrong_input(error: InputError) -> Failure {
    let exit = match error {
        InputError::DuplicateId { .. } => Exit::Refused,
        InputError::Job { .. } => Exit::Usage,
        InputError::Changed | InputError::Unreadable(_) => Exit::Other,
    };
    Failure::new(exit, error)
}

/// Which line of a batch the store refused.
pub(crate) fn explain(error: StoreError, specs: &[JobSpec], lines: &[usize]) -> Failure {
    let at = match &error {
        StoreError::Duplicate(id) | StoreError::Reserved(id) => {
            specs.iter().position(|spec| spec.id.as_ref() == Some(id))
        }
        _ => None,
    };
    let failure = Failure::from(error);
    match at {
        // One job alone may be the last piece of many.
        Some(at) if specs.len() > 1 || lines[at] > 1 => failure.of(format_args!("line {}", lines[at])),
        Some(_) | None => failure,
    }
}
