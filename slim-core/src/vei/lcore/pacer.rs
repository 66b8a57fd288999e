//! When the next packet of `pkt_q` may leave.
//!
//! The pace outlives what had gathered in `pkt_q`: behind it the meter has next to nothing left, and a load that fills a link
//! gives that back slowly. Packets that were held up somewhere, and arrive together in that time, would be lost there. So
//! the bucket is kept until it is full again, and packets pass through `pkt_q` until then.

use crate::protocol::control::Pace;
use crate::time::{Duration, Instant};

/// Units of credit per byte: a rate in bytes per second then gains a whole number of units per nanosecond.
const UNITS: i128 = 1_000_000_000;

/// A pace that packets arrive faster than would never come to an end. After so long it is over.
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
        self.refill(now);
        self.waits = self.credit <= 0 && !self.has_expired(now);
        !self.waits
    }

    /// Whether the pace makes no difference any more: a burst may leave as at the beginning.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.credit >= self.full() || self.has_expired(now)
    }

    /// Whether nothing could leave when that was asked last.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Takes the credit of a packet of `len` bytes.
    pub(super) fn charge(&mut self, len: usize) {
        self.credit -= len as i128 * UNITS;
    }

    fn refill(&mut self, now: Instant) {
        let gained = (now - self.updated).as_nanos() as i128 * i128::from(self.pace.rate_bytes_per_s);
        self.credit = (self.credit + gained).min(self.full());
        self.updated = self.updated.max(now);
    }

    /// Not even a burst of 0 must stand still.
    fn full(&self) -> i128 {
        (i128::from(self.pace.burst_bytes) * UNITS).max(UNITS)
    }

    fn has_expired(&self, now: Instant) -> bool {
        now - self.begun >= PACED_MAX
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
    fn it_is_over_when_a_burst_may_leave_as_at_the_beginning() {
        let mut pacer = Pacer::new(at(0), Pace { rate_bytes_per_s: 10_000_000, burst_bytes: 50_000 });
        assert!(pacer.is_over(at(0)));
        pacer.charge(50_000);
        assert!(!pacer.is_over(at(4_999)));
        assert!(pacer.is_over(at(5_000)));
    }

    #[test]
    fn it_comes_to_an_end_however_slow_it_is() {
        let pace = Pace { rate_bytes_per_s: 0, burst_bytes: 0 };
        let mut pacer = Pacer::new(at(0), pace);
        pacer.charge(1000);
        assert!(!pacer.allows(at(2_999_999)) && !pacer.is_over(at(2_999_999)));
        assert!(pacer.allows(at(3_000_000)) && pacer.is_over(at(3_000_000)));
    }
}
