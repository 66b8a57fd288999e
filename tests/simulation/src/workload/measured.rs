//! The testbed's own load, for measurements: the sockets or subscribers, echo servers and recorder of §VII.

use super::Workload;
use crate::{PacketId, Random};
use slim_core::nf::{InterfaceAddress, NetworkFunction, PortId};
use slim_core::packet::emit::{ARP_FRAME_LEN, UDP_PAYLOAD_AT};
use slim_core::packet::{Ethernet, MacAddr, OwnedPacket, PacketBuf, ether_type};
use slim_core::time::Instant;
use slim_gateway::{Gateway, tag};
use slim_nat::Nat;
use slim_testbed::load::flows::Stations;
use slim_testbed::load::stamp::{Direction, Stamp};
use slim_testbed::load::workload::Next;
use slim_testbed::load::{LoadSpec, Report};
use std::collections::{BTreeMap, VecDeque};

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);
const OWN_MACS: [MacAddr; 2] = [MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]), MacAddr([0x02, 0x51, 0x1a, 0, 0, 2])];

/// The flow of all ARP frames of a side.
const ARP: u32 = 1 << 24;

/// Behind an ARP packet, in the frame's padding, there is room to say which one it is.
const ARP_STAMP_AT: usize = ARP_FRAME_LEN;
const ARP_MARK: [u8; 4] = *b"slim";

/// A network function that this load can be sent through.
pub trait Measurable: NetworkFunction {
    /// How it has to be configured for the load.
    fn config_for(spec: &LoadSpec) -> Self::Config;
}

fn network(address: core::net::Ipv4Addr) -> InterfaceAddress {
    InterfaceAddress { address, prefix_len: 16 }
}

impl Measurable for Nat {
    fn config_for(spec: &LoadSpec) -> Self::Config {
        slim_nat::Config {
            sessions_max: 65_536,
            hosts_max: 1024,
            ..slim_nat::Config::new(network(spec.nat_interior), OWN_MACS[0], network(spec.nat_exterior), OWN_MACS[1])
        }
    }
}

impl Measurable for Gateway {
    fn config_for(spec: &LoadSpec) -> Self::Config {
        slim_gateway::Config {
            interior_address: network(spec.nat_interior),
            interior_mac: OWN_MACS[0],
            cells_mac: Stations::hosts(spec).mac(0),
            exterior_address: network(spec.nat_exterior),
            exterior_mac: OWN_MACS[1],
            router_mac: Stations::echo_servers(spec).mac(0),
            subscribers_max: 65_536,
            subscriber_timeout_s: 3600,
        }
    }
}

/// What becomes of the load, packet by packet, and with it the report.
pub struct MeasuredLoad {
    spec: LoadSpec,
    load: slim_testbed::load::Workload,
    next_flow: u16,
    /// Answers on their way, which have their numbers already.
    answers: BTreeMap<(PortId, u32), VecDeque<Vec<u8>>>,
}

impl MeasuredLoad {
    /// The load of `spec`, before its first packet.
    pub fn new(spec: &LoadSpec, now: Instant) -> Self {
        let load = slim_testbed::load::Workload::new(spec, now);
        Self { spec: spec.clone(), load, next_flow: 0, answers: BTreeMap::new() }
    }

    /// What interior hosts have to ask before they can send: the flows to be sent.
    pub fn arp_requests(&mut self, now: Instant) -> usize {
        let requests = self.load.arp_requests(now);
        let queue = self.answers.entry((IN, ARP)).or_default();
        queue.extend(requests.iter().map(|request| request.to_vec()));
        requests.len()
    }

    /// The flow of ARP requests.
    pub const ARP_FLOW: (PortId, u32) = (IN, ARP);

    /// The load itself: its phases and whether it may begin.
    pub fn load(&mut self) -> &mut slim_testbed::load::Workload {
        &mut self.load
    }

    /// The report as of `now`.
    pub fn report(&self, now: Instant) -> Report {
        self.load.report(true, now)
    }
}

impl<N: Measurable> Workload<N> for MeasuredLoad {
    fn config(&self) -> N::Config {
        N::config_for(&self.spec)
    }

    fn choose(&mut self, _random: &mut Random) -> (PortId, u32) {
        let flow = self.next_flow;
        self.next_flow = (flow + 1) % self.spec.sockets;
        (IN, flow.into())
    }

    fn frame(&mut self, now: Instant, id: PacketId, _random: &mut Random) -> Vec<u8> {
        let waiting = self.answers.get_mut(&(id.port, id.flow)).and_then(VecDeque::pop_front);
        let mut frame = waiting.unwrap_or_else(|| {
            let mut packet = OwnedPacket::default();
            // A buffer on the heap has room.
            let _ = self.load.request(&mut packet, now);
            packet.into_inner()
        });
        if id.flow == ARP {
            frame.resize(frame.len().max(ARP_STAMP_AT + ARP_MARK.len() + 8), 0);
            frame[ARP_STAMP_AT..ARP_STAMP_AT + 4].copy_from_slice(&ARP_MARK);
            frame[ARP_STAMP_AT + 4..ARP_STAMP_AT + 12].copy_from_slice(&id.sequence.to_be_bytes());
        }
        frame
    }

    fn identify(&self, frame: &[u8]) -> Option<PacketId> {
        let (ethernet, packet) = Ethernet::parse(frame).ok()?;
        let ether_type = ethernet.ether_type();
        if ether_type == ether_type::ARP {
            let (mark, rest) = frame.get(ARP_STAMP_AT..)?.split_first_chunk::<4>()?;
            let sequence = u64::from_be_bytes(*rest.first_chunk()?);
            // Interior hosts ask and answer from their side, echo servers from theirs.
            let sender = packet.get(14..18)?;
            let port = if sender[1] == self.spec.first_host.octets()[1] { IN } else { OUT };
            return (*mark == ARP_MARK).then_some(PacketId { port, flow: ARP, sequence });
        }
        // When it was sent does not matter here.
        let tag_len = if ether_type == tag::ETHER_TYPE { tag::LEN } else { 0 };
        let stamp = Stamp::read(frame.get(UDP_PAYLOAD_AT + tag_len..)?, Instant::ZERO).ok()?;
        let port = if stamp.direction == Direction::Outbound { IN } else { OUT };
        Some(PacketId { port, flow: stamp.socket.into(), sequence: stamp.counter.into() })
    }

    fn react(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Option<(PortId, u32)> {
        let mut packet = OwnedPacket::from(frame);
        let is_arp = Ethernet::parse(frame).is_ok_and(|(ethernet, _)| ethernet.ether_type() == ether_type::ARP);
        let next = if port == IN { self.load.inside(&mut packet, now) } else { self.load.outside(&mut packet, now) };
        if next == Next::Done {
            return None;
        }
        let flow = if is_arp { ARP } else { <Self as Workload<N>>::identify(self, packet.bytes())?.flow };
        self.answers.entry((port, flow)).or_default().push_back(packet.into_inner());
        Some((port, flow))
    }

    fn shard(&self, _id: PacketId, _shards: u16) -> u16 {
        0
    }
}
