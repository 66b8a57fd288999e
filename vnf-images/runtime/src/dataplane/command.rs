//! What the management thread asks of an lcore, and what the lcore reports: the contract of
//! [`LcoreCommand`](slim_core::vei::LcoreCommand) with the values that change hands.
//!
//! Ownership does the mutual exclusion of §IV-C: a network function belongs either to the management side, which
//! installs statelets, or to the lcore, which processes packets, and it moves between them in these messages.

use dpdk::Waker;
use slim_core::nf::{Gauge, ShardId};
use slim_core::protocol::MigrationId;
use slim_core::table::FrozenItem;
use slim_core::vei::LcoreEvent;

/// The isolated state of one shard.
pub type Frozen = Vec<Box<dyn FrozenItem>>;

/// A command to an lcore, carried out between two bursts.
pub enum Command<F> {
    /// Process packets with this state.
    Activate(Box<F>),
    /// Freeze, and announce statelets into this `st_q_out` from the same step on.
    Freeze(rtrb::Producer<u8>),
    /// Process what has arrived, transmit it, and stop.
    Stop,
    /// Process packets as before the migration.
    Resume,
    /// Give the state away; hand back what still arrives.
    Release(MigrationId),
    /// Put packets into `pkt_q` from now on.
    ArmPktQ,
    /// Process `pkt_q` with this state, then packets.
    TakeOver(Box<F>),
    /// Hand `pkt_q` back to the switch.
    HandBack(MigrationId),
    /// Throw `pkt_q` away.
    Discard,
    /// Forget everything.
    Reset,
    /// Tell the network function's gauges.
    Gauges,
    /// Transmit what is queued and leave the loop.
    End,
}

/// What an lcore reports.
pub enum Report<F> {
    /// An event for the state machines.
    Event(LcoreEvent),
    /// The state as it was frozen, for the snapshot. Followed by the event `Frozen`.
    Snapshot(Frozen),
    /// The state at the source's end or the destination's take-over, for the digest.
    Digest(Frozen),
    /// The network function's gauges; none without a network function.
    Gauges(Vec<Gauge>),
    /// A network function the lcore has no more use for, to be dropped where that takes no lcore's time.
    Retired(Box<F>),
}

/// The management thread's end of an lcore.
pub struct LcoreHandle<F> {
    /// The shard that the lcore owns.
    pub shard: ShardId,
    commands: rtrb::Producer<Command<F>>,
    waker: Option<Waker>,
}

/// More commands than an lcore is ever given at a time were left unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lcore of shard {} does not take commands", .0.0)]
pub struct Unresponsive(pub ShardId);

/// Commands that may wait for an lcore. It looks at least every few milliseconds.
pub const COMMANDS_MAX: usize = 64;

impl<F> LcoreHandle<F> {
    /// The handle of the lcore that reads `commands` and sleeps until `waker` is used, if it sleeps that deeply.
    pub fn new(shard: ShardId, commands: rtrb::Producer<Command<F>>, waker: Option<Waker>) -> Self {
        Self { shard, commands, waker }
    }

    /// Gives the lcore a command; it acts on commands in their order.
    pub fn command(&mut self, command: Command<F>) -> Result<(), Unresponsive> {
        self.commands.push(command).map_err(|_| Unresponsive(self.shard))?;
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        Ok(())
    }
}
