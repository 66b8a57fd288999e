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
use super::command::{Command, Report};
use super::counters::{Cause, Counters};
use super::idle::Idle;
use super::inband::Inband;
use super::transmit::Transmit;
use super::work::{Mode, Then, Work};
use dpdk::{Clock, Mbuf, RxQueue};
use slim_core::nf::{NetworkFunction, PortId, Shard};
use slim_core::protocol::control::PktQTotals;
use slim_core::time::{Duration, Instant};
use slim_core::vei::{LcoreEvent, PacketQueue};
use std::collections::VecDeque;
use std::sync::Arc;

/// Packets received from a port at a time.
pub const BURST: usize = 32;

/// The network function's tick comes this often while packets arrive,
const TICK: Duration = Duration::from_millis(1);

/// and this often when none do.
const TICK_IDLE: Duration = Duration::from_millis(4);

/// The longest sleep of an lcore without a network function. Commands wake it.
const SLEEP_IDLE: Duration = Duration::from_millis(50);

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
