//! The choice of exterior ports: by address, protocol and what they should be like, otherwise at random.
//!
//! Random means by a keyed pseudo-random function that nobody outside can predict (RFC 6888 R15).

use crate::ports::{Parity, PortRange, PortSet};
use crate::types::Protocol;
use core::hash::Hasher as _;
use siphasher::sip::SipHasher13;

/// What an interior endpoint's exterior port should be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The very port it should be, if that is free.
    pub exactly: Option<u16>,
    /// The ports it should be among.
    pub range: PortRange,
    /// The ports it may be among, if of those none is free.
    pub otherwise: Option<PortRange>,
    /// The parity it should have, if there is such a port.
    pub parity: Option<Parity>,
}

impl Wish {
    /// Any port.
    pub const NONE: Self = Self { exactly: None, range: PortRange::ALL, otherwise: None, parity: None };

    /// A port of the same class as `interior` (RFC 4787 R3). Well-known ports are nobody else's.
    pub fn of_class(interior: u16, lent: PortRange) -> Self {
        let (range, otherwise) = if PortRange::WELL_KNOWN.contains(interior) {
            (PortRange::WELL_KNOWN, Some(PortRange::UNPRIVILEGED))
        } else if PortRange::UNPRIVILEGED.contains(lent.last) {
            (PortRange::UNPRIVILEGED, None)
        } else {
            (PortRange::ALL, None)
        };
        Self { range, otherwise, ..Self::NONE }
    }

    /// The same wish for a port that has to be in `range`, of whatever class.
    pub fn within(&self, range: PortRange) -> Self {
        let exactly = self.exactly.filter(|port| range.contains(*port));
        Self { exactly, range, otherwise: None, parity: self.parity }
    }
}

/// A free port as wished, as far as there is one; it stays free.
fn pick_as_wished(set: &PortSet, wish: &Wish, random: u64) -> Option<u16> {
    let exactly = wish.exactly.filter(|port| set.is_free(*port));
    let pick = |range, parity| set.pick(range, parity, random);
    let otherwise = |parity| wish.otherwise.and_then(|range| pick(range, parity));
    exactly
        .or_else(|| pick(wish.range, wish.parity))
        .or_else(|| otherwise(wish.parity))
        .or_else(|| pick(wish.range, None))
        .or_else(|| otherwise(None))
}

/// One of `count` addresses that has something free: of two random ones the one with more, or, where neither has any, the
/// one with most. `None` if none has.
pub fn pick_address(count: usize, random: u64, free: impl Fn(usize) -> u32) -> Option<usize> {
    let [one, other] = [random >> 32, random & 0xffff_ffff].map(|half| ((half * count as u64) >> 32) as usize);
    let better = if free(other) > free(one) { other } else { one };
    if free(better) > 0 {
        return Some(better);
    }
    (0..count).max_by_key(|index| free(*index)).filter(|index| free(*index) > 0)
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

    /// A number that nobody outside can predict.
    pub fn random(&mut self) -> u64 {
        // SipHash of a counter is a pseudo-random function: ports seen so far do not tell the next.
        let mut hasher = SipHasher13::new_with_keys(self.seed, !self.seed.rotate_left(32));
        hasher.write_u64(self.choices);
        self.choices += 1;
        hasher.finish()
    }

    /// A random free port of an address, as wished; it stays free until it is taken. `None` if none is.
    pub fn pick(&mut self, address: usize, protocol: Protocol, wish: &Wish) -> Option<u16> {
        let random = self.random();
        pick_as_wished(self.of(address, protocol)?, wish, random)
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
    use std::collections::BTreeSet;

    fn choose(ports: &mut PortAllocator, protocol: Protocol) -> Option<usize> {
        let random = ports.random();
        pick_address(ports.sets.len(), random, |index| ports.of(index, protocol).map_or(0, PortSet::free))
    }

    #[test]
    fn every_port_is_handed_out_exactly_once() {
        let mut ports = PortAllocator::new(PortRange::ALL, 1, 7);
        let mut seen = BTreeSet::new();
        while let Some(port) = ports.pick(0, Protocol::Udp, &Wish::NONE) {
            assert!(ports.take(0, Protocol::Udp, port));
            assert!(seen.insert(port));
        }
        assert_eq!(seen.len(), 65_536);
        assert_eq!((ports.used_of(Protocol::Udp), ports.used_of(Protocol::Tcp), ports.used()), (65_536, 0, 65_536));
        assert_eq!(choose(&mut ports, Protocol::Udp), None);
        assert!(ports.release(0, Protocol::Udp, 4711));
        assert!(!ports.release(0, Protocol::Udp, 4711));
        assert_eq!(
            (choose(&mut ports, Protocol::Udp), ports.pick(0, Protocol::Udp, &Wish::NONE)),
            (Some(0), Some(4711))
        );
        assert_eq!(ports.used(), 65_535);
    }

    #[test]
    fn choices_are_spread_and_differ_between_seeds() {
        let first_choices = |seed| {
            let mut ports = PortAllocator::new(PortRange::ALL, 1, seed);
            (0..1000).map(|_| ports.pick(0, Protocol::Tcp, &Wish::NONE).unwrap()).collect::<Vec<_>>()
        };
        let (one, two) = (first_choices(1), first_choices(2));
        assert_ne!(one, two);
        // 1000 of 65,536 drawn with replacement: hardly any twice, both halves alike, no run of neighbours.
        assert!(one.iter().collect::<BTreeSet<_>>().len() > 950);
        assert!((350..650).contains(&one.iter().filter(|&&p| p < 32_768).count()));
        assert!(one.windows(2).filter(|w| w[0].abs_diff(w[1]) < 2).count() < 5);
    }

    #[test]
    fn wishes_are_fulfilled_in_their_order() {
        let lent = PortRange { first: 1022, last: 1026 };
        let mut set = PortSet::new(lent);
        let wish = Wish { exactly: Some(1026), parity: Some(Parity::Odd), ..Wish::of_class(80, lent) };
        let mut given = Vec::new();
        while let Some(port) = pick_as_wished(&set, &wish, 1) {
            assert!(set.take(port));
            given.push(port);
        }
        // That very port, then class and parity, parity, class, and what is left.
        assert_eq!(given, [1026, 1023, 1025, 1022, 1024]);
        assert_eq!(Wish::of_class(5000, lent).range, PortRange::UNPRIVILEGED);
        assert_eq!(Wish::of_class(5000, PortRange { first: 1, last: 1000 }).range, PortRange::ALL);
    }

    #[test]
    fn addresses_are_used_alike_and_to_the_last_port() {
        let mut ports = PortAllocator::new(PortRange { first: 1, last: 100 }, 5, 7);
        let mut taken = [0; 5];
        for i in 0..500 {
            let address = choose(&mut ports, Protocol::Icmp).unwrap();
            let port = ports.pick(address, Protocol::Icmp, &Wish::NONE).unwrap();
            assert!(ports.take(address, Protocol::Icmp, port));
            taken[address] += 1;
            let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
            assert!(most - least < 25, "{taken:?} after {i}");
        }
        assert_eq!(choose(&mut ports, Protocol::Icmp), None);
        assert_eq!((ports.used(), ports.per_protocol()), (500, 500));
    }
}
