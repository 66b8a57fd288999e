//! Bytes from outside: random frames, damaged frames, and statelets and snapshots of a faulty peer.

mod common;

use common::*;
use core::cell::Cell;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use slim_core::nf::{InstallError, NetworkFunction, PortId};
use slim_core::packet::{OwnedPacket, PacketBuf};
use slim_core::time::{Duration, Instant};
use slim_nat::statelet::Statelet;
use slim_nat::types::{Endpoint, Protocol, SessionId};
use slim_nat::{Config, Drop};

fn small() -> Config {
    Config { sessions_max: 30, hosts_max: 5, arp_entries_max: 50, port_first: 2000, port_last: 2015, ..config() }
}

/// A NAT with a session of each protocol in every state of its life.
fn busy() -> Lab {
    let mut lab = Lab::resolved(&small());
    let destination = socket(server(10), 80);
    lab.udp_out(socket(host(10), 5000), destination);
    for port in 5000..5004 {
        lab.tcp_connect(socket(host(11), port), destination);
    }
    lab.tcp_out(socket(host(11), 5001), destination, FIN | ACK);
    lab.tcp_out(socket(host(11), 5002), destination, RST);
    lab.tcp_out(socket(host(11), 5009), destination, SYN);
    lab
}

/// Frames that are not quite random: mostly valid ones for the sessions of [`busy`], with some bytes replaced.
fn frames() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let valid = (any::<bool>(), any::<bool>(), 9u8..13, 4999u16..5011, any::<u8>(), 0usize..40).prop_map(
        |(inbound, is_tcp, n, port, flags, len)| {
            let payload = vec![0x5a; len];
            let (source, destination, on) = if inbound {
                (socket(server(10), 80), socket(EXTERIOR, 2000 + port % 16), OUT)
            } else {
                (socket(host(n), port), socket(server(n), 80), IN)
            };
            let frame = if is_tcp {
                tcp(on, source, destination, flags, &payload)
            } else {
                udp(on, source, destination, &payload)
            };
            (inbound, frame)
        },
    );
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let damaged = (valid, damage, any::<bool>(), prop::option::weighted(0.1, 0usize..90)).prop_map(
        |((inbound, mut frame), damage, corrected, cut)| {
            for (index, byte) in damage {
                let at = index.index(frame.len());
                frame[at] = byte;
            }
            if corrected && frame.len() >= 34 {
                frame = with_ipv4(frame, |_| ());
            }
            frame.truncate(cut.unwrap_or(usize::MAX));
            (inbound, frame)
        },
    );
    let noise = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..120));
    prop_oneof![6 => damaged, 1 => noise]
}

#[test]
fn no_frame_panics_or_leaves_with_a_checksum_worse_than_it_came() {
    let translated = [Cell::new(0), Cell::new(0)];
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&prop::collection::vec(frames(), 1..60), |frames| {
        let mut lab = busy();
        for (inbound, frame) in frames {
            lab.bench.emitted.clear();
            let outcome = lab.deliver(if inbound { OUT } else { IN }, &frame);
            prop_assert!(lab.bench.emitted.len() <= 1);
            let Outcome::Sent(_, sent) = outcome else { continue };
            prop_assert_eq!(sent.len(), frame.len());
            if sent[12..14] == [8, 0] {
                let (_, arrived) = checksums(&frame).unwrap();
                prop_assert_eq!(checksums(&sent), Some((true, arrived)));
                prop_assert!(sent[22] > 0 && sent[22] == frame[22] - 1, "time to live");
                let count = &translated[usize::from(inbound)];
                count.set(count.get() + 1);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let translated = translated.map(Cell::into_inner);
    assert!(translated.iter().all(|count| *count > 200), "too few frames got through: {translated:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_statelet_panics_or_breaks_what_works(
        statelets in prop::collection::vec(
            (0u16..0x40, prop::collection::vec(any::<u8>(), 0..24)), 1..60
        )
    ) {
        let mut lab = busy();
        for (statelet_type, value) in statelets {
            let before = digest(&mut lab.nat);
            if lab.nat.install(statelet_type, &value).is_err() {
                prop_assert_eq!(digest(&mut lab.nat), before, "a refused statelet has changed the state");
            }
        }
        still_works(&mut lab);
    }

    /// As above, but with statelets that make sense one by one.
    #[test]
    fn no_plausible_statelet_panics_or_breaks_what_works(statelets in prop::collection::vec(plausible(), 1..100)) {
        let mut lab = busy();
        for statelet in statelets {
            let encoded = statelet.encode();
            let before = digest(&mut lab.nat);
            match lab.nat.install(encoded.statelet_type(), encoded.value()) {
                Ok(()) => {}
                Err(InstallError::Malformed { .. } | InstallError::UnknownType(_)) => {
                    prop_assert!(false, "{:?} is well-formed", statelet);
                }
                Err(InstallError::TableFull { .. } | InstallError::Inconsistent(_)) => {
                    prop_assert_eq!(digest(&mut lab.nat), before, "a refused statelet has changed the state");
                }
            }
            let ports = lab.gauge("udp_ports_used") + lab.gauge("tcp_ports_used") + lab.gauge("icmp_identifiers_used");
            prop_assert_eq!(lab.gauge("mappings"), ports);
        }
        still_works(&mut lab);
    }

    #[test]
    fn statelets_round_trip(statelet in plausible()) {
        let encoded = statelet.encode();
        prop_assert_eq!(Statelet::decode(encoded.statelet_type(), encoded.value()), Ok(statelet));
        for len in [encoded.value().len() - 1, encoded.value().len() + 1] {
            let mut value = encoded.value().to_vec();
            value.resize(len, 0);
            let malformed = InstallError::Malformed { statelet_type: encoded.statelet_type(), len };
            prop_assert_eq!(Statelet::decode(encoded.statelet_type(), &value), Err(malformed));
        }
    }
}

/// Opens a session, or is refused for a documented reason, and lets everything expire.
fn still_works(lab: &mut Lab) {
    lab.nat.take_over(lab.bench.now);
    for n in 10..13 {
        lab.arp_reply(IN, host(n));
        lab.arp_reply(OUT, server(n));
        match lab.outbound(&udp(IN, socket(host(n), 6000), socket(server(n), 7), b"x")) {
            Outcome::Sent(_, frame) => {
                let reply = udp(OUT, socket(server(n), 7), ends(&frame).0, b"x");
                let sent = lab.inbound(&reply).sent_to(IN);
                assert_eq!(ends(&sent).1, socket(host(n), 6000));
            }
            Outcome::Dropped(Drop::SessionsFull | Drop::HostsFull | Drop::PortsExhausted | Drop::ArpPending) => {}
            other => panic!("{other:?}"),
        }
    }
    lab.pass(7441);
    lab.pass(86_401);
    for table in ["sessions", "mappings", "udp_ports_used", "tcp_ports_used"] {
        assert_eq!(lab.gauge(table), 0, "{table}");
    }
}

fn plausible() -> impl Strategy<Value = Statelet> {
    use slim_nat::tcp::TcpState;
    use slim_nat::types::{Direction, Side};
    let protocol = || prop::sample::select(Protocol::ALL.to_vec());
    let id = || {
        (protocol(), 2000u16..2006, 10u8..13, prop::sample::select(vec![7u16, 80])).prop_map(
            |(protocol, port, n, server_port)| SessionId {
                protocol,
                exterior: Endpoint::new(EXTERIOR, port),
                server: Endpoint::new(server(n), server_port),
            },
        )
    };
    let side = || prop::sample::select(Side::ALL.to_vec());
    let address = || (9u8..14).prop_map(host);
    prop_oneof![
        1 => (0u32..100).prop_map(Statelet::Clock),
        6 => (id(), address(), 5000u16..5004)
            .prop_map(|(id, address, port)| Statelet::Session { id, interior: Endpoint::new(address, port) }),
        2 => id().prop_map(Statelet::Refresh),
        3 => id().prop_map(Statelet::Close),
        2 => (id(), prop::sample::select(TcpState::ALL.to_vec()))
            .prop_map(|(id, state)| Statelet::TcpState(SessionId { protocol: Protocol::Tcp, ..id }, state)),
        1 => (side(), address(), any::<[u8; 6]>())
            .prop_map(|(side, address, mac)| Statelet::Arp { side, address, mac: slim_core::packet::MacAddr(mac) }),
        1 => (side(), address()).prop_map(|(side, address)| Statelet::ArpGone { side, address }),
        2 => (any::<bool>(), address(), 1u16..4, 0u64..100_000).prop_map(|(out, address, packets, total_bytes)| {
            let direction = if out { Direction::Outbound } else { Direction::Inbound };
            Statelet::Count { direction, address, packets, total_bytes }
        }),
        1 => address().prop_map(Statelet::HostGone),
    ]
}

#[test]
fn counters_detect_lost_and_reordered_statelets() {
    let count = |packets: u16, total: u64| {
        let mut value = host(10).octets().to_vec();
        value.extend_from_slice(&packets.to_be_bytes());
        value.extend_from_slice(&total.to_be_bytes()[2..]);
        value
    };
    let mut lab = busy();
    let total = lab.nat.host(host(10)).unwrap().bytes_outbound;
    let mut install = |packets, total| lab.nat.install(0x0030, &count(packets, total));
    let inconsistent = Err(InstallError::Inconsistent(0x0030));
    assert_eq!(install(1, total + 100), Ok(()));
    assert_eq!(install(1, total + 100), inconsistent, "twice");
    assert_eq!(install(1, total + 50), inconsistent, "backwards");
    assert_eq!(install(1, total + 100 + 65_536), inconsistent, "more than a packet");
    assert_eq!(install(1, total + 100 + 65_535), Ok(()));
    let total = total + 100 + 65_535;
    assert_eq!(install(2, total + 1), inconsistent, "less than two packets");
    assert_eq!(install(2, total + 2 * 65_535 + 1), inconsistent, "more than two packets");
    assert_eq!(install(2, total + 2 * 65_535), Ok(()));
    assert!(matches!(install(0, total + 3 * 65_535), Err(InstallError::Malformed { .. })), "no packet");
    assert_eq!(lab.nat.host(host(10)).unwrap().packets_outbound, 5);
    let mut value = count(1, total);
    value[3] = 99;
    assert_eq!(lab.nat.install(0x0030, &value), inconsistent, "unknown host");
}

#[test]
fn sessions_that_contradict_the_state_are_refused() {
    let mut lab = busy();
    let taken = lab.exterior_of(Protocol::Udp, socket(host(10), 5000)).unwrap();
    let server = Endpoint::new(server(20), 7);
    let mut install = |interior: Endpoint, exterior: Endpoint, server: Endpoint| {
        let id = SessionId { protocol: Protocol::Udp, exterior, server };
        let encoded = Statelet::Session { id, interior }.encode();
        lab.nat.install(encoded.statelet_type(), encoded.value())
    };
    let refused = Err(InstallError::Inconsistent(0x0010));
    let (known, other) = (Endpoint::new(host(10), 5000), Endpoint::new(host(12), 5000));
    let free = Endpoint::new(EXTERIOR, if taken.port == 2000 { 2001 } else { 2000 });
    assert_eq!(install(other, taken, server), refused, "the port is another's");
    assert_eq!(install(known, free, server), refused, "the endpoint is mapped to another port");
    assert_eq!(install(other, Endpoint::new(EXTERIOR, 80), server), refused, "not in the port range");
    assert_eq!(install(other, Endpoint::new(GATEWAY, 2000), server), refused, "not the exterior address");
    assert_eq!(install(Endpoint::new(GATEWAY, 5), free, server), refused, "not an interior host");
    assert_eq!(install(Endpoint::new(INTERIOR, 5), free, server), refused, "the NAT itself");
    assert_eq!(install(other, free, Endpoint::new([224, 0, 0, 1].into(), 7)), refused, "not a server");
    assert_eq!(install(other, free, server), Ok(()));
    assert_eq!(install(other, free, server), refused, "twice");
    assert_eq!(install(known, taken, server), Ok(()));
}

/// Every table is valid by itself, but they are of different instants and do not fit together.
#[test]
fn snapshot_whose_tables_contradict_each_other_is_survived() {
    let (mut one, mut two) = (busy(), Lab::resolved(&small()));
    two.udp_out(socket(host(12), 7000), socket(server(11), 7));
    for mixture in 0..1u32 << 7 {
        let parts: Vec<_> = one
            .freeze()
            .into_iter()
            .zip(two.freeze())
            .enumerate()
            .map(|(i, (from_one, from_two))| if mixture & 1 << i == 0 { from_one } else { from_two })
            .collect();
        let mut victim = Lab::with_seed(&small(), 9);
        adopt(&mut victim.nat, &parts);
        victim.nat.take_over(victim.bench.now);
        for n in 10..13 {
            for port in [5000, 5001, 5002, 5009, 7000] {
                let (source, destination) = (socket(host(n), port), socket(server(10), 80));
                victim.deliver(IN, &tcp(IN, source, destination, SYN, b""));
                victim.deliver(IN, &udp(IN, source, destination, b"x"));
            }
            for port in 2000..2016 {
                victim.deliver(OUT, &udp(OUT, socket(server(n), 7), socket(EXTERIOR, port), b"x"));
            }
        }
        victim.pass(7441);
        victim.pass(86_401);
        assert_eq!(victim.gauge("sessions"), 0);
    }
}

#[test]
fn time_that_jumps_or_goes_back_is_survived() {
    let mut lab = busy();
    let frame = udp(IN, socket(host(10), 5000), socket(server(10), 80), b"x");
    for nanos in [0, u64::MAX, 5, u64::MAX / 2, u64::MAX] {
        lab.bench.now = Instant::from_nanos(nanos);
        lab.deliver(IN, &frame);
        lab.sweep();
    }
    lab.bench.now += Duration::from_secs(10);
    lab.sweep();
    let mut packet = OwnedPacket::from(frame.as_slice());
    lab.nat.process(&mut lab.bench, PortId(255), &mut packet);
    assert_eq!(packet.bytes(), frame);
}
