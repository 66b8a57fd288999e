//! A NAT on a bench: one interior and one exterior network, packets in, packets out.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::nf::{Environment, LogEvent, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::{
    Arp, ArpOperation, Ethernet, Icmpv4, Ipv4, MacAddr, OwnedPacket, PacketBuf, Tcp, TcpFlags, Udp, emit, ether_type,
    protocol,
};
use slim_core::table::FrozenItem;
use slim_core::time::{Duration, Instant};
use slim_nat::config::Filtering;
use slim_nat::pool::AddressRange;
use slim_nat::rules::{Action, Exclusion, Forward};
use slim_nat::tcp::TcpState;
use slim_nat::types::{Endpoint, Protocol};
use slim_nat::{Config, Drop, Nat};

pub const IN: PortId = PortId(0);
pub const OUT: PortId = PortId(1);

pub const INTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]);
pub const EXTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 2]);
pub const INTERIOR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub const EXTERIOR: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Further exterior addresses: one in the exterior network, one that is routed to the NAT.
pub const EXTERIOR_2: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
pub const EXTERIOR_3: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 254);

/// The interior host number `n`.
pub fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, n)
}

/// The server number `n` in the exterior network.
pub fn server(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, n)
}

/// The MAC address of whoever has `address`.
pub fn mac_of(address: Ipv4Addr) -> MacAddr {
    let [_, b, c, d] = address.octets();
    MacAddr([0x02, 0xaa, 0, b, c, d])
}

pub fn socket(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

pub fn endpoint(socket: SocketAddrV4) -> Endpoint {
    Endpoint::new(*socket.ip(), socket.port())
}

pub fn config() -> Config {
    let [interior, exterior] = ["10.1.0.1/24", "10.2.0.1/24"].map(|text| text.parse().unwrap());
    Config {
        exterior_gateway: Some(GATEWAY),
        filtering: Filtering::AddressAndPortDependent,
        sessions_max: 300,
        hosts_max: 50,
        arp_entries_max: 100,
        ..Config::new(interior, INTERIOR_MAC, exterior, EXTERIOR_MAC)
    }
}

/// Three exterior addresses instead of one.
pub fn pooled(config: Config) -> Config {
    Config { exterior_pool: vec!["10.2.0.2".parse().unwrap(), "203.0.113.7/32".parse().unwrap()], ..config }
}

/// A forward from a port of the NAT's own exterior address.
pub fn forward(protocol: Protocol, port: u16, to: u8, to_port: u16) -> Forward {
    Forward { protocol, exterior: socket(EXTERIOR, port), interior: socket(host(to), to_port) }
}

/// An exclusion of all protocols, or of a port.
pub fn exclusion(action: Action, host: Option<Ipv4Addr>, destination: Option<Ipv4Addr>, port: &str) -> Exclusion {
    let range = |address: Ipv4Addr| AddressRange { first: address, last: address };
    Exclusion {
        action,
        host: host.map(range),
        destination: destination.map(range),
        protocol: None,
        port: port.parse().ok(),
    }
}

/// An environment that keeps what it is given.
#[derive(Debug, Default)]
pub struct Bench {
    pub now: Instant,
    pub upd_enable: bool,
    pub statelets: Vec<(u16, Vec<u8>)>,
    pub emitted: Vec<(PortId, Vec<u8>)>,
    pub logged: Vec<LogEvent>,
}

impl Environment for Bench {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        self.upd_enable
    }

    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        assert!(self.upd_enable, "announced although nobody listens");
        self.statelets.push((statelet_type, value.to_vec()));
    }

    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.emitted.push((port, frame.to_vec()));
    }

    fn log(&mut self, event: &LogEvent) {
        self.logged.push(*event);
    }
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Sent(PortId, Vec<u8>),
    Consumed,
    Dropped(Drop),
}

impl Outcome {
    /// The frame, which must have been sent out of `port`.
    #[track_caller]
    pub fn sent_to(self, port: PortId) -> Vec<u8> {
        match self {
            Self::Sent(to, frame) if to == port => frame,
            other => panic!("not sent to {port:?}: {other:?}"),
        }
    }

    #[track_caller]
    pub fn dropped(self, reason: Drop) {
        assert_eq!(self, Self::Dropped(reason));
    }
}

pub struct Lab {
    pub nat: Nat,
    pub bench: Bench,
}

impl Lab {
    pub fn new(config: &Config) -> Self {
        Self::with_seed(config, 1)
    }

    pub fn with_seed(config: &Config, seed: u64) -> Self {
        let mut lab = Self { nat: Nat::new(config, Shard::ONLY, seed).unwrap(), bench: Bench::default() };
        lab.bench.now = Instant::from_millis(1_000_000);
        lab.nat.tick(&mut lab.bench);
        lab
    }

    /// A NAT that knows hosts 10 to 29, servers 10 to 29 and the gateway.
    pub fn resolved(config: &Config) -> Self {
        let mut lab = Self::new(config);
        for n in 10..30 {
            lab.arp_reply(IN, host(n));
            lab.arp_reply(OUT, server(n));
        }
        lab.arp_reply(OUT, GATEWAY);
        lab
    }

    pub fn deliver(&mut self, port: PortId, frame: &[u8]) -> Outcome {
        let mut packet = OwnedPacket::from(frame);
        match self.nat.process(&mut self.bench, port, &mut packet) {
            Verdict::Transmit(port) => Outcome::Sent(port, packet.into_inner()),
            Verdict::Consumed => Outcome::Consumed,
            Verdict::Drop(reason) => {
                assert_eq!(packet.bytes(), frame, "a dropped packet has been changed");
                Outcome::Dropped(Drop::ALL[usize::from(reason)])
            }
        }
    }

    /// An ARP reply of whoever has `address` to the NAT.
    pub fn arp_reply(&mut self, port: PortId, address: Ipv4Addr) -> Outcome {
        self.deliver(port, &arp(port, ArpOperation::Reply, mac_of(address), address, own(port).1))
    }

    pub fn outbound(&mut self, frame: &[u8]) -> Outcome {
        self.deliver(IN, frame)
    }

    pub fn inbound(&mut self, frame: &[u8]) -> Outcome {
        self.deliver(OUT, frame)
    }

    /// Sends a UDP packet out and returns its exterior socket.
    #[track_caller]
    pub fn udp_out(&mut self, source: SocketAddrV4, destination: SocketAddrV4) -> SocketAddrV4 {
        let frame = self.outbound(&udp(IN, source, destination, b"request")).sent_to(OUT);
        let (from, to) = ends(&frame);
        assert_eq!(to, destination);
        from
    }

    /// Sends a TCP segment out and returns its exterior socket.
    #[track_caller]
    pub fn tcp_out(&mut self, source: SocketAddrV4, destination: SocketAddrV4, flags: u8) -> SocketAddrV4 {
        let frame = self.outbound(&tcp(IN, source, destination, flags, b"")).sent_to(OUT);
        ends(&frame).0
    }

    /// Opens a TCP connection and returns its exterior socket.
    #[track_caller]
    pub fn tcp_connect(&mut self, source: SocketAddrV4, destination: SocketAddrV4) -> SocketAddrV4 {
        let exterior = self.tcp_out(source, destination, SYN);
        self.inbound(&tcp(OUT, destination, exterior, SYN | ACK, b"")).sent_to(IN);
        self.tcp_out(source, destination, ACK);
        exterior
    }

    pub fn tick(&mut self) {
        self.nat.tick(&mut self.bench);
    }

    /// Lets `seconds` pass, and every sweep that they cause end.
    pub fn pass(&mut self, seconds: u64) {
        self.bench.now += Duration::from_secs(seconds);
        self.sweep();
    }

    /// Calls `tick` often enough for a whole sweep.
    pub fn sweep(&mut self) {
        for _ in 0..400 {
            self.tick();
        }
    }

    #[track_caller]
    pub fn gauge(&self, name: &str) -> u64 {
        let gauges = self.nat.gauges();
        gauges.iter().find(|gauge| gauge.name == name).unwrap_or_else(|| panic!("no gauge {name}")).value
    }

    /// How many TCP sessions are in a state.
    pub fn tcp_sessions(&self, state: TcpState) -> u64 {
        self.gauge(match state {
            TcpState::Opening => "sessions_tcp_opening",
            TcpState::OpeningInbound => "sessions_tcp_opening_inbound",
            TcpState::Established => "sessions_tcp_established",
            TcpState::FinOutbound => "sessions_tcp_fin_outbound",
            TcpState::FinInbound => "sessions_tcp_fin_inbound",
            TcpState::Closing => "sessions_tcp_closing",
            TcpState::Reset => "sessions_tcp_reset",
        })
    }

    pub fn exterior_of(&self, protocol: Protocol, interior: SocketAddrV4) -> Option<Endpoint> {
        self.nat.mapping(protocol, endpoint(interior))
    }

    /// Takes what has been announced.
    pub fn statelets(&mut self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut self.bench.statelets)
    }

    /// Takes what has been logged.
    pub fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.bench.logged).iter().map(|event| Nat::describe(event).unwrap()).collect()
    }

    pub fn freeze(&mut self) -> Vec<Box<dyn FrozenItem>> {
        freeze(&mut self.nat)
    }
}

pub fn freeze(nat: &mut Nat) -> Vec<Box<dyn FrozenItem>> {
    let mut frozen = Vec::new();
    nat.for_each_state(&mut |item| frozen.push(item.freeze()));
    frozen
}

pub fn digest(nat: &mut Nat) -> Vec<(&'static str, u128)> {
    freeze(nat).iter().map(|item| (item.name(), item.digest())).collect()
}

/// Makes a snapshot the state of `nat`.
pub fn adopt(nat: &mut Nat, snapshot: &[Box<dyn FrozenItem>]) {
    let mut items = snapshot.iter();
    nat.for_each_state(&mut |item| {
        let frozen = items.next().unwrap();
        assert_eq!(frozen.name(), item.name());
        let header = frozen.header();
        item.begin_adopt(&header).unwrap();
        for index in 0..header.segments {
            if let Some(archive) = frozen.archive_segment(index).unwrap() {
                item.adopt_segment(index, &archive).unwrap();
            }
        }
        item.finish_adopt().unwrap();
    });
}

/// The NAT's MAC and IPv4 address on `port`.
pub fn own(port: PortId) -> (MacAddr, Ipv4Addr) {
    if port == IN { (INTERIOR_MAC, INTERIOR) } else { (EXTERIOR_MAC, EXTERIOR) }
}

fn packet_ends(port: PortId, source: SocketAddrV4, destination: SocketAddrV4) -> emit::Ends {
    emit::Ends { source_mac: mac_of(*source.ip()), destination_mac: own(port).0, source, destination }
}

pub const FIN: u8 = TcpFlags::FIN.0;
pub const SYN: u8 = TcpFlags::SYN.0;
pub const RST: u8 = TcpFlags::RST.0;
pub const ACK: u8 = TcpFlags::ACK.0;

/// A UDP frame as it arrives on `port`.
pub fn udp(port: PortId, source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xa5; emit::UDP_PAYLOAD_AT + payload.len()];
    emit::udp(&mut frame, &packet_ends(port, source, destination), payload).unwrap();
    frame
}

/// A TCP frame as it arrives on `port`.
pub fn tcp(port: PortId, source: SocketAddrV4, destination: SocketAddrV4, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xa5; emit::TCP_PAYLOAD_AT + payload.len()];
    let fields = emit::TcpFields { sequence: 7, acknowledgement: 9, flags: TcpFlags(flags), window: 1000 };
    emit::tcp(&mut frame, &packet_ends(port, source, destination), &fields, payload).unwrap();
    frame
}

/// An ICMP frame as it arrives on `port`.
pub fn icmp(port: PortId, from: Ipv4Addr, to: Ipv4Addr, fields: (u8, u8, [u8; 4]), payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xa5; emit::ICMP_PAYLOAD_AT + payload.len()];
    let (message_type, code, rest) = fields;
    let fields = emit::IcmpFields { message_type, code, rest };
    emit::icmp(&mut frame, &packet_ends(port, socket(from, 0), socket(to, 0)), &fields, payload).unwrap();
    frame
}

/// An echo request or reply with an identifier.
pub fn echo(port: PortId, from: Ipv4Addr, to: Ipv4Addr, message_type: u8, ident: u16) -> Vec<u8> {
    let [high, low] = ident.to_be_bytes();
    icmp(port, from, to, (message_type, 0, [high, low, 0, 1]), b"abcdefgh")
}

/// The IPv4 packet in a frame, as an ICMP error carries it: the header and 8 bytes, or all of it.
pub fn subject(frame: &[u8], whole: bool) -> &[u8] {
    let (_, packet) = Ethernet::parse(frame).unwrap();
    if whole { packet } else { &packet[..28] }
}

/// Addresses, ICMP type, code, rest of header and data of an ICMP frame whose checksums are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IcmpFrame {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub kind: (u8, u8),
    pub ident: u16,
    pub data: Vec<u8>,
}

#[track_caller]
pub fn read_icmp(frame: &[u8]) -> IcmpFrame {
    let (_, packet) = Ethernet::parse(frame).unwrap();
    let (ip, message) = Ipv4::parse(packet).unwrap();
    assert_eq!(ip.protocol(), protocol::ICMP);
    assert!(ip.checksum_is_correct());
    let (icmp, data) = Icmpv4::parse(message).unwrap();
    assert!(icmp.checksum_is_correct(data));
    IcmpFrame {
        from: ip.source(),
        to: ip.destination(),
        kind: (icmp.message_type(), icmp.code()),
        ident: icmp.ident(),
        data: data.to_vec(),
    }
}

/// An ARP frame as it arrives on `port`: a request to all, a reply to the NAT.
pub fn arp(port: PortId, operation: ArpOperation, mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xa5; 60];
    let ends = emit::Ends {
        source_mac: mac,
        destination_mac: own(port).0,
        source: socket(sender, 0),
        destination: socket(target, 0),
    };
    emit::arp(&mut frame, operation, &ends).unwrap();
    frame
}

/// Changes the IPv4 header with `change` and corrects its checksum.
pub fn with_ipv4(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut frame[14..]);
    if let Ok((mut header, _)) = Ipv4::parse_mut(&mut frame[14..]) {
        header.fill_checksum();
    }
    frame
}

/// Cuts a frame's IPv4 packet into fragments of `unit` bytes.
pub fn cut(frame: &[u8], unit: usize, ident: u16) -> Vec<Vec<u8>> {
    let payload = &frame[34..];
    let pieces: Vec<_> = payload.chunks(unit).collect();
    let of = |(index, piece): (usize, &&[u8])| {
        let mut fragment = frame[..34].to_vec();
        fragment.extend_from_slice(piece);
        with_ipv4(fragment, |ip| {
            ip[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&ident.to_be_bytes());
            let more = if index + 1 < pieces.len() { 0x2000 } else { 0 };
            ip[6..8].copy_from_slice(&(more | (index * unit / 8) as u16).to_be_bytes());
        })
    };
    pieces.iter().enumerate().map(of).collect()
}

/// Puts fragments that have left the NAT together again, as the receiver does.
#[track_caller]
pub fn join(fragments: &[Vec<u8>]) -> Vec<u8> {
    let place = |frame: &Vec<u8>| Ipv4::parse(&frame[14..]).unwrap().0.fragment_offset();
    let mut fragments = fragments.to_vec();
    fragments.sort_by_key(place);
    let mut whole = fragments[0][..34].to_vec();
    for fragment in &fragments {
        assert_eq!(whole.len() - 34, place(fragment) as usize);
        assert_eq!(fragment[..14], whole[..14], "all take the same way");
        whole.extend_from_slice(&fragment[34..]);
    }
    with_ipv4(whole.clone(), |ip| {
        ip[2..4].copy_from_slice(&(whole.len() as u16 - 14).to_be_bytes());
        ip[6..8].fill(0);
    })
}

/// The sockets of a UDP or TCP frame.
#[track_caller]
pub fn ends(frame: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let (_, packet) = Ethernet::parse(frame).unwrap();
    let (ip, payload) = Ipv4::parse(packet).unwrap();
    let (source, destination) = match ip.protocol() {
        protocol::UDP => Udp::parse(payload).map(|(udp, _)| (udp.source(), udp.destination())).unwrap(),
        protocol::TCP => Tcp::parse(payload).map(|(tcp, _)| (tcp.source(), tcp.destination())).unwrap(),
        other => panic!("protocol {other}"),
    };
    (socket(ip.source(), source), socket(ip.destination(), destination))
}

/// Whether the checksums of a frame are right: IPv4, and UDP or TCP. `None` if it does not have them.
pub fn checksums(frame: &[u8]) -> Option<(bool, bool)> {
    let (_, packet) = Ethernet::parse(frame).ok()?;
    let (ip, payload) = Ipv4::parse(packet).ok()?;
    let transport = match ip.protocol() {
        protocol::UDP => {
            let (udp, data) = Udp::parse(payload).ok()?;
            udp.checksum_is_correct(ip.pseudo_header(udp.length()), data)
        }
        protocol::TCP => {
            let (tcp, data) = Tcp::parse(payload).ok()?;
            tcp.checksum_is_correct(ip.pseudo_header(payload.len() as u16), data)
        }
        _ => return None,
    };
    Some((ip.checksum_is_correct(), transport))
}

/// What an ARP frame says.
#[derive(Debug, PartialEq, Eq)]
pub struct ArpFrame {
    pub operation: ArpOperation,
    pub sender: (MacAddr, Ipv4Addr),
    pub target: (MacAddr, Ipv4Addr),
    /// Source and destination of the frame itself.
    pub ethernet: (MacAddr, MacAddr),
}

#[track_caller]
pub fn read_arp(frame: &[u8]) -> ArpFrame {
    let (ethernet, packet) = Ethernet::parse(frame).unwrap();
    assert_eq!(ethernet.ether_type(), ether_type::ARP);
    let arp = Arp::parse(packet).unwrap();
    ArpFrame {
        operation: arp.operation(),
        sender: (arp.sender_mac(), arp.sender()),
        target: (arp.target_mac(), arp.target()),
        ethernet: (ethernet.source(), ethernet.destination()),
    }
}
