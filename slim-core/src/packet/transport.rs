//! UDP (RFC 768), TCP (RFC 9293) and ICMP (RFC 792).

use super::checksum::{ChecksumDelta, Sum};
use super::{HeaderError, be16, be32, set_be16, set_be32, split, split_mut};
use core::borrow::{Borrow, BorrowMut};

/// A UDP header over `H`, a (mutable) reference to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Udp<H>(H);

/// Length of a UDP header in bytes.
pub const UDP_LEN: usize = 8;

#[inline(always)]
fn udp_payload_len(header: &[u8; UDP_LEN]) -> Result<usize, HeaderError> {
    usize::from(be16(header, 4)).checked_sub(UDP_LEN).ok_or(HeaderError::TotalLength)
}

impl<'a> Udp<&'a [u8; UDP_LEN]> {
    /// Splits a datagram into header and payload. What follows the datagram is cut off.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        let (header, rest) = split(datagram)?;
        let payload = rest.get(..udp_payload_len(header)?).ok_or(HeaderError::Truncated)?;
        Ok((Self(header), payload))
    }

    /// The header alone, whatever its length field says: of a first fragment, or within an ICMP error.
    #[inline]
    pub fn parse_truncated(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        split(bytes).map(|(header, _)| Self(header))
    }
}

impl<'a> Udp<&'a mut [u8; UDP_LEN]> {
    /// Splits a datagram into header and payload, both for changes. What follows the datagram is cut off.
    #[inline]
    pub fn parse_mut(datagram: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        let (header, rest) = split_mut(datagram)?;
        let payload = rest.get_mut(..udp_payload_len(header)?).ok_or(HeaderError::Truncated)?;
        Ok((Self(header), payload))
    }

    /// The header alone, for changes, whatever its length field says.
    #[inline]
    pub fn parse_truncated_mut(bytes: &'a mut [u8]) -> Result<Self, HeaderError> {
        split_mut(bytes).map(|(header, _)| Self(header))
    }
}

impl<H: Borrow<[u8; UDP_LEN]>> Udp<H> {
    /// Source port.
    #[inline]
    pub fn source(&self) -> u16 {
        be16(self.0.borrow(), 0)
    }

    /// Destination port.
    #[inline]
    pub fn destination(&self) -> u16 {
        be16(self.0.borrow(), 2)
    }

    /// Length of header and payload, in bytes.
    #[inline]
    pub fn length(&self) -> u16 {
        be16(self.0.borrow(), 4)
    }

    /// The checksum; 0 if the sender computed none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0.borrow(), 6)
    }

    /// Whether the checksum is right or absent, given the [pseudo-header](super::Ipv4::pseudo_header)'s sum.
    #[inline]
    pub fn checksum_is_correct(&self, pseudo_header: Sum, payload: &[u8]) -> bool {
        self.checksum() == 0 || sum(pseudo_header, self.0.borrow(), payload).finish() == 0
    }
}

impl<H: BorrowMut<[u8; UDP_LEN]>> Udp<H> {
    /// Sets the source port. The checksum is left as it is.
    #[inline]
    pub fn set_source(&mut self, port: u16) {
        set_be16(self.0.borrow_mut(), 0, port);
    }

    /// Sets the destination port. The checksum is left as it is.
    #[inline]
    pub fn set_destination(&mut self, port: u16) {
        set_be16(self.0.borrow_mut(), 2, port);
    }

    /// Sets the source port and updates the checksum for it and for `addresses`, the change of the IPv4 header.
    #[inline]
    pub fn rewrite_source(&mut self, port: u16, addresses: ChecksumDelta) {
        let delta = addresses.word(self.source(), port);
        self.set_source(port);
        self.patch_checksum(delta);
    }

    /// Sets the destination port and updates the checksum for it and for `addresses`, the change of the IPv4 header.
    #[inline]
    pub fn rewrite_destination(&mut self, port: u16, addresses: ChecksumDelta) {
        let delta = addresses.word(self.destination(), port);
        self.set_destination(port);
        self.patch_checksum(delta);
    }

    /// Updates the checksum after a change of what it covers. An absent checksum stays absent.
    #[inline]
    pub fn patch_checksum(&mut self, delta: ChecksumDelta) {
        let checksum = delta.apply_udp(self.checksum());
        set_be16(self.0.borrow_mut(), 6, checksum);
    }

    /// Computes the checksum anew.
    pub fn fill_checksum(&mut self, pseudo_header: Sum, payload: &[u8]) {
        set_be16(self.0.borrow_mut(), 6, 0);
        let checksum = match sum(pseudo_header, self.0.borrow(), payload).finish() {
            0 => 0xffff,
            checksum => checksum,
        };
        set_be16(self.0.borrow_mut(), 6, checksum);
    }
}

/// The sum over pseudo-header, header and payload.
#[inline]
fn sum(pseudo_header: Sum, header: &[u8], payload: &[u8]) -> Sum {
    let mut sum = pseudo_header;
    sum.add(header);
    sum.add(payload);
    sum
}

/// The control flags of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any of `flags` is set.
    #[inline]
    pub const fn intersects(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }
}

impl core::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP header over `H` and its options over `O`, (mutable) references to their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<H, O> {
    header: H,
    options: O,
}

/// Length of a TCP header without options, in bytes.
pub const TCP_LEN: usize = 20;

#[inline(always)]
fn tcp_options_len(header: &[u8; TCP_LEN]) -> Result<usize, HeaderError> {
    (usize::from(header[12] >> 4) * 4).checked_sub(TCP_LEN).ok_or(HeaderError::HeaderLength)
}

impl<'a> Tcp<&'a [u8; TCP_LEN], &'a [u8]> {
    /// Splits a segment into header and payload.
    #[inline]
    pub fn parse(segment: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        let (header, rest) = split(segment)?;
        let (options, payload) = rest.split_at_checked(tcp_options_len(header)?).ok_or(HeaderError::Truncated)?;
        Ok((Self { header, options }, payload))
    }
}

impl<'a> Tcp<&'a mut [u8; TCP_LEN], &'a mut [u8]> {
    /// Splits a segment into header and payload, both for changes.
    #[inline]
    pub fn parse_mut(segment: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        let (header, rest) = split_mut(segment)?;
        let options_len = tcp_options_len(header)?;
        let (options, payload) = rest.split_at_mut_checked(options_len).ok_or(HeaderError::Truncated)?;
        Ok((Self { header, options }, payload))
    }
}

impl<H: Borrow<[u8; TCP_LEN]>, O: Borrow<[u8]>> Tcp<H, O> {
    /// Source port.
    #[inline]
    pub fn source(&self) -> u16 {
        be16(self.header.borrow(), 0)
    }

    /// Destination port.
    #[inline]
    pub fn destination(&self) -> u16 {
        be16(self.header.borrow(), 2)
    }

    /// Sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        be32(self.header.borrow(), 4)
    }

    /// Acknowledgement number.
    #[inline]
    pub fn acknowledgement(&self) -> u32 {
        be32(self.header.borrow(), 8)
    }

    /// Length of the header with its options, in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.header.borrow()[12] >> 4) * 4
    }

    /// The control flags.
    #[inline]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.header.borrow()[13])
    }

    /// The window, unscaled.
    #[inline]
    pub fn window(&self) -> u16 {
        be16(self.header.borrow(), 14)
    }

    /// The checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.header.borrow(), 16)
    }

    /// The options: 0 to 40 bytes.
    #[inline]
    pub fn options(&self) -> &[u8] {
        self.options.borrow()
    }

    /// Whether the checksum is right, given the [pseudo-header](super::Ipv4::pseudo_header)'s sum.
    #[inline]
    pub fn checksum_is_correct(&self, pseudo_header: Sum, payload: &[u8]) -> bool {
        self.sum(pseudo_header, payload).finish() == 0
    }

    fn sum(&self, pseudo_header: Sum, payload: &[u8]) -> Sum {
        sum(sum(pseudo_header, self.header.borrow(), self.options.borrow()), &[], payload)
    }
}

impl<H: BorrowMut<[u8; TCP_LEN]>, O: Borrow<[u8]>> Tcp<H, O> {
    /// Sets the source port. The checksum is left as it is.
    #[inline]
    pub fn set_source(&mut self, port: u16) {
        set_be16(self.header.borrow_mut(), 0, port);
    }

    /// Sets the destination port. The checksum is left as it is.
    #[inline]
    pub fn set_destination(&mut self, port: u16) {
        set_be16(self.header.borrow_mut(), 2, port);
    }

    /// Sets sequence and acknowledgement number. The checksum is left as it is.
    pub fn set_numbers(&mut self, sequence: u32, acknowledgement: u32) {
        set_be32(self.header.borrow_mut(), 4, sequence);
        set_be32(self.header.borrow_mut(), 8, acknowledgement);
    }

    /// Sets the source port and updates the checksum for it and for `addresses`, the change of the IPv4 header.
    #[inline]
    pub fn rewrite_source(&mut self, port: u16, addresses: ChecksumDelta) {
        let delta = addresses.word(self.source(), port);
        self.set_source(port);
        self.patch_checksum(delta);
    }

    /// Sets the destination port and updates the checksum for it and for `addresses`, the change of the IPv4 header.
    #[inline]
    pub fn rewrite_destination(&mut self, port: u16, addresses: ChecksumDelta) {
        let delta = addresses.word(self.destination(), port);
        self.set_destination(port);
        self.patch_checksum(delta);
    }

    /// Updates the checksum after a change of what it covers.
    #[inline]
    pub fn patch_checksum(&mut self, delta: ChecksumDelta) {
        let checksum = delta.apply(self.checksum());
        set_be16(self.header.borrow_mut(), 16, checksum);
    }

    /// Computes the checksum anew.
    pub fn fill_checksum(&mut self, pseudo_header: Sum, payload: &[u8]) {
        set_be16(self.header.borrow_mut(), 16, 0);
        let checksum = self.sum(pseudo_header, payload).finish();
        set_be16(self.header.borrow_mut(), 16, checksum);
    }
}

/// Types of ICMP messages known here.
pub mod icmp_type {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp request.
    pub const TIMESTAMP: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;
}

/// An ICMP header over `H`, a (mutable) reference to its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Icmpv4<H>(H);

/// Length of an ICMP header in bytes.
pub const ICMPV4_LEN: usize = 8;

impl<'a> Icmpv4<&'a [u8; ICMPV4_LEN]> {
    /// Splits a message into header and payload.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Result<(Self, &'a [u8]), HeaderError> {
        split(message).map(|(header, payload)| (Self(header), payload))
    }
}

impl<'a> Icmpv4<&'a mut [u8; ICMPV4_LEN]> {
    /// Splits a message into header and payload, both for changes.
    #[inline]
    pub fn parse_mut(message: &'a mut [u8]) -> Result<(Self, &'a mut [u8]), HeaderError> {
        split_mut(message).map(|(header, payload)| (Self(header), payload))
    }
}

impl<H: Borrow<[u8; ICMPV4_LEN]>> Icmpv4<H> {
    /// The message's type; see [`icmp_type`].
    #[inline]
    pub fn message_type(&self) -> u8 {
        self.0.borrow()[0]
    }

    /// The code, whose meaning depends on the type.
    #[inline]
    pub fn code(&self) -> u8 {
        self.0.borrow()[1]
    }

    /// The checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0.borrow(), 2)
    }

    /// Identifier of an echo request or reply.
    #[inline]
    pub fn ident(&self) -> u16 {
        be16(self.0.borrow(), 4)
    }

    /// Sequence number of an echo request or reply.
    #[inline]
    pub fn sequence(&self) -> u16 {
        be16(self.0.borrow(), 6)
    }

    /// Whether the checksum is right.
    #[inline]
    pub fn checksum_is_correct(&self, payload: &[u8]) -> bool {
        sum(Sum::new(), self.0.borrow(), payload).finish() == 0
    }
}

impl<H: BorrowMut<[u8; ICMPV4_LEN]>> Icmpv4<H> {
    /// Sets type and code. The checksum is left as it is.
    pub fn set_type(&mut self, message_type: u8, code: u8) {
        self.0.borrow_mut()[..2].copy_from_slice(&[message_type, code]);
    }

    /// Sets the identifier of an echo request or reply and updates the checksum.
    #[inline]
    pub fn rewrite_ident(&mut self, ident: u16) {
        let delta = ChecksumDelta::new().word(self.ident(), ident);
        set_be16(self.0.borrow_mut(), 4, ident);
        let checksum = delta.apply(self.checksum());
        set_be16(self.0.borrow_mut(), 2, checksum);
    }

    /// Computes the checksum anew.
    pub fn fill_checksum(&mut self, payload: &[u8]) {
        set_be16(self.0.borrow_mut(), 2, 0);
        let mut total = Sum::new();
        total.add(self.0.borrow());
        total.add(payload);
        set_be16(self.0.borrow_mut(), 2, total.finish());
    }
}
