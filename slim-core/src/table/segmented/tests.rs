//! What only the segmented table does.

use super::*;
use proptest::prelude::*;

fn table_with(capacity: usize, entries: u32) -> SegmentedTable<u32, u64> {
    let mut table = SegmentedTable::with_capacity("t", capacity, 3);
    (0..entries).for_each(|key| assert_eq!(table.insert(key, u64::from(key)), Ok(None)));
    table
}

fn assert_consistent(table: &SegmentedTable<u32, u64>) {
    for index in 0..table.segments {
        table.segment(index).assert_consistent(|key| table.hash_key.hash(key));
    }
}

#[test]
fn empty_table_takes_no_memory_for_entries() {
    let mut table = SegmentedTable::<u32, u64>::with_capacity("t", 1 << 20, 3);
    assert_eq!(table.unshared_blocks(), 0);
    table.insert(1, 1).unwrap();
    assert_eq!(table.unshared_blocks(), 1);
}

#[test]
fn only_writing_copies_blocks_and_only_once() {
    let mut table = table_with(20_000, 15_000);
    let all = table.unshared_blocks();
    let frozen = table.freeze_table();
    assert!(table.contains(&1) && table.get(&2).is_some());
    assert_eq!((table.remove(&99_999), table.get_mut(&99_999)), (None, None));
    assert_eq!(table.unshared_blocks(), 0);
    *table.get_mut(&1).unwrap() = 5;
    table.insert(1, 6).unwrap();
    assert_eq!(table.unshared_blocks(), 1);
    drop(frozen);
    assert_eq!(table.unshared_blocks(), all);
}

#[test]
fn writing_copies_nothing_while_not_frozen() {
    let mut table = table_with(1000, 1000);
    let address = |table: &SegmentedTable<u32, u64>| core::ptr::from_ref(table.get(&1).unwrap());
    let before = address(&table);
    *table.get_mut(&1).unwrap() = 9;
    assert_eq!(address(&table), before);
    let frozen = table.freeze_table();
    *table.get_mut(&1).unwrap() = 10;
    assert_ne!(address(&table), before);
    assert_eq!(frozen.get(&1), Some(9));
}

#[test]
fn overfull_segment_refuses_and_changes_nothing() {
    // A table whose one segment is smaller than its capacity, which no constructor makes.
    let mut table = table_with(SINGLE_SEGMENT_ENTRIES, 0);
    table.capacity = 2 * SEGMENT_SLOTS;
    for key in 0..SEGMENT_SLOTS as u32 {
        table.insert(key, 0).unwrap();
    }
    let before = table.freeze().digest();
    assert_eq!(table.insert(u32::MAX, 0), Err(Full));
    assert_eq!(table.freeze().digest(), before);
    assert_eq!(table.len(), SEGMENT_SLOTS);
    assert_consistent(&table);
    assert_eq!(table.get(&u32::MAX), None);
}

#[test]
fn full_table_of_any_size_takes_its_capacity() {
    for capacity in [1, 448, 449, 700, 705, 5_000, 100_000] {
        let table = table_with(capacity, capacity as u32);
        assert_consistent(&table);
    }
}

#[test]
fn metadata_is_less_than_two_bytes_per_slot() {
    let slots = size_of::<Slot<[u64; 2], [u64; 4]>>() * SEGMENT_SLOTS;
    let groups = crate::table::segment::segment_bytes::<[u64; 2], [u64; 4]>();
    assert!(groups - slots <= 2 * SEGMENT_SLOTS, "{} bytes", groups - slots);
}

#[test]
fn other_seed_spreads_keys_differently() {
    let places = |seed| (0..64u32).map(|key| segment_index(HashKey::new(seed).hash(&key), 64)).collect::<Vec<_>>();
    assert_ne!(places(1), places(2));
}

/// An archive of segment `index` with these entries.
fn archive_of(entries: &[(usize, u32)]) -> AlignedVec {
    archive::write(entries.len(), entries.iter().map(|(slot, key)| (*slot, *key, 0u64))).unwrap().unwrap()
}

fn adopting() -> SegmentedTable<u32, u64> {
    let mut table = table_with(5000, 0);
    let header = ItemHeader { entries: 2, ..table.header() };
    table.begin_adopt(&header).unwrap();
    table
}

#[test]
fn entry_of_another_segment_is_refused() {
    let mut table = adopting();
    let home = segment_index(HashKey::new(3).hash(&77u32), table.segments) as u32;
    let other = (home + 1) % table.segments as u32;
    let archive = archive_of(&[(0, 77)]);
    assert_eq!(table.adopt_segment(other, &archive), Err(AdoptError::Inconsistent(other)));
    assert_eq!(table.adopt_segment(home, &archive), Ok(()));
    assert_eq!(table.get(&77), Some(&0));
}

#[test]
fn key_that_occurs_twice_is_refused() {
    let mut table = adopting();
    let home = segment_index(HashKey::new(3).hash(&77u32), table.segments) as u32;
    let archive = archive_of(&[(0, 77), (300, 77)]);
    assert_eq!(table.adopt_segment(home, &archive), Err(AdoptError::Inconsistent(home)));
    assert!(table.is_empty());
}

/// Whatever slot an entry arrives in, it is found, and removing it leaves no trace.
#[test]
fn entry_is_found_in_any_slot() {
    for slot in 0..SEGMENT_SLOTS {
        let mut table = adopting();
        let home = segment_index(HashKey::new(3).hash(&77u32), table.segments) as u32;
        table.adopt_segment(home, &archive_of(&[(slot, 77)])).unwrap();
        assert_consistent(&table);
        assert_eq!(table.get(&77), Some(&0));
        assert_eq!(table.remove(&77), Some(0));
        assert_eq!(table.get(&77), None);
        assert_consistent(&table);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A small segment under much churn, where entries are displaced and groups empty and fill again.
    #[test]
    fn bookkeeping_survives_churn(seed: u64, keys in proptest::collection::vec(0u32..600, 1000..3000)) {
        let mut table = SegmentedTable::<u32, u64>::with_capacity("t", SINGLE_SEGMENT_ENTRIES, seed);
        for key in keys {
            if table.remove(&key).is_none() {
                let _ = table.insert(key, 0);
            }
        }
        assert_consistent(&table);
    }
}
