//! Every short history of a table with two keys, and what only this design does.

use super::*;

/// Every sequence of 6 insertions, removals, freezes and unfreezes on two keys, compared with plain options.
#[test]
fn every_short_history_is_isolated() {
    const STEPS: u32 = 6;
    for history in 0..5u32.pow(STEPS) {
        let mut table = GenerationTable::<u8, u32>::with_capacity("t", 2, 1);
        let mut live = [None; 2];
        let mut frozen = None::<(FrozenGenerationTable<u8, u32>, _)>;
        for step in 0..STEPS {
            match history / 5u32.pow(step) % 5 {
                operation @ 0..=1 => {
                    let key = operation as u8;
                    assert_eq!(table.insert(key, step), Ok(live[usize::from(key)].replace(step)), "{history}");
                }
                operation @ 2..=3 => {
                    let key = operation as u8 - 2;
                    assert_eq!(table.remove(&key), live[usize::from(key)].take(), "{history}");
                }
                _ => {
                    frozen = match frozen.take() {
                        Some(_) => None,
                        None => Some((table.freeze_table(), live)),
                    }
                }
            }
            assert_eq!([table.get(&0), table.get(&1)], live, "history {history}");
            assert_eq!(table.len(), live.iter().flatten().count(), "history {history}");
            if let Some((snapshot, expected)) = &frozen {
                assert_eq!([snapshot.get(&0), snapshot.get(&1)], *expected, "history {history}");
            }
        }
        // Once nobody looks any more, a few changes collect every deleted entry.
        drop(frozen);
        for _ in 0..3 {
            table.update(&0, |_| ());
        }
        assert_eq!(table.index.len(), table.len(), "history {history}");
        assert!(table.to_collect.is_empty(), "history {history}");
        assert_eq!(table.unused as usize, table.free.len() + table.len(), "history {history}");
    }
}

#[test]
fn deleted_entries_stay_until_the_snapshot_is_gone() {
    let mut table = GenerationTable::<u32, u32>::with_capacity("t", 100, 1);
    for key in 0..100 {
        table.insert(key, key).unwrap();
    }
    let frozen = table.freeze_table();
    for key in 0..100 {
        table.remove(&key);
    }
    assert_eq!((table.len(), table.index.len()), (0, 100));
    drop(frozen);
    for _ in 0..50 {
        table.remove(&0);
    }
    assert_eq!((table.index.len(), table.free.len()), (0, 100));
}

#[test]
fn entry_deleted_again_and_again_is_queued_once() {
    let mut table = GenerationTable::<u32, u32>::with_capacity("t", 100, 1);
    table.insert(1, 0).unwrap();
    let frozen = table.freeze_table();
    for round in 0..1000 {
        table.remove(&1);
        table.insert(1, round).unwrap();
    }
    assert_eq!(table.to_collect.len(), 1);
    assert_eq!(frozen.get(&1), Some(0));
    drop(frozen);
    assert_eq!(table.insert(1, 7), Ok(Some(999)));
    assert!(table.to_collect.is_empty());
    // No mark is left behind: it can be deleted for good.
    assert_eq!(table.remove(&1), Some(7));
    assert_eq!(table.index.len(), 0);
}

#[test]
fn first_snapshot_copies_nothing() {
    let mut table = GenerationTable::<u32, u32>::with_capacity("t", 100, 1);
    table.insert(1, 0).unwrap();
    let frozen = table.freeze_table();
    assert!(Arc::ptr_eq(&frozen.chunks, &table.chunks));
    let second = table.freeze_table();
    assert!(!Arc::ptr_eq(&second.chunks, &table.chunks));
}

#[test]
fn entry_beyond_the_slab_is_refused() {
    let mut table = GenerationTable::<u32, u32>::with_capacity("t", 10, 1);
    let header = ItemHeader { entries: 1, ..table.header() };
    for (slot, expected) in [(19, Ok(())), (20, Err(AdoptError::Inconsistent(0)))] {
        table.begin_adopt(&header).unwrap();
        let archive = archive::write(1, core::iter::once((slot, 1u32, 1u32))).unwrap().unwrap();
        assert_eq!(table.adopt_segment(0, &archive), expected);
    }
}

#[test]
fn key_in_two_chunks_is_refused() {
    let mut table = GenerationTable::<u32, u32>::with_capacity("t", 1000, 1);
    table.begin_adopt(&ItemHeader { entries: 2, ..table.header() }).unwrap();
    let archive = archive::write(1, core::iter::once((0, 1u32, 1u32))).unwrap().unwrap();
    assert_eq!(table.adopt_segment(1, &archive), Ok(()));
    assert_eq!(table.adopt_segment(0, &archive), Err(AdoptError::Inconsistent(0)));
}
