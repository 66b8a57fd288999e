//! The real switch, with rings and wires instead of devices, and its control requests carried out as the agent does.

use crate::Scenario;
use slim_core::nf::PortId;
use slim_core::packet::PacketBuf;
use slim_core::protocol::Name;
use slim_core::protocol::control::{
    ControlError, Counters, ErrorCode, LinkSettings, PortKind, SwitchEvent, SwitchReply, SwitchRequest, SwitchStatus,
};
use slim_core::time::{Duration, Instant};
use slim_switch::fifo::Bounds;
use slim_switch::flow_space::FlowSpace;
use slim_switch::{Binding, HeapBuffers, Limits, PortIndex, Redirect, Switch};
use std::collections::{BTreeMap, VecDeque};

/// What is behind a port of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Behind {
    /// The outside, on the side of this port of the network function.
    Outside(PortId),
    /// The management network outside: the controller.
    Management,
    /// A dataplane port of an instance.
    Data(usize, PortId),
    /// The management port of an instance.
    InstanceManagement(usize),
}

/// Names of everything the switch is told of.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) instances: [Name; 2],
    ports: Vec<(Behind, Name)>,
}

impl Names {
    pub(crate) fn new(ports: &[&str]) -> Result<Self, String> {
        let name = |text: &str| Name::try_from(text).map_err(|error| format!("{text}: {error}"));
        let mut all = vec![(Behind::Management, name("mgmt")?)];
        for (index, port) in ports.iter().enumerate() {
            let id = PortId(index as u8);
            all.push((Behind::Outside(id), name(&format!("outside-{port}"))?));
            for (node, instance) in ["a", "b"].iter().enumerate() {
                all.push((Behind::Data(node, id), name(&format!("{instance}.{port}"))?));
            }
        }
        for (node, instance) in ["a", "b"].iter().enumerate() {
            all.push((Behind::InstanceManagement(node), name(&format!("{instance}.mgmt"))?));
        }
        Ok(Self { instances: [name("a")?, name("b")?], ports: all })
    }

    fn of(&self, wanted: impl Fn(Behind) -> bool) -> Vec<Name> {
        self.ports.iter().filter(|(behind, _)| wanted(*behind)).map(|(_, name)| name.clone()).collect()
    }

    fn behind(&self, name: &Name) -> Option<Behind> {
        self.ports.iter().find(|(_, known)| known == name).map(|(behind, _)| *behind)
    }

    /// What makes an empty switch know everything but the paths, in order.
    pub(crate) fn set_up(&self, link: LinkSettings) -> Vec<SwitchRequest> {
        let vdev = |name: &Name| PortKind::Vdev { devargs: name.to_string() };
        let add = |(_, name): &(Behind, Name)| SwitchRequest::PortAdd { name: name.clone(), kind: vdev(name) };
        let mut requests: Vec<SwitchRequest> = self.ports.iter().map(add).collect();
        let ports = self.of(|behind| behind == Behind::Management);
        requests.push(SwitchRequest::ManagementSet { ports });
        for (node, name) in self.instances.iter().enumerate() {
            let ports = self.of(|behind| matches!(behind, Behind::Data(of, _) if of == node));
            let mgmt = self.of(|behind| behind == Behind::InstanceManagement(node)).pop();
            requests.push(SwitchRequest::InstanceAdd { name: name.clone(), ports, mgmt, link });
        }
        requests
    }

    /// What leads all traffic to an instance.
    pub(crate) fn lead_to(&self, node: usize) -> SwitchRequest {
        let externals = self.of(|behind| matches!(behind, Behind::Outside(_)));
        SwitchRequest::PathsSet { instance: self.instances[node].clone(), externals }
    }
}

/// What a round of the switch led to.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) sent: Vec<(Behind, Vec<u8>)>,
    /// Frames that arrived where the switch has no port yet, after a restart.
    pub(crate) lost: Vec<Vec<u8>>,
    pub(crate) events: Vec<SwitchEvent>,
    /// When it wants to run again, if nothing arrives before.
    pub(crate) wake: Option<Instant>,
}

/// How soon a full ring is tried again.
const RETRY: Duration = Duration::from_micros(80);

pub(crate) struct Fabric {
    names: Names,
    switch: Switch<HeapBuffers>,
    ports: Vec<(PortIndex, Behind)>,
    pub(crate) incoming: VecDeque<(Behind, Vec<u8>)>,
    /// Whether an instance is there at the other end of its ports.
    present: [bool; 2],
}

impl Fabric {
    /// A switch that knows nothing yet.
    pub(crate) fn new(names: Names, scenario: &Scenario, present: [bool; 2]) -> Self {
        let bounds = |(bytes, packets): (u64, usize)| Bounds { bytes, packets };
        let limits = Limits { egress: bounds(scenario.egress), hold: bounds(scenario.hold), ..Limits::default() };
        let switch = Switch::new(HeapBuffers, limits);
        Self { names, switch, ports: Vec::new(), incoming: VecDeque::new(), present }
    }

    /// An instance came or went.
    pub(crate) fn set_present(&mut self, node: usize, present: bool) {
        self.present[node] = present;
        for &(index, behind) in &self.ports {
            if matches!(behind, Behind::Data(of, _) | Behind::InstanceManagement(of) if of == node) {
                self.switch.set_link(index, present);
            }
        }
    }

    /// One round of its loop. `has_room` says whether the ring or wire behind a port takes a frame.
    pub(crate) fn round(&mut self, now: Instant, mut has_room: impl FnMut(Behind, &[u8]) -> bool) -> Round {
        let mut round = Round::default();
        for (behind, frame) in self.incoming.drain(..) {
            match self.ports.iter().find(|(_, of)| *of == behind) {
                Some(&(index, _)) => self.switch.receive(now, index, frame.as_slice().into()),
                None => round.lost.push(frame),
            }
        }
        self.switch.advance(now);
        let mut full = false;
        for &(index, behind) in &self.ports {
            self.switch.send(index, |queue| {
                while queue.front().is_some_and(|packet| has_room(behind, packet.bytes())) {
                    round.sent.extend(queue.pop_front().map(|packet| (behind, packet.into_inner())));
                }
                full |= !queue.is_empty();
            });
        }
        round.events.extend(std::iter::from_fn(|| self.switch.poll_event()));
        let retry = full.then(|| now + RETRY);
        round.wake = self.switch.next_deadline().into_iter().chain(retry).min();
        round
    }

    /// Carries out `request`.
    pub(crate) fn execute(&mut self, now: Instant, request: SwitchRequest) -> Result<SwitchReply, ControlError> {
        match request {
            SwitchRequest::PortAdd { name, .. } => {
                if self.switch.port_named(&name).is_ok() {
                    return Ok(SwitchReply::Done {});
                }
                let Some(behind) = self.names.behind(&name) else {
                    return Err(ControlError::with(ErrorCode::Io, format!("no device for {name}")));
                };
                let index = self.switch.add_port(name)?;
                let up = match behind {
                    Behind::Data(node, _) | Behind::InstanceManagement(node) => self.present[node],
                    Behind::Outside(_) | Behind::Management => true,
                };
                self.switch.set_link(index, up);
                self.ports.push((index, behind));
            }
            SwitchRequest::ManagementSet { ports } => self.switch.set_management(&ports)?,
            SwitchRequest::InstanceAdd { name, ports, mgmt, link } => {
                self.switch.add_instance(now, name, &ports, mgmt.as_ref(), link)?;
            }
            SwitchRequest::PathsSet { instance, externals } => {
                let bind = |external| Binding { external, flow_space: FlowSpace::ANY };
                let bindings: Vec<Binding> = externals.into_iter().map(bind).collect();
                self.switch.set_paths(&instance, &bindings)?;
            }
            SwitchRequest::PathList {} => return Ok(SwitchReply::Paths { instances: self.switch.instances() }),
            SwitchRequest::Redirect { migration, from, to, nonce, rollback, hold_ms } => {
                let hold_max = Duration::from_millis(hold_ms.into());
                self.switch.redirect(now, Redirect { migration, nonce, from, to, rollback, hold_max })?;
            }
            SwitchRequest::RedirectStatus { migration } => {
                return Ok(SwitchReply::Redirect { state: self.switch.redirect_state(migration) });
            }
            SwitchRequest::LinkSet { instance, link } => self.switch.set_link_settings(now, &instance, link)?,
            SwitchRequest::Status {} => {
                return Ok(SwitchReply::Status {
                    status: Box::new(SwitchStatus {
                        software: "simulated".into(),
                        uptime_ms: now.as_millis(),
                        counters: self.switch.counters(),
                        instances: BTreeMap::new(),
                        ports: Vec::new(),
                        redirects: self.switch.redirect_states(),
                    }),
                });
            }
            SwitchRequest::PortRemove { .. }
            | SwitchRequest::PortList {}
            | SwitchRequest::InstanceRemove { .. }
            | SwitchRequest::HostPortSet { .. }
            | SwitchRequest::Shutdown {} => {
                return Err(ControlError::new(ErrorCode::Unsupported, "nobody asks for this here"));
            }
        }
        Ok(SwitchReply::Done {})
    }

    /// Sets up everything, with all traffic for one instance.
    pub(crate) fn set_up(&mut self, now: Instant, link: LinkSettings, node: usize) -> Result<(), String> {
        let names = self.names.clone();
        for request in names.set_up(link).into_iter().chain([names.lead_to(node)]) {
            self.execute(now, request).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The instance that all paths lead to.
    pub(crate) fn leads_to(&self) -> Option<usize> {
        let bound = self.switch.instances().into_iter().find(|known| !known.paths.is_empty())?;
        self.names.instances.iter().position(|name| *name == bound.instance)
    }

    /// Whether it is in the middle of a redirect or of undoing one. It refuses another meanwhile.
    pub(crate) fn is_redirecting(&self) -> bool {
        self.switch.redirect_states().iter().any(|state| !state.finished)
    }

    /// Packets it holds, those that have not been looked at included.
    pub(crate) fn waiting(&self) -> u64 {
        self.switch.totals().waiting_packets + self.incoming.len() as u64
    }

    /// What it holds of a redirect though none is going on, in words.
    pub(crate) fn left_behind(&self) -> Option<String> {
        let totals = self.switch.totals();
        if totals.unaccounted() != 0 {
            return Some(format!("the switch has lost sight of {} packets", totals.unaccounted()));
        }
        if self.waiting() > 0 {
            return Some(format!("the switch holds {} packets", self.waiting()));
        }
        if self.switch.next_deadline().is_some() {
            return Some("the switch has a timer".into());
        }
        self.is_redirecting().then(|| "the switch holds packets for a redirect that nobody finishes".into())
    }

    /// Dropped packets, by port and cause.
    pub(crate) fn drops(&self) -> Vec<(Behind, String, u64)> {
        let mut drops = Vec::new();
        for &(index, behind) in &self.ports {
            let of_port: Counters = self.switch.port_counters(index);
            for (name, count) in of_port {
                if let Some(cause) = name.strip_prefix("dropped_").filter(|_| count > 0) {
                    drops.push((behind, cause.to_owned(), count));
                }
            }
        }
        drops
    }

    /// Dropped packets of no port in particular, by cause.
    pub(crate) fn other_drops(&self) -> Vec<(&'static str, u64)> {
        let of_ports = self.drops();
        let all = self.switch.totals().drops;
        let other = |(cause, count): (slim_switch::counters::DropCause, u64)| {
            let of_ports: u64 = of_ports.iter().filter(|(_, of, _)| of == cause.name()).map(|(.., count)| count).sum();
            (cause.name(), count - of_ports)
        };
        all.iter().map(other).filter(|&(_, count)| count > 0).collect()
    }

    /// Counters of the whole switch.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.switch.counters().get(name).copied().unwrap_or(0)
    }
}
