//! `list` and `dlq list`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::Write;

use super::super::args::{self, Format, Listing, Sort};
use super::super::columns::{self, Column, Shown, escaped};
use super::super::context::{Context, say, stdout};
use super::super::exit::{Exit, Failure};
use super::super::render::{human, json};
use super::super::selected;
use crate::model::{Filter, Job, Seq, State, StateKind};
use crate::queue::Queue;
use crate::store::StoreError;
use crate::worker::{self, Activity};

/// How many jobs the table shows unless it is told.
const TABLE_ROWS: usize = 50;
/// How many jobs are read from one snapshot if they are known.
const PAGE: usize = 1_000;

pub(crate) fn list(context: &Context, args: &args::List) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let filter = args.filters.resolve(&queue)?;
    show(queue, &filter, &args.listing)
}

pub(crate) fn dlq_list(context: &Context, args: &args::DlqList) -> Result<Exit, Failure> {
    let queue = context.open_read_only()?;
    let filter = args.which.resolve(&queue)?;
    show(queue, &Filter { states: [StateKind::Dead].into(), ..filter }, &args.listing)
}

fn show(queue: Queue, filter: &Filter, listing: &Listing) -> Result<Exit, Failure> {
    let mut out = stdout();
    if listing.count {
        writeln!(out, "{}", selected::count(&queue, filter)?)?;
    } else {
        match listing.format() {
            Format::Table => table(&queue, filter, listing, &mut out)?,
            Format::Json => as_json(&queue, filter, listing, &mut out)?,
            Format::Tsv => tsv(&queue, filter, listing, &mut out)?,
        }
    }
    out.flush()?;
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

/// Passes on the jobs in the order that is asked for, at most so many. Answers how many there were, and whether there
/// may be more.
fn each_page(
    queue: &Queue,
    filter: &Filter,
    sort: Sort,
    limit: usize,
    mut pass: impl FnMut(&[Job]) -> Result<(), Failure>,
) -> Result<(usize, bool), Failure> {
    if sort == Sort::Newest {
        return selected::pages(queue, filter, limit, pass);
    }
    let (first, more) = highest(queue, filter, sort, limit)?;
    let mut shown = 0;
    for seqs in first.chunks(PAGE) {
        let jobs = queue.read(|snapshot| seqs.iter().map(|seq| snapshot.job(*seq)).collect::<Result<Vec<_>, _>>())?;
        // One that was removed meanwhile is not shown.
        let jobs: Vec<Job> = jobs.into_iter().flatten().collect();
        pass(&jobs)?;
        shown += jobs.len();
    }
    Ok((shown, more))
}

/// The first `limit` jobs of an order for which all of them have to be read; only their numbers are kept meanwhile.
fn highest(queue: &Queue, filter: &Filter, sort: Sort, limit: usize) -> Result<(Vec<Seq>, bool), Failure> {
    let (mut heap, mut more) = (BinaryHeap::new(), false);
    selected::pages(queue, filter, usize::MAX, |jobs| {
        for job in jobs {
            heap.push(Reverse((sort.key(job), job.seq)));
            if heap.len() > limit {
                heap.pop();
                more = true;
            }
        }
        Ok(())
    })?;
    let sorted = heap.into_sorted_vec().into_iter();
    Ok((sorted.map(|Reverse((_, seq))| seq).collect(), more))
}

impl Sort {
    /// Higher ones come first; those that have none last.
    fn key(self, job: &Job) -> Option<i64> {
        let last = job.last_attempt.as_ref();
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match self {
            Self::Newest => Some(number(job.seq.0)),
            Self::Oldest => Some(-number(job.seq.0)),
            Self::Updated => Some(number(job.updated.0)),
            Self::Duration => last.map(|last| ms(last.ended.since(last.started))),
            Self::Cpu => last.map(|last| ms(last.cpu)),
            Self::Memory => last.map(|last| number(last.max_rss_bytes)),
            Self::ExitCode => last.and_then(|last| last.exit_code).map(i64::from),
        }
    }
}

fn as_json(queue: &Queue, filter: &Filter, listing: &Listing, out: &mut impl Write) -> Result<(), Failure> {
    let (activities, now) = (activities(queue)?, queue.clock().now());
    write!(out, "[")?;
    let mut separator = "";
    each_page(queue, filter, listing.sort, listing.limit.unwrap_or(usize::MAX), |jobs| {
        for job in jobs {
            let activity = activity_of(job, &activities);
            let mut object = json::job(job, activity);
            if !listing.columns.is_empty() {
                let shown = Shown { job, activity, now };
                let field = |column: &Column| (column.name(), shown.value(*column, &mut object));
                object = listing.columns.iter().map(field).collect();
            }
            write!(out, "{separator}{}", serde_json::Value::from(object))?;
            separator = ",\n";
        }
        Ok(())
    })?;
    writeln!(out, "]")?;
    Ok(())
}

/// A line of names, then a line for each job, whose fields are separated by tabs.
fn tsv(queue: &Queue, filter: &Filter, listing: &Listing, out: &mut impl Write) -> Result<(), Failure> {
    let (activities, now) = (activities(queue)?, queue.clock().now());
    let columns = listing.columns_or(&columns::TSV);
    let line = |fields: Vec<String>| fields.join("\t");
    writeln!(out, "{}", line(columns.iter().map(|column| column.name()).collect()))?;
    each_page(queue, filter, listing.sort, listing.limit.unwrap_or(usize::MAX), |jobs| {
        for job in jobs {
            let shown = Shown { job, activity: activity_of(job, &activities), now };
            writeln!(out, "{}", line(columns.iter().map(|column| escaped(&shown.field(*column))).collect()))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn table(queue: &Queue, filter: &Filter, listing: &Listing, out: &mut impl Write) -> Result<(), Failure> {
    let now = queue.clock().now();
    let columns = listing.columns_or(&columns::TABLE);
    // Only what is asked for is looked up: the boards of all pools take a while.
    let activities = if columns == columns::TABLE { HashMap::new() } else { activities(queue)? };
    let titles: Vec<String> = columns.iter().map(|column| column.title()).collect();
    let mut table = human::table(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    let has_names = columns.contains(&Column::Name);
    let (shown, more) = each_page(queue, filter, listing.sort, listing.limit.unwrap_or(TABLE_ROWS), |jobs| {
        for job in jobs {
            let shown = Shown { job, activity: activity_of(job, &activities), now };
            table.add_row(human::row(columns.iter().map(|column| shown.cell(*column, has_names))));
        }
        Ok(())
    })?;
    if shown == 0 {
        writeln!(out, "{}", none(filter))?;
    } else {
        writeln!(out, "{table}")?;
    }
    out.flush()?;
    let total = queue.read(|snapshot| snapshot.counted(filter))?;
    match total.map(|total| total.saturating_sub(shown as u64)) {
        Some(left) if left > 0 && shown > 0 => say(format_args!("{left} more; --limit N shows more")),
        None if more => say(format_args!("there may be more; --limit N shows more")),
        Some(_) | None => {}
    }
    Ok(())
}

/// That there are none.
fn none(filter: &Filter) -> String {
    let states: Vec<&str> = filter.states.iter().map(|kind| kind.name()).collect();
    let Filter { states: _, queue, run, tags, name, since, command, exit_code, held } = filter;
    let by_more = queue.is_some() || run.is_some() || !tags.is_empty() || name.is_some() || since.is_some();
    match (states.as_slice(), by_more || command.is_some() || exit_code.is_some() || held.is_some()) {
        ([], false) => "No jobs".to_owned(),
        (states, false) => format!("No jobs are {}", states.join(" or ")),
        (_, true) => "No such jobs".to_owned(),
    }
}
