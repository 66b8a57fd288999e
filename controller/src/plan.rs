//! What the daemon says of a migration beforehand: what it has measured, and how each mode will go.

use crate::units::{bytes, grouped};
use serde::{Deserialize, Serialize};
use slim_core::model::{Cost, Forecast};
use slim_core::protocol::{Mode, Name, Scheduling};

/// Answer to `plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationPlan {
    /// `src_inst`.
    pub source: Name,
    /// `dst_inst`; absent for one out of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Name>,
    /// What would go first on the link.
    pub scheduling: Scheduling,
    /// What was measured.
    pub measured: Measured,
    /// Every mode.
    pub modes: Vec<ModeForecast>,
}

impl MigrationPlan {
    /// How a migration in `mode` will go.
    pub fn forecast(&self, mode: Mode) -> Option<&ModeForecast> {
        self.modes.iter().find(|forecast| forecast.mode == mode)
    }
}

/// What was measured at the source, and what else the forecast depends on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Measured {
    /// For how long.
    pub sample_ms: u64,
    /// The rate of the link that state and traffic share; absent if they share none, or an unmetered one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_bps: Option<u64>,
    /// The snapshot's pace, if it is to have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace_bps: Option<u64>,
    /// Packets through the instance, the sum of both directions.
    pub packets_per_s: u64,
    /// Their bits.
    pub load_bps: u64,
    /// Statelets on the wire, neither merged nor compressed.
    pub statelets_bps: u64,
    /// Packets as mode `duplicate` sends them, on the wire.
    pub duplicates_bps: u64,
    /// σ as the paper counts it.
    pub sigma_payload: f64,
    /// σ on the wire, neither merged nor compressed.
    pub sigma_wire: f64,
    /// The snapshot stream, filler included.
    pub snapshot_bytes: u64,
    /// What the destination can hold in `pkt_q` before the migration is undone.
    pub pkt_q_bytes: u64,
}

/// How a migration in one mode will go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeForecast {
    /// The mode.
    pub mode: Mode,
    /// Whether it will be over.
    pub converges: bool,
    /// After which time, by equation 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What it costs besides, or why it will not be over, in words.
    pub remark: String,
}

impl ModeForecast {
    /// What the model says, in words and whole milliseconds.
    pub fn new(mode: Mode, forecast: &Forecast) -> Self {
        let remark = match *forecast {
            Forecast::Converges { cost: Cost::Link { updates_bps }, .. } => {
                format!("takes {} of the link meanwhile", rate(updates_bps))
            }
            Forecast::Converges { cost: Cost::Waiting { waiting_bits }, .. } => {
                format!("packets wait, {} of them", bytes((waiting_bits / 8.0) as u64))
            }
            Forecast::Converges { cost: Cost::Lost { packets }, .. } => {
                format!("loses {} packets", grouped(packets as u64))
            }
            Forecast::NeverEnds { lacking_bps } => {
                format!("does not end: the link lacks {} even without a snapshot", rate(lacking_bps))
            }
            Forecast::NoRoom { waiting_bits } => {
                let waiting = bytes((waiting_bits / 8.0) as u64);
                format!("would be undone: {waiting} of packets would have to wait in pkt_q")
            }
        };
        let duration_ms = match *forecast {
            Forecast::Converges { duration_s, .. } => Some((duration_s * 1e3) as u64),
            Forecast::NeverEnds { .. } | Forecast::NoRoom { .. } => None,
        };
        Self { mode, converges: duration_ms.is_some(), duration_ms, remark }
    }
}

/// A rate in Mbit/s.
pub fn rate(bps: f64) -> String {
    format!("{:.1} Mbit/s", bps / 1e6)
}
