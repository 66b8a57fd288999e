//! A host of the management network: a TCP/IP stack (`smoltcp`) behind an Ethernet interface that somebody else moves
//! frames to and from.
//!
//! The stack keeps TCP's promises over whatever happens to its frames. What happens to a connection beyond that is left
//! to the caller: to close, to reset, not to read.

use crate::Random;
use slim_core::packet::{ArpOperation, MacAddr, emit};
use slim_core::time::{Duration, Instant};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address,
    Ipv4Packet, TcpPacket,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

const ETHERNET_HEADER_LEN: usize = 14;

/// Frames are never longer, headers included.
const FRAME_BYTES_MAX: usize = 1514;

/// Connections that wait to be accepted, per port.
const BACKLOG: usize = 4;

/// A connection of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conn(SocketHandle);

/// What a host is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostParameters {
    /// The last octet of its address, and its MAC address.
    pub(crate) number: u8,
    /// What its connections buffer in each direction.
    pub(crate) buffer_bytes: usize,
    /// How long sent data may stay unacknowledged.
    pub(crate) patience: Duration,
    /// Whether connections make way for other traffic.
    pub(crate) congestion_control: bool,
}

pub(crate) struct Host {
    parameters: HostParameters,
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    listeners: Vec<(u16, SocketHandle)>,
    /// Connections that nobody uses any more, until both sides have closed.
    lingering: Vec<(SocketHandle, Option<Instant>)>,
    next_port: u16,
    /// Connections whose frames carry a code point: own port, the other end, and the code point.
    marked: Vec<(u16, IpEndpoint, u8)>,
}

/// Frames on their way into and out of the stack.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    /// How many of them the stack may look at.
    admitted: usize,
    outgoing: VecDeque<Vec<u8>>,
}

impl Host {
    pub(crate) fn new(now: Instant, parameters: HostParameters, random: &mut Random) -> Self {
        let mac = EthernetAddress([0x02, 0x51, 0x1a, 0x03, 0, parameters.number]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = random.number();
        let mut wire = Wire::default();
        // The stack asks for one unknown neighbour a second, the same first each time: a dead one would keep it from ever
        // finding another. So it knows all of them from the start, having been asked by each.
        let others = [1, 11, 12].into_iter().filter(|&other| other != parameters.number);
        wire.incoming.extend(others.map(|other| arp_request(other, parameters.number)));
        let mut interface = Interface::new(config, &mut wire, time(now));
        interface.update_ip_addrs(|addresses| {
            // The interface is new: there is room for one.
            let _ = addresses.push(IpCidr::new(address(parameters.number), 24));
        });
        let next_port = 49_152 + random.below(10_000) as u16;
        Self {
            parameters,
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            listeners: Vec::new(),
            lingering: Vec::new(),
            next_port,
            marked: Vec::new(),
        }
    }

    /// Where a host with this number listens at `port`.
    pub(crate) fn socket_address(number: u8, port: u16) -> SocketAddr {
        SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, number), port).into()
    }

    /// Accepts connections at `port` from now on.
    pub(crate) fn listen(&mut self, port: u16) {
        for _ in 0..BACKLOG {
            let mut socket = self.socket();
            // Neither open nor without a port, so it can listen.
            let _ = socket.listen(port);
            let handle = self.sockets.add(socket);
            self.listeners.push((port, handle));
        }
    }

    /// The next connection made to `port`.
    pub(crate) fn accept(&mut self, port: u16) -> Option<Conn> {
        let ready = |sockets: &SocketSet<'static>, handle| {
            !matches!(sockets.get::<Socket<'static>>(handle).state(), State::Listen | State::SynReceived)
        };
        let index = self.listeners.iter().position(|&(at, handle)| at == port && ready(&self.sockets, handle))?;
        let (_, handle) = self.listeners[index];
        let mut next = self.socket();
        let _ = next.listen(port);
        self.listeners[index].1 = self.sockets.add(next);
        Some(Conn(handle))
    }

    /// Begins to connect.
    pub(crate) fn connect(&mut self, to: SocketAddr) -> Option<Conn> {
        let SocketAddr::V4(to) = to else { return None };
        let [.., number] = to.ip().octets();
        let mut socket = self.socket();
        let port = self.next_port;
        self.next_port = if port == u16::MAX { 49_152 } else { port + 1 };
        let to = IpEndpoint::new(address(number), to.port());
        socket.connect(self.interface.context(), to, port).ok()?;
        Some(Conn(self.sockets.add(socket)))
    }

    fn socket(&self) -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; self.parameters.buffer_bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let makes_way = self.parameters.congestion_control;
        socket.set_congestion_control(if makes_way { CongestionControl::Cubic } else { CongestionControl::None });
        socket.set_timeout(Some(self.parameters.patience.into()));
        socket.set_keep_alive(Some((self.parameters.patience / 4).into()));
        socket
    }

    fn get(&self, conn: Conn) -> &Socket<'static> {
        self.sockets.get(conn.0)
    }

    fn get_mut(&mut self, conn: Conn) -> &mut Socket<'static> {
        self.sockets.get_mut(conn.0)
    }

    /// Whether the connection has been made, and not been closed from here.
    pub(crate) fn is_established(&self, conn: Conn) -> bool {
        self.get(conn).may_send()
    }

    /// Whether the connection is gone: refused, reset, timed out.
    pub(crate) fn is_dead(&self, conn: Conn) -> bool {
        matches!(self.get(conn).state(), State::Closed | State::TimeWait)
    }

    /// Whether the peer has closed its side and everything it sent has been read.
    pub(crate) fn is_finished(&self, conn: Conn) -> bool {
        let socket = self.get(conn);
        !socket.may_recv() && socket.recv_queue() == 0 && !matches!(socket.state(), State::SynSent | State::SynReceived)
    }

    /// Sends what there is room for, and says how much that was.
    pub(crate) fn send(&mut self, conn: Conn, bytes: &[u8]) -> usize {
        self.get_mut(conn).send_slice(bytes).unwrap_or(0)
    }

    /// Reads what has arrived, at most `max` bytes.
    pub(crate) fn receive(&mut self, conn: Conn, max: usize) -> Vec<u8> {
        let socket = self.get_mut(conn);
        let mut bytes = vec![0; socket.recv_queue().min(max)];
        let len = if bytes.is_empty() { 0 } else { socket.recv_slice(&mut bytes).unwrap_or(0) };
        bytes.truncate(len);
        bytes
    }

    /// Closes the sending side, after everything sent.
    pub(crate) fn shut_down(&mut self, conn: Conn) {
        self.get_mut(conn).close();
    }

    /// Closes and forgets; the stack sees the connection to its end.
    pub(crate) fn close(&mut self, conn: Conn) {
        self.get_mut(conn).close();
        self.lingering.push((conn.0, None));
    }

    /// Resets, but goes on to be known: its user will find out.
    pub(crate) fn break_off(&mut self, conn: Conn) {
        self.get_mut(conn).abort();
    }

    /// Resets everything, as a system does with the connections of a process that has ended.
    pub(crate) fn reset_all(&mut self) {
        let listening: Vec<SocketHandle> = self.listeners.drain(..).map(|(_, handle)| handle).collect();
        for handle in listening {
            self.sockets.remove(handle);
        }
        let handles: Vec<SocketHandle> = self.sockets.iter().map(|(handle, _)| handle).collect();
        for handle in handles {
            self.sockets.get_mut::<Socket<'static>>(handle).abort();
            if !self.lingering.iter().any(|&(known, _)| known == handle) {
                self.lingering.push((handle, None));
            }
        }
    }

    /// Connections that are open or on their way to be closed.
    pub(crate) fn connections(&self) -> usize {
        let listening = |handle| self.listeners.iter().any(|&(_, listener)| listener == handle);
        let open = |(handle, socket): &(SocketHandle, &smoltcp::socket::Socket<'static>)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            !listening(*handle) && !matches!(socket.state(), State::Closed | State::TimeWait)
        };
        self.sockets.iter().filter(open).count()
    }

    /// A frame arrives.
    pub(crate) fn deliver(&mut self, frame: Vec<u8>) {
        self.wire.incoming.push_back(frame);
    }

    /// Lets the stack work; says whether anything may have changed for its users.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let mut changed = false;
        // One frame at a time, so that acknowledgements are as frequent as a real stack's, which sees them come apart.
        loop {
            self.wire.admitted = usize::from(!self.wire.incoming.is_empty());
            let result = self.interface.poll(time(now), &mut self.wire, &mut self.sockets);
            changed |= result == PollResult::SocketStateChanged;
            if result == PollResult::None && self.wire.incoming.is_empty() {
                break;
            }
        }
        let sockets = &mut self.sockets;
        // A system does not wait for ever for a peer to close its side.
        let longest = self.parameters.patience * 2;
        self.lingering.retain_mut(|(handle, until)| {
            let handle = *handle;
            let socket = sockets.get_mut::<Socket<'static>>(handle);
            if *until.get_or_insert(now + longest) <= now {
                socket.abort();
            }
            // Nobody reads it, so what is in it must not keep the peer waiting for ever.
            let _ = socket.recv(|bytes| (bytes.len(), ()));
            let over = matches!(socket.state(), State::Closed | State::TimeWait);
            if over {
                sockets.remove(handle);
            }
            !over
        });
        changed
    }

    /// Has everything that is sent on a connection from now on carry a code point.
    pub(crate) fn mark(&mut self, conn: Conn, dscp: u8) {
        let socket = self.get(conn);
        if let (Some(local), Some(remote)) = (socket.local_endpoint(), socket.remote_endpoint()) {
            self.marked.retain(|&(port, other, _)| (port, other) != (local.port, remote));
            self.marked.push((local.port, remote, dscp));
        }
    }

    /// The next frame to be sent.
    pub(crate) fn take_frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = self.wire.outgoing.pop_front()?;
        // The stack marks nothing itself, and does not look at marks.
        if let Some(dscp) = self.mark_of(&frame) {
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER_LEN..]);
            packet.set_dscp(dscp);
            packet.fill_checksum();
        }
        Some(frame)
    }

    /// The code point that a frame of the stack has to carry.
    fn mark_of(&self, frame: &[u8]) -> Option<u8> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if self.marked.is_empty() || ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        let segment = TcpPacket::new_checked(packet.payload()).ok()?;
        let ends = (segment.src_port(), IpEndpoint::new(packet.dst_addr().into(), segment.dst_port()));
        self.marked.iter().find(|&&(port, other, _)| (port, other) == ends).map(|&(.., dscp)| dscp)
    }

    /// When to poll again, if nothing arrives before.
    pub(crate) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(time(now), &self.sockets)?;
        Some(Instant::from_nanos((at.total_micros().max(0) as u64).saturating_mul(1000)))
    }
}

/// One host asks for another one's address.
fn arp_request(from: u8, to: u8) -> Vec<u8> {
    let socket = |number: u8| SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, number), 0);
    let mac = |number: u8| MacAddr([0x02, 0x51, 0x1a, 0x03, 0, number]);
    let ends =
        emit::Ends { source_mac: mac(from), destination_mac: mac(to), source: socket(from), destination: socket(to) };
    let mut frame = vec![0; 60];
    // The buffer is long enough.
    let _ = emit::arp(&mut frame, ArpOperation::Request, &ends);
    frame
}

fn address(number: u8) -> IpAddress {
    IpAddress::Ipv4(Ipv4Address::new(10, 3, 0, number))
}

fn time(now: Instant) -> smoltcp::time::Instant {
    // Rounded up, or a timer would seem not to be due yet at the very moment it asked for.
    smoltcp::time::Instant::from_micros(now.as_nanos().div_ceil(1000) as i64)
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Room<'_>)> {
        self.admitted = self.admitted.checked_sub(1)?;
        let frame = self.incoming.pop_front()?;
        Some((Received(frame), Room(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Room<'_>> {
        Some(Room(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

pub(crate) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
