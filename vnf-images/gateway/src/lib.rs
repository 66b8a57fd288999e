//! A mobile packet gateway as in §VI-C of the paper: a simple one, of no standard.
//!
//! Subscribers are in cells and move between them. Each of their packets carries a [tag] with the cell it comes from and,
//! while a hand-over is under way, the cell it goes to. The gateway takes the tag off, forwards the packet, and tags
//! packets from outside with the subscriber's present cell. A hand-over has effect with the packet that announces it.
//!
//! ```text
//! cells ── tag(cell, hand-over) IPv4 ──► in ┌─────────┐ out ── IPv4 ──► router
//!       ◄─ tag(cell) IPv4 ──────────────    │ gateway │     ◄─ IPv4 ──
//!                                           └─────────┘
//! ```
//!
//! A subscriber is an address *and port*, as the paper has it. There is one shard: packets of a subscriber would
//! otherwise have to be told apart by hardware that knows the tag.
//!
//! - [`config`]: what the operator sets.
//! - [`tag`], [`statelet`]: formats.
//! - [`state`]: who is where.
//! - `forward`: packets.
//! - [`drops`]: why packets are dropped.

#![forbid(unsafe_code)]

pub mod config;
pub mod drops;
mod forward;
pub mod state;
pub mod statelet;
pub mod tag;

pub use config::Config;
pub use drops::Drop;

use slim_core::nf::{
    self, ConfigError, Environment, Gauge, InstallError, NetworkFunction, PortId, Shard, TICK, Ticker, Verdict,
};
use slim_core::packet::{MacAddr, PacketBuf};
use slim_core::statelet::Coalescing;
use slim_core::table::{ScanCursor, StateItem};
use slim_core::time::Instant;
use state::{Association, State};
use statelet::{Statelet, Subscriber};

/// The port towards the cells.
pub const IN: PortId = PortId(0);

/// The port towards the outside.
pub const OUT: PortId = PortId(1);

/// The most places of the table looked at in one tick, and the most subscribers detached.
const SLOTS_PER_CALL: usize = 256;
const DETACHED_PER_CALL: usize = 16;

/// A mobile packet gateway.
pub struct Gateway {
    config: Config,
    state: State,
    // What follows is each host's own affair and no state of the function.
    ticker: Ticker,
    /// What this host's clock shows; the state's shows when it was last told to others.
    ticks: u32,
    /// Where the search for silent subscribers is, while there is one.
    sweep: Option<ScanCursor>,
    totals: Totals,
}

/// Totals of this instance. Not state: they begin at zero at each, as the drop counters do.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    attached: u64,
    hand_overs: u64,
    detached: u64,
}

/// Announces a state change that has just been made.
fn announce<E: Environment>(env: &mut E, statelet: &Statelet) {
    if env.upd_enable() {
        let encoded = statelet.encode();
        env.announce(encoded.statelet_type(), encoded.value());
    }
}

impl Gateway {
    /// Where a subscriber is.
    pub fn association(&self, subscriber: Subscriber) -> Option<Association> {
        self.state.association(subscriber).copied()
    }

    #[inline]
    fn advance_clock<E: Environment>(&mut self, env: &mut E) {
        if let Some(ticks) = self.ticker.advance(env.now(), self.ticks) {
            self.ticks = ticks;
            self.sweep.get_or_insert_default();
        }
    }

    /// The age from which an association that has not changed is announced again: its subscriber is still there.
    fn renewal_s(&self) -> u32 {
        self.config.subscriber_timeout_s / 4
    }

    /// Takes note of the cell a subscriber's packet came with.
    #[inline]
    fn locate<E: Environment>(&mut self, env: &mut E, subscriber: Subscriber, cell: u16) -> Result<(), Drop> {
        match self.state.association(subscriber) {
            Some(known) if known.cell == cell && self.ticks.saturating_sub(known.last_seen) < self.renewal_s() => {
                Ok(())
            }
            known => {
                let known = known.copied();
                self.associate(env, subscriber, cell, known)
            }
        }
    }

    #[cold]
    fn associate<E: Environment>(
        &mut self,
        env: &mut E,
        subscriber: Subscriber,
        cell: u16,
        known: Option<Association>,
    ) -> Result<(), Drop> {
        let hand_overs = match known {
            Some(known) if known.cell == cell => known.hand_overs,
            Some(known) => known.hand_overs.saturating_add(1),
            None => 0,
        };
        let association = Association { cell, hand_overs, last_seen: self.ticks };
        self.state.associate(subscriber, association).map_err(|_| Drop::SubscribersFull)?;
        match known {
            Some(known) => self.totals.hand_overs += u64::from(known.cell != cell),
            None => self.totals.attached += 1,
        }
        announce(env, &Statelet::Association(subscriber, association));
        Ok(())
    }

    /// Detaches some of those that have been silent for too long.
    #[cold]
    fn sweep<E: Environment>(&mut self, env: &mut E, mut cursor: ScanCursor) {
        let mut slots = SLOTS_PER_CALL;
        for _ in 0..DETACHED_PER_CALL {
            let timeout = self.config.subscriber_timeout_s;
            let Some(subscriber) = self.state.find_silent(&mut cursor, &mut slots, self.ticks, timeout) else { break };
            if self.state.detach(subscriber, self.ticks) {
                self.totals.detached += 1;
                announce(env, &Statelet::Detach { subscriber, ticks: self.ticks });
            }
        }
        // At its end a scan puts the cursor back to the start.
        self.sweep = (cursor != ScanCursor::default()).then_some(cursor);
    }
}

impl NetworkFunction for Gateway {
    const KIND: &'static str = "gateway";
    const SCHEMA: u64 = 1;
    const PORTS: &'static [&'static str] = &["in", "out"];
    const DROP_REASONS: &'static [&'static str] = Drop::NAMES;
    const SUBSCRIBER_COUNTERS: &'static [&'static str] = &["hand_overs", "cell", "port"];

    type Config = Config;

    fn new(config: &Config, shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        if shard.count != 1 {
            return Err(ConfigError(format!("the gateway runs on one lcore, not {}: give it one vCPU", shard.count)));
        }
        Ok(Self {
            config: config.clone(),
            state: State::new(config, seed),
            ticker: Ticker::default(),
            ticks: 0,
            sweep: None,
            totals: Totals::default(),
        })
    }

    fn mac(config: &Config, port: PortId) -> Option<MacAddr> {
        match port {
            IN => Some(config.interior_mac),
            OUT => Some(config.exterior_mac),
            _ => None,
        }
    }

    #[inline]
    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        self.advance_clock(env);
        self.forward(env, port, packet).unwrap_or_else(Verdict::from)
    }

    #[inline]
    fn tick<E: Environment>(&mut self, env: &mut E) {
        self.advance_clock(env);
        if let Some(cursor) = self.sweep {
            self.sweep(env, cursor);
        }
    }

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        self.state.install(statelet_type, &Statelet::decode(statelet_type, value)?)
    }

    fn coalescing(statelet_type: u16, _value: &[u8]) -> Coalescing {
        statelet::coalescing(statelet_type)
    }

    fn take_over(&mut self, now: Instant) {
        self.ticks = self.state.clock();
        self.ticker.rebase(now, self.ticks);
        self.sweep = Some(ScanCursor::default());
    }

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        self.state.for_each(f);
    }

    fn gauges(&self) -> Vec<Gauge> {
        let subscribers = self.state.subscribers();
        let gauge = |name, value| Gauge { name, value };
        vec![
            gauge("subscribers", subscribers.len() as u64),
            gauge("subscribers_capacity", subscribers.capacity() as u64),
            gauge("attached", self.totals.attached),
            gauge("hand_overs", self.totals.hand_overs),
            gauge("detached", self.totals.detached),
            gauge("clock_s", u64::from(self.ticks) * TICK.as_secs()),
        ]
    }

    fn subscribers(&self, cursor: &mut ScanCursor) -> Vec<nf::Subscriber> {
        let mut slots = SLOTS_PER_CALL;
        let mut subscribers = Vec::with_capacity(SLOTS_PER_CALL);
        while let Some((key, association)) = self.state.subscribers().scan(cursor, &mut slots, |_, _| true) {
            let counters = [association.hand_overs.into(), association.cell.into(), key.port.into()];
            let address = Subscriber::from(key).address;
            subscribers.push(nf::Subscriber { address, counters: counters.into_iter().collect() });
        }
        subscribers
    }
}
