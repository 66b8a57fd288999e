//! The border between dataplane and snapshot: the lcore goes on changing a table while the snapshot thread reads what
//! was frozen, without a lock. The snapshot is the state at the freeze, whatever the interleaving.

mod common;

use common::{finds_a_fault, holds};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// A point at which loom may switch threads, for code that has no atomics of its own to switch at.
fn switch_point(point: &AtomicUsize) {
    point.load(Ordering::SeqCst);
}

macro_rules! model {
    ($module:ident, $table:ident, $reads:expr) => {
        || {
            use slim_models::$module::{FrozenTable, Table, $table};

            let mut table = <$table<u32, u32> as Table<u32, u32>>::with_capacity("model", 3, 7);
            table.insert(1, 10).unwrap();
            table.insert(2, 20).unwrap();
            table.insert(2, 21).unwrap();
            let point = Arc::new(AtomicUsize::new(0));
            let frozen = table.freeze_table();
            let reader = thread::spawn({
                let point = Arc::clone(&point);
                move || {
                    for _ in 0..$reads {
                        switch_point(&point);
                        let mut seen = Vec::new();
                        frozen.for_each(&mut |key, value| seen.push((*key, *value)));
                        seen.sort_unstable();
                        assert_eq!(seen, [(1, 10), (2, 21)], "the snapshot is not the state at the freeze");
                    }
                    // The unfreeze.
                    drop(frozen);
                }
            });
            // Twice, because the second write after a freeze is where the printed rule of §VI-B goes wrong.
            for value in [11, 12] {
                switch_point(&point);
                table.insert(1, value).unwrap();
            }
            switch_point(&point);
            table.remove(&2);
            switch_point(&point);
            table.insert(3, 30).unwrap();
            reader.join().unwrap();
            table.insert(1, 13).unwrap();
            let second = table.freeze_table();
            let mut seen = Vec::new();
            second.for_each(&mut |key, value| seen.push((*key, *value)));
            seen.sort_unstable();
            assert_eq!(seen, [(1, 13), (3, 30)]);
        }
    };
}

#[test]
fn generations_isolate_a_snapshot() {
    holds(model!(tables, GenerationTable, 1));
}

#[test]
fn segments_isolate_a_snapshot() {
    holds(model!(tables, SegmentedTable, 2));
}

#[test]
fn writing_in_the_snapshots_generation_is_found_out() {
    finds_a_fault("the snapshot is not the state at the freeze", model!(tables_in_place, GenerationTable, 1));
}

#[test]
fn writing_into_a_shared_segment_is_found_out() {
    finds_a_fault("the snapshot is not the state at the freeze", model!(tables_shared, SegmentedTable, 2));
}
