//! The instances the daemon has charge of.

use super::blueprint::{Blueprint, Origin};
use crate::api::{InstanceInfo, Life, Runs};
use crate::hypervisor::borrowed::Loan;
use crate::hypervisor::{Machine, Ready};
use crate::peer::{CallError, Endpoint, InstancePeer};
use slim_core::protocol::control::{
    ControlError, Description, ErrorCode, InstanceReply, InstanceRequest, InstanceStatus, SubscriberCursor,
    SubscriberPage,
};
use slim_core::protocol::{MigrationId, Name};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an instance may take for a simple answer.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);

/// How long is waited for an instance where its answer is only nice to have.
const GLANCE_LIMIT: Duration = Duration::from_millis(500);

/// One instance.
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) vnf: Option<Name>,
    /// What it is made from; `None` if somebody else plugged it in.
    pub(super) blueprint: Option<Blueprint>,
    pub(super) control: Endpoint,
    pub(super) index: Option<u8>,
    state: Mutex<State>,
}

/// What changes of an instance. Held for moments only, never while a peer is asked.
pub(super) struct State {
    pub(super) stage: Stage,
    pub(super) machine: Option<Box<dyn Machine>>,
    /// The host's functions that its guest has.
    pub(super) loan: Option<Loan>,
    pub(super) peer: Option<Arc<InstancePeer>>,
    pub(super) description: Option<Description>,
    pub(super) ready: Option<Ready>,
    pub(super) migration: Option<MigrationId>,
    /// Whether the traffic of its network function leads to it, for a switch that has forgotten it.
    pub(super) has_traffic: bool,
    /// The files that it was booted from, as they were; `None` for one that was not, or by another daemon.
    pub(super) origin: Option<Origin>,
    /// Whether it waits in its network function's pool.
    pub(super) pooled: bool,
    /// When its identity is to be renewed; at once if it was not we who gave it the present one.
    pub(super) renew_at: Option<Instant>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    Booting,
    Running,
    Ended(String),
    Retiring,
}

impl Entry {
    fn new(
        name: &Name,
        vnf: Option<&Name>,
        index: Option<u8>,
        blueprint: Option<Blueprint>,
        control: Endpoint,
    ) -> Self {
        let state = State {
            stage: Stage::Booting,
            machine: None,
            loan: None,
            peer: None,
            description: None,
            ready: None,
            migration: None,
            has_traffic: false,
            origin: None,
            pooled: false,
            renew_at: Some(Instant::now()),
        };
        Self { name: name.clone(), vnf: vnf.cloned(), blueprint, control, index, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment: nothing is half done after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance's control connection.
    ///
    /// # Errors
    /// It has none, for the reason given.
    pub(super) fn peer(&self) -> Result<Arc<InstancePeer>, ControlError> {
        let state = self.state();
        let name = self.name.as_str();
        match (&state.stage, &state.peer) {
            (Stage::Running, Some(peer)) => Ok(Arc::clone(peer)),
            (Stage::Ended(reason), _) => {
                Err(ControlError::with(ErrorCode::WrongRole, format!("{name} has ended: {reason}")))
            }
            (Stage::Retiring, _) => Err(ControlError::with(ErrorCode::Busy, format!("{name} is being retired"))),
            _ => Err(ControlError::with(ErrorCode::Busy, format!("{name} is still booting"))),
        }
    }

    /// Asks the instance for something that is answered by `done`.
    pub(super) fn order(&self, request: InstanceRequest, limit: Duration) -> Result<(), ControlError> {
        let peer = self.peer()?;
        match peer.call(request, limit) {
            Ok(InstanceReply::Done) => Ok(()),
            Ok(_) => Err(self.complain(&peer.unexpected())),
            Err(error) => Err(self.complain(&error)),
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self, limit: Duration) -> Result<String, ControlError> {
        let peer = self.peer()?;
        match peer.call(InstanceRequest::Config {}, limit) {
            Ok(InstanceReply::Config(config)) => Ok(config.toml),
            Ok(_) => Err(self.complain(&peer.unexpected())),
            Err(error) => Err(self.complain(&error)),
        }
    }

    /// Some of its subscribers.
    pub(super) fn subscribers(
        &self,
        from: Option<SubscriberCursor>,
        limit: Duration,
    ) -> Result<SubscriberPage, ControlError> {
        let peer = self.peer()?;
        match peer.call(InstanceRequest::Subscribers { from }, limit) {
            Ok(InstanceReply::Subscribers(page)) => Ok(page),
            Ok(_) => Err(self.complain(&peer.unexpected())),
            Err(error) => Err(self.complain(&error)),
        }
    }

    /// What the instance says about itself, if it answers at once.
    pub(super) fn status(&self) -> Option<InstanceStatus> {
        let peer = self.peer().ok().filter(|peer| peer.is_up())?;
        match peer.call(InstanceRequest::Status {}, GLANCE_LIMIT) {
            Ok(InstanceReply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// An instance's refusal or silence, for whoever asked us.
    pub(super) fn complain(&self, error: &CallError) -> ControlError {
        let code = match error {
            CallError::Refused(refusal) => refusal.code,
            _ => ErrorCode::Io,
        };
        ControlError::with(code, format!("{}: {error}", self.name.as_str()))
    }

    /// Looks whether the instance's process has ended by itself; tells so once.
    pub(super) fn check_alive(&self) -> Option<String> {
        let mut state = self.state();
        if !matches!(state.stage, Stage::Running) {
            return None;
        }
        let machine = state.machine.as_mut()?;
        if machine.is_alive() {
            return None;
        }
        let reason = format!("its process ended by itself{}", machine.console_tail());
        state.stage = Stage::Ended(reason.clone());
        state.peer = None;
        Some(reason)
    }

    /// Everything about it that can be shown; with its own status in full if `detailed`.
    pub(super) fn info(&self, detailed: bool) -> InstanceInfo {
        let status = self.status();
        let state = self.state();
        let life = match &state.stage {
            Stage::Booting => Life::Booting {},
            Stage::Running if status.is_some() => Life::Up {},
            Stage::Running => Life::Unreachable {},
            Stage::Ended(reason) => Life::Ended { reason: reason.clone() },
            Stage::Retiring => Life::Retiring {},
        };
        let runs = match (&state.machine, &self.blueprint) {
            (Some(machine), _) => Some(match machine.accel() {
                Some(accel) => Runs::Image { accel: accel.name().into(), reason: accel.reason.clone() },
                None => Runs::Process {},
            }),
            (None, _) if state.stage == Stage::Booting => None,
            (None, _) => Some(Runs::Attached {}),
        };
        let description = state.description.as_ref();
        let placement = state.machine.as_ref().and_then(|machine| machine.placement());
        let placement = placement.filter(|placement| !placement.is_anywhere());
        InstanceInfo {
            name: self.name.clone(),
            vnf: self.vnf.clone(),
            kind: description.map(|description| description.kind.clone()),
            life,
            role: status.as_ref().map(|status| status.role),
            runs,
            placement: placement.map(ToString::to_string),
            process_id: state.machine.as_ref().map(|machine| machine.process_id()),
            control: self.control.clone(),
            state_address: description.map(|description| description.state_address),
            ready_after_ms: state.ready.as_ref().map(|ready| ready.after.as_millis().try_into().unwrap_or(u64::MAX)),
            boot_ms: description.map(|description| description.boot_ms),
            console_log: state.machine.as_ref().map(|machine| machine.console_log().to_owned()),
            migration: state.migration,
            pooled: state.pooled,
            capacity: description.map(|description| description.capacity.clone()).unwrap_or_default(),
            status: status.filter(|_| detailed).map(Box::new),
        }
    }
}

/// All instances, by name.
#[derive(Default)]
pub(super) struct Registry {
    entries: Mutex<BTreeMap<Name, Arc<Entry>>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a new instance. `make` gets a number that no other instance has.
    ///
    /// # Errors
    /// The name is taken, numbers have run out, or `make` refuses.
    pub(super) fn add(
        &self,
        name: &Name,
        vnf: Option<&Name>,
        make: impl FnOnce(u8) -> Result<(Option<Blueprint>, Endpoint), ControlError>,
    ) -> Result<Arc<Entry>, ControlError> {
        let mut entries = self.lock();
        if entries.contains_key(name) {
            return Err(ControlError::with(
                ErrorCode::AlreadyExists,
                format!("there is an instance {} already; retire it first, or choose another name", name.as_str()),
            ));
        }
        let taken = |index: u8| entries.values().any(|entry| entry.index == Some(index));
        let index = (0..=u8::MAX)
            .find(|&index| !taken(index))
            .ok_or_else(|| ControlError::new(ErrorCode::Limit, "there are 256 instances already"))?;
        let (blueprint, control) = make(index)?;
        let index = blueprint.is_some().then_some(index);
        let entry = Arc::new(Entry::new(name, vnf, index, blueprint, control));
        entries.insert(name.clone(), Arc::clone(&entry));
        Ok(entry)
    }

    /// Takes up an instance that an earlier daemon had charge of, with the number it had; `None` if the name is taken.
    pub(super) fn restore(
        &self,
        name: &Name,
        vnf: Option<&Name>,
        index: Option<u8>,
        blueprint: Option<Blueprint>,
        control: Endpoint,
    ) -> Option<Arc<Entry>> {
        match self.lock().entry(name.clone()) {
            MapEntry::Occupied(_) => None,
            MapEntry::Vacant(place) => {
                Some(Arc::clone(place.insert(Arc::new(Entry::new(name, vnf, index, blueprint, control)))))
            }
        }
    }

    /// Forgets an instance.
    pub(super) fn remove(&self, name: &Name) {
        self.lock().remove(name);
    }

    /// The instance of that name.
    ///
    /// # Errors
    /// There is none; says which there are.
    pub(super) fn get(&self, name: &Name) -> Result<Arc<Entry>, ControlError> {
        let entries = self.lock();
        entries.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = entries.keys().map(Name::as_str).collect();
            let known = match known.is_empty() {
                true => "there are none yet: `slimctl instance boot NAME`".to_owned(),
                false => format!("there are {}", known.join(", ")),
            };
            ControlError::with(ErrorCode::NotFound, format!("there is no instance {}; {known}", name.as_str()))
        })
    }

    /// Every instance, by name.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }
}
