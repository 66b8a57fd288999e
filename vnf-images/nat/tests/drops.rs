//! Every reason to drop a packet, and that nothing else happens then.

mod common;

use common::*;
use slim_core::nf::{NetworkFunction, PortId, Verdict};
use slim_core::packet::OwnedPacket;
use slim_nat::{Config, Drop};

/// A change of a frame.
type Change = fn(&mut [u8]);

const SERVER: u16 = 7;

fn request() -> Vec<u8> {
    udp(IN, socket(host(10), 5000), socket(server(10), SERVER), b"request")
}

fn syn() -> Vec<u8> {
    tcp(IN, socket(host(10), 5000), socket(server(10), 80), SYN, b"")
}

#[test]
fn malformed_ip_and_transport() {
    let cases: [(&str, Vec<u8>, Change, Drop); 17] = [
        ("version 6", request(), |ip| ip[0] = 0x65, Drop::Ipv4Malformed),
        ("header length 16", request(), |ip| ip[0] = 0x44, Drop::Ipv4Malformed),
        ("header longer than packet", request(), |ip| ip[0] = 0x4f, Drop::Ipv4Malformed),
        ("total length below header", request(), |ip| ip[3] = 19, Drop::Ipv4Malformed),
        ("total length beyond frame", request(), |ip| ip[3] = 36, Drop::Ipv4Malformed),
        ("fragment that ends within a unit", request(), |ip| ip[6] = 0x20, Drop::FragmentMalformed),
        (
            "fragment beyond the longest packet",
            request(),
            |ip| ip[6..8].copy_from_slice(&[0x1f, 0xff]),
            Drop::FragmentMalformed,
        ),
        ("ICMP of no known type", request(), |ip| ip[9] = 1, Drop::IcmpUnsupported),
        ("SCTP", request(), |ip| ip[9] = 132, Drop::ProtocolUnsupported),
        ("UDP length below header", request(), |ip| ip[25] = 7, Drop::UdpMalformed),
        ("UDP length beyond packet", request(), |ip| ip[25] = 16, Drop::UdpMalformed),
        ("UDP source port 0", request(), |ip| ip[20..22].fill(0), Drop::UdpMalformed),
        ("UDP destination port 0", request(), |ip| ip[22..24].fill(0), Drop::UdpMalformed),
        ("UDP cut off", request(), |ip| ip[3] = 27, Drop::UdpMalformed),
        ("TCP header length 16", syn(), |ip| ip[32] = 0x40, Drop::TcpMalformed),
        ("TCP header beyond packet", syn(), |ip| ip[32] = 0x60, Drop::TcpMalformed),
        ("TCP destination port 0", syn(), |ip| ip[22..24].fill(0), Drop::TcpMalformed),
    ];
    let mut lab = Lab::resolved(&config());
    let before = digest(&mut lab.nat);
    for (case, frame, change, reason) in cases {
        assert_eq!(lab.outbound(&with_ipv4(frame, change)), Outcome::Dropped(reason), "{case}");
    }
    for flags in [0x00, FIN, SYN | FIN, SYN | RST, RST | FIN, 0x3f] {
        let frame = tcp(IN, socket(host(10), 5000), socket(server(10), 80), flags, b"");
        lab.outbound(&frame).dropped(Drop::TcpFlagsInvalid);
    }
    assert_eq!(digest(&mut lab.nat), before);
    lab.outbound(&request()).sent_to(OUT);
    lab.outbound(&syn()).sent_to(OUT);
}

#[test]
fn wrong_checksums() {
    let mut lab = Lab::resolved(&config());
    let before = digest(&mut lab.nat);
    let flip = |mut frame: Vec<u8>, at: usize| {
        frame[at] ^= 1;
        frame
    };
    lab.outbound(&flip(request(), 24)).dropped(Drop::Ipv4Checksum);
    lab.outbound(&flip(request(), 48)).dropped(Drop::TransportChecksum);
    lab.outbound(&flip(syn(), 40)).dropped(Drop::TransportChecksum);
    assert_eq!(digest(&mut lab.nat), before);

    // Within a session the transport checksum is left to the receiver: as wrong as it came, no better and no worse.
    lab.outbound(&request()).sent_to(OUT);
    let sent = lab.outbound(&flip(request(), 48)).sent_to(OUT);
    assert_eq!(checksums(&sent), Some((true, false)));
    // But nothing that would change a TCP session's state is believed without it.
    let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
    let exterior = lab.tcp_connect(source, destination);
    for flags in [RST, FIN | ACK, SYN | ACK] {
        lab.outbound(&flip(tcp(IN, source, destination, flags, b""), 40)).dropped(Drop::TransportChecksum);
        lab.inbound(&flip(tcp(OUT, destination, exterior, flags, b""), 40)).dropped(Drop::TransportChecksum);
    }
}

#[test]
fn frames_for_others() {
    let mut lab = Lab::resolved(&config());
    let mut elsewhere = request();
    elsewhere[5] ^= 1;
    lab.outbound(&elsewhere).dropped(Drop::NotToOwnMac);
    elsewhere[..6].fill(0xff);
    lab.outbound(&elsewhere).dropped(Drop::NotToOwnMac);
    lab.inbound(&request()).dropped(Drop::NotToOwnMac);
    for ether_type in [0x86dd, 0x8100, 0x88b5, 0x0026] {
        let mut other: Vec<u8> = request();
        other[12..14].copy_from_slice(&u16::to_be_bytes(ether_type));
        lab.outbound(&other).dropped(Drop::NotIpv4);
    }
    lab.outbound(&request()[..13]).dropped(Drop::FrameTooShort);
    lab.outbound(&[]).dropped(Drop::FrameTooShort);
    lab.outbound(&request()[..14]).dropped(Drop::Ipv4Malformed);
    assert_eq!(
        lab.nat.process(&mut lab.bench, PortId(2), &mut OwnedPacket::new(request())),
        Verdict::from(Drop::UnknownPort)
    );
}

#[test]
fn addresses_that_cannot_be_forwarded() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), SERVER));
    let before = digest(&mut lab.nat);
    for (source, destination, reason) in [
        ([10, 2, 0, 10], [10, 2, 0, 11], Drop::SourceInvalid),
        ([10, 1, 0, 1], [10, 2, 0, 11], Drop::SourceInvalid),
        ([10, 1, 0, 255], [10, 2, 0, 11], Drop::SourceInvalid),
        ([10, 1, 0, 0], [10, 2, 0, 11], Drop::SourceInvalid),
        ([0, 0, 0, 0], [10, 2, 0, 11], Drop::SourceInvalid),
        ([10, 1, 0, 10], [10, 1, 0, 1], Drop::ToSelf),
        ([10, 1, 0, 10], [10, 1, 0, 11], Drop::DestinationInvalid),
        ([10, 1, 0, 10], [10, 1, 0, 255], Drop::Multicast),
        ([10, 1, 0, 10], [10, 2, 0, 1], Drop::NoMapping),
        ([10, 1, 0, 10], [10, 2, 0, 255], Drop::Multicast),
        ([10, 1, 0, 10], [224, 0, 0, 251], Drop::Multicast),
        ([10, 1, 0, 10], [255, 255, 255, 255], Drop::Multicast),
        ([10, 1, 0, 10], [240, 0, 0, 1], Drop::DestinationInvalid),
        ([10, 1, 0, 10], [127, 0, 0, 1], Drop::DestinationInvalid),
        ([10, 1, 0, 10], [0, 0, 0, 0], Drop::DestinationInvalid),
    ] {
        let frame = udp(IN, socket(source.into(), 5000), socket(destination.into(), 7), b"x");
        assert_eq!(lab.outbound(&frame), Outcome::Dropped(reason), "{source:?} to {destination:?}");
    }
    for (source, destination, reason) in [
        ([10, 2, 0, 10], [10, 2, 0, 2], Drop::DestinationInvalid),
        ([10, 2, 0, 10], [10, 1, 0, 10], Drop::DestinationInvalid),
        ([10, 2, 0, 10], [10, 2, 0, 255], Drop::Multicast),
        ([10, 2, 0, 10], [224, 0, 0, 1], Drop::Multicast),
        ([10, 1, 0, 10], [10, 2, 0, 1], Drop::SourceInvalid),
        ([10, 2, 0, 1], [10, 2, 0, 1], Drop::SourceInvalid),
        ([10, 2, 0, 255], [10, 2, 0, 1], Drop::SourceInvalid),
        ([127, 0, 0, 1], [10, 2, 0, 1], Drop::SourceInvalid),
        ([224, 0, 0, 1], [10, 2, 0, 1], Drop::SourceInvalid),
    ] {
        let frame = udp(OUT, socket(source.into(), 7), socket(destination.into(), exterior.port()), b"x");
        assert_eq!(lab.inbound(&frame), Outcome::Dropped(reason), "{source:?} to {destination:?}");
    }
    assert_eq!(digest(&mut lab.nat), before);
}

#[test]
fn no_gateway_means_no_route() {
    let mut lab = Lab::resolved(&Config { exterior_gateway: None, ..config() });
    let frame = udp(IN, socket(host(10), 5000), socket([198, 51, 100, 9].into(), 53), b"x");
    lab.outbound(&frame).dropped(Drop::NoRoute);
    assert_eq!(lab.gauge("sessions"), 0);
}

#[test]
fn unknown_interior_host_is_asked_for() {
    let mut lab = Lab::new(&config());
    lab.arp_reply(OUT, server(10));
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), SERVER));
    lab.bench.emitted.clear();
    let reply = udp(OUT, socket(server(10), SERVER), exterior, b"x");
    lab.inbound(&reply).dropped(Drop::ArpPending);
    assert_eq!(read_arp(&lab.bench.emitted[0].1).target.1, host(10));
    lab.arp_reply(IN, host(10));
    lab.inbound(&reply).sent_to(IN);
}
