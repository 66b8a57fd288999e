//! The way forward: from checking to completed (§IV-B).

use super::coordinator::{Coordinator, Purpose, Redirect, SourceAfter};
use super::types::{CoordinatorPhase, Outcome};
use crate::protocol::control::{
    CAPACITY_MEMORY_AVAILABLE, CAPACITY_MEMORY_NEEDED, CAPACITY_TABLE, ControlError, Counters, ErrorCode,
    InstanceReply, InstanceRole, InstanceStatus, MigrationRole, ResolveOutcome, SwitchReply,
};
use crate::protocol::{DestinationPhase, Failure, FailureCode, PathSet, SourcePhase, Text};
use crate::time::Instant;
use crate::vei::{Identity, compare};
use alloc::format;

impl Coordinator {
    /// Goes on as far as what is known allows.
    pub(super) fn advance(&mut self, now: Instant) {
        loop {
            let before = self.phase;
            match self.phase {
                CoordinatorPhase::Checking => self.advance_checking(now),
                CoordinatorPhase::Preparing
                | CoordinatorPhase::Transferring
                | CoordinatorPhase::Redirecting
                | CoordinatorPhase::Draining => self.advance_forward(now),
                CoordinatorPhase::Finishing => {
                    if self.known.destination.finished && (self.known.source.finished || self.source_is_lost()) {
                        self.complete(now);
                    }
                }
                CoordinatorPhase::AbortingSource
                | CoordinatorPhase::Resolving
                | CoordinatorPhase::RedirectingBack
                | CoordinatorPhase::AbortingDestination
                | CoordinatorPhase::HandingBack => self.advance_undo(now),
                CoordinatorPhase::Completed | CoordinatorPhase::RolledBack | CoordinatorPhase::Unresolved => return,
            }
            if self.phase == before {
                return;
            }
        }
    }

    /// A time-out has struck.
    pub(super) fn strike(&mut self, now: Instant) {
        match self.phase {
            CoordinatorPhase::Draining if self.destination_is_committed() => {
                self.remark_source_not_told();
                self.enter(now, CoordinatorPhase::Finishing);
            }
            CoordinatorPhase::Checking
            | CoordinatorPhase::Preparing
            | CoordinatorPhase::Transferring
            | CoordinatorPhase::Redirecting
            | CoordinatorPhase::Draining => {
                let failure = Failure::time_out("the migration", self.phase, self.timeout());
                self.fail(now, failure);
            }
            CoordinatorPhase::Finishing => {
                if self.remark.is_none() {
                    self.remark = Some(Text::from("not every report came in time"));
                }
                self.complete(now);
            }
            CoordinatorPhase::AbortingSource
            | CoordinatorPhase::Resolving
            | CoordinatorPhase::RedirectingBack
            | CoordinatorPhase::AbortingDestination
            | CoordinatorPhase::HandingBack => self.strike_undo(now),
            CoordinatorPhase::Completed | CoordinatorPhase::RolledBack | CoordinatorPhase::Unresolved => {}
        }
    }

    fn advance_checking(&mut self, now: Instant) {
        let known = &self.known;
        let (Some(source), Some(destination), Some(instances)) =
            (&known.source_description, &known.destination_description, &known.instances)
        else {
            return;
        };
        let identity = |description: &crate::protocol::control::Description| Identity {
            kind: description.kind.clone(),
            schema: description.schema,
            shards: description.shards,
        };
        let source_paths = instances.iter().find(|entry| entry.instance == self.parameters.source);
        let destination_paths = instances.iter().find(|entry| entry.instance == self.parameters.destination);
        let check = || -> Result<PathSet, Failure> {
            compare(&identity(source), &identity(destination))
                .map_err(|error| Failure::new(FailureCode::Incompatible, error.message))?;
            fits(&source.capacity, &destination.capacity)?;
            if source.name == destination.name {
                return Err(Failure::new(FailureCode::Refused, "src_inst and dst_inst are the same instance"));
            }
            if source.role != InstanceRole::Live {
                return Err(refused(format!("{} is {}, not live", source.name, source.role)));
            }
            if destination.role != InstanceRole::Idle {
                return Err(refused(format!("{} is {}, not idle", destination.name, destination.role)));
            }
            let (Some(source_paths), Some(destination_paths)) = (source_paths, destination_paths) else {
                return Err(refused(format!("the switch does not know {} or {}", source.name, destination.name)));
            };
            if source_paths.ports.len() != destination_paths.ports.len() {
                return Err(refused(format!(
                    "{} has {} ports at the switch, {} has {}",
                    source.name,
                    source_paths.ports.len(),
                    destination.name,
                    destination_paths.ports.len()
                )));
            }
            if !destination_paths.paths.is_empty() {
                return Err(refused(format!("paths already lead to {}", destination.name)));
            }
            let paths: PathSet = source_paths.paths.iter().filter_map(|path| path.index).collect();
            if paths.is_empty() {
                return Err(refused(format!("no path leads to {}", source.name)));
            }
            Ok(paths)
        };
        match check() {
            Ok(paths) => {
                self.known.paths = paths;
                self.enter(now, CoordinatorPhase::Preparing);
                self.ask(Purpose::Prepare);
            }
            Err(failure) => self.fail(now, failure),
        }
    }

    fn advance_forward(&mut self, now: Instant) {
        if let Some(failure) = self.forward_failure() {
            self.fail(now, failure);
            return;
        }
        let destination = self.known.destination.phase;
        let reached = |wanted| destination.is_some_and(|phase| phase >= wanted);
        match self.phase {
            CoordinatorPhase::Preparing if self.known.destination.agreed && reached(DestinationPhase::Armed) => {
                self.enter(now, CoordinatorPhase::Transferring);
                self.ask(Purpose::Start);
            }
            CoordinatorPhase::Transferring if reached(DestinationPhase::Redirecting) => {
                self.enter(now, CoordinatorPhase::Redirecting);
                self.ask(Purpose::Redirect);
            }
            CoordinatorPhase::Redirecting if self.known.redirect == Redirect::Done => {
                self.enter(now, CoordinatorPhase::Draining);
            }
            CoordinatorPhase::Draining if self.destination_is_committed() => match self.known.source.phase {
                Some(SourcePhase::Released) => self.enter(now, CoordinatorPhase::Finishing),
                // The acknowledgement got lost; the destination itself says that it has taken over.
                Some(SourcePhase::Unacknowledged) => self.ask(Purpose::Resolve(ResolveOutcome::Release)),
                _ if self.source_is_lost() => {
                    self.remark_source_not_told();
                    self.enter(now, CoordinatorPhase::Finishing);
                }
                Some(_) | None => self.hurry(now),
            },
            _ => {}
        }
    }

    /// Whether one of the instances has given up.
    fn forward_failure(&self) -> Option<Failure> {
        if self.destination_is_committed() {
            return None;
        }
        let unknown = || Failure::new(FailureCode::Other, "no reason given");
        match (self.known.source.phase, self.known.destination.phase) {
            (Some(SourcePhase::RollingBack | SourcePhase::RolledBack), _) => {
                Some(self.known.source.failure.clone().unwrap_or_else(unknown))
            }
            (
                _,
                Some(
                    DestinationPhase::Failed
                    | DestinationPhase::HandingBack
                    | DestinationPhase::Discarding
                    | DestinationPhase::Discarded,
                ),
            ) => Some(self.known.destination.failure.clone().unwrap_or_else(unknown)),
            _ => None,
        }
    }

    /// An instance has done, or answered, what `purpose` asked for.
    pub(super) fn instance_agreed(&mut self, now: Instant, purpose: Purpose, reply: InstanceReply) {
        match (purpose, reply) {
            (Purpose::Describe(MigrationRole::Source), InstanceReply::Description(description)) => {
                self.known.source_description = Some(description);
            }
            (Purpose::Describe(MigrationRole::Destination), InstanceReply::Description(description)) => {
                self.known.destination_description = Some(description);
            }
            (Purpose::Prepare, InstanceReply::Done) => self.known.destination.agreed = true,
            (Purpose::Start, InstanceReply::Done) => self.known.source.agreed = true,
            (Purpose::Status(role), InstanceReply::Status(status)) => self.handle_status(now, role, &status),
            (Purpose::SourceRole, InstanceReply::Status(status)) => self.handle_source_role(now, &status),
            (Purpose::AbortSource, InstanceReply::Done) => self.handle_source_live(now),
            (Purpose::AbortDestination, InstanceReply::Done) => self.handle_destination_aborted(now),
            (Purpose::Resolve(outcome), InstanceReply::Done) => self.handle_resolved(now, outcome),
            (purpose, _) => self.contradicted(now, purpose),
        }
    }

    /// The switch has done, or answered, what `purpose` asked for.
    pub(super) fn switch_agreed(&mut self, now: Instant, purpose: Purpose, reply: SwitchReply) {
        match (purpose, reply) {
            (Purpose::PathList, SwitchReply::Paths { instances }) => self.known.instances = Some(instances),
            (Purpose::Redirect, SwitchReply::Done {}) => self.known.redirect = Redirect::Done,
            (Purpose::RedirectStatus, SwitchReply::Redirect { state }) => self.handle_redirect_status(now, state),
            (Purpose::RedirectBack, SwitchReply::Done {}) => self.handle_redirected_back(now),
            (purpose, _) => self.contradicted(now, purpose),
        }
    }

    /// A party says no.
    pub(super) fn refused(&mut self, now: Instant, purpose: Purpose, error: ControlError) {
        match purpose {
            // It is still letting go of the migration before: a failed migration can be repeated at once.
            Purpose::Start if error.code == ErrorCode::Busy => self.repeat_later(now, purpose),
            Purpose::Describe(_) | Purpose::PathList | Purpose::Prepare | Purpose::Start | Purpose::Redirect => {
                let code = match error.code {
                    ErrorCode::Incompatible => FailureCode::Incompatible,
                    _ => FailureCode::Refused,
                };
                self.fail(now, Failure::new(code, error.message));
            }
            // Only who speaks for an instance whose process has ended says so of a status.
            Purpose::Status(role) if error.code == ErrorCode::UnknownMigration => self.gone(now, role, "is gone"),
            // The next poll may fare better; if none does, the phase's time-out strikes.
            Purpose::Status(_) => {}
            Purpose::AbortSource
            | Purpose::SourceRole
            | Purpose::AbortDestination
            | Purpose::Resolve(_)
            | Purpose::RedirectStatus
            | Purpose::RedirectBack => self.refused_undo(now, purpose, error),
        }
    }

    /// A reply of the wrong kind: a peer that cannot be relied upon.
    fn contradicted(&mut self, now: Instant, purpose: Purpose) {
        let error = ControlError::with(ErrorCode::Internal, format!("unexpected kind of reply to {purpose:?}"));
        self.refused(now, purpose, error);
    }

    fn handle_status(&mut self, now: Instant, role: MigrationRole, status: &InstanceStatus) {
        if self.learn_from_status(role, status) {
            return;
        }
        let agreed = match role {
            MigrationRole::Source => self.known.source.agreed,
            MigrationRole::Destination => self.known.destination.agreed,
        };
        if !agreed {
            return;
        }
        self.gone(now, role, "has forgotten the migration; was it restarted?");
    }

    /// An instance has lost everything, the migration included.
    fn gone(&mut self, now: Instant, role: MigrationRole, how: &str) {
        let message = format!("{} {how}", self.name(role));
        match (role, self.phase) {
            // It may have committed: then the destination has, or will soon have, everything.
            (MigrationRole::Source, CoordinatorPhase::Redirecting | CoordinatorPhase::Draining) => {
                self.known.source_after = SourceAfter::Unreachable;
                self.hurry(now);
            }
            (
                _,
                CoordinatorPhase::Preparing
                | CoordinatorPhase::Transferring
                | CoordinatorPhase::Redirecting
                | CoordinatorPhase::Draining,
            ) if !self.destination_is_committed() => {
                self.fail(now, Failure::new(FailureCode::Unreachable, message));
            }
            (MigrationRole::Destination, CoordinatorPhase::Finishing) => {
                let message = format!("{} has taken over, and is gone since", self.parameters.destination);
                self.remark = Some(Text::from(message));
                self.complete(now);
            }
            // Whoever has been reset after its part was done has nothing more to say.
            (MigrationRole::Source, _) => self.known.source_after = SourceAfter::Unreachable,
            (MigrationRole::Destination, _) => self.known.destination.phase = Some(DestinationPhase::Discarded),
        }
    }

    /// The switch has stopped sending drain packets; the source may wait for one.
    pub(super) fn drain_given_up(&mut self, now: Instant, unacknowledged: PathSet) {
        let waiting = matches!(self.phase, CoordinatorPhase::Redirecting | CoordinatorPhase::Draining);
        if waiting && !self.destination_is_committed() {
            let message = format!("drain packets of {} paths were never acknowledged", unacknowledged.len());
            self.fail(now, Failure::new(FailureCode::DrainLost, message));
        }
    }

    fn source_is_lost(&self) -> bool {
        self.known.source_after == SourceAfter::Unreachable
    }

    pub(super) fn remark_source_not_told(&mut self) {
        let message = format!("{} could not be released; retire it", self.parameters.source);
        self.remark = Some(Text::from(message));
        self.known.source_after = SourceAfter::Unreachable;
    }

    /// The destination has taken over.
    fn complete(&mut self, now: Instant) {
        let source = self.known.source.report.take();
        let destination = self.known.destination.report.take();
        let digest = |report: &Option<alloc::boxed::Box<crate::protocol::control::MigrationReport>>| {
            report.as_ref().and_then(|report| report.digest)
        };
        let digests_equal =
            digest(&source).zip(digest(&destination)).map(|(source, destination)| source == destination);
        let remark = self.remark.take();
        self.conclude(
            now,
            CoordinatorPhase::Completed,
            Outcome::Completed { source, destination, digests_equal, remark },
        );
    }
}

/// Whether the destination has room for whatever the source's state may grow to. What is not told is not compared.
fn fits(source: &Counters, destination: &Counters) -> Result<(), Failure> {
    for (name, entries) in source {
        let Some(table) = name.strip_prefix(CAPACITY_TABLE) else { continue };
        let message = match destination.get(name) {
            Some(other) if other == entries => continue,
            Some(other) => {
                format!("{table} holds up to {entries} entries in src_inst, {other} in dst_inst: configure both alike")
            }
            None if destination.keys().any(|name| name.starts_with(CAPACITY_TABLE)) => {
                format!("dst_inst has no table {table}")
            }
            None => continue,
        };
        return Err(Failure::new(FailureCode::Incompatible, message));
    }
    let memory = destination.get(CAPACITY_MEMORY_NEEDED).zip(destination.get(CAPACITY_MEMORY_AVAILABLE));
    if let Some((needed, available)) = memory
        && available < needed
    {
        let message = format!("dst_inst may need {needed} bytes and has {available}: give it more memory");
        return Err(Failure::new(FailureCode::MemoryShort, message));
    }
    Ok(())
}

fn refused(message: alloc::string::String) -> Failure {
    Failure::new(FailureCode::Refused, message)
}
