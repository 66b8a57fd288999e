//! A sender of UDP packets: this program once more, in a namespace.

use crate::clock;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// The argument that makes this program the sender: a number of sessions, milliseconds, a CPU.
pub const SEND: &str = "send";

/// Sockets, each with a port of its own; further sessions differ in their destination.
const SOCKETS: usize = 100;

/// Of a UDP packet in an Ethernet frame of 64 bytes.
const PAYLOAD_LEN: usize = 18;

/// The first destination: addresses for measurements (RFC 2544).
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Sends round and round through so many sessions; prints packets sent, and the nanoseconds that took.
pub fn send(sessions: usize, milliseconds: u64, cpu: usize) -> Result<()> {
    clock::pin(cpu);
    let sockets = (0..sessions.min(SOCKETS))
        .map(|number| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 20_000 + number as u16)).context("cannot bind"))
        .collect::<Result<Vec<_>>>()?;
    let destinations = sessions.div_ceil(SOCKETS) as u32;
    let payload = [0x5a; PAYLOAD_LEN];
    let round = || -> Result<u64> {
        for destination in 0..destinations {
            let to = SocketAddrV4::new(Ipv4Addr::from_bits(FIRST.to_bits() + destination), 443);
            for socket in &sockets {
                socket.send_to(&payload, to).context("cannot send")?;
            }
        }
        Ok(u64::from(destinations) * sockets.len() as u64)
    };
    // All sessions begin before they are measured.
    round()?;
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_millis(milliseconds) {
        sent += round()?;
    }
    println!("{sent} {}", begin.elapsed().as_nanos());
    Ok(())
}
