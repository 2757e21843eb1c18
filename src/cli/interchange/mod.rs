//! The format of `export` and `import`: JSON lines, each an object with one field that says what the line is.
//!
//! ```text
//! {"queuectl_export":{"version":1,"exported_at":"…"}}
//! {"setting":{"key":"timeout","value":"2h"}}                           what a person set
//! {"run":{"run":1,"identity":"…","line":"queuectl run jobs.txt",…}}    runs
//! {"environment":{"environment":"4f1c…","variables":{"PATH":"…",…}}}   right before the first job that has it
//! {"job":{"seq":1,"command":"…","environment":"4f1c…","state":"dead","reason":"failed","attempts":2,…}}
//! {"attempt":{"seq":1,"attempt":1,"outcome":"failed","exit_code":1,"stderr":"oh\n",…}}
//! {"attempt":{"seq":1,"attempt":2,"stdout_file":{"bytes":700000},…}}
//! {"output":{"seq":1,"attempt":2,"stream":"stdout","bytes":"…"}}       large outputs, in parts of half a MiB
//! {"end":{"jobs":1,…,"next_seq":2,…}}                                  totals, and where numbers go on
//! ```
//!
//! So no line is longer than a job's command and environment can be, however long its history and its outputs are,
//! and neither side holds more than one job. What ends before its `end` is cut short, and refused.

mod reader;
mod text;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use reader::{BadExport, Item, OutputPart, PartEnd, Reader};
pub(crate) use wire::Totals;
pub(crate) use writer::{Note, Stop, Written, write};

/// Version of the format. A later one is refused.
const VERSION: u32 = 1;

/// Longest line that is read, in bytes: a job with the largest command, every byte of it escaped.
const EXPORT_LINE_BYTES_MAX: usize = 8 * crate::model::EXEC_BYTES_MAX;

/// Bytes of a large output in one line.
const CHUNK_BYTES: usize = 512 * 1024;
