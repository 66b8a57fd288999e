//! The hold of a rollback: packets for the instance that gets its paths back wait until the other one has handed back
//! what it holds, because that is older.

use super::model::{InstanceIndex, PortNumber};
use crate::fifo::Bounds;
use slim_core::packet::PacketBuf;
use slim_core::protocol::inband::HandBackEnd;
use slim_core::protocol::{MigrationId, Nonce};
use slim_core::time::Instant;
use std::collections::VecDeque;

/// Packets held for one instance, per dataplane port.
#[derive(Debug)]
pub(super) struct Hold<P> {
    pub migration: MigrationId,
    pub nonce: Nonce,
    /// Who hands back.
    pub from: InstanceIndex,
    pub deadline: Instant,
    bounds: Bounds,
    ports: Vec<Held<P>>,
    bytes: u64,
    packets: usize,
    /// All packets that have been held.
    pub held_total: u64,
    /// Packets that found the hold full.
    pub dropped: u64,
}

#[derive(Debug)]
struct Held<P> {
    ended: bool,
    /// The shards that have handed back everything, one bit each.
    shards: u64,
    packets: VecDeque<P>,
}

/// The most shards whose hand-backs are told apart.
const SHARDS_MAX: u16 = 64;

impl<P: PacketBuf> Hold<P> {
    /// An empty hold of `ports` dataplane ports.
    pub fn new(
        migration: MigrationId,
        nonce: Nonce,
        from: InstanceIndex,
        deadline: Instant,
        ports: usize,
        bounds: Bounds,
    ) -> Self {
        let ports = (0..ports).map(|_| Held { ended: false, shards: 0, packets: VecDeque::new() }).collect();
        Self { migration, nonce, from, deadline, bounds, ports, bytes: 0, packets: 0, held_total: 0, dropped: 0 }
    }

    /// Whether packets for dataplane port `number` are to be held.
    #[inline]
    pub fn holds(&self, number: PortNumber) -> bool {
        self.ports.get(usize::from(number)).is_some_and(|held| !held.ended)
    }

    /// Holds `packet`.
    ///
    /// # Errors
    /// If there is no room; the packet is dropped and counted in [`dropped`](Self::dropped).
    pub fn push(&mut self, number: PortNumber, packet: P) -> Result<(), ()> {
        let len = packet.bytes().len() as u64;
        let full = self.packets >= self.bounds.packets || self.bytes + len > self.bounds.bytes;
        let Some(held) = self.ports.get_mut(usize::from(number)).filter(|_| !full) else {
            self.dropped += 1;
            return Err(());
        };
        held.packets.push_back(packet);
        self.bytes += len;
        self.packets += 1;
        self.held_total += 1;
        Ok(())
    }

    /// The packets held at present.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Takes note that a shard has handed back everything of a port. Returns whether the port is now done with, so that
    /// its packets are to be [released](Self::release).
    pub fn end_of_shard(&mut self, end: &HandBackEnd) -> bool {
        let Some(held) = self.ports.get_mut(usize::from(end.port.0)).filter(|held| !held.ended) else { return false };
        if end.shards > SHARDS_MAX || end.shard.0 >= end.shards {
            return false;
        }
        held.shards |= 1 << end.shard.0;
        let all = u64::MAX >> (SHARDS_MAX - end.shards);
        held.ended = held.shards & all == all;
        held.ended
    }

    /// Ends the hold of dataplane port `number` and gives its packets, in order of their arrival.
    pub fn release(&mut self, number: PortNumber) -> VecDeque<P> {
        let Some(held) = self.ports.get_mut(usize::from(number)) else { return VecDeque::new() };
        held.ended = true;
        let packets = std::mem::take(&mut held.packets);
        self.packets -= packets.len();
        self.bytes -= packets.iter().map(|packet| packet.bytes().len() as u64).sum::<u64>();
        packets
    }

    /// Whether every port is done with.
    pub fn is_over(&self) -> bool {
        self.ports.iter().all(|held| held.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::nf::{PortId, ShardId};
    use slim_core::packet::OwnedPacket;

    fn hold() -> Hold<OwnedPacket> {
        let bounds = Bounds { bytes: 100, packets: 3 };
        Hold::new(MigrationId(1), Nonce(2), InstanceIndex(0), Instant::ZERO, 2, bounds)
    }

    fn end(port: u8, shard: u16, shards: u16) -> HandBackEnd {
        HandBackEnd { migration: MigrationId(1), port: PortId(port), shard: ShardId(shard), shards }
    }

    fn packet(len: usize) -> OwnedPacket {
        OwnedPacket::new(vec![0; len])
    }

    #[test]
    fn a_port_ends_with_its_last_shard_and_only_once() {
        let mut hold = hold();
        assert!(!hold.end_of_shard(&end(0, 1, 2)));
        assert!(!hold.end_of_shard(&end(0, 1, 2)), "the same shard again");
        assert!(hold.holds(0));
        assert!(hold.end_of_shard(&end(0, 0, 2)));
        assert!(!hold.end_of_shard(&end(0, 0, 2)), "over already");
        assert!(!hold.holds(0) && hold.holds(1) && !hold.is_over());
        assert!(hold.end_of_shard(&end(1, 0, 1)));
        assert!(hold.is_over());
    }

    #[test]
    fn ends_of_unknown_ports_and_shards_do_nothing() {
        let mut hold = hold();
        for wrong in [end(2, 0, 1), end(0, 0, 65), end(0, 1, 1), end(0, 0, 0)] {
            assert!(!hold.end_of_shard(&wrong));
        }
        let mut all = (0..64).map(|shard| hold.end_of_shard(&end(0, shard, 64)));
        assert!(all.by_ref().take(63).all(|ended| !ended));
        assert_eq!(all.next(), Some(true));
    }

    #[test]
    fn the_bounds_are_shared_by_all_ports_and_freed_by_release() {
        let mut hold = hold();
        assert_eq!(hold.push(0, packet(60)), Ok(()));
        assert_eq!(hold.push(1, packet(41)), Err(()));
        assert_eq!(hold.push(1, packet(40)), Ok(()));
        assert_eq!(hold.push(1, packet(0)), Ok(()));
        assert_eq!(hold.push(1, packet(0)), Err(()));
        assert_eq!((hold.packets(), hold.held_total, hold.dropped), (3, 3, 2));
        assert_eq!(hold.release(1), [packet(40), packet(0)]);
        assert_eq!(hold.push(0, packet(40)), Ok(()));
    }
}
