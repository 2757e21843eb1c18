//! What waits does nothing: context switches of idle processes.

use std::time::Duration;

use super::Result;
use super::args::Args;
use super::process::{Background, text};
use super::report::{Bar, Report, Row};
use super::room::Room;

pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let room = Room::new(args)?;
    // In a queue that no pool serves, so that it waits for ever.
    let id = text(room.queuectl("enqueue --quiet").arg(r#"{"command":"true","queue":"unserved"}"#))?;
    let mut pool = room.queuectl("worker start --count 4 --queue served");
    let processes = [
        ("`wait` for a job", Background::start(&mut room.queuectl(&format!("wait {id}")))?),
        ("`logs -f` of a job", Background::start(&mut room.queuectl(&format!("logs -f {id}")))?),
        ("a pool of 4", Background::start(&mut pool)?),
    ];
    // They have started when they have gone to sleep.
    let settle = Duration::from_millis(args.size(2_000, 500) as u64);
    let seconds = args.size(10, 1);
    std::thread::sleep(settle);
    let before: Result<Vec<f64>> = processes.iter().map(|(_, process)| process.switches()).collect();
    std::thread::sleep(Duration::from_secs(seconds as u64));
    for ((name, process), before) in processes.iter().zip(before?) {
        let wakeups = process.switches()? - before;
        let row = Row::new(format!("{name}, {seconds} s in which nothing happens"), &[wakeups], "wake-ups");
        report.row(row.bar(Bar::AtMost(0.0)).how("voluntary context switches of all its threads"));
    }
    Ok(())
}
