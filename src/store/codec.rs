//! How records become bytes: a version byte, a CRC-32 of what follows, then bincode.
//!
//! redb does not verify its checksums on reads, so every record carries its own, and decoding is total:
//! whatever the bytes are, the answer is a record or [`StoreError::Damaged`], never a panic, and no more
//! memory is taken than [`RECORD_BYTES_MAX`] allows.

use std::ops::Range;

use bincode::config::{self, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

#[cfg(any(test, feature = "sim"))]
pub(crate) mod roundtrip;

/// Version of all record layouts. A record of another version is not read.
const VERSION: u8 = 1;
/// Version byte and checksum.
const HEADER_BYTES: usize = 5;
/// Most bytes that one record may take: a job with the largest arguments and environment, twice over.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most records fit this: their bytes are not moved while they are written.
const SMALL_BYTES: usize = 128;
/// A record up to this length can be read whatever it holds: bincode counts what a value takes in memory, at most
/// 16 bytes (a `u128`) for one of its own.
const SURE_BYTES: usize = RECORD_BYTES_MAX / 16;

fn config() -> impl Config {
    config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// The bytes of `record`. What [`decode`] would find too large is refused: bincode itself would write it.
pub(super) fn encode<T: Serialize + DeserializeOwned>(record: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(SMALL_BYTES);
    encode_onto(record, &mut bytes)?;
    Ok(bytes)
}

/// Adds the bytes of `record` to others, as [`encode`] makes them; says where they are.
pub(super) fn encode_onto<T: Serialize + DeserializeOwned>(
    record: &T,
    bytes: &mut Vec<u8>,
) -> Result<Range<usize>, StoreError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    bincode::serde::encode_into_std_write(record, bytes, config())
        .map_err(|error| StoreError::TooLarge(error.to_string()))?;
    let own = &mut bytes[start..];
    seal(own);
    if own.len() > SURE_BYTES && decode::<T>("memory", own).is_err() {
        let (size, most) = (own.len(), RECORD_BYTES_MAX);
        return Err(StoreError::TooLarge(format!("a record of {size} bytes, of which {most} can be read at most")));
    }
    Ok(start..bytes.len())
}

/// Writes the header of a record whose body follows it.
fn seal(bytes: &mut [u8]) {
    let (header, body) = bytes.split_at_mut(HEADER_BYTES);
    header[0] = VERSION;
    header[1..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
}

/// The record that `bytes` of `table` hold.
pub(super) fn decode<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |why: &str| StoreError::Damaged(format!("a record in {table} {why}"));
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged("is cut short"));
    };
    if header[0] != VERSION {
        return Err(damaged("has an unknown version"));
    }
    if header[1..] != crc32fast::hash(body).to_le_bytes() {
        return Err(damaged("does not match its checksum"));
    }
    match bincode::serde::decode_from_slice(body, config()) {
        Ok((record, used)) if used == body.len() => Ok(record),
        Ok(_) => Err(damaged("has bytes left over")),
        Err(_) => Err(damaged("cannot be decoded")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let record = (7_u64, "text".to_owned(), Some(vec![1_u8, 2]));
        let bytes = encode(&record).unwrap();
        assert_eq!(decode::<(u64, String, Option<Vec<u8>>)>("test", &bytes).unwrap(), record);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(&(u64::MAX, "text".to_owned())).unwrap();
        let read = |bytes: &[u8]| decode::<(u64, String)>("test", bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&flipped), Err(StoreError::Damaged(_))), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(matches!(read(&bytes[..len]), Err(StoreError::Damaged(_))), "cut to {len}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_takes_no_memory() {
        let mut body = vec![253];
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        assert!(decode::<String>("test", &bytes).is_err());
    }

    /// What was acknowledged must be there: so what could not be read again is refused.
    #[test]
    fn what_is_too_large_to_be_read_is_not_written() {
        let sizes = [1, RECORD_BYTES_MAX / 24, RECORD_BYTES_MAX / 8 - 1, RECORD_BYTES_MAX / 8, RECORD_BYTES_MAX];
        for size in sizes {
            let record = vec![String::new(); size];
            match encode(&record) {
                Ok(bytes) => assert_eq!(decode::<Vec<String>>("test", &bytes).unwrap().len(), size),
                Err(error) => assert!(matches!(error, StoreError::TooLarge(_)) && size > 1_000_000, "{size}: {error}"),
            }
        }
        assert!(encode(&"x".repeat(RECORD_BYTES_MAX)).is_err());
    }
}
