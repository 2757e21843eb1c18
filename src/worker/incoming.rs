//! Large outputs that come from elsewhere: their files are written before the transaction that names them.
//!
//! Imports of large outputs exclude each other by a lock on `output/`, which the kernel drops when its holder dies. Under
//! it the numbers of their jobs are reserved before anything is written: no other job can come by the name of a file that
//! is written here, and none that an import before this one has named is taken for left over.
//!
//! Crash points: before the commit the files belong to numbers that no job has, nor ever gets except by another
//! import, which begins by removing them. After it they are named, and on disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::output::{left_over, make_folder, output_path};
use crate::model::{Seq, Stream};

/// The files of one import.
pub struct Incoming {
    queue: PathBuf,
    /// Locked for as long as this is open.
    outputs: File,
    /// The one that is being written.
    current: Option<(PathBuf, File)>,
    written: Vec<PathBuf>,
    is_kept: bool,
}

impl Incoming {
    /// Begins an import of large outputs. `None` if another one is at work.
    pub fn begin(queue: &Path) -> io::Result<Option<Self>> {
        let folder = queue.join("output");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let outputs = File::open(&folder)?;
        match flock(&outputs, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        Ok(Some(Self { queue: queue.to_owned(), outputs, current: None, written: Vec::new(), is_kept: false }))
    }

    /// Removes the files that an import left which was killed: those of jobs with these numbers, first and last of each
    /// range, in order. They have to be reserved since this began, and have no jobs.
    pub fn sweep(&self, ranges: &[(Seq, Seq)]) -> io::Result<()> {
        let is_ours = |seq: Seq| {
            let after = ranges.partition_point(|(first, _)| *first <= seq);
            Ok::<_, io::Error>(ranges[..after].last().is_some_and(|(_, last)| seq <= *last))
        };
        left_over(&self.queue, is_ours)?.into_iter().try_for_each(fs::remove_file)
    }

    /// A part of an output; `at` is how much of it came before.
    pub fn part(&mut self, seq: Seq, attempt: u32, stream: Stream, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at == 0 {
            let path = output_path(&self.queue, seq, attempt, stream);
            make_folder(&path)?;
            self.written.push(path.clone());
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            self.current = Some((path, file));
        }
        self.current.as_mut().map_or(Ok(()), |(_, file)| file.write_all(bytes))
    }

    /// The output has come to its end.
    pub fn complete(&mut self) -> io::Result<()> {
        self.current.take().map_or(Ok(()), |(_, file)| file.sync_all())
    }

    /// The output cannot be had after all.
    pub fn give_up(&mut self) -> io::Result<()> {
        self.current.take().map_or(Ok(()), |(path, _)| fs::remove_file(path))
    }

    /// All outputs are there: so are their names.
    pub fn sync(&self) -> io::Result<()> {
        let folders: BTreeSet<&Path> = self.written.iter().filter_map(|path| path.parent()).collect();
        folders.into_iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
        self.outputs.sync_all()
    }

    /// They are named, or may be.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_kept {
            for path in &self.written {
                let _ = fs::remove_file(path);
            }
        }
    }
}
