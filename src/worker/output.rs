//! What jobs write.
//!
//! Standard output and standard error go straight to a file each; the pool copies nothing. These *spool* files
//! belong to a place on the pool's board and are used by one run after the other, since making and deleting two
//! files for each job costs more than starting it. A run gets them empty, and only if nothing of an earlier run
//! has them open any more.
//!
//! When the run ends, small outputs move into the queue file with the finishing transaction, and the place is
//! free after that. A larger output becomes a file of its own, synced before the commit that names it and cut to
//! head and tail at the output limit. While the run goes on, the middle of a file that grows beyond that is given
//! back to the disk.
//!
//! Crash points: until the outcome is committed the spool files, or the file of its own, hold everything, and a
//! recoverer collects them. The spool files of a dead pool go when it is recovered. Several may recover it at once, and
//! any of them be killed over it, so they only add: a file of its own gets its name when it is whole, the first one
//! stays, and everybody reports what is in that. What is not whole yet lies among the spool files and goes with them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::board::random_u64;
use super::child::is_open_elsewhere;
use crate::model::{INLINE_OUTPUT_BYTES_MAX, Kept, PoolId, Seq, Stream};

/// How many jobs share a sub-folder of `output/`.
const JOBS_PER_FOLDER: u64 = 1_000;
/// Bytes copied at a time when an output is cut.
const COPY_BYTES: u64 = 256 * 1024;
/// A multiple of the block size of any common file system.
const BLOCK_BYTES: u64 = 64 * 1024;
/// How soon a fast-growing output is looked at again, at the earliest.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(20);
/// When an output that does not grow is looked at again.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// The file of a large output of an attempt that has ended.
pub fn output_path(queue: &Path, seq: Seq, attempt: u32, stream: Stream) -> PathBuf {
    let folder = (seq.0 / JOBS_PER_FOLDER).to_string();
    queue.join("output").join(folder).join(format!("{}.{attempt}.{}", seq.0, suffix(stream)))
}

/// Deletes these large outputs of a job, which nothing names any more; tells what could not be deleted. After a power cut one may be
/// missing.
pub fn delete_outputs(queue: &Path, seq: Seq, files: &[(u32, Stream)]) -> Vec<(PathBuf, io::Error)> {
    let paths = files.iter().map(|(attempt, stream)| output_path(queue, seq, *attempt, *stream));
    let delete = |path: PathBuf| match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Some((path, error)),
        _ => None,
    };
    paths.filter_map(delete).collect()
}

/// The folder of a pool's spool files.
pub(super) fn spool_folder(queue: &Path, pool: &PoolId) -> PathBuf {
    queue.join("output").join(pool.as_str())
}

/// The file that a stream of a run goes to while it runs.
pub fn spool_path(queue: &Path, pool: &PoolId, spool: u32, stream: Stream) -> PathBuf {
    spool_folder(queue, pool).join(format!("{spool}.{}", suffix(stream)))
}

/// The files of large outputs whose jobs `is_gone` says are no more: what a removal has left that was killed before it
/// had deleted them.
pub fn left_over<E: From<io::Error>>(
    queue: &Path,
    mut is_gone: impl FnMut(Seq) -> Result<bool, E>,
) -> Result<Vec<PathBuf>, E> {
    let mut left = Vec::new();
    for folder in entries(&queue.join("output"))? {
        // The others are folders of spool files, and have the names of pools.
        if number_in_front(&folder).is_none() {
            continue;
        }
        for file in entries(&folder)? {
            if let Some(seq) = number_in_front(&file)
                && is_gone(Seq(seq))?
            {
                left.push(file);
            }
        }
    }
    left.sort();
    Ok(left)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The number that a name begins with, up to its first dot.
fn number_in_front(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

fn suffix(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    }
}

/// The two files of a place, by name: they are only open while somebody works on them, so that a pool of thousands
/// of workers does not run out of descriptors.
#[derive(Debug)]
pub(super) struct Spool {
    streams: [StreamFile; 2],
}

#[derive(Debug)]
struct StreamFile {
    stream: Stream,
    path: PathBuf,
    growth: Mutex<Growth>,
}

/// How far a file had grown when it was looked at.
#[derive(Debug, Default)]
struct Growth {
    bytes: u64,
    at: Duration,
    given_back_to: u64,
}

/// Where a run writes to: handed to its process, and closed here when that has them.
pub(super) struct Ends {
    pub(super) stdout: File,
    pub(super) stderr: File,
}

impl Spool {
    /// The files of a place.
    pub(super) fn of(queue: &Path, pool: &PoolId, spool: u32) -> Self {
        let name =
            |stream| StreamFile { stream, path: spool_path(queue, pool, spool, stream), growth: Mutex::default() };
        Self { streams: [name(Stream::Stdout), name(Stream::Stderr)] }
    }

    /// Opens the files for a run to write to: empty, and open nowhere else. Where something of an earlier run has
    /// one open still, or somebody reads it, the run gets a new one.
    pub(super) fn open_ends(&self) -> io::Result<Ends> {
        Ok(Ends { stdout: self.streams[0].open_end()?, stderr: self.streams[1].open_end()? })
    }

    /// A run begins to write.
    pub(super) fn begin(&self, now: Duration) {
        for mut growth in self.streams.iter().filter_map(|stream| stream.growth.lock().ok()) {
            *growth = Growth { at: now, ..Growth::default() };
        }
    }

    /// What is kept of standard output and standard error, now that the run has ended.
    pub(super) fn collect(&self, queue: &Path, seq: Seq, attempt: u32, limit: u64) -> io::Result<(Kept, Kept)> {
        let keep = |stream: &StreamFile| stream.collect(&output_path(queue, seq, attempt, stream.stream), limit);
        Ok((keep(&self.streams[0])?, keep(&self.streams[1])?))
    }

    /// Gives the middle of what has grown beyond `limit` back to the disk. Returns when to look again: the
    /// faster it grows, the sooner.
    pub(super) fn look(&self, limit: u64, now: Duration) -> Duration {
        self.streams.iter().map(|stream| stream.look(limit, now)).min().unwrap_or(LOOK_AGAIN_MAX)
    }
}

/// What is kept of an attempt whose pool died: from a file of its own that the pool, or somebody else who recovers it,
/// had already made, or from its spool files, which stay as they are.
pub(super) fn collect_left(
    queue: &Path,
    pool: &PoolId,
    spool: u32,
    seq: Seq,
    attempt: u32,
    limit: u64,
) -> io::Result<(Kept, Kept)> {
    let spool = Spool::of(queue, pool, spool);
    let keep = |stream: &StreamFile| stream.collect_left(&output_path(queue, seq, attempt, stream.stream), limit);
    Ok((keep(&spool.streams[0])?, keep(&spool.streams[1])?))
}

/// Makes the folder of a pool's spool files.
pub(super) fn make_spool_folder(queue: &Path, pool: &PoolId) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(spool_folder(queue, pool))
}

pub(super) fn make_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.is_dir()) else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

impl StreamFile {
    fn open_end(&self) -> io::Result<File> {
        // Append, so that whatever the run's processes do, none overwrites another.
        let mut options = File::options();
        options.append(true).mode(0o600);
        match options.open(&self.path) {
            Ok(end) if !is_open_elsewhere(&end) => {
                if end.metadata()?.len() > 0 {
                    end.set_len(0)?;
                }
                return Ok(end);
            }
            // It keeps what it has, without a name.
            Ok(_) => fs::remove_file(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        options.create_new(true);
        options.open(&self.path).or_else(|error| match error.kind() {
            // Somebody tidied up.
            io::ErrorKind::NotFound => make_folder(&self.path).and_then(|()| options.open(&self.path)),
            _ => Err(error),
        })
    }

    fn collect(&self, own: &Path, limit: u64) -> io::Result<Kept> {
        let (file, bytes) = match self.small_or_open()? {
            Ok(kept) => return Ok(kept),
            Err(large) => large,
        };
        make_folder(own)?;
        if bytes <= limit {
            file.sync_data()?;
            fs::rename(&self.path, own)?;
        } else {
            // In the place of what an attempt left that a power cut made forgotten, if there is something.
            fs::rename(self.cut(&file, bytes, limit)?, own)?;
            // It gives the room of the rest back.
            fs::remove_file(&self.path)?;
        }
        sync_folder(own)?;
        kept_in(own)
    }

    fn collect_left(&self, own: &Path, limit: u64) -> io::Result<Kept> {
        if !own.try_exists()? {
            let (file, bytes) = match self.small_or_open()? {
                Ok(kept) => return Ok(kept),
                Err(large) => large,
            };
            make_folder(own)?;
            file.sync_data()?;
            let linked = bytes <= limit && link_unless_there(&self.path, own).is_ok();
            if !linked {
                publish(&self.cut(&file, bytes, limit)?, own)?;
            }
        }
        // Whoever made it may have been killed before it did this.
        sync_folder(own)?;
        kept_in(own)
    }

    /// What is kept of little, or the open file of much with its bytes.
    fn small_or_open(&self) -> io::Result<Result<Kept, (File, u64)>> {
        // Most are: that is seen without opening them.
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() == 0 => return Ok(Ok(Kept::Empty)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Kept::Empty)),
            Err(error) => return Err(error),
        }
        let file = File::open(&self.path)?;
        let bytes = file.metadata()?.len();
        match usize::try_from(bytes).ok().filter(|bytes| *bytes <= INLINE_OUTPUT_BYTES_MAX) {
            Some(0) => Ok(Ok(Kept::Empty)),
            Some(small) => {
                let mut inline = vec![0; small];
                file.read_exact_at(&mut inline, 0)?;
                Ok(Ok(Kept::Inline(inline)))
            }
            None => Ok(Err((file, bytes))),
        }
    }

    /// A synced file beside this one with what `limit` leaves of it: head and tail, or all. No other has its name.
    fn cut(&self, from: &File, bytes: u64, limit: u64) -> io::Result<PathBuf> {
        let new = self.path.with_extension(format!("{}.new-{:016x}", suffix(self.stream), random_u64()?));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = copy_cut(from, file, bytes, limit);
        if written.is_err() {
            // On a full disk it is in the way.
            let _ = fs::remove_file(&new);
        }
        written.map(|()| new)
    }

    fn look(&self, limit: u64, now: Duration) -> Duration {
        let Ok(mut growth) = self.growth.lock() else { return LOOK_AGAIN_MAX };
        let Ok(bytes) = fs::metadata(&self.path).map(|metadata| metadata.len()) else { return LOOK_AGAIN_MAX };
        let (grown, took) = (bytes.saturating_sub(growth.bytes), now.saturating_sub(growth.at));
        (growth.bytes, growth.at) = (bytes, now);
        self.give_back(&mut growth, limit);
        // When it will have grown by another limit.
        let again = took.as_nanos().saturating_mul(u128::from(limit)) / u128::from(grown.max(1));
        Duration::from_nanos(u64::try_from(again).unwrap_or(u64::MAX)).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX)
    }

    fn give_back(&self, growth: &mut Growth, limit: u64) {
        // Whole blocks: the rest of one would be overwritten with zeros that nobody can tell from output.
        let from = growth.given_back_to.max(limit / 2).next_multiple_of(BLOCK_BYTES);
        let to = growth.bytes.saturating_sub(limit - limit / 2) / BLOCK_BYTES * BLOCK_BYTES;
        if growth.bytes <= 2 * limit || to <= from {
            return;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system that has no holes keeps the middle until the run ends.
        let file = File::options().write(true).open(&self.path);
        if file.is_ok_and(|file| rustix::fs::fallocate(&file, flags, from, to - from).is_ok()) {
            growth.given_back_to = to;
        }
    }
}

/// Copies what `limit` leaves of so many bytes, and syncs it.
fn copy_cut(from: &File, mut to: File, bytes: u64, limit: u64) -> io::Result<()> {
    if bytes <= limit {
        copy(from, &mut to, 0, bytes)?;
    } else {
        let (head, tail) = (limit / 2, limit - limit / 2);
        copy(from, &mut to, 0, head)?;
        to.write_all(left_out_note(bytes - head - tail).as_bytes())?;
        copy(from, &mut to, bytes - tail, tail)?;
    }
    to.sync_data()
}

fn copy(from: &File, to: &mut File, mut at: u64, bytes: u64) -> io::Result<()> {
    let end = at + bytes;
    let mut buffer = vec![0; usize::try_from(COPY_BYTES.min(bytes)).unwrap_or_default()];
    while at < end {
        let chunk = usize::try_from((end - at).min(COPY_BYTES)).unwrap_or_default();
        from.read_exact_at(&mut buffer[..chunk], at)?;
        to.write_all(&buffer[..chunk])?;
        at += chunk as u64;
    }
    Ok(())
}

/// Gives a file that is whole its name, unless another has it, and takes its old one.
fn publish(new: &Path, own: &Path) -> io::Result<()> {
    match link_unless_there(new, own) {
        Ok(()) => fs::remove_file(new),
        // A file system that has no links: then the last one stays.
        Err(_) => fs::rename(new, own),
    }
}

fn link_unless_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What a file of its own holds. How much was left out of it stands in it.
fn kept_in(own: &Path) -> io::Result<Kept> {
    let file = File::open(own)?;
    let bytes = file.metadata()?.len();
    Ok(Kept::File { bytes, left_out: left_out_of(&file, bytes)? })
}

/// The number in the note between head and tail, if there is one at that place.
fn left_out_of(file: &File, bytes: u64) -> io::Result<u64> {
    const DIGITS_MAX: u32 = 20;
    for digits in 1..=DIGITS_MAX {
        let smallest = 10_u64.pow(digits - 1);
        let note = left_out_note(smallest).len();
        let Some(kept) = bytes.checked_sub(note as u64) else { break };
        let mut found = vec![0; note];
        file.read_exact_at(&mut found, kept / 2)?;
        let number = String::from_utf8(found).ok();
        let number = number.and_then(|note| note.split(' ').nth(3)?.parse().ok().filter(|n| left_out_note(*n) == note));
        if let Some(left_out) = number {
            return Ok(left_out);
        }
    }
    Ok(0)
}

/// What stands in the place of what was left out.
fn left_out_note(left_out: u64) -> String {
    format!("\n[queuectl left out {left_out} bytes here: see output-limit]\n")
}

/// Where in the kept file of an output to go on for somebody who has read its first `read` bytes as it was written.
/// `kept` is the size of that file. What was left out meanwhile begins with the note about it.
pub fn resume_at(read: u64, kept: u64, left_out: u64) -> u64 {
    if left_out == 0 {
        return read.min(kept);
    }
    let note = left_out_note(left_out).len() as u64;
    let both = kept.saturating_sub(note);
    let (head, tail) = (both / 2, both - both / 2);
    let tail_began = head + left_out;
    match read {
        read if read <= head => read,
        read if read >= tail_began => (head + note + (read - tail_began)).min(head + note + tail),
        _ => head,
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;

    const LIMIT: u64 = 64 * 1024;

    fn bench() -> (TempDir, PoolId, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let pool: PoolId = "a1".parse().unwrap();
        make_spool_folder(dir.path(), &pool).unwrap();
        let spool = Spool::of(dir.path(), &pool, 3);
        (dir, pool, spool)
    }

    fn collect(dir: &TempDir, spool: &Spool) -> (Kept, Kept) {
        spool.collect(dir.path(), Seq(1_234), 2, LIMIT).unwrap()
    }

    fn own_file(dir: &TempDir) -> Vec<u8> {
        fs::read(dir.path().join("output/1/1234.2.out")).unwrap()
    }

    #[test]
    fn small_outputs_are_brought_and_none_leaves_nothing() {
        let (dir, _, spool) = bench();
        assert_eq!(collect(&dir, &spool), (Kept::Empty, Kept::Empty));
        spool.open_ends().unwrap().stderr.write_all(b"oh").unwrap();
        assert_eq!(collect(&dir, &spool), (Kept::Empty, Kept::Inline(b"oh".to_vec())));
        assert!(!dir.path().join("output/1").exists());
        drop(spool.open_ends().unwrap());
        assert_eq!(collect(&dir, &spool), (Kept::Empty, Kept::Empty), "the next run gets them empty");
    }

    #[test]
    fn a_large_output_becomes_a_file_of_its_own() {
        let (dir, _, spool) = bench();
        spool.open_ends().unwrap().stdout.write_all(&[b'x'; 5_000]).unwrap();
        assert_eq!(collect(&dir, &spool).0, Kept::File { bytes: 5_000, left_out: 0 });
        spool.open_ends().unwrap().stdout.write_all(b"next").unwrap();
        assert_eq!(own_file(&dir), [b'x'; 5_000], "the next run has another");
    }

    #[test]
    fn beyond_the_limit_head_and_tail_are_kept() {
        let (dir, _, spool) = bench();
        let written: Vec<u8> = (0..10 * LIMIT).map(|n| b'a' + u8::try_from(n * 26 / (10 * LIMIT)).unwrap()).collect();
        spool.open_ends().unwrap().stdout.write_all(&written).unwrap();
        spool.begin(Duration::ZERO);
        let blocks = || fs::metadata(&spool.streams[0].path).unwrap().blocks();
        let before = blocks();
        let again = spool.look(LIMIT, Duration::from_millis(100));
        assert_eq!(again, LOOK_AGAIN_MIN, "it grew by ten limits in 100 ms");
        let after = blocks();
        assert!(after * 4 < before, "the middle was given back: {before} → {after} blocks");
        let Kept::File { bytes, left_out } = collect(&dir, &spool).0 else { panic!("is large") };
        let kept = own_file(&dir);
        assert_eq!((left_out, bytes), (9 * LIMIT, kept.len() as u64));
        let half = usize::try_from(LIMIT / 2).unwrap();
        assert_eq!(kept[..half], written[..half]);
        assert_eq!(kept[kept.len() - half..], written[written.len() - half..]);
        assert!(String::from_utf8_lossy(&kept).contains("left out 589824 bytes"));
        assert!(!spool.streams[0].path.exists(), "its room is given back");
    }

    #[test]
    fn whoever_read_a_part_goes_on_where_it_stands_in_what_is_kept() {
        let note = left_out_note(900).len() as u64;
        let at = |read| resume_at(read, 100 + note, 900);
        assert_eq!([at(0), at(49), at(50)], [0, 49, 50]);
        assert_eq!([at(51), at(949)], [50, 50], "the note, and what is kept after it");
        assert_eq!([at(950), at(999), at(1_000), at(9_999)], [50 + note, 99 + note, 100 + note, 100 + note]);
        assert_eq!([resume_at(7, 10, 0), resume_at(70, 10, 0)], [7, 10]);
    }

    #[test]
    fn files_that_something_still_writes_to_are_not_used_again() {
        let (dir, _, spool) = bench();
        let mut left_behind = spool.open_ends().unwrap();
        drop(spool.open_ends().unwrap());
        left_behind.stdout.write_all(b"from long ago").unwrap();
        assert_eq!(collect(&dir, &spool), (Kept::Empty, Kept::Empty));
        drop(left_behind);

        let inode = || fs::metadata(&spool.streams[1].path).unwrap().ino();
        let before = inode();
        let reader = File::open(&spool.streams[1].path).unwrap();
        drop(spool.open_ends().unwrap());
        assert_ne!(inode(), before, "somebody reads it");
        drop(reader);
    }

    #[test]
    fn what_a_dead_pool_left_is_collected_wherever_it_had_come_to() {
        let (dir, pool, spool) = bench();
        let left = || collect_left(dir.path(), &pool, 3, Seq(1_234), 2, LIMIT).unwrap();
        assert_eq!(left(), (Kept::Empty, Kept::Empty));
        let mut ends = spool.open_ends().unwrap();
        ends.stdout.write_all(&[b'x'; 5_000]).unwrap();
        ends.stderr.write_all(b"e").unwrap();
        let expected = (Kept::File { bytes: 5_000, left_out: 0 }, Kept::Inline(b"e".to_vec()));
        assert_eq!(left(), expected);
        // As a pool does that is killed right after.
        fs::remove_file(dir.path().join("output/1/1234.2.out")).unwrap();
        spool.streams[0].collect(&output_path(dir.path(), Seq(1_234), 2, Stream::Stdout), LIMIT).unwrap();
        assert!(!spool.streams[0].path.exists());
        assert_eq!(left(), expected);
    }

    /// Two pools may find the same dead one, and one of them may be killed over it.
    #[test]
    fn any_number_of_recoverers_find_the_same_and_disturb_none() {
        for (bytes, left_out) in [(4_001, 0), (LIMIT, 0), (LIMIT + 1, 1), (LIMIT + 123_456, 123_456)] {
            let (dir, pool, spool) = bench();
            let written: Vec<u8> = (0..bytes).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
            spool.open_ends().unwrap().stdout.write_all(&written).unwrap();
            let left = || collect_left(dir.path(), &pool, 3, Seq(1_234), 2, LIMIT);
            let found: Vec<_> = std::thread::scope(|scope| {
                let recoverers: Vec<_> = (0..8).map(|_| scope.spawn(left)).collect();
                recoverers.into_iter().map(|recoverer| recoverer.join().unwrap().unwrap().0).collect()
            });
            let kept = own_file(&dir);
            assert_eq!(found, vec![Kept::File { bytes: kept.len() as u64, left_out }; 8], "{bytes}");
            assert_eq!(fs::read(&spool.streams[0].path).unwrap(), written, "the others need it, too");
            // What they leave besides goes with the dead pool's folder.
            assert_eq!(fs::read_dir(dir.path().join("output/1")).unwrap().count(), 1);
            let limit = |text: &[u8]| text.len() == usize::try_from(LIMIT).unwrap();
            assert!(left_out > 0 || kept == written || limit(&kept));
        }
    }

    #[test]
    fn what_was_left_out_is_known_from_the_file_alone() {
        for left_out in [1, 9, 10, 99_999, 589_824] {
            let (dir, pool, spool) = bench();
            let mut end = spool.open_ends().unwrap().stdout;
            end.write_all(&vec![b'x'; usize::try_from(LIMIT + left_out).unwrap()]).unwrap();
            let by_its_pool = collect(&dir, &spool).0;
            let left = || collect_left(dir.path(), &pool, 3, Seq(1_234), 2, LIMIT).unwrap().0;
            assert_eq!(left(), by_its_pool, "it was killed before the commit");
            assert!(matches!(by_its_pool, Kept::File { left_out: found, .. } if found == left_out));
        }
    }
}
