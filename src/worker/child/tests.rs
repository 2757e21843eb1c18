//! What a child is given and what it is not, told by the child.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::SigSet;
use rustix::fs::{fstat, readlink};
use rustix::io::fcntl_getfd;

use super::probes::{Ignored, fork_and_reap, forks_in};
use super::*;
use crate::worker::program::resolve;
use crate::worker::specimen::{PATH, Recipe, Specimen};

/// The file of a program of the search path.
fn program(name: &str) -> CString {
    resolve(name.as_bytes(), Some(PATH.as_bytes()), Path::new("/")).unwrap()
}

/// The errno with which a spawn fails.
fn refused(recipe: &Recipe<'_>) -> Option<i32> {
    Specimen::start(recipe).err().unwrap().raw_os_error()
}

/// What `/proc/<who>/fd/<fd>` points to.
fn open_file(who: &str, fd: impl std::fmt::Display) -> String {
    readlink(format!("/proc/{who}/fd/{fd}"), Vec::new()).unwrap().into_string().unwrap()
}

/// The value of a line of `/proc/<pid>/status`.
fn value<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap()
}

#[test]
fn the_environment_arrives_exactly() {
    let env: [&[u8]; 4] = [b"B=2", b"A= \n\xff\x01=x", b"EMPTY=", b"B=again"];
    let env_program = program("env");
    let recipe = Recipe { program: env_program.as_bytes(), argv: &[b"env", b"-0"], env: &env, ..Recipe::default() };
    let mut child = Specimen::start(&recipe).unwrap();
    assert_eq!(child.rest(), [env.join(&0), vec![0]].concat());
}

#[test]
fn the_folder_arrives_exactly() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().canonicalize().unwrap().join(OsStr::from_bytes(b"a b\xff\n"));
    fs::create_dir(&folder).unwrap();
    let readlink = program("readlink");
    let argv: [&[u8]; 3] = [b"readlink", b"-n", b"/proc/self/cwd"];
    let recipe = Recipe { program: readlink.as_bytes(), argv: &argv, cwd: &folder, ..Recipe::default() };
    assert_eq!(Specimen::start(&recipe).unwrap().rest(), folder.as_os_str().as_bytes());
}

#[test]
fn the_arguments_arrive_as_typed() {
    let cat = program("cat");
    let argv: [&[u8]; 3] = [b"./as typed\xff", b"/proc/self/cmdline", b""];
    let mut child = Specimen::start(&Recipe { program: cat.as_bytes(), argv: &argv, ..Recipe::default() }).unwrap();
    assert!(child.rest().starts_with(b"./as typed\xff\0/proc/self/cmdline\0\0"));
}

#[test]
fn a_relative_program_is_that_of_the_folder() {
    let recipe =
        Recipe { program: b"./sh", argv: &[b"sh", b"-c", b"echo here"], cwd: Path::new("/bin"), ..Recipe::default() };
    assert_eq!(Specimen::start(&recipe).unwrap().text(), "here\n");
}

#[test]
fn signals_that_are_blocked_or_ignored_here_are_at_their_defaults_there() {
    let _ignored = [libc::SIGHUP, libc::SIGRTMIN() + 3].map(Ignored::new);
    let blocked = SigSet::all();
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
    let mine = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mut child = Specimen::run(&["cat", "/proc/self/status"]);
    before.thread_set_mask().unwrap();
    let theirs = child.text();
    for set in ["SigBlk", "SigIgn"] {
        assert_ne!(value(&mine, set), "0000000000000000", "nothing to be seen by this test");
        assert_eq!(value(&theirs, set), "0000000000000000", "{set}");
    }
}

#[test]
fn a_child_leads_its_own_session_and_has_no_terminal() {
    let mut child = Specimen::run(&["cat", "/proc/self/stat"]);
    let (pid, stat) = (child.pid.to_string(), child.text());
    let fields: Vec<&str> = stat.split(' ').collect();
    assert_eq!((fields[4], fields[5], fields[6]), (pid.as_str(), pid.as_str(), "0"), "{stat}");
    let mut child = Specimen::sh("exec 3< /dev/tty");
    let complaint = child.text();
    assert!(complaint.contains("No such device or address"), "{complaint}");
}

#[test]
fn stdin_stdout_and_stderr_are_those_that_were_given() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| File::create(root.path().join(name)).unwrap();
    let (out, err) = (file("out"), file("err"));
    let argv: [&[u8]; 3] = [b"sh", b"-c", b"readlink /proc/$$/fd/0; echo complaint >&2"];
    let stdio = [None, Some(out.as_fd()), Some(err.as_fd())];
    let mut child = Specimen::start(&Recipe { program: b"/bin/sh", argv: &argv, stdio, ..Recipe::default() }).unwrap();
    child.reap();
    let content = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!((content("out").as_str(), content("err").as_str()), ("/dev/null\n", "complaint\n"));
}

#[test]
fn files_that_are_themselves_0_1_or_2_do_not_overwrite_each_other() {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let script = b"a=$(readlink /proc/$$/fd/0); b=$(readlink /proc/$$/fd/1); echo \"$a\" >&2; echo \"$b\" >&2";
    let cases = [
        ([Some(stdout.as_fd()), Some(stdin.as_fd()), None], ["1", "0"]),
        ([Some(stdin.as_fd()), Some(stdin.as_fd()), None], ["0", "0"]),
        ([None, Some(stdin.as_fd()), None], ["null", "0"]),
        ([Some(stdin.as_fd()), Some(stdout.as_fd()), None], ["0", "1"]),
    ];
    for (stdio, expected) in cases {
        let argv: [&[u8]; 3] = [b"sh", b"-c", script];
        let mut child =
            Specimen::start(&Recipe { program: b"/bin/sh", argv: &argv, stdio, ..Recipe::default() }).unwrap();
        let expected = expected.map(|fd| if fd == "null" { "/dev/null".to_owned() } else { open_file("self", fd) });
        assert_eq!([child.line(), child.line()], expected);
    }
}

#[test]
fn a_file_that_is_0_1_or_2_is_copied_above_them_and_others_are_not() {
    let stdin = io::stdin();
    let copy = Source::of(stdin.as_fd()).unwrap();
    assert!(copy.as_fd().as_raw_fd() >= FIRST_ABOVE_STDIO);
    assert!(fcntl_getfd(copy.as_fd()).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(open_file("self", copy.as_fd().as_raw_fd()), open_file("self", 0));
    let null = File::open("/dev/null").unwrap();
    assert_eq!(Source::of(null.as_fd()).unwrap().as_fd().as_raw_fd(), null.as_raw_fd());
}

#[test]
fn no_other_file_leaks_into_the_child() {
    let (reader, _writer) = io::pipe().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mine = [format!("pipe:[{}]", fstat(&reader).unwrap().st_ino), file.path().display().to_string()];
    let listing = Specimen::run(&["ls", "-l", "/proc/self/fd"]).text();
    assert!(listing.contains("/dev/null"), "{listing}");
    for open in &mine {
        assert!(!listing.contains(open), "{open} in {listing}");
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let sh = |cwd| Recipe { program: b"/bin/sh", argv: &[b"sh"], cwd, ..Recipe::default() };
    assert_eq!(refused(&sh(Path::new("/nonexistent"))), Some(libc::ENOENT));
    assert_eq!(refused(&sh(Path::new("/dev/null"))), Some(libc::ENOTDIR));
    let missing = Recipe { program: b"/bin/nonexistent", argv: &[b"x"], ..Recipe::default() };
    assert_eq!(refused(&missing), Some(libc::ENOENT));
    let folder = Recipe { program: b"/bin", argv: &[b"x"], ..Recipe::default() };
    assert_eq!(refused(&folder), Some(libc::EACCES));
}

/// An executable file with this content. Another process writes it, since a spawn of another test could carry a
/// descriptor that is open for writing to it past the moment of its execution, which then fails.
fn script(folder: &Path, content: &str) -> PathBuf {
    let file = folder.join("script");
    let mut writer = Specimen::sh(&format!("echo '{content}' > {0} && chmod +x {0}", file.display()));
    assert_eq!(writer.reap().exit, Exit::Code(0));
    file
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    let root = tempfile::tempdir().unwrap();
    script(root.path(), r#"echo "$0" "$@""#);
    let argv: [&[u8]; 3] = [b"as typed", b"one", b"two three"];
    let recipe = Recipe { program: b"./script", argv: &argv, cwd: root.path(), ..Recipe::default() };
    assert_eq!(Specimen::start(&recipe).unwrap().text(), "./script one two three\n");
}

#[test]
fn the_end_is_told_as_it_was() {
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 200", Exit::Code(200)),
        ("kill -KILL $$", Exit::Signal(libc::SIGKILL)),
        ("kill -TERM $$", Exit::Signal(libc::SIGTERM)),
    ] {
        let mut child = Specimen::sh(script);
        wait_until_exited(child.pid).unwrap();
        wait_until_exited(child.pid).unwrap();
        assert_eq!(child.reap().exit, exit, "{script}");
    }
}

#[test]
fn time_and_memory_are_told() {
    let mut child = Specimen::sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    let reaped = child.reap();
    assert!(reaped.cpu > Duration::ZERO, "{reaped:?}");
    assert!(reaped.max_rss_bytes > 100 << 10, "{reaped:?}");
}

#[test]
fn who_is_no_child_cannot_be_collected() {
    assert_eq!(reap(Pid::INIT).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    assert_eq!(wait_until_exited(Pid::INIT).unwrap_err().raw_os_error(), Some(libc::ECHILD));
}

#[test]
fn spawning_never_forks() {
    assert_eq!(forks_in(fork_and_reap), 1, "forks are not counted here");
    let spawn_both_ways = || {
        Specimen::sh("exit 0").reap();
        assert_eq!(
            refused(&Recipe { program: b"/nonexistent", argv: &[b"x"], ..Recipe::default() }),
            Some(libc::ENOENT)
        );
    };
    assert_eq!(forks_in(spawn_both_ways), 0);
}
