//! Times both table designs side by side: `cargo run --release -p slim-core --example table_timing`.
//!
//! Numbers of one run can be compared with each other, not with those of another machine or hour.

use slim_core::table::{FrozenTable, GenerationTable, SegmentedTable, Table};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

slim_core::pod! {
    /// As a NAT's session.
    pub struct Key {
        /// Interior address.
        pub interior: u32,
        /// Server address.
        pub server: u32,
        /// Interior port.
        pub interior_port: u16,
        /// Server port.
        pub server_port: u16,
    }
}

type Value = [u64; 4];

fn key(number: u32) -> Key {
    Key { interior: number, server: !number, interior_port: number as u16, server_port: 80 }
}

/// Visits 0 to `n` in an order that caches cannot guess.
fn shuffled(n: u32) -> impl Iterator<Item = u32> {
    // A step of about n divided by the golden ratio, made prime to n.
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = (f64::from(n) * 0.618) as u32 | 1;
    while gcd(step, n) != 1 {
        step += 2;
    }
    (0..n).map(move |i| (u64::from(i) * u64::from(step) % u64::from(n)) as u32)
}

/// Nanoseconds per operation: the median over batches so short that few are interrupted by other programs.
fn median_ns(numbers: impl Iterator<Item = u32>, mut operation: impl FnMut(u32)) -> f64 {
    const BATCH: usize = 1000;
    let mut numbers = numbers.peekable();
    let mut batches = Vec::new();
    while numbers.peek().is_some() {
        let begin = Instant::now();
        let done = numbers.by_ref().take(BATCH).map(&mut operation).count();
        batches.push(begin.elapsed().as_nanos() as f64 / done as f64);
    }
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

/// The best of several runs.
fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..5).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn time<T: Table<Key, Value>>(design: &str, entries: u32) {
    let begin = Instant::now();
    let mut table = T::with_capacity("table", entries as usize, 0x1234_5678_9abc_def0);
    let create = begin.elapsed();
    let insert = median_ns(0..entries, |number| {
        table.insert(key(number), [u64::from(number); 4]).expect("there is room");
    });
    let hit = best(|| median_ns(shuffled(entries), |number| assert!(black_box(table.get(&key(number))).is_some())));
    let miss =
        best(|| median_ns(shuffled(entries), |number| assert!(black_box(table.get(&key(number + entries))).is_none())));
    let update = best(|| {
        median_ns(shuffled(entries), |number| assert!(table.update(&key(number), |value| value[0] += 1).is_some()))
    });
    let mut freezes: Vec<_> = (0..101)
        .map(|number| {
            // A write between two freezes, or the second would find everything shared already.
            table.update(&key(number), |value| value[0] += 1);
            let begin = Instant::now();
            let frozen = table.freeze_table();
            let freeze = begin.elapsed();
            drop(frozen);
            freeze
        })
        .collect();
    freezes.sort();
    let frozen = table.freeze_table();
    let mut updates = Vec::new();
    for number in shuffled(entries) {
        let begin = Instant::now();
        table.update(&key(number), |value| value[0] += 1);
        updates.push(begin.elapsed());
    }
    updates.sort();
    let begin = Instant::now();
    let digest = table_digest(&frozen);
    let digest_time = begin.elapsed();
    let begin = Instant::now();
    let header = frozen_header(&frozen);
    let archives: Vec<_> = (0..header.segments)
        .filter_map(|index| frozen_archive(&frozen, index).map(|archive| (index, archive)))
        .collect();
    let archive_time = begin.elapsed();
    let bytes: usize = archives.iter().map(|(_, archive)| archive.len()).sum();
    let mut adopted = T::with_capacity("table", entries as usize, 1);
    let begin = Instant::now();
    adopted.begin_adopt(&header).expect("it fits");
    for (index, archive) in &archives {
        adopted.adopt_segment(*index, archive).expect("it is valid");
    }
    adopted.finish_adopt().expect("it is complete");
    let adopt = begin.elapsed();
    let freeze_adopted = adopted.freeze_table();
    assert_eq!(table_digest(&freeze_adopted), digest);
    println!(
        "{design}/{entries}: create {create:?}, insert {insert:.0} ns, lookup_hit {hit:.0} ns, lookup_miss {miss:.0} ns,"
    );
    println!(
        "    update {update:.0} ns, freeze {:?} (longest of 101: {:?}), first update while frozen, 99th percentile {:?},",
        freezes[50],
        freezes[100],
        updates[updates.len() * 99 / 100]
    );
    println!(
        "    digest {digest_time:?}, archive {archive_time:?} ({:.1} bytes each), adopt {adopt:?}",
        bytes as f64 / f64::from(entries)
    );
}

/// The standard library's map with the standard library's SipHash, as a yardstick.
fn time_hash_map(entries: u32) {
    let tuple = |number| {
        let Key { interior, server, interior_port, server_port } = key(number);
        (interior, server, interior_port, server_port)
    };
    let mut map = HashMap::with_capacity(entries as usize);
    let insert = median_ns(0..entries, |number| {
        map.insert(tuple(number), [u64::from(number); 4]);
    });
    let hit = best(|| median_ns(shuffled(entries), |number| assert!(black_box(map.get(&tuple(number))).is_some())));
    let miss =
        best(|| median_ns(shuffled(entries), |number| assert!(black_box(map.get(&tuple(number + entries))).is_none())));
    println!("HashMap/{entries}: insert {insert:.0} ns, lookup_hit {hit:.0} ns, lookup_miss {miss:.0} ns");
}

fn table_digest<F: FrozenTable<Key, Value>>(frozen: &F) -> u128 {
    frozen.digest()
}

fn frozen_header<F: FrozenTable<Key, Value>>(frozen: &F) -> slim_core::table::ItemHeader {
    frozen.header()
}

fn frozen_archive<F: FrozenTable<Key, Value>>(frozen: &F, index: u32) -> Option<rkyv::util::AlignedVec> {
    frozen.archive_segment(index).expect("there is memory")
}

fn main() {
    for entries in [1_000, 100_000, 1_000_000] {
        time_hash_map(entries);
        time::<SegmentedTable<Key, Value>>("segmented", entries);
        time::<GenerationTable<Key, Value>>("generation", entries);
    }
}
