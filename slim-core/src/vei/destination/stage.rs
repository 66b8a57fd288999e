//! Where the destination stands, and what each of its shards has reported.

use crate::mutant::{self, Mutant};
use crate::protocol::control::{PktQTotals, SnapshotTotals, StateletTotals};
use crate::protocol::{DestinationPhase, Digest, Nonce};

/// Which side of the commit point the migration is on, or that it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the commit point: the source has everything, and may be given everything back.
    Reversible(Reversible),
    /// After it: this instance has everything.
    Committed(Committed),
    /// The migration was undone, or cannot but be.
    Failed(Failed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reversible {
    Arming,
    Armed,
    Installing,
    Synchronising,
    Redirecting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    TakingOver,
    Live,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// Waiting for the controller.
    Holding,
    /// Waiting for the drain packets with this nonce.
    Draining(Nonce),
    /// The lcores hand back what they hold.
    HandingBack,
    Discarding,
    Discarded,
}

impl Stage {
    pub(super) fn phase(self) -> DestinationPhase {
        match self {
            Self::Reversible(Reversible::Arming) => DestinationPhase::Arming,
            Self::Reversible(Reversible::Armed) => DestinationPhase::Armed,
            Self::Reversible(Reversible::Installing) => DestinationPhase::Installing,
            Self::Reversible(Reversible::Synchronising) => DestinationPhase::Synchronising,
            Self::Reversible(Reversible::Redirecting) => DestinationPhase::Redirecting,
            Self::Committed(Committed::TakingOver) => DestinationPhase::TakingOver,
            Self::Committed(Committed::Live) => DestinationPhase::Live,
            Self::Failed(Failed::Holding) => DestinationPhase::Failed,
            Self::Failed(Failed::Draining(_) | Failed::HandingBack) => DestinationPhase::HandingBack,
            Self::Failed(Failed::Discarding) => DestinationPhase::Discarding,
            Self::Failed(Failed::Discarded) => DestinationPhase::Discarded,
        }
    }
}

/// What one shard's lcore and streams have reported.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) armed: bool,
    pub(super) statelets_accepted: bool,
    pub(super) snapshot_accepted: bool,
    pub(super) snapshot: Option<SnapshotTotals>,
    pub(super) applied_records: u64,
    /// `st_q_in` has run empty, or down to *d*, at least once.
    pub(super) underrun: bool,
    /// The number of statelets of the end record, once that has arrived intact.
    pub(super) end_records: Option<u64>,
    pub(super) statelets: StateletTotals,
    pub(super) pkt_q: PktQTotals,
    pub(super) pkt_q_drained: bool,
    pub(super) digest: Option<Digest>,
    pub(super) handed_back: bool,
    pub(super) discarded: bool,
    pub(super) closed: bool,
}

impl Shard {
    pub(super) fn is_complete(&self) -> bool {
        let applied = self.end_records == Some(self.applied_records);
        let applied = applied || mutant::is_active(Mutant::CountUnchecked) && self.end_records.is_some();
        self.snapshot.is_some() && applied
    }
}
