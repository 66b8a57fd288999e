//! MAC addresses.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address, written `02:51:1a:00:00:01` in configurations and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address all stations listen to.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address stands for a group of stations, broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether the address can be that of one interface: neither a group's nor all zeros.
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a MAC address is six pairs of hexadecimal digits separated by colons, such as 02:51:1a:00:00:01")]
pub struct InvalidMacAddr;

impl FromStr for MacAddr {
    type Err = InvalidMacAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(InvalidMacAddr)?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(InvalidMacAddr);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidMacAddr)?;
        }
        if pairs.next().is_some() { Err(InvalidMacAddr) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::string::String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_round_trips() {
        let address = MacAddr([0x02, 0x51, 0x1a, 0, 0xff, 1]);
        assert_eq!(address.to_string(), "02:51:1a:00:ff:01");
        assert_eq!("02:51:1A:00:ff:01".parse(), Ok(address));
        assert_eq!(serde_json::to_string(&address).unwrap(), "\"02:51:1a:00:ff:01\"");
        assert_eq!(serde_json::from_str::<MacAddr>("\"02:51:1a:00:ff:01\"").unwrap(), address);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "02:51:1a:00:00", "02:51:1a:00:00:01:02", "2:51:1a:00:00:01", "02:51:1a:00:00:+1", "02-51"] {
            assert_eq!(text.parse::<MacAddr>(), Err(InvalidMacAddr), "{text}");
        }
    }
}
