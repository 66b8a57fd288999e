//! The trait a network function implements.
//!
//! A network function is a struct of [state items](crate::table::StateItem) plus three functions of the paper's §III:
//! [`process`](NetworkFunction::process) is f, what it passes to [`Environment::announce`] is g, and
//! [`install`](NetworkFunction::install) is h. For all states s and packets p they must satisfy the law
//! `f(s, p) == h(s, g(s, p))`. Snapshots, adoption and digests follow from
//! [`for_each_state`](NetworkFunction::for_each_state) alone.
//!
//! With the feature `testing`, [`law::check`](law) tests a network function against the law.
//!
//! # Example
//!
//! This is all of a network function that counts packets per source address:
//!
//! ```
#![doc = include_str!("nf/source_counter.rs")]
//!
//! # fn main() {}
//! ```

mod drops;
mod event;
mod interface;
#[cfg(any(test, feature = "testing"))]
pub mod law;
#[cfg(test)]
pub(crate) mod source_counter;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod ticker;

use crate::packet::{MacAddr, PacketBuf};
use crate::statelet::{Coalesce, Coalescing};
use crate::table::{ScanCursor, StateItem};
use crate::time::Instant;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

pub use event::{EVENT_LEN_MAX, LogEvent};
pub use interface::InterfaceAddress;
pub use ticker::{TICK, Ticker};

/// A logical dataplane interface of a network function, counted from 0 in the order of its configuration.
///
/// State refers to ports by this number, never by a device name, so that it means the same on every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u8);

/// The most dataplane interfaces a network function can have.
pub const PORTS_MAX: usize = 8;

/// A shard: the part of a network function's state that one lcore owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Which shard a network function is created for, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// This shard.
    pub id: ShardId,
    /// The number of shards, at least 1.
    pub count: u16,
}

impl Shard {
    /// The only shard of an instance with a single lcore.
    pub const ONLY: Self = Self { id: ShardId(0), count: 1 };
}

/// What the dataplane offers to a network function while it handles one packet.
///
/// Monomorphised into the packet loop: nothing here is dynamically dispatched.
pub trait Environment {
    /// The time of the current burst.
    fn now(&self) -> Instant;

    /// The paper's `upd_enable`: whether statelets are wanted at present. Check it before building a statelet.
    fn upd_enable(&self) -> bool;

    /// Announces one statelet (`upd_out`). Does nothing unless [`upd_enable`](Self::upd_enable) holds.
    ///
    /// A full `st_q_out` is the environment's concern: it aborts the migration, the network function goes on.
    /// `statelet_type` must be below [`STATELET_TYPE_RESERVED`]; `value` holds at most 65,535 bytes.
    fn announce(&mut self, statelet_type: u16, value: &[u8]);

    /// Sends a frame of the network function's own making, such as an ARP request, out of `port`.
    fn emit(&mut self, port: PortId, frame: &[u8]);

    /// Records an event for the operator, where there is a log: `process` and `tick` do it, `install` never.
    ///
    /// A full log is the environment's concern: it counts what it loses.
    #[inline]
    fn log(&mut self, _event: &LogEvent) {}
}

/// Statelet types from here upwards belong to the stream itself.
pub const STATELET_TYPE_RESERVED: u16 = crate::statelet::TYPE_RESERVED;

/// Reasons for a drop that a network function can have, at most.
pub const DROP_REASONS_MAX: usize = 64;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it, as it is now, out of this port.
    Transmit(PortId),
    /// It was meant for the network function itself and has been dealt with.
    Consumed,
    /// Drop it and count this reason, an index into [`NetworkFunction::DROP_REASONS`].
    Drop(u16),
}

/// Why a statelet could not be installed. The migration is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// This network function has no statelet of this type.
    #[error("unknown statelet type {0:#06x}")]
    UnknownType(u16),
    /// The value does not have the length or content its type demands.
    #[error("malformed value of {len} bytes for statelet type {statelet_type:#06x}")]
    Malformed {
        /// The statelet's type.
        statelet_type: u16,
        /// The value's length in bytes.
        len: usize,
    },
    /// A table has no room for what the statelet adds.
    #[error("table {table} is full")]
    TableFull {
        /// The table's name.
        table: &'static str,
    },
    /// The statelet contradicts the state it is applied to.
    #[error("statelet type {0:#06x} does not follow from the present state")]
    Inconsistent(u16),
}

/// A configuration that cannot be used, with the reason in words an operator understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Counters that a network function keeps for each subscriber, at most.
pub const SUBSCRIBER_COUNTERS_MAX: usize = 12;

/// A subscriber and its counters, for status reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its counters, as [`NetworkFunction::SUBSCRIBER_COUNTERS`] names them.
    pub counters: heapless::Vec<u64, SUBSCRIBER_COUNTERS_MAX>,
}

/// One counter of a network function, for status reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauge {
    /// What is counted, in `snake_case` with its unit last, such as `sessions` or `table_capacity`.
    pub name: &'static str,
    /// Its present value.
    pub value: u64,
}

/// A network function: state, and the three functions of §III over it.
pub trait NetworkFunction: Send + Sized + 'static {
    /// The kind's name in commands, images and handshakes, such as `nat`.
    const KIND: &'static str;

    /// A number that changes whenever the meaning or layout of state or statelets does.
    ///
    /// Both ends of a migration compare it before anything is sent.
    const SCHEMA: u64;

    /// The dataplane interfaces in order, such as `["in", "out"]`. At most [`PORTS_MAX`].
    const PORTS: &'static [&'static str];

    /// The reasons for [`Verdict::Drop`], each a counter's name in `snake_case`. At most [`DROP_REASONS_MAX`].
    ///
    /// The counters go on at the destination of a migration: another order or number of reasons is another
    /// [`SCHEMA`](Self::SCHEMA).
    const DROP_REASONS: &'static [&'static str];

    /// What is counted for each subscriber, each a name in `snake_case`, the most telling first. At most
    /// [`SUBSCRIBER_COUNTERS_MAX`].
    const SUBSCRIBER_COUNTERS: &'static [&'static str] = &[];

    /// The configuration, the kind's own section of the instance's TOML file.
    ///
    /// Written out again, it says what is in force, defaults included.
    type Config: serde::de::DeserializeOwned + serde::Serialize + Clone + Send + 'static;

    /// A function with empty state. `seed` keys its hash tables and random choices.
    fn new(config: &Self::Config, shard: Shard, seed: u64) -> Result<Self, ConfigError>;

    /// The MAC address that frames on `port` must have to be of use, broadcasts apart; `None` if any may be.
    ///
    /// A NIC may keep all others from it, so packets of no use then are neither seen nor counted.
    fn mac(_config: &Self::Config, _port: PortId) -> Option<MacAddr> {
        None
    }

    /// Processes a packet that arrived on `port` (f), announcing each change of state it makes (g).
    ///
    /// Any bytes may arrive; none may cause a panic. Time is `env.now()`, nothing else.
    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict;

    /// Is shown the packets that will be processed next, so that what they need of the state can be on its way from memory
    /// before the first of them is; see [`SegmentedTable::prefetch`](crate::table::SegmentedTable::prefetch).
    ///
    /// Any bytes may be shown, also packets that will not be processed after all. Changes nothing, and by default does
    /// nothing.
    #[inline]
    fn prefetch<P: PacketBuf>(&self, _port: PortId, _packets: &[P]) {}

    /// Lets time pass: expires a bounded amount of state, announcing each change.
    ///
    /// The dataplane calls it between bursts, at least every few milliseconds.
    fn tick<E: Environment>(&mut self, env: &mut E);

    /// Announces totals that are no state and yet are to go on at the destination, such as counters in
    /// [`gauges`](Self::gauges): called once at a source, after its last packet. `install` sets them there.
    ///
    /// Must not change anything. What packets or the digest depend on has to be announced when it changes.
    fn conclude<E: Environment>(&self, _env: &mut E) {}

    /// Applies a statelet (h). Never sends anything.
    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError>;

    /// What may be done with a statelet that waits to be sent together with others; see
    /// [`Coalescer`](crate::statelet::Coalescer).
    ///
    /// By default none is touched. The law must hold for what is merged too, as [`law::check`](law) tests.
    fn coalescing(_statelet_type: u16, _value: &[u8]) -> Coalescing {
        Coalescing::Barrier
    }

    /// Makes `earlier` say what both statelets say; see [`Coalesce::merge`]. By default the later one replaces it.
    fn merge(_statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
        let mergeable = earlier.len() == later.len();
        if mergeable {
            earlier.copy_from_slice(later);
        }
        mergeable
    }

    /// Called at take-over, after the last statelet, before the first packet: `now` is the new host's clock.
    ///
    /// State that holds instants of the old host's clock is rebased here. Must not change the digest.
    fn take_over(&mut self, now: Instant);

    /// From here on its sense of time and its random choices are those of any other instance that has the same state
    /// and is aligned to the same: the same packets at the same times lead both to the same state.
    ///
    /// Only the mode `duplicate` needs that, which has packets processed twice. A network function that makes random
    /// choices which become state has to follow `seed` here. Must not change the digest.
    fn align(&mut self, now: Instant, _seed: u64) {
        self.take_over(now);
    }

    /// Calls `f` for each part of the state, always all of them in the same order.
    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem));

    /// What an event that was logged says: the members of a JSON object, such as `"event":"lent","port":7`. `None` if it
    /// says nothing. Not for the packet path.
    fn describe(_event: &LogEvent) -> Option<String> {
        None
    }

    /// Present sizes and totals for status reports. May allocate; not for the packet path.
    fn gauges(&self) -> Vec<Gauge>;

    /// Lists subscribers from `cursor` on, a bounded number of them, and moves it on; it is at the begin again when all
    /// have been listed. Each that is there throughout is listed once. By default there are none.
    ///
    /// Called between two bursts: a call should take no more than some 10 µs. May allocate.
    fn subscribers(&self, cursor: &mut ScanCursor) -> Vec<Subscriber> {
        *cursor = ScanCursor::default();
        Vec::new()
    }
}

impl<N: NetworkFunction> Coalesce for N {
    fn coalescing(statelet_type: u16, value: &[u8]) -> Coalescing {
        N::coalescing(statelet_type, value)
    }

    fn merge(statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
        N::merge(statelet_type, earlier, later)
    }
}
