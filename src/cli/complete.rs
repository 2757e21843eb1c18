//! Completion in shells. What `completions` prints makes a shell run this program, with [`VARIABLE`] set, for what may
//! come next: commands and flags by their definitions, and what is in the queue that the typed line would use.
//!
//! Nobody wants to hear of trouble in the middle of a line, or to wait: what cannot be looked up at once is not offered.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};

use nix::sys::signal::Signal;

use super::args::{Cli, Shell};
use super::context::place;
use super::exit::Exit;
use super::render::human;
use crate::model::{IfExists, Job, JobId, SettingKey, StateKind};
use crate::queue::{Folder, Queue};
use crate::store::{Cursor, RunInfo, Snapshot, StoreError};
use crate::worker::is_alive;

/// Set by the shells, to their names.
const VARIABLE: &str = "QUEUECTL_COMPLETE";
/// The program as the shells find it, wherever this one is.
const PROGRAM: &str = "queuectl";
/// How many jobs are offered.
const OFFERED_MAX: usize = 50;
/// Among how many of the newest jobs they are looked for.
const LOOKED_AT_MAX: usize = 5_000;
/// How many jobs are read at a time.
const PAGE: usize = 250;
/// How much of a command is shown beside its job, in characters.
const COMMAND_CHARS_MAX: usize = 60;
/// How long the queue may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// bash ends words at `:` and `=`, and replaces what follows these. This puts them together again, passes the whole word
/// on, and takes away from the answers what bash keeps.
const BASH_WHOLE_WORDS: &str = r#"
_queuectl_whole_words() {
    local line=$COMP_LINE i rest word whole='' current=0
    local -a words=()
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        word=${COMP_WORDS[i]}
        rest=${line#"${line%%[![:space:]]*}"}
        if [[ $i -gt 0 && $rest == "$line" && ( $word =~ ^[:=]+$ || ${COMP_WORDS[i-1]} =~ ^[:=]+$ ) ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        line=${rest#"$word"}
        if [[ $i -eq $COMP_CWORD ]]; then
            current=$((${#words[@]} - 1)) whole=${words[${#words[@]}-1]}
            [[ $word =~ ^[:=]+$ ]] || whole=${whole%"$word"}$2
        fi
    done
    local -a COMP_WORDS=("${words[@]}")
    local COMP_CWORD=$current
    _clap_complete_queuectl "$1" "$whole" "$3"
    local kept=${whole%"$2"}
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=${COMPREPLY[i]#"$kept"}
    done
}
"#;

/// Writes what `shell` is to read.
pub(super) fn write_script(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    if shell == Shell::Bash {
        let script = String::from_utf8_lossy(&script).replace("-F _clap_complete_queuectl", "-F _queuectl_whole_words");
        return out.write_all([BASH_WHOLE_WORDS, &script].concat().as_bytes());
    }
    out.write_all(&script)?;
    if shell == Shell::Zsh {
        // As a file in `fpath` it is read when the first completion is asked for, which is to be answered.
        writeln!(out, "[[ $funcstack[1] == _{PROGRAM} ]] && _clap_dynamic_completer_{PROGRAM} \"$@\"; true")?;
    }
    Ok(())
}

/// If a shell asks, prints what may come next.
pub(super) fn answer() -> Option<Exit> {
    env::var_os(VARIABLE)?;
    panic::set_hook(Box::new(|_| {}));
    let cwd = env::current_dir().ok();
    let shells = CompleteEnv::with_factory(Cli::command).var(VARIABLE).shells(Shells(&[&Bash, &Zsh, &Fish]));
    match shells.try_complete(env::args_os(), cwd.as_deref()) {
        Ok(true) => Some(Exit::Done),
        Ok(false) => None,
        Err(_) => Some(Exit::Other),
    }
}

/// Any job.
pub(super) fn job() -> ArgValueCompleter {
    jobs(&[None])
}

/// Jobs that have not ended; what runs first.
pub(super) fn unended_job() -> ArgValueCompleter {
    use StateKind::{Blocked, Failed, Pending, Processing, Scheduled};
    jobs(&[Some(Processing), Some(Failed), Some(Pending), Some(Scheduled), Some(Blocked)])
}

/// Jobs that run.
pub(super) fn running_job() -> ArgValueCompleter {
    jobs(&[Some(StateKind::Processing)])
}

/// Signals.
pub(super) fn signal() -> ArgValueCandidates {
    let offer = |signal: Signal| CompletionCandidate::new(signal.as_str().trim_start_matches("SIG"));
    ArgValueCandidates::new(move || Signal::iterator().map(offer).collect())
}

/// Jobs that wait.
pub(super) fn waiting_job() -> ArgValueCompleter {
    use StateKind::{Blocked, Failed, Pending, Scheduled};
    jobs(&[Some(Failed), Some(Pending), Some(Scheduled), Some(Blocked)])
}

/// The same, and what may be retried.
pub(super) fn editable_job() -> ArgValueCompleter {
    use StateKind::{Blocked, Cancelled, Dead, Failed, Pending, Scheduled};
    jobs(&[Some(Failed), Some(Pending), Some(Scheduled), Some(Blocked), Some(Dead), Some(Cancelled)])
}

/// Jobs that have ended; what died first.
pub(super) fn ended_job() -> ArgValueCompleter {
    jobs(&[Some(StateKind::Dead), Some(StateKind::Cancelled), Some(StateKind::Completed)])
}

/// Dead jobs.
pub(super) fn dead_job() -> ArgValueCompleter {
    jobs(&[Some(StateKind::Dead)])
}

/// Queues.
pub(super) fn queue() -> ArgValueCandidates {
    ArgValueCandidates::new(|| look(queues).into_iter().map(CompletionCandidate::new).collect())
}

/// Pools that live.
pub(super) fn pool() -> ArgValueCandidates {
    ArgValueCandidates::new(|| look(pools).into_iter().map(CompletionCandidate::new).collect())
}

/// States.
pub(super) fn state() -> ArgValueCandidates {
    ArgValueCandidates::new(|| StateKind::ALL.map(|kind| CompletionCandidate::new(kind.name())).into())
}

/// What becomes of a job whose key another has.
pub(super) fn if_exists() -> ArgValueCandidates {
    ArgValueCandidates::new(|| IfExists::ALL.map(|rule| CompletionCandidate::new(rule.name())).into())
}

/// The newest runs.
pub(super) fn run() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let found = look(|queue| queue.read(|snapshot| snapshot.newest_runs(OFFERED_MAX)));
        let offer =
            |run: RunInfo| CompletionCandidate::new(run.number.to_string()).help(Some(human::plain(&run.line).into()));
        let last = CompletionCandidate::new("last").help(Some("the newest".into()));
        [last].into_iter().chain(found.into_iter().map(offer)).collect()
    })
}

/// States of jobs that have ended.
pub(super) fn ended_state() -> ArgValueCandidates {
    let ended = || StateKind::ALL.into_iter().filter(|kind| kind.has_ended());
    ArgValueCandidates::new(move || ended().map(|kind| CompletionCandidate::new(kind.name())).collect())
}

/// Settings.
pub(super) fn setting() -> ArgValueCandidates {
    let offer = |key: SettingKey| CompletionCandidate::new(key.name()).help(Some(key.purpose().into()));
    ArgValueCandidates::new(move || SettingKey::ALL.map(offer).into())
}

/// Jobs in these states, `None` being any, one state after the other.
fn jobs(states: &'static [Option<StateKind>]) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let Some(typed) = typed.to_str().map(str::to_owned) else { return Vec::new() };
        let found = look(move |queue| newest(queue, states, &typed));
        found.into_iter().map(|(id, about)| CompletionCandidate::new(id).help(Some(about.into()))).collect()
    })
}

/// The newest jobs whose ids begin as typed, each with a word about it.
fn newest(queue: &Queue, states: &[Option<StateKind>], typed: &str) -> Result<Vec<(String, String)>, StoreError> {
    let (mut found, mut left) = (Vec::new(), LOOKED_AT_MAX);
    let counts = queue.read(Snapshot::counts)?;
    for state in states.iter().filter(|state| state.is_none_or(|kind| counts[&kind] > 0)) {
        let mut cursor = Some(Cursor::default());
        while let Some(at) = cursor.filter(|_| found.len() < OFFERED_MAX && left > 0) {
            let page = queue.read(|snapshot| snapshot.page(*state, &at, PAGE.min(left)))?;
            left -= page.jobs.len();
            found.extend(page.jobs.iter().filter(|job| job.id.as_str().starts_with(typed)).map(offer));
            cursor = page.next;
        }
    }
    found.truncate(OFFERED_MAX);
    if found.is_empty() {
        found.extend(named(queue, states, typed)?.as_ref().map(offer));
    }
    Ok(found)
}

/// The job of exactly this id, however old.
fn named(queue: &Queue, states: &[Option<StateKind>], typed: &str) -> Result<Option<Job>, StoreError> {
    let Ok(id) = typed.parse::<JobId>() else { return Ok(None) };
    let job = queue.read(|snapshot| match snapshot.find(&id)? {
        Some(seq) => snapshot.job(seq),
        None => Ok(None),
    })?;
    Ok(job.filter(|job| states.iter().any(|state| state.is_none_or(|kind| kind == job.progress.state.kind()))))
}

fn offer(job: &Job) -> (String, String) {
    let command: String = job.command.to_string().chars().take(COMMAND_CHARS_MAX).collect();
    (job.id.to_string(), human::plain(&format!("{}, {command}", job.progress.state.kind().name())))
}

/// The queues that there are, and the one that there always is.
fn queues(queue: &Queue) -> Result<Vec<String>, StoreError> {
    let queues = queue.read(Snapshot::queues)?.into_iter().map(|queue| queue.name.to_string());
    let mut names: Vec<String> = queues.chain(["default".to_owned()]).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn pools(queue: &Queue) -> Result<Vec<String>, StoreError> {
    let pools = queue.read(Snapshot::pools)?.into_iter();
    let living = pools.filter(|pool| pool.ended.is_none() && is_alive(queue, &pool.id));
    Ok(living.map(|pool| pool.id.to_string()).collect())
}

/// What is found in the queue that the typed line would use; nothing if that takes too long or fails in any way.
fn look<T: Send + 'static>(find: impl FnOnce(&Queue) -> Result<Vec<T>, StoreError> + Send + 'static) -> Vec<T> {
    let (found, told) = mpsc::channel();
    let looking = thread::Builder::new().spawn(move || {
        if let Some(queue) = open() {
            let _ = found.send(find(&queue));
            queue.leave();
        }
    });
    if looking.is_err() {
        return Vec::new();
    }
    told.recv_timeout(PATIENCE).ok().and_then(Result::ok).unwrap_or_default()
}

fn open() -> Option<Queue> {
    let db = db_typed(env::args_os());
    let place = place(db.as_deref(), &env::current_dir().ok()?).ok()?;
    let folder = Folder::existing(&place.folder).ok()??;
    Queue::open_read_only(&folder, Box::new(|| {})).ok()
}

/// The folder that the typed line names. It stands behind the first `--`, as it was typed.
fn db_typed(args: impl IntoIterator<Item = OsString>) -> Option<OsString> {
    let typed = args.into_iter().skip_while(|word| word != "--").skip(1);
    let mut words = typed.take_while(|word| word != "--");
    while let Some(word) = words.next() {
        let word = word.into_string().unwrap_or_default();
        if word == "--db" {
            return words.next().map(meant);
        }
        if let Some(folder) = word.strip_prefix("--db=") {
            return Some(meant(folder.into()));
        }
    }
    None
}

/// A word without quotes and with the home folder, as the shell would pass it on.
fn meant(word: OsString) -> OsString {
    let Some(text) = word.to_str() else { return word };
    match (text.strip_prefix("~/"), env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(unquoted(rest)).into(),
        _ => unquoted(text).into(),
    }
}

/// Some shells pass words on as they were typed, others what they mean.
fn unquoted(word: &str) -> String {
    match shlex::split(word).as_deref() {
        Some([word]) => word.clone(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_in_the_typed_line_is_found() {
        for (line, db) in [
            ("bin -- queuectl show", None),
            ("bin --db no -- queuectl --db yes show", Some("yes")),
            ("bin -- queuectl show --db=yes 1", Some("yes")),
            ("bin -- queuectl show --db 'yes' 1", Some("yes")),
            ("bin -- queuectl show --db", None),
            ("bin -- queuectl enqueue -- x --db no", None),
        ] {
            let words = line.split(' ').map(OsString::from);
            assert_eq!(db_typed(words), db.map(OsString::from), "{line}");
        }
    }

    #[test]
    fn quotes_are_the_shells() {
        for (typed, meant) in [("'a b'", "a b"), ("a\\ b", "a b"), ("a b", "a b"), ("it's", "it's"), ("\"x\"y", "xy")] {
            assert_eq!(unquoted(typed), meant);
        }
    }
}
