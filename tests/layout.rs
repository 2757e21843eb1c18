//! Folders are floors: imports only point down, and some names stay where they belong.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the top down. `sim` stands beside them, for tests and fuzz targets: it may use `store` and `model`,
/// and for the entries of the fuzz targets ([`SIM_ABOVE_STORE`]) any floor; nothing else uses it.
const FLOORS: [&str; 5] = ["cli", "worker", "queue", "store", "model"];

/// A name, and the only place under `src/` that may use it.
const HOMES: [(&str, &str); 6] = [
    ("redb::", "store/"),
    ("bincode", "store/codec.rs"),
    ("println!", "nowhere"),
    ("SystemTime::now", "queue/clock.rs"),
    ("Instant::now", "queue/clock.rs"),
    ("unsafe {", "worker/child.rs"),
];

/// Where `sim` reaches above the store.
const SIM_ABOVE_STORE: &str = "sim/fuzz";

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code of a file without its comments and tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests") || path.ends_with("specimen.rs") || path.starts_with("sim/")
}

#[test]
fn imports_only_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for (height, floor) in FLOORS.iter().enumerate() {
        for file in sources(&src.join(floor)) {
            if is_test(file.strip_prefix(&src).unwrap().to_str().unwrap()) {
                continue;
            }
            for above in &FLOORS[..height] {
                let import = format!("crate::{above}");
                assert!(!code(&file).contains(&import), "{} reaches up to {above}", file.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} files were found");
}

#[test]
fn the_simulation_stands_beside_the_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src) {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let code = code(&file);
        if name.starts_with("sim/") {
            for above in ["crate::cli", "crate::worker", "crate::queue"] {
                assert!(name.starts_with(SIM_ABOVE_STORE) || !code.contains(above), "{name} reaches up to {above}");
            }
        } else if !is_test(name) {
            assert!(!code.contains("crate::sim"), "{name} uses the simulation");
        }
    }
}

#[test]
fn some_names_have_a_home() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src) {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        if is_test(name) {
            continue;
        }
        let code = code(&file);
        for (word, home) in HOMES {
            assert!(name.starts_with(home) || !code.contains(word), "{name} names {word}, whose home is {home}");
        }
    }
}
