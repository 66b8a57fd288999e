//! Several exterior addresses: pairing, ports of each, ARP and packets for all of them.

mod common;

use common::*;
use slim_core::nf::NetworkFunction;
use slim_core::packet::ArpOperation;
use slim_nat::config::{Filtering, Pooling};
use slim_nat::types::Protocol;
use slim_nat::{Config, Drop};
use std::collections::{BTreeMap, BTreeSet};

/// The exterior addresses that endpoints of `hosts` hosts get, per host.
fn addresses(lab: &mut Lab, hosts: u8, endpoints: u16) -> BTreeMap<u8, BTreeSet<core::net::Ipv4Addr>> {
    let mut addresses = BTreeMap::<u8, BTreeSet<_>>::new();
    for n in 10..10 + hosts {
        for i in 0..endpoints {
            let (from, to) = (socket(host(n), 5000 + i), socket(server(10), 7));
            let exterior = if i % 2 == 0 { lab.udp_out(from, to) } else { lab.tcp_out(from, to, SYN) };
            addresses.entry(n).or_default().insert(*exterior.ip());
        }
    }
    addresses
}

#[test]
fn rfc4787_r2_rfc6888_r2_a_host_keeps_one_exterior_address() {
    let mut lab = Lab::resolved(&pooled(config()));
    let addresses = addresses(&mut lab, 12, 8);
    assert!(addresses.values().all(|of_host| of_host.len() == 1), "{addresses:?}");
    let all: BTreeSet<_> = addresses.values().flatten().collect();
    assert_eq!(all, BTreeSet::from([&EXTERIOR, &EXTERIOR_2, &EXTERIOR_3]), "hosts are spread over the pool");
    // ICMP queries as well.
    let query = lab.outbound(&echo(IN, host(10), server(10), 8, 77)).sent_to(OUT);
    assert!(addresses[&10].contains(&read_icmp(&query).from));
}

#[test]
fn arbitrary_pooling_spreads_a_hosts_endpoints() {
    let mut lab = Lab::resolved(&pooled(Config { address_pooling: Pooling::Arbitrary, ..config() }));
    assert!(addresses(&mut lab, 1, 40)[&10].len() > 1);
}

#[test]
fn pairing_outlives_the_ports_and_a_migration() {
    let config = pooled(Config { host_timeout_s: 1000, ..config() });
    let mut lab = Lab::resolved(&config);
    let before: Vec<_> = (10..20).map(|n| *lab.udp_out(socket(host(n), 5000), socket(server(10), 7)).ip()).collect();
    lab.pass(301);
    assert_eq!((lab.gauge("sessions"), lab.gauge("udp_ports_used")), (0, 0));
    let mut other = Lab::with_seed(&config, 99);
    adopt(&mut other.nat, &lab.freeze());
    other.nat.take_over(other.bench.now);
    other.arp_reply(OUT, server(10));
    let after: Vec<_> = (10..20).map(|n| *other.udp_out(socket(host(n), 6000), socket(server(10), 7)).ip()).collect();
    assert_eq!(before, after);
}

#[test]
fn each_address_has_all_ports_and_a_pair_that_is_full_refuses() {
    let config = pooled(Config { port_first: 2000, port_last: 2003, ..config() });
    let mut lab = Lab::resolved(&config);
    assert_eq!((lab.gauge("exterior_addresses"), lab.gauge("ports_per_protocol")), (3, 12));
    let mut exteriors = Vec::new();
    for i in 0..4 {
        exteriors.push(lab.udp_out(socket(host(10), 5000 + i), socket(server(10), 7)));
    }
    exteriors.sort();
    assert_eq!(exteriors.iter().map(|exterior| exterior.port()).collect::<Vec<_>>(), [2000, 2001, 2002, 2003]);
    // The host's address has no more UDP ports, though others have, and TCP ports.
    lab.outbound(&udp(IN, socket(host(10), 5004), socket(server(10), 7), b"x")).dropped(Drop::PortsExhausted);
    lab.tcp_out(socket(host(10), 5004), socket(server(10), 7), SYN);
    // Other hosts get the other addresses, down to the last port.
    for n in [11, 12] {
        for i in 0..4 {
            let exterior = lab.udp_out(socket(host(n), 5000 + i), socket(server(10), 7));
            assert!(!exteriors.contains(&exterior));
            exteriors.push(exterior);
        }
    }
    assert_eq!(lab.gauge("udp_ports_used"), 12);
    lab.outbound(&udp(IN, socket(host(13), 5000), socket(server(10), 7), b"x")).dropped(Drop::PortsExhausted);
    // A host without ports may move to another address, where it finds some.
    lab.pass(301);
    lab.arp_reply(OUT, server(10));
    assert_eq!(lab.gauge("udp_ports_used"), 0);
    let old = *exteriors[0].ip();
    for n in 13.. {
        if *lab.udp_out(socket(host(n), 5000), socket(server(10), 7)).ip() == old {
            (1..4).for_each(|i| _ = lab.udp_out(socket(host(n), 5000 + i), socket(server(10), 7)));
            break;
        }
    }
    assert!(lab.gauge("udp_ports_used") < 12, "there is room elsewhere");
    let hosts_of_old = lab.nat.host(host(10)).unwrap().exterior_address;
    assert_eq!(hosts_of_old, old.to_bits());
    assert_ne!(*lab.udp_out(socket(host(10), 5000), socket(server(10), 7)).ip(), old);
}

#[test]
fn rfc6888_r3_the_pool_need_not_be_contiguous_and_all_of_it_is_the_nats() {
    let mut lab = Lab::resolved(&pooled(Config { filtering: Filtering::EndpointIndependent, ..config() }));
    let mut reached = BTreeSet::new();
    for n in 10..25 {
        let exterior = lab.udp_out(socket(host(n), 5000), socket(server(10), 7));
        let reply = lab.inbound(&udp(OUT, socket(server(11), 9), exterior, b"x")).sent_to(IN);
        assert_eq!(ends(&reply).1, socket(host(n), 5000));
        // Another host reaches it by way of its exterior address: a hairpin.
        let pin = lab.outbound(&udp(IN, socket(host(26), 5000), exterior, b"pin")).sent_to(IN);
        assert_eq!(ends(&pin).1, socket(host(n), 5000));
        reached.insert(*exterior.ip());
    }
    assert_eq!(reached.len(), 3);
    for own in [EXTERIOR, EXTERIOR_2, EXTERIOR_3] {
        let answer = lab.inbound(&echo(OUT, server(10), own, 8, 5)).sent_to(OUT);
        assert_eq!((read_icmp(&answer).from, read_icmp(&answer).kind), (own, (0, 0)));
        lab.inbound(&udp(OUT, socket(own, 9), socket(EXTERIOR, 2000), b"x")).dropped(Drop::SourceInvalid);
        assert_eq!(lab.exterior_of(Protocol::Udp, socket(own, 5000)), None);
    }
    lab.inbound(&udp(OUT, socket(server(10), 9), socket(server(3), 2000), b"x")).dropped(Drop::DestinationInvalid);
}

#[test]
fn arp_answers_for_every_address_of_the_pool() {
    let mut lab = Lab::new(&pooled(config()));
    for address in [EXTERIOR, EXTERIOR_2, EXTERIOR_3] {
        let request = arp(OUT, ArpOperation::Request, mac_of(server(10)), server(10), address);
        let reply = read_arp(&lab.deliver(OUT, &request).sent_to(OUT));
        assert_eq!((reply.operation, reply.sender), (ArpOperation::Reply, (EXTERIOR_MAC, address)));
        let inside = arp(IN, ArpOperation::Request, mac_of(host(11)), host(11), address);
        lab.deliver(IN, &inside).dropped(Drop::ArpNotForUs);
        let claim = arp(OUT, ArpOperation::Reply, mac_of(address), address, EXTERIOR);
        lab.deliver(OUT, &claim).dropped(Drop::ArpOwnAddressClaimed);
    }
}

#[test]
fn rfc6888_r4_ports_per_subscriber_are_limited() {
    let mut lab = Lab::resolved(&pooled(Config { ports_per_host_max: Some(3), ..config() }));
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.tcp_out(socket(host(10), 5000), socket(server(10), 7), SYN);
    lab.outbound(&echo(IN, host(10), server(10), 8, 77)).sent_to(OUT);
    lab.outbound(&udp(IN, socket(host(10), 5001), socket(server(10), 7), b"x")).dropped(Drop::HostPortLimit);
    // Not a limit of sessions, and nobody else's.
    lab.udp_out(socket(host(10), 5000), socket(server(11), 7));
    lab.udp_out(socket(host(11), 5001), socket(server(10), 7));
    assert_eq!(lab.nat.host(host(10)).unwrap().ports, 3);
    let told: Vec<_> = lab.bench.emitted.iter().filter(|(port, _)| *port == IN).collect();
    assert!(told.iter().any(|(_, frame)| frame[34..36] == [3, 13]), "the sender is told: prohibited");
    lab.pass(301);
    assert_eq!(lab.nat.host(host(10)).unwrap().ports, 0);
}
