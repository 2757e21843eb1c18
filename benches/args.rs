//! What can be asked for.

use std::path::PathBuf;

use clap::Parser;

/// Measures queuectl. Figures need a quiet machine; a warning says when it is not.
#[allow(clippy::struct_excessive_bools, reason = "flags are what they are")]
#[derive(Debug, Parser)]
#[command(name = "cargo bench --")]
pub struct Args {
    /// Which benchmarks [default: all]
    #[arg(value_name = "NAME", value_parser = name)]
    names: Vec<String>,
    /// Name the benchmarks and end
    #[arg(long)]
    pub list: bool,
    /// Small sizes, once each: shows that all benchmarks work, and nothing else
    #[arg(long)]
    pub quick: bool,
    /// With ten million jobs waiting, too: needs 10 GiB of disk and many minutes
    #[arg(long)]
    pub huge: bool,
    /// Leave other programs out, but xargs
    #[arg(long)]
    pub no_peers: bool,
    /// How many pairs are measured where two things are compared [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Where to work: the disk that is measured
    #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub folder: PathBuf,
    /// Where `benches/peers/install` put programs
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/../peers"))]
    pub peers: PathBuf,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a Markdown table
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn name(text: &str) -> Result<String, String> {
    let known = super::ALL.iter().any(|benchmark| benchmark.name == text);
    known.then(|| text.to_owned()).ok_or_else(|| "there is no such benchmark; --list names them".to_owned())
}

impl Args {
    /// What the command line says.
    pub fn read() -> Self {
        let mut args = Self::parse();
        // Programs are started in other folders.
        for path in [&mut args.folder, &mut args.peers] {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        }
        args
    }

    /// Whether a benchmark was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }

    /// A size: the real one, or that of `--quick`.
    pub fn size(&self, real: usize, quick: usize) -> usize {
        if self.quick { quick } else { real }
    }

    /// How many pairs are measured.
    pub fn pairs(&self) -> usize {
        self.pairs.map_or(self.size(5, 1), usize::from)
    }
}
