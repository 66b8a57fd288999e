//! How fast `pkt_q` is emptied.

use super::LinkSettings;
use crate::protocol::Scheduling;
use serde::{Deserialize, Serialize};

/// The pace at which an instance lets packets go that would otherwise leave all at once: a token bucket that starts full.
///
/// Packets gather in `pkt_q` from the redirect to the take-over. All at once they would be a burst of that length, and the
/// instance's meter drops what exceeds its own. The paper's prototype does that (§VII), and so does a migration without a
/// pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Bytes per second, of all shards together.
    pub rate_bytes_per_s: u64,
    /// What leaves at once before that, in bytes, of all shards together.
    pub burst_bytes: u64,
}

impl Pace {
    /// What the meter of an instance's link lets through, where the dataplane goes first; none where the paper is followed,
    /// or nothing is metered.
    ///
    /// Half of the meter's burst is left: to acknowledgements on the management network, because the meter sees packets
    /// later than they were sent and closer together, and because whatever leaves at once may be answered at once, through
    /// the meter of the other direction.
    pub const fn of_link(link: &LinkSettings, scheduling: Scheduling) -> Option<Self> {
        match (scheduling, link.rate_bps) {
            (Scheduling::BestEffort, _) | (_, 0) => None,
            (Scheduling::DataplaneFirst, rate_bps) => {
                Some(Self { rate_bytes_per_s: rate_bps / 8, burst_bytes: link.burst_bytes / 2 })
            }
        }
    }

    /// The part of one shard in `shards`, at least one.
    #[must_use]
    pub fn share(self, shards: usize) -> Self {
        let shards = (shards as u64).max(1);
        Self { rate_bytes_per_s: self.rate_bytes_per_s / shards, burst_bytes: self.burst_bytes / shards }
    }
}
