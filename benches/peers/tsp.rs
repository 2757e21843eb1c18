//! task-spooler, which Debian calls `tsp`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::Result;
use super::super::args::Args;
use super::super::process::{program, text, timed};
use super::{Given, Peer};

pub const TSP: Peer = Peer {
    name: "task-spooler",
    program: "tsp",
    needs: None,
    slower: 1,
    how: "`tsp -S 2`, `tsp true` for each job, `tsp -w`",
    run,
};

/// Its server, ended when dropped.
#[derive(Debug)]
pub struct Tsp {
    program: PathBuf,
    /// Its socket is here, since the name of a socket is short.
    socket: TempDir,
    folder: PathBuf,
}

impl Tsp {
    /// Starts a server, if it is installed.
    pub fn start(args: &Args, folder: &Path, slots: usize) -> Result<Option<Self>> {
        TSP.find(args).map(|program| Self::with(program, folder, slots)).transpose()
    }

    fn with(program: PathBuf, folder: &Path, slots: usize) -> Result<Self> {
        let server = Self { program, socket: TempDir::new()?, folder: folder.to_owned() };
        text(server.command(folder).arg("-S").arg(slots.to_string()))?;
        Ok(server)
    }

    /// Its client.
    pub fn command(&self, folder: &Path) -> Command {
        self.configured(program(&self.program, folder))
    }

    fn configured(&self, mut command: Command) -> Command {
        command.env("TS_SOCKET", self.socket.path().join("socket")).env("TMPDIR", &self.folder);
        command
    }

    /// Has its server of one slot collect jobs, and work at two at a time from now on.
    pub fn work_flat_out(&self, folder: &Path, jobs: usize) -> Result<()> {
        text(self.command(folder).args(["sleep", "600"]))?;
        self.submit(folder, jobs)?;
        text(self.command(folder).args(["-S", "2"]))?;
        text(self.command(folder).args(["-k", "0"]))?;
        Ok(())
    }

    fn submit(&self, folder: &Path, jobs: usize) -> Result<()> {
        timed(&mut self.configured(repeated(&self.program, &["true"], jobs, folder)))?;
        Ok(())
    }
}

/// A shell that runs a command so many times, one after another.
pub fn repeated(found: &Path, words: &[&str], times: usize, folder: &Path) -> Command {
    let mut shell = program("sh", folder);
    let script = format!(r#"i=0; while [ $i -lt {times} ]; do "$0" "$@" || exit; i=$((i+1)); done"#);
    shell.arg("-c").arg(script).arg(found).args(words);
    shell
}

impl Drop for Tsp {
    fn drop(&mut self) {
        let _ = self.command(&self.folder).arg("-K").status();
    }
}

fn run(given: &Given) -> Result<Duration> {
    let server = Tsp::with(given.program.clone(), given.folder, 2)?;
    let began = Instant::now();
    server.submit(given.folder, given.jobs)?;
    text(server.command(given.folder).arg("-w"))?;
    Ok(began.elapsed())
}
