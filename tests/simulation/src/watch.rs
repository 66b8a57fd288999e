//! A network function that is watched: the same behaviour, and a journal of everything an lcore does with it.

use slim_core::nf::{
    ConfigError, Environment, Gauge, InstallError, NetworkFunction, PortId, Shard, Subscriber, Verdict,
};
use slim_core::packet::PacketBuf;
use slim_core::snapshot;
use slim_core::statelet::Coalescing;
use slim_core::table::{ScanCursor, StateItem};
use slim_core::time::Instant;
use std::cell::RefCell;

/// What an lcore did with its network function.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Gave it a packet.
    Processed { port: PortId, before: Vec<u8>, verdict: Verdict, after: Vec<u8> },
    /// Let time pass.
    Ticked,
    /// Aligned it, with the destination that processes its packets too.
    Aligned { seed: u64 },
    /// Took it over with this state.
    TakenOver { digest: u128 },
}

thread_local! {
    /// A world is one thread's, and takes the journal after each pass of an lcore.
    static JOURNAL: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Takes what has been written since it was last taken.
pub(crate) fn take_journal() -> Vec<Entry> {
    JOURNAL.with_borrow_mut(std::mem::take)
}

fn write(entry: Entry) {
    JOURNAL.with_borrow_mut(|journal| journal.push(entry));
}

/// `N`, watched.
pub(crate) struct Watched<N>(N);

impl<N: NetworkFunction> NetworkFunction for Watched<N> {
    const KIND: &'static str = N::KIND;
    const SCHEMA: u64 = N::SCHEMA;
    const PORTS: &'static [&'static str] = N::PORTS;
    const DROP_REASONS: &'static [&'static str] = N::DROP_REASONS;
    const SUBSCRIBER_COUNTERS: &'static [&'static str] = N::SUBSCRIBER_COUNTERS;
    type Config = N::Config;

    fn new(config: &N::Config, shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        N::new(config, shard, seed).map(Self)
    }

    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        let before = packet.bytes().to_vec();
        let verdict = self.0.process(env, port, packet);
        write(Entry::Processed { port, before, verdict, after: packet.bytes().to_vec() });
        verdict
    }

    fn tick<E: Environment>(&mut self, env: &mut E) {
        self.0.tick(env);
        write(Entry::Ticked);
    }

    fn conclude<E: Environment>(&self, env: &mut E) {
        self.0.conclude(env);
    }

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        self.0.install(statelet_type, value)
    }

    fn coalescing(statelet_type: u16, value: &[u8]) -> Coalescing {
        N::coalescing(statelet_type, value)
    }

    fn merge(statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
        N::merge(statelet_type, earlier, later)
    }

    fn take_over(&mut self, now: Instant) {
        self.0.take_over(now);
        write(Entry::TakenOver { digest: snapshot::digest(&snapshot::freeze(&mut self.0)) });
    }

    fn align(&mut self, now: Instant, seed: u64) {
        self.0.align(now, seed);
        write(Entry::Aligned { seed });
    }

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        self.0.for_each_state(f);
    }

    fn gauges(&self) -> Vec<Gauge> {
        self.0.gauges()
    }
    fn subscribers(&self, cursor: &mut ScanCursor) -> Vec<Subscriber> {
        self.0.subscribers(cursor)
    }
}
