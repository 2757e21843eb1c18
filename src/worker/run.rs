//! One run of one job, on its worker's thread.
//!
//! Crash points, by what the board says when the pool is killed; see the table in the floor's map:
//! before `Starting` the claim is given back; from `Starting` on the run counts as started; from `Ended` on its
//! outcome is known and committed by whoever recovers.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use super::board::{Slot, Stage};
use super::child::{self, Change, Exit, Launch, Reaped};
use super::dispatcher::{Event, Report, Why};
use super::launch::{self, LastEnvironment, Strings};
use super::lives::Live;
use super::output::Ends;
use super::places::Place;
use super::pool::Shared;
use super::program::{self, NotRunnable};
use super::tree::{self, Asked, Leader, Mark, Reach};
use crate::model::{Ending, Kept, Millis, Outcome, Run, SURVIVOR_GRACE_MAX, TimeLimit, show_duration};
use crate::store::Claim;

/// What a shell answers when there is no such program, and when it cannot be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;
/// How long a worker waits before it tries again what the machine had no room for.
const NO_ROOM_RETRY: Duration = Duration::from_millis(250);

/// How starting went.
enum Started {
    Running(Pid, Leader),
    /// It was to be ended before it began.
    NotWanted,
    /// It cannot be executed.
    Impossible {
        error: String,
        exit_code: Option<i32>,
    },
}

/// The words to execute.
#[derive(Clone, Copy)]
struct Words<'a> {
    argv: &'a [CString],
    /// See [`Launch::runs_scripts`].
    runs_scripts: bool,
}

/// Why a command cannot be started.
enum NotStarted {
    /// There is nothing to execute.
    NoProgram(NotRunnable),
    /// The kernel refused.
    Refused(io::Error),
}

/// Runs a claimed job to its end, and says how that came.
pub(super) fn run(shared: &Shared, slot: usize, claim: Claim, environment: &mut LastEnvironment) -> Report {
    let place = shared.places.take();
    let attempt = Attempt { shared, slot, place: &place, claim: &claim };
    let ending = match attempt.open_ends() {
        Ok(Some(ends)) => attempt.execute(ends, environment),
        Ok(None) => Ending::NotStarted,
        Err(error) => {
            let error = Some(format!("its output files cannot be made: {error}"));
            Ending::Ran(Run { error, ..attempt.blank(shared.clock.now()) })
        }
    };
    Report { token: claim.token, ending, place: Some(place) }
}

struct Attempt<'a> {
    shared: &'a Shared,
    slot: usize,
    place: &'a Place,
    claim: &'a Claim,
}

impl Attempt<'_> {
    /// Opens the output files, waiting while the machine has no room for them. `None` when the job is not wanted any
    /// more.
    fn open_ends(&self) -> io::Result<Option<Ends>> {
        loop {
            match self.place.spool().open_ends() {
                Err(error) if is_no_room(&error) => {
                    self.shared.say_no_room("open the output of a job", &error);
                    if self.is_not_wanted_after(NO_ROOM_RETRY) {
                        return Ok(None);
                    }
                }
                opened => return opened.map(Some),
            }
        }
    }

    /// Waits for room; says whether the pool stops or the job is to be ended before it began.
    fn is_not_wanted_after(&self, wait: Duration) -> bool {
        self.shared.monitor.wait_for_end(wait) || self.shared.monitor.why(self.slot).is_some()
    }

    fn execute(&self, ends: Ends, environment: &mut LastEnvironment) -> Ending {
        let at = self.shared.clock.now();
        let started = self.start(&ends, at, environment);
        // Only what the run started may have them open when they are used again.
        drop(ends);
        match started {
            Started::NotWanted => Ending::NotStarted,
            Started::Impossible { error, exit_code } => {
                Ending::Ran(Run { exit_code, error: Some(error), ..self.blank(at) })
            }
            Started::Running(pid, leader) => Ending::Ran(self.see_to_the_end(at, pid, &leader)),
        }
    }

    fn start(&self, ends: &Ends, at: Millis, environment: &mut LastEnvironment) -> Started {
        let own = launch::Surroundings {
            queue: self.shared.queue.as_os_str().as_bytes(),
            slot: self.slot,
            token: self.shared.token(self.claim.token.lease()),
        };
        let Some(strings) = Strings::of(self.claim, own, environment) else {
            return Started::Impossible { error: "its strings have a NUL byte".to_owned(), exit_code: None };
        };
        let start = |argv: &[CString], runs_scripts| self.start_as(Words { argv, runs_scripts }, &strings, ends, at);
        // What is wrong with a plain command is the shell's to say, and a script without a first line its to run.
        if let Some(Ok(started)) = strings.plain.as_ref().map(|words| start(words, false)) {
            return started;
        }
        start(&strings.argv, true).unwrap_or_else(|why| self.impossible(&strings.argv, &why))
    }

    /// Starts a program with these words, waiting while the machine has no room for it.
    fn start_as(&self, words: Words<'_>, strings: &Strings, ends: &Ends, at: Millis) -> Result<Started, NotStarted> {
        let program = program::resolve(name(words.argv), strings.path(), &self.claim.work.cwd);
        let program = program.map_err(NotStarted::NoProgram)?;
        loop {
            match self.spawn(words, strings, &program, ends, at) {
                Err(error) if is_no_room(&error) => {
                    self.shared.say_no_room("start a job", &error);
                    if self.is_not_wanted_after(NO_ROOM_RETRY) {
                        return Ok(Started::NotWanted);
                    }
                }
                spawned => return spawned.map_err(NotStarted::Refused),
            }
        }
    }

    fn impossible(&self, argv: &[CString], why: &NotStarted) -> Started {
        let cwd = &self.claim.work.cwd;
        if let Err(error) = program::enterable(cwd) {
            let error = format!("cannot run in the folder {}: {error}", cwd.display());
            return Started::Impossible { error, exit_code: None };
        }
        let (what, exit_code) = match why {
            NotStarted::NoProgram(NotRunnable::NotFound) => ("no such program".to_owned(), NOT_FOUND),
            NotStarted::NoProgram(NotRunnable::NotExecutable) => ("cannot be executed".to_owned(), NOT_EXECUTABLE),
            NotStarted::Refused(error) => (error.to_string(), NOT_EXECUTABLE),
        };
        let name = Path::new(OsStr::from_bytes(name(argv))).display();
        Started::Impossible { error: format!("{name}: {what}"), exit_code: Some(exit_code) }
    }

    /// Spawns under the worker's lock, so that whoever wants to end the run either comes before, and it does
    /// not start, or after, and finds it.
    fn spawn(
        &self,
        words: Words<'_>,
        strings: &Strings,
        program: &CStr,
        ends: &Ends,
        at: Millis,
    ) -> io::Result<Started> {
        let mut live = self.shared.lives.lock(self.slot);
        if self.shared.monitor.why(self.slot).is_some() {
            return Ok(Started::NotWanted);
        }
        let earliest = tree::boot_ticks_now();
        self.board(Stage::Starting { at, boot_ticks: earliest })?;
        let pid = child::spawn(&Launch {
            program,
            argv: words.argv,
            env: &strings.env(),
            runs_scripts: words.runs_scripts,
            cwd: &strings.cwd,
            stdin: self.shared.null.as_fd(),
            stdout: ends.stdout.as_fd(),
            stderr: ends.stderr.as_fd(),
        })?;
        let born_by = tree::boot_ticks_now();
        // The command runs already: if the disk has no room for this line, `Starting` says enough.
        let _ = self.board(Stage::Running { at, boot_ticks: earliest, born_by, pid: pid.as_raw_pid().cast_unsigned() });
        let leader = Leader { pid, born: earliest..=born_by };
        let mark = Mark { token: strings.token.clone(), leader: Some(leader.clone()) };
        *live = Some(Live { lease: self.claim.token.lease(), mark, pid: Some(pid) });
        Ok(Started::Running(pid, leader))
    }

    fn board(&self, stage: Stage) -> io::Result<()> {
        let token = &self.claim.token;
        let worker = u32::try_from(self.slot).unwrap_or(u32::MAX);
        let (seq, lease, attempt) = (token.seq(), token.lease(), self.claim.attempt);
        let slot = Slot { seq, lease, attempt, worker, spool: self.place.number(), stage };
        self.shared.file.write(self.place.index(), &slot)
    }

    fn see_to_the_end(&self, at: Millis, pid: Pid, leader: &Leader) -> Run {
        let limit = self.claim.work.output_limit;
        self.place.spool().begin(self.shared.clock.elapsed());
        self.shared.lives.watch_output(self.slot, Arc::clone(self.place.spool()), limit);
        // Waiting can only fail for a process that is not our child any more.
        let waited = self.await_end(pid);
        let ended = self.shared.clock.now();
        // Before anything else: what ends by itself now is not ended by a deadline that comes a moment later.
        let why = self.shared.monitor.why(self.slot);
        let reaped = {
            let mut live = self.shared.lives.lock(self.slot);
            if let Some(live) = live.as_mut() {
                live.pid = None;
            }
            waited.and_then(|()| child::reap(pid))
        };
        let mut run = self.judge(reaped, why, at, ended);
        let _ = self.board(ended_stage(&run, leader));
        self.end_what_is_left(&mut run, pid, why);
        *self.shared.lives.lock(self.slot) = None;
        self.shared.lives.unwatch_output(self.slot);
        match self.place.spool().collect(&self.shared.queue, self.claim.token.seq(), self.claim.attempt, limit) {
            Ok((stdout, stderr)) => (run.stdout, run.stderr) = (stdout, stderr),
            Err(error) => add_error(&mut run, &format!("its output could not be kept: {error}")),
        }
        run
    }

    /// Waits until the command has ended. Time in which it is stopped does not count.
    fn await_end(&self, pid: Pid) -> io::Result<()> {
        loop {
            match child::wait_for_change(pid)? {
                Change::Stopped => self.shared.handle(Event::Stopped { slot: self.slot }),
                Change::Continued => self.shared.handle(Event::Continued { slot: self.slot }),
                Change::Exited => return Ok(()),
            }
        }
    }

    fn blank(&self, at: Millis) -> Run {
        Run {
            slot: u32::try_from(self.slot).unwrap_or(u32::MAX),
            started: at,
            ended: self.shared.clock.now(),
            outcome: Outcome::Failed,
            counts_as_loss: false,
            exit_code: None,
            signal: None,
            cpu: Duration::ZERO,
            max_rss_bytes: 0,
            error: None,
            stdout: Kept::Empty,
            stderr: Kept::Empty,
        }
    }

    /// What the end of the process means.
    fn judge(&self, reaped: io::Result<Reaped>, why: Option<Why>, at: Millis, ended: Millis) -> Run {
        let mut run = Run { ended, ..self.blank(at) };
        match reaped {
            Ok(reaped) => {
                (run.cpu, run.max_rss_bytes) = (reaped.cpu, reaped.max_rss_bytes);
                match reaped.exit {
                    Exit::Code(code) => run.exit_code = Some(code),
                    Exit::Signal(signal) => run.signal = Some(signal),
                }
            }
            Err(error) => run.error = Some(format!("its end could not be seen: {error}")),
        }
        run.outcome = match why {
            Some(why) => why.outcome(),
            None if run.exit_code == Some(0) => Outcome::Completed,
            None => Outcome::Failed,
        };
        if run.error.is_none() {
            run.error = self.words(&run, why);
        }
        run
    }

    fn words(&self, run: &Run, why: Option<Why>) -> Option<String> {
        match why {
            Some(Why::TimedOut) => Some(self.timed_out()),
            Some(Why::Cancelled) => Some("cancelled while it ran".to_owned()),
            Some(Why::Interrupted) => Some("its pool was stopped".to_owned()),
            None => describe_exit(run.exit_code, run.signal),
        }
    }

    /// Which limit it was, and how to change that.
    fn timed_out(&self) -> String {
        let TimeLimit::After(limit) = self.claim.work.timeout else { return "timed out".to_owned() };
        let limit = show_duration(limit);
        if self.claim.work.own_timeout {
            format!("timed out after {limit}, the timeout that it was enqueued with")
        } else {
            format!("timed out after {limit}; `queuectl config set timeout` allows more")
        }
    }

    /// A run is over when its command is: its group is ended with it; if it was made to end, its whole tree.
    fn end_what_is_left(&self, run: &mut Run, pid: Pid, why: Option<Why>) {
        let (reach, asked, grace) = match why {
            Some(_) => (Reach::Tree, Asked::Already, self.shared.monitor.grace_left(self.slot)),
            None if tree::group_is_gone(pid) => return,
            None => (Reach::Group, Asked::NotYet, self.claim.work.kill_grace.min(SURVIVOR_GRACE_MAX)),
        };
        let Some(mark) = self.shared.lives.lock(self.slot).as_ref().map(|live| live.mark.clone()) else { return };
        match tree::end(&[mark], reach, asked, grace) {
            Ok(ending) => {
                if ending.ended > 0 && why.is_none() {
                    let noun = if ending.ended == 1 { "process" } else { "processes" };
                    add_error(run, &format!("ended {} {noun} left in the background", ending.ended));
                }
                for remaining in ending.remaining {
                    add_error(run, &format!("could not end process {}", remaining.pid.as_raw_pid()));
                }
            }
            Err(error) => add_error(run, &format!("could not look for what it left behind: {error}")),
        }
    }
}

fn add_error(run: &mut Run, more: &str) {
    run.error = Some(match run.error.take() {
        Some(error) => format!("{error}; {more}"),
        None => more.to_owned(),
    });
}

/// The program as it was typed.
fn name(argv: &[CString]) -> &[u8] {
    argv.first().map_or(b"", |name| name.as_bytes())
}

/// An exit in words; nothing for success.
pub(super) fn describe_exit(exit_code: Option<i32>, signal: Option<i32>) -> Option<String> {
    match (exit_code, signal) {
        (Some(0), _) | (None, None) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("unknown", nix::sys::signal::Signal::as_str);
            Some(format!("killed by signal {signal} ({name})"))
        }
    }
}

fn ended_stage(run: &Run, leader: &Leader) -> Stage {
    Stage::Ended {
        at: run.started,
        ended: run.ended,
        outcome: run.outcome,
        exit_code: run.exit_code,
        signal: run.signal,
        cpu: run.cpu,
        max_rss_bytes: run.max_rss_bytes,
        boot_ticks: *leader.born.start(),
        born_by: *leader.born.end(),
        pid: leader.pid.as_raw_pid().cast_unsigned(),
    }
}

/// Whether a spawn failed for want of something that may come back: it is not the job's fault.
fn is_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ENOSPC].map(Some).contains(&errno)
}
