//! The records of a snapshot stream.

use super::reader::SnapshotError;
use crate::crc::crc32c_append;
use crate::table::ItemHeader;
use alloc::vec::Vec;

/// Length of a record's header, in bytes.
pub(super) const HEADER_LEN: usize = 16;

/// Bytes of a record's header that its checksum covers.
const CHECKED_LEN: usize = 12;

/// The longest archive of a segment, in bytes.
pub const CHUNK_LEN_MAX: usize = 1 << 20;

/// The longest filler record, in bytes.
pub(super) const FILLER_LEN_MAX: usize = 64 << 10;

/// The longest name of an item, in bytes.
const NAME_LEN_MAX: usize = 64;

/// Length of an item header's body before the name, in bytes.
const ITEM_FIXED_LEN: usize = 36;

/// Length of the closing record's body, in bytes.
const CLOSING_LEN: usize = 32;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Item,
    Chunk,
    Filler,
    Closing,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Item => 1,
            Self::Chunk => 2,
            Self::Filler => 3,
            Self::Closing => 4,
        }
    }

    /// The lengths its body can have.
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::Item => (ITEM_FIXED_LEN + 1, ITEM_FIXED_LEN + NAME_LEN_MAX),
            Self::Chunk => (1, CHUNK_LEN_MAX),
            Self::Filler => (1, FILLER_LEN_MAX),
            Self::Closing => (CLOSING_LEN, CLOSING_LEN),
        }
    }
}

/// A record without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: Kind,
    pub(super) item: u16,
    pub(super) segment: u32,
    /// Length of the body, within the bounds of its kind.
    pub(super) length: usize,
    /// Of the whole record.
    pub(super) crc: u32,
    /// Of the header alone, to be continued with the body.
    pub(super) header_crc: u32,
}

impl RecordHeader {
    /// Checks what can be checked before the body is there.
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, SnapshotError> {
        let [kind, zero, i0, i1, s0, s1, s2, s3, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        let kind = match kind {
            1 => Kind::Item,
            2 => Kind::Chunk,
            3 => Kind::Filler,
            4 => Kind::Closing,
            other => return Err(SnapshotError::Kind(other)),
        };
        if zero != 0 {
            return Err(SnapshotError::Reserved);
        }
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let (shortest, longest) = kind.lengths();
        if (length as usize) < shortest || length as usize > longest {
            return Err(SnapshotError::Length(length));
        }
        let segment = u32::from_be_bytes([s0, s1, s2, s3]);
        let item = u16::from_be_bytes([i0, i1]);
        if (kind != Kind::Chunk && segment != 0) || (kind == Kind::Filler && item != 0) {
            return Err(SnapshotError::Reserved);
        }
        Ok(Self {
            kind,
            item,
            segment,
            length: length as usize,
            crc: u32::from_be_bytes([c0, c1, c2, c3]),
            header_crc: crc32c_append(0, &bytes[..CHECKED_LEN]),
        })
    }
}

/// Appends a record; its body is what `write_body` appends.
///
/// # Errors
/// The body's length, if it is not one its kind can have; `out` is as it was then.
pub(super) fn write(
    out: &mut Vec<u8>,
    kind: Kind,
    item: u16,
    segment: u32,
    write_body: impl FnOnce(&mut Vec<u8>),
) -> Result<(), usize> {
    let begin = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    write_body(out);
    let length = out.len().saturating_sub(begin + HEADER_LEN);
    let (shortest, longest) = kind.lengths();
    let Some(header) = out.get_mut(begin..).and_then(|record| record.first_chunk_mut::<HEADER_LEN>()) else {
        return Err(length);
    };
    if length < shortest || length > longest {
        out.truncate(begin);
        return Err(length);
    }
    header[0] = kind.number();
    header[2..4].copy_from_slice(&item.to_be_bytes());
    header[4..8].copy_from_slice(&segment.to_be_bytes());
    header[8..12].copy_from_slice(&(length as u32).to_be_bytes());
    let header_crc = crc32c_append(0, &header[..CHECKED_LEN]);
    let crc = crc32c_append(header_crc, &out[begin + HEADER_LEN..]);
    out[begin + CHECKED_LEN..begin + HEADER_LEN].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Appends the body of an item header.
pub(super) fn write_item(out: &mut Vec<u8>, header: &ItemHeader, name: &str) {
    for number in [header.entries, header.capacity, header.hash_seed, header.layout] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&header.segments.to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

/// Reads the body of an item header: the header and the item's name.
pub(super) fn read_item(body: &[u8]) -> Option<(ItemHeader, &[u8])> {
    let (numbers, rest) = body.split_first_chunk::<{ ITEM_FIXED_LEN - 4 }>()?;
    let (segments, name) = rest.split_first_chunk::<4>()?;
    let [entries, capacity, hash_seed, layout] = numbers_in(numbers);
    Some((ItemHeader { segments: u32::from_be_bytes(*segments), entries, capacity, hash_seed, layout }, name))
}

/// What a snapshot consists of. The closing record carries it, so that both ends can compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotTotals {
    /// Number of items.
    pub items: u16,
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes of the archives in the chunks.
    pub archive_bytes: u64,
    /// Bytes of filler.
    pub filler_bytes: u64,
    /// Entries of all items.
    pub entries: u64,
}

impl SnapshotTotals {
    /// Appends the body of the closing record.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for number in [self.chunks, self.archive_bytes, self.filler_bytes, self.entries] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Reads the body of a closing record.
    pub(super) fn read(items: u16, body: &[u8]) -> Option<Self> {
        let [chunks, archive_bytes, filler_bytes, entries] = numbers_in(body.first_chunk::<CLOSING_LEN>()?);
        Some(Self { items, chunks, archive_bytes, filler_bytes, entries })
    }
}

/// Four big-endian numbers.
fn numbers_in(bytes: &[u8; 32]) -> [u64; 4] {
    let (numbers, _) = bytes.as_chunks::<8>();
    core::array::from_fn(|i| u64::from_be_bytes(numbers[i]))
}
