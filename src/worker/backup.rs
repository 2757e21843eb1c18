//! Backup and restore: a whole queue, outputs included, copied from one folder to another.
//!
//! A copy is made from one read snapshot, so it is the queue of one moment, while pools go on and nobody waits;
//! that snapshot keeps the pages that are replaced meanwhile from being used again, so the file may grow. Leases and
//! pools are left out: a copied queue never touches the original's processes, and what was claimed waits.
//!
//! # Crash points
//!
//! A copy is made in a folder `.NAME.partial-…` beside its destination. Its maker holds a lock on that folder; the
//! next backup or restore to the same place removes what is not locked.
//!
//! | killed | backup | restore |
//! |---|---|---|
//! | while copying | no backup, scraps | the old queue, scraps |
//! | before the rename | no backup, scraps | the old queue, and a copy of the backup under the name for the old one |
//! | after it | the backup | the new queue, the old one whole beside it |
//!
//! Everything is synced before that rename, and the folder of the names after it. A restore exchanges two whole
//! folders in one step, so outputs and file never belong to different queues.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::board::random_suffix;
use super::news::Observer;
use super::output::{make_folder, output_path};
use super::quiet::{NotQuiet, Quiet};
use crate::queue::{BadFolder, Folder, Queue};
use crate::store::{OnWait, OutputFile, Seized, Snapshot, Store, StoreError, parent_of, put_in_place, sync};

/// Why a queue could not be backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The destination is there already.
    #[error("{} is there already and not empty", .0.display())]
    Taken(PathBuf),
    /// The destination would be a part of the queue, and go with it.
    #[error("{} is inside the queue's own folder", .0.display())]
    Inside(PathBuf),
    /// What is to be restored is the queue itself.
    #[error("{} is the queue itself", .0.display())]
    Same(PathBuf),
    /// What is to be restored is no sound queue.
    #[error("{} is not sound: {what}", .path.display())]
    Unsound {
        /// The backup.
        path: PathBuf,
        /// The first thing that is wrong with it.
        what: String,
    },
    /// Something works on the queue that is to be replaced.
    #[error(transparent)]
    NotQuiet(#[from] NotQuiet),
    /// A folder cannot hold a queue.
    #[error(transparent)]
    Folder(#[from] BadFolder),
    /// A queue file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system.
    #[error("{}: {error}", .path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Io { path, error }
}

/// What was copied.
#[derive(Debug, Default)]
pub struct Copied {
    /// How many jobs.
    pub jobs: u64,
    /// How many files of outputs.
    pub files: usize,
    /// Outputs that should be in a file and are not, or not with that length; a power cut can do that.
    pub missing: Vec<String>,
    /// Where the queue is that a restore replaced.
    pub kept: Option<PathBuf>,
    /// How many jobs that one had; `None` if it could not be told.
    pub kept_jobs: Option<u64>,
}

/// Copies the queue to `destination`, which does not exist or is an empty folder.
pub fn backup(queue: &Queue, destination: &Path) -> Result<Copied, BackupError> {
    if !is_free(destination).map_err(at(destination))? {
        return Err(BackupError::Taken(destination.to_owned()));
    }
    let parent = parent_of(destination);
    fs::create_dir_all(&parent).map_err(at(destination))?;
    let place = |path: &Path| fs::canonicalize(path).map_err(at(path));
    if place(&parent)?.starts_with(place(queue.folder())?) {
        return Err(BackupError::Inside(destination.to_owned()));
    }
    let partial = Partial::make(destination)?;
    let copied = copy(queue, &partial.path)?;
    partial.put_in_place(destination)?;
    Ok(copied)
}

/// Puts the queue of `source` in the place of the one in `destination`, if there is one, which is kept beside it.
pub fn restore(
    source: &Folder,
    destination: &Path,
    observer: &dyn Observer,
    on_wait: &OnWait,
) -> Result<Copied, BackupError> {
    let destination = fs::canonicalize(destination).unwrap_or_else(|_| destination.to_owned());
    if fs::canonicalize(source.path()).map_err(at(source.path()))? == destination {
        return Err(BackupError::Same(destination));
    }
    let unsound = |what: String| BackupError::Unsound { path: source.path().to_owned(), what };
    let looked = Queue::check(source, Box::new(|| {})).map_err(|error| match error {
        StoreError::Damaged(what) | StoreError::NotAQueue(what) => unsound(what),
        error => error.into(),
    });
    if let Some(what) = looked?.violations.into_iter().next() {
        return Err(unsound(what));
    }
    let queue = Queue::open_read_only(source, Box::new(|| {}))?;
    let replaces = !is_free(&destination).map_err(at(&destination))?;
    if replaces && !["queue.redb", "run"].iter().any(|name| destination.join(name).exists()) {
        return Err(BackupError::Taken(destination));
    }
    // Asked first, so that nobody waits for a copy that is refused after all.
    let quiet = if replaces { Some(Quiet::reach(&Folder::make(&destination)?, observer)?) } else { None };
    fs::create_dir_all(parent_of(&destination)).map_err(at(&destination))?;
    let partial = Partial::make(&destination)?;
    let mut copied = copy(&queue, &partial.path)?;
    queue.leave();
    match quiet {
        None => partial.put_in_place(&destination)?,
        Some(quiet) => {
            copied.kept_jobs = jobs_of(&destination);
            let seized = Seized::new(&destination, on_wait)?;
            quiet.holds()?;
            copied.kept = Some(seized.replace_folder(&partial.path, ".before-restore")?);
            partial.forget();
        }
    }
    Ok(copied)
}

/// How many jobs a queue has, if that can be told.
fn jobs_of(folder: &Path) -> Option<u64> {
    let folder = Folder::existing(folder).ok()??;
    let queue = Queue::open_read_only(&folder, Box::new(|| {})).ok()?;
    let counts = queue.read(Snapshot::counts).ok()?;
    queue.leave();
    Some(counts.values().sum())
}

/// Makes a whole copy of the queue in the folder `to`, synced.
fn copy(queue: &Queue, to: &Path) -> Result<Copied, BackupError> {
    let folder = Folder::make(to)?;
    // That the disk is full is no word about the queue that is copied.
    let written = |error| match error {
        StoreError::Io(error) => at(to)(error),
        error => BackupError::Store(error),
    };
    let (store, _) = Store::open_or_create(folder.path(), Box::new(|| {})).map_err(written)?;
    let (files, jobs) = queue.read(|snapshot| snapshot.copy_whole(&store)).map_err(written)?;
    store.close().map_err(written)?;
    let mut copied = Copied { jobs, ..Copied::default() };
    let mut folders = std::collections::BTreeSet::new();
    for file in files {
        let OutputFile { seq, attempt, stream, bytes } = file;
        let from = output_path(queue.folder(), seq, attempt, stream);
        let path = output_path(to, seq, attempt, stream);
        let length = copy_output(&from, &path).map_err(at(&from))?;
        if length != Some(bytes) {
            copied.missing.push(format!("{} should have {bytes} bytes", from.display()));
        }
        if length.is_some() {
            copied.files += 1;
            folders.insert(parent_of(&path));
        }
    }
    let inside = ["run", "output", "log", ".gitignore", "queue.redb"].map(|name| to.join(name));
    for path in folders.iter().chain(&inside).chain([&to.to_owned()]) {
        sync(path).map_err(at(path))?;
    }
    Ok(copied)
}

/// Copies one output, by reference where the file system can; its length, or `None` if it is not there.
fn copy_output(from: &Path, to: &Path) -> io::Result<Option<u64>> {
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    make_folder(to)?;
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut copy = options.write(true).create_new(true).open(to)?;
    let length = io::copy(&mut source, &mut copy)?;
    copy.sync_all()?;
    Ok(Some(length))
}

/// Whether there is nothing at `path`, or an empty folder.
fn is_free(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

/// A folder in the making, removed with this unless it got its name.
struct Partial {
    path: PathBuf,
    /// Locked as long as its maker lives.
    lock: Option<File>,
}

impl Partial {
    fn make(destination: &Path) -> Result<Self, BackupError> {
        let parent = parent_of(destination);
        let mut prefix = OsString::from(".");
        prefix.push(destination.file_name().unwrap_or_default());
        prefix.push(".partial-");
        sweep(&parent, &prefix).map_err(at(&parent))?;
        prefix.push(random_suffix().map_err(at(&parent))?);
        let path = parent.join(prefix);
        let make = || {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new().mode(0o700).create(&path)?;
            let lock = File::open(&path)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(lock)
        };
        let lock = Some(make().map_err(at(&path))?);
        Ok(Self { path, lock })
    }

    fn put_in_place(self, destination: &Path) -> Result<(), BackupError> {
        match put_in_place(&self.path, destination) {
            Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(BackupError::Taken(destination.to_owned()))
            }
            Err(StoreError::Io(error)) => Err(at(destination)(error)),
            done => {
                done?;
                self.forget();
                Ok(())
            }
        }
    }

    /// It has its name now.
    fn forget(mut self) {
        self.lock = None;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders of makers that were killed.
fn sweep(parent: &Path, prefix: &OsString) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}
