//! The NAT's peer: hosts on both sides of it, on the one cable that both of its interfaces share.

use super::machine::{NIC_END, NOTHING_YET, PEER_END};
use super::tag;
use anyhow::{Context, Result, bail, ensure};
use slim_core::packet::emit::{self, Ends};
use slim_core::packet::{Arp, ArpOperation, Ethernet, Ipv4, MacAddr, Udp, ether_type, protocol};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many packets make their way through the NAT and back.
const PACKETS: u32 = 2000;

/// How many are under way at a time: fewer than the emulated NIC has descriptors.
const WINDOW: usize = 16;

/// After which time without an answer a packet is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long the cable is quiet before something else is looked after.
const QUIET: Duration = Duration::from_millis(20);

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(40);

/// How many packets must have gone through the NAT and back before the network function moves.
const PACKETS_BEFORE: u32 = 300;

/// How many packets go through the NAT after the network function has moved.
const MORE_PACKETS: u32 = 300;

/// How long frames may flow that are to be settled in the end.
const FLOW_LIMIT: Duration = Duration::from_secs(240);

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

/// The peer.
pub(super) struct Peer {
    cable: Arc<Cable>,
    nic: PathBuf,
}

/// The peer's end of the cable, which a thread reads all the time.
///
/// The emulated host's own interfaces talk, whether anybody listens or not, and where ten datagrams wait (`net.unix.max_dgram_qlen`)
/// QEMU's main loop tries the next one again and again, with the lock that the emulated CPUs need, too: the host comes to
/// a halt.
#[derive(Debug)]
struct Cable {
    socket: UnixDatagram,
    listener: Mutex<Listener>,
}

/// Who is told of frames.
#[derive(Debug)]
enum Listener {
    Nobody,
    Somebody(Sender<Vec<u8>>),
    /// There will be no more frames.
    Broken,
}

impl Cable {
    /// Reads until nobody has this end any more, or it breaks.
    fn read(cable: &Weak<Self>) {
        let mut frame = [0; 2048];
        while let Some(cable) = cable.upgrade() {
            let received = cable.socket.recv(&mut frame);
            let mut listener = cable.listener.lock().unwrap_or_else(PoisonError::into_inner);
            match (received, &*listener) {
                (Ok(length), Listener::Somebody(sender)) => {
                    if sender.send(frame.get(..length).unwrap_or_default().to_vec()).is_err() {
                        *listener = Listener::Nobody;
                    }
                }
                (Ok(_), _) => {}
                (Err(error), _) if NOTHING_YET.contains(&error.kind()) => {}
                (Err(error), _) => {
                    eprintln!("hardware: cannot receive from the emulated NIC: {error}");
                    // The other end of the channel tells whoever listens.
                    *listener = Listener::Broken;
                    return;
                }
            }
        }
    }

    /// Frames from now on.
    fn listen(&self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = channel();
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*listener, Listener::Broken) {
            *listener = Listener::Somebody(sender);
        }
        receiver
    }
}

/// Frames that flow through the NAT, tagged with the VLANs of their stations, on a thread of their own.
pub(super) struct Flow {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<String>>,
}

/// What that thread and we tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// To it: settle.
    settle: AtomicBool,
    /// To us: how many answers have come back.
    returned: AtomicU32,
}

impl Flow {
    /// Waits until frames flow, so that what is done next happens in between.
    fn flowing(self) -> Result<Self> {
        while self.shared.returned.load(Ordering::Relaxed) < PACKETS_BEFORE {
            if self.thread.is_finished() {
                self.settle()?;
                bail!("the frames have ended too early");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    /// Lets some more packets go through the NAT, waits for the answers of all, and says how it went.
    pub(super) fn settle(self) -> Result<String> {
        self.shared.settle.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread of the NAT's peer failed"))?
    }
}

impl Peer {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(folder.join(PEER_END)).context("cannot plug the peer in")?;
        socket.set_read_timeout(Some(QUIET))?;
        let cable = Arc::new(Cable { socket, listener: Mutex::new(Listener::Nobody) });
        let read = Arc::downgrade(&cable);
        std::thread::Builder::new().name("cable".into()).spawn(move || Cable::read(&read))?;
        Ok(Self { cable, nic: folder.join(NIC_END) })
    }

    /// Sends packets from the host through the NAT to the server, which answers each, until every answer has arrived.
    pub(super) fn exchange(&self) -> Result<String> {
        self.run(Trip::to(PACKETS), false, LIMIT, &Shared::default())
    }

    /// Does that with tagged frames until it is told to settle. Returns once some have come back.
    pub(super) fn flow(&self) -> Result<Flow> {
        let peer = Self { cable: Arc::clone(&self.cable), nic: self.nic.clone() };
        let shared = Arc::<Shared>::default();
        let told = Arc::clone(&shared);
        let run = move || peer.run(Trip::to(u32::MAX), true, FLOW_LIMIT, &told);
        Flow { shared, thread: std::thread::Builder::new().name("peer".into()).spawn(run)? }.flowing()
    }

    fn run(&self, mut trip: Trip, tagged: bool, limit: Duration, shared: &Shared) -> Result<String> {
        let started = Instant::now();
        let frames = self.cable.listen();
        while !trip.is_done() {
            if started.elapsed() > limit {
                bail!("{}", trip.shortfall(limit));
            }
            shared.returned.store(trip.returned, Ordering::Relaxed);
            if shared.settle.load(Ordering::Relaxed) {
                trip.settle();
            }
            for frame in trip.due(Instant::now())? {
                self.send(frame, tagged)?;
            }
            loop {
                let received = match frames.recv_timeout(QUIET) {
                    Ok(frame) => frame,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => bail!("the cable to the emulated NIC is broken"),
                };
                let untagged = if tagged { tag::strip(&received) } else { Some(received) };
                // What goes to and fro between the switch and the NAT passes here, too.
                let Some(received) = untagged else { continue };
                if let Some(answer) = trip.arrived(&received)? {
                    self.send(answer, tagged)?;
                }
                if trip.can_send() {
                    break;
                }
            }
        }
        Ok(trip.summary())
    }

    fn send(&self, frame: Vec<u8>, tagged: bool) -> Result<()> {
        let frame = if tagged { tag::add(&frame, SERVER_MAC) } else { frame };
        self.cable.socket.send_to(&frame, &self.nic).context("cannot send to the emulated NIC").map(drop)
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
    /// How many packets are to go there and back.
    goal: u32,
    settling: bool,
    /// Where the host's ports appear at the server, which is part of the NAT's state.
    mapped: BTreeMap<u16, SocketAddrV4>,
}

impl Trip {
    fn to(goal: u32) -> Self {
        Self { goal, ..Self::default() }
    }

    /// Only so many more from now on.
    fn settle(&mut self) {
        if !self.settling {
            self.settling = true;
            self.goal = self.next + MORE_PACKETS;
        }
    }

    fn is_done(&self) -> bool {
        self.returned == self.goal
    }

    fn can_send(&self) -> bool {
        self.gateway_known && self.under_way.len() < WINDOW && self.next < self.goal
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
        let mapped = *self.mapped.entry(host(number).port()).or_insert(source);
        ensure!(mapped == source, "{} is {source} at the server, and was {mapped}", host(number));
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

    fn shortfall(&self, limit: Duration) -> String {
        if !self.gateway_known {
            return "the NAT does not answer ARP on its virtual function".into();
        }
        format!(
            "of {} packets {} arrived translated and {} answers came back in {} s",
            self.next,
            self.translated,
            self.returned,
            limit.as_secs()
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
        Trip { gateway_known: true, ..Trip::to(PACKETS) }
    }

    #[test]
    fn the_cable_is_read_while_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let nic = UnixDatagram::bind(folder.path().join(NIC_END)).unwrap();
        let peer = Peer::new(folder.path()).unwrap();
        // Sending fails, rather than waits for ever, if nobody reads.
        nic.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let end = folder.path().join(PEER_END);
        (0..1000).for_each(|_| assert_eq!(nic.send_to(&[1; 60], &end).unwrap(), 60));
        let frames = peer.cable.listen();
        nic.send_to(&[2; 60], &end).unwrap();
        // Some of the others may still be on their way.
        while frames.recv_timeout(Duration::from_secs(10)).expect("the last frame is read") != [2; 60] {}
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
    fn a_session_that_is_mapped_anew_is_found() {
        let mut trip = known();
        let mut other = Ends {
            source_mac: NAT_OUTSIDE_MAC,
            destination_mac: SERVER_MAC,
            source: SocketAddrV4::new(NAT_OUTSIDE, 5),
            destination: SERVER,
        };
        trip.arrived(&packet(&other, 7).unwrap()).unwrap();
        trip.arrived(&packet(&other, 7 + PORTS).unwrap()).unwrap();
        other.source = SocketAddrV4::new(NAT_OUTSIDE, 6);
        let error = trip.arrived(&packet(&other, 7).unwrap()).unwrap_err().to_string();
        assert!(error.contains("is 10.2.0.1:6 at the server, and was 10.2.0.1:5"), "{error}");
    }

    #[test]
    fn what_flows_ends_some_packets_after_it_is_told_to() {
        let mut trip = Trip { gateway_known: true, ..Trip::to(u32::MAX) };
        trip.due(Instant::now()).unwrap();
        trip.settle();
        trip.settle();
        assert_eq!((trip.goal, trip.is_done()), (WINDOW as u32 + MORE_PACKETS, false));
    }

    #[test]
    fn what_gets_lost_is_sent_again_and_missed() {
        let mut trip = known();
        let now = Instant::now();
        assert_eq!(trip.due(now).unwrap().len(), WINDOW);
        assert!(trip.due(now).unwrap().is_empty());
        assert_eq!(trip.due(now + AGAIN * 2).unwrap().len(), WINDOW);
        assert!(trip.shortfall(LIMIT).contains("of 16 packets 0 arrived translated and 0 answers"));
        assert!(Trip::default().shortfall(LIMIT).contains("does not answer ARP"));
    }
}
