//! Compression of a statelet stream: DEFLATE (RFC 1951), flushed at the end of each segment.
//!
//! Statelets resemble each other: addresses and lengths repeat, counters change in their last bytes. One compressor runs
//! through the whole stream, so that each segment profits from those before it; a flush makes whatever has been given to
//! it readable at once. Records, and the [end record](super::End), are found in what comes out.

use alloc::boxed::Box;
use alloc::vec::Vec;
use miniz_oxide::deflate::core::CompressorOxide;
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// The fastest level that still finds matches: segments are small, and wait for it.
const LEVEL: u8 = 1;

/// The size of the pieces in which compressed bytes are produced.
const PIECE: usize = 4096;

/// What arrived is not what a compressor sends. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The bytes cannot be decompressed.
    #[error("the compressed statelet stream is damaged")]
    Damaged,
    /// The compressed data ends, though the stream does not.
    #[error("the compressed statelet stream ends early")]
    Ended,
    /// The compressor refuses its own state, which does not happen.
    #[error("the statelet stream cannot be compressed")]
    Compressor,
}

/// Compresses the source's side of a stream.
pub struct Compressor(Box<CompressorOxide>);

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// A compressor at the begin of a stream. Takes some 300 KiB.
    pub fn new() -> Self {
        let mut compressor = Box::<CompressorOxide>::default();
        compressor.set_format_and_level(DataFormat::Raw, LEVEL);
        Self(compressor)
    }

    /// Appends to `out` what makes the other side see all of `input`.
    ///
    /// # Errors
    /// [`CompressionError::Compressor`].
    pub fn compress(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        let mut piece = [0; PIECE];
        loop {
            let result = deflate(&mut self.0, input, &mut piece, MZFlush::Sync);
            if result.status != Ok(MZStatus::Ok) {
                return Err(CompressionError::Compressor);
            }
            input = input.get(result.bytes_consumed..).unwrap_or_default();
            out.extend_from_slice(piece.get(..result.bytes_written).unwrap_or_default());
            // A piece that is not full is the end of the flush.
            if input.is_empty() && result.bytes_written < PIECE {
                return Ok(());
            }
        }
    }
}

/// Decompresses the destination's side of a stream.
pub struct Decompressor(Box<InflateState>);

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Decompressor {
    /// A decompressor at the begin of a stream. Takes some 45 KiB, whatever arrives.
    pub fn new() -> Self {
        Self(InflateState::new_boxed(DataFormat::Raw))
    }

    /// Takes bytes off `input`, writes to `out`, and returns how many.
    ///
    /// Call it until it returns 0, which it does once `input` is used up and everything has come out.
    ///
    /// # Errors
    /// [`CompressionError`]; the stream is of no use any more.
    pub fn decompress(&mut self, input: &mut &[u8], out: &mut [u8]) -> Result<usize, CompressionError> {
        let result = inflate(&mut self.0, input, out, MZFlush::None);
        *input = input.get(result.bytes_consumed..).unwrap_or_default();
        match result.status {
            Ok(MZStatus::Ok) => Ok(result.bytes_written),
            Ok(MZStatus::StreamEnd | MZStatus::NeedDict) => Err(CompressionError::Ended),
            // Nothing to read and nothing to write.
            Err(miniz_oxide::MZError::Buf) if input.is_empty() => Ok(0),
            Err(_) => Err(CompressionError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decompress(decompressor: &mut Decompressor, mut input: &[u8], size: usize) -> Result<Vec<u8>, CompressionError> {
        let (mut all, mut out) = (Vec::new(), vec![0; size]);
        loop {
            match decompressor.decompress(&mut input, &mut out)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&out[..count]),
            }
        }
    }

    /// Counts of a few hosts, as a NAT announces them.
    fn counts(number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0..number {
            bytes.extend_from_slice(&[0, 0x30 + (n % 2) as u8, 0, 12, 10, 1, 0, (n % 7) as u8, 0, 1, 0, 0]);
            bytes.extend_from_slice(&(498 * (n / 14 + 1)).to_be_bytes());
        }
        bytes
    }

    #[test]
    fn each_segment_can_be_read_at_once() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for round in 0..50 {
            let segment = counts(10 + round);
            let mut sent = Vec::new();
            compressor.compress(&segment, &mut sent).unwrap();
            assert_eq!(decompress(&mut decompressor, &sent, 100).unwrap(), segment);
        }
    }

    #[test]
    fn counts_take_less_than_half() {
        let mut compressor = Compressor::new();
        let (mut before, mut after) = (0, Vec::new());
        for _ in 0..100 {
            let segment = counts(90);
            before += segment.len();
            compressor.compress(&segment, &mut after).unwrap();
        }
        assert!(after.len() * 2 < before, "{before} bytes became {}", after.len());
    }

    #[test]
    fn nothing_is_still_a_flush() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        let mut sent = Vec::new();
        compressor.compress(&[], &mut sent).unwrap();
        assert!(decompress(&mut decompressor, &sent, 10).unwrap().is_empty());
    }

    #[test]
    fn an_end_of_the_data_is_not_an_end_of_the_stream() {
        let mut compressor = CompressorOxide::default();
        compressor.set_format_and_level(DataFormat::Raw, 1);
        let mut sent = [0; 64];
        let result = deflate(&mut compressor, b"x", &mut sent, MZFlush::Finish);
        let outcome = decompress(&mut Decompressor::new(), &sent[..result.bytes_written], 10);
        assert_eq!(outcome, Err(CompressionError::Ended));
    }

    #[test]
    fn a_bomb_comes_out_in_pieces_of_the_size_asked_for() {
        let mut sent = Vec::new();
        Compressor::new().compress(&vec![0; 1 << 20], &mut sent).unwrap();
        assert!(sent.len() < 10_000);
        assert_eq!(decompress(&mut Decompressor::new(), &sent, 333).unwrap().len(), 1 << 20);
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out_wherever_it_is_cut(
            segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 1..5),
            piece in 1usize..2000,
            size in 1usize..5000,
        ) {
            let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for segment in &segments {
                compressor.compress(segment, &mut sent).unwrap();
            }
            for piece in sent.chunks(piece) {
                received.extend(decompress(&mut decompressor, piece, size).unwrap());
            }
            prop_assert_eq!(received, segments.concat());
        }

        #[test]
        fn any_bytes_are_decompressed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut decompressor = Decompressor::new();
            let _ = decompress(&mut decompressor, &bytes, 64);
        }
    }
}
