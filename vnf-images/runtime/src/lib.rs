//! The VEI's driver: everything of an image that is not the network function.
//!
//! A network function's binary is one call, [`run()`]. As PID 1 of a guest it boots the image; started by somebody, with
//! `--process`, it is an ordinary program.
//!
//! ```text
//! cli, config ─► run ─┬─ guest (PID 1 only): mounts, fw_cfg, NICs, VFIO, management address, power
//!                     ├─ dataplane: EAL, ports, one lcore per shard
//!                     └─ manage: control server, state streams, the manager that drives slim_core::vei
//! ```
//!
//! All decisions about a migration are `slim-core`'s; this crate carries them out. What it owes to the packets: no
//! allocation, lock, system call, log line or dynamic dispatch for any of them.
//!
//! # Who gets the CPU
//!
//! A guest usually has one vCPU, shared by the lcore, the kernel's network stack and the threads of the state streams.
//! All of them are ordinary (`SCHED_OTHER`) threads: a real-time lcore would starve the streams it waits for. The lcore
//! is a little less nice than the rest, snapshot threads a little nicer, and the lcore sleeps on receive
//! interrupts whenever its queues are empty, so that everyone else runs in the gaps. Digests are computed in the middle of a
//! hand-over and wanted after it, so their threads run only when nobody else wants to (`SCHED_IDLE`).

#![deny(unsafe_code)]

mod cli;
mod config;
mod dataplane;
mod guest;
mod logging;
mod manage;
mod run;
mod sys;
#[cfg(test)]
mod toy;

pub use run::run;

/// Nice value of an lcore: three times the weight of an ordinary thread.
const NICE_LCORE: i32 = -5;

/// Nice value of threads that move or measure state in bulk.
const NICE_BULK: i32 = 5;
