//! What may go wrong, and when.

use crate::Random;
use slim_core::protocol::{DestinationPhase, MigrationPhase, SourcePhase};
use slim_core::time::Duration;

/// Something that goes wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operator gives up.
    Abort,
    /// A second migration of the same instance is asked for, by somebody who does not know of the first.
    SecondMigration,
    /// A stream between the instances is reset after so many more bytes.
    ResetStream {
        /// Which of those open, and how many bytes later.
        choice: u64,
    },
    /// The control connection of an instance is reset after so many more bytes.
    ResetControl {
        /// The instance.
        node: usize,
        /// How many bytes later.
        bytes: u64,
    },
    /// The control connection of the switch breaks, and nobody gets through for a while.
    SwitchOutage(Duration),
    /// No management frame gets to or from a host for a while: 0 and 1 are instances, 2 the controller.
    Partition {
        /// The host.
        host: usize,
        /// The only one it cannot talk to; with none, it is everybody.
        peer: Option<usize>,
        /// How long.
        time: Duration,
    },
    /// An instance's management side does not run for a while: it reads nothing.
    StalledReader {
        /// The instance.
        node: usize,
        /// How long.
        time: Duration,
    },
    /// An instance's lcores do not run for a while, as on a crowded host: its rings fill.
    StalledLcores {
        /// The instance.
        node: usize,
        /// The only one that does not run; with none, it is all of them.
        only: Option<usize>,
        /// How long.
        time: Duration,
    },
    /// An instance dies with all it holds, and another one comes up in its place.
    Crash {
        /// The instance.
        node: usize,
        /// How long it takes; none comes if this is zero.
        restart: Duration,
    },
    /// The switch dies with all it holds, and another one comes up in its place.
    SwitchCrash(Duration),
    /// The controller dies and another one is started.
    ControllerCrash(Duration),
    /// A control message arrives a second time, so much later.
    LateDuplicate(Duration),
}

/// When a fault strikes, counted from the begin of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After a time.
    After(Duration),
    /// Right behind a step: the n-th event of the trace.
    Step(u64),
    /// As soon as an instance enters a phase, or a little later.
    Phase(MigrationPhase),
}

impl Fault {
    /// The kinds of faults that strike once.
    pub const KINDS: [&'static str; 12] = [
        "abort",
        "second migration",
        "stream reset",
        "control reset",
        "switch outage",
        "partition",
        "stalled reader",
        "stalled lcores",
        "instance crash",
        "switch crash",
        "controller crash",
        "late duplicate",
    ];

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        Self::KINDS[match self {
            Self::Abort => 0,
            Self::SecondMigration => 1,
            Self::ResetStream { .. } => 2,
            Self::ResetControl { .. } => 3,
            Self::SwitchOutage(_) => 4,
            Self::Partition { .. } => 5,
            Self::StalledReader { .. } => 6,
            Self::StalledLcores { .. } => 7,
            Self::Crash { .. } => 8,
            Self::SwitchCrash(_) => 9,
            Self::ControllerCrash(_) => 10,
            Self::LateDuplicate(_) => 11,
        }]
    }

    /// One of a kind, by its number in [`KINDS`](Self::KINDS).
    pub(crate) fn of_kind(kind: usize, random: &mut Random) -> Self {
        let node = random.below(2) as usize;
        let short = log_uniform(random, 1, 300);
        let long = log_uniform(random, 5, 4_000);
        match kind {
            0 => Self::Abort,
            1 => Self::SecondMigration,
            2 => Self::ResetStream { choice: random.number() },
            3 => Self::ResetControl { node, bytes: random.below(600) },
            4 => Self::SwitchOutage(short),
            5 => {
                let host = random.below(3) as usize;
                let peer = random.chance(600).then(|| (host + 1 + random.below(2) as usize) % 3);
                // Half of them longer than anybody waits for an answer.
                let (low, high) = if random.chance(500) { (5, 3_000) } else { (9_000, 40_000) };
                Self::Partition { host, peer, time: log_uniform(random, low, high) }
            }
            6 => Self::StalledReader { node, time: long },
            7 => {
                let only = random.chance(600).then(|| random.below(2) as usize);
                Self::StalledLcores { node, only, time: short }
            }
            8 => Self::Crash { node, restart: if random.chance(500) { Duration::ZERO } else { long } },
            9 => Self::SwitchCrash(short),
            10 => Self::ControllerCrash(short),
            _ => Self::LateDuplicate(short),
        }
    }
}

/// Phases of a migration that succeeds, and of its undoing.
const PHASES: [MigrationPhase; 18] = [
    MigrationPhase::Source(SourcePhase::Connecting),
    MigrationPhase::Source(SourcePhase::Freezing),
    MigrationPhase::Source(SourcePhase::Transferring),
    MigrationPhase::Source(SourcePhase::Stopping),
    MigrationPhase::Source(SourcePhase::Flushing),
    MigrationPhase::Source(SourcePhase::Committed),
    MigrationPhase::Source(SourcePhase::Released),
    MigrationPhase::Destination(DestinationPhase::Redirecting),
    MigrationPhase::Destination(DestinationPhase::TakingOver),
    MigrationPhase::Destination(DestinationPhase::Live),
    MigrationPhase::Source(SourcePhase::Draining),
    MigrationPhase::Source(SourcePhase::RollingBack),
    MigrationPhase::Destination(DestinationPhase::Arming),
    MigrationPhase::Destination(DestinationPhase::Armed),
    MigrationPhase::Destination(DestinationPhase::Installing),
    MigrationPhase::Destination(DestinationPhase::Synchronising),
    MigrationPhase::Destination(DestinationPhase::HandingBack),
    MigrationPhase::Destination(DestinationPhase::Failed),
];

impl When {
    pub(crate) fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0..3 => Self::Phase(PHASES[random.below(PHASES.len() as u64) as usize]),
            // Around the commit point.
            3..5 => Self::Phase(PHASES[random.between(3, 9) as usize]),
            5..8 => Self::Step(random.below(130)),
            _ => Self::After(log_uniform(random, 1, 2_000)),
        }
    }
}

/// A time between both, short ones as likely as long ones.
pub(crate) fn log_uniform(random: &mut Random, low_ms: u64, high_ms: u64) -> Duration {
    let (low, high) = ((low_ms * 1000).ilog2(), (high_ms * 1000).ilog2());
    let bits = random.between(u64::from(low), u64::from(high));
    let micros = (1u64 << bits) + random.below(1 << bits);
    Duration::from_micros(micros.clamp(low_ms * 1000, high_ms * 1000))
}
