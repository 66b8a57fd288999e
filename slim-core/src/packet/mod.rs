//! Packets: the buffer a network function works in, header views over any bytes, incremental checksums.
//!
//! A view checks once, when it is made, that its header is there and well-formed, and holds the header as an array,
//! so that reading and writing its fields needs no further checks. Views split what they are given: the header (and
//! its options) on one side, the payload on the other, so that all headers of a packet can be changed at a time.
//!
//! ```
//! use slim_core::packet::{Ethernet, Ipv4, Udp, HeaderError};
//!
//! fn swap_ports(frame: &mut [u8]) -> Result<(), HeaderError> {
//!     let (_, payload) = Ethernet::parse_mut(frame)?;
//!     let (_, payload) = Ipv4::parse_mut(payload)?;
//!     let (mut udp, _) = Udp::parse_mut(payload)?;
//!     let (source, destination) = (udp.source(), udp.destination());
//!     udp.set_source(destination);
//!     udp.set_destination(source);
//!     Ok(())
//! }
//! # assert_eq!(swap_ports(&mut [0; 20]), Err(HeaderError::Truncated));
//! ```

mod buffer;
mod checksum;
pub mod emit;
mod ethernet;
mod ipv4;
mod mac;
mod transport;

pub use buffer::{NoRoom, OwnedPacket, PacketBuf};
pub use checksum::{ChecksumDelta, Sum, checksum};
pub use ethernet::{ARP_LEN, Arp, ArpOperation, ETHERNET_LEN, Ethernet, VLAN_LEN, Vlan, ether_type};
pub use ipv4::{IPV4_LEN, Ipv4, protocol};
pub use mac::{InvalidMacAddr, MacAddr};
pub use transport::{ICMPV4_LEN, Icmpv4, TCP_LEN, Tcp, TcpFlags, UDP_LEN, Udp, icmp_type};

/// Why bytes are not the header they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There are fewer bytes than the header, or what it announces, needs.
    #[error("truncated")]
    Truncated,
    /// Not ARP for IPv4 over Ethernet.
    #[error("ARP for other protocols than IPv4 over Ethernet")]
    ArpType,
    /// Neither an ARP request nor a reply.
    #[error("unknown ARP operation")]
    ArpOperation,
    /// The IP version is not 4.
    #[error("IP version is not 4")]
    Version,
    /// The header's length field is smaller than the smallest header.
    #[error("header length field too small")]
    HeaderLength,
    /// The length field of the packet is smaller than its header.
    #[error("total length field too small")]
    TotalLength,
}

/// Splits off a header of fixed length.
#[inline(always)]
fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), HeaderError> {
    bytes.split_first_chunk().ok_or(HeaderError::Truncated)
}

/// Splits off a header of fixed length, for changes.
#[inline(always)]
fn split_mut<const N: usize>(bytes: &mut [u8]) -> Result<(&mut [u8; N], &mut [u8]), HeaderError> {
    bytes.split_first_chunk_mut().ok_or(HeaderError::Truncated)
}

/// The big-endian number at a fixed place of a header.
#[inline(always)]
fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian number at a fixed place of a header.
#[inline(always)]
fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a big-endian number at a fixed place of a header.
#[inline(always)]
fn set_be16<const N: usize>(bytes: &mut [u8; N], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a big-endian number at a fixed place of a header.
#[inline(always)]
fn set_be32<const N: usize>(bytes: &mut [u8; N], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
