//! Packets that are excluded from translation: routed as they are, or dropped (RFC 6888 R6).
//!
//! What is exempt touches no state; it is recognised by its addresses in both directions.

use crate::Nat;
use crate::drops::Drop;
use crate::rules::{self, Action, Traffic};
use crate::translate::Route;
use crate::types::{Endpoint, Protocol, Side};
use core::net::Ipv4Addr;
use slim_core::nf::{Environment, Verdict};
use slim_core::packet::{ETHERNET_LEN, Ethernet, Ipv4};

impl Nat {
    /// What an exclusion says of a packet, as far as it is known before it is translated.
    #[cold]
    pub(crate) fn exclusion(&self, side: Side, packet: &[u8]) -> Option<Action> {
        let (ip, payload) = Ipv4::parse(packet).ok()?;
        let is_first = ip.fragment_offset() == 0;
        let ports = payload.first_chunk().filter(|_| is_first);
        let ports = ports.map(|&[a, b, c, d]: &[u8; 4]| [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
        let (source, destination, protocol) = (ip.source(), ip.destination(), ip.protocol());
        let traffic = match side {
            Side::Interior => Traffic { host: source, destination, protocol, port: ports.map(|[_, to]| to) },
            // What is for the NAT may be for a host that is not known yet.
            Side::Exterior if !self.is_interior(destination) => return None,
            Side::Exterior => {
                Traffic { host: destination, destination: source, protocol, port: ports.map(|[from, _]| from) }
            }
        };
        rules::action(&self.exclusions, &traffic)
    }

    /// Routes an exempt packet.
    pub(crate) fn route<E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        let (ip, _) = Ipv4::parse_mut(packet).map_err(|_| Drop::Ipv4Malformed)?;
        if !ip.checksum_is_correct() {
            return Err(Drop::Ipv4Checksum);
        }
        let (source, destination) = (ip.source(), ip.destination());
        let (egress, next_hop) = match side {
            Side::Interior if self.route_outbound(source, destination)? != Route::Exterior => {
                return Err(Drop::DestinationInvalid);
            }
            Side::Interior => (Side::Exterior, self.next_hop(destination)?),
            Side::Exterior => {
                self.check_server(source)?;
                (Side::Interior, destination)
            }
        };
        let ttl = self.may_leave(&ip, egress)?;
        let next_hop_mac = self.resolve(env, egress, next_hop).ok_or(Drop::ArpPending)?;
        self.totals.exempt_packets += 1;
        Ok(self.send_on(ethernet, ip, ttl, egress, next_hop_mac))
    }

    /// Refuses what passes between a host and a server, if an exclusion says so.
    #[inline(always)]
    pub(crate) fn check_denied(&self, protocol: Protocol, host: Ipv4Addr, server: Endpoint) -> Result<(), Drop> {
        if self.exclusions.is_empty() {
            return Ok(());
        }
        let traffic =
            Traffic { host, destination: server.address, protocol: protocol.number(), port: Some(server.port) };
        match rules::action(&self.exclusions, &traffic) {
            Some(Action::Deny) => Err(Drop::Denied),
            Some(Action::Exempt) | None => Ok(()),
        }
    }

    /// Whether a packet from outside may be exempt, as far as its addresses tell.
    pub(crate) fn may_be_exempt(&self, destination: Ipv4Addr) -> bool {
        !self.exclusions.is_empty() && self.is_interior(destination)
    }

    fn is_interior(&self, address: Ipv4Addr) -> bool {
        self.interface(Side::Interior).network.is_neighbour(address)
    }
}
