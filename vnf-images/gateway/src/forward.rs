//! Packets through the gateway, and ARP requests for its own addresses.
//!
//! The next hops' MAC addresses are configured: the gateway learns nothing but where subscribers are.

use crate::drops::Drop;
use crate::statelet::Subscriber;
use crate::tag::{self, Tag};
use crate::{Gateway, IN, OUT};
use core::net::Ipv4Addr;
use slim_core::nf::{Environment, InterfaceAddress, PortId, Verdict};
use slim_core::packet::{
    Arp, ArpOperation, ETHERNET_LEN, Ethernet, Ipv4, MacAddr, PacketBuf, Tcp, Udp, ether_type, protocol,
};

/// What names the two ends of a packet.
struct Ends {
    source: Subscriber,
    destination: Subscriber,
}

impl Gateway {
    #[inline]
    pub(crate) fn forward<P: PacketBuf, E: Environment>(
        &mut self,
        env: &mut E,
        port: PortId,
        packet: &mut P,
    ) -> Result<Verdict, Drop> {
        let (own, own_mac) = match port {
            IN => (self.config.interior_address, self.config.interior_mac),
            OUT => (self.config.exterior_address, self.config.exterior_mac),
            _ => return Err(Drop::UnknownPort),
        };
        let (ethernet, payload) = Ethernet::parse_mut(packet.bytes_mut()).map_err(|_| Drop::FrameTooShort)?;
        let to_own_mac = ethernet.destination() == own_mac;
        match ethernet.ether_type() {
            ether_type::ARP if to_own_mac || ethernet.destination() == MacAddr::BROADCAST => {
                answer(ethernet, payload, own, own_mac)?;
                Ok(Verdict::Transmit(port))
            }
            _ if !to_own_mac => Err(Drop::NotToOwnMac),
            tag::ETHER_TYPE if port == IN => self.forward_uplink(env, packet),
            ether_type::IPV4 if port == OUT => self.forward_downlink(packet),
            _ if port == IN => Err(Drop::Untagged),
            _ => Err(Drop::NotIpv4),
        }
    }

    #[inline]
    fn forward_uplink<P: PacketBuf, E: Environment>(&mut self, env: &mut E, packet: &mut P) -> Result<Verdict, Drop> {
        let tagged = packet.bytes_mut().get_mut(ETHERNET_LEN..).unwrap_or_default();
        let tag = Tag::parse(tagged).ok_or(Drop::Untagged)?;
        let ends = prepare(tagged.get_mut(tag::LEN..).unwrap_or_default())?;
        if !self.config.interior_address.is_neighbour(ends.source.address) {
            return Err(Drop::SourceInvalid);
        }
        if ends.source.port == 0 {
            return Err(Drop::TransportMalformed);
        }
        if !is_outside(&self.config, ends.destination.address) {
            return Err(Drop::DestinationInvalid);
        }
        self.locate(env, ends.source, tag.serving_cell())?;
        tag::remove(packet);
        address(packet, self.config.exterior_mac, self.config.router_mac, ether_type::IPV4)?;
        Ok(Verdict::Transmit(OUT))
    }

    #[inline]
    fn forward_downlink<P: PacketBuf>(&self, packet: &mut P) -> Result<Verdict, Drop> {
        let ends = prepare(packet.bytes_mut().get_mut(ETHERNET_LEN..).unwrap_or_default())?;
        let association = self.state.association(ends.destination).ok_or(Drop::UnknownSubscriber)?;
        let tag = Tag { cell: association.cell, hand_over_to: None };
        tag.insert(packet).map_err(|_| Drop::NoRoom)?;
        address(packet, self.config.interior_mac, self.config.cells_mac, tag::ETHER_TYPE)?;
        Ok(Verdict::Transmit(IN))
    }
}

/// Checks an IPv4 packet and lets it take one hop.
#[inline]
fn prepare(packet: &mut [u8]) -> Result<Ends, Drop> {
    let (mut ip, payload) = Ipv4::parse_mut(packet).map_err(|_| Drop::Ipv4Malformed)?;
    if !ip.checksum_is_correct() {
        return Err(Drop::Ipv4Checksum);
    }
    if ip.ttl() <= 1 {
        return Err(Drop::TtlExpired);
    }
    if ip.is_fragment() {
        return Err(Drop::Fragment);
    }
    let malformed = |_| Drop::TransportMalformed;
    let (source, destination) = match ip.protocol() {
        protocol::UDP => {
            let (udp, _) = Udp::parse(payload).map_err(malformed)?;
            (udp.source(), udp.destination())
        }
        protocol::TCP => {
            let (tcp, _) = Tcp::parse(payload).map_err(malformed)?;
            (tcp.source(), tcp.destination())
        }
        _ => return Err(Drop::ProtocolUnsupported),
    };
    ip.rewrite_ttl(ip.ttl() - 1);
    Ok(Ends {
        source: Subscriber { address: ip.source(), port: source },
        destination: Subscriber { address: ip.destination(), port: destination },
    })
}

/// Whether `address` is one that the gateway forwards to from the cells.
fn is_outside(config: &crate::Config, address: Ipv4Addr) -> bool {
    let special = address.is_multicast() || address.is_broadcast() || address.is_loopback() || address.is_unspecified();
    !special && !config.interior_address.contains(address) && address != config.exterior_address.address
}

/// Writes the Ethernet header.
#[inline]
fn address<P: PacketBuf>(packet: &mut P, source: MacAddr, destination: MacAddr, ether_type: u16) -> Result<(), Drop> {
    let (mut ethernet, _) = Ethernet::parse_mut(packet.bytes_mut()).map_err(|_| Drop::FrameTooShort)?;
    ethernet.set_source(source);
    ethernet.set_destination(destination);
    ethernet.set_ether_type(ether_type);
    Ok(())
}

/// Makes an ARP request for the gateway's address its answer (RFC 826).
#[cold]
fn answer(
    mut ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
    payload: &mut [u8],
    own: InterfaceAddress,
    own_mac: MacAddr,
) -> Result<(), Drop> {
    let mut arp = Arp::parse_mut(payload).map_err(|_| Drop::ArpIgnored)?;
    let (sender, sender_mac) = (arp.sender(), arp.sender_mac());
    let asks_for_us = arp.operation() == ArpOperation::Request && arp.target() == own.address;
    if !asks_for_us || !sender_mac.is_unicast() || sender_mac == own_mac || sender == own.address {
        return Err(Drop::ArpIgnored);
    }
    ethernet.set_destination(sender_mac);
    ethernet.set_source(own_mac);
    arp.set_operation(ArpOperation::Reply);
    arp.set_target(sender_mac, sender);
    arp.set_sender(own_mac, own.address);
    Ok(())
}
