//! The command line as it is typed. The doc comments here are what `--help` shows.

#![allow(clippy::doc_markdown, reason = "help texts have no markup")]
#![allow(clippy::struct_excessive_bools, reason = "flags are what they are")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::columns::Column;
use super::commands::signal;
use super::complete;
use super::deferred::Deferred;
use super::filters::{ANY_FILTER, ANY_WHICH, Filters, Traits, Which};
use crate::model::{
    IfExists, JobId, JobKey, JobName, PRIORITY_RANGE, PoolId, QueueName, StateKind, Tags, TimeLimit, WORKERS_MAX,
    parse_age, parse_duration,
};

/// The commands by what they are for; clap has no groups of commands.
pub(super) const GROUPED_HELP: &str = "\
{about}

{usage-heading} {usage}

Run a batch:
  run       Run commands in parallel and wait for them; type it again to continue
  attach    Look on while a run in the background is worked on

Queue jobs for later:
  enqueue   Add one job, or many at once
  worker    Start, stop, scale and list the pools that run enqueued jobs

Look:
  status    Counts, pools, and what runs now
  list      Jobs, the newest first
  show      One job with all its attempts
  logs      What jobs wrote
  wait      Wait until jobs have ended

Act:
  edit      Change jobs that wait
  cancel    Cancel jobs; what runs is ended
  signal    Send a signal to jobs that run
  retry     Give ended jobs a fresh set of attempts
  dlq       The dead letter queue: jobs that failed for good
  pause     Let jobs, or the jobs of queues, wait
  resume    Let them go on
  remove    Remove ended jobs, with what they wrote
  clean     Remove jobs that ended long ago

Keep:
  config    Read and change settings
  check     Verify the queue file, or repair it
  compact   Make the queue file as small as what is in it
  backup    Copy the queue to a folder while it is at work
  restore   Put a backup in the queue's place
  export    Write everything as JSON lines
  import    Take an export into a queue

Set up:
  completions  Make a shell complete commands, job ids and more
  man          Print the manual page, or write one for each command

{options}

Exit codes: 0 done, 1 jobs failed, 2 usage, 3 no such job, queue or key, 4 refused,
5 the queue file cannot be used, 6 timed out waiting, 7 anything else, 130 stopped.

Examples:
  queuectl run -j 4 jobs.txt
  queuectl enqueue -c 'echo hi' && queuectl worker start --until-empty
";

/// The program's version, and that of the queue files that it reads.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (queue schema {})", env!("CARGO_PKG_VERSION"), crate::store::SCHEMA_VERSION));

/// A background job queue: runs shell commands in parallel, retries failures, and loses nothing.
#[derive(Debug, Parser)]
#[command(name = "queuectl", version = VERSION.as_str(), help_template = GROUPED_HELP, subcommand_required = true, infer_long_args = false)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// The queue's folder; else $QUEUECTL_DB, else the nearest .queuectl here or above
    #[arg(long, value_name = "FOLDER", global = true, value_hint = ValueHint::DirPath)]
    pub db: Option<OsString>,
    /// When to use colour
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    pub color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(Deferred<Run>),
    Attach(Deferred<Attach>),
    Enqueue(Deferred<Enqueue>),
    #[command(subcommand)]
    Worker(Deferred<Worker>),
    Status(Deferred<Status>),
    List(Deferred<List>),
    Show(Deferred<Show>),
    Logs(Deferred<Logs>),
    Wait(Deferred<Wait>),
    Edit(Deferred<Edit>),
    Cancel(Deferred<Cancel>),
    Signal(Deferred<Signal>),
    Retry(Deferred<Retry>),
    #[command(subcommand)]
    Dlq(Deferred<Dlq>),
    Remove(Deferred<Remove>),
    Clean(Deferred<Clean>),
    Pause(Deferred<Pause>),
    Resume(Deferred<Resume>),
    #[command(subcommand)]
    Config(Deferred<Config>),
    Check(Deferred<Check>),
    Compact(Deferred<Compact>),
    Backup(Deferred<Backup>),
    Restore(Deferred<Restore>),
    Export(Deferred<Export>),
    Import(Deferred<Import>),
    Completions(Deferred<Completions>),
    Man(Deferred<Man>),
}

/// Print the manual page, or write one for each command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl man | man -l -
  queuectl man ~/.local/share/man/man1 && man queuectl-worker-start")]
pub(super) struct Man {
    /// Where to write a page for each command; made if it is missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub folder: Option<PathBuf>,
}

/// Make a shell complete commands, flags, job ids and more
///
/// Prints what the shell is to read when it starts. Job ids, names of queues, settings and states come from the queue
/// that would be used. The shell has to find queuectl by its name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo 'source <(queuectl completions bash)' >> ~/.bashrc
  echo 'source <(queuectl completions zsh)' >> ~/.zshrc      after compinit
  queuectl completions fish > ~/.config/fish/completions/queuectl.fish")]
pub(super) struct Completions {
    /// Which shell
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write everything as JSON lines
///
/// Settings, runs, environments, jobs with all their attempts and outputs, as of one moment, whatever works on the queue
/// meanwhile. Jobs that are processing are written as pending. import takes it back exactly. From a damaged queue, what
/// can be read is written; each loss is told, and the exit code is 5.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl export --output jobs.jsonl
  queuectl export | gzip > jobs.jsonl.gz
  queuectl export | jq -c 'select(.job.state == \"dead\").job.command'")]
pub(super) struct Export {
    /// Where to; else standard output. It takes its name when it is complete
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Take an export into a queue
///
/// All of it or nothing. Jobs keep their numbers, ids, times and history. Where a number, an id or a run is taken by
/// another, nothing is imported; settings of a queue that has had jobs stay as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl --db ./new import jobs.jsonl
  gunzip -c jobs.jsonl.gz | queuectl --db ./new import -")]
pub(super) struct Import {
    /// What export wrote; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print what was imported as JSON
    #[arg(long)]
    pub json: bool,
}

/// Run commands in parallel and wait for them
///
/// The commands are stored before the first one starts, so nothing is lost if this is interrupted: type the
/// same line again and it goes on where it was. Each job's output is printed as it ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl run jobs.txt                   one shell command a line
  queuectl run -j 8 --max-retries 0 jobs.txt
  find . -name '*.wav' | sed 's/.*/flac \"&\"/' | queuectl run -
  queuectl run --resume jobs.txt          only what did not complete before
  queuectl run --detach jobs.txt && queuectl attach
  queuectl run -- make test               one command; exits with its code")]
pub(super) struct Run {
    /// How many jobs run at a time [default: the number of cores]
    #[arg(short, long, visible_alias = "count", value_name = "N", value_parser = workers)]
    pub jobs: Option<usize>,
    /// Retries after the first attempt [default: the setting max-retries, 3]
    #[arg(long, value_name = "N", value_parser = retries)]
    pub max_retries: Option<u32>,
    /// How long each job may run, such as 90s, 5m or none [default: none]
    #[arg(long, value_name = "D", value_parser = time_limit)]
    pub timeout: Option<TimeLimit>,
    /// A name for its jobs
    #[arg(long, value_name = "NAME")]
    pub name: Option<JobName>,
    /// A tag for its jobs; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<Tags>,
    /// Print only what the jobs write, and what failed
    #[arg(short, long)]
    pub quiet: bool,
    /// Begin anew even if the same run is unfinished
    #[arg(long)]
    pub fresh: bool,
    /// Skip the lines that completed in an earlier run in this folder, whatever file they were in
    #[arg(long, conflicts_with_all = ["fresh", "argv"])]
    pub resume: bool,
    /// Store the commands and let them run in the background
    #[arg(long)]
    pub detach: bool,
    /// This process is the background one, for the run of this number
    #[arg(long, hide = true, value_name = "RUN", conflicts_with_all = ["file", "argv", "detach", "fresh", "resume"])]
    pub detached: Option<u64>,
    /// Take each line as a shell command, whatever it looks like
    #[arg(long, conflicts_with = "jsonl")]
    pub lines: bool,
    /// Take each line as the JSON of a job
    #[arg(long)]
    pub jsonl: bool,
    /// A file of commands, a line each; - for standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["argv", "detached"])]
    pub file: Option<PathBuf>,
    /// One command with its arguments, executed as given
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["file", "lines", "jsonl"])]
    pub argv: Vec<OsString>,
}

/// Look on while a run is worked on
///
/// Prints what its jobs write as they end, until the run has ended; then exits as `queuectl run` would: 0 if all jobs
/// completed, 1 if one did not. Ctrl-C only leaves: the run goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl attach
  queuectl attach 7 > frames")]
pub(super) struct Attach {
    /// The run's number, or last
    #[arg(value_name = "RUN", default_value = "last", add = complete::run())]
    pub run: RunName,
    /// Print only what the jobs write, and what failed
    #[arg(short, long)]
    pub quiet: bool,
}

/// A run as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunName {
    /// The one that was typed last.
    Last,
    /// The one of this number.
    Numbered(u64),
}

impl std::fmt::Display for RunName {
    /// As it is typed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Numbered(number) => number.fmt(f),
        }
    }
}

impl std::str::FromStr for RunName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "last" => Ok(Self::Last),
            number => number.parse().map(Self::Numbered).map_err(|_| "it is the number of a run, or last"),
        }
    }
}

/// Counts, pools, and what runs now
///
/// With --run, one run: whether it is worked on, was cut off or has ended, and what its jobs have come to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl status
  queuectl status --watch
  queuectl status --run last
  queuectl status --json | jq .jobs")]
pub(super) struct Status {
    /// Only this run: its number, or last
    #[arg(long, value_name = "RUN", conflicts_with = "watch", add = complete::run())]
    pub run: Option<RunName>,
    /// Show it anew whenever something has changed; Ctrl-C ends that
    #[arg(short, long)]
    pub watch: bool,
    /// Print JSON; with --watch a line each time
    #[arg(long)]
    pub json: bool,
}

/// Add one job, or many at once
///
/// A job is given as JSON, as shell text with -c, or as a command after --; many are read from a file, one
/// command or one JSON object a line, all or nothing. JSON fields: id, command or argv, max_retries,
/// backoff_base, timeout, cwd, env, shell, queue, priority, delay or at, after, after_any, name, tags, key, if_exists.
/// Flags are for what the JSON does not say; tags, and what is waited for, are added to its own.
///
/// No two jobs have the same key. With --if-exists skip, which is the default, a key that a job has already enqueues
/// nothing, whatever became of that job; error refuses it; replace takes the key, and cancels the other job if it waits;
/// retry gives the other one a fresh set of attempts if it is dead or cancelled.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["job", "shell_text", "file", "argv"])),
    after_help = "\
Examples:
  queuectl enqueue '{\"id\":\"job1\",\"command\":\"echo hi\",\"max_retries\":5}'
  queuectl enqueue -c 'sleep 2 && echo done'
  queuectl enqueue --priority 10 --name backup --tag night=1 -- rsync -a photos/ backup/
  queuectl enqueue --at 22:00 --timeout 2h -c 'make all'
  queuectl enqueue --after dump --after copy -c 'rm dump.sql'
  queuectl enqueue --key photos-2026-12 -- rsync -a photos/ backup/
  queuectl enqueue --file jobs.jsonl
  seq 100 | sed 's/.*/echo &/' | queuectl enqueue -")]
pub(super) struct Enqueue {
    /// The job as JSON; - reads many from standard input
    #[arg(value_name = "JSON")]
    pub job: Option<OsString>,
    /// A text for the shell
    #[arg(short = 'c', long = "command", value_name = "SHELL TEXT", allow_hyphen_values = true)]
    pub shell_text: Option<OsString>,
    /// A file of jobs, a line each; - for standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What to call the job [default: its number]
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub id: Option<JobId>,
    /// A name, which other jobs may have too
    #[arg(long, value_name = "NAME")]
    pub name: Option<JobName>,
    /// A tag; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<Tags>,
    /// The queue to wait in [default: default]
    #[arg(long, value_name = "QUEUE", add = complete::queue())]
    pub queue: Option<QueueName>,
    /// From -100 to 100, higher first [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = priority)]
    pub priority: Option<i8>,
    /// Start after so long, such as 90s, 10m or 2h
    #[arg(long, value_name = "D", value_parser = duration, conflicts_with = "at")]
    pub delay: Option<std::time::Duration>,
    /// Start at this time, such as 22:00 or '2026-12-01 22:00' here, or 2026-12-01T22:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Start when this job has completed; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',', add = complete::job())]
    pub after: Vec<JobId>,
    /// Start when this job has ended, however it did; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',', add = complete::job())]
    pub after_any: Vec<JobId>,
    /// Retries after the first attempt [default: the setting max-retries, 3]
    #[arg(long, value_name = "N", value_parser = retries)]
    pub max_retries: Option<u32>,
    /// How long it may run, such as 90s, 5m or none [default: the setting timeout, 30s]
    #[arg(long, value_name = "D", value_parser = time_limit)]
    pub timeout: Option<TimeLimit>,
    /// The folder to run in [default: this one]
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<PathBuf>,
    /// Enqueue it once: while a job of this key is there, nothing more is enqueued under it
    #[arg(long, value_name = "KEY", conflicts_with = "file")]
    pub key: Option<JobKey>,
    /// What to do if there is a job of its key: skip, error, replace or retry [default: skip]
    #[arg(long, value_name = "RULE", value_parser = if_exists, add = complete::if_exists())]
    pub if_exists: Option<IfExists>,
    /// Print only the ids
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Print the jobs as JSON
    #[arg(long)]
    pub json: bool,
    /// A command with its arguments, executed as given
    #[arg(last = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

/// Start, stop, scale and list the pools that run enqueued jobs
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  queuectl worker start --count 4
  queuectl worker start --detach && queuectl worker list
  queuectl worker stop")]
pub(super) enum Worker {
    Start(WorkerStart),
    Stop(WorkerStop),
    /// List the pools that run; as JSON the last ones that ended too
    #[command(after_help = "\
Examples:
  queuectl worker list
  queuectl worker list --json | jq -r '.[].log'")]
    List(Json),
    Scale(WorkerScale),
    InstallService(InstallService),
}

/// Change how many jobs a pool runs at a time
///
/// More start at once. With fewer, running jobs finish, and the workers with the highest numbers end. A pool keeps its size
/// for as long as it lives. The pool may be left out if only one is running.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl worker scale 8
  queuectl worker scale 2 n5q6")]
pub(super) struct WorkerScale {
    /// How many
    #[arg(value_name = "N", value_parser = workers)]
    pub count: usize,
    /// Which pool
    #[arg(value_name = "POOL", add = complete::pool())]
    pub pool: Option<PoolId>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Have systemd run a pool whenever you are logged in
///
/// Writes a user unit that runs this queuectl on the queue that is in use, and says what to type next. When the service is
/// stopped, running jobs have 30 seconds to finish; then they are ended and wait for the next pool, with no retry used
/// up. When it fails, it is started again. Jobs keep the environment of their enqueue, PATH included.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl worker install-service --count 4
  queuectl worker install-service --queue gpu --name queuectl-gpu
  queuectl --db ~/nightly worker install-service --print")]
pub(super) struct InstallService {
    /// How many jobs it runs at a time
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = workers)]
    pub count: usize,
    /// Serve only this queue; may be given several times
    #[arg(long = "queue", value_name = "QUEUE", add = complete::queue())]
    pub queues: Vec<QueueName>,
    /// What the service is called
    #[arg(long, value_name = "NAME", default_value = "queuectl", value_parser = service_name)]
    pub name: String,
    /// Replace a unit that is there and differs
    #[arg(long)]
    pub force: bool,
    /// Print the unit and write nothing
    #[arg(long, conflicts_with = "force")]
    pub print: bool,
}

/// Start a pool of workers, in the foreground unless --detach
///
/// Ctrl-C once lets running jobs finish, twice ends them, a third time kills them. Ended jobs are logged to
/// standard output, a line each.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl worker start                          one worker, all queues
  queuectl worker start --count 4 --until-empty  ends when nothing is left to do
  queuectl worker start --queue gpu --detach")]
pub(super) struct WorkerStart {
    /// How many jobs it runs at a time
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = workers)]
    pub count: usize,
    /// Serve only this queue; may be given several times
    #[arg(long = "queue", value_name = "QUEUE", add = complete::queue())]
    pub queues: Vec<QueueName>,
    /// End when nothing is left that could run; exit 1 if a job died meanwhile
    #[arg(long)]
    pub until_empty: bool,
    /// Go on in the background
    #[arg(long)]
    pub detach: bool,
    /// This process is the background one
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// Stop all pools and wait until they are gone
///
/// Running jobs finish first, unless --now. Runs (queuectl run) are left alone: end those with Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl worker stop
  queuectl worker stop --now --timeout 10s")]
pub(super) struct WorkerStop {
    /// End running jobs: they wait for the next pool, with no retry used up
    #[arg(long)]
    pub now: bool,
    /// How long to wait, such as 30s or 5m
    #[arg(long, value_name = "D", value_parser = duration)]
    pub timeout: Option<std::time::Duration>,
}

// How to print what is asked for. No documentation, which would be that of the commands.
#[derive(Debug, Args)]
pub(super) struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// List jobs, the newest first
///
/// With --state, one state comes after the other, and jobs are ordered by when they came into it. JSON and tsv are
/// complete unless --limit says otherwise. States, names and tags lead to their jobs by an index; for the rest each job is
/// looked at, while others go on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl list
  queuectl list --state failed,dead --queue gpu --limit 10
  queuectl list --run last --exit-code 137 --columns id,seconds,max_rss_bytes,command
  queuectl list --state completed --since 2h --sort duration --limit 5
  queuectl list --tag night=1 --count
  queuectl list --format tsv > joblog
  queuectl list --json | jq -r '.[].id'")]
pub(super) struct List {
    #[command(flatten)]
    pub listing: Listing,
    #[command(flatten)]
    pub filters: Filters,
}

// How jobs are listed. No documentation, which would be that of the commands.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// In which order. The newest are there at once; for the other orders every job is read
    #[arg(long, value_name = "ORDER", default_value = "newest")]
    pub sort: Sort,
    /// What to show of each: id,state,…
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub columns: Vec<Column>,
    /// Print only how many there are
    #[arg(long, conflicts_with_all = ["sort", "columns", "limit", "format"])]
    pub count: bool,
    /// At most so many [default: 50 in a table, else all]
    #[arg(long, value_name = "N", value_parser = limit)]
    pub limit: Option<usize>,
    /// A table for people, JSON, or lines of fields with tabs between them
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub format: Option<Format>,
    /// The same as --format json
    #[arg(long)]
    pub json: bool,
}

impl Listing {
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format.unwrap_or(Format::Table) }
    }

    /// The columns that are asked for, or else these.
    pub(super) fn columns_or(&self, default: &[Column]) -> Vec<Column> {
        if self.columns.is_empty() { default.to_vec() } else { self.columns.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Tsv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// The last enqueued first
    Newest,
    /// The first enqueued first
    Oldest,
    /// What moved last first
    Updated,
    /// The longest last attempt first
    Duration,
    /// The most processor time first
    Cpu,
    /// The most memory first
    Memory,
    /// The highest exit code first
    ExitCode,
}

/// Show one job with all its attempts
///
/// The values of its environment may be secrets: they are shown only with --env.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl show job1
  queuectl show job1 --env --json | jq .env.PATH")]
pub(super) struct Show {
    /// The job
    #[arg(add = complete::job())]
    pub id: JobId,
    /// Show the values of its environment, too
    #[arg(long)]
    pub env: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Print what jobs wrote
///
/// Without --stdout or --stderr both are printed, each to its own stream. Of several jobs, each line begins with the id
/// of its job. On a terminal only colours and the like take effect: whatever else would act there is made visible,
/// unless --raw.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl logs job1
  queuectl logs job1 --stderr --attempt 1
  queuectl logs -f job1 job2
  queuectl logs --run last --state dead --tail 5")]
pub(super) struct Logs {
    /// The jobs
    #[arg(value_name = "ID", conflicts_with_all = ANY_FILTER, add = complete::job())]
    pub ids: Vec<JobId>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only standard error
    #[arg(long)]
    pub stderr: bool,
    /// Which attempt [default: the last]
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Only the last lines of each stream
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<usize>,
    /// Go on until the jobs have ended
    #[arg(short, long, conflicts_with = "attempt")]
    pub follow: bool,
    /// Pass every byte on, even to a terminal
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    pub filters: Filters,
}

/// Wait until jobs have ended
///
/// Those that a filter lets through are all that there are when it begins, and that have ended before that count, too.
/// Exit 0 if all of them completed, or none matches, 1 if one did not complete, 6 if the time is over first. When all
/// that is left waits for you, it says for what. On a terminal a bar tells how far it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl wait job1 job2
  queuectl wait --tag night=1 --fail-fast
  queuectl wait --all --timeout 1h")]
pub(super) struct Wait {
    /// The jobs
    #[arg(value_name = "ID", conflicts_with_all = ANY_FILTER, conflicts_with = "all", add = complete::unended_job())]
    pub ids: Vec<JobId>,
    /// All jobs that have not ended
    #[arg(long, conflicts_with_all = ANY_FILTER)]
    pub all: bool,
    /// End as soon as one of them has failed for good or was cancelled
    #[arg(long)]
    pub fail_fast: bool,
    /// How long to wait, such as 30s or 5m
    #[arg(long, value_name = "D", value_parser = duration)]
    pub timeout: Option<std::time::Duration>,
    #[command(flatten)]
    pub filters: Filters,
}

/// Change jobs that wait: what they run, where, when, and how
///
/// Without flags one job is shown as JSON in $VISUAL, else $EDITOR, else vi; what is left out there stays, null unsets.
/// A job keeps its number, its id and its history. Of a dead or cancelled job that changes what a retry runs. What runs
/// or has completed is refused, and so is another queue for a job of a run. A filter takes the jobs that wait; with
/// --state dead or cancelled those, too. Filters that are called like what can be changed begin with --where.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl edit job1 --priority 10 --timeout 2h
  queuectl edit job1 -c 'make -j2 all' --at 22:00
  queuectl edit job1 job2 --after dump --tag night=2
  queuectl edit --where-queue gpu --where-tag night=1 --timeout 2h
  EDITOR=nano queuectl edit job1")]
#[command(mut_arg("ids", |ids| ids.help("The jobs; all are changed or none").add(complete::editable_job())))]
#[command(mut_arg("queue", |filter| filter.long("where-queue")))]
#[command(mut_arg("tags", |filter| filter.long("where-tag")))]
#[command(mut_arg("name", |filter| filter.long("where-name")))]
#[command(mut_arg("command", |filter| filter.long("where-command")))]
pub(super) struct Edit {
    #[command(flatten)]
    pub changes: Changes,
    /// Print each job as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub jobs: Jobs,
}

// What a person changes of jobs. No documentation, which would be that of the command.
#[derive(Debug, Args)]
pub(super) struct Changes {
    /// A text for the shell
    #[arg(short = 'c', long = "command", value_name = "SHELL TEXT", allow_hyphen_values = true)]
    pub shell_text: Option<OsString>,
    /// The queue to wait in
    #[arg(id = "new_queue", long = "queue", value_name = "QUEUE", add = complete::queue())]
    pub queue: Option<QueueName>,
    /// From -100 to 100, higher first
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = priority)]
    pub priority: Option<i8>,
    /// Start, or try again, after so long, such as 90s, 10m or 2h; 0s for now
    #[arg(long, value_name = "D", value_parser = duration, conflicts_with = "at")]
    pub delay: Option<std::time::Duration>,
    /// Start, or try again, at this time, such as 22:00 or '2026-12-01 22:00' here, or 2026-12-01T22:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Wait until this job has completed, instead of what it waited for; may be given several times
    #[arg(long, value_name = "ID", value_delimiter = ',', add = complete::job())]
    pub after: Vec<JobId>,
    /// The same until it has ended, however it does
    #[arg(long, value_name = "ID", value_delimiter = ',', add = complete::job())]
    pub after_any: Vec<JobId>,
    /// Wait for no other job
    #[arg(long, conflicts_with_all = ["after", "after_any"])]
    pub no_after: bool,
    /// Retries after the first attempt
    #[arg(long, value_name = "N", value_parser = retries)]
    pub max_retries: Option<u32>,
    /// How long it may run, such as 90s, 5m or none
    #[arg(long, value_name = "D", value_parser = time_limit)]
    pub timeout: Option<TimeLimit>,
    /// A name, which other jobs may have too
    #[arg(id = "new_name", long = "name", value_name = "NAME")]
    pub name: Option<JobName>,
    /// A tag more, or another value of it; may be given several times
    #[arg(id = "new_tags", long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<Tags>,
}

// Several jobs: each by its id, or all that a filter lets through. The verb says what becomes of them. No documentation,
// which would take the place of the command's.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// The jobs; all of them or none
    #[arg(value_name = "ID", conflicts_with_all = ANY_FILTER)]
    pub ids: Vec<JobId>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub filters: Filters,
}

impl Jobs {
    /// Whether it was said which.
    pub(super) fn are_named(&self) -> bool {
        !self.ids.is_empty() || self.filters.are_given()
    }
}

/// Cancel jobs; the processes of those that run are ended
///
/// A filter takes those that have not ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl cancel job1 job2
  queuectl cancel --queue gpu --state pending
  queuectl cancel --run last --yes")]
#[command(mut_arg("ids", |ids| ids.help("The jobs; all are cancelled or none").add(complete::unended_job())))]
pub(super) struct Cancel {
    #[command(flatten)]
    pub jobs: Jobs,
}

/// Send a signal to jobs that run
///
/// Each process of the job's group gets it; a filter takes the jobs that run. What a job that dies of it comes to is
/// its outcome as always: it is retried. Time in which a job is stopped does not count towards its timeout.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl signal USR1 job1
  queuectl signal STOP job1 job2 && queuectl signal CONT job1 job2
  queuectl signal USR1 --tag night=1")]
#[command(mut_arg("ids", |ids| ids.help("The jobs; all get it or none").add(complete::running_job())))]
pub(super) struct Signal {
    /// Which: a name, with or without SIG, or a number
    #[arg(value_name = "SIGNAL", value_parser = signal::parse, add = complete::signal())]
    pub which: nix::sys::signal::Signal,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub jobs: Jobs,
}

/// Give ended jobs a fresh set of attempts; their history is kept
///
/// A filter takes the dead and the cancelled; with --state completed those, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl retry job1
  queuectl retry job1 --timeout 2h --max-retries 0
  queuectl retry --state dead --exit-code 137
  queuectl retry --all-dead")]
#[command(mut_arg("ids", |ids| ids.help("The jobs; all are retried or none")
    .conflicts_with("all_dead").add(complete::ended_job())))]
pub(super) struct Retry {
    /// Every job in the dead letter queue
    #[arg(long, conflicts_with_all = ANY_FILTER)]
    pub all_dead: bool,
    #[command(flatten)]
    pub terms: Terms,
    #[command(flatten)]
    pub jobs: Jobs,
}

// What a retry changes. No documentation, which would be that of the commands.
#[derive(Debug, Args)]
pub(super) struct Terms {
    /// Retries after the first attempt, from now on
    #[arg(long, value_name = "N", value_parser = retries)]
    pub max_retries: Option<u32>,
    /// How long it may run from now on, such as 90s, 5m or none
    #[arg(long, value_name = "D", value_parser = time_limit)]
    pub timeout: Option<TimeLimit>,
}

/// The dead letter queue: jobs that failed for good
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  queuectl dlq list
  queuectl dlq retry job1
  queuectl dlq retry --all")]
pub(super) enum Dlq {
    List(DlqList),
    Retry(DlqRetry),
}

/// List dead jobs, the last to die first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl dlq list --limit 10
  queuectl dlq list --queue gpu --since 1d --json")]
pub(super) struct DlqList {
    #[command(flatten)]
    pub listing: Listing,
    #[command(flatten)]
    pub which: Which,
}

/// Give dead jobs a fresh set of attempts; their history is kept
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl dlq retry job1
  queuectl dlq retry --queue gpu --timeout 2h
  queuectl dlq retry --all")]
pub(super) struct DlqRetry {
    /// The jobs; all are retried or none
    #[arg(value_name = "ID", conflicts_with_all = ANY_WHICH, conflicts_with = "all", add = complete::dead_job())]
    pub ids: Vec<JobId>,
    /// Every dead job
    #[arg(long, conflicts_with_all = ANY_WHICH)]
    pub all: bool,
    #[command(flatten)]
    pub terms: Terms,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub which: Which,
}

/// Remove ended jobs, with their history and what they wrote
///
/// Of jobs named by their ids all have to have ended: cancel what has not. A filter takes those that have.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl remove job1 job2
  queuectl remove --state completed --tag night=1
  queuectl remove --run 3 --yes")]
#[command(mut_arg("ids", |ids| ids.help("The jobs; all are removed or none").add(complete::ended_job())))]
pub(super) struct Remove {
    #[command(flatten)]
    pub jobs: Jobs,
}

/// Remove jobs that ended long ago, with their history and what they wrote
///
/// Completed and cancelled jobs go, dead ones only if --state says so. What a blocked job waits for stays, and all of a run
/// that has not ended. On a terminal it asks first. The settings retain-completed, retain-dead and retain-cancelled let
/// pools do the same by themselves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl clean --older-than 7d
  queuectl clean --older-than 30d --state completed,dead,cancelled --yes")]
pub(super) struct Clean {
    /// How long ago they ended, such as 90s, 12h or 7d
    #[arg(long, value_name = "D", value_parser = age)]
    pub older_than: std::time::Duration,
    /// In which states, separated by commas
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', default_value = "completed,cancelled",
        value_parser = ended_state, add = complete::ended_state())]
    pub states: Vec<StateKind>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Let jobs, or the jobs of queues, wait: what runs goes on, nothing else starts
///
/// --queue alone means the queue itself: its jobs of now and of later. Any other filter means the jobs that it lets
/// through now and that wait; with --queue beside it, those of that queue. A job stays held, and a queue paused, until
/// it is resumed, whichever pools come and go. Runs (queuectl run) go on when queues are paused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl pause                           all queues
  queuectl pause --queue gpu               this one, with what will be enqueued
  queuectl pause job1 job2                 these jobs
  queuectl pause --queue gpu --tag night=1 the jobs of now with this tag")]
#[command(mut_arg("ids", |ids| ids.help("Only these jobs; all are held or none")))]
pub(super) struct Pause {
    #[command(flatten)]
    pub what: Held,
}

/// Let held jobs, or the jobs of paused queues, go on
///
/// --queue alone means the queue itself. Any other filter means the held jobs that it lets through; with --queue beside it,
/// those of that queue.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl resume                   all queues
  queuectl resume --queue gpu       this one, even if all were paused
  queuectl resume job1 job2         these jobs
  queuectl resume --tag night=1     the held jobs with this tag")]
#[command(mut_arg("ids", |ids| ids.help("Only these jobs; all are resumed or none")))]
pub(super) struct Resume {
    #[command(flatten)]
    pub what: Held,
}

// What can be held back: queues, jobs by their ids, or those that a filter lets through. No documentation, which would be
// that of the commands.
#[derive(Debug, Args)]
pub(super) struct Held {
    #[arg(value_name = "ID", conflicts_with_all = ["queues", "states", "Traits"], add = complete::waiting_job())]
    pub ids: Vec<JobId>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// This queue; may be given several times. With other filters, the jobs of this queue
    #[arg(long = "queue", value_name = "QUEUE", add = complete::queue())]
    pub queues: Vec<QueueName>,
    /// Jobs in this state, or in one of these: pending,failed
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = state, add = complete::state())]
    pub states: Vec<StateKind>,
    #[command(flatten)]
    pub traits: Traits,
}

/// Read and change settings
///
/// Jobs that did not set a value themselves follow the settings at the moment it is needed, those that are
/// in the queue already too.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  queuectl config set max-retries 5
  queuectl config set timeout 2h
  queuectl config get backoff-base
  queuectl config list")]
pub(super) enum Config {
    Set(ConfigSet),
    Get(ConfigGet),
    /// List all settings with their values
    #[command(after_help = "\
Examples:
  queuectl config list
  queuectl config list --queue gpu
  queuectl config list --json | jq '.[\"max-retries\"]'")]
    List(ConfigList),
    Unset(ConfigUnset),
}

/// Change a setting
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl config set backoff-base 2.5
  queuectl config set --queue gpu parallel 1     one job of this queue at a time, whatever pools there are
  queuectl config set shell '/bin/bash -c'
  queuectl config set retain-completed 7d        pools remove what completed longer ago
  queuectl config set retain-dead 1000jobs       and of the dead all but the last 1000")]
pub(super) struct ConfigSet {
    /// Which: max-retries, backoff-base, max-backoff, timeout, kill-grace, max-losses, output-limit, shell, parallel,
    /// paused, retain-completed, retain-dead, retain-cancelled, retain-output
    #[arg(add = complete::setting())]
    pub key: String,
    /// What to
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    #[command(flatten)]
    pub scope: Scope,
}

/// Whose settings
#[derive(Debug, Args)]
pub(super) struct Scope {
    /// Of this queue alone; else of all that have none of their own
    #[arg(long, value_name = "QUEUE", add = complete::queue())]
    pub queue: Option<QueueName>,
}

// No documentation, which would take the place of the command's.
#[derive(Debug, Args)]
pub(super) struct ConfigList {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub scope: Scope,
}

/// Print a setting
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  queuectl config get max-retries")]
pub(super) struct ConfigGet {
    /// Which
    #[arg(add = complete::setting())]
    pub key: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub scope: Scope,
}

/// Let a setting follow its default again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  queuectl config unset timeout")]
pub(super) struct ConfigUnset {
    /// Which
    #[arg(add = complete::setting())]
    pub key: String,
    #[command(flatten)]
    pub scope: Scope,
}

/// Verify the queue file, or repair it
///
/// Every rule that the queue keeps is checked; each that does not hold is a line, and the exit code is 5.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl check
  queuectl check --deep
  queuectl check --repair")]
pub(super) struct Check {
    /// Verify every page, too, on a copy of the file; who wants to write waits while that is made
    #[arg(long)]
    pub deep: bool,
    /// Make every index anew from the jobs, and tell each difference; the file as it was is kept
    #[arg(long, conflicts_with = "deep")]
    pub repair: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Make the queue file as small as what is in it
///
/// The file keeps the room of what was removed, and uses it for what comes; this gives it back to the system. Others who
/// want to write wait meanwhile; looking goes on. Refused while a pool works. Needs room for the new file beside the old
/// one; stopped at any moment, it changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  queuectl worker stop && queuectl compact")]
pub(super) struct Compact {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Copy the queue to a folder while it is at work
///
/// The copy is the queue of one moment, outputs included. What runs then is pending in the copy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  queuectl backup ~/backups/queue-monday
  queuectl --db ~/backups/queue-monday list    looks at it")]
pub(super) struct Backup {
    /// Where to; nothing, or an empty folder, is there yet
    pub folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Put a backup in the queue's place
///
/// The backup is checked first. The queue that was there is kept beside it. Refused while a pool works.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  queuectl restore ~/backups/queue-monday")]
pub(super) struct Restore {
    /// The backup
    pub folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn workers(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=WORKERS_MAX).contains(count));
    count.ok_or_else(|| format!("it is a whole number from 1 to {WORKERS_MAX}"))
}

fn service_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix(".service").unwrap_or(text);
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.');
    if (1..=200).contains(&name.len()) && name.chars().all(is_good) && !name.starts_with(['-', '.']) {
        return Ok(name.to_owned());
    }
    Err("it is 1 to 200 of A-Z, a-z, 0-9, `:`, `-`, `_` and `.`, and begins with none of `-` and `.`".to_owned())
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "it is a whole number".to_owned())
}

fn retries(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| *count <= crate::model::RETRIES_MAX);
    count.ok_or_else(|| format!("it is a whole number from 0 to {}", crate::model::RETRIES_MAX))
}

fn priority(text: &str) -> Result<i8, String> {
    let priority = text.parse().ok().filter(|priority| PRIORITY_RANGE.contains(priority));
    priority.ok_or_else(|| "it is a whole number from -100 to 100".to_owned())
}

/// One tag.
pub(super) fn tag(text: &str) -> Result<Tags, String> {
    let mut tags = Tags::default();
    tags.set_typed(text).map_err(|error| error.to_string())?;
    Ok(tags)
}

fn time_limit(text: &str) -> Result<TimeLimit, String> {
    text.parse().map_err(|()| "it is a duration from 1ms to 365d, such as 90s, 5m or 1h30m, or `none`".to_owned())
}

pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    parse_duration(text).ok_or_else(|| "it is a duration up to 365d, such as 90s, 5m or 1h30m".to_owned())
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    parse_age(text).ok_or_else(|| "it is a duration up to 365d with its unit, such as 90s, 12h or 7d".to_owned())
}

fn if_exists(text: &str) -> Result<IfExists, String> {
    IfExists::from_name(text).ok_or_else(|| format!("it is one of {}", IfExists::ALL.map(IfExists::name).join(", ")))
}

pub(super) fn state(text: &str) -> Result<StateKind, String> {
    StateKind::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = StateKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("there is no such state; there are {}", names.join(", "))
    })
}

fn ended_state(text: &str) -> Result<StateKind, String> {
    let state = StateKind::from_name(text).filter(|kind| kind.has_ended());
    state.ok_or_else(|| "it is completed, dead or cancelled".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_in_a_group_and_has_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("Example") && after.contains("queuectl"), "{}", sub.get_name());
                check(sub);
            }
        }
        let mut cli = Cli::command();
        cli.build();
        for sub in cli.get_subcommands().filter(|sub| sub.get_name() != "help") {
            assert!(GROUPED_HELP.contains(&format!("\n  {} ", sub.get_name())), "{}", sub.get_name());
        }
        check(&cli);
    }
}
