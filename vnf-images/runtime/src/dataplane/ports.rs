//! An lcore's input and output: receive queues, transmit queues, counters.

use super::counters::{Counter, Counters};
use super::transmit::Transmit;
use dpdk::{Mbuf, RxQueue};
use slim_core::nf::{LogEvent, PortId};
use slim_core::packet::PacketBuf;
use slim_core::vei::lcore::{Burst, Cause, Counted, Io};
use std::sync::Arc;

/// The ports of one lcore.
pub struct Ports {
    /// Receive queues, one per port.
    pub rx: Vec<RxQueue>,
    /// Transmit queues.
    pub transmit: Transmit,
    /// What the lcore counts.
    pub counters: Arc<Counters>,
    /// Where events for the operator go, if there is a log.
    pub log: Option<rtrb::Producer<LogEvent>>,
}

impl Io for Ports {
    type Packet = Mbuf;

    #[inline]
    fn receive(&mut self, port: PortId, burst: &mut Burst<Mbuf>) -> usize {
        let index = usize::from(port.0);
        let Some(queue) = self.rx.get_mut(index) else { return 0 };
        let count = queue.burst(burst);
        if count > 0 {
            let counters = &self.counters.ports[index];
            counters.rx_packets.add(count as u64);
            counters.rx_bytes.add(burst.iter().map(|packet| packet.bytes().len() as u64).sum());
            counters.rx_unusable.set(queue.unusable());
        }
        count
    }

    #[inline]
    fn buffer(&mut self) -> Option<Mbuf> {
        self.transmit.buffer()
    }

    #[inline]
    fn transmit(&mut self, port: PortId, packet: Mbuf) {
        self.transmit.push(port, packet);
    }

    #[inline]
    fn flush(&mut self) {
        self.transmit.flush();
    }

    #[inline]
    fn dropped(&mut self, cause: Cause, packets: u64) {
        self.counters.dropped(cause, packets);
    }

    #[inline]
    fn refused(&mut self, reason: u16) {
        match self.counters.reasons.get(usize::from(reason)) {
            Some(counter) => counter.add(1),
            None => self.counters.dropped(Cause::InvalidVerdict, 1),
        }
    }

    fn refused_total(&self, reason: u16) -> u64 {
        self.counters.reasons.get(usize::from(reason)).map_or(0, Counter::get)
    }

    fn set_refused_total(&mut self, reason: u16, total: u64) {
        if let Some(counter) = self.counters.reasons.get(usize::from(reason)) {
            counter.set(total);
        }
    }

    #[inline]
    fn log(&mut self, event: &LogEvent) {
        let counter = match self.log.as_mut().map(|log| log.push(*event)) {
            Some(Ok(())) => &self.counters.events_logged,
            Some(Err(_)) | None => &self.counters.events_lost,
        };
        counter.add(1);
    }

    #[inline]
    fn count(&mut self, what: Counted) {
        let counter = match what {
            Counted::Consumed => &self.counters.consumed,
            Counted::Enqueued => &self.counters.pkt_q_packets,
            Counted::HandedBack => &self.counters.handed_back,
            Counted::Drain => &self.counters.drains,
        };
        counter.add(1);
    }
}
