//! Sizes of statelets (§VI-C) and the statelet factor of the paper's workload (Table II).

mod common;

use common::*;
use slim_core::statelet::{Coalescer, Sigma, WireCosts};
use slim_core::time::Duration;
use slim_nat::{Config, Nat};
use std::collections::BTreeMap;

/// Runs Table II's workload: 512-byte packets, every 15th of which opens a new socket, at `packets_per_s`.
fn table_ii(packets: u32, packets_per_s: u32) -> (Sigma, BTreeMap<u16, (usize, u64)>) {
    let mut lab = Lab::resolved(&Config { sessions_max: 10_000, ..config() });
    lab.bench.upd_enable = true;
    let (mut sigma, mut kinds) = (Sigma::default(), BTreeMap::new());
    for i in 0..packets {
        lab.bench.now += Duration::from_secs(1) / packets_per_s;
        let n = i / 15;
        let source = socket(host(10 + (n % 20) as u8), (5000 + n / 20) as u16);
        let frame = udp(IN, source, socket(server(10 + (n % 4) as u8), 7), &[0; 512 - 42]);
        assert_eq!(frame.len(), 512);
        lab.outbound(&frame).sent_to(OUT);
        sigma.add_packet(frame.len());
        for (statelet_type, value) in lab.statelets() {
            sigma.add_statelet(value.len());
            let (len, count) = kinds.entry(statelet_type).or_insert((value.len(), 0));
            assert_eq!(*len, value.len());
            *count += 1;
        }
    }
    (sigma, kinds)
}

#[test]
fn sigma_of_the_papers_workload_is_that_of_table_ii() {
    // So many in a second that no other statelet takes part.
    let (sigma, kinds) = table_ii(15_000, 50_000);
    println!(
        "values {:.4}, on the wire {:.4}",
        sigma.of_values(),
        sigma.on_the_wire(&WireCosts::ETHERNET, sigma.stream_bytes(), 0)
    );
    assert_eq!(kinds, BTreeMap::from([(0x0010, (18, 1000)), (0x0030, (12, 15_000))]));
    assert!((sigma.of_values() - 0.0258).abs() < 0.0001);
    assert!(sigma.on_the_wire(&WireCosts::ETHERNET, sigma.stream_bytes(), 0) < 0.04);
}

#[test]
fn clock_and_refreshes_add_little_at_low_rates() {
    // 100 Mbit/s as the sum of both directions, in packets of 512 bytes.
    let (sigma, kinds) = table_ii(120_000, 24_400);
    println!(
        "values {:.4}, on the wire {:.4}",
        sigma.of_values(),
        sigma.on_the_wire(&WireCosts::ETHERNET, sigma.stream_bytes(), 0)
    );
    assert_eq!(kinds.get(&0x0001).map(|(len, _)| *len), Some(4));
    assert!((sigma.of_values() - 0.0258).abs() < 0.0002);
}

#[test]
fn statelets_have_the_papers_sizes() {
    let mut lab = Lab::resolved(&config());
    lab.bench.upd_enable = true;
    let (source, destination) = (socket(host(10), 5000), socket(server(10), 80));
    let exterior = lab.tcp_connect(source, destination);
    let udp_exterior = lab.udp_out(source, destination);
    lab.inbound(&udp(OUT, destination, udp_exterior, b"x")).sent_to(IN);
    lab.bench.now += Duration::from_secs(1);
    lab.arp_reply(IN, host(10));
    lab.arp_reply(OUT, server(10));
    lab.udp_out(source, destination);
    lab.tcp_out(source, destination, ACK);
    lab.inbound(&tcp(OUT, destination, exterior, RST, b"")).sent_to(IN);
    lab.pass(100_000);
    lab.pass(100_000);
    let sizes: BTreeMap<u16, usize> = lab.statelets().iter().map(|(kind, value)| (*kind, value.len())).collect();
    let expected = [
        (0x0001, 4),
        (0x0010, 18),
        (0x0011, 18),
        (0x0012, 12),
        (0x0013, 12),
        (0x0014, 12),
        (0x0015, 12),
        (0x0016, 13),
        (0x0020, 10),
        (0x0021, 10),
        (0x0022, 4),
        (0x0023, 4),
        (0x0030, 12),
        (0x0031, 12),
        (0x0032, 4),
    ];
    assert_eq!(sizes, BTreeMap::from(expected));
}

#[test]
fn merged_counts_halve_the_stream_of_the_papers_workload() {
    // 128 sockets of one host to four servers, as in §VII, 512-byte packets and their echoes.
    let mut lab = Lab::resolved(&Config { sessions_max: 10_000, ..config() });
    let sockets: Vec<_> =
        (0..128u16).map(|n| (socket(host(10), 5000 + n), socket(server(10 + (n % 4) as u8), 7))).collect();
    let exteriors: Vec<_> = sockets.iter().map(|&(source, server)| lab.udp_out(source, server)).collect();
    lab.bench.upd_enable = true;
    let (mut coalescer, mut announced, mut sent) = (Coalescer::new(), 0, 0);
    for packet in 0..20_000 {
        // 100 Mbit/s, the sum of both directions.
        lab.bench.now += Duration::from_secs(2) / 24_400;
        let (source, server) = sockets[packet % 128];
        lab.outbound(&udp(IN, source, server, &[0; 512 - 42])).sent_to(OUT);
        lab.inbound(&udp(OUT, server, exteriors[packet % 128], &[0; 512 - 42])).sent_to(IN);
        for (statelet_type, value) in lab.statelets() {
            announced += value.len() + 4;
            coalescer.push::<Nat>(statelet_type, &value).unwrap();
        }
        // Sent after a millisecond at the latest.
        if packet % 12 == 11 {
            sent += coalescer.bytes().len();
            coalescer.clear();
        }
    }
    println!("{announced} bytes announced, {sent} sent, {} merged", coalescer.merged());
    assert!(sent * 2 < announced);
}
