//! What the NAT says itself: echo replies, and ICMP errors about packets that it drops.
//!
//! An error is sent for what a sender can do something about, never for an ICMP error, for a fragment other than the
//! first, or to a group (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7), and at a limited rate (RFC 1812 §4.3.2.8). How many
//! have been sent is not state: a new instance may send a few more.

use crate::Nat;
use crate::config::is_unicast;
use crate::drops::Drop;
use crate::icmp::is_error;
use crate::transport::Ipv4Mut;
use crate::types::{Protocol, Side};
use core::net::SocketAddrV4;
use slim_core::nf::{Environment, Verdict};
use slim_core::packet::{ETHERNET_LEN, Ethernet, Icmpv4, Ipv4, MacAddr, emit, icmp_type, protocol};

/// The most errors sent per tick of the clock.
const ERRORS_PER_TICK: u32 = 100;

/// How much of the packet an error carries, so that it has 576 bytes at most (RFC 1812 §4.3.2.3).
const SUBJECT_LEN_MAX: usize = 576 - 20 - 8;

/// The time to live of what the NAT sends itself (RFC 1700).
const TTL: u8 = 64;

/// Codes of "destination unreachable" (RFC 792, RFC 1812 §5.2.7.1).
mod unreachable {
    pub(super) const NET: u8 = 0;
    pub(super) const HOST: u8 = 1;
    pub(super) const PORT: u8 = 3;
    pub(super) const FRAGMENTATION_NEEDED: u8 = 4;
    pub(super) const PROHIBITED: u8 = 13;
}

/// The fields of "port unreachable".
pub(crate) const PORT_UNREACHABLE: emit::IcmpFields =
    emit::IcmpFields { message_type: icmp_type::UNREACHABLE, code: unreachable::PORT, rest: [0; 4] };

/// How many errors may still be sent in this tick.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ErrorBudget {
    tick: u32,
    sent: u32,
}

impl ErrorBudget {
    fn admits(&mut self, tick: u32) -> bool {
        if self.tick != tick {
            *self = Self { tick, sent: 0 };
        }
        self.sent += 1;
        self.sent <= ERRORS_PER_TICK
    }
}

/// Type and code of the error that tells a sender why its packet was dropped, if any does.
const fn error_for(drop: Drop, side: Side) -> Option<(u8, u8)> {
    match (drop, side) {
        (Drop::TtlExpired, _) => Some((icmp_type::TIME_EXCEEDED, 0)),
        (Drop::TooBig, _) => Some((icmp_type::UNREACHABLE, unreachable::FRAGMENTATION_NEEDED)),
        (Drop::NoRoute, _) => Some((icmp_type::UNREACHABLE, unreachable::NET)),
        // RFC 6888 R11. RFC 5508 R8 has code 13 for all of them; an administrator's limit is what that code means.
        (Drop::SessionsFull | Drop::MappingsFull | Drop::HostsFull | Drop::PortsExhausted, Side::Interior) => {
            Some((icmp_type::UNREACHABLE, unreachable::HOST))
        }
        (Drop::HostSessionLimit | Drop::MappingSessionLimit | Drop::HostPortLimit | Drop::Denied, Side::Interior) => {
            Some((icmp_type::UNREACHABLE, unreachable::PROHIBITED))
        }
        (Drop::ToSelf, Side::Interior) => Some((icmp_type::UNREACHABLE, unreachable::PORT)),
        _ => None,
    }
}

impl Nat {
    /// Tells the sender of a dropped frame why, where that is right.
    #[cold]
    pub(crate) fn report_drop<E: Environment>(&mut self, env: &mut E, side: Side, frame: &[u8], drop: Drop) {
        let Some((message_type, code)) = error_for(drop, side) else { return };
        let Ok((ethernet, packet)) = Ethernet::parse(frame) else { return };
        let Ok((ip, _)) = Ipv4::parse(packet) else { return };
        // Without padding.
        let whole = packet.get(..usize::from(ip.total_len())).unwrap_or(packet);
        let rest = match drop {
            // The next hop's MTU is in the last two bytes (RFC 1191 §4).
            Drop::TooBig => u32::from(self.egress_mtu(side, ip.destination())).to_be_bytes(),
            _ => [0; 4],
        };
        self.send_error(env, side, ethernet.source(), whole, &emit::IcmpFields { message_type, code, rest });
    }

    /// Sends an error about a packet, or the begin of one, that came from `mac`, unless it must not be told of.
    pub(crate) fn send_error<E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        mac: MacAddr,
        packet: &[u8],
        fields: &emit::IcmpFields,
    ) {
        let Ok((ip, payload)) = Ipv4::parse_truncated(packet) else { return };
        let silent = ip.fragment_offset() != 0
            || (ip.protocol() == protocol::ICMP && is_error(payload))
            || !is_unicast(ip.source())
            || !mac.is_unicast();
        if silent || !self.errors.admits(self.state.clock.get()) {
            return;
        }
        let own = *self.interface(side);
        let ends = emit::Ends {
            source_mac: own.mac,
            destination_mac: mac,
            source: SocketAddrV4::new(own.network.address, 0),
            destination: SocketAddrV4::new(ip.source(), 0),
        };
        let subject = packet.get(..SUBJECT_LEN_MAX).unwrap_or(packet);
        let mut buffer = [0; emit::ICMP_PAYLOAD_AT + SUBJECT_LEN_MAX];
        if let Ok(len) = emit::icmp(&mut buffer, &ends, fields, subject) {
            self.totals.icmp_errors_sent += 1;
            env.emit(side.port(), buffer.get(..len).unwrap_or_default());
        }
    }

    /// Answers an echo request for one of the NAT's own addresses; it offers no other service.
    #[cold]
    pub(crate) fn process_own(
        &mut self,
        side: Side,
        mut ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        mut ip: Ipv4Mut<'_>,
        protocol: Protocol,
        message: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let from: MacAddr = ethernet.source();
        if protocol != Protocol::Icmp || !from.is_unicast() {
            return Err(Drop::ToSelf);
        }
        let (mut icmp, data) = Icmpv4::parse_mut(message).map_err(|_| Drop::IcmpMalformed)?;
        if icmp.message_type() != icmp_type::ECHO_REQUEST || icmp.code() != 0 {
            return Err(Drop::IcmpUnsupported);
        }
        if !icmp.checksum_is_correct(data) {
            return Err(Drop::IcmpChecksum);
        }
        // A new packet, with a time to live of its own: only its length can keep it from leaving.
        if ip.dont_fragment() && ip.total_len() > self.interface(side).mtu {
            return Err(Drop::TooBig);
        }
        icmp.set_type(icmp_type::ECHO_REPLY, 0);
        icmp.fill_checksum(data);
        let (source, destination) = (ip.source(), ip.destination());
        ip.rewrite_source(destination);
        ip.rewrite_destination(source);
        ip.rewrite_ttl(TTL);
        ethernet.set_source(self.interface(side).mac);
        ethernet.set_destination(from);
        self.totals.echo_replies_sent += 1;
        Ok(Verdict::Transmit(side.port()))
    }
}
