//! What the VEI's machines ask of their driver, and what the driver tells them.
//!
//! The driver of an image has one lcore and one pair of streams per shard. It carries out every [`Action`] in the order
//! [`poll_action`](super::Instance::poll_action) yields them; commands to one lcore keep their order. Whatever an lcore
//! or stream answers comes back as an [`Event`].

use crate::nf::ShardId;
use crate::protocol::control::{
    DestinationTimeouts, InstanceEvent, Pace, PktQTotals, SnapshotTotals, SourceTimeouts, StateletTotals,
    WorkloadTotals,
};
use crate::protocol::inband::Drain;
use crate::protocol::stream::{End, Rejection, StreamRole};
use crate::protocol::{Digest, FailureCode, MigrationId, MigrationPhase, Mode, Text};

/// Something the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A command for the lcore that owns a shard.
    Lcore {
        /// The shard.
        shard: ShardId,
        /// The command.
        command: LcoreCommand,
    },
    /// A command for the threads that own a shard's streams.
    Stream {
        /// The shard.
        shard: ShardId,
        /// The command.
        command: StreamCommand,
    },
    /// Tell the controller.
    Notify(InstanceEvent),
}

/// A command to an lcore.
///
/// | command to an lcore | the lcore then | and answers |
/// | --- | --- | --- |
/// | `Activate` | gets a network function with empty state and processes packets | |
/// | `Freeze` | between two bursts, in one step: freezes all state and sets `upd_enable`; hands the frozen items to the snapshot sender; announces statelets, or whole packets, or drops packets from then on, by the [`Mode`]; puts what exceeds its pace, if it is given one, into `pkt_q` and processes that in its time | `Frozen` |
/// | `Stop` | goes on until `pkt_q` is empty and a poll of every receive queue finds it empty, transmits what it holds, stops processing, clears `upd_enable`, freezes once more for the digest; later arrivals go to `pkt_q` | `Stopped` |
/// | `Resume` | clears `upd_enable`, lets go of frozen state, processes `pkt_q` in order, then what arrives | `Resumed` |
/// | `Release` | hands back `pkt_q` and whatever still arrives | |
/// | `ArmPktQ` | discards what lies stale in the receive rings, then puts all that arrives into `pkt_q` | `PktQArmed` |
/// | `TakeOver` | is given the network function, freezes it for the digest, processes `pkt_q` in order, then what arrives | `PktQDrained` |
/// | `HandBack` | hands back `pkt_q`, then whatever still arrives, and sends a hand-back end on every port | `HandedBack` |
/// | `Discard` | empties `pkt_q`, counting, and drops what arrives | `Discarded` |
/// | `Reset` | drops the network function, forgets the migration, drops what arrives | |
///
/// In every role an lcore answers a drain packet with its acknowledgement on the same port at once, and reports it with
/// `Drain`; the machines decide whether it counts. Whenever `pkt_q` is nearly full it says so, once, with `PktQNearlyFull`:
/// before the commit point that undoes the migration while there is room for what arrives until then; after it the
/// rest of `pkt_q` is used, and what does not fit is dropped and counted, as by any network function under overload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LcoreCommand {
    /// Process packets with empty state.
    Activate,
    /// Freeze and set `upd_enable`, in one step between two bursts; let packets leave at this pace from then on.
    Freeze(Mode, Option<Pace>),
    /// Process what has arrived, transmit it, and stop.
    Stop,
    /// Process packets as before the migration, those in `pkt_q` at this pace.
    Resume(Option<Pace>),
    /// Hand back whatever arrives from now on.
    Release(MigrationId),
    /// Put packets into `pkt_q` from now on.
    ArmPktQ,
    /// Process `pkt_q` at this pace, then packets.
    TakeOver(Option<Pace>),
    /// Hand `pkt_q` back to the switch at this pace.
    HandBack(MigrationId, Option<Pace>),
    /// Throw `pkt_q` away.
    Discard,
    /// Forget everything.
    Reset,
}

/// A command to the threads that own a shard's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamCommand {
    /// Source: connect to the destination, send [`handshake`](super::Source::handshake), read the reply. Answered by
    /// `Accepted`, `Refused` or `Lost`.
    Connect(StreamRole),
    /// Source: send the frozen state, then close the snapshot stream. Answered by `SnapshotSent`.
    SendSnapshot,
    /// Source: send whatever enters `st_q_out`, filling segments first.
    SendStatelets,
    /// Source: the lcore has stopped; send what is left in `st_q_out`. Answered by `Flushed`.
    Flush,
    /// Source: **the commit point.** Send this end record, then read the acknowledgement. Answered by `TakenOver`.
    SendEnd(End),
    /// Destination: apply what `st_q_in` holds and whatever enters it. Answered by `Applied` at once, each time
    /// `st_q_in` has run empty, and now and then in between.
    ApplyStatelets,
    /// Destination: send the acknowledgement on the statelet stream.
    SendTakenOver,
    /// Close the shard's streams if they are open, and let go of frozen or half-installed state. Answered by `Closed`.
    ///
    /// At a rollback it follows `Resumed`, so what the lcore froze has been handed over by then and goes too.
    Close,
}

/// Something that happened to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its lcore reports.
    Lcore {
        /// The shard.
        shard: ShardId,
        /// The report.
        event: LcoreEvent,
    },
    /// Its streams report.
    Stream {
        /// The shard.
        shard: ShardId,
        /// The report.
        event: StreamEvent,
    },
    /// The digest of its state at the source's end or the destination's take-over has been computed.
    ///
    /// The driver drops those that belong to an earlier migration.
    Digest {
        /// The shard.
        shard: ShardId,
        /// The digest.
        digest: Digest,
    },
}

/// What an lcore reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LcoreEvent {
    /// Frozen, and announcing.
    Frozen,
    /// `st_q_out` was full: a statelet could not be announced, `upd_enable` is clear again.
    StateletOverflow,
    /// A drain packet has arrived (and been acknowledged).
    Drain(Drain),
    /// Stopped; nothing more will be announced.
    Stopped(LcoreTotals),
    /// Processing again, all of `pkt_q` included.
    Resumed,
    /// Stale packets are gone; what arrives goes to `pkt_q`.
    PktQArmed,
    /// Three quarters of `pkt_q` are used; told once per migration.
    PktQNearlyFull,
    /// All of `pkt_q` has been processed; packets are processed as they arrive.
    PktQDrained(PktQTotals),
    /// All of `pkt_q` has been handed back and every port's end sent.
    HandedBack(PktQTotals),
    /// `pkt_q` is empty and nothing more enters it.
    Discarded(PktQTotals),
}

/// What an lcore did from freeze to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LcoreTotals {
    /// Statelets announced (`segments` is not the lcore's to count).
    pub statelets: StateletTotals,
    /// Packets processed meanwhile.
    pub workload: WorkloadTotals,
}

/// What a shard's streams report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Source: the destination accepted the handshake.
    Accepted(StreamRole),
    /// Source: the destination refused the handshake.
    Refused(StreamRole, Rejection),
    /// Source: the snapshot and its closing record have been sent.
    SnapshotSent(SnapshotTotals),
    /// Source: every announced statelet has been sent.
    Flushed {
        /// What the end record must say.
        end: End,
        /// What was sent.
        totals: StateletTotals,
    },
    /// Source: the destination acknowledged that it has taken over.
    TakenOver,
    /// Destination: the snapshot is complete, valid and installed.
    SnapshotInstalled(SnapshotTotals),
    /// Destination: statelets have been applied.
    Applied {
        /// How many so far, all together.
        records: u64,
        /// How many were left in `st_q_in`.
        left: u64,
    },
    /// Destination: the end record has arrived; everything before it is in `st_q_in` or applied.
    EndReceived {
        /// What the end record says.
        end: End,
        /// What arrived before it.
        received: End,
        /// What arrived, for the report.
        totals: StateletTotals,
    },
    /// The stream could not be opened, broke, or ended before its end record.
    Lost(StreamRole, Text),
    /// Destination: what the stream carried is unacceptable.
    Rejected(FailureCode, Text),
    /// Both streams are closed and their threads idle.
    Closed,
}

/// Why the machine did not accept an event or a request. Its state has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VeiError {
    /// There is no such shard.
    #[error("there is no shard {}", .0.0)]
    UnknownShard(ShardId),
    /// The event cannot happen in this phase, or not twice.
    #[error("{event} in phase {phase:?} of shard {}", shard.0)]
    Unexpected {
        /// The shard.
        shard: ShardId,
        /// The phase.
        phase: MigrationPhase,
        /// The event.
        event: &'static str,
    },
    /// No migration is going on.
    #[error("{0} outside of a migration")]
    NoMigration(&'static str),
    /// The commit point has been passed.
    #[error("the migration has passed its commit point")]
    Committed,
    /// The commit point has not been reached, so there is nothing to resolve.
    #[error("the migration has not reached its commit point")]
    NotCommitted,
}

impl LcoreEvent {
    /// The event's name, for errors and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::StateletOverflow => "statelet overflow",
            Self::Drain(_) => "drain",
            Self::Stopped(_) => "stopped",
            Self::Resumed => "resumed",
            Self::PktQArmed => "pkt_q armed",
            Self::PktQNearlyFull => "pkt_q nearly full",
            Self::PktQDrained(_) => "pkt_q drained",
            Self::HandedBack(_) => "handed back",
            Self::Discarded(_) => "discarded",
        }
    }
}

impl StreamEvent {
    /// The event's name, for errors and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "stream accepted",
            Self::Refused(..) => "stream refused",
            Self::SnapshotSent(_) => "snapshot sent",
            Self::Flushed { .. } => "flushed",
            Self::TakenOver => "taken over",
            Self::SnapshotInstalled(_) => "snapshot installed",
            Self::Applied { .. } => "statelets applied",
            Self::EndReceived { .. } => "end received",
            Self::Lost(..) => "stream lost",
            Self::Rejected(..) => "stream rejected",
            Self::Closed => "streams closed",
        }
    }
}

impl SourceTimeouts {
    /// The time-out of a phase; `None` if it has none.
    pub(super) fn of(&self, phase: crate::protocol::SourcePhase) -> Option<core::time::Duration> {
        use crate::protocol::SourcePhase as Phase;
        duration(match phase {
            Phase::Connecting => self.connect_ms,
            Phase::Freezing => self.freeze_ms,
            Phase::Transferring => self.snapshot_ms,
            Phase::Draining => self.drain_ms,
            Phase::Stopping => self.stop_ms,
            Phase::Flushing => self.flush_ms,
            Phase::Committed => self.take_over_ms,
            Phase::Released => self.digest_ms,
            Phase::Unacknowledged | Phase::RollingBack | Phase::RolledBack => 0,
        })
    }
}

impl DestinationTimeouts {
    /// The time-out of a phase; `None` if it has none.
    pub(super) fn of(&self, phase: crate::protocol::DestinationPhase) -> Option<core::time::Duration> {
        use crate::protocol::DestinationPhase as Phase;
        duration(match phase {
            Phase::Arming => self.arm_ms,
            Phase::Armed => self.connect_ms,
            Phase::Installing => self.install_ms,
            Phase::Synchronising => self.synchronise_ms,
            Phase::Redirecting => self.redirect_ms,
            Phase::HandingBack => self.hand_back_ms,
            Phase::Live => self.digest_ms,
            Phase::TakingOver | Phase::Failed | Phase::Discarding | Phase::Discarded => 0,
        })
    }
}

fn duration(timeout_ms: u32) -> Option<core::time::Duration> {
    (timeout_ms > 0).then(|| core::time::Duration::from_millis(u64::from(timeout_ms)))
}
