//! What may reach a terminal. Whoever can write there can do more than write: set its title, fill the clipboard, type
//! answers into the shell, hide text or move it to where it was not.
//!
//! So what is not known to be harmless does not pass: text, tabs, ends of lines, carriage return and backspace (bars
//! of progress), colours (`ESC [ … m`) and the erasing of a line (`ESC [ … K`). Of everything else the first character
//! is made visible, as `\u001b`, and the rest is text then. Nothing is parsed for its meaning or swallowed, so that a
//! sequence without an end hides nothing after it. The same goes for controls in 8 bits, as U+009B, and for what turns
//! the direction of text; what is not UTF-8 shows as U+FFFD.

use std::io::{self, IsTerminal, Read, Write};

use crate::model::Stream;

/// Longest run of parameters of a colour, in bytes: `38:2::255:255:255;48:2::255:255:255` and some more.
const PARAMETERS_MAX: usize = 64;
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Whether a character does something to a terminal besides showing: controls, and what turns the direction of text.
pub(super) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes a stream of bytes harmless; see the module.
#[derive(Debug, Default)]
struct Tame {
    /// The start of a character or sequence whose end has not come yet.
    held: Vec<u8>,
    /// A colour is set.
    coloured: bool,
}

/// What the next bytes are.
enum Next {
    /// So many, to be shown as they are.
    Pass(usize),
    /// So many that set colours, or set them back.
    Colour(usize, bool),
    /// So many, which are this character, to be made visible.
    Show(usize, char),
    /// So many that are no UTF-8.
    Wrong(usize),
    /// More are needed to tell.
    Short,
}

impl Tame {
    /// What may be shown of `bytes` and what was held before.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let next = next(rest);
            if matches!(next, Next::Short) {
                break;
            }
            rest = self.take(&next, rest, out);
        }
        self.held = rest.to_vec();
    }

    /// The end: what is held is shown, and colours are set back.
    fn end(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while let Some(first) = rest.first() {
            let next = match next(rest) {
                Next::Short if first.is_ascii() => Next::Show(1, char::from(*first)),
                Next::Short => Next::Wrong(rest.len()),
                next => next,
            };
            rest = self.take(&next, rest, out);
        }
        if std::mem::take(&mut self.coloured) {
            out.extend_from_slice(b"\x1b[0m");
        }
    }

    /// Shows what comes next; what comes after that.
    fn take<'b>(&mut self, next: &Next, bytes: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
        let (Next::Pass(count) | Next::Colour(count, _) | Next::Show(count, _) | Next::Wrong(count)) = *next else {
            return bytes;
        };
        let (taken, rest) = bytes.split_at(count);
        match *next {
            Next::Show(_, c) => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            Next::Wrong(_) => out.extend_from_slice("\u{fffd}".as_bytes()),
            Next::Colour(_, on) => {
                self.coloured = on;
                out.extend_from_slice(taken);
            }
            Next::Pass(_) | Next::Short => out.extend_from_slice(taken),
        }
        rest
    }
}

fn next(bytes: &[u8]) -> Next {
    let ordinary = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t' | b'\x08');
    match bytes.iter().take_while(|byte| ordinary(byte)).count() {
        0 if bytes[0] == b'\x1b' => sequence(bytes),
        0 if bytes[0].is_ascii() => Next::Show(1, char::from(bytes[0])),
        0 => character(bytes),
        count => Next::Pass(count),
    }
}

/// What begins with ESC.
fn sequence(bytes: &[u8]) -> Next {
    const NOT_KNOWN: Next = Next::Show(1, '\x1b');
    let Some(second) = bytes.get(1) else { return Next::Short };
    let rest = &bytes[2..];
    let parameters = rest.iter().take_while(|byte| matches!(byte, b'0'..=b';')).count();
    if *second != b'[' || parameters > PARAMETERS_MAX {
        return NOT_KNOWN;
    }
    match rest.get(parameters) {
        None => Next::Short,
        Some(b'm') => Next::Colour(parameters + 3, rest[..parameters].iter().any(|byte| *byte != b'0')),
        Some(b'K') => Next::Pass(parameters + 3),
        Some(_) => NOT_KNOWN,
    }
}

/// What is beyond ASCII.
fn character(bytes: &[u8]) -> Next {
    const CHAR_BYTES_MAX: usize = 4;
    let start = &bytes[..bytes.len().min(CHAR_BYTES_MAX)];
    let valid = match std::str::from_utf8(start) {
        Ok(valid) => valid,
        Err(error) if error.valid_up_to() > 0 => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
        Err(error) => return error.error_len().map_or(Next::Short, Next::Wrong),
    };
    match valid.chars().next() {
        Some(c) if acts(c) => Next::Show(c.len_utf8(), c),
        Some(c) => Next::Pass(c.len_utf8()),
        None => Next::Wrong(1),
    }
}

/// A text for a terminal.
pub(super) fn tame(text: &str) -> String {
    let (mut tame, mut out) = (Tame::default(), Vec::new());
    tame.feed(text.as_bytes(), &mut out);
    tame.end(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A writer of whole texts: on a terminal they are made harmless.
pub(super) struct Screen<W: Write> {
    inner: W,
    tame: Option<Tame>,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(inner: W, is_terminal: bool) -> Self {
        Self { inner, tame: is_terminal.then(Tame::default) }
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tame) = &mut self.tame else { return self.inner.write(bytes) };
        let mut out = Vec::with_capacity(bytes.len());
        tame.feed(bytes, &mut out);
        self.inner.write_all(&out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The two streams of a job on their way to those of this process: harmless where that is a terminal, else byte by
/// byte.
pub(super) struct JobOutput {
    tame: [Option<Tame>; 2],
    /// Only if several jobs write by turns.
    lines: Option<Lines>,
}

/// What keeps the lines of several jobs apart: each is whole, and begins with what tells whose it is.
struct Lines {
    prefix: Vec<u8>,
    /// The start of a line whose end has not come yet.
    held: [Vec<u8>; 2],
}

impl Lines {
    /// Every whole line of what was held and `bytes`; what is too long to be held is one, too.
    fn feed(&mut self, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        let held = &mut self.held[stream as usize];
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            held.extend_from_slice(piece);
            if piece.ends_with(b"\n") || held.len() > CHUNK_BYTES {
                self.prefix.iter().chain(&*held).for_each(|byte| whole.push(*byte));
                if !held.ends_with(b"\n") {
                    whole.push(b'\n');
                }
                held.clear();
            }
        }
        whole
    }

    /// What is held, as a line.
    fn end(&mut self, stream: Stream) -> Vec<u8> {
        if self.held[stream as usize].is_empty() { Vec::new() } else { self.feed(stream, b"\n") }
    }
}

impl JobOutput {
    /// `raw` passes everything on to terminals, too.
    pub(super) fn new(raw: bool) -> Self {
        let tame = |is_terminal: bool| (is_terminal && !raw).then(Tame::default);
        Self { tame: [tame(io::stdout().is_terminal()), tame(io::stderr().is_terminal())], lines: None }
    }

    /// The same with `prefix` before each line.
    pub(super) fn with_prefix(self, prefix: &str) -> Self {
        Self { lines: Some(Lines { prefix: prefix.as_bytes().to_vec(), held: [Vec::new(), Vec::new()] }), ..self }
    }

    /// Copies bytes to the stream that they were written to. Answers how many.
    pub(super) fn copy(&mut self, stream: Stream, from: &mut impl Read) -> io::Result<u64> {
        if self.lines.is_none() {
            return self.pass(stream, from);
        }
        chunks(from, |chunk| {
            let whole = self.lines.as_mut().map(|lines| lines.feed(stream, chunk)).unwrap_or_default();
            self.pass(stream, &mut whole.as_slice()).map(drop)
        })
    }

    fn pass(&mut self, stream: Stream, from: &mut impl Read) -> io::Result<u64> {
        let tame = &mut self.tame[stream as usize];
        match stream {
            Stream::Stdout => {
                let mut out = io::stdout().lock();
                let copied = copy(tame, from, &mut out)?;
                out.flush()?;
                Ok(copied)
            }
            Stream::Stderr => copy(tame, from, &mut io::stderr().lock()),
        }
    }

    /// An attempt has ended: what comes next is none of its.
    pub(super) fn end(&mut self) -> io::Result<()> {
        for stream in Stream::ALL {
            let last = self.lines.as_mut().map(|lines| lines.end(stream)).unwrap_or_default();
            self.pass(stream, &mut last.as_slice())?;
        }
        for (stream, tame) in Stream::ALL.into_iter().zip(&mut self.tame) {
            let mut out = Vec::new();
            if let Some(tame) = tame {
                tame.end(&mut out);
            }
            match stream {
                Stream::Stdout => io::stdout().write_all(&out).and_then(|()| io::stdout().flush())?,
                Stream::Stderr => io::stderr().write_all(&out)?,
            }
        }
        Ok(())
    }
}

fn copy(tame: &mut Option<Tame>, from: &mut impl Read, out: &mut impl Write) -> io::Result<u64> {
    let Some(tame) = tame else { return io::copy(from, out) };
    let mut shown = Vec::new();
    chunks(from, |chunk| {
        tame.feed(chunk, &mut shown);
        out.write_all(&shown)?;
        shown.clear();
        Ok(())
    })
}

/// Takes everything piece by piece. Answers how many bytes.
fn chunks(from: &mut impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let (mut chunk, mut taken) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(taken),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        take(&chunk[..count])?;
        taken += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal gets of these bytes, fed in pieces of a size.
    fn shown(bytes: &[u8], piece: usize) -> String {
        let (mut tame, mut out) = (Tame::default(), Vec::new());
        bytes.chunks(piece).for_each(|piece| tame.feed(piece, &mut out));
        tame.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_the_harmless_passes_however_it_is_cut() {
        for (bytes, expected) in [
            (&b"plain\ttext\r\n 50%\x08\x08"[..], "plain\ttext\r\n 50%\x08\x08"),
            ("Grüße 日本 👩‍🚀".as_bytes(), "Grüße 日本 👩‍🚀"),
            (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            (b"\x1b[38:2::1:2:3mx\x1b[m\x1b[2K", "\x1b[38:2::1:2:3mx\x1b[m\x1b[2K"),
            (b"\x1b[31mleft on", "\x1b[31mleft on\x1b[0m"),
            // Title, clipboard, link, with either end; and without one, after which text still shows.
            (b"\x1b]0;title\x07after", "\\u001b]0;title\\u0007after"),
            (b"\x1b]52;c;cm0gLXJm\x1b\\", "\\u001b]52;c;cm0gLXJm\\u001b\\"),
            (b"\x1b]8;;http://x\x1b\\", "\\u001b]8;;http://x\\u001b\\"),
            (b"\x1b]never ends\nafter", "\\u001b]never ends\nafter"),
            // Moves, clears, reports, modes, device control, resets, other character sets.
            (b"\x1b[2J\x1b[1;1H\x1b[6n\x1b[c", "\\u001b[2J\\u001b[1;1H\\u001b[6n\\u001b[c"),
            (b"\x1b[?1049h\x1bP$q\x1bc\x1b(0", "\\u001b[?1049h\\u001bP$q\\u001bc\\u001b(0"),
            (b"\x1b[>4;1m\x1b[1 m\x1b[!p", "\\u001b[>4;1m\\u001b[1 m\\u001b[!p"),
            // One inside another; and what only begins.
            (b"\x1b[3\x1b[1mx\x1b[0m", "\\u001b[3\x1b[1mx\x1b[0m"),
            (b"end\x1b", "end\\u001b"),
            (b"end\x1b[1;", "end\\u001b[1;"),
            // Eight bits, encoded and not; controls; text that runs backwards.
            ("\u{9b}2J\u{9d}0;x\u{9c}\u{85}".as_bytes(), "\\u009b2J\\u009d0;x\\u009c\\u0085"),
            (b"\x9b2J\x9d", "\u{fffd}2J\u{fffd}"),
            (b"\0\x07\x0b\x0c\x0e\x0f\x7f", "\\u0000\\u0007\\u000b\\u000c\\u000e\\u000f\\u007f"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{2028}".as_bytes(), "a\\u202eb\\u2066c\\u200f\\u2028"),
            (b"cut \xe6\x97", "cut \u{fffd}"),
            (b"\xff\xc3(", "\u{fffd}\u{fffd}("),
        ] {
            for piece in [1, 2, 3, 1_000] {
                assert_eq!(shown(bytes, piece), expected, "{} by {piece}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn whatever_the_bytes_what_is_shown_acts_in_no_other_way() {
        // Every triple of the bytes that matter, between texts.
        let bytes = b"\x1b[]0;mKHP\\\x07\x9b\x9d\xc2\x85\xe2\x80\xaea";
        for (a, b, c) in bytes.iter().flat_map(|a| bytes.iter().flat_map(move |b| bytes.iter().map(move |c| (a, b, c))))
        {
            let text = [b"x\x1b", &[*a, *b, *c][..], b"y"].concat();
            let shown = shown(&text, 2);
            let mut rest = shown.as_str();
            while let Some(at) = rest.find('\x1b') {
                rest = rest[at + 1..].strip_prefix('[').unwrap().trim_start_matches(|c: char| matches!(c, '0'..=';'));
                assert!(rest.starts_with(['m', 'K']), "{shown:?}");
            }
            assert!(shown.chars().all(|c| c == '\x1b' || !acts(c)), "{shown:?}");
            assert!(shown.contains('y'), "{shown:?} hides what follows");
        }
    }

    #[test]
    fn lines_of_several_jobs_stay_whole() {
        let mut lines = Lines { prefix: b"7 | ".to_vec(), held: [Vec::new(), Vec::new()] };
        let mut feed = |stream, text: &str| String::from_utf8(lines.feed(stream, text.as_bytes())).unwrap();
        assert_eq!(feed(Stream::Stdout, "a\nb"), "7 | a\n");
        assert_eq!(feed(Stream::Stderr, "x\n\n"), "7 | x\n7 | \n");
        assert_eq!(feed(Stream::Stdout, "c\nd"), "7 | bc\n");
        let long = "y".repeat(CHUNK_BYTES + 1);
        assert_eq!(feed(Stream::Stderr, &long), format!("7 | {long}\n"));
        assert_eq!((lines.end(Stream::Stdout), lines.end(Stream::Stderr)), (b"7 | d\n".to_vec(), Vec::new()));
    }

    #[test]
    fn what_is_made_visible_in_json_is_json_still() {
        let value = serde_json::Value::from("\u{1b}]0;x\u{7f}\u{9b}\u{202e}");
        let shown = tame(&value.to_string());
        assert!(!shown.chars().any(acts));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
