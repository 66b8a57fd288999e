//! A table of few, large values.

use super::Full;
use super::archive;
use super::hash::Digest;
use super::pod::{Pod, mix_layout, name_layout};
use super::state::{AdoptError, ArchiveError, FrozenItem, ItemHeader, StateItem};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use rkyv::util::AlignedVec;

/// The most entries of a [`SmallTable`]: a look-up compares all keys, a freeze counts references to all entries.
pub const SMALL_TABLE_ENTRIES_MAX: usize = 256;

/// A bounded table that is looked through from its begin, for values too large to be copied many at a time.
///
/// Each entry is reference-counted by itself. A freeze clones the references, a change replaces an entry.
#[derive(Debug)]
pub struct SmallTable<K, V> {
    name: &'static str,
    capacity: usize,
    entries: Vec<Arc<(K, V)>>,
    /// While adopting: which segments have arrived, and how many entries were promised.
    adoption: Option<(Vec<bool>, u64)>,
}

impl<K: Pod, V: Pod> SmallTable<K, V> {
    const LAYOUT: u64 = mix_layout(mix_layout(name_layout("small 1"), K::LAYOUT), V::LAYOUT);

    /// An empty table for up to `capacity` entries, 1 to [`SMALL_TABLE_ENTRIES_MAX`].
    pub fn with_capacity(name: &'static str, capacity: usize) -> Self {
        Self { name, capacity: capacity.clamp(1, SMALL_TABLE_ENTRIES_MAX), entries: Vec::new(), adoption: None }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The most entries.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn position(&self, key: &K) -> Option<usize> {
        self.entries.iter().position(|entry| entry.0 == *key)
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.iter().find(|entry| entry.0 == *key).map(|entry| &entry.1)
    }

    /// The entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|entry| (&entry.0, &entry.1))
    }

    /// Sets the value of `key`, and returns the one it had.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full> {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.0 == key) {
            let old = core::mem::replace(entry, Arc::new((key, value)));
            return Ok(Some(old.1));
        }
        if self.entries.len() >= self.capacity {
            return Err(Full);
        }
        self.entries.push(Arc::new((key, value)));
        Ok(None)
    }

    /// Removes `key`, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.position(key)?;
        Some(self.entries.swap_remove(index).1)
    }

    fn shape(&self) -> ItemHeader {
        ItemHeader {
            segments: self.capacity as u32,
            entries: self.entries.len() as u64,
            capacity: self.capacity as u64,
            hash_seed: 0,
            layout: Self::LAYOUT,
        }
    }
}

impl<K: Pod, V: Pod> StateItem for SmallTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn freeze(&mut self) -> Box<dyn FrozenItem> {
        Box::new(FrozenSmallTable { name: self.name, header: self.shape(), entries: self.entries.clone() })
    }

    fn begin_adopt(&mut self, header: &ItemHeader) -> Result<(), AdoptError> {
        header.expect_shape(&self.shape())?;
        self.entries.clear();
        self.adoption = Some((alloc::vec![false; self.capacity], header.entries));
        Ok(())
    }

    fn adopt_segment(&mut self, index: u32, archive: &[u8]) -> Result<(), AdoptError> {
        let arrived = self.adoption.as_mut().and_then(|(arrived, _)| arrived.get_mut(index as usize));
        match arrived {
            Some(arrived) if !*arrived => *arrived = true,
            Some(_) | None => return Err(AdoptError::Segment(index)),
        }
        archive::read::<K, V>(index, 1, archive, |_, key, value| {
            if self.position(&key).is_some() {
                return Err(AdoptError::Inconsistent(index));
            }
            self.entries.push(Arc::new((key, value)));
            Ok(())
        })?;
        Ok(())
    }

    fn finish_adopt(&mut self) -> Result<(), AdoptError> {
        let Some((_, want)) = self.adoption.take() else { return Err(AdoptError::Header("none has arrived")) };
        let have = self.entries.len() as u64;
        if have == want { Ok(()) } else { Err(AdoptError::Incomplete { have, want }) }
    }
}

struct FrozenSmallTable<K, V> {
    name: &'static str,
    header: ItemHeader,
    entries: Vec<Arc<(K, V)>>,
}

impl<K: Pod, V: Pod> FrozenItem for FrozenSmallTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn header(&self) -> ItemHeader {
        self.header
    }

    fn capacity_bytes(&self) -> u64 {
        self.header.capacity * size_of::<(K, V)>() as u64
    }

    fn archive_segment(&self, index: u32) -> Result<Option<AlignedVec>, ArchiveError> {
        match self.entries.get(index as usize) {
            Some(entry) => archive::write(1, core::iter::once((0, entry.0, entry.1))),
            None => Ok(None),
        }
    }

    fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        for entry in &self.entries {
            digest.add(&entry.0, &entry.1);
        }
        digest.finish(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Table = SmallTable<u32, [u8; 300]>;

    fn adopt(frozen: &dyn FrozenItem, table: &mut Table) -> Result<(), AdoptError> {
        table.begin_adopt(&frozen.header())?;
        for index in 0..frozen.header().segments {
            if let Some(archive) = frozen.archive_segment(index).unwrap() {
                table.adopt_segment(index, &archive)?;
            }
        }
        table.finish_adopt()
    }

    #[test]
    fn a_full_table_refuses_new_keys_only() {
        let mut table = Table::with_capacity("few", 2);
        assert_eq!(table.insert(1, [1; 300]), Ok(None));
        assert_eq!(table.insert(2, [2; 300]), Ok(None));
        assert_eq!(table.insert(3, [3; 300]), Err(Full));
        assert_eq!(table.insert(2, [9; 300]), Ok(Some([2; 300])));
        assert_eq!(table.remove(&1), Some([1; 300]));
        assert_eq!(table.insert(3, [3; 300]), Ok(None));
    }

    #[test]
    fn a_segment_comes_once_and_a_key_too() {
        let mut source = Table::with_capacity("few", 4);
        source.insert(1, [1; 300]).unwrap();
        source.insert(2, [2; 300]).unwrap();
        let frozen = source.freeze();
        let archives = [0, 1].map(|index| frozen.archive_segment(index).unwrap().unwrap());
        let mut table = Table::with_capacity("few", 4);
        assert_eq!(table.adopt_segment(0, &archives[0]), Err(AdoptError::Segment(0)));
        table.begin_adopt(&frozen.header()).unwrap();
        table.adopt_segment(0, &archives[0]).unwrap();
        assert_eq!(table.adopt_segment(0, &archives[0]), Err(AdoptError::Segment(0)));
        assert_eq!(table.adopt_segment(4, &archives[1]), Err(AdoptError::Segment(4)));
        assert_eq!(table.adopt_segment(1, &archives[0]), Err(AdoptError::Inconsistent(1)));
        assert_eq!(table.adopt_segment(2, &archives[1][1..]), Err(AdoptError::Archive(2)));
        assert_eq!(table.finish_adopt(), Err(AdoptError::Incomplete { have: 1, want: 2 }));
        let mut smaller = Table::with_capacity("few", 3);
        assert!(matches!(smaller.begin_adopt(&frozen.header()), Err(AdoptError::Header(_))));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_and_its_snapshot_stays(
            before in prop::collection::vec((0u32..12, any::<bool>(), any::<u8>()), 0..40),
            after in prop::collection::vec((0u32..12, any::<bool>(), any::<u8>()), 0..40),
        ) {
            let (mut table, mut model) = (Table::with_capacity("few", 8), BTreeMap::new());
            let apply = |table: &mut Table, model: &mut BTreeMap<u32, u8>, steps: &[(u32, bool, u8)]| {
                for &(key, insert, byte) in steps {
                    if !insert {
                        assert_eq!(table.remove(&key).map(|value| value[0]), model.remove(&key));
                    } else if table.insert(key, [byte; 300]).is_ok() {
                        model.insert(key, byte);
                    } else {
                        assert!(model.len() == 8 && !model.contains_key(&key));
                    }
                    assert_eq!(table.get(&key).map(|value| value[299]), model.get(&key).copied());
                    assert_eq!(table.len(), model.len());
                }
            };
            apply(&mut table, &mut model, &before);
            let (frozen, then) = (table.freeze(), model.clone());
            apply(&mut table, &mut model, &after);
            let mut restored = Table::with_capacity("few", 8);
            adopt(frozen.as_ref(), &mut restored).unwrap();
            let found: BTreeMap<u32, u8> = restored.iter().map(|(key, value)| (*key, value[0])).collect();
            prop_assert_eq!(found, then);
            prop_assert_eq!(restored.freeze().digest(), frozen.digest());
        }
    }
}
