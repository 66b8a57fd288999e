//! An instance alone: an image with interfaces that lead nowhere, for looking at it and for timing its boot.

use crate::vnf::Vnf;
use anyhow::{Context, Result};
use slim_controller::hypervisor::borrowed::Borrowed;
use slim_controller::hypervisor::{Image, Launch, Link, Nic};
use slim_controller::net::MacAddress;
use slim_controller::peer::{Endpoint, InstanceDialect, Peer, Trust};
use slim_core::protocol::Name;
use slim_core::protocol::control::{InstanceReply, InstanceRequest, Secret};
use slim_trust::{Authority, AuthorityError, Expected, Keyring, Role, Security};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// The guest's address in QEMU's own network, and the port it listens on there.
const MANAGEMENT_ADDRESS: &str = "10.0.2.15/24";
const CONTROL_PORT: u16 = 7001;

/// Where in the run's folder the identities of its deployment are, for whoever wants to connect to the instance.
pub const TRUST_FOLDER: &str = "trust";

/// Longer than anybody looks at one instance.
const IDENTITY_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long an instance may take to let us in, and to do what it is asked for: it may be emulated.
const CONTROL_PATIENCE: Duration = Duration::from_secs(20);

const MANAGEMENT_MAC: MacAddress = MacAddress([0x52, 0x54, 0x00, 0x03, 0x00, 0x0b]);

/// Describes an instance of `vnf` from the image in `folder`, its first interfaces being the functions `passed`.
///
/// With `control_port`, the instance's control connection is offered on that port of the host's loopback address.
pub fn launch(
    vnf: &Vnf,
    folder: &Path,
    run_dir: &Path,
    passed: &[Borrowed],
    control_port: Option<u16>,
) -> Result<Launch> {
    let name = format!("{}-alone", vnf.name);
    let mut launch = Launch::new(&name, Image::in_folder(folder)?, run_dir);
    let mut config = format!(
        "name = \"{name}\"\n\n[management]\nmac = \"{MANAGEMENT_MAC}\"\naddress = \"{MANAGEMENT_ADDRESS}\"\n\
         control_port = {CONTROL_PORT}\n\n"
    );
    for (index, port) in vnf.ports.iter().enumerate() {
        let number = u8::try_from(index + 1).context("too many interfaces")?;
        let (mac, nic) = match passed.get(index) {
            Some(passed) => (passed.mac, Nic::Passthrough { address: passed.address }),
            None => {
                let mac = MacAddress([0x52, 0x54, 0x00, number, 0x00, 0x0b]);
                (mac, Nic::Dataplane { link: Link::Unconnected, mac })
            }
        };
        write!(config, "[[port]]\nname = \"{port}\"\nmac = \"{mac}\"\n\n")?;
        launch.nics.push(nic);
    }
    let forward = control_port.map(|host| (host, CONTROL_PORT)).into_iter().collect();
    launch.nics.push(Nic::Management { link: Link::User { forward }, mac: MANAGEMENT_MAC });
    launch.config_toml = config + vnf.section;
    launch.identity = Some(identity(&name, &run_dir.join(TRUST_FOLDER))?);
    Ok(launch)
}

/// An identity for `name`, in a deployment of its own, made in `folder` if it is not there.
fn identity(name: &str, folder: &Path) -> Result<Secret> {
    let authority = match Authority::read(folder) {
        Err(AuthorityError::Missing(_)) => Authority::init(folder, Name::try_from("alone")?)?,
        result => result?,
    };
    let pem = authority.issue(Role::Instance, &Name::try_from(name)?, IDENTITY_LIFE)?;
    Ok(Secret::from(pem.to_string()))
}

/// Lets the instance that `launch` has described process packets, once it is ready.
pub fn activate(launch: &Launch, run_dir: &Path, control_port: u16) -> Result<()> {
    let keyring = Keyring::new(Authority::controller(&run_dir.join(TRUST_FOLDER))?);
    let trust = Trust {
        security: Security::Tls(keyring),
        expected: Expected::one(Role::Instance, Name::try_from(launch.name.as_str())?),
        late: Duration::ZERO,
    };
    let endpoint = Endpoint::Tcp((Ipv4Addr::LOCALHOST, control_port).into());
    let instance: Peer<InstanceDialect> = Peer::new(endpoint, trust)?;
    instance.wait_up(CONTROL_PATIENCE);
    match instance.call(InstanceRequest::Activate {}, CONTROL_PATIENCE)? {
        InstanceReply::Done => Ok(()),
        _ => Err(instance.unexpected().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnf;

    fn image() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for file in ["kernel", "initramfs"] {
            std::fs::write(folder.path().join(file), "").expect("write");
        }
        folder
    }

    #[test]
    fn configuration_and_interfaces_agree() {
        let folder = image();
        let nat = vnf::find("nat").expect("exists");
        let passed = Borrowed {
            address: "0000:03:10.0".parse().expect("valid"),
            mac: "02:00:00:00:00:07".parse().expect("valid"),
        };
        let launch = launch(nat, folder.path(), folder.path(), &[passed], Some(40_001)).expect("valid");
        let config: toml::Table = toml::from_str(&launch.config_toml).expect("valid TOML");
        let ports = config["port"].as_array().expect("a list");
        let macs: Vec<_> = ports.iter().map(|port| port["mac"].as_str().expect("text").to_owned()).collect();
        assert_eq!(macs[0], "02:00:00:00:00:07");
        assert_eq!(launch.nics[0], Nic::Passthrough { address: passed.address });
        let Nic::Dataplane { mac, .. } = launch.nics[1] else { panic!("the second port is virtual") };
        assert_eq!(macs[1], mac.to_string());
        let Nic::Management { mac, .. } = launch.nics[2] else { panic!("management comes last") };
        assert_eq!(config["management"]["mac"].as_str(), Some(mac.to_string().as_str()));
        assert!(config["nat"].is_table());
    }
}
