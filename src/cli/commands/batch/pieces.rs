//! The jobs of a batch in pieces that fit a transaction each. They are read by a thread of their own: while one is
//! stored, the next is read.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use super::super::super::input::{InputError, Jobs, Repeat, key_hash};
use crate::model::{JobSpec, StateKind};
use crate::store::{Enqueued, Met};
use crate::worker::PIECE_BYTES_MAX;

/// Jobs that are stored in one transaction.
#[derive(Default)]
pub(super) struct Piece {
    pub specs: Vec<JobSpec>,
    /// The jobs between them for which others stand: after how many of `specs`, and the hash of the key.
    repeats: Vec<(usize, u128)>,
}

/// What becomes of a line.
pub(super) enum Line {
    /// It is a job.
    Job,
    /// Another line before it has its key, of which this is the hash.
    Repeat(u128),
    /// It is not taken.
    LeftOut,
}

/// Reads all jobs and hands them over in pieces, as large as `room` says at the time, until nobody takes them.
pub(super) fn read<R: BufRead>(
    jobs: &mut Jobs<'_, R>,
    room: &AtomicUsize,
    line_is: impl Fn(usize) -> Line,
    pieces: &SyncSender<Piece>,
) -> Result<(), InputError> {
    loop {
        let (begin, mut piece, mut is_last) = (jobs.bytes_read(), Piece::default(), false);
        while piece.specs.len() < room.load(Ordering::Relaxed) && jobs.bytes_read() - begin < PIECE_BYTES_MAX as u64 {
            let Some((line, spec)) = jobs.next()? else {
                is_last = true;
                break;
            };
            match line_is(line) {
                Line::Job => piece.specs.push(spec),
                Line::Repeat(key) => piece.repeats.push((piece.specs.len(), key)),
                Line::LeftOut => {}
            }
        }
        if pieces.send(piece).is_err() || is_last {
            return Ok(());
        }
    }
}

/// The first jobs of the keys that several lines have: each stands for all of its lines.
pub(super) struct Repeats(HashMap<u128, Option<Enqueued>>);

impl Repeats {
    pub(super) fn of(repeats: &[Repeat]) -> Self {
        Self(repeats.iter().map(|repeat| (repeat.key, None)).collect())
    }

    /// What became of all jobs of a piece, in their order.
    pub(super) fn interleave(&mut self, piece: &Piece, added: Vec<Enqueued>) -> Vec<Enqueued> {
        if self.0.is_empty() {
            return added;
        }
        let mut all = Vec::with_capacity(added.len() + piece.repeats.len());
        let mut repeats = piece.repeats.iter().peekable();
        for (n, (job, spec)) in added.into_iter().zip(&piece.specs).enumerate() {
            while let Some((_, key)) = repeats.next_if(|(after, _)| *after <= n) {
                all.extend(self.again(*key));
            }
            if let Some(first) = spec.key.as_ref().and_then(|key| self.0.get_mut(&key_hash(key))) {
                *first = Some(job.clone());
            }
            all.push(job);
        }
        for (_, key) in repeats {
            all.extend(self.again(*key));
        }
        all
    }

    fn again(&self, key: u128) -> Option<Enqueued> {
        let first = self.0.get(&key)?.clone()?;
        let state = match (&first.met, first.due) {
            (Met::Exists(state) | Met::Retried(state), _) => *state,
            (Met::New | Met::Replaced(_), None) => StateKind::Pending,
            (Met::New | Met::Replaced(_), Some(_)) => StateKind::Scheduled,
        };
        Some(Enqueued { due: None, met: Met::Exists(state), ..first })
    }
}
