//! What an lcore does: receive, process by the mode it is in, transmit. It owns one shard: its network function, its
//! `pkt_q`, its end of `st_q_out`.
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
//! While `pkt_q` is being emptied, what arrives goes to its tail, so that order is kept. So does at a source what exceeds the
//! [pace](Command::Freeze). Ports, packet buffers and
//! counters come from an [`Io`]; the clock, sleeping and the way of [commands](Command) and [reports](Report) are the
//! driver's. Nothing here allocates, locks or dispatches per packet.

mod announce;
mod command;
mod inband;
mod io;
mod pacer;
mod packets;
#[cfg(test)]
mod tests;

pub use announce::{Sampled, StQOut};
pub use command::{Announcing, Command, Frozen, Report, Synchronised};
pub use io::{BURST, Burst, Cause, Counted, Io};

use super::{LcoreEvent, PacketQueue};
use crate::mutant::{self, Mutant};
use crate::nf::{NetworkFunction, PortId, Shard};
use crate::protocol::MigrationId;
use crate::protocol::control::{PktQTotals, QueueStatus};
use crate::statelet::{Align, DropTotals};
use crate::table::ScanCursor;
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use announce::Announce;
use inband::Inband;
use pacer::Pacer;

/// The network function's tick comes this often while packets arrive.
const TICK: Duration = Duration::from_millis(1);

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
        /// The first port whose end has still to be sent before the event is reported.
        end: Option<PortId>,
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

/// How long an lcore may wait if nothing arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: something is under way.
    None,
    /// Until the network function wants a tick.
    Tick,
    /// Until a packet or a command comes.
    Forever,
}

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// There was something to do.
    pub busy: bool,
    /// Packets that arrived.
    pub received: usize,
}

/// One lcore, driven by calling [`pass`](Self::pass) again and again, with a command if there is one.
pub struct Lcore<F, I> {
    io: I,
    nf: Option<Box<F>>,
    mode: Mode,
    /// Packets are neither processed nor queued, and time stands still: mode `stop-and-copy`.
    halted: bool,
    announce: Announce,
    inband: Inband,
    pkt_q: PacketQueue,
    pkt_q_totals: PktQTotals,
    /// It has been told that `pkt_q` is nearly full.
    pkt_q_told: bool,
    /// When what is in `pkt_q` may leave, if that matters.
    pacer: Option<Pacer>,
    last_tick: Instant,
    ended: bool,
    reports: VecDeque<Report<F>>,
}

impl<F: NetworkFunction, I: Io> Lcore<F, I> {
    /// An idle lcore with a `pkt_q` of `pkt_q_bytes`.
    pub fn new(now: Instant, shard: Shard, pkt_q_bytes: usize, io: I) -> Self {
        Self {
            io,
            nf: None,
            mode: Mode::Drop(Cause::Idle),
            halted: false,
            announce: Announce::off(),
            inband: Inband::new(shard),
            pkt_q: PacketQueue::new(pkt_q_bytes),
            pkt_q_totals: PktQTotals::default(),
            pkt_q_told: false,
            pacer: None,
            last_tick: now,
            ended: false,
            reports: VecDeque::new(),
        }
    }

    /// One pass of the loop. Take the [reports](Self::poll_report) afterwards.
    #[inline]
    pub fn pass(&mut self, now: Instant, command: Option<Command<F>>) -> Passed {
        let mut busy = command.is_some();
        if let Some(command) = command {
            self.command(now, command);
        }
        let mut received = 0;
        for port in (0..F::PORTS.len() as u8).map(PortId) {
            let mut burst = Burst::new();
            let count = self.io.receive(port, &mut burst);
            if count > 0 {
                received += count;
                self.receive(now, port, burst);
            }
        }
        busy |= received > 0;
        busy |= self.continue_with(now, received == 0);
        if now - self.last_tick >= TICK {
            self.last_tick = now;
            self.tick(now);
        }
        // What packets have changed is told before they leave.
        self.announce.flush();
        if let Some(pacer) = &mut self.pacer {
            pacer.charge_announced(self.announce.total_bytes());
        }
        self.io.flush();
        if self.announce.overflowed() {
            self.event(LcoreEvent::StateletOverflow);
        }
        Passed { busy, received }
    }

    /// The oldest report that was not taken yet.
    #[inline]
    pub fn poll_report(&mut self) -> Option<Report<F>> {
        self.reports.pop_front()
    }

    /// Keeps a report that could not be passed on, to be taken again first.
    pub fn return_report(&mut self, report: Report<F>) {
        self.reports.push_front(report);
    }

    /// Whether it was told to leave the loop.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// How long it may wait if nothing arrives.
    #[inline]
    pub fn patience(&self) -> Patience {
        if !self.reports.is_empty() {
            return Patience::Tick;
        }
        match self.mode {
            // The next packet of `pkt_q` has to wait.
            _ if self.pkt_q_waits() => Patience::Tick,
            Mode::Arming | Mode::Process(Then::Resumed | Then::TakenOver | Then::Stop) => Patience::None,
            Mode::HandBack { end: Some(_), .. } => Patience::None,
            Mode::Process(Then::GoOn) => Patience::Tick,
            Mode::Drop(_) | Mode::Enqueue | Mode::HandBack { end: None, .. } => Patience::Forever,
        }
    }

    /// Its ports.
    #[inline]
    pub fn io(&self) -> &I {
        &self.io
    }

    /// Its ports, to wait for them.
    #[inline]
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// The network function, if the lcore has one.
    pub fn network_function(&mut self) -> Option<&mut F> {
        self.nf.as_deref_mut()
    }

    /// How full `pkt_q` is and has been.
    #[inline]
    pub fn pkt_q(&self) -> QueueStatus {
        self.pkt_q.status()
    }

    /// How full `st_q_out` is and has been; `None` while nothing is announced.
    #[inline]
    pub fn st_q_out(&mut self) -> Option<StQOut> {
        self.announce.status()
    }

    /// What the present sample has counted; `None` if none is taken. Ends one whose time is over.
    #[inline]
    pub fn sampled(&mut self, now: Instant) -> Option<Sampled> {
        self.announce.sampled(now)
    }

    #[cold]
    fn command(&mut self, now: Instant, command: Command<F>) {
        match command {
            Command::Activate(nf) => {
                self.replace(Some(nf));
                self.mode = Mode::Process(Then::GoOn);
            }
            Command::Freeze(st_q_out, announcing, pace) => match self.freeze() {
                Some(_) if mutant::is_active(Mutant::FreezeLate) => self.announce.start(st_q_out),
                Some(frozen) => {
                    self.start(now, st_q_out, announcing);
                    // What waits in pkt_q after an earlier migration needs the pace that it has.
                    if let Some(pace) = pace {
                        self.pacer = Some(Pacer::lasting(now, pace, self.pkt_q.status().capacity_bytes));
                    }
                    self.frozen(frozen);
                }
                None => self.reports.push_back(Report::Impossible("freeze")),
            },
            Command::Stop => {
                // Only a source's own pace sees to it that little waits.
                self.pacer.take_if(|pacer| !pacer.lasts());
                self.mode = Mode::Process(Then::Stop);
            }
            Command::Resume(pace) => {
                if !mutant::is_active(Mutant::UpdEnableLeftSet) {
                    self.announce.stop();
                }
                self.halted = false;
                self.pacer = pace.map(|pace| Pacer::new(now, pace));
                self.mode = Mode::Process(Then::Resumed);
            }
            Command::Release(migration) => {
                self.replace(None);
                self.mode = Mode::HandBack { migration, end: None };
            }
            Command::ArmPktQ => {
                self.pkt_q.clear();
                self.renew_pkt_q();
                self.mode = Mode::Arming;
            }
            Command::TakeOver(Synchronised { mut nf, drops }, pace) => {
                nf.take_over(now);
                self.replace(Some(nf));
                self.count_drops_from(&drops.map(|drops| *drops).unwrap_or_default());
                let frozen = self.freeze();
                self.reports.extend(frozen.map(Report::Digest));
                self.pacer = pace.map(|pace| Pacer::new(now, pace));
                self.mode = Mode::Process(Then::TakenOver);
            }
            Command::HandBack(migration, pace) => {
                if mutant::is_active(Mutant::HandBackDropped) {
                    self.pkt_q.clear();
                }
                self.pacer = pace.map(|pace| Pacer::new(now, pace));
                self.mode = Mode::HandBack { migration, end: Some(PortId(0)) };
            }
            Command::Discard => {
                self.pacer = None;
                let discarded = self.pkt_q.clear();
                self.pkt_q_totals.discarded_packets += discarded;
                self.mode = Mode::Drop(Cause::Idle);
                let totals = self.pkt_q_totals();
                self.event(LcoreEvent::Discarded(totals));
            }
            Command::Reset => {
                self.pacer = None;
                self.announce.stop();
                self.replace(None);
                self.count_drops_from(&DropTotals::default());
                self.pkt_q.clear();
                self.mode = Mode::Drop(Cause::Idle);
            }
            Command::Gauges => {
                let gauges = self.nf.as_ref().map(|nf| nf.gauges()).unwrap_or_default();
                self.reports.push_back(Report::Gauges(gauges));
            }
            Command::Subscribers(mut cursor) => {
                let listed = self.nf.as_ref().map(|nf| nf.subscribers(&mut cursor));
                let cursor = if listed.is_some() { cursor } else { ScanCursor::default() };
                self.reports.push_back(Report::Subscribers(listed.unwrap_or_default(), cursor));
            }
            Command::Sample(duration) => match self.freeze() {
                Some(frozen) => {
                    self.announce.sample(now, now + duration);
                    self.reports.push_back(Report::Sample(frozen));
                }
                None => self.reports.push_back(Report::Impossible("sample")),
            },
            Command::End => self.ended = true,
        }
    }

    /// Begins to say what becomes of packets.
    fn start(&mut self, now: Instant, st_q_out: rtrb::Producer<u8>, announcing: Announcing) {
        match announcing {
            Announcing::Statelets => self.announce.start(st_q_out),
            Announcing::Packets { seed } => {
                if let Some(nf) = &mut self.nf {
                    nf.align(now, seed);
                }
                self.announce.start_duplicating(st_q_out, Align { now, seed });
            }
            Announcing::Nothing => {
                self.announce.start(st_q_out);
                self.halted = true;
            }
        }
    }

    fn frozen(&mut self, frozen: Frozen) {
        self.reports.push_back(Report::Snapshot(frozen));
        self.event(LcoreEvent::Frozen);
    }

    /// The counters of drops belong to the network function and move with it.
    fn count_drops_from(&mut self, totals: &DropTotals) {
        (0..F::DROP_REASONS.len() as u16).for_each(|reason| self.io.set_refused_total(reason, 0));
        if !mutant::is_active(Mutant::DropsForgotten) {
            totals.iter().for_each(|(reason, total)| self.io.set_refused_total(reason, total));
        }
    }

    /// Isolates the present state.
    fn freeze(&mut self) -> Option<Frozen> {
        self.nf.as_deref_mut().map(crate::snapshot::freeze)
    }

    /// A migration begins to fill `pkt_q`.
    fn renew_pkt_q(&mut self) {
        self.pkt_q.reset_longest();
        self.pkt_q_totals = PktQTotals::default();
        self.pkt_q_told = false;
    }

    fn replace(&mut self, nf: Option<Box<F>>) {
        if let Some(retired) = core::mem::replace(&mut self.nf, nf) {
            self.reports.push_back(Report::Retired(retired));
        }
        self.halted = false;
    }

    fn event(&mut self, event: LcoreEvent) {
        self.reports.push_back(Report::Event(event));
    }

    fn pkt_q_totals(&self) -> PktQTotals {
        let status = self.pkt_q.status();
        PktQTotals { longest_packets: status.longest_records, longest_bytes: status.longest_bytes, ..self.pkt_q_totals }
    }
}
