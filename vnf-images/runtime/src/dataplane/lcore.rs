//! The packet loop of one lcore, which owns one shard: its queues, its network function, its `pkt_q`.
//!
//! ```text
//!        ┌──────────── one pass ────────────────────────────────────────────────┐
//!        │ command? ─► for each port: receive a burst ─► in-band? ─► by mode:    │
//!        │             drop │ process │ enqueue in pkt_q │ hand back             │
//!        │ ─► some of pkt_q, if it is to be processed or handed back             │
//!        │ ─► tick ─► transmit ─► report                                         │
//!        └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While `pkt_q` is being emptied, what arrives goes to its tail, so that order is kept.

use super::announce::Announce;
use super::command::{Command, Frozen, Report};
use super::counters::{Cause, Counters};
use super::idle::Idle;
use super::inband::Inband;
use super::transmit::Transmit;
use dpdk::{Clock, Mbuf, RxQueue};
use slim_core::nf::{Environment, NetworkFunction, PortId, Shard, Verdict};
use slim_core::packet::PacketBuf;
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::PktQTotals;
use slim_core::protocol::inband::is_inband;
use slim_core::time::{Duration, Instant};
use slim_core::vei::{LcoreEvent, PacketQueue};
use std::collections::VecDeque;
use std::sync::Arc;

/// Packets received from a port at a time.
pub const BURST: usize = 32;

/// Packets of `pkt_q` dealt with in one pass.
const PKT_Q_BURST: usize = 64;

/// The network function's tick comes this often while packets arrive,
const TICK: Duration = Duration::from_millis(1);

/// and this often when none do.
const TICK_IDLE: Duration = Duration::from_millis(4);

/// The longest sleep of an lcore without a network function. Commands wake it.
const SLEEP_IDLE: Duration = Duration::from_millis(50);

/// What an lcore does with the packets that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
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
enum Then {
    /// Nothing: it is empty already.
    GoOn,
    /// Report that the source has resumed.
    Resumed,
    /// Report that the destination has taken over.
    TakenOver,
    /// Stop, as soon as every receive queue has been found empty too.
    Stop,
}

/// What an lcore is made of.
pub struct Parts<F> {
    /// Its shard.
    pub shard: Shard,
    /// Its clock.
    pub clock: Clock,
    /// Its receive queues, one per port.
    pub rx: Vec<RxQueue>,
    /// Its transmit queues.
    pub transmit: Transmit,
    /// When it sleeps, and how.
    pub idle: Idle,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// The capacity of `pkt_q`.
    pub pkt_q_bytes: usize,
    /// Its commands.
    pub commands: rtrb::Consumer<Command<F>>,
}

/// One lcore.
pub struct Lcore<F, R> {
    clock: Clock,
    rx: Vec<RxQueue>,
    work: Work<F>,
    idle: Idle,
    commands: rtrb::Consumer<Command<F>>,
    last_tick: Instant,
    ended: bool,
    report: R,
    /// Reports that were not taken yet, oldest first.
    unreported: VecDeque<Report<F>>,
}

/// All of an lcore but its receive queues and its way to the management thread.
struct Work<F> {
    nf: Option<Box<F>>,
    mode: Mode,
    announce: Announce,
    inband: Inband,
    transmit: Transmit,
    pkt_q: PacketQueue,
    pkt_q_totals: PktQTotals,
    counters: Arc<Counters>,
    reports: VecDeque<Report<F>>,
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

impl<F: NetworkFunction, R: FnMut(Report<F>) -> Result<(), Report<F>>> Lcore<F, R> {
    /// An idle lcore. `report` passes a report on, or gives it back to be offered again later.
    pub fn new(parts: Parts<F>, report: R) -> Self {
        let now = parts.clock.now();
        let counters = parts.counters;
        Self {
            clock: parts.clock,
            rx: parts.rx,
            work: Work {
                nf: None,
                mode: Mode::Drop(Cause::Idle),
                announce: Announce::off(),
                inband: Inband::new(parts.shard, Arc::clone(&counters)),
                transmit: parts.transmit,
                pkt_q: PacketQueue::new(parts.pkt_q_bytes),
                pkt_q_totals: PktQTotals::default(),
                counters,
                reports: VecDeque::new(),
            },
            idle: parts.idle,
            commands: parts.commands,
            last_tick: now,
            ended: false,
            report,
            unreported: VecDeque::new(),
        }
    }

    /// Runs until the command to end. The network function, if there is one, is dropped here.
    pub fn run(mut self) {
        let mut burst = heapless::Vec::new();
        while !self.ended {
            let (busy, received) = self.pass(&mut burst);
            if busy {
                self.idle.busy(&mut self.rx, received);
                self.work.counters.busy_polls.add(1);
            } else {
                self.work.counters.empty_polls.add(1);
                let patience = self.patience();
                if self.idle.empty(&mut self.rx, patience) {
                    self.work.counters.sleeps.add(1);
                }
            }
        }
        self.work.transmit.flush();
    }

    /// One pass of the loop. Returns whether there was anything to do, and how many packets arrived.
    fn pass(&mut self, burst: &mut heapless::Vec<Mbuf, BURST>) -> (bool, usize) {
        let now = self.clock.now();
        let mut busy = false;
        if let Ok(command) = self.commands.pop() {
            busy = true;
            self.command(now, command);
        }
        let mut received = 0;
        for (index, queue) in self.rx.iter_mut().enumerate() {
            let count = queue.burst(burst);
            if count > 0 {
                received += count;
                self.work.counters.ports[index].rx_unusable.set(queue.unusable());
                self.work.receive(now, PortId(index as u8), burst);
            }
        }
        busy |= received > 0;
        busy |= self.work.continue_with(now, received == 0);
        if now - self.last_tick >= TICK {
            self.last_tick = now;
            self.work.tick(now);
        }
        self.work.transmit.flush();
        if self.work.announce.overflowed() {
            self.work.event(LcoreEvent::StateletOverflow);
        }
        self.work.publish();
        if !self.work.reports.is_empty() || !self.unreported.is_empty() {
            self.report();
        }
        (busy, received)
    }

    /// How long the lcore may sleep if nothing arrives.
    fn patience(&self) -> Duration {
        if !self.unreported.is_empty() {
            return TICK;
        }
        match self.work.mode {
            Mode::Arming | Mode::Process(Then::Resumed | Then::TakenOver | Then::Stop) => Duration::ZERO,
            Mode::HandBack { end: true, .. } => Duration::ZERO,
            Mode::Process(Then::GoOn) => TICK_IDLE,
            Mode::Drop(_) | Mode::Enqueue | Mode::HandBack { end: false, .. } => SLEEP_IDLE,
        }
    }

    #[cold]
    fn command(&mut self, now: Instant, command: Command<F>) {
        let work = &mut self.work;
        match command {
            Command::Activate(nf) => {
                work.replace(Some(nf));
                work.mode = Mode::Process(Then::GoOn);
            }
            Command::Freeze(st_q_out) => match work.freeze() {
                Some(frozen) => {
                    work.announce.start(st_q_out);
                    work.reports.push_back(Report::Snapshot(frozen));
                    work.event(LcoreEvent::Frozen);
                }
                None => log::error!("lcore: told to freeze without a network function"),
            },
            Command::Stop => work.mode = Mode::Process(Then::Stop),
            Command::Resume => {
                work.announce.stop();
                work.mode = Mode::Process(Then::Resumed);
            }
            Command::Release(migration) => {
                work.replace(None);
                work.mode = Mode::HandBack { migration, end: false };
            }
            Command::ArmPktQ => {
                work.pkt_q.clear();
                work.pkt_q.reset_longest();
                work.pkt_q_totals = PktQTotals::default();
                work.mode = Mode::Arming;
            }
            Command::TakeOver(mut nf) => {
                nf.take_over(now);
                work.replace(Some(nf));
                if let Some(frozen) = work.freeze() {
                    work.reports.push_back(Report::Digest(frozen));
                }
                work.mode = Mode::Process(Then::TakenOver);
            }
            Command::HandBack(migration) => work.mode = Mode::HandBack { migration, end: true },
            Command::Discard => {
                let discarded = work.pkt_q.clear();
                work.pkt_q_totals.discarded_packets += discarded;
                work.mode = Mode::Drop(Cause::Idle);
                let totals = work.pkt_q_totals();
                work.event(LcoreEvent::Discarded(totals));
            }
            Command::Reset => {
                work.announce.stop();
                work.replace(None);
                work.pkt_q.clear();
                work.mode = Mode::Drop(Cause::Idle);
            }
            Command::Gauges => {
                let gauges = work.nf.as_ref().map(|nf| nf.gauges()).unwrap_or_default();
                work.reports.push_back(Report::Gauges(gauges));
            }
            Command::End => self.ended = true,
        }
    }

    #[cold]
    fn report(&mut self) {
        self.unreported.append(&mut self.work.reports);
        while let Some(report) = self.unreported.pop_front() {
            if let Err(report) = (self.report)(report) {
                self.unreported.push_front(report);
                return;
            }
        }
    }
}

impl<F: NetworkFunction> Work<F> {
    /// Deals with the packets in `burst`, which arrived on `port`, and empties it.
    #[inline]
    fn receive(&mut self, now: Instant, port: PortId, burst: &mut heapless::Vec<Mbuf, BURST>) {
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
    fn continue_with(&mut self, now: Instant, empty: bool) -> bool {
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

    fn pkt_q_totals(&self) -> PktQTotals {
        let status = self.pkt_q.status();
        PktQTotals { longest_packets: status.longest_records, longest_bytes: status.longest_bytes, ..self.pkt_q_totals }
    }

    #[inline]
    fn tick(&mut self, now: Instant) {
        if let (Mode::Process(_), Some(nf)) = (self.mode, &mut self.nf) {
            nf.tick(&mut Env { now, announce: &mut self.announce, transmit: &mut self.transmit });
        }
    }

    /// Isolates the present state.
    fn freeze(&mut self) -> Option<Frozen> {
        self.nf.as_mut().map(|nf| slim_core::snapshot::freeze(nf.as_mut()))
    }

    fn replace(&mut self, nf: Option<Box<F>>) {
        if let Some(retired) = core::mem::replace(&mut self.nf, nf) {
            self.reports.push_back(Report::Retired(retired));
        }
    }

    fn event(&mut self, event: LcoreEvent) {
        self.reports.push_back(Report::Event(event));
    }

    fn publish(&mut self) {
        let status = self.pkt_q.status();
        self.counters.pkt_q_depth.set(status.records);
        self.counters.pkt_q_bytes.set(status.bytes);
        self.counters.pkt_q_depth_max.set(status.longest_records);
        self.counters.pkt_q_bytes_max.set(status.longest_bytes);
        self.announce.publish(&self.counters);
    }
}
