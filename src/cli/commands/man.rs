//! `man`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::super::context::stdout;
use super::super::exit::{Exit, Failure};
use super::super::manual;
use super::super::render::human;

pub(crate) fn man(folder: Option<&Path>) -> Result<Exit, Failure> {
    let mut out = stdout();
    match folder {
        None => out.write_all(manual::page()?.text.as_bytes())?,
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
