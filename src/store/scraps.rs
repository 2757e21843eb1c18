//! Where a file is made that is to take the queue file's place: a folder in the queue's own, so that it is on the same
//! file system, removed with [`Scraps`].

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// All names of such folders. Who makes one, or opens the queue to write, removes those that a kill left: they hold the
/// turnstile, as their makers do as long as they live.
const NAMES: [&str; 2] = ["repair.tmp", "compact.tmp"];

/// Folders for what is being made, removed with this.
pub(super) struct Scraps(PathBuf);

impl Scraps {
    /// Makes `name` in the queue's folder. The queue is [`Seized`](super::Seized).
    pub(super) fn make(folder: &Path, name: &str) -> io::Result<Self> {
        debug_assert!(NAMES.contains(&name), "nobody would remove {name}");
        for left in NAMES {
            match fs::remove_dir_all(folder.join(left)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let scraps = folder.join(name);
        fs::DirBuilder::new().mode(0o700).create(&scraps)?;
        Ok(Self(scraps))
    }

    /// A new folder in it.
    pub(super) fn path(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }
}

/// Removes what kills left. The turnstile is held.
pub(super) fn sweep(folder: &Path) {
    for left in NAMES {
        // What cannot be removed is in nobody's way here.
        let _ = fs::remove_dir_all(folder.join(left));
    }
}

impl Drop for Scraps {
    fn drop(&mut self) {
        // What remains is removed by who comes next.
        let _ = fs::remove_dir_all(&self.0);
    }
}
