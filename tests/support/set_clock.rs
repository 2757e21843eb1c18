//! Preloaded into a process, this makes its wall clock wrong by as many seconds as the file `CLOCK_OFFSET_FILE` says at
//! the moment. Built by the tests with `rustc --crate-type cdylib`.

use std::ffi::{c_int, c_long};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;
const CLOCK_REALTIME: c_int = 0;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let failed = unsafe { syscall(CLOCK_GETTIME, clock, time) };
    if failed == 0 && clock == CLOCK_REALTIME {
        let offset = std::env::var_os("CLOCK_OFFSET_FILE").and_then(|file| std::fs::read_to_string(file).ok());
        unsafe { (*time).seconds += offset.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0) };
    }
    failed as c_int
}
