//! When the next packet may leave, where that matters: behind `pkt_q`, and at a source while its state moves.
//!
//! The pace outlives what had gathered in `pkt_q`: behind it the meter has next to nothing left, and a load that fills a link
//! gives that back slowly. Packets that were held up somewhere, and arrive together in that time, would be lost there. So
//! the bucket is kept until it is full again, and packets that come too close together wait in `pkt_q` until then.
//!
//! At a source it lasts as long as the migration does: what a host holds up for some milliseconds would otherwise leave as
//! one burst, into a meter that statelets have left less of. A load that the link cannot take anyway does not wait for
//! longer than [`WAITING_MAX`].

use crate::protocol::control::Pace;
use crate::time::{Duration, Instant};

/// Units of credit per byte: a rate in bytes per second then gains a whole number of units per nanosecond.
const UNITS: i128 = 1_000_000_000;

/// A pace that packets arrive faster than would never come to an end. After so long it is over.
const PACED_MAX: Duration = Duration::from_secs(3);

/// For so long may packets wait at a source: longer than a host usually holds up one of its threads.
const WAITING_MAX: Duration = Duration::from_millis(100);

/// A token bucket. Whoever finds credit may take more than there is, once.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    credit: i128,
    updated: Instant,
    waits: bool,
    until: Until,
    /// Bytes of statelets that have been charged.
    announced: u64,
}

/// How long a pace is kept to.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Until the bucket is full again, at the latest until then.
    Full(Instant),
    /// Until another one begins. No more than so many bytes wait.
    Replaced { waiting_max_bytes: u64 },
}

impl Pacer {
    /// A full bucket, kept to until it is full again.
    pub(super) fn new(now: Instant, pace: Pace) -> Self {
        let until = Until::Full(now + PACED_MAX);
        Self { pace, credit: i128::from(pace.burst_bytes) * UNITS, updated: now, waits: false, until, announced: 0 }
    }

    /// A full bucket of a pace that lasts until another one begins, before a `pkt_q` of `capacity_bytes`.
    pub(super) fn lasting(now: Instant, pace: Pace, capacity_bytes: u64) -> Self {
        let in_time = u128::from(pace.rate_bytes_per_s) * WAITING_MAX.as_nanos() / 1_000_000_000;
        let waiting_max_bytes = (in_time as u64).min(capacity_bytes / 2);
        Self { until: Until::Replaced { waiting_max_bytes }, ..Self::new(now, pace) }
    }

    /// Whether a packet may leave at `now`, `waiting_bytes` being in `pkt_q`.
    pub(super) fn allows(&mut self, now: Instant, waiting_bytes: u64) -> bool {
        self.refill(now);
        let in_any_case = match self.until {
            Until::Full(latest) => now >= latest,
            Until::Replaced { waiting_max_bytes } => waiting_bytes > waiting_max_bytes,
        };
        self.waits = self.credit <= 0 && !in_any_case;
        !self.waits
    }

    /// Whether the pace makes no difference any more: a burst may leave as at the beginning.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        self.refill(now);
        match self.until {
            Until::Full(latest) => self.credit >= self.full() || now >= latest,
            Until::Replaced { .. } => false,
        }
    }

    /// Whether it lasts until another one begins.
    pub(super) fn lasts(&self) -> bool {
        matches!(self.until, Until::Replaced { .. })
    }

    /// Whether nothing could leave when that was asked last.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Takes the credit of a packet of `len` bytes. What did not wait is no debt of those that will have to.
    pub(super) fn charge(&mut self, len: usize) {
        let taken = len as i128 * UNITS;
        self.credit = (self.credit - taken).max(-self.full().max(taken));
    }

    /// Takes the credit of the statelets that have come to `total_bytes` so far: they pass the same meter.
    pub(super) fn charge_announced(&mut self, total_bytes: u64) {
        self.charge(total_bytes.saturating_sub(self.announced) as usize);
        self.announced = total_bytes;
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
            while pacer.allows(at(now), 0) && packets < 1_000_000 {
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
        assert!(!pacer.allows(at(2_999_999), 0) && !pacer.is_over(at(2_999_999)));
        assert!(pacer.allows(at(3_000_000), 0) && pacer.is_over(at(3_000_000)));
    }

    /// 10 bytes a microsecond, and 50,000 at once, before a `pkt_q` of `capacity_bytes`.
    fn lasting(capacity_bytes: u64) -> Pacer {
        Pacer::lasting(at(0), Pace { rate_bytes_per_s: 10_000_000, burst_bytes: 50_000 }, capacity_bytes)
    }

    #[test]
    fn a_sources_pace_lasts_and_holds_up_only_so_much() {
        let mut pacer = lasting(u64::MAX);
        assert!(pacer.allows(at(0), 0) && !pacer.is_over(at(10_000_000)));
        pacer.charge(100_000);
        assert!(!pacer.allows(at(4_999), 1_000_000));
        assert!(pacer.allows(at(4_999), 1_000_001), "100 ms of the rate wait already");
        let mut pacer = lasting(200_000);
        pacer.charge(100_000);
        assert!(!pacer.allows(at(4_999), 100_000));
        assert!(pacer.allows(at(4_999), 100_001), "pkt_q is half full already");
    }

    #[test]
    fn what_leaves_without_credit_does_not_hold_up_the_rest_for_long() {
        let mut pacer = lasting(u64::MAX);
        (0..1_000).for_each(|_| pacer.charge(1_000));
        assert!(!pacer.allows(at(5_000), 0) && pacer.allows(at(5_001), 0));
    }

    #[test]
    fn statelets_take_their_part() {
        let mut pacer = lasting(u64::MAX);
        pacer.charge_announced(20_000);
        pacer.charge_announced(50_000);
        assert!(!pacer.allows(at(0), 0), "50,000 bytes and not 70,000 are gone");
        assert!(pacer.allows(at(1), 0));
    }
}
