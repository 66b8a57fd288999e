//! The controller: boots instances, plugs them into the switch, and moves network functions between them.
//!
//! It never touches a data packet. From the bottom up:
//!
//! - [`net`], [`process`]: addresses, and child processes that never outlive us;
//! - [`hypervisor`]: booting images, with QEMU behind the trait.

#![forbid(unsafe_code)]

pub mod hypervisor;
pub mod net;
pub mod process;
