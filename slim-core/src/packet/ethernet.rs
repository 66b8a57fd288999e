//! Ethernet, VLAN tags and ARP.

use super::mac::MacAddr;
use super::{HeaderError, be16, split, split_mut};
use core::borrow::{Borrow, BorrowMut};
use core::net::Ipv4Addr;

/// EtherTypes of the protocols known here.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q VLAN tag.
    pub const VLAN: u16 = 0x8100;
}

/// An Ethernet header over `H`, a (mutable) reference to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet<H>(H);

/// Length of an Ethernet header in bytes.
pub const ETHERNET_LEN: usize = 14;

impl<'a> Ethernet<&'a [u8; ETHERNET_LEN]> {
    /// Splits a frame into its header and its payload.
    #[inline]
    pub fn parse(frame: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        split(frame).map(|(header, payload)| (Self(header), payload))
    }
}

impl<'a> Ethernet<&'a mut [u8; ETHERNET_LEN]> {
    /// Splits a frame into its header and its payload, both for changes.
    #[inline]
    pub fn parse_mut(frame: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        split_mut(frame).map(|(header, payload)| (Self(header), payload))
    }
}

impl<H: Borrow<[u8; ETHERNET_LEN]>> Ethernet<H> {
    /// Destination address.
    #[inline]
    pub fn destination(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.0.borrow();
        MacAddr([a, b, c, d, e, f])
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0.borrow();
        MacAddr([a, b, c, d, e, f])
    }

    /// What the payload is; see [`ether_type`].
    #[inline]
    pub fn ether_type(&self) -> u16 {
        be16(self.0.borrow(), 12)
    }
}

impl<H: BorrowMut<[u8; ETHERNET_LEN]>> Ethernet<H> {
    /// Sets the destination address.
    #[inline]
    pub fn set_destination(&mut self, address: MacAddr) {
        self.0.borrow_mut()[..6].copy_from_slice(&address.0);
    }

    /// Sets the source address.
    #[inline]
    pub fn set_source(&mut self, address: MacAddr) {
        self.0.borrow_mut()[6..12].copy_from_slice(&address.0);
    }

    /// Sets what the payload is.
    #[inline]
    pub fn set_ether_type(&mut self, ether_type: u16) {
        self.0.borrow_mut()[12..].copy_from_slice(&ether_type.to_be_bytes());
    }
}

/// What follows the EtherType of a VLAN-tagged frame, over `H`, a (mutable) reference to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Vlan<H>(H);

/// Length of a VLAN tag behind its EtherType, in bytes: tag control information and the EtherType of the payload.
pub const VLAN_LEN: usize = 4;

impl<'a> Vlan<&'a [u8; VLAN_LEN]> {
    /// Splits the payload of an Ethernet header of type [`ether_type::VLAN`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        split(bytes).map(|(header, payload)| (Self(header), payload))
    }
}

impl<'a> Vlan<&'a mut [u8; VLAN_LEN]> {
    /// Splits the payload of an Ethernet header of type [`ether_type::VLAN`], for changes.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        split_mut(bytes).map(|(header, payload)| (Self(header), payload))
    }
}

impl<H: Borrow<[u8; VLAN_LEN]>> Vlan<H> {
    /// The VLAN's number, 0 to 4095.
    #[inline]
    pub fn id(&self) -> u16 {
        be16(self.0.borrow(), 0) & 0xfff
    }

    /// What the payload is.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        be16(self.0.borrow(), 2)
    }
}

impl<H: BorrowMut<[u8; VLAN_LEN]>> Vlan<H> {
    /// Sets the VLAN's number (12 bits), keeping the priority.
    #[inline]
    pub fn set_id(&mut self, id: u16) {
        let bytes = self.0.borrow_mut();
        let control = be16(bytes, 0) & 0xf000 | id & 0xfff;
        bytes[..2].copy_from_slice(&control.to_be_bytes());
    }
}

/// What an ARP packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    /// "Who has the target's address?"
    Request,
    /// "The sender has it."
    Reply,
}

impl ArpOperation {
    /// Its number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// An ARP packet for IPv4 over Ethernet (RFC 826), over `H`, a (mutable) reference to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Arp<H>(H);

/// Length of an ARP packet for IPv4 over Ethernet, in bytes.
pub const ARP_LEN: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
pub(super) const ARP_PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

fn check_arp(bytes: &[u8; ARP_LEN]) -> Result<(), HeaderError> {
    if !bytes.starts_with(&ARP_PREFIX) {
        return Err(HeaderError::ArpType);
    }
    match be16(bytes, 6) {
        1 | 2 => Ok(()),
        _ => Err(HeaderError::ArpOperation),
    }
}

impl<'a> Arp<&'a [u8; ARP_LEN]> {
    /// Checks a packet; what follows it is padding.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        let (packet, _) = split(bytes)?;
        check_arp(packet).map(|()| Self(packet))
    }
}

impl<'a> Arp<&'a mut [u8; ARP_LEN]> {
    /// Checks a packet, for changes; what follows it is padding.
    pub fn parse_mut(bytes: &'a mut [u8]) -> Result<Self, HeaderError> {
        let (packet, _) = split_mut(bytes)?;
        check_arp(packet).map(|()| Self(packet))
    }
}

fn mac_at(bytes: &[u8; ARP_LEN], at: usize) -> MacAddr {
    MacAddr(core::array::from_fn(|i| bytes[at + i]))
}

fn address_at(bytes: &[u8; ARP_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

impl<H: Borrow<[u8; ARP_LEN]>> Arp<H> {
    /// Request or reply.
    pub fn operation(&self) -> ArpOperation {
        if be16(self.0.borrow(), 6) == 1 { ArpOperation::Request } else { ArpOperation::Reply }
    }

    /// The sender's MAC address.
    pub fn sender_mac(&self) -> MacAddr {
        mac_at(self.0.borrow(), 8)
    }

    /// The sender's IPv4 address.
    pub fn sender(&self) -> Ipv4Addr {
        address_at(self.0.borrow(), 14)
    }

    /// The target's MAC address; meaningless in a request.
    pub fn target_mac(&self) -> MacAddr {
        mac_at(self.0.borrow(), 18)
    }

    /// The target's IPv4 address.
    pub fn target(&self) -> Ipv4Addr {
        address_at(self.0.borrow(), 24)
    }
}

impl<H: BorrowMut<[u8; ARP_LEN]>> Arp<H> {
    /// Sets request or reply.
    pub fn set_operation(&mut self, operation: ArpOperation) {
        self.0.borrow_mut()[6..8].copy_from_slice(&operation.number().to_be_bytes());
    }

    /// Sets the sender's addresses.
    pub fn set_sender(&mut self, mac: MacAddr, address: Ipv4Addr) {
        self.0.borrow_mut()[8..14].copy_from_slice(&mac.0);
        self.0.borrow_mut()[14..18].copy_from_slice(&address.octets());
    }

    /// Sets the target's addresses.
    pub fn set_target(&mut self, mac: MacAddr, address: Ipv4Addr) {
        self.0.borrow_mut()[18..24].copy_from_slice(&mac.0);
        self.0.borrow_mut()[24..].copy_from_slice(&address.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 46] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x51, 0x1a, 0, 0, 9, 0x08, 0x06, // Ethernet
        0, 1, 0x08, 0, 6, 4, 0, 1, 0x02, 0x51, 0x1a, 0, 0, 9, 10, 1, 0, 10, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1, // ARP
        0xde, 0xad, 0xbe, 0xef, // padding
    ];

    #[test]
    fn arp_request_is_read_from_its_bytes() {
        let (ethernet, payload) = Ethernet::parse(&REQUEST).unwrap();
        assert_eq!(ethernet.destination(), MacAddr::BROADCAST);
        assert_eq!(ethernet.source(), MacAddr([0x02, 0x51, 0x1a, 0, 0, 9]));
        assert_eq!(ethernet.ether_type(), ether_type::ARP);
        let arp = Arp::parse(payload).unwrap();
        assert_eq!(arp.operation(), ArpOperation::Request);
        assert_eq!(arp.sender_mac(), MacAddr([0x02, 0x51, 0x1a, 0, 0, 9]));
        assert_eq!(arp.sender(), Ipv4Addr::new(10, 1, 0, 10));
        assert_eq!(arp.target_mac(), MacAddr([0; 6]));
        assert_eq!(arp.target(), Ipv4Addr::new(10, 1, 0, 1));
    }

    #[test]
    fn arp_setters_change_their_own_fields() {
        let mut frame = REQUEST;
        let (mut ethernet, payload) = Ethernet::parse_mut(&mut frame).unwrap();
        let (near, far) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        ethernet.set_destination(far);
        ethernet.set_source(near);
        ethernet.set_ether_type(0x1234);
        let mut arp = Arp::parse_mut(payload).unwrap();
        arp.set_operation(ArpOperation::Reply);
        arp.set_sender(near, Ipv4Addr::new(1, 2, 3, 4));
        arp.set_target(far, Ipv4Addr::new(5, 6, 7, 8));
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x12, 0x34, // Ethernet
            0, 1, 0x08, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 1, 2, 3, 4, 2, 0, 0, 0, 0, 2, 5, 6, 7, 8, // ARP
            0xde, 0xad, 0xbe, 0xef, // padding
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn arp_of_other_kinds_is_refused() {
        for (at, error) in [
            (1, HeaderError::ArpType),
            (2, HeaderError::ArpType),
            (4, HeaderError::ArpType),
            (5, HeaderError::ArpType),
            (7, HeaderError::ArpOperation),
        ] {
            let mut packet: [u8; ARP_LEN] = core::array::from_fn(|i| REQUEST[ETHERNET_LEN + i]);
            packet[at] = 3;
            assert_eq!(Arp::parse(&packet).unwrap_err(), error);
        }
        assert_eq!(Arp::parse(&REQUEST[14..41]).unwrap_err(), HeaderError::Truncated);
    }

    #[test]
    fn vlan_tag_keeps_its_priority() {
        let mut bytes = [0xe0, 0x05, 0x08, 0x00, 1, 2];
        let (mut vlan, _) = Vlan::parse_mut(&mut bytes).unwrap();
        assert_eq!(vlan.id(), 5);
        vlan.set_id(0xfff);
        let (vlan, payload) = Vlan::parse(&bytes).unwrap();
        assert_eq!((vlan.id(), vlan.ether_type(), payload), (0xfff, ether_type::IPV4, &[1, 2][..]));
        assert_eq!(bytes[0], 0xef);
    }
}
