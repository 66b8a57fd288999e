//! The record with which a source tells how many packets its network function has dropped so far, by reason.
//!
//! ```text
//!  0        2        4
//! ┌────────┬────────┬──────────────┬──────────────┬───
//! │ 0xff03 │ 8 n    │ reason 0     │ reason 1     │ …        the last record before the end
//! └────────┴────────┴──────────────┴──────────────┴───
//! ```
//!
//! Drops are counted where they happen and are no state of the network function: they change nothing for any packet, and a
//! statelet for each would make a flood of packets that are dropped one of statelets. Once, when the source has processed
//! its last packet, is enough for the destination to go on counting exactly.

use crate::nf::DROP_REASONS_MAX;

/// The type of [`DropTotals`].
pub const TYPE_DROPS: u16 = 0xff03;

/// Packets dropped by a network function, by index into its
/// [`DROP_REASONS`](crate::nf::NetworkFunction::DROP_REASONS).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DropTotals(heapless::Vec<u64, DROP_REASONS_MAX>);

impl DropTotals {
    /// The totals of `reasons` reasons, at most [`DROP_REASONS_MAX`] of them.
    pub fn new(reasons: usize, total: impl Fn(u16) -> u64) -> Self {
        Self((0..reasons.min(DROP_REASONS_MAX) as u16).map(total).collect())
    }

    /// Whether nothing was dropped.
    pub fn are_zero(&self) -> bool {
        self.0.iter().all(|&total| total == 0)
    }

    /// Each reason with its total.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        (0..).zip(self.0.iter().copied())
    }

    /// The value.
    pub fn encode_value(&self) -> heapless::Vec<u8, { DROP_REASONS_MAX * 8 }> {
        self.0.iter().flat_map(|total| total.to_be_bytes()).collect()
    }

    /// Reads a value that has to be of `reasons` reasons.
    pub fn decode_value(value: &[u8], reasons: usize) -> Option<Self> {
        let (totals, rest) = value.as_chunks();
        if totals.len() != reasons || reasons > DROP_REASONS_MAX || !rest.is_empty() {
            return None;
        }
        Some(Self(totals.iter().map(|total| u64::from_be_bytes(*total)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_survive_and_other_lengths_do_not() {
        let totals = DropTotals::new(3, |reason| u64::from(reason) << 40);
        let value = totals.encode_value();
        assert_eq!(value.len(), 24);
        assert_eq!(DropTotals::decode_value(&value, 3).as_ref(), Some(&totals));
        assert_eq!(totals.iter().last(), Some((2, 2 << 40)));
        assert!(!totals.are_zero() && DropTotals::new(3, |_| 0).are_zero());
        for (value, reasons) in [(&value[..], 2), (&value[..], 4), (&value[..23], 3), (&[][..], 3)] {
            assert_eq!(DropTotals::decode_value(value, reasons), None);
        }
    }
}
