//! An lcore's ports: rings that the switch fills, and what the lcore sends.

use slim_core::nf::PortId;
use slim_core::packet::OwnedPacket;
use slim_core::vei::lcore::{BURST, Burst, Cause, Counted, Io};
use std::collections::{BTreeMap, VecDeque};

/// Rings with one end in an lcore and the other at the switch.
#[derive(Debug)]
pub(crate) struct Ports {
    received: Vec<VecDeque<Vec<u8>>>,
    queued: Vec<(PortId, Vec<u8>)>,
    sent: Vec<(PortId, Vec<u8>)>,
    /// Packets the lcore dropped, by cause.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    /// Packets the network function dropped, by reason.
    refused: BTreeMap<u16, u64>,
    pub(crate) handed_back: u64,
}

impl Ports {
    pub(crate) fn new(ports: usize) -> Self {
        Self {
            received: vec![VecDeque::new(); ports],
            queued: Vec::new(),
            sent: Vec::new(),
            dropped: BTreeMap::new(),
            refused: BTreeMap::new(),
            handed_back: 0,
        }
    }

    /// Frames in a port's receive ring.
    pub(crate) fn waiting(&self, port: PortId) -> usize {
        self.received[usize::from(port.0)].len()
    }

    /// The switch puts a frame into a receive ring.
    pub(crate) fn put(&mut self, port: PortId, frame: Vec<u8>) {
        self.received[usize::from(port.0)].push_back(frame);
    }

    /// The switch takes what the lcore has sent.
    pub(crate) fn take_sent(&mut self) -> Vec<(PortId, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// What has arrived and not been looked at, when the instance dies.
    pub(crate) fn take_received(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.received.iter_mut().flat_map(std::mem::take)
    }

    pub(crate) fn holds_packets(&self) -> bool {
        !self.queued.is_empty() || !self.sent.is_empty() || self.received.iter().any(|ring| !ring.is_empty())
    }
}

impl Io for Ports {
    type Packet = OwnedPacket;

    fn receive(&mut self, port: PortId, burst: &mut Burst<OwnedPacket>) -> usize {
        let ring = &mut self.received[usize::from(port.0)];
        let count = ring.len().min(BURST);
        burst.extend(ring.drain(..count).map(OwnedPacket::new));
        count
    }

    fn buffer(&mut self) -> Option<OwnedPacket> {
        Some(OwnedPacket::default())
    }

    fn transmit(&mut self, port: PortId, packet: OwnedPacket) {
        self.queued.push((port, packet.into_inner()));
    }

    fn flush(&mut self) {
        self.sent.append(&mut self.queued);
    }

    fn dropped(&mut self, cause: Cause, packets: u64) {
        *self.dropped.entry(cause.name()).or_default() += packets;
    }

    fn refused(&mut self, reason: u16) {
        *self.refused.entry(reason).or_default() += 1;
    }

    fn refused_total(&self, reason: u16) -> u64 {
        self.refused.get(&reason).copied().unwrap_or(0)
    }

    fn set_refused_total(&mut self, reason: u16, total: u64) {
        self.refused.insert(reason, total);
    }

    fn count(&mut self, what: Counted) {
        if what == Counted::HandedBack {
            self.handed_back += 1;
        }
    }
}
