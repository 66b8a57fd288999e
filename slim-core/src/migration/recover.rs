//! Picking up a migration that another run of the controller began.

use super::coordinator::{Coordinator, Purpose, Redirect};
use super::types::{CoordinatorParameters, CoordinatorPhase, CoordinatorTimeouts};
use crate::protocol::control::{InstanceStatus, MigrationRole, PrepareOptions, RedirectState, StartOptions};
use crate::protocol::{DestinationPhase, Failure, FailureCode, MigrationId, Name, Nonce};
use crate::time::Instant;

/// What a controller reads back after its restart. A party that cannot be reached is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// The migration, as one of the instances names it.
    pub migration: MigrationId,
    /// The instance that takes or took the source's part.
    pub source: Name,
    /// The instance that takes or took the destination's part.
    pub destination: Name,
    /// The source's status.
    pub source_status: Option<InstanceStatus>,
    /// The destination's status.
    pub destination_status: Option<InstanceStatus>,
    /// The switch's answer to `redirect_status`; the inner `None` if it knows no redirect of this migration.
    pub redirect: Option<Option<RedirectState>>,
    /// The longest each phase may take from now on.
    pub timeouts: CoordinatorTimeouts,
}

impl Coordinator {
    /// Continues a migration from what its parties say: forward if the source has begun and nobody has failed, back
    /// otherwise. Nothing else has to have been kept.
    pub fn recover(now: Instant, read: ReadBack) -> Self {
        let of_ours = |status: &Option<InstanceStatus>| {
            status.as_ref().and_then(|status| status.migration.clone()).filter(|known| known.id == read.migration)
        };
        let source = of_ours(&read.source_status);
        let destination = of_ours(&read.destination_status);
        let redirect_state = read.redirect.as_ref().and_then(|state| state.clone());
        let nonce = source.as_ref().and_then(|known| known.nonce).or(redirect_state
            .as_ref()
            .map(|state| if state.rollback { Nonce(state.nonce.0.wrapping_sub(1)) } else { state.nonce }));
        let parameters = CoordinatorParameters {
            migration: read.migration,
            nonce: nonce.unwrap_or(Nonce(0)),
            source: read.source,
            destination: read.destination,
            prepare: PrepareOptions::default(),
            start: StartOptions::default(),
            timeouts: read.timeouts,
        };
        let mut coordinator = Self::blank(now, parameters);
        coordinator.known.paths = source.as_ref().map(|known| known.paths).unwrap_or_default();
        coordinator.known.redirect = match (&read.redirect, &redirect_state) {
            (None, _) => Redirect::Unknown,
            (Some(_), None) => Redirect::NotAsked,
            (Some(_), Some(_)) => Redirect::Done,
        };
        // Whoever could not be asked may have begun.
        coordinator.known.source.asked = source.is_some() || read.source_status.is_none();
        coordinator.known.destination.asked = destination.is_some() || read.destination_status.is_none();
        for (role, status) in
            [(MigrationRole::Source, &read.source_status), (MigrationRole::Destination, &read.destination_status)]
        {
            if let Some(status) = status {
                coordinator.learn_from_status(role, status);
            }
        }
        let undoing = redirect_state.is_some_and(|state| state.rollback);
        if undoing || !coordinator.known.source.asked {
            let message = "the controller was restarted before the migration could go on by itself";
            let failure = source.and_then(|known| known.failure).or(destination.and_then(|known| known.failure));
            coordinator.fail(now, failure.unwrap_or_else(|| Failure::new(FailureCode::Aborted, message)));
        } else {
            coordinator.go_on(now);
        }
        coordinator.advance(now);
        coordinator
    }

    fn go_on(&mut self, now: Instant) {
        let caught_up = self.known.destination.phase.is_some_and(|phase| phase >= DestinationPhase::Redirecting);
        match self.known.redirect {
            Redirect::Done => self.enter(now, CoordinatorPhase::Draining),
            Redirect::Unknown if caught_up => {
                self.enter(now, CoordinatorPhase::Redirecting);
                self.ask(Purpose::Redirect);
            }
            Redirect::NotAsked | Redirect::Unknown => self.enter(now, CoordinatorPhase::Transferring),
        }
    }
}
