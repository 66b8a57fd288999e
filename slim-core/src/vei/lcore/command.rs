//! What the management side asks of an lcore, and what the lcore reports: [`LcoreCommand`](crate::vei::LcoreCommand)
//! with the values that change hands.
//!
//! Ownership does the mutual exclusion of §IV-C: a network function belongs either to the management side, which
//! installs statelets, or to the lcore, which processes packets, and it moves between them in these messages.

use crate::nf::{Gauge, Subscriber};
use crate::protocol::control::Pace;
use crate::protocol::{MigrationId, Mode};
use crate::statelet::DropTotals;
use crate::table::{FrozenItem, ScanCursor};
use crate::time::Duration;
use crate::vei::LcoreEvent;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The isolated state of one shard.
pub type Frozen = Vec<Box<dyn FrozenItem>>;

/// What an lcore says of the packets that it processes after the freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcing {
    /// What changes state, in statelets.
    Statelets,
    /// The packets themselves, so that they can be processed once more; random choices follow from `seed`.
    Packets {
        /// A random number.
        seed: u64,
    },
    /// Nothing, for it processes none: it drops them.
    Nothing,
}

impl Announcing {
    /// What goes with `mode`. `seed` is a random number.
    pub const fn of(mode: Mode, seed: u64) -> Self {
        match mode {
            Mode::Statelet | Mode::Buffer => Self::Statelets,
            Mode::Duplicate => Self::Packets { seed },
            Mode::StopAndCopy => Self::Nothing,
        }
    }
}

/// A network function that has everything from its source.
pub struct Synchronised<F> {
    /// The network function.
    pub nf: Box<F>,
    /// What the source has dropped; `None` if it has dropped nothing.
    pub drops: Option<Box<DropTotals>>,
}

/// A command to an lcore, carried out between two bursts.
pub enum Command<F> {
    /// Process packets with this state.
    Activate(Box<F>),
    /// Freeze, and announce into this `st_q_out` from the same step on; packets that come closer together than at this
    /// pace wait in `pkt_q`.
    Freeze(rtrb::Producer<u8>, Announcing, Option<Pace>),
    /// Process what has arrived, transmit it, and stop.
    Stop,
    /// Process packets as before the migration, those in `pkt_q` at this pace.
    Resume(Option<Pace>),
    /// Give the state away; hand back what still arrives.
    Release(MigrationId),
    /// Put packets into `pkt_q` from now on.
    ArmPktQ,
    /// Process `pkt_q` with this state and at this pace, then packets; go on counting drops from these totals.
    TakeOver(Synchronised<F>, Option<Pace>),
    /// Hand `pkt_q` back to the switch at this pace.
    HandBack(MigrationId, Option<Pace>),
    /// Throw `pkt_q` away.
    Discard,
    /// Forget everything.
    Reset,
    /// Tell the network function's gauges.
    Gauges,
    /// List some subscribers from here on.
    Subscribers(ScanCursor),
    /// Count for so long what would be announced, and tell the present state.
    Sample(Duration),
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
    /// The state at the beginning of a sample, for its size.
    Sample(Frozen),
    /// The network function's gauges; none without a network function.
    Gauges(Vec<Gauge>),
    /// Subscribers, and where to go on, which is the begin after the last; none without a network function.
    Subscribers(Vec<Subscriber>, ScanCursor),
    /// A network function the lcore has no more use for, to be dropped where that takes no lcore's time.
    Retired(Box<F>),
    /// A command that cannot be carried out without a network function, which the state machines never give then.
    Impossible(&'static str),
}
