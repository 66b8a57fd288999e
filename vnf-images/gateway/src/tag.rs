//! The tag that names a packet's cell, between the Ethernet header and the IPv4 packet.
//!
//! ```text
//!  0                 12       14       16             18          20
//! ┌─────────────────┬────────┬────────┬──────────────┬───────────┬──────
//! │ MAC addresses   │ 0x88B6 │ cell   │ hand-over to │ EtherType │ IPv4
//! └─────────────────┴────────┴────────┴──────────────┴───────────┴──────
//! ```
//!
//! Big endian. From a cell to the gateway: the cell a subscriber is in, and the cell it is being handed over to, or 0.
//! From the gateway to the cells: the cell to send the packet to, and 0. EtherType 0x88B6 is one of IEEE 802's two for
//! local experiments; the paper (§VI-C) says what the tag means but not what it looks like.

use slim_core::packet::{ETHERNET_LEN, PacketBuf, ether_type};

/// The EtherType of tagged packets.
pub const ETHER_TYPE: u16 = 0x88b6;

/// The length of a tag, the type of what follows included.
pub const LEN: usize = 6;

/// What a tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The cell the subscriber is in. Never 0.
    pub cell: u16,
    /// The cell it is being handed over to.
    pub hand_over_to: Option<u16>,
}

impl Tag {
    /// The cell that packets for the subscriber go to from now on.
    pub const fn serving_cell(&self) -> u16 {
        match self.hand_over_to {
            Some(cell) => cell,
            None => self.cell,
        }
    }

    /// Reads what follows the Ethernet header. `None` if it is not a tag before an IPv4 packet.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[c0, c1, h0, h1, t0, t1], _) = bytes.split_first_chunk::<LEN>()?;
        let (cell, hand_over_to) = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([h0, h1]));
        if cell == 0 || u16::from_be_bytes([t0, t1]) != ether_type::IPV4 {
            return None;
        }
        Some(Self { cell, hand_over_to: (hand_over_to != 0).then_some(hand_over_to) })
    }

    fn bytes(&self) -> [u8; LEN] {
        let ([c0, c1], [h0, h1]) = (self.cell.to_be_bytes(), self.hand_over_to.unwrap_or(0).to_be_bytes());
        let [t0, t1] = ether_type::IPV4.to_be_bytes();
        [c0, c1, h0, h1, t0, t1]
    }

    /// Puts the tag into an Ethernet frame that holds an IPv4 packet. The MAC addresses are left unspecified.
    ///
    /// # Errors
    /// There is no room before the frame, or it has no Ethernet header; the frame is unchanged.
    pub fn insert<P: PacketBuf>(&self, packet: &mut P) -> Result<(), slim_core::packet::NoRoom> {
        if packet.bytes().len() < ETHERNET_LEN {
            return Err(slim_core::packet::NoRoom);
        }
        packet.prepend(LEN)?;
        if let Some((ether_type, rest)) = packet.bytes_mut()[ETHERNET_LEN - 2..].split_first_chunk_mut::<2>() {
            *ether_type = ETHER_TYPE.to_be_bytes();
            if let Some(tag) = rest.first_chunk_mut::<LEN>() {
                *tag = self.bytes();
            }
        }
        Ok(())
    }
}

/// Takes the tag out of a tagged frame. The MAC addresses are left unspecified.
pub fn remove<P: PacketBuf>(packet: &mut P) {
    packet.trim_front(LEN);
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::packet::OwnedPacket;

    #[test]
    fn tag_has_the_documented_bytes() {
        let mut frame = vec![0xee; 12];
        frame.extend([0x08, 0x00, 0x45, 1, 2, 3]);
        let mut packet = OwnedPacket::new(frame);
        let tag = Tag { cell: 0x0102, hand_over_to: Some(0x0304) };
        tag.insert(&mut packet).unwrap();
        assert_eq!(packet.bytes()[12..], [0x88, 0xb6, 1, 2, 3, 4, 8, 0, 0x45, 1, 2, 3]);
        assert_eq!(Tag::parse(&packet.bytes()[ETHERNET_LEN..]), Some(tag));
        remove(&mut packet);
        assert_eq!(packet.bytes()[12..], [8, 0, 0x45, 1, 2, 3]);
    }

    #[test]
    fn only_a_cell_and_ipv4_make_a_tag() {
        assert_eq!(Tag::parse(&[0, 7, 0, 0, 8, 0]), Some(Tag { cell: 7, hand_over_to: None }));
        assert_eq!(Tag::parse(&[0, 0, 0, 0, 8, 0]), None);
        assert_eq!(Tag::parse(&[0, 7, 0, 0, 8, 6]), None);
        assert_eq!(Tag::parse(&[0, 7, 0, 0, 8]), None);
    }

    #[test]
    fn a_frame_without_ethernet_header_is_left_alone() {
        let mut packet = OwnedPacket::new(vec![1; 13]);
        assert!(Tag { cell: 1, hand_over_to: None }.insert(&mut packet).is_err());
        assert_eq!(packet.into_inner(), [1; 13]);
    }
}
