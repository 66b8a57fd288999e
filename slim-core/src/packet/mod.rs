//! Packets: the buffer a network function works in, header views over any bytes, incremental checksums.

mod buffer;

pub use buffer::{NoRoom, OwnedPacket, PacketBuf};
