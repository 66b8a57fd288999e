//! What the destination makes of a statelet stream: whole statelets for `st_q_in`, and its end (§IV-B, step 2.3).

use super::{CompressionError, DecodeError, Decoder, Decompressor, End, Record, encode};
use crate::protocol::FailureCode;
use crate::protocol::control::StateletTotals;
use alloc::vec::Vec;

/// The most decompressed bytes looked at in one go: what a few bytes of the peer's can be blown up to.
const PIECE: usize = 4096;

/// Why a statelet stream is not what it should be. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// Its records are wrong, or it stops without an end.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

impl IntakeError {
    /// What the migration failed of.
    pub const fn code(&self) -> FailureCode {
        match self {
            Self::Decode(DecodeError::NoEnd(_)) => FailureCode::StreamLost,
            Self::Decode(DecodeError::Count { .. } | DecodeError::Checksum { .. }) => FailureCode::EndMismatch,
            Self::Decode(DecodeError::Reserved(_) | DecodeError::EndLength(_) | DecodeError::AfterEnd)
            | Self::Compression(_) => FailureCode::StreamCorrupt,
        }
    }
}

/// Splits a statelet stream into whole statelets, wherever the pieces it arrives in are cut.
///
/// ```
/// use slim_core::statelet::Intake;
///
/// let mut intake = Intake::new(false);
/// let mut whole = Vec::new();
/// for mut piece in [&b"\x00\x07\x00\x02h"[..], b"i"] {
///     while intake.receive(&mut piece, &mut whole)?.is_some() {}
/// }
/// assert_eq!(whole, b"\x00\x07\x00\x02hi");
/// assert!(intake.finish().is_err()); // no end record
/// # Ok::<(), slim_core::statelet::IntakeError>(())
/// ```
pub struct Intake {
    decompressor: Option<Decompressor>,
    decoder: Decoder,
    end: Option<End>,
    stream_bytes: u64,
}

impl Intake {
    /// An intake at the begin of a stream, which is compressed or not, as its handshake said.
    pub fn new(compressed: bool) -> Self {
        let decompressor = compressed.then(Decompressor::new);
        Self { decompressor, decoder: Decoder::new(), end: None, stream_bytes: 0 }
    }

    /// Takes bytes off `input`, appends the statelets that have become whole to `whole`, and returns their number.
    ///
    /// Call it until it returns `None`: nothing is left to be read. `whole` grows by at most some 68 KiB a call.
    ///
    /// # Errors
    /// [`IntakeError`]; the stream is of no use any more.
    pub fn receive(&mut self, input: &mut &[u8], whole: &mut Vec<u8>) -> Result<Option<u64>, IntakeError> {
        let before = input.len();
        let mut piece = [0; PIECE];
        let bytes = match &mut self.decompressor {
            Some(decompressor) => {
                let len = decompressor.decompress(input, &mut piece)?;
                self.stream_bytes += (before - input.len()) as u64;
                // A call may take bytes that nothing has come of yet.
                if len == 0 && input.len() == before {
                    return Ok(None);
                }
                piece.get(..len).unwrap_or_default()
            }
            None => {
                let (head, rest) = input.split_at(before.min(PIECE));
                *input = rest;
                self.stream_bytes += head.len() as u64;
                if head.is_empty() {
                    return Ok(None);
                }
                head
            }
        };
        self.decode(bytes, whole).map(Some)
    }

    fn decode(&mut self, mut bytes: &[u8], whole: &mut Vec<u8>) -> Result<u64, IntakeError> {
        let mut records = 0;
        while let Some(record) = self.decoder.decode(&mut bytes)? {
            match record {
                Record::Statelet { statelet_type, value } => {
                    // Both came out of a record, so they fit into one.
                    if encode(statelet_type, value, whole).is_ok() {
                        records += 1;
                    }
                }
                Record::End(end) => self.end = Some(end),
            }
        }
        Ok(records)
    }

    /// The end record, once it has come. Everything before it agrees with it then.
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    /// Ends the stream where the connection was closed.
    ///
    /// # Errors
    /// [`DecodeError::NoEnd`] if the end record has not arrived.
    pub fn finish(&self) -> Result<End, IntakeError> {
        Ok(self.decoder.finish()?)
    }

    /// What has arrived, as it would be said in an end record.
    pub const fn received(&self) -> End {
        self.decoder.tally().end()
    }

    /// What has arrived, for the report.
    pub const fn totals(&self) -> StateletTotals {
        StateletTotals { stream_bytes: self.stream_bytes, ..self.decoder.tally().totals() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statelet::{Compressor, Tally};

    fn all(intake: &mut Intake, mut input: &[u8]) -> Result<(u64, Vec<u8>), IntakeError> {
        let (mut records, mut whole) = (0, Vec::new());
        while let Some(count) = intake.receive(&mut input, &mut whole)? {
            records += count;
        }
        assert!(input.is_empty());
        Ok((records, whole))
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Compressor::new().compress(bytes, &mut out).unwrap();
        out
    }

    #[test]
    fn a_bomb_comes_out_in_small_portions() {
        let statelet = [&b"\x00\x07\xff\xff"[..], &[0; 65_535]].concat();
        let stream = statelet.repeat(20);
        let bomb = compressed(&stream);
        assert!(bomb.len() < 10_000);
        let (mut intake, mut input, mut most, mut records) = (Intake::new(true), &bomb[..], 0, 0);
        loop {
            let mut whole = Vec::new();
            let Some(count) = intake.receive(&mut input, &mut whole).unwrap() else { break };
            records += count;
            most = most.max(whole.len());
        }
        assert_eq!((records, intake.totals().bytes), (20, stream.len() as u64));
        assert!(most <= 65_539 + PIECE, "{most} bytes at once");
    }

    #[test]
    fn a_compressed_end_is_an_end() {
        let mut tally = Tally::new();
        tally.add_record(b"\x00\x07\x00\x01a");
        let stream = [&b"\x00\x07\x00\x01a"[..], &tally.end().encode()].concat();
        let mut intake = Intake::new(true);
        assert_eq!(all(&mut intake, &compressed(&stream)), Ok((1, b"\x00\x07\x00\x01a".to_vec())));
        assert_eq!((intake.end(), intake.finish()), (Some(tally.end()), Ok(tally.end())));
    }

    #[test]
    fn errors_have_the_codes_of_what_they_are() {
        let code = |compressed: bool, bytes: &[u8]| all(&mut Intake::new(compressed), bytes).unwrap_err().code();
        assert_eq!(code(false, b"\xff\x00\x00\x00"), FailureCode::StreamCorrupt);
        assert_eq!(code(true, b"\xff\xff\xff\xff"), FailureCode::StreamCorrupt);
        assert_eq!(code(false, &End { records: 1, crc: 0 }.encode()), FailureCode::EndMismatch);
        assert_eq!(code(true, &compressed(&End { records: 0, crc: 1 }.encode())), FailureCode::EndMismatch);
        assert_eq!(Intake::new(false).finish().unwrap_err().code(), FailureCode::StreamLost);
    }
}
