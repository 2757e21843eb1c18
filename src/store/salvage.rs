//! What is left of a damaged queue file: pages that do not match their checksums read as if they had no rows, so that
//! whatever else the file holds can be had, and nothing that is wrong.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use redb::Builder;

use super::StoreError;
use super::open::{Store, fence, file_of, missing};
use super::pages;
use super::turnstile::OnWait;

/// A damaged queue, to be read.
#[derive(Debug)]
pub struct Salvage {
    /// What can be read; jobs, or parts of them, may be missing.
    pub store: Store,
    /// The pages that cannot.
    pages: BTreeSet<u64>,
}

impl Salvage {
    /// Opens the queue in `folder`, which is not written to. If not even its header can be followed, redb mends a copy
    /// in `scratch`, an empty folder that has to stay as long as this.
    pub fn open(folder: &Path, scratch: &Path) -> Result<Self, StoreError> {
        let pages = damaged_pages(folder, Box::new(|| {}))?;
        let store = Store::open_what_is_left(folder, Box::new(|| {})).or_else(|_| {
            let copy = file_of(scratch);
            fs::copy(file_of(folder), &copy)?;
            let mended = fence(|| Ok(Builder::new().open(&copy).map(drop)))?;
            mended.map_err(|error| StoreError::Damaged(format!("nothing of it can be read: {error}")))?;
            Store::open_what_is_left(scratch, Box::new(|| {}))
        })?;
        Ok(Self { store, pages })
    }

    /// The damage in words, a line for each page.
    pub fn losses(&self) -> impl Iterator<Item = String> {
        let said = |page: &u64| format!("page {page} does not match its checksum: what was on it is lost");
        self.pages.iter().map(said)
    }
}

/// The numbers of the pages of the queue file in `folder` that do not match their checksums. Reads all that are in use.
///
/// A snapshot is held meanwhile, so that no page of it is given to other content, however busily others write. A file
/// of which there can be no snapshot is damaged, and nobody writes to it.
pub fn damaged_pages(folder: &Path, on_wait: OnWait) -> Result<BTreeSet<u64>, StoreError> {
    let file = File::open(file_of(folder)).map_err(|error| missing(folder, error))?;
    let find = || Ok(pages::find_damaged(&file)?);
    match Store::open_read_only(folder, on_wait) {
        Ok(store) => store.read(|_| find()),
        Err(StoreError::Damaged(_)) => find(),
        Err(error) => Err(error),
    }
}
