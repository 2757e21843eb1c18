//! A job that tells when it began, in nanoseconds of the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    println!("{}", now.as_nanos());
}
