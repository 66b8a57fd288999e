//! Ports lent in blocks.

mod common;

use common::*;
use slim_core::nf::NetworkFunction;
use slim_nat::{Config, Drop};
use std::collections::{BTreeMap, BTreeSet};

fn blocks() -> Config {
    Config {
        port_block_size: Some(16),
        port_blocks_per_host_max: 2,
        port_first: 2000,
        port_last: 2099,
        host_timeout_s: 500,
        ..pooled(config())
    }
}

/// The block that an exterior socket is in.
fn block_of(exterior: std::net::SocketAddrV4) -> (std::net::Ipv4Addr, u16) {
    assert!((2000..2096).contains(&exterior.port()), "{exterior} is in no block");
    (*exterior.ip(), (exterior.port() - 2000) / 16)
}

#[test]
fn rfc6888_r14_a_hosts_ports_are_of_its_blocks_for_all_protocols() {
    let mut lab = Lab::resolved(&blocks());
    let mut of_host = BTreeMap::<u8, BTreeSet<_>>::new();
    for i in 0..10 {
        for n in 10..16 {
            let exterior = lab.udp_out(socket(host(n), 5000 + i), socket(server(10), 7));
            of_host.entry(n).or_default().insert(block_of(exterior));
            let exterior = lab.tcp_out(socket(host(n), 5000 + i), socket(server(10), 7), SYN);
            of_host.entry(n).or_default().insert(block_of(exterior));
        }
    }
    assert!(of_host.values().all(|blocks| blocks.len() == 1), "{of_host:?}");
    let all: BTreeSet<_> = of_host.values().flatten().collect();
    assert_eq!(all.len(), 6, "no block has two hosts");
    assert_eq!((lab.gauge("port_blocks"), lab.gauge("port_blocks_capacity")), (6, 18));
}

#[test]
fn rfc6888_r4_a_host_gets_so_many_blocks_and_no_more() {
    let mut lab = Lab::resolved(&blocks());
    let exteriors: Vec<_> = (0..32).map(|i| lab.udp_out(socket(host(10), 5000 + i), socket(server(10), 7))).collect();
    assert_eq!(exteriors.iter().map(|exterior| block_of(*exterior)).collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(exteriors.iter().map(|exterior| exterior.ip()).collect::<BTreeSet<_>>().len(), 1);
    let before = digest(&mut lab.nat);
    lab.outbound(&udp(IN, socket(host(10), 6000), socket(server(10), 7), b"x")).dropped(Drop::HostPortLimit);
    assert_eq!(digest(&mut lab.nat), before, "a refusal leaves nothing behind");
    // TCP's ports of the same blocks are free.
    lab.tcp_out(socket(host(10), 6000), socket(server(10), 7), SYN);
    assert_eq!(lab.gauge("port_blocks"), 2);
}

#[test]
fn preserved_ports_are_of_the_hosts_block_too() {
    let config = Config { port_preservation: true, port_blocks_per_host_max: 1, ..blocks() };
    let mut lab = Lab::resolved(&config);
    let first = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    for port in 2000..2096 {
        let Outcome::Sent(_, frame) = lab.outbound(&udp(IN, socket(host(10), port), socket(server(10), 7), b"x"))
        else {
            continue;
        };
        assert_eq!(block_of(ends(&frame).0), block_of(first));
    }
    assert_eq!(lab.gauge("port_blocks"), 1);
}

#[test]
fn every_block_can_be_lent() {
    let mut lab = Lab::resolved(&Config { port_blocks_per_host_max: 1, ..blocks() });
    let exteriors: BTreeSet<_> =
        (10..28).map(|n| block_of(lab.udp_out(socket(host(n), 5000), socket(server(10), 7)))).collect();
    assert_eq!(exteriors.len(), 18);
    lab.outbound(&udp(IN, socket(host(28), 5000), socket(server(10), 7), b"x")).dropped(Drop::PortsExhausted);
}

#[test]
fn rfc6888_r8_a_block_is_nobody_elses_for_two_minutes() {
    let config = Config { exterior_pool: Vec::new(), port_last: 2015, ..blocks() };
    let mut lab = Lab::resolved(&config);
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.pass(301);
    assert_eq!((lab.gauge("sessions"), lab.gauge("port_blocks")), (0, 1));
    lab.pass(120);
    lab.arp_reply(OUT, server(10));
    lab.outbound(&udp(IN, socket(host(11), 5000), socket(server(10), 7), b"x")).dropped(Drop::PortsExhausted);
    // The quarantine goes on at another instance, where it was.
    let mut other = Lab::with_seed(&config, 3);
    adopt(&mut other.nat, &lab.freeze());
    other.nat.take_over(other.bench.now);
    other.arp_reply(OUT, server(10));
    other.outbound(&udp(IN, socket(host(11), 5000), socket(server(10), 7), b"x")).dropped(Drop::PortsExhausted);
    other.bench.upd_enable = true;
    other.pass(1);
    assert_eq!(other.gauge("port_blocks"), 0);
    assert!(other.statelets().iter().any(|(statelet_type, _)| *statelet_type == 0x0060));
    other.udp_out(socket(host(11), 5000), socket(server(10), 7));
}

#[test]
fn a_block_in_use_or_of_a_silent_host_stays() {
    let mut lab = Lab::resolved(&blocks());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    for _ in 0..5 {
        lab.pass(200);
        lab.arp_reply(OUT, server(10));
        assert_eq!(lab.udp_out(socket(host(10), 5000), socket(server(10), 7)), exterior);
    }
    assert_eq!(lab.gauge("port_blocks"), 1);
    lab.pass(301);
    lab.pass(199);
    assert_eq!((lab.gauge("port_blocks"), lab.gauge("hosts")), (0, 1));
    lab.pass(2);
    assert_eq!(lab.gauge("hosts"), 0);
}
