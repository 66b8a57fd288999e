//! ICMP through the NAT and from it (RFC 5508), each requirement by its number.

mod common;

use common::*;
use slim_core::packet::{Ipv4, MacAddr, icmp_type};
use slim_nat::types::Protocol;
use slim_nat::{Config, Drop};

const REQUEST: u8 = icmp_type::ECHO_REQUEST;
const REPLY: u8 = icmp_type::ECHO_REPLY;
const UNREACHABLE: u8 = icmp_type::UNREACHABLE;

fn router() -> core::net::Ipv4Addr {
    [192, 0, 2, 77].into()
}

/// An error that arrives on `port` from `from`, about the packet in `frame`.
fn error(
    port: slim_core::nf::PortId,
    from: core::net::Ipv4Addr,
    to: core::net::Ipv4Addr,
    frame: &[u8],
    whole: bool,
) -> Vec<u8> {
    icmp(port, from, to, (UNREACHABLE, 3, [0; 4]), subject(frame, whole))
}

#[test]
fn rfc5508_r1_queries_pass_and_their_answers_come_back() {
    let mut lab = Lab::resolved(&config());
    for (query, reply) in [(REQUEST, REPLY), (icmp_type::TIMESTAMP, icmp_type::TIMESTAMP_REPLY)] {
        let sent = lab.outbound(&echo(IN, host(10), server(10), query, 7)).sent_to(OUT);
        let sent = read_icmp(&sent);
        assert_eq!((sent.from, sent.to, sent.kind), (EXTERIOR, server(10), (query, 0)));
        let back = lab.inbound(&echo(OUT, server(10), EXTERIOR, reply, sent.ident)).sent_to(IN);
        let back = read_icmp(&back);
        assert_eq!((back.from, back.to, back.ident, back.kind), (server(10), host(10), 7, (reply, 0)));
    }
    assert_eq!(lab.gauge("sessions"), 1, "one identifier to one server is one session");
}

#[test]
fn hosts_with_the_same_identifier_are_told_apart() {
    let mut lab = Lab::resolved(&config());
    let idents =
        [10, 11].map(|n| read_icmp(&lab.outbound(&echo(IN, host(n), server(10), REQUEST, 7)).sent_to(OUT)).ident);
    assert_ne!(idents[0], idents[1]);
    for (n, ident) in [10, 11].into_iter().zip(idents) {
        let back = read_icmp(&lab.inbound(&echo(OUT, server(10), EXTERIOR, REPLY, ident)).sent_to(IN));
        assert_eq!((back.to, back.ident), (host(n), 7));
    }
}

#[test]
fn answers_nobody_asked_for_are_dropped() {
    let mut lab = Lab::resolved(&config());
    lab.inbound(&echo(OUT, server(10), EXTERIOR, REPLY, 5000)).dropped(Drop::NoMapping);
    let ident = read_icmp(&lab.outbound(&echo(IN, host(10), server(10), REQUEST, 7)).sent_to(OUT)).ident;
    lab.inbound(&echo(OUT, server(11), EXTERIOR, REPLY, ident)).dropped(Drop::Filtered);
    lab.outbound(&echo(IN, host(10), server(10), REPLY, 7)).dropped(Drop::IcmpUnsupported);
    lab.outbound(&icmp(IN, host(10), server(10), (5, 1, [0; 4]), &[0; 28])).dropped(Drop::IcmpUnsupported);
}

#[test]
fn rfc5508_r2_query_sessions_last_a_minute() {
    let mut lab = Lab::resolved(&config());
    let ident = read_icmp(&lab.outbound(&echo(IN, host(10), server(10), REQUEST, 7)).sent_to(OUT)).ident;
    lab.pass(60);
    lab.inbound(&echo(OUT, server(10), EXTERIOR, REPLY, ident)).sent_to(IN);
    lab.pass(2);
    lab.inbound(&echo(OUT, server(10), EXTERIOR, REPLY, ident)).dropped(Drop::NoMapping);
    assert_eq!(lab.gauge("icmp_identifiers_used"), 0);
}

#[test]
fn rfc5508_r3_wrong_checksums_are_dropped() {
    let mut lab = Lab::resolved(&config());
    let mut query = echo(IN, host(10), server(10), REQUEST, 7);
    *query.last_mut().unwrap() ^= 1;
    lab.outbound(&query).dropped(Drop::IcmpChecksum);
    let sent = lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x")).sent_to(OUT);
    let mut damaged = error(OUT, server(10), EXTERIOR, &sent, true);
    *damaged.last_mut().unwrap() ^= 1;
    lab.inbound(&damaged).dropped(Drop::IcmpChecksum);
}

#[test]
fn rfc5508_r4_errors_from_outside_are_translated() {
    let mut lab = Lab::resolved(&config());
    for frame in [
        udp(IN, socket(host(10), 5000), socket(server(10), 7), b"payload"),
        tcp(IN, socket(host(10), 5000), socket(server(10), 80), SYN, b""),
        echo(IN, host(10), server(10), REQUEST, 7),
    ] {
        let sent = lab.outbound(&frame).sent_to(OUT);
        for (from, whole) in [(server(10), true), (router(), true), (router(), false)] {
            let got = read_icmp(&lab.inbound(&error(OUT, from, EXTERIOR, &sent, whole)).sent_to(IN));
            assert_eq!((got.from, got.to, got.kind), (from, host(10), (UNREACHABLE, 3)));
            // What the host gets back is what it sent, but for the time to live.
            let mut expected = subject(&frame, whole).to_vec();
            let (mut ip, _) = Ipv4::parse_truncated_mut(&mut expected).unwrap();
            ip.rewrite_ttl(63);
            assert_eq!(got.data, expected);
        }
    }
}

#[test]
fn rfc5508_r5_errors_from_inside_are_translated() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    let frame = udp(OUT, socket(server(10), 7), exterior, b"payload");
    let got = lab.inbound(&frame).sent_to(IN);
    for whole in [true, false] {
        let sent = read_icmp(&lab.outbound(&error(IN, host(10), server(10), &got, whole)).sent_to(OUT));
        assert_eq!((sent.from, sent.to, sent.kind), (EXTERIOR, server(10), (UNREACHABLE, 3)));
        let mut expected = subject(&frame, whole).to_vec();
        Ipv4::parse_truncated_mut(&mut expected).unwrap().0.rewrite_ttl(63);
        assert_eq!(sent.data, expected);
    }
}

#[test]
fn errors_about_strangers_packets_are_dropped() {
    let mut lab = Lab::resolved(&config());
    let sent = lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x")).sent_to(OUT);
    let (from, _) = ends(&sent);
    let other_server = udp(OUT, from, socket(server(11), 7), b"x");
    lab.inbound(&error(OUT, server(11), EXTERIOR, &other_server, true)).dropped(Drop::IcmpNoSession);
    let unknown = udp(OUT, socket(EXTERIOR, from.port() ^ 1), socket(server(10), 7), b"x");
    lab.inbound(&error(OUT, server(10), EXTERIOR, &unknown, true)).dropped(Drop::IcmpNoSession);
    let frame = udp(IN, socket(server(10), 7), socket(host(10), 5001), b"x");
    lab.outbound(&error(IN, host(10), server(10), &frame, true)).dropped(Drop::IcmpNoSession);
    let short = icmp(OUT, server(10), EXTERIOR, (UNREACHABLE, 3, [0; 4]), &subject(&sent, true)[..27]);
    lab.inbound(&short).dropped(Drop::IcmpMalformed);
}

#[test]
fn rfc5508_r6_errors_neither_refresh_nor_end_a_session() {
    let mut lab = Lab::resolved(&config());
    let sent = lab.outbound(&tcp(IN, socket(host(10), 5000), socket(server(10), 80), SYN, b"")).sent_to(OUT);
    let (exterior, _) = ends(&sent);
    lab.pass(200);
    lab.inbound(&error(OUT, server(10), EXTERIOR, &sent, false)).sent_to(IN);
    lab.inbound(&tcp(OUT, socket(server(10), 80), exterior, SYN | ACK, b"")).sent_to(IN);
    let mut lab = Lab::resolved(&config());
    let sent = lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x")).sent_to(OUT);
    lab.pass(200);
    lab.arp_reply(IN, host(10));
    lab.inbound(&error(OUT, server(10), EXTERIOR, &sent, false)).sent_to(IN);
    lab.pass(101);
    assert_eq!(lab.gauge("sessions"), 0);
}

#[test]
fn rfc5508_r7_errors_about_hairpinned_packets_go_back_the_same_way() {
    let mut lab = Lab::resolved(&Config { filtering: slim_nat::config::Filtering::EndpointIndependent, ..config() });
    let target = lab.udp_out(socket(host(11), 6000), socket(server(10), 7));
    let frame = udp(IN, socket(host(10), 5000), target, b"hello");
    let got = lab.outbound(&frame).sent_to(IN);
    // The target answers, so that it has a session with the sender, and refuses the next one.
    let (sender, _) = ends(&got);
    lab.outbound(&udp(IN, socket(host(11), 6000), sender, b"hi")).sent_to(IN);
    let back = read_icmp(&lab.outbound(&error(IN, host(11), EXTERIOR, &got, true)).sent_to(IN));
    assert_eq!((back.from, back.to), (EXTERIOR, host(10)));
    let mut expected = subject(&frame, true).to_vec();
    Ipv4::parse_truncated_mut(&mut expected).unwrap().0.rewrite_ttl(63);
    assert_eq!(back.data, expected);
}

#[test]
fn rfc5508_r8_rfc6888_r11_exhaustion_is_told_to_the_sender() {
    let mut lab = Lab::resolved(&Config { port_first: 2000, port_last: 2000, ..config() });
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.bench.emitted.clear();
    let frame = udp(IN, socket(host(10), 5001), socket(server(10), 7), b"x");
    lab.outbound(&frame).dropped(Drop::PortsExhausted);
    let (port, told) = lab.bench.emitted.pop().unwrap();
    let told = read_icmp(&told);
    assert_eq!((port, told.from, told.to, told.kind), (IN, INTERIOR, host(10), (UNREACHABLE, 1)));
    assert_eq!(told.data, subject(&frame, true));

    let mut lab = Lab::resolved(&Config { sessions_per_host_max: Some(1), ..config() });
    lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.bench.emitted.clear();
    lab.outbound(&frame).dropped(Drop::HostSessionLimit);
    assert_eq!(read_icmp(&lab.bench.emitted[0].1).kind, (UNREACHABLE, 13));
}

#[test]
fn rfc1812_s5_3_1_expired_packets_are_reported_to_either_side() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    lab.bench.emitted.clear();
    for (port, own, frame) in [
        (IN, INTERIOR, udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x")),
        (OUT, EXTERIOR, udp(OUT, socket(server(10), 7), exterior, b"x")),
    ] {
        let frame = with_ipv4(frame, |ip| ip[8] = 1);
        lab.deliver(port, &frame).dropped(Drop::TtlExpired);
        let (at, told) = lab.bench.emitted.pop().unwrap();
        let told = read_icmp(&told);
        assert_eq!((at, told.from, told.kind), (port, own, (icmp_type::TIME_EXCEEDED, 0)));
        assert_eq!(told.data, subject(&frame, true));
    }
}

#[test]
fn rfc1122_s3_2_2_no_errors_about_errors_fragments_or_groups() {
    let mut lab = Lab::resolved(&config());
    let sent = lab.outbound(&udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x")).sent_to(OUT);
    lab.bench.emitted.clear();
    let expired = |frame: Vec<u8>| with_ipv4(frame, |ip| ip[8] = 1);
    lab.inbound(&expired(error(OUT, server(10), EXTERIOR, &sent, true))).dropped(Drop::TtlExpired);
    let mut from_a_group = expired(udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x"));
    from_a_group[6..12].copy_from_slice(&MacAddr::BROADCAST.0);
    lab.outbound(&from_a_group).dropped(Drop::TtlExpired);
    assert_eq!(lab.bench.emitted, []);
}

#[test]
fn errors_are_sent_at_a_limited_rate_and_of_limited_size() {
    let mut lab = Lab::resolved(&config());
    let long = with_ipv4(udp(IN, socket(host(10), 5000), socket(server(10), 7), &[7; 1400]), |ip| ip[8] = 1);
    lab.bench.emitted.clear();
    for _ in 0..1000 {
        lab.outbound(&long).dropped(Drop::TtlExpired);
    }
    let sent = lab.bench.emitted.len();
    assert!((50..=200).contains(&sent), "{sent}");
    assert_eq!(lab.bench.emitted[0].1.len(), 14 + 576);
    assert_eq!(lab.gauge("icmp_errors_sent"), sent as u64);
    lab.pass(1);
    lab.bench.emitted.clear();
    lab.outbound(&long).dropped(Drop::TtlExpired);
    assert_eq!(lab.bench.emitted.len(), 1);
}

#[test]
fn rfc5508_r10_the_nat_answers_echo_requests_for_its_own_addresses() {
    let mut lab = Lab::resolved(&config());
    for (port, from, own) in [(IN, host(10), INTERIOR), (IN, host(10), EXTERIOR), (OUT, server(10), EXTERIOR)] {
        let request = echo(port, from, own, REQUEST, 9);
        let frame = lab.deliver(port, &request).sent_to(port);
        assert_eq!(frame[..6], request[6..12]);
        let reply = read_icmp(&frame);
        let data = b"abcdefgh".to_vec();
        assert_eq!(reply, IcmpFrame { from: own, to: from, kind: (REPLY, 0), ident: 9, data });
        let mut damaged = request.clone();
        *damaged.last_mut().unwrap() ^= 1;
        lab.deliver(port, &damaged).dropped(Drop::IcmpChecksum);
    }
    assert_eq!(lab.gauge("sessions"), 0);
    lab.bench.emitted.clear();
    lab.outbound(&udp(IN, socket(host(10), 5000), socket(INTERIOR, 53), b"x")).dropped(Drop::ToSelf);
    assert_eq!(read_icmp(&lab.bench.emitted[0].1).kind, (UNREACHABLE, 3));
}

#[test]
fn a_ping_goes_on_at_another_instance() {
    let mut lab = Lab::resolved(&config());
    let ident = read_icmp(&lab.outbound(&echo(IN, host(10), server(10), REQUEST, 7)).sent_to(OUT)).ident;
    let snapshot = lab.freeze();
    let mut other = Lab::with_seed(&config(), 99);
    adopt(&mut other.nat, &snapshot);
    slim_core::nf::NetworkFunction::take_over(&mut other.nat, other.bench.now);
    let back = read_icmp(&other.inbound(&echo(OUT, server(10), EXTERIOR, REPLY, ident)).sent_to(IN));
    assert_eq!((back.to, back.ident), (host(10), 7));
    assert_eq!(other.nat.mapping(Protocol::Icmp, endpoint(socket(host(10), 7))).map(|to| to.port), Some(ident));
}
