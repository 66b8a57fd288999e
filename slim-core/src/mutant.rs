//! Mutants: variants of this code that are broken on purpose, for the simulation to find.
//!
//! Without the feature `mutants` none is ever [active](is_active): a constant, so the call sites cost nothing. With it,
//! [`select`] switches one on for the calling thread. A test environment that lets a mutant pass would let the same
//! mistake pass.

use core::fmt;
use core::str::FromStr;

macro_rules! mutants {
    ($($(#[doc = $description:literal])+ $variant:ident = $name:literal,)*) => {
        /// One deliberate mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $description])+ $variant,)*
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in commands.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What is wrong with it, in a line.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($description),+).trim_ascii(),)*
                }
            }
        }
    };
}

mutants! {
    /// The lcore freezes the state a packet after it has set upd_enable.
    FreezeLate = "freeze-late",
    /// The lcore does not announce the first packet after the freeze.
    AnnounceLate = "announce-late",
    /// A statelet that finds st_q_out full is dropped, and nobody is told.
    StateletLost = "statelet-lost",
    /// The destination processes what arrives although pkt_q is not empty yet.
    PktQOvertaken = "pkt-q-overtaken",
    /// A source that resumes goes on announcing.
    UpdEnableLeftSet = "upd-enable-left-set",
    /// A destination that is told to hand pkt_q back throws it away.
    HandBackDropped = "hand-back-dropped",
    /// The source stops although packets wait in its receive queues.
    StopEarly = "stop-early",
    /// The destination counts drops from zero.
    DropsForgotten = "drops-forgotten",
    /// The source stops without waiting for drain packets.
    DrainIgnored = "drain-ignored",
    /// The source stops at the first drain packet, whatever its path.
    FirstDrainSuffices = "first-drain-suffices",
    /// The source counts drain packets of other stages and migrations.
    DrainUnchecked = "drain-unchecked",
    /// The source flushes its statelet streams before its lcores have stopped.
    FlushBeforeStop = "flush-before-stop",
    /// The source still obeys an abort after it has sent its end records.
    AbortAfterCommit = "abort-after-commit",
    /// The source sends the snapshots of its shards in the opposite order.
    ShardsMixed = "shards-mixed",
    /// The destination takes over without comparing the number of statelets applied with the end record's.
    CountUnchecked = "count-unchecked",
    /// The destination applies statelets before the snapshot is installed.
    StateletsBeforeSnapshot = "statelets-before-snapshot",
    /// What is removed from a table while a snapshot is read stays there.
    RemovalDuringFreezeLost = "removal-during-freeze-lost",
    /// The NAT removes what has expired without announcing it.
    RemovalUnannounced = "removal-unannounced",
    /// The coordinator believes what is said about another migration.
    StaleEventAccepted = "stale-event-accepted",
    /// The coordinator takes a destination that cannot be asked for one that will not take over.
    UnreachableTakenForUndone = "unreachable-taken-for-undone",
    /// The coordinator has the source resume without redirecting the paths back.
    RedirectBackForgotten = "redirect-back-forgotten",
    /// The switch redirects one path at once and the others when the first drain packet is acknowledged.
    RedirectNotAtomic = "redirect-not-atomic",
    /// The switch puts drain packets before what waits for the instance.
    DrainOvertakes = "drain-overtakes",
    /// The switch lets go of held packets before the hand-back has ended.
    HoldReleasedEarly = "hold-released-early",
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no mutant of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such mutant")]
pub struct UnknownMutant;

impl FromStr for Mutant {
    type Err = UnknownMutant;

    fn from_str(name: &str) -> Result<Self, UnknownMutant> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name).ok_or(UnknownMutant)
    }
}

/// Whether the calling thread is to make this mistake.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_active(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use selected::{is_active, select};

#[cfg(feature = "mutants")]
mod selected {
    use super::Mutant;
    use core::cell::Cell;

    std::thread_local! {
        static SELECTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether the calling thread is to make this mistake.
    #[inline]
    pub fn is_active(mutant: Mutant) -> bool {
        SELECTED.get() == Some(mutant)
    }

    /// Has the calling thread make this mistake, and no other, from now on.
    pub fn select(mutant: Option<Mutant>) {
        SELECTED.set(mutant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for &mutant in Mutant::ALL {
            assert_eq!(mutant.name().parse(), Ok(mutant));
            assert!(mutant.description().ends_with('.'), "{mutant}: {}", mutant.description());
        }
        assert_eq!("".parse::<Mutant>(), Err(UnknownMutant));
    }

    #[test]
    fn none_is_active_unless_selected() {
        assert!(Mutant::ALL.iter().all(|&mutant| !is_active(mutant)));
    }
}
