//! The controller: the real coordinator, with connections and chores that do what the daemon's threads do.

mod chores;
mod peer;

pub(crate) use peer::Waiting;

use crate::fabric::Names;
use crate::net::{Host, HostParameters};
use crate::pipe::Pipe;
use crate::{Random, Scenario, Trace};
use chores::Chores;
use peer::{Peer, SwitchPeer};
use slim_core::migration::{
    Call, CallError, Coordinator, CoordinatorAction, CoordinatorEvent, CoordinatorParameters, CoordinatorTimeouts,
    Outcome, Party,
};
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::{InstanceReply, InstanceRequest, MigrationRole, SwitchReply, SwitchRequest};
use slim_core::time::Instant;

/// The number of the controller's host.
const NUMBER: u8 = 1;

/// What all methods need.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Instant,
    pub(crate) pipe: &'a mut Pipe,
    pub(crate) random: &'a mut Random,
    pub(crate) trace: &'a mut Trace,
    /// Which instances run: the operator can see that, whoever can be reached.
    pub(crate) running: [bool; 2],
}

impl Surroundings<'_> {
    fn tell(&mut self, words: std::fmt::Arguments<'_>) {
        self.trace.event(self.now, "controller", words);
    }
}

/// A migration under way.
struct Drive {
    coordinator: Coordinator,
    /// Which instance is its source.
    source: usize,
}

/// A migration that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) migration: MigrationId,
    pub(crate) source: usize,
    pub(crate) outcome: Outcome,
}

/// One run of the controller.
pub(crate) struct Controller {
    pub(crate) host: Host,
    names: Names,
    link: slim_core::protocol::control::LinkSettings,
    timeouts: CoordinatorTimeouts,
    control_duplicate: u64,
    peers: [Peer; 2],
    switch: SwitchPeer,
    drives: Vec<Drive>,
    chores: Chores,
    next_id: u64,
    pub(crate) ended: Vec<Ended>,
    /// The last request of a migration, for a duplicate that comes late: to which peer, and its line.
    pub(crate) last_line: Option<(usize, Vec<u8>)>,
    /// Lines that were sent twice.
    pub(crate) duplicates: u64,
}

/// The switch, in numbers of peers.
pub(crate) const SWITCH: usize = 2;

impl Controller {
    pub(crate) fn new(now: Instant, names: Names, scenario: &Scenario, random: &mut Random) -> Self {
        let (buffer_bytes, patience) = (scenario.stream_buffer_bytes, scenario.patience);
        Self {
            host: Host::new(
                now,
                HostParameters {
                    number: NUMBER,
                    buffer_bytes,
                    patience,
                    congestion_control: scenario.congestion_control,
                },
                random,
            ),
            names,
            link: scenario.link,
            timeouts: scenario.timeouts,
            control_duplicate: scenario.noise.control_duplicate,
            peers: [Peer::new(0), Peer::new(1)],
            switch: SwitchPeer::default(),
            drives: Vec::new(),
            chores: Chores::new(now),
            next_id: 1 + random.below(1 << 20),
            ended: Vec::new(),
            last_line: None,
            duplicates: 0,
        }
    }

    /// Whether no migration is under way and nothing is left to be done after one.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.drives.is_empty() && self.chores.is_at_rest()
    }

    pub(crate) fn is_driving(&self) -> bool {
        !self.drives.is_empty()
    }

    /// Whether it can talk to everybody.
    pub(crate) fn is_connected(&self) -> bool {
        self.peers.iter().all(Peer::is_up) && self.switch.is_up()
    }

    /// Begins a migration.
    pub(crate) fn migrate(&mut self, now: Instant, parameters: CoordinatorParameters, source: usize) {
        self.drives.push(Drive { coordinator: Coordinator::new(now, parameters), source });
    }

    /// The operator gives up what is under way.
    pub(crate) fn abort(&mut self, now: Instant) {
        for drive in &mut self.drives {
            // Being too late is one of the things that can happen.
            let _ = drive.coordinator.abort(now, "operator");
        }
    }

    /// The operator wants an instance that has done its part to be made ready for another one.
    pub(crate) fn recycle(&mut self, node: usize) {
        self.chores.recycle(node);
    }

    /// The operator waits no longer for instances that do not answer.
    pub(crate) fn give_up_recycling(&mut self) {
        self.chores.give_up_recycling();
    }

    /// A peer has died, and with it the connection that the last request was on.
    pub(crate) fn forget_line_to(&mut self, peer: usize) {
        self.last_line.take_if(|(to, _)| *to == peer);
    }

    /// Sends a line once more, if there is a connection.
    pub(crate) fn resend(&mut self, surroundings: &mut Surroundings<'_>, peer: usize, line: &[u8]) {
        match self.peers.get_mut(peer) {
            Some(peer) => peer.send_bytes(line),
            None => self.switch.send_bytes(surroundings, line),
        }
    }

    /// The controller gets to run. Returns when it wants to again, if nothing arrives before.
    pub(crate) fn run(&mut self, surroundings: &mut Surroundings<'_>) -> Option<Instant> {
        let now = surroundings.now;
        for node in 0..2 {
            let heard = self.peers[node].serve(now, &mut self.host);
            if heard.connected {
                surroundings.tell(format_args!("connected to instance {node}"));
            }
            self.hear(surroundings, node, heard.connected, heard.lost);
            for event in heard.events {
                for drive in &mut self.drives {
                    let role = drive.role(node);
                    drive.coordinator.handle(now, CoordinatorEvent::Instance { role, event: event.clone() });
                }
            }
            for (waiting, result) in heard.answers {
                self.instance_answered(surroundings, node, waiting, result.map_err(CallError::Refused));
            }
        }
        let heard = self.switch.serve(surroundings);
        if heard.connected {
            surroundings.tell(format_args!("connected to the switch"));
            self.ask_switch(surroundings, Waiting::Restore, SwitchRequest::PathList {});
        }
        self.hear(surroundings, SWITCH, heard.connected, heard.lost);
        for event in heard.events {
            for drive in &mut self.drives {
                drive.coordinator.handle(now, CoordinatorEvent::Switch(event.clone()));
            }
        }
        for (waiting, result) in heard.answers {
            self.switch_answered(surroundings, waiting, result.map_err(CallError::Refused));
        }
        for drive in &mut self.drives {
            if drive.coordinator.poll_timeout().is_some_and(|due| due <= now) {
                drive.coordinator.handle_timeout(now);
            }
        }
        self.do_chores(surroundings);
        self.coordinate(surroundings);
        for peer in &mut self.peers {
            peer.flush(&mut self.host);
        }
        let drives = self.drives.iter().filter_map(|drive| drive.coordinator.poll_timeout());
        let peers = self.peers.iter().filter_map(Peer::wake);
        drives.chain(peers).chain(self.switch.wake(surroundings.pipe)).chain(self.chores.wake()).min()
    }

    /// A connection was made, or requests were lost with one.
    fn hear(&mut self, surroundings: &mut Surroundings<'_>, peer: usize, connected: bool, lost: Vec<Waiting>) {
        for waiting in lost {
            let error = CallError::Unreachable("the connection broke".into());
            if peer == SWITCH {
                self.switch_answered(surroundings, waiting, Err(error));
            } else {
                self.instance_answered(surroundings, peer, waiting, Err(error));
            }
        }
        if connected {
            for drive in &mut self.drives {
                let party = if peer == SWITCH { Party::Switch } else { drive.role(peer).into() };
                drive.coordinator.handle(surroundings.now, CoordinatorEvent::Connected(party));
            }
        }
    }

    fn instance_answered(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        node: usize,
        waiting: Waiting,
        result: Result<InstanceReply, CallError>,
    ) {
        match waiting {
            Waiting::Drive(migration, call) => {
                self.answer(surroundings.now, migration, |_| CoordinatorEvent::InstanceReply { call, result });
            }
            waiting => self.instance_did_chore(surroundings, node, waiting, result),
        }
    }

    fn switch_answered(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        waiting: Waiting,
        result: Result<SwitchReply, CallError>,
    ) {
        match waiting {
            Waiting::Drive(migration, call) => {
                self.answer(surroundings.now, migration, |_| CoordinatorEvent::SwitchReply { call, result });
            }
            waiting => self.switch_did_chore(surroundings, waiting, result),
        }
    }

    fn answer(&mut self, now: Instant, migration: MigrationId, event: impl FnOnce(&Drive) -> CoordinatorEvent) {
        if let Some(drive) = self.drives.iter_mut().find(|drive| drive.coordinator.parameters().migration == migration)
        {
            let event = event(drive);
            drive.coordinator.handle(now, event);
        }
    }

    /// Does what the coordinators want done, and notes which of them have ended.
    fn coordinate(&mut self, surroundings: &mut Surroundings<'_>) {
        loop {
            let mut wanted = None;
            for (index, drive) in self.drives.iter_mut().enumerate() {
                if let Some(action) = drive.coordinator.poll_action() {
                    wanted = Some((index, action));
                    break;
                }
            }
            let Some((index, action)) = wanted else { break };
            let migration = self.drives[index].coordinator.parameters().migration;
            match action {
                CoordinatorAction::Instance { role, call, request } => {
                    let source = self.drives[index].source;
                    let node = if role == MigrationRole::Source { source } else { 1 - source };
                    self.ask_instance(surroundings, node, Waiting::Drive(migration, call), request);
                }
                CoordinatorAction::Switch { call, request } => {
                    self.ask_switch(surroundings, Waiting::Drive(migration, call), request);
                }
                CoordinatorAction::PhaseEntered(phase) => {
                    surroundings.tell(format_args!("migration {migration}: {phase:?}"));
                }
            }
        }
        let mut ended = Vec::new();
        self.drives.retain(|drive| {
            let Some(outcome) = drive.coordinator.outcome() else { return true };
            let migration = drive.coordinator.parameters().migration;
            ended.push(Ended { migration, source: drive.source, outcome: outcome.clone() });
            false
        });
        for ended in ended {
            match ended.outcome {
                Outcome::Completed { .. } => self.chores.settle_paths(1 - ended.source),
                // Whom a restarted switch has to lead the traffic to will have to be asked.
                Outcome::Unresolved { .. } => self.chores.doubt_traffic(),
                Outcome::RolledBack { .. } => {}
            }
            self.ended.push(ended);
        }
    }

    fn ask_instance(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        node: usize,
        waiting: Waiting,
        request: InstanceRequest,
    ) {
        let repeatable = matches!(
            request,
            InstanceRequest::Prepare { .. }
                | InstanceRequest::Start { .. }
                | InstanceRequest::Abort { .. }
                | InstanceRequest::Resolve { .. }
        );
        let twice = repeatable && surroundings.random.chance(self.control_duplicate);
        if !matches!(request, InstanceRequest::Status {}) {
            surroundings.tell(format_args!("asks instance {node}: {request:?}"));
        }
        self.next_id += 1;
        match self.peers[node].ask(self.next_id, waiting, request) {
            Ok(line) => {
                if twice {
                    self.duplicates += 1;
                    self.peers[node].send_bytes(&line);
                }
                if repeatable {
                    self.last_line = Some((node, line));
                }
            }
            Err(waiting) => {
                let error = CallError::Unreachable("no connection".into());
                self.instance_answered(surroundings, node, waiting, Err(error));
            }
        }
    }

    fn ask_switch(&mut self, surroundings: &mut Surroundings<'_>, waiting: Waiting, request: SwitchRequest) {
        let repeatable = matches!(request, SwitchRequest::Redirect { .. });
        let twice = repeatable && surroundings.random.chance(self.control_duplicate);
        surroundings.tell(format_args!("asks the switch: {request:?}"));
        self.next_id += 1;
        match self.switch.ask(surroundings, self.next_id, waiting, request) {
            Ok(line) => {
                if twice {
                    self.duplicates += 1;
                    self.switch.send_bytes(surroundings, &line);
                }
                if repeatable {
                    self.last_line = Some((SWITCH, line));
                }
            }
            Err(waiting) => {
                let error = CallError::Unreachable("no connection".into());
                self.switch_answered(surroundings, waiting, Err(error));
            }
        }
    }
}

impl Drive {
    /// The part that an instance plays.
    fn role(&self, node: usize) -> MigrationRole {
        if node == self.source { MigrationRole::Source } else { MigrationRole::Destination }
    }
}

/// A call as the coordinator numbers it.
pub(crate) type DriveCall = Call;
