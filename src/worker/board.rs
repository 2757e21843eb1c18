//! A pool's own file, `run/<pool>`: its life lock and its scratch board in one.
//!
//! The lock tells peers whether the pool lives; the kernel drops it at death, however that comes. The
//! board tells them, after that death, which claims had really started, which processes to look for and
//! which outcomes had not been committed yet. It outlives its pool, but not a reboot: it is never
//! synced, and its header carries the boot that it belongs to.
//!
//! On disk: one page with the header, then one record of fixed size for each claim outstanding. No record
//! crosses a page, so a pool killed in the middle of a write leaves the old record or the new one.
//!
//! Who stores a batch has such a file, too (see `bulk`). It has no records, but **ballast**: room on the disk that
//! nobody else takes meanwhile. When the disk fills up, that is given back first, so that what was stored of the batch
//! can be taken away, and what others do goes on.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::model::PoolId;

mod life;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use life::{Life, probe, probe_after_close, wait_for_end};
use record::RECORD_BYTES;
pub(super) use record::random_u64;
pub(crate) use record::{Identity, Slot, Stage};

/// Where the slots start: the header has a page of its own, so that it is never rewritten with a slot.
const SLOTS_AT_BYTES: u64 = 4096;

/// Most slots of a board. More than any pool claims, and a bound for readers of a damaged file: 128 MiB.
const SLOTS_MAX: usize = 1024 * 1024;

/// How much room a batch keeps: pieces of the size in which it is taken away need less than half of that.
const BALLAST_BYTES: u64 = 2 * 1024 * 1024;

/// How many names are tried before giving up: with a million names there is something wrong by then.
const NAMES_TRIED_MAX: usize = 100;

/// The file of this process's pool, locked for as long as this value lives. Dropping it leaves the file
/// behind, as death would: peers then recover what stands in it.
#[derive(Debug)]
pub(crate) struct PoolFile {
    file: File,
    path: PathBuf,
    id: PoolId,
    identity: Identity,
}

/// What a peer reads of somebody's board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Board {
    /// Whose it is.
    pub(crate) identity: Identity,
    /// The claims outstanding, in no order that means anything.
    pub(crate) slots: Vec<Slot>,
}

impl PoolFile {
    /// Makes the file of a new pool in the folder `run`, with room for `slots` claims, under a random
    /// name that no other file there has.
    ///
    /// It is locked before it gets its name, so that peers never see a pool's file without its lock. A
    /// pool killed before that leaves a file whose name is no pool's ([`pool_name`]), which anybody may
    /// delete once its lock is free: should that hit a pool that had not come to locking yet, it makes
    /// another.
    pub(crate) fn create(run: &Path, slots: usize) -> io::Result<Self> {
        Self::create_named(run, slot_offset(slots)?, Identity::of_this_process()?, random_name)
    }

    /// Makes the file of a process that stores a batch, with its ballast.
    pub(crate) fn create_maker(run: &Path) -> io::Result<Self> {
        let identity = Identity { is_maker: true, ..Identity::of_this_process()? };
        Self::create_named(run, SLOTS_AT_BYTES + BALLAST_BYTES, identity, random_name)
    }

    fn create_named(
        run: &Path,
        bytes: u64,
        identity: Identity,
        mut name: impl FnMut() -> io::Result<PoolId>,
    ) -> io::Result<Self> {
        for _ in 0..NAMES_TRIED_MAX {
            let id = name()?;
            let path = run.join(id.as_str());
            if let Some(file) = create_at(run, &path, bytes, &identity)? {
                return Ok(Self { file, path, id, identity });
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "found no free name for a pool"))
    }

    /// The pool's name.
    pub(crate) fn id(&self) -> &PoolId {
        &self.id
    }

    /// Whose it is: what its header says.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Puts `slot` in place `index`. One `pwrite`, which rings nobody's bell.
    pub(crate) fn write(&self, index: usize, slot: &Slot) -> io::Result<()> {
        self.file.write_all_at(&slot.encode(), slot_offset(index)?)
    }

    /// Takes room for `slots` claims in all, if there is less.
    pub(crate) fn make_room(&self, slots: usize) -> io::Result<()> {
        take_room(&self.file, slot_offset(slots)?)
    }

    /// Ends the pool in good order: its file goes before its lock, so that peers find nothing to recover.
    pub(crate) fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Reads the board at `path`; `None` if there is no such file. Slots that are empty or damaged are left
/// out, as is one that its pool is writing at this moment. A header that is none is `InvalidData`.
pub(crate) fn read(path: &Path) -> io::Result<Option<Board>> {
    open_to_look(path)?.map(|file| read_from_start(&file)).transpose()
}

/// What stands on the board in an open file that was not read from yet.
pub(crate) fn read_from_start(file: &File) -> io::Result<Board> {
    let identity = read_identity(file)?;
    let mut slots = Vec::new();
    let mut rest = BufReader::with_capacity(64 * 1024, file);
    let mut record = [0; RECORD_BYTES];
    for _ in 0..SLOTS_MAX {
        match rest.read_exact(&mut record) {
            Ok(()) => slots.extend(Slot::decode(&record)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Board { identity, slots })
}

/// Who has the file at `path`; `None` if there is no such file.
pub(crate) fn identity(path: &Path) -> io::Result<Option<Identity>> {
    open_to_look(path)?.map(|file| read_identity(&file)).transpose()
}

/// Gives the ballast of a batch that is taken away back to the disk.
pub(crate) fn drop_ballast(path: &Path) -> io::Result<()> {
    let Some(file) = open_to_look(path)? else { return Ok(()) };
    if file.metadata()?.len() > SLOTS_AT_BYTES && read_identity(&file)?.is_maker {
        // By its name: to close it after writing would ring as a death does.
        nix::unistd::truncate(path, SLOTS_AT_BYTES.cast_signed())?;
    }
    Ok(())
}

/// The pool whose file in `run/` has this name, if it is one that pools take.
pub(crate) fn pool_name(name: &OsStr) -> Option<PoolId> {
    let &[first, second, third, last] = name.as_encoded_bytes() else { return None };
    let letter_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = first.is_ascii_lowercase() && [second, third].into_iter().all(letter_or_digit) && last.is_ascii_digit();
    name.to_str().filter(|_| fits)?.parse().ok()
}

/// A name for a pool: four letters and digits that are easy to type. The digit at the end keeps it from
/// being a word, such as the name of the turnstile.
fn random_name() -> io::Result<PoolId> {
    const LETTERS_AND_DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = random_u64()?;
    let mut pick = |from: &[u8]| {
        let count = from.len() as u64;
        let picked = usize::try_from(random % count).unwrap_or_default();
        random /= count;
        char::from(from[picked])
    };
    let (letters, digits) = LETTERS_AND_DIGITS.split_at(26);
    let name = [pick(letters), pick(LETTERS_AND_DIGITS), pick(LETTERS_AND_DIGITS), pick(digits)];
    String::from_iter(name).parse().map_err(io::Error::other)
}

/// Something for the end of a name that no other has.
pub(crate) fn random_suffix() -> io::Result<String> {
    Ok(format!("{:016x}", random_u64()?))
}

/// A locked file with a header at `path`; `None` if that name is taken, or the file was swept away
/// before it was locked.
fn create_at(run: &Path, path: &Path, bytes: u64, identity: &Identity) -> io::Result<Option<File>> {
    let temporary = run.join(format!(".new-{}", random_suffix()?));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    let named = prepare(&file, bytes, identity).and_then(|()| rename_unless_taken(&temporary, path));
    if !matches!(named, Ok(true)) {
        // Its own error matters less than the one at hand, and leaves a file that is nobody's.
        let _ = fs::remove_file(&temporary);
    }
    let ours = named? && is_at(&file, path)?;
    Ok(ours.then_some(file))
}

fn prepare(file: &File, bytes: u64, identity: &Identity) -> io::Result<()> {
    life::lock(file)?;
    file.write_all_at(&identity.encode(), 0)?;
    take_room(file, bytes)
}

fn take_room(file: &File, bytes: u64) -> io::Result<()> {
    // Room taken now cannot be missing when a disk fills up: the board is needed most when things go wrong.
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)) {
        Err(Errno::OPNOTSUPP) if file.metadata()?.len() < bytes => file.set_len(bytes),
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// Renames `from` to `to`; `false` if `to` exists already or `from` no longer does.
fn rename_unless_taken(from: &Path, to: &Path) -> io::Result<bool> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOENT) => Ok(false),
        // Some file systems do not know the flag.
        Err(Errno::INVAL) => link_unless_taken(from, to),
        Err(error) => Err(error.into()),
    }
}

fn link_unless_taken(from: &Path, to: &Path) -> io::Result<bool> {
    match rustix::fs::link(from, to) {
        Ok(()) => fs::remove_file(from).map(|()| true),
        Err(Errno::EXIST | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether `path` leads to `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a pool's file without write access: closing it must not look like its pool's death. What it says is acted
/// upon by ending processes, so it has to be a file of this user; a fifo in its place is not waited for.
fn open_to_look(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => {
            let metadata = file.metadata()?;
            if metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw() {
                return Ok(Some(file));
            }
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "what is in a pool's place is not a file of this user"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the whole header page, so that what follows are the slots.
fn read_identity(file: &File) -> io::Result<Identity> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the header of a pool's file is damaged");
    let mut page = Vec::new();
    file.take(SLOTS_AT_BYTES).read_to_end(&mut page)?;
    page.first_chunk().and_then(Identity::decode).ok_or_else(damaged)
}

/// Where slot `index` starts.
fn slot_offset(index: usize) -> io::Result<u64> {
    if index >= SLOTS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a board has no room for that many claims"));
    }
    Ok(SLOTS_AT_BYTES + index as u64 * RECORD_BYTES as u64)
}
