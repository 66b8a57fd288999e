//! What the switch starts with: a TOML file of ports, instances and paths.
//!
//! ```toml
//! management = ["mgmt"]
//!
//! [[port]]
//! name = "inside"
//! kind = { type = "tap", interface = "slim-inside" }
//!
//! [[port]]
//! name = "nat-a.in"
//! kind = { type = "vhost_user", socket = "/run/slim/nat-a.in.sock" }
//!
//! [[instance]]
//! name = "nat-a"
//! ports = ["nat-a.in", "nat-a.out"]
//! mgmt = "nat-a.mgmt"
//! link = { rate_bps = 1_000_000_000, burst_bytes = 2_500_000, delay_us = 2_500 }
//! paths = ["inside", "outside"]
//! ```
//!
//! Everything in it can also be had, and changed, by requests on the control socket.

use crate::fifo::Bounds;
use crate::flow_space::FlowSpace;
use crate::{Binding, HeapBuffers, Limits, Switch, TopologyError};
use serde::Deserialize;
use slim_core::protocol::Name;
use slim_core::protocol::control::{LinkSettings, PortKind};
use slim_core::time::Instant;
use std::collections::HashMap;

/// The file's content. [`Config::parse`] checks it as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The ports, opened in this order.
    #[serde(rename = "port")]
    pub ports: Vec<PortConfig>,
    /// The external ports of the management segment.
    pub management: Vec<Name>,
    /// The instances.
    #[serde(rename = "instance")]
    pub instances: Vec<InstanceConfig>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// Its name.
    pub name: Name,
    /// What is behind it.
    pub kind: PortKind,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceConfig {
    /// Its name.
    pub name: Name,
    /// Its dataplane ports, in the network function's order.
    pub ports: Vec<Name>,
    /// Its management port.
    #[serde(default)]
    pub mgmt: Option<Name>,
    /// Its link in each direction; §VII's where nothing is said.
    #[serde(default)]
    pub link: LinkSettings,
    /// The external port of each dataplane port, in the same order; without, no traffic leads here yet.
    #[serde(default)]
    pub paths: Vec<PathConfig>,
}

/// The other end of a dataplane port's two paths: a port's name, or a table with a flow space.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PathConfig {
    /// All traffic of this external port.
    All(Name),
    /// Part of the traffic of an external port.
    Part(PartConfig),
}

/// Part of the traffic of an external port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartConfig {
    /// The external port.
    pub external: Name,
    /// The condition on the IPv4 source address, such as `10.1.0.0/24` or `0.0.0.1/0.0.0.1` for odd addresses.
    #[serde(default = "any")]
    pub source: String,
    /// The condition on the IPv4 destination address.
    #[serde(default = "any")]
    pub destination: String,
}

fn any() -> String {
    "any".into()
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is not TOML, or has a key or value that does not belong there.
    #[error("{0}")]
    Syntax(String),
    /// A port is not possible.
    #[error("port {name}: {reason}")]
    Port {
        /// The port.
        name: Name,
        /// Why not.
        reason: String,
    },
    /// A flow space is not one.
    #[error("instance {instance}: {text:?}: {reason}")]
    FlowSpace {
        /// The instance.
        instance: Name,
        /// What was written.
        text: String,
        /// Why it is wrong.
        reason: String,
    },
    /// Ports, instances and paths do not fit together.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Says what is wrong with it; whatever passes fails only for what the machine refuses.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Builds everything once without devices.
    fn check(&self) -> Result<(), ConfigError> {
        let mut switch = Switch::new(
            HeapBuffers,
            Limits { delay_packets: 0, lower_effort: Bounds { bytes: 0, packets: 0 }, ..Limits::default() },
        );
        let mut devices: HashMap<&str, &Name> = HashMap::new();
        for port in &self.ports {
            let refuse = |reason| ConfigError::Port { name: port.name.clone(), reason };
            let resource = check_kind(&port.kind).map_err(|error| refuse(error.to_string()))?;
            if let Some(other) = devices.insert(resource, &port.name) {
                return Err(refuse(format!("{resource} is port {other}'s already")));
            }
            switch.add_port(port.name.clone())?;
        }
        switch.set_management(&self.management)?;
        for instance in &self.instances {
            let (name, link) = (instance.name.clone(), instance.link);
            if self.instances.iter().filter(|other| other.name == name).count() > 1 {
                return Err(TopologyError::InstanceExists(name).into());
            }
            switch.add_instance(Instant::ZERO, name, &instance.ports, instance.mgmt.as_ref(), link)?;
        }
        for instance in &self.instances {
            switch.set_paths(&instance.name, &instance.bindings()?)?;
        }
        Ok(())
    }
}

impl InstanceConfig {
    /// The instance's paths.
    pub fn bindings(&self) -> Result<Vec<Binding>, ConfigError> {
        let bind = |path: &PathConfig| match path {
            PathConfig::All(external) => Ok(Binding { external: external.clone(), flow_space: FlowSpace::ANY }),
            PathConfig::Part(part) => {
                let (source, destination) = (self.address(&part.source)?, self.address(&part.destination)?);
                Ok(Binding { external: part.external.clone(), flow_space: FlowSpace { source, destination } })
            }
        };
        self.paths.iter().map(bind).collect()
    }

    fn address(&self, text: &str) -> Result<crate::flow_space::AddressMatch, ConfigError> {
        text.parse().map_err(|error: crate::flow_space::AddressMatchError| ConfigError::FlowSpace {
            instance: self.name.clone(),
            text: text.into(),
            reason: error.to_string(),
        })
    }
}

/// Why a port's kind is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// The path of a socket is empty, longer than the system takes, or has a character that device arguments cannot hold.
    #[error("a socket's path has 1 to {SOCKET_PATH_LEN_MAX} bytes, no comma and no control character")]
    SocketPath,
    /// The name of an interface is not one.
    #[error("an interface's name has 1 to 15 bytes, no slash, comma, colon, percent sign, space or control character")]
    Interface,
    /// Device arguments without a device.
    #[error("device arguments begin with a device, as in net_virtio_user0,path=/run/port.sock")]
    Devargs,
}

/// The longest path of a Unix socket that the system takes, its closing NUL not counted.
pub const SOCKET_PATH_LEN_MAX: usize = 107;

/// Checks what is behind a port, and returns the resource that only one port can have.
pub fn check_kind(kind: &PortKind) -> Result<&str, KindError> {
    let has_comma_or_control = |text: &str| text.chars().any(|one| one == ',' || one.is_control());
    match kind {
        PortKind::VhostUser { socket } | PortKind::VhostUserClient { socket } => {
            let bad = socket.is_empty() || socket.len() > SOCKET_PATH_LEN_MAX || has_comma_or_control(socket);
            if bad { Err(KindError::SocketPath) } else { Ok(socket) }
        }
        PortKind::Tap { interface } | PortKind::AfPacket { interface } => {
            let bad_char = |one: char| matches!(one, '/' | ':' | '%') || one.is_whitespace();
            let bad = matches!(interface.as_str(), "" | "." | "..")
                || interface.len() > 15
                || interface.chars().any(bad_char)
                || has_comma_or_control(interface);
            if bad { Err(KindError::Interface) } else { Ok(interface) }
        }
        PortKind::Vdev { devargs } => match devargs.split(',').next() {
            Some(device) if !device.is_empty() && !devargs.contains('\0') => Ok(device),
            _ => Err(KindError::Devargs),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        management = ["mgmt"]
        [[port]]
        name = "inside"
        kind = { type = "tap", interface = "slim-inside" }
        [[port]]
        name = "mgmt"
        kind = { type = "af_packet", interface = "eth1" }
        [[port]]
        name = "nat-a.in"
        kind = { type = "vhost_user", socket = "/run/slim/nat-a.in.sock" }
        [[port]]
        name = "nat-a.mgmt"
        kind = { type = "vdev", devargs = "net_ring0" }
        [[instance]]
        name = "nat-a"
        ports = ["nat-a.in"]
        mgmt = "nat-a.mgmt"
        link = { rate_bps = 100_000_000, burst_bytes = 250_000 }
        paths = [{ external = "inside", source = "0.0.0.1/0.0.0.1" }]
    "#;

    #[test]
    fn a_whole_configuration_is_understood() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.ports.len(), 4);
        let instance = &config.instances[0];
        assert_eq!(instance.link, LinkSettings { rate_bps: 100_000_000, burst_bytes: 250_000, delay_us: 2_500 });
        let binding = &instance.bindings().unwrap()[0];
        assert_eq!(binding.external.as_str(), "inside");
        assert_eq!(binding.flow_space.source.to_string(), "0.0.0.1/0.0.0.1");
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn every_mistake_is_named() {
        for (from, to, expected) in [
            ("management", "managment", "unknown field `managment`"),
            ("\"mgmt\"]", "\"none\"]", "there is no port named none"),
            ("slim-inside", "a-name-that-is-too-long", "port inside: an interface's name has 1 to 15 bytes"),
            ("slim-inside", "eth1", "port mgmt: eth1 is port inside's already"),
            ("net_ring0", "", "port nat-a.mgmt: device arguments begin with a device"),
            ("/run/slim/nat-a.in.sock", "/run/a,b", "port nat-a.in: a socket's path"),
            ("name = \"inside\"", "name = \"mgmt\"", "there is a port named mgmt already"),
            ("name = \"inside\"", "name = \"in side\"", "a name is 1 to 64 characters"),
            ("mgmt = \"nat-a.mgmt\"", "mgmt = \"nat-a.in\"", "port nat-a.in is named twice"),
            ("250_000", "100", "a burst of at least 1600 bytes"),
            ("external = \"inside\"", "external = \"mgmt\"", "port mgmt is in use: it belongs to the management"),
            ("0.0.0.1/0.0.0.1", "10.0.0.1/8", "instance nat-a: \"10.0.0.1/8\": the address has bits set outside"),
            ("type = \"tap\"", "type = \"tun\"", "unknown variant `tun`"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{to:?}: {error}");
        }
        let twice = format!("{GOOD}\n[[instance]]\nname = \"nat-a\"\nports = [\"nat-a.in\"]\nmgmt = \"nat-a.mgmt\"");
        assert!(Config::parse(&twice).unwrap_err().to_string().contains("an instance named nat-a already"));
    }
}
