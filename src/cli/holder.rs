//! Who keeps the queue file: told to a user who has waited for it for two seconds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::render::human::plain;

/// redb's writer lock is on the byte at 2^62 of the file.
const WRITER_BYTE: &str = " 4611686018427387904 4611686018427387904";
/// The header is locked for a moment at the beginning and the end of every transaction.
const HEADER_BYTES: &str = " 0 319";

/// Who holds the queue in `folder`, in a sentence.
pub(super) fn describe(folder: &Path) -> String {
    let who = holder(folder).map_or_else(
        || "another process".to_owned(),
        |(pid, name, stopped)| {
            let stopped = if stopped { ", which is stopped (kill -CONT lets it go on)" } else { "" };
            format!("process {pid} ({name}){stopped}")
        },
    );
    format!("waiting for the queue file, which {who} is using")
}

/// The process with the writer lock, else one with the header, else the one at the turnstile.
fn holder(folder: &Path) -> Option<(u32, String, bool)> {
    let queue = inode(&folder.join("queue.redb"))?;
    let turn = inode(&folder.join("run/turn"));
    let of_file = |line: &str, bytes: &str| line.contains("OFDLCK") && line.contains(&queue) && line.ends_with(bytes);
    let is_writer = |line: &str| of_file(line, WRITER_BYTE) && line.contains("WRITE");
    let has_header = |line: &str| of_file(line, HEADER_BYTES);
    let is_next = |line: &str| {
        line.contains("FLOCK") && line.contains("WRITE") && turn.as_ref().is_some_and(|turn| line.contains(turn))
    };
    find(is_writer).or_else(|| find(has_header)).or_else(|| find(is_next))
}

/// How `/proc/*/fdinfo/*` writes an inode: `MAJOR:MINOR:INODE`, the device in hexadecimal.
fn inode(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    Some(format!("{major:02x}:{minor:02x}:{} ", metadata.ino()))
}

/// The first process other than this one with a lock that `is_it`.
fn find(is_it: impl Fn(&str) -> bool) -> Option<(u32, String, bool)> {
    let own = std::process::id();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        let Ok(infos) = fs::read_dir(entry.path().join("fdinfo")) else { continue };
        let holds = infos.flatten().filter_map(|info| fs::read_to_string(info.path()).ok()).any(|info| {
            // `lock:	1: OFDLCK ADVISORY  WRITE -1 fe:00:1234 4611686018427387904 4611686018427387904`
            info.lines().any(|line| line.starts_with("lock:") && is_it(line))
        });
        if holds {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let stopped = status.lines().any(|line| line.starts_with("State:") && line.contains("stopped"));
            return Some((pid, plain(name.trim()), stopped));
        }
    }
    None
}
