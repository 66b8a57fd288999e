//! The world: time, links, traffic, and whoever gets to run when.

mod check;
mod faults;
mod migrations;
mod moves;
mod trial;

use crate::controller::Controller;
use crate::fabric::{Behind, Fabric, Names};
use crate::instance::Node;
use crate::oracle::Oracle;
use crate::pipe::Pipe;
use crate::{Agenda, Fault, Random, Scenario, Stats, Trace, Workload};
use slim_core::nf::{NetworkFunction, PortId};
use slim_core::protocol::control::LineBuffer;
use slim_core::protocol::{MigrationId, MigrationPhase};
use slim_core::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

pub use trial::{Measured, Trial, run_trial};

/// Whoever gets to run now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    Switch,
    /// The TCP/IP stack of an instance, or of the controller.
    Host(usize),
    /// The management side of an instance.
    Node(usize),
    Lcore(usize, usize),
    Controller,
}

impl Actor {
    /// All of them, in the order in which they run at the same time.
    fn all(shards: u16) -> Vec<Self> {
        let mut all = vec![Self::Switch, Self::Controller, Self::Node(0), Self::Node(1)];
        all.extend((0..3).map(Self::Host));
        all.extend((0..2).flat_map(|node| (0..usize::from(shards)).map(move |shard| Self::Lcore(node, shard))));
        all
    }

    /// Its place among them.
    fn index(self, shards: u16) -> usize {
        match self {
            Self::Switch => 0,
            Self::Controller => 1,
            Self::Node(node) => 2 + node,
            Self::Host(host) => 4 + host,
            Self::Lcore(node, shard) => 7 + node * usize::from(shards) + shard,
        }
    }
}

/// What will happen.
enum Happening {
    /// A management frame arrives at the switch, or at a host that has the same life as when it was sent.
    FrameToSwitch {
        host: usize,
        frame: Vec<u8>,
    },
    FrameToHost {
        host: usize,
        life: u32,
        frame: Vec<u8>,
    },
    /// A copy of an in-band frame comes late.
    LateToInstance {
        node: usize,
        life: u32,
        port: PortId,
        frame: Vec<u8>,
    },
    LateFromInstance {
        node: usize,
        port: PortId,
        frame: Vec<u8>,
    },
    Generate,
    React {
        port: PortId,
        flow: u32,
    },
    Strike {
        round: u64,
        fault: Fault,
    },
    InstanceStarts {
        node: usize,
    },
    SwitchStarts,
    ControllerStarts,
    Resend {
        peer: usize,
        life: u32,
        line: Vec<u8>,
    },
}

/// Later than anything.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The number of the controller among the hosts.
pub(crate) const CONTROLLER: usize = 2;

/// What has gone wrong so far, and thereby excuses what would be a mistake otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Excuses {
    /// An instance died: packets in it are lost, and paths may lead to nobody.
    pub(crate) instance_crash: bool,
    /// The switch died: packets in it are lost, and so is what it knew.
    pub(crate) switch_crash: bool,
    /// Somebody could not be reached for a while, or was late.
    pub(crate) unreachable: bool,

    /// Two migrations were under way at a time, or one was begun while another was unresolved.
    pub(crate) contested: bool,
}

/// Two instances of `N`, a switch, a controller, and traffic by `W`.
pub(crate) struct World<N: NetworkFunction, W: Workload<N>> {
    pub(crate) scenario: Scenario,
    pub(crate) now: Instant,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    agenda: Agenda<Happening>,
    /// When each actor runs next.
    wakes: Vec<(Actor, Option<Instant>)>,
    random: Random,
    names: Names,
    nodes: [Option<Node<N>>; 2],
    /// Counts instances in each place, and controllers.
    lives: [u32; 3],
    /// Counts switches.
    switch_lives: u32,
    fabric: Option<Fabric>,
    pipe: Pipe,
    /// The switch's end of its control connection.
    switch_lines: (u64, LineBuffer),
    controller: Option<Controller>,
    workload: W,
    oracle: Oracle<N>,
    /// Who processes packets of each shard, and which life of it.
    holder: Vec<Option<(usize, u32)>>,
    /// A destination died between its acknowledgement and its first packet.
    died_taking_over: bool,
    generating: bool,
    /// Until when no management frame gets from one host to another.
    partitioned_until: [[Instant; 3]; 3],
    lcores_stalled_until: [Vec<Instant>; 2],
    excuses: Excuses,
    /// Packets dropped by lcores that are no more, by cause.
    dropped: BTreeMap<&'static str, u64>,
    /// Packets in `pkt_q` when it was emptied.
    discarded: u64,
    /// Which migration of the plan it is, and its faults that wait for a step.
    round: u64,
    armed: Vec<(u64, Fault)>,
    armed_phases: Vec<(MigrationPhase, Fault)>,
    /// When a hold of the switch may end by its time-out.
    hold_until: Instant,
    /// The migration it is of.
    hold_of: Option<MigrationId>,
    /// The holder when the migration under way began.
    held_by: Option<usize>,
    /// Nothing stands in the way of the migration under way: it has to be completed.
    must_complete: bool,
    known_migrations: BTreeSet<MigrationId>,
}

/// A violation, in words.
pub(crate) type Outcome<T = ()> = Result<T, String>;

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Instance 0 is live, instance 1 idle, and traffic is about to flow.
    pub(crate) fn new(scenario: Scenario, workload: W, in_words: bool) -> Outcome<Self> {
        let mut random = Random::new(!scenario.seed);
        let names = Names::new(N::PORTS)?;
        let config = workload.config();
        let mut node = |index: usize| {
            let name = names.instances[index].clone();
            Node::new(Instant::ZERO, index, name, config.clone(), &scenario, &mut random)
        };
        let nodes = [Some(node(0)?), Some(node(1)?)];
        let mut fabric = Fabric::new(names.clone(), &scenario, [true, true]);
        fabric.set_up(Instant::ZERO, scenario.link, 0)?;
        let controller = Controller::new(Instant::ZERO, names.clone(), &scenario, &mut random);
        let mut world = Self {
            oracle: Oracle::new(&config),
            holder: vec![None; usize::from(scenario.shards)],
            now: Instant::from_nanos(1),
            trace: Trace::new(in_words),
            stats: Stats::default(),
            agenda: Agenda::default(),
            wakes: Actor::all(scenario.shards).into_iter().map(|actor| (actor, None)).collect(),
            random,
            names,
            nodes,
            lives: [0; 3],
            switch_lives: 0,
            fabric: Some(fabric),
            pipe: Pipe::default(),
            switch_lines: (0, LineBuffer::new()),
            controller: Some(controller),
            workload,
            died_taking_over: false,
            generating: true,
            partitioned_until: [[Instant::ZERO; 3]; 3],
            lcores_stalled_until: [0, 1].map(|_| vec![Instant::ZERO; usize::from(scenario.shards)]),
            excuses: Excuses::default(),
            dropped: BTreeMap::new(),
            discarded: 0,
            round: 0,
            armed: Vec::new(),
            armed_phases: Vec::new(),
            held_by: None,
            hold_until: Instant::ZERO,
            hold_of: None,
            must_complete: false,
            known_migrations: BTreeSet::new(),
            scenario,
        };
        let scenario = format!("{:?}", world.scenario);
        world.trace.event(world.now, "seed", format_args!("{scenario}"));
        if let Some(node) = &mut world.nodes[0] {
            node.activate(world.now, &mut world.random, &mut world.trace)?;
        }
        world.after_management(0)?;
        for host in 0..3 {
            world.wake(Actor::Host(host), world.now);
        }
        for actor in [Actor::Node(0), Actor::Node(1), Actor::Controller, Actor::Switch] {
            world.wake(actor, world.now);
        }
        world.agenda.enter(world.now, Happening::Generate);
        Ok(world)
    }

    /// Has an actor run at `at`, or earlier if it is to already.
    pub(crate) fn wake(&mut self, actor: Actor, at: Instant) {
        let at = at.max(self.now);
        let (_, known) = &mut self.wakes[actor.index(self.scenario.shards)];
        *known = Some(known.map_or(at, |known| known.min(at)));
    }

    /// Has an actor run soon.
    fn wake_soon(&mut self, actor: Actor, within: Duration) {
        let at = self.now + self.random.time(Duration::from_micros(1), within);
        self.wake(actor, at);
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, duration: Duration) -> Outcome {
        let end = self.now + duration;
        self.run_until(end, |_| false)?;
        self.now = self.now.max(end);
        Ok(())
    }

    /// Lets time pass until something is the case, or until `end`; says which.
    pub(crate) fn run_until(&mut self, end: Instant, done: impl Fn(&mut Self) -> bool) -> Outcome<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            let first = (0..self.wakes.len()).min_by_key(|&index| self.wakes[index].1.unwrap_or(NEVER)).unwrap_or(0);
            let woken = self.wakes[first].1.unwrap_or(NEVER);
            let happening = self.agenda.next_at().unwrap_or(NEVER);
            let at = woken.min(happening);
            if at > end {
                self.now = self.now.max(end);
                return Ok(false);
            }
            self.now = self.now.max(at);
            if woken < happening {
                self.wakes[first].1 = None;
                self.act(self.wakes[first].0)?;
            } else if let Some((_, happening)) = self.agenda.take() {
                self.happen(happening)?;
            }
            self.strike_at_steps()?;
        }
    }

    /// Which life a peer of the controller lives: an instance, or the switch.
    fn life_of(&self, peer: usize) -> u32 {
        if peer < self.nodes.len() { self.lives[peer] } else { self.switch_lives }
    }

    fn happen(&mut self, happening: Happening) -> Outcome {
        match happening {
            Happening::FrameToSwitch { host, frame } => {
                let behind = if host == CONTROLLER { Behind::Management } else { Behind::InstanceManagement(host) };
                if let Some(fabric) = &mut self.fabric {
                    fabric.incoming.push_back((behind, frame));
                    self.wake_soon(Actor::Switch, Duration::from_micros(30));
                }
            }
            Happening::FrameToHost { host, life, frame } => {
                if life == self.lives[host]
                    && let Some(stack) = self.host(host)
                {
                    stack.deliver(frame);
                    self.wake(Actor::Host(host), self.now);
                }
            }
            Happening::LateToInstance { node, life, port, frame } => {
                if life == self.lives[node] {
                    self.put_in_ring(node, port, frame);
                }
            }
            Happening::LateFromInstance { node, port, frame } => self.put_to_switch(node, port, frame),
            Happening::Generate => self.generate()?,
            Happening::React { port, flow } => self.send_in(port, flow),
            Happening::Strike { round, fault } => {
                // What was meant for a migration that is over already does nothing.
                if round == self.round {
                    self.strike(fault)?;
                }
            }
            Happening::InstanceStarts { node } => self.start_instance(node)?,
            Happening::SwitchStarts => self.start_switch(),
            Happening::ControllerStarts => self.start_controller(),
            // With whoever was to get it went the connection that it is on.
            Happening::Resend { peer, life, .. } if life != self.life_of(peer) => {}
            Happening::Resend { peer, line, .. } => {
                self.trace.event(self.now, "network", format_args!("a control message arrives a second time"));
                self.with_controller(|controller, surroundings| controller.resend(surroundings, peer, &line));
            }
        }
        Ok(())
    }

    fn act(&mut self, actor: Actor) -> Outcome {
        match actor {
            Actor::Switch => self.run_switch()?,
            Actor::Host(host) => self.run_host(host),
            Actor::Node(node) => self.run_management(node)?,
            Actor::Lcore(node, shard) => self.run_lcore(node, shard)?,
            Actor::Controller => self.run_controller(),
        }
        Ok(())
    }

    fn generate(&mut self) -> Outcome {
        if !self.generating {
            return Ok(());
        }
        if self.scenario.even {
            self.agenda.enter(self.now + self.scenario.packet_interval, Happening::Generate);
            let (port, flow) = self.workload.choose(&mut self.random);
            self.send_in(port, flow);
            return Ok(());
        }
        let (generated, max) = (self.oracle.generated(), self.scenario.packets_max);
        let mean = self.scenario.packet_interval.as_nanos() as u64;
        // Ever more slowly, so that a run that takes long is not a run of many packets; but a migration wants traffic.
        let driving = self.controller.as_ref().is_some_and(|controller| controller.is_driving());
        let slower = 1 + if driving { 8 } else { 80 } * generated * generated / (max * max);
        // Now and then a burst.
        let burst = self.random.chance(300);
        let pause = if burst { self.random.below(mean / 20) } else { self.random.below(mean * 3 * slower) };
        self.agenda.enter(self.now + Duration::from_nanos(pause), Happening::Generate);
        let (port, flow) = self.workload.choose(&mut self.random);
        self.send_in(port, flow);
        Ok(())
    }
}

impl<N: NetworkFunction, W: Workload<N>> World<N, W> {
    /// Packets generated, processed and lost.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.oracle.generated(), self.oracle.processed(), self.oracle.lost())
    }
}
