//! The coordinator itself: what it knows, whom it has asked, and the time. Which way to go is decided in
//! [`forward`](super::forward) and [`undo`](super::undo).

use super::requests::Wanted;
use super::types::{
    Call, CallError, CoordinatorAction, CoordinatorEvent, CoordinatorParameters, CoordinatorPhase,
    CoordinatorPhaseDuration, Outcome, Party, Progress, interval,
};
use crate::mutant::{self, Mutant};
use crate::protocol::control::{
    Description, InstanceEvent, InstancePaths, InstanceStatus, MigrationReport, MigrationRole, ResolveOutcome,
    SwitchEvent,
};
use crate::protocol::{
    DestinationPhase, Failure, FailureCode, MigrationId, MigrationPhase, Name, PathSet, SourcePhase, Text,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

/// The controller's side of one migration.
///
/// It asks, waits, asks again where an answer or event may have been lost (every request may be repeated), and decides
/// from what it knows. See [`CoordinatorPhase`] for its phases. It never decides alone whether the commit point has been
/// passed: it asks the source, and where the source cannot tell, the destination.
///
/// Order of calls: feed [`handle`](Self::handle) with replies, events and reconnections, call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), [`abort`](Self::abort) at any time;
/// after each, carry out every [`poll_action`](Self::poll_action). It is over when there is an
/// [`outcome`](Self::outcome). Retiring instances is the caller's business.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) parameters: CoordinatorParameters,
    pub(super) phase: CoordinatorPhase,
    pub(super) known: Knowledge,
    pub(super) failure: Option<Failure>,
    pub(super) remark: Option<Text>,
    pub(super) outcome: Option<Outcome>,
    calls: Vec<(Call, Purpose)>,
    /// Requests to be repeated, and when.
    repeats: Vec<(Instant, Purpose)>,
    next_call: u32,
    deadline: Option<Instant>,
    poll_at: Option<Instant>,
    began: Instant,
    since: Instant,
    past: Vec<CoordinatorPhaseDuration>,
    actions: VecDeque<CoordinatorAction>,
}

/// What the coordinator has found out.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    pub(super) source_description: Option<Description>,
    pub(super) destination_description: Option<Description>,
    pub(super) instances: Option<Vec<InstancePaths>>,
    pub(super) paths: PathSet,
    pub(super) source: Side<SourcePhase>,
    pub(super) destination: Side<DestinationPhase>,
    pub(super) redirect: Redirect,
    /// The switch has let go of everything it held during a redirect back.
    pub(super) rollback_finished: bool,
    /// Undo: whether the source is known to process packets again.
    pub(super) source_after: SourceAfter,
}

/// What is known of one instance.
#[derive(Debug)]
pub(super) struct Side<P> {
    /// It may have been told to take part.
    pub(super) asked: bool,
    /// It has agreed to take part.
    pub(super) agreed: bool,
    pub(super) phase: Option<P>,
    pub(super) failure: Option<Failure>,
    pub(super) report: Option<Box<MigrationReport>>,
    pub(super) finished: bool,
}

impl<P> Default for Side<P> {
    fn default() -> Self {
        Self { asked: false, agreed: false, phase: None, failure: None, report: None, finished: false }
    }
}

/// Whether the paths have been moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Redirect {
    #[default]
    NotAsked,
    /// Asked for, not answered.
    Unknown,
    Done,
}

/// What has been found out about the source while undoing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum SourceAfter {
    /// Not asked yet.
    #[default]
    Unasked,
    /// It is live.
    Live,
    /// It has committed and waits for a word.
    Committed,
    /// It cannot be reached or has lost its state.
    Unreachable,
}

/// What a call is for: enough to make its request, again if need be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Describe(MigrationRole),
    PathList,
    Prepare,
    Start,
    Redirect,
    Status(MigrationRole),
    AbortSource,
    /// Asking a source that knows nothing of the migration what it does instead.
    SourceRole,
    AbortDestination,
    Resolve(ResolveOutcome),
    RedirectStatus,
    RedirectBack,
}

impl Purpose {
    fn party(self) -> Party {
        match self {
            Self::Describe(role) | Self::Status(role) => role.into(),
            Self::Start | Self::AbortSource | Self::SourceRole | Self::Resolve(_) => Party::Source,
            Self::Prepare | Self::AbortDestination => Party::Destination,
            Self::PathList | Self::Redirect | Self::RedirectStatus | Self::RedirectBack => Party::Switch,
        }
    }

    /// Whether an answer that does not come is asked for again, apart from the regular poll.
    fn repeats(self) -> bool {
        !matches!(self, Self::Status(_))
    }
}

impl Coordinator {
    /// Begins a migration: the first actions ask everyone who they are.
    pub fn new(now: Instant, parameters: CoordinatorParameters) -> Self {
        let mut coordinator = Self::blank(now, parameters);
        coordinator.arm_timers(now);
        coordinator.actions.push_back(CoordinatorAction::PhaseEntered(CoordinatorPhase::Checking));
        coordinator.ask(Purpose::Describe(MigrationRole::Source));
        coordinator.ask(Purpose::Describe(MigrationRole::Destination));
        coordinator.ask(Purpose::PathList);
        coordinator
    }

    pub(super) fn blank(now: Instant, parameters: CoordinatorParameters) -> Self {
        Self {
            parameters,
            phase: CoordinatorPhase::Checking,
            known: Knowledge::default(),
            failure: None,
            remark: None,
            outcome: None,
            calls: Vec::new(),
            repeats: Vec::new(),
            next_call: 0,
            deadline: None,
            poll_at: None,
            began: now,
            since: now,
            past: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// What the migration was begun with.
    pub fn parameters(&self) -> &CoordinatorParameters {
        &self.parameters
    }

    /// The present phase.
    pub fn phase(&self) -> CoordinatorPhase {
        self.phase
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Where it stands.
    pub fn progress(&self, now: Instant) -> Progress {
        let mut phases = self.past.clone();
        phases.push(CoordinatorPhaseDuration { phase: self.phase, duration_us: micros(now - self.since) });
        Progress {
            migration: self.parameters.migration,
            phase: self.phase,
            in_phase: now - self.since,
            phases,
            source: self.known.source.phase,
            destination: self.known.destination.phase,
            source_report: self.known.source.report.clone(),
            destination_report: self.known.destination.report.clone(),
            failure: self.failure.clone(),
        }
    }

    /// The time since it began.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now - self.began
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<CoordinatorAction> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let repeat = self.repeats.iter().map(|&(at, _)| at).min();
        [self.deadline, self.poll_at, repeat].into_iter().flatten().min()
    }

    /// Repeats what has to be repeated, and lets the phase's time-out strike if it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.repeats.retain(|&(at, purpose)| {
            let keep = now < at;
            if !keep {
                due.push(purpose);
            }
            keep
        });
        for purpose in due {
            self.ask(purpose);
        }
        if self.poll_at.is_some_and(|at| now >= at) {
            self.poll_status();
            self.poll_at = interval(self.parameters.timeouts.status_interval_ms).map(|interval| now + interval);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.strike(now);
            self.advance(now);
        }
    }

    /// Gives the migration up if that is still possible; the instances have the last word on it. Does nothing while the
    /// migration is being undone.
    ///
    /// # Errors
    /// [`TooLate`] if the destination is known to have taken over.
    pub fn abort(&mut self, now: Instant, reason: impl Into<Text>) -> Result<(), TooLate> {
        match self.phase {
            CoordinatorPhase::Finishing | CoordinatorPhase::Completed => Err(TooLate),
            CoordinatorPhase::Draining if self.destination_is_committed() => Err(TooLate),
            CoordinatorPhase::Checking
            | CoordinatorPhase::Preparing
            | CoordinatorPhase::Transferring
            | CoordinatorPhase::Redirecting
            | CoordinatorPhase::Draining => {
                self.fail(now, Failure::new(FailureCode::Aborted, reason));
                self.advance(now);
                Ok(())
            }
            CoordinatorPhase::AbortingSource
            | CoordinatorPhase::Resolving
            | CoordinatorPhase::RedirectingBack
            | CoordinatorPhase::AbortingDestination
            | CoordinatorPhase::HandingBack
            | CoordinatorPhase::RolledBack
            | CoordinatorPhase::Unresolved => Ok(()),
        }
    }

    /// Takes note of a reply, an event or a reconnection. What belongs to something else is ignored.
    pub fn handle(&mut self, now: Instant, event: CoordinatorEvent) {
        if self.outcome.is_some() {
            return;
        }
        match event {
            CoordinatorEvent::InstanceReply { call, result } => {
                if let Some(purpose) = self.take_call(call) {
                    match result {
                        Ok(reply) => self.instance_agreed(now, purpose, reply),
                        Err(error) => self.call_failed(now, purpose, error),
                    }
                }
            }
            CoordinatorEvent::SwitchReply { call, result } => {
                if let Some(purpose) = self.take_call(call) {
                    match result {
                        Ok(reply) => self.switch_agreed(now, purpose, reply),
                        Err(error) => self.call_failed(now, purpose, error),
                    }
                }
            }
            CoordinatorEvent::Instance { role, event } => self.learn_from_event(role, event),
            CoordinatorEvent::Switch(event) => self.learn_from_switch(now, &event),
            CoordinatorEvent::Connected(party) => {
                for (at, purpose) in &mut self.repeats {
                    if purpose.party() == party {
                        *at = now;
                    }
                }
                if self.poll_at.is_some() {
                    self.poll_at = Some(now);
                }
                if party == Party::Switch
                    && self.phase == CoordinatorPhase::Draining
                    && !self.destination_is_committed()
                {
                    // A switch that was restarted has forgotten the redirect and its drain packets; for one that has not
                    // nothing changes.
                    self.ask(Purpose::Redirect);
                }
            }
        }
        self.advance(now);
    }

    fn take_call(&mut self, call: Call) -> Option<Purpose> {
        let index = self.calls.iter().position(|&(pending, _)| pending == call)?;
        Some(self.calls.swap_remove(index).1)
    }

    fn call_failed(&mut self, now: Instant, purpose: Purpose, error: CallError) {
        match error {
            CallError::Refused(error) => self.refused(now, purpose, error),
            CallError::Unreachable(_) if purpose.repeats() => self.repeat_later(now, purpose),
            CallError::Unreachable(_) => {}
        }
    }

    /// Asks again soon, as long as the phase lasts.
    pub(super) fn repeat_later(&mut self, now: Instant, purpose: Purpose) {
        let wait = u64::from(self.parameters.timeouts.retry_interval_ms.max(1));
        self.repeats.push((now + Duration::from_millis(wait), purpose));
    }

    fn learn_from_event(&mut self, role: MigrationRole, event: InstanceEvent) {
        let ours = migration_of(&event) == Some(self.parameters.migration);
        if !(ours || mutant::is_active(Mutant::StaleEventAccepted)) {
            return;
        }
        match event {
            InstanceEvent::PhaseChanged { phase, .. } => self.learn_phase(role, phase),
            InstanceEvent::RedirectWanted { .. } => {
                self.learn_phase(role, MigrationPhase::Destination(DestinationPhase::Redirecting));
            }
            InstanceEvent::MigrationFinished { report, .. } => match role {
                MigrationRole::Source => self.known.source.finish(report),
                MigrationRole::Destination => self.known.destination.finish(report),
            },
            InstanceEvent::MigrationFailed { failure, .. } => match role {
                MigrationRole::Source => self.known.source.failure = Some(failure),
                MigrationRole::Destination => self.known.destination.failure = Some(failure),
            },
            InstanceEvent::Ready { .. } => {}
        }
    }

    fn learn_phase(&mut self, role: MigrationRole, phase: MigrationPhase) {
        match (role, phase) {
            (MigrationRole::Source, MigrationPhase::Source(phase)) => self.known.source.phase = Some(phase),
            (MigrationRole::Destination, MigrationPhase::Destination(phase)) => {
                self.known.destination.phase = Some(phase);
            }
            // An instance that took the other part has nothing to say here.
            (MigrationRole::Source, MigrationPhase::Destination(_))
            | (MigrationRole::Destination, MigrationPhase::Source(_)) => {}
        }
    }

    /// Learns from a status; says whether the instance knows of the migration.
    pub(super) fn learn_from_status(&mut self, role: MigrationRole, status: &InstanceStatus) -> bool {
        let Some(migration) = status.migration.as_ref().filter(|known| known.id == self.parameters.migration) else {
            return false;
        };
        self.learn_phase(role, migration.phase);
        let report = Box::new(migration.report.clone());
        match role {
            MigrationRole::Source => self.known.source.learn(report, migration.finished, &migration.failure),
            MigrationRole::Destination => self.known.destination.learn(report, migration.finished, &migration.failure),
        }
        true
    }

    fn learn_from_switch(&mut self, now: Instant, event: &SwitchEvent) {
        match event {
            SwitchEvent::RollbackFinished { migration, nonce, .. }
                if *migration == self.parameters.migration && *nonce == self.parameters.rollback_nonce() =>
            {
                self.known.rollback_finished = true;
            }
            SwitchEvent::DrainGivenUp { migration, nonce, unacknowledged }
                if *migration == self.parameters.migration && *nonce == self.parameters.nonce =>
            {
                self.drain_given_up(now, *unacknowledged);
            }
            SwitchEvent::RollbackFinished { .. }
            | SwitchEvent::DrainGivenUp { .. }
            | SwitchEvent::DrainAcked { .. }
            | SwitchEvent::Drained { .. }
            | SwitchEvent::PortLink { .. } => {}
        }
    }

    /// Asks both instances how they are, and the switch while it holds packets.
    fn poll_status(&mut self) {
        for role in [MigrationRole::Source, MigrationRole::Destination] {
            let asked = match role {
                MigrationRole::Source => self.known.source.asked,
                MigrationRole::Destination => self.known.destination.asked,
            };
            if asked && !self.is_asking(Purpose::Status(role)) {
                self.ask(Purpose::Status(role));
            }
        }
        if self.phase == CoordinatorPhase::HandingBack && !self.is_asking(Purpose::RedirectStatus) {
            self.ask(Purpose::RedirectStatus);
        }
    }

    fn is_asking(&self, purpose: Purpose) -> bool {
        self.calls.iter().any(|&(_, pending)| pending == purpose)
            || self.repeats.iter().any(|&(_, pending)| pending == purpose)
    }

    /// Sends the request for `purpose` unless it is under way already.
    pub(super) fn ask(&mut self, purpose: Purpose) {
        if self.is_asking(purpose) {
            return;
        }
        let call = Call(self.next_call);
        self.next_call = self.next_call.wrapping_add(1);
        self.calls.push((call, purpose));
        let action = match self.request(purpose) {
            Wanted::Instance(role, request) => CoordinatorAction::Instance { role, call, request },
            Wanted::Switch(request) => CoordinatorAction::Switch { call, request },
        };
        self.actions.push_back(action);
    }

    /// Enters a phase: earlier requests are not waited for any more.
    pub(super) fn enter(&mut self, now: Instant, phase: CoordinatorPhase) {
        self.past.push(CoordinatorPhaseDuration { phase: self.phase, duration_us: micros(now - self.since) });
        self.phase = phase;
        self.since = now;
        self.calls.clear();
        self.repeats.clear();
        self.arm_timers(now);
        self.actions.push_back(CoordinatorAction::PhaseEntered(phase));
    }

    fn arm_timers(&mut self, now: Instant) {
        let poll = match self.phase {
            CoordinatorPhase::Preparing
            | CoordinatorPhase::Transferring
            | CoordinatorPhase::Redirecting
            | CoordinatorPhase::Draining
            | CoordinatorPhase::Finishing
            | CoordinatorPhase::HandingBack => true,
            CoordinatorPhase::Checking
            | CoordinatorPhase::AbortingSource
            | CoordinatorPhase::Resolving
            | CoordinatorPhase::RedirectingBack
            | CoordinatorPhase::AbortingDestination
            | CoordinatorPhase::Completed
            | CoordinatorPhase::RolledBack
            | CoordinatorPhase::Unresolved => false,
        };
        self.deadline = self.timeout().map(|timeout| now + timeout);
        let status_interval = interval(self.parameters.timeouts.status_interval_ms);
        self.poll_at = status_interval.filter(|_| poll).map(|interval| now + interval);
    }

    /// Waits in the present phase no longer than for final reports.
    pub(super) fn hurry(&mut self, now: Instant) {
        let limit = interval(self.parameters.timeouts.finish_ms).map(|timeout| now + timeout);
        self.deadline = [self.deadline, limit].into_iter().flatten().min();
    }

    /// The longest the present phase may take.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.parameters.timeouts.of(self.phase)
    }

    /// Ends the migration.
    pub(super) fn conclude(&mut self, now: Instant, phase: CoordinatorPhase, outcome: Outcome) {
        self.enter(now, phase);
        self.outcome = Some(outcome);
    }

    /// Whether the destination has taken over, as it says itself or as a released source implies.
    pub(super) fn destination_is_committed(&self) -> bool {
        matches!(self.known.destination.phase, Some(DestinationPhase::TakingOver | DestinationPhase::Live))
            || self.known.source.phase == Some(SourcePhase::Released)
    }

    pub(super) fn name(&self, role: MigrationRole) -> &Name {
        match role {
            MigrationRole::Source => &self.parameters.source,
            MigrationRole::Destination => &self.parameters.destination,
        }
    }
}

impl<P> Side<P> {
    fn finish(&mut self, report: Box<MigrationReport>) {
        self.report = Some(report);
        self.finished = true;
    }

    fn learn(&mut self, report: Box<MigrationReport>, finished: bool, failure: &Option<Failure>) {
        self.asked = true;
        self.agreed = true;
        self.report = Some(report);
        self.finished |= finished;
        if failure.is_some() {
            self.failure.clone_from(failure);
        }
    }
}

/// The destination has taken over; there is nothing left to abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the destination has already taken over")]
pub struct TooLate;

/// The migration that an event belongs to.
fn migration_of(event: &InstanceEvent) -> Option<MigrationId> {
    match event {
        InstanceEvent::Ready { .. } => None,
        InstanceEvent::PhaseChanged { migration, .. }
        | InstanceEvent::RedirectWanted { migration }
        | InstanceEvent::MigrationFinished { migration, .. }
        | InstanceEvent::MigrationFailed { migration, .. } => Some(*migration),
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_nanos() as u64 / 1_000
}
