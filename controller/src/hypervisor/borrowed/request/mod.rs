//! What can be asked for, and how it is written.

use crate::hypervisor::PciAddress;
use crate::net::MacAddress;
use std::fmt;
use std::str::FromStr;

mod named;

pub use named::{Functions, InvalidRequest, NamedFunction, NamedVirtual, NamedWhole, PassedPort, Vlan, requests};

/// A function that a guest shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A virtual function, made if need be.
    Virtual {
        /// Which.
        function: VirtualFunction,
        /// The MAC address it shall have.
        mac: MacAddress,
        /// Whether it sends from other addresses too, which a NIC has to be told.
        any_source: bool,
        /// The VLAN to which the NIC shall confine it; left as it is if not given.
        vlan: Option<Vlan>,
    },
    /// A whole function.
    Whole {
        /// Which.
        address: PciAddress,
        /// Its MAC address; read from the host's driver if not given.
        mac: Option<MacAddress>,
    },
}

/// The text does not name a virtual function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} does not name a virtual function: write the physical function's interface or PCI address, and perhaps which \
     of its virtual functions, such as enp3s0, enp3s0:1 or 0000:03:00.0:1; or a virtual function's own PCI address"
)]
pub struct InvalidFunction(String);

/// Where a virtual function is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At the physical function with this network interface.
    Interface(String),
    /// At the physical function with this address; or it is the virtual function itself.
    Address(PciAddress),
}

/// A virtual function as it is named on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualFunction {
    /// Where it is looked for.
    pub place: Place,
    /// Which of the physical function's virtual functions; any that is free if not given.
    pub index: Option<u32>,
}

/// The kernel's limit for the name of an interface.
const NAME_MAX: usize = 15;

impl FromStr for VirtualFunction {
    type Err = InvalidFunction;

    fn from_str(text: &str) -> Result<Self, InvalidFunction> {
        let place = |text: &str| {
            if let Ok(address) = text.parse() {
                return Some(Place::Address(address));
            }
            let plain = |c: char| c.is_ascii_graphic() && !"/:=@".contains(c);
            (!text.is_empty() && text.len() <= NAME_MAX && text.chars().all(plain) && !text.starts_with('.'))
                .then(|| Place::Interface(text.to_owned()))
        };
        if let Some(place) = place(text) {
            return Ok(Self { place, index: None });
        }
        let parse = || {
            let (rest, index) = text.rsplit_once(':')?;
            let index = index.bytes().all(|byte| byte.is_ascii_digit()).then(|| index.parse().ok())??;
            Some(Self { place: place(rest)?, index: Some(index) })
        };
        parse().ok_or_else(|| InvalidFunction(text.to_owned()))
    }
}

impl fmt::Display for VirtualFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Interface(name) => f.write_str(name)?,
            Place::Address(address) => address.fmt(f)?,
        }
        match self.index {
            Some(index) => write!(f, ":{index}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_by_interface_or_address() {
        let parse = |text: &str| text.parse::<VirtualFunction>().unwrap();
        assert_eq!(parse("enp3s0"), VirtualFunction { place: Place::Interface("enp3s0".into()), index: None });
        assert_eq!(parse("enp3s0:12").index, Some(12));
        assert_eq!(parse("0000:03:00.0").place, Place::Address("03:00.0".parse().unwrap()));
        assert_eq!(parse("03:00.0:1").index, Some(1));
        for text in ["enp3s0", "enp3s0:1", "0000:03:00.0", "0000:03:00.0:7"] {
            assert_eq!(parse(text).to_string(), text);
        }
        for wrong in
            ["", ":1", "a/b", "enp3s0:", "enp3s0:x", "enp3s0:-1", "enp3s0:+1", "a b", "..", "longer-than-any-name"]
        {
            let error = wrong.parse::<VirtualFunction>().unwrap_err().to_string();
            assert!(error.contains("enp3s0:1"), "{wrong:?}: {error}");
        }
    }
}
