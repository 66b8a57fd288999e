//! A look at the packets of a burst before the first of them is processed.
//!
//! With many sessions nearly every look-up waits for memory, some hundred nanoseconds at a time. Here the look-ups of a
//! whole burst wait together: in steps, each for all packets, of which each asks for the memory that the next one reads.
//!
//! ```text
//! outbound   session, host: tags ─► session, host: slots
//! inbound    binding: tags ─► binding: slot ─► session, host, neighbour: tags ─► session, host, neighbour: slots
//! ```
//!
//! Nothing depends on it but time. What a packet really is, is found out when it is processed.

use crate::Nat;
use crate::tables::{EndpointKey, NeighbourKey, SessionKey};
use crate::types::{Endpoint, Protocol, Side};
use core::net::Ipv4Addr;
use slim_core::nf::PortId;
use slim_core::packet::{ETHERNET_LEN, IPV4_LEN, PacketBuf};
use slim_core::table::Prefetched;

/// Packets looked at together.
const BURST: usize = 32;

/// With fewer sessions everything is in the cache already.
const SESSIONS_MIN: usize = 4096;

/// With fewer hosts their entries are.
const HOSTS_MIN: usize = 1024;

/// What most packets are: UDP or TCP in IPv4 without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Glance {
    protocol: Protocol,
    source: Endpoint,
    destination: Endpoint,
}

#[inline(always)]
fn glance(frame: &[u8]) -> Option<Glance> {
    const PORTS_AT: usize = ETHERNET_LEN + IPV4_LEN;
    let frame: &[u8; PORTS_AT + 4] = frame.first_chunk()?;
    if frame[12..15] != [0x08, 0x00, 0x45] {
        return None;
    }
    let protocol = match frame[ETHERNET_LEN + 9] {
        17 => Protocol::Udp,
        6 => Protocol::Tcp,
        _ => return None,
    };
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let endpoint = |address_at, port_at| Endpoint::new(address(address_at), port(port_at));
    Some(Glance {
        protocol,
        source: endpoint(ETHERNET_LEN + 12, PORTS_AT),
        destination: endpoint(ETHERNET_LEN + 16, PORTS_AT + 2),
    })
}

impl Nat {
    /// Has what a burst needs of the state brought into the cache.
    #[inline]
    pub(crate) fn look_ahead<P: PacketBuf>(&self, port: PortId, packets: &[P]) {
        if self.state.sessions.len() < SESSIONS_MIN {
            return;
        }
        for packets in packets.chunks(BURST) {
            match Side::of_port(port) {
                Some(Side::Interior) => self.look_ahead_outbound(packets),
                Some(Side::Exterior) => self.look_ahead_inbound(packets),
                None => {}
            }
        }
    }

    fn look_ahead_outbound<P: PacketBuf>(&self, packets: &[P]) {
        let with_hosts = self.state.hosts.len() >= HOSTS_MIN;
        let mut asked: [Option<(Prefetched, Option<Prefetched>)>; BURST] = [None; BURST];
        for (packet, asked) in packets.iter().zip(&mut asked) {
            let Some(Glance { protocol, source, destination }) = glance(packet.bytes()) else { continue };
            let session = self.state.sessions.prefetch(&SessionKey::new(protocol, source, destination));
            let host = with_hosts.then(|| self.state.hosts.prefetch(&source.address.to_bits()));
            *asked = Some((session, host));
        }
        for (session, host) in asked.into_iter().flatten() {
            self.state.sessions.prefetch_value(session);
            if let Some(host) = host {
                self.state.hosts.prefetch_value(host);
            }
        }
    }

    fn look_ahead_inbound<P: PacketBuf>(&self, packets: &[P]) {
        let with_hosts = self.state.hosts.len() >= HOSTS_MIN;
        let mut bindings: [Option<(Prefetched, Glance)>; BURST] = [None; BURST];
        for (packet, binding) in packets.iter().zip(&mut bindings) {
            let Some(glance) = glance(packet.bytes()) else { continue };
            let key = EndpointKey::new(glance.protocol, glance.destination);
            *binding = Some((self.state.bindings.prefetch(&key), glance));
        }
        for (binding, _) in bindings.iter().flatten() {
            self.state.bindings.prefetch_value(*binding);
        }
        let mut asked: [Option<(Prefetched, Option<[Prefetched; 2]>)>; BURST] = [None; BURST];
        for (binding, asked) in bindings.iter().zip(&mut asked) {
            let Some((_, Glance { protocol, source, destination })) = *binding else { continue };
            let Some(interior) = self.state.interior_of(protocol, destination) else { continue };
            let session = self.state.sessions.prefetch(&SessionKey::new(protocol, interior, source));
            let host = with_hosts.then(|| {
                let neighbour = NeighbourKey::new(Side::Interior, interior.address);
                [self.state.hosts.prefetch(&interior.address.to_bits()), self.state.neighbours.prefetch(&neighbour)]
            });
            *asked = Some((session, host));
        }
        for (session, host) in asked.into_iter().flatten() {
            self.state.sessions.prefetch_value(session);
            if let Some([host, neighbour]) = host {
                self.state.hosts.prefetch_value(host);
                self.state.neighbours.prefetch_value(neighbour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::SocketAddrV4;
    use slim_core::packet::{MacAddr, TcpFlags, emit};

    #[test]
    fn a_glance_sees_what_the_packet_says() {
        let (source, destination) = ("10.1.0.2:1234".parse().unwrap(), "192.0.2.7:443".parse().unwrap());
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let ends = emit::Ends { source_mac: mac, destination_mac: mac, source, destination };
        let endpoint = |address: SocketAddrV4| Endpoint::new(*address.ip(), address.port());
        let seen = |protocol| {
            Some(Glance { protocol, source: endpoint(ends.source), destination: endpoint(ends.destination) })
        };
        let mut frame = [0; 100];
        let len = emit::udp(&mut frame, &ends, b"x").unwrap();
        assert_eq!(glance(&frame[..len]), seen(Protocol::Udp));
        for len in 0..ETHERNET_LEN + IPV4_LEN + 4 {
            assert_eq!(glance(&frame[..len]), None);
        }
        let fields = emit::TcpFields { sequence: 1, acknowledgement: 0, flags: TcpFlags::SYN, window: 1 };
        emit::tcp(&mut frame, &ends, &fields, &[]).unwrap();
        assert_eq!(glance(&frame), seen(Protocol::Tcp));
        frame[14] = 0x46;
        assert_eq!(glance(&frame), None);
    }
}
