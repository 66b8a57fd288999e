//! The workload over the real NAT and a wire that does to packets what the test tells it to.

use super::*;
use crate::load::report::WARMUP;
use core::time::Duration;
use slim_core::nf::{Environment, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::OwnedPacket;
use slim_nat::Nat;
use std::collections::HashMap;

/// What the wire does to a packet.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Lose,
    Duplicate,
    /// Deliver it after this many further packets.
    Delay(usize),
    FlipBit(usize),
    /// Take it for one from or to this UDP port, with a correct checksum.
    OtherSourcePort(u16),
}

/// A NAT between two wires.
struct Network {
    workload: Workload,
    nat: Nat,
    now: Instant,
    /// Faults by direction and number of the packet since the measurement began.
    faults: HashMap<(bool, usize), Fault>,
    passed: [usize; 2],
    held: Vec<(bool, usize, OwnedPacket)>,
}

struct Env {
    now: Instant,
    emitted: Vec<(PortId, OwnedPacket)>,
}

impl Environment for Env {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        false
    }

    fn announce(&mut self, _: u16, _: &[u8]) {}

    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.emitted.push((port, frame.into()));
    }
}

/// A NAT without state. The seed decides about the ports it draws.
fn nat(seed: u64) -> Nat {
    let config = r#"
        interior_address = "10.1.0.1/24"
        interior_mac = "02:51:1a:00:00:01"
        exterior_address = "10.2.0.1/24"
        exterior_mac = "02:51:1a:00:00:02"
    "#;
    Nat::new(&toml::from_str(config).unwrap(), Shard::ONLY, seed).unwrap()
}

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);

impl Network {
    fn new(spec: &LoadSpec) -> Self {
        let nat = nat(7);
        let mut network = Self {
            workload: Workload::new(spec, Instant::ZERO),
            nat,
            now: Instant::ZERO,
            faults: HashMap::new(),
            passed: [0; 2],
            held: Vec::new(),
        };
        network.warm_up();
        network
    }

    /// Resolves all addresses and opens all sockets.
    fn warm_up(&mut self) {
        assert!(!self.workload.is_resolved());
        for request in self.workload.arp_requests(self.now) {
            self.through_nat(IN, request[..].into());
        }
        assert!(self.workload.is_resolved());
        for _ in 0..3 {
            self.send_round();
        }
        self.workload.measure(self.now);
        self.passed = [0; 2];
    }

    /// One packet of every socket, there and back, a millisecond apart.
    fn send_round(&mut self) {
        for _ in 0..self.workload.spec.sockets {
            self.now += Duration::from_millis(1);
            let mut packet = OwnedPacket::default();
            self.workload.request(&mut packet, self.now).unwrap();
            assert_eq!(packet.bytes().len(), usize::from(self.workload.spec.packet_size_bytes));
            self.through_nat(IN, packet);
        }
    }

    fn through_nat(&mut self, port: PortId, mut packet: OwnedPacket) {
        let mut env = Env { now: self.now, emitted: Vec::new() };
        let verdict = self.nat.process(&mut env, port, &mut packet);
        self.nat.tick(&mut env);
        for (port, frame) in env.emitted {
            self.deliver(port, frame);
        }
        if let Verdict::Transmit(port) = verdict {
            self.over_the_wire(port, packet);
        }
    }

    fn over_the_wire(&mut self, port: PortId, mut packet: OwnedPacket) {
        let outbound = port == OUT;
        let number = self.passed[usize::from(!outbound)];
        self.passed[usize::from(!outbound)] += 1;
        match self.faults.get(&(outbound, number)) {
            None => self.deliver(port, packet),
            Some(Fault::Lose) => {}
            Some(Fault::Duplicate) => {
                self.deliver(port, packet.clone());
                self.deliver(port, packet);
            }
            Some(Fault::Delay(by)) => self.held.push((outbound, number + by, packet)),
            Some(Fault::FlipBit(bit)) => {
                packet.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
                self.deliver(port, packet);
            }
            Some(Fault::OtherSourcePort(source)) => {
                let (_, ip) = Ethernet::parse_mut(packet.bytes_mut()).unwrap();
                let (_, datagram) = Ipv4::parse_mut(ip).unwrap();
                Udp::parse_mut(datagram).unwrap().0.rewrite_source(*source, Default::default());
                self.deliver(port, packet);
            }
        }
        let due = |held: &(bool, usize, OwnedPacket)| held.0 == outbound && held.1 == number;
        while let Some(at) = self.held.iter().position(due) {
            let (_, _, packet) = self.held.remove(at);
            self.deliver(port, packet);
        }
    }

    fn deliver(&mut self, port: PortId, mut packet: OwnedPacket) {
        let next = match port {
            OUT => self.workload.outside(&mut packet, self.now),
            _ => self.workload.inside(&mut packet, self.now),
        };
        if next == Next::Answer {
            self.through_nat(port, packet);
        }
    }

    fn report(&mut self) -> Report {
        self.workload.recorder().end(self.now);
        self.workload.report(true, self.now)
    }
}

fn spec(sockets: u16) -> LoadSpec {
    LoadSpec { sockets, hosts: 3, packet_size_bytes: 200, ..LoadSpec::default() }
}

/// The report of 20 packets of each of 4 sockets, after faults.
fn run(faults: &[(bool, usize, Fault)]) -> Report {
    let mut network = Network::new(&spec(4));
    network.faults = faults.iter().map(|&(outbound, number, fault)| ((outbound, number), fault)).collect();
    (0..20).for_each(|_| network.send_round());
    network.report()
}

const OUTBOUND: bool = true;
const INBOUND: bool = false;

#[test]
fn all_sizes_pass_the_nat_clean() {
    for packet_size_bytes in [60, 61, 512, 1514] {
        let mut network = Network::new(&LoadSpec { packet_size_bytes, sockets: 40, ..spec(40) });
        (0..5).for_each(|_| network.send_round());
        let report = network.report();
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.total.outbound.sent, report.total.inbound.received), (200, 200));
        assert_eq!((report.total.rtt.count, report.total.late), (200, 0));
        assert_eq!((report.foreign_frames, report.flows_affected), (0, 0));
        // The NAT drops the first packets while it resolves the echo servers: that is what the warm-up is for.
        assert_eq!(report.phase(WARMUP).unwrap().outbound.sent, 120);
    }
}

#[test]
fn losses_are_counted_in_their_direction() {
    let report = run(&[(OUTBOUND, 0, Fault::Lose), (OUTBOUND, 17, Fault::Lose), (INBOUND, 5, Fault::Lose)]);
    let total = &report.total;
    assert_eq!((total.outbound.sent, total.outbound.lost, total.outbound.received), (80, 2, 78));
    assert_eq!((total.inbound.sent, total.inbound.lost, total.inbound.received), (78, 1, 77));
    assert_eq!((total.outbound.reordered, total.outbound.duplicated, total.rtt.count), (0, 0, 77));
    assert!(!report.is_clean());
    assert_eq!(report.flows_affected, 3);
    assert!((report.loss_seconds() - 3.0 / report.packets_per_second).abs() < 1e-12);
}

#[test]
fn duplicates_are_counted_in_their_direction() {
    let report = run(&[(OUTBOUND, 3, Fault::Duplicate), (INBOUND, 60, Fault::Duplicate)]);
    let total = &report.total;
    assert_eq!((total.outbound.duplicated, total.outbound.lost, total.outbound.reordered), (1, 0, 0));
    // The server answers the copy too, with a counter of its own.
    assert_eq!((total.inbound.sent, total.inbound.duplicated, total.inbound.lost), (81, 1, 0));
}

#[test]
fn reordering_within_a_flow_is_counted_and_across_flows_is_not() {
    // Four sockets take turns: a packet that is 3 late is still before the next of its flow, one that is 4 late is not.
    let report = run(&[(OUTBOUND, 8, Fault::Delay(3)), (INBOUND, 33, Fault::Delay(3))]);
    assert!(report.is_clean(), "{report}");
    let report = run(&[(OUTBOUND, 8, Fault::Delay(4)), (INBOUND, 33, Fault::Delay(9))]);
    let total = &report.total;
    assert_eq!((total.outbound.reordered, total.outbound.reordering_extent_max), (1, 1));
    assert_eq!((total.inbound.reordered, total.inbound.reordering_extent_max), (1, 2));
    assert_eq!((total.lost(), total.outbound.duplicated + total.inbound.duplicated), (0, 0));
}

#[test]
fn any_changed_bit_behind_the_ethernet_header_is_corruption() {
    let frame_bits = 14 * 8..200 * 8;
    for bit in frame_bits.step_by(61) {
        let report = run(&[(OUTBOUND, 10, Fault::FlipBit(bit)), (INBOUND, 20, Fault::FlipBit(bit))]);
        let total = &report.total;
        assert_eq!((total.outbound.corrupt, total.inbound.corrupt), (1, 1), "bit {bit}");
        assert_eq!((total.outbound.lost, total.inbound.lost), (1, 1), "bit {bit}");
    }
}

#[test]
fn another_exterior_port_is_a_wrong_translation() {
    let report = run(&[(OUTBOUND, 10, Fault::OtherSourcePort(4242))]);
    assert_eq!((report.total.outbound.mistranslated, report.total.outbound.lost), (1, 0));
    // The NAT knows no such port: the answer is lost.
    assert_eq!(report.total.inbound.lost, 1);
    assert_eq!(report.flows.len(), 1);
    assert_eq!(report.flows[0].socket, 2);

    let report = run(&[(INBOUND, 10, Fault::OtherSourcePort(8))]);
    assert_eq!((report.total.inbound.mistranslated, report.total.inbound.lost), (1, 0));
}

#[test]
fn a_nat_that_forgets_its_ports_is_noticed() {
    let mut network = Network::new(&spec(4));
    network.send_round();
    // What a migration without state would do.
    network.nat = nat(99);
    (0..5).for_each(|_| network.send_round());
    let report = network.report();
    assert!(report.total.outbound.mistranslated > 0, "{report}");
}

#[test]
fn a_mark_begins_a_phase() {
    let mut network = Network::new(&spec(4));
    network.send_round();
    let now = network.now;
    network.workload.recorder().begin_phase("during", now);
    network.faults.insert((OUTBOUND, 5), Fault::Lose);
    network.send_round();
    let report = network.report();
    let names: Vec<_> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, [WARMUP, BEFORE, "during"]);
    let lost: Vec<_> = report.phases[1..].iter().map(|phase| (phase.outbound.sent, phase.lost())).collect();
    assert_eq!(lost, [(4, 0), (4, 1)]);
}

#[test]
fn what_was_not_sent_can_be_taken_back() {
    let mut network = Network::new(&spec(2));
    network.send_round();
    let mut packet = OwnedPacket::default();
    network.workload.request(&mut packet, network.now).unwrap();
    network.workload.take_back(&packet, network.now);
    let report = network.report();
    assert!(report.is_clean());
    assert_eq!((report.total.outbound.sent, report.total.outbound.unsent), (2, 1));
}

#[test]
fn other_frames_are_foreign_and_do_no_harm() {
    let mut network = Network::new(&spec(2));
    let mut elsewhere = OwnedPacket::new(vec![0xff; 60]);
    assert_eq!(network.workload.inside(&mut elsewhere, network.now), Next::Done);
    assert_eq!(network.workload.outside(&mut OwnedPacket::default(), network.now), Next::Done);
    assert_eq!(network.report().foreign_frames, 2);
}

#[test]
fn a_report_round_trips_through_json() {
    let report = run(&[(OUTBOUND, 3, Fault::Lose)]);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_do_no_harm(
        head in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
        inside: bool,
        to_station: bool,
        kind in 0..3,
    ) {
        let mut network = Network::new(&spec(1));
        let mut frame = head;
        if to_station && frame.len() >= 14 {
            let stations = if inside { network.workload.hosts } else { network.workload.servers };
            frame[..6].copy_from_slice(&stations.mac(0).0);
            let ether_type = [ether_type::IPV4, ether_type::ARP, 0x88b5][kind as usize];
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        }
        let mut packet = OwnedPacket::new(frame);
        let _ = if inside {
            network.workload.inside(&mut packet, network.now)
        } else {
            network.workload.outside(&mut packet, network.now)
        };
    }
}
