//! What jobs write.
//!
//! Standard output and standard error go straight to a file each; the pool copies nothing. When the run ends,
//! an empty file goes, a small one moves into the queue file with the finishing transaction, and a larger one
//! stays, synced before the commit that names it and cut to head and tail at the output limit. While the run
//! goes on, the middle of a file that grows beyond that is given back to the disk.
//!
//! Crash points: before the commit the files hold everything, and a recoverer collects them; after it, files
//! whose bytes are in the queue file may be left and are cleared by whoever recovers the pool.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use crate::model::{INLINE_OUTPUT_BYTES_MAX, Kept, Seq, Stream};

/// How many jobs share a sub-folder of `output/`.
const JOBS_PER_FOLDER: u64 = 1_000;
/// Bytes copied at a time when an output is cut.
const COPY_BYTES: u64 = 256 * 1024;
/// How soon a fast-growing output is looked at again, at the earliest.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(20);
/// When an output that does not grow is looked at again.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// The file of a stream of an attempt, while it runs and, if it is large, ever after.
pub fn output_path(queue: &Path, seq: Seq, attempt: u32, stream: Stream) -> PathBuf {
    let suffix = match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    };
    let folder = (seq.0 / JOBS_PER_FOLDER).to_string();
    queue.join("output").join(folder).join(format!("{}.{attempt}.{suffix}", seq.0))
}

/// The two files of a run.
#[derive(Debug)]
pub(super) struct Spool {
    streams: [StreamFile; 2],
}

#[derive(Debug)]
struct StreamFile {
    path: PathBuf,
    file: File,
    growth: Mutex<Growth>,
}

/// How far a file had grown when it was looked at.
#[derive(Debug, Default)]
struct Growth {
    bytes: u64,
    at: Duration,
    given_back_to: u64,
}

impl Spool {
    /// Makes the files of an attempt that is about to start. What an attempt of that number left before, whose
    /// start the machine forgot in a crash, goes.
    pub(super) fn create(queue: &Path, seq: Seq, attempt: u32) -> io::Result<Self> {
        let open = |stream| -> io::Result<StreamFile> {
            let path = output_path(queue, seq, attempt, stream);
            let file = create_file(&path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => make_folder(&path).and_then(|()| create_file(&path)),
                io::ErrorKind::AlreadyExists => fs::remove_file(&path).and_then(|()| create_file(&path)),
                _ => Err(error),
            })?;
            Ok(StreamFile { path, file, growth: Mutex::default() })
        };
        Ok(Self { streams: [open(Stream::Stdout)?, open(Stream::Stderr)?] })
    }

    /// The files that a run of a dead pool left; a missing one counts as empty.
    pub(super) fn left_by(queue: &Path, seq: Seq, attempt: u32) -> io::Result<Self> {
        let open = |stream| -> io::Result<StreamFile> {
            let path = output_path(queue, seq, attempt, stream);
            make_folder(&path)?;
            let file = options().create(true).open(&path)?;
            Ok(StreamFile { path, file, growth: Mutex::default() })
        };
        Ok(Self { streams: [open(Stream::Stdout)?, open(Stream::Stderr)?] })
    }

    /// Where standard output goes.
    pub(super) fn stdout(&self) -> &File {
        &self.streams[0].file
    }

    /// Where standard error goes.
    pub(super) fn stderr(&self) -> &File {
        &self.streams[1].file
    }

    /// What is kept of standard output and standard error, now that the run has ended.
    pub(super) fn collect(&self, limit: u64) -> io::Result<(Kept, Kept)> {
        Ok((self.streams[0].collect(limit)?, self.streams[1].collect(limit)?))
    }

    /// After the commit: removes the files whose bytes are in the queue file.
    pub(super) fn clear(&self, stdout: &Kept, stderr: &Kept) {
        for (stream, kept) in self.streams.iter().zip([stdout, stderr]) {
            if matches!(kept, Kept::Inline(_)) {
                // What cannot be removed is only left over.
                let _ = fs::remove_file(&stream.path);
            }
        }
    }

    /// Removes both files: the run never started.
    pub(super) fn discard(&self) {
        for stream in &self.streams {
            let _ = fs::remove_file(&stream.path);
        }
    }

    /// Gives the middle of what has grown beyond `limit` back to the disk. Returns when to look again: the
    /// faster it grows, the sooner.
    pub(super) fn look(&self, limit: u64, now: Duration) -> Duration {
        self.streams.iter().map(|stream| stream.look(limit, now)).min().unwrap_or(LOOK_AGAIN_MAX)
    }
}

fn options() -> fs::OpenOptions {
    let mut options = File::options();
    // Read for what moves into the queue file; append so that nothing but a truncation overwrites.
    options.read(true).append(true).mode(0o600);
    options
}

fn create_file(path: &Path) -> io::Result<File> {
    options().create_new(true).open(path)
}

fn make_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()),
        Err(error) => Err(error),
    }
}

impl StreamFile {
    fn collect(&self, limit: u64) -> io::Result<Kept> {
        let bytes = self.file.metadata()?.len();
        if bytes == 0 {
            let _ = fs::remove_file(&self.path);
            return Ok(Kept::Empty);
        }
        if let Some(small) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= INLINE_OUTPUT_BYTES_MAX) {
            let mut inline = vec![0; small];
            self.file.read_exact_at(&mut inline, 0)?;
            return Ok(Kept::Inline(inline));
        }
        if bytes <= limit {
            self.file.sync_data()?;
            sync_folder(&self.path)?;
            return Ok(Kept::File { bytes, left_out: 0 });
        }
        self.cut(bytes, limit)
    }

    /// Replaces the file by its head and its tail. Done in a new file, so that a crash leaves one or the other.
    fn cut(&self, bytes: u64, limit: u64) -> io::Result<Kept> {
        let (head, tail) = (limit / 2, limit - limit / 2);
        let left_out = bytes - head - tail;
        let new = self.path.with_extension("cut");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        self.copy(&mut file, 0, head)?;
        file.write_all(format!("\n[queuectl left out {left_out} bytes here: see output-limit]\n").as_bytes())?;
        self.copy(&mut file, bytes - tail, tail)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)?;
        sync_folder(&self.path)?;
        Ok(Kept::File { bytes: file.metadata()?.len(), left_out })
    }

    fn copy(&self, to: &mut File, mut from: u64, bytes: u64) -> io::Result<()> {
        let end = from + bytes;
        let mut buffer = vec![0; usize::try_from(COPY_BYTES.min(bytes)).unwrap_or_default()];
        while from < end {
            let chunk = usize::try_from((end - from).min(COPY_BYTES)).unwrap_or_default();
            self.file.read_exact_at(&mut buffer[..chunk], from)?;
            to.write_all(&buffer[..chunk])?;
            from += chunk as u64;
        }
        Ok(())
    }

    fn look(&self, limit: u64, now: Duration) -> Duration {
        let Ok(mut growth) = self.growth.lock() else { return LOOK_AGAIN_MAX };
        let Ok(bytes) = self.file.metadata().map(|metadata| metadata.len()) else { return LOOK_AGAIN_MAX };
        let (grown, took) = (bytes.saturating_sub(growth.bytes), now.saturating_sub(growth.at));
        (growth.bytes, growth.at) = (bytes, now);
        self.give_back(&mut growth, limit);
        // When it will have grown by another limit.
        let again = took.as_nanos().saturating_mul(u128::from(limit)) / u128::from(grown.max(1));
        Duration::from_nanos(u64::try_from(again).unwrap_or(u64::MAX)).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX)
    }

    fn give_back(&self, growth: &mut Growth, limit: u64) {
        let from = growth.given_back_to.max(limit / 2);
        let to = growth.bytes.saturating_sub(limit - limit / 2);
        if growth.bytes <= 2 * limit || to <= from {
            return;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system that has no holes keeps the middle until the run ends.
        if rustix::fs::fallocate(&self.file, flags, from, to - from).is_ok() {
            growth.given_back_to = to;
        }
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
