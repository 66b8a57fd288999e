//! When the next packets are due.

use core::time::Duration;
use slim_core::time::Instant;

/// Spaces packets evenly, and catches up after a pause, but only so far.
#[derive(Debug, Clone)]
pub struct Pacer {
    begin: Instant,
    interval_ns: f64,
    /// Packets sent or given up since the begin.
    done: u64,
    backlog_max: u64,
    skipped: u64,
}

/// After a pause of more than this the packets that were due in it are given up: sending them all at once would be
/// another load than the one asked for. It is the burst that the testbed's meters let through.
pub const CATCH_UP: Duration = Duration::from_millis(20);

/// At least so many packets are caught up with.
const BACKLOG_MIN: u64 = 32;

impl Pacer {
    /// `packets_per_second` from `begin` on, the first one at once.
    pub fn new(begin: Instant, packets_per_second: f64) -> Self {
        let backlog_max = (packets_per_second * CATCH_UP.as_secs_f64()) as u64;
        Self {
            begin,
            interval_ns: 1e9 / packets_per_second,
            done: 0,
            backlog_max: backlog_max.max(BACKLOG_MIN),
            skipped: 0,
        }
    }

    /// How many packets are due, after giving up those that are due for too long.
    pub fn due(&mut self, now: Instant) -> u64 {
        let elapsed_ns = now.saturating_since(self.begin).as_nanos() as f64;
        let due = ((elapsed_ns / self.interval_ns) as u64 + 1).saturating_sub(self.done);
        let excess = due.saturating_sub(self.backlog_max);
        self.done += excess;
        self.skipped += excess;
        due - excess
    }

    /// Notes that `packets` of those due were sent.
    pub fn sent(&mut self, packets: u64) {
        self.done += packets;
    }

    /// When the next packet is due.
    pub fn next(&self) -> Instant {
        self.begin + Duration::from_nanos((self.done as f64 * self.interval_ns) as u64)
    }

    /// The packets given up since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        core::mem::take(&mut self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1_000)
    }

    #[test]
    fn packets_are_spaced_evenly() {
        let mut pacer = Pacer::new(micros(500), 1e4);
        assert_eq!(pacer.due(micros(500)), 1);
        pacer.sent(1);
        assert_eq!(pacer.next(), micros(600));
        assert_eq!(pacer.due(micros(599)), 0);
        assert_eq!(pacer.due(micros(600)), 1);
        pacer.sent(1);
        let mut sent = 2;
        for now in (600..1_000_500).step_by(37) {
            let due = pacer.due(micros(now));
            pacer.sent(due);
            sent += due;
        }
        assert_eq!(sent, 10_000);
        assert_eq!(pacer.take_skipped(), 0);
    }

    #[test]
    fn a_short_pause_is_caught_up_with() {
        let mut pacer = Pacer::new(Instant::ZERO, 1e4);
        assert_eq!(pacer.due(micros(19_900)), 200);
        pacer.sent(32);
        assert_eq!(pacer.due(micros(19_900)), 168);
        assert_eq!(pacer.take_skipped(), 0);
    }

    #[test]
    fn what_a_long_pause_held_up_is_given_up_and_counted() {
        let mut pacer = Pacer::new(Instant::ZERO, 1e4);
        assert_eq!(pacer.due(micros(999_900)), 200);
        assert_eq!(pacer.take_skipped(), 9_800);
        assert_eq!(pacer.take_skipped(), 0);
        pacer.sent(200);
        assert_eq!(pacer.due(micros(999_900)), 0);
        assert_eq!(pacer.due(micros(1_000_000)), 1);
    }

    #[test]
    fn slow_loads_catch_up_with_a_burst() {
        let mut pacer = Pacer::new(Instant::ZERO, 10.0);
        assert_eq!(pacer.due(micros(3_100_000)), 32);
        assert_eq!(pacer.take_skipped(), 0);
    }
}
