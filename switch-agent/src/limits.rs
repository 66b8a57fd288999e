//! The bounds of all queues, in one place.

use crate::fifo::Bounds;
use crate::meter::MeterLimits;
use slim_core::protocol::control::LinkSettings;
use slim_core::time::Duration;

/// Bounds and intervals of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Each port's egress queue. It has to bridge the time a guest does not run: 8 MiB last 0.4 s at 150 Mbit/s.
    pub egress: Bounds,
    /// Each direction of an instance's link: packets on the delay line. The bound in bytes follows from the link.
    pub delay_packets: usize,
    /// Frames of lower effort that wait in each direction of a link. More than the streams of a migration have under way,
    /// so that their TCP is held up and not told to slow down.
    pub lower_effort: Bounds,
    /// Packets held for an instance during a rollback.
    pub hold: Bounds,
    /// Time between two transmissions of an unacknowledged drain packet.
    pub drain_interval: Duration,
    /// How often a drain packet is sent before it is given up.
    pub drain_attempts_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            egress: Bounds { bytes: 8 << 20, packets: 8192 },
            delay_packets: 32_768,
            lower_effort: Bounds { bytes: 4 << 20, packets: 8192 },
            hold: Bounds { bytes: 8 << 20, packets: 8192 },
            drain_interval: Duration::from_millis(20),
            drain_attempts_max: 1_000,
        }
    }
}

impl Limits {
    /// The most redirects whose outcome is remembered.
    pub const REDIRECTS_MAX: usize = 32;
    /// The most events that wait to be told; the oldest are lost and counted.
    pub const EVENTS_MAX: usize = 4096;
    /// What an unmetered link has on its delay line at most, in bytes.
    pub const DELAY_BYTES_UNMETERED: u64 = 64 << 20;

    /// The bounds of a delay line: whatever the meter lets pass, and what a hold releases at once, has room on it.
    pub(crate) fn delay_bounds(&self, link: &LinkSettings) -> Bounds {
        let bytes = match link.rate_bps {
            0 => Self::DELAY_BYTES_UNMETERED,
            rate => {
                let in_delay = u128::from(rate) * u128::from(link.delay_us) / 8_000_000;
                u64::try_from(in_delay)
                    .unwrap_or(u64::MAX)
                    .saturating_mul(2)
                    .saturating_add(link.burst_bytes.saturating_mul(2))
            }
        };
        Bounds { bytes: bytes.saturating_add(self.hold.bytes), packets: self.delay_packets }
    }
}

/// The meter's part of a link's settings.
pub(crate) fn meter_limits(link: &LinkSettings) -> MeterLimits {
    MeterLimits { rate_bps: link.rate_bps, burst_bytes: link.burst_bytes }
}

/// The delay line's part of a link's settings.
pub(crate) fn delay(link: &LinkSettings) -> Duration {
    Duration::from_micros(link.delay_us.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_line_has_room_for_what_its_meter_passes_and_a_hold_releases() {
        let limits = Limits::default();
        let bounds = limits.delay_bounds(&LinkSettings::default());
        // 2.5 MB of burst, 312.5 KB in 2.5 ms at 1 Gbit/s, and the hold.
        assert!(bounds.bytes >= 2_500_000 + 312_500 + limits.hold.bytes);
        let extreme = LinkSettings { rate_bps: u64::MAX, burst_bytes: u64::MAX, delay_us: u32::MAX };
        assert_eq!(limits.delay_bounds(&extreme).bytes, u64::MAX);
    }
}
