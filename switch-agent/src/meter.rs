//! The meter: a token bucket that decides which packets of a direction conform.

use crate::lower_effort::SHARE;
use slim_core::time::{Duration, Instant};

/// Rate and burst of a [`Meter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterLimits {
    /// Tokens gained per second, in bits of Ethernet frames; 0 stands for no limit.
    pub rate_bps: u64,
    /// The most tokens kept, in bytes. At most [`MeterLimits::BURST_BYTES_MAX`].
    pub burst_bytes: u64,
}

impl MeterLimits {
    /// The largest burst, 1 GiB: what the bucket's fixed-point arithmetic holds without overflow.
    pub const BURST_BYTES_MAX: u64 = 1 << 30;

    /// No limit.
    pub const UNLIMITED: Self = Self { rate_bps: 0, burst_bytes: 0 };

    /// `rate_bps` with a burst of what passes in 20 ms at that rate, as in §VII.
    pub const fn with_burst_20ms(rate_bps: u64) -> Self {
        let burst = rate_bps / (8 * 50);
        let burst_bytes = if burst > Self::BURST_BYTES_MAX { Self::BURST_BYTES_MAX } else { burst };
        Self { rate_bps, burst_bytes }
    }
}

/// Units of tokens per byte: a rate in bit/s then gains a whole number of units per nanosecond.
const UNITS_PER_BYTE: u64 = 8 * 1_000_000_000;

/// The longest pause that is credited in full.
const CREDIT_MAX: Duration = Duration::from_secs(1);

/// The most that is kept for frames of lower effort: of what the bucket holds one part in so many, which bridges the time
/// between two looks.
const SPARE_PART: u64 = 4;

/// But this much in any case, so that a frame can pass some day.
const SPARE_BYTES_MIN: u64 = 4096;

/// A token bucket, exact in integers. It starts full.
///
/// A packet conforms if the bucket holds a token for each of its bytes; it then takes them. A packet that does not
/// conform takes none. Frames count from destination MAC to the last payload byte, without preamble and check sequence.
///
/// A switch polls: it does not see when packets arrive, only that they have arrived since it looked last. So what is
/// gained since then may pass on top of a full bucket, and only once the switch has [caught up](Self::caught_up) is what
/// exceeds the burst lost. Otherwise a switch that did not run for a moment would drop what has rightly gathered in the
/// rings meanwhile.
///
/// What exceeds the burst goes into a second, smaller bucket, for [frames of lower effort](crate::lower_effort). Nothing
/// that is taken from there was anybody else's, unless a share has been [set aside](Self::set_aside).
#[derive(Debug, Clone)]
pub struct Meter {
    limits: MeterLimits,
    tokens: u64,
    spare: u64,
    set_aside: bool,
    updated: Instant,
}

impl Meter {
    /// A full bucket.
    pub fn new(now: Instant, limits: MeterLimits) -> Self {
        let mut meter = Self { limits, tokens: 0, spare: 0, set_aside: false, updated: now };
        meter.tokens = meter.capacity();
        meter
    }

    /// The present limits.
    pub fn limits(&self) -> MeterLimits {
        self.limits
    }

    /// Changes the limits; tokens beyond the new burst are lost.
    pub fn set_limits(&mut self, now: Instant, limits: MeterLimits) {
        self.refill(now);
        self.limits = limits;
        self.tokens = self.tokens.min(self.capacity());
        self.spare = self.spare.min(self.spare_capacity());
    }

    /// Whether a packet of `len` bytes conforms.
    #[inline]
    pub fn allow(&mut self, now: Instant, len: usize) -> bool {
        if self.limits.rate_bps == 0 {
            return true;
        }
        self.refill(now);
        let need = (len as u64).saturating_mul(UNITS_PER_BYTE);
        let conforms = need <= self.tokens;
        if conforms {
            self.tokens -= need;
        }
        conforms
    }

    /// Takes the tokens of a packet that passes in any case, as far as there are any.
    #[inline]
    pub fn charge(&mut self, now: Instant, len: usize) {
        self.refill(now);
        self.tokens = self.tokens.saturating_sub((len as u64).saturating_mul(UNITS_PER_BYTE));
    }

    /// Everything that had arrived by `now` has been seen: tokens beyond the burst are spare, and those beyond what is
    /// kept of these are lost.
    pub fn caught_up(&mut self, now: Instant) {
        self.refill(now);
        let kept = self.tokens.min(self.capacity());
        self.spare = self.spare.saturating_add(self.tokens - kept).min(self.spare_capacity());
        self.tokens = kept;
    }

    /// Whether spare tokens suffice for a packet of `len` bytes, which then takes them.
    #[inline]
    pub fn allow_spare(&mut self, len: usize) -> bool {
        if self.limits.rate_bps == 0 {
            return true;
        }
        let need = (len as u64).saturating_mul(UNITS_PER_BYTE);
        let conforms = need <= self.spare;
        if conforms {
            self.spare -= need;
        }
        conforms
    }

    /// When spare tokens suffice for a packet of `len` bytes, if nothing else passes before.
    pub fn spare_at(&self, len: usize) -> Instant {
        let lacking = (len as u64).saturating_mul(UNITS_PER_BYTE).saturating_sub(self.spare);
        if self.limits.rate_bps == 0 || lacking == 0 {
            return self.updated;
        }
        let room = self.capacity().saturating_sub(self.tokens);
        let overflow = room.saturating_add(lacking);
        let share = if self.set_aside { lacking.saturating_mul(SHARE) } else { u64::MAX };
        self.updated + Duration::from_nanos(overflow.min(share).div_ceil(self.limits.rate_bps))
    }

    /// Begins or ends to make one token of [`SHARE`] a spare one, whether or not the bucket is full.
    pub fn set_aside(&mut self, now: Instant, set_aside: bool) {
        if self.set_aside != set_aside {
            self.refill(now);
            self.set_aside = set_aside;
        }
    }

    /// Whether a share of all tokens is set aside.
    pub fn is_set_aside(&self) -> bool {
        self.set_aside
    }

    /// How long it takes until the share of all tokens suffices for a packet of `len` bytes.
    pub fn time_of_share(&self, len: usize) -> Duration {
        let need = (len as u64).saturating_mul(UNITS_PER_BYTE).saturating_mul(SHARE);
        Duration::from_nanos(need.checked_div(self.limits.rate_bps).unwrap_or(0))
    }

    /// The most spare tokens kept, in bytes.
    pub fn spare_bytes_max(&self) -> u64 {
        self.spare_capacity() / UNITS_PER_BYTE
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_since(self.updated);
        if !elapsed.is_zero() {
            let credit = self.limits.rate_bps.saturating_mul(CREDIT_MAX.as_nanos() as u64);
            let gained = (elapsed.as_nanos() as u64).saturating_mul(self.limits.rate_bps);
            let most = self.capacity().saturating_add(credit);
            let share = if self.set_aside { gained / SHARE } else { 0 };
            self.spare = self.spare.saturating_add(share).min(self.spare_capacity());
            self.tokens = self.tokens.saturating_add(gained - share).min(most);
            self.updated = now;
        }
    }

    fn capacity(&self) -> u64 {
        self.limits.burst_bytes.min(MeterLimits::BURST_BYTES_MAX) * UNITS_PER_BYTE
    }

    fn spare_capacity(&self) -> u64 {
        (self.capacity() / SPARE_PART).max(SPARE_BYTES_MIN * UNITS_PER_BYTE)
    }
}

const _: () = assert!(MeterLimits::BURST_BYTES_MAX.checked_mul(UNITS_PER_BYTE).is_some());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bucket in wide integers and without shortcuts.
    struct Reference {
        rate: u128,
        capacity: u128,
        tokens: u128,
        updated: u128,
    }

    impl Reference {
        fn new(limits: MeterLimits) -> Self {
            let capacity = u128::from(limits.burst_bytes) * 8_000_000_000;
            Self { rate: limits.rate_bps.into(), capacity, tokens: capacity, updated: 0 }
        }

        fn caught_up(&mut self) {
            self.tokens = self.tokens.min(self.capacity);
        }

        fn allow(&mut self, now_ns: u64, len: usize) -> bool {
            self.tokens += (u128::from(now_ns) - self.updated) * self.rate;
            self.updated = now_ns.into();
            let need = len as u128 * 8_000_000_000;
            if need > self.tokens {
                return false;
            }
            self.tokens -= need;
            true
        }
    }

    #[test]
    fn a_full_bucket_passes_its_burst_and_not_a_byte_more() {
        let mut meter = Meter::new(Instant::ZERO, MeterLimits::with_burst_20ms(1_000_000_000));
        let now = Instant::from_millis(5);
        meter.caught_up(now);
        let passed = (0..2600).filter(|_| meter.allow(now, 1000)).count();
        assert_eq!(passed, 2500);
        assert!(!meter.allow(now, 1));
        // 1 Gbit/s gains a byte in 8 ns.
        assert!(!meter.allow(Instant::from_nanos(5_000_007), 1));
        assert!(meter.allow(Instant::from_nanos(5_000_008), 1));
    }

    #[test]
    fn what_gathered_while_the_switch_did_not_look_conforms_but_no_more() {
        let limits = MeterLimits::with_burst_20ms(8_000_000);
        let mut meter = Meter::new(Instant::ZERO, limits);
        meter.caught_up(Instant::ZERO);
        // 50 ms at a million bytes per second, on top of 20 ms.
        let mut packets = 0;
        let mut now = Instant::from_millis(50);
        while meter.allow(now, 1000) {
            packets += 1;
            // It takes several rounds to empty the rings.
            now += Duration::from_nanos(10);
        }
        assert_eq!(packets, 70);
        meter.caught_up(now);
        assert!(!meter.allow(now, 1000));
        meter.caught_up(now + Duration::from_millis(500));
        assert_eq!((0..100).filter(|_| meter.allow(now + Duration::from_millis(500), 1000)).count(), 20);
    }

    #[test]
    fn a_long_pause_is_not_credited_in_full() {
        let mut meter = Meter::new(Instant::ZERO, MeterLimits { rate_bps: 8_000, burst_bytes: 100 });
        let now = Instant::from_millis(3_600_000);
        assert_eq!((0..10_000).filter(|_| meter.allow(now, 1)).count(), 1100);
    }

    #[test]
    fn without_a_rate_everything_conforms() {
        let mut meter = Meter::new(Instant::ZERO, MeterLimits::UNLIMITED);
        assert!((0..10_000).all(|_| meter.allow(Instant::ZERO, 1500)));
    }

    #[test]
    fn time_that_runs_backwards_gains_nothing() {
        let mut meter = Meter::new(Instant::ZERO, MeterLimits { rate_bps: 8_000, burst_bytes: 100 });
        meter.caught_up(Instant::from_millis(100));
        assert!(meter.allow(Instant::from_millis(100), 100));
        assert!(!meter.allow(Instant::from_millis(50), 1));
        assert!(!meter.allow(Instant::from_millis(100), 1));
        assert!(meter.allow(Instant::from_millis(101), 1));
    }

    #[test]
    fn a_charge_takes_tokens_but_never_refuses() {
        let mut meter = Meter::new(Instant::ZERO, MeterLimits { rate_bps: 8_000, burst_bytes: 100 });
        meter.charge(Instant::ZERO, 60);
        meter.charge(Instant::ZERO, 60);
        assert!(!meter.allow(Instant::ZERO, 1));
        assert!(meter.allow(Instant::from_millis(1), 1));
    }

    proptest! {
        #[test]
        fn conforms_exactly_like_the_reference(
            rate_bps in 1u64..20_000_000_000,
            burst_bytes in 0u64..5_000_000,
            packets in prop::collection::vec((0u64..2_000_000, 0usize..2_000, any::<bool>()), 1..400),
        ) {
            let limits = MeterLimits { rate_bps, burst_bytes };
            let (mut meter, mut reference) = (Meter::new(Instant::ZERO, limits), Reference::new(limits));
            let mut now_ns = 0;
            for (gap_ns, len, caught_up) in packets {
                now_ns += gap_ns;
                prop_assert_eq!(meter.allow(Instant::from_nanos(now_ns), len), reference.allow(now_ns, len));
                if caught_up {
                    meter.caught_up(Instant::from_nanos(now_ns));
                    reference.caught_up();
                }
            }
        }

        #[test]
        fn never_passes_more_than_burst_and_rate_give(
            rate_bps in 1u64..2_000_000_000,
            burst_bytes in 0u64..100_000,
            packets in prop::collection::vec((0u64..100_000, 1usize..2_000), 1..400),
        ) {
            let mut meter = Meter::new(Instant::ZERO, MeterLimits { rate_bps, burst_bytes });
            let (mut now_ns, mut passed) = (0u64, 0u64);
            for (gap_ns, len) in packets {
                now_ns += gap_ns;
                if meter.allow(Instant::from_nanos(now_ns), len) {
                    passed += len as u64;
                }
            }
            let bound = u128::from(burst_bytes) * 8_000_000_000 + u128::from(now_ns) * u128::from(rate_bps);
            prop_assert!(u128::from(passed) * 8_000_000_000 <= bound);
        }
    }
}
