//! The table the images use: redirect-on-write over reference-counted segments.

use super::archive;
use super::hash::{self, Digest};
use super::pod::{Pod, mix_layout, name_layout};
use super::segment::{SEGMENT_SLOTS, Segment, Slot};
use super::state::{AdoptError, ArchiveError, FrozenItem, ItemHeader, StateItem};
use super::{FrozenTable, Full, ScanCursor, Table};
use crate::mutant::{self, Mutant};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use rkyv::util::AlignedVec;

/// Segments of one directory. A freeze clones one reference per directory, the first write to a directory after it
/// clones one per segment: both stay far below a burst's time for millions of entries.
const DIRECTORY_SEGMENTS: usize = 64;

/// The most entries of a table that consists of a single segment.
const SINGLE_SEGMENT_ENTRIES: usize = SEGMENT_SLOTS / 8 * 7;

/// Mean number of entries per segment in a full table of several segments (11/16 of its slots).
///
/// Entries spread over segments like a Poisson variable of mean 352 at most; it exceeds 512 with a probability below
/// 10⁻¹⁵. Should it ever, the insertion is refused as [`Full`].
const MEAN_SEGMENT_ENTRIES: usize = SEGMENT_SLOTS / 16 * 11;

struct Directory<K, V>([Option<Segment<K, V>>; DIRECTORY_SEGMENTS]);

impl<K, V> Clone for Directory<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Directory<K, V> {
    const EMPTY: Self = Self([const { None }; DIRECTORY_SEGMENTS]);
}

/// Hash table with isolated snapshots by redirect-on-write.
///
/// The table is a tree: directories of segments of slots, all reference-counted. A freeze clones the directories'
/// references; afterwards the writer copies a segment when it first writes to it, and the snapshot reads what it
/// holds, from any thread, without a lock. Dropping the snapshot is the unfreeze; any number may exist at a time.
///
/// Segments are allocated when first written, so an empty table of any capacity costs almost nothing.
/// Hashes are keyed with a random seed. Capacity is fixed: a full table refuses new keys.
///
/// Source: "redirect-on-write" of §IV; the segments are ours.
pub struct SegmentedTable<K, V> {
    name: &'static str,
    capacity: usize,
    segments: usize,
    seed: u64,
    len: usize,
    root: Vec<Arc<Directory<K, V>>>,
    /// While adopting: the entries the header promised.
    promised: Option<u64>,
}

/// The content of a [`SegmentedTable`] at the time of a freeze.
pub struct FrozenSegmentedTable<K, V> {
    name: &'static str,
    header: ItemHeader,
    root: Vec<Arc<Directory<K, V>>>,
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

#[inline(always)]
fn segment_in<K, V>(root: &[Arc<Directory<K, V>>], index: usize) -> Option<&Segment<K, V>> {
    root.get(index / DIRECTORY_SEGMENTS)?.0[index % DIRECTORY_SEGMENTS].as_ref()
}

fn entries_in<K: Pod, V: Pod>(root: &[Arc<Directory<K, V>>]) -> impl Iterator<Item = (&K, &V)> {
    root.iter()
        .flat_map(|directory| directory.0.iter().flatten())
        .flat_map(|segment| segment.entries_from(0))
        .map(|(_, slot)| (&slot.key, &slot.value))
}

impl<K: Pod, V: Pod> SegmentedTable<K, V> {
    /// Identifies the layout of archived segments.
    const LAYOUT: u64 = {
        let layout = mix_layout(name_layout("segmented 1"), SEGMENT_SLOTS as u64);
        mix_layout(mix_layout(layout, K::LAYOUT), V::LAYOUT)
    };

    /// An empty table for up to `capacity` entries (at least 1, at most 2³¹). `seed` must be random.
    ///
    /// Key and value together must not exceed 2000 bytes, so that a segment fits into a snapshot's chunk; up to some
    /// 120 bytes its copy after a freeze stays below 64 KiB.
    pub fn with_capacity(name: &'static str, capacity: usize, seed: u64) -> Self {
        const { assert!(size_of::<K>() + size_of::<V>() <= 2000, "key and value are too long") };
        let capacity = capacity.clamp(1, 1 << 31);
        let segments = segments_for(capacity);
        let root = Self::empty_root(segments);
        Self { name, capacity, segments, seed, len: 0, root, promised: None }
    }

    fn empty_root(segments: usize) -> Vec<Arc<Directory<K, V>>> {
        // All are one and the same until written.
        core::iter::repeat_n(Arc::new(Directory::EMPTY), segments.div_ceil(DIRECTORY_SEGMENTS)).collect()
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

    /// Whether a snapshot still reads the segment.
    fn is_shared(&self, index: usize) -> bool {
        let Some(directory) = self.root.get(index / DIRECTORY_SEGMENTS) else { return false };
        Arc::strong_count(directory) > 1 || segment_in(&self.root, index).is_some_and(Segment::is_shared)
    }

    #[inline(always)]
    fn segment_mut(&mut self, index: usize) -> Option<&mut Option<Segment<K, V>>> {
        let directory = Arc::make_mut(self.root.get_mut(index / DIRECTORY_SEGMENTS)?);
        Some(&mut directory.0[index % DIRECTORY_SEGMENTS])
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        let hash = hash::keyed(self.seed, key);
        let segment = segment_in(&self.root, segment_index(hash, self.segments))?;
        segment.find(hash, key).map(|(_, slot)| &slot.value)
    }

    /// Whether `key` has a value.
    #[inline]
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of `key`, for a change in place.
    ///
    /// Copies the entry's segment if a snapshot shares it: use [`get`](Self::get) for reading.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let hash = hash::keyed(self.seed, key);
        let index = segment_index(hash, self.segments);
        let (place, _) = segment_in(&self.root, index)?.find(hash, key)?;
        self.segment_mut(index)?.as_mut()?.value_mut(place)
    }

    /// Sets the value of `key` and returns the one it had.
    ///
    /// # Errors
    /// [`Full`] if `key` is new and there is no room for it; nothing has changed then.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full> {
        let hash = hash::keyed(self.seed, &key);
        let index = segment_index(hash, self.segments);
        let found = segment_in(&self.root, index).and_then(|segment| segment.find(hash, &key));
        if let Some((place, _)) = found {
            let slot = self.segment_mut(index).and_then(Option::as_mut).and_then(|s| s.value_mut(place));
            return Ok(slot.map(|slot| core::mem::replace(slot, value)));
        }
        if self.len >= self.capacity {
            return Err(Full);
        }
        let segment = self.segment_mut(index).ok_or(Full)?.get_or_insert_with(Segment::empty);
        let place = segment.find_free(hash).ok_or(Full)?;
        segment.occupy(place, hash, Slot { key, value });
        self.len += 1;
        Ok(None)
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = hash::keyed(self.seed, key);
        let index = segment_index(hash, self.segments);
        let segment = segment_in(&self.root, index)?;
        let (place, &Slot { value, .. }) = segment.find(hash, key)?;
        if mutant::is_active(Mutant::RemovalDuringFreezeLost) && self.is_shared(index) {
            return Some(value);
        }
        self.segment_mut(index)?.as_mut()?.vacate(place, hash);
        self.len -= 1;
        Some(value)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.root = Self::empty_root(self.segments);
        self.len = 0;
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        entries_in(&self.root)
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
            let Some(segment) = segment_in(&self.root, base / SEGMENT_SLOTS) else {
                *slots = slots.saturating_sub(UNWRITTEN_COST);
                position = base + SEGMENT_SLOTS;
                continue;
            };
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

    /// How many segments have been copied or allocated and are not shared with a snapshot.
    #[cfg(test)]
    fn unshared_segments(&self) -> usize {
        let segments = self.root.iter().filter(|directory| Arc::strong_count(directory) == 1);
        segments.flat_map(|directory| directory.0.iter().flatten()).filter(|segment| !segment.is_shared()).count()
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
        FrozenSegmentedTable { name: self.name, header: self.header(), root: self.root.clone() }
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
        self.promised = Some(header.entries);
        Ok(())
    }

    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        let promised = self.promised.ok_or(AdoptError::Segment(index))?;
        let position = index as usize;
        if position >= self.segments || segment_in(&self.root, position).is_some() {
            return Err(AdoptError::Segment(index));
        }
        let (seed, segments) = (self.seed, self.segments);
        let mut segment = Segment::empty();
        let added = archive::read::<K, V>(index, SEGMENT_SLOTS, archive, |number, key, value| {
            let hash = hash::keyed(seed, &key);
            if segment_index(hash, segments) != position || segment.find(hash, &key).is_some() {
                return Err(AdoptError::Inconsistent(index));
            }
            segment.occupy(super::segment::Place::from_number(number), hash, Slot { key, value });
            Ok(())
        })?;
        let have = self.len as u64 + added as u64;
        if have > promised {
            return Err(AdoptError::Incomplete { have, want: promised });
        }
        *self.segment_mut(position).ok_or(AdoptError::Segment(index))? = Some(segment);
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
        let hash = hash::keyed(self.header.hash_seed, key);
        let segment = segment_in(&self.root, segment_index(hash, self.header.segments as usize))?;
        segment.find(hash, key).map(|(_, slot)| slot.value)
    }

    fn for_each(&self, f: &mut dyn FnMut(&K, &V)) {
        entries_in(&self.root).for_each(|(key, value)| f(key, value));
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
        let Some(segment) = segment_in(&self.root, index as usize) else { return Ok(None) };
        archive::write(segment.entries_from(0).map(|(number, slot)| (number, slot.key, slot.value)))
    }

    fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        entries_in(&self.root).for_each(|(key, value)| digest.add(key, value));
        digest.finish(self.name)
    }
}

#[cfg(test)]
mod tests;
