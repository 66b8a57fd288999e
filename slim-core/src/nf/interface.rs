//! Addresses of a network function in its configuration.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;
use serde::{Deserialize, Serialize, Serializer};

/// An address of a network function and the prefix of the network it is in, such as `10.1.0.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The network function's own address.
    pub address: Ipv4Addr,
    /// The prefix length, 1 to 30.
    pub prefix_len: u8,
}

impl InterfaceAddress {
    /// The network mask as a number.
    pub const fn mask(&self) -> u32 {
        u32::MAX << (32 - self.prefix_len as u32)
    }

    /// Whether `address` is in the network, its own and the broadcast addresses included.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    /// Whether `address` can be a host's in this network other than the NAT's own.
    pub fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        let host_bits = address.to_bits() & !self.mask();
        self.contains(address) && address != self.address && host_bits != 0 && host_bits != !self.mask()
    }
}

impl FromStr for InterfaceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an IPv4 address with a prefix length, such as 10.1.0.1/24");
        let (address, prefix_len) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix_len: u8 = prefix_len.parse().map_err(|_| wrong())?;
        if !(1..=30).contains(&prefix_len) {
            return Err(format!("the prefix length of `{text}` is not between 1 and 30"));
        }
        Ok(Self { address, prefix_len })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl Serialize for InterfaceAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InterfaceAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
