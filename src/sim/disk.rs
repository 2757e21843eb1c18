//! A disk in memory, which keeps apart what processes wrote and what is sure to survive.
//!
//! [`Disk::drive`] gives a process its handle. All handles see the same bytes, as through one page cache, and their
//! locks exclude each other as those of processes do. What a process wrote is safe after the next sync, whoever syncs.
//!
//! - **Loss of power** ([`Losses::lost`]) leaves of each sector what it held at some moment since the last sync, chosen
//!   for each sector by itself: so unsynced writes are lost, done in another order, and torn. The length is chosen
//!   likewise.
//! - **A kill** ([`Plan::Kill`]) strikes a process at one of its I/Os: of a write, a part may have been done. Its locks
//!   are free at once, and it can do nothing more.
//! - **A fault** ([`Plan::Fail`]) makes an I/O fail, once or from then on.
//! - **A lie** ([`Disk::lying`]) is a disk whose sync does nothing: the tests that lose power have to notice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::choices::Choices;
use crate::store::{BackendError, StorageBackend};

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// A disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What processes read.
    cached: Vec<u8>,
    /// What has happened to what was on the disk at first.
    power: Power,
    lies: bool,
    locks: Vec<Lock>,
    drives: u32,
    /// The drives of processes that were killed.
    dead: BTreeSet<u32>,
    plan: Option<Plan>,
    /// I/Os done since the plan was made, by the drives that it is about.
    ios: usize,
}

/// What is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: I/Os are counted.
    Count,
    /// The process of this drive is killed at the n-th I/O from now, counted from 0, of its own.
    Kill {
        /// Which process.
        drive: u32,
        /// Which I/O.
        at: usize,
    },
    /// The n-th I/O from now, counted from 0, fails.
    Fail {
        /// Which of the I/Os that can fail so.
        at: usize,
        /// How.
        error: Fault,
        /// Whether all that follow fail too.
        lasting: bool,
    },
}

/// How an I/O fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO.
    Broken,
    /// ENOSPC, of writes and growth.
    Full,
    /// EIO of a sync, after which what it should have written is taken for written, as Linux does: it is never
    /// written unless someone writes it again.
    Forgotten,
}

impl Fault {
    fn strikes(self, io: Io) -> bool {
        match self {
            Self::Broken => true,
            Self::Full => matches!(io, Io::Write | Io::Grow),
            Self::Forgotten => io == Io::Sync,
        }
    }
}

/// Something that happened to a disk.
#[derive(Debug, Clone)]
enum Event {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    Length(usize),
    Sync,
    /// A failed sync: what came before it is not written by the next one.
    Forget,
}

/// The history of a disk: what it held, and each write, change of length and sync since.
#[derive(Debug, Clone, Default)]
pub struct Power {
    first: Vec<u8>,
    events: Vec<Event>,
}

impl Power {
    /// How many events there are: before, between and after them power can be lost.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// What is left when power is lost, at one moment after the other.
    pub(super) fn losses(&self) -> Losses<'_> {
        Losses { power: self, count: 0, unsynced: Vec::new(), bytes: self.first.clone(), length: self.first.len() }
    }
}

/// A moment of a history, moving forward.
pub(super) struct Losses<'p> {
    power: &'p Power,
    /// How many events have happened.
    count: usize,
    /// Those that the next sync makes sure.
    unsynced: Vec<&'p Event>,
    /// What is sure, with bytes beyond the length of the file.
    bytes: Vec<u8>,
    length: usize,
}

impl Losses<'_> {
    /// Goes on to the moment after the first `count` events; not back.
    pub(super) fn advance(&mut self, count: usize) {
        for event in &self.power.events[self.count..count] {
            match event {
                Event::Sync => {
                    for event in self.unsynced.drain(..) {
                        apply(event, &mut self.bytes, &mut self.length);
                    }
                }
                // The length is the file system's own, and in its journal.
                Event::Forget => self.unsynced.retain(|event| matches!(event, Event::Length(_))),
                Event::Write { .. } | Event::Length(_) => self.unsynced.push(event),
            }
        }
        self.count = count;
    }

    /// Whether all that was written is sure: what is lost without luck differs from one such moment to the next only.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// What the disk holds if power is lost now.
    pub(super) fn lost(&self, fate: Fate) -> Vec<u8> {
        let (mut bytes, mut length) = (self.bytes.clone(), self.length);
        match fate {
            Fate::Nothing => {}
            Fate::Everything => self.unsynced.iter().for_each(|event| apply(event, &mut bytes, &mut length)),
            Fate::Luck(seed) => Survival::new(seed, self.unsynced.len()).apply(&self.unsynced, &mut bytes, &mut length),
        }
        bytes.truncate(length);
        bytes
    }
}

/// What survives of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Nothing,
    /// Everything, as when all processes are killed and the machine stays up.
    Everything,
    /// Of each sector what it held at some moment; which goes by this seed.
    Luck(u64),
}

impl Fate {
    /// The fates that are tried at a moment, in turn.
    pub(super) fn nth(n: u64, seed: u64) -> Self {
        match n {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Luck(seed ^ n << 52),
        }
    }
}

/// Does an event to bytes that are kept beyond the length of the file.
fn apply(event: &Event, bytes: &mut Vec<u8>, length: &mut usize) {
    match event {
        Event::Write { offset, data } => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
            *length = end.max(*length);
        }
        Event::Length(new) => {
            bytes.resize(bytes.len().max(*new), 0);
            bytes[*new..].fill(0);
            *length = *new;
        }
        Event::Sync | Event::Forget => {}
    }
}

/// Which of the events since the last sync reach which sector.
struct Survival {
    luck: Choices<'static>,
    events: usize,
    style: u16,
    /// How many of the events reach each sector that was asked for.
    moments: BTreeMap<usize, usize>,
}

impl Survival {
    fn new(seed: u64, events: usize) -> Self {
        let mut luck = Choices::seeded(seed);
        let style = luck.below(5);
        Self { luck, events, style, moments: BTreeMap::new() }
    }

    fn moment(&mut self, sector: usize) -> usize {
        // Style 0 writes whole pages back, as the kernel does by preference.
        let unit = if self.style == 0 { sector / 8 } else { sector };
        let (luck, events, style) = (&mut self.luck, self.events, self.style);
        *self.moments.entry(unit).or_insert_with(|| match style {
            1 if luck.percent(90) => events,
            2 if luck.percent(90) => 0,
            3 => usize::from(luck.percent(50)) * events,
            _ => usize::from(luck.below(u16::try_from(events + 1).unwrap_or(u16::MAX))),
        })
    }

    fn apply(mut self, events: &[&Event], bytes: &mut Vec<u8>, length: &mut usize) {
        let lengths = self.moment(usize::MAX);
        for (n, event) in events.iter().enumerate() {
            match event {
                Event::Write { offset, data } => {
                    let mut at = *offset;
                    let end = offset + data.len();
                    let mut grown = *length;
                    while at < end {
                        let sector = at / SECTOR_BYTES;
                        let until = ((sector + 1) * SECTOR_BYTES).min(end);
                        if n < self.moment(sector) {
                            let data = data[at - offset..until - offset].to_vec();
                            apply(&Event::Write { offset: at, data }, bytes, &mut grown);
                        }
                        at = until;
                    }
                    if n < lengths {
                        *length = end.max(*length);
                        bytes.resize(bytes.len().max(*length), 0);
                    }
                }
                Event::Length(_) if n < lengths => apply(event, bytes, length),
                Event::Length(_) | Event::Sync | Event::Forget => {}
            }
        }
    }
}

impl Disk {
    /// A disk that holds `bytes`, synced.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let state =
            State { cached: bytes.clone(), power: Power { first: bytes, events: Vec::new() }, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A disk that holds `bytes`, and from now on says that it has synced, and has not.
    pub fn lying(bytes: Vec<u8>) -> Self {
        let disk = Self::holding(bytes);
        disk.state().lies = true;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process's handle.
    pub fn drive(&self) -> Drive {
        let mut state = self.state();
        state.drives += 1;
        Drive { disk: self.clone(), id: state.drives }
    }

    /// What is to go wrong from now on. Who was killed stays dead.
    pub fn plan(&self, plan: Plan) {
        let mut state = self.state();
        state.plan = Some(plan);
        state.ios = 0;
    }

    /// How many I/Os there were since the plan was made; for a kill, of that drive.
    pub fn ios(&self) -> usize {
        self.state().ios
    }

    /// Whether the plan has struck.
    pub fn was_struck(&self) -> bool {
        let state = self.state();
        match state.plan {
            Some(Plan::Kill { at, .. } | Plan::Fail { at, .. }) => state.ios > at,
            Some(Plan::Count) | None => false,
        }
    }

    /// What processes read now.
    pub fn contents(&self) -> Vec<u8> {
        self.state().cached.clone()
    }

    /// How many events there were: for [`Losses::lost`].
    pub fn events(&self) -> usize {
        self.state().power.events.len()
    }

    /// How often what was written was made to last.
    pub fn syncs(&self) -> usize {
        self.state().power.events.iter().filter(|event| matches!(event, Event::Sync)).count()
    }

    /// All that has happened.
    pub fn power(&self) -> Power {
        self.state().power.clone()
    }

    /// What is left if power is lost now and nothing survives that was not synced.
    pub fn synced(&self) -> Vec<u8> {
        let state = self.state();
        let mut losses = state.power.losses();
        losses.advance(state.power.len());
        losses.lost(Fate::Nothing)
    }
}

/// What is asked of a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Io {
    Read,
    Write,
    Grow,
    Sync,
}

impl State {
    /// Counts an I/O; says whether it is done.
    fn admit(&mut self, drive: u32, io: Io) -> io::Result<()> {
        self.alive(drive)?;
        let count = self.ios;
        match self.plan {
            Some(Plan::Kill { drive: victim, at }) if victim == drive => {
                self.ios += 1;
                if count == at {
                    self.dead.insert(drive);
                    self.locks.retain(|lock| lock.drive != drive);
                }
                self.alive(drive)
            }
            Some(Plan::Fail { at, error, lasting }) if error.strikes(io) => {
                self.ios += 1;
                if count < at || (count > at && !lasting) {
                    return Ok(());
                }
                if error == Fault::Forgotten {
                    self.power.events.push(Event::Forget);
                }
                Err(io::Error::from_raw_os_error(if error == Fault::Full { libc::ENOSPC } else { libc::EIO }))
            }
            Some(Plan::Count) => {
                self.ios += 1;
                Ok(())
            }
            Some(Plan::Kill { .. } | Plan::Fail { .. }) | None => Ok(()),
        }
    }

    /// The dead do nothing more.
    fn alive(&self, drive: u32) -> io::Result<()> {
        if self.dead.contains(&drive) { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn happen(&mut self, event: Event) {
        let mut length = self.cached.len();
        apply(&event, &mut self.cached, &mut length);
        self.cached.truncate(length);
        self.power.events.push(event);
    }
}

/// A process's handle on a disk.
#[derive(Debug)]
pub struct Drive {
    disk: Disk,
    id: u32,
}

impl Drive {
    /// Which process it is.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn lock(&self, start: Bound<u64>, end: Bound<u64>, shared: bool) -> io::Result<bool> {
        let lock = Lock::new(self.id, start, end, shared);
        let mut state = self.disk.state();
        state.alive(self.id)?;
        let is_free = !state.locks.iter().any(|other| other.conflicts(&lock));
        if is_free {
            state.locks.push(lock);
        }
        Ok(is_free)
    }

    fn lock_or_fail(&self, start: Bound<u64>, end: Bound<u64>, shared: bool) -> Result<(), BackendError> {
        if self.lock(start, end, shared)? {
            return Ok(());
        }
        let error = io::Error::new(io::ErrorKind::WouldBlock, "the thread would wait for itself");
        Err(BackendError::Io(error))
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or_else(|_| unreachable!("a simulated disk is small"))
}

impl StorageBackend for Drive {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.admit(self.id, Io::Read)?;
        let found = state.cached.get(at(offset)..at(offset) + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let grows = at(len) > state.cached.len();
        state.admit(self.id, if grows { Io::Grow } else { Io::Write })?;
        state.happen(Event::Length(at(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.admit(self.id, Io::Sync)?;
        if !state.lies {
            state.happen(Event::Sync);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let admitted = state.admit(self.id, Io::Write);
        let is_last_breath = admitted.is_err() && state.ios == state.plan_at() + 1;
        // A write that is cut off has got somewhere: how far goes by where it was cut.
        let data = match admitted {
            Ok(()) => data,
            Err(_) if is_last_breath => &data[..data.len() * (state.ios % 4) / 4],
            Err(_) => &[],
        };
        if !data.is_empty() {
            state.happen(Event::Write { offset: at(offset), data: data.to_vec() });
        }
        admitted
    }

    fn close(&self) -> io::Result<()> {
        self.disk.state().locks.retain(|lock| lock.drive != self.id);
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(self.lock(start, end, false)?)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(self.lock(start, end, true)?)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock_or_fail(start, end, false)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.lock_or_fail(start, end, true)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let Lock { first, last, .. } = Lock::new(self.id, start, end, false);
        let mut state = self.disk.state();
        state.locks.retain(|lock| (lock.drive, lock.first, lock.last) != (self.id, first, last));
        Ok(())
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let lock = Lock::new(self.id, start, end, false);
        Ok(self.disk.state().locks.iter().any(|other| other.conflicts(&lock)))
    }
}

impl State {
    /// Which I/O the plan strikes first.
    fn plan_at(&self) -> usize {
        match self.plan {
            Some(Plan::Kill { at, .. } | Plan::Fail { at, .. }) => at,
            Some(Plan::Count) | None => usize::MAX - 1,
        }
    }
}

/// A lock on the bytes from `first` to `last`.
#[derive(Debug, Clone, Copy)]
struct Lock {
    drive: u32,
    first: u64,
    last: u64,
    shared: bool,
}

impl Lock {
    fn new(drive: u32, start: Bound<u64>, end: Bound<u64>, shared: bool) -> Self {
        let first = match start {
            Bound::Unbounded => 0,
            Bound::Included(start) => start,
            Bound::Excluded(before) => before + 1,
        };
        let last = match end {
            Bound::Unbounded => u64::MAX,
            Bound::Included(end) => end,
            Bound::Excluded(after) => after - 1,
        };
        Self { drive, first, last, shared }
    }

    fn conflicts(&self, other: &Self) -> bool {
        let overlap = self.first <= other.last && other.first <= self.last;
        self.drive != other.drive && overlap && !(self.shared && other.shared)
    }
}
