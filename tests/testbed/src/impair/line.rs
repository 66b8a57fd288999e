//! One direction of the line.

use clap::Args;
use serde::{Deserialize, Serialize};
use slim_core::time::{Duration, Instant};
use std::collections::VecDeque;

/// What is done to packets.
#[derive(Debug, Clone, Copy, PartialEq, Args, Serialize, Deserialize)]
pub struct Impairment {
    /// Packets lost, in percent, independently of each other
    #[arg(long, default_value_t = 0.5, value_name = "PERCENT")]
    pub loss: f64,

    /// Packets held back so that others overtake them, in percent
    #[arg(long, default_value_t = 0.5, value_name = "PERCENT")]
    pub reorder: f64,

    /// For how long those are held back, in milliseconds
    #[arg(long, default_value_t = 5, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub hold: u64,
}

/// The most packets held back at a time. Further ones are not.
const HELD_MAX: usize = 256;

/// One direction. It decides by its seed alone, so a run can be repeated.
#[derive(Debug)]
pub struct Line<T> {
    impairment: Impairment,
    random: u64,
    held: VecDeque<(Instant, T)>,
    /// Packets lost so far.
    pub lost: u64,
    /// Packets held back so far.
    pub held_back: u64,
}

impl<T> Line<T> {
    /// A line without packets.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self { impairment, random: seed, held: VecDeque::new(), lost: 0, held_back: 0 }
    }

    /// A packet arrives: it is returned to go on at once, lost, or held back.
    pub fn push(&mut self, now: Instant, packet: T) -> Option<T> {
        if self.happens(self.impairment.loss) {
            self.lost += 1;
            return None;
        }
        if self.happens(self.impairment.reorder) && self.held.len() < HELD_MAX {
            self.held_back += 1;
            self.held.push_back((now + Duration::from_millis(self.impairment.hold), packet));
            return None;
        }
        Some(packet)
    }

    /// A packet that has been held back for long enough.
    pub fn due(&mut self, now: Instant) -> Option<T> {
        let (due, _) = self.held.front()?;
        if *due > now {
            return None;
        }
        self.held.pop_front().map(|(_, packet)| packet)
    }

    fn happens(&mut self, percent: f64) -> bool {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64 * 100.0 < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(impairment: Impairment) -> (Line<u32>, Vec<u32>) {
        let (mut line, mut out) = (Line::new(impairment, 7), Vec::new());
        for n in 0..20_000 {
            let now = Instant::from_millis(n.into());
            out.extend(line.push(now, n));
            out.extend(core::iter::from_fn(|| line.due(now)));
        }
        out.extend(core::iter::from_fn(|| line.due(Instant::from_millis(30_000))));
        (line, out)
    }

    #[test]
    fn a_line_without_faults_is_a_wire() {
        let (_, out) = run(Impairment { loss: 0.0, reorder: 0.0, hold: 5 });
        assert!(out.iter().copied().eq(0..20_000));
    }

    #[test]
    fn so_many_packets_are_lost_and_so_many_overtaken_and_none_doubled() {
        let (line, out) = run(Impairment { loss: 0.5, reorder: 1.0, hold: 5 });
        assert!((60..150).contains(&line.lost), "{} lost", line.lost);
        assert!((130..280).contains(&line.held_back), "{} held back", line.held_back);
        assert_eq!(out.len() as u64, 20_000 - line.lost);
        let mut sorted = out.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), out.len());
        let overtaken = out.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        assert!(overtaken > line.held_back / 2, "{overtaken} overtaken");
        // What is held back stays so for its time, and no longer.
        let latest = |n: &u32| out.iter().position(|other| other == n);
        assert!(out.iter().all(|n| latest(n).is_some_and(|at| at as u32 <= n + 6)));
    }
}
