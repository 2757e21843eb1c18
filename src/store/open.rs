//! Opening, creating and leaving the queue file; every transaction goes through here.
//!
//! **Creation** is not kill-safe in redb (a half-made file is refused for ever after), so a new file is made
//! under a temporary name with its schema, closed, synced, and renamed under the turnstile. A kill before the
//! rename leaves a stray temporary file, which the next creation removes; after it the queue is whole.
//!
//! **A panic inside redb** on a damaged file is caught here and becomes [`StoreError::Damaged`].

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, process};

use redb::backends::FileBackend;
use redb::{
    Builder, CompactionError, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase,
    StorageError, WriteTransaction,
};
use rustix::fs::{Mode, OFlags};

use super::pages::{Damage, For, Pages, damage_in, too_large};
use super::replace::identity;
use super::salvage::damaged_pages;
use super::tables::{SCHEMA_VERSION, Snapshot, Tables, Tx, known_schema};
use super::turnstile::{OnWait, Turnstile};
use super::{Report, StoreError, header, records, scraps};
use crate::model::Millis;

/// Memory for redb's cache of pages, in bytes. The working set of a pool is the heads of its lanes.
const CACHE_BYTES: usize = 24 * 1024 * 1024;
/// The same for a file. Next to none in the tests of this crate, so that pages are written and read before their time,
/// and verified each time.
const FILE_CACHE_BYTES: usize = if cfg!(test) { 64 * 1024 } else { CACHE_BYTES };

/// The queue file, open.
pub struct Store {
    folder: PathBuf,
    handle: Handle,
    /// The file that was opened for writing.
    opened: Option<Opened>,
    /// Where a writer waits for its turn; none for a reader, and on a simulated disk, where nobody waits.
    turnstile: Option<Turnstile>,
    on_wait: Arc<OnWait>,
    /// Damage was met: redb must not be asked to close the file.
    is_damaged: AtomicBool,
}

enum Handle {
    Writable(Database),
    ReadOnly(ReadOnlyDatabase),
    /// Between a failed commit and the next open.
    Broken,
}

thread_local! {
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside redb, where a panic means a damaged file and is reported as an error: a
/// panic hook should then keep quiet.
pub fn panic_is_fenced() -> bool {
    FENCED.get()
}

/// Runs what a damaged file can make panic.
pub(super) fn fence<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let outer = FENCED.replace(true);
    let caught = catch_unwind(AssertUnwindSafe(work));
    FENCED.set(outer);
    caught.unwrap_or_else(|_| Err(StoreError::Damaged("its pages contradict each other".to_owned())))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl Store {
    /// Opens the queue in `folder` for reading and writing, waiting for its turn.
    pub fn open(folder: &Path, on_wait: OnWait) -> Result<Self, StoreError> {
        Self::open_telling(folder, &Arc::new(on_wait))
    }

    fn open_telling(folder: &Path, on_wait: &Arc<OnWait>) -> Result<Self, StoreError> {
        let turnstile = Turnstile::open(&folder.join("run")).or_else(|error| once_whole(folder, error));
        let turnstile = turnstile.map_err(|error| missing(folder, error))?;
        let (database, opened) = open_writable(folder, &turnstile, on_wait)?;
        let mut store = Self::checked(folder, Handle::Writable(database), Some(turnstile), on_wait)?;
        store.opened = opened;
        Ok(store)
    }

    /// Opens the queue in `folder` for reading. That writes nothing, whoever left the file in whatever way.
    pub fn open_read_only(folder: &Path, on_wait: OnWait) -> Result<Self, StoreError> {
        let on_wait = Arc::new(on_wait);
        let handle = open_readable(folder, Damage::Refused, &on_wait)?;
        Self::checked(folder, handle, None, &on_wait)
    }

    /// Opens a damaged queue in `folder` to read what is left of it: pages that do not match their checksums read as
    /// if they had no rows, so that jobs, or parts of them, may be missing.
    pub fn open_what_is_left(folder: &Path, on_wait: OnWait) -> Result<Self, StoreError> {
        let on_wait = Arc::new(on_wait);
        let handle = open_readable(folder, Damage::PassedOver, &on_wait)?;
        let (folder, is_damaged) = (folder.to_owned(), AtomicBool::new(true));
        Ok(Self { folder, handle, opened: None, turnstile: None, on_wait, is_damaged })
    }

    /// Verifies every page of the queue file in `folder`, and every invariant of what they hold.
    pub fn check(folder: &Path, on_wait: OnWait) -> Result<Report, StoreError> {
        check_shape(folder)?;
        let on_wait = Arc::new(on_wait);
        let wait = || -> OnWait {
            let on_wait = Arc::clone(&on_wait);
            Box::new(move || on_wait())
        };
        let pages = damaged_pages(folder, wait())?;
        if pages.is_empty() {
            return Self::open_read_only(folder, wait())?.read(Snapshot::check);
        }
        let rest = Self::open_what_is_left(folder, wait()).and_then(|store| store.read(Snapshot::check));
        Ok(Report::of_damaged(&pages, rest))
    }

    /// Opens the queue in `folder`, which exists with its sub-folders, and makes the file if it is missing.
    /// Says whether it did.
    pub fn open_or_create(folder: &Path, on_wait: OnWait) -> Result<(Self, bool), StoreError> {
        let (on_wait, mut made) = (Arc::new(on_wait), false);
        if matches!(check_shape(folder), Err(StoreError::NoQueue(_))) {
            let turnstile = Turnstile::open(&folder.join("run"))?;
            let _turn = turnstile.take(&on_wait)?;
            made = create_file(folder)?;
        }
        Ok((Self::open_telling(folder, &on_wait)?, made))
    }

    /// Opens the queue that lies on `backend` instead of in a file, and makes it there if that is empty.
    #[cfg(any(test, feature = "sim"))]
    pub fn on(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        let (nowhere, on_wait): (_, Arc<OnWait>) = (Path::new(""), Arc::new(Box::new(|| {})));
        let length = backend.len()?;
        if length > 0 {
            let mut header = [0; header::HEADER_BYTES];
            let read = header.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            backend.read(0, &mut header[..read])?;
            if !header::is_whole(&header[..read], || Ok(length))? {
                return Err(StoreError::Damaged("it is cut short".to_owned()));
            }
        }
        let database = fence(|| {
            let database = builder().create_with_backend(Pages::new(backend, For::Writers, &on_wait));
            let database = database.map_err(|error| open_error(nowhere, error))?;
            if length == 0 {
                write_schema(&database)?;
            }
            Ok(database)
        })?;
        Self::checked(nowhere, Handle::Writable(database), None, &on_wait)
    }

    /// A queue on `backend`, which is empty, with every row of this one, as `compact` copies them.
    #[cfg(any(test, feature = "sim"))]
    pub fn copied_onto(&self, backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        let mut fresh = Self::on(backend)?;
        self.read(|rows| fresh.fill(rows))?;
        Ok(fresh)
    }

    /// Whether redb finds every page of the queue on `backend` as its checksums say.
    #[cfg(any(test, feature = "sim"))]
    pub fn is_sound_on(backend: impl redb::StorageBackend) -> Result<bool, StoreError> {
        fence(|| {
            let opened = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
            let mut database = opened.map_err(|error| open_error(Path::new(""), error))?;
            database.check_integrity().map_err(|error| open_error(Path::new(""), error))
        })
    }

    fn checked(
        folder: &Path,
        handle: Handle,
        turnstile: Option<Turnstile>,
        on_wait: &Arc<OnWait>,
    ) -> Result<Self, StoreError> {
        let (on_wait, is_damaged) = (Arc::clone(on_wait), AtomicBool::new(false));
        let store = Self { folder: folder.to_owned(), handle, opened: None, turnstile, on_wait, is_damaged };
        match store.read(Snapshot::schema)? {
            Some(found) => known_schema(found).map(|_| store),
            None => Err(StoreError::NotAQueue("it is a redb file of something else".to_owned())),
        }
    }

    /// The folder of the queue.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The queue file.
    pub fn file(&self) -> PathBuf {
        file_of(&self.folder)
    }

    /// Looks at the queue as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.note_damage(|| {
            let txn = match &self.handle {
                Handle::Writable(database) => database.begin_read()?,
                Handle::ReadOnly(database) => database.begin_read()?,
                Handle::Broken => return Err(not_reopened()),
            };
            look(&Snapshot::new(txn))
        })
    }

    /// Changes the queue in one transaction at `now`: all of `change`, durable when this returns, or nothing.
    /// `change` must not wait for anything.
    pub fn write<T>(
        &self,
        now: Millis,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.note_damage(|| {
            let txn = self.begin_write()?;
            let mut tx = Tx::begin(&txn, now)?;
            let done = change(&mut tx)?;
            if tx.has_changed() {
                tx.flush()?;
                txn.commit()?;
                if let Some(opened) = &self.opened {
                    opened.is_there(&self.file())?;
                }
            }
            Ok(done)
        })
    }

    /// Works inside the fence, and remembers damage.
    fn note_damage<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = fence(work);
        if matches!(done, Err(StoreError::Damaged(_))) {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Fills the queue, which was just made and is nobody else's, with every row of another, and ends the file where
    /// they end.
    pub(super) fn fill(&mut self, from: &Snapshot) -> Result<(), StoreError> {
        self.note_damage(|| {
            let txn = self.begin_write()?;
            from.copy_rows(&mut Tables::new(&txn))?;
            Ok(txn.commit()?)
        })?;
        let Handle::Writable(database) = &mut self.handle else { return Ok(()) };
        match fence(|| Ok(database.compact()))? {
            Ok(_) => Ok(()),
            Err(CompactionError::Storage(error)) => Err(error.into()),
            Err(error) => Err(StoreError::CommitFailed(error.to_string())),
        }
    }

    /// Bytes and pages that redb has in use, all told.
    #[cfg(test)]
    pub(super) fn allocated(&self) -> Result<(u64, u64), StoreError> {
        let txn = self.begin_write()?;
        let stats = txn.stats()?;
        txn.abort()?;
        Ok((stats.allocated_pages() * stats.page_size() as u64, stats.allocated_pages()))
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let database = match &self.handle {
            Handle::Writable(database) => database,
            Handle::ReadOnly(_) => {
                return Err(StoreError::ReadOnly(io::ErrorKind::ReadOnlyFilesystem.into()));
            }
            Handle::Broken => return Err(not_reopened()),
        };
        let _turn = self.turnstile.as_ref().map(|turnstile| turnstile.take(&self.on_wait)).transpose()?;
        if let Some(opened) = &self.opened {
            opened.is_in_place(&self.file())?;
        }
        Ok(database.begin_write()?)
    }

    /// After a failed commit: closes the handle, which refuses writes, and opens the file anew.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        let turnstile = Turnstile::open(&self.folder.join("run"))?;
        let broken = std::mem::replace(&mut self.handle, Handle::Broken);
        // Should that go wrong, opening it tells.
        let _ = fence(|| {
            drop(broken);
            Ok(())
        });
        let (database, opened) = open_writable(&self.folder, &turnstile, &self.on_wait)?;
        (self.handle, self.opened) = (Handle::Writable(database), opened);
        self.turnstile = Some(turnstile);
        Ok(())
    }

    /// Closes the file, for whoever wants to know whether that went well.
    pub fn close(mut self) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.handle, Handle::Broken) {
            Handle::Writable(database) => fence(|| database.close().map_err(|error| open_error(&self.folder, error))),
            Handle::ReadOnly(_) | Handle::Broken => Ok(()),
        }
    }

    /// Gives the file up without redb's closing commit: for a process that exits now. Every commit of the
    /// queue records what the next open needs.
    pub fn leave(mut self) {
        std::mem::forget(std::mem::replace(&mut self.handle, Handle::Broken));
    }
}

impl Drop for Store {
    /// Closes the file. On a damaged one that can panic: then it is left as it is.
    fn drop(&mut self) {
        let handle = std::mem::replace(&mut self.handle, Handle::Broken);
        if self.is_damaged.load(Ordering::Relaxed) || std::thread::panicking() {
            std::mem::forget(handle);
        } else {
            let _ = fence(|| {
                drop(handle);
                Ok(())
            });
        }
    }
}

/// After a commit failed and the file could not be opened anew.
fn not_reopened() -> StoreError {
    StoreError::CommitFailed("the queue was not reopened".to_owned())
}

pub(super) fn file_of(folder: &Path) -> PathBuf {
    folder.join("queue.redb")
}

fn open_readable(folder: &Path, damage: Damage, on_wait: &Arc<OnWait>) -> Result<Handle, StoreError> {
    check_shape(folder)?;
    let pages = verified(folder, File::options().read(true), For::Readers(damage), on_wait)?;
    let opened = fence(|| Ok(builder().set_cache_size(FILE_CACHE_BYTES).open_read_only_with_backend(pages)))?;
    Ok(Handle::ReadOnly(opened.map_err(|error| open_error(folder, error))?))
}

/// Opens the file, and tells which one that is: nobody puts another in its place meanwhile.
fn open_writable(
    folder: &Path,
    turnstile: &Turnstile,
    on_wait: &Arc<OnWait>,
) -> Result<(Database, Option<Opened>), StoreError> {
    check_shape(folder)?;
    let turn = turnstile.take(on_wait)?;
    scraps::sweep(folder);
    let pages = verified(folder, File::options().read(true).write(true), For::Writers, on_wait)?;
    let which = Opened::at(&file_of(folder)).map_err(|error| missing(folder, error))?;
    // It exists and is not empty, so that nothing is created.
    let opened = fence(|| Ok(builder().set_cache_size(FILE_CACHE_BYTES).create_with_backend(pages)))?;
    drop(turn);
    Ok((opened.map_err(|error| open_error(folder, error))?, Some(which)))
}

/// The file that a writer opened, held by its name only: that touches no lock, and closing it rings no bell.
struct Opened {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl Opened {
    fn at(path: &Path) -> io::Result<Self> {
        let file = File::from(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
        let metadata = file.metadata()?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Refuses if another file is at its place; see `replace`. What was moved away as a whole is still the same queue.
    fn is_in_place(&self, path: &Path) -> Result<(), StoreError> {
        match identity(path)? {
            Some(there) if there == self.identity => Ok(()),
            Some(_) => Err(StoreError::Replaced),
            None => self.is_there(path),
        }
    }

    /// Refuses if it was deleted: nobody will ever see what is written to it. If there is another at its place, that has
    /// all that was committed to this one.
    fn is_there(&self, path: &Path) -> Result<(), StoreError> {
        let is_gone = self.file.metadata()?.nlink() == 0 && identity(path)?.is_none();
        if is_gone { Err(StoreError::Gone) } else { Ok(()) }
    }
}

/// The file as redb is to see it: every page verified.
fn verified(
    folder: &Path,
    options: &fs::OpenOptions,
    whom: For,
    on_wait: &Arc<OnWait>,
) -> Result<Pages<FileBackend>, StoreError> {
    let file = options.open(file_of(folder)).map_err(|error| missing(folder, error))?;
    let file = FileBackend::new(file).map_err(|error| open_error(folder, error))?;
    Ok(Pages::new(file, whom, on_wait))
}

/// What can be told of the file before redb reads it, which may write to it even where it then refuses.
fn check_shape(folder: &Path) -> Result<(), StoreError> {
    let path = file_of(folder);
    let metadata = fs::metadata(&path).map_err(|error| missing(folder, error))?;
    if !metadata.is_file() {
        return Err(StoreError::NotAQueue("it is not a regular file".to_owned()));
    }
    if metadata.size() == 0 {
        return Err(StoreError::NotAQueue("it is empty".to_owned()));
    }
    let file = File::open(&path).map_err(|error| missing(folder, error))?;
    for _ in 0..LENGTH_LOOKS {
        let mut page = [0; header::HEADER_PAGE_BYTES];
        let read = file.read_at(&mut page, 0)?;
        // Writers make the file longer before the header says so, and shorter after.
        if header::is_whole(&page[..read], || file.metadata().map(|metadata| metadata.size()))? {
            let is_sound = header::is_sound(&page[..read]);
            return if is_sound {
                Ok(())
            } else {
                Err(StoreError::Damaged("its header contradicts itself".to_owned()))
            };
        }
    }
    Err(StoreError::Damaged("it is cut short".to_owned()))
}

/// How often the length is compared before the file is said to be cut: another process may be writing the header.
const LENGTH_LOOKS: usize = 3;

/// The turnstile of a queue whose `run/` is missing: copies may have left an empty folder out.
fn once_whole(folder: &Path, error: io::Error) -> io::Result<Turnstile> {
    let run = folder.join("run");
    if error.kind() != io::ErrorKind::NotFound || !file_of(folder).exists() {
        return Err(error);
    }
    match DirBuilder::new().mode(0o700).create(&run) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Turnstile::open(&run),
    }
}

pub(super) fn missing(folder: &Path, error: io::Error) -> StoreError {
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
        return StoreError::NoQueue(folder.to_owned());
    }
    access_error(error)
}

pub(super) fn access_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(error),
        _ => StoreError::Io(too_large(error)),
    }
}

fn open_error(folder: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) if damage_in(&error).is_none() => match error.kind() {
            // What redb answers to a file that does not begin with its magic number.
            io::ErrorKind::InvalidData => StoreError::NotAQueue("it is not a redb file".to_owned()),
            io::ErrorKind::UnexpectedEof => StoreError::Damaged("it is cut short".to_owned()),
            _ => missing(folder, error),
        },
        DatabaseError::Storage(error) => error.into(),
        other => StoreError::Damaged(other.to_string()),
    }
}

/// Makes the file, if nobody else did meanwhile. The turnstile is held.
fn create_file(folder: &Path) -> Result<bool, StoreError> {
    let path = file_of(folder);
    if path.try_exists()? {
        return Ok(false);
    }
    let new = folder.join("queue.redb.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(access_error(error)),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).open(&new).map_err(access_error)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    fence(|| {
        let database = builder().create(&new).map_err(|error| open_error(folder, error))?;
        write_schema(&database)?;
        database.close().map_err(|error| open_error(folder, error))
    })?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

fn write_schema(database: &Database) -> Result<(), StoreError> {
    let txn = database.begin_write()?;
    {
        let mut tables = Tables::new(&txn);
        tables.open_all()?;
        tables.meta.put("schema", &SCHEMA_VERSION)?;
        let head = records::Head { next_seq: 1, next_lease: 1, next_lane: 1, next_run: 1, ..Default::default() };
        tables.meta.put("head", &head)?;
        tables.meta.put("generations", &records::Generations::default())?;
    }
    Ok(txn.commit()?)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({}, process {})", self.folder.display(), process::id())
    }
}
