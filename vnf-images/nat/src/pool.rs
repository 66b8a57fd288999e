//! The exterior addresses that interior hosts share.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;
use serde::{Deserialize, Serialize, Serializer};

/// The most exterior addresses of a NAT.
pub const ADDRESSES_MAX: usize = 256;

/// Addresses that follow one another, such as `10.2.0.8-10.2.0.15`, `198.51.100.0/29` or just `10.2.0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The lowest address.
    pub first: Ipv4Addr,
    /// The highest address, not below `first`.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// The number of addresses.
    pub fn len(&self) -> u64 {
        u64::from(self.last.to_bits()) + 1 - u64::from(self.first.to_bits())
    }

    /// Never: a range has at least one address.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is neither an IPv4 address (10.2.0.5), nor a range (10.2.0.8-10.2.0.15), nor a prefix \
                 (10.2.0.8/29)"
            )
        };
        let address = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| wrong());
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            return if first <= last { Ok(Self { first, last }) } else { Err(wrong()) };
        }
        let Some((first, prefix_len)) = text.split_once('/') else {
            let only = address(text)?;
            return Ok(Self { first: only, last: only });
        };
        let first = address(first)?;
        let prefix_len: u32 = prefix_len.parse().map_err(|_| wrong())?;
        let host_bits = 32u32.checked_sub(prefix_len).ok_or_else(wrong)?;
        let host_mask = u32::MAX.checked_shr(prefix_len).unwrap_or(0);
        if first.to_bits() & host_mask != 0 {
            return Err(format!("`{text}` is not a prefix: some of its last {host_bits} bits are not zero"));
        }
        Ok(Self { first, last: Ipv4Addr::from_bits(first.to_bits() | host_mask) })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The exterior addresses in ascending order, each of them once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    addresses: Box<[u32]>,
    first: u32,
    /// From the first to the last.
    span: u32,
}

impl Pool {
    /// The NAT's own address and those of `ranges`. `None` if they are more than [`ADDRESSES_MAX`].
    pub fn new(own: Ipv4Addr, ranges: &[AddressRange]) -> Option<Self> {
        let total: u64 = ranges.iter().map(AddressRange::len).sum();
        if total > ADDRESSES_MAX as u64 {
            return None;
        }
        let ranges = ranges.iter().flat_map(|range| range.first.to_bits()..=range.last.to_bits());
        let mut addresses: Vec<u32> = core::iter::once(own.to_bits()).chain(ranges).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let (first, last) = (*addresses.first()?, *addresses.last()?);
        (addresses.len() <= ADDRESSES_MAX).then(|| Self { addresses: addresses.into(), first, span: last - first })
    }

    /// The number of addresses, at least one.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Never: the NAT has an address of its own.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The addresses in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().copied().map(Ipv4Addr::from_bits)
    }

    /// The address with this index.
    pub fn get(&self, index: usize) -> Option<Ipv4Addr> {
        self.addresses.get(index).copied().map(Ipv4Addr::from_bits)
    }

    /// The index of `address`, if it is one of them.
    #[inline(always)]
    pub fn index_of(&self, address: Ipv4Addr) -> Option<usize> {
        let address = address.to_bits();
        // Nearly every address asked for is far from all of them, or the only one.
        if address.wrapping_sub(self.first) > self.span {
            return None;
        }
        if self.span == 0 { Some(0) } else { self.addresses.binary_search(&address).ok() }
    }

    /// Whether `address` is one of them.
    #[inline(always)]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.index_of(address).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_written_in_three_ways() {
        assert_eq!(range("10.2.0.5").to_string(), "10.2.0.5");
        assert_eq!(range("10.2.0.8 - 10.2.0.15"), range("10.2.0.8/29"));
        assert_eq!(range("0.0.0.0/0").len(), 1 << 32);
        assert_eq!(range("10.2.0.8/32").len(), 1);
        for wrong in ["", "10.2.0", "10.2.0.9-10.2.0.8", "10.2.0.8/33", "10.2.0.9/29", "10.2.0.8-", "10.2.0.8/x"] {
            assert!(wrong.parse::<AddressRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pool_knows_its_addresses_and_no_others() {
        let own = Ipv4Addr::new(10, 2, 0, 9);
        let pool = Pool::new(own, &[range("10.2.0.8/30"), range("198.51.100.7"), range("10.2.0.1")]).unwrap();
        let all: Vec<String> = pool.iter().map(|address| address.to_string()).collect();
        assert_eq!(all, ["10.2.0.1", "10.2.0.8", "10.2.0.9", "10.2.0.10", "10.2.0.11", "198.51.100.7"]);
        for (index, address) in pool.iter().enumerate() {
            assert_eq!((pool.index_of(address), pool.get(index)), (Some(index), Some(address)));
        }
        for other in ["10.2.0.0", "10.2.0.7", "10.2.0.12", "198.51.100.8", "0.0.0.0", "255.255.255.255"] {
            assert!(!pool.contains(other.parse().unwrap()), "{other}");
        }
        let one = Pool::new(own, &[]).unwrap();
        assert_eq!((one.index_of(own), one.index_of(Ipv4Addr::new(10, 2, 0, 8))), (Some(0), None));
        assert_eq!(Pool::new(own, &[range("10.0.0.0/8")]), None);
    }
}
