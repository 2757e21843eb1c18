//! Manual pages, made from what `--help` shows.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::{Cli, GROUPED_HELP};

/// The manual's section of commands.
const SECTION: &str = "1";

/// A page.
pub(super) struct Page {
    /// The name of its file.
    pub file: String,
    /// In the markup of `man`.
    pub text: String,
}

/// The page of queuectl itself.
pub(super) fn page() -> io::Result<Page> {
    page_of(&program())
}

/// The pages of queuectl itself and of each command.
pub(super) fn pages() -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    gather(&program(), &mut pages)?;
    Ok(pages)
}

fn program() -> Command {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    program
}

fn gather(command: &Command, pages: &mut Vec<Page>) -> io::Result<()> {
    pages.push(page_of(command)?);
    shown(command).try_for_each(|command| gather(command, pages))
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn page_of(command: &Command) -> io::Result<Page> {
    // As `--help` has it, with the names of values, too.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let man = Man::new(told_once(command).override_usage(usage))
        .section(SECTION)
        .source(concat!("queuectl ", env!("CARGO_PKG_VERSION")))
        .manual("queuectl");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let is_program = command.get_name() == name(command);
    if is_program {
        let (groups, rest) = parts_of_help();
        written(&mut text, |roff| commands(roff, groups))?;
        man.render_options_section(&mut text)?;
        written(&mut text, |roff| rest.split("\n\n").for_each(|paragraph| extra(roff, paragraph)))?;
    } else {
        man.render_options_section(&mut text)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut text)?;
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        written(&mut text, |roff| extra(roff, &after))?;
    }
    written(&mut text, |roff| see_also(roff, command))?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Ok(Page { file: man.get_filename(), text })
}

/// The command without what a page would say twice: the first paragraph of its description, which is its name's, and
/// the few values of an option, which need no list. What all commands take comes last.
fn told_once(command: &Command) -> Command {
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let command = command.clone().mut_args(|arg| {
        let arg = if arg.is_global_set() { arg.display_order(usize::MAX) } else { arg };
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let is_option = arg.get_action().takes_values() && !arg.is_positional();
        match arg.get_help() {
            Some(help) if is_option && !values.is_empty() => {
                let help = format!("{help}: {}", values.join(", "));
                arg.help(help).hide_possible_values(true)
            }
            _ => arg,
        }
    });
    match long.split_once("\n\n") {
        Some((_, rest)) => command.long_about(rest.to_owned()),
        None => command,
    }
}

/// Words joined by hyphens, as in `queuectl-worker-start`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// What the first help says of the commands, and what follows the options.
fn parts_of_help() -> (&'static str, &'static str) {
    let (_, help) = GROUPED_HELP.split_once("{usage}").unwrap_or_default();
    help.split_once("{options}").unwrap_or_default()
}

fn written(text: &mut Vec<u8>, write: impl FnOnce(&mut Roff)) -> io::Result<()> {
    let mut roff = Roff::default();
    write(&mut roff);
    roff.to_writer(text)
}

/// The commands by what they are for: titles, and below each the names with a word about each.
fn commands(roff: &mut Roff, groups: &str) {
    roff.control("SH", ["COMMANDS"]);
    for line in groups.lines().filter(|line| !line.is_empty()) {
        match line.trim_start().split_once(' ').filter(|_| line.starts_with(' ')) {
            Some((command, about)) => {
                roff.control("TP", []);
                roff.text([bold(format!("queuectl-{command}")), roman(format!("({SECTION})"))]);
                roff.text([roman(about.trim_start())]);
            }
            None => drop(roff.control("SS", [line.trim_end_matches(':')])),
        }
    }
}

/// A paragraph of a help behind its options: examples as they are, exit codes as text.
fn extra(roff: &mut Roff, paragraph: &str) {
    let paragraph = paragraph.trim_matches('\n');
    if let Some(codes) = paragraph.strip_prefix("Exit codes:") {
        roff.control("SH", ["EXIT STATUS"]);
        roff.text([roman(codes.split_whitespace().collect::<Vec<_>>().join(" "))]);
        return;
    }
    let Some((_, examples)) = paragraph.split_once(":\n") else { return };
    roff.control("SH", ["EXAMPLES"]);
    roff.control("EX", []);
    for line in examples.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("EE", []);
}

/// The page above, and those beside it.
fn see_also(roff: &mut Roff, command: &Command) {
    let above = name(command).rsplit_once('-').map(|(above, _)| above.to_owned());
    let below = shown(command).map(|command| name(command).to_owned());
    let names: Vec<String> = above.into_iter().chain(below).map(|name| format!("{name}({SECTION})")).collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(names.join(", "))]);
}
