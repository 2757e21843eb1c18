//! The corpus, again: what fuzzing once reached stays reached, without a fuzzer.
//!
//! A corpus begins with seeds, which a test writes: `cargo test --lib corpus -- --ignored seeds`. Then the fuzzer adds
//! to it, and `cargo fuzz cmin` keeps what is needed to reach the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::super::choices::Choices;
use super::*;
use crate::store::Snapshot;
use crate::store::tests::temp_queue;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs every input of a target's corpus, named if it fails.
fn replay(target: &str, run: impl Fn(&[u8])) {
    let mut inputs: Vec<PathBuf> = fs::read_dir(corpus(target)).unwrap().map(|file| file.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    for input in inputs {
        println!("{}", input.display());
        run(&fs::read(&input).unwrap());
    }
}

#[test]
fn corpus_of_store_model() {
    replay("store_model", store_model);
}

#[test]
fn corpus_of_store_crash() {
    replay("store_crash", store_crash);
}

#[test]
fn corpus_of_codec() {
    replay("codec", |bytes| {
        let used = allocation_counter::measure(|| codec(bytes)).bytes_max;
        assert!(used <= codec_bytes_max(bytes.len()) as u64, "{used} bytes of memory for {}", bytes.len());
    });
}

#[test]
fn corpus_of_job_json() {
    replay("job_json", job_json);
}

#[test]
fn corpus_of_dispatcher() {
    replay("dispatcher", dispatcher);
}

/// Nothing is fuzzed that the tests here do not replay.
#[test]
fn every_target_is_replayed() {
    let names = |folder: &str| -> BTreeSet<String> {
        let folder = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)).unwrap();
        folder.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let replayed = BTreeSet::from(["codec", "dispatcher", "job_json", "store_crash", "store_model"].map(str::to_owned));
    assert_eq!((names("fuzz_targets"), names("corpus")), (replayed.clone(), replayed));
}

/// The types in records.rs that a table holds are those whose description begins with the table's name.
#[test]
fn no_type_of_record_is_left_out() {
    let source = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (records, tried) = (source("src/store/records.rs"), source("src/store/codec/roundtrip.rs"));
    let mut found = 0;
    for description in records.split("\n/// ").filter(|text| text.starts_with(|c: char| c.is_ascii_uppercase())) {
        let table = description.split([':', ' ']).next().unwrap();
        if table.len() < 3 || !table.chars().all(|c| c.is_ascii_uppercase()) {
            continue;
        }
        let (_, name) = description.split_once("struct ").unwrap();
        let name = name.split([' ', '(']).next().unwrap();
        assert!(tried.contains(&format!("comes_back::<{name}>")), "{name} of {table} is not tried");
        found += 1;
    }
    assert!(found >= 8, "only {found} types were found");
}

/// However long a record is, and whatever lengths it claims.
#[test]
fn hostile_records_take_no_more_memory_than_they_may() {
    for (byte, len) in [(0, 0), (0, 4_000_000), (1, 100_000), (251, 1_000), (252, 9), (253, 9), (254, 17)] {
        let bytes = vec![byte; len];
        let used = allocation_counter::measure(|| codec(&bytes)).bytes_max;
        assert!(used <= codec_bytes_max(len) as u64, "{used} bytes of memory for {len} times {byte}");
    }
}

fn random_bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut choices = Choices::seeded(u64::from(seed));
    (0..len).map(|_| choices.byte(255)).collect()
}

/// Every record that a lively queue holds, without its header.
fn records() -> BTreeSet<Vec<u8>> {
    let (_dir, store) = temp_queue();
    super::super::run(&store, &workload::seeded(7, 300)).unwrap();
    let records = store.read(Snapshot::records).unwrap();
    // One of each length: thirty kinds, not thousands of jobs.
    let by_len: BTreeMap<usize, Vec<u8>> = records.into_iter().map(|record| (record.len(), record)).collect();
    by_len.into_values().map(|record| record[5..].to_vec()).collect()
}

const JOBS: [&str; 10] = [
    r#"{"id":"job1","command":"echo Hello World"}"#,
    r#"{"argv":["ls","-l",{"base64":"/w=="}],"max_retries":1,"backoff_base":0.5,"timeout":"5m","cwd":"../x"}"#,
    r#"{"command":"env","env":{"A":"1","B":null,"C":{"base64":"/w=="}},"shell":["/bin/bash","-c"],"queue":"mail"}"#,
    "{\"command\":\"a\",\"timeout\":0.0015}\n\n# no job\n{\"command\":\"b\",\"id\":\"2\",\"timeout\":\"none\"}\n",
    "\u{feff}echo one\r\nsleep 1 && echo two\r\n  # no job\r\nls a\\ \n",
    r#"{"comand":"typo"}"#,
    r#"{"id":"a","id":"b","command":"twice"}"#,
    r#"{"command":"\u0000\ud800"}"#,
    r#"[{"command":"a list"}]"#,
    r#"{"command":"a","id":"a","after":["b","7"],"after_any":"c"}"#,
];

#[test]
#[ignore = "writes the seeds of the corpus into fuzz/corpus"]
fn seeds() {
    let write = |target: &str, name: usize, bytes: &[u8]| {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(format!("seed-{name:02}")), bytes).unwrap();
    };
    for (n, record) in records().iter().enumerate() {
        write("codec", n, record);
    }
    for (n, text) in JOBS.iter().enumerate() {
        write("job_json", n, text.as_bytes());
    }
    for n in 0..10 {
        write("store_model", n.into(), &random_bytes(n, 400));
        write("store_crash", n.into(), &[&[n, n, 7], &random_bytes(n, 300)[..]].concat());
        write("dispatcher", n.into(), &random_bytes(n, 600));
    }
}
