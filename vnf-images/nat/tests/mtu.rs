//! Packets that are longer than a link allows (RFC 4787 R13), and path-MTU discovery through the NAT (RFC 1191).

mod common;

use common::*;
use core::net::Ipv4Addr;
use slim_core::nf::PortId;
use slim_core::packet::Ipv4;
use slim_nat::config::Filtering;
use slim_nat::rules::Action;
use slim_nat::{Config, Drop};

fn narrow(interior_mtu: u16, exterior_mtu: u16) -> Config {
    Config { interior_mtu, exterior_mtu, filtering: Filtering::EndpointIndependent, ..config() }
}

/// A NAT that has asked for its gateway already.
fn lab(config: &Config) -> Lab {
    let mut lab = Lab::resolved(config);
    lab.bench.emitted.clear();
    lab
}

/// Lets the network fragment a frame's packet, or not.
fn may_fragment(frame: Vec<u8>, may: bool) -> Vec<u8> {
    with_ipv4(frame, |ip| ip[6] = if may { 0 } else { 0x40 })
}

/// Everything that is sent because of `frame`, in the order of the wire.
fn sent(lab: &mut Lab, at: PortId, port: PortId, frame: &[u8]) -> Vec<Vec<u8>> {
    lab.bench.emitted.clear();
    let last = lab.deliver(at, frame).sent_to(port);
    let emitted = lab.bench.emitted.drain(..).map(|(to, frame)| {
        assert_eq!(to, port);
        frame
    });
    emitted.chain([last]).collect()
}

fn ip_len(frame: &[u8]) -> usize {
    Ipv4::parse(&frame[14..]).unwrap().0.total_len().into()
}

/// Type, code and next-hop MTU of the one ICMP error that was sent to `to`, and the packet that it is about.
#[track_caller]
fn error_to(lab: &mut Lab, to: Ipv4Addr) -> ((u8, u8), u16, Vec<u8>) {
    let [(_, frame)] = &lab.bench.emitted[..] else { panic!("not one frame but {:?}", lab.bench.emitted) };
    let (frame, error) = (frame.clone(), read_icmp(frame));
    lab.bench.emitted.clear();
    assert_eq!(error.to, to);
    (error.kind, u16::from_be_bytes([frame[40], frame[41]]), error.data)
}

#[test]
fn rfc4787_r13_packets_that_may_be_fragmented_are() {
    for (mtu, pieces) in [(1500, 1), (1428, 1), (1427, 2), (576, 3), (68, 30)] {
        let mut lab = lab(&narrow(1500, mtu));
        let payload: Vec<u8> = (0..1400).map(|n| n as u8).collect();
        let frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), &payload);
        let out = sent(&mut lab, IN, OUT, &may_fragment(frame, true));
        assert_eq!(out.len(), pieces, "MTU {mtu}");
        assert!(out.iter().all(|frame| ip_len(frame) <= mtu.into() && frame.len() == 14 + ip_len(frame)));
        let whole = join(&out);
        assert_eq!(checksums(&whole), Some((true, true)));
        assert_eq!(whole[42..], payload);
        assert_eq!(*ends(&whole).0.ip(), EXTERIOR);
        assert_eq!(lab.gauge("packets_fragmented"), u64::from(pieces > 1));
        let host = lab.nat.host(host(10)).unwrap();
        assert_eq!((host.packets_outbound, host.bytes_outbound), (1, 1428), "counted as it came");
    }
}

#[test]
fn rfc4787_r13_senders_of_packets_that_may_not_be_fragmented_are_told_the_mtu() {
    let mut lab = lab(&narrow(1400, 1300));
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    let long = |at, from, to, len: usize| may_fragment(udp(at, from, to, &vec![1; len - 28]), false);

    let before = digest(&mut lab.nat);
    let frame = long(IN, socket(host(11), 5000), socket(server(10), 7), 1301);
    lab.outbound(&frame).dropped(Drop::TooBig);
    assert_eq!(digest(&mut lab.nat), before, "a refusal leaves nothing behind");
    let (kind, mtu, subject) = error_to(&mut lab, host(11));
    assert_eq!((kind, mtu), ((3, 4), 1300));
    assert_eq!(subject[..28], frame[14..42], "the packet as its sender knows it");

    lab.inbound(&long(OUT, socket(server(10), 7), exterior, 1401)).dropped(Drop::TooBig);
    assert_eq!(error_to(&mut lab, server(10)).1, 1400);
    // A hairpin goes back to the interior network, whose MTU counts.
    let target = lab.udp_out(socket(host(12), 5000), socket(server(10), 7));
    let hairpin = |len| long(IN, socket(host(11), 5000), target, len);
    lab.outbound(&hairpin(1401)).dropped(Drop::TooBig);
    assert_eq!(error_to(&mut lab, host(11)).1, 1400);
    lab.outbound(&hairpin(1400)).sent_to(IN);

    lab.outbound(&long(IN, socket(host(11), 5000), socket(server(10), 7), 1300)).sent_to(OUT);
    lab.inbound(&long(OUT, socket(server(10), 7), exterior, 1400)).sent_to(IN);
}

#[test]
fn rfc4787_r13_fragments_are_fragmented_again_in_whatever_order_they_come() {
    let payload: Vec<u8> = (0..2400).map(|n| (n / 7) as u8).collect();
    let frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), &payload);
    let fragments = cut(&may_fragment(frame, true), 1400, 77);
    assert_eq!(fragments.len(), 2);
    for order in [[0, 1], [1, 0]] {
        let mut lab = lab(&narrow(1500, 620));
        let mut out = Vec::new();
        for index in order {
            match lab.outbound(&fragments[index]) {
                Outcome::Sent(_, frame) => out.push(frame),
                other => assert_eq!(other, Outcome::Consumed),
            }
            out.extend(lab.bench.emitted.drain(..).map(|(_, frame)| frame));
        }
        assert!(out.len() > 4 && out.iter().all(|frame| ip_len(frame) <= 620));
        let whole = join(&out);
        assert_eq!((checksums(&whole), &whole[42..]), (Some((true, true)), &payload[..]));
    }
}

#[test]
fn rfc791_s3_2_only_copied_options_are_in_later_fragments() {
    // Record route, which is not copied, and a security option, which is.
    let options = [7, 7, 4, 0, 0, 0, 0, 0x82, 3, 9, 1, 0];
    let mut frame = udp(IN, socket(host(10), 5000), socket(server(10), 7), &[5; 600]);
    frame.splice(34..34, options);
    let frame = with_ipv4(frame, |ip| {
        ip[0] = 0x48;
        ip[2..4].copy_from_slice(&(20u16 + 12 + 608).to_be_bytes());
        ip[6] = 0;
    });
    let mut lab = lab(&narrow(1500, 400));
    let out = sent(&mut lab, IN, OUT, &frame);
    let headers: Vec<_> = out.iter().map(|frame| Ipv4::parse(&frame[14..]).unwrap().0).collect();
    assert!(headers.iter().all(|header| header.checksum_is_correct()));
    assert_eq!(headers.iter().map(|header| header.options()).collect::<Vec<_>>(), [&options[..], &[0x82, 3, 9, 0]]);
    assert_eq!(headers.iter().map(|header| header.fragment_offset()).collect::<Vec<_>>(), [0, 368]);
}

#[test]
fn exempt_and_icmp_packets_have_the_same_mtu() {
    let exempt = exclusion(Action::Exempt, Some(host(13)), None, "");
    let mut lab = lab(&Config { exclude: vec![exempt], ..narrow(1500, 600) });
    let frame = |may| may_fragment(udp(IN, socket(host(13), 5000), socket(server(10), 7), &[5; 1000]), may);
    assert_eq!(sent(&mut lab, IN, OUT, &frame(true)).len(), 2);
    lab.outbound(&frame(false)).dropped(Drop::TooBig);
    assert_eq!(error_to(&mut lab, host(13)).1, 600);

    let ping = icmp(IN, host(10), server(10), (8, 0, [0, 7, 0, 1]), &[9; 1000]);
    let out = sent(&mut lab, IN, OUT, &may_fragment(ping.clone(), true));
    assert_eq!(read_icmp(&join(&out)).data, [9; 1000]);
    lab.outbound(&ping).dropped(Drop::TooBig);
    assert_eq!(error_to(&mut lab, host(10)).1, 600);
    // Nobody is told of an error that is too long: errors are not answered.
    let error = icmp(IN, host(13), server(10), (3, 3, [0; 4]), &[0x45; 1000]);
    lab.outbound(&error).dropped(Drop::TooBig);
    assert!(lab.bench.emitted.is_empty());
}

#[test]
fn rfc1191_path_mtu_discovery_works_through_the_nat() {
    let mut lab = lab(&config());
    let (inside, server_end) = (socket(host(10), 5000), socket([198, 51, 100, 9].into(), 80));
    let exterior = lab.tcp_connect(inside, server_end);
    let segment = lab.outbound(&tcp(IN, inside, server_end, ACK, &[1; 1400])).sent_to(OUT);
    // A router on the way has a smaller MTU, and says so.
    let error = icmp(OUT, server(20), EXTERIOR, (3, 4, [0, 0, 0x05, 0x14]), subject(&segment, false));
    let told = lab.inbound(&error).sent_to(IN);
    let read = read_icmp(&told);
    assert_eq!((read.from, read.to, read.kind), (server(20), host(10), (3, 4)));
    assert_eq!(told[38..42], [0, 0, 0x05, 0x14], "the next hop's MTU is left alone");
    assert_eq!(read.data[12..24], subject(&tcp(IN, inside, server_end, ACK, &[1; 1400]), false)[12..24]);
    // And the other way: an interior host's own link may have a smaller one.
    let arrived = lab.inbound(&tcp(OUT, server_end, exterior, ACK, &[1; 1400])).sent_to(IN);
    let error = icmp(IN, host(10), *server_end.ip(), (3, 4, [0, 0, 0x05, 0x00]), subject(&arrived, false));
    let told = lab.outbound(&error).sent_to(OUT);
    let read = read_icmp(&told);
    assert_eq!((read.from, read.kind, &told[38..42]), (EXTERIOR, (3, 4), &[0, 0, 0x05, 0][..]));
    assert_eq!(read.data[16..20], EXTERIOR.octets());
    assert_eq!(read.data[22..24], exterior.port().to_be_bytes());
}
