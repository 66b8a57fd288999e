//! Counters of the dataplane. Each has one writer, its lcore; the management thread reads them at any time.

use slim_core::nf::{DROP_REASONS_MAX, PORTS_MAX};
use slim_core::vei::lcore::Cause;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer and any number of readers.
///
/// Padded to nothing: the counters of one lcore share cache lines with each other only.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the writer may call this: it is a load and a store, not one atomic operation.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets the value. Only the writer may call this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one lcore has counted.
#[derive(Debug)]
pub struct Counters {
    /// Per port.
    pub ports: [PortCounters; PORTS_MAX],
    /// By [`Cause`].
    pub causes: [Counter; Cause::ALL.len()],
    /// By the network function's reasons.
    pub reasons: [Counter; DROP_REASONS_MAX],
    /// Packets that were meant for the network function itself.
    pub consumed: Counter,
    /// Packets that went through `pkt_q`.
    pub pkt_q_packets: Counter,
    /// Packets in `pkt_q` at present.
    pub pkt_q_depth: Counter,
    /// Bytes in `pkt_q` at present.
    pub pkt_q_bytes: Counter,
    /// The most packets in `pkt_q` during the present or last migration.
    pub pkt_q_depth_max: Counter,
    /// The most bytes in `pkt_q` likewise.
    pub pkt_q_bytes_max: Counter,
    /// Statelets announced in the present or last migration.
    pub statelets: Counter,
    /// Their bytes, headers included.
    pub statelet_bytes: Counter,
    /// For how long the present or last sample has counted, in microseconds.
    pub sample_us: Counter,
    /// Packets it has counted.
    pub sample_packets: Counter,
    /// Their bytes.
    pub sample_packet_bytes: Counter,
    /// Statelets it has counted.
    pub sample_statelets: Counter,
    /// Bytes of their values.
    pub sample_value_bytes: Counter,
    /// Bytes in `st_q_out` at present.
    pub st_q_out_bytes: Counter,
    /// The most bytes that ever were in `st_q_out`.
    pub st_q_out_bytes_max: Counter,
    /// Late packets handed back to the switch.
    pub handed_back: Counter,
    /// Drain packets received.
    pub drains: Counter,
    /// Events for the operator that were passed on to the log.
    pub events_logged: Counter,
    /// Events for the operator that the log had no room for, or that there is no log for.
    pub events_lost: Counter,
    /// Passes of the loop that found packets.
    pub busy_polls: Counter,
    /// Passes of the loop that found none.
    pub empty_polls: Counter,
    /// Times the lcore slept.
    pub sleeps: Counter,
}

/// What one lcore has counted at one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Packets received.
    pub rx_packets: Counter,
    /// Bytes received.
    pub rx_bytes: Counter,
    /// Packets dropped because they came in more segments than one buffer can hold.
    pub rx_unusable: Counter,
    /// Packets transmitted.
    pub tx_packets: Counter,
    /// Bytes transmitted.
    pub tx_bytes: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            ports: Default::default(),
            causes: Default::default(),
            reasons: std::array::from_fn(|_| Counter::default()),
            consumed: Counter::default(),
            pkt_q_packets: Counter::default(),
            pkt_q_depth: Counter::default(),
            pkt_q_bytes: Counter::default(),
            pkt_q_depth_max: Counter::default(),
            pkt_q_bytes_max: Counter::default(),
            statelets: Counter::default(),
            statelet_bytes: Counter::default(),
            sample_us: Counter::default(),
            sample_packets: Counter::default(),
            sample_packet_bytes: Counter::default(),
            sample_statelets: Counter::default(),
            sample_value_bytes: Counter::default(),
            st_q_out_bytes: Counter::default(),
            st_q_out_bytes_max: Counter::default(),
            handed_back: Counter::default(),
            drains: Counter::default(),
            events_logged: Counter::default(),
            events_lost: Counter::default(),
            busy_polls: Counter::default(),
            empty_polls: Counter::default(),
            sleeps: Counter::default(),
        }
    }
}

impl Counters {
    /// Counts one packet dropped for `cause`.
    #[inline]
    pub fn dropped(&self, cause: Cause, packets: u64) {
        self.causes[cause as usize].add(packets);
    }
}
