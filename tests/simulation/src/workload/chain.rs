//! A network function whose output shows its whole history: it chains every packet of a flow to those before.

use super::Workload;
use crate::{PacketId, Random};
use slim_core::nf::{ConfigError, Environment, Gauge, InstallError, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::PacketBuf;
use slim_core::table::{SegmentedTable, StateItem};
use slim_core::time::Instant;

/// Stamps each packet with a number that depends on every packet of its flow before, in order and on either port.
///
/// A packet that is lost, doubled or overtaken, or a statelet that is, changes every later packet of its flow. Every
/// now and then a packet ends its flow's chain, and the next one begins another.
pub struct FlowChain {
    chains: SegmentedTable<u32, u64>,
}

/// A flow (4 bytes) and its chain (8 bytes), big endian.
const CHAIN: u16 = 1;
/// A flow (4 bytes) whose chain has ended.
const ENDED: u16 = 2;
/// Every so often a packet ends its flow's chain.
const CHAIN_LEN: u64 = 11;
const FLOW_AT: usize = 14;
const SEQUENCE_AT: usize = 18;
const PORT_AT: usize = 26;
const STAMP_AT: usize = 27;
const FRAME_LEN: usize = 60;

impl NetworkFunction for FlowChain {
    const KIND: &'static str = "flow-chain";
    const SCHEMA: u64 = 1;
    const PORTS: &'static [&'static str] = &["in", "out"];
    const DROP_REASONS: &'static [&'static str] = &["malformed", "table_full"];
    type Config = usize;

    fn new(flows_max: &usize, _shard: Shard, seed: u64) -> Result<Self, ConfigError> {
        Ok(Self { chains: SegmentedTable::with_capacity("chains", *flows_max, seed) })
    }

    fn process<P: PacketBuf, E: Environment>(&mut self, env: &mut E, port: PortId, packet: &mut P) -> Verdict {
        let frame = packet.bytes_mut();
        if frame.len() != FRAME_LEN {
            return Verdict::Drop(0);
        }
        let flow = u32::from_be_bytes(read(frame, FLOW_AT));
        let sequence = u64::from_be_bytes(read(frame, SEQUENCE_AT));
        let before = self.chains.get(&flow).copied().unwrap_or(1);
        let link = before.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        let chain = link ^ (sequence << 1 | u64::from(port.0 & 1));
        let ends = sequence % CHAIN_LEN == u64::from(flow) % CHAIN_LEN;
        if ends {
            self.chains.remove(&flow);
        } else if self.chains.insert(flow, chain).is_err() {
            return Verdict::Drop(1);
        }
        frame[STAMP_AT..STAMP_AT + 8].copy_from_slice(&chain.to_be_bytes());
        if env.upd_enable() && ends {
            env.announce(ENDED, &flow.to_be_bytes());
        } else if env.upd_enable() {
            let mut value = [0; 12];
            value[..4].copy_from_slice(&flow.to_be_bytes());
            value[4..].copy_from_slice(&chain.to_be_bytes());
            env.announce(CHAIN, &value);
        }
        Verdict::Transmit(PortId(1 - port.0.min(1)))
    }

    fn tick<E: Environment>(&mut self, _env: &mut E) {}

    fn install(&mut self, statelet_type: u16, value: &[u8]) -> Result<(), InstallError> {
        match (statelet_type, value.len()) {
            (CHAIN, 12) | (ENDED, 4) => {}
            (CHAIN | ENDED, len) => return Err(InstallError::Malformed { statelet_type, len }),
            _ => return Err(InstallError::UnknownType(statelet_type)),
        }
        let flow = u32::from_be_bytes(read(value, 0));
        if statelet_type == ENDED {
            self.chains.remove(&flow);
            return Ok(());
        }
        let chain = u64::from_be_bytes(read(value, 4));
        self.chains.insert(flow, chain).map(drop).map_err(|_| InstallError::TableFull { table: "chains" })
    }

    fn take_over(&mut self, _now: Instant) {}

    fn for_each_state(&mut self, f: &mut dyn FnMut(&mut dyn StateItem)) {
        f(&mut self.chains);
    }

    fn gauges(&self) -> Vec<Gauge> {
        vec![Gauge { name: "chains", value: self.chains.len() as u64 }]
    }
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    core::array::from_fn(|index| bytes[at + index])
}

/// Packets for [`FlowChain`].
#[derive(Debug, Clone, Copy)]
pub struct ChainWorkload {
    /// The most flows its table takes.
    pub flows_max: usize,
    /// Flows per port.
    pub flows: u32,
}

impl Workload<FlowChain> for ChainWorkload {
    fn config(&self) -> usize {
        self.flows_max
    }

    fn choose(&mut self, random: &mut Random) -> (PortId, u32) {
        (PortId(random.below(2) as u8), random.below(u64::from(self.flows)) as u32)
    }

    fn frame(&mut self, _now: Instant, id: PacketId, _random: &mut Random) -> Vec<u8> {
        let mut frame = vec![0; FRAME_LEN];
        // EtherType 0x88b6 is the second one for local experiments.
        frame[12..14].copy_from_slice(&[0x88, 0xb6]);
        frame[FLOW_AT..FLOW_AT + 4].copy_from_slice(&id.flow.to_be_bytes());
        frame[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&id.sequence.to_be_bytes());
        frame[PORT_AT] = id.port.0;
        frame
    }

    fn identify(&self, frame: &[u8]) -> Option<PacketId> {
        (frame.len() == FRAME_LEN && frame[12..14] == [0x88, 0xb6]).then(|| PacketId {
            port: PortId(frame[PORT_AT]),
            flow: u32::from_be_bytes(read(frame, FLOW_AT)),
            sequence: u64::from_be_bytes(read(frame, SEQUENCE_AT)),
        })
    }

    fn react(&mut self, _now: Instant, _port: PortId, _frame: &[u8]) -> Option<(PortId, u32)> {
        None
    }

    fn shard(&self, id: PacketId, shards: u16) -> u16 {
        (id.flow % u32::from(shards)) as u16
    }
}
