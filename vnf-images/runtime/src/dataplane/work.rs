//! What one lcore does with packets, by the mode it is in.

use super::announce::Announce;
use super::command::{Frozen, Report};
use super::counters::{Cause, Counters};
use super::inband::Inband;
use super::lcore::BURST;
use super::transmit::Transmit;
use dpdk::Mbuf;
use slim_core::nf::{Environment, NetworkFunction, PortId, Verdict};
use slim_core::packet::PacketBuf;
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::PktQTotals;
use slim_core::protocol::inband::is_inband;
use slim_core::time::Instant;
use slim_core::vei::{LcoreEvent, PacketQueue};
use std::collections::VecDeque;
use std::sync::Arc;

/// Packets of `pkt_q` dealt with in one pass.
const PKT_Q_BURST: usize = 64;

/// What an lcore does with the packets that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Drops them.
    Drop(Cause),
    /// Drops them until every receive queue has been found empty, then enqueues.
    Arming,
    /// Puts them into `pkt_q`.
    Enqueue,
    /// Processes them, after `pkt_q`.
    Process(Then),
    /// Hands them back to the switch, after `pkt_q`.
    HandBack {
        migration: MigrationId,
        /// Every port's end has still to be sent and the event to be reported.
        end: bool,
    },
}

/// What is to be done once `pkt_q` is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: it is empty already.
    GoOn,
    /// Report that the source has resumed.
    Resumed,
    /// Report that the destination has taken over.
    TakenOver,
    /// Stop, as soon as every receive queue has been found empty too.
    Stop,
}

/// All of an lcore but its receive queues and its way to the management thread.
pub struct Work<F> {
    pub nf: Option<Box<F>>,
    pub mode: Mode,
    pub announce: Announce,
    pub inband: Inband,
    pub transmit: Transmit,
    pub pkt_q: PacketQueue,
    pub pkt_q_totals: PktQTotals,
    pub counters: Arc<Counters>,
    pub reports: VecDeque<Report<F>>,
}

/// What the network function sees of the lcore.
struct Env<'a> {
    now: Instant,
    announce: &'a mut Announce,
    transmit: &'a mut Transmit,
}

impl Environment for Env<'_> {
    #[inline]
    fn now(&self) -> Instant {
        self.now
    }

    #[inline]
    fn upd_enable(&self) -> bool {
        self.announce.upd_enable()
    }

    #[inline]
    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        self.announce.announce(statelet_type, value);
    }

    #[inline]
    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.transmit.push_copy(port, frame);
    }
}

impl<F: NetworkFunction> Work<F> {
    /// Deals with the packets in `burst`, which arrived on `port`, and empties it.
    #[inline]
    pub fn receive(&mut self, now: Instant, port: PortId, burst: &mut heapless::Vec<Mbuf, BURST>) {
        let bytes: usize = burst.iter().map(Mbuf::len).sum();
        let counters = &self.counters.ports[usize::from(port.0)];
        counters.rx_packets.add(burst.len() as u64);
        counters.rx_bytes.add(bytes as u64);
        let packets = core::mem::take(burst);
        match self.mode {
            Mode::Process(_) if self.pkt_q.is_empty() => {
                for packet in packets {
                    if is_inband(packet.bytes()) {
                        self.receive_inband(now, port, packet);
                    } else {
                        self.process(now, port, packet);
                    }
                }
            }
            Mode::Enqueue | Mode::Process(_) | Mode::HandBack { .. } => {
                for packet in packets {
                    if is_inband(packet.bytes()) {
                        self.receive_inband(now, port, packet);
                    } else if self.pkt_q.push(port, packet.bytes()).is_err() {
                        self.counters.dropped(Cause::PacketQueueFull, 1);
                        self.pkt_q_totals.dropped_packets += 1;
                    } else {
                        self.counters.pkt_q_packets.add(1);
                        self.pkt_q_totals.packets += 1;
                    }
                }
            }
            Mode::Drop(_) | Mode::Arming => {
                let cause = if let Mode::Drop(cause) = self.mode { cause } else { Cause::Stale };
                for packet in packets {
                    if is_inband(packet.bytes()) {
                        self.receive_inband(now, port, packet);
                    } else {
                        self.counters.dropped(cause, 1);
                    }
                }
            }
        }
    }

    fn receive_inband(&mut self, now: Instant, port: PortId, packet: Mbuf) {
        if let Some(drain) = self.inband.receive(now, port, packet, &mut self.transmit) {
            self.event(LcoreEvent::Drain(drain));
        }
    }

    /// One packet through the network function.
    #[inline]
    fn process(&mut self, now: Instant, port: PortId, mut packet: Mbuf) {
        let Some(nf) = &mut self.nf else {
            self.counters.dropped(Cause::Idle, 1);
            return;
        };
        self.announce.count(1, packet.len() as u64);
        let mut env = Env { now, announce: &mut self.announce, transmit: &mut self.transmit };
        match nf.process(&mut env, port, &mut packet) {
            Verdict::Transmit(port) => self.transmit.push(port, packet),
            Verdict::Consumed => self.counters.consumed.add(1),
            Verdict::Drop(reason) => match self.counters.reasons.get(usize::from(reason)) {
                Some(counter) => counter.add(1),
                None => self.counters.dropped(Cause::InvalidVerdict, 1),
            },
        }
    }

    /// Goes on with `pkt_q` and with what the mode leads to. `empty`: every receive queue has just been found empty.
    #[inline]
    pub fn continue_with(&mut self, now: Instant, empty: bool) -> bool {
        match self.mode {
            Mode::Process(Then::GoOn) | Mode::Drop(_) | Mode::Enqueue => false,
            Mode::Arming => {
                if empty {
                    self.mode = Mode::Enqueue;
                    self.event(LcoreEvent::PktQArmed);
                }
                true
            }
            Mode::Process(then) => {
                self.process_pkt_q(now);
                if self.pkt_q.is_empty() {
                    self.caught_up(then, empty);
                }
                true
            }
            Mode::HandBack { migration, end } => {
                let busy = end || !self.pkt_q.is_empty();
                self.hand_back_pkt_q(migration);
                if end && self.pkt_q.is_empty() {
                    self.handed_back(migration);
                }
                busy
            }
        }
    }

    fn process_pkt_q(&mut self, now: Instant) {
        for _ in 0..PKT_Q_BURST {
            // The buffer first: what has been taken out cannot be put back.
            let Some(mut packet) = self.transmit.buffer() else { return };
            let Some((port, frame)) = self.pkt_q.pop() else { return };
            if packet.append(frame.len()).is_err() {
                self.counters.dropped(Cause::NoMbuf, 1);
                continue;
            }
            packet.bytes_mut().copy_from_slice(frame);
            self.process(now, port, packet);
        }
    }

    #[cold]
    fn caught_up(&mut self, then: Then, empty: bool) {
        match then {
            Then::GoOn => {}
            Then::Resumed => {
                self.mode = Mode::Process(Then::GoOn);
                self.event(LcoreEvent::Resumed);
            }
            Then::TakenOver => {
                self.mode = Mode::Process(Then::GoOn);
                let totals = self.pkt_q_totals();
                self.event(LcoreEvent::PktQDrained(totals));
            }
            Then::Stop if empty => {
                self.transmit.flush();
                let totals = self.announce.stop();
                let frozen = self.freeze();
                self.pkt_q.reset_longest();
                self.pkt_q_totals = PktQTotals::default();
                self.mode = Mode::Enqueue;
                self.event(LcoreEvent::Stopped(totals));
                // The digest comes after the event that it belongs to.
                self.reports.extend(frozen.map(Report::Digest));
            }
            Then::Stop => {}
        }
    }

    fn hand_back_pkt_q(&mut self, migration: MigrationId) {
        for _ in 0..PKT_Q_BURST {
            let Some((port, frame)) = self.pkt_q.pop() else { return };
            if self.inband.hand_back(migration, port, frame, &mut self.transmit) {
                self.pkt_q_totals.handed_back_packets += 1;
            } else {
                self.pkt_q_totals.discarded_packets += 1;
            }
        }
    }

    #[cold]
    fn handed_back(&mut self, migration: MigrationId) {
        for port in 0..F::PORTS.len() as u8 {
            // Without it the switch goes on by its time-out.
            if !self.inband.hand_back_end(migration, PortId(port), &mut self.transmit) {
                log::warn!("lcore: no buffer for the end of handing back port {port}");
            }
        }
        self.mode = Mode::HandBack { migration, end: false };
        let totals = self.pkt_q_totals();
        self.event(LcoreEvent::HandedBack(totals));
    }

    pub fn pkt_q_totals(&self) -> PktQTotals {
        let status = self.pkt_q.status();
        PktQTotals { longest_packets: status.longest_records, longest_bytes: status.longest_bytes, ..self.pkt_q_totals }
    }

    #[inline]
    pub fn tick(&mut self, now: Instant) {
        if let (Mode::Process(_), Some(nf)) = (self.mode, &mut self.nf) {
            nf.tick(&mut Env { now, announce: &mut self.announce, transmit: &mut self.transmit });
        }
    }

    /// Isolates the present state.
    pub fn freeze(&mut self) -> Option<Frozen> {
        self.nf.as_mut().map(|nf| slim_core::snapshot::freeze(nf.as_mut()))
    }

    pub fn replace(&mut self, nf: Option<Box<F>>) {
        if let Some(retired) = core::mem::replace(&mut self.nf, nf) {
            self.reports.push_back(Report::Retired(retired));
        }
    }

    pub fn event(&mut self, event: LcoreEvent) {
        self.reports.push_back(Report::Event(event));
    }

    pub fn publish(&mut self) {
        let status = self.pkt_q.status();
        self.counters.pkt_q_depth.set(status.records);
        self.counters.pkt_q_bytes.set(status.bytes);
        self.counters.pkt_q_depth_max.set(status.longest_records);
        self.counters.pkt_q_bytes_max.set(status.longest_bytes);
        self.announce.publish(&self.counters);
    }
}
