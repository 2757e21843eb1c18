//! Other programs that people use instead: each a small description of how it is started, given its jobs, waited for,
//! and ended. They find their sockets, queues and outputs in folders of their own, and keep what jobs write where they
//! do so by default, as queuectl does.
//!
//! `benches/peers/install` puts them into a folder. Those that are missing are skipped.

mod libraries;
mod nq;
mod parallel;
mod pueue;
mod tsp;
mod wheel;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Result;
use super::args::Args;
use super::process::{find, first_line, program};
use super::report::{Bar, Report, Row, count};
use super::room::Room;
use super::statistics::{Pairs, median};

pub use libraries::{ALL as LIBRARIES, Library};
pub use parallel::PARALLEL;
pub use tsp::Tsp;

/// A program that runs jobs.
pub struct Peer {
    name: &'static str,
    /// What has to be there.
    program: &'static str,
    /// Another thing that has to be there, in the folder of peers.
    needs: Option<&'static str>,
    /// It gets so many times fewer jobs, since it takes so much longer.
    slower: usize,
    /// What is done, in a line.
    pub how: &'static str,
    /// Runs so many jobs, those in a file of commands, two at a time. How long it took.
    run: fn(&Given) -> Result<Duration>,
}

/// What a peer works with.
pub struct Given<'a> {
    program: PathBuf,
    args: &'a Args,
    folder: &'a Path,
    /// A file of `jobs` commands.
    commands: &'a Path,
    jobs: usize,
}

const ALL: [&Peer; 5] = [&tsp::TSP, &nq::NQ, &PARALLEL, &pueue::PUEUE, &wheel::HYPERQUEUE];

impl Peer {
    /// Where it is, unless it is to be left out.
    pub fn find(&self, args: &Args) -> Option<PathBuf> {
        if args.no_peers || self.needs.is_some_and(|needs| !args.peers.join(needs).exists()) {
            return None;
        }
        find(self.program, &[args.peers.join("bin")])
    }

    /// Its jobs/s on a file of commands.
    pub fn rate(&self, args: &Args, room: &Room, commands: &Path, jobs: usize) -> Result<f64> {
        let program = self.find(args).ok_or_else(|| format!("{} is not installed", self.name))?;
        let took = (self.run)(&Given { program, args, folder: room.path(), commands, jobs })?;
        Ok(jobs as f64 / took.as_secs_f64())
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as all benchmarks")]
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    if args.no_peers {
        report.skip("--no-peers leaves them out");
        return Ok(());
    }
    let (mut best, jobs) = (None, args.size(5_000, 60));
    for peer in ALL {
        if peer.find(args).is_none() {
            report.skip(&format!("{} ({}) is not installed", peer.name, peer.needs.unwrap_or(peer.program)));
            continue;
        }
        let its_jobs = jobs / peer.slower;
        let room_with = |jobs: usize| -> Result<(Room, PathBuf)> {
            let room = Room::new(args)?;
            let file = room.lines("jobs.txt", std::iter::repeat_n("true", jobs))?;
            Ok((room, file))
        };
        let ours = || room_with(jobs).and_then(|(room, file)| room.run(2, &file, jobs));
        let theirs = || room_with(its_jobs).and_then(|(room, file)| peer.rate(args, &room, &file, its_jobs));
        let pairs = match Pairs::take(args.pairs(), ours, theirs) {
            Ok(pairs) => pairs,
            Err(error) => {
                report.failed(&format!("{}: {error}", peer.name).into());
                continue;
            }
        };
        let ratio = median(&pairs.ratios());
        if best.is_none_or(|(least, _)| ratio < least) {
            best = Some((ratio, peer.name));
        }
        let row =
            Row::ratio(format!("`run` of {} `true`, 2 workers, against {}", count(jobs), peer.name), &pairs, "jobs/s");
        report.row(row.how(format!("`queuectl run -j 2 --quiet jobs.txt`; {}, {} jobs", peer.how, count(its_jobs))));
    }
    if let Some((ratio, name)) = best {
        let row = Row::new(format!("the same against the best of them, {name}"), &[ratio], "×");
        report.row(row.bar(Bar::AtLeast(2.5)));
    }
    Ok(())
}

/// What each says that it is, if it is there.
pub fn versions(args: &Args, folder: &Path) -> Vec<(&'static str, Option<String>)> {
    let mut versions: Vec<_> = ALL.into_iter().map(|peer| (peer.name, peer.version(args, folder))).collect();
    versions.extend(LIBRARIES.iter().map(|library| (library.name, library.version(args))));
    versions
}

impl Peer {
    fn version(&self, args: &Args, folder: &Path) -> Option<String> {
        let found = self.find(args)?;
        if let Some(needs) = self.needs {
            return libraries::wheel_version(&args.peers, needs);
        }
        let flag = match self.program {
            "tsp" => "-V",
            // It tells no version; the package manager may.
            "nq" => return Some(packaged("nq").unwrap_or_else(|| "of unknown version".to_owned())),
            _ => "--version",
        };
        first_line(program(found, folder).arg(flag))
    }
}

fn packaged(name: &str) -> Option<String> {
    let mut ask = program("dpkg-query", Path::new("/"));
    first_line(ask.args(["-W", "-f", "${Package} ${Version}", name])).filter(|line| line.starts_with(name))
}
