//! Addresses as they stand in configurations.

pub use slim_core::packet::MacAddr as MacAddress;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The text is not an address of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address with a prefix length.
    #[error("expected an IPv4 address with its prefix length, such as 10.3.0.1/24")]
    Network,
    /// A network without room for a host.
    #[error("the prefix length must be between 8 and 30")]
    Prefix,
}

/// An address of an IPv4 network together with the network's prefix length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Interface {
    /// The interface's own address.
    pub address: Ipv4Addr,
    /// The prefix length, 8 to 30.
    pub prefix: u8,
}

impl Ipv4Interface {
    /// The network's first address.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// The network's last address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// Whether `host` is an address a host of this network can have.
    pub fn contains_host(self, host: Ipv4Addr) -> bool {
        host.to_bits() & self.mask() == self.network().to_bits() && host != self.network() && host != self.broadcast()
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }
}

impl fmt::Display for Ipv4Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Ipv4Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Interface {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, prefix) = text.split_once('/').ok_or(AddressError::Network)?;
        let address = address.parse().map_err(|_| AddressError::Network)?;
        let prefix = prefix.parse().map_err(|_| AddressError::Network)?;
        if !(8..=30).contains(&prefix) {
            return Err(AddressError::Prefix);
        }
        let interface = Self { address, prefix };
        if !interface.contains_host(address) {
            return Err(AddressError::Network);
        }
        Ok(interface)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

serde_as_text!(Ipv4Interface);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_hosts() {
        let interface: Ipv4Interface = "10.3.0.1/24".parse().unwrap();
        assert!(interface.contains_host(Ipv4Addr::new(10, 3, 0, 11)));
        assert!(!interface.contains_host(Ipv4Addr::new(10, 3, 1, 11)));
        assert!(!interface.contains_host(Ipv4Addr::new(10, 3, 0, 255)));
        for wrong in ["10.3.0.1", "10.3.0.0/24", "10.3.0.255/24", "10.3.0.1/33", "10.3.0.1/x"] {
            assert!(wrong.parse::<Ipv4Interface>().is_err(), "{wrong:?}");
        }
    }
}
