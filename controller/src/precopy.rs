//! Moving a whole guest with its hypervisor's own live migration (pre-copy, §V-A): what is asked for and what comes of
//! it. It is here to be compared with.

use serde::{Deserialize, Serialize};
use slim_core::protocol::{MigrationId, Name, Scheduling};

/// How to move a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrecopyOptions {
    /// What goes first on the instances' links: with `dataplane-first` the guest's memory takes what traffic leaves over.
    pub scheduling: Scheduling,
    /// After so many rounds the guest is stopped for the last one, whatever that takes. Sooner, if the hypervisor
    /// expects that to take less than 300 ms.
    pub rounds: u32,
    /// After so many seconds it is given up; 0 is never.
    pub patience_s: u32,
}

impl Default for PrecopyOptions {
    /// Ten rounds, as in figure 7.
    fn default() -> Self {
        Self { scheduling: Scheduling::default(), rounds: 10, patience_s: 600 }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecopyProgress {
    /// Since it began.
    pub at_us: u64,
    /// The round.
    pub round: u64,
    /// Bytes of memory sent, those sent again included.
    pub sent_bytes: u64,
    /// Bytes yet to be sent in this round.
    pub remaining_bytes: u64,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrecopyOutcome {
    /// The migration.
    pub migration: MigrationId,
    /// The instance as it was called before.
    pub source: Name,
    /// The instance as it is called now.
    pub destination: Name,
    /// Why it failed, if it did: the guest goes on at the source then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// From its begin until the switch led all traffic to the destination, or until it was given up.
    pub total_us: u64,
    /// For how long the guest stood still: from the source's last moment to the destination's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_us: Option<u64>,
    /// From the destination's first moment until the switch led all traffic there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirected_after_us: Option<u64>,
    /// The last that was known of it.
    pub progress: PrecopyProgress,
    /// The guest's memory.
    pub memory_bytes: u64,
    /// Bytes that passed the instances' links, headers of TCP/IP and Ethernet not counted.
    pub stream_bytes: u64,
}
