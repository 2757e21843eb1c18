//! `enqueue` or `run` with the words of a command where it takes one text: what was meant can be said.

use std::ffi::OsString;
use std::path::Path;

use clap::{ArgAction, CommandFactory};

use super::args::Cli;
use super::commands::status::shell_word;
use super::exit::{Exit, Failure};
use crate::model::Command;

/// The error of a line that clap does not take, if it is `enqueue` or `run` with a command that is neither quoted nor after
/// `--`.
pub(super) fn command(typed: &[OsString]) -> Option<Failure> {
    let typed: Vec<&str> = typed.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let mut cli = Cli::command();
    cli.build();
    let is_value = |at: usize| at > 0 && matches!(typed[at - 1], "--db" | "--color");
    let at = (0..typed.len()).find(|at| matches!(typed[*at], "enqueue" | "run") && !is_value(*at))?;
    let (before, rest) = typed.split_at(at + 1);
    let (flags, words) = sort(cli.find_subcommand(typed[at])?, rest)?;
    let is_json = words.iter().any(|word| word.starts_with("{\"")) || words.first() == Some(&"-");
    let is_run = typed[at] == "run";
    let is_flag = words.first().is_some_and(|word| word.starts_with('-'));
    if words.len() < 2 || is_flag || is_json || is_run && words.first().is_some_and(|file| Path::new(file).is_file()) {
        return None;
    }
    let quoted =
        |words: &[&str]| Command::Argv(words.iter().map(|word| word.as_bytes().to_vec()).collect()).to_string();
    let line = quoted(&[&["queuectl"], before, &flags[..]].concat());
    let words = quoted(&words);
    if is_run {
        let message = "`run` takes a file of commands, or one command after --";
        return Some(Failure::new(Exit::Usage, message).next(format_args!("{line} -- {words}")));
    }
    let message = "a command of several words is one text for the shell in quotes, or comes after --";
    let failure = Failure::new(Exit::Usage, message).next(format_args!("{line} -c {}", shell_word(&words)));
    Some(failure.or(format_args!("{line} -- {words}")))
}

/// Tells the flags of the verb, with their values, from the words of the command. `None` if that was not the mistake: if
/// the command is marked as one, or jobs are in a file. Behind the first word short flags are the command's.
fn sort<'a>(verb: &clap::Command, typed: &[&'a str]) -> Option<(Vec<&'a str>, Vec<&'a str>)> {
    let (mut flags, mut words) = (Vec::new(), Vec::new());
    let mut left = typed.iter().copied();
    while let Some(word) = left.next() {
        if matches!(word, "--" | "--file") || word.starts_with("--file=") {
            return None;
        }
        if words.is_empty() && (word == "-c" || word == "--command") {
            continue;
        }
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        let is_it = |arg: &&clap::Arg| match name.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => words.is_empty() && arg.get_short().is_some_and(|short| name == format!("-{short}")),
        };
        match verb.get_arguments().find(is_it) {
            None => words.push(word),
            Some(flag) => {
                flags.push(word);
                let takes_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
                if takes_value && name == word {
                    flags.extend(left.next());
                }
            }
        }
    }
    Some((flags, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_said_with_the_words_that_were_typed() {
        for (typed, lines) in [
            ("enqueue echo hi", Some(["enqueue -c 'echo hi'", "enqueue -- echo hi"])),
            ("enqueue -c echo hi", Some(["enqueue -c 'echo hi'", "enqueue -- echo hi"])),
            ("enqueue ls -l -q", Some(["enqueue -c 'ls -l -q'", "enqueue -- ls -l -q"])),
            (
                "--db q enqueue --priority 5 make -j2 --name=n all",
                Some([
                    "--db q enqueue --priority 5 --name=n -c 'make -j2 all'",
                    "--db q enqueue --priority 5 --name=n -- make -j2 all",
                ]),
            ),
            ("enqueue -q --json echo hi", Some(["enqueue -q --json -c 'echo hi'", "enqueue -q --json -- echo hi"])),
            ("enqueue {\"command\":\"a\"} b", None),
            ("enqueue a -- b", None),
            ("enqueue --file a b", None),
            ("enqueue - a", None),
            ("enqueue --nonsense", None),
            ("list a b", None),
            ("enqueue sh -c x", Some(["enqueue -c 'sh -c x'", "enqueue -- sh -c x"])),
            (
                "--db enqueue enqueue echo hi",
                Some(["--db enqueue enqueue -c 'echo hi'", "--db enqueue enqueue -- echo hi"]),
            ),
        ] {
            let words: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
            let said = command(&words).map(|failure| failure.next);
            assert_eq!(said, lines.map(|lines| lines.map(|line| format!("queuectl {line}")).to_vec()), "{typed}");
        }
        let run = command(&["run", "-j", "2", "echo", "hi"].map(OsString::from)).unwrap();
        assert_eq!(run.next, ["queuectl run -j 2 -- echo hi"]);
        assert!(command(&["run", "Cargo.toml", "more"].map(OsString::from)).is_none(), "that is a file");
        let spaces = command(&["enqueue", "echo", "a b"].map(OsString::from)).unwrap();
        assert_eq!(spaces.next, [r"queuectl enqueue -c 'echo '\''a b'\'''", "queuectl enqueue -- echo 'a b'"]);
    }
}
