//! Exterior ports: which are free, and a random one of them in bounded time.
//!
//! A set is a bitmap with counts of free even and odd ports per group of 1024, so that "the k-th free port" of a range
//! and parity is found by adding up at most 64 counts and a few dozen words, however few are left. Every such port is
//! equally likely (RFC 6056 §3.3.2, RFC 7857 §9).
//!
//! The sets are an index over the bindings, not state: a binding is what says that a port is taken.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize, Serializer};

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

    /// The ports of well-known services, a class of their own (RFC 4787 R3).
    pub const WELL_KNOWN: Self = Self { first: 0, last: 1023 };

    /// All other ports.
    pub const UNPRIVILEGED: Self = Self { first: 1024, last: u16::MAX };

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

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a port (53) nor a range of ports (6881-6889)");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first == 0 || range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
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
