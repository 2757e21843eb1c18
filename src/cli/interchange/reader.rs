//! Reading: every line is checked, by itself and against those before it, so that what comes out can be taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use super::super::input::InputError;
use super::super::render::human;
use super::wire::{Chunk, Header, Line, Ran, Setting, Totals, Variables};
use super::{EXPORT_LINE_BYTES_MAX, VERSION};
use crate::model::{
    BACKOFF_BASE_MAX, Command, EXEC_BYTES_MAX, INLINE_OUTPUT_BYTES_MAX, JobSpec, Kept, Millis, RETRIES_MAX, Seq,
    SettingKey, Settings, Stream,
};
use crate::store::{Counters, Piece, PortableAttempt, PortableJob, PortableRun, fault};

/// Largest number of a job, a run or a lease: what any reader of JSON keeps exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Most characters of a message about a line: what is wrong, and a text from the input.
const SHOWN_CHARS_MAX: usize = 400;

/// Why an input is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadExport {
    /// Something is wrong with a line.
    #[error("line {line}: {what}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What.
        what: String,
    },
    /// It ends before its end.
    #[error("it is cut short after line {0}: its last line, which begins with {{\"end\":, is missing")]
    CutShort(u64),
    /// It begins with something else.
    #[error("it is not an export: its first line does not begin with {{\"queuectl_export\":")]
    NotAnExport,
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What comes out.
#[derive(Debug)]
pub(crate) enum Item {
    /// A part of the queue, with its line.
    Piece(u64, Piece),
    /// A part of a large output of the job that comes next.
    Output(OutputPart),
}

/// A part of a large output.
#[derive(Debug)]
pub(crate) struct OutputPart {
    pub seq: Seq,
    pub attempt: u32,
    pub stream: Stream,
    pub bytes: Vec<u8>,
    /// How many bytes came before.
    pub at: u64,
    pub end: PartEnd,
}

/// What follows a part of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartEnd {
    /// More follows.
    More,
    /// It is the last.
    Last,
    /// It is the last, and not all could be read: the output is missing.
    Unreadable,
}

/// The line that `text` is.
pub(crate) fn parse(text: &[u8]) -> Result<Line, String> {
    serde_json::from_slice(text).map_err(|error| {
        let said = InputError::of_json(&error, text).to_string();
        // There is but one line in it; the column stays.
        said.strip_prefix("line 1, ").map_or(said.clone(), str::to_owned)
    })
}

/// An export, read from the start.
pub(crate) struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    header: Option<Header>,
    /// A line that was read and belongs to what comes next.
    pending: Option<Line>,
    open: Option<Open>,
    section: Section,
    /// The runs with their queues.
    runs: BTreeMap<u64, String>,
    environments: BTreeSet<u128>,
    /// The environment of the line before.
    new_environment: Option<u128>,
    last_seq: u64,
    totals: Totals,
}

/// Kinds of lines come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Start,
    Settings,
    Runs,
    Jobs,
    End,
}

/// A job whose attempts are being read.
struct Open {
    line: u64,
    job: PortableJob,
    attempts: Vec<PortableAttempt>,
    /// The large outputs of the last attempt whose parts are still to come, with their lengths.
    files: VecDeque<(Stream, u64)>,
    /// How much of the first of them has come.
    at: u64,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            line: 0,
            header: None,
            pending: None,
            open: None,
            section: Section::Start,
            runs: BTreeMap::new(),
            environments: BTreeSet::new(),
            new_environment: None,
            last_seq: 0,
            totals: Totals::default(),
        }
    }

    /// The queue's time when it was written; known after the first item.
    pub(crate) fn exported_at(&self) -> Millis {
        self.header.map_or(Millis(0), |header| header.exported_at.0)
    }

    /// What came.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The next item; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, BadExport> {
        loop {
            let line = match self.pending.take() {
                Some(line) => line,
                None => match self.read_line()? {
                    Some(line) => line,
                    None if self.section == Section::End => return Ok(None),
                    None if self.header.is_none() => return Err(BadExport::NotAnExport),
                    None => return Err(BadExport::CutShort(self.line)),
                },
            };
            if !matches!(line, Line::Attempt(_) | Line::Output(_))
                && let Some(open) = self.open.take()
            {
                self.pending = Some(line);
                return open.close().map(Some);
            }
            let number = self.line;
            let taken = self.take(line).map_err(|what| BadExport::Line { line: number, what: tame(&what) })?;
            if taken.is_some() {
                return Ok(taken);
            }
        }
    }

    /// The next line that is not blank.
    fn read_line(&mut self) -> Result<Option<Line>, BadExport> {
        loop {
            self.buffer.clear();
            let most = EXPORT_LINE_BYTES_MAX as u64 + 1;
            if (&mut self.input).take(most).read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let at = |what| BadExport::Line { line: self.line, what };
            if self.buffer.len() > EXPORT_LINE_BYTES_MAX {
                return Err(at(format!(
                    "it is longer than {EXPORT_LINE_BYTES_MAX} bytes, which no line of an export is"
                )));
            }
            if self.buffer.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if self.header.is_none() && !self.buffer.trim_ascii_start().starts_with(br#"{"queuectl_export""#) {
                return Err(BadExport::NotAnExport);
            }
            let is_whole = self.buffer.ends_with(b"\n");
            return match parse(&self.buffer) {
                Ok(line) => Ok(Some(line)),
                // The last line was cut.
                Err(_) if !is_whole => Err(BadExport::CutShort(self.line - 1)),
                Err(what) => Err(at(tame(&what))),
            };
        }
    }

    fn take(&mut self, line: Line) -> Result<Option<Item>, String> {
        if !matches!(line, Line::Job(_)) && self.new_environment.is_some() {
            return Err(format!("after an environment comes the first job that has it, not `{}`", line.name()));
        }
        let section = match &line {
            Line::QueuectlExport(_) => Section::Start,
            Line::Setting(_) => Section::Settings,
            // One that a damaged queue only half knows comes with its first job.
            Line::Run(_) => self.section.clamp(Section::Runs, Section::Jobs),
            Line::Environment(_) | Line::Job(_) | Line::Attempt(_) | Line::Output(_) => Section::Jobs,
            Line::End(_) => Section::End,
        };
        if self.section == Section::End {
            return Err(format!("there is a line `{}` after the end", line.name()));
        }
        if section < self.section || (section == Section::Start && self.header.is_some()) {
            return Err(format!("`{}` comes too late: settings come first, then runs, then jobs", line.name()));
        }
        self.section = section;
        let piece = match line {
            Line::QueuectlExport(header) => return self.header(header).map(|()| None),
            Line::Attempt(ran) => return self.attempt(*ran).map(|()| None),
            Line::Output(chunk) => return self.output(chunk).map(|part| Some(Item::Output(part))),
            Line::Job(job) => {
                let job = (*job).into_portable()?;
                self.job(&job)?;
                self.totals.jobs += 1;
                self.totals.keys += u64::from(job.spec.key.is_some());
                let line = self.line;
                self.open = Some(Open { line, job, attempts: Vec::new(), files: VecDeque::new(), at: 0 });
                return Ok(None);
            }
            Line::Setting(setting) => self.setting(setting)?,
            Line::Run(run) => self.run(run.into_portable()?)?,
            Line::Environment(variables) => self.environment(variables)?,
            Line::End(totals) => self.end(totals)?,
        };
        Ok(Some(Item::Piece(self.line, piece)))
    }

    fn header(&mut self, header: Header) -> Result<(), String> {
        if header.version != VERSION {
            return Err(format!(
                "the export has version {}, this program knows {VERSION}: use a newer queuectl",
                header.version
            ));
        }
        self.header = Some(header);
        Ok(())
    }

    fn setting(&mut self, setting: Setting) -> Result<Piece, String> {
        self.totals.settings += 1;
        let key = SettingKey::from_name(&setting.key).filter(|key| key.name() == setting.key);
        let key = key.ok_or_else(|| format!("there is no setting `{}`", setting.key))?;
        let mut settings = Settings::default();
        settings.set(key, &setting.value).map_err(|error| error.to_string())?;
        let queue = setting.queue.map(|queue| queue.parse()).transpose();
        let queue = queue.map_err(|error: crate::model::BadName| error.to_string())?;
        Ok(Piece::Setting { queue, key: setting.key, value: settings.get(key) })
    }

    fn run(&mut self, run: PortableRun) -> Result<Piece, String> {
        self.totals.runs += 1;
        number("run", run.number)?;
        if self.runs.insert(run.number, run.queue.as_str().to_owned()).is_some() {
            return Err(format!("run {} is there twice", run.number));
        }
        Ok(Piece::Run(run))
    }

    fn environment(&mut self, variables: Variables) -> Result<Piece, String> {
        self.totals.environments += 1;
        let (key, variables) = variables.into_environment()?;
        if !self.environments.insert(key) {
            return Err(format!("the environment {key:032x} is there twice"));
        }
        self.new_environment = Some(key);
        let variables = Arc::new(variables);
        let sample = JobSpec { env: Arc::clone(&variables), ..JobSpec::new(Command::Shell(b":".to_vec()), "/") };
        sample.check(EXEC_BYTES_MAX).map_err(|error| error.to_string())?;
        Ok(Piece::Environment { key, variables })
    }

    fn job(&mut self, job: &PortableJob) -> Result<(), String> {
        let (seq, spec) = (job.seq.0, &job.spec);
        number("seq", seq)?;
        if seq <= self.last_seq {
            return Err(format!(
                "job {seq} comes after job {}: they come in the order of their numbers",
                self.last_seq
            ));
        }
        self.last_seq = seq;
        let expected = self.new_environment.take().filter(|key| *key != job.environment);
        if let Some(key) = expected {
            return Err(format!("the environment {key:032x} is right before this job, which has another"));
        }
        if !self.environments.contains(&job.environment) {
            return Err(format!("the environment {:032x} did not come before this job", job.environment));
        }
        if let Some(run) = job.run {
            let queue = self.runs.get(&run).ok_or_else(|| format!("run {run} did not come before this job"))?;
            if queue != spec.queue.as_str() {
                return Err(format!("run {run} is in the queue {queue}, its job in {}", spec.queue));
            }
        }
        spec.check(EXEC_BYTES_MAX).map_err(|error| error.to_string())?;
        let takes = |field: &str, fits: bool, takes: &str| {
            if fits { Ok(()) } else { Err(format!("`{field}` takes {takes}")) }
        };
        takes("max_retries", spec.max_retries.is_none_or(|n| n <= RETRIES_MAX), SettingKey::MaxRetries.range())?;
        let fits = spec.backoff_base.is_none_or(|base| (0.0..=BACKOFF_BASE_MAX).contains(&base));
        takes("backoff_base", fits, SettingKey::BackoffBase.range())?;
        let program = |words: &Vec<String>| words.first().is_some_and(|word| !word.is_empty());
        let fits = spec.shell.as_ref().is_none_or(|words| program(words) && !words.iter().any(|w| w.contains('\0')));
        takes("shell", fits, "a list of texts such as [\"/bin/bash\",\"-c\"], without NUL")?;
        takes("priority", (-100..=100).contains(&spec.priority), "a number from -100 to 100")?;
        let others = job.needs.iter().all(|need| need.seq.0 != seq && (1..=NUMBER_MAX).contains(&need.seq.0));
        takes(
            "needs",
            others && job.needs.is_sorted_by(|a, b| a.seq < b.seq),
            "other jobs, in the order of their numbers",
        )
    }

    fn attempt(&mut self, ran: Ran) -> Result<(), String> {
        self.totals.attempts += 1;
        let seq = ran.seq;
        let open = self.open.as_mut().filter(|open| open.job.seq.0 == seq);
        let open =
            open.ok_or_else(|| format!("an attempt of job {seq} comes right after that job, or its other attempts"))?;
        open.no_output_is_missing()?;
        let expected = open.attempts.len() as u64 + 1;
        if u64::from(ran.attempt) != expected {
            return Err(format!("attempt {} of job {seq} stands where attempt {expected} belongs", ran.attempt));
        }
        if u64::from(ran.attempt) > u64::from(open.job.progress.attempts) {
            return Err(format!("job {seq} has {} attempts, and this is one more", open.job.progress.attempts));
        }
        for (stream, file) in ran.files().filter(|(_, file)| !file.missing) {
            if file.bytes == 0 {
                return Err("a large output has 0 bytes: what is empty is left away".to_owned());
            }
            open.files.push_back((stream, file.bytes));
        }
        let attempt = ran.into_portable()?;
        let is_small = |kept: &Kept| !matches!(kept, Kept::Inline(bytes) if bytes.len() > INLINE_OUTPUT_BYTES_MAX);
        if !is_small(&attempt.stdout) || !is_small(&attempt.stderr) {
            return Err(format!(
                "an output of more than {INLINE_OUTPUT_BYTES_MAX} bytes goes into `stdout_file` or `stderr_file` and lines `output`"
            ));
        }
        open.attempts.push(attempt);
        Ok(())
    }

    fn output(&mut self, chunk: Chunk) -> Result<OutputPart, String> {
        let (seq, stream) = (Seq(chunk.seq), Stream::from(chunk.stream));
        let bytes = chunk.bytes.0;
        self.totals.output_bytes += bytes.len() as u64;
        let open = self
            .open
            .as_mut()
            .filter(|open| open.job.seq == seq && open.attempts.len() as u64 == u64::from(chunk.attempt));
        let open = open.ok_or_else(|| format!("an output of job {} comes right after its attempt", seq.0))?;
        let Some((_, len)) = open.files.front().copied().filter(|(expected, _)| *expected == stream) else {
            return Err(
                "no part of this stream belongs here: its attempt tells of none, or of another first".to_owned()
            );
        };
        let at = open.at;
        open.at += bytes.len() as u64;
        let end = if chunk.unreadable {
            PartEnd::Unreadable
        } else if open.at > len {
            return Err(format!("the output has {} bytes by here, its attempt tells of {len}", open.at));
        } else if bytes.is_empty() {
            return Err("a part of an output without bytes".to_owned());
        } else if open.at == len {
            PartEnd::Last
        } else {
            PartEnd::More
        };
        if end != PartEnd::More {
            open.files.pop_front();
            open.at = 0;
        }
        Ok(OutputPart { seq, attempt: chunk.attempt, stream, bytes, at, end })
    }

    fn end(&mut self, end: Totals) -> Result<Piece, String> {
        let came = &self.totals;
        let kinds = [
            ("settings", end.settings, came.settings),
            ("runs", end.runs, came.runs),
            ("environments", end.environments, came.environments),
            ("jobs", end.jobs, came.jobs),
            ("attempts", end.attempts, came.attempts),
            ("output_bytes", end.output_bytes, came.output_bytes),
            ("keys", end.keys, came.keys),
        ];
        if let Some((what, said, found)) = kinds.iter().find(|(_, said, found)| said != found) {
            return Err(format!(
                "the end counts {said} `{what}`, and there are {found}: lines are missing, or were added"
            ));
        }
        let last_run = self.runs.keys().next_back().copied().unwrap_or_default();
        for (what, next, last) in [
            ("next_seq", end.next_seq, self.last_seq),
            ("next_run", end.next_run, last_run),
            ("next_lease", end.next_lease, 0),
        ] {
            number(what, next)?;
            if next <= last {
                return Err(format!("`{what}` is {next}, but {last} is in use"));
            }
        }
        if end.removed > NUMBER_MAX {
            return Err(format!("`removed` takes a number up to {NUMBER_MAX}"));
        }
        self.totals = end;
        Ok(Piece::Counters(Counters {
            next_seq: end.next_seq,
            next_lease: end.next_lease,
            next_run: end.next_run,
            removed: end.removed,
        }))
    }
}

impl Open {
    /// The job, now that all of it has come.
    fn close(self) -> Result<Item, BadExport> {
        let Self { line, job, attempts, .. } = &self;
        let (has, counts) = (attempts.len() as u64, u64::from(job.progress.attempts));
        let wrong = match self.no_output_is_missing() {
            Err(what) => Some(what),
            Ok(()) if has != counts => Some(format!("job {} has {counts} attempts, of which {has} follow", job.seq.0)),
            Ok(()) => fault(job, attempts),
        };
        if let Some(what) = wrong {
            return Err(BadExport::Line { line: *line, what: tame(&what) });
        }
        let piece = Piece::Job { job: Box::new(self.job), attempts: self.attempts, was_held: false };
        Ok(Item::Piece(self.line, piece))
    }

    fn no_output_is_missing(&self) -> Result<(), String> {
        match self.files.front() {
            None => Ok(()),
            Some((_, bytes)) => Err(format!(
                "an output of attempt {} of job {} has {bytes} bytes, of which {} follow",
                self.attempts.len(),
                self.job.seq.0,
                self.at
            )),
        }
    }
}

fn number(what: &str, number: u64) -> Result<(), String> {
    let fits = (1..=NUMBER_MAX).contains(&number);
    if fits { Ok(()) } else { Err(format!("`{what}` takes a number from 1 to {NUMBER_MAX}, not {number}")) }
}

/// Texts of the input in a message are short, and harmless to a terminal.
fn tame(what: &str) -> String {
    let mut chars = what.chars();
    let mut tame = human::plain(&chars.by_ref().take(SHOWN_CHARS_MAX).collect::<String>());
    if chars.next().is_some() {
        tame.push('…');
    }
    tame
}
