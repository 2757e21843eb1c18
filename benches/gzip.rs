//! A real batch: real files are compressed.

use std::fs;
use std::path::{Path, PathBuf};

use super::Result;
use super::args::Args;
use super::batch::{XARGS, xargs};
use super::peers::PARALLEL;
use super::report::{Bar, Report, Row, count};
use super::room::Room;
use super::statistics::Pairs;

/// Where the files are from.
const SOURCE: &str = "/usr/share";
/// Larger ones are left out, so that none is a batch of its own.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let files = chosen(args.size(2_000, 20))?;
    let ours = || {
        let room = Room::new(args)?;
        let list = copied(&room, &files)?;
        room.run(2, &list, files.len()).and_then(|rate| compressed(&room, files.len(), rate))
    };
    let theirs = || {
        let room = Room::new(args)?;
        xargs(2, &room, &copied(&room, &files)?, files.len()).and_then(|rate| compressed(&room, files.len(), rate))
    };
    let what = format!("`gzip` of {} files of {SOURCE}, 2 workers", count(files.len()));
    let how = "`queuectl run -j 2 --quiet jobs.txt`, lines `gzip files/1`";
    let pairs = Pairs::take(args.pairs(), ours, theirs)?;
    let row = Row::ratio(format!("{what}, against xargs"), &pairs, "files/s").bar(Bar::AtLeast(0.98));
    report.row(row.how(format!("{how}; `{} < jobs.txt`", XARGS.replace("{workers}", "2"))));
    if args.no_peers || PARALLEL.find(args).is_none() {
        report.skip("GNU parallel is not installed, or left out");
        return Ok(());
    }
    let theirs = || {
        let room = Room::new(args)?;
        let rate = PARALLEL.rate(args, &room, &copied(&room, &files)?, files.len())?;
        compressed(&room, files.len(), rate)
    };
    let pairs = Pairs::take(args.pairs(), ours, theirs)?;
    let row = Row::ratio(format!("{what}, against GNU parallel"), &pairs, "files/s").bar(Bar::AtLeast(1.0));
    report.row(row.how(format!("{how}; {}", PARALLEL.how)));
    Ok(())
}

/// So many files, spread evenly over the source.
fn chosen(count: usize) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    gather(Path::new(SOURCE), &mut all);
    all.sort_unstable();
    if all.len() < count {
        return Err(format!("there are only {} files in {SOURCE}", all.len()).into());
    }
    Ok((0..count).map(|n| all[n * all.len() / count].clone()).collect())
}

fn gather(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
        if metadata.is_dir() {
            gather(&path, all);
        } else if metadata.is_file() && (1..=BYTES_MAX).contains(&metadata.len()) && !is_compressed {
            all.push(path);
        }
    }
}

/// Copies of the files, and the list of commands that compress them.
fn copied(room: &Room, files: &[PathBuf]) -> Result<PathBuf> {
    fs::create_dir(room.path().join("files"))?;
    for (n, file) in files.iter().enumerate() {
        fs::write(room.path().join(format!("files/{n}")), fs::read(file)?)?;
    }
    // What the copies have left to write is not for the batch to wait for.
    rustix::fs::sync();
    room.lines("jobs.txt", (0..files.len()).map(|n| format!("gzip files/{n}")))
}

/// `rate`, if every file was compressed.
fn compressed(room: &Room, count: usize, rate: f64) -> Result<f64> {
    let missing = (0..count).find(|n| !room.path().join(format!("files/{n}.gz")).is_file());
    missing.map_or(Ok(rate), |n| Err(format!("file {n} was not compressed").into()))
}
