//! DPDK, safely: one place where `dpdk-sys` becomes owned types.
//!
//! - [`Eal`] starts the environment, once, and attaches devices while it runs.
//! - [`Mempool`] hands out [`Mbuf`]s. An mbuf is owned: dropping it frees it, transmitting it gives it away.
//! - [`Device`] is a port before its start; [`Device::start`] turns it into a [`Port`], which answers questions, and
//!   its [`RxQueue`]s and [`TxQueue`]s, each to be owned by one thread.
//! - [`WaitSet`] sleeps on receive interrupts, where the device has them.
//! - [`Clock`] reads the time stamp counter.
//!
//! What is dropped last closes the port; a device that was attached at run time is detached then. Pools and the EAL
//! last as long as the process. The packet path allocates nothing, takes no lock and returns no errors.

mod clock;
mod device;
mod eal;
mod error;
mod logging;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod wait;

pub use clock::{Clock, cycles, hz};
pub use device::{Device, PortConfig, Started};
pub use eal::{Eal, process_arguments};
pub use error::{Errno, Error};
pub use mbuf::Mbuf;
pub use mempool::{DATA_ROOM_DEFAULT, Mempool};
pub use port::{Port, PortStats};
pub use queue::{RxQueue, TxQueue};
pub use wait::{WaitSet, Waker};
