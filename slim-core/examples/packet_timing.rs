//! Times what a NAT does to a UDP frame, without its tables: `cargo run --release -p slim-core --example packet_timing`.

use slim_core::packet::{Ethernet, HeaderError, Ipv4, MacAddr, Udp, emit, ether_type, protocol};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// Parses all headers and rewrites MAC addresses, time to live, source address and port with their checksums.
#[inline(never)]
fn translate(frame: &mut [u8], address: Ipv4Addr, port: u16) -> Result<(), HeaderError> {
    let (mut ethernet, packet) = Ethernet::parse_mut(frame)?;
    if ethernet.ether_type() != ether_type::IPV4 {
        return Ok(());
    }
    let (mut ip, datagram) = Ipv4::parse_mut(packet)?;
    if ip.protocol() != protocol::UDP || ip.is_fragment() || !ip.checksum_is_correct() {
        return Ok(());
    }
    let (mut udp, _) = Udp::parse_mut(datagram)?;
    ethernet.set_destination(MacAddr([2, 0, 0, 0, 0, 9]));
    ethernet.set_source(MacAddr([2, 0, 0, 0, 0, 8]));
    ip.rewrite_ttl(ip.ttl().wrapping_sub(1));
    let delta = ip.rewrite_source(address);
    udp.rewrite_source(port, delta);
    Ok(())
}

fn main() {
    const BATCH: u32 = 10_000;
    let ends = emit::Ends {
        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        source: SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 10), 4660),
        destination: SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 10), 7),
    };
    let mut frame = [0; 512];
    emit::udp_around(&mut frame, &ends, 512 - emit::UDP_PAYLOAD_AT).expect("it fits");
    // The median over batches so short that few are interrupted by other programs.
    let mut batches: Vec<_> = (0..201)
        .map(|batch| {
            let begin = Instant::now();
            for number in 0..BATCH {
                let address = Ipv4Addr::from_bits(number ^ batch);
                translate(black_box(&mut frame), address, number as u16).expect("the frame is correct");
            }
            begin.elapsed().as_nanos() as f64 / f64::from(BATCH)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    println!("translate/udp/512: {:.1} ns per packet", batches[batches.len() / 2]);
}
