//! The recurrence of §V-A: a hypervisor's live migration of a VM whose receive ring is written all the time.

/// Pre-copy live migration: round after round sends what the round before has dirtied, the last one with the VM paused.
///
/// An optimistic bound: only a ring of packet buffers gets dirty, and never more of it than there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreCopy {
    /// r_DP, the dataplane's load.
    pub load_bps: f64,
    /// r_c, the link's capacity.
    pub capacity_bps: f64,
    /// m_0, the VM's memory. The paper does not say how much it took.
    pub memory_bits: f64,
    /// c_mbuf · buf_sz, the most that can get dirty in one round.
    pub ring_bits: f64,
    /// The number of rounds, the paused one included.
    pub rounds: u32,
}

/// What the recurrence predicts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The last round, while the VM is paused.
    pub downtime_s: f64,
    /// All rounds together.
    pub duration_s: f64,
}

impl PreCopy {
    /// Figure 7: 1 Gbit/s, ten rounds, a ring of 65,536 buffers of 1400 bytes.
    pub const fn figure_7(load_bps: f64, memory_bits: f64) -> Self {
        Self { load_bps, capacity_bps: 1e9, memory_bits, ring_bits: 65_536.0 * 1_400.0 * 8.0, rounds: 10 }
    }

    /// Runs the rounds; in the last one the dataplane's traffic goes on over the link only if `dataplane_on`.
    ///
    /// `None` if the dataplane leaves the link no capacity, or there is no round.
    pub fn predict(&self, dataplane_on: bool) -> Option<Prediction> {
        let spare_bps = self.capacity_bps - self.load_bps;
        if spare_bps <= 0.0 || self.rounds == 0 {
            return None;
        }
        let mut memory_bits = self.memory_bits;
        let mut duration_s = 0.0;
        for _ in 1..self.rounds {
            let round_s = memory_bits / spare_bps;
            duration_s += round_s;
            memory_bits = (self.load_bps * round_s).min(self.ring_bits);
        }
        let downtime_s = memory_bits / if dataplane_on { spare_bps } else { self.capacity_bps };
        Some(Prediction { downtime_s, duration_s: duration_s + downtime_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 512 MiB; any size that dirties the whole ring in the first round gives the same downtimes.
    const MEMORY_BITS: f64 = 512.0 * 1024.0 * 1024.0 * 8.0;

    #[test]
    fn downtimes_of_figure_7() {
        let expected = [
            (300e6, 0.0012, 0.0008, 0.00005),
            (400e6, 0.048, 0.029, 0.0005),
            (500e6, 1.468, 0.734, 0.0005),
            (800e6, 3.67, 0.734, 0.005),
            (900e6, 7.34, 0.734, 0.005),
        ];
        for (load, on, off, half_unit) in expected {
            let model = PreCopy::figure_7(load, MEMORY_BITS);
            let with = model.predict(true).unwrap().downtime_s;
            let without = model.predict(false).unwrap().downtime_s;
            assert!((with - on).abs() <= half_unit, "{load}: {with}, not {on}");
            assert!((without - off).abs() <= half_unit, "{load}: {without}, not {off}");
        }
    }

    #[test]
    fn duration_sums_the_rounds() {
        let model = PreCopy { rounds: 3, ..PreCopy::figure_7(500e6, 1e9) };
        // 1 Gbit at 500 Mbit/s: 2 s, in which the whole ring gets dirty; twice more 1.468 s.
        let ring_s = model.ring_bits / 500e6;
        let prediction = model.predict(true).unwrap();
        assert!((prediction.duration_s - (2.0 + 2.0 * ring_s)).abs() < 1e-9);
    }

    #[test]
    fn a_saturated_link_predicts_nothing() {
        assert_eq!(PreCopy::figure_7(1e9, MEMORY_BITS).predict(true), None);
        assert_eq!(PreCopy { rounds: 0, ..PreCopy::figure_7(1e8, MEMORY_BITS) }.predict(true), None);
    }
}
