//! The table the images use: redirect-on-write over reference-counted segments.

use super::archive;
use super::hash::{Digest, HashKey};
use super::layers::{Blocks, Layer, Layered};
use super::pod::{Pod, mix_layout, name_layout};
use super::segment::{Block, Place, SEGMENT_SLOTS, Segment, SegmentMut, Slot};
use super::state::{AdoptError, ArchiveError, FrozenItem, ItemHeader, StateItem};
use super::{FrozenTable, Full, ScanCursor, Table};
use crate::mutant::{self, Mutant};
use alloc::boxed::Box;
use alloc::sync::Arc;
use rkyv::util::AlignedVec;

/// The most entries of a table that consists of a single segment.
const SINGLE_SEGMENT_ENTRIES: usize = SEGMENT_SLOTS / 8 * 7;

/// Mean number of entries per segment in a full table of several segments (11/16 of its slots).
///
/// Entries spread over segments like a Poisson variable of mean 352 at most; it exceeds 512 with a probability below
/// 10⁻¹⁵. Should it ever, the insertion is refused as [`Full`].
const MEAN_SEGMENT_ENTRIES: usize = SEGMENT_SLOTS / 16 * 11;

/// Hash table with isolated snapshots by redirect-on-write.
///
/// The table consists of blocks of slots, in layers. A freeze puts an empty layer on top; afterwards the writer copies a
/// block when it first writes to it, and the snapshot reads what it holds, from any thread, without a lock. Dropping
/// the snapshot is the unfreeze; any number may exist at a time.
///
/// Blocks are allocated when first written, so an empty table of any capacity costs almost nothing, and it grows by 2
/// KiB at a time, without moving an entry. Hashes are keyed with a random seed. Capacity is fixed: a full table
/// refuses new keys.
///
/// Source: "redirect-on-write" of §IV; segments and blocks are ours.
pub struct SegmentedTable<K, V> {
    name: &'static str,
    capacity: usize,
    segments: usize,
    seed: u64,
    hash_key: HashKey,
    len: usize,
    blocks: Layered<Block<K, V>>,
    /// While adopting: the entries the header promised.
    promised: Option<u64>,
}

/// A key whose entry is on its way into the cache.
#[derive(Debug, Clone, Copy)]
pub struct Prefetched(u64);

/// The content of a [`SegmentedTable`] at the time of a freeze.
pub struct FrozenSegmentedTable<K, V> {
    name: &'static str,
    header: ItemHeader,
    blocks: Arc<Layer<Block<K, V>>>,
}

/// Number of segments for `capacity` entries.
fn segments_for(capacity: usize) -> usize {
    if capacity <= SINGLE_SEGMENT_ENTRIES { 1 } else { capacity.div_ceil(MEAN_SEGMENT_ENTRIES) }
}

/// Which of `segments` segments an entry belongs to, from the upper half of its hash.
#[inline(always)]
fn segment_index(hash: u64, segments: usize) -> usize {
    (((hash >> 32) * segments as u64) >> 32) as usize
}

fn entries_in<K: Pod, V: Pod, S: Blocks<Block<K, V>>>(blocks: &S, segments: usize) -> impl Iterator<Item = (&K, &V)> {
    (0..segments)
        .flat_map(|index| Segment::new(blocks, index).entries_from(0))
        .map(|(_, slot)| (&slot.key, &slot.value))
}

impl<K: Pod, V: Pod> SegmentedTable<K, V> {
    /// Identifies the layout of archived segments.
    const LAYOUT: u64 = {
        let layout = mix_layout(name_layout("segmented 2"), SEGMENT_SLOTS as u64);
        mix_layout(mix_layout(layout, K::LAYOUT), V::LAYOUT)
    };

    /// An empty table for up to `capacity` entries (at least 1, at most 2³¹). `seed` must be random.
    ///
    /// Key and value together must not exceed 2000 bytes, so that a segment fits into a snapshot's chunk; up to some 250
    /// bytes a copy after a freeze stays below 2 KiB.
    pub fn with_capacity(name: &'static str, capacity: usize, seed: u64) -> Self {
        const { assert!(size_of::<K>() + size_of::<V>() <= 2000, "key and value are too long") };
        let capacity = capacity.clamp(1, 1 << 31);
        let segments = segments_for(capacity);
        let blocks = Layered::new(segments * Block::<K, V>::PER_SEGMENT);
        let hash_key = HashKey::new(seed);
        Self { name, capacity, segments, seed, hash_key, len: 0, blocks, promised: None }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most entries the table accepts.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The hash of `key`, and the segment it belongs to.
    #[inline(always)]
    fn locate(&self, key: &K) -> (u64, usize) {
        let hash = self.hash_key.hash(key);
        (hash, segment_index(hash, self.segments))
    }

    #[inline(always)]
    fn segment(&self, index: usize) -> Segment<'_, K, V, Layered<Block<K, V>>> {
        Segment::new(&self.blocks, index)
    }

    #[inline(always)]
    fn segment_mut(&mut self, index: usize) -> SegmentMut<'_, K, V> {
        SegmentMut::new(&mut self.blocks, index)
    }

    /// The value of `key`.
    #[inline(always)]
    pub fn get(&self, key: &K) -> Option<&V> {
        let (hash, index) = self.locate(key);
        self.segment(index).find(hash, key).map(|(_, slot)| &slot.value)
    }

    /// Whether `key` has a value.
    #[inline(always)]
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Begins to bring what is known about `key` into the cache: the first of two steps, which should be some hundred
    /// cycles apart. Of use where many keys are looked up soon; changes nothing.
    #[inline(always)]
    pub fn prefetch(&self, key: &K) -> Prefetched {
        let (hash, index) = self.locate(key);
        self.segment(index).prefetch_tags(hash);
        Prefetched(hash)
    }

    /// The second step.
    #[inline(always)]
    pub fn prefetch_value(&self, Prefetched(hash): Prefetched) {
        self.segment(segment_index(hash, self.segments)).prefetch_slot(hash);
    }

    /// The value of `key`, for a change in place.
    ///
    /// Copies the entry's block if a snapshot holds it: use [`get`](Self::get) for reading.
    #[inline(always)]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (hash, index) = self.locate(key);
        let (place, _) = self.segment(index).find(hash, key)?;
        self.segment_mut(index).value(place)
    }

    /// Sets the value of `key` and returns the one it had.
    ///
    /// # Errors
    /// [`Full`] if `key` is new and there is no room for it; nothing has changed then.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full> {
        let (hash, index) = self.locate(&key);
        if let Some((place, _)) = self.segment(index).find(hash, &key) {
            return Ok(self.segment_mut(index).value(place).map(|slot| core::mem::replace(slot, value)));
        }
        if self.len >= self.capacity {
            return Err(Full);
        }
        let place = self.segment(index).find_free(hash).ok_or(Full)?;
        self.segment_mut(index).occupy(place, hash, Slot { key, value });
        self.len += 1;
        Ok(None)
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (hash, index) = self.locate(key);
        let (place, &Slot { value, .. }) = self.segment(index).find(hash, key)?;
        if mutant::is_active(Mutant::RemovalDuringFreezeLost) && self.blocks.is_shared(place.block::<K, V>(index)) {
            return Some(value);
        }
        self.segment_mut(index).vacate(place, hash);
        self.len -= 1;
        Some(value)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.len = 0;
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        entries_in(&self.blocks, self.segments)
    }

    /// Sweeps on from `cursor` and returns the next entry that is `wanted`, looking at a bounded number of slots.
    ///
    /// `slots` is the budget; what was looked at is subtracted. Returns `None` when it is used up or when the end of
    /// the table is reached, from where the next call starts anew. The table may be changed between calls: entries
    /// never move, so each entry that exists throughout a sweep is seen once.
    ///
    /// ```
    /// # let mut table = slim_core::table::SegmentedTable::<u32, u64>::with_capacity("t", 100, 1);
    /// # table.insert(7, 5).unwrap();
    /// # let (mut cursor, now) = (slim_core::table::ScanCursor::default(), 10);
    /// let mut slots = 4096;
    /// while let Some((key, _)) = table.scan(&mut cursor, &mut slots, |_, expires| *expires <= now) {
    ///     table.remove(&key);
    /// }
    /// # assert!(table.is_empty());
    /// ```
    pub fn scan(
        &self,
        cursor: &mut ScanCursor,
        slots: &mut usize,
        mut wanted: impl FnMut(&K, &V) -> bool,
    ) -> Option<(K, V)> {
        /// What it costs to step over a segment that was never written, in slots.
        const UNWRITTEN_COST: usize = 8;

        let end = self.segments * SEGMENT_SLOTS;
        let mut position = if cursor.0 < end { cursor.0 } else { 0 };
        while *slots > 0 && position < end {
            let first = position % SEGMENT_SLOTS;
            let base = position - first;
            let segment = self.segment(base / SEGMENT_SLOTS);
            if !segment.exists() {
                *slots = slots.saturating_sub(UNWRITTEN_COST);
                position = base + SEGMENT_SLOTS;
                continue;
            }
            let last = SEGMENT_SLOTS.min(first.saturating_add(*slots));
            let found = segment
                .entries_from(first)
                .take_while(|(number, _)| *number < last)
                .find(|(_, slot)| wanted(&slot.key, &slot.value));
            let next = found.map_or(last, |(number, _)| number + 1);
            *slots -= next - first;
            position = base + next;
            if let Some((_, slot)) = found {
                cursor.0 = position;
                return Some((slot.key, slot.value));
            }
        }
        cursor.0 = if position < end { position } else { 0 };
        None
    }

    fn header(&self) -> ItemHeader {
        ItemHeader {
            segments: self.segments as u32,
            entries: self.len as u64,
            capacity: self.capacity as u64,
            hash_seed: self.seed,
            layout: Self::LAYOUT,
        }
    }

    /// How many blocks there are that no snapshot holds.
    #[cfg(test)]
    fn unshared_blocks(&self) -> usize {
        let blocks = 0..self.segments * Block::<K, V>::PER_SEGMENT;
        blocks.filter(|index| self.blocks.block(*index).is_some() && !self.blocks.is_shared(*index)).count()
    }
}

impl<K: Pod, V: Pod> Table<K, V> for SegmentedTable<K, V> {
    type Frozen = FrozenSegmentedTable<K, V>;

    fn with_capacity(name: &'static str, capacity: usize, seed: u64) -> Self {
        Self::with_capacity(name, capacity, seed)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.get(key).copied()
    }

    fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full> {
        self.insert(key, value)
    }

    #[inline]
    fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.get_mut(key).map(change)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.remove(key)
    }

    fn scan(&self, cursor: &mut ScanCursor, slots: &mut usize, wanted: impl FnMut(&K, &V) -> bool) -> Option<(K, V)> {
        self.scan(cursor, slots, wanted)
    }

    fn freeze_table(&mut self) -> Self::Frozen {
        FrozenSegmentedTable { name: self.name, header: self.header(), blocks: self.blocks.freeze() }
    }
}

impl<K: Pod, V: Pod> StateItem for SegmentedTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn freeze(&mut self) -> Box<dyn FrozenItem> {
        Box::new(self.freeze_table())
    }

    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError> {
        header.expect_shape(&self.header())?;
        self.clear();
        self.seed = header.hash_seed;
        self.hash_key = HashKey::new(self.seed);
        self.promised = Some(header.entries);
        Ok(())
    }

    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        let promised = self.promised.ok_or(AdoptError::Segment(index))?;
        let position = index as usize;
        if position >= self.segments || self.segment(position).exists() {
            return Err(AdoptError::Segment(index));
        }
        let (hash_key, segments) = (self.hash_key, self.segments);
        let mut segment = SegmentMut::alone();
        let added = archive::read::<K, V>(index, SEGMENT_SLOTS, archive, |number, key, value| {
            let hash = hash_key.hash(&key);
            if segment_index(hash, segments) != position || segment.as_ref().find(hash, &key).is_some() {
                return Err(AdoptError::Inconsistent(index));
            }
            segment.as_mut().occupy(Place::from_number(number), hash, Slot { key, value });
            Ok(())
        })?;
        let have = self.len as u64 + added as u64;
        if have > promised {
            return Err(AdoptError::Incomplete { have, want: promised });
        }
        segment.join(&mut self.blocks, position);
        self.len += added;
        Ok(())
    }

    fn finish_adopt(&mut self) -> Result<(), AdoptError> {
        let want = self.promised.take().ok_or(AdoptError::Header("none has arrived"))?;
        let have = self.len as u64;
        if have == want { Ok(()) } else { Err(AdoptError::Incomplete { have, want }) }
    }
}

impl<K: Pod, V: Pod> FrozenTable<K, V> for FrozenSegmentedTable<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let hash = HashKey::new(self.header.hash_seed).hash(key);
        let index = segment_index(hash, self.header.segments as usize);
        Segment::new(&*self.blocks, index).find(hash, key).map(|(_, slot)| slot.value)
    }

    fn for_each(&self, f: &mut dyn FnMut(&K, &V)) {
        entries_in(&*self.blocks, self.header.segments as usize).for_each(|(key, value)| f(key, value));
    }
}

impl<K: Pod, V: Pod> FrozenItem for FrozenSegmentedTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn header(&self) -> ItemHeader {
        self.header
    }

    fn capacity_bytes(&self) -> u64 {
        // An entry with its share of the bookkeeping.
        let slot = size_of::<Slot<K, V>>() + 2;
        u64::from(self.header.segments) * (SEGMENT_SLOTS * slot) as u64
    }

    fn archive_segment(&self, index: u32) -> Result<Option<AlignedVec>, ArchiveError> {
        let segment = Segment::new(&*self.blocks, index as usize);
        archive::write(
            SEGMENT_SLOTS / 16 * 13,
            segment.entries_from(0).map(|(number, slot)| (number, slot.key, slot.value)),
        )
    }

    fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        entries_in(&*self.blocks, self.header.segments as usize).for_each(|(key, value)| digest.add(key, value));
        digest.finish(self.name)
    }
}

#[cfg(test)]
mod tests;
