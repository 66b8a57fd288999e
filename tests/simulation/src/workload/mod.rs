//! Traffic for network functions, made so that every packet can be told from every other after processing too.

mod chain;
mod measured;
mod nat;

pub use chain::{ChainWorkload, FlowChain};
pub use measured::{Measurable, MeasuredLoad};
pub use nat::{NatPressure, NatWorkload};

use crate::{PacketId, Random};
use slim_core::nf::{NetworkFunction, PortId};
use slim_core::time::Instant;

/// The hosts around a network function.
pub trait Workload<N: NetworkFunction> {
    /// How the network function is configured.
    fn config(&self) -> N::Config;

    /// Which port and flow somebody sends the next packet into.
    fn choose(&mut self, random: &mut Random) -> (PortId, u32);

    /// The packet to be sent into `id.port`.
    fn frame(&mut self, now: Instant, id: PacketId, random: &mut Random) -> Vec<u8>;

    /// Which packet this is, before or after processing; `None` for frames that are not of this traffic.
    fn identify(&self, frame: &[u8]) -> Option<PacketId>;

    /// What somebody outside answers to a frame that left through `port`.
    fn react(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Option<(PortId, u32)>;

    /// The shard that a packet belongs to.
    fn shard(&self, id: PacketId, shards: u16) -> u16;
}
