//! What `slim-load` reports in the end: one JSON document.

use super::spec::LoadSpec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The number of the report's format; changes when a field changes its meaning.
pub const REPORT_FORMAT: u32 = 1;

/// The name of the phase before the measurement, which no total includes.
pub const WARMUP: &str = "warmup";

/// The name of the measurement's first phase; marks begin further ones.
pub const BEFORE: &str = "before";

/// A run as the recorder saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_FORMAT`].
    pub format: u32,
    /// The load that was generated.
    pub spec: LoadSpec,
    /// Packets a second in each direction, as far as nothing was in the way.
    pub packets_per_second: f64,
    /// Whether traffic was sent for the whole duration; false after a signal or a `stop`.
    pub complete: bool,
    /// All phases but the warm-up together.
    pub total: PhaseReport,
    /// The phases in order, the warm-up first.
    pub phases: Vec<PhaseReport>,
    /// The mean round trip, in microseconds, of that interval of 500 ms whose mean is greatest (figure 14).
    #[serde(default)]
    pub rtt_interval_mean_max_us: u64,
    /// Frames that no socket or server here was meant to get, such as ICMP. Not an error.
    pub foreign_frames: u64,
    /// The flows to which something happened in the measured phases, at most [`FLOWS_LISTED`] of them.
    pub flows: Vec<FlowReport>,
    /// How many flows those are altogether.
    pub flows_affected: u64,
}

/// The most flows a report lists.
pub const FLOWS_LISTED: usize = 32;

/// A part of a run. A packet counts where it was *sent*.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Its name: `warmup`, `before`, those of the marks, or `total`.
    pub name: String,
    /// Its length in milliseconds, the drain at the end not counted.
    pub duration_ms: u64,
    /// From the interior hosts to the echo servers.
    pub outbound: DirectionReport,
    /// From the echo servers back.
    pub inbound: DirectionReport,
    /// Round trips, over those packets that came back.
    pub rtt: RttReport,
    /// Round trips longer than the limit, 15 ms by default. Lost packets are not among them.
    pub late: u64,
    /// The longest time, in microseconds, that `slim-load` itself did not look for packets. Gaps and round-trip times
    /// up to about this size may be its own doing.
    pub own_pause_max_us: u64,
}

/// What happened to the packets of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DirectionReport {
    /// Packets handed to the network.
    pub sent: u64,
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Further arrivals of packets that had arrived before.
    pub duplicated: u64,
    /// Packets that arrived after a later packet of their flow (RFC 4737).
    pub reordered: u64,
    /// The largest distance in packets by which one was late behind another of its flow.
    pub reordering_extent_max: u32,
    /// Arrivals with a wrong checksum, length or content. What a corrupt packet was is not known: it is lost, too.
    pub corrupt: u64,
    /// Arrivals with wrong addresses or ports: not the NAT's exterior address, another exterior port than the flow had
    /// before, another flow's, or not the addresses that the NAT should have restored.
    pub mistranslated: u64,
    /// Arrivals at a cell that the subscriber had left too long ago (only with `gateway`). The paper counts them as lost.
    #[serde(default)]
    pub misdirected: u64,
    /// Packets that were due but never sent because of back-pressure at the port, want of buffers, or because
    /// `slim-load` itself was not run for too long. Not lost, not sent.
    pub unsent: u64,
    /// The longest time in microseconds between two arrivals.
    pub gap_max_us: u64,
}

/// Round-trip times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RttReport {
    /// How many there are.
    pub count: u64,
    /// The shortest.
    pub min_us: u64,
    /// The mean.
    pub mean_us: u64,
    /// The median.
    pub p50_us: u64,
    /// 90 % are not longer.
    pub p90_us: u64,
    /// 99 % are not longer.
    pub p99_us: u64,
    /// 99.9 % are not longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// A flow to which something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// The socket's number.
    pub socket: u16,
    /// The socket's own address and port.
    pub interior: String,
    /// Its exterior address and port, once known.
    pub exterior: Option<String>,
    /// The echo server's address and port.
    pub server: String,
    /// Outbound. The gap is not kept per flow.
    pub outbound: DirectionReport,
    /// Inbound. The gap is not kept per flow.
    pub inbound: DirectionReport,
}

/// Where a run stands, in answer to a `status` command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What it is doing.
    pub stage: Stage,
    /// The phase it is in.
    pub phase: String,
    /// Milliseconds since the first packet.
    pub elapsed_ms: u64,
    /// Outbound, warm-up included. Packets under way count as lost for the time being.
    pub outbound: DirectionReport,
    /// Inbound, likewise.
    pub inbound: DirectionReport,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The interior hosts ask for the NAT's MAC address.
    Resolving,
    /// Traffic, not measured yet.
    Warmup,
    /// Measured traffic.
    Measuring,
    /// Waiting for packets under way.
    Draining,
}

impl DirectionReport {
    /// Whether nothing was lost, duplicated, reordered, corrupted, mistranslated or misdirected.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupt + self.mistranslated + self.misdirected == 0
    }

    /// Adds what happened in another phase or flow.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.reordering_extent_max = self.reordering_extent_max.max(other.reordering_extent_max);
        self.corrupt += other.corrupt;
        self.mistranslated += other.mistranslated;
        self.misdirected += other.misdirected;
        self.unsent += other.unsent;
        self.gap_max_us = self.gap_max_us.max(other.gap_max_us);
    }
}

impl PhaseReport {
    /// Whether nothing was lost, duplicated, reordered, corrupted, mistranslated or misdirected.
    pub fn is_clean(&self) -> bool {
        self.outbound.is_clean() && self.inbound.is_clean()
    }

    /// Lost packets of both directions.
    pub fn lost(&self) -> u64 {
        self.outbound.lost + self.inbound.lost
    }
}

impl Report {
    /// Whether nothing was lost, duplicated, reordered, corrupted, mistranslated or misdirected after the warm-up.
    pub fn is_clean(&self) -> bool {
        self.total.is_clean()
    }

    /// The phase called `name`.
    pub fn phase(&self, name: &str) -> Option<&PhaseReport> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// §VII's "seconds of loss": packets that did not come back, divided by the packets per second sent.
    pub fn loss_seconds(&self) -> f64 {
        self.total.lost() as f64 / self.packets_per_second
    }

    /// §VII's "seconds of RTT larger than 15 ms": as [`loss_seconds`](Self::loss_seconds), late packets included.
    pub fn late_seconds(&self) -> f64 {
        (self.total.lost() + self.total.late) as f64 / self.packets_per_second
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<9} {:<8} {:>9} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6} {:>8}",
            "phase", "", "sent", "lost", "dup", "reord", "corrupt", "wrong", "unsent", "gap ms"
        )?;
        for phase in self.phases.iter().chain([&self.total]) {
            for (name, direction, counts) in
                [(phase.name.as_str(), "outbound", &phase.outbound), ("", "inbound", &phase.inbound)]
            {
                writeln!(
                    f,
                    "{:<9} {:<8} {:>9} {:>6} {:>6} {:>6} {:>7} {:>6} {:>6} {:>8.1}",
                    name,
                    direction,
                    counts.sent,
                    counts.lost,
                    counts.duplicated,
                    counts.reordered,
                    counts.corrupt,
                    counts.mistranslated,
                    counts.unsent,
                    counts.gap_max_us as f64 / 1e3
                )?;
            }
        }
        writeln!(f, "{:<9} {:>9} {:>9} {:>9} {:>9} {:>9}", "RTT in ms", "p50", "p99", "p99.9", "max", "late")?;
        for phase in self.phases.iter().chain([&self.total]) {
            let ms = |us: u64| us as f64 / 1e3;
            writeln!(
                f,
                "{:<9} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9}",
                phase.name,
                ms(phase.rtt.p50_us),
                ms(phase.rtt.p99_us),
                ms(phase.rtt.p999_us),
                ms(phase.rtt.max_us),
                phase.late
            )?;
        }
        Ok(())
    }
}
