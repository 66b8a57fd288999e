//! One test per requirement of an RFC that is met so far, named after it.

mod common;

use common::*;
use slim_core::nf::{NetworkFunction, Shard, ShardId};
use slim_core::time::Duration;
use slim_nat::config::Filtering;
use slim_nat::types::Protocol;
use slim_nat::{Config, Drop, Nat};
use std::collections::BTreeSet;

#[test]
fn rfc4787_r1_endpoint_independent_mapping() {
    let mut lab = Lab::resolved(&config());
    let source = socket(host(10), 5000);
    let first = lab.udp_out(source, socket(server(10), 7));
    for destination in [socket(server(10), 8), socket(server(11), 7), socket("198.51.100.9".parse().unwrap(), 53)] {
        assert_eq!(lab.udp_out(source, destination), first);
    }
    assert_eq!((lab.gauge("mappings"), lab.gauge("sessions")), (1, 4));
    assert_ne!(lab.udp_out(socket(host(10), 5001), socket(server(10), 7)), first);
}

#[test]
fn rfc4787_r3_no_port_overloading() {
    let mut lab = Lab::resolved(&config());
    let mut seen = BTreeSet::new();
    for n in 10..30 {
        for port in 5000..5010 {
            let exterior = lab.udp_out(socket(host(n), port), socket(server(10), 7));
            assert_eq!(*exterior.ip(), EXTERIOR);
            assert!(exterior.port() >= 1024, "a well-known port");
            assert!(seen.insert(exterior), "{exterior} is lent twice");
        }
    }
}

#[test]
fn rfc4787_r5_udp_timer_is_five_minutes() {
    let mut lab = Lab::resolved(&config());
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.pass(300);
    assert_eq!(lab.gauge("sessions"), 1);
    lab.pass(1);
    assert_eq!((lab.gauge("sessions"), lab.gauge("mappings"), lab.gauge("udp_ports_used")), (0, 0, 0));
}

#[test]
fn rfc4787_r5_shorter_timers_are_refused() {
    let error = Nat::new(&Config { udp_timeout_s: 119, ..config() }, Shard::ONLY, 1).err().unwrap();
    assert!(error.0.contains("udp_timeout_s = 119"), "{error}");
}

#[test]
fn rfc4787_r6_outbound_packets_refresh() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    for _ in 0..5 {
        lab.pass(250);
        for n in 10..12 {
            lab.arp_reply(IN, host(n));
            lab.arp_reply(OUT, server(n));
        }
        assert_eq!(lab.udp_out(socket(host(10), 5000), socket(server(10), 7)), exterior);
    }
}

#[test]
fn rfc7857_s6_inbound_packets_do_not_refresh() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    for _ in 0..10 {
        lab.inbound(&udp(OUT, socket(server(10), 7), exterior, b"reply")).sent_to(IN);
        lab.pass(29);
    }
    lab.inbound(&udp(OUT, socket(server(10), 7), exterior, b"reply")).sent_to(IN);
    lab.pass(11);
    lab.inbound(&udp(OUT, socket(server(10), 7), exterior, b"reply")).dropped(Drop::NoMapping);
}

#[test]
fn rfc4787_r8_address_and_port_dependent_filtering() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    let mut inbound = |source, destination| lab.inbound(&udp(OUT, source, destination, b"x"));
    inbound(socket(server(10), 7), exterior).sent_to(IN);
    inbound(socket(server(10), 8), exterior).dropped(Drop::Filtered);
    inbound(socket(server(11), 7), exterior).dropped(Drop::Filtered);
    inbound(socket(server(10), 7), socket(EXTERIOR, exterior.port() ^ 1)).dropped(Drop::NoMapping);
}

#[test]
fn rfc4787_r10_payload_is_left_alone() {
    let mut lab = Lab::resolved(&config());
    let payload = b"PORT 10,1,0,10,19,136 and 10.1.0.10:5000";
    let frame = udp(IN, socket(host(10), 5000), socket(server(10), 21), payload);
    let sent = lab.outbound(&frame).sent_to(OUT);
    assert_eq!(sent[42..], frame[42..]);
}

#[test]
fn rfc4787_r11_mapping_does_not_depend_on_what_others_do() {
    let source = socket(host(10), 5000);
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(source, socket(server(10), 7));
    for port in 6000..6100 {
        lab.udp_out(socket(host(11), port), socket(server(10), 7));
    }
    assert_eq!(lab.udp_out(source, socket(server(11), 99)), exterior);
}

#[test]
fn rfc4787_r11_mapping_is_the_same_after_a_migration() {
    let source = socket(host(10), 5000);
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(source, socket(server(10), 7));
    let mut other = Lab::with_seed(&config(), 99);
    adopt(&mut other.nat, &lab.freeze());
    other.nat.take_over(other.bench.now);
    assert_eq!(other.udp_out(source, socket(server(11), 8)), exterior);
    other.inbound(&udp(OUT, socket(server(10), 7), exterior, b"x")).sent_to(IN);
}

#[test]
fn rfc5382_r1_endpoint_independent_mapping() {
    let mut lab = Lab::resolved(&config());
    let source = socket(host(10), 5000);
    let exterior = lab.tcp_connect(source, socket(server(10), 80));
    assert_eq!(lab.tcp_connect(source, socket(server(11), 443)), exterior);
    // UDP has ports of its own.
    lab.udp_out(source, socket(server(10), 80));
    assert_eq!((lab.gauge("tcp_ports_used"), lab.gauge("udp_ports_used")), (1, 1));
}

#[test]
fn rfc5382_r2_simultaneous_open() {
    let mut lab = Lab::resolved(&config());
    let (source, peer) = (socket(host(10), 5000), socket(server(10), 6000));
    let exterior = lab.tcp_out(source, peer, SYN);
    lab.inbound(&tcp(OUT, peer, exterior, SYN, b"")).sent_to(IN);
    lab.tcp_out(source, peer, SYN | ACK);
    lab.inbound(&tcp(OUT, peer, exterior, SYN | ACK, b"")).sent_to(IN);
    lab.tcp_out(source, peer, ACK);
    lab.pass(7440);
    assert_eq!(lab.gauge("sessions"), 1, "not established");
}

#[test]
fn rfc5382_r3_address_and_port_dependent_filtering() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80));
    lab.inbound(&tcp(OUT, socket(server(10), 81), exterior, SYN, b"")).dropped(Drop::Filtered);
    lab.inbound(&tcp(OUT, socket(server(11), 80), exterior, ACK, b"")).dropped(Drop::Filtered);
}

#[test]
fn rfc5382_r4_unsolicited_syn_is_answered_after_six_seconds() {
    for mapped in [false, true] {
        let mut lab = Lab::resolved(&config());
        let exterior = match mapped {
            true => lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80)),
            false => socket(EXTERIOR, 5000),
        };
        let syn = tcp(OUT, socket(server(11), 4000), exterior, SYN, b"");
        let reason = if mapped { Drop::Filtered } else { Drop::NoMapping };
        lab.inbound(&syn).dropped(reason);
        lab.bench.emitted.clear();
        lab.pass(3);
        lab.inbound(&syn).dropped(reason);
        lab.pass(3);
        assert_eq!(lab.gauge("unanswered_syns"), 1);
        let told = |lab: &mut Lab| {
            let icmp = std::mem::take(&mut lab.bench.emitted).into_iter().filter(|(_, frame)| frame[23] == 1);
            icmp.map(|(port, frame)| (port, read_icmp(&frame))).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut lab), []);
        lab.pass(1);
        let answers = told(&mut lab);
        assert_eq!(answers.len(), 1);
        let (port, answer) = &answers[0];
        assert_eq!((*port, answer.from, answer.to, answer.kind), (OUT, EXTERIOR, server(11), (3, 3)));
        assert_eq!(answer.data, subject(&syn, false));
        lab.pass(10);
        assert_eq!(told(&mut lab), []);
    }
}

#[test]
fn rfc5382_r4_simultaneous_open_is_not_answered() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80));
    let stranger = socket(server(11), 4000);
    lab.inbound(&tcp(OUT, stranger, exterior, SYN, b"")).dropped(Drop::Filtered);
    assert_eq!(lab.tcp_out(socket(host(10), 5000), stranger, SYN), exterior);
    assert_eq!(lab.gauge("unanswered_syns"), 0);
    lab.bench.emitted.clear();
    lab.pass(10);
    assert!(lab.bench.emitted.iter().all(|(_, frame)| frame[23] != 1));
}

#[test]
fn only_intact_syns_are_answered_and_no_more_than_there_is_room_for() {
    let mut lab = Lab::resolved(&config());
    let syn = |port| tcp(OUT, socket(server(11), port), socket(EXTERIOR, 5000), SYN, b"");
    let mut damaged = syn(1);
    *damaged.last_mut().unwrap() ^= 1;
    lab.inbound(&damaged).dropped(Drop::NoMapping);
    lab.inbound(&tcp(OUT, socket(server(11), 1), socket(EXTERIOR, 5000), ACK, b"")).dropped(Drop::NoMapping);
    assert_eq!(lab.gauge("unanswered_syns"), 0);
    for port in 1..200 {
        lab.inbound(&syn(port)).dropped(Drop::NoMapping);
    }
    assert_eq!(lab.gauge("unanswered_syns"), 64);
    lab.pass(7);
    assert_eq!(lab.gauge("unanswered_syns"), 0);
}

#[test]
fn rfc5382_r4_another_instance_gives_the_answer() {
    let mut lab = Lab::resolved(&config());
    let syn = tcp(OUT, socket(server(11), 4000), socket(EXTERIOR, 5000), SYN, b"");
    lab.inbound(&syn).dropped(Drop::NoMapping);
    lab.pass(4);
    let snapshot = lab.freeze();
    let mut other = Lab::with_seed(&config(), 99);
    adopt(&mut other.nat, &snapshot);
    other.nat.take_over(other.bench.now);
    other.bench.emitted.clear();
    other.pass(3);
    let answers = other.bench.emitted.iter().filter(|(_, frame)| frame[23] == 1).count();
    assert_eq!(answers, 1);
}

#[test]
fn rfc5382_r5_established_timer_is_two_hours_and_four_minutes() {
    let mut lab = Lab::resolved(&config());
    lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80));
    lab.pass(2 * 3600 + 4 * 60);
    assert_eq!(lab.gauge("sessions"), 1);
    lab.pass(1);
    assert_eq!(lab.gauge("sessions"), 0);
}

#[test]
fn rfc5382_r5_opening_timer_is_four_minutes() {
    let mut lab = Lab::resolved(&config());
    lab.tcp_out(socket(host(10), 5000), socket(server(10), 80), SYN);
    lab.pass(240);
    assert_eq!(lab.gauge("sessions"), 1);
    lab.pass(1);
    assert_eq!(lab.gauge("sessions"), 0);
}

#[test]
fn rfc5382_r5_closed_session_stays_four_minutes() {
    for fin_from_server_first in [false, true] {
        let mut lab = Lab::resolved(&config());
        let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
        let exterior = lab.tcp_connect(source, destination);
        let fin_in = tcp(OUT, destination, exterior, FIN | ACK, b"");
        if fin_from_server_first {
            lab.inbound(&fin_in).sent_to(IN);
            lab.tcp_out(source, destination, FIN | ACK);
        } else {
            lab.tcp_out(source, destination, FIN | ACK);
            lab.inbound(&fin_in).sent_to(IN);
        }
        lab.pass(100);
        // The last ACK, late, still passes but does not prolong the session.
        lab.tcp_out(source, destination, ACK);
        lab.pass(140);
        assert_eq!(lab.gauge("sessions"), 1);
        lab.pass(1);
        assert_eq!(lab.gauge("sessions"), 0);
    }
}

#[test]
fn rfc5382_r5_half_closed_session_is_not_closed() {
    let mut lab = Lab::resolved(&config());
    let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
    lab.tcp_connect(source, destination);
    lab.tcp_out(source, destination, FIN | ACK);
    lab.pass(1000);
    assert_eq!(lab.gauge("sessions"), 1);
}

#[test]
fn rfc7857_s2_2_reset_is_translated_and_keeps_the_session_four_minutes() {
    for inbound in [false, true] {
        let mut lab = Lab::resolved(&config());
        let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
        let exterior = lab.tcp_connect(source, destination);
        if inbound {
            lab.inbound(&tcp(OUT, destination, exterior, RST, b"")).sent_to(IN);
        } else {
            lab.tcp_out(source, destination, RST);
        }
        lab.pass(240);
        assert_eq!(lab.gauge("sessions"), 1);
        lab.pass(1);
        assert_eq!(lab.gauge("sessions"), 0);
    }
}

#[test]
fn rfc7857_s2_2_forged_reset_does_not_end_a_session_in_use() {
    let mut lab = Lab::resolved(&config());
    let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
    let exterior = lab.tcp_connect(source, destination);
    lab.inbound(&tcp(OUT, destination, exterior, RST, b"")).sent_to(IN);
    lab.tcp_out(source, destination, ACK);
    lab.pass(7440);
    assert_eq!(lab.gauge("sessions"), 1);
}

#[test]
fn rfc5382_r5_socket_is_reused_for_a_new_connection() {
    let mut lab = Lab::resolved(&config());
    let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
    let exterior = lab.tcp_connect(source, destination);
    lab.inbound(&tcp(OUT, destination, exterior, FIN | ACK, b"")).sent_to(IN);
    lab.tcp_out(source, destination, FIN | ACK);
    assert_eq!(lab.tcp_connect(source, destination), exterior);
    lab.pass(7440);
    assert_eq!(lab.gauge("sessions"), 1, "the new connection is established");
}

#[test]
fn rfc5382_segments_of_unknown_connections_are_refused() {
    let mut lab = Lab::resolved(&config());
    let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
        lab.outbound(&tcp(IN, source, destination, flags, b"")).dropped(Drop::TcpNotSyn);
    }
    assert_eq!(lab.gauge("sessions"), 0);
}

#[test]
fn rfc6888_r4_sessions_per_subscriber_are_limited() {
    let mut lab = Lab::resolved(&Config { sessions_per_host_max: Some(3), ..config() });
    for port in 5000..5003 {
        lab.udp_out(socket(host(10), port), socket(server(10), 7));
    }
    lab.outbound(&udp(IN, socket(host(10), 5003), socket(server(10), 7), b"x")).dropped(Drop::HostSessionLimit);
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.udp_out(socket(host(11), 5003), socket(server(10), 7));
    lab.pass(301);
    lab.arp_reply(IN, host(10));
    lab.arp_reply(OUT, server(10));
    lab.udp_out(socket(host(10), 5003), socket(server(10), 7));
}

#[test]
fn rfc6888_r11_exhaustion_refuses_new_sessions_and_evicts_none() {
    let mut lab = Lab::resolved(&Config { port_first: 2000, port_last: 2009, ..config() });
    let exteriors: Vec<_> = (0..10).map(|i| lab.udp_out(socket(host(10), 5000 + i), socket(server(10), 7))).collect();
    let eleventh = udp(IN, socket(host(11), 5000), socket(server(10), 7), b"x");
    lab.outbound(&eleventh).dropped(Drop::PortsExhausted);
    for exterior in exteriors {
        lab.inbound(&udp(OUT, socket(server(10), 7), exterior, b"x")).sent_to(IN);
    }
    // TCP is not affected, nor are further sessions of mapped endpoints.
    lab.tcp_connect(socket(host(11), 5000), socket(server(10), 80));
    lab.udp_out(socket(host(10), 5000), socket(server(11), 7));
    // Ports of expired sessions are lent again.
    lab.pass(301);
    lab.arp_reply(OUT, server(10));
    lab.outbound(&eleventh).sent_to(OUT);
}

#[test]
fn rfc6888_r15_ports_are_chosen_at_random() {
    let ports = |seed| {
        let mut lab = Lab::with_seed(&config(), seed);
        lab.arp_reply(OUT, server(10));
        (0..50).map(|i| lab.udp_out(socket(host(10), 5000 + i), socket(server(10), 7)).port()).collect::<Vec<_>>()
    };
    let (one, two) = (ports(1), ports(2));
    assert_ne!(one, two);
    assert!(one.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count() < 5, "{one:?}");
}

#[test]
fn rfc3022_s4_1_udp_without_checksum_stays_without() {
    let mut lab = Lab::resolved(&config());
    let mut frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x");
    frame[40..42].fill(0);
    assert_eq!(lab.outbound(&frame).sent_to(OUT)[40..42], [0, 0]);
}

#[test]
fn rfc1812_s5_3_1_ttl_is_decremented_and_does_not_reach_zero() {
    let mut lab = Lab::resolved(&config());
    let frame = |ttl| with_ipv4(udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x"), |ip| ip[8] = ttl);
    for ttl in [0, 1] {
        lab.outbound(&frame(ttl)).dropped(Drop::TtlExpired);
    }
    assert_eq!(lab.gauge("sessions"), 0);
    let sent = lab.outbound(&frame(2)).sent_to(OUT);
    assert_eq!(sent[22], 1);
    assert_eq!(checksums(&sent), Some((true, true)));
    let exterior = ends(&sent).0;
    let reply = with_ipv4(udp(OUT, socket(server(10), 7), exterior, b"x"), |ip| ip[8] = 1);
    lab.inbound(&reply).dropped(Drop::TtlExpired);
}

#[test]
fn shards_lend_disjoint_ports() {
    let mut seen = BTreeSet::new();
    for id in 0..3 {
        let shard = Shard { id: ShardId(id), count: 3 };
        let small = Config { port_first: 2000, port_last: 2099, ..config() };
        let mut lab = Lab { nat: Nat::new(&small, shard, 5).unwrap(), bench: Bench::default() };
        lab.arp_reply(OUT, server(10));
        for i in 0..33 {
            let exterior = lab.udp_out(socket(host(10), 5000 + i), socket(server(10), 7));
            assert!(seen.insert(exterior.port()));
        }
    }
    assert_eq!((seen.len(), seen.first(), seen.last() <= Some(&2099)), (99, seen.first(), true));
    assert!(seen.first() >= Some(&2000));
}

#[test]
fn ports_in_use_are_known_as_soon_as_a_snapshot_has_arrived() {
    let mut lab = Lab::resolved(&Config { port_first: 2000, port_last: 2003, ..config() });
    let taken: BTreeSet<u16> =
        (5000..5003).map(|port| lab.udp_out(socket(host(10), port), socket(server(10), 7)).port()).collect();
    for first_statelet in [None, Some(7u32)] {
        let mut other = Lab::with_seed(&Config { port_first: 2000, port_last: 2003, ..config() }, 2);
        adopt(&mut other.nat, &lab.freeze());
        match first_statelet {
            // Before the switch redirects anything, so that the take-over itself is short.
            Some(ticks) => other.nat.install(0x0001, &ticks.to_be_bytes()).unwrap(),
            None => other.nat.take_over(other.bench.now),
        }
        assert_eq!(other.gauge("udp_ports_used"), 3);
        other.nat.take_over(other.bench.now);
        let fourth = other.udp_out(socket(host(11), 5000), socket(server(10), 7)).port();
        assert!(!taken.contains(&fourth));
        other.outbound(&udp(IN, socket(host(11), 5001), socket(server(10), 7), b"x")).dropped(Drop::PortsExhausted);
    }
}

#[test]
fn timers_go_on_at_another_host_where_they_were() {
    let mut lab = Lab::resolved(&config());
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.pass(200);
    let mut other = Lab::with_seed(&config(), 2);
    adopt(&mut other.nat, &lab.freeze());
    // The other host has been up for 5 ms only.
    other.bench.now = slim_core::time::Instant::from_millis(5);
    let before = digest(&mut other.nat);
    other.nat.take_over(other.bench.now);
    assert_eq!(digest(&mut other.nat), before);
    other.pass(100);
    assert_eq!(other.exterior_of(Protocol::Udp, socket(host(10), 5000)).map(|e| e.address), Some(EXTERIOR));
    other.pass(1);
    assert_eq!(other.gauge("sessions"), 0);
    other.bench.now += Duration::from_secs(1);
    other.tick();
}

fn with(filtering: Filtering) -> Lab {
    Lab::resolved(&Config { filtering, ..config() })
}

#[test]
fn rfc4787_r8_endpoint_independent_filtering_lets_everybody_in() {
    let mut lab = with(Filtering::EndpointIndependent);
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    let stranger = udp(OUT, socket(server(11), 99), exterior, b"x");
    assert_eq!(ends(&lab.inbound(&stranger).sent_to(IN)).1, socket(host(10), 5000));
    assert_eq!(lab.gauge("sessions"), 1, "a stranger's packet is no reason to keep anything");
    lab.pass(302);
    lab.inbound(&stranger).dropped(Drop::NoMapping);
}

#[test]
fn rfc4787_r8_address_dependent_filtering_lets_known_addresses_in() {
    let mut lab = with(Filtering::AddressDependent);
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.udp_out(socket(host(10), 5000), socket(server(10), 8));
    lab.inbound(&udp(OUT, socket(server(10), 99), exterior, b"x")).sent_to(IN);
    lab.inbound(&udp(OUT, socket(server(11), 7), exterior, b"x")).dropped(Drop::Filtered);
    // It is known as long as one of the sessions lasts.
    lab.pass(200);
    lab.udp_out(socket(host(10), 5000), socket(server(10), 8));
    lab.arp_reply(IN, host(10));
    lab.pass(150);
    assert_eq!(lab.gauge("sessions"), 1);
    lab.arp_reply(IN, host(10));
    lab.inbound(&udp(OUT, socket(server(10), 99), exterior, b"x")).sent_to(IN);
}

#[test]
fn rfc5382_r3_endpoint_independent_filtering_lets_connections_in() {
    let mut lab = with(Filtering::EndpointIndependent);
    let exterior = lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80));
    let stranger = socket(server(11), 4000);
    lab.inbound(&tcp(OUT, stranger, exterior, ACK, b"x")).dropped(Drop::Filtered);
    lab.inbound(&tcp(OUT, stranger, exterior, SYN, b"")).sent_to(IN);
    lab.inbound(&tcp(OUT, stranger, exterior, SYN, b"")).sent_to(IN);
    assert_eq!(lab.tcp_out(socket(host(10), 5000), stranger, SYN | ACK), exterior);
    lab.inbound(&tcp(OUT, stranger, exterior, ACK, b"x")).sent_to(IN);
    assert_eq!(lab.gauge("sessions"), 2);
    // Established from both sides: it outlives the transitory time-out.
    lab.pass(1000);
    lab.arp_reply(IN, host(10));
    lab.inbound(&tcp(OUT, stranger, exterior, ACK, b"x")).sent_to(IN);
}

#[test]
fn rfc5382_r5_inbound_connections_that_are_not_answered_last_four_minutes() {
    let mut lab = with(Filtering::EndpointIndependent);
    let exterior = lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80));
    lab.inbound(&tcp(OUT, socket(server(11), 4000), exterior, SYN, b"")).sent_to(IN);
    assert_eq!(lab.gauge("sessions"), 2);
    lab.pass(242);
    assert_eq!(lab.gauge("sessions"), 1);
}

#[test]
fn rfc4787_r9_rfc5382_r8_hairpins_show_the_exterior_endpoint() {
    let mut lab = with(Filtering::EndpointIndependent);
    let target = lab.udp_out(socket(host(11), 6000), socket(server(10), 7));
    let frame = lab.outbound(&udp(IN, socket(host(10), 5000), target, b"hello")).sent_to(IN);
    let (from, to) = ends(&frame);
    assert_eq!((*from.ip(), to), (EXTERIOR, socket(host(11), 6000)));
    assert_eq!(checksums(&frame), Some((true, true)));
    // The answer takes the same way back.
    let (answer_from, answer_to) = ends(&lab.outbound(&udp(IN, socket(host(11), 6000), from, b"hi")).sent_to(IN));
    assert_eq!((answer_from, answer_to), (target, socket(host(10), 5000)));
    for n in [10, 11] {
        let counted = lab.nat.host(host(n)).unwrap();
        assert_eq!((counted.packets_outbound, counted.packets_inbound), (if n == 10 { 1 } else { 2 }, 1), "{n}");
    }

    let target = lab.tcp_connect(socket(host(11), 6000), socket(server(10), 80));
    let frame = lab.outbound(&tcp(IN, socket(host(10), 5000), target, SYN, b"")).sent_to(IN);
    let (from, _) = ends(&frame);
    assert_eq!(checksums(&frame), Some((true, true)));
    lab.outbound(&tcp(IN, socket(host(11), 6000), from, SYN | ACK, b"")).sent_to(IN);
    lab.outbound(&tcp(IN, socket(host(10), 5000), target, ACK, b"x")).sent_to(IN);
}

#[test]
fn hairpins_obey_the_filter() {
    let mut lab = Lab::resolved(&config());
    let target = lab.udp_out(socket(host(11), 6000), socket(server(10), 7));
    let before = digest(&mut lab.nat);
    lab.outbound(&udp(IN, socket(host(10), 5000), target, b"hello")).dropped(Drop::Filtered);
    lab.outbound(&udp(IN, socket(host(10), 5000), socket(EXTERIOR, target.port() ^ 1), b"x")).dropped(Drop::NoMapping);
    lab.outbound(&udp(IN, socket(host(11), 6000), target, b"x")).dropped(Drop::DestinationInvalid);
    assert_eq!(digest(&mut lab.nat), before);
}
