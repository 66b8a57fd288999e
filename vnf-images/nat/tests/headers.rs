//! Fields of the IPv4 header that are not addresses: the identification (RFC 6864), type of service, and options.

mod common;

use common::*;
use slim_core::nf::{NetworkFunction, Shard, ShardId};
use slim_core::packet::Ipv4;
use slim_nat::{Config, Nat};
use std::collections::BTreeSet;

fn ident(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[18], frame[19]])
}

/// A request of host `n` that may be fragmented on its way, and is numbered 1 by its sender.
fn request(n: u8) -> Vec<u8> {
    with_ipv4(udp(IN, socket(host(n), 5000), socket(server(10), 7), b"x"), |ip| {
        ip[4..8].copy_from_slice(&[0, 1, 0, 0]);
    })
}

#[test]
fn rfc6864_s5_3_1_packets_that_may_be_fragmented_get_identifications_of_their_own() {
    let mut lab = Lab::resolved(&config());
    let mut seen = BTreeSet::new();
    for turn in 0..6000 {
        let frame = lab.outbound(&request(10 + (turn % 10) as u8)).sent_to(OUT);
        assert!(seen.insert(ident(&frame)), "{:#06x} once more, after {turn} others", ident(&frame));
        assert_eq!(checksums(&frame), Some((true, true)));
    }
    // Another shard of the same addresses has others.
    let shard = |id| Nat::new(&config(), Shard { id: ShardId(id), count: 2 }, 3).unwrap();
    let of_shard = |id| {
        let mut lab = Lab { nat: shard(id), bench: Bench::default() };
        lab.arp_reply(OUT, server(10));
        (0..3000).map(|_| ident(&lab.outbound(&request(10)).sent_to(OUT))).collect::<BTreeSet<_>>()
    };
    let (first, second) = (of_shard(0), of_shard(1));
    assert_eq!((first.len(), second.len(), first.intersection(&second).count()), (3000, 3000, 0));
}

#[test]
fn rfc6864_s5_3_1_identifications_are_not_used_again_by_another_instance() {
    let mut lab = Lab::resolved(&config());
    let mut seen: BTreeSet<_> = (0..1000).map(|_| ident(&lab.outbound(&request(10)).sent_to(OUT))).collect();
    let snapshot = lab.freeze();
    lab.bench.upd_enable = true;
    seen.extend((0..1000).map(|_| ident(&lab.outbound(&request(10)).sent_to(OUT))));
    let statelets = lab.statelets();
    let idents = statelets.iter().filter(|(statelet_type, _)| *statelet_type == 0x0070).count();
    assert!((3..=4).contains(&idents), "{idents} statelets for a thousand packets");
    let mut other = Lab::with_seed(&config(), 99);
    adopt(&mut other.nat, &snapshot);
    statelets.iter().for_each(|(statelet_type, value)| other.nat.install(*statelet_type, value).unwrap());
    other.nat.take_over(other.bench.now);
    seen.extend((0..1000).map(|_| ident(&other.outbound(&request(11)).sent_to(OUT))));
    assert_eq!(seen.len(), 3000);
}

#[test]
fn rfc6864_s4_1_atomic_packets_and_those_from_outside_keep_theirs() {
    let mut lab = Lab::resolved(&config());
    let frame = with_ipv4(udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x"), |ip| ip[4] = 0x5a);
    assert_eq!(ident(&lab.outbound(&frame).sent_to(OUT)), 0x5a00);
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    let reply =
        with_ipv4(udp(OUT, socket(server(10), 7), exterior, b"x"), |ip| ip[4..8].copy_from_slice(&[1, 2, 0, 0]));
    assert_eq!(ident(&lab.inbound(&reply).sent_to(IN)), 0x0102);
}

#[test]
fn rfc6864_s4_what_the_nat_says_itself_is_atomic() {
    let mut lab = Lab::resolved(&config());
    lab.bench.emitted.clear();
    let dying = with_ipv4(request(10), |ip| ip[8] = 1);
    lab.outbound(&dying);
    let (_, error) = lab.bench.emitted.remove(0);
    let (ip, _) = Ipv4::parse(&error[14..]).unwrap();
    assert!(ip.dont_fragment() && !ip.is_fragment());
}

#[test]
fn rfc6864_s5_3_1_trains_of_hosts_that_number_alike_are_told_apart() {
    let mut lab = Lab::resolved(&config());
    let trains = [10, 11].map(|n| cut(&udp(IN, socket(host(n), 5000), socket(server(10), 7), &[n; 100]), 48, 99));
    let sent: Vec<_> = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
        .map(|(train, piece): (usize, usize)| lab.outbound(&trains[train][piece]).sent_to(OUT))
        .into();
    let of = |first: usize| [&sent[first], &sent[first + 2], &sent[first + 4]].map(|frame| ident(frame));
    assert!(of(0).windows(2).chain(of(1).windows(2)).all(|pair| pair[0] == pair[1]));
    assert_ne!(of(0)[0], of(1)[0]);
    // A first fragment that comes twice is of the same train.
    assert_eq!(ident(&lab.outbound(&trains[0][0]).sent_to(OUT)), of(0)[0]);
}

#[test]
fn rfc2474_rfc3168_dscp_and_ecn_pass_in_both_directions() {
    let mut lab = Lab::resolved(&config());
    let exterior = lab.udp_out(socket(host(10), 5000), socket(server(10), 7));
    // Expedited forwarding, and each of the four ECN codepoints.
    for tos in [0xb8, 0xb9, 0xba, 0xbb, 0x01, 0x03] {
        let out = with_ipv4(udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x"), |ip| ip[1] = tos);
        assert_eq!(lab.outbound(&out).sent_to(OUT)[15], tos);
        let back = with_ipv4(udp(OUT, socket(server(10), 7), exterior, b"x"), |ip| ip[1] = tos);
        assert_eq!(lab.inbound(&back).sent_to(IN)[15], tos);
    }
    let fragments =
        cut(&with_ipv4(udp(IN, socket(host(10), 5000), socket(server(10), 7), &[1; 100]), |ip| ip[1] = 0xb9), 48, 5);
    assert!(fragments.iter().all(|fragment| lab.outbound(fragment).sent_to(OUT)[15] == 0xb9));
    // And those that the NAT makes itself.
    let mut narrow = Lab::resolved(&Config { exterior_mtu: 68, ..config() });
    narrow.bench.emitted.clear();
    narrow.outbound(&with_ipv4(udp(IN, socket(host(10), 1), socket(server(10), 7), &[1; 100]), |ip| {
        (ip[1], ip[6]) = (0xb9, 0)
    }));
    assert!(narrow.bench.emitted.len() > 1 && narrow.bench.emitted.iter().all(|(_, frame)| frame[15] == 0xb9));
}

#[test]
fn rfc3168_s6_1_ecn_is_negotiated_through_the_nat() {
    const ECE_CWR: u8 = 0xc0;
    let mut lab = Lab::resolved(&config());
    let (inside, outside) = (socket(host(10), 5000), socket(server(10), 80));
    let syn = lab.outbound(&tcp(IN, inside, outside, SYN | ECE_CWR, b"")).sent_to(OUT);
    assert_eq!(syn[47], SYN | ECE_CWR);
    let answer = lab.inbound(&tcp(OUT, outside, ends(&syn).0, SYN | ACK | 0x40, b"")).sent_to(IN);
    assert_eq!(answer[47], SYN | ACK | 0x40);
}

#[test]
fn rfc1812_s4_2_2_1_options_pass_in_both_directions() {
    let with_options = |frame: Vec<u8>| {
        let mut frame = frame;
        // Router alert and padding.
        frame.splice(34..34, [0x94, 4, 0, 0, 1, 1, 1, 0]);
        with_ipv4(frame, |ip| {
            ip[0] = 0x47;
            ip[3] += 8;
        })
    };
    let mut lab = Lab::resolved(&config());
    let out = lab.outbound(&with_options(udp(IN, socket(host(10), 5000), socket(server(10), 7), b"x"))).sent_to(OUT);
    assert_eq!((checksums(&out), &out[34..42]), (Some((true, true)), &[0x94, 4, 0, 0, 1, 1, 1, 0][..]));
    let (exterior, _) = ends(&out);
    let back = lab.inbound(&with_options(udp(OUT, socket(server(10), 7), exterior, b"x"))).sent_to(IN);
    assert_eq!((checksums(&back), &back[34..42]), (Some((true, true)), &[0x94, 4, 0, 0, 1, 1, 1, 0][..]));
    let ping = lab.outbound(&with_options(echo(IN, host(10), server(10), 8, 7))).sent_to(OUT);
    assert_eq!(read_icmp(&ping).data, b"abcdefgh");
}
