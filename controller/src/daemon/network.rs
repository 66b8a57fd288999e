//! The switch's external ports, and the controller's own place in the management network.

use super::{Daemon, DaemonError};
use crate::net::Ipv4Interface;
use nix::ifaddrs::getifaddrs;
use slim_core::protocol::control::PortKind;
use std::process::{Command, Stdio};

impl Daemon {
    /// Opens the external ports of the deployment and joins the management network.
    pub(super) fn set_up_network(&self) -> Result<(), DaemonError> {
        for external in &self.deployment.externals {
            if let Some(kind) = &external.kind {
                self.fabric.add_external(&external.name, kind)?;
            }
        }
        let management = &self.deployment.management;
        let Some(external) = self.deployment.externals.iter().find(|external| external.name == management.port) else {
            // Nothing but processes, which are reached without the switch.
            return Ok(());
        };
        self.fabric.set_management(std::slice::from_ref(&management.port))?;
        match &external.kind {
            Some(PortKind::Tap { interface }) => join(interface, management.controller),
            // Somebody else looks after the other end.
            _ => Ok(()),
        }
    }
}

/// Gives our address to the interface that leads into the management network, and sets it up.
fn join(interface: &str, address: Ipv4Interface) -> Result<(), DaemonError> {
    if has_address(interface, address) && is_up(interface) {
        return Ok(());
    }
    let address = address.to_string();
    let commands =
        [vec!["ip", "address", "replace", &address, "dev", interface], vec!["ip", "link", "set", interface, "up"]];
    for words in &commands {
        let failed = |reason: String| {
            let all: Vec<String> = commands.iter().map(|words| format!("  sudo {}", words.join(" "))).collect();
            DaemonError::Network(format!(
                "the controller cannot join the management network by itself ({reason}); do it for it:\n{}",
                all.join("\n")
            ))
        };
        let output = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(format!("{}: {error}", words[0])))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
    }
    Ok(())
}

fn has_address(interface: &str, address: Ipv4Interface) -> bool {
    getifaddrs().is_ok_and(|mut interfaces| {
        interfaces.any(|found| {
            found.interface_name == interface
                && found
                    .address
                    .as_ref()
                    .and_then(|found| found.as_sockaddr_in())
                    .is_some_and(|found| found.ip() == address.address)
        })
    })
}

fn is_up(interface: &str) -> bool {
    use nix::net::if_::InterfaceFlags;
    getifaddrs().is_ok_and(|mut interfaces| {
        interfaces.any(|found| found.interface_name == interface && found.flags.contains(InterfaceFlags::IFF_UP))
    })
}
