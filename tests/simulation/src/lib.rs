//! Whole migrations in virtual time, with faults, from one seed.
//!
//! A world of two instances, a switch and a controller runs on one thread. What decides is the code that the images, the
//! switch agent and the controller run: the lcores and the VEI ([`slim_core::vei`]), the coordinator
//! ([`slim_core::migration`]), the codecs, the network functions ([`slim_nat`], for measurements [`slim_gateway`], and a [toy](FlowChain)) and the switch
//! ([`slim_switch::Switch`]). What has threads, sockets or devices in reality is a stand-in that takes turns: stream
//! threads, control server, daemon, rings.
//!
//! ```text
//!                  outside: hosts and servers                       controller ── TCP ──┐
//!                      │ ▲ packets                                      │ pipe          │
//!                ┌─────▼─┴──────────────────────────────────────────────▼───────────────▼─┐
//!                │ Switch: paths, meters, delay lines, redirect, drain, hold, bridge      │
//!                └──▲─▲───────────────────────────────────────────────────────────▲─▲─────┘
//!          rings, TCP │ │ ══════════ statelet and snapshot streams over TCP ══════════ │ │ rings, TCP
//!                instance 0                                                   instance 1
//! ```
//!
//! Everything random comes from one seed and time is virtual, so a run can be repeated exactly. A judge follows every
//! packet and knows, from a reference that never migrates, what has to become of it; at the end it looks whether
//! anything is left behind and whether the caller was told the truth. `docs/simulation.md` says more.

#![forbid(unsafe_code)]

mod agenda;
mod controller;
mod fabric;
mod faults;
mod instance;
mod net;
mod oracle;
mod pipe;
mod random;
mod run;
mod scenario;
mod stats;
mod stories;
#[cfg(test)]
mod tests;
mod trace;
mod watch;
mod workload;
mod world;

pub use agenda::Agenda;
pub use faults::{Fault, When};
pub use oracle::PacketId;
pub use random::Random;
pub use run::{Run, Violation, run_scenario, run_seed};
pub use scenario::{Function, Noise, PlannedMigration, Reading, Scenario};
pub use stats::Stats;
pub use trace::Trace;
pub use workload::{ChainWorkload, FlowChain, Measurable, MeasuredLoad, NatPressure, NatWorkload, Workload};
pub use world::{Measured, Trial, run_trial};
