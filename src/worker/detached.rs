//! A process in a session of its own, started without forking: the queue file may be open.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::child::{Launch, spawn};
use super::tree::LEASE_VARIABLE;

/// Starts `program` in the current folder with this process's environment, except that it does not count as part
/// of the job that this process may belong to. Returns its pid.
pub fn spawn_detached(
    program: &Path,
    argv: &[CString],
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> io::Result<u32> {
    let inherited = std::env::vars_os().filter(|(name, _)| name != LEASE_VARIABLE);
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.into_vec(), value.into_vec()].join(&b'=')).map_err(io::Error::from)
    };
    let env: Vec<CString> = inherited.map(pair).collect::<Result<_, _>>()?;
    let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    let program = CString::new(program.as_os_str().as_bytes())?;
    let pid =
        spawn(&Launch { program: &program, argv, env: &env, runs_scripts: false, cwd: c".", stdin, stdout, stderr })?;
    Ok(pid.as_raw_pid().cast_unsigned())
}
