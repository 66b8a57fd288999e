//! Exterior ports: which are free, and a random one of them in bounded time.
//!
//! A set is a bitmap with counts of free even and odd ports per group of 1024, so that "the k-th free port" of a range
//! and parity is found by adding up at most 64 counts and a few dozen words, however few are left. Every such port is
//! equally likely (RFC 6056 §3.3.2, RFC 7857 §9), chosen by a keyed pseudo-random function that nobody outside can
//! predict (RFC 6888 R15).
//!
//! The sets are an index over the bindings, not state: a binding is what says that a port is taken.

use crate::types::Protocol;
use core::hash::Hasher as _;
use siphasher::sip::SipHasher13;

const WORD_PORTS: usize = u64::BITS as usize;
const GROUP_WORDS: usize = 16;
const GROUP_PORTS: usize = WORD_PORTS * GROUP_WORDS;
const GROUPS: usize = 65_536 / GROUP_PORTS;

/// The even ports of a word of the bitmap.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// The exterior ports of one protocol, address and shard: a range, and which of it are free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSet {
    /// One bit per port number, set where the port is free.
    free: Box<[u64; GROUPS * GROUP_WORDS]>,
    /// Free even and odd ports.
    free_in_group: [[u16; 2]; GROUPS],
    free_total: u32,
    range: PortRange,
}

/// Whether a port's number is even or odd (RFC 4787 §4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// Even, as RTP's.
    Even,
    /// Odd, as RTCP's.
    Odd,
}

impl Parity {
    /// The parity of `port`.
    pub const fn of(port: u16) -> Self {
        if port.is_multiple_of(2) { Self::Even } else { Self::Odd }
    }
}

/// The bits of a bitmap's word that have a parity.
const fn parity_mask(parity: Option<Parity>) -> u64 {
    match parity {
        None => u64::MAX,
        Some(Parity::Even) => EVEN,
        Some(Parity::Odd) => !EVEN,
    }
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
    /// Every port number.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

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

    /// The bits of the bitmap's word `index` that are ports of the range.
    fn mask(&self, index: usize) -> u64 {
        let (first, last) = (usize::from(self.first), usize::from(self.last));
        let (low, high) = (index * WORD_PORTS, index * WORD_PORTS + WORD_PORTS - 1);
        if last < low || first > high {
            return 0;
        }
        let from = first.saturating_sub(low);
        let beyond = high.saturating_sub(last);
        (u64::MAX << from) & (u64::MAX >> beyond)
    }

    /// The groups of 1024 ports that the range touches.
    fn groups(&self) -> core::ops::RangeInclusive<usize> {
        usize::from(self.first) / GROUP_PORTS..=usize::from(self.last) / GROUP_PORTS
    }

    /// Whether all ports of a group are in the range.
    fn covers(&self, group: usize) -> bool {
        usize::from(self.first) <= group * GROUP_PORTS && usize::from(self.last) + 1 >= (group + 1) * GROUP_PORTS
    }
}

impl PortSet {
    /// A set in which every port of `range` is free.
    pub fn new(range: PortRange) -> Self {
        let mut set =
            Self { free: Box::new([0; GROUPS * GROUP_WORDS]), free_in_group: [[0; 2]; GROUPS], free_total: 0, range };
        set.clear();
        set
    }

    /// Frees every port.
    pub fn clear(&mut self) {
        for (index, word) in self.free.iter_mut().enumerate() {
            *word = self.range.mask(index);
        }
        for (counts, words) in self.free_in_group.iter_mut().zip(self.free.chunks_exact(GROUP_WORDS)) {
            let count = |mask: u64| words.iter().map(|word| (word & mask).count_ones() as u16).sum();
            *counts = [count(EVEN), count(!EVEN)];
        }
        self.free_total = self.range.len();
    }

    /// The number of ports taken.
    pub fn used(&self) -> u32 {
        self.range.len() - self.free_total
    }

    /// The number of ports left.
    pub fn free(&self) -> u32 {
        self.free_total
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
        self.free_in_group[usize::from(port) / GROUP_PORTS][usize::from(port % 2)] -= 1;
        self.free_total -= 1;
        true
    }

    /// Frees `port`. False, and nothing changes, if it is free already or not in the range.
    pub fn release(&mut self, port: u16) -> bool {
        if !self.range.contains(port) || self.is_free(port) {
            return false;
        }
        self.free[usize::from(port) / WORD_PORTS] |= bit(port);
        self.free_in_group[usize::from(port) / GROUP_PORTS][usize::from(port % 2)] += 1;
        self.free_total += 1;
        true
    }

    /// A free port of `range` and `parity`, the same for the same `random` and the same free ports; it stays free.
    /// `None` if none is.
    pub fn pick(&self, range: PortRange, parity: Option<Parity>, random: u64) -> Option<u16> {
        let total: u32 = range.groups().map(|group| self.free_in(group, range, parity)).sum();
        // Multiply and shift maps the random number to 0..total without a division.
        let mut k = ((u128::from(random) * u128::from(total)) >> 64) as u32;
        for group in range.groups() {
            let count = self.free_in(group, range, parity);
            if k >= count {
                k -= count;
                continue;
            }
            for (index, mut word) in self.words(group, range, parity) {
                if k >= word.count_ones() {
                    k -= word.count_ones();
                    continue;
                }
                for _ in 0..k {
                    word &= word - 1;
                }
                return u16::try_from(index * WORD_PORTS + word.trailing_zeros() as usize).ok();
            }
        }
        None
    }

    fn free_in(&self, group: usize, range: PortRange, parity: Option<Parity>) -> u32 {
        if !range.covers(group) {
            return self.words(group, range, parity).map(|(_, word)| word.count_ones()).sum();
        }
        let [even, odd] = self.free_in_group.get(group).map_or([0; 2], |counts| counts.map(u32::from));
        match parity {
            None => even + odd,
            Some(Parity::Even) => even,
            Some(Parity::Odd) => odd,
        }
    }

    /// The words of a group, with those of its free ports that are in `range` and have the parity.
    fn words(&self, group: usize, range: PortRange, parity: Option<Parity>) -> impl Iterator<Item = (usize, u64)> {
        let mask = parity_mask(parity);
        self.free
            .iter()
            .enumerate()
            .skip(group * GROUP_WORDS)
            .take(GROUP_WORDS)
            .map(move |(index, word)| (index, word & mask & range.mask(index)))
    }
}

fn bit(port: u16) -> u64 {
    1 << (usize::from(port) % WORD_PORTS)
}

/// The exterior ports (for ICMP, identifiers) of one shard, per address and protocol, and the source of random choices.
#[derive(Debug, Clone)]
pub struct PortAllocator {
    /// Of each exterior address, by the order of [`Protocol::ALL`].
    sets: Box<[[PortSet; 3]]>,
    used: u32,
    seed: u64,
    choices: u64,
}

const fn index_of(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Udp => 0,
        Protocol::Tcp => 1,
        Protocol::Icmp => 2,
    }
}

impl PortAllocator {
    /// An allocator in which every port of `range` is free at each of so many addresses, at least one. `seed` makes its
    /// choices unpredictable.
    pub fn new(range: PortRange, addresses: usize, seed: u64) -> Self {
        let set = PortSet::new(range);
        let of_address = [set.clone(), set.clone(), set];
        Self { sets: vec![of_address; addresses.max(1)].into(), used: 0, seed, choices: 0 }
    }

    /// The ports of each address.
    pub fn range(&self) -> PortRange {
        self.sets.first().map_or(PortRange::ALL, |[set, ..]| set.range())
    }

    /// The ports of `protocol` at an address, if there are so many addresses.
    pub fn of(&self, address: usize, protocol: Protocol) -> Option<&PortSet> {
        self.sets.get(address).map(|sets| &sets[index_of(protocol)])
    }

    fn of_mut(&mut self, address: usize, protocol: Protocol) -> Option<&mut PortSet> {
        self.sets.get_mut(address).map(|sets| &mut sets[index_of(protocol)])
    }

    /// Takes a port. False, and nothing changes, if it is not free or not in the range.
    pub fn take(&mut self, address: usize, protocol: Protocol, port: u16) -> bool {
        let taken = self.of_mut(address, protocol).is_some_and(|set| set.take(port));
        self.used += u32::from(taken);
        taken
    }

    /// Frees a port. False, and nothing changes, if it is free already or not in the range.
    pub fn release(&mut self, address: usize, protocol: Protocol, port: u16) -> bool {
        let released = self.of_mut(address, protocol).is_some_and(|set| set.release(port));
        self.used -= u32::from(released);
        released
    }

    /// Ports taken, of all protocols and addresses.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Ports taken of one protocol, of all addresses.
    pub fn used_of(&self, protocol: Protocol) -> u32 {
        self.sets.iter().map(|sets| sets[index_of(protocol)].used()).sum()
    }

    /// Ports per protocol, of all addresses.
    pub fn per_protocol(&self) -> u32 {
        self.sets.iter().map(|[set, ..]| set.range().len()).sum()
    }

    /// Lets random choices follow from `seed`.
    pub fn reseed(&mut self, seed: u64) {
        (self.seed, self.choices) = (seed, 0);
    }

    fn random(&mut self) -> u64 {
        // SipHash of a counter is a pseudo-random function: ports seen so far do not tell the next.
        let mut hasher = SipHasher13::new_with_keys(self.seed, !self.seed.rotate_left(32));
        hasher.write_u64(self.choices);
        self.choices += 1;
        hasher.finish()
    }

    /// An address with a free port of `protocol`: of two random ones the one with more, or, where neither has any, the
    /// one with most. `None` if none has.
    pub fn pick_address(&mut self, protocol: Protocol) -> Option<usize> {
        let count = self.sets.len() as u64;
        let random = if count > 1 { self.random() } else { 0 };
        let free = |index: usize| self.of(index, protocol).map_or(0, PortSet::free);
        let [one, other] = [random >> 32, random & 0xffff_ffff].map(|half| ((half * count) >> 32) as usize);
        let better = if free(other) > free(one) { other } else { one };
        if free(better) > 0 {
            return Some(better);
        }
        (0..self.sets.len()).max_by_key(|index| free(*index)).filter(|index| free(*index) > 0)
    }

    /// A random free port of an address; it stays free until it is taken. `None` if none is.
    pub fn pick(&mut self, address: usize, protocol: Protocol) -> Option<u16> {
        let random = self.random();
        self.of(address, protocol)?.pick(PortRange::ALL, None, random)
    }

    /// Frees every port.
    pub fn clear(&mut self) {
        self.sets.iter_mut().flatten().for_each(PortSet::clear);
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

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
        let mut ports = PortAllocator::new(PortRange::ALL, 1, 7);
        let mut seen = BTreeSet::new();
        while let Some(port) = ports.pick(0, Protocol::Udp) {
            assert!(ports.take(0, Protocol::Udp, port));
            assert!(seen.insert(port));
        }
        assert_eq!(seen.len(), 65_536);
        assert_eq!((ports.used_of(Protocol::Udp), ports.used_of(Protocol::Tcp), ports.used()), (65_536, 0, 65_536));
        assert_eq!(ports.pick_address(Protocol::Udp), None);
        assert!(ports.release(0, Protocol::Udp, 4711));
        assert!(!ports.release(0, Protocol::Udp, 4711));
        assert_eq!((ports.pick_address(Protocol::Udp), ports.pick(0, Protocol::Udp)), (Some(0), Some(4711)));
        assert_eq!(ports.used(), 65_535);
    }

    #[test]
    fn choices_are_spread_and_differ_between_seeds() {
        let first_choices = |seed| {
            let mut ports = PortAllocator::new(PortRange::ALL, 1, seed);
            (0..1000).map(|_| ports.pick(0, Protocol::Tcp).unwrap()).collect::<Vec<_>>()
        };
        let (one, two) = (first_choices(1), first_choices(2));
        assert_ne!(one, two);
        // 1000 of 65,536 drawn with replacement: hardly any twice, both halves alike, no run of neighbours.
        assert!(one.iter().collect::<BTreeSet<_>>().len() > 950);
        assert!((350..650).contains(&one.iter().filter(|&&p| p < 32_768).count()));
        assert!(one.windows(2).filter(|w| w[0].abs_diff(w[1]) < 2).count() < 5);
    }

    #[test]
    fn addresses_are_used_alike_and_to_the_last_port() {
        let mut ports = PortAllocator::new(PortRange { first: 1, last: 100 }, 5, 7);
        let mut taken = [0; 5];
        for i in 0..500 {
            let address = ports.pick_address(Protocol::Icmp).unwrap();
            let port = ports.pick(address, Protocol::Icmp).unwrap();
            assert!(ports.take(address, Protocol::Icmp, port));
            taken[address] += 1;
            let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
            assert!(most - least < 25, "{taken:?} after {i}");
        }
        assert_eq!(ports.pick_address(Protocol::Icmp), None);
        assert_eq!((ports.used(), ports.per_protocol()), (500, 500));
    }

    proptest! {
        #[test]
        fn set_behaves_like_a_set(
            first in 0u16..3000, len in 1u16..3000, operations in prop::collection::vec((any::<bool>(), any::<u16>()), 0..400),
            random: u64, low: u16, span in 0u16..3000, parity in prop::sample::select(vec![None, Some(Parity::Even), Some(Parity::Odd)]),
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
            prop_assert_eq!(set.free(), free.len() as u32);
            let low = low % 6200;
            for part in [PortRange { first: low, last: low + span }, PortRange::ALL] {
                let wanted = |port: &&u16| part.contains(**port) && parity.is_none_or(|parity| parity == Parity::of(**port));
                let wanted: Vec<u16> = free.iter().filter(wanted).copied().collect();
                let rank = ((u128::from(random) * wanted.len() as u128) >> 64) as usize;
                prop_assert_eq!(set.pick(part, parity, random), wanted.get(rank).copied());
            }
        }
    }
}
