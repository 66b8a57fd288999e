//! What the NAT tells the operator's log (RFC 6888 §4): who had which exterior address and ports, and when.
//!
//! Only the instance that processes a packet, or lets something expire, logs it; whoever installs a statelet does not. So
//! each event is logged once, whichever instance the state is at.

use crate::blocks::{Block, BlockKey};
use crate::config::LogLevel;
use crate::ports::PortRange;
use crate::state::{Opened, State};
use crate::tables::SessionKey;
use crate::types::{Endpoint, Protocol, SessionId};
use core::net::Ipv4Addr;
use slim_core::nf::{EVENT_LEN_MAX, Environment, LogEvent};

/// Something that an operator may have to answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A host is lent a block of ports, or is so no more.
    Block {
        /// Whether it begins.
        begins: bool,
        /// The host.
        host: Ipv4Addr,
        /// The exterior address.
        exterior: Ipv4Addr,
        /// The ports.
        ports: PortRange,
    },
    /// An interior endpoint has an exterior one, or has so no more.
    Mapping {
        /// Whether it begins.
        begins: bool,
        /// The protocol.
        protocol: Protocol,
        /// The host's end.
        interior: Endpoint,
        /// The end that others see.
        exterior: Endpoint,
    },
    /// A session with a server.
    Session {
        /// Whether it begins.
        begins: bool,
        /// Its name, as the exterior sees it.
        id: SessionId,
        /// The host's end.
        interior: Endpoint,
    },
}

/// Kinds of events in their encoding; the lowest bit says whether it begins.
mod kind {
    pub(super) const BLOCK: u8 = 2;
    pub(super) const MAPPING: u8 = 4;
    pub(super) const SESSION: u8 = 6;
}

struct Writer {
    bytes: [u8; EVENT_LEN_MAX],
    len: usize,
}

impl Writer {
    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + N) {
            place.copy_from_slice(&bytes);
            self.len += N;
        }
        self
    }

    fn endpoint(self, endpoint: Endpoint) -> Self {
        self.put(endpoint.address.octets()).put(endpoint.port.to_be_bytes())
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn protocol(&mut self) -> Option<Protocol> {
        self.take().and_then(|[number]| Protocol::from_number(number))
    }

    fn address(&mut self) -> Option<Ipv4Addr> {
        self.take::<4>().map(Ipv4Addr::from)
    }

    fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        Some(Endpoint::new(self.address()?, self.port()?))
    }
}

impl Event {
    /// As it goes to the log.
    pub fn encode(&self) -> LogEvent {
        let writer = Writer { bytes: [0; EVENT_LEN_MAX], len: 0 };
        let writer = match *self {
            Self::Block { begins, host, exterior, ports } => writer
                .put([kind::BLOCK | u8::from(begins)])
                .put(host.octets())
                .endpoint(Endpoint::new(exterior, ports.first))
                .put(ports.last.to_be_bytes()),
            Self::Mapping { begins, protocol, interior, exterior } => {
                writer.put([kind::MAPPING | u8::from(begins), protocol.number()]).endpoint(interior).endpoint(exterior)
            }
            Self::Session { begins, id, interior } => writer
                .put([kind::SESSION | u8::from(begins), id.protocol.number()])
                .endpoint(interior)
                .endpoint(id.exterior)
                .endpoint(id.server),
        };
        LogEvent::new(writer.bytes.get(..writer.len).unwrap_or_default())
    }

    /// What was encoded.
    pub fn decode(event: &LogEvent) -> Option<Self> {
        let mut reader = Reader(event.bytes());
        let [first] = reader.take()?;
        let begins = first & 1 != 0;
        match first & !1 {
            kind::BLOCK => {
                let (host, exterior) = (reader.address()?, reader.address()?);
                let ports = PortRange { first: reader.port()?, last: reader.port()? };
                Some(Self::Block { begins, host, exterior, ports })
            }
            kind::MAPPING => {
                let protocol = reader.protocol()?;
                let (interior, exterior) = (reader.endpoint()?, reader.endpoint()?);
                Some(Self::Mapping { begins, protocol, interior, exterior })
            }
            kind::SESSION => {
                let protocol = reader.protocol()?;
                let (interior, exterior, server) = (reader.endpoint()?, reader.endpoint()?, reader.endpoint()?);
                Some(Self::Session { begins, id: SessionId { protocol, exterior, server }, interior })
            }
            _ => None,
        }
    }

    /// The members of a JSON object.
    pub fn describe(&self) -> String {
        let is = |begins, beginning, end| if begins { beginning } else { end };
        let host_and = |interior: &Endpoint, exterior: &Endpoint| {
            format!(
                "\"host\":\"{}\",\"port\":{},\"exterior\":\"{}\",\"exterior_port\":{}",
                interior.address, interior.port, exterior.address, exterior.port
            )
        };
        match self {
            Self::Block { begins, host, exterior, ports: PortRange { first, last } } => format!(
                "\"event\":\"{}\",\"host\":\"{host}\",\"exterior\":\"{exterior}\",\"first_port\":{first},\
                 \"last_port\":{last}",
                is(*begins, "block_lent", "block_returned"),
            ),
            Self::Mapping { begins, protocol, interior, exterior } => format!(
                "\"event\":\"{}\",\"protocol\":\"{protocol}\",{}",
                is(*begins, "mapping_begins", "mapping_ends"),
                host_and(interior, exterior),
            ),
            Self::Session { begins, id, interior } => format!(
                "\"event\":\"{}\",\"protocol\":\"{}\",{},\"server\":\"{}\",\"server_port\":{}",
                is(*begins, "session_begins", "session_ends"),
                id.protocol,
                host_and(interior, &id.exterior),
                id.server.address,
                id.server.port,
            ),
        }
    }

    /// A block's loan begins or ends. `None` without blocks.
    fn of_block(state: &State, begins: bool, key: &BlockKey, host: Ipv4Addr) -> Option<Self> {
        let ports = state.block_index.as_ref()?.ports_of(key.number);
        Some(Self::Block { begins, host, exterior: Ipv4Addr::from_bits(key.address), ports })
    }
}

impl LogLevel {
    /// Logs what began with a session.
    #[inline]
    pub(crate) fn opened<E: Environment>(
        self,
        env: &mut E,
        state: &State,
        id: &SessionId,
        interior: Endpoint,
        opened: Opened,
    ) {
        let (begins, protocol, exterior) = (true, id.protocol, id.exterior);
        match self {
            Self::Blocks if opened.block => {
                let event =
                    state.block_key(exterior).and_then(|key| Event::of_block(state, begins, &key, interior.address));
                log(env, event);
            }
            Self::Mappings if opened.mapping => {
                log(env, Some(Event::Mapping { begins, protocol, interior, exterior }));
            }
            Self::Sessions => log(env, Some(Event::Session { begins, id: *id, interior })),
            Self::Off | Self::Blocks | Self::Mappings => {}
        }
    }

    /// Logs what ended with a session, which has left an exterior endpoint free or not.
    pub(crate) fn closed<E: Environment>(
        self,
        env: &mut E,
        key: &SessionKey,
        id: &SessionId,
        unmapped: Option<Endpoint>,
    ) {
        let (begins, protocol, interior) = (false, id.protocol, key.interior());
        match (self, unmapped) {
            (Self::Mappings, Some(exterior)) => {
                log(env, Some(Event::Mapping { begins, protocol, interior, exterior }));
            }
            (Self::Sessions, _) => log(env, Some(Event::Session { begins, id: *id, interior })),
            (Self::Off | Self::Blocks | Self::Mappings, _) => {}
        }
    }

    /// Logs that a block is returned.
    pub(crate) fn returned<E: Environment>(self, env: &mut E, state: &State, key: &BlockKey, block: &Block) {
        if self == Self::Blocks {
            log(env, Event::of_block(state, false, key, Ipv4Addr::from_bits(block.host)));
        }
    }
}

fn log<E: Environment>(env: &mut E, event: Option<Event>) {
    if let Some(event) = event {
        env.log(&event.encode());
    }
}
