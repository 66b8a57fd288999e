//! PCI addresses.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The address of a PCI function: domain, bus, device and function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// As libvirt's XML has it.
    pub(super) fn libvirt(self) -> String {
        let Self { domain, bus, device, function } = self;
        format!("<address domain='{domain:#06x}' bus='{bus:#04x}' slot='{device:#04x}' function='{function:#x}'/>")
    }
}

/// The text is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a PCI address: write it as lspci -D does, [domain:]bus:device.function in hexadecimal, such as 0000:03:10.0"
)]
pub struct InvalidPciAddress(String);

impl FromStr for PciAddress {
    type Err = InvalidPciAddress;

    fn from_str(text: &str) -> Result<Self, InvalidPciAddress> {
        let hex = |part: &str, digits: usize, max: u16| {
            let value = u16::from_str_radix(part, 16).ok()?;
            (part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()) && value <= max).then_some(value)
        };
        let parse = || {
            let (rest, function) = text.split_once('.')?;
            let parts: Vec<&str> = rest.split(':').collect();
            let (domain, bus, device) = match parts[..] {
                [domain, bus, device] => (domain, bus, device),
                [bus, device] => ("0000", bus, device),
                _ => return None,
            };
            Some(Self {
                domain: hex(domain, 4, 0xffff)?,
                bus: hex(bus, 2, 0xff)? as u8,
                device: hex(device, 2, 0x1f)? as u8,
                function: hex(function, 1, 7)? as u8,
            })
        };
        parse().ok_or_else(|| InvalidPciAddress(text.to_owned()))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

crate::net::serde_as_text!(PciAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_lspci_writes_them() {
        assert_eq!("0000:03:10.0".parse::<PciAddress>().unwrap().to_string(), "0000:03:10.0");
        assert_eq!("03:1f.7".parse::<PciAddress>().unwrap().to_string(), "0000:03:1f.7");
        assert_eq!("A0b0:03:1F.7".parse::<PciAddress>().unwrap().to_string(), "a0b0:03:1f.7");
        for wrong in ["", "eth0", "03:10", "03:20.0", "03:10.8", "3:10.0", "0000:0000:03:10.0", "03:10.0 ", "+3:10.0"] {
            let error = wrong.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains("such as 0000:03:10.0"), "{wrong:?}: {error}");
        }
    }
}
