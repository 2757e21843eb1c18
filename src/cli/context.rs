//! What every command starts from: where the queue is, and the process that asks.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::Global;
use super::commands::status::shell_word;
use super::discover::{Found, Place, discover};
use super::exit::{Exit, Failure, Unheard};
use super::holder;
use super::input::{Asked, Base};
use super::local::Local;
use super::render::human;
use super::terminal::{self, Screen};
use crate::model::{Environment, pool_variable};
use crate::queue::{Clock, Folder, Queue};
use crate::store::{OnWait, StoreError, damaged_pages};

pub(super) struct Context {
    pub cwd: PathBuf,
    place: Place,
}

impl Context {
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        let cwd = env::current_dir()
            .map_err(|error| Failure::new(Exit::Other, format!("cannot tell the current folder: {error}")))?;
        let place = place(global.db.as_deref(), &cwd)
            .map_err(|error| Failure::new(Exit::Other, format!("cannot look for the queue: {error}")))?;
        for folder in &place.passed_over {
            say(format_args!("passing over {}, which belongs to another user", folder.display()));
        }
        Ok(Self { cwd, place })
    }

    /// Whether the user named the queue's folder.
    pub(super) fn is_given(&self) -> bool {
        self.place.found == Found::Given
    }

    /// The queue's folder, whether or not it exists.
    pub(super) fn folder_path(&self) -> &std::path::Path {
        &self.place.folder
    }

    /// The queue, for looking.
    pub(super) fn open_read_only(&self) -> Result<Queue, Failure> {
        let folder = self.existing()?;
        Queue::open_read_only(&folder, self.on_wait()).map_err(|error| self.explain(error))
    }

    /// The same; that the file is damaged is not the end, but the reason in words.
    pub(super) fn open_read_only_or_damaged(&self) -> Result<Result<Queue, String>, Failure> {
        let folder = self.existing()?;
        let opened = Queue::open_read_only(&folder, self.on_wait());
        let pages = damaged_pages(folder.path(), self.on_wait());
        match opened.and_then(|queue| Ok((queue, pages?.len()))) {
            Ok((queue, 0)) => Ok(Ok(queue)),
            Ok((_, pages)) => Ok(Err(format!("{} not what its checksum says", human::count(pages as u64, "page")))),
            Err(StoreError::Damaged(why)) => Ok(Err(why)),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The queue, which has to exist.
    pub(super) fn open(&self) -> Result<Queue, Failure> {
        let folder = self.existing()?;
        once_more(|| Queue::open(&folder, self.on_wait())).map_err(|error| self.explain(error))
    }

    /// Makes the first change of a command. If the queue file was replaced since it was opened, that is done with the
    /// one that took its place: nobody was told anything yet.
    pub(super) fn first<T>(
        &self,
        queue: &mut Queue,
        mut change: impl FnMut(&Queue) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut is_replaced = false;
        once_more(|| {
            if is_replaced {
                std::mem::replace(queue, self.open_anew()?).leave();
            }
            is_replaced = true;
            change(queue)
        })
    }

    /// Opens what took the place of a queue that was open.
    pub(super) fn open_anew(&self) -> Result<Queue, StoreError> {
        let folder = Folder::existing(&self.place.folder).map_err(io::Error::other)?;
        let folder = folder.ok_or_else(|| StoreError::NoQueue(self.place.folder.clone()))?;
        Queue::open(&folder, self.on_wait())
    }

    /// The queue, made if there is none.
    pub(super) fn open_or_create(&self) -> Result<Queue, Failure> {
        let (queue, made) = self.open_or_make()?;
        if made {
            say(format_args!("new queue in {}", human::path(&self.place.folder)));
        } else {
            self.say_where();
        }
        Ok(queue)
    }

    /// The same, for those who want to hear only of failures.
    pub(super) fn open_or_create_quietly(&self) -> Result<Queue, Failure> {
        self.open_or_make().map(|(queue, _)| queue)
    }

    fn open_or_make(&self) -> Result<(Queue, bool), Failure> {
        let folder = Folder::make(&self.place.folder)?;
        once_more(|| Queue::open_or_create(&folder, self.on_wait())).map_err(|error| self.explain(error))
    }

    /// The queue's folder, which has to exist.
    pub(super) fn existing(&self) -> Result<Folder, Failure> {
        let folder = Folder::existing(&self.place.folder)?.ok_or_else(|| self.no_queue())?;
        self.say_where();
        Ok(folder)
    }

    /// A queue found above this folder is named, so that nobody wonders whose jobs these are.
    fn say_where(&self) {
        if self.place.found == Found::Above {
            say(format_args!("queue: {}", human::path(&self.place.folder)));
        }
    }

    fn no_queue(&self) -> Failure {
        let message = if self.is_given() {
            format!("there is no queue in {}", human::path(&self.place.folder))
        } else {
            format!("there is no queue in {} or above", human::path(&self.cwd))
        };
        let db = if self.is_given() {
            format!(" --db {}", shell_word(&self.place.folder.to_string_lossy()))
        } else {
            String::new()
        };
        Failure::new(Exit::NotFound, message).next(format_args!("queuectl{db} enqueue -c 'echo hi'    makes one"))
    }

    /// In words, with the file that it is about.
    pub(super) fn explain(&self, error: StoreError) -> Failure {
        match error {
            StoreError::NoQueue(_) => self.no_queue(),
            error => Failure::from(error).of(human::path(&self.place.folder.join("queue.redb"))),
        }
    }

    /// Tells who keeps the file.
    pub(super) fn on_wait(&self) -> OnWait {
        let folder = self.place.folder.clone();
        Box::new(move || say(format_args!("{}", holder::describe(&folder))))
    }

    /// What jobs take over from this process.
    pub(super) fn base(&self) -> Base {
        let vars = env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec()));
        // A name that is empty or has a `=` in front is a shell's own bookkeeping.
        let inherited =
            |(name, _): &(Vec<u8>, Vec<u8>)| !pool_variable(name) && !name.is_empty() && !name.contains(&b'=');
        let env: Environment = vars.filter(inherited).collect::<BTreeMap<_, _>>();
        Base {
            cwd: self.cwd.clone(),
            env: Arc::new(env),
            asked: Asked::default(),
            local: Local::here(Clock::default().now()),
            exec_bytes_max: exec_bytes_max(),
        }
    }
}

/// How often a queue may be replaced under the hands of a command that has not begun.
pub(super) const REPLACED_MAX: usize = 3;

/// Does again what a compaction, a repair or a restore came in between.
fn once_more<T>(mut act: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..REPLACED_MAX {
        match act() {
            Err(StoreError::Replaced) => {}
            done => return done,
        }
    }
    act()
}

/// Where the queue of a process in `cwd` is, `db` being what `--db` says.
pub(super) fn place(db: Option<&OsStr>, cwd: &Path) -> io::Result<Place> {
    let env_db = env::var_os("QUEUECTL_DB");
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    discover(db, env_db.as_deref(), cwd, home.as_deref())
}

/// How many bytes of arguments and environment `execve` takes here, less what a pool adds to a job.
fn exec_bytes_max() -> usize {
    const ADDED_BY_POOLS: usize = 16 * 1024;
    let limit = nix::unistd::sysconf(nix::unistd::SysconfVar::ARG_MAX).ok().flatten();
    let limit = limit.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(2 * 1024 * 1024);
    limit.min(crate::model::EXEC_BYTES_MAX).saturating_sub(ADDED_BY_POOLS)
}

/// Says something to the person at the terminal: on stderr, since stdout is for results. That nobody hears it
/// is no reason to fail. What could do more to a terminal than colour is made visible, even if it goes to a file that
/// is looked at later.
pub(super) fn say(what: std::fmt::Arguments<'_>) {
    let line = terminal::tame(&format!("queuectl: {what}\n"));
    let _ = anstream::stderr().write_all(line.as_bytes());
}

/// Standard output for results, with colour if that is wanted.
pub(super) fn stdout() -> impl Write {
    let is_terminal = io::stdout().is_terminal();
    Results(io::BufWriter::new(Screen::new(anstream::stdout(), is_terminal)))
}

/// A writer whose errors tell that they are of the standard output.
struct Results<W>(W);

impl<W: Write> Write for Results<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(unheard)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unheard)
    }
}

fn unheard(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unheard(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Command, JobSpec};
    use crate::store::{BulkInto, Seized, Snapshot, Wanted, compact};
    use crate::worker::BegunBulk;

    #[test]
    fn what_has_not_begun_goes_on_in_the_file_that_took_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { folder: dir.path().join("queue"), found: Found::Given, passed_over: Vec::new() };
        let context = Context { cwd: dir.path().to_owned(), place };
        let open_and_replace = || {
            let queue = context.open_or_create_quietly().unwrap();
            compact(Seized::new(queue.folder(), &context.on_wait()).unwrap()).unwrap();
            queue
        };
        let job = || JobSpec::new(Command::Shell(b"true".to_vec()), "/");
        let mut queue = open_and_replace();
        assert!(matches!(queue.enqueue(&[job()]), Err(StoreError::Replaced)));
        context.first(&mut queue, |queue| queue.enqueue(&[job()])).unwrap();
        queue.leave();
        let mut queue = open_and_replace();
        let into = BulkInto::Queues([job().queue].into());
        let begun = context.first(&mut queue, |queue| BegunBulk::begin(queue, &into, 1)).unwrap();
        let nothing = Wanted::default();
        let mut bulk = begun.fill(&queue, &nothing);
        bulk.add(&[job()]).unwrap();
        bulk.publish().unwrap();
        assert_eq!(queue.read(Snapshot::check).unwrap().jobs, 2);
    }
}
