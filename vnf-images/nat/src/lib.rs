//! Network address translation as in §VI-C of the paper: a NAT table, an ARP table and counters per interior host.
//!
//! Packets from the interior to the exterior network are masqueraded behind one exterior address. The crate is a pure
//! library: it implements [`NetworkFunction`], and everything else is the runtime's.
//!
//! - [`config`], [`rules`]: what the operator sets.
//! - [`types`], [`tables`], [`statelet`]: the words, what the tables hold, and how changes are announced.
//! - `state`: the tables and every transition of them, shared by processing (f) and installing (h).
//! - [`pool`], [`ports`], [`blocks`], [`allocator`], [`tcp`], `expiry`, [`settings`]: what the transitions need.
//! - `ahead`, `arp`, `translate`, `transport`, `icmp`, `answer`, `exclude`, [`fragments`], [`mtu`], `ident`,
//!   [`unsolicited`]: packets.
//! - [`events`]: what the operator's log is told.
//! - [`drops`], `gauges`, `totals`: why packets are dropped, and what else is counted.

#![forbid(unsafe_code)]

mod ahead;
pub mod allocator;
mod answer;
mod arp;
pub mod blocks;
pub mod config;
pub mod drops;
pub mod events;
mod exclude;
mod expiry;
pub mod fragments;
mod gauges;
mod icmp;
mod ident;
pub mod mtu;
pub mod pool;
pub mod ports;
pub mod rules;
pub mod settings;
mod state;
pub mod statelet;
pub mod tables;
pub mod tcp;
mod totals;
mod translate;
mod transport;
pub mod types;
pub mod unsolicited;

pub use config::Config;
pub use drops::Drop;

use answer::ErrorBudget;
use arp::AskLimiter;
use config::{Filtering, LogLevel};
use core::net::Ipv4Addr;
use events::Event;
use expiry::{Sweep, Timeouts};
use ident::Idents;
use rules::{Action, Exclusion};
use slim_core::nf::{
    ConfigError, Environment, Gauge, InstallError, InterfaceAddress, LogEvent, NetworkFunction, PortId, Shard,
    Subscriber, Ticker, Verdict,
};
use slim_core::packet::{ETHERNET_LEN, Ethernet, MacAddr, PacketBuf, ether_type};
use slim_core::statelet::Coalescing;
use slim_core::table::{ScanCursor, StateItem};
use slim_core::time::Instant;
use state::State;
use statelet::Statelet;
use tables::Host;
use totals::Totals;
use types::{Endpoint, Protocol, Side};

/// One of the NAT's own interfaces.
#[derive(Debug, Clone, Copy)]
struct Interface {
    mac: MacAddr,
    network: InterfaceAddress,
    /// The longest IPv4 packet that leaves there, in bytes.
    mtu: u16,
}

/// A network address translator, one shard of it.
pub struct Nat {
    state: State,
    interfaces: [Interface; 2],
    gateway: Option<Ipv4Addr>,
    filtering: Filtering,
    exclusions: Box<[Exclusion]>,
    sessions_per_host_max: Option<u32>,
    sessions_per_mapping_max: Option<u32>,
    ports_per_host_max: Option<u32>,
    log_level: LogLevel,
    timeouts: Timeouts,
    // What follows is each host's own affair and no state of the function.
    ticker: Ticker,
    sweep: Sweep,
    asks: AskLimiter,
    errors: ErrorBudget,
    idents: Idents,
    gateway_asked_at: Option<u32>,
    totals: Totals,
}

/// Announces a state change that has just been made.
#[inline(always)]
fn announce<E: Environment>(env: &mut E, statelet: &Statelet) {
    if env.upd_enable() {
        let encoded = statelet.encode();
        env.announce(encoded.statelet_type(), encoded.value());
    }
}

impl Nat {
    #[inline(always)]
    fn interface(&self, side: Side) -> &Interface {
        &self.interfaces[side.index()]
    }

    /// Whether `address` is the NAT's on a side.
    #[inline(always)]
    fn is_own(&self, side: Side, address: Ipv4Addr) -> bool {
        match side {
            Side::Interior => address == self.interface(side).network.address,
            Side::Exterior => self.state.pool.contains(address),
        }
    }

    /// The traffic of an interior host.
    pub fn host(&self, address: Ipv4Addr) -> Option<&Host> {
        self.state.hosts.get(&address.to_bits())
    }

    /// All interior hosts with their traffic, in no particular order.
    pub fn hosts(&self) -> impl Iterator<Item = (Ipv4Addr, &Host)> {
        self.state.hosts.iter().map(|(address, host)| (Ipv4Addr::from_bits(*address), host))
    }

    /// The exterior endpoint that an interior one is mapped to.
    pub fn mapping(&self, protocol: Protocol, interior: Endpoint) -> Option<Endpoint> {
        self.state.exterior_of(protocol, interior)
    }

    /// Lets the clock advance to `env.now()`.
    #[inline(always)]
    fn advance_clock<E: Environment>(&mut self, env: &mut E) {
        if let Some(ticks) = self.ticker.advance(env.now(), self.state.clock.get())
            && self.state.advance_clock(ticks).is_ok()
        {
            announce(env, &Statelet::Clock(ticks));
            self.sweep.request();
        }
    }

    #[inline(always)]
    fn try_process<P: PacketBuf, E: Environment>(
        &mut self,
        env: &mut E,
        port: PortId,
        packet: &mut P,
    ) -> Result<Verdict, Drop> {
        let side = Side::of_port(port).ok_or(Drop::UnknownPort)?;
        let (ethernet, payload) = Ethernet::parse_mut(packet.bytes_mut()).map_err(|_| Drop::FrameTooShort)?;
        let (destination, ether_type) = (ethernet.destination(), ethernet.ether_type());
        let to_own_mac = destination == self.interface(side).mac;
        match (ether_type, side) {
            (ether_type::IPV4, _) if !to_own_mac => Err(Drop::NotToOwnMac),
            (ether_type::IPV4, _) => {
                let verdict = if fragments::is_fragment(payload) {
                    self.process_fragment(env, side, packet)?
                } else {
                    self.process_ipv4(env, side, ethernet, payload)?
                };
                if let Verdict::Transmit(port) = verdict
                    && let Some(egress) = Side::of_port(port)
                    && self.is_too_long(packet.bytes(), egress)
                {
                    self.fragment(env, packet, egress);
                }
                Ok(verdict)
            }
            (ether_type::ARP, _) if !to_own_mac && destination != MacAddr::BROADCAST => Err(Drop::NotToOwnMac),
            (ether_type::ARP, _) => self.process_arp(env, side, ethernet, payload),
            _ => Err(Drop::NotIpv4),
        }
    }
}

impl Nat {
    /// A packet that is whole, or the first fragment of one.
    #[inline(always)]
    fn process_ipv4<E: Environment>(
        &mut self,
        env: &mut E,
        side: Side,
        ethernet: Ethernet<&mut [u8; ETHERNET_LEN]>,
        packet: &mut [u8],
    ) -> Result<Verdict, Drop> {
        if !self.exclusions.is_empty() {
            match self.exclusion(side, packet) {
                Some(Action::Exempt) => return self.route(env, side, ethernet, packet),
                Some(Action::Deny) => return Err(Drop::Denied),
                None => {}
            }
        }
        match side {
            Side::Interior => self.process_outbound(env, ethernet, packet),
            Side::Exterior => self.process_inbound(env, ethernet, packet),
        }
    }
}

impl NetworkFunction for Nat {
    const KIND: &'static str = "nat";
    const SCHEMA: u64 = 8;
    const PORTS: &'static [&'static str] = &["in", "out"];
    const DROP_REASONS: &'static [&'static str] = Drop::NAMES;
    const SUBSCRIBER_COUNTERS: &'static [&'static str] = gauges::SUBSCRIBER_COUNTERS;

    type Config = Config;

    fn new(config: &Config, shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            state: State::new(config, shard, seed)?,
            interfaces: Side::ALL.map(|side| Interface {
                mac: config.mac(side),
                network: config.address(side),
                mtu: config.mtu(side),
            }),
            gateway: config.exterior_gateway,
            filtering: config.filtering,
            exclusions: config.exclude.clone().into(),
            sessions_per_host_max: config.sessions_per_host_max,
            sessions_per_mapping_max: config.sessions_per_mapping_max,
            ports_per_host_max: config.ports_per_host_max,
            log_level: config.log,
            timeouts: Timeouts::new(config),
            ticker: Ticker::default(),
            sweep: Sweep::new(),
            asks: AskLimiter::new(seed),
            errors: ErrorBudget::default(),
            idents: Idents::default(),
            gateway_asked_at: None,
            totals: Totals::default(),
        })
    }

    fn mac(config: &Config, port: PortId) -> Option<MacAddr> {
        Side::of_port(port).map(|side| config.mac(side))
    }

    #[inline]
    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        self.advance_clock(env);
        self.try_process(env, port, packet).unwrap_or_else(|drop| {
            if let Some(side) = Side::of_port(port) {
                self.report_drop(env, side, packet.bytes(), drop);
                self.note_unsolicited(env, packet.bytes(), drop);
            }
            Verdict::from(drop)
        })
    }

    #[inline]
    fn prefetch<P: PacketBuf>(&self, port: PortId, packets: &[P]) {
        self.look_ahead(port, packets);
    }

    #[inline]
    fn tick<E: Environment>(&mut self, env: &mut E) {
        self.advance_clock(env);
        if !self.sweep.is_done() {
            let lost = self.sweep.run(&mut self.state, &self.timeouts, self.log_level, env);
            self.totals.held_fragments_lost += lost;
        }
        if !self.state.syns.is_empty() {
            self.answer_unsolicited(env);
        }
        self.look_after_gateway(env);
    }

    fn conclude<E: Environment>(&self, env: &mut E) {
        if env.upd_enable() && self.totals != Totals::default() {
            env.announce(Statelet::TOTALS, &self.totals.encode_value());
        }
    }

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        match statelet_type {
            Statelet::HOLD => self.state.install_held(value),
            Statelet::SYN => self.state.install_syn(value),
            Statelet::TOTALS => self.totals.install(value),
            _ => self.state.install(&Statelet::decode(statelet_type, value)?),
        }
    }

    fn coalescing(statelet_type: u16, _value: &[u8]) -> Coalescing {
        statelet::coalescing(statelet_type)
    }

    fn merge(statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
        statelet::merge(statelet_type, earlier, later)
    }

    fn take_over(&mut self, now: Instant) {
        self.state.index_ports();
        self.ticker.rebase(now, self.state.clock.get());
        self.idents.discard();
        self.sweep.request();
    }

    fn align(&mut self, now: Instant, seed: u64) {
        self.take_over(now);
        self.state.reseed_ports(seed);
    }

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        self.state.for_each(f);
    }

    fn describe(event: &LogEvent) -> Option<String> {
        Event::decode(event).map(|event| event.describe())
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.all_gauges()
    }
    fn subscribers(&self, cursor: &mut ScanCursor) -> Vec<Subscriber> {
        self.some_subscribers(cursor)
    }
}
