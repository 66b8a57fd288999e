//! Load generator, echo servers and recorder of §VII, all pure: frames in, frames out, time as an argument.
//!
//! - [`spec`]: what load to generate;
//! - [`pacer`]: when packets are due;
//! - [`stamp`]: what every packet carries;
//! - [`flows`]: hosts, sockets and servers, and how the NAT shows them;
//! - [`arp`]: stations that answer, and hosts that look for the NAT;
//! - [`cells`]: where subscribers of a packet gateway are;
//! - [`sequence`]: which packets of a flow arrived, and in which order;
//! - [`recorder`]: all of them, phase by phase;
//! - [`workload`]: both ends of the traffic, put together;
//! - [`report`]: what became of it;
//! - [`control`], [`progress`]: commands to a running generator, and how it goes.
//!
//! Only the driver, behind the feature `load`, knows of DPDK.

pub mod arp;
pub mod cells;
pub mod control;
#[cfg(feature = "load")]
pub mod driver;
pub mod flows;
pub mod pacer;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod sequence;
pub mod spec;
pub mod stamp;
pub mod workload;

pub use report::Report;
pub use spec::LoadSpec;
pub use workload::Workload;
