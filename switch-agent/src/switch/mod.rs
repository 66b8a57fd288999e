//! The switch itself: [`Switch`] and its parts.

mod hold;
mod inband;
mod model;
mod redirect;
mod report;
mod topology;

#[cfg(test)]
mod tests;

pub use redirect::Redirect;
pub use report::Totals;
pub use topology::Binding;

use crate::bridge::{Bridge, Forward};
use crate::counters::{DropCause, Drops};
use crate::limits::Limits;
use crate::lower_effort::is_lower_effort;
use crate::{Buffers, PortIndex};
use model::{Hop, Instance, InstanceIndex, Port, PortNumber, Role};
use redirect::{RedirectRecord, Refusal};
use report::Counts;
use slim_core::packet::PacketBuf;
use slim_core::protocol::control::SwitchEvent;
use slim_core::protocol::inband::is_inband;
use slim_core::time::Instant;
use std::collections::VecDeque;

/// Ethernet's addresses and type: what every frame has.
const ETHERNET_HEADER_LEN: usize = 14;

/// The switch: ports, instances and the paths between them, as one sans-I/O machine.
///
/// The driver's calls, in this order, for every round of its loop:
///
/// 1. [`receive`](Self::receive) for each packet a device received; [`set_backlog`](Self::set_backlog) if more wait;
/// 2. [`advance`](Self::advance): packets leave delay lines, drain packets are re-sent, holds run out;
/// 3. [`send`](Self::send) for each port: the device takes what it can from the egress queue, the rest stays;
/// 4. [`poll_event`](Self::poll_event) until there is none.
///
/// Between rounds it changes the [topology](Self::add_port), [redirects](Self::redirect) and reports. A round is the
/// unit of atomicity: whatever changes, changes for all packets of the next burst and for none of the last.
/// [`next_deadline`](Self::next_deadline) says how long nothing will happen by itself.
///
/// Every packet that comes in goes out, waits in a queue whose bounds are known, is consumed because it is addressed to
/// the switch, or is counted under a [cause](crate::counters::DropCause): [`Totals::unaccounted`] is always 0.
#[derive(Debug)]
pub struct Switch<B: Buffers> {
    buffers: B,
    limits: Limits,
    ports: Vec<Option<Port<B::Packet>>>,
    instances: Vec<Option<Instance<B::Packet>>>,
    bridge: Bridge,
    redirects: VecDeque<RedirectRecord>,
    /// Redirects that were refused.
    refused: VecDeque<Refusal>,
    /// Packets wait at a device.
    backlog: bool,
    /// The earliest drain packet to re-send or hold to end.
    timer: Option<Instant>,
    events: VecDeque<SwitchEvent>,
    counts: Counts,
    /// Counters of ports that are gone, and of packets whose port never was.
    gone: Drops,
}

impl<B: Buffers> Switch<B> {
    /// A switch without ports.
    pub fn new(buffers: B, limits: Limits) -> Self {
        Self {
            buffers,
            limits,
            ports: Vec::new(),
            instances: Vec::new(),
            bridge: Bridge::default(),
            redirects: VecDeque::new(),
            refused: VecDeque::new(),
            backlog: false,
            timer: None,
            events: VecDeque::new(),
            counts: Counts::default(),
            gone: Drops::default(),
        }
    }

    /// Takes a packet that a device received at `port`.
    #[inline]
    pub fn receive(&mut self, now: Instant, port: PortIndex, packet: B::Packet) {
        let frame = packet.bytes();
        let len = frame.len();
        self.counts.received += 1;
        let Some(entry) = slot(&mut self.ports, port.0) else {
            self.gone.add(DropCause::Removed);
            return;
        };
        entry.received.add(len);
        if len < ETHERNET_HEADER_LEN {
            entry.drops.add(DropCause::Runt);
            return;
        }
        let inband = is_inband(frame);
        match entry.role {
            Role::External | Role::Management | Role::InstanceManagement(_) if inband => {
                entry.drops.add(DropCause::InbandForbidden);
            }
            Role::External => self.arrive(now, port, packet, None),
            Role::Management => self.bridge(now, port, packet),
            Role::Instance(instance, _) | Role::InstanceManagement(instance) => {
                let waits = entry.role == Role::InstanceManagement(instance) && is_lower_effort(frame);
                let Some(instance) = slot(&mut self.instances, instance.0) else {
                    entry.drops.add(DropCause::Removed);
                    return;
                };
                let link = &mut instance.from;
                if inband {
                    // Pays for the bandwidth it takes, but must arrive.
                    link.meter.charge(now, len);
                    link.passed.add(len);
                    link.delay.push_unbounded(now, port, packet);
                } else if waits {
                    if link.lower_effort.push(now, port, packet).is_err() {
                        entry.drops.add(DropCause::LowerEffortFull);
                    }
                } else if !link.meter.allow(now, len) {
                    entry.drops.add(DropCause::MeterFromInstance);
                } else {
                    link.passed.add(len);
                    if link.delay.push(now, port, packet).is_err() {
                        entry.drops.add(DropCause::DelayFull);
                    }
                }
            }
        }
    }

    /// Says whether packets still wait at a device that [`receive`](Self::receive) has not been given, until it is said
    /// otherwise. As long as they do, meters credit what was gained while they gathered; see [`Meter`](crate::meter::Meter).
    pub fn set_backlog(&mut self, waiting: bool) {
        self.backlog = waiting;
    }

    /// Does what is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        if !self.backlog {
            for instance in self.instances.iter_mut().flatten() {
                instance.to.meter.caught_up(now);
                instance.from.meter.caught_up(now);
            }
        }
        for instance in self.instances.iter_mut().flatten() {
            instance.to.release_lower_effort(now);
            instance.from.release_lower_effort(now);
        }
        for index in 0..self.instances.len() as u16 {
            while let Some((port, packet)) =
                slot(&mut self.instances, index).and_then(|instance| instance.from.delay.pop(now))
            {
                self.leave_instance(now, port, packet);
            }
        }
        for instance in self.instances.iter_mut().flatten() {
            while let Some((hop, packet)) = instance.to.delay.pop(now) {
                match slot(&mut self.ports, hop.port.0) {
                    Some(port) => port.enqueue(packet, hop.drain),
                    None => self.gone.add(DropCause::Removed),
                }
            }
        }
        if self.timer.is_some_and(|timer| timer <= now) {
            self.run_timers(now);
        }
    }

    /// When [`advance`](Self::advance) has something to do next, if nothing is received meanwhile.
    pub fn next_deadline(&self) -> Option<Instant> {
        let instances = self.instances.iter().flatten();
        let deadlines = instances.flat_map(|instance| [instance.to.next_deadline(), instance.from.next_deadline()]);
        deadlines.chain([self.timer]).flatten().min()
    }

    /// Lets `send` take from the front of `port`'s egress queue what the device accepts; the rest waits.
    ///
    /// Returns the number of packets it took. With nothing to send, `send` is not called.
    #[inline]
    pub fn send(&mut self, port: PortIndex, send: impl FnOnce(&mut VecDeque<B::Packet>)) -> u64 {
        let Some(port) = slot(&mut self.ports, port.0).filter(|port| !port.egress.is_empty()) else { return 0 };
        let (packets, bytes) = port.egress.send(send);
        port.sent.packets += packets;
        port.sent.bytes += bytes;
        packets
    }

    /// Takes note that the other side of a port came or went. What waits for a port that goes down is dropped.
    pub fn set_link(&mut self, port: PortIndex, up: bool) {
        let Some(entry) = slot(&mut self.ports, port.0).filter(|entry| entry.up != up) else { return };
        entry.up = up;
        if !up {
            let dropped = entry.egress.clear();
            entry.drops.add_many(DropCause::LinkDown, dropped);
        }
        let event = SwitchEvent::PortLink { port: entry.name.clone(), up };
        self.tell(event);
    }

    /// The oldest event not told yet.
    pub fn poll_event(&mut self) -> Option<SwitchEvent> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: SwitchEvent) {
        if self.events.len() >= Limits::EVENTS_MAX {
            self.events.pop_front();
            self.counts.events_lost += 1;
        }
        self.events.push_back(event);
    }

    /// A packet arrives at an external port, from outside or handed back by an instance.
    fn arrive(&mut self, now: Instant, external: PortIndex, packet: B::Packet, handed_back_by: Option<InstanceIndex>) {
        let Some(port) = slot(&mut self.ports, external.0) else {
            self.gone.add(DropCause::Removed);
            return;
        };
        let rule = port.rules.iter().find(|rule| rule.flow_space.contains(packet.bytes()));
        let Some(&rule) = rule else {
            port.drops.add(DropCause::NoPath);
            return;
        };
        if handed_back_by == Some(rule.instance) {
            port.drops.add(DropCause::HandBackLooped);
            return;
        }
        self.enter_instance(now, rule.instance, Towards::Path(rule.number), packet, handed_back_by);
    }

    /// A packet enters the link towards an instance.
    #[inline]
    fn enter_instance(
        &mut self,
        now: Instant,
        instance: InstanceIndex,
        towards: Towards,
        packet: B::Packet,
        handed_back_by: Option<InstanceIndex>,
    ) {
        let len = packet.bytes().len();
        let Some(entry) = slot(&mut self.instances, instance.0) else {
            self.gone.add(DropCause::Removed);
            return;
        };
        let port = match towards {
            Towards::Path(number) => {
                if let Some(path) = entry.paths.get_mut(usize::from(number)) {
                    path.ingress.add(len);
                }
                entry.ports.get(usize::from(number)).copied()
            }
            Towards::Management(port) => Some(port),
        };
        let Some((port, index)) = port.and_then(|index| Some((slot(&mut self.ports, index.0)?, index))) else {
            self.gone.add(DropCause::Removed);
            return;
        };
        if matches!(towards, Towards::Management(_)) && is_lower_effort(packet.bytes()) {
            if entry.to.lower_effort.push(now, Hop { port: index, drain: false }, packet).is_err() {
                port.drops.add(DropCause::LowerEffortFull);
            }
            return;
        }
        if !entry.to.meter.allow(now, len) {
            port.drops.add(DropCause::MeterToInstance);
            return;
        }
        entry.to.passed.add(len);
        // What the holder's counterpart hands back is what everything else waits for.
        let hold = entry.hold.as_mut().filter(|hold| handed_back_by != Some(hold.from));
        match (hold, towards) {
            (Some(hold), Towards::Path(number)) if hold.holds(number) => {
                if hold.push(number, packet).is_err() {
                    port.drops.add(DropCause::HoldFull);
                }
            }
            _ => {
                if entry.to.delay.push(now, Hop { port: index, drain: false }, packet).is_err() {
                    port.drops.add(DropCause::DelayFull);
                }
            }
        }
    }

    /// A packet leaves the delay line from an instance.
    #[inline]
    fn leave_instance(&mut self, now: Instant, from: PortIndex, packet: B::Packet) {
        let Some(port) = slot(&mut self.ports, from.0) else {
            self.gone.add(DropCause::Removed);
            return;
        };
        let (instance, number) = match port.role {
            Role::Instance(instance, number) => (instance, number),
            Role::InstanceManagement(_) | Role::Management => return self.bridge(now, from, packet),
            Role::External => {
                port.drops.add(DropCause::NoPath);
                return;
            }
        };
        if is_inband(packet.bytes()) {
            return self.take_inband(now, from, instance, packet);
        }
        let instance = slot(&mut self.instances, instance.0);
        let path = instance.and_then(|instance| instance.paths.get_mut(usize::from(number)));
        let Some((path, external)) = path.and_then(|path| path.external.map(|external| (path, external))) else {
            port.drops.add(DropCause::NoPath);
            return;
        };
        path.egress.add(packet.bytes().len());
        match slot(&mut self.ports, external.0) {
            Some(port) => port.enqueue(packet, false),
            None => self.gone.add(DropCause::Removed),
        }
    }

    /// A management frame, from an external port or out of an instance's delay line.
    fn bridge(&mut self, now: Instant, from: PortIndex, packet: B::Packet) {
        let drop = match self.bridge.forward(now, from, packet.bytes()) {
            Forward::Port(port) => return self.deliver_management(now, port, packet),
            Forward::Flood => return self.flood(now, from, packet),
            Forward::SamePort => DropCause::BridgeSamePort,
            Forward::Reserved => DropCause::BridgeReserved,
            Forward::Runt => DropCause::Runt,
        };
        self.drop_at(from, drop);
    }

    fn flood(&mut self, now: Instant, from: PortIndex, packet: B::Packet) {
        let is_target = |ports: &[Option<Port<B::Packet>>], index: u16| {
            let role = ports.get(usize::from(index)).and_then(Option::as_ref).map(|port| port.role);
            index != from.0 && matches!(role, Some(Role::Management | Role::InstanceManagement(_)))
        };
        let mut targets = (0..self.ports.len() as u16).filter(|&index| is_target(&self.ports, index));
        let Some(mut target) = targets.next() else {
            return self.drop_at(from, DropCause::NoPath);
        };
        // All but the last get a copy.
        while let Some(next) = (target + 1..self.ports.len() as u16).find(|&index| is_target(&self.ports, index)) {
            self.counts.copied += 1;
            match self.buffers.copy_of(packet.bytes()) {
                Some(copy) => self.deliver_management(now, PortIndex(target), copy),
                None => self.drop_at(PortIndex(target), DropCause::NoBuffer),
            }
            target = next;
        }
        self.deliver_management(now, PortIndex(target), packet);
    }

    fn deliver_management(&mut self, now: Instant, to: PortIndex, packet: B::Packet) {
        let Some(port) = slot(&mut self.ports, to.0) else {
            self.gone.add(DropCause::Removed);
            return;
        };
        match port.role {
            Role::InstanceManagement(instance) => {
                self.enter_instance(now, instance, Towards::Management(to), packet, None);
            }
            Role::Management => port.enqueue(packet, false),
            Role::External | Role::Instance(..) => port.drops.add(DropCause::NoPath),
        }
    }

    fn drop_at(&mut self, port: PortIndex, cause: DropCause) {
        match slot(&mut self.ports, port.0) {
            Some(port) => port.drops.add(cause),
            None => self.gone.add(cause),
        }
    }
}

/// Where a packet that enters an instance's link is to leave it.
#[derive(Debug, Clone, Copy)]
enum Towards {
    /// At a dataplane port.
    Path(PortNumber),
    /// At this port of the management segment.
    Management(PortIndex),
}

/// What is in slot `index`, if anything is.
#[inline]
fn slot<T>(slots: &mut [Option<T>], index: u16) -> Option<&mut T> {
    slots.get_mut(usize::from(index)).and_then(Option::as_mut)
}
