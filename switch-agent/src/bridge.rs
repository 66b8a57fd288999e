//! The learning bridge that joins the management ports.
//!
//! It decides where a frame goes; the switch takes it there. There is one bridge and it never sends a frame back to
//! where it came from, so it makes no loop by itself; it speaks no spanning tree protocol.

use crate::PortIndex;
use slim_core::time::{Duration, Instant};
use std::collections::HashMap;

/// The most addresses that are learnt. What does not fit is flooded.
pub const MACS_MAX: usize = 1024;

/// An address that has not been seen as a source for so long is forgotten.
pub const MAC_AGE_MAX: Duration = Duration::from_secs(300);

/// Where a frame is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// To this port.
    Port(PortIndex),
    /// To all management ports but the one it came from.
    Flood,
    /// Nowhere: its destination is where it came from.
    SamePort,
    /// Nowhere: bridges do not forward this destination address.
    Reserved,
    /// Nowhere: shorter than an Ethernet header.
    Runt,
}

/// Counters of a [`Bridge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgeCounters {
    /// Addresses that turned up at another port than before.
    pub moves: u64,
    /// Addresses that were not learnt because the table was full.
    pub table_full: u64,
}

/// The table of addresses.
#[derive(Debug)]
pub struct Bridge {
    macs: HashMap<[u8; 6], Learnt>,
    counters: BridgeCounters,
    swept: Instant,
}

#[derive(Debug)]
struct Learnt {
    port: PortIndex,
    seen: Instant,
}

impl Default for Bridge {
    fn default() -> Self {
        let macs = HashMap::with_capacity(MACS_MAX);
        Self { macs, counters: BridgeCounters::default(), swept: Instant::ZERO }
    }
}

impl Bridge {
    /// Learns where `frame` comes from and decides where it goes.
    #[inline]
    pub fn forward(&mut self, now: Instant, from: PortIndex, frame: &[u8]) -> Forward {
        let Some((destination, source)) = addresses(frame) else { return Forward::Runt };
        if source[0] & 1 == 0 {
            self.learn(now, from, source);
        }
        if destination[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && destination[5] < 0x10 {
            return Forward::Reserved;
        }
        if destination[0] & 1 == 1 {
            return Forward::Flood;
        }
        match self.macs.get(&destination) {
            Some(learnt) if now.saturating_since(learnt.seen) > MAC_AGE_MAX => Forward::Flood,
            Some(learnt) if learnt.port == from => Forward::SamePort,
            Some(learnt) => Forward::Port(learnt.port),
            None => Forward::Flood,
        }
    }

    fn learn(&mut self, now: Instant, port: PortIndex, mac: [u8; 6]) {
        if let Some(learnt) = self.macs.get_mut(&mac) {
            self.counters.moves += u64::from(learnt.port != port);
            *learnt = Learnt { port, seen: now };
            return;
        }
        // Swept at most once a second: a flood of false addresses must not make every packet walk the table.
        if self.macs.len() >= MACS_MAX && now.saturating_since(self.swept) >= Duration::from_secs(1) {
            self.swept = now;
            self.macs.retain(|_, learnt| now.saturating_since(learnt.seen) <= MAC_AGE_MAX);
        }
        if self.macs.len() < MACS_MAX {
            self.macs.insert(mac, Learnt { port, seen: now });
        } else {
            self.counters.table_full += 1;
        }
    }

    /// Forgets what was learnt at `port`, which is going or whose peer has changed.
    pub fn forget(&mut self, port: PortIndex) {
        self.macs.retain(|_, learnt| learnt.port != port);
    }

    /// The number of addresses known.
    pub fn len(&self) -> usize {
        self.macs.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.macs.is_empty()
    }

    /// The counters.
    pub fn counters(&self) -> BridgeCounters {
        self.counters
    }
}

/// Destination and source address.
fn addresses(frame: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let header: &[u8; 14] = frame.first_chunk()?;
    let (destination, rest) = header.split_first_chunk()?;
    Some((*destination, *rest.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
    const BROADCAST: [u8; 6] = [0xff; 6];
    const ONE: PortIndex = PortIndex(1);
    const TWO: PortIndex = PortIndex(2);

    fn frame(destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        [&destination[..], &source, &[0x08, 0x06], &[0; 46]].concat()
    }

    #[test]
    fn floods_what_it_does_not_know_and_learns_from_what_it_sees() {
        let mut bridge = Bridge::default();
        let now = Instant::ZERO;
        assert_eq!(bridge.forward(now, ONE, &frame(BROADCAST, A)), Forward::Flood);
        assert_eq!(bridge.forward(now, TWO, &frame(A, B)), Forward::Port(ONE));
        assert_eq!(bridge.forward(now, ONE, &frame(B, A)), Forward::Port(TWO));
        assert_eq!(bridge.forward(now, TWO, &frame(B, B)), Forward::SamePort);
    }

    #[test]
    fn follows_an_address_that_moves() {
        let mut bridge = Bridge::default();
        bridge.forward(Instant::ZERO, ONE, &frame(BROADCAST, A));
        bridge.forward(Instant::ZERO, TWO, &frame(BROADCAST, A));
        assert_eq!(bridge.forward(Instant::ZERO, ONE, &frame(A, B)), Forward::Port(TWO));
        assert_eq!(bridge.counters().moves, 1);
    }

    #[test]
    fn forgets_by_age_and_by_port() {
        let mut bridge = Bridge::default();
        bridge.forward(Instant::ZERO, ONE, &frame(BROADCAST, A));
        let late = Instant::ZERO + MAC_AGE_MAX + Duration::from_nanos(1);
        assert_eq!(bridge.forward(late, TWO, &frame(A, B)), Forward::Flood);
        bridge.forward(late, ONE, &frame(BROADCAST, A));
        bridge.forget(ONE);
        assert_eq!(bridge.forward(late, TWO, &frame(A, B)), Forward::Flood);
        assert_eq!(bridge.len(), 1);
    }

    #[test]
    fn a_full_table_floods_and_makes_room_by_age() {
        let mut bridge = Bridge::default();
        for index in 0..MACS_MAX as u32 + 1 {
            let [a, b, c, d] = index.to_be_bytes();
            bridge.forward(Instant::ZERO, ONE, &frame(BROADCAST, [2, 1, a, b, c, d]));
        }
        assert_eq!((bridge.len(), bridge.counters().table_full), (MACS_MAX, 1));
        let late = Instant::ZERO + MAC_AGE_MAX + Duration::from_nanos(1);
        bridge.forward(late, ONE, &frame(BROADCAST, B));
        assert_eq!(bridge.len(), 1);
    }

    #[test]
    fn neither_learns_group_addresses_nor_forwards_reserved_ones() {
        let mut bridge = Bridge::default();
        assert_eq!(bridge.forward(Instant::ZERO, ONE, &frame(A, BROADCAST)), Forward::Flood);
        assert!(bridge.is_empty());
        assert_eq!(bridge.forward(Instant::ZERO, ONE, &frame([1, 0x80, 0xc2, 0, 0, 0xe], A)), Forward::Reserved);
        assert_eq!(bridge.forward(Instant::ZERO, ONE, &frame([1, 0x80, 0xc2, 0, 0, 0x10], A)), Forward::Flood);
        assert_eq!(bridge.forward(Instant::ZERO, ONE, &[0; 13]), Forward::Runt);
    }
}
