//! Looking at what is left of a file that cannot be opened: on a copy, since redb repairs a file unasked when it opens
//! it, and may make worse what it cannot follow.

use std::fs;
use std::path::Path;

use super::StoreError;
use super::open::file_of;
use super::repair::Old;
use super::tables::{SCHEMA_VERSION, Snapshot};

/// Looks at a copy of the queue in `folder`, made in `scratch`, an empty folder.
pub fn salvage<T>(
    folder: &Path,
    scratch: &Path,
    look: impl FnOnce(&Snapshot) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let copy = file_of(scratch);
    fs::copy(file_of(folder), &copy)?;
    let old = Old::open(&copy)?;
    let looked = super::open::fence(|| {
        let snapshot = old.snapshot()?;
        // A later version is not damage; what cannot be read is.
        match super::open::fence(|| snapshot.schema()) {
            Ok(Some(found)) if found != SCHEMA_VERSION => {
                return Err(StoreError::Schema { found, known: SCHEMA_VERSION });
            }
            Ok(_) | Err(_) => {}
        }
        look(&snapshot)
    });
    old.close();
    looked
}
