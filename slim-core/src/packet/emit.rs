//! Whole frames, for load generators, ARP and tests. Buffers may hold anything before.

use super::ethernet::{ARP_LEN, ARP_PREFIX, Arp, ArpOperation, ETHERNET_LEN, Ethernet, ether_type};
use super::ipv4::{IPV4_LEN, Ipv4, protocol};
use super::mac::MacAddr;
use super::transport::{ICMPV4_LEN, Icmpv4, TCP_LEN, Tcp, TcpFlags, UDP_LEN, Udp};
use super::{HeaderError, NoRoom};
use core::net::SocketAddrV4;

/// Where the payload of a UDP frame starts, in bytes from its begin.
pub const UDP_PAYLOAD_AT: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;

/// Where the payload of a TCP frame without options starts, in bytes from its begin.
pub const TCP_PAYLOAD_AT: usize = ETHERNET_LEN + IPV4_LEN + TCP_LEN;

/// Where the payload of an ICMP frame starts, in bytes from its begin.
pub const ICMP_PAYLOAD_AT: usize = ETHERNET_LEN + IPV4_LEN + ICMPV4_LEN;

/// Length of an ARP frame without padding, in bytes.
pub const ARP_FRAME_LEN: usize = ETHERNET_LEN + ARP_LEN;

/// Where a frame comes from and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Source MAC address.
    pub source_mac: MacAddr,
    /// Destination MAC address.
    pub destination_mac: MacAddr,
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
}

/// The fields of an ICMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IcmpFields {
    /// The type; see [`icmp_type`](super::icmp_type).
    pub message_type: u8,
    /// The code.
    pub code: u8,
    /// The rest of the header: identifier and sequence number, an MTU, or nothing.
    pub rest: [u8; 4],
}

/// The fields of a TCP segment beside its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFields {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control flags.
    pub flags: TcpFlags,
    /// Window, unscaled.
    pub window: u16,
}

/// Writes a UDP frame with a copy of `payload` and returns its length.
///
/// # Errors
/// [`NoRoom`] if the frame does not fit into `buffer` or an IPv4 packet.
pub fn udp(buffer: &mut [u8], ends: &Ends, payload: &[u8]) -> Result<usize, NoRoom> {
    copy_payload(buffer, UDP_PAYLOAD_AT, payload)?;
    udp_around(buffer, ends, payload.len())
}

/// Writes the headers of a UDP frame around `payload_len` bytes that are in place at [`UDP_PAYLOAD_AT`] already, and
/// returns the frame's length.
///
/// # Errors
/// [`NoRoom`] if the frame does not fit into `buffer` or an IPv4 packet.
pub fn udp_around(buffer: &mut [u8], ends: &Ends, payload_len: usize) -> Result<usize, NoRoom> {
    let frame = buffer.get_mut(..UDP_PAYLOAD_AT + payload_len).ok_or(NoRoom)?;
    let length = u16::try_from(UDP_LEN + payload_len).map_err(|_| NoRoom)?;
    let datagram = network_headers(frame, ends, protocol::UDP)?;
    let header = datagram.first_chunk_mut::<UDP_LEN>().ok_or(NoRoom)?;
    header[..2].copy_from_slice(&ends.source.port().to_be_bytes());
    header[2..4].copy_from_slice(&ends.destination.port().to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    fill_transport_checksum(frame)
}

/// Writes a TCP frame without options, with a copy of `payload`, and returns its length.
///
/// # Errors
/// [`NoRoom`] if the frame does not fit into `buffer` or an IPv4 packet.
pub fn tcp(buffer: &mut [u8], ends: &Ends, fields: &TcpFields, payload: &[u8]) -> Result<usize, NoRoom> {
    copy_payload(buffer, TCP_PAYLOAD_AT, payload)?;
    let frame = buffer.get_mut(..TCP_PAYLOAD_AT + payload.len()).ok_or(NoRoom)?;
    let segment = network_headers(frame, ends, protocol::TCP)?;
    let header = segment.first_chunk_mut::<TCP_LEN>().ok_or(NoRoom)?;
    header[..2].copy_from_slice(&ends.source.port().to_be_bytes());
    header[2..4].copy_from_slice(&ends.destination.port().to_be_bytes());
    header[4..8].copy_from_slice(&fields.sequence.to_be_bytes());
    header[8..12].copy_from_slice(&fields.acknowledgement.to_be_bytes());
    header[12] = (TCP_LEN as u8 / 4) << 4;
    header[13] = fields.flags.0;
    header[14..16].copy_from_slice(&fields.window.to_be_bytes());
    header[16..].fill(0);
    fill_transport_checksum(frame)
}

/// Writes an ICMP frame with a copy of `payload` and returns its length. Ports are ignored.
///
/// # Errors
/// [`NoRoom`] if the frame does not fit into `buffer` or an IPv4 packet.
pub fn icmp(buffer: &mut [u8], ends: &Ends, fields: &IcmpFields, payload: &[u8]) -> Result<usize, NoRoom> {
    copy_payload(buffer, ICMP_PAYLOAD_AT, payload)?;
    let frame = buffer.get_mut(..ICMP_PAYLOAD_AT + payload.len()).ok_or(NoRoom)?;
    let message = network_headers(frame, ends, protocol::ICMP)?;
    let header = message.first_chunk_mut::<ICMPV4_LEN>().ok_or(NoRoom)?;
    header[..2].copy_from_slice(&[fields.message_type, fields.code]);
    header[4..].copy_from_slice(&fields.rest);
    let (mut icmp, data) = Icmpv4::parse_mut(message).map_err(no_room)?;
    icmp.fill_checksum(data);
    Ok(frame.len())
}

/// Writes an ARP frame and returns its length, [`ARP_FRAME_LEN`].
///
/// A request goes to everybody, a reply to `ends.destination_mac`. Ports are ignored.
///
/// # Errors
/// [`NoRoom`] if the frame does not fit into `buffer`.
pub fn arp(buffer: &mut [u8], operation: ArpOperation, ends: &Ends) -> Result<usize, NoRoom> {
    let (target_mac, destination) = match operation {
        ArpOperation::Request => (MacAddr::default(), MacAddr::BROADCAST),
        ArpOperation::Reply => (ends.destination_mac, ends.destination_mac),
    };
    let (mut ethernet, payload) = Ethernet::parse_mut(buffer).map_err(no_room)?;
    ethernet.set_destination(destination);
    ethernet.set_source(ends.source_mac);
    ethernet.set_ether_type(ether_type::ARP);
    let packet = payload.first_chunk_mut::<ARP_LEN>().ok_or(NoRoom)?;
    packet[..6].copy_from_slice(&ARP_PREFIX);
    packet[6..8].copy_from_slice(&operation.number().to_be_bytes());
    let mut packet = Arp::parse_mut(packet).map_err(no_room)?;
    packet.set_sender(ends.source_mac, *ends.source.ip());
    packet.set_target(target_mac, *ends.destination.ip());
    Ok(ARP_FRAME_LEN)
}

fn no_room(_: HeaderError) -> NoRoom {
    NoRoom
}

fn copy_payload(buffer: &mut [u8], at: usize, payload: &[u8]) -> Result<(), NoRoom> {
    buffer.get_mut(at..at + payload.len()).ok_or(NoRoom)?.copy_from_slice(payload);
    Ok(())
}

/// Writes Ethernet and IPv4 headers for the whole of `frame` and returns what follows them.
fn network_headers<'a>(frame: &'a mut [u8], ends: &Ends, protocol: u8) -> Result<&'a mut [u8], NoRoom> {
    let (mut ethernet, packet) = Ethernet::parse_mut(frame).map_err(no_room)?;
    ethernet.set_destination(ends.destination_mac);
    ethernet.set_source(ends.source_mac);
    ethernet.set_ether_type(ether_type::IPV4);
    let total_len = u16::try_from(packet.len()).map_err(|_| NoRoom)?;
    let header = packet.first_chunk_mut::<IPV4_LEN>().ok_or(NoRoom)?;
    *header = [0; IPV4_LEN];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&ends.source.ip().octets());
    header[16..].copy_from_slice(&ends.destination.ip().octets());
    let (mut header, payload) = Ipv4::parse_mut(packet).map_err(no_room)?;
    header.fill_checksum();
    Ok(payload)
}

/// Computes the checksum of the UDP datagram or TCP segment in a frame whose headers are complete otherwise.
fn fill_transport_checksum(frame: &mut [u8]) -> Result<usize, NoRoom> {
    let frame_len = frame.len();
    let (_, packet) = Ethernet::parse_mut(frame).map_err(no_room)?;
    let (header, payload) = Ipv4::parse_mut(packet).map_err(no_room)?;
    let pseudo_header = header.pseudo_header(payload.len() as u16);
    if header.protocol() == protocol::UDP {
        let (mut udp, data) = Udp::parse_mut(payload).map_err(no_room)?;
        udp.fill_checksum(pseudo_header, data);
    } else {
        let (mut tcp, data) = Tcp::parse_mut(payload).map_err(no_room)?;
        tcp.fill_checksum(pseudo_header, data);
    }
    Ok(frame_len)
}
