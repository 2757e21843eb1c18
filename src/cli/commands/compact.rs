//! `compact`.

use std::io::Write;

use serde_json::json;

use super::super::args;
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::human;
use super::check::{Talker, not_quiet};
use crate::queue::Queue;
use crate::store::{self, Compacted, Seized, StoreError};
use crate::worker::{NotQuiet, Quiet};

pub(crate) fn compact(context: &Context, args: &args::Compact) -> Result<Exit, Failure> {
    let folder = context.existing()?;
    // What is no queue, or cannot be read at all, is told before anybody is kept out.
    Queue::open_read_only(&folder, context.on_wait()).map_err(|error| context.explain(error))?.leave();
    let explain = |error| match error {
        NotQuiet::Store(error @ StoreError::Damaged(_)) => context.explain(error),
        error => not_quiet(context, error),
    };
    let quiet = Quiet::reach(&folder, &Talker).map_err(explain)?;
    say(format_args!("compacting: who wants to write to the queue waits"));
    let compacted = Seized::new(folder.path(), &context.on_wait())
        .map_err(NotQuiet::from)
        .and_then(|seized| {
            quiet.holds()?;
            Ok(store::compact(seized)?)
        })
        .map_err(explain)?;
    tell(compacted, args.json)?;
    Ok(Exit::Done)
}

fn tell(compacted: Compacted, as_json: bool) -> Result<(), Failure> {
    let Compacted { jobs, before, after } = compacted;
    let mut out = stdout();
    if as_json {
        writeln!(out, "{}", json!({"jobs": jobs, "bytes_before": before, "bytes_after": after}))?;
    } else {
        let (jobs, before, after) = (human::count(jobs, "job"), human::size(before), human::size(after));
        writeln!(out, "✓ {jobs}: the queue file had {before} and has {after}")?;
    }
    Ok(out.flush()?)
}
