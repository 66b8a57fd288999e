//! The way back: what is done after a failure, in an order that leaves exactly one instance processing packets.
//!
//! ```text
//! 1. source: abort ──── it is live again ─────────────────────────────────┐
//!      │ committed, or no answer                                          │
//! 2. destination: abort ─ committed ─► forward: source: resolve release   │
//!      │ it will not take over                                            │
//! 3. source: resolve resume ───────────────────────────────────────────── │
//! 4. switch: redirect back, drain packets towards the destination ◄───────┘
//! 5. destination: abort, handing back pkt_q after those drain packets
//! 6. wait for destination and switch to be done
//! ```
//!
//! The source is asked first because the commit point is its decision. The destination is asked to give up before a
//! committed source may resume, because its take-over is the other half of that decision. Paths lead back before the
//! destination lets packets go, because they return by those paths.

use super::coordinator::{Coordinator, Purpose, Redirect, SourceAfter};
use super::types::{CoordinatorPhase, Outcome};
use crate::mutant::{self, Mutant};
use crate::protocol::control::{
    ControlError, ErrorCode, InstanceRole, InstanceStatus, MigrationRole, RedirectState, ResolveOutcome,
};
use crate::protocol::{DestinationPhase, Failure, FailureCode, SourcePhase, Text};
use crate::time::Instant;
use alloc::format;

impl Coordinator {
    /// Turns around. The first failure is the one that counts.
    pub(super) fn fail(&mut self, now: Instant, failure: Failure) {
        self.failure.get_or_insert(failure);
        if self.known.source.asked {
            self.enter(now, CoordinatorPhase::AbortingSource);
            self.ask(Purpose::AbortSource);
        } else {
            self.handle_source_live(now);
        }
    }

    /// Step 1 or 3 is done: the source processes packets.
    pub(super) fn handle_source_live(&mut self, now: Instant) {
        self.known.source_after = SourceAfter::Live;
        self.redirect_back(now);
    }

    /// Step 4.
    fn redirect_back(&mut self, now: Instant) {
        match self.known.redirect {
            Redirect::NotAsked => self.abort_destination(now),
            _ if mutant::is_active(Mutant::RedirectBackForgotten) => self.abort_destination(now),
            Redirect::Unknown => {
                self.enter(now, CoordinatorPhase::RedirectingBack);
                self.ask(Purpose::RedirectStatus);
            }
            Redirect::Done => {
                self.enter(now, CoordinatorPhase::RedirectingBack);
                self.ask(Purpose::RedirectBack);
            }
        }
    }

    pub(super) fn handle_redirect_status(&mut self, now: Instant, state: Option<RedirectState>) {
        let back = self.parameters.rollback_nonce();
        match (self.phase, state) {
            (CoordinatorPhase::RedirectingBack, None) => {
                self.known.redirect = Redirect::NotAsked;
                self.abort_destination(now);
            }
            (CoordinatorPhase::RedirectingBack, Some(_)) => {
                self.known.redirect = Redirect::Done;
                self.ask(Purpose::RedirectBack);
            }
            (CoordinatorPhase::HandingBack, Some(state)) if state.nonce == back => {
                self.known.rollback_finished |= state.finished;
            }
            _ => {}
        }
    }

    pub(super) fn handle_redirected_back(&mut self, now: Instant) {
        self.abort_destination(now);
    }

    /// Step 5.
    fn abort_destination(&mut self, now: Instant) {
        if self.known.destination.asked {
            self.enter(now, CoordinatorPhase::AbortingDestination);
            self.ask(Purpose::AbortDestination);
        } else {
            self.conclude_undo(now);
        }
    }

    pub(super) fn handle_destination_aborted(&mut self, now: Instant) {
        match (self.phase, self.known.source_after) {
            (CoordinatorPhase::Resolving, SourceAfter::Committed) => {
                // Step 3: now that nobody else can take over. The phase goes on, so does its time-out.
                self.ask(Purpose::Resolve(ResolveOutcome::Resume));
            }
            (CoordinatorPhase::Resolving, _) => self.redirect_back(now),
            _ => self.enter(now, CoordinatorPhase::HandingBack),
        }
    }

    pub(super) fn handle_resolved(&mut self, now: Instant, outcome: ResolveOutcome) {
        match outcome {
            ResolveOutcome::Resume => self.handle_source_live(now),
            ResolveOutcome::Release => self.known.source.phase = Some(SourcePhase::Released),
        }
    }

    /// The source knows nothing of the migration: it never began, or was restarted.
    pub(super) fn handle_source_role(&mut self, now: Instant, status: &InstanceStatus) {
        if status.role == InstanceRole::Live {
            self.handle_source_live(now);
        } else {
            self.resolve_without_source(now);
        }
    }

    /// Step 2, with a source that waits for a word.
    fn resolve_with_source(&mut self, now: Instant) {
        self.known.source_after = SourceAfter::Committed;
        self.enter(now, CoordinatorPhase::Resolving);
        self.ask(Purpose::AbortDestination);
    }

    /// Step 2, with a source that cannot be asked.
    fn resolve_without_source(&mut self, now: Instant) {
        self.known.source_after = SourceAfter::Unreachable;
        self.enter(now, CoordinatorPhase::Resolving);
        self.ask(Purpose::AbortDestination);
    }

    /// The destination says that it has taken over: everything is forward again.
    fn turn_forward(&mut self, now: Instant) {
        if !self.destination_is_committed() {
            self.known.destination.phase = Some(DestinationPhase::TakingOver);
        }
        if let Some(failure) = self.failure.take() {
            self.remark = Some(Text::from(format!("too late to undo: {}", failure.message)));
        }
        if self.known.source_after == SourceAfter::Committed {
            self.enter(now, CoordinatorPhase::Draining);
            self.ask(Purpose::Resolve(ResolveOutcome::Release));
        } else {
            self.remark_source_not_told();
            self.enter(now, CoordinatorPhase::Finishing);
        }
    }

    pub(super) fn refused_undo(&mut self, now: Instant, purpose: Purpose, error: ControlError) {
        match (purpose, error.code) {
            (Purpose::AbortSource, ErrorCode::Committed) => self.resolve_with_source(now),
            (Purpose::AbortSource, ErrorCode::UnknownMigration) => self.ask(Purpose::SourceRole),
            (Purpose::AbortSource | Purpose::SourceRole, _) => self.resolve_without_source(now),
            (Purpose::AbortDestination, ErrorCode::Committed) => match self.phase {
                CoordinatorPhase::Resolving => self.turn_forward(now),
                _ => self.give_in(now, "both instances say they are live: stop one of them"),
            },
            // Restarted, or never prepared: it has nothing and will never take over.
            (Purpose::AbortDestination, ErrorCode::UnknownMigration) => {
                self.known.destination.phase = Some(DestinationPhase::Discarded);
                self.handle_destination_aborted(now);
            }
            (Purpose::AbortDestination, _) => self.lose_destination(now),
            (Purpose::Resolve(ResolveOutcome::Release), _) => {
                self.remark_source_not_told();
                if self.phase == CoordinatorPhase::Draining {
                    self.enter(now, CoordinatorPhase::Finishing);
                }
            }
            (Purpose::Resolve(ResolveOutcome::Resume), _) => {
                let what_to_do = "src_inst refuses to resume; reset both instances and start over";
                self.give_in(now, what_to_do);
            }
            (Purpose::RedirectBack, _) => {
                let message = format!("set the paths back to {} by hand: {}", self.parameters.source, error.message);
                self.give_in(now, &message);
            }
            (Purpose::RedirectStatus, _) if self.phase == CoordinatorPhase::RedirectingBack => {
                // It may have been redirected; redirecting back does no harm if not.
                self.known.redirect = Redirect::Done;
                self.ask(Purpose::RedirectBack);
            }
            (
                Purpose::RedirectStatus
                | Purpose::Describe(_)
                | Purpose::PathList
                | Purpose::Prepare
                | Purpose::Start
                | Purpose::Redirect
                | Purpose::Status(_),
                _,
            ) => {}
        }
    }

    /// The destination cannot be asked to give up.
    fn lose_destination(&mut self, now: Instant) {
        match self.phase {
            CoordinatorPhase::Resolving if mutant::is_active(Mutant::UnreachableTakenForUndone) => {
                self.known.destination.phase = Some(DestinationPhase::Discarded);
                self.handle_destination_aborted(now);
            }
            CoordinatorPhase::AbortingDestination => {
                let message = format!("{} could not be told to give up; retire it", self.parameters.destination);
                self.remark = Some(Text::from(message));
                self.known.destination.phase = Some(DestinationPhase::Discarded);
                self.enter(now, CoordinatorPhase::HandingBack);
            }
            _ => {
                let (source, destination) = (&self.parameters.source, &self.parameters.destination);
                let message = format!(
                    "find out whether {destination} is live: if so, release {source}; if it is gone for good, \
                     have {source} resume and set the paths back to it"
                );
                self.give_in(now, &message);
            }
        }
    }

    /// Step 6.
    pub(super) fn advance_undo(&mut self, now: Instant) {
        if self.phase != CoordinatorPhase::HandingBack {
            return;
        }
        let discarded = self.known.destination.phase == Some(DestinationPhase::Discarded);
        let returned = self.known.redirect == Redirect::NotAsked || self.known.rollback_finished;
        if discarded && returned {
            self.conclude_undo(now);
        }
    }

    pub(super) fn strike_undo(&mut self, now: Instant) {
        match self.phase {
            CoordinatorPhase::AbortingSource => self.resolve_without_source(now),
            CoordinatorPhase::Resolving | CoordinatorPhase::AbortingDestination => self.lose_destination(now),
            CoordinatorPhase::RedirectingBack => {
                let message = format!("the switch cannot be reached; set the paths back to {}", self.parameters.source);
                self.give_in(now, &message);
            }
            CoordinatorPhase::HandingBack => {
                if self.remark.is_none() {
                    let name = self.name(MigrationRole::Destination);
                    self.remark = Some(Text::from(format!("{name} did not hand back everything in time; retire it")));
                }
                self.conclude_undo(now);
            }
            _ => {}
        }
    }

    fn conclude_undo(&mut self, now: Instant) {
        if self.known.source_after == SourceAfter::Unreachable {
            let source = &self.parameters.source;
            let message = format!(
                "{source} cannot be reached. If it comes back waiting for the destination, have it resume; if it was \
                 restarted, its state is lost"
            );
            self.give_in(now, &message);
            return;
        }
        let failure = self.failure.clone().unwrap_or_else(|| Failure::new(FailureCode::Other, "no reason given"));
        let outcome = Outcome::RolledBack {
            failure,
            source: self.known.source.report.take(),
            destination: self.known.destination.report.take(),
            remark: self.remark.take(),
        };
        self.conclude(now, CoordinatorPhase::RolledBack, outcome);
    }

    /// Leaves it to an operator.
    fn give_in(&mut self, now: Instant, what_to_do: &str) {
        let failure = self.failure.clone().unwrap_or_else(|| Failure::new(FailureCode::Other, "no reason given"));
        let what_to_do = Text::from(what_to_do);
        self.conclude(now, CoordinatorPhase::Unresolved, Outcome::Unresolved { failure, what_to_do });
    }
}
