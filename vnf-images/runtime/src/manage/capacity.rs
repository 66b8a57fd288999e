//! What an instance has room for, so that a migration that will not fit is refused before it begins.

use crate::config::Limits;
use slim_core::nf::{NetworkFunction, Shard};
use slim_core::protocol::control::{CAPACITY_MEMORY_AVAILABLE, CAPACITY_MEMORY_NEEDED, CAPACITY_TABLE, Counters};
use slim_core::snapshot;

/// The bounds of queues and tables, the memory they take when full, and the memory there is.
pub fn capacity<F: NetworkFunction>(config: &F::Config, limits: &Limits, shards: u16) -> Counters {
    let queues = [
        ("pkt_q_bytes", limits.pkt_q_bytes as u64),
        ("st_q_out_bytes", limits.st_q_out_bytes as u64),
        ("st_q_in_bytes", limits.st_q_in_bytes as u64),
    ];
    let mut capacity: Counters = queues.map(|(name, bytes)| (name.to_string(), bytes)).into();
    // What a destination fills: `st_q_out` is the source's.
    let mut needed = limits.pkt_q_bytes as u64 + limits.st_q_in_bytes as u64;
    // The configuration was checked at the start.
    if let Ok(mut empty) = F::new(config, Shard::ONLY, 0) {
        for item in snapshot::freeze(&mut empty) {
            capacity.insert(format!("{CAPACITY_TABLE}{}", item.name()), item.header().capacity);
            needed += item.capacity_bytes();
        }
    }
    capacity.insert(CAPACITY_MEMORY_NEEDED.into(), needed * u64::from(shards));
    if let Some(available) = memory_available() {
        capacity.insert(CAPACITY_MEMORY_AVAILABLE.into(), available);
    }
    capacity
}

/// The memory that can be had without swapping, if the kernel tells.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_much_memory_there_is() {
        assert!(memory_available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
