//! Unsolicited inbound SYNs (RFC 5382 R4): nothing is said to them for six seconds. If the interior host opens the very
//! connection meanwhile (a simultaneous open), nothing is said at all; otherwise the server is told that the port is
//! unreachable.
//!
//! What is waiting to be said is state, for whoever holds the state has to say it. It is bounded: of more SYNs at a time
//! than there is room for, some are never answered.

use crate::answer::PORT_UNREACHABLE;
use crate::drops::Drop;
use crate::statelet::Statelet;
use crate::tcp;
use crate::types::{Endpoint, SessionId, Side};
use crate::{Nat, announce};
use slim_core::nf::Environment;
use slim_core::packet::{Ethernet, Ipv4, MacAddr, Tcp, protocol};

/// For how long a SYN is not answered, in ticks. A tick more is sure to be long enough.
const SILENCE_S: u32 = 6;

/// How much of the SYN's packet is kept: the longest IPv4 header and 64 bits (RFC 792).
pub const SYN_LEN_MAX: usize = 60 + 8;

const MAC_LEN: usize = 6;

/// The most SYNs that wait. A connection attempt is repeated; a scan need not be answered.
pub(crate) const SYNS_MAX: usize = 64;

slim_core::pod! {
    /// The connection that a SYN asks for.
    pub struct SynKey {
        /// The server's address.
        pub server_address: u32,
        /// The exterior address.
        pub exterior_address: u32,
        /// The server's port.
        pub server_port: u16,
        /// The exterior port.
        pub exterior_port: u16,
    }
}

slim_core::pod! {
    /// A SYN that has not been answered.
    pub struct Syn {
        /// When it came.
        pub came: u32,
        /// Where it came from.
        pub mac: [u8; 6],
        /// The length of what is kept of its packet.
        pub len: u8,
        /// The begin of its packet, then zeros.
        pub packet: [u8; 68],
    }
}

impl SynKey {
    pub(crate) const fn new(server: Endpoint, exterior: Endpoint) -> Self {
        Self {
            server_address: server.address.to_bits(),
            exterior_address: exterior.address.to_bits(),
            server_port: server.port,
            exterior_port: exterior.port,
        }
    }

    /// The connection that a packet's begin asks for, if it is TCP's.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let (ip, segment) = Ipv4::parse_truncated(packet).ok()?;
        let &[s0, s1, d0, d1, _, _, _, _, ..] = segment else { return None };
        if ip.protocol() != protocol::TCP || ip.fragment_offset() != 0 {
            return None;
        }
        let server = Endpoint::new(ip.source(), u16::from_be_bytes([s0, s1]));
        let exterior = Endpoint::new(ip.destination(), u16::from_be_bytes([d0, d1]));
        Some(Self::new(server, exterior))
    }
}

impl Syn {
    /// `None` if the packet's begin is too long.
    pub(crate) fn new(came: u32, mac: MacAddr, packet: &[u8]) -> Option<Self> {
        let mut syn = Self { came, mac: mac.0, len: u8::try_from(packet.len()).ok()?, packet: [0; SYN_LEN_MAX] };
        syn.packet.get_mut(..packet.len())?.copy_from_slice(packet);
        Some(syn)
    }

    /// The begin of its packet.
    pub(crate) fn packet(&self) -> &[u8] {
        self.packet.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Nat {
    /// Remembers a dropped frame if it is a SYN that has to be answered later.
    #[cold]
    pub(crate) fn note_unsolicited<E: Environment>(&mut self, env: &mut E, frame: &[u8], drop: Drop) {
        if !matches!(drop, Drop::NoMapping | Drop::Filtered) {
            return;
        }
        let Ok((ethernet, packet)) = Ethernet::parse(frame) else { return };
        let Ok((ip, segment)) = Ipv4::parse(packet) else { return };
        if ip.protocol() != protocol::TCP || ip.is_fragment() || !ethernet.source().is_unicast() {
            return;
        }
        let Ok((tcp, payload)) = Tcp::parse(segment) else { return };
        let intact = tcp.checksum_is_correct(ip.pseudo_header(segment.len() as u16), payload);
        if !tcp::opens(tcp.flags()) || !intact {
            return;
        }
        let begin = packet.get(..ip.header_len() + 8).unwrap_or_default();
        let syn = Syn::new(self.state.clock.get(), ethernet.source(), begin);
        let (Some(key), Some(syn)) = (SynKey::of(begin), syn) else { return };
        // A repeated one does not begin another silence.
        if self.state.syns.get(&key).is_some() || self.state.hold_syn(key, syn).is_err() || !env.upd_enable() {
            return;
        }
        let mut value = [0; MAC_LEN + SYN_LEN_MAX];
        let len = MAC_LEN + begin.len();
        if let Some((mac, packet)) = value.get_mut(..len).and_then(|value| value.split_first_chunk_mut()) {
            *mac = syn.mac;
            packet.copy_from_slice(begin);
        }
        env.announce(Statelet::SYN, value.get(..len).unwrap_or_default());
    }

    /// The interior host opens the connection itself: there is nothing left to be said.
    #[inline(always)]
    pub(crate) fn forget_unsolicited<E: Environment>(&mut self, env: &mut E, id: &SessionId) {
        let key = SynKey::new(id.server, id.exterior);
        if !self.state.syns.is_empty() && self.state.forget_syn(&key) {
            announce(env, &Statelet::SynGone(key));
        }
    }

    /// Answers the SYNs whose time has come, a few at a time.
    #[cold]
    pub(crate) fn answer_unsolicited<E: Environment>(&mut self, env: &mut E) {
        for _ in 0..8 {
            let due = self.state.syns.iter().find(|(_, syn)| self.state.age(syn.came) > SILENCE_S);
            let Some((key, syn)) = due.map(|(key, syn)| (*key, *syn)) else { return };
            self.state.forget_syn(&key);
            announce(env, &Statelet::SynGone(key));
            self.send_error(env, Side::Exterior, MacAddr(syn.mac), syn.packet(), &PORT_UNREACHABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_begin_of_a_segment_names_a_connection() {
        let mut packet = [0u8; 28];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 40]);
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 2, 0, 10, 10, 2, 0, 1]);
        packet[20..24].copy_from_slice(&[0x1f, 0x90, 0x07, 0xd0]);
        let key = SynKey {
            server_address: 0x0a02_000a,
            exterior_address: 0x0a02_0001,
            server_port: 8080,
            exterior_port: 2000,
        };
        assert_eq!(SynKey::of(&packet), Some(key));
        assert_eq!(SynKey::of(&packet[..27]), None);
        packet[9] = 17;
        assert_eq!(SynKey::of(&packet), None);
    }
}
