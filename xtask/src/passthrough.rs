//! PCI functions for the interfaces of one of our network functions.

use crate::vnf::Vnf;
use anyhow::{Result, ensure};
use slim_controller::hypervisor::borrowed::{self, NamedVirtual, NamedWhole, PassedPort, Request};

/// What to borrow for the first interfaces of `vnf`: the virtual functions, then the whole ones.
pub fn requests(vnf: &Vnf, virtuals: &[NamedVirtual], wholes: &[NamedWhole]) -> Result<Vec<Request>> {
    for whole in wholes {
        ensure!(whole.vlan.is_none(), "{whole}: only of a virtual function can the VLAN be chosen");
    }
    let port =
        |(index, name): (usize, &&str)| PassedPort { name: (*name).to_owned(), mac: vnf.macs.get(index).copied() };
    let ports: Vec<PassedPort> = vnf.ports.iter().enumerate().map(port).collect();
    Ok(borrowed::requests(vnf.name, &ports, virtuals, wholes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnf;

    #[test]
    fn our_network_functions_know_their_addresses() {
        let nat = vnf::find("nat").expect("exists");
        let virtuals = ["enp3s0", "enp3s0"].map(|text| text.parse().expect("valid"));
        let requests = requests(nat, &virtuals, &[]).expect("two for two");
        let [first, Request::Virtual { mac, .. }] = &requests[..] else { panic!("{requests:?}") };
        assert!(matches!(first, Request::Virtual { any_source: false, .. }));
        assert_eq!(mac.to_string(), "02:51:1a:00:00:02");
    }
}
