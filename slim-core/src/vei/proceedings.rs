//! What both machines keep about a migration besides its phase: time, failure, and what is still to be done.

use super::action::{Action, LcoreCommand, StreamCommand};
use crate::nf::ShardId;
use crate::protocol::control::{
    Holder, InstanceEvent, InstanceRole, MigrationReport, MigrationRole, Pace, PhaseDuration,
};
use crate::protocol::{Failure, MigrationId, MigrationPhase};
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The proceedings of one migration on one side.
#[derive(Debug)]
pub(super) struct Proceedings {
    migration: MigrationId,
    side: MigrationRole,
    shards: u16,
    pub(super) failure: Option<Failure>,
    /// Whether nothing will change in the report any more.
    pub(super) finished: bool,
    /// When the present phase has taken too long.
    pub(super) deadline: Option<Instant>,
    actions: VecDeque<Action>,
    began: Instant,
    since: Instant,
    phase: MigrationPhase,
    past: Vec<PhaseDuration>,
    /// When the migration ended on this side; the report's time stands still from then on.
    ended: Option<Instant>,
}

impl Proceedings {
    pub(super) fn new(now: Instant, migration: MigrationId, shards: u16, first: MigrationPhase) -> Self {
        let side = match first {
            MigrationPhase::Source(_) => MigrationRole::Source,
            MigrationPhase::Destination(_) => MigrationRole::Destination,
        };
        Self {
            migration,
            side,
            shards,
            failure: None,
            finished: false,
            deadline: None,
            actions: VecDeque::new(),
            began: now,
            since: now,
            phase: first,
            past: Vec::new(),
            ended: None,
        }
    }

    /// Tells the controller of the first phase.
    pub(super) fn open(&mut self, now: Instant, role: InstanceRole, timeout: Option<Duration>) {
        self.deadline = timeout.map(|timeout| now + timeout);
        self.notify_phase(role);
    }

    /// Enters a phase, which may have a time-out, and tells the controller.
    pub(super) fn enter(&mut self, now: Instant, phase: MigrationPhase, role: InstanceRole, timeout: Option<Duration>) {
        self.past.push(PhaseDuration { phase: self.phase, duration_us: micros(now - self.since) });
        self.phase = phase;
        self.since = now;
        self.deadline = timeout.map(|timeout| now + timeout);
        self.notify_phase(role);
    }

    fn notify_phase(&mut self, instance_role: InstanceRole) {
        let (migration, phase) = (self.migration, self.phase);
        self.notify(InstanceEvent::PhaseChanged { migration, phase, instance_role });
    }

    /// The migration is over on this side: the report's time stands still.
    pub(super) fn end(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// Notes a failure and tells the controller.
    pub(super) fn fail(&mut self, failure: Failure, holder: Holder, holds_packets: bool) {
        self.failure = Some(failure.clone());
        let (migration, side) = (self.migration, self.side);
        self.notify(InstanceEvent::MigrationFailed { migration, side, failure, holder, holds_packets });
    }

    /// Gives the final report, once.
    pub(super) fn finish(&mut self, report: MigrationReport) {
        if !core::mem::replace(&mut self.finished, true) {
            self.deadline = None;
            let (migration, side, report) = (self.migration, self.side, Box::new(report));
            self.notify(InstanceEvent::MigrationFinished { migration, side, report });
        }
    }

    /// A report of nothing but time.
    pub(super) fn report(&self, now: Instant) -> MigrationReport {
        let mut report = MigrationReport::new(self.migration);
        let now = self.ended.unwrap_or(now);
        report.phases.clone_from(&self.past);
        if self.ended.is_none() {
            report.phases.push(PhaseDuration { phase: self.phase, duration_us: micros(now - self.since) });
        }
        report.total_us = micros(now - self.began);
        report
    }

    pub(super) fn notify(&mut self, event: InstanceEvent) {
        self.actions.push_back(Action::Notify(event));
    }

    /// Commands every lcore.
    pub(super) fn lcores(&mut self, command: LcoreCommand) {
        for id in 0..self.shards {
            self.actions.push_back(Action::Lcore { shard: ShardId(id), command });
        }
    }

    /// Each shard's part of a pace.
    pub(super) fn share(&self, pace: Option<Pace>) -> Option<Pace> {
        pace.map(|pace| pace.share(self.shards.into()))
    }

    /// Commands the streams of every shard.
    pub(super) fn streams(&mut self, command: StreamCommand) {
        for id in 0..self.shards {
            self.stream(ShardId(id), command);
        }
    }

    /// Commands the streams of one shard.
    pub(super) fn stream(&mut self, shard: ShardId, command: StreamCommand) {
        self.actions.push_back(Action::Stream { shard, command });
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether the deadline has passed; if so it will not be reported again.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.deadline.take_if(|deadline| now >= *deadline).is_some()
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_nanos() as u64 / 1_000
}
