//! Control messages: what the controller says to instances and switch, and what they answer and report.
//!
//! One connection per instance (TCP on its management address) and one to the switch (a Unix socket). Each line is one
//! JSON object, at most [`LINE_BYTES_MAX`] bytes:
//!
//! ```text
//! request  {"v":1,"id":7,"request":{"type":"prepare",…}}
//! reply    {"v":1,"id":7,"ok":{"type":"done"}}   or   {"v":1,"id":7,"error":{"code":"wrong_role","message":"…"}}
//! event    {"v":1,"event":{"type":"phase_changed",…}}
//! ```
//!
//! `v` is [`VERSION`]; a line of another version is refused by name. `id` is the requester's, echoed. Every request may be
//! repeated: asking for what already is so succeeds. Events may be lost with a connection; whoever reconnects asks for
//! the status, which says everything the lost events said.

mod codec;
mod envelope;
mod error;
mod instance;
mod options;
mod pace;
mod report;
mod secret;
mod switch;
#[cfg(test)]
mod tests;

pub use codec::{DecodeError, LINE_BYTES_MAX, LineBuffer, LineTooLong, decode, decode_request, encode};
pub use envelope::{Event, Reply, Request, ServerMessage, VERSION};
pub use error::{ControlError, ErrorCode};
pub use instance::{
    CAPACITY_MEMORY_AVAILABLE, CAPACITY_MEMORY_NEEDED, CAPACITY_TABLE, ConfigInForce, Description, Holder,
    InstanceEvent, InstanceReply, InstanceRequest, InstanceRole, InstanceStatus, MigrationRole, MigrationStatus,
    QueueStatus, ResolveOutcome, SAMPLE, SAMPLE_MS_MAX, SAMPLE_SNAPSHOT, SubscriberCursor, SubscriberPage,
    SubscriberStatus,
};
pub use options::{DestinationTimeouts, PrepareOptions, SourceTimeouts, StartOptions};
pub use pace::Pace;
pub use report::{MigrationReport, PhaseDuration, PktQTotals, SnapshotTotals, StateletTotals, WorkloadTotals};
pub use secret::Secret;
pub use switch::{
    InstancePaths, LinkSettings, PathDrain, PathStatus, PortKind, PortStatus, RedirectState, SwitchEvent, SwitchReply,
    SwitchRequest, SwitchStatus,
};

use alloc::collections::BTreeMap;
use alloc::string::String;

/// Counters or gauges by name, in `snake_case` with the unit last.
pub type Counters = BTreeMap<String, u64>;
