//! `HyperQueue`, as its wheel on `PyPI` brings it.

use std::time::Duration;

use super::super::Result;
use super::super::process::{program, text};
use super::libraries::script;
use super::{Given, Peer};

pub const HYPERQUEUE: Peer = Peer {
    name: "HyperQueue",
    program: "python3",
    needs: Some("python/hyperqueue"),
    slower: 1,
    how: "`benches/peers/hyperqueue.py`: a server and a worker of 2 in one process, all jobs in one submit",
    run,
};

fn run(given: &Given) -> Result<Duration> {
    let mut command = program(&given.program, given.folder);
    command.arg(script("hyperqueue.py")).arg(&given.args.peers).arg(given.folder);
    let printed = text(command.arg(given.jobs.to_string()).arg("2"))?;
    // It prints a table first.
    Ok(Duration::from_secs_f64(printed.lines().last().unwrap_or_default().trim().parse()?))
}
