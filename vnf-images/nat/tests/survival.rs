//! What is under way when the NAT moves: a ping, a connection in each state, a half-received train, every timer.

mod common;

use common::*;
use core::net::SocketAddrV4;
use slim_core::nf::NetworkFunction;
use slim_core::time::Duration;
use slim_nat::config::Filtering;
use slim_nat::tcp::TcpState;
use slim_nat::{Config, Drop};

fn open() -> Config {
    Config { filtering: Filtering::EndpointIndependent, ..config() }
}

/// Carries `lab`'s state to another instance: a snapshot, what `meanwhile` announces, and the take-over.
fn moved(mut lab: Lab, meanwhile: impl FnOnce(&mut Lab)) -> Lab {
    let snapshot = lab.freeze();
    lab.bench.upd_enable = true;
    meanwhile(&mut lab);
    let mut other = Lab::with_seed(&open(), 99);
    // Another host's clock.
    other.bench.now += Duration::from_secs(123_456);
    adopt(&mut other.nat, &snapshot);
    lab.nat.conclude(&mut lab.bench);
    for (statelet_type, value) in lab.statelets() {
        other.nat.install(statelet_type, &value).unwrap();
    }
    other.nat.take_over(other.bench.now);
    assert_eq!(digest(&mut other.nat), digest(&mut lab.nat));
    other
}

#[test]
fn a_ping_goes_on() {
    let mut lab = Lab::resolved(&open());
    let ident = read_icmp(&lab.outbound(&echo(IN, host(10), server(10), 8, 77)).sent_to(OUT)).ident;
    // The answer comes to the other instance, as do the next request and its answer.
    let mut other = moved(lab, |_| ());
    let reply = other.inbound(&echo(OUT, server(10), EXTERIOR, 0, ident)).sent_to(IN);
    assert_eq!((read_icmp(&reply).ident, read_icmp(&reply).to), (77, host(10)));
    assert_eq!(read_icmp(&other.outbound(&echo(IN, host(10), server(10), 8, 77)).sent_to(OUT)).ident, ident);
}

#[test]
fn totals_go_on() {
    let mut lab = Lab::resolved(&open());
    let ping = echo(IN, host(10), INTERIOR, 8, 1);
    lab.outbound(&ping);
    let asked = lab.gauge("arp_requests_sent");
    let mut other = moved(lab, |lab| {
        lab.outbound(&ping);
    });
    assert_eq!((other.gauge("echo_replies_sent"), other.gauge("arp_requests_sent")), (2, asked));
    other.outbound(&ping);
    assert_eq!(other.gauge("echo_replies_sent"), 3);
}

/// A segment: whether it goes out, and its flags.
type Segment = (bool, u8);

/// How a connection gets into each state, and what may follow there.
const LIVES: [(TcpState, &[Segment], &[Segment]); 7] = [
    (TcpState::Opening, &[(true, SYN)], &[(false, SYN | ACK), (true, ACK)]),
    (TcpState::OpeningInbound, &[(false, SYN)], &[(true, SYN | ACK), (false, ACK)]),
    (TcpState::Established, &[(true, SYN), (false, SYN | ACK), (true, ACK)], &[(false, ACK), (true, ACK)]),
    (
        TcpState::FinOutbound,
        &[(true, SYN), (false, SYN | ACK), (true, ACK), (true, FIN | ACK)],
        &[(false, ACK), (false, FIN | ACK), (true, ACK)],
    ),
    (
        TcpState::FinInbound,
        &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, FIN | ACK)],
        &[(true, ACK), (true, FIN | ACK), (false, ACK)],
    ),
    (
        TcpState::Closing,
        &[(true, SYN), (false, SYN | ACK), (true, ACK), (true, FIN | ACK), (false, FIN | ACK)],
        &[(true, ACK)],
    ),
    (TcpState::Reset, &[(true, SYN), (false, SYN | ACK), (true, ACK), (false, RST)], &[(true, ACK), (false, ACK)]),
];

fn segment(lab: &mut Lab, ends: [SocketAddrV4; 3], (out, flags): Segment) {
    let [inside, outside, exterior] = ends;
    if out {
        let frame = lab.outbound(&tcp(IN, inside, outside, flags, b"")).sent_to(OUT);
        assert_eq!(common::ends(&frame), (exterior, outside));
    } else {
        let frame = lab.inbound(&tcp(OUT, outside, exterior, flags, b"")).sent_to(IN);
        assert_eq!(common::ends(&frame), (outside, inside));
    }
}

#[test]
fn a_tcp_connection_goes_on_from_every_state() {
    assert_eq!(LIVES.map(|(state, ..)| state), {
        let mut all = TcpState::ALL;
        all.sort_by_key(|state| LIVES.iter().position(|(known, ..)| known == state));
        all
    });
    for (state, before, after) in LIVES {
        for announced in [false, true] {
            let mut lab = Lab::resolved(&open());
            // Others can come in by the port that this one keeps open.
            let exterior = lab.tcp_connect(socket(host(10), 5000), socket(server(12), 80));
            let ends = [socket(host(10), 5000), socket(server(10), 80), exterior];
            // By snapshot alone, or by statelets alone.
            let mut other = if announced {
                moved(lab, |lab| before.iter().for_each(|it| segment(lab, ends, *it)))
            } else {
                before.iter().for_each(|it| segment(&mut lab, ends, *it));
                moved(lab, |_| ())
            };
            assert_eq!(other.tcp_sessions(state), 1 + u64::from(state == TcpState::Established), "{state:?}");
            after.iter().for_each(|it| segment(&mut other, ends, *it));
        }
    }
}

#[test]
fn a_train_of_which_half_has_come_goes_on() {
    let request = udp(IN, socket(host(10), 5000), socket(server(10), 7), &[7; 100]);
    let fragments = cut(&request, 24, 99);
    for (before, meanwhile, after) in [(vec![0, 2], vec![4], vec![1, 3]), (vec![3, 1], vec![4, 2], vec![0])] {
        let mut lab = Lab::resolved(&open());
        let mut sent = Vec::new();
        let mut take = |lab: &mut Lab, pieces: &[usize]| {
            for piece in pieces {
                if let Outcome::Sent(_, frame) = lab.outbound(&fragments[*piece]) {
                    sent.push(frame);
                }
                sent.extend(lab.bench.emitted.drain(..).map(|(_, frame)| frame).filter(|frame| frame[13] == 0));
            }
        };
        take(&mut lab, &before);
        let mut other = moved(lab, |lab| take(lab, &meanwhile));
        take(&mut other, &after);
        assert_eq!(checksums(&join(&sent)), Some((true, true)));
    }
}

/// What is opened, and for how long it stays, in seconds.
type Life = (fn(&mut Lab), u64);

#[test]
fn every_timer_goes_on_with_what_is_left_of_it() {
    let lives: [Life; 4] = [
        (|lab| _ = lab.udp_out(socket(host(10), 5000), socket(server(10), 7)), 300),
        (|lab| _ = lab.outbound(&echo(IN, host(10), server(10), 8, 7)).sent_to(OUT), 60),
        (|lab| _ = lab.tcp_out(socket(host(10), 5000), socket(server(10), 80), SYN), 240),
        (|lab| _ = lab.tcp_connect(socket(host(10), 5000), socket(server(10), 80)), 7440),
    ];
    for (open_one, lasts_s) in lives {
        let mut lab = Lab::resolved(&open());
        open_one(&mut lab);
        lab.pass(lasts_s / 2);
        // A second of it passes in the middle of the migration.
        let mut other = moved(lab, |lab| lab.pass(1));
        other.pass(lasts_s - lasts_s / 2 - 2);
        assert_eq!(other.gauge("sessions"), 1, "{lasts_s} s are not over");
        other.pass(3);
        assert_eq!(other.gauge("sessions"), 0, "{lasts_s} s are over");
    }
}

#[test]
fn what_expires_in_the_middle_of_a_migration_is_gone_at_the_other_instance() {
    let mut lab = Lab::resolved(&open());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    let late = cut(&udp(IN, socket(host(10), 5001), socket(server(10), 7), &[7; 100]), 48, 5);
    assert_eq!(lab.outbound(&late[1]), Outcome::Consumed);
    let mut other = moved(lab, |lab| lab.pass(301));
    assert_eq!((other.gauge("sessions"), other.gauge("fragments_held")), (0, 0));
    other.inbound(&udp(OUT, socket(server(10), 7), exterior, b"late")).dropped(Drop::NoMapping);
}
