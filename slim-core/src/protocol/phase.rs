//! The phases of a migration as each instance sees them, and why one may fail.

use crate::protocol::Text;
use alloc::format;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Where `src_inst` stands in a migration.
///
/// ```text
/// connecting → freezing → transferring → draining → stopping → flushing ─┬─► committed ─┬─► released
///     │            │           │            │           │         │      │              └─► unacknowledged
///     └────────────┴───────────┴─ any failure ──────────┴─────────┴► rolling_back ─► rolled_back
///                                                                        │
///                                                            the commit point
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourcePhase {
    /// Opening the streams and waiting for the destination to accept each handshake.
    Connecting,
    /// Every lcore freezes and sets `upd_enable`, both in one step between two bursts.
    Freezing,
    /// The snapshot is being sent, statelets beside it.
    Transferring,
    /// The snapshot has been sent; waiting for the drain packet of every path.
    Draining,
    /// Every drain packet has been seen; the lcores empty their receive queues and transmit what they hold.
    Stopping,
    /// The dataplane has stopped; the rest of `st_q_out` is being sent.
    Flushing,
    /// The end records are on their way: only the destination can now go on. Waiting for its acknowledgement.
    Committed,
    /// Committed, but the stream broke or fell silent before the acknowledgement. Waits for the controller's word.
    Unacknowledged,
    /// The destination has taken over; this instance forwards nothing more.
    Released,
    /// Live again; waiting until streams and lcores have let go of the migration.
    RollingBack,
    /// Live again, nothing is left of the migration.
    RolledBack,
}

/// Where `dst_inst` stands in a migration.
///
/// ```text
/// arming → armed → installing → synchronising → redirecting → taking_over → live
///    │       │         │             │               │            │
///    └───────┴─────────┴── failure ──┴───────────────┘       the commit point
///                          ▼
///            failed ── abort ─┬─► handing_back ─┬─► discarding ──► discarded
///                             └─────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationPhase {
    /// The lcores empty stale receive rings and switch to `pkt_q`.
    Arming,
    /// `pkt_q` and `st_q_in` only enqueue; waiting for the streams.
    Armed,
    /// Receiving and installing the snapshot; statelets wait in `st_q_in`.
    Installing,
    /// The snapshot is installed; catching up with `st_q_in`.
    Synchronising,
    /// `st_q_in` ran empty for the first time and the redirect was asked for; waiting for the end records.
    Redirecting,
    /// Everything has arrived and is installed; the lcores process `pkt_q`.
    TakingOver,
    /// `pkt_q` is empty: an ordinary live instance.
    Live,
    /// The migration cannot succeed any more. Still holds `pkt_q` until the controller says what to do.
    Failed,
    /// Returns `pkt_q` to the switch, as soon as no more packets can arrive.
    HandingBack,
    /// Letting go of streams and state.
    Discarding,
    /// Nothing of the migration is left; of no use until reset.
    Discarded,
}

// Their names on the wire are their names for people too.
impl fmt::Display for SourcePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for DestinationPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// An instance's phase together with its side of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "role", content = "phase", rename_all = "snake_case")]
pub enum MigrationPhase {
    /// Of `src_inst`.
    Source(SourcePhase),
    /// Of `dst_inst`.
    Destination(DestinationPhase),
}

/// Why a migration failed, as a code for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The operator, or the controller on its own account, gave up.
    Aborted,
    /// Kind, schema, version or shards of the two instances differ.
    Incompatible,
    /// The destination may not have the memory that the state and its queues can take.
    MemoryShort,
    /// A request was refused by an instance or the switch.
    Refused,
    /// The destination refused a stream's handshake.
    StreamRefused,
    /// A stream could not be opened, broke, or ended without its end record.
    StreamLost,
    /// `st_q_out` was full: statelets came faster than the stream took them.
    StateletOverflow,
    /// `st_q_in` was full before the snapshot had been installed.
    StateletBacklog,
    /// `pkt_q` was nearly full before the take-over.
    PacketBacklog,
    /// The switch got no acknowledgement of a drain packet.
    DrainLost,
    /// A record or chunk could not be decoded, or its checksum was wrong.
    StreamCorrupt,
    /// The snapshot did not fit or did not validate.
    SnapshotRejected,
    /// A statelet could not be installed.
    StateletRejected,
    /// Count or checksum of the end record differ from what arrived.
    EndMismatch,
    /// A phase took longer than its time-out.
    TimeOut,
    /// Committed, and the acknowledgement did not come: an operator or controller has to resolve it.
    Unacknowledged,
    /// A party could not be reached.
    Unreachable,
    /// A party's answer contradicts the protocol.
    Protocol,
    /// A reason this version does not know.
    #[serde(other)]
    Other,
}

/// A failure: a code for programs and words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind of failure.
    pub code: FailureCode,
    /// The detail.
    pub message: Text,
}

impl Failure {
    /// A failure with its detail.
    pub fn new(code: FailureCode, message: impl Into<Text>) -> Self {
        Self { code, message: message.into() }
    }

    /// `party` was longer than `timeout` in a phase.
    pub fn time_out(party: &str, phase: impl fmt::Display, timeout: Option<Duration>) -> Self {
        let timeout_ms = timeout.unwrap_or_default().as_millis();
        Self::new(FailureCode::TimeOut, format!("{party} was longer than {timeout_ms} ms in phase {phase}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_str())
    }
}
