//! Putting another queue file, or a whole folder, in the place of one that processes may have open.
//!
//! The case to exclude: an `enqueue` opened the old file, waits, and then commits and acknowledges into a file that
//! nobody will look at again. It is excluded by three facts:
//! 1. [`Seized`] holds the turnstile, so nobody opens the file for writing and nobody begins a transaction, and redb's
//!    writer lock (the byte at 2^62), so nobody is in one.
//! 2. Who takes its turn at a turnstile that is no longer the one in `run/` is refused.
//! 3. Who begins a transaction compares, inside its turn, the file at the queue's path with the one that it opened,
//!    and is refused if that is another: [`StoreError::Replaced`].
//!
//! A file that was deleted is refused in the same place, and looked at once more after the commit, before anything is
//! acknowledged: [`StoreError::Gone`].
//!
//! Readers go on seeing the old queue until they end. Whether a pool lives is the caller's to know.
//!
//! # Crash points
//!
//! | killed | what is there |
//! |---|---|
//! | while the new file is made | the old queue, and a folder of scraps that whoever opens the queue to write next removes |
//! | after the old file got its second name | the old queue, under both names |
//! | after the rename | the new queue, and the old one under its second name |
//!
//! A compaction keeps no second name.
//!
//! Of folders: after the new one got its second name, the old queue, and a copy under that name that is too much;
//! after the exchange, the new queue, and the old one under that name.
//!
//! The rename is atomic, of a file that was synced with its folder before; the folder of the name is synced after it.
//! A power cut right then shows the one or the other.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::StoreError;
use super::header::WRITER_BYTE;
use super::open::file_of;
use super::turnstile::{OnWait, Turnstile, patiently};

/// A queue that nobody writes to until this is dropped.
#[derive(Debug)]
pub struct Seized {
    folder: PathBuf,
    /// The file with the writer lock; `None` if there is none yet.
    _file: Option<File>,
    _turn: File,
}

impl Seized {
    /// Waits for its turn and for the writer of the moment.
    pub fn new(folder: &Path, on_wait: &OnWait) -> Result<Self, StoreError> {
        let turn = Turnstile::open(&folder.join("run"))?.keep(on_wait)?;
        let file = match File::options().read(true).write(true).open(file_of(folder)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(super::open::access_error(error)),
        };
        if let Some(file) = &file {
            patiently(on_wait, || lock_writer_byte(file))?;
        }
        Ok(Self { folder: folder.to_owned(), _file: file, _turn: turn })
    }

    /// The queue's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The queue's file.
    pub fn file(&self) -> PathBuf {
        file_of(&self.folder)
    }

    /// Puts the closed file `new`, on the same file system, in the place of the queue file, which is kept under
    /// the first free name that starts with `kept`. Returns that.
    pub fn replace_file(self, new: &Path, kept: &str) -> Result<PathBuf, StoreError> {
        let kept = keep(&self.file(), &self.folder, kept)?;
        sync(&self.folder)?;
        self.give_way_to(new)?;
        Ok(kept)
    }

    /// The same; the queue file is gone with that.
    pub fn give_way_to(self, new: &Path) -> Result<(), StoreError> {
        sync(new)?;
        fs::rename(new, self.file())?;
        Ok(sync(&self.folder)?)
    }

    /// Puts the folder `new`, beside the queue's and synced, in the queue's place. The queue's folder is kept under
    /// the first free name that starts with its own and `suffix`. Returns that.
    pub fn replace_folder(self, new: &Path, suffix: &str) -> Result<PathBuf, StoreError> {
        let parent = parent_of(&self.folder);
        let mut name = self.folder.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        // The new folder waits under the name that the old one gets, so that the old one never has a name by which
        // it could be taken for scraps.
        let kept = free_name(&parent.join(name), |kept| {
            renameat_with(CWD, new, CWD, kept, RenameFlags::NOREPLACE).map_err(io::Error::from)
        })?;
        if let Err(error) = renameat_with(CWD, &kept, CWD, &self.folder, RenameFlags::EXCHANGE) {
            fs::rename(&kept, new)?;
            return Err(io::Error::from(error).into());
        }
        sync(&parent)?;
        Ok(kept)
    }
}

/// Gives the folder `new` the name `path` for good. There may be an empty folder of that name, and nothing else.
pub fn put_in_place(new: &Path, path: &Path) -> Result<(), StoreError> {
    fs::rename(new, path)?;
    Ok(sync(&parent_of(path))?)
}

/// Makes what was written to a file, or what is named in a folder, survive a power cut.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The folder that a path is in.
pub fn parent_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn lock_writer_byte(file: &File) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "both are below 4")]
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: WRITER_BYTE,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&lock)) {
            Err(Errno::EINTR) => {}
            locked => return Ok(locked.map(drop)?),
        }
    }
}

/// A second name for `file` in `folder`: the same file, or a copy where there are no hard links.
fn keep(file: &Path, folder: &Path, name: &str) -> io::Result<PathBuf> {
    free_name(&folder.join(name), |kept| match fs::hard_link(file, kept) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
            File::options().write(true).create_new(true).open(kept)?;
            fs::copy(file, kept)?;
            sync(kept)
        }
        linked => linked,
    })
}

/// Does something with `name`, or with `name-2` and so on if that is taken.
fn free_name(name: &Path, mut act: impl FnMut(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    for n in 1_u32.. {
        let mut path = name.as_os_str().to_owned();
        if n > 1 {
            path.push(format!("-{n}"));
        }
        match act(Path::new(&path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && n < NAMES_TRIED_MAX => {}
            done => return done.map(|()| PathBuf::from(path)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Most names that are tried for what is kept.
const NAMES_TRIED_MAX: u32 = 10_000;

/// Device and inode of what is at `path`; `None` if there is nothing.
pub fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
