//! The judge: knows every packet, and a reference that never migrates.
//!
//! The reference is the same network function, one per shard, given each packet at the moment the holder gets it. It
//! never freezes, sends no statelet, and is nobody's destination. Since random choices (of ports, of hash seeds) are
//! an instance's own, the reference makes those of the present holder: at a take-over it is made anew with the new
//! holder's seed and its own old state, which has been compared before.

use crate::Workload;
use slim_core::nf::{Environment, NetworkFunction, PortId, Shard, ShardId, Verdict};
use slim_core::packet::OwnedPacket;
use slim_core::snapshot::{self, SnapshotReader, SnapshotWriter};
use slim_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

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

/// Something that must not happen, in words.
pub(crate) type Verdictful = Result<(), String>;

/// Follows every packet from entry to exit.
pub(crate) struct Oracle<N: NetworkFunction> {
    config: N::Config,
    references: Vec<N>,
    generated: BTreeMap<(PortId, u32), u64>,
    /// The next of each flow to be processed.
    next_in: BTreeMap<(PortId, u32), u64>,
    /// Packets that others of their flow were processed before: lost, or overtaken.
    skipped: BTreeSet<PacketId>,
    /// The next of each flow to leave.
    next_out: BTreeMap<(PortId, u32), u64>,
    /// What the reference sent, by packet, until the packet leaves.
    expected: BTreeMap<PacketId, (PortId, Vec<u8>)>,
    /// Packets that are known to be lost on their way in.
    lost: BTreeSet<PacketId>,
    /// Packets that a counter says are lost, nobody says which.
    counted_in: u64,
    counted_out: u64,
    /// An upper bound for packets lost in something that died without saying what it held.
    unknown: u64,
    /// The order of packets is not promised any more for those generated before, by flow.
    order_excused: BTreeMap<(PortId, u32), u64>,
    /// Nor for any, for now.
    order_suspended: bool,
    processed: u64,
    /// Packets that network functions dropped, by shard and reason.
    dropped: BTreeMap<(ShardId, u16), u64>,
    lost_out: u64,
    /// The state died with its holder: what becomes of packets cannot be told any more, but their order can.
    state_lost: bool,
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
    pub(crate) fn new(config: &N::Config) -> Self {
        Self {
            config: config.clone(),
            references: Vec::new(),
            generated: BTreeMap::new(),
            next_in: BTreeMap::new(),
            skipped: BTreeSet::new(),
            next_out: BTreeMap::new(),
            expected: BTreeMap::new(),
            lost: BTreeSet::new(),
            counted_in: 0,
            counted_out: 0,
            unknown: 0,
            order_excused: BTreeMap::new(),
            order_suspended: false,
            processed: 0,
            dropped: BTreeMap::new(),
            lost_out: 0,
            state_lost: false,
        }
    }

    /// An instance begins with empty state, one seed per shard; whatever there was before is gone.
    pub(crate) fn begin(&mut self, seeds: &[u64]) -> Verdictful {
        let shards = seeds.len() as u16;
        let fresh = |(id, &seed): (usize, &u64)| self.fresh(Shard { id: ShardId(id as u16), count: shards }, seed);
        self.references = seeds.iter().enumerate().map(fresh).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn fresh(&self, shard: Shard, seed: u64) -> Result<N, String> {
        N::new(&self.config, shard, seed).map_err(|error| format!("the reference cannot be made: {error}"))
    }

    /// The next packet of a flow enters.
    pub(crate) fn generate(&mut self, port: PortId, flow: u32) -> PacketId {
        let next = self.generated.entry((port, flow)).or_default();
        let id = PacketId { port, flow, sequence: *next };
        *next += 1;
        id
    }

    /// The holder has processed a packet: so does the reference.
    pub(crate) fn process<W: Workload<N>>(
        &mut self,
        now: Instant,
        workload: &W,
        shard: ShardId,
        (port, before): (PortId, Vec<u8>),
        (verdict, after): (Verdict, &[u8]),
    ) -> Verdictful {
        let Some(id) = workload.identify(&before) else { return Err("a frame from nowhere was processed".into()) };
        if id.port != port {
            return Err(format!("{id:?} arrived on port {}", port.0));
        }
        let next = self.next_in.entry((id.port, id.flow)).or_default();
        if id.sequence < *next {
            let excused = self.order_excused.get(&(id.port, id.flow)).is_some_and(|&until| id.sequence < until);
            let excused = excused || self.order_suspended;
            match self.skipped.remove(&id) {
                true if excused => {}
                true => return Err(format!("{id:?} was overtaken within its flow on its way in")),
                false => return Err(format!("{id:?} was processed twice")),
            }
        } else {
            for sequence in *next..id.sequence {
                self.skipped.insert(PacketId { sequence, ..id });
            }
            *next = id.sequence + 1;
        }
        if self.lost.contains(&id) {
            return Err(format!("{id:?} was lost, and processed all the same"));
        }
        self.processed += 1;
        if self.state_lost {
            if let Verdict::Transmit(port) = verdict {
                self.expected.insert(id, (port, after.to_vec()));
            }
            return Ok(());
        }
        let mut packet = OwnedPacket::from(before.as_slice());
        let Some(reference) = self.references.get_mut(usize::from(shard.0)) else {
            return Err("nobody has begun to process packets".into());
        };
        let expected = reference.process(&mut Silent(now), port, &mut packet);
        if expected != verdict {
            return Err(format!("{id:?} came to {verdict:?}, the reference makes it {expected:?}"));
        }
        if let Verdict::Drop(reason) = verdict {
            *self.dropped.entry((shard, reason)).or_default() += 1;
        }
        if let Verdict::Transmit(port) = verdict {
            let expected = packet.into_inner();
            if expected != after {
                return Err(format!("{id:?} became {after:02x?}, the reference makes it {expected:02x?}"));
            }
            self.expected.insert(id, (port, expected));
        }
        Ok(())
    }

    /// Time passes for a shard.
    pub(crate) fn tick(&mut self, now: Instant, shard: ShardId) {
        if let Some(reference) = self.references.get_mut(usize::from(shard.0)) {
            reference.tick(&mut Silent(now));
        }
    }

    /// The state died with its holder.
    pub(crate) fn lose_state(&mut self) {
        self.state_lost = true;
    }

    /// A new holder takes a shard over, whose network function was made with `seed`.
    pub(crate) fn take_over(&mut self, now: Instant, shard: Shard, seed: u64, digest: u128) -> Verdictful {
        if self.state_lost {
            return Ok(());
        }
        self.compare(shard.id, digest, "at take-over")?;
        let Some(old) = self.references.get_mut(usize::from(shard.id.0)) else { return Ok(()) };
        let mut writer = SnapshotWriter::new(snapshot::freeze(old), 0);
        let mut bytes = Vec::new();
        while writer.write_next(&mut bytes).map_err(|error| error.to_string())? {}
        let mut new = self.fresh(shard, seed)?;
        SnapshotReader::new().receive(&bytes, &mut new).map_err(|error| error.to_string())?;
        new.take_over(now);
        self.references[usize::from(shard.id.0)] = new;
        self.compare(shard.id, digest, "after the reference was made anew")
    }

    /// The holder's sense of time and random choices are aligned: so are the reference's.
    pub(crate) fn align(&mut self, now: Instant, shard: ShardId, seed: u64) {
        if let Some(reference) = self.references.get_mut(usize::from(shard.0)) {
            reference.align(now, seed);
        }
    }

    /// The state of a shard must be the reference's.
    pub(crate) fn compare(&mut self, shard: ShardId, digest: u128, when: &str) -> Verdictful {
        if self.state_lost {
            return Ok(());
        }
        let Some(reference) = self.references.get_mut(usize::from(shard.0)) else {
            return Err(format!("shard {} has state {when} that nobody began with", shard.0));
        };
        let expected = snapshot::digest(&snapshot::freeze(reference));
        if expected != digest {
            return Err(format!("the state of shard {} {when} differs from the reference's", shard.0));
        }
        Ok(())
    }

    /// Compares what a holder's counters of drops say with all drops there were, wherever the state was then.
    pub(crate) fn compare_drops(&self, shard: ShardId, reasons: &[&str], counted: impl Fn(u16) -> u64) -> Verdictful {
        if self.state_lost {
            return Ok(());
        }
        for (reason, name) in (0..).zip(reasons) {
            let (counted, dropped) = (counted(reason), self.dropped.get(&(shard, reason)).copied().unwrap_or(0));
            if counted != dropped {
                return Err(format!("shard {} counts {counted} drops for {name} of {dropped}", shard.0));
            }
        }
        Ok(())
    }

    /// A frame leaves through an external port.
    pub(crate) fn leave<W: Workload<N>>(&mut self, workload: &W, port: PortId, frame: &[u8]) -> Verdictful {
        let Some(id) = workload.identify(frame) else { return Ok(()) };
        let Some((out, expected)) = self.expected.remove(&id) else {
            return Err(format!("{id:?} left though nobody sent it, or for a second time"));
        };
        if (out, expected.as_slice()) != (port, frame) {
            return Err(format!("{id:?} is not what the reference makes of it, or left at the wrong port"));
        }
        let next = self.next_out.entry((id.port, id.flow)).or_default();
        let excused = self.order_excused.get(&(id.port, id.flow)).is_some_and(|&until| id.sequence < until);
        if id.sequence < *next && !excused && !self.order_suspended {
            return Err(format!("{id:?} left after {}: overtaken within its flow", *next - 1));
        }
        *next = (*next).max(id.sequence + 1);
        Ok(())
    }

    /// A frame on its way to an instance, or handed back by one, is lost.
    pub(crate) fn lose_in<W: Workload<N>>(&mut self, workload: &W, frame: &[u8]) {
        if let Some(id) = workload.identify(frame) {
            self.lost.insert(id);
        }
    }

    /// A frame on its way from an instance to the outside is lost.
    pub(crate) fn lose_out<W: Workload<N>>(&mut self, workload: &W, frame: &[u8]) {
        if let Some(id) = workload.identify(frame)
            && self.expected.remove(&id).is_some()
        {
            self.lost_out += 1;
        }
    }

    /// A frame is lost, on whichever way it was.
    pub(crate) fn lose<W: Workload<N>>(&mut self, workload: &W, frame: &[u8]) {
        let on_its_way_out = workload.identify(frame).is_some_and(|id| self.expected.contains_key(&id));
        if on_its_way_out { self.lose_out(workload, frame) } else { self.lose_in(workload, frame) }
    }

    /// A counter says that packets are lost on their way in.
    pub(crate) fn count_in(&mut self, packets: u64) {
        self.counted_in += packets;
    }

    /// A counter says that packets are lost on their way out.
    pub(crate) fn count_out(&mut self, packets: u64) {
        self.counted_out += packets;
    }

    /// Something died that held at most so many packets.
    pub(crate) fn lose_unknown(&mut self, packets: u64) {
        self.unknown += packets;
    }

    /// Promises no order until [`resume_order`](Self::resume_order).
    pub(crate) fn suspend_order(&mut self) {
        self.order_suspended = true;
    }

    /// Promises order again, for packets to come.
    pub(crate) fn resume_order(&mut self) {
        if std::mem::take(&mut self.order_suspended) {
            self.excuse_order();
        }
    }

    /// From here on packets generated so far may overtake each other.
    pub(crate) fn excuse_order(&mut self) {
        self.order_excused.clone_from(&self.generated);
    }

    /// Everything has come to rest: every packet must have been processed and, unless dropped, have left, or be lost
    /// for a known reason.
    pub(crate) fn settle(&self) -> Verdictful {
        let mut missing: Vec<PacketId> = self.skipped.iter().copied().collect();
        for (&(port, flow), &generated) in &self.generated {
            let next = self.next_in.get(&(port, flow)).copied().unwrap_or(0);
            missing.extend((next..generated).map(|sequence| PacketId { port, flow, sequence }));
        }
        missing.retain(|id| !self.lost.contains(id));
        let (missing_in, missing_out) = (missing.len() as u64, self.expected.len() as u64);
        let unexplained = missing_in.saturating_sub(self.counted_in) + missing_out.saturating_sub(self.counted_out);
        if unexplained > self.unknown {
            let first = missing.first().or_else(|| self.expected.keys().next());
            return Err(format!(
                "{missing_in} packets are missing on their way in and {missing_out} on their way out, {} and {} are \
                 accounted for; the first is {first:?}",
                self.counted_in, self.counted_out
            ));
        }
        // On their way out there are also frames that the network function sent of its own accord.
        if self.counted_in > missing_in && self.unknown == 0 {
            let counted = self.counted_in;
            return Err(format!("counters say that {counted} packets are lost, but {missing_in} are missing"));
        }
        Ok(())
    }

    /// The number of packets generated.
    pub(crate) fn generated(&self) -> u64 {
        self.generated.values().sum()
    }

    /// The number of packets processed.
    pub(crate) fn processed(&self) -> u64 {
        self.processed
    }

    /// The number of packets lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.len() as u64 + self.lost_out + self.counted_in + self.counted_out
    }
}
