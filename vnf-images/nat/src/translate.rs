//! UDP, TCP and ICMP queries: translation.
//!
//! Headers are checked first, then the session and the next hop are found, and only then is anything changed. Where a
//! packet is dropped, neither it nor the state has changed.
//!
//! The IPv4 header checksum of every packet is verified. That of UDP, TCP and ICMP is verified where the packet would
//! change the state: when it begins a session, or has SYN, FIN or RST. Others keep their checksum, updated for what
//! the NAT changes and no more (RFC 3022 §4.1, RFC 1624), so that it still tells the receiver of damage on the way.
//!
//! A packet takes part in a session *outbound*, as its interior host's, or *inbound*. One that goes from an interior host
//! to another by way of the exterior address takes part in two, one after the other: a hairpin (RFC 4787 R9).

use crate::config::{Filtering, is_unicast};
use crate::drops::Drop;
use crate::icmp;
use crate::state::{Full, NoPort, Refusal};
use crate::statelet::Statelet;
use crate::tables::{Session, SessionKey};
use crate::tcp::{self, TcpState};
use crate::transport::{Ipv4Mut, Transport, is_control, is_query};
use crate::types::{Direction, Endpoint, Protocol, SessionId, Side};
use crate::{Nat, announce};
use core::net::Ipv4Addr;
use slim_core::nf::{Environment, Verdict};
use slim_core::packet::{ETHERNET_LEN, Ethernet, Ipv4, MacAddr, TcpFlags};

/// Checks an IPv4 packet as far as it does not depend on its direction.
#[inline(always)]
fn parse(packet: &mut [u8]) -> Result<(Ipv4Mut<'_>, Protocol, &mut [u8]), Drop> {
    let (ip, payload) = Ipv4::parse_mut(packet).map_err(|_| Drop::Ipv4Malformed)?;
    if !ip.checksum_is_correct() {
        return Err(Drop::Ipv4Checksum);
    }
    let protocol = Protocol::from_number(ip.protocol()).ok_or(Drop::ProtocolUnsupported)?;
    Ok((ip, protocol, payload))
}

/// Where a packet from the interior goes, by its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the exterior network or beyond.
    Exterior,
    /// To an exterior address, behind which another interior host may be.
    Hairpin,
    /// To the NAT's interior address.
    Own,
}

/// What a packet does to the session it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Refresh,
    TcpState(TcpState),
}

/// A packet's part in a session, found out before anything is changed.
#[derive(Debug, Clone, Copy)]
struct Part {
    key: SessionKey,
    id: SessionId,
    /// Whether the session has still to begin.
    begins: bool,
    effect: Effect,
}

impl Part {
    fn interior(&self) -> Endpoint {
        self.key.interior()
    }
}

impl Nat {
    /// Translates a packet from an interior host.
    #[inline(always)]
    pub(crate) fn process_outbound<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let (mut ip, protocol, payload) = parse(packet)?;
        let (source, destination) = (ip.source(), ip.destination());
        let route = self.route_outbound(source, destination)?;
        if route != Route::Exterior || (protocol == Protocol::Icmp && icmp::is_error(payload)) {
            return self.process_unusual(env, ethernet, ip, protocol, payload, route);
        }
        let ttl = self.may_leave(&ip, Side::Exterior)?;
        let mut transport = Transport::parse(protocol, Direction::Outbound, !ip.is_fragment(), payload)?;
        let (source_port, destination_port) = transport.ports();
        let (interior, server) = (Endpoint::new(source, source_port), Endpoint::new(destination, destination_port));
        let part = self.part_outbound(protocol, interior, server, transport.flags())?;
        if part.begins || is_control(transport.flags()) {
            transport.verify_checksum(&ip)?;
        }
        let next_hop = self.next_hop(destination)?;
        let next_hop_mac = self.resolve(env, Side::Exterior, next_hop).ok_or(Drop::ArpPending)?;
        self.take_part(env, Direction::Outbound, &part, ip.total_len())?;

        let exterior = part.id.exterior;
        let addresses = ip.rewrite_source(exterior.address);
        transport.rewrite_source(exterior.port, addresses);
        self.identify(env, &mut ip);
        Ok(self.send_on(ethernet, ip, ttl, Side::Exterior, next_hop_mac))
    }

    /// Translates a packet from a server to an interior host.
    #[inline(always)]
    pub(crate) fn process_inbound<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let (mut ip, protocol, payload) = parse(packet)?;
        let (source, destination) = (ip.source(), ip.destination());
        self.check_inbound(source, destination)?;
        if protocol == Protocol::Icmp && icmp::is_error(payload) {
            return self.process_error_inbound(env, ethernet, ip, payload);
        }
        if protocol == Protocol::Icmp && payload.first().is_some_and(|first| is_query(*first)) {
            return self.process_own(Side::Exterior, ethernet, ip, protocol, payload);
        }
        let ttl = self.may_leave(&ip, Side::Interior)?;
        let mut transport = Transport::parse(protocol, Direction::Inbound, !ip.is_fragment(), payload)?;
        let (source_port, destination_port) = transport.ports();
        let (server, exterior) = (Endpoint::new(source, source_port), Endpoint::new(destination, destination_port));
        let part = self.part_inbound(protocol, exterior, server, transport.flags())?;
        if part.begins || is_control(transport.flags()) {
            transport.verify_checksum(&ip)?;
        }
        let interior = part.interior();
        let host_mac = self.resolve(env, Side::Interior, interior.address).ok_or(Drop::ArpPending)?;
        self.take_part(env, Direction::Inbound, &part, ip.total_len())?;

        let addresses = ip.rewrite_destination(interior.address);
        transport.rewrite_destination(interior.port, addresses);
        Ok(self.send_on(ethernet, ip, ttl, Side::Interior, host_mac))
    }

    /// From the interior, but not just to a server: hairpins, ICMP errors, and what is for the NAT itself.
    #[cold]
    fn process_unusual<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        ip: Ipv4Mut<'_>,
        protocol: Protocol,
        payload: &mut [u8],
        route: Route,
    ) -> Result<Verdict, Drop> {
        let is_error = protocol == Protocol::Icmp && icmp::is_error(payload);
        match route {
            Route::Exterior => self.process_error_outbound(env, ethernet, ip, payload),
            Route::Hairpin if is_error => self.process_error_hairpin(env, ethernet, ip, payload),
            // Nobody behind the exterior address can be asked by identifier.
            Route::Hairpin if protocol != Protocol::Icmp => self.process_hairpin(env, ethernet, ip, protocol, payload),
            Route::Hairpin | Route::Own => self.process_own(Side::Interior, ethernet, ip, protocol, payload),
        }
    }

    /// Translates a packet from an interior host to another one's exterior endpoint, with the sender's exterior endpoint
    /// as its source (RFC 4787 R9, RFC 5382 R8).
    fn process_hairpin<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        mut ip: Ipv4Mut<'_>,
        protocol: Protocol,
        payload: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let (source, destination) = (ip.source(), ip.destination());
        let ttl = self.may_leave(&ip, Side::Interior)?;
        let mut transport = Transport::parse(protocol, Direction::Outbound, !ip.is_fragment(), payload)?;
        let (source_port, destination_port) = transport.ports();
        let (sender, target) = (Endpoint::new(source, source_port), Endpoint::new(destination, destination_port));
        let outbound = self.part_outbound(protocol, sender, target, transport.flags())?;
        let exterior = outbound.id.exterior;
        if exterior == target {
            // To itself: the way back would be the way out.
            return Err(Drop::DestinationInvalid);
        }
        let inbound = self.part_inbound(protocol, target, exterior, transport.flags())?;
        if outbound.begins && inbound.begins && self.state.sessions.capacity() - self.state.sessions.len() < 2 {
            return Err(Drop::SessionsFull);
        }
        transport.verify_checksum(&ip)?;
        let interior = inbound.interior();
        let host_mac = self.resolve(env, Side::Interior, interior.address).ok_or(Drop::ArpPending)?;
        self.take_part(env, Direction::Outbound, &outbound, ip.total_len())?;
        self.take_part(env, Direction::Inbound, &inbound, ip.total_len())?;

        let addresses = ip.rewrite_source(exterior.address);
        transport.rewrite_source(exterior.port, addresses);
        let addresses = ip.rewrite_destination(interior.address);
        transport.rewrite_destination(interior.port, addresses);
        self.identify(env, &mut ip);
        Ok(self.send_on(ethernet, ip, ttl, Side::Interior, host_mac))
    }

    /// Finishes a translated packet: `next_hop_mac` is the MAC address of who is next at `egress`.
    #[inline(always)]
    pub(crate) fn send_on(
        &self,
        mut ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        mut ip: Ipv4Mut<'_>,
        ttl: u8,
        egress: Side,
        next_hop_mac: MacAddr,
    ) -> Verdict {
        ip.rewrite_ttl(ttl);
        ethernet.set_source(self.interface(egress).mac);
        ethernet.set_destination(next_hop_mac);
        Verdict::Transmit(egress.port())
    }

    /// Which way a packet from the interior may go, by its addresses.
    #[inline(always)]
    pub(crate) fn route_outbound(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Result<Route, Drop> {
        let [interior, exterior] = [self.interface(Side::Interior), self.interface(Side::Exterior)];
        if !interior.network.is_neighbour(source) {
            return Err(Drop::SourceInvalid);
        }
        if !is_unicast(destination) {
            return Err(unusable(destination));
        }
        if interior.network.contains(destination) {
            return match destination {
                own if own == interior.network.address => Ok(Route::Own),
                host if interior.network.is_neighbour(host) => Err(Drop::DestinationInvalid),
                _ => Err(Drop::Multicast),
            };
        }
        if self.is_own(Side::Exterior, destination) {
            return Ok(Route::Hairpin);
        }
        if exterior.network.contains(destination) && !exterior.network.is_neighbour(destination) {
            return Err(Drop::Multicast);
        }
        Ok(Route::Exterior)
    }

    /// Whether a packet from the exterior may be forwarded, by its addresses.
    #[inline(always)]
    pub(crate) fn check_inbound(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), Drop> {
        if !self.is_own(Side::Exterior, destination) {
            let network = &self.interface(Side::Exterior).network;
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
        self.check_server(source)
    }

    /// Whether a packet from the exterior can have this source.
    pub(crate) fn check_server(&self, source: Ipv4Addr) -> Result<(), Drop> {
        let [interior, exterior] = [self.interface(Side::Interior), self.interface(Side::Exterior)];
        let possible = is_unicast(source)
            && !interior.network.contains(source)
            && !self.is_own(Side::Exterior, source)
            && (!exterior.network.contains(source) || exterior.network.is_neighbour(source));
        if possible { Ok(()) } else { Err(Drop::SourceInvalid) }
    }

    /// Where a packet for `destination` goes next.
    #[inline(always)]
    pub(crate) fn next_hop(&self, destination: Ipv4Addr) -> Result<Ipv4Addr, Drop> {
        if self.interface(Side::Exterior).network.contains(destination) {
            return Ok(destination);
        }
        self.gateway.ok_or(Drop::NoRoute)
    }

    /// An outbound packet's part in its session, which may have to begin.
    #[inline(always)]
    fn part_outbound(
        &mut self,
        protocol: Protocol,
        interior: Endpoint,
        server: Endpoint,
        flags: TcpFlags,
    ) -> Result<Part, Drop> {
        let key = SessionKey::new(protocol, interior, server);
        let session = self.state.sessions.get(&key).copied();
        let (exterior, effect) = match &session {
            Some(session) => (session.exterior(), self.effect(Direction::Outbound, protocol, session, flags)?),
            None if protocol == Protocol::Tcp && !tcp::opens(flags) => return Err(Drop::TcpNotSyn),
            None => (self.exterior_for(protocol, interior)?, Effect::None),
        };
        Ok(Part { key, id: SessionId { protocol, exterior, server }, begins: session.is_none(), effect })
    }

    /// An inbound packet's part in the session of the endpoint it is for, if that may receive it.
    #[inline(always)]
    fn part_inbound(
        &self,
        protocol: Protocol,
        exterior: Endpoint,
        server: Endpoint,
        flags: TcpFlags,
    ) -> Result<Part, Drop> {
        let interior = self.state.interior_of(protocol, exterior).ok_or(Drop::NoMapping)?;
        self.check_denied(protocol, interior.address, server)?;
        let key = SessionKey::new(protocol, interior, server);
        let id = SessionId { protocol, exterior, server };
        match self.state.sessions.get(&key) {
            Some(session) => {
                let effect = self.effect(Direction::Inbound, protocol, session, flags)?;
                Ok(Part { key, id, begins: false, effect })
            }
            None => self.part_unsolicited(key, id, flags),
        }
    }

    /// The part of a packet from a server that the interior endpoint has no session with (RFC 4787 R8, RFC 5382 R3).
    #[cold]
    fn part_unsolicited(&self, key: SessionKey, id: SessionId, flags: TcpFlags) -> Result<Part, Drop> {
        let admitted = match self.filtering {
            _ if self.state.forwards.contains(id.protocol, id.exterior) => true,
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self.state.knows_peer(&key),
            Filtering::AddressAndPortDependent => false,
        };
        match id.protocol {
            _ if !admitted => Err(Drop::Filtered),
            // What is not an answer is for nobody.
            Protocol::Icmp => Err(Drop::Filtered),
            // Nothing from the exterior keeps a mapping alive, so there is nothing to note (RFC 4787 R6).
            Protocol::Udp => Ok(Part { key, id, begins: false, effect: Effect::None }),
            Protocol::Tcp if tcp::opens(flags) => {
                self.check_session_limit(key.interior().address)?;
                self.check_mapping_limit(id.protocol, key.interior())?;
                Ok(Part { key, id, begins: true, effect: Effect::TcpState(TcpState::OpeningInbound) })
            }
            Protocol::Tcp => Err(Drop::Filtered),
        }
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
            Protocol::Udp | Protocol::Icmp => true,
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

    /// Changes the state as the packet's part in its session demands. Nothing has changed if this fails.
    #[inline(always)]
    fn take_part<E: Environment>(
        &mut self,
        env: &mut E,
        direction: Direction,
        part: &Part,
        bytes: u16,
    ) -> Result<(), Drop> {
        if part.begins {
            self.begin_session(env, *part)?;
        }
        self.count(env, direction, part.interior().address, bytes)?;
        match part.effect {
            Effect::None => {}
            Effect::Refresh => {
                self.state.refresh(part.key);
                announce(env, &Statelet::Refresh(part.id));
            }
            Effect::TcpState(state) => {
                self.state.set_tcp_state(part.key, state);
                announce(env, &Statelet::TcpState(part.id, state));
            }
        }
        Ok(())
    }

    /// The exterior endpoint of an interior one's next session: that of its others, or a free one, not taken yet.
    #[cold]
    fn exterior_for(&mut self, protocol: Protocol, interior: Endpoint) -> Result<Endpoint, Drop> {
        self.check_session_limit(interior.address)?;
        if let Some(exterior) = self.state.exterior_of(protocol, interior) {
            self.check_mapping_limit(protocol, interior)?;
            return Ok(exterior);
        }
        self.check_port_limit(interior.address)?;
        self.state.pick_exterior(protocol, interior).map_err(|reason| match reason {
            NoPort::Exhausted => Drop::PortsExhausted,
            NoPort::HostLimit => Drop::HostPortLimit,
        })
    }

    fn check_port_limit(&self, host: Ipv4Addr) -> Result<(), Drop> {
        let ports = self.state.hosts.get(&host.to_bits()).map_or(0, |host| host.ports);
        if self.ports_per_host_max.is_some_and(|limit| ports >= limit) {
            return Err(Drop::HostPortLimit);
        }
        Ok(())
    }

    /// A forward's mapping counts as one session more.
    fn check_mapping_limit(&self, protocol: Protocol, interior: Endpoint) -> Result<(), Drop> {
        if self.sessions_per_mapping_max.is_some_and(|limit| self.state.sessions_of(protocol, interior) >= limit) {
            return Err(Drop::MappingSessionLimit);
        }
        Ok(())
    }

    fn check_session_limit(&self, host: Ipv4Addr) -> Result<(), Drop> {
        let sessions = self.state.hosts.get(&host.to_bits()).map_or(0, |host| host.sessions);
        if self.sessions_per_host_max.is_some_and(|limit| sessions >= limit) {
            return Err(Drop::HostSessionLimit);
        }
        Ok(())
    }

    #[cold]
    fn begin_session<E: Environment>(&mut self, env: &mut E, part: Part) -> Result<(), Drop> {
        let interior = part.interior();
        let opened = self.state.open_session(&part.id, interior).map_err(|refusal| match refusal {
            Refusal::Full(Full::Sessions | Full::Peers) => Drop::SessionsFull,
            Refusal::Full(Full::Mappings) => Drop::MappingsFull,
            Refusal::Full(Full::Hosts) => Drop::HostsFull,
            Refusal::Full(Full::Neighbours | Full::Fragments | Full::Syns) | Refusal::Inconsistent => {
                Drop::StateInconsistent
            }
        })?;
        announce(env, &Statelet::Session { id: part.id, interior });
        self.log_level.opened(env, &self.state, &part.id, interior, opened);
        if part.id.protocol == Protocol::Tcp {
            self.forget_unsolicited(env, &part.id);
        }
        Ok(())
    }

    /// Counts a packet for its interior host.
    #[inline(always)]
    pub(crate) fn count<E: Environment>(
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
