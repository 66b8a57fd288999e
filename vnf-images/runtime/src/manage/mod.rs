//! Management: everything about an instance that is not a packet.
//!
//! ```text
//!  control clients ─ control ──┐                        ┌─► lcores (commands)
//!  peers' streams ── accept ───┤    ┌───────────────┐   ├─► stream threads (tasks)
//!  stream threads ── session ──┼──► │ inbox, manager│ ──┤
//!  lcores ── reports ──────────┤    │ vei::Instance │   ├─► digest, sample threads
//!  signals, power button ──────┘    └───────────────┘   └─► control clients (replies, events)
//! ```
//!
//! One thread, the [`manager`], owns the state machine and carries out what it decides. All others do one thing each:
//! read and write a connection, send or install a snapshot, compute a digest.

mod accept;
mod capacity;
pub mod control;
mod inbox;
mod incoming;
pub mod log_out;
mod manager;
pub mod net;
mod outgoing;
mod sample;
mod session;
mod shard;
mod snapshot_out;
mod st_q_in;
mod statelets_in;
mod statelets_out;
mod status;
mod synchronise;

pub use accept::serve as serve_streams;
pub use inbox::{End, Message, Sender, inbox};
pub use manager::{Instance, Manager, Ready};
pub use shard::ManagedShard;
pub use status::Sources;
