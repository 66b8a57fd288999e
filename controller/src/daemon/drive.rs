//! The coordinator's driver: its requests become messages, and messages, breaks and time become its events.

use super::Daemon;
use super::migrations::{Input, micros};
use super::registry::{Entry, Stage};
use crate::api::{ApiEvent, MigrationOutcome, MigrationResult, MigrationSummary, Step, TimelineEntry};
use crate::fabric::Fabric;
use crate::peer::{self, InstancePeer, PeerEvent};
use crate::units::word;
use slim_core::migration::{CallError, Coordinator, CoordinatorAction, CoordinatorEvent, Outcome};
use slim_core::protocol::control::{ControlError, ErrorCode, InstanceEvent, MigrationRole};
use slim_core::protocol::{DestinationPhase, MigrationId, MigrationPhase};
use slim_core::time;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

impl Daemon {
    /// Runs a coordinator to its end.
    pub(super) fn drive(
        &self,
        pair: &Pair,
        on_event: &mut dyn FnMut(ApiEvent),
        make: impl FnOnce(time::Instant) -> Coordinator,
    ) -> Result<MigrationOutcome, ControlError> {
        let began = Instant::now();
        let now = || time::Instant::from_nanos(began.elapsed().as_nanos().try_into().unwrap_or(u64::MAX));
        let (inputs, queue) = channel();
        let wires = Wires::new(pair, self, inputs.clone())?;
        let mut coordinator = make(now());
        let migration = coordinator.parameters().migration;
        on_event(ApiEvent::MigrationBegun { migration });
        let (source, destination) = (pair.source.name.clone(), pair.destination.name.clone());
        log::info!("migration {migration}: {source} to {destination}");
        self.migrations.begin(
            MigrationSummary {
                migration,
                source: source.clone(),
                destination: destination.clone(),
                result: MigrationResult::Running,
                duration_us: 0,
                detail: String::new(),
            },
            inputs,
        );
        let mut timeline = Timeline { began, entries: Vec::new() };
        let outcome = loop {
            while let Some(action) = coordinator.poll_action() {
                match action {
                    CoordinatorAction::PhaseEntered(phase) => {
                        let entry = timeline.add(Step::Controller { phase });
                        let word = word(&phase);
                        log::info!("migration {migration}: {word} after {} ms", entry.at_us / 1_000);
                        self.migrations.note(migration, &word);
                        on_event(ApiEvent::MigrationStep { entry });
                    }
                    action => wires.carry_out(action),
                }
            }
            if let Some(outcome) = coordinator.outcome() {
                break outcome.clone();
            }
            match next_input(&queue, coordinator.poll_timeout(), now()) {
                Some(Input::Event(event)) => {
                    if let Some(step) = pair.step(migration, &event) {
                        if is_take_over(&step) {
                            pair.move_traffic();
                        }
                        let entry = timeline.add(step);
                        on_event(ApiEvent::MigrationStep { entry });
                    }
                    coordinator.handle(now(), event);
                }
                Some(Input::Abort { reason, answer }) => {
                    // Whoever asked may have left.
                    let _ = answer.send(coordinator.abort(now(), reason));
                }
                None => coordinator.handle_timeout(now()),
            }
        };
        let source_report = match &outcome {
            Outcome::Completed { source, .. } | Outcome::RolledBack { source, .. } => source.as_deref(),
            Outcome::Unresolved { .. } => None,
        };
        let outcome = MigrationOutcome {
            migration,
            source,
            destination,
            total_us: micros(began.elapsed()),
            phases: coordinator.progress(now()).phases,
            timeline: timeline.entries,
            sigma_payload: source_report.and_then(|report| report.sigma_payload()),
            sigma_wire: source_report.and_then(|report| report.sigma_wire()),
            warnings: Vec::new(),
            destination_ready: None,
            outcome,
        };
        if outcome.result() == MigrationResult::Completed {
            self.settle_paths(pair);
        }
        if let Some(failure) = outcome.failure() {
            log::warn!("migration {migration}: {failure}");
        }
        self.migrations.end(&outcome);
        Ok(outcome)
    }
}

impl Daemon {
    /// The traffic leads to the destination now, also if the switch was restarted after the redirect.
    fn settle_paths(&self, pair: &Pair) {
        pair.move_traffic();
        let Some(blueprint) = &pair.destination.blueprint else { return };
        let name = &pair.destination.name;
        if self.leads_to(name) == Ok(false)
            && let Err(error) = self.fabric.bind(name, &blueprint.externals())
        {
            log::error!("{name}: has taken over, but the switch does not lead the traffic to it: {error}");
        }
    }
}

/// The two instances of a migration.
pub(super) struct Pair {
    pub(super) source: Arc<Entry>,
    pub(super) destination: Arc<Entry>,
}

impl Pair {
    /// The destination has the state: a switch that is restarted from now on leads the traffic there.
    fn move_traffic(&self) {
        self.source.state().has_traffic = false;
        self.destination.state().has_traffic = true;
    }

    /// The phase of an instance that an event tells of.
    fn step(&self, migration: MigrationId, event: &CoordinatorEvent) -> Option<Step> {
        match event {
            CoordinatorEvent::Instance { role, event: InstanceEvent::PhaseChanged { migration: of, phase, .. } }
                if *of == migration =>
            {
                let entry = match role {
                    MigrationRole::Source => &self.source,
                    MigrationRole::Destination => &self.destination,
                };
                Some(Step::Instance { name: entry.name.clone(), phase: *phase })
            }
            _ => None,
        }
    }
}

/// Whether an instance says that it has taken over.
fn is_take_over(step: &Step) -> bool {
    let taken_over = [DestinationPhase::TakingOver, DestinationPhase::Live].map(MigrationPhase::Destination);
    matches!(step, Step::Instance { phase, .. } if taken_over.contains(phase))
}

/// The connections of a migration.
struct Wires {
    source: (Arc<Entry>, Arc<InstancePeer>),
    destination: (Arc<Entry>, Arc<InstancePeer>),
    fabric: Arc<dyn Fabric>,
    switch_is_new: Arc<AtomicBool>,
    inputs: Sender<Input>,
}

impl Wires {
    fn new(pair: &Pair, daemon: &Daemon, inputs: Sender<Input>) -> Result<Self, ControlError> {
        let fabric = &daemon.fabric;
        let (source, destination) = (pair.source.peer()?, pair.destination.peer()?);
        for (peer, role) in [(&source, MigrationRole::Source), (&destination, MigrationRole::Destination)] {
            let inputs = inputs.clone();
            peer.subscribe(move |event| match event {
                PeerEvent::Up => inputs.send(Input::Event(CoordinatorEvent::Connected(role.into()))).is_ok(),
                PeerEvent::Event(event) => {
                    inputs.send(Input::Event(CoordinatorEvent::Instance { role, event })).is_ok()
                }
                PeerEvent::Down => true,
            });
        }
        let of_switch = inputs.clone();
        fabric.subscribe(Box::new(move |event| match event {
            PeerEvent::Event(event) => of_switch.send(Input::Event(CoordinatorEvent::Switch(event))).is_ok(),
            // A switch that comes back is of use only once it has got back its ports: the daemon tells then.
            PeerEvent::Up | PeerEvent::Down => true,
        }));
        let source = (Arc::clone(&pair.source), source);
        let destination = (Arc::clone(&pair.destination), destination);
        let switch_is_new = Arc::clone(&daemon.switch_is_new);
        Ok(Self { source, destination, fabric: Arc::clone(fabric), switch_is_new, inputs })
    }

    fn carry_out(&self, action: CoordinatorAction) {
        let inputs = self.inputs.clone();
        match action {
            CoordinatorAction::Instance { role, call, request } => {
                let (entry, peer) = match role {
                    MigrationRole::Source => &self.source,
                    MigrationRole::Destination => &self.destination,
                };
                let entry = Arc::clone(entry);
                peer.send(request, move |answer| {
                    let result = answer.map_err(|error| from_instance(&entry, error));
                    // A driver that has ended does not want the answer any more.
                    let _ = inputs.send(Input::Event(CoordinatorEvent::InstanceReply { call, result }));
                });
            }
            // It would refuse for want of the ports it is about to get.
            CoordinatorAction::Switch { call, .. } if self.switch_is_new.load(Ordering::Acquire) => {
                let result = Err(CallError::Unreachable("the switch gets back its ports".into()));
                let _ = inputs.send(Input::Event(CoordinatorEvent::SwitchReply { call, result }));
            }
            CoordinatorAction::Switch { call, request } => {
                self.fabric.request(
                    request,
                    Box::new(move |answer| {
                        let result = answer.map_err(from_peer);
                        let _ = inputs.send(Input::Event(CoordinatorEvent::SwitchReply { call, result }));
                    }),
                );
            }
            // Dealt with by the driver.
            CoordinatorAction::PhaseEntered(_) => {}
        }
    }
}

/// The phases as the controller learns of them.
struct Timeline {
    began: Instant,
    entries: Vec<TimelineEntry>,
}

impl Timeline {
    fn add(&mut self, step: Step) -> TimelineEntry {
        let entry = TimelineEntry { at_us: micros(self.began.elapsed()), step };
        self.entries.push(entry.clone());
        entry
    }
}

/// The next input, or `None` when the coordinator's time has come.
fn next_input(queue: &Receiver<Input>, wake: Option<time::Instant>, now: time::Instant) -> Option<Input> {
    let Some(wake) = wake else { return queue.recv().ok() };
    if wake <= now {
        return None;
    }
    queue.recv_timeout(wake - now).ok()
}

/// Why an instance does not answer. One whose process has ended never will: that is as good as its own word that it knows
/// nothing of any migration, and spares everybody the wait.
fn from_instance(entry: &Entry, error: peer::CallError) -> CallError {
    match (&error, &entry.state().stage) {
        (peer::CallError::Refused(_), _) => from_peer(error),
        (_, Stage::Ended(_)) => {
            let text = format!("{}: its process has ended", entry.name);
            CallError::Refused(ControlError::with(ErrorCode::UnknownMigration, text))
        }
        _ => from_peer(error),
    }
}

fn from_peer(error: peer::CallError) -> CallError {
    match error {
        peer::CallError::Refused(refusal) => CallError::Refused(refusal),
        other => CallError::Unreachable(other.to_string().into()),
    }
}
