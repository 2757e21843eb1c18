//! A batch on its way from an input to the queue: few jobs at once, many in pieces.

mod pieces;

use std::collections::{HashMap, HashSet};
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::super::context::{Context, say};
use super::super::exit::{Exit, Failure};
use super::super::input::{self, Base, Few, Format, InputError, Jobs, Repeat, Source, Survey, Warning};
use super::super::render::human;
use super::super::stop::Stop;
use crate::model::{IfExists, JobId, JobKey, JobSpec, StateKind};
use crate::queue::Queue;
use crate::store::{BulkInto, Enqueued, StoreError};
use crate::worker::{BegunBulk, BulkMaker, PIECE_BYTES_MAX, PIECE_JOBS_FIRST, outlast_bulks};
use pieces::{Line, Piece, Repeats};

/// Most jobs of a batch that may have others retried or replaced: all of that is one transaction.
pub(crate) const CHANGING_JOBS_MAX: u64 = 10_000;

/// An input that was looked at, and can be taken.
pub(crate) struct Batch {
    source: Source,
    format: Format,
    /// What to call it.
    pub name: String,
    /// What was found.
    pub survey: Survey,
    prefix: Vec<u8>,
    /// The lines of jobs that are not taken.
    left_out: HashSet<usize>,
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
        Ok(Self { source, format, name, survey, prefix: prefix.to_vec(), left_out: HashSet::new() })
    }

    /// Leaves out the jobs that `is_done` says, which is asked in their order. Answers how many they are.
    pub(crate) fn leave_out(&mut self, base: &Base, mut is_done: impl FnMut(&JobSpec) -> bool) -> Result<u64, Failure> {
        let before = self.survey.jobs;
        if let Some(few) = &mut self.survey.few {
            few.retain(|(_, spec)| !is_done(spec));
            self.survey.jobs = few.len() as u64;
        } else {
            let mut left_out = HashSet::new();
            let looked = self.again(base, |jobs| {
                while let Some((line, spec)) = jobs.next()? {
                    left_out.extend(is_done(&spec).then_some(line));
                }
                Ok(())
            });
            looked.map_err(|wrong| self.tell(base, wrong))?;
            self.survey.jobs -= left_out.len() as u64;
            self.left_out = left_out;
        }
        Ok(before - self.survey.jobs)
    }

    /// All jobs with their lines, at once: for what has to be one transaction.
    pub(crate) fn all(&mut self, base: &Base) -> Result<(Vec<usize>, Vec<JobSpec>), Failure> {
        if let Some(few) = self.survey.few.take() {
            return Ok(few.into_iter().unzip());
        }
        let (mut lines, mut specs) = (Vec::new(), Vec::new());
        let left_out = std::mem::take(&mut self.left_out);
        let read = self.again(base, |jobs| {
            while let Some((line, spec)) = jobs.next()? {
                if !left_out.contains(&line) {
                    lines.push(line);
                    specs.push(spec);
                }
            }
            Ok(())
        });
        read.map_err(|wrong| self.tell(base, wrong))?;
        Ok((lines, specs))
    }

    /// Stores all jobs in pieces, between which others get in, and has `each` add them to what is told of them; then lets
    /// `publish` make all of them appear. A signal before that ends the process, and nothing was enqueued.
    ///
    /// What another enqueue takes meanwhile may stand in the place of a job that was stored already: then all of it
    /// begins again.
    pub(crate) fn store<T, S: Default>(
        &mut self,
        context: &Context,
        queue: &mut Queue,
        into: &BulkInto,
        base: &Base,
        each: impl Fn(&mut S, &[Enqueued]),
        publish: impl FnOnce(BulkMaker<'_>) -> Result<T, StoreError>,
    ) -> Result<Stored<T, S>, Failure> {
        self.refuse_repeats(base)?;
        let stop = Stop::listen();
        let (wanted, jobs) = (std::mem::take(&mut self.survey.wanted), self.survey.jobs);
        loop {
            let begun = context.first(queue, |queue| BegunBulk::begin(queue, into, jobs)).map_err(nothing_done)?;
            let mut bulk = begun.fill(queue, &wanted);
            let mut told = S::default();
            match self.fill(base, &mut bulk, |enqueued| each(&mut told, enqueued)) {
                Ok(()) => {
                    stop.hold_back();
                    let published = publish(bulk).map_err(nothing_done)?;
                    return Ok(Stored { published, told, was_asked_to_stop: stop.was_asked() });
                }
                Err(Wrong::Queue(StoreError::KeyTaken { .. })) if self.survey.keys_skip => {}
                Err(Wrong::Queue(error @ (StoreError::Reserved(_) | StoreError::KeyReserved(_)))) => {
                    drop(bulk);
                    outlast_bulks(queue, || say_waiting(&error)).map_err(nothing_done)?;
                }
                Err(wrong) => {
                    drop(bulk);
                    return Err(self.tell(base, wrong));
                }
            }
        }
    }

    /// Reads all jobs into `bulk`, with their ids, and tells `each` of them. The input has to be what it was.
    fn fill(&mut self, base: &Base, bulk: &mut BulkMaker<'_>, mut each: impl FnMut(&[Enqueued])) -> Result<(), Wrong> {
        let Self { source, format, survey, prefix, left_out, .. } = self;
        let keys: HashMap<usize, u128> = survey.repeats.iter().map(|repeat| (repeat.line, repeat.key)).collect();
        let line_is = |line: usize| match keys.get(&line) {
            _ if left_out.contains(&line) => Line::LeftOut,
            Some(key) => Line::Repeat(*key),
            None => Line::Job,
        };
        let mut repeats = Repeats::of(&survey.repeats);
        let mut jobs = Jobs::new(source.read()?, *format, base, prefix);
        let room = AtomicUsize::new(bulk.room());
        let (hand_over, pieces) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            let (jobs, room) = (&mut jobs, &room);
            let reader = move || pieces::read(jobs, room, line_is, &hand_over);
            let reader = thread::Builder::new().spawn_scoped(scope, reader).map_err(StoreError::from)?;
            let stored = pieces.into_iter().try_for_each(|piece: Piece| {
                let added = if piece.specs.is_empty() { Vec::new() } else { bulk.add(&piece.specs)? };
                room.store(bulk.room(), Ordering::Relaxed);
                each(&repeats.interleave(&piece, added));
                Ok::<_, StoreError>(())
            });
            let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, Wrong>(stored.map(|()| read)??)
        })?;
        if jobs.digest() != survey.digest {
            return Err(InputError::Changed.into());
        }
        Ok(bulk.name()?)
    }

    /// A line whose key one before it has is left out only if that is what it says.
    fn refuse_repeats(&mut self, base: &Base) -> Result<(), Failure> {
        let refuses = |repeat: &&Repeat| matches!(repeat.if_exists, IfExists::Error | IfExists::Replace);
        let Some(Repeat { line, first, .. }) = self.survey.repeats.iter().find(refuses).copied() else {
            return Ok(());
        };
        let input = self.source.read().map_err(|error| wrong_input(error).of(&self.name))?;
        let mut jobs = Jobs::new(input, self.format, base, &self.prefix);
        let wrong = loop {
            match jobs.next() {
                Ok(Some((at, JobSpec { key: Some(key), .. }))) if at == line => {
                    break InputError::DuplicateKey { key, first, line };
                }
                Ok(Some(_)) => {}
                Ok(None) => break InputError::Changed,
                Err(error) => break error,
            }
        };
        Err(wrong_input(wrong).of(&self.name))
    }

    /// Reads it once more; it has to be what it was.
    fn again(
        &mut self,
        base: &Base,
        mut read: impl FnMut(&mut Jobs<'_, Box<dyn io::BufRead + Send + '_>>) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        let mut jobs = Jobs::new(self.source.read()?, self.format, base, &self.prefix);
        read(&mut jobs)?;
        if jobs.digest() == self.survey.digest { Ok(()) } else { Err(InputError::Changed.into()) }
    }

    /// What stopped the second reading, in words.
    fn tell(&mut self, base: &Base, wrong: Wrong) -> Failure {
        match wrong {
            // Nothing was wrong with it at the first look.
            Wrong::Input(
                InputError::Job { .. }
                | InputError::DuplicateId { .. }
                | InputError::DuplicateKey { .. }
                | InputError::NeedsLater { .. },
            ) => wrong_input(InputError::Changed).of(&self.name),
            Wrong::Input(error) => wrong_input(error).of(&self.name),
            Wrong::Queue(error) => self.explain(base, error),
        }
    }

    /// With the line that the queue refused, which is looked for.
    fn explain(&mut self, base: &Base, error: StoreError) -> Failure {
        let line = blamed(&error).and_then(|blamed| self.line_of(base, |spec| blamed.is(spec)));
        let changes = matches!(error, StoreError::KeyTaken { .. }) && self.survey.changes_others;
        let failure = nothing_done(error);
        let why = format_args!("a batch of over {CHANGING_JOBS_MAX} jobs replaces and retries no others");
        let failure = if changes { failure.and(why) } else { failure };
        match line {
            Some(line) => failure.of(format_args!("line {line}")),
            None => failure,
        }
    }

    fn line_of(&mut self, base: &Base, is_it: impl Fn(&JobSpec) -> bool) -> Option<usize> {
        let mut jobs = Jobs::new(self.source.read().ok()?, self.format, base, &self.prefix);
        while let Some((line, spec)) = jobs.next().ok()? {
            if is_it(&spec) {
                return Some(line);
            }
        }
        None
    }
}

/// A batch that was stored and has appeared.
pub(crate) struct Stored<T, S> {
    /// As what.
    pub published: T,
    /// What is told of its jobs.
    pub told: S,
    /// Whether a signal came when it could not be held up any more.
    pub was_asked_to_stop: bool,
}

/// The job of a batch that a refusal is about.
enum Blamed<'e> {
    /// The one with this id.
    With(&'e JobId),
    /// One with this key.
    Key(&'e JobKey),
    /// The first that needs this one.
    Needing(&'e JobId),
}

impl Blamed<'_> {
    fn is(&self, spec: &JobSpec) -> bool {
        match self {
            Self::With(id) => spec.id.as_ref() == Some(id),
            Self::Key(key) => spec.key.as_ref() == Some(key),
            Self::Needing(id) => spec.needs.iter().any(|need| need.id == **id),
        }
    }
}

fn blamed(error: &StoreError) -> Option<Blamed<'_>> {
    match error {
        StoreError::Duplicate(id) | StoreError::Reserved(id) => Some(Blamed::With(id)),
        StoreError::KeyTaken { key, .. } | StoreError::KeyTwice(key) | StoreError::KeyReserved(key) => {
            Some(Blamed::Key(key))
        }
        StoreError::NoSuchJob(id) | StoreError::NeedsLater(id) | StoreError::NeedEnded { id, .. } => {
            Some(Blamed::Needing(id))
        }
        _ => None,
    }
}

/// Why nothing of a batch was enqueued; unless that is not known.
fn nothing_done(error: StoreError) -> Failure {
    let (is_refusal, is_unknown) = (blamed(&error).is_some(), error.outcome_is_unknown());
    let failure = refusal(error);
    if is_refusal || is_unknown { failure } else { failure.and("nothing was enqueued") }
}

/// Why nothing happens for now: another enqueue has to end first.
pub(crate) fn say_waiting(error: &StoreError) {
    say(format_args!("{error}; waiting for its end"));
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
        InputError::DuplicateId { .. } | InputError::DuplicateKey { .. } => Exit::Refused,
        InputError::Job { .. } | InputError::NeedsLater { .. } => Exit::Usage,
        InputError::Changed | InputError::Unreadable(_) => Exit::Other,
    };
    Failure::new(exit, error)
}

/// Why the store refused it, with what can be done.
fn refusal(error: StoreError) -> Failure {
    let next = match &error {
        StoreError::KeyTaken { id, state: StateKind::Processing, .. } => Some(format!("queuectl wait {id}")),
        StoreError::KeyTaken { id, .. } => Some(format!("queuectl show {id}")),
        _ => None,
    };
    let failure = Failure::from(error);
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

/// Which line of a batch the store refused.
pub(crate) fn explain(error: StoreError, specs: &[JobSpec], lines: &[usize]) -> Failure {
    let at = blamed(&error).and_then(|blamed| match blamed {
        // Of two the second is the one.
        Blamed::Key(_) if matches!(error, StoreError::KeyTwice(_)) => specs.iter().rposition(|spec| blamed.is(spec)),
        _ => specs.iter().position(|spec| blamed.is(spec)),
    });
    let failure = refusal(error);
    match at {
        // One job alone may be the last piece of many.
        Some(at) if specs.len() > 1 || lines[at] > 1 => failure.of(format_args!("line {}", lines[at])),
        Some(_) | None => failure,
    }
}
