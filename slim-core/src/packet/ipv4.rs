//! IPv4 (RFC 791).

use super::checksum::{ChecksumDelta, Sum};
use super::{HeaderError, be16, be32, set_be16, set_be32, split, split_mut};
use core::borrow::{Borrow, BorrowMut};
use core::net::Ipv4Addr;

/// Numbers of the protocols known here.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// An IPv4 header over `H` and its options over `O`, (mutable) references to their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<H, O> {
    header: H,
    options: O,
}

/// Length of an IPv4 header without options, in bytes.
pub const IPV4_LEN: usize = 20;

/// Lengths of the options and of the payload, in bytes, as the header says and `rest` bytes behind it allow.
#[inline(always)]
fn check(header: &[u8; IPV4_LEN], rest: usize) -> Result<(usize, usize), HeaderError> {
    let lengths = check_header(header, rest)?;
    if IPV4_LEN + rest < usize::from(be16(header, 2)) { Err(HeaderError::Truncated) } else { Ok(lengths) }
}

/// As [`check`], for a packet whose end may be missing.
#[inline(always)]
fn check_header(header: &[u8; IPV4_LEN], rest: usize) -> Result<(usize, usize), HeaderError> {
    if header[0] >> 4 != 4 {
        return Err(HeaderError::Version);
    }
    let header_len = usize::from(header[0] & 0xf) * 4;
    let options_len = header_len.checked_sub(IPV4_LEN).ok_or(HeaderError::HeaderLength)?;
    let payload_len = usize::from(be16(header, 2)).checked_sub(header_len).ok_or(HeaderError::TotalLength)?;
    let present = rest.checked_sub(options_len).ok_or(HeaderError::Truncated)?;
    Ok((options_len, payload_len.min(present)))
}

impl<'a> Ipv4<&'a [u8; IPV4_LEN], &'a [u8]> {
    /// Splits a packet into header and payload. What follows the packet, such as Ethernet's padding, is cut off.
    ///
    /// The checksum is not verified: see [`checksum_is_correct`](Self::checksum_is_correct).
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        let (header, rest) = split(packet)?;
        let lengths = check(header, rest.len())?;
        Self::divide(header, rest, lengths)
    }

    /// As [`parse`](Self::parse), but accepts a packet whose end is missing, such as the one within an ICMP error.
    #[inline]
    pub fn parse_truncated(packet: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        let (header, rest) = split(packet)?;
        let lengths = check_header(header, rest.len())?;
        Self::divide(header, rest, lengths)
    }

    #[inline(always)]
    fn divide(
        header: &'a [u8; IPV4_LEN],
        rest: &'a [u8],
        (options_len, payload_len): (usize, usize),
    ) -> Result<(Self, &'a [u8]), HeaderError> {
        let (options, rest) = rest.split_at_checked(options_len).ok_or(HeaderError::Truncated)?;
        let payload = rest.get(..payload_len).ok_or(HeaderError::Truncated)?;
        Ok((Self { header, options }, payload))
    }
}

impl<'a> Ipv4<&'a mut [u8; IPV4_LEN], &'a mut [u8]> {
    /// Splits a packet into header and payload, both for changes. What follows the packet is cut off.
    ///
    /// The checksum is not verified: see [`checksum_is_correct`](Self::checksum_is_correct).
    #[inline]
    pub fn parse_mut(packet: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        let (header, rest) = split_mut(packet)?;
        let lengths = check(header, rest.len())?;
        Self::divide(header, rest, lengths)
    }

    /// As [`parse_mut`](Self::parse_mut), but accepts a packet whose end is missing.
    #[inline]
    pub fn parse_truncated_mut(packet: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        let (header, rest) = split_mut(packet)?;
        let lengths = check_header(header, rest.len())?;
        Self::divide(header, rest, lengths)
    }

    #[inline(always)]
    fn divide(
        header: &'a mut [u8; IPV4_LEN],
        rest: &'a mut [u8],
        (options_len, payload_len): (usize, usize),
    ) -> Result<(Self, &'a mut [u8]), HeaderError> {
        let (options, rest) = rest.split_at_mut_checked(options_len).ok_or(HeaderError::Truncated)?;
        let payload = rest.get_mut(..payload_len).ok_or(HeaderError::Truncated)?;
        Ok((Self { header, options }, payload))
    }
}

impl<H: Borrow<[u8; IPV4_LEN]>, O: Borrow<[u8]>> Ipv4<H, O> {
    /// Length of the header with its options, in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.header.borrow()[0] & 0xf) * 4
    }

    /// The options: 0 to 40 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        self.options.borrow()
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.header.borrow()[1]
    }

    /// Length of header and payload, in bytes.
    #[inline]
    pub fn total_len(&self) -> u16 {
        be16(self.header.borrow(), 2)
    }

    /// Identification of the datagram that a fragment belongs to.
    #[inline]
    pub fn ident(&self) -> u16 {
        be16(self.header.borrow(), 4)
    }

    /// Whether routers must not fragment the packet.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.header.borrow()[6] & 0x40 != 0
    }

    /// Whether more fragments follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.header.borrow()[6] & 0x20 != 0
    }

    /// Where the payload belongs in the datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u32 {
        u32::from(be16(self.header.borrow(), 6) & 0x1fff) * 8
    }

    /// Whether this is a part of a datagram only.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        be16(self.header.borrow(), 6) & 0x3fff != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.header.borrow()[8]
    }

    /// What the payload is; see [`protocol`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.header.borrow()[9]
    }

    /// The header's checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.header.borrow(), 10)
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32(self.header.borrow(), 12))
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32(self.header.borrow(), 16))
    }

    /// Whether the header's checksum is right.
    #[inline(always)]
    pub fn checksum_is_correct(&self) -> bool {
        self.header_sum().finish() == 0
    }

    /// The sum over the pseudo-header of UDP and TCP, for `length` bytes of payload.
    #[inline]
    pub fn pseudo_header(&self, length: u16) -> Sum {
        Sum::pseudo_header(self.source(), self.destination(), self.protocol(), length)
    }

    #[inline(always)]
    fn header_sum(&self) -> Sum {
        let mut sum = Sum::new();
        sum.add(self.header.borrow());
        if !self.options.borrow().is_empty() {
            sum.add(self.options.borrow());
        }
        sum
    }
}

impl<H: BorrowMut<[u8; IPV4_LEN]>, O: Borrow<[u8]>> Ipv4<H, O> {
    /// Sets the source address and updates the header's checksum.
    ///
    /// Returns the change, for the checksum of UDP or TCP.
    #[inline]
    pub fn rewrite_source(&mut self, address: Ipv4Addr) -> ChecksumDelta {
        let delta = ChecksumDelta::new().address(self.source(), address);
        set_be32(self.header.borrow_mut(), 12, address.to_bits());
        self.patch_checksum(delta);
        delta
    }

    /// Sets the destination address and updates the header's checksum.
    ///
    /// Returns the change, for the checksum of UDP or TCP.
    #[inline]
    pub fn rewrite_destination(&mut self, address: Ipv4Addr) -> ChecksumDelta {
        let delta = ChecksumDelta::new().address(self.destination(), address);
        set_be32(self.header.borrow_mut(), 16, address.to_bits());
        self.patch_checksum(delta);
        delta
    }

    /// Sets the time to live and updates the header's checksum.
    #[inline]
    pub fn rewrite_ttl(&mut self, ttl: u8) {
        let header = self.header.borrow_mut();
        let old = be16(header, 8);
        header[8] = ttl;
        let delta = ChecksumDelta::new().word(old, be16(header, 8));
        self.patch_checksum(delta);
    }

    /// Sets the identification and updates the header's checksum.
    #[inline]
    pub fn rewrite_ident(&mut self, ident: u16) {
        let delta = ChecksumDelta::new().word(self.ident(), ident);
        set_be16(self.header.borrow_mut(), 4, ident);
        self.patch_checksum(delta);
    }

    /// Updates the header's checksum after a change of a field.
    #[inline]
    pub fn patch_checksum(&mut self, delta: ChecksumDelta) {
        let checksum = delta.apply(self.checksum());
        set_be16(self.header.borrow_mut(), 10, checksum);
    }

    /// Computes the header's checksum anew.
    pub fn fill_checksum(&mut self) {
        set_be16(self.header.borrow_mut(), 10, 0);
        let checksum = self.header_sum().finish();
        set_be16(self.header.borrow_mut(), 10, checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet with one option word, two bytes of payload and three bytes of padding.
    const PACKET: [u8; 29] = [
        0x46, 0x10, 0, 26, 0x12, 0x34, 0x40, 0, 64, 17, 0x39, 0x52, 192, 0, 2, 1, 198, 51, 100, 7, // header
        1, 1, 1, 0, // options
        0xaa, 0xbb, // payload
        9, 9, 9, // padding
    ];

    #[test]
    fn fields_are_read_from_their_bytes() {
        let (header, payload) = Ipv4::parse(&PACKET).unwrap();
        assert_eq!((header.header_len(), header.total_len(), header.tos(), header.ident()), (24, 26, 0x10, 0x1234));
        assert!(header.dont_fragment() && !header.more_fragments() && !header.is_fragment());
        assert_eq!((header.ttl(), header.protocol(), header.checksum()), (64, protocol::UDP, 0x3952));
        assert_eq!(header.source(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(header.destination(), Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!((header.options(), payload), (&[1, 1, 1, 0][..], &[0xaa, 0xbb][..]));
        assert!(header.checksum_is_correct());
    }

    #[test]
    fn fragments_are_recognised() {
        let mut packet = PACKET;
        (packet[6], packet[7]) = (0x20, 0x05);
        let (header, _) = Ipv4::parse(&packet).unwrap();
        assert!(header.more_fragments() && header.is_fragment() && !header.dont_fragment());
        assert_eq!(header.fragment_offset(), 40);
        assert!(!header.checksum_is_correct());
    }

    #[test]
    fn malformed_headers_are_refused() {
        let parse = |change: &dyn Fn(&mut [u8; 29])| {
            let mut packet = PACKET;
            change(&mut packet);
            Ipv4::parse(&packet).map(|_| ()).unwrap_err()
        };
        assert_eq!(parse(&|p| p[0] = 0x66), HeaderError::Version);
        assert_eq!(parse(&|p| p[0] = 0x44), HeaderError::HeaderLength);
        assert_eq!(parse(&|p| p[3] = 23), HeaderError::TotalLength);
        assert_eq!(parse(&|p| p[3] = 30), HeaderError::Truncated);
        assert_eq!(parse(&|p| (p[0], p[3]) = (0x4f, 60)), HeaderError::Truncated);
        assert_eq!(Ipv4::parse(&PACKET[..19]).unwrap_err(), HeaderError::Truncated);
    }

    #[test]
    fn missing_end_is_accepted_on_demand() {
        let (_, payload) = Ipv4::parse_truncated(&PACKET[..25]).unwrap();
        assert_eq!(payload, [0xaa]);
        assert_eq!(Ipv4::parse_truncated(&PACKET[..23]).unwrap_err(), HeaderError::Truncated);
    }

    proptest! {
        #[test]
        fn rewriting_keeps_the_checksum_correct(source: u32, destination: u32, ttl: u8, tos: u8, ident: u16) {
            let mut packet = PACKET;
            packet[1] = tos;
            let (mut header, _) = Ipv4::parse_mut(&mut packet).unwrap();
            header.fill_checksum();
            header.rewrite_source(source.into());
            header.rewrite_destination(destination.into());
            header.rewrite_ttl(ttl);
            header.rewrite_ident(ident);
            let incremental = header.checksum();
            prop_assert!(header.checksum_is_correct());
            header.fill_checksum();
            prop_assert_eq!(header.checksum(), incremental);
            prop_assert_eq!(header.source(), Ipv4Addr::from(source));
            prop_assert_eq!(header.destination(), Ipv4Addr::from(destination));
            prop_assert_eq!((header.ttl(), header.ident()), (ttl, ident));
        }
    }
}
