//! Which file a command's name means.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Where programs are looked for when the job's environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/bin:/usr/bin";

/// Why a name means no program. Shells end with 127 and 126.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRunnable {
    /// There is no such file.
    NotFound,
    /// There is one, but it is a folder or may not be executed.
    NotExecutable,
}

/// The program file that `program` means for a job with this `PATH` in the folder `cwd`, as `execvp` would find it:
/// absolute, or relative to `cwd`, since the job's process changes there before it executes.
pub(crate) fn resolve(program: &[u8], path: Option<&[u8]>, cwd: &Path) -> Result<CString, NotRunnable> {
    if program.is_empty() {
        return Err(NotRunnable::NotFound);
    }
    if program.contains(&b'/') {
        return runnable(PathBuf::from(OsStr::from_bytes(program)), cwd);
    }
    let mut why = NotRunnable::NotFound;
    for folder in path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        // Always with a slash, so that a shell that runs it as a script does not search again.
        let folder = if folder.is_empty() { b"." } else { folder };
        match runnable(Path::new(OsStr::from_bytes(folder)).join(OsStr::from_bytes(program)), cwd) {
            Err(NotRunnable::NotFound) => {}
            Err(NotRunnable::NotExecutable) => why = NotRunnable::NotExecutable,
            found @ Ok(_) => return found,
        }
    }
    Err(why)
}

/// `file` itself, if a process in `cwd` could execute it.
fn runnable(file: PathBuf, cwd: &Path) -> Result<CString, NotRunnable> {
    let seen = cwd.join(&file);
    let plain = seen.metadata().map_err(|error| why_not(&error))?.is_file();
    if !plain {
        return Err(NotRunnable::NotExecutable);
    }
    accessat(CWD, &seen, Access::EXEC_OK, AtFlags::EACCESS).map_err(|errno| why_not(&errno.into()))?;
    CString::new(file.into_os_string().into_vec()).map_err(|_| NotRunnable::NotFound)
}

/// What an error of looking at a file says of it. Behind a folder that may not be entered there may be one.
fn why_not(error: &io::Error) -> NotRunnable {
    if error.kind() == io::ErrorKind::PermissionDenied { NotRunnable::NotExecutable } else { NotRunnable::NotFound }
}

/// Whether a process could start in `folder`, and the error if not: it tells a missing folder from a missing program,
/// which a failed spawn does not.
pub(crate) fn enterable(folder: &Path) -> io::Result<()> {
    if !folder.metadata()?.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    Ok(accessat(CWD, folder, Access::EXEC_OK, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with the program `d/tool`, the plain file `plain/tool` and the folder `folder/tool`.
    fn programs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["d", "plain", "folder/tool"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (file, mode) in [("d/tool", 0o755), ("plain/tool", 0o644)] {
            fs::write(root.path().join(file), "").unwrap();
            fs::set_permissions(root.path().join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        root
    }

    /// What `program` means with `path`, in the folder `cwd` below `root`.
    fn found(root: &Path, cwd: &str, program: &str, path: Option<&str>) -> Result<String, NotRunnable> {
        resolve(program.as_bytes(), path.map(str::as_bytes), &root.join(cwd)).map(|file| file.into_string().unwrap())
    }

    #[test]
    fn a_name_with_a_slash_is_taken_as_typed_from_the_folder_of_the_job() {
        let root = programs();
        let full = format!("{}/d/tool", root.path().display());
        for (cwd, program) in [("", "d/tool"), ("d", "./tool"), ("plain", "../d/tool"), ("", full.as_str())] {
            assert_eq!(found(root.path(), cwd, program, None), Ok(program.to_owned()));
        }
        for program in ["./tool", "d/tool/x", "none/tool"] {
            assert_eq!(found(root.path(), "", program, None), Err(NotRunnable::NotFound), "{program}");
        }
        for program in ["./plain/tool", "folder/tool", "folder/"] {
            assert_eq!(found(root.path(), "", program, None), Err(NotRunnable::NotExecutable), "{program}");
        }
    }

    #[test]
    fn a_bare_name_is_searched_for_as_execvp_does() {
        let root = programs();
        let cases = [
            ("", "none:d", Ok("d/tool")),
            ("", "folder:plain:d", Ok("d/tool")),
            ("d", "", Ok("./tool")),
            ("d", "/nonexistent:", Ok("./tool")),
            ("d", ":/nonexistent", Ok("./tool")),
            ("", "d/", Ok("d/tool")),
            ("plain", "../d", Ok("../d/tool")),
            ("", "plain:none", Err(NotRunnable::NotExecutable)),
            ("", "folder", Err(NotRunnable::NotExecutable)),
            ("", "none:/nonexistent:d/tool", Err(NotRunnable::NotFound)),
            ("", "", Err(NotRunnable::NotFound)),
        ];
        for (cwd, path, expected) in cases {
            assert_eq!(found(root.path(), cwd, "tool", Some(path)), expected.map(str::to_owned), "{path:?} in {cwd:?}");
        }
    }

    #[test]
    fn without_a_path_the_usual_folders_are_searched() {
        let sh = found(Path::new("/"), "", "sh", None).unwrap();
        assert!(sh.ends_with("bin/sh"), "{sh}");
    }

    #[test]
    fn names_that_no_file_can_have_are_not_found() {
        for program in ["", "a\0b", "/bin/sh\0x"] {
            assert_eq!(found(Path::new("/"), "", program, None), Err(NotRunnable::NotFound), "{program:?}");
        }
    }

    #[test]
    fn names_need_not_be_utf_8() {
        let root = programs();
        let name = b"d/t\xff\x01";
        fs::copy(root.path().join("d/tool"), root.path().join(OsStr::from_bytes(name))).unwrap();
        assert_eq!(resolve(b"t\xff\x01", Some(b"d"), root.path()).unwrap().as_bytes(), name);
    }

    #[test]
    fn a_folder_that_cannot_be_entered_is_told_apart() {
        let root = programs();
        let errno = |name: &str| enterable(&root.path().join(name)).map_err(|error| error.raw_os_error());
        assert_eq!(errno("d"), Ok(()));
        assert_eq!(errno("none"), Err(Some(Errno::NOENT.raw_os_error())));
        assert_eq!(errno("d/tool"), Err(Some(Errno::NOTDIR.raw_os_error())));
    }
}
