//! `completions`.

use std::io::Write;

use super::super::args::Shell;
use super::super::complete;
use super::super::context::stdout;
use super::super::exit::{Exit, Failure};

pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut out = stdout();
    complete::write_script(shell, &mut out)?;
    out.flush()?;
    Ok(Exit::Done)
}
