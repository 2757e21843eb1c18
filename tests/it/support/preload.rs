//! Libraries that are preloaded into a process to make the system lie to it: `tests/support/NAME.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::tool;

/// The library of this name, built once.
pub fn preload(name: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let source = format!("{}/tests/support/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lib{name}.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done =
        tool(rustc).args(["--edition", "2024", "--crate-type", "cdylib", "-O", &source, "-o"]).arg(&library).status();
    assert!(done.unwrap().success());
    library
}
