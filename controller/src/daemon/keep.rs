//! What one run of the daemon leaves for the next: the instances that go on without it.
//!
//! Written after every change, so that it is right however a daemon ends; where it is lost nevertheless, `search` finds
//! what runs. Only what nobody else can tell is written
//! down; roles, paths and migrations are read back from instances and switch.

use super::blueprint::Blueprint;
use super::registry::{Entry, Stage};
use super::{Daemon, from_fabric};
use crate::hypervisor::Adoption;
use crate::hypervisor::borrowed::{Functions, Lender};
use crate::peer::Endpoint;
use serde::{Deserialize, Serialize};
use slim_core::protocol::Name;
use slim_core::protocol::control::{ControlError, InstanceRole, PortKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long an instance that went on may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    instances: Vec<KeptInstance>,
    /// The sizes of pools that the operator has set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pools: BTreeMap<Name, usize>,
}

/// An instance that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptInstance {
    pub(super) name: Name,
    pub(super) vnf: Option<Name>,
    pub(super) index: Option<u8>,
    pub(super) control: Endpoint,
    /// Its process; `None` if it was attached.
    pub(super) machine: Option<Adoption>,
    /// Whether it waited in its pool.
    #[serde(default)]
    pub(super) pooled: bool,
    /// The host's functions that it has.
    #[serde(default, skip_serializing_if = "Functions::is_empty")]
    pub(super) functions: Functions,
}

impl Daemon {
    fn kept_file(&self) -> PathBuf {
        self.deployment.run_dir.join("instances.json")
    }

    /// Writes down which instances would go on without us. Does nothing where none would.
    pub(super) fn write_kept(&self) {
        if !self.deployment.keep {
            return;
        }
        let instances = self.registry.all().iter().filter_map(kept).collect();
        if let Err(error) = write(&self.kept_file(), &Kept { instances, pools: self.pools.ordered() }) {
            log::error!("cannot write down the instances: {error}; a daemon after this one will not know them");
        }
    }

    /// Takes charge of what an earlier daemon left running.
    pub(super) fn adopt_kept(&self) {
        let Kept { mut instances, pools } = self.read_kept();
        self.fill_pools(&pools);
        // Where instances end with their daemon there is none to be found.
        let lost = match self.deployment.keep {
            true => self.search(|name| instances.iter().any(|instance| instance.name == *name)),
            false => Vec::new(),
        };
        for instance in &lost {
            log::warn!("{}: is written down nowhere, but runs", instance.name);
        }
        instances.extend(lost);
        std::thread::scope(|scope| {
            for instance in instances {
                scope.spawn(|| self.adopt(instance));
            }
        });
        self.write_kept();
    }

    fn read_kept(&self) -> Kept {
        let file = self.kept_file();
        let Ok(text) = std::fs::read(&file) else { return Kept::default() };
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) => kept,
            Err(error) => {
                log::error!(
                    "{} cannot be understood; attached instances are to be attached again: {error}",
                    file.display()
                );
                Kept::default()
            }
        }
    }

    fn adopt(&self, instance: KeptInstance) {
        let name = instance.name.clone();
        let process = instance.machine.as_ref().map(|machine| machine.process);
        let machine = match instance.machine.map(Adoption::adopt) {
            Some(None) => {
                log::warn!("{name}: ended while there was no daemon");
                return;
            }
            Some(machine) => machine,
            None => None,
        };
        let vnf = instance.vnf.as_ref().and_then(|vnf| self.deployment.vnfs.get(vnf));
        let blueprint = vnf.zip(instance.index).and_then(|(vnf, index)| {
            let blueprint = Blueprint::new(&self.deployment, &name, vnf, index).ok()?;
            blueprint.with_functions(&self.deployment, &instance.functions).ok()
        });
        let loan = process.map(|process| Lender::this().take_up(process));
        let entry = self.registry.restore(&name, instance.vnf.as_ref(), instance.index, blueprint, instance.control);
        let Some(entry) = entry else { return };
        entry.state().machine = machine;
        match loan.transpose() {
            Ok(loan) => entry.state().loan = loan.flatten(),
            Err(error) => log::error!("{name}: what it was given of the host is not known: {error}"),
        }
        entry.state().has_traffic = self.leads_to(&name).unwrap_or(false);
        match self.connect(&entry, ANSWER_LIMIT) {
            Ok(()) => log::info!("{name}: taken charge of again"),
            Err(error) => log::warn!("{name}: runs, but does not answer: {error}"),
        }
        let idle = entry.status().is_none_or(|status| status.role == InstanceRole::Idle);
        let mut state = entry.state();
        // Somebody may have made it live meanwhile.
        state.pooled = instance.pooled && idle;
        state.stage = Stage::Running;
    }

    /// Lets every instance go on by itself.
    pub(super) fn leave_all(&self) {
        self.write_kept();
        for entry in self.registry.all() {
            let (machine, loan) = {
                let mut state = entry.state();
                (state.machine.take(), state.loan.take())
            };
            if let Some(machine) = machine {
                log::info!("{}: goes on", entry.name);
                machine.leave();
                if let Some(loan) = loan {
                    loan.leave();
                }
            }
        }
    }

    /// Takes from the switch what instances of ours left there that are no more.
    pub(super) fn forget_stale(&self) -> Result<(), ControlError> {
        let ports = self.fabric.status().map_err(from_fabric)?.ports;
        let ours = |port: &Name| {
            ports.iter().any(|known| match &known.kind {
                PortKind::VhostUser { socket } | PortKind::VhostUserClient { socket } => {
                    known.name == *port && Path::new(socket).parent() == Some(self.deployment.run_dir.as_path())
                }
                PortKind::AfPacket { interface } => {
                    let of_trunk =
                        |trunk: &String| interface.strip_prefix(trunk).is_some_and(|rest| rest.starts_with('.'));
                    known.name == *port && self.deployment.trunk.as_ref().is_some_and(of_trunk)
                }
                PortKind::Tap { .. } | PortKind::Vdev { .. } => false,
            })
        };
        for plugged in self.fabric.paths().map_err(from_fabric)? {
            let known = self.registry.get(&plugged.instance).is_ok();
            if !known && plugged.ports.iter().all(ours) {
                log::warn!("{}: is no more; its ports and paths are removed from the switch", plugged.instance);
                self.fabric.unplug(&plugged.instance).map_err(from_fabric)?;
            }
        }
        Ok(())
    }
}

fn kept(entry: &Arc<Entry>) -> Option<KeptInstance> {
    let state = entry.state();
    if state.stage != Stage::Running {
        return None;
    }
    let machine = match &state.machine {
        // Ends with us, or has ended.
        Some(machine) => Some(machine.adoption()?),
        None => None,
    };
    Some(KeptInstance {
        name: entry.name.clone(),
        vnf: entry.vnf.clone(),
        index: entry.index,
        control: entry.control.clone(),
        machine,
        pooled: state.pooled,
        functions: entry.blueprint.as_ref().map(|blueprint| blueprint.functions().clone()).unwrap_or_default(),
    })
}

/// Replaces the file in one step: a daemon that dies meanwhile leaves the old one or the new one.
fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let new = file.with_extension("json.new");
    std::fs::write(&new, serde_json::to_vec_pretty(kept)?)?;
    std::fs::rename(&new, file)
}
