//! PCI functions named on the command line: `--vf enp3s0:1`, or `--pci 0000:03:00.0=52:54:00:12:34:56`.
//!
//! An image finds its interfaces by their MAC addresses. A virtual function is given the network function's own, so that
//! the NIC's switch delivers its frames and its spoof check lets them out; that of a whole device cannot be chosen.

use crate::vnf::Vnf;
use anyhow::{Context, Result, ensure};
use slim_controller::hypervisor::PciAddress;
use slim_controller::hypervisor::borrowed::{Request, VirtualFunction};
use slim_controller::net::MacAddress;
use std::str::FromStr;

/// A function as it is named on the command line, `T` being how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function<T> {
    named: T,
    mac: Option<MacAddress>,
}

/// The value of `--vf`.
pub type Virtual = Function<VirtualFunction>;

/// The value of `--pci`.
pub type Whole = Function<PciAddress>;

impl<T: FromStr> FromStr for Function<T>
where
    T::Err: ToString,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (named, mac) = match text.split_once('=') {
            Some((named, mac)) => (named, Some(mac)),
            None => (text, None),
        };
        let mac =
            mac.map(|text| interface_mac(text).ok_or_else(|| format!("{text:?} is not an interface's MAC address")));
        Ok(Self { named: named.parse().map_err(|error: T::Err| error.to_string())?, mac: mac.transpose()? })
    }
}

/// Reads a MAC address that an interface can have: neither zero nor a group's.
fn interface_mac(text: &str) -> Option<MacAddress> {
    let mac: MacAddress = text.parse().ok()?;
    (mac != MacAddress([0; 6]) && !mac.is_multicast()).then_some(mac)
}

/// What to borrow for the first interfaces of `vnf`: the virtual functions, then the whole ones.
pub fn requests(vnf: &Vnf, virtuals: &[Virtual], wholes: &[Whole]) -> Result<Vec<Request>> {
    let count = virtuals.len() + wholes.len();
    ensure!(
        count <= vnf.ports.len(),
        "{} has {} interfaces ({}), but {count} PCI functions were given",
        vnf.name,
        vnf.ports.len(),
        vnf.ports.join(", ")
    );
    let mut requests = Vec::new();
    for (index, function) in virtuals.iter().enumerate() {
        let own = *vnf.macs.get(index).with_context(|| format!("interface {index} has no MAC address of its own"))?;
        let mac = function.mac.unwrap_or(own);
        requests.push(Request::Virtual { function: function.named.clone(), mac, any_source: mac != own });
    }
    requests.extend(wholes.iter().map(|function| Request::Whole { address: function.named, mac: function.mac }));
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnf;

    #[test]
    fn a_function_may_carry_its_mac_address() {
        let bare: Whole = "0000:03:10.0".parse().expect("valid");
        assert_eq!(bare.mac, None);
        let with: Whole = "0000:03:10.0=52:54:00:12:34:56".parse().expect("valid");
        assert_eq!(with.named, bare.named);
        assert_eq!(with.mac, Some(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
        let of_interface: Virtual = "enp3s0:1=52:54:00:12:34:56".parse().expect("valid");
        assert_eq!((of_interface.named.index, of_interface.mac), (Some(1), with.mac));
        assert!("nonsense".parse::<Whole>().is_err());
        assert!("0000:03:10.0=nonsense".parse::<Whole>().is_err());
        assert!("0000:03:10.0=01:00:5e:00:00:01".parse::<Virtual>().is_err(), "a group address");
    }

    #[test]
    fn a_virtual_function_has_the_network_function_s_own_address() {
        let nat = vnf::find("nat").expect("exists");
        let parse = |text: &str| text.parse::<Virtual>().expect("valid");
        let virtuals = [parse("enp3s0"), parse("enp3s0=52:54:00:12:34:56")];
        let requests = requests(nat, &virtuals, &[]).expect("two for two");
        let [Request::Virtual { mac, any_source, .. }, second] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!((mac.to_string().as_str(), *any_source), ("02:51:1a:00:00:01", false));
        let Request::Virtual { any_source, .. } = second else { panic!("{second:?}") };
        assert!(any_source, "the spoof check would drop what the NAT sends from its own");
    }

    #[test]
    fn more_functions_than_interfaces_are_refused() {
        let nat = vnf::find("nat").expect("exists");
        let virtuals = ["enp3s0", "enp3s0"].map(|text| text.parse().expect("valid"));
        let wholes = ["0000:03:00.0".parse().expect("valid")];
        let error = requests(nat, &virtuals, &wholes).expect_err("three for two");
        assert!(error.to_string().contains("2 interfaces (in, out), but 3"), "{error}");
    }
}
