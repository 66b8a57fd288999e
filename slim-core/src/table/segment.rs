//! One segment of a [`SegmentedTable`](super::SegmentedTable): 512 slots, hashed among themselves.
//!
//! ```text
//! segment   64 groups
//! group     tags  8 bytes, one per slot: 0 = free, 0x80 | 7 bits of the hash = taken
//!           passed  how many entries probed past this group because it was full
//!           slots  8 × (key, value)
//! ```
//!
//! An entry lives in its home group or, where that was full, in the next group with a free slot. A lookup goes on to
//! the next group only while `passed` is not zero, so deletion needs neither tombstones nor rehashing, and an entry
//! never moves: a slot's number is a stable place for a sweep to return to.

use super::pod::Pod;
use alloc::sync::Arc;

/// Slots of a group; its tags are compared in one word.
const GROUP_SLOTS: usize = 8;

/// Groups of a segment.
const SEGMENT_GROUPS: usize = 64;

/// Slots of a segment.
pub(super) const SEGMENT_SLOTS: usize = GROUP_SLOTS * SEGMENT_GROUPS;

/// A group's number, modulo the segment's size.
const GROUP_MASK: usize = SEGMENT_GROUPS - 1;

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

/// The groups of a segment, shared with the snapshots that still need them.
pub(super) struct Segment<K, V>(Arc<[Group<K, V>]>);

impl<K, V> Clone for Segment<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Pod, V: Pod> Segment<K, V> {
    /// A segment without entries.
    pub(super) fn empty() -> Self {
        Self(core::iter::repeat_n(Group::EMPTY, SEGMENT_GROUPS).collect())
    }

    /// Where `key` is, and its slot.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, key: &K) -> Option<(Place, &Slot<K, V>)> {
        let tag = tag(hash);
        let mut index = home(hash);
        for _ in 0..SEGMENT_GROUPS {
            let group = self.0.get(index)?;
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

    /// Where an entry with this hash would go, or `None` if every slot is taken.
    pub(super) fn find_free(&self, hash: u64) -> Option<Place> {
        let home = home(hash);
        (0..SEGMENT_GROUPS).find_map(|distance| {
            let group = (home + distance) & GROUP_MASK;
            let lane = self.0.get(group)?.free_lane()?;
            Some(Place { group, lane })
        })
    }

    /// The value at `place`, copying the segment first if a snapshot shares it.
    #[inline(always)]
    pub(super) fn value_mut(&mut self, place: Place) -> Option<&mut V> {
        let group = Arc::make_mut(&mut self.0).get_mut(place.group)?;
        Some(&mut group.slots[place.lane].value)
    }

    /// Puts an entry into a free slot on its probe path, copying the segment first if a snapshot shares it.
    pub(super) fn occupy(&mut self, place: Place, hash: u64, slot: Slot<K, V>) {
        let groups = Arc::make_mut(&mut self.0);
        for_each_passed(groups, hash, place, |passed| *passed += 1);
        if let Some(group) = groups.get_mut(place.group) {
            group.set_tag(place.lane, tag(hash));
            group.slots[place.lane] = slot;
        }
    }

    /// Frees a taken slot, copying the segment first if a snapshot shares it. Leaves no trace of the entry.
    pub(super) fn vacate(&mut self, place: Place, hash: u64) {
        let groups = Arc::make_mut(&mut self.0);
        for_each_passed(groups, hash, place, |passed| *passed = passed.saturating_sub(1));
        if let Some(group) = groups.get_mut(place.group) {
            group.set_tag(place.lane, 0);
            group.slots[place.lane] = Slot { key: K::ZERO, value: V::ZERO };
        }
    }

    /// The taken slots with their numbers, from slot `first` on, in ascending order.
    pub(super) fn entries_from(&self, first: usize) -> impl Iterator<Item = (usize, &Slot<K, V>)> {
        self.0.iter().enumerate().skip(first / GROUP_SLOTS).flat_map(move |(index, group)| {
            let mut taken = group.tags & HIGH_BITS;
            core::iter::from_fn(move || {
                let lane = (taken != 0).then(|| lane_of(taken))?;
                taken &= taken - 1;
                Some((Place { group: index, lane }.number(), &group.slots[lane]))
            })
            .skip_while(move |(number, _)| *number < first)
        })
    }

    /// Whether snapshots share this segment.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Panics unless `passed` says how many entries were displaced past each group.
    #[cfg(test)]
    pub(super) fn assert_consistent(&self, hash_of: impl Fn(&K) -> u64) {
        let mut expected = Self::empty();
        for (number, slot) in self.entries_from(0) {
            let found = self.find(hash_of(&slot.key), &slot.key).map(|(place, _)| place);
            assert_eq!(found, Some(Place::from_number(number)));
            expected.occupy(Place::from_number(number), hash_of(&slot.key), *slot);
        }
        for (have, want) in self.0.iter().zip(expected.0.iter()) {
            assert_eq!((have.tags, have.passed), (want.tags, want.passed));
        }
    }
}

/// Calls `f` for the counter of every group between an entry's home and its place.
#[inline(always)]
fn for_each_passed<K, V>(groups: &mut [Group<K, V>], hash: u64, place: Place, f: impl Fn(&mut u16)) {
    let mut index = home(hash);
    while index != place.group {
        if let Some(group) = groups.get_mut(index) {
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
