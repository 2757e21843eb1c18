//! Starting programs, timing them, ending them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Result;

/// What a measured program finds in its environment. Cargo's own variables would slow each exec: among them is a list
/// of folders where the loader looks first.
const VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "USER"];

/// A program in `folder`, with a small environment and nothing on its three streams.
pub fn program(name: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(name);
    command.current_dir(folder).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// How long a program takes from its start to its end, which has to be a good one.
pub fn timed(command: &mut Command) -> Result<Duration> {
    command.stderr(Stdio::piped());
    let began = Instant::now();
    let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let done = child.wait_with_output()?;
    let took = began.elapsed();
    if done.status.success() {
        return Ok(took);
    }
    Err(format!("{command:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr)).into())
}

/// What a program prints.
pub fn text(command: &mut Command) -> Result<String> {
    let done = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let done = done.map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr)).into())
}

/// The first line of what a program prints, if it can be started.
pub fn first_line(command: &mut Command) -> Option<String> {
    let done = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().ok()?;
    let text = if done.stdout.is_empty() { done.stderr } else { done.stdout };
    String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
}

/// Where a program is: in one of `folders`, else in `$PATH`.
pub fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.iter().chain(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A process in the background, killed when dropped.
#[derive(Debug)]
pub struct Background(pub Child);

impl Background {
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().map_err(|error| format!("{command:?}: {error}"))?))
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGTERM)?;
        self.0.wait()?;
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    /// The most memory that it has had so far, in MiB; `None` when it has ended.
    pub fn peak_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        Some(field(&status, "VmHWM:")? / 1024.0)
    }

    /// How often its threads have gone to sleep or were sent there.
    pub fn switches(&self) -> Result<f64> {
        let mut sum = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            sum += field(&status, "voluntary_ctxt_switches:").ok_or("no count of context switches")?;
        }
        Ok(sum)
    }
}

/// The number behind a name in `/proc`.
pub fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
