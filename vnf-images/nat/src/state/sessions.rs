//! Transitions of sessions, and of the mappings, bindings and peers that they hold.

use super::{Full, Refusal, State};
use crate::allocator::{Wish, pick_address};
use crate::config::{Pooling, is_unicast};
use crate::ports::{Parity, PortSet};
use crate::tables::{Binding, EndpointKey, Host, Mapping, PeerKey, Session, SessionKey};
use crate::tcp::TcpState;
use crate::types::{Endpoint, Protocol, SessionId, Side};
use core::net::Ipv4Addr;

impl State {
    /// Where packets to an exterior endpoint go.
    #[inline(always)]
    pub(crate) fn interior_of(&self, protocol: Protocol, exterior: Endpoint) -> Option<Endpoint> {
        self.bindings.get(&EndpointKey::new(protocol, exterior)).map(Binding::interior)
    }

    /// What an interior endpoint is mapped to, if it is.
    pub(crate) fn exterior_of(&self, protocol: Protocol, interior: Endpoint) -> Option<Endpoint> {
        self.mappings.get(&EndpointKey::new(protocol, interior)).map(Mapping::exterior)
    }

    /// How many sessions share an interior endpoint's mapping.
    pub(crate) fn sessions_of(&self, protocol: Protocol, interior: Endpoint) -> u32 {
        self.mappings.get(&EndpointKey::new(protocol, interior)).map_or(0, |mapping| mapping.sessions)
    }

    /// The key of the session that the exterior knows as `id`.
    pub(super) fn known(&self, id: &SessionId) -> Result<SessionKey, Refusal> {
        let interior = self.interior_of(id.protocol, id.exterior).ok_or(Refusal::Inconsistent)?;
        let key = SessionKey::new(id.protocol, interior, id.server);
        self.sessions
            .get(&key)
            .filter(|session| session.exterior() == id.exterior)
            .map(|_| key)
            .ok_or(Refusal::Inconsistent)
    }

    /// Whether a host can have `address` on a side.
    #[inline(always)]
    pub(crate) fn is_neighbour(&self, side: Side, address: Ipv4Addr) -> bool {
        self.networks[side.index()].is_neighbour(address) && (side == Side::Interior || !self.pool.contains(address))
    }

    /// A free exterior endpoint for an interior one that has none; it stays free.
    ///
    /// With paired pooling it has the address that the host has already (RFC 4787 R2). A host without any gets the one
    /// it had last, so long as there are ports left.
    pub(crate) fn pick_exterior(&mut self, protocol: Protocol, interior: Endpoint) -> Result<Endpoint, NoPort> {
        let random = if self.pool.len() > 1 { self.ports.random() } else { 0 };
        let host = self.hosts.get(&interior.address.to_bits()).filter(|_| self.pooling == Pooling::Paired).copied();
        let free = |address| match &self.block_index {
            Some(index) => index.free(address),
            None => self.ports.of(address, protocol).map_or(0, PortSet::free),
        };
        let paired = host.and_then(|host| {
            let address = self.pool.index_of(Ipv4Addr::from_bits(host.exterior_address))?;
            (host.is_paired() || free(address) > 0).then_some(address)
        });
        let address = paired.or_else(|| pick_address(self.pool.len(), random, free)).ok_or(NoPort::Exhausted)?;
        let exterior_address = self.pool.get(address).ok_or(NoPort::Exhausted)?;
        let wish = self.port_wish(protocol, interior, exterior_address);
        let port = match &self.block_index {
            None => self.ports.pick(address, protocol, &wish).ok_or(NoPort::Exhausted)?,
            Some(_) => self.pick_from_blocks(address, protocol, host, &wish)?,
        };
        Ok(Endpoint::new(exterior_address, port))
    }

    /// A free port of a host's blocks, or of one that it can be lent.
    fn pick_from_blocks(
        &mut self,
        address: usize,
        protocol: Protocol,
        host: Option<Host>,
        wish: &Wish,
    ) -> Result<u16, NoPort> {
        let random = self.ports.random();
        let index = self.block_index.as_ref().ok_or(NoPort::Exhausted)?;
        let own = host.iter().flat_map(Host::blocks);
        let mut tried = 0;
        for number in own {
            if let Some(port) = self.ports.pick(address, protocol, &wish.within(index.ports_of(number))) {
                return Ok(port);
            }
            tried += 1;
        }
        if tried >= index.per_host_max() {
            return Err(NoPort::HostLimit);
        }
        let number = index.pick(address, random).ok_or(NoPort::Exhausted)?;
        self.ports.pick(address, protocol, &wish.within(index.ports_of(number))).ok_or(NoPort::Exhausted)
    }

    /// What an endpoint's exterior port should be like (RFC 4787 R3, R4). Identifiers of ICMP queries are all alike.
    fn port_wish(&self, protocol: Protocol, interior: Endpoint, exterior_address: Ipv4Addr) -> Wish {
        if protocol == Protocol::Icmp {
            return Wish::NONE;
        }
        let keeps_parity = self.port_parity && protocol == Protocol::Udp;
        // The other one of an even and the following odd port, as RTP and RTCP use them.
        let beside_other = || {
            let other = self.exterior_of(protocol, Endpoint::new(interior.address, interior.port ^ 1))?;
            let fits = other.address == exterior_address && Parity::of(other.port) == Parity::of(interior.port ^ 1);
            fits.then_some(other.port ^ 1)
        };
        Wish {
            exactly: if self.port_preservation {
                Some(interior.port)
            } else if keeps_parity {
                beside_other()
            } else {
                None
            },
            parity: keeps_parity.then_some(Parity::of(interior.port)),
            ..Wish::of_class(interior.port, self.ports.range())
        }
    }

    /// Whether a new mapping may have this exterior endpoint.
    fn may_map(&self, interior: Endpoint, exterior: Endpoint) -> bool {
        let paired_with_another = self.pooling == Pooling::Paired
            && self
                .hosts
                .get(&interior.address.to_bits())
                .is_some_and(|host| host.is_paired() && host.exterior_address != exterior.address.to_bits());
        self.pool.contains(exterior.address)
            && self.ports.range().contains(exterior.port)
            && !paired_with_another
            && self.block_admits(interior.address, exterior)
    }

    /// Begins a session, and with it, where they are new, the mapping, its binding and the host.
    pub(crate) fn open_session(&mut self, id: &SessionId, interior: Endpoint) -> Result<Opened, Refusal> {
        let is_mapped = self.mappings.contains(&EndpointKey::new(id.protocol, interior));
        let possible = self.is_neighbour(Side::Interior, interior.address)
            && is_unicast(id.server.address)
            && (is_mapped || self.may_map(interior, id.exterior));
        let key = SessionKey::new(id.protocol, interior, id.server);
        if !possible || self.sessions.contains(&key) {
            return Err(Refusal::Inconsistent);
        }
        let session = Session {
            exterior_address: id.exterior.address.to_bits(),
            exterior_port: id.exterior.port,
            tcp_state: match id.protocol {
                Protocol::Udp | Protocol::Icmp => 0,
                Protocol::Tcp => TcpState::Opening.code(),
            },
            last_seen: self.clock.get(),
        };
        self.sessions.insert(key, session).map_err(|_| Refusal::Full(Full::Sessions))?;
        if let Err(refusal) = self.hold_mapping(id.protocol, interior, id.exterior) {
            self.sessions.remove(&key);
            return Err(refusal);
        }
        if let Err(refusal) = self.hold_peer(&key) {
            self.release_mapping(id.protocol, interior);
            self.sessions.remove(&key);
            return Err(refusal);
        }
        if let Err(refusal) = self.hold_host(interior.address) {
            self.release_peer(&key);
            self.release_mapping(id.protocol, interior);
            self.sessions.remove(&key);
            return Err(refusal);
        }
        if !is_mapped && let Some(host) = self.hosts.get_mut(&interior.address.to_bits()) {
            host.ports = host.ports.saturating_add(1);
            host.exterior_address = id.exterior.address.to_bits();
        }
        self.enter_census(id.protocol.number(), session.tcp_state);
        let mut opened = Opened { mapping: !is_mapped, block: false };
        if !is_mapped {
            match self.hold_block(interior.address, id.exterior) {
                Ok(is_new) => opened.block = is_new,
                Err(refusal) => {
                    self.close_session(&key);
                    return Err(refusal);
                }
            }
        }
        Ok(opened)
    }

    /// Lends exterior endpoints for good.
    pub(super) fn hold_forwards(&mut self) -> Result<(), Refusal> {
        let forwards = self.forwards.clone();
        for forward in forwards.iter() {
            let (interior, exterior) = (forward.interior(), forward.exterior());
            // Held as by a session, but one that never ends.
            self.hold_mapping(forward.protocol, interior, exterior)?;
            self.foreign_bindings += usize::from(!self.ports.range().contains(exterior.port));
            self.hold_forward(interior.address, exterior.address)?;
        }
        Ok(())
    }

    fn hold_mapping(&mut self, protocol: Protocol, interior: Endpoint, exterior: Endpoint) -> Result<(), Refusal> {
        let key = EndpointKey::new(protocol, interior);
        if let Some(mapping) = self.mappings.get_mut(&key) {
            if mapping.exterior() != exterior {
                return Err(Refusal::Inconsistent);
            }
            mapping.sessions = mapping.sessions.saturating_add(1);
            return Ok(());
        }
        let binding_key = EndpointKey::new(protocol, exterior);
        if self.bindings.contains(&binding_key) {
            return Err(Refusal::Inconsistent);
        }
        let mapping =
            Mapping { exterior_address: exterior.address.to_bits(), exterior_port: exterior.port, sessions: 1 };
        let binding = Binding { interior_address: interior.address.to_bits(), interior_port: interior.port };
        self.mappings.insert(key, mapping).map_err(|_| Refusal::Full(Full::Mappings))?;
        if self.bindings.insert(binding_key, binding).is_err() {
            self.mappings.remove(&key);
            return Err(Refusal::Full(Full::Mappings));
        }
        if let Some(address) = self.pool.index_of(exterior.address) {
            self.ports.take(address, protocol, exterior.port);
        }
        Ok(())
    }

    /// The exterior endpoint, if it was the mapping's last session, and that is free now.
    fn release_mapping(&mut self, protocol: Protocol, interior: Endpoint) -> Option<Endpoint> {
        let key = EndpointKey::new(protocol, interior);
        let mapping = self.mappings.get_mut(&key)?;
        if mapping.sessions > 1 {
            mapping.sessions -= 1;
            return None;
        }
        let exterior = mapping.exterior();
        self.mappings.remove(&key);
        self.bindings.remove(&EndpointKey::new(protocol, exterior));
        if let Some(address) = self.pool.index_of(exterior.address) {
            self.ports.release(address, protocol, exterior.port);
        }
        Some(exterior)
    }

    /// Whether the session's interior endpoint has others with the same address.
    pub(crate) fn knows_peer(&self, key: &SessionKey) -> bool {
        self.peers.contains(&PeerKey::of(key))
    }

    fn hold_peer(&mut self, key: &SessionKey) -> Result<(), Refusal> {
        if !self.keeps_peers {
            return Ok(());
        }
        let peer = PeerKey::of(key);
        let sessions = self.peers.get(&peer).map_or(0, |sessions| *sessions);
        self.peers.insert(peer, sessions.saturating_add(1)).map(|_| ()).map_err(|_| Refusal::Full(Full::Peers))
    }

    fn release_peer(&mut self, key: &SessionKey) {
        if !self.keeps_peers {
            return;
        }
        let peer = PeerKey::of(key);
        match self.peers.get_mut(&peer) {
            Some(sessions) if *sessions > 1 => *sessions -= 1,
            Some(_) => {
                self.peers.remove(&peer);
            }
            None => {}
        }
    }

    /// Notes that an outbound packet was seen.
    #[inline(always)]
    pub(crate) fn refresh(&mut self, key: SessionKey) {
        let now = self.clock.get();
        if let Some(session) = self.sessions.get_mut(&key) {
            session.last_seen = now;
        }
    }

    /// Moves a TCP session to another state, from where its time runs anew.
    pub(crate) fn set_tcp_state(&mut self, key: SessionKey, state: TcpState) {
        let now = self.clock.get();
        if let Some(session) = self.sessions.get_mut(&key) {
            let before = core::mem::replace(&mut session.tcp_state, state.code());
            session.last_seen = now;
            self.leave_census(key.protocol, before);
            self.enter_census(key.protocol, state.code());
        }
    }

    fn enter_census(&mut self, protocol: u8, tcp_state: u8) {
        if let Some(sessions) = self.census.get_mut().count_mut(protocol, tcp_state) {
            *sessions = sessions.saturating_add(1);
        }
    }

    fn leave_census(&mut self, protocol: u8, tcp_state: u8) {
        if let Some(sessions) = self.census.get_mut().count_mut(protocol, tcp_state) {
            *sessions = sessions.saturating_sub(1);
        }
    }

    /// Ends a session, and with the last one its mapping and binding. The exterior endpoint, if it is free now.
    pub(crate) fn close_session(&mut self, key: &SessionKey) -> Option<Endpoint> {
        let session = self.sessions.remove(key)?;
        self.leave_census(key.protocol, session.tcp_state);
        let protocol = Protocol::from_number(key.protocol);
        let unmapped = protocol.and_then(|protocol| self.release_mapping(protocol, key.interior()));
        self.release_peer(key);
        if let Some(host) = self.hosts.get_mut(&key.interior_address) {
            host.sessions = host.sessions.saturating_sub(1);
            host.ports = host.ports.saturating_sub(u32::from(unmapped.is_some()));
        }
        if let Some(exterior) = unmapped {
            self.release_port_of_block(exterior);
        }
        unmapped
    }
}

/// Why an interior endpoint cannot have an exterior one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPort {
    /// All are taken.
    Exhausted,
    /// The host has as many as it may.
    HostLimit,
}

/// What began with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The mapping.
    pub(crate) mapping: bool,
    /// The loan of the block of ports.
    pub(crate) block: bool,
}
