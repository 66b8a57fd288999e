//! Where the source stands, and what each of its shards has reported.

use crate::protocol::control::{SnapshotTotals, StateletTotals};
use crate::protocol::{Digest, SourcePhase};
use crate::statelet::End;
use crate::vei::action::LcoreTotals;

/// Which side of the commit point the migration is on. Only [`Reversible`] can be rolled back by this side alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Reversible(Reversible),
    Committed(Committed),
    Back(Back),
}

/// Before the commit point: this side decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reversible {
    Connecting,
    Freezing,
    Transferring,
    Draining,
    Stopping,
    Flushing,
}

/// After it: the destination, or the controller's word, decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    AwaitingTakeOver,
    Unacknowledged,
    Released,
}

/// The migration was undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    Rolling,
    Done,
}

impl Stage {
    pub(super) fn phase(self) -> SourcePhase {
        match self {
            Self::Reversible(Reversible::Connecting) => SourcePhase::Connecting,
            Self::Reversible(Reversible::Freezing) => SourcePhase::Freezing,
            Self::Reversible(Reversible::Transferring) => SourcePhase::Transferring,
            Self::Reversible(Reversible::Draining) => SourcePhase::Draining,
            Self::Reversible(Reversible::Stopping) => SourcePhase::Stopping,
            Self::Reversible(Reversible::Flushing) => SourcePhase::Flushing,
            Self::Committed(Committed::AwaitingTakeOver) => SourcePhase::Committed,
            Self::Committed(Committed::Unacknowledged) => SourcePhase::Unacknowledged,
            Self::Committed(Committed::Released) => SourcePhase::Released,
            Self::Back(Back::Rolling) => SourcePhase::RollingBack,
            Self::Back(Back::Done) => SourcePhase::RolledBack,
        }
    }
}

/// What one shard's lcore and streams have reported.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) statelets_accepted: bool,
    pub(super) snapshot_accepted: bool,
    pub(super) frozen: bool,
    pub(super) snapshot: Option<SnapshotTotals>,
    pub(super) stopped: Option<LcoreTotals>,
    pub(super) flushed: Option<(End, StateletTotals)>,
    pub(super) digest: Option<Digest>,
    pub(super) resumed: bool,
    pub(super) closed: bool,
}
