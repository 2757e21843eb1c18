//! nq. It runs one job at a time, and each one looks at all earlier ones: many would take it unfairly long.

use std::time::{Duration, Instant};

use super::super::Result;
use super::super::process::{program, timed};
use super::tsp::repeated;
use super::{Given, Peer};

pub const NQ: Peer = Peer {
    name: "nq (one job at a time)",
    program: "nq",
    needs: None,
    slower: 20,
    how: "`nq -q true` for each job, `nq -w`",
    run,
};

fn run(given: &Given) -> Result<Duration> {
    let folder = given.folder.join("nq");
    let began = Instant::now();
    timed(repeated(&given.program, &["-q", "true"], given.jobs, given.folder).env("NQDIR", &folder))?;
    timed(program(&given.program, given.folder).arg("-w").env("NQDIR", &folder))?;
    Ok(began.elapsed())
}
