//! A gateway on a bench: cells on one side, the outside on the other.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use core::net::{Ipv4Addr, SocketAddrV4};
use slim_core::nf::testing::TestEnvironment;
use slim_core::nf::{NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::{ETHERNET_LEN, MacAddr, OwnedPacket, PacketBuf, emit};
use slim_core::time::Instant;
use slim_gateway::statelet::Subscriber;
use slim_gateway::tag::Tag;
use slim_gateway::{Config, Drop, Gateway};

pub const CELLS_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 1, 1]);
pub const ROUTER_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 1, 2]);
pub const INTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 1]);
pub const EXTERIOR_MAC: MacAddr = MacAddr([0x02, 0x51, 0x1a, 0, 0, 2]);
pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, 10), 7);

pub fn config() -> Config {
    Config {
        interior_address: "10.1.0.1/24".parse().unwrap(),
        interior_mac: INTERIOR_MAC,
        cells_mac: CELLS_MAC,
        exterior_address: "10.2.0.1/24".parse().unwrap(),
        exterior_mac: EXTERIOR_MAC,
        router_mac: ROUTER_MAC,
        subscribers_max: 100,
        subscriber_timeout_s: 60,
    }
}

/// Subscriber number `n`.
pub fn subscriber(n: u8) -> Subscriber {
    Subscriber { address: Ipv4Addr::new(10, 1, 0, n), port: 5000 + u16::from(n) }
}

fn udp(source_mac: MacAddr, destination_mac: MacAddr, source: SocketAddrV4, destination: SocketAddrV4) -> Vec<u8> {
    let mut frame = vec![0; 128];
    let ends = emit::Ends { source_mac, destination_mac, source, destination };
    let len = emit::udp(&mut frame, &ends, b"payload").unwrap();
    frame.truncate(len);
    frame
}

fn socket(subscriber: Subscriber) -> SocketAddrV4 {
    SocketAddrV4::new(subscriber.address, subscriber.port)
}

/// A packet of a subscriber to the server, without a tag.
pub fn untagged(from: Subscriber) -> Vec<u8> {
    udp(CELLS_MAC, INTERIOR_MAC, socket(from), SERVER)
}

/// A packet of a subscriber to the server, from `cell`, with a hand-over unless `to` is 0.
pub fn from_cell(from: Subscriber, cell: u16, to: u16) -> Vec<u8> {
    let mut packet = OwnedPacket::new(untagged(from));
    Tag { cell, hand_over_to: (to != 0).then_some(to) }.insert(&mut packet).unwrap();
    let frame = packet.bytes_mut();
    frame[..6].copy_from_slice(&INTERIOR_MAC.0);
    frame[6..12].copy_from_slice(&CELLS_MAC.0);
    packet.into_inner()
}

/// A packet of the server to a subscriber.
pub fn from_outside(to: Subscriber) -> Vec<u8> {
    udp(ROUTER_MAC, EXTERIOR_MAC, SERVER, socket(to))
}

pub struct Lab {
    pub gateway: Gateway,
    pub env: TestEnvironment,
}

impl Lab {
    pub fn new(config: &Config) -> Self {
        let gateway = Gateway::new(config, Shard::ONLY, 1).unwrap();
        Self { gateway, env: TestEnvironment::new(Instant::from_millis(5_000)) }
    }

    /// What becomes of a frame that arrives on `port`.
    pub fn process(&mut self, port: PortId, frame: &[u8]) -> Result<(PortId, Vec<u8>), Drop> {
        let mut packet = OwnedPacket::from(frame);
        match self.gateway.process(&mut self.env, port, &mut packet) {
            Verdict::Transmit(port) => Ok((port, packet.into_inner())),
            Verdict::Drop(reason) => Err(Drop::ALL[usize::from(reason)]),
            Verdict::Consumed => panic!("the gateway keeps nothing"),
        }
    }

    /// The cell that a packet from outside is sent to.
    pub fn cell_of(&mut self, to: Subscriber) -> Result<u16, Drop> {
        let (port, frame) = self.process(slim_gateway::OUT, &from_outside(to))?;
        assert_eq!(port, slim_gateway::IN);
        Ok(Tag::parse(&frame[ETHERNET_LEN..]).expect("tagged").cell)
    }

    /// Types and lengths of the statelets announced since the last call.
    pub fn announced(&mut self) -> Vec<(u16, usize)> {
        let statelets = self.env.take_statelets().into_iter();
        statelets.map(|statelet| (statelet.statelet_type, statelet.value.len())).collect()
    }
}
