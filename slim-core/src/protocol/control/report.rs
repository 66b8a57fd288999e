//! What a migration came to, as measured at one of its ends.

use crate::protocol::{Digest, MigrationId, MigrationPhase};
use crate::statelet::{Sigma, WireCosts};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One instance's account of one migration, complete or so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationReport {
    /// The migration.
    pub migration: MigrationId,
    /// Each phase in order, the present one with the time it has taken so far.
    pub phases: Vec<PhaseDuration>,
    /// From the first phase to now, or to the end.
    pub total_us: u64,
    /// The snapshot.
    pub snapshot: SnapshotTotals,
    /// The statelets: sent by `src_inst`, installed by `dst_inst`.
    pub statelets: StateletTotals,
    /// The statelets as they were announced by `src_inst`, before any were merged; zero in the destination's report.
    pub announced: StateletTotals,
    /// What `src_inst` processed while it announced; zero in the destination's report.
    pub workload: WorkloadTotals,
    /// How far `pkt_q` filled.
    pub pkt_q: PktQTotals,
    /// The state's digest at the source's end or the destination's take-over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Digest>,
}

impl MigrationReport {
    /// An empty report of `migration`.
    pub fn new(migration: MigrationId) -> Self {
        Self {
            migration,
            phases: Vec::new(),
            total_us: 0,
            snapshot: SnapshotTotals::default(),
            statelets: StateletTotals::ZERO,
            announced: StateletTotals::ZERO,
            workload: WorkloadTotals::default(),
            pkt_q: PktQTotals::default(),
            digest: None,
        }
    }

    /// σ as the paper counts it: bytes of the values announced over bytes of packets. `None` without workload, which only
    /// the source can count.
    pub fn sigma_payload(&self) -> Option<f64> {
        (self.workload.packets > 0).then(|| self.sigma().of_values())
    }

    /// σ on the wire: the statelet streams with TCP/IP and Ethernet over packets with Ethernet. `None` without workload.
    pub fn sigma_wire(&self) -> Option<f64> {
        let StateletTotals { stream_bytes, segments, .. } = self.statelets;
        (self.workload.packets > 0).then(|| self.sigma().on_the_wire(&WireCosts::ETHERNET, stream_bytes, segments))
    }

    fn sigma(&self) -> Sigma {
        Sigma {
            packets: self.workload.packets,
            packet_bytes: self.workload.bytes,
            statelets: self.announced.records,
            value_bytes: self.announced.value_bytes,
        }
    }
}

/// How long one phase took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseDuration {
    /// The phase.
    pub phase: MigrationPhase,
    /// Its duration, in microseconds.
    pub duration_us: u64,
}

/// A snapshot's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotTotals {
    /// Bytes on the snapshot streams, filler included.
    pub bytes: u64,
    /// Chunks on the snapshot streams, filler included.
    pub chunks: u64,
    /// Live entries of all tables.
    pub entries: u64,
    /// Bytes of filler among `bytes`.
    pub filler_bytes: u64,
}

impl SnapshotTotals {
    /// Adds another shard's snapshot.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.entries += other.entries;
        self.filler_bytes += other.filler_bytes;
    }
}

/// The volume of statelets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateletTotals {
    /// Statelets.
    pub records: u64,
    /// Their values, without type and length.
    pub value_bytes: u64,
    /// Their values with type and length.
    pub bytes: u64,
    /// Statelets merged into others before they were sent; not among `records`.
    pub merged: u64,
    /// What the statelet streams carried, compressed or not. 0 if not counted.
    pub stream_bytes: u64,
    /// TCP segments that it fills. 0 if not counted.
    pub segments: u64,
}

impl StateletTotals {
    /// None.
    pub const ZERO: Self = Self { records: 0, value_bytes: 0, bytes: 0, merged: 0, stream_bytes: 0, segments: 0 };

    /// Adds another shard's statelets.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.value_bytes += other.value_bytes;
        self.bytes += other.bytes;
        self.merged += other.merged;
        self.stream_bytes += other.stream_bytes;
        self.segments += other.segments;
    }
}

/// Packets processed while statelets were announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadTotals {
    /// Packets received from the ports.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on, without frame check sequence.
    pub bytes: u64,
}

impl WorkloadTotals {
    /// Adds another shard's workload.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// How `pkt_q` was used, all shards together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PktQTotals {
    /// Packets that went through it.
    pub packets: u64,
    /// The most packets it held at a time; of several shards, the sum.
    pub longest_packets: u64,
    /// The most bytes of packets it held at a time; of several shards, the sum.
    pub longest_bytes: u64,
    /// Packets that found it full and were dropped.
    pub dropped_packets: u64,
    /// Packets handed back to the switch.
    pub handed_back_packets: u64,
    /// Packets thrown away with it when there was nobody to hand them to.
    pub discarded_packets: u64,
}

impl PktQTotals {
    /// Adds another shard's queue.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.longest_packets += other.longest_packets;
        self.longest_bytes += other.longest_bytes;
        self.dropped_packets += other.dropped_packets;
        self.handed_back_packets += other.handed_back_packets;
        self.discarded_packets += other.discarded_packets;
    }
}
