//! Tests of the switch as a whole, in virtual time: packets go in at ports and are looked for at ports.

mod bridge;
mod paths;
mod random;
mod redirect;
mod rollback;
mod scheduling;
mod topology;

use super::{Binding, Redirect, Switch};
use crate::counters::DropCause;
use crate::flow_space::FlowSpace;
use crate::limits::Limits;
use crate::{Buffers, HeapBuffers, PortIndex};
use slim_core::nf::{PortId, ShardId};
use slim_core::packet::{OwnedPacket, PacketBuf};
use slim_core::protocol::control::{LinkSettings, SwitchEvent};
use slim_core::protocol::inband::{Drain, Frame, HandBackEnd};
use slim_core::protocol::{MigrationId, Name, Nonce};
use slim_core::time::{Duration, Instant};

const MIGRATION: MigrationId = MigrationId(0xabc);
const DELAY: Duration = Duration::from_micros(2500);
const HOLD: Duration = Duration::from_secs(2);

/// The topology of the evaluation (§VII, figure 10): two instances, an inside and an outside, and management.
struct Rig<B: Buffers<Packet = OwnedPacket> = HeapBuffers> {
    switch: Switch<B>,
    now: Instant,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(all: &[&str]) -> Vec<Name> {
    all.iter().copied().map(name).collect()
}

fn bindings(externals: &[&str]) -> Vec<Binding> {
    externals.iter().map(|external| Binding { external: name(external), flow_space: FlowSpace::ANY }).collect()
}

/// A link that nothing is lost on.
const WIDE: LinkSettings = LinkSettings { rate_bps: 0, burst_bytes: 0, delay_us: 2_500 };

/// An IPv4 frame of 64 bytes that carries `number`.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    frame[60..].copy_from_slice(&number.to_be_bytes());
    frame
}

/// What [`frame`] carries.
fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[60..64].try_into().unwrap())
}

fn encode(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0xee; frame.encoded_len()];
    frame.encode(&mut bytes).unwrap();
    bytes
}

fn hand_back(port: u8, frame: &[u8]) -> Vec<u8> {
    encode(Frame::HandBack { migration: MIGRATION, port: PortId(port), frame })
}

fn hand_back_end(port: u8) -> Vec<u8> {
    let end = HandBackEnd { migration: MIGRATION, port: PortId(port), shard: ShardId(0), shards: 1 };
    encode(Frame::HandBackEnd(end))
}

fn as_drain(bytes: &[u8]) -> Option<Drain> {
    match Frame::decode(bytes) {
        Ok(Frame::Drain(drain)) if bytes[12..14] == [0x88, 0xb5] => Some(drain),
        _ => None,
    }
}

impl Rig {
    /// Two instances, paths to nat-a.
    fn new(link: LinkSettings) -> Self {
        Self::with(HeapBuffers, Limits::default(), link)
    }
}

impl<B: Buffers<Packet = OwnedPacket>> Rig<B> {
    fn with(buffers: B, limits: Limits, link: LinkSettings) -> Self {
        let mut rig = Self { switch: Switch::new(buffers, limits), now: Instant::from_millis(1) };
        for port in ["inside", "outside", "mgmt"] {
            rig.add_port(port);
        }
        rig.switch.set_management(&names(&["mgmt"])).unwrap();
        for instance in ["nat-a", "nat-b"] {
            let ports = ["in", "out", "mgmt"].map(|port| format!("{instance}.{port}"));
            ports.iter().for_each(|port| rig.add_port(port));
            let data = names(&[&ports[0], &ports[1]]);
            rig.switch.add_instance(rig.now, name(instance), &data, Some(&name(&ports[2])), link).unwrap();
        }
        rig.switch.set_paths(&name("nat-a"), &bindings(&["inside", "outside"])).unwrap();
        rig.events();
        rig
    }

    fn add_port(&mut self, port: &str) {
        let index = self.switch.add_port(name(port)).unwrap();
        self.switch.set_link(index, true);
    }

    fn port(&self, port: &str) -> PortIndex {
        self.switch.port_named(&name(port)).unwrap()
    }

    /// A frame is received at `port`.
    fn receive(&mut self, port: &str, frame: Vec<u8>) {
        let port = self.port(port);
        self.switch.receive(self.now, port, OwnedPacket::new(frame));
    }

    /// Goes to the next deadline, again and again, until `duration` has passed.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.switch.advance(self.now);
        while let Some(next) = self.switch.next_deadline().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.switch.advance(self.now);
        }
        self.now = end;
    }

    /// What the device behind `port` sends now.
    fn sent(&mut self, port: &str) -> Vec<Vec<u8>> {
        let index = self.port(port);
        let mut sent = Vec::new();
        self.switch.send(index, |queue| sent.extend(queue.drain(..).map(OwnedPacket::into_inner)));
        sent
    }

    /// The numbers of the frames sent at `port`.
    fn numbers(&mut self, port: &str) -> Vec<u32> {
        self.sent(port).iter().map(|frame| number(frame)).collect()
    }

    fn events(&mut self) -> Vec<SwitchEvent> {
        std::iter::from_fn(|| self.switch.poll_event()).collect()
    }

    fn redirect(&mut self, from: &str, to: &str, nonce: u32, rollback: bool) {
        let hold_max = if rollback { HOLD } else { Duration::ZERO };
        let (from, to) = (name(from), name(to));
        let request = Redirect { migration: MIGRATION, nonce: Nonce(nonce), from, to, rollback, hold_max };
        self.switch.redirect(self.now, request).unwrap();
    }

    /// Dropped packets of the whole switch for `cause`.
    fn dropped(&self, cause: DropCause) -> u64 {
        self.switch.totals().drops.of(cause)
    }

    fn counter(&self, counter: &str) -> u64 {
        self.switch.counters()[counter]
    }

    /// Every packet is somewhere.
    fn check(&self) {
        assert_eq!(self.switch.totals().unaccounted(), 0, "{:?}", self.switch.totals());
    }
}
