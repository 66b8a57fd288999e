//! What goes wrong, when it does.

use super::{Actor, CONTROLLER, Happening, Outcome, World};
use crate::controller::Controller;
use crate::controller::SWITCH;
use crate::fabric::Fabric;
use crate::instance::Node;
use crate::{Fault, When, Workload};
use slim_core::nf::NetworkFunction;
use slim_core::protocol::MigrationPhase;
use slim_core::protocol::control::{InstanceRole, LineBuffer};
use slim_core::time::Duration;

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Arms the faults of a migration that is about to begin.
    pub(super) fn arm(&mut self, faults: &[(When, Fault)]) {
        self.round += 1;
        self.armed.clear();
        self.armed_phases.clear();
        let open = |role| matches!(role, InstanceRole::Source | InstanceRole::Destination);
        if self.fabric.is_some() && !self.nodes.iter().flatten().any(|instance| open(instance.role())) {
            self.oracle.resume_order();
        }
        for &(when, fault) in faults {
            match when {
                When::After(time) => {
                    self.agenda.enter(self.now + time, Happening::Strike { round: self.round, fault });
                }
                When::Step(step) => self.armed.push((self.trace.events() + step, fault)),
                When::Phase(phase) => self.armed_phases.push((phase, fault)),
            }
        }
    }

    /// Nothing more goes wrong by itself.
    pub(super) fn disarm(&mut self) {
        self.round += 1;
        self.armed.clear();
        self.armed_phases.clear();
    }

    /// Lets those faults strike soon whose phase has been entered.
    pub(super) fn strike_at_phases(&mut self, phases: &[MigrationPhase]) {
        for phase in phases {
            while let Some(index) = self.armed_phases.iter().position(|(wanted, _)| wanted == phase) {
                let (_, fault) = self.armed_phases.swap_remove(index);
                let latest = Duration::from_millis(if self.random.chance(500) { 0 } else { 12 });
                let at = self.now + self.random.time(Duration::ZERO, latest);
                self.agenda.enter(at, Happening::Strike { round: self.round, fault });
            }
        }
    }

    /// Lets those faults strike whose step has come.
    pub(super) fn strike_at_steps(&mut self) -> Outcome {
        let events = self.trace.events();
        while let Some(index) = self.armed.iter().position(|&(step, _)| events >= step) {
            let (_, fault) = self.armed.swap_remove(index);
            self.strike(fault)?;
        }
        Ok(())
    }

    pub(super) fn strike(&mut self, fault: Fault) -> Outcome {
        self.stats.fault(fault.kind());
        self.trace.event(self.now, "fault", format_args!("{fault:?}"));
        match fault {
            Fault::Abort => {
                let now = self.now;
                self.with_controller(|controller, _| controller.abort(now));
            }
            Fault::SecondMigration => {
                let source = self.random.below(2) as usize;
                self.excuses.contested = true;
                self.begin_migration(source);
            }
            Fault::ResetStream { choice } => self.reset_stream(choice),
            Fault::ResetControl { node, bytes } => {
                self.excuses.unreachable = true;
                if let Some(instance) = &mut self.nodes[node] {
                    let conns = instance.control_connections();
                    if let Some(&conn) = conns.get(bytes as usize % conns.len().max(1)) {
                        instance.host.break_off(conn);
                        self.wake(Actor::Host(node), self.now);
                        self.wake_soon(Actor::Node(node), Duration::from_micros(100));
                    }
                }
            }
            Fault::SwitchOutage(time) => {
                self.excuses.unreachable = true;
                self.pipe.cut(&mut self.random, self.now + time);
                self.wake(Actor::Controller, self.now);
            }
            Fault::Partition { host, peer, time } => {
                self.excuses.unreachable = true;
                let until = self.now + time;
                for other in (0..3).filter(|&other| peer.is_none_or(|peer| peer == other)) {
                    for (from, to) in [(host, other), (other, host)] {
                        let known = &mut self.partitioned_until[from][to];
                        *known = (*known).max(until);
                    }
                }
            }
            Fault::StalledReader { node, time } => {
                self.excuses.unreachable = true;
                if let Some(instance) = &mut self.nodes[node] {
                    instance.stalled_until = instance.stalled_until.max(self.now + time);
                    self.wake(Actor::Node(node), self.now);
                }
            }
            Fault::StalledLcores { node, only, time } => {
                self.excuses.unreachable = true;
                let until = self.now + time;
                for (shard, known) in self.lcores_stalled_until[node].iter_mut().enumerate() {
                    if only.is_none_or(|only| only == shard) {
                        *known = (*known).max(until);
                    }
                }
            }
            Fault::Crash { node, restart } => self.crash(node, restart),
            Fault::SwitchCrash(restart) => self.crash_switch(restart),
            Fault::ControllerCrash(restart) => self.crash_controller(restart),
            Fault::LateDuplicate(time) => {
                if let Some((peer, line)) = self.controller.as_ref().and_then(|one| one.last_line.clone()) {
                    let life = self.life_of(peer);
                    self.agenda.enter(self.now + time, Happening::Resend { peer, life, line });
                }
            }
        }
        Ok(())
    }

    fn reset_stream(&mut self, choice: u64) {
        self.excuses.unreachable = true;
        let mut open = Vec::new();
        for (node, instance) in self.nodes.iter().enumerate() {
            let streams = instance.iter().flat_map(Node::streams);
            open.extend(streams.map(|conn| (node, conn)));
        }
        let Some(&(node, conn)) = open.get((choice % open.len().max(1) as u64) as usize) else { return };
        if let Some(instance) = &mut self.nodes[node] {
            instance.host.break_off(conn);
            self.wake(Actor::Host(node), self.now);
            self.wake_soon(Actor::Node(node), Duration::from_micros(100));
        }
    }

    /// An instance is gone, with everything it held.
    fn crash(&mut self, node: usize, restart: Duration) {
        let Some(mut instance) = self.nodes[node].take() else { return };
        self.excuses.instance_crash = true;
        self.with_controller(|controller, _| controller.forget_line_to(node));
        self.excuses.unreachable = true;
        // It may have acknowledged, though its lcores have not begun: then nobody has the state, unless the source resumes.
        self.died_taking_over |= instance.role() == InstanceRole::Live && self.holding() != Some(node);
        self.lives[node] += 1;
        for lcore in &mut instance.lcores {
            self.oracle.count_in(lcore.pkt_q().records);
            for (&cause, &packets) in &lcore.io().dropped {
                *self.dropped.entry(cause).or_default() += packets;
            }
            for frame in lcore.io_mut().take_received() {
                let frame = super::moves::inner(&frame).to_vec();
                self.oracle.lose_in(&self.workload, &frame);
            }
        }
        if let Some(fabric) = &mut self.fabric {
            fabric.set_present(node, false);
        }
        if !restart.is_zero() {
            self.agenda.enter(self.now + restart, Happening::InstanceStarts { node });
        }
    }

    pub(super) fn start_instance(&mut self, node: usize) -> Outcome {
        if self.nodes[node].is_some() {
            return Ok(());
        }
        self.trace.event(self.now, "operator", format_args!("instance {node} is started again"));
        let (name, config) = (self.names.instances[node].clone(), self.workload.config());
        let instance = Node::new(self.now, node, name, config, &self.scenario, &mut self.random)?;
        self.nodes[node] = Some(instance);
        self.lcores_stalled_until[node].fill(self.now);
        if let Some(fabric) = &mut self.fabric {
            fabric.set_present(node, true);
        }
        self.wake(Actor::Host(node), self.now);
        self.wake(Actor::Node(node), self.now);
        Ok(())
    }

    fn crash_switch(&mut self, restart: Duration) {
        let Some(fabric) = self.fabric.take() else { return };
        self.excuses.switch_crash = true;
        self.switch_lives += 1;
        self.with_controller(|controller, _| controller.forget_line_to(SWITCH));
        // The next one knows nothing of a migration: what a destination holds is overtaken by what comes after.
        self.oracle.suspend_order();
        self.excuses.unreachable = true;
        // What it held, and what its counters say.
        let dropped: u64 = fabric.drops().iter().map(|(.., count)| count).sum();
        let others: u64 = fabric.other_drops().iter().map(|(_, count)| count).sum();
        self.oracle.lose_unknown(fabric.waiting() + dropped + others);
        self.pipe.cut(&mut self.random, self.now + restart);
        self.agenda.enter(self.now + restart, Happening::SwitchStarts);
        self.wake(Actor::Controller, self.now);
    }

    pub(super) fn start_switch(&mut self) {
        if self.fabric.is_some() {
            return;
        }
        self.trace.event(self.now, "operator", format_args!("the switch is started again"));
        let present = [self.nodes[0].is_some(), self.nodes[1].is_some()];
        self.fabric = Some(Fabric::new(self.names.clone(), &self.scenario, present));
        self.switch_lines = (self.pipe.epoch, LineBuffer::new());
        self.wake(Actor::Switch, self.now);
    }

    fn crash_controller(&mut self, restart: Duration) {
        let Some(mut controller) = self.controller.take() else { return };
        self.excuses.unreachable = true;
        // Its system resets its connections, if it still gets to.
        controller.host.reset_all();
        controller.host.poll(self.now);
        if self.random.chance(700) {
            while let Some(frame) = controller.host.take_frame() {
                self.agenda.enter(self.now, Happening::FrameToSwitch { host: CONTROLLER, frame });
            }
        }
        self.lives[CONTROLLER] += 1;
        self.pipe.cut(&mut self.random, self.now);
        self.agenda.enter(self.now + restart, Happening::ControllerStarts);
    }

    pub(super) fn start_controller(&mut self) {
        if self.controller.is_some() {
            return;
        }
        self.trace.event(self.now, "operator", format_args!("the controller is started again"));
        let controller = Controller::new(self.now, self.names.clone(), &self.scenario, &mut self.random);
        self.controller = Some(controller);
        self.wake(Actor::Host(CONTROLLER), self.now);
        self.wake(Actor::Controller, self.now);
    }

    /// Everybody who is to come back does, and can be reached again.
    pub(super) fn heal(&mut self) {
        self.disarm();
        self.trace.event(self.now, "operator", format_args!("nothing more goes wrong"));
        self.scenario.noise = crate::Noise::default();
        self.partitioned_until = [[self.now; 3]; 3];
        for known in self.lcores_stalled_until.iter_mut().flatten() {
            *known = self.now;
        }
        for instance in self.nodes.iter_mut().flatten() {
            instance.stalled_until = self.now;
        }
        for node in 0..2 {
            self.wake(Actor::Node(node), self.now);
            for shard in 0..usize::from(self.scenario.shards) {
                self.wake(Actor::Lcore(node, shard), self.now);
            }
        }
    }
}
