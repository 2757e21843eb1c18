//! Small file systems: in a mount namespace of the test's own, so that any user can make them and nothing stays
//! mounted.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{is_root, tool};

/// Set in the process that is in the namespace.
const INSIDE: &str = "QUEUECTL_TEST_INSIDE_MOUNTS";
/// Set by who wants tests that need mounts to be passed over.
const SKIP: &str = "QUEUECTL_TEST_WITHOUT_MOUNTS";

/// A small tmpfs, mounted until it is dropped.
pub struct Disk {
    path: PathBuf,
}

/// Runs the body of a test, which passes itself as a closure, in a process of its own that may mount. Where that is
/// not possible the test fails, unless the environment says that it may be passed over.
pub fn with_mounts<F: FnOnce()>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if std::env::var_os(SKIP).is_some() {
        println!("skipped: {SKIP} is set");
        return;
    }
    let unshare = if is_root() { "-m" } else { "-rm" };
    let may = tool("unshare").args([unshare, "mount", "-t", "tmpfs", "none", "/tmp"]).output();
    assert!(
        may.as_ref().is_ok_and(|done| done.status.success()),
        "this user may not mount in a namespace (unshare {unshare}): {may:?}; {SKIP}=1 passes such tests over"
    );
    // `it::full_disk::the_test::{{closure}}`
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").unwrap().1.trim_end_matches("::{{closure}}");
    let done = tool("unshare")
        .arg(unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{said}");
    assert!(done.status.success() && said.contains("1 passed"), "it failed in its namespace, see above");
}

impl Disk {
    pub(super) fn mount(path: &Path, options: &str) -> Self {
        let mounted = tool("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(path).status().unwrap();
        assert!(mounted.success());
        Self { path: path.to_owned() }
    }

    /// Takes what room there is, but for so many bytes.
    pub fn fill_but(&self, spare: u64) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        let full = filler.metadata().unwrap().len();
        filler.set_len(full - full.min(spare)).unwrap();
    }

    pub fn fill(&self) {
        self.fill_but(0);
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(tool("mount").args(["-o", &options]).arg(&self.path).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With whatever is open there still.
        let _ = tool("umount").arg("-l").arg(&self.path).status();
    }
}
