//! The records of a board, in memory and on disk.
//!
//! All have the same size and shape: a version byte, fields in little-endian, zeros, and a CRC-32 of all
//! that in the last four bytes. Reading is total: what is not a record is `None`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::model::{Lease, Millis, Outcome, Seq};

/// Size of a record: a power of two, so that none crosses a page.
pub(super) const RECORD_BYTES: usize = 128;

const CHECKSUM_BYTES: usize = 4;

/// What the header starts with, before its version.
const MAGIC: [u8; 7] = *b"qctlrun";

const HEADER_VERSION: u8 = 1;
const SLOT_VERSION: u8 = 1;

/// Which process a pool is, beyond its pid, which is reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its pid, as its own namespace counts.
    pub(crate) pid: u32,
    /// The boot that it belongs to.
    pub(crate) boot_id: [u8; 16],
    /// The namespace of its pid: the inode of `/proc/self/ns/pid`.
    pub(crate) pid_namespace: u64,
    /// A random number that its jobs carry in their environment.
    pub(crate) nonce: u64,
    /// Whether it is no pool, but stores a batch; see `worker::bulk`.
    pub(crate) is_maker: bool,
}

/// One claim outstanding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The job.
    pub(crate) seq: Seq,
    /// The claim.
    pub(crate) lease: Lease,
    /// The number of the run, from 1.
    pub(crate) attempt: u32,
    /// The worker's number in its pool.
    pub(crate) worker: u32,
    /// The number of the files that it writes to.
    pub(crate) spool: u32,
    /// How far it is.
    pub(crate) stage: Stage,
}

/// How far a claim is. Times since boot are in the clock ticks of `/proc/PID/stat`, whose start time tells
/// a process from another that got its pid later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// About to be spawned: whether it was is not known.
    Starting {
        /// When.
        at: Millis,
        /// The time since boot: the process is not older.
        boot_ticks: u64,
    },
    /// Spawned.
    Running {
        /// When it was started.
        at: Millis,
        /// The time since boot before the spawn.
        boot_ticks: u64,
        /// The time since boot after the spawn.
        born_by: u64,
        /// The process, and its group.
        pid: u32,
    },
    /// Ended, its outcome not committed yet.
    Ended {
        /// When it was started.
        at: Millis,
        /// When it ended.
        ended: Millis,
        /// How it ended.
        outcome: Outcome,
        /// Its exit code, if it exited.
        exit_code: Option<i32>,
        /// The signal that it died of, if it did.
        signal: Option<i32>,
        /// User and system time.
        cpu: Duration,
        /// Largest resident set, in bytes.
        max_rss_bytes: u64,
        /// The time since boot before the spawn.
        boot_ticks: u64,
        /// The time since boot after the spawn.
        born_by: u64,
        /// The process that it was, and the group that may have more.
        pid: u32,
    },
}

impl Identity {
    /// This process, with a new nonce.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Ok(Self {
            pid: std::process::id(),
            boot_id: boot_id()?,
            pid_namespace: fs::metadata("/proc/self/ns/pid")?.ino(),
            nonce: random_u64()?,
            is_maker: false,
        })
    }

    /// Whether a pid means the same process to both, while it lives.
    pub(crate) fn shares_pids_with(&self, other: &Self) -> bool {
        (self.boot_id, self.pid_namespace) == (other.boot_id, other.pid_namespace)
    }

    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = Writer::new(MAGIC);
        record.put([HEADER_VERSION]);
        record.put(self.pid.to_le_bytes());
        record.put(self.boot_id);
        record.put(self.pid_namespace.to_le_bytes());
        record.put(self.nonce.to_le_bytes());
        record.put([self.is_maker.into()]);
        record.seal()
    }

    pub(super) fn decode(record: &[u8; RECORD_BYTES]) -> Option<Self> {
        let mut fields = Reader::open(record)?;
        if fields.take()? != MAGIC || fields.take()? != [HEADER_VERSION] {
            return None;
        }
        Some(Self {
            pid: fields.u32()?,
            boot_id: fields.take()?,
            pid_namespace: fields.u64()?,
            nonce: fields.u64()?,
            is_maker: fields.take()? == [1],
        })
    }
}

impl Slot {
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = Writer::new([SLOT_VERSION]);
        record.put(self.seq.0.to_le_bytes());
        record.put(self.lease.0.to_le_bytes());
        record.put(self.attempt.to_le_bytes());
        record.put(self.worker.to_le_bytes());
        record.put(self.spool.to_le_bytes());
        self.stage.put(&mut record);
        record.seal()
    }

    pub(super) fn decode(record: &[u8; RECORD_BYTES]) -> Option<Self> {
        let mut fields = Reader::open(record)?;
        if fields.take()? != [SLOT_VERSION] {
            return None;
        }
        Some(Self {
            seq: Seq(fields.u64()?),
            lease: Lease(fields.u64()?),
            attempt: fields.u32()?,
            worker: fields.u32()?,
            spool: fields.u32()?,
            stage: Stage::take(&mut fields)?,
        })
    }
}

impl Stage {
    fn put(&self, record: &mut Writer) {
        match *self {
            Self::Starting { at, boot_ticks } => {
                record.put([1]);
                record.put(at.0.to_le_bytes());
                record.put(boot_ticks.to_le_bytes());
            }
            Self::Running { at, boot_ticks, born_by, pid } => {
                record.put([2]);
                record.put(at.0.to_le_bytes());
                record.put_birth(boot_ticks, born_by, pid);
            }
            Self::Ended { at, ended, outcome, exit_code, signal, cpu, max_rss_bytes, boot_ticks, born_by, pid } => {
                record.put([3]);
                record.put(at.0.to_le_bytes());
                record.put_birth(boot_ticks, born_by, pid);
                record.put(ended.0.to_le_bytes());
                record.put([code_of(outcome)]);
                record.put_option(exit_code);
                record.put_option(signal);
                record.put(cpu.as_secs().to_le_bytes());
                record.put(cpu.subsec_nanos().to_le_bytes());
                record.put(max_rss_bytes.to_le_bytes());
            }
        }
    }

    fn take(fields: &mut Reader<'_>) -> Option<Self> {
        let [stage] = fields.take()?;
        let (at, boot_ticks) = (Millis(fields.u64()?), fields.u64()?);
        if stage == 1 {
            return Some(Self::Starting { at, boot_ticks });
        }
        let (born_by, pid) = (fields.u64()?, fields.u32()?);
        match stage {
            2 => Some(Self::Running { at, boot_ticks, born_by, pid }),
            3 => Some(Self::Ended {
                at,
                ended: Millis(fields.u64()?),
                outcome: outcome_of(fields.take()?)?,
                exit_code: fields.option()?,
                signal: fields.option()?,
                cpu: fields.duration()?,
                max_rss_bytes: fields.u64()?,
                boot_ticks,
                born_by,
                pid,
            }),
            _ => None,
        }
    }
}

/// A random number from the kernel.
pub(in crate::worker) fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // The kernel gives up to 256 bytes in one piece.
    rustix::io::retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty()))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The kernel's random name for this boot: a UUID.
fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits = text.trim_end().replace('-', "");
    let id = u128::from_str_radix(&digits, 16).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(id.to_be_bytes())
}

/// An outcome on disk, which does not follow the order of the enum.
fn code_of(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Completed => 1,
        Outcome::Failed => 2,
        Outcome::TimedOut => 3,
        Outcome::Cancelled => 4,
        Outcome::Interrupted => 5,
        Outcome::Lost => 6,
    }
}

fn outcome_of([code]: [u8; 1]) -> Option<Outcome> {
    Outcome::ALL.into_iter().find(|&outcome| code_of(outcome) == code)
}

/// A record being filled.
struct Writer {
    record: [u8; RECORD_BYTES],
    at: usize,
}

impl Writer {
    fn new<const N: usize>(start: [u8; N]) -> Self {
        let mut writer = Self { record: [0; RECORD_BYTES], at: 0 };
        writer.put(start);
        writer
    }

    fn put<const N: usize>(&mut self, field: [u8; N]) {
        self.record[self.at..self.at + N].copy_from_slice(&field);
        self.at += N;
    }

    fn put_birth(&mut self, boot_ticks: u64, born_by: u64, pid: u32) {
        self.put(boot_ticks.to_le_bytes());
        self.put(born_by.to_le_bytes());
        self.put(pid.to_le_bytes());
    }

    fn put_option(&mut self, value: Option<i32>) {
        self.put([u8::from(value.is_some())]);
        self.put(value.unwrap_or_default().to_le_bytes());
    }

    fn seal(mut self) -> [u8; RECORD_BYTES] {
        debug_assert!(self.at <= RECORD_BYTES - CHECKSUM_BYTES);
        let checksum = crc32fast::hash(&self.record[..RECORD_BYTES - CHECKSUM_BYTES]);
        self.record[RECORD_BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        self.record
    }
}

/// The fields of a record, in the order in which they were put.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The fields, if the checksum says that they are what was written.
    fn open(record: &'a [u8; RECORD_BYTES]) -> Option<Self> {
        let (rest, checksum) = record.split_last_chunk::<CHECKSUM_BYTES>()?;
        (crc32fast::hash(rest) == u32::from_le_bytes(*checksum)).then_some(Self { rest })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    #[expect(clippy::option_option, reason = "the record is damaged, or the field is `None`")]
    fn option(&mut self) -> Option<Option<i32>> {
        let [present] = self.take()?;
        let value = self.take().map(i32::from_le_bytes)?;
        match present {
            0 => Some(None),
            1 => Some(Some(value)),
            _ => None,
        }
    }

    fn duration(&mut self) -> Option<Duration> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        // More would carry into the seconds, which may overflow.
        (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
    }
}
