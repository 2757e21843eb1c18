//! Queues that are libraries over `SQLite`, each with a script that measures it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::Result;
use super::super::args::Args;
use super::super::process::{find, program, text};

/// A library.
pub struct Described {
    pub name: &'static str,
    /// What runs its script.
    program: &'static str,
    /// What has to be there in the folder of peers.
    needs: &'static str,
    script: &'static str,
    /// What it does with a batch.
    batches: &'static str,
}

pub const ALL: [Described; 2] = [
    Described {
        name: "plainjob",
        program: "node",
        needs: "node_modules/plainjob",
        script: "plainjob.mjs",
        batches: "addMany, then getAndMarkJobAsProcessing and markJobAsDone one at a time",
    },
    Described {
        name: "litequeue",
        program: "python3",
        needs: "python/litequeue.py",
        script: "litequeue.py",
        batches: "put and done within transaction(), pop one at a time",
    },
];

/// A library that is there.
pub struct Library<'a> {
    described: &'a Described,
    program: PathBuf,
    peers: &'a Path,
}

/// Where a script is.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

impl Described {
    pub fn ready<'a>(&'a self, args: &'a Args) -> Option<Library<'a>> {
        if args.no_peers || !args.peers.join(self.needs).exists() {
            return None;
        }
        Some(Library { described: self, program: find(self.program, &[])?, peers: &args.peers })
    }

    pub fn version(&self, args: &Args) -> Option<String> {
        let found = self.ready(args)?;
        match std::fs::read_to_string(found.peers.join(self.needs).join("package.json")) {
            Ok(text) => Some(serde_json::from_str::<Value>(&text).ok()?["version"].as_str()?.to_owned()),
            Err(_) => wheel_version(found.peers, self.needs),
        }
    }
}

impl Library<'_> {
    pub fn name(&self) -> &'static str {
        self.described.name
    }

    pub fn how(&self, batch: usize) -> String {
        let calls = if batch == 1 { "one call a job and step" } else { self.described.batches };
        format!("`benches/peers/{}`, SQLite FULL, {calls}", self.described.script)
    }

    /// Jobs/s from enqueue to finish.
    pub fn rate(&self, folder: &Path, jobs: usize, batch: usize) -> Result<f64> {
        let mut command = program(&self.program, folder);
        command.arg(script(self.described.script)).arg(self.peers).arg(folder.join("queue.db"));
        Ok(text(command.arg(jobs.to_string()).arg(batch.to_string()))?.trim().parse()?)
    }
}

/// The version of what a wheel brought: its folder says it.
pub fn wheel_version(peers: &Path, needs: &str) -> Option<String> {
    let name = Path::new(needs).file_stem()?.to_str()?;
    let folders = std::fs::read_dir(peers.join("python")).ok()?;
    folders.flatten().find_map(|entry| {
        let folder = entry.file_name().into_string().ok()?;
        let version = folder.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".dist-info")?;
        Some(version.to_owned())
    })
}
