//! The switch with arbitrary frames, requests and time: every packet is somewhere, and its memory has bounds.

use crate::input::Input;
use crate::operations::name;
use slim_core::nf::{PortId, ShardId};
use slim_core::packet::OwnedPacket;
use slim_core::protocol::control::LinkSettings;
use slim_core::protocol::inband::{Drain, Frame, HandBackEnd};
use slim_core::protocol::{MigrationId, Name, Nonce, PathIndex, PathSet};
use slim_core::time::{Duration, Instant};
use slim_switch::fifo::Bounds;
use slim_switch::flow_space::{AddressMatch, FlowSpace};
use slim_switch::{Binding, HeapBuffers, Limits, PortIndex, Redirect, Switch, TopologyError};

const EXTERNALS: [&str; 4] = ["inside", "outside", "mgmt", "spare"];
const INSTANCES: [&str; 3] = ["nat-a", "nat-b", "nat-c"];
const OWN_PORTS: [&str; 3] = ["in", "out", "mgmt"];

/// Few enough that every queue fills up.
fn limits() -> Limits {
    let bounds = Bounds { bytes: 4096, packets: 16 };
    Limits {
        egress: bounds,
        delay_packets: 32,
        lower_effort: bounds,
        hold: bounds,
        drain_interval: Duration::from_millis(20),
        drain_attempts_max: 8,
    }
}

struct World {
    switch: Switch<HeapBuffers>,
    now: Instant,
    /// Drain packets that instances have been sent.
    drains: Vec<(PortIndex, Drain)>,
}

fn all_ports() -> impl Iterator<Item = String> {
    let own = INSTANCES.iter().flat_map(|instance| OWN_PORTS.map(|port| format!("{instance}.{port}")));
    EXTERNALS.into_iter().map(String::from).chain(own)
}

impl World {
    /// Two instances with paths to the first, and management.
    fn new() -> Self {
        let switch = Switch::new(HeapBuffers, limits());
        let mut world = Self { switch, now: Instant::from_millis(1), drains: Vec::new() };
        for port in all_ports() {
            let index = world.switch.add_port(name(&port)).expect("a new port");
            world.switch.set_link(index, true);
        }
        world.switch.set_management(&[name("mgmt")]).expect("a free port");
        let link = LinkSettings { rate_bps: 0, burst_bytes: 0, delay_us: 2_500 };
        for instance in ["nat-a", "nat-b"] {
            world.add_instance(instance, link, 2).expect("free ports");
        }
        world.set_paths("nat-a", &["inside", "outside"], FlowSpace::ANY).expect("free ports");
        world
    }

    fn add_instance(&mut self, instance: &str, link: LinkSettings, ports: usize) -> Result<(), TopologyError> {
        let [inside, outside, mgmt] = OWN_PORTS.map(|port| name(&format!("{instance}.{port}")));
        let data = [inside, outside];
        self.switch.add_instance(self.now, name(instance), &data[..ports], Some(&mgmt), link)
    }

    fn set_paths(&mut self, instance: &str, externals: &[&str], flow_space: FlowSpace) -> Result<(), TopologyError> {
        let bindings: Vec<Binding> =
            externals.iter().map(|external| Binding { external: name(external), flow_space }).collect();
        self.switch.set_paths(&name(instance), &bindings)
    }

    fn port(&self, input: &mut Input<'_>) -> PortIndex {
        // Ports that are gone, or never were, too.
        PortIndex(input.below(14) as u16)
    }

    fn receive(&mut self, port: PortIndex, frame: Vec<u8>) {
        self.switch.receive(self.now, port, OwnedPacket::new(frame));
    }

    /// Takes what a port has to send, and remembers the drain packets among it.
    fn take(&mut self, port: PortIndex, most: usize) {
        let mut frames = Vec::new();
        self.switch.send(port, |queue| {
            let count = queue.len().min(most);
            frames.extend(queue.drain(..count).map(OwnedPacket::into_inner));
        });
        for frame in frames {
            if slim_core::protocol::inband::is_inband(&frame)
                && let Ok(Frame::Drain(drain)) = Frame::decode(&frame)
                && self.drains.len() < 64
            {
                self.drains.push((port, drain));
            }
        }
    }

    fn change_topology(&mut self, input: &mut Input<'_>) {
        let instance = input.one_of(&INSTANCES);
        let ports: Vec<String> = all_ports().collect();
        let port: Name = name(&ports[input.below(ports.len())]);
        // Refusals are as good as changes: either way every packet has to be somewhere afterwards.
        match input.below(8) {
            0 => drop(self.switch.add_port(port)),
            1 => drop(self.switch.remove_port(&port)),
            2 => {
                let all: Vec<Name> = (0..input.below(3)).map(|_| name(input.one_of(&EXTERNALS))).collect();
                drop(self.switch.set_management(&all));
            }
            3 => drop(self.add_instance(instance, link(input), input.below(3))),
            4 => drop(self.switch.remove_instance(self.now, &name(instance))),
            5 => {
                let externals: Vec<&str> = (0..input.below(3)).map(|_| input.one_of(&EXTERNALS)).collect();
                drop(self.set_paths(instance, &externals, flow_space(input)));
            }
            6 => drop(self.switch.set_link_settings(self.now, &name(instance), link(input))),
            _ => {
                let (port, up) = (self.port(input), input.flag());
                self.switch.set_link(port, up);
            }
        }
    }

    fn redirect(&mut self, input: &mut Input<'_>) {
        let request = Redirect {
            migration: MigrationId(1 + input.below(2) as u64),
            nonce: Nonce(input.below(8) as u32),
            from: name(input.one_of(&INSTANCES)),
            to: name(input.one_of(&INSTANCES)),
            rollback: input.flag(),
            hold_max: Duration::from_millis(u64::from(input.byte()) * 10),
        };
        drop(self.switch.redirect(self.now, request));
    }

    /// An in-band frame of an instance: an answer to a drain packet that it got, or anything.
    fn inband(&mut self, input: &mut Input<'_>) {
        let migration = MigrationId(1 + input.below(2) as u64);
        let port = PortId(input.below(3) as u8);
        let enclosed = data_frame(input);
        let stray = Drain {
            migration,
            nonce: Nonce(input.below(8) as u32),
            path: PathIndex::new(input.below(64) as u8).expect("below 64"),
            paths: PathSet(u64::MAX),
        };
        let (at, frame) = match input.below(5) {
            0 | 1 if !self.drains.is_empty() => {
                let index = input.below(self.drains.len());
                let (at, drain) = self.drains[index];
                if !input.one_in(4) {
                    self.drains.swap_remove(index);
                }
                (at, Frame::DrainAck(drain))
            }
            2 => (self.port(input), Frame::HandBack { migration, port, frame: &enclosed }),
            3 => {
                let (shard, shards) = (ShardId(input.below(2) as u16), 1 + input.below(3) as u16);
                (self.port(input), Frame::HandBackEnd(HandBackEnd { migration, port, shard, shards }))
            }
            _ => (self.port(input), Frame::Drain(stray)),
        };
        let mut bytes = vec![0xa5; frame.encoded_len()];
        if frame.encode(&mut bytes).is_ok() {
            self.receive(at, bytes);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=5 => {
                let (port, frame) = (self.port(input), data_frame(input));
                let copies = if input.one_in(8) { 40 } else { 1 };
                (0..copies).for_each(|_| self.receive(port, frame.clone()));
            }
            6 | 7 => self.inband(input),
            8 => self.change_topology(input),
            9 => self.redirect(input),
            10 | 11 => {
                self.now += Duration::from_micros(u64::from(input.u16()) * 4);
                self.switch.advance(self.now);
            }
            12 => {
                if let Some(next) = self.switch.next_deadline() {
                    self.now = self.now.max(next);
                }
                self.switch.advance(self.now);
            }
            _ => {
                let (port, most) = (self.port(input), input.below(32));
                self.take(port, most);
            }
        }
    }

    fn check(&self) {
        let totals = self.switch.totals();
        assert_eq!(totals.unaccounted(), 0, "{totals:?}");
    }
}

fn link(input: &mut Input<'_>) -> LinkSettings {
    LinkSettings {
        rate_bps: input.one_of(&[0, 0, 1, 1_000_000, 1_000_000_000, u64::MAX]),
        burst_bytes: input.one_of(&[0, 1600, 10_000, u64::MAX]),
        delay_us: input.one_of(&[0, 1, 2_500, u32::MAX]),
    }
}

fn flow_space(input: &mut Input<'_>) -> FlowSpace {
    let mut address = || -> AddressMatch {
        input.one_of(&["any", "any", "0.0.0.0/0.0.0.1", "0.0.0.1/0.0.0.1", "10.1.0.0/24"]).parse().expect("a condition")
    };
    FlowSpace { source: address(), destination: address() }
}

/// Some frame: short, long, any addresses, mostly IPv4.
fn data_frame(input: &mut Input<'_>) -> Vec<u8> {
    let len = input.one_of(&[64usize, 64, 34, 14, 13, 0, 1514, 2000]);
    let mut frame = vec![0; len];
    // Few addresses, so that the bridge knows them; the last are multicast and reserved.
    for at in [0, 6] {
        let mac = match input.below(8) {
            6 => [0xff; 6],
            7 => [1, 0x80, 0xc2, 0, 0, input.byte()],
            host => [2, 0, 0, 0, 0, host as u8],
        };
        if let Some(field) = frame.get_mut(at..at + 6) {
            field.copy_from_slice(&mac);
        }
    }
    let ether_type = input.one_of(&[0x0800u16, 0x0800, 0x0806, 0x88b5, 0x8100]);
    if let Some(field) = frame.get_mut(12..14) {
        field.copy_from_slice(&ether_type.to_be_bytes());
    }
    let len = input.below(24);
    let content = input.bytes(len);
    for (to, from) in frame.iter_mut().skip(14).zip(content) {
        *to = *from;
    }
    frame
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    world.check();
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
        let mut events = 0;
        while world.switch.poll_event().is_some() {
            events += 1;
        }
        assert!(events <= 200, "{events} events at once");
    }
    // At rest everything has gone somewhere.
    let mut rounds = 0;
    while let Some(next) = world.switch.next_deadline() {
        if next > world.now + Duration::from_secs(7200) {
            break;
        }
        world.now = world.now.max(next);
        world.switch.advance(world.now);
        (0..14).for_each(|port| world.take(PortIndex(port), usize::MAX));
        rounds += 1;
        assert!(rounds < 10_000, "it never comes to rest");
    }
    world.check();
    let _ = (world.switch.counters(), world.switch.instances(), world.switch.redirect_states());
}
