//! The traffic: UDP sessions of many hosts, in an order that caches do not like, both directions alike.

use super::wire::{FRAME_LEN, Line, Wire};
use crate::clock::Clock;
use anyhow::{Context, Result, anyhow, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use slim_core::nf::{NetworkFunction, PortId, Shard};
use slim_core::packet::{ArpOperation, MacAddr, emit};
use slim_core::vei::lcore::{Command, Lcore};
use slim_nat::{Config, Nat};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Sessions per host. Each has an interior port of its own, and thereby a mapping and a binding.
const SESSIONS_PER_HOST: usize = 100;

const INSIDE: PortId = PortId(0);
const OUTSIDE: PortId = PortId(1);
const INTERIOR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const EXTERIOR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const NEIGHBOUR_MAC: MacAddr = MacAddr([2, 3, 0, 0, 0, 9]);
const INTERIOR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const EXTERIOR: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 255, 254);
const SERVER_PORT: u16 = 443;

/// Seeds of hash tables and of random choices: runs repeat.
const SEED: u64 = 0x5eed;

/// The lcore of an image, with memory for ports.
pub type Core = Lcore<Nat, Wire>;

/// How many hosts so many sessions are of.
pub const fn hosts_of(sessions: usize) -> usize {
    sessions.div_ceil(SESSIONS_PER_HOST)
}

/// The configuration for so many sessions: as many exterior addresses as that takes, with a few ports to spare.
pub fn config(sessions: usize, addresses: usize) -> Result<Config> {
    let network = |address: Ipv4Addr| format!("{address}/16").parse().map_err(|error: String| anyhow!(error));
    let mut config = Config::new(network(INTERIOR)?, INTERIOR_MAC, network(EXTERIOR)?, EXTERIOR_MAC);
    config.exterior_gateway = Some(GATEWAY);
    if addresses > 1 {
        let last = Ipv4Addr::from_bits(EXTERIOR.to_bits() + addresses as u32 - 1);
        let range = format!("10.2.0.2-{last}").parse().map_err(|error: String| anyhow!(error))?;
        config.exterior_pool = vec![range];
    }
    config.sessions_max = u32::try_from(sessions)?.max(1024);
    config.hosts_max = u32::try_from(hosts_of(sessions))? + 64;
    config.arp_entries_max = config.hosts_max + 64;
    Ok(config)
}

/// How many exterior addresses so many sessions need.
pub const fn addresses_for(sessions: usize) -> usize {
    // Three quarters of 64,512 ports, so that pairing finds room for a whole host.
    sessions / 48_000 + 1
}

/// An instance with this configuration, without state.
pub fn empty(config: &Config) -> Result<Box<Nat>> {
    Ok(Box::new(Nat::new(config, Shard::ONLY, SEED)?))
}

/// An lcore that processes packets with a NAT that has `sessions` sessions, and the traffic of those sessions.
pub fn lcore(clock: &Clock, config: &Config, sessions: usize) -> Result<Core> {
    let mut core = Lcore::new(clock.now(), Shard::ONLY, 1 << 20, Wire::new());
    core.pass(clock.now(), Some(Command::Activate(empty(config)?)));
    neighbours(clock, &mut core, hosts_of(sessions))?;
    let outbound: Vec<Line> = (0..sessions).map(opening).collect::<Result<_>>()?;
    let mut inbound = Vec::with_capacity(sessions);
    for frame in &outbound {
        inbound.push(answer(&open(clock, &mut core, frame)?)?);
    }
    let mut rng = SmallRng::seed_from_u64(SEED);
    for (port, mut frames) in [(INSIDE, outbound), (OUTSIDE, inbound)] {
        frames.shuffle(&mut rng);
        core.io_mut().feed(port, frames);
    }
    Ok(core)
}

/// Makes all hosts and the gateway known to the NAT.
pub fn neighbours(clock: &Clock, core: &mut Core, hosts: usize) -> Result<()> {
    for number in 0..hosts {
        learn(clock, core, INSIDE, host(number))?;
    }
    learn(clock, core, OUTSIDE, GATEWAY)
}

/// The address of a host.
fn host(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(INTERIOR.to_bits() + 1 + number as u32)
}

/// The first packet of session `number`.
pub fn opening(number: usize) -> Result<Line> {
    let source = SocketAddrV4::new(host(number / SESSIONS_PER_HOST), 20_000 + (number % SESSIONS_PER_HOST) as u16);
    // Servers of 8192 addresses.
    let server = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + (number * 7919 % 8192) as u32);
    frame(INTERIOR_MAC, source, SocketAddrV4::new(server, SERVER_PORT))
}

/// Passes one frame through the lcore and returns what it transmitted.
pub fn open(clock: &Clock, core: &mut Core, frame: &Line) -> Result<Line> {
    let before = core.io().fates.transmitted;
    core.io_mut().keeps_last = true;
    single(clock, core, INSIDE, *frame);
    core.io_mut().keeps_last = false;
    ensure!(core.io().fates.transmitted == before + 1, "the NAT did not open a session: {:?}", core.io().fates);
    Ok(core.io().last)
}

fn single(clock: &Clock, core: &mut Core, port: PortId, frame: Line) {
    let wire = core.io_mut();
    wire.feed(port, vec![frame]);
    wire.supply(port, 1);
    core.pass(clock.now(), None);
}

fn learn(clock: &Clock, core: &mut Core, port: PortId, address: Ipv4Addr) -> Result<()> {
    let mut line = [0; 64];
    let (mac, own) = if port == INSIDE { (INTERIOR_MAC, INTERIOR) } else { (EXTERIOR_MAC, EXTERIOR) };
    let ends = emit::Ends {
        source_mac: NEIGHBOUR_MAC,
        destination_mac: mac,
        source: SocketAddrV4::new(address, 0),
        destination: SocketAddrV4::new(own, 0),
    };
    emit::arp(&mut line, ArpOperation::Reply, &ends)?;
    let before = core.io().fates.consumed;
    single(clock, core, port, line);
    ensure!(core.io().fates.consumed == before + 1, "the NAT did not learn {address}: {:?}", core.io().fates);
    Ok(())
}

/// The answer to a frame that the NAT has translated.
fn answer(translated: &Line) -> Result<Line> {
    let at = |at: usize| -> Result<u16> {
        let bytes = translated.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).context("a short frame")?;
        Ok(u16::from_be_bytes(bytes))
    };
    let address = |first: usize| -> Result<Ipv4Addr> {
        Ok(Ipv4Addr::from_bits(u32::from(at(first)?) << 16 | u32::from(at(first + 2)?)))
    };
    let exterior = SocketAddrV4::new(address(26)?, at(34)?);
    let server = SocketAddrV4::new(address(30)?, at(36)?);
    frame(EXTERIOR_MAC, server, exterior)
}

fn frame(to: MacAddr, source: SocketAddrV4, destination: SocketAddrV4) -> Result<Line> {
    let mut line = [0x5a; 64];
    let ends = emit::Ends { source_mac: NEIGHBOUR_MAC, destination_mac: to, source, destination };
    emit::udp_around(&mut line, &ends, FRAME_LEN - emit::UDP_PAYLOAD_AT)?;
    Ok(line)
}
