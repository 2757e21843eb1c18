//! `signal`.

use std::io::Write;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::super::args;
use super::super::context::{Context, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::super::selected;
use super::many::{Many, Verb};
use super::show::find;
use crate::model::{JobId, Seq, StateKind};
use crate::queue::Queue;
use crate::worker::{NotSignalled, signal_jobs};

const SIGNAL: Verb =
    Verb::new(["signals", "signalled", "not running"], &[StateKind::Processing], &[StateKind::Processing]);

pub(crate) fn signal(context: &Context, args: &args::Signal) -> Result<Exit, Failure> {
    if !args.jobs.are_named() {
        return Err(selected::unsaid("signal TERM", "--run last"));
    }
    let queue = context.open_read_only()?;
    let exit = if args.jobs.filters.are_given() { by_filter(&queue, args)? } else { by_ids(&queue, args)? };
    queue.leave();
    Ok(exit)
}

fn by_ids(queue: &Queue, args: &args::Signal) -> Result<Exit, Failure> {
    let mut jobs: Vec<(Seq, &JobId)> = Vec::new();
    for id in &args.jobs.ids {
        let seq = find(queue, id)?;
        if jobs.iter().all(|(other, _)| *other != seq) {
            jobs.push((seq, id));
        }
    }
    let seqs: Vec<Seq> = jobs.iter().map(|(seq, _)| *seq).collect();
    let counts = signal_jobs(queue, &seqs, args.which as i32).map_err(|error| explain(error, &jobs))?;
    let sent = jobs.into_iter().zip(counts).map(|((_, id), processes)| Sent { id: id.clone(), processes });
    let sent: Vec<Sent> = sent.collect();
    let name = args.which.as_str();
    let mut out = stdout();
    if args.json {
        write_json(&mut out, name, &sent)?;
    } else {
        for Sent { id, processes } in sent {
            writeln!(out, "✓ {name} sent to job {id} ({})", human::count(processes as u64, "process"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn by_filter(queue: &Queue, args: &args::Signal) -> Result<Exit, Failure> {
    let mut many = Many::find(queue, SIGNAL, &args.jobs.filters.resolve(queue)?)?;
    many.confirm(args.jobs.yes)?;
    let mut sent = Vec::new();
    let count = many.pieces(|seqs| signal_some(queue, seqs, args.which), |piece| sent.extend(piece))?;
    let (name, mut out) = (args.which.as_str(), stdout());
    if args.json {
        write_json(&mut out, name, &sent)?;
    } else if count == 0 {
        writeln!(out, "{}", many.told(count, SIGNAL.past))?;
    } else {
        let processes = sent.iter().map(|sent| sent.processes as u64).sum();
        let (jobs, processes) = (human::count(count, "job"), human::count(processes, "process"));
        writeln!(out, "✓ {name} sent to {jobs} ({processes})")?;
    }
    out.flush()?;
    many.tell_left_out();
    Ok(Exit::Done)
}

/// How many processes of a job got it.
struct Sent {
    id: JobId,
    processes: usize,
}

/// Sends it to those of the jobs that run where it can reach them: all at once, else to each for itself.
fn signal_some(queue: &Queue, seqs: &[Seq], signal: Signal) -> Result<Vec<Sent>, Failure> {
    let ids = queue.read(|snapshot| seqs.iter().map(|seq| snapshot.job(*seq)).collect::<Result<Vec<_>, _>>())?;
    match signal_jobs(queue, seqs, signal as i32) {
        Ok(counts) => {
            let sent = ids.into_iter().zip(counts);
            Ok(sent.filter_map(|(job, processes)| Some(Sent { id: job?.id, processes })).collect())
        }
        Err(NotSignalled::NotRunning(_) | NotSignalled::OutOfSight(_)) if seqs.len() == 1 => Ok(Vec::new()),
        Err(NotSignalled::NotRunning(_) | NotSignalled::OutOfSight(_)) => {
            let each = seqs.chunks(1).map(|seq| signal_some(queue, seq, signal));
            Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        }
        Err(error) => Err(explain(error, &[])),
    }
}

fn write_json(out: &mut impl Write, name: &str, sent: &[Sent]) -> Result<(), Failure> {
    let sent =
        sent.iter().map(|Sent { id, processes }| json!({"id": id.as_str(), "signal": name, "processes": processes}));
    Ok(writeln!(out, "{}", sent.collect::<Value>())?)
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
