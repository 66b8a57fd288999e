//! Functions as an operator names them: `--vf enp3s0:1@101`, or `--pci 0000:03:00.0=52:54:00:12:34:56`.
//!
//! An image finds its interfaces by their MAC addresses. A virtual function is given the network function's own, so that
//! the NIC's switch delivers its frames; that of a whole device cannot be chosen.

use super::{Request, VirtualFunction};
use crate::hypervisor::PciAddress;
use crate::net::MacAddress;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A VLAN's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlan(u16);

impl Vlan {
    /// The number as frames carry it.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// The text is not the number of a VLAN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the number of a VLAN: they are 1 to 4094")]
pub struct InvalidVlan(String);

impl FromStr for Vlan {
    type Err = InvalidVlan;

    fn from_str(text: &str) -> Result<Self, InvalidVlan> {
        let number = text.parse().ok().filter(|number| (1..=4094).contains(number));
        number.map(Self).ok_or_else(|| InvalidVlan(text.to_owned()))
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A function as it is named on a command line, `T` being how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFunction<T> {
    /// Which.
    pub function: T,
    /// The VLAN behind `@`.
    pub vlan: Option<Vlan>,
    /// The MAC address behind `=`.
    pub mac: Option<MacAddress>,
}

/// The value of `--vf`.
pub type NamedVirtual = NamedFunction<VirtualFunction>;

/// The value of `--pci`.
pub type NamedWhole = NamedFunction<PciAddress>;

impl<T: FromStr> FromStr for NamedFunction<T>
where
    T::Err: ToString,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = |text: &'_ str, at| match text.split_once(at) {
            Some((head, tail)) => (head.to_owned(), Some(tail.to_owned())),
            None => (text.to_owned(), None),
        };
        let (rest, mac) = split(text, '=');
        let (function, vlan) = split(&rest, '@');
        let mac =
            mac.map(|text| interface_mac(&text).ok_or_else(|| format!("{text:?} is not an interface's MAC address")));
        let vlan = vlan.map(|text| text.parse().map_err(|error: InvalidVlan| error.to_string()));
        Ok(Self {
            function: function.parse().map_err(|error: T::Err| error.to_string())?,
            vlan: vlan.transpose()?,
            mac: mac.transpose()?,
        })
    }
}

impl<T: fmt::Display> fmt::Display for NamedFunction<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.function.fmt(f)?;
        self.vlan.iter().try_for_each(|vlan| write!(f, "@{vlan}"))?;
        self.mac.iter().try_for_each(|mac| write!(f, "={mac}"))
    }
}

/// The functions that an instance is given for its first interfaces: the virtual ones, then the whole ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Functions {
    /// Virtual functions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vf: Vec<NamedVirtual>,
    /// Whole ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pci: Vec<NamedWhole>,
}

impl Functions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vf.is_empty() && self.pci.is_empty()
    }

    /// Each as it was named, with its VLAN, in order.
    pub fn vlans(&self) -> impl Iterator<Item = (String, Option<Vlan>)> + '_ {
        let virtuals = self.vf.iter().map(|named| (named.to_string(), named.vlan));
        virtuals.chain(self.pci.iter().map(|named| (named.to_string(), named.vlan)))
    }
}

crate::net::serde_as_text!(NamedVirtual);
crate::net::serde_as_text!(NamedWhole);

/// Reads a MAC address that an interface can have: neither zero nor a group's.
fn interface_mac(text: &str) -> Option<MacAddress> {
    let mac: MacAddress = text.parse().ok()?;
    (mac != MacAddress([0; 6]) && !mac.is_multicast()).then_some(mac)
}

/// An interface of a network function that may be given a PCI function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedPort {
    /// Its name.
    pub name: String,
    /// The MAC address that the network function sends from, where it is known.
    pub mac: Option<MacAddress>,
}

/// Why functions do not become a network function's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// More functions than interfaces.
    #[error("{vnf} has {count} interfaces ({ports}), but {given} PCI functions were given", count = .ports.split(", ").count())]
    TooMany {
        /// The network function.
        vnf: String,
        /// Its interfaces.
        ports: String,
        /// How many functions were given.
        given: usize,
    },
    /// The MAC address is not known.
    #[error(
        "the MAC address of interface {0} is not known: append the network function's own, as in =02:51:1a:00:00:01"
    )]
    NoMac(String),
}

/// What to borrow for the first `ports` of `vnf`: the virtual functions, then the whole ones.
///
/// # Errors
/// They do not fit.
pub fn requests(
    vnf: &str,
    ports: &[PassedPort],
    virtuals: &[NamedVirtual],
    wholes: &[NamedWhole],
) -> Result<Vec<Request>, InvalidRequest> {
    let given = virtuals.len() + wholes.len();
    if given > ports.len() {
        let ports: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        return Err(InvalidRequest::TooMany { vnf: vnf.to_owned(), ports: ports.join(", "), given });
    }
    let mut requests = Vec::new();
    for (named, port) in virtuals.iter().zip(ports) {
        let mac = named.mac.or(port.mac).ok_or_else(|| InvalidRequest::NoMac(port.name.clone()))?;
        // In a VLAN of its own it is led to by a switch, to which it also sends what is not its own: see `inband`.
        let any_source = port.mac != Some(mac) || named.vlan.is_some();
        requests.push(Request::Virtual { function: named.function.clone(), mac, any_source, vlan: named.vlan });
    }
    requests.extend(wholes.iter().map(|named| Request::Whole { address: named.function, mac: named.mac }));
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Vec<PassedPort> {
        let port = |name: &str, mac: Option<&str>| PassedPort {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.parse().unwrap()),
        };
        vec![port("in", Some("02:51:1a:00:00:01")), port("out", None)]
    }

    fn of(virtuals: &[&str], wholes: &[&str]) -> Result<Vec<Request>, InvalidRequest> {
        let virtuals: Vec<_> = virtuals.iter().map(|text| text.parse().unwrap()).collect();
        let wholes: Vec<_> = wholes.iter().map(|text| text.parse().unwrap()).collect();
        requests("nat", &ports(), &virtuals, &wholes)
    }

    #[test]
    fn a_function_may_carry_a_vlan_and_a_mac_address() {
        let bare: NamedWhole = "0000:03:10.0".parse().unwrap();
        assert_eq!((bare.vlan, bare.mac), (None, None));
        let with: NamedVirtual = "enp3s0:1@101=52:54:00:12:34:56".parse().unwrap();
        assert_eq!((with.function.index, with.vlan), (Some(1), Some(Vlan(101))));
        assert_eq!(with.mac, Some(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
        for text in ["enp3s0", "enp3s0@7", "0000:03:00.0:1=52:54:00:12:34:56", "enp3s0:1@101=52:54:00:12:34:56"] {
            assert_eq!(text.parse::<NamedVirtual>().unwrap().to_string(), text);
        }
        assert!("nonsense".parse::<NamedWhole>().is_err());
        for wrong in ["enp3s0=nonsense", "enp3s0=01:00:5e:00:00:01", "enp3s0@0", "enp3s0@4095", "enp3s0@", "@5"] {
            assert!(wrong.parse::<NamedVirtual>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_virtual_function_has_the_network_function_s_own_address() {
        let requests = of(&["enp3s0", "enp3s0=52:54:00:12:34:56"], &[]).unwrap();
        let [Request::Virtual { mac, any_source, .. }, second] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!((mac.to_string().as_str(), *any_source), ("02:51:1a:00:00:01", false));
        let Request::Virtual { any_source, .. } = second else { panic!("{second:?}") };
        assert!(any_source, "the spoof check would drop what the network function sends from its own");
        let led = of(&["enp3s0@101"], &[]).unwrap();
        let [Request::Virtual { any_source, vlan, .. }] = &led[..] else { panic!("{led:?}") };
        assert!(any_source, "the spoof check would drop what it says to the switch");
        assert_eq!(*vlan, Some(Vlan(101)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = of(&["enp3s0", "enp3s0=52:54:00:12:34:56"], &["0000:03:00.0"]).unwrap_err().to_string();
        assert!(error.contains("nat has 2 interfaces (in, out), but 3"), "{error}");
        let error = of(&["enp3s0", "enp3s0"], &[]).unwrap_err().to_string();
        assert!(error.contains("interface out is not known"), "{error}");
    }
}
