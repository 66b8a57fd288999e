//! The destination's end of a snapshot stream.

use super::record::{self, HEADER_LEN, Kind, RecordHeader, SnapshotTotals};
use crate::crc::crc32c_append;
use crate::nf::NetworkFunction;
use crate::table::{AdoptError, StateItem};
use rkyv::util::AlignedVec;

/// Why a snapshot stream is not what it should be. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// An unknown kind of record.
    #[error("unknown kind of record {0}")]
    Kind(u8),
    /// A field that must be zero is not.
    #[error("a reserved field is not zero")]
    Reserved,
    /// A record whose length its kind cannot have.
    #[error("record with a body of {0} bytes")]
    Length(u32),
    /// A record arrived damaged.
    #[error("checksum of a record is {have:#010x}, should be {want:#010x}")]
    Checksum {
        /// The checksum of what arrived.
        have: u32,
        /// The checksum the record names.
        want: u32,
    },
    /// An item's header or chunk is not the one whose turn it is.
    #[error("record of item {0} is out of order")]
    Order(u16),
    /// An item that this network function does not have, or that has another name here.
    #[error("item {0} is unknown")]
    UnknownItem(u16),
    /// An item's header or content cannot become part of the state.
    #[error("item {item}: {error}")]
    Adopt {
        /// The item's index.
        item: u16,
        /// What is wrong with it.
        error: AdoptError,
    },
    /// The closing record's totals, or the number of items, are not those of what arrived.
    #[error("totals differ from what arrived")]
    Totals,
    /// Something follows the closing record.
    #[error("bytes after the closing record")]
    AfterClosing,
    /// The stream was closed before its closing record.
    #[error("the snapshot stopped after {chunks} chunks without a closing record")]
    Unfinished {
        /// Number of chunks that had arrived.
        chunks: u64,
    },
}

/// Reads a snapshot stream in whatever pieces it arrives and makes its content a network function's state.
///
/// The network function must be fresh, and must not be used if the snapshot fails. At most one record is held.
///
/// ```
/// # use slim_core::snapshot::{SnapshotReader, SnapshotError};
/// # fn example<N: slim_core::nf::NetworkFunction>(nf: &mut N, pieces: &[&[u8]]) -> Result<(), SnapshotError> {
/// let mut reader = SnapshotReader::new();
/// for piece in pieces {
///     reader.receive(piece, nf)?;
/// }
/// let totals = reader.finish()?; // the connection was closed, or `reader.is_complete()`
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SnapshotReader {
    step: Step,
    /// What has arrived of the present record's header or body.
    partial: AlignedVec,
    /// Header and checksum so far of the record whose body is arriving.
    record: Option<(RecordHeader, u32)>,
    /// Whether the item with index `totals.items - 1` is being adopted.
    adopting: bool,
    totals: SnapshotTotals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Reading,
    Complete,
    Failed(SnapshotError),
}

/// Calls a function for each item of a network function.
type ForEachItem<'a> = dyn FnMut(&mut dyn FnMut(&mut dyn StateItem)) + 'a;

impl Default for SnapshotReader {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotReader {
    /// A reader at the begin of a stream.
    pub fn new() -> Self {
        Self {
            step: Step::Reading,
            partial: AlignedVec::new(),
            record: None,
            adopting: false,
            totals: SnapshotTotals::default(),
        }
    }

    /// Takes the next piece of the stream and makes what is complete part of the state.
    ///
    /// # Errors
    /// [`SnapshotError`], at once and on each further call.
    pub fn receive<N: NetworkFunction>(&mut self, bytes: &[u8], network_function: &mut N) -> Result<(), SnapshotError> {
        self.receive_items(bytes, &mut |f| network_function.for_each_state(f))
    }

    /// Whether the closing record has arrived and everything is as it should be.
    pub fn is_complete(&self) -> bool {
        self.step == Step::Complete
    }

    /// What has arrived so far.
    pub const fn totals(&self) -> &SnapshotTotals {
        &self.totals
    }

    /// Ends the stream where the connection was closed.
    ///
    /// # Errors
    /// [`SnapshotError::Unfinished`] if the closing record has not arrived.
    pub fn finish(&self) -> Result<SnapshotTotals, SnapshotError> {
        match self.step {
            Step::Reading => Err(SnapshotError::Unfinished { chunks: self.totals.chunks }),
            Step::Complete => Ok(self.totals),
            Step::Failed(error) => Err(error),
        }
    }

    fn receive_items(&mut self, mut bytes: &[u8], items: &mut ForEachItem<'_>) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let result = match self.step {
                Step::Reading => self.advance(&mut bytes, items),
                Step::Complete => Err(SnapshotError::AfterClosing),
                Step::Failed(error) => return Err(error),
            };
            if let Err(error) = result {
                self.step = Step::Failed(error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes from `bytes` what the present header or body lacks, and handles it when it is whole.
    fn advance(&mut self, bytes: &mut &[u8], items: &mut ForEachItem<'_>) -> Result<(), SnapshotError> {
        let Some((header, crc)) = self.record else {
            self.fill(HEADER_LEN, bytes);
            if let Some(header) = self.partial.first_chunk::<HEADER_LEN>() {
                let header = RecordHeader::decode(header)?;
                self.record = Some((header, header.header_crc));
                self.partial.clear();
            }
            return Ok(());
        };
        if header.kind == Kind::Filler {
            return self.skip_filler(header, crc, bytes);
        }
        let body_len = header.length;
        self.fill(body_len, bytes);
        if self.partial.len() < body_len {
            return Ok(());
        }
        expect_crc(crc32c_append(crc, &self.partial), header)?;
        self.record = None;
        let body = core::mem::take(&mut self.partial);
        match header.kind {
            Kind::Item => self.begin_item(header.item, &body, items)?,
            Kind::Chunk => self.adopt_chunk(header, &body, items)?,
            Kind::Closing => self.close(header.item, &body, items)?,
            Kind::Filler => {}
        }
        self.partial = body;
        self.partial.clear();
        Ok(())
    }

    /// Moves bytes from `bytes` until `len` are there. `len` has been checked against the bounds of the format.
    fn fill(&mut self, len: usize, bytes: &mut &[u8]) {
        let missing = len.saturating_sub(self.partial.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.partial.extend_from_slice(taken);
        *bytes = rest;
    }

    /// Discards filler without holding it.
    fn skip_filler(&mut self, mut header: RecordHeader, crc: u32, bytes: &mut &[u8]) -> Result<(), SnapshotError> {
        let (filler, rest) = bytes.split_at(header.length.min(bytes.len()));
        *bytes = rest;
        let crc = crc32c_append(crc, filler);
        header.length -= filler.len();
        self.totals.filler_bytes += filler.len() as u64;
        if header.length > 0 {
            self.record = Some((header, crc));
            return Ok(());
        }
        self.record = None;
        expect_crc(crc, header)
    }

    fn begin_item(&mut self, index: u16, body: &[u8], items: &mut ForEachItem<'_>) -> Result<(), SnapshotError> {
        if index != self.totals.items {
            return Err(SnapshotError::Order(index));
        }
        self.finish_item(items)?;
        let (header, name) = record::read_item(body).ok_or(SnapshotError::Length(body.len() as u32))?;
        with_item(items, index, &mut |item| {
            if item.name().as_bytes() != name {
                return Err(SnapshotError::UnknownItem(index));
            }
            item.begin_adopt(&header).map_err(|error| SnapshotError::Adopt { item: index, error })
        })?;
        self.totals.items = index.checked_add(1).ok_or(SnapshotError::Order(index))?;
        self.totals.entries = self.totals.entries.saturating_add(header.entries);
        self.adopting = true;
        Ok(())
    }

    fn adopt_chunk(
        &mut self,
        header: RecordHeader,
        archive: &[u8],
        items: &mut ForEachItem<'_>,
    ) -> Result<(), SnapshotError> {
        let index = header.item;
        if !self.adopting || u32::from(index) + 1 != u32::from(self.totals.items) {
            return Err(SnapshotError::Order(index));
        }
        with_item(items, index, &mut |item| {
            item.adopt_segment(header.segment, archive).map_err(|error| SnapshotError::Adopt { item: index, error })
        })?;
        self.totals.chunks += 1;
        self.totals.archive_bytes += archive.len() as u64;
        Ok(())
    }

    fn finish_item(&mut self, items: &mut ForEachItem<'_>) -> Result<(), SnapshotError> {
        if !core::mem::take(&mut self.adopting) {
            return Ok(());
        }
        let index = self.totals.items.saturating_sub(1);
        with_item(items, index, &mut |item| {
            item.finish_adopt().map_err(|error| SnapshotError::Adopt { item: index, error })
        })
    }

    fn close(&mut self, number: u16, body: &[u8], items: &mut ForEachItem<'_>) -> Result<(), SnapshotError> {
        self.finish_item(items)?;
        let mut expected = 0u64;
        items(&mut |_| expected += 1);
        let promised = SnapshotTotals::read(number, body).ok_or(SnapshotError::Length(body.len() as u32))?;
        if promised != self.totals || u64::from(number) != expected {
            return Err(SnapshotError::Totals);
        }
        self.step = Step::Complete;
        Ok(())
    }
}

fn expect_crc(have: u32, header: RecordHeader) -> Result<(), SnapshotError> {
    if have == header.crc { Ok(()) } else { Err(SnapshotError::Checksum { have, want: header.crc }) }
}

/// Calls `f` for the item with this index.
fn with_item(
    items: &mut ForEachItem<'_>,
    index: u16,
    f: &mut dyn FnMut(&mut dyn StateItem) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let mut position = 0u32;
    let mut result = Err(SnapshotError::UnknownItem(index));
    items(&mut |item| {
        if position == u32::from(index) {
            result = f(item);
        }
        position += 1;
    });
    result
}
