//! State items: the type-erased side of tables, for snapshots, adoption and digests. Never used per packet.

use alloc::boxed::Box;
use rkyv::util::AlignedVec;

/// What the destination must know of an item before its segments arrive: shape, bounds and the hash seed.
///
/// Untrusted on arrival: [`StateItem::begin_adopt`] compares it with the destination's own configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemHeader {
    /// Number of segments of the item. Those with entries follow, each once, in any order.
    pub segments: u32,
    /// Number of live entries in all segments together.
    pub entries: u64,
    /// The most entries the item accepts.
    pub capacity: u64,
    /// The seed of its hash function; 0 where there is none.
    pub hash_seed: u64,
    /// Identifies key and value layout, so that a wrong one is refused before any byte is read.
    pub layout: u64,
}

impl ItemHeader {
    /// Compares a received header with that of the item it is for, `own`: shape and bounds must agree.
    pub(crate) fn expect_shape(&self, own: &Self) -> Result<(), AdoptError> {
        if self.layout != own.layout {
            return Err(AdoptError::Header("keys and values have another layout"));
        }
        if self.capacity != own.capacity {
            return Err(AdoptError::Header("its capacity is another"));
        }
        if self.segments != own.segments {
            return Err(AdoptError::Header("its number of segments does not follow from its capacity"));
        }
        if self.entries > self.capacity {
            return Err(AdoptError::Header("it promises more entries than its capacity"));
        }
        Ok(())
    }
}

/// A segment could not be archived, for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a segment could not be archived")]
pub struct ArchiveError;

/// Why a received header or segment cannot become part of the state. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The header's shape differs from what this item can hold.
    #[error("header does not fit the table: {0}")]
    Header(&'static str),
    /// A segment arrived before the header, twice, or with an index out of range.
    #[error("segment {0} is out of order, doubled or out of range")]
    Segment(u32),
    /// The archive is not a valid segment.
    #[error("segment {0} is not a valid archive")]
    Archive(u32),
    /// The segment's entries are not where its hash function puts them, or its bookkeeping is wrong.
    #[error("segment {0} is inconsistent")]
    Inconsistent(u32),
    /// Adoption was finished before every segment had arrived, or the entries do not add up.
    #[error("{have} of {want} segments or entries arrived")]
    Incomplete {
        /// What arrived.
        have: u64,
        /// What the header promised.
        want: u64,
    },
}

/// One part of a network function's state, such as a table.
pub trait StateItem {
    /// A name that is unique within the network function.
    fn name(&self) -> &'static str;

    /// Isolates the present content: a cheap, constant-time step between two bursts.
    ///
    /// The item goes on changing; what is returned does not. Dropping it is the unfreeze.
    fn freeze(&mut self) -> Box<dyn FrozenItem>;

    /// Discards the content and prepares for the segments that `header` promises.
    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError>;

    /// Validates one archived segment and makes it the live one, without re-inserting its entries.
    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError>;

    /// Ends the adoption. On any error the item must not be used.
    fn finish_adopt(&mut self) -> Result<(), AdoptError>;
}

/// The isolated content of one state item. Lives on the snapshot thread.
pub trait FrozenItem: Send {
    /// The item's name.
    fn name(&self) -> &'static str;

    /// What the destination must know first.
    fn header(&self) -> ItemHeader;

    /// What the item takes in memory when it is full.
    fn capacity_bytes(&self) -> u64;

    /// The rkyv archive of segment `index`, or `None` if it has no entries and need not travel.
    fn archive_segment(&self, index: u32) -> Result<Option<AlignedVec>, ArchiveError>;

    /// A digest of the logical content: equal for equal entries, whatever their order, seed and layout.
    fn digest(&self) -> u128;
}
