//! Which faults at which phases.

use crate::demo::InstanceArguments;
use crate::load::LoadSpec;
use clap::{Args, ValueEnum};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Options of a chaos run.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct ChaosSpec {
    /// Only these parties; may be given several times
    #[arg(long, value_enum, value_name = "PARTY")]
    pub party: Vec<Party>,

    /// Only at these phases; may be given several times
    #[arg(long, value_enum, value_name = "PHASE")]
    pub phase: Vec<Phase>,

    /// Only these faults; may be given several times
    #[arg(long, value_enum, value_name = "FAULT")]
    pub fault: Vec<Blow>,

    /// Run each cell this many times in a row
    #[arg(long, default_value_t = 1, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,

    /// Run the network functions as ordinary processes instead of booting images
    #[arg(long)]
    pub process: bool,

    /// How the images run: with KVM, in QEMU's emulation, or with KVM where it will work
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
}

/// Whom or what a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// The process of `src_inst`.
    Source,
    /// The process of `dst_inst`.
    Destination,
    /// The switch agent.
    Switch,
    /// The controller's daemon.
    Controller,
    /// The statelet connection.
    Statelets,
    /// The snapshot connection.
    Snapshot,
    /// The control connection to `src_inst`.
    SourceControl,
    /// The control connection to `dst_inst`.
    DestinationControl,
    /// The person who asked for the migration.
    Operator,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blow {
    /// `kill -9`; switch and controller are started again.
    Kill,
    /// Stopped for less than any time-out, then continued.
    Pause,
    /// Stopped for longer than connections wait, then continued.
    Stall,
    /// The connection is reset.
    Cut,
    /// `slimctl abort`.
    Abort,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The destination arms.
    Preparing,
    /// The source has frozen and begins to send.
    TransferringEarly,
    /// Most of the snapshot has been sent.
    TransferringLate,
    /// The destination has caught up; the switch is to redirect.
    Redirecting,
    /// The drain packets are on their way.
    Draining,
    /// The destination has taken over; reports are collected.
    Finishing,
    /// The migration is over.
    Completed,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Preparing,
        Self::TransferringEarly,
        Self::TransferringLate,
        Self::Redirecting,
        Self::Draining,
        Self::Finishing,
        Self::Completed,
    ];
}

/// One fault at one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Whom.
    pub party: Party,
    /// What.
    pub blow: Blow,
    /// When.
    pub phase: Phase,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.what(), word(&self.phase))
    }
}

impl Cell {
    /// Whom and what, in words.
    pub fn what(&self) -> String {
        let party = word(&self.party);
        match self.blow {
            Blow::Kill => format!("{party} killed"),
            Blow::Pause => format!("{party} paused"),
            Blow::Stall => format!("{party} stalled"),
            Blow::Cut => format!("{party} connection cut"),
            Blow::Abort => format!("{party} aborts"),
        }
    }
}

impl Party {
    /// What can happen to it.
    fn blows(self) -> &'static [Blow] {
        match self {
            Self::Source | Self::Destination | Self::Switch | Self::Controller => {
                &[Blow::Kill, Blow::Pause, Blow::Stall]
            }
            Self::Statelets | Self::Snapshot | Self::SourceControl | Self::DestinationControl => &[Blow::Cut],
            Self::Operator => &[Blow::Abort],
        }
    }

    /// Whether it is there to be struck at `phase`.
    fn exists_at(self, phase: Phase) -> bool {
        let streams = Phase::TransferringEarly..=Phase::Draining;
        let snapshot = Phase::TransferringEarly..=Phase::TransferringLate;
        match self {
            Self::Statelets => streams.contains(&phase),
            Self::Snapshot => snapshot.contains(&phase),
            // A connection that breaks afterwards has nothing to do with the migration, and nobody aborts what is over.
            Self::SourceControl | Self::DestinationControl | Self::Operator => phase < Phase::Completed,
            Self::Source | Self::Destination | Self::Switch | Self::Controller => true,
        }
    }
}

impl Blow {
    /// Whether it is worth its time at `phase` unless asked for.
    fn by_default_at(self, phase: Phase) -> bool {
        match self {
            Self::Kill | Self::Cut | Self::Abort => true,
            Self::Pause | Self::Stall => matches!(phase, Phase::TransferringEarly | Phase::Draining),
        }
    }
}

impl ChaosSpec {
    /// Every cell that is asked for, in order.
    pub fn cells(&self) -> Vec<Cell> {
        fn wanted<T: PartialEq>(list: &[T], one: &T) -> bool {
            list.is_empty() || list.contains(one)
        }
        let mut cells = Vec::new();
        for party in Party::value_variants().iter().copied().filter(|party| wanted(&self.party, party)) {
            for blow in party.blows().iter().copied().filter(|blow| wanted(&self.fault, blow)) {
                for phase in Phase::ALL.into_iter().filter(|phase| wanted(&self.phase, phase)) {
                    if party.exists_at(phase) && (blow.by_default_at(phase) || !self.phase.is_empty()) {
                        cells.extend((0..self.repeat).map(|_| Cell { party, blow, phase }));
                    }
                }
            }
        }
        cells
    }

    /// How the instances run. The delay line is longer than the paper's, which stretches everything from the redirect to
    /// the take-over.
    pub fn instances(&self) -> InstanceArguments {
        InstanceArguments {
            accel: self.accel.clone(),
            process: self.process,
            link_delay: LINK_DELAY_US,
            ..InstanceArguments::default()
        }
    }

    /// The load: so slow that queues bridge an instance that is stopped for [`Blow::Stall`].
    pub fn load(&self) -> LoadSpec {
        LoadSpec {
            rate_mbit: 6.0,
            packet_size_bytes: 512,
            sockets: 64,
            duration_s: 600.0,
            warmup_s: 0.3,
            drain_s: 0.7,
            late_ms: 1_000.0,
            ..LoadSpec::default()
        }
    }
}

/// The delay of each instance's link.
const LINK_DELAY_US: u64 = 40_000;

/// A value as the command line writes it, with spaces.
pub(super) fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().replace('-', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(party: Vec<Party>, phase: Vec<Phase>) -> ChaosSpec {
        ChaosSpec { party, phase, fault: Vec::new(), repeat: 1, process: true, accel: "auto".into() }
    }

    #[test]
    fn every_party_is_struck_wherever_it_exists() {
        let all = spec(Vec::new(), Vec::new()).cells();
        let killed = |party| all.iter().filter(|cell| cell.party == party && cell.blow == Blow::Kill).count();
        assert_eq!([Party::Source, Party::Destination, Party::Switch, Party::Controller].map(killed), [7; 4]);
        let cut = |party| all.iter().filter(|cell| cell.party == party && cell.blow == Blow::Cut).count();
        assert_eq!(cut(Party::Statelets), 4);
        assert_eq!(cut(Party::Snapshot), 2);
        assert!(all.iter().all(|cell| cell.party.exists_at(cell.phase)));
    }

    #[test]
    fn filters_narrow_and_an_explicit_phase_widens() {
        let cells = spec(vec![Party::Source], vec![Phase::Finishing]).cells();
        let blows: Vec<Blow> = cells.iter().map(|cell| cell.blow).collect();
        assert_eq!(blows, [Blow::Kill, Blow::Pause, Blow::Stall]);
        assert!(spec(vec![Party::Snapshot], vec![Phase::Draining]).cells().is_empty());
    }
}
