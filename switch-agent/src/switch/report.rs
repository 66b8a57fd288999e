//! What the switch tells about itself.

use super::Switch;
use super::model::{Instance, Link, Role};
use crate::counters::{Drops, Traffic};
use crate::fifo::Fill;
use crate::{Buffers, PortIndex};
use slim_core::packet::PacketBuf;
use slim_core::protocol::control::{Counters, InstancePaths, PathStatus};
use slim_core::protocol::{Name, PathIndex};

/// What the switch counts beside its ports' counters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub received: u64,
    /// Copies made for flooding.
    pub copied: u64,
    /// Packets the switch made itself.
    pub created: u64,
    /// In-band frames addressed to the switch.
    pub consumed: u64,
    /// Packets sent by ports that are gone.
    pub sent_gone: u64,
    pub drains_sent: u64,
    pub drains_given_up: u64,
    pub acks: u64,
    pub acks_duplicate: u64,
    pub acks_stale: u64,
    pub handed_back: u64,
    pub hand_back_ends_stale: u64,
    pub hold_timeouts: u64,
    pub events_lost: u64,
}

/// Where all packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Packets received from devices.
    pub received_packets: u64,
    /// Packets the switch made: copies for flooding, and drain packets.
    pub made_packets: u64,
    /// Packets given to devices.
    pub sent_packets: u64,
    /// In-band frames the switch consumed.
    pub consumed_packets: u64,
    /// Packets that wait for their meter, in delay lines, holds and egress queues.
    pub waiting_packets: u64,
    /// Dropped packets by cause.
    pub drops: Drops,
}

impl Totals {
    /// Packets that are nowhere. Anything but 0 is a mistake in the switch.
    pub fn unaccounted(&self) -> i128 {
        let found = self.sent_packets + self.consumed_packets + self.waiting_packets + self.drops.total();
        i128::from(self.received_packets + self.made_packets) - i128::from(found)
    }
}

impl<B: Buffers> Switch<B> {
    /// Where all packets are.
    pub fn totals(&self) -> Totals {
        let mut drops = self.gone;
        let mut sent_packets = self.counts.sent_gone;
        let mut waiting_packets = 0;
        for port in self.ports.iter().flatten() {
            drops.merge(&port.drops);
            sent_packets += port.sent.packets;
            waiting_packets += port.egress.fill().packets as u64;
        }
        for instance in self.instances.iter().flatten() {
            let held = instance.hold.as_ref().map_or(0, |hold| hold.packets());
            waiting_packets += held as u64 + instance.to.waiting() + instance.from.waiting();
        }
        Totals {
            received_packets: self.counts.received,
            made_packets: self.counts.copied + self.counts.created,
            sent_packets,
            consumed_packets: self.counts.consumed,
            waiting_packets,
            drops,
        }
    }

    /// Totals of the whole switch by name, every cause of a drop among them.
    pub fn counters(&self) -> Counters {
        let (totals, counts, bridge) = (self.totals(), &self.counts, self.bridge.counters());
        let mut counters = named([
            ("received_packets", totals.received_packets),
            ("made_packets", totals.made_packets),
            ("sent_packets", totals.sent_packets),
            ("consumed_packets", totals.consumed_packets),
            ("waiting_packets", totals.waiting_packets),
            ("drains_sent", counts.drains_sent),
            ("drains_given_up", counts.drains_given_up),
            ("drain_acks", counts.acks),
            ("drain_acks_duplicate", counts.acks_duplicate),
            ("drain_acks_stale", counts.acks_stale),
            ("handed_back_packets", counts.handed_back),
            ("hand_back_ends_stale", counts.hand_back_ends_stale),
            ("hold_timeouts", counts.hold_timeouts),
            ("events_lost", counts.events_lost),
            ("bridge_macs", self.bridge.len() as u64),
            ("bridge_moves", bridge.moves),
            ("bridge_table_full", bridge.table_full),
        ]);
        add_drops(&mut counters, &totals.drops, true);
        counters
    }

    /// The counters of one port: traffic, egress queue, and the causes of drops that have occurred.
    pub fn port_counters(&self, port: PortIndex) -> Counters {
        let Some(port) = self.port(port) else { return Counters::new() };
        let mut counters = Counters::new();
        add_traffic(&mut counters, "rx", port.received);
        add_traffic(&mut counters, "tx", port.sent);
        add_fill(&mut counters, "egress", port.egress.fill());
        add_drops(&mut counters, &port.drops, false);
        counters
    }

    /// Whether a port's link is up, as far as the driver has told.
    pub fn is_up(&self, port: PortIndex) -> bool {
        self.port(port).is_some_and(|port| port.up)
    }

    /// The instance that a port belongs to.
    pub fn instance_of(&self, port: PortIndex) -> Option<Name> {
        match self.port(port)?.role {
            Role::Instance(instance, _) | Role::InstanceManagement(instance) => {
                Some(self.instance(instance)?.name.clone())
            }
            Role::External | Role::Management => None,
        }
    }

    /// Counters of each instance's link, and of its hold if there is one.
    pub fn instance_counters(&self) -> impl Iterator<Item = (Name, Counters)> {
        self.instances.iter().flatten().map(|instance| {
            let mut counters = Counters::new();
            add_link(&mut counters, "to", &instance.to);
            add_link(&mut counters, "from", &instance.from);
            if let Some(hold) = &instance.hold {
                counters.insert("held_packets".into(), hold.packets() as u64);
            }
            (instance.name.clone(), counters)
        })
    }

    /// Every instance, with its paths if traffic leads to it.
    pub fn instances(&self) -> Vec<InstancePaths> {
        self.instances.iter().flatten().map(|instance| self.describe(instance)).collect()
    }

    fn describe(&self, instance: &Instance<B::Packet>) -> InstancePaths {
        let name = |index: PortIndex| self.port(index).map(|port| port.name.clone());
        let both = |(number, (path, &port)): (usize, (&super::model::InstancePath, &PortIndex))| {
            let (outside, inside) = (name(path.external?)?, name(port)?);
            let index = u8::try_from(number).ok().and_then(PathIndex::new);
            let status = |from: &Name, to: &Name, index, traffic| {
                let mut counters = Counters::new();
                add_traffic(&mut counters, "passed", traffic);
                PathStatus { from: from.clone(), to: to.clone(), index, counters }
            };
            let ingress = status(&outside, &inside, index, path.ingress);
            let egress = status(&inside, &outside, None, path.egress);
            Some([ingress, egress])
        };
        let paths = instance.paths.iter().zip(&instance.ports).enumerate();
        InstancePaths {
            instance: instance.name.clone(),
            ports: instance.ports.iter().filter_map(|&port| name(port)).collect(),
            mgmt: instance.mgmt.and_then(name),
            link: instance.settings,
            paths: if instance.bound { paths.filter_map(both).flatten().collect() } else { Vec::new() },
        }
    }
}

fn named<const N: usize>(counters: [(&str, u64); N]) -> Counters {
    counters.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn add_link<T, P: PacketBuf>(counters: &mut Counters, direction: &str, link: &Link<T, P>) {
    add_traffic(counters, direction, link.passed);
    add_fill(counters, &format!("{direction}_delay"), link.delay.fill());
    add_traffic(counters, &format!("{direction}_lower_effort"), link.lower_effort.passed());
    add_fill(counters, &format!("{direction}_lower_effort"), link.lower_effort.fill());
}

fn add_traffic(counters: &mut Counters, prefix: &str, traffic: Traffic) {
    counters.insert(format!("{prefix}_packets"), traffic.packets);
    counters.insert(format!("{prefix}_bytes"), traffic.bytes);
}

fn add_fill(counters: &mut Counters, prefix: &str, fill: Fill) {
    counters.insert(format!("{prefix}_waiting_packets"), fill.packets as u64);
    counters.insert(format!("{prefix}_waiting_packets_max"), fill.packets_max as u64);
    counters.insert(format!("{prefix}_waiting_bytes"), fill.bytes);
    counters.insert(format!("{prefix}_waiting_bytes_max"), fill.bytes_max);
}

fn add_drops(counters: &mut Counters, drops: &Drops, zeros: bool) {
    for (cause, count) in drops.iter().filter(|&(_, count)| zeros || count > 0) {
        counters.insert(format!("dropped_{}", cause.name()), count);
    }
}
