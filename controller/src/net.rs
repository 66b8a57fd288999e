//! Addresses as they stand in configurations: MAC addresses and IPv4 networks.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The text is not an address of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not six hexadecimal octets separated by colons.
    #[error("a MAC address is six hexadecimal octets, such as 52:54:00:03:00:0b")]
    Mac,
    /// A group address, or all zeros: no interface can have it.
    #[error("not the MAC address of an interface: it is zero or a group address")]
    NotUnicast,
    /// Not an address with a prefix length.
    #[error("expected an IPv4 address with its prefix length, such as 10.3.0.1/24")]
    Network,
    /// A network without room for a host.
    #[error("the prefix length must be between 8 and 30")]
    Prefix,
}

/// The MAC address of one interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(AddressError::Mac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(AddressError::Mac);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| AddressError::Mac)?;
        }
        if parts.next().is_some() {
            return Err(AddressError::Mac);
        }
        if octets[0] & 1 != 0 || octets == [0; 6] {
            return Err(AddressError::NotUnicast);
        }
        Ok(Self(octets))
    }
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

serde_as_text!(MacAddress);
serde_as_text!(Ipv4Interface);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_strictly() {
        let mac: MacAddress = "52:54:00:03:00:0b".parse().unwrap();
        assert_eq!(mac.0, [0x52, 0x54, 0, 3, 0, 0x0b]);
        assert_eq!(mac.to_string(), "52:54:00:03:00:0b");
        for wrong in
            ["", "52:54:00:03:00", "52:54:00:03:00:0b:1", "52-54-00-03-00-0b", "52:54:00:03:00:+b", "5:54:0:3:0:b"]
        {
            assert_eq!(wrong.parse::<MacAddress>(), Err(AddressError::Mac), "{wrong:?}");
        }
        assert_eq!("01:00:5e:00:00:01".parse::<MacAddress>(), Err(AddressError::NotUnicast));
        assert_eq!("00:00:00:00:00:00".parse::<MacAddress>(), Err(AddressError::NotUnicast));
    }

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
