//! The law, f(s, p) == h(s, g(s, p)) (§III), over random traffic through a NAT with small tables.

mod common;

use common::*;
use core::cell::RefCell;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use slim_core::nf::law::{self, Step};
use slim_core::nf::testing::TestEnvironment;
use slim_core::nf::{NetworkFunction, Shard, Verdict};
use slim_core::packet::{ArpOperation, MacAddr, OwnedPacket};
use slim_core::time::{Duration, Instant};
use slim_nat::config::{Filtering, Pooling};
use slim_nat::rules::Action;
use slim_nat::types::Protocol;
use slim_nat::{Config, Drop, Nat};
use std::collections::BTreeMap;

/// Small enough that every table fills up, and that a guessed exterior port is often the right one.
fn small(filtering: Filtering) -> Config {
    Config {
        filtering,
        sessions_max: 12,
        hosts_max: 3,
        arp_entries_max: 9,
        fragment_trains_max: 6,
        fragments_held_max: 6,
        fragment_timeout_s: 15,
        sessions_per_host_max: Some(6),
        port_first: 2000,
        port_last: 2004,
        interior_mtu: 400,
        exterior_mtu: 300,
        host_timeout_s: 400,
        ..config()
    }
}

fn configs() -> impl Strategy<Value = Config> {
    let filterings = prop::sample::select(vec![
        Filtering::EndpointIndependent,
        Filtering::AddressDependent,
        Filtering::AddressAndPortDependent,
    ]);
    let pools = prop::sample::select(vec![None, Some(Pooling::Paired), Some(Pooling::Arbitrary)]);
    let switches = (prop::bool::weighted(0.3), any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.3));
    let more = (any::<bool>(), prop::option::weighted(0.3, 2u32..4));
    (filterings, pools, switches, more).prop_map(
        |(filtering, pooling, (few_ports, port_parity, forwards, excludes, blocks), (preserves, per_mapping))| {
            let mut config = match pooling {
                None => small(filtering),
                Some(address_pooling) => pooled(Config { address_pooling, ..small(filtering) }),
            };
            if forwards {
                config.forward = vec![forward(Protocol::Udp, 2001, 10, 5000), forward(Protocol::Tcp, 80, 11, 5001)];
            }
            if excludes {
                config.exclude = vec![
                    exclusion(Action::Exempt, Some(host(13)), Some(server(10)), ""),
                    exclusion(Action::Deny, Some(host(12)), None, "81"),
                ];
            }
            if blocks && config.address_pooling == Pooling::Paired {
                (config.port_block_size, config.port_blocks_per_host_max) = (Some(2), 2);
            }
            Config {
                ports_per_host_max: few_ports.then_some(3),
                sessions_per_mapping_max: per_mapping,
                port_parity,
                port_preservation: preserves,
                ..config
            }
        },
    )
}

fn packets() -> impl Strategy<Value = (slim_core::nf::PortId, Vec<u8>)> {
    let hosts = || (10u8..14).prop_map(host);
    let servers = || prop_oneof![4 => (10u8..12).prop_map(server), 1 => Just([198, 51, 100, 9].into())];
    let flags = || {
        prop_oneof![
            20 => prop::sample::select(vec![SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]),
            1 => any::<u8>(),
        ]
    };
    let udp_out = (hosts(), 5000u16..5003, servers(), 80u16..82)
        .prop_map(|(host, port, server, to)| (IN, udp(IN, socket(host, port), socket(server, to), b"out")));
    let exteriors = || prop::sample::select(vec![EXTERIOR, EXTERIOR, EXTERIOR_2, EXTERIOR_3]);
    let ports = || prop_oneof![9 => 2000u16..2005, 1 => Just(80)];
    let udp_in = (servers(), 80u16..82, exteriors(), ports())
        .prop_map(|(server, from, to, port)| (OUT, udp(OUT, socket(server, from), socket(to, port), b"inbound")));
    let tcp_out =
        (hosts(), 5000u16..5003, servers(), 80u16..82, flags()).prop_map(|(host, port, server, to, flags)| {
            (IN, tcp(IN, socket(host, port), socket(server, to), flags, b"out"))
        });
    let tcp_in = (servers(), 80u16..82, exteriors(), ports(), flags()).prop_map(|(server, from, to, port, flags)| {
        (OUT, tcp(OUT, socket(server, from), socket(to, port), flags, b"in"))
    });
    let untranslated = (servers(), hosts())
        .prop_map(|(server, host)| (OUT, udp(OUT, socket(server, 80), socket(host, 5000), b"inbound")));
    let operation = || prop::sample::select(vec![ArpOperation::Request, ArpOperation::Reply]);
    let mac =
        |address: core::net::Ipv4Addr, other: bool| if other { MacAddr([2, 9, 9, 9, 9, 9]) } else { mac_of(address) };
    let arp_in = (operation(), hosts(), prop::bool::weighted(0.1), prop::bool::weighted(0.8)).prop_map(
        move |(operation, host, other, to_nat)| {
            (IN, arp(IN, operation, mac(host, other), host, if to_nat { INTERIOR } else { host }))
        },
    );
    let neighbours = || prop_oneof![(10u8..16).prop_map(server), Just(GATEWAY), exteriors()];
    let arp_out = (operation(), neighbours(), prop::bool::weighted(0.1), prop::bool::weighted(0.8)).prop_map(
        move |(operation, neighbour, other, to_nat)| {
            (OUT, arp(OUT, operation, mac(neighbour, other), neighbour, if to_nat { EXTERIOR } else { neighbour }))
        },
    );
    let query = (hosts(), servers(), 5000u16..5002, any::<bool>()).prop_map(|(host, server, ident, echo_type)| {
        (IN, echo(IN, host, server, if echo_type { 8 } else { 13 }, ident))
    });
    let reply =
        (servers(), exteriors(), 2000u16..2005).prop_map(|(server, to, ident)| (OUT, echo(OUT, server, to, 0, ident)));
    let error_in = (servers(), exteriors(), 2000u16..2005, servers()).prop_map(|(from, to, port, server)| {
        let about = udp(OUT, socket(to, port), socket(server, 80), b"out");
        (OUT, icmp(OUT, from, to, (3, 1, [0; 4]), &about[14..]))
    });
    let error_out = (hosts(), servers(), 5000u16..5003).prop_map(|(host, server, port)| {
        let about = udp(IN, socket(server, 80), socket(host, port), b"inbound");
        (IN, icmp(IN, host, server, (3, 3, [0; 4]), &about[14..]))
    });
    let hairpin = (hosts(), 5000u16..5003, exteriors(), ports(), any::<bool>(), flags()).prop_map(
        |(host, port, exterior, to, over_tcp, flags)| {
            let (from, to) = (socket(host, port), socket(exterior, to));
            (IN, if over_tcp { tcp(IN, from, to, flags, b"pin") } else { udp(IN, from, to, b"pin") })
        },
    );
    let fragment =
        (hosts(), servers(), any::<bool>(), 0u8..4, 1u16..3).prop_map(|(host, server, out, place, ident)| {
            let (port, frame) = if out {
                (IN, udp(IN, socket(host, 5000), socket(server, 80), &[1; 40]))
            } else {
                (OUT, udp(OUT, socket(server, 80), socket(EXTERIOR, 2000 + u16::from(place)), &[1; 40]))
            };
            let place = place % 3;
            let mut cut = frame[..34].to_vec();
            cut.extend_from_slice(&frame[34 + 16 * usize::from(place)..][..16]);
            let more = if place < 2 { 0x20 } else { 0 };
            (
                port,
                with_ipv4(cut, |ip| {
                    ip[2..4].copy_from_slice(&36u16.to_be_bytes());
                    ip[4..6].copy_from_slice(&ident.to_be_bytes());
                    ip[6..8].copy_from_slice(&[more, 2 * place]);
                }),
            )
        });
    // Some may be fragmented, some not.
    let long =
        (hosts(), servers(), any::<bool>(), any::<bool>(), 200usize..1400).prop_map(|(host, server, out, may, len)| {
            let (port, frame) = if out {
                (IN, udp(IN, socket(host, 5000), socket(server, 80), &vec![1; len]))
            } else {
                (OUT, udp(OUT, socket(server, 80), socket(EXTERIOR, 2000), &vec![1; len]))
            };
            (port, with_ipv4(frame, |ip| ip[6] = if may { 0 } else { 0x40 }))
        });
    let noise = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(inbound, bytes)| (if inbound { OUT } else { IN }, bytes));
    prop_oneof![5 => udp_out, 4 => udp_in, 6 => tcp_out, 5 => tcp_in, 3 => arp_in, 4 => arp_out, 1 => noise, 1 => untranslated,
        2 => query, 2 => reply, 1 => error_in, 1 => error_out, 4 => hairpin, 5 => fragment, 2 => long]
}

/// A life or a part of it: a TCP connection, opened from either side or from both, that ends by FIN, by RST or never.
///
/// Where ports are preserved it is translated; elsewhere its inbound half meets whoever has the port.
fn life() -> impl Strategy<Value = Vec<(slim_core::nf::PortId, Vec<u8>)>> {
    const OPENINGS: [&[(bool, u8)]; 4] = [
        &[(true, SYN), (false, SYN | ACK), (true, ACK)],
        &[(true, SYN), (false, SYN), (true, SYN | ACK), (false, SYN | ACK)],
        &[(true, SYN), (true, SYN), (false, RST | ACK)],
        // From outside to a port that another connection has been opened from.
        &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, SYN), (true, SYN | ACK), (false, ACK)],
    ];
    const ENDS: [&[(bool, u8)]; 6] = [
        &[],
        &[(true, FIN | ACK), (false, ACK), (false, FIN | ACK), (true, ACK)],
        &[(false, FIN | ACK), (true, ACK), (true, FIN | ACK), (false, ACK)],
        &[(true, FIN | ACK), (false, FIN | ACK)],
        &[(false, RST)],
        &[(true, RST), (true, ACK)],
    ];
    let ends = (10u8..13, 2000u16..2005, 10u8..12, 80u16..82);
    let parts = (prop::sample::select(OPENINGS.to_vec()), 0usize..4, prop::sample::select(ENDS.to_vec()), 0usize..16);
    (ends, parts).prop_map(|((host_number, port, server_number, to), (opening, data, end, len))| {
        let (inside, outside) = (socket(host(host_number), port), socket(server(server_number), to));
        let data = [(true, ACK), (false, ACK)].into_iter().cycle().take(data);
        let segments = opening.iter().copied().chain(data).chain(end.iter().copied());
        let frame = |(out, flags)| {
            let exterior = socket(EXTERIOR, port);
            if out {
                (IN, tcp(IN, inside, outside, flags, b""))
            } else {
                (OUT, tcp(OUT, outside, exterior, flags, b""))
            }
        };
        segments.take(len + 1).map(frame).collect()
    })
}

/// Runs differ in how long their longest pauses are, so that in some of them tables fill up and in others they empty.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let longest_s = prop_oneof![4 => Just(2u64), 2 => Just(20), 2 => Just(400), 1 => Just(8000)];
    let steps = longest_s.prop_flat_map(|longest_s| {
        let pause = prop_oneof![
            9 => (0u64..50).prop_map(Duration::from_millis),
            1 => (0u64..longest_s).prop_map(Duration::from_secs),
        ];
        let step = (pause, prop::option::weighted(0.95, packets()));
        let steps = prop::collection::vec(step.prop_map(|(pause, packet)| Step { pause, packet }), 1..300);
        // Lives go on while all this happens.
        let lives = prop::collection::vec((life(), prop::collection::vec(any::<Index>(), 20)), 0..6);
        (steps, lives).prop_map(|(mut steps, lives)| {
            for (packets, mut places) in lives {
                places.sort_by_key(|place| place.index(1 << 20));
                for ((port, frame), place) in packets.into_iter().zip(places) {
                    let at = place.index(steps.len() + 1);
                    steps.insert(at, Step::packet(port, frame));
                }
            }
            steps
        })
    });
    // Neighbours are made known first in most runs, or hardly any packet would get anywhere.
    (prop::bool::weighted(0.9), steps).prop_map(|(resolved, steps)| {
        let inside = (10..13).map(|n| (IN, host(n)));
        let outside = [(OUT, server(10)), (OUT, server(11)), (OUT, GATEWAY)];
        let known = inside.chain(outside).filter(|_| resolved).map(|(port, address)| {
            Step::packet(port, arp(port, ArpOperation::Reply, mac_of(address), address, own(port).1))
        });
        known.chain(steps).collect()
    })
}

/// What happens in these runs, to see that they get everywhere.
#[derive(Default)]
struct Coverage {
    drops: BTreeMap<Drop, u64>,
    statelets: BTreeMap<u16, u64>,
    tcp_states: BTreeMap<u8, u64>,
    fragmented: u64,
    transmitted: u64,
}

impl Coverage {
    fn add(&mut self, config: &Config, steps: &[Step]) {
        let mut nat = Nat::new(config, Shard::ONLY, 1).unwrap();
        let mut env = TestEnvironment::new(Instant::from_millis(1_000_000));
        for step in steps {
            env.advance(step.pause);
            nat.tick(&mut env);
            let Some((port, frame)) = &step.packet else { continue };
            match nat.process(&mut env, *port, &mut OwnedPacket::from(frame.as_slice())) {
                Verdict::Transmit(_) => self.transmitted += 1,
                Verdict::Consumed => {}
                Verdict::Drop(reason) => *self.drops.entry(Drop::ALL[usize::from(reason)]).or_default() += 1,
            }
        }
        for statelet in env.take_statelets() {
            *self.statelets.entry(statelet.statelet_type).or_default() += 1;
            if let (0x16, Some(code)) = (statelet.statelet_type, statelet.value.last()) {
                *self.tcp_states.entry(*code).or_default() += 1;
            }
        }
        let fragmented = nat.gauges().into_iter().find(|gauge| gauge.name == "packets_fragmented");
        self.fragmented += fragmented.map_or(0, |gauge| gauge.value);
    }

    /// What no run has come to yet.
    fn missing(&self) -> Vec<String> {
        let states = (2..=7).filter(|code| !self.tcp_states.contains_key(code));
        let types = (0x10..=0x19)
            .chain(0x20..=0x23)
            .chain(0x30..=0x32)
            .chain(0x40..=0x44)
            .chain(0x50..=0x51)
            .chain([0x01, 0x60, 0x70])
            .filter(|statelet_type| !self.statelets.contains_key(statelet_type));
        let reasons = [
            Drop::SessionsFull,
            Drop::HostsFull,
            Drop::PortsExhausted,
            Drop::HostSessionLimit,
            Drop::HostPortLimit,
            Drop::MappingSessionLimit,
            Drop::TooBig,
            Drop::FragmentsFull,
            Drop::Denied,
            Drop::ArpTableFull,
            Drop::ArpPending,
            Drop::ArpOwnAddressClaimed,
            Drop::NoMapping,
            Drop::Filtered,
            Drop::TcpNotSyn,
            Drop::TcpFlagsInvalid,
        ];
        let reasons = reasons.into_iter().filter(|reason| !self.drops.contains_key(reason));
        let little = (self.transmitted <= 2000 || self.fragmented <= 20).then(|| "enough packets".to_owned());
        states
            .map(|code| format!("TCP state {code}"))
            .chain(types.map(|statelet_type| format!("statelet {statelet_type:#06x}")))
            .chain(reasons.map(|reason| format!("{reason:?}")))
            .chain(little)
            .collect()
    }
}

/// Some things happen in one run of many: a hundred runs are made at least, then more until everything has happened.
#[test]
fn nat_keeps_the_law() {
    let coverage = RefCell::new(Coverage::default());
    for round in 0..20 {
        if round > 0 && coverage.borrow().missing().is_empty() {
            break;
        }
        let cases = if round == 0 { 100 } else { 20 };
        let mut runner =
            TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
        let outcome = runner.run(&(configs(), steps()), |(config, steps)| {
            coverage.borrow_mut().add(&config, &steps);
            let outcome = law::check::<Nat>(&config, &steps);
            outcome.map(|_| ()).map_err(|violation| TestCaseError::fail(violation.to_string()))
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
    }

    let coverage = coverage.into_inner();
    println!("transmitted {}, fragmented {}", coverage.transmitted, coverage.fragmented);
    println!("dropped {:?}\nannounced {:#06x?}", coverage.drops, coverage.statelets);
    println!("TCP states entered {:?}", coverage.tcp_states);
    assert_eq!(coverage.missing(), Vec::<String>::new(), "never happened");
    assert!(!coverage.drops.contains_key(&Drop::StateInconsistent));
}
