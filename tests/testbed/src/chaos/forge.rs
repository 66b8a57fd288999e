//! Resets one TCP connection between two guests, from beside.
//!
//! Their connections pass the switch's management bridge and no kernel of ours. So for a moment we claim the
//! destination's MAC address, as a loop or a misconfigured host does: the source's segments come to us, and tell all
//! that a valid reset needs. Both ends are sent one, and the bridge learns the truth from the destination's next frame.

use anyhow::{Context, Result, bail};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use slim_core::packet::emit::{self, Ends, TCP_PAYLOAD_AT, TcpFields};
use slim_core::packet::{Ethernet, Ipv4, MacAddr, Tcp, TcpFlags, ether_type, protocol};
use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long we listen once the first segment has come.
const LISTEN: Duration = Duration::from_millis(40);
/// How long the first may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often we claim the address: every frame of its owner's takes it back.
const CLAIM_EVERY_MS: i64 = 1;
/// An EtherType for local experiments (IEEE 802) that nobody here listens to.
const NOTHING: u16 = 0x88b6;

/// What has been seen of one connection, by the source's port.
#[derive(Debug, Clone, Copy)]
struct Seen {
    source: SocketAddrV4,
    source_mac: MacAddr,
    /// The first byte the destination has not got, as all before was on its way already.
    sequence: u32,
    /// What the source expects next.
    acknowledgement: u32,
    bytes: usize,
}

/// Resets the connection to `destination` that carries the most bytes, or the least; `interface` is the bridge's port.
pub(super) fn reset(interface: &str, destination: SocketAddr, most: bool) -> Result<()> {
    let SocketAddr::V4(destination) = destination else { bail!("{destination} is no IPv4 address") };
    let owner = neighbour(interface, destination)?;
    let (line, own) = open(interface)?;
    let seen = listen(&line, own, owner, destination)?;
    let mut all: Vec<Seen> = seen.into_values().collect();
    all.sort_by_key(|seen| seen.bytes);
    let victim = if most { all.last() } else { all.first() };
    let victim = victim.context("nothing was sent to cut")?;

    let ends =
        |source_mac, destination_mac, source, destination| Ends { source_mac, destination_mac, source, destination };
    let to_destination = TcpFields { sequence: victim.sequence, flags: TcpFlags::RST, ..TcpFields::default() };
    let to_source = TcpFields { sequence: victim.acknowledgement, flags: TcpFlags::RST, ..TcpFields::default() };
    transmit(&line, &ends(own, owner, victim.source, destination), &to_destination)?;
    transmit(&line, &ends(own, victim.source_mac, destination, victim.source), &to_source)
}

/// Claims `owner`'s address until segments to `destination` have come, and notes each connection's.
fn listen(line: &OwnedFd, own: MacAddr, owner: MacAddr, destination: SocketAddrV4) -> Result<BTreeMap<u16, Seen>> {
    let claim = claim(own, owner);
    let mut seen: BTreeMap<u16, Seen> = BTreeMap::new();
    let mut until = Instant::now() + PATIENCE;
    let mut frame = [0; 2048];
    setsockopt(line, ReceiveTimeout, &TimeVal::milliseconds(CLAIM_EVERY_MS))?;
    while Instant::now() < until {
        send(line.as_raw_fd(), &claim, MsgFlags::empty()).context("cannot claim an address")?;
        let Ok(length) = recv(line.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
        let Some(found) = frame.get(..length).and_then(|frame| segment(frame, destination)) else { continue };
        if seen.is_empty() {
            until = Instant::now() + LISTEN;
        }
        let entry = seen.entry(found.source.port()).or_insert(Seen { bytes: 0, ..found });
        entry.bytes += found.bytes;
        entry.acknowledgement = found.acknowledgement;
        // Sequence numbers go round: the earlier one is less than half a turn behind.
        if (entry.sequence.wrapping_sub(found.sequence) as i32) > 0 {
            entry.sequence = found.sequence;
        }
    }
    Ok(seen)
}

/// A segment with data to `destination`.
fn segment(frame: &[u8], destination: SocketAddrV4) -> Option<Seen> {
    let (ethernet, packet) = Ethernet::parse(frame).ok()?;
    if ethernet.ether_type() != ether_type::IPV4 {
        return None;
    }
    let (ipv4, segment) = Ipv4::parse(packet).ok()?;
    if ipv4.protocol() != protocol::TCP || ipv4.destination() != *destination.ip() {
        return None;
    }
    let (tcp, data) = Tcp::parse(segment).ok()?;
    if tcp.destination() != destination.port() || data.is_empty() {
        return None;
    }
    Some(Seen {
        source: SocketAddrV4::new(ipv4.source(), tcp.source()),
        source_mac: ethernet.source(),
        sequence: tcp.sequence(),
        acknowledgement: tcp.acknowledgement(),
        bytes: data.len(),
    })
}

/// A frame from `owner`'s address that goes no further than to ourselves.
fn claim(own: MacAddr, owner: MacAddr) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&own.0);
    frame[6..12].copy_from_slice(&owner.0);
    frame[12..14].copy_from_slice(&NOTHING.to_be_bytes());
    frame
}

fn transmit(line: &OwnedFd, ends: &Ends, fields: &TcpFields) -> Result<()> {
    let mut frame = [0; TCP_PAYLOAD_AT];
    let length = emit::tcp(&mut frame, ends, fields, &[]).map_err(|error| anyhow::anyhow!("no room: {error}"))?;
    send(line.as_raw_fd(), &frame[..length], MsgFlags::empty()).context("cannot send a reset")?;
    Ok(())
}

/// A packet socket on `interface`, and its MAC address.
fn open(interface: &str) -> Result<(OwnedFd, MacAddr)> {
    let link = |found: nix::ifaddrs::InterfaceAddress| found.address?.as_link_addr().copied();
    let address: LinkAddr = getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(link)
        .with_context(|| format!("there is no interface {interface}"))?;
    let mac = MacAddr(address.addr().with_context(|| format!("{interface} has no MAC address"))?);
    let line = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("cannot open a packet socket")?;
    bind(line.as_raw_fd(), &address).with_context(|| format!("cannot listen on {interface}"))?;
    Ok((line, mac))
}

/// The MAC address the kernel knows for `destination`.
fn neighbour(interface: &str, destination: SocketAddrV4) -> Result<MacAddr> {
    let address = destination.ip().to_string();
    let output = Command::new("ip").args(["neighbour", "show", "to", &address, "dev", interface]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    let mac: slim_controller::net::MacAddress = word
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("the kernel does not know the MAC address of {address}: {}", text.trim()))?;
    Ok(MacAddr(mac.0))
}
