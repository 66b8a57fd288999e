//! What travels between controller, switch and instances.
//!
//! ```text
//!                 control (JSON lines)
//!   controller ───────────────┬────────────────► switch
//!        │                    │                    │ in-band frames: drain, acknowledgement, hand-back
//!        ▼                    ▼                    ▼
//!     src_inst ── streams: statelets, snapshot ─► dst_inst
//! ```
//!
//! * [`control`]: requests, replies and events of instances and switch, and their line codec.
//! * [`stream`]: the handshake that opens a statelet or snapshot stream, and the acknowledgement that ends one.
//! * [`inband`]: the few frames that switch and instances exchange on dataplane links.
//! * [`Mode`], [`Scheduling`], [`phase`](SourcePhase) and [identifiers](MigrationId): the vocabulary of all three.
//!
//! Whatever arrives is untrusted: bounded, validated, and at worst the reason to abort a migration.

pub mod control;
mod id;
pub mod inband;
mod mode;
mod phase;
mod scheduling;
pub mod stream;

pub use id::{Digest, InvalidText, MigrationId, Name, Nonce, PathIndex, PathSet, Schema, Text};
pub use mode::{Mode, UnknownMode};
pub use phase::{DestinationPhase, Failure, FailureCode, MigrationPhase, SourcePhase};
pub use scheduling::{LOWER_EFFORT_DSCP, Scheduling, UnknownScheduling};
