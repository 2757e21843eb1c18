//! Where the queue is: `--db`, else `$QUEUECTL_DB`, else the nearest `.queuectl/` in this folder or above.
//!
//! The search upwards ends below `$HOME`, so that a queue made there by accident does not swallow every
//! project, and at the border of a file system. A queue runs commands, so one that another user owns is
//! never found by searching.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The folder of a queue.
const NAME: &str = ".queuectl";

/// Where the queue is, or would be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its folder, absolute; it need not exist.
    pub folder: PathBuf,
    /// How it was found.
    pub found: Found,
    /// Folders of other users that would have been nearer, nearest first.
    pub passed_over: Vec<PathBuf>,
}

/// How a queue's folder was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// By `--db` or `QUEUECTL_DB`, whether or not it exists.
    Given,
    /// It is in the current folder.
    Here,
    /// It is in a folder above.
    Above,
    /// There is none; it would be made in the current folder.
    Nowhere,
}

/// Finds the queue for a process in `cwd`. An empty `QUEUECTL_DB` counts as not set.
pub(super) fn discover(
    db: Option<&OsStr>,
    env_db: Option<&OsStr>,
    cwd: &Path,
    home: Option<&Path>,
) -> io::Result<Place> {
    if db.is_some_and(OsStr::is_empty) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "--db needs the name of a folder, and got an empty text"));
    }
    if let Some(given) = db.or(env_db.filter(|text| !text.is_empty())) {
        // By its components, so that `.` and `x/` leave no trace in what is shown.
        let folder = cwd.join(given).components().collect();
        return Ok(Place { folder, found: Found::Given, passed_over: Vec::new() });
    }
    let start = fs::metadata(cwd)?;
    Border { device: start.dev(), user: rustix::process::geteuid().as_raw(), home: home.and_then(identity) }.search(cwd)
}

/// What the search does not cross.
struct Border {
    device: u64,
    user: u32,
    home: Option<(u64, u64)>,
}

impl Border {
    fn search(&self, cwd: &Path) -> io::Result<Place> {
        let mut passed_over = Vec::new();
        for (dir, found) in self.folders(cwd) {
            let folder = dir.join(NAME);
            match self.look(&folder)? {
                Seen::Queue => return Ok(Place { folder, found, passed_over }),
                Seen::Foreign => passed_over.push(folder),
                Seen::Nothing => {}
            }
        }
        Ok(Place { folder: cwd.join(NAME), found: Found::Nowhere, passed_over })
    }

    /// `cwd` and the folders above it in which a queue may be.
    fn folders<'a>(&self, cwd: &'a Path) -> impl Iterator<Item = (&'a Path, Found)> {
        // Nothing above the home folder is searched from there either.
        let at_home = self.home.is_some() && identity(cwd) == self.home;
        let parents = cwd.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
        let above = parents.take_while(move |dir| !at_home && self.within(dir)).map(|dir| (dir, Found::Above));
        std::iter::once((cwd, Found::Here)).chain(above)
    }

    fn within(&self, dir: &Path) -> bool {
        identity(dir).is_some_and(|(device, inode)| device == self.device && Some((device, inode)) != self.home)
    }

    fn look(&self, folder: &Path) -> io::Result<Seen> {
        // The link and what it points to: others may plant a link to a folder of mine.
        let Some(link) = present(fs::symlink_metadata(folder))? else { return Ok(Seen::Nothing) };
        if link.is_symlink() && link.uid() != self.user {
            return Ok(Seen::Foreign);
        }
        Ok(match present(fs::metadata(folder))? {
            Some(target) if !target.is_dir() => Seen::Nothing,
            Some(target) if target.uid() != self.user => Seen::Foreign,
            Some(_) => Seen::Queue,
            None => Seen::Nothing,
        })
    }
}

/// What is at a place where a queue may be.
enum Seen {
    Queue,
    Foreign,
    Nothing,
}

/// What tells a folder from all others, however it is spelled.
fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// `None` where nothing can be; other errors are not taken for absence, lest a second queue is made.
fn present(looked: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    let absent = |error: &io::Error| {
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied | ErrorKind::InvalidFilename
        )
    };
    match looked {
        Err(error) if absent(&error) => Ok(None),
        looked => looked.map(Some),
    }
}

#[cfg(test)]
mod tests;
