//! Where a batch is read from, twice: a regular file is read from its disk again, anything else is kept as it came.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

use super::error::InputError;

/// How much of a file is read at a time.
const BUFFER_BYTES: usize = 128 * 1024;

/// An input that can be read again.
pub(crate) enum Source {
    /// A regular file, from a place on.
    File {
        /// Opened for this alone, or standard input.
        file: File,
        /// Where it begins.
        start: u64,
    },
    /// What came through a pipe, or was given in another way.
    Bytes(Vec<u8>),
}

impl Source {
    /// The file at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    /// Standard input, from where it stands.
    pub(crate) fn stdin() -> io::Result<Self> {
        Self::of(File::from(io::stdin().as_fd().try_clone_to_owned()?))
    }

    fn of(mut file: File) -> io::Result<Self> {
        if file.metadata()?.is_file() {
            return Ok(Self::File { start: file.stream_position()?, file });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        bytes.shrink_to_fit();
        Ok(Self::Bytes(bytes))
    }

    /// Reads it from its beginning.
    pub(crate) fn read(&mut self) -> Result<Box<dyn BufRead + Send + '_>, InputError> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(bytes.as_slice()),
            Self::File { file, start } => {
                let sought = file.seek(SeekFrom::Start(*start));
                sought.map_err(|error| InputError::Unreadable(error.to_string()))?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, file))
            }
        })
    }
}
