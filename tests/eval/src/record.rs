//! What one run came to: numbers as they were measured, nothing derived but what the definition needs.

use crate::grid::Cell;
use serde::{Deserialize, Serialize};
use slim_core::migration::Outcome;
use slim_core::protocol::control::MigrationReport;
use slim_core::protocol::{DestinationPhase, MigrationPhase};
use slim_testbed::demo::{AFTER, DURING};
use slim_testbed::load::Report;
use slim_testbed::load::report::{BEFORE, DirectionReport, PhaseReport};
use std::collections::BTreeMap;

/// One run of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What was run.
    pub cell: Cell,
    /// By how much rates, filler and load were divided; 1 at full scale.
    pub scale: f64,
    /// How the migration ended.
    pub ended: Ended,
    /// From the destination's acceptance of the snapshot stream until it forwards live, as in the paper, in seconds.
    pub duration_s: Option<f64>,
    /// From asking for the migration to its outcome, in seconds.
    pub asked_s: f64,
    /// Traffic from the beginning of the measurement to its end.
    pub traffic: Traffic,
    /// Round trips.
    pub rtt: Rtt,
    /// The most packets that waited in `pkt_q`.
    pub pkt_q_packets: u64,
    /// Packets that found it full.
    pub pkt_q_dropped: u64,
    /// What the state transfer took.
    pub transfer: Transfer,
    /// Whether the state arrived as it left, as far as known.
    pub digests_equal: Option<bool>,
    /// Frames dropped by switch and lcores, by cause; state streams' with `management_` before.
    pub drops: BTreeMap<String, u64>,
    /// What the controller said beforehand, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<Planned>,
    /// What precopy took, where it was that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precopy: Option<Precopy>,
    /// `kvm` or `tcg`, where there were guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accel: Option<String>,
    /// How long the run took in real time, in seconds.
    pub took_s: f64,
}

/// How a migration ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The destination has taken over.
    Completed,
    /// The source goes on; why.
    RolledBack(String),
    /// Nobody knows; why.
    Unresolved(String),
}

/// What became of the packets sent while it was measured, both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets a second in each direction.
    pub packets_per_second: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Of these, those sent before the migration began: the testbed's own doing.
    #[serde(default)]
    pub lost_before: u64,
    /// Packets that came to a wrong cell, other than right after a hand-over. They count as lost (§VII).
    pub wrong_cell: u64,
    /// Round trips longer than 15 ms.
    pub late: u64,
    /// Further arrivals of packets that had arrived.
    pub duplicated: u64,
    /// Packets that arrived after a later one of their flow.
    pub reordered: u64,
    /// Packets with a wrong checksum, content, address or port.
    pub wrong: u64,
}

impl Traffic {
    /// §VII's "seconds of packet loss": packets lost divided by packets a second.
    pub fn loss_s(&self) -> f64 {
        (self.lost + self.wrong_cell) as f64 / self.packets_per_second
    }

    /// §VII's "seconds of RTT larger than 15 ms": late packets beside the lost ones.
    pub fn late_s(&self) -> f64 {
        (self.lost + self.wrong_cell + self.late) as f64 / self.packets_per_second
    }
}

/// Round-trip times in milliseconds, by when the request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rtt {
    /// The mean before the migration.
    pub before_mean_ms: f64,
    /// The longest before the migration.
    pub before_max_ms: f64,
    /// The median during the migration.
    pub during_p50_ms: f64,
    /// 99 % during the migration are not longer.
    pub during_p99_ms: f64,
    /// The longest during and after the migration.
    pub max_ms: f64,
    /// The mean of that interval of 500 ms whose mean is greatest.
    pub worst_interval_mean_ms: f64,
}

/// Bytes of the state transfer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Transfer {
    /// On the snapshot stream, filler included.
    pub snapshot_bytes: u64,
    /// Statelets announced.
    pub announced: u64,
    /// Their bytes with type and length, as the paper sends them.
    pub announced_tlv_bytes: u64,
    /// On the statelet stream, merged and compressed if so asked.
    pub statelet_stream_bytes: u64,
    /// The TCP segments that these fill.
    pub statelet_segments: u64,
    /// Packet bytes processed while statelets were announced.
    pub workload_bytes: u64,
    /// σ as in the paper: values over packets.
    pub sigma_payload: Option<f64>,
    /// σ with type, length, TCP/IP and Ethernet.
    pub sigma_wire: Option<f64>,
}

impl Transfer {
    /// Both streams together.
    pub fn total_bytes(&self) -> u64 {
        self.snapshot_bytes + self.statelet_stream_bytes
    }
}

/// What the controller said of a migration beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Whether it would be over.
    pub converges: bool,
    /// After how many seconds.
    pub duration_s: Option<f64>,
}

/// What a hypervisor's own live migration took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Precopy {
    /// How long the guest stood still, in seconds.
    pub downtime_s: Option<f64>,
    /// Rounds begun.
    pub rounds: u64,
    /// The guest's memory.
    pub memory_bytes: u64,
    /// What passed the instances' links.
    pub stream_bytes: u64,
}

/// What the controller and the instances say of a migration.
struct Account<'a> {
    source: Option<&'a MigrationReport>,
    destination: Option<&'a MigrationReport>,
    digests_equal: Option<bool>,
}

impl Run {
    /// A run as recorder, controller and instances saw it, apart from how long it took and what was dropped.
    pub fn new(cell: Cell, scale: f64, outcome: &Outcome, asked_s: f64, load: &Report) -> Self {
        let (ended, account) = account(outcome);
        let pkt_q = account.destination.map(|report| report.pkt_q).unwrap_or_default();
        let done = ended == Ended::Completed;
        Self {
            duration_s: account.destination.filter(|_| done).map(duration_s),
            pkt_q_packets: pkt_q.longest_packets,
            pkt_q_dropped: pkt_q.dropped_packets,
            transfer: transfer(&account),
            digests_equal: account.digests_equal,
            ..Self::seen(cell, scale, ended, asked_s, load)
        }
    }

    /// A run of which only recorder and controller tell.
    pub fn seen(cell: Cell, scale: f64, ended: Ended, asked_s: f64, load: &Report) -> Self {
        Self {
            cell,
            scale,
            ended,
            duration_s: None,
            asked_s,
            traffic: traffic(load),
            rtt: rtt(load),
            pkt_q_packets: 0,
            pkt_q_dropped: 0,
            transfer: Transfer::default(),
            digests_equal: None,
            drops: BTreeMap::new(),
            planned: None,
            precopy: None,
            accel: None,
            took_s: 0.0,
        }
    }
}

fn account(outcome: &Outcome) -> (Ended, Account<'_>) {
    match outcome {
        Outcome::Completed { source, destination, digests_equal, remark: _ } => {
            let [source, destination] = [source, destination].map(Option::as_deref);
            (Ended::Completed, Account { source, destination, digests_equal: *digests_equal })
        }
        Outcome::RolledBack { failure, source, destination, remark: _ } => {
            let [source, destination] = [source, destination].map(Option::as_deref);
            (Ended::RolledBack(failure.to_string()), Account { source, destination, digests_equal: None })
        }
        Outcome::Unresolved { failure, what_to_do: _ } => {
            let account = Account { source: None, destination: None, digests_equal: None };
            (Ended::Unresolved(failure.to_string()), account)
        }
    }
}

/// From the acceptance of the snapshot stream until the destination has emptied `pkt_q`.
fn duration_s(destination: &MigrationReport) -> f64 {
    use DestinationPhase::{Installing, Redirecting, Synchronising, TakingOver};
    let counts = [Installing, Synchronising, Redirecting, TakingOver].map(MigrationPhase::Destination);
    let counted = destination.phases.iter().filter(|phase| counts.contains(&phase.phase));
    counted.map(|phase| phase.duration_us as f64 / 1e6).sum()
}

fn traffic(load: &Report) -> Traffic {
    let total = &load.total;
    let both = |count: fn(&DirectionReport) -> u64| count(&total.outbound) + count(&total.inbound);
    Traffic {
        packets_per_second: load.packets_per_second,
        sent: both(|one| one.sent),
        lost: both(|one| one.lost),
        lost_before: load.phase(BEFORE).map_or(0, PhaseReport::lost),
        wrong_cell: both(|one| one.misdirected),
        late: total.late,
        duplicated: both(|one| one.duplicated),
        reordered: both(|one| one.reordered),
        wrong: both(|one| one.corrupt + one.mistranslated),
    }
}

fn rtt(load: &Report) -> Rtt {
    let ms = |us: u64| us as f64 / 1e3;
    let of = |name: &str| load.phase(name).map(|phase| phase.rtt).unwrap_or_default();
    let (before, during, after) = (of(BEFORE), of(DURING), of(AFTER));
    Rtt {
        before_mean_ms: ms(before.mean_us),
        before_max_ms: ms(before.max_us),
        during_p50_ms: ms(during.p50_us),
        during_p99_ms: ms(during.p99_us),
        max_ms: ms(during.max_us.max(after.max_us)),
        worst_interval_mean_ms: ms(load.rtt_interval_mean_max_us),
    }
}

fn transfer(account: &Account<'_>) -> Transfer {
    let Some(source) = account.source else { return Transfer::default() };
    Transfer {
        snapshot_bytes: source.snapshot.bytes,
        announced: source.announced.records,
        announced_tlv_bytes: source.announced.bytes,
        statelet_stream_bytes: source.statelets.stream_bytes,
        statelet_segments: source.statelets.segments,
        workload_bytes: source.workload.bytes,
        sigma_payload: source.sigma_payload(),
        sigma_wire: source.sigma_wire(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::grid::{Mode, Scheduling, Setup, Variation, Vnf};

    /// A run in which nothing happened.
    pub(crate) fn run(rate_mbit: u32, repetition: u32) -> Run {
        let setup = Setup {
            vnf: Vnf::Nat,
            packet_size_bytes: 512,
            rate_mbit,
            mode: Mode::Statelet,
            scheduling: Scheduling::BestEffort,
            variation: Variation::default(),
        };
        Run {
            cell: Cell { setup, repetition },
            scale: 1.0,
            ended: Ended::Completed,
            duration_s: Some(0.5),
            asked_s: 0.6,
            traffic: Traffic { packets_per_second: 1000.0, sent: 2000, ..Traffic::default() },
            rtt: Rtt::default(),
            pkt_q_packets: 10,
            pkt_q_dropped: 0,
            transfer: Transfer::default(),
            digests_equal: Some(true),
            drops: BTreeMap::new(),
            planned: None,
            precopy: None,
            accel: None,
            took_s: 1.0,
        }
    }

    #[test]
    fn packets_at_a_wrong_cell_are_lost_and_late_ones_are_late() {
        let traffic = Traffic { packets_per_second: 100.0, lost: 20, wrong_cell: 5, late: 50, ..run(100, 0).traffic };
        assert_eq!((traffic.loss_s(), traffic.late_s()), (0.25, 0.75));
    }
}
