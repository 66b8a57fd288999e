//! `deployment.toml`: what the daemon works with, read strictly and resolved.
//!
//! [`Deployment::read`] is the only door. What it returns has every default filled in, relative paths resolved against
//! the file's folder, and has been checked as far as that goes without touching the switch or an image; every complaint
//! names the key it is about.

mod file;

use crate::hypervisor::Accel;
use crate::hypervisor::placement::{CpuChoice, HugePages};
use crate::net::{Ipv4Interface, MacAddress};
use crate::peer::Endpoint;
use crate::timeouts::Timeouts;
use slim_core::protocol::Name;
use slim_core::protocol::control::{LinkSettings, PortKind};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that overrides the daemon's socket for daemon and clients.
pub const SOCKET_ENV: &str = "SLIM_SOCKET";

/// Where an instance listens for its control connection, unless its configuration says otherwise.
pub const CONTROL_PORT: u16 = 7001;

/// Where an instance listens for streams, unless its configuration says otherwise.
pub const STATE_PORT: u16 = 7002;

/// A deployment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or type that does not belong there. The message shows where.
    #[error("{}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The place, the line and what is wrong with it.
        message: String,
    },
    /// A value is not acceptable.
    #[error("{}: {key}: {message}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key, with its tables, as it would be written in TOML.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Everything the daemon is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Where the daemon listens for `slimctl`.
    pub socket: PathBuf,
    /// The folder for sockets, configurations and console logs.
    pub run_dir: PathBuf,
    /// Whether instances go on when the daemon ends, for the next one to take charge of.
    pub keep: bool,
    /// Who is who.
    pub trust: Trust,
    /// The switch agent's control socket.
    pub switch: Endpoint,
    /// The interface by which the switch reaches PCI functions that instances are given, each in a VLAN of its own.
    pub trunk: Option<String>,
    /// The network between controller and instances.
    pub management: Management,
    /// The switch's ports to the outside world.
    pub externals: Vec<External>,
    /// The link of every instance.
    pub link: LinkSettings,
    /// How long each phase of a migration may take.
    pub timeouts: Timeouts,
    /// The network functions that can be booted, by their name here.
    pub vnfs: BTreeMap<Name, Vnf>,
}

/// Where identities come from and how long they last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The folder that `slimctl init` has made.
    pub folder: PathBuf,
    /// How long an instance's identity is valid. It is renewed when a third of that has passed.
    pub identity_life: Duration,
    /// How long an instance's identity may have expired for this daemon to take it back, and to renew it.
    pub late: Duration,
    /// No identities and no encryption.
    pub plaintext: bool,
}

/// The management network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Management {
    /// The controller's own address in it.
    pub controller: Ipv4Interface,
    /// The first address given to an instance.
    pub first_instance: Ipv4Addr,
    /// The switch's external port of the segment, through which the controller reaches the instances.
    pub port: Name,
}

impl Management {
    /// The address of the instance with `index`, counted from 0, if the network has one.
    pub fn instance(&self, index: u8) -> Option<Ipv4Interface> {
        let address = Ipv4Addr::from_bits(self.first_instance.to_bits().checked_add(u32::from(index))?);
        let usable = self.controller.contains_host(address) && address != self.controller.address;
        usable.then_some(Ipv4Interface { address, prefix: self.controller.prefix })
    }
}

/// The MAC address of an instance's NIC: `52:54:00:<port>:00:<index>`, port 3 being the management one.
///
/// Derived, not drawn: the same instance always gets the same, which keeps address caches in the network valid.
pub fn instance_mac(port: u8, index: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0x00, port, 0x00, index.wrapping_add(0x0b)])
}

/// One of the switch's ports to the outside world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its name.
    pub name: Name,
    /// What the daemon makes it from; `None` if somebody else does.
    pub kind: Option<PortKind>,
}

/// A network function that can be booted.
#[derive(Debug, Clone, PartialEq)]
pub struct Vnf {
    /// The network function's kind, which names its section in an instance's configuration.
    pub kind: Name,
    /// What is run.
    pub source: Source,
    /// Its ports, in the network function's order, each with the external port it is bound to.
    pub ports: Vec<VnfPort>,
    /// Guest memory in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Which of the host's CPUs they may have.
    pub cpus: CpuChoice,
    /// Whether guest memory lies in reserved huge pages.
    pub huge_pages: HugePages,
    /// How guests are run.
    pub accel: Accel,
    /// How many idle instances to hold ready.
    pub pool: usize,
    /// More words for the guest kernel's command line.
    pub cmdline: String,
    /// The `[limits]` section of an instance's configuration.
    pub limits: toml::Table,
    /// The `[log]` section likewise.
    pub log: toml::Table,
    /// The network function's own section.
    pub config: toml::Table,
}

/// What an instance of a VNF is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A guest booted from the image in this folder.
    Image(PathBuf),
    /// This program, run as an ordinary process with `--process`.
    Program(PathBuf),
}

/// A port of a network function, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VnfPort {
    /// The port's name, such as `in`.
    pub name: Name,
    /// The external port of the switch whose traffic goes through it.
    pub external: Name,
    /// The MAC address that the network function sends from there, which a virtual function is given.
    pub mac: Option<MacAddress>,
}

impl Deployment {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Names the file, and the key or line that is wrong.
    pub fn read(path: &Path) -> Result<Self, DeploymentError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| DeploymentError::Unreadable { file: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads and checks `text`, which stands in the file at `path`.
    ///
    /// # Errors
    /// Names the key or line that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DeploymentError> {
        file::resolve(text, path)
    }

    /// The file of the switch's vhost-user socket for `port`.
    pub fn port_socket(&self, port: &Name) -> PathBuf {
        self.run_dir.join(format!("{}.sock", port.as_str()))
    }

    /// Where an instance on `address` listens for its control connection.
    pub fn control_endpoint(address: Ipv4Addr) -> Endpoint {
        Endpoint::Tcp(SocketAddr::from((address, CONTROL_PORT)))
    }
}

/// The daemon's socket if nothing else is said: `$SLIM_SOCKET`, `$XDG_RUNTIME_DIR/slim/slimctl.sock`, or
/// `/run/slim/slimctl.sock`.
pub fn default_socket() -> PathBuf {
    match std::env::var_os(SOCKET_ENV) {
        Some(socket) if !socket.is_empty() => socket.into(),
        _ => default_run_dir().join("slimctl.sock"),
    }
}

/// The run directory if nothing else is said.
pub fn default_run_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join("slim"),
        _ => PathBuf::from("/run/slim"),
    }
}

#[cfg(test)]
mod tests;
