//! SliM's software switch, without its devices: everything that decides, nothing that sends or receives.
//!
//! ```text
//!   external port ──► path ──► meter ──► (hold) ──► delay line ──► egress queue ──► instance's port
//!   instance's port ──► meter ──► delay line ──► path ──► egress queue ──► external port
//!   management ports ◄──► learning bridge, through the same meters and delay lines
//! ```
//!
//! From the bottom up: [`meter`], [`fifo`] (delay lines and egress queues), [`lower_effort`] (what waits for the rest of a
//! meter), [`flow_space`], [`bridge`] and [`counters`] know nothing of each other; [`Switch`] joins them to ports, instances and paths, and redirects, drains, holds and
//! takes back packets on the controller's word (§IV-B). [`config`] is what the switch starts with.
//!
//! Packets are of any type that [`Buffers`] can make, and time is an argument: the `slim-switch` binary (feature
//! `agent`) drives it with mbufs and the time stamp counter, a simulator with vectors and virtual time.
//!
//! "§" refers to Nobach et al., *Statelet-Based Efficient and Seamless NFV State Transfer*, IEEE TNSM 2017.

#![forbid(unsafe_code)]

pub mod bridge;
pub mod config;
pub mod counters;
mod error;
pub mod fifo;
pub mod flow_space;
mod limits;
pub mod lower_effort;
pub mod meter;
mod switch;

pub use error::{BURST_BYTES_MIN, TopologyError};
pub use limits::Limits;
pub use switch::{Binding, Redirect, Switch, Totals};

use slim_core::packet::{OwnedPacket, PacketBuf};

/// A port of the switch: a slot that another port may have had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIndex(pub u16);

/// Where the switch gets buffers for the few packets it makes itself: drain packets and copies of flooded frames.
pub trait Buffers {
    /// The packets that are switched.
    type Packet: PacketBuf;

    /// A packet with a copy of `frame`, or nothing if no buffer is free or the frame too long.
    fn copy_of(&mut self, frame: &[u8]) -> Option<Self::Packet>;
}

/// Packets on the heap, for tests and simulators. Never runs out.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeapBuffers;

impl Buffers for HeapBuffers {
    type Packet = OwnedPacket;

    fn copy_of(&mut self, frame: &[u8]) -> Option<OwnedPacket> {
        Some(frame.into())
    }
}
