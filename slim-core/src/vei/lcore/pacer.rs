//! When the next packet of `pkt_q` may leave.

use crate::protocol::control::Pace;
use crate::time::{Duration, Instant};

/// Units of credit per byte: a rate in bytes per second then gains a whole number of units per nanosecond.
const UNITS: i128 = 1_000_000_000;

/// A pace that packets arrive faster than would never come to an end. After so long `pkt_q` is emptied as fast as it can be.
const PACED_MAX: Duration = Duration::from_secs(3);

/// A token bucket. Whoever finds credit may take more than there is, once.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    credit: i128,
    begun: Instant,
    updated: Instant,
    waits: bool,
}

impl Pacer {
    /// A full bucket.
    pub(super) fn new(now: Instant, pace: Pace) -> Self {
        Self { pace, credit: i128::from(pace.burst_bytes) * UNITS, begun: now, updated: now, waits: false }
    }

    /// Whether a packet may leave at `now`.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let gained = (now - self.updated).as_nanos() as i128 * i128::from(self.pace.rate_bytes_per_s);
        let full = i128::from(self.pace.burst_bytes) * UNITS;
        // Not even a burst of 0 must stand still.
        self.credit = (self.credit + gained).min(full.max(UNITS));
        self.updated = self.updated.max(now);
        self.waits = self.credit <= 0 && now - self.begun < PACED_MAX;
        !self.waits
    }

    /// Whether nothing could leave when that was asked last.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Takes the credit of a packet of `len` bytes.
    pub(super) fn charge(&mut self, len: usize) {
        self.credit -= len as i128 * UNITS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    /// Packets of 1000 bytes that leave until `end`, tried every 10 µs.
    fn leave(pacer: &mut Pacer, end: u64) -> usize {
        let mut packets = 0;
        for now in (0..=end).step_by(10) {
            while pacer.allows(at(now)) && packets < 1_000_000 {
                pacer.charge(1000);
                packets += 1;
            }
        }
        packets
    }

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_at_the_rate() {
        let pace = Pace { rate_bytes_per_s: 10_000_000, burst_bytes: 50_000 };
        assert_eq!(leave(&mut Pacer::new(at(0), pace), 0), 50);
        let packets = leave(&mut Pacer::new(at(0), pace), 20_000);
        assert!((250..=251).contains(&packets), "{packets}");
    }

    #[test]
    fn no_burst_is_no_standstill() {
        let pace = Pace { rate_bytes_per_s: 10_000_000, burst_bytes: 0 };
        let packets = leave(&mut Pacer::new(at(0), pace), 20_000);
        assert!((190..=201).contains(&packets), "{packets}");
    }

    #[test]
    fn it_comes_to_an_end_however_slow_it_is() {
        let pace = Pace { rate_bytes_per_s: 0, burst_bytes: 0 };
        let mut pacer = Pacer::new(at(0), pace);
        pacer.charge(1000);
        assert!(!pacer.allows(at(2_999_999)));
        assert!(pacer.allows(at(3_000_000)));
    }
}
