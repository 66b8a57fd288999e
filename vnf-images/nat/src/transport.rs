//! Transport headers: what UDP, TCP and ICMP queries have in common for a NAT.

use crate::drops::Drop;
use crate::tcp;
use crate::types::{Direction, Protocol};
use slim_core::packet::{
    ChecksumDelta, ICMPV4_LEN, IPV4_LEN, Icmpv4, Ipv4, TCP_LEN, Tcp, TcpFlags, UDP_LEN, Udp, icmp_type,
};

pub(crate) type Ipv4Mut<'a> = Ipv4<&'a mut [u8; IPV4_LEN], &'a mut [u8]>;

/// The transport header of a packet, and what follows it.
pub(crate) enum Transport<'a> {
    Udp(Udp<&'a mut [u8; UDP_LEN]>, &'a mut [u8]),
    Tcp(Tcp<&'a mut [u8; TCP_LEN], &'a mut [u8]>, &'a mut [u8]),
    Icmp(Icmpv4<&'a mut [u8; ICMPV4_LEN]>, &'a mut [u8]),
}

impl<'a> Transport<'a> {
    /// Of ICMP, only queries go out, and only replies come in. `whole`: this is not a fragment.
    #[inline(always)]
    pub(crate) fn parse(
        protocol: Protocol,
        direction: Direction,
        whole: bool,
        bytes: &'a mut [u8],
    ) -> Result<Self, Drop> {
        match protocol {
            Protocol::Udp => {
                let parsed = if whole {
                    Udp::parse_mut(bytes)
                } else {
                    // Its length is the whole datagram's.
                    Udp::parse_truncated_mut(bytes).map(|udp| (udp, Default::default()))
                };
                let (udp, payload) = parsed.map_err(|_| Drop::UdpMalformed)?;
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
            Protocol::Icmp => {
                let (icmp, payload) = Icmpv4::parse_mut(bytes).map_err(|_| Drop::IcmpMalformed)?;
                let passes = match direction {
                    Direction::Outbound => is_query(icmp.message_type()),
                    Direction::Inbound => is_reply(icmp.message_type()),
                };
                if !passes || icmp.code() != 0 {
                    return Err(Drop::IcmpUnsupported);
                }
                Ok(Self::Icmp(icmp, payload))
            }
        }
    }

    /// Source and destination. An ICMP identifier is that of whoever asks.
    #[inline(always)]
    pub(crate) fn ports(&self) -> (u16, u16) {
        match self {
            Self::Udp(udp, _) => (udp.source(), udp.destination()),
            Self::Tcp(tcp, _) => (tcp.source(), tcp.destination()),
            Self::Icmp(icmp, _) if is_query(icmp.message_type()) => (icmp.ident(), 0),
            Self::Icmp(icmp, _) => (0, icmp.ident()),
        }
    }

    /// No flags but TCP's.
    #[inline(always)]
    pub(crate) fn flags(&self) -> TcpFlags {
        match self {
            Self::Udp(..) | Self::Icmp(..) => TcpFlags::default(),
            Self::Tcp(tcp, _) => tcp.flags(),
        }
    }

    /// Cannot tell for a fragment, and lets it pass.
    pub(crate) fn verify_checksum(&self, ip: &Ipv4Mut<'_>) -> Result<(), Drop> {
        if ip.is_fragment() {
            return Ok(());
        }
        let is_correct = match self {
            Self::Udp(udp, payload) => udp.checksum_is_correct(ip.pseudo_header(udp.length()), payload),
            Self::Tcp(tcp, payload) => {
                // The segment is a part of an IPv4 packet, so its length fits.
                let length = (tcp.header_len() + payload.len()) as u16;
                tcp.checksum_is_correct(ip.pseudo_header(length), payload)
            }
            Self::Icmp(icmp, payload) => {
                return if icmp.checksum_is_correct(payload) { Ok(()) } else { Err(Drop::IcmpChecksum) };
            }
        };
        if is_correct { Ok(()) } else { Err(Drop::TransportChecksum) }
    }

    #[inline(always)]
    pub(crate) fn rewrite_source(&mut self, port: u16, addresses: ChecksumDelta) {
        match self {
            Self::Udp(udp, _) => udp.rewrite_source(port, addresses),
            Self::Tcp(tcp, _) => tcp.rewrite_source(port, addresses),
            Self::Icmp(icmp, _) => icmp.rewrite_ident(port),
        }
    }

    #[inline(always)]
    pub(crate) fn rewrite_destination(&mut self, port: u16, addresses: ChecksumDelta) {
        match self {
            Self::Udp(udp, _) => udp.rewrite_destination(port, addresses),
            Self::Tcp(tcp, _) => tcp.rewrite_destination(port, addresses),
            Self::Icmp(icmp, _) => icmp.rewrite_ident(port),
        }
    }
}

/// Whether an ICMP message asks, with an identifier of its own (RFC 5508 R1).
pub(crate) const fn is_query(message_type: u8) -> bool {
    matches!(message_type, icmp_type::ECHO_REQUEST | icmp_type::TIMESTAMP)
}

/// Whether an ICMP message answers a query.
pub(crate) const fn is_reply(message_type: u8) -> bool {
    matches!(message_type, icmp_type::ECHO_REPLY | icmp_type::TIMESTAMP_REPLY)
}

/// Whether a segment with these flags may change a TCP session's state.
pub(crate) fn is_control(flags: TcpFlags) -> bool {
    flags.intersects(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
}
