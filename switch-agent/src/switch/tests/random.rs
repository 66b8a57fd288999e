//! Random traffic with migrations and rollbacks in between, judged from outside.
//!
//! Two peers play the instances as §IV-B wants them: the live one processes what it receives, the destination keeps it
//! until the source has seen both drain packets. In a rollback the destination hands back what it kept.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Packets arrive at both external ports.
    Arrive(u8),
    /// Time passes, in microseconds.
    Pass(u16),
    /// Each device takes up to this many packets.
    Take(u8),
    /// A migration begins, if none is under way.
    Migrate,
    /// The migration under way is undone, if it can be.
    Rollback,
    /// A frame that nobody has any business to send arrives at some port.
    Noise(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..20).prop_map(Step::Arrive),
        6 => (0u16..6_000).prop_map(Step::Pass),
        6 => (0u8..30).prop_map(Step::Take),
        2 => Just(Step::Migrate),
        2 => Just(Step::Rollback),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(port, kind)| Step::Noise(port, kind)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Settled,
    /// Paths lead to the other instance, which only keeps.
    Forward,
    /// Paths lead back, and the other instance hands back.
    Back,
}

struct World {
    rig: Rig,
    /// 0 or 1: who processes.
    live: usize,
    stage: Stage,
    nonce: u32,
    /// Per dataplane port: the other instance's pkt_q.
    kept: [Vec<u32>; 2],
    /// Per dataplane port: whether the drain packet of this stage has been seen.
    drained: [bool; 2],
    /// Per dataplane port: what has been processed.
    processed: [Vec<u32>; 2],
    arrived: [u32; 2],
}

const INSTANCES: [&str; 2] = ["nat-a", "nat-b"];
const PORTS: [[&str; 2]; 2] = [["nat-a.in", "nat-a.out"], ["nat-b.in", "nat-b.out"]];
const EXTERNALS: [&str; 2] = ["inside", "outside"];

impl World {
    fn new() -> Self {
        Self {
            rig: Rig::new(WIDE),
            live: 0,
            stage: Stage::Settled,
            nonce: 0,
            kept: Default::default(),
            drained: [false; 2],
            processed: Default::default(),
            arrived: [0; 2],
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Arrive(count) => {
                for _ in 0..count {
                    for (external, arrived) in EXTERNALS.iter().zip(&mut self.arrived) {
                        self.rig.receive(external, frame(*arrived));
                        *arrived += 1;
                    }
                }
            }
            Step::Pass(micros) => self.rig.pass(Duration::from_micros(micros.into())),
            Step::Take(most) => self.take(usize::from(most))?,
            Step::Migrate if self.stage == Stage::Settled => self.redirect(self.live, false),
            Step::Rollback if self.stage == Stage::Forward => self.redirect(1 - self.live, true),
            Step::Migrate | Step::Rollback => {}
            Step::Noise(port, kind) => self.noise(port, kind),
        }
        self.rig.check();
        Ok(())
    }

    fn redirect(&mut self, from: usize, rollback: bool) {
        self.nonce += 1;
        self.drained = [false; 2];
        self.stage = if rollback { Stage::Back } else { Stage::Forward };
        self.rig.redirect(INSTANCES[from], INSTANCES[1 - from], self.nonce, rollback);
    }

    fn noise(&mut self, port: u8, kind: u8) {
        let stale = Drain {
            migration: MigrationId(1),
            nonce: Nonce(self.nonce),
            path: slim_core::protocol::PathIndex::new(0).unwrap(),
            paths: slim_core::protocol::PathSet::first(2),
        };
        let mut bytes = match kind % 4 {
            0 => encode(Frame::Drain(stale)),
            1 => encode(Frame::DrainAck(stale)),
            2 => encode(Frame::HandBack { migration: MIGRATION, port: PortId(9), frame: &frame(0) }),
            _ => frame(0),
        };
        bytes.truncate(usize::from(kind).max(1));
        // Management ports get anything, dataplane ports only what is not a data packet.
        let all = ["mgmt", "nat-a.mgmt", "nat-b.mgmt", "nat-a.in", "nat-b.out", "inside"];
        let choice = if kind % 4 == 3 || bytes.len() < 14 { 3 } else { all.len() };
        self.rig.receive(all[usize::from(port) % choice], bytes);
    }

    fn take(&mut self, most: usize) -> Result<(), TestCaseError> {
        for (instance, ports) in PORTS.iter().enumerate() {
            for (index, port) in ports.iter().enumerate() {
                let slot = self.rig.port(port);
                let mut frames = Vec::new();
                self.rig.switch.send(slot, |queue| {
                    let count = queue.len().min(most);
                    frames.extend(queue.drain(..count).map(OwnedPacket::into_inner));
                });
                for frame in frames {
                    match as_drain(&frame) {
                        Some(drain) => self.drain_arrives(instance, index, drain)?,
                        None => self.packet_arrives(instance, index, number(&frame))?,
                    }
                }
            }
        }
        for event in self.rig.events() {
            if let SwitchEvent::RollbackFinished { timed_out, dropped_packets, .. } = event {
                prop_assert!(!timed_out && dropped_packets == 0);
                self.stage = Stage::Settled;
            }
        }
        Ok(())
    }

    fn packet_arrives(&mut self, instance: usize, index: usize, packet: u32) -> Result<(), TestCaseError> {
        if instance == self.live {
            let gone = self.stage == Stage::Forward && self.drained[index];
            prop_assert!(!gone, "packet {packet} behind the drain packet");
            self.processed[index].push(packet);
        } else {
            let allowed = self.stage == Stage::Forward || (self.stage == Stage::Back && !self.drained[index]);
            prop_assert!(allowed, "packet {packet} for an idle instance");
            self.kept[index].push(packet);
        }
        Ok(())
    }

    fn drain_arrives(&mut self, instance: usize, index: usize, drain: Drain) -> Result<(), TestCaseError> {
        let port = PORTS[instance][index];
        prop_assert_eq!(usize::from(drain.path.get()), index);
        self.rig.receive(port, encode(Frame::DrainAck(drain)));
        if drain.nonce != Nonce(self.nonce) || self.drained[index] {
            return Ok(());
        }
        let to_source = self.stage == Stage::Forward && instance == self.live;
        let to_destination = self.stage == Stage::Back && instance != self.live;
        prop_assert!(to_source || to_destination);
        self.drained[index] = true;
        if to_destination {
            for packet in std::mem::take(&mut self.kept[index]) {
                self.rig.receive(port, hand_back(index as u8, &frame(packet)));
            }
            self.rig.receive(port, hand_back_end(index as u8));
        } else if self.drained == [true; 2] {
            self.live = 1 - self.live;
            for (processed, kept) in self.processed.iter_mut().zip(&mut self.kept) {
                processed.append(kept);
            }
            self.stage = Stage::Settled;
        }
        Ok(())
    }

    /// Lets everything come to rest.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            self.rig.pass(DELAY);
            self.take(usize::MAX)?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_is_processed_once_and_in_order(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
        world.settle()?;
        prop_assert_eq!(world.stage, Stage::Settled);
        for (processed, arrived) in world.processed.iter().zip(world.arrived) {
            prop_assert_eq!(processed, &(0..arrived).collect::<Vec<_>>());
        }
    }
}
