//! What a claim executes: words, environment and folder, as strings for the kernel.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::plain;
use super::tree;
use crate::model::{Command, Environment, JobSpec};
use crate::store::{Claim, Work};

/// What its pool tells a run of itself.
pub(super) struct Surroundings<'a> {
    /// The queue's folder.
    pub(super) queue: &'a [u8],
    /// The worker's number.
    pub(super) slot: usize,
    /// The value of `QUEUECTL_LEASE`.
    pub(super) token: Vec<u8>,
}

/// The strings of a launch.
pub(super) struct Strings<'a> {
    /// The words of a plain command, to be executed without a shell if that can be done.
    pub(super) plain: Option<Vec<CString>>,
    /// The words to execute otherwise.
    pub(super) argv: Vec<CString>,
    /// The folder.
    pub(super) cwd: CString,
    /// The value of `QUEUECTL_LEASE`.
    pub(super) token: Vec<u8>,
    inherited: &'a Inherited,
    own: Vec<CString>,
}

impl<'a> Strings<'a> {
    /// `None` if one has a NUL byte.
    pub(super) fn of(claim: &Claim, own: Surroundings<'_>, last: &'a mut LastEnvironment) -> Option<Self> {
        let work = &claim.work;
        let inherited = last.inherited(work)?;
        let cwd = work.cwd.as_os_str().as_bytes();
        let values: [(&str, &[u8]); OWN.len()] = [
            (OWN[0], cwd),
            (OWN[1], own.queue),
            (OWN[2], claim.id.as_str().as_bytes()),
            (OWN[3], &claim.attempt.to_string().into_bytes()),
            (OWN[4], &own.slot.to_string().into_bytes()),
            (OWN[5], &own.token),
        ];
        Some(Self {
            plain: plain_argv(work, inherited),
            argv: argv(work)?,
            cwd: CString::new(cwd).ok()?,
            own: values.iter().map(|(name, value)| variable(name.as_bytes(), value)).collect::<Option<_>>()?,
            token: own.token,
            inherited,
        })
    }

    /// The whole environment, as `NAME=value`.
    pub(super) fn env(&self) -> Vec<&CStr> {
        self.inherited.strings.iter().chain(&self.own).map(CString::as_c_str).collect()
    }

    /// Where programs are looked for.
    pub(super) fn path(&self) -> Option<&[u8]> {
        self.inherited.path.as_deref()
    }
}

/// The variables that are each run's own.
const OWN: [&str; 6] =
    ["PWD", "QUEUECTL_DB", "QUEUECTL_JOB_ID", "QUEUECTL_ATTEMPT", "QUEUECTL_SLOT", tree::LEASE_VARIABLE];

/// The environment of a worker's last run: the jobs of a batch share theirs.
#[derive(Default)]
pub(super) struct LastEnvironment {
    /// The environment that was prepared last; none if its job changed it.
    of: Option<Arc<Environment>>,
    inherited: Inherited,
}

/// What a job has from its `enqueue`.
#[derive(Default)]
struct Inherited {
    strings: Vec<CString>,
    path: Option<Vec<u8>>,
    is_passed_on: bool,
}

impl LastEnvironment {
    fn inherited(&mut self, work: &Work) -> Option<&Inherited> {
        let is_same = self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &work.env));
        if !is_same || !work.env_change.is_empty() {
            self.of = None;
            self.inherited = Inherited::of(JobSpec::merged_env(&work.env, &work.env_change))?;
            self.of = work.env_change.is_empty().then(|| Arc::clone(&work.env));
        }
        Some(&self.inherited)
    }
}

impl Inherited {
    fn of(mut env: Environment) -> Option<Self> {
        for name in OWN {
            env.remove(name.as_bytes());
        }
        Some(Self {
            strings: env.iter().map(|(name, value)| variable(name, value)).collect::<Option<_>>()?,
            is_passed_on: plain::is_passed_on(&env),
            path: env.remove(b"PATH".as_slice()),
        })
    }
}

fn variable(name: &[u8], value: &[u8]) -> Option<CString> {
    CString::new([name, value].join(&b'=')).ok()
}

fn plain_argv(work: &Work, inherited: &Inherited) -> Option<Vec<CString>> {
    let Command::Shell(text) = &work.command else { return None };
    if !plain::is_usual(&work.shell) || !inherited.is_passed_on {
        return None;
    }
    plain::words(text)?.into_iter().map(|word| CString::new(word).ok()).collect()
}

fn argv(work: &Work) -> Option<Vec<CString>> {
    match &work.command {
        Command::Argv(words) => words.iter().map(|word| CString::new(word.as_slice()).ok()).collect(),
        Command::Shell(text) => {
            // A blank means nothing to a shell, except that the text is not taken for options. To others it may.
            let is_like_option = text.first().is_some_and(|first| b"-+".contains(first));
            let blank: &[u8] = if is_like_option && is_a_shell(&work.shell) { b" " } else { b"" };
            let shell = work.shell.iter().map(|word| CString::new(word.as_bytes()).ok());
            shell.chain([CString::new([blank, text].concat()).ok()]).collect()
        }
    }
}

/// Shells, which pass over blanks before a command.
const SHELLS: [&str; 10] = ["sh", "ash", "bash", "dash", "fish", "ksh", "mksh", "rbash", "yash", "zsh"];

/// Whether what takes the command is called like a shell, perhaps after others as `env`.
fn is_a_shell(words: &[String]) -> bool {
    let names = words.iter().filter_map(|word| Path::new(word).file_name());
    names.into_iter().any(|name| SHELLS.iter().any(|shell| name == *shell))
}
