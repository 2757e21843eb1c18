//! Preloaded into a process, this makes calls on its queue file fail with EIO: those that the file `FAULT_FILE` names at
//! the moment, `write` for all of them, `write3` for those after the first three. After `stop`, the process stops there
//! instead. Built by the tests with `rustc --crate-type cdylib`.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut c_int;
    fn raise(signal: c_int) -> c_int;
}

const EIO: c_int = 5;
const SIGSTOP: c_int = 19;

static DONE: AtomicUsize = AtomicUsize::new(0);

/// The numbers of pread64, pwrite64, fsync and fdatasync.
#[cfg(target_arch = "x86_64")]
const CALLS: [c_long; 4] = [17, 18, 74, 75];
#[cfg(target_arch = "aarch64")]
const CALLS: [c_long; 4] = [67, 68, 82, 83];

fn fails(what: &str, file: c_int) -> bool {
    let faults = std::env::var_os("FAULT_FILE").and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let is_queue = || std::fs::read_link(format!("/proc/self/fd/{file}")).is_ok_and(|path| path.ends_with("queue.redb"));
    let stop = faults.trim().strip_prefix("stop ");
    let Some(after) = stop.unwrap_or(faults.trim()).strip_prefix(what).filter(|_| is_queue()) else { return false };
    let meets = DONE.fetch_add(1, Ordering::Relaxed) >= after.parse().unwrap_or(0);
    if meets && stop.is_some() {
        unsafe { raise(SIGSTOP) };
        return false;
    }
    if meets {
        unsafe { *__errno_location() = EIO };
    }
    meets
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    if fails("sync", file) { -1 } else { unsafe { syscall(CALLS[3], file) as c_int } }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(file: c_int) -> c_int {
    if fails("sync", file) { -1 } else { unsafe { syscall(CALLS[2], file) as c_int } }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(file: c_int, to: *mut c_void, bytes: usize, at: i64) -> isize {
    if fails("read", file) { -1 } else { unsafe { syscall(CALLS[0], file, to, bytes, at) as isize } }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(file: c_int, from: *const c_void, bytes: usize, at: i64) -> isize {
    if fails("write", file) { -1 } else { unsafe { syscall(CALLS[1], file, from, bytes, at) as isize } }
}
