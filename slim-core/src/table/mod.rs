//! Tables with isolated snapshots (§VI-B), and what a snapshot needs from any part of a network function's state.
//!
//! A network function keeps its state in [`SegmentedTable`]s and single values in [`Register`]s. Keys and values are
//! [`Pod`]s, usually declared with [`pod!`](crate::pod). Two designs of isolated snapshots implement [`Table`]:
//!
//! - [`SegmentedTable`]: redirect-on-write over reference-counted segments, which the images use;
//! - [`GenerationTable`]: the paper's generations per entry, corrected where the printed rule is wrong.
//!
//! Both are [`StateItem`]s: they freeze, travel, are adopted and digested without knowing the network function.

mod archive;
mod generation;
mod hash;
mod layers;
mod pod;
mod register;
mod segment;
mod segmented;
mod small;
mod state;

pub use generation::{FrozenGenerationTable, GenerationTable};
pub(crate) use hash::combine_digests;
pub use pod::{FieldSink, FieldSource, Pod};
#[doc(hidden)]
pub use pod::{mix_layout, name_layout};
pub use register::Register;
pub use segmented::{FrozenSegmentedTable, Prefetched, SegmentedTable};
pub use small::{SMALL_TABLE_ENTRIES_MAX, SmallTable};
pub use state::{AdoptError, ArchiveError, FrozenItem, ItemHeader, StateItem};

/// The table has no room for another key. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the table is full")]
pub struct Full;

/// Where a bounded sweep over a table goes on. Valid for any state of the table it was used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanCursor(usize);

impl ScanCursor {
    /// A cursor that was a number meanwhile. Any number will do: one beyond the table's end begins anew.
    pub const fn from_number(number: u64) -> Self {
        // Tables have far fewer slots than either type has values.
        Self(number as usize)
    }

    /// The cursor as a number; 0 at the begin of the table.
    pub const fn number(self) -> u64 {
        self.0 as u64
    }
}

/// A hash table of bounded capacity with isolated snapshots.
///
/// What both designs have in common; [`SegmentedTable`] offers references as well.
pub trait Table<K: Pod, V: Pod>: StateItem + Sized {
    /// The content at the time of a freeze.
    type Frozen: FrozenTable<K, V>;

    /// An empty table for up to `capacity` entries. `seed` must be random.
    fn with_capacity(name: &'static str, capacity: usize, seed: u64) -> Self;

    /// Number of entries.
    fn len(&self) -> usize;

    /// Whether there are no entries.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most entries the table accepts.
    fn capacity(&self) -> usize;

    /// The value of `key`.
    fn get(&self, key: &K) -> Option<V>;

    /// Sets the value of `key` and returns the one it had.
    ///
    /// # Errors
    /// [`Full`] if `key` is new and there is no room for it; nothing has changed then.
    fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full>;

    /// Changes the value of `key` in place, if it has one.
    fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R>;

    /// Removes `key` and returns its value.
    fn remove(&mut self, key: &K) -> Option<V>;

    /// Sweeps on from `cursor` and returns the next entry that is `wanted`, looking at no more than `slots` slots.
    ///
    /// What was looked at is subtracted from `slots`. Returns `None` when it is used up or when the end of the table
    /// is reached, from where the next call starts anew.
    fn scan(&self, cursor: &mut ScanCursor, slots: &mut usize, wanted: impl FnMut(&K, &V) -> bool) -> Option<(K, V)>;

    /// Isolates the present content, as [`StateItem::freeze`] does, and returns it with its type.
    fn freeze_table(&mut self) -> Self::Frozen;
}

/// The isolated content of a [`Table`]. Readable from any thread while the table goes on changing.
pub trait FrozenTable<K: Pod, V: Pod>: FrozenItem {
    /// The value `key` had at the time of the freeze, even if it has been removed since.
    fn get(&self, key: &K) -> Option<V>;

    /// Calls `f` for each entry, in no particular order.
    fn for_each(&self, f: &mut dyn FnMut(&K, &V));
}

#[cfg(test)]
mod tests;
