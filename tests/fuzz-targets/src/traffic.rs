//! Traffic for a NAT with small tables: frames that mostly mean something, and time.

use crate::input::Input;
use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::nf::law::Step;
use slim_core::nf::{NetworkFunction, PortId, Shard};
use slim_core::packet::{ArpOperation, Ipv4, MacAddr, TcpFlags, emit};
use slim_core::time::Duration;
use slim_nat::{Config, Nat};

/// The port towards the interior hosts.
pub const IN: PortId = PortId(0);
/// The port towards the servers.
pub const OUT: PortId = PortId(1);

const INTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]);
const EXTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 2]);
const INTERIOR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const EXTERIOR: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 254);
const BEYOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// The first exterior port; there are eight.
const PORT_FIRST: u16 = 2000;

/// A NAT whose every table fills up after a few packets.
pub fn config() -> Config {
    let network = |text: &str| text.parse().expect("an address with its prefix length");
    Config {
        exterior_gateway: Some(GATEWAY),
        sessions_max: 12,
        hosts_max: 3,
        arp_entries_max: 9,
        sessions_per_host_max: Some(6),
        port_first: PORT_FIRST,
        port_last: PORT_FIRST + 7,
        host_timeout_s: 400,
        ..Config::new(network("10.1.0.1/24"), INTERIOR_MAC, network("10.2.0.1/24"), EXTERIOR_MAC)
    }
}

/// A NAT with empty state.
pub fn nat(seed: u64) -> Nat {
    Nat::new(&config(), Shard::ONLY, seed).expect("a valid configuration")
}

fn mac_of(address: Ipv4Addr) -> MacAddr {
    let [_, b, c, d] = address.octets();
    MacAddr([0x02, 0xaa, 0, b, c, d])
}

fn own(port: PortId) -> (MacAddr, Ipv4Addr) {
    if port == IN { (INTERIOR_MAC, INTERIOR) } else { (EXTERIOR_MAC, EXTERIOR) }
}

fn host(input: &mut Input<'_>) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + input.below(4) as u8)
}

fn server(input: &mut Input<'_>) -> Ipv4Addr {
    input.one_of(&[Ipv4Addr::new(10, 2, 0, 10), Ipv4Addr::new(10, 2, 0, 11), BEYOND, GATEWAY])
}

/// The sockets of a packet: from a host to a server, or from a server to the NAT.
fn sockets(input: &mut Input<'_>, port: PortId) -> (SocketAddrV4, SocketAddrV4) {
    let server = SocketAddrV4::new(server(input), 80 + input.below(2) as u16);
    if port == IN {
        (SocketAddrV4::new(host(input), 5000 + input.below(3) as u16), server)
    } else {
        (server, SocketAddrV4::new(EXTERIOR, PORT_FIRST + input.below(8) as u16))
    }
}

fn ends(port: PortId, source: SocketAddrV4, destination: SocketAddrV4) -> emit::Ends {
    emit::Ends { source_mac: mac_of(*source.ip()), destination_mac: own(port).0, source, destination }
}

fn udp(input: &mut Input<'_>, port: PortId) -> Vec<u8> {
    let (source, destination) = sockets(input, port);
    let payload = [7; 4];
    let mut frame = vec![0xa5; emit::UDP_PAYLOAD_AT + payload.len()];
    emit::udp(&mut frame, &ends(port, source, destination), &payload).expect("there is room");
    frame
}

fn tcp(input: &mut Input<'_>, port: PortId) -> Vec<u8> {
    let (source, destination) = sockets(input, port);
    let (syn, ack, fin, rst) = (TcpFlags::SYN.0, TcpFlags::ACK.0, TcpFlags::FIN.0, TcpFlags::RST.0);
    let flags = match input.below(8) {
        7 => input.byte(),
        choice => [syn, syn | ack, ack, ack, fin | ack, rst, rst | ack][choice],
    };
    let fields = emit::TcpFields { sequence: 7, acknowledgement: 9, flags: TcpFlags(flags), window: 1000 };
    let mut frame = vec![0xa5; emit::TCP_PAYLOAD_AT];
    emit::tcp(&mut frame, &ends(port, source, destination), &fields, &[]).expect("there is room");
    frame
}

/// A query, an answer, or an error about a packet that may have been sent.
fn icmp(input: &mut Input<'_>, port: PortId) -> Vec<u8> {
    let (source, destination) = sockets(input, port);
    let message_type = input.one_of(&[8, 0, 3, 11, 12, 13, 8, 0]);
    let identifier = (PORT_FIRST + input.below(8) as u16).to_be_bytes();
    let fields = emit::IcmpFields {
        message_type,
        code: input.one_of(&[0, 0, 1, 4]),
        rest: [identifier[0], identifier[1], 0, 1],
    };
    let subject = match input.below(4) {
        0 => vec![7; 8],
        1 => tcp(input, if port == IN { OUT } else { IN }).split_off(14),
        _ => udp(input, if port == IN { OUT } else { IN }).split_off(14),
    };
    let mut frame = vec![0xa5; emit::ICMP_PAYLOAD_AT + subject.len()];
    emit::icmp(&mut frame, &ends(port, source, destination), &fields, &subject).expect("there is room");
    frame
}

fn arp(input: &mut Input<'_>, port: PortId) -> Vec<u8> {
    let operation = input.one_of(&[ArpOperation::Reply, ArpOperation::Request]);
    let sender = if port == IN { host(input) } else { server(input) };
    let (destination_mac, address) = own(port);
    let sender = if input.one_in(16) { address } else { sender };
    let target = if input.one_in(8) { sender } else { address };
    let source_mac = if input.one_in(8) { MacAddr(input.array()) } else { mac_of(sender) };
    let [source, destination] = [sender, target].map(|address| SocketAddrV4::new(address, 0));
    let mut frame = vec![0xa5; 60];
    emit::arp(&mut frame, operation, &emit::Ends { source_mac, destination_mac, source, destination })
        .expect("there is room");
    frame
}

/// Changes a few bytes anywhere, and may make the IPv4 header's checksum right again.
fn damage(input: &mut Input<'_>, mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..=input.below(3) {
        let at = input.below(frame.len().max(1));
        if let Some(byte) = frame.get_mut(at) {
            *byte = input.byte();
        }
    }
    if input.flag()
        && let Some(packet) = frame.get_mut(14..)
        && let Ok((mut header, _)) = Ipv4::parse_mut(packet)
    {
        header.fill_checksum();
    }
    if input.flag() {
        frame.truncate(input.below(64));
    }
    frame
}

/// A frame and the port it arrives on.
pub fn packet(input: &mut Input<'_>) -> (PortId, Vec<u8>) {
    let kind = input.byte();
    let port = if kind & 0x80 == 0 { IN } else { OUT };
    let frame = match kind & 7 {
        0 | 1 => udp(input, port),
        2..=4 => tcp(input, port),
        5 if kind & 0x40 != 0 => icmp(input, port),
        5 | 6 => arp(input, port),
        _ => {
            let len = input.below(128);
            return (port, input.bytes(len).to_vec());
        }
    };
    let frame = if kind & 0x18 == 0x18 { damage(input, frame) } else { frame };
    (port, frame)
}

/// At most `count` steps: mostly packets shortly after each other, sometimes a long time.
pub fn steps(input: &mut Input<'_>, count: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < count {
        let pause = match input.byte() {
            short @ 0..200 => Duration::from_millis(short.into()),
            long @ 200..240 => Duration::from_secs(u64::from(long - 199) * 10),
            very_long => Duration::from_secs(u64::from(very_long - 239) * 600),
        };
        let packet = (!input.one_in(16)).then(|| packet(input));
        steps.push(Step { pause, packet });
    }
    steps
}

/// No table holds more than it may, and none of its ports is in use twice.
///
/// # Panics
/// If one does.
pub fn expect_bounded(nat: &Nat) {
    let gauges = nat.gauges();
    let value = |name: &str| gauges.iter().find(|gauge| gauge.name == name).expect("a gauge").value;
    for (used, capacity) in [
        ("sessions", "sessions_capacity"),
        ("mappings", "mappings_capacity"),
        ("hosts", "hosts_capacity"),
        ("arp_entries", "arp_entries_capacity"),
        ("udp_ports_used", "ports_per_protocol"),
        ("tcp_ports_used", "ports_per_protocol"),
    ] {
        assert!(value(used) <= value(capacity), "{used} = {} of {}", value(used), value(capacity));
    }
    assert!(value("mappings") <= value("sessions"), "a mapping outlives its sessions");
}
