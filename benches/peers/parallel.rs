//! GNU parallel with a job log, which it needs to go on after a crash.

use std::fs::File;
use std::time::Duration;

use super::super::Result;
use super::super::process::{program, timed};
use super::{Given, Peer};

pub const PARALLEL: Peer = Peer {
    name: "GNU parallel",
    program: "parallel",
    needs: None,
    slower: 5,
    how: "`parallel -j2 --joblog log < jobs.txt`",
    run,
};

fn run(given: &Given) -> Result<Duration> {
    let mut command = program(&given.program, given.folder);
    // Its home holds what it remembers and its notice about citations; its temporary files are outputs.
    command.env("HOME", given.folder).env("TMPDIR", given.folder);
    timed(command.args(["--will-cite", "-j2", "--joblog", "log"]).stdin(File::open(given.commands)?))
}
