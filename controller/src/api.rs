//! What `slimctl` and other clients ask the daemon for, and what it answers.
//!
//! The envelope is that of the control protocol (JSON lines with `v` and `id`), on the daemon's Unix socket. A
//! connection's requests are answered in turn; a migration sends events before its reply.

use crate::hypervisor::borrowed::Functions;
use crate::peer::Endpoint;
use crate::plan::MigrationPlan;
use crate::precopy::{PrecopyOptions, PrecopyOutcome, PrecopyProgress};
use crate::timeouts::TimeoutChanges;
use serde::{Deserialize, Serialize};
use slim_core::migration::{CoordinatorPhase, CoordinatorPhaseDuration, Outcome};
use slim_core::protocol::control::{
    Counters, DestinationTimeouts, InstancePaths, InstanceRole, InstanceStatus, LinkSettings, MigrationReport, Pace,
    PrepareOptions, ResolveOutcome, SourceTimeouts, StartOptions, SubscriberCursor, SubscriberPage, SubscriberStatus,
    SwitchStatus,
};
use slim_core::protocol::{Failure, MigrationId, MigrationPhase, Mode, Name, Scheduling, Text};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the daemon can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ApiRequest {
    /// Answered by [`ApiReply::Status`].
    Status {},
    /// Answered by [`ApiReply::Instances`].
    InstanceList {},
    /// Answered by [`ApiReply::Instance`], with the instance's own status in it.
    InstanceShow {
        /// The instance.
        name: Name,
    },
    /// Answered by [`ApiReply::Config`]: what is in force at the instance.
    InstanceConfig {
        /// The instance.
        name: Name,
    },
    /// Lists some of the instance's subscribers; answered by [`ApiReply::Subscribers`].
    InstanceSubscribers {
        /// The instance.
        name: Name,
        /// Where to go on; left out to begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<SubscriberCursor>,
    },
    /// Boots an instance; answered by [`ApiReply::Instance`] once it is ready.
    InstanceBoot {
        /// The new instance.
        name: Name,
        /// The network function, a `[vnf.…]` of the deployment; may be left out if there is only one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vnf: Option<Name>,
        /// Whether it starts to process packets with empty state at once, with the traffic led to it.
        #[serde(default)]
        active: bool,
        /// The host's PCI functions that become its first interfaces.
        #[serde(default, skip_serializing_if = "Functions::is_empty")]
        functions: Functions,
    },
    /// Takes charge of an instance that somebody else has started; answered by [`ApiReply::Instance`].
    InstanceAttach {
        /// The instance.
        name: Name,
        /// Where it listens for its control connection.
        control: Endpoint,
        /// The network function whose ports are to be plugged in; not needed if the switch knows the instance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vnf: Option<Name>,
        /// As for boot.
        #[serde(default)]
        active: bool,
    },
    /// Ends an instance, or lets go of an attached one.
    InstanceRetire {
        /// The instance.
        name: Name,
        /// Also if it processes packets at present.
        #[serde(default)]
        force: bool,
    },
    /// Answered by [`ApiReply::Paths`].
    PathList {},
    /// Moves a live network function; answered by [`ApiReply::Migration`] when it is over, well or not.
    Migrate {
        /// Where it is: `src_inst`.
        source: Name,
        /// Where it goes: `dst_inst`, an idle instance. Left out: one out of the pool of its network function, or booted
        /// now if none is at hand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination: Option<Name>,
        /// What may be left at its default.
        #[serde(default)]
        options: MigrateOptions,
    },
    /// Says how a migration would go, having watched the source for a second; moves nothing. Answered by
    /// [`ApiReply::Plan`].
    Plan {
        /// `src_inst`, which has to be live.
        source: Name,
        /// `dst_inst`, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination: Option<Name>,
        /// As for `migrate`.
        #[serde(default)]
        options: MigrateOptions,
    },
    /// Moves the whole guest of a live network function with its hypervisor's own live migration, for comparison; answered
    /// by [`ApiReply::Precopy`] when it is over, well or not.
    Precopy {
        /// What the instance is called now.
        source: Name,
        /// What it is to be called on its new ports.
        destination: Name,
        /// What may be left at its default.
        #[serde(default)]
        options: PrecopyOptions,
    },
    /// Says how the pools are, and sets the size of one; answered by [`ApiReply::Pools`].
    Pool {
        /// The network function, a `[vnf.…]` of the deployment; left out: all of them, or the only one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vnf: Option<Name>,
        /// How many idle instances to hold ready from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<usize>,
    },
    /// Gives up the migration in which `instance` takes part. The one who asked for the migration gets its reply.
    Abort {
        /// Either instance; may be left out if only one migration is under way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<Name>,
    },
    /// Empties an instance that a migration has left released or discarded, so that it can be a destination again.
    InstanceReset {
        /// The instance.
        name: Name,
    },
    /// Tells a source that waits for word of its destination how the migration ended. For the operator who knows.
    InstanceResolve {
        /// The source.
        name: Name,
        /// How it ended.
        outcome: ResolveOutcome,
    },
    /// Leads the traffic of its network function to an instance, away from any other. For the operator who knows.
    PathSet {
        /// The instance.
        instance: Name,
    },
    /// Ends the daemon.
    Shutdown {
        /// Also the instances, where the deployment would have them go on.
        #[serde(default)]
        retire: bool,
    },
}

/// How to migrate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MigrateOptions {
    /// How the state at the destination is kept up to date.
    pub mode: Mode,
    /// What goes first on the instances' links.
    pub scheduling: Scheduling,
    /// Incompressible bytes added to the snapshot, to stand for a larger state.
    pub filler_bytes: u64,
    /// The snapshot's rate; 0 is as fast as TCP goes. `None` is that too where the dataplane goes first, and otherwise a
    /// quarter of the instances' link: the meter polices all traffic of an instance alike then, so a burst of TCP would
    /// take packets of the dataplane with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_rate_mbit: Option<u64>,
    /// Whether statelets stay as they were announced instead of being merged while they wait to be sent.
    pub no_coalesce: bool,
    /// Whether the statelet stream is compressed.
    pub compress: bool,
    /// Whether `src_inst` is retired afterwards.
    pub retire: bool,
    /// Time-outs other than the deployment's.
    #[serde(skip_serializing_if = "TimeoutChanges::is_empty")]
    pub timeouts: TimeoutChanges,
}

impl MigrateOptions {
    /// The options of `prepare` that follow, on links like `link`.
    pub(crate) fn prepare(&self, link: &LinkSettings, timeouts: DestinationTimeouts) -> PrepareOptions {
        PrepareOptions {
            mode: self.mode,
            scheduling: self.scheduling,
            pkt_q_pace: Pace::of_link(link, self.scheduling),
            timeouts,
            ..PrepareOptions::default()
        }
    }

    /// The options of `start` that follow, on links like `link`.
    pub(crate) fn start(&self, link: &LinkSettings, timeouts: SourceTimeouts) -> StartOptions {
        let rate_bps = match self.snapshot_rate_mbit {
            Some(rate_mbit) => rate_mbit.saturating_mul(1_000_000),
            None if self.scheduling == Scheduling::BestEffort => link.rate_bps / SNAPSHOT_SHARE,
            None => 0,
        };
        let snapshot_rate_bytes_per_s = (rate_bps > 0).then_some(rate_bps / 8);
        StartOptions {
            mode: self.mode,
            scheduling: self.scheduling,
            filler_bytes: self.filler_bytes,
            snapshot_rate_bytes_per_s,
            pkt_q_pace: Pace::of_link(link, self.scheduling),
            coalesce: !self.no_coalesce,
            compress: self.compress,
            timeouts,
            ..StartOptions::default()
        }
    }
}

/// The part of a link that a snapshot takes where all frames are alike: one in so many.
const SNAPSHOT_SHARE: u64 = 4;

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ApiReply {
    /// It is so.
    Done {},
    /// Answer to `status`.
    Status {
        /// Everything at a glance.
        status: Box<DaemonStatus>,
    },
    /// Answer to `instance_list`.
    Instances {
        /// Every instance, by name.
        instances: Vec<InstanceInfo>,
    },
    /// Answer to everything about one instance.
    Instance {
        /// The instance.
        instance: Box<InstanceInfo>,
    },
    /// Answer to `instance_config`.
    Config {
        /// The instance's configuration file, with nothing left to defaults.
        toml: String,
    },
    /// Answer to `instance_subscribers`.
    Subscribers {
        /// Some subscribers, and where to go on.
        page: SubscriberPage,
    },
    /// Answer to `path_list`.
    Paths {
        /// Every instance plugged into the switch.
        instances: Vec<InstancePaths>,
    },
    /// Answer to `pool`.
    Pools {
        /// Each pool, by network function.
        pools: Vec<PoolInfo>,
    },
    /// Answer to `plan`.
    Plan {
        /// What will be.
        plan: Box<MigrationPlan>,
    },
    /// Answer to `precopy`.
    Precopy {
        /// What it came to.
        outcome: Box<PrecopyOutcome>,
    },
    /// Answer to `migrate`.
    Migration {
        /// What it came to.
        outcome: Box<MigrationOutcome>,
    },
}

/// What the daemon tells while a request is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ApiEvent {
    /// A migration has its identifier and has begun.
    MigrationBegun {
        /// The migration.
        migration: MigrationId,
    },
    /// A party has entered a phase, as the controller learned of it.
    MigrationStep {
        /// Which, and when.
        entry: TimelineEntry,
    },
    /// How far a precopy is, now and then.
    Precopy {
        /// So far.
        progress: PrecopyProgress,
    },
}

/// The daemon at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonStatus {
    /// The version of its software.
    pub software: String,
    /// Time since it started.
    pub uptime_ms: u64,
    /// Its process.
    pub process_id: u32,
    /// The switch's control socket.
    pub switch: Endpoint,
    /// The switch's status, unless it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_status: Option<Box<SwitchStatus>>,
    /// Every instance.
    pub instances: Vec<InstanceInfo>,
    /// Migrations under way.
    pub migrations: Vec<MigrationSummary>,
    /// The last migrations that are over, oldest first.
    pub past_migrations: Vec<MigrationSummary>,
}

/// A migration in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationSummary {
    /// The migration.
    pub migration: MigrationId,
    /// `src_inst`.
    pub source: Name,
    /// `dst_inst`.
    pub destination: Name,
    /// How it stands or what it came to.
    pub result: MigrationResult,
    /// How long it has taken.
    pub duration_us: u64,
    /// The latest step or the failure, in words.
    pub detail: String,
}

/// How a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationResult {
    /// Under way.
    Running,
    /// The destination has taken over.
    Completed,
    /// The source goes on as if nothing had been.
    RolledBack,
    /// Whether state and packets are in good hands is not known: the operator has to act.
    Unresolved,
}

/// Where an instance is in its life, as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum Life {
    /// On its way.
    Booting {},
    /// Its control connection stands.
    Up {},
    /// It runs, but its control connection does not stand.
    Unreachable {},
    /// Its process has ended by itself.
    Ended {
        /// How, with the end of what it wrote.
        reason: String,
    },
    /// On its way out.
    Retiring {},
}

/// What runs an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Runs {
    /// A guest.
    Image {
        /// `kvm` or `tcg`.
        accel: String,
        /// Why that.
        reason: String,
    },
    /// An ordinary process.
    Process {},
    /// Somebody else started it.
    Attached {},
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceInfo {
    /// Its name.
    pub name: Name,
    /// The `[vnf.…]` it was booted as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vnf: Option<Name>,
    /// The network function's kind, once it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Name>,
    /// Where it is in its life.
    pub life: Life,
    /// Its role, if it can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<InstanceRole>,
    /// What runs it.
    pub runs: Option<Runs>,
    /// On which CPUs and NUMA node a guest runs, as far as the daemon has chosen that, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// Its process on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// Its control connection.
    pub control: Endpoint,
    /// Where it accepts streams, once it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_address: Option<SocketAddr>,
    /// From the start of its process to the `ready` line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after_ms: Option<u64>,
    /// From power-on to ready, as the guest saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_ms: Option<u64>,
    /// The file with its console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_log: Option<PathBuf>,
    /// The migration it takes part in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationId>,
    /// Whether it waits in the pool of its network function.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pooled: bool,
    /// Bounds, such as `pkt_q_bytes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: Counters,
    /// Its own status, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<InstanceStatus>>,
}

/// A network function's pool of idle instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolInfo {
    /// The `[vnf.…]`.
    pub vnf: Name,
    /// How many it is to hold.
    pub size: usize,
    /// Those that it holds.
    pub ready: Vec<Name>,
    /// Those on their way.
    pub booting: Vec<Name>,
    /// How many were taken since the daemon started.
    pub taken: u64,
    /// How many ended by themselves, or did not answer, and were replaced.
    pub replaced: u64,
    /// Why it could not be filled the last time, or lost an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Where a destination that nobody has named came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationFrom {
    /// It was at hand.
    Pool,
    /// It was booted.
    Boot,
}

/// How a destination that nobody has named was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationReady {
    /// Where it came from.
    pub from: DestinationFrom,
    /// From the request until it was ready, connected and idle. Not part of the migration's duration.
    pub after_us: u64,
}

/// What a migration came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationOutcome {
    /// The migration.
    pub migration: MigrationId,
    /// `src_inst`.
    pub source: Name,
    /// `dst_inst`.
    pub destination: Name,
    /// How it ended, with the reports of both instances.
    pub outcome: Outcome,
    /// From the request to the end, as the controller saw it.
    pub total_us: u64,
    /// How long the controller spent in each phase, in order.
    pub phases: Vec<CoordinatorPhaseDuration>,
    /// Each phase of each party as the controller learned of it.
    pub timeline: Vec<TimelineEntry>,
    /// σ by payload, as the paper's Table II counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma_payload: Option<f64>,
    /// σ with all headers down to Ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma_wire: Option<f64>,
    /// How the destination was found, if none was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ready: Option<DestinationReady>,
    /// What went wrong without making the migration fail, such as a source that could not be retired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl MigrationOutcome {
    /// How it ended, in one word.
    pub fn result(&self) -> MigrationResult {
        match self.outcome {
            Outcome::Completed { .. } => MigrationResult::Completed,
            Outcome::RolledBack { .. } => MigrationResult::RolledBack,
            Outcome::Unresolved { .. } => MigrationResult::Unresolved,
        }
    }

    /// The source's account of it.
    pub fn source_report(&self) -> Option<&MigrationReport> {
        match &self.outcome {
            Outcome::Completed { source, .. } | Outcome::RolledBack { source, .. } => source.as_deref(),
            Outcome::Unresolved { .. } => None,
        }
    }

    /// The destination's account of it.
    pub fn destination_report(&self) -> Option<&MigrationReport> {
        match &self.outcome {
            Outcome::Completed { destination, .. } | Outcome::RolledBack { destination, .. } => destination.as_deref(),
            Outcome::Unresolved { .. } => None,
        }
    }

    /// Whether the state's digests at the source's end and the destination's take-over are equal, if both are known.
    pub fn digests_equal(&self) -> Option<bool> {
        match self.outcome {
            Outcome::Completed { digests_equal, .. } => digests_equal,
            Outcome::RolledBack { .. } | Outcome::Unresolved { .. } => None,
        }
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.outcome {
            Outcome::Completed { .. } => None,
            Outcome::RolledBack { failure, .. } | Outcome::Unresolved { failure, .. } => Some(failure),
        }
    }
}

/// A party of a migration has entered a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// Since the migration's begin, as the controller saw it.
    pub at_us: u64,
    /// The phase.
    #[serde(flatten)]
    pub step: Step,
}

/// What a party of a migration has entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Step {
    /// The controller.
    Controller {
        /// Its phase.
        phase: CoordinatorPhase,
    },
    /// An instance.
    Instance {
        /// Its name.
        name: Name,
        /// Its phase.
        phase: MigrationPhase,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_waits_for_nobody_leaves_most_of_the_link_to_packets_unless_told_otherwise() {
        let start = |scheduling, snapshot_rate_mbit, rate_bps| {
            let options = MigrateOptions { scheduling, snapshot_rate_mbit, ..MigrateOptions::default() };
            options.start(&LinkSettings { rate_bps, burst_bytes: 0, delay_us: 0 }, SourceTimeouts::default())
        };
        let first = start(Scheduling::default(), None, 1_000_000_000);
        assert_eq!((first.scheduling, first.snapshot_rate_bytes_per_s), (Scheduling::DataplaneFirst, None));
        let rate = |snapshot_rate_mbit, link_rate_bps| {
            start(Scheduling::BestEffort, snapshot_rate_mbit, link_rate_bps).snapshot_rate_bytes_per_s
        };
        assert_eq!(rate(None, 1_000_000_000), Some(31_250_000));
        assert_eq!(rate(None, 0), None);
        assert_eq!(rate(Some(0), 1_000_000_000), None);
        assert_eq!(rate(Some(80), 1_000_000_000), Some(10_000_000));
    }
}

/// Subscribers of an instance with what it keeps account of for each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribers {
    /// What is counted for each, the most telling first.
    pub counters: Vec<Text>,
    /// How many there are.
    pub total: u64,
    /// All of them or those with the most of the first counter.
    pub busiest: Vec<SubscriberStatus>,
}

impl Subscribers {
    /// Sorts them, the busiest first, and forgets all but the first `most`.
    pub fn keep_busiest(&mut self, most: usize) {
        self.busiest.sort_by(|a, b| b.counters.cmp(&a.counters).then(a.address.cmp(&b.address)));
        self.busiest.truncate(most);
    }
}
