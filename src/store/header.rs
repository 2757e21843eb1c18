//! The first page of a redb file, as the design document of its file format 3 describes it: what is fixed in it, where
//! the trees begin, how long the file is, and the bytes by which processes keep each other out. Cargo.toml names the
//! one version of redb for which this was read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::StoreError;

/// What the file begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// What redb reads of the page: two slots after the layout.
pub(super) const HEADER_BYTES: usize = 320;
pub(super) const HEADER_PAGE_BYTES: usize = 4096;
/// Flags.
pub(super) const GOD_BYTE: usize = 9;
pub(super) const PRIMARY_BIT: u8 = 1;
pub(super) const LEFT_OPEN: u8 = 2;
const TWO_PHASES: u8 = 4;
pub(super) const PRIMARY_UNFLUSHED: u8 = 8;
/// The layout: five numbers of four bytes, the bytes of a page and the pages of a region's header and of a region first.
const LAYOUT_AT: usize = 12;
pub(super) const REGION_AT: usize = LAYOUT_AT + 4;
const LAYOUT_END: usize = LAYOUT_AT + 20;
/// Pages of a region, in a file that this program made.
const REGION_PAGES: u32 = 1 << 20;
pub(super) const SLOTS_AT: usize = 64;
pub(super) const SLOT_BYTES: usize = 128;

/// Whoever writes has this byte of the file locked.
pub(super) const WRITER_BYTE: i64 = 1 << 62;

/// What every commit changes once it can be seen, and nothing else does: the slot of the header that readers go by. It
/// is read without a lock: a slot that is gone by is not written. What is too short for a header is told as it is.
pub fn commit_mark(queue_file: &File) -> io::Result<Vec<u8>> {
    let mut header = vec![0; HEADER_BYTES];
    let read = queue_file.read_at(&mut header, 0)?;
    header.truncate(read);
    if read == HEADER_BYTES {
        let primary = usize::from(header[GOD_BYTE] & PRIMARY_BIT);
        let is_flushed = header[GOD_BYTE] & PRIMARY_UNFLUSHED == 0;
        let seen = if is_flushed { primary } else { 1 - primary };
        header.drain(..SLOTS_AT + seen * SLOT_BYTES);
        header.truncate(SLOT_BYTES);
    }
    Ok(header)
}

/// Whether what is fixed in the first page of a file is what it has to be.
pub(super) fn is_sound(page: &[u8]) -> bool {
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    page.len() == HEADER_PAGE_BYTES
        && page[GOD_BYTE] & !(PRIMARY_BIT | LEFT_OPEN | PRIMARY_UNFLUSHED) == TWO_PHASES
        && zero(&page[GOD_BYTE + 1..LAYOUT_AT])
        && number4(page, LAYOUT_AT) as usize == HEADER_PAGE_BYTES
        && [number4(page, REGION_AT), number4(page, REGION_AT + 4)] == [0, REGION_PAGES]
        && zero(&page[LAYOUT_END..SLOTS_AT])
}

/// Whether a file that begins with `header` is as long as its layout says; an error if it is no redb file at all.
pub(super) fn is_whole(header: &[u8], length: impl FnOnce() -> io::Result<u64>) -> Result<bool, StoreError> {
    let magic = header.len().min(MAGIC.len());
    if header[..magic] != MAGIC[..magic] {
        return Err(StoreError::NotAQueue("it is not a redb file".to_owned()));
    }
    Ok(header.len() >= LAYOUT_END && length()? >= length_in(header))
}

/// How long the file is at least: a page for the header, then regions of pages, the last one perhaps not full, each
/// with pages of its own.
fn length_in(header: &[u8]) -> u64 {
    let field = |n: usize| u64::from(number4(header, LAYOUT_AT + 4 * n));
    let [page, region_header, region_max, full_regions, trailing] = [0, 1, 2, 3, 4].map(field);
    let trailing = if trailing == 0 { 0 } else { region_header + trailing };
    let pages = full_regions.saturating_mul(region_header + region_max).saturating_add(trailing).saturating_add(1);
    page.saturating_mul(pages)
}

/// The number of four bytes at a place, which is there.
pub(super) fn number4(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
