//! The time stamp counter as a clock.

use crate::eal::Eal;
use slim_core::time::Instant;

/// The time stamp counter: cycles since the machine's start.
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: no preconditions.
    unsafe { dpdk_sys::slim_rdtsc() }
}

/// The counter's frequency in Hz, as the EAL measured it at its start.
pub fn hz(_eal: &Eal) -> u64 {
    // SAFETY: no preconditions.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}

/// A monotonic clock over the time stamp counter, cheap enough to read for every burst. Its origin is its creation.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: u64,
    /// Nanoseconds per cycle, times 2^32.
    scale: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn new(eal: &Eal) -> Self {
        let scale = (u128::from(1_000_000_000u32) << 32) / u128::from(hz(eal).max(1));
        Self { origin: cycles(), scale: u64::try_from(scale).unwrap_or(u64::MAX) }
    }

    /// The time since the clock's creation.
    #[inline]
    pub fn now(&self) -> Instant {
        let elapsed = u128::from(cycles().saturating_sub(self.origin));
        Instant::from_nanos(((elapsed * u128::from(self.scale)) >> 32) as u64)
    }
}
