//! What a migration of a running instance will take, in each mode: equations 1 to 3 with what was measured.

use super::Scenario;
use crate::protocol::Mode;

/// What was measured of a running instance, and how it is to be migrated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// The rate of the instances' links in each direction, which state and traffic share; infinite if they do not.
    pub link_bps: f64,
    /// Traffic through the instance, the sum of both directions.
    pub load_bps: f64,
    /// Packets through the instance, per second.
    pub packets_per_s: f64,
    /// Statelets, as they would be on the wire.
    pub statelets_bps: f64,
    /// Packets as `duplicate` would send them, as they would be on the wire.
    pub duplicates_bps: f64,
    /// The snapshot, as it would be on the wire.
    pub snapshot_bits: f64,
    /// What the snapshot is paced to; infinite if it is not.
    pub pace_bps: f64,
    /// T_B, the time to take the snapshot and to install it.
    pub local_s: f64,
    /// What `dst_inst` can hold in `pkt_q` before the migration is undone.
    pub pkt_q_bits: f64,
}

/// How a migration in one mode will go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Forecast {
    /// It will be over.
    Converges {
        /// After this time.
        duration_s: f64,
        /// What it takes besides.
        cost: Cost,
    },
    /// Link and load leave nothing for the snapshot: without end, or not without loss.
    NeverEnds {
        /// What the link lacks, even without a snapshot.
        lacking_bps: f64,
    },
    /// More packets have to wait than there is room for.
    NoRoom {
        /// What would have to wait.
        waiting_bits: f64,
    },
}

/// What a migration costs besides its duration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    /// So much of the link while it lasts.
    Link {
        /// For statelets or duplicates.
        updates_bps: f64,
    },
    /// Packets wait, the last of them until it is over.
    Waiting {
        /// How much waits at most.
        waiting_bits: f64,
    },
    /// Packets are dropped until the redirect.
    Lost {
        /// How many.
        packets: f64,
    },
}

impl Observed {
    /// How a migration in `mode` will go.
    pub fn forecast(&self, mode: Mode) -> Forecast {
        match mode {
            Mode::Statelet => self.updating(self.statelets_bps),
            Mode::Duplicate => self.updating(self.duplicates_bps),
            Mode::Buffer => {
                let duration_s = self.transfer_s(0.0, 0.0);
                let waiting_bits = self.load_bps * duration_s;
                if waiting_bits > self.pkt_q_bits {
                    return Forecast::NoRoom { waiting_bits };
                }
                Forecast::Converges { duration_s, cost: Cost::Waiting { waiting_bits } }
            }
            Mode::StopAndCopy => {
                let duration_s = self.transfer_s(0.0, 0.0);
                Forecast::Converges { duration_s, cost: Cost::Lost { packets: self.packets_per_s * duration_s } }
            }
        }
    }

    /// With traffic going on, and so much that keeps the destination up to date.
    fn updating(&self, updates_bps: f64) -> Forecast {
        let scenario = self.scenario(self.load_bps, updates_bps);
        if !scenario.is_feasible() {
            return Forecast::NeverEnds { lacking_bps: updates_bps - scenario.remaining_bps() };
        }
        let duration_s = self.transfer_s(self.load_bps, updates_bps);
        Forecast::Converges { duration_s, cost: Cost::Link { updates_bps } }
    }

    /// Equation 3, unless the snapshot is paced to less than what is left.
    fn transfer_s(&self, load_bps: f64, updates_bps: f64) -> f64 {
        let paced_s = self.local_s + self.snapshot_bits / self.pace_bps;
        // Whoever asks has made sure that it ends.
        self.scenario(load_bps, updates_bps).duration_s().unwrap_or(f64::INFINITY).max(paced_s)
    }

    /// The instance's link as link *l*: all traffic from the instance passes it, and all state.
    fn scenario(&self, load_bps: f64, updates_bps: f64) -> Scenario {
        Scenario {
            capacity_l_bps: self.link_bps,
            capacity_m_bps: f64::INFINITY,
            capacity_n_bps: self.link_bps,
            flow_ab_bps: load_bps,
            flow_ba_bps: 0.0,
            sigma: if load_bps > 0.0 { updates_bps / load_bps } else { 0.0 },
            snapshot_bits: self.snapshot_bits,
            local_s: self.local_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The testbed of §VII under a load in Mbit/s.
    fn testbed(load_mbit: f64) -> Observed {
        let load_bps = load_mbit * 1e6;
        Observed {
            link_bps: 1e9,
            load_bps,
            packets_per_s: load_bps / (8.0 * 512.0),
            statelets_bps: 0.0234 * load_bps,
            duplicates_bps: load_bps,
            snapshot_bits: 20.0 * 1024.0 * 1024.0 * 8.0,
            pace_bps: f64::INFINITY,
            local_s: 0.3,
            pkt_q_bits: 32e6 * 8.0,
        }
    }

    #[track_caller]
    fn duration(observed: &Observed, mode: Mode) -> f64 {
        match observed.forecast(mode) {
            Forecast::Converges { duration_s, .. } => duration_s,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_are_those_of_equation_3() {
        for load in [100.0, 300.0, 480.0] {
            for (mode, sigma) in [(Mode::Statelet, 0.0234), (Mode::Duplicate, 1.0)] {
                let expected = Scenario::testbed(load * 1e6, sigma).duration_s().unwrap();
                assert!((duration(&testbed(load), mode) - expected).abs() < 1e-9, "{mode} at {load}");
            }
        }
    }

    #[test]
    fn what_never_ends_says_how_much_the_link_lacks() {
        assert!(matches!(
            testbed(600.0).forecast(Mode::Duplicate),
            Forecast::NeverEnds { lacking_bps } if (lacking_bps - 200e6).abs() < 1.0
        ));
        assert!(matches!(testbed(980.0).forecast(Mode::Statelet), Forecast::NeverEnds { .. }));
        assert!(matches!(testbed(970.0).forecast(Mode::Statelet), Forecast::Converges { .. }));
    }

    #[test]
    fn a_pace_below_what_is_left_is_what_counts() {
        let paced = Observed { pace_bps: 250e6, ..testbed(300.0) };
        assert!((duration(&paced, Mode::Statelet) - (0.3 + paced.snapshot_bits / 250e6)).abs() < 1e-9);
        let hasty = Observed { pace_bps: 900e6, ..testbed(300.0) };
        assert_eq!(duration(&hasty, Mode::Statelet), duration(&testbed(300.0), Mode::Statelet));
    }

    #[test]
    fn packets_that_wait_need_room_and_those_that_do_not_are_lost() {
        let Forecast::Converges { duration_s, cost: Cost::Waiting { waiting_bits } } =
            testbed(400.0).forecast(Mode::Buffer)
        else {
            panic!()
        };
        assert!((waiting_bits - 400e6 * duration_s).abs() < 1.0);
        assert!(matches!(testbed(600.0).forecast(Mode::Buffer), Forecast::NoRoom { .. }));
        assert!(matches!(
            testbed(600.0).forecast(Mode::StopAndCopy),
            Forecast::Converges { cost: Cost::Lost { packets }, .. } if packets > 60_000.0
        ));
    }

    #[test]
    fn without_a_link_to_share_and_without_traffic_everything_converges() {
        for observed in [Observed { link_bps: f64::INFINITY, ..testbed(5000.0) }, testbed(0.0)] {
            for mode in [Mode::Statelet, Mode::Duplicate, Mode::StopAndCopy] {
                assert!(duration(&observed, mode) >= 0.3);
            }
        }
    }
}
