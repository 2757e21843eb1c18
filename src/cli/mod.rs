//! The command line: arguments become model values, those go to the store or a pool, and what comes back
//! is shown. The only place that prints.

mod args;
mod bar;
mod bytes;
mod columns;
mod commands;
mod complete;
mod confirm;
mod context;
mod deferred;
mod detach;
mod discover;
mod exit;
mod filters;
mod holder;
pub(crate) mod input;
mod interchange;
mod journal;
mod local;
mod manual;
mod render;
mod reporter;
mod selected;
mod stop;
mod tail;
mod terminal;
mod unquoted;
mod why;

use std::io::Write;
use std::panic;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use args::{Cli, Color, Command, Config, Dlq, Worker};
use commands::{
    ask, attach, backup, check, clean, compact, completions, config, edit, enqueue, export, import, list, logs, man,
    pause, run, service, show, signal, status, wait, worker,
};
use context::Context;
use deferred::Deferred;
use exit::{Exit, Failure};

/// Runs what the process's arguments ask for.
pub fn run() -> ExitCode {
    crate::worker::survive_file_limit();
    if let Some(exit) = complete::answer() {
        return exit.into();
    }
    quiet_about_damage();
    let cli = Cli::try_parse().unwrap_or_else(|error| usage(error));
    match cli.global.color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    if let Some(db) = &cli.global.db {
        exit::note_db(db);
    }
    let changes = changes(&cli.command);
    let exit = dispatch(cli).unwrap_or_else(|failure| {
        let failure = if changes { failure.after("it is done") } else { failure };
        tell(&failure)
    });
    exit.into()
}

/// Ends with what clap has to say. Its errors repeat what was typed.
fn usage(mut error: clap::Error) -> ! {
    let typed: Vec<_> = std::env::args_os().skip(1).collect();
    if let (ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict, Some(failure)) =
        (error.kind(), unquoted::command(&typed))
    {
        std::process::exit(u8::from(tell(&failure)).into());
    }
    let is_of_all = error.get(ContextKind::InvalidArg).is_some_and(|arg| arg.to_string() == "--all");
    if is_of_all && error.get(ContextKind::SuggestedArg).is_none() {
        // Else it would be told how to name a job `--all`.
        let tip = "jobs are named by their ids, or by filters such as --state pending or --since 1d";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    if error.use_stderr() {
        let _ = anstream::stderr().write_all(terminal::tame(&error.render().ansi().to_string()).as_bytes());
        std::process::exit(error.exit_code());
    }
    error.exit()
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    // What asks for no queue does not look for one.
    match &cli.command {
        Command::Completions(args) => return completions::completions(args.shell),
        Command::Man(args) => return man::man(args.folder.as_deref()),
        _ => {}
    }
    let context = Context::new(&cli.global)?;
    match cli.command {
        Command::Run(args) => run::run(&context, &args),
        Command::Attach(args) => attach::attach(&context, &args),
        Command::Enqueue(args) => enqueue::enqueue(&context, &args),
        Command::Worker(Deferred(Worker::Start(args))) => worker::start(&context, &args),
        Command::Worker(Deferred(Worker::Stop(args))) => worker::stop(&context, &args),
        Command::Worker(Deferred(Worker::Scale(args))) => worker::scale(&context, &args),
        Command::Worker(Deferred(Worker::InstallService(args))) => service::install(&context, &args),
        Command::Worker(Deferred(Worker::List(args))) => status::worker_list(&context, &args),
        Command::Status(args) => status::status(&context, &args),
        Command::List(args) => list::list(&context, &args),
        Command::Show(args) => show::show(&context, &args),
        Command::Logs(args) => logs::logs(&context, &args),
        Command::Wait(args) => wait::wait(&context, &args),
        Command::Cancel(args) => ask::cancel(&context, &args),
        Command::Signal(args) => signal::signal(&context, &args),
        Command::Retry(args) => ask::retry(&context, &args),
        Command::Edit(args) => edit::edit(&context, &args),
        Command::Remove(args) => ask::remove(&context, &args),
        Command::Clean(args) => clean::clean(&context, &args),
        Command::Pause(args) => pause::pause(&context, &args.what),
        Command::Resume(args) => pause::resume(&context, &args.what),
        Command::Dlq(Deferred(Dlq::List(args))) => list::dlq_list(&context, &args),
        Command::Dlq(Deferred(Dlq::Retry(args))) => ask::dlq_retry(&context, &args),
        Command::Config(args) => config::config(&context, args.0),
        Command::Check(args) => check::check(&context, &args),
        Command::Compact(args) => compact::compact(&context, &args),
        Command::Export(args) => export::export(&context, &args),
        Command::Import(args) => import::import(&context, &args),
        Command::Backup(args) => backup::backup(&context, &args),
        Command::Restore(args) => backup::restore(&context, &args),
        Command::Completions(args) => completions::completions(args.shell),
        Command::Man(args) => man::man(args.folder.as_deref()),
    }
}

/// Whether a command has done something by the time that it tells its results.
fn changes(command: &Command) -> bool {
    match command {
        Command::Enqueue(_)
        | Command::Worker(Deferred(Worker::Start(_) | Worker::Stop(_)))
        | Command::Cancel(_)
        | Command::Clean(_)
        | Command::Edit(_)
        | Command::Retry(_)
        | Command::Signal(_)
        | Command::Remove(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Dlq(Deferred(Dlq::Retry(_)))
        | Command::Config(Deferred(Config::Set(_) | Config::Unset(_)))
        | Command::Compact(_)
        | Command::Import(_)
        | Command::Backup(_)
        | Command::Restore(_) => true,
        Command::Check(args) => args.repair,
        _ => false,
    }
}

/// Says what went wrong, and last what to type next.
fn tell(failure: &Failure) -> Exit {
    if let Some(message) = &failure.message {
        context::say(format_args!("{message}"));
    }
    let _ = anstream::stderr().write_all(terminal::tame(&failure.lines()).as_bytes());
    failure.exit
}

/// A damaged file can make redb panic; the store turns that into an error, whose words are enough.
fn quiet_about_damage() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !crate::store::panic_is_fenced() {
            default(info);
        }
    }));
}
