//! Records of the mode `duplicate`: whole packets in the place of statelets, and what a replay of them depends on.
//!
//! ```text
//!  0        2        4              12     13
//! ┌────────┬────────┬──────────────┬──────┬─────────┐
//! │ 0xff01 │ length │ source's now │ port │ frame … │   a packet that arrived
//! └────────┴────────┴──────────────┴──────┴─────────┘
//! ┌────────┬────────┬──────────────┬──────────┐
//! │ 0xff02 │ 16     │ source's now │ seed     │          aligns both instances: before the first packet
//! └────────┴────────┴──────────────┴──────────┘
//! ```
//!
//! Instants are nanoseconds of the source's clock.

use crate::nf::PortId;
use crate::time::Instant;

/// The type of a [`Duplicate`].
pub const TYPE_PACKET: u16 = 0xff01;

/// The type of an [`Align`].
pub const TYPE_ALIGN: u16 = 0xff02;

/// Length of what precedes the frame in a [`Duplicate`]'s value, in bytes.
pub const HEAD_LEN: usize = 9;

/// A packet that arrived at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate<'a> {
    /// When it was processed, by the source's clock.
    pub now: Instant,
    /// Where it arrived.
    pub port: PortId,
    /// The frame as it arrived.
    pub frame: &'a [u8],
}

impl<'a> Duplicate<'a> {
    /// What precedes the frame in the value.
    pub fn encode_head(now: Instant, port: PortId) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(&now.as_nanos().to_be_bytes());
        head[8] = port.0;
        head
    }

    /// Reads a value.
    pub fn decode_value(value: &'a [u8]) -> Option<Self> {
        let (now, rest) = value.split_first_chunk()?;
        let (&port, frame) = rest.split_first()?;
        Some(Self { now: Instant::from_nanos(u64::from_be_bytes(*now)), port: PortId(port), frame })
    }
}

/// From here on both instances have the same time and make the same random choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Align {
    /// The source's clock.
    pub now: Instant,
    /// What random choices follow from.
    pub seed: u64,
}

impl Align {
    /// The length of the value, in bytes.
    pub const VALUE_LEN: usize = 16;

    /// The value.
    pub fn encode_value(self) -> [u8; Self::VALUE_LEN] {
        let mut value = [0; Self::VALUE_LEN];
        value[..8].copy_from_slice(&self.now.as_nanos().to_be_bytes());
        value[8..].copy_from_slice(&self.seed.to_be_bytes());
        value
    }

    /// Reads a value.
    pub fn decode_value(value: &[u8]) -> Option<Self> {
        let (now, rest) = value.split_first_chunk()?;
        let seed = u64::from_be_bytes(*<&[u8; 8]>::try_from(rest).ok()?);
        Some(Self { now: Instant::from_nanos(u64::from_be_bytes(*now)), seed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_documented_bytes() {
        let now = Instant::from_nanos(0x0102_0304_0506_0708);
        let value = [&Duplicate::encode_head(now, PortId(1))[..], b"frame"].concat();
        assert_eq!(value, b"\x01\x02\x03\x04\x05\x06\x07\x08\x01frame");
        assert_eq!(Duplicate::decode_value(&value), Some(Duplicate { now, port: PortId(1), frame: b"frame" }));
        let align = Align { now, seed: 9 };
        assert_eq!(align.encode_value(), *b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x09");
        assert_eq!(Align::decode_value(&align.encode_value()), Some(align));
    }

    #[test]
    fn values_of_other_lengths_are_none() {
        assert_eq!(Duplicate::decode_value(&[0; 8]), None);
        assert_eq!(Align::decode_value(&[0; 15]), None);
        assert_eq!(Align::decode_value(&[0; 17]), None);
    }
}
