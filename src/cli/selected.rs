//! The jobs that a filter lets through, read from one snapshot after the other: none is held while what was found is
//! shown, or while the next are looked for.

use super::exit::{Exit, Failure};
use crate::model::{Filter, Job, Seq, StateKind};
use crate::queue::Queue;
use crate::store::{Cursor, StoreError};

/// How many jobs are read from one snapshot.
const PAGE: usize = 1_000;
/// The same of their numbers alone.
const SEQS: usize = 10_000;

/// That a filter lets none through, as the rest of a sentence: of talk, or with a capital of a result.
pub(super) fn none(filter: &Filter) -> String {
    let states: Vec<&str> = filter.states.iter().copied().map(StateKind::name).collect();
    let Filter { states: _, queue, run, tags, name, since, command, exit_code, held } = filter;
    let by_more = queue.is_some() || run.is_some() || !tags.is_empty() || name.is_some() || since.is_some();
    match (states.as_slice(), by_more || command.is_some() || exit_code.is_some() || held.is_some()) {
        ([], false) => "no jobs".to_owned(),
        (states, false) => format!("no jobs are {}", states.join(" or ")),
        (_, true) => "no jobs match".to_owned(),
    }
}

/// A command on jobs was typed without any; with `flags` it is one that works.
pub(super) fn unsaid(command: &str, flags: &str) -> Failure {
    Failure::new(Exit::Usage, "say which jobs: by their ids, or by a filter")
        .next(format_args!("queuectl {command} {flags}"))
        .or(format_args!("queuectl {command} --help    tells all filters"))
}

/// Shows the jobs page by page, at most so many. Answers how many there were, and whether there may be more.
pub(super) fn pages(
    queue: &Queue,
    filter: &Filter,
    limit: usize,
    mut show: impl FnMut(&[Job]) -> Result<(), Failure>,
) -> Result<(usize, bool), Failure> {
    let (mut cursor, mut shown) = (Some(Cursor::default()), 0);
    while let Some(at) = cursor.as_ref().filter(|_| shown < limit) {
        let page = queue.read(|snapshot| snapshot.select(filter, at, PAGE.min(limit - shown)))?;
        show(&page.jobs)?;
        shown += page.jobs.len();
        cursor = page.next;
    }
    Ok((shown, cursor.is_some()))
}

/// Passes all of them on by their numbers, as many at once as one snapshot has.
pub(super) fn each_page_of_seqs(
    queue: &Queue,
    filter: &Filter,
    mut take: impl FnMut(Vec<Seq>),
) -> Result<(), StoreError> {
    let mut cursor = Some(Cursor::default());
    while let Some(at) = cursor {
        let page = queue.read(|snapshot| snapshot.select_seqs(filter, &at, SEQS))?;
        take(page.seqs);
        cursor = page.next;
    }
    Ok(())
}

/// The numbers of all of them.
pub(super) fn seqs(queue: &Queue, filter: &Filter) -> Result<Vec<Seq>, StoreError> {
    let mut all = Vec::new();
    each_page_of_seqs(queue, filter, |seqs| all.extend(seqs))?;
    Ok(all)
}

/// How many there are.
pub(super) fn count(queue: &Queue, filter: &Filter) -> Result<u64, StoreError> {
    if let Some(count) = queue.read(|snapshot| snapshot.counted(filter))? {
        return Ok(count);
    }
    let mut count = 0;
    each_page_of_seqs(queue, filter, |seqs| count += seqs.len() as u64)?;
    Ok(count)
}
