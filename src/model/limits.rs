//! Every limit of the queue, with its unit and its reason.

use std::time::Duration;

/// Longest job id, queue name and name for people, in bytes: fits a table column and a file name.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest key that a job is enqueued under, in bytes: a URL or a path fits mostly, and many rows of KEYS fit a page.
pub const KEY_BYTES_MAX: usize = 256;

/// Most tags of one job: each is a row of an index, written with the job.
pub const TAGS_MAX: usize = 16;

/// Longest key of a tag, in bytes: it is typed.
pub const TAG_KEY_BYTES_MAX: usize = 64;

/// Longest value of a tag, in bytes, as long as a name: many rows of its index fit a page.
pub const TAG_VALUE_BYTES_MAX: usize = 128;

/// Most jobs that one job waits for: all of them are looked at in one transaction when it is retried.
pub const NEEDS_MAX: usize = 10_000;

/// The lowest and the highest priority.
pub const PRIORITY_RANGE: std::ops::RangeInclusive<i8> = -100..=100;

/// Longest single argument or environment string that `execve` takes, in bytes, its NUL included: the
/// kernel's `MAX_ARG_STRLEN`, 32 pages. A shell command is one argument.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024;

/// Longest path that a system call takes, in bytes, its NUL included: the kernel's `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;

/// Most bytes of arguments and environment together that are accepted for one job. The kernel takes a
/// quarter of the stack limit, but never more than this (`_STK_LIM / 4 * 3`).
pub const EXEC_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Longest line of a batch file, in bytes: room for a job with the largest environment, escaped.
pub const LINE_BYTES_MAX: usize = 4 * EXEC_BYTES_MAX;

/// Outputs up to this size, in bytes, live in the queue file; larger ones would take a power of two of
/// whole pages there, so they stay in files of their own.
pub const INLINE_OUTPUT_BYTES_MAX: usize = 4_000;

/// Most inline output of one transaction, in bytes, which keeps a transaction within 10 ms.
pub const INLINE_OUTPUT_BYTES_PER_COMMIT: usize = 1024 * 1024;

/// Longest retry delay that can be set, and the longest duration taken anywhere.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longest text taken as a duration, in bytes: longer runs of digits overflow the parser.
pub const DURATION_TEXT_BYTES_MAX: usize = 32;

/// Most retries that can be asked for.
pub const RETRIES_MAX: u32 = 1_000_000;

/// Most jobs that a setting of retention counts.
pub const RETAINED_JOBS_MAX: u64 = 1_000_000_000;

/// A step of the queue's time that is longer than this may be a clock that was set wrong: nothing goes by its age until
/// as much time has passed since.
pub const LEAP: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest backoff base.
pub const BACKOFF_BASE_MAX: f64 = 1_000.0;

/// Longest time between SIGTERM and SIGKILL.
pub const KILL_GRACE_MAX: Duration = Duration::from_secs(60 * 60);

/// Smallest and largest output kept of one stream of one attempt, in bytes.
pub const OUTPUT_LIMIT_RANGE: std::ops::RangeInclusive<u64> = 4 * 1024..=1024 * 1024 * 1024 * 1024;

/// Most workers of one pool.
pub const WORKERS_MAX: usize = 4_096;

/// A job that died of SIGTERM, SIGINT or SIGHUP not sent by its pool waits this long before it counts as
/// failed: whoever ends a whole service signals the pool a moment before or after the job.
pub const SIGNAL_DOUBT: Duration = Duration::from_secs(1);

/// Survivors of a dead pool get at most this long between SIGTERM and SIGKILL, so that their jobs run
/// again within two seconds.
pub const SURVIVOR_GRACE_MAX: Duration = Duration::from_secs(1);

/// How many ended pools POOLS remembers.
pub const ENDED_POOLS_KEPT: usize = 20;

/// A file this far ahead of the clock is worth a word.
pub const CLOCK_BEHIND_WORTH_SAYING: Duration = Duration::from_secs(24 * 60 * 60);
