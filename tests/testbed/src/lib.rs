//! The testbed of §VII: everything around a pair of VNF instances that makes a migration visible.
//!
//! - [`sandbox`]: private namespaces in which a run can neither disturb the host nor leave anything behind;
//! - [`artifacts`]: the built programs and images a run uses;
//! - [`process`]: child processes that end with their owner;
//! - [`download`]: a TCP download through a NAT that moves;
//! - [`standing`]: the testbed that stays up;
//! - [`load`]: load generator, echo servers and recorder, the pure part of `slim-load`;
//! - [`generator`]: `slim-load`, running;
//! - [`topology`]: switch agent, daemon and two NAT instances, standing;
//! - [`demo`]: the run behind `cargo xtask demo`;
//! - [`precopy`]: a guest that its hypervisor moves as a whole, for comparison;
//! - [`pool`]: migrations to a warm instance, and to one that is booted;
//! - [`chaos`]: faults at every phase of a migration, behind `cargo xtask chaos`.

#![forbid(unsafe_code)]

pub mod artifacts;
pub mod chaos;
pub mod demo;
pub mod download;
#[cfg(feature = "load")]
mod end;
pub mod generator;
pub mod impair;
pub mod load;
pub mod pool;
pub mod precopy;
pub mod process;
pub mod programs;
pub mod sandbox;
pub mod standing;
pub mod topology;
