//! `signal`.

use std::io::Write;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::super::args;
use super::super::context::{Context, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::show::find;
use crate::model::{JobId, Seq};
use crate::worker::{NotSignalled, signal_jobs};

pub(crate) fn signal(context: &Context, args: &args::Signal) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let mut jobs: Vec<(Seq, &JobId)> = Vec::new();
    for id in &args.ids {
        let seq = find(&queue, id)?;
        if jobs.iter().all(|(other, _)| *other != seq) {
            jobs.push((seq, id));
        }
    }
    let seqs: Vec<Seq> = jobs.iter().map(|(seq, _)| *seq).collect();
    let counts = signal_jobs(&queue, &seqs, args.which as i32).map_err(|error| explain(error, &jobs))?;
    let name = args.which.as_str();
    let mut out = stdout();
    if args.json {
        let sent = jobs
            .iter()
            .zip(counts)
            .map(|((_, id), count)| json!({"id": id.as_str(), "signal": name, "processes": count}));
        writeln!(out, "{}", sent.collect::<Value>())?;
    } else {
        for ((_, id), count) in jobs.iter().zip(counts) {
            writeln!(out, "✓ {name} sent to job {id} ({})", human::count(count as u64, "process"))?;
        }
    }
    out.flush()?;
    queue.leave();
    Ok(Exit::Done)
}

fn explain(error: NotSignalled, jobs: &[(Seq, &JobId)]) -> Failure {
    let of = |seq: Seq| jobs.iter().find(|(job, _)| *job == seq).map_or_else(String::new, |(_, id)| id.to_string());
    match error {
        NotSignalled::NotRunning(seq) => Failure::new(Exit::Refused, format!("job {} does not run", of(seq)))
            .next(format_args!("queuectl show {}", of(seq))),
        NotSignalled::OutOfSight(seq) => {
            let message = format!("job {} runs where nobody can signal it from here", of(seq));
            Failure::new(Exit::Refused, message).next("queuectl status")
        }
        NotSignalled::NoSuchSignal(_) => Failure::new(Exit::Usage, error).next("queuectl signal --help"),
        NotSignalled::Io(_) => Failure::new(Exit::Other, format!("cannot send it: {error}")),
        NotSignalled::Store(error) => error.into(),
    }
}

/// The signal of a name, with or without SIG, or of a number.
pub(crate) fn parse(text: &str) -> Result<Signal, String> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| "it is a number from 1 to 31, or a name such as TERM".to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let short = |signal: Signal| signal.as_str().trim_start_matches("SIG");
    Signal::iterator().find(|signal| short(*signal) == name).ok_or_else(|| {
        let near = Signal::iterator().map(|signal| (strsim::damerau_levenshtein(short(signal), name), short(signal)));
        match near.min().filter(|(slips, _)| *slips <= 2) {
            Some((_, near)) => format!("there is no such signal; did you mean {near}?"),
            None => "there is no such signal; there are TERM, INT, HUP, USR1, STOP, CONT and more: kill -l".to_owned(),
        }
    })
}
