//! How a statelet or snapshot stream opens, and how a statelet stream ends.
//!
//! `src_inst` connects once per shard and role and sends the handshake; `dst_inst` answers before anything else is sent.
//! Numbers are big endian.
//!
//! ```text
//! handshake (src_inst → dst_inst)
//!  0       4      6      8      9      10     12      14        22           30       31
//! ┌───────┬──────┬──────┬──────┬──────┬──────┬───────┬─────────┬────────────┬────────┬──────────┐
//! │ SLiM  │ ver. │ ver. │ role │ flags│ shard│ shards│ schema  │ migration  │ length │ kind …   │
//! │       │ min  │ max  │ 1, 2 │      │      │       │         │            │ of kind│ ≤ 64 B   │
//! └───────┴──────┴──────┴──────┴──────┴──────┴───────┴─────────┴────────────┴────────┴──────────┘
//! reply (dst_inst → src_inst)       taken over (dst_inst → src_inst)
//!  0       4         6      7  8     0      4           12
//! ┌───────┬─────────┬──────┬──┐     ┌──────┬───────────┐
//! │ SLiM  │ version │ code │0 │     │ SLTO │ migration │
//! └───────┴─────────┴──────┴──┘     └──────┴───────────┘
//! ```
//!
//! Bit 0 of the flags says that the statelet stream is compressed: everything after the reply is one DEFLATE stream
//! (RFC 1951), flushed whenever something is sent. The other flags, and all of a snapshot stream's, are zero.
//!
//! Then the statelet stream carries [TLV records](crate::statelet) and, last, the [end record](End): a stream that is
//! closed without it has failed. The destination answers the end record with *taken over* on the same connection once it
//! can go on by itself. The snapshot stream carries [snapshot records](crate::snapshot).

use crate::nf::ShardId;
use crate::protocol::{MigrationId, Name, Schema};
use alloc::vec::Vec;

pub use crate::statelet::End;

/// The oldest version of the stream format spoken here.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the stream format spoken here.
pub const VERSION_MAX: u16 = 1;

const MAGIC: [u8; 4] = *b"SLiM";
const TAKEN_OVER_MAGIC: [u8; 4] = *b"SLTO";
const HANDSHAKE_FIXED_LEN: usize = 31;
/// The flag of a compressed stream.
const COMPRESSED: u8 = 1;

/// The longest handshake, in bytes.
pub const HANDSHAKE_LEN_MAX: usize = HANDSHAKE_FIXED_LEN + Name::LEN_MAX;
/// The length of every reply to a handshake, in bytes.
pub const REPLY_LEN: usize = 8;
/// The length of the acknowledgement that ends a statelet stream, in bytes.
pub const TAKEN_OVER_LEN: usize = 12;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamRole {
    /// Statelets, then the end record.
    Statelets,
    /// The snapshot, then its closing record.
    Snapshot,
}

impl StreamRole {
    /// Both roles, in the order the source connects them.
    pub const ALL: [Self; 2] = [Self::Statelets, Self::Snapshot];

    const fn to_wire(self) -> u8 {
        match self {
            Self::Statelets => 1,
            Self::Snapshot => 2,
        }
    }
}

/// The first bytes of every stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The oldest version the source speaks.
    pub version_min: u16,
    /// The newest version the source speaks.
    pub version_max: u16,
    /// What the connection is for.
    pub role: StreamRole,
    /// Whether what follows is compressed. Only a statelet stream may be.
    pub compressed: bool,
    /// The shard whose state it carries.
    pub shard: ShardId,
    /// The number of shards.
    pub shards: u16,
    /// The source's schema.
    pub schema: Schema,
    /// The migration.
    pub migration: MigrationId,
    /// The network function's kind.
    pub kind: Name,
}

/// Bytes that are not a handshake, a reply or an acknowledgement. The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The first bytes are something else.
    #[error("not a SliM stream")]
    Magic,
    /// The oldest version is newer than the newest, or zero.
    #[error("version range {min} to {max} is empty")]
    VersionRange {
        /// The oldest version named.
        min: u16,
        /// The newest version named.
        max: u16,
    },
    /// The role is neither statelets nor snapshot.
    #[error("unknown stream role {0}")]
    Role(u8),
    /// Bits that have to be zero are not.
    #[error("reserved bits are set: {0:#04x}")]
    Reserved(u8),
    /// The shard is not below the number of shards.
    #[error("shard {shard} of {shards}")]
    Shard {
        /// The shard named.
        shard: u16,
        /// The number of shards named.
        shards: u16,
    },
    /// The kind is empty, too long, or not a name.
    #[error("the kind is not a name")]
    Kind,
    /// The reply's code is unknown.
    #[error("unknown reply code {0}")]
    ReplyCode(u8),
    /// The version accepted is not one that was offered.
    #[error("the peer chose version {0}, which was not offered")]
    Version(u16),
    /// The acknowledgement is for another migration.
    #[error("acknowledgement for migration {0}")]
    Migration(MigrationId),
}

/// Why `dst_inst` refuses a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// No version in common.
    #[error("no common version of the stream format")]
    Version,
    /// Another kind of network function.
    #[error("another kind of network function")]
    Kind,
    /// Another schema.
    #[error("another schema")]
    Schema,
    /// Not the migration this instance was prepared for, or none.
    #[error("not prepared for this migration")]
    Migration,
    /// Another number of shards.
    #[error("another number of shards")]
    Shards,
    /// This shard's stream of this role is already open.
    #[error("this stream is already open")]
    Duplicate,
    /// `pkt_q` is not armed, or the migration has failed here.
    #[error("not ready for streams")]
    NotReady,
    /// The handshake could not be decoded.
    #[error("malformed handshake")]
    Malformed,
    /// The peer is not the source that was announced.
    #[error("not the source that was announced")]
    Stranger,
}

impl Rejection {
    const ALL: [Self; 9] = [
        Self::Version,
        Self::Kind,
        Self::Schema,
        Self::Migration,
        Self::Shards,
        Self::Duplicate,
        Self::NotReady,
        Self::Malformed,
        Self::Stranger,
    ];

    fn to_wire(self) -> u8 {
        Self::ALL.iter().position(|&reason| reason == self).map_or(u8::MAX, |index| index as u8 + 1)
    }
}

/// `dst_inst`'s answer to a handshake: the version to speak, or why not.
pub type HandshakeReply = Result<u16, Rejection>;

impl Handshake {
    /// The handshake as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HANDSHAKE_LEN_MAX);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version_min.to_be_bytes());
        bytes.extend_from_slice(&self.version_max.to_be_bytes());
        bytes.push(self.role.to_wire());
        bytes.push(if self.compressed { COMPRESSED } else { 0 });
        bytes.extend_from_slice(&self.shard.0.to_be_bytes());
        bytes.extend_from_slice(&self.shards.to_be_bytes());
        bytes.extend_from_slice(&self.schema.0.to_be_bytes());
        bytes.extend_from_slice(&self.migration.0.to_be_bytes());
        // A name is at most 64 bytes long.
        bytes.push(self.kind.as_str().len() as u8);
        bytes.extend_from_slice(self.kind.as_str().as_bytes());
        bytes
    }

    /// Reads a handshake from the start of a stream: with its length once all of it is there, `None` before.
    ///
    /// # Errors
    /// As soon as the bytes cannot become an acceptable handshake.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, StreamError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(StreamError::Magic);
        }
        let Some((fixed, rest)) = bytes.split_first_chunk::<HANDSHAKE_FIXED_LEN>() else { return Ok(None) };
        let (version_min, version_max) = (u16_at(fixed, 4), u16_at(fixed, 6));
        if version_min == 0 || version_min > version_max {
            return Err(StreamError::VersionRange { min: version_min, max: version_max });
        }
        let role = match fixed[8] {
            1 => StreamRole::Statelets,
            2 => StreamRole::Snapshot,
            other => return Err(StreamError::Role(other)),
        };
        let compressed = match (role, fixed[9]) {
            (_, 0) => false,
            (StreamRole::Statelets, COMPRESSED) => true,
            (_, flags) => return Err(StreamError::Reserved(flags)),
        };
        let (shard, shards) = (u16_at(fixed, 10), u16_at(fixed, 12));
        if shard >= shards {
            return Err(StreamError::Shard { shard, shards });
        }
        let kind_len = usize::from(fixed[30]);
        if kind_len == 0 || kind_len > Name::LEN_MAX {
            return Err(StreamError::Kind);
        }
        let Some(kind) = rest.get(..kind_len) else { return Ok(None) };
        let kind = core::str::from_utf8(kind).map_err(|_| StreamError::Kind)?;
        let handshake = Self {
            version_min,
            version_max,
            role,
            compressed,
            shard: ShardId(shard),
            shards,
            schema: Schema(u64_at(fixed, 14)),
            migration: MigrationId(u64_at(fixed, 22)),
            kind: kind.try_into().map_err(|_| StreamError::Kind)?,
        };
        Ok(Some((handshake, HANDSHAKE_FIXED_LEN + kind_len)))
    }

    /// The newest version both ends speak.
    pub fn common_version(&self) -> Result<u16, Rejection> {
        let version = self.version_max.min(VERSION_MAX);
        if version >= self.version_min.max(VERSION_MIN) { Ok(version) } else { Err(Rejection::Version) }
    }
}

/// A reply as it is sent.
pub fn encode_reply(reply: HandshakeReply) -> [u8; REPLY_LEN] {
    let (version, code) = match reply {
        Ok(version) => (version, 0),
        Err(reason) => (VERSION_MAX, reason.to_wire()),
    };
    let mut bytes = [0; REPLY_LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&version.to_be_bytes());
    bytes[6] = code;
    bytes
}

/// Reads a reply.
///
/// # Errors
/// If it is none, or accepts a version that this side does not speak.
pub fn decode_reply(bytes: &[u8; REPLY_LEN]) -> Result<HandshakeReply, StreamError> {
    if bytes[..4] != MAGIC {
        return Err(StreamError::Magic);
    }
    if bytes[7] != 0 {
        return Err(StreamError::Reserved(bytes[7]));
    }
    let version = u16_at(bytes, 4);
    match bytes[6] {
        0 if (VERSION_MIN..=VERSION_MAX).contains(&version) => Ok(Ok(version)),
        0 => Err(StreamError::Version(version)),
        code => match Rejection::ALL.get(usize::from(code) - 1) {
            Some(&reason) => Ok(Err(reason)),
            None => Err(StreamError::ReplyCode(code)),
        },
    }
}

/// The acknowledgement as it is sent: `dst_inst` has everything and goes on from here.
pub fn encode_taken_over(migration: MigrationId) -> [u8; TAKEN_OVER_LEN] {
    let mut bytes = [0; TAKEN_OVER_LEN];
    bytes[..4].copy_from_slice(&TAKEN_OVER_MAGIC);
    bytes[4..].copy_from_slice(&migration.0.to_be_bytes());
    bytes
}

/// Checks an acknowledgement for `migration`.
///
/// # Errors
/// If it is none, or for another migration.
pub fn check_taken_over(bytes: &[u8; TAKEN_OVER_LEN], migration: MigrationId) -> Result<(), StreamError> {
    if bytes[..4] != TAKEN_OVER_MAGIC {
        return Err(StreamError::Magic);
    }
    let found = MigrationId(u64_at(bytes, 4));
    if found == migration { Ok(()) } else { Err(StreamError::Migration(found)) }
}

/// The caller has checked the length: `at` is a constant below an array's.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake() -> Handshake {
        Handshake {
            version_min: 1,
            version_max: 1,
            role: StreamRole::Snapshot,
            compressed: false,
            shard: ShardId(1),
            shards: 2,
            schema: Schema(0x0102_0304_0506_0708),
            migration: MigrationId(0x1112_1314_1516_1718),
            kind: "nat".try_into().unwrap(),
        }
    }

    const BYTES: &[u8] = b"SLiM\x00\x01\x00\x01\x02\x00\x00\x01\x00\x02\
        \x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\x03nat";

    fn changed(at: usize, byte: u8) -> Result<Option<(Handshake, usize)>, StreamError> {
        let mut bytes = BYTES.to_vec();
        bytes[at] = byte;
        Handshake::decode(&bytes)
    }

    #[test]
    fn handshake_has_the_documented_bytes() {
        assert_eq!(handshake().encode(), BYTES);
        assert_eq!(Handshake::decode(BYTES), Ok(Some((handshake(), BYTES.len()))));
    }

    #[test]
    fn handshake_is_incomplete_until_its_last_byte() {
        for len in 0..BYTES.len() {
            assert_eq!(Handshake::decode(&BYTES[..len]), Ok(None), "{len}");
        }
        let mut longer = BYTES.to_vec();
        longer.extend_from_slice(b"more");
        assert_eq!(Handshake::decode(&longer), Ok(Some((handshake(), BYTES.len()))));
    }

    #[test]
    fn wrong_magic_is_refused_at_its_first_byte() {
        assert_eq!(Handshake::decode(b"G"), Err(StreamError::Magic));
        assert_eq!(changed(3, b'm'), Err(StreamError::Magic));
    }

    #[test]
    fn empty_version_range_is_refused() {
        assert_eq!(changed(5, 2), Err(StreamError::VersionRange { min: 2, max: 1 }));
        assert_eq!(changed(5, 0), Err(StreamError::VersionRange { min: 0, max: 1 }));
    }

    #[test]
    fn unknown_role_is_refused() {
        assert_eq!(changed(8, 0), Err(StreamError::Role(0)));
        assert_eq!(changed(8, 3), Err(StreamError::Role(3)));
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert_eq!(changed(9, 2), Err(StreamError::Reserved(2)));
        let statelets = Handshake { role: StreamRole::Statelets, ..handshake() }.encode();
        let mut flagged = statelets.clone();
        flagged[9] = 3;
        assert_eq!(Handshake::decode(&flagged), Err(StreamError::Reserved(3)));
    }

    #[test]
    fn only_a_statelet_stream_may_be_compressed() {
        assert_eq!(changed(9, 1), Err(StreamError::Reserved(1)));
        let compressed = Handshake { role: StreamRole::Statelets, compressed: true, ..handshake() };
        let bytes = compressed.encode();
        assert_eq!(bytes[9], 1);
        assert_eq!(Handshake::decode(&bytes), Ok(Some((compressed, bytes.len()))));
    }

    #[test]
    fn shard_must_be_below_the_number_of_shards() {
        assert_eq!(changed(11, 2), Err(StreamError::Shard { shard: 2, shards: 2 }));
        assert_eq!(changed(13, 0), Err(StreamError::Shard { shard: 1, shards: 0 }));
    }

    #[test]
    fn kind_must_be_a_short_name() {
        assert_eq!(changed(30, 0), Err(StreamError::Kind));
        assert_eq!(changed(30, 65), Err(StreamError::Kind));
        assert_eq!(changed(31, b' '), Err(StreamError::Kind));
        assert_eq!(changed(31, 0xff), Err(StreamError::Kind));
    }

    #[test]
    fn newest_common_version_is_chosen() {
        let with = |version_min, version_max| Handshake { version_min, version_max, ..handshake() }.common_version();
        assert_eq!(with(1, 1), Ok(1));
        assert_eq!(with(1, 9), Ok(VERSION_MAX));
        assert_eq!(with(VERSION_MAX + 1, 9), Err(Rejection::Version));
    }

    #[test]
    fn replies_survive_the_wire_and_bad_ones_are_refused() {
        assert_eq!(encode_reply(Ok(1)), *b"SLiM\x00\x01\x00\x00");
        assert_eq!(decode_reply(&encode_reply(Ok(1))), Ok(Ok(1)));
        for reason in Rejection::ALL {
            assert_eq!(decode_reply(&encode_reply(Err(reason))), Ok(Err(reason)));
        }
        assert_eq!(decode_reply(b"HTTP\x00\x01\x00\x00"), Err(StreamError::Magic));
        assert_eq!(decode_reply(b"SLiM\x00\x09\x00\x00"), Err(StreamError::Version(9)));
        assert_eq!(decode_reply(b"SLiM\x00\x01\x0a\x00"), Err(StreamError::ReplyCode(10)));
        assert_eq!(decode_reply(b"SLiM\x00\x01\x00\x01"), Err(StreamError::Reserved(1)));
    }

    #[test]
    fn acknowledgement_is_for_one_migration_only() {
        let bytes = encode_taken_over(MigrationId(7));
        assert_eq!(bytes, *b"SLTO\x00\x00\x00\x00\x00\x00\x00\x07");
        assert_eq!(check_taken_over(&bytes, MigrationId(7)), Ok(()));
        assert_eq!(check_taken_over(&bytes, MigrationId(8)), Err(StreamError::Migration(MigrationId(7))));
        assert_eq!(check_taken_over(b"SLiM\x00\x00\x00\x00\x00\x00\x00\x07", MigrationId(7)), Err(StreamError::Magic));
    }
}
