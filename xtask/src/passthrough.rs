//! PCI functions named on the command line: `--vf 0000:03:10.0` or `--pci 0000:03:00.0=52:54:00:12:34:56`.
//!
//! An image finds its interfaces by their MAC addresses. That of a virtual function is known to its physical function;
//! that of a whole device cannot be read while it waits for a guest, so it has to be given.

use crate::command;
use crate::standalone::Passed;
use anyhow::{Context, Result, bail};
use slim_controller::hypervisor::PciAddress;
use slim_controller::hypervisor::passthrough::{FunctionKind, Host, check};
use slim_controller::net::MacAddress;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// A function as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    address: PciAddress,
    mac: Option<MacAddress>,
}

impl FromStr for Function {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, mac) = match text.split_once('=') {
            Some((address, mac)) => (address, Some(mac)),
            None => (text, None),
        };
        let mac =
            mac.map(|text| interface_mac(text).ok_or_else(|| format!("{text:?} is not an interface's MAC address")));
        Ok(Self { address: address.parse::<PciAddress>().map_err(|error| error.to_string())?, mac: mac.transpose()? })
    }
}

/// Reads a MAC address that an interface can have: neither zero nor a group's.
fn interface_mac(text: &str) -> Option<MacAddress> {
    let mac: MacAddress = text.parse().ok()?;
    (mac != MacAddress([0; 6]) && !mac.is_multicast()).then_some(mac)
}

/// Checks that the host can give `function` to a guest with `memory_mb` MiB, and learns its MAC address.
pub fn resolve(function: &Function, kind: FunctionKind, memory_mb: u32) -> Result<Passed> {
    let address = function.address;
    check(&Host::this(), address, kind, memory_mb)?;
    if let Some(mac) = function.mac {
        return Ok(Passed { address, mac });
    }
    let Some((interface, index)) = physical(Path::new("/sys/bus/pci/devices"), address) else {
        bail!(
            "the MAC address of {address} cannot be read while it is bound to vfio-pci, and the guest finds its \
             interfaces by it: append it, as in {address}=52:54:00:12:34:56"
        );
    };
    let shown = command::output(Command::new("ip").args(["-json", "link", "show", "dev", &interface]))?;
    let mac = virtual_function_mac(&shown, index)?.with_context(|| {
        format!(
            "virtual function {index} of {interface} ({address}) has no MAC address yet: give it one with \
             `ip link set {interface} vf {index} mac 52:54:00:12:34:56`"
        )
    })?;
    Ok(Passed { address, mac })
}

/// The network interface of `address`'s physical function, and which of its virtual functions it is.
fn physical(devices: &Path, address: PciAddress) -> Option<(String, u32)> {
    let parent = devices.join(address.to_string()).join("physfn");
    let interface = fs::read_dir(parent.join("net")).ok()?.find_map(Result::ok)?.file_name().into_string().ok()?;
    let is_us = |link: &PathBuf| fs::read_link(link).is_ok_and(|to| to.ends_with(address.to_string()));
    let index = (0..256).find(|index| is_us(&parent.join(format!("virtfn{index}"))))?;
    Some((interface, index))
}

/// The MAC address of virtual function `index` in the output of `ip -json link show`, `None` while it has none.
fn virtual_function_mac(shown: &str, index: u32) -> Result<Option<MacAddress>> {
    let links: serde_json::Value = serde_json::from_str(shown).context("`ip -json` did not print JSON")?;
    let functions = links.pointer("/0/vfinfo_list").and_then(|list| list.as_array()).map_or(&[][..], Vec::as_slice);
    let ours = functions.iter().find(|function| function["vf"].as_u64() == Some(u64::from(index)));
    // Newer versions of iproute2 say "address" where older ones said "mac".
    let text = ours.and_then(|function| function["mac"].as_str().or_else(|| function["address"].as_str()));
    Ok(text.and_then(interface_mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_function_may_carry_its_mac_address() {
        let bare: Function = "0000:03:10.0".parse().expect("valid");
        assert_eq!(bare.mac, None);
        let with: Function = "0000:03:10.0=52:54:00:12:34:56".parse().expect("valid");
        assert_eq!(with.address, bare.address);
        assert_eq!(with.mac, Some(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
        assert!("nonsense".parse::<Function>().is_err());
        assert!("0000:03:10.0=nonsense".parse::<Function>().is_err());
        assert!("0000:03:10.0=01:00:5e:00:00:01".parse::<Function>().is_err(), "a group address");
    }

    #[test]
    fn a_virtual_function_is_found_at_its_physical_one() {
        let devices = tempfile::tempdir().expect("temporary folder");
        let parent = devices.path().join("0000:03:00.0");
        fs::create_dir_all(parent.join("net/enp3s0")).expect("create");
        for (index, function) in ["0000:03:10.0", "0000:03:10.2"].iter().enumerate() {
            let folder = devices.path().join(function);
            fs::create_dir(&folder).expect("create");
            symlink("../0000:03:00.0", folder.join("physfn")).expect("link");
            symlink(format!("../{function}"), parent.join(format!("virtfn{index}"))).expect("link");
        }
        let find = |address: &str| physical(devices.path(), address.parse().expect("valid"));
        assert_eq!(find("0000:03:10.2"), Some(("enp3s0".to_owned(), 1)));
        assert_eq!(find("0000:03:00.0"), None, "a physical function");
    }

    #[test]
    fn its_mac_address_is_read_from_ip() {
        let shown = r#"[{"ifname":"enp3s0","vfinfo_list":[
            {"vf":0,"mac":"00:00:00:00:00:00"},{"vf":1,"mac":"52:54:00:12:34:56"},{"vf":2,"address":"52:54:00:12:34:57"}]}]"#;
        let mac = |index| virtual_function_mac(shown, index).expect("JSON").map(|mac| mac.to_string());
        assert_eq!(mac(0), None, "not set yet");
        assert_eq!(mac(1).as_deref(), Some("52:54:00:12:34:56"));
        assert_eq!(mac(2).as_deref(), Some("52:54:00:12:34:57"));
        assert_eq!(mac(3), None);
        assert_eq!(virtual_function_mac("[{}]", 0).expect("JSON"), None);
        assert!(virtual_function_mac("Device not found", 0).is_err());
    }
}
