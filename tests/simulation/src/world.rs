//! The world: time, links, traffic, and what instances and lcores do in it.

use super::control::Control;
use super::lcore::Frozen;
use super::node::Node;
use super::streams::{Connection, Segment, Thread};
use super::switch::{Forward, Switch};
use super::{Agenda, Fault, Fifo, Oracle, Random, Scenario, Workload};
use slim_core::migration::{Call, Coordinator, CoordinatorEvent, CoordinatorParameters, Outcome};
use slim_core::nf::{NetworkFunction, PortId, ShardId};
use slim_core::protocol::control::{
    self, InstanceEvent, InstanceReply, InstanceRequest, InstanceRole, ServerMessage, SwitchEvent, SwitchReply,
};
use slim_core::protocol::{Digest, MigrationId, Name, Nonce};
use slim_core::snapshot;
use slim_core::time::{Duration, Instant};
use slim_core::vei::{Action, Event, LcoreCommand, StreamEvent};
use std::collections::BTreeMap;

pub(super) enum Happening {
    Generate { port: PortId },
    ToInstance { node: usize, shard: ShardId, port: PortId, frame: Vec<u8> },
    FromInstance { node: usize, port: PortId, frame: Vec<u8> },
    Poll { node: usize, shard: ShardId },
    Thread { node: usize, shard: ShardId, thread: Thread },
    SegmentAtSwitch { connection: usize, to_destination: bool, segment: Segment },
    Segment { connection: usize, to_destination: bool, segment: Segment },
    Report { node: usize, life: u32, event: Event },
    Digest { node: usize, life: u32, migration: Option<MigrationId>, shard: ShardId, frozen: Frozen },
    Drains { migration: MigrationId, nonce: Nonce },
    HoldEnds { migration: MigrationId },
    RequestLine { peer: usize, epoch: u32, line: String },
    ReplyLine { peer: usize, epoch: u32, line: String },
    Unreachable { controller: u32, peer: usize, call: Call },
    LinkUp { peer: usize, epoch: u32 },
    Fault { migration: MigrationId, fault: Fault },
    ControllerStarts { migration: MigrationId },
}

pub(super) const SWITCH: usize = 2;

/// Two instances of `N`, a switch, a controller, and traffic by `W`.
///
/// Call [`run`](Self::run) to let time pass, [`migrate`](Self::migrate) for a migration with its faults, and
/// [`settle`](Self::settle) at the end. Panics when the [`Oracle`] finds fault.
pub struct World<N: NetworkFunction, W: Workload<N>> {
    pub(super) scenario: Scenario,
    pub(super) now: Instant,
    pub(super) agenda: Agenda<Happening>,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node<N>>,
    pub(super) connections: Vec<Connection>,
    pub(super) workload: W,
    pub(super) oracle: Oracle<N>,
    pub(super) switch: Switch,
    pub(super) coordinator: Option<Coordinator>,
    pub(super) controls: [Control; 3],
    /// Links between each instance and the switch, in both directions.
    links: [(Fifo, Fifo); 2],
    /// The order of reports of each shard's lcore and streams.
    reports: BTreeMap<(usize, u16, bool), Fifo>,
    pub(super) lives: [u32; 2],
    pub(super) source: usize,
    generating: bool,
    migrations: u64,
    /// Counts controllers: nobody waits for the answers of one that has died.
    pub(super) controllers: u32,
    current: Option<MigrationId>,
}

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Instance 0 is live, instance 1 idle, and traffic flows.
    pub fn new(scenario: Scenario, workload: W) -> Self {
        let mut random = Random::new(scenario.seed);
        let name = |text: &str| Name::try_from(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let node = |text: &str, seed| {
            let (pkt_q, st_q_out) = (scenario.pkt_q_bytes, scenario.st_q_out_bytes);
            Node::new(name(text), &workload, scenario.shards, pkt_q, st_q_out, seed)
        };
        // The same seed in both instances and in the reference: random choices must not differ.
        let seed = random.number();
        let nodes = vec![node("instance-0", seed), node("instance-1", seed)];
        let mut world = Self {
            oracle: Oracle::new(&workload.config(), scenario.shards, seed),
            switch: Switch::new([name("instance-0"), name("instance-1")], N::PORTS.len() as u8, scenario.shards),
            now: Instant::ZERO,
            agenda: Agenda::default(),
            nodes,
            connections: Vec::new(),
            workload,
            coordinator: None,
            controls: Default::default(),
            links: Default::default(),
            reports: BTreeMap::new(),
            lives: [0, 0],
            source: 0,
            generating: true,
            migrations: 0,
            controllers: 0,
            current: None,
            scenario,
            random,
        };
        for control in &mut world.controls {
            control.up = true;
        }
        for node in 0..2 {
            for shard in (0..world.scenario.shards).map(ShardId) {
                world.agenda.enter(world.now, Happening::Poll { node, shard });
            }
        }
        for port in (0..N::PORTS.len() as u8).map(PortId) {
            world.agenda.enter(world.now, Happening::Generate { port });
        }
        world.request(0, InstanceRequest::Activate {});
        world
    }

    /// The instance that is or will be the source of a migration.
    pub fn live(&self) -> usize {
        self.switch.live()
    }

    /// The judge, for its totals.
    pub fn oracle(&self) -> &Oracle<N> {
        &self.oracle
    }

    /// Packets that destinations have handed back in redirects that were undone.
    pub fn handed_back_packets(&self) -> u64 {
        self.switch.handed_back_packets()
    }

    /// An instance's role.
    pub fn role(&self, node: usize) -> InstanceRole {
        self.nodes[node].vei.role()
    }

    /// Asks an instance for something directly.
    ///
    /// # Panics
    /// If it refuses.
    pub fn request(&mut self, node: usize, request: InstanceRequest) {
        self.nodes[node]
            .vei
            .request(self.now, &request)
            .unwrap_or_else(|error| panic!("instance {node} refuses {request:?}: {error}"));
        self.carry_out(node);
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Migrates from the live instance to the other one, with faults that strike after the given times. Returns how it
    /// ended, and resets the instance that is not live any more unless that was left unresolved.
    ///
    /// # Panics
    /// If it does not end within ten virtual minutes.
    pub fn migrate(&mut self, faults: &[(Duration, Fault)]) -> Outcome {
        self.source = self.switch.live();
        self.migrations += 1;
        self.controllers += 1;
        let migration = MigrationId(self.random.number());
        self.current = Some(migration);
        for &(after, fault) in faults {
            self.agenda.enter(self.now + after, Happening::Fault { migration, fault });
        }
        let parameters = CoordinatorParameters {
            migration,
            nonce: Nonce(self.random.number() as u32),
            source: self.nodes[self.source].name.clone(),
            destination: self.nodes[1 - self.source].name.clone(),
            prepare: self.scenario.prepare.clone(),
            start: self.scenario.start.clone(),
            timeouts: self.scenario.timeouts,
        };
        self.coordinator = Some(Coordinator::new(self.now, parameters));
        self.coordinate();
        let limit = self.now + Duration::from_secs(600);
        self.run_until(limit, |world| world.coordinator.as_ref().is_some_and(|known| known.outcome().is_some()));
        let coordinator = self.coordinator.take();
        let Some(outcome) = coordinator.as_ref().and_then(|known| known.outcome().cloned()) else {
            panic!("the migration does not end: {:?}", coordinator.map(|known| known.progress(self.now)));
        };
        self.current = None;
        outcome
    }

    /// Waits until nothing is left of the last migration, checks that, and resets the instance that is not live.
    ///
    /// # Panics
    /// If something is left after a virtual minute.
    pub fn recycle(&mut self) {
        let limit = self.now + Duration::from_secs(60);
        let spare = 1 - self.switch.live();
        let at_rest = |world: &Self| {
            matches!(world.role(spare), InstanceRole::Idle | InstanceRole::Released | InstanceRole::Discarded)
                && world.role(1 - spare) == InstanceRole::Live
                && world.nodes.iter().all(|node| node.vei.migration_status(world.now).is_none_or(|last| last.finished))
        };
        self.run_until(limit, at_rest);
        assert!(at_rest(self), "roles {:?} and {:?} do not come to rest", self.role(0), self.role(1));
        self.request(spare, InstanceRequest::Reset {});
        self.run(Duration::from_millis(2));
    }

    /// Stops the traffic, lets everything come to rest, and has the oracle judge.
    ///
    /// # Panics
    /// If a packet is missing, the state differs from the reference's, or anything is left of a migration.
    pub fn settle(&mut self) {
        self.generating = false;
        self.run(Duration::from_millis(100));
        self.oracle.settle();
        let live = self.switch.live();
        assert_eq!(self.role(live), InstanceRole::Live);
        for lcore in 0..self.nodes[live].lcores.len() {
            let Some(network_function) = &mut self.nodes[live].lcores[lcore].network_function else {
                panic!("the live instance has no network function");
            };
            let digest = snapshot::digest(&snapshot::freeze(network_function));
            assert_eq!(digest, self.oracle.digest(ShardId(lcore as u16)), "shard {lcore} differs from the reference");
        }
        for (index, node) in self.nodes.iter().enumerate() {
            assert!(node.is_clean(), "instance {index} holds something of a migration");
        }
        assert!(self.switch.is_clean(), "the switch holds packets");
        assert_eq!(self.switch.dropped_packets, 0);
    }

    fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let timers = [
                self.nodes[0].vei.poll_timeout(),
                self.nodes[1].vei.poll_timeout(),
                self.coordinator.as_ref().and_then(Coordinator::poll_timeout),
            ];
            let timer = timers.into_iter().flatten().min();
            let Some(next) = [timer, self.agenda.next_at()].into_iter().flatten().min() else { return };
            if next > end {
                return;
            }
            self.now = self.now.max(next);
            if timer.is_some_and(|timer| timer <= self.now) {
                for node in 0..2 {
                    self.nodes[node].vei.handle_timeout(self.now);
                    self.carry_out(node);
                }
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.handle_timeout(self.now);
                }
                self.coordinate();
            } else if let Some((_, happening)) = self.agenda.take() {
                self.happen(happening);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Generate { port } => self.generate(port),
            Happening::ToInstance { node, shard, port, frame } => {
                self.nodes[node].lcores[usize::from(shard.0)].receive[usize::from(port.0)].push_back(frame);
            }
            Happening::FromInstance { node, port, frame } => {
                for forward in self.switch.route_from_instance(node, port, frame) {
                    self.forward(forward);
                }
            }
            Happening::Poll { node, shard } => self.poll(node, shard),
            Happening::Thread { node, shard, thread } => self.run_thread(node, shard, thread),
            Happening::SegmentAtSwitch { connection, to_destination, segment } => {
                self.pass_segment(connection, to_destination, segment);
            }
            Happening::Segment { connection, to_destination, segment } => {
                self.receive_segment(connection, to_destination, segment);
            }
            Happening::Report { node, life, event } => {
                if life == self.lives[node] {
                    let shown = format!("{event:?}");
                    self.nodes[node]
                        .vei
                        .handle(self.now, event)
                        .unwrap_or_else(|error| panic!("instance {node} does not expect {shown}: {error}"));
                    self.carry_out(node);
                }
            }
            Happening::Digest { node, life, migration, shard, frozen } => {
                // As an image's driver does: the digest of a migration that is no more is of no interest.
                if migration == self.migration_of(node) {
                    let digest = Digest(snapshot::digest(&frozen));
                    self.happen(Happening::Report { node, life, event: Event::Digest { shard, digest } });
                }
            }
            Happening::Drains { migration, nonce } => self.send_drains(migration, nonce),
            Happening::HoldEnds { migration } => {
                for forward in self.switch.release(migration, true) {
                    self.forward(forward);
                }
            }
            Happening::RequestLine { peer, epoch, line } => self.receive_request(peer, epoch, &line),
            Happening::ReplyLine { peer, epoch, line } => self.receive_line(peer, epoch, &line),
            Happening::Unreachable { controller, peer, call } => {
                if controller == self.controllers {
                    self.unreachable(peer, call);
                }
            }
            Happening::LinkUp { peer, epoch } => {
                if epoch == self.controls[peer].epoch {
                    self.controls[peer].up = true;
                    let party = self.party(peer);
                    self.tell(CoordinatorEvent::Connected(party));
                }
            }
            // What was meant for a migration that is over already does nothing.
            Happening::Fault { migration, fault } => {
                if self.current == Some(migration) {
                    self.strike(migration, fault);
                }
            }
            Happening::ControllerStarts { migration } => {
                if self.current == Some(migration) {
                    self.recover(migration);
                }
            }
        }
    }

    fn generate(&mut self, port: PortId) {
        if !self.generating {
            return;
        }
        let mean = self.scenario.packet_interval.as_nanos() as u64;
        // Now and then a burst.
        let pause = if self.random.chance(300) { self.random.below(mean / 20) } else { self.random.below(mean * 3) };
        self.agenda.enter(self.now + Duration::from_nanos(pause), Happening::Generate { port });
        let flow = self.random.below(u64::from(self.scenario.flows)) as u32;
        let id = self.oracle.generate(port, flow);
        let frame = self.workload.frame(id);
        if let Some(forward) = self.switch.route_from_outside(port, frame) {
            self.forward(forward);
        }
    }

    fn forward(&mut self, forward: Forward) {
        match forward {
            Forward::ToInstance { node, port, shard, frame } => {
                let at = self.reach_node(node);
                let by_flow =
                    || self.workload.identify(&frame).map_or(0, |id| id.flow % u32::from(self.scenario.shards));
                let shard = ShardId(shard.unwrap_or_else(|| by_flow() as u16));
                self.agenda.enter(at, Happening::ToInstance { node, shard, port, frame });
            }
            Forward::Out { port: _, frame } => self.oracle.leave(&self.workload, &frame),
            Forward::Notify(event) => {
                let message: ServerMessage<SwitchReply, SwitchEvent> = ServerMessage::Event(event);
                self.send_line(SWITCH, control::encode(&message));
            }
        }
    }

    /// When something sent by an instance now is at the switch.
    pub(super) fn leave_node(&mut self, node: usize) -> Instant {
        let (low, high) = self.scenario.link_delay;
        let at = self.now + self.random.time(low, high);
        self.links[node].0.arrival(at)
    }

    /// When something sent by the switch now is at an instance.
    pub(super) fn reach_node(&mut self, node: usize) -> Instant {
        let (low, high) = self.scenario.link_delay;
        let at = self.now + self.random.time(low, high);
        self.links[node].1.arrival(at)
    }

    fn poll(&mut self, node: usize, shard: ShardId) {
        let pause = self.random.time(Duration::from_micros(20), Duration::from_micros(150));
        self.agenda.enter(self.now + pause, Happening::Poll { node, shard });
        let index = usize::from(shard.0);
        let polled = self.nodes[node].lcores[index].poll(self.now, &self.workload, &mut self.oracle);
        for (port, frame) in polled.transmitted {
            let lost = slim_core::protocol::inband::is_inband(&frame)
                && matches!(
                    slim_core::protocol::inband::Frame::decode(&frame),
                    Ok(slim_core::protocol::inband::Frame::DrainAck(_))
                )
                && self.random.chance(self.scenario.drain_loss_per_mille);
            let at = self.leave_node(node);
            if !lost {
                self.agenda.enter(at, Happening::FromInstance { node, port, frame });
            }
        }
        if let Some(frozen) = polled.for_snapshot {
            self.nodes[node].outgoing[index].frozen = Some(frozen);
        }
        if let Some(frozen) = polled.for_digest {
            let at = self.now + self.random.time(Duration::ZERO, Duration::from_millis(3));
            let (life, migration) = (self.lives[node], self.migration_of(node));
            self.agenda.enter(at, Happening::Digest { node, life, migration, shard, frozen });
        }
        for event in polled.reports {
            self.report(node, Event::Lcore { shard, event }, true);
        }
    }

    fn migration_of(&self, node: usize) -> Option<MigrationId> {
        self.nodes[node].vei.migration_status(self.now).map(|status| status.id)
    }

    pub(super) fn report_stream(&mut self, node: usize, shard: ShardId, event: StreamEvent) {
        self.report(node, Event::Stream { shard, event }, false);
    }

    /// A report reaches the management side a little later; those of one lcore or stream keep their order.
    fn report(&mut self, node: usize, event: Event, lcore: bool) {
        let shard = match &event {
            Event::Lcore { shard, .. } | Event::Stream { shard, .. } | Event::Digest { shard, .. } => shard.0,
        };
        let at = self.now + self.random.time(Duration::ZERO, Duration::from_micros(200));
        let at = self.reports.entry((node, shard, lcore)).or_default().arrival(at);
        let life = self.lives[node];
        self.agenda.enter(at, Happening::Report { node, life, event });
    }

    /// Does what an instance's VEI wants done.
    pub(super) fn carry_out(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].vei.poll_action() {
            match action {
                Action::Lcore { shard, command } => self.command_lcore(node, shard, command),
                Action::Stream { shard, command } => self.command_streams(node, shard, command),
                Action::Notify(event) => {
                    let message: ServerMessage<InstanceReply, InstanceEvent> = ServerMessage::Event(event);
                    self.send_line(node, control::encode(&message));
                }
            }
        }
    }

    fn command_lcore(&mut self, node: usize, shard: ShardId, command: LcoreCommand) {
        let index = usize::from(shard.0);
        let seed = self.migrations;
        let known = &mut self.nodes[node];
        match command {
            LcoreCommand::Activate => known.lcores[index].incoming = Some(known.fresh(shard, 0)),
            LcoreCommand::ArmPktQ => known.incoming[index].network_function = Some(known.fresh(shard, seed)),
            LcoreCommand::TakeOver => {
                let mut network_function = known.incoming[index].network_function.take();
                if let Some(network_function) = &mut network_function {
                    network_function.take_over(self.now);
                }
                known.incoming[index].applying = false;
                known.lcores[index].incoming = network_function;
            }
            LcoreCommand::Freeze
            | LcoreCommand::Stop
            | LcoreCommand::Resume
            | LcoreCommand::Release(_)
            | LcoreCommand::HandBack(_)
            | LcoreCommand::Discard
            | LcoreCommand::Reset => {}
        }
        known.lcores[index].commands.push_back(command);
    }

    pub(super) fn send_drains(&mut self, migration: MigrationId, nonce: Nonce) {
        let drains = self.switch.drains(migration, nonce);
        if drains.is_empty() {
            return;
        }
        for drain in drains {
            // A drain packet that gets lost still takes its place in the queue.
            if self.random.chance(self.scenario.drain_loss_per_mille) {
                if let Forward::ToInstance { node, .. } = drain {
                    self.reach_node(node);
                }
            } else {
                self.forward(drain);
            }
        }
        self.agenda.enter(self.now + Duration::from_millis(1), Happening::Drains { migration, nonce });
    }
}
