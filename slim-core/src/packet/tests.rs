//! Tests over whole frames: literal bytes, translation as a NAT does it, and arbitrary input.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};
use proptest::prelude::*;

const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];

fn ends() -> emit::Ends {
    emit::Ends {
        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        source: SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 10), 4660),
        destination: SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 10), 7),
    }
}

#[test]
fn udp_frame_has_these_bytes() {
    let expected = [
        &ETHERNET[..],
        &[0x45, 0, 0, 0x21, 0, 0, 0x40, 0, 0x40, 0x11, 0x26, 0xb6, 10, 1, 0, 10, 10, 2, 0, 10],
        &[0x12, 0x34, 0, 7, 0, 0x0d, 0xdb, 0xa8],
        b"slim!",
    ]
    .concat();
    let mut dirty = [0xff; 100];
    let len = emit::udp(&mut dirty, &ends(), b"slim!").unwrap();
    assert_eq!(dirty[..len], expected);
    assert!(dirty[len..].iter().all(|byte| *byte == 0xff));
}

#[test]
fn tcp_frame_has_these_bytes() {
    let expected = [
        &ETHERNET[..],
        &[0x45, 0, 0, 0x2a, 0, 0, 0x40, 0, 0x40, 0x06, 0x26, 0xb8, 10, 1, 0, 10, 10, 2, 0, 10],
        &[0x12, 0x34, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x12, 0xff, 0xff, 0x10, 0xb9, 0, 0],
        b"hi",
    ]
    .concat();
    let mut ends = ends();
    ends.destination.set_port(80);
    let flags = TcpFlags::SYN | TcpFlags::ACK;
    let fields = emit::TcpFields { sequence: 0x0102_0304, acknowledgement: 0x0506_0708, flags, window: u16::MAX };
    let mut dirty = [0xff; 100];
    let len = emit::tcp(&mut dirty, &ends, &fields, b"hi").unwrap();
    assert_eq!(dirty[..len], expected);
}

#[test]
fn arp_frames_have_these_bytes() {
    let mut dirty = [0xee; 50];
    let len = emit::arp(&mut dirty, ArpOperation::Request, &ends()).unwrap();
    let expected = [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6][..],
        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 1, 0, 10, 0, 0, 0, 0, 0, 0, 10, 2, 0, 10],
    ]
    .concat();
    assert_eq!(dirty[..len], expected);
    let len = emit::arp(&mut dirty, ArpOperation::Reply, &ends()).unwrap();
    let expected = [
        &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6][..],
        &[0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 1, 0, 10, 2, 0, 0, 0, 0, 2, 10, 2, 0, 10],
    ]
    .concat();
    assert_eq!(dirty[..len], expected);
}

#[test]
fn frames_that_do_not_fit_are_refused() {
    let mut buffer = vec![0; 70_000];
    assert_eq!(emit::udp(&mut buffer[..46], &ends(), b"slim!"), Err(NoRoom));
    assert_eq!(emit::tcp(&mut buffer[..54], &ends(), &emit::TcpFields::default(), b"!"), Err(NoRoom));
    assert_eq!(emit::arp(&mut buffer[..41], ArpOperation::Reply, &ends()), Err(NoRoom));
    assert_eq!(emit::udp_around(&mut buffer, &ends(), 65_508), Err(NoRoom));
    assert_eq!(emit::udp_around(&mut buffer, &ends(), 65_507), Ok(65_549));
}

#[test]
fn short_transport_headers_are_refused() {
    assert_eq!(Udp::parse(&[0; 7]).unwrap_err(), HeaderError::Truncated);
    assert_eq!(Udp::parse(&[0, 1, 0, 2, 0, 7, 0, 0]).unwrap_err(), HeaderError::TotalLength);
    assert_eq!(Udp::parse(&[0, 1, 0, 2, 0, 9, 0, 0]).unwrap_err(), HeaderError::Truncated);
    assert_eq!(Udp::parse_truncated(&[0, 1, 0, 2, 0, 9, 0, 0]).unwrap().destination(), 2);
    let mut segment = [0; 20];
    assert_eq!(Tcp::parse(&segment[..19]).unwrap_err(), HeaderError::Truncated);
    segment[12] = 0x40;
    assert_eq!(Tcp::parse(&segment).unwrap_err(), HeaderError::HeaderLength);
    segment[12] = 0x60;
    assert_eq!(Tcp::parse(&segment).unwrap_err(), HeaderError::Truncated);
    assert_eq!(Icmpv4::parse(&[0; 7]).unwrap_err(), HeaderError::Truncated);
}

#[test]
fn tcp_options_are_set_apart() {
    let mut segment = [0u8; 25];
    segment[12] = 0x60;
    segment[20..].copy_from_slice(&[2, 4, 5, 6, 7]);
    let (header, payload) = Tcp::parse(&segment).unwrap();
    assert_eq!((header.options(), header.header_len(), payload), (&[2, 4, 5, 6][..], 24, &[7][..]));
}

#[test]
fn echo_request_becomes_reply() {
    let mut message = [8, 0, 0, 0, 0x12, 0x34, 0, 1, b'a', b'b', b'c'];
    let (mut header, payload) = Icmpv4::parse_mut(&mut message).unwrap();
    header.set_type(icmp_type::ECHO_REPLY, 0);
    header.fill_checksum(payload);
    header.rewrite_ident(0xbeef);
    assert_eq!((header.message_type(), header.code(), header.ident(), header.sequence()), (0, 0, 0xbeef, 1));
    assert!(header.checksum_is_correct(payload));
    assert_eq!(checksum(&message), 0);
}

/// Whether all checksums of a frame are right.
fn frame_is_correct(frame: &[u8]) -> bool {
    let (_, packet) = Ethernet::parse(frame).unwrap();
    let (ip, payload) = Ipv4::parse(packet).unwrap();
    let pseudo_header = ip.pseudo_header(payload.len() as u16);
    let transport = match ip.protocol() {
        protocol::UDP => {
            let (udp, data) = Udp::parse(payload).unwrap();
            udp.checksum_is_correct(pseudo_header, data)
        }
        _ => {
            let (tcp, data) = Tcp::parse(payload).unwrap();
            tcp.checksum_is_correct(pseudo_header, data)
        }
    };
    transport && ip.checksum_is_correct()
}

/// Rewrites source or destination of a frame as a NAT does.
fn translate(frame: &mut [u8], outbound: bool, address: Ipv4Addr, port: u16) {
    let (_, packet) = Ethernet::parse_mut(frame).unwrap();
    let (mut ip, payload) = Ipv4::parse_mut(packet).unwrap();
    let delta = if outbound { ip.rewrite_source(address) } else { ip.rewrite_destination(address) };
    match (ip.protocol(), outbound) {
        (protocol::UDP, true) => Udp::parse_mut(payload).unwrap().0.rewrite_source(port, delta),
        (protocol::UDP, false) => Udp::parse_mut(payload).unwrap().0.rewrite_destination(port, delta),
        (_, true) => Tcp::parse_mut(payload).unwrap().0.rewrite_source(port, delta),
        (_, false) => Tcp::parse_mut(payload).unwrap().0.rewrite_destination(port, delta),
    }
}

/// Calls every parser on `bytes` and every getter and setter of what it finds.
fn exercise(bytes: &mut [u8]) {
    if let Ok((header, _)) = Ethernet::parse(bytes) {
        let _ = (header.source(), header.destination(), header.ether_type());
    }
    if let Ok((header, _)) = Vlan::parse(bytes) {
        let _ = (header.id(), header.ether_type());
    }
    if let Ok(packet) = Arp::parse(bytes) {
        let _ = (packet.operation(), packet.sender_mac(), packet.sender(), packet.target_mac(), packet.target());
    }
    for (header, payload) in [Ipv4::parse(bytes), Ipv4::parse_truncated(bytes)].into_iter().flatten() {
        assert!(header.header_len() + payload.len() <= bytes.len().min(header.total_len().into()));
        let _ = (header.options().len(), header.fragment_offset(), header.checksum_is_correct());
    }
    if let Ok((header, payload)) = Udp::parse(bytes) {
        assert_eq!(payload.len() + UDP_LEN, usize::from(header.length()));
        let _ = header.checksum_is_correct(Sum::new(), payload);
    }
    if let Ok((header, payload)) = Tcp::parse(bytes) {
        assert_eq!(header.header_len() + payload.len(), bytes.len());
        let _ = (header.flags(), header.window(), header.checksum_is_correct(Sum::new(), payload));
    }
    if let Ok((mut header, payload)) = Ipv4::parse_mut(bytes) {
        header.rewrite_source(Ipv4Addr::BROADCAST);
        header.rewrite_ttl(0);
        header.fill_checksum();
        exercise(payload);
    }
    if let Ok((mut header, payload)) = Udp::parse_mut(bytes) {
        header.rewrite_source(1, ChecksumDelta::new());
        header.fill_checksum(Sum::new(), payload);
    }
    if let Ok((mut header, payload)) = Tcp::parse_mut(bytes) {
        header.rewrite_destination(1, ChecksumDelta::new());
        header.fill_checksum(Sum::new(), payload);
    }
    if let Ok((mut header, payload)) = Icmpv4::parse_mut(bytes) {
        header.rewrite_ident(3);
        header.fill_checksum(payload);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&mut bytes);
    }

    /// As above, but with fields that let parsing go deep.
    #[test]
    fn plausible_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..200), first in 0x40u8..0x50, len in 0u16..220
    ) {
        bytes[0] = first;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        exercise(&mut bytes);
    }

    #[test]
    fn damaged_frames_never_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
        udp: bool,
    ) {
        let mut frame = vec![0xa5; 200];
        let len = if udp {
            emit::udp(&mut frame, &ends(), &payload).unwrap()
        } else {
            emit::tcp(&mut frame, &ends(), &emit::TcpFields::default(), &payload).unwrap()
        };
        frame.truncate(cut.index(len + 1));
        for (at, byte) in damage {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
        }
        exercise(frame.get_mut(ETHERNET_LEN..).unwrap_or_default());
        exercise(&mut frame);
    }

    #[test]
    fn emitted_frames_are_correct(
        payload in proptest::collection::vec(any::<u8>(), 0..200), source: u32, port: u16, udp: bool
    ) {
        let mut ends = ends();
        ends.source = SocketAddrV4::new(source.into(), port);
        let mut frame = vec![0xa5; 300];
        let len = if udp {
            emit::udp(&mut frame, &ends, &payload).unwrap()
        } else {
            emit::tcp(&mut frame, &ends, &emit::TcpFields::default(), &payload).unwrap()
        };
        prop_assert!(frame_is_correct(&frame[..len]));
    }

    #[test]
    fn translation_keeps_frames_correct(
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        steps in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<u16>()), 1..5),
        udp: bool,
    ) {
        let mut buffer = vec![0; 200];
        let len = if udp {
            emit::udp(&mut buffer, &ends(), &payload).unwrap()
        } else {
            emit::tcp(&mut buffer, &ends(), &emit::TcpFields::default(), &payload).unwrap()
        };
        let frame: &mut [u8] = &mut buffer[..len];
        let mut ends = ends();
        for (outbound, address, port) in steps {
            translate(frame, outbound, address.into(), port);
            let end = if outbound { &mut ends.source } else { &mut ends.destination };
            *end = SocketAddrV4::new(address.into(), port);
            prop_assert!(frame_is_correct(frame));
        }
        // What was translated step by step equals what is written with these ends at once.
        let mut fresh: Vec<u8> = vec![0xff; 200];
        let len = if udp {
            emit::udp(&mut fresh, &ends, &payload).unwrap()
        } else {
            emit::tcp(&mut fresh, &ends, &emit::TcpFields::default(), &payload).unwrap()
        };
        prop_assert_eq!(frame, &mut fresh[..len]);
    }
}
