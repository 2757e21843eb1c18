//! `man`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use super::super::args::Cli;
use super::super::context::stdout;
use super::super::exit::{Exit, Failure};
use super::super::manual;
use super::super::render::human;

pub(crate) fn man(folder: Option<&Path>) -> Result<Exit, Failure> {
    let mut out = stdout();
    match folder {
        None => out.write_all(manual::page()?.text.as_bytes())?,
        Some(folder) if !folder.exists() && is_command(folder) => {
            let name = human::path(folder);
            let message = format!("there is no folder {name} to write the pages into");
            return Err(Failure::new(Exit::Usage, message)
                .next(format_args!("queuectl {name} --help    tells of the command"))
                .or(format_args!("queuectl man ./{name}    if it is to be a folder")));
        }
        Some(folder) => {
            let pages = manual::pages()?;
            let cannot = |error: io::Error| Failure::of_writing(folder, &error);
            fs::create_dir_all(folder).map_err(cannot)?;
            for page in &pages {
                fs::write(folder.join(&page.file), &page.text).map_err(cannot)?;
            }
            writeln!(out, "✓ {} written to {}", human::count(pages.len() as u64, "page"), human::path(folder))?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Whether a folder has the name of a command: then its page was meant.
fn is_command(folder: &Path) -> bool {
    folder.to_str().is_some_and(|name| Cli::command().find_subcommand(name).is_some())
}
