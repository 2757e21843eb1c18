//! Out and in again: the same, for every workload; and for hostile input an error or a sound queue.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::model::*;
use crate::sim::choices::Choices;
use crate::sim::{run, workload};
use crate::store::tests::{pool, ran, temp_queue};
use crate::store::{ClaimCache, Import, NewRun, Piece, Serves, Snapshot, Store, StoreError};
use crate::worker::output_path;

const NOW: Millis = Millis(2_000_000_000_000);

/// What a queue exports.
fn exported(store: &Store) -> (Vec<u8>, Written, Vec<Note>) {
    let mut out = Vec::new();
    let mut notes = Vec::new();
    let written = store
        .read(|snapshot| {
            Ok(write(snapshot, store.folder(), NOW, Vec::new(), &mut out, &mut |note| notes.push(note)).unwrap())
        })
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
    for seed in 0..25 {
        let (_dir, store) = temp_queue();
        run(&store, &workload::seeded(seed, 120)).unwrap();
        let (first, written, _) = exported(&store);
        let (_other, again) = imported(&first);
        let (second, _, _) = exported(&again);
        assert!(first == second, "seed {seed}: {}", difference(&first, &second));
        let jobs = store.read(|s| Ok(s.counts()?.values().sum::<u64>())).unwrap();
        assert_eq!(written.totals.jobs, jobs);
        assert_eq!(written.totals.lost, 0);
        states.extend(
            again
                .read(|s| Ok(s.counts()?.into_iter().filter(|(_, n)| *n > 0).map(|(kind, _)| kind).collect::<Vec<_>>()))
                .unwrap(),
        );
    }
    let all = StateKind::ALL.into_iter().filter(|kind| *kind != StateKind::Processing);
    assert_eq!(states.into_iter().collect::<Vec<_>>(), all.collect::<Vec<_>>());
}

fn difference(a: &[u8], b: &[u8]) -> String {
    let (a, b) = (text(a), text(b));
    let differ = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    format!("{differ:?}, {} and {} lines", a.lines().count(), b.lines().count())
}

/// Bytes of every kind: not UTF-8, control characters, a name that JSON escapes.
const WILD: &[u8] = b"caf\xe9 \xff\x01\"\\\n \xf0\x9f\x98\x80";

/// A queue with what workloads do not have.
fn wild() -> (TempDir, Store) {
    let (dir, store) = temp_queue();
    let env = Arc::new(Environment::from([
        (b"PATH".to_vec(), b"/bin".to_vec()),
        (b"WILD".to_vec(), WILD.to_vec()),
        (b"NA\xffME".to_vec(), b"x".to_vec()),
    ]));
    let argv = JobSpec {
        id: Some("7".parse().unwrap()),
        env: Arc::clone(&env),
        env_change: BTreeMap::from([
            (b"SET".to_vec(), Some(WILD.to_vec())),
            (b"UNSET".to_vec(), None),
            (b"\xfe".to_vec(), None),
        ]),
        max_retries: Some(RETRIES_MAX),
        backoff_base: Some(0.1 + 0.2),
        timeout: TimeLimit::from_duration(Duration::from_millis(31_535_999_999)),
        shell: Some(vec!["/bin/ba sh".to_owned(), "\u{1b}-c".to_owned()]),
        priority: -100,
        start: Start::At(Millis(u64::MAX)),
        ..JobSpec::new(Command::Argv(vec![WILD.to_vec(), Vec::new()]), "/a\u{9b}\n")
    };
    let shell = JobSpec { env, ..JobSpec::new(Command::Shell(WILD.to_vec()), "/") };
    let mut tags = Tags::default();
    tags.set("a", "").unwrap();
    tags.set("name", "\"\\\u{202e} é").unwrap();
    let argv = JobSpec { name: Some("Ü \u{202e}\"1\"".parse().unwrap()), tags, ..argv };
    let whole = JobSpec { timeout: Some(TimeLimit::After(Duration::from_secs(90))), priority: 100, ..shell.clone() };
    let new = NewRun {
        identity: u128::MAX,
        line: "a \u{1b}line".to_owned(),
        folder: "/x".into(),
        flags: "--f".to_owned(),
        is_command: true,
        resumes: false,
    };
    let info = pool("a.b.c");
    let claims = store
        .write(Millis(5), |tx| {
            tx.enqueue(&[argv, shell.clone(), whole.clone(), shell.clone()])?;
            tx.start_run(&new, &[whole], false)?;
            tx.set(None, SettingKey::Shell, r#"["/my shell","-c"]"#)?;
            tx.register(&info)?;
            tx.claim(&info.id, &Serves::AllQueues, 9, &mut ClaimCache::default())
        })
        .unwrap();
    let Ending::Ran(ran) = ran(Outcome::TimedOut, 9) else { panic!() };
    let error = Some("a \u{1b}[2J".to_owned());
    let file = Kept::File { bytes: 1_500_000, left_out: 7 };
    let ran = Run { stdout: Kept::Inline(WILD.to_vec()), stderr: file, signal: Some(64), error, ..ran };
    let gone = Run { stdout: Kept::File { bytes: 9, left_out: 0 }, stderr: Kept::Inline(Vec::new()), ..ran.clone() };
    store
        .write(Millis(6), |tx| {
            tx.finish(&claims[0].token, &Ending::Ran(ran))?;
            tx.finish(&claims[1].token, &Ending::Ran(gone))?;
            tx.cancel(&[claims[2].id.clone()])
        })
        .unwrap();
    let path = output_path(dir.path(), claims[0].token.seq(), 1, Stream::Stderr);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, large()).unwrap();
    (dir, store)
}

/// Text with characters of every length, so that parts end within some; then what is no text.
fn large() -> Vec<u8> {
    let mut large: Vec<u8> = "aé☃😀".repeat(140_000).into_bytes();
    large.truncate(1_400_000);
    large.resize(1_500_000, 0xff);
    large
}

#[test]
fn what_is_unusual_comes_back_too() {
    let (_dir, store) = wild();
    let (first, written, notes) = exported(&store);
    assert!(matches!(notes.as_slice(), [Note::Missing(_)]), "{notes:?}");
    assert_eq!((written.held, written.totals.lost, written.totals.output_bytes), (1, 0, 1_500_000));
    let longest = first.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap();
    assert!(longest < 2 * CHUNK_BYTES, "no line has all of a large output: {longest}");
    let (other, again) = imported(&first);
    assert_eq!(
        again.read(|s| Ok(s.job(s.find(&"7".parse().unwrap())?.unwrap())?.unwrap().cwd)).unwrap().as_os_str(),
        "/a\u{9b}\n"
    );

    let mut bytes = Vec::new();
    let mut reader = Reader::new(BufReader::new(first.as_slice()));
    while let Some(item) = reader.next().unwrap() {
        if let Item::Output(part) = item {
            assert_eq!(part.at, bytes.len() as u64);
            bytes.extend(part.bytes);
            assert_eq!(part.end == PartEnd::Last, bytes.len() == 1_500_000);
        }
    }
    assert!(bytes == large());

    let path = output_path(other.path(), Seq(3), 1, Stream::Stderr);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    let (second, _, _) = exported(&again);
    assert!(first == second, "{}", difference(&first, &second));
}

#[test]
fn what_ends_before_its_end_is_refused() {
    let (_dir, store) = wild();
    let (export, _, _) = exported(&store);
    let (_other, fresh) = temp_queue();
    let before = fresh.read(Snapshot::fingerprint).unwrap();
    let body = export.len() - 1;
    for cut in (0..body).step_by(9_973).chain(body - 300..body) {
        let refused = import(&fresh, &export[..cut]).unwrap_err();
        assert!(refused.contains("cut short") || refused.contains("is not an export"), "cut to {cut}: {refused}");
    }
    assert_eq!(fresh.read(Snapshot::fingerprint).unwrap(), before);
    import(&fresh, &export[..body]).unwrap();
}

/// What a line may be changed to hold, in the place of one of its values.
const VALUES: [&str; 22] = [
    "0",
    "1",
    "2",
    "-1",
    "3",
    "1e400",
    "0.5",
    "18446744073709551615",
    "9007199254740991",
    "4294967295",
    "null",
    "true",
    "\"\"",
    "\"x\"",
    "\"none\"",
    "\"pending\"",
    "\"dead\"",
    "[]",
    "{}",
    "[1]",
    "{\"base64\":\"/w==\"}",
    "\"9999-12-31T23:59:59.999Z\"",
];

/// One change of an export: a line left out, given twice, moved, or with another value somewhere.
fn changed(export: &str, dice: &mut Choices<'_>) -> String {
    let mut lines: Vec<String> = export.lines().map(str::to_owned).collect();
    let at = dice.index(lines.len());
    match dice.below(10) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let line = lines.remove(at);
            lines.insert(dice.index(lines.len()), line);
        }
        3 => lines[at].truncate(0),
        _ => {
            // A value follows a colon, a comma or a bracket, and ends before the next.
            let line = &lines[at];
            let starts: Vec<usize> = line.match_indices(':').map(|(at, _)| at + 1).collect();
            let Some(&start) = starts.get(dice.index(starts.len())) else { return export.to_owned() };
            let end = line[start..].find([',', '}']).map_or(line.len(), |end| start + end);
            lines[at] = format!("{}{}{}", &line[..start], VALUES[dice.index(VALUES.len())], &line[end..]);
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn a_changed_export_is_refused_or_makes_a_sound_queue() {
    let (_dir, small) = temp_queue();
    run(&small, &workload::seeded(3, 150)).unwrap();
    let export = text(&exported(&small).0);
    let mut dice = Choices::seeded(1);
    let (mut taken, mut refused) = (0, BTreeMap::<String, usize>::new());
    let (mut _other, mut store) = temp_queue();
    for _ in 0..3_000 {
        let mut hostile = changed(&export, &mut dice);
        while dice.below(3) == 0 {
            hostile = changed(&hostile, &mut dice);
        }
        match import(&store, hostile.as_bytes()) {
            Ok(()) => {
                taken += 1;
                is_sound(&store);
                // What was taken comes out and in again.
                let (out, _, _) = exported(&store);
                imported(&out);
                (_other, store) = temp_queue();
            }
            Err(error) => {
                let words = error.split(' ').skip(2).take(2).collect::<Vec<_>>().join(" ");
                *refused.entry(words).or_default() += 1;
            }
        }
    }
    assert!(taken > 100 && refused.len() > 20, "{taken} {refused:?}");
}
