//! Writing statelets, and counting what was written.

use super::decode::DecodeError;
use crate::crc::crc32c_append;
use crate::protocol::control::StateletTotals;
use alloc::vec::Vec;

/// Length of a statelet's type and length fields, in bytes.
pub const HEADER_LEN: usize = 4;

/// A statelet could not be written. Nothing has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The value is longer than a statelet's can be.
    #[error("a statelet's value of {0} bytes is longer than 65535")]
    TooLong(usize),
    /// The buffer is too small.
    #[error("no room for a statelet of {needed} bytes")]
    NoRoom {
        /// The record's length in bytes.
        needed: usize,
    },
}

/// Length of a statelet with a value of `value_len` bytes, in bytes.
pub const fn encoded_len(value_len: usize) -> usize {
    HEADER_LEN + value_len
}

/// Type and length of a statelet, as they precede its value.
pub const fn header(statelet_type: u16, value_len: u16) -> [u8; HEADER_LEN] {
    let [t0, t1] = statelet_type.to_be_bytes();
    let [l0, l1] = value_len.to_be_bytes();
    [t0, t1, l0, l1]
}

fn checked_header(statelet_type: u16, value: &[u8]) -> Result<[u8; HEADER_LEN], EncodeError> {
    let value_len = u16::try_from(value.len()).map_err(|_| EncodeError::TooLong(value.len()))?;
    Ok(header(statelet_type, value_len))
}

/// Appends a statelet to `out`.
///
/// # Errors
/// [`EncodeError::TooLong`].
pub fn encode(statelet_type: u16, value: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let header = checked_header(statelet_type, value)?;
    out.reserve(encoded_len(value.len()));
    out.extend_from_slice(&header);
    out.extend_from_slice(value);
    Ok(())
}

/// Writes a statelet to the begin of `out` and returns its length.
///
/// # Errors
/// [`EncodeError`]; `out` is unchanged then.
pub fn encode_into(statelet_type: u16, value: &[u8], out: &mut [u8]) -> Result<usize, EncodeError> {
    let header = checked_header(statelet_type, value)?;
    let needed = encoded_len(value.len());
    let record = out.get_mut(..needed).ok_or(EncodeError::NoRoom { needed })?;
    let (head, body) = record.split_at_mut(HEADER_LEN);
    head.copy_from_slice(&header);
    body.copy_from_slice(value);
    Ok(needed)
}

/// Count and checksum of the statelets of a stream so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    records: u64,
    bytes: u64,
    crc: u32,
}

impl Tally {
    /// Nothing so far.
    pub const fn new() -> Self {
        Self { records: 0, bytes: 0, crc: 0 }
    }

    /// Counts one statelet, given as it is sent: type, length and value.
    pub fn add_record(&mut self, record: &[u8]) {
        self.add_records(1, record);
    }

    /// Counts `count` statelets that lie one behind the other in `bytes`.
    pub fn add_records(&mut self, count: u64, bytes: &[u8]) {
        self.records += count;
        self.bytes += bytes.len() as u64;
        self.crc = crc32c_append(self.crc, bytes);
    }

    /// Number of statelets.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of all statelets with their types and lengths.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of all values.
    pub const fn value_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.records * HEADER_LEN as u64)
    }

    /// For a report.
    pub const fn totals(&self) -> StateletTotals {
        let (records, value_bytes, bytes) = (self.records, self.value_bytes(), self.bytes);
        StateletTotals { records, value_bytes, bytes, ..StateletTotals::ZERO }
    }

    /// The record that ends the stream here.
    pub const fn end(&self) -> End {
        End { records: self.records, crc: self.crc }
    }
}

/// What a statelet stream's end record says: what the destination must have received by then.
///
/// ```text
///  0        2      4                   12      16
/// ┌────────┬──────┬───────────────────┬───────┐
/// │ 0xffff │ 12   │ number of records │ CRC   │   CRC-32C over all records before, type and length included
/// └────────┴──────┴───────────────────┴───────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct End {
    /// The number of statelets sent.
    pub records: u64,
    /// CRC-32C of all their bytes, type and length included.
    pub crc: u32,
}

impl End {
    /// The record's type; no network function may use it.
    pub const TYPE: u16 = 0xffff;

    /// The length of its value, in bytes.
    pub const VALUE_LEN: usize = 12;

    /// The whole record with type and length, as it is sent.
    pub fn encode(self) -> [u8; HEADER_LEN + Self::VALUE_LEN] {
        let mut bytes = [0; HEADER_LEN + Self::VALUE_LEN];
        bytes[..HEADER_LEN].copy_from_slice(&header(Self::TYPE, Self::VALUE_LEN as u16));
        bytes[HEADER_LEN..12].copy_from_slice(&self.records.to_be_bytes());
        bytes[12..].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    /// Reads the value of a record of type [`End::TYPE`].
    ///
    /// # Errors
    /// [`DecodeError::EndLength`] if it has the wrong length.
    pub fn decode_value(value: &[u8]) -> Result<Self, DecodeError> {
        let wrong_length = |_| DecodeError::EndLength(value.len());
        let [r0, r1, r2, r3, r4, r5, r6, r7, c0, c1, c2, c3] =
            <[u8; Self::VALUE_LEN]>::try_from(value).map_err(wrong_length)?;
        let records = u64::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        Ok(Self { records, crc: u32::from_be_bytes([c0, c1, c2, c3]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statelet_has_these_bytes() {
        let mut out = alloc::vec![9];
        encode(0x0102, b"abc", &mut out).unwrap();
        assert_eq!(out, *b"\x09\x01\x02\x00\x03abc");
        let mut dirty = [0xff; 8];
        assert_eq!(encode_into(0x0102, b"abc", &mut dirty), Ok(7));
        assert_eq!(dirty, *b"\x01\x02\x00\x03abc\xff");
    }

    #[test]
    fn statelet_that_does_not_fit_changes_nothing() {
        let mut out = Vec::new();
        assert_eq!(encode(1, &[0; 65_536], &mut out), Err(EncodeError::TooLong(65_536)));
        assert!(out.is_empty());
        let mut dirty = [0xff; 6];
        assert_eq!(encode_into(1, b"abc", &mut dirty), Err(EncodeError::NoRoom { needed: 7 }));
        assert_eq!(dirty, [0xff; 6]);
        encode(1, &[0; 65_535], &mut out).unwrap();
        assert_eq!(out.len(), encoded_len(65_535));
    }

    #[test]
    fn end_has_these_bytes() {
        let end = End { records: 0x0a0b, crc: 0x0102_0304 };
        let bytes = end.encode();
        assert_eq!(bytes, *b"\xff\xff\x00\x0c\x00\x00\x00\x00\x00\x00\x0a\x0b\x01\x02\x03\x04");
        assert_eq!(End::decode_value(&bytes[4..]), Ok(end));
        assert_eq!(End::decode_value(&bytes[5..]), Err(DecodeError::EndLength(11)));
    }

    #[test]
    fn tally_does_not_depend_on_batches() {
        let mut stream = Vec::new();
        let mut single = Tally::new();
        for value in [&b""[..], b"a", b"bcd"] {
            let begin = stream.len();
            encode(7, value, &mut stream).unwrap();
            single.add_record(&stream[begin..]);
        }
        let mut batch = Tally::new();
        batch.add_records(3, &stream);
        assert_eq!(batch, single);
        assert_eq!((batch.records(), batch.bytes(), batch.value_bytes()), (3, 16, 4));
    }
}
