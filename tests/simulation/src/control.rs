//! The control connections: lines of JSON between the controller and everybody else, with delays and outages.

use super::world::{Happening, SWITCH, World};
use super::{Fifo, Workload};
use slim_core::migration::{Call, CallError, Coordinator, CoordinatorAction, CoordinatorEvent, Party};
use slim_core::nf::NetworkFunction;
use slim_core::protocol::Text;
use slim_core::protocol::control::{
    self, InstanceEvent, InstanceReply, InstanceRequest, MigrationRole, Reply, Request, ServerMessage, SwitchEvent,
    SwitchReply, SwitchRequest,
};
use slim_core::time::Duration;
use slim_core::vei::Handled;

/// A control connection: of instance 0, instance 1, or the switch.
#[derive(Default)]
pub(super) struct Control {
    pub(super) up: bool,
    /// Counts outages; what belongs to an earlier one is gone.
    pub(super) epoch: u32,
    pub(super) out: Fifo,
    pub(super) back: Fifo,
    pub(super) calls: Vec<Call>,
}

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    pub(super) fn party(&self, peer: usize) -> Party {
        match peer {
            SWITCH => Party::Switch,
            node if node == self.source => Party::Source,
            _ => Party::Destination,
        }
    }

    pub(super) fn peer(&self, party: Party) -> usize {
        match party {
            Party::Source => self.source,
            Party::Destination => 1 - self.source,
            Party::Switch => SWITCH,
        }
    }

    pub(super) fn tell(&mut self, event: CoordinatorEvent) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.handle(self.now, event);
        }
        self.coordinate();
    }

    pub(super) fn coordinate(&mut self) {
        while let Some(action) = self.coordinator.as_mut().and_then(Coordinator::poll_action) {
            match action {
                CoordinatorAction::Instance { role, call, request } => {
                    let line = control::encode(&Request::new(u64::from(call.0), request));
                    self.send_request(self.peer(role.into()), call, line);
                }
                CoordinatorAction::Switch { call, request } => {
                    let line = control::encode(&Request::new(u64::from(call.0), request));
                    self.send_request(SWITCH, call, line);
                }
                CoordinatorAction::PhaseEntered(_) => {}
            }
        }
    }

    pub(super) fn control_delay(&mut self) -> Duration {
        self.random.time(Duration::from_micros(100), Duration::from_millis(2))
    }

    pub(super) fn send_request(&mut self, peer: usize, call: Call, line: Result<String, control::LineTooLong>) {
        let line = line.unwrap_or_else(|error| panic!("{error}"));
        let delay = self.control_delay();
        let control = &mut self.controls[peer];
        let epoch = control.epoch;
        if control.up {
            control.calls.push(call);
            let at = control.out.arrival(self.now + delay);
            self.agenda.enter(at, Happening::RequestLine { peer, epoch, line });
        } else {
            let controller = self.controllers;
            self.agenda.enter(self.now + delay, Happening::Unreachable { controller, peer, call });
        }
    }

    pub(super) fn receive_request(&mut self, peer: usize, epoch: u32, line: &str) {
        // What was under way when the connection broke may still arrive: the peer read it just before.
        if epoch != self.controls[peer].epoch && self.random.chance(500) {
            return;
        }
        let line = if peer == SWITCH {
            let request: Request<SwitchRequest> =
                control::decode_request(line.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            let result = self.switch.request(&request.request);
            if let (SwitchRequest::Redirect { migration, nonce, hold_ms, .. }, Ok(_)) = (&request.request, &result) {
                self.send_drains(*migration, *nonce);
                if *hold_ms > 0 {
                    let at = self.now + Duration::from_millis(u64::from(*hold_ms));
                    self.agenda.enter(at, Happening::HoldEnds { migration: *migration });
                }
            }
            control::encode(&Reply::new(request.id, result))
        } else {
            let request: Request<InstanceRequest> =
                control::decode_request(line.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            let result = self.nodes[peer].vei.request(self.now, &request.request).map(|handled| match handled {
                Handled::Done => InstanceReply::Done,
                Handled::ByDriver => match request.request {
                    InstanceRequest::Describe {} => InstanceReply::Description(self.nodes[peer].description()),
                    _ => InstanceReply::Status(Box::new(self.nodes[peer].status(self.now))),
                },
            });
            self.carry_out(peer);
            control::encode(&Reply::new(request.id, result))
        };
        if epoch == self.controls[peer].epoch {
            self.send_line(peer, line);
        }
    }

    /// A reply or an event on its way to the controller; lost if there is no connection.
    pub(super) fn send_line(&mut self, peer: usize, line: Result<String, control::LineTooLong>) {
        let line = line.unwrap_or_else(|error| panic!("{error}"));
        let delay = self.control_delay();
        let control = &mut self.controls[peer];
        if control.up {
            let epoch = control.epoch;
            let at = control.back.arrival(self.now + delay);
            self.agenda.enter(at, Happening::ReplyLine { peer, epoch, line });
        }
    }

    pub(super) fn receive_line(&mut self, peer: usize, epoch: u32, line: &str) {
        if epoch != self.controls[peer].epoch {
            return;
        }
        if peer == SWITCH {
            let message: ServerMessage<SwitchReply, SwitchEvent> =
                control::decode(line.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            match message {
                ServerMessage::Reply(reply) => {
                    if let Some(call) = self.take_call(peer, reply.id) {
                        let result = reply.result.map_err(CallError::Refused);
                        self.tell(CoordinatorEvent::SwitchReply { call, result });
                    }
                }
                ServerMessage::Event(event) => self.tell(CoordinatorEvent::Switch(event)),
            }
        } else {
            let role = if peer == self.source { MigrationRole::Source } else { MigrationRole::Destination };
            let message: ServerMessage<InstanceReply, InstanceEvent> =
                control::decode(line.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            match message {
                ServerMessage::Reply(reply) => {
                    if let Some(call) = self.take_call(peer, reply.id) {
                        let result = reply.result.map_err(CallError::Refused);
                        self.tell(CoordinatorEvent::InstanceReply { call, result });
                    }
                }
                ServerMessage::Event(event) => self.tell(CoordinatorEvent::Instance { role, event }),
            }
        }
    }

    pub(super) fn take_call(&mut self, peer: usize, id: u64) -> Option<Call> {
        let calls = &mut self.controls[peer].calls;
        let index = calls.iter().position(|call| u64::from(call.0) == id)?;
        Some(calls.swap_remove(index))
    }

    pub(super) fn unreachable(&mut self, peer: usize, call: Call) {
        let error = CallError::Unreachable(Text::from("no connection"));
        self.tell(if peer == SWITCH {
            CoordinatorEvent::SwitchReply { call, result: Err(error) }
        } else {
            CoordinatorEvent::InstanceReply { call, result: Err(error) }
        });
    }
}
