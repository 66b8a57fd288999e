//! The management NIC, which stays with the kernel: found by its MAC address, now or later.

use super::netlink::Netlink;
use super::{Error, nics};
use crate::config::Management;
use std::time::Duration;

/// How often a NIC that is not there is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Brings up the loopback interface and the management NIC. If that is not there yet, a thread waits for it.
pub fn bring_up(management: Management) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    netlink.up("lo")?;
    // The configuration was checked for it.
    let mac = management.mac.unwrap_or_default();
    if let Some(interface) = nics::interface(mac) {
        return configure(&mut netlink, &interface, &management);
    }
    log::warn!("no NIC has the management MAC address {mac}: waiting for it");
    let wait = move || {
        let interface = loop {
            std::thread::sleep(LOOK);
            if let Some(interface) = nics::interface(mac) {
                break interface;
            }
        };
        if let Err(error) = configure(&mut netlink, &interface, &management) {
            log::error!("management: {error}");
        }
    };
    let thread = std::thread::Builder::new().name("management".into()).stack_size(64 << 10).spawn(wait);
    thread.map(drop).map_err(|source| Error::Network { operation: "wait for the management NIC", source })
}

fn configure(netlink: &mut Netlink, interface: &str, management: &Management) -> Result<(), Error> {
    netlink.up(interface)?;
    netlink.add_address(interface, management.address)?;
    if let Some(gateway) = management.gateway {
        netlink.add_default_route(interface, gateway)?;
    }
    let (address, len) = (management.address.address, management.address.len);
    log::info!("management: {interface} has {address}/{len}");
    Ok(())
}
