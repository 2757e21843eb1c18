//! `status --watch`: shown anew whenever something has changed. The file wakes it, and the boards of the pools, since
//! the start of a job is no commit; nothing else does. What comes within a moment of a change is shown with it.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use rustix::termios::tcgetwinsize;
use serde_json::Value;

use super::super::context::stdout;
use super::super::exit::{Exit, Failure};
use super::super::terminal::tame;
use super::status::Status;
use super::wait::gone;
use crate::queue::Queue;
use crate::worker::{self, Bell, Ring, StopListener, board_path};

/// Rows of a terminal that does not tell.
const ROWS_IF_NOT_TOLD: usize = 24;
/// The least time from one showing to the next.
const BETWEEN_SHOWINGS: Duration = Duration::from_millis(100);

pub(super) fn watch(queue: Queue, is_json: bool) -> Result<Exit, Failure> {
    let mut bell = Bell::new(queue.folder())?;
    let waker = bell.waker();
    let listener = StopListener::start(move || waker.wake())?;
    let (mut boards, mut last) = (BTreeSet::new(), Value::Null);
    'shown: loop {
        let status = Status::read(&queue)?;
        let mut is_new = false;
        for pool in status.pools.iter().map(|status| &status.pool.id) {
            if boards.insert(pool.clone()) {
                bell.also_watch(&board_path(queue.folder(), pool))?;
                is_new = true;
            }
        }
        if is_new {
            continue;
        }
        let now = status.json(&queue);
        let shown_until = queue.clock().elapsed() + BETWEEN_SHOWINGS;
        if now != last {
            show(&queue, &status, is_json, last.is_null())?;
            last = now;
        }
        if !changes(&queue, &mut bell, None)? {
            break;
        }
        while let Some(left) = shown_until.checked_sub(queue.clock().elapsed()).filter(|left| !left.is_zero()) {
            if !changes(&queue, &mut bell, Some(left))? {
                break 'shown;
            }
        }
    }
    drop(listener);
    queue.leave();
    Ok(Exit::Done)
}

/// Waits for a change, or that long; `false` if the person has seen enough.
fn changes(queue: &Queue, bell: &mut Bell, at_most: Option<Duration>) -> Result<bool, Failure> {
    let ring = bell.wait(at_most)?;
    for pool in bell.take_closed() {
        worker::await_death(queue, &pool);
    }
    match ring {
        Ring::Woken => Ok(false),
        Ring::Moved => Err(Failure::new(Exit::QueueUnusable, gone(queue))),
        Ring::ClockSet | Ring::Changed | Ring::TimedOut => Ok(true),
    }
}

/// On a terminal in the place of what was there; else after it, with an empty line between two blocks.
fn show(queue: &Queue, status: &Status, is_json: bool, is_first: bool) -> Result<(), Failure> {
    if is_json || !io::stdout().is_terminal() {
        let mut out = stdout();
        if !is_json && !is_first {
            writeln!(out)?;
        }
        status.write(queue, is_json, &mut out)?;
        out.flush()?;
        return Ok(());
    }
    let mut text = Vec::new();
    status.write(queue, is_json, &mut text)?;
    let mut text = tame(&String::from_utf8_lossy(&text));
    // Where no colours are wanted, what moves the cursor is wanted all the same.
    if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
        text = strip_str(&text).to_string();
    }
    // Some terminals do not tell.
    let rows = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_row));
    let rows = if rows == 0 { ROWS_IF_NOT_TOLD } else { rows };
    // From the top, each line to its end, and what is below; the last line stays free for the cursor.
    let mut screen = if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" }.to_owned();
    for line in text.lines().take(rows.saturating_sub(1).max(1)) {
        screen = screen + line + "\x1b[K\n";
    }
    screen.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes())?;
    Ok(out.flush()?)
}
