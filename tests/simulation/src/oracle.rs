//! The judge: knows every packet, and a reference that never migrates.

use super::Workload;
use slim_core::nf::{Environment, NetworkFunction, PortId, Shard, ShardId, Verdict};
use slim_core::packet::OwnedPacket;
use slim_core::snapshot;
use slim_core::time::Instant;
use std::collections::BTreeMap;

/// Which packet it is: the n-th of a flow, by the port it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId {
    /// The port it came in.
    pub port: PortId,
    /// Its flow.
    pub flow: u32,
    /// Its number within port and flow, from 0.
    pub sequence: u64,
}

/// Follows every packet from entry to exit.
///
/// Panics as soon as a packet is lost, doubled or overtaken within its flow, or treated otherwise than the reference
/// treats it.
pub struct Oracle<N: NetworkFunction> {
    references: Vec<N>,
    generated: BTreeMap<(PortId, u32), u64>,
    processed: BTreeMap<(PortId, u32), u64>,
    left: BTreeMap<(PortId, u32), u64>,
    /// What the reference sent, by packet, until the packet leaves.
    expected: BTreeMap<PacketId, Vec<u8>>,
    /// An instance has died with what it held: packets may be missing, but still not doubled or overtaken.
    pub(super) loss_allowed: bool,
}

/// The reference announces nothing, and what it sends of its own accord is not compared.
struct Silent(Instant);

impl Environment for Silent {
    fn now(&self) -> Instant {
        self.0
    }

    fn upd_enable(&self) -> bool {
        false
    }

    fn announce(&mut self, _statelet_type: u16, _value: &[u8]) {}

    fn emit(&mut self, _port: PortId, _frame: &[u8]) {}
}

impl<N: NetworkFunction> Oracle<N> {
    pub(super) fn new(config: &N::Config, shards: u16, seed: u64) -> Self {
        let reference = |id| {
            let shard = Shard { id: ShardId(id), count: shards };
            N::new(config, shard, seed).unwrap_or_else(|error| panic!("the reference cannot be made: {error}"))
        };
        Self {
            references: (0..shards).map(reference).collect(),
            generated: BTreeMap::new(),
            processed: BTreeMap::new(),
            left: BTreeMap::new(),
            expected: BTreeMap::new(),
            loss_allowed: false,
        }
    }

    /// The next packet of a flow enters.
    pub(super) fn generate(&mut self, port: PortId, flow: u32) -> PacketId {
        let next = self.generated.entry((port, flow)).or_default();
        let id = PacketId { port, flow, sequence: *next };
        *next += 1;
        id
    }

    /// An instance is about to process `frame`: so does the reference.
    pub(super) fn process<W: Workload<N>>(
        &mut self,
        now: Instant,
        workload: &W,
        shard: ShardId,
        port: PortId,
        frame: &[u8],
    ) -> (PacketId, Verdict) {
        let Some(id) = workload.identify(frame) else { panic!("an instance got a frame that nobody sent") };
        assert_eq!(id.port, port, "{id:?} arrived on another port");
        let next = self.processed.entry((id.port, id.flow)).or_default();
        let in_order = id.sequence == *next || (self.loss_allowed && id.sequence > *next);
        assert!(in_order, "{id:?} was processed, {next} was next: lost, doubled or overtaken");
        *next = id.sequence + 1;
        let mut packet = OwnedPacket::from(frame);
        let verdict = self.references[usize::from(shard.0)].process(&mut Silent(now), port, &mut packet);
        if let Verdict::Transmit(_) = verdict {
            self.expected.insert(id, packet.into_inner());
        }
        (id, verdict)
    }

    /// Time passes for a shard.
    pub(super) fn tick(&mut self, now: Instant, shard: ShardId) {
        self.references[usize::from(shard.0)].tick(&mut Silent(now));
    }

    /// A frame leaves through an external port.
    pub(super) fn leave<W: Workload<N>>(&mut self, workload: &W, frame: &[u8]) {
        let Some(id) = workload.identify(frame) else { return };
        let next = self.left.entry((id.port, id.flow)).or_default();
        assert!(id.sequence >= *next, "{id:?} left after {next}: doubled or overtaken");
        *next = id.sequence + 1;
        let expected = self.expected.remove(&id);
        assert_eq!(Some(frame), expected.as_deref(), "{id:?} is not what the reference makes of it");
    }

    /// Everything has come to rest: every packet generated must have been processed and, unless dropped, have left.
    pub(super) fn settle(&self) {
        if self.loss_allowed {
            return;
        }
        assert_eq!(self.generated, self.processed, "packets got lost on the way in");
        let stranded = self.expected.keys().next();
        assert_eq!(stranded, None, "a packet got lost on the way out");
    }

    /// The number of packets processed.
    pub fn packets(&self) -> u64 {
        self.processed.values().sum()
    }

    /// The digest of the reference's state.
    pub(super) fn digest(&mut self, shard: ShardId) -> u128 {
        snapshot::digest(&snapshot::freeze(&mut self.references[usize::from(shard.0)]))
    }
}
