//! What is run: cells of a grid of network function, packet size, load, mode, scheduling and repetition.

use serde::{Deserialize, Serialize};
use slim_core::protocol;
use std::collections::BTreeSet;
use std::fmt;

/// The network functions of §VI-C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vnf {
    /// The NAT.
    Nat,
    /// The mobile packet gateway, the paper's "PG".
    Gateway,
}

impl Vnf {
    /// Its name in file names and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Gateway => "gateway",
        }
    }
}

/// How the state is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Statelets: SliM.
    Statelet,
    /// Whole packets: P2P-OpenNF.
    Duplicate,
    /// Packets wait while the state moves: OpenNF and Split/Merge.
    Buffer,
    /// The source stops first.
    StopAndCopy,
    /// The hypervisor's own live migration (§V-A).
    Precopy,
}

impl Mode {
    /// Its name in commands and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Statelet => "statelet",
            Self::Duplicate => "duplicate",
            Self::Buffer => "buffer",
            Self::StopAndCopy => "stop-and-copy",
            Self::Precopy => "precopy",
        }
    }

    /// The instances' own mode; `None` for the one that they know nothing of.
    pub const fn of_instances(self) -> Option<protocol::Mode> {
        match self {
            Self::Statelet => Some(protocol::Mode::Statelet),
            Self::Duplicate => Some(protocol::Mode::Duplicate),
            Self::Buffer => Some(protocol::Mode::Buffer),
            Self::StopAndCopy => Some(protocol::Mode::StopAndCopy),
            Self::Precopy => None,
        }
    }
}

/// Who goes first on the link that traffic and state share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduling {
    /// Nobody, as in the paper.
    BestEffort,
    /// Packets and statelets before snapshot bytes.
    DataplaneFirst,
}

impl Scheduling {
    /// Its name in commands and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::DataplaneFirst => "dataplane-first",
        }
    }
}

impl From<Scheduling> for protocol::Scheduling {
    fn from(scheduling: Scheduling) -> Self {
        match scheduling {
            Scheduling::BestEffort => Self::BestEffort,
            Scheduling::DataplaneFirst => Self::DataplaneFirst,
        }
    }
}

/// How a stream makes way for other traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// CUBIC, the kernel's default.
    #[default]
    Cubic,
    /// Not at all: its window is always full.
    None,
}

/// What differs from the testbed of §VII, for experiments that explain a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variation {
    /// Statelets are merged while they wait.
    pub coalesce: bool,
    /// The statelet stream is compressed.
    pub compress: bool,
    /// The burst that each meter lets through, in milliseconds of the link's rate.
    pub burst_ms: u32,
    /// How streams make way.
    pub congestion: Congestion,
    /// The most that a stream may have under way, in KiB.
    pub window_kib: u32,
}

/// The testbed of §VII: statelets as they are announced, 20 ms of burst, and a TCP that may have somewhat less than the
/// link's own 1.25 MB under way.
pub const TESTBED: Variation =
    Variation { coalesce: false, compress: false, burst_ms: 20, congestion: Congestion::Cubic, window_kib: 1024 };

impl Default for Variation {
    fn default() -> Self {
        TESTBED
    }
}

/// One point of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setup {
    /// The network function.
    pub vnf: Vnf,
    /// The size of every frame, from its Ethernet header on.
    pub packet_size_bytes: u16,
    /// The load in Mbit/s, the sum of both directions, on a link of 1000.
    pub rate_mbit: u32,
    /// How the state is moved.
    pub mode: Mode,
    /// Who goes first on the link.
    pub scheduling: Scheduling,
    /// What differs from the testbed.
    #[serde(default)]
    pub variation: Variation,
}

impl Setup {
    /// A point on the testbed of §VII.
    const fn on_testbed(vnf: Vnf, packet_size_bytes: u16, rate_mbit: u32, mode: Mode, scheduling: Scheduling) -> Self {
        Self { vnf, packet_size_bytes, rate_mbit, mode, scheduling, variation: TESTBED }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vnf, packet_size_bytes, rate_mbit, mode, scheduling, variation } = self;
        write!(f, "{} {packet_size_bytes} B {rate_mbit} Mbit/s {}", vnf.name(), mode.name())?;
        if *scheduling != Scheduling::BestEffort {
            write!(f, " {}", scheduling.name())?;
        }
        if *variation != Variation::default() {
            f.write_str(" (varied)")?;
        }
        Ok(())
    }
}

/// One run to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// Where in the grid.
    pub setup: Setup,
    /// Which repetition, from 0; everything random comes from it.
    pub repetition: u32,
}

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything, 13 times as in the paper.
    Full,
    /// What the claims need, in minutes.
    Quick,
}

/// The loads of figures 11 to 18, and one beyond.
pub const RATES_MBIT: [u32; 10] = [100, 200, 300, 400, 500, 600, 700, 800, 900, 950];

/// The packet sizes of §VII.
pub const PACKET_SIZES_BYTES: [u16; 2] = [512, 1400];

/// Repetitions in the full plan, as in the paper.
pub const REPETITIONS: u32 = 13;

/// Loads of the quick plan where the claims do not need all.
const FEW_RATES_MBIT: [u32; 5] = [100, 300, 500, 800, 950];

/// Loads at which statelets are merged and compressed, or only either.
pub const ECONOMY_RATES_MBIT: [u32; 2] = [100, 400];

/// Loads of the experiments that explain where loss begins.
pub const EXPERIMENT_RATES_MBIT: [u32; 6] = [200, 300, 400, 500, 800, 900];

/// What differs from all other runs in one of those experiments.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// What they are called.
    pub name: &'static str,
    /// Who goes first.
    pub scheduling: Scheduling,
    /// What differs from the testbed.
    pub variation: Variation,
}

const fn varied(name: &'static str, variation: Variation) -> Conditions {
    Conditions { name, scheduling: Scheduling::BestEffort, variation }
}

/// Conditions of those experiments: one thing differs in each.
pub const EXPERIMENTS: [Conditions; 7] = [
    varied("as in all other runs", TESTBED),
    varied("streams may have 512 KiB under way", Variation { window_kib: 512, ..TESTBED }),
    varied("streams may have 4 MiB under way", Variation { window_kib: 4096, ..TESTBED }),
    varied("streams do not make way: no congestion control", Variation { congestion: Congestion::None, ..TESTBED }),
    varied("the meter lets 2 ms through at once", Variation { burst_ms: 2, ..TESTBED }),
    varied("the meter lets 100 ms through at once", Variation { burst_ms: 100, ..TESTBED }),
    Conditions {
        name: "the snapshot waits: dataplane first",
        scheduling: Scheduling::DataplaneFirst,
        variation: TESTBED,
    },
];

/// Every way to save statelet bytes, with what it is called.
pub const ECONOMIES: [(&str, Variation); 4] = [
    ("as announced", TESTBED),
    ("merged", Variation { coalesce: true, ..TESTBED }),
    ("compressed", Variation { compress: true, ..TESTBED }),
    ("merged and compressed", Variation { coalesce: true, compress: true, ..TESTBED }),
];

/// Loads of the quick plan for booted images, and how often each is run.
const IMAGES_RATES_MBIT: [u32; 3] = [100, 500, 950];
const IMAGES_REPETITIONS: u32 = 2;

/// What booted images run in real time, repetition by repetition.
pub fn vm_plan(extent: Extent) -> Vec<Cell> {
    let setup = |size, rate, mode, scheduling| Setup::on_testbed(Vnf::Nat, size, rate, mode, scheduling);
    let cells = |setups: Vec<Setup>, repetitions: u32| {
        (0..repetitions)
            .flat_map(move |repetition| setups.clone().into_iter().map(move |setup| Cell { setup, repetition }))
            .collect::<Vec<_>>()
    };
    let promised = |size, rate| setup(size, rate, Mode::Statelet, Scheduling::DataplaneFirst);
    let compared = |mode, rate| setup(1400, rate, mode, Scheduling::BestEffort);
    let whole = |rate| setup(1400, rate, Mode::Precopy, Scheduling::DataplaneFirst);
    match extent {
        Extent::Quick => {
            let mut plan = cells(IMAGES_RATES_MBIT.map(|rate| promised(512, rate)).into(), IMAGES_REPETITIONS);
            let others = [
                compared(Mode::Statelet, 300),
                compared(Mode::Duplicate, 300),
                compared(Mode::Duplicate, 600),
                compared(Mode::Buffer, 300),
                compared(Mode::StopAndCopy, 300),
            ];
            plan.extend(cells(others.into(), 1));
            let gateway = |mode, scheduling| Setup::on_testbed(Vnf::Gateway, 1400, 500, mode, scheduling);
            let gateways = [
                gateway(Mode::Statelet, Scheduling::DataplaneFirst),
                gateway(Mode::Statelet, Scheduling::BestEffort),
                gateway(Mode::Duplicate, Scheduling::BestEffort),
            ];
            plan.extend(cells(gateways.into(), 1));
            plan.extend(cells([100, 500].map(whole).into(), 1));
            plan
        }
        Extent::Full => {
            let mut setups = Vec::new();
            for (mode, scheduling) in LINES {
                for size in PACKET_SIZES_BYTES {
                    for vnf in [Vnf::Nat, Vnf::Gateway] {
                        setups.extend(RATES_MBIT.map(|rate| Setup::on_testbed(vnf, size, rate, mode, scheduling)));
                    }
                }
            }
            for mode in [Mode::Buffer, Mode::StopAndCopy] {
                setups.extend(FEW_RATES_MBIT.map(|rate| compared(mode, rate)));
            }
            setups.extend(FEW_RATES_MBIT.map(whole));
            setups.sort_unstable();
            cells(setups, REPETITIONS)
        }
    }
}

/// What the simulation runs, repetition by repetition: whatever is done when it is interrupted covers all figures.
pub fn sim_plan(extent: Extent) -> Vec<Cell> {
    let repetitions = match extent {
        Extent::Full => REPETITIONS,
        Extent::Quick => 2,
    };
    let setups: BTreeSet<Setup> = sim_setups(extent).into_iter().collect();
    (0..repetitions).flat_map(|repetition| setups.iter().map(move |&setup| Cell { setup, repetition })).collect()
}

/// The lines of figures 11 to 18.
pub const LINES: [(Mode, Scheduling); 3] = [
    (Mode::Statelet, Scheduling::BestEffort),
    (Mode::Duplicate, Scheduling::BestEffort),
    (Mode::Statelet, Scheduling::DataplaneFirst),
];

fn sim_setups(extent: Extent) -> Vec<Setup> {
    let few: &[u32] = if extent == Extent::Full { &RATES_MBIT } else { &FEW_RATES_MBIT };
    let setup = Setup::on_testbed;
    let mut setups = Vec::new();
    for (mode, scheduling) in LINES {
        // The paper's own lines come first where there is little time.
        let short = extent == Extent::Quick && scheduling == Scheduling::DataplaneFirst;
        for &size in if short { &PACKET_SIZES_BYTES[1..] } else { &PACKET_SIZES_BYTES[..] } {
            setups.extend(RATES_MBIT.map(|rate| setup(Vnf::Nat, size, rate, mode, scheduling)));
            setups.extend(few.iter().map(|&rate| setup(Vnf::Gateway, size, rate, mode, scheduling)));
        }
    }
    for mode in [Mode::Buffer, Mode::StopAndCopy] {
        setups.extend(few.iter().map(|&rate| setup(Vnf::Nat, 1400, rate, mode, Scheduling::BestEffort)));
    }
    for Conditions { scheduling, variation, .. } in EXPERIMENTS {
        for mode in [Mode::Statelet, Mode::Duplicate] {
            let of = |rate| Setup { variation, ..setup(Vnf::Nat, 1400, rate, mode, scheduling) };
            setups.extend(EXPERIMENT_RATES_MBIT.map(of));
        }
    }
    for (_, variation) in ECONOMIES {
        let of = |rate| Setup { variation, ..setup(Vnf::Nat, 512, rate, Mode::Statelet, Scheduling::BestEffort) };
        setups.extend(ECONOMY_RATES_MBIT.map(of));
    }
    setups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_plan_is_part_of_the_full_one_and_no_cell_is_run_twice() {
        for plan in [sim_plan, vm_plan] {
            let [full, quick] = [Extent::Full, Extent::Quick].map(plan);
            let unique: BTreeSet<Cell> = full.iter().copied().collect();
            assert_eq!(unique.len(), full.len());
            assert!(quick.iter().all(|cell| unique.contains(cell)));
            assert_eq!(full.iter().map(|cell| cell.repetition).max(), Some(12));
        }
    }

    #[test]
    fn a_cell_is_read_as_it_was_written() {
        for cell in sim_plan(Extent::Quick) {
            let text = serde_json::to_string(&cell).unwrap();
            assert_eq!(serde_json::from_str::<Cell>(&text).unwrap(), cell);
        }
    }
}
