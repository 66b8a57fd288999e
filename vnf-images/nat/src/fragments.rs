//! IPv4 fragments (RFC 4787 R14): translated one by one, whatever their order, never reassembled.
//!
//! Only the first fragment of a train has ports. It is translated as a whole packet would be, and what became of its
//! addresses is remembered for the others. Those that come before the first are held until it comes. Trains and held
//! fragments are state: they are bounded, expire, and move.
//!
//! ```text
//! first ──► translated ──► train: addresses ──┬──► held ones follow
//! later ──────────────────► train known? ─yes─┴──► addresses rewritten
//!                                         └─no──► held
//! ```
//!
//! A fragment's transport checksum cannot be verified, as the rest of the packet is elsewhere; it is updated all the same.
//! A train that leaves for the exterior has an identification of its own there (see `ident`).

use crate::drops::Drop;
use crate::statelet::Statelet;
use crate::types::{Direction, Protocol, Side};
use crate::{Nat, announce};
use core::net::Ipv4Addr;
use slim_core::nf::{Environment, PortId, Verdict};
use slim_core::packet::{ETHERNET_LEN, Ethernet, Ipv4, PacketBuf, ether_type};

/// The longest fragment that is held, in bytes of the IPv4 packet: Ethernet's MTU.
pub const HELD_LEN_MAX: usize = 1500;

slim_core::pod! {
    /// Which train a fragment belongs to (RFC 791 §3.2), as it arrives.
    pub struct TrainKey {
        /// The source address.
        pub source: u32,
        /// The destination address.
        pub destination: u32,
        /// The identification.
        pub ident: u16,
        /// The protocol.
        pub protocol: u8,
        /// The logical port it arrives on.
        pub port: u8,
    }
}

slim_core::pod! {
    /// What becomes of a train's fragments.
    pub struct Train {
        /// The translated source address.
        pub source: u32,
        /// The translated destination address.
        pub destination: u32,
        /// The interior host whose outbound traffic it is; 0 if nobody's, or if it is not translated.
        pub host_outbound: u32,
        /// The interior host whose inbound traffic it is; 0 if nobody's, or if it is not translated.
        pub host_inbound: u32,
        /// The identification it leaves with.
        pub ident: u16,
        /// The logical port it leaves through.
        pub egress: u8,
        /// When its first fragment came, or its last one if that has come.
        pub began: u32,
        /// 1 if its last fragment has come, else 0.
        pub ended: u8,
    }
}

slim_core::pod! {
    /// Which fragment is held.
    pub struct HeldKey {
        /// Its train.
        pub train: TrainKey,
        /// Its place, in units of 8 bytes.
        pub offset: u16,
    }
}

slim_core::pod! {
    /// A fragment that has come before the first of its train.
    pub struct Held {
        /// When it came.
        pub came: u32,
        /// The length of the IPv4 packet.
        pub len: u16,
        /// The IPv4 packet, then zeros.
        pub packet: [u8; 1500],
    }
}

/// A fragment's place, checked.
struct Fragment {
    key: TrainKey,
    offset: u16,
    /// The length of its IPv4 packet.
    len: u16,
    /// None of its train has a greater offset.
    is_last: bool,
}

impl HeldKey {
    /// The key of `packet`, if it is a fragment other than the first of its train, and no more.
    pub(crate) fn of(port: PortId, packet: &[u8]) -> Option<Self> {
        let fragment = Fragment::read(port, packet).ok()?;
        let later = fragment.offset > 0 && usize::from(fragment.len) == packet.len();
        later.then_some(Self { train: fragment.key, offset: fragment.offset })
    }
}

impl Held {
    pub(crate) fn new(came: u32, packet: &[u8]) -> Option<Self> {
        let mut held = Self { came, len: u16::try_from(packet.len()).ok()?, packet: [0; HELD_LEN_MAX] };
        held.packet.get_mut(..packet.len())?.copy_from_slice(packet);
        Some(held)
    }

    fn packet(&self) -> &[u8] {
        self.packet.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Fragment {
    fn read(port: PortId, packet: &[u8]) -> Result<Self, Drop> {
        let (ip, payload) = Ipv4::parse(packet).map_err(|_| Drop::Ipv4Malformed)?;
        if !ip.checksum_is_correct() {
            return Err(Drop::Ipv4Checksum);
        }
        // All but the last end where the next begins, and none reaches beyond the longest packet (RFC 791 §3.2).
        let offset = ip.fragment_offset();
        let aligned = !ip.more_fragments() || payload.len() % 8 == 0;
        if payload.is_empty() || !aligned || offset as usize + payload.len() > usize::from(u16::MAX) {
            return Err(Drop::FragmentMalformed);
        }
        let key = TrainKey {
            source: ip.source().to_bits(),
            destination: ip.destination().to_bits(),
            ident: ip.ident(),
            protocol: ip.protocol(),
            port: port.0,
        };
        Ok(Self { key, offset: (offset / 8) as u16, len: ip.total_len(), is_last: !ip.more_fragments() })
    }
}

/// Whether what follows an Ethernet header is a fragment, if it is IPv4.
#[inline(always)]
pub(crate) fn is_fragment(packet: &[u8]) -> bool {
    // More fragments, and the offset.
    matches!(packet, &[_, _, _, _, _, _, high, low, ..] if high & 0x3f != 0 || low != 0)
}

impl Nat {
    /// Translates a fragment that has arrived on `side`.
    #[cold]
    pub(crate) fn process_fragment<P: PacketBuf, E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        packet: &mut P,
    ) -> Result<Verdict, Drop> {
        let arrived = packet.bytes().get(ETHERNET_LEN..).ok_or(Drop::FrameTooShort)?;
        let fragment = Fragment::read(side.port(), arrived)?;
        if fragment.offset == 0 {
            return self.process_first(env, side, packet, fragment.key);
        }
        if let Some(train) = self.state.trains.get(&fragment.key).copied() {
            let egress = self.follow(env, packet.bytes_mut(), &train)?;
            if fragment.is_last {
                self.end_train(env, &fragment.key);
            }
            return Ok(Verdict::Transmit(egress.port()));
        }
        self.hold(env, side, arrived, &fragment)
    }

    fn process_first<P: PacketBuf, E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        packet: &mut P,
        key: TrainKey,
    ) -> Result<Verdict, Drop> {
        let known = self.state.trains.get(&key).map(|train| train.ident);
        if known.is_none() && !self.state.has_room_for_train(&key) {
            return Err(Drop::FragmentsFull);
        }
        let (ethernet, payload) = Ethernet::parse_mut(packet.bytes_mut()).map_err(|_| Drop::FrameTooShort)?;
        let verdict = self.process_ipv4(env, side, ethernet, payload)?;
        let Verdict::Transmit(egress) = verdict else { return Ok(verdict) };
        let translated = packet.bytes_mut().get_mut(ETHERNET_LEN..).unwrap_or_default();
        let Ok((mut ip, _)) = Ipv4::parse_mut(translated) else { return Ok(verdict) };
        let (source, destination) = (ip.source().to_bits(), ip.destination().to_bits());
        // The same first fragment once more is no other train.
        if let Some(ident) = known {
            ip.rewrite_ident(ident);
        }
        let train = Train {
            source,
            destination,
            host_outbound: if side == Side::Interior && source != key.source { key.source } else { 0 },
            host_inbound: if destination != key.destination { destination } else { 0 },
            ident: ip.ident(),
            egress: egress.0,
            began: self.state.clock.get(),
            ended: 0,
        };
        if self.state.begin_train(key, train).is_ok() {
            announce(env, &Statelet::Train(key, train));
            self.release_held(env, &key, &train);
        }
        Ok(verdict)
    }

    /// Sends what has been held of a train whose first fragment has come.
    fn release_held<E: Environment>(&mut self, env: &mut E, key: &TrainKey, train: &Train) {
        while let Some((held_key, held)) = self.state.held_of(key) {
            let mut frame = [0; ETHERNET_LEN + HELD_LEN_MAX];
            let len = ETHERNET_LEN + held.packet().len();
            if let Some((header, packet)) =
                frame.get_mut(..len).and_then(|frame| frame.split_at_mut_checked(ETHERNET_LEN))
            {
                packet.copy_from_slice(held.packet());
                header.get_mut(12..).unwrap_or_default().copy_from_slice(&ether_type::IPV4.to_be_bytes());
            }
            let frame = frame.get_mut(..len).unwrap_or_default();
            match self.follow(env, frame, train) {
                Ok(egress) => self.emit_fitting(env, frame, egress),
                Err(_) => self.totals.held_fragments_lost += 1,
            }
            self.state.forget_held(&held_key);
            announce(env, &Statelet::HeldGone(held_key));
            if Ipv4::parse(held.packet()).is_ok_and(|(ip, _)| !ip.more_fragments()) {
                self.end_train(env, key);
            }
        }
    }

    /// Nothing will follow but what has been overtaken: the train need not be remembered for as long as others.
    fn end_train<E: Environment>(&mut self, env: &mut E, key: &TrainKey) {
        if self.state.end_train(key) {
            announce(env, &Statelet::TrainEnded(*key));
        }
    }

    /// Does with a later fragment what was done with the first. Returns where it leaves.
    fn follow<E: Environment>(&mut self, env: &mut E, frame: &mut [u8], train: &Train) -> Result<Side, Drop> {
        let egress = Side::of_port(PortId(train.egress)).ok_or(Drop::StateInconsistent)?;
        let (source, destination) = (Ipv4Addr::from_bits(train.source), Ipv4Addr::from_bits(train.destination));
        let (ethernet, packet) = Ethernet::parse_mut(frame).map_err(|_| Drop::FrameTooShort)?;
        let (mut ip, _) = Ipv4::parse_mut(packet).map_err(|_| Drop::Ipv4Malformed)?;
        let ttl = self.may_leave(&ip, egress)?;
        let next_hop = match egress {
            Side::Interior => destination,
            Side::Exterior => self.next_hop(destination)?,
        };
        let next_hop_mac = self.resolve(env, egress, next_hop).ok_or(Drop::ArpPending)?;
        let hosts = [(Direction::Outbound, train.host_outbound), (Direction::Inbound, train.host_inbound)];
        for (direction, host) in hosts.into_iter().filter(|(_, host)| *host != 0) {
            self.count(env, direction, Ipv4Addr::from_bits(host), ip.total_len())?;
        }
        ip.rewrite_source(source);
        ip.rewrite_destination(destination);
        ip.rewrite_ident(train.ident);
        self.send_on(ethernet, ip, ttl, egress, next_hop_mac);
        Ok(egress)
    }

    /// Keeps a fragment until the first of its train comes.
    fn hold<E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        packet: &[u8],
        fragment: &Fragment,
    ) -> Result<Verdict, Drop> {
        let (source, destination) =
            (Ipv4Addr::from_bits(fragment.key.source), Ipv4Addr::from_bits(fragment.key.destination));
        // What would not be forwarded whole is not worth the room.
        match side {
            Side::Interior => self.route_outbound(source, destination).map(drop)?,
            Side::Exterior if self.may_be_exempt(destination) => self.check_server(source)?,
            Side::Exterior => self.check_inbound(source, destination)?,
        }
        if Protocol::from_number(fragment.key.protocol).is_none() && self.exclusions.is_empty() {
            return Err(Drop::ProtocolUnsupported);
        }
        // Without the frame's padding.
        let packet = packet.get(..usize::from(fragment.len)).ok_or(Drop::Ipv4Malformed)?;
        let held = Held::new(self.state.clock.get(), packet).ok_or(Drop::FragmentTooLong)?;
        let key = HeldKey { train: fragment.key, offset: fragment.offset };
        self.state.hold(key, held).map_err(|_| Drop::FragmentsFull)?;
        if env.upd_enable() {
            let mut value = [0; 1 + HELD_LEN_MAX];
            if let Some((port, rest)) = value.split_first_mut() {
                *port = side.port().0;
                rest.get_mut(..packet.len()).unwrap_or_default().copy_from_slice(packet);
            }
            env.announce(Statelet::HOLD, value.get(..1 + packet.len()).unwrap_or_default());
        }
        Ok(Verdict::Consumed)
    }
}
