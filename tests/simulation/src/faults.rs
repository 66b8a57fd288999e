//! What may go wrong during a migration.

use super::Workload;
use super::node::Node;
use super::world::{Happening, World};
use slim_core::migration::{Coordinator, Party, ReadBack};
use slim_core::nf::NetworkFunction;
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::{SwitchReply, SwitchRequest};
use slim_core::time::Duration;

/// Something that goes wrong during a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operator gives up.
    Abort,
    /// One of the streams that are open breaks; the number chooses which.
    BreakStream(u64),
    /// The control connection to a party is gone for a while, with all that is under way on it.
    ControlOutage(Party, Duration),
    /// The controller dies, and another one starts later.
    ControllerCrash(Duration),
    /// The destination is gone, with everything it held.
    DestinationCrash,
    /// The source is gone, with everything it held.
    SourceCrash,
}

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    pub(super) fn strike(&mut self, migration: MigrationId, fault: Fault) {
        match fault {
            Fault::Abort => {
                if let Some(coordinator) = &mut self.coordinator {
                    // Being too late is one of the things that can happen.
                    let _ = coordinator.abort(self.now, "operator");
                    self.coordinate();
                }
            }
            Fault::BreakStream(choice) => {
                self.break_stream(choice);
            }
            Fault::ControlOutage(party, duration) => self.disconnect(self.peer(party), Some(duration)),
            Fault::ControllerCrash(duration) => {
                self.coordinator = None;
                self.controllers += 1;
                for peer in 0..3 {
                    self.disconnect(peer, None);
                }
                self.agenda.enter(self.now + duration, Happening::ControllerStarts { migration });
            }
            Fault::DestinationCrash => self.crash(1 - self.source),
            Fault::SourceCrash => self.crash(self.source),
        }
    }

    fn disconnect(&mut self, peer: usize, duration: Option<Duration>) {
        let control = &mut self.controls[peer];
        control.up = false;
        control.epoch += 1;
        let epoch = control.epoch;
        let controller = self.controllers;
        for call in core::mem::take(&mut control.calls) {
            self.agenda.enter(self.now, Happening::Unreachable { controller, peer, call });
        }
        if let Some(duration) = duration {
            self.agenda.enter(self.now + duration, Happening::LinkUp { peer, epoch });
        }
    }

    /// A new controller reads back what the parties know, and goes on from there.
    pub(super) fn recover(&mut self, migration: MigrationId) {
        if self.coordinator.is_some() {
            return;
        }
        for control in &mut self.controls {
            control.up = true;
        }
        let status = SwitchRequest::RedirectStatus { migration };
        let redirect = match self.switch.request(&status) {
            Ok(SwitchReply::Redirect { state }) => Some(state),
            Ok(_) | Err(_) => None,
        };
        let status = |node: usize| Some(self.nodes[node].status(self.now));
        let read = ReadBack {
            migration,
            source: self.nodes[self.source].name.clone(),
            destination: self.nodes[1 - self.source].name.clone(),
            source_status: status(self.source),
            destination_status: status(1 - self.source),
            redirect,
            timeouts: self.scenario.timeouts,
        };
        self.coordinator = Some(Coordinator::recover(self.now, read));
        self.coordinate();
    }

    /// An instance is gone for good: its connections break, its control connection does not come back.
    fn crash(&mut self, node: usize) {
        self.oracle.loss_allowed = true;
        self.lives[node] += 1;
        self.disconnect(node, None);
        while self.break_stream(0) {}
        self.forget_connections(node);
        let (pkt_q, st_q_out) = (self.scenario.pkt_q_bytes, self.scenario.st_q_out_bytes);
        let (name, shards) = (self.nodes[node].name.clone(), self.scenario.shards);
        self.nodes[node] = Node::new(name, &self.workload, shards, pkt_q, st_q_out, 0);
    }
}
