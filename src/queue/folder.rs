//! The folder of a queue, private to its owner, since whoever can write it can run commands as them.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

/// File systems whose locks or change notices do not reach other machines: `f_type` of statfs(2), and a name.
const NETWORK_FILE_SYSTEMS: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x564c, "NCP"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9P"),
];

/// Why a folder cannot hold a queue.
#[derive(Debug, thiserror::Error)]
pub enum BadFolder {
    /// Its owner could run commands as the caller.
    #[error("{} belongs to another user (uid {uid}), whose commands would run as you", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others could run commands as its owner.
    #[error("{} can be written by others (mode {mode:03o}), whose commands would run as you: chmod go-w it", .path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Locks and notices do not work there.
    #[error("{} is on a network file system ({kind}): a queue needs a local one; choose another folder with --db", .path.display())]
    Network {
        /// The folder.
        path: PathBuf,
        /// What it is on.
        kind: &'static str,
    },
    /// Another was put in its place while it was opened.
    #[error("{} was moved while it was opened", .path.display())]
    Swapped {
        /// The folder.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot use the folder {}: {error}", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The folder of a queue: checked, with its sub-folders.
///
/// What is checked is the folder that was opened, and what its names lead to from there: each has to belong to the
/// caller and to be writable by nobody else. An access list that lets others write shows in the group's permissions,
/// as its mask. Links are followed, since only the folder's owner can have made them. A folder above may belong to
/// anybody: whoever can write that can put another in this one's place, so the users of the folder ask with
/// [`still_there`](Self::still_there) whether what they opened by its name was the one that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// The sub-folders.
const SUB_FOLDERS: [&str; 3] = ["run", "output", "log"];

impl Folder {
    /// The queue's folder at `path`, if there is one.
    pub fn existing(path: &Path) -> Result<Option<Self>, BadFolder> {
        match open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(path, error)),
            Ok(opened) => Ok(Some(Self { path: path.to_owned(), identity: check(path, &opened)? })),
        }
    }

    /// The queue's folder at `path`, made with its sub-folders where they are missing.
    pub fn make(path: &Path) -> Result<Self, BadFolder> {
        let io = |error| io_error(path, error);
        if !path.is_dir() {
            make_private(path).map_err(io)?;
            // What is acknowledged later must not vanish with the folder's name.
            path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all()).map_err(io)?;
        }
        let opened = open(path).map_err(io)?;
        check(path, &opened)?;
        for name in SUB_FOLDERS {
            make_private(&path.join(name)).map_err(io)?;
        }
        ignore_in_git(path).map_err(io)?;
        // Again: with what was just made.
        Ok(Self { path: path.to_owned(), identity: check(path, &opened)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same folder is at its place still, and the queue file in it is its owner's alone.
    pub fn still_there(&self) -> Result<(), BadFolder> {
        let opened = open(&self.path).map_err(|error| io_error(&self.path, error))?;
        if check(&self.path, &opened)? == self.identity {
            return Ok(());
        }
        Err(BadFolder::Swapped { path: self.path.clone() })
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        // In the words that the others have.
        Err(Errno::NOTDIR) => Err(io::ErrorKind::NotADirectory.into()),
        opened => Ok(opened?),
    }
}

fn io_error(path: &Path, error: io::Error) -> BadFolder {
    BadFolder::Io { path: path.to_owned(), error }
}

fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// So that a queue inside a work tree is not committed by accident.
fn ignore_in_git(path: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(".gitignore"));
    match file {
        Ok(mut file) => file.write_all(b"*\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks an opened folder and what is in it; which folder it is.
fn check(path: &Path, folder: &OwnedFd) -> Result<(u64, u64), BadFolder> {
    let io = |error: Errno| io_error(path, error.into());
    let stat = rustix::fs::fstat(folder).map_err(io)?;
    check_owner(path, &stat)?;
    for name in SUB_FOLDERS.into_iter().chain(["queue.redb"]) {
        let path = path.join(name);
        match rustix::fs::statat(folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(io_error(&path, error.into())),
            Ok(stat) => check_owner(&path, &stat)?,
        }
    }
    let system = rustix::fs::fstatfs(folder).map_err(io)?;
    let network = NETWORK_FILE_SYSTEMS.iter().find(|(magic, _)| u64::try_from(system.f_type) == Ok(*magic));
    match network {
        Some((_, kind)) => Err(BadFolder::Network { path: path.to_owned(), kind }),
        None => Ok((stat.st_dev, stat.st_ino)),
    }
}

fn check_owner(path: &Path, stat: &Stat) -> Result<(), BadFolder> {
    let path = || path.to_owned();
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(BadFolder::Foreign { path: path(), uid: stat.st_uid });
    }
    let mode = stat.st_mode & 0o777;
    if mode & 0o022 != 0 {
        return Err(BadFolder::Open { path: path(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_private_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/.queuectl");
        assert_eq!(Folder::existing(&path).unwrap(), None);
        let folder = Folder::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read(path.join(".gitignore")).unwrap(), b"*\n");
        assert_eq!(Folder::make(&path).unwrap(), folder);
        assert_eq!(Folder::existing(&path).unwrap(), Some(folder));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(Folder::existing(&path), Err(BadFolder::Open { mode: 0o770, .. })));
    }

    #[test]
    fn another_in_its_place_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue");
        let folder = Folder::make(&path).unwrap();
        folder.still_there().unwrap();
        fs::rename(&path, dir.path().join("away")).unwrap();
        assert!(matches!(folder.still_there(), Err(BadFolder::Io { .. })));
        Folder::make(&path).unwrap();
        assert!(matches!(folder.still_there(), Err(BadFolder::Swapped { .. })));
    }
}
