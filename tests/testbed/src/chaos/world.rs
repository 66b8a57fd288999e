//! The testbed, and how it is put in order again after a fault.

use super::spec::ChaosSpec;
use crate::artifacts::Artifacts;
use crate::topology::{Ends, FIRST, SECOND, Topology};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slim_controller::api::{DaemonStatus, InstanceInfo, Life};
use slim_controller::client::Client;
use slim_core::protocol::Name;
use slim_core::protocol::control::InstanceRole;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long everything may take to come to rest after a fault: two time-outs of the coordinator's in a row.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// The testbed with two instances.
#[derive(Debug)]
pub(super) struct World {
    pub(super) artifacts: Artifacts,
    pub(super) topology: Topology,
    pub(super) folder: PathBuf,
    /// The instance that processes packets, and the other one.
    pub(super) holder: Name,
    pub(super) spare: Name,
}

impl World {
    /// Brings everything up.
    pub(super) fn up(artifacts: &Artifacts, spec: &ChaosSpec, folder: &Path) -> Result<Self> {
        let mut settings = spec.instances().settings();
        settings.keep = true;
        let topology = Topology::up(artifacts, &settings, Ends::Load, folder)?;
        let (holder, spare) = (Name::try_from(FIRST)?, Name::try_from(SECOND)?);
        let mut world = Self { artifacts: artifacts.clone(), topology, folder: folder.to_owned(), holder, spare };
        world.heal().context("the testbed does not come up")?;
        Ok(world)
    }

    /// Ends everything and brings it up again.
    pub(super) fn up_again(mut self, artifacts: &Artifacts, spec: &ChaosSpec, folder: &Path) -> Result<Self> {
        // Instances that are kept would go on without their daemon.
        let ended = self.topology.client().and_then(|mut client| Ok(client.shutdown_all()?));
        let ended = ended.and_then(|()| self.topology.daemon().wait_for(Duration::from_secs(30)));
        drop(self);
        if let Err(error) = ended {
            eprintln!("           the daemon does not end by itself: {error:#}");
            end_kept(&folder.join("instances").join("instances.json"))?;
        }
        Self::up(artifacts, spec, folder)
    }

    /// A new connection to the daemon.
    pub(super) fn client(&self) -> Result<Client> {
        self.topology.client()
    }

    /// Everything at a glance.
    pub(super) fn status(&self) -> Result<DaemonStatus> {
        Ok(self.client()?.status()?)
    }

    /// One instance with its counters, if it answers.
    pub(super) fn show(&self, name: &Name) -> Result<InstanceInfo> {
        Ok(self.client()?.show(name)?)
    }

    /// Waits until no migration is under way and no instance takes part in one; says how long that took.
    pub(super) fn rest(&self) -> Result<Duration> {
        let began = Instant::now();
        loop {
            // A daemon that is just starting refuses; that passes.
            if let Ok(status) = self.status()
                && status.migrations.is_empty()
                && !status.instances.iter().any(takes_part)
            {
                return Ok(began.elapsed());
            }
            if began.elapsed() > REST_LIMIT {
                let status = self.status()?;
                let roles: Vec<String> = status.instances.iter().map(describe).collect();
                bail!("no rest after {} s: {}", REST_LIMIT.as_secs(), roles.join(", "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The instances that say they process packets.
    pub(super) fn live(&self) -> Result<Vec<Name>> {
        let live = |instance: &InstanceInfo| {
            matches!(instance.role, Some(InstanceRole::Live | InstanceRole::Source)) && instance.life == Life::Up {}
        };
        Ok(self.status()?.instances.iter().filter(|instance| live(instance)).map(|one| one.name.clone()).collect())
    }

    /// Makes sure that one instance is live, with the traffic, and another one there to take over. Boots what is dead.
    pub(super) fn heal(&mut self) -> Result<()> {
        let live = self.live()?;
        let [first, second] = [Name::try_from(FIRST)?, Name::try_from(SECOND)?];
        (self.holder, self.spare) = match live.as_slice() {
            [one] if *one == second => (second, first),
            [one] if *one == first => (first, second),
            [] => {
                self.replace(&first, true)?;
                (first, second)
            }
            _ => bail!("more than one instance is live"),
        };
        let spare = self.status()?.instances.into_iter().find(|instance| instance.name == self.spare);
        let usable = spare.is_some_and(|spare| {
            let fit = |role| matches!(role, InstanceRole::Idle | InstanceRole::Released | InstanceRole::Discarded);
            spare.life == Life::Up {} && spare.role.is_some_and(fit)
        });
        if !usable {
            self.replace(&self.spare.clone(), false)?;
        }
        Ok(())
    }

    /// Boots an instance in place of one that is dead or of no use.
    fn replace(&mut self, name: &Name, active: bool) -> Result<()> {
        let mut client = self.client()?;
        let known = client.instances()?.iter().any(|instance| instance.name == *name);
        if known {
            client.retire(name, true).with_context(|| format!("cannot retire {name}"))?;
        }
        if active {
            // What the dead one's paths were is of no interest any more, but they must be gone.
            let other = if name.as_str() == FIRST { SECOND } else { FIRST };
            let other = Name::try_from(other)?;
            if client.instances()?.iter().any(|instance| instance.name == other) {
                client.retire(&other, true).with_context(|| format!("cannot retire {other}"))?;
            }
        }
        self.topology.boot(name.as_str(), active)?;
        Ok(())
    }
}

fn takes_part(instance: &InstanceInfo) -> bool {
    let under_way = matches!(instance.role, Some(InstanceRole::Source | InstanceRole::Destination));
    instance.migration.is_some() || (under_way && instance.life == Life::Up {}) || instance.life == Life::Unreachable {}
}

fn describe(instance: &InstanceInfo) -> String {
    let role = instance.role.map_or_else(|| "silent".to_owned(), |role| role.to_string());
    format!("{} {role}", instance.name)
}

/// Ends the instances that a daemon has left, and forgets them.
fn end_kept(file: &Path) -> Result<()> {
    let Ok(text) = std::fs::read(file) else { return Ok(()) };
    let kept: serde_json::Value = serde_json::from_slice(&text)?;
    for instance in kept["instances"].as_array().into_iter().flatten() {
        if let Some(id) = instance["machine"]["process"]["pid"].as_i64().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
    Ok(std::fs::remove_file(file)?)
}
