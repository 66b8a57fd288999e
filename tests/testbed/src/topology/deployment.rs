//! The deployment file of a testbed: one network function between an inside and an outside.

use super::Function;
use crate::artifacts::Artifacts;
use anyhow::Result;
use std::path::Path;
use toml::{Table, Value};

/// The controller's address on the guests' management network.
pub const CONTROLLER_ADDRESS: &str = "10.3.0.1/24";
/// The management network of ordinary processes: they have no port of their own, so their state passes no meter.
const PROCESS_ADDRESS: &str = "127.0.0.1/8";
/// The TAP through which the controller reaches the instances.
pub const MANAGEMENT_TAP: &str = "slim-mgmt";
/// The TAP of the inside hosts, in namespace topologies.
pub const INSIDE_TAP: &str = "slim-in";
/// The TAP of the outside servers, in namespace topologies.
pub const OUTSIDE_TAP: &str = "slim-out";

/// What hangs on the switch's `inside` and `outside` ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The load generator, over vhost-user.
    Load,
    /// Two network namespaces, over TAP.
    Namespaces,
    /// The same, with an impaired line, over vhost-user, before the outside one.
    Impaired,
}

/// The instances, their links, and how they are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What they are instances of.
    pub function: Function,
    /// `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// Virtual CPUs of each image.
    pub vcpus: u8,
    /// Memory of each image in MiB.
    pub memory_mb: u32,
    /// Ordinary processes instead of images.
    pub process: bool,
    /// Neither identities nor encryption, as in the paper.
    pub plaintext: bool,
    /// Of each instance and direction, in Mbit/s.
    pub link_rate_mbit: u64,
    /// In milliseconds of the rate.
    pub link_burst_ms: u64,
    /// Per direction, in microseconds.
    pub link_delay_us: u64,
    /// Whether instances go on when the daemon ends.
    pub keep: bool,
    /// Entries of the instances' `[limits]` section.
    pub limits: Table,
    /// Further entries of the network function's section.
    pub section: Table,
}

/// The deployment as TOML, with sockets and logs in `folder`.
pub fn deployment(artifacts: &Artifacts, settings: &Settings, ends: Ends, folder: &Path) -> Result<String> {
    let text = |value: &str| Value::String(value.to_owned());
    let path = |value: &Path| Value::String(value.display().to_string());
    let number = |value: u64| Value::Integer(value as i64);
    let table = |entries: &[(&str, Value)]| {
        Value::Table(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    };
    let external = |name: &str, tap: &str| match ends {
        Ends::Impaired if tap != OUTSIDE_TAP => table(&[("name", text(name)), ("tap", text(tap))]),
        Ends::Load | Ends::Impaired => {
            // The load generator listens: it is to survive a restart of the switch.
            let device = format!("net_vhost_{name},iface={},queues=1,client=1", load_socket(folder, name).display());
            table(&[("name", text(name)), ("vdev", text(&device))])
        }
        Ends::Namespaces => table(&[("name", text(name)), ("tap", text(tap))]),
    };
    let port = |name: &str, external: &str| table(&[("name", text(name)), ("external", text(external))]);
    let mut vnf = vec![
        ("port", Value::Array(vec![port("in", "inside"), port("out", "outside")])),
        ("limits", Value::Table(settings.limits.clone())),
        ("config", Value::Table(settings.function.section(&settings.section))),
    ];
    if settings.process {
        vnf.push(("program", path(&artifacts.of(settings.function)?.program)));
    } else {
        vnf.push(("image", path(artifacts.of(settings.function)?.image()?)));
        vnf.push(("accel", text(&settings.accel)));
        vnf.push(("vcpus", number(settings.vcpus.into())));
        vnf.push(("memory_mb", number(settings.memory_mb.into())));
    }
    let file: Table = [
        (
            "daemon",
            table(&[
                ("socket", path(&daemon_socket(folder))),
                ("run_dir", path(&folder.join("instances"))),
                ("keep", Value::Boolean(settings.keep)),
            ]),
        ),
        ("trust", table(&[("folder", path(&trust_folder(folder))), ("plaintext", Value::Boolean(settings.plaintext))])),
        ("switch", table(&[("control", path(&switch_socket(folder)))])),
        (
            "management",
            table(&[("address", text(if settings.process { PROCESS_ADDRESS } else { CONTROLLER_ADDRESS }))]),
        ),
        (
            "link",
            table(&[
                ("rate_mbit", number(settings.link_rate_mbit)),
                ("burst_ms", number(settings.link_burst_ms)),
                ("delay_us", number(settings.link_delay_us)),
            ]),
        ),
        (
            "external",
            Value::Array(vec![
                external("inside", INSIDE_TAP),
                external("outside", OUTSIDE_TAP),
                table(&[("name", text("mgmt")), ("tap", text(MANAGEMENT_TAP))]),
            ]),
        ),
        ("vnf", table(&[(settings.function.kind(), table(&vnf))])),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    Ok(file.to_string())
}

/// The switch agent's control socket.
pub fn switch_socket(folder: &Path) -> std::path::PathBuf {
    folder.join("switch.sock")
}

/// The identities of the testbed's own deployment.
pub fn trust_folder(folder: &Path) -> std::path::PathBuf {
    folder.join("trust")
}

/// The daemon's socket, for `slimctl --socket`.
pub fn daemon_socket(folder: &Path) -> std::path::PathBuf {
    folder.join("slimctl.sock")
}

/// The load generator's device behind the switch's external port `name`.
pub fn load_device(folder: &Path, name: &str) -> String {
    // Only its kind is told by the number; the MAC address is nobody's destination, but DPDK wants one.
    let number = u8::from(name == "outside");
    let socket = load_socket(folder, name);
    format!("net_virtio_user{number},path={},server=1,queue_size=1024,mac=02:51:1a:03:00:0{number}", socket.display())
}

/// The vhost-user socket between the load generator and the switch's external port `name`.
pub fn load_socket(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.sock"))
}
