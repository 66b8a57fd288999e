//! The rate of the host's time-stamp counter, which is the rate of an emulated guest's, too.

use std::sync::OnceLock;

/// The stretch that is converted to time.
const TICKS: u64 = 1_000_000_000_000;

/// In kHz, to far less than the 1 % that a guest corrects by itself later. `None` if the processor has no counter of a
/// constant rate. The first call takes a millisecond or so.
pub(super) fn khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(|| rate(quanta::Clock::new().delta_as_nanos(0, TICKS)))
}

/// Where there is no such counter, nanoseconds are counted instead: they are taken for what they are.
fn rate(nanos: u64) -> Option<u64> {
    let khz = u64::try_from(u128::from(TICKS) * 1_000_000 / u128::from(nanos.max(1))).ok()?;
    ((100_000..20_000_000).contains(&khz) && khz.abs_diff(1_000_000) > 5_000).then_some(khz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_told_from_nanoseconds() {
        assert_eq!(rate(400_000_000_000), Some(2_500_000));
        assert_eq!(rate(TICKS), None);
        assert_eq!(rate(TICKS + TICKS / 1000), None);
        assert_eq!(rate(0), None);
        assert_eq!(rate(u64::MAX), None);
    }
}
