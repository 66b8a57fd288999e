//! The loop around an [`Lcore`](lcore::Lcore): the clock, the way of commands and reports, counters, sleep.

use super::idle::Idle;
use super::ports::Ports;
use dpdk::Clock;
use slim_core::nf::{NetworkFunction, Shard};
use slim_core::time::{Duration, Instant};
use slim_core::vei::lcore::{self, Command, Patience, Report, Sampled};

/// The longest sleep of an lcore whose network function wants ticks.
const TICK_IDLE: Duration = Duration::from_millis(4);

/// The longest sleep of an lcore that waits for packets or commands. Commands wake it.
const SLEEP_IDLE: Duration = Duration::from_millis(50);

/// What an lcore is made of.
pub struct Parts<F> {
    /// Its shard.
    pub shard: Shard,
    /// Its clock.
    pub clock: Clock,
    /// Its ports, and what it counts.
    pub ports: Ports,
    /// When it sleeps, and how.
    pub idle: Idle,
    /// The capacity of `pkt_q`.
    pub pkt_q_bytes: usize,
    /// Its commands.
    pub commands: rtrb::Consumer<Command<F>>,
}

/// One lcore's loop.
pub struct Lcore<F, R> {
    clock: Clock,
    lcore: lcore::Lcore<F, Ports>,
    idle: Idle,
    commands: rtrb::Consumer<Command<F>>,
    report: R,
}

impl<F: NetworkFunction, R: FnMut(Report<F>) -> Result<(), Report<F>>> Lcore<F, R> {
    /// An idle lcore. `report` passes a report on, or gives it back to be offered again later.
    pub fn new(parts: Parts<F>, report: R) -> Self {
        let now = parts.clock.now();
        Self {
            clock: parts.clock,
            lcore: lcore::Lcore::new(now, parts.shard, parts.pkt_q_bytes, parts.ports),
            idle: parts.idle,
            commands: parts.commands,
            report,
        }
    }

    /// Runs until the command to end. The network function, if there is one, is dropped here.
    pub fn run(mut self) {
        while !self.lcore.has_ended() {
            let now = self.clock.now();
            let passed = self.lcore.pass(now, self.commands.pop().ok());
            self.publish(now);
            self.report();
            let patience = match self.lcore.patience() {
                Patience::None => Duration::ZERO,
                Patience::Tick => TICK_IDLE,
                Patience::Forever => SLEEP_IDLE,
            };
            let ports = self.lcore.io_mut();
            if passed.busy {
                self.idle.busy(&mut ports.rx, passed.received);
                ports.counters.busy_polls.add(1);
            } else {
                ports.counters.empty_polls.add(1);
                if self.idle.empty(&mut ports.rx, patience) {
                    ports.counters.sleeps.add(1);
                }
            }
        }
    }

    /// Makes known how long the queues are, and what a sample has counted.
    #[inline]
    fn publish(&mut self, now: Instant) {
        let (pkt_q, st_q_out, sampled) = (self.lcore.pkt_q(), self.lcore.st_q_out(), self.lcore.sampled(now));
        let counters = &self.lcore.io().counters;
        counters.pkt_q_depth.set(pkt_q.records);
        counters.pkt_q_bytes.set(pkt_q.bytes);
        counters.pkt_q_depth_max.set(pkt_q.longest_records);
        counters.pkt_q_bytes_max.set(pkt_q.longest_bytes);
        if let Some(st_q_out) = st_q_out {
            counters.st_q_out_bytes.set(st_q_out.used_bytes);
            counters.st_q_out_bytes_max.set(st_q_out.longest_bytes);
            counters.statelets.set(st_q_out.statelets.records);
            counters.statelet_bytes.set(st_q_out.statelets.bytes);
        }
        if let Some(Sampled { elapsed, totals }) = sampled {
            counters.sample_us.set(elapsed.as_micros() as u64);
            counters.sample_packets.set(totals.workload.packets);
            counters.sample_packet_bytes.set(totals.workload.bytes);
            counters.sample_statelets.set(totals.statelets.records);
            counters.sample_value_bytes.set(totals.statelets.value_bytes);
        }
    }

    #[inline]
    fn report(&mut self) {
        while let Some(report) = self.lcore.poll_report() {
            if let Err(report) = (self.report)(report) {
                self.lcore.return_report(report);
                return;
            }
        }
    }
}
