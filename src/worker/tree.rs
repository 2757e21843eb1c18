//! Finding and ending the processes of jobs.
//!
//! A job's process leads its own group and session, and its environment names its lease. Whatever it starts inherits
//! both until it drops them, so what is left of a run is found in `/proc`, whoever looks and however the pool died.
//!
//! 1. A signal goes only to a process that was matched: through a pidfd, opened and then compared with what was seen.
//! 2. A pid counts only together with the time at which its process started, since pids are used again.
//! 3. Neither this process, nor one that it descends from, nor pid 1 is ever signalled.
//! 4. What [`end`] does not name as remaining was not there when it looked last.

mod procfs;
mod search;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal, test_kill_process_group};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use procfs::{LEASE_VARIABLE, boot_ticks_now};
use procfs::{Stat, read_table};
use search::{Identity, Member, Search, Selection};

/// How often [`find`] looks again when all that it saw is gone before it is held.
const FINDING_ROUNDS_MAX: usize = 50;

/// After so many rounds of asking, a tree that keeps growing new processes is not about to end by itself.
const ASKING_ROUNDS_MAX: usize = 4;

/// Rounds of killing before [`end`] gives up; a tree that forks faster than `/proc` can be read needs some.
const KILLING_ROUNDS_MAX: usize = 50;

/// How long one round waits for what it killed, in which only a process stuck in the kernel does not end.
const KILL_WAIT: Duration = Duration::from_millis(100);

/// How many pidfds are held at once, so that a large tree does not use up the descriptors of the pool.
const PIDFDS_MAX: usize = 64;

/// The longest single wait, which keeps every time that was asked for in the range of the kernel.
const POLL_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What is known of one run's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The value of `QUEUECTL_LEASE` in the run's environment, matched as a whole.
    pub token: Vec<u8>,
    /// The run's first process, unless its pool died before noting it.
    pub leader: Option<Leader>,
}

/// The first process of a run: leader of its own group and session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its pid.
    pub pid: Pid,
    /// The earliest and the latest that it can have started, as [`boot_ticks_now`] before and after the spawn.
    pub born: RangeInclusive<u64>,
}

/// How much of a run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The process group of the leader: what a finished command left behind.
    Group,
    /// Besides, the leader's session, whatever carries the token, and all descendants of these.
    Tree,
}

/// A living process of a run.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its pid when it was found.
    pub pid: Pid,
    /// The process itself, whatever becomes of its pid.
    pub pidfd: OwnedFd,
    /// Which of the marks it belongs to.
    pub mark: usize,
}

/// What came of ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// How many processes were signalled and are gone.
    pub ended: usize,
    /// What is still there.
    pub remaining: Vec<Remaining>,
}

/// A process that could not be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remaining {
    /// Its pid.
    pub pid: Pid,
    /// Which of the marks it belongs to.
    pub mark: usize,
    /// What stood against it.
    pub why: Why,
}

/// Why a process remains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It may not be signalled: it runs as another user.
    NotPermitted,
    /// It is this process, or one that this process descends from.
    Ourselves,
    /// It was killed, but has not ended, or the tree forks faster than it can be killed.
    Unkillable,
}

/// The living processes of `marks`; this process and those above it are left out. None means that there was none, even
/// of a tree that goes on from process to process.
pub(crate) fn find(marks: &[Mark], reach: Reach) -> io::Result<Vec<Found>> {
    let search = Search::new(marks, reach);
    for _ in 0..FINDING_ROUNDS_MAX {
        let seen = look(&search, &HashMap::new())?;
        let found = open_all(&seen.ours)?;
        let none = seen.ours.is_empty() && seen.settled;
        if none || !found.is_empty() {
            return Ok(found);
        }
    }
    Err(too_fast())
}

/// Sends `signal` to each; answers which could not be signalled. One that has ended meanwhile counts as signalled.
pub(crate) fn signal(found: &[Found], signal: Signal) -> Vec<(Pid, Errno)> {
    found.iter().filter_map(|process| process.send(signal).err().map(|errno| (process.pid, errno))).collect()
}

/// Whether the processes of a run had their SIGTERM before. A second one makes some programs give up their tidying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// They are to get it now.
    NotYet,
    /// They had it: what they have left is the grace.
    Already,
}

/// Ends the processes of `marks`: SIGTERM and SIGCONT, unless they had it, then SIGKILL to what is still there after
/// `grace`; SIGKILL at once if that is zero. Returns as soon as a look at `/proc` finds none but those that may not be signalled.
pub(crate) fn end(marks: &[Mark], reach: Reach, asked: Asked, grace: Duration) -> io::Result<Ending> {
    let mut hunt = Hunt::new(Search::new(marks, reach), asked);
    let patience = monotonic_now().saturating_add(grace);
    for round in 0..ASKING_ROUNDS_MAX + KILLING_ROUNDS_MAX {
        let selection = hunt.look()?;
        let now = monotonic_now();
        let (treatment, until) = if round < ASKING_ROUNDS_MAX && now < patience {
            (Treatment::Ask, patience)
        } else {
            (Treatment::Kill, now.saturating_add(KILL_WAIT))
        };
        let targets = hunt.treat(&selection.ours, treatment)?;
        if targets.is_empty() && selection.settled {
            return Ok(hunt.ending(&selection));
        }
        await_gone(&targets, until)?;
    }
    let selection = hunt.look()?;
    if selection.ours.is_empty() && !selection.settled { Err(too_fast()) } else { Ok(hunt.ending(&selection)) }
}

/// Whether a process group has no process any more. Ask after its leader was reaped, since zombies count as members.
pub(crate) fn group_is_gone(pgid: Pid) -> bool {
    test_kill_process_group(pgid) == Err(Errno::SRCH)
}

/// What a round does to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// SIGTERM, once, and SIGCONT, so that a stopped process can act on it.
    Ask,
    /// SIGKILL.
    Kill,
}

/// Ending some runs: what has been seen of them, and what was done to it.
struct Hunt<'a> {
    search: Search<'a>,
    asked: Asked,
    /// All that were ever found, so that who loses its parent in a round is still known in the next.
    known: HashMap<Identity, usize>,
    /// Those that took a signal.
    signalled: HashSet<Identity>,
    /// Those that refused the latest one.
    refused: HashSet<Identity>,
}

impl<'a> Hunt<'a> {
    fn new(search: Search<'a>, asked: Asked) -> Self {
        Self { search, asked, known: HashMap::new(), signalled: HashSet::new(), refused: HashSet::new() }
    }

    /// What is alive now. What descends from a member that leads a session of its own is followed by that: once the
    /// member is killed, its children have nothing else in common with the run.
    fn look(&mut self) -> io::Result<Selection> {
        let selection = look(&self.search, &self.known)?;
        for Member { id, mark } in selection.ours.iter().copied() {
            let is_new = self.known.insert(id, mark).is_none();
            if is_new && self.search.reach() == Reach::Tree {
                self.search.follow(mark, Leader { pid: id.pid, born: id.started..=id.started });
            }
        }
        Ok(selection)
    }

    /// Signals the members; answers those whose end is worth waiting for.
    fn treat(&mut self, members: &[Member], treatment: Treatment) -> io::Result<Vec<Member>> {
        self.refused.clear();
        let mut targets = Vec::new();
        for member in members {
            match self.treat_one(*member, treatment)? {
                Err(_) => drop(self.refused.insert(member.id)),
                Ok(()) => targets.push(*member),
            }
        }
        Ok(targets)
    }

    /// Signals one; the inner result is whether it may be signalled.
    fn treat_one(&mut self, member: Member, treatment: Treatment) -> io::Result<Result<(), Errno>> {
        if treatment == Treatment::Ask && (self.asked == Asked::Already || self.signalled.contains(&member.id)) {
            self.signalled.insert(member.id);
            return Ok(Ok(()));
        }
        let Some(process) = Found::open(member)? else { return Ok(Ok(())) };
        let sent = match treatment {
            Treatment::Ask => process.send(Signal::TERM).and_then(|()| process.send(Signal::CONT)),
            Treatment::Kill => process.send(Signal::KILL),
        };
        if sent.is_ok() {
            self.signalled.insert(member.id);
        }
        Ok(sent)
    }

    /// The result, when `last` is what is left.
    fn ending(&self, last: &Selection) -> Ending {
        let left = last.ours.iter().filter(|member| self.signalled.contains(&member.id)).count();
        let because = |member: &Member, why| Remaining { pid: member.id.pid, mark: member.mark, why };
        let ours = last.ours.iter().map(|member| {
            let refused = self.refused.contains(&member.id);
            because(member, if refused { Why::NotPermitted } else { Why::Unkillable })
        });
        let spared = last.spared.iter().map(|member| because(member, Why::Ourselves));
        Ending { ended: self.signalled.len() - left, remaining: ours.chain(spared).collect() }
    }
}

impl Found {
    /// A hold on the process that was seen, if it is still there.
    fn open(member: Member) -> io::Result<Option<Self>> {
        let pid = member.id.pid;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // No process, or the pid has come to be that of a mere thread.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Only now: while the pidfd's process lives the pid cannot pass to another one.
        let same = Stat::of(pid)?.is_some_and(|stat| stat.alive && stat.started == member.id.started);
        Ok(same.then_some(Self { pid, pidfd, mark: member.mark }))
    }

    /// Sends a signal; that it has ended already is as good.
    fn send(&self, signal: Signal) -> Result<(), Errno> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }
}

/// One look at all processes. `known` are members whatever their environment and group say by now.
fn look(search: &Search<'_>, known: &HashMap<Identity, usize>) -> io::Result<Selection> {
    let table = read_table(|pid, stat| search.asks_for_lease(pid, stat))?;
    Ok(search.select(&table, known, getpid()))
}

/// Nothing was held, but it is not certain that there is nothing.
fn too_fast() -> io::Error {
    io::Error::other("processes come and go too fast to tell what is left of a job")
}

/// A hold on each of the members that are still there.
fn open_all(members: &[Member]) -> io::Result<Vec<Found>> {
    members.iter().filter_map(|member| Found::open(*member).transpose()).collect()
}

/// Waits until all members are gone, at most until then.
fn await_gone(members: &[Member], until: Duration) -> io::Result<()> {
    for some in members.chunks(PIDFDS_MAX) {
        let mut found = open_all(some)?;
        while !found.is_empty() {
            let Some(left) = until.checked_sub(monotonic_now()) else { return Ok(()) };
            drop_gone(&mut found, left)?;
        }
    }
    Ok(())
}

/// Waits until at least one is gone, at most for that long, and drops those that are.
fn drop_gone(found: &mut Vec<Found>, wait: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = found.iter().map(|process| PollFd::new(&process.pidfd, PollFlags::IN)).collect();
    let wait = Timespec::try_from(wait.min(POLL_WAIT_MAX)).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&wait)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let gone: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    let mut gone = gone.into_iter();
    found.retain(|_| !gone.next().unwrap_or(false));
    Ok(())
}

/// The time by which waiting is measured. Not an argument, since the wait itself is the kernel's.
fn monotonic_now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
