//! Reading `/proc`.

use std::collections::HashSet;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, RawPid, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use super::search::{Identity, Process};

/// The environment variable that names the lease of a job's run.
pub(crate) const LEASE_VARIABLE: &str = "QUEUECTL_LEASE";

/// More than the kernel lets an environment have.
const ENVIRON_BYTES_MAX: u64 = 8 << 20;

/// A `stat` line is some 350 bytes.
const STAT_BYTES_MAX: u64 = 4096;

/// Passes over `/proc` for one table. One over what is known takes a fraction of a millisecond, and few processes last
/// less than that, so not even a machine that starts thousands a second needs many.
const PASSES_MAX: usize = 100;

/// The flag of a kernel thread in `stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// How often and how long to wait for a process in the middle of its exec: in all 100 ms, if its file is slow to load.
const EXEC_LOOKS_MAX: usize = 100;
const EXEC_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Now, in the clock and unit of the start times of processes: since boot, time asleep included, in clock ticks.
pub(crate) fn boot_ticks_now() -> u64 {
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    let ticks = since_boot.as_nanos() * u128::from(clock_ticks_per_second()) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// What `/proc/<pid>/stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Whether anything of it can still run. A zombie whose other threads live is alive.
    pub(super) alive: bool,
    /// In the middle of an exec: the new memory is in place, but the environment is not yet.
    pub(super) execing: bool,
    /// Pid of the parent, 0 for none.
    pub(super) parent: RawPid,
    /// Id of the process group, 0 for one that is not visible.
    pub(super) group: RawPid,
    /// Id of the session, 0 for one that is not visible.
    pub(super) session: RawPid,
    /// When it started, in clock ticks since boot.
    pub(super) started: u64,
}

impl Stat {
    /// That of a process; none if it is gone or hidden.
    pub(super) fn of(pid: Pid) -> io::Result<Option<Self>> {
        let Some(line) = read(pid, "stat", STAT_BYTES_MAX)? else { return Ok(None) };
        match Self::parse(&line) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("cannot read /proc/{pid}/stat"))),
        }
    }

    /// Fields are numbered from 1 in proc(5); the second is a name in parentheses, which may hold any character.
    fn parse(line: &[u8]) -> Option<Self> {
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = str::from_utf8(&line[name_end + 1..]).ok()?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let id = |field: usize| fields.get(field - 3)?.parse::<RawPid>().ok();
        let ended = matches!(*fields.first()?, "Z" | "X" | "x");
        Some(Self {
            alive: !ended || number(20)? > 1,
            execing: !ended && number(9)? & PF_KTHREAD == 0 && number(51) == Some(0),
            parent: id(4)?,
            group: id(5)?,
            session: id(6)?,
            started: number(22)?,
        })
    }
}

/// The processes of one moment, zombies too.
pub(super) struct Table {
    pub(super) rows: Vec<Process>,
    /// Whether nothing can have slipped through.
    pub(super) settled: bool,
}

/// Reads all processes; the lease of those for which it is asked.
///
/// Reading takes time, in which processes come and go: one that starts its successor and ends, again and again, can
/// slip through each single pass. So it ends with a pass in which all that is listed for the first time is alive when
/// it is read. `/proc` lists by rising pid, and pids are given out rising: so what is listed holds a member of such a
/// chain that is alive then, and that one is in the table, from this pass or an earlier one.
pub(super) fn read_table(asks_for_lease: impl Fn(Pid, &Stat) -> bool) -> io::Result<Table> {
    let mut table = Table { rows: Vec::new(), settled: false };
    let mut seen = HashSet::new();
    for _ in 0..PASSES_MAX {
        table.settled = true;
        // The newest first, since who moves on fast is there.
        for pid in list_pids()?.into_iter().rev().filter(|pid| seen.insert(*pid)) {
            let row = read_process(pid, &asks_for_lease)?;
            table.settled &= row.as_ref().is_some_and(|row| row.stat.alive);
            table.rows.extend(row);
        }
        if table.settled {
            break;
        }
    }
    Ok(table)
}

/// The pids of all processes.
fn list_pids() -> io::Result<Vec<Pid>> {
    let pid = |entry: io::Result<DirEntry>| match entry {
        Ok(entry) => entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw).map(Ok),
        Err(error) => Some(Err(error)),
    };
    fs::read_dir("/proc")?.filter_map(pid).collect()
}

/// The row of one process, if it is still there.
fn read_process(pid: Pid, asks_for_lease: impl Fn(Pid, &Stat) -> bool) -> io::Result<Option<Process>> {
    let Some(stat) = Stat::of(pid)? else { return Ok(None) };
    let lease = if asks_for_lease(pid, &stat) { lease_of(pid)? } else { None };
    Ok(Some(Process { id: Identity { pid, started: stat.started }, stat, lease }))
}

/// The lease that the process carries in its environment, as far as it may be read.
fn lease_of(pid: Pid) -> io::Result<Option<Vec<u8>>> {
    let mut has_one = false;
    for _ in 0..EXEC_LOOKS_MAX {
        let Some(environ) = read(pid, "environ", ENVIRON_BYTES_MAX)? else { return Ok(None) };
        // A job that its pool had just spawned when it was killed would be missed if nothing were taken for an answer
        // before it is known that the environment was there to be read.
        if !environ.is_empty() || has_one {
            return Ok(lease_in(&environ).map(<[u8]>::to_vec));
        }
        has_one = !Stat::of(pid)?.is_some_and(|stat| stat.execing);
        if !has_one {
            await_end_briefly(pid)?;
        }
    }
    Ok(None)
}

/// The value of the lease variable in an environment.
fn lease_in(environ: &[u8]) -> Option<&[u8]> {
    environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(LEASE_VARIABLE.as_bytes())?.strip_prefix(b"="))
}

/// Gives the process a moment, less if it ends.
fn await_end_briefly(pid: Pid) -> io::Result<()> {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&EXEC_WAIT)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The content of a file of a process; none if the process is gone or the file is not for us. Other errors, such as
/// being out of descriptors, must not pass for that.
fn read(pid: Pid, file: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let outcome =
        File::open(format!("/proc/{pid}/{file}")).and_then(|file| file.take(bytes_max).read_to_end(&mut content));
    match outcome.map_err(|error| (Errno::from_io_error(&error), error)) {
        Ok(_) => Ok(Some(content)),
        Err((Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM), _)) => Ok(None),
        Err((_, error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `stat` with these fields at their places, and 7 in all others.
    fn line(name: &str, state: &str, fields: &[(usize, &str)]) -> Vec<u8> {
        let rest = (4..=52).map(|n| fields.iter().find(|field| field.0 == n).map_or("7", |field| field.1));
        format!("42 ({name}) {state} {}\n", rest.collect::<Vec<_>>().join(" ")).into_bytes()
    }

    const FIELDS: [(usize, &str); 7] =
        [(4, "40"), (5, "41"), (6, "39"), (8, "-1"), (20, "1"), (22, "123456"), (51, "140722")];

    fn parse(name: &str, state: &str, more: &[(usize, &str)]) -> Stat {
        let fields: Vec<_> = more.iter().chain(&FIELDS).copied().collect();
        Stat::parse(&line(name, state, &fields)).unwrap()
    }

    #[test]
    fn stat_is_read_whatever_the_name() {
        for name in ["sh", "a b", "x) R 1 (y", ")", "", "\n) Z 1 1"] {
            let expected = Stat { alive: true, execing: false, parent: 40, group: 41, session: 39, started: 123_456 };
            assert_eq!(parse(name, "S", &[]), expected, "{name:?}");
        }
    }

    #[test]
    fn a_zombie_is_dead_unless_other_threads_live() {
        for state in ["Z", "X", "x"] {
            assert!(!parse("sh", state, &[]).alive, "{state}");
            assert!(parse("sh", state, &[(20, "2")]).alive, "{state}");
        }
        for state in ["R", "S", "D", "T", "t", "I"] {
            assert!(parse("sh", state, &[]).alive, "{state}");
        }
    }

    #[test]
    fn in_the_middle_of_an_exec_is_who_has_no_environment_yet() {
        let no_environment = (51, "0");
        assert!(parse("sh", "D", &[no_environment]).execing);
        assert!(!parse("sh", "Z", &[no_environment]).execing);
        assert!(!parse("kworker/0:1", "I", &[no_environment, (9, "69238880")]).execing);
    }

    #[test]
    fn what_is_no_stat_line_is_refused() {
        for line in ["", "42", "42 (sh", "42 (sh) S 1", "42 (sh) S x 1 1"] {
            assert_eq!(Stat::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn the_lease_is_that_of_the_variable_alone() {
        assert_eq!(lease_in(b"A=1\0QUEUECTL_LEASE=1:2:ab:3\0B=2\0"), Some(&b"1:2:ab:3"[..]));
        assert_eq!(lease_in(b"QUEUECTL_LEASE=\0"), Some(&b""[..]));
        for environ in [&b""[..], b"A=QUEUECTL_LEASE=x\0", b"XQUEUECTL_LEASE=x\0", b"QUEUECTL_LEASES=x\0"] {
            assert_eq!(lease_in(environ), None);
        }
    }

    #[test]
    fn this_process_is_in_the_table_with_a_start_in_the_past() {
        let me = rustix::process::getpid();
        let table = read_table(|_, _| false).unwrap();
        let row = table.rows.iter().find(|row| row.id.pid == me).unwrap();
        assert!(row.stat.alive && !row.stat.execing);
        assert!(row.id.started <= boot_ticks_now());
        assert_eq!(Pid::from_raw(row.stat.parent), rustix::process::getppid());
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_stat() {
        assert_eq!(Stat::of(Pid::from_raw(RawPid::MAX).unwrap()).unwrap(), None);
    }
}
