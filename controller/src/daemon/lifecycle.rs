//! Booting, attaching and retiring instances.

use super::blueprint::{Blueprint, Origin, Start};
use super::registry::{CALL_LIMIT, Entry, Stage};
use super::vlan::VlanLink;
use super::{Daemon, from_fabric};
use crate::api::InstanceInfo;
use crate::deployment::Vnf;
use crate::hypervisor::borrowed::{BorrowError, Functions, Lender, Loan};
use crate::hypervisor::native::ProcessInstance;
use crate::hypervisor::qemu::Qemu;
use crate::hypervisor::{Hypervisor, LaunchError, Machine, Ready, Stopped};
use crate::peer::{Endpoint, InstancePeer};
use crate::process::ProcessId;
use slim_core::protocol::Name;
use slim_core::protocol::control::{
    ControlError, Description, ErrorCode, InstancePaths, InstanceReply, InstanceRequest, InstanceRole,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a guest may take to become ready. In emulation on a busy host it takes seconds, and minutes in an emulated host.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// How long an instance may take from ready to its first answer: a few lost segments at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an instance may take to end by itself when asked to.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// How an instance is to be booted.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    /// Whether it becomes live at once, with the traffic led to it.
    pub(super) active: bool,
    /// Whether it waits in its pool.
    pub(super) pooled: bool,
    /// The host's functions that become its first ports.
    pub(super) functions: Functions,
}

impl Daemon {
    /// Boots an instance and waits until it is ready.
    pub(super) fn boot(&self, name: &Name, vnf: Option<&Name>, order: &Order) -> Result<InstanceInfo, ControlError> {
        let Order { active, pooled, functions } = order;
        let (active, pooled) = (*active, *pooled);
        let (vnf_name, vnf) = self.vnf(vnf)?;
        if active {
            self.check_unclaimed(vnf)?;
        }
        let entry = self.registry.add(name, Some(vnf_name), |index| {
            let blueprint = Blueprint::new(&self.deployment, name, vnf, index)
                .map_err(|error| ControlError::with(ErrorCode::Limit, error))?
                .with_functions(&self.deployment, functions)
                .map_err(|error| ControlError::with(ErrorCode::Malformed, error))?;
            let control = blueprint.control();
            Ok((Some(blueprint), control))
        })?;
        entry.state().pooled = pooled;
        self.settle(&entry, || {
            let Some(blueprint) = &entry.blueprint else { return Ok(()) };
            for link in blueprint.vlans() {
                link.make().map_err(|error| ControlError::with(ErrorCode::Io, error.to_string()))?;
            }
            self.fabric.plug(blueprint.plug()).map_err(from_fabric)?;
            let ready = self.start(&entry, blueprint)?;
            log::info!("{}: {} after {} ms", name.as_str(), ready.line, ready.after.as_millis());
            entry.state().ready = Some(ready);
            self.connect(&entry, CONNECT_LIMIT)?;
            self.check_ports(&entry, blueprint)?;
            if active { self.activate(&entry, &blueprint.externals()) } else { Ok(()) }
        })
    }

    /// Takes charge of an instance that somebody else has started.
    pub(super) fn attach(
        &self,
        name: &Name,
        control: &Endpoint,
        vnf: Option<&Name>,
        active: bool,
    ) -> Result<InstanceInfo, ControlError> {
        let known = self.fabric.paths().map_err(from_fabric)?.into_iter().find(|known| known.instance == *name);
        let plugged = known.is_some();
        let has_traffic = known.is_some_and(|known| !known.paths.is_empty());
        // Where the switch knows the instance, somebody else has plugged it in, and will unplug it.
        let vnf = if plugged && vnf.is_none() { None } else { Some(self.vnf(vnf)?) };
        if let (Some((_, vnf)), true) = (&vnf, active) {
            self.check_unclaimed(vnf)?;
        }
        let entry = self.registry.add(name, vnf.map(|(vnf_name, _)| vnf_name), |index| {
            let blueprint = vnf.map(|(_, vnf)| Blueprint::new(&self.deployment, name, vnf, index)).transpose();
            let blueprint = blueprint.map_err(|error| ControlError::with(ErrorCode::Limit, error))?;
            Ok((blueprint, control.clone()))
        })?;
        entry.state().has_traffic = has_traffic;
        self.settle(&entry, || {
            if let Some(blueprint) = entry.blueprint.as_ref().filter(|_| !plugged) {
                self.fabric.plug(blueprint.plug()).map_err(from_fabric)?;
            }
            self.connect(&entry, READY_LIMIT)?;
            match &entry.blueprint {
                Some(blueprint) => {
                    self.check_ports(&entry, blueprint)?;
                    if active { self.activate(&entry, &blueprint.externals()) } else { Ok(()) }
                }
                None if active => Err(ControlError::new(
                    ErrorCode::Malformed,
                    "--active needs --vnf, to know where the instance's ports lead",
                )),
                None => Ok(()),
            }
        })
    }

    /// Ends an instance, or lets go of one that was attached.
    pub(super) fn retire(&self, name: &Name, force: bool) -> Result<(), ControlError> {
        let entry = self.registry.get(name)?;
        {
            let mut state = entry.state();
            if let Some(migration) = state.migration {
                let text = format!("{} takes part in migration {migration}: abort that first", name.as_str());
                return Err(ControlError::with(ErrorCode::Busy, text));
            }
            match state.stage {
                Stage::Retiring => {
                    let text = format!("{} is being retired already", name.as_str());
                    return Err(ControlError::with(ErrorCode::Busy, text));
                }
                // Whoever boots it sees this and tidies up.
                Stage::Booting => {
                    state.stage = Stage::Retiring;
                    return Ok(());
                }
                Stage::Running | Stage::Ended(_) => {}
            }
        }
        let live = entry.status().is_some_and(|status| status.role == InstanceRole::Live);
        if live && !force && self.leads_to(name)? {
            let text = format!(
                "{} processes packets: migrate its state to another instance first, or lose it with --force",
                name.as_str()
            );
            return Err(ControlError::with(ErrorCode::WrongRole, text));
        }
        let peer = {
            let mut state = entry.state();
            state.stage = Stage::Retiring;
            state.peer.take()
        };
        self.take_down(&entry, peer);
        Ok(())
    }

    /// Leads the traffic of its network function to an instance, on the operator's word.
    pub(super) fn lead_to(&self, name: &Name) -> Result<(), ControlError> {
        let entry = self.registry.get(name)?;
        let Some(blueprint) = &entry.blueprint else {
            let text = format!("{name} was attached without --vnf: where its ports lead is not known here");
            return Err(ControlError::with(ErrorCode::Malformed, text));
        };
        let externals = blueprint.externals();
        for known in self.fabric.paths().map_err(from_fabric)? {
            if known.instance != *name && known.paths.iter().any(|path| externals.contains(&path.from)) {
                if let Ok(other) = self.registry.get(&known.instance) {
                    other.state().has_traffic = false;
                }
                self.fabric.bind(&known.instance, &[]).map_err(from_fabric)?;
            }
        }
        let mut state = entry.state();
        state.has_traffic = true;
        state.pooled = false;
        drop(state);
        self.fabric.bind(name, &externals).map_err(from_fabric)
    }

    /// Retires every instance, all at once.
    pub(super) fn retire_all(&self) {
        std::thread::scope(|scope| {
            for entry in self.registry.all() {
                scope.spawn(move || {
                    let peer = {
                        let mut state = entry.state();
                        let booting = state.stage == Stage::Booting;
                        state.stage = Stage::Retiring;
                        if booting { None } else { state.peer.take() }
                    };
                    self.take_down(&entry, peer);
                });
            }
        });
    }

    /// Looks after instances whose processes end by themselves. Called now and then.
    pub(super) fn check_instances(&self) {
        for entry in self.registry.all() {
            if let Some(reason) = entry.check_alive() {
                log::error!("{}: {reason}", entry.name.as_str());
            }
        }
    }

    /// The network function called `name`, or the only one.
    pub(super) fn vnf<'a>(&'a self, name: Option<&'a Name>) -> Result<(&'a Name, &'a Vnf), ControlError> {
        let vnfs = &self.deployment.vnfs;
        let known = || vnfs.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let not_found = |text: String| Err(ControlError::with(ErrorCode::NotFound, text));
        match (name, vnfs.len()) {
            (_, 0) => not_found("the deployment has no [vnf.…] section".into()),
            (Some(name), _) => match vnfs.get_key_value(name) {
                Some(found) => Ok(found),
                None => not_found(format!("the deployment has no [vnf.{}]; it has {}", name.as_str(), known())),
            },
            (None, 1) => vnfs.iter().next().map_or_else(|| not_found(String::new()), Ok),
            (None, _) => not_found(format!("say which network function with --vnf: {}", known())),
        }
    }

    /// Carries out `work` for a new entry, and undoes everything if it fails or somebody retires it meanwhile.
    fn settle(
        &self,
        entry: &Arc<Entry>,
        work: impl FnOnce() -> Result<(), ControlError>,
    ) -> Result<InstanceInfo, ControlError> {
        let result = work().and_then(|()| {
            let mut state = entry.state();
            match state.stage {
                Stage::Booting => {
                    state.stage = Stage::Running;
                    Ok(())
                }
                _ => Err(retired(&entry.name)),
            }
        });
        match result {
            Ok(()) => Ok(entry.info(false)),
            Err(error) => {
                let peer = {
                    let mut state = entry.state();
                    state.stage = Stage::Retiring;
                    state.peer.take()
                };
                self.take_down(entry, peer);
                Err(error)
            }
        }
    }

    /// Starts the instance's guest or process and waits until it is ready.
    fn start(&self, entry: &Entry, blueprint: &Blueprint) -> Result<Ready, ControlError> {
        let identity = self.identities.issue(&entry.name);
        let identity = identity.map_err(|error| ControlError::with(ErrorCode::Io, error.to_string()))?;
        {
            let mut state = entry.state();
            state.renew_at = self.identities.next_renewal();
            state.origin = Some(Origin::of(&blueprint.vnf.source));
        }
        let loan = self.lend(blueprint)?;
        let passed = loan.functions().to_vec();
        // Given back with the instance, whatever happens from here on.
        entry.state().loan = Some(loan);
        let machine: Box<dyn Machine> = match blueprint.start(identity, &passed).map_err(from_launch)? {
            Start::Guest(launch) => {
                let qemu = Qemu::find().map_err(|error| from_launch(error.into()))?;
                qemu.boot(&launch).map_err(from_launch)?
            }
            Start::Process(launch) => Box::new(ProcessInstance::start(&launch).map_err(from_launch)?),
        };
        {
            let mut state = entry.state();
            let process = ProcessId::of(machine.process_id());
            state.machine = Some(machine);
            if let (Some(loan), Some(process)) = (&state.loan, process) {
                loan.hand_over(process).map_err(from_borrow)?;
            }
        }
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let mut state = entry.state();
            if state.stage != Stage::Booting {
                return Err(retired(&entry.name));
            }
            let Some(machine) = state.machine.as_mut() else { return Err(retired(&entry.name)) };
            if let Some(ready) = machine.poll_ready().map_err(from_launch)? {
                return Ok(ready);
            }
            if Instant::now() >= deadline {
                let (limit_s, detail) = (READY_LIMIT.as_secs(), machine.console_tail());
                return Err(from_launch(LaunchError::NotReady {
                    name: entry.name.as_str().to_owned(),
                    limit_s,
                    detail,
                }));
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes from the host what a guest is to be given.
    fn lend(&self, blueprint: &Blueprint) -> Result<Loan, ControlError> {
        let requests = blueprint.requests();
        let requests = requests.map_err(|error| ControlError::with(ErrorCode::Malformed, error.to_string()))?;
        let loan = Lender::this().borrow(&requests, blueprint.vnf.memory_mb).map_err(from_borrow)?;
        for function in loan.functions() {
            log::info!("{}: borrowed {} as {}", blueprint.name, function.address, function.mac);
        }
        Ok(loan)
    }

    /// Opens the control connection and asks the instance who it is.
    pub(super) fn connect(&self, entry: &Entry, limit: Duration) -> Result<(), ControlError> {
        let peer = InstancePeer::new(entry.control.clone(), self.identities.trust(&entry.name)).map_err(|error| {
            ControlError::with(ErrorCode::Io, format!("no thread for a control connection: {error}"))
        })?;
        let peer = Arc::new(peer);
        // Kept even if the instance does not answer now: it may later.
        entry.state().peer = Some(Arc::clone(&peer));
        let description = match peer.call(InstanceRequest::Describe {}, limit) {
            Ok(InstanceReply::Description(description)) => description,
            Ok(_) => return Err(entry.complain(&peer.unexpected())),
            Err(error) => return Err(entry.complain(&error)),
        };
        self.check_description(entry, &description)?;
        entry.state().description = Some(description);
        Ok(())
    }

    fn check_description(&self, entry: &Entry, description: &Description) -> Result<(), ControlError> {
        let incompatible = |text: String| Err(ControlError::with(ErrorCode::Incompatible, text));
        let at = format!("the instance at {}", entry.control);
        if description.name != entry.name {
            return incompatible(format!("{at} is {}, not {}", description.name.as_str(), entry.name.as_str()));
        }
        match &entry.blueprint {
            Some(blueprint) if blueprint.vnf.kind != description.kind => {
                let (found, wanted) = (description.kind.as_str(), blueprint.vnf.kind.as_str());
                incompatible(format!("{at} is a {found}, not a {wanted}"))
            }
            _ => Ok(()),
        }
    }

    /// A port listed in the wrong place would lead traffic the wrong way.
    fn check_ports(&self, entry: &Entry, blueprint: &Blueprint) -> Result<(), ControlError> {
        let state = entry.state();
        let found = state.description.as_ref().map(|description| description.ports.as_slice()).unwrap_or_default();
        if found.iter().eq(blueprint.vnf.ports.iter().map(|port| &port.name)) {
            return Ok(());
        }
        let list = |names: &mut dyn Iterator<Item = &Name>| names.map(Name::as_str).collect::<Vec<_>>().join(", ");
        let text = format!(
            "a {} has the ports {}, in this order; the deployment lists {}",
            blueprint.vnf.kind.as_str(),
            list(&mut found.iter()),
            list(&mut blueprint.vnf.ports.iter().map(|port| &port.name))
        );
        Err(ControlError::with(ErrorCode::Incompatible, text))
    }

    /// Makes the instance live with empty state, then leads the traffic to it.
    fn activate(&self, entry: &Entry, externals: &[Name]) -> Result<(), ControlError> {
        let Some(peer) = entry.state().peer.clone() else { return Err(retired(&entry.name)) };
        match peer.call(InstanceRequest::Activate {}, CALL_LIMIT) {
            Ok(InstanceReply::Done) => {}
            Ok(_) => return Err(entry.complain(&peer.unexpected())),
            Err(error) => return Err(entry.complain(&error)),
        }
        entry.state().has_traffic = true;
        self.fabric.bind(&entry.name, externals).map_err(from_fabric)
    }

    /// Refuses if another instance has the traffic of one of the external ports.
    fn check_unclaimed(&self, vnf: &Vnf) -> Result<(), ControlError> {
        let instances = self.fabric.paths().map_err(from_fabric)?;
        let externals: Vec<&Name> = vnf.ports.iter().map(|port| &port.external).collect();
        let claims = |known: &InstancePaths| known.paths.iter().any(|path| externals.contains(&&path.from));
        match instances.iter().find(|known| claims(known)) {
            None => Ok(()),
            Some(known) => Err(ControlError::with(
                ErrorCode::Busy,
                format!(
                    "the traffic leads to {} already: boot without --active, then migrate",
                    known.instance.as_str()
                ),
            )),
        }
    }

    pub(super) fn leads_to(&self, name: &Name) -> Result<bool, ControlError> {
        let instances = self.fabric.paths().map_err(from_fabric)?;
        Ok(instances.iter().any(|known| known.instance == *name && !known.paths.is_empty()))
    }

    /// Ends what there is of an instance, and forgets it. Goes on whatever fails: nothing may be left behind.
    pub(super) fn take_down(&self, entry: &Arc<Entry>, peer: Option<Arc<InstancePeer>>) {
        let name = entry.name.as_str();
        let machine = entry.state().machine.take();
        if let Some(mut machine) = machine {
            if let Some(peer) = peer.filter(|peer| peer.is_up()) {
                // The connection may end before the answer comes.
                let _ = peer.call(InstanceRequest::Shutdown {}, SHUTDOWN_GRACE);
                let deadline = Instant::now() + SHUTDOWN_GRACE;
                while machine.is_alive() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            match machine.stop(SHUTDOWN_GRACE) {
                Stopped::Already | Stopped::PoweredOff => log::info!("{name}: retired"),
                other => log::warn!("{name}: {other}"),
            }
        }
        // Nobody has them any more.
        let loan = entry.state().loan.take();
        if let Some(Err(error)) = loan.map(Loan::give_back) {
            log::error!("{name}: the host's PCI functions were not given back: {error}; try `slimctl host clean`");
        }
        if let Some(blueprint) = &entry.blueprint {
            if !self.fabric.is_up() {
                log::warn!("{name}: the switch cannot be reached and keeps the instance's ports");
            } else if let Err(error) = self.fabric.unplug(&entry.name) {
                log::warn!("{name}: {error}");
            }
            blueprint.vlans().iter().for_each(VlanLink::remove);
        }
        self.registry.remove(&entry.name);
    }
}

fn retired(name: &Name) -> ControlError {
    ControlError::with(ErrorCode::Busy, format!("{} was retired while it booted", name.as_str()))
}

/// A function that cannot be given to a guest, for whoever asked us.
fn from_borrow(error: BorrowError) -> ControlError {
    let code = match &error {
        BorrowError::Change { .. } | BorrowError::Record { .. } | BorrowError::NotBound { .. } => ErrorCode::Io,
        BorrowError::AllInUse { .. } | BorrowError::InUse { .. } | BorrowError::StillOpen { .. } => ErrorCode::Busy,
        _ => ErrorCode::Malformed,
    };
    ControlError::with(code, error.to_string())
}

/// A failure to boot, for whoever asked us.
pub(super) fn from_launch(error: LaunchError) -> ControlError {
    let code = match &error {
        LaunchError::MissingImage { .. } => ErrorCode::NotFound,
        LaunchError::Accel(_) | LaunchError::MissingProgram(_) => ErrorCode::Unsupported,
        LaunchError::Invalid(_) | LaunchError::Passthrough(_) | LaunchError::Placement { .. } => ErrorCode::Malformed,
        LaunchError::Io { .. } | LaunchError::Ended { .. } | LaunchError::NotReady { .. } => ErrorCode::Io,
    };
    ControlError::with(code, error.to_string())
}
