//! What every table must do, for both designs, and a comparison with a `HashMap` over random operations.

use super::*;
use alloc::boxed::Box;
use alloc::vec::Vec;
use proptest::prelude::*;
use std::collections::HashMap;

mod adoption;

use adoption::*;

/// Values of an odd size, so that packing matters.
type Value = [u8; 7];

fn value(number: u32) -> Value {
    let [a, b, c, d] = number.to_be_bytes();
    [a, b, c, d, 0xaa, 0xbb, 0xcc]
}

fn contents<T: FrozenTable<u32, Value>>(frozen: &T) -> HashMap<u32, Value> {
    let mut contents = HashMap::new();
    frozen.for_each(&mut |key, value| assert_eq!(contents.insert(*key, *value), None, "{key} twice"));
    contents
}

/// What a table with these keys contains.
fn contents_for(keys: impl Iterator<Item = u32>) -> HashMap<u32, Value> {
    keys.map(|key| (key, value(key))).collect()
}

fn table_with<T: Table<u32, Value>>(capacity: usize, keys: impl Iterator<Item = u32>) -> T {
    let mut table = T::with_capacity("t", capacity, 7);
    keys.for_each(|key| assert_eq!(table.insert(key, value(key)), Ok(None)));
    table
}

fn stored_value_is_found<T: Table<u32, Value>>() {
    let mut table = T::with_capacity("t", 10, 1);
    assert!(table.is_empty());
    assert_eq!(table.get(&5), None);
    assert_eq!(table.insert(5, value(1)), Ok(None));
    assert_eq!(table.insert(5, value(2)), Ok(Some(value(1))));
    assert_eq!((table.get(&5), table.len()), (Some(value(2)), 1));
    assert_eq!(table.update(&5, |value| value[6] = 9), Some(()));
    assert_eq!(table.get(&5).unwrap()[6], 9);
    assert_eq!(table.update(&6, |_| ()), None);
    assert_eq!(table.remove(&6), None);
    assert_eq!(table.remove(&5).unwrap()[6], 9);
    assert_eq!((table.get(&5), table.len()), (None, 0));
}

fn full_table_refuses_new_keys_and_changes_nothing<T: Table<u32, Value>>() {
    for capacity in [1, 2, 100, 448, 449, 1000] {
        let mut table: T = table_with(capacity, 0..capacity as u32);
        let before = table.freeze().digest();
        assert_eq!(table.insert(u32::MAX, value(0)), Err(Full));
        assert_eq!(table.freeze().digest(), before);
        assert_eq!((table.len(), table.capacity()), (capacity, capacity));
        assert_eq!(table.insert(0, value(9)), Ok(Some(value(0))));
        assert_eq!(table.remove(&0), Some(value(9)));
        assert_eq!(table.insert(u32::MAX, value(0)), Ok(None));
        assert_eq!((1..capacity as u32).find(|key| table.get(key) != Some(value(*key))), None);
    }
}

fn full_table_can_be_replaced_while_frozen<T: Table<u32, Value>>() {
    let mut table: T = table_with(1000, 0..1000);
    let frozen = table.freeze_table();
    for round in 1..4 {
        for key in 0..1000 {
            assert_eq!(table.remove(&(1000 * (round - 1) + key)), Some(value(1000 * (round - 1) + key)));
            assert_eq!(table.insert(1000 * round + key, value(1000 * round + key)), Ok(None));
        }
    }
    assert_eq!(contents(&frozen), contents_for(0..1000));
    drop(frozen);
    assert_eq!(contents(&table.freeze_table()), contents_for(3000..4000));
}

fn frozen_table_keeps_old_values<T: Table<u32, Value>>() {
    let mut table: T = table_with(10, 0..3);
    let frozen = table.freeze_table();
    table.insert(0, value(100)).unwrap();
    table.insert(0, value(101)).unwrap();
    table.update(&1, |value| value[0] = 1);
    table.remove(&2);
    table.insert(3, value(3)).unwrap();
    assert_eq!((frozen.get(&0), frozen.get(&1), frozen.get(&3)), (Some(value(0)), Some(value(1)), None));
    assert_eq!(frozen.get(&2), Some(value(2)), "removed during the freeze");
    assert_eq!((table.get(&0), table.get(&2), table.len()), (Some(value(101)), None, 3));
    assert_eq!(frozen.header().entries, 3);
}

fn table_can_be_frozen_again<T: Table<u32, Value>>() {
    let mut table: T = table_with(10, 0..2);
    for round in 1..5 {
        let frozen = table.freeze_table();
        table.insert(0, value(round)).unwrap();
        table.remove(&1);
        assert_eq!(frozen.get(&1), Some(value(1)));
        assert_eq!(frozen.get(&0), Some(value(round - 1)));
        drop(frozen);
        table.insert(1, value(1)).unwrap();
    }
    assert_eq!(contents(&table.freeze_table()), HashMap::from([(0, value(4)), (1, value(1))]));
}

fn two_snapshots_at_a_time_are_both_isolated<T: Table<u32, Value>>() {
    let mut table: T = table_with(10, 0..2);
    let first = table.freeze_table();
    table.insert(0, value(50)).unwrap();
    table.remove(&1);
    let second = table.freeze_table();
    table.insert(0, value(60)).unwrap();
    table.insert(7, value(7)).unwrap();
    assert_eq!(contents(&first), HashMap::from([(0, value(0)), (1, value(1))]));
    assert_eq!(contents(&second), HashMap::from([(0, value(50))]));
    drop(first);
    table.insert(0, value(70)).unwrap();
    assert_eq!(contents(&second), HashMap::from([(0, value(50))]));
}

fn snapshot_is_read_from_another_thread<T: Table<u32, Value>>()
where
    T::Frozen: Send + 'static,
{
    let mut table: T = table_with(5000, 0..3000);
    for round in 0..3 {
        let frozen = table.freeze_table();
        let expected = frozen.digest();
        let reader = std::thread::spawn(move || {
            let digests = (0..20).map(|_| frozen.digest()).collect::<Vec<_>>();
            (digests, contents(&frozen).len())
        });
        for step in 0..20_000u32 {
            let key = step.wrapping_mul(2_654_435_761).wrapping_add(round) % 5000;
            if step % 3 == 0 {
                table.remove(&key);
            } else {
                table.insert(key, value(step)).unwrap();
            }
        }
        let (digests, entries) = reader.join().unwrap();
        assert!(digests.iter().all(|digest| *digest == expected));
        if round == 0 {
            assert_eq!(entries, 3000);
        }
    }
}

fn sweep_sees_every_entry_once<T: Table<u32, Value>>() {
    let table: T = table_with(3000, 0..2000);
    let mut cursor = ScanCursor::default();
    let mut seen = HashMap::new();
    let mut sweeps = 0;
    // 2000 entries in steps of at most 64 slots.
    for _ in 0..10_000 {
        let mut slots = 64;
        while let Some((key, found)) = table.scan(&mut cursor, &mut slots, |_, _| true) {
            assert_eq!(seen.insert(key, found), None, "{key} twice");
        }
        if cursor == ScanCursor::default() {
            sweeps += 1;
            break;
        }
        assert_eq!(slots, 0, "the budget was not used");
    }
    assert_eq!(sweeps, 1);
    assert_eq!(seen, contents_for(0..2000));
}

fn sweep_stays_within_its_budget<T: Table<u32, Value>>() {
    let table: T = table_with(3000, 0..2000);
    let mut cursor = ScanCursor::default();
    for budget in [0, 1, 7, 100] {
        let mut looked_at = 0;
        let mut slots = budget;
        assert_eq!(
            table.scan(&mut cursor, &mut slots, |_, _| {
                looked_at += 1;
                false
            }),
            None
        );
        assert!(looked_at <= budget);
    }
}

fn sweep_may_remove_what_it_finds<T: Table<u32, Value>>() {
    let mut table: T = table_with(3000, 0..2000);
    let mut cursor = ScanCursor::default();
    let mut slots = usize::MAX;
    while let Some((key, _)) = table.scan(&mut cursor, &mut slots, |key, _| key % 2 == 0) {
        assert!(table.remove(&key).is_some());
    }
    assert_eq!(contents(&table.freeze_table()), contents_for((0..1000).map(|i| 2 * i + 1)));
}

fn digest_depends_on_name_and_entries_only<T: Table<u32, Value>>() {
    let digest = |name, seed, keys: &[u32]| {
        let mut table = T::with_capacity(name, 3000, seed);
        keys.iter().for_each(|key| {
            table.insert(*key, value(*key)).unwrap();
        });
        table.remove(&9999);
        table.freeze().digest()
    };
    let reference = digest("t", 1, &[1, 2, 3]);
    assert_eq!(digest("t", 2, &[3, 1, 2]), reference);
    assert_ne!(digest("u", 1, &[1, 2, 3]), reference);
    assert_ne!(digest("t", 1, &[1, 2]), reference);
    assert_ne!(digest("t", 1, &[1, 2, 4]), reference);
    assert_eq!(digest("t", 1, &[1, 2, 3, 9999]), reference);
}

/// An operation on a table, over so few keys that they meet often.
#[derive(Debug, Clone)]
enum Operation {
    Insert(u32, u32),
    Update(u32, u32),
    Remove(u32),
    Freeze,
    Unfreeze,
    Adopt,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let key = 0u32..24;
    prop_oneof![
        8 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Operation::Insert(key, value)),
        3 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Operation::Update(key, value)),
        6 => key.prop_map(Operation::Remove),
        1 => Just(Operation::Freeze),
        1 => Just(Operation::Unfreeze),
        1 => Just(Operation::Adopt),
    ]
}

/// Does the same to a table and a `HashMap` and compares everything that can be seen, frozen contents included.
fn behaves_like_a_map<T: Table<u32, Value>>(operations: Vec<Operation>) {
    const CAPACITY: usize = 16;
    let mut table = T::with_capacity("t", CAPACITY, 5);
    let mut model = HashMap::new();
    let mut frozen: Vec<(T::Frozen, HashMap<u32, Value>)> = Vec::new();
    for (step, operation) in operations.into_iter().enumerate() {
        match operation {
            Operation::Insert(key, number) => {
                let full = model.len() == CAPACITY && !model.contains_key(&key);
                let expected = if full { Err(Full) } else { Ok(model.insert(key, value(number))) };
                assert_eq!(table.insert(key, value(number)), expected);
            }
            Operation::Update(key, number) => {
                let expected = model.get_mut(&key).map(|found| core::mem::replace(found, value(number)));
                assert_eq!(table.update(&key, |found| core::mem::replace(found, value(number))), expected);
            }
            Operation::Remove(key) => assert_eq!(table.remove(&key), model.remove(&key)),
            Operation::Freeze if frozen.len() < 3 => frozen.push((table.freeze_table(), model.clone())),
            Operation::Freeze => {}
            Operation::Unfreeze if frozen.is_empty() => {}
            Operation::Unfreeze => drop(frozen.swap_remove(step % frozen.len())),
            Operation::Adopt => {
                let mut adopted = T::with_capacity("t", CAPACITY, step as u64);
                let snapshot = table.freeze();
                adopt(&mut adopted, &*snapshot).unwrap();
                table = adopted;
            }
        }
        assert_eq!(table.len(), model.len());
        for key in 0..24 {
            assert_eq!(table.get(&key), model.get(&key).copied(), "key {key}");
        }
        let mut swept = HashMap::new();
        let (mut cursor, mut slots) = (ScanCursor::default(), usize::MAX);
        while let Some((key, value)) = table.scan(&mut cursor, &mut slots, |_, _| true) {
            assert_eq!(swept.insert(key, value), None);
        }
        assert_eq!(swept, model);
        for (snapshot, expected) in &frozen {
            assert_eq!(&contents(snapshot), expected);
            assert!((0..24).all(|key| snapshot.get(&key) == expected.get(&key).copied()));
        }
    }
}

macro_rules! tests_for {
    ($design:ident: $table:ty) => {
        mod $design {
            use super::*;

            tests_for!(@each $table:
                stored_value_is_found
                full_table_refuses_new_keys_and_changes_nothing
                full_table_can_be_replaced_while_frozen
                frozen_table_keeps_old_values
                table_can_be_frozen_again
                two_snapshots_at_a_time_are_both_isolated
                snapshot_is_read_from_another_thread
                sweep_sees_every_entry_once
                sweep_stays_within_its_budget
                sweep_may_remove_what_it_finds
                table_travels
                frozen_table_travels_as_it_was
                digest_depends_on_name_and_entries_only
                segment_needs_a_header_first
                header_must_fit
                segment_must_be_new_and_in_range
                archive_may_lie_anywhere_in_memory
                damaged_archive_is_refused_or_harmless
                entries_must_add_up
                slots_must_ascend
            );

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(64))]

                #[test]
                fn behaves_like_a_map(operations in proptest::collection::vec(any_operation(), 0..80)) {
                    super::behaves_like_a_map::<$table>(operations);
                }
            }
        }
    };
    (@each $table:ty: $($name:ident)+) => {$(
        #[test]
        fn $name() {
            super::$name::<$table>();
        }
    )+};
}

tests_for!(segmented: SegmentedTable<u32, Value>);
tests_for!(generation: GenerationTable<u32, Value>);

#[test]
fn designs_agree_on_digests() {
    let mut segmented: SegmentedTable<u32, Value> = table_with(100, 0..50);
    let mut generation: GenerationTable<u32, Value> = table_with(100, 0..50);
    let items: [Box<dyn FrozenItem>; 2] = [segmented.freeze(), generation.freeze()];
    assert_eq!(items[0].digest(), items[1].digest());
    assert_ne!(items[0].header().layout, items[1].header().layout);
}
