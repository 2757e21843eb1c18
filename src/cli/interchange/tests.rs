//! Out and in again: the same, for every workload; and for hostile input an error or a sound queue.

use std::fs;
use std::io::BufReader;

use tempfile::TempDir;

use super::*;
use crate::model::*;
use crate::sim::{run, workload};
use crate::store::tests::temp_queue;
use crate::store::{Import, Piece, Snapshot, Store, StoreError};

const NOW: Millis = Millis(2_000_000_000_000);

/// What a queue exports.
fn exported(store: &Store) -> (Vec<u8>, Written, Vec<Note>) {
    let mut out = Vec::new();
    let mut notes = Vec::new();
    let written = store
        .read(|snapshot| Ok(write(snapshot, store.folder(), NOW, &mut out, &mut |note| notes.push(note)).unwrap()))
        .unwrap();
    (out, written, notes)
}

/// Takes an export into a queue, without the large outputs.
fn import(store: &Store, export: &[u8]) -> Result<(), String> {
    let mut reader = Reader::new(BufReader::new(export));
    let mut pieces = Vec::new();
    while let Some(item) = reader.next().map_err(|error| error.to_string())? {
        if let Item::Piece(_, piece) = item {
            pieces.push(piece);
        }
    }
    let taken = store.write(Millis(1), |tx| {
        let mut import = Import::begin(tx, reader.exported_at())?;
        pieces.into_iter().try_for_each(|piece: Piece| import.take(tx, piece))?;
        import.finish(tx)
    });
    match taken {
        Ok(_) => Ok(()),
        Err(error @ (StoreError::Duplicate(_) | StoreError::Contradiction(_))) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn is_sound(store: &Store) {
    let report = store.read(Snapshot::check).unwrap();
    assert_eq!(report.violations, [""; 0]);
}

fn imported(export: &[u8]) -> (TempDir, Store) {
    let (dir, store) = temp_queue();
    import(&store, export).unwrap();
    is_sound(&store);
    (dir, store)
}

fn text(export: &[u8]) -> String {
    String::from_utf8(export.to_vec()).unwrap()
}

#[test]
fn every_workload_comes_back_byte_for_byte() {
    let mut states = std::collections::BTreeSet::new();
    for seed in 0..80 {
        let (_dir, store) = temp_queue();
        run(&store, &workload::seeded(seed, 120)).unwrap();
        let (first, written, _) = exported(&store);
        let (_other, again) = imported(&first);
        let (second, _, _) = exported(&again);
        assert!(first == second, "seed {seed}: {}", difference(&first, &second));
        let jobs = store.read(|s| Ok(s.counts()?.values().sum::<u64>())).unwrap();
        assert_eq!(written.totals.jobs, jobs);
        assert_eq!(written.totals.lost, 0);
        states.extend(again.read(|s| Ok(s.counts()?.into_iter().filter(|(_, n)| *n > 0).map(|(kind, _)| kind).collect::<Vec<_>>())).unwrap());
    }
    let all = StateKind::ALL.into_iter().filter(|kind| !matches!(kind, StateKind::Blocked | StateKind::Processing));
    assert_eq!(states.into_iter().collect::<Vec<_>>(), all.collect::<Vec<_>>());
}

fn difference(a: &[u8], b: &[u8]) -> String {
    let (a, b) = (text(a), text(b));
    let differ = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    format!("{differ:?}, {} and {} lines", a.lines().count(), b.lines().count())
}
