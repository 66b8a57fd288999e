//! The VEI's decisions: what an instance does during a migration, in which order, and when it gives up.
//!
//! [`Instance`] is what a driver holds: it answers the controller's requests and runs [`Source`] or [`Destination`],
//! whichever the present migration makes of it. All three are sans I/O: [events](Event), requests and the time go in,
//! [actions](Action) come out. They never see a packet or a statelet; those stay with the lcores and stream threads,
//! which report what matters about them. What an lcore does with packets and commands is in [`lcore`].
//!
//! ```text
//!            requests                      commands
//! controller ────────► ┌──────────────┐ ──────────────► lcore of each shard: ports, network function, pkt_q, st_q_out
//!            ◄──────── │   Instance   │ ◄──────────────
//!             events   │ Source or    │    reports
//!                      │ Destination  │ ──────────────► threads of each shard: statelet stream, snapshot stream,
//!                time ►└──────────────┘ ◄──────────────                        st_q_in
//! ```
//!
//! Mutual exclusion (§IV-C) follows from the order of the actions: at the source the lcore alone touches the state and
//! freezes it in the step that sets `upd_enable`; at the destination the management side installs snapshot and statelets
//! and only `TakeOver` gives the state to an lcore.
//!
//! Ours beyond the paper: explicit end records and acknowledgement, a commit point that the types show
//! (a rollback takes a proof that it has not been passed), time-outs in every phase, and what becomes of `pkt_q` when a
//! migration is undone.

mod action;
mod destination;
mod installer;
mod instance;
pub mod lcore;
mod parameters;
mod pkt_q;
mod proceedings;
mod source;

pub use action::{Action, Event, LcoreCommand, LcoreEvent, LcoreTotals, StreamCommand, StreamEvent, VeiError};
pub use destination::Destination;
pub use installer::Installer;
pub use instance::{Handled, Identity, Instance, compare};
pub use parameters::{DestinationParameters, SourceParameters};
pub use pkt_q::{Full, PacketQueue};
pub use source::Source;
