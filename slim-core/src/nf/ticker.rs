//! A network function's clock: whole seconds, which mean the same on every host.
//!
//! Every instant in a network function's tables is a tick of its clock, and nothing else is compared with it. What the
//! clock shows is state and told by statelets. So an instance that is fed statelets alone has the same clock and the
//! same ages, whatever its host's clock says, and a take-over keeps what is left of every timer.

use crate::time::{Duration, Instant};

/// The length of a tick. A timer runs for its configured time or up to one tick longer.
pub const TICK: Duration = Duration::from_secs(1);

/// Turns the host's clock into ticks. Not state: each host has its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ticker {
    /// When the host's clock showed it, the network function's clock showed this.
    origin: Option<(Instant, u32)>,
    /// When the next tick is due; before the origin is known, at once.
    next: Instant,
}

impl Ticker {
    /// The clock's new value if `now` is past the next tick. `present` is its present one.
    #[inline(always)]
    pub fn advance(&mut self, now: Instant, present: u32) -> Option<u32> {
        if now < self.next { None } else { self.tick(now, present) }
    }

    #[cold]
    fn tick(&mut self, now: Instant, present: u32) -> Option<u32> {
        let Some((origin, origin_ticks)) = self.origin else {
            self.rebase(now, present);
            return None;
        };
        let elapsed = now.saturating_since(origin).as_nanos() / TICK.as_nanos();
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX - 1);
        self.next = origin + TICK * (elapsed + 1);
        let ticks = origin_ticks.saturating_add(elapsed);
        (ticks > present).then_some(ticks)
    }

    /// Lets `now` be the beginning of tick `present`.
    pub fn rebase(&mut self, now: Instant, present: u32) {
        self.origin = Some((now, present));
        self.next = now + TICK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_starts_where_it_is_and_counts_whole_ticks() {
        let mut ticker = Ticker::default();
        assert_eq!(ticker.advance(Instant::from_millis(123_456), 40), None);
        assert_eq!(ticker.advance(Instant::from_millis(124_455), 40), None);
        assert_eq!(ticker.advance(Instant::from_millis(124_456), 40), Some(41));
        assert_eq!(ticker.advance(Instant::from_millis(124_457), 41), None);
        assert_eq!(ticker.advance(Instant::from_millis(134_999), 41), Some(51));
    }

    #[test]
    fn clock_never_goes_back() {
        let mut ticker = Ticker::default();
        ticker.rebase(Instant::from_millis(5000), 7);
        assert_eq!(ticker.advance(Instant::from_millis(8000), 7), Some(10));
        assert_eq!(ticker.advance(Instant::from_millis(1000), 10), None);
        assert_eq!(ticker.advance(Instant::from_millis(9000), 10), Some(11));
    }

    #[test]
    fn take_over_continues_on_another_clock() {
        let mut ticker = Ticker::default();
        ticker.rebase(Instant::from_millis(2), 1_000_000);
        assert_eq!(ticker.advance(Instant::from_millis(1001), 1_000_000), None);
        assert_eq!(ticker.advance(Instant::from_millis(1002), 1_000_000), Some(1_000_001));
    }

    #[test]
    fn clock_stops_at_its_end() {
        let mut ticker = Ticker::default();
        ticker.rebase(Instant::ZERO, u32::MAX - 1);
        assert_eq!(ticker.advance(Instant::from_nanos(u64::MAX), u32::MAX - 1), Some(u32::MAX));
        assert_eq!(ticker.advance(Instant::from_nanos(u64::MAX), u32::MAX), None);
    }
}
