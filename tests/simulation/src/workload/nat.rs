//! Hosts behind a NAT and servers before it: UDP and TCP flows that arrive, send and close, and ARP.
//!
//! Hosts and servers belong to a shard each, so that ARP entries are where the flows are.

use super::Workload;
use crate::{PacketId, Random};
use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::nf::PortId;
use slim_core::packet::{Arp, ArpOperation, Ethernet, Ipv4, MacAddr, Tcp, TcpFlags, Udp, emit, ether_type, protocol};
use slim_core::time::Instant;
use slim_nat::{Config, Nat};

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);
const NAT_MACS: [MacAddr; 2] = [MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]), MacAddr([0x02, 0x51, 0x1a, 0, 0, 2])];
const NAT_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)];
const SERVER_PORT: u16 = 7;
/// Hosts and servers have addresses from here on.
const NUMBER_MIN: u8 = 10;

/// Flow numbers from here on are ARP: of the host or server with the number that follows.
const ARP: u32 = 1 << 24;
/// Flows that are open at a time.
const OPEN_MAX: usize = 24;
const MARK: [u8; 3] = *b"sim";
/// Mark, port, flow, sequence.
const STAMP_LEN: usize = 3 + 1 + 4 + 8;
/// Behind the ARP packet, in the frame's padding.
const ARP_STAMP_AT: usize = emit::ARP_FRAME_LEN;

/// How small the NAT's tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatPressure {
    /// The most sessions per shard.
    pub sessions_max: u32,
    /// The most sessions of a host.
    pub sessions_per_host_max: u32,
    /// The most hosts per shard.
    pub hosts_max: u32,
    /// Exterior ports, of all shards together.
    pub ports: u16,
}

/// Hosts, servers and their flows.
#[derive(Debug, Clone)]
pub struct NatWorkload {
    pressure: NatPressure,
    hosts: u8,
    servers: u8,
    shards: u16,
    /// Every flow ever opened, by number.
    flows: Vec<Flow>,
    open: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    tcp: bool,
    host: u8,
    server: u8,
    port: u16,
    /// Where the servers see it come from, once they have.
    exterior: Option<SocketAddrV4>,
    sent: u32,
    answered: u32,
    closing: bool,
}

impl NatWorkload {
    /// So many hosts and servers, each at least 1 and at most 16.
    pub fn new(pressure: NatPressure, hosts: u8, servers: u8, shards: u16) -> Self {
        let count = |count: u8| count.clamp(shards as u8, 16) / shards as u8 * shards as u8;
        Self { pressure, hosts: count(hosts), servers: count(servers), shards, flows: Vec::new(), open: Vec::new() }
    }

    fn begin(&mut self, random: &mut Random) -> u32 {
        let host = random.below(u64::from(self.hosts)) as u8;
        let shard = u16::from(host) % self.shards;
        // A server of the same shard.
        let server = random.below(u64::from(self.servers) / u64::from(self.shards)) as u16 * self.shards + shard;
        let number = self.flows.len() as u32;
        self.flows.push(Flow {
            tcp: random.chance(500),
            host: NUMBER_MIN + host,
            server: NUMBER_MIN + server as u8,
            port: 1024 + (number % 60_000) as u16,
            exterior: None,
            sent: 0,
            answered: 0,
            closing: false,
        });
        self.open.push(number);
        number
    }

    fn flags(flow: &Flow, from_host: bool, random: &mut Random) -> u8 {
        let first = if from_host { flow.sent == 0 } else { flow.answered == 0 };
        match (first, from_host, flow.closing) {
            (true, true, _) => TcpFlags::SYN.0,
            (true, false, _) => TcpFlags::SYN.0 | TcpFlags::ACK.0,
            (false, _, true) if random.chance(150) => TcpFlags::RST.0,
            (false, _, true) => TcpFlags::FIN.0 | TcpFlags::ACK.0,
            (false, _, false) => TcpFlags::ACK.0,
        }
    }
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, number)
}

fn server(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, number)
}

fn mac(address: Ipv4Addr) -> MacAddr {
    let [_, b, c, d] = address.octets();
    MacAddr([0x02, 0xaa, 0, b, c, d])
}

fn stamp(id: PacketId) -> [u8; STAMP_LEN] {
    let mut stamp = [0; STAMP_LEN];
    stamp[..3].copy_from_slice(&MARK);
    stamp[3] = id.port.0;
    stamp[4..8].copy_from_slice(&id.flow.to_be_bytes());
    stamp[8..].copy_from_slice(&id.sequence.to_be_bytes());
    stamp
}

fn read_stamp(bytes: &[u8]) -> Option<PacketId> {
    let stamp: &[u8; STAMP_LEN] = bytes.first_chunk()?;
    let (mark, rest) = stamp.split_first_chunk::<3>()?;
    let (port, rest) = rest.split_first()?;
    let (flow, sequence) = rest.split_first_chunk::<4>()?;
    (*mark == MARK).then_some(PacketId {
        port: PortId(*port),
        flow: u32::from_be_bytes(*flow),
        sequence: u64::from_be_bytes(*sequence.first_chunk()?),
    })
}

impl Workload<Nat> for NatWorkload {
    fn config(&self) -> Config {
        let network = |address: Ipv4Addr| slim_core::nf::InterfaceAddress { address, prefix_len: 24 };
        let [interior, exterior] = NAT_ADDRESSES;
        Config {
            sessions_max: self.pressure.sessions_max,
            sessions_per_host_max: Some(self.pressure.sessions_per_host_max),
            hosts_max: self.pressure.hosts_max,
            arp_entries_max: 64,
            port_first: 1024,
            port_last: 1024 + self.pressure.ports,
            host_timeout_s: 1,
            arp_timeout_s: 10,
            ..Config::new(network(interior), NAT_MACS[0], network(exterior), NAT_MACS[1])
        }
    }

    fn choose(&mut self, random: &mut Random) -> (PortId, u32) {
        if self.open.is_empty() || (self.open.len() < OPEN_MAX && random.chance(80)) {
            return (IN, self.begin(random));
        }
        let index = random.below(self.open.len() as u64) as usize;
        let number = self.open[index];
        let flow = &mut self.flows[number as usize];
        if flow.closing && random.chance(400) {
            // Its last packet.
            self.open.swap_remove(index);
        } else if flow.answered > 1 && random.chance(40) {
            flow.closing = true;
        }
        let answer = flow.exterior.is_some() && random.chance(450);
        (if answer { OUT } else { IN }, number)
    }

    fn frame(&mut self, _now: Instant, id: PacketId, random: &mut Random) -> Vec<u8> {
        if id.flow >= ARP {
            let number = (id.flow - ARP) as u8;
            let (address, side) = if id.port == IN { (host(number), 0) } else { (server(number), 1) };
            let ends = emit::Ends {
                source_mac: mac(address),
                destination_mac: NAT_MACS[side],
                source: SocketAddrV4::new(address, 0),
                destination: SocketAddrV4::new(NAT_ADDRESSES[side], 0),
            };
            let mut frame = vec![0; ARP_STAMP_AT + STAMP_LEN + 2];
            // The buffer is long enough.
            let _ = emit::arp(&mut frame, ArpOperation::Reply, &ends);
            frame[ARP_STAMP_AT..ARP_STAMP_AT + STAMP_LEN].copy_from_slice(&stamp(id));
            return frame;
        }
        let flow = &mut self.flows[id.flow as usize];
        let from_host = id.port == IN;
        let flags = Self::flags(flow, from_host, random);
        let inside = SocketAddrV4::new(host(flow.host), flow.port);
        let outside = SocketAddrV4::new(server(flow.server), SERVER_PORT);
        let (source, destination, side) = if from_host {
            flow.sent += 1;
            (inside, outside, 0)
        } else {
            flow.answered += 1;
            (outside, flow.exterior.unwrap_or(SocketAddrV4::new(NAT_ADDRESSES[1], 1)), 1)
        };
        let ends = emit::Ends { source_mac: mac(*source.ip()), destination_mac: NAT_MACS[side], source, destination };
        let mut payload = stamp(id).to_vec();
        let longest = if random.chance(100) { 1200 } else { 40 };
        payload.resize(STAMP_LEN + random.below(longest) as usize, 0xa5);
        let head = if flow.tcp { emit::TCP_PAYLOAD_AT } else { emit::UDP_PAYLOAD_AT };
        let mut frame = vec![0; head + payload.len()];
        // The buffer is long enough.
        let _ = if flow.tcp {
            let fields = emit::TcpFields { sequence: 7, acknowledgement: 9, flags: TcpFlags(flags), window: 1000 };
            emit::tcp(&mut frame, &ends, &fields, &payload)
        } else {
            emit::udp(&mut frame, &ends, &payload)
        };
        frame
    }

    fn identify(&self, frame: &[u8]) -> Option<PacketId> {
        let (ethernet, packet) = Ethernet::parse(frame).ok()?;
        match ethernet.ether_type() {
            ether_type::ARP => read_stamp(frame.get(ARP_STAMP_AT..)?),
            ether_type::IPV4 => {
                let (ip, payload) = Ipv4::parse(packet).ok()?;
                match ip.protocol() {
                    protocol::UDP => read_stamp(Udp::parse(payload).ok()?.1),
                    protocol::TCP => read_stamp(Tcp::parse(payload).ok()?.1),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn react(&mut self, _now: Instant, port: PortId, frame: &[u8]) -> Option<(PortId, u32)> {
        let (ethernet, packet) = Ethernet::parse(frame).ok()?;
        if ethernet.ether_type() == ether_type::ARP {
            let arp = Arp::parse(packet).ok()?;
            let [.., number] = arp.target().octets();
            let known = if port == IN { self.hosts } else { self.servers };
            let asked = arp.operation() == ArpOperation::Request && number >= NUMBER_MIN;
            return (asked && number < NUMBER_MIN + known).then_some((port, ARP + u32::from(number)));
        }
        let id = self.identify(frame)?;
        if port == OUT {
            let (ip, payload) = Ipv4::parse(packet).ok()?;
            let source = match ip.protocol() {
                protocol::TCP => Tcp::parse(payload).ok()?.0.source(),
                _ => Udp::parse(payload).ok()?.0.source(),
            };
            self.flows.get_mut(id.flow as usize)?.exterior = Some(SocketAddrV4::new(ip.source(), source));
        }
        None
    }

    fn shard(&self, id: PacketId, shards: u16) -> u16 {
        let number = match id.flow.checked_sub(ARP) {
            Some(number) => number as u16,
            None => self.flows.get(id.flow as usize).map_or(0, |flow| u16::from(flow.host)),
        };
        (number - u16::from(NUMBER_MIN).min(number)) % shards
    }
}
