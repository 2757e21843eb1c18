//! What has to be true when the storm is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use queuectl::model::{Attempt, Job, Outcome, Output, Seq, StateKind, Stream};
use queuectl::queue::{Folder, Queue};
use queuectl::store::{Cursor, Snapshot, StoreError};
use queuectl::worker::{Noted, output_path};

use crate::job::Kind;
use crate::ledger::{Mark, What};
use crate::storm::Storm;

/// A job of the queue with all that is known of it.
struct Known {
    job: Job,
    kind: Kind,
    history: Vec<Attempt>,
}

/// Collects what is wrong, so that one look shows all of it.
#[derive(Default)]
struct Wrongs(Vec<String>);

impl Wrongs {
    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

/// Panics with all that is wrong.
pub fn judge(storm: &mut Storm) {
    let mut wrongs = Wrongs::default();
    let left = left(&storm.queue());
    wrongs.unless(left.is_empty(), || format!("processes were left behind: {left:?}"));
    let locks = locks(&storm.queue());
    wrongs.unless(locks.is_empty(), || format!("locks were left behind: {locks:?}"));
    let said = storm.ok(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    wrongs.unless(report["found"] == 0 && report["warnings"] == serde_json::json!([]), || format!("check: {report}"));
    let folder = Folder::existing(&storm.queue()).unwrap().unwrap();
    let queue = Queue::open_read_only(&folder, Box::new(|| {})).unwrap();
    let jobs = queue.read(jobs).unwrap();
    files(&storm.queue(), &queue.read(Snapshot::check).unwrap().files, &mut wrongs);
    acknowledged(storm, &jobs, &mut wrongs);
    ledger(&storm.marks, &jobs, &mut wrongs);
    boards(storm, &jobs, &mut wrongs);
    for known in jobs.values() {
        ends_as_it_should(known, &mut wrongs);
        let outputs = queue.read(|snapshot| outputs(snapshot, &storm.queue(), known, &mut wrongs));
        outputs.unwrap();
    }
    assert!(wrongs.0.is_empty(), "{} things are wrong:\n{}", wrongs.0.len(), wrongs.0.join("\n"));
    let count =
        |outcome| jobs.values().flat_map(|known| &known.history).filter(|run| run.outcome == outcome).count() as u64;
    storm.tally.jobs = jobs.len() as u64;
    storm.tally.attempts = jobs.values().map(|known| known.history.len() as u64).sum();
    (storm.tally.lost, storm.tally.interrupted) = (count(Outcome::Lost), count(Outcome::Interrupted));
    let ids: BTreeMap<Seq, &String> = jobs.iter().map(|(id, known)| (known.job.seq, id)).collect();
    for board in &storm.boards {
        let seen = board.runs.iter().filter(|run| run.outcome.is_some());
        storm.tally.seen_ends += seen.clone().count() as u64;
        let told = |run: &Noted| board.told.as_ref().is_none_or(|told| told.contains(ids[&run.seq]));
        storm.tally.adopted += seen.filter(|run| !told(run)).count() as u64;
    }
    queue.leave();
}

fn jobs(snapshot: &Snapshot) -> Result<BTreeMap<String, Known>, StoreError> {
    let mut jobs = BTreeMap::new();
    // Numbers of a large batch that was killed are nobody's.
    for job in snapshot.page(None, &Cursor::default(), usize::MAX)?.jobs {
        let kind = Kind::of_command(&job.command.to_string());
        let history = snapshot.attempts(job.seq)?;
        jobs.insert(job.id.to_string(), Known { job, kind, history });
    }
    Ok(jobs)
}

/// The processes that carry the queue in their environment, as jobs do, with their command lines.
pub fn left(queue: &Path) -> BTreeMap<i32, String> {
    let marker = [b"QUEUECTL_DB=", queue.as_os_str().as_bytes()].concat();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_ours = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == marker)
    };
    let line = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    pids.filter(of_ours).map(|pid: i32| (pid, line(pid))).collect()
}

/// Locks on anything in the queue's folder.
fn locks(queue: &Path) -> Vec<String> {
    let inodes: Vec<String> =
        all_files(queue).iter().map(|path| format!(":{} ", fs::metadata(path).unwrap().ino())).collect();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let ours = |line: &&str| inodes.iter().any(|inode| line.contains(inode.as_str()));
    locks.lines().filter(ours).map(str::to_owned).collect()
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(all_files(&path)) } else { files.push(path) }
    }
    files
}

/// The queue's folder has what a queue at rest has, and the outputs that the jobs name.
fn files(queue: &Path, named: &[(Seq, u32, Stream, u64)], wrongs: &mut Wrongs) {
    let mut expected: BTreeSet<PathBuf> =
        ["queue.redb", ".gitignore", "run/turn"].into_iter().map(|name| queue.join(name)).collect();
    for (seq, attempt, stream, bytes) in named {
        let path = output_path(queue, *seq, *attempt, *stream);
        let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        wrongs.unless(size == *bytes, || format!("{} has {size} bytes, not {bytes}", path.display()));
        expected.insert(path);
    }
    let found: BTreeSet<PathBuf> = all_files(queue).into_iter().collect();
    let (stray, missing): (Vec<_>, Vec<_>) =
        (found.difference(&expected).collect(), expected.difference(&found).collect());
    wrongs.unless(stray.is_empty(), || format!("files were left behind: {stray:?}"));
    wrongs.unless(missing.is_empty(), || format!("files are missing: {missing:?}"));
    for folder in fs::read_dir(queue.join("output")).unwrap().flatten() {
        let is_for_jobs = folder.file_name().to_str().unwrap().parse::<u64>().is_ok();
        wrongs.unless(is_for_jobs, || format!("a folder was left behind: {}", folder.path().display()));
    }
}

/// What was acknowledged is there under its id; what was not is there whole or not at all; a run is there.
fn acknowledged(storm: &Storm, jobs: &BTreeMap<String, Known>, wrongs: &mut Wrongs) {
    let mut by_number: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (id, known) in jobs {
        by_number.entry(known.kind.number).or_default().push(id);
    }
    let there = |kind: &Kind| by_number.get(&kind.number).cloned().unwrap_or_default();
    for entry in &storm.entries {
        let counts: BTreeSet<usize> = entry.kinds.iter().map(|kind| there(kind).len()).collect();
        match &entry.acknowledged {
            Some(ids) => {
                for (kind, id) in entry.kinds.iter().zip(ids) {
                    wrongs.unless(there(kind) == [id], || format!("{id} was acknowledged: {:?} is there", there(kind)));
                }
            }
            None => wrongs.unless(counts == BTreeSet::from([0]) || counts == BTreeSet::from([1]), || {
                format!("an entry of {:?} is there in part: {counts:?}", entry.kinds)
            }),
        }
    }
    for kind in storm.batches.iter().flat_map(|batch| &batch.kinds) {
        // A run that was cut off after its last job had ended begins anew.
        wrongs.unless(!there(kind).is_empty(), || format!("{kind} of a run is not there"));
    }
}

/// Completed, or dead if it fails for ever; and what came after what.
fn ends_as_it_should(known: &Known, wrongs: &mut Wrongs) {
    let Known { job, kind, history } = known;
    let state = if kind.dies() { StateKind::Dead } else { StateKind::Completed };
    let found = job.progress.state.kind();
    wrongs.unless(found == state, || format!("job {} ({kind}) is {found:?}: {history:#?}", job.id));
    let completed = history.iter().position(|run| run.outcome == Outcome::Completed);
    let last = history.len().checked_sub(1);
    wrongs.unless(completed.is_none() || completed == last, || format!("job {} ran again: {history:#?}", job.id));
    for run in history {
        let code = if u64::from(run.number) <= kind.fails { 3 } else { 0 };
        let is_right = match run.outcome {
            Outcome::Completed | Outcome::Failed => {
                run.exit_code == Some(code) && (code == 0) == (run.outcome == Outcome::Completed)
            }
            Outcome::Lost | Outcome::Interrupted => true,
            Outcome::TimedOut | Outcome::Cancelled => false,
        };
        wrongs.unless(is_right, || format!("job {} ({kind}): {run:?}", job.id));
    }
}

/// Starts, ends and locks against the history.
fn ledger(marks: &[Mark], jobs: &BTreeMap<String, Known>, wrongs: &mut Wrongs) {
    let (mut started, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for mark in marks {
        let Some(known) = jobs.get(&mark.id) else { panic!("a job that is not there ran: {mark:?}") };
        let run = (mark.id.as_str(), mark.attempt);
        match mark.what {
            What::Overlap => wrongs.0.push(format!("two copies at once: {mark:?} {:#?}", known.history)),
            What::Start => {
                let before = started.insert(run, mark);
                wrongs.unless(before.is_none(), || format!("two starts of one attempt: {before:?} and {mark:?}"));
                wrongs.unless(known.history.iter().any(|run| run.number == mark.attempt), || {
                    format!("an attempt without a record: {mark:?} {:#?}", known.history)
                });
            }
            What::End(code) => {
                wrongs.unless(ended.insert(run, (mark, code)).is_none(), || format!("two ends: {mark:?}"));
            }
        }
    }
    for ((id, attempt), (end, _)) in &ended {
        let next = started.range((*id, attempt + 1)..=(*id, u32::MAX)).next();
        wrongs.unless(next.is_none_or(|(_, start)| start.at > end.at), || format!("{next:?} began before {end:?}"));
    }
    for (id, known) in jobs {
        for run in &known.history {
            let key = (id.as_str(), run.number);
            let marked = (started.contains_key(&key), ended.get(&key).map(|(_, code)| *code));
            let is_right = match run.outcome {
                Outcome::Completed | Outcome::Failed => marked == (true, run.exit_code),
                _ => true,
            };
            wrongs.unless(is_right, || format!("job {id}: {run:?}, but the ledger says {marked:?}"));
        }
    }
}

/// What the boards of killed pools said against what was made of it.
fn boards(storm: &Storm, jobs: &BTreeMap<String, Known>, wrongs: &mut Wrongs) {
    let by_seq: BTreeMap<Seq, &Known> = jobs.values().map(|known| (known.job.seq, known)).collect();
    let mut lost = BTreeSet::new();
    for noted in storm.boards.iter().flat_map(|board| &board.runs) {
        let Some(known) = by_seq.get(&noted.seq) else { panic!("a job that is not there was noted: {noted:?}") };
        let outcome = known.history.iter().find(|run| run.number == noted.attempt).map(|run| run.outcome);
        let is_right = match noted.outcome {
            None => outcome == Some(Outcome::Lost),
            // In the last moments of its pool.
            Some(Outcome::Failed) => matches!(outcome, Some(Outcome::Failed | Outcome::Interrupted)),
            seen => outcome == seen,
        };
        wrongs.unless(is_right, || format!("the board said {noted:?}: {:#?}", known.history));
        if noted.outcome.is_none() {
            lost.insert((noted.seq, noted.attempt));
        }
    }
    for known in jobs.values() {
        for run in known.history.iter().filter(|run| run.outcome == Outcome::Lost) {
            let was_noted = lost.contains(&(known.job.seq, run.number));
            wrongs.unless(was_noted, || format!("job {}: lost, but never started: {run:?}", known.job.id));
        }
    }
}

/// What attempts that ended by themselves wrote is kept.
fn outputs(snapshot: &Snapshot, queue: &Path, known: &Known, wrongs: &mut Wrongs) -> Result<(), StoreError> {
    let Known { job, kind, history } = known;
    for run in history.iter().filter(|run| matches!(run.outcome, Outcome::Completed | Outcome::Failed)) {
        for (stream, name, bytes) in [(Stream::Stdout, "out", kind.out), (Stream::Stderr, "err", kind.err)] {
            let (kept, left_out) = match snapshot.output(job.seq, run.number, stream)? {
                None | Some(Output::Empty | Output::LetGo { .. }) => (Vec::new(), 0),
                Some(Output::Inline(bytes)) => (bytes, 0),
                Some(Output::File { left_out, .. }) => {
                    (fs::read(output_path(queue, job.seq, run.number, stream)).unwrap_or_default(), left_out)
                }
            };
            let whole = kind.text(run.number, name, bytes);
            wrongs.unless(is_kept(&kept, left_out, &whole), || {
                format!("job {} attempt {}: {} bytes of {} kept of {name}", job.id, run.number, kept.len(), whole.len())
            });
        }
    }
    Ok(())
}

/// All of it, after the words of the test harness; or head and tail, with a note about the rest.
fn is_kept(kept: &[u8], left_out: u64, whole: &[u8]) -> bool {
    const HALF: usize = 4 * 1024;
    if left_out == 0 {
        return kept.ends_with(whole) && kept.len() <= 2 * HALF;
    }
    let note = format!("\n[queuectl left out {left_out} bytes here: see output-limit]\n");
    let tail = kept.get(HALF..).and_then(|rest| rest.strip_prefix(note.as_bytes()));
    tail.is_some_and(|tail| tail.len() == HALF && whole.ends_with(tail))
}
