//! Forwards and exclusions.

mod common;

use common::*;
use slim_core::nf::NetworkFunction;
use slim_nat::rules::Action;
use slim_nat::types::Protocol;
use slim_nat::{Config, Drop};

/// Even the most stringent filter lets everybody use a forward.
fn forwarding() -> Config {
    Config {
        forward: vec![forward(Protocol::Tcp, 80, 10, 8080), forward(Protocol::Udp, 5353, 10, 53)],
        port_last: 6000,
        host_timeout_s: 500,
        ..config()
    }
}

#[test]
fn forwards_let_everybody_in_at_any_port_for_good() {
    let mut lab = Lab::resolved(&forwarding());
    for pause in [0, 10_000] {
        lab.pass(pause);
        lab.arp_reply(IN, host(10));
        lab.arp_reply(OUT, server(10));
        let client = socket(server(10), 999);
        let syn = lab.inbound(&tcp(OUT, client, socket(EXTERIOR, 80), SYN, b"")).sent_to(IN);
        assert_eq!(ends(&syn), (client, socket(host(10), 8080)));
        let answer = lab.outbound(&tcp(IN, socket(host(10), 8080), client, SYN | ACK, b"")).sent_to(OUT);
        assert_eq!(ends(&answer), (socket(EXTERIOR, 80), client));
        let question = lab.inbound(&udp(OUT, client, socket(EXTERIOR, 5353), b"?")).sent_to(IN);
        assert_eq!(ends(&question).1, socket(host(10), 53));
        assert_eq!(lab.udp_out(socket(host(10), 53), client), socket(EXTERIOR, 5353));
    }
    // The other protocol, other ports, other addresses are not forwarded.
    lab.inbound(&udp(OUT, socket(server(10), 9), socket(EXTERIOR, 80), b"?")).dropped(Drop::NoMapping);
    lab.inbound(&tcp(OUT, socket(server(10), 9), socket(EXTERIOR, 81), SYN, b"?")).dropped(Drop::NoMapping);
    let traffic = *lab.nat.host(host(10)).unwrap();
    assert_eq!((traffic.packets_inbound, traffic.packets_outbound, traffic.ports), (4, 4, 0));
    lab.pass(10_000);
    assert_eq!((lab.gauge("sessions"), lab.gauge("mappings"), lab.gauge("hosts")), (0, 2, 1));
    // One of the two is among the ports that are lent.
    assert_eq!((lab.gauge("udp_ports_used"), lab.gauge("tcp_ports_used")), (1, 0));
}

#[test]
fn rfc4787_r9_forwards_can_be_reached_from_inside() {
    let mut lab = Lab::resolved(&forwarding());
    let pin = lab.outbound(&udp(IN, socket(host(11), 5000), socket(EXTERIOR, 5353), b"?")).sent_to(IN);
    assert_eq!((*ends(&pin).0.ip(), ends(&pin).1), (EXTERIOR, socket(host(10), 53)));
    let answer = lab.outbound(&udp(IN, socket(host(10), 53), ends(&pin).0, b"!")).sent_to(IN);
    assert_eq!(ends(&answer), (socket(EXTERIOR, 5353), socket(host(11), 5000)));
}

#[test]
fn no_port_of_a_forward_is_lent_to_others() {
    let config = Config { port_first: 5352, port_last: 5354, ..forwarding() };
    let mut lab = Lab::resolved(&config);
    for n in [11, 12] {
        assert_ne!(lab.udp_out(socket(host(n), 5000), socket(server(10), 7)).port(), 5353);
    }
    lab.outbound(&udp(IN, socket(host(13), 5000), socket(server(10), 7), b"?")).dropped(Drop::PortsExhausted);
}

#[test]
fn a_session_through_a_forward_moves() {
    let mut lab = Lab::resolved(&forwarding());
    let client = socket(server(10), 999);
    lab.inbound(&tcp(OUT, client, socket(EXTERIOR, 80), SYN, b"")).sent_to(IN);
    let mut other = Lab::with_seed(&forwarding(), 7);
    adopt(&mut other.nat, &lab.freeze());
    other.nat.take_over(other.bench.now);
    other.outbound(&tcp(IN, socket(host(10), 8080), client, SYN | ACK, b"")).sent_to(OUT);
    assert_eq!((other.gauge("mappings"), other.gauge("udp_ports_used")), (2, 1));
}

#[test]
fn rfc6888_r6_exempt_destinations_see_interior_addresses() {
    let config = Config { exclude: vec![exclusion(Action::Exempt, None, Some(server(11)), "")], ..config() };
    let mut lab = Lab::resolved(&config);
    let (inside, outside) = (socket(host(10), 5000), socket(server(11), 7));
    let before = digest(&mut lab.nat);
    let frame = lab.outbound(&udp(IN, inside, outside, b"x")).sent_to(OUT);
    assert_eq!((ends(&frame), checksums(&frame)), ((inside, outside), Some((true, true))));
    assert_eq!((frame[22], &frame[6..12]), (63, &EXTERIOR_MAC.0[..]));
    let answer = lab.inbound(&udp(OUT, outside, inside, b"x")).sent_to(IN);
    assert_eq!((ends(&answer), checksums(&answer)), ((outside, inside), Some((true, true))));
    // Whatever the protocol, and in fragments, in any order.
    let gre = with_ipv4(udp(IN, inside, outside, b"x"), |ip| ip[9] = 47);
    assert_eq!(lab.outbound(&gre).sent_to(OUT)[26..34], gre[26..34]);
    let cut = |offset: u8, more: u8| {
        with_ipv4(udp(OUT, outside, inside, b"12345678"), |ip| ip[6..8].copy_from_slice(&[more, offset]))
    };
    assert_eq!(lab.inbound(&cut(2, 0)), Outcome::Consumed);
    lab.inbound(&cut(0, 0x20)).sent_to(IN);
    let (port, later) = lab.bench.emitted.last().unwrap();
    assert_eq!((*port, &later[26..34]), (IN, &cut(2, 0)[26..34]));
    lab.pass(100);
    assert_eq!((digest(&mut lab.nat)[2..].to_vec(), lab.gauge("sessions")), (before[2..].to_vec(), 0));
    assert_eq!(lab.gauge("exempt_packets"), 4);
    // Others are translated, and others do not get in.
    assert_eq!(*lab.udp_out(inside, socket(server(10), 7)).ip(), EXTERIOR);
    lab.inbound(&udp(OUT, socket(server(10), 7), inside, b"x")).dropped(Drop::DestinationInvalid);
    lab.inbound(&udp(OUT, outside, socket(INTERIOR, 7), b"x")).dropped(Drop::DestinationInvalid);
}

#[test]
fn denied_traffic_is_dropped_both_ways_and_the_host_is_told() {
    let config = Config {
        filtering: slim_nat::config::Filtering::EndpointIndependent,
        exclude: vec![
            exclusion(Action::Exempt, Some(host(12)), Some(server(11)), ""),
            exclusion(Action::Deny, None, Some(server(11)), ""),
            exclusion(Action::Deny, Some(host(10)), None, "25"),
        ],
        ..config()
    };
    let mut lab = Lab::resolved(&config);
    lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(11), 7), b"x")).dropped(Drop::Denied);
    lab.outbound(&tcp(IN, socket(host(10), 5000), socket(server(10), 25), SYN, b"")).dropped(Drop::Denied);
    assert_eq!((lab.bench.emitted[1].0, &lab.bench.emitted[1].1[34..36]), (IN, &[3, 13][..]));
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.inbound(&udp(OUT, socket(server(12), 7), exterior, b"x")).sent_to(IN);
    lab.inbound(&udp(OUT, socket(server(11), 7), exterior, b"x")).dropped(Drop::Denied);
    lab.inbound(&udp(OUT, socket(server(12), 25), exterior, b"x")).dropped(Drop::Denied);
    // The first that fits counts.
    let frame = lab.outbound(&udp(IN, socket(host(12), 5000), socket(server(11), 7), b"x")).sent_to(OUT);
    assert_eq!(ends(&frame).0, socket(host(12), 5000));
}
