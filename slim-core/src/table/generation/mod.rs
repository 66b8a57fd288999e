//! The paper's isolated snapshots (§VI-B): two values per entry, told apart by generations.
//!
//! What differs from the paper: which of the two values is written, see `rule.rs`; entries lie in a slab of atomic
//! words that a snapshot reads without locks; and a second freeze while the first snapshot exists copies the table,
//! for two values per entry can only serve one snapshot at a time.

mod chunk;
mod rule;
#[cfg(test)]
mod tests;

use super::archive;
use super::hash::Digest;
use super::pod::{Pod, mix_layout, name_layout};
use super::segmented::SegmentedTable;
use super::state::{AdoptError, ArchiveError, FrozenItem, ItemHeader, StateItem};
use super::{FrozenTable, Full, ScanCursor, Table};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use chunk::{CHUNK_ENTRIES, Chunk};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};
use rkyv::util::AlignedVec;

/// How many deleted entries are cleaned up with each change, once the table is not frozen any more.
const COLLECTED_PER_CHANGE: usize = 2;

/// Marks, in the index, an entry that waits for its clean-up.
const QUEUED: u32 = 1 << 31;

/// Hash table with isolated snapshots by generations.
///
/// Each entry has room for two values. While a snapshot exists, new values go to the one it does not see, and deleted
/// entries stay, as null, until it is gone. A freeze takes constant time and copies nothing later; in return every
/// entry takes twice the room and every read compares generations.
///
/// Source: §VI-B, corrected as described at `rule.rs`.
pub struct GenerationTable<K, V> {
    name: &'static str,
    capacity: usize,
    len: usize,
    /// Where each key's entry is, deleted ones included, and whether it is [`QUEUED`].
    index: SegmentedTable<K, u32>,
    chunks: Arc<Vec<Arc<Chunk<K, V>>>>,
    /// Entries that have been used and are free again.
    free: Vec<u32>,
    /// Entries that have never been used start here.
    unused: u32,
    /// The paper's t, from 1.
    generation: u64,
    /// While frozen: whether the snapshot has been dropped.
    snapshot_dropped: Option<Arc<AtomicBool>>,
    /// Entries deleted while frozen, each once.
    to_collect: VecDeque<u32>,
    /// While adopting: the entries the header promised.
    promised: Option<u64>,
}

/// The content of a [`GenerationTable`] at the time of a freeze.
pub struct FrozenGenerationTable<K, V> {
    name: &'static str,
    header: ItemHeader,
    generation: u64,
    chunks: Arc<Vec<Arc<Chunk<K, V>>>>,
    /// Tells the table that it is not frozen any more; absent if this is a copy.
    dropped: Option<Arc<AtomicBool>>,
}

impl<K, V> Drop for FrozenGenerationTable<K, V> {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.store(true, Release);
        }
    }
}

impl<K: Pod, V: Pod> GenerationTable<K, V> {
    const LAYOUT: u64 = {
        let layout = mix_layout(name_layout("generations 1"), CHUNK_ENTRIES as u64);
        mix_layout(mix_layout(layout, K::LAYOUT), V::LAYOUT)
    };

    /// The most entries the slab can need: while frozen, a full table can be replaced by another.
    const fn entries_max(capacity: usize) -> usize {
        2 * capacity
    }

    fn chunk_of(&self, entry: u32) -> Option<(&Chunk<K, V>, usize)> {
        let entry = entry as usize;
        self.chunks.get(entry / CHUNK_ENTRIES).map(|chunk| (&**chunk, entry % CHUNK_ENTRIES))
    }

    fn live(&self, entry: u32) -> Option<V> {
        let (chunk, entry) = self.chunk_of(entry)?;
        chunk.live(entry)
    }

    /// The paper's m.
    fn write_generation(&self) -> u64 {
        self.generation + u64::from(self.snapshot_dropped.is_some())
    }

    /// The unfreeze, if it is due: one step, made by the writer between two changes. Cleans up a little.
    fn settle(&mut self) {
        if self.snapshot_dropped.as_ref().is_some_and(|dropped| dropped.load(Acquire)) {
            self.snapshot_dropped = None;
            self.generation += 1;
        }
        if self.snapshot_dropped.is_none() {
            for _ in 0..COLLECTED_PER_CHANGE {
                let Some(entry) = self.to_collect.pop_front() else { break };
                if self.live(entry).is_none() {
                    self.release(entry);
                } else if let Some((chunk, position)) = self.chunk_of(entry) {
                    let key = chunk.key(position);
                    self.set_queued(&key, false);
                }
            }
        }
    }

    fn set_queued(&mut self, key: &K, queued: bool) {
        if let Some(entry) = self.index.get_mut(key) {
            *entry = *entry & !QUEUED | if queued { QUEUED } else { 0 };
        }
    }

    /// Gives back an entry whose value no snapshot sees.
    fn release(&mut self, entry: u32) {
        let Some((chunk, position)) = self.chunk_of(entry) else { return };
        let key = chunk.key(position);
        chunk.clear(position);
        self.index.remove(&key);
        self.free.push(entry);
    }

    /// A free entry.
    fn allocate(&mut self) -> Result<u32, Full> {
        if let Some(entry) = self.free.pop() {
            return Ok(entry);
        }
        let entry = self.unused;
        if entry as usize >= Self::entries_max(self.capacity) {
            return Err(Full);
        }
        if entry as usize / CHUNK_ENTRIES >= self.chunks.len() {
            Arc::make_mut(&mut self.chunks).push(Arc::new(Chunk::new()));
        }
        self.unused += 1;
        Ok(entry)
    }

    fn put(&mut self, entry: u32, value: Option<&V>) {
        let m = self.write_generation();
        if let Some((chunk, entry)) = self.chunk_of(entry) {
            chunk.put(entry, value, m);
        }
    }

    fn header(&self) -> ItemHeader {
        ItemHeader {
            segments: Self::entries_max(self.capacity).div_ceil(CHUNK_ENTRIES) as u32,
            entries: self.len as u64,
            capacity: self.capacity as u64,
            hash_seed: 0,
            layout: Self::LAYOUT,
        }
    }
}

impl<K: Pod, V: Pod> Table<K, V> for GenerationTable<K, V> {
    type Frozen = FrozenGenerationTable<K, V>;

    fn with_capacity(name: &'static str, capacity: usize, seed: u64) -> Self {
        const { assert!(size_of::<K>() + size_of::<V>() <= 2000, "key and value are too long") };
        let capacity = capacity.clamp(1, 1 << 30);
        Self {
            name,
            capacity,
            len: 0,
            index: SegmentedTable::with_capacity(name, Self::entries_max(capacity), seed),
            chunks: Arc::new(Vec::new()),
            free: Vec::new(),
            unused: 0,
            generation: 1,
            snapshot_dropped: None,
            to_collect: VecDeque::new(),
            promised: None,
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn get(&self, key: &K) -> Option<V> {
        self.live(self.index.get(key)? & !QUEUED)
    }

    fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full> {
        self.settle();
        let known = self.index.get(&key).map(|entry| entry & !QUEUED);
        let old = known.and_then(|entry| self.live(entry));
        if old.is_none() && self.len >= self.capacity {
            return Err(Full);
        }
        let entry = match known {
            Some(entry) => entry,
            None => {
                let entry = self.allocate()?;
                if self.index.insert(key, entry).is_err() {
                    self.free.push(entry);
                    return Err(Full);
                }
                if let Some((chunk, position)) = self.chunk_of(entry) {
                    chunk.set_key(position, &key);
                }
                entry
            }
        };
        self.put(entry, Some(&value));
        self.len += usize::from(old.is_none());
        Ok(old)
    }

    fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.settle();
        let entry = self.index.get(key)? & !QUEUED;
        let mut value = self.live(entry)?;
        let result = change(&mut value);
        self.put(entry, Some(&value));
        Some(result)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.settle();
        let indexed = *self.index.get(key)?;
        let (entry, queued) = (indexed & !QUEUED, indexed & QUEUED != 0);
        let value = self.live(entry)?;
        self.len -= 1;
        let (chunk, position) = self.chunk_of(entry)?;
        let frozen = self.snapshot_dropped.is_some();
        let seen_by_snapshot = frozen && chunk.frozen(position, self.generation).is_some();
        if !seen_by_snapshot && !queued {
            self.release(entry);
            return Some(value);
        }
        self.put(entry, None);
        if !queued {
            self.set_queued(key, true);
            self.to_collect.push_back(entry);
        }
        Some(value)
    }

    fn scan(
        &self,
        cursor: &mut ScanCursor,
        slots: &mut usize,
        mut wanted: impl FnMut(&K, &V) -> bool,
    ) -> Option<(K, V)> {
        while *slots > 0 && cursor.0 < self.unused as usize {
            let (chunk, entry) = self.chunk_of(cursor.0 as u32)?;
            *slots -= 1;
            cursor.0 += 1;
            if let Some(value) = chunk.live(entry) {
                let key = chunk.key(entry);
                if wanted(&key, &value) {
                    return Some((key, value));
                }
            }
        }
        if cursor.0 >= self.unused as usize {
            cursor.0 = 0;
        }
        None
    }

    fn freeze_table(&mut self) -> Self::Frozen {
        self.settle();
        let (name, header) = (self.name, self.header());
        if self.snapshot_dropped.is_some() {
            let chunks = self.chunks.iter().map(|chunk| Arc::new(chunk.copy())).collect();
            return FrozenGenerationTable {
                name,
                header,
                generation: u64::MAX,
                chunks: Arc::new(chunks),
                dropped: None,
            };
        }
        let dropped = Arc::new(AtomicBool::new(false));
        self.snapshot_dropped = Some(Arc::clone(&dropped));
        FrozenGenerationTable {
            name,
            header,
            generation: self.generation,
            chunks: Arc::clone(&self.chunks),
            dropped: Some(dropped),
        }
    }
}

impl<K: Pod, V: Pod> StateItem for GenerationTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn freeze(&mut self) -> Box<dyn FrozenItem> {
        Box::new(self.freeze_table())
    }

    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError> {
        header.expect_shape(&self.header())?;
        if header.hash_seed != 0 {
            return Err(AdoptError::Header("it has a hash seed where none is needed"));
        }
        // A snapshot may still read the old chunks, in their generations: they are left to it.
        self.index.clear();
        self.chunks = Arc::new(Vec::new());
        self.free.clear();
        self.to_collect.clear();
        self.snapshot_dropped = None;
        (self.len, self.unused, self.generation) = (0, 0, 1);
        self.promised = Some(header.entries);
        Ok(())
    }

    /// As an index over keys does not travel, it is rebuilt entry by entry; the entries themselves keep their place.
    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        let promised = self.promised.ok_or(AdoptError::Segment(index))?;
        let position = index as usize;
        if index >= self.header().segments {
            return Err(AdoptError::Segment(index));
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.len() <= position {
            chunks.resize_with(position + 1, || Arc::new(Chunk::new()));
        }
        let chunk = chunks.get(position).ok_or(AdoptError::Segment(index))?;
        if (0..CHUNK_ENTRIES).any(|entry| chunk.live(entry).is_some()) {
            return Err(AdoptError::Segment(index));
        }
        let (keys, generation) = (&mut self.index, self.generation);
        let entries_max = Self::entries_max(self.capacity);
        let added = archive::read::<K, V>(index, CHUNK_ENTRIES, archive, |entry, key, value| {
            let number = position * CHUNK_ENTRIES + entry;
            let known = keys.insert(key, number as u32).map_err(|_| AdoptError::Inconsistent(index))?;
            if number >= entries_max || known.is_some() {
                return Err(AdoptError::Inconsistent(index));
            }
            chunk.set_key(entry, &key);
            chunk.put(entry, Some(&value), generation);
            Ok(())
        })?;
        self.len += added;
        let have = self.len as u64;
        if have > promised { Err(AdoptError::Incomplete { have, want: promised }) } else { Ok(()) }
    }

    fn finish_adopt(&mut self) -> Result<(), AdoptError> {
        let want = self.promised.take().ok_or(AdoptError::Header("none has arrived"))?;
        let have = self.len as u64;
        if have != want {
            return Err(AdoptError::Incomplete { have, want });
        }
        let used = (self.chunks.len() * CHUNK_ENTRIES).min(Self::entries_max(self.capacity));
        self.unused = used as u32;
        self.free = (0..self.unused).rev().filter(|entry| self.live(*entry).is_none()).collect();
        Ok(())
    }
}

impl<K: Pod, V: Pod> FrozenGenerationTable<K, V> {
    /// The entries of one chunk with their positions in it.
    fn entries(&self, chunk: usize) -> impl Iterator<Item = (usize, K, V)> {
        self.chunks.get(chunk).into_iter().flat_map(|chunk| {
            (0..CHUNK_ENTRIES).filter_map(|entry| {
                let value = chunk.frozen(entry, self.generation)?;
                Some((entry, chunk.key(entry), value))
            })
        })
    }
}

impl<K: Pod, V: Pod> FrozenTable<K, V> for FrozenGenerationTable<K, V> {
    /// Searches all entries: the index belongs to the table, which goes on changing it.
    fn get(&self, key: &K) -> Option<V> {
        let all = (0..self.chunks.len()).flat_map(|chunk| self.entries(chunk));
        all.into_iter().find_map(|(_, candidate, value)| (candidate == *key).then_some(value))
    }

    fn for_each(&self, f: &mut dyn FnMut(&K, &V)) {
        for chunk in 0..self.chunks.len() {
            self.entries(chunk).for_each(|(_, key, value)| f(&key, &value));
        }
    }
}

impl<K: Pod, V: Pod> FrozenItem for FrozenGenerationTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn header(&self) -> ItemHeader {
        self.header
    }

    fn capacity_bytes(&self) -> u64 {
        // Two values per entry, their generations, and the entry's place in the index.
        self.header.capacity * (size_of::<K>() + 2 * size_of::<V>() + 32) as u64
    }

    fn archive_segment(&self, index: u32) -> Result<Option<AlignedVec>, ArchiveError> {
        archive::write(CHUNK_ENTRIES, self.entries(index as usize))
    }

    fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        self.for_each(&mut |key, value| digest.add(key, value));
        digest.finish(self.name)
    }
}
