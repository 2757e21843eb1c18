//! Whether a pool lives: an open-file-description lock on its file, which the kernel drops at death.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Identity, open_to_look, read_identity};

/// How long a lock may outlast the news that its file was closed. In the kernel these are a few
/// instructions apart; the rest is for a machine so busy that it stops between them.
const LOCK_OUTLASTS_CLOSE_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Whether a pool lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its lock is held.
    Alive,
    /// It is not, or there is no file.
    Dead,
}

/// Takes the lock of the whole file, which must not be held yet.
pub(super) fn lock(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)))?;
    Ok(())
}

/// Whether the pool whose file is at `path` lives. Asks about the lock, never takes it: a pool that
/// starts must not find it taken by somebody who looks.
pub(crate) fn probe(path: &Path) -> io::Result<Life> {
    let Some(file) = open_to_look(path)? else { return Ok(Life::Dead) };
    probe_file(&file)
}

/// [`probe`] for when the bell told that the file at `path` was closed: the kernel may say so a moment
/// before it drops the lock, and will not say it again. Waits for that moment, at most 0.1 s; so not
/// for asking about pools that gave no sign.
pub(crate) fn probe_after_close(path: &Path) -> io::Result<Life> {
    let Some(file) = open_to_look(path)? else { return Ok(Life::Dead) };
    if probe_file(&file)? == Life::Dead {
        return Ok(Life::Dead);
    }
    if let Some(process) = process_of(&file) {
        wait_for(&mut [PollFd::new(&process, PollFlags::IN)])?;
        if probe_file(&file)? == Life::Dead {
            return Ok(Life::Dead);
        }
    }
    // A process that cannot be seen from here, or one that left a child between vfork and exec holding
    // the lock a little longer: there is nothing to wait for but time.
    wait_for(&mut [])?;
    probe_file(&file)
}

/// Waits until whoever holds the file at `path` is gone, however long that takes. The lock that this gets then, for a
/// moment, is a read lock, which is in nobody's way.
pub(crate) fn wait_for_end(path: &Path) -> io::Result<()> {
    let Some(file) = open_to_look(path)? else { return Ok(()) };
    loop {
        match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_RDLCK))) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn probe_file(file: &File) -> io::Result<Life> {
    // Only the pool's own, a write lock, is in the way of this one; and a file opened for reading has the
    // right to ask for it.
    let mut lock = whole_file(libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(if lock.l_type == short(libc::F_UNLCK) { Life::Dead } else { Life::Alive })
}

/// The pool's process, if its pid means anything here and somebody has it.
fn process_of(file: &File) -> Option<OwnedFd> {
    let pool = read_identity(file).ok()?;
    let us = Identity::of_this_process().ok()?;
    if !pool.shares_pids_with(&us) {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(pool.pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn wait_for(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    rustix::io::retry_on_intr(|| poll(fds, Some(&LOCK_OUTLASTS_CLOSE_MAX)))?;
    Ok(())
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // A length of 0 reaches to whatever the end is; locks of open file descriptions want a pid of 0.
    libc::flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: 0, l_len: 0, l_pid: 0 }
}

/// A constant of `fcntl.h` as `struct flock` holds it.
#[expect(clippy::cast_possible_truncation, reason = "they are all below 4")]
fn short(constant: libc::c_int) -> libc::c_short {
    constant as libc::c_short
}
