//! Requests to an instance, its replies and its events.

use super::{Counters, MigrationReport, PrepareOptions, Secret, StartOptions};
use crate::protocol::{Failure, MigrationId, MigrationPhase, Name, Nonce, PathSet, Schema, Text};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use serde::{Deserialize, Serialize};

/// What an instance can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InstanceRequest {
    /// Who are you? Answered by [`InstanceReply::Description`].
    Describe {},
    /// Idle → live: process packets with empty state.
    Activate {},
    /// Idle → destination: arm `pkt_q` and expect the streams of `migration`.
    ///
    /// Accepted at once; [`phase_changed`](InstanceEvent::PhaseChanged) to `armed` tells that `pkt_q` enqueues.
    Prepare {
        /// The migration.
        migration: MigrationId,
        /// The kind the source runs; must be this instance's.
        kind: Name,
        /// The source's schema; must be this instance's.
        schema: Schema,
        /// The source's number of shards; must be this instance's.
        shards: u16,
        /// What may be left at its default.
        #[serde(default)]
        options: PrepareOptions,
    },
    /// Live → source: connect to the destination, freeze, and send snapshot and statelets.
    Start {
        /// The migration.
        migration: MigrationId,
        /// Where the destination listens for streams.
        destination: SocketAddr,
        /// The paths whose drain packets have to be seen before this instance may end.
        paths: PathSet,
        /// The nonce those drain packets will carry.
        nonce: Nonce,
        /// What may be left at its default.
        #[serde(default)]
        options: StartOptions,
    },
    /// Give the migration up. A source goes live again, a destination is discarded.
    ///
    /// Refused with `committed` from the commit point on. A source answers with its role `live` in effect.
    Abort {
        /// The migration.
        migration: MigrationId,
        /// Why, for logs and reports.
        reason: Text,
        /// For a destination that may hold packets: the nonce of the drain packets that follow the redirect back. It
        /// returns `pkt_q` to the switch once it has seen them. Without it `pkt_q` is thrown away, counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hand_back: Option<Nonce>,
    },
    /// Tells a source that committed without an acknowledgement how the migration ended.
    Resolve {
        /// The migration.
        migration: MigrationId,
        /// What it came to.
        outcome: ResolveOutcome,
    },
    /// Released or discarded → idle, with empty state.
    Reset {},
    /// Answered by [`InstanceReply::Status`].
    Status {},
    /// Live: count for a while what would be announced in a migration, and tell how large a snapshot would be. Nothing
    /// is sent, and nothing changes for packets.
    ///
    /// Answered at once. The counters named [`SAMPLE`] and what follows then tell what has been counted so far, until the
    /// next sample; the gauge [`SAMPLE_SNAPSHOT`] follows when it is known.
    Sample {
        /// For how long, at most [`SAMPLE_MS_MAX`].
        duration_ms: u32,
    },
    /// Answered by [`InstanceReply::Config`].
    Config {},
    /// List subscribers, some at a time; answered by [`InstanceReply::Subscribers`].
    Subscribers {
        /// Where to go on; left out to begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<SubscriberCursor>,
    },
    /// Show this identity from now on; the present one will expire. It must be of the same name and role, from the same
    /// authority. An older one than the present is acknowledged and changes nothing.
    RenewIdentity {
        /// Certificate, key and the authority's certificate, in PEM.
        identity: Secret,
    },
    /// Stop and power off.
    Shutdown {},
}

/// How a migration ended whose source did not hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolveOutcome {
    /// The destination has taken over: hand late packets back, forward nothing.
    Release,
    /// The destination never took over and is gone: process packets again.
    Resume,
}

/// An instance's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InstanceReply {
    /// It is so, or it has begun and events will follow.
    Done,
    /// Answer to `describe`.
    Description(Description),
    /// Answer to `status`.
    Status(Box<InstanceStatus>),
    /// Answer to `config`.
    Config(ConfigInForce),
    /// Answer to `subscribers`.
    Subscribers(SubscriberPage),
}

/// Where a list of subscribers goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriberCursor {
    /// The shard.
    pub shard: u16,
    /// The place in its table.
    pub place: u64,
}

/// Answer to `subscribers`: some of them, in no particular order.
///
/// Each that is there from the first page to the last is listed once in each shard that knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriberPage {
    /// What is counted for each, the most telling first.
    pub counters: Vec<Text>,
    /// Subscribers, each with as many numbers.
    pub subscribers: Vec<SubscriberStatus>,
    /// Where to go on, unless these were the last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<SubscriberCursor>,
}

/// A subscriber with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriberStatus {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its counters, in the order of [`SubscriberPage::counters`].
    pub counters: Vec<u64>,
}

/// Answer to `config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigInForce {
    /// The instance's configuration file as it would have to be written to leave nothing to defaults.
    pub toml: String,
}

/// The longest sample.
pub const SAMPLE_MS_MAX: u32 = 60_000;

/// In [`InstanceStatus::counters`]: what counters of the present or last sample begin with. `elapsed_us` follows, and
/// `packets`, `packet_bytes`, `statelets` and `value_bytes` as in [`Sigma`](crate::statelet::Sigma).
pub const SAMPLE: &str = "sample.";

/// In [`InstanceStatus::gauges`]: the bytes of a snapshot stream as of the beginning of the last sample.
pub const SAMPLE_SNAPSHOT: &str = "sample.snapshot_bytes";

/// In [`Description::capacity`]: followed by a table's name, the most entries it accepts.
pub const CAPACITY_TABLE: &str = "table.";

/// In [`Description::capacity`]: what full tables and queues take in memory.
pub const CAPACITY_MEMORY_NEEDED: &str = "memory_needed_bytes";

/// In [`Description::capacity`]: the memory that is free at present.
pub const CAPACITY_MEMORY_AVAILABLE: &str = "memory_available_bytes";

/// What an instance is; it does not change while it runs, except for the role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Its name.
    pub name: Name,
    /// The network function it runs.
    pub kind: Name,
    /// The network function's schema.
    pub schema: Schema,
    /// The version of its software.
    pub software: Text,
    /// The number of shards.
    pub shards: u16,
    /// Its dataplane ports, in order.
    pub ports: Vec<Name>,
    /// Its present role.
    pub role: InstanceRole,
    /// Where it listens for streams.
    pub state_address: SocketAddr,
    /// Bounds, such as `pkt_q_bytes`; those of tables as [`CAPACITY_TABLE`], memory as [`CAPACITY_MEMORY_NEEDED`].
    pub capacity: Counters,
    /// Time from power-on to ready, as the guest saw it.
    pub boot_ms: u64,
}

/// What an instance is doing.
///
/// ```text
/// idle ─ activate ─► live ─ start ─► source ──► released ─ reset ─► idle
///   │                 ▲ ▲              │
///   │                 │ └── rollback ──┘
///   └ prepare ► destination ── abort ──► discarded ─ reset ─► idle
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceRole {
    /// No state; drops and counts what arrives.
    Idle,
    /// Processes packets.
    Live,
    /// Processes packets and announces statelets: `src_inst`.
    Source,
    /// Gave its state away; hands late packets back.
    Released,
    /// Receives state; holds packets in `pkt_q`: `dst_inst`.
    Destination,
    /// Was a destination in vain.
    Discarded,
}

impl core::fmt::Display for InstanceRole {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Live => "live",
            Self::Source => "source",
            Self::Released => "released",
            Self::Destination => "destination",
            Self::Discarded => "discarded",
        })
    }
}

/// An instance's side of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationRole {
    /// `src_inst`.
    Source,
    /// `dst_inst`.
    Destination,
}

/// Which instance has the live state and processes packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// `src_inst`.
    Source,
    /// `dst_inst`.
    Destination,
    /// This party cannot know.
    Unknown,
}

/// Answer to `status`: everything that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceStatus {
    /// Its name.
    pub name: Name,
    /// Its role.
    pub role: InstanceRole,
    /// Time since it became ready.
    pub uptime_ms: u64,
    /// The present or last migration, until the next one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub migration: Option<MigrationStatus>,
    /// Counters, such as `port.in.rx_packets` or `drop.pkt_q_full`.
    pub counters: Counters,
    /// Present sizes, such as `nat.sessions`.
    pub gauges: Counters,
    /// `pkt_q`, `st_q_out` and `st_q_in`.
    pub queues: BTreeMap<String, QueueStatus>,
}

/// How full a queue is and has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueStatus {
    /// Bytes in it.
    pub bytes: u64,
    /// Records or packets in it.
    pub records: u64,
    /// The most bytes it has held.
    pub longest_bytes: u64,
    /// The most records or packets it has held.
    pub longest_records: u64,
    /// The most bytes it can hold.
    pub capacity_bytes: u64,
}

/// Everything a controller that has forgotten a migration needs to know from one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationStatus {
    /// The migration.
    pub id: MigrationId,
    /// This side's phase.
    pub phase: MigrationPhase,
    /// Source: the destination's stream address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destination: Option<SocketAddr>,
    /// Source: the nonce its drain packets must carry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<Nonce>,
    /// Source: the paths to be drained. Destination: empty.
    #[serde(default)]
    pub paths: PathSet,
    /// Paths whose drain packets have been seen.
    #[serde(default)]
    pub drained: PathSet,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<Failure>,
    /// The measurements so far.
    pub report: MigrationReport,
    /// Whether the report is complete, digest included.
    pub finished: bool,
}

/// What an instance tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InstanceEvent {
    /// Booted; sent once to each new connection.
    Ready {
        /// Its name.
        name: Name,
        /// Its role.
        role: InstanceRole,
    },
    /// A migration has entered a phase.
    PhaseChanged {
        /// The migration.
        migration: MigrationId,
        /// The phase entered.
        phase: MigrationPhase,
        /// The role that goes with it.
        instance_role: InstanceRole,
    },
    /// `dst_inst` has caught up for the first time: redirect now (§IV-B, step 2.4).
    RedirectWanted {
        /// The migration.
        migration: MigrationId,
    },
    /// This side is done and the report complete: the source released, the destination live.
    MigrationFinished {
        /// The migration.
        migration: MigrationId,
        /// This side.
        side: MigrationRole,
        /// Its measurements.
        report: Box<MigrationReport>,
    },
    /// The migration has failed on this side.
    MigrationFailed {
        /// The migration.
        migration: MigrationId,
        /// This side.
        side: MigrationRole,
        /// Why.
        failure: Failure,
        /// Who processes packets now, as far as this side knows.
        holder: Holder,
        /// Whether this side may hold packets in `pkt_q`, to be handed back with `abort`.
        holds_packets: bool,
    },
}
