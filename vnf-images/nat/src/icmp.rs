//! ICMP errors: about packets of sessions that the NAT translates (RFC 5508 R3 to R7).
//!
//! An error carries the begin of the packet that it is about, as its sender saw it. That packet is translated back, so
//! that whoever gets the error recognises it. Errors neither refresh nor end a session (RFC 5508 R6, RFC 4787 R12,
//! RFC 5382 R10).
//!
//! ```text
//! to an interior host:  IP  any router → exterior     ICMP  IP exterior:port → server …
//!                       IP  any router → interior     ICMP  IP interior:port → server …
//! from one:             IP  interior → server         ICMP  IP server → interior:port …
//!                       IP  exterior → server         ICMP  IP server → exterior:port …
//! ```

use crate::Nat;
use crate::drops::Drop;
use crate::tables::SessionKey;
use crate::transport::{Ipv4Mut, is_query, is_reply};
use crate::types::{Direction, Endpoint, Protocol, Side};
use core::net::Ipv4Addr;
use slim_core::nf::{Environment, Verdict};
use slim_core::packet::{ChecksumDelta, ETHERNET_LEN, Ethernet, ICMPV4_LEN, Icmpv4, Ipv4, Udp, icmp_type};

/// Where a TCP header has its checksum.
const TCP_CHECKSUM_AT: usize = 16;

/// Whether an ICMP message is an error.
pub(crate) fn is_error(message: &[u8]) -> bool {
    let Some(&message_type) = message.first() else { return false };
    matches!(message_type, icmp_type::UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM)
}

/// What the packet in an error says of the session it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subject {
    protocol: Protocol,
    source: Endpoint,
    destination: Endpoint,
}

/// An ICMP error, split where it is to be changed.
struct IcmpError<'a> {
    icmp: Icmpv4<&'a mut [u8; ICMPV4_LEN]>,
    inner: &'a mut [u8],
    subject: Subject,
}

impl<'a> IcmpError<'a> {
    /// Reads an error. Its checksum must be right (RFC 5508 R3).
    fn parse(message: &'a mut [u8]) -> Result<Self, Drop> {
        let (icmp, inner) = Icmpv4::parse_mut(message).map_err(|_| Drop::IcmpMalformed)?;
        if !icmp.checksum_is_correct(inner) {
            return Err(Drop::IcmpChecksum);
        }
        let subject = subject(inner).ok_or(Drop::IcmpMalformed)?;
        Ok(Self { icmp, inner, subject })
    }

    fn set_source(&mut self, source: Endpoint) {
        let query = is_query_inside(self.inner);
        if let Ok((mut ip, transport)) = Ipv4::parse_truncated_mut(self.inner) {
            let addresses = ip.rewrite_source(source.address);
            match self.subject.protocol {
                Protocol::Icmp if !query => {}
                protocol => rewrite_port(protocol, transport, 0, source.port, addresses),
            }
        }
    }

    fn set_destination(&mut self, destination: Endpoint) {
        let query = is_query_inside(self.inner);
        if let Ok((mut ip, transport)) = Ipv4::parse_truncated_mut(self.inner) {
            let addresses = ip.rewrite_destination(destination.address);
            match self.subject.protocol {
                Protocol::Icmp if query => {}
                protocol => rewrite_port(protocol, transport, 2, destination.port, addresses),
            }
        }
    }

    fn finish(mut self) {
        self.icmp.fill_checksum(self.inner);
    }
}

/// The session of the packet in an error. `None` if too little of it is there, or it has none.
fn subject(inner: &[u8]) -> Option<Subject> {
    let (ip, transport) = Ipv4::parse_truncated(inner).ok()?;
    // Only a first fragment has ports.
    if ip.fragment_offset() != 0 {
        return None;
    }
    let protocol = Protocol::from_number(ip.protocol())?;
    let &[a, b, c, d, e, f, ..] = transport else { return None };
    // At least 64 bits of it must be there (RFC 792).
    transport.get(7)?;
    let (source, destination) = match protocol {
        Protocol::Udp | Protocol::Tcp => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        Protocol::Icmp if is_query(a) => (u16::from_be_bytes([e, f]), 0),
        Protocol::Icmp if is_reply(a) => (0, u16::from_be_bytes([e, f])),
        // An error is not answered with an error.
        Protocol::Icmp => return None,
    };
    Some(Subject {
        protocol,
        source: Endpoint::new(ip.source(), source),
        destination: Endpoint::new(ip.destination(), destination),
    })
}

fn is_query_inside(inner: &[u8]) -> bool {
    Ipv4::parse_truncated(inner).is_ok_and(|(_, transport)| transport.first().is_some_and(|first| is_query(*first)))
}

/// Rewrites the port at offset `at`, and the checksum as far as it is there (RFC 5508 §3.2).
fn rewrite_port(protocol: Protocol, transport: &mut [u8], at: usize, port: u16, addresses: ChecksumDelta) {
    match protocol {
        Protocol::Udp => {
            if let Ok(mut udp) = Udp::parse_truncated_mut(transport) {
                if at == 0 { udp.rewrite_source(port, addresses) } else { udp.rewrite_destination(port, addresses) }
            }
        }
        Protocol::Icmp => {
            if let Ok((mut icmp, _)) = Icmpv4::parse_mut(transport) {
                icmp.rewrite_ident(port);
            }
        }
        Protocol::Tcp => {
            let Some(field) = transport.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
            let delta = addresses.word(u16::from_be_bytes(*field), port);
            *field = port.to_be_bytes();
            let checksum = transport.get_mut(TCP_CHECKSUM_AT..).and_then(|rest| rest.first_chunk_mut::<2>());
            if let Some(checksum) = checksum {
                *checksum = delta.apply(u16::from_be_bytes(*checksum)).to_be_bytes();
            }
        }
    }
}

impl Nat {
    /// The interior end of the session that a packet belongs to which was sent out as `subject`.
    fn interior_end(&self, subject: &Subject) -> Result<Endpoint, Drop> {
        let interior = self.state.interior_of(subject.protocol, subject.source).ok_or(Drop::IcmpNoSession)?;
        let key = SessionKey::new(subject.protocol, interior, subject.destination);
        self.state.sessions.get(&key).map(|_| interior).ok_or(Drop::IcmpNoSession)
    }

    /// The exterior end of the session that a packet belongs to which an interior host got as `subject`.
    fn exterior_end(&self, subject: &Subject) -> Result<Endpoint, Drop> {
        let key = SessionKey::new(subject.protocol, subject.destination, subject.source);
        self.state.sessions.get(&key).map(|session| session.exterior()).ok_or(Drop::IcmpNoSession)
    }

    /// Translates an error from the exterior about a packet that an interior host sent.
    #[cold]
    pub(crate) fn process_error_inbound<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        mut ip: Ipv4Mut<'_>,
        message: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let mut error = IcmpError::parse(message)?;
        let ttl = self.may_leave(&ip, Side::Interior)?;
        let interior = self.interior_end(&error.subject)?;
        let host_mac = self.resolve(env, Side::Interior, interior.address).ok_or(Drop::ArpPending)?;
        self.count(env, Direction::Inbound, interior.address, ip.total_len())?;
        error.set_source(interior);
        error.finish();
        ip.rewrite_destination(interior.address);
        Ok(self.send_on(ethernet, ip, ttl, Side::Interior, host_mac))
    }

    /// Translates an error of an interior host about a packet that it got from the exterior.
    #[cold]
    pub(crate) fn process_error_outbound<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        mut ip: Ipv4Mut<'_>,
        message: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let mut error = IcmpError::parse(message)?;
        let (ttl, host) = (self.may_leave(&ip, Side::Exterior)?, ip.source());
        let exterior = self.exterior_end(&error.subject)?;
        let next_hop = self.next_hop(ip.destination())?;
        let next_hop_mac = self.resolve(env, Side::Exterior, next_hop).ok_or(Drop::ArpPending)?;
        self.count_if_known(env, Direction::Outbound, host, ip.total_len());
        error.set_destination(exterior);
        error.finish();
        ip.rewrite_source(exterior.address);
        self.identify(env, &mut ip);
        Ok(self.send_on(ethernet, ip, ttl, Side::Exterior, next_hop_mac))
    }

    /// Translates an error of an interior host about a packet that it got from another one by way of the exterior
    /// address (RFC 5508 R7).
    #[cold]
    pub(crate) fn process_error_hairpin<E: Environment>(
        &mut self,
        env: &mut E,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        mut ip: Ipv4Mut<'_>,
        message: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let mut error = IcmpError::parse(message)?;
        let (ttl, host) = (self.may_leave(&ip, Side::Interior)?, ip.source());
        let exterior = self.exterior_end(&error.subject)?;
        let sent = Subject { destination: exterior, ..error.subject };
        let interior = self.interior_end(&sent)?;
        let host_mac = self.resolve(env, Side::Interior, interior.address).ok_or(Drop::ArpPending)?;
        self.count_if_known(env, Direction::Outbound, host, ip.total_len());
        self.count(env, Direction::Inbound, interior.address, ip.total_len())?;
        error.set_destination(exterior);
        error.set_source(interior);
        error.finish();
        ip.rewrite_source(exterior.address);
        ip.rewrite_destination(interior.address);
        self.identify(env, &mut ip);
        Ok(self.send_on(ethernet, ip, ttl, Side::Interior, host_mac))
    }

    /// Counts a packet of an interior host that may have no sessions: a router in between that tells of an error.
    fn count_if_known<E: Environment>(&mut self, env: &mut E, direction: Direction, host: Ipv4Addr, bytes: u16) {
        // Unknown hosts have no counters, and an error is no reason to begin some.
        let _ = self.count(env, direction, host, bytes);
    }
}
