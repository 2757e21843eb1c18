//! Small programs that are built on the way, from `benches/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Result;

/// The library that counts and slows what makes a disk durable.
fn syncs() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(library) = BUILT.get() {
        return Ok(library.clone());
    }
    let library = built("syncs", "cdylib", "libsyncs.so")?;
    Ok(BUILT.get_or_init(|| library).clone())
}

/// A job that tells when it began.
pub fn now() -> Result<PathBuf> {
    built("now", "bin", "now")
}

fn built(name: &str, kind: &str, product: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/tools").join(format!("{name}.rs"));
    let product = Path::new(env!("CARGO_TARGET_TMPDIR")).join(product);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", kind, "-O", "-o"]).args([&product, &source]);
    if command.status()?.success() { Ok(product) } else { Err(format!("{command:?} failed").into()) }
}

/// What a process asked the disk to make durable.
#[derive(Debug)]
pub struct Counts(PathBuf);

impl Counts {
    /// Counts what `command` does, once it runs; each call takes so much longer.
    pub fn of(command: &mut Command, folder: &Path, slow_ms: u64) -> Result<Self> {
        let file = folder.join("syncs");
        std::fs::write(&file, [0; 32])?;
        command.env("LD_PRELOAD", syncs()?).env("SYNCS_FILE", &file).env("SYNCS_SLOW_MS", slow_ms.to_string());
        Ok(Self(file))
    }

    /// How many calls there were, whichever.
    pub fn sum(&self) -> Result<f64> {
        let bytes = std::fs::read(&self.0)?;
        let counts = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        Ok(counts.sum::<u64>() as f64)
    }
}
