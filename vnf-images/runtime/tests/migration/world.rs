//! Everything together: fabric, two instances, traffic, and a controller's few requests.

use crate::fabric::{Fabric, Side};
use crate::instance::Instance;
use crate::trust;
use slim_core::protocol::control::{
    ControlError, InstanceEvent, InstanceReply, InstanceRequest, InstanceRole, InstanceStatus, MigrationReport,
    PrepareOptions, StartOptions,
};
use slim_core::protocol::{Failure, MigrationId, MigrationPhase, Mode, Name, Nonce, PathSet, Schema};
use slim_trust::Zeroizing;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const FRAME_LEN: usize = 128;
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];

/// One world at a time: the machine may be small.
static ONE: Mutex<()> = Mutex::new(());

pub const A: usize = 0;
pub const B: usize = 1;

/// One direction of one sender.
#[derive(Default)]
struct Flow {
    sent: u64,
    received: u64,
}

pub struct World {
    /// Dropped before the fabric: an instance complains when its switch leaves first.
    pub instances: Vec<Instance>,
    pub fabric: Fabric,
    flows: BTreeMap<(Side, u16), Flow>,
    pub problems: Vec<String>,
    senders: u16,
    next: u64,
    interval: Duration,
    last: Instant,
    migrations: u64,
    _directory: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl World {
    /// Two idle instances, `limits` being lines of their configurations' `[limits]`.
    pub fn new(limits: &str) -> Self {
        Self::with_identities(limits, trust::instance_pem)
    }

    /// As [`new`](Self::new), with an identity of each instance's own.
    pub fn with_identities(limits: &str, pem: impl Fn(&str) -> Zeroizing<String>) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a directory");
        let fabric = Fabric::new(2, directory.path());
        let instances: Vec<Instance> = [(A, "a"), (B, "b")]
            .map(|(index, name)| Instance::start(name, fabric.sockets(index), &pem(name), limits))
            .into();
        let mut world = Self {
            instances,
            fabric,
            flows: BTreeMap::new(),
            problems: Vec::new(),
            senders: 50,
            next: 0,
            interval: Duration::ZERO,
            last: Instant::now(),
            migrations: 0,
            _directory: directory,
            _one: one,
        };
        world.wait("links", |world| world.fabric.links_up(A) && world.fabric.links_up(B));
        world
    }

    /// As [`new`](Self::new), `a` being live and passing frames.
    pub fn live(limits: &str) -> Self {
        Self::new(limits).activated()
    }

    /// Makes `a` live and passing frames.
    pub fn activated(self) -> Self {
        let mut world = self;
        world.ask(A, InstanceRequest::Activate {}).expect("activates");
        world.traffic(Duration::from_micros(200));
        world.run_for(Duration::from_millis(200));
        world.must_flow();
        world
    }

    /// Sends a frame each `interval` from now on; none if it is zero.
    pub fn traffic(&mut self, interval: Duration) {
        self.interval = interval;
        self.last = Instant::now();
    }

    /// Sends one frame each of `senders` many further senders, to fill the state.
    pub fn fill(&mut self, senders: u16) {
        let before = self.senders;
        for number in before..before + senders {
            self.send(0, number);
            self.step();
        }
        self.senders = before;
    }

    fn send(&mut self, side: Side, sender: u16) {
        let flow = self.flows.entry((side, sender)).or_default();
        flow.sent += 1;
        let [high, low] = sender.to_be_bytes();
        let mut frame = [0u8; FRAME_LEN];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0xff]);
        frame[6..12].copy_from_slice(&[2, 0, 0, side as u8, high, low]);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        frame[14..22].copy_from_slice(&flow.sent.to_be_bytes());
        self.fabric.inject(side, &frame);
    }

    /// Takes note of a frame that came through.
    fn receive(&mut self, instance: usize, side: Side, frame: &[u8]) {
        let number = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
        let (sent, numbered) = (number(14), number(22));
        let (from, sender) = (Side::from(frame[9]), u16::from_be_bytes([frame[10], frame[11]]));
        let flow = self.flows.entry((from, sender)).or_default();
        flow.received += 1;
        if (sent, numbered, 1 - side, frame.len()) != (flow.received, flow.received, from, FRAME_LEN) {
            self.problems.push(format!(
                "instance {instance}: sender {from}/{sender}: frame {sent} came as {}th with number {numbered}",
                flow.received
            ));
        }
    }

    pub fn step(&mut self) {
        if !self.interval.is_zero() {
            // Never a burst to catch up after the machine was busy elsewhere.
            let due = (self.last.elapsed().as_nanos() / self.interval.as_nanos()) as u64;
            for _ in 0..due.min(32) {
                self.next += 1;
                self.send((self.next % 2) as usize, (self.next / 2 % u64::from(self.senders)) as u16);
            }
            if due > 0 {
                self.last = Instant::now();
            }
        }
        self.fabric.poll();
        while let Some((instance, side, frame)) = self.fabric.received.pop_front() {
            self.receive(instance, side, &frame);
        }
        self.instances.iter_mut().for_each(|instance| instance.control.poll());
        std::thread::sleep(Duration::from_micros(50));
    }

    pub fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            if begun.elapsed() > PATIENCE {
                let events: Vec<_> = self.instances.iter().map(|i| (&i.name, &i.control.events)).collect();
                panic!("waited in vain: {what}; problems {:?}; events {events:#?}", self.problems);
            }
            self.step();
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let begun = Instant::now();
        self.wait("time", |_| begun.elapsed() >= duration);
    }

    fn frames(&self) -> (u64, u64) {
        self.flows.values().fold((0, 0), |(sent, received), flow| (sent + flow.sent, received + flow.received))
    }

    /// Frames sent so far come through, while more are sent.
    pub fn must_flow(&mut self) {
        let (sent, _) = self.frames();
        self.wait("frames come through", |world| world.frames().1 > sent);
    }

    /// Stops the traffic; then every frame ever sent must have come through once, in order.
    pub fn must_be_perfect(&mut self) {
        self.traffic(Duration::ZERO);
        self.wait("every frame comes through", |world| {
            let (sent, received) = world.frames();
            received >= sent
        });
        self.run_for(Duration::from_millis(50));
        let (sent, received) = self.frames();
        assert_eq!((received, &self.problems), (sent, &Vec::new()));
    }

    pub fn ask(&mut self, instance: usize, request: InstanceRequest) -> Result<InstanceReply, ControlError> {
        let id = self.instances[instance].control.send(request);
        let mut reply = None;
        self.wait("a reply", |world| {
            reply = world.instances[instance].control.take_reply(id);
            reply.is_some()
        });
        reply.expect("waited for it")
    }

    pub fn status(&mut self, instance: usize) -> InstanceStatus {
        match self.ask(instance, InstanceRequest::Status {}) {
            Ok(InstanceReply::Status(status)) => *status,
            other => panic!("status: {other:?}"),
        }
    }

    pub fn role(&mut self, instance: usize) -> InstanceRole {
        self.status(instance).role
    }

    /// Waits for an event and removes it and all before it.
    pub fn event<T>(&mut self, instance: usize, what: &str, mut find: impl FnMut(&InstanceEvent) -> Option<T>) -> T {
        let mut found = None;
        self.wait(what, |world| {
            let events = &mut world.instances[instance].control.events;
            let Some(at) = events.iter().position(|event| {
                found = find(event);
                found.is_some()
            }) else {
                return false;
            };
            events.drain(..=at);
            true
        });
        found.expect("waited for it")
    }

    pub fn phase(&mut self, instance: usize, wanted: MigrationPhase) {
        self.event(instance, &format!("{wanted:?}"), |event| match event {
            InstanceEvent::PhaseChanged { phase, .. } if *phase == wanted => Some(()),
            _ => None,
        });
    }

    pub fn failed(&mut self, instance: usize) -> Failure {
        self.event(instance, "a failure", |event| match event {
            InstanceEvent::MigrationFailed { failure, .. } => Some(failure.clone()),
            _ => None,
        })
    }

    pub fn finished(&mut self, instance: usize) -> MigrationReport {
        self.event(instance, "the report", |event| match event {
            InstanceEvent::MigrationFinished { report, .. } => Some((**report).clone()),
            _ => None,
        })
    }

    pub fn redirect_wanted(&mut self, instance: usize) {
        self.event(instance, "redirect wanted", |event| {
            matches!(event, InstanceEvent::RedirectWanted { .. }).then_some(())
        });
    }

    pub fn new_migration(&mut self) -> (MigrationId, Nonce) {
        self.migrations += 1;
        (MigrationId(0x5117_0000 + self.migrations), Nonce(0x100 + self.migrations as u32))
    }

    /// Prepares an instance for streams from the other one.
    pub fn prepare(&mut self, instance: usize, migration: MigrationId) {
        self.prepare_for(instance, migration, Mode::Statelet);
    }

    fn prepare_for(&mut self, instance: usize, migration: MigrationId, mode: Mode) {
        let kind = Name::try_from("numberer").expect("a name");
        let source = Some(trust::name(&self.instances[1 - instance].name));
        let options = PrepareOptions { mode, source, ..PrepareOptions::default() };
        let request = InstanceRequest::Prepare { migration, kind, schema: Schema(1), shards: 1, options };
        self.ask(instance, request).expect("prepares");
        let armed = slim_core::protocol::DestinationPhase::Armed;
        self.phase(instance, MigrationPhase::Destination(armed));
    }

    /// A request to start towards whoever is at `destination` and says that it is `b`, if nothing else is said.
    pub fn start_request(
        (migration, nonce): (MigrationId, Nonce),
        destination: SocketAddr,
        mut options: StartOptions,
    ) -> InstanceRequest {
        options.destination.get_or_insert_with(|| trust::name("b"));
        InstanceRequest::Start { migration, destination, paths: PathSet::first(2), nonce, options }
    }

    pub fn start(
        &mut self,
        instance: usize,
        ids: (MigrationId, Nonce),
        destination: SocketAddr,
        options: StartOptions,
    ) {
        self.ask(instance, Self::start_request(ids, destination, options)).expect("starts");
    }

    /// A whole migration; returns both ends' reports.
    pub fn migrate(&mut self, from: usize, to: usize, mut options: StartOptions) -> [MigrationReport; 2] {
        options.destination = Some(trust::name(&self.instances[to].name));
        let ids = self.new_migration();
        self.prepare_for(to, ids.0, options.mode);
        let destination = self.instances[to].state_address;
        self.start(from, ids, destination, options);
        self.redirect_wanted(to);
        self.fabric.redirect(to, ids.0, ids.1);
        let reports = [self.finished(from), self.finished(to)];
        assert_eq!(self.fabric.acknowledged, PathSet::first(2));
        reports
    }
}
