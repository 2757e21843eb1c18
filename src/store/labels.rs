//! TAGS: jobs by what people call them. A row for the name and for each tag, written with the job and taken away with
//! it; what the job's spec says is what counts.

use super::StoreError;
use super::records::{NAME_KEY, SpecRecord};
use super::tables::{Snapshot, TAGS, Tx};
use crate::model::{JobName, Seq};

impl Tx<'_> {
    pub(super) fn add_labels(&mut self, seq: Seq, spec: &SpecRecord) -> Result<(), StoreError> {
        spec.labels().try_for_each(|(key, value)| self.tables.tags.add((key, value, seq.0)))
    }
}

impl Snapshot {
    /// Up to `limit` jobs with this tag and value, the newest first; those before `before` if that is given. Takes time
    /// for what it finds, not for what there is.
    pub fn jobs_with_tag(
        &self,
        key: &str,
        value: &str,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError> {
        if key == NAME_KEY { Ok(Vec::new()) } else { self.labelled(key, value, before, limit) }
    }

    /// The same of jobs with this name.
    pub fn jobs_with_name(&self, name: &JobName, before: Option<Seq>, limit: usize) -> Result<Vec<Seq>, StoreError> {
        self.labelled(NAME_KEY, name.as_str(), before, limit)
    }

    fn labelled(&self, key: &str, value: &str, before: Option<Seq>, limit: usize) -> Result<Vec<Seq>, StoreError> {
        let (tags, mut found) = (self.open(TAGS)?, Vec::new());
        for (from, end) in self.hidden()?.visible(before.map_or(u64::MAX, |seq| seq.0)) {
            let room = limit - found.len();
            for row in tags.range((key, value, from)..(key, value, end))?.rev().take(room) {
                found.push(Seq(row?.0.value().2));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::temp_queue;
    use super::*;
    use crate::model::{Command, JobSpec, Millis};

    fn job(name: &str, tags: &[&str]) -> JobSpec {
        let mut job = JobSpec { name: name.parse().ok(), ..JobSpec::new(Command::Shell(b"true".to_vec()), "/") };
        for tag in tags {
            job.tags.set_typed(tag).unwrap();
        }
        job
    }

    #[test]
    fn jobs_are_found_by_name_and_tag_page_after_page() {
        let (_dir, store) = temp_queue();
        let jobs: Vec<JobSpec> = (0..7).map(|n| job("nightly", &[["a=1", "a=2"][n % 2], "b="])).collect();
        store.write(Millis(1), |tx| tx.enqueue(&[jobs, vec![job("", &["name=nightly"])]].concat())).unwrap();
        let snapshot = |look: &dyn Fn(&Snapshot) -> Result<Vec<Seq>, StoreError>| {
            store.read(|snapshot| look(snapshot)).unwrap().iter().map(|seq| seq.0).collect::<Vec<_>>()
        };
        let tagged = |key, value, before: u64, limit| {
            snapshot(&|snapshot| snapshot.jobs_with_tag(key, value, Some(Seq(before)), limit))
        };
        assert_eq!(tagged("a", "1", u64::MAX, 9), [7, 5, 3, 1]);
        assert_eq!((tagged("a", "1", u64::MAX, 2), tagged("a", "1", 5, 2)), (vec![7, 5], vec![3, 1]));
        assert_eq!((tagged("a", "", 9, 9), tagged("b", "", 3, 9)), (vec![], vec![2, 1]));
        assert_eq!(tagged("", "nightly", 9, 9), [0; 0], "that is no tag");
        assert_eq!(tagged("name", "nightly", 9, 9), [8]);
        let named = snapshot(&|snapshot| snapshot.jobs_with_name(&"nightly".parse().unwrap(), None, 3));
        assert_eq!(named, [7, 6, 5]);
    }
}
