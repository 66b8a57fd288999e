//! What an lcore does with packets, by the mode it is in.

use super::announce::Announce;
use super::pacer::Pacer;
use super::{Burst, Cause, Counted, Io, Lcore, Mode, Report, Then};
use crate::mutant::{self, Mutant};
use crate::nf::{Environment, LogEvent, NetworkFunction, PortId, Verdict};
use crate::packet::PacketBuf;
use crate::protocol::MigrationId;
use crate::protocol::inband::is_inband;
use crate::statelet::{DropTotals, TYPE_DROPS};
use crate::time::Instant;
use crate::vei::LcoreEvent;

/// Packets of `pkt_q` dealt with in one pass.
const PKT_Q_BURST: usize = 64;

/// What the network function sees of the lcore.
struct Env<'a, I> {
    now: Instant,
    announce: &'a mut Announce,
    io: &'a mut I,
    /// What is announced now has been said already, by the packet itself.
    said: bool,
}

impl<I: Io> Environment for Env<'_, I> {
    #[inline(always)]
    fn now(&self) -> Instant {
        self.now
    }

    #[inline(always)]
    fn upd_enable(&self) -> bool {
        self.announce.upd_enable() && !self.said
    }

    #[inline(always)]
    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        if !self.said {
            self.announce.announce(statelet_type, value);
        }
    }

    #[inline]
    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.io.transmit_copy(port, frame);
    }

    #[inline]
    fn log(&mut self, event: &LogEvent) {
        self.io.log(event);
    }
}

impl<F: NetworkFunction, I: Io> Lcore<F, I> {
    /// Deals with packets that arrived on `port`.
    #[inline]
    pub(super) fn receive(&mut self, now: Instant, port: PortId, packets: Burst<I::Packet>) {
        match self.mode {
            Mode::Process(_) if self.halted => self.drop_all(now, port, packets, Cause::Halted),
            Mode::Process(_) if self.pkt_q.is_empty() || mutant::is_active(Mutant::PktQOvertaken) => {
                if let Some(nf) = &self.nf {
                    nf.prefetch(port, &packets);
                }
                for packet in packets {
                    if is_inband(packet.bytes()) {
                        self.receive_inband(now, port, packet);
                    } else if self.passes(now, &packet) {
                        self.process(now, port, packet);
                    } else {
                        self.enqueue(port, &packet);
                    }
                }
            }
            Mode::Enqueue | Mode::Process(_) | Mode::HandBack { .. } => {
                for packet in packets {
                    if is_inband(packet.bytes()) {
                        self.receive_inband(now, port, packet);
                    } else {
                        self.enqueue(port, &packet);
                    }
                }
            }
            Mode::Drop(_) | Mode::Arming => {
                let cause = if let Mode::Drop(cause) = self.mode { cause } else { Cause::Stale };
                self.drop_all(now, port, packets, cause);
            }
        }
    }

    /// Whether a packet that found `pkt_q` empty, or only what came in the same burst, may pass it.
    #[inline]
    fn passes(&mut self, now: Instant, packet: &I::Packet) -> bool {
        if self.pacer.is_none() || mutant::is_active(Mutant::PktQOvertaken) {
            return true;
        }
        let passes = self.pkt_q.is_empty() && self.is_allowed(now);
        if let (true, Some(pacer)) = (passes, &mut self.pacer) {
            pacer.charge(packet.bytes().len());
        }
        passes
    }

    /// Whether the pace, if there is one, lets a packet leave.
    fn is_allowed(&mut self, now: Instant) -> bool {
        let waiting_bytes = self.pkt_q.status().bytes;
        self.pacer.as_mut().is_none_or(|pacer| pacer.allows(now, waiting_bytes))
    }

    fn drop_all(&mut self, now: Instant, port: PortId, packets: Burst<I::Packet>, cause: Cause) {
        for packet in packets {
            if is_inband(packet.bytes()) {
                self.receive_inband(now, port, packet);
            } else {
                self.io.dropped(cause, 1);
            }
        }
    }

    fn receive_inband(&mut self, now: Instant, port: PortId, packet: I::Packet) {
        if let Some(drain) = self.inband.receive(now, port, packet, &mut self.io) {
            self.event(LcoreEvent::Drain(drain));
        }
    }

    fn enqueue(&mut self, port: PortId, packet: &I::Packet) {
        if self.pkt_q.push(port, packet.bytes()).is_err() {
            self.io.dropped(Cause::PacketQueueFull, 1);
            self.pkt_q_totals.dropped_packets += 1;
        } else {
            self.io.count(Counted::Enqueued);
            self.pkt_q_totals.packets += 1;
        }
        // What is left has to last until the redirect has been undone.
        if self.pkt_q.is_nearly_full() && !core::mem::replace(&mut self.pkt_q_told, true) {
            self.event(LcoreEvent::PktQNearlyFull);
        }
    }

    /// One packet through the network function.
    #[inline]
    fn process(&mut self, now: Instant, port: PortId, mut packet: I::Packet) {
        let Some(nf) = &mut self.nf else {
            self.io.dropped(Cause::Idle, 1);
            return;
        };
        self.announce.count(1, packet.bytes().len() as u64);
        let said = self.announce.duplicate(now, port, packet.bytes());
        let mut env = Env { now, announce: &mut self.announce, io: &mut self.io, said };
        match nf.process(&mut env, port, &mut packet) {
            Verdict::Transmit(port) => self.io.transmit(port, packet),
            Verdict::Consumed => self.io.count(Counted::Consumed),
            Verdict::Drop(reason) => self.io.refused(reason),
        }
        if mutant::is_active(Mutant::FreezeLate) && self.announce.has_just_begun() {
            let frozen = self.freeze();
            frozen.into_iter().for_each(|frozen| self.frozen(frozen));
        }
    }

    /// Goes on with `pkt_q` and with what the mode leads to. `empty`: every receive queue has just been found empty.
    #[inline]
    pub(super) fn continue_with(&mut self, now: Instant, empty: bool) -> bool {
        match self.mode {
            Mode::Process(Then::GoOn) if self.pacer.is_none() => false,
            Mode::Drop(_) | Mode::Enqueue => false,
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
                    self.pacer.take_if(|pacer| pacer.is_over(now));
                    self.caught_up(now, then, empty);
                    return then != Then::GoOn;
                }
                !self.pkt_q_waits()
            }
            Mode::HandBack { migration, end } => {
                let busy = end.is_some() || !self.pkt_q.is_empty();
                self.hand_back_pkt_q(now, migration);
                if self.pkt_q.is_empty() {
                    self.pacer = None;
                }
                // What still waits in a receive queue came before the redirect: this lcore need not be the one that got
                // the drain packets.
                if let Some(first) = end
                    && self.pkt_q.is_empty()
                    && empty
                {
                    self.handed_back(migration, first);
                }
                busy && !self.pkt_q_waits()
            }
        }
    }

    /// Whether there is a packet in `pkt_q` that may leave yet.
    fn may_leave(&mut self, now: Instant) -> bool {
        !self.pkt_q.is_empty() && self.is_allowed(now)
    }

    /// Whether the next packet of `pkt_q` has to wait for its time.
    pub(super) fn pkt_q_waits(&self) -> bool {
        !self.pkt_q.is_empty() && self.pacer.as_ref().is_some_and(Pacer::waits)
    }

    fn process_pkt_q(&mut self, now: Instant) {
        for _ in 0..PKT_Q_BURST {
            if !self.may_leave(now) {
                return;
            }
            // The buffer first: what has been taken out cannot be put back.
            let Some(mut packet) = self.io.buffer() else { return };
            let Some((port, frame)) = self.pkt_q.pop() else { return };
            if let Some(pacer) = &mut self.pacer {
                pacer.charge(frame.len());
            }
            if packet.append(frame.len()).is_err() {
                self.io.dropped(Cause::NoMbuf, 1);
                continue;
            }
            packet.bytes_mut().copy_from_slice(frame);
            self.process(now, port, packet);
        }
    }

    #[cold]
    fn caught_up(&mut self, now: Instant, then: Then, empty: bool) {
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
            Then::Stop if empty || mutant::is_active(Mutant::StopEarly) => {
                self.io.flush();
                self.conclude(now);
                // What does not fit now is lost with what it was about.
                self.announce.flush();
                if self.announce.overflowed() {
                    self.event(LcoreEvent::StateletOverflow);
                }
                let totals = self.announce.stop();
                let frozen = self.freeze();
                self.renew_pkt_q();
                self.pacer = None;
                self.mode = Mode::Enqueue;
                self.event(LcoreEvent::Stopped(totals));
                // The digest comes after the event that it belongs to.
                self.reports.extend(frozen.map(Report::Digest));
            }
            Then::Stop => {}
        }
    }

    /// Tells what has been counted and is no state, for the destination to go on from there.
    fn conclude(&mut self, now: Instant) {
        if let Some(nf) = &self.nf {
            nf.conclude(&mut Env { now, announce: &mut self.announce, io: &mut self.io, said: false });
        }
        let drops = DropTotals::new(F::DROP_REASONS.len(), |reason| self.io.refused_total(reason));
        if !drops.are_zero() {
            self.announce.announce(TYPE_DROPS, &drops.encode_value());
        }
    }

    fn hand_back_pkt_q(&mut self, now: Instant, migration: MigrationId) {
        for _ in 0..PKT_Q_BURST {
            if !self.may_leave(now) {
                return;
            }
            let Some(packet) = self.io.buffer() else { return };
            let Some((port, frame)) = self.pkt_q.pop() else { return };
            if let Some(pacer) = &mut self.pacer {
                pacer.charge(frame.len());
            }
            if self.inband.hand_back(migration, port, frame, packet, &mut self.io) {
                self.pkt_q_totals.handed_back_packets += 1;
            } else {
                self.pkt_q_totals.discarded_packets += 1;
            }
        }
    }

    /// Sends the ends of `first` and the ports after it, as far as there are buffers for them.
    #[cold]
    fn handed_back(&mut self, migration: MigrationId, first: PortId) {
        for port in (first.0..F::PORTS.len() as u8).map(PortId) {
            if self.inband.hand_back_end(migration, port, &mut self.io).is_err() {
                self.mode = Mode::HandBack { migration, end: Some(port) };
                return;
            }
        }
        self.mode = Mode::HandBack { migration, end: None };
        let totals = self.pkt_q_totals();
        self.event(LcoreEvent::HandedBack(totals));
    }

    #[inline]
    pub(super) fn tick(&mut self, now: Instant) {
        if let (Mode::Process(_), false, Some(nf)) = (self.mode, self.halted, &mut self.nf) {
            nf.tick(&mut Env { now, announce: &mut self.announce, io: &mut self.io, said: false });
        }
    }
}
