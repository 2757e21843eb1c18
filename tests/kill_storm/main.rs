//! The kill storm on the real binary: pools, runs, enqueuers and readers on one queue, while random ones of them are
//! killed, stopped and continued, or asked to end, at random moments.
//!
//! `KILL_STORM_KILLS` says how many SIGKILLs, `KILL_STORM_SEED` which ones: the same seed makes the same decisions, as
//! far as the machine lets it. A hundred at a time are sent to one queue; then it comes to rest and is judged. A queue
//! that is found wanting is left where it is.
//!
//! | claim | witness |
//! |---|---|
//! | what was acknowledged completed | the ids that enqueuers printed, and the kinds in the commands of the queue |
//! | no two copies of a job at once | a lock for each job, held by all its processes until the last is gone; and the times of the marks |
//! | no job ran again whose end its pool had seen | the board of each killed pool, held open by the storm and read after its death |
//! | only started runs count as lost | the same boards; each attempt has a start mark or stands there |
//! | nothing is left behind | `/proc/*/environ`, `/proc/locks`, `run/`, `output/`, `check` |
//! | only documented answers | exit code and words of each process that was not killed |

#![allow(unreachable_pub, missing_docs, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a test that cannot do its work fails")]
#![allow(clippy::print_stdout, reason = "what the storm did is worth a line")]
#![allow(
    clippy::disallowed_methods,
    reason = "the storm has no queue file open when it starts a process; it is real time"
)]

mod job;
mod ledger;
mod participant;
#[path = "../support/random.rs"]
mod random;
mod storm;
mod verdict;

use std::time::Instant;

use random::number;
use storm::{Storm, Tally};

/// How many kills one queue gets.
const KILLS_PER_QUEUE: u64 = 100;

#[test]
fn nothing_is_lost_run_twice_or_left_behind() {
    let (mut left, seed) = (number("KILL_STORM_KILLS", KILLS_PER_QUEUE), number("KILL_STORM_SEED", 1));
    let began = Instant::now();
    let (mut tally, mut round) = (Tally::default(), 0);
    while left > 0 {
        let kills = left.min(KILLS_PER_QUEUE);
        let seed = seed + round;
        println!("KILL_STORM_KILLS={kills} KILL_STORM_SEED={seed}");
        let began = Instant::now();
        let mut storm = Storm::new(seed);
        storm.blow(kills);
        storm.calm();
        verdict::judge(&mut storm);
        println!("{} in {:?}", storm.tally, began.elapsed());
        tally.add(&storm.tally);
        left -= kills;
        round += 1;
    }
    println!("kill storm: {tally} in {:?}", began.elapsed());
}

/// What a job does, by the environment that its command gives it.
#[test]
#[ignore = "the storm's jobs are this"]
fn job() {
    if let Ok(kind) = std::env::var(job::VARIABLE) {
        std::process::exit(job::execute(&kind.parse().unwrap()));
    }
}
