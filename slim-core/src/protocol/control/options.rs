//! What a migration can be told beyond its two ends.

use super::Pace;
use crate::protocol::{Mode, Name, Scheduling};
use serde::{Deserialize, Serialize};

/// Options of `prepare`, for `dst_inst`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareOptions {
    /// How the state is kept up to date; the same as the source's.
    pub mode: Mode,
    /// What goes first on the link; the same as the source's.
    pub scheduling: Scheduling,
    /// The paper's *d*: the redirect is asked for at the first moment at most this many statelets are left in `st_q_in`.
    pub underrun_records: u64,
    /// The name of `src_inst`. Where peers are authenticated, nobody else may open the streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Name>,
    /// How fast `pkt_q` is emptied, by processing it or by handing it back; without, as fast as the lcores can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkt_q_pace: Option<Pace>,
    /// The longest each phase may take.
    pub timeouts: DestinationTimeouts,
}

/// Options of `start`, for `src_inst`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartOptions {
    /// How the state is kept up to date; the same as the destination's.
    pub mode: Mode,
    /// What goes first on the link; the same as the destination's.
    pub scheduling: Scheduling,
    /// Incompressible bytes added to the snapshot, discarded at the destination: a bigger state for measurements.
    pub filler_bytes: u64,
    /// The name of `dst_inst`. Where peers are authenticated, nobody else is given the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Name>,
    /// The longest a statelet waits for its segment to fill before it is sent.
    pub statelet_delay_us: u32,
    /// Whether statelets that a later one overwrites, or can be added to, are merged with it while both wait to be sent.
    pub coalesce: bool,
    /// Whether the statelet stream is compressed.
    pub compress: bool,
    /// The snapshot stream's pace; without it, as fast as TCP goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_rate_bytes_per_s: Option<u64>,
    /// How fast packets leave while the state moves, and `pkt_q` is emptied if the migration is undone; without, as fast as
    /// the lcores can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkt_q_pace: Option<Pace>,
    /// The longest each phase may take.
    pub timeouts: SourceTimeouts,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            scheduling: Scheduling::default(),
            filler_bytes: 0,
            destination: None,
            statelet_delay_us: 10_000,
            coalesce: true,
            compress: false,
            snapshot_rate_bytes_per_s: None,
            pkt_q_pace: None,
            timeouts: SourceTimeouts::default(),
        }
    }
}

/// The longest each phase of `src_inst` may take. 0 means without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTimeouts {
    /// Opening the streams and having them accepted.
    pub connect_ms: u32,
    /// The freeze of every shard.
    pub freeze_ms: u32,
    /// Sending the snapshot.
    pub snapshot_ms: u32,
    /// From the snapshot's end until every drain packet has been seen.
    pub drain_ms: u32,
    /// Emptying the receive queues.
    pub stop_ms: u32,
    /// Sending the rest of `st_q_out`.
    pub flush_ms: u32,
    /// From the end records to the destination's acknowledgement.
    pub take_over_ms: u32,
    /// Computing the digest afterwards; the report goes out without it then.
    pub digest_ms: u32,
}

impl Default for SourceTimeouts {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            freeze_ms: 2_000,
            snapshot_ms: 120_000,
            drain_ms: 30_000,
            stop_ms: 2_000,
            flush_ms: 10_000,
            take_over_ms: 10_000,
            digest_ms: 10_000,
        }
    }
}

/// The longest each phase of `dst_inst` may take. 0 means without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DestinationTimeouts {
    /// Emptying stale receive rings and arming `pkt_q`.
    pub arm_ms: u32,
    /// From armed until every stream has been accepted.
    pub connect_ms: u32,
    /// Receiving and installing the snapshot.
    pub install_ms: u32,
    /// From the installed snapshot to the first underrun of `st_q_in`.
    pub synchronise_ms: u32,
    /// From the request to redirect to the last end record.
    pub redirect_ms: u32,
    /// Waiting for drain packets before `pkt_q` is handed back, and then handing it back. Longer than the controller may
    /// take from asking for it to redirecting back, because what goes back before that goes astray.
    pub hand_back_ms: u32,
    /// Computing the digest at take-over; the report goes out without it then.
    pub digest_ms: u32,
}

impl Default for DestinationTimeouts {
    fn default() -> Self {
        Self {
            arm_ms: 2_000,
            connect_ms: 10_000,
            install_ms: 120_000,
            synchronise_ms: 30_000,
            redirect_ms: 30_000,
            hand_back_ms: 30_000,
            digest_ms: 10_000,
        }
    }
}
