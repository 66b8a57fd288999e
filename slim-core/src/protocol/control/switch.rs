//! Requests to the switch, its replies and its events.

use super::Counters;
use crate::protocol::{MigrationId, Name, Nonce, PathIndex, PathSet, Text};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What the switch can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SwitchRequest {
    /// Opens a port.
    PortAdd {
        /// Its name, such as `inside` or `nat-a.in`.
        name: Name,
        /// What is behind it.
        kind: PortKind,
    },
    /// Closes a port that no instance and no path uses.
    PortRemove {
        /// Its name.
        name: Name,
    },
    /// Answered by [`SwitchReply::Ports`].
    PortList {},
    /// The external ports of the management segment, all at once.
    ManagementSet {
        /// Their names.
        ports: Vec<Name>,
    },
    /// Declares which ports belong to an instance, and the link all its traffic passes.
    InstanceAdd {
        /// The instance.
        name: Name,
        /// Its dataplane ports, in the network function's order.
        ports: Vec<Name>,
        /// Its management port, switched among all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mgmt: Option<Name>,
        /// Its link, in each direction.
        #[serde(default)]
        link: LinkSettings,
    },
    /// Forgets an instance; its ports stay. Refused while paths lead to it.
    InstanceRemove {
        /// The instance.
        name: Name,
    },
    /// Gives an instance's machine a port of its own in the management segment, behind the instance's link: what a
    /// hypervisor sends when it moves a guest then shares the link with the guest's traffic.
    HostPortSet {
        /// The instance.
        instance: Name,
        /// The port; none takes it away again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<Name>,
    },
    /// Binds an instance's dataplane ports to external ports in both directions, in one step.
    PathsSet {
        /// The instance.
        instance: Name,
        /// The external port of each dataplane port, in the same order; empty to unbind all.
        externals: Vec<Name>,
    },
    /// Answered by [`SwitchReply::Paths`].
    PathList {},
    /// Moves all paths of `from` to `to` between two bursts, and puts a drain packet behind the last packet towards
    /// `from` on each ingress path, re-sent until acknowledged.
    ///
    /// Repeating it with the same migration and nonce changes nothing.
    Redirect {
        /// The migration.
        migration: MigrationId,
        /// The instance the paths lead to now.
        from: Name,
        /// The instance they are to lead to.
        to: Name,
        /// The nonce the drain packets carry.
        nonce: Nonce,
        /// Whether this undoes an earlier redirect of the migration.
        #[serde(default)]
        rollback: bool,
        /// With `rollback`: packets for `to` are held until `from` has handed back what it holds, but no longer than
        /// this. 0 where nothing will be handed back.
        #[serde(default)]
        hold_ms: u32,
    },
    /// Answered by [`SwitchReply::Redirect`]: the last redirect of this migration.
    RedirectStatus {
        /// The migration.
        migration: MigrationId,
    },
    /// Changes an instance's link; what is in the delay lines stays in order.
    LinkSet {
        /// The instance.
        instance: Name,
        /// The new settings.
        link: LinkSettings,
    },
    /// Answered by [`SwitchReply::Status`].
    Status {},
    /// Stop.
    Shutdown {},
}

/// What is behind a port of the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PortKind {
    /// A guest's virtio-net device; the switch listens on the socket.
    VhostUser {
        /// The socket's path.
        socket: String,
    },
    /// An ordinary process's virtio-user device; the process listens on the socket. The switch connects, and connects
    /// again whichever side was restarted.
    VhostUserClient {
        /// The socket's path.
        socket: String,
    },
    /// A TAP interface, created if it does not exist.
    Tap {
        /// Its name in the kernel.
        interface: String,
    },
    /// An existing kernel interface, through a packet socket.
    AfPacket {
        /// Its name in the kernel.
        interface: String,
    },
    /// Any DPDK device, by its arguments.
    Vdev {
        /// Such as `net_virtio_user0,path=…`.
        devargs: String,
    },
}

/// An instance's link: a meter, then a delay line, the same in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSettings {
    /// The meter's rate in bits per second; 0 means unmetered.
    pub rate_bps: u64,
    /// The meter's bucket.
    pub burst_bytes: u64,
    /// The delay line.
    pub delay_us: u32,
}

impl Default for LinkSettings {
    /// §VII: 1 Gbit/s, a burst of 20 ms, 2.5 ms of delay.
    fn default() -> Self {
        Self { rate_bps: 1_000_000_000, burst_bytes: 2_500_000, delay_us: 2_500 }
    }
}

/// The switch's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SwitchReply {
    /// It is so, or it has begun and events will follow.
    Done {},
    /// Answer to `port_list`.
    Ports {
        /// Every port.
        ports: Vec<PortStatus>,
    },
    /// Answer to `path_list`.
    Paths {
        /// Every instance, with its paths if it has any.
        instances: Vec<InstancePaths>,
    },
    /// Answer to `redirect_status`; absent if the switch knows no redirect of the migration.
    Redirect {
        /// Where it stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<RedirectState>,
    },
    /// Answer to `status`.
    Status {
        /// Everything that changes.
        status: Box<SwitchStatus>,
    },
}

/// A port and its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortStatus {
    /// Its name.
    pub name: Name,
    /// What is behind it.
    pub kind: PortKind,
    /// Whether the other side is connected.
    pub up: bool,
    /// The instance it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Name>,
    /// Its counters.
    pub counters: Counters,
}

/// An instance as the switch knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstancePaths {
    /// The instance.
    pub instance: Name,
    /// Its dataplane ports, in order.
    pub ports: Vec<Name>,
    /// Its management port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mgmt: Option<Name>,
    /// Its link.
    pub link: LinkSettings,
    /// Its paths; empty if no traffic leads to it.
    pub paths: Vec<PathStatus>,
}

/// One path: unidirectional, from an external port to an instance's port or back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathStatus {
    /// Where packets come from.
    pub from: Name,
    /// Where they go.
    pub to: Name,
    /// For a path towards the instance: its number in drain packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<PathIndex>,
    /// Its counters.
    pub counters: Counters,
}

/// Where a redirect stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectState {
    /// The migration.
    pub migration: MigrationId,
    /// The instance the paths led to.
    pub from: Name,
    /// The instance they lead to.
    pub to: Name,
    /// The nonce of its drain packets.
    pub nonce: Nonce,
    /// Whether it undid an earlier one.
    pub rollback: bool,
    /// Each drained path.
    pub paths: Vec<PathDrain>,
    /// Whether every drain packet has been acknowledged.
    pub drained: bool,
    /// With `rollback`: whether the hold is over.
    pub finished: bool,
    /// Packets `from` has handed back.
    pub handed_back_packets: u64,
    /// Packets held for `to` at present.
    pub held_packets: u64,
}

/// The drain of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathDrain {
    /// The path.
    pub path: PathIndex,
    /// The external port it starts from.
    pub external: Name,
    /// How often its drain packet has been sent.
    pub sent: u32,
    /// Whether it has been acknowledged.
    pub acked: bool,
}

/// Answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchStatus {
    /// The version of its software.
    pub software: Text,
    /// Time since it started.
    pub uptime_ms: u64,
    /// Totals of the whole switch, one per cause of a drop among them.
    pub counters: Counters,
    /// Counters of each instance's meters and delay lines.
    pub instances: BTreeMap<Name, Counters>,
    /// Every port.
    pub ports: Vec<PortStatus>,
    /// Every redirect it remembers, oldest first.
    pub redirects: Vec<RedirectState>,
}

/// What the switch tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SwitchEvent {
    /// The drain packet of one path has been acknowledged.
    DrainAcked {
        /// The migration.
        migration: MigrationId,
        /// The nonce.
        nonce: Nonce,
        /// The path.
        path: PathIndex,
    },
    /// The drain packets of all paths have been acknowledged.
    Drained {
        /// The migration.
        migration: MigrationId,
        /// The nonce.
        nonce: Nonce,
    },
    /// No acknowledgement of a drain packet came, however often it was sent, or its instance was removed.
    DrainGivenUp {
        /// The migration.
        migration: MigrationId,
        /// The nonce.
        nonce: Nonce,
        /// The paths that were not acknowledged.
        unacknowledged: PathSet,
    },
    /// A redirect with `rollback` is complete: everything handed back has been sent on, then everything held.
    RollbackFinished {
        /// The migration.
        migration: MigrationId,
        /// The nonce.
        nonce: Nonce,
        /// Packets handed back.
        handed_back_packets: u64,
        /// Packets that were held meanwhile.
        held_packets: u64,
        /// Packets dropped because the hold was full.
        dropped_packets: u64,
        /// Whether the hold ended by its time-out.
        timed_out: bool,
    },
    /// The other side of a port came or went.
    PortLink {
        /// The port.
        port: Name,
        /// Whether it is connected now.
        up: bool,
    },
}
