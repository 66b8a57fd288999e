//! ARP: answering, learning, asking, expiring, and what must not get in.

mod common;

use common::*;
use slim_core::packet::{ArpOperation, MacAddr};
use slim_core::time::Duration;
use slim_nat::{Config, Drop};

/// Whether a packet to `address` out of `port` finds its MAC address.
fn knows(lab: &mut Lab, port: slim_core::nf::PortId, address: core::net::Ipv4Addr) -> Option<MacAddr> {
    assert_eq!(port, OUT, "only servers are looked up here");
    match lab.outbound(&udp(IN, socket(host(200), 5000), socket(address, 7), b"x")) {
        Outcome::Sent(_, frame) => Some(MacAddr(frame[..6].try_into().unwrap())),
        Outcome::Dropped(Drop::ArpPending) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn own_addresses_are_answered_on_their_side_only() {
    let mut lab = Lab::new(&config());
    for (port, neighbour) in [(IN, host(10)), (OUT, server(10))] {
        let request = |target| arp(port, ArpOperation::Request, mac_of(neighbour), neighbour, target);
        let (mac, address) = own(port);
        let reply = lab.deliver(port, &request(address)).sent_to(port);
        let expected = ArpFrame {
            operation: ArpOperation::Reply,
            sender: (mac, address),
            target: (mac_of(neighbour), neighbour),
            ethernet: (mac, mac_of(neighbour)),
        };
        assert_eq!(read_arp(&reply), expected);
        let (_, other_side) = own(if port == IN { OUT } else { IN });
        // A known neighbour's question to others confirms its entry, but is not answered.
        assert_eq!(lab.deliver(port, &request(other_side)), Outcome::Consumed);
    }
    let stranger = arp(IN, ArpOperation::Request, mac_of(host(11)), host(11), host(12));
    lab.deliver(IN, &stranger).dropped(Drop::ArpNotForUs);
}

#[test]
fn requests_and_replies_to_the_nat_are_learnt_from() {
    let mut lab = Lab::new(&config());
    assert_eq!(lab.arp_reply(OUT, server(10)), Outcome::Consumed);
    lab.deliver(OUT, &arp(OUT, ArpOperation::Request, mac_of(server(11)), server(11), EXTERIOR)).sent_to(OUT);
    for n in [10, 11] {
        assert_eq!(knows(&mut lab, OUT, server(n)), Some(mac_of(server(n))));
    }
    assert_eq!(lab.gauge("arp_entries"), 2);
}

#[test]
fn gratuitous_arp_corrects_an_entry_but_does_not_create_one() {
    let mut lab = Lab::new(&config());
    let moved = MacAddr([2, 9, 9, 9, 9, 9]);
    let gratuitous = arp(OUT, ArpOperation::Request, moved, server(10), server(10));
    lab.deliver(OUT, &gratuitous).dropped(Drop::ArpNotForUs);
    assert_eq!(lab.gauge("arp_entries"), 0);
    lab.arp_reply(OUT, server(10));
    assert_eq!(lab.deliver(OUT, &gratuitous), Outcome::Consumed);
    assert_eq!(knows(&mut lab, OUT, server(10)), Some(moved));
}

#[test]
fn address_probe_is_answered_and_not_learnt() {
    let mut lab = Lab::new(&config());
    let probe = arp(IN, ArpOperation::Request, mac_of(host(10)), [0, 0, 0, 0].into(), INTERIOR);
    lab.deliver(IN, &probe).sent_to(IN);
    assert_eq!(lab.gauge("arp_entries"), 0);
}

#[test]
fn own_address_cannot_be_claimed() {
    let mut lab = Lab::resolved(&config());
    let entries = lab.gauge("arp_entries");
    let thief = MacAddr([2, 6, 6, 6, 6, 6]);
    for operation in [ArpOperation::Request, ArpOperation::Reply] {
        for (port, target) in [(IN, INTERIOR), (IN, host(10)), (OUT, EXTERIOR), (OUT, server(10))] {
            let (own_mac, own_address) = own(port);
            lab.deliver(port, &arp(port, operation, thief, own_address, target)).dropped(Drop::ArpOwnAddressClaimed);
            // Nor can a neighbour have the NAT's own MAC address.
            let neighbour = if port == IN { host(10) } else { server(10) };
            lab.deliver(port, &arp(port, operation, own_mac, neighbour, target)).dropped(Drop::ArpOwnAddressClaimed);
        }
    }
    assert_eq!(lab.gauge("arp_entries"), entries);
    assert_eq!(knows(&mut lab, OUT, server(10)), Some(mac_of(server(10))));
}

#[test]
fn impossible_senders_are_refused() {
    let mut lab = Lab::new(&config());
    let mut refused = |mac, sender, reason| {
        lab.deliver(IN, &arp(IN, ArpOperation::Reply, mac, sender, INTERIOR)).dropped(reason);
    };
    let mac = mac_of(host(10));
    refused(mac, server(10), Drop::ArpForeignSender);
    refused(mac, host(0), Drop::ArpForeignSender);
    refused(mac, host(255), Drop::ArpForeignSender);
    refused(mac, [0, 0, 0, 0].into(), Drop::ArpForeignSender);
    refused(MacAddr([0; 6]), host(10), Drop::ArpMalformed);
    refused(MacAddr([1, 0, 0x5e, 0, 0, 1]), host(10), Drop::ArpMalformed);
    refused(MacAddr::BROADCAST, host(10), Drop::ArpMalformed);
    assert_eq!(lab.gauge("arp_entries"), 0);
}

#[test]
fn malformed_arp_is_refused() {
    let mut lab = Lab::new(&config());
    let whole = arp(IN, ArpOperation::Request, mac_of(host(10)), host(10), INTERIOR);
    lab.deliver(IN, &whole[..41]).dropped(Drop::ArpMalformed);
    for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16), (21, 3)] {
        let mut frame = whole.clone();
        frame[at] = value;
        lab.deliver(IN, &frame).dropped(Drop::ArpMalformed);
    }
    let mut elsewhere = whole.clone();
    elsewhere[..6].copy_from_slice(&mac_of(host(99)).0);
    lab.deliver(IN, &elsewhere).dropped(Drop::NotToOwnMac);
    assert_eq!(lab.gauge("arp_entries"), 0);
    lab.deliver(IN, &whole).sent_to(IN);
}

#[test]
fn unknown_next_hop_is_asked_for_once_per_second() {
    let mut lab = Lab::new(&Config { exterior_gateway: None, ..config() });
    let frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x");
    for _ in 0..10 {
        lab.outbound(&frame).dropped(Drop::ArpPending);
    }
    assert_eq!(lab.bench.emitted.len(), 1);
    lab.bench.now += Duration::from_secs(1);
    lab.outbound(&frame).dropped(Drop::ArpPending);
    lab.outbound(&frame).dropped(Drop::ArpPending);
    assert_eq!((lab.bench.emitted.len(), lab.gauge("arp_requests_sent")), (2, 2));
    assert_eq!(lab.gauge("sessions"), 0, "a packet that is dropped leaves no state");
    lab.arp_reply(OUT, server(10));
    lab.outbound(&frame).sent_to(OUT);
}

#[test]
fn gateway_is_asked_for_before_it_is_needed() {
    let mut lab = Lab::new(&config());
    let request = read_arp(&lab.bench.emitted[0].1);
    assert_eq!((request.operation, request.sender, request.target.1), (ArpOperation::Request, own(OUT), GATEWAY));
    assert_eq!((lab.bench.emitted.len(), lab.bench.emitted[0].0), (1, OUT));
    lab.tick();
    assert_eq!(lab.bench.emitted.len(), 1);
    lab.bench.now += Duration::from_secs(1);
    lab.tick();
    assert_eq!(lab.bench.emitted.len(), 2, "it has not answered yet");
    lab.arp_reply(OUT, GATEWAY);
    lab.bench.now += Duration::from_secs(1);
    lab.tick();
    assert_eq!(lab.bench.emitted.len(), 2);
    lab.outbound(&udp(IN, socket(host(10), 5000), socket([198, 51, 100, 9].into(), 53), b"x")).sent_to(OUT);
}

#[test]
fn entry_in_use_is_confirmed_before_it_expires() {
    let mut lab = Lab::new(&Config { exterior_gateway: None, ..config() });
    lab.arp_reply(OUT, server(10));
    let frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x");
    for _ in 0..20 {
        lab.pass(100);
        lab.outbound(&frame).sent_to(OUT);
        for (port, request) in std::mem::take(&mut lab.bench.emitted) {
            assert_eq!((port, read_arp(&request).target.1), (OUT, server(10)));
            lab.arp_reply(OUT, server(10));
        }
    }
}

#[test]
fn silent_neighbour_expires() {
    let mut lab = Lab::new(&config());
    lab.arp_reply(OUT, server(10));
    lab.bench.upd_enable = true;
    lab.pass(300);
    assert_eq!(lab.gauge("arp_entries"), 1);
    lab.statelets();
    lab.pass(1);
    assert_eq!(lab.gauge("arp_entries"), 0);
    assert!(lab.statelets().contains(&(0x0023, vec![10, 2, 0, 10])));
}

#[test]
fn confirmation_is_announced_once_per_second() {
    let mut lab = Lab::new(&config());
    lab.bench.upd_enable = true;
    for _ in 0..5 {
        lab.arp_reply(OUT, server(10));
    }
    assert_eq!(lab.statelets().len(), 1);
    lab.bench.now += Duration::from_secs(1);
    lab.arp_reply(OUT, server(10));
    let types: Vec<u16> = lab.statelets().iter().map(|(statelet_type, _)| *statelet_type).collect();
    assert_eq!(types, [0x0001, 0x0021]);
}

#[test]
fn full_table_refuses_new_neighbours_and_keeps_the_others() {
    let mut lab = Lab::new(&Config { arp_entries_max: 3, ..config() });
    for n in 10..13 {
        assert_eq!(lab.arp_reply(OUT, server(n)), Outcome::Consumed);
    }
    lab.arp_reply(OUT, server(13)).dropped(Drop::ArpTableFull);
    // A request is answered although its sender cannot be learnt.
    lab.deliver(IN, &arp(IN, ArpOperation::Request, mac_of(host(10)), host(10), INTERIOR)).sent_to(IN);
    assert_eq!((lab.gauge("arp_entries"), lab.gauge("arp_learning_refused")), (3, 2));
    assert_eq!(lab.arp_reply(OUT, server(10)), Outcome::Consumed);
    assert_eq!(knows(&mut lab, OUT, server(12)), Some(mac_of(server(12))));
    lab.pass(301);
    assert_eq!(lab.arp_reply(OUT, server(13)), Outcome::Consumed);
}
