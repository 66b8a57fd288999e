//! Segments of a [`SegmentedTable`](super::SegmentedTable): 512 slots each, hashed among themselves.
//!
//! ```text
//! segment   64 groups, in blocks of at most 2 KiB: what a write after a freeze copies
//! group     tags  8 bytes, one per slot: 0 = free, 0x80 | 7 bits of the hash = taken
//!           passed  how many entries probed past this group because it was full
//!           slots  8 × (key, value)
//! ```
//!
//! An entry lives in its home group or, where that was full, in the next group with a free slot. A lookup goes on to
//! the next group only while `passed` is not zero, so deletion needs neither tombstones nor rehashing, and an entry
//! never moves: a slot's number is a stable place for a sweep to return to.

use super::layers::{Blocks, Layered};
use super::pod::Pod;
use alloc::boxed::Box;
use core::marker::PhantomData;
use slim_prefetch::prefetch;

/// Slots of a group; its tags are compared in one word.
const GROUP_SLOTS: usize = 8;

/// Groups of a segment.
const SEGMENT_GROUPS: usize = 64;

/// Slots of a segment.
pub(super) const SEGMENT_SLOTS: usize = GROUP_SLOTS * SEGMENT_GROUPS;

/// A group's number, modulo the segment's size.
const GROUP_MASK: usize = SEGMENT_GROUPS - 1;

/// The most bytes of a block, unless a single group is larger.
const BLOCK_BYTES_MAX: usize = 2048;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// One key and its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<K, V> {
    pub(super) key: K,
    pub(super) value: V,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Group<K, V> {
    tags: u64,
    passed: u16,
    slots: [Slot<K, V>; GROUP_SLOTS],
}

/// A slot's place within its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    group: usize,
    lane: usize,
}

impl Place {
    /// The place with this number, modulo the segment's size.
    pub(super) fn from_number(number: usize) -> Self {
        Self { group: (number / GROUP_SLOTS) & GROUP_MASK, lane: number % GROUP_SLOTS }
    }

    fn number(self) -> usize {
        self.group * GROUP_SLOTS + self.lane
    }

    /// The number of its block among all blocks of a table, if it is in this segment.
    pub(super) fn block<K, V>(self, segment: usize) -> usize {
        Block::<K, V>::containing(segment, self.group).0
    }
}

fn tag(hash: u64) -> u8 {
    0x80 | (hash >> 6) as u8
}

fn home(hash: u64) -> usize {
    hash as usize & GROUP_MASK
}

impl<K: Pod, V: Pod> Group<K, V> {
    const EMPTY: Self = Self { tags: 0, passed: 0, slots: [Slot { key: K::ZERO, value: V::ZERO }; GROUP_SLOTS] };

    /// The high bit of each lane whose tag is `tag`, and possibly of others that hold an entry, never of free ones:
    /// a lane is wrongly reported only if its tag differs from `tag` in the lowest bit alone.
    #[inline(always)]
    fn candidates(&self, tag: u8) -> u64 {
        let difference = self.tags ^ (LOW_BITS * u64::from(tag));
        difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS
    }

    #[inline(always)]
    fn free_lane(&self) -> Option<usize> {
        let free = !self.tags & HIGH_BITS;
        (free != 0).then(|| lane_of(free))
    }

    #[inline(always)]
    fn set_tag(&mut self, lane: usize, tag: u8) {
        self.tags = self.tags & !(0xff << (8 * lane)) | u64::from(tag) << (8 * lane);
    }
}

#[inline(always)]
fn lane_of(high_bits: u64) -> usize {
    high_bits.trailing_zeros() as usize / 8
}

/// The groups that a write after a freeze copies together: a whole fraction of a segment's.
pub(super) struct Block<K, V>(Box<[Group<K, V>]>);

impl<K: Copy, V: Copy> Clone for Block<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Block<K, V> {
    /// Groups of a block: a power of two.
    const GROUPS: usize = {
        let mut groups = SEGMENT_GROUPS;
        while groups > 1 && groups * size_of::<Group<K, V>>() > BLOCK_BYTES_MAX {
            groups /= 2;
        }
        groups
    };

    /// Blocks of a segment.
    pub(super) const PER_SEGMENT: usize = SEGMENT_GROUPS / Self::GROUPS;

    /// The number of the block that contains a group of a segment, and the group's number in it.
    #[inline(always)]
    fn containing(segment: usize, group: usize) -> (usize, usize) {
        (segment * Self::PER_SEGMENT + group / Self::GROUPS, group % Self::GROUPS)
    }
}

impl<K: Pod, V: Pod> Block<K, V> {
    #[cold]
    fn empty() -> Self {
        Self(core::iter::repeat_n(Group::EMPTY, Self::GROUPS).collect())
    }
}

/// A segment for reading: a part of the blocks of a table, or of a snapshot.
pub(super) struct Segment<'a, K, V, S> {
    blocks: &'a S,
    index: usize,
    entries: PhantomData<(K, V)>,
}

impl<'a, K: Pod, V: Pod, S: Blocks<Block<K, V>>> Segment<'a, K, V, S> {
    /// The segment with this number. It has no entries if none of its blocks exists.
    #[inline(always)]
    pub(super) fn new(blocks: &'a S, index: usize) -> Self {
        Self { blocks, index, entries: PhantomData }
    }

    #[inline(always)]
    fn group(&self, group: usize) -> Option<&'a Group<K, V>> {
        let (block, group) = Block::<K, V>::containing(self.index, group);
        self.blocks.block(block)?.0.get(group)
    }

    /// Whether any of its blocks exists.
    pub(super) fn exists(&self) -> bool {
        let first = self.index * Block::<K, V>::PER_SEGMENT;
        (first..first + Block::<K, V>::PER_SEGMENT).any(|block| self.blocks.block(block).is_some())
    }

    /// Where `key` is, and its slot.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &K) -> Option<(Place, &'a Slot<K, V>)> {
        let tag = tag(hash);
        let mut index = home(hash);
        for _ in 0..SEGMENT_GROUPS {
            // No entry has probed past a group that has never been written.
            let group = self.group(index)?;
            let mut candidates = group.candidates(tag);
            while candidates != 0 {
                let lane = lane_of(candidates);
                let slot = &group.slots[lane];
                if slot.key == *key {
                    return Some((Place { group: index, lane }, slot));
                }
                candidates &= candidates - 1;
            }
            if group.passed == 0 {
                return None;
            }
            index = (index + 1) & GROUP_MASK;
        }
        None
    }

    /// Has the tags of an entry's home group brought into the cache.
    #[inline(always)]
    pub(super) fn prefetch_tags(&self, hash: u64) {
        if let Some(group) = self.group(home(hash)) {
            prefetch(&group.tags);
        }
    }

    /// Has the slot that is probably an entry's brought into the cache, from the tags of its home group.
    #[inline(always)]
    pub(super) fn prefetch_slot(&self, hash: u64) {
        if let Some(group) = self.group(home(hash)) {
            let candidates = group.candidates(tag(hash));
            if candidates != 0 {
                let slot = &group.slots[lane_of(candidates)];
                prefetch(slot);
                prefetch(&slot.value);
            }
        }
    }

    /// Where an entry with this hash would go, or `None` if every slot is taken.
    pub(super) fn find_free(&self, hash: u64) -> Option<Place> {
        let home = home(hash);
        (0..SEGMENT_GROUPS).find_map(|distance| {
            let group = (home + distance) & GROUP_MASK;
            let lane = self.group(group).map_or(Some(0), Group::free_lane)?;
            Some(Place { group, lane })
        })
    }

    /// The taken slots with their numbers, from slot `first` on, in ascending order.
    pub(super) fn entries_from(self, first: usize) -> impl Iterator<Item = (usize, &'a Slot<K, V>)> {
        (first / GROUP_SLOTS..SEGMENT_GROUPS).flat_map(move |index| {
            let group = self.group(index);
            let mut taken = group.map_or(0, |group| group.tags & HIGH_BITS);
            core::iter::from_fn(move || {
                let lane = (taken != 0).then(|| lane_of(taken))?;
                taken &= taken - 1;
                Some((Place { group: index, lane }.number(), &group?.slots[lane]))
            })
            .skip_while(move |(number, _)| *number < first)
        })
    }

    /// Panics unless `passed` says how many entries were displaced past each group.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self, hash_of: impl Fn(&K) -> u64) {
        let mut expected = SegmentMut::alone();
        for (number, slot) in Self::new(self.blocks, self.index).entries_from(0) {
            let found = self.find(hash_of(&slot.key), &slot.key).map(|(place, _)| place);
            assert_eq!(found, Some(Place::from_number(number)));
            expected.as_mut().occupy(Place::from_number(number), hash_of(&slot.key), *slot);
        }
        let expected = Segment::new(&expected.0, 0);
        for group in 0..SEGMENT_GROUPS {
            let bookkeeping = |group: Option<&Group<K, V>>| group.map_or((0, 0), |group| (group.tags, group.passed));
            assert_eq!(bookkeeping(self.group(group)), bookkeeping(expected.group(group)));
        }
    }
}

/// A segment for writing. Its blocks are copied first where a snapshot holds them.
pub(super) struct SegmentMut<'a, K, V> {
    blocks: &'a mut Layered<Block<K, V>>,
    index: usize,
}

impl<'a, K: Pod, V: Pod> SegmentMut<'a, K, V> {
    #[inline(always)]
    pub(super) fn new(blocks: &'a mut Layered<Block<K, V>>, index: usize) -> Self {
        Self { blocks, index }
    }

    /// A segment that does not belong to a table yet, without entries.
    pub(super) fn alone() -> Alone<K, V> {
        Alone(Layered::new(Block::<K, V>::PER_SEGMENT))
    }

    #[inline(always)]
    fn group(self, group: usize) -> Option<&'a mut Group<K, V>> {
        let (block, group) = Block::<K, V>::containing(self.index, group);
        self.blocks.block_mut(block)?.0.get_mut(group)
    }

    /// The value at `place`.
    #[inline(always)]
    pub(super) fn value(self, place: Place) -> Option<&'a mut V> {
        self.group(place.group).map(|group| &mut group.slots[place.lane].value)
    }

    /// Puts an entry into a free slot on its probe path.
    #[inline(always)]
    pub(super) fn occupy(self, place: Place, hash: u64, slot: Slot<K, V>) {
        let Self { blocks, index } = self;
        for_each_passed(blocks, index, hash, place, |passed| *passed += 1);
        let (block, group) = Block::<K, V>::containing(index, place.group);
        let block = blocks.block_or_insert(block, Block::empty);
        if let Some(group) = block.and_then(|block| block.0.get_mut(group)) {
            group.set_tag(place.lane, tag(hash));
            group.slots[place.lane] = slot;
        }
    }

    /// Frees a taken slot. Leaves no trace of the entry.
    pub(super) fn vacate(self, place: Place, hash: u64) {
        let Self { blocks, index } = self;
        for_each_passed(blocks, index, hash, place, |passed| *passed = passed.saturating_sub(1));
        if let Some(group) = SegmentMut::new(blocks, index).group(place.group) {
            group.set_tag(place.lane, 0);
            group.slots[place.lane] = Slot { key: K::ZERO, value: V::ZERO };
        }
    }
}

/// A segment that becomes part of a table when it is complete.
pub(super) struct Alone<K, V>(Layered<Block<K, V>>);

impl<K: Pod, V: Pod> Alone<K, V> {
    #[inline(always)]
    pub(super) fn as_ref(&self) -> Segment<'_, K, V, Layered<Block<K, V>>> {
        Segment::new(&self.0, 0)
    }

    #[inline(always)]
    pub(super) fn as_mut(&mut self) -> SegmentMut<'_, K, V> {
        SegmentMut::new(&mut self.0, 0)
    }

    /// Makes it segment `index` of a table, which has none there.
    pub(super) fn join(mut self, blocks: &mut Layered<Block<K, V>>, index: usize) {
        for number in 0..Block::<K, V>::PER_SEGMENT {
            if let Some(block) = self.0.take(number) {
                blocks.put(index * Block::<K, V>::PER_SEGMENT + number, block);
            }
        }
    }
}

/// Calls `f` for the counter of every group between an entry's home and its place.
#[inline(always)]
fn for_each_passed<K: Pod, V: Pod>(
    blocks: &mut Layered<Block<K, V>>,
    segment: usize,
    hash: u64,
    place: Place,
    f: impl Fn(&mut u16),
) {
    let mut index = home(hash);
    while index != place.group {
        // A group that has never been written, but is passed: an adopted entry may be in any slot.
        let (block, group) = Block::<K, V>::containing(segment, index);
        if let Some(group) = blocks.block_or_insert(block, Block::empty).and_then(|block| block.0.get_mut(group)) {
            f(&mut group.passed);
        }
        index = (index + 1) & GROUP_MASK;
    }
}

/// Bytes of a segment in memory.
#[cfg(test)]
pub(super) const fn segment_bytes<K, V>() -> usize {
    size_of::<[Group<K, V>; SEGMENT_GROUPS]>()
}
