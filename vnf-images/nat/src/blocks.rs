//! Blocks of exterior ports: a subscriber is lent ports by the block, so that the log need not tell of each (RFC 6888 R14).
//!
//! A block belongs to one host, whose endpoints get their ports from it. Without any port in use it stays the host's for
//! a while, so that nobody else gets traffic that was meant for it (RFC 6888 R8); then it is released.

use crate::ports::{PortRange, PortSet};
use core::net::Ipv4Addr;

/// The most blocks of a host.
pub const BLOCKS_PER_HOST_MAX: usize = 8;

/// The most ports of a block.
pub const BLOCK_SIZE_MAX: u16 = 4096;

slim_core::pod! {
    /// Which block.
    #[derive(PartialOrd, Ord)]
    pub struct BlockKey {
        /// The exterior address.
        pub address: u32,
        /// Its number among the blocks of the address.
        pub number: u16,
    }
}

slim_core::pod! {
    /// A block that is lent.
    pub struct Block {
        /// The host it is lent to.
        pub host: u32,
        /// How many of its ports are in use, over all protocols.
        pub ports: u32,
        /// Since when none is.
        pub idle_since: u32,
    }
}

impl BlockKey {
    pub(crate) const fn new(address: Ipv4Addr, number: u16) -> Self {
        Self { address: address.to_bits(), number }
    }
}

/// How the ports are cut into blocks, and which of those are free at each address: an index over the blocks lent.
#[derive(Debug, Clone)]
pub struct BlockIndex {
    size: u16,
    per_host_max: usize,
    ports: PortRange,
    /// Of each exterior address; what is counted are blocks, not ports.
    free: Box<[PortSet]>,
    used: usize,
}

impl BlockIndex {
    /// Cuts `ports` into blocks of `size` at each of so many addresses. `None` if there are not enough for one.
    pub fn new(ports: PortRange, size: u16, per_host_max: usize, addresses: usize) -> Option<Self> {
        let count = ports.len().checked_div(size.into()).filter(|count| *count > 0)?;
        let numbers = PortRange { first: 0, last: (count - 1) as u16 };
        Some(Self { size, per_host_max, ports, free: vec![PortSet::new(numbers); addresses].into(), used: 0 })
    }

    /// The most blocks of a host.
    pub fn per_host_max(&self) -> usize {
        self.per_host_max
    }

    /// Blocks of all addresses.
    pub fn capacity(&self) -> usize {
        self.free.iter().map(|set| set.range().len() as usize).sum()
    }

    /// Blocks lent.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The number of the block that has `port`; a few ports may be in none.
    pub fn of_port(&self, port: u16) -> Option<u16> {
        let number = port.checked_sub(self.ports.first)?.checked_div(self.size)?;
        self.free.first()?.range().contains(number).then_some(number)
    }

    /// The ports of a block.
    pub fn ports_of(&self, number: u16) -> PortRange {
        let first = u32::from(self.ports.first) + u32::from(number) * u32::from(self.size);
        let last = first + u32::from(self.size) - 1;
        PortRange { first: first.min(u16::MAX.into()) as u16, last: last.min(u16::MAX.into()) as u16 }
    }

    /// How many blocks of an address are free.
    pub fn free(&self, address: usize) -> u32 {
        self.free.get(address).map_or(0, PortSet::free)
    }

    /// A free block of an address, the same for the same `random`; it stays free.
    pub fn pick(&self, address: usize, random: u64) -> Option<u16> {
        self.free.get(address)?.pick(PortRange::ALL, None, random)
    }

    /// Takes a block. False, and nothing changes, if it is not free.
    pub fn take(&mut self, address: usize, number: u16) -> bool {
        let taken = self.free.get_mut(address).is_some_and(|set| set.take(number));
        self.used += usize::from(taken);
        taken
    }

    /// Frees a block. False, and nothing changes, if it is free already.
    pub fn release(&mut self, address: usize, number: u16) -> bool {
        let released = self.free.get_mut(address).is_some_and(|set| set.release(number));
        self.used -= usize::from(released);
        released
    }

    /// Frees all blocks.
    pub fn clear(&mut self) {
        self.free.iter_mut().for_each(PortSet::clear);
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_from_the_first_port_on() {
        let ports = PortRange { first: 1000, last: 1034 };
        let mut index = BlockIndex::new(ports, 16, 2, 3).unwrap();
        assert_eq!((index.capacity(), index.of_port(999), index.of_port(1000)), (6, None, Some(0)));
        assert_eq!((index.of_port(1016), index.of_port(1031), index.of_port(1032)), (Some(1), Some(1), None));
        assert_eq!(index.ports_of(1), PortRange { first: 1016, last: 1031 });
        assert!(index.take(2, 1) && !index.take(2, 1) && !index.take(3, 0) && !index.take(0, 2));
        assert_eq!((index.free(2), index.free(0), index.pick(2, u64::MAX), index.used()), (1, 2, Some(0), 1));
        assert!(index.release(2, 1) && !index.release(2, 1));
        assert!(BlockIndex::new(ports, 36, 2, 3).is_none());
        let all = BlockIndex::new(PortRange { first: 1, last: u16::MAX }, 1, 1, 1).unwrap();
        assert_eq!((all.of_port(u16::MAX), all.ports_of(65_534).last), (Some(65_534), u16::MAX));
    }
}
