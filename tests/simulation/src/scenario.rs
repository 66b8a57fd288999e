//! How a world is made.

use slim_core::migration::CoordinatorTimeouts;
use slim_core::protocol::control::{PrepareOptions, StartOptions};
use slim_core::time::Duration;

/// How the world is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Decides everything random.
    pub seed: u64,
    /// Shards of each instance.
    pub shards: u16,
    /// Flows per port.
    pub flows: u32,
    /// Mean time between two packets into one port.
    pub packet_interval: Duration,
    /// The shortest and longest time a link takes; nothing overtakes on a link.
    pub link_delay: (Duration, Duration),
    /// Drain packets and acknowledgements that get lost, of a thousand.
    pub drain_loss_per_mille: u64,
    /// The size of each `pkt_q`.
    pub pkt_q_bytes: usize,
    /// The size of each `st_q_out`.
    pub st_q_out_bytes: usize,
    /// Options for destinations.
    pub prepare: PrepareOptions,
    /// Options for sources.
    pub start: StartOptions,
    /// The coordinator's time-outs.
    pub timeouts: CoordinatorTimeouts,
}
