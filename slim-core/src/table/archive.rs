//! The rkyv archive of one segment: its entries and the slots they are in.
//!
//! Free slots do not travel, nor does what follows from the entries: tags and probe counters. So a nearly empty
//! segment is a small archive, and fewer things about it can be wrong.

use super::pod::Pod;
use super::state::{AdoptError, ArchiveError};
use alloc::vec::Vec;
use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// The alignment rkyv needs of an archive.
const ARCHIVE_ALIGNMENT: usize = 16;

/// The entries of one segment, by ascending slot number.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct SegmentArchive<K, V> {
    /// Slot numbers, strictly ascending.
    pub(super) slots: Vec<u16>,
    /// One key per slot.
    pub(super) keys: Vec<K>,
    /// One value per slot.
    pub(super) values: Vec<V>,
}

/// What an archive takes beside its entries, alignment included: an estimate, for memory that is taken at once.
const ARCHIVE_FIXED_BYTES: usize = 128;

/// The archive of these entries (slot number, key, value), or `None` if there are none. About `expected` are.
pub(super) fn write<K: Pod, V: Pod>(
    expected: usize,
    entries: impl Iterator<Item = (usize, K, V)>,
) -> Result<Option<AlignedVec>, ArchiveError> {
    let mut archive = SegmentArchive {
        slots: Vec::with_capacity(expected),
        keys: Vec::with_capacity(expected),
        values: Vec::with_capacity(expected),
    };
    for (slot, key, value) in entries {
        archive.slots.push(u16::try_from(slot).map_err(|_| ArchiveError)?);
        archive.keys.push(key);
        archive.values.push(value);
    }
    if archive.slots.is_empty() {
        return Ok(None);
    }
    let entry_bytes = size_of::<u16>() + size_of::<K>() + size_of::<V>();
    let bytes = AlignedVec::with_capacity(ARCHIVE_FIXED_BYTES + archive.slots.len() * entry_bytes);
    rkyv::api::high::to_bytes_in::<_, Failure>(&archive, bytes).map(Some).map_err(|_| ArchiveError)
}

/// Validates the archive of segment `index` and passes its entries (slot number, key, value) to `place`.
///
/// Slot numbers are below `slots` and strictly ascending, so none occurs twice. Returns the number of entries.
pub(super) fn read<K: Pod, V: Pod>(
    index: u32,
    slots: usize,
    bytes: &[u8],
    mut place: impl FnMut(usize, K, V) -> Result<(), AdoptError>,
) -> Result<usize, AdoptError> {
    let mut aligned = AlignedVec::<ARCHIVE_ALIGNMENT>::new();
    let bytes = if bytes.as_ptr().align_offset(ARCHIVE_ALIGNMENT) == 0 {
        bytes
    } else {
        aligned.extend_from_slice(bytes);
        aligned.as_slice()
    };
    let invalid = |_| AdoptError::Archive(index);
    let archive = rkyv::access::<ArchivedSegmentArchive<K, V>, Failure>(bytes).map_err(invalid)?;
    let entries = archive.slots.len();
    if entries == 0 || entries > slots || archive.keys.len() != entries || archive.values.len() != entries {
        return Err(AdoptError::Inconsistent(index));
    }
    let mut lowest = 0;
    for ((slot, key), value) in archive.slots.iter().zip(archive.keys.iter()).zip(archive.values.iter()) {
        let slot = usize::from(slot.to_native());
        if slot < lowest || slot >= slots {
            return Err(AdoptError::Inconsistent(index));
        }
        lowest = slot + 1;
        let key = rkyv::api::deserialize_using::<K, _, Failure>(key, &mut ()).map_err(invalid)?;
        let value = rkyv::api::deserialize_using::<V, _, Failure>(value, &mut ()).map_err(invalid)?;
        place(slot, key, value)?;
    }
    Ok(entries)
}
