//! From a `[vnf.…]` of the deployment to one instance of it: its ports, addresses and configuration.

use super::vlan::VlanLink;
use crate::deployment::{CONTROL_PORT, Deployment, STATE_PORT, Source, Vnf, VnfPort, instance_mac};
use crate::fabric::Plug;
use crate::hypervisor::borrowed::{self, Borrowed, Functions, InvalidRequest, PassedPort, Request};
use crate::hypervisor::native::ProcessLaunch;
use crate::hypervisor::{Image, Launch, LaunchError, Link, Nic};
use crate::net::Ipv4Interface;
use crate::peer::Endpoint;
use slim_core::protocol::Name;
use slim_core::protocol::control::{PortKind, Secret};
use std::path::PathBuf;
use std::time::SystemTime;

/// What the fourth octet of a management interface's MAC address is; dataplane ports count from 1.
const MANAGEMENT: u8 = 3;

/// Everything about one instance before it exists.
#[derive(Debug, Clone)]
pub(super) struct Blueprint {
    pub(super) name: Name,
    pub(super) vnf: Vnf,
    index: u8,
    address: Ipv4Interface,
    run_dir: PathBuf,
    outlives_us: bool,
    plug: Plug,
    functions: Functions,
    vlans: Vec<VlanLink>,
}

/// The files that instances are started from, as they were at some time: where they lie, how long they are and when they
/// were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(Vec<(PathBuf, Option<(u64, SystemTime)>)>);

impl Origin {
    /// As they are now.
    pub(super) fn of(source: &Source) -> Self {
        let files = match source {
            Source::Image(folder) => vec![folder.join("kernel"), folder.join("initramfs")],
            Source::Program(program) => vec![program.clone()],
        };
        let seen = |file: &PathBuf| {
            let metadata = file.metadata().ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        Self(files.into_iter().map(|file| (file.clone(), seen(&file))).collect())
    }
}

/// What to start.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Start {
    Guest(Box<Launch>),
    Process(Box<ProcessLaunch>),
}

impl Blueprint {
    /// The instance `name` of `vnf`, the `index`th on this host.
    ///
    /// # Errors
    /// In words, if addresses or names have run out.
    pub(super) fn new(deployment: &Deployment, name: &Name, vnf: &Vnf, index: u8) -> Result<Self, String> {
        let address = deployment.management.instance(index).ok_or_else(|| {
            format!("the management network {} has no address left", deployment.management.controller)
        })?;
        let port = |suffix: &str| {
            let port = Name::try_from(format!("{}.{suffix}", name.as_str()))
                .map_err(|error| format!("no name for port {suffix}: {error}"))?;
            let socket = deployment.port_socket(&port);
            // The kernel's limit for the name of a Unix socket.
            if socket.as_os_str().len() > 107 {
                return Err(format!("{} is too long for a socket's name: choose a shorter run_dir", socket.display()));
            }
            let socket = socket.to_string_lossy().into_owned();
            let kind = match vnf.source {
                Source::Image(_) => PortKind::VhostUser { socket },
                // Only the side that listens survives a restart of the other: for a process it is the process.
                Source::Program(_) => PortKind::VhostUserClient { socket },
            };
            Ok((port, kind))
        };
        let ports = vnf.ports.iter().map(|vnf_port| port(vnf_port.name.as_str())).collect::<Result<_, String>>()?;
        let management = match vnf.source {
            Source::Image(_) => Some(port("mgmt")?),
            // A process uses an address that the host has already.
            Source::Program(_) => None,
        };
        let plug = Plug { instance: name.clone(), ports, management, link: deployment.link };
        Ok(Self {
            name: name.clone(),
            vnf: vnf.clone(),
            index,
            address,
            run_dir: deployment.run_dir.clone(),
            outlives_us: deployment.keep,
            plug,
            functions: Functions::default(),
            vlans: Vec::new(),
        })
    }

    /// The same with PCI functions of the host for its first ports. The switch reaches each in its VLAN.
    ///
    /// # Errors
    /// In words, if that is not possible.
    pub(super) fn with_functions(mut self, deployment: &Deployment, functions: &Functions) -> Result<Self, String> {
        if functions.is_empty() {
            return Ok(self);
        }
        let Source::Image(_) = self.vnf.source else {
            return Err("an ordinary process cannot be given PCI functions: that takes an image".into());
        };
        let trunk = deployment.trunk.as_ref().ok_or(
            "how the switch reaches PCI functions is not known: name the interface at the other end of their cable as \
             `trunk` in [switch] of the deployment",
        )?;
        for (port, (named, vlan)) in self.plug.ports.iter_mut().zip(functions.vlans()) {
            let vlan = vlan.ok_or_else(|| {
                format!("say in which VLAN {named} is to be, as in {named}@101: by that the switch leads packets to it")
            })?;
            let link = VlanLink::new(trunk, vlan);
            if self.vlans.contains(&link) {
                return Err(format!("two ports cannot be in the same VLAN {vlan}"));
            }
            port.1 = PortKind::AfPacket { interface: link.name() };
            self.vlans.push(link);
        }
        self.functions = functions.clone();
        self.requests().map_err(|error| error.to_string())?;
        Ok(self)
    }

    /// The functions that it is given.
    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The interfaces by which the switch reaches them.
    pub(super) fn vlans(&self) -> &[VlanLink] {
        &self.vlans
    }

    /// What to borrow for it.
    pub(super) fn requests(&self) -> Result<Vec<Request>, InvalidRequest> {
        let port = |port: &VnfPort| PassedPort { name: port.name.as_str().to_owned(), mac: port.mac };
        let ports: Vec<PassedPort> = self.vnf.ports.iter().map(port).collect();
        borrowed::requests(self.vnf.kind.as_str(), &ports, &self.functions.vf, &self.functions.pci)
    }

    /// What the fabric has to provide.
    pub(super) fn plug(&self) -> &Plug {
        &self.plug
    }

    /// The external ports its dataplane ports are bound to, in order.
    pub(super) fn externals(&self) -> Vec<Name> {
        self.vnf.ports.iter().map(|port| port.external.clone()).collect()
    }

    /// Where it will listen for its control connection.
    pub(super) fn control(&self) -> Endpoint {
        Deployment::control_endpoint(self.address.address)
    }

    /// The port's fourth octet in MAC addresses; skips that of the management interface.
    fn octet(position: usize) -> u8 {
        let octet = u8::try_from(position).unwrap_or(u8::MAX - 2) + 1;
        if octet >= MANAGEMENT { octet + 1 } else { octet }
    }

    /// What to start, with its configuration, its identity, if it has one, and the functions it was given.
    ///
    /// # Errors
    /// The image is not there.
    pub(super) fn start(&self, identity: Option<Secret>, passed: &[Borrowed]) -> Result<Start, LaunchError> {
        let name = self.name.as_str();
        match &self.vnf.source {
            Source::Image(folder) => {
                let mut launch = Launch::new(name, Image::in_folder(folder)?, &self.run_dir);
                launch.config_toml = self.config(identity.is_some(), passed);
                launch.identity = identity;
                launch.memory_mb = self.vnf.memory_mb;
                launch.vcpus = self.vnf.vcpus;
                launch.cpus = self.vnf.cpus.clone();
                launch.huge_pages = self.vnf.huge_pages;
                launch.accel = self.vnf.accel;
                launch.extra_cmdline.clone_from(&self.vnf.cmdline);
                launch.outlives_us = self.outlives_us;
                launch.nics = self.nics(passed);
                Ok(Start::Guest(Box::new(launch)))
            }
            Source::Program(program) => Ok(Start::Process(Box::new(ProcessLaunch {
                name: name.to_owned(),
                program: program.clone(),
                config_toml: self.config(identity.is_some(), passed),
                identity,
                identity_file: self.identity_file(),
                config_file: self.run_dir.join(format!("{name}.toml")),
                console_log: self.run_dir.join(format!("{name}.console.log")),
                sockets: self.sockets(),
                outlives_us: self.outlives_us,
            }))),
        }
    }

    /// The sockets a process listens on.
    fn sockets(&self) -> Vec<PathBuf> {
        let socket = |(_, kind): &(Name, PortKind)| match kind {
            PortKind::VhostUserClient { socket } => Some(PathBuf::from(socket)),
            _ => None,
        };
        self.plug.ports.iter().filter_map(socket).collect()
    }

    /// Where the identity of a process is, until it has read it.
    fn identity_file(&self) -> PathBuf {
        self.run_dir.join(format!("{}.identity.pem", self.name))
    }

    fn nics(&self, passed: &[Borrowed]) -> Vec<Nic> {
        let link = |kind: &PortKind| match kind {
            PortKind::VhostUser { socket } => Link::VhostUser { socket: socket.into() },
            _ => Link::Unconnected,
        };
        let dataplane = self.plug.ports.iter().enumerate().map(|(position, (_, kind))| match passed.get(position) {
            Some(function) => Nic::Passthrough { address: function.address },
            None => Nic::Dataplane { link: link(kind), mac: instance_mac(Self::octet(position), self.index) },
        });
        let management = self
            .plug
            .management
            .iter()
            .map(|(_, kind)| Nic::Management { link: link(kind), mac: instance_mac(MANAGEMENT, self.index) });
        management.chain(dataplane).collect()
    }

    /// The instance's configuration file.
    fn config(&self, has_identity: bool, passed: &[Borrowed]) -> String {
        let guest = matches!(self.vnf.source, Source::Image(_));
        let mut management = toml::Table::new();
        if guest {
            management.insert("mac".into(), instance_mac(MANAGEMENT, self.index).to_string().into());
        }
        management.insert("address".into(), self.address.to_string().into());
        management.insert("control_port".into(), i64::from(CONTROL_PORT).into());
        management.insert("state_port".into(), i64::from(STATE_PORT).into());
        match (has_identity, guest) {
            (false, _) => management.insert("plaintext".into(), true.into()),
            (true, false) => {
                management.insert("identity".into(), self.identity_file().to_string_lossy().into_owned().into())
            }
            // A guest is handed it.
            (true, true) => None,
        };

        let ports: Vec<toml::Value> = self
            .vnf
            .ports
            .iter()
            .enumerate()
            .map(|(position, port)| {
                let mut table = toml::Table::new();
                table.insert("name".into(), port.name.as_str().into());
                let own = || instance_mac(Self::octet(position), self.index);
                let mac = passed.get(position).map_or_else(own, |function| function.mac);
                if guest {
                    table.insert("mac".into(), mac.to_string().into());
                } else if let Some((_, PortKind::VhostUserClient { socket })) = self.plug.ports.get(position) {
                    let device = format!("net_virtio_user{position},path={socket},server=1,mac={mac},queue_size=1024");
                    table.insert("device".into(), device.into());
                }
                toml::Value::Table(table)
            })
            .collect();

        let mut config = toml::Table::new();
        config.insert("name".into(), self.name.as_str().into());
        config.insert("management".into(), management.into());
        config.insert("port".into(), ports.into());
        for (name, section) in [("limits", &self.vnf.limits), ("log", &self.vnf.log)] {
            if !section.is_empty() {
                config.insert(name.into(), section.clone().into());
            }
        }
        config.insert(self.vnf.kind.as_str().to_owned(), self.vnf.config.clone().into());
        config.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn blueprint(source: &str) -> Blueprint {
        blueprint_with(source, "", &[]).unwrap()
    }

    /// One with these values of `--vf`.
    fn blueprint_with(source: &str, switch: &str, vf: &[&str]) -> Result<Blueprint, String> {
        let text = format!(
            r#"
            daemon = {{ run_dir = "/run/slim" }}
            switch = {{ control = "/run/slim/switch.sock"{switch} }}
            management = {{ address = "10.3.0.1/24" }}
            external = [{{ name = "inside" }}, {{ name = "outside" }}, {{ name = "mgmt" }}]
            [vnf.nat]
            {source}
            port = [{{ name = "in", external = "inside", mac = "02:51:1a:00:00:01" }}, {{ name = "out", external = "outside" }}]
            limits = {{ pkt_q_bytes = 1000000 }}
            log = {{ collector = "10.3.0.1:5140" }}
            config = {{ interior_address = "10.1.0.1/24" }}
            "#
        );
        let deployment = Deployment::parse(&text, Path::new("/d.toml")).unwrap();
        let nat = Name::try_from("nat").unwrap();
        let blueprint = Blueprint::new(&deployment, &"nat-a".try_into().unwrap(), &deployment.vnfs[&nat], 0).unwrap();
        let vf = vf.iter().map(|text| text.parse().unwrap()).collect();
        blueprint.with_functions(&deployment, &Functions { vf, ..Functions::default() })
    }

    #[test]
    fn functions_of_the_host_are_reached_by_their_vlans() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["kernel", "initramfs"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let image = format!("image = {:?}", folder.path());
        let trunk = ", trunk = \"eth1\"";
        let blueprint = blueprint_with(&image, trunk, &["enp3s0@101"]).unwrap();
        let kinds: Vec<&PortKind> = blueprint.plug().ports.iter().map(|(_, kind)| kind).collect();
        assert_eq!(*kinds[0], PortKind::AfPacket { interface: "eth1.101".into() });
        assert!(matches!(kinds[1], PortKind::VhostUser { .. }), "those without a function are as ever");
        let [Request::Virtual { mac, any_source: true, .. }] = &blueprint.requests().unwrap()[..] else { panic!() };
        let borrowed = Borrowed { address: "0000:03:10.0".parse().unwrap(), mac: *mac };
        let Start::Guest(launch) = blueprint.start(None, &[borrowed]).unwrap() else { panic!("an image is a guest") };
        assert_eq!(launch.nics[1], Nic::Passthrough { address: borrowed.address });
        assert!(matches!(launch.nics[2], Nic::Dataplane { link: Link::VhostUser { .. }, .. }));
        let config: toml::Table = toml::from_str(&launch.config_toml).unwrap();
        assert_eq!(config["port"][0]["mac"].as_str(), Some("02:51:1a:00:00:01"));
        assert_eq!(config["port"][1]["mac"].as_str(), Some("52:54:00:02:00:0b"));

        for (source, switch, vf, words) in [
            ("program = \"/bin/nat\"", trunk, &["enp3s0@101"][..], "takes an image"),
            (&image, "", &["enp3s0@101"], "`trunk` in [switch]"),
            (&image, trunk, &["enp3s0"], "as in enp3s0@101"),
            (&image, trunk, &["enp3s0@101", "enp4s0@101"], "same VLAN 101"),
            (&image, trunk, &["enp3s0@101", "enp3s0@102"], "MAC address of interface out"),
            (&image, trunk, &["enp3s0@101", "a@102=02:51:1a:00:00:02", "b@103"], "nat has 2 interfaces"),
        ] {
            let error = blueprint_with(source, switch, vf).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_guest_finds_its_interfaces_by_their_addresses() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["kernel", "initramfs"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let blueprint = blueprint(&format!("image = {:?}\nmemory_mb = 128", folder.path()));
        let Start::Guest(launch) = blueprint.start(Some(Secret::from("key".to_owned())), &[]).unwrap() else {
            panic!("an image is a guest")
        };
        let config: toml::Table = toml::from_str(&launch.config_toml).unwrap();
        assert_eq!(config["name"].as_str(), Some("nat-a"));
        assert_eq!(config["management"]["mac"].as_str(), Some("52:54:00:03:00:0b"));
        assert_eq!(config["management"]["address"].as_str(), Some("10.3.0.11/24"));
        assert!(config["management"].get("identity").is_none() && config["management"].get("plaintext").is_none());
        assert_eq!(launch.identity.as_ref().map(Secret::reveal), Some("key"));
        assert_eq!(config["port"][1]["mac"].as_str(), Some("52:54:00:02:00:0b"));
        assert_eq!(config["nat"]["interior_address"].as_str(), Some("10.1.0.1/24"));
        assert_eq!(config["limits"]["pkt_q_bytes"].as_integer(), Some(1_000_000));
        assert_eq!(config["log"]["collector"].as_str(), Some("10.3.0.1:5140"));
        assert_eq!(launch.memory_mb, 128);
        let link = |name: &str| Link::VhostUser { socket: format!("/run/slim/nat-a.{name}.sock").into() };
        assert_eq!(
            launch.nics,
            [
                Nic::Management { link: link("mgmt"), mac: "52:54:00:03:00:0b".parse().unwrap() },
                Nic::Dataplane { link: link("in"), mac: "52:54:00:01:00:0b".parse().unwrap() },
                Nic::Dataplane { link: link("out"), mac: "52:54:00:02:00:0b".parse().unwrap() },
            ]
        );
        assert_eq!(blueprint.control().to_string(), "10.3.0.11:7001");
    }

    #[test]
    fn a_process_gets_devices_and_no_management_port() {
        let blueprint = blueprint("program = \"/bin/nat\"");
        let Start::Process(launch) = blueprint.start(Some(Secret::from("key".to_owned())), &[]).unwrap() else {
            panic!("a program is a process")
        };
        let config: toml::Table = toml::from_str(&launch.config_toml).unwrap();
        let device = "net_virtio_user0,path=/run/slim/nat-a.in.sock,server=1,mac=52:54:00:01:00:0b,queue_size=1024";
        assert_eq!(config["port"][0]["device"].as_str(), Some(device));
        assert!(config["port"][0].get("mac").is_none());
        assert!(config["management"].get("mac").is_none());
        let file = config["management"]["identity"].as_str().unwrap();
        assert_eq!((Path::new(file), file), (launch.identity_file.as_path(), "/run/slim/nat-a.identity.pem"));
        let Start::Process(plain) = blueprint.start(None, &[]).unwrap() else { panic!("a program is a process") };
        assert!(plain.config_toml.contains("plaintext = true") && plain.identity.is_none());
        assert_eq!(blueprint.plug().management, None);
        assert_eq!(launch.program, Path::new("/bin/nat"));
    }

    #[test]
    fn further_ports_leave_the_management_octet_alone() {
        assert_eq!([0, 1, 2, 3].map(Blueprint::octet), [1, 2, 4, 5]);
    }
}
