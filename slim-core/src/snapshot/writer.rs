//! The source's end of a snapshot stream.

use super::filler::Filler;
use super::record::{self, FILLER_LEN_MAX, Kind, SnapshotTotals};
use crate::table::{ArchiveError, FrozenItem};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Why a snapshot cannot be written. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A segment could not be archived.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A record would be longer than the format allows: entries or an item's name are too long.
    #[error("a record with a body of {0} bytes does not fit the format")]
    TooLong(usize),
    /// The network function has more items than the format can count.
    #[error("too many items")]
    TooManyItems,
}

/// Writes frozen state record by record, for a thread off the dataplane to send.
///
/// ```
/// # use slim_core::snapshot::SnapshotWriter;
/// # fn send(_: &[u8]) {}
/// # let frozen = Vec::new();
/// let mut writer = SnapshotWriter::new(frozen, 0);
/// let mut buffer = Vec::new();
/// while writer.write_next(&mut buffer)? {
///     send(&buffer);
///     buffer.clear();
/// }
/// # Ok::<(), slim_core::snapshot::WriteError>(())
/// ```
pub struct SnapshotWriter {
    items: vec::IntoIter<Box<dyn FrozenItem>>,
    current: Option<Current>,
    filler: Filler,
    filler_left: u64,
    totals: SnapshotTotals,
    closed: bool,
}

/// The item being written.
struct Current {
    item: Box<dyn FrozenItem>,
    index: u16,
    segments: core::ops::Range<u32>,
}

impl SnapshotWriter {
    /// A snapshot of `items`, in this order, and `filler_bytes` of filler behind them.
    pub fn new(items: Vec<Box<dyn FrozenItem>>, filler_bytes: u64) -> Self {
        Self {
            items: items.into_iter(),
            current: None,
            filler: Filler::new(),
            filler_left: filler_bytes,
            totals: SnapshotTotals::default(),
            closed: false,
        }
    }

    /// Appends the next record to `out`. Returns whether there was one: the last is the closing record.
    ///
    /// An item is released, and thereby unfrozen, as soon as its last record is written.
    ///
    /// # Errors
    /// [`WriteError`]; the snapshot is of no use then.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> Result<bool, WriteError> {
        if self.closed {
            return Ok(false);
        }
        if self.write_chunk(out)? || self.write_item(out)? || self.write_filler(out)? {
            return Ok(true);
        }
        let totals = self.totals;
        record::write(out, Kind::Closing, totals.items, 0, |body| totals.write(body)).map_err(WriteError::TooLong)?;
        self.closed = true;
        Ok(true)
    }

    /// What has been written so far.
    pub const fn totals(&self) -> &SnapshotTotals {
        &self.totals
    }

    /// Writes the next chunk of the present item, or releases the item.
    fn write_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, WriteError> {
        let Some(current) = &mut self.current else { return Ok(false) };
        for segment in current.segments.by_ref() {
            let Some(archive) = current.item.archive_segment(segment)? else { continue };
            record::write(out, Kind::Chunk, current.index, segment, |body| body.extend_from_slice(&archive))
                .map_err(WriteError::TooLong)?;
            self.totals.chunks += 1;
            self.totals.archive_bytes += archive.len() as u64;
            return Ok(true);
        }
        self.current = None;
        Ok(false)
    }

    /// Begins the next item.
    fn write_item(&mut self, out: &mut Vec<u8>) -> Result<bool, WriteError> {
        let Some(item) = self.items.next() else { return Ok(false) };
        let index = self.totals.items;
        self.totals.items = index.checked_add(1).ok_or(WriteError::TooManyItems)?;
        let header = item.header();
        self.totals.entries += header.entries;
        record::write(out, Kind::Item, index, 0, |body| record::write_item(body, &header, item.name()))
            .map_err(WriteError::TooLong)?;
        self.current = Some(Current { item, index, segments: 0..header.segments });
        Ok(true)
    }

    fn write_filler(&mut self, out: &mut Vec<u8>) -> Result<bool, WriteError> {
        let length = self.filler_left.min(FILLER_LEN_MAX as u64);
        if length == 0 {
            return Ok(false);
        }
        let filler = &mut self.filler;
        record::write(out, Kind::Filler, 0, 0, |body| {
            let begin = body.len();
            body.resize(begin + length as usize, 0);
            filler.fill(&mut body[begin..]);
        })
        .map_err(WriteError::TooLong)?;
        self.filler_left -= length;
        self.totals.filler_bytes += length;
        Ok(true)
    }
}
