//! The topology of §VII, standing: a switch agent, the controller's daemon and two instances, of a NAT for example.
//!
//! ```text
//!   inside ──┐                       ┌── nat-a (live)
//!            ├── slim-switch ════════╡        each behind its own meter and delay line
//!  outside ──┘        │              └── nat-b (idle)
//!                slim-mgmt ── slimctl daemon
//! ```
//!
//! The management TAP, and in topologies with [`Ends::Namespaces`] the other two, are made in the network namespace of
//! the calling process, so call this from a namespace made for it: a [`sandbox`](crate::sandbox), or the testbed's.

mod deployment;
mod function;
mod namespaces;

pub use deployment::{
    Ends, INSIDE_TAP, MANAGEMENT_TAP, OUTSIDE_TAP, Settings, daemon_socket, load_device, load_socket, switch_socket,
};
pub use function::{Function, NAT_EXTERIOR, NAT_INTERIOR};
pub use namespaces::{INSIDE, INSIDE_HOST, MANAGEMENT, Namespaces, OUTSIDE, OUTSIDE_SERVERS, command_in};

use crate::artifacts::Artifacts;
use crate::process::Process;
use crate::sandbox::ip;
use anyhow::{Context, Result};
use deployment::{CONTROLLER_ADDRESS, deployment, trust_folder};
use slim_controller::api::InstanceInfo;
use slim_controller::client::Client;
use slim_core::protocol::Name;
use slim_trust::Authority;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the switch agent and the daemon may take to start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The instance of a NAT that is live at first.
pub const FIRST: &str = "nat-a";
/// The instance of a NAT that is warm at first.
pub const SECOND: &str = "nat-b";

/// The running processes. Everything ends, instances included, when this is dropped.
#[derive(Debug)]
pub struct Topology {
    // In the order in which they must end: the daemon retires its instances through the switch.
    daemon: Process,
    switch: Process,
    folder: PathBuf,
    function: Function,
}

impl Topology {
    /// Starts the switch agent and the daemon; sockets, logs and consoles go to `folder`.
    ///
    /// # Errors
    /// A program is missing or does not come up; the error has the end of its log.
    pub fn up(artifacts: &Artifacts, settings: &Settings, ends: Ends, folder: &Path) -> Result<Self> {
        let file = folder.join("deployment.toml");
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        std::fs::write(&file, deployment(artifacts, settings, ends, folder)?)
            .with_context(|| format!("cannot write {}", file.display()))?;

        if !settings.plaintext {
            make_identities(&trust_folder(folder))?;
        }

        let arguments = ["--control".into(), switch_socket(folder).into()];
        let mut switch = Process::start("slim-switch", &artifacts.switch, &arguments, &folder.join("switch.log"))?;
        wait_for_switch(&mut switch, folder)?;

        let arguments = ["daemon".into(), "--config".into(), file.into()];
        let mut daemon = Process::start("slimctl daemon", &artifacts.slimctl, &arguments, &folder.join("daemon.log"))?;
        wait_for_daemon(&mut daemon, folder)?;

        let mut topology = Self { daemon, switch, folder: folder.to_owned(), function: settings.function };
        topology.connect_management()?;
        Ok(topology)
    }

    /// The switch agent's process.
    pub fn switch(&mut self) -> &mut Process {
        &mut self.switch
    }

    /// The daemon's process.
    pub fn daemon(&mut self) -> &mut Process {
        &mut self.daemon
    }

    /// Starts a switch agent that has ended again, and waits until it takes commands.
    pub fn restart_switch(&mut self) -> Result<()> {
        self.switch.start_again()?;
        wait_for_switch(&mut self.switch, &self.folder)
    }

    /// Starts a daemon that has ended again, and waits until it takes commands.
    pub fn restart_daemon(&mut self) -> Result<()> {
        self.daemon.start_again()?;
        wait_for_daemon(&mut self.daemon, &self.folder)
    }

    /// Gives the controller its address on the management network.
    fn connect_management(&mut self) -> Result<()> {
        self.switch.wait_until("making the management TAP", START_LIMIT, || {
            ip(&["link", "show", "dev", MANAGEMENT_TAP]).is_ok()
        })?;
        ip(&["address", "replace", CONTROLLER_ADDRESS, "dev", MANAGEMENT_TAP])?;
        ip(&["link", "set", MANAGEMENT_TAP, "up"])
    }

    /// A new connection to the daemon.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(&daemon_socket(&self.folder))?)
    }

    /// Boots an instance of the network function and waits until it is ready.
    pub fn boot(&mut self, name: &str, active: bool) -> Result<InstanceInfo> {
        let (name, vnf) = (Name::try_from(name)?, Name::try_from(self.function.kind())?);
        self.client()?.boot(&name, Some(&vnf), active).with_context(|| format!("cannot boot {}", name.as_str()))
    }

    /// How many frames the switch has dropped, by cause, and by cause and port for ports that are still there; only
    /// causes that occurred.
    pub fn switch_drops(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.client()?.status()?.switch_status.context("the switch does not tell its counters")?;
        let ports = status.ports.iter().map(|port| (format!(" at {}", port.name), &port.counters));
        let all = std::iter::once((String::new(), &status.counters)).chain(ports);
        let drops = all.flat_map(|(place, counters)| {
            counters
                .iter()
                .filter(|(_, frames)| **frames > 0)
                .filter_map(move |(name, frames)| Some((format!("{}{place}", name.strip_prefix("dropped_")?), *frames)))
        });
        Ok(drops.collect())
    }

    /// Fails if the switch agent or the daemon has ended.
    pub fn check(&mut self) -> Result<()> {
        self.switch.check()?;
        self.daemon.check()
    }
}

fn wait_for_switch(switch: &mut Process, folder: &Path) -> Result<()> {
    let control = switch_socket(folder);
    // One that was killed has left its socket, so that its being there says nothing.
    switch.wait_until("listening on its control socket", START_LIMIT, || UnixStream::connect(&control).is_ok())
}

fn wait_for_daemon(daemon: &mut Process, folder: &Path) -> Result<()> {
    let socket = daemon_socket(folder);
    daemon.wait_until("listening for slimctl", START_LIMIT, || Client::connect(&socket).is_ok())
}

/// What `slimctl init` does, unless an earlier run in this folder has done it.
fn make_identities(folder: &Path) -> Result<()> {
    if Authority::read(folder).is_err() {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Authority::init(folder, Name::try_from("testbed")?)?;
    }
    Ok(())
}
