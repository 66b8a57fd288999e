//! What the tables hold: keys and values of plain integers.
//!
//! Addresses are numbers in host order, protocols their number in the IPv4 header, instants ticks of the NAT's clock.

use crate::blocks::BLOCKS_PER_HOST_MAX;
use crate::tcp::TcpState;
use crate::types::{Endpoint, Protocol, SessionId, Side};
use core::net::Ipv4Addr;

slim_core::pod! {
    /// An endpoint of one protocol: the key of a mapping (interior) or of a binding (exterior).
    pub struct EndpointKey {
        /// The IPv4 address.
        pub address: u32,
        /// The UDP or TCP port, or the identifier of ICMP queries.
        pub port: u16,
        /// The transport protocol.
        pub protocol: u8,
    }
}

slim_core::pod! {
    /// What an interior endpoint is mapped to, for every server alike (endpoint-independent mapping, RFC 4787 R1).
    pub struct Mapping {
        /// The exterior address.
        pub exterior_address: u32,
        /// The exterior port.
        pub exterior_port: u16,
        /// How many sessions use it, at least one.
        pub sessions: u32,
    }
}

slim_core::pod! {
    /// The way back: which interior endpoint has the exterior one.
    pub struct Binding {
        /// The interior address.
        pub interior_address: u32,
        /// The interior port.
        pub interior_port: u16,
    }
}

slim_core::pod! {
    /// A session as the interior host sees it: its socket and the server's.
    pub struct SessionKey {
        /// The interior address.
        pub interior_address: u32,
        /// The server's address.
        pub server_address: u32,
        /// The interior port.
        pub interior_port: u16,
        /// The server's port; 0 for ICMP.
        pub server_port: u16,
        /// The transport protocol.
        pub protocol: u8,
    }
}

slim_core::pod! {
    /// A session's state.
    pub struct Session {
        /// The mapping's exterior address, repeated to save a look-up per packet.
        pub exterior_address: u32,
        /// The mapping's exterior port.
        pub exterior_port: u16,
        /// The [`TcpState`](crate::tcp::TcpState)'s code, 0 for UDP and ICMP.
        pub tcp_state: u8,
        /// When an outbound packet or a change of state was last seen.
        pub last_seen: u32,
    }
}

slim_core::pod! {
    /// How many sessions there are.
    pub struct Census {
        /// By [`Session::tcp_state`]; what has none is not among them.
        pub tcp: [u32; 8],
        /// Of UDP.
        pub udp: u32,
        /// Of ICMP.
        pub icmp: u32,
    }
}

slim_core::pod! {
    /// An interior endpoint and an address it has sessions with.
    pub struct PeerKey {
        /// The interior address.
        pub interior_address: u32,
        /// The server's address.
        pub server_address: u32,
        /// The interior port.
        pub interior_port: u16,
        /// The transport protocol.
        pub protocol: u8,
    }
}

slim_core::pod! {
    /// An interior host's traffic, in packets translated and in bytes of their IPv4 total length.
    pub struct Host {
        /// Packets to the exterior.
        pub packets_outbound: u64,
        /// Bytes to the exterior.
        pub bytes_outbound: u64,
        /// Packets from the exterior.
        pub packets_inbound: u64,
        /// Bytes from the exterior.
        pub bytes_inbound: u64,
        /// Its sessions.
        pub sessions: u32,
        /// When it was last counted.
        pub last_seen: u32,
        /// How many of its endpoints have an exterior port.
        pub ports: u32,
        /// Packets in fragments that it has under way to the exterior.
        pub trains: u32,
        /// How many forwards lead to it. With one it stays for good.
        pub forwards: u32,
        /// The exterior address that they have, or had last; 0 before the first.
        pub exterior_address: u32,
        /// One more than the numbers of the port blocks that it is lent; then, and between them, zeros.
        pub blocks: [u16; BLOCKS_PER_HOST_MAX],
    }
}

slim_core::pod! {
    /// A neighbour on one side.
    pub struct NeighbourKey {
        /// Its IPv4 address.
        pub address: u32,
        /// The logical port it is reached through.
        pub port: u8,
    }
}

slim_core::pod! {
    /// What ARP has told about a neighbour.
    pub struct Neighbour {
        /// Its MAC address.
        pub mac: [u8; 6],
        /// When it was last confirmed.
        pub confirmed: u32,
    }
}

impl EndpointKey {
    pub(crate) const fn new(protocol: Protocol, endpoint: Endpoint) -> Self {
        Self { address: endpoint.address.to_bits(), port: endpoint.port, protocol: protocol.number() }
    }
}

impl Mapping {
    pub(crate) const fn exterior(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.exterior_address), self.exterior_port)
    }
}

impl Binding {
    pub(crate) const fn interior(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.interior_address), self.interior_port)
    }
}

impl SessionKey {
    pub(crate) const fn new(protocol: Protocol, interior: Endpoint, server: Endpoint) -> Self {
        Self {
            interior_address: interior.address.to_bits(),
            server_address: server.address.to_bits(),
            interior_port: interior.port,
            server_port: server.port,
            protocol: protocol.number(),
        }
    }

    pub(crate) const fn interior(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.interior_address), self.interior_port)
    }

    pub(crate) const fn server(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.server_address), self.server_port)
    }

    /// The session's name towards the exterior. `None` for a protocol that is not translated, which only a peer's
    /// snapshot could bring.
    pub(crate) fn id(&self, session: &Session) -> Option<SessionId> {
        let protocol = Protocol::from_number(self.protocol)?;
        Some(SessionId { protocol, exterior: session.exterior(), server: self.server() })
    }
}

impl Census {
    /// The number of sessions of a protocol, and of TCP those in a state.
    pub(crate) fn count_mut(&mut self, protocol: u8, tcp_state: u8) -> Option<&mut u32> {
        match Protocol::from_number(protocol)? {
            Protocol::Udp => Some(&mut self.udp),
            Protocol::Icmp => Some(&mut self.icmp),
            Protocol::Tcp => self.tcp.get_mut(usize::from(tcp_state)),
        }
    }

    /// The number of TCP sessions in a state.
    pub fn tcp(&self, state: TcpState) -> u32 {
        self.tcp.get(usize::from(state.code())).copied().unwrap_or_default()
    }
}

impl PeerKey {
    pub(crate) const fn of(session: &SessionKey) -> Self {
        let SessionKey { interior_address, server_address, interior_port, protocol, .. } = *session;
        Self { interior_address, server_address, interior_port, protocol }
    }
}

impl Session {
    pub(crate) const fn exterior(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.exterior_address), self.exterior_port)
    }
}

impl NeighbourKey {
    pub(crate) const fn new(side: Side, address: Ipv4Addr) -> Self {
        Self { address: address.to_bits(), port: side.port().0 }
    }
}
