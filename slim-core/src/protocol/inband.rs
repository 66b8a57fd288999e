//! The frames that switch and instances exchange on dataplane links, of EtherType 0x88B5 (local experimental, IEEE 802).
//!
//! ```text
//!  0             6             12       14      15      16                          Ethernet and common part
//! ┌─────────────┬─────────────┬────────┬───────┬───────┬───────────┐
//! │ destination │ source      │ 0x88b5 │ ver 1 │ kind  │ migration │
//! └─────────────┴─────────────┴────────┴───────┴───────┴───────────┘
//!  24                28       29    32        40
//! ┌─────────────────┬────────┬─────┬─────────┐
//! │ nonce           │ path   │ 0   │ paths   │   drain (1), switch → instance, and its acknowledgement (2), back
//! └─────────────────┴────────┴─────┴─────────┘
//!  24      25        26       28
//! ┌───────┬─────────┬────────┬─────────────┐
//! │ port  │ 0       │ length │ frame …     │     hand back (3), instance → switch
//! └───────┴─────────┴────────┴─────────────┘
//!  24      25        26       28       30
//! ┌───────┬─────────┬────────┬────────┐
//! │ port  │ 0       │ shard  │ shards │          hand back end (4), instance → switch
//! └───────┴─────────┴────────┴────────┘
//! ```
//!
//! Numbers are big endian; `paths` is a bitmap. Frames are padded to Ethernet's 60 bytes, so what follows is ignored.
//! Only the link between switch and instance carries them: the switch consumes every frame of this EtherType that comes
//! from an instance and drops, counted, any that comes from outside.

use crate::nf::{PortId, ShardId};
use crate::packet::MacAddr;
use crate::protocol::{MigrationId, Nonce, PathIndex, PathSet};

/// The EtherType of all in-band frames.
pub const ETHERTYPE: u16 = 0x88b5;
/// The length of a drain packet, its acknowledgement, or the end of handing back: Ethernet's shortest frame.
pub const FRAME_LEN: usize = 60;
/// What handing back adds in front of the original frame.
pub const HAND_BACK_HEADER_LEN: usize = 28;
/// The longest frame that can be handed back.
pub const HAND_BACK_FRAME_LEN_MAX: usize = u16::MAX as usize;

const VERSION: u8 = 1;
/// The multicast address of drain packets: who filters by address must let it through.
pub const TO_INSTANCE: MacAddr = MacAddr([0x03, 0x51, 0x1a, 0xff, 0x00, 0x01]);
const TO_SWITCH: [u8; 6] = [0x03, 0x51, 0x1a, 0xff, 0x00, 0x02];
const FROM: [u8; 6] = [0x02, 0x51, 0x1a, 0xff, 0x00, 0x00];
const DRAIN: u8 = 1;
const DRAIN_ACK: u8 = 2;
const HAND_BACK: u8 = 3;
const HAND_BACK_END: u8 = 4;

/// The drain packet: the last packet the switch sends down a path, or its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Drain {
    /// The migration.
    pub migration: MigrationId,
    /// The stage of the migration.
    pub nonce: Nonce,
    /// The path this packet ends.
    pub path: PathIndex,
    /// All paths that are being drained.
    pub paths: PathSet,
}

/// An in-band frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// No packet will follow on this path.
    Drain(Drain),
    /// The drain packet has arrived.
    DrainAck(Drain),
    /// A packet this instance must not process: to be treated as if it had just arrived from outside.
    HandBack {
        /// The migration.
        migration: MigrationId,
        /// The instance's port it had arrived on.
        port: PortId,
        /// The packet.
        frame: &'a [u8],
    },
    /// A shard has handed back everything that had arrived on a port.
    HandBackEnd(HandBackEnd),
}

/// The end of handing back one port's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandBackEnd {
    /// The migration.
    pub migration: MigrationId,
    /// The instance's port.
    pub port: PortId,
    /// The shard that is done.
    pub shard: ShardId,
    /// The number of shards; the port is done when all of them are.
    pub shards: u16,
}

/// Why a frame of our EtherType cannot be used. It is dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends within a header.
    #[error("truncated")]
    Truncated,
    /// It is of another version.
    #[error("version {0}")]
    Version(u8),
    /// Its kind is unknown.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// Path or shard is out of range, or not in the set it should be in.
    #[error("path or shard is out of range")]
    Range,
    /// The frame handed back is cut off or shorter than an Ethernet header.
    #[error("enclosed frame is cut off")]
    Enclosed,
    /// The buffer is too short for the frame, or the frame too long for the format.
    #[error("no room for the frame")]
    NoRoom,
}

/// Whether a frame is one of ours: the only check the packet path makes.
pub fn is_inband(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 0x88, 0xb5, ..])
}

impl<'a> Frame<'a> {
    /// Reads a frame for which [`is_inband`] holds.
    ///
    /// # Errors
    /// What is wrong with it; never panics, whatever the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let version: [u8; 1] = at(bytes, 14)?;
        if version != [VERSION] {
            return Err(FrameError::Version(version[0]));
        }
        let [kind] = at(bytes, 15)?;
        let migration = MigrationId(u64::from_be_bytes(at(bytes, 16)?));
        match kind {
            DRAIN => Ok(Self::Drain(decode_drain(bytes, migration)?)),
            DRAIN_ACK => Ok(Self::DrainAck(decode_drain(bytes, migration)?)),
            HAND_BACK => {
                let [port] = at(bytes, 24)?;
                let len = usize::from(u16::from_be_bytes(at(bytes, 26)?));
                let frame = bytes.get(HAND_BACK_HEADER_LEN..).and_then(|rest| rest.get(..len));
                match frame {
                    Some(frame) if len >= 14 => Ok(Self::HandBack { migration, port: PortId(port), frame }),
                    _ => Err(FrameError::Enclosed),
                }
            }
            HAND_BACK_END => {
                let [port] = at(bytes, 24)?;
                let shard = u16::from_be_bytes(at(bytes, 26)?);
                let shards = u16::from_be_bytes(at(bytes, 28)?);
                if shard >= shards {
                    return Err(FrameError::Range);
                }
                Ok(Self::HandBackEnd(HandBackEnd { migration, port: PortId(port), shard: ShardId(shard), shards }))
            }
            other => Err(FrameError::Kind(other)),
        }
    }

    /// The length of the encoded frame, padding included.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::HandBack { frame, .. } => FRAME_LEN.max(HAND_BACK_HEADER_LEN + frame.len()),
            Self::Drain(_) | Self::DrainAck(_) | Self::HandBackEnd(_) => FRAME_LEN,
        }
    }

    /// Writes the frame to the start of `buffer`, whatever that held, and returns its length.
    ///
    /// # Errors
    /// [`FrameError::NoRoom`] if `buffer` is shorter than [`encoded_len`](Self::encoded_len), or the enclosed frame
    /// longer than [`HAND_BACK_FRAME_LEN_MAX`].
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, FrameError> {
        let len = self.encoded_len();
        let out = buffer.get_mut(..len).ok_or(FrameError::NoRoom)?;
        let (header, body) = out.split_at_mut_checked(24).ok_or(FrameError::NoRoom)?;
        let (kind, migration) = match self {
            Self::Drain(drain) => (DRAIN, drain.migration),
            Self::DrainAck(drain) => (DRAIN_ACK, drain.migration),
            Self::HandBack { migration, .. } => (HAND_BACK, *migration),
            Self::HandBackEnd(end) => (HAND_BACK_END, end.migration),
        };
        header[..6].copy_from_slice(if kind == DRAIN { &TO_INSTANCE.0 } else { &TO_SWITCH });
        header[6..12].copy_from_slice(&FROM);
        header[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        header[14] = VERSION;
        header[15] = kind;
        header[16..24].copy_from_slice(&migration.0.to_be_bytes());
        match self {
            Self::Drain(drain) | Self::DrainAck(drain) => {
                body.fill(0);
                body[..4].copy_from_slice(&drain.nonce.0.to_be_bytes());
                body[4] = drain.path.get();
                body[8..16].copy_from_slice(&drain.paths.0.to_be_bytes());
            }
            Self::HandBack { port, frame, .. } => {
                let frame_len = u16::try_from(frame.len()).map_err(|_| FrameError::NoRoom)?;
                body[0] = port.0;
                body[1] = 0;
                body[2..4].copy_from_slice(&frame_len.to_be_bytes());
                body[4..4 + frame.len()].copy_from_slice(frame);
                body[4 + frame.len()..].fill(0);
            }
            Self::HandBackEnd(end) => {
                body.fill(0);
                body[0] = end.port.0;
                body[2..4].copy_from_slice(&end.shard.0.to_be_bytes());
                body[4..6].copy_from_slice(&end.shards.to_be_bytes());
            }
        }
        Ok(len)
    }
}

/// Turns a drain packet into its acknowledgement without leaving the buffer. Does nothing to any other frame.
pub fn acknowledge_in_place(frame: &mut [u8]) -> Result<Drain, FrameError> {
    match Frame::decode(frame)? {
        Frame::Drain(drain) => Frame::DrainAck(drain).encode(frame).map(|_| drain),
        Frame::DrainAck(_) => Err(FrameError::Kind(DRAIN_ACK)),
        Frame::HandBack { .. } => Err(FrameError::Kind(HAND_BACK)),
        Frame::HandBackEnd(_) => Err(FrameError::Kind(HAND_BACK_END)),
    }
}

fn decode_drain(bytes: &[u8], migration: MigrationId) -> Result<Drain, FrameError> {
    let nonce = Nonce(u32::from_be_bytes(at(bytes, 24)?));
    let [path] = at(bytes, 28)?;
    let path = PathIndex::new(path).ok_or(FrameError::Range)?;
    let paths = PathSet(u64::from_be_bytes(at(bytes, 32)?));
    if !paths.contains(path) {
        return Err(FrameError::Range);
    }
    Ok(Drain { migration, nonce, path, paths })
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], FrameError> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(FrameError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DRAIN_FRAME: Drain = Drain {
        migration: MigrationId(0x0102_0304_0506_0708),
        nonce: Nonce(0x0a0b_0c0d),
        path: PathIndex::new(1).unwrap(),
        paths: PathSet(0b11),
    };

    fn encoded(frame: Frame<'_>) -> alloc::vec::Vec<u8> {
        let mut buffer = alloc::vec![0xee; 2048];
        let len = frame.encode(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn drain_has_the_documented_bytes_in_a_dirty_buffer() {
        let bytes = encoded(Frame::Drain(DRAIN_FRAME));
        let expected = b"\x03\x51\x1a\xff\x00\x01\x02\x51\x1a\xff\x00\x00\x88\xb5\x01\x01\
            \x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b\x0c\x0d\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03";
        assert_eq!(bytes[..40], *expected);
        assert_eq!(bytes[40..], [0; 20]);
        assert!(is_inband(&bytes));
        assert_eq!(Frame::decode(&bytes), Ok(Frame::Drain(DRAIN_FRAME)));
    }

    #[test]
    fn drain_becomes_its_acknowledgement_in_place() {
        let mut bytes = encoded(Frame::Drain(DRAIN_FRAME));
        assert_eq!(acknowledge_in_place(&mut bytes), Ok(DRAIN_FRAME));
        assert_eq!(Frame::decode(&bytes), Ok(Frame::DrainAck(DRAIN_FRAME)));
        assert_eq!(bytes[..6], TO_SWITCH);
        assert_eq!(acknowledge_in_place(&mut bytes), Err(FrameError::Kind(DRAIN_ACK)));
    }

    #[test]
    fn handed_back_frames_keep_every_byte_and_length() {
        for len in [14, 31, 32, 33, 1514] {
            let original: alloc::vec::Vec<u8> = (0..len).map(|index| index as u8).collect();
            let frame = Frame::HandBack { migration: MigrationId(9), port: PortId(1), frame: &original };
            let bytes = encoded(frame);
            assert_eq!(bytes.len(), FRAME_LEN.max(28 + len));
            assert_eq!(Frame::decode(&bytes), Ok(frame));
        }
    }

    #[test]
    fn hand_back_end_names_port_and_shard() {
        let end = HandBackEnd { migration: MigrationId(9), port: PortId(1), shard: ShardId(1), shards: 2 };
        assert_eq!(Frame::decode(&encoded(Frame::HandBackEnd(end))), Ok(Frame::HandBackEnd(end)));
    }

    #[test]
    fn each_malformed_field_is_refused() {
        let good = encoded(Frame::Drain(DRAIN_FRAME));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Frame::decode(&bytes).err()
        };
        assert_eq!(with(14, 2), Some(FrameError::Version(2)));
        assert_eq!(with(15, 0), Some(FrameError::Kind(0)));
        assert_eq!(with(28, 64), Some(FrameError::Range));
        assert_eq!(with(28, 2), Some(FrameError::Range), "a path outside its own set");
        for len in 14..40 {
            assert_eq!(Frame::decode(&good[..len]), Err(FrameError::Truncated), "{len}");
        }
        let mut hand_back = encoded(Frame::HandBack { migration: MigrationId(9), port: PortId(0), frame: &[0; 60] });
        hand_back[27] = 61;
        assert_eq!(Frame::decode(&hand_back), Err(FrameError::Enclosed));
        hand_back[27] = 13;
        assert_eq!(Frame::decode(&hand_back), Err(FrameError::Enclosed));
        let end = HandBackEnd { migration: MigrationId(9), port: PortId(1), shard: ShardId(2), shards: 2 };
        assert_eq!(Frame::decode(&encoded(Frame::HandBackEnd(end))), Err(FrameError::Range));
    }

    #[test]
    fn frames_that_do_not_fit_are_refused() {
        assert_eq!(Frame::Drain(DRAIN_FRAME).encode(&mut [0; FRAME_LEN - 1]), Err(FrameError::NoRoom));
        let huge = alloc::vec![0; HAND_BACK_FRAME_LEN_MAX + 1];
        let frame = Frame::HandBack { migration: MigrationId(9), port: PortId(0), frame: &huge };
        assert_eq!(frame.encode(&mut alloc::vec![0; 70_000]), Err(FrameError::NoRoom));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), valid in any::<bool>()) {
            if valid && bytes.len() > 15 {
                bytes[12..15].copy_from_slice(&[0x88, 0xb5, 1]);
                bytes[15] %= 6;
            }
            let copy = bytes.clone();
            if let Ok(frame) = Frame::decode(&copy) {
                let again = encoded(frame);
                prop_assert_eq!(Frame::decode(&again), Ok(frame));
            }
            let _ = acknowledge_in_place(&mut bytes);
        }
    }
}
