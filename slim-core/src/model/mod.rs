//! The paper's analysis (§V) as functions: how long a migration takes, and which load or statelet factor it bears.
//!
//! ```text
//!          l                    m                  n
//!  A ═══════════ src ─ ─ ─ ═══════════ ─ ─ ─ dst ═══════
//!    F_ab, F_ba            common datapath     statelets, snapshot
//! ```
//!
//! [`Scenario`] has equations 1 to 4; [`PreCopy`] is the recurrence of §V-A for a hypervisor's own live migration, to
//! compare with; [`Observed`] says of a running instance how a migration will go in each mode. Rates are in bits per second, sizes in bits, times in seconds.
//!
//! The figures' x-axis (11 to 18) is the sum of both directions, figure 6's one direction. In the testbed the meter of
//! each instance is link *l*: [`Scenario::testbed`].

mod forecast;
mod precopy;

pub use forecast::{Cost, Forecast, Observed};
pub use precopy::{PreCopy, Prediction};

/// One migration to be predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// Capacity of link *l*, which carries both directions of traffic.
    pub capacity_l_bps: f64,
    /// Capacity of link *m*, which carries one direction.
    pub capacity_m_bps: f64,
    /// Capacity of link *n*, which carries state only.
    pub capacity_n_bps: f64,
    /// Traffic from A to B.
    pub flow_ab_bps: f64,
    /// Traffic from B to A.
    pub flow_ba_bps: f64,
    /// The statelet factor σ; 1 is duplication of packets.
    pub sigma: f64,
    /// The snapshot's size S.
    pub snapshot_bits: f64,
    /// T_B, the time to take the snapshot and to install it.
    pub local_s: f64,
}

impl Scenario {
    /// Figure 6: C_m = 1 Gbit/s, C_l = C_n = 10 Gbit/s, S = 20 MByte, T_B = 0.3 s.
    pub const fn figure_6(flow_per_direction_bps: f64, sigma: f64) -> Self {
        Self {
            capacity_l_bps: 10e9,
            capacity_m_bps: 1e9,
            capacity_n_bps: 10e9,
            flow_ab_bps: flow_per_direction_bps,
            flow_ba_bps: flow_per_direction_bps,
            sigma,
            snapshot_bits: 160e6,
            local_s: 0.3,
        }
    }

    /// The testbed of §VII: 1 Gbit/s everywhere, 20 MiB of filler, the load given as the sum of both directions.
    pub const fn testbed(workload_bps: f64, sigma: f64) -> Self {
        Self {
            capacity_l_bps: 1e9,
            capacity_m_bps: 1e9,
            capacity_n_bps: 1e9,
            flow_ab_bps: workload_bps / 2.0,
            flow_ba_bps: workload_bps / 2.0,
            sigma,
            snapshot_bits: 20.0 * 1024.0 * 1024.0 * 8.0,
            local_s: 0.3,
        }
    }

    /// Traffic of both directions.
    pub fn workload_bps(&self) -> f64 {
        self.flow_ab_bps + self.flow_ba_bps
    }

    /// C_rem, what is left for the state transfer; negative where traffic alone is too much. Equation 1.
    pub fn remaining_bps(&self) -> f64 {
        (self.capacity_l_bps - self.workload_bps()).min(self.capacity_m_bps - self.flow_ab_bps).min(self.capacity_n_bps)
    }

    /// Whether the statelets leave room for the snapshot. Equation 2.
    pub fn is_feasible(&self) -> bool {
        self.sigma * self.workload_bps() < self.remaining_bps()
    }

    /// T_all, the time the migration takes; `None` if it never ends. Equation 3.
    pub fn duration_s(&self) -> Option<f64> {
        let spare = self.remaining_bps() - self.sigma * self.workload_bps();
        (spare > 0.0).then(|| self.local_s + self.snapshot_bits / spare)
    }

    /// The bound that σ must stay below for the migration to take at most `duration_s`. Equation 4.
    ///
    /// `None` if no σ is small enough; infinite without traffic.
    pub fn sigma_bound(&self, duration_s: f64) -> Option<f64> {
        let spare = self.remaining_bps() - self.snapshot_rate_bps(duration_s)?;
        (spare > 0.0).then(|| spare / self.workload_bps())
    }

    /// The largest traffic per direction, the same in both, for which the migration takes at most `duration_s`.
    ///
    /// `None` if it takes longer without any. The flows given are not used. From equations 1 and 3.
    pub fn flow_bound_bps(&self, duration_s: f64) -> Option<f64> {
        let snapshot_bps = self.snapshot_rate_bps(duration_s)?;
        let statelets = 2.0 * self.sigma;
        let bound = |capacity_bps: f64, traffic: f64| (capacity_bps - snapshot_bps) / (traffic + statelets);
        let flow_bps = bound(self.capacity_l_bps, 2.0)
            .min(bound(self.capacity_m_bps, 1.0))
            .min(if self.capacity_n_bps > snapshot_bps { bound(self.capacity_n_bps, 0.0) } else { f64::NEG_INFINITY });
        (flow_bps >= 0.0).then_some(flow_bps)
    }

    /// The rate at which the snapshot must flow; `None` if T_B alone takes longer.
    fn snapshot_rate_bps(&self, duration_s: f64) -> Option<f64> {
        let transfer_s = duration_s - self.local_s;
        (transfer_s > 0.0).then(|| self.snapshot_bits / transfer_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAT_SIGMA: f64 = 0.0234;

    /// Equal when rounded as the reference value is.
    #[track_caller]
    fn assert_about(found: Option<f64>, expected: f64, half_unit: f64) {
        let found = found.expect("feasible");
        assert!((found - expected).abs() <= half_unit * 1.0001, "{found} is not about {expected}");
    }

    #[test]
    fn remaining_capacity_is_that_of_the_tightest_link() {
        let scenario = Scenario { flow_ab_bps: 300e6, flow_ba_bps: 100e6, ..Scenario::figure_6(0.0, 0.0) };
        assert_eq!(scenario.remaining_bps(), 700e6);
        assert_eq!(Scenario { capacity_l_bps: 1e9, ..scenario }.remaining_bps(), 600e6);
        assert_eq!(Scenario { capacity_n_bps: 1e8, ..scenario }.remaining_bps(), 100e6);
    }

    #[test]
    fn duration_without_statelets() {
        for (flow, expected, half_unit) in
            [(100e6, 0.478, 0.0005), (300e6, 0.529, 0.0005), (800e6, 1.10, 0.005), (900e6, 1.90, 0.005)]
        {
            assert_about(Scenario::figure_6(flow, 0.0).duration_s(), expected, half_unit);
        }
    }

    #[test]
    fn duration_with_the_nat_s_statelets() {
        for (flow, expected, half_unit) in
            [(100e6, 0.479, 0.0005), (300e6, 0.533, 0.0005), (800e6, 1.28, 0.005), (900e6, 3.06, 0.005)]
        {
            assert_about(Scenario::figure_6(flow, NAT_SIGMA).duration_s(), expected, half_unit);
        }
    }

    #[test]
    fn duration_with_duplication() {
        assert_about(Scenario::figure_6(100e6, 1.0).duration_s(), 0.529, 0.0005);
        assert_about(Scenario::figure_6(300e6, 1.0).duration_s(), 1.90, 0.005);
        for flow in [800e6, 900e6] {
            assert_eq!(Scenario::figure_6(flow, 1.0).duration_s(), None);
            assert!(!Scenario::figure_6(flow, 1.0).is_feasible());
        }
    }

    #[test]
    fn largest_flow_for_a_wanted_duration() {
        let expected = [(0.5, 200.0), (0.75, 644.0), (1.0, 771.4), (2.0, 905.9), (5.0, 966.0), (10.0, 983.5)];
        for (duration, flow_mbps) in expected {
            let half_unit = if flow_mbps == 644.0 { 0.5 } else { 0.05 };
            let without = Scenario::figure_6(0.0, 0.0).flow_bound_bps(duration).map(|bps| bps / 1e6);
            assert_about(without, flow_mbps, half_unit);
            let duplicated = Scenario::figure_6(0.0, 1.0).flow_bound_bps(duration).map(|bps| bps / 1e6);
            assert_about(duplicated, without.expect("feasible") / 3.0, 1e-6);
        }
        assert_eq!(Scenario::figure_6(0.0, 0.0).flow_bound_bps(0.3), None);
        assert_eq!(Scenario::figure_6(0.0, 0.0).flow_bound_bps(0.4), None, "the snapshot alone fills link m");
    }

    #[test]
    fn sigma_bound_and_duration_agree() {
        for flow in [100e6, 300e6, 600e6] {
            for duration in [0.75, 1.0, 2.0, 10.0] {
                let scenario = Scenario::figure_6(flow, 0.0);
                match scenario.sigma_bound(duration) {
                    Some(sigma) => {
                        assert_about(Scenario { sigma, ..scenario }.duration_s(), duration, 1e-9);
                        assert!(Scenario { sigma: sigma * 0.999, ..scenario }.is_feasible());
                    }
                    None => assert!(scenario.duration_s().is_none_or(|without| without >= duration)),
                }
            }
        }
        assert_eq!(Scenario::figure_6(900e6, 0.0).sigma_bound(0.5), None);
    }

    #[test]
    fn testbed_durations() {
        let expected = [(100e6, 0.487, 0.510), (300e6, 0.542, 0.719), (400e6, 0.584, 1.139), (480e6, 0.630, 4.49)];
        for (workload, statelets, duplication) in expected {
            assert_about(Scenario::testbed(workload, NAT_SIGMA).duration_s(), statelets, 0.0005);
            let half_unit = if duplication > 2.0 { 0.005 } else { 0.0005 };
            assert_about(Scenario::testbed(workload, 1.0).duration_s(), duplication, half_unit);
        }
        assert_eq!(Scenario::testbed(500e6, 1.0).duration_s(), None);
        assert_about(Scenario::testbed(800e6, NAT_SIGMA).duration_s(), 1.225, 0.0005);
        assert_about(Scenario::testbed(900e6, NAT_SIGMA).duration_s(), 2.43, 0.005);
    }

    #[test]
    fn statelets_live_up_to_the_whole_link_less_their_own_share() {
        let bound = 1e9 / (1.0 + NAT_SIGMA);
        assert!(Scenario::testbed(bound * 0.9999, NAT_SIGMA).is_feasible());
        assert!(!Scenario::testbed(bound * 1.0001, NAT_SIGMA).is_feasible());
    }
}
