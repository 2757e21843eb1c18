//! The jobs that a filter lets through, read from one snapshot after the other: none is held while what was found is
//! shown, or while the next are looked for.

use super::exit::Failure;
use crate::model::{Filter, Job, Seq};
use crate::queue::Queue;
use crate::store::{Cursor, StoreError};

/// How many jobs are read from one snapshot.
const PAGE: usize = 1_000;
/// The same of their numbers alone.
const SEQS: usize = 10_000;

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
