//! A small world in virtual time: two instances, a switch, a controller, and traffic that never stops.
//!
//! [`World`] runs the real state machines ([`vei`](slim_core::vei), [`migration`](slim_core::migration)), a real network
//! function, the real statelet and snapshot codecs and the real control messages on one thread. Only lcores, stream
//! threads and the switch are stand-ins, small enough to be read. Everything random comes from one seed, so a run that
//! fails can be repeated exactly. [`Oracle`] judges every packet from outside: none lost, doubled or overtaken within
//! its flow, each treated as by a reference that never migrated, state equal at every take-over.
//!
//! ```text
//!                        Coordinator
//!                     control │ lines, with delays and outages
//!        ┌────────────────────┼───────────────────┐
//!        ▼                    ▼                   ▼
//!   instance 0 ═ streams ═ Switch ═ streams ═ instance 1
//!        ▲ ▼   through the    ▲ ▼  same links     ▲ ▼
//!        └─┴──────────────────┘ └─────────────────┴─┘
//!                        external ports
//! ```
//!
//! What it leaves out: capacity of links, more than one source and destination, clocks that differ.

#![forbid(unsafe_code)]

mod agenda;
mod control;
mod faults;
mod lcore;
mod node;
mod oracle;
mod random;
mod scenario;
mod streams;
mod switch;
#[cfg(test)]
mod tests;
mod toy;
mod world;

pub use agenda::{Agenda, Fifo};
pub use faults::Fault;
pub use oracle::{Oracle, PacketId};
pub use random::Random;
pub use scenario::Scenario;
pub use toy::{ChainWorkload, FlowChain};
pub use world::World;

use slim_core::nf::NetworkFunction;

/// Traffic for a network function, made so that every packet can be told from every other after processing too.
pub trait Workload<N: NetworkFunction> {
    /// How the network function is configured.
    fn config(&self) -> N::Config;

    /// The packet to be sent into `id.port`.
    fn frame(&self, id: PacketId) -> Vec<u8>;

    /// Which packet this is, before or after processing; `None` for frames that are not of this traffic.
    fn identify(&self, frame: &[u8]) -> Option<PacketId>;
}
