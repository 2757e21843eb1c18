//! How soon a job starts.

use std::time::{SystemTime, UNIX_EPOCH};

use queuectl::model::{Output, Seq, Stream};

use super::Result;
use super::args::Args;
use super::preload;
use super::process::text;
use super::report::{Bar, Report, Row};
use super::room::Room;
use super::statistics::quantile;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let room = Room::new(args)?;
    text(&mut room.queuectl("enqueue -c true"))?;
    let pool = room.pool(2)?.unread();
    let now = preload::now()?;
    let mut rounds = Vec::new();
    for _ in 0..args.size(200, 5) {
        let id = text(room.queuectl("enqueue --quiet --").arg(&now))?;
        let returned = SystemTime::now().duration_since(UNIX_EPOCH)?;
        text(&mut room.queuectl(&format!("wait {id}")))?;
        rounds.push((Seq(id.trim().parse()?), returned.as_secs_f64() * 1e3));
    }
    pool.stop()?;
    let times: Result<Vec<f64>> = rounds.iter().map(|(seq, returned)| Ok(first_act(&room, *seq)? - returned)).collect();
    let times = times?;
    for (name, share, bar) in [("median", 0.5, 3.0), ("99 %", 0.99, 15.0)] {
        let row = Row::new(
            format!("from the end of `enqueue` to what the job does first, idle pool, {name}"),
            &[quantile(&times, share)],
            "ms",
        );
        let how = format!(
            "`queuectl enqueue -- now`, a program that prints the time; {} times, one after another",
            times.len()
        );
        report.row(row.bar(Bar::AtMost(bar)).how(how));
    }
    Ok(())
}

/// When a job did what it does first, in milliseconds.
fn first_act(room: &Room, seq: Seq) -> Result<f64> {
    let output = room.open()?.read(|snapshot| snapshot.output(seq, 1, Stream::Stdout))?;
    let Some(Output::Inline(bytes)) = output else { return Err("a job printed nothing".into()) };
    Ok(std::str::from_utf8(&bytes)?.trim().parse::<f64>()? / 1e6)
}
