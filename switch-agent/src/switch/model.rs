//! What a switch consists of: ports, instances and their links. Data with the few operations that need only one of them.

use super::hold::Hold;
use crate::PortIndex;
use crate::counters::{DropCause, Drops, Traffic};
use crate::fifo::{DelayLine, EgressQueue};
use crate::flow_space::FlowSpace;
use crate::limits::{self, Limits};
use crate::lower_effort::LowerEffort;
use crate::meter::Meter;
use slim_core::packet::PacketBuf;
use slim_core::protocol::Name;
use slim_core::protocol::control::LinkSettings;
use slim_core::time::Instant;

/// An instance: a slot that another instance may have had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InstanceIndex(pub u16);

/// The number of a dataplane port within its instance.
pub(super) type PortNumber = u8;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Outside: paths begin and end here.
    External,
    /// An external port of the management segment.
    Management,
    /// A dataplane port of an instance.
    Instance(InstanceIndex, PortNumber),
    /// The management port of an instance, or of the machine that it runs on.
    InstanceManagement(InstanceIndex),
}

#[derive(Debug)]
pub(super) struct Port<P> {
    pub name: Name,
    pub role: Role,
    pub up: bool,
    pub received: Traffic,
    pub sent: Traffic,
    pub drops: Drops,
    pub egress: EgressQueue<P>,
    /// With [`Role::External`]: where packets go; the first rule that contains a packet applies.
    pub rules: Vec<Rule>,
}

/// The beginning of a path towards an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub flow_space: FlowSpace,
    pub instance: InstanceIndex,
    pub number: PortNumber,
}

/// Tag of packets towards an instance: their port, and whether no bound may stop them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    pub port: PortIndex,
    pub drain: bool,
}

/// One direction of an instance's link.
#[derive(Debug)]
pub(super) struct Link<T, P> {
    pub meter: Meter,
    /// What waits for the rest that the meter leaves.
    pub lower_effort: LowerEffort<T, P>,
    pub delay: DelayLine<T, P>,
    /// What passed the meter.
    pub passed: Traffic,
}

#[derive(Debug)]
pub(super) struct Instance<P> {
    pub name: Name,
    pub ports: Vec<PortIndex>,
    pub mgmt: Option<PortIndex>,
    /// The port of the machine that it runs on.
    pub host: Option<PortIndex>,
    pub settings: LinkSettings,
    pub to: Link<Hop, P>,
    pub from: Link<PortIndex, P>,
    /// One per dataplane port.
    pub paths: Vec<InstancePath>,
    /// Whether rules lead here. Without, `paths` may still lead outside, for what the instance has yet to send.
    pub bound: bool,
    pub hold: Option<Hold<P>>,
}

/// Both directions of an instance's dataplane port.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InstancePath {
    /// The other end.
    pub external: Option<PortIndex>,
    /// What of the external port's traffic comes here.
    pub flow_space: FlowSpace,
    pub ingress: Traffic,
    pub egress: Traffic,
}

impl<P: PacketBuf> Port<P> {
    pub fn new(name: Name, limits: &Limits) -> Self {
        Self {
            name,
            role: Role::External,
            up: false,
            received: Traffic::default(),
            sent: Traffic::default(),
            drops: Drops::default(),
            egress: EgressQueue::new(limits.egress),
            rules: Vec::new(),
        }
    }

    /// Appends a packet to the egress queue, or counts why not.
    #[inline]
    pub fn enqueue(&mut self, packet: P, drain: bool) {
        if !self.up {
            self.drops.add(DropCause::LinkDown);
        } else if drain {
            self.egress.push_unbounded(packet);
        } else if self.egress.push(packet).is_err() {
            self.drops.add(DropCause::EgressFull);
        }
    }
}

impl<T, P: PacketBuf> Link<T, P> {
    pub fn new(now: Instant, settings: &LinkSettings, limits: &Limits) -> Self {
        Self {
            meter: Meter::new(now, limits::meter_limits(settings)),
            lower_effort: LowerEffort::new(limits.lower_effort),
            delay: DelayLine::new(limits::delay(settings), limits.delay_bounds(settings)),
            passed: Traffic::default(),
        }
    }

    pub fn set(&mut self, now: Instant, settings: &LinkSettings, limits: &Limits) {
        self.meter.set_limits(now, limits::meter_limits(settings));
        self.delay.set_delay(limits::delay(settings), limits.delay_bounds(settings));
    }

    /// Puts what the meter leaves to frames of lower effort on the delay line.
    #[inline]
    pub fn release_lower_effort(&mut self, now: Instant) {
        while let Some((tag, packet)) = self.lower_effort.pop(now, &mut self.meter) {
            self.passed.add(packet.bytes().len());
            // The line has room for what the meter passes, and these have passed it.
            self.delay.push_unbounded(now, tag, packet);
        }
    }

    /// When the link has something to do next.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.delay.next_release().into_iter().chain(self.lower_effort.next_release(&self.meter)).min()
    }

    /// Packets on the link.
    pub fn waiting(&self) -> u64 {
        (self.lower_effort.fill().packets + self.delay.fill().packets) as u64
    }

    /// Removes everything on the link, and returns the number of packets.
    pub fn clear(&mut self) -> u64 {
        self.lower_effort.clear() + self.delay.remove(|_| true)
    }
}

impl<P: PacketBuf> Instance<P> {
    pub fn new(
        now: Instant,
        name: Name,
        ports: Vec<PortIndex>,
        mgmt: Option<PortIndex>,
        settings: LinkSettings,
        limits: &Limits,
    ) -> Self {
        Self {
            name,
            paths: vec![InstancePath::default(); ports.len()],
            ports,
            mgmt,
            host: None,
            settings,
            to: Link::new(now, &settings, limits),
            from: Link::new(now, &settings, limits),
            bound: false,
            hold: None,
        }
    }
}
