//! Which NIC is which: PCI functions of the Ethernet class and the MAC addresses their kernel drivers report.

use super::Error;
use slim_core::packet::MacAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An Ethernet function on the PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The PCI address, as in `0000:00:03.0`.
    pub address: String,
    /// The MAC address, if a kernel driver made an interface of it.
    pub mac: Option<MacAddr>,
    /// The interface's name, likewise.
    pub interface: Option<String>,
    /// The driver it is bound to.
    pub driver: Option<String>,
}

/// The roles of the NICs of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// For each dataplane port, the NIC with its MAC address, if the kernel can see one.
    pub ports: Vec<Option<Nic>>,
    /// Ethernet functions no kernel driver has: among them must be the ports not found by their address.
    pub unknown: Vec<Nic>,
    /// The interface for management, if it is there already.
    pub management: Option<String>,
}

const DEVICES: &str = "/sys/bus/pci/devices";

/// All Ethernet functions, in the order of their addresses.
pub fn all() -> Result<Vec<Nic>, Error> {
    scan(Path::new(DEVICES))
}

fn scan(devices: &Path) -> Result<Vec<Nic>, Error> {
    let failed = |source| Error::File { operation: "list", path: devices.into(), source };
    let mut nics = Vec::new();
    for entry in std::fs::read_dir(devices).map_err(failed)?.filter_map(Result::ok) {
        let path = entry.path();
        let class = std::fs::read_to_string(path.join("class")).unwrap_or_default();
        if !class.trim().starts_with("0x0200") {
            continue;
        }
        let interface = interface_directory(&path);
        let address = |path: &PathBuf| std::fs::read_to_string(path.join("address")).ok()?.trim().parse().ok();
        nics.push(Nic {
            address: entry.file_name().to_string_lossy().into_owned(),
            mac: interface.as_ref().and_then(address),
            interface: interface.as_ref().and_then(file_name),
            driver: std::fs::read_link(path.join("driver")).ok().as_ref().and_then(file_name),
        });
    }
    nics.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(nics)
}

/// `net/<name>` of a physical NIC, `virtio<n>/net/<name>` of a virtual one.
fn interface_directory(device: &Path) -> Option<PathBuf> {
    let first = |directory: &Path| std::fs::read_dir(directory).ok()?.find_map(Result::ok).map(|entry| entry.path());
    first(&device.join("net")).or_else(|| {
        let children = std::fs::read_dir(device).ok()?.filter_map(Result::ok);
        let mut virtio = children.filter(|child| child.file_name().to_string_lossy().starts_with("virtio"));
        virtio.find_map(|child| first(&child.path().join("net")))
    })
}

#[allow(clippy::ptr_arg)] // passed to `Option<PathBuf>::and_then`
fn file_name(path: &PathBuf) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// Assigns the NICs in `nics` to `ports` and management by their MAC addresses.
///
/// # Errors
/// [`Error::NoSuchNic`] if a port's NIC is not there and there are not enough without a kernel driver either.
pub fn assign(nics: &[Nic], ports: &[(String, MacAddr)], management: MacAddr) -> Result<Roles, Error> {
    let with_mac = |mac: MacAddr| nics.iter().find(|nic| nic.mac == Some(mac));
    let found: Vec<Option<Nic>> = ports.iter().map(|(_, mac)| with_mac(*mac).cloned()).collect();
    let unknown: Vec<Nic> = nics.iter().filter(|nic| nic.mac.is_none()).cloned().collect();
    let missing = found.iter().zip(ports).filter(|(nic, _)| nic.is_none()).map(|(_, port)| port);
    if let Some((name, mac)) = missing.skip(unknown.len()).last() {
        return Err(no_such_nic(nics, *mac, format!("port {name:?}")));
    }
    let management = with_mac(management).and_then(|nic| nic.interface.clone());
    Ok(Roles { ports: found, unknown, management })
}

/// Waits until every dataplane port has its NIC, then assigns roles.
pub fn wait(ports: &[(String, MacAddr)], management: MacAddr, patience: Duration) -> Result<Roles, Error> {
    let deadline = Instant::now() + patience;
    loop {
        match all().and_then(|nics| assign(&nics, ports, management)) {
            Err(Error::NoSuchNic { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// The interface with the MAC address `mac`, if it is there.
pub fn interface(mac: MacAddr) -> Option<String> {
    all().ok()?.into_iter().find(|nic| nic.mac == Some(mac))?.interface
}

/// The error for a NIC that is not there, with a list of those that are.
pub fn no_such_nic(nics: &[Nic], mac: MacAddr, role: String) -> Error {
    let describe = |nic: &Nic| match nic.mac {
        Some(mac) => format!("{} ({mac})", nic.address),
        None => format!("{} (MAC address unknown)", nic.address),
    };
    let present = nics.iter().map(describe).collect::<Vec<_>>().join(", ");
    let present = if present.is_empty() { "none".into() } else { present };
    Error::NoSuchNic { mac, role, present }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mac(last: u8) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, 0, last])
    }

    fn ports() -> Vec<(String, MacAddr)> {
        vec![("in".into(), mac(1)), ("out".into(), mac(2))]
    }

    fn nic(address: &str, mac: Option<MacAddr>) -> Nic {
        let interface = mac.map(|_| format!("eth-{address}"));
        Nic { address: address.into(), mac, interface, driver: mac.map(|_| "virtio-pci".into()) }
    }

    #[test]
    fn reads_virtio_physical_and_driverless_functions() {
        let root = std::env::temp_dir().join(format!("slim-nics-{}", std::process::id()));
        let device = |address: &str, class: &str, net: Option<(&str, u8)>| {
            let path = root.join(address);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("class"), format!("{class}\n")).unwrap();
            if let Some((net, last)) = net {
                let net = path.join(net);
                std::fs::create_dir_all(&net).unwrap();
                std::fs::write(net.join("address"), format!("{}\n", mac(last))).unwrap();
                symlink("../../drivers/some-driver", path.join("driver")).unwrap();
            }
        };
        device("0000:00:03.0", "0x020000", Some(("virtio0/net/eth0", 1)));
        device("0000:00:02.0", "0x020000", Some(("net/eth1", 2)));
        device("0000:00:04.0", "0x020000", None);
        device("0000:00:1f.0", "0x060100", None);
        let nics = scan(&root).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        let driver = Some("some-driver".to_string());
        let with = |address: &str, last, interface: &str| Nic {
            address: address.into(),
            mac: Some(mac(last)),
            interface: Some(interface.into()),
            driver: driver.clone(),
        };
        assert_eq!(nics, [with("0000:00:02.0", 2, "eth1"), with("0000:00:03.0", 1, "eth0"), nic("0000:00:04.0", None)]);
    }

    #[test]
    fn roles_follow_mac_addresses_not_slots() {
        let nics = [nic("a", Some(mac(3))), nic("b", Some(mac(2))), nic("c", Some(mac(1)))];
        let roles = assign(&nics, &ports(), mac(3)).unwrap();
        assert_eq!(roles.ports, [Some(nics[2].clone()), Some(nics[1].clone())]);
        assert_eq!(roles.management.as_deref(), Some("eth-a"));
        assert!(roles.unknown.is_empty());
    }

    #[test]
    fn a_missing_nic_is_named_unless_a_driverless_one_may_be_it() {
        let nics = [nic("a", Some(mac(3))), nic("b", Some(mac(2)))];
        let error = assign(&nics, &ports(), mac(3)).unwrap_err().to_string();
        assert!(error.contains("00:01 of port \"in\"; there are a (52:54:00:00:00:03), b ("), "{error}");
        let passthrough = [nic("a", Some(mac(3))), nic("b", None), nic("c", None)];
        let roles = assign(&passthrough, &ports(), mac(9)).unwrap();
        assert_eq!((roles.ports, roles.unknown.len(), roles.management), (vec![None, None], 2, None));
        let error = assign(&passthrough[..2], &ports(), mac(3)).unwrap_err().to_string();
        assert!(error.contains("port \"out\""), "{error}");
    }
}
