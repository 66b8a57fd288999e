//! The way out: packets are collected per port during a pass and transmitted at its end.

use super::counters::Counters;
use dpdk::{Mbuf, Mempool, TxQueue};
use slim_core::nf::{PORTS_MAX, PortId};
use slim_core::packet::ETHERNET_LEN;
use slim_core::vei::lcore::Cause;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets collected per port before they are transmitted.
const BURST: usize = 64;

/// How long a full transmit ring is waited for before what is left of the burst is dropped. The receive rings hold
/// what arrives meanwhile. Where the switch shares few cores with its guests, it may well not run for tens of
/// milliseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// The pause between attempts once the device took nothing: its host has to run meanwhile.
const PAUSE: Duration = Duration::from_micros(50);

/// The transmit queues of one lcore with what waits for them.
pub struct Transmit {
    ports: heapless::Vec<Output, PORTS_MAX>,
    pool: Mempool,
    counters: Arc<Counters>,
}

struct Output {
    queue: TxQueue,
    packets: heapless::Vec<Mbuf, BURST>,
    /// Bytes of `packets`.
    bytes: u64,
    /// The last wait for this ring was in vain: do not wait again until it takes something.
    stuck: bool,
}

impl Transmit {
    /// Transmits through `queues`, one per port; frames of the network function's own take their buffers from `pool`.
    pub fn new(queues: impl IntoIterator<Item = TxQueue>, pool: Mempool, counters: Arc<Counters>) -> Self {
        let outputs =
            queues.into_iter().map(|queue| Output { queue, packets: heapless::Vec::new(), bytes: 0, stuck: false });
        Self { ports: outputs.take(PORTS_MAX).collect(), pool, counters }
    }

    /// Queues `packet` for `port`.
    #[inline]
    pub fn push(&mut self, port: PortId, packet: Mbuf) {
        let index = usize::from(port.0);
        let Some(output) = self.ports.get_mut(index).filter(|_| packet.len() >= ETHERNET_LEN) else {
            self.counters.dropped(Cause::InvalidVerdict, 1);
            return;
        };
        if output.packets.is_full() {
            output.flush(index, &self.counters);
        }
        let bytes = packet.len() as u64;
        // A flush leaves room, so this cannot fail.
        match output.packets.push(packet) {
            Ok(()) => output.bytes += bytes,
            Err(_) => self.counters.dropped(Cause::TxRingFull, 1),
        }
    }

    /// An empty packet buffer.
    #[inline]
    pub fn buffer(&self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    /// Transmits everything that is queued.
    #[inline]
    pub fn flush(&mut self) {
        for (index, output) in self.ports.iter_mut().enumerate() {
            if !output.packets.is_empty() {
                output.flush(index, &self.counters);
            }
        }
    }
}

impl Output {
    /// Empties `packets`, one way or the other.
    fn flush(&mut self, port: usize, counters: &Counters) {
        let mut sent = self.queue.burst(&mut self.packets);
        let takes_some = sent > 0 || !self.stuck;
        if !self.packets.is_empty() && takes_some {
            sent += self.wait_and_send();
        }
        self.stuck = !self.packets.is_empty();
        if self.stuck {
            self.bytes -= self.packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
            counters.dropped(Cause::TxRingFull, self.packets.len() as u64);
            Mbuf::drop_all(&mut self.packets);
        }
        counters.ports[port].tx_packets.add(sent as u64);
        counters.ports[port].tx_bytes.add(self.bytes);
        self.bytes = 0;
    }

    #[cold]
    fn wait_and_send(&mut self) -> usize {
        let start = Instant::now();
        let mut sent = 0;
        while !self.packets.is_empty() && start.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
            sent += self.queue.burst(&mut self.packets);
        }
        sent
    }
}
