//! Full tables, expiry, and that nothing is left behind.

mod common;

use common::*;
use proptest::prelude::*;
use slim_core::nf::NetworkFunction;
use slim_core::table::ScanCursor;
use slim_core::time::Duration;
use slim_nat::config::Filtering::EndpointIndependent;
use slim_nat::{Config, Drop, Nat};

#[test]
fn full_session_table_refuses_new_sessions_and_keeps_the_others() {
    let mut lab = Lab::resolved(&Config { sessions_max: 5, ..config() });
    let destination = socket(server(10), 7);
    let exteriors: Vec<_> = (0..5).map(|i| lab.udp_out(socket(host(10), 5000 + i), destination)).collect();
    let before = digest(&mut lab.nat);
    for port in 5005..5010 {
        lab.outbound(&udp(IN, socket(host(10), port), destination, b"x")).dropped(Drop::SessionsFull);
    }
    lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(11), 7), b"x")).dropped(Drop::SessionsFull);
    assert_eq!(digest(&mut lab.nat), before, "a refusal leaves nothing behind");
    assert_eq!(lab.gauge("udp_ports_used"), 5);
    for (i, exterior) in exteriors.into_iter().enumerate() {
        assert_eq!(lab.udp_out(socket(host(10), 5000 + i as u16), destination), exterior);
    }
}

#[test]
fn full_host_table_refuses_new_hosts_and_keeps_the_others() {
    let mut lab = Lab::resolved(&Config { hosts_max: 2, ..config() });
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.udp_out(socket(host(11), 5000), socket(server(10), 7));
    let before = digest(&mut lab.nat);
    lab.outbound(&udp(IN, socket(host(12), 5000), socket(server(10), 7), b"x")).dropped(Drop::HostsFull);
    assert_eq!(digest(&mut lab.nat), before, "a refusal leaves nothing behind");
    assert_eq!((lab.gauge("udp_ports_used"), lab.gauge("mappings"), lab.gauge("sessions")), (2, 2, 2));
    lab.udp_out(socket(host(11), 5001), socket(server(10), 7));
}

#[test]
fn hosts_stay_for_their_counters_and_then_go() {
    let mut lab = Lab::resolved(&Config { host_timeout_s: 1000, ..config() });
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.inbound(&udp(OUT, socket(server(10), 7), exterior, b"reply!!!")).sent_to(IN);
    let traffic = *lab.nat.host(host(10)).unwrap();
    assert_eq!((traffic.packets_outbound, traffic.bytes_outbound), (1, 35));
    assert_eq!((traffic.packets_inbound, traffic.bytes_inbound), (1, 36));
    lab.pass(1000);
    assert_eq!((lab.gauge("sessions"), lab.gauge("hosts")), (0, 1));
    assert_eq!(
        lab.nat.hosts().map(|(address, host)| (address, host.bytes_outbound)).collect::<Vec<_>>(),
        [(host(10), 35)]
    );
    lab.pass(1);
    assert_eq!(lab.gauge("hosts"), 0);
}

#[test]
fn every_subscriber_is_listed_once_with_its_counters() {
    let mut lab = Lab::resolved(&Config { hosts_max: 1000, sessions_max: 1000, ..config() });
    for number in 10..250 {
        for port in 0..u16::from(number % 3) + 1 {
            lab.udp_out(socket(host(number), 5000 + port), socket(server(10), 7));
        }
    }
    let mut cursor = ScanCursor::default();
    let (mut pages, mut listed) = (0, Vec::new());
    loop {
        let page = lab.nat.subscribers(&mut cursor);
        pages += 1;
        listed.extend(page);
        if cursor == ScanCursor::default() {
            break;
        }
        // What it is on its way to an operator and back.
        cursor = ScanCursor::from_number(cursor.number());
    }
    assert!(pages > 1);
    listed.sort_by_key(|subscriber| subscriber.address);
    let addresses: Vec<_> = listed.iter().map(|subscriber| subscriber.address).collect();
    assert_eq!(addresses, (10..250).map(host).collect::<Vec<_>>());
    let of = |name| Nat::SUBSCRIBER_COUNTERS.iter().position(|counter| *counter == name).unwrap();
    for (subscriber, number) in listed.iter().zip(10u64..) {
        let sessions = number % 3 + 1;
        assert_eq!(subscriber.counters[of("sessions")], sessions);
        assert_eq!(subscriber.counters[of("ports")], sessions);
        assert_eq!(subscriber.counters[of("packets_outbound")], sessions);
        assert_eq!(subscriber.counters[of("bytes_inbound")], 0);
    }
    // A place that is nowhere begins anew.
    let mut nowhere = ScanCursor::from_number(u64::MAX);
    assert!(!lab.nat.subscribers(&mut nowhere).is_empty());
}

#[test]
fn host_time_runs_from_the_last_packet_of_either_direction() {
    for inbound in [false, true] {
        let mut lab = Lab::resolved(&Config { host_timeout_s: 1000, ..config() });
        let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
        lab.pass(250);
        if inbound {
            lab.inbound(&udp(OUT, socket(server(10), 7), exterior, b"reply")).sent_to(IN);
        } else {
            lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
        }
        lab.pass(1000);
        assert_eq!((lab.gauge("sessions"), lab.gauge("hosts")), (0, 1));
        lab.pass(1);
        assert_eq!(lab.gauge("hosts"), 0);
    }
}

#[test]
fn padding_is_not_counted() {
    let mut lab = Lab::resolved(&config());
    let mut frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), b"");
    frame.resize(60, 0);
    assert_eq!(lab.outbound(&frame).sent_to(OUT).len(), 60);
    assert_eq!(lab.nat.host(host(10)).unwrap().bytes_outbound, 28);
}

#[test]
fn expiry_is_bounded_per_call_and_complete_in_the_end() {
    let config = Config { sessions_max: 2000, ..config() };
    let mut lab = Lab::resolved(&config);
    for i in 0..2000 {
        lab.udp_out(socket(host(10 + (i % 20) as u8), 5000 + i), socket(server(10), 7));
    }
    lab.bench.upd_enable = true;
    lab.bench.now += Duration::from_secs(301);
    let mut calls = 0;
    while lab.gauge("sessions") > 0 {
        let before = lab.gauge("sessions");
        lab.tick();
        assert!(before - lab.gauge("sessions") <= 32);
        calls += 1;
        assert!(calls < 1000, "expiry makes no progress");
    }
    let closed = lab.statelets().iter().filter(|(statelet_type, _)| *statelet_type == 0x0014).count();
    assert_eq!(closed, 2000);
    assert_eq!((lab.gauge("mappings"), lab.gauge("udp_ports_used")), (0, 0));
}

#[test]
fn expiry_announces_nothing_while_nobody_listens_and_nothing_expires() {
    let mut lab = Lab::resolved(&config());
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.bench.upd_enable = true;
    lab.pass(10);
    let types: Vec<u16> = lab.statelets().iter().map(|(statelet_type, _)| *statelet_type).collect();
    assert_eq!(types, [0x0001], "the clock alone");
}

#[test]
fn ports_run_out_and_come_back_many_times() {
    let config = Config { port_first: 50_000, port_last: 50_063, sessions_max: 64, ..config() };
    let mut lab = Lab::resolved(&config);
    for _ in 0..5 {
        let mut ports: Vec<u16> =
            (0..64).map(|i| lab.udp_out(socket(host(10), 5000 + i), socket(server(10), 7)).port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, (50_000..=50_063).collect::<Vec<_>>());
        lab.pass(301);
        assert_eq!(lab.gauge("udp_ports_used"), 0);
        lab.arp_reply(OUT, server(10));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever has happened: when everybody has been silent for long enough, all tables are empty and all ports free.
    #[test]
    fn nothing_is_left_when_everything_has_expired(
        steps in prop::collection::vec((any::<u8>(), 10u8..14, 0u16..6, 10u8..13, any::<bool>(), 0u64..400), 1..120),
    ) {
        let config = Config {
            sessions_max: 20, hosts_max: 3, arp_entries_max: 12, port_first: 2000, port_last: 2009,
            host_timeout_s: 600, ..config()
        };
        let mut lab = Lab::resolved(&config);
        for (flags, n, port, to, is_tcp, seconds) in steps {
            lab.arp_reply(OUT, server(to));
            lab.arp_reply(IN, host(n));
            let (source, destination) = (socket(host(n), 5000 + port), socket(server(to), 80));
            let sent = if is_tcp {
                lab.outbound(&tcp(IN, source, destination, flags & 0x17, b""))
            } else {
                lab.outbound(&udp(IN, source, destination, b"x"))
            };
            if let Outcome::Sent(_, frame) = sent {
                let exterior = ends(&frame).0;
                let reply = if is_tcp {
                    tcp(OUT, destination, exterior, SYN | ACK, b"")
                } else {
                    udp(OUT, destination, exterior, b"x")
                };
                lab.inbound(&reply);
            }
            if flags & 0x80 != 0 {
                lab.pass(seconds);
            }
            let (mappings, ports) =
                (lab.gauge("mappings"), lab.gauge("udp_ports_used") + lab.gauge("tcp_ports_used"));
            prop_assert_eq!(mappings, ports);
            prop_assert!(lab.gauge("sessions") >= mappings);
        }
        lab.pass(7441);
        lab.pass(601);
        for table in ["sessions", "mappings", "hosts", "arp_entries", "udp_ports_used", "tcp_ports_used"] {
            prop_assert_eq!(lab.gauge(table), 0, "{}", table);
        }
    }
}

#[test]
fn rfc6888_r5_sessions_per_mapping_are_limited() {
    let mut lab =
        Lab::resolved(&Config { sessions_per_mapping_max: Some(3), filtering: EndpointIndependent, ..config() });
    for n in 10..13 {
        lab.udp_out(socket(host(10), 5000), socket(server(n), 7));
    }
    let before = digest(&mut lab.nat);
    lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(13), 7), b"x")).dropped(Drop::MappingSessionLimit);
    assert_eq!(read_icmp(&lab.bench.emitted.pop().unwrap().1).kind, (3, 13), "RFC 5508 R8");
    assert_eq!(digest(&mut lab.nat), before, "a refusal leaves nothing behind");
    lab.udp_out(socket(host(10), 5000), socket(server(12), 7));
    lab.udp_out(socket(host(10), 5001), socket(server(13), 7));
    // Whoever is outside cannot take more of a host's memory than that either.
    let exterior = lab.tcp_out(socket(host(11), 5000), socket(server(10), 80), SYN);
    for n in 11..13 {
        lab.inbound(&tcp(OUT, socket(server(n), 80), exterior, SYN, b"")).sent_to(IN);
    }
    lab.inbound(&tcp(OUT, socket(server(13), 80), exterior, SYN, b"")).dropped(Drop::MappingSessionLimit);
}
