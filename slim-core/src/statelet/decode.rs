//! Reading statelets from a stream that arrives in pieces.

use super::encode::{End, HEADER_LEN, Tally, encoded_len};
use super::{TYPE_ALIGN, TYPE_DROPS, TYPE_PACKET, TYPE_RESERVED};
use alloc::vec::Vec;
use nom::IResult;
use nom::Parser;
use nom::multi::length_data;
use nom::number::streaming::be_u16;

/// Why a statelet stream is not what it should be. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A record of a type that belongs to the stream but means nothing.
    #[error("reserved statelet type {0:#06x}")]
    Reserved(u16),
    /// The end record's value does not have its length.
    #[error("end record of {0} bytes")]
    EndLength(usize),
    /// Statelets are missing or too many.
    #[error("{have} statelets arrived, {want} were sent")]
    Count {
        /// The number that arrived.
        have: u64,
        /// The number the end record names.
        want: u64,
    },
    /// The statelets arrived damaged.
    #[error("checksum of statelets is {have:#010x}, should be {want:#010x}")]
    Checksum {
        /// The checksum of what arrived.
        have: u32,
        /// The checksum the end record names.
        want: u32,
    },
    /// Something follows the end record.
    #[error("bytes after the end record")]
    AfterEnd,
    /// The stream was closed before its end record.
    #[error("the stream stopped without an end record, after {0} statelets")]
    NoEnd(u64),
}

/// One record of a statelet stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A statelet.
    Statelet {
        /// Its type: below [`TYPE_RESERVED`], or [`TYPE_PACKET`], [`TYPE_ALIGN`] or [`TYPE_DROPS`].
        statelet_type: u16,
        /// Its value.
        value: &'a [u8],
    },
    /// The end of the stream, with count and checksum as they should be.
    End(End),
}

/// Splits a statelet stream into records, wherever the pieces it arrives in are cut.
///
/// Holds at most one incomplete record: 65,539 bytes.
///
/// ```
/// use slim_core::statelet::{Decoder, Record};
///
/// let mut decoder = Decoder::new();
/// for mut piece in [&b"\x00\x07\x00\x02h"[..], b"i"] {
///     while let Some(record) = decoder.decode(&mut piece)? {
///         assert_eq!(record, Record::Statelet { statelet_type: 7, value: b"hi" });
///     }
/// }
/// assert!(decoder.finish().is_err()); // no end record
/// # Ok::<(), slim_core::statelet::DecodeError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    /// The begin of a record whose end has not arrived, or a whole record that was handed out.
    partial: Vec<u8>,
    handed_out: bool,
    tally: Tally,
    end: Option<End>,
}

/// A record and what follows it.
fn record(input: &[u8]) -> IResult<&[u8], (u16, &[u8])> {
    (be_u16, length_data(be_u16)).parse(input)
}

impl Decoder {
    /// A decoder at the begin of a stream.
    pub const fn new() -> Self {
        Self { partial: Vec::new(), handed_out: false, tally: Tally::new(), end: None }
    }

    /// Takes the next record off `input`, or all of `input` if no record is complete yet.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream is of no use any more.
    pub fn decode<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Record<'a>>, DecodeError> {
        if core::mem::take(&mut self.handed_out) {
            self.partial.clear();
        }
        if input.is_empty() {
            return Ok(None);
        }
        if self.end.is_some() {
            return Err(DecodeError::AfterEnd);
        }
        let whole = *input;
        let (statelet_type, value, bytes) = if self.partial.is_empty() {
            match record(whole) {
                Ok((rest, (statelet_type, value))) => {
                    *input = rest;
                    (statelet_type, value, &whole[..whole.len() - rest.len()])
                }
                Err(_) => {
                    self.partial.extend_from_slice(whole);
                    *input = &[];
                    return Ok(None);
                }
            }
        } else {
            self.fill(input);
            match record(&self.partial) {
                Ok((_, (statelet_type, value))) => {
                    self.handed_out = true;
                    (statelet_type, value, &self.partial[..])
                }
                Err(_) => return Ok(None),
            }
        };
        if statelet_type == End::TYPE {
            let end = End::decode_value(value)?;
            self.tally.expect(end)?;
            self.end = Some(end);
            return Ok(Some(Record::End(end)));
        }
        if statelet_type >= TYPE_RESERVED && !matches!(statelet_type, TYPE_PACKET | TYPE_ALIGN | TYPE_DROPS) {
            return Err(DecodeError::Reserved(statelet_type));
        }
        self.tally.add_record(bytes);
        Ok(Some(Record::Statelet { statelet_type, value }))
    }

    /// Moves from `input` what the record begun needs, no more.
    fn fill(&mut self, input: &mut &[u8]) {
        self.fill_to(HEADER_LEN, input);
        if let [_, _, high, low, ..] = self.partial[..] {
            self.fill_to(encoded_len(u16::from_be_bytes([high, low]).into()), input);
        }
    }

    fn fill_to(&mut self, len: usize, input: &mut &[u8]) {
        let missing = len.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.partial.extend_from_slice(taken);
        *input = rest;
    }

    /// What has arrived so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Ends the stream where the connection was closed.
    ///
    /// # Errors
    /// [`DecodeError::NoEnd`] if the end record has not arrived.
    pub fn finish(&self) -> Result<End, DecodeError> {
        self.end.ok_or(DecodeError::NoEnd(self.tally.records()))
    }
}

impl Tally {
    /// Compares what arrived with what was sent.
    fn expect(&self, end: End) -> Result<(), DecodeError> {
        let have = self.end();
        if have.records != end.records {
            return Err(DecodeError::Count { have: have.records, want: end.records });
        }
        if have.crc != end.crc {
            return Err(DecodeError::Checksum { have: have.crc, want: end.crc });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;
    use proptest::prelude::*;

    /// A stream of these statelets with its end record.
    fn stream(statelets: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (statelet_type, value) in statelets {
            encode(*statelet_type, value, &mut bytes).unwrap();
        }
        let mut tally = Tally::new();
        tally.add_records(statelets.len() as u64, &bytes);
        bytes.extend_from_slice(&tally.end().encode());
        bytes
    }

    /// Decodes `bytes`, cut at the given places.
    fn decode_cut(bytes: &[u8], mut cuts: Vec<usize>) -> Result<Vec<(u16, Vec<u8>)>, DecodeError> {
        cuts.sort_unstable();
        let mut decoder = Decoder::new();
        let mut statelets = Vec::new();
        let mut begin = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let mut piece = &bytes[begin..cut];
            begin = cut;
            while let Some(record) = decoder.decode(&mut piece)? {
                if let Record::Statelet { statelet_type, value } = record {
                    statelets.push((statelet_type, value.to_vec()));
                }
            }
            assert!(piece.is_empty());
        }
        decoder.finish().map(|end| {
            assert_eq!(end.records, statelets.len() as u64);
            statelets
        })
    }

    fn any_statelets() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
        let value = prop_oneof![9 => 0usize..30, 1 => 60_000usize..=65_535]
            .prop_flat_map(|len| (any::<u8>(), Just(len)).prop_map(|(byte, len)| alloc::vec![byte; len]));
        proptest::collection::vec((0..TYPE_RESERVED, value), 0..10)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_stream_cut_anywhere_round_trips(
            statelets in any_statelets(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10)
        ) {
            let bytes = stream(&statelets);
            let cuts = cuts.into_iter().map(|cut| cut.index(bytes.len())).collect();
            prop_assert_eq!(decode_cut(&bytes, cuts), Ok(statelets));
        }

        #[test]
        fn arbitrary_bytes_never_panic(pieces: Vec<Vec<u8>>) {
            let mut decoder = Decoder::new();
            for piece in &pieces {
                let mut piece = &piece[..];
                while let Ok(Some(_)) = decoder.decode(&mut piece) {}
            }
        }
    }

    fn sample() -> Vec<u8> {
        stream(&[(1, b"one".to_vec()), (2, Vec::new()), (3, b"three".to_vec())])
    }

    #[test]
    fn stream_arrives_byte_by_byte() {
        let bytes = sample();
        let statelets = decode_cut(&bytes, (0..bytes.len()).collect()).unwrap();
        assert_eq!(statelets, [(1, b"one".to_vec()), (2, Vec::new()), (3, b"three".to_vec())]);
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(matches!(decode_cut(&bytes[..len], Vec::new()), Err(DecodeError::NoEnd(_))), "{len}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                assert!(decode_cut(&bytes, Vec::new()).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let statelet = b"\x00\x01\x00\x01a";
        let crc = crate::crc::crc32c_append(0, statelet);
        let after = |tail: &[u8]| decode_cut(&[statelet, tail].concat(), Vec::new()).unwrap_err();
        assert_eq!(after(&End { records: 2, crc }.encode()), DecodeError::Count { have: 1, want: 2 });
        assert_eq!(after(&End { records: 1, crc: 5 }.encode()), DecodeError::Checksum { have: crc, want: 5 });
        assert_eq!(after(&[&End { records: 1, crc }.encode()[..], &[0]].concat()), DecodeError::AfterEnd);
        assert_eq!(after(b"\xff\x00\x00\x00"), DecodeError::Reserved(0xff00));
        assert_eq!(after(b"\xff\xfe\x00\x00"), DecodeError::Reserved(0xfffe));
        assert_eq!(after(b"\xff\xff\x00\x01a"), DecodeError::EndLength(1));
        assert_eq!(after(b"\x00"), DecodeError::NoEnd(1));
    }
}
