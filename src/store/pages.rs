//! Every page that redb reads is compared with the checksum that its parent keeps of it.
//!
//! redb's trees are Merkle trees: a branch page holds the checksums of its children, the tables' tree those of the
//! roots of the tables, the header that of the tables' tree. redb verifies them only when it repairs. Here the file
//! under redb does so on each read, so that a page with a flipped bit, or one that a lost write left as it was, is
//! an error before anything in it is believed: no wrong value, no row that is silently missing, no panic on bytes
//! that contradict each other.
//!
//! **Why no sound page is ever refused.** What a page should be is learned when its parent is read, and a page is
//! read only after its parent, in the same life of that page: a page number is given to other content only when no
//! snapshot reaches it, and then nobody gets to it but through a parent that was read, or written, later. So the
//! last that was learned of a page is what holds. What this process wrote is learned as it is written. A page of
//! which nothing was learned is let through. The slot of the header that nobody reads from teaches nothing, since
//! the pages under it may be in use again.
//!
//! What is not under a checksum is the first part of the header. What is fixed there is compared with what it has to
//! be, the rest of its page is not used. Two bits are left, which say whose turn it is of the two slots:
//! turned over alone, they show the queue as it was one commit before.
//!
//! **Readers** are not told that the last process left the file without closing it: every commit here is in two
//! phases, so that the slot they read from is whole, and they need none of what the next writer tidies up.
//!
//! The layout is that of redb's file format 3, as its design document describes it; that of the header is in `header`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};
use xxhash_rust::xxh3::xxh3_128;

use super::header::{
    GOD_BYTE, HEADER_BYTES, LEFT_OPEN, PRIMARY_BIT, PRIMARY_UNFLUSHED, REGION_AT, SLOT_BYTES, SLOTS_AT, number4,
};
use super::syncs::Syncs;
use super::turnstile::{OnWait, patiently, soon};

/// A page of order 0, in bytes; one of order n has 2^n times as many.
const PAGE_BYTES: u64 = 4096;
const CHECKSUM_BYTES: usize = 16;
/// A page number, a checksum and a count of rows.
const ROOT_BYTES: usize = 32;

/// How pages that do not match their checksums are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// Reading one is an error, and so is everything after it until the file is opened anew.
    Refused,
    /// They read as if they had no rows: what the other pages hold can be had. For readers only.
    PassedOver,
}

/// Who reads the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Writers,
    Readers(Damage),
}

/// A page that does not match its checksum, inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("page {0} does not match its checksum")]
struct DamagedPage(u64);

/// What an error of redb says of a damaged page, if that is what it is about.
pub(super) fn damage_in(error: &io::Error) -> Option<String> {
    error.get_ref().filter(|inner| inner.is::<DamagedPage>()).map(ToString::to_string)
}

/// A file whose pages are verified, and whose user is told when a lock of another process keeps it waiting.
pub(super) struct Pages<B> {
    file: Syncs<B>,
    whom: For,
    on_wait: Arc<OnWait>,
    known: Mutex<Known>,
}

/// What is known of the pages.
#[derive(Debug, Default)]
struct Known {
    regions: Regions,
    trees: Vec<Tree>,
    pages: HashMap<u64, Expected, BuildHasherDefault<Offset>>,
    /// The pages that were learned of, for who walks through all of them.
    trail: Option<Vec<u64>>,
}

/// Where pages are.
#[derive(Debug, Clone, Copy, Default)]
struct Regions {
    header_pages: u64,
    pages: u64,
}

/// How the pages of a tree are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tree {
    /// Bytes of a key or a value; `None` if they vary.
    key: Option<usize>,
    value: Option<usize>,
    /// Whether its values are the roots of tables.
    holds_tables: bool,
}

const TABLES: Tree = Tree { key: None, value: None, holds_tables: true };

/// What a page at some offset should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// By the checksum in its parent, of the bytes in use. Half of it tells as much.
    Checksum { sum: u64, tree: u16, order: u8 },
    /// By what this process wrote there: a checksum of all of it.
    Written { sum: u64, order: u8 },
}

/// Hashes offsets of pages.
#[derive(Default)]
struct Offset(u64);

impl Hasher for Offset {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, offset: u64) {
        self.0 = (self.0 ^ (offset / PAGE_BYTES)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(32);
    }
}

impl<B> fmt::Debug for Pages<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({:?})", self.whom)
    }
}

impl<B: StorageBackend> Pages<B> {
    pub(super) fn new(file: B, whom: For, on_wait: &Arc<OnWait>) -> Self {
        Self { file: Syncs::new(file), whom, on_wait: Arc::clone(on_wait), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, offset: u64, page: &mut [u8]) -> io::Result<()> {
        if offset > 0 {
            let sound = self.known().is_sound(offset, page);
            return match self.whom {
                _ if sound => Ok(()),
                For::Writers | For::Readers(Damage::Refused) => Err(damaged(offset)),
                For::Readers(Damage::PassedOver) => {
                    page.fill(0);
                    page[0] = LEAF;
                    Ok(())
                }
            };
        }
        if page.len() < HEADER_BYTES {
            return Ok(());
        }
        if !self.known().learn_header(page) {
            return Err(damaged(0));
        }
        if self.whom != For::Writers {
            page[GOD_BYTE] &= !LEFT_OPEN;
        }
        Ok(())
    }
}

/// The pages in use that do not match their checksums. Others may write meanwhile: a page that is damaged is so at
/// every look.
pub(super) fn find_damaged(file: &File) -> io::Result<BTreeSet<u64>> {
    const LOOKS: usize = 4;
    let look = || damaged_at_a_look(|page, offset| file.read_exact_at(page, offset));
    let mut found = look()?;
    for _ in 1..LOOKS {
        if found.is_empty() {
            break;
        }
        found = &found & &look()?;
    }
    Ok(found)
}

fn damaged_at_a_look(mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> io::Result<BTreeSet<u64>> {
    let mut header = [0; HEADER_BYTES];
    read(&mut header, 0)?;
    let mut known = Known { trail: Some(Vec::new()), ..Known::default() };
    let mut found = BTreeSet::new();
    if !known.learn_header(&header) {
        found.insert(0);
    }
    while let Some(offset) = known.trail.as_mut().and_then(Vec::pop) {
        let bytes = known.pages.get(&offset).map_or(PAGE_BYTES, |expected| expected.bytes());
        let mut page = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        if read(&mut page, offset).is_err() || !known.is_sound(offset, &page) {
            found.insert(offset / PAGE_BYTES);
        }
    }
    Ok(found)
}

fn damaged(offset: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, DamagedPage(offset / PAGE_BYTES))
}

impl Known {
    /// Learns where the trees begin; false if the header contradicts itself.
    fn learn_header(&mut self, header: &[u8]) -> bool {
        self.regions = Regions {
            header_pages: u64::from(number4(header, REGION_AT)),
            pages: u64::from(number4(header, REGION_AT + 4)),
        };
        let primary = usize::from(header[GOD_BYTE] & PRIMARY_BIT);
        let mut slots = vec![primary];
        if header[GOD_BYTE] & PRIMARY_UNFLUSHED != 0 {
            // Served until the primary is known to be on disk.
            slots.push(1 - primary);
        }
        let tree = self.tree(TABLES);
        for slot in slots {
            let slot = &header[SLOTS_AT + slot * SLOT_BYTES..][..SLOT_BYTES];
            let (fields, sum) = slot.split_at(SLOT_BYTES - CHECKSUM_BYTES);
            if xxh3_128(fields).to_le_bytes() != sum {
                return false;
            }
            for (root, present) in [(8, slot[1]), (8 + ROOT_BYTES, slot[2])] {
                if present != 0 {
                    self.learn(&slot[root..], &slot[root + 8..], tree);
                }
            }
        }
        true
    }

    /// Whether a page is what it should be. Learns what it says of others.
    fn is_sound(&mut self, offset: u64, page: &[u8]) -> bool {
        let found = self.pages.get(&offset).copied().filter(|expected| expected.bytes() == page.len() as u64);
        match found {
            // Does not happen: the tests, which refuse it, show that.
            None => !cfg!(debug_assertions),
            Some(Expected::Written { sum, .. }) => half(page) == sum,
            Some(Expected::Checksum { sum, tree, .. }) => {
                let layout = self.trees[usize::from(tree)];
                let sound = layout.bytes_in_use(page).and_then(|end| page.get(..end)).is_some_and(|it| half(it) == sum);
                if sound {
                    self.learn_children(tree, layout, page);
                }
                sound
            }
        }
    }

    fn learn_children(&mut self, tree: u16, layout: Tree, page: &[u8]) {
        if page[0] == BRANCH {
            let children = usize::from(number2(page)) + 1;
            let (sums, numbers) = (&page[8..], &page[8 + CHECKSUM_BYTES * children..]);
            for child in 0..children {
                self.learn(&numbers[8 * child..], &sums[CHECKSUM_BYTES * child..], tree);
            }
        } else if layout.holds_tables {
            for row in 0..usize::from(number2(page)) {
                self.learn_table(layout.value_at(page, row));
            }
        }
    }

    /// Learns the root of a table from its definition.
    fn learn_table(&mut self, definition: Option<&[u8]>) {
        /// Of a table whose keys have one value each.
        const PLAIN: u8 = 3;
        let Some(definition) = definition.filter(|bytes| bytes.len() >= 52 && bytes[0] == PLAIN) else { return };
        let width = |at: usize| (definition[at] != 0).then(|| number4(definition, at + 1) as usize);
        if definition[9] != 0 {
            let tree = self.tree(Tree { key: width(42), value: width(47), holds_tables: false });
            self.learn(&definition[10..], &definition[18..], tree);
        }
    }

    /// Learns what the page of this number should be.
    fn learn(&mut self, number: &[u8], sum: &[u8], tree: u16) {
        let number = number8(number);
        let order = number.to_le_bytes()[7] >> 3;
        let region = (number >> 20) & 0xf_ffff;
        let index = number & (0xf_ffff >> order);
        let region_start = PAGE_BYTES * (1 + region * (self.regions.header_pages + self.regions.pages));
        let offset = region_start + PAGE_BYTES * self.regions.header_pages + index * (PAGE_BYTES << order.min(20));
        self.pages.insert(offset, Expected::Checksum { sum: number8(sum), tree, order });
        self.trail.iter_mut().for_each(|trail| trail.push(offset));
    }

    fn tree(&mut self, tree: Tree) -> u16 {
        let found = self.trees.iter().position(|known| *known == tree);
        let at = found.unwrap_or_else(|| {
            self.trees.push(tree);
            self.trees.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }
}

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

impl Tree {
    /// Where the bytes of a page end that its checksum is over; `None` if it is no page of this tree.
    fn bytes_in_use(self, page: &[u8]) -> Option<usize> {
        let rows = usize::from(number2(page));
        match page[0] {
            LEAF => self.value_end(page, rows.checked_sub(1)?),
            BRANCH => {
                let ends = 8 + (CHECKSUM_BYTES + 8) * (rows + 1);
                match self.key {
                    Some(bytes) => Some(ends + bytes * rows),
                    None => end_at(page, ends + 4 * rows.checked_sub(1)?),
                }
            }
            _ => None,
        }
    }

    fn keys_end(self, page: &[u8]) -> Option<usize> {
        let rows = usize::from(number2(page));
        let ends = [self.key, self.value].into_iter().filter(Option::is_none).count();
        match self.key {
            Some(bytes) => Some(4 + 4 * rows * ends + bytes * rows),
            None => end_at(page, 4 + 4 * rows.checked_sub(1)?),
        }
    }

    fn value_end(self, page: &[u8], row: usize) -> Option<usize> {
        let rows = usize::from(number2(page));
        match self.value {
            Some(bytes) => Some(self.keys_end(page)? + bytes * (row + 1)),
            None => end_at(page, 4 + if self.key.is_none() { 4 * rows } else { 0 } + 4 * row),
        }
    }

    fn value_at(self, page: &[u8], row: usize) -> Option<&[u8]> {
        let start = match row.checked_sub(1) {
            Some(before) => self.value_end(page, before)?,
            None => self.keys_end(page)?,
        };
        page.get(start..self.value_end(page, row)?)
    }
}

impl Expected {
    fn bytes(self) -> u64 {
        let (Self::Checksum { order, .. } | Self::Written { order, .. }) = self;
        PAGE_BYTES << order.min(20)
    }
}

fn half(bytes: &[u8]) -> u64 {
    number8(&xxh3_128(bytes).to_le_bytes())
}

/// The order of a page of so many bytes.
fn order_of(bytes: usize) -> u8 {
    u8::try_from((bytes as u64 / PAGE_BYTES).trailing_zeros()).unwrap_or(u8::MAX)
}

/// An offset in a page.
fn end_at(page: &[u8], at: usize) -> Option<usize> {
    page.get(at..at + 4)?;
    Some(number4(page, at) as usize)
}

/// How many rows or keys a page has.
fn number2(page: &[u8]) -> u16 {
    u16::from_le_bytes([page[2], page[3]])
}

fn number8(bytes: &[u8]) -> u64 {
    bytes[..8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A limit that people set and forget is named.
pub(super) fn too_large(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge => io::Error::new(error.kind(), format!("{error}: see `ulimit -f`")),
        _ => error,
    }
}

impl<B: StorageBackend> StorageBackend for Pages<B> {
    fn len(&self) -> io::Result<u64> {
        self.file.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.file.read(offset, out)?;
        self.look(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(too_large)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset > 0 {
            let order = order_of(data.len());
            self.known().pages.insert(offset, Expected::Written { sum: half(data), order });
        }
        self.file.write(offset, data).map_err(too_large)
    }

    fn close(&self) -> io::Result<()> {
        self.file.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if soon(|| self.file.file.try_lock_range(start, end)) {
            return Ok(());
        }
        patiently(&self.on_wait, || self.file.file.lock_range(start, end))
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if soon(|| self.file.file.try_lock_shared_range(start, end)) {
            return Ok(());
        }
        patiently(&self.on_wait, || self.file.file.lock_shared_range(start, end))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests;
