//! What the daemon does besides driving migrations: it picks up open ones after a restart, gives a restarted switch its
//! ports and paths again, and makes instances ready for another migration when the operator wants that.

use super::{Controller, Drive, Surroundings, Waiting};
use slim_core::migration::{CallError, Coordinator, ReadBack};
use slim_core::protocol::control::{
    ErrorCode, InstanceReply, InstanceRequest, InstanceRole, InstanceStatus, RedirectState, ResolveOutcome,
    SwitchReply, SwitchRequest,
};
use slim_core::protocol::{MigrationId, MigrationPhase, SourcePhase};
use slim_core::time::{Duration, Instant};

/// How often it looks for open migrations that nobody drives.
const LOOK: Duration = Duration::from_millis(700);
/// How often it has to find only one end of a migration before it gives up waiting for the other.
const PATIENCE: u32 = 6;
const RETRY: Duration = Duration::from_millis(40);

pub(super) struct Chores {
    look_at: Instant,
    recovery: Option<Recovery>,
    /// How often in a row only one end was found.
    incomplete: u32,
    recycle: [Recycling; 2],
    retry_at: Option<Instant>,
    /// The instance that paths should lead to, once the controller knows.
    has_traffic: Option<usize>,
    settle_paths: Option<Settling>,
    /// No path led anywhere when the switch was last connected to: somebody died before it had them again.
    unbound: bool,
}

/// Paths that are to lead to an instance.
#[derive(Debug, Clone, Copy)]
struct Settling {
    node: usize,
    /// The switch has been told; now it is looked at whether they do.
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recycling {
    No,
    Wanted,
    Asked,
}

/// What has been read back so far.
#[derive(Default)]
struct Recovery {
    missing: usize,
    statuses: [Option<InstanceStatus>; 2],
    redirect: Option<Option<RedirectState>>,
    /// Asking the switch, the second step.
    of: Option<MigrationId>,
}

impl Chores {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            // A controller that has just been started looks as soon as it is connected.
            look_at: now + Duration::from_millis(120),
            recovery: None,
            incomplete: 0,
            recycle: [Recycling::No; 2],
            retry_at: None,
            has_traffic: None,
            settle_paths: None,
            unbound: false,
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.recovery.is_none() && self.recycle == [Recycling::No; 2] && self.settle_paths.is_none() && !self.unbound
    }

    pub(super) fn recycle(&mut self, node: usize) {
        self.recycle[node] = Recycling::Wanted;
        self.retry_at.get_or_insert(Instant::ZERO);
    }

    /// Nobody waits any more for instances that cannot be reached.
    pub(super) fn give_up_recycling(&mut self) {
        self.recycle = [Recycling::No; 2];
    }

    /// Nobody knows where a migration has left the state.
    pub(super) fn doubt_traffic(&mut self) {
        self.has_traffic = None;
        self.settle_paths = None;
    }

    pub(super) fn settle_paths(&mut self, node: usize) {
        self.has_traffic = Some(node);
        self.settle_paths = Some(Settling { node, told: false });
        self.retry_at.get_or_insert(Instant::ZERO);
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        [Some(self.look_at), self.retry_at].into_iter().flatten().min()
    }
}

impl Controller {
    pub(super) fn do_chores(&mut self, surroundings: &mut Surroundings<'_>) {
        let now = surroundings.now;
        if self.chores.retry_at.is_some_and(|at| at <= now) {
            self.chores.retry_at = None;
            for node in 0..2 {
                if self.chores.recycle[node] == Recycling::Wanted {
                    self.chores.recycle[node] = Recycling::Asked;
                    self.ask_instance(surroundings, node, Waiting::Recycling, InstanceRequest::Reset {});
                }
            }
            match self.chores.settle_paths {
                // A migration under way may have its own redirect: what was told is looked at when it is over.
                Some(Settling { told: true, .. }) if self.is_driving() => self.chores.retry_at = Some(now + RETRY),
                Some(Settling { node, .. }) => {
                    self.ask_switch(surroundings, Waiting::SettlePaths(node), SwitchRequest::PathList {});
                }
                None => {}
            }
        }
        if now >= self.chores.look_at {
            self.chores.look_at = now + LOOK;
            if (self.drives.is_empty() || self.chores.unbound) && self.chores.recovery.is_none() {
                self.chores.recovery = Some(Recovery { missing: 2, ..Recovery::default() });
                for node in 0..2 {
                    self.ask_instance(surroundings, node, Waiting::Recovery, InstanceRequest::Status {});
                }
            }
        }
    }

    pub(super) fn instance_did_chore(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        node: usize,
        waiting: Waiting,
        result: Result<InstanceReply, CallError>,
    ) {
        match waiting {
            // Given up meanwhile.
            Waiting::Recycling if self.chores.recycle[node] == Recycling::No => {}
            Waiting::Recycling => {
                let done = match result {
                    Ok(_) => true,
                    // It is not for recycling: it was restarted, or is the holder.
                    Err(CallError::Refused(error)) => error.code != ErrorCode::Busy,
                    Err(CallError::Unreachable(_)) => false,
                };
                self.chores.recycle[node] = if done { Recycling::No } else { Recycling::Wanted };
                if !done {
                    self.chores.retry_at = Some(surroundings.now + RETRY);
                }
            }
            Waiting::Recovery => {
                let Some(recovery) = &mut self.chores.recovery else { return };
                if let Ok(InstanceReply::Status(status)) = result {
                    recovery.statuses[node] = Some(*status);
                }
                recovery.missing -= 1;
                if recovery.missing == 0 {
                    self.look_at_statuses(surroundings);
                }
            }
            Waiting::Drive(..) | Waiting::Restore | Waiting::SettlePaths(_) | Waiting::Nobody => {}
        }
    }

    /// Both instances have answered, or cannot be reached: is there an open migration?
    fn look_at_statuses(&mut self, surroundings: &mut Surroundings<'_>) {
        let Some(recovery) = &mut self.chores.recovery else { return };
        let open = recovery
            .statuses
            .iter()
            .flatten()
            .find(|status| matches!(status.role, InstanceRole::Source | InstanceRole::Destination));
        let migration = open.and_then(|status| status.migration.as_ref()).map(|migration| migration.id);
        let who = |wanted: InstanceRole| {
            recovery.statuses.iter().position(|status| status.as_ref().is_some_and(|status| status.role == wanted))
        };
        let live = who(InstanceRole::Live);
        // Somebody who runs and does not answer may have a part in a migration, and keeps its traffic.
        let silent = (0..2).any(|node| surroundings.running[node] && recovery.statuses[node].is_none());
        recovery.of = migration;
        if self.chores.unbound {
            let rightful = live.or(who(InstanceRole::Source));
            self.chores.unbound = rightful.is_none() && (silent || migration.is_some());
            if let Some(node) = rightful {
                self.chores.settle_paths(node);
            }
        }
        if migration.is_none() || !self.drives.is_empty() {
            // A migration may have ended by itself while there was no controller, or nobody could be reached.
            let idle = self.drives.is_empty() && !silent;
            if let Some(node) = live.filter(|&node| idle && self.chores.has_traffic != Some(node)) {
                self.chores.settle_paths(node);
            }
            self.chores.recovery = None;
            return;
        }
        if let Some(migration) = migration {
            self.ask_switch(surroundings, Waiting::Recovery, SwitchRequest::RedirectStatus { migration });
        }
    }

    /// The switch has answered too, or cannot be reached.
    fn recover(&mut self, surroundings: &mut Surroundings<'_>) {
        let Some(recovery) = self.chores.recovery.take() else { return };
        let Some(migration) = recovery.of.filter(|_| self.drives.is_empty()) else { return };
        let side = |wanted: fn(&MigrationPhase) -> bool| {
            recovery.statuses.iter().position(|status| {
                let known = status.as_ref().and_then(|status| status.migration.as_ref());
                known.is_some_and(|known| known.id == migration && wanted(&known.phase))
            })
        };
        let source = side(|phase| matches!(phase, MigrationPhase::Source(_)));
        let destination = side(|phase| matches!(phase, MigrationPhase::Destination(_)));
        if let (Some(source), Some(destination)) = (source, destination) {
            self.chores.incomplete = 0;
            surroundings.tell(format_args!("migration {migration}: found open, picked up"));
            let read = ReadBack {
                migration,
                source: self.names.instances[source].clone(),
                destination: self.names.instances[destination].clone(),
                source_status: recovery.statuses[source].clone(),
                destination_status: recovery.statuses[destination].clone(),
                redirect: recovery.redirect,
                timeouts: self.timeouts,
            };
            let coordinator = Coordinator::recover(surroundings.now, read);
            self.drives.push(Drive { coordinator, source });
            return;
        }
        // Somebody who runs and does not answer may hold the state: nobody is told to go on without it.
        let silent = |node: usize| surroundings.running[node] && recovery.statuses[node].is_none();
        if silent(0) || silent(1) {
            return;
        }
        self.chores.incomplete += 1;
        if self.chores.incomplete < PATIENCE {
            return;
        }
        self.chores.incomplete = 0;
        self.end_incomplete(surroundings, migration, &recovery, source, destination);
    }

    /// One end alone, and the other does not come back: what an operator does then.
    fn end_incomplete(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        migration: MigrationId,
        recovery: &Recovery,
        source: Option<usize>,
        destination: Option<usize>,
    ) {
        let reason = "the other instance is gone".into();
        if let Some(node) = destination {
            let abort = InstanceRequest::Abort { migration, reason, hand_back: None };
            self.ask_instance(surroundings, node, Waiting::Nobody, abort);
        } else if let Some(node) = source {
            let phase = recovery.statuses[node].as_ref().and_then(|status| status.migration.as_ref());
            let waits = phase.is_some_and(|known| {
                matches!(known.phase, MigrationPhase::Source(SourcePhase::Unacknowledged | SourcePhase::Committed))
            });
            let request = if waits {
                InstanceRequest::Resolve { migration, outcome: ResolveOutcome::Resume }
            } else {
                InstanceRequest::Abort { migration, reason, hand_back: None }
            };
            self.ask_instance(surroundings, node, Waiting::Nobody, request);
            self.chores.settle_paths(node);
        }
    }

    pub(super) fn switch_did_chore(
        &mut self,
        surroundings: &mut Surroundings<'_>,
        waiting: Waiting,
        result: Result<SwitchReply, CallError>,
    ) {
        match (waiting, result) {
            (Waiting::Recovery, result) => {
                if let (Ok(SwitchReply::Redirect { state }), Some(recovery)) = (result, &mut self.chores.recovery) {
                    recovery.redirect = Some(state);
                }
                self.recover(surroundings);
            }
            (Waiting::Restore, Ok(SwitchReply::Paths { instances })) => {
                self.chores.unbound = false;
                if let Some(bound) = instances.iter().find(|known| !known.paths.is_empty()) {
                    let position = self.names.instances.iter().position(|name| *name == bound.instance);
                    self.chores.has_traffic = self.chores.has_traffic.or(position);
                } else {
                    surroundings.tell(format_args!("the switch has been restarted: it gets its ports and paths again"));
                    for request in self.names.set_up(self.link) {
                        self.ask_switch(surroundings, Waiting::Nobody, request);
                    }
                    // Whoever is live is asked: what was so when the switch died may have changed since.
                    self.chores.unbound = true;
                    self.chores.has_traffic = None;
                    self.chores.look_at = surroundings.now;
                }
            }
            (Waiting::SettlePaths(node), Ok(SwitchReply::Paths { instances })) => {
                let leads_to = |node: usize| {
                    instances
                        .iter()
                        .any(|known| known.instance == self.names.instances[node] && !known.paths.is_empty())
                };
                let (right, wrong) = (leads_to(node), leads_to(1 - node));
                let driving = self.is_driving();
                let Some(settling) = self.chores.settle_paths.as_mut().filter(|settling| settling.node == node) else {
                    // They are to lead elsewhere by now.
                    return;
                };
                if right && !wrong {
                    self.chores.settle_paths = None;
                    return;
                }
                self.chores.retry_at = Some(surroundings.now + RETRY);
                if std::mem::replace(&mut settling.told, true) && driving {
                    return;
                }
                if wrong {
                    let instance = self.names.instances[1 - node].clone();
                    let unbind = SwitchRequest::PathsSet { instance, externals: Vec::new() };
                    self.ask_switch(surroundings, Waiting::Nobody, unbind);
                }
                if !right {
                    let request = self.names.lead_to(node);
                    self.ask_switch(surroundings, Waiting::Nobody, request);
                }
            }
            (Waiting::SettlePaths(_), Err(_)) => {
                self.chores.retry_at = Some(surroundings.now + RETRY);
            }
            _ => {}
        }
    }
}
