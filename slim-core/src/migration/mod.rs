//! The controller's side of a migration, sans I/O: [`Coordinator`] prepares, starts, redirects, waits, and undoes.
//!
//! ```text
//!   controller          src_inst               switch                dst_inst
//!       │ describe ────────┤◄── describe, path list ──┼───────────────────┤
//!       │ prepare ─────────┼──────────────────────────┼──────────────────►│ arms pkt_q
//!       │◄─────────────────┼──────────────────────────┼──────────── armed │
//!       │ start ──────────►│ streams ═════════════════╪══════════════════►│ installs, applies
//!       │◄─────────────────┼──────────────────────────┼── redirect wanted │
//!       │ redirect ────────┼─────────────────────────►│ moves the paths   │
//!       │                  │◄─────────── drain packets│ packets ─────────►│ pkt_q
//!       │                  │ end record ══════════════╪══════════════════►│ takes over
//!       │                  │◄═════════════════════════╪════════ taken over│ processes pkt_q
//!       │◄──────── released┼──────────────────────────┼───────────── live │
//! ```
//!
//! Every failure before the commit point, and an operator's abort, lead back to a live source; see
//! [`CoordinatorPhase`] for all phases. A controller that was restarted continues with [`Coordinator::recover`] from
//! what the parties tell it: it needs no memory of its own.

mod coordinator;
mod forward;
mod recover;
mod requests;
#[cfg(test)]
mod tests;
mod types;
mod undo;

pub use coordinator::{Coordinator, TooLate};
pub use recover::ReadBack;
pub use types::{
    Call, CallError, CoordinatorAction, CoordinatorEvent, CoordinatorParameters, CoordinatorPhase,
    CoordinatorPhaseDuration, CoordinatorTimeouts, Outcome, Party, Progress,
};
