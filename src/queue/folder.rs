//! The folder of a queue, private to its owner, since whoever can write it can run commands as them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
    #[error("`{}` belongs to another user (uid {uid}), whose commands would run as you", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others could run commands as its owner.
    #[error("`{}` can be written by others (mode {mode:03o}), whose commands would run as you: chmod go-w it", .path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Locks and notices do not work there.
    #[error("`{}` is on a network file system ({kind}): a queue needs a local one; choose another folder with --db", .path.display())]
    Network {
        /// The folder.
        path: PathBuf,
        /// What it is on.
        kind: &'static str,
    },
    /// The system refused.
    #[error("cannot use the folder `{}`: {error}", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The folder of a queue: checked, with its sub-folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The queue's folder at `path`, if there is one.
    pub fn existing(path: &Path) -> Result<Option<Self>, BadFolder> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(path, error)),
            Ok(metadata) => {
                check(path, &metadata)?;
                Ok(Some(Self(path.to_owned())))
            }
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
        check(path, &fs::metadata(path).map_err(io)?)?;
        for name in ["run", "output", "log"] {
            make_private(&path.join(name)).map_err(io)?;
        }
        ignore_in_git(path).map_err(io)?;
        Ok(Self(path.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
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

fn check(path: &Path, metadata: &fs::Metadata) -> Result<(), BadFolder> {
    if !metadata.is_dir() {
        return Err(io_error(path, io::ErrorKind::NotADirectory.into()));
    }
    check_owner(path, metadata)?;
    let file = path.join("queue.redb");
    if let Ok(metadata) = fs::metadata(&file) {
        check_owner(&file, &metadata)?;
    }
    let stat = rustix::fs::statfs(path).map_err(|error| io_error(path, error.into()))?;
    let network = NETWORK_FILE_SYSTEMS.iter().find(|(magic, _)| u64::try_from(stat.f_type) == Ok(*magic));
    match network {
        Some((_, kind)) => Err(BadFolder::Network { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), BadFolder> {
    let path = || path.to_owned();
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(BadFolder::Foreign { path: path(), uid: metadata.uid() });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(BadFolder::Open { path: path(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
