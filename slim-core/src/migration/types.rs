//! What goes into the coordinator and what comes out.

use crate::protocol::control::{
    ControlError, InstanceEvent, InstanceReply, InstanceRequest, MigrationReport, MigrationRole, PrepareOptions,
    StartOptions, SwitchEvent, SwitchReply, SwitchRequest,
};
use crate::protocol::{DestinationPhase, Failure, MigrationId, Name, Nonce, SourcePhase, Text};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What a migration is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorParameters {
    /// The migration, chosen at random by the driver.
    pub migration: MigrationId,
    /// The nonce of the drain packets, chosen at random by the driver. The next number is the rollback's.
    pub nonce: Nonce,
    /// The live instance.
    pub source: Name,
    /// The idle instance that is to take over.
    pub destination: Name,
    /// Options for the destination.
    pub prepare: PrepareOptions,
    /// Options for the source.
    pub start: StartOptions,
    /// The longest each phase may take.
    pub timeouts: CoordinatorTimeouts,
}

impl CoordinatorParameters {
    /// The nonce of the drain packets that follow a redirect back.
    pub fn rollback_nonce(&self) -> Nonce {
        Nonce(self.nonce.0.wrapping_add(1))
    }
}

/// The longest each of the coordinator's phases may take, and how often it asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorTimeouts {
    /// Asking everyone who they are.
    pub check_ms: u32,
    /// Until the destination is armed.
    pub prepare_ms: u32,
    /// Until the destination has caught up.
    pub transfer_ms: u32,
    /// Until the switch has redirected.
    pub redirect_ms: u32,
    /// Until the destination has taken over and the source is released.
    pub drain_ms: u32,
    /// Until both final reports are there.
    pub finish_ms: u32,
    /// Each step of undoing a migration.
    pub undo_ms: u32,
    /// How long the switch holds packets for the source while the destination hands back.
    pub hold_ms: u32,
    /// How often the instances are asked for their status, in case an event got lost.
    pub status_interval_ms: u32,
    /// How soon a request to a party that could not be reached is repeated.
    pub retry_interval_ms: u32,
}

impl Default for CoordinatorTimeouts {
    fn default() -> Self {
        Self {
            check_ms: 5_000,
            prepare_ms: 5_000,
            transfer_ms: 180_000,
            redirect_ms: 5_000,
            drain_ms: 60_000,
            finish_ms: 15_000,
            undo_ms: 8_000,
            hold_ms: 3_000,
            status_interval_ms: 500,
            retry_interval_ms: 200,
        }
    }
}

impl CoordinatorTimeouts {
    /// The time-out of a phase; `None` if it has none.
    pub(super) fn of(&self, phase: CoordinatorPhase) -> Option<Duration> {
        interval(match phase {
            CoordinatorPhase::Checking => self.check_ms,
            CoordinatorPhase::Preparing => self.prepare_ms,
            CoordinatorPhase::Transferring => self.transfer_ms,
            CoordinatorPhase::Redirecting => self.redirect_ms,
            CoordinatorPhase::Draining => self.drain_ms,
            CoordinatorPhase::Finishing => self.finish_ms,
            CoordinatorPhase::AbortingSource
            | CoordinatorPhase::Resolving
            | CoordinatorPhase::RedirectingBack
            | CoordinatorPhase::AbortingDestination
            | CoordinatorPhase::HandingBack => self.undo_ms,
            CoordinatorPhase::Completed | CoordinatorPhase::RolledBack | CoordinatorPhase::Unresolved => 0,
        })
    }
}

/// A time that may be without bound, which is 0.
pub(super) fn interval(interval_ms: u32) -> Option<Duration> {
    (interval_ms > 0).then(|| Duration::from_millis(u64::from(interval_ms)))
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// `src_inst`.
    Source,
    /// `dst_inst`.
    Destination,
    /// The switch.
    Switch,
}

impl From<MigrationRole> for Party {
    fn from(role: MigrationRole) -> Self {
        match role {
            MigrationRole::Source => Self::Source,
            MigrationRole::Destination => Self::Destination,
        }
    }
}

/// Where a migration stands as the controller sees it.
///
/// ```text
/// checking → preparing → transferring → redirecting → draining → finishing → completed
///    │           │             │             │            │ ▲
///    └───────────┴── failure, abort ─────────┴────────────┘ │ the commit point turns out to have been passed
///                              ▼                            │
///    aborting_source ─┬────────────────────────► redirecting_back → aborting_destination → handing_back → rolled_back
///                     │ committed, or unreachable       ▲
///                     └► resolving ─────────────────────┘ the destination did not take over
///                            └──────────────────────────► unresolved: nobody who knows can be reached
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoordinatorPhase {
    /// Asking instances and switch who they are, comparing.
    Checking,
    /// The destination arms `pkt_q`.
    Preparing,
    /// Snapshot and statelets are under way; the destination has not caught up yet.
    Transferring,
    /// The switch moves the paths.
    Redirecting,
    /// Waiting for the source's end and the destination's take-over.
    Draining,
    /// The destination is live; waiting for reports and digests.
    Finishing,
    /// Undo: the source is to go on alone.
    AbortingSource,
    /// Undo: the source has committed or cannot be asked; finding out whether the destination has taken over.
    Resolving,
    /// Undo: the switch moves the paths back.
    RedirectingBack,
    /// Undo: the destination is to give up.
    AbortingDestination,
    /// Undo: the destination returns the packets it holds.
    HandingBack,
    /// The destination is live, the source released.
    Completed,
    /// The source is live as before.
    RolledBack,
    /// Somebody has to act.
    Unresolved,
}

// Their names on the wire are their names for people too.
impl fmt::Display for CoordinatorPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One request to one party; its reply carries the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call(pub u32);

/// Something the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoordinatorAction {
    /// Send this request to an instance; give the reply back with the same call.
    Instance {
        /// Which one.
        role: MigrationRole,
        /// The call.
        call: Call,
        /// The request.
        request: InstanceRequest,
    },
    /// Send this request to the switch; give the reply back with the same call.
    Switch {
        /// The call.
        call: Call,
        /// The request.
        request: SwitchRequest,
    },
    /// For logs and whoever watches: a phase has been entered.
    PhaseEntered(CoordinatorPhase),
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The party answered: no.
    #[error("refused: {0}")]
    Refused(ControlError),
    /// There is no connection, or it broke before the reply. The request may or may not have been carried out.
    #[error("unreachable: {0}")]
    Unreachable(Text),
}

/// Something the driver has learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoordinatorEvent {
    /// An instance's reply.
    InstanceReply {
        /// The call.
        call: Call,
        /// The reply, or why there is none.
        result: Result<InstanceReply, CallError>,
    },
    /// The switch's reply.
    SwitchReply {
        /// The call.
        call: Call,
        /// The reply, or why there is none.
        result: Result<SwitchReply, CallError>,
    },
    /// An instance's event; those of other migrations are ignored.
    Instance {
        /// Which one.
        role: MigrationRole,
        /// The event.
        event: InstanceEvent,
    },
    /// The switch's event; those of other migrations are ignored.
    Switch(SwitchEvent),
    /// A connection has been opened again; events may have been lost meanwhile.
    Connected(Party),
}

/// How a migration ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The destination has taken over.
    Completed {
        /// The source's report, if it could be had.
        source: Option<Box<MigrationReport>>,
        /// The destination's report, if it could be had.
        destination: Option<Box<MigrationReport>>,
        /// Whether the source's digest at its end equals the destination's at take-over, if both are known.
        digests_equal: Option<bool>,
        /// What was not as it should be, such as a source that could not be told.
        remark: Option<Text>,
    },
    /// The source goes on as if nothing had been.
    RolledBack {
        /// Why.
        failure: Failure,
        /// The source's report, if it could be had.
        source: Option<Box<MigrationReport>>,
        /// The destination's report, if it could be had.
        destination: Option<Box<MigrationReport>>,
        /// What was not as it should be, such as a destination that could not be told.
        remark: Option<Text>,
    },
    /// Whether state and packets are in good hands is not known.
    Unresolved {
        /// Why it came to this.
        failure: Failure,
        /// What an operator should do.
        what_to_do: Text,
    },
}

/// How long the coordinator spent in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorPhaseDuration {
    /// The phase.
    pub phase: CoordinatorPhase,
    /// Its duration, in microseconds.
    pub duration_us: u64,
}

/// A migration as it goes, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The migration.
    pub migration: MigrationId,
    /// The present phase.
    pub phase: CoordinatorPhase,
    /// How long it has lasted.
    pub in_phase: Duration,
    /// Each phase so far, the present one included.
    pub phases: Vec<CoordinatorPhaseDuration>,
    /// The source's phase, as last heard.
    pub source: Option<SourcePhase>,
    /// The destination's phase, as last heard.
    pub destination: Option<DestinationPhase>,
    /// The source's last report.
    pub source_report: Option<Box<MigrationReport>>,
    /// The destination's last report.
    pub destination_report: Option<Box<MigrationReport>>,
    /// Why the migration is being undone, if it is.
    pub failure: Option<Failure>,
}
