//! Where this was measured.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Result;
use super::args::Args;
use super::peers;
use super::process::{field, first_line, program, text};
use super::report::number;
use super::room::{Room, ms};
use super::statistics::{median, quantile};

/// What is told above the figures.
#[derive(Debug)]
pub struct Machine {
    /// Names and values, in order.
    pub facts: Vec<(String, String)>,
}

/// Above this, figures are doubtful.
const BUSY_MAX: f64 = 0.05;

/// Says how busy others keep the machine, if they do.
pub fn trouble() -> Result<Option<String>> {
    let busy = busy(Duration::from_secs(1))?;
    let told = || format!("others used {} % of the processors just before", number(busy * 100.0));
    Ok((busy > BUSY_MAX).then(told))
}

/// Looks at the machine and the disk under `args.folder`.
pub fn look(args: &Args) -> Result<Machine> {
    let room = Room::new(args)?;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    fact("processor", model.unwrap_or("unknown").to_owned());
    fact("cores", std::thread::available_parallelism()?.to_string());
    let gib = field(&memory, "MemTotal:").unwrap_or(f64::NAN) / 1024.0 / 1024.0;
    fact("memory", format!("{} GiB", number(gib)));
    fact("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned());
    fact("folder", args.folder.display().to_string());
    fact("file system", file_system(&room));
    fact("fdatasync of 4 KiB", fdatasync(&room)?);
    let load = read("/proc/loadavg");
    fact("load average", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    let mut version = |name: &str, line: Option<String>| {
        fact(name, line.map_or_else(|| "not there".to_owned(), |line| line.trim().to_owned()));
    };
    version("queuectl", first_line(room.queuectl("").arg("--version")));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    version("commit", text(program("git", source).args(["describe", "--always", "--dirty"])).ok());
    version("rustc", first_line(program("rustc", source).arg("--version")));
    version("gzip", first_line(program("gzip", source).arg("--version")));
    version("xargs", first_line(program("xargs", room.path()).arg("--version")));
    if !args.no_peers {
        for (name, line) in peers::versions(args, room.path()) {
            version(name, line);
        }
    }
    Ok(Machine { facts })
}

/// The share of the processors that is in use while nothing is done here.
fn busy(during: Duration) -> Result<f64> {
    let idle_and_all = || -> Result<(f64, f64)> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        Ok((ticks.iter().skip(3).take(2).sum(), ticks.iter().take(8).sum()))
    };
    let before = idle_and_all()?;
    std::thread::sleep(during);
    let after = idle_and_all()?;
    Ok(1.0 - (after.0 - before.0) / (after.1 - before.1).max(1.0))
}

/// The type of the file system that a folder is on, and its device.
fn file_system(room: &Room) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut best = (0, "unknown".to_owned());
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        if room.path().starts_with(point) && point.len() >= best.0 {
            best = (point.len(), right.split(' ').take(2).collect::<Vec<_>>().join(" on "));
        }
    }
    best.1
}

fn fdatasync(room: &Room) -> Result<String> {
    let file = fs::File::create(room.path().join("page"))?;
    let mut times = Vec::new();
    for n in 0..100_u8 {
        file.write_all_at(&[n; 4096], 0)?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(ms(began.elapsed()));
    }
    Ok(format!("{} ms, 99 % within {} ms", number(median(&times)), number(quantile(&times, 0.99))))
}

impl Machine {
    /// What stands above a table.
    pub fn sentence(&self) -> String {
        let facts: Vec<String> = self.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{}.", facts.join("; "))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.facts {
            writeln!(f, "{name:<20} {value}")?;
        }
        Ok(())
    }
}
