//! An lcore of an instance: carries out the commands that [`vei`](slim_core::vei) describes, as the dataplane does.

use super::Workload;
use super::oracle::Oracle;
use slim_core::nf::{Environment, NetworkFunction, PortId, ShardId, Verdict};
use slim_core::packet::OwnedPacket;
use slim_core::protocol::MigrationId;
use slim_core::protocol::control::PktQTotals;
use slim_core::protocol::inband::{self, Frame, HandBackEnd};
use slim_core::snapshot;
use slim_core::statelet;
use slim_core::table::FrozenItem;
use slim_core::time::Instant;
use slim_core::vei::{LcoreCommand, LcoreEvent, LcoreTotals, PacketQueue};
use std::collections::VecDeque;

const BURST: usize = 32;

/// Isolated state on its way to whoever reads it.
pub(super) type Frozen = Vec<Box<dyn FrozenItem>>;

/// What one poll led to.
#[derive(Default)]
pub(super) struct Polled {
    pub(super) reports: Vec<LcoreEvent>,
    pub(super) transmitted: Vec<(PortId, Vec<u8>)>,
    pub(super) for_snapshot: Option<Frozen>,
    pub(super) for_digest: Option<Frozen>,
    pub(super) dropped_packets: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Discard,
    Process,
    /// `pkt_q` first; then `Process`.
    CatchUp(LcoreEvent),
    /// Until the receive queues are empty.
    Stopping,
    Stopped,
    Enqueue,
    HandBack {
        migration: MigrationId,
        /// Whether the ends are still to be sent.
        end: bool,
    },
}

pub(super) struct Lcore<N> {
    shard: ShardId,
    shards: u16,
    mode: Mode,
    pub(super) network_function: Option<N>,
    /// The network function that the management side hands over with `Activate` and `TakeOver`.
    pub(super) incoming: Option<N>,
    pub(super) receive: Vec<VecDeque<Vec<u8>>>,
    pkt_q: PacketQueue,
    pkt_q_totals: PktQTotals,
    pub(super) commands: VecDeque<LcoreCommand>,
    pub(super) announced: Announced,
    totals: LcoreTotals,
}

/// `st_q_out` and `upd_enable`.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) upd_enable: bool,
    pub(super) st_q_out: VecDeque<Vec<u8>>,
    bytes: usize,
    capacity_bytes: usize,
    overflown: bool,
}

impl Announced {
    /// Takes the oldest record, as the statelet thread does.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let record = self.st_q_out.pop_front()?;
        self.bytes -= record.len();
        Some(record)
    }

    fn clear(&mut self) {
        self.upd_enable = false;
        self.st_q_out.clear();
        self.bytes = 0;
        self.overflown = false;
    }
}

/// What the network function sees.
struct Surroundings<'a> {
    now: Instant,
    announced: &'a mut Announced,
    totals: &'a mut LcoreTotals,
    emitted: &'a mut Vec<(PortId, Vec<u8>)>,
}

impl Environment for Surroundings<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn upd_enable(&self) -> bool {
        self.announced.upd_enable
    }

    fn announce(&mut self, statelet_type: u16, value: &[u8]) {
        if !self.announced.upd_enable {
            return;
        }
        let mut record = Vec::new();
        if statelet::encode(statelet_type, value, &mut record).is_err()
            || self.announced.bytes + record.len() > self.announced.capacity_bytes
        {
            self.announced.upd_enable = false;
            self.announced.overflown = true;
            return;
        }
        self.announced.bytes += record.len();
        self.totals.statelets.records += 1;
        self.totals.statelets.value_bytes += value.len() as u64;
        self.totals.statelets.bytes += record.len() as u64;
        self.announced.st_q_out.push_back(record);
    }

    fn emit(&mut self, port: PortId, frame: &[u8]) {
        self.emitted.push((port, frame.to_vec()));
    }
}

impl<N: NetworkFunction> Lcore<N> {
    pub(super) fn new(shard: ShardId, shards: u16, pkt_q_bytes: usize, st_q_out_bytes: usize) -> Self {
        Self {
            shard,
            shards,
            mode: Mode::Discard,
            network_function: None,
            incoming: None,
            receive: N::PORTS.iter().map(|_| VecDeque::new()).collect(),
            pkt_q: PacketQueue::new(pkt_q_bytes),
            pkt_q_totals: PktQTotals::default(),
            commands: VecDeque::new(),
            announced: Announced {
                upd_enable: false,
                st_q_out: VecDeque::new(),
                bytes: 0,
                capacity_bytes: st_q_out_bytes,
                overflown: false,
            },
            totals: LcoreTotals::default(),
        }
    }

    /// Whether nothing waits and no statelet is wanted: nothing is left of any migration.
    pub(super) fn is_clean(&self) -> bool {
        self.pkt_q.is_empty()
            && self.announced.st_q_out.is_empty()
            && !self.announced.upd_enable
            && self.incoming.is_none()
            && self.receive.iter().all(VecDeque::is_empty)
    }

    /// One turn of the packet loop: commands, then a burst of each port, then the end of what is under way.
    pub(super) fn poll<W: Workload<N>>(&mut self, now: Instant, workload: &W, oracle: &mut Oracle<N>) -> Polled {
        let mut polled = Polled::default();
        while let Some(command) = self.commands.pop_front() {
            self.obey(command, oracle, &mut polled);
        }
        match self.mode {
            Mode::CatchUp(report) => self.catch_up(now, workload, oracle, report, &mut polled),
            Mode::Discard | Mode::Process | Mode::Stopping | Mode::Stopped | Mode::Enqueue | Mode::HandBack { .. } => {
                self.receive(now, workload, oracle, &mut polled)
            }
        }
        if let Mode::HandBack { migration, end } = self.mode {
            self.hand_back(migration, end, &mut polled);
        }
        if matches!(self.mode, Mode::Process | Mode::Stopping) {
            self.tick(now, oracle, &mut polled);
        }
        if core::mem::take(&mut self.announced.overflown) {
            polled.reports.push(LcoreEvent::StateletOverflow);
        }
        polled
    }

    fn obey(&mut self, command: LcoreCommand, oracle: &mut Oracle<N>, polled: &mut Polled) {
        match command {
            LcoreCommand::Activate => {
                self.network_function = self.incoming.take();
                self.mode = Mode::Process;
            }
            LcoreCommand::Freeze => {
                self.totals = LcoreTotals::default();
                polled.for_snapshot = self.network_function.as_mut().map(snapshot::freeze);
                self.announced.upd_enable = true;
                polled.reports.push(LcoreEvent::Frozen);
            }
            LcoreCommand::Stop => self.mode = Mode::Stopping,
            LcoreCommand::Resume => {
                self.announced.clear();
                self.mode = Mode::CatchUp(LcoreEvent::Resumed);
            }
            LcoreCommand::Release(migration) => self.mode = Mode::HandBack { migration, end: false },
            LcoreCommand::ArmPktQ => {
                for queue in &mut self.receive {
                    polled.dropped_packets += queue.drain(..).len() as u64;
                }
                self.pkt_q.reset_longest();
                self.pkt_q_totals = PktQTotals::default();
                self.mode = Mode::Enqueue;
                polled.reports.push(LcoreEvent::PktQArmed);
            }
            LcoreCommand::TakeOver => {
                self.network_function = self.incoming.take();
                polled.for_digest = self.freeze_for_digest(oracle);
                self.mode = Mode::CatchUp(LcoreEvent::PktQDrained(PktQTotals::default()));
            }
            LcoreCommand::HandBack(migration) => self.mode = Mode::HandBack { migration, end: true },
            LcoreCommand::Discard => {
                self.pkt_q_totals.discarded_packets += self.pkt_q.clear();
                self.mode = Mode::Discard;
                polled.reports.push(LcoreEvent::Discarded(self.totals_of_pkt_q()));
            }
            LcoreCommand::Reset => {
                self.network_function = None;
                self.announced.clear();
                polled.dropped_packets += self.pkt_q.clear();
                self.mode = Mode::Discard;
            }
        }
    }

    /// A burst of each port, treated as the mode demands.
    fn receive<W: Workload<N>>(&mut self, now: Instant, workload: &W, oracle: &mut Oracle<N>, polled: &mut Polled) {
        let mut idle = true;
        for port in (0..self.receive.len() as u8).map(PortId) {
            for _ in 0..BURST {
                let Some(frame) = self.receive[usize::from(port.0)].pop_front() else { break };
                idle = false;
                if inband::is_inband(&frame) {
                    self.answer(port, frame, polled);
                    continue;
                }
                match self.mode {
                    Mode::Process | Mode::Stopping => self.process(now, workload, oracle, port, frame, polled),
                    Mode::Enqueue | Mode::Stopped | Mode::HandBack { .. } => {
                        if self.pkt_q.push(port, &frame).is_err() {
                            self.pkt_q_totals.dropped_packets += 1;
                            polled.dropped_packets += 1;
                        }
                    }
                    Mode::Discard | Mode::CatchUp(_) => polled.dropped_packets += 1,
                }
            }
        }
        if idle && self.mode == Mode::Stopping {
            self.mode = Mode::Stopped;
            self.announced.upd_enable = false;
            polled.for_digest = self.freeze_for_digest(oracle);
            polled.reports.push(LcoreEvent::Stopped(self.totals));
        }
    }

    /// The state at the source's end or the destination's take-over, which must be the reference's at this very moment.
    fn freeze_for_digest(&mut self, oracle: &mut Oracle<N>) -> Option<Frozen> {
        let frozen = self.network_function.as_mut().map(snapshot::freeze)?;
        assert_eq!(snapshot::digest(&frozen), oracle.digest(self.shard), "state differs from the reference's");
        Some(frozen)
    }

    /// Answers a drain packet; the VEI decides what it means.
    fn answer(&mut self, port: PortId, mut frame: Vec<u8>, polled: &mut Polled) {
        if let Ok(drain) = inband::acknowledge_in_place(&mut frame) {
            polled.transmitted.push((port, frame));
            polled.reports.push(LcoreEvent::Drain(drain));
        }
    }

    fn process<W: Workload<N>>(
        &mut self,
        now: Instant,
        workload: &W,
        oracle: &mut Oracle<N>,
        port: PortId,
        frame: Vec<u8>,
        polled: &mut Polled,
    ) {
        let Some(network_function) = &mut self.network_function else {
            panic!("shard {} processes packets without a network function", self.shard.0);
        };
        let (id, expected) = oracle.process(now, workload, self.shard, port, &frame);
        if self.announced.upd_enable {
            self.totals.workload.packets += 1;
            self.totals.workload.bytes += frame.len() as u64;
        }
        let mut surroundings = Surroundings {
            now,
            announced: &mut self.announced,
            totals: &mut self.totals,
            emitted: &mut polled.transmitted,
        };
        let mut packet = OwnedPacket::new(frame);
        let verdict = network_function.process(&mut surroundings, port, &mut packet);
        assert_eq!(verdict, expected, "{id:?} is not treated as the reference treats it");
        match verdict {
            Verdict::Transmit(port) => polled.transmitted.push((port, packet.into_inner())),
            Verdict::Consumed => {}
            Verdict::Drop(_) => polled.dropped_packets += 1,
        }
    }

    fn tick(&mut self, now: Instant, oracle: &mut Oracle<N>, polled: &mut Polled) {
        if let Some(network_function) = &mut self.network_function {
            oracle.tick(now, self.shard);
            network_function.tick(&mut Surroundings {
                now,
                announced: &mut self.announced,
                totals: &mut self.totals,
                emitted: &mut polled.transmitted,
            });
        }
    }

    fn catch_up<W: Workload<N>>(
        &mut self,
        now: Instant,
        workload: &W,
        oracle: &mut Oracle<N>,
        report: LcoreEvent,
        polled: &mut Polled,
    ) {
        for _ in 0..BURST {
            let Some((port, frame)) = self.pkt_q.pop().map(|(port, frame)| (port, frame.to_vec())) else { break };
            self.pkt_q_totals.packets += 1;
            self.process(now, workload, oracle, port, frame, polled);
        }
        if self.pkt_q.is_empty() {
            self.mode = Mode::Process;
            polled.reports.push(match report {
                LcoreEvent::PktQDrained(_) => LcoreEvent::PktQDrained(self.totals_of_pkt_q()),
                other => other,
            });
        }
    }

    fn hand_back(&mut self, migration: MigrationId, end: bool, polled: &mut Polled) {
        let send = |frame: Frame<'_>| {
            let mut bytes = vec![0; frame.encoded_len()];
            frame.encode(&mut bytes).unwrap_or_else(|error| panic!("cannot hand a frame back: {error}"));
            bytes
        };
        for _ in 0..BURST {
            let Some((port, frame)) = self.pkt_q.pop() else { break };
            self.pkt_q_totals.handed_back_packets += 1;
            polled.transmitted.push((port, send(Frame::HandBack { migration, port, frame })));
        }
        if end && self.pkt_q.is_empty() {
            for port in (0..self.receive.len() as u8).map(PortId) {
                let end = HandBackEnd { migration, port, shard: self.shard, shards: self.shards };
                polled.transmitted.push((port, send(Frame::HandBackEnd(end))));
            }
            self.mode = Mode::HandBack { migration, end: false };
            polled.reports.push(LcoreEvent::HandedBack(self.totals_of_pkt_q()));
        }
    }

    fn totals_of_pkt_q(&self) -> PktQTotals {
        let status = self.pkt_q.status();
        PktQTotals { longest_packets: status.longest_records, longest_bytes: status.longest_bytes, ..self.pkt_q_totals }
    }
}
