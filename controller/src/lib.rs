//! The controller: boots instances, plugs them into the switch, and moves network functions between them.
//!
//! It never touches a data packet. From the bottom up:
//!
//! - [`net`], [`process`]: addresses, and child processes that never outlive us;
//! - [`peer`]: control connections to instances and the switch, which come back when they break;
//! - [`hypervisor`]: booting images, with QEMU behind the trait.

#![forbid(unsafe_code)]

pub mod api;
pub mod client;
pub mod daemon;
pub mod deployment;
pub mod fabric;
pub mod hypervisor;
pub mod net;
pub mod peer;
pub mod plan;
pub mod precopy;
pub mod process;
pub mod timeouts;
pub mod transfer;
pub mod units;
