//! The NAT's statelets: what `announce` sends and `install` reads.
//!
//! Integers are big endian. The L4 protocol, the side and the direction are in the type.
//!
//! ```text
//! type    name            value
//! 0x0001  clock           ticks u32                                                               4
//! 0x0010  session udp     interior addr, exterior addr, server addr,                             18
//! 0x0011  session tcp       interior port, exterior port, server port                            18
//! 0x0012  refresh udp     exterior addr, server addr, exterior port, server port                 12
//! 0x0013  refresh tcp     as above                                                               12
//! 0x0014  close udp       as above                                                               12
//! 0x0015  close tcp       as above                                                               12
//! 0x0016  tcp state       as above, state u8                                                     13
//! 0x0017  session icmp    as for udp, with the interior and exterior identifiers and 0           18
//! 0x0018  refresh icmp    as above                                                               12
//! 0x0019  close icmp      as above                                                               12
//! 0x0040  train           as it arrives: source, destination, ident u16, protocol u8, port u8;
//!                           as it leaves: source, destination, host out, host in, port u8,
//!                           ident u16                                                          31
//! 0x0041  hold            port u8, the IPv4 packet                                     22 to 1501
//! 0x0042  held gone       as it arrives, offset u16                                              14
//! 0x0043  train gone      as it arrives                                                          12
//! 0x0044  train ended     as it arrives                                                          12
//! 0x0050  syn             MAC, begin of the IPv4 packet                                    34 to 74
//! 0x0051  syn gone        server addr, exterior addr, server port, exterior port                 12
//! 0x0060  block gone      exterior addr, number u16                                               6
//! 0x0070  idents          batch u16                                                               2
//! 0x0080  totals          u64 each, of what is counted and no state; at the end of a migration   56
//! 0x0020  arp interior    addr, MAC                                                              10
//! 0x0021  arp exterior    addr, MAC                                                              10
//! 0x0022  arp interior gone  addr                                                                 4
//! 0x0023  arp exterior gone  addr                                                                 4
//! 0x0030  count outbound  interior addr, packets more u16, new total of bytes mod 2^48 u48       12
//! 0x0031  count inbound   as above                                                               12
//! 0x0032  host gone       interior addr                                                           4
//! ```
//!
//! Sessions, ARP entries and counts are the paper's (§VI-C: 18, 10 and 12 bytes); the others are what closing and
//! time-outs need beyond it. Counts of one host that wait to be sent are merged into one. Every time in the state is the present clock, so no statelet but the first carries one.

use crate::blocks::BlockKey;
use crate::fragments::{HeldKey, Train, TrainKey};
use crate::tcp::TcpState;
use crate::types::{Direction, Endpoint, Protocol, SessionId, Side};
use crate::unsolicited::SynKey;
use core::net::Ipv4Addr;
use slim_core::nf::InstallError;
use slim_core::packet::MacAddr;
use slim_core::statelet::Coalescing;

/// The longest value of a [`Statelet`]. A held fragment's and an unsolicited SYN's are longer, and apart from them: most
/// statelets are announced by the packet loop, which need not clear room for those.
pub const VALUE_BYTES_MAX: usize = 31;

/// The bits of a host's total of bytes that a count tells. No 65,535 packets have more bytes than that.
pub const TOTAL_BITS: u32 = 48;

/// The part of a total that a count tells.
pub const TOTAL_MASK: u64 = (1 << TOTAL_BITS) - 1;

/// One change of the NAT's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statelet {
    /// Time has advanced to this many ticks since the NAT was created.
    Clock(u32),
    /// A session begins, at the present time; a TCP session is opening.
    Session {
        /// The session as the exterior sees it.
        id: SessionId,
        /// The interior socket behind it.
        interior: Endpoint,
    },
    /// An outbound packet has been seen at the present time.
    Refresh(SessionId),
    /// The session has expired.
    Close(SessionId),
    /// A segment has changed the session's state, at the present time.
    TcpState(SessionId, TcpState),
    /// A neighbour's MAC address is known, or known still, at the present time.
    Arp {
        /// The network it is in.
        side: Side,
        /// Its address there.
        address: Ipv4Addr,
        /// Its MAC address.
        mac: MacAddr,
    },
    /// A neighbour's MAC address has expired.
    ArpGone {
        /// The network it was in.
        side: Side,
        /// Its address there.
        address: Ipv4Addr,
    },
    /// Packets of an interior host have been translated, at the present time.
    Count {
        /// Which of the host's counters.
        direction: Direction,
        /// The host.
        address: Ipv4Addr,
        /// How many packets: one, or more where counts were merged.
        packets: u16,
        /// The bytes counted for it in this direction, these packets included, modulo 2⁴⁸.
        total_bytes: u64,
    },
    /// An interior host without sessions has expired, with its counters.
    HostGone(Ipv4Addr),
    /// The first fragment of a packet has been translated, at the present time.
    Train(TrainKey, Train),
    /// A fragment is not held any more.
    HeldGone(HeldKey),
    /// No fragment of that packet is expected any more.
    TrainGone(TrainKey),
    /// The last fragment of a train has come.
    TrainEnded(TrainKey),
    /// An unsolicited SYN has been answered, or need not be.
    SynGone(SynKey),
    /// A block of ports is not lent any more.
    BlockGone(BlockKey),
    /// The next batch of identifications is in use.
    Idents(u16),
}

/// A statelet's type and value, ready to be announced.
#[derive(Debug, Clone, Copy)]
pub struct Encoded {
    statelet_type: u16,
    value: [u8; VALUE_BYTES_MAX],
    len: usize,
}

impl Encoded {
    const fn new(statelet_type: u16) -> Self {
        Self { statelet_type, value: [0; VALUE_BYTES_MAX], len: 0 }
    }

    /// The statelet's type.
    pub fn statelet_type(&self) -> u16 {
        self.statelet_type
    }

    /// The statelet's value.
    pub fn value(&self) -> &[u8] {
        &self.value[..self.len]
    }

    #[inline(always)]
    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.value[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
        self
    }

    fn put_train_key(self, key: &TrainKey) -> Self {
        self.put(key.source.to_be_bytes())
            .put(key.destination.to_be_bytes())
            .put(key.ident.to_be_bytes())
            .put([key.protocol, key.port])
    }

    #[inline(always)]
    fn put_id(self, id: &SessionId) -> Self {
        self.put(id.exterior.address.octets())
            .put(id.server.address.octets())
            .put(id.exterior.port.to_be_bytes())
            .put(id.server.port.to_be_bytes())
    }
}

mod types {
    //! The numbers of the statelets' types.
    pub(super) const CLOCK: u16 = 0x0001;
    pub(super) const SESSION_UDP: u16 = 0x0010;
    pub(super) const SESSION_TCP: u16 = 0x0011;
    pub(super) const REFRESH_UDP: u16 = 0x0012;
    pub(super) const REFRESH_TCP: u16 = 0x0013;
    pub(super) const CLOSE_UDP: u16 = 0x0014;
    pub(super) const CLOSE_TCP: u16 = 0x0015;
    pub(super) const TCP_STATE: u16 = 0x0016;
    pub(super) const SESSION_ICMP: u16 = 0x0017;
    pub(super) const REFRESH_ICMP: u16 = 0x0018;
    pub(super) const CLOSE_ICMP: u16 = 0x0019;
    pub(super) const ARP_INTERIOR: u16 = 0x0020;
    pub(super) const ARP_EXTERIOR: u16 = 0x0021;
    pub(super) const ARP_INTERIOR_GONE: u16 = 0x0022;
    pub(super) const ARP_EXTERIOR_GONE: u16 = 0x0023;
    pub(super) const COUNT_OUTBOUND: u16 = 0x0030;
    pub(super) const COUNT_INBOUND: u16 = 0x0031;
    pub(super) const HOST_GONE: u16 = 0x0032;
    pub(super) const TRAIN: u16 = 0x0040;
    pub(super) const HOLD: u16 = 0x0041;
    pub(super) const HELD_GONE: u16 = 0x0042;
    pub(super) const TRAIN_GONE: u16 = 0x0043;
    pub(super) const TRAIN_ENDED: u16 = 0x0044;
    pub(super) const SYN: u16 = 0x0050;
    pub(super) const SYN_GONE: u16 = 0x0051;
    pub(super) const BLOCK_GONE: u16 = 0x0060;
    pub(super) const IDENTS: u16 = 0x0070;
    pub(super) const TOTALS: u16 = 0x0080;
}

impl Statelet {
    /// A fragment is held, from now on.
    pub const HOLD: u16 = types::HOLD;

    /// What is counted and no state.
    pub const TOTALS: u16 = types::TOTALS;

    /// An unsolicited SYN has come, at the present time.
    pub const SYN: u16 = types::SYN;

    /// The statelet's type.
    pub const fn statelet_type(&self) -> u16 {
        match self {
            Self::Clock(_) => types::CLOCK,
            Self::Session { id: SessionId { protocol: Protocol::Udp, .. }, .. } => types::SESSION_UDP,
            Self::Session { id: SessionId { protocol: Protocol::Tcp, .. }, .. } => types::SESSION_TCP,
            Self::Session { id: SessionId { protocol: Protocol::Icmp, .. }, .. } => types::SESSION_ICMP,
            Self::Refresh(SessionId { protocol: Protocol::Udp, .. }) => types::REFRESH_UDP,
            Self::Refresh(SessionId { protocol: Protocol::Tcp, .. }) => types::REFRESH_TCP,
            Self::Refresh(SessionId { protocol: Protocol::Icmp, .. }) => types::REFRESH_ICMP,
            Self::Close(SessionId { protocol: Protocol::Udp, .. }) => types::CLOSE_UDP,
            Self::Close(SessionId { protocol: Protocol::Tcp, .. }) => types::CLOSE_TCP,
            Self::Close(SessionId { protocol: Protocol::Icmp, .. }) => types::CLOSE_ICMP,
            Self::TcpState(..) => types::TCP_STATE,
            Self::Arp { side: Side::Interior, .. } => types::ARP_INTERIOR,
            Self::Arp { side: Side::Exterior, .. } => types::ARP_EXTERIOR,
            Self::ArpGone { side: Side::Interior, .. } => types::ARP_INTERIOR_GONE,
            Self::ArpGone { side: Side::Exterior, .. } => types::ARP_EXTERIOR_GONE,
            Self::Count { direction: Direction::Outbound, .. } => types::COUNT_OUTBOUND,
            Self::Count { direction: Direction::Inbound, .. } => types::COUNT_INBOUND,
            Self::HostGone(_) => types::HOST_GONE,
            Self::Train(..) => types::TRAIN,
            Self::HeldGone(_) => types::HELD_GONE,
            Self::TrainGone(_) => types::TRAIN_GONE,
            Self::TrainEnded(_) => types::TRAIN_ENDED,
            Self::SynGone(_) => types::SYN_GONE,
            Self::BlockGone(_) => types::BLOCK_GONE,
            Self::Idents(_) => types::IDENTS,
        }
    }

    /// The type and value as they are announced.
    #[inline(always)]
    pub fn encode(&self) -> Encoded {
        let encoded = Encoded::new(self.statelet_type());
        match self {
            Self::Clock(ticks) => encoded.put(ticks.to_be_bytes()),
            Self::Session { id, interior } => encoded
                .put(interior.address.octets())
                .put(id.exterior.address.octets())
                .put(id.server.address.octets())
                .put(interior.port.to_be_bytes())
                .put(id.exterior.port.to_be_bytes())
                .put(id.server.port.to_be_bytes()),
            Self::Refresh(id) | Self::Close(id) => encoded.put_id(id),
            Self::TcpState(id, state) => encoded.put_id(id).put([state.code()]),
            Self::Arp { address, mac, .. } => encoded.put(address.octets()).put(mac.0),
            Self::ArpGone { address, .. } => encoded.put(address.octets()),
            Self::Count { address, packets, total_bytes, .. } => {
                let counts = u64::from(*packets) << TOTAL_BITS | total_bytes & TOTAL_MASK;
                encoded.put(address.octets()).put(counts.to_be_bytes())
            }
            Self::HostGone(address) => encoded.put(address.octets()),
            Self::Train(key, train) => encoded
                .put_train_key(key)
                .put(train.source.to_be_bytes())
                .put(train.destination.to_be_bytes())
                .put(train.host_outbound.to_be_bytes())
                .put(train.host_inbound.to_be_bytes())
                .put([train.egress])
                .put(train.ident.to_be_bytes()),
            Self::HeldGone(key) => encoded.put_train_key(&key.train).put(key.offset.to_be_bytes()),
            Self::TrainGone(key) | Self::TrainEnded(key) => encoded.put_train_key(key),
            Self::BlockGone(key) => encoded.put(key.address.to_be_bytes()).put(key.number.to_be_bytes()),
            Self::Idents(batch) => encoded.put(batch.to_be_bytes()),
            Self::SynGone(key) => encoded
                .put(key.server_address.to_be_bytes())
                .put(key.exterior_address.to_be_bytes())
                .put(key.server_port.to_be_bytes())
                .put(key.exterior_port.to_be_bytes()),
        }
    }

    /// Reads a statelet of the given type.
    ///
    /// # Errors
    /// [`InstallError::UnknownType`], and [`InstallError::Malformed`] where the value is not of the type's length or
    /// holds a number without meaning.
    pub fn decode(statelet_type: u16, value: &[u8]) -> Result<Self, InstallError> {
        use types::*;
        let malformed = InstallError::Malformed { statelet_type, len: value.len() };
        let mut reader = Reader(value);
        let statelet = match statelet_type {
            CLOCK => reader.u32().map(Self::Clock),
            SESSION_UDP => reader.session(Protocol::Udp),
            SESSION_TCP => reader.session(Protocol::Tcp),
            SESSION_ICMP => reader.session(Protocol::Icmp),
            REFRESH_UDP => reader.id(Protocol::Udp).map(Self::Refresh),
            REFRESH_TCP => reader.id(Protocol::Tcp).map(Self::Refresh),
            REFRESH_ICMP => reader.id(Protocol::Icmp).map(Self::Refresh),
            CLOSE_UDP => reader.id(Protocol::Udp).map(Self::Close),
            CLOSE_TCP => reader.id(Protocol::Tcp).map(Self::Close),
            CLOSE_ICMP => reader.id(Protocol::Icmp).map(Self::Close),
            TCP_STATE => reader.tcp_state(),
            ARP_INTERIOR => reader.arp(Side::Interior),
            ARP_EXTERIOR => reader.arp(Side::Exterior),
            ARP_INTERIOR_GONE => reader.address().map(|address| Self::ArpGone { side: Side::Interior, address }),
            ARP_EXTERIOR_GONE => reader.address().map(|address| Self::ArpGone { side: Side::Exterior, address }),
            COUNT_OUTBOUND => reader.count(Direction::Outbound),
            COUNT_INBOUND => reader.count(Direction::Inbound),
            HOST_GONE => reader.address().map(Self::HostGone),
            TRAIN => reader.train(),
            HELD_GONE => reader.held_gone(),
            SYN_GONE => reader.syn_gone(),
            BLOCK_GONE => reader.block_gone(),
            IDENTS => reader.u16().map(Self::Idents),
            TRAIN_GONE => reader.train_key().map(Self::TrainGone),
            TRAIN_ENDED => reader.train_key().map(Self::TrainEnded),
            unknown => return Err(InstallError::UnknownType(unknown)),
        };
        statelet.filter(|_| reader.0.is_empty()).ok_or(malformed)
    }
}

/// What may be done with a statelet that waits to be sent (see [`Coalescing`]).
pub fn coalescing(statelet_type: u16) -> Coalescing {
    match statelet_type {
        // The address. Counts only add up, and touch nothing that others between them read.
        types::COUNT_OUTBOUND | types::COUNT_INBOUND => Coalescing::Merge { key_len: 4 },
        // They leave the counters of hosts alone and do not end hosts.
        types::SESSION_UDP..=types::CLOSE_ICMP
        | types::ARP_INTERIOR..=types::ARP_EXTERIOR_GONE
        | types::TRAIN..=types::TRAIN_ENDED
        | types::SYN..=types::SYN_GONE
        | types::BLOCK_GONE
        | types::IDENTS => Coalescing::Pass,
        // Counts are made at the present time, and end with the host.
        _ => Coalescing::Barrier,
    }
}

/// Makes the earlier of two counts of a host say what both say. False if that is too many packets.
pub fn merge(statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
    let count = |value: &[u8]| match Statelet::decode(statelet_type, value) {
        Ok(Statelet::Count { direction, address, packets, total_bytes }) => {
            Some((direction, address, packets, total_bytes))
        }
        _ => None,
    };
    let (Some((direction, address, first, _)), Some((_, _, more, total_bytes))) = (count(earlier), count(later)) else {
        return false;
    };
    let Some(packets) = first.checked_add(more) else { return false };
    let merged = Statelet::Count { direction, address, packets, total_bytes }.encode();
    let same_len = merged.value().len() == earlier.len();
    if same_len {
        earlier.copy_from_slice(merged.value());
    }
    same_len
}

/// Takes fields off the front of a value.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn address(&mut self) -> Option<Ipv4Addr> {
        self.bytes::<4>().map(Ipv4Addr::from)
    }

    fn session(&mut self, protocol: Protocol) -> Option<Statelet> {
        let (interior, exterior, server) = (self.address()?, self.address()?, self.address()?);
        let interior = Endpoint::new(interior, self.u16()?);
        let exterior = Endpoint::new(exterior, self.u16()?);
        let server = Endpoint::new(server, self.u16()?);
        Some(Statelet::Session { id: SessionId { protocol, exterior, server }, interior })
    }

    fn id(&mut self, protocol: Protocol) -> Option<SessionId> {
        let (exterior, server) = (self.address()?, self.address()?);
        let exterior = Endpoint::new(exterior, self.u16()?);
        let server = Endpoint::new(server, self.u16()?);
        Some(SessionId { protocol, exterior, server })
    }

    fn train_key(&mut self) -> Option<TrainKey> {
        let (source, destination, ident) = (self.u32()?, self.u32()?, self.u16()?);
        let [protocol, port] = self.bytes()?;
        Some(TrainKey { source, destination, ident, protocol, port })
    }

    /// It begins at the present time, which whoever installs it knows.
    fn train(&mut self) -> Option<Statelet> {
        let key = self.train_key()?;
        let (source, destination) = (self.u32()?, self.u32()?);
        let (host_outbound, host_inbound) = (self.u32()?, self.u32()?);
        let [egress] = self.bytes()?;
        let ident = self.u16()?;
        let train = Train { source, destination, host_outbound, host_inbound, ident, egress, began: 0, ended: 0 };
        Some(Statelet::Train(key, train))
    }

    fn syn_gone(&mut self) -> Option<Statelet> {
        let (server_address, exterior_address) = (self.u32()?, self.u32()?);
        let (server_port, exterior_port) = (self.u16()?, self.u16()?);
        Some(Statelet::SynGone(SynKey { server_address, exterior_address, server_port, exterior_port }))
    }

    fn block_gone(&mut self) -> Option<Statelet> {
        let (address, number) = (self.u32()?, self.u16()?);
        Some(Statelet::BlockGone(BlockKey { address, number }))
    }

    fn held_gone(&mut self) -> Option<Statelet> {
        let (train, offset) = (self.train_key()?, self.u16()?);
        Some(Statelet::HeldGone(HeldKey { train, offset }))
    }

    fn tcp_state(&mut self) -> Option<Statelet> {
        let id = self.id(Protocol::Tcp)?;
        let [code] = self.bytes()?;
        Some(Statelet::TcpState(id, TcpState::from_code(code)?))
    }

    fn arp(&mut self, side: Side) -> Option<Statelet> {
        Some(Statelet::Arp { side, address: self.address()?, mac: MacAddr(self.bytes()?) })
    }

    fn count(&mut self, direction: Direction) -> Option<Statelet> {
        let (address, counts) = (self.address()?, u64::from_be_bytes(self.bytes()?));
        let packets = (counts >> TOTAL_BITS) as u16;
        (packets > 0).then_some(Statelet::Count { direction, address, packets, total_bytes: counts & TOTAL_MASK })
    }
}
