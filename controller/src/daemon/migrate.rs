//! Migrations: who takes part in which, and the coordinator's driver.
//!
//! The coordinator decides everything; here requests become messages, and messages, breaks and time become its events.

use super::Daemon;
use super::registry::{CALL_LIMIT, Entry};
use crate::api::{ApiEvent, MigrateOptions, MigrationOutcome, MigrationResult, MigrationSummary, Step, TimelineEntry};
use crate::fabric::Fabric;
use crate::peer::{self, InstancePeer, PeerEvent};
use crate::units::word;
use slim_core::migration::{
    CallError, Coordinator, CoordinatorAction, CoordinatorEvent, CoordinatorParameters, CoordinatorTimeouts, Outcome,
    Party, TooLate,
};
use slim_core::protocol::control::{
    ControlError, ErrorCode, InstanceEvent, InstanceRequest, InstanceRole, MigrationRole, PrepareOptions,
};
use slim_core::protocol::{MigrationId, Name, Nonce, Text};
use slim_core::time;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many migrations that are over are remembered.
const PAST_MAX: usize = 32;

/// How long the daemon waits at its end for migrations to be undone.
const UNDO_LIMIT: Duration = Duration::from_secs(15);

/// How long an instance may take to become idle again.
const RESET_LIMIT: Duration = Duration::from_secs(5);

/// All migrations, under way and over.
#[derive(Default)]
pub(super) struct Migrations {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    running: Vec<Running>,
    past: VecDeque<MigrationSummary>,
}

/// A migration under way, as others see it.
struct Running {
    summary: MigrationSummary,
    began: Instant,
    inputs: Sender<Input>,
}

/// What the driver waits for.
enum Input {
    Event(CoordinatorEvent),
    Abort { reason: Text, answer: Sender<Result<(), TooLate>> },
}

impl Migrations {
    fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those under way, and the last ones that are over.
    pub(super) fn summaries(&self) -> (Vec<MigrationSummary>, Vec<MigrationSummary>) {
        self.with(|inner| {
            let running = inner.running.iter().map(|running| MigrationSummary {
                duration_us: micros(running.began.elapsed()),
                ..running.summary.clone()
            });
            (running.collect(), inner.past.iter().cloned().collect())
        })
    }

    fn begin(&self, summary: MigrationSummary, inputs: Sender<Input>) {
        self.with(|inner| inner.running.push(Running { summary, began: Instant::now(), inputs }));
    }

    fn note(&self, migration: MigrationId, detail: &str) {
        self.with(|inner| {
            for running in inner.running.iter_mut().filter(|running| running.summary.migration == migration) {
                detail.clone_into(&mut running.summary.detail);
            }
        });
    }

    fn end(&self, outcome: &MigrationOutcome) {
        let detail = match &outcome.outcome {
            Outcome::Completed { remark, .. } => remark.as_ref().map(ToString::to_string).unwrap_or_default(),
            Outcome::RolledBack { failure, .. } => failure.to_string(),
            Outcome::Unresolved { failure, what_to_do } => format!("{failure}; {what_to_do}"),
        };
        let summary = MigrationSummary {
            migration: outcome.migration,
            source: outcome.source.clone(),
            destination: outcome.destination.clone(),
            result: outcome.result(),
            duration_us: outcome.total_us,
            detail,
        };
        self.with(|inner| {
            inner.running.retain(|running| running.summary.migration != outcome.migration);
            inner.past.push_back(summary);
            if inner.past.len() > PAST_MAX {
                inner.past.pop_front();
            }
        });
    }
}

impl Daemon {
    /// Moves a live network function; returns when that is over, well or not.
    pub(super) fn migrate(
        &self,
        source: &Name,
        destination: &Name,
        options: &MigrateOptions,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<MigrationOutcome, ControlError> {
        if source == destination {
            let text = format!("{source} cannot migrate to itself: name another instance");
            return Err(ControlError::with(ErrorCode::Malformed, text));
        }
        let (migration, nonce) = identifiers()?;
        let pair = Pair { source: self.registry.get(source)?, destination: self.registry.get(destination)? };
        let claim = Claim::new(migration, &pair)?;
        reset_if_used(&pair.destination)?;
        let parameters = CoordinatorParameters {
            migration,
            nonce,
            source: source.clone(),
            destination: destination.clone(),
            prepare: PrepareOptions::default(),
            start: options.start(),
            timeouts: CoordinatorTimeouts::default(),
        };
        let mut outcome = self.drive(&pair, on_event, |now| Coordinator::new(now, parameters))?;
        drop(claim);
        if options.retire
            && outcome.result() == MigrationResult::Completed
            && let Err(error) = self.retire(source, false)
        {
            outcome.warnings.push(format!("{source} was not retired: {error}"));
        }
        Ok(outcome)
    }

    /// Gives up the migration in which `instance` takes part, or the only one.
    pub(super) fn abort(&self, instance: Option<&Name>) -> Result<(), ControlError> {
        let (answer, answered) = channel();
        let of_instance = |running: &Running| {
            instance.is_none_or(|name| *name == running.summary.source || *name == running.summary.destination)
        };
        let input = Input::Abort { reason: "the operator gave up".into(), answer };
        self.migrations.with(|inner| {
            let mut candidates = inner.running.iter().filter(|running| of_instance(running));
            let none = || match instance {
                Some(name) => format!("{name} takes part in no migration"),
                None => "no migration is under way".to_owned(),
            };
            let found = candidates.next().ok_or_else(|| ControlError::with(ErrorCode::UnknownMigration, none()))?;
            if candidates.next().is_some() {
                let text = "several migrations are under way: name an instance of the one to give up";
                return Err(ControlError::new(ErrorCode::Busy, text));
            }
            // A driver that has just ended leaves the answer open, which is told below.
            let _ = found.inputs.send(input);
            Ok(())
        })?;
        match answered.recv_timeout(CALL_LIMIT) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ControlError::with(ErrorCode::Committed, error.to_string())),
            Err(_) => Err(ControlError::new(ErrorCode::UnknownMigration, "the migration has just ended")),
        }
    }

    /// Gives up every migration and waits until that is done.
    pub(super) fn end_migrations(&self) {
        self.migrations.with(|inner| {
            for running in &inner.running {
                let (answer, _) = channel();
                let _ = running.inputs.send(Input::Abort { reason: "the controller ends".into(), answer });
            }
        });
        let deadline = Instant::now() + UNDO_LIMIT;
        while self.migrations.with(|inner| !inner.running.is_empty()) {
            if Instant::now() >= deadline {
                log::error!("a migration could not be ended in time");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a coordinator to its end.
    fn drive(
        &self,
        pair: &Pair,
        on_event: &mut dyn FnMut(ApiEvent),
        make: impl FnOnce(time::Instant) -> Coordinator,
    ) -> Result<MigrationOutcome, ControlError> {
        let began = Instant::now();
        let now = || time::Instant::from_nanos(began.elapsed().as_nanos().try_into().unwrap_or(u64::MAX));
        let (inputs, queue) = channel();
        let wires = Wires::new(pair, &self.fabric, inputs.clone())?;
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
            outcome,
        };
        if let Some(failure) = outcome.failure() {
            log::warn!("migration {migration}: {failure}");
        }
        self.migrations.end(&outcome);
        Ok(outcome)
    }
}

/// The two instances of a migration.
struct Pair {
    source: Arc<Entry>,
    destination: Arc<Entry>,
}

impl Pair {
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

/// The right of a migration to two instances; given back when dropped.
struct Claim<'a> {
    pair: &'a Pair,
}

impl<'a> Claim<'a> {
    fn new(migration: MigrationId, pair: &'a Pair) -> Result<Self, ControlError> {
        // In the order of names, so that two migrations the other way round do not each hold what the other needs.
        let mut entries = [&pair.source, &pair.destination];
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let [mut first, mut second] = entries.map(|entry| entry.state());
        for (entry, state) in entries.iter().zip([&first, &second]) {
            if let Some(other) = state.migration {
                let text = format!("{} takes part in migration {other} already", entry.name);
                return Err(ControlError::with(ErrorCode::Busy, text));
            }
        }
        first.migration = Some(migration);
        second.migration = Some(migration);
        Ok(Self { pair })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pair.source.state().migration = None;
        self.pair.destination.state().migration = None;
    }
}

/// The connections of a migration.
struct Wires {
    source: Arc<InstancePeer>,
    destination: Arc<InstancePeer>,
    fabric: Arc<dyn Fabric>,
    inputs: Sender<Input>,
}

impl Wires {
    fn new(pair: &Pair, fabric: &Arc<dyn Fabric>, inputs: Sender<Input>) -> Result<Self, ControlError> {
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
            PeerEvent::Up => of_switch.send(Input::Event(CoordinatorEvent::Connected(Party::Switch))).is_ok(),
            PeerEvent::Event(event) => of_switch.send(Input::Event(CoordinatorEvent::Switch(event))).is_ok(),
            PeerEvent::Down => true,
        }));
        Ok(Self { source, destination, fabric: Arc::clone(fabric), inputs })
    }

    fn carry_out(&self, action: CoordinatorAction) {
        let inputs = self.inputs.clone();
        match action {
            CoordinatorAction::Instance { role, call, request } => {
                let peer = match role {
                    MigrationRole::Source => &self.source,
                    MigrationRole::Destination => &self.destination,
                };
                peer.send(request, move |answer| {
                    let result = answer.map_err(from_peer);
                    // A driver that has ended does not want the answer any more.
                    let _ = inputs.send(Input::Event(CoordinatorEvent::InstanceReply { call, result }));
                });
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

/// An instance that has been through a migration is emptied before it can be a destination.
fn reset_if_used(entry: &Entry) -> Result<(), ControlError> {
    let used = |role| matches!(role, InstanceRole::Released | InstanceRole::Discarded);
    // Where there is no status, the coordinator finds out what is wrong.
    let Some(status) = entry.status() else { return Ok(()) };
    if !used(status.role) {
        return Ok(());
    }
    log::info!("{}: {}, reset", entry.name, status.role);
    entry.order(InstanceRequest::Reset {}, CALL_LIMIT)?;
    let deadline = Instant::now() + RESET_LIMIT;
    while entry.status().is_none_or(|status| used(status.role)) {
        if Instant::now() >= deadline {
            return Err(ControlError::with(ErrorCode::Busy, format!("{} does not become idle", entry.name)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A migration's identifier and nonce, which nobody has used before and nobody can guess.
fn identifiers() -> Result<(MigrationId, Nonce), ControlError> {
    use std::io::Read;
    let mut bytes = [0; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| ControlError::with(ErrorCode::Internal, format!("no random numbers: {error}")))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    Ok((MigrationId(u64::from_be_bytes([a, b, c, d, e, f, g, h])), Nonce(u32::from_be_bytes([i, j, k, l]))))
}

fn from_peer(error: peer::CallError) -> CallError {
    match error {
        peer::CallError::Refused(refusal) => CallError::Refused(refusal),
        other => CallError::Unreachable(other.to_string().into()),
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
