//! UDP and TCP translation.
//!
//! Headers are checked first, then the session and the next hop are found, and only then is anything changed. Where a
//! packet is dropped, neither it nor the state has changed.
//!
//! The IPv4 header checksum of every packet is verified. That of UDP and TCP is verified where the packet would
//! change the state: when it begins a session, or has SYN, FIN or RST. Others keep their checksum, updated for what
//! the NAT changes and no more (RFC 3022 §4.1, RFC 1624), so that it still tells the receiver of damage on the way.

use crate::config::is_unicast;
use crate::drops::Drop;
use crate::state::{Full, Refusal};
use crate::statelet::Statelet;
use crate::tables::{Session, SessionKey};
use crate::tcp::{self, TcpState};
use crate::types::{Direction, Endpoint, Protocol, SessionId, Side};
use crate::{Nat, announce};
use core::net::Ipv4Addr;
use slim_core::nf::{Environment, Verdict};
use slim_core::packet::{
    ChecksumDelta, ETHERNET_LEN, Ethernet, IPV4_LEN, Ipv4, MacAddr, TCP_LEN, Tcp, TcpFlags, UDP_LEN, Udp, protocol,
};

type Ipv4Mut<'a> = Ipv4<&'a mut [u8; IPV4_LEN], &'a mut [u8]>;

/// The transport header of a packet, and what follows it.
enum Transport<'a> {
    Udp(Udp<&'a mut [u8; UDP_LEN]>, &'a mut [u8]),
    Tcp(Tcp<&'a mut [u8; TCP_LEN], &'a mut [u8]>, &'a mut [u8]),
}

impl<'a> Transport<'a> {
    #[inline(always)]
    fn parse(protocol: Protocol, bytes: &'a mut [u8]) -> Result<Self, Drop> {
        match protocol {
            Protocol::Udp => {
                let (udp, payload) = Udp::parse_mut(bytes).map_err(|_| Drop::UdpMalformed)?;
                if udp.source() == 0 || udp.destination() == 0 {
                    return Err(Drop::UdpMalformed);
                }
                Ok(Self::Udp(udp, payload))
            }
            Protocol::Tcp => {
                let (tcp, payload) = Tcp::parse_mut(bytes).map_err(|_| Drop::TcpMalformed)?;
                if tcp.source() == 0 || tcp.destination() == 0 {
                    return Err(Drop::TcpMalformed);
                }
                if !tcp::flags_are_valid(tcp.flags()) {
                    return Err(Drop::TcpFlagsInvalid);
                }
                Ok(Self::Tcp(tcp, payload))
            }
        }
    }

    #[inline(always)]
    fn ports(&self) -> (u16, u16) {
        match self {
            Self::Udp(udp, _) => (udp.source(), udp.destination()),
            Self::Tcp(tcp, _) => (tcp.source(), tcp.destination()),
        }
    }

    /// No flags for UDP.
    #[inline(always)]
    fn flags(&self) -> TcpFlags {
        match self {
            Self::Udp(..) => TcpFlags::default(),
            Self::Tcp(tcp, _) => tcp.flags(),
        }
    }

    fn verify_checksum(&self, ip: &Ipv4Mut<'_>) -> Result<(), Drop> {
        let is_correct = match self {
            Self::Udp(udp, payload) => udp.checksum_is_correct(ip.pseudo_header(udp.length()), payload),
            Self::Tcp(tcp, payload) => {
                // The segment is a part of an IPv4 packet, so its length fits.
                let length = (tcp.header_len() + payload.len()) as u16;
                tcp.checksum_is_correct(ip.pseudo_header(length), payload)
            }
        };
        if is_correct { Ok(()) } else { Err(Drop::TransportChecksum) }
    }

    #[inline(always)]
    fn rewrite_source(&mut self, port: u16, addresses: ChecksumDelta) {
        match self {
            Self::Udp(udp, _) => udp.rewrite_source(port, addresses),
            Self::Tcp(tcp, _) => tcp.rewrite_source(port, addresses),
        }
    }

    #[inline(always)]
    fn rewrite_destination(&mut self, port: u16, addresses: ChecksumDelta) {
        match self {
            Self::Udp(udp, _) => udp.rewrite_destination(port, addresses),
            Self::Tcp(tcp, _) => tcp.rewrite_destination(port, addresses),
        }
    }
}

/// Checks an IPv4 packet as far as it does not depend on its direction.
#[inline(always)]
fn parse(packet: &mut [u8]) -> Result<(Ipv4Mut<'_>, Protocol, &mut [u8]), Drop> {
    let (ip, payload) = Ipv4::parse_mut(packet).map_err(|_| Drop::Ipv4Malformed)?;
    if !ip.checksum_is_correct() {
        return Err(Drop::Ipv4Checksum);
    }
    if ip.is_fragment() {
        return Err(Drop::FragmentUnsupported);
    }
    let protocol = Protocol::from_number(ip.protocol()).ok_or(match ip.protocol() {
        protocol::ICMP => Drop::IcmpUnsupported,
        _ => Drop::ProtocolUnsupported,
    })?;
    Ok((ip, protocol, payload))
}

/// The time to live of the packet when it leaves.
#[inline(always)]
fn next_ttl(ip: &Ipv4Mut<'_>) -> Result<u8, Drop> {
    ip.ttl().checked_sub(1).filter(|ttl| *ttl > 0).ok_or(Drop::TtlExpired)
}

/// What a packet does to the session it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Refresh,
    TcpState(TcpState),
}

impl Nat {
    /// Translates a packet from an interior host to a server.
    #[inline(always)]
    pub(crate) fn process_outbound<E: Environment>(
        &mut self,
        env: &mut E,
        mut ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let (mut ip, protocol, payload) = parse(packet)?;
        let (source, destination) = (ip.source(), ip.destination());
        self.check_outbound(source, destination)?;
        let ttl = next_ttl(&ip)?;
        let mut transport = Transport::parse(protocol, payload)?;
        let (source_port, destination_port) = transport.ports();
        let (interior, server) = (Endpoint::new(source, source_port), Endpoint::new(destination, destination_port));
        let key = SessionKey::new(protocol, interior, server);
        let session = self.state.sessions.get(&key).copied();
        let effect = match &session {
            Some(session) => self.effect(Direction::Outbound, protocol, session, transport.flags())?,
            None if protocol == Protocol::Tcp && !tcp::opens(transport.flags()) => return Err(Drop::TcpNotSyn),
            None => Effect::None,
        };
        if session.is_none() || is_control(transport.flags()) {
            transport.verify_checksum(&ip)?;
        }
        let next_hop = self.next_hop(destination)?;
        let next_hop_mac = self.resolve(env, Side::Exterior, next_hop).ok_or(Drop::ArpPending)?;
        let exterior = match session {
            Some(session) => session.exterior(),
            None => self.begin_session(env, protocol, interior, server)?,
        };
        self.count(env, Direction::Outbound, interior.address, ip.total_len())?;
        self.apply_effect(env, &key, SessionId { protocol, exterior, server }, effect);

        let addresses = ip.rewrite_source(exterior.address);
        ip.rewrite_ttl(ttl);
        transport.rewrite_source(exterior.port, addresses);
        ethernet.set_source(self.interface(Side::Exterior).mac);
        ethernet.set_destination(next_hop_mac);
        Ok(Verdict::Transmit(Side::Exterior.port()))
    }

    /// Translates a packet from a server to an interior host.
    #[inline(always)]
    pub(crate) fn process_inbound<E: Environment>(
        &mut self,
        env: &mut E,
        mut ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let (mut ip, protocol, payload) = parse(packet)?;
        let (source, destination) = (ip.source(), ip.destination());
        self.check_inbound(source, destination)?;
        let ttl = next_ttl(&ip)?;
        let mut transport = Transport::parse(protocol, payload)?;
        let (source_port, destination_port) = transport.ports();
        let (server, exterior) = (Endpoint::new(source, source_port), Endpoint::new(destination, destination_port));
        let interior = self.state.interior_of(protocol, exterior).ok_or(Drop::NoMapping)?;
        let key = SessionKey::new(protocol, interior, server);
        let session = self.filter(&key)?;
        let effect = self.effect(Direction::Inbound, protocol, &session, transport.flags())?;
        if is_control(transport.flags()) {
            transport.verify_checksum(&ip)?;
        }
        let host_mac: MacAddr = self.resolve(env, Side::Interior, interior.address).ok_or(Drop::ArpPending)?;
        self.count(env, Direction::Inbound, interior.address, ip.total_len())?;
        self.apply_effect(env, &key, SessionId { protocol, exterior, server }, effect);

        let addresses = ip.rewrite_destination(interior.address);
        ip.rewrite_ttl(ttl);
        transport.rewrite_destination(interior.port, addresses);
        ethernet.set_source(self.interface(Side::Interior).mac);
        ethernet.set_destination(host_mac);
        Ok(Verdict::Transmit(Side::Interior.port()))
    }

    /// Whether a packet from the interior may be forwarded, by its addresses.
    #[inline(always)]
    fn check_outbound(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), Drop> {
        let [interior, exterior] = [self.interface(Side::Interior), self.interface(Side::Exterior)];
        if !interior.network.is_neighbour(source) {
            return Err(Drop::SourceInvalid);
        }
        if !is_unicast(destination) {
            return Err(unusable(destination));
        }
        if interior.network.contains(destination) {
            return Err(match destination {
                own if own == interior.network.address => Drop::ToSelf,
                host if interior.network.is_neighbour(host) => Drop::DestinationInvalid,
                _ => Drop::Multicast,
            });
        }
        if exterior.network.contains(destination) && !exterior.network.is_neighbour(destination) {
            let own = destination == exterior.network.address;
            return Err(if own { Drop::HairpinUnsupported } else { Drop::Multicast });
        }
        Ok(())
    }

    /// Whether a packet from the exterior may be forwarded, by its addresses.
    #[inline(always)]
    fn check_inbound(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), Drop> {
        let [interior, exterior] = [self.interface(Side::Interior), self.interface(Side::Exterior)];
        if destination != exterior.network.address {
            let network = &exterior.network;
            return Err(
                if is_unicast(destination) && network.contains(destination) && !network.is_neighbour(destination) {
                    Drop::Multicast
                } else if is_unicast(destination) {
                    Drop::DestinationInvalid
                } else {
                    unusable(destination)
                },
            );
        }
        let possible = is_unicast(source)
            && !interior.network.contains(source)
            && (!exterior.network.contains(source) || exterior.network.is_neighbour(source));
        if possible { Ok(()) } else { Err(Drop::SourceInvalid) }
    }

    /// Where a packet for `destination` goes next.
    #[inline(always)]
    fn next_hop(&self, destination: Ipv4Addr) -> Result<Ipv4Addr, Drop> {
        if self.interface(Side::Exterior).network.contains(destination) {
            return Ok(destination);
        }
        self.gateway.ok_or(Drop::NoRoute)
    }

    /// Which inbound packets a mapped endpoint receives: only those of servers it has a session with.
    ///
    /// Address- and port-dependent filtering (RFC 4787 §5); endpoint-independent filtering would answer here.
    #[inline(always)]
    fn filter(&self, key: &SessionKey) -> Result<Session, Drop> {
        self.state.sessions.get(key).copied().ok_or(Drop::Filtered)
    }

    /// What a packet will do to its session.
    #[inline(always)]
    fn effect(
        &self,
        direction: Direction,
        protocol: Protocol,
        session: &Session,
        flags: TcpFlags,
    ) -> Result<Effect, Drop> {
        let may_refresh = match protocol {
            Protocol::Udp => true,
            Protocol::Tcp => {
                let state = TcpState::from_code(session.tcp_state).ok_or(Drop::StateInconsistent)?;
                let next = state.after(direction, flags);
                if next != state {
                    return Ok(Effect::TcpState(next));
                }
                state.is_refreshed()
            }
        };
        // Only outbound packets keep a session alive (RFC 4787 R6), and once per tick says it all.
        let refreshes = may_refresh && direction == Direction::Outbound && session.last_seen != self.state.clock.get();
        Ok(if refreshes { Effect::Refresh } else { Effect::None })
    }

    /// Does it.
    #[inline(always)]
    fn apply_effect<E: Environment>(&mut self, env: &mut E, key: &SessionKey, id: SessionId, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Refresh => {
                self.state.refresh(key);
                announce(env, &Statelet::Refresh(id));
            }
            Effect::TcpState(state) => {
                self.state.set_tcp_state(key, state);
                announce(env, &Statelet::TcpState(id, state));
            }
        }
    }

    /// Begins a session and returns its exterior endpoint: that of the interior endpoint's other sessions, or a new
    /// one.
    fn begin_session<E: Environment>(
        &mut self,
        env: &mut E,
        protocol: Protocol,
        interior: Endpoint,
        server: Endpoint,
    ) -> Result<Endpoint, Drop> {
        if let Some(limit) = self.sessions_per_host_max {
            let host = self.state.hosts.get(&interior.address.to_bits());
            if host.is_some_and(|host| host.sessions >= limit) {
                return Err(Drop::HostSessionLimit);
            }
        }
        let exterior = match self.state.exterior_of(protocol, interior) {
            Some(exterior) => exterior,
            None => {
                let port = self.state.ports.pick(protocol).ok_or(Drop::PortsExhausted)?;
                Endpoint::new(self.interface(Side::Exterior).network.address, port)
            }
        };
        let id = SessionId { protocol, exterior, server };
        self.state.open_session(&id, interior).map_err(|refusal| match refusal {
            Refusal::Full(Full::Sessions) => Drop::SessionsFull,
            Refusal::Full(Full::Mappings) => Drop::MappingsFull,
            Refusal::Full(Full::Hosts) => Drop::HostsFull,
            Refusal::Full(Full::Neighbours) | Refusal::Inconsistent => Drop::StateInconsistent,
        })?;
        announce(env, &Statelet::Session { id, interior });
        Ok(exterior)
    }

    /// Counts a packet for its interior host.
    #[inline(always)]
    fn count<E: Environment>(
        &mut self,
        env: &mut E,
        direction: Direction,
        address: Ipv4Addr,
        bytes: u16,
    ) -> Result<(), Drop> {
        let total_bytes = self.state.count(direction, address, 1, bytes.into()).ok_or(Drop::StateInconsistent)?;
        announce(env, &Statelet::Count { direction, address, packets: 1, total_bytes });
        Ok(())
    }
}

/// Why a destination that is not a host's address is not forwarded to.
fn unusable(destination: Ipv4Addr) -> Drop {
    if destination.is_multicast() || destination.is_broadcast() { Drop::Multicast } else { Drop::DestinationInvalid }
}

/// Whether a segment with these flags may change a TCP session's state.
fn is_control(flags: TcpFlags) -> bool {
    flags.intersects(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
}
