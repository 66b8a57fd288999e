//! The NAT's peer: hosts on both sides of it, on the one cable that both of its interfaces share.

use super::machine::{NIC_END, PEER_END};
use anyhow::{Context, Result, bail, ensure};
use slim_core::packet::emit::{self, Ends};
use slim_core::packet::{Arp, ArpOperation, Ethernet, Ipv4, MacAddr, Udp, ether_type, protocol};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many packets make their way through the NAT and back.
const PACKETS: u32 = 2000;

/// How many are under way at a time: fewer than the emulated NIC has descriptors.
const WINDOW: usize = 16;

/// After which time without an answer a packet is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(40);

/// The NAT as `cargo xtask run nat` configures it.
const NAT_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const NAT_INSIDE_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]);
const NAT_OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const NAT_OUTSIDE_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 2]);

/// The host inside, and the server outside.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const HOST_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 1, 0, 0x10]);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 20), 7000);
const SERVER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 2, 0, 0x20]);

/// The host's ports: this one and the next few.
const FIRST_PORT: u16 = 40_000;
const PORTS: u32 = 50;

/// Beside its number, a packet carries this much.
const FILLER: usize = 400;

/// The peer's end of the cable.
pub(super) struct Peer {
    cable: UnixDatagram,
    nic: PathBuf,
}

impl Peer {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let cable = UnixDatagram::bind(folder.join(PEER_END)).context("cannot plug the peer in")?;
        cable.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { cable, nic: folder.join(NIC_END) })
    }

    /// Sends packets from the host through the NAT to the server, which answers each, until every answer has arrived.
    pub(super) fn exchange(&self) -> Result<String> {
        let mut trip = Trip::default();
        let started = Instant::now();
        let mut frame = [0; 2048];
        // What the emulated host's kernel said on the cable while it booted is of no interest.
        while self.receive(&mut frame)?.is_some() {}
        while !trip.is_done() {
            if started.elapsed() > LIMIT {
                bail!("{}", trip.shortfall());
            }
            for frame in trip.due(Instant::now())? {
                self.cable.send_to(&frame, &self.nic).context("cannot send to the emulated NIC")?;
            }
            while let Some(length) = self.receive(&mut frame)? {
                if let Some(answer) = trip.arrived(frame.get(..length).unwrap_or_default())? {
                    self.cable.send_to(&answer, &self.nic).context("cannot send to the emulated NIC")?;
                }
                if trip.can_send() {
                    break;
                }
            }
        }
        Ok(trip.summary())
    }

    fn receive(&self, frame: &mut [u8]) -> Result<Option<usize>> {
        match self.cable.recv(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) => {
                Ok(None)
            }
            Err(error) => Err(error).context("cannot receive from the emulated NIC"),
        }
    }
}

/// All packets' way through the NAT and back.
#[derive(Debug, Default)]
struct Trip {
    gateway_known: bool,
    asked: Option<Instant>,
    next: u32,
    /// Those under way and when they were sent.
    under_way: Vec<(u32, Instant)>,
    translated: u32,
    returned: u32,
    sent_again: u32,
}

impl Trip {
    fn is_done(&self) -> bool {
        self.returned == PACKETS
    }

    fn can_send(&self) -> bool {
        self.gateway_known && self.under_way.len() < WINDOW && self.next < PACKETS
    }

    /// The frames to send now.
    fn due(&mut self, now: Instant) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        if !self.gateway_known {
            if self.asked.is_none_or(|asked| now.duration_since(asked) > AGAIN) {
                self.asked = Some(now);
                frames.push(ask_for_gateway()?);
            }
            return Ok(frames);
        }
        for (number, sent) in &mut self.under_way {
            if now.duration_since(*sent) > AGAIN {
                *sent = now;
                self.sent_again += 1;
                frames.push(outbound(*number)?);
            }
        }
        while self.can_send() {
            frames.push(outbound(self.next)?);
            self.under_way.push((self.next, now));
            self.next += 1;
        }
        Ok(frames)
    }

    /// Takes a frame that has arrived; returns the answer to it.
    fn arrived(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>> {
        let Ok((ethernet, payload)) = Ethernet::parse(frame) else { return Ok(None) };
        match ethernet.ether_type() {
            ether_type::ARP => self.arp(payload),
            ether_type::IPV4 if ethernet.destination() == SERVER_MAC => self.at_server(&ethernet, payload),
            ether_type::IPV4 if ethernet.destination() == HOST_MAC => self.at_host(&ethernet, payload).map(|()| None),
            // The emulated host's own interface talks, too.
            _ => Ok(None),
        }
    }

    fn arp(&mut self, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        let Ok(arp) = Arp::parse(payload) else { return Ok(None) };
        let stations = [(HOST, HOST_MAC), (*SERVER.ip(), SERVER_MAC)];
        match arp.operation() {
            ArpOperation::Reply if arp.sender() == NAT_INSIDE => {
                ensure!(arp.sender_mac() == NAT_INSIDE_MAC, "the NAT inside is at {}", arp.sender_mac());
                self.gateway_known = true;
                Ok(None)
            }
            ArpOperation::Request => {
                let Some((address, mac)) = stations.into_iter().find(|(address, _)| *address == arp.target()) else {
                    return Ok(None);
                };
                let ends = Ends {
                    source_mac: mac,
                    destination_mac: arp.sender_mac(),
                    source: SocketAddrV4::new(address, 0),
                    destination: SocketAddrV4::new(arp.sender(), 0),
                };
                let mut frame = vec![0; 60];
                emit::arp(&mut frame, ArpOperation::Reply, &ends)?;
                Ok(Some(frame))
            }
            ArpOperation::Reply => Ok(None),
        }
    }

    /// A packet at the server: it must be translated; the answer carries the same.
    fn at_server(&mut self, ethernet: &Ethernet<&[u8; 14]>, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        let (source, destination, number) = read(payload)?;
        ensure!(ethernet.source() == NAT_OUTSIDE_MAC, "a packet at the server comes from {}", ethernet.source());
        ensure!(*source.ip() == NAT_OUTSIDE, "a packet at the server was not translated: it comes from {source}");
        ensure!(destination == SERVER, "a packet at the server is for {destination}");
        self.translated += 1;
        let ends =
            Ends { source_mac: SERVER_MAC, destination_mac: NAT_OUTSIDE_MAC, source: SERVER, destination: source };
        packet(&ends, number).map(Some)
    }

    /// An answer back at the host.
    fn at_host(&mut self, ethernet: &Ethernet<&[u8; 14]>, payload: &[u8]) -> Result<()> {
        let (source, destination, number) = read(payload)?;
        ensure!(ethernet.source() == NAT_INSIDE_MAC, "an answer at the host comes from {}", ethernet.source());
        ensure!(source == SERVER, "an answer at the host was not translated back: it comes from {source}");
        ensure!(destination == host(number), "answer {number} is for {destination} instead of {}", host(number));
        // Answers to packets that were sent twice may come twice.
        if let Some(place) = self.under_way.iter().position(|(under_way, _)| *under_way == number) {
            self.under_way.swap_remove(place);
            self.returned += 1;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        format!(
            "{} packets went through the NAT and their answers came back ({} were sent again)",
            self.returned, self.sent_again
        )
    }

    fn shortfall(&self) -> String {
        if !self.gateway_known {
            return "the NAT does not answer ARP on its virtual function".into();
        }
        format!(
            "of {} packets {} arrived translated and {} answers came back in {} s",
            self.next,
            self.translated,
            self.returned,
            LIMIT.as_secs()
        )
    }
}

/// Where packet `number` comes from.
fn host(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(HOST, FIRST_PORT + u16::try_from(number % PORTS).unwrap_or(0))
}

fn ask_for_gateway() -> Result<Vec<u8>> {
    let ends = Ends {
        source_mac: HOST_MAC,
        destination_mac: MacAddr([0xff; 6]),
        source: SocketAddrV4::new(HOST, 0),
        destination: SocketAddrV4::new(NAT_INSIDE, 0),
    };
    let mut frame = vec![0; 60];
    emit::arp(&mut frame, ArpOperation::Request, &ends)?;
    Ok(frame)
}

fn outbound(number: u32) -> Result<Vec<u8>> {
    let ends =
        Ends { source_mac: HOST_MAC, destination_mac: NAT_INSIDE_MAC, source: host(number), destination: SERVER };
    packet(&ends, number)
}

/// What packet `number` carries: its number, and bytes that follow from it.
fn content(number: u32) -> Vec<u8> {
    let filler = (0..FILLER).map(|place| (place as u32).wrapping_mul(number).to_be_bytes()[3]);
    number.to_be_bytes().into_iter().chain(filler).collect()
}

fn packet(ends: &Ends, number: u32) -> Result<Vec<u8>> {
    let content = content(number);
    let mut frame = vec![0; emit::UDP_PAYLOAD_AT + content.len()];
    emit::udp(&mut frame, ends, &content)?;
    Ok(frame)
}

/// Where a packet comes from and goes to, and its number. It must be whole.
fn read(packet: &[u8]) -> Result<(SocketAddrV4, SocketAddrV4, u32)> {
    let (ipv4, payload) = Ipv4::parse(packet)?;
    ensure!(ipv4.checksum_is_correct(), "the IPv4 checksum is wrong");
    ensure!(ipv4.protocol() == protocol::UDP, "protocol {} came out of the NAT", ipv4.protocol());
    let (udp, carried) = Udp::parse(payload)?;
    ensure!(udp.checksum_is_correct(ipv4.pseudo_header(udp.length()), carried), "the UDP checksum is wrong");
    let number = carried.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).context("the packet has no number")?;
    ensure!(carried == content(number), "packet {number} does not carry what was sent");
    let source = SocketAddrV4::new(ipv4.source(), udp.source());
    Ok((source, SocketAddrV4::new(ipv4.destination(), udp.destination()), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of a NAT that swaps addresses and keeps ports.
    fn translate(frame: &[u8]) -> Vec<u8> {
        let (_, payload) = Ethernet::parse(frame).unwrap();
        let (source, destination, number) = read(payload).unwrap();
        let ends = match destination == SERVER {
            true => Ends {
                source_mac: NAT_OUTSIDE_MAC,
                destination_mac: SERVER_MAC,
                source: SocketAddrV4::new(NAT_OUTSIDE, source.port()),
                destination,
            },
            false => Ends {
                source_mac: NAT_INSIDE_MAC,
                destination_mac: HOST_MAC,
                source,
                destination: SocketAddrV4::new(HOST, destination.port()),
            },
        };
        packet(&ends, number).unwrap()
    }

    fn known() -> Trip {
        Trip { gateway_known: true, ..Trip::default() }
    }

    #[test]
    fn packets_through_a_nat_come_back() {
        let mut trip = known();
        while !trip.is_done() {
            for frame in trip.due(Instant::now()).unwrap() {
                let answer = trip.arrived(&translate(&frame)).unwrap().expect("the server answers");
                trip.arrived(&translate(&answer)).unwrap();
            }
        }
        assert_eq!((trip.translated, trip.returned, trip.sent_again), (PACKETS, PACKETS, 0));
    }

    #[test]
    fn packets_that_are_not_translated_or_damaged_are_found() {
        let mut trip = known();
        let frame = outbound(7).unwrap();
        let mut wire = frame.clone();
        wire[..6].copy_from_slice(&SERVER_MAC.0);
        wire[6..12].copy_from_slice(&NAT_OUTSIDE_MAC.0);
        assert!(trip.arrived(&wire).unwrap_err().to_string().contains("was not translated"));
        let mut damaged = translate(&frame);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(trip.arrived(&damaged).unwrap_err().to_string().contains("UDP checksum"));
        assert_eq!(trip.returned, 0);
    }

    #[test]
    fn what_gets_lost_is_sent_again_and_missed() {
        let mut trip = known();
        let now = Instant::now();
        assert_eq!(trip.due(now).unwrap().len(), WINDOW);
        assert!(trip.due(now).unwrap().is_empty());
        assert_eq!(trip.due(now + AGAIN * 2).unwrap().len(), WINDOW);
        assert!(trip.shortfall().contains("of 16 packets 0 arrived translated and 0 answers"));
        assert!(Trip::default().shortfall().contains("does not answer ARP"));
    }
}
