//! The thin part of `slim-load` that moves frames between the workload and two DPDK ports, on one thread.
//!
//! It never spins: after a round that found less than a full burst it sleeps for `NAP`, so packets are seen up to
//! that much later than they came, and are sent up to that much later than they were due, several at a time.

use super::control::{Command, Control};
use super::pacer::Pacer;
use super::progress::Progress;
use super::report::{Report, Stage, Status};
use super::spec::LoadSpec;
use super::stamp::Direction;
use super::workload::{Next, Workload};
use crate::end::{End, PENDING_MAX};
use anyhow::{Result, bail};
use core::time::Duration;
use dpdk::{Clock, Eal, Mbuf, Mempool};
use slim_core::time::Instant;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long to sleep when there is nothing to do.
const NAP: Duration = Duration::from_micros(100);

/// Packets handled at a time.
const BURST: usize = 32;

/// Enough for full rings and all that may wait.
const MBUFS: u32 = 8191;

/// How often commands and progress are looked after.
const CHORES: Duration = Duration::from_millis(5);

/// How often the links are asked for: a port that listens takes a peer that comes back only then.
const LINK_CHECK: Duration = Duration::from_millis(50);

/// What a run needs beside its load.
#[derive(Debug, Clone)]
pub struct Options {
    /// EAL device of the port towards the NAT's interior, or the path of a vhost socket.
    pub inside: String,
    /// EAL device of the port towards the NAT's exterior, or the path of a vhost socket.
    pub outside: String,
    /// How long the NAT may take to answer ARP.
    pub resolve_timeout: Duration,
    /// Show a line a second on standard error.
    pub progress: bool,
}

/// The two ports, still open. Closing one whose peer has come and gone may crash DPDK: keep them until the report is
/// written.
pub struct Ports(#[expect(dead_code, reason = "held for its end")] [End; 2]);

/// Generates `spec`'s load and reports what became of it. `interrupt` ends the traffic early when it becomes true.
pub fn run(
    eal: &Eal,
    spec: &LoadSpec,
    options: &Options,
    control: &mut Control,
    interrupt: &AtomicBool,
) -> Result<(Report, Ports)> {
    spec.check()?;
    let pool = Mempool::new(eal, "packets", MBUFS)?;
    let inside = End::open(eal, &device(&options.inside, 0), &pool)?;
    let outside = End::open(eal, &device(&options.outside, 1), &pool)?;
    // Naps must not become longer by the default slack of 50 µs.
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        log::warn!("cannot set the timer slack: {error}");
    }
    let clock = Clock::new(eal);
    let now = clock.now();
    let driver = Driver {
        clock,
        pool,
        inside,
        outside,
        workload: Workload::new(spec, now),
        pacer: None,
        stage: Stage::Resolving,
        until: now + options.resolve_timeout,
        traffic_begun: now,
        looked_at: now,
        complete: true,
    };
    driver.run(spec, options, control, interrupt)
}

/// The EAL device for a vhost socket, or `text` if it is one already.
fn device(text: &str, number: usize) -> String {
    if text.contains('/') && !text.contains(',') && !text.starts_with("net_") {
        // Without a MAC address of its own DPDK complains; nobody sends to it.
        format!("net_virtio_user{number},path={text},queue_size=1024,mac=02:51:1a:03:00:0{number}")
    } else {
        text.to_owned()
    }
}

struct Driver {
    clock: Clock,
    pool: Mempool,
    inside: End,
    outside: End,
    workload: Workload,
    pacer: Option<Pacer>,
    stage: Stage,
    /// When the stage ends.
    until: Instant,
    traffic_begun: Instant,
    looked_at: Instant,
    complete: bool,
}

impl Driver {
    fn run(
        mut self,
        spec: &LoadSpec,
        options: &Options,
        control: &mut Control,
        interrupt: &AtomicBool,
    ) -> Result<(Report, Ports)> {
        let (mut chores_at, mut progress) = (self.clock.now(), Progress::new(options.progress, self.clock.now()));
        let mut links_at = chores_at;
        loop {
            let busy = self.move_packets();
            let now = self.clock.now();
            if now >= chores_at {
                chores_at = now + CHORES;
                let mut stop = interrupt.load(Ordering::Relaxed);
                control.poll(|command| self.obey(command, now, &mut stop));
                if stop {
                    self.stop(spec, now)?;
                }
                progress.show(now, || self.status(now));
            }
            if now >= links_at {
                links_at = now + LINK_CHECK;
                self.inside.check_link();
                self.outside.check_link();
            }
            if self.stage == Stage::Resolving && self.workload.is_resolved() {
                self.workload.begin(now);
                self.traffic_begun = now;
                self.pacer = Some(Pacer::new(now, spec.packets_per_second()));
                self.enter(Stage::Warmup, now + spec.warmup());
            }
            if now >= self.until && self.next_stage(spec, now)? {
                break;
            }
            if !busy {
                std::thread::sleep(NAP);
            }
        }
        // Newest first, so that what is taken back is always a flow's last packet.
        for end in [&mut self.inside, &mut self.outside] {
            while let Some(packet) = end.pending.pop_back() {
                self.workload.take_back(&packet, self.looked_at);
            }
        }
        let report = self.workload.report(self.complete, self.clock.now());
        Ok((report, Ports([self.inside, self.outside])))
    }

    /// Receives, answers and sends one burst of each; true if there may be more to do at once.
    fn move_packets(&mut self) -> bool {
        let now = self.clock.now();
        self.workload.recorder().own_pause(now - self.looked_at);
        self.looked_at = now;
        let Self { inside, outside, workload, .. } = self;
        let returned = receive(inside, workload, now, |workload, packet| workload.inside(packet, now));
        let arrived = receive(outside, workload, now, |workload, packet| workload.outside(packet, now));
        let sent = self.send_requests(now);
        self.inside.flush();
        self.outside.flush();
        returned.max(arrived).max(sent) == BURST
    }

    /// Queues what is due, if nothing waits already: back-pressure holds new packets back instead of old ones.
    fn send_requests(&mut self, now: Instant) -> usize {
        match self.stage {
            Stage::Resolving => {
                let Self { workload, pool, inside, .. } = self;
                inside.pending.extend(workload.arp_requests(now).iter().filter_map(|frame| pool.alloc_copy(frame)));
                0
            }
            Stage::Warmup | Stage::Measuring => {
                let Some(pacer) = &mut self.pacer else { return 0 };
                let due = pacer.due(now);
                self.workload.recorder().unsent(Direction::Outbound, pacer.take_skipped());
                let room = if self.inside.pending.is_empty() { BURST } else { 0 };
                let mut sent = 0;
                while sent < room && (sent as u64) < due {
                    let Some(mut packet) = self.pool.alloc() else { break };
                    if self.workload.request(&mut packet, now).is_err() {
                        break;
                    }
                    self.inside.pending.push_back(packet);
                    sent += 1;
                }
                pacer.sent(sent as u64);
                sent
            }
            Stage::Draining => 0,
        }
    }

    /// Goes on to the next stage, the time of the present one being over; true at the end.
    fn next_stage(&mut self, spec: &LoadSpec, now: Instant) -> Result<bool> {
        match self.stage {
            Stage::Resolving => bail!(
                "nobody answers ARP for {} at the inside port: is the NAT up, and its path in the switch?",
                spec.nat_interior
            ),
            Stage::Warmup => {
                self.workload.measure(now);
                self.enter(Stage::Measuring, now + spec.duration());
            }
            Stage::Measuring => {
                self.workload.recorder().end(now);
                self.enter(Stage::Draining, now + spec.drain());
            }
            Stage::Draining => return Ok(true),
        }
        Ok(false)
    }

    fn enter(&mut self, stage: Stage, until: Instant) {
        log::debug!("{stage:?}");
        (self.stage, self.until) = (stage, until);
    }

    /// Ends the traffic before its time.
    fn stop(&mut self, spec: &LoadSpec, now: Instant) -> Result<()> {
        match self.stage {
            Stage::Resolving => bail!("stopped before the NAT answered"),
            Stage::Warmup | Stage::Measuring => {
                self.complete = false;
                self.workload.recorder().end(now);
                self.enter(Stage::Draining, now + spec.drain());
            }
            Stage::Draining => {}
        }
        Ok(())
    }

    fn obey(&mut self, command: Command, now: Instant, stop: &mut bool) -> String {
        match command {
            Command::Mark(name) if self.stage == Stage::Measuring => {
                self.workload.recorder().begin_phase(&name, now);
                "ok".into()
            }
            Command::Mark(_) => format!("error: {:?}, not measuring", self.stage),
            Command::Stop => {
                *stop = true;
                "ok".into()
            }
            Command::Status => {
                serde_json::to_string(&self.status(now)).unwrap_or_else(|error| format!("error: {error}"))
            }
        }
    }

    fn status(&self, now: Instant) -> Status {
        let [outbound, inbound] = self.workload.so_far();
        Status {
            stage: self.stage,
            phase: self.workload.phase().to_owned(),
            elapsed_ms: now.saturating_since(self.traffic_begun).as_millis() as u64,
            outbound,
            inbound,
        }
    }
}

/// Receives one burst at `end` and sends back there what `handle` has turned into an answer.
fn receive(
    end: &mut End,
    workload: &mut Workload,
    now: Instant,
    handle: impl Fn(&mut Workload, &mut Mbuf) -> Next,
) -> usize {
    let mut packets = heapless::Vec::<Mbuf, BURST>::new();
    let count = end.rx.burst(&mut packets);
    for mut packet in packets {
        if handle(workload, &mut packet) == Next::Answer {
            if end.pending.len() < PENDING_MAX {
                end.pending.push_back(packet);
            } else {
                workload.take_back(&packet, now);
            }
        }
    }
    count
}
