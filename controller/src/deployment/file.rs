//! The file as it is written, and its resolution.

use super::{
    Deployment, DeploymentError, External, Management, Source, Trust, Vnf, VnfPort, default_run_dir, default_socket,
};
use crate::daemon::POOL_MAX;
use crate::hypervisor::Accel;
use crate::hypervisor::placement::{CpuChoice, HugePages};
use crate::net::{Ipv4Interface, MacAddress};
use crate::peer::Endpoint;
use crate::timeouts::Timeouts;
use serde::Deserialize;
use slim_core::protocol::Name;
use slim_core::protocol::control::{LinkSettings, PortKind};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    daemon: DaemonSection,
    #[serde(default)]
    trust: TrustSection,
    switch: SwitchSection,
    management: ManagementSection,
    #[serde(default)]
    external: Vec<ExternalSection>,
    #[serde(default)]
    link: LinkSection,
    #[serde(default)]
    timeouts: Timeouts,
    #[serde(default)]
    vnf: BTreeMap<Name, VnfSection>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct DaemonSection {
    socket: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    #[serde(default)]
    keep: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TrustSection {
    folder: PathBuf,
    identity_hours: u32,
    late_hours: u32,
    plaintext: bool,
}

impl Default for TrustSection {
    fn default() -> Self {
        Self { folder: "trust".into(), identity_hours: 24, late_hours: 0, plaintext: false }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchSection {
    control: String,
    trunk: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManagementSection {
    address: Ipv4Interface,
    first_instance: Option<Ipv4Addr>,
    port: Option<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalSection {
    name: Name,
    tap: Option<String>,
    af_packet: Option<String>,
    vdev: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LinkSection {
    rate_mbit: u64,
    burst_ms: u64,
    delay_us: u32,
}

impl Default for LinkSection {
    fn default() -> Self {
        Self { rate_mbit: 1000, burst_ms: 20, delay_us: 2500 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VnfSection {
    kind: Option<Name>,
    image: Option<PathBuf>,
    program: Option<PathBuf>,
    #[serde(default)]
    port: Vec<VnfPortSection>,
    memory_mb: Option<u32>,
    vcpus: Option<u8>,
    cpus: Option<CpuChoice>,
    hugepages: Option<HugePages>,
    accel: Option<Accel>,
    #[serde(default)]
    pool: usize,
    #[serde(default)]
    cmdline: String,
    #[serde(default)]
    limits: toml::Table,
    #[serde(default)]
    log: toml::Table,
    config: Option<toml::Table>,
    config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VnfPortSection {
    name: Name,
    external: Name,
    mac: Option<MacAddress>,
}

/// Where in which file something is wrong.
struct At<'a> {
    file: &'a Path,
}

impl At<'_> {
    fn value(&self, key: impl Into<String>, message: impl Into<String>) -> DeploymentError {
        DeploymentError::Value { file: self.file.to_owned(), key: key.into(), message: message.into() }
    }

    /// A path of the file, relative to its folder.
    fn path(&self, path: PathBuf) -> PathBuf {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        // The daemon must find its files from wherever it is started.
        let joined = folder.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }
}

pub(super) fn resolve(text: &str, path: &Path) -> Result<Deployment, DeploymentError> {
    let at = At { file: path };
    let file: File = toml::from_str(text)
        .map_err(|error| DeploymentError::Syntax { file: path.to_owned(), message: error.to_string() })?;

    let run_dir = file.daemon.run_dir.map_or_else(default_run_dir, |folder| at.path(folder));
    let socket = file.daemon.socket.map_or_else(default_socket, |socket| at.path(socket));
    // Any name of a file is one here: only in other places does a socket need a slash.
    let switch = match file.switch.control.parse() {
        Ok(address) => Endpoint::Tcp(address),
        Err(_) => Endpoint::Unix(at.path(file.switch.control.into())),
    };
    if let Some(trunk) = &file.switch.trunk {
        // Room for a VLAN's number behind it.
        check_interface(&at, "switch.trunk", trunk, 10)?;
    }
    let trunk = file.switch.trunk;
    let trust = trust(&at, file.trust)?;
    let management = management(&at, file.management)?;
    let externals = externals(&at, file.external)?;
    let link = link(&at, &file.link)?;
    let vnfs: BTreeMap<Name, Vnf> = file
        .vnf
        .into_iter()
        .map(|(name, section)| Ok((name.clone(), vnf(&at, &name, section, &externals)?)))
        .collect::<Result<_, DeploymentError>>()?;
    let boots_guests = vnfs.values().any(|vnf| matches!(vnf.source, Source::Image(_)));
    if boots_guests && !externals.iter().any(|external| external.name == management.port) {
        let message =
            format!("there is no [[external]] port {}, behind which guests are managed", management.port.as_str());
        return Err(at.value("management.port", message));
    }
    let (keep, timeouts) = (file.daemon.keep, file.timeouts);
    Ok(Deployment { socket, run_dir, keep, trust, switch, trunk, management, externals, link, timeouts, vnfs })
}

fn trust(at: &At<'_>, section: TrustSection) -> Result<Trust, DeploymentError> {
    // Ten years are no longer a short life.
    if !(1..=87_600).contains(&section.identity_hours) {
        return Err(at.value("trust.identity_hours", "between 1 and 87600, please; 24 is a good choice"));
    }
    let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
    Ok(Trust {
        folder: at.path(section.folder),
        identity_life: hours(section.identity_hours),
        late: hours(section.late_hours),
        plaintext: section.plaintext,
    })
}

fn management(at: &At<'_>, section: ManagementSection) -> Result<Management, DeploymentError> {
    let first_instance = match section.first_instance {
        Some(address) => address,
        None => Ipv4Addr::from_bits(section.address.network().to_bits() + 11),
    };
    if !section.address.contains_host(first_instance) {
        return Err(at.value(
            "management.first_instance",
            format!("{first_instance} is not a host of the network of management.address, {}", section.address),
        ));
    }
    if first_instance == section.address.address {
        return Err(at.value("management.first_instance", "this is the controller's own address"));
    }
    let port = section.port.map_or_else(|| Name::try_from("mgmt"), Ok);
    let port = port.map_err(|error| at.value("management.port", error.to_string()))?;
    Ok(Management { controller: section.address, first_instance, port })
}

fn externals(at: &At<'_>, sections: Vec<ExternalSection>) -> Result<Vec<External>, DeploymentError> {
    let mut externals: Vec<External> = Vec::new();
    for section in sections {
        let key = format!("external {}", section.name.as_str());
        if externals.iter().any(|other| other.name == section.name) {
            return Err(at.value(key, "this name is used twice"));
        }
        let kind = match (section.tap, section.af_packet, section.vdev) {
            (None, None, None) => None,
            (Some(interface), None, None) => Some(PortKind::Tap { interface }),
            (None, Some(interface), None) => Some(PortKind::AfPacket { interface }),
            (None, None, Some(devargs)) => Some(PortKind::Vdev { devargs }),
            _ => return Err(at.value(key, "give only one of tap, af_packet and vdev")),
        };
        if let Some(PortKind::Tap { interface } | PortKind::AfPacket { interface }) = &kind {
            check_interface(at, &key, interface, 15)?;
        }
        externals.push(External { name: section.name, kind });
    }
    Ok(externals)
}

fn check_interface(at: &At<'_>, key: &str, interface: &str, longest: usize) -> Result<(), DeploymentError> {
    if interface.is_empty() || interface.len() > longest || interface.contains(['/', ' ']) {
        return Err(at.value(key, format!("{interface:?} is not the name of a network interface of {longest} letters")));
    }
    Ok(())
}

fn link(at: &At<'_>, section: &LinkSection) -> Result<LinkSettings, DeploymentError> {
    let too_much = |key: &str| at.value(format!("link.{key}"), "this is more than any link can do");
    let rate_bps = section.rate_mbit.checked_mul(1_000_000).ok_or_else(|| too_much("rate_mbit"))?;
    let burst_bytes = (rate_bps / 8_000).checked_mul(section.burst_ms).ok_or_else(|| too_much("burst_ms"))?;
    if rate_bps > 0 && burst_bytes < 2_000 {
        return Err(at.value("link.burst_ms", "the burst must hold a full frame; the paper's is 20"));
    }
    if section.delay_us > 1_000_000 {
        return Err(at.value("link.delay_us", "the longest delay is 1000000, one second"));
    }
    Ok(LinkSettings { rate_bps, burst_bytes, delay_us: section.delay_us })
}

fn vnf(at: &At<'_>, name: &Name, section: VnfSection, externals: &[External]) -> Result<Vnf, DeploymentError> {
    let key = |field: &str| format!("vnf.{}.{field}", name.as_str());
    let source = match (section.image, section.program) {
        (Some(image), None) => Source::Image(at.path(image)),
        (None, Some(program)) => Source::Program(at.path(program)),
        _ => return Err(at.value(key("image"), "give the folder of an image, or `program` for an ordinary process")),
    };
    if let Source::Program(_) = source
        && (section.memory_mb.is_some()
            || section.vcpus.is_some()
            || section.cpus.is_some()
            || section.hugepages.is_some()
            || section.accel.is_some())
    {
        return Err(at.value(key("program"), "memory_mb, vcpus, cpus, hugepages and accel are for images only"));
    }
    if section.port.is_empty() {
        return Err(at.value(key("port"), "list the network function's ports, in its order"));
    }
    let mut ports: Vec<VnfPort> = Vec::new();
    for port in section.port {
        if !externals.iter().any(|external| external.name == port.external) {
            let known: Vec<&str> = externals.iter().map(|external| external.name.as_str()).collect();
            let message = format!("{} is no [[external]] port; there are {}", port.external.as_str(), known.join(", "));
            return Err(at.value(key("port"), message));
        }
        if ports.iter().any(|other| other.name == port.name || other.external == port.external) {
            return Err(at.value(key("port"), format!("{} or its external port is listed twice", port.name.as_str())));
        }
        ports.push(VnfPort { name: port.name, external: port.external, mac: port.mac });
    }
    let memory_mb = section.memory_mb.unwrap_or(256);
    if !(64..=65536).contains(&memory_mb) {
        return Err(at.value(key("memory_mb"), "between 64 and 65536, please"));
    }
    let vcpus = section.vcpus.unwrap_or(1);
    if vcpus == 0 {
        return Err(at.value(key("vcpus"), "a guest needs at least one"));
    }
    if section.pool > POOL_MAX {
        return Err(at.value(key("pool"), format!("it holds {POOL_MAX} instances at most")));
    }
    let kind = section.kind.unwrap_or_else(|| name.clone());
    let config = match (section.config, section.config_file) {
        (Some(config), None) => config,
        (None, Some(file)) => read_config(&at.path(file), &kind)?,
        (None, None) => toml::Table::new(),
        (Some(_), Some(_)) => return Err(at.value(key("config_file"), "give either this or [config], not both")),
    };
    Ok(Vnf {
        kind,
        source,
        ports,
        memory_mb,
        vcpus,
        cpus: section.cpus.unwrap_or_default(),
        huge_pages: section.hugepages.unwrap_or_default(),
        accel: section.accel.unwrap_or_default(),
        pool: section.pool,
        cmdline: section.cmdline,
        limits: section.limits,
        log: section.log,
        config,
    })
}

/// The network function's section out of a file of its own, which holds nothing else.
fn read_config(file: &Path, kind: &Name) -> Result<toml::Table, DeploymentError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| DeploymentError::Unreadable { file: file.to_owned(), source })?;
    let mut table: toml::Table = toml::from_str(&text)
        .map_err(|error| DeploymentError::Syntax { file: file.to_owned(), message: error.to_string() })?;
    let wrong = |key: &str, message: String| {
        Err(DeploymentError::Value { file: file.to_owned(), key: key.to_owned(), message })
    };
    match table.remove(kind.as_str()) {
        Some(toml::Value::Table(section)) if table.is_empty() => Ok(section),
        Some(toml::Value::Table(_)) => {
            let other = table.keys().next().cloned().unwrap_or_default();
            wrong(&other, format!("only a [{}] section belongs here", kind.as_str()))
        }
        _ => wrong(kind.as_str(), format!("there is no [{}] section", kind.as_str())),
    }
}
