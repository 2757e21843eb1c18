//! Spaces, depth, and bytes that are no UTF-8, in folders, commands, arguments and variables.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::{Bench, Done};

/// Latin-1 with a space: no UTF-8.
const NAME: &[u8] = b"caf\xe9 au lait";
/// The same in base64.
const NAME_BASE64: &str = "Y2Fm6SBhdSBsYWl0";

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// A folder of that name in the bench's.
fn folder(bench: &Bench, name: &[u8]) -> PathBuf {
    let folder = bench.path().join(OsStr::from_bytes(name));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn at<const N: usize>(bench: &Bench, folder: &Path, args: [&str; N]) -> Done {
    bench.cmd(args).cwd(folder).run()
}

fn job(done: Done) -> Value {
    serde_json::from_str(&done.ok()).unwrap()
}

#[test]
fn a_queue_lives_in_any_folder() {
    let bench = Bench::new();
    for name in [NAME, b"with  spaces", b"'quoted\" $HOME", b"-dash", b"new\nline", "öäü☃".as_bytes()] {
        let folder = folder(&bench, name);
        at(&bench, &folder, ["enqueue", "-c", "pwd"]).ok();
        at(&bench, &folder, ["worker", "start", "--until-empty"]).ok();
        let logs = at(&bench, &folder, ["logs", "1"]);
        assert_eq!(logs.stdout, [folder.as_os_str().as_bytes(), b"\n"].concat(), "{name:?}");
        for args in [["status"].as_slice(), &["status", "--json"], &["list"], &["show", "1"], &["check"]] {
            bench.cmd(args).cwd(&folder).run().ok();
        }
        let run = bench.cmd(["run", "-q", "--", "pwd"]).cwd(&folder).run();
        assert_eq!((run.code, &run.stdout), (0, &logs.stdout), "{name:?}");
    }
}

#[test]
fn a_folder_that_is_no_utf_8_has_its_form_in_json() {
    let bench = Bench::new();
    let folder = folder(&bench, NAME);
    at(&bench, &folder, ["enqueue", "-c", "pwd"]).ok();
    let of = |path: &Path| json!({"base64": base64(path.as_os_str().as_bytes())});
    assert_eq!(job(at(&bench, &folder, ["show", "1", "--json"]))["cwd"], of(&folder));
    assert_eq!(job(at(&bench, &folder, ["status", "--json"]))["queue_path"], of(&folder.join(".queuectl")));
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn commands_and_arguments_are_kept_to_the_byte() {
    let bench = Bench::new();
    assert_eq!(base64(NAME), NAME_BASE64);
    let text = [b"printf %s '", NAME, b"'"].concat();
    bench.cmd([os(b"enqueue"), os(b"-c"), os(&text)]).run().ok();
    bench.cmd([os(b"enqueue"), os(b"--"), os(b"printf"), os(b"%s"), os(NAME)]).run().ok();
    bench.cmd(["enqueue", "-"]).stdin(text.clone()).run().ok();
    bench.work().ok();
    for id in ["1", "2", "3"] {
        assert_eq!(bench.cmd(["logs", id]).run().stdout, NAME, "{id}");
    }
    assert_eq!(bench.json("show 1 --json")["command"], json!({"base64": base64(&text)}));
    assert_eq!(bench.json("show 2 --json")["argv"], json!(["printf", "%s", {"base64": NAME_BASE64}]));
    // For people it is shown as well as it can be.
    assert!(bench.ok("list").contains("caf\u{fffd} au lait"));
    assert!(bench.ok("show 1").contains("caf\u{fffd} au lait"));
    let run = bench.cmd([os(b"run"), os(b"-q"), os(b"--"), os(b"printf"), os(b"%s"), os(NAME)]).run();
    assert_eq!((run.code, run.stdout.as_slice()), (0, NAME));
    bench.check();
}

#[test]
fn what_json_shows_enqueue_takes_back() {
    let bench = Bench::new();
    let folder = folder(&bench, NAME);
    let text = [b"printf '%s.' '", NAME, b"'; pwd"].concat();
    bench.cmd([os(b"--db"), os(b"../.queuectl"), os(b"enqueue"), os(b"-c"), os(&text)]).cwd(&folder).run().ok();
    let words = [os(b"--db"), os(b"../.queuectl"), os(b"enqueue"), os(b"--"), os(b"printf"), os(b"%s"), os(NAME)];
    bench.cmd(words).cwd(&folder).run().ok();
    let again = |id: &str| {
        let shown = bench.json(&format!("show {id} --json"));
        let spec = json!({"command": shown["command"], "argv": shown["argv"], "cwd": shown["cwd"]});
        let id = bench.cmd(["enqueue", "-q", &spec.to_string()]).run().ok();
        let again = bench.json(&format!("show {} --json", id.trim()));
        for field in ["command", "argv", "cwd"] {
            assert_eq!(again[field], shown[field]);
        }
        id.trim().to_owned()
    };
    let ids = [again("1"), again("2")];
    bench.work().ok();
    for (first, second) in ["1", "2"].into_iter().zip(&ids) {
        let logs = |id: &str| bench.cmd(["logs", id]).run().stdout;
        assert_eq!(logs(first), logs(second));
        assert!(logs(second).starts_with(NAME));
    }
}

#[test]
fn variables_are_kept_to_the_byte() {
    let bench = Bench::new();
    bench.cmd(["enqueue", "-c", "printf %s \"$V\""]).env("V", os(NAME)).run().ok();
    bench.add(&json!({"command": "printf %s \"$V\"", "env": {"V": {"base64": NAME_BASE64}}}).to_string());
    bench.work().ok();
    for id in ["1", "2"] {
        assert_eq!(bench.cmd(["logs", id]).run().stdout, NAME);
    }
}

#[test]
fn files_of_jobs_have_any_name() {
    let bench = Bench::new();
    let path = bench.path().join(OsStr::from_bytes(NAME));
    fs::write(&path, "echo one\n").unwrap();
    bench.cmd([os(b"enqueue"), os(b"--file"), os(NAME)]).run().ok();
    let run = bench.cmd([os(b"run"), os(NAME)]).run();
    assert_eq!(run.ok(), "one\n");
    fs::write(&path, "{\"comand\":1}\n").unwrap();
    let done = bench.cmd([os(b"run"), os(NAME)]).run();
    done.says(2, &["caf\u{fffd} au lait: line 1"]);
}

#[test]
fn the_option_takes_a_folder_of_any_name() {
    let bench = Bench::new();
    bench.cmd([os(b"--db"), os(NAME), os(b"enqueue"), os(b"-c"), os(b"true")]).run().ok();
    bench.cmd(["worker", "start", "--until-empty"]).env("QUEUECTL_DB", os(NAME)).run().ok();
    assert!(bench.path().join(OsStr::from_bytes(NAME)).join("queue.redb").exists());
}

#[test]
fn ids_and_names_that_are_no_utf_8_are_refused() {
    let bench = Bench::new();
    bench.enqueue("true");
    let done = bench.cmd([os(b"show"), os(NAME)]).run();
    assert_eq!(done.code, 2, "{done:?}");
    let done = bench.cmd([os(b"config"), os(b"get"), os(NAME)]).run();
    assert_eq!(done.code, 2, "{done:?}");
    let done = bench.cmd([os(b"enqueue"), os(b"{\"command\":\"caf\xe9\"}")]).run();
    done.says(2, &["line 1, column"]);
}

#[test]
fn a_very_deep_folder_works() {
    let bench = Bench::new();
    let mut deep = bench.path().to_owned();
    while deep.as_os_str().len() < 3_800 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    assert_eq!(at(&bench, &deep, ["run", "-q", "--", "pwd"]).ok(), format!("{}\n", deep.display()));
    at(&bench, &deep, ["enqueue", "-c", "seq 10000"]).ok();
    at(&bench, &deep, ["worker", "start", "--until-empty"]).ok();
    assert_eq!(at(&bench, &deep, ["logs", "2"]).ok().lines().count(), 10_000);
    at(&bench, &deep, ["check"]).ok();
}

#[test]
fn a_folder_deeper_than_any_path_is_told_about() {
    let bench = Bench::new();
    let name = "d".repeat(200);
    // Step by step: the whole path is longer than system calls take.
    let script = format!(
        "for i in $(seq 25); do mkdir {name} && cd -P {name} 2>/dev/null || exit 99; done; queuectl enqueue -c true"
    );
    let done = bench.script(&script).run();
    if done.code == 99 {
        println!("skipped: this shell cannot go that deep");
        return;
    }
    assert!(matches!(done.code, 5 | 7) && done.stderr.contains("too long"), "{done:?}");
    assert!(!done.stderr.contains("panic"), "{done:?}");
}
