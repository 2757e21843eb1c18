//! The last lines of what a job wrote.

use std::fs::File;
use std::io::{self, Read, Seek};

use rustix::fs::{SeekFrom, seek};

/// How much is read at a time, in bytes.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Where the last `lines` lines of some bytes begin. A last one that has no end is a line, too.
pub(super) fn start_in(bytes: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    let mut left = lines;
    for (at, byte) in bytes.iter().enumerate().rev() {
        if *byte == b'\n' && at + 1 < bytes.len() {
            left -= 1;
            if left == 0 {
                return at + 1;
            }
        }
    }
    0
}

/// The same in the first `end` bytes of a file. A hole, where something was let go, ends the search.
pub(super) fn start_in_file(file: &mut File, end: u64, lines: usize) -> io::Result<u64> {
    let (mut left, mut chunk_end) = (lines, end);
    while left > 0 && chunk_end > 0 {
        let from = chunk_end.saturating_sub(CHUNK_BYTES);
        let Ok(data) = seek(&*file, SeekFrom::Data(from)) else { return Ok(chunk_end) };
        let data = data.min(chunk_end);
        let mut chunk = Vec::new();
        file.seek(io::SeekFrom::Start(data))?;
        file.take(chunk_end - data).read_to_end(&mut chunk)?;
        for (at, byte) in chunk.iter().enumerate().rev() {
            let next = data + at as u64 + 1;
            if *byte == b'\n' && next < end {
                left -= 1;
                if left == 0 {
                    return Ok(next);
                }
            }
        }
        if data > from {
            return Ok(data);
        }
        chunk_end = from;
    }
    Ok(chunk_end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn last_lines_are_found_in_memory_and_in_files() {
        let long = "x".repeat(100_000);
        let texts = ["", "a", "a\n", "a\nb", "a\nb\n", "\n\n\n", &format!("a\n{long}\n{long}\nend\n")];
        for (text, lines) in texts.into_iter().flat_map(|text| (0..5).map(move |lines| (text, lines))) {
            let expected: Vec<&str> = text.split_inclusive('\n').rev().take(lines).collect();
            let expected: String = expected.into_iter().rev().collect();
            assert_eq!(text[start_in(text.as_bytes(), lines)..], expected, "{lines} of {text:?}");
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let start = start_in_file(&mut file, text.len() as u64, lines).unwrap();
            assert_eq!(text[usize::try_from(start).unwrap()..], expected, "{lines} of {text:?}");
        }
    }
}
