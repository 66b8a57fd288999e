//! Exterior ports: which are free, and a random one of them in bounded time.
//!
//! A set is a bitmap with a count of free ports per group of 1024, so that "the k-th free port" is found by adding up
//! at most 64 counts and 16 words, however few are left. Every free port is equally likely (RFC 6056 §3.3.2,
//! RFC 7857 §9), chosen by a keyed pseudo-random function that nobody outside can predict (RFC 6888 R15).
//!
//! The sets are an index over the bindings, not state: a binding is what says that a port is taken.

use crate::types::Protocol;
use core::hash::Hasher as _;
use siphasher::sip::SipHasher13;

const WORD_PORTS: usize = u64::BITS as usize;
const GROUP_WORDS: usize = 16;
const GROUP_PORTS: usize = WORD_PORTS * GROUP_WORDS;
const GROUPS: usize = 65_536 / GROUP_PORTS;

/// The exterior ports of one protocol and shard: a range, and which of it are free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSet {
    /// One bit per port number, set where the port is free.
    free: Box<[u64; GROUPS * GROUP_WORDS]>,
    free_in_group: [u16; GROUPS],
    free_total: u32,
    range: PortRange,
}

/// A range of port numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// The number of ports in the range.
    pub fn len(&self) -> u32 {
        u32::from(self.last) + 1 - u32::from(self.first)
    }

    /// Never: a range has at least one port.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether `port` is in the range.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Part `index` of `count` parts that differ by at most one port, or `None` where there are too few ports.
    pub fn part(&self, index: u16, count: u16) -> Option<Self> {
        let (index, count) = (u32::from(index), u32::from(count));
        if index >= count || self.len() < count {
            return None;
        }
        let bound = |i: u32| u32::from(self.first) + (u64::from(self.len()) * u64::from(i) / u64::from(count)) as u32;
        Some(Self { first: bound(index) as u16, last: (bound(index + 1) - 1) as u16 })
    }
}

impl PortSet {
    /// A set in which every port of `range` is free.
    pub fn new(range: PortRange) -> Self {
        let mut set =
            Self { free: Box::new([0; GROUPS * GROUP_WORDS]), free_in_group: [0; GROUPS], free_total: 0, range };
        set.clear();
        set
    }

    /// Frees every port.
    pub fn clear(&mut self) {
        self.free.fill(0);
        self.free_in_group.fill(0);
        self.free_total = 0;
        for port in self.range.first..=self.range.last {
            self.release(port);
        }
    }

    /// The number of ports taken.
    pub fn used(&self) -> u32 {
        self.range.len() - self.free_total
    }

    /// The range this set covers.
    pub fn range(&self) -> PortRange {
        self.range
    }

    /// Whether `port` is in the range and free.
    pub fn is_free(&self, port: u16) -> bool {
        self.free[usize::from(port) / WORD_PORTS] & bit(port) != 0
    }

    /// Takes `port`. False, and nothing changes, if it is not free or not in the range.
    pub fn take(&mut self, port: u16) -> bool {
        if !self.is_free(port) {
            return false;
        }
        self.free[usize::from(port) / WORD_PORTS] &= !bit(port);
        self.free_in_group[usize::from(port) / GROUP_PORTS] -= 1;
        self.free_total -= 1;
        true
    }

    /// Frees `port`. False, and nothing changes, if it is free already or not in the range.
    pub fn release(&mut self, port: u16) -> bool {
        if !self.range.contains(port) || self.is_free(port) {
            return false;
        }
        self.free[usize::from(port) / WORD_PORTS] |= bit(port);
        self.free_in_group[usize::from(port) / GROUP_PORTS] += 1;
        self.free_total += 1;
        true
    }

    /// A free port, the same for the same `random` and the same free ports; it stays free. `None` if none is.
    pub fn pick(&self, random: u64) -> Option<u16> {
        // Multiply and shift maps the random number to 0..free_total without a division.
        let mut k = ((u128::from(random) * u128::from(self.free_total)) >> 64) as u32;
        let mut group = 0;
        for &count in &self.free_in_group {
            if k < u32::from(count) {
                break;
            }
            k -= u32::from(count);
            group += 1;
        }
        let first_word = group * GROUP_WORDS;
        for (i, &word) in self.free.iter().enumerate().skip(first_word).take(GROUP_WORDS) {
            if k < word.count_ones() {
                let mut word = word;
                for _ in 0..k {
                    word &= word - 1;
                }
                return u16::try_from(i * WORD_PORTS + word.trailing_zeros() as usize).ok();
            }
            k -= word.count_ones();
        }
        None
    }
}

fn bit(port: u16) -> u64 {
    1 << (usize::from(port) % WORD_PORTS)
}

/// The exterior ports (for ICMP, identifiers) of one shard, per protocol, and the source of random choices among them.
#[derive(Debug, Clone)]
pub struct PortAllocator {
    udp: PortSet,
    tcp: PortSet,
    icmp: PortSet,
    seed: u64,
    choices: u64,
}

impl PortAllocator {
    /// An allocator in which every port of `range` is free. `seed` makes its choices unpredictable.
    pub fn new(range: PortRange, seed: u64) -> Self {
        let set = PortSet::new(range);
        Self { udp: set.clone(), tcp: set.clone(), icmp: set, seed, choices: 0 }
    }

    /// The ports of `protocol`.
    pub fn of(&self, protocol: Protocol) -> &PortSet {
        match protocol {
            Protocol::Udp => &self.udp,
            Protocol::Tcp => &self.tcp,
            Protocol::Icmp => &self.icmp,
        }
    }

    /// The ports of `protocol`, for taking and releasing.
    pub fn of_mut(&mut self, protocol: Protocol) -> &mut PortSet {
        match protocol {
            Protocol::Udp => &mut self.udp,
            Protocol::Tcp => &mut self.tcp,
            Protocol::Icmp => &mut self.icmp,
        }
    }

    /// Ports taken, of all protocols.
    pub fn used(&self) -> u32 {
        self.udp.used() + self.tcp.used() + self.icmp.used()
    }

    /// Lets random choices follow from `seed`.
    pub fn reseed(&mut self, seed: u64) {
        (self.seed, self.choices) = (seed, 0);
    }

    /// A random free port; it stays free until it is taken. `None` if none is.
    pub fn pick(&mut self, protocol: Protocol) -> Option<u16> {
        // SipHash of a counter is a pseudo-random function: ports seen so far do not tell the next.
        let mut hasher = SipHasher13::new_with_keys(self.seed, !self.seed.rotate_left(32));
        hasher.write_u64(self.choices);
        self.choices += 1;
        self.of(protocol).pick(hasher.finish())
    }

    /// Frees every port.
    pub fn clear(&mut self) {
        self.udp.clear();
        self.tcp.clear();
        self.icmp.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const ALL: PortRange = PortRange { first: 0, last: 65_535 };

    #[test]
    fn parts_of_a_range_are_disjoint_and_cover_it() {
        let range = PortRange { first: 1024, last: 65_535 };
        for count in [1, 2, 3, 7, 64, 1000] {
            let mut next = u32::from(range.first);
            for index in 0..count {
                let part = range.part(index, count).unwrap();
                assert_eq!(u32::from(part.first), next);
                next = u32::from(part.last) + 1;
            }
            assert_eq!(next, u32::from(range.last) + 1);
        }
        assert_eq!(PortRange { first: 5, last: 6 }.part(0, 3), None);
        assert_eq!(range.part(2, 2), None);
    }

    #[test]
    fn every_port_is_handed_out_exactly_once() {
        let mut ports = PortAllocator::new(ALL, 7);
        let mut seen = BTreeSet::new();
        while let Some(port) = ports.pick(Protocol::Udp) {
            assert!(ports.of_mut(Protocol::Udp).take(port));
            assert!(seen.insert(port));
        }
        assert_eq!(seen.len(), 65_536);
        assert_eq!(ports.of(Protocol::Udp).used(), 65_536);
        assert_eq!(ports.of(Protocol::Tcp).used(), 0);
        assert!(ports.of_mut(Protocol::Udp).release(4711));
        assert_eq!(ports.pick(Protocol::Udp), Some(4711));
    }

    #[test]
    fn choices_are_spread_and_differ_between_seeds() {
        let first_choices = |seed| {
            let mut ports = PortAllocator::new(ALL, seed);
            (0..1000).map(|_| ports.pick(Protocol::Tcp).unwrap()).collect::<Vec<_>>()
        };
        let (one, two) = (first_choices(1), first_choices(2));
        assert_ne!(one, two);
        // 1000 of 65,536 drawn with replacement: hardly any twice, both halves alike, no run of neighbours.
        assert!(one.iter().collect::<BTreeSet<_>>().len() > 950);
        assert!((350..650).contains(&one.iter().filter(|&&p| p < 32_768).count()));
        assert!(one.windows(2).filter(|w| w[0].abs_diff(w[1]) < 2).count() < 5);
    }

    proptest! {
        #[test]
        fn set_behaves_like_a_set(
            first in 0u16..3000, len in 1u16..3000, operations in prop::collection::vec((any::<bool>(), any::<u16>()), 0..400),
            random: u64,
        ) {
            let range = PortRange { first, last: first + (len - 1) };
            let mut set = PortSet::new(range);
            let mut free: BTreeSet<u16> = (range.first..=range.last).collect();
            for (take, port) in operations {
                let port = port % 6200;
                if take {
                    prop_assert_eq!(set.take(port), free.remove(&port));
                } else {
                    prop_assert_eq!(set.release(port), range.contains(port) && free.insert(port));
                }
            }
            prop_assert_eq!(set.used(), range.len() - free.len() as u32);
            let rank = ((u128::from(random) * free.len() as u128) >> 64) as usize;
            prop_assert_eq!(set.pick(random), free.iter().nth(rank).copied());
        }
    }
}
