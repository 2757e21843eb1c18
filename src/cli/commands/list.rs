//! `list` and `dlq list`.

use std::collections::HashMap;
use std::io::Write;

use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::{human, json};
use crate::model::{Job, Seq, State, StateKind};
use crate::queue::Queue;
use crate::store::{Cursor, StoreError};
use crate::worker::{self, Activity};

/// How many jobs the table shows unless it is told.
const TABLE_ROWS: usize = 50;
/// How many jobs are read from one snapshot: it must not be held while a slow reader takes them.
const PAGE: usize = 1_000;

pub(crate) fn list(
    context: &Context,
    state: Option<StateKind>,
    limit: Option<usize>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    if is_json {
        list_json(&queue, state, limit.unwrap_or(usize::MAX))?;
    } else {
        list_table(&queue, state, limit.unwrap_or(TABLE_ROWS))?;
    }
    queue.leave();
    Ok(Exit::Done)
}

/// What runs now, by job.
pub(crate) fn activities(queue: &Queue) -> Result<HashMap<Seq, Activity>, StoreError> {
    let pools = queue.read(crate::store::Snapshot::pools)?;
    let living = pools.iter().filter(|pool| pool.ended.is_none());
    Ok(living.flat_map(|pool| worker::activity(queue, &pool.id)).map(|run| (run.seq, run)).collect())
}

/// The activity that belongs to a job's present claim.
pub(crate) fn activity_of<'a>(job: &Job, activities: &'a HashMap<Seq, Activity>) -> Option<&'a Activity> {
    let State::Processing(claimed) = &job.progress.state else { return None };
    activities.get(&job.seq).filter(|run| run.lease == claimed.lease.0)
}

fn pages(
    queue: &Queue,
    state: Option<StateKind>,
    limit: usize,
    mut show: impl FnMut(&[Job]) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let (mut cursor, mut shown) = (Some(Cursor::default()), 0);
    while let Some(at) = cursor.filter(|_| shown < limit) {
        let page = queue.read(|snapshot| snapshot.page(state, &at, PAGE.min(limit - shown)))?;
        show(&page.jobs)?;
        shown += page.jobs.len();
        cursor = page.next;
    }
    Ok(shown)
}

fn list_json(queue: &Queue, state: Option<StateKind>, limit: usize) -> Result<(), Failure> {
    let activities = activities(queue)?;
    let mut out = stdout();
    write!(out, "[")?;
    let mut separator = "";
    pages(queue, state, limit, |jobs| {
        for job in jobs {
            let object = json::job(job, activity_of(job, &activities));
            write!(out, "{separator}{}", serde_json::Value::from(object))?;
            separator = ",\n";
        }
        Ok(())
    })?;
    writeln!(out, "]")?;
    Ok(out.flush()?)
}

fn list_table(queue: &Queue, state: Option<StateKind>, limit: usize) -> Result<(), Failure> {
    let now = queue.clock().now();
    let mut table = human::table(&["ID", "STATE", "TRIES", "AGE", "COMMAND", "DETAIL"]);
    let shown = pages(queue, state, limit, |jobs| {
        for job in jobs {
            table.add_row(human::row([
                human::called(job.id.as_str(), job.name.as_ref()),
                human::state(job.progress.state.kind()),
                human::attempts(&job.progress, job.max_retries),
                human::about(now.since(job.created)),
                human::plain(&job.command.to_string()),
                human::detail(job, now),
            ]));
        }
        Ok(())
    })?;
    let counts = queue.read(crate::store::Snapshot::counts)?;
    let total: u64 = counts.iter().filter(|(kind, _)| state.is_none_or(|state| state == **kind)).map(|(_, n)| n).sum();
    let mut out = stdout();
    if shown == 0 {
        let what = state.map_or_else(|| "No jobs".to_owned(), |state| format!("No jobs are {}", state.name()));
        writeln!(out, "{what}")?;
    } else {
        writeln!(out, "{table}")?;
    }
    out.flush()?;
    if total > shown as u64 && shown > 0 {
        say(format_args!("{} more; --limit N shows more", total - shown as u64));
    }
    Ok(())
}
