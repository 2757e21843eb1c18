//! Preloaded into a process, this counts what it asks the disk to make durable, and makes each such call take
//! `SYNCS_SLOW_MS` milliseconds longer. The counts are in the file `SYNCS_FILE`, four numbers of eight bytes, from the
//! moment of each call on. Built by the benchmarks with `rustc --crate-type cdylib`.
//!
//! Both variables and `LD_PRELOAD` are taken out of the environment at once: what the process starts runs without.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mmap(at: *mut c_void, bytes: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
}

const READ_AND_WRITE: c_int = 3;
const SHARED: c_int = 1;

/// The numbers of the system calls: fdatasync, fsync, sync_file_range, msync.
#[cfg(target_arch = "x86_64")]
const CALLS: [c_long; 4] = [75, 74, 277, 26];
#[cfg(target_arch = "aarch64")]
const CALLS: [c_long; 4] = [83, 82, 84, 227];

struct Settings {
    counts: Option<&'static [AtomicU64; 4]>,
    slow: Duration,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = read_settings;

extern "C" fn read_settings() {
    let slow = std::env::var("SYNCS_SLOW_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let counts = std::env::var_os("SYNCS_FILE").and_then(|path| {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
        let map = unsafe { mmap(std::ptr::null_mut(), 32, READ_AND_WRITE, SHARED, file.as_raw_fd(), 0) };
        if map as isize == -1 { None } else { Some(unsafe { &*map.cast::<[AtomicU64; 4]>() }) }
    });
    let _ = SETTINGS.set(Settings { counts, slow: Duration::from_millis(slow) });
    for name in ["LD_PRELOAD", "SYNCS_FILE", "SYNCS_SLOW_MS"] {
        unsafe { std::env::remove_var(name) };
    }
}

fn note(which: usize) {
    let Some(settings) = SETTINGS.get() else { return };
    if let Some(counts) = settings.counts {
        counts[which].fetch_add(1, Ordering::Relaxed);
    }
    if !settings.slow.is_zero() {
        std::thread::sleep(settings.slow);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    note(0);
    unsafe { syscall(CALLS[0], fd) as c_int }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    note(1);
    unsafe { syscall(CALLS[1], fd) as c_int }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(fd: c_int, offset: i64, bytes: i64, flags: c_uint) -> c_int {
    note(2);
    unsafe { syscall(CALLS[2], fd, offset, bytes, flags) as c_int }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(at: *mut c_void, bytes: usize, flags: c_int) -> c_int {
    note(3);
    unsafe { syscall(CALLS[3], at, bytes, flags) as c_int }
}
